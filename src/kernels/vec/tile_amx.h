/* vec/tile_amx.h: the tiles of gemm_bf16.h in tile registers (Intel AMX), for sets with FV_TILES and FV_PAIRS.
 *
 * A register holds 16 rows of 16 places: of sums (floats), of A (pairs along k), or of B (pairs, a row for each place of k). A
 * product of two adds 16 x 16 x 32 terms, in 16 cycles on the processors that have it; a load takes 8. So two registers of rows
 * meet two of columns: four products for four loads, and four sums of which none waits for its own last product.
 *
 * One product sums the even and the odd terms of its 16 places apart, from 0, and adds both together and then to what the
 * register holds (to nearest, numbers below 2^-126 are 0). Places beyond k are 0. So the bits of an element depend on its row, its
 * column and k, whatever else is multiplied beside it: rows and columns beyond m and n are computed and not written.
 *
 * Words, t being a constant from 0 to 7, strides in bytes:
 *
 *     tile_configure(shapes)    before all others: the shapes of the registers; they become 0
 *     tile_release()            after all others
 *     tile_zero(t), tile_load(t, p, stride), tile_store(t, p, stride)
 *     tile_dot(sums, a, b)      sums += a b
 */

enum { TILE_SIDE = 16, TILE_COLUMNS = 2 * TILE_SIDE };
/* Of gemm_bf16.h: k is padded to a multiple of the one; m is at most the other, so that A takes 128 KiB of a second-level cache of
 * 2 MiB, and rounding B a quarter of the time of its products. */
enum { STEP_PLACES = TILE_SIDE, BLOCK_ROWS = 256 };
_Static_assert((int)VL == (int)TILE_SIDE, "gemm_bf16.h pads what it rounds to whole vectors");

typedef struct Tile_shapes {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} Tile_shapes;

/* A constant in memory: whoever sees only the instruction cannot tell how much of it is read. */
static const Tile_shapes whole_tiles = {
    .palette = 1,
    .row_bytes = {64, 64, 64, 64, 64, 64, 64, 64},
    .rows = {TILE_SIDE, TILE_SIDE, TILE_SIDE, TILE_SIDE, TILE_SIDE, TILE_SIDE, TILE_SIDE, TILE_SIDE},
};

static inline void tiles_open(void)
{
    tile_configure(&whole_tiles);
}

static inline void tiles_close(void)
{
    tile_release();
}

enum { ROW_BYTES = TILE_COLUMNS * sizeof(float) };

/* The sums of one or two tiles of rows and of columns, constants both: registers 0, 1 above 2, 3. */
static inline __attribute__((always_inline)) void tile_sums(const Factors *f, bool low, bool right)
{
    const float *a = f->a, *b = f->b;
    const int64_t row_bytes = f->row * (int64_t)sizeof *a;
    tile_zero(0);
    if (right)
        tile_zero(1);
    if (low)
        tile_zero(2);
    if (low && right)
        tile_zero(3);
    for (int64_t p = 0; p < f->k; p += TILE_SIDE, a += TILE_SIDE, b += TILE_SIDE * TILE_COLUMNS) {
        tile_load(4, a, row_bytes);
        tile_load(6, b, ROW_BYTES);
        tile_dot(0, 4, 6);
        if (right) {
            tile_load(7, b + TILE_SIDE, ROW_BYTES);
            tile_dot(1, 4, 7);
        }
        if (low) {
            tile_load(5, a + TILE_SIDE * f->row, row_bytes);
            tile_dot(2, 5, 6);
        }
        if (low && right)
            tile_dot(3, 5, 7);
    }
}

static inline __attribute__((always_inline)) void tile_put(bool low, bool right, float *to, int64_t ldto)
{
    const int64_t row_bytes = ldto * (int64_t)sizeof *to;
    tile_store(0, to, row_bytes);
    if (right)
        tile_store(1, to + TILE_SIDE, row_bytes);
    if (low)
        tile_store(2, to + TILE_SIDE * ldto, row_bytes);
    if (low && right)
        tile_store(3, to + TILE_SIDE * ldto + TILE_SIDE, row_bytes);
}

/* m rows of n columns, by whole tiles. Sums that are C itself go there; 1 times them would be the same bits. */
static inline __attribute__((always_inline)) void tile_block(const Factors *f, bool low, bool right,
                                                             int64_t m, int64_t n, float *c, int64_t ldc)
{
    _Alignas(64) float sums[2 * TILE_SIDE * TILE_COLUMNS];
    tile_sums(f, low, right);
    if (f->alpha == 1.0f && f->beta == 0.0f && m == (low + 1) * TILE_SIDE && n == (right + 1) * TILE_SIDE) {
        tile_put(low, right, c, ldc);
        return;
    }
    tile_put(low, right, sums, TILE_COLUMNS);
    const V alpha = v_set1(f->alpha);
    for (int64_t r = 0; r < m; r++) {
        const float *sum = sums + r * TILE_COLUMNS;
        float *to = c + r * ldc;
        EACH_VECTOR(n, put(to + i, part, combined(v_load(sum + i), alpha, f->beta, to + i, part)));
    }
}

/* m rows of n <= TILE_COLUMNS columns. */
static void panel(Factors f, int64_t m, int64_t n, float *c, int64_t ldc)
{
    const bool right = n > TILE_SIDE;
    for (int64_t i = 0; i < m; i += 2 * TILE_SIDE, f.a += 2 * TILE_SIDE * f.row, c += 2 * TILE_SIDE * ldc) {
        int64_t rows = FV_MIN(2 * TILE_SIDE, m - i);
        if (rows > TILE_SIDE && right)
            tile_block(&f, true, true, rows, n, c, ldc);
        else if (rows > TILE_SIDE)
            tile_block(&f, true, false, rows, n, c, ldc);
        else if (right)
            tile_block(&f, false, true, rows, n, c, ldc);
        else
            tile_block(&f, false, false, rows, n, c, ldc);
    }
}
