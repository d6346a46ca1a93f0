/* data.c: a data set: its settings, its files, and batch number i of a split. */
#include "data/data.h"
#include <string.h>

#define MAX_TOKENS ((int64_t)1 << 36) /* of a batch: 1 TiB of ids, targets and offsets */

static fv_status check_shares(fv_context *ctx, const fv_data_settings *settings)
{
    double held_out = settings->valid_fraction + settings->test_fraction;
    double replaced = settings->mask_symbol_share + settings->mask_random_share;
    if (held_out > 1)
        return fv_fail(ctx, FV_ERR_USAGE, "valid_fraction + test_fraction is %g, expected at most 1",
                       held_out);
    if (replaced > 1 + 1e-9)
        return fv_fail(ctx, FV_ERR_USAGE, "mask_symbol_share + mask_random_share is %g, expected at most 1",
                       replaced);
    return FV_OK;
}

/* The tokenizer is the reader's unless one was given. */
static const fv_tokenizer *choose_tokenizer(const fv_config *config, const fv_reader_row *reader)
{
    if (reader == NULL || fv_config_is_set(config, "tokenizer"))
        return fv_tokenizer_find(fv_config_text(config, "tokenizer"));
    return fv_tokenizer_find(reader->kind.tokenizer);
}

static fv_status read_settings(fv_context *ctx, const fv_config *config, fv_data_settings *settings)
{
    *settings = (fv_data_settings){
        .reader = fv_reader_row_find(fv_config_text(config, "reader")),
        .packing = fv_packing_find(fv_config_text(config, "packing")),
        .task = fv_task_find(fv_config_text(config, "task")),
        .seed = (uint64_t)fv_config_int(config, "seed"),
        .length = fv_config_int(config, "length"),
        .batch = fv_config_int(config, "batch"),
        .valid_fraction = fv_config_real(config, "valid_fraction"),
        .test_fraction = fv_config_real(config, "test_fraction"),
        .labels = fv_config_int(config, "num_labels"),
        .mask_rate = fv_config_real(config, "mask_rate"),
        .mask_symbol_share = fv_config_real(config, "mask_symbol_share"),
        .mask_random_share = fv_config_real(config, "mask_random_share"),
        .shuffle_buffer = fv_config_int(config, "shuffle_buffer"),
    };
    settings->tokenizer = choose_tokenizer(config, settings->reader);
    if (settings->reader == NULL || settings->packing == NULL || settings->task == NULL ||
        settings->tokenizer == NULL)
        return fv_fail(ctx, FV_ERR_INTERNAL,
                       "the settings table names a reader, packing, task or tokenizer that "
                       "does not exist");
    if (!fv_mul(settings->length, settings->batch, &settings->capacity) || settings->capacity > MAX_TOKENS)
        return fv_fail(ctx, FV_ERR_USAGE, "length x batch = %lld x %lld tokens are too many for one batch",
                       (long long)settings->length, (long long)settings->batch);
    if (settings->task->texts > 0)
        settings->packing = &fv_packing_records;
    TRY(fv_task_check(ctx, config));
    return check_shares(ctx, settings);
}

fv_status fv_data_reader(fv_data *data, int64_t index, fv_reader **reader)
{
    return fv_reader_open(reader, data->ctx, data->settings.reader->kind.name, data->files[index]);
}

fv_split fv_data_split(const fv_data *data, const fv_reader *reader, const fv_sequence *sequence)
{
    /* Places run through the multiples of the golden ratio: any 1/f of them in a row hold about one of a
     * share f, however few there are. The record at hand is number index - 1. */
    uint64_t key = data->settings.reader->by_position ? (uint64_t)reader->index * 0x9e3779b97f4a7c15u
                                                      : fv_hash(sequence->ids, (size_t)sequence->length);
    return fv_split_of(key, data->settings.valid_fraction, data->settings.test_fraction);
}

static fv_status take_files(fv_data *data, const char *const *files, int64_t count)
{
    if (count < 1)
        return fv_fail(data->ctx, FV_ERR_USAGE, "no data file was given");
    data->files = fv_alloc_zero(data->ctx, count, sizeof *data->files);
    if (data->files == NULL)
        return FV_ERR_RESOURCE;
    for (data->file_count = 0; data->file_count < count; data->file_count++) {
        char *copy = fv_strdup(data->ctx, files[data->file_count]);
        if (copy == NULL)
            return FV_ERR_RESOURCE;
        data->files[data->file_count] = copy;
    }
    return FV_OK;
}

/* Opens and closes each file, to find a wrong one before the work begins. */
static fv_status check_files(fv_data *data)
{
    for (int64_t i = 0; i < data->file_count; i++) {
        fv_reader *reader;
        TRY(fv_data_reader(data, i, &reader));
        bool regular = reader->source.regular;
        fv_reader_close(reader);
        if (!regular)
            return fv_fail(data->ctx, FV_ERR_FILE,
                           "%s: a pipe or device; data is read more than once, so it must be a file",
                           data->files[i]);
    }
    return FV_OK;
}

