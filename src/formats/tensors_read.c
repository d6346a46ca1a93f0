/* tensors_read.c: reads a safetensors file: uint64 header length, JSON header, data.
 *
 * Nothing in the header is believed: its length and every range is held against the file's size, sizes of
 * data against shape and type, and the ranges together must cover the data once, in some order, without
 * hole or overlap. Memory is asked for only after that, so a small file cannot ask for much. Each tensor is
 * read to a place of its own that is aligned for the kernels; the format aligns nothing.
 * Little-endian machines only, as the format's bytes are used as they are.
 */
#include "formats/file.h"
#include "formats/tensors.h"
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "safetensors data is little-endian");

/* A tensor and where its data stands, counted from the first byte of data. */
typedef struct entry {
    fv_tensor tensor;
    uint64_t begin, end;
} entry;

/* A file while it is read. */
typedef struct reader {
    fv_context *ctx;
    const char *path;
    int fd;
    uint64_t size; /* of the file */
    uint64_t data; /* where the data begins */
    fv_tensors *tensors;
    entry *entries;
    int64_t count;
    char *text; /* next free byte of tensors->text */
} reader;

static fv_status bad_tensor(const reader *r, const char *name, const char *what)
{
    char shown[FV_SHOWN];
    return fv_fail(r->ctx, FV_ERR_FILE, "%s: tensor \"%s\": %s", r->path, fv_show(name, shown), what);
}

static fv_status read_at(const reader *r, uint64_t offset, void *bytes, size_t count)
{
    size_t done = 0;
    while (done < count) {
        ssize_t got = pread(r->fd, (char *)bytes + done, count - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return fv_fail(r->ctx, FV_ERR_FILE, "%s: cannot be read: %s", r->path, strerror(errno));
        if (got == 0)
            return fv_fail(r->ctx, FV_ERR_FILE, "%s: became shorter while it was read", r->path);
        done += (size_t)got;
    }
    return FV_OK;
}

/* ---- header ---------------------------------------------------------------------------------------- */

/* Keeps a text; the block holds the header's length, and every text stood there in quotes. */
static const char *keep(reader *r, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = memcpy(r->text, text, bytes);
    r->text += bytes;
    return copy;
}

static fv_status parse_metadata(reader *r, json_t *object)
{
    fv_tensors *tensors = r->tensors;
    const char *key;
    json_t *text;
    if (!json_is_object(object))
        return fv_fail(r->ctx, FV_ERR_FILE, "%s: __metadata__ is not an object of texts", r->path);
    tensors->metadata = fv_alloc_array(r->ctx, (int64_t)json_object_size(object), sizeof(fv_metadata));
    if (tensors->metadata == NULL)
        return FV_ERR_RESOURCE;
    json_object_foreach(object, key, text)
    {
        if (!json_is_string(text))
            return fv_fail(r->ctx, FV_ERR_FILE, "%s: a value of __metadata__ is not a text", r->path);
        fv_metadata *pair = &tensors->metadata[tensors->metadata_count++];
        pair->key = keep(r, key);
        pair->value = keep(r, json_string_value(text));
    }
    return FV_OK;
}

static fv_status parse_shape(const reader *r, const json_t *array, fv_tensor *tensor)
{
    size_t rank = json_array_size(array);
    if (!json_is_array(array) || rank > FV_TENSOR_MAX_RANK)
        return bad_tensor(r, tensor->name, "expected a \"shape\" of at most 8 extents");
    tensor->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *extent = json_array_get(array, i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0)
            return bad_tensor(r, tensor->name, "an extent of its shape is not a whole number of at least 0");
        tensor->shape[i] = json_integer_value(extent);
    }
    if (!fv_shape_count(tensor->rank, tensor->shape, &tensor->count))
        return bad_tensor(r, tensor->name, "its shape has more elements than can be counted");
    return FV_OK;
}

