/* kernelized_forward.c: outputs of kernelized attention, causal in chunks, bidirectional in two sweeps. */
#include "attention/kernelized_window.h"

/* Adds what non-finite entries of value row j give the rows that see it. w->v holds the values without them.
 */
static void add_poison(const fv_kz_call *call, fv_kz_work *w, const float *v_j, int64_t j, int64_t n,
                       float *y)
{
    const fv_kernels *kr = call->kr;
    float *poison = w->v + j * call->dv;
    kr->scale(call->dv, -1.0f, poison, poison);
    kr->axpy(call->dv, 1.0f, v_j, poison); /* v_j - clean: 0 where v_j is finite */
    for (int64_t i = j; i < n; i++)
        kr->axpy(call->dv, w->a[i * call->C + j], poison, y + i * call->ldy);
}

/* y rows [begin, begin+n) += A v over the chunk. A non-finite value row must not reach rows that do not see
 * it, and 0 * inf is NaN: such entries stay out of the product and are added to the rows that see them.
 * Values are copied in any case: the product must not round differently because of what a later token holds.
 */
static void add_diagonal(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    const fv_kernels *kr = call->kr;
    int64_t C = call->C, dv = call->dv, ldv = call->ldv;
    const float *v = h->v + begin * ldv;
    float *y = h->y + begin * call->ldy;
    int finite = kr->finite_rows(n, dv, v, ldv, w->v, dv);
    for (int64_t a = 0; a < n; a += FV_KZ_STRIP) {
        int64_t b = FV_MIN(a + FV_KZ_STRIP, n);
        kr->gemm('N', 'N', b - a, dv, b, 1.0f, w->a + a * C, C, w->v, dv, 1.0f, y + a * call->ldy, call->ldy);
    }
    for (int64_t j = 0; !finite && j < n; j++)
        if (!kr->all_finite(1, dv, v + j * ldv, ldv))
            add_poison(call, w, v + j * ldv, j, n, y);
}

/* Keys, queries and outputs of n causal tokens at most; returns how many of them make a chunk. */
static int64_t try_chunk(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    int64_t taken = fv_kz_keys(call, h, w, begin, n);
    return fv_kz_chunk_outputs(call, h, w, begin, n, taken);
}

int64_t fv_kz_chunk_outputs(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                            int64_t n, int64_t taken)
{
    const fv_kernels *kr = call->kr;
    int64_t r = call->r, dv = call->dv;
    float *y = h->y + begin * call->ldy;
    /* All n rows go through the products, whatever was taken: equal shapes give equal bits. */
    fv_kz_queries(call, h, w, begin, n);
    kr->row_dots(n, r, 1.0f, w->q, r, w->state.z, 0, 0.0f, w->den);
    fv_kz_scores(call, w, n);
    taken = fv_kz_moderate_rows(call, w, taken);
    if (taken == 0)
        return 0;
    fv_kz_normalise(call, w, n);
    kr->gemm('N', 'N', n, dv, r, 1.0f, w->q, r, w->state.S, dv, 0.0f, y, call->ldy);
    add_diagonal(call, h, w, begin, n);
    kr->scale_rows(taken, dv, w->inv, y, call->ldy, 0, y, call->ldy);
    return taken;
}

/* One chunk of n causal tokens at most; returns how many it took. */
static int64_t causal_chunk(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                            int64_t n)
{
    int64_t taken = try_chunk(call, h, w, begin, n);
    if (taken == 0) {
        fv_kz_begin_wide(call, h, w, begin);
        taken = try_chunk(call, h, w, begin, n);
    }
    fv_kz_absorb(call, h, w, begin, taken);
    return taken;
}

int64_t fv_kz_chunk_tokens(const fv_kz_call *call, int64_t begin, int64_t end)
{
    int64_t segment = call->C * FV_KZ_SEGMENT;
    if (call->op->options.causal)
        end = FV_MIN(end, (begin / segment + 1) * segment);
    return FV_MIN(call->C, end - begin);
}

void fv_kz_save_between(const fv_kz_call *call, const fv_kz_head *h, int64_t t, const fv_kz_state *state)
{
    int64_t segment = call->C * FV_KZ_SEGMENT, floats = fv_kz_state_floats(call);
    if (call->saved == NULL || t == 0 || t % segment != 0)
        return;
    int64_t slot = call->slots[h->sequence] + t / segment - 1;
    fv_kz_state_save(call, state, call->saved + (slot * call->H + h->head) * floats);
}

static void causal_head(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, bool windows)
{
    for (int64_t t = 0, done; t < h->nk; t += done) {
        done = windows ? fv_kz_window_forward(call, h, w, t) : 0;
        if (done > 0)
            continue;
        fv_kz_save_between(call, h, t, &w->state);
        done = causal_chunk(call, h, w, t, fv_kz_chunk_tokens(call, t, h->nk));
    }
}

/* Reading leaves every bit of a bidirectional state: from here on the worker has a state of its own. */
static void stay_out_of_stream(const fv_kz_call *call, fv_kz_work *w)
{
    if (call->io->state == NULL || call->op->options.causal)
        return;
    fv_kz_state_copy(call, &w->state, call->r, &w->own);
    w->state = w->own;
}

