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

/* (2^f - 1) / f for |f| <= 1/2. */
static inline V exp2_quotient(V f)
{
    V q = v_fma(f, v_set1(0.000153534154675f), v_set1(0.001339887346f));
    q = v_fma(f, q, v_set1(0.00961843718494f));
    q = v_fma(f, q, v_set1(0.0555033247246f));
    q = v_fma(f, q, v_set1(0.240226479148f));
    return v_fma(f, q, v_set1(0.693147202856f));
}

/* 2^x for x <= 128 or NaN. */
static inline V exp2_bounded(V x)
{
    V n = v_round(x);
    V f = v_sub(x, n);
    V power = v_scale2(v_fma(f, exp2_quotient(f), v_set1(1.0f)), n);
    return v_drop(v_lt(x, v_set1(-126.0f)), power);
}

/* 2^x - 1 for x <= 0 or NaN, without cancellation at 0. */
static inline V exp2_minus_1(V x)
{
    V bounded = v_select(v_lt(x, v_set1(-126.0f)), v_set1(-126.0f), x);
    V n = v_round(bounded);
    V f = v_sub(bounded, n);
    V power = v_scale2(v_set1(1.0f), n);
    return v_fma(power, v_mul(f, exp2_quotient(f)), v_sub(power, v_set1(1.0f)));
}

/* log2(1 + z) = 2 log2(e) atanh(s), s = z / (2 + z), for z in [0, 1] or NaN; atanh(s) / s as a polynomial of degree 4
 * in s^2 of least largest relative error: 4.0e-9 before rounding. */
static inline V log2_of_1_plus(V z)
{
    V s = v_div(z, v_add(v_set1(2.0f), z));
    V w = v_mul(s, s);
    V p = v_fma(w, v_set1(0.40652744634f), v_set1(0.40338622807f));
    p = v_fma(w, p, v_set1(0.577437395842f));
    p = v_fma(w, p, v_set1(0.961791615859f));
    p = v_fma(w, p, v_set1(2.88539009321f));
    return v_mul(s, p);
}

static inline V exp2_any(V x)
{
    return exp2_bounded(v_min(v_set1(128.0f), x));
}

/* sin and cos: x = n pi/2 + f with n = round(2x/pi) and |f| <= pi/4, pi/2 in three parts so that f keeps its relative
 * accuracy for |x| <= SINCOS_LIMIT; sin f = f + f^3 p(f^2), cos f = 1 - f^2/2 + f^4 q(f^2), both of degree 2 and least
 * largest error: 3.6e-9 and 1e-10 before rounding. n mod 4 picks one of them and its sign. */
#define SINCOS_LIMIT 32768.0f

typedef struct SinCos {
    V sin, cos;
} SinCos;

static inline SinCos sincos_bounded(V x)
{
    V n = v_round(v_mul(x, v_set1(0.636619772367581f)));
    V f = v_fma(n, v_set1(-0x1.921fb6p+0f), x);
    f = v_fma(n, v_set1(0x1.777a5cp-25f), f);
    f = v_fma(n, v_set1(0x1.ee59dap-50f), f);
    V z = v_mul(f, f);
    V p = v_fma(z, v_set1(-0.0001951713774f), v_set1(0.008332176993f));
    p = v_fma(z, p, v_set1(-0.1666665493f));
    V q = v_fma(z, v_set1(2.443827078e-05f), v_set1(-0.0013887366f));
    q = v_fma(z, q, v_set1(0.04166664684f));
    V sine = v_fma(v_mul(z, f), p, f);
    V cosine = v_fma(v_mul(z, z), q, v_fma(z, v_set1(-0.5f), v_set1(1.0f)));
    /* quarter = n - 4 round(n/4) in -2 .. 2; at +-2 both change sign, at +1 the sine is cos f and the cosine -sin f. */
    V quarter = v_fma(v_round(v_mul(n, v_set1(0.25f))), v_set1(-4.0f), n);
    VM turned = v_lt(v_abs(v_sub(v_abs(quarter), v_set1(1.0f))), v_set1(0.5f));
    VM half = v_lt(v_set1(1.5f), v_abs(quarter));
    V sign_sine = v_select(half, v_set1(-1.0f), v_set1(1.0f));
    V s = v_select(turned, v_mul(quarter, cosine), v_mul(sign_sine, sine));
    V c = v_select(turned, v_sub(v_set1(0.0f), v_mul(quarter, sine)), v_mul(sign_sine, cosine));
    return (SinCos){s, c};
}

/* Beyond the limit lane by lane: rare, and exact there too. NaN and infinities give NaN either way. */
static inline SinCos sincos_any(V x)
{
    SinCos value = sincos_bounded(x);
    if (!v_any(v_lt(v_set1(SINCOS_LIMIT), v_abs(x))))
        return value;
    float angle[VL], sine[VL], cosine[VL];
    v_store(angle, x);
    v_store(sine, value.sin);
    v_store(cosine, value.cos);
    for (int lane = 0; lane < VL; lane++)
        if (fabsf(angle[lane]) > SINCOS_LIMIT) {
            sine[lane] = (float)sin((double)angle[lane]);
            cosine[lane] = (float)cos((double)angle[lane]);
        }
    return (SinCos){v_load(sine), v_load(cosine)};
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
