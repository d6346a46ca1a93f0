/* cli/approx_layers.c: `--study layers`: how the error of approximate attention grows through a stack
 * (Choromanski et al. 2021, Fig. 14).
 *
 *     x_0 ~ N(0, 1) [L][D],  x_(l+1) = x_l + Attention(n W_q, n W_k, n W_v) W_o,   n = LN(x_l), D = heads x dim
 *
 * once with exact and once with approximate attention, with the same random weights. W_v and W_o have entries
 * N(0, 1/D); W_q and W_k are such that sqrt(scale) q has the root mean square length --norm. Every layer has
 * random features of its own. error_output is |x'_l - x_l|/|x_l| over all tokens behind layer l.
 */
#include "approx.h"
#include <math.h>
#include <string.h>

enum { Q, K, V, O, MATRICES };

typedef struct stack {
    approx *a;
    int64_t L, H, d, D, layers;
    float *weights; /* [layers][4][D][D] */
    float *exact;   /* [layers][L][D] */
    float *x, *n, *q, *k, *v, *y;
    double *errors; /* [layers][draws] */
} stack;

/* y [L][D] = x [L][D] W [D][D], added to y when `add`. */
static void multiply(const stack *s, const float *x, const float *w, bool add, float *y)
{
    int64_t D = s->D;
    for (int64_t t = 0; t < s->L; t++) {
        float *out = y + t * D;
        if (!add)
            memset(out, 0, (size_t)D * sizeof *out);
        for (int64_t i = 0; i < D; i++) {
            const float *row = w + i * D, factor = x[t * D + i];
            for (int64_t j = 0; j < D; j++)
                out[j] += factor * row[j];
        }
    }
}

static void layer_norm(const stack *s, const float *x, float *n)
{
    for (int64_t t = 0; t < s->L; t++, x += s->D, n += s->D) {
        double mean = 0, variance = 1e-12;
        for (int64_t i = 0; i < s->D; i++)
            mean += (double)x[i] / (double)s->D;
        for (int64_t i = 0; i < s->D; i++)
            variance += ((double)x[i] - mean) * ((double)x[i] - mean) / (double)s->D;
        for (int64_t i = 0; i < s->D; i++)
            n[i] = (float)(((double)x[i] - mean) / sqrt(variance));
    }
}

/* x through layer l with operator o. */
static fv_status pass_layer(const stack *s, approx_operator *o, int64_t l)
{
    const float *w = s->weights + l * MATRICES * s->D * s->D;
    int64_t offsets[2] = {0, s->L}, size = s->D * s->D;
    fv_layout layout = {1, offsets, NULL};
    fv_attention_io io = {.q = s->q, .k = s->k, .v = s->v, .y = s->y};
    layer_norm(s, s->x, s->n);
    multiply(s, s->n, w + Q * size, false, s->q);
    multiply(s, s->n, w + K * size, false, s->k);
    multiply(s, s->n, w + V * size, false, s->v);
    CLI_TRY(approx_operator_forward(o, &layout, &io));
    multiply(s, s->y, w + O * size, true, s->x);
    return FV_OK;
}

static void begin(const stack *s)
{
    for (int64_t i = 0; i < s->L * s->D; i++)
        s->x[i] = (float)approx_normal(s->a->seed, 8, (uint64_t)i);
}

static double error_of(const stack *s, int64_t l)
{
    const float *exact = s->exact + l * s->L * s->D;
    double error = 0, total = 0;
    for (int64_t i = 0; i < s->L * s->D; i++) {
        double e = (double)s->x[i] - (double)exact[i];
        error += e * e;
        total += (double)exact[i] * (double)exact[i];
    }
    return sqrt(error / total);
}

static fv_status run_exact(const stack *s, const fv_attention_options *options, double scale)
{
    approx_operator o;
    const char *reason;
    fv_attention_options exact = approx_exact_options(options, scale);
    fv_status status = approx_operator_make(&o, s->a->ctx, &exact, &reason);
    begin(s);
    for (int64_t l = 0; l < s->layers && status == FV_OK; l++) {
        status = pass_layer(s, &o, l);
        memcpy(s->exact + l * s->L * s->D, s->x, (size_t)(s->L * s->D) * sizeof *s->x);
    }
    approx_operator_free(&o);
    return status;
}

/* ---- one map ----------------------------------------------------------------------------------------- */

static fv_status run_draws(const stack *s, approx_operator *o, int64_t draws)
{
    for (int64_t n = 0; n < draws; n++) {
        begin(s);
        for (int64_t l = 0; l < s->layers; l++) {
            CLI_TRY(approx_operator_draw(o, s->a->seed, (uint64_t)(n * s->layers + l)));
            CLI_TRY(pass_layer(s, o, l));
            s->errors[l * draws + n] = error_of(s, l);
        }
        approx_advance(s->a, 1);
    }
    approx_advance(s->a, s->a->draws - draws);
    return FV_OK;
}

static fv_status add_rows(const stack *s, const approx_operator *o, int64_t draws)
{
    const double nan = (double)NAN;
    bool drawn = o->info.drawn_floats > 0;
    for (int64_t l = 0; l < s->layers; l++) {
        approx_row row = {.map = o->info.options.kind,
                          .projection = approx_operator_projection(o),
                          .features = drawn ? o->info.projection_rows : o->info.feature_count,
                          .feature_count = o->info.feature_count,
                          .length = s->L,
                          .dim = s->d,
                          .draws = draws,
                          .output = approx_statistic_of(s->errors + l * draws, draws),
                          .matrix = {nan, nan, nan, nan},
                          .target = {nan, nan, nan, nan},
                          .variance = {nan, nan, nan, nan, nan}};
        json_t *object = approx_row_json(&row);
        json_object_set_new(object, "layer", json_integer(l + 1));
        CLI_TRY(approx_add(s->a, object));
    }
    return FV_OK;
}

