/* config_file.c: settings as JSON: nested objects, one level deep, a key's dots being the way in. */
#include "formats/config.h"
#include "formats/file.h"
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_FILE = 1 << 20 };

/* ---- reading ----------------------------------------------------------------------------------------- */

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
        char path[2 * FV_CONFIG_KEY], inside[sizeof path + 1], where[320];
        int length = snprintf(path, sizeof path, "%s%s", prefix, key);
        place(src, path, where, sizeof where);
        if (length >= (int)sizeof path)
            return fv_config_unknown(ctx, where, key);
        int index = fv_config_find(path);
        if (index >= 0 && src->config->values[index].given)
            return fv_fail(ctx, FV_ERR_USAGE, "%skey \"%s\" stands in the file twice", where, path);
        if (index >= 0) {
            TRY(fv_config_assign(src->config, index, member, where));
        } else if (json_is_object(member) && is_object_key(path)) {
            snprintf(inside, sizeof inside, "%s.", path);
            TRY(read_object(src, member, inside));
        } else {
            return fv_config_unknown(ctx, where, path);
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
        fv_setting old = config->values[i];
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

/* ---- writing --------------------------------------------------------------------------------------- */

static json_t *dump_value(const fv_config_key *row, const fv_setting *held)
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
    char prefix[FV_CONFIG_KEY];
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
