/* cli/bench_output.c: where the rows of a benchmark go: to standard output as a table, as JSON or beside other
 * rows; to files as JSON and as a page. */
#include "bench.h"
#include "report.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const cli_option options[] = {
    {.name = "out", .type = CLI_FILE, .help = "write the rows as JSON too, as --json prints them"},
    {.name = "html",
     .type = CLI_FILE,
     .help = "write charts and rows as a page that needs nothing but itself"},
    {.name = "compare",
     .type = CLI_FILES,
     .help = "rows of an earlier run: print these beside it, as `favor bench compare` does; with two files, "
             "measure nothing and compare them"},
    {.name = "fail-above",
     .type = CLI_REAL,
     .metavar = "PERCENT",
     .min = 0,
     .max = 1e9,
     .help =
         "with --compare: exit code 1 if a row became slower than its spread explains and by more than this"},
};
const cli_group bench_output_group = {"Output", options, CLI_COUNT(options)};

/* ---- what rows were measured with ---------------------------------------------------------------------- */

static void append(char *text, size_t bytes, const char *name, const char *value)
{
    size_t used = strlen(text);
    snprintf(text + used, bytes - used, "%s%s=%s", used > 0 ? " " : "", name, value);
}

/* Whether rows say what the option says, under its name. */
static bool is_field(const json_t *row, const char *option)
{
    char name[64];
    snprintf(name, sizeof name, "%s", option);
    for (char *dash = name; (dash = strchr(dash, '-')) != NULL;)
        *dash = '_';
    return json_object_get(row, name) != NULL;
}

/* "projection=iid gate=true": the settings given that are no field of the rows. */
static void list_settings(const cli_args *args, const json_t *row, char *text, size_t bytes)
{
    int group = 0, at = 0;
    const cli_option *option;
    text[0] = '\0';
    while ((option = cli_option_next(cli_args_command(args), &group, &at)) != NULL) {
        bool setting = option->key != NULL || option->type == CLI_PAIRS;
        if (!setting || option->type == CLI_LIST || is_field(row, option->name))
            continue;
        for (int i = 0; i < cli_count(args, option->name); i++)
            append(text, bytes, option->name, cli_item(args, option->name, i));
    }
}

void bench_describe(const bench *b)
{
    char processor[128], settings[512], date[32] = "";
    time_t now = time(NULL);
    struct tm utc;
    size_t index;
    json_t *row;
    fv_cpu_model(processor, sizeof processor);
    list_settings(b->args, json_array_get(b->rows, 0), settings, sizeof settings);
    if (gmtime_r(&now, &utc) != NULL)
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", &utc);
    json_array_foreach(b->rows, index, row)
    {
        const char *const fields[][2] = {
            {"options", settings},
            {"machine", processor},
            {"kernels", fv_context_cpu(b->ctx[0])},
            {"gemm", fv_context_gemm(b->ctx[0])},
            {"favor", fv_version()},
            {"date", date},
        };
        for (int i = 0; i < CLI_COUNT(fields); i++)
            json_object_set_new(row, fields[i][0], json_string(fields[i][1]));
    }
}

/* ---- files ----------------------------------------------------------------------------------------------- */

static fv_status write_json(const bench *b, const char *path)
{
    char *text = json_dumps(b->rows, CLI_JSON_FLAGS);
    if (text == NULL)
        return FV_ERR_RESOURCE;
    size_t length = strlen(text);
    text[length++] = '\n'; /* where the NUL was */
    fv_status status = fv_file_write(b->ctx[0], path, text, length);
    free(text);
    return status;
}

static fv_status write_files(const bench *b)
{
    const char *out = cli_text(b->args, "out"), *html = cli_text(b->args, "html");
    fv_status status = out != NULL ? write_json(b, out) : FV_OK;
    if (status == FV_OK && html != NULL)
        status = report_bench_page(b->ctx[0], html, b->args, b->rows);
    return status == FV_OK ? FV_OK : cli_context_fail(b->ctx[0], status);
}

/* Files last, so that what was measured is seen even where they cannot be written; and also when the comparison
 * fails. */
fv_status bench_give_out(const bench *b, const bench_column *columns, int count)
{
    fv_status status = FV_OK;
    if (b->before != NULL)
        status = bench_compare_run(b->args, b->before, b->rows);
    else if (cli_flag(b->args, "json"))
        status = cli_json_print(json_incref(b->rows));
    else
        bench_print_table(b->rows, columns, count);
    fv_status files = write_files(b);
    return status != FV_OK ? status : files;
}
