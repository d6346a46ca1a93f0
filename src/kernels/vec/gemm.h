/* vec/gemm.h: matrix products in SIMD words. Contract: kernels.def.
 *
 * Register tiles stand in tile.h. A is read where it lies. So is B where few rows use it; else it is copied to a panel of DEPTH by
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
    DEPTH = 256,                   /* terms of a chain; B's panel then has 32 KiB at most */
    ROW_BLOCK = 384,               /* rows of A that stay in the second-level cache while panels pass */
    PACK_ROWS = VL > 8 ? 160 : 64, /* rows from which on copying B pays */
    LONG_SUM = 1024,               /* terms from which on A^T B is the library's */
};

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
