/* operator.c: the public operator: every check of a call is here (those of its options in create.c), before any
 * write; the work is in the row of the kind. */
#include "attention/around.h"
#include "attention/mechanism.h"
#include <string.h>

/* Why the operator has no state; NULL: it has. */
static const char *why_no_state(const fv_attention *op)
{
    const fv_attention_options *o = &op->options;
    const fv_feature_map *map = op->mechanism->map;
    if (op->mechanism->step == NULL)
        return op->mechanism->kind.why_not_stream;
    if (!o->causal && !op->mechanism->recalls)
        return "it is not causal, and only exact and kernelized kinds keep keys that any query may see";
    if (o->position_bias != FV_POSITION_BIAS_NONE)
        return "a position bias reaches back to every earlier token, which no state of fixed size keeps";
    if (map != NULL && map->positions && o->max_tokens == 0)
        return "its features depend on the length of the whole sequence; give max_tokens";
    if (map != NULL && (map->takes & FV_TAKES_PSI) != 0 && o->psi < 0) /* causal ones have it */
        return "its features depend on all queries and keys of the sequence; give psi";
    return NULL;
}

static int64_t drawn_floats(const fv_attention *op)
{
    fv_input_info info;
    int64_t floats = 0;
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (fv_attention_input(op, (fv_input)i, &info) && info.role == FV_ROLE_DRAWN)
            floats += info.floats;
    return floats;
}

void fv_attention_get_info(const fv_attention *op, fv_attention_info *info)
{
    const fv_attention_options *o = &op->options;
    *info = (fv_attention_info){
        .options = *o,
        .projection_rows = op->m,
        .feature_count = op->r,
        .drawn_floats = drawn_floats(op),
        .can_stream = o->causal && why_no_state(op) == NULL,
        .can_recall = !o->causal && why_no_state(op) == NULL,
        .in_place_ok = op->mechanism->in_place_ok && o->heads == o->kv_heads && !fv_around_needed(op) &&
                       o->position_bias == FV_POSITION_BIAS_NONE,
    };
}

/* ---- layouts and tensors ------------------------------------------------------------------------- */

static fv_status check_offsets(fv_context *ctx, const char *name, const int64_t *offsets, int64_t sequences)
{
    if (offsets[0] != 0)
        return fv_fail(ctx, FV_ERR_USAGE, "attention: %s[0] is %lld; expected 0", name,
                       (long long)offsets[0]);
    for (int64_t s = 0; s < sequences; s++)
        if (offsets[s + 1] < offsets[s] || offsets[s + 1] > FV_MAX_TOKENS)
            return fv_fail(ctx, FV_ERR_USAGE,
                           "attention: %s[%lld] is %lld after %lld; offsets never decrease", name,
                           (long long)s + 1, (long long)offsets[s + 1], (long long)offsets[s]);
    return FV_OK;
}

static fv_status check_layout(const fv_attention *op, const fv_layout *layout)
{
    fv_context *ctx = op->ctx;
    if (layout->sequences < 0 || layout->sequences > FV_MAX_TOKENS || layout->offsets_q == NULL)
        return fv_fail(ctx, FV_ERR_USAGE, "attention: the layout has %lld sequences or no offsets_q",
                       (long long)layout->sequences);
    TRY(check_offsets(ctx, "offsets_q", layout->offsets_q, layout->sequences));
    if (layout->offsets_k == NULL)
        return FV_OK;
    TRY(check_offsets(ctx, "offsets_k", layout->offsets_k, layout->sequences));
    for (int64_t s = 0; op->options.causal && s <= layout->sequences; s++)
        if (layout->offsets_k[s] != layout->offsets_q[s])
            return fv_fail(ctx, FV_ERR_USAGE,
                           "attention: causal calls need equally many queries and keys in each sequence; "
                           "offsets differ at %lld: %lld and %lld",
                           (long long)s, (long long)layout->offsets_q[s], (long long)layout->offsets_k[s]);
    return FV_OK;
}

