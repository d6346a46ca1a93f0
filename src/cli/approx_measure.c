/* cli/approx_measure.c: how far an approximation is from exact attention, and how much its kernel estimate
 * scatters.
 *
 *     error of the matrix   |A' - A|_F / |A|_F over sampled rows i of the normalised attention matrix
 *     error of the output   |Y' - Y|_F / |Y|_F over the same rows, Y = A V in double precision
 *     variance              mean over pairs (q, k) of Var K'(q, k), the un-normalised estimate, which is the output
 *                           of attention of one query to one key with value 1 and no division
 *
 * Rows are taken at even distances, and memory is rows x keys: the matrix itself is never there. Inputs stay, the
 * random parts are drawn anew: draw n is number n of the seed.
 */
#include "approx.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WEIGHTS_MAX ((int64_t)1 << 24) /* floats of sampled rows, 64 MiB */

/* ---- references ------------------------------------------------------------------------------------ */

static fv_status reference_alloc(approx *a, approx_reference *r, const approx_data *data)
{
    int64_t fit = WEIGHTS_MAX / (data->H * data->Tk), H = data->H;
    *r = (approx_reference){.n = a->rows};
    r->n = r->n > fit ? fit : r->n;
    r->n = r->n > data->Tq ? data->Tq : r->n < 1 ? 1 : r->n;
    r->rows = fv_alloc(a->ctx, (size_t)r->n * sizeof *r->rows);
    r->weights = fv_alloc(a->ctx, (size_t)(H * r->n * data->Tk) * sizeof *r->weights);
    r->outputs = fv_alloc(a->ctx, (size_t)(H * r->n * data->dv) * sizeof *r->outputs);
    r->matrix_squares = fv_alloc(a->ctx, (size_t)H * sizeof *r->matrix_squares);
    r->output_squares = fv_alloc(a->ctx, (size_t)H * sizeof *r->output_squares);
    if (r->rows == NULL || r->weights == NULL || r->outputs == NULL || r->matrix_squares == NULL ||
        r->output_squares == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < r->n; i++) /* the middle of each of n equal parts */
        r->rows[i] = (int64_t)((double)(2 * i + 1) * (double)data->Tq / (double)(2 * r->n));
    return FV_OK;
}

void approx_reference_free(approx *a, approx_reference *r)
{
    void *memory[] = {r->rows, r->weights, r->outputs, r->matrix_squares, r->output_squares};
    for (int i = 0; i < CLI_COUNT(memory); i++)
        fv_free(a->ctx, memory[i]);
    *r = (approx_reference){0};
}

/* outputs = weights V, and the sums of squares. */
static void reference_fill(approx_reference *r, const approx_data *data)
{
    int64_t dv = data->dv, Tk = data->Tk;
    for (int64_t h = 0; h < data->H; h++) {
        const float *v = data->v + h * data->G / data->H * dv;
        r->matrix_squares[h] = r->output_squares[h] = 0;
        for (int64_t i = 0; i < r->n; i++) {
            const float *row = r->weights + (h * r->n + i) * Tk;
            double *y = r->outputs + (h * r->n + i) * dv;
            memset(y, 0, (size_t)dv * sizeof *y);
            for (int64_t j = 0; j < Tk; j++) {
                double weight = (double)row[j];
                r->matrix_squares[h] += weight * weight;
                for (int64_t c = 0; c < dv && row[j] != 0; c++)
                    y[c] += weight * (double)v[j * data->G * dv + c];
            }
            for (int64_t c = 0; c < dv; c++)
                r->output_squares[h] += y[c] * y[c];
        }
    }
}

static fv_layout layout_of(const approx_data *data)
{
    return (fv_layout){data->sequences, data->offsets_q, data->offsets_k};
}

fv_attention_options approx_exact_options(const fv_attention_options *candidate, double scale)
{
    fv_attention_options exact;
    fv_attention_options_init(&exact);
    exact.kind = "exact";
    exact.heads = candidate->heads, exact.kv_heads = candidate->kv_heads;
    exact.dim = candidate->dim, exact.value_dim = candidate->value_dim;
    exact.causal = candidate->causal, exact.scale = scale;
    exact.ppsbn = candidate->ppsbn;
    exact.rotary = candidate->rotary, exact.rotary_base = candidate->rotary_base;
    return exact;
}

