/* support/products.h: checks of anything with the contract of gemm or gemm_bf16 (kernels.def). */
#ifndef PRODUCTS_H
#define PRODUCTS_H

#include <stdbool.h>
#include <stdint.h>

typedef void gemm_function(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                           int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

/* Against products in double, of the rounded factors if bf16: odd sizes, all transposes, padded leading dimensions, beta over
 * NaN, empty sums; operands flush against forbidden pages. */
void products_check(gemm_function *gemm, bool bf16);
/* An element of C has the same bits in a product of all by `first`, and in parts of any size by `second`. */
void products_check_parts(gemm_function *first, gemm_function *second);

#endif
