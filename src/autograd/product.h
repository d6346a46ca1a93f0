/* autograd/product.h: matrix products in parallel: tiles cut by shape alone, one single-threaded GEMM each.
 */
#ifndef FV_AUTOGRAD_PRODUCT_H
#define FV_AUTOGRAD_PRODUCT_H

#include "autograd/tape.h"

/* C[m][n] = op(A) op(B) + beta C, as the gemm kernel. */
typedef struct fv_product fv_product;
struct fv_product {
    char ta, tb;
    int64_t m, n, k;
    const float *a;
    int64_t lda;
    const float *b;
    const uint16_t *b_half; /* the same in bf16, for steps of streams; NULL: there is none */
    int64_t ldb;
    float beta;
    float *c;
    int64_t ldc;
    /* What to do with a finished tile while it is in the cache; NULL: nothing. */
    void (*finish)(const fv_kernels *kernels, const fv_product *product, int64_t row, int64_t rows,
                   int64_t col, int64_t cols);
    const void *finish_arg;
};

void fv_tape_product(fv_tape *tape, const fv_product *product);

/* y[cols] += column sums of x [rows][cols], row stride ldx, rows in order. */
void fv_tape_column_sums(fv_tape *tape, int64_t rows, int64_t cols, const float *x, int64_t ldx, float *y);

#endif
