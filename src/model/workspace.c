/* workspace.c: memory of the passes, planned by running the tape without memory first. */
#include "model/transformer.h"
#include <string.h>

static fv_workspace lay_out(fv_arena *arena, size_t pool_bytes, int64_t tokens, int64_t predicted)
{
    fv_workspace work = {.pool_bytes = pool_bytes, .tokens = tokens, .predicted = predicted};
    work.positions = FV_PUSH(arena, int32_t, tokens);
    work.selected = FV_PUSH(arena, int32_t, predicted);
    work.target = FV_PUSH(arena, int32_t, predicted);
    work.pool = fv_arena_push(arena, (int64_t)FV_MIN(pool_bytes, (size_t)INT64_MAX), 1);
    return work;
}

size_t fv_workspace_bytes(size_t pool_bytes, int64_t tokens, int64_t predicted)
{
    fv_arena arena = fv_arena_measure();
    lay_out(&arena, pool_bytes, tokens, predicted);
    return arena.used;
}

fv_status fv_workspace_reserve(fv_model *model, size_t pool_bytes, int64_t tokens, int64_t predicted)
{
    fv_workspace *work = &model->work;
    if (work->memory != NULL && pool_bytes <= work->pool_bytes && tokens <= work->tokens &&
        predicted <= work->predicted)
        return FV_OK;
    pool_bytes = FV_MAX(pool_bytes, work->pool_bytes);
    tokens = FV_MAX(tokens, work->tokens);
    predicted = FV_MAX(predicted, work->predicted);
    size_t bytes = fv_workspace_bytes(pool_bytes, tokens, predicted);
    fv_free(model->ctx, work->memory); /* first, so that both are never held at once */
    *work = (fv_workspace){0};
    void *memory = fv_alloc(model->ctx, bytes);
    if (memory == NULL)
        return fv_fail(model->ctx, FV_ERR_RESOURCE,
                       "out of memory: %lld tokens need %.1f MiB of activations; use a smaller batch",
                       (long long)tokens, (double)bytes / 0x1p20);
    fv_arena arena = fv_arena_over(memory, bytes);
    *work = lay_out(&arena, pool_bytes, tokens, predicted);
    work->memory = memory;
    work->bytes = bytes;
    return FV_OK;
}

void fv_batch_positions(int64_t sequences, const int64_t *offsets, int64_t first, int32_t *positions)
{
    for (int64_t s = 0; s < sequences; s++)
        for (int64_t t = offsets[s]; t < offsets[s + 1]; t++)
            positions[t] = (int32_t)(first + t - offsets[s]);
}

static fv_status check_offsets(const fv_model *model, const fv_batch *batch)
{
    const int64_t *offsets = batch->offsets;
    bool fits = batch->sequences >= 1 && offsets != NULL && offsets[0] == 0 &&
                offsets[batch->sequences] == batch->tokens;
    for (int64_t s = 0; fits && s < batch->sequences; s++) {
        int64_t length = offsets[s + 1] - offsets[s];
        fits = length >= 0;
        if (model->shape.places > 0 && length > model->shape.places)
            return fv_fail(model->ctx, FV_ERR_USAGE,
                           "a sequence has %lld tokens; the model's positions reach %lld "
                           "(max_position_embeddings)",
                           (long long)length, (long long)model->shape.places);
    }
    return fits ? FV_OK
                : fv_fail(model->ctx, FV_ERR_USAGE,
                          "batch: offsets of %lld sequences do not run from 0 to %lld without falling",
                          (long long)batch->sequences, (long long)batch->tokens);
}

fv_status fv_batch_check(const fv_model *model, const fv_batch *batch)
{
    if (batch->tokens < 1 || batch->tokens > INT32_MAX)
        return fv_fail(model->ctx, FV_ERR_USAGE, "batch: %lld tokens; expected 1 to %d",
                       (long long)batch->tokens, INT32_MAX);
    TRY(check_offsets(model, batch));
    int64_t vocabulary = model->shape.vocabulary, predicted = 0;
    for (int64_t t = 0; t < batch->tokens; t++) {
        int64_t id = batch->inputs[t], target = batch->targets != NULL ? batch->targets[t] : -1;
        if (id < 0 || id >= vocabulary || target >= vocabulary)
            return fv_fail(model->ctx, FV_ERR_USAGE,
                           "batch: token %lld has input %lld and target %lld; the vocabulary has %lld tokens",
                           (long long)t, (long long)id, (long long)target, (long long)vocabulary);
        predicted += target >= 0;
    }
    if (batch->targets == NULL || predicted == batch->predicted)
        return FV_OK;
    return fv_fail(model->ctx, FV_ERR_USAGE, "batch: %lld targets are not negative; predicted says %lld",
                   (long long)predicted, (long long)batch->predicted);
}
