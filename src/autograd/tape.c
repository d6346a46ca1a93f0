/* tape.c: recording, blocks and gradients of values. Running: replay.c. */
#include "autograd/tape.h"
#include <string.h>

/* Blocks alive at once: data and gradient of every value, saved of every node, a few of scratch. */
enum { BLOCKS_PER_NODE = 3, SCRATCH_BLOCKS = 8 };

void fv_tape_layout(fv_tape *tape, fv_context *ctx, int nodes, fv_arena *arena)
{
    int entries = BLOCKS_PER_NODE * nodes + SCRATCH_BLOCKS;
    *tape = (fv_tape){.ctx = ctx, .node_limit = nodes};
    tape->nodes = FV_PUSH(arena, fv_node, nodes);
    tape->values = FV_PUSH(arena, fv_value, nodes);
    tape->segments = FV_PUSH(arena, fv_segment, nodes);
    tape->pool.entries = FV_PUSH(arena, fv_pool_entry, entries);
    tape->pool.limit = entries;
}

void fv_tape_reset(fv_tape *tape, bool training, void *memory, size_t capacity)
{
    tape->training = training;
    tape->saving = false;
    tape->half = fv_context_halves(tape->ctx);
    tape->stepping = false;
    tape->running = memory != NULL;
    tape->status = FV_OK;
    tape->node_count = tape->value_count = tape->segment_count = 0;
    tape->segment = -1;
    tape->pool.base = memory;
    tape->pool.capacity = capacity;
    tape->pool.count = 0;
    tape->pool.peak = 0;
}

void fv_tape_fail(fv_tape *tape, fv_status status)
{
    if (tape->status == FV_OK)
        tape->status = status;
}

void fv_tape_parallel(fv_tape *tape, int64_t count, fv_task *task, void *arg)
{
    if (fv_tape_running(tape))
        fv_parallel(tape->ctx, count, task, arg);
}

/* ---- recording -------------------------------------------------------------------------------------- */

fv_value *fv_tape_value(fv_tape *tape, int value)
{
    return &tape->values[value];
}

static void add_reader(const fv_node *node, fv_value *value, unsigned input)
{
    bool backward = (input & node->op->reads) != 0;
    value->readers++;
    value->back_readers += backward;
    value->whole |= backward && (input & node->op->halves) == 0;
    value->inner_back += backward && value->segment == node->segment && node->segment >= 0;
    value->crosses |= node->segment >= 0 && value->segment != node->segment;
    value->rebuilt = false;
}

fv_node *fv_tape_record(fv_tape *tape, const fv_op *op, int a, int b, int64_t rows, int64_t cols)
{
    if (tape->node_count == tape->node_limit) { /* the last node is given up, forward will not run */
        fv_tape_fail(tape,
                     fv_fail(tape->ctx, FV_ERR_INTERNAL, "the tape is full: %d nodes", tape->node_limit));
        tape->node_count--;
        tape->value_count = FV_MIN(tape->value_count, tape->node_limit - 1);
    }
    int id = tape->node_count++;
    fv_node *node = &tape->nodes[id];
    *node = (fv_node){.op = op, .input = {a, b}, .output = -1, .segment = tape->segment};
    for (unsigned k = 0; k < 2; k++)
        if (node->input[k] >= 0)
            add_reader(node, fv_tape_value(tape, node->input[k]), 1u << k);
    if (cols > 0) {
        node->output = tape->value_count++;
        tape->values[node->output] =
            (fv_value){.rows = rows, .cols = cols, .producer = id, .segment = tape->segment};
    }
    return node;
}

void fv_tape_hold(fv_tape *tape, int value)
{
    fv_tape_value(tape, value)->held = true;
}

void fv_tape_place(fv_tape *tape, int value, float *memory)
{
    fv_tape_value(tape, value)->outside = memory;
}

double fv_tape_flop(const fv_tape *tape)
{
    double flop = 0;
    for (int i = 0; i < tape->node_count; i++)
        if (tape->nodes[i].op->flop != NULL)
            flop += tape->nodes[i].op->flop(tape, &tape->nodes[i]);
    return flop;
}

/* ---- blocks ------------------------------------------------------------------------------------------ */

