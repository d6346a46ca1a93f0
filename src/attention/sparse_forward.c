/* sparse_forward.c: sparse softmax attention forward: phase by phase, one task a (sequence, head, group). */
#include "attention/sparse.h"
#include <math.h>

typedef struct forward_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    float *lse; /* [H][Tq] */
    int phase;
    int64_t *first; /* [sequences + 1] index of a sequence's first task */
    char *workers;
    size_t worker_bytes;
} forward_call;

typedef struct forward_scratch {
    float *s;                        /* [rows][tile] scores, then probabilities */
    float *o;                        /* [rows][dv] sum of p v so far */
    float *top, *sum, *factor, *lse; /* [rows] */
    float *k, *v;                    /* [tile][d], [tile][dv]: v with 0 for what is not finite */
    float *poison;                   /* [dv] */
    fv_sparse_columns *columns;      /* [rows] */
} forward_scratch;

static forward_scratch push_scratch(fv_arena *arena, const fv_attention *op)
{
    int64_t rows = fv_sparse_rows(op, INT64_MAX), tile = fv_sparse_tile(op);
    forward_scratch s;
    s.s = FV_PUSH(arena, float, rows *tile);
    s.o = FV_PUSH(arena, float, rows * op->options.value_dim);
    s.top = FV_PUSH(arena, float, rows);
    s.sum = FV_PUSH(arena, float, rows);
    s.factor = FV_PUSH(arena, float, rows);
    s.lse = FV_PUSH(arena, float, rows);
    s.k = FV_PUSH(arena, float, tile * op->options.dim);
    s.v = FV_PUSH(arena, float, tile * op->options.value_dim);
    s.poison = FV_PUSH(arena, float, op->options.value_dim);
    s.columns = FV_PUSH(arena, fv_sparse_columns, rows);
    return s;
}

static void lay_out(fv_arena *arena, forward_call *c, bool saved)
{
    int64_t floats = 0;
    bool fits = saved || fv_mul(c->layout->offsets_q[c->layout->sequences], c->op->options.heads, &floats);
    float *lse = FV_PUSH(arena, float, fits ? floats : INT64_MAX);
    c->lse = saved ? c->lse : lse;
    c->first = FV_PUSH(arena, int64_t, c->layout->sequences + 1);
    fv_arena worker = fv_arena_measure();
    push_scratch(&worker, c->op);
    c->worker_bytes = worker.used;
    c->workers = fv_arena_push(arena, c->op->ctx->threads, c->worker_bytes);
}

size_t fv_sparse_forward_bytes(const fv_attention *op, const fv_layout *layout)
{
    fv_arena arena = fv_arena_measure();
    forward_call call = {.op = op, .layout = layout};
    lay_out(&arena, &call, false);
    return arena.used;
}

/* ---- one group ----------------------------------------------------------------------------------------- */

/* A group of one head: its pattern, and pointers at its first query and at the sequence's first key. */
typedef struct group_view {
    fv_sparse_place place;
    fv_sparse_group group;
    const float *q, *k, *v;
    float *y, *lse;
    int64_t ldq, ldk, ldv, ldy;
} group_view;

/* Sums of the phases before: y and l of a query are its normalised sum and log2 of its weight. */
static void begin(const forward_call *c, const group_view *x, const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t n = x->group.n, dv = c->op->options.value_dim;
    if (c->phase == 0) {
        kr->fill(n * dv, 0.0f, t->o);
        kr->fill(n, -INFINITY, t->top);
        kr->fill(n, 0.0f, t->sum);
        return;
    }
    kr->copy_rows(n, dv, x->y, x->ldy, t->o, dv);
    kr->copy_rows(n, 1, x->lse, x->group.step, t->top, 1);
    for (int64_t r = 0; r < n; r++)
        t->sum[r] = t->top[r] == -INFINITY ? 0.0f : 1.0f;
}

static void finish(const forward_call *c, const group_view *x, const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t n = x->group.n, dv = c->op->options.value_dim;
    kr->softmax_end(n, t->top, t->sum, t->sum, t->lse);
    kr->scale_rows(n, dv, t->sum, t->o, dv, 0, x->y, x->ldy);
    kr->copy_rows(n, 1, t->lse, 1, x->lse, x->group.step);
}

/* Keys t .. t + count - 1 of a set, dense. Values are cleaned whether finite or not: a product must not round
 * differently because of what a hidden token holds. Returns whether they were finite. */
static bool gather(const forward_call *c, const group_view *x, const fv_sparse_set *set, int64_t first,
                   int64_t count, const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, dv = c->op->options.value_dim, at, step;
    bool finite = true;
    for (int64_t done = 0, n; done < count; done += n) {
        n = fv_sparse_stretch(set, first + done, count - done, &at, &step);
        kr->copy_rows(n, d, x->k + at * x->ldk, step * x->ldk, t->k + done * d, d);
        finite &= kr->finite_rows(n, dv, x->v + at * x->ldv, step * x->ldv, t->v + done * dv, dv) != 0;
    }
    return finite;
}

/* What is not finite in the values, added to the rows that see it. The product alone would spread it to every
 * row, because 0 NaN = NaN. */
