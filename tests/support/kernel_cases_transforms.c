/* support/kernel_cases_transforms.c: cases of Fourier and Hadamard transforms, scaling. */
#include "support/kernel_cases.h"

/* ---- Fourier transforms: c complex channels take rows of 2 c floats, so half the columns ---- */

/* Radix 2, 3, 4; one run of rows or as many as there are. */
static int fft_radix(const operands *o)
{
    return 2 + o->variant % 3;
}

static int64_t fft_blocks(const operands *o, int64_t *n)
{
    int64_t radix = fft_radix(o), runs = o->variant / 3 ? FV_MIN(o->n / radix, 2) : 1;
    *n = runs > 0 ? o->n / runs / radix * radix : 0;
    return *n > 0 ? runs : 0;
}

static void call_fft_split(const fv_kernels *k, operands *o)
{
    int64_t n, blocks = fft_blocks(o, &n);
    k->fft_split(blocks, n, fft_radix(o), o->c / 2, o->in[0], o->out[0], o->ld);
}

static void call_fft_join(const fv_kernels *k, operands *o)
{
    int64_t n, blocks = fft_blocks(o, &n);
    k->fft_join(blocks, n, fft_radix(o), o->c / 2, o->in[0], o->out[0], o->ld);
}

/* Every output is a sum of both parts of every row of its group, times a factor before or behind. */
static void magnitude_fft_pass(operands *a, const operands *r)
{
    int64_t n, blocks = fft_blocks(a, &n), c = a->c / 2;
    int radix = fft_radix(a);
    (void)r;
    for (int64_t g = 0; g < blocks * n / radix; g++) {
        int64_t s = n / radix, k = g % s;
        float *x = a->out[0] + (g / s * n + k) * a->ld;
        double top = 1;
        for (int p = 0; p < 2 * (radix - 1) && k > 0; p++)
            top = FV_MAX(top, 2 * (double)a->in[0][k * (radix - 1) * 2 + p]);
        for (int64_t f = 0; f < c; f++) {
            double sum = 0;
            for (int p = 0; p < radix; p++)
                sum += (double)x[p * s * a->ld + f] + (double)x[p * s * a->ld + c + f];
            for (int p = 0; p < radix; p++)
                x[p * s * a->ld + f] = x[p * s * a->ld + c + f] = (float)(sum * top);
        }
    }
}

static void call_fft_filter(const fv_kernels *k, operands *o)
{
    k->fft_filter(o->n, o->c / 2, o->in[1], o->in[2], o->variant & 1, o->in[0], o->ld, o->variant & 2,
                  o->out[0], o->ld);
}

/* (|re| + |im|) times both parts, and what was there */
static void magnitude_fft_filter(operands *a, const operands *r)
{
    int64_t c = a->c / 2;
    (void)r;
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t f = 0; f < c; f++) {
            const float *x = a->in[0] + i * a->ld;
            float *y = a->out[0] + i * a->ld, sum = (x[f] + x[c + f]) * (a->in[1][i] + a->in[2][i]);
            y[f] = sum + (a->variant & 2 ? y[f] : 0.0f);
            y[c + f] = sum + (a->variant & 2 ? y[c + f] : 0.0f);
        }
    }
}

static void call_fft_correlate(const fv_kernels *k, operands *o)
{
    k->fft_correlate(o->n, o->c / 2, o->in[0], o->ld, o->in[1], o->ld, o->out[0], o->out[1]);
}

static void magnitude_fft_correlate(operands *a, const operands *r)
{
    int64_t c = a->c / 2;
    (void)r;
    for (int64_t i = 0; i < a->n; i++) {
        const float *x = a->in[0] + i * a->ld, *y = a->in[1] + i * a->ld;
        for (int64_t f = 0; f < c; f++) {
            a->out[0][i] += (x[f] + x[c + f]) * (y[f] + y[c + f]);
            a->out[1][i] += (x[f] + x[c + f]) * (y[f] + y[c + f]);
        }
    }
}

