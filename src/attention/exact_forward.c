/* exact_forward.c: softmax attention forward, one task a (sequence, head, block of query rows). */
#include "attention/exact.h"
#include <math.h>

fv_exact_scratch fv_exact_scratch_push(fv_arena *arena, fv_exact_tiles tiles, int64_t dv)
{
    fv_exact_scratch s;
    s.s = FV_PUSH(arena, float, tiles.rows *tiles.keys);
    s.o = FV_PUSH(arena, float, tiles.rows *dv);
    s.top = FV_PUSH(arena, float, tiles.rows);
    s.sum = FV_PUSH(arena, float, tiles.rows);
    s.factor = FV_PUSH(arena, float, tiles.rows);
    s.clean = FV_PUSH(arena, float, tiles.rows *dv);
    s.poison = FV_PUSH(arena, float, dv);
    s.visible = FV_PUSH(arena, int64_t, tiles.rows);
    return s;
}

/* ---- one block of rows ------------------------------------------------------------------------------- */

/* s [n][c] = scores of the block against keys from..from+c. A single row is a matrix-vector product. */
static void score_tile(const fv_attention *op, const fv_exact_block *b, int64_t from, int64_t c, float *s)
{
    const fv_kernels *kr = op->ctx->kernels;
    const float *k = b->k + from * b->ldk;
    float factor = fv_exact_score_factor(op);
    if (b->n == 1)
        kr->gemv('N', c, op->options.dim, factor, k, b->ldk, b->q, 0.0f, s);
    else
        kr->gemm('N', 'T', b->n, c, op->options.dim, factor, b->q, b->ldq, k, b->ldk, 0.0f, s, c);
}

/* o [n][dv] = factor o + s [n][c] v [c][dv] */
static void add_values(const fv_attention *op, int64_t n, int64_t c, const float *v, int64_t ldv,
                       const fv_exact_scratch *t)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t dv = op->options.value_dim;
    kr->scale_rows(n, dv, t->factor, t->o, dv, 0, t->o, dv);
    if (n == 1)
        kr->gemv('T', c, dv, 1.0f, v, ldv, t->s, 1.0f, t->o);
    else
        kr->gemm('N', 'N', n, dv, c, 1.0f, t->s, c, v, ldv, 1.0f, t->o, dv);
}

/* Keys whose value holds NaN or Inf: those entries were 0 in the product; add them to the rows i >= j that
 * see key j. The product alone would spread them to every row, because 0 NaN = NaN. */
static void add_poison(const fv_attention *op, const fv_exact_block *b, const float *v,
                       const fv_exact_scratch *t)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t dv = op->options.value_dim;
    for (int64_t j = 0; j < b->n; j++) {
        const float *v_j = v + j * b->ldv;
        if (kr->all_finite(1, dv, v_j, dv))
            continue;
        kr->copy_rows(1, dv, v_j, dv, t->poison, dv);
        kr->axpy(dv, -1.0f, t->clean + j * dv, t->poison); /* 0 where v_j is finite */
        for (int64_t i = j; i < b->n; i++)
            kr->axpy(dv, t->s[i * b->n + j], t->poison, t->o + i * dv);
    }
}

/* The n x n tile on the diagonal. Its values are always copied, finite or not: the product must not round
 * differently because of what a later token holds. */
static void attend_diagonal(const fv_attention *op, const fv_exact_block *b, const fv_exact_scratch *t)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t n = b->n, dv = op->options.value_dim;
    const float *v = b->v + b->open * b->ldv;
    for (int64_t i = 0; i < n; i++)
        t->visible[i] = i + 1;
    score_tile(op, b, b->open, n, t->s);
    kr->softmax_tile(n, n, t->s, n, t->visible, t->top, t->sum, t->factor);
    int finite = kr->finite_rows(n, dv, v, b->ldv, t->clean, dv);
    add_values(op, n, n, t->clean, dv, t);
    if (!finite)
        add_poison(op, b, v, t);
}

void fv_exact_attend(const fv_attention *op, const fv_exact_block *b, int64_t tile_keys,
                     const fv_exact_scratch *t)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t n = b->n, dv = op->options.value_dim;
    kr->fill(n * dv, 0.0f, t->o);
    kr->fill(n, -INFINITY, t->top);
    kr->fill(n, 0.0f, t->sum);
    for (int64_t j = 0; j < b->open; j += tile_keys) {
        int64_t c = FV_MIN(tile_keys, b->open - j);
        score_tile(op, b, j, c, t->s);
        kr->softmax_tile(n, c, t->s, c, NULL, t->top, t->sum, t->factor);
        add_values(op, n, c, b->v + j * b->ldv, b->ldv, t);
    }
    if (b->diagonal)
        attend_diagonal(op, b, t);
    kr->softmax_end(n, t->top, t->sum, t->sum, b->lse);
    kr->scale_rows(n, dv, t->sum, t->o, dv, 0, b->y, b->ldy);
}

