/* operators.c: the attention of a model: from the "attention." keys to the operators of its stacks, and where
 * the numbers of each attention of each layer stand. */
#include "model/transformer.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- from the config ----------------------------------------------------------------------------------- */

static fv_status read_options(fv_context *ctx, const fv_config *config, const fv_shape *shape,
                              fv_attention_options *o)
{
    TRY(fv_settings_attention(ctx, config, o));
    o->heads = shape->heads;
    o->kv_heads = shape->kv_heads;
    o->dim = shape->head_dim;
    return FV_OK;
}

static fv_status create(fv_operator *o, fv_context *ctx, const fv_attention_options *options)
{
    TRY(fv_attention_create(&o->op, ctx, options));
    fv_attention_get_info(o->op, &o->info);
    return FV_OK;
}

/* The first heads, of local attention: the options that a window has. */
static void make_local(const fv_config *config, const fv_attention_options *whole,
                       fv_attention_options *local)
{
    int64_t heads = fv_config_int(config, "attention.local_heads");
    fv_attention_options_init(local);
    local->kind = "window";
    local->heads = heads;
    local->kv_heads = heads * whole->kv_heads / whole->heads;
    local->dim = whole->dim;
    local->causal = whole->causal;
    local->window = fv_config_int(config, "attention.local_window");
    local->rotary = whole->rotary;
    local->rotary_base = whole->rotary_base;
}

static fv_status check_local(fv_context *ctx, int64_t heads, const fv_attention_options *o)
{
    if (heads >= o->heads)
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "config: attention.local_heads is %lld of %lld heads; expected fewer, or attention.kind window",
            (long long)heads, (long long)o->heads);
    if (heads * o->kv_heads % o->heads != 0)
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "config: attention.local_heads is %lld; heads that share a key head stay together, expected a "
            "multiple of %lld",
            (long long)heads, (long long)(o->heads / o->kv_heads));
    return FV_OK;
}

/* Self attention: the kind on all heads, or local attention on the first and the kind on the rest. */
static fv_status create_self(fv_operators *ops, fv_context *ctx, const fv_config *config, fv_use use,
                             bool causal, const fv_attention_options *options)
{
    int64_t heads = fv_config_int(config, "attention.local_heads");
    fv_attention_options whole = *options, local;
    whole.causal = causal;
    if (heads == 0)
        return create(&ops->of[use][0], ctx, &whole);
    TRY(check_local(ctx, heads, &whole));
    make_local(config, &whole, &local);
    whole.heads -= local.heads;
    whole.kv_heads -= local.kv_heads;
    TRY(create(&ops->of[use][0], ctx, &local));
    return create(&ops->of[use][1], ctx, &whole);
}

/* Behind an encoder what forgets the past acts where there is a past, in the decoder's own layers; positions
 * are compared within a sequence, not across two. */
static fv_status create_pair(fv_operators *ops, fv_context *ctx, const fv_config *config,
                             const fv_attention_options *o)
{
    fv_attention_options encoder = *o;
    encoder.gate = encoder.decay = 0;
    fv_attention_options cross = encoder;
    cross.position_bias = FV_POSITION_BIAS_NONE;
    cross.position_span = cross.position_skip = cross.position_fft = 0;
    cross.rotary = 0;
    cross.rotary_base = 0;
    TRY(create_self(ops, ctx, config, FV_USE_SELF, false, &encoder));
    TRY(create_self(ops, ctx, config, FV_USE_DECODER, true, o));
    return create(&ops->of[FV_USE_CROSS][0], ctx, &cross);
}

static fv_status create_all(fv_operators *ops, fv_context *ctx, const fv_config *config,
                            const fv_shape *shape)
{
    fv_attention_options o;
    TRY(read_options(ctx, config, shape, &o));
    if (shape->decoder_layers > 0)
        return create_pair(ops, ctx, config, &o);
    return create_self(ops, ctx, config, FV_USE_SELF, shape->causal, &o);
}

fv_status fv_operators_create(fv_operators *ops, fv_context *ctx, const fv_config *config,
                              const fv_shape *shape)
{
    *ops = (fv_operators){0};
    fv_status status = create_all(ops, ctx, config, shape);
    if (status != FV_OK)
        fv_operators_destroy(ops);
    return status;
}

void fv_operators_destroy(fv_operators *ops)
{
    for (int use = 0; use < FV_USES; use++)
        for (int part = 0; part < FV_ATTENTION_PARTS; part++)
            fv_attention_destroy(ops->of[use][part].op);
    *ops = (fv_operators){0};
}

int64_t fv_operators_drawn(const fv_operators *ops, fv_use use)
{
    int64_t floats = 0;
    for (int part = 0; part < FV_ATTENTION_PARTS; part++)
        floats += ops->of[use][part].info.drawn_floats;
    return floats;
}

int64_t fv_sites_drawn(const fv_shape *s, const fv_operators *ops)
{
    int64_t layers[FV_USES] = {s->layers, s->decoder_layers, s->decoder_layers}, sum = 0;
    for (int use = 0; use < FV_USES; use++) {
        int64_t floats;
        if (!fv_mul(layers[use], fv_operators_drawn(ops, (fv_use)use), &floats) ||
            __builtin_add_overflow(sum, floats, &sum))
            return -1;
    }
    return sum;
}