fv_status approx_reference_make(approx *a, approx_reference *r, const approx_data *data,
                                const fv_attention_options *exact)
{
    approx_operator o;
    const char *reason;
    fv_layout layout = layout_of(data);
    fv_attention_io io = {.q = data->q, .k = data->k, .v = data->v};
    fv_status status = approx_operator_make(&o, a->ctx, exact, &reason);
    if (status == FV_OK)
        status = reference_alloc(a, r, data);
    if (status == FV_OK)
        status = approx_operator_rows(&o, &layout, &io, r->rows, r->n, r->weights);
    if (status == FV_OK)
        reference_fill(r, data);
    approx_operator_free(&o);
    return status;
}

fv_status approx_reference_law(approx *a, approx_reference *r, const approx_data *data,
                               const fv_attention_options *options, const approx_law *law)
{
    CLI_TRY(reference_alloc(a, r, data));
    int64_t d = data->d;
    memset(r->weights, 0, (size_t)(data->H * r->n * data->Tk) * sizeof *r->weights);
    for (int64_t h = 0; h < data->H; h++)
        for (int64_t i = 0; i < r->n; i++) {
            int64_t first, count, g = h * data->G / data->H;
            double sum = 0;
            float *row = r->weights + (h * r->n + i) * data->Tk;
            const float *q = data->q + (r->rows[i] * data->H + h) * d;
            approx_visible(data, options->causal != 0, r->rows[i], &first, &count);
            for (int64_t j = first; j < first + count; j++) {
                approx_pair pair = approx_pair_of(options, q, data->k + (j * data->G + g) * d);
                double value = approx_closed_mean(law, &pair);
                row[j] = (float)value;
                sum += value;
            }
            for (int64_t j = first; j < first + count; j++)
                row[j] = (float)((double)row[j] / sum);
        }
    reference_fill(r, data);
    return FV_OK;
}

/* ---- errors ------------------------------------------------------------------------------------------ */

static fv_status errors_alloc(approx *a, approx_errors *errors, int64_t draws, int64_t heads)
{
    *errors = (approx_errors){.draws = draws, .heads = heads};
    errors->matrix = fv_alloc(a->ctx, (size_t)(draws * heads) * sizeof *errors->matrix);
    errors->output = fv_alloc(a->ctx, (size_t)(draws * heads) * sizeof *errors->output);
    return errors->matrix != NULL && errors->output != NULL ? FV_OK : FV_ERR_RESOURCE;
}

void approx_errors_free(approx *a, approx_errors *errors)
{
    fv_free(a->ctx, errors->matrix);
    fv_free(a->ctx, errors->output);
    *errors = (approx_errors){0};
}

/* Memory of one comparison. */
typedef struct comparison {
    const approx_data *data;
    float *y, *weights;
    bool no_rows; /* the kind has no attention matrix */
} comparison;

static void add_errors(const comparison *c, const approx_reference *r, int64_t draw, approx_errors *errors)
{
    const approx_data *data = c->data;
    for (int64_t h = 0; h < data->H; h++) {
        double matrix = 0, output = 0;
        const float *ours = c->weights + h * r->n * data->Tk, *exact = r->weights + h * r->n * data->Tk;
        for (int64_t i = 0; i < r->n * data->Tk && !c->no_rows; i++) {
            double e = (double)ours[i] - (double)exact[i];
            matrix += e * e;
        }
        for (int64_t i = 0; i < r->n; i++)
            for (int64_t n = 0; n < data->dv; n++) {
                double e = (double)c->y[(r->rows[i] * data->H + h) * data->dv + n] -
                           r->outputs[(h * r->n + i) * data->dv + n];
                output += e * e;
            }
        errors->matrix[draw * data->H + h] = c->no_rows ? (double)NAN : matrix;
        errors->output[draw * data->H + h] = output;
    }
}

static fv_status run_draw(approx *a, approx_operator *o, comparison *c, const approx_reference *r,
                          uint64_t draw)
{
    fv_layout layout = layout_of(c->data);
    fv_attention_io io = {.q = c->data->q, .k = c->data->k, .v = c->data->v, .y = c->y};
    CLI_TRY(approx_operator_draw(o, a->seed, draw));
    CLI_TRY(approx_operator_forward(o, &layout, &io));
    fv_status status = approx_operator_rows(o, &layout, &io, r->rows, r->n, c->weights);
    c->no_rows = status == FV_ERR_USAGE;
    return c->no_rows ? FV_OK : status;
}

