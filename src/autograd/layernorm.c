/* layernorm.c: y = (x - mean) / sqrt(var + eps) gain + bias over the channels of a row (Ba et al. 2016).
 *
 * Saves mean and 1/sqrt(var + eps) of each row; the output is computed again from x when backward wants it. Of an x kept
 * in bf16 forward reads its rounding as well, so that both are the same.
 * The gradients of gain and bias are sums over all rows: each block of rows sums its own, then the blocks
 * are added in order, so that they do not depend on the number of threads.
 */
#include "autograd/product.h"

typedef struct norm_job {
    const fv_kernels *kernels;
    int64_t rows, cols;
    float eps;
    const float *x, *gain, *bias;
    float *y, *stats;
    bool rounds; /* x to bf16 */
    fv_rounded from;
    uint16_t *keep; /* x in bf16; NULL: not wanted */
    /* backward */
    const float *dy;
    float *dx, *partial; /* partial [blocks][2][cols]: gain, bias */
    float *rows_of_x;    /* [threads][FV_ROW_BLOCK][cols], rounded */
    bool fresh;
} norm_job;

static norm_job make_job(fv_tape *tape, const fv_node *node)
{
    const fv_value *x = fv_tape_value(tape, node->input[0]);
    return (norm_job){.kernels = tape->ctx->kernels,
                      .rows = x->rows,
                      .cols = x->cols,
                      .eps = node->as.layernorm.eps,
                      .x = fv_tape_data(tape, node->input[0]),
                      .rounds = fv_tape_halves(tape, node->input[0]),
                      .from = fv_tape_rounded(tape, node->input[0]),
                      .gain = fv_tape_parameter(tape, node->as.layernorm.gain),
                      .bias = fv_tape_parameter(tape, node->as.layernorm.bias),
                      .stats = fv_tape_block(tape, node->saved)};
}

static void norm_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const norm_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK, n = FV_MIN(FV_ROW_BLOCK, job->rows - row), first = row * job->cols;
    float *y = job->y + first;
    if (job->keep != NULL)
        job->kernels->round_bf16(n * job->cols, job->x + first, job->keep + first, y);
    else if (job->rounds)
        fv_rounded_take(&job->from, first, n * job->cols, y);
    job->kernels->layernorm(n, job->cols, job->eps, job->rounds ? y : job->x + first, job->gain, job->bias, y,
                            job->stats != NULL ? job->stats + 2 * row : NULL);
}

static void norm_forward(fv_tape *tape, fv_node *node)
{
    float *y = fv_tape_output(tape, node);
    if (tape->saving)
        node->saved = fv_tape_take(tape, 2 * fv_tape_value(tape, node->input[0])->rows);
    norm_job job = make_job(tape, node);
    job.keep = fv_tape_keep(tape, node->input[0]);
    job.y = y;
    fv_tape_parallel(tape, fv_row_blocks(job.rows), norm_rows, &job);
}

static void norm_recompute(fv_tape *tape, fv_node *node)
{
    norm_job job = make_job(tape, node);
    job.y = fv_tape_output(tape, node);
    fv_tape_parallel(tape, fv_row_blocks(job.rows), norm_rows, &job);
}

/* Rows of x from `first` on, as forward read them. */
static const float *rows_read(const norm_job *job, int64_t first, int64_t n, int worker)
{
    if (!job->rounds)
        return job->x + first;
    float *x = job->rows_of_x + worker * FV_ROW_BLOCK * job->cols;
    fv_rounded_take(&job->from, first, n * job->cols, x);
    return x;
}

static void norm_rows_back(void *arg, int64_t index, int worker)
{
    const norm_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK, n = FV_MIN(FV_ROW_BLOCK, job->rows - row), first = row * job->cols;
    float *partial = job->partial + index * 2 * job->cols;
    job->kernels->fill(2 * job->cols, 0.0f, partial);
    if (job->fresh)
        job->kernels->fill(n * job->cols, 0.0f, job->dx + first);
    job->kernels->layernorm_back(n, job->cols, rows_read(job, first, n, worker), job->gain,
                                 job->stats + 2 * row, job->dy + first, job->dx + first, partial,
                                 partial + job->cols);
}

static void norm_backward(fv_tape *tape, fv_node *node)
{
    norm_job job = make_job(tape, node);
    int64_t blocks = fv_row_blocks(job.rows), cols = job.cols;
    fv_block partial = fv_tape_take(tape, blocks * 2 * cols);
    fv_block rows = {0};
    if (job.rounds)
        rows = fv_tape_take(tape, fv_context_threads(tape->ctx) * FV_ROW_BLOCK * cols);
    job.partial = fv_tape_block(tape, partial);
    job.rows_of_x = fv_tape_block(tape, rows);
    job.dy = fv_tape_block(tape, fv_tape_value(tape, node->output)->gradient);
    job.dx = fv_tape_gradient(tape, node->input[0], &job.fresh);
    fv_tape_parallel(tape, blocks, norm_rows_back, &job);
    fv_tape_column_sums(tape, blocks, cols, job.partial, 2 * cols,
                        fv_tape_parameter_gradient(tape, node->as.layernorm.gain));
    const float *bias_partial = job.partial != NULL ? job.partial + cols : NULL;
    fv_tape_column_sums(tape, blocks, cols, bias_partial, 2 * cols,
                        fv_tape_parameter_gradient(tape, node->as.layernorm.bias));
    fv_tape_give(tape, &rows);
    fv_tape_give(tape, &partial);
    fv_tape_done(tape, node->input[0]);
}

static const fv_op op_layernorm = {.name = "layernorm",
                                   .reads = 1,
                                   .halves = 1,
                                   .saves = true,
                                   .forward = norm_forward,
                                   .recompute = norm_recompute,
                                   .backward = norm_backward};

int fv_tape_layernorm(fv_tape *tape, int x, int64_t gain, int64_t bias, float eps)
{
    const fv_value *in = fv_tape_value(tape, x);
    fv_node *node = fv_tape_record(tape, &op_layernorm, x, -1, in->rows, in->cols);
    node->as.layernorm.gain = gain;
    node->as.layernorm.bias = bias;
    node->as.layernorm.eps = eps;
    return node->output;
}
