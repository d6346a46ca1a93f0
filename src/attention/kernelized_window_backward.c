/* kernelized_window_backward.c: gradients through windows (kernelized_window.h).
 *
 *     rows     what depends on the states alone: queries' gradients, and g, rho, A, P of each chunk        a task a chunk
 *     states   the gradient of the state through the chunks, last first, S's rows being independent        a task a block
 *     keys     gradients of keys and values from it, and from A and P                                      a task a chunk
 *
 * Bidirectional: there is one gradient of the state, complete before the first key.
 */
#include "attention/kernelized_window.h"

int64_t fv_kz_window_segments(const fv_kz_call *call)
{
    return call->window->limit / FV_KZ_SEGMENT;
}

/* What a task on chunk `index` works with: the chunk's arrays in place of the worker's; bidirectional ones share the states. */
static fv_kz_work on_chunk(const fv_kz_window *window, int64_t index, int worker, fv_kz_head *h)
{
    const fv_kz_chunk *chunk = &window->chunk[index];
    const bool causal = window->call->op->options.causal != 0;
    fv_kz_work w = fv_kz_window_worker(window, worker, true, h);
    w.q = chunk->q, w.g = chunk->g, w.rho = chunk->rho;
    w.k = chunk->k;
    w.state = causal ? chunk->state : window->state;
    w.grad = causal ? chunk->grad : window->grad;
    if (causal)
        w.a = chunk->a, w.p = chunk->p;
    return w;
}

static void rows_task(void *arg, int64_t index, int worker)
{
    const fv_kz_window *window = arg;
    const fv_kz_chunk *chunk = &window->chunk[index];
    fv_kz_head h;
    fv_kz_work w = on_chunk(window, index, worker, &h);
    fv_kz_back_rows(window->call, &h, &w, chunk->begin, chunk->n);
}

/* Features of causal keys are there since the states were made. */
static void keys_task(void *arg, int64_t index, int worker)
{
    const fv_kz_window *window = arg;
    const fv_kz_call *call = window->call;
    const fv_kz_chunk *chunk = &window->chunk[index];
    fv_kz_head h;
    fv_kz_work w = on_chunk(window, index, worker, &h);
    if (!call->op->options.causal)
        (void)fv_kz_key_features(call, &h, &w, chunk->begin, chunk->n);
    fv_kz_back_keys(call, &h, &w, chunk->begin, chunk->n);
}

/* ---- causal ------------------------------------------------------------------------------------------- */

static void states_task(void *arg, int64_t index, int worker)
{
    const fv_kz_window *window = arg;
    const fv_kz_call *call = window->call;
    int64_t first = index * window->features, n = FV_MIN(window->features, call->r - first);
    fv_kz_work w = fv_kz_worker(call, worker, true);
    fv_kz_state running = fv_kz_state_part(call, &window->grad, first);
    for (int64_t i = window->count - 1; i >= 0; i--) {
        const fv_kz_chunk *chunk = &window->chunk[i];
        fv_kz_state leaving = fv_kz_state_part(call, &chunk->grad, first);
        if (window->moves)
            fv_kz_move_gradient(call, &running, n, chunk->state.e + first, 0, w.factor);
        fv_kz_state_copy(call, &running, n, &leaving);
        fv_kz_state_add(call, &running, n, chunk->n, chunk->q + first, chunk->rho, chunk->g, call->dv);
    }
}

bool fv_kz_window_back_causal(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                              int64_t end)
{
    fv_kz_window *window = call->window;
    fv_context *ctx = call->op->ctx;
    int64_t from = w->wide.from;
    if (from > begin && from < end)
        return false;
    w->wide.on = false;
    fv_kz_start(call, h, w);
    if (from < begin)
        fv_kz_wide_on(call, h, w);
    else if (from == begin)
        fv_kz_begin_wide(call, h, w, from);
    window->reach = window->limit;
    if (fv_kz_window_walk(window, h, w, begin, end) > window->count)
        return false;
    window->grad = w->grad;
    window->moves = fv_kz_gradient_moves(call, w);
    fv_parallel(ctx, window->count, rows_task, window);
    fv_parallel(ctx, window->blocks, states_task, window);
    fv_parallel(ctx, window->count, keys_task, window);
    return true;
}

/* ---- bidirectional ------------------------------------------------------------------------------------ */

/* All tiles' rows add to the one gradient. */
static void sum_task(void *arg, int64_t index, int worker)
{
    (void)worker;
    const fv_kz_window *window = arg;
    const fv_kz_call *call = window->call;
    int64_t first = index * window->features, n = FV_MIN(window->features, call->r - first);
    fv_kz_state grad = fv_kz_state_part(call, &window->grad, first);
    for (int64_t i = 0; i < window->count; i++) {
        const fv_kz_chunk *tile = &window->chunk[i];
        fv_kz_state_add(call, &grad, n, tile->n, tile->q + first, tile->rho, tile->g, call->dv);
    }
}

void fv_kz_window_back(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w)
{
    fv_kz_window *window = call->window;
    fv_context *ctx = call->op->ctx;
    window->reach = window->limit;
    window->state = w->state;
    window->grad = w->grad;
    for (int64_t t = 0; t < h->nq; t = window->end) {
        int64_t tiles = fv_kz_window_take_on(window, h, w, t, h->nq);
        fv_parallel(ctx, tiles, rows_task, window);
        fv_parallel(ctx, window->blocks, sum_task, window);
    }
    for (int64_t t = 0; t < h->nk; t = window->end) {
        int64_t tiles = fv_kz_window_take_on(window, h, w, t, h->nk);
        fv_parallel(ctx, tiles, keys_task, window);
    }
}
