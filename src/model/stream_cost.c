/* stream_cost.c: the bytes a stream lives on, told before there is one.
 *
 * A token passes every matrix once, so a token of a single stream is bound by how fast memory is read. Tables are
 * looked up, not read: a token needs one row of the embedding (all of it where it is the output matrix too) and one row
 * of the positions. Random features read their projections as well. Under bf16 the parameters are read in it; that those
 * which are no matrices stay floats is left out.
 */
#include "model/stream.h"
#include <string.h>

static int64_t weight_floats(const fv_model *model)
{
    const fv_shape *s = &model->shape;
    int64_t floats = model->float_count;
    if (!s->tied)
        floats -= (s->vocabulary - 1) * s->width;
    if (s->places_kind == FV_PLACES_LEARNED)
        floats -= (s->places - 1) * s->width;
    if (s->places_kind == FV_PLACES_SINUSOIDAL)
        floats += s->width;
    return floats;
}

fv_status fv_stream_measure(fv_model *model, int64_t tokens, fv_stream_cost *cost)
{
    *cost = (fv_stream_cost){0};
    size_t layer = 0, all;
    if (model->shape.decoder_layers > 0)
        return fv_fail(model->ctx, FV_ERR_USAGE,
                       "the bytes of a stream are told for a causal model; this one is an encoder-decoder");
    TRY(fv_stream_check(model));
    for (int part = 0; part < FV_ATTENTION_PARTS; part++) {
        const fv_attention *op = model->ops.of[FV_USE_SELF][part].op;
        size_t bytes = 0;
        if (op != NULL)
            TRY(fv_attention_state_bytes(op, tokens, &bytes));
        layer = fv_add_bytes(layer, bytes);
    }
    if (__builtin_mul_overflow(layer, (size_t)model->shape.layers, &all))
        all = SIZE_MAX;
    cost->state = all;
    bool bf16 = strcmp(fv_context_dtype(model->ctx), "bf16") == 0;
    cost->weights =
        (size_t)weight_floats(model) * (bf16 ? sizeof(uint16_t) : sizeof(float)) +
        (size_t)(model->shape.layers * fv_operators_drawn(&model->ops, FV_USE_SELF)) * sizeof(float);
    return FV_OK;
}