fv_status approx_compare(approx *a, approx_operator *o, const approx_data *data,
                         const approx_reference *const *references, int count, approx_errors *errors)
{
    const approx_reference *r = references[0]; /* all have the same rows */
    int64_t draws = o->info.drawn_floats > 0 ? a->draws : 1;
    comparison c = {.data = data};
    c.y = fv_alloc(a->ctx, (size_t)(data->Tq * data->H * data->dv) * sizeof *c.y);
    c.weights = fv_alloc(a->ctx, (size_t)(data->H * r->n * data->Tk) * sizeof *c.weights);
    fv_status status = c.y != NULL && c.weights != NULL ? FV_OK : FV_ERR_RESOURCE;
    for (int i = 0; i < count && status == FV_OK; i++)
        status = errors_alloc(a, &errors[i], draws, data->H);
    for (int64_t n = 0; n < draws && status == FV_OK; n++) {
        status = run_draw(a, o, &c, r, (uint64_t)n);
        for (int i = 0; i < count && status == FV_OK; i++)
            add_errors(&c, references[i], n, &errors[i]);
        approx_advance(a, 1);
    }
    approx_advance(a, a->draws - draws);
    fv_free(a->ctx, c.y);
    fv_free(a->ctx, c.weights);
    return status;
}

/* ---- statistics -------------------------------------------------------------------------------------- */

approx_statistic approx_statistic_of(const double *values, int64_t n)
{
    approx_statistic s = {0};
    for (int64_t i = 0; i < n; i++)
        s.mean += values[i] / (double)n;
    for (int64_t i = 0; i < n; i++)
        s.sd += (values[i] - s.mean) * (values[i] - s.mean);
    s.sd = n > 1 ? sqrt(s.sd / (double)(n - 1)) : 0;
    double half = n > 1 ? approx_half_width(n, s.sd) : 0;
    s.low = s.mean - half;
    s.high = s.mean + half;
    return s;
}

static approx_statistic relative(const double *squares, const double *of, const approx_errors *errors,
                                 int64_t first, int64_t last)
{
    double *values = malloc((size_t)errors->draws * sizeof *values), total = 0;
    approx_statistic s = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};
    if (values == NULL)
        return s;
    for (int64_t h = first; h < last; h++)
        total += of[h];
    for (int64_t n = 0; n < errors->draws; n++) {
        double sum = 0;
        for (int64_t h = first; h < last; h++)
            sum += squares[n * errors->heads + h];
        values[n] = sqrt(sum / total);
    }
    s = approx_statistic_of(values, errors->draws);
    free(values);
    return s;
}

approx_statistic approx_matrix_error(const approx_errors *errors, const approx_reference *r, int64_t first,
                                     int64_t last)
{
    return relative(errors->matrix, r->matrix_squares, errors, first, last);
}

approx_statistic approx_output_error(const approx_errors *errors, const approx_reference *r, int64_t first,
                                     int64_t last)
{
    return relative(errors->output, r->output_squares, errors, first, last);
}

/* ---- variance ------------------------------------------------------------------------------------------ */

fv_status approx_pairs(approx *a, const approx_data *data, bool causal, int64_t head, int64_t pairs, float *q,
                       float *k)
{
    int64_t d = data->d;
    for (int64_t p = 0; p < pairs; p++) {
        int64_t first = 0, count = 0, row = 0;
        for (uint64_t attempt = 0; count == 0 && attempt < 1000; attempt++) { /* sequences without keys */
            row = (int64_t)(approx_bits(a->seed, 3, (uint64_t)p + (attempt << 32)) % (uint64_t)data->Tq);
            approx_visible(data, causal, row, &first, &count);
        }
        if (count == 0)
            return cli_fail(FV_ERR_FILE, "approx: no query sees a key, so there is nothing to compare");
        int64_t key = first + (int64_t)(approx_bits(a->seed, 4, (uint64_t)p) % (uint64_t)count);
        int64_t h = head >= 0 ? head : (int64_t)(approx_bits(a->seed, 5, (uint64_t)p) % (uint64_t)data->H);
        memcpy(q + p * d, data->q + (row * data->H + h) * d, (size_t)d * sizeof *q);
        memcpy(k + p * d, data->k + (key * data->G + h * data->G / data->H) * d, (size_t)d * sizeof *k);
    }
    return FV_OK;
}

/* The estimates of all pairs in one draw: one sequence a pair. */
static fv_status estimate(approx_operator *o, int64_t pairs, const float *q, const float *k, float *ones,
                          float *y)
{
    int64_t *offsets = malloc((size_t)(pairs + 1) * sizeof *offsets);
    if (offsets == NULL)
        return cli_fail(FV_ERR_RESOURCE, "out of memory");
    for (int64_t p = 0; p < pairs; p++)
        offsets[p] = p, ones[p] = 1;
    offsets[pairs] = pairs;
    fv_layout layout = {pairs, offsets, NULL};
    fv_attention_io io = {.q = q, .k = k, .v = ones, .y = y};
    fv_status status = approx_operator_forward(o, &layout, &io);
    free(offsets);
    return status;
}

