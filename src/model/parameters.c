/* parameters.c: the table of tensors, their place in the one vector, and how they are drawn.
 *
 * Initialisation follows the Performer's protein models (Choromanski et al. 2021): token embedding N(0, 1),
 * learned positions start as sinusoids, matrices Xavier uniform U(-a, a) with a = sqrt(6 / (in + out)),
 * biases of the feed-forward layers N(0, 1e-6), layer norms 1 and 0. A tied embedding is also the output
 * matrix, where N(0, 1) would make logits of variance hidden_size: it is drawn from N(0, 1/hidden_size).
 *
 * Inputs of attention that are learned start as their papers say: factors 1, maps the identity, FastRPB almost
 * 0, Linformer's E and F U(-1/sqrt(k), 1/sqrt(k)); a gate's bias is 3, so that it remembers about 20 tokens.
 */
#include "model/transformer.h"
#include <math.h>
#include <stddef.h>
#include <stdio.h>

typedef enum extent { NONE, VOCABULARY, PLACES, WIDTH, QUERIES, KEYS, INNER, LABELS, PAIR } extent;
typedef enum init {
    ZEROS,
    ONES,
    XAVIER,
    EMBEDDING,
    TINY,
    SINUSOIDS,
    IDENTITY,
    GATE_BIAS,
    DISTANCE,
    SPREAD,
    SPREAD_SHARED
} init;
typedef enum when { ALWAYS, LEARNED, LM, UNTIED, CLASSIFIER, PAIRS } when;

/* One tensor: name, shape, initialisation, and where its offset is kept (in the model or in a layer). */
typedef struct tensor_row {
    const char *name;
    extent rows, cols; /* cols NONE: a vector */
    init init;
    when when;
    size_t place;
} tensor_row;

#define IN_MODEL(field) offsetof(fv_model, field)
#define IN_LAYER(field) offsetof(fv_layer, field)

static const tensor_row first_rows[] = {
    {"embeddings.token.weight", VOCABULARY, WIDTH, EMBEDDING, ALWAYS, IN_MODEL(token)},
    {"embeddings.position.weight", PLACES, WIDTH, SINUSOIDS, LEARNED, IN_MODEL(place)},
};

/* query, key and value stand together: they are multiplied as one matrix. */
static const tensor_row attention_rows[] = {
    {"attention.norm.weight", WIDTH, NONE, ONES, ALWAYS, IN_LAYER(norm1_gain)},
    {"attention.norm.bias", WIDTH, NONE, ZEROS, ALWAYS, IN_LAYER(norm1_bias)},
    {"attention.query.weight", QUERIES, WIDTH, XAVIER, ALWAYS, IN_LAYER(query)},
    {"attention.key.weight", KEYS, WIDTH, XAVIER, ALWAYS, IN_LAYER(key)},
    {"attention.value.weight", KEYS, WIDTH, XAVIER, ALWAYS, IN_LAYER(value)},
    {"attention.output.weight", WIDTH, QUERIES, XAVIER, ALWAYS, IN_LAYER(output)},
};

/* key and value stand together */
static const tensor_row cross_rows[] = {
    {"cross_attention.norm.weight", WIDTH, NONE, ONES, ALWAYS, IN_LAYER(cross_gain)},
    {"cross_attention.norm.bias", WIDTH, NONE, ZEROS, ALWAYS, IN_LAYER(cross_bias)},
    {"cross_attention.query.weight", QUERIES, WIDTH, XAVIER, ALWAYS, IN_LAYER(cross_query)},
    {"cross_attention.key.weight", KEYS, WIDTH, XAVIER, ALWAYS, IN_LAYER(cross_key)},
    {"cross_attention.value.weight", KEYS, WIDTH, XAVIER, ALWAYS, IN_LAYER(cross_value)},
    {"cross_attention.output.weight", WIDTH, QUERIES, XAVIER, ALWAYS, IN_LAYER(cross_output)},
};

static const tensor_row mlp_rows[] = {
    {"mlp.norm.weight", WIDTH, NONE, ONES, ALWAYS, IN_LAYER(norm2_gain)},
    {"mlp.norm.bias", WIDTH, NONE, ZEROS, ALWAYS, IN_LAYER(norm2_bias)},
    {"mlp.up.weight", INNER, WIDTH, XAVIER, ALWAYS, IN_LAYER(up)},
    {"mlp.up.bias", INNER, NONE, TINY, ALWAYS, IN_LAYER(up_bias)},
    {"mlp.down.weight", WIDTH, INNER, XAVIER, ALWAYS, IN_LAYER(down)},
    {"mlp.down.bias", WIDTH, NONE, TINY, ALWAYS, IN_LAYER(down_bias)},
};

