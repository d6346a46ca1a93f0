/* vec/gemm.h: matrix products in SIMD words. Contract: kernels.def.
 *
 * A register tile holds TILE_ROWS rows by two vectors of columns of C; each step of k broadcasts an element of A to a row
 * and multiplies a row of B. A is read where it lies. So is B where few rows use it; else it is copied to a panel of DEPTH by
 * two vectors, which the first-level cache holds and where no stride makes lines collide (Goto and van de Geijn 2008).
 *
 * Every element is a chain of fused multiply-adds over k in order, begun anew every DEPTH terms, scaled by alpha at each
 * end: its bits depend on its row of op(A), its column of op(B), alpha, beta and k alone; not on how many rows or columns are
 * multiplied together, where they lie, or which of the vector sets works.
 *
 * Sums over thousands of rows (gradients of weights) go to the library: their operands come from memory, and copying them
 * in the shadow of the arithmetic is more than is done here.
 */

enum {
    TILE_VECTORS = 2,
    TILE_COLUMNS = TILE_VECTORS * VL,
    DEPTH = 256,                   /* terms of a chain; B's panel then has 32 KiB at most */
    ROW_BLOCK = 384,               /* rows of A that stay in the second-level cache while panels pass */
    PACK_ROWS = VL > 8 ? 160 : 64, /* rows from which on copying B pays */
    LONG_SUM = 1024,               /* terms from which on A^T B is the library's */
};

/* op(A)(i, p) = a[i row + p step], op(B)(p, j) = b[p ldb + j] */
typedef struct Factors {
    const float *a, *b;
    int64_t row, step, ldb;
    int64_t k;
    float alpha, beta;
} Factors;

static inline __attribute__((always_inline)) V combined(V sum, V alpha, float beta, const float *c, Part part)
{
    if (beta == 0.0f)
        return v_mul(alpha, sum);
    V old = get(c, part);
    return v_fma(alpha, sum, beta == 1.0f ? old : v_mul(v_set1(beta), old));
}

/* One register tile: `rows` and `vectors` are constants; the last vector may be a tail. */
static inline __attribute__((always_inline)) void tile(const Factors *f, int rows, int vectors, Part last,
                                                       float *c, int64_t ldc)
{
    V sum[TILE_ROWS][TILE_VECTORS];
    const float *a = f->a, *b = f->b;
    const int64_t row = f->row, step = f->step, ldb = f->ldb;
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)
        _Pragma("GCC unroll 2") for (int j = 0; j < vectors; j++) sum[i][j] = v_set1(0.0f);
    for (int64_t p = 0; p < f->k; p++, a += step, b += ldb) {
        V line[TILE_VECTORS];
        _Pragma("GCC unroll 2") for (int j = 0; j < vectors; j++) line[j] =
            get(b + j * VL, j + 1 < vectors ? part_whole() : last);
        _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)
        {
            V element = v_set1(a[i * row]);
            _Pragma("GCC unroll 2") for (int j = 0; j < vectors; j++) sum[i][j] =
                v_fma(element, line[j], sum[i][j]);
        }
    }
    V alpha = v_set1(f->alpha);
    _Pragma("GCC unroll 8") for (int i = 0; i < rows; i++)
        _Pragma("GCC unroll 2") for (int j = 0; j < vectors; j++)
    {
        Part part = j + 1 < vectors ? part_whole() : last;
        float *at = c + i * ldc + j * VL;
        put(at, part, combined(sum[i][j], alpha, f->beta, at, part));
    }
}

/* A function each: what a compiler inlines together it gives too few registers. */
#define TILE(name, rows, vectors, last)                                                                      \
    static __attribute__((noinline)) void name(const Factors *f, VT tail, float *c, int64_t ldc)             \
    {                                                                                                        \
        (void)tail;                                                                                          \
        tile(f, rows, vectors, last, c, ldc);                                                                \
    }
#define TAIL ((Part){.whole = 0, .tail = tail})
TILE(tile_rows_whole, TILE_ROWS, 2, part_whole())
TILE(tile_rows_two, TILE_ROWS, 2, TAIL)
TILE(tile_rows_one, TILE_ROWS, 1, TAIL)
TILE(tile_four_whole, 4, 2, part_whole())
TILE(tile_four_two, 4, 2, TAIL)
TILE(tile_four_one, 4, 1, TAIL)
TILE(tile_row_whole, 1, 2, part_whole())
TILE(tile_row_two, 1, 2, TAIL)
TILE(tile_row_one, 1, 1, TAIL)

static const struct {
    int64_t rows;
    void (*of_width[3])(const Factors *f, VT tail, float *c, int64_t ldc);
} tiles[] = {{TILE_ROWS, {tile_rows_whole, tile_rows_two, tile_rows_one}},
             {4, {tile_four_whole, tile_four_two, tile_four_one}},
             {1, {tile_row_whole, tile_row_two, tile_row_one}}};

/* m rows of n <= TILE_COLUMNS columns. */
static void panel(Factors f, int64_t m, int64_t n, float *c, int64_t ldc)
{
    int width = n == TILE_COLUMNS ? 0 : n > VL ? 1 : 2;
    VT tail = v_tail(n > VL ? n - VL : n);
    const float *a = f.a;
    int64_t i = 0;
    for (int t = 0; t < FV_COUNT(tiles); t++)
        for (; i + tiles[t].rows <= m; i += tiles[t].rows) {
            f.a = a + i * f.row;
            tiles[t].of_width[width](&f, tail, c + i * ldc, ldc);
        }
}

/* to[p][j] = op(B)(p, j) */
static void pack(char tb, int64_t k, int64_t n, const float *b, int64_t ldb, float *to)
{
    if (tb == 'N')
        KERNEL(copy_rows)(k, n, b, ldb, to, TILE_COLUMNS);
    else
        KERNEL(transpose)(n, k, b, ldb, to, TILE_COLUMNS);
}

/* At most DEPTH terms and ROW_BLOCK rows. */
static void multiply(char tb, int64_t m, int64_t n, Factors f, float *c, int64_t ldc)
{
    _Alignas(64) float packed[DEPTH * TILE_COLUMNS];
    const float *b = f.b;
    int64_t ldb = f.ldb, next = tb == 'N' ? 1 : ldb;
    bool packing = tb != 'N' || m >= PACK_ROWS;
    for (int64_t j = 0; j < n; j += TILE_COLUMNS) {
        int64_t columns = FV_MIN(TILE_COLUMNS, n - j);
        f.b = b + j * next;
        if (packing) {
            pack(tb, f.k, columns, f.b, ldb, packed);
            f.b = packed, f.ldb = TILE_COLUMNS;
        }
        panel(f, m, columns, c + j, ldc);
    }
}

static void KERNEL(gemm)(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                         int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (ta == 'T' && k >= LONG_SUM) {
        fv_gemm_provided(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
        return;
    }
    if (k <= 0)
        fv_gemm_beta(m, n, beta, c, ldc);
    Factors f = {
        .row = ta == 'N' ? lda : 1, .step = ta == 'N' ? 1 : lda, .ldb = ldb, .alpha = alpha, .beta = beta};
    for (int64_t p = 0; p < k; p += DEPTH, f.beta = 1.0f) {
        f.k = FV_MIN(DEPTH, k - p);
        f.b = b + p * (tb == 'N' ? ldb : 1);
        for (int64_t i = 0; i < m; i += ROW_BLOCK) {
            f.a = a + i * f.row + p * f.step;
            multiply(tb, FV_MIN(ROW_BLOCK, m - i), n, f, c + i * ldc, ldc);
        }
    }
}
