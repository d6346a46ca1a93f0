/* support/kernel_cases_layers.c: cases of layers, optimizer, casts. */
#include "support/kernel_cases.h"
#include <float.h>
#include <math.h>
#include <string.h>

/* ---- layers ---- */

static void call_layernorm(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->layernorm(o->n, o->c, 1e-5f, o->in[0], o->in[1], o->in[2], o->out[0],
                     o->variant ? NULL : o->out[1]);
}

/* With s = mean |x|: the mean errs by eps s, a difference d by eps e with e = |x| + s, the variance v by
 * eps times mean(2 |d| e + d^2), hence rstd by rstd^3 / 2 times that, and y by the sum of its factors'
 * errors. */
static void magnitude_layernorm(operands *a, const operands *r)
{
    for (int64_t i = 0; i < a->n; i++) {
        const float *x = r->in[0] + i * a->c;
        double mean = 0.0, s = 0.0, var = 0.0, e_var = 0.0;
        for (int64_t f = 0; f < a->c; f++) {
            mean += (double)x[f] / (double)a->c;
            s += fabs((double)x[f]) / (double)a->c;
        }
        for (int64_t f = 0; f < a->c; f++) {
            double d = fabs((double)x[f] - mean);
            var += d * d / (double)a->c;
            e_var += (2.0 * d * (fabs((double)x[f]) + s) + d * d) / (double)a->c;
        }
        double rstd = 1.0 / sqrt(var + 1e-5);
        double e_rstd = rstd + 0.5 * rstd * rstd * rstd * e_var;
        for (int64_t f = 0; f < a->c; f++) {
            double d = fabs((double)x[f] - mean), e = fabs((double)x[f]) + s;
            double g = (double)a->in[1][f];
            a->out[0][i * a->c + f] = (float)((e * rstd + d * e_rstd) * g + (double)a->in[2][f]);
        }
        a->out[1][2 * i] = (float)s;
        a->out[1][2 * i + 1] = (float)e_rstd;
    }
}

static void call_layernorm_back(const fv_kernels *k, operands *o)
{
    k->layernorm_back(o->n, o->c, o->in[0], o->in[1], o->in[2], o->in[3], o->out[0], o->out[1], o->out[2]);
}

static void prepare_layernorm_back(operands *o)
{
    for (int64_t i = 0; i < o->n; i++)
        o->in[2][2 * i + 1] = fabsf(o->in[2][2 * i + 1]);
}

/* The formula with every minus a plus. */
static void magnitude_layernorm_back(operands *a, const operands *r)
{
    (void)r;
    for (int64_t i = 0; i < a->n; i++) {
        double mean = (double)a->in[2][2 * i], rstd = (double)a->in[2][2 * i + 1], g = 0.0, gh = 0.0;
        for (int64_t f = 0; f < a->c; f++) {
            double h = ((double)a->in[0][i * a->c + f] + mean) * rstd;
            double term = (double)a->in[3][i * a->c + f] * (double)a->in[1][f];
            g += term / (double)a->c;
            gh += term * h / (double)a->c;
        }
        for (int64_t f = 0; f < a->c; f++) {
            double h = ((double)a->in[0][i * a->c + f] + mean) * rstd, d = (double)a->in[3][i * a->c + f];
            a->out[0][i * a->c + f] += (float)(rstd * (d * (double)a->in[1][f] + g + h * gh));
            a->out[1][f] += (float)(d * h);
            a->out[2][f] += (float)d;
        }
    }
}

static void call_bias_relu(const fv_kernels *k, operands *o)
{
    float *pre = o->variant & 2 ? NULL : o->out[1];
    k->bias_relu(o->n, o->c, o->in[0], o->variant & 1 ? NULL : o->in[1], pre, o->out[0]);
}

static void call_relu_back(const fv_kernels *k, operands *o)
{
    k->relu_back(o->n * o->c, o->in[0], o->in[1], o->out[0]);
}

static void call_dropout(const fv_kernels *k, operands *o)
{
    static const uint32_t key[2] = {0x12345678, 0x9abcdef0}, high[2] = {4u << 24, 77};
    static const float rates[] = {0.1f, 0.0f, 0.5f, 0.999f};
    uint64_t first = UINT64_C(0xfffffffd); /* carries into the upper half of the counter */
    k->dropout(o->n * o->c, rates[o->variant / 2], key, high, first, o->in[0], o->variant % 2, o->out[0]);
}

static void call_cross_entropy(const fv_kernels *k, operands *o)
{
    int32_t best[16];
    if (o->c == 0)
        return;
    k->cross_entropy(o->n, o->c, o->in[0], o->ids, 0.25f, o->out[0], best, o->variant ? NULL : o->out[1]);
    for (int64_t i = 0; i < o->n; i++)
        o->out[2][i] = (float)best[i];
}

