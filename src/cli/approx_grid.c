/* cli/approx_grid.c: errors and variances over all combinations of maps, projections, features, lengths and widths:
 * `--study features` (Choromanski et al. 2021, Fig. 4), `--study lengths` (Guo et al. 2024: with and without
 * ppSBN), and tensors of a file.
 */
#include "approx.h"
#include <math.h>
#include <string.h>

/* What does not change within a table: inputs and exact attention on them. */
typedef struct setting {
    approx *a;
    const approx_data *data;
    double scale;     /* of exact attention */
    bool ppsbn, both; /* ppSBN; whether it is varied */
    approx_reference exact;
    float *pair_q, *pair_k;
} setting;

/* ---- one row ----------------------------------------------------------------------------------------- */

/* Kinds that do not take a projection, or so many features, would repeat themselves. */
static bool is_repeated(const setting *s, const approx_row *row)
{
    size_t index;
    const json_t *other;
    json_array_foreach(s->a->results, index, other)
    {
        const json_t *ppsbn = json_object_get(other, "ppsbn");
        if (strcmp(json_string_value(json_object_get(other, "map")), row->map) == 0 &&
            strcmp(json_string_value(json_object_get(other, "projection")),
                   approx_projection_name(row->projection)) == 0 &&
            json_integer_value(json_object_get(other, "features")) == row->features &&
            json_integer_value(json_object_get(other, "length")) == row->length &&
            json_integer_value(json_object_get(other, "dim")) == row->dim &&
            (ppsbn == NULL || json_is_true(ppsbn) == s->ppsbn))
            return true;
    }
    return false;
}

/* Errors against exact attention and, where it is another one, against the kernel that is estimated. */
static fv_status measure_errors(const setting *s, approx_operator *o, approx_row *row)
{
    approx *a = s->a;
    approx_law law;
    approx_reference own = {0};
    approx_errors errors[2] = {0};
    const approx_reference *references[2] = {&s->exact, &own};
    fv_attention_options frozen = o->info.options;
    fv_attention_info info = o->info;
    approx_freeze(&frozen, s->data, -1);
    info.options = frozen;
    approx_law_of(&info, &law);
    bool other = law.family != APPROX_UNKNOWN && (!approx_targets_softmax(row->map) || law.sqrt_d);
    fv_status status = other ? approx_reference_law(a, &own, s->data, &frozen, &law) : FV_OK;
    if (status == FV_OK)
        status = approx_compare(a, o, s->data, references, other ? 2 : 1, errors);
    if (status == FV_OK) {
        row->draws = errors[0].draws;
        row->matrix = approx_matrix_error(&errors[0], &s->exact, 0, s->data->H);
        row->output = approx_output_error(&errors[0], &s->exact, 0, s->data->H);
        row->target.mean = (double)NAN;
        if (other)
            row->target = approx_matrix_error(&errors[1], &own, 0, s->data->H);
    }
    for (int i = 0; i < CLI_COUNT(errors); i++)
        approx_errors_free(a, &errors[i]);
    approx_reference_free(a, &own);
    return status;
}

static fv_status measure_row(const setting *s, approx_operator *o, const fv_attention_options *options,
                             approx_row *row)
{
    fv_attention_options frozen = *options;
    CLI_TRY(measure_errors(s, o, row));
    frozen.scale = o->info.options.scale;
    approx_freeze(&frozen, s->data, -1);
    approx_pairing set = {s->a->pairs, 1, s->pair_q, s->pair_k};
    CLI_TRY(approx_measure_variance(s->a, &frozen, &set, &row->variance));
    json_t *object = approx_row_json(row);
    if (object != NULL && s->both)
        json_object_set_new(object, "ppsbn", json_boolean(s->ppsbn));
    return approx_add(s->a, object);
}

static fv_status run_combination(const setting *s, const char *map, fv_projection projection,
                                 int64_t features, bool *told)
{
    approx *a = s->a;
    approx_operator o;
    const char *reason;
    fv_attention_options options;
    char what[128];
    CLI_TRY(approx_options(a, map, projection, features, s->data->H, s->data->d, &options));
    options.kv_heads = s->data->G, options.value_dim = s->data->dv;
    if (s->both)
        options.ppsbn = s->ppsbn;
    if (options.causal)
        approx_freeze_causal(&options, s->data);
    fv_status status = approx_operator_make(&o, a->ctx, &options, &reason);
    approx_row row = {.map = map, .length = s->data->Tq, .dim = s->data->d};
    if (status == FV_OK) {
        bool drawn = o.info.drawn_floats > 0;
        row.projection = approx_operator_projection(&o);
        row.features = drawn ? o.info.projection_rows : o.info.feature_count;
        row.feature_count = o.info.feature_count;
    }
    if (status == FV_ERR_USAGE) {
        snprintf(what, sizeof what, "%s, projection %s", map, approx_projection_name(projection));
        if (!*told)
            approx_leave_out(a, projection == FV_PROJECTION_DEFAULT ? map : what, reason);
        *told = true;
        approx_advance(a, a->draws);
        status = FV_OK;
    } else if (status == FV_OK && is_repeated(s, &row)) {
        approx_advance(a, a->draws);
    } else if (status == FV_OK) {
        status = measure_row(s, &o, &options, &row);
    }
    approx_operator_free(&o);
    return status;
}

