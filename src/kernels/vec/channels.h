/* vec/channels.h: products of a row's channels in SIMD words. Contracts: kernels.def. */

#define SQRT_2 1.4142135623730951

static void KERNEL(square_rows)(int64_t n, int64_t c, float factor, const float *x, int64_t ldx, float *y,
                                int64_t ldy)
{
    const float mixed = (float)((double)factor * SQRT_2);
    for (int64_t r = 0; r < n; r++, x += ldx) {
        float *to = y + r * ldy;
        for (int64_t a = 0; a < c; a++) {
            float first = x[a];
            V weight = v_set1(mixed * first);
            to[0] = factor * first * first;
            EACH_VECTOR(c - a - 1, put(to + 1 + i, part, v_mul(weight, get(x + a + 1 + i, part))));
            to += c - a;
        }
    }
}

static void KERNEL(square_rows_back)(int64_t n, int64_t c, float factor, const float *x, int64_t ldx,
                                     const float *dy, int64_t lddy, float *dx, int64_t lddx)
{
    const float mixed = (float)((double)factor * SQRT_2);
    for (int64_t r = 0; r < n; r++, x += ldx, dx += lddx) {
        const float *from = dy + r * lddy;
        for (int64_t a = 0; a < c; a++) {
            V weight = v_set1(mixed * x[a]), total = v_set1(0.0f);
            EACH_VECTOR(c - a - 1, {
                V g = get(from + 1 + i, part);
                put(dx + a + 1 + i, part, v_fma(weight, g, get(dx + a + 1 + i, part)));
                total = v_fma(within_zero(part, g), get(x + a + 1 + i, part), total);
            });
            dx[a] += mixed * v_sum(total) + 2.0f * factor * x[a] * from[0];
            from += c - a;
        }
    }
}

static void KERNEL(cyclic_rows)(int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy)
{
    for (int64_t r = 0; r < n; r++, x += ldx, y += ldy) {
        float first = x[0];
        EACH_VECTOR(c - 1, put(y + i, part, v_mul(get(x + i, part), get(x + i + 1, part))));
        y[c - 1] = x[c - 1] * first;
    }
}

static void KERNEL(cyclic_rows_back)(int64_t n, int64_t c, const float *x, int64_t ldx, const float *dy,
                                     int64_t lddy, float *dx, int64_t lddx)
{
    for (int64_t r = 0; r < n; r++, x += ldx, dy += lddy, dx += lddx) {
        EACH_VECTOR(c - 1, put(dx + i, part, v_mul(get(dy + i, part), get(x + i + 1, part))));
        dx[c - 1] = dy[c - 1] * x[0];
        EACH_VECTOR(c - 1,
                    put(dx + 1 + i, part, v_fma(get(dy + i, part), get(x + i, part), get(dx + 1 + i, part))));
        dx[0] += dy[c - 1] * x[c - 1];
    }
}

static void KERNEL(log2_sums)(int64_t n, int64_t c, const float *x, int64_t ldx, float *out)
{
    for (int64_t r = 0; r < n; r++, x += ldx) {
        float top = shifted_top(c, x, NULL, -INFINITY);
        Fold sum = fold_set1(0.0f);
        V base = v_set1(top);
        FOLD_VECTORS(c, {
            V power = exp2_bounded(v_sub(get(x + i, part), base));
            sum.v[u] = v_add(sum.v[u], within_zero(part, power));
        });
        out[r] = (float)((double)top + log2((double)fold_sum(&sum)));
    }
}
