/* residual.c: y = x + dropout(m), or y = dropout(m).
 *
 * Dropout keeps an element with probability 1 - rate and scales it by 1/(1 - rate) (Srivastava et al.
 * 2014). Which ones is a pure function of (seed, step, micro-batch, site, element): backward draws the same
 * numbers again and nothing is saved. y takes m's block; the gradient of x is that of y, passed on. Where a
 * reversible segment ends, backward takes x = y - dropout(m) (Gomez et al. 2017).
 */
#include "autograd/tape.h"

typedef struct residual_job {
    const fv_kernels *kernels;
    int64_t rows, cols;
    float rate; /* 0: nothing drops */
    fv_random random;
    uint64_t first; /* block of random numbers of element 0 */
    const float *x, *m;
    float *y;
    bool add;       /* y += */
    float *dropped; /* m's block, for dropout(m) */
} residual_job;

static residual_job make_job(const fv_tape *tape, const fv_node *node)
{
    const fv_value *out = &tape->values[node->output];
    const fv_dropout_key *key = &tape->dropout;
    /* Micro-batches are told apart in the upper bits of the block number: 2^40 blocks are more elements than
     * any batch has. */
    return (residual_job){
        .kernels = tape->ctx->kernels,
        .rows = out->rows,
        .cols = out->cols,
        .rate = tape->training ? node->as.dropout.rate : 0.0f,
        .random = fv_random_make(key->seed, FV_RANDOM_DROPOUT, node->as.dropout.site, (uint32_t)key->step),
        .first = (uint64_t)key->micro << 40};
}

/* y = dropout(x): elements of a block of rows begin at a multiple of four, as the random words do. */
static void drop(const residual_job *job, int64_t element, int64_t n, const float *x, bool add, float *y)
{
    _Static_assert(FV_ROW_BLOCK % 4 == 0, "blocks of rows begin at a whole block of random words");
    job->kernels->dropout(n, job->rate, job->random.key, job->random.high, job->first + (uint64_t)element / 4,
                          x + element, add, y + element);
}

static void residual_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const residual_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK, first = row * job->cols;
    int64_t n = FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols;
    const float *m = job->m;
    if (job->rate > 0) {
        drop(job, first, n, m, false, job->y);
        m = job->y;
    }
    if (job->x != NULL)
        job->kernels->add(n, m + first, job->x + first, job->y + first);
    else if (m != job->y)
        job->kernels->copy_rows(1, n, m + first, n, job->y + first, n);
}

static void residual_forward(fv_tape *tape, fv_node *node)
{
    residual_job job = make_job(tape, node);
    job.m = fv_tape_data(tape, node->input[1]);
    job.x = node->input[0] >= 0 ? fv_tape_data(tape, node->input[0]) : NULL;
    job.y = fv_tape_reuse(tape, node, node->input[1]);
    fv_tape_parallel(tape, fv_row_blocks(job.rows), residual_rows, &job);
}

static void drop_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const residual_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK;
    drop(job, row * job->cols, FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols, job->m, job->add, job->y);
}

static void residual_backward(fv_tape *tape, fv_node *node)
{
    fv_block dy = fv_tape_value(tape, node->output)->gradient;
    residual_job job = make_job(tape, node);
    if (job.rate > 0) {
        bool fresh;
        job.m = fv_tape_block(tape, dy);
        job.y = fv_tape_gradient(tape, node->input[1], &fresh);
        job.add = !fresh;
        fv_tape_parallel(tape, fv_row_blocks(job.rows), drop_rows, &job);
    } else {
        fv_tape_move_gradient(tape, dy, node->input[1]);
    }
    if (node->input[0] >= 0)
        fv_tape_move_gradient(tape, dy, node->input[0]);
}

/* ---- x again: y - dropout(m), in the block of y; m's is no longer needed ---------------------------------------------------- */

static void undo_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const residual_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK, first = row * job->cols;
    int64_t n = FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols;
    const float *m = job->m;
    if (job->rate > 0) {
        drop(job, first, n, m, false, job->dropped);
        m = job->dropped;
    }
    job->kernels->axpy(n, -1.0f, m + first, job->y + first);
}

static void residual_undo(fv_tape *tape, fv_node *node)
{
    fv_value *x = fv_tape_value(tape, node->input[0]), *y = fv_tape_value(tape, node->output);
    if (x->data.bytes > 0) { /* the other stream's undo made it already */
        fv_tape_give(tape, &y->data);
        return;
    }
    residual_job job = make_job(tape, node);
    job.dropped = fv_tape_block(tape, fv_tape_value(tape, node->input[1])->data);
    job.m = job.dropped;
    job.y = fv_tape_block(tape, y->data);
    fv_tape_parallel(tape, fv_row_blocks(job.rows), undo_rows, &job);
    x->data = y->data;
    y->data = (fv_block){0};
}

static const fv_op op_residual = {
    .name = "residual", .forward = residual_forward, .backward = residual_backward, .undo = residual_undo};

int fv_tape_residual(fv_tape *tape, int x, int m, float rate, uint32_t site)
{
    const fv_value *in = fv_tape_value(tape, m);
    fv_node *node = fv_tape_record(tape, &op_residual, x, m, in->rows, in->cols);
    node->as.dropout.rate = rate;
    node->as.dropout.site = site;
    return node->output;
}
