/* bench/kernels.c: the speed of every kernel on one thread: nanoseconds of a call, GB/s of the arrays it goes
 * over, elements a nanosecond, and how many times the scalar reference.
 *
 *     bench_kernels [name]     only kernels whose name contains `name`
 *
 * Rows of n x c = 128 x 256 floats, a tile of attention, which the second-level cache holds. A line is the
 * best of several rounds: other work on the machine only ever slows a round down. */
#include "kernels/kernels.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { N = 128, COLS = 256, TOTAL = N * COLS, ARRAYS = 5, ROUNDS = 15 };

typedef struct memory {
    float *x[ARRAYS], *rows[4], *columns[3];
    int32_t ids[N];
    int64_t visible[N];
    uint16_t *half;
} memory;

/* Every round starts from the same values where a kernel works in place. */
static void refill(memory *m)
{
    fv_random random = fv_random_make(1, FV_RANDOM_BENCH, 0, 0);
    for (int a = 0; a < ARRAYS; a++)
        for (int64_t i = 0; i < TOTAL; i++)
            m->x[a][i] = (float)(fv_random_uniform(&random) - (a == 4 ? 0.0 : 0.5));
    for (int a = 0; a < 4; a++)
        for (int64_t i = 0; i < N * 2; i++)
            m->rows[a][i] = (float)fv_random_uniform(&random);
    for (int a = 0; a < 3; a++)
        for (int64_t i = 0; i < COLS; i++)
            m->columns[a][i] = (float)fv_random_uniform(&random);
    for (int64_t i = 0; i < N; i++) {
        m->ids[i] = (int32_t)(i * 37 % N);
        m->visible[i] = i * 2;
    }
}

#define BENCH(name, ...)                                                                                     \
    static void bench_##name(const fv_kernels *k, memory *m)                                                 \
    {                                                                                                        \
        (void)k->name(__VA_ARGS__);                                                                          \
    }

#define X m->x
#define R m->rows
#define K m->columns
static const uint32_t key[2] = {1, 2}, high[2] = {3, 4};

