/* exact.c: softmax attention, tiled. This file holds the row, the sizes, and rows of the matrix; forward,
 * backward and streaming stand beside it in exact_forward.c, exact_backward.c, exact_stream.c.
 *
 *     y_i = sum_j P_ij v_j,   P_ij = exp(scale q_i.k_j - l_i),   l_i = log sum_j exp(scale q_i.k_j),
 *
 * j over the keys of i's sequence, causal: j <= i. The matrix exists only tile by tile: a running maximum and
 * a running sum per row carry the softmax from one tile of keys to the next (Milakov and Gimelshein 2018,
 * arXiv 1805.02867; Rabe and Staats 2021, arXiv 2112.05682; Dao et al. 2022, arXiv 2205.14135). Scores are
 * kept in base 2, so that exp is exp2: log2(e) is folded into the factor of the product q k^T.
 *
 * Backward, with D_i = dy_i . y_i and P computed again from the saved l:
 *
 *     dv_j += sum_i P_ij dy_i,   dS_ij = P_ij (dy_i.v_j - D_i),
 *     dq_i += scale sum_j dS_ij k_j,   dk_j += scale sum_i dS_ij q_i
 *
 * Position bias kernel adds b_{i-j} to the scores, i and j from the starts of their sequences: weights times
 * exp(b) (Luo et al. 2021, arXiv 2106.12566; b_{i-j} as in Raffel et al. 2020, arXiv 1910.10683). Its gradient is
 * dS summed along the diagonals. One more sum of L^2 entries, twice that backward; scratch 2N-1 floats a head.
 *
 * Cost: 4 L^2 d forward, 8 L^2 d backward (and 2 L^2 d to compute P again); half of it when causal. Saved: l,
 * one float a query and head. Scratch: fixed tiles a worker, one float a query and head in backward.
 *
 * Limits: a non-finite v reaches exactly the rows that see it in forward; in backward non-finite values
 * spread within their sequence.
 */
#include "attention/exact.h"
#include <math.h>

/* The largest tile edge that fv_attention_options.chunk can ask for: beyond it tiles only leave the cache. */
#define MAX_ROWS 1024

/* Query rows of a task of forward, in blocks: many share the dense copy of a tile of keys, a tenth of what one block
 * costs; fewer where threads would be left with nothing, or causal ones with the shorter half. No sum depends on it. */
enum { GROUP_BLOCKS = 8, TASKS_A_THREAD = 4 };

static int64_t group_rows(const fv_attention *op, const fv_layout *layout, int64_t rows)
{
    const int64_t *offsets = layout->offsets_q;
    for (int64_t blocks = GROUP_BLOCKS; blocks > 1; blocks /= 2) {
        int64_t tasks = 0, group = blocks * rows;
        for (int64_t s = 0; s < layout->sequences; s++)
            tasks += (offsets[s + 1] - offsets[s] + group - 1) / group * op->options.heads;
        if (tasks >= (int64_t)op->ctx->threads * TASKS_A_THREAD)
            return group;
    }
    return rows;
}

/* Measured on AVX-512: 128 rows keep the scores of a tile in the second-level cache while the products run at
 * full rate. Rows never exceed the longest sequence; a step takes the query heads of one key head as rows. */
static fv_exact_tiles cut(const fv_attention *op, const fv_layout *layout, int64_t rows, int64_t keys)
{
    int64_t longest = op->options.heads / op->options.kv_heads;
    for (int64_t s = 0; s < layout->sequences; s++)
        longest = FV_MAX(longest, layout->offsets_q[s + 1] - layout->offsets_q[s]);
    if (op->options.chunk > 0) {
        rows = FV_MIN(op->options.chunk, MAX_ROWS);
        keys = 2 * rows;
    }
    rows = FV_MAX(FV_MIN(rows, longest), op->options.heads / op->options.kv_heads);
    return (fv_exact_tiles){rows, FV_MAX(keys, rows), FV_MIN(group_rows(op, layout, rows), longest)};
}

fv_exact_tiles fv_exact_forward_tiles(const fv_attention *op, const fv_layout *layout)
{
    return cut(op, layout, 128, 512);
}

fv_exact_tiles fv_exact_backward_tiles(const fv_attention *op, const fv_layout *layout)
{
    return cut(op, layout, 128, 256);
}

fv_exact_bias fv_exact_bias_push(fv_arena *arena, const fv_attention *op)
{
    const fv_attention_options *o = &op->options;
    if (o->position_bias != FV_POSITION_BIAS_KERNEL)
        return (fv_exact_bias){0};
    float *table = FV_PUSH(arena, float, o->heads *(2 * o->position_span - 1));
    return (fv_exact_bias){table, o->position_span};
}

typedef struct load_call {
    const float *from;
    fv_exact_bias bias;
} load_call;

static void load_task(void *arg, int64_t h, int worker)
{
    const load_call *c = arg;
    int64_t all = 2 * c->bias.span - 1;
    const float *from = c->from + h * all;
    float *to = c->bias.table + h * all;
    (void)worker;
    for (int64_t i = 0; i < all; i++)
        to[i] = (float)((double)from[all - 1 - i] * FV_LOG2E);
}

