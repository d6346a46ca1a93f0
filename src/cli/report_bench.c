/* cli/report_bench.c: benchmarks: cost against length or position, on log-log axes, where a straight line of
 * slope 1 is linear cost and of slope 2 quadratic; then every row, and what it was measured with. Rows that
 * differ in more than kind and length are kept apart. */
#include "report.h"
#include <math.h>
#include <string.h>

/* A column of the tables of rows, and of what tells groups apart. */
typedef struct field {
    const char *key, *heading;
    bool group; /* rows of one chart agree in it */
    report_unit unit;
} field;

/* Of all benchmarks, in the order of columns; a table shows those that its rows have. */
static const field fields[] = {
    {"model", "model", true, REPORT_PLAIN},
    {"kind", "kind", false, REPORT_PLAIN},
    {"causal", "causal", true, REPORT_PLAIN},
    {"pass", "pass", true, REPORT_PLAIN},
    {"length", "length", false, REPORT_COUNT},
    {"position", "position", false, REPORT_COUNT},
    {"task", "task", true, REPORT_PLAIN},
    {"batch", "batch", true, REPORT_COUNT},
    {"layers", "layers", true, REPORT_COUNT},
    {"d_model", "channels", true, REPORT_COUNT},
    {"heads", "heads", true, REPORT_COUNT},
    {"dim", "head width", true, REPORT_COUNT},
    {"ffn", "feed-forward", true, REPORT_COUNT},
    {"features", "features", false, REPORT_COUNT},
    {"threads", "threads", true, REPORT_COUNT},
    {"dtype", "dtype", true, REPORT_PLAIN},
    {"options", "options", true, REPORT_PLAIN},
    {"ms_median", "median", false, REPORT_MS},
    {"ms_per_token", "a token", false, REPORT_MS},
    {"ms_min", "smallest", false, REPORT_MS},
    {"ms_max", "largest", false, REPORT_MS},
    {"tokens_per_s", "tokens/s", false, REPORT_COUNT},
    {"prefill_tokens_per_s", "prompt tokens/s", false, REPORT_COUNT},
    {"gflops", "GFLOP/s", false, REPORT_COUNT},
    {"share_of_peak", "of P", false, REPORT_PERCENT},
    {"machine_share", "P then", false, REPORT_PERCENT},
    {"bytes_per_token", "it reads", false, REPORT_BYTES},
    {"bandwidth_gbs", "GB/s", false, REPORT_PLAIN},
    {"share_of_bandwidth", "of memory's rate", false, REPORT_PERCENT},
    {"peak_bytes", "memory", false, REPORT_BYTES},
    {"memory_bytes", "to fit into", false, REPORT_BYTES},
    {"max_length", "longest that fits", false, REPORT_COUNT},
};

/* One chart a group. */
typedef struct view {
    const char *key, *low, *high; /* a band from low to high; NULL: none */
    const char *title;
    report_unit unit;
    bool cost; /* log-log, with guides; else a share over log lengths, from 0 */
} view;

enum { VIEWS = 3 };

typedef struct table {
    const char *title, *words;
    const char *x, *x_label;
    view views[VIEWS];
} table;

#define COST_WORDS                                                                                           \
    "Axes of time and memory are logarithmic: cost linear in the length has slope 1, quadratic cost slope "  \
    "2, the "                                                                                                \
    "thin lines. Bands reach from the smallest to the largest time."
#define PEAK_WORDS " Shares are of the matrix-multiply rate P reached in the same run."

