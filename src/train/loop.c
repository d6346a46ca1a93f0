/* loop.c: fv_train: steps, and what falls due between them.
 *
 *     batches -> forward, loss, backward -> norm, clip -> AdamW -> line of metrics, evaluation, checkpoint
 *
 * One step is `accumulate` batches. The gradients are sums over predicted tokens; the 1/N of the mean goes
 * into the factor of the optimizer, so that N need not be known before the last batch. Everything a step does
 * is a function of the settings and of its number: batches, dropout, masks, learning rate and projections
 * (draw number = step / redraw). What falls due after a step depends on the state alone, so that a run
 * continued from any checkpoint does what the uninterrupted one did.
 *
 * A checkpoint is written only after its parameters gave a finite loss: a run that diverges keeps the last
 * good one.
 */
#include "kernels/kernels.h"
#include "train/run.h"
#include <math.h>
#include <string.h>

/* ---- reports ------------------------------------------------------------------------------------------- */

static bool asked_to_stop(const fv_run *run)
{
    const fv_observer *o = &run->options->observer;
    return o->stop != NULL && o->stop(o->user) != 0;
}

static double rate_of(double amount, double seconds)
{
    return seconds > 0.0 ? amount / seconds : 0.0;
}

static void report(fv_run *run, bool always)
{
    const fv_observer *o = &run->options->observer;
    double now = fv_now();
    if (o->progress == NULL || (!always && now - run->last_report < 0.25))
        return;
    run->last_report = now;
    int64_t here = run->state.step - run->plan.first_step, left = run->steps - run->state.step;
    fv_progress progress = {
        .phase = "train",
        .done = run->state.step,
        .total = run->steps,
        .unit = "step",
        .rate = rate_of((double)run->spent_tokens, run->spent),
        .seconds_left = here > 0 ? (now - run->began) / (double)here * (double)left : -1.0,
        .loss = run->last_loss,
    };
    o->progress(o->user, &progress);
}

/* Steps so small that a share of the peak would say nothing have share 0. */
static bool shares_peak(const fv_run *run)
{
    return run->plan.cost.flop_step >= 1e8;
}

/* The memory of the passes where it is large enough, else NULL. */
static float *lent_memory(const fv_run *run)
{
    size_t bytes;
    void *idle = fv_model_idle(run->model, &bytes);
    return bytes >= fv_measure_sgemm_bytes(run->ctx) ? idle : NULL;
}

size_t fv_run_peak_bytes(const fv_run *run)
{
    return shares_peak(run) && lent_memory(run) == NULL ? fv_measure_sgemm_bytes(run->ctx) : 0;
}

/* The sgemm rate behind share_of_peak, when the first line asks for it: no step waits for it. */
static fv_status measure_peak(fv_run *run)
{
    const double seconds = 0.3;
    if (run->peak_flops > 0.0 || !shares_peak(run))
        return FV_OK;
    float *memory = lent_memory(run);
    run->peak_flops = 1e9 * (memory != NULL ? fv_measure_sgemm_in(run->ctx, seconds, memory)
                                            : fv_measure_sgemm(run->ctx, seconds));
    return run->peak_flops > 0.0 ? FV_OK : FV_ERR_RESOURCE;
}

/* Appends a line about work on `tokens` tokens in `seconds`; the tokens of a planned step take `flop`. */
static fv_status add_line(fv_run *run, fv_split split, const fv_metrics *metrics, int64_t tokens, double flop,
                          double seconds)
{
    double planned = (double)run->plan.tokens_per_step;
    double speed = rate_of((double)tokens, seconds);
    const fv_train_state *s = &run->state;
    TRY(measure_peak(run));
    fv_metrics_line line = {
        .step = s->step,
        .tokens = s->tokens,
        .split = split,
        .metrics = *metrics,
        .learning_rate = s->step > 0 ? fv_schedule_rate(&run->schedule, s->step) : 0.0,
        .grad_norm = s->grad_norm,
        .seconds = s->seconds,
        .tokens_per_s = speed,
        .share_of_peak = rate_of(speed * flop / planned, run->peak_flops),
    };
    char *text = fv_metrics_json(run->ctx, &line);
    if (text == NULL)
        return FV_ERR_RESOURCE;
    fv_status status = fv_metrics_append(run->ctx, &run->metrics, text);
    const fv_observer *o = &run->options->observer;
    if (status == FV_OK && o->metrics != NULL)
        o->metrics(o->user, text);
    fv_free(run->ctx, text);
    return status;
}

