/* dpfp.c: deterministic parameter-free projection with nu = 1.
 *
 *     u = max([x; -x], 0)  [2d],   phi_i = u_i u_(i+1), cyclic,   r = 2d,   x = sqrt(scale) times the head vector
 *
 * Schlag et al. 2021, arXiv 2102.11174. Never negative, often 0: a row whose query meets no key gives y = 0, and with d = 1,
 * where u_1 u_2 = 0, every row does. Default scale 1. Cost 2 n d; nothing saved.
 */
#include "features/feature_map.h"
#include <math.h>

static int64_t count_2d(const fv_attention_options *o, int64_t m)
{
    (void)m;
    return 2 * o->dim;
}

/* u [n][2d] */
static void halves(const fv_map_params *p, const fv_rows *rows, float *u)
{
    const fv_kernels *kr = p->kernels;
    for (int64_t i = 0; i < rows->n; i++) {
        const float *x = rows->x + i * rows->ldx;
        kr->scale(p->d, sqrtf(p->scale), x, u + i * p->r);
        kr->scale(p->d, -sqrtf(p->scale), x, u + i * p->r + p->d);
    }
    kr->function_rows(FV_FUNCTION_RELU, rows->n, p->r, 0.0f, u, p->r, u, p->r);
}

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c, (void)bias;
    halves(p, rows, u);
    p->kernels->cyclic_rows(rows->n, p->r, u, p->r, u, p->r);
}

static int64_t tmp_floats(const fv_map_params *p, int64_t n)
{
    return 2 * n * p->r + 2 * n;
}

/* dx = sqrt(scale) (du of the first half where x > 0, minus that of the second where x < 0) */
static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    (void)gc;
    const fv_kernels *kr = p->kernels;
    int64_t n = rows->n, r = p->r;
    float *u = tmp, *du = u + n * r, *plus = du + n * r, *minus = plus + n;
    halves(p, rows, u);
    kr->cyclic_rows_back(n, r, u, r, g, r, du, r);
    kr->function_rows_back(FV_FUNCTION_RELU, n, r, 0.0f, u, r, du, r, du, r);
    kr->fill(n, sqrtf(p->scale), plus);
    kr->fill(n, -sqrtf(p->scale), minus);
    kr->scale_rows(n, p->d, minus, du + p->d, r, 0, du + p->d, r);
    kr->scale_rows(n, p->d, plus, du, r, 1, du + p->d, r);
    kr->scale_rows(n, p->d, NULL, du + p->d, r, add, dx, lddx);
}

const fv_feature_map fv_map_dpfp = {
    .name = "dpfp",
    .unit_scale = true,
    .unprojected = true,
    .feature_count = count_2d,
    .degrees = fv_map_degrees_2,
    .logits = logits,
    .backward = backward,
    .tmp_floats = tmp_floats,
};
