/* support/spec_softmax.c: the other maps of the softmax kernel. x is sqrt(scale) times the vector throughout. */
#include "support/spec.h"
#include <math.h>
#include <stdlib.h>

static double unit_m(const spec *s)
{
    return 1.0 / (double)s->m;
}

static double unit_2m(const spec *s)
{
    return 0.5 / (double)s->m;
}

/* omega_f . x */
static num along(const spec *s, fv_input which, const spec_vector *v, int64_t f)
{
    return num_scaled(sqrt(s->options.scale), spec_projected(s, which, v->head, f, v->x));
}

/* |x|^2 / 2 */
static num half_square(const spec *s, const spec_vector *v)
{
    return num_scaled(s->options.scale / 2, spec_squares(v->x, s->options.dim));
}

/* ---- favor+hyp: exp(-|x|^2/2) [exp(u), exp(-u)] / sqrt(2m); logarithms -------------------------------- */

static void hyperbolic(const spec *s, const spec_vector *v, num *logs)
{
    for (int64_t f = 0; f < s->m; f++) {
        num u = along(s, FV_INPUT_PROJECTION, v, f), h = half_square(s, v);
        logs[f] = num_sub(u, h);
        logs[s->m + f] = num_sub(num_sub(num_input(0, 0), u), h);
    }
}

/* ---- favor+reg, favor+reghyp: the same with rows of norm sqrt(d) ---------------------------------------- */

static num along_sphere(const spec *s, const spec_vector *v, int64_t f)
{
    int64_t d = s->options.dim;
    num squares = num_input(0, 0);
    for (int64_t c = 0; c < d; c++) {
        num w = spec_input(s, FV_INPUT_PROJECTION, (v->head * s->m + f) * d + c);
        squares = num_add(squares, num_mul(w, w));
    }
    return num_scaled(sqrt((double)d), num_div(along(s, FV_INPUT_PROJECTION, v, f), num_sqrt(squares)));
}

static void regularized(const spec *s, const spec_vector *v, num *logs)
{
    for (int64_t f = 0; f < s->m; f++) {
        num u = along_sphere(s, v, f), h = half_square(s, v);
        logs[f] = num_sub(u, h);
        if (s->r > s->m)
            logs[s->m + f] = num_sub(num_sub(num_input(0, 0), u), h);
    }
}

/* ---- favor-trig: exp(+|x|^2/2) [sin u, cos u] / sqrt(m) -------------------------------------------------- */

static void trigonometric(const spec *s, const spec_vector *v, num *logs)
{
    for (int64_t f = 0; f < s->m; f++) {
        num u = along(s, FV_INPUT_PROJECTION, v, f);
        logs[f] = logs[s->m + f] = half_square(s, v);
        logs[s->r + f] = num_sin(u);
        logs[s->r + s->m + f] = num_cos(u);
    }
}

/* ---- favor++, favor#: A and Psi from a sequence, constants for derivatives ------------------------------ */

/* Means over a sequence's queries or keys, as a head sees them, by channel, and how well float32 code knows them. */
typedef struct side_means {
    num *mean, *square; /* [d] */
} side_means;

static side_means means_of(const spec *s, const spec_vector *v, bool key)
{
    int64_t heads = key ? s->options.kv_heads : s->options.heads, d = s->options.dim;
    int64_t h = key ? v->head * s->options.kv_heads / s->options.heads : v->head;
    int64_t n = key ? v->keys : v->queries;
    int64_t first = (key ? spec_key_offsets(s) : s->layout.offsets_q)[v->sequence];
    const num *x = (key ? s->K : s->Q) + (first * heads + h) * d;
    side_means means = {calloc((size_t)d, sizeof(num)), calloc((size_t)d, sizeof(num))};
    for (int64_t c = 0; c < d; c++) {
        double sum = 0, size = 0, square = 0;
        for (int64_t i = 0; i < n; i++) {
            double a = creal(x[i * heads * d + c].v);
            sum += a, size += fabs(a), square += a * a;
        }
        double scale = s->options.scale, root = sqrt(scale), count = n > 0 ? (double)n : 1;
        /* Roundings: of a term, of the scale, of the sum's weight. */
        means.mean[c] = (num){root * sum / count, 2 * root * size / count, 0, 0};
        means.square[c] = (num){scale * square / count, 4 * scale * square / count, 0, 0};
    }
    return means;
}

static void free_means(side_means means)
{
    free(means.mean);
    free(means.square);
}

/* Psi of channel c; 1 for favor++. */
static num channel_scale(const spec *s, const spec_vector *v, bool sharp, int64_t c, num x2, num y2)
{
    if (!sharp)
        return num_input(1, 0);
    if (s->input[FV_INPUT_PSI_DIAGONAL] != NULL)
        return spec_input(s, FV_INPUT_PSI_DIAGONAL, v->head * s->options.dim + c);
    if (creal(x2.v) == 0 || creal(y2.v) == 0)
        return num_input(1, 0);
    return num_sqrt(num_sqrt(num_div(y2, x2)));
}

