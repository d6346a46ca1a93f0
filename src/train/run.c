/* run.c: from settings and a directory to a run that can step: new, or continued from its checkpoint.
 *
 * Order matters: what costs little and may fail comes first: the directory, the settings, the memory, then
 * one pass over the data. The first checkpoint is written before the first step.
 */
#include "train/run.h"
#include "data/data.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

void fv_train_options_init(fv_train_options *options)
{
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* ---- the directory and the settings ------------------------------------------------------------------ */

/* Any file of a run, whole or not. */
static bool holds_run(const char *directory)
{
    static const char *const names[] = {"trainer.json", "trainer.safetensors", "model.safetensors",
                                        "config.json",  "checkpoint",          "best"};
    for (int i = 0; i < FV_COUNT(names); i++)
        if (fv_path_exists(directory, names[i]))
            return true;
    return false;
}

static fv_status refuse_existing(fv_context *ctx, const char *directory)
{
    return fv_fail(ctx, FV_ERR_USAGE,
                   "%s: holds a run already; continue it with --resume, or choose another directory",
                   directory);
}

static fv_status open_directory(fv_run *run)
{
    bool exists = holds_run(run->directory);
    if (exists && !run->options->resume)
        return refuse_existing(run->ctx, run->directory);
    TRY(fv_directory_make(run->ctx, run->directory, &run->made));
    TRY(fv_metrics_open(run->ctx, &run->metrics, run->directory));
    TRY(fv_checkpoint_recover(run->ctx, run->directory));
    run->resumed = holds_run(run->directory);
    if (run->resumed && !run->options->resume) /* another process was faster */
        return refuse_existing(run->ctx, run->directory);
    run->committed = run->resumed;
    if (!run->resumed && !fv_metrics_empty(&run->metrics))
        return fv_fail(run->ctx, FV_ERR_USAGE,
                       "%s: belongs to no run; move it away or choose another directory",
                       run->metrics.path.text);
    return FV_OK;
}

static fv_status continue_settings(fv_run *run, const fv_config *given)
{
    fv_config *kept;
    fv_fingerprints prints;
    TRY(fv_checkpoint_read(run->ctx, run->directory, &kept, &run->state, &prints));
    fv_status status = fv_settings_resume(&run->config, run->ctx, given, kept);
    fv_config_destroy(kept);
    TRY(status);
    TRY(fv_settings_check_files(run->ctx, &run->state, run->options->files, run->options->file_count));
    return fv_checkpoint_verify(run->ctx, run->directory, &prints);
}

static void read_settings(fv_run *run)
{
    const fv_config *c = run->config;
    run->seed = (uint64_t)fv_config_int(c, "seed");
    run->steps = fv_config_int(c, "steps");
    run->accumulate = fv_config_int(c, "accumulate");
    run->redraw = fv_config_int(c, "attention.redraw");
    run->log_every = fv_config_int(c, "log_every");
    run->eval_every = fv_config_int(c, "eval_every");
    run->eval_batches = fv_config_int(c, "eval_batches");
    run->checkpoint_every = fv_config_int(c, "checkpoint_every");
    run->early_stop = fv_config_int(c, "early_stop");
}

/* ---- the model and its memory ------------------------------------------------------------------------- */

static fv_status refuse_memory(const fv_run *run)
{
    return fv_fail(
        run->ctx, FV_ERR_RESOURCE,
        "training needs about %.2f GiB, %.2f GiB are available; lower batch (and raise accumulate), "
        "length, hidden_size or num_hidden_layers",
        (double)run->plan.cost.bytes / 0x1p30, (double)run->plan.available_bytes / 0x1p30);
}

static fv_status open_model(fv_run *run)
{
    fv_batch_bounds most;
    TRY(fv_task_bounds(run->ctx, run->config, &most));
    run->plan.available_bytes = fv_available_memory();
    if (run->resumed)
        TRY(fv_model_load(&run->model, run->ctx, run->directory, 0));
    else
        TRY(fv_model_build(&run->model, run->ctx, run->config));
    TRY(fv_model_measure(run->model, most.tokens, fv_config_int(run->config, "length"), most.predicted,
                         &run->plan.cost));
    if (run->plan.cost.bytes > run->plan.available_bytes)
        return refuse_memory(run);
    if (!run->resumed)
        TRY(fv_model_start(run->model, run->seed));
    TRY(fv_model_prepare(run->model, most.tokens, most.sequences, most.predicted, true));
    TRY(fv_optimizer_create(&run->optimizer, run->ctx, run->model, run->config));
    fv_optimizer_clear(run->optimizer);
    if (run->resumed)
        TRY(fv_checkpoint_read_moments(run->ctx, run->directory, run->model, run->optimizer));
    run->plan.first_step = run->state.step;
    run->plan.steps = run->steps;
    run->plan.tokens_per_step = most.tokens * run->accumulate;
    run->plan.cost.flop_forward *= (double)run->accumulate;
    run->plan.cost.flop_step *= (double)run->accumulate;
    run->plan.config = run->config;
    run->plan.cost.bytes = fv_add_bytes(run->plan.cost.bytes, fv_run_peak_bytes(run));
    return FV_OK;
}

/* ---- the data ----------------------------------------------------------------------------------------- */

static fv_status open_data(fv_run *run)
{
    const fv_train_options *o = run->options;
    fv_data_summary *summary = &run->plan.data;
    TRY(fv_data_open(&run->data, run->ctx, run->config, o->files, o->file_count));
    TRY(fv_data_scan(run->data, summary, &o->observer));
    if (summary->split_records[FV_SPLIT_TRAIN] == 0)
        return fv_fail(run->ctx, FV_ERR_FILE,
                       "%s: no record falls into the training split; give more data or lower valid_fraction "
                       "and test_fraction",
                       o->files[0]);
    if (run->resumed && memcmp(summary->counts, run->state.unigram, sizeof run->state.unigram) != 0)
        return fv_fail(run->ctx, FV_ERR_USAGE,
                       "data: the letters of the training split are not those the run was started with");
    memcpy(run->state.unigram, summary->counts, sizeof run->state.unigram);
    return fv_train_state_set_files(run->ctx, &run->state, o->files, o->file_count);
}

/* ---- open and close ------------------------------------------------------------------------------------ */

static fv_status check_options(fv_context *ctx, const fv_train_options *o)
{
    if (o->size != sizeof *o)
        return fv_fail(ctx, FV_ERR_USAGE, "training options: made for another version of the library");
    if (o->directory == NULL || o->directory[0] == '\0')
        return fv_fail(ctx, FV_ERR_USAGE, "out: no run directory was given");
    if (o->files == NULL || o->file_count < 1)
        return fv_fail(ctx, FV_ERR_USAGE, "data: no file was given");
    return FV_OK;
}

static fv_status write_first(fv_run *run)
{
    if (run->resumed)
        return fv_metrics_cut(run->ctx, &run->metrics, run->state.metrics_bytes);
    /* From here on the directory is a run that can be continued; a full disk shows before the first step. */
    TRY(fv_checkpoint_write(run->ctx, run->directory, run->config, run->model, run->optimizer, &run->state));
    run->committed = true;
    return FV_OK;
}

fv_status fv_run_open(fv_run *run, fv_context *ctx, const fv_config *given, const fv_train_options *options)
{
    *run = (fv_run){
        .ctx = ctx, .options = options, .metrics.fd = -1, .proven_step = -1, .last_loss = (double)NAN};
    run->opened = fv_now();
    fv_train_state_init(&run->state);
    TRY(check_options(ctx, options));
    run->directory = options->directory;
    TRY(open_directory(run));
    TRY(run->resumed ? continue_settings(run, given) : fv_settings_complete(&run->config, ctx, given));
    read_settings(run);
    TRY(fv_context_set_dtype(ctx, fv_config_text(run->config, "dtype")));
    TRY(fv_schedule_make(&run->schedule, ctx, run->config));
    TRY(open_model(run));
    TRY(open_data(run));
    /* What reading the data took is held no more, but was: the peak is no less. */
    run->plan.cost.bytes = FV_MAX(run->plan.cost.bytes, fv_context_peak_bytes(ctx));
    if (options->plan != NULL)
        options->plan(options->observer.user, &run->plan);
    return write_first(run);
}

/* A run that never began leaves nothing behind. */
static void withdraw(fv_run *run)
{
    if (fv_metrics_empty(&run->metrics))
        (void)unlink(run->metrics.path.text);
    if (run->made)
        (void)rmdir(run->directory);
}

void fv_run_close(fv_run *run)
{
    fv_data_close(run->data);
    fv_optimizer_destroy(run->optimizer);
    fv_model_destroy(run->model);
    fv_config_destroy(run->config);
    fv_train_state_free(run->ctx, &run->state);
    if (!run->committed)
        withdraw(run);
    fv_metrics_close(&run->metrics);
}
