/* projected.c: the projection u = W x that most maps begin with, and its backward: one dense product, or Hadamard
 * transforms for the blocks that are made of them; of a step of single tokens, products with the rows as they are given. */
#include "features/feature_map.h"
#include "features/hadamard.h"
#include <math.h>
#include <string.h>

#define FAR 0x1p126f /* logarithms up to here are themselves */

int64_t fv_map_count_m(const fv_attention_options *options, int64_t m)
{
    (void)options;
    return m;
}

double fv_map_unit_m(const fv_map_params *p)
{
    return 1.0 / (double)p->m;
}

int64_t fv_map_count_2m(const fv_attention_options *options, int64_t m)
{
    (void)options;
    return 2 * m;
}

double fv_map_unit_2m(const fv_map_params *p)
{
    return 0.5 / (double)p->m;
}

/* ---- rows as they are applied ------------------------------------------------------------------------- */

typedef struct prepared_rows {
    float *whole;     /* [1] rows that are applied by transforms, the first ones; NULL: none */
    fv_hadamard fast; /* they */
    float *dense;     /* [d][m] omega^T; their columns are not filled */
} prepared_rows;

enum { WHOLE = 16 }; /* floats for *whole, so that what follows stays aligned */

static int64_t block_floats(const fv_map_params *p, int64_t m)
{
    int64_t blocks = p->hadamard ? m / p->d : 0;
    return blocks > 0 ? WHOLE + 6 * blocks * p->d : 0;
}

static prepared_rows view_of(const fv_map_params *p, int64_t m, const float *prepared)
{
    float *base = (float *)(uintptr_t)prepared; /* only read unless it is being prepared */
    prepared_rows v = {.dense = base + block_floats(p, m)};
    if (v.dense == base)
        return v;
    int64_t rows = m / p->d * p->d;
    v.whole = base;
    v.fast = (fv_hadamard){.d = p->d, .blocks = m / p->d, .signs = base + WHOLE};
    v.fast.lengths = v.fast.signs + 3 * rows;
    v.fast.first = v.fast.lengths + rows;
    v.fast.last = v.fast.first + rows;
    return v;
}

static int64_t whole_rows(const prepared_rows *v)
{
    return v->whole != NULL ? (int64_t)*v->whole : 0;
}

/* What a step prepares: omega = factor w diag(channels). Making omega^T for one vector would cost more than its product. */
typedef struct plain_rows {
    const float *w;
    float factor;
} plain_rows;

enum { PLAIN = (sizeof(plain_rows) + sizeof(float) - 1) / sizeof(float) }; /* floats before [d] channels */

static void prepare_plain(const fv_map_params *p, const float *w, double factor, const float *channels,
                          float *prepared)
{
    const plain_rows rows = {w, (float)factor};
    memcpy(prepared, &rows, sizeof rows);
    if (channels != NULL)
        p->kernels->copy_rows(1, p->d, channels, p->d, prepared + PLAIN, p->d);
    else
        p->kernels->fill(p->d, 1.0f, prepared + PLAIN);
}

static void apply_plain(const fv_map_params *p, int64_t m, const float *prepared, float alpha,
                        const fv_rows *rows, float *u, int64_t ldu)
{
    const fv_kernels *kr = p->kernels;
    plain_rows plain;
    memcpy(&plain, prepared, sizeof plain);
    for (int64_t i = 0; i < rows->n; i++) {
        kr->mul(p->d, rows->x + i * rows->ldx, prepared + PLAIN, p->work);
        kr->scale(p->d, alpha * plain.factor, p->work, p->work);
        kr->few_rows(1, m, p->d, p->work, p->d, plain.w, p->d, 0.0f, u + i * ldu, ldu);
    }
}

int64_t fv_map_rows_floats(const fv_map_params *p, int64_t m)
{
    return p->single ? PLAIN + p->d : block_floats(p, m) + m * p->d;
}

int64_t fv_map_work_floats(const fv_map_params *p)
{
    return p->single ? p->d : p->hadamard ? fv_hadamard_work(p->d) : 0;
}

