/* cli/approx_advice.c: what to take for a layer, in a sentence.
 *
 * The variance of a random-feature estimate falls as 1/m, so the error of a map follows e^2 = c/m where m is large
 * enough for the normaliser to be steady; c is the geometric mean of e^2 m over the points measured, and c/wanted^2
 * features are needed, or fewer where fewer were measured to do. Where the measured slope of ln e against ln m is flatter than -1/4 the law does not hold
 * there (heavy tails, or a bias that features do not remove), and nothing is promised beyond what was measured. What is needed is then
 * weighed in operations, by fv_attention_flop at the lengths of the data: a kernelized call grows with the
 * length, exact attention with its square, and below some length exact attention is cheaper than its
 * approximation.
 */
#include "approx.h"
#include "approx_model.h"
#include <math.h>
#include <string.h>

#define FLATTEST     (-0.25)
#define FEATURES_MAX ((int64_t)1 << 20)

/* One map (and projection) of a layer, from its rows. */
typedef struct candidate {
    const char *map;
    fv_projection projection;
    int points;
    double log_c, log_m, log_e, mm, me; /* sums */
    double best_error;
    int64_t best_features; /* the most that were measured */
    int64_t enough;        /* the fewest measured whose error is small enough; 0: none */
    double enough_error;
    bool drawn;
    int64_t needed; /* 0: cannot be said */
    double flop;    /* of that */
} candidate;

static void take_point(candidate *c, const approx_point *point, double wanted)
{
    double m = log((double)point->features), e = log(point->error);
    c->points++;
    c->log_c += 2 * e + m;
    c->log_m += m, c->log_e += e;
    c->mm += m * m, c->me += m * e;
    if (point->features >= c->best_features)
        c->best_features = point->features, c->best_error = point->error;
    if (point->error <= wanted && (c->enough == 0 || point->features < c->enough))
        c->enough = point->features, c->enough_error = point->error;
}

static int gather(const approx_point *points, int count, double wanted, candidate *candidates)
{
    int found = 0;
    for (int i = 0; i < count; i++) {
        int at = 0;
        if (!(points[i].error > 0) || !isfinite(points[i].error) || !points[i].softmax)
            continue;
        while (at < found && (strcmp(candidates[at].map, points[i].map) != 0 ||
                              candidates[at].projection != points[i].projection))
            at++;
        if (at == found)
            candidates[found++] = (candidate){
                .map = points[i].map, .projection = points[i].projection, .drawn = points[i].drawn};
        take_point(&candidates[at], &points[i], wanted);
    }
    return found;
}

/* d ln e / d ln m of the points; the law's where there is one point only. */
static double slope(const candidate *c)
{
    double n = c->points, spread = c->mm - c->log_m * c->log_m / n;
    return spread > 0 ? (c->me - c->log_m * c->log_e / n) / spread : -0.5;
}

/* What was measured is known; beyond it the law speaks, where it holds. */
static void decide(candidate *c, double wanted)
{
    double needed = exp(c->log_c / c->points) / (wanted * wanted);
    c->needed = c->enough;
    if (!c->drawn || slope(c) > FLATTEST || needed > (double)FEATURES_MAX)
        return;
    int64_t by_law = needed > 16 ? 16 * (int64_t)ceil(needed / 16) : 16;
    if (c->enough == 0 || by_law < c->enough)
        c->needed = by_law;
}

static fv_status count_flop(approx *a, const approx_layer *layer, candidate *c)
{
    approx_operator o;
    const char *reason;
    fv_attention_options options = layer->options;
    options.kind = c->map, options.projection = c->projection;
    options.features = c->drawn ? c->needed : 0;
    fv_status status = approx_operator_make(&o, a->ctx, &options, &reason);
    if (status == FV_OK)
        c->flop = fv_attention_flop(o.op, &layer->layout, 0);
    else
        c->needed = 0;
    approx_operator_free(&o);
    return status == FV_ERR_USAGE ? FV_OK : status;
}

