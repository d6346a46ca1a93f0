/* bytes.c: reads any file, plain or gzip, as blocks of raw bytes, a record each.
 *
 * Records have no borders of their own, so a split takes whole blocks, by their place: 64 KiB each, or less
 * in a small file, so that it has at least 64 of them (of at least 1 KiB) and every split gets some.
 */
#include "data/data.h"
#include <stdio.h>
#include <string.h>

enum { LARGEST = 1 << 16, SMALLEST = 1 << 10, BLOCKS = 64 };

static fv_status bytes_begin(fv_reader *reader)
{
    fv_source *source = &reader->source;
    reader->block = LARGEST;
    while (reader->block > SMALLEST && source->file_size / reader->block < BLOCKS)
        reader->block /= 2;
    TRY(fv_source_fill(source));
    if (source->finished)
        return fv_source_fail(source, "the file is empty");
    return FV_OK;
}

static fv_status bytes_next(fv_reader *reader, fv_record *record, int *more)
{
    fv_source *source = &reader->source;
    reader->length = 0;
    TRY(fv_reader_reserve(reader, reader->block));
    while (reader->length < reader->block) {
        TRY(fv_source_fill(source));
        if (source->finished)
            break;
        size_t count = FV_MIN(source->end - source->at, (size_t)(reader->block - reader->length));
        memcpy(reader->letters + reader->length, source->buffer + source->at, count);
        source->at += count;
        reader->length += (int64_t)count;
    }
    *more = reader->length > 0;
    snprintf(reader->name, sizeof reader->name, "%s:%lld", source->path, (long long)reader->index);
    *record = (fv_record){reader->name, reader->letters, reader->length, 0};
    return FV_OK;
}

const fv_reader_row fv_reader_bytes = {
    .kind = {"bytes", "raw bytes of any file, plain or gzip, in blocks of at most 64 KiB", "bytes", 0},
    .by_position = true,
    .begin = bytes_begin,
    .next = bytes_next,
};
