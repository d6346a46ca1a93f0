/* workspace.c: memory of the passes, planned by running the tape without memory first. */
#include "model/transformer.h"
#include <string.h>

static fv_workspace lay_out(fv_arena *arena, size_t pool_bytes, const fv_list_sizes *sizes)
{
    fv_workspace work = {.pool_bytes = pool_bytes, .sizes = *sizes};
    work.positions = FV_PUSH(arena, int32_t, sizes->tokens);
    work.source_positions = FV_PUSH(arena, int32_t, sizes->source_tokens);
    work.selected = FV_PUSH(arena, int32_t, sizes->selected);
    work.target = FV_PUSH(arena, int32_t, sizes->selected);
    work.pool = fv_arena_push(arena, (int64_t)FV_MIN(pool_bytes, (size_t)INT64_MAX), 1);
    return work;
}

size_t fv_workspace_bytes(size_t pool_bytes, const fv_list_sizes *sizes)
{
    fv_arena arena = fv_arena_measure();
    lay_out(&arena, pool_bytes, sizes);
    return arena.used;
}

static fv_list_sizes larger(const fv_list_sizes *a, const fv_list_sizes *b)
{
    return (fv_list_sizes){FV_MAX(a->tokens, b->tokens), FV_MAX(a->source_tokens, b->source_tokens),
                           FV_MAX(a->selected, b->selected)};
}

fv_status fv_workspace_reserve(fv_model *model, size_t pool_bytes, const fv_list_sizes *sizes)
{
    fv_workspace *work = &model->work;
    fv_list_sizes all = larger(sizes, &work->sizes);
    if (work->memory != NULL && pool_bytes <= work->pool_bytes && memcmp(&all, &work->sizes, sizeof all) == 0)
        return FV_OK;
    pool_bytes = FV_MAX(pool_bytes, work->pool_bytes);
    size_t bytes = fv_workspace_bytes(pool_bytes, &all);
    fv_free(model->ctx, work->memory); /* first, so that both are never held at once */
    *work = (fv_workspace){0};
    void *memory = fv_alloc(model->ctx, bytes);
    if (memory == NULL)
        return fv_fail(model->ctx, FV_ERR_RESOURCE,
                       "out of memory: %lld tokens need %.1f MiB of activations; use a smaller batch",
                       (long long)all.tokens, (double)bytes / 0x1p20);
    fv_arena arena = fv_arena_over(memory, bytes);
    *work = lay_out(&arena, pool_bytes, &all);
    work->memory = memory;
    work->bytes = bytes;
    return FV_OK;
}

void *fv_model_idle(fv_model *model, size_t *bytes)
{
    *bytes = model->work.pool_bytes;
    fv_open(model->work.pool, *bytes); /* the red zones of the last pass */
    return model->work.pool;
}

void fv_batch_positions(int64_t sequences, const int64_t *offsets, const int64_t *first, int32_t *positions)
{
    for (int64_t s = 0; s < sequences; s++)
        for (int64_t t = offsets[s]; t < offsets[s + 1]; t++)
            positions[t] = (int32_t)((first != NULL ? first[s] : 0) + t - offsets[s]);
}

/* ---- what a batch must be ------------------------------------------------------------------------- */

/* One side of a batch. */
typedef struct side {
    const char *name;
    int64_t tokens, sequences;
    const int32_t *ids;
    const int64_t *offsets;
} side;

static fv_status check_offsets(const fv_model *model, const side *b)
{
    const int64_t *offsets = b->offsets;
    bool fits = b->sequences >= 1 && offsets != NULL && offsets[0] == 0 && offsets[b->sequences] == b->tokens;
    for (int64_t s = 0; fits && s < b->sequences; s++) {
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
                          "%s: offsets of %lld sequences do not run from 0 to %lld without falling", b->name,
                          (long long)b->sequences, (long long)b->tokens);
}

static fv_status check_side(const fv_model *model, const side *b)
{
    if (b->tokens < 1 || b->tokens > INT32_MAX)
        return fv_fail(model->ctx, FV_ERR_USAGE, "%s: %lld tokens; expected 1 to %d", b->name,
                       (long long)b->tokens, INT32_MAX);
    TRY(check_offsets(model, b));
    for (int64_t t = 0; t < b->tokens; t++)
        if (b->ids[t] < 0 || b->ids[t] >= model->shape.vocabulary)
            return fv_fail(model->ctx, FV_ERR_USAGE,
                           "%s: token %lld has input %d; the vocabulary has %lld tokens", b->name,
                           (long long)t, b->ids[t], (long long)model->shape.vocabulary);
    return FV_OK;
}

/* Classes of tokens (some < 0: none) or labels (all there). */
static fv_status check_classes(const fv_model *model, const fv_batch *batch, const int32_t *classes,
                               int64_t count, int64_t low)
{
    int64_t predicted = 0;
    const char *what = low < 0 ? "token" : "label";
    for (int64_t i = 0; i < count; i++) {
        if (classes[i] >= fv_shape_classes(&model->shape) || (low >= 0 && classes[i] < low))
            return fv_fail(model->ctx, FV_ERR_USAGE, "batch: %s %lld has target %d; there are %lld classes",
                           what, (long long)i, classes[i], (long long)fv_shape_classes(&model->shape));
        predicted += classes[i] >= 0;
    }
    if (predicted == batch->predicted)
        return FV_OK;
    return fv_fail(model->ctx, FV_ERR_USAGE, "batch: %lld targets are not negative; predicted says %lld",
                   (long long)predicted, (long long)batch->predicted);
}

fv_status fv_batch_check_pooling(const fv_model *model, const fv_batch *batch)
{
    const fv_shape *s = &model->shape;
    if (s->head == FV_HEAD_PAIR && batch->sequences % 2 != 0)
        return fv_fail(model->ctx, FV_ERR_USAGE, "batch: %lld sequences; the head pair reads them two by two",
                       (long long)batch->sequences);
    for (int64_t i = 0; s->head != FV_HEAD_LM && s->pool_first && i < batch->sequences; i++)
        if (batch->offsets[i + 1] == batch->offsets[i])
            return fv_fail(model->ctx, FV_ERR_USAGE,
                           "batch: sequence %lld is empty; pooling cls looks at its first token",
                           (long long)i);
    return FV_OK;
}

fv_status fv_batch_check(const fv_model *model, const fv_batch *batch)
{
    const fv_shape *s = &model->shape;
    side main = {"batch", batch->tokens, batch->sequences, batch->inputs, batch->offsets};
    TRY(check_side(model, &main));
    if (s->decoder_layers > 0) {
        side source = {"source", batch->source_tokens, batch->sequences, batch->source,
                       batch->source_offsets};
        if (source.ids == NULL || source.offsets == NULL)
            return fv_fail(model->ctx, FV_ERR_USAGE, "batch: there is no source for the encoder to read");
        TRY(check_side(model, &source));
    }
    return FV_OK;
}

fv_status fv_batch_check_targets(const fv_model *model, const fv_batch *batch)
{
    const fv_shape *s = &model->shape;
    bool labels = s->head != FV_HEAD_LM;
    const int32_t *classes = labels ? batch->labels : batch->targets;
    if (classes == NULL)
        return fv_fail(model->ctx, FV_ERR_USAGE, "batch: there are no %s to predict",
                       labels ? "labels" : "targets");
    int64_t count = fv_head_rows(s, batch->tokens, batch->sequences);
    return check_classes(model, batch, classes, count, labels ? 0 : -1);
}