/* ---- words ------------------------------------------------------------------------------------------- */

static void name_of(char *text, size_t bytes, const approx *a, const candidate *c)
{
    bool plain = a->projection_count == 1 || !c->drawn;
    snprintf(text, bytes, "%s%s%s", c->map, plain ? "" : " ",
             plain ? "" : approx_projection_name(c->projection));
}

static void say_hopeless(approx_advice *advice, const candidate *candidates, int count, double wanted)
{
    const candidate *c = NULL;
    for (int i = 0; i < count; i++)
        if (c == NULL || candidates[i].best_error < c->best_error)
            c = &candidates[i];
    if (c == NULL)
        snprintf(advice->text, sizeof advice->text,
                 "exact: no map that was measured estimates softmax attention with a finite error");
    else
        snprintf(advice->text, sizeof advice->text,
                 "exact: the error does not fall as 1/sqrt(m) with any map (best: %s, %.2g at %lld features, "
                 "slope %.2f), so no number of features can be promised for %g",
                 c->map, c->best_error, (long long)c->best_features, slope(c), wanted);
}

static void say_choice(approx *a, const approx_layer *layer, approx_advice *advice, const candidate *best,
                       const candidate *own)
{
    char name[96], also[160] = "";
    double ratio = best->flop / layer->exact_flop;
    name_of(name, sizeof name, a, best);
    advice->crossover = layer->length * ratio;
    if (ratio >= 1) {
        snprintf(advice->text, sizeof advice->text,
                 "exact: %s would need about %lld features, %.1f times the operations of exact attention at "
                 "this length; they break even near %.0f tokens",
                 name, (long long)best->needed, ratio, advice->crossover);
        return;
    }
    if (own != NULL && own != best && own->needed > 0)
        snprintf(also, sizeof also, " (%s would need %lld)", own->map, (long long)own->needed);
    else if (own != NULL && own != best)
        snprintf(also, sizeof also, " (for %s nothing can be promised)", own->map);
    bool known = best->enough > 0;
    snprintf(advice->text, sizeof advice->text,
             "%s with about %lld features%s; measured %.2g at %lld; %.2f times the operations of exact "
             "attention at this length, worth it above %.0f tokens",
             name, (long long)best->needed, also, known ? best->enough_error : best->best_error,
             (long long)(known ? best->enough : best->best_features), ratio, advice->crossover);
    snprintf(advice->map, sizeof advice->map, "%s", best->map);
    advice->features = best->needed;
}

fv_status approx_advise(approx *a, const approx_layer *layer, const approx_point *points, int count,
                        const char *own, approx_advice *advice)
{
    candidate *candidates = fv_alloc(a->ctx, (size_t)(count + 1) * sizeof *candidates);
    const candidate *best = NULL, *mine = NULL;
    double wanted = cli_real(a->args, "wanted-error");
    *advice = (approx_advice){.map = "exact", .crossover = (double)NAN};
    if (candidates == NULL)
        return FV_ERR_RESOURCE;
    int found = gather(points, count, wanted, candidates);
    fv_status status = FV_OK;
    for (int i = 0; i < found && status == FV_OK; i++) {
        decide(&candidates[i], wanted);
        if (candidates[i].needed > 0)
            status = count_flop(a, layer, &candidates[i]);
        if (candidates[i].needed > 0 && (best == NULL || candidates[i].flop < best->flop))
            best = &candidates[i];
        if (strcmp(candidates[i].map, own) == 0 && (mine == NULL || candidates[i].needed > mine->needed))
            mine = &candidates[i];
    }
    if (status == FV_OK && best != NULL)
        say_choice(a, layer, advice, best, mine);
    else if (status == FV_OK)
        say_hopeless(advice, candidates, found, wanted);
    fv_free(a->ctx, candidates);
    return status;
}
