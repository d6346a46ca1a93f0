/* vec/fft.h: passes of a Fourier transform in SIMD words, vectors along the channels. Contracts: kernels.def. */

typedef struct Z {
    V re, im;
} Z;

/* A factor for all channels; minus is -im. */
typedef struct Factor {
    V re, im, minus;
} Factor;

static inline Factor factor(float re, float im)
{
    return (Factor){v_set1(re), v_set1(im), v_set1(-im)};
}

static inline Z z_get(const float *row, int64_t c, int64_t i, Part part)
{
    return (Z){get(row + i, part), get(row + c + i, part)};
}

static inline void z_put(float *row, int64_t c, int64_t i, Part part, Z z)
{
    put(row + i, part, z.re);
    put(row + c + i, part, z.im);
}

static inline Z z_add(Z a, Z b)
{
    return (Z){v_add(a.re, b.re), v_add(a.im, b.im)};
}

static inline Z z_sub(Z a, Z b)
{
    return (Z){v_sub(a.re, b.re), v_sub(a.im, b.im)};
}

/* a + i b */
static inline Z z_add_i(Z a, Z b)
{
    return (Z){v_sub(a.re, b.im), v_add(a.im, b.re)};
}

/* a - i b */
static inline Z z_sub_i(Z a, Z b)
{
    return (Z){v_add(a.re, b.im), v_sub(a.im, b.re)};
}

static inline Z z_mul(Z a, Factor w)
{
    return (Z){v_fma(a.im, w.minus, v_mul(a.re, w.re)), v_fma(a.re, w.im, v_mul(a.im, w.re))};
}

static inline Z z_fma(Z a, Factor w, Z add)
{
    return (Z){v_fma(a.im, w.minus, v_fma(a.re, w.re, add.re)), v_fma(a.re, w.im, v_fma(a.im, w.re, add.im))};
}

/* The transform of `radix` numbers with exp(-); joined: exp(+). */
static inline void z_butterfly(int radix, bool joined, Z x[4])
{
    Z a = x[0], b = x[1];
    if (radix == 2) {
        x[0] = z_add(a, b), x[1] = z_sub(a, b);
    } else if (radix == 3) {
        V half = v_set1(-0.5f), root = v_set1(0.866025403784438646763f);
        Z t = z_add(b, x[2]), m = z_sub(b, x[2]);
        x[0] = z_add(a, t);
        t = (Z){v_fma(t.re, half, a.re), v_fma(t.im, half, a.im)};
        m = (Z){v_mul(root, m.re), v_mul(root, m.im)};
        Z low = z_sub_i(t, m), high = z_add_i(t, m);
        x[1] = joined ? high : low, x[2] = joined ? low : high;
    } else {
        Z even = z_add(a, x[2]), even_minus = z_sub(a, x[2]);
        Z odd = z_add(b, x[3]), odd_minus = z_sub(b, x[3]);
        x[0] = z_add(even, odd), x[2] = z_sub(even, odd);
        Z low = z_sub_i(even_minus, odd_minus), high = z_add_i(even_minus, odd_minus);
        x[1] = joined ? high : low, x[3] = joined ? low : high;
    }
}

/* One group of rows x, x + step, ... ; factors are those of rows 1, 2, 3. */
static inline void fft_group(int radix, bool joined, bool turned, int64_t c, const Factor *w, float *x,
                             int64_t step)
{
    EACH_VECTOR(c, {
        Z z[4];
        for (int p = 0; p < radix; p++) {
            z[p] = z_get(x + p * step, c, i, part);
            if (joined && turned && p > 0)
                z[p] = z_mul(z[p], w[p - 1]);
        }
        z_butterfly(radix, joined, z);
        for (int p = 0; p < radix; p++)
            z_put(x + p * step, c, i, part, !joined && turned && p > 0 ? z_mul(z[p], w[p - 1]) : z[p]);
    });
}

