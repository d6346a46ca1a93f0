/* support/kinds.c: see kinds.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include <string.h>

static const kind_row rows[] = {
    {"exact", 1, 1, KIND_CROSS},
    {"identity", 0, 1, 0},
    {"favor+", 1, 1, KIND_CROSS},
    {"relu", 1, 1, KIND_CROSS},
    {"rfa", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"rfa-arccos", 1, 1, KIND_CROSS},
};

const kind_row *kind_row_of(const char *kind)
{
    for (int i = 0; i < FV_COUNT(rows); i++)
        if (strcmp(rows[i].kind, kind) == 0)
            return &rows[i];
    fail_msg("attention kind %s has no test row (support/kinds.c)", kind);
    return NULL;
}

const kind_row *kind_row_at(int kind)
{
    return kind_row_of(fv_attention_kind_at(kind)->name);
}

bool kind_has(int kind, unsigned trait)
{
    return (kind_row_at(kind)->traits & trait) != 0;
}

bool kind_runs(int kind, int causal)
{
    return !causal || fv_attention_kind_at(kind)->can_be_causal;
}
