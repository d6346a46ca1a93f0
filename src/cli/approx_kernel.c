/* cli/approx_kernel.c: `--study kernel`: the error of the kernel estimate itself, over the angle between query and
 * key and over their length (Choromanski et al. 2021, Fig. 2), beside its closed form.
 *
 * x and y have the same length and lie in a plane that has no special place among the axes. Each is a row: mean
 * squared error against exp(x.y), measured over --pair-draws draws, and from theory (variance + squared bias).
 */
#include "approx.h"
#include <math.h>
#include <string.h>

enum { ANGLES = 13 }; /* 0, 15, ... 180 degrees */

static const double lengths[] = {0.25, 0.5, 1, 1.5, 2};

enum { LENGTHS = CLI_COUNT(lengths), PAIRS = ANGLES * LENGTHS };

static double angle_of(int pair)
{
    return 3.14159265358979323846 * (pair % ANGLES) / (ANGLES - 1);
}

/* Two orthogonal unit vectors [2][d], by normals; of a single dimension the second is 0. */
static void make_plane(uint64_t seed, int64_t d, double *plane)
{
    double *u = plane, *w = plane + d, uu = 0, uw = 0, ww = 0;
    for (int64_t i = 0; i < d; i++) {
        u[i] = approx_normal(seed, 6, (uint64_t)i);
        w[i] = approx_normal(seed, 7, (uint64_t)i);
        uu += u[i] * u[i];
        uw += u[i] * w[i];
    }
    for (int64_t i = 0; i < d; i++) {
        w[i] -= uw / uu * u[i];
        ww += w[i] * w[i];
    }
    for (int64_t i = 0; i < d; i++) {
        u[i] /= sqrt(uu);
        w[i] = d > 1 ? w[i] / sqrt(ww) : 0;
    }
}

static void fill_pairs(const double *plane, int64_t d, double scale, float *q, float *k)
{
    for (int p = 0; p < PAIRS; p++) {
        double length = lengths[p / ANGLES] / sqrt(scale), half = angle_of(p) / 2;
        for (int64_t i = 0; i < d; i++) {
            double along = length * cos(half) * plane[i], across = length * sin(half) * plane[d + i];
            q[p * d + i] = (float)(along + across);
            k[p * d + i] = (float)(along - across);
        }
    }
}

/* ---- rows -------------------------------------------------------------------------------------------- */

static fv_status add_row(approx *a, const approx_operator *o, int pair, const float *q, const float *k,
                         const approx_variance *v)
{
    const fv_attention_options *options = &o->info.options;
    approx_row row = {.map = options->kind,
                      .projection = approx_operator_projection(o),
                      .features = o->info.projection_rows,
                      .feature_count = o->info.feature_count,
                      .length = 1,
                      .dim = options->dim,
                      .draws = a->pair_draws,
                      .variance = *v};
    const approx_statistic none = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};
    row.matrix = row.output = row.target = none;
    approx_law law;
    approx_law_of(&o->info, &law);
    approx_pair numbers = approx_pair_of(options, q, k);
    double target = exp(numbers.xy), bias = v->kernel - target,
           closed_bias = approx_closed_mean(&law, &numbers) - target;
    json_t *object = approx_row_json(&row);
    json_object_set_new(object, "angle", cli_json_real(angle_of(pair)));
    json_object_set_new(object, "norm", cli_json_real(lengths[pair / ANGLES]));
    json_object_set_new(object, "kernel", cli_json_real(target));
    json_object_set_new(object, "mse_measured", cli_json_real(v->measured + bias * bias));
    json_object_set_new(object, "mse_closed_form", cli_json_real(v->closed + closed_bias * closed_bias));
    return approx_add(a, object);
}

static bool is_known(const approx *a, const approx_operator *o)
{
    const char *projection = approx_projection_name(approx_operator_projection(o));
    size_t index;
    const json_t *row;
    json_array_foreach(a->results, index, row)
    {
        if (json_integer_value(json_object_get(row, "features")) == o->info.projection_rows &&
            json_integer_value(json_object_get(row, "dim")) == o->info.options.dim &&
            strcmp(json_string_value(json_object_get(row, "map")), o->info.options.kind) == 0 &&
            strcmp(json_string_value(json_object_get(row, "projection")), projection) == 0)
            return true;
    }
    return false;
}

