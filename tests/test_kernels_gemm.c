/* test_kernels_gemm.c: the GEMM row of every set against a product in double: odd sizes, all transposes,
 * padded leading dimensions, beta over NaN, empty sums; and that its bits depend neither on the number of
 * threads nor on alignment, on what is multiplied together, or (gemm) on the vector set. gemm_bf16 is held against the product of
 * the rounded factors. Tolerance: abs(err) <= C eps m, m = |alpha| |A| |B| + |beta| |C|. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "support/guarded.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
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

static void multiply(const fv_kernels *kernels, const product *p)
{
    if (p->bf16)
        kernels->gemm_bf16(p->ta, p->tb, p->m, p->n, p->k, p->alpha, p->a, p->lda, p->b, p->ldb, p->beta,
                           p->c, p->ldc);
    else
        kernels->gemm(p->ta, p->tb, p->m, p->n, p->k, p->alpha, p->a, p->lda, p->b, p->ldb, p->beta, p->c,
                      p->ldc);
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

static void check_one(const fv_kernels *kernels, rooms *r, product p, uint32_t seed)
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
    multiply(kernels, &p);
    check_product(&p, r->before);
    assert_true(guarded_intact(&r->a, p.a, a_bytes) && guarded_intact(&r->b, p.b, b_bytes) &&
                guarded_intact(&r->c, p.c, (size_t)c_count * 4));
}

typedef struct sweep {
    const fv_kernels *kernels;
} sweep;

/* One task, as the library calls GEMM: single-threaded. */
static void sweep_task(void *arg, int64_t index, int worker)
{
    (void)index, (void)worker;
    static const int64_t sizes[][3] = {
        {0, 3, 2},   {3, 0, 2},      {3, 2, 0},     {1, 1, 1},    {1, 7, 5},    {7, 1, 5},
        {5, 7, 1},   {2, 3, 4},      {16, 16, 16},  {17, 15, 33}, {31, 64, 3},  {13, 80, 129},
        {65, 9, 67}, {128, 256, 64}, {171, 70, 30}, {9, 41, 300}, {400, 33, 9}, {20, 34, 1100}};
    static const float factors[][2] = {{1.0f, 0.0f}, {1.0f, 1.0f}, {-0.5f, 0.25f}};
    const sweep *s = arg;
    rooms r = {guarded_make(1 << 20), guarded_make(1 << 20), guarded_make(1 << 20), malloc(1 << 20)};
    uint32_t seed = 0;
    for (int size = 0; size < FV_COUNT(sizes); size++) {
        for (int f = 0; f < FV_COUNT(factors); f++) {
            for (int t = 0; t < 8; t++) {
                product p = {.bf16 = t & 4, .ta = t & 1 ? 'T' : 'N', .tb = t & 2 ? 'T' : 'N'};
                p.m = sizes[size][0], p.n = sizes[size][1], p.k = sizes[size][2];
                p.alpha = factors[f][0], p.beta = factors[f][1];
                lead(&p);
                check_one(s->kernels, &r, p, seed++);
            }
        }
    }
    guarded_free(&r.a);
    guarded_free(&r.b);
    guarded_free(&r.c);
    free(r.before);
}

static const char *const vector_sets[] = {"avx2", "avx512", "avx512_bf16", "neon"};

static bool has_set(const char *name)
{
    char list[128], padded[64];
    snprintf(list, sizeof list, " %s ", fv_cpu_sets());
    snprintf(padded, sizeof padded, " %s ", name);
    return strstr(list, padded) != NULL;
}

static void check_cpu(const char *cpu)
{
    fv_context *ctx = NULL;
    fv_context_options options;
    fv_context_options_init(&options);
    options.cpu = cpu;
    options.threads = 1;
    assert_int_equal(fv_context_create(&ctx, &options), FV_OK);
    sweep s = {ctx->kernels};
    fv_parallel(ctx, 1, sweep_task, &s);
    fv_context_destroy(ctx);
}

static void test_reference(void **state)
{
    (void)state;
    check_cpu("reference");
}

static void test_sets(void **state)
{
    (void)state;
    check_cpu(NULL);
    for (int i = 0; i < FV_COUNT(vector_sets); i++)
        if (has_set(vector_sets[i]))
            check_cpu(vector_sets[i]);
}

/* ---- bits ---- */

enum { TILES = 6, ROWS = 96, COLUMNS = 80, DEPTH = 72 };

typedef struct tiles {
    const fv_kernels *kernels;
    const float *a, *b;
    float *c; /* [TILES][ROWS][COLUMNS] */
} tiles;