BENCH(gemm, 'N', 'N', N, COLS, 64, 1.0f, X[0], 64, X[1], COLS, 0.0f, X[2], COLS)
BENCH(gemm_bf16, 'N', 'N', N, COLS, 64, 1.0f, X[0], 64, X[1], COLS, 0.0f, X[2], COLS)
BENCH(gemv, 'N', N, COLS, 1.0f, X[0], COLS, K[0], 0.0f, R[0])
BENCH(few_rows, 2, N, COLS, X[1], COLS, X[0], COLS, 0.0f, R[0], N)
BENCH(few_rows_bf16, 2, N, COLS, X[1], COLS, m->half, COLS, 0.0f, R[0], N)
BENCH(fill, TOTAL, 1.0f, X[0])
BENCH(copy_rows, N, COLS, X[0], COLS, X[1], COLS)
BENCH(scale, TOTAL, 0.5f, X[0], X[1])
BENCH(axpy, TOTAL, 0.5f, X[0], X[1])
BENCH(add, TOTAL, X[0], X[1], X[2])
BENCH(mul_add, TOTAL, X[0], X[1], X[2])
BENCH(mul, TOTAL, X[0], X[1], X[2])
BENCH(scale_rows, N, COLS, R[0], X[0], COLS, 0, X[1], COLS)
BENCH(row_dots, N, COLS, 1.0f, X[0], COLS, K[0], 0, 0.0f, R[0])
BENCH(add_col_sums, N, COLS, R[0], X[0], COLS, K[0])
BENCH(add_col_max, N, COLS, R[0], X[0], COLS, K[0])
BENCH(add_outer, N, COLS, R[0], K[0], X[0], COLS)
BENCH(max_abs, TOTAL, X[0])
BENCH(within, TOTAL, 0.0f, 1.0f, X[0])
BENCH(sum_squares, TOTAL, X[0])
BENCH(sum, TOTAL, X[0])
BENCH(all_finite, N, COLS, X[0], COLS)
BENCH(finite_rows, N, COLS, X[0], COLS, X[1], COLS)
BENCH(exp2_rows_top, N, COLS, X[0], COLS, K[0], R[0])
BENCH(exp2_rows, N, COLS, X[0], COLS, R[0], K[0])
BENCH(split, TOTAL, 0.0f, X[0], X[1], X[2])
BENCH(function_rows, FV_FUNCTION_TANH, N, COLS, 1e-3f, X[0], COLS, X[1], COLS)
BENCH(function_rows_back, FV_FUNCTION_TANH, N, COLS, 1e-3f, X[0], COLS, X[1], COLS, X[2], COLS)
BENCH(softmax_tile, N, COLS, X[0], COLS, NULL, R[0], R[1], R[2])
BENCH(softmax_end, N, R[0], R[1], R[2], R[3])
BENCH(softmax_probs, N, COLS, X[0], COLS, NULL, R[0])
BENCH(softmax_back, N, COLS, X[0], COLS, X[1], COLS, R[0], X[2], COLS)
BENCH(mask_rows, N, COLS, m->visible, X[0], COLS)
BENCH(layernorm, N, COLS, 1e-5f, X[0], K[0], K[1], X[1], R[0])
BENCH(layernorm_back, N, COLS, X[0], K[0], R[0], X[1], X[2], K[1], K[2])
BENCH(bias_rows, N, COLS, X[0], K[0], X[1])
BENCH(bias_gelu, N, COLS, X[0], K[0], X[1], X[2])
BENCH(gelu_back, TOTAL, X[0], X[1], X[2])
BENCH(bias_relu, N, COLS, X[0], K[0], X[1], X[2])
BENCH(relu_back, TOTAL, X[0], X[1], X[2])
BENCH(dropout, TOTAL, 0.1f, key, high, 0, X[0], 0, X[1])
BENCH(cross_entropy, N, COLS, X[0], m->ids, 1.0f, R[0], m->ids, X[1])
BENCH(gather_rows, N, COLS, m->ids, X[0], X[1])
BENCH(scatter_add_rows, N, COLS, m->ids, X[0], X[1])
BENCH(adamw, TOTAL, 1e-3f, 0.9f, 0.99f, 1e-8f, 0.01f, 1.0f, 0.1f, 0.01f, X[0], X[1], X[2], X[4])
BENCH(f32_to_bf16, TOTAL, X[0], m->half)
BENCH(bf16_to_f32, TOTAL, m->half, X[0])
BENCH(round_bf16, TOTAL, X[0], m->half, X[1])
BENCH(fft_split, 1, N, 4, COLS / 2, X[1], X[0], COLS)
BENCH(fft_join, 1, N, 4, COLS / 2, X[1], X[0], COLS)
BENCH(fft_filter, N, COLS / 2, R[0], R[1], 0, X[0], COLS, 0, X[1], COLS)
BENCH(fft_correlate, N, COLS / 2, X[0], COLS, X[1], COLS, R[0], R[1])
BENCH(turn_rows, N, COLS / 2, K[0], K[1], 0, X[0], COLS, 0, X[1], COLS)
BENCH(walsh, N, COLS, R[0], X[0], COLS, X[1], COLS)
BENCH(unit_rows, N, COLS, X[0], COLS, X[1], COLS, R[0])
BENCH(unit_rows_back, N, COLS, X[0], COLS, R[0], X[1], COLS, X[2], COLS)
BENCH(power_rows, N, COLS, 0.75f, K[0], X[0], COLS, X[1], COLS)
BENCH(power_rows_back, N, COLS, 0.75f, K[0], X[0], COLS, X[1], COLS, X[2], COLS, R[0], K[1])

/* Elements and bytes of a call, by which speed is told; arrays in the first-level cache do not count. */
static const struct {
    const char *name;
    void (*run)(const fv_kernels *k, memory *m);
    double elements, bytes;
} rows[] = {
#define ROW(name, arrays)                                                                                    \
    {                                                                                                        \
#name, bench_##name, TOTAL, (arrays)*4.0 * TOTAL                                                     \
    }
    {"gemm", bench_gemm, 2.0 * N *COLS * 64, 4.0 * (N * 64 + 64 * COLS + TOTAL)},
    {"gemm_bf16", bench_gemm_bf16, 2.0 * N *COLS * 64, 4.0 * (N * 64 + 64 * COLS + TOTAL)},
    ROW(gemv, 1),
    ROW(few_rows, 1),
    {"few_rows_bf16", bench_few_rows_bf16, TOTAL, 2.0 * TOTAL},
    ROW(fill, 1),
    ROW(copy_rows, 2),
    ROW(scale, 2),
    ROW(axpy, 3),
    ROW(add, 3),
    ROW(mul_add, 4),
    ROW(mul, 3),
    ROW(scale_rows, 2),
    ROW(row_dots, 1),
    ROW(add_col_sums, 1),
    ROW(add_col_max, 1),
    ROW(add_outer, 2),
    ROW(max_abs, 1),
    ROW(within, 1),
    ROW(sum_squares, 1),
    ROW(sum, 1),
    ROW(all_finite, 1),
    ROW(finite_rows, 2),
    ROW(exp2_rows_top, 2),
    ROW(exp2_rows, 2),
    ROW(split, 4),
    ROW(function_rows, 2),
    ROW(function_rows_back, 3),
    ROW(softmax_tile, 2),
    {"softmax_end", bench_softmax_end, N, 16.0 * N},
    ROW(softmax_probs, 2),
    ROW(softmax_back, 3),
    {"mask_rows", bench_mask_rows, TOTAL / 2.0, 2.0 * TOTAL},
    ROW(layernorm, 2),
    ROW(layernorm_back, 4),
    ROW(bias_rows, 2),
    ROW(bias_gelu, 3),
    ROW(gelu_back, 3),
    ROW(bias_relu, 3),
    ROW(relu_back, 3),
    ROW(dropout, 2),
    ROW(cross_entropy, 2),
    ROW(gather_rows, 2),
    ROW(scatter_add_rows, 3),
    ROW(adamw, 7),
    ROW(f32_to_bf16, 1.5),
    ROW(bf16_to_f32, 1.5),
    ROW(round_bf16, 2.5),
    ROW(fft_split, 2),
    ROW(fft_join, 2),
    ROW(fft_filter, 2),
    ROW(fft_correlate, 2),
    ROW(turn_rows, 2),
    ROW(walsh, 2),
    ROW(unit_rows, 2),
    ROW(unit_rows_back, 3),
    ROW(power_rows, 2),
    ROW(power_rows_back, 3),
};

