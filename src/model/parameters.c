/* parameters.c: the table of tensors, their place in the one vector, and how they are drawn.
 *
 * Initialisation follows the Performer's protein models (Choromanski et al. 2021): token embedding N(0, 1),
 * learned positions start as sinusoids, matrices Xavier uniform U(-a, a) with a = sqrt(6 / (in + out)),
 * biases of the feed-forward layers N(0, 1e-6), layer norms 1 and 0. A tied embedding is also the output
 * matrix, where N(0, 1) would make logits of variance hidden_size: it is drawn from N(0, 1/hidden_size).
 */
#include "model/transformer.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>

typedef enum extent { NONE, VOCABULARY, PLACES, WIDTH, QUERIES, KEYS, INNER } extent;
typedef enum init { ZEROS, ONES, XAVIER, EMBEDDING, TINY, SINUSOIDS } init;

/* One tensor: name, shape, initialisation, and where its offset is kept (in the model or in a layer). */
typedef struct tensor_row {
    const char *name;
    extent rows, cols; /* cols NONE: a vector */
    init init;
    size_t place;
} tensor_row;

#define IN_MODEL(field) offsetof(fv_model, field)
#define IN_LAYER(field) offsetof(fv_layer, field)

static const tensor_row first_rows[] = {
    {"embeddings.token.weight", VOCABULARY, WIDTH, EMBEDDING, IN_MODEL(token)},
    {"embeddings.position.weight", PLACES, WIDTH, SINUSOIDS, IN_MODEL(place)},
};

/* query, key and value stand together: they are multiplied as one matrix. */
static const tensor_row layer_rows[] = {
    {"attention.norm.weight", WIDTH, NONE, ONES, IN_LAYER(norm1_gain)},
    {"attention.norm.bias", WIDTH, NONE, ZEROS, IN_LAYER(norm1_bias)},
    {"attention.query.weight", QUERIES, WIDTH, XAVIER, IN_LAYER(query)},
    {"attention.key.weight", KEYS, WIDTH, XAVIER, IN_LAYER(key)},
    {"attention.value.weight", KEYS, WIDTH, XAVIER, IN_LAYER(value)},
    {"attention.output.weight", WIDTH, QUERIES, XAVIER, IN_LAYER(output)},
    {"mlp.norm.weight", WIDTH, NONE, ONES, IN_LAYER(norm2_gain)},
    {"mlp.norm.bias", WIDTH, NONE, ZEROS, IN_LAYER(norm2_bias)},
    {"mlp.up.weight", INNER, WIDTH, XAVIER, IN_LAYER(up)},
    {"mlp.up.bias", INNER, NONE, TINY, IN_LAYER(up_bias)},
    {"mlp.down.weight", WIDTH, INNER, XAVIER, IN_LAYER(down)},
    {"mlp.down.bias", WIDTH, NONE, TINY, IN_LAYER(down_bias)},
};

static const tensor_row last_rows[] = {
    {"norm.weight", WIDTH, NONE, ONES, IN_MODEL(norm_gain)},
    {"norm.bias", WIDTH, NONE, ZEROS, IN_MODEL(norm_bias)},
    {"head.weight", VOCABULARY, WIDTH, XAVIER, IN_MODEL(head)},
    {"head.bias", VOCABULARY, NONE, ZEROS, IN_MODEL(head_bias)},
};

static int64_t extent_of(const fv_shape *s, extent e)
{
    const int64_t extents[] = {
        1, s->vocabulary, s->places, s->width, s->heads * s->head_dim, s->kv_heads * s->head_dim, s->inner};
    return extents[e];
}

static bool present(const fv_shape *s, const tensor_row *row)
{
    if (row->rows == PLACES)
        return s->places_kind == FV_PLACES_LEARNED;
    return !(s->tied && row->place == IN_MODEL(head));
}

int fv_parameters_count(const fv_shape *shape)
{
    int learned = shape->places_kind == FV_PLACES_LEARNED;
    return FV_COUNT(first_rows) - !learned + (int)shape->layers * FV_COUNT(layer_rows) + FV_COUNT(last_rows) -
           shape->tied;
}

/* *sum += times * elements of the rows of a table; false when it does not fit. */
static bool add_floats(const fv_shape *s, const tensor_row *rows, int count, int64_t times, int64_t *sum)
{
    for (int i = 0; i < count; i++) {
        int64_t n, all;
        if (!present(s, &rows[i]))
            continue;
        if (!fv_mul(extent_of(s, rows[i].rows), extent_of(s, rows[i].cols), &n) || !fv_mul(n, times, &all) ||
            __builtin_add_overflow(*sum, all, sum))
            return false;
    }
    return true;
}

