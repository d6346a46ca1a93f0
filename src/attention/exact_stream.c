/* exact_stream.c: softmax attention token by token. A stream's state keeps every key and value it has seen,
 * up to a capacity, so that cost and memory of a token grow with the tokens before it. */
#include "attention/exact.h"
#include <string.h>

static size_t block_bytes(int64_t capacity, int64_t heads, int64_t width)
{
    int64_t floats;
    bool fits = fv_mul(capacity, heads, &floats) && fv_mul(floats, width, &floats);
    return fits ? fv_bytes(floats, sizeof(float)) : SIZE_MAX;
}

size_t fv_exact_state_bytes(const fv_attention *op, int64_t capacity)
{
    const fv_attention_options *o = &op->options;
    size_t keys = block_bytes(capacity, o->kv_heads, o->dim);
    size_t values = block_bytes(capacity, o->kv_heads, o->value_dim);
    return fv_add_bytes(sizeof(fv_exact_state), fv_add_bytes(keys, values));
}

float *fv_exact_keys(fv_exact_state *state)
{
    return (float *)(state + 1);
}

float *fv_exact_values(const fv_attention *op, fv_exact_state *state)
{
    const fv_attention_options *o = &op->options;
    return (float *)((char *)(state + 1) + block_bytes(state->capacity, o->kv_heads, o->dim));
}

fv_exact_state *fv_exact_state_after(const fv_attention *op, fv_exact_state *state)
{
    return (fv_exact_state *)((char *)state + fv_exact_state_bytes(op, state->capacity));
}

void fv_exact_state_init(const fv_attention *op, int64_t capacity, void *state)
{
    fv_exact_state *st = state;
    memset(state, 0, fv_exact_state_bytes(op, capacity));
    st->capacity = capacity;
}

void fv_exact_state_view(const fv_attention *op, void *state, fv_state_view *view)
{
    fv_exact_state *st = state;
    *view = (fv_state_view){
        .tokens = st->tokens,
        .keys = fv_exact_keys(st),
        .values = fv_exact_values(op, st),
        .capacity = st->capacity,
    };
}

static fv_status check_room(const fv_attention *op, const fv_exact_state *state, int64_t more)
{
    if (more <= state->capacity - state->tokens)
        return FV_OK;
    return fv_fail(op->ctx, FV_ERR_RESOURCE,
                   "exact attention keeps every key: the state has room for %lld tokens, holds %lld and was "
                   "given %lld more; make it with a larger capacity",
                   (long long)state->capacity, (long long)state->tokens, (long long)more);
}

/* ---- many tokens ------------------------------------------------------------------------------------- */

/* Copies n tokens of keys and values behind those of the state; the count is left as it is. */
static void store(const fv_attention *op, fv_exact_state *state, int64_t n, const float *k, int64_t ldk,
                  const float *v, int64_t ldv)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t key = op->options.kv_heads * op->options.dim;
    int64_t value = op->options.kv_heads * op->options.value_dim;
    kr->copy_rows(n, key, k, ldk, fv_exact_keys(state) + state->tokens * key, key);
    kr->copy_rows(n, value, v, ldv, fv_exact_values(op, state) + state->tokens * value, value);
}

/* Stores the keys and values of every sequence of a call in its state, or fails before any write. */
fv_status fv_exact_append(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io)
{
    const int64_t *offsets = layout->offsets_q;
    fv_exact_state *state = io->state;
    for (int64_t s = 0; s < layout->sequences; s++, state = fv_exact_state_after(op, state))
        TRY(check_room(op, state, offsets[s + 1] - offsets[s]));
    state = io->state;
    for (int64_t s = 0; s < layout->sequences; s++, state = fv_exact_state_after(op, state))
        store(op, state, offsets[s + 1] - offsets[s], io->k + offsets[s] * io->k_stride, io->k_stride,
              io->v + offsets[s] * io->v_stride, io->v_stride);
    return FV_OK;
}

