/* support/kernel_cases.c: see kernel_cases.h. ORDER as kernels.def */
#include "support/kernel_cases.h"
#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int64_t case_floats(char letter, const operands *o)
{
    switch (toupper((unsigned char)letter)) {
    case 'R':
        return o->n > 0 ? (o->n - 1) * o->ld + o->c : 0;
    case 'D':
        return o->n * o->c;
    case 'N':
        return o->n;
    case 'T':
        return 2 * o->n;
    default:
        return o->c;
    }
}

/* ---- products ---- */

static void call_gemv(const fv_kernels *k, operands *o)
{
    float beta = o->variant & 2 ? 0.75f : 0.0f;
    char ta = o->variant & 1 ? 'T' : 'N';
    float *y = ta == 'N' ? o->out[0] : o->out[1];
    k->gemv(ta, o->n, o->c, 1.5f, o->in[0], o->ld, ta == 'N' ? o->in[2] : o->in[1], beta, y);
}

static void prepare_gemv(operands *o)
{
    /* Without beta the result is not read: NaN must not matter. */
    if (!(o->variant & 2)) {
        for (int64_t i = 0; i < o->n && !(o->variant & 1); i++)
            o->out[0][i] = NAN;
        for (int64_t i = 0; i < o->c && (o->variant & 1); i++)
            o->out[1][i] = NAN;
    }
}

/* Two rows of x that are the same one; that rows do not mix: test_kernels_laws.c. */
static void call_few_rows(const fv_kernels *k, operands *o)
{
    k->few_rows(2, o->n, o->c, o->in[1], 0, o->in[0], o->ld, o->variant ? 0.75f : 0.0f, o->out[0], o->n);
}

static void call_few_rows_bf16(const fv_kernels *k, operands *o)
{
    int64_t count = o->n * o->c;
    uint16_t *half = malloc((size_t)count * sizeof *half + 1);
    for (int64_t i = 0; i < count && half != NULL; i++) {
        uint32_t bits;
        memcpy(&bits, &o->in[0][i], sizeof bits);
        half[i] = (uint16_t)(bits >> 16);
    }
    if (half != NULL)
        k->few_rows_bf16(2, o->n, o->c, o->in[1], 0, half, o->c, o->variant ? 0.75f : 0.0f, o->out[0], o->n);
    free(half);
}

static void prepare_few_rows(operands *o)
{
    for (int64_t i = 0; i < 2 * o->n && !o->variant; i++)
        o->out[0][i] = NAN;
}

static void call_row_dots(const fv_kernels *k, operands *o)
{
    float beta = o->variant & 1 ? -0.5f : 0.0f;
    int64_t ldb = o->variant & 2 ? 0 : o->ld;
    k->row_dots(o->n, o->c, 1.25f, o->in[0], o->ld, o->in[1], ldb, beta, o->out[0]);
}

static void prepare_row_dots(operands *o)
{
    for (int64_t i = 0; i < o->n && !(o->variant & 1); i++)
        o->out[0][i] = NAN;
}

/* alpha |a| |b| + |beta| |out| */
static void magnitude_row_dots(operands *a, const operands *r)
{
    (void)r;
    fv_row_dots_reference(a->n, a->c, 1.25f, a->in[0], a->ld, a->in[1], a->variant & 2 ? 0 : a->ld,
                          a->variant & 1 ? 0.5f : 0.0f, a->out[0]);
}

static void call_add_col_sums(const fv_kernels *k, operands *o)
{
    k->add_col_sums(o->n, o->c, o->variant ? NULL : o->in[1], o->in[0], o->ld, o->out[0]);
}

static void call_add_col_max(const fv_kernels *k, operands *o)
{
    k->add_col_max(o->n, o->c, o->variant ? NULL : o->in[1], o->in[0], o->ld, o->out[0]);
}

static void call_add_outer(const fv_kernels *k, operands *o)
{
    k->add_outer(o->n, o->c, o->variant ? NULL : o->in[0], o->in[1], o->out[0], o->ld);
}

