/* kernelized_backward.c: gradients of kernelized attention.
 *
 * With g_i = dy_i / D_i and rho_i = -(dD'_i/dD_i) (dy_i . y_i) / D_i (zero where the guard holds the
 * normaliser fixed), in a causal chunk with entering state (S, z), gradients (G, c) of the state that leaves
 * it, and A = tril(q psi^T), P = tril(g V^T + rho 1^T):
 *
 *     dq   = g S^T + rho z^T + P psi
 *     dpsi = P^T q + V G^T + 1 c^T
 *     dV   = A^T g + psi G
 *     G   += q^T g,   c += q^T rho
 *
 * taken last chunk first. y itself is not needed: D_i (g_i . y_i) = q_i . (g_i S^T) + sum_j A_ij (g_i . v_j).
 * Bidirectional: the same without A and P, queries first, keys after.
 *
 * Gate and decay (kernelized_decay.c): the same with psi for the features of keys, S' for S, and factors between the
 * states of one chunk and the next.
 *
 * States are not undone by subtraction, which drifts: forward saves the state every FV_KZ_SEGMENT chunks, and
 * each segment is walked forward once more into a ring of entering states. Cut chunks (kernelized.h) may make
 * a segment longer than the ring; then its tail is done first and the walk repeated up to there.
 */
#include "attention/kernelized_window.h"
#include <math.h>

/* One chunk as the ring remembers it. */
typedef struct entry {
    fv_kz_state state; /* entering, at the chunk's exponents; where it decays: as it was before */
    float *k;          /* features of its keys */
    float *shift;      /* where it decays: fv_kz_fade's */
    int64_t begin, n;
    bool wide; /* features of its keys */
} entry;

static entry ring_entry(const fv_kz_call *call, const fv_kz_work *w, int64_t index)
{
    int64_t floats = fv_kz_state_floats(call) + call->C * call->r + (call->decaying ? call->r : 0);
    float *base = w->ring + index % FV_KZ_SEGMENT * floats;
    entry e = {.state = {.S = base}};
    e.state.z = e.state.S + call->r * call->dv;
    e.state.e = e.state.z + call->r;
    e.k = e.state.e + call->r;
    e.shift = e.k + call->C * call->r;
    return e;
}

/* w->g = dy / D, from w->inv. */
static void scaled_dy(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    call->kr->scale_rows(n, call->dv, w->inv, h->dy + begin * call->ldy, call->ldy, 0, w->g, call->dv);
}

/* w->rho from w->sums = D (g . y), both factors' guards applied. */
static void make_rho(fv_kz_work *w, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        w->rho[i] = w->pass[i] == 0.0f ? 0.0f : -w->pass[i] * w->inv[i] * w->sums[i];
}

void fv_kz_row_powers(const fv_kz_call *call, fv_kz_work *w, const fv_rows *rows, float *x)
{
    int64_t n = rows->n, r = call->r;
    if (!rows->key) {
        fv_kz_query_powers(call, w, n, x, NULL);
    } else if (!call->decaying) {
        (void)call->kr->exp2_rows(n, r, x, r, w->bias, w->state.e);
    } else {
        (void)fv_kz_fade_exp2(call, w, n, x);
        call->kr->scale_rows(n, r, w->fade.weight, x, r, 0, x, r);
    }
}

/* phi = c E: w->gc = dL/dc = t E and w->t = dL/dln|phi| = t E c, with E and c computed again. */
static void through_coefficients(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w,
                                 const fv_rows *rows)
{
    const fv_kernels *kr = call->kr;
    int64_t n = rows->n, r = call->r;
    call->op->mechanism->map->logits(&h->map, rows, w->gc, w->c, w->bias);
    fv_kz_row_powers(call, w, rows, w->gc);
    kr->mul(n * r, w->gc, w->t, w->gc);
    kr->mul(n * r, w->gc, w->c, w->t);
}

