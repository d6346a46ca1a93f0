/* kernelized_fft_backward.c: the products backward. With g and rho of kernelized_bias.c and W_f = T^T (psi_f . [g, rho]),
 *
 *     dpsi_f = [g, rho] . U_f      dphi_f = [v, 1] . W_f      dV = sum_f phi_f W_f
 *     dT_delta = sum over features and channels of the correlation of phi_f [V, 1] with psi_f [g, rho]
 *
 * four transforms a channel. A key whose value is not finite has NaN for its 1, a row whose g is not has NaN for rho: so it
 * reaches what it would reach. */
#include "attention/kernelized_fft.h"
#include <math.h>

/* dfactor [features][n] += x . rows */
static void add_dots(const fv_kz_call *call, const fv_kz_batch *b, const fv_kz_side *side, const float *x,
                     float *dfactor)
{
    const fv_kernels *kr = call->kr;
    int64_t c = b->count * b->width, ld = side->ld;
    enum { NEAR = 64 };
    for (int64_t t = 0; t < side->n; t += NEAR) {
        int64_t n = FV_MIN((int64_t)NEAR, side->n - t);
        const float *rows = side->rows + t * ld, *from = x + t * 2 * c;
        float *d = dfactor + b->first * side->n + t;
        for (int64_t f = 0; f < b->count; f++, d += side->n, from += b->width) {
            kr->row_dots(n, b->width, 1.0f, from, 2 * c, rows + b->re, ld, 1.0f, d);
            if (b->partners > 0)
                kr->row_dots(n, b->partners, 1.0f, from + c, 2 * c, rows + b->im, ld, 1.0f, d);
        }
    }
}

/* Leaves W in w->fft.x. */
static void run_batch(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p,
                      const fv_kz_batch *b, const fv_kz_side *keys, const fv_kz_side *queries)
{
    const fv_kernels *kr = call->kr;
    const fv_tp_bank *bank = &call->fft->bank;
    const fv_fft *fft = &bank->fft[p->filter->fft];
    int64_t size = p->filter->size, c = b->count * b->width;
    const float *re = fv_tp_bank_spectrum(bank, p->filter, h->head), *im = re + size;
    float *u = w->fft.x2, *x = w->fft.x;
    fv_kz_fft_gather(call, b, keys, size, u);
    fv_fft_split(fft, c, u);
    fv_kz_fft_gather(call, b, queries, size, x);
    fv_fft_split(fft, c, x);
    if (bank->dw != NULL) {
        float *d = fv_tp_bank_gradient(bank, p->filter, h->head);
        kr->fft_correlate(size, c, u, 2 * c, x, 2 * c, d, d + size);
    }
    kr->fft_filter(size, c, re, im, 0, u, 2 * c, 0, u, 2 * c);
    fv_fft_join(fft, c, u);
    add_dots(call, b, queries, u, w->fft.dpsi);
    kr->fft_filter(size, c, re, im, 1, x, 2 * c, 0, x, 2 * c);
    fv_fft_join(fft, c, x);
    add_dots(call, b, keys, x, w->fft.dphi);
}

/* w->t [n][r] = columns [first, first + count) of a gradient kept by feature, 0 elsewhere. */
static void load_block(const fv_kz_call *call, fv_kz_work *w, const float *d, int64_t ld, int64_t first,
                       int64_t count, int64_t n)
{
    call->kr->fill(n * call->r, 0.0f, w->t);
    call->kr->transpose(count, n, d, ld, w->t + first, call->r);
}

/* Takes dphi and dpsi of a block back through the map. */
static void through_map(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p,
                        int64_t first, int64_t count)
{
    int64_t r = call->r;
    for (int64_t t = 0; t < p->nq && (h->dq != NULL || call->by_head); t += call->C) {
        fv_rows rows = fv_kz_rows(call, h, false, p->row + t, FV_MIN(call->C, p->nq - t));
        fv_kz_fft_queries(call, h, w, p->row + t, rows.n);
        load_block(call, w, w->fft.dpsi + t, p->nq, first, count, rows.n);
        call->kr->scale_rows(rows.n, count, w->rpe.fresh, w->t + first, r, 0, w->t + first, r);
        fv_kz_through_map(call, h, w, &rows, w->q, h->dq != NULL ? h->dq + (p->row + t) * call->ldq : NULL);
    }
    for (int64_t t = 0; t < p->nk && (h->dk != NULL || call->by_head); t += call->C) {
        fv_rows rows = fv_kz_rows(call, h, true, p->key + t, FV_MIN(call->C, p->nk - t));
        (void)fv_kz_key_features(call, h, w, p->key + t, rows.n);
        load_block(call, w, w->fft.dphi + t, p->nk, first, count, rows.n);
        fv_kz_through_map(call, h, w, &rows, w->k, h->dk != NULL ? h->dk + (p->key + t) * call->ldk : NULL);
    }
}

