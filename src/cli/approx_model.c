/* cli/approx_model.c: `favor approx --run`: a trained model on its data, layer by layer and head by head.
 *
 * Records of the data are taken in their order until --length tokens are reached. For each layer the queries, keys
 * and values that the model computes are given to exact attention and to the maps; errors are means over redraws,
 * not those of the one draw the model was saved with. Beside them stand, for each head,
 *
 *     largest |q+k|^2 over sampled queries and all keys they see, after scaling: the relative variance of positive
 *                     features is e^(|q+k|^2) - 1 a feature
 *     effective number of features, (sum_f w_f)^2 / sum_f w_f^2, w_f the share of projection f in the normaliser of
 *                     a query: m if all count alike, 1 if one decides everything; a mean over a few queries
 */
#include "approx_model.h"
#include <math.h>
#include <string.h>

enum { POINTS_MAX = 1024 };

typedef struct model_study {
    approx *a;
    fv_model *model;
    const fv_config *config;
    int32_t *tokens;
    int64_t *offsets;
    fv_batch batch;
    approx_data data; /* of one layer */
    approx_layer layer;
    int64_t number; /* of the layer */
    approx_reference exact;
    double *norms;     /* [H] largest |q+k|^2 */
    double *effective; /* [features.count][H] of one map */
    approx_point points[POINTS_MAX];
    int point_count;
    size_t first_row; /* of this layer */
} model_study;

/* ---- data -------------------------------------------------------------------------------------------- */

static const char *reader_of(const fv_tokenizer *tokenizer)
{
    for (int i = 0; i < fv_reader_kind_count(); i++)
        if (strcmp(fv_reader_kind_at(i)->tokenizer, tokenizer->name) == 0)
            return fv_reader_kind_at(i)->name;
    return "bytes";
}

/* Records one behind the other; a causal model reads a begin token first, as in training. */
static fv_status read_records(model_study *s, fv_reader *reader, int64_t most)
{
    const fv_tokenizer *tokenizer = fv_model_tokenizer(s->model);
    int64_t begin = fv_config_bool(s->config, "is_decoder"), unknown = 0, sequences = 0, at = 0;
    int64_t places = fv_config_int(s->config, "max_position_embeddings");
    bool limited = strcmp(fv_config_text(s->config, "position_embedding_type"), "none") != 0 && places > 0;
    fv_record record;
    for (int more = 1; at < most;) {
        CLI_TRY(fv_reader_next(reader, &record, &more));
        if (!more)
            break;
        int64_t count = record.length + begin;
        count = limited && count > places ? places : count;
        count = count > most - at ? most - at : count;
        if (record.length == 0 || count <= begin)
            continue;
        s->tokens[at] = tokenizer->begin;
        fv_tokenizer_encode(tokenizer, record.sequence, count - begin, s->tokens + at + begin, &unknown);
        at += count;
        s->offsets[++sequences] = at;
    }
    s->batch = (fv_batch){.tokens = at, .sequences = sequences, .inputs = s->tokens, .offsets = s->offsets};
    return FV_OK;
}

static fv_status read_data(model_study *s)
{
    approx *a = s->a;
    const char *path = cli_text(a->args, "data");
    int64_t most = a->lengths.at[0];
    fv_reader *reader;
    if (a->lengths.count > 1)
        return cli_fail(FV_ERR_USAGE, "--run takes one --length, the number of tokens to look at");
    s->tokens = fv_alloc(a->ctx, (size_t)most * sizeof *s->tokens);
    s->offsets = fv_alloc(a->ctx, (size_t)(most + 1) * sizeof *s->offsets);
    if (s->tokens == NULL || s->offsets == NULL)
        return FV_ERR_RESOURCE;
    s->offsets[0] = 0;
    CLI_TRY(fv_reader_open(&reader, a->ctx, reader_of(fv_model_tokenizer(s->model)), path));
    fv_status status = read_records(s, reader, most);
    fv_reader_close(reader);
    if (status == FV_OK && s->batch.tokens == 0)
        return cli_fail(FV_ERR_FILE, "%s: no letters to look at", path);
    return status;
}

/* ---- a layer ----------------------------------------------------------------------------------------- */

/* Modifiers of the model's attention that exact attention shares. */
static void copy_modifiers(const fv_config *config, fv_attention_options *o)
{
    o->causal = fv_config_bool(config, "is_decoder");
    o->scale = fv_config_real(config, "attention.scale");
    o->ppsbn = fv_config_bool(config, "attention.ppsbn");
    o->rotary = fv_config_bool(config, "attention.rotary");
    o->rotary_base = fv_config_real(config, "attention.rotary_base");
}

