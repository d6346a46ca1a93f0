/* stream_files.c: a stream on disk: a safetensors file with the pieces of every layer's state
 * ("layers.N.S", ".z", ".exponent", or ".keys", ".values", [rows][G][d], rows as in fv_state_view), those of local heads beside
 * others as "layers.N.local.", "tokens" [1] and "logits" [vocabulary]; of an encoder-decoder "decoder.layers.N.S",
 * "decoder.layers.N.cross_attention.S" and "source_tokens" [1]. Its metadata holds what the numbers mean nothing without:
 * the fingerprint of the model's numbers, and its settings by their names.
 */
#include "model/stream.h"
#include <favor/tensors.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FORMAT_KEY      "format"
#define FORMAT_VALUE    "favor-stream-2"
#define FINGERPRINT_KEY "model"
#define TOKENS          "tokens"
#define SOURCE_TOKENS   "source_tokens"

enum { FINGERPRINT_TEXT = 20, OWN = 3 /* tensors that are no layer's */ };

/* ---- the fingerprint ----------------------------------------------------------------------------- */

/* FNV-1a over 32-bit words, in blocks whose hashes are hashed in order. */
enum { HASH_BLOCK = 1 << 16 };
static const uint64_t hash_start = 14695981039346656037u, hash_prime = 1099511628211u;

static uint64_t hash_words(uint64_t hash, const void *words, int64_t count)
{
    const char *bytes = words;
    for (int64_t i = 0; i < count; i++) {
        uint32_t word;
        memcpy(&word, bytes + 4 * i, sizeof word);
        hash = (hash ^ word) * hash_prime;
    }
    return hash;
}

static uint64_t hash_floats(uint64_t hash, const float *values, int64_t count)
{
    for (int64_t i = 0; i < count; i += HASH_BLOCK) {
        uint64_t block = hash_words(hash_start, values + i, FV_MIN(HASH_BLOCK, count - i));
        hash = hash_words(hash, &block, 2);
    }
    return hash;
}

uint64_t fv_model_fingerprint(const fv_model *model)
{
    uint64_t hash = hash_floats(hash_start, model->values, model->float_count);
    return hash_floats(hash, model->projections, fv_sites_drawn(&model->shape, &model->ops));
}

static void fingerprint_text(const fv_model *model, char text[FINGERPRINT_TEXT])
{
    snprintf(text, FINGERPRINT_TEXT, "%016llx", (unsigned long long)fv_model_fingerprint(model));
}

/* ---- the settings -------------------------------------------------------------------------------- */

/* Settings of a model that what a state holds depends on: all but those of training, of rounding, and of how far
 * positions reach, which is asked when tokens are fed. */
static bool is_meant(const fv_config_key *key)
{
    static const char *const others[] = {"hidden_dropout_prob", "gradient_checkpointing", "attention.redraw",
                                         "attention.chunk", "max_position_embeddings"};
    for (int i = 0; i < FV_COUNT(others); i++)
        if (strcmp(key->key, others[i]) == 0)
            return false;
    return key->part == FV_CONFIG_MODEL;
}

/* Writes them behind the `count` entries of metadata; gives how many there are. */
static int64_t add_settings(const fv_model *model, fv_metadata *metadata, int64_t count,
                            char (*numbers)[FV_SETTING_TEXT])
{
    const fv_config_key *key;
    for (int i = 0; (key = fv_config_key_at(i)) != NULL; i++)
        if (is_meant(key))
            metadata[count++] = (fv_metadata){key->key, fv_setting_text(model->config, key, numbers[i])};
    return count;
}

/* ---- the tensors of a file ----------------------------------------------------------------------- */

typedef struct tensor_list {
    fv_tensor *tensors;
    char (*names)[FV_NAME_BYTES];
    int64_t *rooms; /* of their pieces: where it is > 0, data is laid out as the state, not as the tensor */
    int64_t count;
} tensor_list;

static void add_tensor(tensor_list *list, const void *data, fv_dtype dtype, int rank, const int64_t *shape,
                       int64_t room)
{
    fv_tensor *t = &list->tensors[list->count];
    *t =
        (fv_tensor){.name = list->names[list->count], .dtype = dtype, .rank = rank, .count = 1, .data = data};
    for (int i = 0; i < rank; i++) {
        t->shape[i] = shape[i];
        t->count *= shape[i];
    }
    list->rooms[list->count++] = room;
}

