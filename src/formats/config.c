/* config.c: settings held against the table of config_table.c.
 *
 * Every value arrives as JSON: a file is one object, and the text of fv_config_set is read as one JSON value
 * (texts as they are), so there is one set of checks. The library's JSON reader is jansson; it takes its
 * memory from the C library, which is why a text from it is copied into the context's at once.
 */
#include "formats/config.h"
#include "formats/file.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- keys ------------------------------------------------------------------------------------------ */

int fv_config_find(const char *key)
{
    for (int i = 0; i < fv_config_key_count(); i++)
        if (strcmp(fv_config_key_at(i)->key, key) == 0)
            return i;
    return -1;
}

/* Insertions, deletions and substitutions between two words, each cut at FV_CONFIG_KEY. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[FV_CONFIG_KEY + 1];
    size_t n = strnlen(b, FV_CONFIG_KEY);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0' && i < FV_CONFIG_KEY; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            size_t changed = diagonal + (a[i] != b[j]);
            diagonal = row[j + 1];
            row[j + 1] = FV_MIN(changed, FV_MIN(diagonal, row[j]) + 1);
        }
    }
    return row[n];
}

/* The known key most like `key`, with or without its object's name; NULL if none is near. */
static const char *nearest_key(const char *key)
{
    const char *nearest = NULL;
    size_t best = FV_MAX((size_t)2, strnlen(key, FV_CONFIG_KEY) / 3) + 1;
    for (int i = 0; i < fv_config_key_count(); i++) {
        const char *known = fv_config_key_at(i)->key;
        const char *dot = strchr(known, '.');
        size_t distance = edit_distance(key, known);
        if (dot != NULL)
            distance = FV_MIN(distance, edit_distance(key, dot + 1));
        if (distance < best) {
            best = distance;
            nearest = known;
        }
    }
    return nearest;
}

fv_status fv_config_unknown(fv_context *ctx, const char *where, const char *key)
{
    const char *nearest = nearest_key(key);
    if (nearest == NULL)
        return fv_fail(ctx, FV_ERR_USAGE, "%sunknown key \"%.80s\"; the manual lists all keys", where, key);
    return fv_fail(ctx, FV_ERR_USAGE, "%sunknown key \"%.80s\", did you mean \"%s\"?", where, key, nearest);
}

/* ---- values ---------------------------------------------------------------------------------------- */

static bool is_choice(const char *choices, const char *text)
{
    size_t length = strlen(text);
    if (choices == NULL)
        return true;
    for (const char *at = choices;; at++) {
        size_t word = strcspn(at, "|");
        if (word == length && memcmp(at, text, length) == 0)
            return true;
        at += word;
        if (*at == '\0')
            return false;
    }
}

/* True if the JSON value has the row's type and lies within its range; it is then in *out. */
static bool accept(const fv_config_key *row, const json_t *json, fv_setting *out)
{
    switch (row->type) {
    case FV_CONFIG_INT:
        out->as.integer = json_integer_value(json);
        return json_is_integer(json) && (double)out->as.integer >= row->min &&
               (double)out->as.integer <= row->max;
    case FV_CONFIG_REAL:
        out->as.real = json_number_value(json);
        return json_is_number(json) && out->as.real >= row->min && out->as.real <= row->max;
    case FV_CONFIG_BOOL:
        out->as.boolean = json_is_true(json);
        return json_is_boolean(json);
    case FV_CONFIG_TEXT:
        return json_is_string(json) && is_choice(row->choices, json_string_value(json));
    }
    return false;
}

static void describe(const fv_config_key *row, char *text, size_t bytes)
{
    if (row->type == FV_CONFIG_BOOL)
        snprintf(text, bytes, "true or false");
    else if (row->type == FV_CONFIG_TEXT && row->choices != NULL)
        snprintf(text, bytes, "one of %s", row->choices);
    else if (row->type == FV_CONFIG_TEXT)
        snprintf(text, bytes, "a text");
    else
        snprintf(text, bytes, "%s from %.16g to %.16g",
                 row->type == FV_CONFIG_INT ? "an integer" : "a number", row->min, row->max);
}

static fv_status wrong_value(fv_context *ctx, const char *where, const fv_config_key *row, const char *got)
{
    char expected[128];
    describe(row, expected, sizeof expected);
    return fv_fail(ctx, FV_ERR_USAGE, "%s%s: expected %s, got %.60s", where, row->key, expected, got);
}

