/* vec/layers.h: layer norm, activations, loss and AdamW in SIMD words. Contracts: kernels.def. */

static inline float row_mean(int64_t c, const float *x)
{
    Fold sum = fold_set1(0.0f);
    FOLD_VECTORS(c, sum.v[u] = v_add(sum.v[u], get(x + i, part)));
    return fold_sum(&sum) / (float)c;
}

/* Around the mean, not sum of squares minus square of sum: no cancellation. */
static inline float row_variance(int64_t c, const float *x, float mean)
{
    Fold sum = fold_set1(0.0f);
    V m = v_set1(mean);
    FOLD_VECTORS(c, {
        V d = within_zero(part, v_sub(get(x + i, part), m));
        sum.v[u] = v_fma(d, d, sum.v[u]);
    });
    return fold_sum(&sum) / (float)c;
}

static void KERNEL(layernorm)(int64_t n, int64_t c, float eps, const float *x, const float *gain,
                              const float *bias, float *y, float *stats)
{
    for (int64_t r = 0; r < n; r++, x += c, y += c) {
        float mean = row_mean(c, x);
        float rstd = 1.0f / sqrtf(row_variance(c, x, mean) + eps);
        V m = v_set1(mean), s = v_set1(rstd);
        EACH_VECTOR(c, {
            V h = v_mul(v_sub(get(x + i, part), m), s);
            put(y + i, part, v_fma(h, get(gain + i, part), get(bias + i, part)));
        });
        if (stats != NULL) {
            stats[2 * r] = mean;
            stats[2 * r + 1] = rstd;
        }
    }
}

/* With h = (x - mean) rstd and g = dy gain: dx += rstd (g - mean(g) - h mean(g h)). */
static void KERNEL(layernorm_back)(int64_t n, int64_t c, const float *x, const float *gain,
                                   const float *stats, const float *dy, float *dx, float *dgain, float *dbias)
{
    for (int64_t r = 0; r < n; r++, x += c, dy += c, dx += c) {
        V mean = v_set1(stats[2 * r]), rstd = v_set1(stats[2 * r + 1]);
        Fold sum_g = fold_set1(0.0f), sum_gh = fold_set1(0.0f);
        FOLD_VECTORS(c, {
            V h = v_mul(v_sub(get(x + i, part), mean), rstd);
            V g = v_mul(get(dy + i, part), get(gain + i, part));
            sum_g.v[u] = v_add(sum_g.v[u], g);
            sum_gh.v[u] = v_fma(within_zero(part, h), g, sum_gh.v[u]);
        });
        V mean_g = v_set1(fold_sum(&sum_g) / (float)c), mean_gh = v_set1(fold_sum(&sum_gh) / (float)c);
        EACH_VECTOR(c, {
            V h = v_mul(v_sub(get(x + i, part), mean), rstd);
            V d = get(dy + i, part);
            V inner = v_sub(v_sub(v_mul(d, get(gain + i, part)), mean_g), v_mul(h, mean_gh));
            put(dx + i, part, v_fma(rstd, inner, get(dx + i, part)));
            put(dgain + i, part, v_fma(d, h, get(dgain + i, part)));
            put(dbias + i, part, v_add(d, get(dbias + i, part)));
        });
    }
}

static inline V biased(const float *x, const float *bias, float *pre, int64_t i, Part part)
{
    V v = bias != NULL ? v_add(get(x + i, part), get(bias + i, part)) : get(x + i, part);
    if (pre != NULL)
        put(pre + i, part, v);
    return v;
}

static void KERNEL(bias_gelu)(int64_t n, int64_t c, const float *x, const float *bias, float *pre, float *y)
{
    for (int64_t r = 0; r < n; r++) {
        float *pre_r = pre != NULL ? pre + r * c : NULL;
        EACH_VECTOR(c, {
            V v = biased(x + r * c, bias, pre_r, i, part);
            put(y + r * c + i, part, v_mul(v, normal_at(v).cdf));
        });
    }
}

