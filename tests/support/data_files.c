/* support/data_files.c: see data_files.h. */
#include "support/data_files.h"
#include "support/one_context.h"
#include "support/scratch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

fv_status data_try(fv_data **data, const char *settings, const char *const *files, int64_t count)
{
    char text[512];
    fv_config *config = NULL;
    assert_int_equal(fv_config_create(&config, ctx), FV_OK);
    snprintf(text, sizeof text, "%s", settings);
    for (char *pair = strtok(text, " "); pair != NULL; pair = strtok(NULL, " ")) {
        char *value = strchr(pair, '=');
        *value = '\0';
        assert_int_equal(fv_config_set(config, pair, value + 1), FV_OK);
    }
    fv_status status = fv_data_open(data, ctx, config, files, count);
    fv_config_destroy(config);
    return status;
}

fv_data *data_open_files(const char *settings, const char *const *files, int64_t count)
{
    fv_data *data = NULL;
    fv_status status = data_try(&data, settings, files, count);
    if (status != FV_OK)
        fail_msg("%s", fv_context_message(ctx));
    return data;
}

fv_data *data_open_one(const char *settings, const char *path)
{
    return data_open_files(settings, &path, 1);
}

const char *data_records(const char *name, int records, unsigned salt)
{
    char *text = malloc((size_t)records * 128), *at = text;
    unsigned random = salt;
    for (int i = 0; i < records; i++) {
        at += sprintf(at, ">s%u_%d\n", salt, i);
        for (int k = 0; k < 1 + i * 37 % 90; k++) {
            random = random * 1664525 + 1013904223;
            *at++ = "ACDEFGHIKLMNPQRSTVWY"[(random >> 16) % 20];
        }
        *at++ = '\n';
    }
    const char *path = scratch_write(name, text, (size_t)(at - text));
    free(text);
    return path;
}

/* A data_digest of a batch: equal for equal batches. */
uint64_t data_digest(const fv_batch *batch)
{
    uint64_t h = fv_hash(batch->inputs, (size_t)batch->tokens * sizeof *batch->inputs);
    h = h * 31 + fv_hash(batch->targets, (size_t)batch->tokens * sizeof *batch->targets);
    h = h * 31 + fv_hash(batch->offsets, (size_t)(batch->sequences + 1) * sizeof *batch->offsets);
    return h * 31 + (uint64_t)batch->predicted;
}

uint64_t data_digest_at(fv_data *data, fv_split split, int64_t index)
{
    fv_batch batch;
    if (fv_data_batch(data, split, index, &batch) != FV_OK)
        fail_msg("%s", fv_context_message(ctx));
    return data_digest(&batch);
}
