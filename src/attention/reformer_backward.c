/* reformer_backward.c: LSH attention backward, one task a (sequence, value head). A task owns the rows of dv it adds
 * to and those of dq of its query heads, and walks rounds, chunks and tiles in a fixed order: no sum depends on
 * threads. */
#include "attention/reformer.h"
#include "attention/softmax.h"

typedef struct backward_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    const fv_attention_grad *grad;
    fv_lsh_sums sums;
    float *inverse, *delta; /* [H][Tq] 1 / |q|; dy . y */
    fv_lsh_cut tiles;
    char *workers;
    size_t worker_bytes;
} backward_call;

typedef struct backward_scratch {
    float *q, *dy, *dq;                        /* [rows][d], [rows][dv], [rows][d]: of a tile of queries */
    float *top, *weight, *delta;               /* [rows] */
    float *k, *v, *dk, *dv, *inverse, *radial; /* of a tile of keys: rows, gradients, 1/|q|, -k.dk */
    float *p, *ds;                             /* [rows][keys] */
    int64_t *runs;                             /* [keys + 1] */
} backward_scratch;

static backward_scratch push_scratch(fv_arena *arena, const fv_attention *op)
{
    fv_lsh_cut tiles = fv_lsh_tiles(op);
    int64_t d = op->options.dim, dv = op->options.value_dim;
    backward_scratch s;
    s.q = FV_PUSH(arena, float, tiles.rows *d);
    s.dy = FV_PUSH(arena, float, tiles.rows *dv);
    s.dq = FV_PUSH(arena, float, tiles.rows *d);
    s.top = FV_PUSH(arena, float, tiles.rows);
    s.weight = FV_PUSH(arena, float, tiles.rows);
    s.delta = FV_PUSH(arena, float, tiles.rows);
    s.k = FV_PUSH(arena, float, tiles.keys *d);
    s.v = FV_PUSH(arena, float, tiles.keys *dv);
    s.dk = FV_PUSH(arena, float, tiles.keys *d);
    s.dv = FV_PUSH(arena, float, tiles.keys *dv);
    s.inverse = FV_PUSH(arena, float, tiles.keys);
    s.radial = FV_PUSH(arena, float, tiles.keys);
    s.p = FV_PUSH(arena, float, tiles.rows *tiles.keys);
    s.ds = FV_PUSH(arena, float, tiles.rows *tiles.keys);
    s.runs = FV_PUSH(arena, int64_t, tiles.keys + 1);
    return s;
}

static void lay_out(fv_arena *arena, backward_call *c)
{
    int64_t floats;
    bool fits = fv_mul(c->layout->offsets_q[c->layout->sequences], c->op->options.heads, &floats);
    c->inverse = FV_PUSH(arena, float, fits ? floats : INT64_MAX);
    c->delta = FV_PUSH(arena, float, fits ? floats : INT64_MAX);
    c->tiles = fv_lsh_tiles(c->op);
    c->worker_bytes = fv_reformer_worker_bytes(c->op, c->layout);
    c->workers = fv_arena_push(arena, c->op->ctx->threads, c->worker_bytes);
}

size_t fv_reformer_backward_work(const fv_attention *op)
{
    fv_arena worker = fv_arena_measure();
    push_scratch(&worker, op);
    return worker.used;
}

/* One head of one sequence, pointers at its first token. */
typedef struct head_view {
    const float *q, *v, *dy, *inverse, *top, *sum, *delta;
    float *dq, *dv;
} head_view;

static head_view view_head(const backward_call *c, int64_t s, int64_t h)
{
    const fv_attention_options *o = &c->op->options;
    int64_t begin = c->layout->offsets_q[s], at = h * c->layout->offsets_q[c->layout->sequences] + begin;
    int64_t q_at = begin * c->io.q_stride + h * o->dim, g = h * o->kv_heads / o->heads;
    int64_t v_at = begin * c->io.v_stride + g * o->value_dim;
    return (head_view){
        .q = c->io.q + q_at,
        .v = c->io.v + v_at,
        .dy = c->grad->dy + begin * c->io.y_stride + h * o->value_dim,
        .inverse = c->inverse + at,
        .top = c->sums.top + at,
        .sum = c->sums.sum + at,
        .delta = c->delta + at,
        .dq = c->grad->dq != NULL ? c->grad->dq + q_at : NULL,
        .dv = c->grad->dv != NULL ? c->grad->dv + v_at : NULL,
    };
}

/* ---- tiles --------------------------------------------------------------------------------------------- */

static void gather_keys(const backward_call *c, const head_view *x, const fv_lsh_window *w, int64_t t0,
                        int64_t count, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, dv = c->op->options.value_dim;
    for (int64_t j = 0; j < count; j++) {
        int64_t at = fv_lsh_key(w, t0 + j);
        kr->copy_rows(1, d, x->q + at * c->io.q_stride, d, t->k + j * d, d);
        kr->copy_rows(1, dv, x->v + at * c->io.v_stride, dv, t->v + j * dv, dv);
        t->inverse[j] = x->inverse[at];
    }
    kr->scale_rows(count, d, t->inverse, t->k, d, 0, t->k, d);
    kr->fill(count * d, 0.0f, t->dk);
    kr->fill(count * dv, 0.0f, t->dv);
}