/* ---- rows ---- */

static void call_fill(const fv_kernels *k, operands *o)
{
    k->fill(o->n * o->c, -1.5f, o->out[0]);
}

void kernel_case_self(operands *a, const operands *r)
{
    (void)a;
    (void)r; /* the harness has put |reference| there */
}

static void call_copy_rows(const fv_kernels *k, operands *o)
{
    k->copy_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->ld);
}

static void call_prefetch_rows(const fv_kernels *k, operands *o)
{
    k->prefetch_rows(o->n, o->c, o->in[0], o->ld);
}

static void call_transpose(const fv_kernels *k, operands *o)
{
    k->transpose(o->n, o->c, o->in[0], o->ld, o->out[0], o->n);
}

static void call_scale(const fv_kernels *k, operands *o)
{
    k->scale(o->n * o->c, 1.7f, o->in[0], o->out[0]);
}

static void call_axpy(const fv_kernels *k, operands *o)
{
    k->axpy(o->n * o->c, 1.7f, o->in[0], o->out[0]);
}

static void call_add(const fv_kernels *k, operands *o)
{
    k->add(o->n * o->c, o->in[0], o->in[1], o->out[0]);
}

static void call_mul_add(const fv_kernels *k, operands *o)
{
    k->mul_add(o->n * o->c, o->in[0], o->in[1], o->out[0]);
}

static void call_mul(const fv_kernels *k, operands *o)
{
    k->mul(o->n * o->c, o->in[0], o->in[1], o->out[0]);
}

static void call_scale_rows(const fv_kernels *k, operands *o)
{
    const float *w = o->variant & 1 ? NULL : o->in[1];
    k->scale_rows(o->n, o->c, w, o->in[0], o->ld, o->variant & 2, o->out[0], o->ld);
}

static void call_max_abs(const fv_kernels *k, operands *o)
{
    o->value = (double)k->max_abs(o->n * o->c, o->in[0]);
}

/* Windows about all normal numbers, most, and one entry in two or so. */
static void call_within(const fv_kernels *k, operands *o)
{
    static const float windows[][2] = {{0, FLT_MAX}, {FLT_MIN, 1e30f}, {0x1p-10f, 64}, {0.01f, 1}};
    o->value = k->within(o->n * o->c, windows[o->variant][0], windows[o->variant][1], o->in[0]);
}

static void call_sum_squares(const fv_kernels *k, operands *o)
{
    o->value = k->sum_squares(o->n * o->c, o->in[0]);
}

static void call_sum(const fv_kernels *k, operands *o)
{
    o->value = k->sum(o->n * o->c, o->in[0]);
}

static void call_all_finite(const fv_kernels *k, operands *o)
{
    o->value = k->all_finite(o->n, o->c, o->in[0], o->ld);
}

static void call_finite_rows(const fv_kernels *k, operands *o)
{
    o->value = k->finite_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->ld);
}

static void call_mask_rows(const fv_kernels *k, operands *o)
{
    k->mask_rows(o->n, o->c, o->visible, o->out[0], o->ld);
}

static void call_bias_rows(const fv_kernels *k, operands *o)
{
    k->bias_rows(o->n, o->c, o->in[0], o->in[1], o->out[0]);
}

/* A table of one row per id: dense rows, n of them; ids are taken below n. */
static void call_gather_rows(const fv_kernels *k, operands *o)
{
    k->gather_rows(o->n, o->c, o->ids, o->in[0], o->out[0]);
}

static void call_scatter_add_rows(const fv_kernels *k, operands *o)
{
    k->scatter_add_rows(o->n, o->c, o->ids, o->in[0], o->out[0]);
}

static void prepare_ids_below_n(operands *o)
{
    for (int64_t i = 0; i < o->n; i++)
        o->ids[i] = (int32_t)(o->ids[i] % o->n);
}

