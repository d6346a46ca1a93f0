/* support/num.c: numbers that carry their derivative and the size of their rounding errors (spec.h). */
#include "support/spec.h"
#include <math.h>

static double size(num a)
{
    return fabs(creal(a.v));
}

/* n/d: m_n/|d| + |n| m_d/d^2. */
num num_div(num a, num b)
{
    double complex v = a.v / b.v;
    double q = fabs(creal(v)), d = size(b), m = (a.m + q * b.m) / d + q, t = (a.t + q * b.t) / d;
    return (num){v, m, t, (a.mt + m * b.t + q * b.mt + t * b.m) / d + t};
}

/* f(a) with f' = slope and |f''| <= bend: the argument's error times the slope, and the function's own rounding
 * `own` (of f) and `own_slope` (of f'). */
num num_function(num a, double complex f, double slope, double bend, double own, double own_slope)
{
    double s = fabs(slope);
    return (num){f, s * a.m + own, s * a.t, s * a.mt + (bend * a.m + own_slope) * a.t};
}

/* An exponential turns the absolute error of its argument into a relative one. */
num num_exp(num a)
{
    double complex v = cexp(a.v);
    double e = fabs(creal(v));
    return (num){v, e * (1 + a.m), e * a.t, e * (a.mt + (1 + a.m) * a.t)};
}

num num_sin(num a)
{
    double s = sin(creal(a.v)), c = cos(creal(a.v));
    return num_function(a, csin(a.v), c, fabs(s), fabs(s), fabs(c));
}

num num_cos(num a)
{
    double s = sin(creal(a.v)), c = cos(creal(a.v));
    return num_function(a, ccos(a.v), -s, fabs(c), fabs(c), fabs(s));
}

num num_log(num a)
{
    double x = size(a);
    double complex v = clog(a.v);
    return num_function(a, v, 1 / x, 1 / (x * x), fabs(creal(v)), 1 / x);
}

num num_sqrt(num a)
{
    double x = size(a), root = sqrt(x);
    if (root == 0)
        return num_input(0, 0);
    return num_function(a, csqrt(a.v), 0.5 / root, 0.25 / (x * root), root, 0.5 / root);
}

num num_sum(const num *a, int64_t n)
{
    num sum = num_input(0, 0);
    for (int64_t i = 0; i < n; i++)
        sum = num_add(sum, a[i]);
    return sum;
}

num num_dot(const num *a, const num *b, int64_t n)
{
    num sum = num_input(0, 0);
    for (int64_t i = 0; i < n; i++)
        sum = num_add(sum, num_mul(a[i], b[i]));
    return sum;
}

double num_value(num a)
{
    return creal(a.v);
}

double num_slope(num a)
{
    return cimag(a.v) / SPEC_STEP;
}
