/* choose.c: `auto`: exact attention below the length where a kernelized kind becomes faster on this machine.
 *
 * Exact attention costs L^2, the other L, apart from what both pay per call. One call of each is timed at a length, which gives
 * an estimate of where they meet, and once more near there. Times are the best of a few: what else the machine does
 * makes a call slower, never faster.
 */
#include "attention/mechanism.h"
#include <string.h>

enum { FIRST_LENGTH = 1024, LEAST_LENGTH = 64, MOST_LENGTH = 4096, CALLS = 3, ROUNDS = 2 };

/* What one timed call needs: inputs and output, [length][H][d] each, and the operator's own memory. */
typedef struct trial {
    fv_context *ctx;
    fv_attention *op;
    int64_t offsets[2];
    fv_layout layout;
    float *arrays, *drawn;
    void *saved, *scratch;
    fv_attention_io io;
    fv_attention_grad grad;
    bool backward;
} trial;

static void release(trial *t)
{
    void *memory[] = {t->arrays, t->drawn, t->saved, t->scratch};
    for (int i = 0; i < FV_COUNT(memory); i++)
        fv_free(t->ctx, memory[i]);
    fv_attention_destroy(t->op);
}

/* Small random q, k, v and dy; the gradients behind them. */
static bool make_arrays(trial *t)
{
    const fv_attention_options *o = &t->op->options;
    int64_t tokens = t->offsets[1];
    int64_t widths[] = {o->heads * o->dim,       o->kv_heads * o->dim,      o->kv_heads * o->value_dim,
                        o->heads * o->value_dim, o->heads * o->value_dim,   o->heads * o->dim,
                        o->kv_heads * o->dim,    o->kv_heads * o->value_dim};
    float *at[FV_COUNT(widths)];
    int64_t floats = 0, given = t->backward ? FV_COUNT(widths) : 4;
    for (int64_t i = 0; i < given; i++)
        floats += tokens * widths[i];
    t->arrays = fv_alloc_array(t->ctx, floats, sizeof(float));
    if (t->arrays == NULL)
        return false;
    fv_random random = fv_random_make(1, FV_RANDOM_TEST, 0, 0);
    for (int64_t i = 0; i < floats; i++)
        t->arrays[i] = 0.1f * (float)fv_random_normal(&random);
    at[0] = t->arrays;
    for (int64_t i = 1; i < FV_COUNT(widths); i++)
        at[i] = i < given ? at[i - 1] + tokens * widths[i - 1] : NULL;
    t->io = (fv_attention_io){.q = at[0], .k = at[1], .v = at[2], .y = at[3]};
    t->grad = (fv_attention_grad){.dy = at[4], .dq = at[5], .dk = at[6], .dv = at[7]};
    return true;
}

static fv_status make_trial(trial *t, fv_context *ctx, const fv_attention_options *options, int64_t length,
                            bool backward)
{
    fv_attention_info info;
    fv_memory need;
    *t = (trial){.ctx = ctx, .offsets = {0, length}, .backward = backward};
    TRY(fv_attention_create(&t->op, ctx, options));
    fv_attention_get_info(t->op, &info);
    t->layout = (fv_layout){1, t->offsets, NULL};
    TRY(fv_attention_measure(t->op, &t->layout, &need));
    if (!make_arrays(t))
        return FV_ERR_RESOURCE;
    t->drawn = fv_alloc_array(ctx, FV_MAX(info.drawn_floats, 1), sizeof(float));
    t->saved = fv_alloc(ctx, FV_MAX(need.saved, 1));
    t->scratch = fv_alloc(ctx, need.scratch);
    if (t->drawn == NULL || t->saved == NULL || t->scratch == NULL)
        return FV_ERR_RESOURCE;
    if (info.drawn_floats == 0)
        return FV_OK;
    TRY(fv_attention_draw(t->op, 1, 0, t->drawn));
    fv_attention_bind_drawn(t->op, t->drawn, &t->io);
    return FV_OK;
}

/* Seconds of one call, the best of CALLS after one that warms up. */
static fv_status time_kind(fv_context *ctx, const fv_attention_options *options, const char *kind,
                           int64_t length, bool backward, double *seconds)
{
    trial t;
    fv_attention_options o = *options;
    o.kind = kind;
    fv_status status = make_trial(&t, ctx, &o, length, backward);
    *seconds = 1e30;
    for (int i = 0; i <= CALLS && status == FV_OK; i++) {
        double begin = fv_now();
        status = fv_attention_forward(t.op, &t.layout, &t.io, backward ? t.saved : NULL, t.scratch);
        if (status == FV_OK && backward)
            status = fv_attention_backward(t.op, &t.layout, &t.io, &t.grad, t.saved, t.scratch);
        if (i > 0)
            *seconds = FV_MIN(*seconds, fv_now() - begin);
    }
    release(&t);
    return status;
}

static bool takes_options(fv_context *ctx, const fv_attention_options *options, const char *kind)
{
    fv_attention *op;
    fv_attention_options o = *options;
    o.kind = kind;
    if (fv_attention_create(&op, ctx, &o) != FV_OK)
        return false;
    fv_attention_destroy(op);
    return true;
}

fv_status fv_attention_choose(fv_context *ctx, const fv_attention_options *options, int64_t length,
                              int backward, fv_attention_choice *choice)
{
    *choice = (fv_attention_choice){FV_ATTENTION_KERNELIZED, 0};
    if (length < 1)
        return fv_fail(ctx, FV_ERR_USAGE, "attention auto: length %lld, expected 1 or more",
                       (long long)length);
    /* Positions and ppSBN take inputs, and the same time in both. */
    fv_attention_options bare = *options;
    bare.position_bias = FV_POSITION_BIAS_NONE;
    bare.position_span = bare.position_skip = 0;
    bare.ppsbn = 0;
    if (!takes_options(ctx, &bare, "exact"))
        return FV_OK;
    double meet = FIRST_LENGTH;
    for (int round = 0; round < ROUNDS; round++) {
        double exact, kernelized, at = FV_MIN(FV_MAX(meet, LEAST_LENGTH), MOST_LENGTH);
        TRY(time_kind(ctx, &bare, "exact", (int64_t)at, backward, &exact));
        TRY(time_kind(ctx, &bare, FV_ATTENTION_KERNELIZED, (int64_t)at, backward, &kernelized));
        meet = at * kernelized / exact;
    }
    choice->crossover = (int64_t)FV_MAX(meet, 1.0);
    if (length < choice->crossover)
        choice->kind = "exact";
    return FV_OK;
}
