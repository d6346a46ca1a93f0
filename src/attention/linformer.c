/* linformer.c: Linformer (Wang et al. 2020, arXiv 2006.04768): keys and values are mixed along the sequence to
 * `projected` rows before softmax attention:
 *
 *     y = P F v,   P = softmax(scale q (E k)^T),   E, F [H][K][N], inputs, learned
 *
 * A sequence of n < N tokens uses the first n columns of E and F; equal tensors for all heads, or for E and F,
 * are the paper's sharing modes. Backward, with D_i = dy_i.y_i and k' = E k, v' = F v:
 *
 *     dv' = P^T dy,  dS_ij = P_ij (dy_i.v'_j - D_i),  dq = scale dS k',  dk' = scale dS^T q,
 *     dk += E^T dk',  dE += dk' k^T,  dv += F^T dv',  dF += dv' v^T
 *
 * Cost: 4 (Lq + Lk) K d FLOP a head, linear in the length. Saved: the log-sum-exp, one float a query and head; k'
 * and v' are made again. Tasks: (sequence, head) forward, key head backward, so that dE, dF, dk and dv are summed
 * in a fixed order.
 *
 * Limits: not causal, since a projected key holds all tokens; N is fixed; a non-finite token reaches its whole
 * sequence.
 */
#include "attention/softmax.h"
#include <math.h>

enum { DEFAULT_PROJECTED = 256, MOST_ROWS = 128 };

/* Floats of one of the matrices: no product of sizes overflows below. */
#define MOST_FLOATS ((int64_t)1 << 46)

static fv_status check(fv_attention *op)
{
    fv_attention_options *o = &op->options;
    int64_t floats;
    if (o->projected == 0)
        o->projected = DEFAULT_PROJECTED;
    if (o->max_tokens == 0)
        return fv_fail(
            op->ctx, FV_ERR_USAGE,
            "attention linformer: max_tokens is missing: the columns of linformer_e and linformer_f");
    if (!fv_mul(o->projected * o->heads, o->max_tokens, &floats) || floats > MOST_FLOATS)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention linformer: projected %lld by max_tokens %lld is too large for a tensor",
                       (long long)o->projected, (long long)o->max_tokens);
    return FV_OK;
}

static fv_status check_lengths(const fv_attention *op, const fv_layout *layout)
{
    const int64_t *offsets = fv_layout_keys(layout);
    for (int64_t s = 0; s < layout->sequences; s++)
        if (offsets[s + 1] - offsets[s] > op->options.max_tokens)
            return fv_fail(
                op->ctx, FV_ERR_FILE,
                "linformer_e has %lld columns, and sequence %lld has %lld keys; expected at least as "
                "many columns",
                (long long)op->options.max_tokens, (long long)s, (long long)(offsets[s + 1] - offsets[s]));
    return FV_OK;
}

/* ---- memory -------------------------------------------------------------------------------------------- */

typedef struct call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    const fv_attention_grad *grad;
    float *lse; /* [H][Tq] or NULL */
    int64_t rows;
    char *workers;
    size_t worker_bytes;
} call;

typedef struct work {
    float *k, *v, *dk, *dv;                  /* [K][d], [K][dv]: projected keys and values, their gradients */
    float *p, *ds;                           /* [rows][K] */
    float *o;                                /* [rows][dv] */
    float *top, *sum, *factor, *lse, *delta; /* [rows] */
} work;

static work push_work(fv_arena *arena, const fv_attention *op, int64_t rows)
{
    int64_t K = op->options.projected, d = op->options.dim, dv = op->options.value_dim;
    work w;
    w.k = FV_PUSH(arena, float, K *d);
    w.v = FV_PUSH(arena, float, K *dv);
    w.dk = FV_PUSH(arena, float, K *d);
    w.dv = FV_PUSH(arena, float, K *dv);
    w.p = FV_PUSH(arena, float, rows *K);
    w.ds = FV_PUSH(arena, float, rows *K);
    w.o = FV_PUSH(arena, float, rows *dv);
    w.top = FV_PUSH(arena, float, rows);
    w.sum = FV_PUSH(arena, float, rows);
    w.factor = FV_PUSH(arena, float, rows);
    w.lse = FV_PUSH(arena, float, rows);
    w.delta = FV_PUSH(arena, float, rows);
    return w;
}

