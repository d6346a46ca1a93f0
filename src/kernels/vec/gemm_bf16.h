/* vec/gemm_bf16.h: products whose factors are rounded to bf16, summed in float. Contract: kernels.def.
 *
 * Both factors are rounded into buffers, a block of rows and a panel of columns at a time, and multiplied by the tiles of
 * tile.h. With FV_PAIRS (instruction sets that multiply pairs of bf16) a place of the buffers holds two terms, the earlier in
 * the lower half, and an odd last term is joined by 0; without, a place is a float that happens to be a bf16: a slower product with
 * the same factors. Sums are taken in the order of k, begun anew every PLACES places: an element's bits depend on its
 * row and column alone, as in gemm.h, but differ between sets that have pairs and sets that do not.
 */

enum {
    PLACES = 128, /* of k in the buffers */
    BLOCK_ROWS = 128,
    A_PITCH = PLACES + 16, /* an odd number of cache lines, as BLOCK_ROWS + 16 */
};

#ifdef FV_PAIRS
enum { TERMS = 2 };
#else
enum { TERMS = 1 };

static inline V rounded(V x)
{
    return b_float(b_and(bf16_upper(x), b_set1(0xffff0000u)));
}

/* n terms of a row that lie side by side */
static void narrow_along(int64_t n, const float *x, float *to)
{
    EACH_VECTOR(n, put(to + i, part, rounded(get(x + i, part))));
}

/* n columns of TERMS rows */
static void narrow_across(int64_t n, const float *x, const float *next, float *to)
{
    (void)next;
    narrow_along(n, x, to);
}
#endif

static void narrow_rows(int64_t rows, int64_t k, const float *x, int64_t ldx, float *to, int64_t ldto)
{
    for (int64_t i = 0; i < rows; i++)
        narrow_along(k, x + i * ldx, to + i * ldto);
}

static void narrow_columns(int64_t k, int64_t columns, const float *x, int64_t ldx, float *to, int64_t ldto)
{
    for (int64_t p = 0; p < k; p += TERMS)
        narrow_across(columns, x + p * ldx, p + 1 < k ? x + (p + 1) * ldx : NULL, to + p / TERMS * ldto);
}

static void narrow_a(char ta, int64_t m, int64_t k, const float *a, int64_t lda, Factors *f, float *to)
{
    f->a = to;
    if (ta == 'N') {
        f->row = A_PITCH, f->step = 1;
        narrow_rows(m, k, a, lda, to, A_PITCH);
    } else {
        f->row = 1, f->step = BLOCK_ROWS + 16;
        narrow_columns(k, m, a, lda, to, BLOCK_ROWS + 16);
    }
}

static void narrow_b(char tb, int64_t n, int64_t k, const float *b, int64_t ldb, float *to)
{
    if (tb == 'N') {
        narrow_columns(k, n, b, ldb, to, TILE_COLUMNS);
        return;
    }
    _Alignas(64) float rows[TILE_COLUMNS * A_PITCH];
    narrow_rows(n, k, b, ldb, rows, A_PITCH);
    KERNEL(transpose)(n, (k + TERMS - 1) / TERMS, rows, A_PITCH, to, TILE_COLUMNS);
}

static void KERNEL(gemm_bf16)(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                              int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    _Alignas(64) float block[FV_MAX(BLOCK_ROWS * A_PITCH, PLACES * (BLOCK_ROWS + 16))];
    _Alignas(64) float strip[PLACES * TILE_COLUMNS];
    if (k <= 0)
        fv_gemm_beta(m, n, beta, c, ldc);
    Factors f = {.b = strip, .ldb = TILE_COLUMNS, .alpha = alpha, .beta = beta};
    for (int64_t p = 0; p < k; p += TERMS * PLACES, f.beta = 1.0f) {
        int64_t terms = FV_MIN(TERMS * PLACES, k - p);
        f.k = (terms + TERMS - 1) / TERMS;
        for (int64_t i = 0; i < m; i += BLOCK_ROWS) {
            int64_t rows = FV_MIN(BLOCK_ROWS, m - i);
            narrow_a(ta, rows, terms, a + (ta == 'N' ? i * lda + p : i + p * lda), lda, &f, block);
            for (int64_t j = 0; j < n; j += TILE_COLUMNS) {
                int64_t columns = FV_MIN(TILE_COLUMNS, n - j);
                narrow_b(tb, columns, terms, b + (tb == 'N' ? j + p * ldb : j * ldb + p), ldb, strip);
                panel(f, rows, columns, c + i * ldc + j, ldc);
            }
        }
    }
}
