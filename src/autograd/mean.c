/* mean.c: y = (a + b) / 2: where the two streams of reversible layers meet. The gradient of each is dy / 2,
 * one block for both. */
#include "autograd/tape.h"

typedef struct mean_job {
    const fv_kernels *kernels;
    int64_t rows, cols;
    const float *a, *b; /* b NULL: none */
    float *y;
} mean_job;

static void mean_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const mean_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK, first = row * job->cols;
    int64_t n = FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols;
    const float *sum = job->a + first;
    float *y = job->y + first;
    if (job->b != NULL) {
        job->kernels->add(n, sum, job->b + first, y);
        sum = y;
    }
    job->kernels->scale(n, 0.5f, sum, y);
}

static void mean_forward(fv_tape *tape, fv_node *node)
{
    const fv_value *out = fv_tape_value(tape, node->output);
    mean_job job = {tape->ctx->kernels,
                    out->rows,
                    out->cols,
                    fv_tape_data(tape, node->input[0]),
                    fv_tape_data(tape, node->input[1]),
                    fv_tape_output(tape, node)};
    fv_tape_parallel(tape, fv_row_blocks(job.rows), mean_rows, &job);
}

static void mean_backward(fv_tape *tape, fv_node *node)
{
    bool fresh;
    float *dy = fv_tape_gradient(tape, node->output, &fresh); /* its own, even if others held it */
    const fv_value *out = fv_tape_value(tape, node->output);
    mean_job job = {tape->ctx->kernels, out->rows, out->cols, dy, NULL, dy};
    fv_tape_parallel(tape, fv_row_blocks(job.rows), mean_rows, &job);
    for (int k = 0; k < 2; k++)
        fv_tape_move_gradient(tape, out->gradient, node->input[k]);
}

static const fv_op op_mean = {.name = "mean", .forward = mean_forward, .backward = mean_backward};

int fv_tape_mean(fv_tape *tape, int a, int b)
{
    const fv_value *in = fv_tape_value(tape, a);
    return fv_tape_record(tape, &op_mean, a, b, in->rows, in->cols)->output;
}
