/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "support/tape_bench.h"
#include "support/tiny_model.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

tape_bench bench;

/* An input: its values are given, its gradient is kept. reads_output: its block is not handed on. */
static void input_forward(fv_tape *tape, fv_node *node)
{
    float *y = fv_tape_output(tape, node);
    const fv_value *v = fv_tape_value(tape, node->output);
    if (fv_tape_running(tape))
        memcpy(y, bench.inputs[node->as.dropout.site].values, (size_t)(v->rows * v->cols) * sizeof *y);
}

static void input_backward(fv_tape *tape, fv_node *node)
{
    const fv_value *v = fv_tape_value(tape, node->output);
    if (fv_tape_running(tape))
        memcpy(bench.inputs[node->as.dropout.site].gradient, fv_tape_block(tape, v->gradient),
               (size_t)(v->rows * v->cols) * sizeof(float));
}

/* The end: keeps y and sends dy back. */
static void sink_forward(fv_tape *tape, fv_node *node)
{
    const fv_value *v = fv_tape_value(tape, node->input[0]);
    if (fv_tape_running(tape))
        memcpy(bench.y, fv_tape_data(tape, node->input[0]), (size_t)(v->rows * v->cols) * sizeof(float));
}

static void sink_backward(fv_tape *tape, fv_node *node)
{
    bool fresh;
    const fv_value *v = fv_tape_value(tape, node->input[0]);
    float *gradient = fv_tape_gradient(tape, node->input[0], &fresh);
    if (fv_tape_running(tape))
        memcpy(gradient, bench.dy, (size_t)(v->rows * v->cols) * sizeof(float));
}

static const fv_op op_input = {
    .name = "input", .reads_output = true, .forward = input_forward, .backward = input_backward};
static const fv_op op_sink = {.name = "sink", .forward = sink_forward, .backward = sink_backward};

int bench_input(int64_t rows, int64_t cols, const float *values)
{
    int number = bench.input_count++;
    fv_node *node = fv_tape_record(&bench.tape, &op_input, -1, -1, rows, cols);
    node->as.dropout.site = (uint32_t)number;
    bench.inputs[number].values = values;
    return node->output;
}

int bench_setup(void **state)
{
    (void)state;
    enum { NODES = 32 };
    bench.ctx = tiny_context(2);
    fv_arena arena = fv_arena_measure();
    fv_tape_layout(&bench.tape, bench.ctx, NODES, &arena);
    bench.lists = malloc(arena.used);
    arena = fv_arena_over(bench.lists, arena.used);
    fv_tape_layout(&bench.tape, bench.ctx, NODES, &arena);
    tiny_normals(1, 1, bench.dy, BENCH_MOST);
    tiny_normals(2, 0.5, bench.parameters, FV_COUNT(bench.parameters));
    return 0;
}

int bench_teardown(void **state)
{
    (void)state;
    free(bench.lists);
    fv_context_destroy(bench.ctx);
    return 0;
}

/* Measures what `record` records, then runs it on exactly that much memory. */
void bench_play(void (*record)(void *arg), void *arg)
{
    for (int pass = 0; pass < 2; pass++) {
        size_t bytes = bench.tape.pool.peak;
        if (pass == 1)
            assert_int_equal(posix_memalign(&bench.memory, 64, bytes), 0);
        fv_tape_reset(&bench.tape, true, pass == 1 ? bench.memory : NULL, pass == 1 ? bytes : 0);
        bench.tape.parameters = pass == 1 ? bench.parameters : NULL;
        bench.tape.gradients = pass == 1 ? bench.gradients : NULL;
        bench.input_count = 0;
        memset(bench.gradients, 0, sizeof bench.gradients);
        record(arg);
        if (pass == 1)
            memset(bench.memory, 0xff, bytes); /* NaN: nothing may read what nobody wrote */
        OK(fv_tape_forward(&bench.tape));
        OK(fv_tape_backward(&bench.tape));
        if (pass == 1)
            assert_int_equal(bench.tape.pool.peak, bytes);
        assert_int_equal(bench.tape.pool.count, 0);
    }
    free(bench.memory);
}

void bench_end(int output)
{
    fv_tape_record(&bench.tape, &op_sink, output, -1, 0, 0);
}

void assert_near(double got, double expected, double magnitude, const char *what)
{
    if (!(fabs(got - expected) <= 8 * (double)FLT_EPSILON * magnitude))
        fail_msg("%s: %.9g, expected %.9g, magnitude %g", what, got, expected, magnitude);
}
