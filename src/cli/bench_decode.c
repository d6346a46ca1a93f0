/* cli/bench_decode.c: `favor bench decode`: time a token of a model's stream, at given positions.
 *
 * A stream is first fed the tokens before the position, in chunks as a prompt is; then tokens one by one, timed each,
 * without sampling. A token reads every weight once and the state of the tokens before it, so memory bounds it: bytes
 * are those of fv_stream_measure in the middle of the timed tokens, and their rate is held against the rate at which the
 * machine reads memory. Above 1: the weights stay in the processor's caches. The streams of a batch take their tokens
 * together, and share the weights.
 */
#include "bench.h"
#include <string.h>

static const cli_option options[] = {
    {.name = "length",
     .type = CLI_LIST,
     .metavar = "POSITION,...",
     .fallback = "1024,8192",
     .help = "tokens a stream holds when the first timed one comes"},
    {.name = "batch",
     .type = CLI_LIST,
     .metavar = "B,...",
     .fallback = "1",
     .help = "streams that take their tokens together"},
    {.name = "repeat",
     .type = CLI_INT,
     .metavar = "N",
     .min = 1,
     .max = 100000,
     .fallback = "32",
     .help = "timed tokens a stream, after one that warms up"},
};
static const cli_group own = {"Benchmark", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {
    &own, &bench_list_group, &bench_model_group, &bench_output_group, &cli_attention_group, &cli_common_group,
    NULL};

/* What is held for a line. */
typedef struct work {
    fv_context *ctx;
    fv_config *config; /* of the model */
    fv_model *model;
    fv_stream **streams;
    int64_t batch, position;
    int repeat;
    int64_t fed; /* tokens made so far */
    int32_t *prompt;
    int32_t *tokens; /* [batch] */
    float *logits;   /* [batch][vocabulary] */
    double *seconds;
} work;

/* ---- the model and its streams ------------------------------------------------------------------------- */

static int64_t capacity_of(const work *w)
{
    return w->position + 1 + w->repeat;
}

/* A causal model whose positions reach the last token. */
static fv_status make_model(work *w, const fv_config *config)
{
    CLI_TRY(fv_config_copy(&w->config, config));
    CLI_TRY(fv_config_set(w->config, "is_decoder", "true"));
    CLI_TRY(bench_set_int(w->config, "length", capacity_of(w)));
    if (fv_config_int(config, "max_position_embeddings") == 0)
        CLI_TRY(bench_set_int(w->config, "max_position_embeddings", capacity_of(w)));
    return fv_model_create(&w->model, w->ctx, w->config, (uint64_t)fv_config_int(config, "seed"));
}

static fv_status check_memory(const work *w)
{
    fv_stream_cost cost;
    double available = (double)fv_available_memory();
    CLI_TRY(fv_stream_measure(w->model, capacity_of(w), &cost));
    return (double)cost.state * (double)w->batch > available ? FV_ERR_RESOURCE : FV_OK;
}

static fv_status make_streams(work *w)
{
    int64_t vocabulary = fv_model_tokenizer(w->model)->size;
    w->prompt = fv_alloc(w->ctx, (size_t)w->position * sizeof *w->prompt);
    w->tokens = fv_alloc(w->ctx, (size_t)w->batch * sizeof *w->tokens);
    w->logits = fv_alloc(w->ctx, (size_t)(w->batch * vocabulary) * sizeof *w->logits);
    w->seconds = fv_alloc(w->ctx, (size_t)w->repeat * sizeof *w->seconds);
    w->streams = fv_alloc(w->ctx, (size_t)w->batch * sizeof(fv_stream *));
    if (w->prompt == NULL || w->tokens == NULL || w->logits == NULL || w->seconds == NULL ||
        w->streams == NULL)
        return FV_ERR_RESOURCE;
    memset(w->streams, 0, (size_t)w->batch * sizeof(fv_stream *));
    for (int64_t s = 0; s < w->batch; s++)
        CLI_TRY(fv_stream_create(&w->streams[s], w->model, capacity_of(w)));
    return FV_OK;
}

static void release(work *w)
{
    for (int64_t s = 0; w->streams != NULL && s < w->batch; s++)
        fv_stream_destroy(w->streams[s]);
    fv_free(w->ctx, w->streams);
    fv_free(w->ctx, w->prompt);
    fv_free(w->ctx, w->tokens);
    fv_free(w->ctx, w->logits);
    fv_free(w->ctx, w->seconds);
    fv_model_destroy(w->model);
    fv_config_destroy(w->config);
}

/* ---- timing -------------------------------------------------------------------------------------------- */

/* Some letter after another. */
static int32_t next_token(work *w)
{
    uint64_t mixed = (uint64_t)++w->fed * 0x9e3779b97f4a7c15u;
    return (int32_t)((mixed >> 32) % (uint64_t)fv_model_tokenizer(w->model)->letters);
}

/* Touches the memory of a prompt's chunks. */
static fv_status warm_up(work *w)
{
    fv_stream *stream;
    int64_t count = w->position < 1024 ? w->position : 1024;
    CLI_TRY(fv_stream_create(&stream, w->model, count));
    fv_status status = fv_stream_feed(stream, w->prompt, count, w->logits);
    fv_stream_destroy(stream);
    return status;
}

static fv_status feed_prompts(work *w, double *seconds)
{
    for (int64_t t = 0; t < w->position; t++)
        w->prompt[t] = next_token(w);
    CLI_TRY(warm_up(w));
    double begin = cli_now();
    for (int64_t s = 0; s < w->batch; s++)
        CLI_TRY(fv_stream_feed(w->streams[s], w->prompt, w->position, w->logits));
    *seconds = cli_now() - begin;
    return FV_OK;
}

/* One token for every stream; *seconds for one of them. */
static fv_status feed_round(work *w, double *seconds)
{
    for (int64_t s = 0; s < w->batch; s++)
        w->tokens[s] = next_token(w);
    double begin = cli_now();
    CLI_TRY(fv_streams_step(w->streams, w->batch, w->tokens, w->logits));
    *seconds = (cli_now() - begin) / (double)w->batch;
    return FV_OK;
}

static fv_status feed_rounds(work *w, bench_spread *ms)
{
    double warm;
    CLI_TRY(feed_round(w, &warm));
    for (int i = 0; i < w->repeat; i++)
        CLI_TRY(feed_round(w, &w->seconds[i]));
    *ms = bench_spread_of(w->seconds, w->repeat);
    return FV_OK;
}

/* ---- lines --------------------------------------------------------------------------------------------- */

static fv_status make_row(const bench *b, const fv_config *config, const work *w, const bench_spread *ms,
                          double prefill, json_t **row)
{
    fv_stream_cost cost;
    int64_t features;
    CLI_TRY(bench_count_features(w->ctx, b->args, w->config, &features));
    CLI_TRY(fv_stream_measure(w->model, w->position + 1 + w->repeat / 2, &cost));
    double bytes = (double)cost.weights / (double)w->batch + (double)cost.state;
    *row = bench_model_row(config, "position", features);
    json_t *more = json_pack("{s:f, s:I, s:f, s:n, s:f, s:f, s:f, s:f, s:I, s:i}", "ms_per_token", ms->median,
                             "bytes_per_token", (json_int_t)bytes, "bandwidth_gbs", bytes / ms->median * 1e-6,
                             "share_of_bandwidth", "tokens_per_s", 1000 / ms->median, "prefill_tokens_per_s",
                             (double)(w->position * w->batch) / prefill, "ms_min", ms->min, "ms_max", ms->max,
                             "parameters", (json_int_t)fv_model_parameters(w->model), "repeats", w->repeat);
    json_object_update(*row, more);
    json_decref(more);
    return FV_OK;
}

static fv_status measure(const bench *b, const fv_config *config, work *w, json_t **row)
{
    bench_spread ms;
    double prefill;
    size_t before = fv_context_bytes(w->ctx);
    fv_context_reset_peak(w->ctx);
    if (strcmp(fv_config_text(config, "attention.kind"), "auto") == 0)
        return cli_fail(FV_ERR_USAGE,
                        "bench decode: --attention auto goes by the time of whole calls; name the "
                        "kinds to compare");
    CLI_TRY(fv_context_set_dtype(w->ctx, fv_config_text(config, "dtype")));
    CLI_TRY(make_model(w, config));
    CLI_TRY(check_memory(w));
    CLI_TRY(make_streams(w));
    CLI_TRY(feed_prompts(w, &prefill));
    CLI_TRY(feed_rounds(w, &ms));
    size_t peak = fv_context_peak_bytes(w->ctx) - before;
    CLI_TRY(make_row(b, config, w, &ms, prefill, row));
    json_object_set_new(*row, "peak_bytes", json_integer((json_int_t)peak));
    return FV_OK;
}

static fv_status time_line(bench *b, int which, const fv_config *config)
{
    work w = {.ctx = b->ctx[which],
              .batch = fv_config_int(config, "batch"),
              .position = fv_config_int(config, "length"),
              .repeat = (int)cli_int(b->args, "repeat")};
    json_t *row = NULL;
    fv_status status = measure(b, config, &w, &row);
    release(&w);
    if (status == FV_OK)
        return bench_add(b, which, row);
    json_decref(row);
    if (status != FV_ERR_RESOURCE)
        return status;
    char name[96];
    snprintf(name, sizeof name, "%s, %lld streams at position %lld", fv_config_text(config, "attention.kind"),
             (long long)w.batch, (long long)w.position);
    bench_skip(b, name, "model and streams do not fit into memory");
    return FV_OK;
}

static const bench_column columns[] = {
    {"kind", "kind", 8, BENCH_TEXT},
    {"position", "position", 8, BENCH_INT},
    {"batch", "batch", 5, BENCH_INT},
    {"layers", "layers", 6, BENCH_INT},
    {"d_model", "d_model", 7, BENCH_INT},
    {"heads", "heads", 5, BENCH_INT},
    {"ffn", "ffn", 5, BENCH_INT},
    {"features", "features", 8, BENCH_INT},
    {"threads", "threads", 7, BENCH_INT},
    {"dtype", "dtype", 5, BENCH_TEXT},
    {"ms_per_token", "ms a token", 10, BENCH_MS},
    {"ms_min", "min", 8, BENCH_MS},
    {"ms_max", "max", 8, BENCH_MS},
    {"bytes_per_token", "it reads", 9, BENCH_BYTES},
    {"bandwidth_gbs", "GB/s", 6, BENCH_RATE},
    {"share_of_bandwidth", "share", 5, BENCH_SHARE},
    {"prefill_tokens_per_s", "prompt/s", 9, BENCH_INT},
    {"peak_bytes", "memory", 9, BENCH_BYTES},
};

static fv_status run(fv_context *ctx, const cli_args *args)
{
    if (bench_compares_files(args))
        return bench_compare_given(args);
    static const bench_model model = {&bench_bandwidth, columns, CLI_COUNT(columns), time_line};
    return bench_run_models(ctx, args, &model);
}

const cli_command cli_bench_decode = {
    .name = "bench decode",
    .summary = "time a token of a stream over kinds, positions and threads",
    .description = "Each line feeds a causal model of random weights all tokens before a position, as a "
                   "prompt, and then times "
                   "tokens one by one, as `favor generate` computes them, without sampling. A token reads "
                   "every weight once "
                   "and the state of the tokens before it: `it reads` counts these bytes, `share` is their "
                   "rate against the "
                   "rate at which this machine reads memory, measured in the same run at the same number of "
                   "threads. Above 1 "
                   "the weights stay in the processor's caches. `prompt/s` are the tokens of the prompt a "
                   "second. The streams "
                   "of a batch take their tokens together and share what the weights cost; times and bytes "
                   "are those of one of "
                   "their tokens.",
    .examples =
        "favor bench decode\n"
        "favor bench decode --attention exact,relu --length 1024,16384,262144 --layers 12 --d-model 768 "
        "--heads 12 --ffn 3072 --json",
    .groups = groups,
    .run = run,
};