/* Takes w->t = dL/dphi of rows whose features are phi [n][r] back to them: dx, and the inputs' gradients. */
void fv_kz_through_map(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_rows *rows,
                       const float *phi, float *dx)
{
    const fv_feature_map *map = call->op->mechanism->map;
    if (dx == NULL && !call->by_head)
        return;
    if (w->wide.on) {
        fv_kz_wide_back(call, h, w, rows, dx);
        return;
    }
    if (map->coefficients)
        through_coefficients(call, h, w, rows);
    else if (map->exponential)
        call->kr->mul(rows->n * call->r, w->t, phi, w->t);
    bool add = dx != NULL && !call->grad->in_place;
    map->backward(&h->map, rows, w->t, w->gc, add, dx != NULL ? dx : w->dump,
                  dx != NULL ? rows->ldx : call->d, w->tmp);
}

static void query_gradient(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                           int64_t n)
{
    fv_rows rows = fv_kz_rows(call, h, false, begin, n);
    fv_kz_through_map(call, h, w, &rows, w->q, h->dq != NULL ? h->dq + begin * call->ldq : NULL);
}

static void key_gradient(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    fv_rows rows = fv_kz_rows(call, h, true, begin, n);
    fv_kz_through_map(call, h, w, &rows, w->k, h->dk != NULL ? h->dk + begin * call->ldk : NULL);
}

/* w->t = V G^T + 1 c^T */
static void key_term_of_state(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                              int64_t n)
{
    const fv_kernels *kr = call->kr;
    kr->gemm('N', 'T', n, call->r, call->dv, 1.0f, h->v + begin * call->ldv, call->ldv, w->grad.S, call->dv,
             0.0f, w->t, call->r);
    kr->bias_rows(n, call->r, w->t, w->grad.z, w->t);
}

/* dV of n keys: psi G, then A^T g where there is a diagonal. */
static void value_gradient(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                           int64_t n, bool diagonal)
{
    if (h->dv == NULL)
        return;
    const fv_kernels *kr = call->kr;
    int64_t dv = call->dv, C = call->C, ldv = call->ldv;
    float *out = h->dv + begin * ldv;
    kr->gemm('N', 'N', n, dv, call->r, 1.0f, w->k, call->r, w->grad.S, dv, call->grad->in_place ? 0.0f : 1.0f,
             out, ldv);
    for (int64_t a = 0; diagonal && a < n; a += FV_KZ_STRIP) {
        int64_t b = FV_MIN(a + FV_KZ_STRIP, n);
        kr->gemm('T', 'N', b - a, dv, n - a, 1.0f, w->a + a * C + a, C, w->g + a * dv, dv, 1.0f,
                 out + a * ldv, ldv);
    }
}

void fv_kz_move_gradient(const fv_kz_call *call, fv_kz_state *grad, int64_t n, const float *e, double fade,
                         float *factor)
{
    const fv_kernels *kr = call->kr;
    for (int64_t f = 0; f < n; f++)
        factor[f] = (float)exp2(FV_MIN((double)(e[f] - grad->e[f]) + fade, 126.0));
    fv_kz_rescale(call, grad, n, factor);
    kr->copy_rows(1, n, e, n, grad->e, n);
}

bool fv_kz_gradient_moves(const fv_kz_call *call, const fv_kz_work *w)
{
    return !call->plain || call->decaying || w->wide.from != FV_KZ_NEVER;
}

/* Makes G and c relative to the chunk's exponents, and where the operator decays to the state before the chunk's last n - 1 factors
 * and that of the token behind. */
static void move_gradient(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    double fade = call->decaying ? w->fade.lambda[n - 1] + w->fade.carry : 0;
    if (fv_kz_gradient_moves(call, w))
        fv_kz_move_gradient(call, &w->grad, call->r, w->state.e, fade, w->factor);
}

/* P = tril(g V^T), and w->sums += rows of A . P */
static void diagonal_products(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                              int64_t n)
{
    const fv_kernels *kr = call->kr;
    int64_t C = call->C, dv = call->dv;
    kr->transpose(n, dv, h->v + begin * call->ldv, call->ldv, w->v, C);
    for (int64_t a = 0; a < n; a += FV_KZ_STRIP) {
        int64_t b = FV_MIN(a + FV_KZ_STRIP, n);
        float *p = w->p + a * C;
        kr->gemm('N', 'N', b - a, b, dv, 1.0f, w->g + a * dv, dv, w->v, C, 0.0f, p, C);
        kr->row_dots(b - a, b, 1.0f, w->a + a * C, C, p, C, 1.0f, w->sums + a);
    }
}

