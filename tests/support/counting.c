/* support/counting.c: wraps every row of the kernel table: counts, then calls the table below. */
#include "support/counting.h"
#include <stdatomic.h>

static fv_kernels below;
static _Atomic int64_t counted;

/* log2 n of a power of two */
static int64_t levels(int64_t n)
{
    return n > 1 ? 1 + levels(n / 2) : 0;
}

/* A row that is missing here is copied uncounted; test_kernels_laws notices. */
#define COUNTED(ret, name, args, call, work)                                                                 \
    static ret counted_##name args                                                                           \
    {                                                                                                        \
        atomic_fetch_add(&counted, (int64_t)(work));                                                         \
        return below.name call;                                                                              \
    }

COUNTED(void, gemm,
        (char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
         const float *b, int64_t ldb, float beta, float *c, int64_t ldc),
        (ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc), 2 * m * n * k)
COUNTED(void, gemm_bf16,
        (char ta, char tb, int64_t m, int64_t n, int64_t k, float alpha, const float *a, int64_t lda,
         const float *b, int64_t ldb, float beta, float *c, int64_t ldc),
        (ta, tb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc), 2 * m * n * k)
COUNTED(void, gemv,
        (char ta, int64_t m, int64_t k, float alpha, const float *a, int64_t lda, const float *x, float beta,
         float *y),
        (ta, m, k, alpha, a, lda, x, beta, y), 2 * m * k)
COUNTED(void, few_rows,
        (int64_t n, int64_t m, int64_t k, const float *x, int64_t ldx, const float *a, int64_t lda,
         float beta, float *y, int64_t ldy),
        (n, m, k, x, ldx, a, lda, beta, y, ldy), 2 * n * m * k)
COUNTED(void, few_rows_bf16,
        (int64_t n, int64_t m, int64_t k, const float *x, int64_t ldx, const uint16_t *a, int64_t lda,
         float beta, float *y, int64_t ldy),
        (n, m, k, x, ldx, a, lda, beta, y, ldy), 2 * n * m * k)
COUNTED(void, fill, (int64_t n, float value, float *y), (n, value, y), n)
COUNTED(void, copy_rows, (int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy),
        (n, c, x, ldx, y, ldy), n *c)
COUNTED(void, prefetch_rows, (int64_t n, int64_t c, const float *x, int64_t ldx), (n, c, x, ldx), n)
COUNTED(void, transpose, (int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy),
        (n, c, x, ldx, y, ldy), n *c)
COUNTED(void, scale, (int64_t n, float alpha, const float *x, float *y), (n, alpha, x, y), n)
COUNTED(void, axpy, (int64_t n, float alpha, const float *x, float *y), (n, alpha, x, y), n)
COUNTED(void, add, (int64_t n, const float *a, const float *b, float *y), (n, a, b, y), n)
COUNTED(void, mul_add, (int64_t n, const float *a, const float *b, float *y), (n, a, b, y), n)
COUNTED(void, mul, (int64_t n, const float *a, const float *b, float *y), (n, a, b, y), n)
COUNTED(void, scale_rows,
        (int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, int add, float *y, int64_t ldy),
        (n, c, w, x, ldx, add, y, ldy), n *c)
COUNTED(void, row_dots,
        (int64_t n, int64_t c, float alpha, const float *a, int64_t lda, const float *b, int64_t ldb,
         float beta, float *out),
        (n, c, alpha, a, lda, b, ldb, beta, out), n *c)
COUNTED(void, add_col_sums, (int64_t n, int64_t c, const float *w, const float *a, int64_t lda, float *z),
        (n, c, w, a, lda, z), n *c)
COUNTED(void, add_col_max, (int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, float *z),
        (n, c, w, x, ldx, z), n *c)
COUNTED(void, add_outer, (int64_t n, int64_t c, const float *w, const float *x, float *y, int64_t ldy),
        (n, c, w, x, y, ldy), n *c)
COUNTED(float, max_abs, (int64_t n, const float *x), (n, x), n)
COUNTED(int, within, (int64_t n, float low, float high, const float *x), (n, low, high, x), n)
COUNTED(double, sum_squares, (int64_t n, const float *x), (n, x), n)
COUNTED(double, sum, (int64_t n, const float *x), (n, x), n)
COUNTED(int, all_finite, (int64_t n, int64_t c, const float *x, int64_t ldx), (n, c, x, ldx), n *c)
COUNTED(int, finite_rows, (int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy),
        (n, c, x, ldx, y, ldy), n *c)
