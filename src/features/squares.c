/* squares.c: maps of the second order, whose kernel is a polynomial of q.k.
 *
 *     taylor   phi(x) = [1, x, x_i^2 / sqrt 2, x_i x_j (i < j)],  x = sqrt(scale) times the head vector:
 *              phi(x).phi(y) = 1 + t + t^2/2,  t = scale q.k,  r = 1 + d + d(d+1)/2
 *     rebased  u = gamma o LN(x) + beta,  phi(x) = [u_i^2, sqrt 2 u_i u_j (i < j)] / sqrt(d):
 *              phi(x).phi(y) = (u_q.u_k)^2 / d,  r = d(d+1)/2
 *
 * taylor is Based without its window (Arora et al. 2024, arXiv 2402.18668), default scale 1/sqrt(d); 1 + t + t^2/2 is at least
 * 1/2. rebased is Aksenov et al. 2024, arXiv 2402.10644, LN with epsilon 1e-5, gamma and beta [d] learned, one a head, default 1
 * and 0, default scale 1. Features have both signs, the kernels never are negative: no guard by default.
 *
 * Cost: n d^2 / 2 for the products; r grows like d^2 / 2, so the core costs d^2 dv a token. Nothing saved.
 */
#include "features/feature_map.h"
#include <float.h>
#include <math.h>

#define LN_EPSILON 1e-5
#define LN_ROOM    40.0f /* log2 of vectors that LN takes as they are */

/* Products x_i x_j, i <= j. */
static int64_t triangle(int64_t d)
{
    return d * (d + 1) / 2;
}

static fv_status check_width(const fv_feature_map *map, fv_context *ctx, fv_attention_options *o)
{
    (void)map;
    if (o->dim <= 1024)
        return FV_OK;
    return fv_fail(ctx, FV_ERR_USAGE,
                   "attention %s: head size %lld gives %lld features; expected at most 1024", o->kind,
                   (long long)o->dim, (long long)triangle(o->dim));
}

/* ---- taylor -------------------------------------------------------------------------------------------- */

static int64_t count_taylor(const fv_attention_options *o, int64_t m)
{
    (void)m;
    return 1 + o->dim + triangle(o->dim);
}

static void taylor_degrees(const fv_map_params *p, float *degree)
{
    p->kernels->fill(p->r, 2.0f, degree);
    p->kernels->fill(p->d, 1.0f, degree + 1);
    degree[0] = 0.0f;
}

static void taylor_logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c, (void)bias;
    const fv_kernels *kr = p->kernels;
    kr->copy_rows(rows->n, p->d, rows->x, rows->ldx, u + 1, p->r);
    for (int64_t i = 0; i < rows->n; i++) {
        float *row = u + i * p->r;
        row[0] = 1.0f;
        kr->scale(p->d, sqrtf(p->scale), row + 1, row + 1);
    }
    kr->square_rows(rows->n, p->d, sqrtf(0.5f), u + 1, p->r, u + 1 + p->d, p->r);
}

/* dx = sqrt(scale) (g of the linear part + the squares' part). */
static void taylor_backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add,
                            float *dx, int64_t lddx, float *tmp)
{
    (void)gc;
    const fv_kernels *kr = p->kernels;
    float root = sqrtf(p->scale), *x = tmp, *roots = tmp + rows->n * p->d;
    kr->fill(rows->n, root, roots);
    kr->scale_rows(rows->n, p->d, roots, rows->x, rows->ldx, 0, x, p->d);
    kr->square_rows_back(rows->n, p->d, sqrtf(0.5f), x, p->d, g + 1 + p->d, p->r, g + 1, p->r);
    kr->scale_rows(rows->n, p->d, roots, g + 1, p->r, add, dx, lddx);
}

/* ---- rebased ------------------------------------------------------------------------------------------- */

static int64_t count_rebased(const fv_attention_options *o, int64_t m)
{
    (void)m;
    return triangle(o->dim);
}

static int64_t rebased_prepared(const fv_map_params *p)
{
    return 2 * p->d;
}

/* gamma and beta, or their defaults. */
static void rebased_prepare(const fv_map_params *p, float *prepared)
{
    const float *gamma = p->input[FV_INPUT_REBASED_GAMMA], *beta = p->input[FV_INPUT_REBASED_BETA];
    p->kernels->fill(p->d, 1.0f, prepared);
    p->kernels->fill(p->d, 0.0f, prepared + p->d);
    if (gamma != NULL)
        p->kernels->copy_rows(1, p->d, gamma, p->d, prepared, p->d);
    if (beta != NULL)
        p->kernels->copy_rows(1, p->d, beta, p->d, prepared + p->d, p->d);
}

