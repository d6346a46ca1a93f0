/* cli/bench.c: the frame of a benchmark: P, the sgemm rate of this machine, is measured before the first line
 * and after the last one in every context, and the better figure is what all shares of peak are against:
 * figures of shared machines drift, so only ratios within one run mean something. */
#include "bench.h"
#include <math.h>
#include <string.h>

#define PEAK_SECONDS 0.4

fv_status bench_numbers(const cli_args *args, const char *name, int64_t max, bench_list *list)
{
    int given = cli_count(args, name);
    if (given > BENCH_LIST_MAX)
        return cli_fail(FV_ERR_USAGE, "--%s: %d values, expected %d at most", name, given, BENCH_LIST_MAX);
    const char *text = given > 0 ? cli_item(args, name, 0) : cli_text(args, name);
    char item[24];
    list->count = 0;
    while (text != NULL) {
        size_t length = strcspn(text, ",");
        snprintf(item, sizeof item, "%.*s", (int)length, text);
        int64_t *number = &list->at[list->count++];
        if (length >= sizeof item || !cli_parse_int(item, number) || *number < 1 || *number > max)
            return cli_fail(FV_ERR_USAGE, "--%s %s: expected whole numbers from 1 to %lld", name, text,
                            (long long)max);
        if (given > 0)
            text = cli_item(args, name, list->count);
        else
            text = text[length] == ',' ? text + length + 1 : NULL;
    }
    return FV_OK;
}

bench_dtypes bench_read_dtypes(const cli_args *args)
{
    bench_dtypes list = {1, {"f32"}};
    int given = cli_given(args, "dtype") ? cli_count(args, "dtype") : 0;
    for (int i = 0; i < given && i < BENCH_LIST_MAX; i++)
        list.at[i] = cli_item(args, "dtype", i);
    list.count = given > BENCH_LIST_MAX ? BENCH_LIST_MAX : given > 0 ? given : 1;
    return list;
}

int bench_digit(int *rest, int radix)
{
    int digit = *rest % radix;
    *rest /= radix;
    return digit;
}

/* ---- peaks --------------------------------------------------------------------------------------- */

static void measure_peaks(bench *b)
{
    for (int i = 0; i < b->threads.count; i++) {
        double rate = fv_measure_sgemm(b->ctx[i], PEAK_SECONDS);
        b->peak[i] = rate > b->peak[i] ? rate : b->peak[i];
    }
}

fv_status bench_begin(bench *b, const cli_args *args, fv_context *ctx, int total)
{
    *b = (bench){.args = args, .total = total, .rows = json_array()};
    if (cli_given(args, "threads"))
        CLI_TRY(bench_numbers(args, "threads", 4096, &b->threads));
    else
        b->threads = (bench_list){1, {fv_context_threads(ctx)}};
    b->total *= b->threads.count;
    for (int i = 0; i < b->threads.count; i++)
        CLI_TRY(cli_context_create(&b->ctx[i], args, (int)b->threads.at[i]));
    measure_peaks(b);
    cli_progress_begin(&b->progress);
    return FV_OK;
}

void bench_free(bench *b)
{
    for (int i = 0; i < b->threads.count; i++)
        fv_context_destroy(b->ctx[i]);
    json_decref(b->rows);
}

/* ---- rows ---------------------------------------------------------------------------------------- */

void bench_pass(bench *b)
{
    double seconds = cli_now() - b->progress.begin;
    b->done++;
    fv_progress report = {.phase = "bench", .done = b->done, .total = b->total, .unit = "line"};
    report.rate = b->done / (seconds > 0 ? seconds : 1);
    report.seconds_left = seconds / b->done * (b->total - b->done);
    report.loss = (double)NAN;
    cli_progress_show(&b->progress, &report);
}

