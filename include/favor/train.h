/* favor/train.h: training runs.
 *
 * A run directory holds config.json and model.safetensors (the last checkpoint), best/ (the same two files at
 * the best validation loss), trainer.json and trainer.safetensors (settings, optimizer, step), metrics.jsonl.
 * While a checkpoint is written there is a directory checkpoint.part or checkpoint too; a run killed at any
 * moment is continued from the last whole checkpoint, and ends with the bits and lines of one never killed.
 */
#ifndef FAVOR_TRAIN_H
#define FAVOR_TRAIN_H

#include <favor/base.h>
#include <favor/config.h>
#include <favor/data.h>
#include <favor/model.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Loss and its readings, over the predicted tokens of a split. */
typedef struct fv_metrics {
    int64_t tokens;        /* predicted tokens */
    double loss;           /* nats a predicted token */
    double accuracy;       /* share of argmaxes that were right, 0 .. 1 */
    double perplexity;     /* exp(loss) */
    double bits_per_token; /* loss / ln 2 */
} fv_metrics;

/* What a run will need and do; told before the first step. */
typedef struct fv_train_plan {
    const fv_config *config; /* the settings in force (a resumed run keeps its own); valid in the callback */
    fv_model_cost cost;      /* FLOP of a whole step, all its batches */
    fv_data_summary data;
    size_t available_bytes; /* memory of the machine or its limit */
    int64_t first_step;     /* > 0 when resuming */
    int64_t steps;
    int64_t tokens_per_step;
} fv_train_plan;

typedef struct fv_train_options {
    size_t size;
    const char *directory;    /* created when missing */
    const char *const *files; /* training data */
    int64_t file_count;
    int resume; /* continue from the last checkpoint, or start when there is none. Settings not
                 * given keep the run's values; given ones must agree, but for steps, eval_every,
                 * eval_batches, checkpoint_every, early_stop and log_every. 0: an existing run is
                 * FV_ERR_USAGE */
    fv_observer observer;
    void (*plan)(void *user, const fv_train_plan *plan); /* user: observer.user; may be NULL */
} fv_train_options;
FV_API void fv_train_options_init(fv_train_options *options);

typedef struct fv_train_result {
    int64_t steps;             /* done, over all runs of this directory */
    fv_metrics valid;          /* the last evaluation; tokens 0 if there was none */
    fv_metrics best;           /* that of the model in best/ */
    int stopped_early;         /* by patience */
    double first_step_seconds; /* from the call to the end of the first step it did; 0: it did none */
} fv_train_result;

/* Trains. FV_STOPPED after observer.stop (a checkpoint was written). FV_ERR_FAILED on a non-finite loss or
 * gradient, the last good checkpoint kept. FV_ERR_RESOURCE before the first step when the prediction exceeds
 * the memory at hand. */
FV_API FV_NODISCARD fv_status fv_train(fv_context *ctx, const fv_config *config,
                                       const fv_train_options *options, fv_train_result *result);

/* Evaluates the best model of a run, or the last one if none was evaluated, on files (reader, task and
 * masking as trained; file_count 0: the files it was trained on), beside the unigram baseline of its training
 * data (letters only: *empirical counts fewer tokens than *model where ends of sequences are predicted). */
FV_API FV_NODISCARD fv_status fv_evaluate(fv_context *ctx, const char *directory, const char *const *files,
                                          int64_t file_count, fv_split split, const fv_observer *observer,
                                          fv_metrics *model, fv_metrics *empirical);

/* One timed training step after another on synthetic tokens, for `favor bench train`. */
typedef struct fv_step_timing {
    int64_t tokens; /* a step */
    double ms_median, ms_min, ms_max;
    double flop_step; /* model FLOP of what was timed */
    size_t peak_bytes;
} fv_step_timing;
FV_API FV_NODISCARD fv_status fv_time_step(fv_context *ctx, const fv_config *config, int repeat,
                                           fv_step_timing *timing);
/* The same for passes without an optimizer: forward as evaluation does it, keeping nothing (backward = 0), or
 * forward and backward. */
FV_API FV_NODISCARD fv_status fv_time_pass(fv_context *ctx, const fv_config *config, int backward, int repeat,
                                           fv_step_timing *timing);
/* What a training step of these settings will need; no memory is touched. */
FV_API FV_NODISCARD fv_status fv_predict_step(fv_context *ctx, const fv_config *config, fv_model_cost *cost);

#ifdef __cplusplus
}
#endif
#endif
