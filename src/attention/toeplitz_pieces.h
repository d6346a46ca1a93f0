/* attention/toeplitz_pieces.h: what toeplitz*.c share: the filters of a call, a worker's memory, and the two
 * products everything is made of, `full` (all pairs) and `past` (j <= i). */
#ifndef FV_TOEPLITZ_PIECES_H
#define FV_TOEPLITZ_PIECES_H

#include "attention/mechanism.h"
#include "attention/toeplitz.h"
#include "attention/toeplitz_filters.h"

enum {
    FV_TP_COLUMNS = 64, /* channels worked on together: 32 complex ones */
    FV_TP_DIRECT = 96,  /* up to here a product with the tile is faster than transforms */
    FV_TP_BLOCK = 128,  /* tokens of a causal block */
    FV_TP_STRIP = 32,   /* rows of its triangle taken together */
    FV_TP_FAN = 8,      /* blocks that a level joins */
};

/* The filters of causal sequences of up to `length` tokens: level by level, distance 1, 2, ... blocks.
 * `origin` is the weight that a token gives itself. */
typedef struct fv_tp_past {
    int64_t first, length, origin;
} fv_tp_past;

typedef struct fv_tp_call {
    const fv_toeplitz *t;
    const fv_kernels *kr;
    const float *v, *dy;
    float *y, *dv;
    int64_t ldv, ldy;
    int64_t groups, columns;  /* parts of a head's channels, and their width */
    int64_t rows, direct;     /* longest transform memory; longest direct tile */
    fv_tp_past past, shifted; /* causal: origin 0; rasters also 1 */
    int64_t raster;           /* filter of the `full` products of a raster, -1: direct */
    int64_t *full;            /* [sequences] filter of a bidirectional sequence, -1: direct */
    fv_tp_bank bank;
    char *work;
    size_t work_bytes;
} fv_tp_call;

/* Memory of one worker; c is columns rounded up to even, as rows of transforms are. */
typedef struct fv_tp_work {
    float *x, *x2;         /* [rows][c]; x2: backward */
    float *tile;           /* [direct or block]^2 */
    float *weights;        /* [2 block] of 0, then the weights of a block */
    float *clean, *out;    /* [block][columns] */
    float *poison, *total; /* [columns] */
    float *sums[6];        /* rasters: [R][columns] */
} fv_tp_work;

/* One head: its weights, and the tensors of the part in hand (not of the whole call). */
typedef struct fv_tp_part {
    const fv_tp_call *call;
    fv_tp_work *w;
    int64_t head, columns;
    const float *weight; /* of delta 0 */
    float *dweight;      /* its gradient, or NULL */
} fv_tp_part;

/* Rows of a matrix [n][columns of the part]. */
typedef struct fv_tp_rows {
    const float *x;
    int64_t n, ld;
} fv_tp_rows;

fv_tp_work fv_tp_worker(const fv_tp_call *call, int worker, bool backward);

/* y [nq] += T v, all pairs; filter -1: direct. */
void fv_tp_full(const fv_tp_part *p, int64_t filter, fv_tp_rows v, int64_t nq, float *y, int64_t ldy);
/* dv (stride of v) += T^T dy; p->dweight += where wanted; dv NULL: not wanted. */
void fv_tp_full_back(const fv_tp_part *p, int64_t filter, fv_tp_rows v, fv_tp_rows dy, float *dv);
/* The same over pairs j <= i, weights origin + i - j. */
void fv_tp_past_forward(const fv_tp_part *p, const fv_tp_past *past, fv_tp_rows v, float *y, int64_t ldy);
void fv_tp_past_back(const fv_tp_part *p, const fv_tp_past *past, fv_tp_rows v, fv_tp_rows dy, float *dv);

/* One head's raster, R x R rows. */
void fv_tp_raster(const fv_tp_part *p, fv_tp_rows v, float *y, int64_t ldy);
void fv_tp_raster_back(const fv_tp_part *p, fv_tp_rows v, fv_tp_rows dy, float *dv);

/* Blocks of `block` tokens in n, at most a level's. */
static inline int64_t fv_tp_blocks(int64_t n, int64_t block)
{
    return (n + block - 1) / block;
}

/* Pieces of transforms. Rows of v into x [size][c], zeros behind them; false if some are not finite (0 in x). */
bool fv_tp_load(const fv_tp_part *p, fv_tp_rows v, int64_t size, float *x);
/* y += the first n rows of x */
void fv_tp_unload(const fv_tp_part *p, const float *x, int64_t n, float *y, int64_t ldy);
/* y of every row NaN in the channels where some row of v is not finite. */
void fv_tp_poison_all(const fv_tp_part *p, fv_tp_rows v, int64_t n, float *y, int64_t ldy);
/* The same where the row sees it: from its own row on, or (backward) up to its own row. */
void fv_tp_poison_past(const fv_tp_part *p, fv_tp_rows v, bool backward, float *y, int64_t ldy);

static inline int64_t fv_tp_half(const fv_tp_part *p)
{
    return (p->columns + 1) / 2;
}

static inline const float *fv_tp_spectrum(const fv_tp_part *p, const fv_tp_filter *f)
{
    return fv_tp_bank_spectrum(&p->call->bank, f, p->head);
}

static inline float *fv_tp_gradient(const fv_tp_part *p, const fv_tp_filter *f)
{
    return fv_tp_bank_gradient(&p->call->bank, f, p->head);
}

#endif
