/* support/tape_bench.h: a bench for one operation of the tape: given inputs, given dy. Include cmocka's headers
 * first. */
#ifndef FV_TESTS_TAPE_BENCH_H
#define FV_TESTS_TAPE_BENCH_H

#include "autograd/tape.h"

enum { BENCH_MOST = 1 << 16, BENCH_PARAMETERS = 4096, BENCH_INPUTS = 2 };

typedef struct tape_bench {
    fv_context *ctx;
    fv_tape tape;
    void *lists, *memory;
    float parameters[BENCH_PARAMETERS], gradients[BENCH_PARAMETERS];
    float y[BENCH_MOST], dy[BENCH_MOST]; /* of the operation's output */
    struct {
        const float *values;
        float gradient[BENCH_MOST];
    } inputs[BENCH_INPUTS];
    int input_count;
} tape_bench;
extern tape_bench bench;

/* Group setup and teardown: parameters and dy are normal numbers. */
int bench_setup(void **state);
int bench_teardown(void **state);

/* Measures what `record` records, then runs it forward and backward on exactly that much memory. record takes
 * its inputs from bench_input and hands its output to bench_end; then bench.y, bench.gradients and
 * bench.inputs[].gradient hold what came out. */
void bench_play(void (*record)(void *arg), void *arg);
int bench_input(int64_t rows, int64_t cols, const float *values); /* a value of the tape */
void bench_end(int output);

/* abs(got - expected) <= 8 eps magnitude */
void assert_near(double got, double expected, double magnitude, const char *what);

#endif
