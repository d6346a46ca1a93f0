/* cli/report_runs.c: a section for each training run: what it was, how it went, how it ended beside the
 * baseline. */
#include "report.h"
#include <math.h>
#include <string.h>

static double number(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static const char *string(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value != NULL ? value : "";
}

/* ---- curves -------------------------------------------------------------------------------------- */

/* Series named after the splits of the metrics, in the order they appear; the training split is thin. */
static void add_metrics(report_chart *chart, const json_t *metrics, const char *key)
{
    size_t index;
    const json_t *line;
    json_array_foreach(metrics, index, line)
    {
        const char *split = string(line, "split");
        report_series *series = report_series_of(chart, split);
        if (series != NULL)
            series->thin = strcmp(split, "train") == 0;
        report_point_add(chart, series, number(line, "step"), number(line, key));
    }
}

static void add_baseline(report_chart *chart, const json_t *run, const char *key)
{
    const json_t *metrics = json_object_get(run, "metrics");
    double level = number(json_object_get(json_object_get(run, "evaluation"), "empirical"), key);
    size_t count = json_array_size(metrics);
    if (!isfinite(level) || count == 0)
        return;
    report_series *series = report_series_of(chart, "empirical (letter frequencies)");
    if (series == NULL)
        return;
    series->dashed = true;
    series->colour = REPORT_COLOURS - 1;
    report_point_add(chart, series, number(json_array_get(metrics, 0), "step"), level);
    report_point_add(chart, series, number(json_array_get(metrics, count - 1), "step"), level);
}

static void add_curve(report_text *t, const json_t *run, const char *key, const char *title, report_unit unit)
{
    report_chart chart = {.title = title, .x_label = "step", .x_unit = REPORT_COUNT, .y_unit = unit};
    add_metrics(&chart, json_object_get(run, "metrics"), key);
    add_baseline(&chart, run, key);
    report_chart_write(t, &chart);
}

/* ---- figures ------------------------------------------------------------------------------------- */

static void add_result(report_text *t, const char *name, const json_t *metrics)
{
    if (!isfinite(number(metrics, "loss")))
        return;
    report_add(t, "<tr><th>%s</th><td>%.4f</td><td>%.2f %%</td><td>%.3f</td><td>%.4f</td></tr>\n", name,
               number(metrics, "loss"), 100 * number(metrics, "accuracy"), number(metrics, "perplexity"),
               number(metrics, "bits_per_token"));
}

static const json_t *last_of(const json_t *metrics, const char *split)
{
    for (size_t i = json_array_size(metrics); i-- > 0;)
        if (strcmp(string(json_array_get(metrics, i), "split"), split) == 0)
            return json_array_get(metrics, i);
    return NULL;
}

static void add_results(report_text *t, const json_t *run)
{
    const json_t *metrics = json_object_get(run, "metrics"), *evaluation = json_object_get(run, "evaluation");
    char name[64];
    report_add(t, "<table><tr><th></th><th>loss (nats)</th><th>accuracy</th><th>perplexity</th><th>bits per "
                  "token</th></tr>\n");
    add_result(t, "training, last", last_of(metrics, "train"));
    add_result(t, "validation, last", last_of(metrics, "valid"));
    snprintf(name, sizeof name, "held out (%.32s)", string(evaluation, "split"));
    add_result(t, name, evaluation);
    add_result(t, "empirical baseline", json_object_get(evaluation, "empirical"));
    report_add(t, "</table>\n");
}

static void add_description(report_text *t, const json_t *run)
{
    const json_t *config = json_object_get(run, "config"), *metrics = json_object_get(run, "metrics");
    const json_t *settings = json_object_get(json_object_get(run, "trainer"), "settings");
    const json_t *last = json_array_get(metrics, json_array_size(metrics) - 1);
    report_add(t, "<p>");
    if (config != NULL) {
        report_add_escaped(t, string(json_object_get(config, "attention"), "kind"));
        report_add(t, " attention, %s, %.0f layers of %.0f channels, %.0f heads, feed-forward %.0f. ",
                   json_is_true(json_object_get(config, "is_decoder")) ? "causal" : "bidirectional",
                   number(config, "num_hidden_layers"), number(config, "hidden_size"),
                   number(config, "num_attention_heads"), number(config, "intermediate_size"));
    }
    if (settings != NULL)
        report_add(t, "Task %s, sequences of %.0f tokens, %.0f a batch, learning rate %g, seed %.0f. ",
                   string(settings, "task"), number(settings, "length"), number(settings, "batch"),
                   number(settings, "learning_rate"), number(settings, "seed"));
    report_add(t, "%.0f steps, %s tokens", number(last, "step"), cli_si(number(last, "tokens")).text);
    double rate = number(json_object_get(last_of(metrics, "train"), "timing"), "tokens_per_s");
    if (isfinite(rate))
        report_add(t, ", %s tokens a second", cli_si(rate).text);
    report_add(t, ".</p>\n");
}

void report_add_runs(report_text *t, const report *r)
{
    size_t index;
    const json_t *run;
    json_array_foreach(r->runs, index, run)
    {
        report_add(t, "<section><h2>Run ");
        report_add_escaped(t, string(run, "name"));
        report_add(t, "</h2>\n");
        add_description(t, run);
        report_add(t, "<div class=\"charts\">\n");
        add_curve(t, run, "loss", "Loss, nats per predicted token", REPORT_PLAIN);
        add_curve(t, run, "accuracy", "Accuracy", REPORT_PERCENT);
        report_add(t, "</div>\n");
        add_results(t, run);
        report_add(t, "</section>\n");
    }
}
