/* cli/approx_closed.c: closed forms of the mean and the variance of kernel estimates.
 *
 * An estimate is K = (c/m) sum_f F(omega_f) with identically distributed rows. With mu = E F, s = E F^2 and
 * p = E F(omega_1) F(omega_2) for two rows of one orthogonal block,
 *
 *     Var K = c^2 [s/m + (P_in p + P_out mu^2)/m^2 - mu^2],
 *
 * P_in = sum over blocks of n_b (n_b - 1) ordered pairs inside a block, P_out = m^2 - m - P_in. Independent rows:
 * P_in = 0, Var K = c^2 (s - mu^2)/m. With z = x + y, w = |z|^2/2, v = |x - y|^2/2, L = exp(-(|x|^2 + |y|^2)/2):
 *
 *                 c      mu         s                               p
 *     positive    L      e^w        e^(4w)                          S(w)
 *     hyperbolic  L      e^w        (1 + e^(4w))/2                  S(w)
 *     trig        1/L    e^(-v)     (1 + e^(-4v))/2                 S(-v)
 *     rfa         1      e^(-v)     (1 + e^(-4v))/2                 S(-v)      v = |x - y|^2/(2 tau^2)
 *     OPRF        L      e^w        (1-4A)^d (1-8A)^(-d/2) e^(4w(1-4A)/(1-8A))   S(w)
 *     sqrt(d)     L      G(w/2)     G(2w), hyperbolic (1 + G(2w))/2  G(w)       G(t) = 0F1(; d/2; d t)
 *
 * (w/2, w, 2w: |z|^2/4, |z|^2/2, |z|^2.) S is the moment of a pair of orthogonal rows with norms of their own,
 * S(w) = sum_{t,u} w^(t+u)/(t! u!) (d/2)_t (d/2)_u / (d/2)_(t+u). By Vandermonde's sum over t + u = n it is Kummer's
 * function: S(w) = 1F1(d; d/2; w) = e^w 1F1(-d/2; d/2; -w). The weight e^(2A|omega|^2) of OPRF turns the moments of |omega|
 * into those of a normal vector of variance 1/(1-4A), which B^2 = 1-4A takes back: p is that of the positive
 * map.
 *
 * Arc-cosine: F = relu(omega.x) relu(omega.y), with the angle t between x and y
 *     mu = |x||y| (sin t + (pi - t) cos t)/(2 pi),  s = |x|^2|y|^2 (3 sin t cos t + (pi - t)(1 + 2 cos^2 t))/(2 pi).
 * Maclaurin: mu = sum a_n (x.y)^n over the degrees drawn, s = sum (a_n^2/p_n) h^n with
 *     h = |x|^2|y|^2 + 2 (x.y)^2 - 2 sum x_i^2 y_i^2;  its features are independent.
 *
 * Choromanski et al. 2021, Lemma 2, Theorems 1 and 2; Likhosherstov et al. 2022; Cho and Saul 2009; Kar and
 * Karnick 2012. Cost O(number of terms); double precision. Values out of range are infinite.
 */
#include "approx_closed.h"
#include <math.h>

#define PI     3.14159265358979323846
#define NORM_E 1e-3 /* rfa divides by |x| + 1e-3 */

enum { TERMS_MAX = 4000 };

/* 0F1(; b; u) = sum u^k/(k! (b)_k) */
static double hypergeometric_0f1(double b, double u)
{
    double term = 1, sum = 1;
    for (int k = 1; k < TERMS_MAX && fabs(term) > 1e-18 * fabs(sum); k++)
        sum += term *= u / (k * (b + k - 1));
    return sum;
}

/* first * 1F1(a; b; u) */
static double hypergeometric_1f1(double first, double a, double b, double u)
{
    double term = first, sum = first, largest = fabs(first);
    for (int k = 1; k < TERMS_MAX && fabs(term) > 1e-18 * largest; k++) {
        sum += term *= (a + k - 1) / (b + k - 1) * u / k;
        largest = fmax(largest, fabs(sum));
    }
    return sum;
}

/* S(w). Below 0 the transformed series: its terms alternate, but stay below e^|w|, which e^w takes away. */
static double pair_moment(double d, double w)
{
    return w >= 0 ? hypergeometric_1f1(1, d, d / 2, w) : hypergeometric_1f1(exp(w), -d / 2, d / 2, -w);
}

/* ---- moments --------------------------------------------------------------------------------------- */

typedef struct moments {
    double factor, mean, second, pair; /* c, mu, s, p */
} moments;

static const moments unknown = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};

static moments exponential(const approx_law *law, const approx_pair *x)
{
    double d = (double)law->d, z2 = x->xx + x->yy + 2 * x->xy, w = z2 / 2, a4 = 1 - 4 * law->oprf_a,
           a8 = 1 - 8 * law->oprf_a;
    moments m = {exp(-(x->xx + x->yy) / 2), exp(w), exp(4 * w), pair_moment(d, w)};
    if (law->sqrt_d && law->family == APPROX_OPRF)
        return unknown;
    if (law->sqrt_d) {
        m.mean = hypergeometric_0f1(d / 2, d * z2 / 4);
        m.second = hypergeometric_0f1(d / 2, d * z2);
        m.pair = hypergeometric_0f1(d / 2, d * z2 / 2);
    }
    if (law->family == APPROX_HYPERBOLIC)
        m.second = (1 + m.second) / 2;
    if (law->family == APPROX_OPRF)
        m.second = exp(d * log(a4) - d / 2 * log(a8) + 4 * w * a4 / a8);
    return m;
}

