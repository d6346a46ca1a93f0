/* test_tape_half.c: operations of the tape in bf16, to the bit: each does in floats what it does with its inputs rounded, and its
 * backward reads what forward read. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "support/tape_bench.h"
#include "support/tiny_model.h"
#include <math.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { ROWS = 70, IN = 13, OUT = 600 / IN, BIAS = IN * OUT };

static float x[ROWS * IN], rounded[ROWS * IN];

static void round_all(int64_t n, const float *from, float *to)
{
    uint16_t half;
    for (int64_t i = 0; i < n; i++) {
        fv_f32_to_bf16_reference(1, from + i, &half);
        fv_bf16_to_f32_reference(1, &half, to + i);
    }
}

static int setup(void **state)
{
    if (bench_setup(state) != 0)
        return -1;
    tiny_normals(3, 1, x, FV_COUNT(x));
    round_all(FV_COUNT(x), x, rounded);
    return fv_context_set_dtype(bench.ctx, "bf16") == FV_OK ? 0 : -1;
}

static void record_norm(void *arg)
{
    bench_end(fv_tape_layernorm(&bench.tape, bench_input(ROWS, IN, arg), 0, IN, 1e-5f));
}

/* There is no product in it: bf16 of x is floats of the rounded x. */
static void test_norm_reads_rounded(void **state)
{
    (void)state;
    static tape_bench half, plain;
    bench_play(record_norm, x);
    half = bench;
    OK(fv_context_set_dtype(bench.ctx, "f32"));
    bench_play(record_norm, x);
    assert_memory_not_equal(bench.y, half.y, sizeof x);
    bench_play(record_norm, rounded);
    plain = bench;
    OK(fv_context_set_dtype(bench.ctx, "bf16"));
    assert_memory_equal(plain.y, half.y, sizeof x);
    assert_memory_equal(plain.inputs[0].gradient, half.inputs[0].gradient, sizeof x);
    assert_memory_equal(plain.gradients, half.gradients, sizeof plain.gradients);
}

static fv_activation activation;

static void record_linear(void *arg)
{
    bench_end(fv_tape_linear(&bench.tape, bench_input(ROWS, IN, arg), OUT, 0, BIAS, activation));
}

/* y = 1/(1 + exp(-u)), du = dy y (1 - y): gates are of floats. */
static void gate(const float *u, float *y, float *du)
{
    for (int i = 0; i < ROWS * OUT; i++) {
        double g = 1.0 / (1.0 + exp(-(double)u[i]));
        y[i] = (float)g;
        du[i] = (float)((double)bench.dy[i] * g * (1.0 - g));
    }
}

/* The weights' gradient is the one that floats would give, as products round their factors anyway; an activation is that of a rounded
 * pre-activation, and so is its slope. */
static void test_linear_rounds(void **state)
{
    (void)state;
    const fv_kernels *k = bench.ctx->kernels;
    static float u[ROWS * OUT], y[ROWS * OUT], du[ROWS * OUT], dw[IN * OUT];
    for (int a = FV_ACTIVATION_NONE; a <= FV_ACTIVATION_SIGMOID; a++) {
        activation = (fv_activation)a;
        bench_play(record_linear, x);
        k->gemm('N', 'T', ROWS, OUT, IN, 1, x, IN, bench.parameters, IN, 0, u, OUT);
        k->bias_rows(ROWS, OUT, u, bench.parameters + BIAS, u);
        memcpy(y, u, sizeof y), memcpy(du, bench.dy, sizeof du);
        if (a == FV_ACTIVATION_GELU || a == FV_ACTIVATION_RELU)
            round_all(FV_COUNT(u), u, u);
        if (a == FV_ACTIVATION_GELU)
            k->bias_gelu(ROWS, OUT, u, NULL, NULL, y), k->gelu_back(ROWS * OUT, u, bench.dy, du);
        else if (a == FV_ACTIVATION_RELU)
            k->bias_relu(ROWS, OUT, u, NULL, NULL, y), k->relu_back(ROWS * OUT, u, bench.dy, du);
        else if (a == FV_ACTIVATION_SIGMOID)
            gate(u, y, du);
        assert_memory_equal(bench.y, y, sizeof y);
        k->gemm('T', 'N', OUT, IN, ROWS, 1, du, OUT, x, IN, 0, dw, IN);
        assert_memory_equal(bench.gradients, dw, sizeof dw);
    }
}

static float first[ROWS * IN], second[ROWS * IN];

static void record_two(void *arg)
{
    fv_tape *tape = &bench.tape;
    int a = fv_tape_linear(tape, bench_input(ROWS, IN, arg), IN, 0, -1, FV_ACTIVATION_NONE);
    int b = fv_tape_linear(tape, a, IN, IN * IN, -1, FV_ACTIVATION_NONE);
    fv_tape_place(tape, a, first);
    fv_tape_place(tape, b, second);
    bench_end(b);
}

/* A product that some backward reads is bf16 in forward too, one that only a stream takes keeps its floats. */
static void test_what_backward_reads(void **state)
{
    (void)state;
    static float again[ROWS * IN];
    bench_play(record_two, x);
    round_all(FV_COUNT(first), first, again);
    assert_memory_equal(first, again, sizeof first);
    round_all(FV_COUNT(second), second, again);
    assert_memory_not_equal(second, again, sizeof second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_norm_reads_rounded),
        cmocka_unit_test(test_linear_rounds),
        cmocka_unit_test(test_what_backward_reads),
    };
    return cmocka_run_group_tests(tests, setup, bench_teardown);
}
