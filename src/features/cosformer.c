/* cosformer.c: ReLU features weighed by the distance of tokens.
 *
 *     phi(x_i) = [f sin(theta_i), f cos(theta_i)],  f = max(x_i, 0),  theta_i = pi i / 2M,  r = 2d
 *     phi(x_i).phi(y_j) = (f(x_i).f(y_j)) cos(pi (i - j) / 2M)
 *
 * Qin et al. 2022, arXiv 2202.08791. i counts from the start of the sequence, M is the longer of its two lengths, or
 * max_tokens where that is given: a stream needs it, since it does not know how long it will get. Positions below M keep every
 * feature and every weight from being negative; the operator refuses longer sequences and streams (attention/places.c). Default scale 1. Cost 2 n d; nothing saved.
 */
#include "features/feature_map.h"
#include <math.h>

#define HALF_PI 1.5707963267948966

static int64_t count_2d(const fv_attention_options *o, int64_t m)
{
    (void)m;
    return 2 * o->dim;
}

/* sqrt(scale) times sine and cosine of row i. */
static void weights(const fv_map_params *p, const fv_rows *rows, int64_t i, float *sine, float *cosine)
{
    double angle = HALF_PI * (double)(rows->first + i) / (double)FV_MAX(rows->longest, 1);
    *sine = (float)(sqrt((double)p->scale) * sin(angle));
    *cosine = (float)(sqrt((double)p->scale) * cos(angle));
}

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c, (void)bias;
    const fv_kernels *kr = p->kernels;
    kr->function_rows(FV_FUNCTION_RELU, rows->n, p->d, 0.0f, rows->x, rows->ldx, u, p->r);
    for (int64_t i = 0; i < rows->n; i++) {
        float sine, cosine, *row = u + i * p->r;
        weights(p, rows, i, &sine, &cosine);
        kr->scale(p->d, cosine, row, row + p->d);
        kr->scale(p->d, sine, row, row);
    }
}

static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    (void)gc, (void)tmp;
    const fv_kernels *kr = p->kernels;
    for (int64_t i = 0; i < rows->n; i++) {
        float sine, cosine, *row = g + i * p->r;
        weights(p, rows, i, &sine, &cosine);
        kr->scale(p->d, sine, row, row);
        kr->axpy(p->d, cosine, row + p->d, row);
    }
    kr->function_rows_back(FV_FUNCTION_RELU, rows->n, p->d, 0.0f, rows->x, rows->ldx, g, p->r, g, p->r);
    kr->scale_rows(rows->n, p->d, NULL, g, p->r, add, dx, lddx);
}

const fv_feature_map fv_map_cosformer = {
    .name = "cosformer",
    .unit_scale = true,
    .unprojected = true,
    .positions = true,
    .feature_count = count_2d,
    .logits = logits,
    .backward = backward,
};