COUNTED(void, exp2_rows_top, (int64_t n, int64_t c, float *x, int64_t ldx, const float *shift, float *top),
        (n, c, x, ldx, shift, top), n *c)
COUNTED(float, exp2_rows,
        (int64_t n, int64_t c, float *x, int64_t ldx, const float *bias, const float *shift),
        (n, c, x, ldx, bias, shift), n *c)
COUNTED(void, split, (int64_t n, float zero, float *x, float *m, float *inverse), (n, zero, x, m, inverse), n)
COUNTED(void, sincos_rows,
        (int64_t n, int64_t c, const float *x, int64_t ldx, float *s, float *y, int64_t ldy),
        (n, c, x, ldx, s, y, ldy), 2 * n * c)
COUNTED(void, function_rows,
        (int function, int64_t n, int64_t c, float eps, const float *x, int64_t ldx, float *y, int64_t ldy),
        (function, n, c, eps, x, ldx, y, ldy), n *c)
COUNTED(void, function_rows_back,
        (int function, int64_t n, int64_t c, float eps, const float *x, int64_t ldx, const float *dy,
         int64_t lddy, float *dx, int64_t lddx),
        (function, n, c, eps, x, ldx, dy, lddy, dx, lddx), n *c)
COUNTED(void, square_rows,
        (int64_t n, int64_t c, float factor, const float *x, int64_t ldx, float *y, int64_t ldy),
        (n, c, factor, x, ldx, y, ldy), n *c *(c + 1) / 2)
COUNTED(void, square_rows_back,
        (int64_t n, int64_t c, float factor, const float *x, int64_t ldx, const float *dy, int64_t lddy,
         float *dx, int64_t lddx),
        (n, c, factor, x, ldx, dy, lddy, dx, lddx), n *c *(c + 1))
COUNTED(void, cyclic_rows, (int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy),
        (n, c, x, ldx, y, ldy), n *c)
COUNTED(void, cyclic_rows_back,
        (int64_t n, int64_t c, const float *x, int64_t ldx, const float *dy, int64_t lddy, float *dx,
         int64_t lddx),
        (n, c, x, ldx, dy, lddy, dx, lddx), 2 * n * c)
COUNTED(void, log2_sums, (int64_t n, int64_t c, const float *x, int64_t ldx, float *out), (n, c, x, ldx, out),
        n *c)
COUNTED(void, softmax_tile,
        (int64_t n, int64_t c, float *s, int64_t lds, const int64_t *visible, float *top, float *sum,
         float *factor),
        (n, c, s, lds, visible, top, sum, factor), n *c)
COUNTED(void, softmax_end, (int64_t n, const float *top, const float *sum, float *weight, float *lse),
        (n, top, sum, weight, lse), n)
COUNTED(void, softmax_probs,
        (int64_t n, int64_t c, float *s, int64_t lds, const int64_t *visible, const float *lse),
        (n, c, s, lds, visible, lse), n *c)
COUNTED(void, softmax_back,
        (int64_t n, int64_t c, const float *p, int64_t ldp, const float *dp, int64_t lddp, const float *delta,
         float *ds, int64_t ldds),
        (n, c, p, ldp, dp, lddp, delta, ds, ldds), n *c)
COUNTED(void, straddle_dots,
        (int64_t n, int64_t c, const float *a, int64_t lda, const float *b, int64_t ldb, float *out),
        (n, c, a, lda, b, ldb, out), n *c)
COUNTED(void, mask_rows, (int64_t n, int64_t c, const int64_t *visible, float *x, int64_t ldx),
        (n, c, visible, x, ldx), n *c)
COUNTED(void, layernorm,
        (int64_t n, int64_t c, float eps, const float *x, const float *gain, const float *bias, float *y,
         float *stats),
        (n, c, eps, x, gain, bias, y, stats), n *c)
COUNTED(void, layernorm_back,
        (int64_t n, int64_t c, const float *x, const float *gain, const float *stats, const float *dy,
         float *dx, float *dgain, float *dbias),
        (n, c, x, gain, stats, dy, dx, dgain, dbias), n *c)
