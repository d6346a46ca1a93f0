/* attention/fft.h: convolution of many channels at once by the Fourier transform.
 *
 * A row holds c complex channels (real parts, then imaginary parts); a real filter keeps both parts apart, so a
 * complex channel carries two real ones. Splitting leaves the frequencies in the order of its passes, filters
 * are transformed the same way, and joining begins where splitting ended: nothing is ever reordered.
 * Sizes are 2^a and 3 2^a, twiddle factors are computed in double. Blocks that fit the second-level cache are
 * split, filtered and joined before the next one is touched.
 *
 * Cost: 4.25 P log2 P flop a complex channel and direction (Cooley and Tukey 1965, radix 4). Error of a
 * convolution: a small multiple of eps log2 P |filter|_2 |x|_2, where |x|_2 is that of both channels which share a
 * complex one: it is relative to the norm, not to each entry.
 */
#ifndef FV_FFT_H
#define FV_FFT_H

#include "kernels/kernels.h"

enum { FV_FFT_PASSES = 32 };

typedef struct fv_fft_pass {
    int64_t n; /* rows of a run */
    int radix;
    const float *twiddle;
} fv_fft_pass;

typedef struct fv_fft {
    const fv_kernels *kr;
    int64_t size;
    int count;
    fv_fft_pass pass[FV_FFT_PASSES];
} fv_fft;

/* The least size >= n that is 2^a or 3 2^a; n >= 1. */
int64_t fv_fft_size(int64_t n);
/* Floats of the twiddle factors of a size. */
int64_t fv_fft_floats(int64_t size);
void fv_fft_twiddles(int64_t size, float *twiddles);
fv_fft fv_fft_make(const fv_kernels *kr, int64_t size, const float *twiddles);

/* x [size][2 c], dense, in place. Joining gives `size` times the inverse. */
void fv_fft_split(const fv_fft *f, int64_t c, float *x);
void fv_fft_join(const fv_fft *f, int64_t c, float *x);
/* Split, times re + i im (or its conjugate: correlation) [size] each, join. */
void fv_fft_convolve(const fv_fft *f, int64_t c, const float *re, const float *im, bool conjugate, float *x);

#endif
