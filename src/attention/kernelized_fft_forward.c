/* kernelized_fft_forward.c: features of a product's keys and queries, batches of its channels, and the products forward. */
#include "attention/kernelized_fft.h"
#include <math.h>

/* ---- features ---------------------------------------------------------------------------------------- */

void fv_kz_fft_exponents(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p)
{
    float *e = w->state.e;
    call->kr->fill(call->r, -INFINITY, e);
    for (int64_t t = 0; t < p->nk; t += call->C) {
        fv_rows rows = fv_kz_rows(call, h, true, p->key + t, FV_MIN(call->C, p->nk - t));
        fv_kz_logits(call, h, w, &rows, w->k, w->c, NULL, w->bias);
        call->kr->add_col_max(rows.n, call->r, w->bias, w->k, call->r, e);
    }
    for (int64_t f = 0; f < call->r; f++)
        e[f] = fv_kz_exponent(e[f], 0.0f);
}

void fv_kz_fft_queries(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t row, int64_t n)
{
    call->kr->fill(n, 0.0f, w->bias);
    call->kr->fill(n, 0.0f, w->top);
    fv_kz_queries(call, h, w, row, n);
    for (int64_t i = 0; i < n; i++) {
        float M = w->fft.scale[row + i];
        w->rpe.fresh[i] = exp2f(w->top[i] + call->fft->top[h->head] - (M == -INFINITY ? 0.0f : M));
    }
}

void fv_kz_fft_features(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p,
                        int64_t first, int64_t count)
{
    const fv_kernels *kr = call->kr;
    for (int64_t t = 0; t < p->nk; t += call->C) {
        int64_t n = FV_MIN(call->C, p->nk - t);
        (void)fv_kz_key_features(call, h, w, p->key + t, n);
        kr->transpose(n, count, w->k + first, call->r, w->fft.phi + t, p->nk);
    }
    for (int64_t t = 0; t < p->nq; t += call->C) {
        int64_t n = FV_MIN(call->C, p->nq - t);
        fv_kz_fft_queries(call, h, w, p->row + t, n);
        kr->scale_rows(n, count, w->rpe.fresh, w->q + first, call->r, 0, w->q + first, call->r);
        kr->transpose(n, count, w->q + first, call->r, w->fft.psi + t, p->nq);
    }
}

/* ---- batches ----------------------------------------------------------------------------------------- */

fv_kz_batch fv_kz_fft_batch(const fv_kz_call *call, int64_t features, int64_t first, int64_t channel)
{
    const int64_t room = FV_KZ_FFT_COLUMNS / 2;
    int64_t half = (call->dv + 1) / 2, groups = (half + room - 1) / room;
    int64_t width = FV_MIN((half + groups - 1) / groups, half - channel), im = half + channel;
    return (fv_kz_batch){.first = first,
                         .count = FV_MIN(room / width, features - first), // NOLINT: 2 channel < dv
                         .width = width,
                         .re = channel,
                         .im = im,
                         .partners = FV_MIN(width, call->dv - im)};
}

fv_kz_batch fv_kz_fft_ones(int64_t features)
{
    return (fv_kz_batch){.count = features, .width = 1};
}

/* Rows that a loop over features keeps in the first-level cache. */
enum { NEAR = 64 };

void fv_kz_fft_gather(const fv_kz_call *call, const fv_kz_batch *b, const fv_kz_side *side, int64_t size,
                      float *x)
{
    const fv_kernels *kr = call->kr;
    int64_t c = b->count * b->width, ld = side->ld;
    if (b->partners < b->width)
        kr->fill(side->n * 2 * c, 0.0f, x);
    for (int64_t t = 0; t < side->n; t += NEAR) {
        int64_t n = FV_MIN((int64_t)NEAR, side->n - t);
        const float *rows = side->rows + t * ld, *factor = side->factor + b->first * side->n + t;
        float *to = x + t * 2 * c;
        for (int64_t f = 0; f < b->count; f++, factor += side->n, to += b->width) {
            kr->scale_rows(n, b->width, factor, rows + b->re, ld, 0, to, 2 * c);
            if (b->partners > 0)
                kr->scale_rows(n, b->partners, factor, rows + b->im, ld, 0, to + c, 2 * c);
        }
    }
    kr->fill((size - side->n) * 2 * c, 0.0f, x + side->n * 2 * c);
}