static void lay_out(fv_arena *arena, call *c)
{
    fv_arena worker = fv_arena_measure();
    c->rows = c->op->options.chunk > 0 ? FV_MIN(c->op->options.chunk, MOST_ROWS) : MOST_ROWS;
    push_work(&worker, c->op, c->rows);
    c->worker_bytes = worker.used;
    c->workers = fv_arena_push(arena, c->op->ctx->threads, c->worker_bytes);
}

static work work_of(const call *c, int worker)
{
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    return push_work(&arena, c->op, c->rows);
}

static void measure(const fv_attention *op, const fv_layout *layout, fv_memory *need)
{
    fv_arena arena = fv_arena_measure();
    call c = {.op = op, .layout = layout};
    int64_t queries = layout->offsets_q[layout->sequences], floats;
    lay_out(&arena, &c);
    need->scratch = arena.used;
    need->saved = fv_mul(queries, op->options.heads, &floats) ? fv_bytes(floats, sizeof(float)) : SIZE_MAX;
}

/* ---- one head of one sequence -------------------------------------------------------------------------- */

typedef struct head_view {
    const float *q, *k, *v, *y, *e, *f; /* first token; e, f [K][N] */
    float *out, *lse;
    int64_t queries, keys;
} head_view;

static head_view view_head(const call *c, int64_t s, int64_t h)
{
    const fv_attention_options *o = &c->op->options;
    const int64_t *offsets_q = c->layout->offsets_q, *offsets_k = fv_layout_keys(c->layout);
    int64_t g = h * o->kv_heads / o->heads, matrix = h * o->projected * o->max_tokens;
    int64_t y_at = offsets_q[s] * c->io.y_stride + h * o->value_dim;
    return (head_view){
        .q = c->io.q + offsets_q[s] * c->io.q_stride + h * o->dim,
        .k = c->io.k + offsets_k[s] * c->io.k_stride + g * o->dim,
        .v = c->io.v + offsets_k[s] * c->io.v_stride + g * o->value_dim,
        .y = c->io.y + y_at,
        .out = c->io.y + y_at,
        .e = c->io.input[FV_INPUT_LINFORMER_E] + matrix,
        .f = c->io.input[FV_INPUT_LINFORMER_F] + matrix,
        .lse = c->lse != NULL ? c->lse + h * offsets_q[c->layout->sequences] + offsets_q[s] : NULL,
        .queries = offsets_q[s + 1] - offsets_q[s],
        .keys = offsets_k[s + 1] - offsets_k[s],
    };
}

/* k' = E k, v' = F v; all zero where a sequence has no keys, so that y is 0. */
static void project(const call *c, const head_view *x, const work *w)
{
    const fv_attention_options *o = &c->op->options;
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t K = o->projected, d = o->dim, dv = o->value_dim, N = o->max_tokens;
    kr->gemm('N', 'N', K, d, x->keys, 1.0f, x->e, N, x->k, c->io.k_stride, 0.0f, w->k, d);
    kr->gemm('N', 'N', K, dv, x->keys, 1.0f, x->f, N, x->v, c->io.v_stride, 0.0f, w->v, dv);
}

/* p [n][K]: scores of queries i .. in base 2 */
static void score(const call *c, const head_view *x, int64_t i, int64_t n, const work *w)
{
    const fv_attention_options *o = &c->op->options;
    c->op->ctx->kernels->gemm('N', 'T', n, o->projected, o->dim, fv_softmax_factor(c->op),
                              x->q + i * c->io.q_stride, c->io.q_stride, w->k, o->dim, 0.0f, w->p,
                              o->projected);
}

