/* sparse_backward.c: sparse softmax attention backward, one task a (sequence, key head). A task owns the rows of
 * dk and dv it adds to, and those of dq of its query heads, and walks them in a fixed order: no sum depends on
 * threads. */
#include "attention/sparse.h"

typedef struct backward_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    const fv_attention_grad *grad;
    const float *lse; /* [H][Tq] */
    float *delta;     /* [H][Tq], D_i = dy_i . y_i */
    char *workers;
    size_t worker_bytes;
} backward_call;

typedef struct backward_scratch {
    float *p, *ds;              /* [rows][tile] */
    float *lse, *delta;         /* [rows] */
    float *k, *v;               /* [tile][d], [tile][dv]: a tile's keys and values, dense */
    float *dk, *dv;             /* their gradients from one tile */
    fv_sparse_columns *columns; /* [rows] */
} backward_scratch;

static backward_scratch push_scratch(fv_arena *arena, const fv_attention *op)
{
    int64_t rows = fv_sparse_rows(op, INT64_MAX), tile = fv_sparse_tile(op);
    int64_t d = op->options.dim, dv = op->options.value_dim;
    backward_scratch s;
    s.p = FV_PUSH(arena, float, rows *tile);
    s.ds = FV_PUSH(arena, float, rows *tile);
    s.lse = FV_PUSH(arena, float, rows);
    s.delta = FV_PUSH(arena, float, rows);
    s.k = FV_PUSH(arena, float, tile *d);
    s.v = FV_PUSH(arena, float, tile *dv);
    s.dk = FV_PUSH(arena, float, tile *d);
    s.dv = FV_PUSH(arena, float, tile *dv);
    s.columns = FV_PUSH(arena, fv_sparse_columns, rows);
    return s;
}

static void lay_out(fv_arena *arena, backward_call *c)
{
    int64_t floats;
    bool fits = fv_mul(c->layout->offsets_q[c->layout->sequences], c->op->options.heads, &floats);
    c->delta = FV_PUSH(arena, float, fits ? floats : INT64_MAX);
    fv_arena worker = fv_arena_measure();
    push_scratch(&worker, c->op);
    c->worker_bytes = worker.used;
    c->workers = fv_arena_push(arena, c->op->ctx->threads, c->worker_bytes);
}

size_t fv_sparse_backward_bytes(const fv_attention *op, const fv_layout *layout)
{
    fv_arena arena = fv_arena_measure();
    backward_call call = {.op = op, .layout = layout};
    lay_out(&arena, &call);
    return arena.used;
}

/* One head of one sequence. */
typedef struct head_view {
    fv_softmax_head at;
    fv_sparse_place place;
} head_view;

static head_view view_head(const backward_call *c, int64_t s, int64_t h)
{
    return (head_view){
        .at = fv_softmax_head_of(c->op, c->layout, &c->io, c->grad, c->lse, c->delta, s, h),
        .place = fv_sparse_place_of(c->op, c->layout, s, h),
    };
}

/* Copies rows of keys first .. first + count - 1 of a set to dense ones (add 0), or adds dense ones to them. */
static void gather(const backward_call *c, const fv_sparse_set *set, int64_t first, int64_t count,
                   int64_t width, const float *x, int64_t ld, float *dense)
{
    int64_t at, step;
    for (int64_t done = 0, n; done < count; done += n) {
        n = fv_sparse_stretch(set, first + done, count - done, &at, &step);
        c->op->ctx->kernels->copy_rows(n, width, x + at * ld, step * ld, dense + done * width, width);
    }
}

static void scatter(const backward_call *c, const fv_sparse_set *set, int64_t first, int64_t count,
                    int64_t width, const float *dense, float *x, int64_t ld)
{
    int64_t at, step;
    for (int64_t done = 0, n; done < count; done += n) {
        n = fv_sparse_stretch(set, first + done, count - done, &at, &step);
        c->op->ctx->kernels->scale_rows(n, width, NULL, dense + done * width, width, 1, x + at * ld,
                                        step * ld);
    }
}

