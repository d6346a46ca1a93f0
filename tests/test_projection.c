/* test_projection.c: the drawn projections: orthogonality, norms, truncation, independence, purity. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "features/projection.h"
#include <favor/attention.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static float *draw(fv_projection projection, fv_row_norms norms, int64_t m, int64_t d, uint64_t seed,
                   uint32_t redraw, uint32_t head)
{
    float *w = calloc((size_t)(m * d), sizeof *w);
    double *work = calloc((size_t)fv_projection_work((int)projection, m, d), sizeof *work);
    assert_true(fv_projection_draw((int)projection, (int)norms, m, d, seed, redraw, head, w, work));
    free(work);
    return w;
}

static double dot(int64_t n, const float *a, const float *b)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* The cosine of two rows of one block. Rounding the rows to float moves it by a few eps / sqrt(d). */
static void rows_of_a_block_have_their_angles(void **state)
{
    static const int64_t shapes[][2] = {{1, 1}, {3, 1},  {2, 3},    {7, 3},
                                        {5, 2}, {20, 8}, {150, 64}, {130, 128}};
    (void)state;
    for (int n = 0; n < FV_COUNT(shapes); n++) {
        int64_t m = shapes[n][0], d = shapes[n][1];
        for (int kind = FV_PROJECTION_ORTHOGONAL; kind <= FV_PROJECTION_SIMPLEX; kind++) {
            if (kind == FV_PROJECTION_HADAMARD && (d & (d - 1)) != 0)
                continue;
            double expected = kind == FV_PROJECTION_SIMPLEX && d > 1 ? -1 / ((double)d - 1) : 0;
            float *w = draw((fv_projection)kind, FV_ROW_NORMS_CHI, m, d, 5, 0, 0);
            for (int64_t i = 0; i < m; i++) {
                for (int64_t j = i / d * d; j < i; j++) {
                    const float *a = w + i * d, *b = w + j * d;
                    double cosine = dot(d, a, b) / sqrt(dot(d, a, a) * dot(d, b, b));
                    assert_true(fabs(cosine - expected) < 4 * (double)FLT_EPSILON);
                }
            }
            free(w);
        }
    }
}

static void blocks_are_not_copies(void **state)
{
    (void)state;
    for (int kind = FV_PROJECTION_ORTHOGONAL; kind <= FV_PROJECTION_SIMPLEX; kind++) {
        float *w = draw((fv_projection)kind, FV_ROW_NORMS_SQRT_D, 24, 8, 5, 0, 0);
        for (int64_t i = 0; i < 16; i++)
            assert_true(fabs(dot(8, w + i * 8, w + (i + 8) * 8)) < 8 * 0.999);
        free(w);
    }
}

/* E[w_ij^2] of a Givens block: a rotation in a random plane averages the squares of two random entries, so
 * what a row has on its own axis beyond 1/d falls by the factor 1 - 1/(d-1) with each. Squares of unit rows
 * lie in [0, 1]: a standard error of at most 1/2 a draw. */
static void givens_mixes_as_its_law_says(void **state)
{
    enum { D = 8, N = 20000 };
    double own = 0, other = 0, rotations = D * ceil(log(D)),
           rest = (1 - 1.0 / D) * pow(1 - 1.0 / (D - 1), rotations);
    double mean[D * D] = {0};
    (void)state;
    for (uint32_t n = 0; n < N; n++) {
        float *w = draw(FV_PROJECTION_GIVENS, FV_ROW_NORMS_SQRT_D, D, D, 10, n, 0);
        for (int i = 0; i < D * D; i++) {
            double x = (double)w[i] / sqrt(D);
            mean[i] += x / N;
            *(i / D == i % D ? &own : &other) += x * x / N;
        }
        free(w);
    }
    assert_true(fabs(own / D - (1.0 / D + rest)) < 5 * 0.5 / sqrt(N));
    assert_true(fabs(other / (D * (D - 1)) - (1.0 / D - rest / (D - 1))) < 5 * 0.5 / sqrt(N));
    for (int i = 0; i < D * D; i++)
        assert_true(fabs(mean[i]) < 5 / sqrt(N)); /* signs: no direction is preferred */
}

/* H D1 H D2 H D3 of 4 x 4, times sqrt(d), the diagonals read from the bits of `signs`. */
static void hadamard_product(unsigned signs, double w[4][4])
{
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            w[i][j] = 0;
            for (int k = 0; k < 4; k++)
                for (int l = 0; l < 4; l++) {
                    int bits = __builtin_popcount((unsigned)(i & k)) + __builtin_popcount((unsigned)(k & l)) +
                               __builtin_popcount((unsigned)(l & j)) + (int)(signs >> k & 1) +
                               (int)(signs >> (4 + l) & 1) + (int)(signs >> (8 + j) & 1);
                    w[i][j] += (bits % 2 ? -1 : 1) / 4.0;
                }
        }
    }
}

