/* support/problem.h: one attention call with its tensors, for tests: made from options and lengths with
 * random inputs, run through the public interface, compared with the specification. */
#ifndef PROBLEM_H
#define PROBLEM_H

#include "support/spec.h"

/* What a test asks for. Lengths of 0 are sequences without tokens. */
typedef struct problem_shape {
    int64_t sequences;
    const int64_t *queries, *keys; /* lengths; keys NULL: as queries */
    int64_t pad;                   /* floats between token rows */
    double spread;                 /* standard deviation of q and k; 0: 1 */
    uint64_t seed;
} problem_shape;

typedef struct problem {
    fv_context *ctx;
    fv_attention *op;
    fv_attention_info info;
    fv_layout layout;
    int64_t *offsets_q, *offsets_k, tq, tk, pad;
    fv_memory need;
    float *q, *k, *v, *y, *dy, *dq, *dk, *dv;
    float *w; /* all drawn inputs, behind each other */
    float *input[FV_INPUT_COUNT],
        *d_input[FV_INPUT_COUNT]; /* the other ones; gradients of all that have one */
    int64_t input_floats[FV_INPUT_COUNT];
    void *saved, *scratch;
} problem;

/* A context of a kernel set (NULL: the best) and a number of threads. */
fv_context *problem_context(const char *cpu, int threads);
/* Fails the running test when something goes wrong. */
problem *problem_make(fv_context *ctx, const fv_attention_options *options, const problem_shape *shape);
void problem_free(problem *p);
fv_attention_io problem_io(const problem *p);
void problem_forward(problem *p, bool keep);
void problem_backward(problem *p); /* gradients from 0 */

/* Floats of one token row of q, k, v, y, and from row to row. */
int64_t problem_row_q(const problem *p);
int64_t problem_row_k(const problem *p);
int64_t problem_row_v(const problem *p);
int64_t problem_row_y(const problem *p);

/* The worst |err| / (eps m) seen; start from {0}. */
typedef struct worst {
    double ratio, got, want, m;
    int64_t index;
} worst;
void worst_update(worst *w, double got, double want, double m, int64_t index);
/* Fails the test when w->ratio > c, saying what and where. */
void worst_check(const worst *w, double c, const char *what, const problem *p);

/* y against the specification. */
worst problem_check_forward(const problem *p);
/* y against one value, with the magnitudes of the specification. */
worst problem_check_constant(const problem *p, double value);
/* Row i of the normalised matrix of head h by the specification, [Tk]. */
void problem_spec_row(const problem *p, int64_t h, int64_t i, num *row);
/* Gradients of q, k, v and all inputs against it: `sample` random directions of each, and two
 * entries alone when sample > 1. */
worst problem_check_gradients(const problem *p, int64_t sample);
/* Every row of the implied matrix against it. */
worst problem_check_rows(const problem *p);
/* The sums in a state of the problem's tokens against it. */
worst problem_check_state(const problem *p, const fv_state_view *view);

#endif
