/* cli/train.c: `favor train`: trains a model and shows how it goes. */
#include "cli.h"
#include <string.h>

static const cli_option run_options[] = {
    {.name = "data", .type = CLI_FILES, .required = true, .help = "training files, plain or gzip"},
    {.name = "out", .type = CLI_FILE, .metavar = "DIR", .required = true, .help = "directory of the run"},
    {.name = "resume",
     .type = CLI_FLAG,
     .help = "continue from the last checkpoint in --out, or start where there is none yet"},
    {.name = "config", .type = CLI_FILE, .help = "JSON file of settings; options come after it"},
    {.name = "set",
     .type = CLI_PAIRS,
     .help = "any setting by its key, after all others; may be repeated (the keys: below)"},
};
static const cli_option data_options[] = {
    {.name = "task", .key = "task"},
    {.name = "reader", .key = "reader"},
    {.name = "length", .key = "length"},
    {.name = "packing", .key = "packing"},
    {.name = "valid-fraction", .key = "valid_fraction"},
    {.name = "test-fraction", .key = "test_fraction"},
    {.name = "mask-rate", .key = "mask_rate"},
    {.name = "labels", .key = "num_labels"},
};
static const cli_option model_options[] = {
    {.name = "layers", .key = "num_hidden_layers"},
    {.name = "d-model", .key = "hidden_size"},
    {.name = "heads", .key = "num_attention_heads"},
    {.name = "kv-heads", .key = "num_key_value_heads"},
    {.name = "ffn", .key = "intermediate_size"},
    {.name = "activation", .key = "hidden_act"},
    {.name = "positions", .key = "position_embedding_type"},
    {.name = "dropout", .key = "hidden_dropout_prob"},
    {.name = "local-heads", .key = "attention.local_heads"},
    {.name = "local-window", .key = "attention.local_window"},
    {.name = "tie-embeddings", .key = "tie_word_embeddings"},
    {.name = "decoder-layers", .key = "decoder_layers"},
    {.name = "pooling", .key = "pooling"},
    {.name = "gradient-checkpointing", .key = "gradient_checkpointing"},
    {.name = "reversible", .key = "reversible"},
};
static const cli_option step_options[] = {
    {.name = "batch", .key = "batch"},
    {.name = "accumulate", .key = "accumulate"},
    {.name = "steps", .key = "steps"},
    {.name = "lr", .key = "learning_rate"},
    {.name = "schedule", .key = "schedule"},
    {.name = "warmup", .key = "warmup_steps"},
    {.name = "weight-decay", .key = "weight_decay"},
    {.name = "clip", .key = "clip_norm"},
    {.name = "eval-every", .key = "eval_every"},
    {.name = "eval-batches", .key = "eval_batches"},
    {.name = "checkpoint-every", .key = "checkpoint_every"},
    {.name = "log-every", .key = "log_every"},
    {.name = "early-stop", .key = "early_stop"},
    {.name = "seed", .metavar = "N", .key = "seed"},
};
static const cli_group run_group = {"Run", run_options, CLI_COUNT(run_options)};
static const cli_group data_group = {"Data", data_options, CLI_COUNT(data_options)};
static const cli_group model_group = {"Model", model_options, CLI_COUNT(model_options)};
static const cli_group step_group = {"Training", step_options, CLI_COUNT(step_options)};
static const cli_group *const groups[] = {&run_group,           &data_group,       &model_group, &step_group,
                                          &cli_attention_group, &cli_common_group, NULL};

typedef struct run_state {
    cli_progress progress;
    fv_train_plan plan;
    bool planned;
} run_state;

/* ---- what the run tells while it goes ------------------------------------------------------------------ */

