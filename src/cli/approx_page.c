/* cli/approx_page.c: the rows of `favor approx` as one HTML page: charts with bands for what is uncertain, the
 * recommendations, and every figure in a table. */
#include "approx.h"
#include "report.h"
#include <math.h>
#include <string.h>

#define ROUNDING 1e-11 /* squared errors below it, relative, are float32's */

enum { GROUP_KEYS = 3, LABELS_MAX = 256 };

/* One chart for each group of rows that agree in `split`. */
typedef struct view {
    const char *title, *y, *low, *high;
    const char *theory; /* drawn dashed beside y; NULL: nothing */
} view;

typedef struct page {
    const char *study, *heading, *words, *x, *x_label;
    report_unit x_unit;
    bool log, log_y;
    const char *split[GROUP_KEYS];
    view views[3];
} page;

static const page pages[] = {
    {"features",
     "Error against the number of features",
     "Relative errors against exact softmax attention, means over redraws of the random parts; bands are 95 "
     "% "
     "confidence intervals of the mean. Both axes are logarithmic: an error that falls like 1/sqrt(m) has "
     "slope "
     "-1/2. Dashed: kinds without random parts. The variance is that of the un-normalised kernel estimate, "
     "measured, and dashed as theory has it.",
     "features",
     "features m",
     REPORT_COUNT,
     true,
     false,
     {"length", "dim"},
     {{"Error of the output", "error_output", "ci_low", "ci_high", NULL},
      {"Error of the attention matrix", "error_matrix", "matrix_ci_low", "matrix_ci_high", NULL},
      {"Variance of the kernel estimate", "variance_measured", NULL, NULL, "variance_closed_form"}}},
    {"lengths",
     "Error over lengths and widths",
     "Relative errors against exact softmax attention at the same scale; own kernel: against attention with "
     "the "
     "kernel that the map estimates, where it is another one. ppSBN: queries and keys centred and made unit "
     "vectors first. Bands are 95 % confidence intervals.",
     "length",
     "tokens",
     REPORT_COUNT,
     true,
     false,
     {"dim", "ppsbn"},
     {{"Error of the output", "error_output", "ci_low", "ci_high", NULL},
      {"Error of the attention matrix", "error_matrix", "matrix_ci_low", "matrix_ci_high", NULL},
      {"Error against the map's own kernel", "error_own_kernel", NULL, NULL, NULL}}},
    {"kernel",
     "Error of the kernel over angle and length",
     "Mean squared error of the estimate of exp(x.y) for |x| = |y| = norm, against the angle between x and y "
     "in radians: dots are measured, dashed lines are theory. Positive features are exact for opposite "
     "vectors, trigonometric ones for equal vectors; the ratio to favor+ with the same projections is from "
     "theory where that is known, else measured.",
     "angle",
     "angle",
     REPORT_PLAIN,
     false,
     true,
     {"dim", "features", "norm"},
     {{"Mean squared error", "mse_measured", NULL, NULL, "mse_closed_form"},
      {"Mean squared error over that of favor+", "mse_over_positive", NULL, NULL, NULL}}},
    {"layers",
     "Error growth over layers",
     "Relative error of the residual stream behind each of a stack of random attention layers, with random "
     "features of its own in every layer. Bands are 95 % confidence intervals over redraws.",
     "layer",
     "layer",
     REPORT_COUNT,
     false,
     true,
     {NULL},
     {{"Error behind the layer", "error_output", "ci_low", "ci_high", NULL}}},
    {"model",
     "A trained model on its data",
     "Relative errors of each layer (all heads together) against exact attention on the queries, keys and "
     "values "
     "that the model computes from the data. Bands are 95 % confidence intervals over redraws.",
     "features",
     "features m",
     REPORT_COUNT,
     true,
     false,
     {"layer"},
     {{"Error of the output", "error_output", "ci_low", "ci_high", NULL},
      {"Error of the attention matrix", "error_matrix", "matrix_ci_low", "matrix_ci_high", NULL}}},
};

