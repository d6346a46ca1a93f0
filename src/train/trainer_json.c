/* trainer_json.c: trainer.json, what a run remembers beside its tensors.
 *
 *     {"format": 1, "settings": {"task": "mlm", ...}, "step": 500, "tokens": 2048000, ...,
 *      "window": {...}, "valid": {...}, "best": {...}, "files": [{"path", "bytes"}], "unigram": [...],
 *      "fingerprint": {"model.safetensors": "0123456789abcdef", "trainer.safetensors": "..."}}
 *
 * Real numbers are written with 17 digits, so they come back bit for bit.
 */
#include "formats/file.h"
#include "train/internal.h"
#include <inttypes.h>
#include <jansson.h>
#include <string.h>
#include <sys/stat.h>

#define FORMAT     1
#define MAX_BYTES  ((size_t)64 << 20)
#define MODEL_NAME "model.safetensors"
#define OTHER_NAME "trainer.safetensors"

/* The numbers of fv_train_state, by object ("": the top), key and place. */
static const struct field {
    const char *object, *key;
    bool real;
    size_t place;
} fields[] = {
#define FIELD(object, key, real, member)                                                                     \
    {                                                                                                        \
        object, key, real, offsetof(fv_train_state, member)                                                  \
    }
    FIELD("", "step", false, step),
    FIELD("", "tokens", false, tokens),
    FIELD("", "draw", false, draw),
    FIELD("", "patience", false, patience),
    FIELD("", "metrics_bytes", false, metrics_bytes),
    FIELD("", "seconds", true, seconds),
    FIELD("", "grad_norm", true, grad_norm),
    FIELD("window", "loss", true, window.loss),
    FIELD("window", "correct", false, window.correct),
    FIELD("window", "tokens", false, window.tokens),
    FIELD("valid", "step", false, valid.step),
    FIELD("valid", "tokens", false, valid.metrics.tokens),
    FIELD("valid", "loss", true, valid.metrics.loss),
    FIELD("valid", "accuracy", true, valid.metrics.accuracy),
    FIELD("valid", "perplexity", true, valid.metrics.perplexity),
    FIELD("valid", "bits_per_token", true, valid.metrics.bits_per_token),
    FIELD("best", "step", false, best.step),
    FIELD("best", "tokens", false, best.metrics.tokens),
    FIELD("best", "loss", true, best.metrics.loss),
    FIELD("best", "accuracy", true, best.metrics.accuracy),
    FIELD("best", "perplexity", true, best.metrics.perplexity),
    FIELD("best", "bits_per_token", true, best.metrics.bits_per_token),
#undef FIELD
};

void fv_train_state_init(fv_train_state *state)
{
    memset(state, 0, sizeof *state);
    state->valid.step = state->best.step = -1;
}

static void free_files(fv_context *ctx, fv_train_state *state)
{
    for (int64_t i = 0; i < state->file_count; i++)
        fv_free(ctx, state->files[i].path);
    fv_free(ctx, state->files);
    state->files = NULL;
    state->file_count = 0;
}

void fv_train_state_free(fv_context *ctx, fv_train_state *state)
{
    free_files(ctx, state);
}

static fv_status add_file(fv_context *ctx, fv_train_state *state, const char *path, int64_t bytes)
{
    char *copy = fv_strdup(ctx, path);
    if (copy == NULL)
        return FV_ERR_RESOURCE;
    state->files[state->file_count++] = (fv_data_file){copy, bytes};
    return FV_OK;
}

fv_status fv_train_state_set_files(fv_context *ctx, fv_train_state *state, const char *const *files,
                                   int64_t count)
{
    free_files(ctx, state);
    state->files = fv_alloc_zero(ctx, count, sizeof *state->files);
    if (state->files == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < count; i++) {
        struct stat about;
        int64_t bytes = stat(files[i], &about) == 0 ? (int64_t)about.st_size : 0;
        TRY(add_file(ctx, state, files[i], bytes));
    }
    return FV_OK;
}

/* ---- writing ---------------------------------------------------------------------------------------- */