void fv_exact_bias_load(const fv_attention *op, const fv_attention_io *io, const fv_exact_bias *bias)
{
    load_call call = {io->input[FV_INPUT_POSITION_BIAS], *bias};
    if (bias->table != NULL)
        fv_parallel(op->ctx, op->options.heads, load_task, &call);
}

const float *fv_exact_bias_at(const fv_exact_bias *bias, int64_t h, int64_t i, int64_t j)
{
    return bias->table != NULL ? bias->table + h * (2 * bias->span - 1) + bias->span - 1 - i + j : NULL;
}

void fv_exact_bias_add(const fv_attention *op, const float *bias, int64_t n, int64_t c, float *s)
{
    for (int64_t i = 0; bias != NULL && i < n; i++)
        op->ctx->kernels->add(c, s + i * c, bias - i, s + i * c);
}

static void measure(const fv_attention *op, const fv_layout *layout, fv_memory *need)
{
    int64_t queries = layout->offsets_q[layout->sequences], floats;
    need->saved = fv_mul(queries, op->options.heads, &floats) ? fv_bytes(floats, sizeof(float)) : SIZE_MAX;
    need->scratch = FV_MAX(fv_exact_forward_bytes(op, layout), fv_exact_backward_bytes(op, layout));
}

static double flop(const fv_attention *op, const fv_layout *layout)
{
    const fv_attention_options *o = &op->options;
    const int64_t *offsets_k = fv_layout_keys(layout);
    double pairs = 0;
    for (int64_t s = 0; s < layout->sequences; s++)
        pairs += (double)(layout->offsets_q[s + 1] - layout->offsets_q[s]) *
                 (double)(offsets_k[s + 1] - offsets_k[s]);
    return 2.0 * pairs * (double)(o->dim + o->value_dim) * (double)o->heads * (o->causal ? 0.5 : 1.0);
}

/* ---- rows of the matrix ---------------------------------------------------------------------------- */

typedef struct rows_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    fv_exact_bias bias;
} rows_call;

/* Row `row` of the matrix of head h into w [Tk]. */
static void matrix_row(const void *arg, int64_t h, int64_t row, float *w)
{
    const rows_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    const fv_kernels *kr = c->op->ctx->kernels;
    const int64_t *offsets_k = fv_layout_keys(c->layout);
    int64_t s = fv_offsets_locate(c->layout->offsets_q, c->layout->sequences, row);
    int64_t begin = offsets_k[s], visible = offsets_k[s + 1] - begin;
    if (o->causal)
        visible = FV_MIN(visible, row - c->layout->offsets_q[s] + 1);
    kr->fill(offsets_k[c->layout->sequences], 0.0f, w);
    if (visible == 0)
        return;
    const float *q = c->io.q + row * c->io.q_stride + h * o->dim;
    const float *k = c->io.k + begin * c->io.k_stride + h * o->kv_heads / o->heads * o->dim;
    float top = -INFINITY, sum = 0, factor;
    kr->gemv('N', visible, o->dim, fv_softmax_factor(c->op), k, c->io.k_stride, q, 0.0f, w + begin);
    fv_exact_bias_add(c->op, fv_exact_bias_at(&c->bias, h, row - c->layout->offsets_q[s], 0), 1, visible,
                      w + begin);
    kr->softmax_tile(1, visible, w + begin, visible, NULL, &top, &sum, &factor);
    kr->softmax_end(1, &top, &sum, &sum, NULL);
    kr->scale(visible, sum, w + begin, w + begin);
}

static fv_status weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         const int64_t *rows, int64_t n, int64_t head, float *out, int64_t row_stride,
                         void *scratch)
{
    rows_call call = {.op = op, .layout = layout, .io = fv_softmax_resolve(op, io)};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    TRY(fv_bias_check_span(op, layout));
    call.bias = fv_exact_bias_push(&arena, op);
    fv_exact_bias_load(op, io, &call.bias);
    fv_softmax_rows(op, rows, n, head, out, row_stride, matrix_row, &call);
    return FV_OK;
}

const fv_mechanism fv_mechanism_exact = {
    .kind =
        {
            .name = "exact",
            .summary = "softmax attention, tiled: O(L^2) time, O(L) memory",
            .paper = "Vaswani et al. 2017, arXiv 1706.03762; Dao et al. 2022, arXiv 2205.14135",
            .can_be_causal = 1,
            .can_stream = 1,
        },
    .position_kernel = true,
    .recalls = true,
    .unnormalised = true,
    .measure = measure,
    .forward = fv_exact_forward,
    .backward = fv_exact_backward,
    .weights = weights,
    .flop = flop,
    .state_bytes = fv_kv_cache_bytes,
    .state_init = fv_exact_state_init,
    .state_view = fv_kv_cache_view,
    .state_merge = fv_kv_cache_merge,
    .step = fv_exact_step,
};
