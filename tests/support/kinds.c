/* support/kinds.c: see kinds.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include <stdlib.h>
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
    {"exp", 1, 1, KIND_CROSS},
    {"sigmoid", 1, 1, KIND_CROSS},
    {"tanh", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"gelu", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"abs", 1, 1, KIND_CROSS},
    {"square", 1, 1, KIND_CROSS},
    {"relu2", 1, 1, KIND_CROSS},
    {"cos", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"sin", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"linear", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"elu+1", 1, 1, KIND_CROSS},
    {"softplus", 1, 1, KIND_CROSS},
    {"sikf", 1, 1, KIND_CROSS},
    {"dpfp", 1, 1, KIND_CROSS | KIND_EMPTY},
    {"taylor", 1, 1, KIND_CROSS | KIND_CANCELS | KIND_WIDE},
    {"rebased", 1, 1, KIND_CROSS | KIND_CANCELS | KIND_WIDE},
    {"cosformer", 1, 1, KIND_CROSS | KIND_PLACES | KIND_DATED | KIND_EMPTY},
    {"hedgehog", 1, 1, KIND_CROSS},
    {"rfa", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"rfa-arccos", 1, 1, KIND_CROSS},
    {"window", 1, 1, KIND_CROSS | KIND_PLACES | KIND_RING},
    {"strided", 1, 1, KIND_CROSS | KIND_PLACES},
    {"fixed", 1, 1, KIND_CROSS | KIND_PLACES},
    {"longformer", 1, 1, KIND_CROSS | KIND_PLACES | KIND_RING},
    {"bigbird", 1, 1, KIND_CROSS | KIND_PLACES},
    {"rmf-exp", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"rmf-inv", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"rmf-logi", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"rmf-trigh", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"rmf-sqrt", 1, 1, KIND_CROSS | KIND_CANCELS},
    {"reformer", 1, 1, KIND_PLACES | KIND_FORESEES},
    {"linformer", 1, 1, KIND_CROSS | KIND_PLACES | KIND_MIXES},
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

static bool wanted(int kind)
{
    const char *list = getenv("FAVOR_TEST_KINDS"), *name = fv_attention_kind_at(kind)->name;
    size_t length = strlen(name);
    for (const char *p = list; p != NULL; p = strchr(p, ',') != NULL ? strchr(p, ',') + 1 : NULL)
        if (strncmp(p, name, length) == 0 && (p[length] == ',' || p[length] == '\0'))
            return true;
    return list == NULL || *list == '\0';
}

int kind_next(int kind)
{
    do
        kind++;
    while (kind < fv_attention_kind_count() && !wanted(kind));
    return kind;
}

bool kind_runs(int kind, int causal)
{
    return wanted(kind) && (!causal || fv_attention_kind_at(kind)->can_be_causal);
}

void kind_small_options(fv_attention_options *o)
{
    static const char *const small[][2] = {{"window", "3"},        {"stride", "5"},    {"block", "4"},
                                           {"random_blocks", "1"}, {"globals", "2"},   {"buckets", "4"},
                                           {"rounds", "2"},        {"projected", "3"}, {"angle_rows", "2"},
                                           {"features_trig", "3"}};
    const fv_attention_kind *kind = fv_attention_kind_find(o->kind);
    for (int i = 0; i < FV_COUNT(small); i++)
        if (fv_attention_kind_takes(kind, small[i][0], NULL))
            assert_null(fv_attention_options_set(o, small[i][0], small[i][1]));
    if (strcmp(o->kind, "fixed") == 0)
        o->globals = 1; /* of a block of four */
    if (strcmp(o->kind, "linformer") == 0)
        o->max_tokens = 1024;
}

void kind_complete(fv_attention_options *options)
{
    bool measures = strcmp(options->kind, "favor++") == 0 || strcmp(options->kind, "favor#") == 0;
    if (options->causal && measures && options->psi < 0)
        options->psi = 1.75;
}
