/* toeplitz_past.c: the causal product, y_i += sum over j <= i of w[origin + i - j] v_j, so that nothing of a later token
 * enters any rounding of an earlier row.
 *
 * The triangle of a block is a product in strips. On the level of blocks of m tokens (m = BLOCK, FAN BLOCK, ...), FAN
 * neighbours are joined: with x_s the transform of block s (size 2 m), block r receives the inverse transform of
 * sum over s < r of f_(r-s) x_s, f_D that of the weights D m + t, |t| < m. The sums stand in the places of the x: r
 * falling, row r is overwritten after its last use; backward, where s receives from r > s, s rises.
 *
 * Cost a row and level: 2 (FAN-1)/FAN 2 transforms of size 2 m a block of m, and FAN-1 products with filters. */
#include "attention/toeplitz_pieces.h"
#include <math.h>

void fv_tp_poison_past(const fv_tp_part *p, fv_tp_rows v, bool backward, float *y, int64_t ldy)
{
    const fv_kernels *kr = p->call->kr;
    float *poison = p->w->poison;
    bool started = false;
    kr->fill(p->columns, 0.0f, poison);
    for (int64_t n = 0; n < v.n; n++) {
        int64_t j = backward ? v.n - 1 - n : n;
        started |= !kr->all_finite(1, p->columns, v.x + j * v.ld, v.ld);
        if (!started)
            continue; /* adding 0 would turn -0 into 0: a bit that depends on a later token */
        kr->axpy(p->columns, 0.0f, v.x + j * v.ld, poison);
        kr->add(p->columns, y + j * ldy, poison, y + j * ldy);
    }
}

/* ---- the triangle of a block ------------------------------------------------------------------------ */

/* Rows that strips cover, for a block of n rows. */
static int64_t covered(int64_t n)
{
    return (n + FV_TP_STRIP - 1) / FV_TP_STRIP * FV_TP_STRIP;
}

/* tile[j][i] = w[origin + i - j] for i >= j, else 0. */
static void make_triangle(const fv_tp_part *p, int64_t origin, int64_t n)
{
    const fv_kernels *kr = p->call->kr;
    float *weights = p->w->weights;
    int64_t known = FV_MIN((int64_t)FV_TP_BLOCK, p->call->t->span - origin), rows = covered(n);
    kr->fill(2 * (int64_t)FV_TP_BLOCK, 0.0f, weights);
    kr->copy_rows(1, known, p->weight + origin, known, weights + FV_TP_BLOCK, known);
    kr->copy_rows(rows, rows, weights + FV_TP_BLOCK, -1, p->w->tile, FV_TP_BLOCK);
}

/* A block of at most BLOCK rows, finite and padded to whole strips with 0, in w->clean. */
static bool clean_block(const fv_tp_part *p, fv_tp_rows v)
{
    const fv_kernels *kr = p->call->kr;
    bool finite = kr->finite_rows(v.n, p->columns, v.x, v.ld, p->w->clean, p->columns);
    kr->fill((covered(v.n) - v.n) * p->columns, 0.0f, p->w->clean + v.n * p->columns);
    return finite;
}

/* Shapes of the products depend on the place in the block alone. */
static bool block_forward(const fv_tp_part *p, fv_tp_rows v, float *y, int64_t ldy)
{
    const fv_kernels *kr = p->call->kr;
    int64_t cols = p->columns, strip = FV_TP_STRIP, block = FV_TP_BLOCK;
    bool finite = clean_block(p, v);
    for (int64_t a = 0; a < v.n; a += strip)
        kr->gemm('T', 'N', strip, cols, a + strip, 1.0f, p->w->tile + a, block, p->w->clean, cols, 0.0f,
                 p->w->out + a * cols, cols);
    kr->scale_rows(v.n, cols, NULL, p->w->out, cols, 1, y, ldy);
    return finite;
}

static bool block_values(const fv_tp_part *p, fv_tp_rows dy, float *dv, int64_t lddv)
{
    const fv_kernels *kr = p->call->kr;
    int64_t cols = p->columns, strip = FV_TP_STRIP, block = FV_TP_BLOCK;
    bool finite = clean_block(p, dy);
    for (int64_t a = 0; a < dy.n; a += strip)
        kr->gemm('N', 'N', strip, cols, covered(dy.n) - a, 1.0f, p->w->tile + a * block + a, block,
                 p->w->clean + a * cols, cols, 0.0f, p->w->out + a * cols, cols);
    kr->scale_rows(dy.n, cols, NULL, p->w->out, cols, 1, dv, lddv);
    return finite;
}