/* Psi [d], and the mean of |x + y|^2 over all pairs, given or of the sequence. */
static num statistics(const spec *s, const spec_vector *v, bool sharp, num *scale)
{
    side_means x = means_of(s, v, false), y = means_of(s, v, true);
    num psi = num_input(0, 0);
    for (int64_t c = 0; c < s->options.dim; c++) {
        scale[c] = channel_scale(s, v, sharp, c, x.square[c], y.square[c]);
        num square = num_mul(scale[c], scale[c]);
        psi = num_add(psi, num_add(num_mul(square, x.square[c]), num_div(y.square[c], square)));
        psi = num_add(psi, num_scaled(2, num_mul(x.mean[c], y.mean[c])));
    }
    free_means(x);
    free_means(y);
    return s->options.psi >= 0 ? num_input(s->options.psi, 0) : psi;
}

/* A = (1 - 1/rho)/8, rho = (sqrt((2 psi + d)^2 + 8 d psi) - 2 psi - d) / (4 psi). */
static num optimal_a(const spec *s, num psi)
{
    double d = (double)s->options.dim;
    if (creal(psi.v) == 0)
        return num_input(0, 0);
    num twice = num_add(num_scaled(2, psi), num_input(d, 0));
    num root = num_sqrt(num_add(num_mul(twice, twice), num_scaled(8 * d, psi)));
    num rho = num_div(num_sub(root, twice), num_scaled(4, psi));
    return num_scaled(0.125, num_sub(num_input(1, 0), num_div(num_input(1, 0), rho)));
}

/* (1 - 4A)^(d/4) exp(A |omega|^2 + sqrt(1 - 4A) omega.x' - |x'|^2/2), x' = x Psi for queries, x / Psi for keys. */
static void optimal_features(const spec *s, const spec_vector *v, bool sharp, num *logs)
{
    int64_t d = s->options.dim;
    num *x = malloc((size_t)d * sizeof *x);
    num A = optimal_a(s, statistics(s, v, sharp, x)), B2 = num_sub(num_input(1, 0), num_scaled(4, A));
    for (int64_t c = 0; c < d; c++)
        x[c] = v->key ? num_div(v->x[c], x[c]) : num_mul(v->x[c], x[c]);
    spec_vector seen = *v;
    seen.x = x;
    for (int64_t f = 0; f < s->m; f++) {
        num squares = num_input(0, 0);
        for (int64_t c = 0; c < d; c++) {
            num w = spec_input(s, FV_INPUT_PROJECTION, (v->head * s->m + f) * d + c);
            squares = num_add(squares, num_mul(w, w));
        }
        num u = num_mul(num_sqrt(B2), along(s, FV_INPUT_PROJECTION, &seen, f));
        logs[f] = num_add(num_sub(u, half_square(s, &seen)), num_mul(A, squares));
        logs[f] = num_add(logs[f], num_scaled((double)d / 4, num_log(B2)));
    }
    free(x);
}

static void optimal(const spec *s, const spec_vector *v, num *logs)
{
    optimal_features(s, v, false, logs);
}

static void sharp(const spec *s, const spec_vector *v, num *logs)
{
    optimal_features(s, v, true, logs);
}

/* ---- favor-hybrid: l K+ + (1 - l) K^trig, l = 1/2 - sum_i s_i(x) s_i(y) / 2n ------------------------------ */

static void hybrid(const spec *s, const spec_vector *v, num *logs)
{
    int64_t m = s->m, m2 = s->options.features_trig, n = s->options.angle_rows;
    num half = half_square(s, v);
    for (int64_t b = 0; b <= n; b++) {
        num *block = logs + b * (m + 2 * m2), *factor = block + s->r;
        double sign = b == 0 || creal(along(s, FV_INPUT_ANGLE_ROWS, v, b - 1).v) >= 0 ? 1 : -1;
        double size = sign * sqrt(0.5 / (double)(b == 0 ? 1 : n)), side = b > 0 && !v->key ? -1 : 1;
        for (int64_t f = 0; f < m; f++) {
            block[f] = num_sub(along(s, FV_INPUT_PROJECTION, v, f), half);
            factor[f] = num_rounded(side * size / sqrt((double)m));
        }
        for (int64_t f = 0; f < m2; f++) {
            num u = along(s, FV_INPUT_PROJECTION_TRIG, v, f);
            block[m + f] = block[m + m2 + f] = half;
            factor[m + f] = num_scaled(size / sqrt((double)m2), num_sin(u));
            factor[m + m2 + f] = num_scaled(size / sqrt((double)m2), num_cos(u));
        }
    }
}

const spec_kind spec_softmax_kinds[] = {
    {.name = "favor+hyp", .exponential = true, .features = hyperbolic, .unit = unit_2m},
    {.name = "favor-trig", .exponential = true, .signs = true, .features = trigonometric, .unit = unit_m},
    {.name = "favor+reg", .exponential = true, .features = regularized, .unit = unit_m},
    {.name = "favor+reghyp", .exponential = true, .features = regularized, .unit = unit_2m},
    {.name = "favor++", .exponential = true, .features = optimal, .unit = unit_m},
    {.name = "favor#", .exponential = true, .features = sharp, .unit = unit_m},
    {.name = "favor-hybrid", .exponential = true, .signs = true, .features = hybrid},
    {.name = NULL},
};
