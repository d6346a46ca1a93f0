/* support/toeplitz_call.h: one call of the Toeplitz operator on values (attention/toeplitz.h) with its tensors, all random,
 * outputs too: the operator adds to them. */
#ifndef TOEPLITZ_CALL_H
#define TOEPLITZ_CALL_H

#include "attention/toeplitz.h"

enum { TOEPLITZ_SEQUENCES = 8, TOEPLITZ_PAD = 3 };

typedef struct toeplitz_call {
    fv_toeplitz t;
    fv_layout layout;
    int64_t oq[TOEPLITZ_SEQUENCES + 1], ok[TOEPLITZ_SEQUENCES + 1];
    int64_t weights, ldv, ldy, tq, tk;
    float *w, *v, *y, *dy, *dv, *dw;
} toeplitz_call;

typedef struct toeplitz_shape {
    int64_t heads, kv_heads, width, span, skip;
    bool causal, raster;
    int64_t sequences;
    int64_t queries[TOEPLITZ_SEQUENCES], keys[TOEPLITZ_SEQUENCES]; /* keys 0 with queries > 0: as queries */
} toeplitz_shape;

toeplitz_call *toeplitz_make(fv_context *ctx, const toeplitz_shape *s);
void toeplitz_drop(toeplitz_call *c);
void toeplitz_forward(toeplitz_call *c);
void toeplitz_backward(toeplitz_call *c, float *dv, float *dw);

#endif