int64_t fv_offsets_locate(const int64_t *offsets, int64_t count, int64_t index)
{
    int64_t low = 0, high = count; /* offsets[low] <= index < offsets[high] */
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (offsets[middle] <= index)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static int64_t query_tokens(const fv_layout *layout)
{
    return layout->offsets_q[layout->sequences];
}

static int64_t key_tokens(const fv_layout *layout)
{
    return fv_layout_keys(layout)[layout->sequences];
}

/* A tensor of `tokens` rows of `row` floats: there, and its stride wide enough. */
static fv_status check_tensor(const fv_attention *op, const char *name, const void *data, int64_t tokens,
                              int64_t row, int64_t stride)
{
    if (data == NULL && tokens > 0)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: %s is missing", op->options.kind, name);
    if (stride != 0 && (stride < row || stride > FV_MAX_TOKENS))
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: the stride of %s is %lld; expected 0 or at least %lld",
                       op->options.kind, name, (long long)stride, (long long)row);
    return FV_OK;
}

static fv_status check_inputs(const fv_attention *op, int64_t nq, int64_t nk, const fv_attention_io *io)
{
    const fv_attention_options *o = &op->options;
    TRY(check_tensor(op, "q", io->q, nq, o->heads * o->dim, io->q_stride));
    if (!op->mechanism->shared_keys)
        TRY(check_tensor(op, "k", io->k, nk, o->kv_heads * o->dim, io->k_stride));
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        fv_input_info info;
        bool taken = fv_attention_input(op, (fv_input)i, &info);
        if (!taken && io->input[i] != NULL)
            return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: takes no %s here", o->kind,
                           fv_input_name((fv_input)i));
        if (taken && !info.optional && io->input[i] == NULL && (info.role != FV_ROLE_TOKEN || nk > 0))
            return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: %s is missing", o->kind, info.name);
    }
    const fv_feature_map *map = op->mechanism->map;
    return map != NULL && map->validate != NULL ? map->validate(op->ctx, &op->options, io->input) : FV_OK;
}

static fv_status check_io(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io)
{
    const fv_attention_options *o = &op->options;
    int64_t nq = query_tokens(layout), nk = key_tokens(layout);
    TRY(check_inputs(op, nq, nk, io));
    TRY(check_tensor(op, "v", io->v, nk, o->kv_heads * o->value_dim, io->v_stride));
    return check_tensor(op, "y", io->y, nq, o->heads * o->value_dim, io->y_stride);
}

fv_status fv_attention_measure(const fv_attention *op, const fv_layout *layout, fv_memory *need)
{
    *need = (fv_memory){0};
    TRY(check_layout(op, layout));
    op->mechanism->measure(op, layout, need);
    if (fv_around_needed(op))
        fv_around_measure(op, layout, need);
    if (op->mechanism->state_bytes != NULL)
        need->state = op->mechanism->state_bytes(op, 0);
    if (need->saved >= PTRDIFF_MAX || need->scratch >= PTRDIFF_MAX)
        return fv_fail(op->ctx, FV_ERR_RESOURCE,
                       "attention: the call needs more memory than can be addressed");
    return FV_OK;
}

double fv_attention_flop(const fv_attention *op, const fv_layout *layout, int backward)
{
    return op->mechanism->flop(op, layout) * (backward ? 2.0 : 1.0);
}

/* ---- calls --------------------------------------------------------------------------------------- */

static fv_status check_state(const fv_attention *op)
{
    const char *why = why_no_state(op);
    return why == NULL ? FV_OK
                       : fv_fail(op->ctx, FV_ERR_USAGE, "attention %s cannot stream and has no state: %s",
                                 op->options.kind, why);
}

/* A forward that continues a state. */
static fv_status check_continued(const fv_attention *op, const fv_attention_io *io, const void *saved)
{
    fv_input_info diagonal;
    TRY(check_state(op));
    if (saved != NULL)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: a continued state has no backward; pass saved NULL", op->options.kind);
    if (fv_attention_input(op, FV_INPUT_PSI_DIAGONAL, &diagonal) && io->input[FV_INPUT_PSI_DIAGONAL] == NULL)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: %s is missing; a measured one sees later queries and keys",
                       op->options.kind, diagonal.name);
    return FV_OK;
}

fv_status fv_attention_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                               void *saved, void *scratch)
{
    TRY(check_layout(op, layout));
    TRY(check_io(op, layout, io));
    if (io->state != NULL)
        TRY(check_continued(op, io, saved));
    bool apart = io->state != NULL && !op->options.causal; /* queries have positions of their own */
    TRY(fv_check_number(op->ctx, "first_query", io->first_query, 0, apart ? FV_MAX_TOKENS : 0));
    TRY(fv_places_check(op, layout, io->state != NULL ? io : NULL));
    if (fv_around_needed(op))
        return fv_around_forward(op, layout, io, saved, scratch);
    return op->mechanism->forward(op, layout, io, saved, scratch);
}