/* dw[origin + i - j] += v_j.dy_i; the tile is free for the products. */
static void block_weights(const fv_tp_part *p, int64_t origin, fv_tp_rows v, fv_tp_rows dy)
{
    const fv_kernels *kr = p->call->kr;
    int64_t n = v.n, block = FV_TP_BLOCK;
    for (int64_t a = 0; a < n; a += FV_TP_STRIP)
        kr->gemm('N', 'T', FV_MIN((int64_t)FV_TP_STRIP, n - a), n - a, p->columns, 1.0f, v.x + a * v.ld, v.ld,
                 dy.x + a * dy.ld, dy.ld, 0.0f, p->w->tile + a * block + a, block);
    for (int64_t j = 0; j < n; j++)
        kr->add(n - j, p->dweight + origin, p->w->tile + j * block + j, p->dweight + origin);
}

static fv_tp_rows part_of(fv_tp_rows v, int64_t begin, int64_t n)
{
    return (fv_tp_rows){v.x + begin * v.ld, FV_MIN(n, v.n - begin), v.ld};
}

static bool blocks_forward(const fv_tp_part *p, const fv_tp_past *past, fv_tp_rows v, float *y, int64_t ldy)
{
    bool finite = true;
    make_triangle(p, past->origin, FV_MIN((int64_t)FV_TP_BLOCK, v.n));
    for (int64_t t = 0; t < v.n; t += FV_TP_BLOCK)
        finite &= block_forward(p, part_of(v, t, FV_TP_BLOCK), y + t * ldy, ldy);
    return finite;
}

static bool blocks_back(const fv_tp_part *p, const fv_tp_past *past, fv_tp_rows v, fv_tp_rows dy, float *dv)
{
    bool finite = true;
    make_triangle(p, past->origin, FV_MIN((int64_t)FV_TP_BLOCK, v.n));
    for (int64_t t = 0; t < v.n && dv != NULL; t += FV_TP_BLOCK)
        finite &= block_values(p, part_of(dy, t, FV_TP_BLOCK), dv + t * v.ld, v.ld);
    for (int64_t t = 0; t < v.n && p->dweight != NULL; t += FV_TP_BLOCK)
        block_weights(p, past->origin, part_of(v, t, FV_TP_BLOCK), part_of(dy, t, FV_TP_BLOCK));
    return finite;
}

/* ---- levels ------------------------------------------------------------------------------------------ */

/* Blocks of m tokens of one parent, and their filters: distance D is filter[D - 1]. */
typedef struct level {
    int64_t m, floats; /* tokens of a block; floats of its transform */
    const fv_tp_filter *filter;
    const fv_fft *fft;
} level;

static level level_of(const fv_tp_part *p, int64_t m, int64_t first)
{
    const fv_tp_filter *filter = p->call->bank.filters + first;
    return (level){m, 4 * m * fv_tp_half(p), filter, &p->call->bank.fft[filter->fft]};
}

/* Rows of a spectrum that are summed together: the blocks of a level stay in the first-level cache. */
enum { CHUNK = 16 };

/* The sums of one parent of `blocks` blocks, in place. Forward: block r becomes sum over s < r; backward, with the
 * conjugate filters: s the sum over r > s. The first (last) one receives nothing and stays as it is. */
static void combine(const fv_tp_part *p, const level *l, int64_t blocks, bool backward)
{
    const fv_kernels *kr = p->call->kr;
    int64_t c = fv_tp_half(p), size = 2 * l->m;
    for (int64_t row = 0; row < size; row += CHUNK) {
        int64_t n = FV_MIN((int64_t)CHUNK, size - row);
        for (int64_t k = blocks - 1; k > 0; k--) {
            int64_t to = backward ? blocks - 1 - k : k;
            float *sum = p->w->x + to * l->floats + row * 2 * c;
            for (int64_t distance = k; distance > 0; distance--) { /* the end of the parent first */
                int64_t from = backward ? to + distance : to - distance;
                const float *f = fv_tp_spectrum(p, &l->filter[distance - 1]) + row;
                kr->fft_filter(n, c, f, f + size, backward, p->w->x + from * l->floats + row * 2 * c, 2 * c,
                               distance < k, sum, 2 * c);
            }
        }
    }
}

