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

/* Sums of rows of x with rows of a go on side by side in registers, each in an order of its own: what else is summed
 * meanwhile does not show in its bits. FEW_WIDE rows of a for one row of x, FEW_BOTH for two. */
enum { FEW_WIDE = 8, FEW_BOTH = 4 };

typedef struct Few {
    const void *a;
    int64_t k, ldx, lda, ldy;
    float beta;
} Few;

/* Floats, or bf16 where `half` is, from the i-th on; `left` of them are there. */
static inline __attribute__((always_inline)) V few_get(const void *a, bool half, int64_t i, int64_t left,
                                                       Part part)
{
    if (!half)
        return get((const float *)a + i, part);
    const uint16_t *short_ = (const uint16_t *)a + i;
    if (part.whole)
        return v_load_bf16(short_);
    uint16_t last[VL] = {0};
    memcpy(last, short_, (size_t)left * sizeof *last);
    return v_load_bf16(last);
}

/* `rows` of x by `cols` of a from the row at `a0` on. rows, cols and half are constants. */
static inline __attribute__((always_inline)) void few_tile(const Few *f, bool half, int rows, int cols,
                                                           const float *x, int64_t a0, float *y)
{
    V sum[2][FEW_WIDE];
    const int64_t ldx = f->ldx, lda = f->lda;
    const void *a = f->a;
    _Pragma("GCC unroll 2") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 8") for (int j = 0; j < cols; j++) sum[r][j] = v_set1(0.0f);
    EACH_VECTOR(
        f->k, _Pragma("GCC unroll 8") for (int j = 0; j < cols; j++) {
            const int64_t at = a0 + j * lda + i;
            V factor = few_get(a, half, at, f->k - i, part);
            if (part.whole) /* the rows behind these, to the second-level cache: more streams than a processor foresees */
                __builtin_prefetch((const char *)a + (at + cols * lda) * (half ? 2 : 4), 0, 2);
            _Pragma("GCC unroll 2") for (int r = 0; r < rows; r++) sum[r][j] =
                v_fma(factor, get(x + r * ldx + i, part), sum[r][j]);
        });
    _Pragma("GCC unroll 2") for (int r = 0; r < rows; r++)
        _Pragma("GCC unroll 8") for (int j = 0; j < cols; j++)
    {
        float *at = y + r * f->ldy + j;
        *at = combine_dot(1.0f, v_sum(sum[r][j]), f->beta, at);
    }
}

/* Few rows of a stay in the first-level cache while all rows of x pass. */
static inline __attribute__((always_inline)) void few_all(const Few *f, bool half, int64_t n, int64_t m,
                                                          const float *x, float *y)
{
    int64_t j = 0;
    for (; n == 1 && j + FEW_WIDE <= m; j += FEW_WIDE)
        few_tile(f, half, 1, FEW_WIDE, x, j * f->lda, y + j);
    for (; j + FEW_BOTH <= m; j += FEW_BOTH) {
        int64_t r = 0;
        for (; r + 2 <= n; r += 2)
            few_tile(f, half, 2, FEW_BOTH, x + r * f->ldx, j * f->lda, y + r * f->ldy + j);
        if (r < n)
            few_tile(f, half, 1, FEW_BOTH, x + r * f->ldx, j * f->lda, y + r * f->ldy + j);
    }
    for (; j < m; j++)
        for (int64_t r = 0; r < n; r++)
            few_tile(f, half, 1, 1, x + r * f->ldx, j * f->lda, y + r * f->ldy + j);
}

static void KERNEL(few_rows)(int64_t n, int64_t m, int64_t k, const float *x, int64_t ldx, const float *a,
                             int64_t lda, float beta, float *y, int64_t ldy)
{
    const Few f = {a, k, ldx, lda, ldy, beta};
    few_all(&f, false, n, m, x, y);
}

static void KERNEL(few_rows_bf16)(int64_t n, int64_t m, int64_t k, const float *x, int64_t ldx,
                                  const uint16_t *a, int64_t lda, float beta, float *y, int64_t ldy)
{
    const Few f = {a, k, ldx, lda, ldy, beta};
    few_all(&f, true, n, m, x, y);
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
    for (; f + COLUMNS / 2 * VL <= c; f += COLUMNS / 2 * VL) /* heads of 64 */
        column_sums(n, COLUMNS / 2, part_whole(), alpha, w, a + f, lda, z + f);
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
