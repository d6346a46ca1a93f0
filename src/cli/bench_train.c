/* cli/bench_train.c: `favor bench train`: whole training steps (forward, loss, backward, clip, AdamW) on
 * synthetic tokens, timed over kinds, lengths, batches and threads. FLOP are the model's, by the counting
 * rule. */
#include "bench.h"
#include <string.h>

static const cli_option options[] = {
    {.name = "attention",
     .type = CLI_LIST,
     .metavar = "NAME,...",
     .fallback = "exact,favor+,relu",
     .help = "kinds of attention"},
    {.name = "length",
     .type = CLI_LIST,
     .metavar = "L,...",
     .fallback = "512,2048",
     .help = "tokens a sequence"},
    {.name = "batch", .type = CLI_LIST, .metavar = "B,...", .fallback = "1", .help = "sequences a step"},
    {.name = "features",
     .type = CLI_LIST,
     .metavar = "M,...",
     .fallback = "as the kind says",
     .help = "random projections, for kinds that have some"},
    {.name = "threads",
     .type = CLI_LIST,
     .metavar = "N,...",
     .fallback = "all processors",
     .help = "threads"},
    {.name = "dtype",
     .type = CLI_LIST,
     .choices = "f32|bf16",
     .fallback = "f32",
     .help = "number formats of the factors of matrix products"},
    {.name = "repeat",
     .type = CLI_INT,
     .metavar = "N",
     .min = 1,
     .max = 100000,
     .fallback = "3",
     .help = "timed steps a line, after one that warms up"},
};
static const cli_option model_options[] = {
    {.name = "task", .key = "task"},
    {.name = "layers", .key = "num_hidden_layers"},
    {.name = "d-model", .key = "hidden_size"},
    {.name = "heads", .key = "num_attention_heads"},
    {.name = "kv-heads", .key = "num_key_value_heads"},
    {.name = "ffn", .key = "intermediate_size"},
    {.name = "dropout", .key = "hidden_dropout_prob"},
    {.name = "set", .type = CLI_PAIRS, .help = "any setting of the model by its key; may be repeated"},
};
static const cli_group own = {"Benchmark", options, CLI_COUNT(options)};
static const cli_group model_group = {"Model", model_options, CLI_COUNT(model_options)};
static const cli_group *const groups[] = {&own, &model_group, &cli_attention_group, &cli_common_group, NULL};

typedef struct plan {
    const char *kinds[BENCH_LIST_MAX];
    int kind_count;
    bench_dtypes dtypes;
    bench_list length, batch, features; /* features: one 0 without --features */
} plan;

static fv_status read_plan(const cli_args *args, plan *p)
{
    static const char *const usual[] = {"exact", "favor+", "relu"};
    bool given = cli_given(args, "attention");
    p->kind_count = given ? cli_count(args, "attention") : CLI_COUNT(usual);
    if (p->kind_count > BENCH_LIST_MAX)
        return cli_fail(FV_ERR_USAGE, "--attention: more than %d names", BENCH_LIST_MAX);
    for (int i = 0; i < p->kind_count; i++) {
        const fv_attention_kind *kind;
        p->kinds[i] = given ? cli_item(args, "attention", i) : usual[i];
        CLI_TRY(cli_attention_kind(p->kinds[i], &kind));
    }
    p->dtypes = bench_read_dtypes(args);
    p->features = (bench_list){1, {0}};
    if (cli_given(args, "features"))
        CLI_TRY(bench_numbers(args, "features", 1 << 20, &p->features));
    CLI_TRY(bench_numbers(args, "length", 1 << 30, &p->length));
    return bench_numbers(args, "batch", 1 << 20, &p->batch);
}

static fv_status set_int(fv_config *config, const char *key, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return fv_config_set(config, key, text);
}

/* Features a head really has: of the operator the model will make. */
static fv_status count_features(fv_context *ctx, const cli_args *args, const fv_config *config,
                                int64_t *features)
{
    fv_attention_options o;
    fv_attention *op;
    fv_attention_info info;
    CLI_TRY(cli_attention_options(args, fv_config_text(config, "attention.kind"), &o));
    o.heads = fv_config_int(config, "num_attention_heads");
    o.dim = fv_config_int(config, "head_dim");
    o.dim = o.dim > 0 ? o.dim : fv_config_int(config, "hidden_size") / o.heads;
    o.features = fv_config_int(config, "attention.features");
    CLI_TRY(fv_attention_create(&op, ctx, &o));
    fv_attention_get_info(op, &info);
    fv_attention_destroy(op);
    *features = info.feature_count;
    return FV_OK;
}