static inline void fft_pass(int64_t blocks, int64_t n, int radix, bool joined, int64_t c,
                            const float *twiddle, float *x, int64_t ldx)
{
    int64_t s = n / radix;
    for (int64_t b = 0; b < blocks; b++, x += n * ldx) {
        const float *t = twiddle;
        Factor w[3] = {0};
        if (s > 0)
            fft_group(radix, joined, false, c, w, x, s * ldx);
        for (int64_t k = 1; k < s; k++) {
            t += (radix - 1) * 2;
            for (int p = 0; p < radix - 1; p++)
                w[p] = factor(t[2 * p], joined ? -t[2 * p + 1] : t[2 * p + 1]);
            fft_group(radix, joined, true, c, w, x + k * ldx, s * ldx);
        }
    }
}

static void KERNEL(fft_split)(int64_t blocks, int64_t n, int radix, int64_t c, const float *twiddle, float *x,
                              int64_t ldx)
{
    if (radix == 4)
        fft_pass(blocks, n, 4, false, c, twiddle, x, ldx);
    else if (radix == 3)
        fft_pass(blocks, n, 3, false, c, twiddle, x, ldx);
    else
        fft_pass(blocks, n, 2, false, c, twiddle, x, ldx);
}

static void KERNEL(fft_join)(int64_t blocks, int64_t n, int radix, int64_t c, const float *twiddle, float *x,
                             int64_t ldx)
{
    if (radix == 4)
        fft_pass(blocks, n, 4, true, c, twiddle, x, ldx);
    else if (radix == 3)
        fft_pass(blocks, n, 3, true, c, twiddle, x, ldx);
    else
        fft_pass(blocks, n, 2, true, c, twiddle, x, ldx);
}

static void KERNEL(fft_filter)(int64_t n, int64_t c, const float *re, const float *im, int conjugate,
                               const float *x, int64_t ldx, int add, float *y, int64_t ldy)
{
    for (int64_t r = 0; r < n; r++, x += ldx, y += ldy) {
        Factor w = factor(re[r], conjugate ? -im[r] : im[r]);
        if (add)
            EACH_VECTOR(c, z_put(y, c, i, part, z_fma(z_get(x, c, i, part), w, z_get(y, c, i, part))));
        else
            EACH_VECTOR(c, z_put(y, c, i, part, z_mul(z_get(x, c, i, part), w)));
    }
}

static void KERNEL(fft_correlate)(int64_t n, int64_t c, const float *a, int64_t lda, const float *b,
                                  int64_t ldb, float *re, float *im)
{
    for (int64_t r = 0; r < n; r++, a += lda, b += ldb) {
        V real = v_set1(0.0f), imag = real;
        EACH_VECTOR(c, {
            Z u = z_get(a, c, i, part);
            Z v = z_get(b, c, i, part);
            real = v_fma(u.re, v.re, v_fma(u.im, v.im, real));
            imag = v_fma(u.re, v.im, v_sub(imag, v_mul(u.im, v.re)));
        });
        re[r] += v_sum(real);
        im[r] += v_sum(imag);
    }
}

static void KERNEL(turn_rows)(int64_t n, int64_t c, const float *re, const float *im, int conjugate,
                              const float *x, int64_t ldx, int add, float *y, int64_t ldy)
{
    V sign = v_set1(conjugate ? -1.0f : 1.0f), minus = v_set1(conjugate ? 1.0f : -1.0f);
    for (int64_t r = 0; r < n; r++, x += ldx, y += ldy) {
        EACH_VECTOR(c, {
            V turn = get(im + i, part);
            Factor w;
            w.re = get(re + i, part);
            w.im = v_mul(sign, turn);
            w.minus = v_mul(minus, turn);
            Z z = z_get(x, c, i, part);
            z_put(y, c, i, part, add ? z_fma(z, w, z_get(y, c, i, part)) : z_mul(z, w));
        });
    }
}
