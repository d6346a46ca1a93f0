/* vec/attention.h: features and softmax in SIMD words. Contracts: kernels.def.
 *
 * A row's largest entry must be known before its powers are taken, and finding it ends in a chain of
 * dependent steps over the lanes. So rows go in blocks: the maxima of ROWS rows, then their powers, from the
 * first-level cache. */

enum { ROWS = 8 };

static inline V shifted(const float *x, const float *shift, int64_t i, Part part)
{
    return shift != NULL ? v_add(get(x + i, part), get(shift + i, part)) : get(x + i, part);
}

static inline float shifted_top(int64_t c, const float *x, const float *shift, float start)
{
    Fold top = fold_set1(start);
    V lowest = v_set1(-INFINITY);
    FOLD_VECTORS(c, top.v[u] = v_max(within(part, shifted(x, shift, i, part), lowest), top.v[u]));
    return fold_top(&top);
}

static inline void shifted_powers(int64_t c, float *x, const float *shift, float top)
{
    V base = v_set1(top);
    EACH_VECTOR(c, put(x + i, part, exp2_bounded(v_sub(shifted(x, shift, i, part), base))));
}

static void KERNEL(exp2_rows_top)(int64_t n, int64_t c, float *x, int64_t ldx, const float *shift, float *top)
{
    for (int64_t first = 0; first < n; first += ROWS) {
        int64_t last = FV_MIN(first + ROWS, n);
        for (int64_t r = first; r < last; r++)
            top[r] = shifted_top(c, x + r * ldx, shift, -INFINITY);
        for (int64_t r = first; r < last; r++)
            shifted_powers(c, x + r * ldx, shift, top[r] == -INFINITY ? 0.0f : top[r]);
    }
}

static float KERNEL(exp2_rows)(int64_t n, int64_t c, float *x, int64_t ldx, const float *bias,
                               const float *shift)
{
    V top = v_set1(-INFINITY), lowest = top;
    for (int64_t r = 0; r < n; r++, x += ldx) {
        V add = v_set1(bias[r]);
        EACH_VECTOR(c, {
            V v = v_sub(v_add(get(x + i, part), add), get(shift + i, part));
            top = v_max(within(part, v, lowest), top);
            put(x + i, part, exp2_any(v));
        });
    }
    return v_top(top);
}

/* floor(log2|x|) of normal numbers; -127 for smaller ones, 128 for infinities and NaN: the field of the exponent becomes
 * the lower bits of 2^23 + 128 (exponent + 127). */
static inline V exponent_of(V x)
{
    VI field = b_upper(b_and(b_cast(x), b_set1(0x7f800000)));
    V scaled = v_sub(b_float(b_or(field, b_set1(0x4b000000))), v_set1(0x1p23f));
    return v_fma(scaled, v_set1(0x1p-7f), v_set1(-127.0f));
}

static void KERNEL(split)(int64_t n, float zero, float *x, float *m, float *inverse)
{
    V least = v_set1(-126.0f), most = v_set1(126.0f), one = v_set1(1.0f);
    V of_zero = v_set1(zero), power_of_zero = v_set1(zero == -INFINITY ? 0.0f : 1.0f);
    EACH_VECTOR(n, {
        V value = get(x + i, part);
        VM none = v_le(v_abs(value), v_set1(0.0f));
        V e = v_min(most, v_max(exponent_of(value), least));
        V power = v_select(none, power_of_zero, v_scale2(one, v_sub(v_set1(0.0f), e)));
        put(x + i, part, v_select(none, of_zero, e));
        if (m != NULL)
            put(m + i, part, v_mul(value, power));
        if (inverse != NULL)
            put(inverse + i, part, power);
    });
}

static void KERNEL(sincos_rows)(int64_t n, int64_t c, const float *x, int64_t ldx, float *s, float *y,
                                int64_t ldy)
{
    for (int64_t r = 0; r < n; r++, x += ldx, s += ldy, y += ldy)
        EACH_VECTOR(c, {
            SinCos value = sincos_any(get(x + i, part));
            put(s + i, part, value.sin);
            put(y + i, part, value.cos);
        });
}

static inline int64_t row_visible(const int64_t *visible, int64_t r, int64_t c)
{
    return visible == NULL ? c : FV_MAX(FV_MIN(visible[r], c), 0);
}

/* s = 2^(s - base), returns the sum. */
static inline float powers_sum(int64_t c, float *s, float base)
{
    Fold sum = fold_set1(0.0f);
    V b = v_set1(base);
    FOLD_VECTORS(c, {
        V power = exp2_bounded(v_sub(get(s + i, part), b));
        put(s + i, part, power);
        sum.v[u] = v_add(sum.v[u], within_zero(part, power));
    });
    return fold_sum(&sum);
}

static inline float power_of_two(float x)
{
    float lanes[VL];
    v_store(lanes, exp2_bounded(v_set1(x)));
    return lanes[0];
}

static void KERNEL(softmax_tile)(int64_t n, int64_t c, float *s, int64_t lds, const int64_t *visible,
                                 float *top, float *sum, float *factor)
{
    for (int64_t first = 0; first < n; first += ROWS) {
        int64_t last = FV_MIN(first + ROWS, n);
        for (int64_t r = first; r < last; r++) {
            float old = top[r];
            top[r] = shifted_top(row_visible(visible, r, c), s + r * lds, NULL, old);
            factor[r] = old == -INFINITY ? 1.0f : power_of_two(old - top[r]);
        }
        for (int64_t r = first; r < last; r++) {
            int64_t count = row_visible(visible, r, c);
            /* Scores of -inf alone must give 0, not the NaN of -inf - -inf. */
            float base = top[r] == -INFINITY ? 0.0f : top[r];
            sum[r] = sum[r] * factor[r] + powers_sum(count, s + r * lds, base);
            KERNEL(fill)(c - count, 0.0f, s + r * lds + count);
        }
    }
}

static void KERNEL(softmax_probs)(int64_t n, int64_t c, float *s, int64_t lds, const int64_t *visible,
                                  const float *lse)
{
    for (int64_t r = 0; r < n; r++, s += lds) {
        int64_t count = lse[r] == -INFINITY ? 0 : row_visible(visible, r, c);
        V base = v_set1(lse[r]), zero = v_set1(0.0f);
        EACH_VECTOR(count, put(s + i, part, exp2_bounded(v_min(zero, v_sub(get(s + i, part), base)))));
        KERNEL(fill)(c - count, 0.0f, s + count);
    }
}

static void KERNEL(softmax_back)(int64_t n, int64_t c, const float *p, int64_t ldp, const float *dp,
                                 int64_t lddp, const float *delta, float *ds, int64_t ldds)
{
    for (int64_t r = 0; r < n; r++, p += ldp, dp += lddp, ds += ldds) {
        V d = v_set1(delta[r]);
        EACH_VECTOR(c, put(ds + i, part, v_mul(get(p + i, part), v_sub(get(dp + i, part), d))));
    }
}
