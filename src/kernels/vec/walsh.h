/* vec/walsh.h: the fast Walsh-Hadamard transform in SIMD words, vectors along the columns. Contract: kernels.def. Up to
 * three levels are done in one pass over the rows, in the order that the contract says: their sums are the same. */

/* x = H x for `radix` <= 8 vectors. */
static inline void walsh_butterfly(int radix, V x[8])
{
    for (int half = 1; half < radix; half *= 2) {
        _Pragma("GCC unroll 8") for (int p = 0; p < radix; p++)
        {
            if ((p & half) == 0) {
                V a = x[p], b = x[p + half];
                x[p] = v_add(a, b), x[p + half] = v_sub(a, b);
            }
        }
    }
}

/* Rows 0, step, ... of x into those of y; w: their weights, NULL: 1. */
static inline void walsh_group(int radix, int64_t c, const float *w, int64_t step, const float *x,
                               int64_t ldx, float *y, int64_t ldy)
{
    EACH_VECTOR(c, {
        V v[8];
        _Pragma("GCC unroll 8") for (int p = 0; p < radix; p++)
        {
            v[p] = get(x + p * step * ldx + i, part);
            if (w != NULL)
                v[p] = v_mul(v_set1(w[p * step]), v[p]);
        }
        walsh_butterfly(radix, v);
        _Pragma("GCC unroll 8") for (int p = 0; p < radix; p++) put(y + p * step * ldy + i, part, v[p]);
    });
}

/* The levels of rows step, 2 step, ... apart, as many as `radix` has. */
static inline void walsh_pass(int radix, int64_t n, int64_t c, const float *w, int64_t step, const float *x,
                              int64_t ldx, float *y, int64_t ldy)
{
    for (int64_t begin = 0; begin < n; begin += radix * step) {
        for (int64_t k = begin; k < begin + step; k++) {
            if (w != NULL)
                walsh_group(radix, c, w + k, step, x + k * ldx, ldx, y + k * ldy, ldy);
            else
                walsh_group(radix, c, NULL, step, x + k * ldx, ldx, y + k * ldy, ldy);
        }
    }
}

static void KERNEL(walsh)(int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, float *y,
                          int64_t ldy)
{
    int64_t step = 1;
    do {
        int64_t left = n / step, radix = left == 16 ? 4 : FV_MIN(left, 8);
        if (radix == 8)
            walsh_pass(8, n, c, w, step, x, ldx, y, ldy);
        else if (radix == 4)
            walsh_pass(4, n, c, w, step, x, ldx, y, ldy);
        else if (radix == 2)
            walsh_pass(2, n, c, w, step, x, ldx, y, ldy);
        else
            walsh_pass(1, n, c, w, step, x, ldx, y, ldy);
        step *= radix;
        w = NULL, x = y, ldx = ldy;
    } while (step < n);
}
