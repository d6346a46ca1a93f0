/* stream_cost.c: the bytes a stream lives on, told before there is one.
 *
 * A token passes every matrix once, so a token of a single stream is bound by how fast memory is read. Tables are
 * looked up, not read: a token needs one row of the embedding (all of it where it is the output matrix too) and one row
 * of the positions. Random features read their projections as well. Under bf16 the parameters are read in it; that those
 * which are no matrices stay floats is left out.
 *
 * A token that translates passes the decoder alone. Of the source it reads what cross attention keeps; the encoder, and the
 * matrices that make keys and values of what it says, are read once for the source.
 */
#include "model/stream.h"
#include <string.h>

/* Parameters that are read for the source of an encoder-decoder, not for its tokens. */
static int64_t source_floats(const fv_model *model)
{
    const fv_parameter *p;
    int64_t floats = 0;
    for (int i = 0; model->shape.decoder_layers > 0 && (p = fv_model_parameter_at(model, i)) != NULL; i++) {
        bool token = strncmp(p->name, "decoder.", 8) == 0 || strncmp(p->name, "embeddings.", 11) == 0 ||
                     strncmp(p->name, "head.", 5) == 0;
        bool key = strstr(p->name, ".cross_attention.key.") != NULL ||
                   strstr(p->name, ".cross_attention.value.") != NULL;
        floats += token && !key ? 0 : p->count;
    }
    return floats;
}

static int64_t weight_floats(const fv_model *model)
{
    const fv_shape *s = &model->shape;
    int64_t floats = model->float_count - source_floats(model);
    if (!s->tied)
        floats -= (s->vocabulary - 1) * s->width;
    if (s->places_kind == FV_PLACES_LEARNED)
        floats -= (s->places - 1) * s->width;
    if (s->places_kind == FV_PLACES_SINUSOIDAL)
        floats += s->width;
    return floats;
}

/* Attention that a token passes in a layer. */
static const fv_use causal_uses[] = {FV_USE_SELF}, translating_uses[] = {FV_USE_DECODER, FV_USE_CROSS};

fv_status fv_stream_measure(fv_model *model, int64_t tokens, fv_stream_cost *cost)
{
    bool translates = model->shape.decoder_layers > 0;
    const fv_use *uses = translates ? translating_uses : causal_uses;
    int64_t layers = translates ? model->shape.decoder_layers : model->shape.layers, drawn = 0;
    size_t layer = 0, all;
    *cost = (fv_stream_cost){0};
    TRY(fv_stream_check(model));
    for (int i = 0; i < (translates ? 2 : 1) * FV_ATTENTION_PARTS; i++) {
        const fv_operator *op = &model->ops.of[uses[i / FV_ATTENTION_PARTS]][i % FV_ATTENTION_PARTS];
        size_t bytes = 0;
        if (op->op != NULL)
            TRY(fv_attention_state_bytes(op->op, tokens, &bytes));
        layer = fv_add_bytes(layer, bytes);
        drawn += op->info.drawn_floats;
    }
    if (__builtin_mul_overflow(layer, (size_t)layers, &all))
        all = SIZE_MAX;
    cost->state = all;
    cost->weights =
        (size_t)weight_floats(model) * (fv_stream_halves(model) ? sizeof(uint16_t) : sizeof(float)) +
        (size_t)(layers * drawn) * sizeof(float);
    return FV_OK;
}