fv_status bench_add(bench *b, int which, json_t *row)
{
    if (row == NULL || json_array_append_new(b->rows, row) != 0)
        return cli_fail(FV_ERR_RESOURCE, "out of memory");
    json_object_set_new(row, "threads", json_integer(b->threads.at[which]));
    bench_pass(b);
    return FV_OK;
}

void bench_skip(bench *b, const char *line, const char *reason)
{
    cli_progress_clear(&b->progress);
    cli_note("%s: left out: %s", line, reason);
    b->skipped++;
    bench_pass(b);
}

static double peak_of(const bench *b, int64_t threads)
{
    for (int i = 0; i < b->threads.count; i++)
        if (b->threads.at[i] == threads)
            return b->peak[i];
    return 0;
}

static void fill_shares(bench *b)
{
    size_t index;
    json_t *row;
    json_array_foreach(b->rows, index, row)
    {
        double peak = peak_of(b, json_integer_value(json_object_get(row, "threads")));
        double rate = json_number_value(json_object_get(row, "gflops"));
        json_object_set_new(row, "share_of_peak", cli_json_real(peak > 0 ? rate / peak : (double)NAN));
    }
}

/* ---- printing ------------------------------------------------------------------------------------ */

static void print_machine(const bench *b)
{
    char processor[128];
    fv_cpu_model(processor, sizeof processor);
    fprintf(stderr, "favor %s, %s, kernels %s, gemm %s\n", fv_version(), processor, fv_context_cpu(b->ctx[0]),
            fv_context_gemm(b->ctx[0]));
    for (int i = 0; i < b->threads.count; i++)
        fprintf(stderr, "%ssgemm peak P on %lld %s: %.1f GFLOP/s", i > 0 ? ", " : "",
                (long long)b->threads.at[i], b->threads.at[i] == 1 ? "thread" : "threads", b->peak[i]);
    fputc('\n', stderr);
}

static void format_cell(char *text, size_t bytes, const json_t *value, bench_format format)
{
    double number = json_number_value(value);
    if (format == BENCH_TEXT)
        snprintf(text, bytes, "%s",
                 json_is_boolean(value) ? json_is_true(value) ? "yes" : "no" : json_string_value(value));
    else if (format == BENCH_INT)
        snprintf(text, bytes, "%.0f", number);
    else if (format == BENCH_MS)
        snprintf(text, bytes, "%.*f", number < 10 ? 3 : number < 1000 ? 1 : 0, number);
    else if (format == BENCH_GFLOPS)
        snprintf(text, bytes, "%.1f", number);
    else if (format == BENCH_SHARE)
        snprintf(text, bytes, "%.2f", number);
    else
        snprintf(text, bytes, "%s", cli_bytes(number).text);
}

static void print_table(const bench *b, const bench_column *columns, int count)
{
    size_t index;
    json_t *row;
    for (int c = 0; c < count; c++)
        printf("%s%*s", c > 0 ? "  " : "",
               columns[c].format == BENCH_TEXT ? -columns[c].width : columns[c].width, columns[c].heading);
    putchar('\n');
    json_array_foreach(b->rows, index, row)
    {
        for (int c = 0; c < count; c++) {
            char cell[64];
            format_cell(cell, sizeof cell, json_object_get(row, columns[c].key), columns[c].format);
            printf("%s%*s", c > 0 ? "  " : "",
                   columns[c].format == BENCH_TEXT ? -columns[c].width : columns[c].width, cell);
        }
        putchar('\n');
    }
}

fv_status bench_end(bench *b, const bench_column *columns, int count)
{
    cli_progress_clear(&b->progress);
    if (json_array_size(b->rows) == 0 && b->skipped > 0)
        return cli_fail(FV_ERR_RESOURCE, "bench: no line fits into the memory of this machine");
    measure_peaks(b);
    fill_shares(b);
    print_machine(b);
    if (cli_flag(b->args, "json"))
        return cli_json_print(json_incref(b->rows));
    print_table(b, columns, count);
    return FV_OK;
}
