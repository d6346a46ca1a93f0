/* softmax.c: see softmax.h. */
#include "attention/softmax.h"

float fv_softmax_factor(const fv_attention *op)
{
    return (float)(op->options.scale * FV_LOG2E);
}

fv_attention_io fv_softmax_resolve(const fv_attention *op, const fv_attention_io *io)
{
    const fv_attention_options *o = &op->options;
    fv_attention_io r = *io;
    r.q_stride = io->q_stride != 0 ? io->q_stride : o->heads * o->dim;
    r.k_stride = io->k_stride != 0 ? io->k_stride : o->kv_heads * o->dim;
    r.v_stride = io->v_stride != 0 ? io->v_stride : o->kv_heads * o->value_dim;
    r.y_stride = io->y_stride != 0 ? io->y_stride : o->heads * o->value_dim;
    return r;
}

static float *shift(float *x, int64_t floats)
{
    return x != NULL ? x + floats : NULL;
}

fv_softmax_head fv_softmax_head_of(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                                   const fv_attention_grad *grad, const float *lse, const float *delta,
                                   int64_t s, int64_t h)
{
    const fv_attention_options *o = &op->options;
    const int64_t *offsets_q = layout->offsets_q, *offsets_k = fv_layout_keys(layout);
    int64_t g = h * o->kv_heads / o->heads, all = offsets_q[layout->sequences];
    int64_t q_at = offsets_q[s] * io->q_stride + h * o->dim;
    int64_t k_at = offsets_k[s] * io->k_stride + g * o->dim;
    int64_t v_at = offsets_k[s] * io->v_stride + g * o->value_dim;
    return (fv_softmax_head){
        .q = io->q + q_at,
        .k = io->k + k_at,
        .v = io->v + v_at,
        .dy = grad->dy + offsets_q[s] * io->y_stride + h * o->value_dim,
        .lse = lse + h * all + offsets_q[s],
        .delta = delta + h * all + offsets_q[s],
        .dq = shift(grad->dq, q_at),
        .dk = shift(grad->dk, k_at),
        .dv = shift(grad->dv, v_at),
        .queries = offsets_q[s + 1] - offsets_q[s],
        .keys = offsets_k[s + 1] - offsets_k[s],
    };
}

/* ---- rows of the matrix ---------------------------------------------------------------------------- */

typedef struct rows_call {
    const int64_t *rows;
    int64_t n, head, stride;
    float *weights;
    fv_softmax_row *row;
    const void *arg;
} rows_call;

static void row_task(void *arg, int64_t index, int worker)
{
    const rows_call *c = arg;
    (void)worker;
    c->row(c->arg, c->head < 0 ? index / c->n : c->head, c->rows[index % c->n],
           c->weights + index * c->stride);
}

void fv_softmax_rows(const fv_attention *op, const int64_t *rows, int64_t n, int64_t head, float *weights,
                     int64_t row_stride, fv_softmax_row *row, const void *arg)
{
    rows_call call = {rows, n, head, row_stride, weights, row, arg};
    fv_parallel(op->ctx, head < 0 ? op->options.heads * n : n, row_task, &call);
}
