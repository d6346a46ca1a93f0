/* vec/random.h: dropout in SIMD words, from Philox 4x32-10 (Salmon et al., SC 2011) computed in vectors.
 *
 * A block of the stream is four 32-bit words; each word sits in the lower half of a 64-bit place, one block a
 * place, so that the 32 x 32 -> 64 bit products need no shuffles. Upper halves may hold anything: the product
 * ignores them. */

/* Two vectors of the stream's words: blocks first, first + 1 ... VL / 2 of them, in order. */
static inline void philox_words(const uint32_t key[2], const uint32_t high[2], uint64_t first, VI out[2])
{
    VW c0 = w_add(w_set1(first), w_order());
    VW c1 = w_high(c0);
    VW c2 = w_set1(high[0]), c3 = w_set1(high[1]);
    const VW m0 = w_set1(0xD2511F53), m1 = w_set1(0xCD9E8D57);
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        VW p0 = w_mul(c0, m0), p1 = w_mul(c2, m1);
        c0 = w_xor(w_xor(w_high(p1), c1), w_set1(k0));
        c2 = w_xor(w_xor(w_high(p0), c3), w_set1(k1));
        c1 = p1;
        c3 = p0;
        k0 += 0x9E3779B9; /* Weyl sequences: golden ratio and sqrt 3 - 1 */
        k1 += 0xBB67AE85;
    }
    VW low = w_pair(c0, c1), upper = w_pair(c2, c3);
    out[0] = w_even(low, upper);
    out[1] = w_odd(low, upper);
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
    VI words[2];
    int64_t k = 0;
    for (; k + 2 * VL <= n; k += 2 * VL) {
        philox_words(key, high, first + (uint64_t)k / 4, words);
        drop_vector(d, words[0], add, x + k, y + k, part_whole());
        drop_vector(d, words[1], add, x + k + VL, y + k + VL, part_whole());
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
