/* favor_optimal.c: positive features of least variance for the data at hand, FAVOR++ (OPRF) and FAVOR# (SADERF).
 *
 *     phi(x)[f] = (1 - 4A)^(d/4) exp(A |omega_f|^2 + B omega_f . x - |x|^2 / 2) / sqrt(m),   B = sqrt(1 - 4A)
 *     E[phi(x) . phi(y)] = exp(x . y)   for omega_f ~ N(0, I_d) and any A <= 0,   x = sqrt(scale) the head vector
 *
 * A < 0 bounds the features; the variance of a pair is least for a value that depends on |x + y|^2, taken at its mean
 * psi over all pairs of a query and a key of the sequence:
 *
 *     psi = mean |x|^2 + mean |y|^2 + 2 mean x . mean y,   A = (1 - 2 psi/d - sqrt((2 psi/d + 1)^2 + 8 psi/d)) / 16
 *
 * Likhosherstov et al. 2022, arXiv 2205.15317 (FAVOR++). favor# puts channels on a common scale first: queries times
 * Psi, keys divided by it, Psi_c = (mean y_c^2 / mean x_c^2)^(1/4), which makes psi as small as a diagonal can
 * (Likhosherstov et al. 2023, arXiv 2302.00787, SADERF); a channel that is 0 in all queries or in all keys keeps
 * Psi = 1.
 *
 * A and Psi are constants for gradients. They see the whole sequence, so causal calls take them frozen: options.psi
 * and the input psi_diagonal; both may be given to other calls too. psi beyond PSI_MOST, or not finite, counts as
 * PSI_MOST: any A is unbiased, and the exponents of a smaller one would leave the range of floats.
 *
 * In base 2 as in favor_plus.c; the factor 1/m of phi.phi stays outside. Cost: O((Lq + Lk) d) for the
 * statistics, 2 n d m for features, the same backward; nothing saved.
 */
#include "features/feature_map.h"
#include <math.h>

#define PSI_MOST 0x1p16

enum { TILE = 128 }; /* rows summed in float before they are added in double */

/* Once per head: what does not depend on the sequence. */
typedef struct rows_part {
    float *projection; /* rows omega sqrt(scale) log2 e */
    float *squares;    /* [m] |omega_f|^2 */
} rows_part;

/* Once per sequence. Sums run over one side's rows; `sum` and `square` are theirs by channel. */
typedef struct moments {
    float *tile;          /* [d] */
    double *sum, *square; /* [2][d] queries, then keys */
    float *constants;     /* A, B */
    float *offset;        /* [m] log2 of the factor that feature f has in every row */
    float *psi[2];        /* favor#: [d] Psi for queries, 1/Psi for keys */
    float *side[2];       /* favor#: projection of each side, its Psi folded in */
} moments;

static rows_part rows_of(const fv_map_params *p, float *prepared)
{
    return (rows_part){prepared, prepared + fv_map_rows_floats(p, p->m)};
}

static int64_t prepared_floats(const fv_map_params *p)
{
    return fv_map_rows_floats(p, p->m) + p->m;
}

static void prepare(const fv_map_params *p, float *prepared)
{
    rows_part to = rows_of(p, prepared);
    fv_map_prepare_scaled(p, sqrt((double)p->scale) * FV_LOG2E, to.projection);
    for (int64_t f = 0; f < p->m; f++)
        to.squares[f] = (float)p->kernels->sum_squares(p->d, p->w + f * p->d);
}

/* favor#, the map that takes a diagonal. */
static bool sharp(const fv_map_params *p)
{
    return p->map->inputs != 0;
}

static moments carve(const fv_map_params *p, fv_arena *arena)
{
    moments s = {.tile = FV_PUSH(arena, float, p->d)};
    s.sum = FV_PUSH(arena, double, 2 * p->d);
    s.square = FV_PUSH(arena, double, 2 * p->d);
    s.constants = FV_PUSH(arena, float, 2);
    s.offset = FV_PUSH(arena, float, p->m);
    for (int side = 0; side < 2; side++) {
        s.psi[side] = FV_PUSH(arena, float, sharp(p) ? p->d : 0);
        s.side[side] = FV_PUSH(arena, float, sharp(p) ? fv_map_rows_floats(p, p->m) : 0);
    }
    return s;
}

static int64_t statistics_floats(const fv_map_params *p)
{
    fv_arena arena = fv_arena_measure();
    (void)carve(p, &arena);
    return (int64_t)(arena.used / sizeof(float));
}

static moments moments_of(const fv_map_params *p, const float *statistics)
{
    fv_arena arena = fv_arena_over((void *)(uintptr_t)statistics, SIZE_MAX);
    return carve(p, &arena);
}