static void KERNEL(bias_relu)(int64_t n, int64_t c, const float *x, const float *bias, float *pre, float *y)
{
    for (int64_t r = 0; r < n; r++) {
        float *pre_r = pre != NULL ? pre + r * c : NULL;
        EACH_VECTOR(c, {
            V v = biased(x + r * c, bias, pre_r, i, part);
            put(y + r * c + i, part, v_drop(v_le(v, v_set1(0.0f)), v));
        });
    }
}

/* gelu'(u) = Phi(u) + u phi(u) */
static void KERNEL(gelu_back)(int64_t n, const float *pre, const float *dy, float *dx)
{
    V inv_sqrt_two_pi = v_set1(0.39894228040143f);
    EACH_VECTOR(n, {
        V v = get(pre + i, part);
        Normal at = normal_at(v);
        V slope = v_fma(v_mul(v, inv_sqrt_two_pi), at.pdf, at.cdf);
        put(dx + i, part, v_mul(get(dy + i, part), slope));
    });
}

static void KERNEL(relu_back)(int64_t n, const float *pre, const float *dy, float *dx)
{
    EACH_VECTOR(n, put(dx + i, part, v_drop(v_le(get(pre + i, part), v_set1(0.0f)), get(dy + i, part))));
}

static int32_t first_equal(int64_t c, const float *x, float value)
{
    for (int64_t j = 0; j < c; j++)
        if (x[j] == value)
            return (int32_t)j;
    return 0;
}

/* sum_j exp(x[j] - top) */
static inline float exp_sum(int64_t c, const float *x, float top)
{
    Fold sum = fold_set1(0.0f);
    V t = v_set1(top), log2e = v_set1(1.4426950408890f);
    FOLD_VECTORS(c, {
        V power = exp2_bounded(v_mul(v_sub(get(x + i, part), t), log2e));
        sum.v[u] = v_add(sum.v[u], within_zero(part, power));
    });
    return fold_sum(&sum);
}

static void KERNEL(cross_entropy)(int64_t n, int64_t c, const float *logits, const int32_t *target,
                                  float weight, float *loss, int32_t *best, float *dlogits)
{
    V log2e = v_set1(1.4426950408890f);
    for (int64_t r = 0; r < n; r++) {
        const float *x = logits + r * c;
        float top = shifted_top(c, x, NULL, -INFINITY);
        float sum = exp_sum(c, x, top);
        best[r] = top == -INFINITY ? 0 : first_equal(c, x, top);
        loss[r] = (top - x[target[r]]) + logf(sum);
        if (dlogits == NULL)
            continue;
        float *dx = dlogits + r * c;
        V t = v_set1(top), scale = v_set1(weight / sum);
        EACH_VECTOR(c, {
            V power = exp2_bounded(v_mul(v_sub(get(x + i, part), t), log2e));
            put(dx + i, part, v_mul(scale, power));
        });
        dx[target[r]] -= weight;
    }
}

static void KERNEL(adamw)(int64_t n, float lr, float beta1, float beta2, float eps, float decay, float clip,
                          float c1, float c2, const float *grad, float *p, float *m, float *v)
{
    V keep_m = v_set1(beta1), add_m = v_set1(1.0f - beta1);
    V keep_v = v_set1(beta2), add_v = v_set1(1.0f - beta2);
    V inv_c1 = v_set1(1.0f / c1), inv_c2 = v_set1(1.0f / c2);
    EACH_VECTOR(n, {
        V g = v_mul(v_set1(clip), get(grad + i, part));
        V first = v_fma(keep_m, get(m + i, part), v_mul(add_m, g));
        V second = v_fma(keep_v, get(v + i, part), v_mul(add_v, v_mul(g, g)));
        V root = v_add(v_sqrt(v_mul(second, inv_c2)), v_set1(eps));
        V old = get(p + i, part);
        V step = v_fma(v_set1(decay), old, v_div(v_mul(first, inv_c1), root));
        put(m + i, part, first);
        put(v + i, part, second);
        put(p + i, part, v_sub(old, v_mul(v_set1(lr), step)));
    });
}