static void block_back(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p,
                       int64_t first, int64_t count)
{
    const fv_kernels *kr = call->kr;
    int64_t dv = call->dv;
    fv_kz_side values = {p->nk, w->fft.phi, w->fft.v, dv}, ones = {p->nk, w->fft.phi, w->fft.one, 1};
    fv_kz_side g = {p->nq, w->fft.psi, w->fft.clean, dv}, rho = {p->nq, w->fft.psi, w->fft.rho + p->row, 1};
    fv_kz_fft_features(call, h, w, p, first, count);
    kr->fill(count * p->nk, 0.0f, w->fft.dphi);
    kr->fill(count * p->nq, 0.0f, w->fft.dpsi);
    kr->fill(p->nk * dv, 0.0f, w->fft.y);
    fv_kz_batch b = fv_kz_fft_ones(count);
    run_batch(call, h, w, p, &b, &ones, &rho);
    for (int64_t channel = 0; 2 * channel < dv; channel += b.width) {
        for (int64_t f = 0; f < count; f += b.count) {
            b = fv_kz_fft_batch(call, count, f, channel);
            run_batch(call, h, w, p, &b, &values, &g);
            fv_kz_fft_spread(call, &b, p->nk, w->fft.phi, w->fft.x, w->fft.y, dv);
        }
    }
    if (h->dv != NULL)
        kr->scale_rows(p->nk, dv, NULL, w->fft.y, dv, 1, h->dv + p->key * call->ldv, call->ldv);
    through_map(call, h, w, p, first, count);
}

/* y [n][c] = x where finite, 0 elsewhere; marks[i] becomes NaN where row i is not. */
static bool take_finite(const fv_kernels *kr, int64_t n, int64_t c, const float *x, int64_t ldx, float *y,
                        float *marks)
{
    bool finite = kr->finite_rows(n, c, x, ldx, y, c);
    for (int64_t i = 0; i < n && !finite; i++)
        if (!kr->all_finite(1, c, x + i * ldx, ldx))
            marks[i] = NAN;
    return finite;
}

void fv_kz_fft_park(const fv_kz_call *call, fv_kz_work *w, int64_t row, int64_t n)
{
    const fv_kernels *kr = call->kr;
    kr->copy_rows(1, n, w->rpe.scale, n, w->fft.scale + row, n);
    kr->copy_rows(1, n, w->rho, n, w->fft.rho + row, n);
    kr->copy_rows(1, n * call->dv, w->g, n * call->dv, w->fft.g + row * call->dv, n * call->dv);
}

static void product(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p)
{
    const fv_kernels *kr = call->kr;
    int64_t dv = call->dv;
    const float *g = w->fft.g + p->row * dv;
    fv_kz_fft_exponents(call, h, w, p);
    kr->fill(p->nk, 1.0f, w->fft.one);
    (void)take_finite(kr, p->nk, dv, h->v + p->key * call->ldv, call->ldv, w->fft.v, w->fft.one);
    bool finite = take_finite(kr, p->nq, dv, g, dv, w->fft.clean, w->fft.rho + p->row);
    for (int64_t first = 0; first < call->r; first += FV_KZ_FFT_FEATURES)
        block_back(call, h, w, p, first, FV_MIN((int64_t)FV_KZ_FFT_FEATURES, call->r - first));
    if (h->dv != NULL && !finite)
        fv_kz_fft_poison(call, w, p->nq, g, dv, p->nk, h->dv + p->key * call->ldv, call->ldv);
}

void fv_kz_fft_backward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w)
{
    fv_kz_fft_products(call, h, w, product);
}
