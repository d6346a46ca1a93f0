/* vec/math.h: powers of two and the normal distribution.
 *
 * exp2: 2^x = 2^n 2^f with n = round(x) and f in [-1/2, 1/2]; 2^f = 1 + f q(f), q the polynomial of degree 5
 * that minimises the largest relative error under the constraint that 2^0 is exactly 1: 2.0e-9 before
 * rounding, and after it less than 1 unit in the last place (0.93 measured, test_kernels_laws.c). Degree 4
 * gives 2.0 units and is no faster.
 *
 * Normal distribution: Phi(-a) = exp(-a^2/2) P(t), t = 1 / (1 + 0.3 a), for a >= 0, P the polynomial of
 * degree 8 without constant term that minimises the largest relative error over a in [0, 14]: 1.5e-7. The
 * lower tail keeps its relative accuracy up to the rounding of a^2/2, which exp turns into a^2/2 units. */
#ifndef FV_VEC_MATH_H
#define FV_VEC_MATH_H

/* 2^x for x <= 128 or NaN. */
static inline V exp2_bounded(V x)
{
    V n = v_round(x);
    V f = v_sub(x, n);
    V q = v_fma(f, v_set1(0.000153534154675f), v_set1(0.001339887346f));
    q = v_fma(f, q, v_set1(0.00961843718494f));
    q = v_fma(f, q, v_set1(0.0555033247246f));
    q = v_fma(f, q, v_set1(0.240226479148f));
    q = v_fma(f, q, v_set1(0.693147202856f));
    V power = v_scale2(v_fma(f, q, v_set1(1.0f)), n);
    return v_drop(v_lt(x, v_set1(-126.0f)), power);
}

static inline V exp2_any(V x)
{
    return exp2_bounded(v_min(v_set1(128.0f), x));
}

typedef struct Normal {
    V cdf, pdf; /* pdf without the factor 1 / sqrt(2 pi) */
} Normal;

static inline Normal normal_at(V u)
{
    V a = v_abs(u);
    V t = v_div(v_set1(1.0f), v_fma(a, v_set1(0.3f), v_set1(1.0f)));
    V p = v_fma(t, v_set1(0.03567361087f), v_set1(-0.1571980138f));
    p = v_fma(t, p, v_set1(0.2063444394f));
    p = v_fma(t, p, v_set1(-0.0536750799f));
    p = v_fma(t, p, v_set1(0.1285570561f));
    p = v_fma(t, p, v_set1(0.09991485514f));
    p = v_fma(t, p, v_set1(0.1207537481f));
    p = v_fma(t, p, v_set1(0.1196293113f));
    V half_log2e = v_set1(-0.72134752044448f);
    V pdf = exp2_bounded(v_mul(v_mul(u, half_log2e), u));
    V below = v_mul(pdf, v_mul(t, p));
    V cdf = v_select(v_lt(u, v_set1(0.0f)), below, v_sub(v_set1(1.0f), below));
    return (Normal){.cdf = cdf, .pdf = pdf};
}

#endif
