/* kernelized_window.c: windows, and forward through them (kernelized_window.h). */
#include "attention/kernelized_window.h"

enum {
    LONGEST_CHUNK = 256,
    LEAST_CHUNKS = 8,    /* of a sequence's queries and keys, each */
    LEAST_FEATURES = 32, /* of a block */
    FEATURES_STEP = 16,
};

/* ---- memory ------------------------------------------------------------------------------------------- */

/* Follows the operator alone: scratch is measured before there is a call. */
static bool possible(const fv_kz_call *call)
{
    int64_t threads = call->op->ctx->threads;
    return !call->map.single && !call->decaying && !call->biased && call->C <= LONGEST_CHUNK &&
           (call->H % threads != 0 || call->G % threads != 0);
}

static fv_task_size size_of_head(const void *arg, int64_t s)
{
    const fv_kz_call *call = arg;
    const int64_t *q = call->layout->offsets_q, *k = fv_layout_keys(call->layout);
    int64_t n = q[s + 1] - q[s] + k[s + 1] - k[s], chunks = n / (2 * call->C);
    return (fv_task_size){.work = (double)n, .pieces = chunks < LEAST_CHUNKS ? 0 : chunks};
}

void fv_kz_window_share(fv_kz_call *call)
{
    int64_t heads = call->grad != NULL ? call->G : call->H;
    int64_t threads = call->window != NULL && !call->by_head ? call->op->ctx->threads : 1;
    call->shared = fv_share_heads(call->layout->sequences, heads, threads, size_of_head, call);
}

/* Bidirectional chunks share one state, which no row looks at before all keys are in it. */
static fv_kz_chunk push_chunk(const fv_kz_call *call, fv_arena *arena, const fv_kz_state *shared,
                              bool backward)
{
    int64_t C = call->C, r = call->r;
    fv_kz_chunk chunk = {.state = call->op->options.causal ? fv_kz_state_push(call, arena) : *shared};
    chunk.k = FV_PUSH(arena, float, C *r);
    chunk.bias = FV_PUSH(arena, float, C);
    if (call->op->mechanism->map->coefficients || call->plain)
        chunk.c = FV_PUSH(arena, float, C *r);
    if (!backward)
        return chunk;
    chunk.q = FV_PUSH(arena, float, C *r);
    chunk.g = FV_PUSH(arena, float, C * call->dv);
    chunk.rho = FV_PUSH(arena, float, C);
    if (call->op->options.causal) {
        chunk.grad = fv_kz_state_push(call, arena);
        chunk.a = FV_PUSH(arena, float, C *C);
        chunk.p = FV_PUSH(arena, float, C *C);
    }
    return chunk;
}

void fv_kz_window_carve(fv_kz_call *call, fv_arena *arena, bool backward)
{
    int64_t threads = call->op->ctx->threads, parts = (call->r + threads - 1) / threads;
    int64_t limit = FV_KZ_SEGMENT * ((threads + 3) / 4);
    if (!possible(call))
        return;
    fv_kz_window *window = FV_PUSH(arena, fv_kz_window, 1);
    fv_kz_chunk *chunk = FV_PUSH(arena, fv_kz_chunk, limit + 1);
    int64_t features = FV_MAX((parts + FEATURES_STEP - 1) / FEATURES_STEP * FEATURES_STEP, LEAST_FEATURES);
    int64_t blocks = (call->r + features - 1) / features;
    float *top = FV_PUSH(arena, float, limit *blocks);
    fv_kz_state shared = {0};
    if (!call->op->options.causal)
        shared = fv_kz_state_push(call, arena);
    for (int64_t i = 0; i <= limit; i++) {
        fv_kz_chunk one = push_chunk(call, arena, &shared, backward);
        if (chunk != NULL)
            chunk[i] = one;
    }
    if (window == NULL)
        return;
    *window = (fv_kz_window){.call = call,
                             .limit = limit,
                             .reach = limit,
                             .features = features,
                             .blocks = blocks,
                             .chunk = chunk,
                             .top = top};
    call->window = window;
}

