/* explain.c: rows of the attention of one layer and head, for looking at. */
#include "attention/mechanism.h"
#include "model/transformer.h"

static fv_status check_question(const fv_model *model, int64_t count, int64_t layer, int64_t head,
                                const int64_t *rows, int64_t n)
{
    const fv_shape *s = &model->shape;
    if (layer < 0 || layer >= s->layers)
        return fv_fail(model->ctx, FV_ERR_USAGE, "layer %lld of %lld; they count from 0", (long long)layer,
                       (long long)s->layers);
    if (head < 0 || head >= s->heads)
        return fv_fail(model->ctx, FV_ERR_USAGE, "head %lld of %lld; they count from 0", (long long)head,
                       (long long)s->heads);
    for (int64_t i = 0; i < n; i++)
        if (rows[i] < 0 || rows[i] >= count)
            return fv_fail(model->ctx, FV_ERR_USAGE, "row %lld of a sequence of %lld tokens",
                           (long long)rows[i], (long long)count);
    if (model->attention->mechanism->weights == NULL)
        return fv_fail(model->ctx, FV_ERR_USAGE, "attention %s has no attention matrix",
                       model->info.options.kind);
    return FV_OK;
}

/* Records the pass, on the workspace or (memory NULL) measuring. */
static int record(fv_model *model, const fv_pass *pass, int64_t layer, void *memory, size_t bytes)
{
    fv_tape_reset(&model->tape, false, memory, bytes);
    int qkv = fv_transformer_qkv(model, pass, layer);
    fv_tape_hold(&model->tape, qkv);
    return qkv;
}

static fv_status weigh(fv_model *model, const fv_pass *pass, int64_t layer, int64_t head, const float *qkv,
                       const int64_t *rows, int64_t n, float *weights)
{
    const fv_shape *s = &model->shape;
    int64_t stride = (s->heads + 2 * s->kv_heads) * s->head_dim;
    fv_attention_io io = {
        .q = qkv, .k = qkv + s->heads * s->head_dim, .q_stride = stride, .k_stride = stride};
    fv_attention_bind_drawn(model->attention, fv_model_projection(model, layer), &io);
    fv_memory need;
    TRY(fv_attention_measure(model->attention, &pass->layout, &need));
    void *scratch = fv_alloc(model->ctx, need.scratch);
    if (scratch == NULL)
        return FV_ERR_RESOURCE;
    fv_status status =
        fv_operator_rows(model->attention, &pass->layout, &io, rows, n, head, weights, scratch);
    fv_free(model->ctx, scratch);
    return status;
}

fv_status fv_model_attention(fv_model *model, const int32_t *tokens, int64_t count, int64_t layer,
                             int64_t head, const int64_t *rows, int64_t n, float *weights)
{
    const int64_t offsets[] = {0, count};
    fv_batch batch = {.tokens = count, .sequences = 1, .inputs = tokens, .offsets = offsets};
    fv_pass pass = {.tokens = count, .ids = tokens, .layout = {1, offsets, NULL}};
    TRY(fv_batch_check(model, &batch));
    TRY(check_question(model, count, layer, head, rows, n));
    record(model, &pass, layer, NULL, 0);
    TRY(fv_tape_forward(&model->tape));
    TRY(fv_workspace_reserve(model, model->tape.pool.peak, count, 0));
    fv_batch_positions(1, offsets, 0, model->work.positions);
    pass.positions = model->work.positions;
    int qkv = record(model, &pass, layer, model->work.pool, model->work.pool_bytes);
    model->tape.parameters = model->values;
    fv_status status = fv_tape_forward(&model->tape);
    model->tape.parameters = NULL;
    return status != FV_OK
               ? status
               : weigh(model, &pass, layer, head, fv_tape_data(&model->tape, qkv), rows, n, weights);
}
