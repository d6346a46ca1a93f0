/* cli/approx_operator.c: an attention operator with its random inputs and its memory, for one call after
 * another. */
#include "approx.h"
#include <string.h>

/* An input that only training or measurement on other data gives. */
static const char *missing_input(const approx_operator *o)
{
    static char text[96];
    fv_input_info input;
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        if (!fv_attention_input(o->op, (fv_input)i, &input) || input.optional || input.role == FV_ROLE_DRAWN)
            continue;
        snprintf(text, sizeof text, "needs the tensor %s, which a study does not have", input.name);
        return text;
    }
    return NULL;
}

fv_status approx_operator_make(approx_operator *o, fv_context *ctx, const fv_attention_options *options,
                               const char **reason)
{
    *o = (approx_operator){.ctx = ctx};
    *reason = NULL;
    fv_status status = fv_attention_create(&o->op, ctx, options);
    if (status == FV_ERR_USAGE)
        *reason = fv_context_message(ctx);
    if (status != FV_OK)
        return status;
    fv_attention_get_info(o->op, &o->info);
    *reason = missing_input(o);
    if (*reason != NULL)
        return FV_ERR_USAGE;
    if (o->info.drawn_floats == 0)
        return FV_OK;
    o->drawn = fv_alloc(ctx, (size_t)o->info.drawn_floats * sizeof *o->drawn);
    return o->drawn != NULL ? FV_OK : FV_ERR_RESOURCE;
}

void approx_operator_free(approx_operator *o)
{
    fv_free(o->ctx, o->drawn);
    fv_free(o->ctx, o->scratch);
    fv_attention_destroy(o->op);
    *o = (approx_operator){0};
}

fv_projection approx_operator_projection(const approx_operator *o)
{
    fv_input_info input;
    return fv_attention_input(o->op, FV_INPUT_PROJECTION, &input) ? o->info.options.projection
                                                                  : FV_PROJECTION_NONE;
}

fv_status approx_operator_draw(approx_operator *o, uint64_t seed, uint64_t draw)
{
    return o->drawn != NULL ? fv_attention_draw(o->op, seed, draw, o->drawn) : FV_OK;
}

static fv_status reserve(approx_operator *o, const fv_layout *layout)
{
    fv_memory need;
    CLI_TRY(fv_attention_measure(o->op, layout, &need));
    if (need.scratch <= o->scratch_bytes && o->scratch != NULL)
        return FV_OK;
    fv_free(o->ctx, o->scratch);
    o->scratch_bytes = need.scratch;
    o->scratch = fv_alloc(o->ctx, need.scratch > 0 ? need.scratch : 1);
    return o->scratch != NULL ? FV_OK : FV_ERR_RESOURCE;
}

fv_status approx_operator_forward(approx_operator *o, const fv_layout *layout, fv_attention_io *io)
{
    CLI_TRY(reserve(o, layout));
    fv_attention_bind_drawn(o->op, o->drawn, io);
    return fv_attention_forward(o->op, layout, io, NULL, o->scratch);
}

fv_status approx_operator_rows(approx_operator *o, const fv_layout *layout, fv_attention_io *io,
                               const int64_t *rows, int64_t n, float *weights)
{
    CLI_TRY(reserve(o, layout));
    fv_attention_bind_drawn(o->op, o->drawn, io);
    return fv_attention_weights(o->op, layout, io, rows, n, weights, o->scratch);
}
