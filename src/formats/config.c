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

enum { MAX_FILE = 1 << 20, MAX_KEY = 64 };

typedef struct value {
    union {
        int64_t integer;
        double real;
        int boolean;
        char *text;
    } as;
    bool given;
} value;

struct fv_config {
    fv_context *ctx;
    value values[]; /* [fv_config_key_count()] */
};

/* ---- keys ------------------------------------------------------------------------------------------ */

static int find_key(const char *key)
{
    for (int i = 0; i < fv_config_key_count(); i++)
        if (strcmp(fv_config_key_at(i)->key, key) == 0)
            return i;
    return -1;
}

/* Insertions, deletions and substitutions between two words, each cut at MAX_KEY. */
static size_t edit_distance(const char *a, const char *b)
{
    size_t row[MAX_KEY + 1];
    size_t n = strnlen(b, MAX_KEY);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; a[i] != '\0' && i < MAX_KEY; i++) {
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
    size_t best = FV_MAX((size_t)2, strnlen(key, MAX_KEY) / 3) + 1;
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

static fv_status unknown_key(fv_context *ctx, const char *where, const char *key)
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
static bool accept(const fv_config_key *row, const json_t *json, value *out)
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

/* Sets one value from JSON. `where` opens messages: "FILE:LINE: " or "". */
static fv_status assign(fv_config *config, int index, const json_t *json, const char *where)
{
    const fv_config_key *row = fv_config_key_at(index);
    value fresh = {.given = true};
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
    fv_status status = assign(config, index, json, "");
    json_decref(json);
    return status;
}

fv_status fv_config_set(fv_config *config, const char *key, const char *text)
{
    int index = find_key(key);
    if (index < 0)
        return unknown_key(config->ctx, "", key);
    return set_index(config, index, text);
}

/* ---- life ------------------------------------------------------------------------------------------ */

static fv_status create_empty(fv_config **out, fv_context *ctx)
{
    size_t bytes = sizeof(fv_config) + (size_t)fv_config_key_count() * sizeof(value);
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
        value copy = from->values[i];
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

/* ---- files ----------------------------------------------------------------------------------------- */

/* What is being read: the text is kept to find the line of a key in it. */
typedef struct source {
    const char *name, *text;
    size_t count;
    fv_config *config;
} source;

/* The line of key `path` ("a" or "a.b") in an object that is known to be valid JSON; 0 if it is written with
 * escapes. Walks the text once, matching the path's words at depth 1 and 2. */
static int key_line(const source *src, const char *path)
{
    const char *dot = strchr(path, '.');
    const char *words[2] = {path, dot != NULL ? dot + 1 : NULL};
    size_t lengths[2] = {dot != NULL ? (size_t)(dot - path) : strlen(path),
                         dot != NULL ? strlen(dot + 1) : 0};
    int line = 1, depth = 0, matched = 0;
    for (size_t i = 0; i < src->count; i++) {
        char c = src->text[i];
        line += c == '\n';
        depth += (c == '{' || c == '[') - (c == '}' || c == ']');
        if (c != '"')
            continue;
        size_t begin = ++i;
        while (i < src->count && src->text[i] != '"')
            i += src->text[i] == '\\' ? 2 : 1;
        size_t after = i + 1;
        while (after < src->count && strchr(" \t\r\n", src->text[after]) != NULL)
            after++;
        bool is_key = after < src->count && src->text[after] == ':';
        if (!is_key || depth != matched + 1 || i - begin != lengths[matched] ||
            memcmp(src->text + begin, words[matched], i - begin) != 0)
            continue;
        if (++matched == 2 || words[matched] == NULL)
            return line;
    }
    return 0;
}

static void place(const source *src, const char *path, char *where, size_t bytes)
{
    int line = key_line(src, path);
    if (line > 0)
        snprintf(where, bytes, "%.300s:%d: ", src->name, line);
    else
        snprintf(where, bytes, "%.300s: ", src->name);
}

/* True if "prefix." begins a known key. */
static bool is_object_key(const char *prefix)
{
    size_t length = strlen(prefix);
    for (int i = 0; i < fv_config_key_count(); i++) {
        const char *key = fv_config_key_at(i)->key;
        if (strncmp(key, prefix, length) == 0 && key[length] == '.')
            return true;
    }
    return false;
}

/* Reads the members of an object; prefix is "" or "attention.". Known objects are one level deep, so an
 * unknown key ends the descent however deep the file nests. */
static fv_status read_object(const source *src, json_t *object, const char *prefix)
{
    fv_context *ctx = src->config->ctx;
    const char *key;
    json_t *member;
    json_object_foreach(object, key, member)
    {
        char path[2 * MAX_KEY], where[320];
        int length = snprintf(path, sizeof path, "%s%s", prefix, key);
        place(src, path, where, sizeof where);
        if (length >= (int)sizeof path)
            return unknown_key(ctx, where, key);
        int index = find_key(path);
        if (index >= 0 && src->config->values[index].given)
            return fv_fail(ctx, FV_ERR_USAGE, "%skey \"%s\" stands in the file twice", where, path);
        if (index >= 0) {
            TRY(assign(src->config, index, member, where));
        } else if (json_is_object(member) && is_object_key(path)) {
            strcat(path, ".");
            TRY(read_object(src, member, path));
        } else {
            return unknown_key(ctx, where, path);
        }
    }
    return FV_OK;
}

static fv_status parse_into(const source *src)
{
    fv_context *ctx = src->config->ctx;
    json_error_t error;
    json_t *root = json_loadb(src->text, src->count, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL && json_error_code(&error) == json_error_out_of_memory)
        return fv_fail(ctx, FV_ERR_RESOURCE, "%s: out of memory while reading it", src->name);
    if (root == NULL)
        return fv_fail(ctx, FV_ERR_USAGE, "%s:%d: %s (column %d)", src->name, error.line, error.text,
                       error.column);
    fv_status status = json_is_object(root)
                           ? read_object(src, root, "")
                           : fv_fail(ctx, FV_ERR_USAGE, "%s:1: expected a JSON object { ... }", src->name);
    json_decref(root);
    return status;
}

/* Moves the values of `fresh` into config; what it held goes the other way, to be destroyed. */
static void take_values(fv_config *config, fv_config *fresh)
{
    for (int i = 0; i < fv_config_key_count(); i++) {
        value old = config->values[i];
        config->values[i] = fresh->values[i];
        config->values[i].given |= old.given;
        fresh->values[i] = old;
    }
}

/* A file that fails leaves the configuration as it was: it is read into a copy. */
fv_status fv_config_parse(fv_config *config, const char *name, const char *text, size_t count)
{
    fv_config *fresh = NULL;
    TRY(fv_config_copy(&fresh, config));
    for (int i = 0; i < fv_config_key_count(); i++)
        fresh->values[i].given = false; /* to notice a key that comes twice */
    source src = {name, text, count, fresh};
    fv_status status = parse_into(&src);
    if (status == FV_OK)
        take_values(config, fresh);
    fv_config_destroy(fresh);
    return status;
}

fv_status fv_config_load(fv_config *config, const char *path)
{
    char *text = NULL;
    size_t count = 0;
    TRY(fv_file_read(config->ctx, path, MAX_FILE, FV_ERR_USAGE, &text, &count));
    fv_status status = fv_config_parse(config, path, text, count);
    fv_free(config->ctx, text);
    return status;
}

/* ---- reading values -------------------------------------------------------------------------------- */

static const value *value_of(const fv_config *config, const char *key, fv_config_type type)
{
    int index = find_key(key);
    return index >= 0 && fv_config_key_at(index)->type == type ? &config->values[index] : NULL;
}

int64_t fv_config_int(const fv_config *config, const char *key)
{
    const value *found = value_of(config, key, FV_CONFIG_INT);
    return found != NULL ? found->as.integer : 0;
}

double fv_config_real(const fv_config *config, const char *key)
{
    const value *found = value_of(config, key, FV_CONFIG_REAL);
    return found != NULL ? found->as.real : (double)fv_config_int(config, key);
}

int fv_config_bool(const fv_config *config, const char *key)
{
    const value *found = value_of(config, key, FV_CONFIG_BOOL);
    return found != NULL ? found->as.boolean : 0;
}

const char *fv_config_text(const fv_config *config, const char *key)
{
    const value *found = value_of(config, key, FV_CONFIG_TEXT);
    return found != NULL ? found->as.text : "";
}

int fv_config_is_set(const fv_config *config, const char *key)
{
    int index = find_key(key);
    return index >= 0 && config->values[index].given;
}

/* ---- writing --------------------------------------------------------------------------------------- */

static json_t *dump_value(const fv_config_key *row, const value *held)
{
    switch (row->type) {
    case FV_CONFIG_INT:
        return json_integer(held->as.integer);
    case FV_CONFIG_REAL:
        return json_real(held->as.real);
    case FV_CONFIG_BOOL:
        return json_boolean(held->as.boolean);
    case FV_CONFIG_TEXT:
        return json_string(held->as.text);
    }
    return NULL;
}

/* Adds one member to the tree, entering the object before the dot; false without memory. */
static bool add_member(json_t *root, const char *key, json_t *member)
{
    char prefix[MAX_KEY];
    const char *dot = strchr(key, '.');
    if (dot == NULL)
        return json_object_set_new(root, key, member) == 0;
    snprintf(prefix, sizeof prefix, "%.*s", (int)(dot - key), key);
    json_t *object = json_object_get(root, prefix);
    if (object == NULL) {
        object = json_object();
        if (json_object_set_new(root, prefix, object) != 0) {
            json_decref(member);
            return false;
        }
    }
    return json_object_set_new(object, dot + 1, member) == 0;
}

static json_t *dump_part(const fv_config *config, fv_config_part part)
{
    json_t *root = json_object();
    for (int i = 0; root != NULL && i < fv_config_key_count(); i++) {
        const fv_config_key *row = fv_config_key_at(i);
        if (row->part == part && !add_member(root, row->key, dump_value(row, &config->values[i]))) {
            json_decref(root);
            root = NULL;
        }
    }
    return root;
}

/* The fewest digits, 15 to 17, with which every number reads back as itself: 0.1 stays 0.1. */
static char *print_exactly(const json_t *root)
{
    for (size_t digits = 15;; digits++) {
        char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(digits));
        json_t *back = text != NULL ? json_loads(text, 0, NULL) : NULL;
        bool exact = back != NULL && json_equal(root, back);
        json_decref(back);
        if (text == NULL || exact || digits == 17)
            return text;
        free(text);
    }
}

char *fv_config_json(const fv_config *config, fv_config_part part)
{
    json_t *root = dump_part(config, part);
    char *text = root != NULL ? print_exactly(root) : NULL;
    char *copy = text != NULL ? fv_strdup(config->ctx, text) : NULL;
    if (text == NULL)
        (void)fv_fail(config->ctx, FV_ERR_RESOURCE, "out of memory while writing a configuration");
    free(text);
    json_decref(root);
    return copy;
}
