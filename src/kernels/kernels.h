/* kernels/kernels.h: the kernel table. The rows and their contracts stand in kernels.def. */
#ifndef FV_KERNELS_H
#define FV_KERNELS_H

#include "base/internal.h"

/* Functions f of the generalized maps, for function_rows. */
typedef enum fv_function {
    FV_FUNCTION_RELU,
    FV_FUNCTION_EXP, /* as its logarithm: log2(exp(x) + eps), finite wherever x log2(e) is */
    FV_FUNCTION_SIGMOID,
    FV_FUNCTION_TANH,
    FV_FUNCTION_GELU, /* x Phi(x), the exact form */
    FV_FUNCTION_ABS,
    FV_FUNCTION_SQUARE,
    FV_FUNCTION_RELU2, /* max(x, 0)^2 */
    FV_FUNCTION_COS,
    FV_FUNCTION_SIN,
    FV_FUNCTION_LINEAR,
    FV_FUNCTION_ELU1,     /* exp(x) below 0, else x + 1 */
    FV_FUNCTION_SOFTPLUS, /* log(1 + exp(x)) */
    FV_FUNCTION_COUNT
} fv_function;

typedef struct fv_kernels fv_kernels;
struct fv_kernels {
#define FV_KERNEL(ret, name, args) ret(*name) args;
#include "kernels/kernels.def"
#undef FV_KERNEL
};

/* Prototypes of the scalar references. */
#define FV_KERNEL(ret, name, args) ret fv_##name##_reference args;
#include "kernels/kernels.def"
#undef FV_KERNEL

bool fv_context_halves(const fv_context *ctx); /* its number format is bf16 */

/* Fills the table: the reference first, then every set named in `flags` (fv_cpu_flag) in rising order
 * overwrites what it has. Pure: the same flags give the same table. gemm comes from the provider unless flags
 * is 0. */
void fv_kernels_fill(fv_kernels *kernels, unsigned flags);
/* The set a kernel came from ("reference", "avx2", ..., the provider's name for gemm), by row index; NULL
 * past the end. name receives the kernel's name. */
const char *fv_kernels_origin(unsigned flags, int row, const char **name);
/* Name and version of the GEMM provider, "oneDNN 2.6.3". */
const char *fv_gemm_provider(void);

/* fv_measure_sgemm in memory that is there already, of at least as many bytes; what it held is lost. */
size_t fv_measure_sgemm_bytes(const fv_context *ctx);
double fv_measure_sgemm_in(fv_context *ctx, double seconds, float *memory);

#endif
