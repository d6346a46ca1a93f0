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

#define LOG2E 1.4426950408889634

static int64_t feature_count(int64_t m)
{
    return m;
}

/* wt [d][m] = omega^T sqrt(scale) log2 e, so that u = x wt is one plain product. */
static void prepare(const fv_map_params *p, const float *w, float *wt)
{
    double factor = sqrt((double)p->scale) * LOG2E;
    for (int64_t f = 0; f < p->m; f++)
        for (int64_t c = 0; c < p->d; c++)
            wt[c * p->m + f] = (float)(factor * (double)w[f * p->d + c]);
}

static void logits(const fv_map_params *p, int64_t n, const float *x, int64_t ldx, float *u, float *bias)
{
    const fv_kernels *kr = p->kernels;
    kr->gemm('N', 'N', n, p->m, p->d, 1.0f, x, ldx, p->wt, p->m, 0.0f, u, p->m);
    kr->row_dots(n, p->d, (float)(-0.5 * LOG2E) * p->scale, x, ldx, x, ldx, 0.0f, bias);
}

/* d log phi_f / d(head vector q) = sqrt(scale) omega_f - scale q, so with g = dL/dlog phi:
 * dq = sqrt(scale) g omega - scale (sum_f g_f) q. */
static void backward(const fv_map_params *p, int64_t n, const float *x, int64_t ldx, float *g, bool add,
                     float *dx, int64_t lddx, float *tmp)
{
    const fv_kernels *kr = p->kernels;
    float *ones = tmp, *sums = tmp + p->r;
    kr->fill(p->r, 1.0f, ones);
    kr->row_dots(n, p->r, -p->scale, g, p->r, ones, 0, 0.0f, sums);
    kr->scale_rows(n, p->d, sums, x, ldx, add, dx, lddx); /* reads x before the product may overwrite it */
    kr->gemm('N', 'N', n, p->d, p->m, sqrtf(p->scale), g, p->r, p->w, p->d, 1.0f, dx, lddx);
}

const fv_feature_map fv_map_favor_plus = {
    .name = "favor+",
    .exponential = true,
    .feature_count = feature_count,
    .prepare = prepare,
    .logits = logits,
    .backward = backward,
};
