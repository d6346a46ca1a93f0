/* toeplitz_filters.c: see toeplitz_filters.h. FV_TP_HEADS heads are the channels of one transform, with imaginary parts 0. */
#include "attention/toeplitz_filters.h"

/* ---- the list ---------------------------------------------------------------------------------------- */

void fv_tp_bank_clear(fv_tp_bank *bank)
{
    bank->count = bank->floats = bank->largest = 0;
    bank->sizes = 0;
}

/* Index of a transform size; new ones are added. */
static int size_index(fv_tp_bank *bank, int64_t size)
{
    for (int i = 0; i < bank->sizes; i++)
        if (bank->fft[i].size == size)
            return i;
    bank->fft[bank->sizes].size = size;
    return bank->sizes++; /* fewer than FV_TP_SIZES */
}

int64_t fv_tp_bank_add(fv_tp_bank *bank, int64_t size, int64_t shift, int64_t low, int64_t high)
{
    int fft = size_index(bank, size);
    if (bank->filters != NULL)
        bank->filters[bank->count] = (fv_tp_filter){size, shift, low, high, bank->floats, fft};
    bank->floats += 2 * size * bank->heads;
    bank->largest = FV_MAX(bank->largest, size);
    return bank->count++;
}

void fv_tp_bank_carve(fv_tp_bank *bank, fv_arena *arena, bool backward)
{
    bank->filters = FV_PUSH(arena, fv_tp_filter, bank->count);
    bank->spectra = FV_PUSH(arena, float, bank->floats);
    bank->gradients = FV_PUSH(arena, float, backward ? bank->floats : 0);
    for (int i = 0; i < bank->sizes; i++)
        bank->twiddles[i] = FV_PUSH(arena, float, fv_fft_floats(bank->fft[i].size));
}

/* Heads that are transformed together. */
static int64_t together(const fv_tp_bank *bank)
{
    return FV_MIN((int64_t)FV_TP_HEADS, bank->heads);
}

int64_t fv_tp_bank_room(const fv_tp_bank *bank)
{
    return bank->largest * 2 * together(bank);
}

static float *room_of(const fv_tp_bank *bank, int worker)
{
    return (float *)(void *)(bank->room + (size_t)worker * bank->room_bytes);
}

/* ---- weights ----------------------------------------------------------------------------------------- */

/* Part of a filter that has weights: delta from -(N-1) (causal ones never ask below 0) to N-1. */
typedef struct reach {
    int64_t low, high; /* of t; empty if low > high */
} reach;

static reach reach_of(const fv_tp_bank *bank, const fv_tp_filter *f)
{
    int64_t last = bank->span - 1;
    return (reach){FV_MAX(f->low, -last - f->shift), FV_MIN(f->high, last - f->shift)};
}

typedef struct filter_task {
    fv_tp_bank *bank;
    int64_t head_groups;
} filter_task;

/* Where the weights of delta 0 of a head lie. */
static int64_t middle(const fv_tp_bank *bank, int64_t h)
{
    return h * (2 * bank->span - 1) + bank->span - 1;
}

/* x [size][2 c] = weights of heads h ... h + c - 1 at t mod size. */
static void place_weights(const fv_tp_bank *bank, const fv_tp_filter *f, int64_t h, int64_t c, float *x)
{
    const fv_kernels *kr = bank->ctx->exact;
    reach r = reach_of(bank, f);
    int64_t ldw = 2 * bank->span - 1;
    const float *w = bank->w + middle(bank, h) + f->shift;
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
    fv_tp_bank *bank = task->bank;
    const fv_kernels *kr = bank->ctx->exact;
    const fv_tp_filter *f = &bank->filters[index / task->head_groups];
    int64_t h = index % task->head_groups * FV_TP_HEADS, c = FV_MIN((int64_t)FV_TP_HEADS, bank->heads - h);
    float *x = room_of(bank, worker), *out = bank->spectra + f->at + h * 2 * f->size;
    place_weights(bank, f, h, c, x);
    fv_fft_split(&bank->fft[f->fft], c, x);
    kr->scale(f->size * 2 * c, 1.0f / (float)f->size, x, x);
    kr->transpose(f->size, c, x, 2 * c, out, 2 * f->size);
    kr->transpose(f->size, c, x + c, 2 * c, out + f->size, 2 * f->size);
    if (bank->dw != NULL)
        kr->fill(c * 2 * f->size, 0.0f, bank->gradients + f->at + h * 2 * f->size);
}

static void make_twiddles(void *arg, int64_t index, int worker)
{
    fv_tp_bank *bank = arg;
    (void)worker;
    fv_fft_twiddles(bank->fft[index].size, bank->twiddles[index]);
    bank->fft[index] = fv_fft_make(bank->ctx->exact, bank->fft[index].size, bank->twiddles[index]);
}

void fv_tp_bank_begin(fv_tp_bank *bank)
{
    filter_task task = {bank, (bank->heads + FV_TP_HEADS - 1) / FV_TP_HEADS};
    fv_parallel(bank->ctx, bank->sizes, make_twiddles, bank);
    fv_parallel(bank->ctx, bank->count * task.head_groups, make_spectrum, &task);
}

/* ---- gradients --------------------------------------------------------------------------------------- */

/* Adds entries t = low ... high of the transformed gradient, whose rows [c] lie 2 c apart, to dw. The heads' spectra
 * are free by now and hold the columns. */
static void add_weights(const fv_tp_bank *bank, const fv_tp_filter *f, int64_t h, int64_t c, int64_t low,
                        int64_t high, const float *x)
{
    const fv_kernels *kr = bank->ctx->exact;
    float *columns = bank->gradients + f->at + h * 2 * f->size;
    int64_t count = high - low + 1, row = low < 0 ? f->size + low : low;
    if (count <= 0)
        return;
    kr->transpose(count, c, x + row * 2 * c, 2 * c, columns, 2 * f->size);
    for (int64_t n = 0; n < c; n++)
        kr->axpy(count, 1.0f / (float)f->size, columns + n * 2 * f->size,
                 bank->dw + middle(bank, h + n) + f->shift + low);
}

/* All filters of some heads, in order: no two tasks meet at a weight. */
static void take_gradient(void *arg, int64_t index, int worker)
{
    const filter_task *task = arg;
    fv_tp_bank *bank = task->bank;
    const fv_kernels *kr = bank->ctx->exact;
    int64_t h = index * FV_TP_HEADS, c = FV_MIN((int64_t)FV_TP_HEADS, bank->heads - h);
    float *x = room_of(bank, worker);
    for (const fv_tp_filter *f = bank->filters; f < bank->filters + bank->count; f++) {
        const float *g = bank->gradients + f->at + h * 2 * f->size;
        reach r = reach_of(bank, f);
        kr->transpose(c, f->size, g, 2 * f->size, x, 2 * c);
        kr->transpose(c, f->size, g + f->size, 2 * f->size, x + c, 2 * c);
        fv_fft_join(&bank->fft[f->fft], c, x);
        add_weights(bank, f, h, c, r.low, FV_MIN(r.high, (int64_t)-1), x);
        add_weights(bank, f, h, c, FV_MAX(r.low, (int64_t)0), r.high, x);
    }
}

void fv_tp_bank_end(fv_tp_bank *bank)
{
    filter_task task = {bank, (bank->heads + FV_TP_HEADS - 1) / FV_TP_HEADS};
    fv_parallel(bank->ctx, task.head_groups, take_gradient, &task);
}