static fv_status check_in_place(const fv_attention *op, const fv_attention_io *io,
                                const fv_attention_grad *grad)
{
    fv_attention_info info;
    fv_attention_get_info(op, &info);
    if (!info.in_place_ok)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s with %lld query and %lld key/value heads has no in-place backward",
                       op->options.kind, (long long)op->options.heads, (long long)op->options.kv_heads);
    if (grad->dq != io->q || grad->dk != io->k || grad->dv != io->v)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention: in place means dq == q, dk == k and dv == v");
    return FV_OK;
}

fv_status fv_attention_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                                const fv_attention_grad *grad, const void *saved, void *scratch)
{
    const fv_attention_options *o = &op->options;
    TRY(check_layout(op, layout));
    TRY(check_inputs(op, query_tokens(layout), key_tokens(layout), io));
    TRY(check_tensor(op, "v", io->v, key_tokens(layout), o->kv_heads * o->value_dim, io->v_stride));
    TRY(check_tensor(op, "dy", grad->dy, query_tokens(layout), o->heads * o->value_dim, io->y_stride));
    if (!op->mechanism->kind.kernelized)
        TRY(check_tensor(op, "y", io->y, query_tokens(layout), o->heads * o->value_dim, io->y_stride));
    if (io->state != NULL)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: a continued state has no backward", o->kind);
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        fv_input_info info;
        if (grad->d_input[i] != NULL &&
            (!fv_attention_input(op, (fv_input)i, &info) || !info.has_gradient || io->input[i] == NULL))
            return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: there is no gradient of %s here", o->kind,
                           fv_input_name((fv_input)i));
    }
    if (grad->in_place)
        TRY(check_in_place(op, io, grad));
    TRY(fv_places_check(op, layout, NULL));
    if (fv_around_needed(op))
        return fv_around_backward(op, layout, io, grad, saved, scratch);
    return op->mechanism->backward(op, layout, io, grad, saved, scratch);
}

/* ---- states -------------------------------------------------------------------------------------- */

fv_status fv_attention_state_bytes(const fv_attention *op, int64_t capacity, size_t *bytes)
{
    TRY(check_state(op));
    TRY(fv_check_number(op->ctx, "capacity", capacity, 0, FV_MAX_TOKENS));
    *bytes = op->mechanism->state_bytes(op, capacity);
    return FV_OK;
}

fv_status fv_attention_state_init(const fv_attention *op, int64_t capacity, void *state)
{
    TRY(check_state(op));
    TRY(fv_check_number(op->ctx, "capacity", capacity, 0, FV_MAX_TOKENS));
    op->mechanism->state_init(op, capacity, state);
    return FV_OK;
}

fv_status fv_attention_state_view(const fv_attention *op, void *state, fv_state_view *view)
{
    TRY(check_state(op));
    op->mechanism->state_view(op, state, view);
    return FV_OK;
}

fv_status fv_attention_state_set_tokens(const fv_attention *op, void *state, int64_t tokens)
{
    fv_state_view view;
    TRY(fv_attention_state_view(op, state, &view));
    TRY(fv_check_number(op->ctx, "tokens of a state", tokens, 0,
                        view.keys != NULL && view.pinned == view.capacity ? view.capacity : FV_MAX_TOKENS));
    memcpy(state, &tokens, sizeof tokens); /* every state begins with its count */
    return FV_OK;
}

fv_status fv_attention_state_merge(const fv_attention *op, void *dst, const void *a, const void *b)
{
    TRY(check_state(op));
    if (op->mechanism->state_merge == NULL)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: its states do not merge", op->options.kind);
    if (op->mechanism->map != NULL && op->mechanism->map->positions)
        return fv_fail(
            op->ctx, FV_ERR_USAGE,
            "attention %s: its states do not merge: features depend on the position, which the second "
            "state counted from its own start",
            op->options.kind);
    if (op->options.rotary)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: states do not merge under rotary positions: the second one's keys were "
                       "turned from its own start",
                       op->options.kind);
    return op->mechanism->state_merge(op, dst, a, b);
}