/* ---- features and softmax: equal arguments on both sides, so the power alone carries an error ---- */

static void call_exp2_rows_top(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->exp2_rows_top(o->n, o->c, o->out[0], o->ld, o->variant ? NULL : o->in[0], o->out[1]);
}

static void call_exp2_rows(const fv_kernels *k, operands *o)
{
    o->value = (double)k->exp2_rows(o->n, o->c, o->out[0], o->ld, o->in[0], o->in[1]);
}

static void prepare_split(operands *o)
{
    for (int64_t i = 0; i < o->n * o->c; i += 3)
        o->out[0][i] = 0.0f;
}

/* Variants: `zero`, times which of the outputs are not wanted; those must stay as they are in every set. */
static void call_split(const fv_kernels *k, operands *o)
{
    float *m = o->variant / 2 == 1 ? NULL : o->out[1], *inverse = o->variant / 2 == 2 ? NULL : o->out[2];
    k->split(o->n * o->c, o->variant % 2 ? -INFINITY : 0.0f, o->out[0], m, inverse);
}

static void call_sincos_rows(const fv_kernels *k, operands *o)
{
    k->sincos_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->out[1], o->ld);
}

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

/* A triangle of few columns, so that it fits the columns at hand: d (d + 1) / 2 <= c. */
static int64_t triangle_side(const operands *o)
{
    int64_t d = 0;
    while ((d + 1) * (d + 2) / 2 <= o->c)
        d++;
    return d;
}

static void call_square_rows(const fv_kernels *k, operands *o)
{
    int64_t d = triangle_side(o), r = d * (d + 1) / 2;
    const float *x = o->in[0];
    for (int64_t i = 0; i < o->n; i++)
        for (int64_t f = r; f < o->c; f++)
            o->out[0][i * o->ld + f] = 0.0f;
    if (o->variant == 1) { /* the row stands at the end of its products */
        for (int64_t i = 0; i < o->n; i++)
            for (int64_t f = 0; f < d; f++)
                o->out[0][i * o->ld + r - d + f] = o->in[0][i * o->ld + f];
        x = o->out[0] + r - d;
    }
    if (d > 0)
        k->square_rows(o->n, d, 0.7f, x, o->ld, o->out[0], o->ld);
}

static void call_square_rows_back(const fv_kernels *k, operands *o)
{
    int64_t d = triangle_side(o);
    if (d > 0)
        k->square_rows_back(o->n, d, 0.7f, o->in[0], o->ld, o->in[1], o->ld, o->out[0], o->ld);
}

static void call_cyclic_rows(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->cyclic_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->ld);
}

static void call_cyclic_rows_back(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->cyclic_rows_back(o->n, o->c, o->in[0], o->ld, o->in[1], o->ld, o->out[0], o->ld);
}

/* The sum errs by eps of itself and eps |top - x| of its terms; its logarithm is known to eps of that. */
static void call_log2_sums(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->log2_sums(o->n, o->c, o->in[0], o->ld, o->out[0]);
}

static void magnitude_log2_sums(operands *a, const operands *r)
{
    for (int64_t i = 0; i < r->n; i++)
        a->out[0][i] = fabsf(r->out[0][i]) + 4.0f;
}

static const int64_t *variant_visible(const operands *o)
{
    return o->variant & 1 ? NULL : o->visible;
}

static void call_softmax_tile(const fv_kernels *k, operands *o)
{
    k->softmax_tile(o->n, o->c, o->out[0], o->ld, variant_visible(o), o->out[1], o->out[2], o->out[3]);
}

static void prepare_softmax_tile(operands *o)
{
    for (int64_t i = 0; i < o->n; i++) {
        bool fresh = i % 2 == 0;
        if (fresh)
            o->out[1][i] = -INFINITY;
        o->out[2][i] = fresh ? 0.0f : fabsf(o->out[2][i]);
    }
}

static void call_softmax_end(const fv_kernels *k, operands *o)
{
    k->softmax_end(o->n, o->in[0], o->in[1], o->out[0], o->variant ? NULL : o->out[1]);
}