static const table tables[REPORT_BENCHES] = {
    [REPORT_TRAINING] = {"One training step",
                         COST_WORDS PEAK_WORDS,
                         "length",
                         "tokens",
                         {{"ms_median", "ms_min", "ms_max", "Time", REPORT_MS, true},
                          {"peak_bytes", NULL, NULL, "Peak memory", REPORT_BYTES, true},
                          {"share_of_peak", NULL, NULL, "Share of P", REPORT_PERCENT, false}}},
    [REPORT_ATTENTION] = {"One attention call",
                          COST_WORDS PEAK_WORDS,
                          "length",
                          "tokens",
                          {{"ms_median", "ms_min", "ms_max", "Time", REPORT_MS, true},
                           {"peak_bytes", NULL, NULL, "Peak memory", REPORT_BYTES, true},
                           {"share_of_peak", NULL, NULL, "Share of P", REPORT_PERCENT, false}}},
    [REPORT_DECODE] = {"One token of a stream",
                       COST_WORDS
                       " Shares are of the rate at which memory is read, measured in the same run; above "
                       "100 % the weights stay in caches.",
                       "position",
                       "position",
                       {{"ms_per_token", "ms_min", "ms_max", "Time a token", REPORT_MS, true},
                        {"bytes_per_token", NULL, NULL, "Bytes a token reads", REPORT_BYTES, true},
                        {"share_of_bandwidth", NULL, NULL, "Share of memory's rate", REPORT_PERCENT, false}}},
    [REPORT_LENGTHS] =
        {"Models over lengths",
         "After figure 3 of the Performer paper; identity is its X (OPT), attention that returns "
         "the values. " COST_WORDS PEAK_WORDS,
         "length",
         "tokens",
         {{"ms_median", "ms_min", "ms_max", "Time", REPORT_MS, true},
          {"peak_bytes", NULL, NULL, "Peak memory", REPORT_BYTES, true},
          {"share_of_peak", NULL, NULL, "Share of P", REPORT_PERCENT, false}}},
};

/* What tells rows of the benchmarks apart: the first of these fields that a row has. */
static const struct {
    const char *mark;
    report_bench bench;
} marks[] = {{"model", REPORT_LENGTHS},
             {"position", REPORT_DECODE},
             {"layers", REPORT_TRAINING},
             {"length", REPORT_ATTENTION}};

report_bench report_bench_of(const json_t *row)
{
    int i = 0;
    while (i < CLI_COUNT(marks) && json_object_get(row, marks[i].mark) == NULL)
        i++;
    if (i == CLI_COUNT(marks) || !json_is_string(json_object_get(row, "kind")) ||
        !json_is_number(json_object_get(row, tables[marks[i].bench].x)))
        return REPORT_BENCHES;
    return marks[i].bench;
}

/* ---- groups -------------------------------------------------------------------------------------- */

typedef struct label {
    char text[512];
} label;

static bool is_missing(const json_t *value)
{
    return value == NULL || json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0);
}