static void begin_layers(model_study *s)
{
    fv_attention_options *o = &s->layer.options;
    const fv_config *config = s->config;
    fv_attention_options_init(o);
    copy_modifiers(config, o);
    o->kind = fv_config_text(config, "attention.kind");
    o->heads = fv_config_int(config, "num_attention_heads");
    o->kv_heads = fv_config_int(config, "num_key_value_heads");
    o->kv_heads = o->kv_heads > 0 ? o->kv_heads : o->heads;
    o->dim = fv_config_int(config, "head_dim");
    o->dim = o->dim > 0 ? o->dim : fv_config_int(config, "hidden_size") / o->heads;
    o->value_dim = o->dim;
    s->layer.layout = (fv_layout){s->batch.sequences, s->batch.offsets, NULL};
    s->layer.length = 0;
    for (int64_t i = 0; i < s->batch.sequences; i++) {
        double length = (double)(s->batch.offsets[i + 1] - s->batch.offsets[i]);
        s->layer.length += length * length / (double)s->batch.tokens;
    }
}

static fv_status make_data(model_study *s)
{
    const fv_attention_options *o = &s->layer.options;
    int64_t T = s->batch.tokens, H = o->heads, G = o->kv_heads, d = o->dim;
    float *q = s->data.owned[0] = fv_alloc(s->a->ctx, (size_t)(T * H * d) * sizeof *q);
    float *k = s->data.owned[1] = fv_alloc(s->a->ctx, (size_t)(T * G * d) * sizeof *k);
    float *v = s->data.owned[2] = fv_alloc(s->a->ctx, (size_t)(T * G * d) * sizeof *v);
    s->norms = fv_alloc(s->a->ctx, (size_t)H * sizeof *s->norms);
    s->effective = fv_alloc(s->a->ctx, (size_t)(H * s->a->features.count) * sizeof *s->effective);
    if (q == NULL || k == NULL || v == NULL || s->norms == NULL || s->effective == NULL)
        return FV_ERR_RESOURCE;
    s->data.Tq = s->data.Tk = T;
    s->data.H = H, s->data.G = G, s->data.d = s->data.dv = d;
    s->data.sequences = s->batch.sequences;
    s->data.offsets_q = s->data.offsets_k = s->batch.offsets;
    s->data.q = q, s->data.k = k, s->data.v = v;
    return FV_OK;
}

static double scale_of(const model_study *s)
{
    double scale = s->layer.options.scale;
    return scale > 0 ? scale : 1 / sqrt((double)s->layer.options.dim);
}

static fv_status make_exact(model_study *s)
{
    approx_operator o;
    const char *reason;
    fv_attention_options exact = approx_exact_options(&s->layer.options, scale_of(s));
    fv_status status = approx_operator_make(&o, s->a->ctx, &exact, &reason);
    if (status == FV_OK)
        s->layer.exact_flop = fv_attention_flop(o.op, &s->layer.layout, 0);
    approx_operator_free(&o);
    CLI_TRY(status);
    return approx_reference_make(s->a, &s->exact, &s->data, &exact);
}

/* Rotary positions turn q and k by where they stand; then it is left unsaid. */
static void measure_norms(model_study *s)
{
    const approx_data *x = &s->data;
    fv_attention_options o = s->layer.options;
    o.scale = scale_of(s);
    for (int64_t h = 0; h < x->H; h++) {
        s->norms[h] = o.rotary ? (double)NAN : 0;
        for (int64_t i = 0; i < s->exact.n && !o.rotary; i++) {
            int64_t first, count, row = s->exact.rows[i];
            approx_visible(x, o.causal != 0, row, &first, &count);
            for (int64_t j = first; j < first + count; j++) {
                approx_pair p = approx_pair_of(&o, x->q + (row * x->H + h) * x->d,
                                               x->k + (j * x->G + h * x->G / x->H) * x->d);
                s->norms[h] = fmax(s->norms[h], p.xx + p.yy + 2 * p.xy);
            }
        }
    }
}

/* ---- rows -------------------------------------------------------------------------------------------- */

