/* timing.c: training steps and passes on synthetic tokens, timed one by one for `favor bench`.
 *
 * A step is what fv_train does between two batches: forward, loss, backward, norm, clip, AdamW. Letters are
 * drawn at random; mlm predicts every 1/mask_rate-th of them. The peak counts what the context allocates.
 */
#include "data/data.h"
#include "train/internal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct bench {
    fv_context *ctx;
    fv_config *config;
    fv_model *model;
    fv_optimizer *optimizer;
    fv_schedule schedule;
    int32_t *inputs, *targets;
    int64_t *offsets;
    double *seconds;
    fv_batch batch;
} bench;

static bool is_predicted(int64_t token, double rate)
{
    return floor((double)(token + 1) * rate) > floor((double)token * rate);
}

/* Letters and targets or labels of the task. */
static void fill_batch(bench *b, const fv_tokenizer *tokenizer)
{
    bool masked = strcmp(fv_config_text(b->config, "task"), "mlm") == 0;
    double rate = masked ? fv_config_real(b->config, "mask_rate") : 1.0;
    uint64_t labels = (uint64_t)fv_config_int(b->config, "num_labels");
    fv_random random = fv_random_make((uint64_t)fv_config_int(b->config, "seed"), FV_RANDOM_BENCH, 0, 0);
    for (int64_t i = 0; i < b->batch.tokens; i++) {
        int32_t letter = (int32_t)fv_random_below(&random, (uint64_t)tokenizer->letters);
        bool predicted = is_predicted(i, rate);
        b->inputs[i] = predicted && masked ? tokenizer->mask : letter;
        b->targets[i] = predicted ? letter : -1;
        b->batch.predicted += predicted;
    }
    int64_t length = b->batch.tokens / b->batch.sequences;
    for (int64_t s = 0; s <= b->batch.sequences; s++)
        b->offsets[s] = s * length;
    if (strcmp(fv_config_text(b->config, "head"), "lm") == 0)
        return;
    b->batch.predicted = fv_config_int(b->config, "batch");
    for (int64_t i = 0; i < b->batch.predicted; i++)
        b->targets[i] = (int32_t)fv_random_below(&random, labels);
    b->batch.labels = b->targets;
}

static fv_status make_batch(bench *b, int repeat)
{
    fv_batch_bounds most;
    TRY(fv_task_bounds(b->ctx, b->config, &most));
    b->inputs = fv_alloc_array(b->ctx, most.tokens, sizeof *b->inputs);
    b->targets = fv_alloc_array(b->ctx, most.tokens, sizeof *b->targets);
    b->offsets = fv_alloc_array(b->ctx, most.sequences + 1, sizeof *b->offsets);
    b->seconds = fv_alloc_array(b->ctx, repeat, sizeof *b->seconds);
    if (b->inputs == NULL || b->targets == NULL || b->offsets == NULL || b->seconds == NULL)
        return FV_ERR_RESOURCE;
    b->batch = (fv_batch){.tokens = most.tokens,
                          .sequences = most.sequences,
                          .inputs = b->inputs,
                          .targets = b->targets,
                          .offsets = b->offsets};
    fill_batch(b, fv_model_tokenizer(b->model));
    if (fv_config_bool(b->config, "is_encoder_decoder")) {
        b->batch.source_tokens = most.tokens;
        b->batch.source = b->inputs;
        b->batch.source_offsets = b->offsets;
    }
    return FV_OK;
}

/* ---- what is timed ------------------------------------------------------------------------------------- */

/* Call number t. */
typedef fv_status timed_call(bench *b, int64_t t);

static fv_status forward(bench *b, int64_t t)
{
    (void)t;
    double loss = 0.0;
    int64_t correct = 0;
    return fv_model_evaluate(b->model, &b->batch, &loss, &correct);
}

static fv_status forward_backward(bench *b, int64_t t)
{
    double loss = 0.0;
    int64_t correct = 0;
    uint64_t seed = (uint64_t)fv_config_int(b->config, "seed");
    return fv_model_train_batch(b->model, &b->batch, 1.0f, seed, t, 0, &loss, &correct);
}

static fv_status step(bench *b, int64_t t)
{
    TRY(forward_backward(b, t));
    double mean = 1.0 / (double)FV_MAX(b->batch.predicted, 1);
    double norm = fv_optimizer_norm(b->optimizer) * mean;
    fv_optimizer_step(b->optimizer, t + 1, fv_schedule_rate(&b->schedule, t + 1),
                      fv_optimizer_clip(b->optimizer, norm) * mean);
    return FV_OK;
}

/* A pass forward alone keeps nothing for backward; only steps need an optimizer. */
typedef struct timed {
    timed_call *call;
    bool training, optimizer;
} timed;

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static fv_status time_calls(bench *b, const timed *what, int repeat, fv_step_timing *timing)
{
    TRY(what->call(b, 0)); /* plans, touches its memory */
    for (int i = 0; i < repeat; i++) {
        double begin = fv_now();
        TRY(what->call(b, i + 1));
        b->seconds[i] = fv_now() - begin;
    }
    qsort(b->seconds, (size_t)repeat, sizeof *b->seconds, by_value);
    timing->ms_min = 1e3 * b->seconds[0];
    timing->ms_max = 1e3 * b->seconds[repeat - 1];
    timing->ms_median = 0.5e3 * (b->seconds[(repeat - 1) / 2] + b->seconds[repeat / 2]);
    timing->tokens = b->batch.tokens;
    timing->peak_bytes = fv_context_peak_bytes(b->ctx);
    return FV_OK;
}

