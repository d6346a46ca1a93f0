/* summary.c: one pass over all files: what is in them.
 *
 * Memory is bounded however much there is: names are kept as 64-bit hashes, up to NAMES of them (a false
 * duplicate among n names has probability n^2 / 2^65), and lengths in a histogram that is exact up to 2^16
 * and finer than 0.1 % beyond.
 */
#include "data/data.h"
#include <string.h>

/* ---- names --------------------------------------------------------------------------------------------- */

enum { FIRST_SLOTS = 1 << 12, LAST_SLOTS = 1 << 25 }; /* 256 MiB at most */

/* An open-addressed set of hashes; 0 marks a free slot. */
typedef struct name_set {
    fv_context *ctx;
    uint64_t *slots;
    int64_t size, used; /* size is a power of two */
} name_set;

/* True if the hash is new (and added, while there is room). */
static bool add_hash(name_set *set, uint64_t hash)
{
    uint64_t mask = (uint64_t)set->size - 1;
    uint64_t at = hash & mask;
    for (; set->slots[at] != 0; at = (at + 1) & mask)
        if (set->slots[at] == hash)
            return false;
    if (set->used < set->size / 4 * 3) {
        set->slots[at] = hash;
        set->used++;
    }
    return true;
}

static fv_status grow_names(name_set *set)
{
    name_set larger = {.ctx = set->ctx, .size = set->size > 0 ? set->size * 2 : FIRST_SLOTS};
    larger.slots = fv_alloc_zero(set->ctx, larger.size, sizeof *larger.slots);
    if (larger.slots == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < set->size; i++)
        if (set->slots[i] != 0)
            (void)add_hash(&larger, set->slots[i]);
    fv_free(set->ctx, set->slots);
    *set = larger;
    return FV_OK;
}

static fv_status add_name(name_set *set, const char *name, int64_t *duplicates)
{
    if (set->used + 1 > set->size / 4 * 3 && set->size < LAST_SLOTS)
        TRY(grow_names(set));
    *duplicates += !add_hash(set, fv_hash(name, strlen(name)) | 1);
    return FV_OK;
}

/* ---- lengths ------------------------------------------------------------------------------------------- */

/* Lengths below EXACT have a bucket each; above, STEPS buckets an octave, up to 2^31. */
enum {
    EXACT = 1 << 16,
    STEPS_LOG2 = 10,
    STEPS = 1 << STEPS_LOG2,
    OCTAVES = 16,
    BUCKETS = EXACT + OCTAVES * STEPS
};

static int64_t bucket_of(int64_t length)
{
    if (length < EXACT)
        return length;
    int octave = 63 - __builtin_clzll((unsigned long long)length);
    int64_t step = (length >> (octave - STEPS_LOG2)) - STEPS;
    return FV_MIN((int64_t)EXACT + (octave - 16) * STEPS + step, (int64_t)BUCKETS - 1);
}

/* The smallest length of a bucket. */
static int64_t bucket_length(int64_t bucket)
{
    if (bucket < EXACT)
        return bucket;
    int64_t octave = 16 + (bucket - EXACT) / STEPS, step = (bucket - EXACT) % STEPS;
    return (STEPS + step) << (octave - STEPS_LOG2);
}

/* The length of rank `rank` (from 0) in the sorted list. */
static int64_t length_at(const int64_t *histogram, int64_t rank)
{
    int64_t bucket = 0;
    while (rank >= histogram[bucket])
        rank -= histogram[bucket++];
    return bucket_length(bucket);
}

static double median_of(const int64_t *histogram, int64_t count)
{
    if (count == 0)
        return 0;
    return ((double)length_at(histogram, (count - 1) / 2) + (double)length_at(histogram, count / 2)) / 2;
}

/* ---- the pass ------------------------------------------------------------------------------------------ */

typedef struct scan {
    fv_data *data;
    fv_data_summary *summary;
    const fv_observer *observer;
    name_set names;
    int64_t *histogram; /* [BUCKETS] */
    fv_sequence ids;    /* of the record */
    int64_t capacity;
    int64_t counts[2][256];              /* of ids in the train split, at even and odd places */
    int64_t total_bytes, finished_bytes; /* of the files on disk */
    double started, reported;
} scan;

/* Two tables, so that a run of one letter does not wait for its own last increment. */
static void count_ids(scan *s, int64_t begin)
{
    const uint8_t *ids = s->ids.ids;
    int64_t i = begin;
    for (; i + 1 < s->ids.length; i += 2) {
        s->counts[0][ids[i]]++;
        s->counts[1][ids[i + 1]]++;
    }
    if (i < s->ids.length)
        s->counts[0][ids[i]]++;
}

