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

/* ---- rmf: phi_f(x) = sqrt(a_n / p_n) prod_j (s_fj . x), in falling order of the degree n ----------------- */

static double a_exp(int n)
{
    return n == 0 ? 1 : a_exp(n - 1) / n;
}

static double a_inv(int n)
{
    return n >= 0;
}

static double a_logi(int n)
{
    return n == 0 ? 1 : 1.0 / n;
}

static double a_sqrt(int n)
{
    return n == 0 ? 1 : n == 1 ? 0.5 : a_sqrt(n - 1) * (2 * n - 3) / (2.0 * n);
}

/* The place of feature f in the falling order, and the first row of its signs. */
static int64_t place_of(const spec *s, int64_t h, int64_t f, int64_t *row)
{
    const double *degree = s->input[FV_INPUT_RMF_DEGREES] + h * s->m;
    int64_t place = 0;
    *row = 0;
    for (int64_t g = 0; g < s->m; g++) {
        place += degree[g] > degree[f] || (degree[g] == degree[f] && g < f);
        *row += g < f ? (int64_t)degree[g] : 0;
    }
    return place;
}

static void rmf(const spec *s, const spec_vector *v, double (*a)(int), num *phi)
{
    int64_t d = s->options.dim, row;
    double P = s->options.rmf_parameter;
    for (int64_t f = 0; f < s->m; f++) {
        int64_t place = place_of(s, v->head, f, &row);
        int degree = (int)s->input[FV_INPUT_RMF_DEGREES][v->head * s->m + f];
        num product = num_rounded(sqrt(a(degree) / ((P - 1) * pow(P, -(degree + 1)))));
        for (int j = 0; j < degree; j++) {
            num dot = num_input(0, 0);
            for (int64_t c = 0; c < d; c++) {
                int64_t at = (v->head * s->options.rmf_rows + row + j) * d + c;
                dot = num_add(dot, num_mul(spec_input(s, FV_INPUT_RMF_SIGNS, at), v->x[c]));
            }
            product = num_mul(product, num_scaled(sqrt(s->options.scale), dot));
        }
        phi[place] = product;
    }
}

static void rmf_exp(const spec *s, const spec_vector *v, num *phi)
{
    rmf(s, v, a_exp, phi);
}

static void rmf_inv(const spec *s, const spec_vector *v, num *phi)
{
    rmf(s, v, a_inv, phi);
}

static void rmf_logi(const spec *s, const spec_vector *v, num *phi)
{
    rmf(s, v, a_logi, phi);
}

static void rmf_sqrt(const spec *s, const spec_vector *v, num *phi)
{
    rmf(s, v, a_sqrt, phi);
}

const spec_kind spec_random_kinds[] = {
    {.name = "rmf-exp", .features = rmf_exp, .unit = unit_m},
    {.name = "rmf-inv", .features = rmf_inv, .unit = unit_m},
    {.name = "rmf-logi", .features = rmf_logi, .unit = unit_m},
    {.name = "rmf-trigh", .features = rmf_exp, .unit = unit_m},
    {.name = "rmf-sqrt", .features = rmf_sqrt, .unit = unit_m},

    {.name = "rfa", .features = rfa, .unit = unit_m},
    {.name = "rfa-arccos", .features = rfa_arccos, .unit = unit_m},
    {.name = NULL},
};
