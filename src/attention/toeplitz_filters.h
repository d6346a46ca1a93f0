/* attention/toeplitz_filters.h: a bank of filters: parts of a head's Toeplitz weights, transformed once a call for all products
 * with them, and the gradients of the weights, added up as spectra and transformed back once behind the call.
 *
 * Counted first, then listed: with `filters` NULL adding only counts; carving pushes the lists; adding the same once more
 * fills them. */
#ifndef FV_TOEPLITZ_FILTERS_H
#define FV_TOEPLITZ_FILTERS_H

#include "attention/fft.h"

enum {
    FV_TP_HEADS = 8,  /* heads whose filters are transformed together */
    FV_TP_SIZES = 96, /* of transforms: two an octave, up to sequences of 2^40 tokens */
};

/* Weights w[shift + t], low <= t <= high, transformed at `size`: re [size], im [size] for each head. */
typedef struct fv_tp_filter {
    int64_t size, shift, low, high;
    int64_t at; /* where its numbers begin: [H][2][size] */
    int fft;    /* index in bank->fft */
} fv_tp_filter;

typedef struct fv_tp_bank {
    fv_context *ctx;
    int64_t heads, span; /* H, N */
    const float *w;      /* [H][2 N - 1]: the weight of delta at delta + N - 1 */
    float *dw;           /* its gradient, added to; NULL: not wanted */
    fv_tp_filter *filters;
    int64_t count, floats, largest; /* filters, floats of all of them, largest size */
    int sizes;
    fv_fft fft[FV_TP_SIZES];
    float *twiddles[FV_TP_SIZES];
    float *spectra, *gradients; /* of the filters, times 1 / size; of dw, unscaled */
    char *room;                 /* fv_tp_bank_room floats for each worker, room_bytes apart */
    size_t room_bytes;
} fv_tp_bank;

/* Forgets what was added, but for the lists. */
void fv_tp_bank_clear(fv_tp_bank *bank);
/* Returns the filter's index. */
int64_t fv_tp_bank_add(fv_tp_bank *bank, int64_t size, int64_t shift, int64_t low, int64_t high);
void fv_tp_bank_carve(fv_tp_bank *bank, fv_arena *arena, bool backward);
int64_t fv_tp_bank_room(const fv_tp_bank *bank);
/* Transforms the weights into spectra; gradients from 0 where dw is wanted. */
void fv_tp_bank_begin(fv_tp_bank *bank);
/* Adds the gradients to dw. */
void fv_tp_bank_end(fv_tp_bank *bank);

static inline const float *fv_tp_bank_spectrum(const fv_tp_bank *bank, const fv_tp_filter *f, int64_t head)
{
    return bank->spectra + f->at + head * 2 * f->size;
}

static inline float *fv_tp_bank_gradient(const fv_tp_bank *bank, const fv_tp_filter *f, int64_t head)
{
    return bank->gradients + f->at + head * 2 * f->size;
}

#endif
