/* embedding.c: y[t] = token[ids[t]] + position[positions[t]].
 *
 * Backward adds each row of dy to the rows of the tables it came from. A task owns a range of table rows and
 * walks all tokens in order, so every sum is taken in token order whatever the number of threads.
 */
#include "autograd/tape.h"

enum { TABLE_TASKS = 8 };

typedef struct embedding_job {
    const fv_kernels *kernels;
    const fv_embedding *e;
    const float *token, *place;
    float *y;
} embedding_job;

static void embed_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const embedding_job *job = arg;
    const fv_embedding *e = job->e;
    int64_t row = index * FV_ROW_BLOCK, n = FV_MIN(FV_ROW_BLOCK, e->rows - row);
    float *y = job->y + row * e->cols;
    job->kernels->gather_rows(n, e->cols, e->ids + row, job->token, y);
    for (int64_t i = 0; job->place != NULL && i < n; i++)
        job->kernels->add(e->cols, y + i * e->cols, job->place + e->positions[row + i] * e->cols,
                          y + i * e->cols);
}

static void embedding_forward(fv_tape *tape, fv_node *node)
{
    const fv_embedding *e = &node->as.embedding;
    embedding_job job = {tape->ctx->kernels, e, fv_tape_parameter(tape, e->token),
                         e->constant != NULL ? e->constant : fv_tape_parameter(tape, e->place),
                         fv_tape_output(tape, node)};
    fv_tape_parallel(tape, fv_row_blocks(e->rows), embed_rows, &job);
}

typedef struct table_job {
    const fv_kernels *kernels;
    int64_t rows, cols, entries;
    const int32_t *ids;
    const float *dy;
    float *table;
} table_job;

static void add_to_table(void *arg, int64_t index, int worker)
{
    (void)worker;
    const table_job *job = arg;
    int64_t share = (job->entries + TABLE_TASKS - 1) / TABLE_TASKS;
    int64_t begin = index * share, end = FV_MIN(begin + share, job->entries);
    for (int64_t i = 0; i < job->rows; i++)
        if (job->ids[i] >= begin && job->ids[i] < end)
            job->kernels->scatter_add_rows(1, job->cols, job->ids + i, job->dy + i * job->cols, job->table);
}

static void embedding_backward(fv_tape *tape, fv_node *node)
{
    const fv_embedding *e = &node->as.embedding;
    const float *dy = fv_tape_block(tape, fv_tape_value(tape, node->output)->gradient);
    table_job token = {tape->ctx->kernels,
                       e->rows,
                       e->cols,
                       e->tokens,
                       e->ids,
                       dy,
                       fv_tape_parameter_gradient(tape, e->token)};
    fv_tape_parallel(tape, TABLE_TASKS, add_to_table, &token);
    if (e->place < 0)
        return;
    table_job place = {tape->ctx->kernels,
                       e->rows,
                       e->cols,
                       e->places,
                       e->positions,
                       dy,
                       fv_tape_parameter_gradient(tape, e->place)};
    fv_tape_parallel(tape, TABLE_TASKS, add_to_table, &place);
}

static const fv_op op_embedding = {
    .name = "embedding", .forward = embedding_forward, .backward = embedding_backward};

int fv_tape_embedding(fv_tape *tape, const fv_embedding *embedding)
{
    fv_node *node = fv_tape_record(tape, &op_embedding, -1, -1, embedding->rows, embedding->cols);
    node->as.embedding = *embedding;
    return node->output;
}
