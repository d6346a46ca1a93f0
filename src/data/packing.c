/* packing.c: from sequences to batches of equal cost.
 *
 * concat: every sequence is followed by `end`; the stream of tokens is cut into windows of `length` that do
 * not overlap, each a sequence of its own; a batch is `batch` windows. Training drops the rest at the end of
 * an epoch; evaluation keeps it as a shorter window, so that nothing is lost.
 *
 * sequences: whole sequences, each with its `end`, cropped to `length`, are laid end to end until the next
 * would not fit into batch * length tokens.
 *
 * Training goes on from epoch to epoch without end.
 */
#include "data/data.h"
#include <string.h>

static bool is_endless(const fv_packer *packer)
{
    return packer->feed.split == FV_SPLIT_TRAIN;
}

static fv_status start_epoch(fv_data *data, fv_packer *packer, int64_t epoch)
{
    packer->epoch = epoch;
    packer->pieces = 0;
    packer->current = (fv_sequence){0};
    return fv_feed_start(&packer->feed, data, packer->feed.split, is_endless(packer), epoch);
}

/* Makes sure there is a sequence being laid out, unless the epoch is over (then current.ids is NULL). */
static fv_status need_sequence(fv_packer *packer)
{
    if (packer->current.ids != NULL)
        return FV_OK;
    packer->at = 0;
    return fv_feed_next(&packer->feed, &packer->current);
}

/* An epoch that gave nothing would be followed by others like it for ever. */
static fv_status too_few_tokens(const fv_data *data, int64_t tokens)
{
    if (tokens == 0)
        return fv_fail(data->ctx, FV_ERR_FILE,
                       "%s: no sequence falls into the train split; give more data or lower valid_fraction "
                       "(%g) and test_fraction (%g)",
                       data->files[0], data->settings.valid_fraction, data->settings.test_fraction);
    return fv_fail(
        data->ctx, FV_ERR_FILE,
        "%s: the train split has %lld tokens, too few for one window of %lld; lower length, or give "
        "more data",
        data->files[0], (long long)tokens, (long long)data->settings.length);
}

/* ---- concat -------------------------------------------------------------------------------------------- */

/* Lays out tokens until `room` are there or the epoch is over; *count of them. */
static fv_status fill_window(const fv_data *data, fv_packer *packer, int64_t room, int32_t *tokens,
                             int64_t *count)
{
    for (*count = 0; *count < room;) {
        TRY(need_sequence(packer));
        if (packer->current.ids == NULL)
            return FV_OK;
        int64_t n = FV_MIN(room - *count, packer->current.length - packer->at);
        const uint8_t *ids = packer->current.ids + packer->at;
        for (int64_t i = 0; i < n; i++)
            tokens[*count + i] = ids[i];
        packer->at += n;
        *count += n;
        if (*count < room) {
            tokens[(*count)++] = data->settings.tokenizer->end;
            packer->current = (fv_sequence){0};
        }
    }
    return FV_OK;
}

/* The next window, of `length` tokens when training; 0 tokens at the end of another split. */
static fv_status next_window(fv_data *data, fv_packer *packer, int32_t *tokens, int64_t *count)
{
    for (;;) {
        TRY(fill_window(data, packer, data->settings.length, tokens, count));
        if (*count == data->settings.length || !is_endless(packer)) {
            packer->pieces += *count > 0;
            return FV_OK;
        }
        if (packer->pieces == 0)
            return too_few_tokens(data, *count);
        TRY(start_epoch(data, packer, packer->epoch + 1));
    }
}

static fv_status concat_next(fv_data *data, fv_packer *packer, fv_packed *packed)
{
    packed->count = packed->sequences = 0;
    packed->offsets[0] = 0;
    for (int64_t i = 0; i < data->settings.batch; i++) {
        int64_t count;
        TRY(next_window(data, packer, packed->tokens + packed->count, &count));
        if (count == 0)
            break;
        packed->count += count;
        packed->offsets[++packed->sequences] = packed->count;
    }
    return FV_OK;
}

