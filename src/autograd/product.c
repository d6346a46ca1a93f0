/* product.c: tiled products and column sums.
 *
 * A row's bits do not depend on the other rows: a batch gives what its sequences give alone. Only steps of
 * streams, where the law against whole sequences is a tolerance, multiply by few_rows, which packs nothing.
 *
 * A tile runs on one core through a GEMM that packs its operands, so it should be large enough for packing
 * to vanish (256 to 512 on a side) and there should be enough of them to share (8 or more). */
#include "autograd/product.h"

enum { TILE_ROWS = 384, TILE_COLS = 512, TILE_MIN = 64, TASKS_WANTED = 8, ROW_STEP = 24, COL_STEP = 32 };

static int64_t parts(int64_t n, int64_t part)
{
    return (n + part - 1) / part;
}

/* Near-equal parts of at most about `most`, in steps of `step`, which fill register tiles. */
static int64_t even_part(int64_t n, int64_t most, int64_t step)
{
    int64_t part = parts(n, parts(n, most));
    return parts(part, step) * step;
}

typedef struct tiling {
    int64_t rows, cols;    /* of a tile */
    int64_t across, count; /* tiles in a row of tiles, in all */
} tiling;

static tiling tile(int64_t m, int64_t n, int64_t most_rows, int64_t most_cols)
{
    tiling t = {even_part(m, most_rows, ROW_STEP), even_part(n, most_cols, COL_STEP), 0, 0};
    t.across = parts(n, t.cols);
    t.count = t.across * parts(m, t.rows);
    return t;
}

/* Halves the longer side until there are tiles enough. */
static tiling cut(int64_t m, int64_t n)
{
    int64_t rows = TILE_ROWS, cols = TILE_COLS;
    tiling t = tile(m, n, rows, cols);
    while (t.count < TASKS_WANTED && (rows > TILE_MIN || cols > TILE_MIN)) {
        if (rows <= TILE_MIN || (cols > TILE_MIN && t.cols >= t.rows))
            cols = FV_MAX(FV_MIN(cols, t.cols) / 2, (int64_t)TILE_MIN);
        else
            rows = FV_MAX(FV_MIN(rows, t.rows) / 2, (int64_t)TILE_MIN);
        t = tile(m, n, rows, cols);
    }
    return t;
}

typedef struct product_job {
    const fv_kernels *kernels;
    const fv_product *p;
    tiling tiles;
    bool few; /* rows of x */
} product_job;

static void product_tile(void *arg, int64_t index, int worker)
{
    (void)worker;
    const product_job *job = arg;
    const fv_product *p = job->p;
    int64_t row = index / job->tiles.across * job->tiles.rows, rows = FV_MIN(job->tiles.rows, p->m - row);
    int64_t col = index % job->tiles.across * job->tiles.cols, cols = FV_MIN(job->tiles.cols, p->n - col);
    const float *a = p->ta == 'N' ? p->a + row * p->lda : p->a + row;
    const float *b = p->tb == 'N' ? p->b + col : p->b + col * p->ldb;
    if (job->few && p->b_half != NULL)
        job->kernels->few_rows_bf16(rows, cols, p->k, a, p->lda, p->b_half + col * p->ldb, p->ldb, p->beta,
                                    p->c + row * p->ldc + col, p->ldc);
    else if (job->few)
        job->kernels->few_rows(rows, cols, p->k, a, p->lda, b, p->ldb, p->beta, p->c + row * p->ldc + col,
                               p->ldc);
    else
        job->kernels->gemm(p->ta, p->tb, rows, cols, p->k, 1.0f, a, p->lda, b, p->ldb, p->beta,
                           p->c + row * p->ldc + col, p->ldc);
    if (p->finish != NULL)
        p->finish(job->kernels, p, row, rows, col, cols);
}

void fv_tape_product(fv_tape *tape, const fv_product *product)
{
    if (product->m == 0 || product->n == 0)
        return;
    product_job job = {tape->ctx->kernels, product, cut(product->m, product->n),
                       tape->stepping && product->ta == 'N' && product->tb == 'T'};
    fv_tape_parallel(tape, job.tiles.count, product_tile, &job);
}

/* ---- column sums --------------------------------------------------------------------------------------- */

enum { SUM_COLS = 64 };

typedef struct columns_job {
    const fv_kernels *kernels;
    int64_t rows, cols, ldx;
    const float *x;
    float *y;
} columns_job;

static void sum_columns(void *arg, int64_t index, int worker)
{
    (void)worker;
    const columns_job *job = arg;
    int64_t col = index * SUM_COLS, cols = FV_MIN(SUM_COLS, job->cols - col);
    job->kernels->add_col_sums(job->rows, cols, NULL, job->x + col, job->ldx, job->y + col);
}

void fv_tape_column_sums(fv_tape *tape, int64_t rows, int64_t cols, const float *x, int64_t ldx, float *y)
{
    columns_job job = {tape->ctx->kernels, rows, cols, ldx, x, y};
    fv_tape_parallel(tape, parts(cols, SUM_COLS), sum_columns, &job);
}