static fv_status list_pieces(const fv_model *model, const fv_stream_place *place, tensor_list *list)
{
    fv_state_piece pieces[FV_STATE_PIECES];
    bool local = place->part == 0 && model->ops.of[place->use][1].op != NULL;
    int count;
    TRY(fv_stream_pieces(place, pieces, &count));
    for (int i = 0; i < count; i++) {
        const char *which = place->use == FV_USE_CROSS ? "cross_attention." : local ? "local." : "";
        char *name = list->names[list->count];
        fv_layer_prefix(&model->shape, place->use, place->layer, name);
        size_t used = strlen(name);
        snprintf(name + used, FV_NAME_BYTES - used, "%s%s", which, pieces[i].name);
        add_tensor(list, pieces[i].data, FV_F32, pieces[i].rank, pieces[i].shape, pieces[i].room);
    }
    return FV_OK;
}

static void list_own(tensor_list *list, const char *name, const void *data, fv_dtype dtype, int64_t count)
{
    snprintf(list->names[list->count], FV_NAME_BYTES, "%s", name);
    add_tensor(list, data, dtype, 1, &count, 0);
}

static fv_status fill_list(const fv_stream *stream, tensor_list *list)
{
    const fv_model *model = stream->model;
    for (int64_t i = 0; i < fv_stream_places(stream); i++) {
        fv_stream_place place = fv_stream_place_at(stream, i);
        TRY(list_pieces(model, &place, list));
    }
    list_own(list, "logits", stream->logits, FV_F32, model->shape.vocabulary);
    list_own(list, TOKENS, &stream->tokens, FV_I64, 1);
    if (model->shape.decoder_layers > 0)
        list_own(list, SOURCE_TOKENS, &stream->memories.tokens, FV_I64, 1);
    return FV_OK;
}

/* Lists the tensors of a stream and calls use(stream, list, arg). */
typedef fv_status list_use(const fv_stream *stream, const tensor_list *list, const void *arg);

static fv_status with_list(const fv_stream *stream, list_use *use, const void *arg)
{
    fv_context *ctx = stream->model->ctx;
    int64_t most = fv_stream_places(stream) * FV_STATE_PIECES + OWN;
    tensor_list list = {fv_alloc_array(ctx, most, sizeof *list.tensors),
                        fv_alloc_array(ctx, most, sizeof *list.names),
                        fv_alloc_array(ctx, most, sizeof *list.rooms), 0};
    bool made = list.tensors != NULL && list.names != NULL && list.rooms != NULL;
    fv_status status = made ? FV_OK : FV_ERR_RESOURCE;
    if (status == FV_OK)
        status = fill_list(stream, &list);
    if (status == FV_OK)
        status = use(stream, &list, arg);
    fv_free(ctx, list.rooms);
    fv_free(ctx, list.names);
    fv_free(ctx, list.tensors);
    return status;
}

/* Rows of keys between a state, [G][room][d], and a tensor, [rows][G][d]. */
static void turn_rows(const fv_model *model, const fv_tensor *t, int64_t room, const float *from, float *to,
                      bool to_state)
{
    int64_t rows = t->shape[0], heads = t->shape[1], d = t->shape[2];
    for (int64_t g = 0; g < heads; g++) {
        int64_t in_state = g * room * d, in_tensor = g * d;
        if (to_state)
            model->ctx->kernels->copy_rows(rows, d, from + in_tensor, heads * d, to + in_state, d);
        else
            model->ctx->kernels->copy_rows(rows, d, from + in_state, d, to + in_tensor, heads * d);
    }
}

/* ---- writing ------------------------------------------------------------------------------------- */

