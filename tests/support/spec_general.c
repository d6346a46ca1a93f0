/* support/spec_general.c: generalized maps and deterministic ones. */
#include "support/spec.h"
#include <math.h>

/* ---- generalized: phi_f = f(u_f) + epsilon, u = W x or x, x = sqrt(scale) q ---------------------------- */

static num argument(const spec *s, const spec_vector *v, int64_t f)
{
    bool bare = s->options.projection == FV_PROJECTION_NONE;
    return num_scaled(sqrt(s->options.scale),
                      bare ? v->x[f] : spec_projected(s, FV_INPUT_PROJECTION, v->head, f, v->x));
}

static void with_epsilon(const spec *s, const spec_vector *v, num (*f)(num u), num *phi)
{
    for (int64_t i = 0; i < s->r; i++)
        phi[i] = num_add(f(argument(s, v, i)), num_rounded(s->options.epsilon));
}

/* max(u, 0) with slope 0 at 0; the error of u stays, since near 0 it decides the branch. */
static num positive(num u)
{
    if (creal(u.v) <= 0)
        u.v = 0, u.t = u.mt = 0;
    return u;
}

static num relu2(num u)
{
    return num_mul(positive(u), positive(u));
}

static num absolute(num u)
{
    return positive(creal(u.v) < 0 ? num_sub(num_input(0, 0), u) : u);
}

static num square(num u)
{
    return num_mul(u, u);
}

static num identity(num u)
{
    return u;
}

/* Of exp(-|u|): both tails as well known as an exponential is. */
static num sigmoid(num u)
{
    num one = num_input(1, 0), e = num_exp(num_scaled(creal(u.v) < 0 ? 1 : -1, u));
    return num_div(creal(u.v) < 0 ? e : one, num_add(one, e));
}

/* tanh itself errs by eps of its value, its slope 1 / cosh^2 by eps times the exponent that makes it. */
static num hyperbolic_tangent(num u)
{
    double x = creal(u.v), t = tanh(x), slope = 1 / (cosh(x) * cosh(x));
    return num_function(u, t, slope, 2 * fabs(t) * slope, fabs(t), slope * (1 + 2 * fabs(x)));
}

/* x^2 / 2 is rounded, which its exponential turns into a relative error. */
static num gelu(num u)
{
    double x = creal(u.v), cdf = 0.5 * erfc(-x * sqrt(0.5)), below = 0.5 * erfc(fabs(x) * sqrt(0.5));
    double pdf = exp(-0.5 * x * x) / sqrt(2 * acos(-1.0)), slope = cdf + x * pdf, half = 0.5 * x * x;
    double own = fabs(x) * (cdf + below * half), own_slope = cdf + (below + fabs(x) * pdf) * (1 + half);
    return num_function(u, x * cdf, slope, pdf * fabs(2 - x * x), own, own_slope);
}

static num elu1(num u)
{
    return creal(u.v) > 0 ? num_add(u, num_input(1, 0)) : num_exp(u);
}

/* max(u, 0) + ln(1 + exp(-|u|)): the logarithm errs by eps of itself and by |u| exp(-|u|) eps of the power. */
static num softplus(num u)
{
    double x = creal(u.v), e = exp(-fabs(x)), above = 1 / (1 + e), slope = x < 0 ? e * above : above;
    double rest = log1p(e), f = fmax(x, 0) + rest;
    return num_function(u, f, slope, slope * (1 - slope), f + rest + fabs(x) * e, slope * (1 + fabs(x)));
}

/* log(exp(u) + epsilon), the larger term taken out. */
static void exponential(const spec *s, const spec_vector *v, num *logs)
{
    double eps = s->options.epsilon;
    for (int64_t i = 0; i < s->r; i++) {
        num u = argument(s, v, i), b = num_rounded(log(eps)), one = num_input(1, 0);
        if (eps == 0)
            logs[i] = u;
        else if (creal(u.v) > creal(b.v))
            logs[i] = num_add(u, num_log(num_add(one, num_exp(num_sub(b, u)))));
        else
            logs[i] = num_add(b, num_log(num_add(one, num_exp(num_sub(u, b)))));
    }
}

#define GENERALIZED(name_, f_)                                                                               \
    static void name_##_features(const spec *s, const spec_vector *v, num *phi)                              \
    {                                                                                                        \
        with_epsilon(s, v, f_, phi);                                                                         \
    }

GENERALIZED(relu, positive)
GENERALIZED(sigmoid, sigmoid)
GENERALIZED(tanh, hyperbolic_tangent)
GENERALIZED(gelu, gelu)
GENERALIZED(abs, absolute)
GENERALIZED(square, square)
GENERALIZED(relu2, relu2)
GENERALIZED(cos, num_cos)
GENERALIZED(sin, num_sin)
GENERALIZED(linear, identity)
GENERALIZED(elu1, elu1)
GENERALIZED(softplus, softplus)

/* ---- deterministic maps ------------------------------------------------------------------------------ */

static num scaled_x(const spec *s, const spec_vector *v, int64_t c)
{
    return num_scaled(sqrt(s->options.scale), v->x[c]);
}

/* sikf: phi_c = exp(x_c) */
static void sikf(const spec *s, const spec_vector *v, num *logs)
{
    for (int64_t c = 0; c < s->options.dim; c++)
        logs[c] = scaled_x(s, v, c);
}

