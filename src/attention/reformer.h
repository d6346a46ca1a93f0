/* attention/reformer.h: what the files of LSH attention share; the mathematics stands in reformer.c. */
#ifndef FV_REFORMER_H
#define FV_REFORMER_H

#include "attention/mechanism.h"

/* What is kept of a forward call, [H][Tq] each; a row of `order` is one round's sorted positions, sequence by
 * sequence. The log-sum-exp is kept as two numbers: near -1e5 a single float would round it by 1e-2. */
typedef struct fv_lsh_sums {
    float *top, *sum; /* in base 2 */
    int32_t *order;   /* [rounds][H][Tq] */
} fv_lsh_sums;
fv_lsh_sums fv_lsh_sums_push(fv_arena *arena, const fv_attention *op, const fv_layout *layout);

/* Sizes of tiles; chunks of a sequence: m positions of the sorted order each. */
typedef struct fv_lsh_cut {
    int64_t rows, keys;
} fv_lsh_cut;
fv_lsh_cut fv_lsh_tiles(const fv_attention *op);
int64_t fv_lsh_chunk(const fv_attention *op, int64_t length);

/* One head of one sequence in one round. */
typedef struct fv_lsh_place {
    const int32_t *order; /* [length] */
    int64_t length, m, chunks;
    bool causal;
} fv_lsh_place;
fv_lsh_place fv_lsh_place_of(const fv_attention *op, const fv_layout *layout, const fv_lsh_sums *sums,
                             int64_t s, int64_t h, int64_t round);

/* A chunk's queries order[first ..], and its keys: `before` of the previous chunk, then its own. */
typedef struct fv_lsh_window {
    const int32_t *own, *previous;
    int64_t n, before;
    int32_t lowest; /* position among the keys */
    bool causal;
} fv_lsh_window;
fv_lsh_window fv_lsh_window_at(const fv_lsh_place *place, int64_t chunk);

static inline int32_t fv_lsh_key(const fv_lsh_window *w, int64_t t)
{
    return t < w->before ? w->previous[t] : w->own[t - w->before];
}

/* Query r of the chunk sees nothing but itself. */
static inline bool fv_lsh_alone(const fv_lsh_window *w, int64_t r)
{
    return w->causal ? w->own[r] == w->lowest : w->n + w->before == 1;
}

static inline bool fv_lsh_sees(const fv_lsh_window *w, int64_t r, int64_t t)
{
    int32_t i = w->own[r], j = fv_lsh_key(w, t);
    return i == j ? fv_lsh_alone(w, r) : !w->causal || j < i;
}

/* Scores s [n][count] of queries r .. against keys t ..: -inf where a query does not see, the lone score where it
 * sees only itself. runs [count + 1] is work. */
void fv_lsh_hide(const fv_attention *op, const fv_lsh_window *w, int64_t r, int64_t n, int64_t t,
                 int64_t count, int64_t *runs, float *s);
/* Puts 0 where a query sees only itself: that score is a constant. */
void fv_lsh_still(const fv_attention *op, const fv_lsh_window *w, int64_t r, int64_t n, int64_t t,
                  int64_t count, float *ds);

/* Memory of one worker: the larger of forward's and backward's, and the sort's. */
size_t fv_reformer_worker_bytes(const fv_attention *op, const fv_layout *layout);
/* Inverse norms [H][Tq] of q, 0 for the zero vector; bytes of the sort's work. */
void fv_lsh_norms(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io, float *inverse);
size_t fv_lsh_work_bytes(const fv_attention *op, const fv_layout *layout);
/* Fills sums->order; needs the inverse norms. */
void fv_lsh_sort(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                 const float *inverse, const fv_lsh_sums *sums, char *workers, size_t worker_bytes);

fv_status fv_reformer_check_lengths(const fv_attention *op, const fv_layout *layout);
/* Scratch of either pass, which is affine in the length because the same worker memory serves both. */
size_t fv_reformer_bytes(const fv_attention *op, const fv_layout *layout);
size_t fv_reformer_forward_work(const fv_attention *op);
size_t fv_reformer_backward_work(const fv_attention *op);
fv_status fv_reformer_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                              void *saved, void *scratch);
fv_status fv_reformer_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                               const fv_attention_grad *grad, const void *saved, void *scratch);

#endif
