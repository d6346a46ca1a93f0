/* sequence_mean.c: y[s] = the mean of the rows of sequence s, 0 of an empty one.
 *
 *     dx[t] = dy[s] / n_s for every row t of s
 *
 * A sequence is summed in the order of its rows, a few columns a task, so that its bits depend on nothing else.
 */
#include "autograd/tape.h"

enum { TASK_COLS = 64 };

typedef struct mean_job {
    const fv_kernels *kernels;
    const int64_t *offsets;
    int64_t sequences, cols, across; /* tasks a sequence */
    const float *x;
    float *y;
    bool fresh;
} mean_job;

static mean_job make_job(const fv_tape *tape, const fv_node *node)
{
    const fv_value *out = &tape->values[node->output];
    return (mean_job){.kernels = tape->ctx->kernels,
                      .offsets = node->as.sequence_mean.offsets,
                      .sequences = out->rows,
                      .cols = out->cols,
                      .across = (out->cols + TASK_COLS - 1) / TASK_COLS};
}

static void sum_sequence(void *arg, int64_t index, int worker)
{
    (void)worker;
    const mean_job *job = arg;
    int64_t s = index / job->across, col = index % job->across * TASK_COLS;
    int64_t cols = FV_MIN(TASK_COLS, job->cols - col), begin = job->offsets[s];
    int64_t n = job->offsets[s + 1] - begin;
    float *y = job->y + s * job->cols + col;
    job->kernels->fill(cols, 0.0f, y);
    job->kernels->add_col_sums(n, cols, NULL, job->x + begin * job->cols + col, job->cols, y);
    if (n > 0)
        job->kernels->scale(cols, 1.0f / (float)n, y, y);
}

static void mean_forward(fv_tape *tape, fv_node *node)
{
    float *y = fv_tape_output(tape, node);
    mean_job job = make_job(tape, node);
    job.x = fv_tape_data(tape, node->input[0]);
    job.y = y;
    fv_tape_parallel(tape, job.sequences * job.across, sum_sequence, &job);
}

static void spread_sequence(void *arg, int64_t index, int worker)
{
    (void)worker;
    const mean_job *job = arg;
    int64_t s = index, begin = job->offsets[s], n = job->offsets[s + 1] - begin;
    const float *dy = job->x + s * job->cols;
    float *dx = job->y + begin * job->cols;
    if (job->fresh)
        job->kernels->fill(n * job->cols, 0.0f, dx);
    for (int64_t t = 0; t < n; t++)
        job->kernels->axpy(job->cols, 1.0f / (float)n, dy, dx + t * job->cols);
}

static void mean_backward(fv_tape *tape, fv_node *node)
{
    mean_job job = make_job(tape, node);
    job.x = fv_tape_block(tape, fv_tape_value(tape, node->output)->gradient);
    job.y = fv_tape_gradient(tape, node->input[0], &job.fresh);
    fv_tape_parallel(tape, job.sequences, spread_sequence, &job);
}

static const fv_op op_sequence_mean = {
    .name = "sequence mean", .forward = mean_forward, .backward = mean_backward};

int fv_tape_sequence_mean(fv_tape *tape, int x, int64_t sequences, const int64_t *offsets)
{
    fv_node *node = fv_tape_record(tape, &op_sequence_mean, x, -1, sequences, fv_tape_value(tape, x)->cols);
    node->as.sequence_mean.offsets = offsets;
    return node->output;
}
