/* transformer.c: the model, as the paper writes it. A pre-LN Transformer (Vaswani et al. 2017; Xiong et al.
 * 2020) with any attention of attention.h in its blocks:
 *
 *     x = dropout(token(ids) + position)
 *     for each layer:
 *         x = x + dropout(W_o attention(W_qkv LN(x)))
 *         x = x + dropout(W_2 f(W_1 LN(x) + b_1) + b_2)
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
 *
 * An encoder-decoder (Vaswani et al. 2017) has an encoder of `layers` layers, whose memory is LN of its stream,
 * and a decoder whose layers hold a part between those two, cross attention: queries of LN(x), keys and values
 * of the memory. Tokens and positions are embedded by the same tables on both sides. A stream runs the encoder once and
 * leaves these keys and values in states, one a layer of the decoder. The head: heads.c.
 */
#include "model/transformer.h"

/* A layer's parts: LN, q k v, gate, attention, output, residual; and as many for cross attention. */
enum { NODES_A_LAYER = 10, NODES_OF_CROSS = 6, NODES_AROUND = 16 };

int fv_transformer_nodes(const fv_shape *shape)
{
    return (int)((shape->layers + shape->decoder_layers) * NODES_A_LAYER +
                 shape->decoder_layers * NODES_OF_CROSS + NODES_AROUND);
}

const float *fv_model_projection(const fv_model *model, int64_t layer)
{
    return model->sites[layer].drawn[model->ops.of[FV_USE_SELF][1].op != NULL ? 1 : 0];
}

/* One stack of layers while it is recorded. */
typedef struct stack {
    fv_model *model;
    const fv_pass *pass;
    fv_use use;
    int64_t first; /* of its layers, among all */
    int64_t sites; /* of dropout before it: the embedding, then each part of each layer has one */
    int memory;    /* what cross attention looks at; -1: none, or in states */
} stack;

static int64_t parts_of(const stack *k)
{
    return k->use == FV_USE_DECODER ? 3 : 2;
}

static const fv_layer *layer_of(const stack *k, int64_t layer)
{
    return &k->model->layers[k->first + layer];
}

int fv_transformer_norm(fv_model *model, int x, int64_t gain, int64_t bias)
{
    return fv_tape_layernorm(&model->tape, x, gain, bias, model->shape.norm_eps);
}

static int drop_add(const stack *k, int x, int m, int64_t site)
{
    return fv_tape_residual(&k->model->tape, x, m, k->model->shape.dropout, (uint32_t)(k->sites + site));
}

/* The stack behind the encoder reads the batch's own tokens, the encoder the source. */
static bool reads_source(const stack *k)
{
    return k->model->shape.decoder_layers > 0 && k->use == FV_USE_SELF;
}

static int embed(const stack *k)
{
    const fv_model *model = k->model;
    const fv_pass *pass = k->pass;
    const fv_shape *s = &model->shape;
    bool source = reads_source(k);
    fv_embedding embedding = {.ids = source ? pass->source_ids : pass->ids,
                              .positions = source ? pass->source_positions : pass->positions,
                              .rows = source ? pass->source_tokens : pass->tokens,
                              .cols = s->width,
                              .tokens = s->vocabulary,
                              .token = model->token,
                              .places = s->places,
                              .place = model->place,
                              .constant = model->sinusoids};
    int x = fv_tape_embedding(&k->model->tape, &embedding);
    return s->dropout > 0 ? drop_add(k, -1, x, 0) : x;
}

/* ---- parts of a layer: what each adds to the stream -------------------------------------------------- */

/* Returns what is to be added, made of x. */
typedef int part_of_layer(const stack *k, int64_t layer, int x);

static fv_attention_call make_call(const stack *k, fv_use use, int64_t layer)
{
    const fv_model *model = k->model;
    const fv_site *site = &model->sites[fv_site_index(&model->shape, use, layer)];
    const fv_layout *layout = use == FV_USE_CROSS ? &k->pass->across
                              : reads_source(k)   ? &k->pass->source_layout
                                                  : &k->pass->layout;
    fv_attention_call call = {.layout = layout, .first_queries = use == FV_USE_CROSS ? k->pass->first : NULL};
    void *const *states = reads_source(k) ? NULL : k->pass->states;
    if (states != NULL)
        states += layer * FV_PASS_STATES * layout->sequences;
    for (int i = 0; i < FV_ATTENTION_PARTS; i++) {
        int which = use == FV_USE_CROSS ? FV_ATTENTION_PARTS : i;
        call.parts[i] =
            (fv_attention_part){.op = model->ops.of[use][i].op,
                                .drawn = site->drawn[i],
                                .inputs = &site->inputs[i],
                                .states = states != NULL ? states + which * layout->sequences : NULL};
    }
    return call;
}

static int project_qkv(const stack *k, int64_t layer, int x, int *gate)
{
    fv_model *model = k->model;
    const fv_shape *s = &model->shape;
    const fv_layer *l = layer_of(k, layer);
    const fv_site *site = &model->sites[fv_site_index(s, k->use, layer)];
    int h = fv_transformer_norm(model, x, l->norm1_gain, l->norm1_bias);
    int64_t columns = (s->heads + 2 * s->kv_heads) * s->head_dim;
    int qkv = fv_tape_linear(&model->tape, h, columns, l->query, -1, FV_ACTIVATION_NONE);
    *gate = site->gate < 0 ? -1
                           : fv_tape_linear(&model->tape, h, fv_operators_gated(&model->ops, k->use),
                                            site->gate, site->gate_bias, FV_ACTIVATION_SIGMOID);
    return qkv;
}

