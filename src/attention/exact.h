/* attention/exact.h: what the files of softmax attention share; the mathematics stands in exact.c. */
#ifndef FV_EXACT_H
#define FV_EXACT_H

#include "attention/kv_cache.h"
#include "attention/softmax.h"

/* Edges of the tiles that the attention matrix is cut into, by shape alone. A task of forward takes `group`
 * query rows, several tiles, so that they share the dense copy of a tile of keys; how many goes by the number of
 * threads too, and changes no bit. */
typedef struct fv_exact_tiles {
    int64_t rows, keys, group;
} fv_exact_tiles;
fv_exact_tiles fv_exact_forward_tiles(const fv_attention *op, const fv_layout *layout);
fv_exact_tiles fv_exact_backward_tiles(const fv_attention *op, const fv_layout *layout);

/* Position bias kernel: b [H][2N-1] in base 2 and turned round, so that the keys of a row lie side by side. */
typedef struct fv_exact_bias {
    float *table; /* NULL: the operator has none */
    int64_t span; /* N */
} fv_exact_bias;
fv_exact_bias fv_exact_bias_push(fv_arena *arena, const fv_attention *op);
void fv_exact_bias_load(const fv_attention *op, const fv_attention_io *io, const fv_exact_bias *bias);
/* What head h adds to query i and key j, and behind it to the keys after j; the next row begins one entry before.
 * NULL: there is no bias. */
const float *fv_exact_bias_at(const fv_exact_bias *bias, int64_t h, int64_t i, int64_t j);
/* s [n][c] += bias, of n queries and c keys. */
void fv_exact_bias_add(const fv_attention *op, const float *bias, int64_t n, int64_t c, float *s);

/* One worker's scratch in forward. */
typedef struct fv_exact_scratch {
    float *s;              /* [rows][keys] scores, then probabilities */
    float *o;              /* [group][dv] sum of p v so far */
    float *top, *sum;      /* [group] of online softmax */
    float *factor;         /* [rows] */
    float *k, *v;          /* [keys][d], [keys][dv]: a tile's keys and values, dense */
    float *clean, *poison; /* [rows][dv] finite values of the diagonal; [dv] */
    int64_t *visible;      /* [rows] */
} fv_exact_scratch;
fv_exact_scratch fv_exact_scratch_push(fv_arena *arena, const fv_attention *op, fv_exact_tiles tiles);

/* n <= group query rows of one head and the keys they see: all of the first `open`; then, when causal, n more
 * of which row i sees the first i + 1. */
typedef struct fv_exact_rows {
    int64_t n, open;
    bool causal;
    const float *q, *k, *v; /* [n][d], [open + n][d], [open + n][dv] */
    int64_t ldq, ldk, ldv;
    const float *bias; /* of the first row and key (fv_exact_bias_at), or NULL */
    float *y, *lse;    /* [n][dv]; [n] or NULL */
    int64_t ldy;
} fv_exact_rows;
void fv_exact_attend(const fv_attention *op, const fv_exact_rows *r, fv_exact_tiles tiles,
                     const fv_exact_scratch *scratch);

fv_status fv_exact_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                           void *saved, void *scratch);
size_t fv_exact_forward_bytes(const fv_attention *op, const fv_layout *layout);
fv_status fv_exact_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            const fv_attention_grad *grad, const void *saved, void *scratch);
size_t fv_exact_backward_bytes(const fv_attention *op, const fv_layout *layout);

void fv_exact_state_init(const fv_attention *op, int64_t capacity, void *state);
fv_status fv_exact_step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                        const fv_states *states, void *scratch);

#endif
