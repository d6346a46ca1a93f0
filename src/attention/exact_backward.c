/* exact_backward.c: softmax attention backward, one task a (sequence, key head), or a key head of all sequences
 * where they add to the same gradient of the position bias. A task owns the rows of dk and dv it adds to, and
 * those of dq of its query heads, and walks them in a fixed order: no sum depends on threads. */
#include "attention/exact.h"

typedef struct backward_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    const fv_attention_grad *grad;
    const float *lse; /* [H][Tq] */
    float *delta;     /* [H][Tq], D_i = dy_i . y_i */
    fv_exact_tiles tiles;
    fv_exact_bias bias;
    float *d_bias; /* [H][2N-1] or NULL */
    char *workers;
    size_t worker_bytes;
} backward_call;

typedef struct backward_scratch {
    float *p, *ds;    /* [rows][keys] */
    float *k, *v;     /* [keys][d], [keys][dv]: a tile's keys and values, dense */
    int64_t *visible; /* [rows] */
    float *diagonals; /* [rows + keys] a tile's sums of dS, in the order of the table of biases */
    float *d_bias;    /* [2N-1] a head's, in that order */
} backward_scratch;

static backward_scratch push_scratch(fv_arena *arena, const fv_attention_options *o, fv_exact_tiles tiles)
{
    backward_scratch s;
    s.p = FV_PUSH(arena, float, tiles.rows *tiles.keys);
    s.ds = FV_PUSH(arena, float, tiles.rows *tiles.keys);
    s.k = FV_PUSH(arena, float, tiles.keys * o->dim);
    s.v = FV_PUSH(arena, float, tiles.keys * o->value_dim);
    s.visible = FV_PUSH(arena, int64_t, tiles.rows);
    s.diagonals = s.d_bias = NULL;
    if (o->position_bias == FV_POSITION_BIAS_KERNEL) {
        s.diagonals = FV_PUSH(arena, float, tiles.rows + tiles.keys);
        s.d_bias = FV_PUSH(arena, float, 2 * o->position_span - 1);
    }
    return s;
}

static void lay_out(fv_arena *arena, backward_call *c)
{
    int64_t floats;
    c->tiles = fv_exact_backward_tiles(c->op, c->layout);
    bool fits = fv_mul(c->layout->offsets_q[c->layout->sequences], c->op->options.heads, &floats);
    c->delta = FV_PUSH(arena, float, fits ? floats : INT64_MAX);
    c->bias = fv_exact_bias_push(arena, c->op);
    fv_arena worker = fv_arena_measure();
    push_scratch(&worker, &c->op->options, c->tiles);
    c->worker_bytes = worker.used;
    c->workers = fv_arena_push(arena, c->op->ctx->threads, c->worker_bytes);
}

size_t fv_exact_backward_bytes(const fv_attention *op, const fv_layout *layout)
{
    fv_arena arena = fv_arena_measure();
    backward_call call = {.op = op, .layout = layout};
    lay_out(&arena, &call);
    return arena.used;
}

/* One head of one sequence. */
typedef struct head_view {
    fv_softmax_head at;
    const float *bias; /* of the first query and key, or NULL */
} head_view;

static head_view view_head(const backward_call *c, int64_t s, int64_t h)
{
    return (head_view){
        .at = fv_softmax_head_of(c->op, c->layout, &c->io, c->grad, c->lse, c->delta, s, h),
        .bias = fv_exact_bias_at(&c->bias, h, 0, 0),
    };
}

/* P [n][cols] of queries i.. and keys j.., and how many of the keys each query sees. */
static void probabilities(const backward_call *c, const head_view *x, int64_t i, int64_t n, int64_t j,
                          int64_t cols, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, ldq = c->io.q_stride;
    bool masked = c->op->options.causal && i + 1 < j + cols;
    for (int64_t row = 0; row < n; row++)
        t->visible[row] = masked ? FV_MAX(0, FV_MIN(cols, i + row + 1 - j)) : cols;
    kr->gemm('N', 'T', n, cols, d, fv_softmax_factor(c->op), x->at.q + i * ldq, ldq, t->k, d, 0.0f, t->p,
             cols);
    if (x->bias != NULL)
        fv_exact_bias_add(c->op, x->bias - i + j, n, cols, t->p);
    kr->softmax_probs(n, cols, t->p, cols, masked ? t->visible : NULL, x->at.lse + i);
}

/* The head's d b += dS summed along the diagonals of the tile: first there, so that no sum is long. */
static void add_diagonals(const backward_call *c, int64_t i, int64_t n, int64_t j, int64_t cols,
                          const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    float *out = t->d_bias + c->bias.span - 1 - (i + n - 1) + j;
    kr->fill(n + cols - 1, 0.0f, t->diagonals);
    for (int64_t row = 0; row < n; row++) {
        float *sums = t->diagonals + n - 1 - row;
        kr->add(t->visible[row], sums, t->ds + row * cols, sums);
    }
    kr->add(n + cols - 1, out, t->diagonals, out);
}

