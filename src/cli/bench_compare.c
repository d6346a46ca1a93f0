/* cli/bench_compare.c: `favor bench compare`: the rows of two runs of the same benchmark side by side.
 *
 * Rows belong together when all they were asked for is the same (`keys`). What counts is the share of the roof
 * measured in the same run, since machines drift: a row is slower when its share fell, or its time rose where it has
 * no share (identity does no work). The interval of a ratio comes from the spread of either row: its smallest time against
 * the other's largest, and the other way round. A row whose whole interval lies above 1 became slower beyond the
 * spread, below 1 faster.
 */
#include "bench.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cli_option options[] = {
    {.name = "fail-above",
     .type = CLI_REAL,
     .metavar = "PERCENT",
     .min = 0,
     .max = 1e9,
     .help = "exit code 1 if a row became slower than its spread explains and by more than this"},
};
static const cli_group own = {"Comparison", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {&own, &cli_common_group, NULL};

/* ---- rows ------------------------------------------------------------------------------------------------ */

/* What a row was asked for; a field that is not there is empty. */
static const struct {
    const char *name;
    int width;
} keys[] = {
    {"model", 8},    {"kind", 12},    {"causal", 6},  {"task", 5},    {"pass", 16},    {"length", 8},
    {"position", 8}, {"batch", 5},    {"layers", 6},  {"d_model", 7}, {"heads", 5},    {"dim", 4},
    {"ffn", 5},      {"features", 8}, {"threads", 7}, {"dtype", 5},   {"options", 12},
};

/* What it reached. */
typedef struct measured {
    double median, min, max; /* ms */
    double share;            /* of the roof; 0: none */
    double bytes;            /* 0: unknown */
} measured;

static const struct {
    const char *time, *share;
} measures[] = {{"ms_median", "share_of_peak"}, {"ms_per_token", "share_of_bandwidth"}};

/* One of the two lists. */
typedef struct side {
    const char *name; /* its file */
    const json_t *rows;
} side;

static bool is_empty(const json_t *value)
{
    return value == NULL || json_is_null(value) || (json_is_string(value) && json_string_length(value) == 0);
}

static bool same_value(const json_t *a, const json_t *b)
{
    if (is_empty(a) || is_empty(b))
        return is_empty(a) && is_empty(b);
    if (json_is_number(a) && json_is_number(b))
        return json_number_value(a) == json_number_value(b);
    return json_equal(a, b) != 0;
}

static bool same_row(const json_t *a, const json_t *b)
{
    for (int i = 0; i < CLI_COUNT(keys); i++)
        if (!same_value(json_object_get(a, keys[i].name), json_object_get(b, keys[i].name)))
            return false;
    return true;
}

static double number(const json_t *row, const char *key)
{
    return json_number_value(json_object_get(row, key));
}

/* False: no row of a benchmark. */
static bool read_measured(const json_t *row, measured *m)
{
    for (int i = 0; i < CLI_COUNT(measures); i++) {
        *m = (measured){.median = number(row, measures[i].time),
                        .min = number(row, "ms_min"),
                        .max = number(row, "ms_max"),
                        .share = number(row, measures[i].share),
                        .bytes = number(row, "peak_bytes")};
        if (m->min > 0 && m->min <= m->median && m->median <= m->max && isfinite(m->max))
            return json_is_string(json_object_get(row, "kind"));
    }
    return false;
}

/* Every row must hold what is compared. */
static fv_status check_rows(const char *name, const json_t *rows)
{
    size_t index;
    const json_t *row;
    measured m;
    if (!json_is_array(rows) || json_array_size(rows) == 0)
        return cli_fail(FV_ERR_FILE,
                        "%s: expected a list of benchmark rows, as favor bench --json prints them", name);
    json_array_foreach(rows, index, row)
    {
        if (!read_measured(row, &m))
            return cli_fail(
                FV_ERR_FILE,
                "%s: row %zu lacks kind, ms_median (or ms_per_token), ms_min or ms_max, or they are "
                "not in order",
                name, index + 1);
    }
    return FV_OK;
}

static fv_status read_rows(const char *path, json_t **rows)
{
    CLI_TRY(cli_json_read(path, rows));
    return check_rows(path, *rows);
}

/* ---- pairs ----------------------------------------------------------------------------------------------- */

/* A ratio, and where the spread of both sides lets it lie. */
typedef struct ratio {
    double value, low, high;
} ratio;

typedef struct pair {
    ratio time;  /* second to first, of milliseconds */
    ratio share; /* of shares; NaN where one of them is none */
    ratio slowdown;
} pair;

static pair compare_rows(const measured *a, const measured *b)
{
    pair p = {.time = {b->median / a->median, b->min / a->max, b->max / a->min},
              .share = {(double)NAN, (double)NAN, (double)NAN}};
    p.slowdown = p.time;
    if (!(a->share > 0 && b->share > 0))
        return p;
    /* A share is work over time, over the roof: its spread is that of the time. */
    double share = b->share / a->share, times = p.time.value;
    p.share = (ratio){share, share * times / p.time.high, share * times / p.time.low};
    p.slowdown = (ratio){1 / share, 1 / p.share.high, 1 / p.share.low};
    return p;
}

static const char *verdict_of(const pair *p)
{
    return p->slowdown.low > 1 ? "slower" : p->slowdown.high < 1 ? "faster" : "same";
}

typedef struct comparison {
    side first, second;
    json_t *rows, *only_first, *only_second;
    int slower, faster;
    double worst; /* slowdown of the rows marked slower, 1: none */
} comparison;

/* The keys that a row has. */
static json_t *copy_keys(const json_t *row)
{
    json_t *copy = json_object();
    for (int i = 0; i < CLI_COUNT(keys); i++)
        if (!is_empty(json_object_get(row, keys[i].name)))
            json_object_set(copy, keys[i].name, json_object_get(row, keys[i].name));
    return copy;
}

static void set_ratio(json_t *row, const char *name, const ratio *r)
{
    const struct {
        const char *suffix;
        double value;
    } fields[] = {{"", r->value}, {"_low", r->low}, {"_high", r->high}};
    for (int i = 0; i < CLI_COUNT(fields); i++) {
        char key[64];
        snprintf(key, sizeof key, "%s%s", name, fields[i].suffix);
        json_object_set_new(row, key, cli_json_real(fields[i].value));
    }
}

static void add_pair(comparison *c, const json_t *first, const json_t *second)
{
    measured a, b;
    json_t *row = copy_keys(first);
    read_measured(first, &a);
    read_measured(second, &b);
    pair p = compare_rows(&a, &b);
    json_object_set_new(row, "ms_first", json_real(a.median));
    json_object_set_new(row, "ms_second", json_real(b.median));
    set_ratio(row, "ms_ratio", &p.time);
    json_object_set_new(row, "share_first", cli_json_real(a.share > 0 ? a.share : (double)NAN));
    json_object_set_new(row, "share_second", cli_json_real(b.share > 0 ? b.share : (double)NAN));
    set_ratio(row, "share_ratio", &p.share);
    json_object_set_new(row, "peak_bytes_ratio",
                        cli_json_real(a.bytes > 0 ? b.bytes / a.bytes : (double)NAN));
    json_object_set_new(row, "verdict", json_string(verdict_of(&p)));
    json_array_append_new(c->rows, row);
    c->slower += p.slowdown.low > 1;
    c->faster += p.slowdown.high < 1;
    if (p.slowdown.low > 1)
        c->worst = fmax(c->worst, p.slowdown.value);
}

/* Each row of the first list with the first row of the second that is like it and has no partner yet. */
static fv_status match_rows(comparison *c)
{
    size_t count = json_array_size(c->second.rows), i;
    const json_t *row;
    bool *taken = calloc(count, sizeof *taken);
    if (taken == NULL)
        return cli_fail(FV_ERR_RESOURCE, "out of memory");
    json_array_foreach(c->first.rows, i, row)
    {
        size_t j = 0;
        while (j < count && (taken[j] || !same_row(row, json_array_get(c->second.rows, j))))
            j++;
        if (j == count) {
            json_array_append_new(c->only_first, copy_keys(row));
            continue;
        }
        taken[j] = true;
        add_pair(c, row, json_array_get(c->second.rows, j));
    }
    json_array_foreach(c->second.rows, i, row) if (!taken[i])
        json_array_append_new(c->only_second, copy_keys(row));
    free(taken);
    return FV_OK;
}

/* ---- printing -------------------------------------------------------------------------------------------- */

static const char *const origin[] = {"favor", "machine", "kernels", "gemm", "date"};

static json_t *describe_side(const side *s)
{
    json_t *about = json_pack("{s:s}", "file", s->name);
    for (int i = 0; i < CLI_COUNT(origin); i++)
        json_object_set(about, origin[i], json_object_get(json_array_get(s->rows, 0), origin[i]));
    return about;
}

static fv_status print_json(const comparison *c)
{
    return cli_json_print(json_pack("{s:o, s:o, s:O, s:O, s:O, s:i, s:i}", "first", describe_side(&c->first),
                                    "second", describe_side(&c->second), "rows", c->rows, "only_first",
                                    c->only_first, "only_second", c->only_second, "slower", c->slower,
                                    "faster", c->faster));
}

/* "FILE: favor 0.1.0, AMD EPYC, kernels avx512, ..." */
static void print_side(const side *s)
{
    const json_t *row = json_array_get(s->rows, 0);
    fprintf(stderr, "%s:", s->name);
    for (int i = 0; i < CLI_COUNT(origin); i++) {
        const char *value = json_string_value(json_object_get(row, origin[i]));
        bool named = strcmp(origin[i], "machine") != 0 && strcmp(origin[i], "date") != 0;
        if (value != NULL)
            fprintf(stderr, "%s%s%s %s", i > 0 ? "," : "", named ? " " : "", named ? origin[i] : "", value);
    }
    fputc('\n', stderr);
}

static bool varies(const json_t *rows, const char *key)
{
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row)
    {
        if (!same_value(json_object_get(row, key), json_object_get(json_array_get(rows, 0), key)))
            return true;
    }
    return false;
}

