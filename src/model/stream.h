/* model/stream.h: what stream.c and stream_files.c share. */
#ifndef FV_MODEL_STREAM_H
#define FV_MODEL_STREAM_H

#include "model/transformer.h"

struct fv_stream {
    fv_model *model;
    int64_t tokens;                         /* fed so far */
    int64_t capacity;                       /* of kinds that keep every key; -1: no limit */
    size_t state_bytes[FV_ATTENTION_PARTS]; /* of one layer */
    char *states;                           /* [layers] of both */
    float *logits;                          /* [vocabulary] after the last token */
};

/* Numbers of one layer's state, as they are saved. */
typedef struct fv_state_piece {
    const char *name; /* "S" */
    float *data;
    int rank;
    int64_t shape[3];
} fv_state_piece;

enum { FV_STATE_PIECES = 3 };

char *fv_stream_state(const fv_stream *stream, int64_t layer, int part);
/* The pieces of a layer's state that holds `tokens` tokens; *count of them, none of a part that is not there. */
fv_status fv_stream_pieces(const fv_stream *stream, int64_t layer, int part, int64_t tokens,
                           fv_state_piece pieces[FV_STATE_PIECES], int *count);

#endif