/* ---- statistics ------------------------------------------------------------------------------------- */

static void add_rounded(int64_t d, const float *tile, double *sum)
{
    for (int64_t c = 0; c < d; c++)
        sum[c] += (double)tile[c];
}

/* Means over n rows, by channel, of x and x^2, for raw x. */
static void channel_means(const fv_map_params *p, int64_t n, const float *x, int64_t ldx, float *tile,
                          double *sum, double *square)
{
    const fv_kernels *kr = p->kernels;
    for (int64_t c = 0; c < p->d; c++)
        sum[c] = square[c] = 0;
    for (int64_t begin = 0; begin < n; begin += TILE) {
        int64_t rows = FV_MIN(TILE, n - begin);
        kr->fill(p->d, 0.0f, tile);
        kr->add_col_sums(rows, p->d, NULL, x + begin * ldx, ldx, tile);
        add_rounded(p->d, tile, sum);
        kr->fill(p->d, 0.0f, tile);
        for (int64_t i = begin; i < begin + rows; i++)
            kr->mul_add(p->d, x + i * ldx, x + i * ldx, tile);
        add_rounded(p->d, tile, square);
    }
    for (int64_t c = 0; c < p->d && n > 0; c++)
        sum[c] /= (double)n, square[c] /= (double)n;
}

/* Psi, given or from the means of squares. */
static void measure_diagonal(const fv_map_params *p, const moments *s)
{
    const float *given = p->input[FV_INPUT_PSI_DIAGONAL];
    for (int64_t c = 0; c < p->d; c++) {
        double psi = given != NULL ? (double)given[c] : pow(s->square[p->d + c] / s->square[c], 0.25);
        bool usable = psi > 0 && isfinite(psi) && isfinite(1 / psi);
        s->psi[0][c] = usable ? (float)psi : 1.0f;
        s->psi[1][c] = 1.0f / s->psi[0][c];
    }
}

/* The mean of |x + y|^2 over all pairs, with x and y as the features see them. */
static double measure_psi(const fv_map_params *p, const moments *s)
{
    double psi = 0;
    for (int64_t c = 0; c < p->d; c++) {
        double a = sharp(p) ? (double)s->psi[0][c] : 1, b = sharp(p) ? (double)s->psi[1][c] : 1;
        psi += a * a * s->square[c] + b * b * s->square[p->d + c] + 2 * a * b * s->sum[c] * s->sum[p->d + c];
    }
    return psi * (double)p->scale;
}

/* A of psi, written without differences of numbers that are nearly equal. */
static double best_a(double psi, double d)
{
    double t = 2 * psi / d, root = sqrt((t + 1) * (t + 1) + 4 * t);
    return -(t + (t * t + 6 * t) / (1 + root)) / 16;
}

static void measure(const fv_map_params *p, int64_t nq, const float *q, int64_t ldq, int64_t nk,
                    const float *k, int64_t ldk, float *statistics)
{
    moments s = moments_of(p, statistics);
    rows_part from = rows_of(p, (float *)(uintptr_t)p->prepared); /* only read */
    double psi = p->options->psi;
    bool measured = psi < 0 || (sharp(p) && p->input[FV_INPUT_PSI_DIAGONAL] == NULL);
    if (measured) {
        channel_means(p, nq, q, ldq, s.tile, s.sum, s.square);
        channel_means(p, nk, k, ldk, s.tile, s.sum + p->d, s.square + p->d);
    }
    if (sharp(p))
        measure_diagonal(p, &s);
    if (psi < 0)
        psi = measure_psi(p, &s);
    double A = best_a(psi <= PSI_MOST ? psi : PSI_MOST, (double)p->d), B2 = 1 - 4 * A;
    double all = (double)p->d / 4 * log(B2);
    s.constants[0] = (float)A;
    s.constants[1] = (float)sqrt(B2);
    for (int64_t f = 0; f < p->m; f++)
        s.offset[f] = (float)(FV_LOG2E * (A * (double)from.squares[f] + all));
    for (int side = 0; side < 2 && sharp(p); side++)
        fv_map_scale_channels(p, p->m, from.projection, s.psi[side], s.side[side]);
}

/* ---- features ---------------------------------------------------------------------------------------- */

/* bias[i] = factor sum_c (psi_c x_c)^2; four partial sums, so that the additions do not wait for each other. */
static void weighted_squares(const fv_map_params *p, const fv_rows *rows, const float *psi, double factor,
                             float *bias)
{
    for (int64_t i = 0; i < rows->n; i++) {
        const float *x = rows->x + i * rows->ldx;
        double sum[4] = {0};
        for (int64_t c = 0; c < p->d; c++) {
            double a = (double)psi[c] * (double)x[c];
            sum[c % 4] += a * a;
        }
        bias[i] = fv_map_bounded_log(factor * ((sum[0] + sum[1]) + (sum[2] + sum[3])));
    }
}

