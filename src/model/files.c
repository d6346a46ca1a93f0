/* files.c: a model on disk: config.json and model.safetensors.
 *
 * The tensors are the parameters by name, and the random inputs of attention, "layers.N.attention.projection"
 * [H][m][d] of the kinds that draw projections; the file's metadata holds the number of the draw. Reading holds every tensor against what
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

/* Tensors of a file, in order: the parameters, then the random inputs of attention. */
typedef struct tensor_list {
    fv_tensor *tensors; /* NULL: only counted */
    char (*names)[FV_NAME_BYTES];
    int64_t count;
} tensor_list;

static fv_tensor *next_tensor(tensor_list *list, const char *prefix, const char *name)
{
    int64_t i = list->count++;
    if (list->tensors == NULL)
        return NULL;
    snprintf(list->names[i], FV_NAME_BYTES, "%s%s", prefix, name);
    list->tensors[i] = (fv_tensor){.name = list->names[i], .dtype = FV_F32, .count = 1};
    return &list->tensors[i];
}

static void fill_tensor(fv_tensor *t, int rank, const int64_t *shape, const float *data)
{
    t->rank = rank;
    t->data = data;
    for (int i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        t->count *= shape[i];
    }
}

/* Random inputs of one operator of a site, but for those that are learned: they are parameters. */
static void list_drawn(const fv_model *model, const fv_site *site, int part, tensor_list *list)
{
    const fv_attention *op = model->ops.of[site->use][part].op;
    char prefix[FV_NAME_BYTES];
    fv_attention_io io = {0};
    fv_input_info info;
    fv_site_prefix(&model->shape, site->use, site->layer, prefix);
    fv_attention_bind_drawn(op, site->drawn[part], &io);
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        if (io.input[i] == NULL || site->inputs[part].trained[i] >= 0 ||
            !fv_attention_input(op, (fv_input)i, &info))
            continue;
        fv_tensor *t = next_tensor(list, prefix, info.name);
        if (t != NULL)
            fill_tensor(t, info.rank, info.shape, io.input[i]);
    }
}

static void list_all(const fv_model *model, tensor_list *list)
{
    list->count = 0;
    for (int i = 0; i < model->parameter_count; i++) {
        const fv_parameter *p = &model->parameters[i];
        fv_tensor *t = next_tensor(list, "", p->name);
        if (t != NULL)
            fill_tensor(t, p->rank, p->shape, model->values + p->offset);
    }
    for (int64_t i = 0; i < fv_site_count(&model->shape); i++)
        for (int part = 0; part < FV_ATTENTION_PARTS; part++)
            if (model->sites[i].drawn[part] != NULL)
                list_drawn(model, &model->sites[i], part, list);
}

static void free_list(fv_context *ctx, tensor_list *list)
{
    fv_free(ctx, list->names);
    fv_free(ctx, list->tensors);
}

/* free_list whatever the status. */
static fv_status make_list(const fv_model *model, tensor_list *list)
{
    *list = (tensor_list){0};
    list_all(model, list);
    list->tensors = fv_alloc_array(model->ctx, list->count, sizeof *list->tensors);
    list->names = fv_alloc_array(model->ctx, list->count, sizeof *list->names);
    if (list->tensors == NULL || list->names == NULL)
        return FV_ERR_RESOURCE;
    list_all(model, list);
    return FV_OK;
}

/* ---- writing ------------------------------------------------------------------------------------- */

static fv_status write_tensors(fv_context *ctx, const char *path, void *arg)
{
    const fv_model *model = arg;
    tensor_list list;
    fv_status status = make_list(model, &list);
    if (status == FV_OK) {
        char draw[32];
        snprintf(draw, sizeof draw, "%lld", (long long)model->draw);
        const fv_metadata metadata[] = {{FORMAT_KEY, FORMAT_VALUE}, {DRAW_KEY, draw}};
        status = fv_tensors_write(ctx, path, list.tensors, list.count, metadata, FV_COUNT(metadata));
    }
    free_list(ctx, &list);
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

static fv_status read_list(fv_model *model, const char *path, const fv_tensors *file, const tensor_list *list)
{
    fv_context *ctx = model->ctx;
    int64_t have = fv_tensors_count(file);
    for (int64_t i = 0; i < list->count; i++)
        TRY(read_tensor(ctx, path, file, &list->tensors[i]));
    if (have != list->count)
        return fv_fail(ctx, FV_ERR_FILE, "%s: %lld tensors; config.json asks for %lld", path, (long long)have,
                       (long long)list->count);
    return read_draw(ctx, path, file, &model->draw);
}

static fv_status read_all(fv_model *model, const char *path, const fv_tensors *file)
{
    tensor_list list;
    fv_status status = make_list(model, &list);
    if (status == FV_OK)
        status = read_list(model, path, file, &list);
    free_list(model->ctx, &list);
    return status;
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
