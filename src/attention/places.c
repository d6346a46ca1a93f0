/* places.c: sequences and streams of kinds whose features depend on the position, held against max_tokens: from this
 * position on their features would change sign (features/cosformer.c). */
#include "attention/mechanism.h"
#include <string.h>

static fv_status check(const fv_attention *op, const char *what, int64_t which, int64_t tokens)
{
    const fv_attention_options *o = &op->options;
    if (tokens <= o->max_tokens)
        return FV_OK;
    return fv_fail(
        op->ctx, FV_ERR_USAGE,
        "attention %s: %s %lld has %lld tokens; max_tokens is %lld, the most its features are made for",
        o->kind, what, (long long)which, (long long)tokens, (long long)o->max_tokens);
}

static bool limited(const fv_attention *op)
{
    return op->mechanism->map != NULL && op->mechanism->map->positions && op->options.max_tokens > 0;
}

/* Every state begins with its count. */
static int64_t seen(const void *state)
{
    int64_t tokens = 0;
    if (state != NULL)
        memcpy(&tokens, state, sizeof tokens);
    return tokens;
}

fv_status fv_places_check(const fv_attention *op, const fv_layout *layout, const fv_attention_io *continued)
{
    const int64_t *q = layout->offsets_q, *k = fv_layout_keys(layout);
    const fv_states states = {.first = continued != NULL ? continued->state : NULL};
    void *state = NULL;
    for (int64_t s = 0; limited(op) && s < layout->sequences; s++) {
        state = states.first != NULL ? fv_states_next(op, &states, s, state) : NULL;
        int64_t before = seen(state); /* keys, and of a causal call queries */
        int64_t queries =
            q[s + 1] - q[s] + (op->options.causal || continued == NULL ? before : continued->first_query);
        TRY(check(op, state != NULL ? "stream" : "sequence", s, FV_MAX(queries, before + k[s + 1] - k[s])));
    }
    return FV_OK;
}

fv_status fv_places_check_step(const fv_attention *op, int64_t streams, const fv_states *states)
{
    void *state = NULL;
    for (int64_t s = 0; limited(op) && s < streams; s++) {
        state = fv_states_next(op, states, s, state);
        TRY(check(op, "stream", s, seen(state) + 1));
    }
    return FV_OK;
}
