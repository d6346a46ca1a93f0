/* reference_attention.c: the scalar references of exponential features and of exact attention's softmax.
 *
 * The largest entry of a row is found by comparison: a NaN is never the largest, but stays where it is. */
#include "kernels/kernels.h"
#include <math.h>

/* 2^x, rounded once; nothing below the normal numbers. */
static float exp2_of(float x)
{
    return x < -126.0f ? 0.0f : (float)exp2((double)x);
}

static float largest(int64_t c, const float *x, float top)
{
    for (int64_t f = 0; f < c; f++)
        if (x[f] > top)
            top = x[f];
    return top;
}

/* How many of c columns a row sees. */
static int64_t seen(const int64_t *visible, int64_t i, int64_t c)
{
    return visible == NULL ? c : FV_MAX(FV_MIN(visible[i], c), 0);
}

void fv_exp2_rows_top_reference(int64_t n, int64_t c, float *x, int64_t ldx, const float *shift, float *top)
{
    for (int64_t i = 0; i < n; i++) {
        float *row = x + i * ldx;
        if (shift != NULL)
            for (int64_t f = 0; f < c; f++)
                row[f] += shift[f];
        top[i] = largest(c, row, -INFINITY);
        float base = top[i] == -INFINITY ? 0.0f : top[i];
        for (int64_t f = 0; f < c; f++)
            row[f] = exp2_of(row[f] - base);
    }
}

float fv_exp2_rows_reference(int64_t n, int64_t c, float *x, int64_t ldx, const float *bias,
                             const float *shift)
{
    float top = -INFINITY;
    for (int64_t i = 0; i < n; i++) {
        float *row = x + i * ldx;
        for (int64_t f = 0; f < c; f++)
            row[f] = row[f] + bias[i] - shift[f];
        top = largest(c, row, top);
        for (int64_t f = 0; f < c; f++)
            row[f] = exp2_of(row[f]);
    }
    return top;
}

void fv_split_reference(int64_t n, float zero, float *x, float *m, float *inverse)
{
    for (int64_t i = 0; i < n; i++) {
        float value = x[i], e = zero;
        if (value != 0.0f)
            e = isfinite(value) ? FV_MAX(FV_MIN(logbf(value), 126.0f), -126.0f) : 126.0f;
        float power = e == -INFINITY ? 0.0f : ldexpf(1.0f, (int)-e);
        x[i] = e;
        if (m != NULL)
            m[i] = value * power;
        if (inverse != NULL)
            inverse[i] = power;
    }
}

void fv_sincos_rows_reference(int64_t n, int64_t c, const float *x, int64_t ldx, float *s, float *y,
                              int64_t ldy)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t f = 0; f < c; f++) {
            double angle = (double)x[i * ldx + f];
            s[i * ldy + f] = (float)sin(angle);
            y[i * ldy + f] = (float)cos(angle);
        }
    }
}

void fv_softmax_tile_reference(int64_t n, int64_t c, float *s, int64_t lds, const int64_t *visible,
                               float *top, float *sum, float *factor)
{
    for (int64_t i = 0; i < n; i++) {
        float *row = s + i * lds;
        int64_t count = seen(visible, i, c);
        float old = top[i];
        top[i] = largest(count, row, old);
        /* Scores of -inf alone must give 0, not the NaN of -inf - -inf. */
        float base = top[i] == -INFINITY ? 0.0f : top[i];
        double total = 0.0;
        for (int64_t j = 0; j < c; j++) {
            row[j] = j < count ? exp2_of(row[j] - base) : 0.0f;
            total += (double)row[j];
        }
        factor[i] = old == -INFINITY ? 1.0f : exp2_of(old - top[i]);
        sum[i] = (float)((double)sum[i] * (double)factor[i] + total);
    }
}

void fv_softmax_end_reference(int64_t n, const float *top, const float *sum, float *weight, float *lse)
{
    for (int64_t i = 0; i < n; i++) {
        float total = sum[i];
        if (lse != NULL)
            lse[i] = total == 0.0f ? -INFINITY : (float)((double)top[i] + log2((double)total));
        weight[i] = total == 0.0f ? 0.0f : 1.0f / total;
    }
}

void fv_softmax_probs_reference(int64_t n, int64_t c, float *s, int64_t lds, const int64_t *visible,
                                const float *lse)
{
    for (int64_t i = 0; i < n; i++) {
        float *row = s + i * lds;
        int64_t count = lse[i] == -INFINITY ? 0 : seen(visible, i, c);
        for (int64_t j = 0; j < c; j++)
            row[j] = j < count ? exp2_of(row[j] > lse[i] ? 0.0f : row[j] - lse[i]) : 0.0f;
    }
}

void fv_softmax_back_reference(int64_t n, int64_t c, const float *p, int64_t ldp, const float *dp,
                               int64_t lddp, const float *delta, float *ds, int64_t ldds)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < c; j++)
            ds[i * ldds + j] = p[i * ldp + j] * (dp[i * lddp + j] - delta[i]);
}

/* Row t adds its sums over the first s columns to every s <= t. */
void fv_straddle_dots_reference(int64_t n, int64_t c, const float *a, int64_t lda, const float *b,
                                int64_t ldb, float *out)
{
    for (int64_t s = 0; s < c; s++)
        out[s] = 0.0f;
    for (int64_t t = 0; t < n; t++) {
        double sum = 0.0;
        for (int64_t s = 1; s <= t && s < c; s++) {
            sum += (double)a[t * lda + s - 1] * (double)b[t * ldb + s - 1];
            out[s] = (float)((double)out[s] + sum);
        }
    }
}