static const tensor_row memory_rows[] = {
    {"norm.weight", WIDTH, NONE, ONES, ALWAYS, IN_MODEL(memory_gain)},
    {"norm.bias", WIDTH, NONE, ZEROS, ALWAYS, IN_MODEL(memory_bias)},
};

static const tensor_row norm_rows[] = {
    {"norm.weight", WIDTH, NONE, ONES, ALWAYS, IN_MODEL(norm_gain)},
    {"norm.bias", WIDTH, NONE, ZEROS, ALWAYS, IN_MODEL(norm_bias)},
};

static const tensor_row head_rows[] = {
    {"head.weight", VOCABULARY, WIDTH, XAVIER, UNTIED, IN_MODEL(head)},
    {"head.bias", VOCABULARY, NONE, ZEROS, LM, IN_MODEL(head_bias)},
    {"classifier.weight", LABELS, WIDTH, XAVIER, CLASSIFIER, IN_MODEL(head)},
    {"classifier.bias", LABELS, NONE, ZEROS, CLASSIFIER, IN_MODEL(head_bias)},
    {"classifier.dense.weight", INNER, PAIR, XAVIER, PAIRS, IN_MODEL(dense)},
    {"classifier.dense.bias", INNER, NONE, ZEROS, PAIRS, IN_MODEL(dense_bias)},
    {"classifier.out_proj.weight", LABELS, INNER, XAVIER, PAIRS, IN_MODEL(head)},
    {"classifier.out_proj.bias", LABELS, NONE, ZEROS, PAIRS, IN_MODEL(head_bias)},
};

/* Learned inputs of attention, beside q, k, v; their shapes are the operator's. decay has no row: its factors
 * stay those of RetNet. */
static const struct input_row {
    fv_input which;
    init init;
    bool decay; /* of weights, by the optimizer */
} input_rows[] = {
    {FV_INPUT_PROJECTION, ZEROS, false}, /* trained: begins as the drawn one */
    {FV_INPUT_POSITION_BIAS, DISTANCE, false}, {FV_INPUT_BANDWIDTH, ONES, false},
    {FV_INPUT_MAP_WEIGHT, IDENTITY, false},    {FV_INPUT_REBASED_GAMMA, ONES, false},
    {FV_INPUT_REBASED_BETA, ZEROS, false},     {FV_INPUT_PPSBN_GAMMA, ONES, false},
    {FV_INPUT_PPSBN_BETA, ONES, false},        {FV_INPUT_LINFORMER_E, SPREAD, true},
    {FV_INPUT_LINFORMER_F, SPREAD, true},
};

static int64_t extent_of(const fv_shape *s, extent e)
{
    const int64_t extents[] = {
        1,        s->vocabulary, s->places,   s->width, s->heads * s->head_dim, s->kv_heads * s->head_dim,
        s->inner, s->labels,     4 * s->width};
    return extents[e];
}

static bool present(const fv_shape *s, when w)
{
    const bool holds[] = {true,
                          s->places_kind == FV_PLACES_LEARNED,
                          s->head == FV_HEAD_LM,
                          s->head == FV_HEAD_LM && !s->tied,
                          s->head == FV_HEAD_CLASSIFICATION,
                          s->head == FV_HEAD_PAIR};
    return holds[w];
}

/* ---- walking over all tensors of a model ----------------------------------------------------------- */

typedef struct tensor {
    const char *prefix, *name;
    int rank;
    int64_t shape[3];
    init init;
    bool decay;
    int64_t *offset; /* where it is kept; NULL while counting */
} tensor;

typedef struct walk {
    const fv_shape *shape;
    const fv_operators *ops;
    fv_model *model; /* NULL: there is none yet, tensors are only counted */
    void (*visit)(void *arg, const tensor *t);
    void *arg;
} walk;

static void walk_rows(const walk *w, const tensor_row *rows, int count, const char *prefix, void *offsets)
{
    for (int i = 0; i < count; i++) {
        const tensor_row *row = &rows[i];
        if (!present(w->shape, row->when))
            continue;
        tensor t = {.prefix = prefix,
                    .name = row->name,
                    .rank = row->cols == NONE ? 1 : 2,
                    .shape = {extent_of(w->shape, row->rows), extent_of(w->shape, row->cols)},
                    .init = row->init,
                    .decay = row->cols != NONE,
                    .offset = offsets != NULL ? (int64_t *)(void *)((char *)offsets + row->place) : NULL};
        w->visit(w->arg, &t);
    }
}

/* The layer that gates, W_g [H][width] and b_g [H] (RFA-GATE). */
static void walk_gate(const walk *w, const fv_operator *o, fv_site *site, const char *prefix)
{
    fv_input_info info;
    if (!fv_attention_input(o->op, FV_INPUT_GATE, &info))
        return;
    tensor weight = {prefix,
                     "gate.weight",
                     2,
                     {o->info.options.heads, w->shape->width},
                     XAVIER,
                     true,
                     site != NULL ? &site->gate : NULL};
    tensor bias = {prefix,
                   "gate.bias",
                   1,
                   {o->info.options.heads},
                   GATE_BIAS,
                   false,
                   site != NULL ? &site->gate_bias : NULL};
    w->visit(w->arg, &weight);
    w->visit(w->arg, &bias);
}

