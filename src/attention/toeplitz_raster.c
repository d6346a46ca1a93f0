/* toeplitz_raster.c: the 2-D form on an R x R raster, T = w[row i - row j] + w[col i - col j], rows of the raster one
 * after the other; T1 is the R x R Toeplitz matrix of w.
 *
 * All pairs: y[x][y] += (T1 C)[y] + (T1 rho)[x] with column sums C = sum over x of V[x] and row sums rho.
 * Causal: y[x][y] += sum over x' < x of w[x - x'] rho_x' + (T1 P_x)[y] + sum over y' <= y of (w_0 + w[y - y']) V[x][y'],
 * P_x = sum over x' < x of V[x']: only finished rows enter the products of all pairs. */
#include "attention/toeplitz_pieces.h"

static const float *row_of(fv_tp_rows v, int64_t x, int64_t R)
{
    return v.x + x * R * v.ld;
}

/* rho_x of every row, into rho [R][columns]. */
static void row_sums(const fv_tp_part *p, fv_tp_rows v, int64_t R, float *rho)
{
    p->call->kr->fill(R * p->columns, 0.0f, rho);
    for (int64_t x = 0; x < R; x++)
        p->call->kr->add_col_sums(R, p->columns, NULL, row_of(v, x, R), v.ld, rho + x * p->columns);
}

static void column_sums(const fv_tp_part *p, fv_tp_rows v, int64_t R, float *sums)
{
    p->call->kr->fill(R * p->columns, 0.0f, sums);
    for (int64_t x = 0; x < R; x++)
        p->call->kr->scale_rows(R, p->columns, NULL, row_of(v, x, R), v.ld, 1, sums, p->columns);
}

/* y[x][y] += u[y] + z[x] */
static void spread(const fv_tp_part *p, const float *u, const float *z, int64_t R, float *y, int64_t ldy)
{
    for (int64_t x = 0; x < R; x++, y += R * ldy) {
        p->call->kr->scale_rows(R, p->columns, NULL, u, p->columns, 1, y, ldy);
        p->call->kr->add_outer(R, p->columns, NULL, z + x * p->columns, y, ldy);
    }
}

static fv_tp_rows buffer(const fv_tp_part *p, const float *x, int64_t n)
{
    return (fv_tp_rows){x, n, p->columns};
}

static void all_pairs(const fv_tp_part *p, fv_tp_rows v, int64_t R, float *y, int64_t ldy)
{
    float **s = p->w->sums;
    int64_t cols = p->columns;
    column_sums(p, v, R, s[0]);
    row_sums(p, v, R, s[1]);
    for (int n = 0; n < 2; n++) {
        p->call->kr->fill(R * cols, 0.0f, s[2 + n]);
        fv_tp_full(p, p->call->raster, buffer(p, s[n], R), R, s[2 + n], cols);
    }
    spread(p, s[2], s[3], R, y, ldy);
}

static void all_pairs_back(const fv_tp_part *p, fv_tp_rows v, fv_tp_rows dy, int64_t R, float *dv)
{
    float **s = p->w->sums;
    int64_t cols = p->columns;
    column_sums(p, v, R, s[0]);
    row_sums(p, v, R, s[1]);
    column_sums(p, dy, R, s[2]);
    row_sums(p, dy, R, s[3]);
    for (int n = 0; n < 2; n++) {
        p->call->kr->fill(R * cols, 0.0f, s[4 + n]);
        fv_tp_full_back(p, p->call->raster, buffer(p, s[n], R), buffer(p, s[2 + n], R), s[4 + n]);
    }
    if (dv != NULL)
        spread(p, s[4], s[5], R, dv, v.ld);
}

/* y[i] += w_0 (v_0 + ... + v_i), or from the end (backward). */
static void running(const fv_tp_part *p, fv_tp_rows v, bool backward, float *y, int64_t ldy)
{
    const fv_kernels *kr = p->call->kr;
    float *total = p->w->total;
    kr->fill(p->columns, 0.0f, total);
    for (int64_t n = 0; n < v.n; n++) {
        int64_t i = backward ? v.n - 1 - n : n;
        kr->add(p->columns, total, v.x + i * v.ld, total);
        kr->axpy(p->columns, p->weight[0], total, y + i * ldy);
    }
}

