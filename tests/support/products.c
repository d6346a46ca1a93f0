/* support/products.c: checks of matrix products. Tolerance: abs(err) <= C eps m, m = |alpha| |A| |B| + |beta| |C|. */
#include "support/products.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "support/guarded.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TOLERANCE = 8, PAD = 3 };

typedef struct product {
    bool bf16; /* factors are rounded first */
    char ta, tb;
    int64_t m, n, k;
    float alpha, beta;
    int64_t lda, ldb, ldc;
    float *a, *b, *c;
} product;

static int64_t floats(int64_t rows, int64_t columns, int64_t ld)
{
    return rows > 0 && columns > 0 ? (rows - 1) * ld + columns : 0;
}

static int64_t a_floats(const product *p)
{
    return p->ta == 'N' ? floats(p->m, p->k, p->lda) : floats(p->k, p->m, p->lda);
}

static int64_t b_floats(const product *p)
{
    return p->tb == 'N' ? floats(p->k, p->n, p->ldb) : floats(p->n, p->k, p->ldb);
}

static void lead(product *p)
{
    p->lda = (p->ta == 'N' ? p->k : p->m) + PAD;
    p->ldb = (p->tb == 'N' ? p->n : p->k) + PAD;
    p->ldc = p->n + PAD;
}

static void random_floats(fv_random *random, int64_t n, float *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)fv_random_normal(random);
}

static double at(bool bf16, char t, const float *a, int64_t lda, int64_t row, int64_t column)
{
    float x = t == 'N' ? a[row * lda + column] : a[column * lda + row];
    if (bf16) {
        uint16_t half;
        fv_f32_to_bf16_reference(1, &x, &half);
        fv_bf16_to_f32_reference(1, &half, &x);
    }
    return (double)x;
}

static void multiply(gemm_function *gemm, const product *p)
{
    gemm(p->ta, p->tb, p->m, p->n, p->k, p->alpha, p->a, p->lda, p->b, p->ldb, p->beta, p->c, p->ldc);
}

static void check_product(const product *p, const float *before)
{
    for (int64_t i = 0; i < p->m; i++) {
        for (int64_t j = 0; j < p->ldc && i * p->ldc + j < floats(p->m, p->n, p->ldc); j++) {
            float got = p->c[i * p->ldc + j], old = before[i * p->ldc + j];
            if (j >= p->n) {
                assert_memory_equal(&got, &old, sizeof got);
                continue;
            }
            double sum = 0.0, m = 0.0;
            for (int64_t l = 0; l < p->k; l++) {
                double term = at(p->bf16, p->ta, p->a, p->lda, i, l) * at(p->bf16, p->tb, p->b, p->ldb, l, j);
                sum += term;
                m += fabs(term);
            }
            double kept = p->beta == 0.0f ? 0.0 : (double)p->beta * (double)old;
            double want = (double)p->alpha * sum + kept;
            m = fabs((double)p->alpha) * m + fabs(kept);
            if (!(fabs((double)got - want) <= TOLERANCE * (double)FLT_EPSILON * m))
                fail_msg("gemm%s %c%c %lld x %lld x %lld alpha %g beta %g: c[%lld][%lld] = %.9g, want %.9g",
                         p->bf16 ? "_bf16" : "", p->ta, p->tb, (long long)p->m, (long long)p->n,
                         (long long)p->k, (double)p->alpha, (double)p->beta, (long long)i, (long long)j,
                         (double)got, want);
        }
    }
}

typedef struct rooms {
    guarded a, b, c;
    float *before;
} rooms;

static void check_one(gemm_function *gemm, rooms *r, product p, uint32_t seed)
{
    fv_random random = fv_random_make(seed, FV_RANDOM_TEST, 3, 4);
    size_t a_bytes = (size_t)a_floats(&p) * 4, b_bytes = (size_t)b_floats(&p) * 4;
    int64_t c_count = floats(p.m, p.n, p.ldc);
    p.a = guarded_place(&r->a, a_bytes, 0, 0);
    p.b = guarded_place(&r->b, b_bytes, 0, 0);
    p.c = guarded_place(&r->c, (size_t)c_count * 4, 0, 0);
    random_floats(&random, a_floats(&p), p.a);
    random_floats(&random, b_floats(&p), p.b);
    for (int64_t i = 0; i < c_count; i++)
        p.c[i] = p.beta == 0.0f ? NAN : (float)fv_random_normal(&random);
    if (c_count > 0)
        memcpy(r->before, p.c, (size_t)c_count * 4);
    multiply(gemm, &p);
    check_product(&p, r->before);
    assert_true(guarded_intact(&r->a, p.a, a_bytes) && guarded_intact(&r->b, p.b, b_bytes) &&
                guarded_intact(&r->c, p.c, (size_t)c_count * 4));
}

