/* support/spec_random.c: random Fourier features (RFA) and random Maclaurin features. */
#include "support/spec.h"
#include <math.h>

static double unit_m(const spec *s)
{
    return 1.0 / (double)s->m;
}

/* ---- rfa: x^ = x / (|x| + 1e-3), u_f = (sigma o w_f / tau) . x^ ------------------------------------------ */

static num rfa_argument(const spec *s, const spec_vector *v, int64_t f)
{
    int64_t d = s->options.dim;
    num root = num_rounded(sqrt(s->options.scale)), sum = num_input(0, 0);
    num length = num_mul(root, num_sqrt(spec_squares(v->x, d)));
    num divisor = num_add(length, num_rounded(1e-3));
    for (int64_t c = 0; c < d; c++) {
        num w = spec_input(s, FV_INPUT_PROJECTION, (v->head * s->m + f) * d + c);
        if (s->input[FV_INPUT_BANDWIDTH] != NULL)
            w = num_mul(w, spec_input(s, FV_INPUT_BANDWIDTH, v->head * d + c));
        sum = num_add(sum, num_mul(num_scaled(1 / s->options.tau, w), num_mul(root, v->x[c])));
    }
    return num_div(sum, divisor);
}

static void rfa(const spec *s, const spec_vector *v, num *phi)
{
    for (int64_t f = 0; f < s->m; f++) {
        num u = rfa_argument(s, v, f);
        phi[f] = num_sin(u);
        phi[s->m + f] = num_cos(u);
    }
}

static void rfa_arccos(const spec *s, const spec_vector *v, num *phi)
{
    for (int64_t f = 0; f < s->m; f++) {
        phi[f] = rfa_argument(s, v, f);
        if (creal(phi[f].v) <= 0)
            phi[f].v = 0, phi[f].t = phi[f].mt = 0;
    }
}

const spec_kind spec_random_kinds[] = {
    {.name = "rfa", .features = rfa, .unit = unit_m},
    {.name = "rfa-arccos", .features = rfa_arccos, .unit = unit_m},
    {.name = NULL},
};
