/* exact_forward.c: softmax attention forward, one task a (sequence, head, group of query rows). */
#include "attention/exact.h"
#include <math.h>

fv_exact_scratch fv_exact_scratch_push(fv_arena *arena, const fv_attention *op, fv_exact_tiles tiles)
{
    int64_t d = op->options.dim, dv = op->options.value_dim;
    fv_exact_scratch s;
    s.s = FV_PUSH(arena, float, tiles.rows *tiles.keys);
    s.o = FV_PUSH(arena, float, tiles.group *dv);
    s.top = FV_PUSH(arena, float, tiles.group);
    s.sum = FV_PUSH(arena, float, tiles.group);
    s.factor = FV_PUSH(arena, float, tiles.rows);
    s.k = FV_PUSH(arena, float, tiles.keys *d);
    s.v = FV_PUSH(arena, float, tiles.keys *dv);
    s.clean = FV_PUSH(arena, float, tiles.rows *dv);
    s.poison = FV_PUSH(arena, float, dv);
    s.visible = FV_PUSH(arena, int64_t, tiles.rows);
    return s;
}

/* ---- tiles ------------------------------------------------------------------------------------------- */

/* n query rows against c keys, and the running sums of these rows. */
typedef struct tile {
    int64_t n, c;
    const float *q, *k, *v;
    int64_t ldq, ldk, ldv;
    const float *bias; /* of the first row and key, or NULL */
    float *o, *top, *sum;
} tile;

/* s [n][c] = q k^T + b in base 2. A single row, of a step, takes several keys side by side: it reads each once. */
static void score(const fv_attention *op, const tile *x, float *s)
{
    const fv_kernels *kr = op->ctx->kernels;
    float factor = fv_softmax_factor(op);
    if (x->n == 1) {
        kr->few_rows(1, x->c, op->options.dim, x->q, x->ldq, x->k, x->ldk, 0.0f, s, x->c);
        kr->scale(x->c, factor, s, s);
    } else
        kr->gemm('N', 'T', x->n, x->c, op->options.dim, factor, x->q, x->ldq, x->k, x->ldk, 0.0f, s, x->c);
    fv_exact_bias_add(op, x->bias, x->n, x->c, s);
}

/* o [n][dv] = factor o + s [n][c] v [c][dv] */
static void add_values(const fv_attention *op, const tile *x, const float *s, const float *factor)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t dv = op->options.value_dim;
    kr->scale_rows(x->n, dv, factor, x->o, dv, 0, x->o, dv);
    if (x->n == 1)
        kr->gemv('T', x->c, dv, 1.0f, x->v, x->ldv, s, 1.0f, x->o);
    else
        kr->gemm('N', 'N', x->n, dv, x->c, 1.0f, s, x->c, x->v, x->ldv, 1.0f, x->o, dv);
}

/* Keys that every row of the tile sees. */
static void open_tile(const fv_attention *op, const tile *x, const fv_exact_scratch *t)
{
    score(op, x, t->s);
    op->ctx->kernels->softmax_tile(x->n, x->c, t->s, x->c, NULL, x->top, x->sum, t->factor);
    add_values(op, x, t->s, t->factor);
}

/* Keys whose value holds NaN or Inf: those entries were 0 in the product; add them to the rows i >= j that
 * see key j. The product alone would spread them to every row, because 0 NaN = NaN. v: the values as they
 * are. */
static void add_poison(const fv_attention *op, const tile *x, const float *v, int64_t ldv,
                       const fv_exact_scratch *t)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t dv = op->options.value_dim;
    for (int64_t j = 0; j < x->n; j++) {
        const float *v_j = v + j * ldv;
        if (kr->all_finite(1, dv, v_j, dv))
            continue;
        kr->copy_rows(1, dv, v_j, dv, t->poison, dv);
        kr->axpy(dv, -1.0f, t->clean + j * dv, t->poison); /* 0 where v_j is finite */
        for (int64_t i = j; i < x->n; i++)
            kr->axpy(dv, t->s[i * x->n + j], t->poison, x->o + i * dv);
    }
}

/* The n x n tile on the diagonal. Its values are always copied, finite or not: the product must not round
 * differently because of what a later token holds. */