COUNTED(void, bias_rows, (int64_t n, int64_t c, const float *x, const float *bias, float *y),
        (n, c, x, bias, y), n *c)
COUNTED(void, bias_gelu, (int64_t n, int64_t c, const float *x, const float *bias, float *pre, float *y),
        (n, c, x, bias, pre, y), n *c)
COUNTED(void, gelu_back, (int64_t n, const float *pre, const float *dy, float *dx), (n, pre, dy, dx), n)
COUNTED(void, bias_relu, (int64_t n, int64_t c, const float *x, const float *bias, float *pre, float *y),
        (n, c, x, bias, pre, y), n *c)
COUNTED(void, relu_back, (int64_t n, const float *pre, const float *dy, float *dx), (n, pre, dy, dx), n)
COUNTED(void, dropout,
        (int64_t n, float rate, const uint32_t key[2], const uint32_t high[2], uint64_t first, const float *x,
         int add, float *y),
        (n, rate, key, high, first, x, add, y), n)
COUNTED(void, cross_entropy,
        (int64_t n, int64_t c, const float *logits, const int32_t *target, float weight, float *loss,
         int32_t *best, float *dlogits),
        (n, c, logits, target, weight, loss, best, dlogits), n *c)
COUNTED(void, gather_rows, (int64_t n, int64_t c, const int32_t *ids, const float *table, float *y),
        (n, c, ids, table, y), n *c)
COUNTED(void, scatter_add_rows,
        (int64_t n, int64_t c, const int32_t *ids, const float *dy, float *table_grad),
        (n, c, ids, dy, table_grad), n *c)
COUNTED(void, adamw,
        (int64_t n, float lr, float beta1, float beta2, float eps, float decay, float clip, float c1,
         float c2, const float *grad, float *p, float *m, float *v),
        (n, lr, beta1, beta2, eps, decay, clip, c1, c2, grad, p, m, v), n)
COUNTED(void, f32_to_bf16, (int64_t n, const float *x, uint16_t *y), (n, x, y), n)
COUNTED(void, bf16_to_f32, (int64_t n, const uint16_t *x, float *y), (n, x, y), n)
COUNTED(void, round_bf16, (int64_t n, const float *x, uint16_t *half, float *y), (n, x, half, y), n)
/* A pass costs 8.5 flop a complex number in radix 4, 5 log2(radix) in the others, or less. */
COUNTED(void, fft_split,
        (int64_t blocks, int64_t n, int radix, int64_t c, const float *twiddle, float *x, int64_t ldx),
        (blocks, n, radix, c, twiddle, x, ldx), (radix > 2 ? 8 : 5) * blocks * n * c)
COUNTED(void, fft_join,
        (int64_t blocks, int64_t n, int radix, int64_t c, const float *twiddle, float *x, int64_t ldx),
        (blocks, n, radix, c, twiddle, x, ldx), (radix > 2 ? 8 : 5) * blocks * n * c)
COUNTED(void, fft_filter,
        (int64_t n, int64_t c, const float *re, const float *im, int conjugate, const float *x, int64_t ldx,
         int add, float *y, int64_t ldy),
        (n, c, re, im, conjugate, x, ldx, add, y, ldy), 8 * n * c)
COUNTED(void, fft_correlate,
        (int64_t n, int64_t c, const float *a, int64_t lda, const float *b, int64_t ldb, float *re,
         float *im),
        (n, c, a, lda, b, ldb, re, im), 8 * n * c)
COUNTED(void, turn_rows,
        (int64_t n, int64_t c, const float *re, const float *im, int conjugate, const float *x, int64_t ldx,
         int add, float *y, int64_t ldy),
        (n, c, re, im, conjugate, x, ldx, add, y, ldy), 8 * n * c)
COUNTED(void, walsh,
        (int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, float *y, int64_t ldy),
        (n, c, w, x, ldx, y, ldy), n *c *(1 + levels(n)))
COUNTED(void, unit_rows,
        (int64_t n, int64_t c, const float *x, int64_t ldx, float *y, int64_t ldy, float *inv),
        (n, c, x, ldx, y, ldy, inv), n *c)