static void parent_forward(const fv_tp_part *p, const level *l, fv_tp_rows v, float *y, int64_t ldy)
{
    int64_t blocks = fv_tp_blocks(v.n, l->m), c = fv_tp_half(p);
    for (int64_t s = 0; s < blocks - 1; s++) {
        (void)fv_tp_load(p, part_of(v, s * l->m, l->m), 2 * l->m, p->w->x + s * l->floats);
        fv_fft_split(l->fft, c, p->w->x + s * l->floats);
    }
    combine(p, l, blocks, false);
    for (int64_t r = 1; r < blocks; r++) {
        fv_fft_join(l->fft, c, p->w->x + r * l->floats);
        fv_tp_unload(p, p->w->x + r * l->floats, FV_MIN(l->m, v.n - r * l->m), y + r * l->m * ldy, ldy);
    }
}

/* Transforms of blocks 0 ... of v against those of dy (p->w->x, from block 1 on), by distance. */
static void parent_weights(const fv_tp_part *p, const level *l, fv_tp_rows v)
{
    int64_t blocks = fv_tp_blocks(v.n, l->m), c = fv_tp_half(p);
    bool finite = true;
    for (int64_t s = 0; s < blocks - 1; s++) {
        finite &= fv_tp_load(p, part_of(v, s * l->m, l->m), 2 * l->m, p->w->x2);
        fv_fft_split(l->fft, c, p->w->x2);
        for (int64_t distance = 1; s + distance < blocks; distance++) {
            float *g = fv_tp_gradient(p, &l->filter[distance - 1]);
            p->call->kr->fft_correlate(2 * l->m, c, p->w->x2, 2 * c, p->w->x + (s + distance) * l->floats,
                                       2 * c, g, g + 2 * l->m);
        }
    }
    if (!finite && blocks > 1)
        fv_tp_gradient(p, l->filter)[0] = NAN;
}

static void parent_back(const fv_tp_part *p, const level *l, fv_tp_rows v, fv_tp_rows dy, float *dv)
{
    int64_t blocks = fv_tp_blocks(v.n, l->m), c = fv_tp_half(p);
    bool finite = true;
    for (int64_t r = 1; r < blocks; r++) {
        finite &= fv_tp_load(p, part_of(dy, r * l->m, l->m), 2 * l->m, p->w->x + r * l->floats);
        fv_fft_split(l->fft, c, p->w->x + r * l->floats);
    }
    if (p->dweight != NULL) {
        parent_weights(p, l, v);
        if (!finite)
            fv_tp_gradient(p, l->filter)[0] = NAN;
    }
    if (dv == NULL)
        return;
    combine(p, l, blocks, true);
    for (int64_t s = 0; s < blocks - 1; s++) {
        fv_fft_join(l->fft, c, p->w->x + s * l->floats);
        fv_tp_unload(p, p->w->x + s * l->floats, l->m, dv + s * l->m * v.ld, v.ld);
    }
}

void fv_tp_past_forward(const fv_tp_part *p, const fv_tp_past *past, fv_tp_rows v, float *y, int64_t ldy)
{
    int64_t first = past->first;
    if (v.n == 0)
        return;
    bool finite = blocks_forward(p, past, v, y, ldy);
    for (int64_t m = FV_TP_BLOCK; m < v.n; m *= FV_TP_FAN) {
        level l = level_of(p, m, first);
        for (int64_t t = 0; t < v.n; t += m * FV_TP_FAN)
            parent_forward(p, &l, part_of(v, t, m * FV_TP_FAN), y + t * ldy, ldy);
        first += FV_TP_FAN - 1;
    }
    if (!finite)
        fv_tp_poison_past(p, v, false, y, ldy);
}

void fv_tp_past_back(const fv_tp_part *p, const fv_tp_past *past, fv_tp_rows v, fv_tp_rows dy, float *dv)
{
    int64_t first = past->first;
    if (v.n == 0)
        return;
    bool finite = blocks_back(p, past, v, dy, dv);
    for (int64_t m = FV_TP_BLOCK; m < v.n; m *= FV_TP_FAN) {
        level l = level_of(p, m, first);
        for (int64_t t = 0; t < v.n; t += m * FV_TP_FAN)
            parent_back(p, &l, part_of(v, t, m * FV_TP_FAN), part_of(dy, t, m * FV_TP_FAN),
                        dv != NULL ? dv + t * v.ld : NULL);
        first += FV_TP_FAN - 1;
    }
    if (!finite)
        fv_tp_poison_past(p, dy, true, dv, v.ld);
}