/* "causal, forward, heads 8, head width 64, threads 2, f32" */
static label group_of(const json_t *row)
{
    label name = {""};
    for (int i = 0; i < CLI_COUNT(fields); i++) {
        const field *f = &fields[i];
        const json_t *value = json_object_get(row, f->key);
        size_t used = strlen(name.text);
        const char *comma = used > 0 ? ", " : "";
        if (!f->group || is_missing(value))
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

static bool same_group(const json_t *a, const json_t *b)
{
    return strcmp(group_of(a).text, group_of(b).text) == 0;
}

/* Whether an earlier row has the group of row `index`. */
static bool is_known(const json_t *rows, size_t index)
{
    for (size_t i = 0; i < index; i++)
        if (same_group(json_array_get(rows, i), json_array_get(rows, index)))
            return true;
    return false;
}

static double number(const json_t *row, const char *key)
{
    const json_t *value = key != NULL ? json_object_get(row, key) : NULL;
    return json_is_number(value) ? json_number_value(value) : (double)NAN;
}

static const char *string(const json_t *row, const char *key)
{
    const char *value = json_string_value(json_object_get(row, key));
    return value != NULL ? value : "";
}

/* A line of the chart: the kind, with its features where rows of the group differ in them. */
static label series_of(const json_t *rows, const json_t *row)
{
    label name;
    size_t index;
    const json_t *other, *kind = json_object_get(row, "kind");
    double features = number(row, "features");
    snprintf(name.text, sizeof name.text, "%s", json_string_value(kind));
    json_array_foreach(rows, index, other)
    {
        if (number(other, "features") == features || !json_equal(json_object_get(other, "kind"), kind) ||
            !same_group(other, row))
            continue;
        snprintf(name.text, sizeof name.text, "%s, %.0f features", json_string_value(kind), features);
        return name;
    }
    return name;
}

static void add_chart(report_text *text, const table *t, const json_t *rows, const json_t *first,
                      const view *v)
{
    report_chart chart = {.title = v->title,
                          .x_label = t->x_label,
                          .x_unit = REPORT_COUNT,
                          .y_unit = v->unit,
                          .log = v->cost,
                          .log_x = true,
                          .from_zero = !v->cost,
                          .guides = v->cost};
    size_t index;
    const json_t *row;
    json_array_foreach(rows, index, row)
    {
        if (!same_group(row, first))
            continue;
        double y = number(row, v->key), low = number(row, v->low), high = number(row, v->high);
        report_series *series = report_series_of(&chart, series_of(rows, row).text);
        report_point_add_band(&chart, series, number(row, t->x), y, low, high);
    }
    report_chart_write(text, &chart);
}

static void add_groups(report_text *text, const table *t, const json_t *rows)
{
    size_t index;
    const json_t *row;
    json_array_foreach(rows, index, row)
    {
        if (is_known(rows, index))
            continue;
        report_add(text, "<h3>");
        report_add_escaped(text, group_of(row).text);
        report_add(text, "</h3>\n<div class=\"charts\">\n");
        for (int v = 0; v < VIEWS; v++)
            add_chart(text, t, rows, row, &t->views[v]);
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
    else if (is_missing(value))
        report_add(text, "&ndash;");
    else if (json_is_string(value))
        report_add_escaped(text, json_string_value(value));
    else if (f->unit == REPORT_BYTES)
        report_add(text, "%s", cli_bytes(x).text);
    else if (f->unit == REPORT_PERCENT)
        report_add(text, "%.0f %%", 100 * x);
    else if (f->unit == REPORT_MS)
        report_add(text, "%.*f ms", x < 10 ? 2 : x < 100 ? 1 : 0, x);
    else if (f->unit == REPORT_PLAIN)
        report_add(text, "%.4g", x);
    else
        report_add(text, "%.0f", x);
    report_add(text, "</td>");
}

static bool some_have(const json_t *rows, const field *f)
{
    size_t index;
    const json_t *row;
    json_array_foreach(rows, index, row)
    {
        if (json_object_get(row, f->key) != NULL)
            return true;
    }
    return false;
}

static void add_rows(report_text *text, const json_t *rows, bool open)
{
    size_t index;
    const json_t *row;
    bool shown[CLI_COUNT(fields)];
    report_add(text, "<details%s><summary>All figures</summary><div class=\"wide\"><table>\n<tr>",
               open ? " open" : "");
    for (int i = 0; i < CLI_COUNT(fields); i++)
        if ((shown[i] = some_have(rows, &fields[i])))
            report_add(text, "<th>%s</th>", fields[i].heading);
    report_add(text, "</tr>\n");
    json_array_foreach(rows, index, row)
    {
        report_add(text, "<tr>");
        for (int i = 0; i < CLI_COUNT(fields); i++)
            if (shown[i])
                add_cell(text, &fields[i], json_object_get(row, fields[i].key));
        report_add(text, "</tr>\n");
    }
    report_add(text, "</table></div></details>\n");
}

/* ---- longest sequences ------------------------------------------------------------------------------- */

/* "regular exact, 2 threads, f32: 41210 tokens in 4.00 GiB"; empty for rows of other benchmarks. */
static label longest_of(const json_t *row)
{
    label text = {""};
    double longest = number(row, "max_length");
    if (isfinite(longest))
        snprintf(text.text, sizeof text.text, "%s %s, threads %.0f, %s: %.0f tokens in %s",
                 string(row, "model"), string(row, "kind"), number(row, "threads"), string(row, "dtype"),
                 longest, cli_bytes(number(row, "memory_bytes")).text);
    return text;
}

/* ---- what they were measured with ------------------------------------------------------------------------ */

/* "AMD EPYC, kernels avx512, oneDNN 2.6.3, favor 0.1.0, 2026-11-23T08:00:00Z: P = 224.1 GFLOP/s on 2 threads";
 * empty for rows that do not say it. */
static label setting_of(const json_t *row)
{
    label text = {""};
    double peak = number(row, "sgemm_gflops"), read = number(row, "read_gbs");
    double threads = number(row, "threads");
    bool is_peak = isfinite(peak);
    if (string(row, "machine")[0] != '\0')
        snprintf(text.text, sizeof text.text, "%s, kernels %s, %s, favor %s, %s: %s %.1f %s on %.0f %s",
                 string(row, "machine"), string(row, "kernels"), string(row, "gemm"), string(row, "favor"),
                 string(row, "date"), is_peak ? "P =" : "memory is read at", is_peak ? peak : read,
                 is_peak ? "GFLOP/s" : "GB/s", threads, threads > 1 ? "threads" : "thread");
    return text;
}

/* What `say` tells of the rows, each of it once, as a list under `heading`. */
static void add_once(report_text *text, const char *heading, const json_t *rows,
                     label (*say)(const json_t *row))
{
    size_t index;
    const json_t *row;
    bool begun = false;
    json_array_foreach(rows, index, row)
    {
        label words = say(row);
        bool known = words.text[0] == '\0';
        for (size_t i = 0; i < index && !known; i++)
            known = strcmp(say(json_array_get(rows, i)).text, words.text) == 0;
        if (known)
            continue;
        report_add(text, "%s%s%s<li>", begun ? "" : "<h3>", begun ? "" : heading, begun ? "" : "</h3>\n<ul>");
        report_add_escaped(text, words.text);
        report_add(text, "</li>\n");
        begun = true;
    }
    report_add(text, begun ? "</ul>\n" : "");
}

/* ---- sections -------------------------------------------------------------------------------------------- */

static void add_table(report_text *text, const table *t, const json_t *rows, bool open)
{
    if (json_array_size(rows) == 0)
        return;
    report_add(text, "<section><h2>%s</h2>\n<p>%s</p>\n", t->title, t->words);
    add_groups(text, t, rows);
    add_once(text, "Longest sequence of which a training step fits into memory", rows, longest_of);
    add_rows(text, rows, open);
    add_once(text, "Measured with", rows, setting_of);
    report_add(text, "</section>\n");
}

void report_add_bench(report_text *text, const report *r)
{
    for (int i = 0; i < REPORT_BENCHES; i++)
        add_table(text, &tables[i], r->bench[i], r->open);
}

/* A word as a shell reads it. */
static void add_word(report_text *text, const char *word)
{
    bool plain = word[0] != '\0' && strpbrk(word, " \t\n'\"\\$&;|<>()*?[]#~`!{}") == NULL;
    report_add(text, plain ? " " : " '");
    for (const char *quote; !plain && (quote = strchr(word, '\'')) != NULL; word = quote + 1) {
        label piece;
        snprintf(piece.text, sizeof piece.text, "%.*s", (int)(quote - word), word);
        report_add_escaped(text, piece.text);
        report_add(text, "'\\''");
    }
    report_add_escaped(text, word);
    report_add(text, plain ? "" : "'");
}

fv_status report_bench_page(fv_context *ctx, const char *path, const cli_args *args, json_t *rows)
{
    report r = {.open = true};
    report_text text = {0};
    const char *command = cli_args_command(args)->name;
    r.bench[report_bench_of(json_array_get(rows, 0))] = rows;
    report_add_head(&text, command);
    report_add(&text, "<p><code>favor %s", command);
    for (char *const *word = cli_words(args); *word != NULL; word++)
        add_word(&text, *word);
    report_add(&text, "</code></p>\n");
    report_add_bench(&text, &r);
    report_add_foot(&text, command);
    fv_status status = report_write(ctx, path, &text);
    report_free(&text);
    return status;
}