/* Lays out rows of keys as their tensors, in *memory. */
static fv_status turn_list(const fv_model *model, const tensor_list *list, float **memory)
{
    int64_t floats = 0;
    for (int64_t i = 0; i < list->count; i++)
        floats += list->rooms[i] > 0 ? list->tensors[i].count : 0;
    *memory = fv_alloc_array(model->ctx, floats + 1, sizeof **memory);
    if (*memory == NULL)
        return FV_ERR_RESOURCE;
    float *to = *memory;
    for (int64_t i = 0; i < list->count; i++) {
        fv_tensor *t = &list->tensors[i];
        if (list->rooms[i] == 0)
            continue;
        turn_rows(model, t, list->rooms[i], t->data, to, false);
        t->data = to;
        to += t->count;
    }
    return FV_OK;
}

static fv_status write_list(const fv_stream *stream, const tensor_list *list, const void *path)
{
    const fv_model *model = stream->model;
    float *rows = NULL;
    char fingerprint[FINGERPRINT_TEXT];
    fv_metadata *metadata = fv_alloc_array(model->ctx, fv_config_key_count() + 2, sizeof *metadata);
    char(*numbers)[FV_SETTING_TEXT] = fv_alloc_array(model->ctx, fv_config_key_count(), sizeof *numbers);
    fv_status status = metadata == NULL || numbers == NULL ? FV_ERR_RESOURCE : FV_OK;
    if (status == FV_OK)
        status = turn_list(model, list, &rows);
    if (status == FV_OK) {
        fingerprint_text(model, fingerprint);
        metadata[0] = (fv_metadata){FORMAT_KEY, FORMAT_VALUE};
        metadata[1] = (fv_metadata){FINGERPRINT_KEY, fingerprint};
        int64_t count = add_settings(model, metadata, 2, numbers);
        status = fv_tensors_write(model->ctx, path, list->tensors, list->count, metadata, count);
    }
    fv_free(model->ctx, rows);
    fv_free(model->ctx, numbers);
    fv_free(model->ctx, metadata);
    return status;
}

fv_status fv_stream_save(const fv_stream *stream, const char *path)
{
    const fv_model *model = stream->model;
    if (model->shape.decoder_layers > 0 && stream->memories.tokens == 0)
        return fv_fail(model->ctx, FV_ERR_USAGE, "%s: the stream has no source yet, there is nothing to save",
                       path);
    return with_list(stream, write_list, path);
}

/* ---- reading ------------------------------------------------------------------------------------- */

typedef struct reading {
    const char *path;
    const fv_tensors *file;
} reading;

static fv_status check_settings(const fv_stream *stream, const reading *r)
{
    const fv_config_key *key;
    for (int i = 0; (key = fv_config_key_at(i)) != NULL; i++) {
        char number[FV_SETTING_TEXT];
        if (!is_meant(key))
            continue;
        const char *have = fv_tensors_metadata(r->file, key->key);
        const char *want = fv_setting_text(stream->model->config, key, number);
        if (have == NULL || strcmp(have, want) != 0)
            return fv_fail(
                stream->model->ctx, FV_ERR_FILE,
                "%s: the state of another model (%s is %.40s, of this one %s); load it into the model "
                "that saved it",
                r->path, key->key, have != NULL ? have : "not told", want);
    }
    return FV_OK;
}

static fv_status check_metadata(const fv_stream *stream, const reading *r)
{
    fv_context *ctx = stream->model->ctx;
    char fingerprint[FINGERPRINT_TEXT];
    const char *format = fv_tensors_metadata(r->file, FORMAT_KEY);
    const char *model = fv_tensors_metadata(r->file, FINGERPRINT_KEY);
    if (format == NULL || strcmp(format, FORMAT_VALUE) != 0 || model == NULL)
        return fv_fail(ctx, FV_ERR_FILE, "%s: not the state of a stream (format " FORMAT_VALUE ")", r->path);
    TRY(check_settings(stream, r));
    fingerprint_text(stream->model, fingerprint);
    if (strcmp(model, fingerprint) != 0)
        return fv_fail(
            ctx, FV_ERR_FILE,
            "%s: the state of another model (fingerprint %.20s, this one has %s); load it into the "
            "model that saved it",
            r->path, model, fingerprint);
    return FV_OK;
}