static void forward_task(void *arg, int64_t index, int worker)
{
    const call *c = arg;
    const fv_attention_options *o = &c->op->options;
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t K = o->projected, dv = o->value_dim;
    head_view x = view_head(c, index / o->heads, index % o->heads);
    work w = work_of(c, worker);
    if (x.queries > 0)
        project(c, &x, &w);
    for (int64_t i = 0; i < x.queries; i += c->rows) {
        int64_t n = FV_MIN(c->rows, x.queries - i);
        score(c, &x, i, n, &w);
        kr->fill(n, -INFINITY, w.top);
        kr->fill(n, 0.0f, w.sum);
        kr->softmax_tile(n, K, w.p, K, NULL, w.top, w.sum, w.factor);
        kr->softmax_end(n, w.top, w.sum, w.sum, x.lse != NULL ? x.lse + i : NULL);
        kr->gemm('N', 'N', n, dv, K, 1.0f, w.p, K, w.v, dv, 0.0f, w.o, dv);
        kr->scale_rows(n, dv, w.sum, w.o, dv, 0, x.out + i * c->io.y_stride, c->io.y_stride);
    }
}

static fv_status forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         void *saved, void *scratch)
{
    TRY(check_lengths(op, layout));
    call c = {.op = op, .layout = layout, .io = fv_softmax_resolve(op, io), .lse = saved};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    lay_out(&arena, &c);
    fv_parallel(op->ctx, layout->sequences * op->options.heads, forward_task, &c);
    return FV_OK;
}

/* ---- backward ------------------------------------------------------------------------------------------ */

/* Queries i ..: their dq, and what they add to dk' and dv'. */
static void backward_rows(const call *c, const head_view *x, int64_t s, int64_t h, int64_t i, int64_t n,
                          const work *w)
{
    const fv_attention_options *o = &c->op->options;
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t K = o->projected, d = o->dim, dv = o->value_dim, ldq = c->io.q_stride, ldy = c->io.y_stride;
    int64_t row = c->layout->offsets_q[s] + i;
    const float *q = x->q + i * ldq, *dy = c->grad->dy + row * ldy + h * dv;
    float scale = (float)o->scale;
    score(c, x, i, n, w);
    kr->softmax_probs(n, K, w->p, K, NULL, x->lse + i);
    /* dv' = P^T dy, dS_ij = P_ij (dy_i.v'_j - D_i) */
    kr->gemm('T', 'N', K, dv, n, 1.0f, w->p, K, dy, ldy, 1.0f, w->dv, dv);
    kr->row_dots(n, dv, 1.0f, dy, ldy, x->y + i * ldy, ldy, 0.0f, w->delta);
    kr->gemm('N', 'T', n, K, dv, 1.0f, dy, ldy, w->v, dv, 0.0f, w->ds, K);
    kr->softmax_back(n, K, w->p, K, w->ds, K, w->delta, w->ds, K);
    /* dq = scale dS k', dk' = scale dS^T q */
    if (c->grad->dq != NULL)
        kr->gemm('N', 'N', n, d, K, scale, w->ds, K, w->k, d, 1.0f, c->grad->dq + row * ldq + h * d, ldq);
    kr->gemm('T', 'N', K, d, n, scale, w->ds, K, q, ldq, 1.0f, w->dk, d);
}

/* dk += E^T dk', dE += dk' k^T; values alike. x, dx: the head's rows of k or v. */
static void unproject(const call *c, int64_t keys, int64_t width, const float *matrix, const float *dp,
                      const float *x, int64_t ld, float *dx, float *d_matrix)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t K = c->op->options.projected, N = c->op->options.max_tokens;
    if (keys == 0)
        return;
    if (dx != NULL)
        kr->gemm('T', 'N', keys, width, K, 1.0f, matrix, N, dp, width, 1.0f, dx, ld);
    if (d_matrix != NULL)
        kr->gemm('N', 'T', K, keys, width, 1.0f, dp, width, x, ld, 1.0f, d_matrix, N);
}

