/* cli/report_bench.c: benchmarks: time and memory against length, on log-log axes, where a straight line of
 * slope 1 is linear cost and of slope 2 quadratic; then every row. Rows that differ in more than kind and
 * length are kept apart. */
#include "report.h"
#include <math.h>
#include <string.h>

/* A column of the table of rows, and of what tells groups apart. */
typedef struct field {
    const char *key, *heading;
    bool group; /* rows of one chart agree in it */
    report_unit unit;
} field;

static const field attention_fields[] = {
    {"kind", "kind", false, REPORT_PLAIN},         {"causal", "causal", true, REPORT_PLAIN},
    {"pass", "pass", true, REPORT_PLAIN},          {"length", "length", false, REPORT_COUNT},
    {"heads", "heads", true, REPORT_COUNT},        {"dim", "head width", true, REPORT_COUNT},
    {"features", "features", false, REPORT_COUNT}, {"threads", "threads", true, REPORT_COUNT},
    {"dtype", "dtype", true, REPORT_PLAIN},        {"ms_median", "median", false, REPORT_MS},
    {"gflops", "GFLOP/s", false, REPORT_COUNT},    {"share_of_peak", "of sgemm peak", false, REPORT_PERCENT},
    {"peak_bytes", "memory", false, REPORT_BYTES},
};

static const field training_fields[] = {
    {"kind", "kind", false, REPORT_PLAIN},         {"length", "length", false, REPORT_COUNT},
    {"batch", "batch", true, REPORT_COUNT},        {"layers", "layers", true, REPORT_COUNT},
    {"d_model", "channels", true, REPORT_COUNT},   {"heads", "heads", true, REPORT_COUNT},
    {"ffn", "feed-forward", true, REPORT_COUNT},   {"features", "features", false, REPORT_COUNT},
    {"threads", "threads", true, REPORT_COUNT},    {"dtype", "dtype", true, REPORT_PLAIN},
    {"ms_median", "median", false, REPORT_MS},     {"tokens_per_s", "tokens/s", false, REPORT_COUNT},
    {"gflops", "GFLOP/s", false, REPORT_COUNT},    {"share_of_peak", "of sgemm peak", false, REPORT_PERCENT},
    {"peak_bytes", "memory", false, REPORT_BYTES},
};

typedef struct table {
    const char *title;
    const field *fields;
    int count;
    const json_t *rows;
} table;

/* ---- groups -------------------------------------------------------------------------------------- */

typedef struct label {
    char text[256];
} label;

/* "causal, forward, 8 heads, 64 head width, 2 threads, f32" */
static label group_of(const table *t, const json_t *row)
{
    label name = {""};
    for (int i = 0; i < t->count; i++) {
        const field *f = &t->fields[i];
        const json_t *value = json_object_get(row, f->key);
        size_t used = strlen(name.text);
        const char *comma = used > 0 ? ", " : "";
        if (!f->group)
            continue;
        if (json_is_boolean(value))
            snprintf(name.text + used, sizeof name.text - used, "%s%s", comma,
                     json_is_true(value) ? "causal" : "bidirectional");
        else if (json_is_string(value))
            snprintf(name.text + used, sizeof name.text - used, "%s%s", comma, json_string_value(value));
        else
            snprintf(name.text + used, sizeof name.text - used, "%s%s %.0f", comma, f->heading,
                     json_number_value(value));
    }
    return name;
}

/* Whether an earlier row has the group of row `index`. */
static bool is_known(const table *t, size_t index, const label *group)
{
    for (size_t i = 0; i < index; i++)
        if (strcmp(group_of(t, json_array_get(t->rows, i)).text, group->text) == 0)
            return true;
    return false;
}

static void add_chart(report_text *text, const table *t, const label *group, const char *key,
                      const char *title, report_unit unit)
{
    report_chart chart = {
        .title = title, .x_label = "tokens", .x_unit = REPORT_COUNT, .y_unit = unit, .log = true};
    size_t index;
    const json_t *row;
    json_array_foreach(t->rows, index, row)
    {
        if (strcmp(group_of(t, row).text, group->text) != 0)
            continue;
        const char *kind = json_string_value(json_object_get(row, "kind"));
        report_point_add(&chart, report_series_of(&chart, kind != NULL ? kind : "?"),
                         json_number_value(json_object_get(row, "length")),
                         json_number_value(json_object_get(row, key)));
    }
    report_chart_write(text, &chart);
}

static void add_groups(report_text *text, const table *t)
{
    size_t index;
    const json_t *row;
    json_array_foreach(t->rows, index, row)
    {
        label group = group_of(t, row);
        if (is_known(t, index, &group))
            continue;
        report_add(text, "<h3>");
        report_add_escaped(text, group.text);
        report_add(text, "</h3>\n<div class=\"charts\">\n");
        add_chart(text, t, &group, "ms_median", "Time", REPORT_MS);
        add_chart(text, t, &group, "peak_bytes", "Peak memory", REPORT_BYTES);
        report_add(text, "</div>\n");
    }
}

/* ---- rows ---------------------------------------------------------------------------------------- */

static void add_cell(report_text *text, const field *f, const json_t *value)
{
    double x = json_number_value(value);
    report_add(text, "<td>");
    if (json_is_boolean(value))
        report_add(text, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_string(value))
        report_add_escaped(text, json_string_value(value));
    else if (!json_is_number(value))
        report_add(text, "&ndash;");
    else if (f->unit == REPORT_BYTES)
        report_add(text, "%s", cli_bytes(x).text);
    else if (f->unit == REPORT_PERCENT)
        report_add(text, "%.0f %%", 100 * x);
    else if (f->unit == REPORT_MS)
        report_add(text, "%.*f ms", x < 10 ? 2 : x < 100 ? 1 : 0, x);
    else
        report_add(text, "%.0f", x);
    report_add(text, "</td>");
}

static void add_rows(report_text *text, const table *t)
{
    size_t index;
    const json_t *row;
    report_add(text, "<details><summary>All figures</summary><div class=\"wide\"><table>\n<tr>");
    for (int i = 0; i < t->count; i++)
        report_add(text, "<th>%s</th>", t->fields[i].heading);
    report_add(text, "</tr>\n");
    json_array_foreach(t->rows, index, row)
    {
        report_add(text, "<tr>");
        for (int i = 0; i < t->count; i++)
            add_cell(text, &t->fields[i], json_object_get(row, t->fields[i].key));
        report_add(text, "</tr>\n");
    }
    report_add(text, "</table></div></details>\n");
}

static void add_table(report_text *text, const table *t)
{
    if (json_array_size(t->rows) == 0)
        return;
    report_add(
        text,
        "<section><h2>%s</h2>\n<p>Both axes are logarithmic: cost linear in the length has slope 1, "
        "quadratic cost slope 2. Shares are of the matrix-multiply rate reached in the same run.</p>\n",
        t->title);
    add_groups(text, t);
    add_rows(text, t);
    report_add(text, "</section>\n");
}

void report_add_bench(report_text *text, const report *r)
{
    add_table(text, &(table){"One training step", training_fields, CLI_COUNT(training_fields), r->training});
    add_table(text,
              &(table){"One attention call", attention_fields, CLI_COUNT(attention_fields), r->attention});
}
