/* attention_node.c: attention as an operation of the tape, straight on the fused projections.
 *
 * qkv [rows][(H + 2G) d] holds q, k, v of a token side by side; the operator walks it with strides, nothing
 * is copied. Where the kind allows it backward turns qkv into its own gradient in place, and the output is
 * not kept for backward by the kernelised kinds, whose layer below (the output projection) needs it anyway.
 */
#include "autograd/tape.h"

static fv_attention_io make_io(const fv_node *node, const float *qkv, float *y)
{
    const fv_attention_options *o = &node->as.attention.info.options;
    int64_t stride = (o->heads + 2 * o->kv_heads) * o->dim;
    fv_attention_io io = {.q = qkv,
                          .k = qkv + o->heads * o->dim,
                          .v = qkv + (o->heads + o->kv_heads) * o->dim,
                          .y = y,
                          .q_stride = stride,
                          .k_stride = stride,
                          .v_stride = stride,
                          .state = node->as.attention.call.states};
    fv_attention_bind_drawn(node->as.attention.call.op, node->as.attention.call.drawn, &io);
    return io;
}

/* One token of one stream is a step; more of them, or the first ones, a forward that continues the state. */
static fv_status attend(const fv_attention_call *call, const fv_attention_io *io, int64_t rows, void *saved,
                        void *scratch)
{
    if (call->states == NULL || rows != call->layout->sequences)
        return fv_attention_forward(call->op, call->layout, io, saved, scratch);
    fv_attention_io one = *io;
    one.state = NULL;
    return fv_attention_step(call->op, rows, &one, call->states, call->state_bytes, scratch);
}

static void attention_forward(fv_tape *tape, fv_node *node)
{
    const fv_memory *need = &node->as.attention.need;
    float *y = fv_tape_output(tape, node);
    if (tape->saving && need->saved > 0)
        node->saved = fv_tape_take_bytes(tape, need->saved);
    fv_block scratch = fv_tape_take_bytes(tape, need->scratch);
    if (fv_tape_running(tape)) {
        fv_attention_io io = make_io(node, fv_tape_data(tape, node->input[0]), y);
        fv_tape_fail(tape, attend(&node->as.attention.call, &io, fv_tape_value(tape, node->output)->rows,
                                  fv_tape_block(tape, node->saved), fv_tape_block(tape, scratch)));
    }
    fv_tape_give(tape, &scratch);
}

/* ---- backward ------------------------------------------------------------------------------------ */

typedef struct clear_job {
    const fv_kernels *kernels;
    int64_t rows, cols;
    float *y;
} clear_job;

static void clear_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const clear_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK;
    job->kernels->fill(FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols, 0.0f, job->y + row * job->cols);
}

/* Where the gradient of qkv goes: its own block, or a new one filled with zeros. */
static float *qkv_gradient(fv_tape *tape, fv_node *node, bool in_place)
{
    fv_value *qkv = fv_tape_value(tape, node->input[0]);
    if (in_place) {
        qkv->gradient = qkv->data;
        qkv->data = (fv_block){0};
        return fv_tape_block(tape, qkv->gradient);
    }
    bool fresh;
    float *gradient = fv_tape_gradient(tape, node->input[0], &fresh);
    clear_job job = {tape->ctx->kernels, qkv->rows, qkv->cols, gradient};
    if (fresh)
        fv_tape_parallel(tape, fv_row_blocks(qkv->rows), clear_rows, &job);
    return gradient;
}

static fv_status attend_back(fv_tape *tape, const fv_node *node, const float *data, float *gradient,
                             bool in_place, void *scratch)
{
    const fv_attention_call *call = &node->as.attention.call;
    const fv_value *out = fv_tape_value(tape, node->output);
    fv_attention_io io = make_io(node, data, fv_tape_block(tape, out->data));
    fv_attention_grad grad = {.dy = fv_tape_block(tape, out->gradient),
                              .dq = gradient,
                              .dk = gradient + (io.k - io.q),
                              .dv = gradient + (io.v - io.q),
                              .in_place = in_place};
    return fv_attention_backward(call->op, call->layout, &io, &grad, fv_tape_block(tape, node->saved),
                                 scratch);
}

static void attention_backward(fv_tape *tape, fv_node *node)
{
    fv_value *qkv = fv_tape_value(tape, node->input[0]);
    bool in_place = node->as.attention.info.in_place_ok && qkv->gradient.bytes == 0 && !qkv->held;
    const float *data = fv_tape_data(tape, node->input[0]);
    float *gradient = qkv_gradient(tape, node, in_place);
    fv_block scratch = fv_tape_take_bytes(tape, node->as.attention.need.scratch);
    if (fv_tape_running(tape))
        fv_tape_fail(tape, attend_back(tape, node, data, gradient, in_place, fv_tape_block(tape, scratch)));
    fv_tape_give(tape, &scratch);
    fv_tape_done(tape, node->input[0]);
}

static double attention_flop(const fv_tape *tape, const fv_node *node)
{
    (void)tape;
    return fv_attention_flop(node->as.attention.call.op, node->as.attention.call.layout, 0);
}

/* The backward of kernelised kinds does not read the output. */
static const fv_op op_kernelized = {.name = "attention",
                                    .reads = 1,
                                    .saves = true,
                                    .forward = attention_forward,
                                    .backward = attention_backward,
                                    .flop = attention_flop};
static const fv_op op_attention = {.name = "attention",
                                   .reads = 1,
                                   .reads_output = true,
                                   .saves = true,
                                   .forward = attention_forward,
                                   .backward = attention_backward,
                                   .flop = attention_flop};

int fv_tape_attention(fv_tape *tape, int qkv, const fv_attention_call *call)
{
    fv_attention_info info;
    fv_attention_get_info(call->op, &info);
    const fv_op *op = fv_attention_kind_find(info.options.kind)->kernelized ? &op_kernelized : &op_attention;
    int64_t cols = info.options.heads * info.options.value_dim;
    fv_node *node = fv_tape_record(tape, op, qkv, -1, fv_tape_value(tape, qkv)->rows, cols);
    node->as.attention.call = *call;
    node->as.attention.info = info;
    fv_tape_fail(tape, fv_attention_measure(call->op, call->layout, &node->as.attention.need));
    return node->output;
}
