/* support/spec_base.c: exact, identity, favor+. */
#include "support/spec.h"
#include <math.h>

/* exact: the logarithm of the entry is scale q_i.k_j. */
static num exact_pair(const spec *s, int64_t h, int64_t i, int64_t j)
{
    int64_t d = s->options.dim, g = h * s->options.kv_heads / s->options.heads;
    return num_scaled(s->options.scale, num_dot(s->Q + (i * s->options.heads + h) * d,
                                                s->K + (j * s->options.kv_heads + g) * d, d));
}

/* identity: query i of a sequence sees its i-th key. */
static num identity_pair(const spec *s, int64_t h, int64_t i, int64_t j)
{
    (void)s, (void)h;
    return num_input(i == j, 0);
}

/* favor+: phi(x)_f = exp(w_f.x - |x|^2/2) / sqrt(m), x = sqrt(scale) q; logarithms without 1/sqrt(m). */
static void favor_plus(const spec *s, const spec_vector *v, num *logs)
{
    for (int64_t f = 0; f < s->r; f++) {
        num u = num_scaled(sqrt(s->options.scale), spec_projected(s, FV_INPUT_PROJECTION, v->head, f, v->x));
        logs[f] = num_sub(u, num_scaled(s->options.scale / 2, spec_squares(v->x, s->options.dim)));
    }
}

static double unit_m(const spec *s)
{
    return 1.0 / (double)s->m;
}

const spec_kind spec_base_kinds[] = {
    {.name = "exact", .exponential = true, .pair = exact_pair},
    {.name = "identity", .pair = identity_pair},
    {.name = "favor+", .exponential = true, .features = favor_plus, .unit = unit_m},
    {.name = NULL},
};