/* P += rho 1^T below the diagonal, then w->t += P psi. */
static void add_query_diagonal(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    const fv_kernels *kr = call->kr;
    int64_t C = call->C, r = call->r;
    for (int64_t a = 0; a < n; a += FV_KZ_STRIP) {
        int64_t b = FV_MIN(a + FV_KZ_STRIP, n);
        float *p = w->p + a * C;
        kr->add_outer(b - a, b, w->rho + a, w->ones, p, C);
        kr->mask_rows(b - a, b, w->visible + a, p, C);
        kr->gemm('N', 'N', b - a, r, b, 1.0f, p, C, w->k, r, 1.0f, w->t + a * r, r);
    }
}

/* w->t += P^T q */
static void add_key_diagonal(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    int64_t C = call->C, r = call->r;
    for (int64_t a = 0; a < n; a += FV_KZ_STRIP) {
        int64_t b = FV_MIN(a + FV_KZ_STRIP, n);
        call->kr->gemm('T', 'N', b - a, r, n - a, 1.0f, w->p + a * C + a, C, w->q + a * r, r, 1.0f,
                       w->t + a * r, r);
    }
}

/* w->t = g S^T, w->sums = rows of q . t: shared by both directions. */
static void query_term_of_state(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    const fv_kernels *kr = call->kr;
    kr->gemm('N', 'T', n, call->r, call->dv, 1.0f, w->g, call->dv, w->state.S, call->dv, 0.0f, w->t, call->r);
    kr->row_dots(n, call->r, 1.0f, w->q, call->r, w->t, call->r, 0.0f, w->sums);
}

/* The chunk's entering state and keys become the ones worked on. */
static void enter_chunk(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const entry *chunk)
{
    w->k = chunk->k;
    w->wide.on = chunk->wide;
    if (!call->decaying) {
        w->state = chunk->state;
        return;
    }
    (void)fv_kz_fade_chunk(call, h, w, chunk->begin, chunk->n);
    fv_kz_fade_enter(call, w, &chunk->state, chunk->shift);
}

/* out[i] = row i of a . row i of w->t: what gates and the decay want to know. */
static void fade_dots(const fv_kz_call *call, fv_kz_work *w, int64_t n, const float *a, float *out)
{
    if (call->fade_gradient)
        call->kr->row_dots(n, call->r, 1.0f, a, call->r, w->t, call->r, 0.0f, out);
}

/* G and c of the state that left become those of the one that entered. */
static void leave_chunk(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const entry *chunk)
{
    double through = call->fade_gradient ? fv_kz_state_product(call, w, &w->state, &w->grad) : 0;
    fv_kz_state_add(call, &w->grad, call->r, chunk->n, w->q, w->rho, w->g, call->dv);
    if (call->fade_gradient)
        fv_kz_fade_gradient(call, h, w, chunk->begin, chunk->n, &chunk->state, chunk->shift, through);
    w->fade.carry = w->fade.first;
}

void fv_kz_back_rows(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    const fv_kernels *kr = call->kr;
    const bool diagonal = call->op->options.causal != 0;
    int64_t r = call->r;
    fv_kz_queries(call, h, w, begin, n);
    kr->row_dots(n, r, 1.0f, w->q, r, w->state.z, 0, 0.0f, w->den);
    if (diagonal)
        fv_kz_scores(call, w, n);
    fv_kz_normalise(call, w, n);
    scaled_dy(call, h, w, begin, n);
    query_term_of_state(call, w, n);
    if (diagonal)
        diagonal_products(call, h, w, begin, n);
    make_rho(w, n);
    kr->add_outer(n, r, w->rho, w->state.z, w->t, r);
    fade_dots(call, w, n, w->q, w->fade.seen);
    if (diagonal)
        add_query_diagonal(call, w, n);
    query_gradient(call, h, w, begin, n);
}

