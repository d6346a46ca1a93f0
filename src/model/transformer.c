/* transformer.c: the model, as the paper writes it. A pre-LN Transformer (Vaswani et al. 2017; Xiong et al.
 * 2020) with any attention of attention.h in its blocks:
 *
 *     x = dropout(token(ids) + position)
 *     for each layer:
 *         x = x + dropout(W_o attention(W_qkv LN(x)))
 *         x = x + dropout(W_2 f(W_1 LN(x) + b_1) + b_2)
 *     logits = W_head LN(x) + b_head
 *
 * Dropout as in the Performer's protein models: behind the embedding, behind attention and behind the
 * feed-forward layer.
 *
 * Reversible layers (Kitaev et al. 2020, Reformer) carry two streams, x1 = x2 = the embedding at first:
 *
 *         y1 = x1 + dropout(W_o attention(W_qkv LN(x2)))
 *         y2 = x2 + dropout(W_2 f(W_1 LN(y1) + b_1) + b_2)
 *
 * and x = (y1 + y2) / 2 behind the last. Each line is a part that adds to one stream what it makes of the
 * other, and then they change places.
 */
#include "model/transformer.h"

enum { NODES_A_LAYER = 9, NODES_AROUND = 6 };

int fv_transformer_nodes(const fv_shape *shape)
{
    return (int)shape->layers * NODES_A_LAYER + NODES_AROUND;
}

const float *fv_model_projection(const fv_model *model, int64_t layer)
{
    int64_t floats = model->info.drawn_floats;
    return floats > 0 ? model->projections + layer * floats : NULL;
}

/* Dropout sites: 0 the embedding, then two a layer. */
static int drop_add(fv_model *model, int x, int m, int64_t site)
{
    return fv_tape_residual(&model->tape, x, m, model->shape.dropout, (uint32_t)site);
}

/* The residual streams: a part reads `other` and adds to `own`. One and the same unless reversible. */
typedef struct streams {
    int own, other;
} streams;

/* One part of a layer without its residual; returns what is to be added. */
typedef int part_of_layer(fv_model *model, const fv_pass *pass, int64_t layer, int x);

static streams add_part(fv_model *model, const fv_pass *pass, part_of_layer *part, int64_t layer,
                        int64_t site, streams s)
{
    if (model->shape.reversible)
        fv_tape_segment(&model->tape, true);
    int y = drop_add(model, s.own, part(model, pass, layer, s.other), site);
    if (!model->shape.reversible)
        return (streams){y, y};
    fv_tape_segment_end(&model->tape);
    return (streams){s.other, y};
}

static int join(fv_model *model, streams s)
{
    return s.own == s.other ? s.own : fv_tape_mean(&model->tape, s.own, s.other);
}

static int embed(fv_model *model, const fv_pass *pass)
{
    const fv_shape *s = &model->shape;
    fv_embedding embedding = {.ids = pass->ids,
                              .positions = pass->positions,
                              .rows = pass->tokens,
                              .cols = s->width,
                              .tokens = s->vocabulary,
                              .token = model->token,
                              .places = s->places,
                              .place = model->place,
                              .constant = model->sinusoids};
    int x = fv_tape_embedding(&model->tape, &embedding);
    return s->dropout > 0 ? drop_add(model, -1, x, 0) : x;
}

static int norm(fv_model *model, int x, int64_t gain, int64_t bias)
{
    return fv_tape_layernorm(&model->tape, x, gain, bias, model->shape.norm_eps);
}

static int project_qkv(fv_model *model, const fv_layer *layer, int x)
{
    const fv_shape *s = &model->shape;
    int h = norm(model, x, layer->norm1_gain, layer->norm1_bias);
    int64_t columns = (s->heads + 2 * s->kv_heads) * s->head_dim;
    return fv_tape_linear(&model->tape, h, columns, layer->query, -1, FV_ACTIVATION_NONE);
}

static int attention_part(fv_model *model, const fv_pass *pass, int64_t l, int x)
{
    const fv_layer *layer = &model->layers[l];
    fv_attention_call call = {.layout = &pass->layout};
    call.parts[0] = (fv_attention_part){
        .op = model->attention,
        .drawn = fv_model_projection(model, l),
        .states = pass->states != NULL ? pass->states + (size_t)l * pass->state_bytes : NULL,
        .state_bytes = pass->state_bytes};
    int y = fv_tape_attention(&model->tape, project_qkv(model, layer, x), -1, &call);
    return fv_tape_linear(&model->tape, y, model->shape.width, layer->output, -1, FV_ACTIVATION_NONE);
}

static int mlp_part(fv_model *model, const fv_pass *pass, int64_t l, int x)
{
    (void)pass;
    const fv_layer *layer = &model->layers[l];
    const fv_shape *s = &model->shape;
    int h = norm(model, x, layer->norm2_gain, layer->norm2_bias);
    h = fv_tape_linear(&model->tape, h, s->inner, layer->up, layer->up_bias, s->activation);
    return fv_tape_linear(&model->tape, h, s->width, layer->down, layer->down_bias, FV_ACTIVATION_NONE);
}

/* The first `layers` blocks. */
static streams blocks(fv_model *model, const fv_pass *pass, int64_t layers)
{
    int x = embed(model, pass);
    streams s = {x, x};
    for (int64_t l = 0; l < layers; l++) {
        if (model->shape.recompute)
            fv_tape_segment(&model->tape, false);
        s = add_part(model, pass, attention_part, l, 1 + 2 * l, s);
        s = add_part(model, pass, mlp_part, l, 2 + 2 * l, s);
        if (model->shape.recompute)
            fv_tape_segment_end(&model->tape);
    }
    return s;
}

int fv_transformer_layers(fv_model *model, const fv_pass *pass)
{
    return join(model, blocks(model, pass, model->shape.layers));
}

int fv_transformer_qkv(fv_model *model, const fv_pass *pass, int64_t layer)
{
    return project_qkv(model, &model->layers[layer], blocks(model, pass, layer).other);
}

int fv_transformer_logits(fv_model *model, int x)
{
    int h = norm(model, x, model->norm_gain, model->norm_bias);
    return fv_tape_linear(&model->tape, h, model->shape.vocabulary, model->head, model->head_bias,
                          FV_ACTIVATION_NONE);
}

void fv_transformer_loss(fv_model *model, int x, const fv_cross_entropy *loss)
{
    fv_cross_entropy l = *loss;
    l.classes = model->shape.vocabulary;
    l.matrix = model->head;
    l.bias = model->head_bias;
    fv_tape_cross_entropy(&model->tape, norm(model, x, model->norm_gain, model->norm_bias), &l);
}