/* Tokens of a training epoch: the same in each, as the sum of lengths does not depend on the order. */
static fv_status count_tokens(fv_data *data)
{
    fv_feed feed = {0};
    fv_sequence sequence = {0};
    int64_t tokens = 0;
    if (data->train_tokens >= 0)
        return FV_OK;
    fv_status status = fv_feed_start(&feed, data, FV_SPLIT_TRAIN, false, 0);
    while (status == FV_OK && (status = fv_feed_next(&feed, &sequence)) == FV_OK && sequence.ids != NULL)
        tokens += sequence.length + 1;
    fv_feed_close(&feed);
    if (status == FV_OK)
        data->train_tokens = tokens;
    return status;
}

static fv_status concat_seek(fv_data *data, fv_packer *packer, int64_t index, fv_packed *scratch)
{
    int64_t window, epoch = 0;
    if (!fv_mul(index, data->settings.batch, &window))
        return fv_fail(data->ctx, FV_ERR_USAGE, "batch number %lld is too large", (long long)index);
    if (is_endless(packer) && window > 0) {
        TRY(count_tokens(data));
        int64_t windows = data->train_tokens / data->settings.length; /* of an epoch */
        if (windows <= 0)
            return too_few_tokens(data, data->train_tokens);
        epoch = window / windows;
        window = window % windows;
    }
    if (!packer->started || epoch != packer->epoch || window < packer->pieces)
        TRY(start_epoch(data, packer, epoch));
    for (int64_t count = 1; packer->pieces < window && count > 0;)
        TRY(next_window(data, packer, scratch->tokens, &count));
    return FV_OK;
}

/* ---- sequences ----------------------------------------------------------------------------------------- */

/* Lays out the current sequence if it fits. */
static bool add_sequence(const fv_data *data, fv_packer *packer, fv_packed *packed)
{
    const fv_data_settings *settings = &data->settings;
    const fv_sequence *sequence = &packer->current;
    int64_t count = FV_MIN(sequence->length + 1, settings->length); /* with its end, if there is room */
    if (packed->count + count > settings->capacity)
        return false;
    int32_t *tokens = packed->tokens + packed->count;
    for (int64_t i = 0; i < FV_MIN(count, sequence->length); i++)
        tokens[i] = sequence->ids[i];
    if (count > sequence->length)
        tokens[count - 1] = settings->tokenizer->end;
    packed->count += count;
    packed->offsets[++packed->sequences] = packed->count;
    packer->current = (fv_sequence){0};
    packer->pieces++;
    return true;
}

static fv_status sequences_next(fv_data *data, fv_packer *packer, fv_packed *packed)
{
    packed->count = packed->sequences = 0;
    packed->offsets[0] = 0;
    for (;;) {
        TRY(need_sequence(packer));
        if (packer->current.ids != NULL) {
            if (!add_sequence(data, packer, packed))
                return FV_OK;
            continue;
        }
        if (!is_endless(packer))
            return FV_OK;
        if (packer->pieces == 0)
            return too_few_tokens(data, 0);
        TRY(start_epoch(data, packer, packer->epoch + 1));
    }
}

/* How many batches an epoch has depends on its order, so a jump replays from where it stands or the start. */
static fv_status sequences_seek(fv_data *data, fv_packer *packer, int64_t index, fv_packed *scratch)
{
    if (!packer->started || index < packer->next) {
        TRY(start_epoch(data, packer, 0));
        packer->next = 0;
    }
    for (scratch->count = 1; packer->next < index && scratch->count > 0; packer->next++)
        TRY(sequences_next(data, packer, scratch));
    return FV_OK;
}

/* ---- the table ----------------------------------------------------------------------------------------- */

static const fv_packing_row packings[] = {
    {"concat", concat_seek, concat_next},
    {"sequences", sequences_seek, sequences_next},
};

const fv_packing_row *fv_packing_find(const char *name)
{
    for (int i = 0; i < FV_COUNT(packings); i++)
        if (strcmp(packings[i].name, name) == 0)
            return &packings[i];
    return NULL;
}
