/* generalized.c: the generalized maps f(u) + epsilon of the paper's section 2.3.
 *
 *     phi(x) = f(W x) + epsilon  with a projection W [m][d],   phi(x) = f(x) + epsilon  without (r = d),
 *     x = sqrt(scale) times the head vector, scale 1 by default.
 *
 * No target kernel, no factor 1/sqrt(m), features at their true scale. "Performer" without a suffix in the
 * paper is f = ReLU, epsilon = 1e-3, no projection. Choromanski et al. 2021, eq. 5 and section 4.
 *
 * Cost: 2 n d m with a projection, else n d; nothing saved: the backward computes u again.
 */
#include "features/feature_map.h"
#include <math.h>

static int64_t feature_count(int64_t m)
{
    return m;
}

static void prepare(const fv_map_params *p, const float *w, float *wt)
{
    float factor = sqrtf(p->scale);
    for (int64_t f = 0; f < p->m; f++)
        for (int64_t c = 0; c < p->d; c++)
            wt[c * p->m + f] = factor * w[f * p->d + c];
}

/* u = W x, or x itself. */
static void pre_activation(const fv_map_params *p, int64_t n, const float *x, int64_t ldx, float *u)
{
    const fv_kernels *kr = p->kernels;
    if (p->projected) {
        kr->gemm('N', 'N', n, p->m, p->d, 1.0f, x, ldx, p->wt, p->m, 0.0f, u, p->m);
        return;
    }
    kr->copy_rows(n, p->d, x, ldx, u, p->d);
    if (p->scale != 1.0f)
        kr->scale(n * p->d, sqrtf(p->scale), u, u);
}

static void relu_logits(const fv_map_params *p, int64_t n, const float *x, int64_t ldx, float *u, float *bias)
{
    (void)bias;
    pre_activation(p, n, x, ldx, u);
    p->kernels->relu_rows(n, p->r, u, p->r, p->epsilon, u, p->r);
}

static void relu_backward(const fv_map_params *p, int64_t n, const float *x, int64_t ldx, float *g, bool add,
                          float *dx, int64_t lddx, float *tmp)
{
    const fv_kernels *kr = p->kernels;
    pre_activation(p, n, x, ldx, tmp);
    kr->relu_rows_back(n, p->r, tmp, p->r, g, p->r, g, p->r);
    if (p->projected) {
        kr->gemm('N', 'N', n, p->d, p->m, sqrtf(p->scale), g, p->r, p->w, p->d, add ? 1.0f : 0.0f, dx, lddx);
        return;
    }
    if (p->scale != 1.0f)
        kr->scale(n * p->r, sqrtf(p->scale), g, g);
    kr->scale_rows(n, p->d, NULL, g, p->r, add, dx, lddx);
}

const fv_feature_map fv_map_relu = {
    .name = "relu",
    .generalized = true,
    .feature_count = feature_count,
    .prepare = prepare,
    .logits = relu_logits,
    .backward = relu_backward,
};
