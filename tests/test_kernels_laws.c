/* test_kernels_laws.c: what the kernels promise beside agreement with the reference: the accuracy of their
 * functions in units of the last place, results that do not depend on neighbours, and a counting table that
 * counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "support/counting.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    unsigned flags;
} sets[] = {{"avx2", FV_CPU_AVX2}, {"avx512", FV_CPU_AVX2 | FV_CPU_AVX512}, {"neon", FV_CPU_NEON}};

static void each_set(void (*check)(const fv_kernels *kernels))
{
    for (int s = 0; s < FV_COUNT(sets); s++) {
        if ((sets[s].flags & ~fv_cpu_flags()) != 0)
            continue;
        fv_kernels kernels;
        fv_kernels_fill(&kernels, sets[s].flags);
        check(&kernels);
    }
}

/* |got - want| in units of the last place of want as a float32. */
static double ulps(float got, double want)
{
    int exponent;
    frexp(want, &exponent);
    return fabs((double)got - want) / ldexp(1.0, FV_MAX(exponent, FLT_MIN_EXP) - FLT_MANT_DIG);
}

enum { BATCH = 4096 };

/* Every 509th float32 of [-126, 128): 1 unit in the last place as vec/math.h says. */
static void check_exp2(const fv_kernels *k)
{
    static float x[BATCH], y[BATCH];
    const float zeros[BATCH] = {0};
    double worst = 0.0;
    for (int sign = 0; sign < 2; sign++) {
        uint32_t bits = 0, last = sign ? 0x42fc0000 : 0x42ffffff; /* 126, 128 */
        while (bits <= last) {
            for (int i = 0; i < BATCH; i++, bits = FV_MIN(bits + 509, last + 1)) {
                uint32_t pattern = FV_MIN(bits, last) | (uint32_t)sign << 31;
                memcpy(&x[i], &pattern, sizeof x[i]);
            }
            memcpy(y, x, sizeof y);
            (void)k->exp2_rows(1, BATCH, y, BATCH, zeros, zeros);
            for (int i = 0; i < BATCH; i++)
                worst = FV_MAX(worst, ulps(y[i], exp2((double)x[i])));
        }
    }
    print_message("exp2: %.2f ulp\n", worst);
    assert_true(worst <= 1.0);
}

static void test_exp2_accuracy(void **state)
{
    (void)state;
    each_set(check_exp2);
}

static void check_exp2_limits(const fv_kernels *k)
{
    float x[] = {0.0f,   -0.0f,  1.0f,     -126.0f,   -126.00001f, 127.0f,
                 128.0f, 129.0f, INFINITY, -INFINITY, 1e30f,       NAN};
    const float want[] = {1.0f,     1.0f,     2.0f,     FLT_MIN, 0.0f,     0x1p127f,
                          INFINITY, INFINITY, INFINITY, 0.0f,    INFINITY, NAN};
    const float zeros[FV_COUNT(x)] = {0};
    float top = k->exp2_rows(1, FV_COUNT(x), x, FV_COUNT(x), zeros, zeros);
    assert_true(top == INFINITY);
    for (int i = 0; i < FV_COUNT(x); i++)
        assert_true(x[i] == want[i] || (isnan(x[i]) && isnan(want[i])));
}

static void test_exp2_limits(void **state)
{
    (void)state;
    each_set(check_exp2_limits);
}

/* GELU over [-6, 6]: 8 units of |u| (Phi(u) + Phi(-|u|) u^2 / 2); the second term is the rounding of u^2 / 2.
 */
static void check_gelu(const fv_kernels *k)
{
    static float x[BATCH], y[BATCH];
    double worst = 0.0;
    for (int part = 0; part < 64; part++) {
        for (int i = 0; i < BATCH; i++)
            x[i] = -6.0f + 12.0f * (float)(part * BATCH + i) / (64.0f * BATCH);
        k->bias_gelu(1, BATCH, x, NULL, NULL, y);
        for (int i = 0; i < BATCH; i++) {
            double u = (double)x[i], cdf = 0.5 * erfc(-u * sqrt(0.5)),
                   below = 0.5 * erfc(fabs(u) * sqrt(0.5));
            double m = fabs(u) * (cdf + below * 0.5 * u * u) + (double)FLT_MIN;
            worst = FV_MAX(worst, fabs((double)y[i] - u * cdf) / (m * (double)FLT_EPSILON));
        }
    }
    print_message("gelu: %.2f eps m\n", worst);
    assert_true(worst <= 4.0);
}

static void test_gelu_accuracy(void **state)
{
    (void)state;
    each_set(check_gelu);
}