int64_t fv_parameters_floats(const fv_shape *s)
{
    int64_t sum = 0;
    bool fits = add_floats(s, first_rows, FV_COUNT(first_rows), 1, &sum) &&
                add_floats(s, layer_rows, FV_COUNT(layer_rows), s->layers, &sum) &&
                add_floats(s, last_rows, FV_COUNT(last_rows), 1, &sum);
    return fits && sum <= INT64_MAX / 64 ? sum : -1;
}

/* ---- views --------------------------------------------------------------------------------------- */

static void add_view(fv_model *model, const tensor_row *row, const char *prefix, int64_t *offset)
{
    int index = model->parameter_count++;
    fv_parameter *p = &model->parameters[index];
    int64_t rows = extent_of(&model->shape, row->rows), cols = extent_of(&model->shape, row->cols);
    snprintf(model->names[index], FV_NAME_BYTES, "%s%s", prefix, row->name);
    model->inits[index] = (uint8_t)row->init;
    *offset = model->float_count;
    *p = (fv_parameter){.name = model->names[index],
                        .rank = row->cols == NONE ? 1 : 2,
                        .shape = {rows, cols},
                        .offset = *offset,
                        .count = rows * cols,
                        .decay = row->cols != NONE};
    model->float_count += p->count;
}

static void add_views(fv_model *model, const tensor_row *rows, int count, const char *prefix, void *offsets)
{
    for (int i = 0; i < count; i++) {
        int64_t *offset = (int64_t *)(void *)((char *)offsets + rows[i].place);
        if (present(&model->shape, &rows[i]))
            add_view(model, &rows[i], prefix, offset);
        else
            *offset = -1;
    }
}

void fv_parameters_layout(fv_model *model)
{
    add_views(model, first_rows, FV_COUNT(first_rows), "", model);
    for (int64_t l = 0; l < model->shape.layers; l++) {
        char prefix[FV_NAME_BYTES];
        snprintf(prefix, sizeof prefix, "layers.%lld.", (long long)l);
        add_views(model, layer_rows, FV_COUNT(layer_rows), prefix, &model->layers[l]);
    }
    add_views(model, last_rows, FV_COUNT(last_rows), "", model);
    if (model->shape.tied)
        model->head = model->token;
}

/* ---- initial values ------------------------------------------------------------------------------ */

static void fill(float *values, int64_t n, float value)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = value;
}

static void draw_normal(fv_random *random, double deviation, float *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)(deviation * fv_random_normal(random));
}

static void draw_uniform(fv_random *random, double bound, float *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)(bound * (2.0 * fv_random_uniform(random) - 1.0));
}

typedef struct init_job {
    fv_model *model;
    uint64_t seed;
} init_job;

static void init_parameter(void *arg, int64_t index, int worker)
{
    (void)worker;
    const init_job *job = arg;
    fv_model *model = job->model;
    const fv_parameter *p = &model->parameters[index];
    fv_random random = fv_random_make(job->seed, FV_RANDOM_INIT, 0, (uint32_t)index);
    float *values = model->values + p->offset;
    double width = (double)model->shape.width;
    switch ((init)model->inits[index]) {
    case ZEROS:
    case SINUSOIDS: /* filled before, by all threads */
        break;
    case ONES:
        fill(values, p->count, 1.0f);
        break;
    case XAVIER:
        draw_uniform(&random, sqrt(6.0 / (double)(p->shape[0] + p->shape[1])), values, p->count);
        break;
    case EMBEDDING:
        draw_normal(&random, model->shape.tied ? 1.0 / sqrt(width) : 1.0, values, p->count);
        break;
    case TINY:
        draw_normal(&random, 1e-6, values, p->count);
        break;
    }
}

void fv_parameters_init(fv_model *model, uint64_t seed)
{
    fill(model->values, model->float_count, 0.0f);
    if (model->place >= 0)
        fv_sinusoids_fill(model->ctx, model->shape.places, model->shape.width, model->values + model->place);
    init_job job = {model, seed};
    fv_parallel(model->ctx, model->parameter_count, init_parameter, &job);
}

/* ---- sinusoids ----------------------------------------------------------------------------------- */

typedef struct sinusoid_job {
    int64_t places, width;
    float *table;
} sinusoid_job;

enum { PLACES_A_TASK = 256 };

static void sinusoid_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const sinusoid_job *job = arg;
    int64_t begin = index * PLACES_A_TASK, end = FV_MIN(begin + PLACES_A_TASK, job->places);
    for (int64_t c = 0; c < job->width; c++) {
        double frequency = pow(10000.0, -(double)(c - c % 2) / (double)job->width);
        for (int64_t p = begin; p < end; p++) {
            double angle = (double)p * frequency;
            job->table[p * job->width + c] = (float)(c % 2 == 0 ? sin(angle) : cos(angle));
        }
    }
}

void fv_sinusoids_fill(fv_context *ctx, int64_t places, int64_t width, float *table)
{
    sinusoid_job job = {places, width, table};
    fv_parallel(ctx, (places + PLACES_A_TASK - 1) / PLACES_A_TASK, sinusoid_rows, &job);
}
