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
    {"favor+hyp", 1, 1, KIND_CROSS},
    {"favor-trig", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"favor+reg", 1, 1, KIND_CROSS},
    {"favor+reghyp", 1, 1, KIND_CROSS},
    {"favor++", 1, 1, KIND_CROSS},
    {"favor#", 1, 1, KIND_CROSS},
    {"favor-hybrid", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"relu", 1, 1, KIND_CROSS},
    {"rfa", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"rfa-arccos", 1, 1, KIND_CROSS},
    {"window", 1, 1, KIND_CROSS | KIND_PLACES},
    {"strided", 1, 1, KIND_CROSS | KIND_PLACES},
    {"fixed", 1, 1, KIND_CROSS | KIND_PLACES},
    {"longformer", 1, 1, KIND_CROSS | KIND_PLACES},
    {"bigbird", 1, 1, KIND_CROSS | KIND_PLACES},
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

void kind_small_options(fv_attention_options *o)
{
    o->window = 3, o->stride = 5, o->block = 4, o->random_blocks = 1;
    o->globals = strcmp(o->kind, "fixed") == 0 ? 1 : 2;
    o->buckets = 4, o->rounds = 2, o->projected = 3;
    if (strcmp(o->kind, "linformer") == 0)
        o->max_tokens = 2048;
}

void kind_complete(fv_attention_options *options)
{
    bool measures = strcmp(options->kind, "favor++") == 0 || strcmp(options->kind, "favor#") == 0;
    if (options->causal && measures && options->psi < 0)
        options->psi = 1.75;
}