static void call_turn_rows(const fv_kernels *k, operands *o)
{
    k->turn_rows(o->n, o->c / 2, o->in[1], o->in[2], o->variant & 1, o->in[0], o->ld, o->variant & 2,
                 o->out[0], o->ld);
}

static void magnitude_turn_rows(operands *a, const operands *r)
{
    int64_t c = a->c / 2;
    (void)r;
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t f = 0; f < c; f++) {
            const float *x = a->in[0] + i * a->ld;
            float *y = a->out[0] + i * a->ld, sum = (x[f] + x[c + f]) * (a->in[1][f] + a->in[2][f]);
            y[f] = sum + (a->variant & 2 ? y[f] : 0.0f);
            y[c + f] = sum + (a->variant & 2 ? y[c + f] : 0.0f);
        }
    }
}

/* ---- Hadamard transforms: as many rows as a power of two has ---- */

static int64_t walsh_rows(const operands *o)
{
    int64_t rows = o->n > 0;
    while (rows > 0 && 2 * rows <= o->n)
        rows *= 2;
    return rows;
}

static void call_walsh(const fv_kernels *k, operands *o)
{
    int64_t rows = walsh_rows(o);
    if (rows > 0)
        k->walsh(rows, o->c, o->in[1], o->in[0], o->ld, o->out[0], o->ld);
}

/* Every output is a sum of all rows. */
static void magnitude_walsh(operands *a, const operands *r)
{
    int64_t rows = walsh_rows(a);
    (void)r;
    for (int64_t f = 0; f < a->c; f++) {
        double sum = 0;
        for (int64_t i = 0; i < rows; i++)
            sum += (double)a->in[1][i] * (double)a->in[0][i * a->ld + f];
        for (int64_t i = 0; i < rows; i++)
            a->out[0][i * a->ld + f] = (float)sum;
    }
}

/* ---- scaling ---- */

static void call_unit_rows(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->unit_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->ld, o->out[1]);
}

static void call_unit_rows_back(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->unit_rows_back(o->n, o->c, o->in[0], o->ld, o->in[2], o->in[1], o->ld, o->out[0], o->ld);
}

static void call_power_rows(const fv_kernels *k, operands *o)
{
    k->power_rows(o->n, o->c, 0.75f, o->variant ? NULL : o->in[1], o->in[0], o->ld, o->out[0], o->ld);
}

static void call_power_rows_back(const fv_kernels *k, operands *o)
{
    k->power_rows_back(o->n, o->c, 0.75f, o->variant & 1 ? NULL : o->in[2], o->in[0], o->ld, o->in[1], o->ld,
                       o->out[0], o->ld, o->variant & 2 || o->c == 0 ? NULL : o->out[1],
                       o->variant & 2 ? NULL : o->out[2]);
}

/* clang-format off */
const kernel_case kernel_cases_transforms[] = {
    {CALL(fft_split), .in = "T", .out = "R", .variants = 6, MAGNITUDE(fft_pass)},
    {CALL(fft_join), .in = "T", .out = "R", .variants = 6, MAGNITUDE(fft_pass)},
    {CALL(fft_filter), .in = "RNN", .out = "R", .variants = 4, MAGNITUDE(fft_filter), .in_place = 1},
    {CALL(fft_correlate), .in = "RR", .out = "NN", .variants = 1, MAGNITUDE(fft_correlate)},
    {CALL(turn_rows), .in = "RCC", .out = "R", .variants = 4, MAGNITUDE(turn_rows), .in_place = 1},
    {CALL(walsh), .in = "RN", .out = "R", .variants = 1, MAGNITUDE(walsh), .in_place = 1},
    {CALL(unit_rows), .in = "R", .out = "rn", .variants = 1, SELF, .in_place = 1},
    {CALL(unit_rows_back), .in = "RRN", .out = "R", .variants = 1, SELF},
    {CALL(power_rows), .in = "RC", .out = "r", .variants = 2, SELF, .in_place = 1},
    {CALL(power_rows_back), .in = "RRC", .out = "rCC", .variants = 4, SELF, .in_place = 2},
    {.name = NULL},
};
/* clang-format on */