fv_kz_work fv_kz_window_worker(const fv_kz_window *window, int worker, bool backward, fv_kz_head *h)
{
    fv_kz_work w = fv_kz_worker(window->call, worker, backward);
    *h = window->head;
    h->map.work = w.product;
    if (window->wide)
        fv_kz_wide_on(window->call, h, &w);
    return w;
}

int64_t fv_kz_window_take_on(fv_kz_window *window, const fv_kz_head *h, const fv_kz_work *w, int64_t begin,
                             int64_t end)
{
    const fv_kz_call *call = window->call;
    window->head = *h;
    window->wide = w->wide.on;
    window->count = 0;
    while (begin < end && window->count < window->reach) {
        fv_kz_chunk *chunk = &window->chunk[window->count++];
        chunk->begin = begin;
        chunk->n = fv_kz_chunk_tokens(call, begin, end);
        begin += chunk->n;
    }
    window->end = begin;
    return window->count;
}

/* The window ends before its first chunk that is not whole. */
static void end_where_broken(fv_kz_window *window)
{
    int64_t whole = 0;
    while (whole < window->count && window->chunk[whole].whole)
        whole++;
    window->count = whole;
}

/* ---- keys and states ---------------------------------------------------------------------------------- */

static void keys_task(void *arg, int64_t index, int worker)
{
    fv_kz_window *window = arg;
    const fv_kz_call *call = window->call;
    fv_kz_chunk *chunk = &window->chunk[index];
    fv_kz_head h;
    fv_kz_work w = fv_kz_window_worker(window, worker, false, &h);
    fv_rows rows = fv_kz_rows(call, &h, true, chunk->begin, chunk->n);
    w.k = chunk->k;
    fv_kz_logits(call, &h, &w, &rows, chunk->k, chunk->c, NULL, chunk->bias);
    chunk->whole = fv_kz_logs(call, &w) || fv_kz_moderate_keys(call, &w, &rows) == chunk->n;
}

/* Features [first, first + n) of the chunk's keys become powers relative to the state, which is raised to them; returns the
 * largest log2. */
static float block_powers(const fv_kz_call *call, const fv_kz_work *w, fv_kz_chunk *chunk, fv_kz_state *state,
                          int64_t first, int64_t n)
{
    const fv_kernels *kr = call->kr;
    float *k = chunk->k + first;
    if (!fv_kz_logs(call, w))
        return 0;
    fv_kz_raise(call, state, n, k, chunk->bias[0], w->factor);
    float top = kr->exp2_rows(chunk->n, n, k, call->r, chunk->bias, state->e);
    for (int64_t i = 0; i < chunk->n && fv_kz_has_coefficients(call, w); i++)
        kr->mul(n, k + i * call->r, chunk->c + i * call->r + first, k + i * call->r);
    return top;
}

static void states_task(void *arg, int64_t index, int worker)
{
    fv_kz_window *window = arg;
    const fv_kz_call *call = window->call;
    int64_t first = index * window->features, n = FV_MIN(window->features, call->r - first);
    fv_kz_head h;
    fv_kz_work w = fv_kz_window_worker(window, worker, false, &h);
    for (int64_t i = 0; i < window->count; i++) {
        fv_kz_chunk *chunk = &window->chunk[i];
        fv_kz_state state = fv_kz_state_part(call, &chunk->state, first);
        fv_kz_state next = fv_kz_state_part(call, &chunk[1].state, first);
        window->top[i * window->blocks + index] = block_powers(call, &w, chunk, &state, first, n);
        if (next.S != state.S)
            fv_kz_state_copy(call, &state, n, &next);
        fv_kz_state_add(call, &next, n, chunk->n, chunk->k + first, NULL, h.v + chunk->begin * call->ldv,
                        call->ldv);
        if (fv_kz_lowers(call, &w))
            fv_kz_lower(call, &next, n, w.factor);
    }
}

