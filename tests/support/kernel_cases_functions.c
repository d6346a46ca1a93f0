/* support/kernel_cases_functions.c: cases of functions of one number, generalized maps and GELU. */
#include "support/kernel_cases.h"
#include <float.h>
#include <math.h>

/* Two constants for every function: variants are 2 function + which. */
static float function_eps(const operands *o)
{
    return o->variant % 2 ? 1e-3f : 0.0f;
}

static void call_function_rows(const fv_kernels *k, operands *o)
{
    k->function_rows(o->variant / 2, o->n, o->c, function_eps(o), o->in[0], o->ld, o->out[0], o->ld);
}

static void call_function_rows_back(const fv_kernels *k, operands *o)
{
    k->function_rows_back(o->variant / 2, o->n, o->c, function_eps(o), o->in[0], o->ld, o->in[1], o->ld,
                          o->out[0], o->ld);
}

static double normal_cdf(double u)
{
    return 0.5 * erfc(-u * sqrt(0.5));
}

/* What rounding u^2 / 2 does to its exponential; below the normal numbers powers are flushed. */
static double gelu_error(double u)
{
    double flushed = (double)FLT_MIN / (double)FLT_EPSILON;
    return fabs(u) * (normal_cdf(u) + normal_cdf(-fabs(u)) * (0.5 * u * u) + flushed);
}

/* Phi(u) + |u| phi(u) (1 + u^2 / 2) */
static double gelu_slope_error(double u)
{
    double pdf = 0.39894228 * exp(-0.5 * u * u);
    return normal_cdf(u) + fabs(u) * pdf * (1.0 + 0.5 * u * u) +
           (1.0 + fabs(u)) * (double)FLT_MIN / (double)FLT_EPSILON;
}

/* Values err by eps of themselves, and powers of e by |x| eps more, since the exponent is rounded. */
static void magnitude_function_rows(operands *a, const operands *r)
{
    int function = r->variant / 2;
    bool power =
        function == FV_FUNCTION_SIGMOID || function == FV_FUNCTION_ELU1 || function == FV_FUNCTION_SOFTPLUS;
    double eps = (double)function_eps(r), flushed = (double)FLT_MIN / (double)FLT_EPSILON;
    for (int64_t i = 0; i < r->n; i++) {
        for (int64_t f = 0; f < r->c; f++) {
            double x = (double)r->in[0][i * r->ld + f], m = fabs((double)r->out[0][i * r->ld + f]);
            double own = fmax(m - eps, 0);
            m += power && x < 0 ? own * -x + flushed : flushed + 2 * eps;
            if (function == FV_FUNCTION_EXP)
                m = fabs(x) * 1.5 + 12;
            if (function == FV_FUNCTION_GELU)
                m = gelu_error(x) + eps;
            a->out[0][i * r->ld + f] = (float)m;
        }
    }
}

/* |dy| times the slope's size, and |x| times it where the slope is made of powers. */
static void magnitude_function_rows_back(operands *a, const operands *r)
{
    int function = r->variant / 2;
    bool power = function == FV_FUNCTION_SIGMOID || function == FV_FUNCTION_ELU1 ||
                 function == FV_FUNCTION_TANH || function == FV_FUNCTION_EXP ||
                 function == FV_FUNCTION_SOFTPLUS;
    for (int64_t i = 0; i < r->n; i++) {
        for (int64_t f = 0; f < r->c; f++) {
            double u = (double)r->in[0][i * r->ld + f], m = fabs((double)r->out[0][i * r->ld + f]);
            double dy = fabs((double)r->in[1][i * r->ld + f]);
            double flushed = (double)FLT_MIN / (double)FLT_EPSILON;
            m = m * (power ? 1 + 3 * fabs(u) : 1) + dy * flushed;
            if (function == FV_FUNCTION_EXP)
                m *= 10;
            if (function == FV_FUNCTION_GELU)
                m = dy * gelu_slope_error(u);
            a->out[0][i * r->ld + f] = (float)m;
        }
    }
}

static void call_bias_gelu(const fv_kernels *k, operands *o)
{
    float *pre = o->variant & 2 ? NULL : o->out[1];
    k->bias_gelu(o->n, o->c, o->in[0], o->variant & 1 ? NULL : o->in[1], pre, o->out[0]);
}

static void magnitude_bias_gelu(operands *a, const operands *r)
{
    for (int64_t i = 0; i < a->n * a->c; i++) {
        float bias = a->variant & 1 ? 0.0f : r->in[1][i % a->c];
        a->out[1][i] = fabsf(r->in[0][i] + bias);
        a->out[0][i] = (float)gelu_error((double)(r->in[0][i] + bias));
    }
}

static void call_gelu_back(const fv_kernels *k, operands *o)
{
    k->gelu_back(o->n * o->c, o->in[0], o->in[1], o->out[0]);
}

static void magnitude_gelu_back(operands *a, const operands *r)
{
    for (int64_t i = 0; i < a->n * a->c; i++)
        a->out[0][i] = (float)((double)a->in[1][i] * gelu_slope_error((double)r->in[0][i]));
}

/* clang-format off */
const kernel_case kernel_cases_functions[] = {
    {CALL(function_rows), .in = "R", .out = "r", .variants = 2 * FV_FUNCTION_COUNT, MAGNITUDE(function_rows), .in_place = 1},
    {CALL(function_rows_back), .in = "RR", .out = "r", .variants = 2 * FV_FUNCTION_COUNT, MAGNITUDE(function_rows_back), .in_place = 2},
    {CALL(bias_gelu), .in = "DC", .out = "dd", .variants = 4, MAGNITUDE(bias_gelu)},
    {CALL(gelu_back), .in = "DD", .out = "d", .variants = 1, MAGNITUDE(gelu_back), .in_place = 2},
    {.name = NULL},
};
/* clang-format on */
