/* attention/sparse.h: softmax attention over a pattern of pairs, written once for every pattern. A pattern says
 * which keys a query sees; sparse*.c do the rest. The mathematics stands in sparse.c.
 *
 * A pattern is cut into phases, a phase into groups of queries, and a group looks at sets of keys one after the
 * other. Positions count from the start of the sequence. No pair may be visible in two sets.
 */
#ifndef FV_SPARSE_H
#define FV_SPARSE_H

#include "attention/kv_cache.h"
#include "attention/softmax.h"

/* The sequence and the head that a pattern is asked about. */
typedef struct fv_sparse_place {
    const fv_attention *op;
    int64_t head, queries, keys; /* query head; lengths of the sequence, a stream's past included */
    int64_t from;                /* position of the call's first query: the tokens of a stream's past */
} fv_sparse_place;

/* How the queries of a phase are cut: chain c holds up to `length` queries begin + c*start, begin + c*start + step,
 * ...; a group takes `rows` of one chain, without those before place.from. */
typedef struct fv_sparse_cut {
    int64_t begin, chains, start, step, length, rows;
} fv_sparse_cut;

/* Random key blocks of one query block, at most. */
enum { FV_SPARSE_DRAWN = 256 };

/* n queries first, first + step, ... */
typedef struct fv_sparse_group {
    int phase;
    int64_t first, step, n;
    int64_t drawn[FV_SPARSE_DRAWN], drawn_count; /* blocks that the pattern drew for the group */
} fv_sparse_group;

/* `count` keys in runs of `run` neighbours, `step` apart: key t stands at first + t / run * step + t % run. The
 * first `rows` queries of the group look at them. */
typedef struct fv_sparse_set {
    int part; /* of the pattern, for its `sight` */
    int64_t first, run, step, count, rows;
} fv_sparse_set;

/* Which positions of a set a query sees: from[0] <= j < to[0] or from[1] <= j < to[1], in this order. */
typedef struct fv_sparse_sight {
    int64_t from[2], to[2];
} fv_sparse_sight;

typedef struct fv_sparse_pattern fv_sparse_pattern;
struct fv_sparse_pattern {
    int phases; /* every query is in one group of the first */
    fv_sparse_cut (*cut)(const fv_sparse_place *place, int phase);
    void (*draw)(const fv_sparse_place *place, fv_sparse_group *group); /* NULL: nothing is random */
    /* The index-th set of a group; false: there are no more. */
    bool (*set)(const fv_sparse_place *place, const fv_sparse_group *group, int index, fv_sparse_set *set);
    fv_sparse_sight (*sight)(const fv_sparse_place *place, const fv_sparse_set *set, int64_t i);
    /* How many tokens before its own a causal query sees beside the first *globals; NULL: no fixed number. */
    int64_t (*reach)(const fv_attention_options *options, int64_t *globals);
};

/* ---- for patterns ---------------------------------------------------------------------------------- */

/* Rows of a group near `wanted`: what products like, or options.chunk. */
int64_t fv_sparse_rows(const fv_attention *op, int64_t wanted);
/* The chain of all queries of the call. */
fv_sparse_cut fv_sparse_plain_cut(const fv_sparse_place *place, int64_t rows);
/* One chain for each block. */
fv_sparse_cut fv_sparse_block_cut(const fv_sparse_place *place, int64_t block);
/* The keys begin .. end-1 that exist, for the first `rows` queries. */
fv_sparse_set fv_sparse_range(const fv_sparse_place *place, int part, int64_t begin, int64_t end,
                              int64_t rows);
/* Query i sees begin .. end-1; causal: up to itself. */
fv_sparse_sight fv_sparse_inside(const fv_sparse_place *place, int64_t i, int64_t begin, int64_t end);
/* Query i sees low .. high-1 without begin .. end-1; causal: up to itself. */
fv_sparse_sight fv_sparse_outside(const fv_sparse_place *place, int64_t i, int64_t begin, int64_t end,
                                  int64_t low, int64_t high);

fv_status fv_sparse_option(const fv_attention *op, const char *name, int64_t value, int64_t low,
                           int64_t high);

/* bigbird.c: the key blocks drawn for a query block, of `blocks` blocks of the sequence; returns their number. */
int64_t fv_bigbird_draw(const fv_attention_options *options, int64_t head, int64_t block, int64_t blocks,
                        int64_t *drawn);

/* ---- for the engine ---------------------------------------------------------------------------------- */

/* Keys of a set in one tile. */
int64_t fv_sparse_tile(const fv_attention *op);
int64_t fv_sparse_groups(const fv_sparse_cut *cut);
/* Group `index` of a phase; n may come out as 0. */
void fv_sparse_group_at(const fv_sparse_place *place, int phase, const fv_sparse_cut *cut, int64_t index,
                        fv_sparse_group *group);
/* How many keys of a set stand before position x. */
int64_t fv_sparse_rank(const fv_sparse_set *set, int64_t x);

/* Columns that a row of a tile sees: a .. b-1 and c .. d-1. */
typedef struct fv_sparse_columns {
    int64_t a, b, c, d;
} fv_sparse_columns;
/* Of keys t .. t + count - 1 of a set, one row each; returns false when no row sees any. */
bool fv_sparse_look(const fv_sparse_place *place, const fv_sparse_group *group, const fv_sparse_set *set,
                    int64_t t, int64_t count, fv_sparse_columns *columns);
/* Puts -inf where the rows of s [set->rows][count] do not see. */
void fv_sparse_hide(const fv_attention *op, int64_t rows, int64_t count, const fv_sparse_columns *columns,
                    float *s);
/* Calls of a walk over the keys t .. t + count - 1 of a set in stretches of rows `*ld` apart: the stretch that
 * begins at key t has the result's length and its first key at *position. */
int64_t fv_sparse_stretch(const fv_sparse_set *set, int64_t t, int64_t count, int64_t *position,
                          int64_t *step);

fv_sparse_place fv_sparse_place_of(const fv_attention *op, const fv_layout *layout, int64_t s, int64_t h);

/* ---- functions of a row ---------------------------------------------------------------------------- */

void fv_sparse_measure(const fv_attention *op, const fv_layout *layout, fv_memory *need);
size_t fv_sparse_forward_bytes(const fv_attention *op, const fv_layout *layout);
size_t fv_sparse_backward_bytes(const fv_attention *op, const fv_layout *layout);
fv_status fv_sparse_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            void *saved, void *scratch);
fv_status fv_sparse_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                             const fv_attention_grad *grad, const void *saved, void *scratch);
fv_status fv_sparse_weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            const int64_t *rows, int64_t n, int64_t head, float *weights, int64_t row_stride,
                            void *scratch);
double fv_sparse_flop(const fv_attention *op, const fv_layout *layout);
size_t fv_sparse_state_bytes(const fv_attention *op, int64_t capacity);
void fv_sparse_state_init(const fv_attention *op, int64_t capacity, void *state);
fv_status fv_sparse_step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                         const fv_states *states, void *scratch);

/* What all patterns share in their row. */
#define FV_SPARSE_ROW                                                                                        \
    .unnormalised = true, .measure = fv_sparse_measure, .forward = fv_sparse_forward,                        \
    .backward = fv_sparse_backward, .weights = fv_sparse_weights, .flop = fv_sparse_flop,                    \
    .state_bytes = fv_sparse_state_bytes, .state_init = fv_sparse_state_init,                                \
    .state_view = fv_kv_cache_view, .state_merge = fv_kv_cache_merge, .step = fv_sparse_step

#endif
