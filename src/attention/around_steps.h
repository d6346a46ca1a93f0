/* attention/around_steps.h: one call of what stands around a mechanism, and its steps. */
#ifndef FV_AROUND_STEPS_H
#define FV_AROUND_STEPS_H

#include "attention/around.h"
#include "attention/toeplitz.h"

typedef struct fv_around_call {
    const fv_attention *op;
    const fv_kernels *kr;
    const fv_layout *layout; /* NULL: one token of each of tq streams */
    fv_attention_io io;
    int64_t tq, tk, ldq, ldk, ldv, ldy;
    bool before, bias; /* q and k are changed; y += T v */
    /* scratch */
    float *q, *k, *dq, *dk; /* what the mechanism sees, dense */
    float *inv_q, *inv_k;   /* [tokens][heads] 1 / |x - mean| */
    float *du;              /* [tq][H][dv] */
    char *turn;             /* each worker's factors of rotation */
    int64_t *first;         /* [sequences] position of the first token */
    void *rest;
    /* saved */
    float *u, *own; /* y before the post-scaling; y of the mechanism; NULL: not kept */
} fv_around_call;

/* A worker's memory for rotations. */
size_t fv_around_turn_bytes(const fv_attention_options *o);

/* q, k = rotary(ppsbn(io.q, io.k)) */
void fv_around_before(const fv_around_call *c);
/* dq, dk of the caller += those of q and k through both. */
void fv_around_before_back(const fv_around_call *c, const fv_attention_grad *grad);
/* io.y = gamma sign(y) |y|^beta, in place */
void fv_around_after(const fv_around_call *c);
/* du from dy and u; d gamma and d beta where wanted. */
void fv_around_after_back(const fv_around_call *c, const fv_attention_grad *grad);

#endif
