/* vec/words.h: the SIMD vocabulary, and the loops built on it. Exactly one of avx2.h, avx512.h, neon.h was
 * included before; each defines the same words, and the algorithms in vec/ are written once in them.
 *
 *     VL                     floats in a vector
 *     V VI VW VD             floats; the same bits as 32-bit words; as 64-bit words; as doubles (twice
 *                            as wide)
 *     VM VT                  a mask of lanes; the tail of a row: the first n < VL lanes
 *     v_tail(n) v_first(t)   a tail; its mask
 *     v_load v_store v_load_tail v_store_tail v_load_bf16
 *                            any alignment; a tail touches its lanes only, the others load as 0
 *     v_set1 v_add v_sub v_mul v_div v_sqrt v_round v_abs
 *     v_fma(a, b, c)         a b + c, rounded once
 *     v_max(x, top)          the larger; top where x is NaN
 *     v_min(limit, x)        the smaller; x where x is NaN
 *     v_lt v_le v_is_nan v_any, v_select(m, a, b), v_keep(m, a), v_drop(m, a)
 *                            comparisons; m ? a : b; m ? a : 0; m ? 0 : a
 *     v_scale2(x, n)         x 2^n for x in [0.5, 2) or NaN, integral n in [-126, 128], if the result is
 *                            normal or x is 1
 *     v_sum v_top            over the lanes, in a fixed order
 *     v_transpose4           four rows of four floats become four columns
 *     d_zero d_widen d_add d_fma d_sum
 *                            doubles
 *     b_cast b_float b_set1 b_add b_and b_or b_upper b_select b_less b_store_u16
 *                            32-bit words: to and from floats, upper half, unsigned comparison, lower halves stored
 *     w_set1 w_add w_xor3 w_high w_pair w_mul
 *                            64-bit words; w_mul multiplies the lower halves, w_pair joins two lower halves
 *     w_even w_odd w_order   interleave the words at even and at odd places of two vectors; the numbering of
 *                            places under which even, then odd, come out in rising order
 *
 * One rule makes results independent of where a row lies and of how it is cut: what a lane computes depends
 * on its element alone, and element j of a row sum goes into accumulator j / VL mod FOLD, lane j mod VL. A
 * row followed by zeros has the same sum, bit for bit. */
#ifndef FV_VEC_WORDS_H
#define FV_VEC_WORDS_H

#define FV_JOIN(a, b, c)   a##b##_##c
#define FV_SYMBOL(a, b, c) FV_JOIN(a, b, c)
/* KERNEL(scale) is fv_scale_avx2, fv_scale_avx512 ... */
#define KERNEL(name) FV_SYMBOL(fv_, name, FV_ISA)

/* A whole vector or the tail of a row. Always a constant or known by its loop, so that no test remains. */
typedef struct Part {
    int whole;
    VT tail;
} Part;

static inline Part part_whole(void)
{
    return (Part){.whole = 1};
}

static inline Part part_tail(int64_t n)
{
    return (Part){.whole = 0, .tail = v_tail(n)};
}

static inline V get(const float *p, Part part)
{
    return part.whole ? v_load(p) : v_load_tail(p, part.tail);
}

static inline void put(float *p, Part part, V x)
{
    if (part.whole)
        v_store(p, x);
    else
        v_store_tail(p, part.tail, x);
}

/* Runs a statement with `i` = 0, VL, 2 VL ... below n and `part` saying how much of a vector is there. */
#define EACH_VECTOR(n, statement)                                                                            \
    do {                                                                                                     \
        int64_t i = 0;                                                                                       \
        for (; i + VL <= (n); i += VL) {                                                                     \
            const Part part = part_whole();                                                                  \
            statement;                                                                                       \
        }                                                                                                    \
        if (i < (n)) {                                                                                       \
            const Part part = part_tail((n)-i);                                                              \
            statement;                                                                                       \
        }                                                                                                    \
    } while (0)

#endif
