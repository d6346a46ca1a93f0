/* gemm_onednn.c: matrix products through oneDNN's dnnl_sgemm, which is row-major and, inside a parallel
 * region, single-threaded. Its kernels are generated at the first call for the processor it finds. */
#include "kernels/dispatch.h"
#include <oneapi/dnnl/dnnl.h>

void fv_gemm_provided(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                      int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    if (m <= 0 || n <= 0)
        return;
    /* Its checks ask for leading dimensions of at least 1 and it may skip beta for empty sums. */
    if (k <= 0) {
        fv_gemm_beta(m, n, beta, c, ldc);
        return;
    }
    (void)dnnl_sgemm(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void fv_gemm_limit(unsigned flags)
{
    dnnl_cpu_isa_t isa =
        (dnnl_cpu_isa_t)0; /* no limit: dnnl_cpu_isa_all up to oneDNN 2, dnnl_cpu_isa_default from 3 on */
    if (!(flags & FV_CPU_AVX512))
        isa = flags & FV_CPU_AVX2 ? dnnl_cpu_isa_avx2 : dnnl_cpu_isa_sse41;
    (void)dnnl_set_max_cpu_isa(isa);
}

/* The text is a constant of the library linked against; the version of the headers is checked by its ABI. */
#define TEXT(x)   #x
#define DIGITS(x) TEXT(x)

const char *fv_gemm_provider(void)
{
    return "oneDNN " DIGITS(DNNL_VERSION_MAJOR) "." DIGITS(DNNL_VERSION_MINOR) "." DIGITS(DNNL_VERSION_PATCH);
}