/* ---- the model, its batch and their memory --------------------------------------------------------------- */

/* Synthetic tokens come from no file: a task that reads columns gets their reader. */
static fv_status complete_settings(bench *b, const fv_config *given)
{
    fv_config *config;
    const fv_task_row *task = fv_task_find(fv_config_text(given, "task"));
    TRY(fv_config_copy(&config, given));
    fv_status status = task != NULL && task->texts > 0 ? fv_config_set(config, "reader", "tsv") : FV_OK;
    if (status == FV_OK)
        status = fv_settings_complete(&b->config, b->ctx, config);
    fv_config_destroy(config);
    return status;
}

/* A model whose memory is reserved, not touched, and what a step on `predicted` targets costs. */
static fv_status build(bench *b, const fv_config *config, int64_t *predicted, fv_model_cost *cost)
{
    fv_batch_bounds most;
    TRY(complete_settings(b, config));
    TRY(fv_context_set_dtype(b->ctx, fv_config_text(b->config, "dtype")));
    TRY(fv_schedule_make(&b->schedule, b->ctx, b->config));
    TRY(fv_model_build(&b->model, b->ctx, b->config));
    TRY(fv_task_bounds(b->ctx, b->config, &most));
    *predicted = most.predicted;
    return fv_model_measure(b->model, most.tokens, most.tokens / most.sequences, most.predicted, cost);
}

static fv_status check_memory(fv_context *ctx, const char *what, size_t bytes, size_t available)
{
    if (bytes <= available)
        return FV_OK;
    return fv_fail(ctx, FV_ERR_RESOURCE,
                   "a %s needs about %.2f GiB, %.2f GiB are available; lower batch or "
                   "length",
                   what, (double)bytes / 0x1p30, (double)available / 0x1p30);
}

static fv_status prepare(bench *b, const timed *what, const fv_config *config, int repeat,
                         fv_step_timing *timing)
{
    size_t available = fv_available_memory(), before = fv_context_bytes(b->ctx);
    int64_t predicted;
    fv_model_cost cost;
    TRY(build(b, config, &predicted, &cost));
    timing->flop_step = what->training ? cost.flop_step : cost.flop_forward;
    if (what->training)
        TRY(check_memory(b->ctx, "step", cost.bytes, available));
    TRY(make_batch(b, repeat));
    TRY(fv_model_prepare(b->model, b->batch.tokens, b->batch.sequences, predicted, what->training));
    TRY(check_memory(b->ctx, "pass", fv_context_bytes(b->ctx) - before, available));
    TRY(fv_model_start(b->model, (uint64_t)fv_config_int(b->config, "seed")));
    return what->optimizer ? fv_optimizer_create(&b->optimizer, b->ctx, b->model, b->config) : FV_OK;
}

static void release(bench *b)
{
    fv_free(b->ctx, b->inputs);
    fv_free(b->ctx, b->targets);
    fv_free(b->ctx, b->offsets);
    fv_free(b->ctx, b->seconds);
    fv_optimizer_destroy(b->optimizer);
    fv_model_destroy(b->model);
    fv_config_destroy(b->config);
}

static fv_status time_what(fv_context *ctx, const timed *what, const fv_config *config, int repeat,
                           fv_step_timing *timing)
{
    bench b = {.ctx = ctx};
    memset(timing, 0, sizeof *timing);
    if (repeat < 1)
        return fv_fail(ctx, FV_ERR_USAGE, "repeat: %d steps cannot be timed, expected 1 or more", repeat);
    fv_context_reset_peak(ctx);
    const char *dtype = fv_context_dtype(ctx);
    fv_status status = prepare(&b, what, config, repeat, timing);
    if (status == FV_OK)
        status = time_calls(&b, what, repeat, timing);
    (void)fv_context_set_dtype(ctx, dtype);
    release(&b);
    return status;
}

fv_status fv_time_step(fv_context *ctx, const fv_config *config, int repeat, fv_step_timing *timing)
{
    return time_what(ctx, &(timed){step, true, true}, config, repeat, timing);
}

fv_status fv_time_pass(fv_context *ctx, const fv_config *config, int backward, int repeat,
                       fv_step_timing *timing)
{
    const timed what = {backward ? forward_backward : forward, backward != 0, false};
    return time_what(ctx, &what, config, repeat, timing);
}

fv_status fv_predict_step(fv_context *ctx, const fv_config *config, fv_model_cost *cost)
{
    bench b = {.ctx = ctx};
    int64_t predicted;
    *cost = (fv_model_cost){0};
    const char *dtype = fv_context_dtype(ctx);
    fv_status status = build(&b, config, &predicted, cost);
    (void)fv_context_set_dtype(ctx, dtype);
    release(&b);
    return status;
}