static void add_poison(const forward_call *c, const group_view *x, const fv_sparse_set *set, int64_t first,
                       int64_t count, const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t dv = c->op->options.value_dim, at, step;
    for (int64_t j = 0; j < count; j++) {
        fv_sparse_stretch(set, first + j, 1, &at, &step);
        const float *v = x->v + at * x->ldv;
        if (kr->all_finite(1, dv, v, dv))
            continue;
        kr->copy_rows(1, dv, v, dv, t->poison, dv);
        kr->axpy(dv, -1.0f, t->v + j * dv, t->poison); /* 0 where v is finite */
        for (int64_t r = 0; r < set->rows; r++) {
            const fv_sparse_columns *sees = t->columns + r;
            if ((j >= sees->a && j < sees->b) || (j >= sees->c && j < sees->d))
                kr->axpy(dv, t->s[r * count + j], t->poison, t->o + r * dv);
        }
    }
}

static void attend_tile(const forward_call *c, const group_view *x, const fv_sparse_set *set, int64_t first,
                        int64_t count, const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t n = set->rows, d = c->op->options.dim, dv = c->op->options.value_dim;
    float factor = fv_softmax_factor(c->op);
    if (!fv_sparse_look(&x->place, &x->group, set, first, count, t->columns))
        return;
    bool finite = gather(c, x, set, first, count, t);
    if (n == 1)
        kr->gemv('N', count, d, factor, t->k, d, x->q, 0.0f, t->s);
    else
        kr->gemm('N', 'T', n, count, d, factor, x->q, x->ldq, t->k, d, 0.0f, t->s, count);
    fv_sparse_hide(c->op, n, count, t->columns, t->s);
    kr->softmax_tile(n, count, t->s, count, NULL, t->top, t->sum, t->factor);
    kr->scale_rows(n, dv, t->factor, t->o, dv, 0, t->o, dv);
    if (n == 1)
        kr->gemv('T', count, dv, 1.0f, t->v, dv, t->s, 1.0f, t->o);
    else
        kr->gemm('N', 'N', n, dv, count, 1.0f, t->s, count, t->v, dv, 1.0f, t->o, dv);
    if (!finite)
        add_poison(c, x, set, first, count, t);
}

/* ---- all groups -------------------------------------------------------------------------------------- */

static void view_group(const forward_call *c, int64_t s, int64_t h, group_view *x)
{
    const fv_attention_options *o = &c->op->options;
    const int64_t *offsets_k = fv_layout_keys(c->layout);
    int64_t token = c->layout->offsets_q[s] + x->group.first, g = h * o->kv_heads / o->heads;
    x->q = c->io.q + token * c->io.q_stride + h * o->dim;
    x->y = c->io.y + token * c->io.y_stride + h * o->value_dim;
    x->lse = c->lse + h * c->layout->offsets_q[c->layout->sequences] + token;
    x->k = c->io.k + offsets_k[s] * c->io.k_stride + g * o->dim;
    x->v = c->io.v + offsets_k[s] * c->io.v_stride + g * o->value_dim;
    x->ldq = c->io.q_stride * x->group.step, x->ldy = c->io.y_stride * x->group.step;
    x->ldk = c->io.k_stride, x->ldv = c->io.v_stride;
}

static void forward_task(void *arg, int64_t index, int worker)
{
    const forward_call *c = arg;
    const fv_sparse_pattern *pattern = c->op->mechanism->pattern;
    int64_t s = fv_offsets_locate(c->first, c->layout->sequences, index), tile = fv_sparse_tile(c->op);
    int64_t groups = (c->first[s + 1] - c->first[s]) / c->op->options.heads;
    int64_t h = (index - c->first[s]) / groups;
    group_view x = {.place = fv_sparse_place_of(c->op, c->layout, s, h)};
    fv_sparse_cut cut = pattern->cut(&x.place, c->phase);
    fv_sparse_group_at(&x.place, c->phase, &cut, (index - c->first[s]) % groups, &x.group);
    if (x.group.n == 0)
        return;
    view_group(c, s, h, &x);
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    forward_scratch scratch = push_scratch(&arena, c->op);
    fv_sparse_set set;
    begin(c, &x, &scratch);
    for (int n = 0; pattern->set(&x.place, &x.group, n, &set); n++)
        for (int64_t t = 0; t < set.count; t += tile)
            attend_tile(c, &x, &set, t, FV_MIN(tile, set.count - t), &scratch);
    finish(c, &x, &scratch);
}

/* Numbers the tasks of the phase: first[s] is the first of sequence s. */
static void number_tasks(forward_call *c)
{
    c->first[0] = 0;
    for (int64_t s = 0; s < c->layout->sequences; s++) {
        fv_sparse_place place = fv_sparse_place_of(c->op, c->layout, s, 0);
        fv_sparse_cut cut = c->op->mechanism->pattern->cut(&place, c->phase);
        c->first[s + 1] = c->first[s] + fv_sparse_groups(&cut) * c->op->options.heads;
    }
}

fv_status fv_sparse_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            void *saved, void *scratch)
{
    forward_call call = {.op = op, .layout = layout, .io = fv_softmax_resolve(op, io), .lse = saved};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    lay_out(&arena, &call, saved != NULL);
    for (; call.phase < op->mechanism->pattern->phases; call.phase++) {
        number_tasks(&call);
        fv_parallel(op->ctx, call.first[layout->sequences], forward_task, &call);
    }
    return FV_OK;
}
