/* cli/approx_effective.c: how many features really count.
 *
 * The normaliser of a query is a sum over projections, D = sum_f w_f, w_f = phi_f(q) . sum_j phi_f(k_j). Kish's number of
 * effective samples, (sum w_f)^2 / sum w_f^2, is m when all count alike and 1 when one decides everything.
 *
 * The w_f come from the operator itself: one query as m heads, each head with one projection, all of them reading the
 * same keys, values 1 and no division. Cost O(m L d) a query.
 */
#include "approx_model.h"
#include <math.h>
#include <string.h>

enum { QUERIES = 8 };

/* The normaliser feature by feature: as many heads as projections, each with one of them, all reading the same
 * keys; values 1, no division. */
typedef struct shares {
    approx_operator op;
    int64_t m, heads; /* of the model */
    float *q, *ones, *w;
} shares;

static void shares_free(const approx_place *s, shares *x)
{
    approx_operator_free(&x->op);
    fv_free(s->a->ctx, x->q);
    fv_free(s->a->ctx, x->ones);
    fv_free(s->a->ctx, x->w);
}

/* Whether the projection is all that is drawn, so that features can be had one by one. */
static bool has_only_projection(const approx_operator *o)
{
    fv_input_info input;
    bool found = false;
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        if (!fv_attention_input(o->op, (fv_input)i, &input))
            continue;
        if (i == FV_INPUT_PROJECTION)
            found = true;
        else if (input.role == FV_ROLE_DRAWN || input.role == FV_ROLE_FROZEN)
            return false;
    }
    return found;
}

/* `options` made `whole`; resolved ones would not make another. */
static fv_status shares_make(const approx_place *s, const approx_operator *whole,
                             const fv_attention_options *options, shares *x)
{
    const char *reason;
    fv_attention_options o = *options;
    *x = (shares){.m = whole->info.projection_rows, .heads = o.heads};
    o.scale = whole->info.options.scale;
    o.projection = whole->info.options.projection;
    approx_freeze(&o, s->data, -1);
    o.heads = x->m, o.kv_heads = o.value_dim = o.features = 1;
    o.causal = 0, o.denominator = FV_DENOMINATOR_OFF;
    CLI_TRY(approx_operator_make(&x->op, s->a->ctx, &o, &reason));
    x->q = fv_alloc(s->a->ctx, (size_t)(x->m * o.dim) * sizeof *x->q);
    x->ones = fv_alloc(s->a->ctx, (size_t)s->data->Tk * sizeof *x->ones);
    x->w = fv_alloc(s->a->ctx, (size_t)x->m * sizeof *x->w);
    if (x->q == NULL || x->ones == NULL || x->w == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t j = 0; j < s->data->Tk; j++)
        x->ones[j] = 1;
    return FV_OK;
}

/* Shares of all projections for one query of one head. */
static fv_status shares_of(const approx_place *s, shares *x, const float *drawn, int64_t head, int64_t row)
{
    const approx_data *data = s->data;
    int64_t first, count, d = data->d;
    approx_visible(data, s->causal, row, &first, &count);
    int64_t offsets_q[] = {0, 1}, offsets_k[] = {0, count};
    fv_layout layout = {1, offsets_q, offsets_k};
    for (int64_t f = 0; f < x->m; f++)
        memcpy(x->q + f * d, data->q + (row * data->H + head) * d, (size_t)d * sizeof *x->q);
    fv_attention_io io = {.q = x->q,
                          .k = data->k + (first * data->G + head * data->G / data->H) * d,
                          .k_stride = data->G * d,
                          .v = x->ones,
                          .y = x->w};
    memcpy(x->op.drawn, drawn + head * x->m * d, (size_t)(x->m * d) * sizeof *drawn);
    return approx_operator_forward(&x->op, &layout, &io);
}

static double participation(const float *w, int64_t m)
{
    double sum = 0, squares = 0, largest = 0;
    for (int64_t f = 0; f < m; f++)
        largest = fmax(largest, fabs((double)w[f]));
    for (int64_t f = 0; f < m; f++) {
        double share = (double)w[f] / largest; /* squares stay in range */
        sum += share;
        squares += share * share;
    }
    return sum * sum / squares;
}

/* Means over a few queries, for each number of features: the first of the projections drawn for the most. */
static fv_status add_effective(const approx_place *s, shares *x, const float *drawn)
{
    const bench_list *list = &s->a->features;
    int64_t H = s->data->H, queries = s->n < QUERIES ? s->n : QUERIES;
    for (int64_t h = 0; h < H; h++)
        for (int64_t i = 0; i < queries; i++) {
            CLI_TRY(shares_of(s, x, drawn, h, s->rows[(2 * i + 1) * s->n / (2 * queries)]));
            for (int f = 0; f < list->count; f++)
                s->effective[f * H + h] += participation(x->w, list->at[f]) / (double)queries;
        }
    return FV_OK;
}

fv_status approx_effective(const approx_place *s, const fv_attention_options *options)
{
    const bench_list *list = &s->a->features;
    approx_operator whole;
    const char *reason;
    fv_attention_options most = *options;
    shares x = {0};
    for (int f = 0; f < list->count; f++)
        most.features = list->at[f] > most.features ? list->at[f] : most.features;
    fv_status status = approx_operator_make(&whole, s->a->ctx, &most, &reason);
    bool fits = status == FV_OK && has_only_projection(&whole) && !options->rotary &&
                whole.info.projection_rows == most.features;
    for (int64_t i = 0; i < s->data->H * list->count; i++)
        s->effective[i] = fits ? 0 : (double)NAN;
    if (fits)
        status = shares_make(s, &whole, &most, &x);
    if (fits && status == FV_OK)
        status = approx_operator_draw(&whole, s->a->seed, 0);
    if (fits && status == FV_OK)
        status = add_effective(s, &x, whole.drawn);
    for (int64_t i = 0; i < s->data->H * list->count && status != FV_OK; i++)
        s->effective[i] = (double)NAN;
    if (fits)
        shares_free(s, &x);
    approx_operator_free(&whole);
    return status == FV_ERR_USAGE ? FV_OK : status;
}
