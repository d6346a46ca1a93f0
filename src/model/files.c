/* files.c: a model on disk: config.json and model.safetensors.
 *
 * The tensors are the parameters by name, and "layers.N.attention.projection" [H][m][d] of the kinds that
 * draw projections; the file's metadata holds the number of the draw. Reading holds every tensor against what
 * the config says before anything is believed.
 */
#include "model/transformer.h"
#include <favor/tensors.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_KEY   "format"
#define FORMAT_VALUE "favor-model-1"
#define DRAW_KEY     "draw"

/* ---- names -------------------------------------------------------------------------------------------- */

/* directory/name; NULL without memory. */
static char *join(fv_context *ctx, const char *directory, const char *name)
{
    size_t bytes = strlen(directory) + strlen(name) + 2;
    char *path = fv_alloc(ctx, bytes);
    if (path != NULL)
        snprintf(path, bytes, "%s/%s", directory, name);
    return path;
}

/* Calls use(ctx, directory/name, arg). */
typedef fv_status file_use(fv_context *ctx, const char *path, void *arg);

static fv_status with_file(fv_context *ctx, const char *directory, const char *name, file_use *use, void *arg)
{
    char *path = join(ctx, directory, name);
    if (path == NULL)
        return FV_ERR_RESOURCE;
    fv_status status = use(ctx, path, arg);
    fv_free(ctx, path);
    return status;
}

/* Every tensor of the file, in order: the parameters, then the projections. */
static int64_t tensor_count(const fv_model *model)
{
    return model->parameter_count + (model->info.drawn_floats > 0 ? model->shape.layers : 0);
}

static void describe(const fv_model *model, int64_t index, char name[FV_NAME_BYTES], fv_tensor *t)
{
    *t = (fv_tensor){.name = name, .dtype = FV_F32};
    if (index < model->parameter_count) {
        const fv_parameter *p = &model->parameters[index];
        snprintf(name, FV_NAME_BYTES, "%s", p->name);
        t->rank = p->rank;
        memcpy(t->shape, p->shape, sizeof p->shape);
        t->count = p->count;
        t->data = model->values + p->offset;
        return;
    }
    int64_t layer = index - model->parameter_count;
    snprintf(name, FV_NAME_BYTES, "layers.%lld.attention.projection", (long long)layer);
    t->rank = 3;
    t->shape[0] = model->shape.heads;
    t->shape[1] = model->info.projection_rows;
    t->shape[2] = model->shape.head_dim;
    t->count = model->info.drawn_floats;
    t->data = fv_model_projection(model, layer);
}

/* ---- writing ------------------------------------------------------------------------------------- */

static fv_status write_tensors(fv_context *ctx, const char *path, void *arg)
{
    const fv_model *model = arg;
    int64_t count = tensor_count(model);
    fv_tensor *tensors = fv_alloc_array(ctx, count, sizeof *tensors);
    char(*names)[FV_NAME_BYTES] = fv_alloc_array(ctx, count, sizeof *names);
    fv_status status = tensors == NULL || names == NULL ? FV_ERR_RESOURCE : FV_OK;
    if (status == FV_OK) {
        char draw[32];
        snprintf(draw, sizeof draw, "%lld", (long long)model->draw);
        const fv_metadata metadata[] = {{FORMAT_KEY, FORMAT_VALUE}, {DRAW_KEY, draw}};
        for (int64_t i = 0; i < count; i++)
            describe(model, i, names[i], &tensors[i]);
        status = fv_tensors_write(ctx, path, tensors, count, metadata, FV_COUNT(metadata));
    }
    fv_free(ctx, names);
    fv_free(ctx, tensors);
    return status;
}

static fv_status write_config(fv_context *ctx, const char *path, void *arg)
{
    const fv_model *model = arg;
    char *text = fv_config_json(model->config, FV_CONFIG_MODEL);
    if (text == NULL)
        return fv_fail(ctx, FV_ERR_RESOURCE, "out of memory while writing %s", path);
    fv_status status = fv_file_write(ctx, path, text, strlen(text));
    fv_free(ctx, text);
    return status;
}

fv_status fv_model_save(const fv_model *model, const char *directory)
{
    void *arg = (void *)(uintptr_t)model;
    TRY(with_file(model->ctx, directory, "model.safetensors", write_tensors, arg));
    return with_file(model->ctx, directory, "config.json", write_config, arg);
}

/* ---- reading ------------------------------------------------------------------------------------- */

