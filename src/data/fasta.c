/* fasta.c: reads FASTA.
 *
 *     >name and anything else
 *     LETTERS, on any number of lines of any length
 *
 * Lines that begin with ';' are comments. Blanks and line ends of either kind are dropped, and so is one '*'
 * at the end (a stop codon). All other printable letters are given as they are: the tokenizer knows its
 * alphabet. Bytes that are no text mean that the file is something else.
 * Limits: 2^31 - 1 letters a record, of a name the first 1023 bytes.
 */
#include "data/data.h"
#include <string.h>

/* What a byte is between the letters of a sequence. */
enum { LETTER = 0, BLANK = 1, BINARY = 2 };

static const uint8_t classes[256] = {
    [0 ... 8] = BINARY, [14 ... 31] = BINARY, [127 ... 255] = BINARY, ['\t' ... '\r'] = BLANK, [' '] = BLANK,
};

static fv_status not_text(const fv_source *source, uint8_t byte)
{
    return fv_source_fail(source, "byte 0x%02x is not text; expected FASTA, plain or gzip", byte);
}

/* The bytes up to the end of the line or of the buffer, which are consumed; *whole if the line ends there.
 * Empty at the end of the file. */
static fv_status take_segment(fv_source *source, const uint8_t **begin, size_t *count, bool *whole)
{
    TRY(fv_source_fill(source));
    *begin = source->buffer + source->at;
    *count = source->end - source->at;
    const uint8_t *newline = *count > 0 ? memchr(*begin, '\n', *count) : NULL;
    *whole = newline != NULL || source->finished;
    source->at = source->end;
    if (newline != NULL) {
        *count = (size_t)(newline - *begin);
        source->at = (size_t)(newline + 1 - source->buffer);
    }
    return FV_OK;
}

static fv_status skip_line(fv_source *source)
{
    const uint8_t *begin;
    size_t count;
    bool whole = false;
    while (!whole)
        TRY(take_segment(source, &begin, &count, &whole));
    source->line++;
    return FV_OK;
}

/* Skips blanks and comments in front of a header; the file may end there. */
static fv_status find_header(fv_source *source)
{
    for (;;) {
        TRY(fv_source_fill(source));
        if (source->finished)
            return FV_OK;
        uint8_t byte = source->buffer[source->at];
        if (byte == '>')
            return FV_OK;
        if (byte == ';') {
            TRY(skip_line(source));
            continue;
        }
        if (classes[byte] == BINARY)
            return not_text(source, byte);
        if (classes[byte] == LETTER)
            return fv_source_fail(source, "expected a header line that begins with '>'; is this FASTA?");
        source->line += byte == '\n';
        source->at++;
    }
}

/* Adds a segment's first word to the name; true when the word has ended. */
static bool add_name(fv_reader *reader, size_t *length, const uint8_t *begin, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (classes[begin[i]] == BLANK)
            return true;
        if (*length < FV_RECORD_NAME - 1)
            reader->name[(*length)++] = (char)begin[i];
    }
    return false;
}

static fv_status read_header(fv_reader *reader)
{
    fv_source *source = &reader->source;
    size_t length = 0;
    bool whole = false, ended = false;
    source->at++; /* '>' */
    while (!whole) {
        const uint8_t *begin;
        size_t count;
        TRY(take_segment(source, &begin, &count, &whole));
        if (count > 0 && memchr(begin, '\0', count) != NULL)
            return not_text(source, 0);
        ended = ended || add_name(reader, &length, begin, count);
    }
    reader->name[length] = '\0';
    source->line++;
    return FV_OK;
}

/* True if all bytes are LETTERs: '!' to '~'. Almost every line is, and this loop is vectorised. */
static bool all_letters(const uint8_t *begin, size_t count)
{
    uint8_t other = 0;
    for (size_t i = 0; i < count; i++)
        other |= (uint8_t)(begin[i] - '!') > '~' - '!';
    return other == 0;
}

static fv_status add_letters(fv_reader *reader, const uint8_t *begin, size_t count)
{
    count -= count > 0 && begin[count - 1] == '\r';
    if (count == 0)
        return FV_OK;
    TRY(fv_reader_reserve(reader, (int64_t)count));
    char *letters = reader->letters + reader->length;
    if (all_letters(begin, count)) {
        memcpy(letters, begin, count);
        reader->length += (int64_t)count;
        return FV_OK;
    }
    for (size_t i = 0; i < count; i++) {
        if (classes[begin[i]] == BINARY)
            return not_text(&reader->source, begin[i]);
        *letters = (char)begin[i];
        letters += classes[begin[i]] == LETTER;
    }
    reader->length = letters - reader->letters;
    return FV_OK;
}

/* Reads lines up to the next header. */
static fv_status read_letters(fv_reader *reader)
{
    fv_source *source = &reader->source;
    bool at_line_start = true;
    for (;;) {
        TRY(fv_source_fill(source));
        if (source->finished)
            return FV_OK;
        uint8_t first = source->buffer[source->at];
        if (at_line_start && first == '>')
            return FV_OK;
        if (at_line_start && first == ';') {
            TRY(skip_line(source));
            continue;
        }
        const uint8_t *begin;
        size_t count;
        TRY(take_segment(source, &begin, &count, &at_line_start));
        TRY(add_letters(reader, begin, count));
        source->line += at_line_start;
    }
}

static fv_status fasta_begin(fv_reader *reader)
{
    fv_source *source = &reader->source;
    source->line = 1;
    TRY(fv_source_fill(source));
    if (source->finished)
        return fv_source_fail(source, "the file is empty, expected FASTA");
    TRY(find_header(source));
    if (source->finished)
        return fv_source_fail(source, "the file ends without a record, expected FASTA");
    return FV_OK;
}

static fv_status fasta_next(fv_reader *reader, fv_record *record, int *more)
{
    fv_source *source = &reader->source;
    TRY(find_header(source));
    *more = !source->finished;
    if (source->finished)
        return FV_OK;
    int64_t line = source->line;
    reader->length = 0;
    TRY(read_header(reader));
    TRY(read_letters(reader));
    if (reader->length > 0 && reader->letters[reader->length - 1] == '*')
        reader->length--;
    if (reader->length > reader->limit)
        return fv_source_fail(source, "a record has more than %lld letters", (long long)reader->limit);
    *record = (fv_record){reader->name, reader->letters, reader->length, line};
    return FV_OK;
}

const fv_reader_row fv_reader_fasta = {
    .kind = {"fasta", "FASTA, plain or gzip: one sequence a record", "protein", 0},
    .begin = fasta_begin,
    .next = fasta_next,
};