fv_status fv_config_assign(fv_config *config, int index, const json_t *json, const char *where)
{
    const fv_config_key *row = fv_config_key_at(index);
    fv_setting fresh = {.given = true};
    if (!accept(row, json, &fresh)) {
        char *got =
            json_dumps(json, JSON_ENCODE_ANY | JSON_COMPACT | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(15));
        fv_status status = wrong_value(config->ctx, where, row, got != NULL ? got : "another value");
        free(got);
        return status;
    }
    if (row->type == FV_CONFIG_TEXT) {
        fresh.as.text = fv_strdup(config->ctx, json_string_value(json));
        if (fresh.as.text == NULL)
            return FV_ERR_RESOURCE;
        fv_free(config->ctx, config->values[index].as.text);
    }
    config->values[index] = fresh;
    return FV_OK;
}

static fv_status set_index(fv_config *config, int index, const char *text)
{
    const fv_config_key *row = fv_config_key_at(index);
    json_t *json = row->type == FV_CONFIG_TEXT ? json_string(text) : json_loads(text, JSON_DECODE_ANY, NULL);
    if (json == NULL)
        return wrong_value(config->ctx, "", row, text[0] != '\0' ? text : "nothing");
    fv_status status = fv_config_assign(config, index, json, "");
    json_decref(json);
    return status;
}

fv_status fv_config_set(fv_config *config, const char *key, const char *text)
{
    int index = fv_config_find(key);
    if (index < 0)
        return fv_config_unknown(config->ctx, "", key);
    return set_index(config, index, text);
}

/* ---- life ------------------------------------------------------------------------------------------ */

static fv_status create_empty(fv_config **out, fv_context *ctx)
{
    size_t bytes = sizeof(fv_config) + (size_t)fv_config_key_count() * sizeof(fv_setting);
    *out = fv_alloc_zero(ctx, 1, bytes);
    if (*out == NULL)
        return FV_ERR_RESOURCE;
    (*out)->ctx = ctx;
    return FV_OK;
}

static fv_status set_defaults(fv_config *config)
{
    for (int i = 0; i < fv_config_key_count(); i++) {
        TRY(set_index(config, i, fv_config_key_at(i)->fallback));
        config->values[i].given = false;
    }
    return FV_OK;
}

fv_status fv_config_create(fv_config **out, fv_context *ctx)
{
    TRY(create_empty(out, ctx));
    fv_status status = set_defaults(*out);
    if (status != FV_OK) {
        fv_config_destroy(*out);
        *out = NULL;
    }
    return status;
}

void fv_config_destroy(fv_config *config)
{
    if (config == NULL)
        return;
    for (int i = 0; i < fv_config_key_count(); i++)
        if (fv_config_key_at(i)->type == FV_CONFIG_TEXT)
            fv_free(config->ctx, config->values[i].as.text);
    fv_free(config->ctx, config);
}

static fv_status copy_values(fv_config *to, const fv_config *from)
{
    for (int i = 0; i < fv_config_key_count(); i++) {
        fv_setting copy = from->values[i];
        if (fv_config_key_at(i)->type == FV_CONFIG_TEXT) {
            copy.as.text = fv_strdup(to->ctx, from->values[i].as.text);
            if (copy.as.text == NULL)
                return FV_ERR_RESOURCE;
        }
        to->values[i] = copy;
    }
    return FV_OK;
}

fv_status fv_config_copy(fv_config **out, const fv_config *config)
{
    TRY(create_empty(out, config->ctx));
    fv_status status = copy_values(*out, config);
    if (status != FV_OK) {
        fv_config_destroy(*out);
        *out = NULL;
    }
    return status;
}

/* ---- reading values -------------------------------------------------------------------------------- */

static const fv_setting *value_of(const fv_config *config, const char *key, fv_config_type type)
{
    int index = fv_config_find(key);
    return index >= 0 && fv_config_key_at(index)->type == type ? &config->values[index] : NULL;
}

int64_t fv_config_int(const fv_config *config, const char *key)
{
    const fv_setting *found = value_of(config, key, FV_CONFIG_INT);
    return found != NULL ? found->as.integer : 0;
}

double fv_config_real(const fv_config *config, const char *key)
{
    const fv_setting *found = value_of(config, key, FV_CONFIG_REAL);
    return found != NULL ? found->as.real : (double)fv_config_int(config, key);
}

int fv_config_bool(const fv_config *config, const char *key)
{
    const fv_setting *found = value_of(config, key, FV_CONFIG_BOOL);
    return found != NULL ? found->as.boolean : 0;
}

const char *fv_config_text(const fv_config *config, const char *key)
{
    const fv_setting *found = value_of(config, key, FV_CONFIG_TEXT);
    return found != NULL ? found->as.text : "";
}

int fv_config_is_set(const fv_config *config, const char *key)
{
    int index = fv_config_find(key);
    return index >= 0 && config->values[index].given;
}