typedef struct label {
    char text[512];
} label;

static label text_of(const json_t *value)
{
    label text;
    if (json_is_number(value))
        snprintf(text.text, sizeof text.text, "%.10g", json_number_value(value));
    else if (json_is_boolean(value))
        snprintf(text.text, sizeof text.text, "%s", json_is_true(value) ? "yes" : "no");
    else
        snprintf(text.text, sizeof text.text, "%s", is_empty(value) ? "-" : json_string_value(value));
    return text;
}

/* What all rows have in common, once. */
static void print_common(const json_t *rows)
{
    const json_t *row = json_array_get(rows, 0);
    const char *before = "in all rows: ";
    for (int i = 0; i < CLI_COUNT(keys); i++) {
        const json_t *value = json_object_get(row, keys[i].name);
        if (is_empty(value) || varies(rows, keys[i].name))
            continue;
        printf("%s%s %s", before, keys[i].name, text_of(value).text);
        before = ", ";
    }
    printf("%s", before[0] == ',' ? "\n\n" : "");
}

/* The keys in which rows differ, then the figures. */
static void print_pairs(const json_t *rows)
{
    static const bench_column figures[] = {
        {"ms_first", "ms before", 9, BENCH_MS},         {"ms_second", "ms after", 9, BENCH_MS},
        {"ms_ratio", "ratio", 6, BENCH_SHARE},          {"ms_ratio_low", "from", 6, BENCH_SHARE},
        {"ms_ratio_high", "to", 6, BENCH_SHARE},        {"share_first", "share", 6, BENCH_SHARE},
        {"share_second", "after", 6, BENCH_SHARE},      {"share_ratio", "ratio", 6, BENCH_SHARE},
        {"share_ratio_low", "from", 6, BENCH_SHARE},    {"share_ratio_high", "to", 6, BENCH_SHARE},
        {"peak_bytes_ratio", "memory", 6, BENCH_SHARE}, {"verdict", "verdict", 7, BENCH_TEXT},
    };
    bench_column columns[CLI_COUNT(keys) + CLI_COUNT(figures)];
    int count = 0;
    for (int i = 0; i < CLI_COUNT(keys); i++)
        if (varies(rows, keys[i].name))
            columns[count++] = (bench_column){
                keys[i].name, keys[i].name, keys[i].width,
                json_is_number(json_object_get(json_array_get(rows, 0), keys[i].name)) ? BENCH_INT
                                                                                       : BENCH_TEXT};
    memcpy(columns + count, figures, sizeof figures);
    bench_print_table(rows, columns, count + CLI_COUNT(figures));
}

