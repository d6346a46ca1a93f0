/* reference_layers.c: the scalar references of layer norm, activations, dropout, loss and AdamW. */
#include "kernels/kernels.h"
#include <math.h>

static const double sqrt_half = 0.70710678118654752440;
static const double inv_sqrt_two_pi = 0.39894228040143267794;

void fv_layernorm_reference(int64_t n, int64_t c, float eps, const float *x, const float *gain,
                            const float *bias, float *y, float *stats)
{
    for (int64_t i = 0; i < n; i++) {
        const float *row = x + i * c;
        double mean = 0.0, variance = 0.0;
        for (int64_t f = 0; f < c; f++)
            mean += (double)row[f] / (double)c;
        for (int64_t f = 0; f < c; f++)
            variance += ((double)row[f] - mean) * ((double)row[f] - mean) / (double)c;
        double rstd = 1.0 / sqrt(variance + (double)eps);
        for (int64_t f = 0; f < c; f++)
            y[i * c + f] = (float)(((double)row[f] - mean) * rstd * (double)gain[f] + (double)bias[f]);
        if (stats != NULL) {
            stats[2 * i] = (float)mean;
            stats[2 * i + 1] = (float)rstd;
        }
    }
}

/* With h = (x - mean) rstd and g = dy gain: dx = rstd (g - mean(g) - h mean(g h)). */
void fv_layernorm_back_reference(int64_t n, int64_t c, const float *x, const float *gain, const float *stats,
                                 const float *dy, float *dx, float *dgain, float *dbias)
{
    for (int64_t i = 0; i < n; i++) {
        double mean = (double)stats[2 * i], rstd = (double)stats[2 * i + 1];
        double mean_g = 0.0, mean_gh = 0.0;
        for (int64_t f = 0; f < c; f++) {
            double h = ((double)x[i * c + f] - mean) * rstd;
            double g = (double)dy[i * c + f] * (double)gain[f];
            mean_g += g / (double)c;
            mean_gh += g * h / (double)c;
        }
        for (int64_t f = 0; f < c; f++) {
            double h = ((double)x[i * c + f] - mean) * rstd;
            double d = (double)dy[i * c + f];
            dx[i * c + f] += (float)(rstd * (d * (double)gain[f] - mean_g - h * mean_gh));
            dgain[f] += (float)(d * h);
            dbias[f] += (float)d;
        }
    }
}

/* Phi(u) = (1 + erf(u / sqrt 2)) / 2, without the cancellation of that form in the lower tail. */
static double normal_cdf(double u)
{
    return 0.5 * erfc(-u * sqrt_half);
}

void fv_bias_gelu_reference(int64_t n, int64_t c, const float *x, const float *bias, float *pre, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t f = 0; f < c; f++) {
            float u = x[i * c + f] + (bias != NULL ? bias[f] : 0.0f);
            if (pre != NULL)
                pre[i * c + f] = u;
            y[i * c + f] = (float)((double)u * normal_cdf((double)u));
        }
    }
}

/* gelu'(u) = Phi(u) + u phi(u), phi(u) = exp(-u^2/2) / sqrt(2 pi) */
void fv_gelu_back_reference(int64_t n, const float *pre, const float *dy, float *dx)
{
    for (int64_t i = 0; i < n; i++) {
        double u = (double)pre[i];
        double pdf = inv_sqrt_two_pi * exp(-0.5 * u * u);
        dx[i] = (float)((double)dy[i] * (normal_cdf(u) + u * pdf));
    }
}

void fv_bias_relu_reference(int64_t n, int64_t c, const float *x, const float *bias, float *pre, float *y)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t f = 0; f < c; f++) {
            float u = x[i * c + f] + (bias != NULL ? bias[f] : 0.0f);
            if (pre != NULL)
                pre[i * c + f] = u;
            y[i * c + f] = u <= 0.0f ? 0.0f : u;
        }
    }
}

void fv_relu_back_reference(int64_t n, const float *pre, const float *dy, float *dx)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = pre[i] <= 0.0f ? 0.0f : dy[i];
}

void fv_dropout_reference(int64_t n, float rate, const uint32_t key[2], const uint32_t high[2],
                          uint64_t first, const float *x, int add, float *y)
{
    fv_random stream = {.key = {key[0], key[1]}, .high = {high[0], high[1]}};
    double limit = (double)rate * 0x1p32;
    float scale = 1.0f / (1.0f - rate);
    uint32_t block[4] = {0};
    for (int64_t k = 0; k < n; k++) {
        if (k % 4 == 0)
            fv_random_block(&stream, first + (uint64_t)k / 4, block);
        float value = (double)block[k % 4] >= limit ? x[k] * scale : 0.0f;
        y[k] = add ? y[k] + value : value;
    }
}

void fv_cross_entropy_reference(int64_t n, int64_t c, const float *logits, const int32_t *target,
                                float weight, float *loss, int32_t *best, float *dlogits)
{
    for (int64_t i = 0; i < n; i++) {
        const float *row = logits + i * c;
        float top = -INFINITY;
        best[i] = 0;
        for (int64_t j = 0; j < c; j++) {
            if (row[j] > top) {
                top = row[j];
                best[i] = (int32_t)j;
            }
        }
        double sum = 0.0;
        for (int64_t j = 0; j < c; j++)
            sum += exp((double)row[j] - (double)top);
        loss[i] = (float)((double)top - (double)row[target[i]] + log(sum));
        if (dlogits == NULL)
            continue;
        for (int64_t j = 0; j < c; j++) {
            double p = exp((double)row[j] - (double)top) / sum;
            dlogits[i * c + j] = (float)((double)weight * (p - (j == target[i] ? 1.0 : 0.0)));
        }
    }
}

void fv_adamw_reference(int64_t n, float lr, float beta1, float beta2, float eps, float decay, float clip,
                        float c1, float c2, const float *grad, float *p, float *m, float *v)
{
    for (int64_t i = 0; i < n; i++) {
        float g = clip * grad[i];
        m[i] = beta1 * m[i] + (1.0f - beta1) * g;
        v[i] = beta2 * v[i] + (1.0f - beta2) * (g * g);
        p[i] -= lr * (m[i] / c1 / (sqrtf(v[i] / c2) + eps) + decay * p[i]);
    }
}
