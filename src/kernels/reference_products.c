/* reference_products.c: the scalar references of the matrix products. What a kernel must compute, as plainly
 * as it can be said: sums are accumulated in double, so that a vector set is judged against the true value.
 */
#include "kernels/kernels.h"

static float element(char transposed, const float *a, int64_t lda, int64_t row, int64_t column)
{
    return transposed == 'N' ? a[row * lda + column] : a[column * lda + row];
}

/* alpha sum + beta old; beta 0 does not read old, which may hold anything. */
static float combine(float alpha, double sum, float beta, const float *old)
{
    double product = (double)alpha * sum;
    return (float)(beta == 0.0f ? product : product + (double)beta * (double)*old);
}

typedef float rounding(float x);

static float exactly(float x)
{
    return x;
}

static float to_bf16(float x)
{
    uint16_t half;
    fv_f32_to_bf16_reference(1, &x, &half);
    fv_bf16_to_f32_reference(1, &half, &x);
    return x;
}

static void product(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                    int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc,
                    rounding *round)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0.0;
            for (int64_t p = 0; p < k; p++)
                sum += (double)round(element(ta, a, lda, i, p)) * (double)round(element(tb, b, ldb, p, j));
            c[i * ldc + j] = combine(alpha, sum, beta, &c[i * ldc + j]);
        }
    }
}

void fv_gemm_reference(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                       int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    product(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, exactly);
}

void fv_gemm_bf16_reference(char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a,
                            int64_t lda, const float *b, int64_t ldb, float beta, float *c, int64_t ldc)
{
    product(ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, to_bf16);
}

void fv_gemv_reference(char ta, int64_t m, int64_t k, float alpha, const float *a, int64_t lda,
                       const float *x, float beta, float *y)
{
    int64_t rows = ta == 'N' ? m : k;
    int64_t columns = ta == 'N' ? k : m;
    for (int64_t i = 0; i < rows; i++) {
        double sum = 0.0;
        for (int64_t p = 0; p < columns; p++)
            sum += (double)element(ta, a, lda, i, p) * (double)x[p];
        y[i] = combine(alpha, sum, beta, &y[i]);
    }
}

void fv_few_rows_reference(int64_t n, int64_t m, int64_t k, const float *x, int64_t ldx, const float *a,
                           int64_t lda, float beta, float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++)
        fv_gemv_reference('N', m, k, 1.0f, a, lda, x + i * ldx, beta, y + i * ldy);
}

void fv_few_rows_bf16_reference(int64_t n, int64_t m, int64_t k, const float *x, int64_t ldx,
                                const uint16_t *a, int64_t lda, float beta, float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < m; j++) {
            double sum = 0.0;
            for (int64_t p = 0; p < k; p++) {
                float factor;
                fv_bf16_to_f32_reference(1, a + j * lda + p, &factor);
                sum += (double)factor * (double)x[i * ldx + p];
            }
            y[i * ldy + j] = combine(1.0f, sum, beta, &y[i * ldy + j]);
        }
}

void fv_row_dots_reference(int64_t n, int64_t c, float alpha, const float *a, int64_t lda, const float *b,
                           int64_t ldb, float beta, float *out)
{
    for (int64_t i = 0; i < n; i++) {
        double sum = 0.0;
        for (int64_t f = 0; f < c; f++)
            sum += (double)a[i * lda + f] * (double)b[i * ldb + f];
        out[i] = combine(alpha, sum, beta, &out[i]);
    }
}

void fv_add_col_sums_reference(int64_t n, int64_t c, const float *w, const float *a, int64_t lda, float *z)
{
    for (int64_t f = 0; f < c; f++) {
        double sum = (double)z[f];
        for (int64_t i = 0; i < n; i++)
            sum += (w != NULL ? (double)w[i] : 1.0) * (double)a[i * lda + f];
        z[f] = (float)sum;
    }
}

void fv_add_col_max_reference(int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, float *z)
{
    for (int64_t i = 0; i < n; i++) {
        for (int64_t f = 0; f < c; f++) {
            float value = x[i * ldx + f] + (w != NULL ? w[i] : 0.0f);
            z[f] = value > z[f] ? value : z[f];
        }
    }
}

void fv_add_outer_reference(int64_t n, int64_t c, const float *w, const float *x, float *y, int64_t ldy)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++)
            y[i * ldy + f] += (w != NULL ? w[i] : 1.0f) * x[f];
}
