/* domain.c: kernels that are power series: where they converge, how far a call reaches, and what a largest degree
 * leaves out (random Maclaurin features). */
#include "attention/mechanism.h"
#include "features/rmf.h"
#include <math.h>

double fv_attention_radius(const fv_attention *op)
{
    const fv_feature_map *map = op->mechanism->map;
    return map != NULL && map->series != NULL ? map->series->radius : HUGE_VAL;
}

/* The largest |x| over rows [begin, end) of one head; NaN is passed over. */
static double longest(const fv_attention *op, const float *x, int64_t stride, int64_t begin, int64_t end)
{
    double top = 0;
    for (int64_t t = begin; t < end; t++)
        top = fmax(top, op->ctx->kernels->sum_squares(op->options.dim, x + t * stride));
    return sqrt(top);
}

fv_status fv_attention_reach(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                             double *reach)
{
    const fv_attention_options *o = &op->options;
    const int64_t *keys = fv_layout_keys(layout);
    int64_t ldq = io->q_stride != 0 ? io->q_stride : o->heads * o->dim;
    int64_t ldk = io->k_stride != 0 ? io->k_stride : o->kv_heads * o->dim;
    *reach = o->ppsbn ? o->scale : 0; /* unit vectors */
    if (io->q == NULL || io->k == NULL)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: q or k is missing", o->kind);
    for (int64_t s = 0; s < layout->sequences && !o->ppsbn; s++)
        for (int64_t h = 0; h < o->heads; h++) {
            const float *q = io->q + h * o->dim, *k = io->k + h * o->kv_heads / o->heads * o->dim;
            double a = longest(op, q, ldq, layout->offsets_q[s], layout->offsets_q[s + 1]);
            double b = longest(op, k, ldk, keys[s], keys[s + 1]);
            *reach = fmax(*reach, o->scale * a * b);
        }
    return FV_OK;
}

double fv_attention_truncation(const fv_attention *op, double t)
{
    enum { TERMS = 1 << 20 };
    const fv_feature_map *map = op->mechanism->map;
    int64_t last = op->options.rmf_max_degree;
    if (map == NULL || map->series == NULL || last == 0 || t == 0)
        return 0;
    if (fabs(t) >= map->series->radius)
        return HUGE_VAL;
    double sum = 0, term = 1;
    for (int64_t n = last + 1; n < last + TERMS && term > 1e-18 * sum; n++) {
        term = exp(map->series->log_a(n) + (double)n * log(fabs(t)));
        sum += term;
    }
    return sum;
}
