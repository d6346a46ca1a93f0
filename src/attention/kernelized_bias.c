/* kernelized_bias.c: relative positions inside the kernel (Luo et al. 2021, arXiv 2106.12566).
 *
 *     y_i = sum_j e^{w[i-j]} (phi(q_i).phi(k_j)) v_j / sum_j e^{w[i-j]} phi(q_i).phi(k_j)
 *
 * in tiles of the implied matrix: with A = phi(Q) phi(K)^T and T_ij = e^{w[i-j]}, num = (A . T) V. No running state can carry
 * weights that change with the distance. Pairs of long sequences go through transforms instead
 * (kernelized_fft.h). Cost 2 L^2 (r + dv) a head (causal: half), three times that backward; memory linear in L.
 *
 * Range. A tile takes its keys relative to the exponents of its first one (kernelized.h; a key far above them ends the tile), its
 * queries relative to the row's largest, T relative to the row's largest weight among visible keys, 2^s in all, s a row. Sums are
 * kept relative to 2^M, M a whole number at least the largest s so far: moving M is exact, so that it steers range and no bit.
 *
 * Saved: M, 1/D, dD'/dD and y, [H][Tq]. Backward, with g_i = dy_i / D_i, rho_i = -(dD'_i/dD_i) (g_i . y_i) and
 * P = g V^T + rho 1^T: dphi(Q) = (P . T) phi(K), dphi(K) = (P . T)^T phi(Q), dV = (A . T)^T g, dw[delta] = sum of (A . T . P)_ij over
 * i - j = delta.
 * Limit: weights that differ by more than e^80 inside a tile, against features that differ as much the other way, underflow.
 */
#include "attention/kernelized.h"
#include <math.h>

#define LOG2E 1.4426950408889634

/* Rows [first, n) of queries begin + .. against keys key + .., and what was saved of them. */
typedef struct tile {
    int64_t row, n, key, m, first;
} tile;

void fv_kz_bias_carve(const fv_kz_call *call, fv_arena *arena, fv_kz_bias *bias, bool backward)
{
    int64_t C = call->C, all = 2 * call->op->options.position_span - 1;
    bias->table = FV_PUSH(arena, float, all);
    bias->tile = FV_PUSH(arena, float, C *C);
    bias->largest = FV_PUSH(arena, float, C);
    bias->scale = FV_PUSH(arena, float, C);
    bias->fresh = FV_PUSH(arena, float, C);
    bias->old = FV_PUSH(arena, float, C);
    if (!backward)
        return;
    bias->grad = FV_PUSH(arena, float, all);
    bias->diagonals = FV_PUSH(arena, float, 2 * C);
}

size_t fv_kz_bias_saved(const fv_kz_call *call, int64_t queries)
{
    int64_t floats;
    bool fits = fv_mul(queries, call->H * (call->dv + 3), &floats);
    return fits ? fv_bytes(floats, sizeof(float)) : SIZE_MAX;
}

/* [3][queries] M, 1/D, dD'/dD, then y [queries][dv] of a head of a sequence. */
static float *saved_of(const fv_kz_call *call, const fv_kz_head *h)
{
    int64_t before = call->layout->offsets_q[h->sequence];
    return call->saved + (before * call->H + h->head * h->nq) * (call->dv + 3);
}

/* table[N-1-i+j] = w[i-j] log2 e: the keys of a row lie side by side. */
static void load_table(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w)
{
    int64_t last = 2 * call->op->options.position_span - 2;
    for (int64_t x = 0; x <= last; x++)
        w->rpe.table[x] = (float)((double)h->map.input[FV_INPUT_POSITION_BIAS][last - x] * LOG2E);
}

/* rpe.tile = T of the tile's rows, relative to 2^rpe.largest; 0 where the row does not see the key. */
static void toeplitz_tile(const fv_kz_call *call, fv_kz_work *w, const tile *x)
{
    const fv_kernels *kr = call->kr;
    int64_t C = call->C, span = call->op->options.position_span;
    for (int64_t i = x->first; i < x->n; i++) {
        const float *row = w->rpe.table + span - 1 - (x->row + i) + x->key;
        int64_t seen = call->op->options.causal ? FV_MIN(x->m, x->row + i - x->key + 1) : x->m;
        kr->copy_rows(1, seen, row, seen, w->rpe.tile + i * C, C);
        kr->fill(x->m - seen, -INFINITY, w->rpe.tile + i * C + seen);
    }
    kr->exp2_rows_top(x->n - x->first, x->m, w->rpe.tile + x->first * C, C, NULL, w->rpe.largest + x->first);
}