static void call_softmax_probs(const fv_kernels *k, operands *o)
{
    k->softmax_probs(o->n, o->c, o->out[0], o->ld, variant_visible(o), o->in[0]);
}

static void prepare_softmax_probs(operands *o)
{
    if (o->n > 1)
        o->in[0][1] = -INFINITY;
}

static void call_straddle_dots(const fv_kernels *k, operands *o)
{
    k->straddle_dots(o->n, o->c, o->in[0], o->ld, o->in[1], o->ld, o->out[0]);
}

static void call_softmax_back(const fv_kernels *k, operands *o)
{
    k->softmax_back(o->n, o->c, o->in[0], o->ld, o->in[1], o->ld, o->in[2], o->out[0], o->ld);
}

/* |p| (|dp| + |delta|) */
static void magnitude_softmax_back(operands *a, const operands *r)
{
    (void)r;
    for (int64_t i = 0; i < a->n; i++)
        a->in[2][i] = -a->in[2][i];
    fv_softmax_back_reference(a->n, a->c, a->in[0], a->ld, a->in[1], a->ld, a->in[2], a->out[0], a->ld);
}

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

static void call_bias_gelu(const fv_kernels *k, operands *o)
{
    float *pre = o->variant & 2 ? NULL : o->out[1];
    k->bias_gelu(o->n, o->c, o->in[0], o->variant & 1 ? NULL : o->in[1], pre, o->out[0]);
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

/* ---- Fourier transforms: c complex channels take rows of 2 c floats, so half the columns ---- */

/* Radix 2, 3, 4; one run of rows or as many as there are. */
static int fft_radix(const operands *o)
{
    return 2 + o->variant % 3;
}

static int64_t fft_blocks(const operands *o, int64_t *n)
{
    int64_t radix = fft_radix(o), runs = o->variant / 3 ? FV_MIN(o->n / radix, 2) : 1;
    *n = runs > 0 ? o->n / runs / radix * radix : 0;
    return *n > 0 ? runs : 0;
}

static void call_fft_split(const fv_kernels *k, operands *o)
{
    int64_t n, blocks = fft_blocks(o, &n);
    k->fft_split(blocks, n, fft_radix(o), o->c / 2, o->in[0], o->out[0], o->ld);
}

static void call_fft_join(const fv_kernels *k, operands *o)
{
    int64_t n, blocks = fft_blocks(o, &n);
    k->fft_join(blocks, n, fft_radix(o), o->c / 2, o->in[0], o->out[0], o->ld);
}

/* Every output is a sum of both parts of every row of its group, times a factor before or behind. */
static void magnitude_fft_pass(operands *a, const operands *r)
{
    int64_t n, blocks = fft_blocks(a, &n), c = a->c / 2;
    int radix = fft_radix(a);
    (void)r;
    for (int64_t g = 0; g < blocks * n / radix; g++) {
        int64_t s = n / radix, k = g % s;
        float *x = a->out[0] + (g / s * n + k) * a->ld;
        double top = 1;
        for (int p = 0; p < 2 * (radix - 1) && k > 0; p++)
            top = FV_MAX(top, 2 * (double)a->in[0][k * (radix - 1) * 2 + p]);
        for (int64_t f = 0; f < c; f++) {
            double sum = 0;
            for (int p = 0; p < radix; p++)
                sum += (double)x[p * s * a->ld + f] + (double)x[p * s * a->ld + c + f];
            for (int p = 0; p < radix; p++)
                x[p * s * a->ld + f] = x[p * s * a->ld + c + f] = (float)(sum * top);
        }
    }
}

static void call_fft_filter(const fv_kernels *k, operands *o)
{
    k->fft_filter(o->n, o->c / 2, o->in[1], o->in[2], o->variant & 1, o->in[0], o->ld, o->variant & 2,
                  o->out[0], o->ld);
}

/* (|re| + |im|) times both parts, and what was there */
static void magnitude_fft_filter(operands *a, const operands *r)
{
    int64_t c = a->c / 2;
    (void)r;
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t f = 0; f < c; f++) {
            const float *x = a->in[0] + i * a->ld;
            float *y = a->out[0] + i * a->ld, sum = (x[f] + x[c + f]) * (a->in[1][i] + a->in[2][i]);
            y[f] = sum + (a->variant & 2 ? y[f] : 0.0f);
            y[c + f] = sum + (a->variant & 2 ? y[c + f] : 0.0f);
        }
    }
}

