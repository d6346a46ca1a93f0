/* vec/avx2.h: the SIMD words for AVX2 with FMA. What each word means stands in vec/words.h. */
#include <immintrin.h>

enum { VL = 8, TILE_ROWS = 6 };
typedef __m256 V;
typedef __m256 VM; /* lanes of all or no bits */
typedef __m256i VT;
typedef __m256i VI;
typedef __m256i VW;
typedef struct VD {
    __m256d low, high;
} VD;

static inline VT v_tail(int64_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline VM v_first(VT t)
{
    return _mm256_castsi256_ps(t);
}

static inline V v_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void v_store(float *p, V x)
{
    _mm256_storeu_ps(p, x);
}
static inline V v_load_tail(const float *p, VT t)
{
    return _mm256_maskload_ps(p, t);
}
static inline void v_store_tail(float *p, VT t, V x)
{
    _mm256_maskstore_ps(p, t, x);
}
static inline V v_load_bf16(const uint16_t *p)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

static inline V v_set1(float x)
{
    return _mm256_set1_ps(x);
}
static inline V v_add(V a, V b)
{
    return _mm256_add_ps(a, b);
}
static inline V v_sub(V a, V b)
{
    return _mm256_sub_ps(a, b);
}
static inline V v_mul(V a, V b)
{
    return _mm256_mul_ps(a, b);
}
static inline V v_div(V a, V b)
{
    return _mm256_div_ps(a, b);
}
static inline V v_sqrt(V a)
{
    return _mm256_sqrt_ps(a);
}
static inline V v_fma(V a, V b, V c)
{
    return _mm256_fmadd_ps(a, b, c);
}
static inline V v_max(V x, V top)
{
    return _mm256_max_ps(x, top);
}
static inline V v_min(V limit, V x)
{
    return _mm256_min_ps(limit, x);
}
static inline V v_round(V x)
{
    return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline V v_abs(V x)
{
    return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x);
}

static inline VM v_lt(V a, V b)
{
    return _mm256_cmp_ps(a, b, _CMP_LT_OQ);
}
static inline VM v_le(V a, V b)
{
    return _mm256_cmp_ps(a, b, _CMP_LE_OQ);
}
static inline VM v_is_nan(V a)
{
    return _mm256_cmp_ps(a, a, _CMP_UNORD_Q);
}
static inline int v_any(VM m)
{
    return _mm256_movemask_ps(m) != 0;
}
static inline V v_select(VM m, V a, V b)
{
    return _mm256_blendv_ps(b, a, m);
}
static inline V v_keep(VM m, V a)
{
    return _mm256_and_ps(m, a);
}
static inline V v_drop(VM m, V a)
{
    return _mm256_andnot_ps(m, a);
}

static inline V v_scale2(V x, V n)
{
    __m256i exponent = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(x), exponent));
}

static inline float v_sum(V x)
{
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}
static inline float v_top(V x)
{
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
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
    return (VD){_mm256_setzero_pd(), _mm256_setzero_pd()};
}
static inline VD d_widen(V x)
{
    return (VD){_mm256_cvtps_pd(_mm256_castps256_ps128(x)), _mm256_cvtps_pd(_mm256_extractf128_ps(x, 1))};
}
static inline VD d_add(VD a, VD b)
{
    return (VD){_mm256_add_pd(a.low, b.low), _mm256_add_pd(a.high, b.high)};
}
static inline VD d_fma(VD a, VD b, VD c)
{
    return (VD){_mm256_fmadd_pd(a.low, b.low, c.low), _mm256_fmadd_pd(a.high, b.high, c.high)};
}
static inline double d_sum(VD x)
{
    __m256d four = _mm256_add_pd(x.low, x.high);
    __m128d two = _mm_add_pd(_mm256_castpd256_pd128(four), _mm256_extractf128_pd(four, 1));
    return _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two)));
}

static inline VI b_cast(V x)
{
    return _mm256_castps_si256(x);
}
static inline VI b_set1(uint32_t x)
{
    return _mm256_set1_epi32((int)x);
}
static inline VI b_add(VI a, VI b)
{
    return _mm256_add_epi32(a, b);
}
static inline VI b_and(VI a, VI b)
{
    return _mm256_and_si256(a, b);
}
static inline VI b_or(VI a, VI b)
{
    return _mm256_or_si256(a, b);
}
static inline VI b_upper(VI a)
{
    return _mm256_srli_epi32(a, 16);
}
static inline V b_float(VI a)
{
    return _mm256_castsi256_ps(a);
}
static inline VI b_select(VM m, VI a, VI b)
{
    return _mm256_blendv_epi8(b, a, _mm256_castps_si256(m));
}
static inline void b_store_u16(uint16_t *p, VI x)
{
    _mm_storeu_si128((__m128i *)p,
                     _mm_packus_epi32(_mm256_castsi256_si128(x), _mm256_extracti128_si256(x, 1)));
}
static inline VM b_less(VI a, VI b)
{
    /* Only signed comparisons exist: shift the range. */
    __m256i flip = _mm256_set1_epi32(INT32_MIN);
    return _mm256_castsi256_ps(_mm256_cmpgt_epi32(_mm256_xor_si256(b, flip), _mm256_xor_si256(a, flip)));
}

static inline VW w_set1(uint64_t x)
{
    return _mm256_set1_epi64x((long long)x);
}
static inline VW w_order(void)
{
    return _mm256_setr_epi64x(0, 2, 1, 3);
}
static inline VW w_add(VW a, VW b)
{
    return _mm256_add_epi64(a, b);
}
static inline VW w_xor3(VW a, VW b, VW c)
{
    return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
}
static inline VW w_mul(VW a, VW b)
{
    return _mm256_mul_epu32(a, b);
}
static inline VW w_high(VW a)
{
    return _mm256_srli_epi64(a, 32);
}
static inline VW w_pair(VW low, VW high)
{
    return _mm256_blend_epi32(low, _mm256_slli_epi64(high, 32), 0xaa);
}
static inline VI w_even(VW a, VW b)
{
    return _mm256_unpacklo_epi64(a, b);
}
static inline VI w_odd(VW a, VW b)
{
    return _mm256_unpackhi_epi64(a, b);
}
