/* sikf.c: the shift-invariant exponential map.
 *
 *     phi(x) = exp(x) element by element,  x = sqrt(scale) times the head vector,  r = d
 *     phi(x).phi(y) = sum_c exp(x_c + y_c)
 *
 * Zubkov and Gavrilov 2022, arXiv 2202.11364. A constant added to all channels of a query, or to all channels of every key,
 * cancels in the ratio. As an exponential map it is right at every norm; the paper's code subtracts a mean over the
 * whole sequence instead, which sees later tokens. Default scale 1. Cost n d; nothing saved.
 */
#include "features/feature_map.h"
#include <math.h>

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c;
    const float factor = (float)(sqrt((double)p->scale) * FV_LOG2E);
    for (int64_t i = 0; i < rows->n; i++)
        p->kernels->scale(p->d, factor, rows->x + i * rows->ldx, u + i * p->r);
    p->kernels->fill(rows->n, 0.0f, bias);
}

static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    (void)gc, (void)tmp;
    p->kernels->scale(rows->n * p->r, sqrtf(p->scale), g, g);
    p->kernels->scale_rows(rows->n, p->d, NULL, g, p->r, add, dx, lddx);
}

const fv_feature_map fv_map_sikf = {
    .name = "sikf",
    .unit_scale = true,
    .unprojected = true,
    .exponential = true,
    .feature_count = fv_map_count_m,
    .logits = logits,
    .backward = backward,
};
