/* favor_hyperbolic.c: hyperbolic positive features of the softmax kernel, SM^hyp+.
 *
 *     phi(x) = exp(-|x|^2 / 2) / sqrt(2m) [exp(u_1) .. exp(u_m), exp(-u_1) .. exp(-u_m)],   u_f = omega_f . x
 *     E[phi(x) . phi(y)] = exp(x . y)   for omega_f ~ N(0, I_d),   x = sqrt(scale) times the head vector
 *
 * Choromanski et al. 2021, Lemmas 1 and 2. Every row is used in both directions: for iid rows the variance is (1 -
 * exp(-|x + y|^2))/2 that of the m features of favor+, so below that of 2m such features, for half the cost of the
 * product. In base 2 as in favor_plus.c; the factor 1/2m of phi.phi stays outside.
 *
 * Cost: 2 n d m forward, the same backward; nothing saved.
 */
#include "features/feature_map.h"
#include <math.h>

static void prepare(const fv_map_params *p, float *prepared)
{
    fv_map_prepare_scaled(p, sqrt((double)p->scale) * FV_LOG2E, prepared);
}

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c;
    fv_map_project(p, rows, u, p->r);
    fv_map_mirror(p, rows->n, u, bias);
    fv_map_squares(p, rows, -0.5 * FV_LOG2E * (double)p->scale, bias);
}

/* With g = dL/dlog phi, halves g+ and g-: dq = sqrt(scale) (g+ - g-) omega - scale (sum_f g_f) q. */
static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    float *ones = tmp, *sums = tmp + p->r;
    (void)gc;
    p->kernels->fill(p->r, 1.0f, ones);
    p->kernels->row_dots(rows->n, p->r, -p->scale, g, p->r, ones, 0, 0.0f, sums);
    fv_map_mirror_back(p, rows->n, g, sums + rows->n);
    fv_map_projection_gradient(p, rows, sqrt((double)p->scale), g, p->r);
    p->kernels->scale_rows(rows->n, p->d, sums, rows->x, rows->ldx, add, dx, lddx); /* last use of x */
    fv_map_project_back(p, rows->n, sqrt((double)p->scale), g, p->r, true, dx, lddx);
}

static int64_t tmp_floats(const fv_map_params *p, int64_t n)
{
    return p->r + 2 * n;
}

const fv_feature_map fv_map_favor_hyperbolic = {
    .name = "favor+hyp",
    .exponential = true,
    .feature_count = fv_map_count_2m,
    .unit = fv_map_unit_2m,
    .prepare = prepare,
    .logits = logits,
    .backward = backward,
    .tmp_floats = tmp_floats,
};