static void gather_queries(const backward_call *c, const head_view *x, const fv_lsh_window *w, int64_t r,
                           int64_t n, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, dv = c->op->options.value_dim;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = w->own[r + i];
        kr->copy_rows(1, d, x->q + at * c->io.q_stride, d, t->q + i * d, d);
        kr->copy_rows(1, dv, x->dy + at * c->io.y_stride, dv, t->dy + i * dv, dv);
        t->top[i] = x->top[at];
        t->weight[i] = 1.0f / x->sum[at];
        t->delta[i] = x->delta[at];
    }
}

/* Queries r .. r + n - 1 of a chunk against keys t0 ..; their own share of dq is added at once. */
static void backward_tile(const backward_call *c, const head_view *x, const fv_lsh_window *w, int64_t r,
                          int64_t n, int64_t t0, int64_t count, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, width = c->op->options.value_dim;
    float scale = (float)c->op->options.scale;
    gather_queries(c, x, w, r, n, t);
    kr->gemm('N', 'T', n, count, d, fv_softmax_factor(c->op), t->q, d, t->k, d, 0.0f, t->p, count);
    fv_lsh_hide(c->op, w, r, n, t0, count, t->runs, t->p);
    kr->softmax_probs(n, count, t->p, count, NULL, t->top);
    kr->scale_rows(n, count, t->weight, t->p, count, 0, t->p, count);
    /* dv_j += sum_i P_ij dy_i */
    kr->gemm('T', 'N', count, width, n, 1.0f, t->p, count, t->dy, width, 1.0f, t->dv, width);
    if (x->dq == NULL)
        return;
    /* dS_ij = P_ij (dy_i.v_j - D_i) */
    kr->gemm('N', 'T', n, count, width, 1.0f, t->dy, width, t->v, width, 0.0f, t->ds, count);
    kr->softmax_back(n, count, t->p, count, t->ds, count, t->delta, t->ds, count);
    fv_lsh_still(c->op, w, r, n, t0, count, t->ds);
    /* dq_i += scale sum_j dS_ij k_j, dk_j += scale sum_i dS_ij q_i */
    kr->gemm('N', 'N', n, d, count, scale, t->ds, count, t->k, d, 0.0f, t->dq, d);
    kr->gemm('T', 'N', count, d, n, scale, t->ds, count, t->q, d, 1.0f, t->dk, d);
    for (int64_t i = 0; i < n; i++)
        kr->axpy(d, 1.0f, t->dq + i * d, x->dq + w->own[r + i] * c->io.q_stride);
}

/* Through k = q / |q|: dq += (dk - k (k.dk)) / |q|. */
static void scatter_keys(const backward_call *c, const head_view *x, const fv_lsh_window *w, int64_t t0,
                         int64_t count, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, dv = c->op->options.value_dim;
    if (x->dq != NULL) {
        kr->row_dots(count, d, -1.0f, t->k, d, t->dk, d, 0.0f, t->radial);
        kr->scale_rows(count, d, t->radial, t->k, d, 1, t->dk, d);
    }
    for (int64_t j = 0; j < count; j++) {
        int64_t at = fv_lsh_key(w, t0 + j);
        if (x->dq != NULL)
            kr->axpy(d, t->inverse[j], t->dk + j * d, x->dq + at * c->io.q_stride);
        if (x->dv != NULL)
            kr->axpy(dv, 1.0f, t->dv + j * dv, x->dv + at * c->io.v_stride);
    }
}

static void backward_chunk(const backward_call *c, const head_view *x, const fv_lsh_window *w,
                           const backward_scratch *t)
{
    int64_t keys = w->before + w->n;
    for (int64_t t0 = 0; t0 < keys; t0 += c->tiles.keys) {
        int64_t count = FV_MIN(c->tiles.keys, keys - t0);
        gather_keys(c, x, w, t0, count, t);
        for (int64_t r = 0; r < w->n; r += c->tiles.rows)
            backward_tile(c, x, w, r, FV_MIN(c->tiles.rows, w->n - r), t0, count, t);
        scatter_keys(c, x, w, t0, count, t);
    }
}

static void backward_task(void *arg, int64_t index, int worker)
{
    const backward_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    int64_t s = index / o->kv_heads, heads = o->heads / o->kv_heads, first = index % o->kv_heads * heads;
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    backward_scratch scratch = push_scratch(&arena, c->op);
    for (int64_t n = 0; n < heads * o->rounds; n++) {
        int64_t h = first + n / o->rounds;
        head_view x = view_head(c, s, h);
        fv_lsh_place place = fv_lsh_place_of(c->op, c->layout, &c->sums, s, h, n % o->rounds);
        for (int64_t chunk = 0; chunk < place.chunks; chunk++) {
            fv_lsh_window w = fv_lsh_window_at(&place, chunk);
            backward_chunk(c, &x, &w, &scratch);
        }
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

fv_status fv_reformer_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                               const fv_attention_grad *grad, const void *saved, void *scratch)
{
    TRY(fv_reformer_check_lengths(op, layout));
    backward_call call = {.op = op, .layout = layout, .io = fv_softmax_resolve(op, io), .grad = grad};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    fv_arena kept = fv_arena_over((void *)(uintptr_t)saved, SIZE_MAX); /* only read */
    call.sums = fv_lsh_sums_push(&kept, op, layout);
    lay_out(&arena, &call);
    fv_lsh_norms(op, layout, &call.io, call.inverse);
    fv_parallel(op->ctx, op->options.heads, delta_task, &call);
    fv_parallel(op->ctx, layout->sequences * op->options.kv_heads, backward_task, &call);
    return FV_OK;
}
