/* model/stream.h: what stream.c and stream_files.c share. */
#ifndef FV_MODEL_STREAM_H
#define FV_MODEL_STREAM_H

#include "kernels/kernels.h"
#include "model/transformer.h"

/* What the cross attention of a decoder knows of a source: one state a layer. */
typedef struct fv_memories {
    int64_t tokens; /* of the source; 0: there is none yet */
    size_t bytes;   /* of one layer */
    char *states;   /* [decoder_layers] */
} fv_memories;

/* Whether single tokens read the parameters in bf16. */
static inline bool fv_stream_halves(const fv_model *model)
{
    return fv_context_halves(model->ctx);
}

/* What a pass is told of its streams, laid out for `streams` of them at most; see fv_pass. */
typedef struct fv_stream_lists {
    int64_t streams;
    int64_t *offsets, *none; /* [streams + 1] of their tokens; zeros */
    int64_t *first;          /* [streams] */
    void **states;           /* [layers][FV_PASS_STATES][streams] */
} fv_stream_lists;

struct fv_stream {
    fv_model *model;
    int64_t tokens;                         /* fed so far */
    int64_t capacity;                       /* of kinds that keep every key; -1: no limit */
    size_t state_bytes[FV_ATTENTION_PARTS]; /* of one layer */
    char *states;                           /* [layers] of both, of the stack that predicts */
    fv_memories memories;
    float *logits;         /* [vocabulary] after the last token */
    bool half;             /* uses model->half */
    fv_stream_lists lists; /* of the passes in which it is the first stream */
    void *lists_memory;
};

/* One state of a stream: of the first or second part of a layer's own attention, or of its cross attention. */
typedef struct fv_stream_place {
    fv_use use;
    int64_t layer;
    int part;
    const fv_operator *op; /* its op NULL: there is no such part */
    char *state;
    int64_t tokens; /* that it holds */
} fv_stream_place;

/* FV_ERR_USAGE for a model that cannot stream, as far as its stacks, its head and its own attention tell. */
fv_status fv_stream_check(const fv_model *model);

int64_t fv_stream_places(const fv_stream *stream);
fv_stream_place fv_stream_place_at(const fv_stream *stream, int64_t index);

/* Numbers of one state, and the shape in which they are saved. */
typedef struct fv_state_piece {
    const char *name; /* "S" */
    float *data;
    int rank;
    int64_t shape[3];
    int64_t room; /* > 0: rows of keys; data is [shape[1]][room][shape[2]], the first shape[0] rows of each */
} fv_state_piece;

enum { FV_STATE_PIECES = 3 };

/* *count pieces of a state, none of one that is not there. */
fv_status fv_stream_pieces(const fv_stream_place *place, fv_state_piece pieces[FV_STATE_PIECES], int *count);

/* Empty memories with room for a source of `tokens` tokens. Freed by fv_memories_free. */
fv_status fv_memories_make(fv_memories *memories, const fv_model *model, int64_t tokens);
void fv_memories_free(fv_memories *memories, const fv_model *model);

#endif