static void diagonal_tile(const fv_attention *op, tile *x, const fv_exact_scratch *t)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t n = x->n, dv = op->options.value_dim, ldv = x->ldv;
    const float *v = x->v;
    for (int64_t i = 0; i < n; i++)
        t->visible[i] = i + 1;
    score(op, x, t->s);
    kr->softmax_tile(n, n, t->s, n, t->visible, x->top, x->sum, t->factor);
    int finite = kr->finite_rows(n, dv, v, ldv, t->clean, dv);
    x->v = t->clean, x->ldv = dv;
    add_values(op, x, t->s, t->factor);
    if (!finite)
        add_poison(op, x, v, ldv, t);
}

/* ---- a group of rows --------------------------------------------------------------------------------- */

/* The tile of rows i.. and keys j... */
static tile tile_at(const fv_attention *op, const fv_exact_rows *r, int64_t i, int64_t n, int64_t j,
                    int64_t c, const fv_exact_scratch *t)
{
    return (tile){
        .n = n,
        .c = c,
        .q = r->q + i * r->ldq,
        .k = r->k + j * r->ldk,
        .v = r->v + j * r->ldv,
        .ldq = r->ldq,
        .ldk = r->ldk,
        .ldv = r->ldv,
        .bias = r->bias != NULL ? r->bias - i + j : NULL,
        .o = t->o + i * op->options.value_dim,
        .top = t->top + i,
        .sum = t->sum + i,
    };
}

/* Keys j .. j + c for every block of rows that sees all or the first of them. Several blocks share a dense
 * copy: the products take it a tenth faster than rows far apart. */
static void attend_keys(const fv_attention *op, const fv_exact_rows *r, fv_exact_tiles tiles, int64_t j,
                        int64_t c, const fv_exact_scratch *t)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t d = op->options.dim, dv = op->options.value_dim;
    bool copy = r->n > tiles.rows;
    if (copy) {
        kr->copy_rows(c, d, r->k + j * r->ldk, r->ldk, t->k, d);
        kr->copy_rows(c, dv, r->v + j * r->ldv, r->ldv, t->v, dv);
    }
    for (int64_t i = 0; i < r->n; i += tiles.rows) {
        int64_t seen = FV_MIN(c, r->open + (r->causal ? i : 0) - j);
        if (seen <= 0)
            continue;
        tile x = tile_at(op, r, i, FV_MIN(tiles.rows, r->n - i), j, seen, t);
        if (copy)
            x.k = t->k, x.ldk = d, x.v = t->v, x.ldv = dv;
        open_tile(op, &x, t);
    }
}

void fv_exact_attend(const fv_attention *op, const fv_exact_rows *r, fv_exact_tiles tiles,
                     const fv_exact_scratch *t)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t dv = op->options.value_dim, last = r->causal ? (r->n - 1) / tiles.rows * tiles.rows : 0;
    kr->fill(r->n * dv, 0.0f, t->o);
    kr->fill(r->n, -INFINITY, t->top);
    kr->fill(r->n, 0.0f, t->sum);
    for (int64_t j = 0; j < r->open + last; j += tiles.keys)
        attend_keys(op, r, tiles, j, FV_MIN(tiles.keys, r->open + last - j), t);
    for (int64_t i = 0; r->causal && i < r->n; i += tiles.rows) {
        int64_t n = FV_MIN(tiles.rows, r->n - i);
        tile x = tile_at(op, r, i, n, r->open + i, n, t);
        diagonal_tile(op, &x, t);
    }
    kr->softmax_end(r->n, t->top, t->sum, t->sum, r->lse);
    kr->scale_rows(r->n, dv, t->sum, t->o, dv, 0, r->y, r->ldy);
}

/* ---- all groups -------------------------------------------------------------------------------------- */

typedef struct forward_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    float *lse; /* [H][Tq] or NULL */
    fv_exact_tiles tiles;
    fv_exact_bias bias;
    int64_t *first;       /* [sequences + 1] index of a sequence's first task */
    fv_kv_cache **states; /* [sequences] or NULL */
    char *workers;
    size_t worker_bytes;
} forward_call;

static size_t worker_bytes(const fv_attention *op, fv_exact_tiles tiles)
{
    fv_arena arena = fv_arena_measure();
    fv_exact_scratch_push(&arena, op, tiles);
    return arena.used;
}

