/* vec/products.h: products with vectors in SIMD words. Contracts: kernels.def. */

static inline float combine_dot(float alpha, float sum, float beta, const float *old)
{
    return beta == 0.0f ? alpha * sum : alpha * sum + beta * *old;
}

static inline float row_dot(int64_t c, const float *a, const float *b)
{
    Fold sum = fold_set1(0.0f);
    FOLD_VECTORS(c, sum.v[u] = v_fma(get(a + i, part), get(b + i, part), sum.v[u]));
    return fold_sum(&sum);
}

static void KERNEL(row_dots)(int64_t n, int64_t c, float alpha, const float *a, int64_t lda, const float *b,
                             int64_t ldb, float beta, float *out)
{
    for (int64_t r = 0; r < n; r++)
        out[r] = combine_dot(alpha, row_dot(c, a + r * lda, b + r * ldb), beta, &out[r]);
}

/* Column sums hold this many vectors of columns in registers while they go down the rows. */
enum { COLUMNS = 8 };

/* z[f] += alpha sum_i w[i] a[i][f] over `width` <= COLUMNS vectors. The rows are added in order,
 * whatever the width of the block, and their sum then to z: the error of a running sum grows with the rows of
 * a call, not with the length of the sequence. */
static inline void column_sums(int64_t n, int width, Part part, float alpha, const float *w, const float *a,
                               int64_t lda, float *z)
{
    V sum[COLUMNS];
    for (int u = 0; u < width; u++)
        sum[u] = v_set1(0.0f);
    for (int64_t r = 0; r < n; r++) {
        V weight = v_set1(w != NULL ? alpha * w[r] : alpha);
        for (int u = 0; u < width; u++)
            sum[u] = v_fma(weight, get(a + r * lda + u * VL, part), sum[u]);
    }
    for (int u = 0; u < width; u++)
        put(z + u * VL, part, v_add(get(z + u * VL, part), sum[u]));
}

static void all_column_sums(int64_t n, int64_t c, float alpha, const float *w, const float *a, int64_t lda,
                            float *z)
{
    int64_t f = 0;
    for (; f + COLUMNS * VL <= c; f += COLUMNS * VL)
        column_sums(n, COLUMNS, part_whole(), alpha, w, a + f, lda, z + f);
    for (; f + VL <= c; f += VL)
        column_sums(n, 1, part_whole(), alpha, w, a + f, lda, z + f);
    if (f < c)
        column_sums(n, 1, part_tail(c - f), alpha, w, a + f, lda, z + f);
}

static void KERNEL(add_col_sums)(int64_t n, int64_t c, const float *w, const float *a, int64_t lda, float *z)
{
    all_column_sums(n, c, 1.0f, w, a, lda, z);
}

static void KERNEL(gemv)(char ta, int64_t m, int64_t k, float alpha, const float *a, int64_t lda,
                         const float *x, float beta, float *y)
{
    if (ta == 'N') {
        KERNEL(row_dots)(m, k, alpha, a, lda, x, 0, beta, y);
        return;
    }
    if (beta == 0.0f)
        KERNEL(fill)(k, 0.0f, y);
    else if (beta != 1.0f)
        KERNEL(scale)(k, beta, y, y);
    all_column_sums(m, k, alpha, x, a, lda, y);
}

static void KERNEL(add_col_max)(int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, float *z)
{
    for (int64_t r = 0; r < n; r++, x += ldx) {
        V weight = v_set1(w != NULL ? w[r] : 0.0f);
        EACH_VECTOR(c, put(z + i, part, v_max(v_add(get(x + i, part), weight), get(z + i, part))));
    }
}

static void KERNEL(add_outer)(int64_t n, int64_t c, const float *w, const float *x, float *y, int64_t ldy)
{
    for (int64_t r = 0; r < n; r++)
        KERNEL(axpy)(c, w != NULL ? w[r] : 1.0f, x, y + r * ldy);
}
