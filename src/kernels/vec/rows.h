/* vec/rows.h: row operations and casts in SIMD words. Contracts: kernels.def. */

static void KERNEL(fill)(int64_t n, float value, float *y)
{
    V v = v_set1(value);
    EACH_VECTOR(n, put(y + i, part, v));
}

static void KERNEL(copy_rows)(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    for (int64_t r = 0; r < n; r++, x += ldx, y += ldy)
        EACH_VECTOR(c, put(y + i, part, get(x + i, part)));
}

static void KERNEL(scale)(int64_t n, float alpha, const float *x, float *y)
{
    V a = v_set1(alpha);
    EACH_VECTOR(n, put(y + i, part, v_mul(a, get(x + i, part))));
}

static void KERNEL(axpy)(int64_t n, float alpha, const float *x, float *y)
{
    V a = v_set1(alpha);
    EACH_VECTOR(n, put(y + i, part, v_fma(a, get(x + i, part), get(y + i, part))));
}

static void KERNEL(add)(int64_t n, const float *a, const float *b, float *y)
{
    EACH_VECTOR(n, put(y + i, part, v_add(get(a + i, part), get(b + i, part))));
}

static void KERNEL(mul_add)(int64_t n, const float *a, const float *b, float *y)
{
    EACH_VECTOR(n, put(y + i, part, v_fma(get(a + i, part), get(b + i, part), get(y + i, part))));
}

static void KERNEL(mul)(int64_t n, const float *a, const float *b, float *y)
{
    EACH_VECTOR(n, put(y + i, part, v_mul(get(a + i, part), get(b + i, part))));
}

static void KERNEL(scale_rows)(int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, int add,
                               float *y, int64_t ldy)
{
    for (int64_t r = 0; r < n; r++, x += ldx, y += ldy) {
        float weight = w != NULL ? w[r] : 1.0f;
        if (add)
            KERNEL(axpy)(c, weight, x, y);
        else
            KERNEL(scale)(c, weight, x, y);
    }
}

static void KERNEL(bias_rows)(int64_t n, int64_t c, const float *x, const float *bias, float *y)
{
    for (int64_t r = 0; r < n; r++, x += c, y += c)
        KERNEL(add)(c, x, bias, y);
}

static float KERNEL(max_abs)(int64_t n, const float *x)
{
    Fold top = fold_set1(0.0f), nan = fold_set1(0.0f);
    FOLD_VECTORS(n, {
        V v = v_abs(get(x + i, part));
        top.v[u] = v_max(v, top.v[u]);
        nan.v[u] = v_select(v_is_nan(v), v, nan.v[u]);
    });
    float poison = fold_sum(&nan);
    return poison == 0.0f ? fold_top(&top) : poison;
}

static int KERNEL(within)(int64_t n, float low, float high, const float *x)
{
    Fold bad = fold_set1(0.0f); /* what is too small, or 1 for what is too large or NaN */
    V least = v_set1(low), most = v_set1(high), one = v_set1(1.0f);
    FOLD_VECTORS(n, {
        V a = v_abs(get(x + i, part));
        bad.v[u] = v_add(bad.v[u], v_select(v_le(a, most), v_keep(v_lt(a, least), a), one));
    });
    return fold_sum(&bad) == 0.0f;
}

static double KERNEL(sum_squares)(int64_t n, const float *x)
{
    VD sum[FOLD] = {d_zero(), d_zero(), d_zero(), d_zero()};
    FOLD_VECTORS(n, {
        VD v = d_widen(get(x + i, part));
        sum[u] = d_fma(v, v, sum[u]);
    });
    return d_sum(d_add(d_add(sum[0], sum[1]), d_add(sum[2], sum[3])));
}

static double KERNEL(sum)(int64_t n, const float *x)
{
    VD sum[FOLD] = {d_zero(), d_zero(), d_zero(), d_zero()};
    FOLD_VECTORS(n, sum[u] = d_add(sum[u], d_widen(get(x + i, part))));
    return d_sum(d_add(d_add(sum[0], sum[1]), d_add(sum[2], sum[3])));
}

