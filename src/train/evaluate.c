/* evaluate.c: the loss of a model over a split, beside the unigram baseline of its training data. */
#include "train/run.h"
#include <math.h>
#include <string.h>

/* Reports at most four times a second. */
typedef struct reporter {
    const fv_observer *observer;
    double began, last;
} reporter;

static void report(reporter *r, int64_t batches, int64_t limit, const fv_sums *sums)
{
    double now = fv_now();
    if (r->observer == NULL || r->observer->progress == NULL || now - r->last < 0.25)
        return;
    r->last = now;
    double seconds = now - r->began;
    fv_progress progress = {
        .phase = "evaluate",
        .done = batches,
        .total = limit,
        .unit = "batch",
        .rate = seconds > 0.0 ? (double)sums->seen / seconds : 0.0,
        .seconds_left = limit > 0 ? seconds / (double)batches * (double)(limit - batches) : -1.0,
        .loss = sums->tokens > 0 ? sums->loss / (double)sums->tokens : (double)NAN,
    };
    r->observer->progress(r->observer->user, &progress);
}

static bool asked_to_stop(const fv_observer *observer)
{
    return observer != NULL && observer->stop != NULL && observer->stop(observer->user) != 0;
}

fv_status fv_evaluate_split(fv_context *ctx, fv_model *model, fv_data *data, fv_split split, int64_t limit,
                            const fv_observer *observer, const int64_t *counts, fv_sums *sums,
                            fv_sums *empirical)
{
    reporter r = {observer, fv_now(), fv_now()};
    for (int64_t i = 0; limit == 0 || i < limit; i++) {
        fv_batch batch;
        TRY(fv_data_batch(data, split, i, &batch));
        if (batch.tokens == 0)
            break;
        TRY(fv_model_evaluate(model, &batch, &sums->loss, &sums->correct));
        sums->tokens += batch.predicted;
        sums->seen += batch.tokens;
        int64_t classes = batch.labels != NULL ? fv_config_int(fv_model_config(model), "num_labels")
                                               : fv_model_tokenizer(model)->letters;
        if (counts != NULL)
            fv_empirical_add((int32_t)classes, counts, &batch, &empirical->tokens, &empirical->loss,
                             &empirical->correct);
        report(&r, i + 1, limit, sums);
        if (i + 1 != limit && asked_to_stop(observer))
            return fv_fail(ctx, FV_STOPPED, "stopped after %lld batches", (long long)(i + 1));
    }
    return FV_OK;
}

/* What fv_evaluate holds. */
typedef struct evaluation {
    fv_config *settings;
    fv_train_state state;
    fv_model *model;
    fv_data *data;
} evaluation;

static fv_status open_evaluation(evaluation *e, fv_context *ctx, const char *directory,
                                 const char *const *files, int64_t file_count)
{
    fv_fingerprints prints;
    fv_train_state_init(&e->state);
    TRY(fv_checkpoint_read(ctx, directory, &e->settings, &e->state, &prints));
    TRY(fv_model_load(&e->model, ctx, directory, false));
    if (fv_path_exists(directory, "best/model.safetensors")) {
        /* The last one was read all the same, so that a damaged run is not taken for a sound one. */
        fv_model_destroy(e->model);
        e->model = NULL;
        TRY(fv_model_load(&e->model, ctx, directory, true));
    }
    if (file_count > 0)
        return fv_data_open(&e->data, ctx, e->settings, files, file_count);
    const char **stored = fv_alloc_array(ctx, e->state.file_count, sizeof *stored);
    if (stored == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < e->state.file_count; i++)
        stored[i] = e->state.files[i].path;
    fv_status status = fv_data_open(&e->data, ctx, e->settings, stored, e->state.file_count);
    fv_free(ctx, stored);
    return status;
}

static void close_evaluation(evaluation *e, fv_context *ctx)
{
    fv_data_close(e->data);
    fv_model_destroy(e->model);
    fv_train_state_free(ctx, &e->state);
    fv_config_destroy(e->settings);
}

static fv_status run_evaluation(evaluation *e, fv_context *ctx, fv_split split, const fv_observer *observer,
                                fv_metrics *model, fv_metrics *empirical)
{
    fv_sums sums = {0}, baseline = {0};
    TRY(fv_evaluate_split(ctx, e->model, e->data, split, 0, observer, e->state.unigram, &sums, &baseline));
    if (sums.tokens == 0)
        return fv_fail(ctx, FV_ERR_FILE,
                       "the split %s holds nothing to predict; choose another one, or give more data",
                       fv_split_name(split));
    if (!isfinite(sums.loss))
        return fv_fail(ctx, FV_ERR_FAILED, "the loss on the split %s is %g; the model cannot be used",
                       fv_split_name(split), sums.loss);
    *model = fv_metrics_of(&sums);
    *empirical = fv_metrics_of(&baseline);
    return FV_OK;
}

fv_status fv_evaluate(fv_context *ctx, const char *directory, const char *const *files, int64_t file_count,
                      fv_split split, const fv_observer *observer, fv_metrics *model, fv_metrics *empirical)
{
    evaluation e = {0};
    fv_status status = open_evaluation(&e, ctx, directory, files, file_count);
    if (status == FV_OK)
        status = run_evaluation(&e, ctx, split, observer, model, empirical);
    close_evaluation(&e, ctx);
    return status;
}
