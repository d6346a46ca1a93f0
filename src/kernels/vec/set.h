/* vec/set.h: one instruction set's kernels. The file that includes it has defined FV_ISA and included that
 * set's words. */
#include "kernels/dispatch.h"
#include <math.h>
#include <string.h>

#include "kernels/vec/words.h"

#include "kernels/vec/fold.h"

#include "kernels/vec/math.h"

#include "kernels/vec/rows.h"

#include "kernels/vec/transpose.h"

#include "kernels/vec/factors.h"

#include "kernels/vec/tile.h"

#include "kernels/vec/attention.h"
#include "kernels/vec/channels.h"
#include "kernels/vec/fft.h"
#include "kernels/vec/functions.h"
#include "kernels/vec/gemm.h"
#include "kernels/vec/gemm_bf16.h"
#include "kernels/vec/layers.h"
#include "kernels/vec/products.h"
#include "kernels/vec/random.h"
#include "kernels/vec/walsh.h"

void KERNEL(kernels_fill)(fv_kernels *kernels)
{
    kernels->gemm = KERNEL(gemm);
    kernels->gemm_bf16 = KERNEL(gemm_bf16);
    kernels->gemv = KERNEL(gemv);
    kernels->few_rows = KERNEL(few_rows);
    kernels->few_rows_bf16 = KERNEL(few_rows_bf16);
    kernels->fill = KERNEL(fill);
    kernels->copy_rows = KERNEL(copy_rows);
    kernels->transpose = KERNEL(transpose);
    kernels->scale = KERNEL(scale);
    kernels->axpy = KERNEL(axpy);
    kernels->add = KERNEL(add);
    kernels->mul_add = KERNEL(mul_add);
    kernels->mul = KERNEL(mul);
    kernels->scale_rows = KERNEL(scale_rows);
    kernels->row_dots = KERNEL(row_dots);
    kernels->add_col_sums = KERNEL(add_col_sums);
    kernels->add_col_max = KERNEL(add_col_max);
    kernels->add_outer = KERNEL(add_outer);
    kernels->max_abs = KERNEL(max_abs);
    kernels->within = KERNEL(within);
    kernels->sum_squares = KERNEL(sum_squares);
    kernels->sum = KERNEL(sum);
    kernels->all_finite = KERNEL(all_finite);
    kernels->finite_rows = KERNEL(finite_rows);
    kernels->exp2_rows_top = KERNEL(exp2_rows_top);
    kernels->exp2_rows = KERNEL(exp2_rows);
    kernels->split = KERNEL(split);
    kernels->sincos_rows = KERNEL(sincos_rows);
    kernels->function_rows = KERNEL(function_rows);
    kernels->function_rows_back = KERNEL(function_rows_back);
    kernels->square_rows = KERNEL(square_rows);
    kernels->square_rows_back = KERNEL(square_rows_back);
    kernels->cyclic_rows = KERNEL(cyclic_rows);
    kernels->cyclic_rows_back = KERNEL(cyclic_rows_back);
    kernels->log2_sums = KERNEL(log2_sums);
    kernels->softmax_tile = KERNEL(softmax_tile);
    kernels->softmax_probs = KERNEL(softmax_probs);
    kernels->softmax_back = KERNEL(softmax_back);
    kernels->mask_rows = KERNEL(mask_rows);
    kernels->layernorm = KERNEL(layernorm);
    kernels->layernorm_back = KERNEL(layernorm_back);
    kernels->bias_rows = KERNEL(bias_rows);
    kernels->bias_gelu = KERNEL(bias_gelu);
    kernels->gelu_back = KERNEL(gelu_back);
    kernels->bias_relu = KERNEL(bias_relu);
    kernels->relu_back = KERNEL(relu_back);
    kernels->dropout = KERNEL(dropout);
    kernels->cross_entropy = KERNEL(cross_entropy);
    kernels->gather_rows = KERNEL(gather_rows);
    kernels->scatter_add_rows = KERNEL(scatter_add_rows);
    kernels->adamw = KERNEL(adamw);
    kernels->f32_to_bf16 = KERNEL(f32_to_bf16);
    kernels->bf16_to_f32 = KERNEL(bf16_to_f32);
    kernels->round_bf16 = KERNEL(round_bf16);
    kernels->fft_split = KERNEL(fft_split);
    kernels->fft_join = KERNEL(fft_join);
    kernels->fft_filter = KERNEL(fft_filter);
    kernels->fft_correlate = KERNEL(fft_correlate);
    kernels->turn_rows = KERNEL(turn_rows);
    kernels->walsh = KERNEL(walsh);
}