/* ---- all blocks -------------------------------------------------------------------------------------- */

typedef struct forward_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    float *lse; /* [H][Tq] or NULL */
    fv_exact_tiles tiles;
    int64_t *first;          /* [sequences + 1] index of a sequence's first task */
    fv_exact_state **states; /* [sequences] or NULL */
    char *workers;
    size_t worker_bytes;
} forward_call;

static size_t worker_bytes(const fv_attention *op, fv_exact_tiles tiles)
{
    fv_arena arena = fv_arena_measure();
    fv_exact_scratch_push(&arena, tiles, op->options.value_dim);
    return arena.used;
}

static void lay_out(fv_arena *arena, forward_call *c)
{
    c->tiles = fv_exact_forward_tiles(c->op, c->layout);
    c->first = FV_PUSH(arena, int64_t, c->layout->sequences + 1);
    c->states = FV_PUSH(arena, fv_exact_state *, c->layout->sequences);
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
static void find_keys(const forward_call *c, int64_t s, int64_t g, fv_exact_block *b, int64_t *past)
{
    const fv_attention_options *o = &c->op->options;
    int64_t begin = fv_exact_key_offsets(c->layout)[s];
    *past = 0;
    b->ldk = c->io.k_stride, b->ldv = c->io.v_stride;
    b->k = c->io.k + begin * b->ldk + g * o->dim;
    b->v = c->io.v + begin * b->ldv + g * o->value_dim;
    if (c->io.state == NULL)
        return;
    *past = c->states[s]->tokens;
    b->ldk = o->kv_heads * o->dim, b->ldv = o->kv_heads * o->value_dim;
    b->k = fv_exact_keys(c->states[s]) + g * o->dim;
    b->v = fv_exact_values(c->op, c->states[s]) + g * o->value_dim;
}

static void forward_task(void *arg, int64_t index, int worker)
{
    const forward_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    const int64_t *offsets_k = fv_exact_key_offsets(c->layout);
    int64_t s = fv_exact_locate(c->first, c->layout->sequences, index);
    int64_t blocks = (c->first[s + 1] - c->first[s]) / o->heads;
    int64_t h = (index - c->first[s]) / blocks;
    int64_t i = (blocks - 1 - (index - c->first[s]) % blocks) * c->tiles.rows; /* causal: longest first */
    int64_t begin = c->layout->offsets_q[s], queries = c->layout->offsets_q[s + 1] - begin, past;

    fv_exact_block b = {.n = FV_MIN(c->tiles.rows, queries - i), .diagonal = o->causal};
    find_keys(c, s, h * o->kv_heads / o->heads, &b, &past);
    b.open = o->causal ? past + i : offsets_k[s + 1] - offsets_k[s];
    b.ldq = c->io.q_stride, b.ldy = c->io.y_stride;
    b.q = c->io.q + (begin + i) * b.ldq + h * o->dim;
    b.y = c->io.y + (begin + i) * b.ldy + h * o->value_dim;
    if (c->lse != NULL)
        b.lse = c->lse + h * c->layout->offsets_q[c->layout->sequences] + begin + i;

    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    fv_exact_scratch scratch = fv_exact_scratch_push(&arena, c->tiles, o->value_dim);
    fv_exact_attend(c->op, &b, c->tiles.keys, &scratch);
}

/* Numbers the tasks: first[s] is the first of sequence s. */
static void number_tasks(forward_call *c)
{
    const int64_t *offsets = c->layout->offsets_q;
    c->first[0] = 0;
    for (int64_t s = 0; s < c->layout->sequences; s++) {
        int64_t blocks = (offsets[s + 1] - offsets[s] + c->tiles.rows - 1) / c->tiles.rows;
        c->first[s + 1] = c->first[s] + blocks * c->op->options.heads;
    }
}

static void find_states(forward_call *c)
{
    fv_exact_state *state = c->io.state;
    for (int64_t s = 0; s < c->layout->sequences; s++) {
        c->states[s] = state;
        state = fv_exact_state_after(c->op, state);
    }
}

fv_status fv_exact_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                           void *saved, void *scratch)
{
    forward_call call = {.op = op, .layout = layout, .io = fv_exact_resolve(op, io), .lse = saved};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    lay_out(&arena, &call);
    number_tasks(&call);
    if (io->state != NULL) {
        TRY(fv_exact_append(op, layout, &call.io));
        find_states(&call);
    }
    fv_parallel(op->ctx, call.first[layout->sequences], forward_task, &call);
    if (io->state != NULL)
        for (int64_t s = 0; s < layout->sequences; s++)
            call.states[s]->tokens += layout->offsets_q[s + 1] - layout->offsets_q[s];
    return FV_OK;
}
