/* rmf.c: random Maclaurin features of dot-product kernels, as Macformer uses them.
 *
 *     f(t) = sum_n a_n t^n,  a_n >= 0;   x = sqrt(scale) times the head vector
 *     phi_f(x) = sqrt(a_n / p_n) prod_{j <= n} (s_fj . x),   n ~ p the degree of feature f, s_fj in {-1, 1}^d
 *     E[phi(x) . phi(y)] = f(x . y) for the D features together, with the factor 1/sqrt(D) that stays outside
 *
 * Kar and Karnick 2012, arXiv 1201.6530; Guo et al. 2024, arXiv 2408.11656. One random map serves queries and
 * keys. Second moment of a feature: sum_n (a_n^2 / p_n) mu^n, mu = |x|^2 |y|^2 + 2 (x.y)^2 - 2 sum x_i^2 y_i^2; it is finite
 * only where mu stays below 1 / (lim a_{n+1}^2 p_n / a_n^2 p_{n+1}), so small vectors (the scale 1/sqrt(d), ppSBN) are
 * part of the method. inv, logi and sqrt are power series of radius 1: beyond |t| = 1 there is no kernel to
 * approximate, the features stay finite all the same (fv_attention_domain tells).
 *
 * Features stand in falling order of their degree, so that level j of all products is one matrix product over a
 * prefix of them: cost 2 n d sum of degrees. Nothing is saved; the backward computes the factors again.
 */
#include "features/rmf.h"
#include <math.h>

/* ---- the prepared form ----------------------------------------------------------------------------- */

/* Views of `prepared`. Numbers are kept as floats: all are below 2^24. */
typedef struct prepared_view {
    float *levels;      /* [1] largest degree */
    float *counts;      /* [rows + 2]: features of degree >= j */
    float *starts;      /* [rows + 2]: while sorting */
    float *coefficient; /* [D] sqrt(a_n / p_n) */
    float *signs;       /* level by level [d][counts[j]], times sqrt(scale) */
} prepared_view;

static int64_t prepared_floats(const fv_map_params *p)
{
    int64_t rows = p->options->rmf_rows;
    return 1 + 2 * (rows + 2) + p->m + rows * p->d;
}

static prepared_view view_of(const fv_map_params *p, const float *prepared)
{
    int64_t rows = p->options->rmf_rows;
    prepared_view v = {.levels = (float *)(uintptr_t)prepared};
    v.counts = v.levels + 1;
    v.starts = v.counts + rows + 2;
    v.coefficient = v.starts + rows + 2;
    v.signs = v.coefficient + p->m;
    return v;
}

/* Counts, and where each degree begins in the falling order. */
static void sort_degrees(const fv_map_params *p, prepared_view *v)
{
    const float *degrees = p->input[FV_INPUT_RMF_DEGREES];
    int64_t rows = p->options->rmf_rows, levels = 0;
    p->kernels->fill(rows + 2, 0.0f, v->counts);
    for (int64_t f = 0; f < p->m; f++) {
        v->counts[(int64_t)degrees[f]] += 1.0f;
        levels = FV_MAX(levels, (int64_t)degrees[f]);
    }
    for (int64_t n = levels; n >= 0; n--) {
        v->starts[n] = v->counts[n + 1]; /* features of a larger degree come before */
        v->counts[n] += v->counts[n + 1];
    }
    *v->levels = (float)levels;
}

static void prepare(const fv_map_params *p, float *prepared)
{
    const fv_rmf_series *series = p->map->series;
    prepared_view v = view_of(p, prepared);
    const float *degrees = p->input[FV_INPUT_RMF_DEGREES], *sign = p->input[FV_INPUT_RMF_SIGNS];
    fv_rmf_law_table law = fv_rmf_law_of(p->options, series);
    double root = sqrt((double)p->scale);
    sort_degrees(p, &v);
    for (int64_t f = 0; f < p->m; f++) {
        int64_t degree = (int64_t)degrees[f], place = (int64_t)v.starts[degree];
        float *level = v.signs;
        v.starts[degree] += 1.0f;
        v.coefficient[place] = (float)exp(0.5 * (series->log_a(degree) - fv_rmf_log_p(&law, degree)));
        for (int64_t j = 1; j <= degree; j++, sign += p->d) {
            int64_t count = (int64_t)v.counts[j];
            for (int64_t c = 0; c < p->d; c++)
                level[c * count + place] = (float)(root * (double)sign[c]);
            level += p->d * count;
        }
    }
}

