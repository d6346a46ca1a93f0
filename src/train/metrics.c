/* metrics.c: readings of the loss, and the lines of metrics.jsonl. */
#include "train/internal.h"
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

fv_metrics fv_metrics_of(const fv_sums *sums)
{
    fv_metrics m = {.tokens = sums->tokens};
    if (sums->tokens == 0)
        return m;
    m.loss = sums->loss / (double)sums->tokens;
    m.accuracy = (double)sums->correct / (double)sums->tokens;
    m.perplexity = fmin(exp(m.loss), DBL_MAX); /* JSON has no infinity */
    m.bits_per_token = m.loss / log(2.0);
    return m;
}

char *fv_metrics_json(fv_context *ctx, const fv_metrics_line *line)
{
    const fv_metrics *m = &line->metrics;
    json_t *object = json_pack(
        "{s:I, s:I, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:{s:f, s:f, s:f}}", "step", (json_int_t)line->step,
        "tokens", (json_int_t)line->tokens, "split", fv_split_name(line->split), "loss", m->loss, "accuracy",
        m->accuracy, "perplexity", m->perplexity, "bits_per_token", m->bits_per_token, "learning_rate",
        line->learning_rate, "grad_norm", line->grad_norm, "timing", "seconds", line->seconds, "tokens_per_s",
        line->tokens_per_s, "share_of_peak", line->share_of_peak);
    /* Nine digits: more than a float carries. The order of the fields is kept. */
    char *text = object != NULL ? json_dumps(object, JSON_COMPACT | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(object);
    char *copy = NULL;
    if (text != NULL)
        copy = fv_strdup(ctx, text);
    else
        (void)fv_fail(ctx, FV_ERR_RESOURCE, "out of memory for a line of metrics");
    free(text);
    return copy;
}