void products_check(gemm_function *gemm, bool bf16)
{
    static const int64_t sizes[][3] = {
        {0, 3, 2},   {3, 0, 2},      {3, 2, 0},     {1, 1, 1},    {1, 7, 5},    {7, 1, 5},
        {5, 7, 1},   {2, 3, 4},      {16, 16, 16},  {17, 15, 33}, {31, 64, 3},  {13, 80, 129},
        {65, 9, 67}, {128, 256, 64}, {171, 70, 30}, {9, 41, 300}, {400, 33, 9}, {20, 34, 1100}};
    static const float factors[][2] = {{1.0f, 0.0f}, {1.0f, 1.0f}, {-0.5f, 0.25f}};
    rooms r = {guarded_make(1 << 20), guarded_make(1 << 20), guarded_make(1 << 20), malloc(1 << 20)};
    uint32_t seed = 0;
    for (int size = 0; size < FV_COUNT(sizes); size++) {
        for (int f = 0; f < FV_COUNT(factors); f++) {
            for (int t = 0; t < 4; t++) {
                product p = {.bf16 = bf16, .ta = t & 1 ? 'T' : 'N', .tb = t & 2 ? 'T' : 'N'};
                p.m = sizes[size][0], p.n = sizes[size][1], p.k = sizes[size][2];
                p.alpha = factors[f][0], p.beta = factors[f][1];
                lead(&p);
                check_one(gemm, &r, p, seed++);
            }
        }
    }
    guarded_free(&r.a);
    guarded_free(&r.b);
    guarded_free(&r.c);
    free(r.before);
}

/* ---- bits ---- */

enum { WIDE_ROWS = 173, WIDE_COLUMNS = 75, WIDE_DEPTH = 300 };

static void multiply_parts(gemm_function *gemm, const product *p, int64_t rows, int64_t columns)
{
    for (int64_t i = 0; i < p->m; i += rows)
        for (int64_t j = 0; j < p->n; j += columns) {
            product part = *p;
            part.m = FV_MIN(rows, p->m - i);
            part.n = FV_MIN(columns, p->n - j);
            part.a += p->ta == 'N' ? i * p->lda : i;
            part.b += p->tb == 'N' ? j : j * p->ldb;
            part.c += i * p->ldc + j;
            multiply(gemm, &part);
        }
}

static void compare_parts(product p, gemm_function *first, gemm_function *second, const float *before)
{
    static const int64_t cuts[][2] = {{1, 20}, {40, 1}, {3, 5}, {8, 32}, {7, 48}, {160, 20}, {172, 74}};
    size_t bytes = (size_t)(p.m * p.ldc) * sizeof(float);
    float *whole = malloc(bytes), *part = malloc(bytes);
    p.c = memcpy(whole, before, bytes);
    multiply(first, &p);
    for (int i = 0; i < FV_COUNT(cuts); i++) {
        p.c = memcpy(part, before, bytes);
        multiply_parts(second, &p, cuts[i][0], cuts[i][1]);
        assert_memory_equal(part, whole, bytes);
    }
    free(whole);
    free(part);
}

void products_check_parts(gemm_function *first, gemm_function *second)
{
    enum {
        A = (WIDE_ROWS + PAD) * (WIDE_DEPTH + PAD),
        B = (WIDE_COLUMNS + PAD) * (WIDE_DEPTH + PAD),
        C = WIDE_ROWS * (WIDE_COLUMNS + PAD)
    };
    float *a = malloc(A * sizeof *a), *b = malloc(B * sizeof *b), *before = malloc(C * sizeof *before);
    fv_random random = fv_random_make(2, FV_RANDOM_TEST, 5, 6);
    random_floats(&random, A, a);
    random_floats(&random, B, b);
    random_floats(&random, C, before);
    for (int t = 0; t < 4; t++) {
        product p = {.ta = t & 1 ? 'T' : 'N', .tb = t & 2 ? 'T' : 'N', .a = a, .b = b};
        p.m = WIDE_ROWS, p.n = WIDE_COLUMNS, p.k = WIDE_DEPTH;
        p.alpha = 0.7f, p.beta = t & 1 ? 1.0f : 0.3f;
        lead(&p);
        compare_parts(p, first, second, before);
    }
    free(a);
    free(b);
    free(before);
}
