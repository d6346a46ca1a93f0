/* features/hadamard.c: Hadamard blocks (projection_blocks.c) applied by fast Walsh-Hadamard transforms instead of as the
 * dense matrix that they are drawn, given and kept as.
 *
 *     W = diag(length) O,   O = H D1 H D2 H D3,   W x = diag(length) H (D1 H (D2 H (D3 x))),
 *     W^T g = D3 H D2 H D1 H (diag(length) g)
 *
 * 3 d log2 d additions a vector instead of d^2 multiplications. Vectors lie side by side, so that every lane of a
 * transform is a vector of its own: its bits depend on no other and not on how many there are. The error is one
 * of norms: |error of (W x)_f| <= (1.5 log2 d + 3.5) eps |omega_f| |x|.
 *
 * The factors are found in the rows, so that a matrix means the same however it came: drawn, read from a file, kept in a
 * checkpoint. With A = H D2 H, A_ij = a_(i xor j),
 *
 *     M = H O = D1 A D3,   M_ij = d1_i d3_j a_(i xor j)
 *
 * and signs follow from entry to entry, wherever a is not 0. A character of the group (a row of H) may be moved from
 * a to D1 and D3, so the signs of a at a basis are free to choose; so are those of D1 and D3 as a whole. What was found is then
 * held against the rows, entry by entry. Where a vanishes outside a coset of a proper subgroup, the signs
 * cannot be followed to all columns, and the block counts as dense; of random signs that is one in 2^(d/2).
 *
 * Cost of finding: 4 d^2 log2 d additions a block.
 */
#include "features/hadamard.h"
#include <float.h>
#include <math.h>

static float sign_of(float x)
{
    return x < 0 ? -1.0f : 1.0f;
}

/* ---- finding the factors -------------------------------------------------------------------------- */

/* The largest of a, which is seen in the first row of M. */
static int64_t largest_shift(int64_t d, const float *m)
{
    int64_t largest = 0;
    for (int64_t k = 1; k < d; k++)
        if (fabsf(m[k]) > fabsf(m[largest]))
            largest = k;
    return largest;
}

/* D1 and D3 of M = D1 A D3. The columns whose signs are known are a subgroup, which doubles with every shift that leads
 * out of it. False when they do not become all. */
static bool follow_signs(int64_t d, const float *m, float *d1, float *d3)
{
    int64_t top = largest_shift(d, m), known = 1;
    for (int64_t j = 0; j < d; j++)
        d3[j] = j == 0; /* 0: not known */
    for (int64_t k = 0; k < d && known < d; k++) {
        int64_t step = k ^ top;
        if (d3[step] != 0 || !(fabsf(m[k]) * (float)d > 1.0f)) /* a is a multiple of 2/d */
            continue;
        for (int64_t j = d - 1; j >= 0; j--) {
            const float *row = m + (j ^ top) * d; /* d1 a_top = row[j] d3_j, and a_k > 0 */
            if (d3[j] != 0 && d3[j ^ step] == 0)
                d3[j ^ step] = sign_of(row[j]) * sign_of(row[j ^ step]) * d3[j];
        }
        known *= 2;
    }
    for (int64_t i = 0; i < d; i++)
        d1[i] = sign_of(m[i * d + (i ^ top)]) * d3[i ^ top];
    return known == d;
}

/* Whether rows w are those of the factors. As the rows that were drawn, they differ by half an eps of every entry, of its
 * length, of the entries that the length was taken from, and of the product of both here. */
static bool are_rows_of(const fv_kernels *kr, int64_t d, const float *w, const float *signs,
                        const float *lengths, float *m)
{
    const double most = 2 * (double)FLT_EPSILON * sqrt((double)d) * (double)d;
    kr->fill(d * d, 0.0f, m);
    for (int64_t i = 0; i < d; i++)
        m[i * d + i] = 1.0f;
    for (int factor = 2; factor >= 0; factor--)
        kr->walsh(d, d, signs + factor * d, m, d, m, d); /* whole numbers: exact */
    kr->scale_rows(d, d, lengths, m, d, 0, m, d);
    for (int64_t f = 0; f < d; f++) {
        float *row = m + f * d;
        kr->axpy(d, -1.0f, w + f * d, row);
        double allowed = most * (double)lengths[f];
        if (!(kr->sum_squares(d, row) <= allowed * allowed))
            return false;
    }
    return true;
}