static int attention_part(const stack *k, int64_t layer, int x)
{
    int gate;
    fv_attention_call call = make_call(k, k->use, layer);
    int qkv = project_qkv(k, layer, x, &gate);
    int y = fv_tape_attention(&k->model->tape, qkv, gate, &call);
    return fv_tape_linear(&k->model->tape, y, k->model->shape.width, layer_of(k, layer)->output, -1,
                          FV_ACTIVATION_NONE);
}

/* What cross attention sees of the memory. */
static int project_memory(const stack *k, int64_t layer)
{
    const fv_shape *s = &k->model->shape;
    return fv_tape_linear(&k->model->tape, k->memory, 2 * s->kv_heads * s->head_dim,
                          layer_of(k, layer)->cross_key, -1, FV_ACTIVATION_NONE);
}

static int cross_part(const stack *k, int64_t layer, int x)
{
    fv_tape *tape = &k->model->tape;
    const fv_shape *s = &k->model->shape;
    const fv_layer *l = layer_of(k, layer);
    fv_attention_call call = make_call(k, FV_USE_CROSS, layer);
    int h = fv_transformer_norm(k->model, x, l->cross_gain, l->cross_bias);
    int q = fv_tape_linear(tape, h, s->heads * s->head_dim, l->cross_query, -1, FV_ACTIVATION_NONE);
    int y = k->memory < 0 ? fv_tape_recall(tape, q, &call)
                          : fv_tape_cross_attention(tape, q, project_memory(k, layer), &call);
    return fv_tape_linear(tape, y, s->width, l->cross_output, -1, FV_ACTIVATION_NONE);
}

static int mlp_part(const stack *k, int64_t layer, int x)
{
    fv_tape *tape = &k->model->tape;
    const fv_shape *s = &k->model->shape;
    const fv_layer *l = layer_of(k, layer);
    int h = fv_transformer_norm(k->model, x, l->norm2_gain, l->norm2_bias);
    h = fv_tape_linear(tape, h, s->inner, l->up, l->up_bias, s->activation);
    return fv_tape_linear(tape, h, s->width, l->down, l->down_bias, FV_ACTIVATION_NONE);
}

/* ---- layers -------------------------------------------------------------------------------------- */

/* The residual streams: a part reads `other` and adds to `own`. One and the same unless reversible. */
typedef struct streams {
    int own, other;
} streams;

static streams add_part(const stack *k, part_of_layer *part, int64_t layer, int64_t number, streams s)
{
    bool reversible = k->model->shape.reversible;
    if (reversible)
        fv_tape_segment(&k->model->tape, true);
    int y = drop_add(k, s.own, part(k, layer, s.other), 1 + layer * parts_of(k) + number);
    if (!reversible)
        return (streams){y, y};
    fv_tape_segment_end(&k->model->tape);
    return (streams){s.other, y};
}

static streams add_layer(const stack *k, int64_t layer, streams s)
{
    int64_t number = 0;
    if (k->model->shape.recompute)
        fv_tape_segment(&k->model->tape, false);
    s = add_part(k, attention_part, layer, number++, s);
    if (k->use == FV_USE_DECODER)
        s = add_part(k, cross_part, layer, number++, s);
    s = add_part(k, mlp_part, layer, number, s);
    if (k->model->shape.recompute)
        fv_tape_segment_end(&k->model->tape);
    return s;
}

static streams add_layers(const stack *k, int64_t count)
{
    int x = embed(k);
    streams s = {x, x};
    for (int64_t l = 0; l < count; l++)
        s = add_layer(k, l, s);
    return s;
}

static int join(fv_model *model, streams s)
{
    return s.own == s.other ? s.own : fv_tape_mean(&model->tape, s.own, s.other);
}

/* The encoder, or a lone stack. */
static int first_stack(fv_model *model, const fv_pass *pass)
{
    stack k = {.model = model, .pass = pass, .use = FV_USE_SELF, .memory = -1};
    return join(model, add_layers(&k, model->shape.layers));
}

static int encode(fv_model *model, const fv_pass *pass)
{
    return fv_transformer_norm(model, first_stack(model, pass), model->memory_gain, model->memory_bias);
}

static stack decoder_over(fv_model *model, const fv_pass *pass, int memory)
{
    int64_t before = model->shape.layers;
    return (stack){.model = model,
                   .pass = pass,
                   .use = FV_USE_DECODER,
                   .first = before,
                   .sites = 1 + 2 * before,
                   .memory = memory};
}

int fv_transformer_layers(fv_model *model, const fv_pass *pass)
{
    if (model->shape.decoder_layers == 0)
        return first_stack(model, pass);
    stack k = decoder_over(model, pass, pass->states != NULL ? -1 : encode(model, pass));
    return join(model, add_layers(&k, model->shape.decoder_layers));
}

void fv_transformer_encode(fv_model *model, const fv_pass *pass)
{
    stack k = decoder_over(model, pass, encode(model, pass));
    for (int64_t l = 0; l < model->shape.decoder_layers; l++) {
        fv_attention_call call = make_call(&k, FV_USE_CROSS, l);
        fv_tape_remember(&model->tape, project_memory(&k, l), &call);
    }
}

int fv_transformer_qkv(fv_model *model, const fv_pass *pass, int64_t layer, int *gate)
{
    stack k = {.model = model, .pass = pass, .use = FV_USE_SELF, .memory = -1};
    return project_qkv(&k, layer, add_layers(&k, layer).other, gate);
}
