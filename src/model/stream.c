/* stream.c: one sequence, token by token.
 *
 * What the layers remember is their attention states; a token passes through the same tape as a batch does,
 * with one row. Long prompts go in chunks at the speed of a batch. Kernelised kinds, window and longformer have a
 * state of fixed size, so that cost and memory of a token do not depend on its position; other kinds keep keys and
 * values up to the stream's capacity. Heads of two kinds in a layer have a state each.
 */
#include "model/stream.h"
#include <string.h>

/* Tokens of a prompt that go through the layers at once: enough for full tiles, few enough that the
 * activations stay small. */
enum { CHUNK = 1024 };

char *fv_stream_state(const fv_stream *stream, int64_t layer, int part)
{
    size_t both = stream->state_bytes[0] + stream->state_bytes[1];
    return stream->states + (size_t)layer * both + (part > 0 ? stream->state_bytes[0] : 0);
}

static const fv_operator *operator_of(const fv_stream *stream, int part)
{
    return &stream->model->ops.of[FV_USE_SELF][part];
}

static fv_status init_states(fv_stream *stream, int part, int64_t capacity)
{
    const fv_attention *op = operator_of(stream, part)->op;
    fv_state_view view;
    if (op == NULL)
        return FV_OK;
    for (int64_t l = 0; l < stream->model->shape.layers; l++)
        TRY(fv_attention_state_init(op, capacity, fv_stream_state(stream, l, part)));
    TRY(fv_attention_state_view(op, fv_stream_state(stream, 0, part), &view));
    if (view.keys != NULL && view.pinned == view.capacity)
        stream->capacity = capacity;
    return FV_OK;
}

static fv_status allocate(fv_stream *stream, int64_t capacity)
{
    fv_model *model = stream->model;
    size_t *bytes = stream->state_bytes;
    for (int part = 0; part < FV_ATTENTION_PARTS; part++) {
        if (operator_of(stream, part)->op == NULL)
            continue;
        TRY(fv_attention_state_bytes(operator_of(stream, part)->op, capacity, &bytes[part]));
        bytes[part] = fv_bytes((int64_t)FV_MIN(bytes[part], (size_t)INT64_MAX), 1);
    }
    stream->states = fv_alloc_zero(model->ctx, model->shape.layers, fv_add_bytes(bytes[0], bytes[1]));
    stream->logits = fv_alloc_zero(model->ctx, model->shape.vocabulary, sizeof(float));
    if (stream->states == NULL || stream->logits == NULL)
        return FV_ERR_RESOURCE;
    stream->capacity = -1;
    for (int part = 0; part < FV_ATTENTION_PARTS; part++)
        TRY(init_states(stream, part, capacity));
    return FV_OK;
}

static fv_status check_streams(const fv_model *model)
{
    const fv_shape *s = &model->shape;
    if (s->decoder_layers > 0)
        return fv_fail(
            model->ctx, FV_ERR_USAGE,
            "a stream needs one causal stack; this model is an encoder-decoder, which only predicts "
            "whole sequences so far");
    if (s->head != FV_HEAD_LM)
        return fv_fail(model->ctx, FV_ERR_USAGE, "a stream needs the head lm; this model predicts labels");
    for (int part = 0; part < FV_ATTENTION_PARTS; part++) {
        const fv_operator *o = &model->ops.of[FV_USE_SELF][part];
        if (o->op != NULL && !o->info.can_stream)
            return fv_fail(
                model->ctx, FV_ERR_USAGE,
                "a stream needs a causal model (is_decoder) whose attention can stream; this one is %s, "
                "attention %s",
                s->causal ? "causal" : "bidirectional", o->info.options.kind);
    }
    return FV_OK;
}

fv_status fv_stream_create(fv_stream **out, fv_model *model, int64_t capacity)
{
    *out = NULL;
    TRY(check_streams(model));
    if (capacity < 0)
        return fv_fail(model->ctx, FV_ERR_USAGE, "capacity is %lld tokens; expected 0 or more",
                       (long long)capacity);
    fv_stream *stream = fv_alloc_zero(model->ctx, 1, sizeof *stream);
    if (stream == NULL)
        return FV_ERR_RESOURCE;
    stream->model = model;
    fv_status status = allocate(stream, capacity);
    if (status == FV_OK)
        *out = stream;
    else
        fv_stream_destroy(stream);
    return status;
}

void fv_stream_destroy(fv_stream *stream)
{
    if (stream == NULL)
        return;
    fv_context *ctx = stream->model->ctx;
    fv_free(ctx, stream->states);
    fv_free(ctx, stream->logits);
    fv_free(ctx, stream);
}

int64_t fv_stream_tokens(const fv_stream *stream)
{
    return stream->tokens;
}

/* ---- feeding ------------------------------------------------------------------------------------------- */

