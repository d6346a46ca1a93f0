/* favor_trig.c: trigonometric features of the softmax kernel, SM^trig.
 *
 *     phi(x) = exp(|x|^2 / 2) / sqrt(m) [sin u_1 .. sin u_m, cos u_1 .. cos u_m],   u_f = omega_f . x
 *     E[phi(x) . phi(y)] = exp(x . y)   for omega_f ~ N(0, I_d),   x = sqrt(scale) times the head vector
 *
 * Choromanski et al. 2021, section 2.3: the random Fourier features of the Gaussian factor of exp(x . y). Exact at
 * x = y; the error grows with |x - y|, where positive features' grows with |x + y|. The features are signed: the
 * normaliser can be 0 or negative where the true one is small, and training with them is unstable (the paper's
 * figure 5), so the default guard is sign:1e-3.
 *
 * sin and cos are coefficients, exp(|x|^2/2) the row's log-magnitude, so that long vectors do not overflow. The
 * factor 1/m of phi.phi stays outside. Cost: 2 n d m forward, twice that backward, which computes u again;
 * nothing saved.
 */
#include "features/feature_map.h"
#include <math.h>

static void prepare(const fv_map_params *p, float *prepared)
{
    fv_map_prepare_scaled(p, sqrt((double)p->scale), prepared);
}

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    const fv_kernels *kr = p->kernels;
    fv_map_project(p, rows, c, p->r);
    kr->sincos_rows(rows->n, p->m, c, p->r, c, c + p->m, p->r);
    kr->fill(rows->n * p->r, 0.0f, u);
    fv_map_squares(p, rows, 0.5 * FV_LOG2E * (double)p->scale, bias);
}

/* dq = sqrt(scale) (dL/dsin cos u - dL/dcos sin u) omega + scale (sum_f g_f) q. */
static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    const fv_kernels *kr = p->kernels;
    int64_t n = rows->n;
    float *ones = tmp, *sums = tmp + p->r, *c = sums + n;
    kr->fill(p->r, 1.0f, ones);
    kr->row_dots(n, p->r, p->scale, g, p->r, ones, 0, 0.0f, sums);
    fv_map_project(p, rows, c, p->r);
    kr->sincos_rows(n, p->m, c, p->r, c, c + p->m, p->r);
    fv_map_sincos_back(p->kernels, n, p->m, c, p->r, gc, p->r);
    fv_map_projection_gradient(p, rows, sqrt((double)p->scale), gc, p->r);
    kr->scale_rows(n, p->d, sums, rows->x, rows->ldx, add, dx, lddx); /* last use of x */
    fv_map_project_back(p, n, sqrt((double)p->scale), gc, p->r, true, dx, lddx);
}

const fv_feature_map fv_map_favor_trig = {
    .name = "favor-trig",
    .exponential = true,
    .coefficients = true,
    .can_be_negative = true,
    .mixed = true,
    .feature_count = fv_map_count_2m,
    .unit = fv_map_unit_m,
    .prepare = prepare,
    .logits = logits,
    .backward = backward,
};
