/* fuzz_tensors.c: any bytes as a safetensors file; one that is taken must be written and read back. */
#include "fuzz.h"
#include <string.h>

static void use_tensor(fv_context *ctx, const fv_tensor *tensor)
{
    MUST((uintptr_t)tensor->data % 64 == 0);
    if (tensor->count == 0 || tensor->count > 1 << 20)
        return;
    float *f = malloc((size_t)tensor->count * sizeof *f);
    int64_t *n = malloc((size_t)tensor->count * sizeof *n);
    fv_status status = fv_tensor_to_f32(ctx, tensor, f);
    MUST(status == FV_OK);
    status = fv_tensor_to_i64(ctx, tensor, n);
    MUST(status == FV_OK || status == FV_ERR_FILE);
    free(f);
    free(n);
}

static void check_round_trip(fv_context *ctx, const fv_tensors *tensors)
{
    int64_t count = fv_tensors_count(tensors);
    fv_tensor *copy = malloc((size_t)(count + 1) * sizeof *copy);
    for (int64_t i = 0; i < count; i++)
        copy[i] = *fv_tensors_at(tensors, i);
    char path[64];
    snprintf(path, sizeof path, "/dev/shm/favor-fuzz-%ld", (long)getpid());
    MUST(fv_tensors_write(ctx, path, copy, count, NULL, 0) == FV_OK);
    fv_tensors *back = NULL;
    MUST(fv_tensors_open(&back, ctx, path) == FV_OK);
    MUST(fv_tensors_count(back) == count);
    for (int64_t i = 0; i < count; i++) {
        const fv_tensor *found = fv_tensors_find(back, copy[i].name);
        MUST(found != NULL && found->count == copy[i].count && found->dtype == copy[i].dtype);
        size_t bytes = (size_t)found->count * fv_dtype_bytes(found->dtype);
        MUST(bytes == 0 || memcmp(found->data, copy[i].data, bytes) == 0);
    }
    fv_tensors_close(back);
    unlink(path);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    fv_context *ctx = fuzz_context();
    fv_tensors *tensors = NULL;
    fv_status status = fv_tensors_open(&tensors, ctx, fuzz_file(bytes, count));
    MUST(status == FV_OK || status == FV_ERR_FILE);
    if (status != FV_OK)
        return 0;
    for (int64_t i = 0; i < fv_tensors_count(tensors); i++)
        use_tensor(ctx, fv_tensors_at(tensors, i));
    if (fv_tensors_count(tensors) <= 8)
        check_round_trip(ctx, tensors);
    fv_tensors_close(tensors);
    return 0;
}
