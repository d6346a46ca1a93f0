/* model.c: a model's life, its parameters as vectors, its projections. */
#include "model/transformer.h"
#include <string.h>

static int64_t or_none(bool fits, int64_t value)
{
    return fits ? value : -1;
}

/* The model, its lists and its vectors in one block; with base NULL only the bytes are counted. */
static fv_model *lay_out(fv_arena *arena, fv_context *ctx, const fv_shape *s, const fv_operators *ops)
{
    fv_model head = {.ctx = ctx, .shape = *s, .ops = *ops};
    fv_model *model = FV_PUSH(arena, fv_model, 1);
    int64_t count = fv_parameters_count(s, ops), sinusoids = 0;
    bool fits = s->places_kind != FV_PLACES_SINUSOIDAL || fv_mul(s->places, s->width, &sinusoids);
    head.layers = FV_PUSH(arena, fv_layer, s->layers + s->decoder_layers);
    head.sites = FV_PUSH(arena, fv_site, fv_site_count(s));
    head.parameters = FV_PUSH(arena, fv_parameter, count);
    head.names = fv_arena_push(arena, count, FV_NAME_BYTES);
    head.inits = FV_PUSH(arena, uint8_t, count);
    head.values = FV_PUSH(arena, float, fv_parameters_floats(s, ops));
    head.projections = FV_PUSH(arena, float, fv_sites_drawn(s, ops));
    head.constants = FV_PUSH(arena, float, s->heads *(1 + s->head_dim));
    float *table = FV_PUSH(arena, float, or_none(fits, sinusoids));
    head.sinusoids = sinusoids != 0 ? table : NULL;
    fv_tape_layout(&head.tape, ctx, fv_transformer_nodes(s), arena);
    head.bytes = arena->used;
    if (model != NULL)
        *model = head;
    return model;
}

static fv_status check_room(fv_context *ctx, const fv_shape *s, const fv_operators *ops, size_t bytes)
{
    if (fv_parameters_floats(s, ops) < 0)
        return fv_fail(ctx, FV_ERR_USAGE,
                       "config: hidden_size %lld, intermediate_size %lld, num_hidden_layers %lld and "
                       "max_position_embeddings %lld make more parameters than can be addressed",
                       (long long)s->width, (long long)s->inner, (long long)s->layers, (long long)s->places);
    if (bytes == SIZE_MAX)
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "config: max_position_embeddings, num_hidden_layers or attention.features make a model "
            "larger than can be addressed");
    size_t room = fv_available_memory();
    if (bytes <= room)
        return FV_OK;
    return fv_fail(ctx, FV_ERR_RESOURCE,
                   "out of memory: a model of %.4g parameters needs %.1f MiB, %.1f MiB are free; use a "
                   "smaller hidden_size, num_hidden_layers or max_position_embeddings",
                   (double)fv_parameters_floats(s, ops), (double)bytes / 0x1p20, (double)room / 0x1p20);
}

static fv_status build(fv_model **out, fv_context *ctx, fv_config *config, const fv_shape *shape,
                       const fv_operators *ops)
{
    fv_arena arena = fv_arena_measure();
    lay_out(&arena, ctx, shape, ops);
    size_t bytes = arena.used;
    TRY(check_room(ctx, shape, ops, bytes));
    void *memory = fv_alloc(ctx, bytes);
    if (memory == NULL)
        return FV_ERR_RESOURCE;
    arena = fv_arena_over(memory, bytes);
    fv_model *model = lay_out(&arena, ctx, shape, ops);
    model->config = config;
    fv_sites_layout(model);
    fv_parameters_layout(model);
    *out = model;
    return FV_OK;
}

void fv_model_fill_sinusoids(fv_model *model)
{
    if (model->sinusoids != NULL)
        fv_sinusoids_fill(model->ctx, model->shape.places, model->shape.width, model->sinusoids);
}

fv_status fv_model_build(fv_model **out, fv_context *ctx, const fv_config *config)
{
    fv_config *own = NULL;
    fv_operators ops = {0};
    fv_shape shape;
    *out = NULL;
    TRY(fv_config_copy(&own, config));
    fv_status status = fv_shape_read(ctx, own, &shape);
    if (status == FV_OK)
        status = fv_operators_create(&ops, ctx, own, &shape);
    if (status == FV_OK)
        status = build(out, ctx, own, &shape, &ops);
    if (status != FV_OK) {
        fv_operators_destroy(&ops);
        fv_config_destroy(own);
    }
    return status;
}

fv_status fv_model_start(fv_model *model, uint64_t seed)
{
    fv_model_fill_sinusoids(model);
    fv_parameters_init(model, seed);
    TRY(fv_model_redraw(model, 0));
    fv_sites_start(model);
    return FV_OK;
}

fv_status fv_model_create(fv_model **out, fv_context *ctx, const fv_config *config, uint64_t seed)
{
    fv_model *model;
    *out = NULL;
    TRY(fv_model_build(&model, ctx, config));
    fv_status status = fv_model_start(model, seed);
    if (status == FV_OK)
        *out = model;
    else
        fv_model_destroy(model);
    return status;
}

void fv_model_destroy(fv_model *model)
{
    if (model == NULL)
        return;
    fv_context *ctx = model->ctx;
    fv_free(ctx, model->work.memory);
    fv_free(ctx, model->gradients);
    fv_operators_destroy(&model->ops);
    fv_config_destroy(model->config);
    fv_free(ctx, model);
}

/* ---- what it holds ------------------------------------------------------------------------------- */

const fv_config *fv_model_config(const fv_model *model)
{
    return model->config;
}

const fv_tokenizer *fv_model_tokenizer(const fv_model *model)
{
    return model->shape.tokenizer;
}

int64_t fv_model_parameters(const fv_model *model)
{
    return model->float_count;
}

int fv_model_parameter_count(const fv_model *model)
{
    return model->parameter_count;
}

const fv_parameter *fv_model_parameter_at(const fv_model *model, int index)
{
    return index >= 0 && index < model->parameter_count ? &model->parameters[index] : NULL;
}

float *fv_model_values(fv_model *model)
{
    return model->values;
}

float *fv_model_gradients(fv_model *model)
{
    if (model->gradients == NULL)
        model->gradients = fv_alloc_zero(model->ctx, model->float_count, sizeof(float));
    return model->gradients;
}

/* ---- projections --------------------------------------------------------------------------------- */

static fv_status redraw_site(fv_model *model, int64_t index, uint64_t number)
{
    const fv_site *site = &model->sites[index];
    for (int part = 0; part < FV_ATTENTION_PARTS; part++)
        if (site->drawn[part] != NULL)
            TRY(fv_attention_draw(model->ops.of[site->use][part].op, model->shape.projection_seed, number,
                                  (float *)(uintptr_t)site->drawn[part]));
    return FV_OK;
}

fv_status fv_model_redraw(fv_model *model, int64_t draw)
{
    int64_t sites = fv_site_count(&model->shape);
    if (draw < 0)
        return fv_fail(model->ctx, FV_ERR_USAGE, "draw %lld of the projections; expected 0 or more",
                       (long long)draw);
    /* Draws number the sites through, so that no two of them share a projection. */
    for (int64_t i = 0; i < sites; i++)
        TRY(redraw_site(model, i, (uint64_t)draw * (uint64_t)sites + (uint64_t)i));
    model->draw = draw;
    return FV_OK;
}

int64_t fv_model_draw(const fv_model *model)
{
    return model->draw;
}
