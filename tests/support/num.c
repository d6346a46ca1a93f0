/* support/num.c: numbers that carry their derivative and the size of their rounding errors (spec.h). Imaginary parts are
 * so far below real ones that a function f of a complex number is f of its real part and i f' times its imaginary one,
 * to the last bit; C's own complex functions would say the same, at three to five times the cost. */
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

num num_function(num a, double f, double slope, double bend, double own, double own_slope)
{
    double s = fabs(slope);
    return (num){f + (double complex)I * (slope * cimag(a.v)), s * a.m + own, s * a.t,
                 s * a.mt + (bend * a.m + own_slope) * a.t};
}

/* An exponential turns the absolute error of its argument into a relative one. */
num num_exp(num a)
{
    double e = exp(creal(a.v));
    return (num){e + (double complex)I * (e * cimag(a.v)), e * (1 + a.m), e * a.t,
                 e * (a.mt + (1 + a.m) * a.t)};
}

num num_sin(num a)
{
    double s = sin(creal(a.v)), c = cos(creal(a.v));
    return num_function(a, s, c, fabs(s), fabs(s), fabs(c));
}

num num_cos(num a)
{
    double s = sin(creal(a.v)), c = cos(creal(a.v));
    return num_function(a, c, -s, fabs(c), fabs(c), fabs(s));
}

num num_log(num a)
{
    double x = creal(a.v), f = log(x);
    return num_function(a, f, 1 / x, 1 / (x * x), fabs(f), 1 / x);
}

num num_sqrt(num a)
{
    double x = creal(a.v), root = sqrt(x);
    if (root == 0)
        return num_input(0, 0);
    return num_function(a, root, 0.5 / root, 0.25 / (x * root), root, 0.5 / root);
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