/* "[3][4]" */
static const char *shape_text(const fv_tensor *t, char text[128])
{
    size_t used = 0;
    text[0] = '\0';
    for (int i = 0; i < t->rank && used < 100; i++)
        used += (size_t)snprintf(text + used, 128 - used, "[%lld]", (long long)t->shape[i]);
    return text;
}

static fv_status read_tensor(fv_context *ctx, const char *path, const fv_tensors *file,
                             const fv_tensor *wanted)
{
    char expected[128], found[128];
    const fv_tensor *t = fv_tensors_find(file, wanted->name);
    if (t == NULL)
        return fv_fail(ctx, FV_ERR_FILE, "%s: tensor \"%s\" is missing; config.json asks for one of shape %s",
                       path, wanted->name, shape_text(wanted, expected));
    if (t->rank != wanted->rank || memcmp(t->shape, wanted->shape, (size_t)t->rank * sizeof *t->shape) != 0)
        return fv_fail(ctx, FV_ERR_FILE, "%s: tensor \"%s\" has shape %s; config.json asks for %s", path,
                       wanted->name, shape_text(t, found), shape_text(wanted, expected));
    return fv_tensor_to_f32(ctx, t, (float *)(uintptr_t)wanted->data);
}

static fv_status read_draw(fv_context *ctx, const char *path, const fv_tensors *file, int64_t *draw)
{
    const char *format = fv_tensors_metadata(file, FORMAT_KEY), *text = fv_tensors_metadata(file, DRAW_KEY);
    if (format != NULL && strcmp(format, FORMAT_VALUE) != 0)
        return fv_fail(ctx, FV_ERR_FILE, "%s: format \"%.40s\"; this version reads " FORMAT_VALUE, path,
                       format);
    char *end = NULL;
    *draw = text != NULL ? strtoll(text, &end, 10) : 0;
    if (text != NULL && (end == text || *end != '\0' || *draw < 0))
        return fv_fail(ctx, FV_ERR_FILE, "%s: metadata \"draw\" is \"%.40s\"; expected a number", path, text);
    return FV_OK;
}

static fv_status read_all(fv_model *model, const char *path, const fv_tensors *file)
{
    fv_context *ctx = model->ctx;
    int64_t count = tensor_count(model), have = fv_tensors_count(file);
    for (int64_t i = 0; i < count; i++) {
        char name[FV_NAME_BYTES];
        fv_tensor wanted;
        describe(model, i, name, &wanted);
        TRY(read_tensor(ctx, path, file, &wanted));
    }
    if (have != count)
        return fv_fail(ctx, FV_ERR_FILE, "%s: %lld tensors; config.json asks for %lld", path, (long long)have,
                       (long long)count);
    return read_draw(ctx, path, file, &model->draw);
}

static fv_status read_tensors(fv_context *ctx, const char *path, void *arg)
{
    fv_tensors *file;
    TRY(fv_tensors_open(&file, ctx, path));
    fv_status status = read_all(arg, path, file);
    fv_tensors_close(file);
    return status;
}

/* A config that cannot be is a bad file here: it is not what the user asked for but what a run left. */
static fv_status as_file_error(fv_status status)
{
    return status == FV_ERR_USAGE ? FV_ERR_FILE : status;
}

static fv_status read_config(fv_context *ctx, const char *path, void *arg)
{
    fv_model **model = arg;
    fv_config *config;
    TRY(fv_config_create(&config, ctx));
    fv_status status = fv_config_load(config, path);
    if (status == FV_OK)
        status = fv_model_build(model, ctx, config);
    if (status == FV_OK)
        fv_model_fill_sinusoids(*model);
    if (status == FV_ERR_USAGE && strstr(fv_context_message(ctx), path) == NULL) {
        char detail[512];
        snprintf(detail, sizeof detail, "%s", fv_context_message(ctx));
        status = fv_fail(ctx, FV_ERR_FILE, "%s: %s", path, detail);
    }
    fv_config_destroy(config);
    return as_file_error(status);
}

static fv_status load(fv_model **model, fv_context *ctx, const char *directory)
{
    TRY(with_file(ctx, directory, "config.json", read_config, model));
    return with_file(ctx, directory, "model.safetensors", read_tensors, *model);
}

fv_status fv_model_load(fv_model **out, fv_context *ctx, const char *directory, int best)
{
    fv_model *model = NULL;
    *out = NULL;
    char *place = join(ctx, directory, best ? "best" : ".");
    if (place == NULL)
        return FV_ERR_RESOURCE;
    fv_status status = load(&model, ctx, best ? place : directory);
    fv_free(ctx, place);
    if (status == FV_OK) {
        *out = model;
        return FV_OK;
    }
    fv_model_destroy(model);
    return status;
}