/* What is predicted of a record: its label, its second text, or all its letters. */
static void count_targets(scan *s)
{
    const fv_task_row *task = s->data->settings.task;
    if (task->has_label)
        s->summary->counts[s->ids.label]++;
    else
        count_ids(s, task->texts > 1 ? s->ids.first : 0);
}

static fv_status add_record(scan *s, const fv_reader *reader, const fv_record *record)
{
    fv_data_summary *sum = s->summary;
    sum->records++;
    TRY(add_name(&s->names, record->name, &sum->duplicate_names));
    TRY(fv_data_encode(s->data, reader, record, &s->ids, &s->capacity, &sum->unknown));
    int64_t length = s->ids.length;
    if (length == 0) {
        sum->empty_records++;
        return FV_OK;
    }
    fv_split split = fv_data_split(s->data, reader, &s->ids);
    sum->tokens += length;
    sum->min_length = sum->min_length == 0 ? length : FV_MIN(sum->min_length, length);
    sum->max_length = FV_MAX(sum->max_length, length);
    sum->split_records[split]++;
    sum->split_tokens[split] += length;
    s->histogram[bucket_of(length)]++;
    if (split == FV_SPLIT_TRAIN)
        count_targets(s);
    return FV_OK;
}

/* Tells the observer how far the scan is, a few times a second; FV_STOPPED if it wants no more. */
static fv_status report(scan *s, const fv_reader *reader)
{
    const fv_observer *observer = s->observer;
    double now = fv_now();
    if (observer == NULL || now - s->reported < 0.25)
        return FV_OK;
    s->reported = now;
    if (observer->stop != NULL && observer->stop(observer->user))
        return fv_fail(s->data->ctx, FV_STOPPED, "stopped while reading the data");
    if (observer->progress == NULL)
        return FV_OK;
    int64_t done = s->finished_bytes + fv_source_offset(&reader->source);
    double rate = (double)done / (now - s->started);
    fv_progress progress = {
        .phase = "scan", .done = done, .total = s->total_bytes, .unit = "byte", .rate = rate};
    progress.seconds_left = rate > 0 ? (double)(s->total_bytes - done) / rate : -1;
    progress.loss = __builtin_nan("");
    observer->progress(observer->user, &progress);
    return FV_OK;
}

static fv_status scan_file(scan *s, fv_reader *reader)
{
    for (;;) {
        fv_record record;
        int more;
        TRY(fv_reader_next(reader, &record, &more));
        if (!more)
            break;
        TRY(add_record(s, reader, &record));
        TRY(report(s, reader));
    }
    s->finished_bytes += reader->source.file_size;
    return FV_OK;
}

static fv_status scan_files(scan *s)
{
    fv_data *data = s->data;
    for (int64_t i = 0; i < data->file_count; i++) {
        fv_reader *reader;
        TRY(fv_data_reader(data, i, &reader));
        fv_status status = scan_file(s, reader);
        fv_reader_close(reader);
        TRY(status);
    }
    s->summary->files = data->file_count;
    if (s->summary->tokens == 0)
        return fv_fail(data->ctx, FV_ERR_FILE, "%s: %lld records, all of them empty", data->files[0],
                       (long long)s->summary->records);
    return FV_OK;
}

static fv_status measure_files(scan *s)
{
    for (int64_t i = 0; i < s->data->file_count; i++) {
        fv_reader *reader;
        TRY(fv_data_reader(s->data, i, &reader));
        s->total_bytes += reader->source.file_size;
        fv_reader_close(reader);
    }
    return FV_OK;
}

static void finish(const scan *s)
{
    fv_data_summary *sum = s->summary;
    int64_t filled = sum->records - sum->empty_records;
    for (int id = 0; id < 256; id++)
        sum->counts[id] += s->counts[0][id] + s->counts[1][id];
    sum->mean_length = (double)sum->tokens / (double)filled;
    sum->median_length = median_of(s->histogram, filled);
    s->data->train_records = sum->split_records[FV_SPLIT_TRAIN];
    s->data->train_tokens = sum->split_tokens[FV_SPLIT_TRAIN] + sum->split_records[FV_SPLIT_TRAIN];
}

fv_status fv_data_scan(fv_data *data, fv_data_summary *summary, const fv_observer *observer)
{
    memset(summary, 0, sizeof *summary);
    scan s = {.data = data, .summary = summary, .observer = observer, .names.ctx = data->ctx};
    s.started = s.reported = fv_now();
    s.histogram = fv_alloc_zero(data->ctx, BUCKETS, sizeof *s.histogram);
    fv_status status = s.histogram != NULL ? measure_files(&s) : FV_ERR_RESOURCE;
    if (status == FV_OK)
        status = scan_files(&s);
    if (status == FV_OK)
        finish(&s);
    fv_free(data->ctx, s.histogram);
    fv_free(data->ctx, s.names.slots);
    fv_free(data->ctx, s.ids.ids);
    return status;
}
