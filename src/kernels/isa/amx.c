/* isa/amx.c: what AMX adds to AVX512-BF16: products of tiles of bf16. Compiled alone with that set's flags. */
#define FV_ISA amx
#define FV_TILES
#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/vec/avx512_bf16.h"

#include "kernels/dispatch.h"

#include "kernels/vec/words.h"

#include "kernels/vec/factors.h"

#define tile_configure(shapes)   _tile_loadconfig(shapes)
#define tile_release()           _tile_release()
#define tile_zero(t)             _tile_zero(t)
#define tile_store(t, p, stride) _tile_stored(t, p, stride)
#define tile_dot(sums, a, b)     _tile_dpbf16ps(sums, a, b)
/* To GCC the instruction reads no memory: what it loads must have been written. */
#define tile_load(t, p, stride)                                                                              \
    do {                                                                                                     \
        __asm__ volatile("" ::: "memory");                                                                   \
        _tile_loadd(t, p, stride);                                                                           \
    } while (0)

#include "kernels/vec/tile_amx.h"

#include "kernels/vec/gemm_bf16.h"

void fv_kernels_fill_amx(fv_kernels *kernels)
{
    kernels->gemm_bf16 = KERNEL(gemm_bf16);
}
