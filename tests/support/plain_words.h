/* support/plain_words.h: the SIMD words that products of tiles take (kernels/vec/words.h), in plain C, for any processor. */
#include "kernels/kernels.h"
#include <math.h>
#include <string.h>

enum { VL = 16 };
typedef struct V {
    float lane[VL];
} V;
typedef int64_t VT;

static inline VT v_tail(int64_t n)
{
    return n;
}

static inline V v_load_tail(const float *p, VT t)
{
    V x = {{0}};
    memcpy(x.lane, p, (size_t)t * sizeof *p);
    return x;
}

static inline V v_load(const float *p)
{
    return v_load_tail(p, VL);
}

static inline void v_store_tail(float *p, VT t, V x)
{
    memcpy(p, x.lane, (size_t)t * sizeof *p);
}

static inline void v_store(float *p, V x)
{
    v_store_tail(p, VL, x);
}

static inline V v_set1(float value)
{
    V x;
    for (int i = 0; i < VL; i++)
        x.lane[i] = value;
    return x;
}

static inline V v_fma(V a, V b, V c)
{
    for (int i = 0; i < VL; i++)
        c.lane[i] = fmaf(a.lane[i], b.lane[i], c.lane[i]);
    return c;
}

static inline V v_mul(V a, V b)
{
    for (int i = 0; i < VL; i++)
        a.lane[i] *= b.lane[i];
    return a;
}

#define FV_PAIRS

/* Two vectors as bf16, one after the other. */
typedef struct Halves {
    uint16_t lane[2 * VL];
} Halves;

static inline Halves halves(V x, V next)
{
    Halves h;
    fv_f32_to_bf16_reference(VL, x.lane, h.lane);
    fv_f32_to_bf16_reference(VL, next.lane, h.lane + VL);
    return h;
}

static inline V v_pairs_along(V x, V next)
{
    Halves h = halves(x, next);
    memcpy(x.lane, h.lane, sizeof x);
    return x;
}

static inline V v_pairs_across(V x, V next)
{
    Halves h = halves(x, next), mixed;
    for (int i = 0; i < VL; i++)
        mixed.lane[2 * i] = h.lane[i], mixed.lane[2 * i + 1] = h.lane[VL + i];
    memcpy(x.lane, mixed.lane, sizeof x);
    return x;
}

static inline void v_transpose(V x[VL])
{
    V columns[VL];
    for (int i = 0; i < VL; i++)
        for (int j = 0; j < VL; j++)
            memcpy(&columns[j].lane[i], &x[i].lane[j], sizeof(float));
    memcpy(x, columns, sizeof columns);
}
