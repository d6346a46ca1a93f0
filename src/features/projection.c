/* features/projection.c: draws the random projections W [m][d] of a feature map (rows omega).
 *
 *   iid:        omega ~ N(0, I_d), row by row.
 *   orthogonal: blocks of d rows; the rows of one block are those of a Haar-distributed orthogonal matrix,
 *               blocks are independent, the last block keeps its first m mod d ROWS (Choromanski et al.
 *               2021, section 2.4; Yu et al. 2016, arXiv 1610.09072).
 *
 * A block is the Gram-Schmidt orthogonalisation of Gaussian rows with every coefficient on the diagonal
 * positive, which is the one choice of signs that makes it Haar: the sign convention of a library's QR biases
 * the exponential features (their mean falls short by up to a fifth in small dimensions). Orthogonalising a
 * row twice brings the loss of orthogonality down to rounding ("twice is enough", Giraud et al. 2005).
 *
 * Row norms are those of fresh Gaussian vectors (chi_d) or sqrt(d). They come from a stream of their own: a
 * norm taken from the Gaussian row whose direction is used would be right for one row, but not independent of
 * the block's other directions.
 *
 * Everything is computed in double in a fixed order: a pure function of (seed, draw, head). Cost O(m d^2).
 */
#include "features/feature_map.h"
#include <favor/attention.h>
#include <math.h>

int64_t fv_projection_work(int64_t m, int64_t d)
{
    int64_t rows = FV_MIN(m, d), work;
    return fv_mul(rows, d, &work) ? work : -1;
}

/* Four partial sums, so that the additions do not wait for each other. */
static double dot(int64_t n, const double *a, const double *b)
{
    double sum[4] = {0};
    int64_t i = 0;
    for (; i + 4 <= n; i += 4)
        for (int lane = 0; lane < 4; lane++)
            sum[lane] += a[i + lane] * b[i + lane];
    for (; i < n; i++)
        sum[0] += a[i] * b[i];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

static void draw_normals(fv_random *random, int64_t n, double *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = fv_random_normal(random);
}

/* x minus its projections on the `rows` orthonormal rows of basis. */
static void project_out(int64_t rows, int64_t d, const double *basis, double *x)
{
    for (int64_t row = 0; row < rows; row++) {
        const double *q = basis + row * d;
        double coefficient = dot(d, q, x);
        for (int64_t i = 0; i < d; i++)
            x[i] -= coefficient * q[i];
    }
}

/* Row `row` of a block: the next Gaussian vector made orthogonal to the rows above it, with length 1. */
static void draw_direction(fv_random *random, int64_t row, int64_t d, double *block)
{
    double *x = block + row * d, norm;
    do {
        draw_normals(random, d, x);
        project_out(row, d, block, x);
        project_out(row, d, block, x);
        norm = sqrt(dot(d, x, x));
    } while (norm < 1e-12); /* nothing left but rounding: practically never */
    for (int64_t i = 0; i < d; i++)
        x[i] /= norm;
}

/* The norm of a vector ~ N(0, I_d). */
static double draw_chi(fv_random *random, int64_t d)
{
    double squares = 0;
    for (int64_t i = 0; i < d; i++) {
        double x = fv_random_normal(random);
        squares += x * x;
    }
    return sqrt(squares);
}

static void store_scaled(int64_t d, double factor, const double *x, float *w)
{
    for (int64_t i = 0; i < d; i++)
        w[i] = (float)(factor * x[i]);
}

bool fv_projection_draw(int projection, int row_norms, int64_t m, int64_t d, uint64_t seed, uint32_t draw,
                        uint32_t head, float *w, double *work)
{
    bool orthogonal = projection == FV_PROJECTION_ORTHOGONAL;
    bool chi = row_norms == FV_ROW_NORMS_CHI;
    if ((!orthogonal && projection != FV_PROJECTION_IID) || (!chi && row_norms != FV_ROW_NORMS_SQRT_D))
        return false;
    fv_random directions = fv_random_make(seed, FV_RANDOM_PROJECTION_DIRECTION, head, draw);
    fv_random norms = fv_random_make(seed, FV_RANDOM_PROJECTION_NORM, head, draw);
    for (int64_t row = 0; row < m; row++) {
        /* An iid row is the first row of a block of its own. */
        int64_t in_block = orthogonal ? row % d : 0;
        draw_direction(&directions, in_block, d, work);
        double norm = chi ? draw_chi(&norms, d) : sqrt((double)d);
        store_scaled(d, norm, work + in_block * d, w + row * d);
    }
    return true;
}
