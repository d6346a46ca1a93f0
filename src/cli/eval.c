/* cli/eval.c: `favor eval`: a trained model beside the unigram baseline of its training data. */
#include "cli.h"
#include <string.h>

static const cli_option options[] = {
    {.name = "data", .type = CLI_FILES, .required = true, .help = "files to evaluate on, plain or gzip"},
    {.name = "split",
     .type = CLI_ENUM,
     .choices = "valid|test|all",
     .fallback = "test",
     .help = "which part of them"},
    CLI_DTYPE,
};
static const cli_group own = {"Evaluation", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {&own, &cli_common_group, NULL};

static fv_split split_of(const char *name)
{
    for (int i = FV_SPLIT_TRAIN; i < FV_SPLIT_ALL; i++)
        if (strcmp(fv_split_name((fv_split)i), name) == 0)
            return (fv_split)i;
    return FV_SPLIT_ALL;
}

static void print_row(const char *name, const fv_metrics *metrics)
{
    printf("%-10s %8.2f %% %12.4f %16.4f %10.4f\n", name, 100 * metrics->accuracy, metrics->perplexity,
           metrics->bits_per_token, metrics->loss);
}

static fv_status print_json(const char *split, const fv_metrics *model, const fv_metrics *empirical)
{
    json_t *object = cli_json_metrics(split, model);
    json_object_set_new(object, "empirical", cli_json_metrics(NULL, empirical));
    return cli_json_print(object);
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    const char *split = cli_text(args, "split");
    cli_progress progress;
    cli_progress_begin(&progress);
    fv_observer observer = cli_progress_observer(&progress);
    fv_metrics model, empirical;
    fv_status status = fv_evaluate(ctx, cli_operand(args, 0), cli_items(args, "data"),
                                   cli_count(args, "data"), split_of(split), &observer, &model, &empirical);
    cli_progress_clear(&progress);
    if (status != FV_OK)
        return status;
    if (cli_flag(args, "json"))
        return print_json(split, &model, &empirical);
    printf("split %s, %lld predicted tokens\n\n", split, (long long)model.tokens);
    printf("%-10s %10s %12s %16s %10s\n", "", "accuracy", "perplexity", "bits per token", "loss");
    print_row("model", &model);
    print_row("empirical", &empirical);
    return FV_OK;
}

const cli_command cli_eval = {
    .name = "eval",
    .summary = "evaluate a trained model beside the unigram baseline",
    .operands = "DIR",
    .min_operands = 1,
    .max_operands = 1,
    .description = "DIR is a run directory of `favor train`. Reader, task, splits and masking are those of "
                   "the training. The "
                   "loss is in nats per predicted token; the empirical line predicts every token from the "
                   "letter frequencies "
                   "of the training split.",
    .examples = "favor eval runs/mlm --data proteins.fasta.gz --split test",
    .groups = groups,
    .run = run,
};