/* Everything that can be wrong is found before any state changes. */
static fv_status check_feed(const fv_stream *stream, const int32_t *tokens, int64_t count)
{
    const fv_model *model = stream->model;
    const fv_shape *s = &model->shape;
    if (count < 0 || (count == 0 && stream->tokens == 0))
        return fv_fail(model->ctx, FV_ERR_USAGE, "%lld tokens were fed to a stream that holds %lld",
                       (long long)count, (long long)stream->tokens);
    if (stream->capacity >= 0 && count > stream->capacity - stream->tokens)
        return fv_fail(model->ctx, FV_ERR_USAGE,
                       "the stream holds %lld of %lld tokens and was fed %lld; attention %s keeps every key: "
                       "create it with a larger capacity",
                       (long long)stream->tokens, (long long)stream->capacity, (long long)count,
                       fv_operators_main(&model->ops, FV_USE_SELF)->info.options.kind);
    if (s->places > 0 && count > s->places - stream->tokens)
        return fv_fail(model->ctx, FV_ERR_USAGE,
                       "the stream holds %lld tokens and was fed %lld; the model's positions reach %lld "
                       "(max_position_embeddings)",
                       (long long)stream->tokens, (long long)count, (long long)s->places);
    for (int64_t t = 0; t < count; t++)
        if (tokens[t] < 0 || tokens[t] >= s->vocabulary)
            return fv_fail(model->ctx, FV_ERR_USAGE, "token %lld is %d; the vocabulary has %lld tokens",
                           (long long)t, tokens[t], (long long)s->vocabulary);
    return FV_OK;
}

/* Layers over n tokens; the last of them decides the logits. */
static void record(fv_stream *stream, const fv_pass *pass, bool last, void *memory, size_t bytes)
{
    fv_model *model = stream->model;
    fv_tape *tape = &model->tape;
    fv_tape_reset(tape, false, memory, bytes);
    tape->stepping = pass->tokens == 1;
    int x = fv_transformer_layers(model, pass);
    if (!last)
        return;
    int logits = fv_head_logits(model, pass, x, model->work.selected, 1);
    fv_tape_hold(tape, logits);
    fv_tape_place(tape, logits, stream->logits);
}

static fv_status plan(fv_stream *stream, fv_pass *pass, bool last)
{
    record(stream, pass, last, NULL, 0);
    TRY(fv_tape_forward(&stream->model->tape));
    return fv_workspace_reserve(stream->model, stream->model->tape.pool.peak,
                                &(fv_list_sizes){.tokens = pass->tokens, .selected = 1});
}

static fv_status feed_chunk(fv_stream *stream, const int32_t *tokens, int64_t count, bool last)
{
    fv_model *model = stream->model;
    const int64_t offsets[] = {0, count};
    fv_pass pass = {.tokens = count,
                    .ids = tokens,
                    .layout = {1, offsets, NULL},
                    .states = stream->states,
                    .state_bytes = {stream->state_bytes[0], stream->state_bytes[1]}};
    TRY(plan(stream, &pass, last));
    fv_workspace *work = &model->work;
    work->selected[0] = (int32_t)(count - 1);
    fv_batch_positions(1, offsets, stream->tokens, work->positions);
    pass.positions = work->positions;
    record(stream, &pass, last, work->pool, work->pool_bytes);
    model->tape.parameters = model->values;
    fv_status status = fv_tape_forward(&model->tape);
    model->tape.parameters = NULL;
    stream->tokens += status == FV_OK ? count : 0;
    return status;
}

fv_status fv_stream_feed(fv_stream *stream, const int32_t *tokens, int64_t count, float *logits)
{
    const fv_model *model = stream->model;
    TRY(check_feed(stream, tokens, count));
    for (int64_t t = 0; t < count; t += CHUNK)
        TRY(feed_chunk(stream, tokens + t, FV_MIN(CHUNK, count - t), t + CHUNK >= count));
    memcpy(logits, stream->logits, (size_t)model->shape.vocabulary * sizeof *logits);
    return FV_OK;
}

/* ---- the state as tensors ------------------------------------------------------------------------ */

fv_status fv_stream_pieces(const fv_stream *stream, int64_t layer, int part, int64_t tokens,
                           fv_state_piece pieces[FV_STATE_PIECES], int *count)
{
    const fv_operator *op = operator_of(stream, part);
    const fv_attention_options *o = &op->info.options;
    fv_state_view view;
    *count = 0;
    if (op->op == NULL)
        return FV_OK;
    TRY(fv_attention_state_view(op->op, fv_stream_state(stream, layer, part), &view));
    if (view.keys != NULL) {
        int64_t rows = FV_MIN(tokens, view.capacity);
        pieces[(*count)++] = (fv_state_piece){"keys", view.keys, 3, {rows, o->kv_heads, o->dim}};
        pieces[(*count)++] = (fv_state_piece){"values", view.values, 3, {rows, o->kv_heads, o->value_dim}};
        return FV_OK;
    }
    if (view.S == NULL) /* a kind that remembers nothing */
        return FV_OK;
    pieces[(*count)++] = (fv_state_piece){"S", view.S, 3, {o->heads, view.features, o->value_dim}};
    pieces[(*count)++] = (fv_state_piece){"z", view.z, 2, {o->heads, view.features}};
    pieces[(*count)++] = (fv_state_piece){"exponent", view.exponent, 2, {o->heads, view.features}};
    return FV_OK;
}