static void print_model(const fv_train_plan *plan)
{
    const fv_config *config = plan->config; /* of the run, which --resume continues */
    fprintf(stderr,
            "model    %s, %lld layer%s of %lld channels, %lld heads, feed-forward %lld: %lld parameters\n",
            fv_config_text(config, "attention.kind"), (long long)fv_config_int(config, "num_hidden_layers"),
            fv_config_int(config, "num_hidden_layers") == 1 ? "" : "s",
            (long long)fv_config_int(config, "hidden_size"),
            (long long)fv_config_int(config, "num_attention_heads"),
            (long long)fv_config_int(config, "intermediate_size"), (long long)plan->cost.parameters);
    fprintf(stderr, "memory   predicted peak %s of %s available\n", cli_bytes((double)plan->cost.bytes).text,
            cli_bytes((double)plan->available_bytes).text);
    fprintf(stderr, "work     %lld steps of %lld tokens and %sFLOP", (long long)plan->steps,
            (long long)plan->tokens_per_step, cli_si(plan->cost.flop_step).text);
    if (plan->first_step > 0)
        fprintf(stderr, ", resuming after step %lld", (long long)plan->first_step);
    fputc('\n', stderr);
}

static void print_data(const fv_data_summary *data)
{
    fprintf(stderr, "data     %lld records, %lld letters, lengths %lld to %lld, median %.0f\n",
            (long long)data->records, (long long)data->tokens, (long long)data->min_length,
            (long long)data->max_length, data->median_length);
    if (data->unknown > 0)
        fprintf(stderr, "         %lld unknown letters are read as X\n", (long long)data->unknown);
    if (data->empty_records > 0)
        fprintf(stderr, "         %lld empty records are left out\n", (long long)data->empty_records);
    if (data->duplicate_names > 0)
        fprintf(stderr, "         %lld records repeat a name\n", (long long)data->duplicate_names);
    fputs("split   ", stderr);
    for (int i = 0; i < 3; i++)
        fprintf(stderr, "%s %s %lld", i > 0 ? "," : "", fv_split_name((fv_split)i),
                (long long)data->split_records[i]);
    fputs(" records\n", stderr);
}

static void tell_plan(void *user, const fv_train_plan *plan)
{
    run_state *run = user;
    run->plan = *plan;
    run->planned = true;
    cli_progress_clear(&run->progress);
    print_model(plan);
    print_data(&plan->data);
}

static void show_progress(void *user, const fv_progress *report)
{
    run_state *run = user;
    cli_progress_show(&run->progress, report);
}

/* Lines of held-out metrics are shown; those of the training split are what the bar says. */
static void tell_metrics(void *user, const char *line)
{
    run_state *run = user;
    json_t *json = json_loads(line, 0, NULL);
    const char *split = json_string_value(json_object_get(json, "split"));
    if (split != NULL && strcmp(split, fv_split_name(FV_SPLIT_TRAIN)) != 0) {
        cli_progress_clear(&run->progress);
        fprintf(stderr, "step %lld  %s loss %.4f  accuracy %.2f %%  perplexity %.3f\n",
                (long long)json_integer_value(json_object_get(json, "step")), split,
                json_number_value(json_object_get(json, "loss")),
                100 * json_number_value(json_object_get(json, "accuracy")),
                json_number_value(json_object_get(json, "perplexity")));
    }
    json_decref(json);
}

static int stop_asked(void *user)
{
    (void)user;
    return cli_signal() != 0;
}

/* ---- what it prints at the end ------------------------------------------------------------------- */

static fv_status print_json(const run_state *run, const char *directory, const fv_train_result *result,
                            double seconds, size_t peak)
{
    json_t *valid = result->valid.tokens > 0 ? cli_json_metrics("valid", &result->valid) : json_null();
    json_t *best = result->best.tokens > 0 ? cli_json_metrics("valid", &result->best) : json_null();
    return cli_json_print(
        json_pack("{s:s, s:I, s:I, s:b, s:o, s:o, s:o, s:o, s:o, s:I, s:I}", "directory", directory, "steps",
                  (json_int_t)result->steps, "parameters", (json_int_t)run->plan.cost.parameters,
                  "stopped_early", result->stopped_early, "valid", valid, "best", best, "seconds",
                  cli_json_real(seconds), "first_step_seconds", cli_json_real(result->first_step_seconds),
                  "flop_step", cli_json_real(run->plan.cost.flop_step), "predicted_bytes",
                  (json_int_t)run->plan.cost.bytes, "peak_bytes", (json_int_t)peak));
}

