/* sparse_forward.c: sparse softmax attention forward: phase by phase, one task a (sequence, head, group). A stream's
 * call is the end of a sequence whose other keys are in its cache; a step is such a call of one token.
 */
#include "attention/sparse.h"
#include <math.h>

typedef struct forward_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    float *lse; /* [H][Tq] */
    int phase;
    int64_t *first;       /* [sequences + 1] index of a sequence's first task */
    bool continues;       /* the streams of states */
    fv_kv_cache **states; /* [sequences] */
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
    (void)FV_PUSH(arena, int64_t, c->layout->sequences + 1); /* offsets of a step */
    float *lse = FV_PUSH(arena, float, fits ? floats : INT64_MAX);
    c->lse = saved ? c->lse : lse;
    c->first = FV_PUSH(arena, int64_t, c->layout->sequences + 1);
    c->states = FV_PUSH(arena, fv_kv_cache *, c->layout->sequences);
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

/* Keys and values of neighbouring tokens. */
typedef struct key_rows {
    const float *k, *v;
    int64_t ldk, ldv;
} key_rows;

/* A group of one head: its pattern, its first query, and the first keys of the call and of the stream's cache. */
typedef struct group_view {
    fv_sparse_place place;
    fv_sparse_group group;
    const float *q;
    float *y, *lse;
    int64_t ldq, ldy;
    key_rows call, past;
    const fv_kv_cache *cache;
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

/* Of keys t .. t + count - 1 of a set the first ones that stand evenly in one place; returns their number. */
static int64_t find_rows(const group_view *x, const fv_sparse_set *set, int64_t t, int64_t count,
                         key_rows *rows)
{
    int64_t at, step, n = fv_sparse_stretch(set, t, count, &at, &step), row = at - x->place.from;
    *rows = x->call;
    if (row < 0) {
        n = fv_kv_cache_run(x->cache, at, step, FV_MIN(n, (step - 1 - row) / step), &row);
        *rows = x->past;
    }
    rows->k += row * rows->ldk, rows->v += row * rows->ldv;
    rows->ldk *= step, rows->ldv *= step;
    return n;
}

/* Keys t .. t + count - 1 of a set, dense. Values are cleaned whether finite or not: a product must not round
 * differently because of what a hidden token holds. Returns whether they were finite. */
static bool gather(const forward_call *c, const group_view *x, const fv_sparse_set *set, int64_t first,
                   int64_t count, const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, dv = c->op->options.value_dim;
    key_rows rows;
    bool finite = true;
    for (int64_t done = 0, n; done < count; done += n) {
        n = find_rows(x, set, first + done, count - done, &rows);
        kr->copy_rows(n, d, rows.k, rows.ldk, t->k + done * d, d);
        finite &= kr->finite_rows(n, dv, rows.v, rows.ldv, t->v + done * dv, dv) != 0;
    }
    return finite;
}

/* What is not finite in the values, added to the rows that see it. The product alone would spread it to every
 * row, because 0 NaN = NaN. */
static void add_poison(const forward_call *c, const group_view *x, const fv_sparse_set *set, int64_t first,
                       int64_t count, const forward_scratch *t)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t dv = c->op->options.value_dim;
    key_rows row;
    for (int64_t j = 0; j < count; j++) {
        find_rows(x, set, first + j, 1, &row);
        if (kr->all_finite(1, dv, row.v, dv))
            continue;
        kr->copy_rows(1, dv, row.v, dv, t->poison, dv);
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

static fv_sparse_place place_of(const forward_call *c, int64_t s, int64_t h)
{
    fv_sparse_place place = fv_sparse_place_of(c->op, c->layout, s, h);
    place.from = c->continues ? c->states[s]->tokens : 0;
    place.queries += place.from, place.keys += place.from;
    return place;
}

static void view_group(const forward_call *c, int64_t s, int64_t h, group_view *x)
{
    const fv_attention_options *o = &c->op->options;
    int64_t key = fv_layout_keys(c->layout)[s], g = h * o->kv_heads / o->heads;
    int64_t token = c->layout->offsets_q[s] + x->group.first - x->place.from;
    x->q = c->io.q + token * c->io.q_stride + h * o->dim;
    x->y = c->io.y + token * c->io.y_stride + h * o->value_dim;
    x->lse = c->lse + h * c->layout->offsets_q[c->layout->sequences] + token;
    x->ldq = c->io.q_stride * x->group.step, x->ldy = c->io.y_stride * x->group.step;
    x->call = (key_rows){c->io.k + key * c->io.k_stride + g * o->dim,
                         c->io.v + key * c->io.v_stride + g * o->value_dim, c->io.k_stride, c->io.v_stride};
    if (x->place.from == 0)
        return;
    fv_kv_cache *cache = c->states[s];
    x->cache = cache;
    x->past = (key_rows){fv_kv_cache_keys(c->op, cache, g), fv_kv_cache_values(c->op, cache, g), o->dim,
                         o->value_dim};
}

static void forward_task(void *arg, int64_t index, int worker)
{
    const forward_call *c = arg;
    const fv_sparse_pattern *pattern = c->op->mechanism->pattern;
    int64_t s = fv_offsets_locate(c->first, c->layout->sequences, index), tile = fv_sparse_tile(c->op);
    int64_t groups = (c->first[s + 1] - c->first[s]) / c->op->options.heads;
    int64_t h = (index - c->first[s]) / groups;
    group_view x = {.place = place_of(c, s, h)};
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
        fv_sparse_place place = place_of(c, s, 0);
        fv_sparse_cut cut = c->op->mechanism->pattern->cut(&place, c->phase);
        c->first[s + 1] = c->first[s] + fv_sparse_groups(&cut) * c->op->options.heads;
    }
}

static void run(forward_call *c)
{
    const fv_attention *op = c->op;
    for (; c->phase < op->mechanism->pattern->phases; c->phase++) {
        number_tasks(c);
        fv_parallel(op->ctx, c->first[c->layout->sequences], forward_task, c);
    }
    if (c->continues) /* last: a ring's new rows take the place of some that were just read */
        fv_kv_caches_store(op, c->layout, &c->io, c->states);
}

fv_status fv_sparse_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            void *saved, void *scratch)
{
    forward_call call = {.op = op,
                         .layout = layout,
                         .io = fv_softmax_resolve(op, io),
                         .lse = saved,
                         .continues = io->state != NULL};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    lay_out(&arena, &call, saved != NULL);
    if (call.continues)
        TRY(fv_kv_caches_find(op, layout, &(fv_states){.first = io->state}, call.states));
    run(&call);
    return FV_OK;
}

