/* support/tiny_run.h: training runs of a few milliseconds on made-up proteins. */
#ifndef FV_TESTS_TINY_RUN_H
#define FV_TESTS_TINY_RUN_H

#include "support/scratch.h"
#include <favor/train.h>

/* Writes 60 proteins of 20 to 80 letters with a simple grammar into the scratch directory. */
const char *tiny_proteins(void);

/* Writes classify.tsv, match.tsv and translate.tsv into the scratch directory: 60 records each. */
void tiny_columns(void);

/* Settings of a model of 16 channels and 2 layers (features and dropout included) that trains lm on 2 x 32
 * tokens a step; then key, value, ..., NULL. */
fv_config *tiny_run_config(fv_context *ctx, ...);
void tiny_set(fv_config *config, const char *key, const char *value);

/* fv_train on the proteins (proteins.fasta in the scratch directory), or with a task that reads columns on the
 * file of its name, into scratch directory `name`. */
fv_status tiny_train(fv_context *ctx, const fv_config *config, const char *name, int resume,
                     fv_train_result *result);
/* The same, asked to stop after `steps` steps of this call. */
fv_status tiny_train_until(fv_context *ctx, const fv_config *config, const char *name, int steps);

/* metrics.jsonl of a run without the objects "timing"; free it. */
char *tiny_metrics(const char *name);
/* The number at `key` of the run's line `index` (from 0) of split `split`; NaN past the last one. */
double tiny_metric(const char *name, const char *split, int index, const char *key);
/* A whole file of a run; free it. */
char *tiny_file(const char *name, const char *file, size_t *count);
/* Asserts that the last model of two runs is the same, bit for bit. */
void tiny_same_model(const char *a, const char *b);
/* Removes a run directory. */
void tiny_remove(const char *name);

#endif
