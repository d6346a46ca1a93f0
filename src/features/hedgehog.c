/* hedgehog.c: a learned map that imitates the spikes of softmax.
 *
 *     y = W x,  z = [2y, -2y],  phi(x) = softmax(z) over its 2d entries,  x = sqrt(scale) times the head vector
 *
 * Zhang et al. 2024, arXiv 2402.04347, with the softmax of the public code fla. W [d][d] is learned, one a head, default the
 * identity. As an exponential map, ln phi_f = z_f - ln sum exp z, so that sharp rows do not underflow. Default scale 1.
 * Cost 2 n d^2 with W; nothing saved.
 */
#include "features/feature_map.h"
#include <math.h>

static int64_t count_2d(const fv_attention_options *o, int64_t m)
{
    (void)m;
    return 2 * o->dim;
}

static int64_t prepared_floats(const fv_map_params *p)
{
    return p->d * p->d;
}

/* W is a projection by another name. */
static fv_map_params with_weight(const fv_map_params *p)
{
    fv_map_params q = *p;
    q.m = p->d;
    q.w = p->input[FV_INPUT_MAP_WEIGHT];
    q.d_input[FV_INPUT_PROJECTION] = p->d_input[FV_INPUT_MAP_WEIGHT];
    return q;
}

static void prepare(const fv_map_params *p, float *prepared)
{
    fv_map_params q = with_weight(p);
    if (q.w != NULL)
        fv_map_prepare_scaled(&q, 2 * sqrt((double)p->scale) * FV_LOG2E, prepared);
}

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c;
    const fv_kernels *kr = p->kernels;
    const float factor = (float)(2 * sqrt((double)p->scale) * FV_LOG2E);
    fv_map_params q = with_weight(p);
    if (q.w != NULL)
        fv_map_project(&q, rows, u, p->r);
    for (int64_t i = 0; i < rows->n; i++) {
        float *row = u + i * p->r;
        if (q.w == NULL)
            kr->scale(p->d, factor, rows->x + i * rows->ldx, row);
        kr->scale(p->d, -1.0f, row, row + p->d);
    }
    kr->log2_sums(rows->n, p->r, u, p->r, bias);
    kr->scale(rows->n, -1.0f, bias, bias);
}

/* dz = g - phi sum(g),  dy = 2 (dz of the first half - dz of the second) */
static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    const fv_kernels *kr = p->kernels;
    int64_t n = rows->n, d = p->d, r = p->r;
    float *phi = tmp, *bias = phi + n * r, *zeros = bias + n, *sums = bias;
    const double root = sqrt((double)p->scale);
    fv_map_params q = with_weight(p);
    logits(p, rows, phi, gc, bias);
    kr->fill(r, 0.0f, zeros);
    (void)kr->exp2_rows(n, r, phi, r, bias, zeros);
    kr->fill(r, -1.0f, zeros);
    kr->row_dots(n, r, 1.0f, g, r, zeros, 0, 0.0f, sums);
    kr->scale_rows(n, r, sums, phi, r, 1, g, r);
    kr->scale(n * r, 2.0f, g, g);
    kr->fill(n, -1.0f, sums);
    kr->scale_rows(n, d, sums, g + d, r, 1, g, r);
    if (q.w != NULL) {
        fv_map_projection_gradient(&q, rows, root, g, r);
        fv_map_project_back(&q, n, root, g, r, add, dx, lddx);
        return;
    }
    kr->scale(n * r, (float)root, g, g);
    kr->scale_rows(n, d, NULL, g, r, add, dx, lddx);
}

const fv_feature_map fv_map_hedgehog = {
    .name = "hedgehog",
    .unit_scale = true,
    .unprojected = true,
    .exponential = true,
    .inputs = UINT32_C(1) << FV_INPUT_MAP_WEIGHT,
    .feature_count = count_2d,
    .prepared_floats = prepared_floats,
    .prepare = prepare,
    .logits = logits,
    .backward = backward,
};