/* Features of the tile's keys (once) and queries, and w->a = A; returns how many keys the tile takes. */
static int64_t make_tile(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, tile *x)
{
    const fv_kernels *kr = call->kr;
    int64_t C = call->C, r = call->r;
    w->state.tokens = 0;
    kr->fill(r, 0.0f, w->state.e);
    int64_t taken = fv_kz_keys(call, h, w, x->key, x->m);
    x->first = call->op->options.causal ? FV_MAX(0, x->key - x->row) : 0;
    fv_kz_queries(call, h, w, x->row, x->n);
    kr->gemm('N', 'T', x->n, x->m, r, 1.0f, w->q, r, w->k, r, 0.0f, w->a, C);
    toeplitz_tile(call, w, x);
    for (int64_t i = 0; i < x->n; i++) {
        int64_t seen = call->op->options.causal ? FV_MIN(x->m, x->row + i - x->key + 1) : x->m;
        w->visible[i] = FV_MAX(seen, 0);
    }
    for (int64_t i = x->first; i < x->n; i++)
        kr->mul(x->m, w->a + i * C, w->rpe.tile + i * C, w->a + i * C);
    kr->mask_rows(x->n, x->m, w->visible, w->a, C);
    return taken;
}

float fv_kz_bias_raise(float *M, float s)
{
    float old = *M;
    *M = isfinite(s) ? FV_MAX(old, ceilf(s)) : old;
    return old == -INFINITY ? 1.0f : exp2f(old - *M);
}

/* Raises M to the tile's s where it is larger: rpe.old scales sums so far, rpe.fresh the tile's rows. */
static void raise_scale(fv_kz_work *w, const tile *x)
{
    for (int64_t i = x->first; i < x->n; i++) {
        float s = w->top[i] + w->rpe.largest[i];
        w->rpe.old[i] = fv_kz_bias_raise(w->rpe.scale + i, s);
        w->rpe.fresh[i] = exp2f(s - (w->rpe.scale[i] == -INFINITY ? 0.0f : w->rpe.scale[i]));
    }
}

/* What non-finite values give the rows that see them; w->v holds the values without. */
static void add_poison(const fv_kz_call *call, fv_kz_work *w, const tile *x, const float *v, float *y)
{
    const fv_kernels *kr = call->kr;
    for (int64_t j = 0; j < x->m; j++) {
        float *poison = w->v + j * call->dv;
        if (kr->all_finite(1, call->dv, v + j * call->ldv, call->ldv))
            continue;
        kr->scale(call->dv, -1.0f, poison, poison);
        kr->axpy(call->dv, 1.0f, v + j * call->ldv, poison);
        for (int64_t i = x->first; i < x->n; i++)
            if (j < w->visible[i])
                kr->axpy(call->dv, w->a[i * call->C + j], poison, y + i * call->ldy);
    }
}

static void add_tile(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const tile *x)
{
    const fv_kernels *kr = call->kr;
    int64_t C = call->C, dv = call->dv, f = x->first, n = x->n - f;
    float *y = h->y + x->row * call->ldy;
    const float *v = h->v + x->key * call->ldv;
    raise_scale(w, x);
    kr->scale_rows(n, x->m, w->rpe.fresh + f, w->a + f * C, C, 0, w->a + f * C, C);
    kr->scale_rows(n, dv, w->rpe.old + f, y + f * call->ldy, call->ldy, 0, y + f * call->ldy, call->ldy);
    kr->mul(n, w->den + f, w->rpe.old + f, w->den + f);
    kr->row_dots(n, x->m, 1.0f, w->a + f * C, C, w->ones, 0, 1.0f, w->den + f);
    int finite = kr->finite_rows(x->m, dv, v, call->ldv, w->v, dv);
    kr->gemm('N', 'N', n, dv, x->m, 1.0f, w->a + f * C, C, w->v, dv, 1.0f, y + f * call->ldy, call->ldy);
    if (!finite)
        add_poison(call, w, x, v, y);
}

/* Keys that the last of rows [row, row+n) sees. */
static int64_t reach(const fv_kz_call *call, const fv_kz_head *h, int64_t row, int64_t n)
{
    return call->op->options.causal ? FV_MIN(row + n, h->nk) : h->nk;
}

/* After the last tile: w->inv and w->pass of rows. */
static void finish_rows(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        w->top[i] = w->rpe.scale[i] = w->rpe.scale[i] == -INFINITY ? 0.0f : w->rpe.scale[i];
    fv_kz_normalise(call, w, n);
}

