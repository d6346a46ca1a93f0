/* favor_hybrid.c: hybrid features of the softmax kernel: positive and trigonometric ones weighed by the angle (HRF).
 *
 *     K^(x, y) = l^ K+(x, y) + (1 - l^) K^trig(x, y),   l^ = 1/2 - 1/(2n) sum_i s_i(x) s_i(y),   s_i(x) = sgn(tau_i . x)
 *
 * K+ = phi+(x).phi+(y) and K^trig as in favor_plus.c (m rows omega) and favor_trig.c (m2 rows, projection_trig);
 * tau_i ~ N(0, I_d), n rows; x = sqrt(scale) times the head vector; sgn(0) = 1. E[l^] = angle(x, y) / pi, so K^ is
 * unbiased for exp(x . y), with no error at x = y, where l^ = 0 and the trigonometric term is exact; towards x = -y the
 * positive term has the weight, which is exact there. Choromanski et al. 2022, arXiv 2110.04367, sections 2 and 3;
 * the published code has the weights the other way round.
 *
 * Linear in features of x and of y: blocks b = 0 .. n of [m positive | m2 sines | m2 cosines],
 *
 *     b = 0:  [phi+, phi^trig] / sqrt(2)
 *     b > 0:  s_b [-+ phi+, phi^trig] / sqrt(2n)     (minus on the query side)
 *
 * so r = (n + 1)(m + 2 m2). Signs, sines and constants are coefficients; exp(+-|x|^2/2) and exp(omega . x) are
 * log-magnitudes. The features are signed: default guard sign:1e-3.
 *
 * Cost: 2 n_tokens d (m + m2 + n) forward and O(r) a token to lay out the blocks; twice that backward; nothing
 * saved. No gradient passes the signs.
 */
#include "features/feature_map.h"
#include <math.h>

/* Sizes of one head. */
typedef struct sizes {
    int64_t m, m2, n, block;
} sizes;

static sizes sizes_of(const fv_map_params *p)
{
    const fv_attention_options *o = p->options;
    return (sizes){p->m, o->features_trig, o->angle_rows, p->m + 2 * o->features_trig};
}

static fv_status check(const fv_feature_map *map, fv_context *ctx, fv_attention_options *o)
{
    (void)map;
    if (o->features_trig == 0)
        o->features_trig = o->features;
    if (o->angle_rows == 0)
        o->angle_rows = 4;
    if (o->features_trig < 1 || o->angle_rows < 1 || o->features_trig > 1 << 20 || o->angle_rows > 1 << 10)
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "attention %s: %lld rows of the trigonometric projection and %lld angle rows; expected 1 to "
            "%d and 1 to %d",
            o->kind, (long long)o->features_trig, (long long)o->angle_rows, 1 << 20, 1 << 10);
    return FV_OK;
}

static int64_t feature_count(const fv_attention_options *o, int64_t m)
{
    return (o->angle_rows + 1) * (m + 2 * o->features_trig);
}

/* ---- prepared: the three projections ----------------------------------------------------------------- */

/* Where the second and the third begin. */
static int64_t trig_place(const fv_map_params *p)
{
    return fv_map_rows_floats(p, p->m);
}

static int64_t angles_place(const fv_map_params *p)
{
    return trig_place(p) + fv_map_rows_floats(p, p->options->features_trig);
}

static int64_t prepared_floats(const fv_map_params *p)
{
    return angles_place(p) + fv_map_rows_floats(p, p->options->angle_rows);
}

static void prepare(const fv_map_params *p, float *prepared)
{
    sizes z = sizes_of(p);
    double root = sqrt((double)p->scale);
    fv_map_prepare_scaled(p, root * FV_LOG2E, prepared);
    fv_map_prepare_rows(p, z.m2, p->input[FV_INPUT_PROJECTION_TRIG], root, NULL, prepared + trig_place(p));
    fv_map_prepare_rows(p, z.n, p->input[FV_INPUT_ANGLE_ROWS], 1, NULL, prepared + angles_place(p));
}

/* sin u, cos u of rows into c [n][.][2 m2] with row stride ldc. */
static void trigonometric(const fv_map_params *p, const fv_rows *rows, float *c, int64_t ldc)
{
    sizes z = sizes_of(p);
    fv_map_apply_rows(p, z.m2, p->prepared + trig_place(p), 1.0f, rows, c, ldc);
    p->kernels->sincos_rows(rows->n, z.m2, c, ldc, c, c + z.m2, ldc);
}

/* tau . x into the [n][z.n] columns at t, row stride ldt. */
static void angles(const fv_map_params *p, const fv_rows *rows, float *t, int64_t ldt)
{
    fv_map_apply_rows(p, p->options->angle_rows, p->prepared + angles_place(p), 1.0f, rows, t, ldt);
}

/* ---- features ----------------------------------------------------------------------------------------- */

/* Block 0: coefficients with their constants, log-magnitudes beside the row's -|x|^2/2. `bias` is free to use. */
static void first_block(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    const fv_kernels *kr = p->kernels;
    sizes z = sizes_of(p);
    int64_t n = rows->n, r = p->r;
    fv_map_project(p, rows, u, r);
    trigonometric(p, rows, c + z.m, r);
    kr->fill(n, (float)sqrt(0.5 / (double)z.m2), bias);
    kr->scale_rows(n, 2 * z.m2, bias, c + z.m, r, 0, c + z.m, r);
    fv_map_squares(p, rows, FV_LOG2E * (double)p->scale, bias);
    for (int64_t i = 0; i < n; i++) {
        kr->fill(z.m, (float)sqrt(0.5 / (double)z.m), c + i * r);
        kr->fill(2 * z.m2, bias[i], u + i * r + z.m);
    }
}

