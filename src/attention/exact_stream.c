/* exact_stream.c: softmax attention token by token. A stream's state keeps every key and value it has seen,
 * up to a capacity, so that cost and memory of a token grow with the tokens before it. */
#include "attention/exact.h"

void fv_exact_state_init(const fv_attention *op, int64_t capacity, void *state)
{
    fv_kv_cache_init(op, capacity, capacity, state);
}

typedef struct step_call {
    const fv_attention *op;
    fv_attention_io io;
    fv_kv_cache **states; /* [streams] */
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
    fv_kv_cache *state = c->states[stream];
    fv_exact_rows r = {
        .n = n,
        .open = state->tokens,
        .q = c->io.q + stream * c->io.q_stride + g * n * o->dim,
        .ldq = o->dim,
        .k = fv_kv_cache_keys(c->op, state, g),
        .ldk = o->dim,
        .v = fv_kv_cache_values(c->op, state, g),
        .ldv = o->value_dim,
        .y = c->io.y + stream * c->io.y_stride + g * n * o->value_dim,
        .ldy = o->value_dim,
    };
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    fv_exact_scratch scratch = fv_exact_scratch_push(&arena, c->op, c->tiles);
    fv_exact_attend(c->op, &r, c->tiles, &scratch);
}

/* Streams are sequences of one token. The token is stored first: it sees itself. */
fv_status fv_exact_step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                        const fv_states *states, void *scratch)
{
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    int64_t *offsets = FV_PUSH(&arena, int64_t, streams + 1);
    for (int64_t s = 0; s <= streams; s++)
        offsets[s] = s;
    fv_layout layout = {streams, offsets, NULL};
    step_call c = {.op = op, .io = fv_softmax_resolve(op, io), .tiles = fv_exact_forward_tiles(op, &layout)};
    c.states = FV_PUSH(&arena, fv_kv_cache *, streams);
    TRY(fv_kv_caches_find(op, &layout, states, c.states));
    fv_kv_caches_store(op, &layout, &c.io, c.states);
    fv_arena worker = fv_arena_measure();
    fv_exact_scratch_push(&worker, op, c.tiles);
    c.worker_bytes = worker.used;
    c.workers = fv_arena_push(&arena, op->ctx->threads, c.worker_bytes);
    fv_parallel(op->ctx, streams * op->options.kv_heads, step_task, &c);
    return FV_OK;
}
