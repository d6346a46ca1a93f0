/* vec/neon.h: the SIMD words for AArch64's Advanced SIMD. What each word means stands in vec/words.h. There
 * are no masked loads: a tail goes through a small copy. */
#include <arm_neon.h>
#include <string.h>

enum { VL = 4, TILE_ROWS = 8 };
typedef float32x4_t V;
typedef uint32x4_t VM; /* lanes of all or no bits */
typedef int64_t VT;    /* how many lanes */
typedef uint32x4_t VI;
typedef uint64x2_t VW;
typedef struct VD {
    float64x2_t low, high;
} VD;

static inline VT v_tail(int64_t n)
{
    return n;
}
static inline VM v_first(VT t)
{
    static const uint32_t lanes[4] = {0, 1, 2, 3};
    return vcltq_u32(vld1q_u32(lanes), vdupq_n_u32((uint32_t)t));
}

static inline V v_load(const float *p)
{
    return vld1q_f32(p);
}
static inline void v_store(float *p, V x)
{
    vst1q_f32(p, x);
}
static inline V v_load_tail(const float *p, VT t)
{
    float lanes[4] = {0};
    memcpy(lanes, p, (size_t)t * sizeof *p);
    return vld1q_f32(lanes);
}
static inline void v_store_tail(float *p, VT t, V x)
{
    float lanes[4];
    vst1q_f32(lanes, x);
    memcpy(p, lanes, (size_t)t * sizeof *p);
}
static inline V v_load_bf16(const uint16_t *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vld1_u16(p), 16));
}

static inline V v_set1(float x)
{
    return vdupq_n_f32(x);
}
static inline V v_add(V a, V b)
{
    return vaddq_f32(a, b);
}
static inline V v_sub(V a, V b)
{
    return vsubq_f32(a, b);
}
static inline V v_mul(V a, V b)
{
    return vmulq_f32(a, b);
}
static inline V v_div(V a, V b)
{
    return vdivq_f32(a, b);
}
static inline V v_sqrt(V a)
{
    return vsqrtq_f32(a);
}
static inline V v_fma(V a, V b, V c)
{
    return vfmaq_f32(c, a, b);
}
static inline V v_max(V x, V top)
{
    return vbslq_f32(vcgtq_f32(x, top), x, top); /* vmaxnmq would pass over a NaN in top */
}
static inline V v_min(V limit, V x)
{
    return vminq_f32(limit, x);
}
static inline V v_round(V x)
{
    return vrndnq_f32(x);
}
static inline V v_abs(V x)
{
    return vabsq_f32(x);
}

static inline VM v_lt(V a, V b)
{
    return vcltq_f32(a, b);
}
static inline VM v_le(V a, V b)
{
    return vcleq_f32(a, b);
}
static inline VM v_is_nan(V a)
{
    return vmvnq_u32(vceqq_f32(a, a));
}
static inline int v_any(VM m)
{
    return vmaxvq_u32(m) != 0;
}
static inline V v_select(VM m, V a, V b)
{
    return vbslq_f32(m, a, b);
}
static inline V v_keep(VM m, V a)
{
    return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(a)));
}
static inline V v_drop(VM m, V a)
{
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(a), m));
}

static inline V v_scale2(V x, V n)
{
    int32x4_t exponent = vshlq_n_s32(vcvtnq_s32_f32(n), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(x), exponent));
}

static inline float v_sum(V x)
{
    float32x2_t two = vadd_f32(vget_low_f32(x), vget_high_f32(x));
    return vget_lane_f32(vpadd_f32(two, two), 0);
}
static inline float v_top(V x)
{
    return vmaxnmvq_f32(x);
}

static inline void v_transpose4(const float *x, int64_t ldx, float *y, int64_t ldy)
{
    float32x4x2_t low = vtrnq_f32(vld1q_f32(x), vld1q_f32(x + ldx));
    float32x4x2_t high = vtrnq_f32(vld1q_f32(x + 2 * ldx), vld1q_f32(x + 3 * ldx));
    for (int i = 0; i < 2; i++) {
        vst1q_f32(y + i * ldy, vcombine_f32(vget_low_f32(low.val[i]), vget_low_f32(high.val[i])));
        vst1q_f32(y + (i + 2) * ldy, vcombine_f32(vget_high_f32(low.val[i]), vget_high_f32(high.val[i])));
    }
}

static inline VD d_zero(void)
{
    return (VD){vdupq_n_f64(0.0), vdupq_n_f64(0.0)};
}
static inline VD d_widen(V x)
{
    return (VD){vcvt_f64_f32(vget_low_f32(x)), vcvt_high_f64_f32(x)};
}
static inline VD d_add(VD a, VD b)
{
    return (VD){vaddq_f64(a.low, b.low), vaddq_f64(a.high, b.high)};
}
static inline VD d_fma(VD a, VD b, VD c)
{
    return (VD){vfmaq_f64(c.low, a.low, b.low), vfmaq_f64(c.high, a.high, b.high)};
}
static inline double d_sum(VD x)
{
    return vaddvq_f64(vaddq_f64(x.low, x.high));
}

static inline VI b_cast(V x)
{
    return vreinterpretq_u32_f32(x);
}
static inline VI b_set1(uint32_t x)
{
    return vdupq_n_u32(x);
}
static inline VI b_add(VI a, VI b)
{
    return vaddq_u32(a, b);
}
static inline VI b_and(VI a, VI b)
{
    return vandq_u32(a, b);
}
static inline VI b_or(VI a, VI b)
{
    return vorrq_u32(a, b);
}
static inline VI b_upper(VI a)
{
    return vshrq_n_u32(a, 16);
}
static inline V b_float(VI a)
{
    return vreinterpretq_f32_u32(a);
}
static inline VI b_select(VM m, VI a, VI b)
{
    return vbslq_u32(m, a, b);
}
static inline void b_store_u16(uint16_t *p, VI x)
{
    vst1_u16(p, vmovn_u32(x));
}
static inline VM b_less(VI a, VI b)
{
    return vcltq_u32(a, b);
}

static inline VW w_set1(uint64_t x)
{
    return vdupq_n_u64(x);
}
static inline VW w_order(void)
{
    static const uint64_t lanes[2] = {0, 1};
    return vld1q_u64(lanes);
}
static inline VW w_add(VW a, VW b)
{
    return vaddq_u64(a, b);
}
static inline VW w_xor3(VW a, VW b, VW c)
{
    return veorq_u64(veorq_u64(a, b), c);
}
static inline VW w_mul(VW a, VW b)
{
    return vmull_u32(vmovn_u64(a), vmovn_u64(b));
}
static inline VW w_high(VW a)
{
    return vshrq_n_u64(a, 32);
}
static inline VW w_pair(VW low, VW high)
{
    return vsliq_n_u64(low, high, 32);
}
static inline VI w_even(VW a, VW b)
{
    return vreinterpretq_u32_u64(vzip1q_u64(a, b));
}
static inline VI w_odd(VW a, VW b)
{
    return vreinterpretq_u32_u64(vzip2q_u64(a, b));
}