static fv_status parse_range(const reader *r, const json_t *array, entry *e)
{
    const json_t *begin = json_array_get(array, 0), *end = json_array_get(array, 1);
    if (json_array_size(array) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return bad_tensor(r, e->tensor.name, "expected \"data_offsets\" of two whole numbers");
    e->begin = (uint64_t)json_integer_value(begin); /* a negative one becomes huge, and fails below */
    e->end = (uint64_t)json_integer_value(end);
    if (e->begin > e->end || e->end > r->size - r->data)
        return bad_tensor(r, e->tensor.name,
                          "its data_offsets lie outside the file (was the file cut short?)");
    int64_t bytes;
    if (!fv_mul(e->tensor.count, (int64_t)fv_dtype_bytes(e->tensor.dtype), &bytes) ||
        (uint64_t)bytes != e->end - e->begin)
        return bad_tensor(r, e->tensor.name, "its data_offsets do not hold what dtype and shape need");
    return FV_OK;
}

static fv_status parse_tensor(reader *r, const char *name, const json_t *object)
{
    entry *e = &r->entries[r->count++];
    const char *dtype = json_string_value(json_object_get(object, "dtype"));
    *e = (entry){.tensor.name = keep(r, name)};
    if (dtype == NULL || !fv_dtype_find(dtype, &e->tensor.dtype))
        return bad_tensor(r, name, "expected a \"dtype\" of F32, F64, BF16, I64, I32 or U8");
    TRY(parse_shape(r, json_object_get(object, "shape"), &e->tensor));
    return parse_range(r, json_object_get(object, "data_offsets"), e);
}

static fv_status parse_header(reader *r, json_t *root)
{
    r->entries = fv_alloc_array(r->ctx, (int64_t)json_object_size(root), sizeof(entry));
    if (r->entries == NULL)
        return FV_ERR_RESOURCE;
    const char *name;
    json_t *member;
    json_object_foreach(root, name, member)
    {
        if (strcmp(name, FV_TENSORS_METADATA) == 0)
            TRY(parse_metadata(r, member));
        else
            TRY(parse_tensor(r, name, member));
    }
    return FV_OK;
}

/* Reads the header into a JSON object; its text stays in tensors->text only until `keep` overwrites it. */
static fv_status load_header(reader *r, json_t **root)
{
    uint64_t length = 0;
    if (r->size < sizeof length)
        return fv_fail(r->ctx, FV_ERR_FILE, "%s: %llu bytes are too few for a safetensors file", r->path,
                       (unsigned long long)r->size);
    TRY(read_at(r, 0, &length, sizeof length));
    if (length > FV_TENSORS_MAX_HEADER || length > r->size - sizeof length)
        return fv_fail(r->ctx, FV_ERR_FILE,
                       "%s: not a safetensors file, or cut short: a header of %llu bytes is announced in a "
                       "file of %llu",
                       r->path, (unsigned long long)length, (unsigned long long)r->size);
    r->data = sizeof length + length;
    r->text = r->tensors->text = fv_alloc(r->ctx, length);
    if (r->text == NULL)
        return FV_ERR_RESOURCE;
    TRY(read_at(r, sizeof length, r->text, length));
    json_error_t error;
    *root = json_loadb(r->text, length, JSON_REJECT_DUPLICATES, &error);
    if (*root == NULL && json_error_code(&error) == json_error_out_of_memory)
        return fv_fail(r->ctx, FV_ERR_RESOURCE, "%s: out of memory while reading the header", r->path);
    if (*root == NULL) {
        char shown[FV_SHOWN];
        return fv_fail(r->ctx, FV_ERR_FILE, "%s: the header is not valid JSON: %s (byte %d)", r->path,
                       fv_show(error.text, shown), error.position);
    }
    if (!json_is_object(*root))
        return fv_fail(r->ctx, FV_ERR_FILE, "%s: the header is not a JSON object", r->path);
    return FV_OK;
}

/* ---- data ------------------------------------------------------------------------------------------ */

static int compare_entries(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin)
        return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end; /* empty tensors first */
}

/* Sorted, the ranges must follow each other from the data's first byte to its last. */
static fv_status check_cover(const reader *r)
{
    uint64_t end = 0;
    for (int64_t i = 0; i < r->count; i++) {
        const entry *e = &r->entries[i];
        if (e->begin != end)
            return bad_tensor(r, e->tensor.name,
                              e->begin < end ? "its data overlaps another tensor's"
                                             : "a hole lies in front of its data");
        end = e->end;
    }
    if (end != r->size - r->data)
        return fv_fail(r->ctx, FV_ERR_FILE, "%s: %llu bytes behind the last tensor belong to none", r->path,
                       (unsigned long long)(r->size - r->data - end));
    return FV_OK;
}

static fv_status read_data(const reader *r)
{
    fv_tensors *tensors = r->tensors;
    size_t bytes = 0;
    for (int64_t i = 0; i < r->count; i++)
        bytes = fv_add_bytes(bytes, fv_bytes((int64_t)(r->entries[i].end - r->entries[i].begin), 1));
    tensors->items = fv_alloc_array(r->ctx, r->count, sizeof(fv_tensor));
    char *at = tensors->data = fv_alloc(r->ctx, bytes);
    if (tensors->items == NULL || at == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < r->count; i++) {
        const entry *e = &r->entries[i];
        TRY(read_at(r, r->data + e->begin, at, (size_t)(e->end - e->begin)));
        tensors->items[i] = e->tensor;
        tensors->items[i].data = at;
        at += fv_bytes((int64_t)(e->end - e->begin), 1);
    }
    tensors->count = r->count;
    return FV_OK;
}

static fv_status read_file(reader *r)
{
    json_t *root = NULL;
    fv_status status = load_header(r, &root);
    if (status == FV_OK && root != NULL)
        status = parse_header(r, root);
    json_decref(root);
    TRY(status);
    qsort(r->entries, (size_t)r->count, sizeof(entry), compare_entries);
    TRY(check_cover(r));
    return read_data(r);
}

static fv_status open_file(reader *r)
{
    struct stat about;
    r->fd = open(r->path, O_RDONLY | O_CLOEXEC);
    if (r->fd < 0 || fstat(r->fd, &about) != 0)
        return fv_fail(r->ctx, FV_ERR_FILE, "%s: cannot be opened: %s", r->path, strerror(errno));
    if (!S_ISREG(about.st_mode))
        return fv_fail(r->ctx, FV_ERR_FILE, "%s: not a regular file, expected a safetensors file", r->path);
    r->size = (uint64_t)about.st_size;
    return FV_OK;
}

fv_status fv_tensors_open(fv_tensors **out, fv_context *ctx, const char *path)
{
    *out = NULL;
    fv_tensors *tensors = fv_alloc_zero(ctx, 1, sizeof *tensors);
    if (tensors == NULL)
        return FV_ERR_RESOURCE;
    tensors->ctx = ctx;
    reader r = {.ctx = ctx, .path = path, .fd = -1, .tensors = tensors};
    fv_status status = open_file(&r);
    if (status == FV_OK)
        status = read_file(&r);
    if (r.fd >= 0)
        close(r.fd);
    fv_free(ctx, r.entries);
    if (status != FV_OK)
        fv_tensors_close(tensors);
    else
        *out = tensors;
    return status;
}
