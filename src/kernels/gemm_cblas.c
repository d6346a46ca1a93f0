/* gemm_cblas.c: matrix products through any CBLAS. The library must run single-threaded inside a parallel
 * region (OpenBLAS built with OpenMP does; elsewhere set OPENBLAS_NUM_THREADS=1 or its like), and its
 * dimensions are int: larger ones cannot reach here, a tile being small. */
#include "kernels/dispatch.h"
#include <cblas.h>

static enum CBLAS_TRANSPOSE transpose(char t)
{
    return t == 'N' ? CblasNoTrans : CblasTrans;
}

void fv_gemm_provided(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                      int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (m <= 0 || n <= 0)
        return;
    if (k <= 0) {
        fv_gemm_beta(m, n, beta, c, ldc);
        return;
    }
    cblas_sgemm(CblasRowMajor, transpose(ta), transpose(tb), (int)m, (int)n, (int)k, alpha, a, (int)lda, b,
                (int)ldb, beta, c, (int)ldc);
}

void fv_gemm_limit(unsigned flags)
{
    (void)flags; /* CBLAS has no such setting */
}

const char *fv_gemm_provider(void)
{
    return "CBLAS";
}
