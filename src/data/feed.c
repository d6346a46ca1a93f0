/* feed.c: the sequences of one split, in file order or shuffled.
 *
 * Shuffling holds a pool of at most shuffle_buffer records (and POOL_BYTES letters): each draw takes a random
 * one and the next record of the files fills its place. Files come in an order of their own each epoch. So
 * files may be larger than memory, and an epoch is a function of (files, settings, epoch).
 */
#include "data/data.h"
#include <string.h>

enum { POOL_BYTES = 1 << 28 };

/* ---- records of the split ------------------------------------------------------------------------------ */

static fv_status fill_order(fv_feed *feed, int64_t epoch)
{
    fv_data *data = feed->data;
    if (feed->order == NULL)
        feed->order = fv_alloc_array(data->ctx, data->file_count, sizeof *feed->order);
    if (feed->order == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < data->file_count; i++)
        feed->order[i] = i;
    fv_random random = fv_random_make(data->settings.seed, FV_RANDOM_SHUFFLE, (uint32_t)epoch & 0xffffff, 1);
    for (int64_t i = data->file_count; feed->shuffled && i > 1; i--) {
        int64_t j = (int64_t)fv_random_below(&random, (uint64_t)i);
        int64_t kept = feed->order[i - 1];
        feed->order[i - 1] = feed->order[j];
        feed->order[j] = kept;
    }
    return FV_OK;
}

/* The next record of all files; *more = 0 behind the last. */
static fv_status next_record(fv_feed *feed, fv_record *record, int *more)
{
    fv_data *data = feed->data;
    for (*more = 0;;) {
        if (feed->reader == NULL && feed->file == data->file_count)
            return FV_OK;
        if (feed->reader == NULL)
            TRY(fv_data_reader(data, feed->order[feed->file++], &feed->reader));
        TRY(fv_reader_next(feed->reader, record, more));
        if (*more)
            return FV_OK;
        fv_reader_close(feed->reader);
        feed->reader = NULL;
    }
}

/* Reads on to the split's next record, which is then in feed->record. */
static fv_status next_of_split(fv_feed *feed, int *more)
{
    fv_data *data = feed->data;
    for (;;) {
        fv_record record;
        TRY(next_record(feed, &record, more));
        if (!*more)
            return FV_OK;
        int64_t foreign = 0;
        TRY(fv_data_encode(data, feed->reader, &record, &feed->record, &feed->record_capacity, &foreign));
        if (feed->record.length == 0)
            continue;
        if (feed->split == FV_SPLIT_ALL || feed->split == fv_data_split(data, feed->reader, &feed->record))
            return FV_OK;
    }
}

/* ---- shuffling ----------------------------------------------------------------------------------------- */

static void drop(fv_feed *feed, fv_sequence *sequence)
{
    fv_free(feed->data->ctx, sequence->ids);
    *sequence = (fv_sequence){0};
}

/* Makes room for one more record; the pool grows as it is filled, shuffle_buffer is only its limit. */
static fv_status reserve_pool(fv_feed *feed)
{
    fv_context *ctx = feed->data->ctx;
    if (feed->pooled < feed->pool_capacity)
        return FV_OK;
    int64_t capacity = FV_MAX((int64_t)256, 2 * feed->pool_capacity);
    fv_sequence *larger = fv_alloc_array(ctx, capacity, sizeof *larger);
    if (larger == NULL)
        return FV_ERR_RESOURCE;
    if (feed->pooled > 0)
        memcpy(larger, feed->pool, (size_t)feed->pooled * sizeof *larger);
    fv_free(ctx, feed->pool);
    feed->pool = larger;
    feed->pool_capacity = capacity;
    return FV_OK;
}

/* Fills the pool as far as the files and its limits go. */
static fv_status fill_pool(fv_feed *feed)
{
    fv_data *data = feed->data;
    int64_t limit = data->settings.shuffle_buffer;
    while (!feed->drained && feed->pooled < limit && feed->pool_bytes < POOL_BYTES) {
        int more;
        TRY(next_of_split(feed, &more));
        feed->drained = !more;
        if (!more)
            break;
        TRY(reserve_pool(feed));
        fv_sequence copy = feed->record;
        copy.ids = fv_alloc(data->ctx, (size_t)copy.length);
        if (copy.ids == NULL)
            return FV_ERR_RESOURCE;
        memcpy(copy.ids, feed->record.ids, (size_t)copy.length);
        feed->pool[feed->pooled++] = copy;
        feed->pool_bytes += copy.length;
    }
    return FV_OK;
}

static fv_status draw(fv_feed *feed, fv_sequence *sequence)
{
    drop(feed, &feed->drawn);
    TRY(fill_pool(feed));
    if (feed->pooled > 0) {
        int64_t i = (int64_t)fv_random_below(&feed->random, (uint64_t)feed->pooled);
        feed->drawn = feed->pool[i];
        feed->pool[i] = feed->pool[--feed->pooled];
        feed->pool_bytes -= feed->drawn.length;
    }
    *sequence = feed->drawn;
    return FV_OK;
}

/* ---- the feed ------------------------------------------------------------------------------------------ */

static void empty_pool(fv_feed *feed)
{
    while (feed->pooled > 0)
        drop(feed, &feed->pool[--feed->pooled]);
    feed->pool_bytes = 0;
    drop(feed, &feed->drawn);
}

fv_status fv_feed_start(fv_feed *feed, fv_data *data, fv_split split, bool shuffled, int64_t epoch)
{
    feed->data = data;
    feed->split = split;
    feed->shuffled = shuffled;
    empty_pool(feed);
    fv_reader_close(feed->reader);
    feed->reader = NULL;
    feed->file = 0;
    feed->drained = false;
    feed->random = fv_random_make(data->settings.seed, FV_RANDOM_SHUFFLE, (uint32_t)epoch & 0xffffff, 0);
    return fill_order(feed, epoch);
}

fv_status fv_feed_next(fv_feed *feed, fv_sequence *sequence)
{
    if (feed->shuffled)
        return draw(feed, sequence);
    int more;
    TRY(next_of_split(feed, &more));
    *sequence = more ? feed->record : (fv_sequence){0};
    return FV_OK;
}

void fv_feed_close(fv_feed *feed)
{
    if (feed->data == NULL)
        return;
    fv_context *ctx = feed->data->ctx;
    empty_pool(feed);
    fv_reader_close(feed->reader);
    fv_free(ctx, feed->order);
    fv_free(ctx, feed->pool);
    fv_free(ctx, feed->record.ids);
    *feed = (fv_feed){0};
}