/* ---- one table --------------------------------------------------------------------------------------- */

static fv_status run_combinations(const setting *s)
{
    approx *a = s->a;
    for (int m = 0; m < a->map_count; m++) {
        fv_projection list[APPROX_PROJECTIONS_MAX];
        int count = approx_projections(a, a->maps[m], list);
        for (int p = 0; p < count; p++) {
            bool told = false;
            for (int f = 0; f < a->features.count; f++)
                CLI_TRY(run_combination(s, a->maps[m], list[p], a->features.at[f], &told));
        }
        approx_advance(a, a->draws * a->features.count * (a->projection_count - count));
    }
    return FV_OK;
}

static fv_status make_pairs(setting *s, bool causal)
{
    size_t bytes = (size_t)(s->a->pairs * s->data->d + 1) * sizeof(float);
    s->pair_q = fv_alloc(s->a->ctx, bytes);
    s->pair_k = fv_alloc(s->a->ctx, bytes);
    if (s->pair_q == NULL || s->pair_k == NULL)
        return FV_ERR_RESOURCE;
    return approx_pairs(s->a, s->data, causal, -1, s->a->pairs, s->pair_q, s->pair_k);
}

static fv_status run_setting(setting *s)
{
    approx *a = s->a;
    fv_attention_options options;
    CLI_TRY(approx_options(a, a->maps[0], FV_PROJECTION_DEFAULT, 0, s->data->H, s->data->d, &options));
    options.kv_heads = s->data->G, options.value_dim = s->data->dv;
    if (s->both)
        options.ppsbn = s->ppsbn;
    fv_attention_options exact = approx_exact_options(&options, s->scale);
    fv_status status = approx_reference_make(a, &s->exact, s->data, &exact);
    bool without = status == FV_ERR_USAGE && s->both && s->ppsbn;
    if (without) {
        if (a->left_out == 0)
            approx_leave_out(a, "ppsbn", NULL);
        status = FV_OK;
    }
    if (status == FV_OK)
        status = make_pairs(s, options.causal != 0);
    if (status == FV_OK && !without)
        status = run_combinations(s);
    approx_reference_free(a, &s->exact);
    fv_free(a->ctx, s->pair_q);
    fv_free(a->ctx, s->pair_k);
    return status;
}

/* ---- the study --------------------------------------------------------------------------------------- */

static double exact_scale(const approx *a, int64_t d)
{
    return cli_given(a->args, "scale") ? cli_real(a->args, "scale") : 1 / sqrt((double)d);
}

static fv_status run_drawn(approx *a, int64_t length, int64_t d, bool both)
{
    approx_data data = {0};
    double scale = exact_scale(a, d);
    fv_status status = approx_data_draw(a, &data, length, a->heads, d, scale, cli_real(a->args, "norm"));
    for (int ppsbn = 0; ppsbn <= (both ? 1 : 0) && status == FV_OK; ppsbn++) {
        setting s = {.a = a, .data = &data, .scale = scale, .ppsbn = ppsbn != 0, .both = both};
        status = run_setting(&s);
    }
    approx_data_free(a, &data);
    return status;
}

static fv_status run_file(approx *a)
{
    approx_data data = {0};
    fv_status status = approx_data_read(a, &data, cli_text(a->args, "input"));
    if (status == FV_OK && cli_flag(a->args, "causal"))
        for (int64_t s = 0; s <= data.sequences && status == FV_OK; s++)
            if (data.offsets_q[s] != data.offsets_k[s])
                status = cli_fail(FV_ERR_USAGE, "--causal: needs equally many queries and keys");
    if (status == FV_OK) {
        setting s = {.a = a, .data = &data, .scale = exact_scale(a, data.d)};
        status = run_setting(&s);
    }
    approx_data_free(a, &data);
    return status;
}

fv_status approx_study_grid(approx *a)
{
    bool file = cli_given(a->args, "input"), both = strcmp(a->study, "lengths") == 0;
    a->total = a->draws * a->map_count * a->projection_count * a->features.count;
    if (file)
        return run_file(a);
    a->total *= (int64_t)a->lengths.count * a->dims.count * (both ? 2 : 1);
    for (int l = 0; l < a->lengths.count; l++)
        for (int d = 0; d < a->dims.count; d++)
            CLI_TRY(run_drawn(a, a->lengths.at[l], a->dims.at[d], both));
    return FV_OK;
}