/* The degree of each feature: how many levels reach it. */
static void degrees(const fv_map_params *p, float *degree)
{
    prepared_view v = view_of(p, p->prepared);
    p->kernels->fill(p->m, 0.0f, degree);
    for (int64_t j = 1; j <= (int64_t)*v.levels; j++)
        p->kernels->fill((int64_t)v.counts[j], (float)j, degree);
}

/* ---- forward ---------------------------------------------------------------------------------------- */

/* Tiles of factors on the stack. */
enum { ROWS = 16, COLUMNS = 128 };

/* u[:, first columns] *= x W for one level's matrix [d][count]. */
static void multiply_level(const fv_map_params *p, const fv_rows *rows, const float *level, int64_t count,
                           float *u)
{
    const fv_kernels *kr = p->kernels;
    float factor[ROWS * COLUMNS];
    for (int64_t i = 0; i < rows->n; i += ROWS) {
        int64_t n = FV_MIN(ROWS, rows->n - i);
        for (int64_t f = 0; f < count; f += COLUMNS) {
            int64_t columns = FV_MIN(COLUMNS, count - f);
            kr->gemm('N', 'N', n, columns, p->d, 1.0f, rows->x + i * rows->ldx, rows->ldx, level + f, count,
                     0.0f, factor, COLUMNS);
            for (int64_t r = 0; r < n; r++) {
                float *row = u + (i + r) * p->r + f;
                kr->mul(columns, row, factor + r * COLUMNS, row);
            }
        }
    }
}

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    prepared_view v = view_of(p, p->prepared);
    const float *level = v.signs;
    (void)c, (void)bias;
    for (int64_t i = 0; i < rows->n; i++)
        p->kernels->copy_rows(1, p->r, v.coefficient, p->r, u + i * p->r, p->r);
    for (int64_t j = 1; j <= (int64_t)*v.levels; j++) {
        int64_t count = (int64_t)v.counts[j];
        multiply_level(p, rows, level, count, u);
        level += p->d * count;
    }
}

/* ---- backward --------------------------------------------------------------------------------------- */

/* All factors, and their gradients, level by level [n][counts[j]]; then [n][D] of products. */
static int64_t tmp_floats(const fv_map_params *p, int64_t n)
{
    return n * (2 * p->options->rmf_rows + p->m);
}

/* factor = x W, level by level. */
static void all_factors(const fv_map_params *p, const fv_rows *rows, const prepared_view *v, float *factor)
{
    const float *level = v->signs;
    for (int64_t j = 1; j <= (int64_t)*v->levels; j++) {
        int64_t count = (int64_t)v->counts[j];
        p->kernels->gemm('N', 'N', rows->n, count, p->d, 1.0f, rows->x, rows->ldx, level, count, 0.0f, factor,
                         count);
        factor += rows->n * count;
        level += p->d * count;
    }
}

/* d factor_j = g coefficient prod of the factors above j, taken from the last level down; g is used up. */
static void from_above(const fv_map_params *p, int64_t n, const prepared_view *v, float *g,
                       const float *factor, float *d_factor)
{
    const fv_kernels *kr = p->kernels;
    int64_t at = 0;
    for (int64_t j = 1; j <= (int64_t)*v->levels; j++)
        at += n * (int64_t)v->counts[j];
    for (int64_t i = 0; i < n; i++)
        kr->mul(p->r, g + i * p->r, v->coefficient, g + i * p->r);
    for (int64_t j = (int64_t)*v->levels; j >= 1; j--) {
        int64_t count = (int64_t)v->counts[j];
        at -= n * count;
        kr->copy_rows(n, count, g, p->r, d_factor + at, count);
        for (int64_t i = 0; i < n; i++)
            kr->mul(count, g + i * p->r, factor + at + i * count, g + i * p->r);
    }
}

