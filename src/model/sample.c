/* sample.c: from logits to a token: temperature, top-k, top-p (nucleus; Holtzman et al. 2020).
 *
 * One uniform number decides, a pure function of (seed, position): the same choice on every machine, and a
 * stream that stops and continues samples as one that did not.
 */
#include "model/transformer.h"
#include <math.h>
#include <stdlib.h>

void fv_sampling_init(fv_sampling *sampling)
{
    *sampling = (fv_sampling){.size = sizeof *sampling, .temperature = 1.0, .top_p = 1.0};
}

typedef struct candidate {
    int32_t token;
    double weight; /* first the logit, then exp of it */
} candidate;

/* Falling weight; ties: the lower token first. */
static int compare(const void *a, const void *b)
{
    const candidate *x = a, *y = b;
    if (x->weight != y->weight)
        return x->weight < y->weight ? 1 : -1;
    return x->token < y->token ? -1 : 1;
}

static fv_status check(fv_context *ctx, const fv_sampling *s)
{
    if (s->size != sizeof *s)
        return fv_fail(ctx, FV_ERR_USAGE, "sampling options were not made by fv_sampling_init");
    if (!(s->temperature >= 0 && s->temperature <= 1e6))
        return fv_fail(ctx, FV_ERR_USAGE, "temperature is %g; expected 0 or more", s->temperature);
    if (s->top_k < 0)
        return fv_fail(ctx, FV_ERR_USAGE, "top-k is %lld; expected 0 (all) or more", (long long)s->top_k);
    if (!(s->top_p > 0 && s->top_p <= 1))
        return fv_fail(ctx, FV_ERR_USAGE, "top-p is %g; expected above 0, at most 1", s->top_p);
    return FV_OK;
}

/* Letters and the end token, with finite or infinite logits; -1 if one is NaN. */
static int64_t collect(const fv_tokenizer *tokenizer, const float *logits, candidate *candidates)
{
    int64_t n = 0;
    for (int32_t id = 0; id < tokenizer->size; id++) {
        if (id >= tokenizer->letters && id != tokenizer->end)
            continue;
        if (isnan(logits[id]))
            return -1;
        candidates[n++] = (candidate){id, (double)logits[id]};
    }
    return n;
}

/* Keeps the candidates of top-k and top-p, the weights turned into exp((logit - largest) / temperature).
 * Returns their number and the sum of their weights. */
static int64_t truncate_candidates(const fv_sampling *s, candidate *c, int64_t n, double *mass)
{
    double top = c[0].weight, all = 0;
    if (s->top_k > 0)
        n = FV_MIN(n, s->top_k);
    for (int64_t i = 0; i < n; i++) {
        c[i].weight = c[i].weight == top ? 1.0 : exp((c[i].weight - top) / s->temperature);
        all += c[i].weight;
    }
    *mass = 0;
    int64_t kept = 0;
    while (kept < n && (kept == 0 || *mass < s->top_p * all))
        *mass += c[kept++].weight;
    return kept;
}

static int32_t draw(const fv_sampling *s, int64_t position, const candidate *c, int64_t n, double mass)
{
    fv_random random =
        fv_random_make(s->seed, FV_RANDOM_SAMPLE, (uint32_t)((uint64_t)position >> 32), (uint32_t)position);
    double left = fv_random_uniform(&random) * mass;
    int64_t i = 0;
    while (i < n - 1 && left >= c[i].weight)
        left -= c[i++].weight;
    return c[i].token;
}

fv_status fv_sample(fv_context *ctx, const fv_tokenizer *tokenizer, const fv_sampling *sampling,
                    int64_t position, const float *logits, int32_t *token)
{
    TRY(check(ctx, sampling));
    candidate *c = fv_alloc_array(ctx, tokenizer->size, sizeof *c);
    if (c == NULL)
        return FV_ERR_RESOURCE;
    int64_t n = collect(tokenizer, logits, c);
    if (n > 0) {
        double mass;
        qsort(c, (size_t)n, sizeof *c, compare);
        bool greedy = sampling->temperature == 0 || !isfinite(c[0].weight);
        int64_t kept = greedy ? 1 : truncate_candidates(sampling, c, n, &mass);
        *token = greedy ? c[0].token : draw(sampling, position, c, kept, mass);
    }
    fv_free(ctx, c);
    return n > 0 ? FV_OK : fv_fail(ctx, FV_ERR_FAILED, "a logit is not a number: the model is broken");
}