static void print_alone(const char *file, const json_t *rows)
{
    size_t index;
    const json_t *row, *value;
    json_array_foreach(rows, index, row)
    {
        printf("only in %s:", file);
        for (int i = 0; i < CLI_COUNT(keys); i++)
            if (!is_empty(value = json_object_get(row, keys[i].name)))
                printf(" %s=%s", keys[i].name, text_of(value).text);
        putchar('\n');
    }
}

static void print_text(const comparison *c)
{
    print_side(&c->first);
    print_side(&c->second);
    print_common(c->rows);
    print_pairs(c->rows);
    print_alone(c->first.name, c->only_first);
    print_alone(c->second.name, c->only_second);
    printf("\n%zu rows compared: %d slower, %d faster beyond the spread\n", json_array_size(c->rows),
           c->slower, c->faster);
}

static fv_status judge(const cli_args *args, const comparison *c)
{
    double percent = 100 * (c->worst - 1);
    if (!cli_given(args, "fail-above") || !(percent > cli_real(args, "fail-above")))
        return FV_OK;
    return cli_fail(FV_ERR_FAILED, "a row became slower by %.1f %%, more than the %s %% of --fail-above",
                    percent, cli_text(args, "fail-above"));
}

/* ---- the command ----------------------------------------------------------------------------------------- */

