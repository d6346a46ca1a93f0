/* vec/tile.h: the register tiles of matrix products, for gemm.h and gemm_bf16.h.
 *
 * A tile holds TILE_ROWS rows by two vectors of columns of C; each step of k broadcasts a place of A to a row and multiplies it
 * with a row of B. A place is a float, or, where the instruction set multiplies pairs of bf16 (v_term), a pair in the same 32
 * bits. The order of the terms of an element does not depend on the tile it falls into.
 */

enum { TILE_VECTORS = 2, TILE_COLUMNS = TILE_VECTORS * VL };
/* Of gemm_bf16.h: k is padded to a multiple of the one; m is at most the other, for which B is rounded once. */
enum { STEP_PLACES = 1, BLOCK_ROWS = 384 };

static inline void tiles_open(void)
{
}

static inline void tiles_close(void)
{
}

#ifndef FV_PAIRS
static inline V v_term(V a, V b, V c)
{
    return v_fma(a, b, c);
}
#endif

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
                v_term(element, line[j], sum[i][j]);
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