/* A NaN whose payload sits in the lower half alone must not become infinity; rounding is to nearest even. */
static void check_bf16(const fv_kernels *k)
{
    const uint32_t bits[] = {0x7f800001, 0xff800001, 0x7f800000, 0x7f7fffff,
                             0x3f808000, 0x3f818000, 0x3f808001};
    const uint16_t want[] = {0x7fc0, 0xffc0, 0x7f80, 0x7f80, 0x3f80, 0x3f82, 0x3f81};
    float x[3 * FV_COUNT(bits)];
    uint16_t y[3 * FV_COUNT(bits)];
    for (int i = 0; i < FV_COUNT(x); i++)
        memcpy(&x[i], &bits[i % FV_COUNT(bits)], sizeof x[i]);
    k->f32_to_bf16(FV_COUNT(x), x, y);
    for (int i = 0; i < FV_COUNT(x); i++)
        assert_int_equal(y[i], want[i % FV_COUNT(bits)]);
}

static void test_bf16(void **state)
{
    (void)state;
    fv_kernels reference;
    fv_kernels_fill(&reference, 0);
    check_bf16(&reference);
    each_set(check_bf16);
}

/* ---- neighbours: a row alone, or followed by columns it does not see, has the same bits ---- */

enum { N = 13, WIDE_C = 211 };

static void random_rows(float *x)
{
    fv_random random = fv_random_make(9, FV_RANDOM_TEST, 0, 0);
    for (int64_t i = 0; i < N * WIDE_C; i++)
        x[i] = (float)fv_random_normal(&random);
}

static void check_rows_alone(const fv_kernels *k)
{
    static float x[N * WIDE_C], all[N * WIDE_C], one[N * WIDE_C];
    float top_all[N], top_one[N], sum_all[N], sum_one[N], factor[N];
    random_rows(x);
    memcpy(all, x, sizeof x);
    memcpy(one, x, sizeof x);
    k->exp2_rows_top(N, WIDE_C, all, WIDE_C, NULL, top_all);
    for (int64_t i = 0; i < N; i++)
        k->exp2_rows_top(1, WIDE_C, one + i * WIDE_C, WIDE_C, NULL, top_one + i);
    assert_memory_equal(all, one, sizeof all);
    assert_memory_equal(top_all, top_one, sizeof top_all);

    k->row_dots(N, WIDE_C, 1.0f, x, WIDE_C, x, 0, 0.0f, sum_all);
    for (int64_t i = 0; i < N; i++)
        k->row_dots(1, WIDE_C, 1.0f, x + i * WIDE_C, WIDE_C, x, WIDE_C, 0.0f, sum_one + i);
    assert_memory_equal(sum_all, sum_one, sizeof sum_all);

    /* Columns past the visible ones count for nothing, whatever they hold. */
    for (int64_t c = 0; c <= WIDE_C; c++) {
        int64_t visible[1] = {c};
        memcpy(all, x, sizeof x);
        memcpy(one, x, sizeof x);
        for (int64_t j = c; j < WIDE_C; j++)
            all[j] = j % 2 ? NAN : INFINITY;
        top_all[0] = top_one[0] = -0.5f;
        sum_all[0] = sum_one[0] = 1.5f;
        k->softmax_tile(1, WIDE_C, all, WIDE_C, visible, top_all, sum_all, factor);
        k->softmax_tile(1, c, one, WIDE_C, NULL, top_one, sum_one, factor + 1);
        assert_true(top_all[0] == top_one[0] && sum_all[0] == sum_one[0] && factor[0] == factor[1]);
        assert_memory_equal(all, one, (size_t)c * sizeof(float));
    }
}

static void test_rows_alone(void **state)
{
    (void)state;
    each_set(check_rows_alone);
}

/* What a call adds to z is the sum of its own rows, formed apart from z: running sums over many calls then
 * err by the number of calls, not of rows. */
static void check_column_sums(const fv_kernels *k)
{
    static float x[N * WIDE_C];
    float w[N], apart[WIDE_C] = {0}, onto[WIDE_C], start[WIDE_C];
    random_rows(x);
    memcpy(w, x + 5, sizeof w);
    memcpy(start, x + N, sizeof start);
    memcpy(onto, start, sizeof onto);
    k->add_col_sums(N, WIDE_C, w, x, WIDE_C, apart);
    k->add_col_sums(N, WIDE_C, w, x, WIDE_C, onto);
    for (int64_t c = 0; c < WIDE_C; c++) {
        float expected = start[c] + apart[c];
        assert_memory_equal(&expected, &onto[c], sizeof expected);
    }
}

static void test_column_sums_apart(void **state)
{
    (void)state;
    each_set(check_column_sums);
}

/* Dropout of a piece that begins at a block of the stream equals that piece of the whole. */
static void check_dropout_pieces(const fv_kernels *k)
{
    static float x[N * WIDE_C], all[N * WIDE_C], pieces[N * WIDE_C];
    const uint32_t key[2] = {1, 2}, high[2] = {3, 4};
    random_rows(x);
    k->dropout(N * WIDE_C, 0.3f, key, high, 10, x, 0, all);
    for (int64_t i = 0; i < N * WIDE_C; i += 52)
        k->dropout(FV_MIN(52, N * WIDE_C - i), 0.3f, key, high, 10 + (uint64_t)i / 4, x + i, 0, pieces + i);
    assert_memory_equal(all, pieces, sizeof all);
}

