/* records.c: batches of whole records, for tasks that read columns: a batch has `batch` records, each text cut at
 * `length` tokens. Training goes on from epoch to epoch without end; another split ends with a shorter batch.
 *
 *     classify:   begin text
 *     match:      begin text, begin text: two sequences, a pair
 *     translate:  source: text end; inputs: begin text, targets: text end
 */
#include "data/data.h"

/* Appends at most `length` tokens: `first` (< 0: none), the ids, `last` (< 0: none). */
static void append(int32_t *tokens, int64_t *count, int64_t length, int32_t first, const uint8_t *ids,
                   int64_t n, int32_t last)
{
    int64_t end = *count + length, at = *count;
    if (first >= 0 && at < end)
        tokens[at++] = first;
    for (int64_t i = 0; i < n && at < end; i++)
        tokens[at++] = ids[i];
    if (last >= 0 && at < end)
        tokens[at++] = last;
    *count = at;
}

static void add_sequence(const fv_data *data, fv_packed *packed, const uint8_t *ids, int64_t n)
{
    const fv_data_settings *s = &data->settings;
    append(packed->tokens, &packed->count, s->length, s->tokenizer->begin, ids, n, -1);
    packed->offsets[++packed->sequences] = packed->count;
}

void fv_records_classify(const fv_data *data, const fv_sequence *record, fv_packed *packed)
{
    packed->labels[packed->predicted++] = record->label;
    add_sequence(data, packed, record->ids, record->length);
}

void fv_records_match(const fv_data *data, const fv_sequence *record, fv_packed *packed)
{
    packed->labels[packed->predicted++] = record->label;
    add_sequence(data, packed, record->ids, record->first);
    add_sequence(data, packed, record->ids + record->first, record->length - record->first);
}

void fv_records_translate(const fv_data *data, const fv_sequence *record, fv_packed *packed)
{
    const fv_data_settings *s = &data->settings;
    const uint8_t *ids = record->ids + record->first;
    int64_t n = record->length - record->first, targets = packed->count;
    append(packed->source, &packed->source_count, s->length, -1, record->ids, record->first,
           s->tokenizer->end);
    append(packed->targets, &targets, s->length, -1, ids, n, s->tokenizer->end);
    packed->predicted += targets - packed->count;
    add_sequence(data, packed, ids, n);
    packed->source_offsets[packed->sequences] = packed->source_count;
}

/* ---- batches ------------------------------------------------------------------------------------------- */

static bool is_endless(const fv_packer *packer)
{
    return packer->feed.split == FV_SPLIT_TRAIN;
}

static fv_status start_epoch(fv_data *data, fv_packer *packer, int64_t epoch)
{
    packer->epoch = epoch;
    packer->pieces = 0;
    return fv_feed_start(&packer->feed, data, packer->feed.split, is_endless(packer), epoch);
}

static fv_status no_records(const fv_data *data)
{
    return fv_fail(
        data->ctx, FV_ERR_FILE,
        "%s: no record falls into the train split; give more data or lower valid_fraction (%g) and "
        "test_fraction (%g)",
        data->files[0], data->settings.valid_fraction, data->settings.test_fraction);
}

static fv_status records_next(fv_data *data, fv_packer *packer, fv_packed *packed)
{
    packed->count = packed->sequences = packed->source_count = packed->predicted = 0;
    packed->offsets[0] = packed->source_offsets[0] = 0;
    for (int64_t i = 0; i < data->settings.batch;) {
        fv_sequence record;
        TRY(fv_feed_next(&packer->feed, &record));
        if (record.ids != NULL) {
            data->settings.task->lay_out(data, &record, packed);
            packer->pieces++;
            i++;
        } else if (!is_endless(packer)) {
            break;
        } else if (packer->pieces == 0) {
            return no_records(data);
        } else {
            TRY(start_epoch(data, packer, packer->epoch + 1));
        }
    }
    return FV_OK;
}

/* Records of a training epoch. */
static fv_status count_records(fv_data *data)
{
    fv_feed feed = {0};
    fv_sequence record = {0};
    int64_t records = 0;
    if (data->train_records >= 0)
        return FV_OK;
    fv_status status = fv_feed_start(&feed, data, FV_SPLIT_TRAIN, false, 0);
    while (status == FV_OK && (status = fv_feed_next(&feed, &record)) == FV_OK && record.ids != NULL)
        records++;
    fv_feed_close(&feed);
    if (status == FV_OK)
        data->train_records = records;
    return status;
}

static fv_status records_seek(fv_data *data, fv_packer *packer, int64_t index, fv_packed *scratch)
{
    (void)scratch;
    int64_t record, epoch = 0;
    if (!fv_mul(index, data->settings.batch, &record))
        return fv_fail(data->ctx, FV_ERR_USAGE, "batch number %lld is too large", (long long)index);
    if (is_endless(packer) && record > 0) {
        TRY(count_records(data));
        if (data->train_records == 0)
            return no_records(data);
        epoch = record / data->train_records;
        record = record % data->train_records;
    }
    if (!packer->started || epoch != packer->epoch || record < packer->pieces)
        TRY(start_epoch(data, packer, epoch));
    for (fv_sequence skipped = {.ids = NULL}; packer->pieces < record; packer->pieces++) {
        TRY(fv_feed_next(&packer->feed, &skipped));
        if (skipped.ids == NULL)
            break;
    }
    return FV_OK;
}

const fv_packing_row fv_packing_records = {"records", records_seek, records_next};