static bool is_shared(const fv_shape *s, fv_input which)
{
    return s->sharing != FV_SHARING_NONE && (which == FV_INPUT_LINFORMER_E || which == FV_INPUT_LINFORMER_F);
}

/* Linformer's E or F for all heads of a layer, or of all layers: visited where it stands first. */
static void walk_shared(const walk *w, const fv_input_info *info, fv_input which, int64_t site,
                        const char *prefix, int64_t *offset)
{
    bool first = w->shape->sharing == FV_SHARING_LAYER ? site == 0 : true;
    if (!first || (which == FV_INPUT_LINFORMER_F && w->shape->sharing != FV_SHARING_HEADWISE))
        return;
    tensor t = {.prefix = w->shape->sharing == FV_SHARING_LAYER ? "attention." : prefix,
                .name = info->name,
                .rank = 2,
                .shape = {info->shape[1], info->shape[2]},
                .init = SPREAD_SHARED,
                .decay = true,
                .offset = offset};
    w->visit(w->arg, &t);
}

static void walk_input(const walk *w, const fv_operator *o, const struct input_row *row, int64_t site,
                       const char *prefix, int64_t *offset)
{
    fv_input_info info;
    if (!fv_attention_input(o->op, row->which, &info) || !info.has_gradient)
        return;
    if (is_shared(w->shape, row->which)) {
        walk_shared(w, &info, row->which, site, prefix, offset);
        return;
    }
    bool kernel = o->info.options.position_bias == FV_POSITION_BIAS_KERNEL;
    tensor t = {.prefix = prefix,
                .name = info.name,
                .rank = info.rank,
                .shape = {info.shape[0], info.shape[1], info.shape[2]},
                .init = row->init == DISTANCE && kernel ? ZEROS : row->init,
                .decay = row->decay,
                .offset = offset};
    w->visit(w->arg, &t);
}

/* What one attention of one layer learns beside its matrices. */
static void walk_site(const walk *w, fv_use use, int64_t layer)
{
    char prefix[FV_NAME_BYTES];
    fv_site_prefix(w->shape, use, layer, prefix);
    fv_site *site = w->model != NULL ? &w->model->sites[fv_site_index(w->shape, use, layer)] : NULL;
    for (int part = 0; part < FV_ATTENTION_PARTS; part++) {
        const fv_operator *o = &w->ops->of[use][part];
        if (o->op == NULL)
            continue;
        int64_t *trained = site != NULL ? site->inputs[part].trained : NULL;
        for (int i = 0; i < FV_COUNT(input_rows); i++)
            walk_input(w, o, &input_rows[i], fv_site_index(w->shape, use, layer), prefix,
                       trained != NULL ? &trained[input_rows[i].which] : NULL);
        walk_gate(w, o, site, prefix);
    }
}

static void walk_layer(const walk *w, fv_use use, int64_t layer)
{
    char prefix[FV_NAME_BYTES];
    int64_t index = layer + (use == FV_USE_DECODER ? w->shape->layers : 0);
    fv_layer *offsets = w->model != NULL ? &w->model->layers[index] : NULL;
    fv_layer_prefix(w->shape, use, layer, prefix);
    walk_rows(w, attention_rows, FV_COUNT(attention_rows), prefix, offsets);
    walk_site(w, use, layer);
    if (use == FV_USE_DECODER) {
        walk_rows(w, cross_rows, FV_COUNT(cross_rows), prefix, offsets);
        walk_site(w, FV_USE_CROSS, layer);
    }
    walk_rows(w, mlp_rows, FV_COUNT(mlp_rows), prefix, offsets);
}

static void walk_all(const walk *w)
{
    const fv_shape *s = w->shape;
    bool two = s->decoder_layers > 0;
    walk_rows(w, first_rows, FV_COUNT(first_rows), "", w->model);
    for (int64_t l = 0; l < s->layers; l++)
        walk_layer(w, FV_USE_SELF, l);
    if (two)
        walk_rows(w, memory_rows, FV_COUNT(memory_rows), "encoder.", w->model);
    for (int64_t l = 0; l < s->decoder_layers; l++)
        walk_layer(w, FV_USE_DECODER, l);
    walk_rows(w, norm_rows, FV_COUNT(norm_rows), two ? "decoder." : "", w->model);
    walk_rows(w, head_rows, FV_COUNT(head_rows), "", w->model);
}

/* ---- how many ------------------------------------------------------------------------------------ */