bool fv_hadamard_find(const fv_kernels *kr, int64_t d, const float *w, float *signs, float *lengths,
                      float *work)
{
    float *d1 = signs, *d2 = signs + d, *d3 = signs + 2 * d, *column = work, *m = work + d;
    double root = sqrt((double)d);
    for (int64_t f = 0; f < d; f++) {
        double length = sqrt(kr->sum_squares(d, w + f * d));
        lengths[f] = (float)(length / (root * (double)d));
        column[f] = (float)(1 / (root * length));
    }
    kr->walsh(d, d, column, w, d, m, d);
    if (!follow_signs(d, m, d1, d3))
        return false;
    kr->walsh(d, 1, d1, m, d, column, 1); /* H D1 M = D2 H D3, whose first column is D2, as d3_0 = 1 */
    for (int64_t k = 0; k < d; k++)
        d2[k] = sign_of(column[k]);
    return are_rows_of(kr, d, w, signs, lengths, m);
}

/* ---- products ----------------------------------------------------------------------------------------- */

/* Vectors that go through a block together: fewer where they are long, to stay in the cache. */
static int64_t tile_of(int64_t d)
{
    return FV_MAX(16, FV_MIN(64, ((int64_t)1 << 16) / d));
}

int64_t fv_hadamard_work(int64_t d)
{
    return d * FV_MAX(d + 1, 2 * tile_of(d));
}

void fv_hadamard_apply(const fv_kernels *kr, const fv_hadamard *h, int64_t n, float alpha, const float *x,
                       int64_t ldx, float *u, int64_t ldu, float *work)
{
    int64_t d = h->d, tile = tile_of(d);
    float *columns = work, *t = work + tile * d;
    for (int64_t begin = 0; begin < n; begin += tile, x += tile * ldx, u += tile * ldu) {
        int64_t c = FV_MIN(tile, n - begin);
        kr->transpose(c, d, x, ldx, columns, c);
        if (alpha != 1.0f)
            kr->scale(c * d, alpha, columns, columns);
        for (int64_t at = 0; at < h->blocks * d; at += d) {
            const float *d1 = h->signs + 3 * at, *d2 = d1 + d;
            kr->walsh(d, c, h->first + at, columns, c, t, c);
            kr->walsh(d, c, d2, t, c, t, c);
            kr->walsh(d, c, d1, t, c, t, c);
            kr->scale_rows(d, c, h->last + at, t, c, 0, t, c);
            kr->transpose(d, c, t, c, u + at, ldu);
        }
    }
}

void fv_hadamard_back(const fv_kernels *kr, const fv_hadamard *h, int64_t n, float alpha, const float *g,
                      int64_t ldg, bool add, float *dx, int64_t lddx, float *work)
{
    int64_t d = h->d, tile = tile_of(d);
    float *sum = work, *t = work + tile * d;
    for (int64_t begin = 0; begin < n; begin += tile, g += tile * ldg, dx += tile * lddx) {
        int64_t c = FV_MIN(tile, n - begin);
        for (int64_t at = 0; at < h->blocks * d; at += d) {
            const float *d1 = h->signs + 3 * at, *d2 = d1 + d, *d3 = d2 + d;
            kr->transpose(c, d, g + at, ldg, t, c);
            kr->walsh(d, c, h->lengths + at, t, c, t, c);
            kr->walsh(d, c, d1, t, c, t, c);
            kr->walsh(d, c, d2, t, c, t, c);
            kr->scale_rows(d, c, d3, t, c, at > 0, sum, c);
        }
        kr->transpose(d, c, sum, c, t, d);
        kr->scale(c * d, alpha, t, t);
        kr->scale_rows(c, d, NULL, t, d, add, dx, lddx);
    }
}