static int KERNEL(all_finite)(int64_t n, int64_t c, const float *x, int64_t ldx)
{
    for (int64_t r = 0; r < n; r++, x += ldx) {
        /* 0 x is 0 for a finite x and NaN for the others: the sum remembers. */
        Fold bad = fold_set1(0.0f);
        FOLD_VECTORS(c, bad.v[u] = v_fma(get(x + i, part), v_set1(0.0f), bad.v[u]));
        if (fold_sum(&bad) != 0.0f)
            return 0;
    }
    return 1;
}

static int KERNEL(finite_rows)(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    Fold bad = fold_set1(0.0f);
    V infinity = v_set1(INFINITY);
    for (int64_t r = 0; r < n; r++, x += ldx, y += ldy) {
        FOLD_VECTORS(c, {
            V v = get(x + i, part);
            bad.v[u] = v_fma(v, v_set1(0.0f), bad.v[u]);
            put(y + i, part, v_keep(v_lt(v_abs(v), infinity), v));
        });
    }
    return fold_sum(&bad) == 0.0f;
}

static void KERNEL(mask_rows)(int64_t n, int64_t c, const int64_t *visible, float *x, int64_t ldx)
{
    for (int64_t r = 0; r < n; r++) {
        int64_t first = FV_MAX(visible[r], 0);
        KERNEL(fill)(c - first, 0.0f, x + r * ldx + FV_MIN(first, c));
    }
}

static void KERNEL(gather_rows)(int64_t n, int64_t c, const int32_t *ids, const float *table, float *y)
{
    for (int64_t r = 0; r < n; r++)
        KERNEL(copy_rows)(1, c, table + ids[r] * c, c, y + r * c, c);
}

static void KERNEL(scatter_add_rows)(int64_t n, int64_t c, const int32_t *ids, const float *dy,
                                     float *table_grad)
{
    for (int64_t r = 0; r < n; r++) {
        float *row = table_grad + ids[r] * c;
        KERNEL(add)(c, row, dy + r * c, row);
    }
}

/* The upper half words of the result are bf16: to nearest, to even. */
static inline VI bf16_upper(V x)
{
    VI bits = b_cast(x);
    VI odd = b_and(b_upper(bits), b_set1(1));
    VI rounded = b_add(bits, b_add(odd, b_set1(0x7fff)));
    return b_select(v_is_nan(x), b_or(bits, b_set1(0x400000)), rounded);
}

static void KERNEL(f32_to_bf16)(int64_t n, const float *x, uint16_t *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        b_store_u16(y + i, b_upper(bf16_upper(v_load(x + i))));
    if (i < n) {
        uint16_t last[VL];
        b_store_u16(last, b_upper(bf16_upper(v_load_tail(x + i, v_tail(n - i)))));
        memcpy(y + i, last, (size_t)(n - i) * sizeof *y);
    }
}

static void KERNEL(round_bf16)(int64_t n, const float *x, uint16_t *half, float *y)
{
    VI upper = b_set1(0xffff0000u);
    int64_t i = 0;
    for (; i + VL <= n; i += VL) {
        VI bits = bf16_upper(v_load(x + i));
        v_store(y + i, b_float(b_and(bits, upper)));
        if (half != NULL)
            b_store_u16(half + i, b_upper(bits));
    }
    if (i < n) {
        VI bits = bf16_upper(v_load_tail(x + i, v_tail(n - i)));
        v_store_tail(y + i, v_tail(n - i), b_float(b_and(bits, upper)));
        uint16_t last[VL];
        b_store_u16(last, b_upper(bits));
        if (half != NULL)
            memcpy(half + i, last, (size_t)(n - i) * sizeof *half);
    }
}

static void KERNEL(bf16_to_f32)(int64_t n, const uint16_t *x, float *y)
{
    int64_t i = 0;
    for (; i + VL <= n; i += VL)
        v_store(y + i, v_load_bf16(x + i));
    if (i < n) {
        uint16_t last[VL] = {0};
        memcpy(last, x + i, (size_t)(n - i) * sizeof *x);
        v_store_tail(y + i, v_tail(n - i), v_load_bf16(last));
    }
}
