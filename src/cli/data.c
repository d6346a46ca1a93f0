/* cli/data.c: `favor data`: what files of sequences hold. */
#include "cli.h"
#include <string.h>

static const cli_option options[] = {
    {.name = "reader", .key = "reader"},
    {.name = "task", .key = "task"},
    {.name = "labels", .key = "num_labels"},
    {.name = "valid-fraction", .key = "valid_fraction"},
    {.name = "test-fraction", .key = "test_fraction"},
};
static const cli_group own = {"Data", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {&own, &cli_common_group, NULL};

/* "A", or "\x0a" for bytes that do not print. */
static cli_figure letter_name(int letter)
{
    cli_figure name;
    bool prints = letter > ' ' && letter < 127 && letter != '\\';
    snprintf(name.text, sizeof name.text, prints ? "%c" : "\\x%02x", (unsigned)letter);
    return name;
}

/* Tasks with labels count these instead of letters; 0: letters. */
static int64_t label_count(const fv_config *config)
{
    const char *task = fv_config_text(config, "task");
    bool labels = strcmp(task, "classify") == 0 || strcmp(task, "match") == 0;
    return labels ? fv_config_int(config, "num_labels") : 0;
}

static json_t *labels_json(const fv_data_summary *data, int64_t labels)
{
    json_t *counts = json_array();
    for (int64_t i = 0; i < labels; i++)
        json_array_append_new(counts, json_integer(data->counts[i]));
    return counts;
}

static json_t *letters_json(const fv_data_summary *data, const fv_tokenizer *tokenizer)
{
    json_t *letters = json_object();
    for (int32_t id = 0; id < tokenizer->letters; id++)
        if (data->counts[id] > 0)
            json_object_set_new(letters, letter_name(fv_tokenizer_letter(tokenizer, id)).text,
                                json_integer(data->counts[id]));
    return letters;
}

static json_t *splits_json(const fv_data_summary *data)
{
    json_t *splits = json_object();
    for (int i = 0; i < 3; i++)
        json_object_set_new(splits, fv_split_name((fv_split)i),
                            json_pack("{s:I, s:I}", "records", (json_int_t)data->split_records[i], "tokens",
                                      (json_int_t)data->split_tokens[i]));
    return splits;
}

static fv_status print_json(const fv_data_summary *data, const fv_tokenizer *tokenizer, int64_t labels)
{
    return cli_json_print(json_pack(
        "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o}", "files", (json_int_t)data->files,
        "records", (json_int_t)data->records, "empty_records", (json_int_t)data->empty_records,
        "duplicate_names", (json_int_t)data->duplicate_names, "tokens", (json_int_t)data->tokens, "unknown",
        (json_int_t)data->unknown, "min_length", (json_int_t)data->min_length, "max_length",
        (json_int_t)data->max_length, "mean_length", cli_json_real(data->mean_length), "median_length",
        cli_json_real(data->median_length), "splits", splits_json(data), labels > 0 ? "labels" : "letters",
        labels > 0 ? labels_json(data, labels) : letters_json(data, tokenizer)));
}

static void print_splits(const fv_data_summary *data)
{
    printf("\n%-10s %12s %16s\n", "split", "records", "letters");
    for (int i = 0; i < 3; i++)
        printf("%-10s %12lld %16lld\n", fv_split_name((fv_split)i), (long long)data->split_records[i],
               (long long)data->split_tokens[i]);
}

static void print_letters(const fv_data_summary *data, const fv_tokenizer *tokenizer)
{
    double total = 0;
    for (int32_t id = 0; id < tokenizer->letters; id++)
        total += (double)data->counts[id];
    puts("\nletters of the training split, in per cent");
    int column = 0;
    for (int32_t id = 0; id < tokenizer->letters; id++) {
        if (data->counts[id] == 0)
            continue;
        printf("%4s %5.2f%s", letter_name(fv_tokenizer_letter(tokenizer, id)).text,
               100 * (double)data->counts[id] / total, column % 7 == 6 ? "\n" : "  ");
        column++;
    }
    if (column % 7 != 0)
        putchar('\n');
}

static void print_labels(const fv_data_summary *data, int64_t labels)
{
    double total = 0;
    for (int64_t i = 0; i < labels; i++)
        total += (double)data->counts[i];
    puts("\nlabels of the training split, in per cent");
    for (int64_t i = 0; i < labels; i++)
        printf("%4lld %5.2f%s", (long long)i, total > 0 ? 100 * (double)data->counts[i] / total : 0.0,
               i % 7 == 6 || i == labels - 1 ? "\n" : "  ");
}

static void print_text(const fv_data_summary *data, const fv_tokenizer *tokenizer, int64_t labels)
{
    const struct {
        const char *name;
        int64_t value;
    } rows[] = {
        {"files", data->files},
        {"records", data->records},
        {"empty records", data->empty_records},
        {"repeated names", data->duplicate_names},
        {"letters", data->tokens},
        {"unknown letters", data->unknown},
        {"shortest record", data->min_length},
        {"longest record", data->max_length},
    };
    for (int i = 0; i < CLI_COUNT(rows); i++)
        printf("%-16s %14lld\n", rows[i].name, (long long)rows[i].value);
    printf("%-16s %14.1f\n%-16s %14.1f\n", "mean length", data->mean_length, "median length",
           data->median_length);
    print_splits(data);
    if (labels > 0)
        print_labels(data, labels);
    else
        print_letters(data, tokenizer);
}

static fv_status scan(fv_context *ctx, const cli_args *args, const fv_config *config,
                      fv_data_summary *summary)
{
    fv_data *data;
    CLI_TRY(fv_data_open(&data, ctx, config, cli_operands(args), cli_operand_count(args)));
    cli_progress progress;
    cli_progress_begin(&progress);
    fv_observer observer = cli_progress_observer(&progress);
    fv_status status = fv_data_scan(data, summary, &observer);
    cli_progress_clear(&progress);
    fv_data_close(data);
    return status;
}

static fv_status describe(fv_context *ctx, const cli_args *args, fv_config *config)
{
    fv_data_summary summary;
    CLI_TRY(cli_settings(args, config));
    CLI_TRY(scan(ctx, args, config, &summary));
    const fv_tokenizer *tokenizer = fv_tokenizer_find(fv_config_text(config, "tokenizer"));
    if (cli_flag(args, "json"))
        return print_json(&summary, tokenizer, label_count(config));
    print_text(&summary, tokenizer, label_count(config));
    return FV_OK;
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    fv_config *config;
    CLI_TRY(fv_config_create(&config, ctx));
    fv_status status = describe(ctx, args, config);
    fv_config_destroy(config);
    return status;
}

const cli_command cli_data = {
    .name = "data",
    .summary = "summarise files of sequences: records, lengths, letters, splits",
    .operands = "FILE...",
    .min_operands = 1,
    .max_operands = -1,
    .description =
        "Letters outside the alphabet are counted as unknown and read as X. The split of a record is "
        "decided by a hash of its sequence.",
    .examples = "favor data proteins.fasta.gz\nfavor data --reader bytes novel.txt --json\n"
                "favor data --reader tsv --task classify reviews.tsv",
    .groups = groups,
    .run = run,
};
