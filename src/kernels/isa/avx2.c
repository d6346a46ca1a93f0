/* isa/avx2.c: the avx2 set. */
#include "kernels/dispatch.h"

void fv_kernels_fill_avx2(fv_kernels *kernels)
{
    (void)kernels;
}
