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
    return num_function(u, ctanh(u.v), slope, 2 * fabs(t) * slope, fabs(t), slope * (1 + 2 * fabs(x)));
}

/* C has no complex erf: lifted by hand. x^2 / 2 is rounded, which its exponential turns into a relative error. */
static num gelu(num u)
{
    double x = creal(u.v), cdf = 0.5 * erfc(-x * sqrt(0.5)), below = 0.5 * erfc(fabs(x) * sqrt(0.5));
    double pdf = exp(-0.5 * x * x) / sqrt(2 * acos(-1.0)), slope = cdf + x * pdf, half = 0.5 * x * x;
    double complex f = x * cdf + (double complex)I * (slope * cimag(u.v));
    double own = fabs(x) * (cdf + below * half), own_slope = cdf + (below + fabs(x) * pdf) * (1 + half);
    return num_function(u, f, slope, pdf * fabs(2 - x * x), own, own_slope);
}

static num elu1(num u)
{
    return creal(u.v) > 0 ? num_add(u, num_input(1, 0)) : num_exp(u);
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
    {.name = NULL},
};
