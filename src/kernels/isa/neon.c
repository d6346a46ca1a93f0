/* isa/neon.c: the neon set. */
#include "kernels/dispatch.h"

void fv_kernels_fill_neon(fv_kernels *kernels)
{
    (void)kernels;
}