void fv_kz_back_keys(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    const bool diagonal = call->op->options.causal != 0;
    key_term_of_state(call, h, w, begin, n);
    fade_dots(call, w, n, w->k, w->fade.left);
    if (diagonal)
        add_key_diagonal(call, w, n);
    fade_dots(call, w, n, w->k, w->fade.pull);
    if (call->fade_gradient) {
        fv_kz_fade_unseen(call, h, w, begin, n);
        call->kr->straddle_dots(n, n, w->a, call->C, w->p, call->C, w->fade.pairs);
    }
    key_gradient(call, h, w, begin, n);
    value_gradient(call, h, w, begin, n, diagonal);
}

static void causal_chunk(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const entry *chunk)
{
    fv_kz_state running = w->state;
    float *keys = w->k;
    enter_chunk(call, h, w, chunk);
    move_gradient(call, w, chunk->n);
    fv_kz_back_rows(call, h, w, chunk->begin, chunk->n);
    fv_kz_back_keys(call, h, w, chunk->begin, chunk->n);
    leave_chunk(call, h, w, chunk);
    w->state = running;
    w->k = keys;
}

/* Walks keys [first, end) of a segment forward, remembering the last chunks in the ring; returns their
 * number. */
static int64_t walk_segment(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t first,
                            int64_t end, int64_t segment_end, entry ring[FV_KZ_SEGMENT])
{
    int64_t count = 0, from = w->wide.from;
    float *keys = w->k;
    w->wide.on = false;
    fv_kz_start(call, h, w);
    if (first > from)
        fv_kz_wide_on(call, h, w);
    for (int64_t t = first; t < end; count++) {
        int64_t n = FV_MIN(call->C, segment_end - t);
        entry e = ring_entry(call, w, count);
        w->k = e.k;
        if (t == from)
            fv_kz_begin_wide(call, h, w, from);
        else if (t < from)
            n = FV_MIN(n, from - t);
        if (call->decaying) {
            w->fade.shift = e.shift;
            fv_kz_state_save(call, &w->state, e.state.S);
        }
        e.begin = t;
        e.wide = w->wide.on;
        e.n = fv_kz_keys(call, h, w, t, n);
        if (call->decaying)
            call->kr->copy_rows(1, call->r, w->state.e, call->r, e.state.e, call->r);
        else
            fv_kz_state_save(call, &w->state, e.state.S);
        ring[count % FV_KZ_SEGMENT] = e;
        t += e.n;
        if (t < end)
            fv_kz_absorb(call, h, w, e.begin, e.n);
    }
    w->k = keys;
    return count;
}

/* The state that enters segment s. */
static void enter_segment(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t s)
{
    int64_t floats = fv_kz_state_floats(call), slot = call->slots[h->sequence] + s - 1;
    if (s == 0)
        fv_kz_state_clear(call, &w->state);
    else
        fv_kz_state_load(call, &w->state, call->saved + (slot * call->H + h->head) * floats,
                         s * call->C * FV_KZ_SEGMENT);
}

static void back_segment(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t s,
                         int64_t segment_end)
{
    int64_t first = s * call->C * FV_KZ_SEGMENT;
    entry ring[FV_KZ_SEGMENT];
    for (int64_t end = segment_end; end > first;) {
        enter_segment(call, h, w, s);
        int64_t count = walk_segment(call, h, w, first, end, segment_end, ring);
        for (int64_t i = count - 1; i >= 0 && i >= count - FV_KZ_SEGMENT; i--) {
            causal_chunk(call, h, w, &ring[i % FV_KZ_SEGMENT]);
            end = ring[i % FV_KZ_SEGMENT].begin;
        }
    }
}

static void causal_head(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, bool windows)
{
    int64_t segment = call->C * FV_KZ_SEGMENT;
    int64_t most = windows ? fv_kz_window_segments(call) : 1;
    for (int64_t last = (h->nk + segment - 1) / segment, first; last > 0; last = first) {
        first = FV_MAX(last - most, 0);
        enter_segment(call, h, w, first);
        if (windows && fv_kz_window_back_causal(call, h, w, first * segment, FV_MIN(last * segment, h->nk)))
            continue;
        for (int64_t s = last - 1; s >= first; s--)
            back_segment(call, h, w, s, FV_MIN((s + 1) * segment, h->nk));
    }
}

