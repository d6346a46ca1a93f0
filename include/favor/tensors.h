/* favor/tensors.h: named tensors in a safetensors file.
 *
 * Format: little-endian uint64 header length (<= 100 MB), a JSON object name -> {dtype, shape, data_offsets},
 * optional "__metadata__" of strings, then the data, row-major, little-endian, without holes or overlap.
 * Everything is checked against the file's size before it is used.
 */
#ifndef FAVOR_TENSORS_H
#define FAVOR_TENSORS_H

#include <favor/base.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FV_TENSOR_MAX_RANK 8

typedef enum fv_dtype { FV_F32 = 0, FV_F64, FV_BF16, FV_I64, FV_I32, FV_U8 } fv_dtype;

FV_API const char *fv_dtype_name(fv_dtype dtype); /* "F32" ... as in the file format */
FV_API size_t fv_dtype_bytes(fv_dtype dtype);

typedef struct fv_tensor {
    const char *name;
    fv_dtype dtype;
    int rank;
    int64_t shape[FV_TENSOR_MAX_RANK];
    int64_t count;    /* product of shape */
    const void *data; /* 64-byte aligned when read by fv_tensors_open */
} fv_tensor;

typedef struct fv_tensors fv_tensors;

/* Reads and checks a whole file. FV_ERR_FILE names the file, the tensor and what was expected. */
FV_API FV_NODISCARD fv_status fv_tensors_open(fv_tensors **tensors, fv_context *ctx, const char *path);
FV_API void fv_tensors_close(fv_tensors *tensors);

FV_API int64_t fv_tensors_count(const fv_tensors *tensors);
FV_API const fv_tensor *fv_tensors_at(const fv_tensors *tensors, int64_t index);
FV_API const fv_tensor *fv_tensors_find(const fv_tensors *tensors, const char *name); /* NULL: none */
FV_API const char *fv_tensors_metadata(const fv_tensors *tensors, const char *key);   /* NULL: none */

/* Converts n elements of a tensor to float32 (from F32, F64, BF16, I32, I64, U8) or int64 (from the
 * integer types only). dst has tensor->count elements. */
FV_API FV_NODISCARD fv_status fv_tensor_to_f32(fv_context *ctx, const fv_tensor *tensor, float *dst);
FV_API FV_NODISCARD fv_status fv_tensor_to_i64(fv_context *ctx, const fv_tensor *tensor, int64_t *dst);

/* Key and value of the file's "__metadata__". */
typedef struct fv_metadata {
    const char *key, *value;
} fv_metadata;

/* Writes all tensors to a temporary name beside `path`, syncs, renames: `path` holds the old file or the
 * whole new one, never a part. FV_ERR_RESOURCE: disk full or not writable. */
FV_API FV_NODISCARD fv_status fv_tensors_write(fv_context *ctx, const char *path, const fv_tensor *tensors,
                                               int64_t count, const fv_metadata *metadata,
                                               int64_t metadata_count);

/* Writes any bytes the same way. */
FV_API FV_NODISCARD fv_status fv_file_write(fv_context *ctx, const char *path, const void *bytes,
                                            size_t count);

#ifdef __cplusplus
}
#endif
#endif