static void begin_rows(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    call->kr->fill(n, -INFINITY, w->rpe.scale);
    call->kr->fill(n, 0.0f, w->den);
    call->kr->fill(n, 0.0f, w->bias);
}

/* Rows wait for the pairs that go through transforms, and come back. */
static void park_rows(const fv_kz_call *call, fv_kz_work *w, int64_t row, int64_t n, bool back)
{
    float *here[] = {w->rpe.scale, w->den, w->bias},
          *there[] = {w->fft.scale + row, w->fft.den + row, w->fft.bias + row};
    for (int i = 0; i < FV_COUNT(here); i++)
        call->kr->copy_rows(1, n, back ? there[i] : here[i], n, back ? here[i] : there[i], n);
}

static void end_rows(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t row, int64_t n)
{
    const fv_kernels *kr = call->kr;
    int64_t dv = call->dv, ldy = call->ldy;
    float *y = h->y + row * ldy;
    finish_rows(call, w, n);
    kr->scale_rows(n, dv, w->inv, y, ldy, 0, y, ldy);
    if (call->saved == NULL)
        return;
    float *saved = saved_of(call, h);
    kr->copy_rows(1, n, w->rpe.scale, n, saved + row, n);
    kr->copy_rows(1, n, w->inv, n, saved + h->nq + row, n);
    kr->copy_rows(1, n, w->pass, n, saved + 2 * h->nq + row, n);
    kr->copy_rows(n, dv, y, ldy, saved + 3 * h->nq + row * dv, dv);
}

void fv_kz_bias_forward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w)
{
    bool parted = fv_kz_fft_taken(call, h);
    fv_kz_start(call, h, w);
    load_table(call, h, w);
    for (int64_t row = 0; row < h->nq; row += call->C) {
        int64_t n = FV_MIN(call->C, h->nq - row), end = reach(call, h, row, n);
        begin_rows(call, w, n);
        for (int64_t i = 0; i < n; i++)
            call->kr->fill(call->dv, 0.0f, h->y + (row + i) * call->ldy);
        for (int64_t key = parted ? fv_kz_fft_tiles_from(call, h, row) : 0; key < end;) {
            tile x = {row, n, key, FV_MIN(call->C, end - key), 0};
            key += make_tile(call, h, w, &x);
            add_tile(call, h, w, &x);
        }
        if (parted)
            park_rows(call, w, row, n, false);
        else
            end_rows(call, h, w, row, n);
    }
    if (!parted)
        return;
    fv_kz_fft_forward(call, h, w);
    for (int64_t row = 0; row < h->nq; row += call->C) {
        int64_t n = FV_MIN(call->C, h->nq - row);
        park_rows(call, w, row, n, true);
        end_rows(call, h, w, row, n);
    }
}

void fv_kz_bias_row(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t row, float *out)
{
    const fv_kernels *kr = call->kr;
    int64_t end = reach(call, h, row, 1);
    fv_kz_start(call, h, w);
    load_table(call, h, w);
    begin_rows(call, w, 1);
    for (int64_t key = 0; key < end;) {
        tile x = {row, 1, key, FV_MIN(call->C, end - key), 0};
        int64_t taken = make_tile(call, h, w, &x);
        raise_scale(w, &x);
        kr->scale(key, w->rpe.old[0], out, out);
        kr->scale(taken, w->rpe.fresh[0], w->a, out + key);
        key += taken;
    }
    w->den[0] = (float)kr->sum(end, out);
    finish_rows(call, w, 1);
    kr->scale(end, w->inv[0], out, out);
}

/* ---- backward ---------------------------------------------------------------------------------------- */

/* rpe.grad += sums of a . p along the diagonals. */
static void add_diagonals(const fv_kz_call *call, fv_kz_work *w, const tile *x)
{
    const fv_kernels *kr = call->kr;
    int64_t C = call->C, span = call->op->options.position_span, all = x->n + x->m - 1;
    float *sums = w->rpe.diagonals, *out = w->rpe.grad + span - 1 - (x->row + x->n - 1) + x->key;
    kr->fill(all, 0.0f, sums);
    for (int64_t i = x->first; i < x->n; i++)
        kr->mul_add(w->visible[i], w->a + i * C, w->p + i * C, sums + x->n - 1 - i);
    /* Rows before the first see nothing, and the table need not reach them. */
    kr->add(all - x->first, out, sums, out);
}