/* s_b / sqrt(n) of every row, from tau_b . x in the last columns of u. */
static void signs_of_block(const sizes *z, int64_t n, int64_t r, int64_t b, const float *u, float *signs)
{
    float size = (float)sqrt(1.0 / (double)z->n);
    for (int64_t i = 0; i < n; i++)
        signs[i] = u[i * r + r - z->n + b - 1] < 0 ? -size : size;
}

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    const fv_kernels *kr = p->kernels;
    sizes z = sizes_of(p);
    int64_t n = rows->n, r = p->r;
    first_block(p, rows, u, c, bias);
    /* The n products with tau wait in the last columns of u; block b ends before those of later blocks begin. */
    angles(p, rows, u + r - z.n, r);
    for (int64_t b = 1; b <= z.n; b++) {
        float *to = c + b * z.block;
        signs_of_block(&z, n, r, b, u, bias);
        kr->copy_rows(n, z.block, u, r, u + b * z.block, r);
        kr->scale_rows(n, 2 * z.m2, bias, c + z.m, r, 0, to + z.m, r);
        if (!rows->key)
            kr->scale(n, -1.0f, bias, bias);
        kr->scale_rows(n, z.m, bias, c, r, 0, to, r);
    }
    fv_map_squares(p, rows, -0.5 * FV_LOG2E * (double)p->scale, bias);
}

/* ---- backward ----------------------------------------------------------------------------------------- */

/* dL/dlog phi+ of all blocks into the first m columns of g; sums[i] = scale (sum over the trigonometric features -
 * sum over the positive ones), the factor of x in dx. */
static void collect_positive(const fv_map_params *p, int64_t n, float *g, const float *ones, float *sums)
{
    const fv_kernels *kr = p->kernels;
    sizes z = sizes_of(p);
    kr->fill(n, 0.0f, sums);
    for (int64_t b = 0; b <= z.n; b++) {
        float *block = g + b * z.block;
        kr->row_dots(n, z.m, -p->scale, block, p->r, ones, 0, 1.0f, sums);
        kr->row_dots(n, 2 * z.m2, p->scale, block + z.m, p->r, ones, 0, 1.0f, sums);
        if (b > 0)
            kr->scale_rows(n, z.m, NULL, block, p->r, 1, g, p->r);
    }
}

/* dL/dsin and dL/dcos of all blocks, without the constant 1/sqrt(2 m2), into those of block 0; signs [n] is free to
 * use. */
static void collect_trigonometric(const fv_map_params *p, int64_t n, const float *tau_x, float *gc,
                                  float *signs)
{
    const fv_kernels *kr = p->kernels;
    sizes z = sizes_of(p);
    float size = (float)sqrt(1.0 / (double)z.n);
    for (int64_t b = 1; b <= z.n; b++) {
        for (int64_t i = 0; i < n; i++)
            signs[i] = tau_x[i * z.n + b - 1] < 0 ? -size : size;
        kr->scale_rows(n, 2 * z.m2, signs, gc + b * z.block + z.m, p->r, 1, gc + z.m, p->r);
    }
}

/* dq = sqrt(scale) (g+ omega + du omega_trig) + sums q. */
static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    const fv_kernels *kr = p->kernels;
    sizes z = sizes_of(p);
    int64_t n = rows->n, wide = FV_MAX(z.m, 2 * z.m2);
    float *ones = tmp, *sums = ones + wide, *signs = sums + n, *tau_x = signs + n, *c = tau_x + n * z.n;
    float factor = sqrtf(p->scale) * (float)sqrt(0.5 / (double)z.m2);
    kr->fill(wide, 1.0f, ones);
    collect_positive(p, n, g, ones, sums);
    angles(p, rows, tau_x, z.n);
    collect_trigonometric(p, n, tau_x, gc, signs);
    trigonometric(p, rows, c, 2 * z.m2);
    fv_map_sincos_back(kr, n, z.m2, c, 2 * z.m2, gc + z.m, p->r);
    fv_map_projection_gradient(p, rows, sqrt((double)p->scale), g, p->r);
    kr->scale_rows(n, p->d, sums, rows->x, rows->ldx, add, dx, lddx); /* last use of x */
    fv_map_project_back(p, n, sqrt((double)p->scale), g, p->r, true, dx, lddx);
    fv_map_apply_rows_back(p, z.m2, p->prepared + trig_place(p), p->input[FV_INPUT_PROJECTION_TRIG], n,
                           factor, gc + z.m, p->r, true, dx, lddx);
}

static int64_t tmp_floats(const fv_map_params *p, int64_t n)
{
    sizes z = sizes_of(p);
    return FV_MAX(z.m, 2 * z.m2) + n * (2 + z.n + 2 * z.m2);
}

const fv_feature_map fv_map_favor_hybrid = {
    .name = "favor-hybrid",
    .exponential = true,
    .coefficients = true,
    .can_be_negative = true,
    .mixed = true,
    .inputs = UINT32_C(1) << FV_INPUT_PROJECTION_TRIG | UINT32_C(1) << FV_INPUT_ANGLE_ROWS,
    .check = check,
    .feature_count = feature_count,
    .prepared_floats = prepared_floats,
    .prepare = prepare,
    .logits = logits,
    .backward = backward,
    .tmp_floats = tmp_floats,
};
