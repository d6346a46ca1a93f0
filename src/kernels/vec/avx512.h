/* vec/avx512.h: the SIMD words for AVX-512 (F, BW, DQ, VL). What each word means stands in vec/words.h. */
#include <immintrin.h>

enum { VL = 16, TILE_ROWS = 8 };
typedef __m512 V;
typedef __mmask16 VM;
typedef __mmask16 VT;
typedef __m512i VI;
typedef __m512i VW;
typedef struct VD {
    __m512d low, high;
} VD;

static inline VT v_tail(int64_t n)
{
    return (VT)((1u << n) - 1);
}
static inline VM v_first(VT t)
{
    return t;
}

static inline V v_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void v_store(float *p, V x)
{
    _mm512_storeu_ps(p, x);
}
static inline V v_load_tail(const float *p, VT t)
{
    return _mm512_maskz_loadu_ps(t, p);
}
static inline void v_store_tail(float *p, VT t, V x)
{
    _mm512_mask_storeu_ps(p, t, x);
}
static inline V v_load_bf16(const uint16_t *p)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

static inline V v_set1(float x)
{
    return _mm512_set1_ps(x);
}
static inline V v_add(V a, V b)
{
    return _mm512_add_ps(a, b);
}
static inline V v_sub(V a, V b)
{
    return _mm512_sub_ps(a, b);
}
static inline V v_mul(V a, V b)
{
    return _mm512_mul_ps(a, b);
}
static inline V v_div(V a, V b)
{
    return _mm512_div_ps(a, b);
}
static inline V v_sqrt(V a)
{
    return _mm512_sqrt_ps(a);
}
static inline V v_fma(V a, V b, V c)
{
    return _mm512_fmadd_ps(a, b, c);
}
static inline V v_max(V x, V top)
{
    return _mm512_max_ps(x, top);
}
static inline V v_min(V limit, V x)
{
    return _mm512_min_ps(limit, x);
}
static inline V v_round(V x)
{
    return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline V v_abs(V x)
{
    return _mm512_abs_ps(x);
}

static inline VM v_lt(V a, V b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ);
}
static inline VM v_le(V a, V b)
{
    return _mm512_cmp_ps_mask(a, b, _CMP_LE_OQ);
}
static inline VM v_is_nan(V a)
{
    return _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q);
}
static inline int v_any(VM m)
{
    return m != 0;
}
static inline V v_select(VM m, V a, V b)
{
    return _mm512_mask_blend_ps(m, b, a);
}
static inline V v_keep(VM m, V a)
{
    return _mm512_maskz_mov_ps(m, a);
}
static inline V v_drop(VM m, V a)
{
    return _mm512_maskz_mov_ps((VM)~m, a);
}

static inline V v_scale2(V x, V n)
{
    return _mm512_scalef_ps(x, n);
}

static inline float v_sum(V x)
{
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
static inline float v_top(V x)
{
    __m256 half = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    __m128 two = _mm_max_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)));
}

static inline void v_transpose4(const float *x, int64_t ldx, float *y, int64_t ldy)
{
    __m128 a = _mm_loadu_ps(x), b = _mm_loadu_ps(x + ldx);
    __m128 c = _mm_loadu_ps(x + 2 * ldx), d = _mm_loadu_ps(x + 3 * ldx);
    _MM_TRANSPOSE4_PS(a, b, c, d);
    _mm_storeu_ps(y, a);
    _mm_storeu_ps(y + ldy, b);
    _mm_storeu_ps(y + 2 * ldy, c);
    _mm_storeu_ps(y + 3 * ldy, d);
}

static inline VD d_zero(void)
{
    return (VD){_mm512_setzero_pd(), _mm512_setzero_pd()};
}
static inline VD d_widen(V x)
{
    return (VD){_mm512_cvtps_pd(_mm512_castps512_ps256(x)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1))};
}
static inline VD d_add(VD a, VD b)
{
    return (VD){_mm512_add_pd(a.low, b.low), _mm512_add_pd(a.high, b.high)};
}
static inline VD d_fma(VD a, VD b, VD c)
{
    return (VD){_mm512_fmadd_pd(a.low, b.low, c.low), _mm512_fmadd_pd(a.high, b.high, c.high)};
}
static inline double d_sum(VD x)
{
    return _mm512_reduce_add_pd(_mm512_add_pd(x.low, x.high));
}

static inline VI b_cast(V x)
{
    return _mm512_castps_si512(x);
}
static inline VI b_set1(uint32_t x)
{
    return _mm512_set1_epi32((int)x);
}
static inline VI b_add(VI a, VI b)
{
    return _mm512_add_epi32(a, b);
}
static inline VI b_and(VI a, VI b)
{
    return _mm512_and_si512(a, b);
}
static inline VI b_or(VI a, VI b)
{
    return _mm512_or_si512(a, b);
}
static inline VI b_upper(VI a)
{
    return _mm512_srli_epi32(a, 16);
}
static inline V b_float(VI a)
{
    return _mm512_castsi512_ps(a);
}
static inline VI b_select(VM m, VI a, VI b)
{
    return _mm512_mask_blend_epi32(m, b, a);
}
static inline void b_store_u16(uint16_t *p, VI x)
{
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtepi32_epi16(x));
}
static inline VM b_less(VI a, VI b)
{
    return _mm512_cmplt_epu32_mask(a, b);
}

static inline VW w_set1(uint64_t x)
{
    return _mm512_set1_epi64((long long)x);
}
static inline VW w_order(void)
{
    return _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
}
static inline VW w_add(VW a, VW b)
{
    return _mm512_add_epi64(a, b);
}
static inline VW w_xor3(VW a, VW b, VW c)
{
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}
static inline VW w_mul(VW a, VW b)
{
    return _mm512_mul_epu32(a, b);
}
static inline VW w_high(VW a)
{
    return _mm512_srli_epi64(a, 32);
}
static inline VW w_pair(VW low, VW high)
{
    return _mm512_mask_blend_epi32(0xaaaa, low, _mm512_slli_epi64(high, 32));
}
static inline VI w_even(VW a, VW b)
{
    return _mm512_unpacklo_epi64(a, b);
}
static inline VI w_odd(VW a, VW b)
{
    return _mm512_unpackhi_epi64(a, b);
}
