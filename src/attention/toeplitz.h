/* attention/toeplitz.h: FastRPB (Zubkov and Gavrilov 2022, arXiv 2202.11364): relative position as a Toeplitz matrix on the
 * values, beside any attention and independent of it.
 *
 *     y_i += sum_j T_ij v_j,   T_ij = w[i - j]                                    a sequence
 *                              T_ij = w[row i - row j] + w[col i - col j]         an R x R raster, row by row
 *
 * i and j count from the start of their own sequence; causal: T_ij = 0 for j > i. w [H][2N-1] holds the weight of
 * delta at delta+N-1, for shorter sequences too. A raster has R for N. The first `skip` tokens of every sequence
 * neither give nor receive; the raster is then the rest.
 *
 * Cost a head and channel: O(n log n) bidirectional; causal O(n log^2 n) of shorter transforms, about twice the time.
 * Rasters O(n), causal ones O(n log n). Memory O(n) beside the tensors; nothing is kept for the backward pass.
 *
 * Bidirectional sequences are one convolution by Fourier transform, short ones a product with the tile T. A
 * transform over a whole sequence leaks later tokens into earlier ones by rounding, so causal sequences are
 * cut: blocks of FV_TP_BLOCK tokens take their own past by a product with the lower triangle of T, and what lies
 * before by transforms from finished blocks to later ones, FV_TP_FAN blocks a level, each level's blocks FV_TP_FAN
 * times as long (relaxed convolution, van der Hoeven 2002). Sizes depend on the level alone: a prefix has the bits
 * of the whole.
 *
 * Values that are not finite stay out of the transforms, where they would reach every channel that shares
 * the transform; they make the rows which see them NaN in their own channel.
 */
#ifndef FV_TOEPLITZ_H
#define FV_TOEPLITZ_H

#include "kernels/kernels.h"
#include <favor/attention.h>

typedef struct fv_toeplitz {
    fv_context *ctx;
    const fv_layout *layout;
    int64_t heads, kv_heads, width; /* H, G, dv */
    int64_t span;                   /* N, or R of a raster */
    int64_t skip;
    bool causal, raster;
} fv_toeplitz;

/* FV_ERR_FILE when a sequence has more tokens than weights, or is no raster. */
fv_status fv_toeplitz_check(const fv_toeplitz *t);
size_t fv_toeplitz_scratch(const fv_toeplitz *t, bool backward);

/* y [Tq][H][dv] += T v, v [Tk][G][dv]; strides are floats from token to token. */
void fv_toeplitz_forward(const fv_toeplitz *t, const float *w, const float *v, int64_t ldv, float *y,
                         int64_t ldy, void *scratch);
/* dv_j += sum_i T_ij dy_i, stride of v; dw_delta += sum over T_ij = w_delta of dy_i . v_j. NULL: not wanted. */
void fv_toeplitz_backward(const fv_toeplitz *t, const float *w, const float *v, int64_t ldv, const float *dy,
                          int64_t ldy, float *dv, float *dw, void *scratch);

#endif
