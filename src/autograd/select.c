/* select.c: some rows of a matrix: y[i] = x[ids[i]], each row at most once. */
#include "autograd/tape.h"

typedef struct select_job {
    const fv_kernels *kernels;
    int64_t rows, cols; /* of the matrix the task walks */
    const int32_t *ids;
    const float *x;
    float *y;
} select_job;

static void gather(void *arg, int64_t index, int worker)
{
    (void)worker;
    const select_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK;
    job->kernels->gather_rows(FV_MIN(FV_ROW_BLOCK, job->rows - row), job->cols, job->ids + row, job->x,
                              job->y + row * job->cols);
}

static void scatter(void *arg, int64_t index, int worker)
{
    (void)worker;
    const select_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK;
    job->kernels->scatter_add_rows(FV_MIN(FV_ROW_BLOCK, job->rows - row), job->cols, job->ids + row,
                                   job->x + row * job->cols, job->y);
}

static void clear(void *arg, int64_t index, int worker)
{
    (void)worker;
    const select_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK;
    job->kernels->fill(FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols, 0.0f, job->y + row * job->cols);
}

static void select_forward(fv_tape *tape, fv_node *node)
{
    const fv_value *out = fv_tape_value(tape, node->output);
    select_job job = {tape->ctx->kernels,
                      out->rows,
                      out->cols,
                      node->as.select.ids,
                      fv_tape_data(tape, node->input[0]),
                      fv_tape_output(tape, node)};
    fv_tape_parallel(tape, fv_row_blocks(job.rows), gather, &job);
}

static void select_backward(fv_tape *tape, fv_node *node)
{
    const fv_value *x = fv_tape_value(tape, node->input[0]), *out = fv_tape_value(tape, node->output);
    bool fresh;
    float *dx = fv_tape_gradient(tape, node->input[0], &fresh);
    select_job zero = {tape->ctx->kernels, x->rows, x->cols, NULL, NULL, dx};
    if (fresh)
        fv_tape_parallel(tape, fv_row_blocks(x->rows), clear, &zero);
    select_job add = {tape->ctx->kernels,
                      out->rows,
                      out->cols,
                      node->as.select.ids,
                      fv_tape_block(tape, out->gradient),
                      dx};
    fv_tape_parallel(tape, fv_row_blocks(out->rows), scatter, &add);
}

static const fv_op op_select = {.name = "select", .forward = select_forward, .backward = select_backward};

int fv_tape_select(fv_tape *tape, int x, const int32_t *ids, int64_t n)
{
    fv_node *node = fv_tape_record(tape, &op_select, x, -1, n, fv_tape_value(tape, x)->cols);
    node->as.select.ids = ids;
    return node->output;
}
