/* timing.c: training steps on synthetic tokens, timed one by one for `favor bench train`.
 *
 * A step is what fv_train does between two batches: forward, loss, backward, norm, clip, AdamW. Letters are
 * drawn at random; mlm predicts every 1/mask_rate-th of them. The peak counts what the context allocates.
 */
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

/* Letters and targets of the task. */
static void fill_batch(bench *b, const fv_tokenizer *tokenizer)
{
    bool lm = strcmp(fv_config_text(b->config, "task"), "lm") == 0;
    double rate = lm ? 1.0 : fv_config_real(b->config, "mask_rate");
    fv_random random = fv_random_make((uint64_t)fv_config_int(b->config, "seed"), FV_RANDOM_BENCH, 0, 0);
    for (int64_t i = 0; i < b->batch.tokens; i++) {
        int32_t letter = (int32_t)fv_random_below(&random, (uint64_t)tokenizer->letters);
        bool predicted = is_predicted(i, rate);
        b->inputs[i] = predicted && !lm ? tokenizer->mask : letter;
        b->targets[i] = predicted ? letter : -1;
        b->batch.predicted += predicted;
    }
    int64_t length = b->batch.tokens / b->batch.sequences;
    for (int64_t s = 0; s <= b->batch.sequences; s++)
        b->offsets[s] = s * length;
}

static fv_status make_batch(bench *b, int repeat)
{
    int64_t tokens, batch = fv_config_int(b->config, "batch");
    if (!fv_mul(batch, fv_config_int(b->config, "length"), &tokens) || tokens > INT32_MAX)
        return fv_fail(b->ctx, FV_ERR_USAGE, "batch: batch times length is more than 2^31 tokens");
    b->inputs = fv_alloc_array(b->ctx, tokens, sizeof *b->inputs);
    b->targets = fv_alloc_array(b->ctx, tokens, sizeof *b->targets);
    b->offsets = fv_alloc_array(b->ctx, batch + 1, sizeof *b->offsets);
    b->seconds = fv_alloc_array(b->ctx, repeat, sizeof *b->seconds);
    if (b->inputs == NULL || b->targets == NULL || b->offsets == NULL || b->seconds == NULL)
        return FV_ERR_RESOURCE;
    b->batch = (fv_batch){.tokens = tokens,
                          .sequences = batch,
                          .inputs = b->inputs,
                          .targets = b->targets,
                          .offsets = b->offsets};
    fill_batch(b, fv_model_tokenizer(b->model));
    return FV_OK;
}

static fv_status check_memory(bench *b, fv_step_timing *timing)
{
    fv_model_cost cost;
    size_t available = fv_available_memory();
    TRY(fv_model_measure(b->model, b->batch.tokens, b->batch.tokens / b->batch.sequences, b->batch.predicted,
                         &cost));
    timing->flop_step = cost.flop_step;
    if (cost.bytes <= available)
        return FV_OK;
    return fv_fail(b->ctx, FV_ERR_RESOURCE,
                   "a step needs about %.2f GiB, %.2f GiB are available; lower batch or "
                   "length",
                   (double)cost.bytes / 0x1p30, (double)available / 0x1p30);
}

static fv_status step(bench *b, int64_t t)
{
    double loss = 0.0;
    int64_t correct = 0;
    uint64_t seed = (uint64_t)fv_config_int(b->config, "seed");
    TRY(fv_model_train_batch(b->model, &b->batch, 1.0f, seed, t, 0, &loss, &correct));
    double mean = 1.0 / (double)FV_MAX(b->batch.predicted, 1);
    double norm = fv_optimizer_norm(b->optimizer) * mean;
    fv_optimizer_step(b->optimizer, t + 1, fv_schedule_rate(&b->schedule, t + 1),
                      fv_optimizer_clip(b->optimizer, norm) * mean);
    return FV_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static fv_status time_steps(bench *b, int repeat, fv_step_timing *timing)
{
    TRY(step(b, 0)); /* plans, touches its memory */
    for (int i = 0; i < repeat; i++) {
        double begin = fv_now();
        TRY(step(b, i + 1));
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

static fv_status run(bench *b, const fv_config *config, int repeat, fv_step_timing *timing)
{
    TRY(fv_settings_complete(&b->config, b->ctx, config));
    TRY(fv_schedule_make(&b->schedule, b->ctx, b->config));
    TRY(fv_model_build(&b->model, b->ctx, b->config));
    TRY(make_batch(b, repeat));
    TRY(check_memory(b, timing));
    TRY(fv_model_start(b->model, (uint64_t)fv_config_int(b->config, "seed")));
    TRY(fv_model_prepare(b->model, b->batch.tokens, b->batch.sequences, b->batch.predicted, true));
    TRY(fv_optimizer_create(&b->optimizer, b->ctx, b->model, b->config));
    return time_steps(b, repeat, timing);
}

fv_status fv_time_step(fv_context *ctx, const fv_config *config, int repeat, fv_step_timing *timing)
{
    bench b = {.ctx = ctx};
    memset(timing, 0, sizeof *timing);
    if (repeat < 1)
        return fv_fail(ctx, FV_ERR_USAGE, "repeat: %d steps cannot be timed, expected 1 or more", repeat);
    fv_context_reset_peak(ctx);
    fv_status status = run(&b, config, repeat, timing);
    fv_free(ctx, b.inputs);
    fv_free(ctx, b.targets);
    fv_free(ctx, b.offsets);
    fv_free(ctx, b.seconds);
    fv_optimizer_destroy(b.optimizer);
    fv_model_destroy(b.model);
    fv_config_destroy(b.config);
    return status;
}
