/* vec/functions.h: the functions of generalized maps in SIMD words: value and slope of each, one row of FUNCTIONS.
 * Contracts: kernels.def.
 *
 * Exponentials are taken of -|x|, so that nothing overflows and both tails keep their relative accuracy; 1 - 2^x
 * comes without cancellation (vec/math.h), so that tanh keeps it at 0. */

#define LOG2E_F 1.4426950408889634f

/* 2^(-a |x|) */
static inline V decay_of(V x, float a)
{
    return exp2_bounded(v_mul(v_set1(-a), v_abs(x)));
}

static inline V drop_negative(V x, V y)
{
    return v_drop(v_le(x, v_set1(0.0f)), y);
}

static inline V relu_value(V x, float eps)
{
    return v_add(drop_negative(x, x), v_set1(eps));
}
static inline V relu_slope(V x, float eps)
{
    (void)eps;
    return drop_negative(x, v_set1(1.0f));
}

static inline float log2_of(float eps)
{
    return (float)log2((double)eps);
}

/* log2(2^a + 2^b) = max + log2(1 + 2^-|a - b|) */
static inline V exp_value(V x, float eps)
{
    V a = v_mul(v_set1(LOG2E_F), x), b = v_set1(log2_of(eps));
    if (eps == 0.0f)
        return a;
    V small = exp2_bounded(v_sub(v_set1(0.0f), v_abs(v_sub(a, b))));
    return v_add(v_select(v_lt(a, b), b, a), log2_of_1_plus(small));
}
static inline V exp_slope(V x, float eps)
{
    V one = v_set1(1.0f);
    if (eps == 0.0f)
        return one;
    V rest = v_sub(v_set1(log2_of(eps)), v_mul(v_set1(LOG2E_F), x));
    return v_div(one, v_add(one, exp2_any(rest)));
}

static inline V sigmoid_value(V x, float eps)
{
    V e = decay_of(x, LOG2E_F), one = v_set1(1.0f), positive = v_div(one, v_add(one, e));
    return v_add(v_select(v_lt(x, v_set1(0.0f)), v_mul(e, positive), positive), v_set1(eps));
}
static inline V sigmoid_slope(V x, float eps)
{
    (void)eps;
    V e = decay_of(x, LOG2E_F), one = v_set1(1.0f), share = v_div(one, v_add(one, e));
    return v_mul(v_mul(e, share), share);
}

/* (1 - e) / (1 + e), e = exp(-2 |x|), with the sign of x. */
static inline V tanh_value(V x, float eps)
{
    V missing = exp2_minus_1(v_mul(v_set1(-2.0f * LOG2E_F), v_abs(x)));
    V size = v_div(v_sub(v_set1(0.0f), missing), v_add(v_set1(2.0f), missing));
    V value = v_select(v_lt(x, v_set1(0.0f)), v_sub(v_set1(0.0f), size), size);
    return v_add(value, v_set1(eps));
}
static inline V tanh_slope(V x, float eps)
{
    (void)eps;
    V e = decay_of(x, 2.0f * LOG2E_F), share = v_div(v_set1(2.0f), v_add(v_set1(1.0f), e));
    return v_mul(v_mul(e, share), share);
}

static inline V gelu_value(V x, float eps)
{
    return v_fma(x, normal_at(x).cdf, v_set1(eps));
}
static inline V gelu_slope(V x, float eps)
{
    (void)eps;
    Normal at = normal_at(x);
    return v_fma(v_mul(x, v_set1(0.39894228040143f)), at.pdf, at.cdf);
}

static inline V abs_value(V x, float eps)
{
    return v_add(v_abs(x), v_set1(eps));
}
static inline V abs_slope(V x, float eps)
{
    (void)eps; /* 0 and NaN stay */
    V zero = v_set1(0.0f), below = v_select(v_lt(x, zero), v_set1(-1.0f), x);
    return v_select(v_lt(zero, x), v_set1(1.0f), below);
}

static inline V square_value(V x, float eps)
{
    return v_fma(x, x, v_set1(eps));
}
static inline V square_slope(V x, float eps)
{
    (void)eps;
    return v_add(x, x);
}

static inline V relu2_value(V x, float eps)
{
    V positive = drop_negative(x, x);
    return v_fma(positive, positive, v_set1(eps));
}
static inline V relu2_slope(V x, float eps)
{
    (void)eps;
    return drop_negative(x, v_add(x, x));
}

static inline V cos_value(V x, float eps)
{
    return v_add(sincos_any(x).cos, v_set1(eps));
}
static inline V cos_slope(V x, float eps)
{
    (void)eps;
    return v_sub(v_set1(0.0f), sincos_any(x).sin);
}
static inline V sin_value(V x, float eps)
{
    return v_add(sincos_any(x).sin, v_set1(eps));
}
static inline V sin_slope(V x, float eps)
{
    (void)eps;
    return sincos_any(x).cos;
}