/* Row of one head, or of all of them (head < 0). */
static fv_status add_row(model_study *s, const approx_row *basis, const approx_errors *errors, int64_t head,
                         int which)
{
    int64_t H = s->data.H, first = head < 0 ? 0 : head, last = head < 0 ? H : head + 1;
    approx_row row = *basis;
    double norm = 0, effective = 0;
    row.matrix = approx_matrix_error(errors, &s->exact, first, last);
    row.output = approx_output_error(errors, &s->exact, first, last);
    if (head >= 0)
        row.variance.measured = row.variance.error = row.variance.closed = row.variance.kernel_square =
            (double)NAN; /* told for the layer */
    for (int64_t h = first; h < last; h++) {
        norm = fmax(norm, s->norms[h]);
        effective += which < 0 ? (double)NAN : s->effective[which * H + h] / (double)(last - first);
    }
    json_t *object = approx_row_json(&row);
    json_object_set_new(object, "layer", json_integer(s->number));
    json_object_set_new(object, "head", head < 0 ? json_null() : json_integer(head));
    json_object_set_new(object, "largest_norm", cli_json_real(s->layer.options.rotary ? (double)NAN : norm));
    json_object_set_new(object, "effective_features", cli_json_real(effective));
    return approx_add(s->a, object);
}

static fv_status measure_pairs(model_study *s, const fv_attention_options *options, approx_row *row)
{
    approx *a = s->a;
    fv_attention_options frozen = *options;
    size_t bytes = (size_t)(a->pairs * s->data.d + 1) * sizeof(float);
    float *q = fv_alloc(a->ctx, bytes), *k = fv_alloc(a->ctx, bytes);
    approx_freeze(&frozen, &s->data, -1);
    fv_status status = q != NULL && k != NULL
                           ? approx_pairs(a, &s->data, frozen.causal != 0, -1, a->pairs, q, k)
                           : FV_ERR_RESOURCE;
    if (status == FV_OK)
        status = approx_measure_variance(a, &frozen, &(approx_pairing){a->pairs, 1, q, k}, &row->variance);
    fv_free(a->ctx, q);
    fv_free(a->ctx, k);
    return status;
}

static void add_point(model_study *s, const approx_row *row, const approx_errors *errors, bool drawn)
{
    if (s->point_count < POINTS_MAX)
        s->points[s->point_count++] =
            (approx_point){.map = row->map,
                           .projection = row->projection,
                           .features = row->features,
                           .error = approx_output_error(errors, &s->exact, 0, s->data.H).mean,
                           .drawn = drawn,
                           .softmax = approx_targets_softmax(row->map)};
}

/* `options` made the operator, but for the scale, which is the one it chose. */
static fv_status measure_map(model_study *s, approx_operator *o, const fv_attention_options *options,
                             int which)
{
    bool drawn = o->info.drawn_floats > 0;
    const approx_reference *references[] = {&s->exact};
    approx_errors errors = {0};
    approx_row row = {.map = o->info.options.kind,
                      .projection = approx_operator_projection(o),
                      .features = drawn ? o->info.projection_rows : o->info.feature_count,
                      .feature_count = o->info.feature_count,
                      .length = s->data.Tq,
                      .dim = s->data.d};
    row.target.mean = (double)NAN;
    fv_status status = approx_compare(s->a, o, &s->data, references, 1, &errors);
    row.draws = errors.draws;
    if (status == FV_OK)
        status = measure_pairs(s, options, &row);
    if (status == FV_OK)
        add_point(s, &row, &errors, drawn);
    for (int64_t h = -1; h < s->data.H && status == FV_OK; h++)
        status = add_row(s, &row, &errors, h, drawn ? which : -1);
    approx_errors_free(s->a, &errors);
    return status;
}

static bool is_measured(const model_study *s, const approx_operator *o)
{
    bool drawn = o->info.drawn_floats > 0;
    for (int i = 0; i < s->point_count; i++)
        if (strcmp(s->points[i].map, o->info.options.kind) == 0 &&
            (!drawn || (s->points[i].projection == approx_operator_projection(o) &&
                        s->points[i].features == o->info.projection_rows)))
            return true;
    return false;
}