static void test_dropout_pieces(void **state)
{
    (void)state;
    each_set(check_dropout_pieces);
}

/* Sums of small whole numbers are exact: every set equals the definition, of any power of two of rows, in place or not. */
static void check_walsh(const fv_kernels *k)
{
    enum { MOST = 512, C = 19 };
    static float x[MOST * C], y[MOST * C], w[MOST];
    fv_random random = fv_random_make(5, FV_RANDOM_TEST, 0, 0);
    for (int64_t i = 0; i < MOST * C; i++)
        x[i] = (float)fv_random_below(&random, 17) - 8.0f;
    for (int64_t i = 0; i < MOST; i++)
        w[i] = (float)fv_random_below(&random, 2) * 4.0f - 2.0f;
    for (int64_t n = 1; n <= MOST; n *= 2) {
        k->walsh(n, C, w, x, C, y, C);
        for (int64_t i = 0; i < n; i++) {
            for (int64_t f = 0; f < C; f++) {
                double sum = 0;
                for (int64_t j = 0; j < n; j++)
                    sum += (__builtin_popcountll((unsigned long long)(i & j)) % 2 ? -1 : 1) * (double)w[j] *
                           (double)x[j * C + f];
                assert_true((double)y[i * C + f] == sum);
            }
        }
        k->walsh(n, C, w, x, C, x, C);
        assert_memory_equal(x, y, (size_t)(n * C) * sizeof *x);
        for (int64_t i = 0; i < n * C; i++)
            x[i] = (float)fv_random_below(&random, 17) - 8.0f;
    }
}

static void test_walsh_is_exact(void **state)
{
    (void)state;
    fv_kernels reference;
    fv_kernels_fill(&reference, 0);
    check_walsh(&reference);
    each_set(check_walsh);
}

/* ---- the counting table ---- */

static void test_counting_wraps_every_row(void **state)
{
    (void)state;
    fv_kernels base, table;
    fv_kernels_fill(&base, 0);
    counting_table(&table, &base);
    void (*below)(void), (*above)(void);
    const char *name;
    for (int row = 0; fv_kernels_origin(0, row, &name) != NULL; row++) {
        memcpy(&below, (const char *)&base + (size_t)row * sizeof below, sizeof below);
        memcpy(&above, (const char *)&table + (size_t)row * sizeof above, sizeof above);
        if (below == above)
            fail_msg("support/counting.c does not count %s", name);
    }
    float a[6] = {1, 2, 3, 4, 5, 6}, c[4];
    counting_reset();
    table.gemm('N', 'T', 2, 2, 3, 1.0f, a, 3, a, 3, 0.0f, c, 2);
    table.scale(4, 2.0f, c, c);
    assert_true(counting_work() == 2.0 * 2 * 2 * 3 + 4);
}

/* few_rows: every row of x alone, by every number of rows of a, gives the bits that it gives among others. */
static void check_few_rows(const fv_kernels *k)
{
    enum { X = 7, M = 19, K = 45, WIDE = 50 };
    static float x[X * WIDE], a[M * WIDE], all[X * M], part[M];
    for (int i = 0; i < X * WIDE; i++)
        x[i] = sinf((float)i * 1.7f);
    for (int i = 0; i < M * WIDE; i++)
        a[i] = cosf((float)i * 0.9f);
    for (int c = 0; c <= K; c++) {
        k->few_rows(X, M, c, x, WIDE, a, WIDE, 0.0f, all, M);
        for (int r = 0; r < X; r++) {
            for (int j = 0; j < M; j++) {
                double want = 0;
                for (int i = 0; i < c; i++)
                    want += (double)x[r * WIDE + i] * (double)a[j * WIDE + i];
                assert_true(fabs((double)all[r * M + j] - want) <=
                            (double)c * (double)c * (double)FLT_EPSILON);
            }
            for (int m = 1; m <= M; m++) {
                k->few_rows(1, m, c, x + r * WIDE, WIDE, a + (M - m) * WIDE, WIDE, 0.0f, part, m);
                assert_memory_equal(part, all + r * M + M - m, (size_t)m * sizeof *part);
            }
        }
    }
}

static void test_few_rows(void **state)
{
    (void)state;
    each_set(check_few_rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_few_rows),
        cmocka_unit_test(test_exp2_accuracy),
        cmocka_unit_test(test_exp2_limits),
        cmocka_unit_test(test_gelu_accuracy),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_rows_alone),
        cmocka_unit_test(test_column_sums_apart),
        cmocka_unit_test(test_dropout_pieces),
        cmocka_unit_test(test_walsh_is_exact),
        cmocka_unit_test(test_counting_wraps_every_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
