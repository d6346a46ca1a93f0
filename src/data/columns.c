/* columns.c: from a record to tokens: the columns that a task reads, its label, its texts one behind the other.
 */
#include "data/data.h"
#include <stdio.h>
#include <string.h>

enum { MOST_COLUMNS = 3 };

typedef struct column {
    const char *text;
    int64_t length;
} column;

static fv_status wrong(const fv_data *data, const fv_reader *reader, const fv_record *record,
                       const char *what)
{
    return fv_fail(data->ctx, FV_ERR_FILE, "%s:%lld: %s", reader->path, (long long)record->line, what);
}

/* Cuts the record at its tabs; counts all columns, keeps the first MOST_COLUMNS. */
static int64_t cut(const fv_record *record, column columns[MOST_COLUMNS])
{
    const char *at = record->sequence, *end = at + record->length;
    int64_t count = 0;
    for (;;) {
        const char *tab = memchr(at, '\t', (size_t)(end - at));
        const char *stop = tab != NULL ? tab : end;
        if (count < MOST_COLUMNS)
            columns[count] = (column){at, stop - at};
        count++;
        if (tab == NULL)
            return count;
        at = tab + 1;
    }
}

/* A whole number below num_labels. */
static fv_status read_label(const fv_data *data, const fv_reader *reader, const fv_record *record,
                            const column *c, int32_t *label)
{
    int64_t value = 0, labels = data->settings.labels;
    bool number = c->length > 0 && c->length <= 9;
    for (int64_t i = 0; number && i < c->length; i++) {
        number = c->text[i] >= '0' && c->text[i] <= '9';
        value = 10 * value + (c->text[i] - '0');
    }
    *label = (int32_t)value;
    if (number && value < labels)
        return FV_OK;
    char what[256];
    snprintf(
        what, sizeof what,
        "the label \"%.*s\" is not a number from 0 to %lld (num_labels is %lld); expected it in the first "
        "column",
        (int)FV_MIN(c->length, 40), c->text, (long long)labels - 1, (long long)labels);
    return wrong(data, reader, record, what);
}

/* Finds the columns of the task; label -1: it has none. */
static fv_status find_columns(const fv_data *data, const fv_reader *reader, const fv_record *record,
                              column *texts, int32_t *label)
{
    const fv_task_row *task = data->settings.task;
    column columns[MOST_COLUMNS] = {{NULL, 0}};
    int64_t wanted = task->texts + task->has_label, count = cut(record, columns);
    *label = -1;
    if (count != wanted) {
        char what[128];
        snprintf(what, sizeof what, "%lld column%s; task %s expects %lld, %s, with a tab between them",
                 (long long)count, count == 1 ? "" : "s", task->name, (long long)wanted, task->columns);
        return wrong(data, reader, record, what);
    }
    if (task->has_label)
        TRY(read_label(data, reader, record, &columns[0], label));
    for (int i = 0; i < task->texts; i++)
        texts[i] = columns[i + task->has_label];
    return FV_OK;
}

static fv_status reserve(const fv_data *data, fv_sequence *sequence, int64_t *capacity, int64_t length)
{
    if (sequence->ids != NULL && length <= *capacity)
        return FV_OK;
    int64_t room = length + length / 2 + 1; /* an empty record has an address too */
    fv_free(data->ctx, sequence->ids);
    *capacity = 0;
    sequence->ids = fv_alloc(data->ctx, (size_t)room);
    if (sequence->ids == NULL)
        return FV_ERR_RESOURCE;
    *capacity = room;
    return FV_OK;
}

fv_status fv_data_encode(const fv_data *data, const fv_reader *reader, const fv_record *record,
                         fv_sequence *sequence, int64_t *capacity, int64_t *foreign)
{
    column texts[MOST_COLUMNS] = {{record->sequence, record->length}};
    int32_t label = -1;
    int count = FV_MAX(data->settings.task->texts, 1);
    if (data->settings.task->texts > 0)
        TRY(find_columns(data, reader, record, texts, &label));
    TRY(reserve(data, sequence, capacity, record->length));
    sequence->length = 0;
    sequence->label = label;
    for (int k = 0; k < count; k++) {
        uint8_t *ids = sequence->ids + sequence->length;
        for (int64_t i = 0; i < texts[k].length; i++) {
            unsigned char byte = (unsigned char)texts[k].text[i];
            ids[i] = data->map.ids[byte];
            *foreign += data->map.foreign[byte];
        }
        sequence->length += texts[k].length;
        if (k == 0)
            sequence->first = sequence->length;
    }
    return FV_OK;
}