/* dst (a, b, or a state made by _init) = the tokens of a, then those of b. */
fv_status fv_exact_state_merge(const fv_attention *op, void *dst, const void *a, const void *b)
{
    fv_exact_state *to = dst, *first = (fv_exact_state *)(uintptr_t)a,
                   *second = (fv_exact_state *)(uintptr_t)b;
    size_t key = (size_t)(op->options.kv_heads * op->options.dim) * sizeof(float);
    size_t value = (size_t)(op->options.kv_heads * op->options.value_dim) * sizeof(float);
    size_t na = (size_t)first->tokens, nb = (size_t)second->tokens;
    if (to->capacity < first->tokens || to->capacity - first->tokens < second->tokens)
        return fv_fail(
            op->ctx, FV_ERR_RESOURCE,
            "merging %lld and %lld tokens: the state has room for %lld; make it with a larger capacity",
            (long long)first->tokens, (long long)second->tokens, (long long)to->capacity);
    /* b first: when dst is b its tokens move up before a's are written below them. */
    memmove((char *)fv_exact_keys(to) + na * key, fv_exact_keys(second), nb * key);
    memmove((char *)fv_exact_values(op, to) + na * value, fv_exact_values(op, second), nb * value);
    memmove(fv_exact_keys(to), fv_exact_keys(first), na * key);
    memmove(fv_exact_values(op, to), fv_exact_values(op, first), na * value);
    to->tokens = (int64_t)(na + nb);
    return FV_OK;
}

/* ---- one token --------------------------------------------------------------------------------------- */

typedef struct step_call {
    const fv_attention *op;
    fv_attention_io io;
    char *states;
    size_t state_bytes;
    fv_exact_tiles tiles;
    char *workers;
    size_t worker_bytes;
} step_call;

/* One stream and one key head; the query heads that read it are the rows. */
static void step_task(void *arg, int64_t index, int worker)
{
    const step_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    int64_t stream = index / o->kv_heads, g = index % o->kv_heads, n = o->heads / o->kv_heads;
    fv_exact_state *state = (fv_exact_state *)(c->states + (size_t)stream * c->state_bytes);
    fv_exact_rows r = {
        .n = n,
        .open = state->tokens + 1,
        .q = c->io.q + stream * c->io.q_stride + g * n * o->dim,
        .ldq = o->dim,
        .k = fv_exact_keys(state) + g * o->dim,
        .ldk = o->kv_heads * o->dim,
        .v = fv_exact_values(c->op, state) + g * o->value_dim,
        .ldv = o->kv_heads * o->value_dim,
        .y = c->io.y + stream * c->io.y_stride + g * n * o->value_dim,
        .ldy = o->value_dim,
    };
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    fv_exact_scratch scratch = fv_exact_scratch_push(&arena, c->op, c->tiles);
    fv_exact_attend(c->op, &r, c->tiles, &scratch);
}

fv_status fv_exact_step(const fv_attention *op, int64_t streams, const fv_attention_io *io, void *states,
                        size_t state_bytes, void *scratch)
{
    static const int64_t one_token[] = {0, 1};
    fv_layout layout = {1, one_token, NULL};
    step_call c = {op, fv_softmax_resolve(op, io), states, state_bytes, {0}, scratch, 0};
    for (int64_t s = 0; s < streams; s++)
        TRY(check_room(op, (fv_exact_state *)(c.states + (size_t)s * state_bytes), 1));
    for (int64_t s = 0; s < streams; s++)
        store(op, (fv_exact_state *)(c.states + (size_t)s * state_bytes), 1, io->k + s * c.io.k_stride,
              c.io.k_stride, io->v + s * c.io.v_stride, c.io.v_stride);
    c.tiles = fv_exact_forward_tiles(op, &layout);
    fv_arena arena = fv_arena_measure();
    fv_exact_scratch_push(&arena, op, c.tiles);
    c.worker_bytes = arena.used;
    fv_parallel(op->ctx, streams * op->options.kv_heads, step_task, &c);
    for (int64_t s = 0; s < streams; s++)
        ((fv_exact_state *)(c.states + (size_t)s * state_bytes))->tokens++;
    return FV_OK;
}
