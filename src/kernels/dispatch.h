/* kernels/dispatch.h: what the table is filled from: the vector sets and the GEMM provider. Each function of
 * a set overwrites the rows that the set has; it may run on any processor, the kernels it names may not. */
#ifndef FV_DISPATCH_H
#define FV_DISPATCH_H

#include "kernels/kernels.h"

void fv_kernels_fill_avx2(fv_kernels *kernels);
void fv_kernels_fill_avx512(fv_kernels *kernels);
void fv_kernels_fill_avx512_bf16(fv_kernels *kernels);
void fv_kernels_fill_amx(fv_kernels *kernels);
void fv_kernels_fill_neon(fv_kernels *kernels);

/* The contract of the gemm row, by a library: for sums too long for the vector sets, and as the yardstick of peak.c.
 * Exactly one of gemm_onednn.c, gemm_cblas.c is linked. */
void fv_gemm_provided(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                      int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc);
/* Keeps the provider to the instruction sets in `flags`, where it has such a setting. It holds for the whole
 * process and only before the provider's first product: later calls do nothing. */
void fv_gemm_limit(unsigned flags);

/* C = beta C; beta 0 does not read C. What a product without terms leaves. */
void fv_gemm_beta(int64_t m, int64_t n, float beta, float *c, int64_t ldc);

#endif
