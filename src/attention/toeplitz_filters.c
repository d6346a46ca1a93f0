/* toeplitz_filters.c: the weights as filters: transformed before a call, their gradients transformed back behind it.
 * FV_TP_HEADS heads are the channels of one transform, with imaginary parts 0. */
#include "attention/toeplitz_pieces.h"

/* Part of a filter that has weights: delta from -(N-1) (causal ones never ask below 0) to N-1. */
typedef struct reach {
    int64_t low, high; /* of t; empty if low > high */
} reach;

static reach reach_of(const fv_tp_call *call, const fv_tp_filter *f)
{
    int64_t last = call->t->span - 1;
    return (reach){FV_MAX(-f->reach, -last - f->shift), FV_MIN(f->reach, last - f->shift)};
}

typedef struct filter_task {
    fv_tp_call *call;
    int64_t head_groups;
} filter_task;

/* Where the weights of delta 0 of a head lie. */
static int64_t middle(const fv_tp_call *call, int64_t h)
{
    return h * (2 * call->t->span - 1) + call->t->span - 1;
}

/* x [size][2 c] = weights of heads h ... h + c - 1 at t mod size. */
static void place_weights(const fv_tp_call *call, const fv_tp_filter *f, int64_t h, int64_t c, float *x)
{
    const fv_kernels *kr = call->kr;
    reach r = reach_of(call, f);
    int64_t ldw = 2 * call->t->span - 1;
    const float *w = call->w + middle(call, h) + f->shift;
    int64_t from = FV_MAX(r.low, (int64_t)0), below = FV_MIN(r.high, (int64_t)-1);
    kr->fill(f->size * 2 * c, 0.0f, x);
    if (from <= r.high)
        kr->transpose(c, r.high - from + 1, w + from, ldw, x + from * 2 * c, 2 * c);
    if (r.low <= below)
        kr->transpose(c, below - r.low + 1, w + r.low, ldw, x + (f->size + r.low) * 2 * c, 2 * c);
}

static void make_spectrum(void *arg, int64_t index, int worker)
{
    const filter_task *task = arg;
    fv_tp_call *call = task->call;
    const fv_kernels *kr = call->kr;
    const fv_tp_filter *f = &call->filters[index / task->head_groups];
    int64_t h = index % task->head_groups * FV_TP_HEADS, c = FV_MIN((int64_t)FV_TP_HEADS, call->t->heads - h);
    float *x = fv_tp_worker(call, worker, false).x, *out = call->spectra + f->at + h * 2 * f->size;
    place_weights(call, f, h, c, x);
    fv_fft_split(&call->fft[f->fft], c, x);
    kr->scale(f->size * 2 * c, 1.0f / (float)f->size, x, x);
    kr->transpose(f->size, c, x, 2 * c, out, 2 * f->size);
    kr->transpose(f->size, c, x + c, 2 * c, out + f->size, 2 * f->size);
}

void fv_tp_make_spectra(fv_tp_call *call)
{
    filter_task task = {call, (call->t->heads + FV_TP_HEADS - 1) / FV_TP_HEADS};
    fv_parallel(call->t->ctx, call->filter_count * task.head_groups, make_spectrum, &task);
}

/* Adds entries t = low ... high of the transformed gradient, whose rows [c] lie 2 c apart, to dw. The heads' spectra
 * are free by now and hold the columns. */
static void add_weights(const fv_tp_call *call, const fv_tp_filter *f, int64_t h, int64_t c, int64_t low,
                        int64_t high, const float *x)
{
    const fv_kernels *kr = call->kr;
    float *columns = call->gradients + f->at + h * 2 * f->size;
    int64_t count = high - low + 1, row = low < 0 ? f->size + low : low;
    if (count <= 0)
        return;
    kr->transpose(count, c, x + row * 2 * c, 2 * c, columns, 2 * f->size);
    for (int64_t n = 0; n < c; n++)
        kr->axpy(count, 1.0f / (float)f->size, columns + n * 2 * f->size,
                 call->dw + middle(call, h + n) + f->shift + low);
}

/* All filters of some heads, in order: no two tasks meet at a weight. */
static void take_gradient(void *arg, int64_t index, int worker)
{
    const filter_task *task = arg;
    fv_tp_call *call = task->call;
    const fv_kernels *kr = call->kr;
    int64_t h = index * FV_TP_HEADS, c = FV_MIN((int64_t)FV_TP_HEADS, call->t->heads - h);
    float *x = fv_tp_worker(call, worker, true).x;
    for (const fv_tp_filter *f = call->filters; f < call->filters + call->filter_count; f++) {
        const float *g = call->gradients + f->at + h * 2 * f->size;
        reach r = reach_of(call, f);
        kr->transpose(c, f->size, g, 2 * f->size, x, 2 * c);
        kr->transpose(c, f->size, g + f->size, 2 * f->size, x + c, 2 * c);
        fv_fft_join(&call->fft[f->fft], c, x);
        add_weights(call, f, h, c, r.low, FV_MIN(r.high, (int64_t)-1), x);
        add_weights(call, f, h, c, FV_MAX(r.low, (int64_t)0), r.high, x);
    }
}

void fv_tp_take_gradients(fv_tp_call *call)
{
    filter_task task = {call, (call->t->heads + FV_TP_HEADS - 1) / FV_TP_HEADS};
    fv_parallel(call->t->ctx, task.head_groups, take_gradient, &task);
}
