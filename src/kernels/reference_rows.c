/* reference_rows.c: the scalar references of the row operations and of the casts. */
#include "kernels/kernels.h"
#include <math.h>
#include <string.h>

void fv_fill_reference(int64_t n, float value, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = value;
}

void fv_copy_rows_reference(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            y[i * ldy + f] = x[i * ldx + f];
}

void fv_prefetch_rows_reference(int64_t n, int64_t c, const float *x, int64_t ldx)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f += 16) /* a cache line of 64 bytes */
            __builtin_prefetch(x + i * ldx + f, 0, 2);
}

void fv_transpose_reference(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            y[f * ldy + i] = x[i * ldx + f];
}

void fv_scale_reference(int64_t n, float alpha, const float *x, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = alpha * x[i];
}

void fv_axpy_reference(int64_t n, float alpha, const float *x, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += alpha * x[i];
}

void fv_add_reference(int64_t n, const float *a, const float *b, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] + b[i];
}

void fv_mul_add_reference(int64_t n, const float *a, const float *b, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += a[i] * b[i];
}

void fv_mul_reference(int64_t n, const float *a, const float *b, float *y)
{
    for (int64_t i = 0; i < n; i++)
        y[i] = a[i] * b[i];
}

void fv_scale_rows_reference(int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, int add,
                             float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++) {
        float weight = w != NULL ? w[i] : 1.0f;
        for (int64_t f = 0; f < c; f++) {
            float value = weight * x[i * ldx + f];
            y[i * ldy + f] = add ? y[i * ldy + f] + value : value;
        }
    }
}

void fv_bias_rows_reference(int64_t n, int64_t c, const float *x, const float *bias, float *y)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            y[i * c + f] = x[i * c + f] + bias[f];
}

float fv_max_abs_reference(int64_t n, const float *x)
{
    float top = 0.0f;
    for (int64_t i = 0; i < n; i++)
        if (isnan(x[i]) || fabsf(x[i]) > top)
            top = fabsf(x[i]); /* a NaN stays: no comparison with it is true */
    return top;
}

int fv_within_reference(int64_t n, float low, float high, const float *x)
{
    for (int64_t i = 0; i < n; i++)
        if (!(fabsf(x[i]) <= high) || (fabsf(x[i]) < low && x[i] != 0.0f))
            return 0;
    return 1;
}

/* The sums are wanted in double: the reference adds in more, its order being the worst one. */
double fv_sum_squares_reference(int64_t n, const float *x)
{
    long double sum = 0.0L;
    for (int64_t i = 0; i < n; i++)
        sum += (long double)x[i] * (long double)x[i];
    return (double)sum;
}

double fv_sum_reference(int64_t n, const float *x)
{
    long double sum = 0.0L;
    for (int64_t i = 0; i < n; i++)
        sum += (long double)x[i];
    return (double)sum;
}

int fv_all_finite_reference(int64_t n, int64_t c, const float *x, int64_t ldx)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            if (!isfinite(x[i * ldx + f]))
                return 0;
    return 1;
}

int fv_finite_rows_reference(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    int all = 1;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t f = 0; f < c; f++) {
            float value = x[i * ldx + f];
            all &= isfinite(value) != 0;
            y[i * ldy + f] = isfinite(value) ? value : 0.0f;
        }
    }
    return all;
}

void fv_mask_rows_reference(int64_t n, int64_t c, const int64_t *visible, float *x, int64_t ldx)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = FV_MAX(visible[i], 0); j < c; j++)
            x[i * ldx + j] = 0.0f;
}

void fv_gather_rows_reference(int64_t n, int64_t c, const int32_t *ids, const float *table, float *y)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            y[i * c + f] = table[ids[i] * c + f];
}

void fv_scatter_add_rows_reference(int64_t n, int64_t c, const int32_t *ids, const float *dy,
                                   float *table_grad)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            table_grad[ids[i] * c + f] += dy[i * c + f];
}

/* bfloat16 is the upper half of a float32. Adding 0x7fff plus the last kept bit rounds to nearest even; a NaN
 * keeps its sign and upper payload and is made quiet, lest the addition carry it into infinity. */
void fv_f32_to_bf16_reference(int64_t n, const float *x, uint16_t *y)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
        y[i] = (uint16_t)(isnan(x[i]) ? bits >> 16 | 0x40 : rounded);
    }
}

void fv_bf16_to_f32_reference(int64_t n, const uint16_t *x, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)x[i] << 16;
        memcpy(&y[i], &bits, sizeof bits);
    }
}

void fv_round_bf16_reference(int64_t n, const float *x, uint16_t *half, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        uint16_t one;
        fv_f32_to_bf16_reference(1, x + i, &one);
        fv_bf16_to_f32_reference(1, &one, y + i);
        if (half != NULL)
            half[i] = one;
    }
}