int64_t fv_kz_window_walk(fv_kz_window *window, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                          int64_t end)
{
    const fv_kz_call *call = window->call;
    int64_t planned = fv_kz_window_take_on(window, h, w, begin, end);
    fv_parallel(call->op->ctx, window->count, keys_task, window);
    end_where_broken(window);
    fv_kz_chunk *chunk = window->chunk;
    int64_t entered = window->count;
    fv_kz_state_copy(call, &w->state, call->r, &chunk->state);
    for (int64_t i = 0; i < window->count; i++)
        chunk[i + 1].state.tokens = chunk[i].state.tokens + chunk[i].n;
    fv_parallel(call->op->ctx, window->blocks, states_task, window);
    for (int64_t i = 0; i < window->count; i++)
        for (int64_t b = 0; b < window->blocks; b++)
            chunk[i].whole &= window->top[i * window->blocks + b] <= (float)FV_KZ_LIMIT;
    end_where_broken(window);
    if (window->count > 0 && window->count < entered && !call->op->options.causal) {
        /* The shared state has what lies behind the break: once more, up to there. */
        window->reach = window->count;
        (void)fv_kz_window_walk(window, h, w, begin, end);
    }
    return planned;
}

int64_t fv_kz_window_leave(const fv_kz_window *window, fv_kz_work *w)
{
    const fv_kz_state *left = &window->chunk[window->count].state;
    int64_t done = left->tokens - w->state.tokens;
    if (window->count > 0)
        fv_kz_state_copy(window->call, left, window->call->r, &w->state);
    return done;
}

/* ---- outputs ------------------------------------------------------------------------------------------ */

static void outputs_task(void *arg, int64_t index, int worker)
{
    fv_kz_window *window = arg;
    fv_kz_chunk *chunk = &window->chunk[index];
    fv_kz_head h;
    fv_kz_work w = fv_kz_window_worker(window, worker, false, &h);
    w.state = chunk->state;
    w.k = chunk->k;
    chunk->whole = fv_kz_chunk_outputs(window->call, &h, &w, chunk->begin, chunk->n, chunk->n) == chunk->n;
}

/* States that stand between the window's segments. */
static void save_states(const fv_kz_window *window)
{
    for (int64_t i = 0; i < window->count; i++)
        fv_kz_save_between(window->call, &window->head, window->chunk[i].begin, &window->chunk[i].state);
}

int64_t fv_kz_window_forward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin)
{
    fv_kz_window *window = call->window;
    int64_t planned = fv_kz_window_walk(window, h, w, begin, h->nk);
    if (call->op->options.causal) {
        fv_parallel(call->op->ctx, window->count, outputs_task, window);
        end_where_broken(window);
        save_states(window);
    }
    if (window->count < planned)
        window->reach = FV_MAX(window->count, 1);
    else
        window->reach = FV_MIN(2 * window->reach, window->limit);
    return fv_kz_window_leave(window, w);
}

static void read_task(void *arg, int64_t index, int worker)
{
    fv_kz_window *window = arg;
    const fv_kz_call *call = window->call;
    int64_t begin = window->end + index * call->C, n = FV_MIN(call->C, window->head.nq - begin);
    fv_kz_head h;
    fv_kz_work w = fv_kz_window_worker(window, worker, false, &h);
    w.state = window->state;
    if (begin >= atomic_load(&window->broken) || fv_kz_read_rows(call, &h, &w, begin, n) == n)
        return;
    int64_t least = atomic_load(&window->broken);
    while (begin < least && !atomic_compare_exchange_weak(&window->broken, &least, begin))
        ;
}

int64_t fv_kz_window_read(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin)
{
    fv_kz_window *window = call->window;
    window->head = *h;
    window->wide = w->wide.on;
    window->state = w->state;
    window->end = begin;
    atomic_store(&window->broken, h->nq);
    fv_parallel(call->op->ctx, (h->nq - begin + call->C - 1) / call->C, read_task, window);
    return atomic_load(&window->broken);
}
