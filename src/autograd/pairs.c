/* pairs.c: what a head that compares two sequences sees: rows u = x[2i] and v = x[2i+1] become
 *
 *     y[i] = [u, v, u v, u - v];   du = dy_1 + v dy_3 + dy_4,   dv = dy_2 + u dy_3 - dy_4
 */
#include "autograd/tape.h"

typedef struct pairs_job {
    const fv_kernels *kernels;
    int64_t cols;
    const float *x, *dy;
    float *y, *dx;
    bool fresh;
} pairs_job;

static void join_pair(void *arg, int64_t index, int worker)
{
    (void)worker;
    const pairs_job *job = arg;
    const fv_kernels *k = job->kernels;
    int64_t n = job->cols;
    const float *u = job->x + 2 * index * n, *v = u + n;
    float *y = job->y + 4 * index * n;
    k->copy_rows(1, 2 * n, u, 2 * n, y, 2 * n); /* u and v stand one behind the other */
    k->mul(n, u, v, y + 2 * n);
    k->copy_rows(1, n, u, n, y + 3 * n, n);
    k->axpy(n, -1.0f, v, y + 3 * n);
}

static void pairs_forward(fv_tape *tape, fv_node *node)
{
    pairs_job job = {.kernels = tape->ctx->kernels,
                     .cols = fv_tape_value(tape, node->input[0])->cols,
                     .x = fv_tape_data(tape, node->input[0]),
                     .y = fv_tape_output(tape, node)};
    fv_tape_parallel(tape, fv_tape_value(tape, node->output)->rows, join_pair, &job);
}

static void part_pair(void *arg, int64_t index, int worker)
{
    (void)worker;
    const pairs_job *job = arg;
    const fv_kernels *k = job->kernels;
    int64_t n = job->cols;
    const float *u = job->x + 2 * index * n, *v = u + n, *dy = job->dy + 4 * index * n;
    float *du = job->dx + 2 * index * n, *dv = du + n;
    if (job->fresh)
        k->fill(2 * n, 0.0f, du);
    k->axpy(2 * n, 1.0f, dy, du);
    k->mul_add(n, v, dy + 2 * n, du);
    k->mul_add(n, u, dy + 2 * n, dv);
    k->axpy(n, 1.0f, dy + 3 * n, du);
    k->axpy(n, -1.0f, dy + 3 * n, dv);
}

static void pairs_backward(fv_tape *tape, fv_node *node)
{
    const fv_value *out = fv_tape_value(tape, node->output);
    pairs_job job = {.kernels = tape->ctx->kernels,
                     .cols = fv_tape_value(tape, node->input[0])->cols,
                     .x = fv_tape_read(tape, node->input[0]),
                     .dy = fv_tape_block(tape, out->gradient)};
    job.dx = fv_tape_gradient(tape, node->input[0], &job.fresh);
    fv_tape_parallel(tape, out->rows, part_pair, &job);
    fv_tape_done(tape, node->input[0]);
}

static const fv_op op_pairs = {
    .name = "pairs", .reads = 1, .forward = pairs_forward, .backward = pairs_backward};

int fv_tape_pairs(fv_tape *tape, int x)
{
    const fv_value *in = fv_tape_value(tape, x);
    return fv_tape_record(tape, &op_pairs, x, -1, in->rows / 2, 4 * in->cols)->output;
}
