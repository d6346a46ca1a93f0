/* qkv.c: the queries, keys and values that a layer computes for a batch, for looking at. */
#include "kernels/kernels.h"
#include "model/transformer.h"

static int record(fv_model *model, const fv_pass *pass, int64_t layer, void *memory, size_t bytes)
{
    int gate;
    fv_tape_reset(&model->tape, false, memory, bytes);
    int qkv = fv_transformer_qkv(model, pass, layer, &gate);
    fv_tape_hold(&model->tape, qkv);
    return qkv;
}

/* Out of the fused rows [T][(H + 2 G) head_dim]. */
static void take(const fv_model *model, const float *qkv, int64_t tokens, float *q, float *k, float *v)
{
    const fv_kernels *kr = model->ctx->kernels;
    const fv_shape *s = &model->shape;
    int64_t queries = s->heads * s->head_dim, keys = s->kv_heads * s->head_dim, row = queries + 2 * keys;
    kr->copy_rows(tokens, queries, qkv, row, q, queries);
    kr->copy_rows(tokens, keys, qkv + queries, row, k, keys);
    kr->copy_rows(tokens, keys, qkv + queries + keys, row, v, keys);
}

fv_status fv_model_qkv(fv_model *model, const fv_batch *batch, int64_t layer, float *q, float *k, float *v)
{
    fv_pass pass = {
        .tokens = batch->tokens, .ids = batch->inputs, .layout = {batch->sequences, batch->offsets, NULL}};
    if (model->shape.decoder_layers > 0)
        return fv_fail(
            model->ctx, FV_ERR_USAGE,
            "queries and keys of an encoder-decoder, which reads two sequences, cannot be shown yet");
    TRY(fv_batch_check(model, batch));
    if (layer < 0 || layer >= model->shape.layers)
        return fv_fail(model->ctx, FV_ERR_USAGE, "layer %lld of %lld; they count from 0", (long long)layer,
                       (long long)model->shape.layers);
    record(model, &pass, layer, NULL, 0);
    TRY(fv_tape_forward(&model->tape));
    TRY(fv_workspace_reserve(model, model->tape.pool.peak, &(fv_list_sizes){.tokens = batch->tokens}));
    fv_batch_positions(batch->sequences, batch->offsets, 0, model->work.positions);
    pass.positions = model->work.positions;
    int qkv = record(model, &pass, layer, model->work.pool, model->work.pool_bytes);
    model->tape.parameters = model->values;
    fv_status status = fv_tape_forward(&model->tape);
    model->tape.parameters = NULL;
    if (status == FV_OK)
        take(model, fv_tape_data(&model->tape, qkv), batch->tokens, q, k, v);
    return status;
}
