/* vec/gemm_bf16.h: products whose factors are rounded to bf16, summed in float. Contract: kernels.def.
 *
 * Both factors are rounded into buffers, a block of rows and a panel of columns at a time, and multiplied by the tiles of
 * tile.h or tile_amx.h. With FV_PAIRS (instruction sets that multiply pairs of bf16) a place of the buffers holds two terms, the
 * earlier in the lower half, and an odd last term is joined by 0; without, a place is a float that happens to be a bf16: a slower
 * product with the same factors. Sums are taken in the order of k, begun anew every PLACES places: an element's bits depend on
 * its row and column alone, as in gemm.h, but differ between sets that have pairs, sets that have not, and tile registers.
 *
 * Words of sets with pairs:
 *
 *     v_pairs_along(x, y)    pairs of neighbours in x, then in y
 *     v_pairs_across(x, y)   pairs of an element of x and one of y
 *     v_transpose(x)         x[VL] becomes its columns
 */

enum {
    PLACES = 128, /* of k in the buffers */
    A_PITCH = PLACES + 16,
    A_FLOATS = FV_MAX(BLOCK_ROWS * A_PITCH, PLACES *(BLOCK_ROWS + 16)), /* odd numbers of cache lines */
};

static inline Part part_of(int64_t left)
{
    return left >= VL ? part_whole() : part_tail(left);
}

/* A vector of places: of a row of x, `left` > 0 of whose terms are left, and of neighbouring columns of `left` > 0 rows. */
#ifdef FV_PAIRS
enum { TERMS = 2 };

static inline V places_along(const float *x, int64_t left)
{
    return v_pairs_along(get(x, part_of(left)), left > VL ? get(x + VL, part_of(left - VL)) : v_set1(0.0f));
}

static inline V places_across(const float *x, int64_t ldx, int64_t left, Part part)
{
    return v_pairs_across(get(x, part), left > 1 ? get(x + ldx, part) : v_set1(0.0f));
}
#else
enum { TERMS = 1 };

static inline V rounded(V x)
{
    return b_float(b_and(bf16_upper(x), b_set1(0xffff0000u)));
}

static inline V places_along(const float *x, int64_t left)
{
    return rounded(get(x, part_of(left)));
}

static inline V places_across(const float *x, int64_t ldx, int64_t left, Part part)
{
    (void)ldx, (void)left;
    return rounded(get(x, part));
}
#endif

/* Rows of k terms become rows of places; whole vectors are written. */
static void narrow_rows(int64_t rows, int64_t k, const float *x, int64_t ldx, float *to, int64_t ldto)
{
    for (int64_t i = 0; i < rows; i++)
        for (int64_t p = 0; p < k; p += TERMS * VL)
            v_store(to + i * ldto + p / TERMS, places_along(x + i * ldx + p, k - p));
}

/* k rows of terms become rows of places, one place of every column. */
static void narrow_columns(int64_t k, int64_t columns, const float *x, int64_t ldx, float *to, int64_t ldto)
{
    for (int64_t p = 0; p < k; p += TERMS)
        EACH_VECTOR(columns,
                    v_store(to + p / TERMS * ldto + i, places_across(x + p * ldx + i, ldx, k - p, part)));
}

#ifdef FV_PAIRS
/* The transpose of narrow_rows, to[p][i], in whole blocks of VL x VL: absent terms are 0. */
static inline __attribute__((always_inline)) void turn_rows(int64_t rows, int64_t left, const float *x,
                                                            int64_t ldx, float *to, int64_t ldto)
{
    V block[VL];
    _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++) block[i] =
        i < rows ? places_along(x + i * ldx, left) : v_set1(0.0f);
    v_transpose(block);
    _Pragma("GCC unroll 16") for (int p = 0; p < VL; p++) v_store(to + p * ldto, block[p]);
}

