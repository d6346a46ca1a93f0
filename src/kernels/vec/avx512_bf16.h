/* vec/avx512_bf16.h: the words of AVX-512, and with AVX512-BF16 those of pairs of bf16, which gemm_bf16.h names. */
#include "kernels/vec/avx512.h"

#define FV_PAIRS

static inline V v_pairs_along(V x, V next)
{
    return _mm512_castsi512_ps((__m512i)_mm512_cvtne2ps_pbh(next, x));
}

static inline V v_pairs_across(V x, V next)
{
    const __m512i turns = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23,
                                           7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    return _mm512_castsi512_ps(_mm512_permutexvar_epi16(turns, (__m512i)_mm512_cvtne2ps_pbh(next, x)));
}

static inline void v_transpose(V x[VL])
{
    V pairs[VL], fours[VL]; /* fours[4 g + s], 128-bit lane l: column 4 l + s of the rows 4 g to 4 g + 3 */
    _Pragma("GCC unroll 8") for (int i = 0; i < VL; i += 2)
    {
        pairs[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        pairs[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    _Pragma("GCC unroll 16") for (int i = 0; i < VL; i++)
    {
        int upper = i / 4 * 4 + i % 4 / 2;
        __m512d a = _mm512_castps_pd(pairs[upper]), b = _mm512_castps_pd(pairs[upper + 2]);
        fours[i] = _mm512_castpd_ps(i % 2 == 0 ? _mm512_unpacklo_pd(a, b) : _mm512_unpackhi_pd(a, b));
    }
    _Pragma("GCC unroll 4") for (int s = 0; s < 4; s++)
    {
        V upper_even = _mm512_shuffle_f32x4(fours[s], fours[4 + s], 0x88);
        V upper_odd = _mm512_shuffle_f32x4(fours[s], fours[4 + s], 0xdd);
        V lower_even = _mm512_shuffle_f32x4(fours[8 + s], fours[12 + s], 0x88);
        V lower_odd = _mm512_shuffle_f32x4(fours[8 + s], fours[12 + s], 0xdd);
        x[s] = _mm512_shuffle_f32x4(upper_even, lower_even, 0x88);
        x[4 + s] = _mm512_shuffle_f32x4(upper_odd, lower_odd, 0x88);
        x[8 + s] = _mm512_shuffle_f32x4(upper_even, lower_even, 0xdd);
        x[12 + s] = _mm512_shuffle_f32x4(upper_odd, lower_odd, 0xdd);
    }
}
