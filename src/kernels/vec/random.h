/* vec/random.h: dropout in SIMD words, from Philox 4x32-10 (Salmon et al., SC 2011) computed in vectors.
 *
 * A block of the stream is four 32-bit words; each word sits in the lower half of a 64-bit place, one block a
 * place, so that the 32 x 32 -> 64 bit products need no shuffles. Upper halves may hold anything: the product
 * ignores them. */

/* Two chains of rounds run side by side: one alone leaves the multipliers waiting for its results. */
enum { CHAINS = 2, WORDS = 2 * CHAINS };

/* WORDS vectors of the stream's words: blocks first, first + 1 ... in order. */
static inline void philox_words(const uint32_t key[2], const uint32_t high[2], uint64_t first, VI out[WORDS])
{
    VW c0[CHAINS], c1[CHAINS], c2[CHAINS], c3[CHAINS];
    for (int s = 0; s < CHAINS; s++) {
        c0[s] = w_add(w_set1(first + (uint64_t)s * (VL / 2)), w_order());
        c1[s] = w_high(c0[s]);
        c2[s] = w_set1(high[0]);
        c3[s] = w_set1(high[1]);
    }
    const VW m0 = w_set1(0xD2511F53), m1 = w_set1(0xCD9E8D57);
    /* Weyl sequences of keys: golden ratio and sqrt 3 - 1. */
    VW k0 = w_set1(key[0]), k1 = w_set1(key[1]);
    const VW weyl0 = w_set1(0x9E3779B9), weyl1 = w_set1(0xBB67AE85);
    for (int round = 0; round < 10; round++) {
        for (int s = 0; s < CHAINS; s++) {
            VW p0 = w_mul(c0[s], m0), p1 = w_mul(c2[s], m1);
            c0[s] = w_xor3(w_high(p1), c1[s], k0);
            c2[s] = w_xor3(w_high(p0), c3[s], k1);
            c1[s] = p1;
            c3[s] = p0;
        }
        k0 = w_add(k0, weyl0);
        k1 = w_add(k1, weyl1);
    }
    for (int s = 0; s < CHAINS; s++) {
        VW low = w_pair(c0[s], c1[s]), upper = w_pair(c2[s], c3[s]);
        out[2 * s] = w_even(low, upper);
        out[2 * s + 1] = w_odd(low, upper);
    }
}

typedef struct Dropout {
    VI limit; /* words below it are dropped */
    V scale;
} Dropout;

static inline void drop_vector(Dropout d, VI words, int add, const float *x, float *y, Part part)
{
    V v = v_drop(b_less(words, d.limit), v_mul(get(x, part), d.scale));
    put(y, part, add ? v_add(get(y, part), v) : v);
}

static inline void drop_all(Dropout d, const uint32_t key[2], const uint32_t high[2], uint64_t first,
                            int64_t n, int add, const float *x, float *y)
{
    VI words[WORDS];
    int64_t k = 0;
    for (; k + WORDS * VL <= n; k += WORDS * VL) {
        philox_words(key, high, first + (uint64_t)k / 4, words);
        for (int w = 0; w < WORDS; w++)
            drop_vector(d, words[w], add, x + k + w * VL, y + k + w * VL, part_whole());
    }
    if (k == n)
        return;
    philox_words(key, high, first + (uint64_t)k / 4, words);
    EACH_VECTOR(n - k, drop_vector(d, words[i / VL], add, x + k + i, y + k + i, part));
}

static void KERNEL(dropout)(int64_t n, float rate, const uint32_t key[2], const uint32_t high[2],
                            uint64_t first, const float *x, int add, float *y)
{
    /* word >= rate 2^32, in integers; a rate of 1 has no such word. */
    double limit = ceil((double)rate * 0x1p32);
    if (limit > (double)UINT32_MAX) {
        if (!add)
            KERNEL(fill)(n, 0.0f, y);
        return;
    }
    Dropout d = {.limit = b_set1((uint32_t)limit), .scale = v_set1(1.0f / (1.0f - rate))};
    if (add)
        drop_all(d, key, high, first, n, 1, x, y);
    else
        drop_all(d, key, high, first, n, 0, x, y);
}