static fv_status step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                      const fv_states *states, void *scratch)
{
    const fv_attention_options *o = &op->options;
    if (!o->causal)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s cannot stream token by token: it is not causal; forward reads its state",
                       o->kind);
    TRY(fv_check_number(op->ctx, "streams", streams, 0, FV_MAX_TOKENS));
    TRY(check_inputs(op, streams, streams, io));
    TRY(check_tensor(op, "v", io->v, streams, o->kv_heads * o->value_dim, io->v_stride));
    TRY(check_tensor(op, "y", io->y, streams, o->heads * o->value_dim, io->y_stride));
    TRY(fv_places_check_step(op, streams, states));
    if (fv_around_needed(op))
        return fv_around_step(op, streams, io, states, scratch);
    return op->mechanism->step(op, streams, io, states, scratch);
}

fv_status fv_attention_step(const fv_attention *op, int64_t streams, const fv_attention_io *io, void *states,
                            size_t state_bytes, void *scratch)
{
    TRY(check_state(op));
    if (state_bytes < op->mechanism->state_bytes(op, 0) || state_bytes % sizeof(int64_t) != 0)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: %zu bytes a state are too few", op->options.kind,
                       state_bytes);
    return step(op, streams, io, &(fv_states){.first = states, .stride = state_bytes}, scratch);
}

fv_status fv_attention_step_each(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                                 void *const *states, void *scratch)
{
    TRY(check_state(op));
    return step(op, streams, io, &(fv_states){.each = states}, scratch);
}

/* ---- rows of the matrix -------------------------------------------------------------------------- */

static fv_status check_rows(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            const int64_t *rows, int64_t n)
{
    TRY(check_layout(op, layout));
    TRY(check_inputs(op, query_tokens(layout), key_tokens(layout), io));
    if (op->mechanism->weights == NULL)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s has no attention matrix", op->options.kind);
    TRY(fv_places_check(op, layout, NULL));
    for (int64_t i = 0; i < n; i++)
        if (rows[i] < 0 || rows[i] >= query_tokens(layout))
            return fv_fail(op->ctx, FV_ERR_USAGE, "attention: row %lld is outside the %lld query tokens",
                           (long long)rows[i], (long long)query_tokens(layout));
    return FV_OK;
}

fv_status fv_operator_rows(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                           const int64_t *rows, int64_t n, int64_t head, float *weights, void *scratch)
{
    int64_t stride = key_tokens(layout);
    if (fv_around_needed(op))
        return fv_around_weights(op, layout, io, rows, n, head, weights, stride, scratch);
    return op->mechanism->weights(op, layout, io, rows, n, head, weights, stride, scratch);
}

fv_status fv_attention_weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                               const int64_t *rows, int64_t n, float *weights, void *scratch)
{
    TRY(check_rows(op, layout, io, rows, n));
    return fv_operator_rows(op, layout, io, rows, n, -1, weights, scratch);
}

/* Moves weights[i] and tokens[i] to their place in the order: larger weight first, then lower token. */
static void sift(int64_t *tokens, float *weights, int64_t i)
{
    while (i > 0 && weights[i] > weights[i - 1]) {
        float weight = weights[i];
        int64_t token = tokens[i];
        weights[i] = weights[i - 1], tokens[i] = tokens[i - 1];
        weights[i - 1] = weight, tokens[i - 1] = token;
        i--;
    }
}

fv_status fv_attention_top(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                           int64_t head, int64_t row, int64_t top, int64_t *tokens, float *weights,
                           int64_t *found, float *work, void *scratch)
{
    TRY(fv_check_number(op->ctx, "head", head, 0, op->options.heads - 1));
    TRY(fv_check_number(op->ctx, "top", top, 0, FV_MAX_TOKENS));
    TRY(check_rows(op, layout, io, &row, 1));
    int64_t keys = key_tokens(layout);
    TRY(fv_operator_rows(op, layout, io, &row, 1, head, work, scratch));
    *found = 0;
    for (int64_t j = 0; j < keys; j++) {
        bool full = *found == top;
        if (work[j] == 0.0f || top == 0 || (full && !(work[j] > weights[top - 1])))
            continue;
        int64_t place = full ? top - 1 : (*found)++;
        tokens[place] = j;
        weights[place] = work[j];
        sift(tokens, weights, place);
    }
    return FV_OK;
}
