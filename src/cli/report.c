/* cli/report.c: `favor report`: training runs, benchmarks, generated sequences and pictures on one page that
 * needs nothing but itself.
 *
 * An operand is a run directory (it holds metrics.jsonl) or a folder of runs. Beside a run's metrics its
 * config.json, trainer.json and eval.json (as `favor eval --json` prints it) are read when they are there; a
 * folder's summary.json likewise; pictures are the *.png of both.
 */
#include "report.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const cli_option options[] = {
    {.name = "output", .letter = 'o', .required = true, .type = CLI_FILE, .help = "HTML file to write"},
    {.name = "bench", .type = CLI_FILES, .help = "what `favor bench ... --json` printed"},
    {.name = "summary",
     .type = CLI_FILE,
     .help =
         "evaluations by run name, benchmarks and generated sequences (default: summary.json of the folder)"},
    {.name = "picture", .type = CLI_FILES, .help = "more PNG pictures"},
};
static const cli_group own = {"Report", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {&own, &cli_common_group, NULL};

/* ---- files --------------------------------------------------------------------------------------- */

typedef struct file_path {
    char text[4096];
} file_path;

/* A path too long to exist is the empty one. */
static file_path join(const char *folder, const char *name)
{
    file_path path;
    size_t length = strlen(folder);
    const char *slash = length > 0 && folder[length - 1] == '/' ? "" : "/";
    if (snprintf(path.text, sizeof path.text, "%s%s%s", folder, slash, name) >= (int)sizeof path.text)
        path.text[0] = '\0';
    return path;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* A whole JSON file; a missing one is NULL. */
static fv_status read_optional(const char *path, json_t **value)
{
    *value = NULL;
    return exists(path) ? cli_json_read(path, value) : FV_OK;
}

/* One object a line. A last line without its end is what an interrupted run leaves; it is left out. */
static fv_status read_lines(const char *path, json_t **list)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return cli_fail(FV_ERR_FILE, "%s: %s", path, strerror(errno));
    char *line = NULL;
    size_t size = 0;
    ssize_t length;
    fv_status status = FV_OK;
    *list = json_array();
    for (int number = 1; status == FV_OK && (length = getline(&line, &size, file)) > 0; number++) {
        json_error_t error;
        if (line[length - 1] != '\n')
            break;
        json_t *object = json_loads(line, 0, &error);
        if (object == NULL)
            status = cli_fail(FV_ERR_FILE, "%s:%d: %s", path, number, error.text);
        else
            json_array_append_new(*list, object);
    }
    free(line);
    fclose(file);
    return status;
}

/* ---- runs ------------------------------------------------------------------------------------------ */

/* The last word of a path: what a run is called. */
static file_path base_name(const char *path)
{
    file_path name;
    snprintf(name.text, sizeof name.text, "%s", path);
    size_t length = strlen(name.text);
    while (length > 1 && name.text[length - 1] == '/')
        name.text[--length] = '\0';
    const char *slash = strrchr(name.text, '/');
    if (slash != NULL && slash[1] != '\0')
        memmove(name.text, slash + 1, strlen(slash));
    return name;
}

static fv_status add_file(json_t *run, const char *key, const char *folder, const char *name)
{
    json_t *value;
    CLI_TRY(read_optional(join(folder, name).text, &value));
    if (value != NULL)
        json_object_set_new(run, key, value);
    return FV_OK;
}

static fv_status add_run(report *r, const char *folder)
{
    json_t *metrics = NULL, *run = json_pack("{s:s}", "name", base_name(folder).text);
    json_array_append_new(r->runs, run);
    fv_status status = read_lines(join(folder, "metrics.jsonl").text, &metrics);
    json_object_set_new(run, "metrics", metrics != NULL ? metrics : json_array());
    CLI_TRY(status);
    CLI_TRY(add_file(run, "config", folder, "config.json"));
    CLI_TRY(add_file(run, "trainer", folder, "trainer.json"));
    return add_file(run, "evaluation", folder, "eval.json");
}

static int no_dots(const struct dirent *entry)
{
    return entry->d_name[0] != '.';
}

static bool is_png(const char *name)
{
    size_t length = strlen(name);
    return length > 4 && strcmp(name + length - 4, ".png") == 0;
}

/* Takes in what stands in a folder: pictures and, when `deeper`, the runs below it. */
static fv_status add_entries(report *r, const char *folder, bool deeper)
{
    struct dirent **entries = NULL;
    int count = scandir(folder, &entries, no_dots, alphasort);
    fv_status status = count >= 0 ? FV_OK : cli_fail(FV_ERR_FILE, "%s: %s", folder, strerror(errno));
    for (int i = 0; i < count; i++) {
        file_path path = join(folder, entries[i]->d_name);
        if (status == FV_OK && is_png(entries[i]->d_name))
            json_array_append_new(r->pictures, json_string(path.text));
        else if (status == FV_OK && deeper && exists(join(path.text, "metrics.jsonl").text)) {
            status = add_run(r, path.text);
            if (status == FV_OK)
                status = add_entries(r, path.text, false);
        }
        free(entries[i]);
    }
    free(entries);
    return status;
}

/* ---- benchmarks and summaries -------------------------------------------------------------------- */

/* Rows of any benchmark. */
static fv_status add_rows(report *r, const char *path, const json_t *rows)
{
    size_t index;
    json_t *row;
    if (!json_is_array(rows))
        return cli_fail(FV_ERR_FILE,
                        "%s: expected a list of benchmark rows, as favor bench --json prints them", path);
    json_array_foreach(rows, index, row)
    {
        report_bench bench = report_bench_of(row);
        if (bench == REPORT_BENCHES)
            return cli_fail(FV_ERR_FILE, "%s: row %zu has no kind and length or position", path, index + 1);
        json_array_append(r->bench[bench], row);
    }
    return FV_OK;
}

static void add_evaluations(report *r, const json_t *summary)
{
    size_t index;
    json_t *run;
    json_array_foreach(r->runs, index, run)
    {
        const char *name = json_string_value(json_object_get(run, "name"));
        json_t *evaluation = json_object_get(summary, name);
        if (json_is_object(evaluation) && json_object_get(run, "evaluation") == NULL)
            json_object_set(run, "evaluation", evaluation);
    }
}

static fv_status add_summary(report *r, const char *path, bool with_bench)
{
    static const char *const benches[] = {"bench", "bench_train"};
    json_t *summary;
    CLI_TRY(cli_json_read(path, &summary));
    fv_status status =
        json_is_object(summary) ? FV_OK : cli_fail(FV_ERR_FILE, "%s: expected a JSON object", path);
    add_evaluations(r, summary);
    for (int i = 0; i < CLI_COUNT(benches) && with_bench && status == FV_OK; i++)
        if (json_object_get(summary, benches[i]) != NULL)
            status = add_rows(r, path, json_object_get(summary, benches[i]));
    if (json_is_array(json_object_get(summary, "generated")))
        json_array_extend(r->generated, json_object_get(summary, "generated"));
    json_decref(summary);
    return status;
}

static fv_status add_operand(report *r, const cli_args *args, const char *folder)
{
    bool is_run = exists(join(folder, "metrics.jsonl").text);
    size_t before = json_array_size(r->runs);
    file_path summary = join(folder, "summary.json");
    if (is_run)
        CLI_TRY(add_run(r, folder));
    CLI_TRY(add_entries(r, folder, !is_run));
    if (json_array_size(r->runs) == before)
        return cli_fail(FV_ERR_FILE, "%s: neither a run (metrics.jsonl) nor a folder of runs", folder);
    if (!cli_given(args, "summary") && exists(summary.text))
        return add_summary(r, summary.text, !cli_given(args, "bench"));
    return FV_OK;
}

static fv_status gather(report *r, const cli_args *args)
{
    for (int i = 0; i < cli_operand_count(args); i++)
        CLI_TRY(add_operand(r, args, cli_operand(args, i)));
    if (cli_given(args, "summary"))
        CLI_TRY(add_summary(r, cli_text(args, "summary"), !cli_given(args, "bench")));
    for (int i = 0; i < cli_count(args, "bench"); i++) {
        const char *path = cli_item(args, "bench", i);
        json_t *rows;
        CLI_TRY(cli_json_read(path, &rows));
        fv_status status = add_rows(r, path, rows);
        json_decref(rows);
        CLI_TRY(status);
    }
    for (int i = 0; i < cli_count(args, "picture"); i++)
        json_array_append_new(r->pictures, json_string(cli_item(args, "picture", i)));
    return FV_OK;
}

/* ---- the command --------------------------------------------------------------------------------- */

static fv_status write_page(fv_context *ctx, const cli_args *args, const report *r)
{
    report_text text = {0};
    report_add_head(&text, "report");
    report_add_runs(&text, r);
    report_add_generated(&text, r);
    report_add_bench(&text, r);
    fv_status status = report_add_pictures(&text, r);
    report_add_foot(&text, "report");
    if (status == FV_OK)
        status = report_write(ctx, cli_text(args, "output"), &text);
    report_free(&text);
    return status;
}

static size_t count_bench_rows(const report *r)
{
    size_t count = 0;
    for (int i = 0; i < REPORT_BENCHES; i++)
        count += json_array_size(r->bench[i]);
    return count;
}

static fv_status print_result(const cli_args *args, const report *r)
{
    if (!cli_flag(args, "json"))
        return FV_OK;
    return cli_json_print(json_pack(
        "{s:s, s:I, s:I, s:I, s:I}", "output", cli_text(args, "output"), "runs",
        (json_int_t)json_array_size(r->runs), "bench_rows", (json_int_t)count_bench_rows(r), "generated",
        (json_int_t)json_array_size(r->generated), "pictures", (json_int_t)json_array_size(r->pictures)));
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    report r = {.runs = json_array(), .generated = json_array(), .pictures = json_array()};
    for (int i = 0; i < REPORT_BENCHES; i++)
        r.bench[i] = json_array();
    fv_status status = gather(&r, args);
    if (status == FV_OK)
        status = write_page(ctx, args, &r);
    if (status == FV_OK)
        status = print_result(args, &r);
    for (int i = 0; i < REPORT_BENCHES; i++)
        json_decref(r.bench[i]);
    json_decref(r.runs);
    json_decref(r.generated);
    json_decref(r.pictures);
    return status;
}

const cli_command cli_report = {
    .name = "report",
    .summary = "write runs, benchmarks and pictures as one HTML page",
    .operands = "DIR...",
    .min_operands = 1,
    .max_operands = -1,
    .description =
        "Each DIR is a run of `favor train` or a folder of runs. The page holds learning curves beside the "
        "unigram baseline, benchmarks against length, generated sequences, and the PNG pictures that stand "
        "in "
        "the directories; it opens offline and prints.\n"
        "\n"
        "The baseline and held-out figures come from eval.json in a run (what `favor eval --json` prints) or "
        "from --summary, an object of such evaluations by run name, with benchmark rows in `bench` and "
        "`bench_train` and a list of sequences in `generated`.",
    .examples = "favor report runs/mlm runs/lm --bench bench.json -o report.html\n"
                "favor report runs/demo -o runs/demo/report.html",
    .groups = groups,
    .run = run,
};