static void lay_out(fv_arena *arena, forward_call *c)
{
    c->tiles = fv_exact_forward_tiles(c->op, c->layout);
    c->first = FV_PUSH(arena, int64_t, c->layout->sequences + 1);
    c->states = FV_PUSH(arena, fv_kv_cache *, c->layout->sequences);
    c->bias = fv_exact_bias_push(arena, c->op);
    c->worker_bytes = worker_bytes(c->op, c->tiles);
    c->workers = fv_arena_push(arena, c->op->ctx->threads, c->worker_bytes);
}

size_t fv_exact_forward_bytes(const fv_attention *op, const fv_layout *layout)
{
    fv_arena arena = fv_arena_measure();
    forward_call call = {.op = op, .layout = layout};
    lay_out(&arena, &call);
    return arena.used;
}

/* Where a sequence's keys and values of kv head g are: in the call's tensors, or in the stream's memory,
 * where `past` tokens come before those of this call. */
static void find_keys(const forward_call *c, int64_t s, int64_t g, fv_exact_rows *r, int64_t *past)
{
    const fv_attention_options *o = &c->op->options;
    int64_t begin = fv_layout_keys(c->layout)[s];
    *past = 0;
    if (c->io.state != NULL) {
        *past = c->states[s]->tokens - (fv_layout_keys(c->layout)[s + 1] - begin);
        r->ldk = o->dim, r->ldv = o->value_dim;
        r->k = fv_kv_cache_keys(c->op, c->states[s], g), r->v = fv_kv_cache_values(c->op, c->states[s], g);
        return;
    }
    if (c->io.k == NULL) /* of a call that has no key */
        return;
    r->ldk = c->io.k_stride, r->ldv = c->io.v_stride;
    r->k = c->io.k + begin * r->ldk + g * o->dim;
    r->v = c->io.v + begin * r->ldv + g * o->value_dim;
}

static void forward_task(void *arg, int64_t index, int worker)
{
    const forward_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    const int64_t *offsets_k = fv_layout_keys(c->layout);
    int64_t s = fv_offsets_locate(c->first, c->layout->sequences, index);
    int64_t groups = (c->first[s + 1] - c->first[s]) / o->heads;
    int64_t h = (index - c->first[s]) / groups;
    int64_t i = (groups - 1 - (index - c->first[s]) % groups) * c->tiles.group; /* causal: longest first */
    int64_t begin = c->layout->offsets_q[s], queries = c->layout->offsets_q[s + 1] - begin, past;

    fv_exact_rows r = {.n = FV_MIN(c->tiles.group, queries - i), .causal = o->causal};
    find_keys(c, s, h * o->kv_heads / o->heads, &r, &past);
    r.open = past + (o->causal ? i : offsets_k[s + 1] - offsets_k[s]);
    r.ldq = c->io.q_stride, r.ldy = c->io.y_stride;
    r.q = c->io.q + (begin + i) * r.ldq + h * o->dim;
    r.y = c->io.y + (begin + i) * r.ldy + h * o->value_dim;
    r.bias = fv_exact_bias_at(&c->bias, h, i, 0);
    if (c->lse != NULL)
        r.lse = c->lse + h * c->layout->offsets_q[c->layout->sequences] + begin + i;

    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    fv_exact_scratch scratch = fv_exact_scratch_push(&arena, c->op, c->tiles);
    fv_exact_attend(c->op, &r, c->tiles, &scratch);
}

/* Numbers the tasks: first[s] is the first of sequence s. */
static void number_tasks(forward_call *c)
{
    const int64_t *offsets = c->layout->offsets_q;
    c->first[0] = 0;
    for (int64_t s = 0; s < c->layout->sequences; s++) {
        int64_t groups = (offsets[s + 1] - offsets[s] + c->tiles.group - 1) / c->tiles.group;
        c->first[s + 1] = c->first[s] + groups * c->op->options.heads;
    }
}

fv_status fv_exact_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                           void *saved, void *scratch)
{
    forward_call call = {.op = op, .layout = layout, .io = fv_softmax_resolve(op, io), .lse = saved};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    TRY(fv_bias_check_span(op, layout));
    lay_out(&arena, &call);
    fv_exact_bias_load(op, io, &call.bias);
    number_tasks(&call);
    if (io->state != NULL) {
        TRY(fv_kv_caches_find(op, layout, &(fv_states){.first = io->state}, call.states));
        fv_kv_caches_store(op, layout, &call.io, call.states);
    }
    fv_parallel(op->ctx, call.first[layout->sequences], forward_task, &call);
    return FV_OK;
}
