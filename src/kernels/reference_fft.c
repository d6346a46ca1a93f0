/* reference_fft.c: the scalar references of the passes of a Fourier transform and of what is done between its
 * two directions. Computed in double, so that a vector set is judged against the true value. */
#include "kernels/kernels.h"

enum { RADIX_MAX = 4 };

typedef struct number {
    double re, im;
} number;

static number plus(number a, number b)
{
    return (number){a.re + b.re, a.im + b.im};
}

static number minus(number a, number b)
{
    return (number){a.re - b.re, a.im - b.im};
}

static number times(number a, double re, double im)
{
    return (number){a.re * re - a.im * im, a.re * im + a.im * re};
}

/* a + sign i b */
static number plus_i(number a, double sign, number b)
{
    return (number){a.re - sign * b.im, a.im + sign * b.re};
}

/* The transform of 2, 3 or 4 numbers with exp(sign 2 pi i ...). */
static void butterfly(int radix, double sign, number *x)
{
    static const double half_root3 = 0.86602540378443864676;
    number a = x[0], b = x[1], t, m;
    if (radix == 2) {
        x[0] = plus(a, b), x[1] = minus(a, b);
    } else if (radix == 3) {
        t = plus(b, x[2]), m = minus(b, x[2]);
        m = (number){half_root3 * m.re, half_root3 * m.im};
        x[0] = plus(a, t);
        t = (number){a.re - 0.5 * t.re, a.im - 0.5 * t.im};
        x[1] = plus_i(t, sign, m), x[2] = plus_i(t, -sign, m);
    } else {
        number even = plus(a, x[2]), even_minus = minus(a, x[2]);
        number odd = plus(b, x[3]), odd_minus = minus(b, x[3]);
        x[0] = plus(even, odd), x[2] = minus(even, odd);
        x[1] = plus_i(even_minus, sign, odd_minus), x[3] = plus_i(even_minus, -sign, odd_minus);
    }
}

/* One group of rows k, k + s, ... ; twiddle [radix-1][2] or NULL: 1. sign -1: split, +1: join. */
static void group(int64_t s, int radix, int64_t c, const float *twiddle, double sign, float *x, int64_t ldx)
{
    for (int64_t f = 0; f < c; f++) {
        number z[RADIX_MAX] = {{0, 0}};
        for (int p = 0; p < radix; p++) {
            z[p] = (number){(double)x[p * s * ldx + f], (double)x[p * s * ldx + c + f]};
            if (sign > 0 && p > 0 && twiddle != NULL)
                z[p] = times(z[p], (double)twiddle[2 * p - 2], -(double)twiddle[2 * p - 1]);
        }
        butterfly(radix, sign, z);
        for (int p = 0; p < radix; p++) {
            if (sign < 0 && p > 0 && twiddle != NULL)
                z[p] = times(z[p], (double)twiddle[2 * p - 2], (double)twiddle[2 * p - 1]);
            x[p * s * ldx + f] = (float)z[p].re, x[p * s * ldx + c + f] = (float)z[p].im;
        }
    }
}

static void pass(int64_t blocks, int64_t n, int radix, int64_t c, const float *twiddle, double sign, float *x,
                 int64_t ldx)
{
    int64_t s = n / radix;
    for (int64_t b = 0; b < blocks; b++)
        for (int64_t k = 0; k < s; k++)
            group(s, radix, c, k > 0 ? twiddle + k * (radix - 1) * 2 : NULL, sign, x + (b * n + k) * ldx,
                  ldx);
}

void fv_fft_split_reference(int64_t blocks, int64_t n, int radix, int64_t c, const float *twiddle, float *x,
                            int64_t ldx)
{
    pass(blocks, n, radix, c, twiddle, -1, x, ldx);
}

void fv_fft_join_reference(int64_t blocks, int64_t n, int radix, int64_t c, const float *twiddle, float *x,
                           int64_t ldx)
{
    pass(blocks, n, radix, c, twiddle, 1, x, ldx);
}

void fv_fft_filter_reference(int64_t n, int64_t c, const float *re, const float *im, int conjugate,
                             const float *x, int64_t ldx, int add, float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t f = 0; f < c; f++) {
            number z = {(double)x[i * ldx + f], (double)x[i * ldx + c + f]};
            z = times(z, (double)re[i], conjugate ? -(double)im[i] : (double)im[i]);
            if (add)
                z = plus(z, (number){(double)y[i * ldy + f], (double)y[i * ldy + c + f]});
            y[i * ldy + f] = (float)z.re, y[i * ldy + c + f] = (float)z.im;
        }
    }
}

void fv_fft_correlate_reference(int64_t n, int64_t c, const float *a, int64_t lda, const float *b,
                                int64_t ldb, float *re, float *im)
{
    for (int64_t i = 0; i < n; i++) {
        number sum = {(double)re[i], (double)im[i]};
        for (int64_t f = 0; f < c; f++) {
            number z = {(double)b[i * ldb + f], (double)b[i * ldb + c + f]};
            sum = plus(sum, times(z, (double)a[i * lda + f], -(double)a[i * lda + c + f]));
        }
        re[i] = (float)sum.re, im[i] = (float)sum.im;
    }
}

void fv_turn_rows_reference(int64_t n, int64_t c, const float *re, const float *im, int conjugate,
                            const float *x, int64_t ldx, int add, float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t f = 0; f < c; f++) {
            number z = {(double)x[i * ldx + f], (double)x[i * ldx + c + f]};
            z = times(z, (double)re[f], conjugate ? -(double)im[f] : (double)im[f]);
            if (add)
                z = plus(z, (number){(double)y[i * ldy + f], (double)y[i * ldy + c + f]});
            y[i * ldy + f] = (float)z.re, y[i * ldy + c + f] = (float)z.im;
        }
    }
}