/* Adds `value` (taken over) under a key; false without memory. */
static bool put(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

/* The object a field lives in, made when missing and `make`; NULL: none. */
static json_t *home(json_t *root, const char *name, bool make)
{
    if (name[0] == '\0')
        return root;
    json_t *object = json_object_get(root, name);
    if (object != NULL || !make)
        return object;
    object = json_object();
    return put(root, name, object) ? object : NULL;
}

static bool put_fields(json_t *root, const fv_train_state *state)
{
    for (int i = 0; i < FV_COUNT(fields); i++) {
        const char *at = (const char *)state + fields[i].place;
        json_t *value = fields[i].real ? json_real(*(const double *)(const void *)at)
                                       : json_integer(*(const int64_t *)(const void *)at);
        if (!put(home(root, fields[i].object, true), fields[i].key, value))
            return false;
    }
    return true;
}

static bool put_files(json_t *root, const fv_train_state *state)
{
    json_t *array = json_array();
    if (!put(root, "files", array))
        return false;
    for (int64_t i = 0; i < state->file_count; i++)
        if (json_array_append_new(array, json_pack("{s:s, s:I}", "path", state->files[i].path, "bytes",
                                                   (json_int_t)state->files[i].bytes)) != 0)
            return false;
    return true;
}

static bool put_unigram(json_t *root, const fv_train_state *state)
{
    json_t *array = json_array();
    if (!put(root, "unigram", array))
        return false;
    for (int i = 0; i < FV_COUNT(state->unigram); i++)
        if (json_array_append_new(array, json_integer(state->unigram[i])) != 0)
            return false;
    return true;
}

static bool put_fingerprints(json_t *root, const fv_fingerprints *prints)
{
    char model[17], trainer[17];
    snprintf(model, sizeof model, "%016" PRIx64, prints->model);
    snprintf(trainer, sizeof trainer, "%016" PRIx64, prints->trainer);
    return put(root, "fingerprint", json_pack("{s:s, s:s}", MODEL_NAME, model, OTHER_NAME, trainer));
}

static json_t *settings_object(fv_context *ctx, const fv_config *config)
{
    char *text = fv_config_json(config, FV_CONFIG_TRAIN);
    json_t *object = text != NULL ? json_loads(text, 0, NULL) : NULL;
    fv_free(ctx, text);
    return object;
}

fv_status fv_trainer_write(fv_context *ctx, const char *path, const fv_config *config,
                           const fv_train_state *state, const fv_fingerprints *prints)
{
    json_t *root = json_object();
    bool whole = put(root, "format", json_integer(FORMAT)) &&
                 put(root, "settings", settings_object(ctx, config)) && put_fields(root, state) &&
                 put_files(root, state) && put_unigram(root, state) && put_fingerprints(root, prints);
    char *text = whole ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17)) : NULL;
    json_decref(root);
    fv_status status = text != NULL ? fv_file_write(ctx, path, text, strlen(text))
                                    : fv_fail(ctx, FV_ERR_RESOURCE, "%s: out of memory", path);
    free(text);
    return status;
}

/* ---- reading ---------------------------------------------------------------------------------------- */

static fv_status damaged(fv_context *ctx, const char *path, const char *key)
{
    return fv_fail(ctx, FV_ERR_FILE,
                   "%s: %s is missing or has the wrong type; the checkpoint is damaged: start a new run",
                   path, key);
}

static fv_status get_fields(fv_context *ctx, const char *path, json_t *root, fv_train_state *state)
{
    for (int i = 0; i < FV_COUNT(fields); i++) {
        char *at = (char *)state + fields[i].place;
        json_t *value = json_object_get(home(root, fields[i].object, false), fields[i].key);
        bool fits = fields[i].real ? json_is_number(value)
                                   : json_is_integer(value) && json_integer_value(value) >= -1;
        if (!fits)
            return damaged(ctx, path, fields[i].key);
        if (fields[i].real)
            *(double *)(void *)at = json_number_value(value);
        else
            *(int64_t *)(void *)at = json_integer_value(value);
    }
    return FV_OK;
}

static fv_status get_files(fv_context *ctx, const char *path, json_t *root, fv_train_state *state)
{
    json_t *array = json_object_get(root, "files");
    if (!json_is_array(array))
        return damaged(ctx, path, "files");
    int64_t count = (int64_t)json_array_size(array);
    state->files = fv_alloc_zero(ctx, count, sizeof *state->files);
    if (state->files == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < count; i++) {
        json_t *file = json_array_get(array, (size_t)i);
        const char *name = json_string_value(json_object_get(file, "path"));
        if (name == NULL)
            return damaged(ctx, path, "files");
        TRY(add_file(ctx, state, name, json_integer_value(json_object_get(file, "bytes"))));
    }
    return FV_OK;
}