static fv_status compare(const cli_args *args, const side *first, const side *second)
{
    comparison c = {*first, *second, json_array(), json_array(), json_array(), 0, 0, 1};
    fv_status status = match_rows(&c);
    if (status == FV_OK && json_array_size(c.rows) == 0)
        status = cli_fail(FV_ERR_FILE, "%s and %s have no row in common", first->name, second->name);
    if (status == FV_OK && cli_flag(args, "json"))
        status = print_json(&c);
    else if (status == FV_OK)
        print_text(&c);
    if (status == FV_OK)
        status = judge(args, &c);
    json_decref(c.rows);
    json_decref(c.only_first);
    json_decref(c.only_second);
    return status;
}

static fv_status compare_files(const cli_args *args, const char *first, const char *second)
{
    json_t *a = NULL, *b = NULL;
    fv_status status = read_rows(first, &a);
    if (status == FV_OK)
        status = read_rows(second, &b);
    if (status == FV_OK)
        status = compare(args, &(side){first, a}, &(side){second, b});
    json_decref(a);
    json_decref(b);
    return status;
}

bool bench_compares_files(const cli_args *args)
{
    return cli_count(args, "compare") == 2;
}

fv_status bench_compare_given(const cli_args *args)
{
    return compare_files(args, cli_item(args, "compare", 0), cli_item(args, "compare", 1));
}

fv_status bench_compare_read(const cli_args *args, json_t **rows)
{
    int count = cli_count(args, "compare");
    if (count > 2)
        return cli_fail(FV_ERR_USAGE, "--compare: %d files, expected one or two", count);
    if (count == 0 && cli_given(args, "fail-above"))
        return cli_fail(FV_ERR_USAGE, "--fail-above: expected --compare too");
    return count == 1 ? read_rows(cli_item(args, "compare", 0), rows) : FV_OK;
}

fv_status bench_compare_run(const cli_args *args, const json_t *before, const json_t *rows)
{
    return compare(args, &(side){cli_item(args, "compare", 0), before}, &(side){"this run", rows});
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    (void)ctx;
    return compare_files(args, cli_operand(args, 0), cli_operand(args, 1));
}

const cli_command cli_bench_compare = {
    .name = "bench compare",
    .alias = "bench --compare",
    .summary = "hold the rows of two benchmarks against each other",
    .operands = "FIRST SECOND",
    .min_operands = 2,
    .max_operands = 2,
    .description =
        "FIRST and SECOND are what any `favor bench ... --json` printed. Rows that were asked for the same "
        "are "
        "compared: the ratio of their times and that of their shares of the rate measured in the same run, "
        "which "
        "machines that drift do not spoil, each with the interval that the smallest and largest times allow. "
        "A row "
        "is marked slower or faster when this interval lies wholly on one side of 1. Rows without a partner "
        "are "
        "listed.\n"
        "\n"
        "The exit code is 0 whatever the rows say, but 1 with --fail-above PERCENT when a row is marked "
        "slower and its "
        "median by more than this; 3 when a file is none of benchmark rows or the two have none in common.",
    .examples = "favor bench attention --json >before.json\n"
                "favor bench compare before.json after.json --fail-above 5\n"
                "favor bench attention --compare before.json",
    .groups = groups,
    .run = run,
};