static void print_metrics(const char *name, const fv_metrics *metrics)
{
    if (metrics->tokens > 0)
        printf("%-6s loss %.4f  accuracy %.2f %%  perplexity %.3f  bits per token %.4f\n", name,
               metrics->loss, 100 * metrics->accuracy, metrics->perplexity, metrics->bits_per_token);
}

static void print_summary(const char *directory, const fv_train_result *result, double seconds, size_t peak)
{
    printf("steps  %lld%s in %s", (long long)result->steps, result->stopped_early ? " (stopped early)" : "",
           cli_duration(seconds).text);
    if (result->first_step_seconds > 0)
        printf(", the first after %.2f s", result->first_step_seconds);
    printf(", peak memory %s\n", cli_bytes((double)peak).text);
    print_metrics("valid", &result->valid);
    print_metrics("best", &result->best);
    printf("run    %s\n", directory);
}

/* ---- the command --------------------------------------------------------------------------------- */

static fv_status train(fv_context *ctx, const cli_args *args, const fv_config *config)
{
    run_state run = {0};
    fv_train_options options;
    fv_train_options_init(&options);
    options.directory = cli_text(args, "out");
    options.files = cli_items(args, "data");
    options.file_count = cli_count(args, "data");
    options.resume = cli_flag(args, "resume");
    options.observer = (fv_observer){&run, show_progress, tell_metrics, stop_asked};
    options.plan = tell_plan;
    cli_progress_begin(&run.progress);
    cli_signals_catch();
    fv_train_result result;
    memset(&result, 0, sizeof result);
    fv_status status = fv_train(ctx, config, &options, &result);
    cli_progress_clear(&run.progress);
    double seconds = cli_now() - run.progress.begin;
    if (status == FV_STOPPED)
        cli_note("%s", fv_context_message(ctx));
    if (status != FV_OK)
        return status;
    if (cli_flag(args, "json"))
        return print_json(&run, options.directory, &result, seconds, fv_context_peak_bytes(ctx));
    print_summary(options.directory, &result, seconds, fv_context_peak_bytes(ctx));
    return FV_OK;
}

static fv_status configure_and_train(fv_context *ctx, const cli_args *args, fv_config *config)
{
    CLI_TRY(cli_settings(args, config));
    /* Told here in the words of the options, before any file is touched. A run that is continued knows its
     * attention itself. */
    fv_attention_options attention;
    if (!cli_flag(args, "resume") || fv_config_is_set(config, "attention.kind"))
        CLI_TRY(cli_attention_options(args, fv_config_text(config, "attention.kind"), &attention));
    return train(ctx, args, config);
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    fv_config *config;
    CLI_TRY(fv_config_create(&config, ctx));
    fv_status status = configure_and_train(ctx, args, config);
    fv_config_destroy(config);
    return status;
}

const cli_command cli_train = {
    .name = "train",
    .summary = "train a Transformer on files of sequences",
    .description =
        "Settings come from the defaults, then --config, then the options, then --set. The run directory "
        "receives "
        "config.json and model.safetensors (the last checkpoint), best/ (the same at the best validation "
        "loss), "
        "trainer.json, trainer.safetensors and metrics.jsonl. A run stopped by SIGINT or SIGTERM writes a "
        "checkpoint first; --resume continues it to the same metrics as an uninterrupted run.",
    .examples = "favor train --data proteins.fasta.gz --out runs/mlm --steps 2000\n"
                "favor train --data proteins.fasta.gz --task lm --attention relu --out runs/lm\n"
                "favor train --data novel.txt --reader bytes --task lm --out runs/text\n"
                "favor train --data reviews.tsv --reader tsv --task classify --labels 2 --out runs/reviews",
    .groups = groups,
    .show_settings = true,
    .run = run,
};