/* Times the product of the factors below, from the first level up; `below` [n][D] is room. Products without one
 * factor are built from both sides: dividing it out would fail where it is 0. */
static void from_below(const fv_map_params *p, int64_t n, const prepared_view *v, const float *factor,
                       float *d_factor, float *below)
{
    const fv_kernels *kr = p->kernels;
    kr->fill(n * p->r, 1.0f, below);
    for (int64_t j = 1; j <= (int64_t)*v->levels; j++) {
        int64_t count = (int64_t)v->counts[j];
        for (int64_t i = 0; i < n; i++) {
            kr->mul(count, d_factor + i * count, below + i * p->r, d_factor + i * count);
            kr->mul(count, below + i * p->r, factor + i * count, below + i * p->r);
        }
        factor += n * count;
        d_factor += n * count;
    }
}

static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    const fv_kernels *kr = p->kernels;
    prepared_view v = view_of(p, p->prepared);
    int64_t n = rows->n, room = n * p->options->rmf_rows;
    float *factor = tmp, *d_factor = tmp + room;
    const float *level = v.signs;
    (void)gc;
    all_factors(p, rows, &v, factor);
    from_above(p, n, &v, g, factor, d_factor);
    from_below(p, n, &v, factor, d_factor, tmp + 2 * room);
    for (int64_t i = 0; !add && i < n; i++)
        kr->fill(p->d, 0.0f, dx + i * lddx);
    for (int64_t j = 1; j <= (int64_t)*v.levels; j++) {
        int64_t count = (int64_t)v.counts[j];
        kr->gemm('N', 'T', n, p->d, count, 1.0f, d_factor, count, level, count, 1.0f, dx, lddx);
        d_factor += n * count;
        level += p->d * count;
    }
}

/* ---- the five kernels ------------------------------------------------------------------------------- */

static double log_a_exp(int64_t n) /* 1/n! */
{
    return -lgamma((double)n + 1.0);
}

static double log_a_inv(int64_t n) /* 1 */
{
    (void)n;
    return 0.0;
}

static double log_a_logi(int64_t n) /* 1, then 1/n */
{
    return n > 0 ? -log((double)n) : 0.0;
}

static double log_a_sqrt(int64_t n) /* 1, then (2n-3)!! / (2^n n!) */
{
    return n > 0 ? lgamma((double)n - 0.5) - lgamma((double)n + 1.0) - log(2.0 * sqrt(acos(-1.0))) : 0.0;
}

static const fv_rmf_series series_exp = {log_a_exp, HUGE_VAL}, series_inv = {log_a_inv, 1.0},
                           series_logi = {log_a_logi, 1.0}, series_sqrt = {log_a_sqrt, 1.0};

/* One row a kernel; trigh, sinh + cosh, is exp under another name (Macformer's tables list both). */
#define RMF(name_, series_)                                                                                  \
    {                                                                                                        \
        .name = name_, .unprojected = true, .own_rows = true, .can_be_negative = true, .mixed = true,        \
        .series = &(series_), .degrees = degrees,                                                            \
        .inputs = UINT32_C(1) << FV_INPUT_RMF_DEGREES | UINT32_C(1) << FV_INPUT_RMF_SIGNS,                   \
        .check = fv_rmf_check, .validate = fv_rmf_validate, .feature_count = fv_map_count_m,                 \
        .unit = fv_map_unit_m, .draw = fv_rmf_draw, .prepared_floats = prepared_floats, .prepare = prepare,  \
        .logits = logits, .backward = backward, .tmp_floats = tmp_floats                                     \
    }

const fv_feature_map fv_map_rmf_exp = RMF("rmf-exp", series_exp);
const fv_feature_map fv_map_rmf_inv = RMF("rmf-inv", series_inv);
const fv_feature_map fv_map_rmf_logi = RMF("rmf-logi", series_logi);
const fv_feature_map fv_map_rmf_trigh = RMF("rmf-trigh", series_exp);
const fv_feature_map fv_map_rmf_sqrt = RMF("rmf-sqrt", series_sqrt);
