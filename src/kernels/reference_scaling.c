/* reference_scaling.c: the scalar references of ppSBN's scaling before and behind attention. Sums in double. */
#include "kernels/kernels.h"
#include <float.h>
#include <math.h>

void fv_unit_rows_reference(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy,
                            float *inv)
{
    for (int64_t i = 0; i < n; i++) {
        double mean = 0, squares = 0;
        for (int64_t f = 0; f < c; f++)
            mean += (double)x[i * ldx + f];
        mean /= (double)c;
        for (int64_t f = 0; f < c; f++) {
            double z = (double)x[i * ldx + f] - mean;
            squares += z * z;
        }
        /* Written so that NaN is not taken for 0. */
        double factor = squares < (double)FLT_MIN * (double)FLT_MIN ? 0 : 1 / sqrt(squares);
        for (int64_t f = 0; f < c; f++)
            y[i * ldy + f] = (float)(((double)x[i * ldx + f] - mean) * factor);
        inv[i] = (float)factor;
    }
}

void fv_unit_rows_back_reference(int64_t n, int64_t c, const float *y, int64_t ldy, const float *inv,
                                 const float *dy, int64_t lddy, float *dx, int64_t lddx)
{
    for (int64_t i = 0; i < n; i++) {
        double mean = 0, along = 0;
        for (int64_t f = 0; f < c; f++) {
            mean += (double)dy[i * lddy + f];
            along += (double)dy[i * lddy + f] * (double)y[i * ldy + f];
        }
        mean /= (double)c;
        for (int64_t f = 0; f < c; f++) {
            double d = (double)dy[i * lddy + f] - mean - (double)y[i * ldy + f] * along;
            dx[i * lddx + f] = (float)((double)dx[i * lddx + f] + (double)inv[i] * d);
        }
    }
}

/* sign(x) |x|^power */
static double signed_power(float x, float power)
{
    if (power == 1.0f || x == 0.0f)
        return (double)x;
    return copysign((double)powf(fabsf(x), power), (double)x);
}

void fv_power_rows_reference(int64_t n, int64_t c, float gain, const float *power, const float *x,
                             int64_t ldx, float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            y[i * ldy + f] =
                (float)((double)gain * signed_power(x[i * ldx + f], power != NULL ? power[f] : 1.0f));
}

/* One column; returns the sum for dgain. */
static double power_column(int64_t n, float gain, float power, const float *x, int64_t ldx, const float *dy,
                           int64_t lddy, float *dx, int64_t lddx, float *dpower)
{
    double for_gain = 0, for_power = 0;
    for (int64_t i = 0; i < n; i++) {
        float u = x[i * ldx];
        double p = signed_power(u, power), d = (double)dy[i * lddy];
        dx[i * lddx] = u == 0.0f ? 0.0f : (float)(d * (double)gain * (double)power * p / (double)u);
        for_gain += d * p;
        if (dpower != NULL && u != 0.0f)
            for_power += d * p * log(fabs((double)u));
    }
    if (dpower != NULL)
        *dpower += (float)((double)gain * for_power);
    return for_gain;
}

void fv_power_rows_back_reference(int64_t n, int64_t c, float gain, const float *power, const float *x,
                                  int64_t ldx, const float *dy, int64_t lddy, float *dx, int64_t lddx,
                                  float *dgain, float *dpower)
{
    double sum = 0;
    for (int64_t f = 0; f < c; f++)
        sum += power_column(n, gain, power != NULL ? power[f] : 1.0f, x + f, ldx, dy + f, lddy, dx + f, lddx,
                            dpower != NULL ? dpower + f : NULL);
    if (dgain != NULL)
        *dgain += (float)sum;
}
