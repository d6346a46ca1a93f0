/* attention/mechanism.h: what a mechanism is to the rest: one file, one row in table.c. */
#ifndef FV_MECHANISM_H
#define FV_MECHANISM_H

#include "features/feature_map.h"
#include "kernels/kernels.h"
#include <favor/attention.h>

typedef struct fv_mechanism fv_mechanism;
struct fv_sparse_pattern; /* sparse.h */

struct fv_attention {
    fv_context *ctx;
    const fv_mechanism *mechanism;
    fv_attention_options options; /* all defaults resolved */
    int64_t m, r;                 /* projections, features; 0 for kinds without */
};

/* States of the streams of a call: each where its pointer says, or in a row, `stride` apart (0: each as long as its own capacity
 * makes it). */
typedef struct fv_states {
    void *const *each; /* NULL: in a row */
    void *first;
    size_t stride;
} fv_states;

#define FV_INPUT_BIT(which) (UINT32_C(1) << (which))
/* Tokens of one call at most, so that every product of a token count with a row of floats fits. */
#define FV_MAX_TOKENS ((int64_t)1 << 40)
/* FV_ERR_USAGE naming `what` when the value lies outside low .. high. */
fv_status fv_check_number(fv_context *ctx, const char *what, int64_t value, int64_t low, int64_t high);

/* Rows of the matrix of head `head` (< 0: all heads, [H][n][Tk]), whatever stands around the mechanism. */
fv_status fv_operator_rows(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                           const int64_t *rows, int64_t n, int64_t head, float *weights, void *scratch);

/* The inputs an operator takes: its mechanism's, its map's, its modifiers'. */
bool fv_attention_takes(const fv_attention *op, fv_input which);

/* FV_ERR_FILE when position bias kernel has no weights for the offsets of a sequence. */
fv_status fv_bias_check_span(const fv_attention *op, const fv_layout *layout);

/* Options that the operator's kind would pass over (options.c): FV_ERR_USAGE names them. */
fv_status fv_options_check(const fv_attention *op);
/* FV_ERR_USAGE when a sequence, or a stream with the tokens to come, is longer than the features of the operator's kind are
 * made for (places.c). continued: the call's, whose states it continues; NULL: it begins sequences. */
fv_status fv_places_check(const fv_attention *op, const fv_layout *layout, const fv_attention_io *continued);
fv_status fv_places_check_step(const fv_attention *op, int64_t streams, const fv_states *states);
/* Bits of all inputs that a kind may take, with whatever modifiers it can have. */
uint32_t fv_mechanism_inputs(const fv_mechanism *mechanism);

struct fv_mechanism {
    fv_attention_kind kind;                  /* the public row */
    const fv_feature_map *map;               /* kernelised kinds */
    const struct fv_sparse_pattern *pattern; /* sparse kinds */
    bool in_place_ok;
    bool unnormalised;    /* takes no denominator guard (softmax kinds, identity) */
    bool position_kernel; /* takes position_bias kernel */
    bool shared_keys;     /* keys are made of q: k may be missing, dk stays as it is */
    bool recalls;         /* bidirectional forward adds its keys to a state and reads all of it */
    uint32_t inputs;      /* 1 << FV_INPUT_x: what it takes itself (maps and modifiers add theirs) */
    uint32_t takes;       /* FV_TAKES_x: options that no input tells of */
    /* All shapes, offsets and pointers were checked by operator.c before these are called. */
    fv_status (*check)(
        fv_attention *op); /* refuses options, resolves the kind's defaults; NULL: nothing to do */
    void (*measure)(const fv_attention *op, const fv_layout *layout, fv_memory *need); /* saved, scratch */
    fv_status (*forward)(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         void *saved, void *scratch);
    fv_status (*backward)(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                          const fv_attention_grad *grad, const void *saved, void *scratch);
    fv_status (*weights)(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         const int64_t *rows, int64_t n, int64_t head, float *weights, int64_t row_stride,
                         void *scratch);                             /* head < 0: all heads, [H][n][Tk] */
    double (*flop)(const fv_attention *op, const fv_layout *layout); /* forward */
    /* Draws one of its own FV_ROLE_DRAWN inputs, all heads; false: not one of its. NULL: it has none. */
    bool (*draw)(const fv_attention *op, fv_input which, uint64_t seed, uint32_t draw, float *out);
    /* Streaming; NULL when the kind cannot. */
    size_t (*state_bytes)(const fv_attention *op, int64_t capacity);
    void (*state_init)(const fv_attention *op, int64_t capacity, void *state);
    void (*state_view)(const fv_attention *op, void *state, fv_state_view *view);
    fv_status (*state_merge)(const fv_attention *op, void *dst, const void *a, const void *b);
    fv_status (*step)(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                      const fv_states *states, void *scratch);
};

/* The state of stream s, behind the `before` of stream s - 1. */
static inline void *fv_states_next(const fv_attention *op, const fv_states *states, int64_t s, void *before)
{
    if (states->each != NULL)
        return states->each[s];
    if (s == 0)
        return states->first;
    size_t bytes = states->stride;
    if (bytes == 0) {
        fv_state_view view;
        op->mechanism->state_view(op, before, &view);
        bytes = op->mechanism->state_bytes(op, view.capacity);
    }
    return (char *)before + bytes;
}

/* Offsets of the keys of a layout. */
static inline const int64_t *fv_layout_keys(const fv_layout *layout)
{
    return layout->offsets_k != NULL ? layout->offsets_k : layout->offsets_q;
}

/* The place p < count with offsets[p] <= index < offsets[p + 1]: the sequence of a token. */
int64_t fv_offsets_locate(const int64_t *offsets, int64_t count, int64_t index);

const fv_mechanism *fv_mechanism_find(const char *name); /* NULL: unknown */

#endif