/* Queries of a group against keys first .. first + count - 1 of a set. */
static void backward_tile(const backward_call *c, const head_view *x, const fv_sparse_group *group,
                          const fv_sparse_set *set, int64_t first, int64_t count, const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    const fv_attention_io *io = &c->io;
    int64_t n = set->rows, d = c->op->options.dim, width = c->op->options.value_dim;
    int64_t ldq = io->q_stride * group->step, ldy = io->y_stride * group->step;
    const float *q = x->at.q + group->first * io->q_stride, *dy = x->at.dy + group->first * io->y_stride;
    float scale = (float)c->op->options.scale;

    if (!fv_sparse_look(&x->place, group, set, first, count, t->columns))
        return;
    gather(c, set, first, count, d, x->at.k, io->k_stride, t->k);
    kr->gemm('N', 'T', n, count, d, fv_softmax_factor(c->op), q, ldq, t->k, d, 0.0f, t->p, count);
    fv_sparse_hide(c->op, n, count, t->columns, t->p);
    kr->softmax_probs(n, count, t->p, count, NULL, t->lse);
    if (x->at.dv != NULL) { /* dv_j += sum_i P_ij dy_i */
        kr->gemm('T', 'N', count, width, n, 1.0f, t->p, count, dy, ldy, 0.0f, t->dv, width);
        scatter(c, set, first, count, width, t->dv, x->at.dv, io->v_stride);
    }
    if (x->at.dq == NULL && x->at.dk == NULL)
        return;
    /* dS_ij = P_ij (dy_i.v_j - D_i) */
    gather(c, set, first, count, width, x->at.v, io->v_stride, t->v);
    kr->gemm('N', 'T', n, count, width, 1.0f, dy, ldy, t->v, width, 0.0f, t->ds, count);
    kr->softmax_back(n, count, t->p, count, t->ds, count, t->delta, t->ds, count);
    if (x->at.dq != NULL) /* dq_i += scale sum_j dS_ij k_j */
        kr->gemm('N', 'N', n, d, count, scale, t->ds, count, t->k, d, 1.0f,
                 x->at.dq + group->first * io->q_stride, ldq);
    if (x->at.dk != NULL) { /* dk_j += scale sum_i dS_ij q_i */
        kr->gemm('T', 'N', count, d, n, scale, t->ds, count, q, ldq, 0.0f, t->dk, d);
        scatter(c, set, first, count, d, t->dk, x->at.dk, io->k_stride);
    }
}

static void backward_group(const backward_call *c, const head_view *x, const fv_sparse_group *group,
                           const backward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t tile = fv_sparse_tile(c->op);
    fv_sparse_set set;
    kr->copy_rows(group->n, 1, x->at.lse + group->first, group->step, t->lse, 1);
    kr->copy_rows(group->n, 1, x->at.delta + group->first, group->step, t->delta, 1);
    for (int n = 0; c->op->mechanism->pattern->set(&x->place, group, n, &set); n++)
        for (int64_t first = 0; first < set.count; first += tile)
            backward_tile(c, x, group, &set, first, FV_MIN(tile, set.count - first), t);
}

static void backward_task(void *arg, int64_t index, int worker)
{
    const backward_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    const fv_sparse_pattern *pattern = c->op->mechanism->pattern;
    int64_t s = index / o->kv_heads, heads = o->heads / o->kv_heads, first = index % o->kv_heads * heads;
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    backward_scratch scratch = push_scratch(&arena, c->op);
    fv_sparse_group group;
    for (int64_t n = 0; n < heads * pattern->phases; n++) {
        head_view x = view_head(c, s, first + n / pattern->phases);
        int phase = (int)(n % pattern->phases);
        fv_sparse_cut cut = pattern->cut(&x.place, phase);
        for (int64_t i = 0; i < fv_sparse_groups(&cut); i++) {
            fv_sparse_group_at(&x.place, phase, &cut, i, &group);
            if (group.n > 0)
                backward_group(c, &x, &group, &scratch);
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

fv_status fv_sparse_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                             const fv_attention_grad *grad, const void *saved, void *scratch)
{
    backward_call call = {
        .op = op, .layout = layout, .io = fv_softmax_resolve(op, io), .grad = grad, .lse = saved};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    lay_out(&arena, &call);
    fv_parallel(op->ctx, op->options.heads, delta_task, &call);
    fv_parallel(op->ctx, layout->sequences * op->options.kv_heads, backward_task, &call);
    return FV_OK;
}