/* The lists of a batch. A task that reads columns has few sequences, one that does not perhaps a token each. */
static fv_status allocate(fv_data *data)
{
    const fv_data_settings *s = &data->settings;
    fv_context *ctx = data->ctx;
    fv_packed *p = &data->packed;
    int64_t tokens = s->capacity * s->task->sequences;
    int64_t sequences = s->task->texts > 0 ? s->batch * s->task->sequences : s->capacity;
    bool labels = s->task->has_label, source = s->task->texts > 1 && !labels;
    p->tokens = fv_alloc_array(ctx, tokens, sizeof *p->tokens);
    p->offsets = fv_alloc_array(ctx, sequences + 1, sizeof *p->offsets);
    p->targets = fv_alloc_array(ctx, labels ? 0 : tokens, sizeof *p->targets);
    p->labels = fv_alloc_array(ctx, labels ? s->batch : 0, sizeof *p->labels);
    p->source = fv_alloc_array(ctx, source ? s->capacity : 0, sizeof *p->source);
    p->source_offsets = fv_alloc_array(ctx, sequences + 1, sizeof *p->source_offsets);
    bool done = p->tokens != NULL && p->offsets != NULL && p->targets != NULL && p->labels != NULL &&
                p->source != NULL && p->source_offsets != NULL;
    return done ? FV_OK : FV_ERR_RESOURCE;
}

static fv_status open_data(fv_data *data, const fv_config *config, const char *const *files, int64_t count)
{
    TRY(read_settings(data->ctx, config, &data->settings));
    fv_tokenizer_fill_map(data->settings.tokenizer, &data->map);
    TRY(take_files(data, files, count));
    TRY(check_files(data));
    data->train_tokens = data->train_records = -1;
    return allocate(data);
}

fv_status fv_data_open(fv_data **out, fv_context *ctx, const fv_config *config, const char *const *files,
                       int64_t file_count)
{
    *out = NULL;
    fv_data *data = fv_alloc_zero(ctx, 1, sizeof *data);
    if (data == NULL)
        return FV_ERR_RESOURCE;
    data->ctx = ctx;
    for (int split = 0; split <= FV_SPLIT_ALL; split++)
        data->packers[split].feed.split = (fv_split)split;
    fv_status status = open_data(data, config, files, file_count);
    if (status != FV_OK)
        fv_data_close(data);
    else
        *out = data;
    return status;
}

void fv_data_close(fv_data *data)
{
    if (data == NULL)
        return;
    for (int split = 0; split <= FV_SPLIT_ALL; split++)
        fv_feed_close(&data->packers[split].feed);
    for (int64_t i = 0; i < data->file_count; i++)
        fv_free(data->ctx, data->files[i]);
    fv_free(data->ctx, data->files);
    fv_free(data->ctx, data->packed.tokens);
    fv_free(data->ctx, data->packed.offsets);
    fv_free(data->ctx, data->packed.targets);
    fv_free(data->ctx, data->packed.labels);
    fv_free(data->ctx, data->packed.source);
    fv_free(data->ctx, data->packed.source_offsets);
    fv_free(data->ctx, data);
}

const fv_tokenizer *fv_data_tokenizer(const fv_data *data)
{
    return data->settings.tokenizer;
}

/* Moves to the batch and lays it out. */
static fv_status lay_out(fv_data *data, fv_packer *packer, int64_t index)
{
    const fv_packing_row *packing = data->settings.packing;
    if (!packer->started || packer->next != index)
        TRY(packing->seek(data, packer, index, &data->packed));
    packer->started = true;
    packer->next = index + 1;
    return packing->next(data, packer, &data->packed);
}

fv_status fv_data_batch(fv_data *data, fv_split split, int64_t index, fv_batch *batch)
{
    memset(batch, 0, sizeof *batch);
    if ((unsigned)split > FV_SPLIT_ALL || index < 0)
        return fv_fail(data->ctx, FV_ERR_USAGE, "there is no batch %lld of split %d", (long long)index,
                       (int)split);
    fv_packer *packer = &data->packers[split];
    fv_status status = lay_out(data, packer, index);
    if (status != FV_OK) {
        packer->started = false; /* nobody knows where it stands */
        return status;
    }
    fv_packed *packed = &data->packed;
    const fv_task_row *task = data->settings.task;
    *batch = (fv_batch){.tokens = packed->count,
                        .sequences = packed->sequences,
                        .inputs = packed->tokens,
                        .targets = task->has_label ? NULL : packed->targets,
                        .offsets = packed->offsets,
                        .predicted = packed->predicted,
                        .labels = task->has_label ? packed->labels : NULL};
    if (task->texts > 1 && !task->has_label) {
        batch->source_tokens = packed->source_count;
        batch->source = packed->source;
        batch->source_offsets = packed->source_offsets;
    }
    if (packed->count > 0 && task->apply != NULL)
        batch->predicted = task->apply(&data->settings, split, index, packed->offsets, packed->sequences,
                                       packed->tokens, packed->targets);
    return FV_OK;
}
