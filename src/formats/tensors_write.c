/* tensors_write.c: writes a safetensors file.
 *
 * The header is padded with spaces so that the data begins at a multiple of 64 bytes, and tensors stand in
 * falling order of element size (equal sizes as given), so every tensor is aligned to its elements. The same
 * tensors give the same file, byte for byte.
 */
#include "formats/file.h"
#include "formats/tensors.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

/* What is written: the tensors as given and the order of their data. */
typedef struct writer {
    fv_context *ctx;
    const char *path;
    const fv_tensor *tensors;
    const fv_tensor **order; /* [count] */
    int64_t count;
    fv_piece *pieces; /* [1 + count]: header, then the data in order */
    char *header;     /* with its length in front */
} writer;

static fv_status bad_tensor(const writer *w, const fv_tensor *tensor, const char *what)
{
    return fv_fail(w->ctx, FV_ERR_USAGE, "%s: tensor \"%.80s\" cannot be written: %s", w->path,
                   tensor->name != NULL ? tensor->name : "(null)", what);
}

static fv_status no_memory(const writer *w)
{
    return fv_fail(w->ctx, FV_ERR_RESOURCE, "%s: out of memory while writing the header", w->path);
}

static fv_status check_tensor(const writer *w, const fv_tensor *tensor)
{
    int64_t count;
    if (tensor->name == NULL || strcmp(tensor->name, FV_TENSORS_METADATA) == 0)
        return bad_tensor(w, tensor, "it needs another name");
    if (fv_dtype_bytes(tensor->dtype) == 0 || tensor->rank < 0 || tensor->rank > FV_TENSOR_MAX_RANK)
        return bad_tensor(w, tensor, "its dtype or rank is unknown");
    if (!fv_shape_count(tensor->rank, tensor->shape, &count) || count != tensor->count)
        return bad_tensor(w, tensor, "its count is not the product of its shape");
    if (tensor->count > 0 && tensor->data == NULL)
        return bad_tensor(w, tensor, "it has no data");
    return FV_OK;
}

/* Falling element size; a stable pass a size. */
static void order_tensors(writer *w)
{
    int64_t next = 0;
    for (size_t bytes = 8; bytes >= 1; bytes /= 2)
        for (int64_t i = 0; i < w->count; i++)
            if (fv_dtype_bytes(w->tensors[i].dtype) == bytes)
                w->order[next++] = &w->tensors[i];
}

/* ---- header ---------------------------------------------------------------------------------------- */

static json_t *describe_tensor(const fv_tensor *tensor, size_t begin, size_t end)
{
    json_t *shape = json_array();
    for (int i = 0; i < tensor->rank; i++)
        if (json_array_append_new(shape, json_integer(tensor->shape[i])) != 0) {
            json_decref(shape);
            return NULL;
        }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", fv_dtype_name(tensor->dtype), "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)end);
}

static fv_status add_metadata(const writer *w, json_t *root, const fv_metadata *metadata, int64_t count)
{
    json_t *object = json_object();
    if (json_object_set_new(root, FV_TENSORS_METADATA, object) != 0)
        return no_memory(w);
    for (int64_t i = 0; i < count; i++) {
        json_t *text = json_string(metadata[i].value);
        if (text == NULL || json_object_set_new(object, metadata[i].key, text) != 0)
            return fv_fail(w->ctx, FV_ERR_USAGE, "%s: metadata \"%.80s\" is not UTF-8", w->path,
                           metadata[i].key);
    }
    return FV_OK;
}

/* Adds the tensors to the header and to the pieces. */
static fv_status add_tensors(const writer *w, json_t *root)
{
    size_t begin = 0;
    for (int64_t i = 0; i < w->count; i++) {
        const fv_tensor *tensor = w->order[i];
        size_t bytes = (size_t)tensor->count * fv_dtype_bytes(tensor->dtype);
        if (json_object_get(root, tensor->name) != NULL)
            return bad_tensor(w, tensor, "another one has its name");
        json_t *entry = describe_tensor(tensor, begin, begin + bytes);
        if (entry == NULL)
            return no_memory(w);
        if (json_object_set_new(root, tensor->name, entry) != 0)
            return bad_tensor(w, tensor, "its name is not UTF-8");
        w->pieces[1 + i] = (fv_piece){tensor->data, bytes};
        begin += bytes;
    }
    return FV_OK;
}

/* The header's bytes: length, JSON, spaces up to a multiple of 64. */
static fv_status print_header(writer *w, const json_t *root)
{
    char *text = json_dumps(root, JSON_COMPACT);
    if (text == NULL)
        return no_memory(w);
    size_t used = strlen(text);
    size_t total = fv_bytes((int64_t)(sizeof(uint64_t) + used), 1);
    uint64_t length = total - sizeof length;
    fv_status status = FV_ERR_RESOURCE;
    if (length > FV_TENSORS_MAX_HEADER) {
        status = fv_fail(w->ctx, FV_ERR_USAGE, "%s: too many tensors for one file", w->path);
    } else if ((w->header = fv_alloc(w->ctx, total)) != NULL) {
        memset(w->header, ' ', total);
        memcpy(w->header, &length, sizeof length);
        memcpy(w->header + sizeof length, text, used);
        w->pieces[0] = (fv_piece){w->header, total};
        status = FV_OK;
    }
    free(text);
    return status;
}

static fv_status make_header(writer *w, const fv_metadata *metadata, int64_t metadata_count)
{
    json_t *root = json_object();
    if (root == NULL)
        return no_memory(w);
    fv_status status = metadata_count > 0 ? add_metadata(w, root, metadata, metadata_count) : FV_OK;
    if (status == FV_OK)
        status = add_tensors(w, root);
    if (status == FV_OK)
        status = print_header(w, root);
    json_decref(root);
    return status;
}

fv_status fv_tensors_write(fv_context *ctx, const char *path, const fv_tensor *tensors, int64_t count,
                           const fv_metadata *metadata, int64_t metadata_count)
{
    writer w = {.ctx = ctx, .path = path, .tensors = tensors, .count = count};
    for (int64_t i = 0; i < count; i++)
        TRY(check_tensor(&w, &tensors[i]));
    fv_status status = FV_ERR_RESOURCE;
    w.order = fv_alloc_array(ctx, count, sizeof *w.order);
    w.pieces = fv_alloc_array(ctx, count + 1, sizeof *w.pieces);
    if (w.order != NULL && w.pieces != NULL) {
        order_tensors(&w);
        status = make_header(&w, metadata, metadata_count);
    }
    if (status == FV_OK)
        status = fv_file_write_pieces(ctx, path, w.pieces, count + 1);
    fv_free(ctx, w.order);
    fv_free(ctx, w.pieces);
    fv_free(ctx, w.header);
    return status;
}
