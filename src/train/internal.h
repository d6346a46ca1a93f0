/* train/internal.h: what the files of this room share: the optimizer, the run directory, the state of a run.
 */
#ifndef FV_TRAIN_INTERNAL_H
#define FV_TRAIN_INTERNAL_H

#include "base/internal.h"
#include "model/internal.h"
#include <favor/tensors.h>
#include <favor/train.h>
#include <limits.h>

/* ---- schedule -------------------------------------------------------------------------------------- */

/* Learning rate of step t = 1 .. steps: peak times the schedule's factor. */
typedef struct fv_schedule {
    double (*factor)(double t, double warmup, double steps);
    double peak, warmup, steps;
} fv_schedule;

/* Of the keys schedule, learning_rate, warmup_steps, steps; FV_ERR_USAGE for an unknown name. */
fv_status fv_schedule_make(fv_schedule *schedule, fv_context *ctx, const fv_config *config);
double fv_schedule_rate(const fv_schedule *schedule, int64_t step);

/* ---- optimizer -------------------------------------------------------------------------------------- */

typedef struct fv_optimizer fv_optimizer;

fv_status fv_optimizer_create(fv_optimizer **optimizer, fv_context *ctx, fv_model *model,
                              const fv_config *config);
void fv_optimizer_destroy(fv_optimizer *optimizer);
/* Euclidean norm of all gradients. */
double fv_optimizer_norm(fv_optimizer *optimizer);
/* What clipping multiplies gradients of this norm by. */
double fv_optimizer_clip(const fv_optimizer *optimizer, double norm);
/* AdamW step t = 1, 2, ... with gradients times `factor`; leaves the gradients zero. */
void fv_optimizer_step(fv_optimizer *optimizer, int64_t t, double rate, double factor);
void fv_optimizer_clear(fv_optimizer *optimizer); /* gradients = 0 */
/* Moments, laid out as fv_model_values. */
float *fv_optimizer_mean(fv_optimizer *optimizer);
float *fv_optimizer_square(fv_optimizer *optimizer);

/* ---- metrics ---------------------------------------------------------------------------------------- */

/* Sums over predicted tokens. */
typedef struct fv_sums {
    double loss; /* nats */
    int64_t correct, tokens;
    int64_t seen; /* tokens of the batches, predicted or not; for rates, never stored */
} fv_sums;

fv_metrics fv_metrics_of(const fv_sums *sums); /* all 0 without tokens */

/* One line of metrics.jsonl. */
typedef struct fv_metrics_line {
    int64_t step, tokens;
    fv_split split;
    fv_metrics metrics;
    double learning_rate, grad_norm;
    double seconds, tokens_per_s, share_of_peak; /* the object "timing" */
} fv_metrics_line;

/* The line as JSON without a newline; free with fv_free. NULL without memory. */
char *fv_metrics_json(fv_context *ctx, const fv_metrics_line *line);

/* ---- the state of a run ----------------------------------------------------------------------------- */

typedef struct fv_data_file {
    char *path;
    int64_t bytes;
} fv_data_file;

/* An evaluation on the valid split; step -1: none yet. */
typedef struct fv_evaluation {
    int64_t step;
    fv_metrics metrics;
} fv_evaluation;

/* What trainer.json keeps, beside the settings. */
typedef struct fv_train_state {
    int64_t step;          /* steps done */
    int64_t tokens;        /* seen by these steps */
    int64_t draw;          /* of the projections */
    int64_t patience;      /* evaluations since the best one */
    int64_t metrics_bytes; /* length of metrics.jsonl */
    double seconds;        /* over all runs of the directory */
    double grad_norm;      /* of the last step */
    fv_sums window;        /* steps since the last line of split train */
    fv_evaluation valid, best;
    int64_t unigram[FV_COUNT(((fv_data_summary *)0)->counts)];
    fv_data_file *files;
    int64_t file_count;
} fv_train_state;

void fv_train_state_init(fv_train_state *state);
void fv_train_state_free(fv_context *ctx, fv_train_state *state);
/* Notes the files and their sizes. */
fv_status fv_train_state_set_files(fv_context *ctx, fv_train_state *state, const char *const *files,
                                   int64_t count);

