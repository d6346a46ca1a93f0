/* around.c: see around.h: memory, and the calls that wrap a mechanism's. The steps themselves are in
 * around_steps.c. */
#include "attention/around_steps.h"

/* Layout of a step: so many sequences of one token. */
static fv_around_call make_call(const fv_attention *op, const fv_layout *layout, int64_t tq, int64_t tk,
                                const fv_attention_io *io)
{
    const fv_attention_options *o = &op->options;
    fv_around_call c = {.op = op, .kr = op->ctx->kernels, .layout = layout, .tq = tq, .tk = tk};
    c.before = o->rotary || o->ppsbn;
    c.bias = o->position_bias == FV_POSITION_BIAS_FASTRPB || o->position_bias == FV_POSITION_BIAS_FASTRPB_2D;
    if (io == NULL)
        return c;
    c.io = *io;
    c.ldq = io->q_stride != 0 ? io->q_stride : o->heads * o->dim;
    c.ldk = io->k_stride != 0 ? io->k_stride : o->kv_heads * o->dim;
    c.ldv = io->v_stride != 0 ? io->v_stride : o->kv_heads * o->value_dim;
    c.ldy = io->y_stride != 0 ? io->y_stride : o->heads * o->value_dim;
    return c;
}

static fv_around_call make_layout_call(const fv_attention *op, const fv_layout *layout,
                                       const fv_attention_io *io)
{
    return make_call(op, layout, layout->offsets_q[layout->sequences],
                     fv_layout_keys(layout)[layout->sequences], io);
}

static fv_toeplitz toeplitz_of(const fv_around_call *c)
{
    const fv_attention_options *o = &c->op->options;
    return (fv_toeplitz){.ctx = c->op->ctx,
                         .layout = c->layout,
                         .heads = o->heads,
                         .kv_heads = o->kv_heads,
                         .width = o->value_dim,
                         .span = o->position_span,
                         .skip = o->position_skip,
                         .causal = o->causal != 0,
                         .raster = o->position_bias == FV_POSITION_BIAS_FASTRPB_2D};
}

/* ---- memory ------------------------------------------------------------------------------------------ */

/* Whether backward needs the mechanism's own y, and the y before the post-scaling. */
static bool keeps_own(const fv_around_call *c)
{
    return !c->op->mechanism->kind.kernelized && (c->bias || c->op->options.ppsbn);
}

static void carve_scratch(fv_around_call *c, fv_arena *arena)
{
    const fv_attention_options *o = &c->op->options;
    int64_t q = c->before ? c->tq * o->heads : 0, k = c->before ? c->tk * o->kv_heads : 0;
    int64_t y = o->ppsbn || keeps_own(c) ? c->tq * o->heads * o->value_dim : 0;
    c->q = FV_PUSH(arena, float, q * o->dim);
    c->k = FV_PUSH(arena, float, k * o->dim);
    c->dq = FV_PUSH(arena, float, q * o->dim);
    c->dk = FV_PUSH(arena, float, k * o->dim);
    c->inv_q = FV_PUSH(arena, float, q);
    c->inv_k = FV_PUSH(arena, float, k);
    c->du = FV_PUSH(arena, float, y);
    c->turn = FV_PUSH(arena, char, (int64_t)fv_around_turn_bytes(o) * fv_context_threads(c->op->ctx));
    c->first = FV_PUSH(arena, int64_t, c->layout != NULL ? c->layout->sequences : c->tq);
}

static void carve_saved(fv_around_call *c, fv_arena *arena)
{
    const fv_attention_options *o = &c->op->options;
    int64_t floats = c->tq * o->heads * o->value_dim;
    c->u = o->ppsbn ? FV_PUSH(arena, float, floats) : NULL;
    c->own = NULL;
    if (keeps_own(c)) /* without a bias the two are the same */
        c->own = o->ppsbn && !c->bias ? c->u : FV_PUSH(arena, float, floats);
}

void fv_around_measure(const fv_attention *op, const fv_layout *layout, fv_memory *need)
{
    fv_around_call c = make_layout_call(op, layout, NULL);
    fv_arena scratch = fv_arena_measure(), saved = fv_arena_measure();
    carve_scratch(&c, &scratch);
    carve_saved(&c, &saved);
    if (c.bias) {
        fv_toeplitz t = toeplitz_of(&c);
        need->scratch = FV_MAX(need->scratch, fv_toeplitz_scratch(&t, true));
    }
    need->scratch = fv_add_bytes(need->scratch, scratch.used);
    need->saved = fv_add_bytes(need->saved, saved.used);
}

/* Ours first, then what the mechanism and the Toeplitz product use after one another. */
static void take_scratch(fv_around_call *c, void *scratch)
{
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    carve_scratch(c, &arena);
    c->rest = (char *)scratch + arena.used;
}

static void *take_saved(fv_around_call *c, void *saved)
{
    if (saved == NULL) {
        c->u = c->own = NULL;
        return NULL;
    }
    fv_arena arena = fv_arena_over(saved, SIZE_MAX);
    carve_saved(c, &arena);
    return (char *)saved + arena.used;
}

/* ---- forward ----------------------------------------------------------------------------------------- */

/* What the mechanism sees. */
static fv_attention_io inner_io(const fv_around_call *c)
{
    fv_attention_io io = c->io;
    if (c->before) {
        io.q = c->q, io.q_stride = 0;
        io.k = c->io.k != NULL ? c->k : NULL, io.k_stride = 0;
    }
    return io;
}

