/* favor_regularized.c: positive features of the regularized softmax kernel, SMREG+ and SMREG^hyp+.
 *
 *     o_f = sqrt(d) omega_f / |omega_f|,   u_f = o_f . x,   x = sqrt(scale) times the head vector
 *     favor+reg:     phi(x)[f] = exp(u_f - |x|^2 / 2) / sqrt(m)
 *     favor+reghyp:  phi(x) = exp(-|x|^2 / 2) / sqrt(2m) [exp(u_1) .. exp(u_m), exp(-u_1) .. exp(-u_m)]
 *     E[phi(x) . phi(y)] = exp(-(|x|^2 + |y|^2)/2) 0F1(; d/2; d |x + y|^2 / 4) <= exp(x . y)
 *
 * Choromanski et al. 2021, section 2.4 and Theorem 1: the kernel whose rows lie on the sphere of radius sqrt(d); a
 * lower bound of the softmax kernel that approaches it as d grows, with lighter tails. Rows of a projection, drawn or
 * given, are rescaled here; a row of zeros stays one. In base 2 as in favor_plus.c.
 *
 * Cost: 2 n d m forward, the same backward; nothing saved.
 */
#include "features/feature_map.h"
#include <math.h>

/* What prepare makes. */
typedef struct parts {
    float *projection; /* rows o sqrt(scale) log2 e */
    float *rows;       /* [m][d] o */
    float *factor;     /* [m] sqrt(d) / |omega_f| */
} parts;

static parts parts_of(const fv_map_params *p, float *prepared)
{
    float *rows = prepared + fv_map_rows_floats(p, p->m);
    return (parts){prepared, rows, rows + p->d * p->m};
}

static int64_t prepared_floats(const fv_map_params *p)
{
    return fv_map_rows_floats(p, p->m) + (p->d + 1) * p->m;
}

static void prepare(const fv_map_params *p, float *prepared)
{
    parts to = parts_of(p, prepared);
    for (int64_t f = 0; f < p->m; f++) {
        const float *w = p->w + f * p->d;
        double norm = sqrt(p->kernels->sum_squares(p->d, w)),
               factor = norm > 0 ? sqrt((double)p->d) / norm : 0;
        to.factor[f] = (float)factor;
        for (int64_t c = 0; c < p->d; c++)
            to.rows[f * p->d + c] = (float)(factor * (double)w[c]);
    }
    fv_map_prepare_rows(p, p->m, to.rows, sqrt((double)p->scale) * FV_LOG2E, NULL, to.projection);
}

static bool mirrored(const fv_map_params *p)
{
    return p->r != p->m;
}

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c;
    fv_map_project(p, rows, u, p->r);
    if (mirrored(p))
        fv_map_mirror(p, rows->n, u, bias);
    fv_map_squares(p, rows, -0.5 * FV_LOG2E * (double)p->scale, bias);
}

/* do = sqrt(scale) g^T x, and through o = sqrt(d) w/|w|: dw = (sqrt(d)/|w|) (do - (do.o) o / d). */
static void rows_gradient(const fv_map_params *p, const fv_rows *rows, const parts *from, const float *g,
                          float *tmp)
{
    const fv_kernels *kr = p->kernels;
    float *to = p->d_input[FV_INPUT_PROJECTION], *dots = tmp, *d_rows = tmp + p->m;
    if (to == NULL)
        return;
    kr->gemm('T', 'N', p->m, p->d, rows->n, sqrtf(p->scale), g, p->r, rows->x, rows->ldx, 0.0f, d_rows, p->d);
    kr->row_dots(p->m, p->d, -1.0f / (float)p->d, d_rows, p->d, from->rows, p->d, 0.0f, dots);
    kr->scale_rows(p->m, p->d, dots, from->rows, p->d, 1, d_rows, p->d);
    kr->scale_rows(p->m, p->d, from->factor, d_rows, p->d, 1, to, p->d);
}

/* As that of favor_plus.c and favor_hyperbolic.c, with rows o. */
static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    const fv_kernels *kr = p->kernels;
    int64_t n = rows->n;
    float *ones = tmp, *sums = tmp + p->r, *minus = sums + n;
    parts from = parts_of(p, (float *)(uintptr_t)p->prepared); /* only read */
    (void)gc;
    kr->fill(p->r, 1.0f, ones);
    kr->row_dots(n, p->r, -p->scale, g, p->r, ones, 0, 0.0f, sums);
    if (mirrored(p))
        fv_map_mirror_back(p, n, g, minus);
    rows_gradient(p, rows, &from, g, minus + n);
    kr->scale_rows(n, p->d, sums, rows->x, rows->ldx, add, dx, lddx); /* last use of x */
    fv_map_apply_rows_back(p, p->m, from.projection, from.rows, n, sqrtf(p->scale), g, p->r, true, dx, lddx);
}

static int64_t tmp_floats(const fv_map_params *p, int64_t n)
{
    int64_t trained = p->options->trainable_projection ? p->m * (p->d + 1) : 0;
    return p->r + 2 * n + trained;
}

const fv_feature_map fv_map_favor_regularized = {
    .name = "favor+reg",
    .exponential = true,
    .feature_count = fv_map_count_m,
    .unit = fv_map_unit_m,
    .prepared_floats = prepared_floats,
    .prepare = prepare,
    .logits = logits,
    .backward = backward,
    .tmp_floats = tmp_floats,
};

const fv_feature_map fv_map_favor_regularized_hyperbolic = {
    .name = "favor+reghyp",
    .exponential = true,
    .feature_count = fv_map_count_2m,
    .unit = fv_map_unit_2m,
    .prepared_floats = prepared_floats,
    .prepare = prepare,
    .logits = logits,
    .backward = backward,
    .tmp_floats = tmp_floats,
};