/* Fingerprints of the files beside trainer.json; see checkpoint.c. */
typedef struct fv_fingerprints {
    uint64_t model, trainer;
} fv_fingerprints;

/* trainer.json: state and the FV_CONFIG_TRAIN keys of `config`, both ways. Reading sets the keys in
 * `settings` and fills *state, to be freed on success. */
fv_status fv_trainer_write(fv_context *ctx, const char *path, const fv_config *config,
                           const fv_train_state *state, const fv_fingerprints *prints);
fv_status fv_trainer_read(fv_context *ctx, const char *path, fv_config *settings, fv_train_state *state,
                          fv_fingerprints *prints);

/* ---- the run directory ------------------------------------------------------------------------------ */

typedef struct fv_path {
    char text[PATH_MAX];
} fv_path;

/* path = directory/name; FV_ERR_USAGE when it is too long. */
fv_status fv_path_join(fv_context *ctx, fv_path *path, const char *directory, const char *name);
bool fv_path_exists(const char *directory, const char *name);
/* Makes a directory and its parents; an existing one is fine. *made (may be NULL): it was not there. */
fv_status fv_directory_make(fv_context *ctx, const char *path, bool *made);
fv_status fv_directory_sync(fv_context *ctx, const char *path);
void fv_directory_remove(const char *path);       /* with the files in it */
void fv_directory_remove_parts(const char *path); /* files that an interrupted write left */

/* An open metrics.jsonl, which is also the lock of the directory. */
typedef struct fv_metrics_file {
    int fd;
    fv_path path;
} fv_metrics_file;

/* FV_ERR_USAGE when another process trains in the directory. */
fv_status fv_metrics_open(fv_context *ctx, fv_metrics_file *file, const char *directory);
fv_status fv_metrics_append(fv_context *ctx, fv_metrics_file *file, const char *line);
fv_status fv_metrics_cut(fv_context *ctx, fv_metrics_file *file, int64_t bytes);
fv_status fv_metrics_sync(fv_context *ctx, fv_metrics_file *file, int64_t *bytes);
void fv_metrics_close(fv_metrics_file *file);
bool fv_metrics_empty(const fv_metrics_file *file);

/* ---- checkpoints ------------------------------------------------------------------------------------ */

/* Writes a whole checkpoint; after a crash at any moment the directory holds this one or the one before. */
fv_status fv_checkpoint_write(fv_context *ctx, const char *directory, const fv_config *config,
                              const fv_model *model, fv_optimizer *optimizer, const fv_train_state *state);
/* Completes what a crash interrupted. Call before anything is read, holding the lock. */
fv_status fv_checkpoint_recover(fv_context *ctx, const char *directory);
/* Reads config.json and trainer.json into new settings and a state, both the caller's on success. */
fv_status fv_checkpoint_read(fv_context *ctx, const char *directory, fv_config **settings,
                             fv_train_state *state, fv_fingerprints *prints);
/* Holds the fingerprints against the tensor files. */
fv_status fv_checkpoint_verify(fv_context *ctx, const char *directory, const fv_fingerprints *prints);
/* Reads the moments. */
fv_status fv_checkpoint_read_moments(fv_context *ctx, const char *directory, const fv_model *model,
                                     fv_optimizer *optimizer);

/* ---- resuming --------------------------------------------------------------------------------------- */

/* The settings a new run really has: *whole is `given` with what follows from other keys filled in. */
fv_status fv_settings_complete(fv_config **whole, fv_context *ctx, const fv_config *given);
/* The settings of a continued run: *whole is what the run was started with, but for the keys that may
 * change. Another key given and different is FV_ERR_USAGE, naming it. */
fv_status fv_settings_resume(fv_config **whole, fv_context *ctx, const fv_config *given,
                             const fv_config *run);
/* Number and sizes of the files as when the run began. */
fv_status fv_settings_check_files(fv_context *ctx, const fv_train_state *state, const char *const *files,
                                  int64_t count);

#endif
