/* formats/tensors.h: what reading and writing of safetensors share. */
#ifndef FV_FORMATS_TENSORS_H
#define FV_FORMATS_TENSORS_H

#include "base/internal.h"
#include <favor/tensors.h>

/* Limits of the format, and of this library where the format has none. */
#define FV_TENSORS_MAX_HEADER ((size_t)100000000)
#define FV_TENSORS_METADATA   "__metadata__"

struct fv_tensors {
    fv_context *ctx;
    fv_tensor *items; /* in the order of their data */
    int64_t count;
    fv_metadata *metadata;
    int64_t metadata_count;
    char *text; /* names, keys and values of the metadata, end to end */
    char *data; /* each tensor on its own 64 bytes */
};

/* The dtype of a name in the file format; false for one this library does not know. */
bool fv_dtype_find(const char *name, fv_dtype *dtype);
/* Product of a shape; false if an extent is negative or the product does not fit. */
bool fv_shape_count(int rank, const int64_t *shape, int64_t *count);

#endif