static void keep(const fv_around_call *c, float *copy)
{
    const fv_attention_options *o = &c->op->options;
    int64_t row = o->heads * o->value_dim;
    if (copy != NULL)
        c->kr->copy_rows(c->tq, row, c->io.y, c->ldy, copy, row);
}

/* Positions of the first tokens: what each stream has seen. */
static void find_first(fv_around_call *c, int64_t sequences, const fv_states *states)
{
    void *state = NULL;
    for (int64_t s = 0; s < sequences; s++) {
        fv_state_view view = {0};
        if (states != NULL) {
            state = fv_states_next(c->op, states, s, state);
            c->op->mechanism->state_view(c->op, state, &view);
        }
        c->first[s] = view.tokens;
    }
}

static fv_status check(const fv_around_call *c)
{
    fv_toeplitz t = toeplitz_of(c);
    return c->bias ? fv_toeplitz_check(&t) : FV_OK;
}

fv_status fv_around_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            void *saved, void *scratch)
{
    fv_around_call c = make_layout_call(op, layout, io);
    fv_toeplitz t = toeplitz_of(&c);
    TRY(check(&c));
    take_scratch(&c, scratch);
    saved = take_saved(&c, saved);
    const fv_states states = {.first = io->state};
    find_first(&c, layout->sequences, io->state != NULL ? &states : NULL);
    fv_around_before(&c);
    fv_attention_io inner = inner_io(&c);
    TRY(op->mechanism->forward(op, layout, &inner, saved, c.rest));
    if (c.own != c.u)
        keep(&c, c.own);
    if (c.bias)
        fv_toeplitz_forward(&t, io->input[FV_INPUT_POSITION_BIAS], io->v, c.ldv, io->y, c.ldy, c.rest);
    keep(&c, c.u);
    fv_around_after(&c);
    return FV_OK;
}

/* ---- backward ---------------------------------------------------------------------------------------- */

/* Gradient of u, dense where it is not dy itself; *stride goes with it. */
static const float *gradient_of_u(const fv_around_call *c, const fv_attention_grad *grad, int64_t *stride)
{
    const fv_attention_options *o = &c->op->options;
    int64_t row = o->heads * o->value_dim;
    *stride = row;
    if (o->ppsbn) {
        fv_around_after_back(c, grad);
        return c->du;
    }
    if (keeps_own(c)) { /* the mechanism's y is dense, and dy has its stride */
        c->kr->copy_rows(c->tq, row, grad->dy, c->ldy, c->du, row);
        return c->du;
    }
    *stride = c->ldy;
    return grad->dy;
}

static fv_status inner_backward(const fv_around_call *c, const fv_attention_grad *grad, const float *du,
                                int64_t stride, const void *saved)
{
    const fv_attention_options *o = &c->op->options;
    fv_attention_io inner = inner_io(c);
    fv_attention_grad inside = *grad;
    inner.y = c->own != NULL ? c->own : c->io.y;
    inner.y_stride = stride;
    inside.dy = du;
    if (c->bias)
        inside.d_input[FV_INPUT_POSITION_BIAS] = NULL;
    inside.d_input[FV_INPUT_PPSBN_GAMMA] = inside.d_input[FV_INPUT_PPSBN_BETA] = NULL;
    if (c->before) {
        inside.dq = grad->dq != NULL ? c->dq : NULL;
        inside.dk = grad->dk != NULL && inner.k != NULL ? c->dk : NULL;
        c->kr->fill(c->tq * o->heads * o->dim, 0.0f, c->dq);
        c->kr->fill(c->tk * o->kv_heads * o->dim, 0.0f, c->dk);
    }
    return c->op->mechanism->backward(c->op, c->layout, &inner, &inside, saved, c->rest);
}

fv_status fv_around_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                             const fv_attention_grad *grad, const void *saved, void *scratch)
{
    fv_around_call c = make_layout_call(op, layout, io);
    fv_toeplitz t = toeplitz_of(&c);
    int64_t stride;
    TRY(check(&c));
    take_scratch(&c, scratch);
    saved = take_saved(&c, (void *)(uintptr_t)saved);
    find_first(&c, layout->sequences, NULL);
    fv_around_before(&c); /* q' and k' again, rather than kept */
    const float *du = gradient_of_u(&c, grad, &stride);
    if (c.bias)
        fv_toeplitz_backward(&t, io->input[FV_INPUT_POSITION_BIAS], io->v, c.ldv, du, stride, grad->dv,
                             grad->d_input[FV_INPUT_POSITION_BIAS], c.rest);
    TRY(inner_backward(&c, grad, du, stride, saved));
    fv_around_before_back(&c, grad);
    return FV_OK;
}

/* ---- one token, rows of the matrix ------------------------------------------------------------------- */

fv_status fv_around_step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                         const fv_states *states, void *scratch)
{
    fv_around_call c = make_call(op, NULL, streams, streams, io);
    take_scratch(&c, scratch);
    find_first(&c, streams, states);
    fv_around_before(&c);
    fv_attention_io inner = inner_io(&c);
    TRY(op->mechanism->step(op, streams, &inner, states, c.rest));
    fv_around_after(&c);
    return FV_OK;
}

fv_status fv_around_weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            const int64_t *rows, int64_t n, int64_t head, float *weights, int64_t row_stride,
                            void *scratch)
{
    fv_around_call c = make_layout_call(op, layout, io);
    take_scratch(&c, scratch);
    find_first(&c, layout->sequences, NULL);
    fv_around_before(&c);
    fv_attention_io inner = inner_io(&c);
    return op->mechanism->weights(op, layout, &inner, rows, n, head, weights, row_stride, c.rest);
}