/* exp(x - top) errs by eps (1 + |x - top|) of itself; the sum by the worst of its terms' shares. */
static void magnitude_cross_entropy(operands *a, const operands *r)
{
    for (int64_t i = 0; i < a->n && a->c > 0; i++) {
        const float *x = r->in[0] + i * a->c;
        double top = -(double)INFINITY, sum = 0.0, error = 0.0;
        for (int64_t j = 0; j < a->c; j++)
            top = FV_MAX(top, (double)x[j]);
        for (int64_t j = 0; j < a->c; j++) {
            sum += exp((double)x[j] - top);
            error += exp((double)x[j] - top) * (1.0 + top - (double)x[j]);
        }
        a->out[0][i] = (float)(fabs(top) + fabs((double)x[r->ids[i]]) + log(sum) + error / sum);
        for (int64_t j = 0; j < a->c; j++) {
            double p = exp((double)x[j] - top) / sum, flushed = (double)FLT_MIN / (double)FLT_EPSILON;
            double m = p * (1.0 + top - (double)x[j] + error / sum) + flushed;
            a->out[1][i * a->c + j] = (float)(0.25 * (m + (j == r->ids[i] ? 1.0 : 0.0)));
        }
        a->out[2][i] = 0.0f;
    }
}

/* ---- optimizer, casts ---- */

static void call_adamw(const fv_kernels *k, operands *o)
{
    k->adamw(o->n * o->c, 1e-3f, 0.9f, 0.999f, 1e-8f, 0.01f, 0.5f, 0.19f, 0.002f, o->in[0], o->out[0],
             o->out[1], o->out[2]);
}

static void prepare_adamw(operands *o)
{
    for (int64_t i = 0; i < o->n * o->c; i++)
        o->out[2][i] = fabsf(o->out[2][i]);
}

/* As computed, with absolute moments: the root's error is half of v's, the quotient's the sum of both. */
static void magnitude_adamw(operands *a, const operands *r)
{
    for (int64_t i = 0; i < a->n * a->c; i++) {
        double root = sqrt((double)r->out[2][i] / 0.002) + 1e-8;
        double g = 0.5 * (double)a->in[0][i], p = (double)a->out[0][i];
        double m = 0.9 * (double)a->out[1][i] + 0.1 * g;
        double v = 0.999 * (double)a->out[2][i] + 0.001 * g * g + (double)FLT_MIN;
        a->out[0][i] = (float)(p + 1e-3 * (m / 0.19 / root * 2.0 + 0.01 * p));
        a->out[1][i] = (float)m;
        a->out[2][i] = (float)v;
    }
}

/* The 16-bit arrays end where the floats of the operand end: a tail past them would be noticed. */
static void call_f32_to_bf16(const fv_kernels *k, operands *o)
{
    int64_t n = o->n * o->c;
    uint16_t *half = (uint16_t *)(void *)(o->out[0] + n) - n, one;
    k->f32_to_bf16(n, o->in[0], half);
    for (int64_t i = 0; i < n; i++) { /* float i covers halves up to i at most */
        memcpy(&one, half + i, sizeof one);
        o->out[0][i] = (float)one;
    }
}

static void call_bf16_to_f32(const fv_kernels *k, operands *o)
{
    int64_t n = o->n * o->c;
    k->bf16_to_f32(n, (const uint16_t *)(const void *)(o->in[0] + n) - n, o->out[0]);
}

/* Variant 0 wants floats only; the halves of variant 1 are told by out[1], as above. */
static void call_round_bf16(const fv_kernels *k, operands *o)
{
    int64_t n = o->n * o->c;
    uint16_t *half = (uint16_t *)(void *)(o->out[1] + n) - n, one;
    k->round_bf16(n, o->in[0], o->variant ? half : NULL, o->out[0]);
    for (int64_t i = 0; o->variant && i < n; i++) {
        memcpy(&one, half + i, sizeof one);
        o->out[1][i] = (float)one;
    }
}

/* clang-format off */
const kernel_case kernel_cases_layers[] = {
    {CALL(layernorm), .in = "DCC", .out = "dt", .variants = 2, MAGNITUDE(layernorm), .in_place = 1},
    {CALL(layernorm_back), .in = "DCTD", .out = "DCC", .variants = 1, PREPARE(layernorm_back), MAGNITUDE(layernorm_back)},
    {CALL(bias_relu), .in = "DC", .out = "dd", .variants = 4},
    {CALL(relu_back), .in = "DD", .out = "d", .variants = 1, SELF, .in_place = 2},
    {CALL(dropout), .in = "D", .out = "D", .variants = 8, .in_place = 1},
    {CALL(cross_entropy), .in = "D", .out = "ndn", .variants = 2, MAGNITUDE(cross_entropy)},
    {CALL(adamw), .in = "D", .out = "DDD", .variants = 1, PREPARE(adamw), MAGNITUDE(adamw)},
    {CALL(f32_to_bf16), .in = "D", .out = "d", .variants = 1, SELF},
    {CALL(bf16_to_f32), .in = "D", .out = "d", .variants = 1, SELF},
    {CALL(round_bf16), .in = "D", .out = "dd", .variants = 2, SELF, .in_place = 1},
    {.name = NULL},
};
/* clang-format on */