/* dw_0 += sum over i >= j of dy_i . v_j */
static void running_weight(const fv_tp_part *p, fv_tp_rows v, fv_tp_rows dy)
{
    const fv_kernels *kr = p->call->kr;
    float *total = p->w->total;
    kr->fill(p->columns, 0.0f, total);
    for (int64_t j = v.n - 1; j >= 0; j--) {
        kr->add(p->columns, total, dy.x + j * dy.ld, total);
        kr->row_dots(1, p->columns, 1.0f, v.x + j * v.ld, v.ld, total, 0, 1.0f, p->dweight);
    }
}

static void causal(const fv_tp_part *p, fv_tp_rows v, int64_t R, float *y, int64_t ldy)
{
    const fv_kernels *kr = p->call->kr;
    float *rho = p->w->sums[0], *z = p->w->sums[1], *before = p->w->sums[2];
    int64_t cols = p->columns;
    row_sums(p, v, R, rho);
    kr->fill(R * cols, 0.0f, z);
    kr->fill(R * cols, 0.0f, before);
    fv_tp_past_forward(p, &p->call->shifted, buffer(p, rho, R - 1), z, cols); /* z[x - 1] is row x's */
    for (int64_t x = 0; x < R; x++, y += R * ldy) {
        fv_tp_rows row = {row_of(v, x, R), R, v.ld};
        fv_tp_past_forward(p, &p->call->past, row, y, ldy);
        running(p, row, false, y, ldy);
        if (x > 0) {
            kr->add_outer(R, cols, NULL, z + (x - 1) * cols, y, ldy);
            fv_tp_full(p, p->call->raster, buffer(p, before, R), R, y, ldy);
        }
        kr->scale_rows(R, cols, NULL, row.x, row.ld, 1, before, cols);
    }
}

/* With D_x = sum of dy over later rows, row x receives T1^T D_x, and w the correlation of V[x] and D_x. */
static void causal_back(const fv_tp_part *p, fv_tp_rows v, fv_tp_rows dy, int64_t R, float *dv)
{
    const fv_kernels *kr = p->call->kr;
    float **s = p->w->sums, *rho = s[0], *dz = s[1], *drho = s[2], *after = s[3];
    int64_t cols = p->columns;
    row_sums(p, v, R, rho);
    row_sums(p, dy, R, dz);
    kr->fill(R * cols, 0.0f, drho);
    kr->fill(R * cols, 0.0f, after);
    fv_tp_past_back(p, &p->call->shifted, buffer(p, rho, R - 1), buffer(p, dz + cols, R - 1), drho);
    for (int64_t x = R - 1; x >= 0; x--) {
        fv_tp_rows row = {row_of(v, x, R), R, v.ld}, drow = {row_of(dy, x, R), R, dy.ld};
        float *dv_x = dv != NULL ? dv + x * R * v.ld : NULL;
        fv_tp_past_back(p, &p->call->past, row, drow, dv_x);
        if (p->dweight != NULL)
            running_weight(p, row, drow);
        if (dv != NULL) {
            running(p, drow, true, dv_x, v.ld);
            kr->add_outer(R, cols, NULL, drho + x * cols, dv_x, v.ld);
        }
        if (x < R - 1)
            fv_tp_full_back(p, p->call->raster, row, buffer(p, after, R), dv_x);
        kr->scale_rows(R, cols, NULL, drow.x, drow.ld, 1, after, cols);
    }
}

void fv_tp_raster(const fv_tp_part *p, fv_tp_rows v, float *y, int64_t ldy)
{
    int64_t R = p->call->t->span;
    if (v.n == 0)
        return;
    if (p->call->t->causal)
        causal(p, v, R, y, ldy);
    else
        all_pairs(p, v, R, y, ldy);
}

void fv_tp_raster_back(const fv_tp_part *p, fv_tp_rows v, fv_tp_rows dy, float *dv)
{
    int64_t R = p->call->t->span;
    if (v.n == 0)
        return;
    if (p->call->t->causal)
        causal_back(p, v, dy, R, dv);
    else
        all_pairs_back(p, v, dy, R, dv);
}
