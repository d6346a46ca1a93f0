/* tsv.c: reads lines of columns with a tab between them, a record each.
 *
 *     label <tab> text                 classify
 *     label <tab> text <tab> text      match
 *     text <tab> text                  translate
 *
 * The record is the whole line, tabs and all, without its end (a carriage return before it is dropped); what the
 * columns mean is the task's affair (columns.c). Empty lines are passed over. A byte 0 means that the file is
 * something else.
 */
#include "data/data.h"
#include <stdio.h>
#include <string.h>

static fv_status tsv_begin(fv_reader *reader)
{
    fv_source *source = &reader->source;
    source->line = 1;
    TRY(fv_source_fill(source));
    if (source->finished)
        return fv_source_fail(source, "the file is empty, expected lines of columns with tabs between them");
    return FV_OK;
}

/* Adds bytes up to the end of the line or of the buffer; *whole if the line ends there. */
static fv_status take_bytes(fv_reader *reader, bool *whole)
{
    fv_source *source = &reader->source;
    const uint8_t *begin = source->buffer + source->at;
    size_t count = source->end - source->at;
    const uint8_t *newline = memchr(begin, '\n', count);
    *whole = newline != NULL;
    count = newline != NULL ? (size_t)(newline - begin) : count;
    if (memchr(begin, '\0', count) != NULL)
        return fv_source_fail(source, "byte 0x00 is not text; expected columns with tabs between them");
    TRY(fv_reader_reserve(reader, (int64_t)count));
    if (count > 0)
        memcpy(reader->letters + reader->length, begin, count);
    reader->length += (int64_t)count;
    source->at += count + (newline != NULL);
    return FV_OK;
}

/* The next line; false behind the last one. */
static fv_status take_line(fv_reader *reader, bool *there)
{
    fv_source *source = &reader->source;
    reader->length = 0;
    *there = false;
    for (bool whole = false; !whole;) {
        TRY(fv_source_fill(source));
        if (source->finished)
            break;
        *there = true;
        TRY(take_bytes(reader, &whole));
    }
    if (reader->length > 0 && reader->letters[reader->length - 1] == '\r')
        reader->length--;
    return FV_OK;
}

static fv_status tsv_next(fv_reader *reader, fv_record *record, int *more)
{
    fv_source *source = &reader->source;
    int64_t line;
    bool there;
    do {
        line = source->line;
        TRY(take_line(reader, &there));
        source->line += there;
    } while (there && reader->length == 0);
    *more = there;
    if (reader->length > reader->limit) {
        source->line = line;
        return fv_source_fail(source, "a line has more than %lld bytes", (long long)reader->limit);
    }
    snprintf(reader->name, sizeof reader->name, "%s:%lld", source->path, (long long)line);
    *record = (fv_record){reader->name, reader->letters, reader->length, line};
    return FV_OK;
}

const fv_reader_row fv_reader_tsv = {
    .kind = {"tsv", "lines of columns with tabs between them, plain or gzip: a label, texts", "bytes", 1},
    .begin = tsv_begin,
    .next = tsv_next,
};
