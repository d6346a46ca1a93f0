/* kernelized_fft.c: see kernelized_fft.h: which pairs of a call go through transforms, and the weights as filters. */
#include "attention/kernelized_fft.h"
#include <math.h>

/* ---- the plan ---------------------------------------------------------------------------------------- */

static int64_t length_of(const int64_t *offsets, int64_t s)
{
    return offsets[s + 1] - offsets[s];
}

/* Tokens from which transforms are used unasked: where they are faster (n keys a row cost n (r + dv) in tiles, r dv in
 * transforms), and never for maps whose sums can cancel. */
static double turn(const fv_kz_call *call)
{
    if (call->op->mechanism->map->can_be_negative)
        return HUGE_VAL;
    return fmax(FV_KZ_FFT_SHORT,
                FV_KZ_FFT_TURN * (double)(call->r * call->dv) / (double)(call->r + call->dv));
}

static void add_filter(fv_kz_fft *fft, int64_t nq, int64_t nk, int64_t shift)
{
    int64_t size = fv_fft_size(nq + nk - 1);
    fv_tp_bank_add(&fft->bank, size, shift, 1 - nk, nq - 1);
    fft->rows = FV_MAX(fft->rows, FV_MAX(nq, nk));
    fft->size = FV_MAX(fft->size, size);
}

/* A filter a level. A first row behind FV_KZ_FFT_LATE blocks costs a transform over all of them, half of what their tiles did. */
static void plan_causal(const fv_kz_call *call, fv_kz_fft *fft)
{
    int64_t given = call->op->options.position_fft;
    double from = given > 0 ? (double)given : FV_KZ_FFT_LATE * turn(call);
    fft->block = call->C; /* whole tiles */
    while ((double)(FV_KZ_FFT_LATE * fft->block) < from && fft->block < FV_MAX_TOKENS)
        fft->block *= 2;
    fft->late = FV_KZ_FFT_LATE * fft->block;
    for (int64_t s = 0; s < call->layout->sequences; s++)
        fft->longest_q = FV_MAX(fft->longest_q, length_of(call->layout->offsets_q, s));
    fft->longest_k = fft->longest_q;
    for (int64_t m = fft->block; fft->longest_q > fft->late && m < fft->longest_q; m *= 2)
        add_filter(fft, m, m, m);
}

/* A filter a sequence; equal neighbours share it. */
static void plan_full(const fv_kz_call *call, fv_kz_fft *fft)
{
    const fv_layout *l = call->layout;
    int64_t given = call->op->options.position_fft, last_q = -1, last_k = -1;
    double from = given > 0 ? (double)given : turn(call);
    for (int64_t s = 0; s < l->sequences; s++) {
        int64_t nq = length_of(l->offsets_q, s), nk = length_of(fv_layout_keys(l), s);
        double q = (double)nq, k = (double)nk;
        bool taken = 2 * q * k >= from * (q + k) && q * k > 0;
        if (taken && (nq != last_q || nk != last_k))
            add_filter(fft, last_q = nq, last_k = nk, 0);
        fft->longest_q = FV_MAX(fft->longest_q, taken ? nq : 0);
        fft->longest_k = FV_MAX(fft->longest_k, taken ? nk : 0);
        if (fft->full != NULL)
            fft->full[s] = taken ? fft->bank.count - 1 : -1;
    }
}

/* Lists the filters, or only counts them (toeplitz_filters.h). */
static void plan(const fv_kz_call *call, fv_kz_fft *fft)
{
    fv_tp_bank_clear(&fft->bank);
    if (call->op->options.causal)
        plan_causal(call, fft);
    else
        plan_full(call, fft);
}

static fv_kz_fft_work carve_work(const fv_kz_call *call, const fv_kz_fft *fft, fv_arena *arena, bool backward)
{
    int64_t tokens = FV_MAX(fft->longest_q, fft->longest_k), rows = fft->rows, dv = call->dv;
    int64_t block = FV_MIN((int64_t)FV_KZ_FFT_FEATURES, call->r);
    fv_kz_fft_work w = {.x = FV_PUSH(arena, float, fft->size *FV_KZ_FFT_COLUMNS)};
    w.scale = FV_PUSH(arena, float, tokens);
    w.den = FV_PUSH(arena, float, tokens);
    w.bias = FV_PUSH(arena, float, tokens);
    w.phi = FV_PUSH(arena, float, block *rows);
    w.psi = FV_PUSH(arena, float, block *rows);
    w.v = FV_PUSH(arena, float, rows *dv);
    w.y = FV_PUSH(arena, float, rows *dv);
    w.poison = FV_PUSH(arena, float, dv);
    if (!backward)
        return w;
    w.x2 = FV_PUSH(arena, float, fft->size *FV_KZ_FFT_COLUMNS);
    w.dphi = FV_PUSH(arena, float, block *rows);
    w.dpsi = FV_PUSH(arena, float, block *rows);
    w.g = FV_PUSH(arena, float, tokens *dv);
    w.rho = FV_PUSH(arena, float, tokens);
    w.clean = FV_PUSH(arena, float, rows *dv);
    w.one = FV_PUSH(arena, float, rows);
    return w;
}

