/* cli/approx_closed.h: what theory says about the kernel estimate of a random feature map: its mean and its
 * variance for one pair of vectors. Plain functions of a few numbers; no tensors. */
#ifndef FAVOR_APPROX_CLOSED_H
#define FAVOR_APPROX_CLOSED_H

#include <stdbool.h>
#include <stdint.h>

/* Everything the closed forms need of a pair; x = sqrt(scale) q, y = sqrt(scale) k. */
typedef struct approx_pair {
    double xx, yy, xy; /* |x|^2, |y|^2, x.y */
    double x2y2;       /* sum_i x_i^2 y_i^2 */
} approx_pair;

typedef enum approx_family {
    APPROX_UNKNOWN = 0,
    APPROX_POSITIVE,   /* exp(omega.x - |x|^2/2) */
    APPROX_HYPERBOLIC, /* exp(+-omega.x - |x|^2/2) / sqrt 2 */
    APPROX_TRIG,       /* sin, cos(omega.x) exp(+|x|^2/2) */
    APPROX_OPRF,       /* exp(A|omega|^2 + B omega.x - |x|^2/2) (1-4A)^(d/4), B = sqrt(1-4A) */
    APPROX_RFA,        /* sin, cos(omega.x/tau) of unit vectors */
    APPROX_ARCCOS,     /* relu(omega.x) of unit vectors */
    APPROX_MACLAURIN   /* random Maclaurin features of f(t) = sum a_n t^n */
} approx_family;

enum { APPROX_DEGREES_MAX = 512 };

/* An estimator: how features are made, how many, and how their projections hang together. */
typedef struct approx_law {
    approx_family family;
    int64_t d, m;    /* width; projections (Maclaurin: features) */
    bool orthogonal; /* blocks of d orthogonal rows, the last one cut; else independent rows */
    bool sqrt_d;     /* all row norms sqrt(d), else those of normal vectors */
    double oprf_a;   /* A <= 0 */
    double tau;      /* of rfa */
    /* Maclaurin: coefficients of f and the law of the degree, degrees 0 .. degrees-1; `cut`: no others are drawn. */
    bool cut;
    int degrees;
    double a[APPROX_DEGREES_MAX], p[APPROX_DEGREES_MAX];
} approx_law;

/* Mean and variance of the estimate of one pair; NaN where no closed form is known. */
double approx_closed_mean(const approx_law *law, const approx_pair *pair);
double approx_closed_variance(const approx_law *law, const approx_pair *pair);

/* A of OPRF that is best where the mean of |x+y|^2 is psi. */
double approx_oprf_a(double psi, int64_t d);

/* The half width of a 95 % confidence interval of a mean of n values with standard deviation sd: Student's t.
 * NaN for n < 2. */
double approx_half_width(int64_t n, double sd);

#endif
