/* isa/avx512_bf16.c: what AVX512-BF16 adds to AVX-512: products of pairs of bf16. Compiled alone with that set's flags. */
#define FV_ISA avx512_bf16
#define FV_PAIRS
#include <math.h>
#include <stdint.h>

#include "kernels/vec/avx512.h"

#include "kernels/dispatch.h"

#include "kernels/vec/words.h"

#include "kernels/vec/transpose.h"

/* c + the pair a times the pair b; factors and sums below 2^-126 count as 0. */
static inline V v_term(V a, V b, V c)
{
    return _mm512_dpbf16_ps(c, (__m512bh)_mm512_castps_si512(a), (__m512bh)_mm512_castps_si512(b));
}

static inline V pairs_across(V x, V next)
{
    __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(x));
    __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(next));
    return _mm512_castsi512_ps(_mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

/* n columns of two rows, the second absent: 0 */
static void narrow_across(int64_t n, const float *x, const float *next, float *to)
{
    V none = v_set1(0.0f);
    EACH_VECTOR(n,
                put(to + i, part, pairs_across(get(x + i, part), next != NULL ? get(next + i, part) : none)));
}

/* n terms of a row that lie side by side */
static void narrow_along(int64_t n, const float *x, float *to)
{
    for (int64_t i = 0; i < n; i += 2 * VL) {
        int64_t left = n - i;
        Part low = left >= VL ? part_whole() : part_tail(left);
        V first = get(x + i, low), second = v_set1(0.0f);
        if (left > VL)
            second = get(x + i + VL, left >= 2 * VL ? part_whole() : part_tail(left - VL));
        V pairs = _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(second, first));
        put(to + i / 2, left >= 2 * VL ? part_whole() : part_tail((left + 1) / 2), pairs);
    }
}

#include "kernels/vec/tile.h"

#include "kernels/vec/gemm_bf16.h"

void fv_kernels_fill_avx512_bf16(fv_kernels *kernels)
{
    kernels->gemm_bf16 = KERNEL(gemm_bf16);
}
