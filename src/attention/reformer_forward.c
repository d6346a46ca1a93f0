/* reformer_forward.c: LSH attention forward: round by round, one task a (sequence, head, few chunks). Sums of the
 * rounds before wait in y (not normalised), top and sum. */
#include "attention/reformer.h"
#include "attention/softmax.h"
#include <math.h>

typedef struct forward_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    fv_lsh_sums sums;
    float *inverse; /* [H][Tq] 1 / |q| */
    int64_t round;
    int64_t *first; /* [sequences + 1] index of a sequence's first task */
    fv_lsh_cut tiles;
    char *workers;
    size_t worker_bytes;
} forward_call;

typedef struct forward_scratch {
    float *q, *o;                              /* [rows][d], [rows][dv]: queries of a tile, their sums */
    float *k, *v;                              /* [keys][d], [keys][dv]: v with 0 for what is not finite */
    float *s;                                  /* [rows][keys] */
    float *top, *sum, *factor, *inverse, *bad; /* [rows] three times, [keys], [dv] */
    int64_t *runs;                             /* [keys + 1] */
} forward_scratch;

static forward_scratch push_scratch(fv_arena *arena, const fv_attention *op)
{
    fv_lsh_cut tiles = fv_lsh_tiles(op);
    int64_t d = op->options.dim, dv = op->options.value_dim;
    forward_scratch s;
    s.q = FV_PUSH(arena, float, tiles.rows *d);
    s.o = FV_PUSH(arena, float, tiles.rows *dv);
    s.k = FV_PUSH(arena, float, tiles.keys *d);
    s.v = FV_PUSH(arena, float, tiles.keys *dv);
    s.s = FV_PUSH(arena, float, tiles.rows *tiles.keys);
    s.top = FV_PUSH(arena, float, tiles.rows);
    s.sum = FV_PUSH(arena, float, tiles.rows);
    s.factor = FV_PUSH(arena, float, tiles.rows);
    s.inverse = FV_PUSH(arena, float, tiles.keys);
    s.bad = FV_PUSH(arena, float, dv);
    s.runs = FV_PUSH(arena, int64_t, tiles.keys + 1);
    return s;
}

/* The order begins as in the rows of the matrix (reformer.c): sums, inverse norms, work of the sort. */
static void lay_out(fv_arena *arena, forward_call *c, bool saved)
{
    int64_t floats;
    bool fits = fv_mul(c->layout->offsets_q[c->layout->sequences], c->op->options.heads, &floats);
    if (!saved)
        c->sums = fv_lsh_sums_push(arena, c->op, c->layout);
    c->inverse = FV_PUSH(arena, float, fits ? floats : INT64_MAX);
    c->worker_bytes = fv_reformer_worker_bytes(c->op, c->layout);
    c->workers = fv_arena_push(arena, c->op->ctx->threads, c->worker_bytes);
    c->first = FV_PUSH(arena, int64_t, c->layout->sequences + 1);
    c->tiles = fv_lsh_tiles(c->op);
}

size_t fv_reformer_forward_work(const fv_attention *op)
{
    fv_arena worker = fv_arena_measure();
    push_scratch(&worker, op);
    return worker.used;
}

size_t fv_reformer_bytes(const fv_attention *op, const fv_layout *layout)
{
    fv_arena arena = fv_arena_measure();
    forward_call call = {.op = op, .layout = layout};
    lay_out(&arena, &call, false);
    return arena.used;
}

/* ---- one chunk ----------------------------------------------------------------------------------------- */

/* One head of one sequence, pointers at its first token. */
typedef struct head_view {
    const float *q, *v, *inverse;
    float *y, *top, *sum;
    int64_t ldq, ldv, ldy;
} head_view;

/* Queries r .. r + n - 1 of a chunk and what the rounds before left of them. */
static void begin(const forward_call *c, const head_view *x, const fv_lsh_window *w, int64_t r, int64_t n,
                  const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, dv = c->op->options.value_dim;
    for (int64_t i = 0; i < n; i++) {
        int64_t at = w->own[r + i];
        kr->copy_rows(1, d, x->q + at * x->ldq, d, t->q + i * d, d);
        t->top[i] = c->round > 0 ? x->top[at] : -INFINITY;
        t->sum[i] = c->round > 0 ? x->sum[at] : 0.0f;
        if (c->round > 0)
            kr->copy_rows(1, dv, x->y + at * x->ldy, dv, t->o + i * dv, dv);
    }
    if (c->round == 0)
        kr->fill(n * dv, 0.0f, t->o);
}

static void finish(const forward_call *c, const head_view *x, const fv_lsh_window *w, int64_t r, int64_t n,
                   const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t dv = c->op->options.value_dim;
    if (c->round + 1 == c->op->options.rounds) {
        kr->softmax_end(n, t->top, t->sum, t->factor, NULL);
        kr->scale_rows(n, dv, t->factor, t->o, dv, 0, t->o, dv);
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t at = w->own[r + i];
        x->top[at] = t->top[i];
        x->sum[at] = t->sum[i];
        kr->copy_rows(1, dv, t->o + i * dv, dv, x->y + at * x->ldy, dv);
    }
}

/* Keys t0 .. of the window, dense and of length 1, and their values without what is not finite. */
static bool gather(const forward_call *c, const head_view *x, const fv_lsh_window *w, int64_t t0,
                   int64_t count, const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, dv = c->op->options.value_dim;
    bool finite = true;
    for (int64_t j = 0; j < count; j++) {
        int64_t at = fv_lsh_key(w, t0 + j);
        kr->copy_rows(1, d, x->q + at * x->ldq, d, t->k + j * d, d);
        finite &= kr->finite_rows(1, dv, x->v + at * x->ldv, dv, t->v + j * dv, dv) != 0;
        t->inverse[j] = x->inverse[at];
    }
    kr->scale_rows(count, d, t->inverse, t->k, d, 0, t->k, d);
    return finite;
}