static void call_fft_correlate(const fv_kernels *k, operands *o)
{
    k->fft_correlate(o->n, o->c / 2, o->in[0], o->ld, o->in[1], o->ld, o->out[0], o->out[1]);
}

static void magnitude_fft_correlate(operands *a, const operands *r)
{
    int64_t c = a->c / 2;
    (void)r;
    for (int64_t i = 0; i < a->n; i++) {
        const float *x = a->in[0] + i * a->ld, *y = a->in[1] + i * a->ld;
        for (int64_t f = 0; f < c; f++) {
            a->out[0][i] += (x[f] + x[c + f]) * (y[f] + y[c + f]);
            a->out[1][i] += (x[f] + x[c + f]) * (y[f] + y[c + f]);
        }
    }
}

static void call_turn_rows(const fv_kernels *k, operands *o)
{
    k->turn_rows(o->n, o->c / 2, o->in[1], o->in[2], o->variant & 1, o->in[0], o->ld, o->variant & 2,
                 o->out[0], o->ld);
}

static void magnitude_turn_rows(operands *a, const operands *r)
{
    int64_t c = a->c / 2;
    (void)r;
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t f = 0; f < c; f++) {
            const float *x = a->in[0] + i * a->ld;
            float *y = a->out[0] + i * a->ld, sum = (x[f] + x[c + f]) * (a->in[1][f] + a->in[2][f]);
            y[f] = sum + (a->variant & 2 ? y[f] : 0.0f);
            y[c + f] = sum + (a->variant & 2 ? y[c + f] : 0.0f);
        }
    }
}

/* ---- Hadamard transforms: as many rows as a power of two has ---- */

static int64_t walsh_rows(const operands *o)
{
    int64_t rows = o->n > 0;
    while (rows > 0 && 2 * rows <= o->n)
        rows *= 2;
    return rows;
}

static void call_walsh(const fv_kernels *k, operands *o)
{
    int64_t rows = walsh_rows(o);
    if (rows > 0)
        k->walsh(rows, o->c, o->in[1], o->in[0], o->ld, o->out[0], o->ld);
}

/* Every output is a sum of all rows. */
static void magnitude_walsh(operands *a, const operands *r)
{
    int64_t rows = walsh_rows(a);
    (void)r;
    for (int64_t f = 0; f < a->c; f++) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++)
            sum += (double)a->in[1][i] * (double)a->in[0][i * a->ld + f];
        for (int64_t i = 0; i < rows; i++)
            a->out[0][i * a->ld + f] = (float)sum;
    }
}

/* ---- scaling ---- */

static void call_unit_rows(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->unit_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->ld, o->out[1]);
}

static void call_unit_rows_back(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->unit_rows_back(o->n, o->c, o->in[0], o->ld, o->in[2], o->in[1], o->ld, o->out[0], o->ld);
}

static void call_power_rows(const fv_kernels *k, operands *o)
{
    k->power_rows(o->n, o->c, 0.75f, o->variant ? NULL : o->in[1], o->in[0], o->ld, o->out[0], o->ld);
}

static void call_power_rows_back(const fv_kernels *k, operands *o)
{
    k->power_rows_back(o->n, o->c, 0.75f, o->variant & 1 ? NULL : o->in[2], o->in[0], o->ld, o->in[1], o->ld,
                       o->out[0], o->ld, o->variant & 2 || o->c == 0 ? NULL : o->out[1],
                       o->variant & 2 ? NULL : o->out[2]);
}

