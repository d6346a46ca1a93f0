/* attention/kernelized_fft.h: position bias kernel by Fourier transforms; what kernelized_fft*.c share. With T_ij = e^{w[i-j]}
 * and U_f = T (phi_f(K) . [V, 1]),
 *
 *     [num, den]_i = sum_f phi_f(q_i) U_f,i
 *
 * so that every feature and value channel is one Toeplitz product (Luo et al. 2021): O(L log L r dv) a head.
 *
 * Memory. A block of FV_KZ_FFT_FEATURES features is computed from q and k, tile by tile, and kept by feature: phi of the keys,
 * psi of the queries, [feature][token]. Its products run in batches of about FV_KZ_FFT_COLUMNS channels. Two value channels
 * of one feature share a complex channel, and with it their roundings; the normaliser's channels are alone.
 *
 * Exponents. The features of a product's keys are taken relative to the least 2^e_f above all of them; psi takes 2^e_f and the
 * row's 2^-M (kernelized_bias.c).
 *
 * Causal. Pairs inside a block of B tokens stay in tiles. On the level m = B, 2 B, 4 B ... every other block of m tokens gives
 * to the m tokens behind it. Keys and rows of a product are disjoint stretches, so that nothing of a row or of what follows
 * it enters its exponents or its roundings. Rows of the first FV_KZ_FFT_LATE blocks stay in tiles. Which way a pair goes hangs on
 * where it stands and on the weights, never on the sequence's length: a longer one begins like a shorter one.
 *
 * When: docs/DECISIONS.md; how accurate: docs/NUMERICS.md.
 *
 * Values and gradients that are not finite stay out of the transforms, where they would reach the channel beside; they make the
 * rows which see them NaN.
 */
#ifndef FV_KERNELIZED_FFT_H
#define FV_KERNELIZED_FFT_H

#include "attention/kernelized.h"
#include "attention/toeplitz_filters.h"

enum {
    FV_KZ_FFT_FEATURES = 64, /* of a block: computing all of them r / 64 times is a tenth of the work */
    FV_KZ_FFT_COLUMNS = 128, /* 64 complex channels; 32 take a fifth longer */
    FV_KZ_FFT_TURN = 128,    /* transforms from this many times r dv / (r + dv) tokens on, */
    FV_KZ_FFT_SHORT = 512,   /* and longer than this: tiles, which err less, are as good as free there */
    FV_KZ_FFT_LATE = 4,      /* causal: blocks whose rows have no transforms */
    FV_KZ_FFT_UNEVEN = 64,   /* how much smaller than their root mean square weights may be */
};

/* What the workers of a call share. */
typedef struct fv_kz_fft {
    fv_tp_bank bank;              /* causal: one filter a level; else one a pair of lengths */
    float *weights;               /* [H][2N-1] e^w relative to 2^top, where some filter has it */
    float *top;                   /* [H], whole numbers */
    float *gradient;              /* [H][2N-1] backward: of the weights */
    int64_t *full;                /* [sequences] bidirectional: the filter, -1: tiles */
    int64_t longest_q, longest_k; /* of the sequences that are transformed */
    int64_t rows, size;           /* longest side of a product, largest transform */
    int64_t block, late;          /* causal: B, and the first row with transforms */
    int64_t workers;
    char *work; /* [workers] blocks of work_bytes */
    size_t work_bytes;
} fv_kz_fft;

/* Keys [key, key + nk) and rows [row, row + nq), each of which sees all of them. */
typedef struct fv_kz_product {
    int64_t row, nq, key, nk;
    const fv_tp_filter *filter;
} fv_kz_product;

/* Runs a function over the products of a head, in order. */
typedef void fv_kz_product_run(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w,
                               const fv_kz_product *p);
void fv_kz_fft_products(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, fv_kz_product_run *run);

/* Features [first, first + count) of the block in hand. A row of a transform has count times width real parts, feature by feature,
 * of value channels [re, re + width), then as many imaginary ones, of channels [im, im + partners) and 0. */
typedef struct fv_kz_batch {
    int64_t first, count, width, re, im, partners;
} fv_kz_batch;

/* The largest batch of a block of `features` from one of them and a value channel on (below (dv + 1) / 2: the others are
 * partners), and that of the normaliser, whose value is 1. */
fv_kz_batch fv_kz_fft_batch(const fv_kz_call *call, int64_t features, int64_t first, int64_t channel);
fv_kz_batch fv_kz_fft_ones(int64_t features);

/* n rows, and factors [features of the block][n] of them. */
typedef struct fv_kz_side {
    int64_t n;
    const float *factor, *rows;
    int64_t ld; /* of rows; 0: one row for all */
} fv_kz_side;

/* x [size] = factor times rows, then 0. */
void fv_kz_fft_gather(const fv_kz_call *call, const fv_kz_batch *b, const fv_kz_side *side, int64_t size,
                      float *x);
/* rows [n][ld] += sum over the batch's features of factor times x. */
void fv_kz_fft_spread(const fv_kz_call *call, const fv_kz_batch *b, int64_t n, const float *factor,
                      const float *x, float *rows, int64_t ld);

/* rows [n][dv] become NaN in the channels where a row of x [m][dv] is not finite. */
void fv_kz_fft_poison(const fv_kz_call *call, fv_kz_work *w, int64_t m, const float *x, int64_t ldx,
                      int64_t n, float *rows, int64_t ld);

/* w->state.e = the exponents of a product's keys. */
void fv_kz_fft_exponents(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p);
/* phi and psi of features [first, first + count). */
void fv_kz_fft_features(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_kz_product *p,
                        int64_t first, int64_t count);
/* Features of n queries into w->q, and w->rpe.fresh, by which psi is larger. */
void fv_kz_fft_queries(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t row, int64_t n);

#endif
