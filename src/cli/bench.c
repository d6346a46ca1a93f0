/* cli/bench.c: the frame of a benchmark: what rates are held against, the sgemm rate P of this machine or its
 * memory bandwidth, is measured before the first line and after the last one in every context, and the better
 * figure is what all shares are of: figures of shared machines drift, so only ratios within one run mean
 * something. */
#include "bench.h"
#include <math.h>
#include <string.h>

#define ROOF_SECONDS 0.4
#define NOW_SECONDS  1e-3

const bench_roof bench_sgemm = {.measure = fv_measure_sgemm,
                                .field = "sgemm_gflops",
                                .rate = "gflops",
                                .share = "share_of_peak",
                                .words = "sgemm peak P",
                                .unit = "GFLOP/s"};
const bench_roof bench_bandwidth = {.measure = fv_measure_bandwidth,
                                    .field = "read_gbs",
                                    .rate = "bandwidth_gbs",
                                    .share = "share_of_bandwidth",
                                    .words = "memory is read",
                                    .unit = "GB/s"};

/* ---- roofs --------------------------------------------------------------------------------------- */

static void measure_roofs(bench *b)
{
    for (int i = 0; i < b->threads.count; i++)
        b->ceiling[i] = fmax(b->ceiling[i], b->roof->measure(b->ctx[i], ROOF_SECONDS));
}

double bench_now(bench *b, int which)
{
    double rate = fv_measure_sgemm_now(b->ctx[which], NOW_SECONDS);
    b->best_now[which] = fmax(b->best_now[which], rate);
    return rate;
}

fv_status bench_begin(bench *b, const cli_args *args, fv_context *ctx, const bench_roof *roof, int total)
{
    *b = (bench){.args = args, .roof = roof, .total = total, .rows = json_array()};
    CLI_TRY(bench_compare_read(args, &b->before));
    if (cli_given(args, "threads"))
        CLI_TRY(bench_numbers(args, "threads", CLI_THREADS_MAX, &b->threads));
    else
        b->threads = (bench_list){1, {fv_context_threads(ctx)}};
    b->total *= b->threads.count;
    for (int i = 0; i < b->threads.count; i++)
        CLI_TRY(cli_context_create(&b->ctx[i], args, (int)b->threads.at[i]));
    measure_roofs(b);
    cli_progress_begin(&b->progress);
    return FV_OK;
}

void bench_free(bench *b)
{
    for (int i = 0; i < b->threads.count; i++)
        fv_context_destroy(b->ctx[i]);
    json_decref(b->rows);
    json_decref(b->before);
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

/* A row's value becomes its share of the best. */
static void fill_share(json_t *row, const char *field, double value, double best)
{
    json_object_set_new(row, field, cli_json_real(best > 0 ? value / best : (double)NAN));
}

static void fill_shares(bench *b)
{
    size_t index;
    json_t *row;
    json_array_foreach(b->rows, index, row)
    {
        int i = 0;
        while (b->threads.at[i] != json_integer_value(json_object_get(row, "threads")))
            i++;
        const json_t *now = json_object_get(row, "machine_share");
        fill_share(row, b->roof->share, json_number_value(json_object_get(row, b->roof->rate)),
                   b->ceiling[i]);
        if (now != NULL)
            fill_share(row, "machine_share", json_number_value(now), b->best_now[i]);
        json_object_set_new(row, b->roof->field, cli_json_real(b->ceiling[i]));
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
        fprintf(stderr, "%s%s on %lld %s: %.1f %s", i > 0 ? ", " : "", b->roof->words,
                (long long)b->threads.at[i], b->threads.at[i] == 1 ? "thread" : "threads", b->ceiling[i],
                b->roof->unit);
    fputc('\n', stderr);
}

static void format_cell(char *text, size_t bytes, const json_t *value, bench_format format)
{
    double number = json_number_value(value);
    if (value == NULL || json_is_null(value))
        snprintf(text, bytes, "-");
    else if (format == BENCH_TEXT)
        snprintf(text, bytes, "%s",
                 json_is_boolean(value) ? json_is_true(value) ? "yes" : "no" : json_string_value(value));
    else if (format == BENCH_INT)
        snprintf(text, bytes, "%.0f", number);
    else if (format == BENCH_MS)
        snprintf(text, bytes, "%.*f", number < 10 ? 3 : number < 1000 ? 1 : 0, number);
    else if (format == BENCH_RATE)
        snprintf(text, bytes, "%.1f", number);
    else if (format == BENCH_SHARE)
        snprintf(text, bytes, "%.2f", number);
    else
        snprintf(text, bytes, "%s", cli_bytes(number).text);
}

static void print_cell(const bench_column *c, bool first, const char *text)
{
    printf("%s%*s", first ? "" : "  ", c->format == BENCH_TEXT ? -c->width : c->width, text);
}

void bench_print_table(const json_t *rows, const bench_column *columns, int count)
{
    size_t index;
    const json_t *row;
    for (int c = 0; c < count; c++)
        print_cell(&columns[c], c == 0, columns[c].heading);
    putchar('\n');
    json_array_foreach(rows, index, row)
    {
        for (int c = 0; c < count; c++) {
            char cell[64];
            format_cell(cell, sizeof cell, json_object_get(row, columns[c].key), columns[c].format);
            print_cell(&columns[c], c == 0, cell);
        }
        putchar('\n');
    }
}

fv_status bench_end(bench *b, const bench_column *columns, int count)
{
    cli_progress_clear(&b->progress);
    if (json_array_size(b->rows) == 0 && b->skipped > 0)
        return cli_fail(FV_ERR_RESOURCE, "bench: no line fits into the memory of this machine");
    measure_roofs(b);
    fill_shares(b);
    bench_describe(b);
    print_machine(b);
    return bench_give_out(b, columns, count);
}