static fv_status read_count(const fv_stream *stream, const reading *r, const char *name, int64_t least,
                            int64_t *count)
{
    fv_context *ctx = stream->model->ctx;
    const fv_shape *s = &stream->model->shape;
    const fv_tensor *t = fv_tensors_find(r->file, name);
    if (t == NULL || t->count != 1 || t->dtype != FV_I64)
        return fv_fail(ctx, FV_ERR_FILE, "%s: tensor \"%s\" is missing; expected I64 [1]", r->path, name);
    TRY(fv_tensor_to_i64(ctx, t, count));
    if (*count < least || (s->places > 0 && *count > s->places))
        return fv_fail(ctx, FV_ERR_FILE, "%s: \"%s\" is %lld", r->path, name, (long long)*count);
    return FV_OK;
}

static fv_status read_tokens(const fv_stream *stream, const reading *r, int64_t *tokens)
{
    fv_context *ctx = stream->model->ctx;
    TRY(read_count(stream, r, TOKENS, 0, tokens));
    if (stream->capacity >= 0 && *tokens > stream->capacity)
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "%s: the state holds %lld tokens, the stream has room for %lld; create it with a larger "
            "capacity",
            r->path, (long long)*tokens, (long long)stream->capacity);
    return FV_OK;
}

static fv_status check_list(const fv_stream *stream, const tensor_list *list, const void *arg)
{
    const reading *r = arg;
    for (int64_t i = 0; i < list->count; i++) {
        const fv_tensor *want = &list->tensors[i], *have = fv_tensors_find(r->file, want->name);
        if (have == NULL)
            return fv_fail(stream->model->ctx, FV_ERR_FILE, "%s: tensor \"%s\" is missing", r->path,
                           want->name);
        size_t bytes = (size_t)want->rank * sizeof *want->shape;
        if (have->dtype != want->dtype || have->rank != want->rank ||
            memcmp(have->shape, want->shape, bytes) != 0)
            return fv_fail(stream->model->ctx, FV_ERR_FILE,
                           "%s: tensor \"%s\" has %lld elements of %s; expected %lld of %s in %d dimensions",
                           r->path, want->name, (long long)have->count, fv_dtype_name(have->dtype),
                           (long long)want->count, fv_dtype_name(want->dtype), want->rank);
    }
    return FV_OK;
}

static fv_status copy_list(const fv_stream *stream, const tensor_list *list, const void *arg)
{
    const reading *r = arg;
    for (int64_t i = 0; i < list->count; i++) {
        const fv_tensor *want = &list->tensors[i], *have = fv_tensors_find(r->file, want->name);
        void *to = (void *)(uintptr_t)want->data;
        if (list->rooms[i] > 0)
            turn_rows(stream->model, want, list->rooms[i], have->data, to, true);
        else
            memcpy(to, have->data, (size_t)want->count * fv_dtype_bytes(want->dtype));
    }
    return FV_OK;
}

/* Everything is checked before the stream changes: `next` is the stream as it will be, its states written last. */
static fv_status fill(fv_stream *next, const reading *r)
{
    TRY(with_list(next, check_list, r));
    TRY(with_list(next, copy_list, r));
    for (int64_t i = 0; i < fv_stream_places(next); i++) {
        fv_stream_place place = fv_stream_place_at(next, i);
        if (place.op->op != NULL)
            TRY(fv_attention_state_set_tokens(place.op->op, place.state, place.tokens));
    }
    return FV_OK;
}

static fv_status load(fv_stream *stream, const reading *r)
{
    const fv_model *model = stream->model;
    fv_stream next = *stream;
    int64_t source;
    TRY(check_metadata(stream, r));
    TRY(read_tokens(stream, r, &next.tokens));
    if (model->shape.decoder_layers == 0) {
        TRY(fill(&next, r));
        *stream = next;
        return FV_OK;
    }
    TRY(read_count(stream, r, SOURCE_TOKENS, 1, &source));
    TRY(fv_memories_make(&next.memories, model, source));
    fv_status status = fill(&next, r);
    fv_memories_free(status == FV_OK ? &stream->memories : &next.memories, model);
    if (status == FV_OK)
        *stream = next;
    return status;
}

fv_status fv_stream_load(fv_stream *stream, const char *path)
{
    fv_tensors *file;
    TRY(fv_tensors_open(&file, stream->model->ctx, path));
    fv_status status = load(stream, &(reading){path, file});
    fv_tensors_close(file);
    return status;
}