/* dpfp: u = relu([x; -x]), phi_i = u_i u_(i+1), cyclic */
static void dpfp(const spec *s, const spec_vector *v, num *phi)
{
    int64_t d = s->options.dim;
    for (int64_t i = 0; i < 2 * d; i++) {
        num x = scaled_x(s, v, i % d), y = scaled_x(s, v, (i + 1) % d);
        phi[i] = num_mul(positive(num_mul(num_input(i < d ? 1 : -1, 0), x)),
                         positive(num_mul(num_input((i + 1) % (2 * d) < d ? 1 : -1, 0), y)));
    }
}

/* factor [u_i^2, sqrt 2 u_i u_j (i < j)] */
static void squares(int64_t d, double factor, const num *u, num *phi)
{
    for (int64_t i = 0; i < d; i++)
        for (int64_t j = i; j < d; j++)
            *phi++ = num_scaled(i == j ? factor : sqrt(2) * factor, num_mul(u[i], u[j]));
}

/* taylor: [1, x, squares / sqrt 2] */
static void taylor(const spec *s, const spec_vector *v, num *phi)
{
    int64_t d = s->options.dim;
    phi[0] = num_input(1, 0);
    for (int64_t c = 0; c < d; c++)
        phi[1 + c] = scaled_x(s, v, c);
    squares(d, sqrt(0.5), phi + 1, phi + 1 + d);
}

/* rebased: squares of u = gamma LN(x) + beta, over sqrt d */
static void rebased(const spec *s, const spec_vector *v, num *phi)
{
    int64_t d = s->options.dim;
    num u[64], mean = num_input(0, 0), var = num_input(1e-5, 0);
    for (int64_t c = 0; c < d; c++)
        mean = num_add(mean, num_scaled(1 / (double)d, scaled_x(s, v, c)));
    for (int64_t c = 0; c < d; c++) {
        u[c] = num_sub(scaled_x(s, v, c), mean);
        var = num_add(var, num_scaled(1 / (double)d, num_mul(u[c], u[c])));
    }
    for (int64_t c = 0; c < d; c++) {
        u[c] = num_div(u[c], num_sqrt(var));
        if (s->input[FV_INPUT_REBASED_GAMMA] != NULL)
            u[c] = num_mul(spec_input(s, FV_INPUT_REBASED_GAMMA, v->head * d + c), u[c]);
        if (s->input[FV_INPUT_REBASED_BETA] != NULL)
            u[c] = num_add(u[c], spec_input(s, FV_INPUT_REBASED_BETA, v->head * d + c));
    }
    squares(d, 1 / sqrt((double)d), u, phi);
}

/* cosformer: relu(x) times sine and cosine of pi i / 2M */
static void cosformer(const spec *s, const spec_vector *v, num *phi)
{
    int64_t d = s->options.dim;
    double M = (double)(s->options.max_tokens > 0 ? s->options.max_tokens
                        : v->queries > v->keys    ? v->queries
                                                  : v->keys);
    double angle = acos(-1.0) * (double)v->position / (2 * M);
    for (int64_t c = 0; c < d; c++) {
        phi[c] = num_scaled(sin(angle), positive(scaled_x(s, v, c)));
        phi[d + c] = num_scaled(cos(angle), positive(scaled_x(s, v, c)));
    }
}

/* hedgehog: ln softmax([2y, -2y]), y = W x */
static void hedgehog(const spec *s, const spec_vector *v, num *logs)
{
    int64_t d = s->options.dim;
    num sum = num_input(0, 0);
    double top = 0;
    for (int64_t c = 0; c < d; c++) {
        num y = num_input(0, 0);
        for (int64_t e = 0; e < d; e++)
            y = num_add(y, num_mul(s->input[FV_INPUT_MAP_WEIGHT] != NULL
                                       ? spec_input(s, FV_INPUT_MAP_WEIGHT, (v->head * d + c) * d + e)
                                       : num_input(c == e, 0),
                                   scaled_x(s, v, e)));
        logs[c] = num_scaled(2, y);
        logs[d + c] = num_sub(num_input(0, 0), logs[c]);
        top = fmax(top, fabs(creal(logs[c].v)));
    }
    for (int64_t f = 0; f < 2 * d; f++)
        sum = num_add(sum, num_exp(num_sub(logs[f], num_input(top, 0))));
    for (int64_t f = 0; f < 2 * d; f++)
        logs[f] = num_sub(logs[f], num_add(num_rounded(top), num_log(sum)));
}

const spec_kind spec_general_kinds[] = {
    {.name = "relu", .features = relu_features},
    {.name = "exp", .exponential = true, .features = exponential},
    {.name = "sigmoid", .features = sigmoid_features},
    {.name = "tanh", .features = tanh_features},
    {.name = "gelu", .features = gelu_features},
    {.name = "abs", .features = abs_features},
    {.name = "square", .features = square_features},
    {.name = "relu2", .features = relu2_features},
    {.name = "cos", .features = cos_features},
    {.name = "sin", .features = sin_features},
    {.name = "linear", .features = linear_features},
    {.name = "elu+1", .features = elu1_features},
    {.name = "softplus", .features = softplus_features},
    {.name = "sikf", .exponential = true, .features = sikf},
    {.name = "dpfp", .features = dpfp},
    {.name = "taylor", .features = taylor},
    {.name = "rebased", .features = rebased},
    {.name = "cosformer", .features = cosformer},
    {.name = "hedgehog", .exponential = true, .features = hedgehog},
    {.name = NULL},
};