static moments trigonometric(const approx_law *law, double factor, double v)
{
    if (law->sqrt_d)
        return unknown;
    return (moments){factor, exp(-v), (1 + exp(-4 * v)) / 2, pair_moment((double)law->d, -v)};
}

/* The pair as RFA normalises it. */
static approx_pair unit(const approx_pair *x)
{
    double a = sqrt(x->xx), b = sqrt(x->yy), s = 1 / (a + NORM_E), t = 1 / (b + NORM_E);
    return (approx_pair){x->xx * s * s, x->yy * t * t, x->xy * s * t, x->x2y2 * s * s * t * t};
}

static moments arc_cosine(const approx_law *law, const approx_pair *x)
{
    double norms = sqrt(x->xx * x->yy), cosine = norms > 0 ? fmax(-1, fmin(1, x->xy / norms)) : 0;
    double t = acos(cosine), sine = sqrt(1 - cosine * cosine);
    if (law->sqrt_d)
        return unknown;
    return (moments){1, norms * (sine + (PI - t) * cosine) / (2 * PI),
                     norms * norms * (3 * sine * cosine + (PI - t) * (1 + 2 * cosine * cosine)) / (2 * PI),
                     law->orthogonal && law->m > 1 ? (double)NAN : 0};
}

/* The sum over degrees is over all of them unless the law ends; where terms do not fall by its end, the moment is
 * taken to be infinite. */
static moments maclaurin(const approx_law *law, const approx_pair *x)
{
    double h = x->xx * x->yy + 2 * x->xy * x->xy - 2 * x->x2y2, power = 1, second_power = 1, term = 0;
    moments m = {.factor = 1};
    for (int n = 0; n < law->degrees; n++, power *= x->xy, second_power *= h) {
        m.mean += law->a[n] * power;
        term = law->a[n] > 0 && second_power > 0 ? law->a[n] * law->a[n] / law->p[n] * second_power : 0;
        m.second += term;
    }
    if (!law->cut && term > 1e-12 * m.second)
        m.second = (double)INFINITY;
    return m;
}

static moments moments_of(const approx_law *law, const approx_pair *pair)
{
    approx_pair u = unit(pair);
    switch (law->family) {
    case APPROX_POSITIVE:
    case APPROX_HYPERBOLIC:
    case APPROX_OPRF:
        return exponential(law, pair);
    case APPROX_TRIG:
        return trigonometric(law, exp((pair->xx + pair->yy) / 2), (pair->xx + pair->yy) / 2 - pair->xy);
    case APPROX_RFA:
        return trigonometric(law, 1, ((u.xx + u.yy) / 2 - u.xy) / (law->tau * law->tau));
    case APPROX_ARCCOS:
        return arc_cosine(law, &u);
    case APPROX_MACLAURIN:
        return maclaurin(law, pair);
    default:
        return unknown;
    }
}

/* Ordered pairs of different rows inside a block. */
static double pairs_inside(const approx_law *law)
{
    double inside = 0;
    for (int64_t begin = 0; begin < law->m && law->orthogonal; begin += law->d) {
        double rows = (double)(law->m - begin < law->d ? law->m - begin : law->d);
        inside += rows * (rows - 1);
    }
    return inside;
}

double approx_closed_mean(const approx_law *law, const approx_pair *pair)
{
    moments m = moments_of(law, pair);
    return m.factor * m.mean;
}

double approx_closed_variance(const approx_law *law, const approx_pair *pair)
{
    moments m = moments_of(law, pair);
    double rows = (double)law->m, inside = pairs_inside(law), outside = rows * rows - rows - inside;
    double coupled = inside > 0 ? inside * m.pair : 0;
    double variance =
        m.second / rows + (coupled + outside * m.mean * m.mean) / (rows * rows) - m.mean * m.mean;
    return m.factor * m.factor * variance;
}

double approx_oprf_a(double psi, int64_t d)
{
    double ratio = 2 * psi / (double)d;
    return (1 - ratio - sqrt((ratio + 1) * (ratio + 1) + 4 * ratio)) / 16;
}

double approx_half_width(int64_t n, double sd)
{
    /* Quantiles 0.975 of Student's t for 1 .. 30 degrees of freedom. */
    static const double t[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                               2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                               2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
    int known = (int)(sizeof t / sizeof t[0]);
    if (n < 2)
        return (double)NAN;
    double freedom = (double)(n - 1), z = 1.959964;
    double quantile = freedom <= known ? t[n - 2] : z + (z * z * z + z) / (4 * freedom); /* Cornish-Fisher */
    return quantile * sd / sqrt((double)n);
}
