/* isa/avx512_bf16.c: what AVX512-BF16 adds to AVX-512: products of pairs of bf16. Compiled alone with that set's flags. */
#define FV_ISA avx512_bf16
#include <math.h>
#include <stdint.h>

#include "kernels/vec/avx512_bf16.h"

#include "kernels/dispatch.h"

#include "kernels/vec/words.h"

/* c + the pair a times the pair b; factors and sums below 2^-126 count as 0. */
static inline V v_term(V a, V b, V c)
{
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

#include "kernels/vec/factors.h"

#include "kernels/vec/tile.h"

#include "kernels/vec/gemm_bf16.h"

void fv_kernels_fill_avx512_bf16(fv_kernels *kernels)
{
    kernels->gemm_bf16 = KERNEL(gemm_bf16);
}