/* Nanoseconds of a call: the best of ROUNDS rounds of about 0.3 ms. */
static double measure(const fv_kernels *k, int row, memory *m)
{
    double best = 1e30;
    int64_t calls = 1;
    for (int round = 0; round < ROUNDS; round++) {
        refill(m);
        rows[row].run(k, m);
        double begin = fv_now();
        for (int64_t i = 0; i < calls; i++)
            rows[row].run(k, m);
        double each = 1e9 * (fv_now() - begin) / (double)calls;
        best = FV_MIN(best, each);
        calls = FV_MAX((int64_t)(3e5 / best), 1);
    }
    return best;
}

/* Whether the kernel of these flags is that set's, not one of a lower set. */
static bool is_from(unsigned flags, const char *kernel, const char *set)
{
    const char *name, *origin;
    for (int i = 0; (origin = fv_kernels_origin(flags, i, &name)) != NULL; i++)
        if (strcmp(name, kernel) == 0)
            return strcmp(origin, set) == 0;
    return false;
}

static void *room(size_t bytes)
{
    void *block = aligned_alloc(FV_ALIGN, bytes);
    if (block == NULL)
        exit(1);
    memset(block, 0, bytes);
    return block;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        unsigned flags;
    } sets[] = {{"avx2", FV_CPU_AVX2},
                {"avx512", FV_CPU_AVX2 | FV_CPU_AVX512},
                {"avx512_bf16", FV_CPU_AVX2 | FV_CPU_AVX512 | FV_CPU_AVX512_BF16},
                {"amx", FV_CPU_AVX2 | FV_CPU_AVX512 | FV_CPU_AVX512_BF16 | FV_CPU_AMX},
                {"neon", FV_CPU_NEON}};
    omp_set_num_threads(1); /* the GEMM provider's, outside a parallel region */
    memory m;
    for (int a = 0; a < ARRAYS; a++)
        m.x[a] = room(TOTAL * sizeof(float));
    for (int a = 0; a < 4; a++)
        m.rows[a] = room(2 * N * sizeof(float));
    for (int a = 0; a < 3; a++)
        m.columns[a] = room(COLS * sizeof(float));
    m.half = room(TOTAL * sizeof(uint16_t));
    fv_kernels reference, kernels;
    fv_kernels_fill(&reference, 0);
    printf("%-18s %-11s %10s %8s %8s %7s\n", "kernel", "set", "ns", "GB/s", "elem/ns", "x ref");
    for (int row = 0; row < FV_COUNT(rows); row++) {
        if (argc > 1 && strstr(rows[row].name, argv[1]) == NULL)
            continue;
        double base = measure(&reference, row, &m);
        printf("%-18s %-11s %10.0f\n", rows[row].name, "reference", base);
        for (int s = 0; s < FV_COUNT(sets); s++) {
            if ((sets[s].flags & ~fv_cpu_flags()) != 0 ||
                !is_from(sets[s].flags, rows[row].name, sets[s].name))
                continue;
            fv_kernels_fill(&kernels, sets[s].flags);
            double ns = measure(&kernels, row, &m);
            printf("%-18s %-11s %10.0f %8.1f %8.2f %7.1f\n", "", sets[s].name, ns, rows[row].bytes / ns,
                   rows[row].elements / ns, base / ns);
        }
    }
    for (int a = 0; a < ARRAYS; a++)
        free(m.x[a]);
    for (int a = 0; a < 4; a++)
        free(m.rows[a]);
    for (int a = 0; a < 3; a++)
        free(m.columns[a]);
    free(m.half);
    return 0;
}