/* Every drawn block is one of the 2^12 products. These are 192 different matrices; 64 draws meet 54 of them on
 * average. */
static void hadamard_is_the_product_of_its_factors(void **state)
{
    enum { DRAWS = 64 };
    bool seen[4096] = {false};
    int different = 0;
    (void)state;
    for (uint32_t n = 0; n < DRAWS; n++) {
        float *w = draw(FV_PROJECTION_HADAMARD, FV_ROW_NORMS_SQRT_D, 4, 4, 12, n, 0);
        unsigned signs = 0;
        for (; signs < 4096; signs++) {
            double product[4][4], worst = 0;
            hadamard_product(signs, product);
            for (int i = 0; i < 16; i++)
                worst = fmax(worst, fabs(product[i / 4][i % 4] - (double)w[i]));
            if (worst < 1e-6)
                break;
        }
        assert_true(signs < 4096);
        different += !seen[signs];
        seen[signs] = true;
        free(w);
    }
    assert_true(different > 40);
}

static void fixed_norms(void **state)
{
    (void)state;
    for (int64_t d = 1; d <= 64; d *= 4) {
        for (int kind = FV_PROJECTION_IID; kind <= FV_PROJECTION_SIMPLEX; kind++) {
            float *w = draw((fv_projection)kind, FV_ROW_NORMS_SQRT_D, 2 * d + 1, d, 6, 0, 0);
            for (int64_t i = 0; i < 2 * d + 1; i++)
                assert_true(fabs(dot(d, w + i * d, w + i * d) / (double)d - 1) < 4 * (double)FLT_EPSILON);
            free(w);
        }
    }
}

/* Squared norms are chi-squared with d degrees: mean d, variance 2d; within five standard errors. The
 * variance of a sample variance: (mu4 - mu2^2)/n with mu4 = 12 d (d + 4). */
static void chi_norms(void **state)
{
    (void)state;
    for (int64_t d = 1; d <= 16; d *= 4) {
        int64_t n = 20000;
        float *w = draw(FV_PROJECTION_ORTHOGONAL, FV_ROW_NORMS_CHI, n, d, 7, 0, 0);
        double mean = 0, variance = 0, x = (double)d;
        for (int64_t i = 0; i < n; i++) {
            double s = dot(d, w + i * d, w + i * d);
            mean += s / (double)n;
            variance += (s - x) * (s - x) / (double)n;
        }
        assert_true(fabs(mean - x) < 5 * sqrt(2 * x / (double)n));
        assert_true(fabs(variance - 2 * x) < 5 * sqrt((12 * x * (x + 4) - 4 * x * x) / (double)n));
        free(w);
    }
}

/* Directions come from a stream of their own: the same whatever the norms. */
static void norms_do_not_move_directions(void **state)
{
    (void)state;
    int64_t m = 20, d = 8;
    for (int kind = FV_PROJECTION_IID; kind <= FV_PROJECTION_SIMPLEX; kind++) {
        float *a = draw((fv_projection)kind, FV_ROW_NORMS_CHI, m, d, 8, 1, 2);
        float *b = draw((fv_projection)kind, FV_ROW_NORMS_SQRT_D, m, d, 8, 1, 2);
        for (int64_t i = 0; i < m; i++) {
            double along = dot(d, a + i * d, b + i * d);
            double lengths = dot(d, a + i * d, a + i * d) * dot(d, b + i * d, b + i * d);
            assert_true(fabs(along / sqrt(lengths) - 1) < 4 * (double)FLT_EPSILON);
        }
        free(a);
        free(b);
    }
}

/* Every entry has mean 0 and variance 1, every two entries of a row covariance 0, in every row of the block:
 * the marginals are N(0, I). A QR that fixes signs by itself moves the means of the diagonal. */
static void marginals_of(fv_projection projection)
{
    enum { D = 3, N = 20000 };
    double mean[D * D] = {0}, square[D * D] = {0}, fourth = 0, cross = 0;
    for (uint32_t n = 0; n < N; n++) {
        float *w = draw(projection, FV_ROW_NORMS_CHI, D, D, 9, n, 0);
        for (int i = 0; i < D * D; i++) {
            double x = (double)w[i];
            mean[i] += x / N;
            square[i] += x * x / N;
            fourth += x * x * x * x / (N * D * D);
            cross += i % D > 0 ? x * (double)w[i - 1] / N : 0;
        }
        free(w);
    }
    for (int i = 0; i < D * D; i++) {
        assert_true(fabs(mean[i]) < 5 / sqrt(N));
        assert_true(fabs(square[i] - 1) < 5 * sqrt(2.0 / N));
    }
    assert_true(fabs(fourth - 3) < 5 * sqrt(96.0 / N));
    assert_true(fabs(cross) < 5 * sqrt(6.0 / N));
}