void fv_kz_fft_spread(const fv_kz_call *call, const fv_kz_batch *b, int64_t all, const float *factor,
                      const float *x, float *rows, int64_t ld)
{
    const fv_kernels *kr = call->kr;
    int64_t c = b->count * b->width;
    for (int64_t t = 0; t < all; t += NEAR) {
        int64_t n = FV_MIN((int64_t)NEAR, all - t);
        const float *by = factor + b->first * all + t, *from = x + t * 2 * c;
        for (int64_t f = 0; f < b->count; f++, by += all, from += b->width) {
            kr->scale_rows(n, b->width, by, from, 2 * c, 1, rows + t * ld + b->re, ld);
            if (b->partners > 0)
                kr->scale_rows(n, b->partners, by, from + c, 2 * c, 1, rows + t * ld + b->im, ld);
        }
    }
}

void fv_kz_fft_poison(const fv_kz_call *call, fv_kz_work *w, int64_t m, const float *x, int64_t ldx,
                      int64_t n, float *rows, int64_t ld)
{
    const fv_kernels *kr = call->kr;
    float *poison = w->fft.poison;
    kr->fill(call->dv, 0.0f, poison);
    for (int64_t j = 0; j < m; j++)
        kr->axpy(call->dv, 0.0f, x + j * ldx, poison); /* 0 x is NaN where x is not finite */
    for (int64_t i = 0; i < n; i++)
        kr->add(call->dv, rows + i * ld, poison, rows + i * ld);
}

/* ---- forward ----------------------------------------------------------------------------------------- */

/* Raises M to the largest that a key of the product can give a row, and sums so far with it. */
static void raise_rows(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p)
{
    const fv_kernels *kr = call->kr;
    for (int64_t t = 0; t < p->nq; t += call->C) {
        int64_t n = FV_MIN(call->C, p->nq - t), row = p->row + t;
        float *y = h->y + row * call->ldy, *den = w->fft.den + row;
        fv_kz_fft_queries(call, h, w, row, n);
        kr->copy_rows(1, n, w->bias, n, w->fft.bias + row, n);
        for (int64_t i = 0; i < n; i++)
            w->rpe.old[i] = fv_kz_bias_raise(w->fft.scale + row + i, w->top[i] + call->fft->top[h->head]);
        kr->scale_rows(n, call->dv, w->rpe.old, y, call->ldy, 0, y, call->ldy);
        kr->mul(n, den, w->rpe.old, den);
    }
}

static void run_batch(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p,
                      const fv_kz_batch *b, const fv_kz_side *keys, float *out, int64_t ld)
{
    const fv_tp_filter *filter = p->filter;
    const float *spectrum = fv_tp_bank_spectrum(&call->fft->bank, filter, h->head);
    fv_kz_fft_gather(call, b, keys, filter->size, w->fft.x);
    fv_fft_convolve(&call->fft->bank.fft[filter->fft], b->count * b->width, spectrum, spectrum + filter->size,
                    false, w->fft.x);
    fv_kz_fft_spread(call, b, p->nq, w->fft.psi, w->fft.x, out, ld);
}

static void product(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p)
{
    const fv_kernels *kr = call->kr;
    int64_t dv = call->dv;
    const float *v = h->v + p->key * call->ldv;
    float *y = h->y + p->row * call->ldy;
    fv_kz_side values = {p->nk, w->fft.phi, w->fft.v, dv}, ones = {p->nk, w->fft.phi, w->ones, 0};
    fv_kz_fft_exponents(call, h, w, p);
    raise_rows(call, h, w, p);
    bool finite = kr->finite_rows(p->nk, dv, v, call->ldv, w->fft.v, dv);
    for (int64_t first = 0; first < call->r; first += FV_KZ_FFT_FEATURES) {
        int64_t count = FV_MIN((int64_t)FV_KZ_FFT_FEATURES, call->r - first);
        fv_kz_fft_features(call, h, w, p, first, count);
        fv_kz_batch b = fv_kz_fft_ones(count);
        run_batch(call, h, w, p, &b, &ones, w->fft.den + p->row, 1);
        kr->fill(p->nq * dv, 0.0f, w->fft.y); /* a block's sum apart: fewer terms in a row */
        for (int64_t channel = 0; 2 * channel < dv; channel += b.width) {
            for (int64_t f = 0; f < count; f += b.count) {
                b = fv_kz_fft_batch(call, count, f, channel);
                run_batch(call, h, w, p, &b, &values, w->fft.y, dv);
            }
        }
        kr->scale_rows(p->nq, dv, NULL, w->fft.y, dv, 1, y, call->ldy);
    }
    if (!finite)
        fv_kz_fft_poison(call, w, p->nk, v, call->ldv, p->nq, y, call->ldy);
}

void fv_kz_fft_forward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w)
{
    fv_kz_fft_products(call, h, w, product);
}