/* ---- streams ----------------------------------------------------------------------------------------- */

/* Rows of a stream's cache: what the pattern reaches, or all of `capacity`. The ring has a row at least, so that it is
 * told from a cache without one. */
static int64_t cache_rows(const fv_attention *op, int64_t capacity, int64_t *pinned)
{
    const fv_sparse_pattern *pattern = op->mechanism->pattern;
    *pinned = capacity;
    if (pattern->reach == NULL)
        return capacity;
    int64_t ring = FV_MAX(1, pattern->reach(&op->options, pinned));
    return *pinned + ring;
}

size_t fv_sparse_state_bytes(const fv_attention *op, int64_t capacity)
{
    int64_t pinned;
    return fv_kv_cache_bytes(op, cache_rows(op, capacity, &pinned));
}

void fv_sparse_state_init(const fv_attention *op, int64_t capacity, void *state)
{
    int64_t pinned, rows = cache_rows(op, capacity, &pinned);
    fv_kv_cache_init(op, rows, pinned, state);
}

/* Streams are sequences of one token; their offsets are the first array of scratch (lay_out). */
fv_status fv_sparse_step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                         const fv_states *states, void *scratch)
{
    fv_arena ahead = fv_arena_over(scratch, SIZE_MAX), arena = ahead;
    int64_t *offsets = FV_PUSH(&ahead, int64_t, streams + 1);
    for (int64_t s = 0; s <= streams; s++)
        offsets[s] = s;
    fv_layout layout = {streams, offsets, NULL};
    forward_call call = {.op = op, .layout = &layout, .io = fv_softmax_resolve(op, io), .continues = true};
    lay_out(&arena, &call, false);
    TRY(fv_kv_caches_find(op, &layout, states, call.states));
    run(&call);
    return FV_OK;
}