static fv_status no_block(const fv_tape *tape, size_t bytes)
{
    if (tape->pool.peak > PTRDIFF_MAX)
        return fv_fail(tape->ctx, FV_ERR_RESOURCE,
                       "the activations need more memory than can be addressed; use a smaller batch");
    return fv_fail(tape->ctx, FV_ERR_INTERNAL,
                   "the plan of activation memory does not hold: %zu bytes more were asked for", bytes);
}

fv_block fv_tape_take_bytes(fv_tape *tape, size_t bytes)
{
    fv_block block = fv_pool_take_bytes(&tape->pool, bytes);
    if (block.bytes == 0 && tape->status == FV_OK)
        tape->status = no_block(tape, bytes);
    return block;
}

fv_block fv_tape_take(fv_tape *tape, int64_t count)
{
    return fv_tape_take_bytes(tape, fv_bytes(count, sizeof(float)));
}

void fv_tape_give(fv_tape *tape, fv_block *block)
{
    fv_pool_give(&tape->pool, block);
}

/* Elements of a value; -1, which no pool can hold, when the product does not fit. */
static int64_t elements(const fv_value *value)
{
    int64_t count;
    return fv_mul(value->rows, value->cols, &count) ? count : -1;
}

fv_block fv_tape_take_of(fv_tape *tape, int value, size_t bytes)
{
    return fv_tape_take_bytes(tape, fv_bytes(elements(fv_tape_value(tape, value)), bytes));
}

const float *fv_tape_data(const fv_tape *tape, int value)
{
    return fv_tape_block(tape, tape->values[value].data);
}

float *fv_tape_output(fv_tape *tape, fv_node *node)
{
    fv_value *value = fv_tape_value(tape, node->output);
    value->data = fv_tape_take(tape, elements(value));
    return fv_tape_block(tape, value->data);
}

bool fv_tape_passing(const fv_tape *tape, int value)
{
    const fv_value *v = &tape->values[value];
    return v->back_readers == 0 && !v->held && !v->crosses && !v->stream &&
           !tape->nodes[v->producer].op->reads_output;
}

float *fv_tape_reuse(fv_tape *tape, fv_node *node, int input)
{
    fv_value *from = fv_tape_value(tape, input), *to = fv_tape_value(tape, node->output);
    if (from->waiting > 1 || !fv_tape_passing(tape, input))
        return fv_tape_output(tape, node);
    to->data = from->data;
    from->data = (fv_block){0};
    return fv_tape_block(tape, to->data);
}

/* ---- gradients ----------------------------------------------------------------------------------------- */

typedef struct sum_job {
    const fv_kernels *kernels;
    int64_t rows, cols;
    const float *a, *b;
    float *y;
} sum_job;

static void sum_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const sum_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK, first = row * job->cols;
    int64_t n = FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols;
    if (job->b != NULL)
        job->kernels->add(n, job->a + first, job->b + first, job->y + first);
    else
        job->kernels->copy_rows(1, n, job->a + first, n, job->y + first, n);
}

/* y = a + b, or a copy of a without b. */
static void sum(fv_tape *tape, const fv_value *shape, const float *a, const float *b, float *y)
{
    sum_job job = {tape->ctx->kernels, shape->rows, shape->cols, a, b, y};
    fv_tape_parallel(tape, fv_row_blocks(shape->rows), sum_rows, &job);
}

float *fv_tape_gradient(fv_tape *tape, int value, bool *fresh)
{
    fv_value *v = fv_tape_value(tape, value);
    *fresh = v->gradient.bytes == 0;
    if (*fresh) {
        v->gradient = fv_tape_take(tape, elements(v));
    } else if (fv_pool_shared(&tape->pool, v->gradient)) { /* copy on write */
        fv_block own = fv_tape_take(tape, elements(v));
        sum(tape, v, fv_tape_block(tape, v->gradient), NULL, fv_tape_block(tape, own));
        fv_tape_give(tape, &v->gradient);
        v->gradient = own;
    }
    return fv_tape_block(tape, v->gradient);
}

void fv_tape_move_gradient(fv_tape *tape, fv_block block, int value)
{
    fv_value *v = fv_tape_value(tape, value);
    if (v->gradient.bytes == 0) {
        fv_pool_share(&tape->pool, block);
        v->gradient = block;
        return;
    }
    bool fresh;
    float *gradient = fv_tape_gradient(tape, value, &fresh);
    sum(tape, v, gradient, fv_tape_block(tape, block), gradient);
}
