/* support/gemm_tiles.h: gemm_bf16 of the set amx on the tile registers of support/tiles.h: runs on any processor. */
#ifndef GEMM_TILES_H
#define GEMM_TILES_H

#include <stdint.h>

void gemm_tiles(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                const float *b, int64_t ldb, float beta, float *c, int64_t ldc);

#endif
