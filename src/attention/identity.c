/* identity.c: attention that returns its values, y_i = v_i (query head h: key head h G/H): the line "X (OPT)"
 * of Choromanski et al. 2021, the time of a model whose attention costs nothing. Its matrix is the identity.
 *
 * Queries and keys of a sequence must be equally many. dv += dy, dq = dk = 0. A state counts tokens.
 */
#include "attention/mechanism.h"
#include <string.h>

typedef struct identity_state {
    int64_t tokens;
    char pad[FV_ALIGN - sizeof(int64_t)];
} identity_state;

static fv_status check_lengths(const fv_attention *op, const fv_layout *layout)
{
    for (int64_t s = 0; layout->offsets_k != NULL && s < layout->sequences; s++)
        if (layout->offsets_q[s + 1] != layout->offsets_k[s + 1])
            return fv_fail(
                op->ctx, FV_ERR_USAGE,
                "identity attention returns the values: sequence %lld ends at query %lld and key %lld; "
                "give every sequence as many keys as queries",
                (long long)s, (long long)layout->offsets_q[s + 1], (long long)layout->offsets_k[s + 1]);
    return FV_OK;
}

static void measure(const fv_attention *op, const fv_layout *layout, fv_memory *need)
{
    (void)op, (void)layout;
    need->saved = need->scratch = 0;
}

typedef struct identity_call {
    const fv_attention *op;
    int64_t tokens, ldv, ldy;
    const float *v, *dy;
    float *y, *dv;
} identity_call;

static identity_call make_call(const fv_attention *op, int64_t tokens, const fv_attention_io *io)
{
    const fv_attention_options *o = &op->options;
    return (identity_call){
        .op = op,
        .tokens = tokens,
        .ldv = io->v_stride != 0 ? io->v_stride : o->kv_heads * o->value_dim,
        .ldy = io->y_stride != 0 ? io->y_stride : o->heads * o->value_dim,
        .v = io->v,
        .y = io->y,
    };
}

static void forward_task(void *arg, int64_t h, int worker)
{
    const identity_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    int64_t dv = o->value_dim, g = h * o->kv_heads / o->heads;
    (void)worker;
    c->op->ctx->kernels->copy_rows(c->tokens, dv, c->v + g * dv, c->ldv, c->y + h * dv, c->ldy);
}

/* dv_g += the dy of the query heads that read it, in order. */
static void backward_task(void *arg, int64_t g, int worker)
{
    const identity_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    int64_t dv = o->value_dim, group = o->heads / o->kv_heads;
    (void)worker;
    for (int64_t h = g * group; h < (g + 1) * group; h++)
        c->op->ctx->kernels->scale_rows(c->tokens, dv, NULL, c->dy + h * dv, c->ldy, 1, c->dv + g * dv,
                                        c->ldv);
}

static fv_status forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         void *saved, void *scratch)
{
    (void)saved, (void)scratch;
    TRY(check_lengths(op, layout));
    identity_call call = make_call(op, layout->offsets_q[layout->sequences], io);
    fv_parallel(op->ctx, op->options.heads, forward_task, &call);
    identity_state *states = io->state;
    for (int64_t s = 0; states != NULL && s < layout->sequences; s++)
        states[s].tokens += layout->offsets_q[s + 1] - layout->offsets_q[s];
    return FV_OK;
}

static fv_status backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                          const fv_attention_grad *grad, const void *saved, void *scratch)
{
    (void)saved, (void)scratch;
    TRY(check_lengths(op, layout));
    if (grad->dv == NULL)
        return FV_OK;
    identity_call call = make_call(op, layout->offsets_q[layout->sequences], io);
    call.dy = grad->dy, call.dv = grad->dv;
    fv_parallel(op->ctx, op->options.kv_heads, backward_task, &call);
    return FV_OK;
}

static fv_status weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         const int64_t *rows, int64_t n, int64_t head, float *out, int64_t row_stride,
                         void *scratch)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t count = head < 0 ? op->options.heads * n : n;
    (void)io, (void)scratch;
    TRY(check_lengths(op, layout));
    for (int64_t i = 0; i < count; i++) {
        kr->fill(layout->offsets_q[layout->sequences], 0.0f, out + i * row_stride);
        kr->fill(1, 1.0f, out + i * row_stride + rows[i % n]);
    }
    return FV_OK;
}

static double flop(const fv_attention *op, const fv_layout *layout)
{
    (void)op, (void)layout;
    return 0;
}

static size_t state_bytes(const fv_attention *op, int64_t capacity)
{
    (void)op, (void)capacity;
    return sizeof(identity_state);
}

static void state_init(const fv_attention *op, int64_t capacity, void *state)
{
    (void)op, (void)capacity;
    memset(state, 0, sizeof(identity_state));
}

static void state_view(const fv_attention *op, void *state, fv_state_view *view)
{
    (void)op;
    *view = (fv_state_view){.tokens = ((identity_state *)state)->tokens};
}

static fv_status state_merge(const fv_attention *op, void *dst, const void *a, const void *b)
{
    int64_t tokens = ((const identity_state *)a)->tokens + ((const identity_state *)b)->tokens;
    (void)op;
    memset(dst, 0, sizeof(identity_state));
    ((identity_state *)dst)->tokens = tokens;
    return FV_OK;
}

static fv_status step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                      const fv_states *states, void *scratch)
{
    (void)scratch;
    identity_call call = make_call(op, streams, io);
    fv_parallel(op->ctx, op->options.heads, forward_task, &call);
    identity_state *state = NULL;
    for (int64_t s = 0; s < streams; s++) {
        state = fv_states_next(op, states, s, state);
        state->tokens++;
    }
    return FV_OK;
}

const fv_mechanism fv_mechanism_identity = {
    .kind =
        {
            .name = "identity",
            .summary = "returns the values: the cost of a model without attention",
            .paper = "Choromanski et al. 2021, arXiv 2009.14794, the line X (OPT)",
            .can_be_causal = 1,
            .can_stream = 1,
        },
    .unnormalised = true,
    .measure = measure,
    .forward = forward,
    .backward = backward,
    .weights = weights,
    .flop = flop,
    .state_bytes = state_bytes,
    .state_init = state_init,
    .state_view = state_view,
    .state_merge = state_merge,
    .step = step,
};