/* The rows of one estimator. */
static fv_status measure(approx *a, const fv_attention_options *options, const float *q, const float *k)
{
    approx_operator o;
    const char *reason;
    approx_variance each[PAIRS];
    fv_status status = approx_operator_make(&o, a->ctx, options, &reason);
    if (status == FV_OK && o.info.drawn_floats == 0) {
        reason = "its kernel is not random";
        status = FV_ERR_USAGE;
    }
    if (status == FV_OK && !approx_targets_softmax(options->kind)) {
        reason = "it estimates another kernel than exp(q.k)";
        status = FV_ERR_USAGE;
    }
    approx_pairing set = {PAIRS, PAIRS, q, k};
    bool repeated = status == FV_OK && is_known(a, &o);
    if (status == FV_OK && !repeated)
        status = approx_measure_variance(a, options, &set, each);
    for (int p = 0; p < PAIRS && status == FV_OK && !repeated; p++)
        status = add_row(a, &o, p, q + p * options->dim, k + p * options->dim, &each[p]);
    if (status == FV_ERR_USAGE) {
        approx_leave_out(a, options->kind, reason);
        status = FV_OK;
    }
    approx_operator_free(&o);
    approx_advance(a, 1);
    return status;
}

static fv_status run_width(approx *a, int64_t d, float *q, float *k)
{
    double scale = cli_given(a->args, "scale") ? cli_real(a->args, "scale") : 1 / sqrt((double)d);
    double *plane = fv_alloc(a->ctx, (size_t)(2 * d) * sizeof *plane);
    if (plane == NULL)
        return FV_ERR_RESOURCE;
    make_plane(a->seed, d, plane);
    fill_pairs(plane, d, scale, q, k);
    fv_free(a->ctx, plane);
    for (int m = 0; m < a->map_count; m++) {
        fv_projection list[APPROX_PROJECTIONS_MAX];
        int count = approx_projections(a, a->maps[m], list);
        for (int i = 0; i < count * a->features.count; i++) {
            int64_t features = a->features.at[i % a->features.count];
            fv_attention_options options;
            CLI_TRY(approx_options(a, a->maps[m], list[i / a->features.count], features, 1, d, &options));
            options.scale = scale;
            CLI_TRY(measure(a, &options, q, k));
        }
    }
    return FV_OK;
}

/* Its own mean squared error: theory where there is one. */
static double squared_error(const json_t *row)
{
    const json_t *closed = json_object_get(row, "mse_closed_form");
    return json_number_value(json_is_number(closed) ? closed : json_object_get(row, "mse_measured"));
}

static bool is_peer(const json_t *row, const json_t *other)
{
    static const char *const keys[] = {"projection", "features", "dim", "angle", "norm"};
    for (int i = 0; i < CLI_COUNT(keys); i++)
        if (!json_equal(json_object_get(row, keys[i]), json_object_get(other, keys[i])))
            return false;
    return strcmp(json_string_value(json_object_get(other, "map")), "favor+") == 0;
}

/* The figure of the paper: every error over that of positive features with the same projections. */
static void add_ratios(approx *a)
{
    size_t i, j;
    json_t *row, *other;
    json_array_foreach(a->results, i, row)
    {
        double ratio = (double)NAN;
        json_array_foreach(a->results, j, other) if (is_peer(row, other)) ratio =
            squared_error(row) / squared_error(other);
        json_object_set_new(row, "mse_over_positive", cli_json_real(ratio));
    }
}

fv_status approx_study_kernel(approx *a)
{
    a->total = (int64_t)a->dims.count * a->map_count * a->projection_count * a->features.count;
    fv_status status = FV_OK;
    for (int i = 0; i < a->dims.count && status == FV_OK; i++) {
        int64_t d = a->dims.at[i];
        float *q = fv_alloc(a->ctx, (size_t)(PAIRS * d) * sizeof *q),
              *k = fv_alloc(a->ctx, (size_t)(PAIRS * d) * sizeof *k);
        status = q != NULL && k != NULL ? run_width(a, d, q, k) : FV_ERR_RESOURCE;
        fv_free(a->ctx, q);
        fv_free(a->ctx, k);
    }
    add_ratios(a);
    return status;
}