/* What is not finite in the values, added to the queries that see it: the product would spread it to all. */
static void add_poison(const forward_call *c, const head_view *x, const fv_lsh_window *w, int64_t r,
                       int64_t n, int64_t t0, int64_t count, const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t dv = c->op->options.value_dim;
    for (int64_t j = 0; j < count; j++) {
        const float *v = x->v + fv_lsh_key(w, t0 + j) * x->ldv;
        if (kr->all_finite(1, dv, v, dv))
            continue;
        kr->copy_rows(1, dv, v, dv, t->bad, dv);
        kr->axpy(dv, -1.0f, t->v + j * dv, t->bad); /* 0 where v is finite */
        for (int64_t i = 0; i < n; i++)
            if (fv_lsh_sees(w, r + i, t0 + j))
                kr->axpy(dv, t->s[i * count + j], t->bad, t->o + i * dv);
    }
}

/* Queries r .. r + n - 1 of a chunk against all its keys. */
static void attend(const forward_call *c, const head_view *x, const fv_lsh_window *w, int64_t r, int64_t n,
                   const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, dv = c->op->options.value_dim, keys = w->before + w->n;
    begin(c, x, w, r, n, t);
    for (int64_t t0 = 0; t0 < keys; t0 += c->tiles.keys) {
        int64_t count = FV_MIN(c->tiles.keys, keys - t0);
        bool finite = gather(c, x, w, t0, count, t);
        kr->gemm('N', 'T', n, count, d, fv_softmax_factor(c->op), t->q, d, t->k, d, 0.0f, t->s, count);
        fv_lsh_hide(c->op, w, r, n, t0, count, t->runs, t->s);
        kr->softmax_tile(n, count, t->s, count, NULL, t->top, t->sum, t->factor);
        kr->scale_rows(n, dv, t->factor, t->o, dv, 0, t->o, dv);
        kr->gemm('N', 'N', n, dv, count, 1.0f, t->s, count, t->v, dv, 1.0f, t->o, dv);
        if (!finite)
            add_poison(c, x, w, r, n, t0, count, t);
    }
    finish(c, x, w, r, n, t);
}

/* ---- all chunks -------------------------------------------------------------------------------------- */

/* Chunks a task: a hundred queries at least. */
static int64_t chunks_a_task(const fv_lsh_place *place)
{
    return FV_MAX(1, 128 / place->m);
}

static void forward_task(void *arg, int64_t index, int worker)
{
    const forward_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    int64_t s = fv_offsets_locate(c->first, c->layout->sequences, index);
    int64_t tasks = (c->first[s + 1] - c->first[s]) / o->heads, h = (index - c->first[s]) / tasks;
    int64_t begin_q = c->layout->offsets_q[s], all = c->layout->offsets_q[c->layout->sequences];
    fv_lsh_place place = fv_lsh_place_of(c->op, c->layout, &c->sums, s, h, c->round);
    int64_t chunk = (index - c->first[s]) % tasks * chunks_a_task(&place);
    int64_t end = FV_MIN(chunk + chunks_a_task(&place), place.chunks), g = h * o->kv_heads / o->heads;
    head_view x = {
        .q = c->io.q + begin_q * c->io.q_stride + h * o->dim,
        .v = c->io.v + begin_q * c->io.v_stride + g * o->value_dim,
        .y = c->io.y + begin_q * c->io.y_stride + h * o->value_dim,
        .inverse = c->inverse + h * all + begin_q,
        .top = c->sums.top + h * all + begin_q,
        .sum = c->sums.sum + h * all + begin_q,
        .ldq = c->io.q_stride,
        .ldv = c->io.v_stride,
        .ldy = c->io.y_stride,
    };
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    forward_scratch scratch = push_scratch(&arena, c->op);
    for (; chunk < end; chunk++) {
        fv_lsh_window w = fv_lsh_window_at(&place, chunk);
        for (int64_t r = 0; r < w.n; r += c->tiles.rows)
            attend(c, &x, &w, r, FV_MIN(c->tiles.rows, w.n - r), &scratch);
    }
}

/* Numbers the tasks of a round: first[s] is the first of sequence s. */
static void number_tasks(forward_call *c)
{
    c->first[0] = 0;
    for (int64_t s = 0; s < c->layout->sequences; s++) {
        fv_lsh_place place = fv_lsh_place_of(c->op, c->layout, &c->sums, s, 0, 0);
        int64_t a_task = chunks_a_task(&place);
        c->first[s + 1] = c->first[s] + (place.chunks + a_task - 1) / a_task * c->op->options.heads;
    }
}

fv_status fv_reformer_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                              void *saved, void *scratch)
{
    TRY(fv_reformer_check_lengths(op, layout));
    forward_call call = {.op = op, .layout = layout, .io = fv_softmax_resolve(op, io)};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX), kept = fv_arena_over(saved, SIZE_MAX);
    if (saved != NULL)
        call.sums = fv_lsh_sums_push(&kept, op, layout);
    lay_out(&arena, &call, saved != NULL);
    fv_lsh_norms(op, layout, &call.io, call.inverse);
    fv_lsh_sort(op, layout, &call.io, call.inverse, &call.sums, call.workers, call.worker_bytes);
    number_tasks(&call);
    for (; call.round < op->options.rounds; call.round++)
        fv_parallel(op->ctx, call.first[layout->sequences], forward_task, &call);
    return FV_OK;
}