static void backward_tile(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const tile *x)
{
    const fv_kernels *kr = call->kr;
    int64_t C = call->C, r = call->r, dv = call->dv, f = x->first, n = x->n - f;
    float *a = w->a + f * C, *p = w->p + f * C, *g = w->g + f * dv;
    for (int64_t i = f; i < x->n; i++)
        w->rpe.fresh[i] = exp2f(w->top[i] + w->rpe.largest[i] - w->rpe.scale[i]);
    kr->scale_rows(n, x->m, w->rpe.fresh + f, a, C, 0, a, C);
    if (h->dv != NULL)
        kr->gemm('T', 'N', x->m, dv, n, 1.0f, a, C, g, dv, 1.0f, h->dv + x->key * call->ldv, call->ldv);
    kr->gemm('N', 'T', n, x->m, dv, 1.0f, g, dv, h->v + x->key * call->ldv, call->ldv, 0.0f, p, C);
    kr->add_outer(n, x->m, w->rho + f, w->ones, p, C);
    kr->mask_rows(n, x->m, w->visible + f, p, C);
    if (w->rpe.wanted)
        add_diagonals(call, w, x);
    for (int64_t i = f; i < x->n; i++)
        kr->mul(x->m, w->p + i * C, w->rpe.tile + i * C, w->p + i * C);
    kr->scale_rows(n, x->m, w->rpe.fresh + f, p, C, 0, p, C);
    fv_rows queries = fv_kz_rows(call, h, false, x->row, x->n),
            keys = fv_kz_rows(call, h, true, x->key, x->m);
    kr->fill(f * r, 0.0f, w->t);
    kr->gemm('N', 'N', n, r, x->m, 1.0f, p, C, w->k, r, 0.0f, w->t + f * r, r);
    fv_kz_through_map(call, h, w, &queries, w->q, h->dq != NULL ? h->dq + x->row * call->ldq : NULL);
    kr->gemm('T', 'N', x->m, r, n, 1.0f, p, C, w->q + f * r, r, 0.0f, w->t, r);
    fv_kz_through_map(call, h, w, &keys, w->k, h->dk != NULL ? h->dk + x->key * call->ldk : NULL);
}

/* w->g = dy / D, w->rho, and the scale of rows [row, row+n). */
static void load_rows(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t row, int64_t n)
{
    const fv_kernels *kr = call->kr;
    const float *saved = saved_of(call, h), *y = saved + 3 * h->nq + row * call->dv;
    int64_t dv = call->dv;
    kr->copy_rows(1, n, saved + row, n, w->rpe.scale, n);
    kr->copy_rows(1, n, saved + h->nq + row, n, w->inv, n);
    kr->scale_rows(n, dv, w->inv, h->dy + row * call->ldy, call->ldy, 0, w->g, dv);
    kr->row_dots(n, dv, -1.0f, w->g, dv, y, dv, 0.0f, w->rho);
    for (int64_t i = 0; i < n; i++) {
        float pass = saved[2 * h->nq + row + i];
        w->rho[i] = pass == 0.0f ? 0.0f : pass * w->rho[i];
    }
}

void fv_kz_bias_backward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w)
{
    int64_t last = 2 * call->op->options.position_span - 2;
    float *d_bias = h->map.d_input[FV_INPUT_POSITION_BIAS];
    bool parted = fv_kz_fft_taken(call, h);
    w->rpe.wanted = d_bias != NULL;
    fv_kz_start(call, h, w);
    load_table(call, h, w);
    call->kr->fill(last + 1, 0.0f, w->rpe.grad);
    for (int64_t row = 0; row < h->nq; row += call->C) {
        int64_t n = FV_MIN(call->C, h->nq - row), end = reach(call, h, row, n);
        load_rows(call, h, w, row, n);
        if (parted)
            fv_kz_fft_park(call, w, row, n);
        for (int64_t key = parted ? fv_kz_fft_tiles_from(call, h, row) : 0; key < end;) {
            tile x = {row, n, key, FV_MIN(call->C, end - key), 0};
            int64_t taken = make_tile(call, h, w, &x);
            x.m = taken;
            for (int64_t i = 0; i < n; i++)
                w->visible[i] = FV_MIN(w->visible[i], taken);
            backward_tile(call, h, w, &x);
            key += taken;
        }
    }
    for (int64_t i = 0; d_bias != NULL && i <= last; i++)
        d_bias[i] += w->rpe.grad[last - i];
    if (parted)
        fv_kz_fft_backward(call, h, w);
}
