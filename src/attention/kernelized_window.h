/* attention/kernelized_window.h: several threads on one head, for long sequences of few heads.
 *
 * A window is a run of chunks (causal) or tiles (bidirectional) of one head, worked on in phases, each a parallel loop:
 *
 *     keys     log2-features of its keys                                                a task a chunk
 *     states   exponents, powers, and the state through all chunks in their order       a task a block of features
 *     rows     queries, scores, outputs, each from the state that enters its chunk      a task a chunk
 *
 * Row f of a state depends on feature f alone, so a block of features goes through the window by itself; what it leaves before
 * each chunk is that chunk's entering state. Every element is the same chain of operations as on one thread, whatever the number of
 * threads and the length of the window: bits do not tell who computed them. Memory: the features of a window's
 * keys and a state a chunk; bidirectional chunks share one, since no row looks at it before all keys are in it, and all rows are
 * one loop.
 *
 * The phases take it that every chunk is whole. Where a key passes FV_KZ_LIMIT, or a row is not moderate
 * (kernelized_wide.c), the window ends before its chunk, which the caller does alone.
 *
 * Backward turns round: what queries give to the state's gradient by chunks; that gradient by blocks of features, last
 * chunk first; keys and values by chunks (kernelized_window_backward.c).
 *
 * Gates, decay, position bias, gradients of a feature map's inputs and chunks of more than LONGEST_CHUNK tokens stay with one
 * thread a head.
 */
#ifndef FV_KERNELIZED_WINDOW_H
#define FV_KERNELIZED_WINDOW_H

#include "attention/kernelized.h"

typedef struct fv_kz_chunk {
    int64_t begin, n;
    bool whole;         /* it can be worked on as part of a window */
    fv_kz_state state;  /* entering, at the chunk's exponents */
    float *k, *c;       /* [C][r] features of keys; coefficients, where there are any */
    float *bias;        /* [C] */
    float *q, *g, *rho; /* backward: fv_kz_work's */
    float *a, *p;       /* causal backward: fv_kz_work's */
    fv_kz_state grad;   /* causal backward: gradient of the state that leaves, at the chunk's exponents */
} fv_kz_chunk;

typedef struct fv_kz_window {
    const fv_kz_call *call;
    fv_kz_head head;
    bool wide;     /* features in hand are wide */
    int64_t limit; /* chunks it may have */
    int64_t reach; /* chunks it is to have: fewer where it broke lately */
    int64_t count; /* chunks in hand */
    int64_t features, blocks;
    fv_kz_chunk *chunk;     /* [limit + 1]: the last has the state that leaves */
    float *top;             /* [limit][blocks] largest log2 of a block's features of keys */
    int64_t end;            /* of the tokens taken on */
    _Atomic int64_t broken; /* first token of the first tile that was not read */
    fv_kz_state state;      /* bidirectional: the caller's, which all rows look at */
    fv_kz_state grad;       /* backward: the caller's */
    bool moves;             /* backward: grad has exponents */
} fv_kz_window;

/* The call's window in scratch; nothing where it has none. */
void fv_kz_window_carve(fv_kz_call *call, fv_arena *arena, bool backward);
/* Which heads go through windows: call->shared, of tasks that are heads of queries (forward) or of keys (backward). */
void fv_kz_window_share(fv_kz_call *call);
/* Forward, chunks from token `begin` on: outputs too where the call is causal. Returns how many tokens are done: w->state has them,
 * and states behind whole segments are saved. 0: the next chunk has to go alone. */
int64_t fv_kz_window_forward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin);
/* Outputs of bidirectional queries from `begin` on; returns the first that is not done, whose tile has to go alone. */
int64_t fv_kz_window_read(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin);

/* Segments of a causal head that one window takes. */
int64_t fv_kz_window_segments(const fv_kz_call *call);
/* Gradients of tokens [begin, end), whole segments that w->state enters and whose leaving state has the gradient w->grad. false: not
 * all of their chunks are whole, and nothing has been done. */
bool fv_kz_window_back_causal(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                              int64_t end);
/* Gradients of a bidirectional head whose final state is w->state. */
void fv_kz_window_back(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w);

/* ---- for both passes ---- */

/* The window holds the next chunks of the head; returns their number. */
int64_t fv_kz_window_take_on(fv_kz_window *window, const fv_kz_head *h, const fv_kz_work *w, int64_t begin,
                             int64_t end);

/* What a task on the window works with: the worker's memory, and the head with it. */
fv_kz_work fv_kz_window_worker(const fv_kz_window *window, int worker, bool backward, fv_kz_head *h);
/* Chunks from `begin` to at most `end`: features of keys and entering states, w->state entering the first. window->count of them,
 * from the first, are whole. Returns how many there were to be. */
int64_t fv_kz_window_walk(fv_kz_window *window, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                          int64_t end);
/* The state that leaves the window's chunks becomes w's; returns their tokens. */
int64_t fv_kz_window_leave(const fv_kz_window *window, fv_kz_work *w);
/* A block of features of a state. */
static inline fv_kz_state fv_kz_state_part(const fv_kz_call *call, const fv_kz_state *state, int64_t first)
{
    return (fv_kz_state){.S = state->S + first * call->dv,
                         .z = state->z + first,
                         .e = state->e + first,
                         .tokens = state->tokens};
}

#endif
