/* rmf_law.c: how the degrees of random Maclaurin features are drawn.
 *
 *     geometric  p_n = (P-1) P^-(n+1), P > 1        (Kar and Karnick 2012; Macformer: P = 2)
 *     poisson    p_n = e^-lambda lambda^n / n!
 *     optimal    p_n ~ a_n mu^(n/2): least second moment where |x|^2 |y|^2 + ... = mu (Cauchy-Schwarz on sum a_n^2 mu^n / p_n)
 *
 * With a largest degree the law is cut there and normalised again; what the kernel loses is
 * fv_attention_truncation.
 */
#include "features/rmf.h"
#include <math.h>

/* Terms summed where a law has no largest degree; a law with more than 2^-52 of its mass beyond is refused. */
enum { TERMS = 4096 };

static double log_weight(const fv_rmf_law_table *law, int64_t n)
{
    switch (law->kind) {
    case FV_RMF_POISSON:
        return (double)n * log(law->parameter) - lgamma((double)n + 1.0) - law->parameter;
    case FV_RMF_OPTIMAL:
        return law->series->log_a(n) + 0.5 * (double)n * log(law->parameter);
    default:
        return log(law->parameter - 1.0) - ((double)n + 1.0) * log(law->parameter);
    }
}

static int64_t last_term(const fv_rmf_law_table *law)
{
    return FV_MIN(law->last, TERMS);
}

fv_rmf_law_table fv_rmf_law_of(const fv_attention_options *o, const fv_rmf_series *series)
{
    fv_rmf_law_table law = {.kind = o->rmf_law, .series = series, .parameter = o->rmf_parameter};
    law.last = o->rmf_max_degree > 0 ? o->rmf_max_degree : INT64_MAX;
    if (law.kind != FV_RMF_OPTIMAL && o->rmf_max_degree == 0)
        return law; /* already of mass 1 */
    double sum = 0;
    for (int64_t n = 0; n <= last_term(&law); n++)
        sum += exp(log_weight(&law, n));
    law.log_norm = log(sum);
    return law;
}

double fv_rmf_log_p(const fv_rmf_law_table *law, int64_t n)
{
    return n <= law->last ? log_weight(law, n) - law->log_norm : -HUGE_VAL;
}

/* ---- options ---------------------------------------------------------------------------------------- */

/* Whether the law's mass lies within TERMS degrees. */
static bool ends(const fv_rmf_law_table *law)
{
    double mass = 0;
    for (int64_t n = 0; n <= last_term(law); n++)
        mass += exp(fv_rmf_log_p(law, n));
    return isfinite(law->log_norm) && mass > 1 - 1e-9 &&
           (law->last <= TERMS || fv_rmf_log_p(law, TERMS) < -40.0);
}

/* Rows that D features need: mean plus eight standard deviations and room; draws beyond are drawn again. */
static int64_t rows_for(const fv_rmf_law_table *law, int64_t D)
{
    double mean = 0, square = 0;
    for (int64_t n = 0; n <= last_term(law); n++) {
        double p = exp(fv_rmf_log_p(law, n));
        mean += p * (double)n;
        square += p * (double)n * (double)n;
    }
    double rows = (double)D * mean + 8.0 * sqrt((double)D * FV_MAX(square - mean * mean, 0.0)) + 64.0;
    double most = law->last < TERMS ? (double)D * (double)law->last : HUGE_VAL;
    return (int64_t)FV_MAX(1.0, ceil(FV_MIN(rows, most)));
}

