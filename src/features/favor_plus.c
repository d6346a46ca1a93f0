/* favor_plus.c: positive random features of the softmax kernel, FAVOR+.
 *
 *     phi(x)[f] = exp(omega_f . x - |x|^2 / 2) / sqrt(m),   x = sqrt(scale) times the head vector
 *     E[phi(x) . phi(y)] = exp(x . y)   for omega_f ~ N(0, I_d)
 *
 * Choromanski et al. 2021, Lemma 1 (SM+). In base 2: log2 phi = u_f + bias with u = omega_f . x log2 e and
 * bias = -|x|^2/2 log2 e. The factor 1/sqrt(m) stays outside: it cancels in the ratio, and the guards of the
 * normaliser put it back.
 *
 * Cost: 2 n d m forward (one product), the same backward; nothing saved.
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
    fv_map_squares(p, rows, -0.5 * FV_LOG2E * (double)p->scale, bias);
}

/* d log phi_f / d(head vector q) = sqrt(scale) omega_f - scale q, so with g = dL/dlog phi:
 * dq = sqrt(scale) g omega - scale (sum_f g_f) q. */
static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    const fv_kernels *kr = p->kernels;
    float *ones = tmp, *sums = tmp + p->r;
    (void)gc;
    kr->fill(p->r, 1.0f, ones);
    kr->row_dots(rows->n, p->r, -p->scale, g, p->r, ones, 0, 0.0f, sums);
    fv_map_projection_gradient(p, rows, sqrt((double)p->scale), g, p->r);
    kr->scale_rows(rows->n, p->d, sums, rows->x, rows->ldx, add, dx,
                   lddx); /* x may be overwritten from here */
    fv_map_project_back(p, rows->n, sqrt((double)p->scale), g, p->r, true, dx, lddx);
}

const fv_feature_map fv_map_favor_plus = {
    .name = "favor+",
    .exponential = true,
    .feature_count = fv_map_count_m,
    .unit = fv_map_unit_m,
    .prepare = prepare,
    .logits = logits,
    .backward = backward,
};
