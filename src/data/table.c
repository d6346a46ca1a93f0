/* table.c: the readers, one row each, and what they share. */
#include "data/data.h"
#include <string.h>

static const fv_reader_row *const readers[] = {&fv_reader_fasta, &fv_reader_bytes, &fv_reader_tsv};

int fv_reader_kind_count(void)
{
    return FV_COUNT(readers);
}

const fv_reader_kind *fv_reader_kind_at(int index)
{
    return index >= 0 && index < FV_COUNT(readers) ? &readers[index]->kind : NULL;
}

const fv_reader_row *fv_reader_row_find(const char *name)
{
    for (int i = 0; i < FV_COUNT(readers); i++)
        if (strcmp(readers[i]->kind.name, name) == 0)
            return readers[i];
    return NULL;
}

fv_status fv_reader_open(fv_reader **out, fv_context *ctx, const char *kind, const char *path)
{
    *out = NULL;
    const fv_reader_row *row = fv_reader_row_find(kind);
    if (row == NULL)
        return fv_fail(ctx, FV_ERR_USAGE, "unknown reader \"%.80s\"; favor info lists them", kind);
    fv_reader *reader = fv_alloc_zero(ctx, 1, sizeof *reader);
    if (reader == NULL)
        return FV_ERR_RESOURCE;
    reader->row = row;
    reader->limit = FV_RECORD_MAX;
    reader->source.ctx = ctx;
    reader->path = fv_strdup(ctx, path);
    fv_status status =
        reader->path != NULL ? fv_source_open(&reader->source, ctx, reader->path) : FV_ERR_RESOURCE;
    if (status == FV_OK)
        status = row->begin(reader);
    if (status != FV_OK)
        fv_reader_close(reader);
    else
        *out = reader;
    return status;
}

fv_status fv_reader_next(fv_reader *reader, fv_record *record, int *more)
{
    memset(record, 0, sizeof *record);
    TRY(reader->row->next(reader, record, more));
    reader->index += *more;
    return FV_OK;
}

void fv_reader_close(fv_reader *reader)
{
    if (reader == NULL)
        return;
    fv_context *ctx = reader->source.ctx;
    fv_source_close(&reader->source);
    fv_free(ctx, reader->path);
    fv_free(ctx, reader->letters);
    fv_free(ctx, reader);
}

fv_status fv_reader_reserve(fv_reader *reader, int64_t more)
{
    int64_t need = reader->length + more;
    if (need > reader->limit + 1) /* one letter more than allowed may be a stop that is dropped */
        return fv_source_fail(&reader->source, "a record has more than %lld letters",
                              (long long)reader->limit);
    if (need <= reader->capacity)
        return FV_OK;
    fv_context *ctx = reader->source.ctx;
    int64_t capacity = FV_MAX(need, FV_MAX((int64_t)4096, 2 * reader->capacity));
    char *larger = fv_alloc(ctx, (size_t)capacity);
    if (larger == NULL)
        return FV_ERR_RESOURCE;
    if (reader->length > 0)
        memcpy(larger, reader->letters, (size_t)reader->length);
    fv_free(ctx, reader->letters);
    reader->letters = larger;
    reader->capacity = capacity;
    return FV_OK;
}