static fv_status get_unigram(fv_context *ctx, const char *path, json_t *root, fv_train_state *state)
{
    json_t *array = json_object_get(root, "unigram");
    if (json_array_size(array) != FV_COUNT(state->unigram))
        return damaged(ctx, path, "unigram");
    for (int i = 0; i < FV_COUNT(state->unigram); i++) {
        json_t *value = json_array_get(array, (size_t)i);
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return damaged(ctx, path, "unigram");
        state->unigram[i] = json_integer_value(value);
    }
    return FV_OK;
}

static bool get_print(json_t *object, const char *name, uint64_t *print)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL && strlen(text) == 16 && sscanf(text, "%16" SCNx64, print) == 1;
}

/* The value of a dotted key, NULL when missing. */
static json_t *dotted(json_t *object, const char *key)
{
    const char *dot;
    while ((dot = strchr(key, '.')) != NULL) {
        char name[64];
        snprintf(name, sizeof name, "%.*s", (int)(dot - key), key);
        object = json_object_get(object, name);
        key = dot + 1;
    }
    return json_object_get(object, key);
}

/* Sets one setting; a key that is missing keeps its default (it is younger than the file). */
static fv_status get_setting(fv_context *ctx, const char *path, json_t *object, const char *key,
                             fv_config *settings)
{
    json_t *value = dotted(object, key);
    if (value == NULL)
        return FV_OK;
    if (json_is_string(value))
        return fv_config_set(settings, key, json_string_value(value));
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    fv_status status = text != NULL ? fv_config_set(settings, key, text)
                                    : fv_fail(ctx, FV_ERR_RESOURCE, "%s: out of memory", path);
    free(text);
    return status;
}

static fv_status get_settings(fv_context *ctx, const char *path, json_t *root, fv_config *settings)
{
    json_t *object = json_object_get(root, "settings");
    if (!json_is_object(object))
        return damaged(ctx, path, "settings");
    for (int i = 0; i < fv_config_key_count(); i++) {
        const fv_config_key *key = fv_config_key_at(i);
        if (key->part != FV_CONFIG_TRAIN)
            continue;
        fv_status status = get_setting(ctx, path, object, key->key, settings);
        if (status == FV_ERR_USAGE)
            return damaged(ctx, path, key->key);
        TRY(status);
    }
    return FV_OK;
}

static fv_status get_all(fv_context *ctx, const char *path, json_t *root, fv_config *settings,
                         fv_train_state *state, fv_fingerprints *prints)
{
    json_t *format = json_object_get(root, "format");
    if (!json_is_integer(format))
        return damaged(ctx, path, "format");
    if (json_integer_value(format) != FORMAT)
        return fv_fail(ctx, FV_ERR_FILE,
                       "%s: format %" JSON_INTEGER_FORMAT " is unknown, expected %d: "
                       "use the version of favor that wrote it",
                       path, json_integer_value(format), FORMAT);
    json_t *print = json_object_get(root, "fingerprint");
    if (!get_print(print, MODEL_NAME, &prints->model) || !get_print(print, OTHER_NAME, &prints->trainer))
        return damaged(ctx, path, "fingerprint");
    TRY(get_settings(ctx, path, root, settings));
    TRY(get_fields(ctx, path, root, state));
    TRY(get_unigram(ctx, path, root, state));
    return get_files(ctx, path, root, state);
}

fv_status fv_trainer_read(fv_context *ctx, const char *path, fv_config *settings, fv_train_state *state,
                          fv_fingerprints *prints)
{
    char *bytes;
    size_t count;
    fv_train_state_init(state);
    TRY(fv_file_read(ctx, path, MAX_BYTES, FV_ERR_FILE, &bytes, &count));
    json_error_t error;
    json_t *root = json_loadb(bytes, count, JSON_REJECT_DUPLICATES, &error);
    fv_free(ctx, bytes);
    if (root == NULL)
        return fv_fail(ctx, FV_ERR_FILE, "%s:%d: %s; the checkpoint is damaged: start a new run", path,
                       error.line, error.text);
    fv_status status = get_all(ctx, path, root, settings, state, prints);
    json_decref(root);
    if (status != FV_OK)
        fv_train_state_free(ctx, state);
    return status;
}