/* The final state of a bidirectional sequence: kept by forward, or computed again when it is short. */
static void final_state(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w)
{
    bool saved = fv_kz_slot_count(call, h->nk) > 0;
    if (saved) {
        int64_t slot = call->slots[h->sequence] * call->H + h->head;
        fv_kz_state_load(call, &w->state, call->saved + slot * fv_kz_state_floats(call), h->nk);
        fv_kz_start(call, h, w);
    }
    for (int64_t t = 0; t < h->nk && !saved;) {
        int64_t taken = fv_kz_keys(call, h, w, t, FV_MIN(call->C, h->nk - t));
        fv_kz_absorb(call, h, w, t, taken);
        t += taken;
    }
    if (w->wide.from != FV_KZ_NEVER && !w->wide.on)
        fv_kz_begin_wide(call, h, w, 0);
}

static void bidirectional_head(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, bool windows)
{
    final_state(call, h, w);
    if (windows) {
        fv_kz_window_back(call, h, w);
        return;
    }
    for (int64_t t = 0; t < h->nq; t += call->C) {
        int64_t n = FV_MIN(call->C, h->nq - t);
        fv_kz_back_rows(call, h, w, t, n);
        fv_kz_state_add(call, &w->grad, call->r, n, w->q, w->rho, w->g, call->dv);
    }
    for (int64_t t = 0; t < h->nk; t += call->C) {
        int64_t n = FV_MIN(call->C, h->nk - t);
        /* Against the final exponents, which no key exceeds by more than the state's own range. */
        (void)fv_kz_key_features(call, h, w, t, n);
        fv_kz_back_keys(call, h, w, t, n);
    }
}

/* A key/value head of a sequence: its query heads add into the same dk and dv, in order. */
static void backward_heads(const fv_kz_call *call, fv_kz_work *w, int64_t sequence, int64_t kv, bool windows)
{
    int64_t group = call->H / call->G;
    for (int64_t head = kv * group; head < (kv + 1) * group; head++) {
        fv_kz_head h = fv_kz_head_of(call, sequence, head);
        fv_kz_take_on(call, &h, w);
        fv_kz_state_clear(call, &w->state);
        fv_kz_state_clear(call, &w->grad);
        w->fade.carry = w->fade.sum_decay = 0;
        w->wide.on = false;
        if (call->wide_from != NULL)
            w->wide.from = call->wide_from[sequence * call->H + head];
        if (call->biased)
            fv_kz_bias_backward(call, &h, w);
        else if (call->op->options.causal)
            causal_head(call, &h, w, windows);
        else
            bidirectional_head(call, &h, w, windows);
        if (h.map.d_input[FV_INPUT_DECAY] != NULL)
            *h.map.d_input[FV_INPUT_DECAY] += (float)w->fade.sum_decay;
    }
}

/* One task is a key/value head of a sequence, or of all sequences in order where they add to the same
 * gradient of an input. */
static void backward_task(void *arg, int64_t index, int worker)
{
    const fv_kz_call *call = arg;
    fv_kz_work w = fv_kz_worker(call, worker, true);
    if (fv_is_shared(&call->shared, index))
        return;
    if (!call->by_head)
        backward_heads(call, &w, index / call->G, index % call->G, false);
    for (int64_t s = 0; call->by_head && s < call->layout->sequences; s++)
        backward_heads(call, &w, s, index, false);
}

/* The heads that are left to windows. */
static void backward_windows(const fv_kz_call *call)
{
    fv_kz_work w = fv_kz_worker(call, 0, true);
    for (int64_t i = 0; i < call->layout->sequences * call->G; i++)
        if (fv_is_shared(&call->shared, i))
            backward_heads(call, &w, i / call->G, i % call->G, true);
}

fv_status fv_kz_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         const fv_attention_grad *grad, const void *saved, void *scratch)
{
    fv_kz_call call;
    TRY(fv_bias_check_span(op, layout));
    /* The states are only read here; the call's pointer is shared with forward, which writes them. */
    fv_kz_begin(&call, op, layout, false, io, grad, (void *)(uintptr_t)saved, scratch);
    fv_kz_fft_begin(&call);
    fv_parallel(op->ctx, (call.by_head ? 1 : layout->sequences) * call.G, backward_task, &call);
    backward_windows(&call);
    fv_kz_fft_end(&call);
    return FV_OK;
}