int64_t fv_operators_gated(const fv_operators *ops, fv_use use)
{
    int64_t heads = 0;
    for (int part = 0; part < FV_ATTENTION_PARTS; part++) {
        const fv_operator *o = &ops->of[use][part];
        heads += o->op != NULL && o->info.options.gate ? o->info.options.heads : 0;
    }
    return heads;
}

/* ---- sites --------------------------------------------------------------------------------------------- */

int64_t fv_site_count(const fv_shape *shape)
{
    return shape->layers + 2 * shape->decoder_layers;
}

int64_t fv_site_index(const fv_shape *shape, fv_use use, int64_t layer)
{
    if (use == FV_USE_SELF)
        return layer;
    return shape->layers + 2 * layer + (use == FV_USE_CROSS);
}

void fv_layer_prefix(const fv_shape *shape, fv_use use, int64_t layer, char prefix[FV_NAME_BYTES])
{
    const char *stack = shape->decoder_layers == 0 ? "" : use == FV_USE_SELF ? "encoder." : "decoder.";
    snprintf(prefix, FV_NAME_BYTES, "%slayers.%lld.", stack, (long long)layer);
}

void fv_site_prefix(const fv_shape *shape, fv_use use, int64_t layer, char prefix[FV_NAME_BYTES])
{
    fv_layer_prefix(shape, use, layer, prefix);
    size_t used = strlen(prefix);
    snprintf(prefix + used, FV_NAME_BYTES - used, use == FV_USE_CROSS ? "cross_attention." : "attention.");
}

/* Constants: RetNet's decays gamma_h = 1 - 2^(-5-h) (Sun et al. 2023), and ones. */
static void fill_constants(fv_model *model)
{
    const fv_shape *s = &model->shape;
    for (int64_t h = 0; h < s->heads; h++)
        model->constants[h] = (float)(1.0 - exp2(-5.0 - (double)h));
    for (int64_t i = 0; i < s->heads * s->head_dim; i++)
        model->constants[s->heads + i] = 1.0f;
}

/* Fixed inputs: decay; the diagonal of favor#, which is frozen and stays 1 where a measured one would see tokens that
 * are still to come: in causal layers, and in the queries across. */
static void bind_constants(fv_model *model, fv_use use, const fv_operator *o, fv_attention_inputs *inputs)
{
    fv_input_info info;
    bool whole = !o->info.options.causal && use != FV_USE_CROSS;
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        inputs->trained[i] = -1, inputs->fixed[i] = NULL, inputs->shared[i] = false;
    if (fv_attention_input(o->op, FV_INPUT_DECAY, &info))
        inputs->fixed[FV_INPUT_DECAY] = model->constants;
    if (fv_attention_input(o->op, FV_INPUT_PSI_DIAGONAL, &info) && !whole)
        inputs->fixed[FV_INPUT_PSI_DIAGONAL] = model->constants + model->shape.heads;
}

/* Lays out one site; returns where the random inputs of the next begin. */
static const float *layout_site(fv_model *model, fv_use use, int64_t layer, const float *drawn)
{
    fv_site *site = &model->sites[fv_site_index(&model->shape, use, layer)];
    *site = (fv_site){.use = use, .layer = layer, .gate = -1, .gate_bias = -1};
    for (int part = 0; part < FV_ATTENTION_PARTS; part++) {
        const fv_operator *o = &model->ops.of[use][part];
        if (o->op == NULL)
            continue;
        bind_constants(model, use, o, &site->inputs[part]);
        site->drawn[part] = o->info.drawn_floats > 0 ? drawn : NULL;
        drawn += o->info.drawn_floats;
    }
    return drawn;
}

void fv_sites_layout(fv_model *model)
{
    const float *drawn = model->projections;
    fill_constants(model);
    for (int64_t l = 0; l < model->shape.layers; l++)
        drawn = layout_site(model, FV_USE_SELF, l, drawn);
    for (int64_t l = 0; l < model->shape.decoder_layers; l++) {
        drawn = layout_site(model, FV_USE_DECODER, l, drawn);
        drawn = layout_site(model, FV_USE_CROSS, l, drawn);
    }
}

void fv_sites_start(fv_model *model)
{
    for (int64_t i = 0; i < fv_site_count(&model->shape); i++)
        for (int part = 0; part < FV_ATTENTION_PARTS; part++) {
            const fv_site *site = &model->sites[i];
            const fv_operator *o = &model->ops.of[site->use][part];
            fv_attention_io io = {0};
            fv_input_info info;
            if (o->op == NULL || site->inputs[part].trained[FV_INPUT_PROJECTION] < 0)
                continue;
            fv_attention_bind_drawn(o->op, site->drawn[part], &io);
            (void)fv_attention_input(o->op, FV_INPUT_PROJECTION, &info);
            memcpy(model->values + site->inputs[part].trained[FV_INPUT_PROJECTION],
                   io.input[FV_INPUT_PROJECTION], (size_t)info.floats * sizeof(float));
        }
}