void fv_kz_fft_carve(fv_kz_call *call, fv_arena *arena, bool backward)
{
    fv_context *ctx = call->op->ctx;
    int64_t span = call->op->options.position_span, all = call->H * (2 * span - 1);
    fv_kz_fft fft = {.bank = {.ctx = ctx, .heads = call->H, .span = span}};
    if (!call->biased)
        return;
    plan(call, &fft);
    if (fft.bank.count == 0)
        return;
    call->fft = FV_PUSH(arena, fv_kz_fft, 1);
    fft.full = FV_PUSH(arena, int64_t, call->layout->sequences);
    fft.weights = FV_PUSH(arena, float, all);
    fft.top = FV_PUSH(arena, float, call->H);
    fft.gradient = FV_PUSH(arena, float, backward ? all : 0);
    fv_tp_bank_carve(&fft.bank, arena, backward);
    fv_arena one = fv_arena_measure();
    (void)carve_work(call, &fft, &one, backward);
    fft.work_bytes = one.used;
    fft.workers = FV_MIN((int64_t)ctx->threads, FV_MAX(call->layout->sequences, fft.bank.count) * call->H);
    fft.work = fv_arena_push(arena, fft.workers, one.used);
    if (call->fft == NULL)
        return;
    plan(call, &fft); /* again, into the lists */
    *call->fft = fft;
}

void fv_kz_fft_worker(const fv_kz_call *call, int worker, bool backward, fv_kz_fft_work *w)
{
    const fv_kz_fft *fft = call->fft;
    if (fft == NULL || worker >= fft->workers) /* rows of the matrix have other tasks, and no transforms */
        return;
    fv_arena arena = fv_arena_over(fft->work + (size_t)worker * fft->work_bytes, fft->work_bytes);
    *w = carve_work(call, fft, &arena, backward);
}

/* ---- the weights ------------------------------------------------------------------------------------- */

/* Where the weights of offsets from `least` on begin, of all heads from this one on. */
static int64_t place(const fv_kz_call *call, int64_t head, int64_t least)
{
    int64_t span = call->op->options.position_span;
    return head * (2 * span - 1) + span - 1 + least;
}

/* Whether e^w can be a weight: not NaN, nor so large that 2^top loses its unit. -inf can. */
static bool is_usable(float w)
{
    return w <= 0x1p19f;
}

/* Weights e^w relative to 2^top: the least whole power above all that are usable, whatever the call's sequences. */
static void make_weights(void *arg, int64_t head, int worker)
{
    const fv_kz_call *call = arg;
    fv_kz_fft *fft = call->fft;
    int64_t span = call->op->options.position_span, low = call->op->options.causal ? 0 : 1 - span;
    const float *w = fv_kz_head_of(call, -1, head).map.input[FV_INPUT_POSITION_BIAS] + span - 1;
    float *out = fft->weights + place(call, head, 0);
    double top = -HUGE_VAL;
    (void)worker;
    for (int64_t i = low; i < span; i++)
        if (is_usable(w[i]))
            top = fmax(top, (double)w[i]);
    top = FV_MAX(ceil(top * FV_LOG2E), -0x1p20);
    fft->top[head] = (float)top;
    for (int64_t i = low; i < span; i++)
        out[i] = is_usable(w[i]) ? (float)exp2((double)w[i] * FV_LOG2E - top) : 0.0f;
    if (fft->bank.dw != NULL)
        call->kr->fill(2 * span - 1, 0.0f, fft->gradient + place(call, head, 1 - span));
}