static void marginals(void **state)
{
    (void)state;
    marginals_of(FV_PROJECTION_ORTHOGONAL);
    marginals_of(FV_PROJECTION_SIMPLEX);
}

/* Different seeds, redraws and heads: no correlation between the matrices. */
static void streams_are_independent(void **state)
{
    static const struct {
        uint64_t seed;
        uint32_t redraw, head;
    } streams[] = {{1, 0, 0}, {2, 0, 0}, {1ull << 32 | 1, 0, 0}, {1, 1, 0}, {1, 0, 1}, {1, 1, 1},
                   {1, 2, 0}, {0, 0, 0}};
    float *w[FV_COUNT(streams)];
    int64_t m = 64, d = 16;
    (void)state;
    for (int kind = FV_PROJECTION_IID; kind <= FV_PROJECTION_SIMPLEX; kind++) {
        for (int i = 0; i < FV_COUNT(streams); i++) {
            w[i] = draw((fv_projection)kind, FV_ROW_NORMS_CHI, m, d, streams[i].seed, streams[i].redraw,
                        streams[i].head);
            for (int j = 0; j < i; j++)
                assert_true(fabs(dot(m * d, w[i], w[j])) < 5 * sqrt((double)(m * d)));
        }
        for (int i = 0; i < FV_COUNT(streams); i++)
            free(w[i]);
    }
}

/* The same arguments give the same bits, and more rows begin with the same rows. */
static void a_pure_function(void **state)
{
    (void)state;
    for (int kind = FV_PROJECTION_IID; kind <= FV_PROJECTION_SIMPLEX; kind++) {
        float *a = draw((fv_projection)kind, FV_ROW_NORMS_CHI, 30, 8, 3, 4, 5);
        float *other = draw((fv_projection)kind, FV_ROW_NORMS_CHI, 30, 8, 3, 4, 6);
        float *b = draw((fv_projection)kind, FV_ROW_NORMS_CHI, 30, 8, 3, 4, 5);
        float *fewer = draw((fv_projection)kind, FV_ROW_NORMS_CHI, 11, 8, 3, 4, 5);
        assert_memory_equal(a, b, 30 * 8 * sizeof *a);
        assert_memory_equal(a, fewer, 11 * 8 * sizeof *a);
        assert_memory_not_equal(a, other, 8 * sizeof *a);
        free(a);
        free(b);
        free(other);
        free(fewer);
    }
}

/* Checkpoints hold a seed and a draw, not the matrix: the numbers stay what they are. */
static void recorded_values(void **state)
{
    static const float expected[] = {-1.54045761f,  -0.589951932f, -2.05878544f,  0.652691603f,
                                     -0.065610148f, -0.469566613f, 0.0813311338f, -1.18440318f,
                                     0.278539866f,  -0.765633404f, -0.133923799f, -1.07929695f};
    (void)state;
    float *w = draw(FV_PROJECTION_ORTHOGONAL, FV_ROW_NORMS_CHI, 4, 3, 2024, 1, 2);
    for (int i = 0; i < FV_COUNT(expected); i++)
        assert_true(fabsf(w[i] - expected[i]) <= 4 * FLT_EPSILON * fabsf(expected[i]));
    free(w);
}

static void unknown_kinds_are_refused(void **state)
{
    float w[4];
    double work[4];
    (void)state;
    assert_false(fv_projection_draw(FV_PROJECTION_NONE, FV_ROW_NORMS_CHI, 2, 2, 1, 0, 0, w, work));
    assert_false(fv_projection_draw(FV_PROJECTION_DEFAULT, FV_ROW_NORMS_CHI, 2, 2, 1, 0, 0, w, work));
    assert_false(fv_projection_draw(FV_PROJECTION_IID, 7, 2, 2, 1, 0, 0, w, work));
    assert_false(fv_projection_draw(FV_PROJECTION_HADAMARD, FV_ROW_NORMS_CHI, 1, 3, 1, 0, 0, w, work));
    for (int kind = FV_PROJECTION_ORTHOGONAL; kind <= FV_PROJECTION_SIMPLEX; kind++)
        assert_int_equal(fv_projection_work(kind, INT64_MAX, INT64_MAX), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_a_block_have_their_angles),
        cmocka_unit_test(givens_mixes_as_its_law_says),
        cmocka_unit_test(hadamard_is_the_product_of_its_factors),
        cmocka_unit_test(blocks_are_not_copies),
        cmocka_unit_test(fixed_norms),
        cmocka_unit_test(chi_norms),
        cmocka_unit_test(norms_do_not_move_directions),
        cmocka_unit_test(marginals),
        cmocka_unit_test(streams_are_independent),
        cmocka_unit_test(a_pure_function),
        cmocka_unit_test(recorded_values),
        cmocka_unit_test(unknown_kinds_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
