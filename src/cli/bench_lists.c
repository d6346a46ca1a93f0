/* cli/bench_lists.c: the lists of `favor bench`, and what a list of times comes to. */
#include "bench.h"
#include <stdlib.h>
#include <string.h>

static const cli_option options[] = {
    {.name = "attention",
     .type = CLI_LIST,
     .metavar = "NAME,...",
     .fallback = "exact,favor+,relu",
     .help = "kinds of attention"},
    {.name = "features",
     .type = CLI_LIST,
     .metavar = "M,...",
     .words = "as the kind says",
     .help = "random projections, for kinds that have some"},
    {.name = "threads", .type = CLI_LIST, .metavar = "N,...", .words = "all processors", .help = "threads"},
    {.name = "dtype",
     .type = CLI_LIST,
     .choices = "f32|bf16",
     .fallback = "f32",
     .help = "number formats of the factors of matrix products"},
};
const cli_group bench_list_group = {"What is compared", options, CLI_COUNT(options)};

fv_status bench_read_words(const cli_args *args, const char *name, bench_words *words)
{
    int given = cli_count(args, name);
    if (given > BENCH_LIST_MAX)
        return cli_fail(FV_ERR_USAGE, "--%s: %d values, expected %d at most", name, given, BENCH_LIST_MAX);
    const char *text = given > 0 ? cli_item(args, name, 0) : cli_text(args, name);
    words->count = 0;
    while (text != NULL) {
        size_t length = strcspn(text, ",");
        char *word = words->at[words->count];
        if (length >= sizeof words->at[0])
            return cli_fail(FV_ERR_USAGE, "--%s %s: too long for a value", name, text);
        snprintf(word, sizeof words->at[0], "%.*s", (int)length, text);
        words->count++;
        if (given > 0)
            text = cli_item(args, name, words->count);
        else
            text = text[length] == ',' ? text + length + 1 : NULL;
    }
    return FV_OK;
}

fv_status bench_numbers(const cli_args *args, const char *name, int64_t max, bench_list *list)
{
    bench_words words;
    CLI_TRY(bench_read_words(args, name, &words));
    list->count = words.count;
    for (int i = 0; i < words.count; i++)
        if (!cli_parse_int(words.at[i], &list->at[i]) || list->at[i] < 1 || list->at[i] > max)
            return cli_fail(FV_ERR_USAGE, "--%s %s: expected whole numbers from 1 to %lld", name, words.at[i],
                            (long long)max);
    return FV_OK;
}

fv_status bench_kinds(const cli_args *args, bench_words *kinds)
{
    const fv_attention_kind *kind;
    CLI_TRY(bench_read_words(args, "attention", kinds));
    for (int i = 0; i < kinds->count; i++)
        CLI_TRY(cli_attention_kind(kinds->at[i], &kind));
    return FV_OK;
}

int bench_digit(int *rest, int radix)
{
    int digit = *rest % radix;
    *rest /= radix;
    return digit;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

bench_spread bench_spread_of(double *seconds, int count)
{
    qsort(seconds, (size_t)count, sizeof *seconds, by_value);
    return (bench_spread){.median = 500 * (seconds[(count - 1) / 2] + seconds[count / 2]),
                          .min = 1000 * seconds[0],
                          .max = 1000 * seconds[count - 1]};
}