static void count_tensor(void *arg, const tensor *t)
{
    (void)t;
    ++*(int *)arg;
}

int fv_parameters_count(const fv_shape *shape, const fv_operators *ops)
{
    int count = 0;
    walk_all(&(walk){.shape = shape, .ops = ops, .visit = count_tensor, .arg = &count});
    return count;
}

/* *sum += floats of the tensor; -1 for good when it does not fit. */
static void add_floats(void *arg, const tensor *t)
{
    int64_t *sum = arg, floats = 1;
    bool fits = *sum >= 0;
    for (int i = 0; i < t->rank; i++)
        fits = fits && fv_mul(floats, t->shape[i], &floats);
    if (!fits || __builtin_add_overflow(*sum, floats, sum))
        *sum = -1;
}

int64_t fv_parameters_floats(const fv_shape *shape, const fv_operators *ops)
{
    int64_t sum = 0;
    walk_all(&(walk){.shape = shape, .ops = ops, .visit = add_floats, .arg = &sum});
    return sum <= INT64_MAX / 64 ? sum : -1;
}

/* ---- views --------------------------------------------------------------------------------------- */

static void add_view(void *arg, const tensor *t)
{
    fv_model *model = arg;
    int index = model->parameter_count++;
    fv_parameter *p = &model->parameters[index];
    snprintf(model->names[index], FV_NAME_BYTES, "%s%s", t->prefix, t->name);
    model->inits[index] = (uint8_t)t->init;
    if (t->offset != NULL) /* not while counting */
        *t->offset = model->float_count;
    *p = (fv_parameter){.name = model->names[index],
                        .rank = t->rank,
                        .shape = {t->shape[0], t->shape[1], t->shape[2]},
                        .offset = model->float_count,
                        .count = 1,
                        .decay = t->decay};
    for (int i = 0; i < t->rank; i++)
        p->count *= t->shape[i];
    model->float_count += p->count;
}

/* What stood elsewhere first: E of the same site or of site 0. */
static void share_offsets(fv_model *model)
{
    const fv_shape *s = &model->shape;
    for (int64_t i = 0; s->sharing != FV_SHARING_NONE && i < fv_site_count(s); i++)
        for (int part = 0; part < FV_ATTENTION_PARTS; part++) {
            const fv_attention *op = model->ops.of[model->sites[i].use][part].op;
            fv_attention_inputs *inputs = &model->sites[i].inputs[part];
            fv_input_info info;
            if (op == NULL || !fv_attention_input(op, FV_INPUT_LINFORMER_E, &info))
                continue;
            inputs->shared[FV_INPUT_LINFORMER_E] = inputs->shared[FV_INPUT_LINFORMER_F] = true;
            if (s->sharing == FV_SHARING_LAYER)
                inputs->trained[FV_INPUT_LINFORMER_E] =
                    model->sites[0].inputs[part].trained[FV_INPUT_LINFORMER_E];
            if (s->sharing != FV_SHARING_HEADWISE)
                inputs->trained[FV_INPUT_LINFORMER_F] = inputs->trained[FV_INPUT_LINFORMER_E];
        }
}

void fv_parameters_layout(fv_model *model)
{
    model->place = model->head = model->dense = -1;
    walk_all(
        &(walk){.shape = &model->shape, .ops = &model->ops, .model = model, .visit = add_view, .arg = model});
    if (model->shape.tied)
        model->head = model->token;
    share_offsets(model);
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

/* [heads][n][n] */
static void fill_identities(const fv_parameter *p, float *values)
{
    for (int64_t i = 0; i < p->count; i++)
        values[i] = i / p->shape[2] % p->shape[1] == i % p->shape[2] ? 1.0f : 0.0f;
}

/* FastRPB's start [heads][2N-1]: 1e-5 |i-j| u + 1e-6 n with u ~ U(0,1), n ~ N(0,1) a head: almost nothing. */
static void draw_distances(fv_random *random, const fv_parameter *p, float *values)
{
    int64_t span = p->shape[1] / 2;
    for (int64_t h = 0; h < p->shape[0]; h++) {
        double slope = 1e-5 * fv_random_uniform(random), level = 1e-6 * fv_random_normal(random);
        for (int64_t i = 0; i < p->shape[1]; i++)
            values[h * p->shape[1] + i] = (float)(slope * (double)(i < span ? span - i : i - span) + level);
    }
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
    case IDENTITY:
        fill_identities(p, values);
        break;
    case GATE_BIAS:
        fill(values, p->count, 3.0f);
        break;
    case DISTANCE:
        draw_distances(&random, p, values);
        break;
    case SPREAD_SHARED:
        draw_uniform(&random, 1.0 / sqrt((double)p->shape[0]), values, p->count);
        break;
    case SPREAD:
        draw_uniform(&random, 1.0 / sqrt((double)p->shape[1]), values, p->count);
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
