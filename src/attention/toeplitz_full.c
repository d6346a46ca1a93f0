/* toeplitz_full.c: the product of all pairs, y_i += sum_j w[i - j] v_j, short ones with the tile, long ones by one
 * circular convolution of P >= 2 n - 1 rows. Backward: dv is the correlation with dy; dw_t = sum over channels of
 * the correlation of v and dy, added up as a spectrum and transformed back once a call. */
#include "attention/toeplitz_pieces.h"
#include <math.h>

bool fv_tp_load(const fv_tp_part *p, fv_tp_rows v, int64_t size, float *x)
{
    const fv_kernels *kr = p->call->kr;
    int64_t c = fv_tp_half(p), im = p->columns - c;
    if (im < c) /* the last channel has no partner */
        kr->fill(v.n * 2 * c, 0.0f, x);
    int finite = kr->finite_rows(v.n, c, v.x, v.ld, x, 2 * c);
    finite &= kr->finite_rows(v.n, im, v.x + c, v.ld, x + c, 2 * c);
    kr->fill((size - v.n) * 2 * c, 0.0f, x + v.n * 2 * c);
    return finite;
}

void fv_tp_unload(const fv_tp_part *p, const float *x, int64_t n, float *y, int64_t ldy)
{
    int64_t c = fv_tp_half(p);
    p->call->kr->scale_rows(n, c, NULL, x, 2 * c, 1, y, ldy);
    p->call->kr->scale_rows(n, p->columns - c, NULL, x + c, 2 * c, 1, y + c, ldy);
}

void fv_tp_poison_all(const fv_tp_part *p, fv_tp_rows v, int64_t n, float *y, int64_t ldy)
{
    const fv_kernels *kr = p->call->kr;
    float *poison = p->w->poison;
    kr->fill(p->columns, 0.0f, poison);
    for (int64_t j = 0; j < v.n; j++)
        kr->axpy(p->columns, 0.0f, v.x + j * v.ld, poison); /* 0 x is NaN where x is not finite */
    for (int64_t i = 0; i < n; i++)
        kr->add(p->columns, y + i * ldy, poison, y + i * ldy);
}

/* tile[j][i] = w[i - j] */
static void make_tile(const fv_tp_part *p, int64_t nk, int64_t nq)
{
    p->call->kr->copy_rows(nk, nq, p->weight, -1, p->w->tile, nq);
}

static void direct(const fv_tp_part *p, fv_tp_rows v, int64_t nq, float *y, int64_t ldy)
{
    make_tile(p, v.n, nq);
    p->call->kr->gemm('T', 'N', nq, p->columns, v.n, 1.0f, p->w->tile, nq, v.x, v.ld, 1.0f, y, ldy);
}

static void direct_back(const fv_tp_part *p, fv_tp_rows v, fv_tp_rows dy, float *dv)
{
    const fv_kernels *kr = p->call->kr;
    float *tile = p->w->tile;
    if (dv != NULL) {
        make_tile(p, v.n, dy.n);
        kr->gemm('N', 'N', v.n, p->columns, dy.n, 1.0f, tile, dy.n, dy.x, dy.ld, 1.0f, dv, v.ld);
    }
    if (p->dweight == NULL)
        return;
    kr->gemm('N', 'T', v.n, dy.n, p->columns, 1.0f, v.x, v.ld, dy.x, dy.ld, 0.0f, tile, dy.n);
    for (int64_t j = 0; j < v.n; j++)
        kr->add(dy.n, p->dweight - j, tile + j * dy.n, p->dweight - j);
}

void fv_tp_full(const fv_tp_part *p, int64_t filter, fv_tp_rows v, int64_t nq, float *y, int64_t ldy)
{
    if (v.n == 0 || nq == 0)
        return;
    if (filter < 0) {
        direct(p, v, nq, y, ldy);
        return;
    }
    const fv_tp_filter *f = &p->call->bank.filters[filter];
    const float *spectrum = fv_tp_spectrum(p, f);
    bool finite = fv_tp_load(p, v, f->size, p->w->x);
    fv_fft_convolve(&p->call->bank.fft[f->fft], fv_tp_half(p), spectrum, spectrum + f->size, false, p->w->x);
    fv_tp_unload(p, p->w->x, nq, y, ldy);
    if (!finite)
        fv_tp_poison_all(p, v, nq, y, ldy);
}

void fv_tp_full_back(const fv_tp_part *p, int64_t filter, fv_tp_rows v, fv_tp_rows dy, float *dv)
{
    if (v.n == 0 || dy.n == 0)
        return;
    if (filter < 0) {
        direct_back(p, v, dy, dv);
        return;
    }
    const fv_tp_filter *f = &p->call->bank.filters[filter];
    const fv_fft *fft = &p->call->bank.fft[f->fft];
    int64_t c = fv_tp_half(p);
    bool finite = fv_tp_load(p, dy, f->size, p->w->x);
    fv_fft_split(fft, c, p->w->x);
    if (p->dweight != NULL) {
        float *gradient = fv_tp_gradient(p, f);
        bool both = fv_tp_load(p, v, f->size, p->w->x2) && finite;
        fv_fft_split(fft, c, p->w->x2);
        p->call->kr->fft_correlate(f->size, c, p->w->x2, 2 * c, p->w->x, 2 * c, gradient, gradient + f->size);
        if (!both)
            gradient[0] = NAN; /* a gradient of all weights that saw it */
    }
    if (dv == NULL)
        return;
    const float *spectrum = fv_tp_spectrum(p, f);
    p->call->kr->fft_filter(f->size, c, spectrum, spectrum + f->size, 1, p->w->x, 2 * c, 0, p->w->x, 2 * c);
    fv_fft_join(fft, c, p->w->x);
    fv_tp_unload(p, p->w->x, v.n, dv, v.ld);
    if (!finite)
        fv_tp_poison_all(p, dy, v.n, dv, v.ld);
}
