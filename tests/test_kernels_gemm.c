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
#include "support/products.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct sweep {
    gemm_function *gemm;
    bool bf16;
} sweep;

/* One task, as the library calls GEMM: single-threaded. */
static void sweep_task(void *arg, int64_t index, int worker)
{
    (void)index, (void)worker;
    const sweep *s = arg;
    products_check(s->gemm, s->bf16);
}

static const char *const vector_sets[] = {"avx2", "avx512", "avx512_bf16", "amx", "neon"};

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
    sweep sweeps[] = {{ctx->kernels->gemm, false}, {ctx->kernels->gemm_bf16, true}};
    for (int i = 0; i < FV_COUNT(sweeps); i++)
        fv_parallel(ctx, 1, sweep_task, &sweeps[i]);
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

static void random_floats(fv_random *random, int64_t n, float *x)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)fv_random_normal(random);
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

static fv_kernels kernels_of(const char *cpu)
{
    fv_context *ctx = NULL;
    fv_context_options options;
    fv_context_options_init(&options);
    options.cpu = cpu;
    assert_int_equal(fv_context_create(&ctx, &options), FV_OK);
    fv_kernels kernels = *ctx->kernels;
    fv_context_destroy(ctx);
    return kernels;
}

static void test_parts(void **state)
{
    (void)state;
    gemm_function *first = NULL;
    for (int s = 0; s < FV_COUNT(vector_sets); s++) {
        if (!has_set(vector_sets[s]))
            continue;
        fv_kernels kernels = kernels_of(vector_sets[s]);
        if (first == NULL)
            first = kernels.gemm;
        products_check_parts(first, kernels.gemm); /* vector sets agree on gemm in every bit */
        products_check_parts(kernels.gemm_bf16, kernels.gemm_bf16);
    }
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