static void tile_task(void *arg, int64_t index, int worker)
{
    (void)worker;
    const tiles *t = arg;
    t->kernels->gemm('N', 'T', ROWS, COLUMNS, DEPTH, 1.0f, t->a + index * ROWS * DEPTH, DEPTH, t->b, DEPTH,
                     0.0f, t->c + index * ROWS * COLUMNS, COLUMNS);
}

static void run_tiles(int threads, const float *a, const float *b, float *c)
{
    fv_context *ctx = NULL;
    fv_context_options options;
    fv_context_options_init(&options);
    options.threads = threads;
    assert_int_equal(fv_context_create(&ctx, &options), FV_OK);
    tiles t = {ctx->kernels, a, b, c};
    fv_parallel(ctx, TILES, tile_task, &t);
    fv_context_destroy(ctx);
}

static void test_bits(void **state)
{
    (void)state;
    enum { A = TILES * ROWS * DEPTH, B = COLUMNS * DEPTH, RESULT = TILES * ROWS * COLUMNS };
    float *memory = aligned_alloc(FV_ALIGN, (A + B + 2 * RESULT + 64) * sizeof(float));
    float *a = memory, *b = a + A + 16, *first = b + B + 16, *c = first + RESULT + 16;
    fv_random random = fv_random_make(1, FV_RANDOM_TEST, 5, 6);
    random_floats(&random, A, a);
    random_floats(&random, B, b);
    run_tiles(1, a, b, first);
    for (int threads = 2; threads <= 4; threads++) {
        run_tiles(threads, a, b, c);
        assert_memory_equal(c, first, RESULT * sizeof(float));
    }
    for (int offset = 1; offset <= 3; offset++) {
        memmove(a + offset, a + offset - 1, A * sizeof(float));
        memmove(b + offset, b + offset - 1, B * sizeof(float));
        run_tiles(1, a + offset, b + offset, c + offset);
        assert_memory_equal(c + offset, first, RESULT * sizeof(float));
    }
    free(memory);
}

/* An element of C has the same bits in a product of all, and in one of its row and column alone. */
enum { WIDE_ROWS = 173, WIDE_COLUMNS = 75, WIDE_DEPTH = 300 };

static void multiply_parts(const char *cpu, const product *p, int64_t rows, int64_t columns)
{
    fv_context *ctx = NULL;
    fv_context_options options;
    fv_context_options_init(&options);
    options.cpu = cpu;
    assert_int_equal(fv_context_create(&ctx, &options), FV_OK);
    for (int64_t i = 0; i < p->m; i += rows)
        for (int64_t j = 0; j < p->n; j += columns) {
            product part = *p;
            part.m = FV_MIN(rows, p->m - i);
            part.n = FV_MIN(columns, p->n - j);
            part.a += p->ta == 'N' ? i * p->lda : i;
            part.b += p->tb == 'N' ? j : j * p->ldb;
            part.c += i * p->ldc + j;
            multiply(ctx->kernels, &part);
        }
    fv_context_destroy(ctx);
}

/* A whole product by `first`, parts of it by `second`. */
static void compare_parts(product p, const char *first, const char *second, const float *before)
{
    static const int64_t cuts[][2] = {{1, 1}, {3, 5}, {8, 32}, {7, 48}, {160, 20}, {172, 74}};
    size_t bytes = (size_t)(p.m * p.ldc) * sizeof(float);
    float *whole = malloc(bytes), *part = malloc(bytes);
    p.c = memcpy(whole, before, bytes);
    multiply_parts(first, &p, p.m, p.n);
    for (int i = 0; i < FV_COUNT(cuts); i++) {
        p.c = memcpy(part, before, bytes);
        multiply_parts(second, &p, cuts[i][0], cuts[i][1]);
        assert_memory_equal(part, whole, bytes);
    }
    free(whole);
    free(part);
}

static void test_parts(void **state)
{
    (void)state;
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
    const char *first = NULL;
    for (int t = 0; t < 8 * FV_COUNT(vector_sets); t++) {
        const char *set = vector_sets[t / 8];
        if (!has_set(set))
            continue;
        product p = {.bf16 = t & 4, .ta = t & 1 ? 'T' : 'N', .tb = t & 2 ? 'T' : 'N', .a = a, .b = b};
        p.m = WIDE_ROWS, p.n = WIDE_COLUMNS, p.k = WIDE_DEPTH;
        p.alpha = 0.7f, p.beta = t & 1 ? 1.0f : 0.3f;
        lead(&p);
        if (first == NULL)
            first = set;
        compare_parts(p, p.bf16 ? set : first, set, before); /* vector sets agree on gemm in every bit */
    }
    free(a);
    free(b);
    free(before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_sets),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