int64_t fv_kz_read_rows(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    const fv_kernels *kr = call->kr;
    const fv_kz_state *state = &w->state;
    int64_t r = call->r, dv = call->dv;
    float *y = h->y + begin * call->ldy;
    int64_t moderate = fv_kz_query_sums(call, h, w, begin, n);
    if (moderate < n)
        return moderate;
    fv_kz_normalise(call, w, n);
    if (n == 1) {
        kr->gemv('T', r, dv, w->inv[0], state->S, dv, w->q, 0.0f, y);
        return n;
    }
    kr->gemm('N', 'N', n, dv, r, 1.0f, w->q, r, state->S, dv, 0.0f, y, call->ldy);
    kr->scale_rows(n, dv, w->inv, y, call->ldy, 0, y, call->ldy);
    return n;
}

void fv_kz_read(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    if (fv_kz_read_rows(call, h, w, begin, n) == n)
        return;
    stay_out_of_stream(call, w);
    fv_kz_begin_wide(call, h, w, begin);
    (void)fv_kz_read_rows(call, h, w, begin, n);
}

static void absorb_keys(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, bool windows)
{
    for (int64_t t = 0, taken; t < h->nk; t += taken) {
        taken = windows ? fv_kz_window_forward(call, h, w, t) : 0;
        if (taken > 0)
            continue;
        taken = fv_kz_keys(call, h, w, t, fv_kz_chunk_tokens(call, t, h->nk));
        fv_kz_absorb(call, h, w, t, taken);
    }
}

static void bidirectional_head(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, bool windows)
{
    absorb_keys(call, h, w, windows);
    if (call->saved != NULL && fv_kz_slot_count(call, h->nk) > 0) {
        int64_t slot = call->slots[h->sequence] * call->H + h->head;
        fv_kz_state_save(call, &w->state, call->saved + slot * fv_kz_state_floats(call));
    }
    for (int64_t t = 0, n; t < h->nq; t += n) {
        t = windows ? fv_kz_window_read(call, h, w, t) : t;
        n = FV_MIN(call->C, h->nq - t);
        if (n > 0)
            fv_kz_read(call, h, w, t, n);
    }
}

static fv_state_view stream_view(const fv_kz_call *call, const fv_kz_head *h)
{
    fv_state_view view;
    size_t bytes = fv_kz_state_bytes(call->op, 0);
    fv_kz_state_view(call->op, (char *)call->io->state + (size_t)h->sequence * bytes, &view);
    return view;
}

/* Reads the running state of a stream into w, and back. */
static void stream_state(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, bool store)
{
    fv_state_view view = stream_view(call, h);
    fv_kz_state in_stream = fv_kz_state_at(call, &view, h->head);
    if (store)
        fv_kz_state_copy(call, &w->state, call->r, &in_stream);
    else
        fv_kz_state_copy(call, &in_stream, call->r, &w->state);
    if (store && view.decayed != NULL)
        view.decayed[h->head] = in_stream.decayed;
}

/* The state before the call's tokens. A bidirectional one is worked on in place: calls that read it are many, and
 * short. */
static void enter_state(const fv_kz_call *call, fv_kz_head *h, fv_kz_work *w)
{
    if (call->io->state == NULL) {
        fv_kz_state_clear(call, &w->state);
        return;
    }
    if (call->op->options.causal) {
        stream_state(call, h, w, false);
        h->first_q = w->state.tokens;
    } else {
        fv_state_view view = stream_view(call, h);
        w->state = fv_kz_state_at(call, &view, h->head);
        h->first_q = call->io->first_query;
    }
    h->first_k = w->state.tokens;
}

/* windows: on all threads, otherwise on the caller's. */
static void forward_head(const fv_kz_call *call, int64_t index, int worker, bool windows)
{
    fv_kz_work w = fv_kz_worker(call, worker, false);
    fv_kz_head h = fv_kz_head_of(call, index / call->H, index % call->H);
    fv_kz_take_on(call, &h, &w);
    if (call->biased) {
        fv_kz_bias_forward(call, &h, &w);
        return;
    }
    enter_state(call, &h, &w);
    fv_kz_start(call, &h, &w);
    if (call->op->options.causal) {
        causal_head(call, &h, &w, windows);
        if (call->io->state != NULL)
            stream_state(call, &h, &w, true);
    } else {
        bidirectional_head(call, &h, &w, windows);
    }
    if (call->wide_from != NULL)
        call->wide_from[index] = w.wide.from;
}

static void forward_task(void *arg, int64_t index, int worker)
{
    const fv_kz_call *call = arg;
    if (!fv_is_shared(&call->shared, index))
        forward_head(call, index, worker, false);
}

fv_status fv_kz_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                        void *saved, void *scratch)
{
    fv_kz_call call;
    TRY(fv_bias_check_span(op, layout));
    fv_kz_begin(&call, op, layout, false, io, NULL, saved, scratch);
    fv_kz_fft_begin(&call);
    fv_parallel(op->ctx, layout->sequences * call.H, forward_task, &call);
    for (int64_t i = 0; i < layout->sequences * call.H; i++)
        if (fv_is_shared(&call.shared, i))
            forward_head(&call, i, 0, true);
    for (int64_t s = 0; io->state != NULL && s < layout->sequences; s++) {
        fv_kz_state_header *header = (void *)((char *)io->state + (size_t)s * fv_kz_state_bytes(op, 0));
        header->tokens += fv_layout_keys(layout)[s + 1] - fv_layout_keys(layout)[s];
    }
    return FV_OK;
}