static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c;
    const fv_kernels *kr = p->kernels;
    moments s = moments_of(p, p->statistics);
    double half = -0.5 * FV_LOG2E * (double)p->scale;
    fv_map_apply_rows(p, p->m, sharp(p) ? s.side[rows->key] : p->prepared, s.constants[1], rows, u, p->m);
    kr->bias_rows(rows->n, p->m, u, s.offset, u);
    if (sharp(p))
        weighted_squares(p, rows, s.psi[rows->key], half, bias);
    else
        fv_map_squares(p, rows, half, bias);
}

/* dw_f += 2A (sum_i g_if) w_f + B sqrt(scale) sum_i g_if x_i, for x as the features see it. */
static void rows_gradient(const fv_map_params *p, int64_t n, const moments *s, const float *g, const float *x,
                          int64_t ldx, float *sums)
{
    const fv_kernels *kr = p->kernels;
    float *to = p->d_input[FV_INPUT_PROJECTION];
    if (to == NULL)
        return;
    kr->gemm('T', 'N', p->m, p->d, n, s->constants[1] * sqrtf(p->scale), g, p->m, x, ldx, 1.0f, to, p->d);
    kr->fill(p->m, 0.0f, sums);
    kr->add_col_sums(n, p->m, NULL, g, p->m, sums);
    kr->scale(p->m, 2 * s->constants[0], sums, sums);
    kr->scale_rows(p->m, p->d, sums, p->w, p->d, 1, to, p->d);
}

/* With g = dL/dlog phi and x' = Psi o x: dx = Psi o (B sqrt(scale) g omega - scale (sum_f g_f) x'). */
static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    (void)gc;
    const fv_kernels *kr = p->kernels;
    int64_t n = rows->n, d = p->d;
    float *ones = tmp, *sums = tmp + p->m, *seen = sums + n, *back = seen + n * d;
    moments s = moments_of(p, p->statistics);
    const float *psi = sharp(p) ? s.psi[rows->key] : NULL;
    float factor = s.constants[1] * sqrtf(p->scale);
    kr->fill(p->m, 1.0f, ones);
    kr->row_dots(n, p->m, -p->scale, g, p->m, ones, 0, 0.0f, sums);
    kr->copy_rows(n, d, rows->x, rows->ldx, seen, d);
    for (int64_t i = 0; i < n && psi != NULL; i++)
        kr->mul(d, seen + i * d, psi, seen + i * d);
    rows_gradient(p, n, &s, g, seen, d, ones);
    fv_map_project_back(p, n, (double)factor, g, p->m, false, back, d);
    kr->scale_rows(n, d, sums, seen, d, 1, back, d);
    for (int64_t i = 0; i < n && psi != NULL; i++)
        kr->mul(d, back + i * d, psi, back + i * d);
    kr->scale_rows(n, d, NULL, back, d, add, dx, lddx);
}

static int64_t tmp_floats(const fv_map_params *p, int64_t n)
{
    return p->m + n + 2 * n * p->d;
}

static fv_status check(const fv_feature_map *map, fv_context *ctx, fv_attention_options *o)
{
    (void)map;
    if (isnan(o->psi))
        return fv_fail(ctx, FV_ERR_USAGE, "attention %s: psi is not a number", o->kind);
    if (o->causal && o->psi < 0)
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "attention %s: causal calls take the mean of |x + y|^2 frozen, since a measured one sees "
            "later tokens; give --psi X",
            o->kind);
    return FV_OK;
}

/* ---- the rows --------------------------------------------------------------------------------------- */

#define OPTIMAL(name_, inputs_)                                                                              \
    {                                                                                                        \
        .name = name_, .exponential = true, .inputs = inputs_, .takes = FV_TAKES_PSI, .check = check,        \
        .feature_count = fv_map_count_m, .unit = fv_map_unit_m, .prepared_floats = prepared_floats,          \
        .prepare = prepare, .statistics_floats = statistics_floats, .measure = measure, .logits = logits,    \
        .backward = backward, .tmp_floats = tmp_floats                                                       \
    }

const fv_feature_map fv_map_favor_optimal = OPTIMAL("favor++", 0);
const fv_feature_map fv_map_favor_sharp = OPTIMAL("favor#", UINT32_C(1) << FV_INPUT_PSI_DIAGONAL);