/* ---- one step ------------------------------------------------------------------------------------------ */

static fv_status diverged(const fv_run *run, const char *what, double value, int64_t step)
{
    if (isnan(value))
        value = (double)NAN; /* its sign says nothing */
    return fv_fail(
        run->ctx, FV_ERR_FAILED,
        "step %lld: the %s is %g (learning rate %g, loss of the step before %g); lower learning_rate, "
        "raise warmup_steps or lower clip_norm; %s holds the last good checkpoint",
        (long long)step, what, value, fv_schedule_rate(&run->schedule, step), run->last_loss, run->directory);
}

static fv_status redraw(fv_run *run)
{
    int64_t draw = run->redraw > 0 ? run->state.step / run->redraw : 0;
    if (draw == run->state.draw)
        return FV_OK;
    TRY(fv_model_redraw(run->model, draw));
    run->state.draw = draw;
    return FV_OK;
}

/* Gradients of all batches of the step. */
static fv_status accumulate(fv_run *run, fv_sums *sums)
{
    int64_t step = run->state.step;
    for (int64_t micro = 0; micro < run->accumulate; micro++) {
        run->batch_valid = false;
        TRY(fv_data_batch(run->data, FV_SPLIT_TRAIN, step * run->accumulate + micro, &run->batch));
        run->batch_valid = true;
        TRY(fv_model_train_batch(run->model, &run->batch, 1.0f, run->seed, step, micro, &sums->loss,
                                 &sums->correct));
        sums->tokens += run->batch.predicted;
        sums->seen += run->batch.tokens;
    }
    return FV_OK;
}

/* Clips and moves the parameters. */
static fv_status update(fv_run *run, const fv_sums *sums)
{
    int64_t step = run->state.step + 1;
    double mean = 1.0 / (double)FV_MAX(sums->tokens, 1);
    double norm = fv_optimizer_norm(run->optimizer) * mean;
    if (!isfinite(sums->loss))
        return diverged(run, "loss", sums->loss * mean, step);
    if (!isfinite(norm))
        return diverged(run, "norm of the gradient", norm, step);
    double factor = fv_optimizer_clip(run->optimizer, norm) * mean;
    fv_optimizer_step(run->optimizer, step, fv_schedule_rate(&run->schedule, step), factor);
    run->state.grad_norm = norm;
    run->last_loss = sums->loss * mean;
    return FV_OK;
}

static void count_step(fv_run *run, const fv_sums *sums, double seconds)
{
    fv_train_state *s = &run->state;
    s->step++;
    s->tokens += sums->seen;
    s->seconds += seconds;
    s->window.loss += sums->loss;
    s->window.correct += sums->correct;
    s->window.tokens += sums->tokens;
    s->window.seen += sums->seen;
    run->spent += seconds;
    run->spent_tokens += sums->seen;
    run->window_spent += seconds;
    run->dirty = true;
}

static fv_status step_once(fv_run *run)
{
    double begin = fv_now();
    fv_sums sums = {0};
    TRY(redraw(run));
    TRY(accumulate(run, &sums));
    TRY(update(run, &sums));
    double now = fv_now();
    count_step(run, &sums, now - begin);
    if (run->first_step == 0.0)
        run->first_step = now - run->opened;
    report(run, false);
    return FV_OK;
}

/* ---- what falls due ------------------------------------------------------------------------------ */

static bool every(int64_t step, int64_t period)
{
    return period > 0 && step > 0 && step % period == 0;
}

static bool out_of_patience(const fv_run *run)
{
    return run->early_stop > 0 && run->state.patience >= run->early_stop;
}

static bool at_end(const fv_run *run)
{
    return run->state.step >= run->steps || out_of_patience(run);
}

/* The line of the steps since the last one. */
static fv_status log_steps(fv_run *run)
{
    fv_train_state *s = &run->state;
    if (s->window.tokens == 0)
        return FV_OK;
    fv_metrics metrics = fv_metrics_of(&s->window);
    TRY(add_line(run, FV_SPLIT_TRAIN, &metrics, s->window.seen, run->plan.cost.flop_step, run->window_spent));
    s->window = (fv_sums){0};
    run->window_spent = 0.0;
    run->dirty = true;
    return FV_OK;
}

static fv_status save_best(fv_run *run)
{
    fv_path best;
    TRY(fv_path_join(run->ctx, &best, run->directory, "best"));
    TRY(fv_directory_make(run->ctx, best.text, NULL));
    return fv_model_save(run->model, best.text);
}

