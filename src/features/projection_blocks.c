/* features/projection_blocks.c: d directions at a time whose mutual angles are not left to chance, so that the
 * errors of their features cancel.
 *
 *   Haar:     rows of a Haar-distributed orthogonal matrix (R-ORF; Yu et al. 2016, arXiv 1610.09072;
 *             Choromanski et al. 2021, section 2.4). O(d^2) a row.
 *   Hadamard: rows of H D1 H D2 H D3, with H the normalised Hadamard matrix H_ij = (-1)^popcount(i & j) /
 *             sqrt(d) and D random diagonals of +-1 (H-ORF, SD products; Choromanski et al. 2017, arXiv
 *             1703.00864). d a power of two. O(d log d) a row by the fast Walsh-Hadamard transform. A small
 *             bias that vanishes as d grows: 3d bits are not a Haar matrix.
 *   Givens:   rows of D G_1 ... G_N, N = d ceil(ln d) rotations by angles uniform in [0, 2 pi) in planes of
 *             two different random axes, D a random diagonal of +-1 (G-ORF; Choromanski et al. 2021). O(log d)
 *             an entry. A row leans towards its own axis: E[w_ii^2] = 1/d + (1 - 1/d) (1 - 1/(d-1))^N, about
 *             2/d. The signs make odd moments vanish in spite of that, and d = 1 (no planes) right.
 *   simplex:  rows of S R, R Haar and S the corners of a regular simplex around 0, s_i . s_j = -1/(d-1)
 *             (SimRF; Reid et al. 2023, arXiv 2301.13856). Corners lie in the first d - 1 axes, so R needs its
 *             first d - 1 rows only; d = 1 has one corner. Each row alone is Haar, so estimates keep their mean,
 *             and no coupling of directions has a smaller variance for positive features. O(d^2) a row.
 *
 * A Haar block is the Gram-Schmidt orthogonalisation of Gaussian rows with every coefficient on the diagonal
 * positive, which is the one choice of signs that makes it Haar: the sign convention of a library's QR biases
 * the exponential features (their mean falls short by up to a fifth in small dimensions). Orthogonalising a
 * row twice brings the loss of orthogonality down to rounding ("twice is enough", Giraud et al. 2005).
 */
#include "features/projection.h"
#include <math.h>

#define TWO_PI 6.283185307179586

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

static void draw_signs(fv_random *random, int64_t n, double *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (fv_random_u32(random) & 1) != 0 ? -1 : 1;
}

static void scale(int64_t n, double factor, double *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] *= factor;
}

/* ---- Haar ----------------------------------------------------------------------------------------- */

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

/* The next Gaussian vector made orthogonal to the rows above it, with length 1. */
void fv_projection_haar(fv_random *random, int64_t rows, int64_t d, double *block)
{
    for (int64_t row = 0; row < rows; row++) {
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
}

/* ---- Hadamard ------------------------------------------------------------------------------------- */

/* x <- H x sqrt(d), the fast Walsh-Hadamard transform. */
static void transform(int64_t d, double *x)
{
    for (int64_t half = 1; half < d; half *= 2) {
        for (int64_t begin = 0; begin < d; begin += 2 * half) {
            for (int64_t i = begin; i < begin + half; i++) {
                double a = x[i], b = x[i + half];
                x[i] = a + b;
                x[i + half] = a - b;
            }
        }
    }
}

/* Row i of H D1 H D2 H D3 is D3 H D2 H D1 H e_i, as H is symmetric. */
void fv_projection_hadamard(fv_random *random, int64_t rows, int64_t d, double *block)
{
    double *signs = block + rows * d; /* [3][d] */
    draw_signs(random, 3 * d, signs);
    for (int64_t row = 0; row < rows; row++) {
        double *x = block + row * d;
        for (int64_t i = 0; i < d; i++)
            x[i] = i == row ? pow((double)d, -1.5) : 0;
        for (int factor = 0; factor < 3; factor++) {
            transform(d, x);
            for (int64_t i = 0; i < d; i++)
                x[i] *= signs[factor * d + i];
        }
    }
}

/* ---- Givens --------------------------------------------------------------------------------------- */

/* All rows times the rotation of axes a and b. */
static void rotate(int64_t rows, int64_t d, int64_t a, int64_t b, double angle, double *block)
{
    double c = cos(angle), s = sin(angle);
    for (int64_t row = 0; row < rows; row++) {
        double *x = block + row * d, xa = x[a], xb = x[b];
        x[a] = c * xa - s * xb;
        x[b] = s * xa + c * xb;
    }
}

void fv_projection_givens(fv_random *random, int64_t rows, int64_t d, double *block)
{
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < d; i++)
            block[row * d + i] = i == row;
    for (int64_t n = d * (int64_t)ceil(log((double)d)); n > 0; n--) {
        int64_t a = (int64_t)fv_random_below(random, (uint64_t)d);
        int64_t b = (int64_t)fv_random_below(random, (uint64_t)d - 1);
        b += b >= a; /* any axis but a */
        rotate(rows, d, a, b, TWO_PI * fv_random_uniform(random), block);
    }
    for (int64_t row = 0; row < rows; row++) {
        double sign;
        draw_signs(random, 1, &sign);
        scale(d, sign, block + row * d);
    }
}

/* ---- simplex -------------------------------------------------------------------------------------- */

/* Row i < d - 1 of S R is sqrt(d/(d-1)) R_i - (sqrt(d) + 1)/(d-1)^(3/2) t, the last one t / sqrt(d-1), with t
 * the sum of the first d - 1 rows of R. */
void fv_projection_simplex(fv_random *random, int64_t rows, int64_t d, double *block)
{
    int64_t used = d > 1 ? d - 1 : 1;
    fv_projection_haar(random, used, d, block);
    if (d == 1)
        return;
    double *sum = block + d * d, n = (double)used;
    for (int64_t i = 0; i < d; i++) {
        sum[i] = 0;
        for (int64_t row = 0; row < used; row++)
            sum[i] += block[row * d + i];
    }
    double along = sqrt((double)d / n), back = (sqrt((double)d) + 1) / (n * sqrt(n));
    for (int64_t row = 0; row < rows; row++)
        for (int64_t i = 0; i < d; i++)
            block[row * d + i] = row < used ? along * block[row * d + i] - back * sum[i] : sum[i] / sqrt(n);
}