static double number(const json_t *row, const char *key)
{
    const json_t *value = key != NULL ? json_object_get(row, key) : NULL;
    if (json_is_boolean(value))
        return json_is_true(value) ? 1 : 0;
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static const char *string(const json_t *row, const char *key)
{
    const char *value = json_string_value(json_object_get(row, key));
    return value != NULL ? value : "";
}

/* ---- which rows go together ------------------------------------------------------------------------ */

typedef struct label {
    char text[64];
} label;

/* What a line of a chart is: a map, with what else differs between its lines. */
static label label_of(const approx *a, const page *p, const json_t *row)
{
    label name;
    const char *projection = string(row, "projection");
    int used = snprintf(name.text, sizeof name.text, "%s", string(row, "map"));
    if (a->projection_count > 1 && strcmp(projection, "none") != 0)
        used += snprintf(name.text + used, sizeof name.text - (size_t)used, " %s", projection);
    bool split = false;
    for (int i = 0; i < GROUP_KEYS && p->split[i] != NULL; i++)
        split = split || strcmp(p->split[i], "features") == 0;
    if (!split && strcmp(p->x, "features") != 0 && a->features.count > 1)
        snprintf(name.text + used, sizeof name.text - (size_t)used, " m=%.0f", number(row, "features"));
    return name;
}

static bool is_charted(const json_t *row)
{
    return !json_is_integer(json_object_get(row, "head"));
}

static bool is_together(const page *p, const json_t *a, const json_t *b)
{
    for (int i = 0; i < GROUP_KEYS && p->split[i] != NULL; i++)
        if (number(a, p->split[i]) != number(b, p->split[i]))
            return false;
    return true;
}

/* Whether a group is one chart. */
static bool is_alone(const page *p)
{
    return p->views[1].title == NULL;
}

/* "length 4096, dim 16" */
static label group_of(const page *p, const json_t *row)
{
    label name = {""};
    int used = 0;
    for (int i = 0; i < GROUP_KEYS && p->split[i] != NULL; i++) {
        char *at = name.text + used;
        size_t left = sizeof name.text - (size_t)used;
        const char *comma = i > 0 ? ", " : "";
        if (strcmp(p->split[i], "ppsbn") == 0)
            used += snprintf(at, left, "%s%s ppSBN", comma, number(row, "ppsbn") > 0 ? "with" : "without");
        else
            used += snprintf(at, left, "%s%s %g", comma, p->split[i], number(row, p->split[i]));
    }
    return name;
}

/* Different labels of a group in the order they appear. */
static int find_labels(const approx *a, const page *p, const json_t *first, label *labels)
{
    size_t index;
    const json_t *row;
    int count = 0;
    json_array_foreach(a->results, index, row)
    {
        if (!is_charted(row) || !is_together(p, row, first))
            continue;
        label name = label_of(a, p, row);
        int i = 0;
        while (i < count && strcmp(labels[i].text, name.text) != 0)
            i++;
        if (i == count && count < LABELS_MAX)
            labels[count++] = name;
    }
    return count;
}

/* ---- charts -------------------------------------------------------------------------------------------- */

/* Smallest and largest features of a group, for lines of kinds that have no choice of them. */
static void find_range(const approx *a, const page *p, const json_t *first, double *low, double *high)
{
    size_t index;
    const json_t *row;
    *low = (double)INFINITY, *high = 0;
    json_array_foreach(a->results, index, row)
    {
        if (!is_charted(row) || !is_together(p, row, first))
            continue;
        bool drawn = strcmp(string(row, "projection"), "none") != 0 || number(row, "draws") > 1;
        double x = number(row, p->x);
        *low = drawn ? fmin(*low, x) : *low;
        *high = drawn ? fmax(*high, x) : *high;
    }
}

static void add_row(report_chart *chart, const approx *a, const page *p, const view *v, const json_t *row,
                    const char *name, int index)
{
    double low, high, x = number(row, p->x);
    report_series *series = report_series_of(chart, name);
    bool drawn = number(row, "draws") > 1 || strcmp(string(row, "projection"), "none") != 0;
    if (series == NULL)
        return;
    series->colour = index;
    find_range(a, p, row, &low, &high);
    if (number(row, v->y) < ROUNDING * pow(number(row, "kernel"), 2))
        return; /* exact but for rounding: no place on a logarithmic axis */
    if (strcmp(p->x, "features") != 0 || drawn || !(low < high)) {
        report_point_add_band(chart, series, x, number(row, v->y), number(row, v->low), number(row, v->high));
    } else { /* as a level */
        series->dashed = true;
        report_point_add(chart, series, low, number(row, v->y));
        report_point_add(chart, series, high, number(row, v->y));
    }
    if (v->theory == NULL || !isfinite(number(row, v->theory)) || !drawn)
        return;
    char theory[96];
    snprintf(theory, sizeof theory, "%.50s, theory", name);
    series = report_series_of(chart, theory);
    if (series == NULL)
        return;
    series->dashed = series->quiet = true;
    series->colour = index;
    report_point_add(chart, series, x, number(row, v->theory));
}

/* The lines labels[0 .. count-1] of one group. */
static void add_chart(report_text *t, const approx *a, const page *p, const view *v, const json_t *first,
                      const label *labels, int count)
{
    size_t index;
    const json_t *row;
    char title[128];
    snprintf(title, sizeof title, "%s%s%s", v->title, is_alone(p) ? ", " : "",
             is_alone(p) ? group_of(p, first).text : "");
    report_chart chart = {.title = title,
                          .x_label = p->x_label,
                          .x_unit = p->x_unit,
                          .y_unit = REPORT_PLAIN,
                          .log = p->log,
                          .log_y = p->log_y};
    json_array_foreach(a->results, index, row)
    {
        label name = label_of(a, p, row);
        for (int i = 0; i < count; i++)
            if (is_charted(row) && is_together(p, row, first) && strcmp(labels[i].text, name.text) == 0)
                add_row(&chart, a, p, v, row, name.text, i);
    }
    report_chart_write(t, &chart);
}

/* The charts of one group: under a heading, or, where each group has one chart, with the group in its title. */
static void add_group(report_text *t, const approx *a, const page *p, const json_t *first)
{
    static label labels[LABELS_MAX];
    int count = find_labels(a, p, first, labels);
    if (!is_alone(p))
        report_add(t, "<h3>%s</h3>\n<div class=\"charts\">\n", group_of(p, first).text);
    for (int v = 0; v < CLI_COUNT(p->views) && p->views[v].title != NULL; v++) {
        for (int at = 0; at < count; at += REPORT_COLOURS)
            add_chart(t, a, p, &p->views[v], first, labels + at,
                      count - at < REPORT_COLOURS ? count - at : REPORT_COLOURS);
    }
    report_add(t, "%s", is_alone(p) ? "" : "</div>\n");
}

static void add_groups(report_text *t, const approx *a, const page *p)
{
    report_add(t, "%s", is_alone(p) ? "<div class=\"charts\">\n" : "");
    for (size_t i = 0; i < json_array_size(a->results); i++) {
        const json_t *row = json_array_get(a->results, i);
        bool seen = !is_charted(row);
        for (size_t j = 0; j < i && !seen; j++)
            seen = is_charted(json_array_get(a->results, j)) &&
                   is_together(p, row, json_array_get(a->results, j));
        if (!seen)
            add_group(t, a, p, row);
    }
    report_add(t, "%s", is_alone(p) ? "</div>\n" : "");
}

/* ---- words and figures ------------------------------------------------------------------------------- */

static void add_recommendations(report_text *t, const approx *a)
{
    size_t index;
    const json_t *row;
    if (!approx_is_present(a, "recommendation"))
        return;
    report_add(t,
               "<section><h2>What to take</h2>\n<table><tr><th>layer</th><th>largest |q+k|&sup2;</th>"
               "<th>for an error of %g</th></tr>\n",
               cli_real(a->args, "wanted-error"));
    double said = -1;
    json_array_foreach(a->results, index, row)
    {
        if (!is_charted(row) || number(row, "layer") == said)
            continue;
        said = number(row, "layer");
        report_add(t, "<tr><td>%.0f</td><td>%.1f</td><td style=\"text-align:left;white-space:normal\">", said,
                   number(row, "largest_norm"));
        report_add_escaped(t, string(row, "recommendation"));
        report_add(t, "</td></tr>\n");
    }
    report_add(t, "</table></section>\n");
}

static void add_targets(report_text *t, const approx *a)
{
    bool any = false;
    for (int i = 0; i < a->map_count; i++) {
        if (approx_targets_softmax(a->maps[i]))
            continue;
        report_add(t, "%s", any ? ", " : "<p>Not estimates of softmax attention, compared all the same: ");
        report_add_escaped(t, a->maps[i]);
        any = true;
    }
    report_add(t, "%s", any ? ". More features need not bring them nearer.</p>\n" : "");
}

static void add_cell(report_text *t, const json_t *value)
{
    report_add(t, "<td>");
    if (json_is_string(value))
        report_add_escaped(t, json_string_value(value));
    else if (json_is_boolean(value))
        report_add(t, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_number(value))
        report_add(t, "%.4g", json_number_value(value));
    else
        report_add(t, "&ndash;");
    report_add(t, "</td>");
}

static void add_table(report_text *t, const approx *a)
{
    size_t index;
    const json_t *row;
    report_add(t, "<details><summary>All figures</summary><div class=\"wide\"><table>\n<tr>");
    for (const approx_column *c = approx_columns; c->key != NULL; c++)
        if (approx_is_present(a, c->key))
            report_add(t, "<th>%s</th>", c->heading);
    report_add(t, "</tr>\n");
    json_array_foreach(a->results, index, row)
    {
        report_add(t, "<tr>");
        for (const approx_column *c = approx_columns; c->key != NULL; c++)
            if (approx_is_present(a, c->key))
                add_cell(t, json_object_get(row, c->key));
        report_add(t, "</tr>\n");
    }
    report_add(t, "</table></div></details>\n");
}

fv_status approx_page_write(const approx *a, const char *path)
{
    int i = 0;
    while (strcmp(pages[i].study, a->study) != 0)
        i++;
    report_text text = {0};
    report_add_head(&text, "approx");
    add_recommendations(&text, a);
    report_add(&text, "<section><h2>%s</h2>\n<p>%s</p>\n", pages[i].heading, pages[i].words);
    add_targets(&text, a);
    add_groups(&text, a, &pages[i]);
    add_table(&text, a);
    report_add(&text, "</section>\n");
    report_add_foot(&text, "approx");
    fv_status status = text.failed ? cli_fail(FV_ERR_RESOURCE, "out of memory for the page")
                                   : fv_file_write(a->ctx, path, text.data, text.count);
    report_free(&text);
    return status;
}
