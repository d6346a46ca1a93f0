/* reference_functions.c: the scalar references of the functions of generalized maps and of products of
 * channels. */
#include "kernels/kernels.h"
#include <math.h>

static double logistic(double x)
{
    return x >= 0 ? 1 / (1 + exp(-x)) : exp(x) / (1 + exp(x));
}

static double normal_cdf(double x)
{
    return 0.5 * erfc(-x * 0.70710678118654752);
}

/* log2(exp(x) + eps), the larger term taken out. */
static double log2_of_sum(double x, double eps)
{
    double a = x * 1.4426950408889634, b = log2(eps);
    if (eps == 0)
        return a;
    double top = a > b || isnan(a) ? a : b, below = a > b ? b - a : a - b;
    return top + log1p(exp2(below)) * 1.4426950408889634;
}

static double value_of(int function, double x, double eps)
{
    switch (function) {
    case FV_FUNCTION_RELU:
        return (x <= 0 ? 0 : x) + eps;
    case FV_FUNCTION_EXP:
        return log2_of_sum(x, eps);
    case FV_FUNCTION_SIGMOID:
        return logistic(x) + eps;
    case FV_FUNCTION_TANH:
        return tanh(x) + eps;
    case FV_FUNCTION_GELU:
        return x * normal_cdf(x) + eps;
    case FV_FUNCTION_ABS:
        return fabs(x) + eps;
    case FV_FUNCTION_SQUARE:
        return x * x + eps;
    case FV_FUNCTION_RELU2:
        return (x <= 0 ? 0 : x * x) + eps;
    case FV_FUNCTION_COS:
        return cos(x) + eps;
    case FV_FUNCTION_SIN:
        return sin(x) + eps;
    case FV_FUNCTION_ELU1:
        return (x <= 0 ? exp(x) : x + 1) + eps;
    case FV_FUNCTION_SOFTPLUS:
        return (x <= 0 ? 0 : x) + log1p(exp(-fabs(x))) + eps;
    default:
        return x + eps;
    }
}

static double slope_of(int function, double x, double eps)
{
    double t;
    switch (function) {
    case FV_FUNCTION_RELU:
        return x <= 0 ? 0 : 1;
    case FV_FUNCTION_EXP:
        return eps > 0 ? logistic(x - log(eps)) : 1;
    case FV_FUNCTION_SIGMOID:
        t = exp(-fabs(x));
        return t / ((1 + t) * (1 + t));
    case FV_FUNCTION_TANH:
        t = exp(-2 * fabs(x));
        return 4 * t / ((1 + t) * (1 + t));
    case FV_FUNCTION_GELU:
        return normal_cdf(x) + x * exp(-0.5 * x * x) * 0.39894228040143268;
    case FV_FUNCTION_ABS:
        return x > 0 ? 1 : x < 0 ? -1 : x;
    case FV_FUNCTION_SQUARE:
        return 2 * x;
    case FV_FUNCTION_RELU2:
        return x <= 0 ? 0 : 2 * x;
    case FV_FUNCTION_COS:
        return -sin(x);
    case FV_FUNCTION_SIN:
        return cos(x);
    case FV_FUNCTION_ELU1:
        return x > 0 ? 1 : exp(x);
    case FV_FUNCTION_SOFTPLUS:
        return logistic(x);
    default:
        return 1;
    }
}

void fv_function_rows_reference(int function, int64_t n, int64_t c, float eps, const float *x, int64_t ldx,
                                float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            y[i * ldy + f] = (float)value_of(function, (double)x[i * ldx + f], (double)eps);
}

void fv_function_rows_back_reference(int function, int64_t n, int64_t c, float eps, const float *x,
                                     int64_t ldx, const float *dy, int64_t lddy, float *dx, int64_t lddx)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++) {
            double slope = slope_of(function, (double)x[i * ldx + f], (double)eps);
            dx[i * lddx + f] = (float)(slope * (double)dy[i * lddy + f] + 0.0); /* no -0 */
        }
}

void fv_square_rows_reference(int64_t n, int64_t c, float factor, const float *x, int64_t ldx, float *y,
                              int64_t ldy)
{
    float mixed = (float)((double)factor * 1.4142135623730951);
    for (int64_t i = 0; i < n; i++, x += ldx) {
        float *to = y + i * ldy;
        for (int64_t a = 0; a < c; a++) {
            float first = x[a];
            *to++ = factor * first * first;
            for (int64_t b = a + 1; b < c; b++)
                *to++ = mixed * first * x[b];
        }
    }
}

void fv_square_rows_back_reference(int64_t n, int64_t c, float factor, const float *x, int64_t ldx,
                                   const float *dy, int64_t lddy, float *dx, int64_t lddx)
{
    float mixed = (float)((double)factor * 1.4142135623730951);
    for (int64_t i = 0; i < n; i++, x += ldx, dx += lddx) {
        const float *from = dy + i * lddy;
        for (int64_t a = 0; a < c; a++) {
            double sum = 2.0 * (double)factor * (double)x[a] * (double)*from++;
            for (int64_t b = a + 1; b < c; b++, from++) {
                dx[b] += mixed * x[a] * *from;
                sum += (double)mixed * (double)x[b] * (double)*from;
            }
            dx[a] += (float)sum;
        }
    }
}

void fv_cyclic_rows_reference(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++, x += ldx, y += ldy) {
        float first = x[0];
        for (int64_t f = 0; f < c; f++)
            y[f] = x[f] * (f + 1 < c ? x[f + 1] : first);
    }
}

void fv_cyclic_rows_back_reference(int64_t n, int64_t c, const float *x, int64_t ldx, const float *dy,
                                   int64_t lddy, float *dx, int64_t lddx)
{
    for (int64_t i = 0; i < n; i++, x += ldx, dy += lddy, dx += lddx)
        for (int64_t f = 0; f < c; f++) {
            int64_t before = (f + c - 1) % c, after = (f + 1) % c;
            dx[f] = dy[f] * x[after] + dy[before] * x[before];
        }
}

void fv_log2_sums_reference(int64_t n, int64_t c, const float *x, int64_t ldx, float *out)
{
    for (int64_t i = 0; i < n; i++, x += ldx) {
        float top = x[0];
        double sum = 0;
        for (int64_t f = 1; f < c; f++)
            top = x[f] > top ? x[f] : top;
        for (int64_t f = 0; f < c; f++)
            sum += exp2((double)x[f] - (double)top);
        out[i] = (float)((double)top + log2(sum));
    }
}