/* LN(sqrt(scale) x) with epsilon is LN(x) with epsilon / scale. */
static float ln_epsilon(const fv_map_params *p)
{
    return (float)(LN_EPSILON / (double)p->scale);
}

static float rebased_factor(const fv_map_params *p)
{
    return (float)(1 / sqrt((double)p->d));
}

/* The exponent of the largest of n floats, 0 if there is none that has one. */
static float exponent_of(const fv_kernels *kr, int64_t n, const float *x)
{
    float top = kr->max_abs(n, x);
    return top >= FLT_MIN && top <= FLT_MAX ? (float)ilogbf(top) : 0.0f;
}

/* What rows are scaled by: 2^-in before LN, so that the variance of long ones stays finite; wide rows 2^-out after it, so that
 * squares of small ones are not 0. */
typedef struct row_scale {
    float in, out;
} row_scale;

/* u = 2^-out (gamma o LN(x) + beta) of one row; x [d], which u may be, becomes 2^-in x: LN of that with epsilon 2^-2in is LN(x). */
static row_scale rebased_row(const fv_map_params *p, bool wide, float *x, float *u, float *stats)
{
    const fv_kernels *kr = p->kernels;
    row_scale s = {.in = FV_MAX(exponent_of(kr, p->d, x) - LN_ROOM, 0.0f)};
    kr->scale(p->d, exp2f(-s.in), x, x);
    kr->layernorm(1, p->d, ldexpf(ln_epsilon(p), (int)(-2 * s.in)), x, p->prepared, p->prepared + p->d, u,
                  stats);
    if (wide)
        s.out = exponent_of(kr, p->d, u);
    kr->scale(p->d, exp2f(-s.out), u, u);
    return s;
}

static void rebased_logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c;
    const fv_kernels *kr = p->kernels;
    bool wide = rows->exponent != NULL;
    float *last = u + p->r - p->d; /* square_rows may read its rows from there */
    kr->copy_rows(rows->n, p->d, rows->x, rows->ldx, last, p->r);
    for (int64_t i = 0; i < rows->n; i++) {
        row_scale s = rebased_row(p, wide, last + i * p->r, last + i * p->r, NULL);
        if (wide)
            bias[i] = 2 * s.out;
    }
    kr->square_rows(rows->n, p->d, rebased_factor(p), last, p->r, u, p->r);
}

static int64_t rebased_tmp(const fv_map_params *p, int64_t n)
{
    return 4 * n * p->d + 3 * n + 2 * p->d;
}

static void rebased_backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add,
                             float *dx, int64_t lddx, float *tmp)
{
    (void)gc;
    const fv_kernels *kr = p->kernels;
    int64_t n = rows->n, d = p->d;
    float *x = tmp, *u = x + n * d, *du = u + n * d, *back = du + n * d, *stats = back + n * d;
    float *dgamma = p->d_input[FV_INPUT_REBASED_GAMMA], *dbeta = p->d_input[FV_INPUT_REBASED_BETA];
    float *unwanted = stats + 2 * n, *inner = unwanted + 2 * d;
    kr->copy_rows(n, d, rows->x, rows->ldx, x, d);
    kr->fill(2 * n * d, 0.0f, du);
    kr->fill(2 * d, 0.0f, unwanted);
    for (int64_t i = 0; i < n; i++) {
        row_scale s = rebased_row(p, rows->exponent != NULL, x + i * d, u + i * d, stats + 2 * i);
        inner[i] = exp2f(-s.in);
        kr->square_rows_back(1, d, rebased_factor(p), u + i * d, d, g + i * p->r, p->r, du + i * d, d);
        kr->scale(d, exp2f(-s.out), du + i * d, du + i * d);
    }
    kr->layernorm_back(n, d, x, p->prepared, stats, du, back, dgamma != NULL ? dgamma : unwanted,
                       dbeta != NULL ? dbeta : unwanted + d);
    kr->scale_rows(n, d, inner, back, d, add, dx, lddx);
}

const fv_feature_map fv_map_taylor = {
    .name = "taylor",
    .unprojected = true,
    .mixed = true,
    .degrees = taylor_degrees,
    .check = check_width,
    .feature_count = count_taylor,
    .logits = taylor_logits,
    .backward = taylor_backward,
};

const fv_feature_map fv_map_rebased = {
    .name = "rebased",
    .unit_scale = true,
    .unprojected = true,
    .mixed = true,
    .row_exponents = true,
    .inputs = UINT32_C(1) << FV_INPUT_REBASED_GAMMA | UINT32_C(1) << FV_INPUT_REBASED_BETA,
    .check = check_width,
    .feature_count = count_rebased,
    .prepared_floats = rebased_prepared,
    .prepare = rebased_prepare,
    .logits = rebased_logits,
    .backward = rebased_backward,
    .tmp_floats = rebased_tmp,
};