/* Notes an evaluation and keeps the model when it is the best so far. */
static fv_status judge(fv_run *run, const fv_metrics *metrics)
{
    fv_train_state *s = &run->state;
    s->valid = (fv_evaluation){s->step, *metrics};
    run->dirty = true;
    if (s->best.step >= 0 && metrics->loss >= s->best.metrics.loss) {
        s->patience++;
        return FV_OK;
    }
    s->best = s->valid;
    s->patience = 0;
    return save_best(run);
}

static fv_status evaluate(fv_run *run)
{
    fv_sums sums = {0};
    double begin = fv_now();
    run->batch_valid = false;
    fv_status status = fv_evaluate_split(run->ctx, run->model, run->data, FV_SPLIT_VALID, run->eval_batches,
                                         &run->options->observer, NULL, &sums, NULL);
    if (!isfinite(sums.loss))
        return diverged(run, "validation loss", sums.loss, run->state.step);
    if (sums.tokens > 0)
        run->proven_step = run->state.step;
    TRY(status);
    double seconds = fv_now() - begin;
    run->state.seconds += seconds;
    fv_metrics metrics = fv_metrics_of(&sums);
    TRY(add_line(run, FV_SPLIT_VALID, &metrics, sums.seen, run->plan.cost.flop_forward, seconds));
    return judge(run, &metrics);
}

static bool evaluation_due(const fv_run *run)
{
    const fv_train_state *s = &run->state;
    bool due = s->step >= run->steps || every(s->step, run->eval_every);
    return due && s->valid.step != s->step && run->plan.data.split_records[FV_SPLIT_VALID] > 0;
}

/* FV_ERR_FAILED unless the parameters as they are give a finite loss on a batch. */
static fv_status prove(fv_run *run)
{
    if (run->proven_step == run->state.step || !run->batch_valid)
        return FV_OK; /* proven, or as read from the checkpoint */
    double loss = 0.0;
    int64_t correct = 0;
    TRY(fv_model_evaluate(run->model, &run->batch, &loss, &correct));
    if (!isfinite(loss))
        return diverged(run, "loss after the step", loss, run->state.step);
    run->proven_step = run->state.step;
    return FV_OK;
}

static fv_status save(fv_run *run)
{
    if (!run->dirty)
        return FV_OK;
    TRY(prove(run));
    TRY(fv_metrics_sync(run->ctx, &run->metrics, &run->state.metrics_bytes));
    TRY(fv_checkpoint_write(run->ctx, run->directory, run->config, run->model, run->optimizer, &run->state));
    run->dirty = false;
    return FV_OK;
}

static fv_status stop(fv_run *run)
{
    TRY(save(run));
    report(run, true);
    return fv_fail(run->ctx, FV_STOPPED, "stopped after step %lld of %lld; continue with --resume",
                   (long long)run->state.step, (long long)run->steps);
}

/* Everything due at the present step. Done again after a resume, it does only what was left. */
static fv_status settle(fv_run *run)
{
    int64_t step = run->state.step;
    if (every(step, run->log_every) || at_end(run))
        TRY(log_steps(run));
    if (asked_to_stop(run) && step < run->steps)
        return stop(run);
    if (evaluation_due(run)) {
        fv_status status = evaluate(run);
        if (status == FV_STOPPED)
            return stop(run);
        TRY(status);
    }
    if (at_end(run))
        TRY(log_steps(run)); /* patience ended just now */
    if (every(step, run->checkpoint_every) || at_end(run))
        TRY(save(run));
    return FV_OK;
}

/* ---- the run ------------------------------------------------------------------------------------- */

fv_status fv_run_steps(fv_run *run)
{
    run->began = fv_now();
    TRY(settle(run));
    while (!at_end(run)) {
        TRY(step_once(run));
        TRY(settle(run));
    }
    report(run, true);
    return FV_OK;
}

fv_status fv_train(fv_context *ctx, const fv_config *config, const fv_train_options *options,
                   fv_train_result *result)
{
    fv_run run;
    const char *dtype = fv_context_dtype(ctx);
    fv_status status = fv_run_open(&run, ctx, config, options);
    if (status == FV_OK)
        status = fv_run_steps(&run);
    *result = (fv_train_result){
        .steps = run.state.step,
        .valid = run.state.valid.metrics,
        .best = run.state.best.metrics,
        .stopped_early = run.steps > run.state.step && out_of_patience(&run),
        .first_step_seconds = run.first_step,
    };
    fv_run_close(&run);
    (void)fv_context_set_dtype(ctx, dtype);
    return status;
}