static void backward_tile(const backward_call *c, const head_view *x, int64_t i, int64_t n, int64_t j,
                          int64_t cols, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    const fv_attention_io *io = &c->io;
    int64_t d = c->op->options.dim, width = c->op->options.value_dim;
    int64_t ldq = io->q_stride, ldk = io->k_stride, ldv = io->v_stride, ldy = io->y_stride;
    const float *dy = x->at.dy + i * ldy;
    float scale = (float)c->op->options.scale;

    probabilities(c, x, i, n, j, cols, t);
    if (x->at.dv != NULL) /* dv_j += sum_i P_ij dy_i */
        kr->gemm('T', 'N', cols, width, n, 1.0f, t->p, cols, dy, ldy, 1.0f, x->at.dv + j * ldv, ldv);
    if (x->at.dq == NULL && x->at.dk == NULL && c->d_bias == NULL)
        return;
    /* dS_ij = P_ij (dy_i.v_j - D_i) */
    kr->gemm('N', 'T', n, cols, width, 1.0f, dy, ldy, t->v, width, 0.0f, t->ds, cols);
    kr->softmax_back(n, cols, t->p, cols, t->ds, cols, x->at.delta + i, t->ds, cols);
    if (c->d_bias != NULL)
        add_diagonals(c, i, n, j, cols, t);
    if (x->at.dq != NULL) /* dq_i += scale sum_j dS_ij k_j */
        kr->gemm('N', 'N', n, d, cols, scale, t->ds, cols, t->k, d, 1.0f, x->at.dq + i * ldq, ldq);
    if (x->at.dk != NULL) /* dk_j += scale sum_i dS_ij q_i */
        kr->gemm('T', 'N', cols, d, n, scale, t->ds, cols, x->at.q + i * ldq, ldq, 1.0f, x->at.dk + j * ldk,
                 ldk);
}

static void backward_head(const backward_call *c, const head_view *x, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t rows = c->tiles.rows, d = c->op->options.dim, dv = c->op->options.value_dim;
    bool causal = c->op->options.causal;
    for (int64_t j = 0; j < x->at.keys; j += c->tiles.keys) {
        int64_t end = FV_MIN(j + c->tiles.keys, x->at.keys);
        /* Products take a dense tile a tenth faster than one of rows far apart, and many query blocks use it.
         */
        kr->copy_rows(end - j, d, x->at.k + j * c->io.k_stride, c->io.k_stride, t->k, d);
        kr->copy_rows(end - j, dv, x->at.v + j * c->io.v_stride, c->io.v_stride, t->v, dv);
        for (int64_t i = causal ? j / rows * rows : 0; i < x->at.queries; i += rows) {
            int64_t n = FV_MIN(rows, x->at.queries - i);
            int64_t seen = causal ? FV_MIN(end, i + n) : end; /* tiles above the diagonal do not exist */
            backward_tile(c, x, i, n, j, seen - j, t);
        }
    }
}

/* Query head h of every sequence, and d b of the head. */
static void backward_biased(const backward_call *c, int64_t h, const backward_scratch *t)
{
    int64_t all = 2 * c->bias.span - 1;
    float *d_bias = c->d_bias + h * all;
    c->op->ctx->kernels->fill(all, 0.0f, t->d_bias);
    for (int64_t s = 0; s < c->layout->sequences; s++) {
        head_view x = view_head(c, s, h);
        backward_head(c, &x, t);
    }
    for (int64_t i = 0; t->d_bias != NULL && i < all; i++)
        d_bias[i] += t->d_bias[all - 1 - i];
}

static void backward_task(void *arg, int64_t index, int worker)
{
    const backward_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    int64_t s = index / o->kv_heads, group = o->heads / o->kv_heads, first = index % o->kv_heads * group;
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    backward_scratch scratch = push_scratch(&arena, o, c->tiles);
    for (int64_t h = first; h < first + group; h++) {
        if (c->d_bias != NULL) {
            backward_biased(c, h, &scratch);
            continue;
        }
        head_view x = view_head(c, s, h);
        backward_head(c, &x, &scratch);
    }
}

static void delta_task(void *arg, int64_t h, int worker)
{
    const backward_call *c = arg;
    int64_t all = c->layout->offsets_q[c->layout->sequences], dv = c->op->options.value_dim;
    int64_t ldy = c->io.y_stride;
    (void)worker;
    c->op->ctx->kernels->row_dots(all, dv, 1.0f, c->grad->dy + h * dv, ldy, c->io.y + h * dv, ldy, 0.0f,
                                  c->delta + h * all);
}

fv_status fv_exact_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            const fv_attention_grad *grad, const void *saved, void *scratch)
{
    backward_call call = {
        .op = op, .layout = layout, .io = fv_softmax_resolve(op, io), .grad = grad, .lse = saved};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    TRY(fv_bias_check_span(op, layout));
    lay_out(&arena, &call);
    call.d_bias = grad->d_input[FV_INPUT_POSITION_BIAS];
    fv_exact_bias_load(op, io, &call.bias);
    fv_parallel(op->ctx, op->options.heads, delta_task, &call);
    fv_parallel(op->ctx, (call.d_bias != NULL ? 1 : layout->sequences) * op->options.kv_heads, backward_task,
                &call);
    return FV_OK;
}