static json_t *make_row(const fv_config *c, int64_t features, const fv_step_timing *t)
{
    double seconds = t->ms_median * 1e-3;
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:s, s:f, s:f, s:f, s:n, s:I}", "kind",
                     fv_config_text(c, "attention.kind"), "length", (json_int_t)fv_config_int(c, "length"),
                     "batch", (json_int_t)fv_config_int(c, "batch"), "layers",
                     (json_int_t)fv_config_int(c, "num_hidden_layers"), "d_model",
                     (json_int_t)fv_config_int(c, "hidden_size"), "heads",
                     (json_int_t)fv_config_int(c, "num_attention_heads"), "ffn",
                     (json_int_t)fv_config_int(c, "intermediate_size"), "features", (json_int_t)features,
                     "threads", 0, "dtype", fv_config_text(c, "dtype"), "ms_median", t->ms_median,
                     "tokens_per_s", (double)t->tokens / seconds, "gflops", t->flop_step / seconds * 1e-9,
                     "share_of_peak", "peak_bytes", (json_int_t)t->peak_bytes);
}

static fv_status time_line(bench *b, int which, const fv_config *config)
{
    fv_context *ctx = b->ctx[which];
    fv_step_timing timing;
    int64_t features;
    CLI_TRY(count_features(ctx, b->args, config, &features));
    fv_status status = fv_time_step(ctx, config, (int)cli_int(b->args, "repeat"), &timing);
    if (status == FV_ERR_RESOURCE) {
        char name[96];
        snprintf(name, sizeof name, "%s, %lld sequences of %lld tokens",
                 fv_config_text(config, "attention.kind"), (long long)fv_config_int(config, "batch"),
                 (long long)fv_config_int(config, "length"));
        bench_skip(b, name, fv_context_message(ctx));
        return FV_OK;
    }
    CLI_TRY(status);
    return bench_add(b, which, make_row(config, features, &timing));
}

/* Lists multiply; the last of them changes fastest. */
static fv_status run_line(bench *b, const plan *p, int index, fv_config *config, int *which)
{
    int rest = index;
    *which = bench_digit(&rest, b->threads.count);
    CLI_TRY(fv_config_set(config, "dtype", p->dtypes.at[bench_digit(&rest, p->dtypes.count)]));
    CLI_TRY(set_int(config, "attention.features", p->features.at[bench_digit(&rest, p->features.count)]));
    CLI_TRY(set_int(config, "batch", p->batch.at[bench_digit(&rest, p->batch.count)]));
    CLI_TRY(set_int(config, "length", p->length.at[bench_digit(&rest, p->length.count)]));
    CLI_TRY(fv_config_set(config, "attention.kind", p->kinds[rest]));
    return time_line(b, *which, config);
}

static const bench_column columns[] = {
    {"kind", "kind", 8, BENCH_TEXT},
    {"length", "length", 8, BENCH_INT},
    {"batch", "batch", 5, BENCH_INT},
    {"layers", "layers", 6, BENCH_INT},
    {"d_model", "d_model", 7, BENCH_INT},
    {"heads", "heads", 5, BENCH_INT},
    {"ffn", "ffn", 5, BENCH_INT},
    {"features", "features", 8, BENCH_INT},
    {"threads", "threads", 7, BENCH_INT},
    {"dtype", "dtype", 5, BENCH_TEXT},
    {"ms_median", "median ms", 9, BENCH_MS},
    {"tokens_per_s", "tokens/s", 9, BENCH_INT},
    {"gflops", "GFLOP/s", 8, BENCH_GFLOPS},
    {"share_of_peak", "of P", 5, BENCH_SHARE},
    {"peak_bytes", "memory", 9, BENCH_BYTES},
};

static fv_status run_lines(fv_context *ctx, const cli_args *args, const plan *p, fv_config *config)
{
    bench b;
    int which = 0;
    int total = p->kind_count * p->length.count * p->batch.count * p->features.count * p->dtypes.count;
    fv_status status = bench_begin(&b, args, ctx, total);
    for (int i = 0; i < b.total && status == FV_OK; i++) {
        status = run_line(&b, p, i, config, &which);
        if (status != FV_OK && fv_context_message(b.ctx[which])[0] != '\0')
            status = cli_context_fail(b.ctx[which], status);
    }
    if (status == FV_OK)
        status = bench_end(&b, columns, CLI_COUNT(columns));
    bench_free(&b);
    return status;
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    plan p = {0};
    fv_config *config;
    CLI_TRY(read_plan(args, &p));
    CLI_TRY(fv_config_create(&config, ctx));
    fv_status status = cli_settings(args, config);
    if (status == FV_OK)
        status = run_lines(ctx, args, &p, config);
    fv_config_destroy(config);
    return status;
}

const cli_command cli_bench_train = {
    .name = "bench train",
    .summary = "time whole training steps over kinds, lengths and threads",
    .description =
        "Each line times steps (forward, loss, backward, clip, AdamW) on synthetic tokens. Options that take "
        "lists multiply. GFLOP/s count the model's work by the formulas; `of P` is its share of the sgemm "
        "rate "
        "P measured in the same run. A line that does not fit into memory is left out.",
    .examples =
        "favor bench train\n"
        "favor bench train --attention favor+ --length 512,8192 --batch 1 --d-model 512 --heads 8 --json",
    .groups = groups,
    .run = run,
};