static void narrow_rows_turned(int64_t rows, int64_t k, const float *x, int64_t ldx, float *to, int64_t ldto)
{
    for (int64_t i = 0; i < rows; i += VL)
        for (int64_t p = 0; p < k; p += TERMS * VL) {
            const float *from = x + i * ldx + p;
            float *at = to + p / TERMS * ldto + i;
            if (rows - i >= VL && k - p >= TERMS * VL)
                turn_rows(VL, TERMS * VL, from, ldx, at, ldto);
            else
                turn_rows(rows - i, k - p, from, ldx, at, ldto);
        }
}

#else
static void narrow_rows_turned(int64_t rows, int64_t k, const float *x, int64_t ldx, float *to, int64_t ldto)
{
    _Alignas(64) float along[TILE_COLUMNS * A_PITCH];
    narrow_rows(rows, k, x, ldx, along, A_PITCH);
    KERNEL(transpose)(rows, k, along, A_PITCH, to, ldto);
}
#endif

#ifdef FV_TILES
/* The transpose of narrow_columns, to[i][p], likewise. */
static inline __attribute__((always_inline)) void turn_columns(int64_t left, Part part, const float *x,
                                                               int64_t ldx, float *to, int64_t ldto)
{
    V block[VL];
    _Pragma("GCC unroll 16") for (int p = 0; p < VL; p++) block[p] =
        TERMS * p < left ? places_across(x + TERMS * p * ldx, ldx, left - TERMS * p, part) : v_set1(0.0f);
    v_transpose(block);
    _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++) v_store(to + i * ldto, block[i]);
}

static void narrow_columns_turned(int64_t k, int64_t columns, const float *x, int64_t ldx, float *to,
                                  int64_t ldto)
{
    for (int64_t i = 0; i < columns; i += VL)
        for (int64_t p = 0; p < k; p += TERMS * VL) {
            const float *from = x + p * ldx + i;
            float *at = to + i * ldto + p / TERMS;
            if (columns - i >= VL && k - p >= TERMS * VL)
                turn_columns(TERMS * VL, part_whole(), from, ldx, at, ldto);
            else
                turn_columns(k - p, part_of(columns - i), from, ldx, at, ldto);
        }
}
/* Tile registers read rows of places. Those beyond m hold anything, and are multiplied in vain. */
static void narrow_a(char ta, int64_t m, int64_t k, const float *a, int64_t lda, Factors *f, float *to)
{
    f->a = to, f->row = A_PITCH, f->step = 1;
    if (ta == 'N')
        narrow_rows(m, k, a, lda, to, A_PITCH);
    else
        narrow_columns_turned(k, m, a, lda, to, A_PITCH);
}
#else
static void narrow_a(char ta, int64_t m, int64_t k, const float *a, int64_t lda, Factors *f, float *to)
{
    f->a = to;
    if (ta == 'N') {
        f->row = A_PITCH, f->step = 1;
        narrow_rows(m, k, a, lda, to, A_PITCH);
    } else {
        f->row = 1, f->step = BLOCK_ROWS + 16;
        narrow_columns(k, m, a, lda, to, f->step);
    }
}
#endif

static void narrow_b(char tb, int64_t n, int64_t k, const float *b, int64_t ldb, float *to)
{
    if (tb == 'T') {
        narrow_rows_turned(n, k, b, ldb, to, TILE_COLUMNS);
        return;
    }
    narrow_columns(k, n, b, ldb, to, TILE_COLUMNS);
    for (int64_t p = (k + TERMS - 1) / TERMS; p % STEP_PLACES != 0; p++)
        for (int64_t j = 0; j < TILE_COLUMNS; j += VL)
            v_store(to + p * TILE_COLUMNS + j, v_set1(0.0f));
}

static void KERNEL(gemm_bf16)(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                              int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    _Alignas(64) float block[A_FLOATS];
    _Alignas(64) float strip[PLACES * TILE_COLUMNS];
    if (k <= 0) {
        fv_gemm_beta(m, n, beta, c, ldc);
        return;
    }
    Factors f = {.b = strip, .ldb = TILE_COLUMNS, .alpha = alpha, .beta = beta};
    tiles_open();
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
    tiles_close();
}
