/* test_kernels_amx.c: products of bf16 by tile registers, on processors without them: the algorithm on tile registers in plain C,
 * anywhere, and the compiled kernel where AVX512-BF16 is, its AMX instructions carried out by the processor or by the same plain
 * C. Both give the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "support/gemm_tiles.h"
#include "support/products.h"
#include "support/tiles.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- the registers in plain C ---- */

static uint16_t bf16(float x)
{
    uint16_t half;
    fv_f32_to_bf16_reference(1, &x, &half);
    return half;
}

/* 1 row of 2 pairs times 2 pairs of 1 column, where each rule of the instruction decides a bit. */
static float dot(const float a[4], const float b[4], float sum)
{
    const uint8_t shapes[64] = {[0] = 1, [16] = 4, [18] = 8, [20] = 4, [48] = 1, [49] = 1, [50] = 2};
    uint16_t left[4], right[4];
    for (int i = 0; i < 4; i++)
        left[i] = bf16(a[i]), right[i] = bf16(b[i]);
    tile_configure(shapes);
    tile_load(0, &sum, 4);
    tile_load(1, left, 8);
    tile_load(2, right, 4);
    tile_dot(0, 1, 2);
    tile_store(0, &sum, 4);
    tile_release();
    return sum;
}

static void test_registers(void **state)
{
    (void)state;
    const float ones[] = {1, 1, 1, 1};
    /* The order: (even terms) + (odd terms), then the old sum. */
    assert_true(dot((float[]){0x1p24f, 1, 1, -0x1p24f}, ones, 0) == 0.0f + (0x1p24f + (1 - 0x1p24f)));
    assert_true(dot((float[]){0x1p24f, 1, -0x1p24f, 1}, ones, 0) == 2.0f);
    assert_true(dot((float[]){1, 0, 0, 0}, ones, 0x1p24f) == 0x1p24f);
    assert_true(dot((float[]){1, 1, 0, 0}, ones, 0x1p24f) == 0x1p24f + 2);
    /* One rounding a term, to even: 255 * 255 + 2^24 = 2^24 + 65025. */
    assert_true(dot((float[]){0x1p12f, 0, 255, 0}, (float[]){0x1p12f, 0, 255, 0}, 0) == 0x1p24f + 65024);
    /* Numbers below the normal ones are 0: factors, terms, old and new sums. */
    assert_true(dot((float[]){FLT_MIN / 2, 0, 0, 0}, (float[]){0x1p100f, 0, 0, 0}, 0) == 0.0f);
    assert_true(dot((float[]){0x1p-64f, 0, 0x1p-64f, 0}, (float[]){0x1p-63f, 0, 0x1p-63f, 0}, 0) == 0.0f);
    assert_true(dot((float[]){0, 0, 0, 0}, ones, FLT_MIN / 2) == 0.0f);
    assert_true(dot((float[]){-FLT_MIN, 0, 0, 0}, ones, 1.5f * FLT_MIN) == 0.0f);
}

/* ---- the algorithm ---- */

static void test_products(void **state)
{
    (void)state;
    products_check(gemm_tiles, true);
}

static void test_parts(void **state)
{
    (void)state;
    products_check_parts(gemm_tiles, gemm_tiles);
}

/* Padding is 0, whatever the buffers held: numbers that are not finite stay in their row or column. */
static void test_padding(void **state)
{
    (void)state;
    enum { M = 40, N = 37, K = 70 };
    static float a[M * K], b[K * N], c[M * N];
    for (int t = 0; t < 4; t++) {
        char ta = t & 1 ? 'T' : 'N', tb = t & 2 ? 'T' : 'N';
        for (int i = 0; i < M * K; i++)
            a[i] = NAN;
        for (int i = 0; i < K * N; i++)
            b[i] = NAN;
        gemm_tiles(ta, tb, M, N, K, 1.0f, a, ta == 'N' ? K : M, b, tb == 'N' ? N : K, 0.0f, c, N);
        const int m = 19, n = 18, k = 5;
        for (int i = 0; i < M * K; i++)
            a[i] = 1.0f;
        for (int i = 0; i < K * N; i++)
            b[i] = 1.0f;
        a[ta == 'N' ? 7 * K + 4 : 4 * M + 7] = INFINITY;
        b[tb == 'N' ? 3 * N + 9 : 9 * K + 3] = NAN;
        gemm_tiles(ta, tb, m, n, k, 1.0f, a, ta == 'N' ? K : M, b, tb == 'N' ? N : K, 0.0f, c, N);
        for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++)
                assert_true(j == 9 ? isnan(c[i * N + j]) : c[i * N + j] == (i == 7 ? INFINITY : (float)k));
    }
}

/* ---- the compiled kernel ---- */

static void test_compiled(void **state)
{
    (void)state;
    const unsigned needed = FV_CPU_AVX2 | FV_CPU_AVX512 | FV_CPU_AVX512_BF16;
    fv_kernels without, amx;
    fv_kernels_fill(&without, needed);
    fv_kernels_fill(&amx, needed | FV_CPU_AMX);
    bool native = (fv_cpu_flags() & FV_CPU_AMX) != 0;
    if ((fv_cpu_flags() & needed) != needed || amx.gemm_bf16 == without.gemm_bf16 ||
        (!native && !tile_traps_begin())) {
        print_message("no AVX512-BF16, no compiler for AMX, or no Linux\n");
        skip();
    }
    products_check(amx.gemm_bf16, true);
    products_check_parts(gemm_tiles, amx.gemm_bf16);
    if (!native)
        tile_traps_end();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_registers), cmocka_unit_test(test_products), cmocka_unit_test(test_parts),
        cmocka_unit_test(test_padding),   cmocka_unit_test(test_compiled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
