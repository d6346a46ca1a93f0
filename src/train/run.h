/* train/run.h: a training run while it runs: what run.c sets up and loop.c moves. */
#ifndef FV_TRAIN_RUN_H
#define FV_TRAIN_RUN_H

#include "train/internal.h"

typedef struct fv_run {
    fv_context *ctx;
    const fv_train_options *options;
    const char *directory;
    fv_config *config; /* the settings in force */
    bool resumed;
    bool made;      /* the directory was not there */
    bool committed; /* it holds a checkpoint */

    fv_model *model;
    fv_optimizer *optimizer;
    fv_schedule schedule;
    fv_data *data;
    fv_train_plan plan;
    fv_train_state state;
    fv_metrics_file metrics;

    /* settings asked for every step */
    uint64_t seed;
    int64_t steps, accumulate, redraw, log_every, eval_every, eval_batches, checkpoint_every, early_stop;

    fv_batch batch;       /* the last one of the training split */
    bool batch_valid;     /* its arrays are (no other split was read since) */
    bool dirty;           /* the state differs from the last checkpoint */
    int64_t proven_step;  /* the parameters of this step gave a finite loss; -1: none */
    double last_loss;     /* nats a token of the last step, NaN before it */
    double peak_flops;    /* sgemm rate, FLOP a second; 0: not measured yet */
    double opened;        /* fv_now() when fv_train was called */
    double first_step;    /* seconds from then to the end of the first step of this process; 0 before it */
    double began;         /* fv_now() at the first step of this process */
    double last_report;   /* fv_now() of the last progress */
    double spent;         /* seconds in steps, this process */
    int64_t spent_tokens; /* tokens of these */
    double window_spent;  /* the same since the last line of split train */
} fv_run;

/* Opens the directory, settles the settings, builds everything and reads the checkpoint when there is one.
 * fv_run_close whatever the status. */
fv_status fv_run_open(fv_run *run, fv_context *ctx, const fv_config *given, const fv_train_options *options);
void fv_run_close(fv_run *run);

/* Bytes that measuring the peak will need beside those of the model and its passes. */
size_t fv_run_peak_bytes(const fv_run *run);

/* Steps to the end. */
fv_status fv_run_steps(fv_run *run);

/* Evaluates up to `limit` batches (0: all) of a split; adds to *sums and, when counts is not NULL, the
 * unigram baseline to *empirical. FV_STOPPED when the observer asks, after a batch at least. */
fv_status fv_evaluate_split(fv_context *ctx, fv_model *model, fv_data *data, fv_split split, int64_t limit,
                            const fv_observer *observer, const int64_t *counts, fv_sums *sums,
                            fv_sums *empirical);

#endif
