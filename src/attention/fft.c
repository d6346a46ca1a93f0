/* fft.c: see fft.h. */
#include "attention/fft.h"
#include <math.h>

/* Bytes of rows that are worked on together: half of a second-level cache of 512 KiB. */
enum { BLOCK_BYTES = 256 << 10 };

static const double two_pi = 6.28318530717958647692;

int64_t fv_fft_size(int64_t n)
{
    int64_t size = 1;
    while (size < n)
        size *= 2;
    return size >= 4 && size / 4 * 3 >= n ? size / 4 * 3 : size;
}

/* Radix of the pass over runs of n rows. */
static int radix_of(int64_t n)
{
    return n % 3 == 0 ? 3 : n % 4 == 0 ? 4 : 2;
}

int64_t fv_fft_floats(int64_t size)
{
    int64_t floats = 0;
    for (int64_t n = size; n > 1; n /= radix_of(n))
        floats += n / radix_of(n) * (radix_of(n) - 1) * 2;
    return floats;
}

/* exp(-2 pi i k p / n) for k < n / radix and p = 1 ... radix - 1; powers in double. */
static void make_table(int64_t n, int radix, float *table)
{
    for (int64_t k = 0; k < n / radix; k++) {
        double angle = two_pi * (double)k / (double)n, re = cos(angle), im = -sin(angle), a = re, b = im;
        for (int p = 1; p < radix; p++) {
            *table++ = (float)a, *table++ = (float)b;
            double turned = a * re - b * im;
            b = a * im + b * re, a = turned;
        }
    }
}

/* The factors of runs a quarter as long are every fourth of these. */
static void thin_table(int64_t n, int radix, const float *above, float *table)
{
    int64_t row = (int64_t)(radix - 1) * 2;
    for (int64_t k = 0; k < n / radix; k++)
        for (int64_t e = 0; e < row; e++)
            table[k * row + e] = above[4 * k * row + e];
}

void fv_fft_twiddles(int64_t size, float *twiddles)
{
    const float *above = NULL;
    for (int64_t n = size; n > 1; n /= radix_of(n)) {
        int radix = radix_of(n);
        if (radix == 4 && above != NULL)
            thin_table(n, radix, above, twiddles);
        else
            make_table(n, radix, twiddles);
        above = radix == 4 ? twiddles : NULL;
        twiddles += n / radix * (radix - 1) * 2;
    }
}

fv_fft fv_fft_make(const fv_kernels *kr, int64_t size, const float *twiddles)
{
    fv_fft f = {.kr = kr, .size = size};
    for (int64_t n = size; n > 1; n /= radix_of(n)) {
        int radix = radix_of(n);
        f.pass[f.count++] = (fv_fft_pass){n, radix, twiddles};
        twiddles += n / radix * (radix - 1) * 2;
    }
    return f;
}

/* Runs of n rows stay in the cache. */
static bool is_near(int64_t n, int64_t c)
{
    return n * 2 * c * (int64_t)sizeof(float) <= BLOCK_BYTES;
}

/* What is done to a run of rows between its first pass `at` and its last one. */
typedef struct fft_work {
    const fv_fft *f;
    int64_t c;
    bool split, join, conjugate;
    const float *re, *im; /* NULL: no filter */
} fft_work;

static void near_run(const fft_work *w, int at, int64_t n, int64_t first, float *x)
{
    const fv_fft *f = w->f;
    int64_t c = w->c;
    for (int p = at; w->split && p < f->count; p++) {
        const fv_fft_pass *pass = &f->pass[p];
        f->kr->fft_split(n / pass->n, pass->n, pass->radix, c, pass->twiddle, x, 2 * c);
    }
    if (w->re != NULL)
        f->kr->fft_filter(n, c, w->re + first, w->im + first, w->conjugate, x, 2 * c, 0, x, 2 * c);
    for (int p = f->count - 1; w->join && p >= at; p--) {
        const fv_fft_pass *pass = &f->pass[p];
        f->kr->fft_join(n / pass->n, pass->n, pass->radix, c, pass->twiddle, x, 2 * c);
    }
}

/* Rows [first, first + n) of the transform, from pass `at` on. */
static void run(const fft_work *w, int at, int64_t n, int64_t first, float *x)
{
    if (is_near(n, w->c) || at == w->f->count) {
        near_run(w, at, n, first, x);
        return;
    }
    const fv_fft_pass *pass = &w->f->pass[at];
    int64_t s = n / pass->radix;
    if (w->split)
        w->f->kr->fft_split(1, n, pass->radix, w->c, pass->twiddle, x, 2 * w->c);
    for (int p = 0; p < pass->radix; p++)
        run(w, at + 1, s, first + p * s, x + p * s * 2 * w->c);
    if (w->join)
        w->f->kr->fft_join(1, n, pass->radix, w->c, pass->twiddle, x, 2 * w->c);
}

void fv_fft_split(const fv_fft *f, int64_t c, float *x)
{
    run(&(fft_work){.f = f, .c = c, .split = true}, 0, f->size, 0, x);
}

void fv_fft_join(const fv_fft *f, int64_t c, float *x)
{
    run(&(fft_work){.f = f, .c = c, .join = true}, 0, f->size, 0, x);
}

void fv_fft_convolve(const fv_fft *f, int64_t c, const float *re, const float *im, bool conjugate, float *x)
{
    fft_work w = {f, c, true, true, conjugate, re, im};
    run(&w, 0, f->size, 0, x);
}
