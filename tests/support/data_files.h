/* support/data_files.h: data sets from settings and files, in the context of one_context.h. */
#ifndef DATA_FILES_H
#define DATA_FILES_H

#include "base/internal.h"
#include "data/data.h"

#define ALL_TRAIN "valid_fraction=0 test_fraction=0 "
#define ALL_VALID "valid_fraction=1 test_fraction=0 "

/* Opens files with settings "key=value key=value"; the others fail the running test when it fails. */
fv_status data_try(fv_data **data, const char *settings, const char *const *files, int64_t count);
fv_data *data_open_files(const char *settings, const char *const *files, int64_t count);
fv_data *data_open_one(const char *settings, const char *path);
/* A FASTA file of `records` sequences, number i of length 1 + i * 37 % 90, letters by number. */
const char *data_records(const char *name, int records, unsigned salt);
/* A digest of a batch: equal for equal batches. */
uint64_t data_digest(const fv_batch *batch);
uint64_t data_digest_at(fv_data *data, fv_split split, int64_t index);

#endif