static float *shift(float *x, int64_t floats)
{
    return x != NULL ? x + floats : NULL;
}

static void backward_head(const call *c, int64_t s, int64_t h, const work *w)
{
    const fv_attention_options *o = &c->op->options;
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t g = h * o->kv_heads / o->heads, matrix = h * o->projected * o->max_tokens;
    int64_t begin = fv_layout_keys(c->layout)[s], ldk = c->io.k_stride, ldv = c->io.v_stride;
    head_view x = view_head(c, s, h);
    if (x.queries == 0)
        return;
    project(c, &x, w);
    kr->fill(o->projected * o->dim, 0.0f, w->dk);
    kr->fill(o->projected * o->value_dim, 0.0f, w->dv);
    for (int64_t i = 0; i < x.queries; i += c->rows)
        backward_rows(c, &x, s, h, i, FV_MIN(c->rows, x.queries - i), w);
    unproject(c, x.keys, o->dim, x.e, w->dk, x.k, ldk, shift(c->grad->dk, begin * ldk + g * o->dim),
              shift(c->grad->d_input[FV_INPUT_LINFORMER_E], matrix));
    unproject(c, x.keys, o->value_dim, x.f, w->dv, x.v, ldv,
              shift(c->grad->dv, begin * ldv + g * o->value_dim),
              shift(c->grad->d_input[FV_INPUT_LINFORMER_F], matrix));
}

/* One key head: sequences in order, and in each the query heads that read it. */
static void backward_task(void *arg, int64_t g, int worker)
{
    const call *c = arg;
    int64_t group = c->op->options.heads / c->op->options.kv_heads;
    work w = work_of(c, worker);
    for (int64_t n = 0; n < c->layout->sequences * group; n++)
        backward_head(c, n / group, g * group + n % group, &w);
}

static fv_status backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                          const fv_attention_grad *grad, const void *saved, void *scratch)
{
    TRY(check_lengths(op, layout));
    call c = {.op = op,
              .layout = layout,
              .io = fv_softmax_resolve(op, io),
              .grad = grad,
              .lse = (float *)(uintptr_t)saved}; /* only read */
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    lay_out(&arena, &c);
    fv_parallel(op->ctx, op->options.kv_heads, backward_task, &c);
    return FV_OK;
}

/* ---- the row ------------------------------------------------------------------------------------------- */

static fv_status weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         const int64_t *rows, int64_t n, int64_t head, float *out, int64_t row_stride,
                         void *scratch)
{
    (void)layout, (void)io, (void)rows, (void)n, (void)head, (void)out, (void)row_stride, (void)scratch;
    return fv_fail(
        op->ctx, FV_ERR_USAGE,
        "attention linformer has no matrix of queries by keys: it weighs projected keys, each a mix of "
        "all tokens");
}

static double flop(const fv_attention *op, const fv_layout *layout)
{
    const fv_attention_options *o = &op->options;
    double tokens =
        (double)(layout->offsets_q[layout->sequences] + fv_layout_keys(layout)[layout->sequences]);
    return 2.0 * tokens * (double)o->projected * (double)(o->dim + o->value_dim) * (double)o->heads;
}

const fv_mechanism fv_mechanism_linformer = {
    .kind =
        {
            .name = "linformer",
            .summary =
                "Linformer: keys and values mixed along the sequence to a fixed number of rows: O(L K)",
            .paper = "Wang et al. 2020, arXiv 2006.04768",
            .why_not_causal = "each projected key mixes all positions",
            .why_not_stream = "each projected key mixes all positions",
        },
    .inputs = FV_INPUT_BIT(FV_INPUT_LINFORMER_E) | FV_INPUT_BIT(FV_INPUT_LINFORMER_F),
    .unnormalised = true,
    .check = check,
    .measure = measure,
    .forward = forward,
    .backward = backward,
    .weights = weights,
    .flop = flop,
};