/* Equal values round alike: a lane of hundreds of them drifts by a few units in double, which no user of a
 * norm sees. */
#define SUM_EPS (8.0 * DBL_EPSILON)
/* MAGNITUDE(layernorm): errors are judged by magnitude_layernorm; SELF: by the result itself. */
#define CALL(k)      .name = #k, .call = call_##k
#define PREPARE(f)   .prepare = prepare_##f
#define MAGNITUDE(f) .magnitude = magnitude_##f
#define SELF         .magnitude = kernel_case_self

/* clang-format off */
const kernel_case kernel_cases[] = {
    {CALL(gemv), .in = "RNC", .out = "NC", .variants = 4, PREPARE(gemv)},
    {CALL(few_rows), .in = "RC", .out = "T", .variants = 2, PREPARE(few_rows)},
    {CALL(few_rows_bf16), .in = "DC", .out = "T", .variants = 2, PREPARE(few_rows)},
    {CALL(fill), .in = "", .out = "d", .variants = 1, SELF},
    {CALL(copy_rows), .in = "R", .out = "r", .variants = 1, SELF},
    {CALL(prefetch_rows), .in = "R", .out = "", .variants = 1, SELF},
    {CALL(transpose), .in = "R", .out = "d", .variants = 1, SELF},
    {CALL(scale), .in = "D", .out = "d", .variants = 1, .in_place = 1},
    {CALL(axpy), .in = "D", .out = "D", .variants = 1},
    {CALL(add), .in = "DD", .out = "d", .variants = 1, .in_place = 1},
    {CALL(mul_add), .in = "DD", .out = "D", .variants = 1},
    {CALL(mul), .in = "DD", .out = "d", .variants = 1, .in_place = 1},
    {CALL(scale_rows), .in = "RN", .out = "R", .variants = 4, .in_place = 1},
    {CALL(row_dots), .in = "RR", .out = "N", .variants = 4, PREPARE(row_dots), MAGNITUDE(row_dots)},
    {CALL(add_col_sums), .in = "RN", .out = "C", .variants = 2},
    {CALL(add_col_max), .in = "RN", .out = "C", .variants = 2, SELF},
    {CALL(add_outer), .in = "NC", .out = "R", .variants = 2},
    {CALL(max_abs), .in = "D", .out = "", .variants = 1},
    {CALL(within), .in = "D", .out = "", .variants = 4},
    {CALL(sum_squares), .in = "D", .out = "", .variants = 1, .value_eps = SUM_EPS},
    {CALL(sum), .in = "D", .out = "", .variants = 1, .value_eps = SUM_EPS},
    {CALL(all_finite), .in = "R", .out = "", .variants = 1},
    {CALL(finite_rows), .in = "R", .out = "r", .variants = 1, SELF, .in_place = 1},
    {CALL(exp2_rows_top), .in = "C", .out = "Rn", .variants = 2, SELF},
    {CALL(exp2_rows), .in = "NC", .out = "R", .variants = 1, SELF},
    {CALL(split), .in = "", .out = "Ddd", .variants = 6, PREPARE(split), SELF},
    {CALL(sincos_rows), .in = "R", .out = "rr", .variants = 1, SELF},
    {CALL(function_rows), .in = "R", .out = "r", .variants = 2 * FV_FUNCTION_COUNT, MAGNITUDE(function_rows), .in_place = 1},
    {CALL(function_rows_back), .in = "RR", .out = "r", .variants = 2 * FV_FUNCTION_COUNT, MAGNITUDE(function_rows_back), .in_place = 2},
    {CALL(square_rows), .in = "R", .out = "r", .variants = 2, SELF},
    {CALL(square_rows_back), .in = "RR", .out = "R", .variants = 1},
    {CALL(cyclic_rows), .in = "R", .out = "r", .variants = 1, SELF, .in_place = 1},
    {CALL(cyclic_rows_back), .in = "RR", .out = "r", .variants = 1},
    {CALL(log2_sums), .in = "R", .out = "n", .variants = 1, MAGNITUDE(log2_sums)},
    {CALL(softmax_tile), .in = "", .out = "RNNn", .variants = 2, PREPARE(softmax_tile), SELF},
    {CALL(softmax_end), .in = "NN", .out = "nn", .variants = 2, SELF, .in_place = 2},
    {CALL(softmax_probs), .in = "N", .out = "R", .variants = 2, PREPARE(softmax_probs), SELF},
    {CALL(softmax_back), .in = "RRN", .out = "r", .variants = 1, MAGNITUDE(softmax_back), .in_place = 2},
    {CALL(straddle_dots), .in = "RR", .out = "c", .variants = 1},
    {CALL(mask_rows), .in = "", .out = "R", .variants = 1, SELF},
    {CALL(layernorm), .in = "DCC", .out = "dt", .variants = 2, MAGNITUDE(layernorm), .in_place = 1},
    {CALL(layernorm_back), .in = "DCTD", .out = "DCC", .variants = 1, PREPARE(layernorm_back), MAGNITUDE(layernorm_back)},
    {CALL(bias_rows), .in = "DC", .out = "d", .variants = 1, .in_place = 1},
    {CALL(bias_gelu), .in = "DC", .out = "dd", .variants = 4, MAGNITUDE(bias_gelu)},
    {CALL(gelu_back), .in = "DD", .out = "d", .variants = 1, MAGNITUDE(gelu_back), .in_place = 2},
    {CALL(bias_relu), .in = "DC", .out = "dd", .variants = 4},
    {CALL(relu_back), .in = "DD", .out = "d", .variants = 1, SELF, .in_place = 2},
    {CALL(dropout), .in = "D", .out = "D", .variants = 8, .in_place = 1},
    {CALL(cross_entropy), .in = "D", .out = "ndn", .variants = 2, MAGNITUDE(cross_entropy)},
    {CALL(gather_rows), .in = "D", .out = "d", .variants = 1, PREPARE(ids_below_n), SELF},
    {CALL(scatter_add_rows), .in = "D", .out = "D", .variants = 1, PREPARE(ids_below_n)},
    {CALL(adamw), .in = "D", .out = "DDD", .variants = 1, PREPARE(adamw), MAGNITUDE(adamw)},
    {CALL(f32_to_bf16), .in = "D", .out = "d", .variants = 1, SELF},
    {CALL(bf16_to_f32), .in = "D", .out = "d", .variants = 1, SELF},
    {CALL(fft_split), .in = "T", .out = "R", .variants = 6, MAGNITUDE(fft_pass)},
    {CALL(fft_join), .in = "T", .out = "R", .variants = 6, MAGNITUDE(fft_pass)},
    {CALL(fft_filter), .in = "RNN", .out = "R", .variants = 4, MAGNITUDE(fft_filter), .in_place = 1},
    {CALL(fft_correlate), .in = "RR", .out = "NN", .variants = 1, MAGNITUDE(fft_correlate)},
    {CALL(turn_rows), .in = "RCC", .out = "R", .variants = 4, MAGNITUDE(turn_rows), .in_place = 1},
    {CALL(walsh), .in = "RN", .out = "R", .variants = 1, MAGNITUDE(walsh), .in_place = 1},
    {CALL(unit_rows), .in = "R", .out = "rn", .variants = 1, SELF, .in_place = 1},
    {CALL(unit_rows_back), .in = "RRN", .out = "R", .variants = 1, SELF},
    {CALL(power_rows), .in = "RC", .out = "r", .variants = 2, SELF, .in_place = 1},
    {CALL(power_rows_back), .in = "RRC", .out = "rCC", .variants = 4, SELF, .in_place = 2},
    {.name = NULL},
};
/* clang-format on */
