/* tensors.c: tensors in memory: their types, lookup and conversion. Files: tensors_read.c, tensors_write.c.
 */
#include "formats/tensors.h"
#include "kernels/kernels.h"
#include <string.h>

/* ---- types ----------------------------------------------------------------------------------------- */

/* ORDER as fv_dtype */
static const struct {
    const char *name;
    size_t bytes;
} dtypes[] = {{"F32", 4}, {"F64", 8}, {"BF16", 2}, {"I64", 8}, {"I32", 4}, {"U8", 1}};

const char *fv_dtype_name(fv_dtype dtype)
{
    return (unsigned)dtype < (unsigned)FV_COUNT(dtypes) ? dtypes[dtype].name : "?";
}

size_t fv_dtype_bytes(fv_dtype dtype)
{
    return (unsigned)dtype < (unsigned)FV_COUNT(dtypes) ? dtypes[dtype].bytes : 0;
}

bool fv_dtype_find(const char *name, fv_dtype *dtype)
{
    for (int i = 0; i < FV_COUNT(dtypes); i++)
        if (strcmp(dtypes[i].name, name) == 0) {
            *dtype = (fv_dtype)i;
            return true;
        }
    return false;
}

bool fv_shape_count(int rank, const int64_t *shape, int64_t *count)
{
    *count = 1;
    for (int i = 0; i < rank; i++)
        if (!fv_mul(*count, shape[i], count))
            return false;
    return true;
}

/* ---- lookup ---------------------------------------------------------------------------------------- */

int64_t fv_tensors_count(const fv_tensors *tensors)
{
    return tensors->count;
}

const fv_tensor *fv_tensors_at(const fv_tensors *tensors, int64_t index)
{
    return index >= 0 && index < tensors->count ? &tensors->items[index] : NULL;
}

const fv_tensor *fv_tensors_find(const fv_tensors *tensors, const char *name)
{
    for (int64_t i = 0; i < tensors->count; i++)
        if (strcmp(tensors->items[i].name, name) == 0)
            return &tensors->items[i];
    return NULL;
}

const char *fv_tensors_metadata(const fv_tensors *tensors, const char *key)
{
    for (int64_t i = 0; i < tensors->metadata_count; i++)
        if (strcmp(tensors->metadata[i].key, key) == 0)
            return tensors->metadata[i].value;
    return NULL;
}

void fv_tensors_close(fv_tensors *tensors)
{
    if (tensors == NULL)
        return;
    fv_context *ctx = tensors->ctx;
    fv_free(ctx, tensors->items);
    fv_free(ctx, tensors->metadata);
    fv_free(ctx, tensors->text);
    fv_free(ctx, tensors->data);
    fv_free(ctx, tensors);
}

/* ---- conversion ------------------------------------------------------------------------------------ */

fv_status fv_tensor_to_f32(fv_context *ctx, const fv_tensor *tensor, float *dst)
{
    const void *src = tensor->data;
    int64_t n = tensor->count;
    switch (tensor->dtype) {
    case FV_F32:
        if (n > 0)
            memcpy(dst, src, (size_t)n * sizeof *dst);
        return FV_OK;
    case FV_BF16:
        ctx->kernels->bf16_to_f32(n, src, dst);
        return FV_OK;
    case FV_F64:
        for (int64_t i = 0; i < n; i++)
            dst[i] = (float)((const double *)src)[i];
        return FV_OK;
    case FV_I64:
        for (int64_t i = 0; i < n; i++)
            dst[i] = (float)((const int64_t *)src)[i];
        return FV_OK;
    case FV_I32:
        for (int64_t i = 0; i < n; i++)
            dst[i] = (float)((const int32_t *)src)[i];
        return FV_OK;
    case FV_U8:
        for (int64_t i = 0; i < n; i++)
            dst[i] = (float)((const uint8_t *)src)[i];
        return FV_OK;
    }
    return fv_fail(ctx, FV_ERR_INTERNAL, "tensor \"%s\" has no known dtype", tensor->name);
}

fv_status fv_tensor_to_i64(fv_context *ctx, const fv_tensor *tensor, int64_t *dst)
{
    const void *src = tensor->data;
    int64_t n = tensor->count;
    switch (tensor->dtype) {
    case FV_I64:
        if (n > 0)
            memcpy(dst, src, (size_t)n * sizeof *dst);
        return FV_OK;
    case FV_I32:
        for (int64_t i = 0; i < n; i++)
            dst[i] = ((const int32_t *)src)[i];
        return FV_OK;
    case FV_U8:
        for (int64_t i = 0; i < n; i++)
            dst[i] = ((const uint8_t *)src)[i];
        return FV_OK;
    default:
        return fv_fail(ctx, FV_ERR_FILE, "tensor \"%s\" is %s, expected whole numbers (I64, I32 or U8)",
                       tensor->name, fv_dtype_name(tensor->dtype));
    }
}