static fv_status run_map(model_study *s, const char *map, fv_projection projection)
{
    approx *a = s->a;
    fv_attention_options options;
    CLI_TRY(approx_options(a, map, projection, 0, s->data.H, s->data.d, &options));
    copy_modifiers(s->config, &options);
    options.kv_heads = s->data.G;
    if (fv_attention_kind_find(map)->generalized || !approx_targets_softmax(map))
        options.scale = 0; /* its own */
    if (options.causal)
        approx_freeze_causal(&options, &s->data);
    const approx_place place = {a, &s->data, options.causal != 0, s->exact.n, s->exact.rows, s->effective};
    CLI_TRY(approx_effective(&place, &options));
    for (int f = 0; f < a->features.count; f++) {
        approx_operator o;
        const char *reason;
        options.features = a->features.at[f];
        fv_status status = approx_operator_make(&o, a->ctx, &options, &reason);
        if (status == FV_ERR_USAGE) {
            if (s->number == 0 && f == 0)
                approx_leave_out(a, map, reason);
            status = FV_OK;
        } else if (status == FV_OK && !is_measured(s, &o)) {
            options.scale = o.info.options.scale;
            status = measure_map(s, &o, &options, f);
        }
        approx_operator_free(&o);
        CLI_TRY(status);
    }
    return FV_OK;
}

/* ---- the study --------------------------------------------------------------------------------------- */

/* The layer's advice into its rows of all heads. */
static fv_status advise(model_study *s)
{
    approx_advice advice;
    CLI_TRY(approx_advise(s->a, &s->layer, s->points, s->point_count, s->layer.options.kind, &advice));
    for (size_t i = s->first_row; i < json_array_size(s->a->results); i++) {
        json_t *row = json_array_get(s->a->results, i);
        if (!json_is_null(json_object_get(row, "head")))
            continue;
        json_object_set_new(row, "recommended_map", json_string(advice.map));
        json_object_set_new(row, "recommended_features",
                            advice.features > 0 ? json_integer(advice.features) : json_null());
        json_object_set_new(row, "crossover_length", cli_json_real(advice.crossover));
        json_object_set_new(row, "recommendation", json_string(advice.text));
    }
    return FV_OK;
}

static fv_status run_layer(model_study *s)
{
    approx *a = s->a;
    s->point_count = 0;
    s->first_row = json_array_size(a->results);
    CLI_TRY(
        fv_model_qkv(s->model, &s->batch, s->number, s->data.owned[0], s->data.owned[1], s->data.owned[2]));
    fv_status status = make_exact(s);
    if (status == FV_OK)
        measure_norms(s);
    for (int m = 0; m < a->map_count && status == FV_OK; m++) {
        fv_projection list[APPROX_PROJECTIONS_MAX];
        int count = approx_projections(a, a->maps[m], list);
        for (int p = 0; p < count && status == FV_OK; p++)
            status = run_map(s, a->maps[m], list[p]);
    }
    if (status == FV_OK)
        status = advise(s);
    approx_reference_free(a, &s->exact);
    return status;
}

/* The model's own kind comes first, where it is an approximation and no list was given. */
static void add_own_kind(model_study *s)
{
    approx *a = s->a;
    const fv_attention_kind *own = fv_attention_kind_find(fv_config_text(s->config, "attention.kind"));
    if (cli_given(a->args, "maps") || own == NULL || strcmp(own->name, "exact") == 0 ||
        a->map_count == APPROX_MAPS_MAX)
        return;
    for (int i = 0; i < a->map_count; i++)
        if (strcmp(a->maps[i], own->name) == 0)
            return;
    memmove(a->maps + 1, a->maps, (size_t)a->map_count * sizeof *a->maps);
    a->maps[0] = own->name;
    a->map_count++;
}

static fv_status run(model_study *s)
{
    approx *a = s->a;
    CLI_TRY(cli_directory_model(&s->model, a->ctx, a->args, cli_text(a->args, "run")));
    s->config = fv_model_config(s->model);
    CLI_TRY(read_data(s));
    begin_layers(s);
    CLI_TRY(make_data(s));
    add_own_kind(s);
    int64_t layers = fv_config_int(s->config, "num_hidden_layers");
    a->total = layers * a->draws * a->map_count * a->projection_count * a->features.count;
    for (s->number = 0; s->number < layers; s->number++)
        CLI_TRY(run_layer(s));
    return FV_OK;
}

fv_status approx_study_model(approx *a)
{
    model_study *s = fv_alloc(a->ctx, sizeof *s);
    if (s == NULL)
        return FV_ERR_RESOURCE;
    *s = (model_study){.a = a};
    fv_status status = run(s);
    fv_free(a->ctx, s->norms);
    fv_free(a->ctx, s->effective);
    fv_free(a->ctx, s->tokens);
    fv_free(a->ctx, s->offsets);
    approx_data_free(a, &s->data);
    fv_model_destroy(s->model);
    fv_free(a->ctx, s);
    return status;
}
