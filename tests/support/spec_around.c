/* support/spec_around.c: what stands around a mechanism: rotary, ppSBN, FastRPB. */
#include "support/spec.h"
#include <math.h>

/* x = (x - mean) / |x - mean|: the variance and its 1e-12 cancel in the unit length. Equal channels: 0. */
static void unit_vector(num *x, int64_t d)
{
    num mean = num_scaled(1 / (double)d, num_sum(x, d));
    for (int64_t c = 0; c < d; c++)
        x[c] = num_sub(x[c], mean);
    num length = num_sqrt(spec_squares(x, d));
    for (int64_t c = 0; c < d; c++)
        x[c] = fabs(creal(length.v)) > 1e-38 ? num_div(x[c], length) : num_input(0, 0);
}

/* x_c + i x_(c + d/2) times exp(i p base^(-2c/d)) */
static void rotate(const spec *s, num *x, int64_t position)
{
    int64_t d = s->options.dim, half = d / 2;
    double base = s->options.rotary_base > 0 ? s->options.rotary_base : 10000;
    for (int64_t c = 0; c < half; c++) {
        double angle = (double)position * pow(base, -2.0 * (double)c / (double)d);
        num re = x[c], im = x[c + half];
        x[c] = num_sub(num_scaled(cos(angle), re), num_scaled(sin(angle), im));
        x[c + half] = num_add(num_scaled(sin(angle), re), num_scaled(cos(angle), im));
    }
}

static void around_vectors(const spec *s, const int64_t *offsets, int64_t heads, num *x)
{
    int64_t d = s->options.dim;
    for (int64_t n = 0; n < s->layout.sequences; n++)
        for (int64_t i = offsets[n] * heads; i < offsets[n + 1] * heads; i++) {
            if (s->options.ppsbn)
                unit_vector(x + i * d, d);
            if (s->options.rotary)
                rotate(s, x + i * d, i / heads - offsets[n]);
        }
}

void spec_around_inputs(const spec *s, num *Q, num *K)
{
    around_vectors(s, s->layout.offsets_q, s->options.heads, Q);
    around_vectors(s, spec_key_offsets(s), s->options.kv_heads, K);
}

/* T_ij, positions behind the skipped tokens. */
static num toeplitz(const spec *s, int64_t h, int64_t i, int64_t j)
{
    int64_t N = s->options.position_span, w = h * (2 * N - 1) + N - 1;
    if (s->options.causal && j > i)
        return num_input(0, 0);
    if (s->options.position_bias == FV_POSITION_BIAS_FASTRPB)
        return spec_input(s, FV_INPUT_POSITION_BIAS, w + i - j);
    return num_add(spec_input(s, FV_INPUT_POSITION_BIAS, w + i / N - j / N),
                   spec_input(s, FV_INPUT_POSITION_BIAS, w + i % N - j % N));
}

static void add_bias(const spec *s, num *y)
{
    int64_t H = s->options.heads, G = s->options.kv_heads, dv = s->options.value_dim;
    int64_t skip = s->options.position_skip;
    const int64_t *oq = s->layout.offsets_q, *ok = spec_key_offsets(s);
    for (int64_t n = 0; n < s->layout.sequences; n++)
        for (int64_t i = oq[n] + skip; i < oq[n + 1]; i++)
            for (int64_t j = ok[n] + skip; j < ok[n + 1]; j++)
                for (int64_t h = 0; h < H; h++) {
                    num T = toeplitz(s, h, i - oq[n] - skip, j - ok[n] - skip);
                    for (int64_t c = 0; c < dv; c++) {
                        num *to = &y[(i * H + h) * dv + c];
                        *to = num_add(*to, num_mul(T, s->V[(j * G + h * G / H) * dv + c]));
                    }
                }
}

/* gamma sign(u) |u|^beta; u = 0 gives 0 and no gradient. */
static num post_scaled(const spec *s, num u, int64_t h, int64_t c)
{
    int64_t at = h * s->options.value_dim + c;
    bool has_gamma = s->input[FV_INPUT_PPSBN_GAMMA] != NULL, has_beta = s->input[FV_INPUT_PPSBN_BETA] != NULL;
    num gamma = has_gamma ? spec_input(s, FV_INPUT_PPSBN_GAMMA, h) : num_input(1, 0);
    num beta = has_beta ? spec_input(s, FV_INPUT_PPSBN_BETA, at) : num_input(1, 0);
    if (creal(u.v) == 0)
        return num_input(0, 0);
    double sign = creal(u.v) < 0 ? -1 : 1;
    num size = u;
    size.v *= sign;
    num power = num_exp(num_mul(beta, num_log(size)));
    power.v *= sign;
    return num_mul(gamma, power);
}

void spec_around_output(const spec *s, num *y)
{
    int64_t row = s->options.heads * s->options.value_dim;
    int64_t tq = s->layout.offsets_q[s->layout.sequences];
    if (s->options.position_bias == FV_POSITION_BIAS_FASTRPB ||
        s->options.position_bias == FV_POSITION_BIAS_FASTRPB_2D)
        add_bias(s, y);
    for (int64_t i = 0; s->options.ppsbn && i < tq * row; i++)
        y[i] = post_scaled(s, y[i], i % row / s->options.value_dim, i % s->options.value_dim);
}