/* All blocks or none. */
static bool find_blocks(const fv_map_params *p, const prepared_rows *v, const float *w)
{
    int64_t d = p->d;
    for (int64_t b = 0; b < v->fast.blocks; b++)
        if (!fv_hadamard_find(p->kernels, d, w + b * d * d, v->fast.signs + 3 * b * d,
                              v->fast.lengths + b * d, p->work))
            return false;
    return v->fast.blocks > 0;
}

enum { SQUARE = 16 }; /* a cache line of floats */

/* dense[c][f] = factor channels[c] w[f][c] for rows f and channels c in a square, which stays in the cache while it is turned. */
static void prepare_square(int64_t f0, int64_t f1, int64_t c0, int64_t c1, const float *w, int64_t d,
                           double factor, const float *channels, float *dense, int64_t m)
{
    for (int64_t c = c0; c < c1; c++) {
        double scale = channels != NULL ? factor * (double)channels[c] : factor;
        for (int64_t f = f0; f < f1; f++)
            dense[c * m + f] = (float)(scale * (double)w[f * d + c]);
    }
}

void fv_map_prepare_rows(const fv_map_params *p, int64_t m, const float *w, double factor,
                         const float *channels, float *prepared)
{
    if (p->single) {
        prepare_plain(p, w, factor, channels, prepared);
        return;
    }
    prepared_rows v = view_of(p, m, prepared);
    int64_t d = p->d, fast = find_blocks(p, &v, w) ? v.fast.blocks * d : 0;
    double size = pow((double)d, -1.5);
    for (int64_t f = 0; f < fast; f++) {
        float sign = v.fast.signs[f / d * 3 * d + 2 * d + f % d];
        double channel = channels != NULL ? (double)channels[f % d] : 1;
        v.fast.first[f] = (float)(size * channel) * sign;
        v.fast.last[f] = (float)(factor / size * (double)v.fast.lengths[f]);
    }
    for (int64_t f = fast; f < m; f += SQUARE)
        for (int64_t c = 0; c < d; c += SQUARE)
            prepare_square(f, FV_MIN(f + SQUARE, m), c, FV_MIN(c + SQUARE, d), w, d, factor, channels,
                           v.dense, m);
    if (v.whole != NULL)
        *v.whole = (float)fast;
}

void fv_map_scale_channels(const fv_map_params *p, int64_t m, const float *prepared, const float *channels,
                           float *out)
{
    const fv_kernels *kr = p->kernels;
    if (p->single) {
        kr->copy_rows(1, PLAIN, prepared, PLAIN, out, PLAIN);
        kr->mul(p->d, prepared + PLAIN, channels, out + PLAIN);
        return;
    }
    prepared_rows from = view_of(p, m, prepared), to = view_of(p, m, out);
    int64_t fast = whole_rows(&from), head = block_floats(p, m);
    kr->copy_rows(1, head, prepared, head, out, head);
    for (int64_t f = 0; f < fast; f += p->d)
        kr->mul(p->d, to.fast.first + f, channels, to.fast.first + f);
    kr->scale_rows(p->d, m - fast, channels, from.dense + fast, m, 0, to.dense + fast, m);
}

void fv_map_apply_rows(const fv_map_params *p, int64_t m, const float *prepared, float alpha,
                       const fv_rows *rows, float *u, int64_t ldu)
{
    if (p->single) {
        apply_plain(p, m, prepared, alpha, rows, u, ldu);
        return;
    }
    prepared_rows v = view_of(p, m, prepared);
    int64_t fast = whole_rows(&v);
    if (fast > 0)
        fv_hadamard_apply(p->kernels, &v.fast, rows->n, alpha, rows->x, rows->ldx, u, ldu, p->work);
    if (fast < m)
        p->kernels->gemm('N', 'N', rows->n, m - fast, p->d, alpha, rows->x, rows->ldx, v.dense + fast, m,
                         0.0f, u + fast, ldu);
}

