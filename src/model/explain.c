/* explain.c: rows of the attention of one layer and head, for looking at. */
#include "attention/mechanism.h"
#include "model/transformer.h"

/* The operator that has a head. */
static int part_of(const fv_model *model, int64_t head)
{
    const fv_operator *parts = model->ops.of[FV_USE_SELF];
    return parts[1].op != NULL && head >= parts[0].info.options.heads ? 1 : 0;
}

static fv_status check_question(const fv_model *model, int64_t count, int64_t layer, int64_t head,
                                const int64_t *rows, int64_t n)
{
    const fv_shape *s = &model->shape;
    if (s->decoder_layers > 0)
        return fv_fail(model->ctx, FV_ERR_USAGE,
                       "the attention of an encoder-decoder, which reads two sequences, cannot be shown yet");
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
    const fv_operator *o = &model->ops.of[FV_USE_SELF][part_of(model, head)];
    if (o->op->mechanism->weights == NULL)
        return fv_fail(model->ctx, FV_ERR_USAGE, "attention %s has no attention matrix",
                       o->info.options.kind);
    return FV_OK;
}

typedef struct recorded {
    int qkv, gate; /* gate -1: none */
} recorded;

/* Records the pass, on the workspace or (memory NULL) measuring. */
static recorded record(fv_model *model, const fv_pass *pass, int64_t layer, void *memory, size_t bytes)
{
    recorded r;
    fv_tape_reset(&model->tape, false, memory, bytes);
    r.qkv = fv_transformer_qkv(model, pass, layer, &r.gate);
    fv_tape_hold(&model->tape, r.qkv);
    if (r.gate >= 0)
        fv_tape_hold(&model->tape, r.gate);
    return r;
}

/* What the operator of a part reads in one layer. */
static fv_attention_io make_io(const fv_model *model, int64_t layer, int part, const recorded *r)
{
    const fv_shape *s = &model->shape;
    const fv_site *site = &model->sites[fv_site_index(s, FV_USE_SELF, layer)];
    const fv_operator *parts = model->ops.of[FV_USE_SELF];
    const fv_attention_inputs *inputs = &site->inputs[part];
    int64_t stride = (s->heads + 2 * s->kv_heads) * s->head_dim;
    int64_t first = part > 0 ? parts[0].info.options.heads : 0;
    int64_t first_kv = part > 0 ? parts[0].info.options.kv_heads : 0;
    const float *qkv = fv_tape_data(&model->tape, r->qkv);
    fv_attention_io io = {.q = qkv + first * s->head_dim,
                          .k = qkv + (s->heads + first_kv) * s->head_dim,
                          .q_stride = stride,
                          .k_stride = stride};
    fv_attention_bind_drawn(parts[part].op, site->drawn[part], &io);
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (inputs->fixed[i] != NULL)
            io.input[i] = inputs->fixed[i];
        else if (inputs->trained[i] >= 0)
            io.input[i] = model->values + inputs->trained[i];
    if (parts[part].info.options.gate)
        io.input[FV_INPUT_GATE] = fv_tape_data(&model->tape, r->gate);
    return io;
}

static fv_status weigh(fv_model *model, const fv_pass *pass, int64_t layer, int64_t head, const recorded *r,
                       const int64_t *rows, int64_t n, float *weights)
{
    int part = part_of(model, head);
    const fv_operator *parts = model->ops.of[FV_USE_SELF];
    fv_attention_io io = make_io(model, layer, part, r);
    fv_memory need;
    TRY(fv_attention_measure(parts[part].op, &pass->layout, &need));
    void *scratch = fv_alloc(model->ctx, need.scratch);
    if (scratch == NULL)
        return FV_ERR_RESOURCE;
    head -= part > 0 ? parts[0].info.options.heads : 0;
    fv_status status = fv_operator_rows(parts[part].op, &pass->layout, &io, rows, n, head, weights, scratch);
    fv_free(model->ctx, scratch);
    return status;
}

fv_status fv_model_attention(fv_model *model, const int32_t *tokens, int64_t count, int64_t layer,
                             int64_t head, const int64_t *rows, int64_t n, float *weights)
{
    const int64_t offsets[] = {0, count};
    fv_batch batch = {.tokens = count, .sequences = 1, .inputs = tokens, .offsets = offsets};
    fv_pass pass = {.tokens = count, .ids = tokens, .layout = {1, offsets, NULL}};
    TRY(check_question(model, count, layer, head, rows, n));
    TRY(fv_batch_check(model, &batch));
    record(model, &pass, layer, NULL, 0);
    TRY(fv_tape_forward(&model->tape));
    TRY(fv_workspace_reserve(model, model->tape.pool.peak, &(fv_list_sizes){.tokens = count}));
    fv_batch_positions(1, offsets, 0, model->work.positions);
    pass.positions = model->work.positions;
    recorded r = record(model, &pass, layer, model->work.pool, model->work.pool_bytes);
    model->tape.parameters = model->values;
    fv_status status = fv_tape_forward(&model->tape);
    model->tape.parameters = NULL;
    return status != FV_OK ? status : weigh(model, &pass, layer, head, &r, rows, n, weights);
}