static inline V linear_value(V x, float eps)
{
    return v_add(x, v_set1(eps));
}
static inline V linear_slope(V x, float eps)
{
    (void)x, (void)eps;
    return v_set1(1.0f);
}

static inline V elu1_value(V x, float eps)
{
    V one = v_set1(1.0f);
    return v_add(v_select(v_lt(v_set1(0.0f), x), v_add(x, one), decay_of(x, LOG2E_F)), v_set1(eps));
}
static inline V elu1_slope(V x, float eps)
{
    (void)eps;
    return v_select(v_lt(v_set1(0.0f), x), v_set1(1.0f), decay_of(x, LOG2E_F));
}

/* max(x, 0) + ln(1 + e), e = exp(-|x|) */
static inline V softplus_value(V x, float eps)
{
    V rest = v_mul(v_set1(0.6931471805599453f), log2_of_1_plus(decay_of(x, LOG2E_F)));
    return v_add(v_add(drop_negative(x, x), rest), v_set1(eps));
}
static inline V softplus_slope(V x, float eps)
{
    (void)eps;
    return sigmoid_value(x, 0.0f);
}

/* The table: enumerator, name. */
#define FUNCTIONS(ROW)                                                                                       \
    ROW(RELU, relu)                                                                                          \
    ROW(EXP, exp)                                                                                            \
    ROW(SIGMOID, sigmoid)                                                                                    \
    ROW(TANH, tanh)                                                                                          \
    ROW(GELU, gelu)                                                                                          \
    ROW(ABS, abs)                                                                                            \
    ROW(SQUARE, square)                                                                                      \
    ROW(RELU2, relu2)                                                                                        \
    ROW(COS, cos)                                                                                            \
    ROW(SIN, sin)                                                                                            \
    ROW(LINEAR, linear)                                                                                      \
    ROW(ELU1, elu1)                                                                                          \
    ROW(SOFTPLUS, softplus)

/* One loop a function, in two tables that function_rows and function_rows_back pick from. Slopes: + 0, so that
 * no -0 differs from what adding to 0 gives. */
#define LOOPS(enumerator, name)                                                                              \
    static void KERNEL(name##_values)(int64_t n, int64_t c, float eps, const float *x, int64_t ldx,          \
                                      float *y, int64_t ldy)                                                 \
    {                                                                                                        \
        for (int64_t r = 0; r < n; r++, x += ldx, y += ldy)                                                  \
            EACH_VECTOR(c, put(y + i, part, name##_value(get(x + i, part), eps)));                           \
    }                                                                                                        \
    static void KERNEL(name##_slopes)(int64_t n, int64_t c, float eps, const float *x, int64_t ldx,          \
                                      const float *dy, int64_t lddy, float *dx, int64_t lddx)                \
    {                                                                                                        \
        for (int64_t r = 0; r < n; r++, x += ldx, dy += lddy, dx += lddx)                                    \
            EACH_VECTOR(c, {                                                                                 \
                V slope = name##_slope(get(x + i, part), eps);                                               \
                put(dx + i, part, v_fma(slope, get(dy + i, part), v_set1(0.0f)));                            \
            });                                                                                              \
    }
FUNCTIONS(LOOPS)
#undef LOOPS

static void KERNEL(function_rows)(int function, int64_t n, int64_t c, float eps, const float *x, int64_t ldx,
                                  float *y, int64_t ldy)
{
#define VALUES(enumerator, name) [FV_FUNCTION_##enumerator] = KERNEL(name##_values),
    static void (*const loops[])(int64_t, int64_t, float, const float *, int64_t, float *,
                                 int64_t) = {FUNCTIONS(VALUES)};
#undef VALUES
    if (function >= 0 && function < FV_COUNT(loops) && loops[function] != NULL)
        loops[function](n, c, eps, x, ldx, y, ldy);
}

static void KERNEL(function_rows_back)(int function, int64_t n, int64_t c, float eps, const float *x,
                                       int64_t ldx, const float *dy, int64_t lddy, float *dx, int64_t lddx)
{
#define SLOPES(enumerator, name) [FV_FUNCTION_##enumerator] = KERNEL(name##_slopes),
    static void (*const loops[])(int64_t, int64_t, float, const float *, int64_t, const float *, int64_t,
                                 float *, int64_t) = {FUNCTIONS(SLOPES)};
#undef SLOPES
    if (function >= 0 && function < FV_COUNT(loops) && loops[function] != NULL)
        loops[function](n, c, eps, x, ldx, dy, lddy, dx, lddx);
}
