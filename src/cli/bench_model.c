/* cli/bench_model.c: benchmarks of whole models: the options that make one, and the walk over lists of kinds, lengths,
 * batches, features, number formats and threads. */
#include "bench.h"
#include <string.h>

static const cli_option model_options[] = {
    {.name = "layers", .key = "num_hidden_layers"},
    {.name = "d-model", .key = "hidden_size"},
    {.name = "heads", .key = "num_attention_heads"},
    {.name = "kv-heads", .key = "num_key_value_heads"},
    {.name = "ffn", .key = "intermediate_size"},
    {.name = "dropout", .key = "hidden_dropout_prob"},
    {.name = "set", .type = CLI_PAIRS, .help = "any setting of the model by its key; may be repeated"},
};
const cli_group bench_model_group = {"Model", model_options, CLI_COUNT(model_options)};

/* Lists multiply; the last of them changes fastest. */
typedef struct plan {
    bench_words kinds, dtype;
    bench_list length, batch, features; /* features: one 0 without --features */
} plan;

static fv_status read_plan(const cli_args *args, plan *p)
{
    CLI_TRY(bench_kinds(args, &p->kinds));
    CLI_TRY(bench_read_words(args, "dtype", &p->dtype));
    p->features = (bench_list){1, {0}};
    if (cli_given(args, "features"))
        CLI_TRY(bench_numbers(args, "features", 1 << 20, &p->features));
    CLI_TRY(bench_numbers(args, "length", 1 << 30, &p->length));
    return bench_numbers(args, "batch", 1 << 20, &p->batch);
}

static int plan_lines(const plan *p)
{
    return p->kinds.count * p->length.count * p->batch.count * p->features.count * p->dtype.count;
}

/* Puts line `index` into the settings. */
static fv_status set_line(const plan *p, int rest, fv_config *config)
{
    CLI_TRY(fv_config_set(config, "dtype", p->dtype.at[bench_digit(&rest, p->dtype.count)]));
    CLI_TRY(
        bench_set_int(config, "attention.features", p->features.at[bench_digit(&rest, p->features.count)]));
    CLI_TRY(bench_set_int(config, "batch", p->batch.at[bench_digit(&rest, p->batch.count)]));
    CLI_TRY(bench_set_int(config, "length", p->length.at[bench_digit(&rest, p->length.count)]));
    return fv_config_set(config, "attention.kind", p->kinds.at[rest]);
}

static fv_status run_lines(bench *b, const plan *p, const bench_model *model, fv_config *config)
{
    for (int i = 0; i < b->total; i++) {
        int rest = i, which = bench_digit(&rest, b->threads.count);
        CLI_TRY(set_line(p, rest, config));
        fv_status status = model->time_line(b, which, config);
        if (status != FV_OK && fv_context_message(b->ctx[which])[0] != '\0')
            return cli_context_fail(b->ctx[which], status);
        CLI_TRY(status);
    }
    return bench_end(b, model->columns, model->column_count);
}

static fv_status run_settings(fv_context *ctx, const cli_args *args, const plan *p, const bench_model *model,
                              fv_config *config)
{
    bench b;
    CLI_TRY(cli_settings(args, config));
    fv_status status = bench_begin(&b, args, ctx, model->roof, plan_lines(p));
    if (status == FV_OK)
        status = run_lines(&b, p, model, config);
    bench_free(&b);
    return status;
}

fv_status bench_run_models(fv_context *ctx, const cli_args *args, const bench_model *model)
{
    plan p;
    fv_config *config;
    CLI_TRY(read_plan(args, &p));
    CLI_TRY(fv_config_create(&config, ctx));
    fv_status status = run_settings(ctx, args, &p, model, config);
    fv_config_destroy(config);
    return status;
}

/* ---- for their rows -------------------------------------------------------------------------------------- */

fv_status bench_set_int(fv_config *config, const char *key, int64_t value)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return fv_config_set(config, key, text);
}

fv_status bench_count_features(fv_context *ctx, const cli_args *args, const fv_config *config,
                               int64_t *features)
{
    fv_attention_options o;
    fv_attention *op;
    fv_attention_info info;
    CLI_TRY(cli_attention_options(args, fv_config_text(config, "attention.kind"), &o));
    o.causal = fv_config_bool(config, "is_decoder") || strcmp(fv_config_text(config, "task"), "lm") == 0;
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

json_t *bench_model_row(const fv_config *c, const char *x, int64_t features)
{
    return json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:i, s:s}", "kind",
                     fv_config_text(c, "attention.kind"), x, (json_int_t)fv_config_int(c, "length"), "batch",
                     (json_int_t)fv_config_int(c, "batch"), "layers",
                     (json_int_t)fv_config_int(c, "num_hidden_layers"), "d_model",
                     (json_int_t)fv_config_int(c, "hidden_size"), "heads",
                     (json_int_t)fv_config_int(c, "num_attention_heads"), "ffn",
                     (json_int_t)fv_config_int(c, "intermediate_size"), "features", (json_int_t)features,
                     "threads", 0, "dtype", fv_config_text(c, "dtype"));
}