void fv_kz_fft_begin(fv_kz_call *call)
{
    fv_kz_fft *fft = call->fft;
    if (fft == NULL)
        return;
    bool wanted = call->grad != NULL && call->grad->d_input[FV_INPUT_POSITION_BIAS] != NULL;
    fft->bank.w = fft->weights;
    fft->bank.dw = wanted ? fft->gradient : NULL;
    fft->bank.room = fft->work; /* a worker's memory begins with its transforms */
    fft->bank.room_bytes = fft->work_bytes;
    fv_parallel(call->op->ctx, call->H, make_weights, call);
    fv_tp_bank_begin(&fft->bank);
}

/* dw = e^w times the gradient of e^w, where some pair has it. */
static void add_gradient(void *arg, int64_t head, int worker)
{
    const fv_kz_call *call = arg;
    const fv_kz_fft *fft = call->fft;
    int64_t low = call->op->options.causal ? 0 : 1 - fft->longest_k, at = place(call, head, low);
    (void)worker;
    call->kr->mul_add(fft->longest_q - low, fft->weights + at, fft->gradient + at,
                      fv_kz_head_of(call, -1, head).map.d_input[FV_INPUT_POSITION_BIAS] +
                          place(call, 0, low));
}

void fv_kz_fft_end(fv_kz_call *call)
{
    if (call->fft == NULL || call->fft->bank.dw == NULL)
        return;
    fv_tp_bank_end(&call->fft->bank);
    fv_parallel(call->op->ctx, call->H, add_gradient, call);
}

/* ---- the choice -------------------------------------------------------------------------------------- */

/* Whether a filter may have the head's weights of n offsets from `low` on: all of them usable, and none smaller than their root
 * mean square by more than FV_KZ_FFT_UNEVEN; where transforms are asked for, some of them in range. */
static bool is_fit(const fv_kz_call *call, const fv_kz_head *h, int64_t low, int64_t n)
{
    const float *b = h->map.input[FV_INPUT_POSITION_BIAS] + place(call, 0, low);
    const float *w = call->fft->weights + place(call, h->head, low);
    float least = INFINITY, most = 0.0f;
    for (int64_t i = 0; i < n; i++) {
        if (!is_usable(b[i]))
            return false;
        least = FV_MIN(least, w[i]);
        most = FV_MAX(most, w[i]);
    }
    if (call->op->options.position_fft > 0)
        return most > 0x1p-64f;
    return least > 0x1p-64f &&
           sqrt(call->kr->sum_squares(n, w) / (double)n) <= FV_KZ_FFT_UNEVEN * (double)least;
}

/* Causal: every level that a sequence might have is fit, so that no row hangs on how long this one is. */
bool fv_kz_fft_taken(const fv_kz_call *call, const fv_kz_head *h)
{
    const fv_kz_fft *fft = call->fft;
    int64_t span = call->op->options.position_span;
    if (fft == NULL)
        return false;
    if (!call->op->options.causal)
        return fft->full[h->sequence] >= 0 && is_fit(call, h, 1 - h->nk, h->nq + h->nk - 1);
    bool taken = h->nk > fft->late;
    for (int64_t m = fft->block; taken && m < span; m *= 2)
        taken = is_fit(call, h, 1, FV_MIN(2 * m, span) - 1);
    return taken;
}

int64_t fv_kz_fft_tiles_from(const fv_kz_call *call, const fv_kz_head *h, int64_t row)
{
    const fv_kz_fft *fft = call->fft;
    if (!call->op->options.causal)
        return h->nk; /* none of them */
    return row < fft->late ? 0 : row / fft->block * fft->block;
}

/* ---- the products ------------------------------------------------------------------------------------ */

static void run_causal(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, fv_kz_product_run *run)
{
    const fv_kz_fft *fft = call->fft;
    const fv_tp_filter *level = fft->bank.filters;
    for (int64_t m = fft->block; m < h->nk; m *= 2, level++) {
        int64_t first = m < fft->late ? fft->late + m : m; /* odd multiples of m from `late` on */
        for (int64_t t = first; t < h->nk; t += 2 * m) {
            fv_kz_product p = {t, FV_MIN(m, h->nk - t), t - m, m, level};
            run(call, h, w, &p);
        }
    }
}

void fv_kz_fft_products(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, fv_kz_product_run *run)
{
    const fv_kz_fft *fft = call->fft;
    if (call->op->options.causal) {
        run_causal(call, h, w, run);
        return;
    }
    fv_kz_product all = {0, h->nq, 0, h->nk, fft->bank.filters + fft->full[h->sequence]};
    run(call, h, w, &all);
}
