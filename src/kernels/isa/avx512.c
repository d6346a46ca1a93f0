/* isa/avx512.c: the avx512 set. */
#include "kernels/dispatch.h"

void fv_kernels_fill_avx512(fv_kernels *kernels)
{
    (void)kernels;
}