void fv_map_apply_rows_back(const fv_map_params *p, int64_t m, const float *prepared, const float *w,
                            int64_t n, float alpha, const float *g, int64_t ldg, bool add, float *dx,
                            int64_t lddx)
{
    prepared_rows v = view_of(p, m, prepared);
    int64_t fast = whole_rows(&v);
    if (fast > 0)
        fv_hadamard_back(p->kernels, &v.fast, n, alpha, g, ldg, add, dx, lddx, p->work);
    if (fast < m)
        p->kernels->gemm('N', 'N', n, p->d, m - fast, alpha, g + fast, ldg, w + fast * p->d, p->d,
                         add || fast > 0 ? 1.0f : 0.0f, dx, lddx);
}

/* ---- the one projection of most maps ------------------------------------------------------------------ */

void fv_map_prepare_scaled(const fv_map_params *p, double factor, float *prepared)
{
    fv_map_prepare_rows(p, p->m, p->w, factor, NULL, prepared);
}

void fv_map_project(const fv_map_params *p, const fv_rows *rows, float *u, int64_t ldu)
{
    fv_map_apply_rows(p, p->m, p->prepared, 1.0f, rows, u, ldu);
}

void fv_map_project_back(const fv_map_params *p, int64_t n, double factor, const float *g, int64_t ldg,
                         bool add, float *dx, int64_t lddx)
{
    fv_map_apply_rows_back(p, p->m, p->prepared, p->w, n, (float)factor, g, ldg, add, dx, lddx);
}

void fv_map_projection_gradient(const fv_map_params *p, const fv_rows *rows, double factor, const float *g,
                                int64_t ldg)
{
    if (p->d_input[FV_INPUT_PROJECTION] != NULL)
        p->kernels->gemm('T', 'N', p->m, p->d, rows->n, (float)factor, g, ldg, rows->x, rows->ldx, 1.0f,
                         p->d_input[FV_INPUT_PROJECTION], p->d);
}

/* ---- what else maps share ------------------------------------------------------------------------------ */

void fv_map_squares(const fv_map_params *p, const fv_rows *rows, double factor, float *bias)
{
    p->kernels->row_dots(rows->n, p->d, (float)factor, rows->x, rows->ldx, rows->x, rows->ldx, 0.0f, bias);
    for (int64_t i = 0; i < rows->n; i++)
        if (!(fabsf(bias[i]) <= FAR))
            bias[i] = fv_map_bounded_log(factor * p->kernels->sum_squares(p->d, rows->x + i * rows->ldx));
}

void fv_map_degrees_2(const fv_map_params *p, float *degree)
{
    p->kernels->fill(p->r, 2.0f, degree);
}

float fv_map_bounded_log(double x)
{
    /* The squared length of finite floats stays below 2^512, so 2^126 (1 + ...) below 2^127. */
    double over = log2(fabs(x) / (double)FAR);
    return (float)(over <= 0 ? x : copysign((double)FAR * (1 + over / 512), x));
}

void fv_map_mirror(const fv_map_params *p, int64_t n, float *u, float *work)
{
    p->kernels->fill(n, -1.0f, work);
    p->kernels->scale_rows(n, p->m, work, u, p->r, 0, u + p->m, p->r);
}

void fv_map_mirror_back(const fv_map_params *p, int64_t n, float *g, float *work)
{
    p->kernels->fill(n, -1.0f, work);
    p->kernels->scale_rows(n, p->m, work, g + p->m, p->r, 1, g, p->r);
}

void fv_map_sincos_back(const fv_kernels *kr, int64_t n, int64_t m, const float *c, int64_t ldc, float *g,
                        int64_t ldg)
{
    for (int64_t i = 0; i < n; i++) {
        const float *sine = c + i * ldc, *cosine = sine + m;
        float *g_sin = g + i * ldg, *g_cos = g_sin + m;
        kr->mul(m, g_sin, cosine, g_sin);
        kr->mul(m, g_cos, sine, g_cos);
        kr->axpy(m, -1.0f, g_cos, g_sin);
    }
}
