/* attention/softmax.h: what the softmax mechanisms share (exact, sparse patterns, linformer, reformer): scores in
 * base 2, tensors with their strides resolved, one head of one sequence of them, and rows of the matrix. */
#ifndef FV_SOFTMAX_H
#define FV_SOFTMAX_H

#include "attention/mechanism.h"

/* The factor that turns q.k into a score of base 2: scale log2(e). */
float fv_softmax_factor(const fv_attention *op);
/* io with strides of 0 replaced by the dense ones. */
fv_attention_io fv_softmax_resolve(const fv_attention *op, const fv_attention_io *io);

/* Query head h of sequence s and the key head it reads, for backward: pointers at their first tokens. lse and
 * delta are [H][Tq]; gradients that nobody wants stay NULL. */
typedef struct fv_softmax_head {
    const float *q, *k, *v, *dy, *lse, *delta;
    float *dq, *dk, *dv;
    int64_t queries, keys;
} fv_softmax_head;
fv_softmax_head fv_softmax_head_of(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                                   const fv_attention_grad *grad, const float *lse, const float *delta,
                                   int64_t s, int64_t h);

/* Rows of the matrix: calls row(arg, h, query token, its weights [Tk]) for the listed rows of head `head` (< 0: of all
 * heads), in parallel. */
typedef void fv_softmax_row(const void *arg, int64_t h, int64_t row, float *weights);
void fv_softmax_rows(const fv_attention *op, const int64_t *rows, int64_t n, int64_t head, float *weights,
                     int64_t row_stride, fv_softmax_row *row, const void *arg);

#endif