/* Kinds without a choice of features come once. */
static bool is_known(const approx *a, const approx_operator *o)
{
    size_t index;
    const json_t *row;
    json_array_foreach(a->results, index, row)
    {
        const char *projection = json_string_value(json_object_get(row, "projection"));
        if (strcmp(json_string_value(json_object_get(row, "map")), o->info.options.kind) == 0 &&
            json_integer_value(json_object_get(row, "dim")) == o->info.options.dim &&
            (o->info.drawn_floats == 0 ||
             (json_integer_value(json_object_get(row, "features")) == o->info.projection_rows &&
              strcmp(projection, approx_projection_name(approx_operator_projection(o))) == 0)))
            return true;
    }
    return false;
}

static fv_status run_map(const stack *s, const char *map, fv_projection projection, int64_t features)
{
    approx *a = s->a;
    approx_operator o;
    const char *reason;
    fv_attention_options options;
    CLI_TRY(approx_options(a, map, projection, features, s->H, s->d, &options));
    fv_status status = approx_operator_make(&o, a->ctx, &options, &reason);
    if (status == FV_ERR_USAGE) {
        approx_leave_out(a, map, reason);
        status = FV_OK;
    } else if (status == FV_OK && !is_known(a, &o)) {
        int64_t draws = o.info.drawn_floats > 0 ? a->draws : 1;
        status = run_draws(s, &o, draws);
        if (status == FV_OK)
            status = add_rows(s, &o, draws);
    }
    approx_operator_free(&o);
    return status;
}

/* ---- the study --------------------------------------------------------------------------------------- */

static void fill_weights(const stack *s, double scale)
{
    double plain = 1 / sqrt((double)s->D);
    double gain = cli_real(s->a->args, "norm") / sqrt(scale * (double)s->d) * plain;
    int64_t size = s->D * s->D;
    for (int64_t i = 0; i < s->layers * MATRICES * size; i++) {
        int64_t which = i / size % MATRICES;
        s->weights[i] =
            (float)(approx_normal(s->a->seed, 9, (uint64_t)i) * (which == Q || which == K ? gain : plain));
    }
}

static fv_status run_maps(const stack *s, double scale)
{
    approx *a = s->a;
    fv_attention_options options;
    CLI_TRY(approx_options(a, a->maps[0], FV_PROJECTION_DEFAULT, 0, s->H, s->d, &options));
    fill_weights(s, scale);
    CLI_TRY(run_exact(s, &options, scale));
    for (int m = 0; m < a->map_count; m++) {
        fv_projection list[APPROX_PROJECTIONS_MAX];
        int count = approx_projections(a, a->maps[m], list);
        for (int i = 0; i < count * a->features.count; i++)
            CLI_TRY(
                run_map(s, a->maps[m], list[i / a->features.count], a->features.at[i % a->features.count]));
    }
    return FV_OK;
}

static fv_status run_stack(stack *s, double scale)
{
    int64_t array = s->L * s->D;
    const struct {
        float **at;
        int64_t floats;
    } arrays[] = {{&s->weights, s->layers * MATRICES * s->D * s->D},
                  {&s->exact, s->layers * array},
                  {&s->x, array},
                  {&s->n, array},
                  {&s->q, array},
                  {&s->k, array},
                  {&s->v, array},
                  {&s->y, array}};
    double bytes = 0;
    for (int i = 0; i < CLI_COUNT(arrays); i++)
        bytes += 4.0 * (double)arrays[i].floats;
    if (bytes > (double)fv_available_memory())
        return cli_fail(FV_ERR_RESOURCE, "--study layers: needs %s, %s are available", cli_bytes(bytes).text,
                        cli_bytes((double)fv_available_memory()).text);
    fv_status status = FV_OK;
    for (int i = 0; i < CLI_COUNT(arrays) && status == FV_OK; i++) {
        *arrays[i].at = fv_alloc(s->a->ctx, (size_t)arrays[i].floats * sizeof(float));
        status = *arrays[i].at != NULL ? FV_OK : FV_ERR_RESOURCE;
    }
    s->errors = fv_alloc(s->a->ctx, (size_t)(s->layers * s->a->draws) * sizeof *s->errors);
    if (status == FV_OK)
        status = s->errors != NULL ? run_maps(s, scale) : FV_ERR_RESOURCE;
    for (int i = 0; i < CLI_COUNT(arrays); i++)
        fv_free(s->a->ctx, *arrays[i].at);
    fv_free(s->a->ctx, s->errors);
    return status;
}

fv_status approx_study_layers(approx *a)
{
    if (a->lengths.count > 1 || a->dims.count > 1)
        return cli_fail(FV_ERR_USAGE, "--study layers takes one --length and one --dim");
    stack s = {.a = a, .L = a->lengths.at[0], .H = a->heads, .d = a->dims.at[0]};
    s.layers = cli_int(a->args, "layers");
    s.D = s.H * s.d;
    a->total = a->draws * a->map_count * a->projection_count * a->features.count;
    return run_stack(&s, cli_given(a->args, "scale") ? cli_real(a->args, "scale") : 1 / sqrt((double)s.d));
}
