/* support/gemm_tiles.c: the algorithm of the set amx, in plain C. */
#include "support/gemm_tiles.h"
#define FV_ISA tiles
#define FV_TILES
#include "support/plain_words.h"
#include "support/tiles.h"

#include "kernels/dispatch.h"

#include "kernels/vec/words.h"

#include "kernels/vec/factors.h"

#include "kernels/vec/tile_amx.h"

#include "kernels/vec/gemm_bf16.h"

void gemm_tiles(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
                const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    KERNEL(gemm_bf16)(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