COUNTED(void, unit_rows_back,
        (int64_t n, int64_t c, const float *y, int64_t ldy, const float *inv, const float *dy, int64_t lddy,
         float *dx, int64_t lddx),
        (n, c, y, ldy, inv, dy, lddy, dx, lddx), n *c)
COUNTED(void, power_rows,
        (int64_t n, int64_t c, float gain, const float *power, const float *x, int64_t ldx, float *y,
         int64_t ldy),
        (n, c, gain, power, x, ldx, y, ldy), n *c)
COUNTED(void, power_rows_back,
        (int64_t n, int64_t c, float gain, const float *power, const float *x, int64_t ldx, const float *dy,
         int64_t lddy, float *dx, int64_t lddx, float *dgain, float *dpower),
        (n, c, gain, power, x, ldx, dy, lddy, dx, lddx, dgain, dpower), n *c)

void counting_table(fv_kernels *out, const fv_kernels *base)
{
    below = *base;
    *out = *base;
    out->gemm = counted_gemm;
    out->gemm_bf16 = counted_gemm_bf16;
    out->gemv = counted_gemv;
    out->few_rows = counted_few_rows;
    out->few_rows_bf16 = counted_few_rows_bf16;
    out->fill = counted_fill;
    out->copy_rows = counted_copy_rows;
    out->prefetch_rows = counted_prefetch_rows;
    out->transpose = counted_transpose;
    out->scale = counted_scale;
    out->axpy = counted_axpy;
    out->add = counted_add;
    out->mul_add = counted_mul_add;
    out->mul = counted_mul;
    out->scale_rows = counted_scale_rows;
    out->row_dots = counted_row_dots;
    out->add_col_sums = counted_add_col_sums;
    out->add_col_max = counted_add_col_max;
    out->add_outer = counted_add_outer;
    out->max_abs = counted_max_abs;
    out->sum_squares = counted_sum_squares;
    out->sum = counted_sum;
    out->all_finite = counted_all_finite;
    out->finite_rows = counted_finite_rows;
    out->exp2_rows_top = counted_exp2_rows_top;
    out->split = counted_split;
    out->within = counted_within;
    out->exp2_rows = counted_exp2_rows;
    out->sincos_rows = counted_sincos_rows;
    out->function_rows = counted_function_rows;
    out->function_rows_back = counted_function_rows_back;
    out->square_rows = counted_square_rows;
    out->square_rows_back = counted_square_rows_back;
    out->cyclic_rows = counted_cyclic_rows;
    out->cyclic_rows_back = counted_cyclic_rows_back;
    out->log2_sums = counted_log2_sums;
    out->softmax_tile = counted_softmax_tile;
    out->softmax_end = counted_softmax_end;
    out->softmax_probs = counted_softmax_probs;
    out->softmax_back = counted_softmax_back;
    out->straddle_dots = counted_straddle_dots;
    out->mask_rows = counted_mask_rows;
    out->layernorm = counted_layernorm;
    out->layernorm_back = counted_layernorm_back;
    out->bias_rows = counted_bias_rows;
    out->bias_gelu = counted_bias_gelu;
    out->gelu_back = counted_gelu_back;
    out->bias_relu = counted_bias_relu;
    out->relu_back = counted_relu_back;
    out->dropout = counted_dropout;
    out->cross_entropy = counted_cross_entropy;
    out->gather_rows = counted_gather_rows;
    out->scatter_add_rows = counted_scatter_add_rows;
    out->adamw = counted_adamw;
    out->f32_to_bf16 = counted_f32_to_bf16;
    out->bf16_to_f32 = counted_bf16_to_f32;
    out->round_bf16 = counted_round_bf16;
    out->fft_split = counted_fft_split;
    out->fft_join = counted_fft_join;
    out->fft_filter = counted_fft_filter;
    out->fft_correlate = counted_fft_correlate;
    out->turn_rows = counted_turn_rows;
    out->walsh = counted_walsh;
    out->unit_rows = counted_unit_rows;
    out->unit_rows_back = counted_unit_rows_back;
    out->power_rows = counted_power_rows;
    out->power_rows_back = counted_power_rows_back;
}

double counting_work(void)
{
    return (double)atomic_load(&counted);
}

void counting_reset(void)
{
    atomic_store(&counted, 0);
}
