/* cli/bench_train.c: `favor bench train`: whole training steps (forward, loss, backward, clip, AdamW) on
 * synthetic tokens, timed over kinds, lengths, batches and threads. FLOP are the model's, by the counting
 * rule. */
#include "bench.h"

static const cli_option options[] = {
    {.name = "length",
     .type = CLI_LIST,
     .metavar = "L,...",
     .fallback = "512,2048",
     .help = "tokens a sequence"},
    {.name = "batch", .type = CLI_LIST, .metavar = "B,...", .fallback = "1", .help = "sequences a step"},
    {.name = "repeat",
     .type = CLI_INT,
     .metavar = "N",
     .min = 1,
     .max = 100000,
     .fallback = "3",
     .help = "timed steps a line, after one that warms up"},
    {.name = "task", .key = "task"},
};
static const cli_group own = {"Benchmark", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {
    &own, &bench_list_group, &bench_model_group, &bench_output_group, &cli_attention_group, &cli_common_group,
    NULL};

static json_t *make_row(const cli_args *args, const fv_config *c, int64_t features, const fv_step_timing *t)
{
    double seconds = t->ms_median * 1e-3;
    json_t *row = bench_model_row(c, "length", features);
    json_t *more =
        json_pack("{s:f, s:f, s:f, s:n, s:I, s:f, s:f, s:I, s:s}", "ms_median", t->ms_median, "tokens_per_s",
                  (double)t->tokens / seconds, "gflops", t->flop_step / seconds * 1e-9, "share_of_peak",
                  "peak_bytes", (json_int_t)t->peak_bytes, "ms_min", t->ms_min, "ms_max", t->ms_max,
                  "repeats", (json_int_t)cli_int(args, "repeat"), "task", fv_config_text(c, "task"));
    if (row != NULL)
        json_object_update(row, more);
    json_decref(more);
    return row;
}

static fv_status time_line(bench *b, int which, const fv_config *config)
{
    fv_context *ctx = b->ctx[which];
    fv_step_timing timing;
    int64_t features;
    CLI_TRY(bench_count_features(ctx, b->args, config, &features));
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
    return bench_add(b, which, make_row(b->args, config, features, &timing));
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
    {"gflops", "GFLOP/s", 8, BENCH_RATE},
    {"share_of_peak", "of P", 5, BENCH_SHARE},
    {"peak_bytes", "memory", 9, BENCH_BYTES},
};

static fv_status run(fv_context *ctx, const cli_args *args)
{
    if (bench_compares_files(args))
        return bench_compare_given(args);
    static const bench_model model = {&bench_sgemm, columns, CLI_COUNT(columns), time_line};
    return bench_run_models(ctx, args, &model);
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
