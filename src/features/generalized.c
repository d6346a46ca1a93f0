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

static void prepare(const fv_map_params *p, float *prepared)
{
    if (p->projected)
        fv_map_prepare_scaled(p, sqrt((double)p->scale), prepared);
}

/* u = W x, or x itself. */
static void pre_activation(const fv_map_params *p, const fv_rows *rows, float *u)
{
    const fv_kernels *kr = p->kernels;
    if (p->projected) {
        fv_map_project(p, rows, u, p->m);
        return;
    }
    kr->copy_rows(rows->n, p->d, rows->x, rows->ldx, u, p->d);
    if (p->scale != 1.0f)
        kr->scale(rows->n * p->d, sqrtf(p->scale), u, u);
}

/* dx from g = dL/du. */
static void pre_activation_back(const fv_map_params *p, const fv_rows *rows, float *g, bool add, float *dx,
                                int64_t lddx)
{
    const fv_kernels *kr = p->kernels;
    if (p->projected) {
        fv_map_projection_gradient(p, rows, sqrt((double)p->scale), g, p->r);
        fv_map_project_back(p, rows->n, sqrt((double)p->scale), g, p->r, add ? 1.0f : 0.0f, dx, lddx);
        return;
    }
    if (p->scale != 1.0f)
        kr->scale(rows->n * p->r, sqrtf(p->scale), g, g);
    kr->scale_rows(rows->n, p->d, NULL, g, p->r, add, dx, lddx);
}

static void relu_logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c, (void)bias;
    pre_activation(p, rows, u);
    p->kernels->relu_rows(rows->n, p->r, u, p->r, p->epsilon, u, p->r);
}

static void relu_backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add,
                          float *dx, int64_t lddx, float *tmp)
{
    (void)gc;
    pre_activation(p, rows, tmp);
    p->kernels->relu_rows_back(rows->n, p->r, tmp, p->r, g, p->r, g, p->r);
    pre_activation_back(p, rows, g, add, dx, lddx);
}

const fv_feature_map fv_map_relu = {
    .name = "relu",
    .generalized = true,
    .unit_scale = true,
    .feature_count = fv_map_count_m,
    .prepare = prepare,
    .logits = relu_logits,
    .backward = relu_backward,
};