/* Estimates y [draws][stride] of `pairs` pairs to the mean over pairs of the sample variance; its standard error
 * from the spread of the draws' mean squares, since the pairs of one draw hang together. */
static fv_status summarise(const float *y, int64_t draws, int64_t stride, int64_t pairs,
                           approx_variance *variance)
{
    double *mean = calloc((size_t)(pairs + draws), sizeof *mean), *square = mean + pairs;
    if (mean == NULL)
        return cli_fail(FV_ERR_RESOURCE, "out of memory");
    *variance = (approx_variance){0};
    for (int64_t n = 0; n < draws; n++)
        for (int64_t p = 0; p < pairs; p++)
            mean[p] += (double)y[n * stride + p] / (double)draws;
    for (int64_t p = 0; p < pairs; p++) {
        variance->kernel += mean[p] / (double)pairs;
        variance->kernel_square += mean[p] * mean[p] / (double)pairs;
    }
    for (int64_t n = 0; n < draws; n++)
        for (int64_t p = 0; p < pairs; p++) {
            double e = (double)y[n * stride + p] - mean[p];
            square[n] += e * e / (double)pairs;
        }
    approx_statistic s = approx_statistic_of(square, draws);
    double unbiased = (double)draws / (double)(draws - 1);
    variance->measured = s.mean * unbiased;
    variance->error = s.sd * unbiased / sqrt((double)draws);
    free(mean);
    return FV_OK;
}

static double closed_mean(const fv_attention_info *info, int64_t pairs, const float *q, const float *k)
{
    approx_law law;
    double sum = 0;
    approx_law_of(info, &law);
    for (int64_t p = 0; p < pairs; p++) {
        approx_pair pair =
            approx_pair_of(&info->options, q + p * info->options.dim, k + p * info->options.dim);
        sum += approx_closed_variance(&law, &pair) / (double)pairs;
    }
    return sum;
}

static fv_status run_pairs(approx *a, approx_operator *o, const approx_pairing *set, approx_variance *each)
{
    int64_t draws = a->pair_draws, pairs = set->pairs, size = pairs / set->groups, d = o->info.options.dim;
    float *y = fv_alloc(a->ctx, (size_t)((draws + 1) * pairs) * sizeof *y);
    fv_status status = y != NULL ? FV_OK : FV_ERR_RESOURCE;
    for (int64_t n = 0; n < draws && status == FV_OK; n++) {
        status = approx_operator_draw(o, a->seed, (uint64_t)(a->draws + n)); /* not those of the errors */
        if (status == FV_OK)
            status = estimate(o, pairs, set->q, set->k, y + draws * pairs, y + n * pairs);
    }
    for (int64_t g = 0; g < set->groups && status == FV_OK; g++) {
        status = summarise(y + g * size, draws, pairs, size, &each[g]);
        each[g].closed = closed_mean(&o->info, size, set->q + g * size * d, set->k + g * size * d);
    }
    fv_free(a->ctx, y);
    return status;
}

fv_status approx_measure_variance(approx *a, const fv_attention_options *options, const approx_pairing *set,
                                  approx_variance *each)
{
    const fv_attention_kind *kind = fv_attention_kind_find(options->kind);
    const double nan = (double)NAN;
    fv_attention_options single = *options;
    fv_input_info input;
    approx_operator o;
    const char *reason;
    for (int64_t g = 0; g < set->groups; g++)
        each[g] = (approx_variance){nan, nan, nan, nan, nan};
    if (!kind->kernelized || set->pairs == 0)
        return FV_OK;
    single.heads = single.kv_heads = single.value_dim = 1;
    single.causal = 0;
    single.denominator = FV_DENOMINATOR_OFF;
    fv_status status = approx_operator_make(&o, a->ctx, &single, &reason);
    bool fits = status == FV_OK;
    /* A diagonal measured on single pairs is not the one of the data. */
    if (fits && fv_attention_input(o.op, FV_INPUT_PSI_DIAGONAL, &input))
        fits = false;
    for (int64_t g = 0; g < set->groups && fits && o.info.drawn_floats == 0; g++)
        each[g] = (approx_variance){.kernel = nan, .kernel_square = nan}; /* nothing is random */
    if (fits && o.info.drawn_floats > 0)
        status = run_pairs(a, &o, set, each);
    approx_operator_free(&o);
    return status == FV_ERR_USAGE ? FV_OK : status;
}