fv_status fv_rmf_check(const fv_feature_map *map, fv_context *ctx, fv_attention_options *o)
{
    if (o->rmf_parameter == 0)
        o->rmf_parameter = o->rmf_law == FV_RMF_GEOMETRIC ? 2.0 : 1.0;
    if (o->rmf_law == FV_RMF_GEOMETRIC && o->rmf_parameter <= 1.0)
        return fv_fail(ctx, FV_ERR_USAGE, "attention %s: the geometric law needs P above 1, not %g", o->kind,
                       o->rmf_parameter);
    fv_rmf_law_table law = fv_rmf_law_of(o, map->series);
    if (!ends(&law))
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "attention %s: the law of the degrees has no end with parameter %g; give a largest degree",
            o->kind, o->rmf_parameter);
    int64_t rows = o->rmf_rows > 0 ? o->rmf_rows : rows_for(&law, o->features);
    if (rows >= INT64_C(1) << 24)
        return fv_fail(ctx, FV_ERR_USAGE,
                       "attention %s: %lld features need %lld rows of signs; at most 2^24 - 1", o->kind,
                       (long long)o->features, (long long)rows);
    o->rmf_rows = rows;
    return FV_OK;
}

/* Degrees of each head: whole numbers >= 0 that its rows of signs can serve. */
fv_status fv_rmf_validate(fv_context *ctx, const fv_attention_options *o, const float *const *input)
{
    const float *degrees = input[FV_INPUT_RMF_DEGREES];
    for (int64_t h = 0; h < o->heads; h++) {
        double sum = 0;
        for (int64_t f = 0; f < o->features; f++, degrees++) {
            if (!(*degrees >= 0) || *degrees != floorf(*degrees))
                return fv_fail(ctx, FV_ERR_FILE,
                               "attention %s: rmf_degrees[%lld] of head %lld is %g; expected a "
                               "whole number",
                               o->kind, (long long)f, (long long)h, (double)*degrees);
            if (o->rmf_max_degree > 0 && *degrees > (float)o->rmf_max_degree)
                return fv_fail(ctx, FV_ERR_FILE,
                               "attention %s: rmf_degrees[%lld] of head %lld is %g; the law ends at "
                               "%lld",
                               o->kind, (long long)f, (long long)h, (double)*degrees,
                               (long long)o->rmf_max_degree);
            sum += (double)*degrees;
        }
        if (sum > (double)o->rmf_rows)
            return fv_fail(ctx, FV_ERR_FILE,
                           "attention %s: the degrees of head %lld sum to %.0f; rmf_signs has %lld rows",
                           o->kind, (long long)h, sum, (long long)o->rmf_rows);
    }
    return FV_OK;
}

/* ---- drawing ---------------------------------------------------------------------------------------- */

static int64_t draw_degree(const fv_rmf_law_table *law, fv_random *random)
{
    double left = fv_random_uniform(random);
    int64_t n = 0;
    for (; n < last_term(law); n++) {
        left -= exp(fv_rmf_log_p(law, n));
        if (left <= 0)
            break;
    }
    return n;
}

static void draw_degrees(const fv_attention_options *o, const fv_rmf_law_table *law, fv_random *random,
                         float *out)
{
    int64_t sum;
    do {
        sum = 0;
        for (int64_t f = 0; f < o->features; f++) {
            int64_t n = draw_degree(law, random);
            out[f] = (float)n;
            sum += n;
        }
    } while (sum > o->rmf_rows);
}

bool fv_rmf_draw(const fv_feature_map *map, const fv_attention_options *o, fv_input which, uint64_t seed,
                 uint32_t draw, float *out)
{
    fv_rmf_law_table law = fv_rmf_law_of(o, map->series);
    if (which != FV_INPUT_RMF_DEGREES && which != FV_INPUT_RMF_SIGNS)
        return false;
    for (int64_t h = 0; h < o->heads; h++) {
        fv_purpose purpose = which == FV_INPUT_RMF_DEGREES ? FV_RANDOM_DEGREE : FV_RANDOM_SIGN;
        fv_random random = fv_random_make(seed, purpose, (uint32_t)h, draw);
        if (which == FV_INPUT_RMF_DEGREES) {
            draw_degrees(o, &law, &random, out + h * o->features);
            continue;
        }
        int64_t signs = o->rmf_rows * o->dim;
        for (int64_t i = 0; i < signs; i++)
            out[h * signs + i] = fv_random_u32(&random) >> 31 ? 1.0f : -1.0f;
    }
    return true;
}
