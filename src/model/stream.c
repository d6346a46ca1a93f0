/* stream.c: sequences, token by token.
 *
 * What the layers remember is their attention states; a token passes through the same tape as a batch does,
 * with one row. Long prompts go in chunks at the speed of a batch. One token each of several streams are the rows of one pass,
 * which reads the weights once; their products are made so that the bits of a row are those it has alone. Kernelised kinds, window and longformer have a
 * state of fixed size, so that cost and memory of a token do not depend on its position; other kinds keep keys and
 * values up to the stream's capacity. Heads of two kinds in a layer have a state each.
 *
 * Of an encoder-decoder the stream is the decoder's. The encoder runs once over the whole source, and cross
 * attention keeps what it sees of it: sums over the keys, or with exact attention the keys and values. Tokens
 * only read them.
 */
#include "model/stream.h"
#include <string.h>

/* Tokens of a prompt that go through the layers at once: enough for full tiles, few enough that the
 * activations stay small. */
enum { CHUNK = 1024 };

/* ---- its states ---------------------------------------------------------------------------------- */

/* The stack that predicts. */
static fv_use use_of(const fv_model *model)
{
    return model->shape.decoder_layers > 0 ? FV_USE_DECODER : FV_USE_SELF;
}

static int64_t layers_of(const fv_model *model)
{
    return model->shape.decoder_layers > 0 ? model->shape.decoder_layers : model->shape.layers;
}

static const fv_operator *cross_of(const fv_model *model)
{
    return &model->ops.of[FV_USE_CROSS][0];
}

/* Of each layer: the parts of its own attention, then cross attention if there is some. */
static int64_t places_of_layer(const fv_model *model)
{
    return FV_ATTENTION_PARTS + (model->shape.decoder_layers > 0);
}

int64_t fv_stream_places(const fv_stream *stream)
{
    return layers_of(stream->model) * places_of_layer(stream->model);
}

fv_stream_place fv_stream_place_at(const fv_stream *stream, int64_t index)
{
    const fv_model *model = stream->model;
    int64_t layer = index / places_of_layer(model);
    int part = (int)(index % places_of_layer(model));
    if (part == FV_ATTENTION_PARTS)
        return (fv_stream_place){.use = FV_USE_CROSS,
                                 .layer = layer,
                                 .op = cross_of(model),
                                 .state = stream->memories.states + (size_t)layer * stream->memories.bytes,
                                 .tokens = stream->memories.tokens};
    size_t both = stream->state_bytes[0] + stream->state_bytes[1];
    size_t before = part > 0 ? stream->state_bytes[0] : 0;
    return (fv_stream_place){.use = use_of(model),
                             .layer = layer,
                             .part = part,
                             .op = &model->ops.of[use_of(model)][part],
                             .state = stream->states + (size_t)layer * both + before,
                             .tokens = stream->tokens};
}

/* The empty states of the stack that predicts, with room for `capacity` tokens. */
static fv_status init_states(fv_stream *stream, int64_t capacity)
{
    for (int64_t i = 0; i < fv_stream_places(stream); i++) {
        fv_stream_place place = fv_stream_place_at(stream, i);
        fv_state_view view;
        if (place.use == FV_USE_CROSS || place.op->op == NULL)
            continue;
        TRY(fv_attention_state_init(place.op->op, capacity, place.state));
        TRY(fv_attention_state_view(place.op->op, place.state, &view));
        if (view.keys != NULL && view.pinned == view.capacity)
            stream->capacity = capacity;
    }
    stream->tokens = 0;
    return FV_OK;
}

/* Bytes of a state, a whole number of cache lines. */
static fv_status state_bytes(const fv_operator *op, int64_t capacity, size_t *bytes)
{
    if (op->op == NULL)
        return FV_OK;
    TRY(fv_attention_state_bytes(op->op, capacity, bytes));
    *bytes = fv_bytes((int64_t)FV_MIN(*bytes, (size_t)INT64_MAX), 1);
    return FV_OK;
}

void fv_memories_free(fv_memories *memories, const fv_model *model)
{
    fv_free(model->ctx, memories->states);
    *memories = (fv_memories){0};
}

fv_status fv_memories_make(fv_memories *memories, const fv_model *model, int64_t tokens)
{
    const fv_operator *cross = cross_of(model);
    *memories = (fv_memories){.tokens = tokens};
    TRY(state_bytes(cross, tokens, &memories->bytes));
    memories->states = fv_alloc_zero(model->ctx, model->shape.decoder_layers, memories->bytes);
    if (memories->states == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t l = 0; l < model->shape.decoder_layers; l++) {
        char *state = memories->states + (size_t)l * memories->bytes;
        fv_status status = fv_attention_state_init(cross->op, tokens, state);
        if (status != FV_OK) {
            fv_memories_free(memories, model);
            return status;
        }
    }
    return FV_OK;
}

/* ---- its life ------------------------------------------------------------------------------------ */

/* Under bf16 steps read the parameters in it: half the memory a token. */
static fv_status take_half(fv_stream *stream)
{
    fv_model *model = stream->model;
    if (!fv_stream_halves(model))
        return FV_OK;
    if (model->half == NULL) {
        model->half = fv_alloc_zero(model->ctx, model->float_count, sizeof *model->half);
        if (model->half == NULL)
            return FV_ERR_RESOURCE;
        model->ctx->kernels->f32_to_bf16(model->float_count, model->values, model->half);
    }
    model->half_users++;
    stream->half = true;
    return FV_OK;
}

static void give_half(fv_stream *stream)
{
    fv_model *model = stream->model;
    if (!stream->half || --model->half_users > 0)
        return;
    fv_free(model->ctx, model->half);
    model->half = NULL;
}

static fv_status allocate(fv_stream *stream, int64_t capacity)
{
    fv_model *model = stream->model;
    size_t *bytes = stream->state_bytes, cross = 0;
    for (int part = 0; part < FV_ATTENTION_PARTS; part++)
        TRY(state_bytes(&model->ops.of[use_of(model)][part], capacity, &bytes[part]));
    TRY(state_bytes(cross_of(model), 0, &cross)); /* whether it can be kept at all */
    stream->states = fv_alloc_zero(model->ctx, layers_of(model), fv_add_bytes(bytes[0], bytes[1]));
    stream->logits = fv_alloc_zero(model->ctx, model->shape.vocabulary, sizeof(float));
    if (stream->states == NULL || stream->logits == NULL)
        return FV_ERR_RESOURCE;
    stream->capacity = -1;
    TRY(take_half(stream));
    return init_states(stream, capacity);
}

fv_status fv_stream_check(const fv_model *model)
{
    const fv_shape *s = &model->shape;
    if (s->head != FV_HEAD_LM)
        return fv_fail(model->ctx, FV_ERR_USAGE, "a stream needs the head lm; this model predicts labels");
    for (int part = 0; s->decoder_layers == 0 && part < FV_ATTENTION_PARTS; part++) {
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
    TRY(fv_stream_check(model));
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
    give_half(stream);
    fv_memories_free(&stream->memories, stream->model);
    fv_free(ctx, stream->states);
    fv_free(ctx, stream->lists_memory);
    fv_free(ctx, stream->logits);
    fv_free(ctx, stream);
}

int64_t fv_stream_tokens(const fv_stream *stream)
{
    return stream->tokens;
}

/* ---- passes -------------------------------------------------------------------------------------- */

/* Layers over the pass's tokens; or the encoder over its source. */
typedef struct stream_pass {
    fv_pass pass;
    int64_t streams;
    float *logits; /* [streams][vocabulary] after the last token of each; NULL: not wanted */
} stream_pass;

static void record(fv_model *model, const stream_pass *p, void *memory, size_t bytes)
{
    fv_tape *tape = &model->tape;
    fv_tape_reset(tape, false, memory, bytes);
    if (p->pass.source_tokens > 0) {
        fv_transformer_encode(model, &p->pass);
        return;
    }
    tape->stepping = p->pass.tokens == p->streams;
    int x = fv_transformer_layers(model, &p->pass);
    if (p->logits == NULL)
        return;
    int logits = fv_head_logits(model, &p->pass, x, model->work.selected, p->streams);
    fv_tape_hold(tape, logits);
    fv_tape_place(tape, logits, p->logits);
}

static fv_status plan(fv_model *model, const stream_pass *p)
{
    const fv_list_sizes sizes = {
        .tokens = p->pass.tokens, .source_tokens = p->pass.source_tokens, .selected = p->streams};
    record(model, p, NULL, 0);
    TRY(fv_tape_forward(&model->tape));
    return fv_workspace_reserve(model, model->tape.pool.peak, &sizes);
}

static fv_status run(fv_model *model, stream_pass *p)
{
    fv_workspace *work = &model->work;
    fv_pass *pass = &p->pass;
    TRY(plan(model, p));
    for (int64_t s = 0; s < pass->layout.sequences; s++)
        work->selected[s] = (int32_t)pass->layout.offsets_q[s + 1] - 1;
    fv_batch_positions(pass->layout.sequences, pass->layout.offsets_q, pass->first, work->positions);
    fv_batch_positions(pass->source_layout.sequences, pass->source_layout.offsets_q, NULL,
                       work->source_positions);
    pass->positions = work->positions;
    pass->source_positions = work->source_positions;
    record(model, p, work->pool, work->pool_bytes);
    model->tape.parameters = model->values;
    model->tape.parameters_half = fv_stream_halves(model) ? model->half : NULL;
    fv_status status = fv_tape_forward(&model->tape);
    model->tape.parameters = NULL;
    model->tape.parameters_half = NULL;
    return status;
}

/* ---- what a pass is told of its streams ---------------------------------------------------------------- */

static void lay_out_lists(fv_arena *arena, const fv_model *model, int64_t streams, fv_stream_lists *lists)
{
    *lists = (fv_stream_lists){.streams = streams};
    lists->states = FV_PUSH(arena, void *, layers_of(model) * FV_PASS_STATES * streams);
    lists->first = FV_PUSH(arena, int64_t, streams);
    lists->none = FV_PUSH(arena, int64_t, streams + 1);
    lists->offsets = FV_PUSH(arena, int64_t, streams + 1);
}

/* Makes room in the first stream's lists. */
static fv_status reserve_lists(fv_stream *owner, int64_t streams)
{
    const fv_model *model = owner->model;
    fv_stream_lists *lists = &owner->lists;
    if (streams <= lists->streams)
        return FV_OK;
    fv_arena arena = fv_arena_measure();
    lay_out_lists(&arena, model, streams, lists);
    size_t bytes = arena.used;
    fv_free(model->ctx, owner->lists_memory);
    *lists = (fv_stream_lists){0};
    owner->lists_memory = fv_alloc(model->ctx, bytes);
    if (owner->lists_memory == NULL)
        return FV_ERR_RESOURCE;
    arena = fv_arena_over(owner->lists_memory, bytes);
    lay_out_lists(&arena, model, streams, lists);
    return FV_OK;
}

/* Of `tokens` tokens of each stream. */
static void fill_lists(fv_stream *const *streams, int64_t count, int64_t tokens, const fv_stream_lists *lists)
{
    const fv_model *model = streams[0]->model;
    int64_t of_layer = places_of_layer(model);
    for (int64_t s = 0; s <= count; s++) {
        lists->offsets[s] = s * tokens;
        lists->none[s] = 0;
    }
    for (int64_t s = 0; s < count; s++) {
        lists->first[s] = streams[s]->tokens;
        for (int64_t i = 0; i < layers_of(model) * FV_PASS_STATES; i++)
            lists->states[i * count + s] = NULL;
        for (int64_t i = 0; i < fv_stream_places(streams[s]); i++) {
            int64_t at = i / of_layer * FV_PASS_STATES + i % of_layer;
            lists->states[at * count + s] = fv_stream_place_at(streams[s], i).state;
        }
    }
}

/* Tokens of the vocabulary that the model's positions reach, `before` of them passed. */
static fv_status check_tokens(const fv_model *model, const char *what, int64_t before, const int32_t *tokens,
                              int64_t count)
{
    const fv_shape *s = &model->shape;
    if (s->places > 0 && count > s->places - before)
        return fv_fail(model->ctx, FV_ERR_USAGE,
                       "the %s holds %lld tokens and was fed %lld; the model's positions reach %lld "
                       "(max_position_embeddings)",
                       what, (long long)before, (long long)count, (long long)s->places);
    if (count > INT32_MAX)
        return fv_fail(model->ctx, FV_ERR_USAGE, "the %s was fed %lld tokens; expected at most %d", what,
                       (long long)count, INT32_MAX);
    for (int64_t t = 0; t < count; t++)
        if (tokens[t] < 0 || tokens[t] >= s->vocabulary)
            return fv_fail(model->ctx, FV_ERR_USAGE,
                           "token %lld of the %s is %d; the vocabulary has %lld tokens", (long long)t, what,
                           tokens[t], (long long)s->vocabulary);
    return FV_OK;
}

/* ---- the source ---------------------------------------------------------------------------------- */

static fv_status encode(fv_stream *stream, const int32_t *tokens, const fv_memories *memories)
{
    const int64_t none[] = {0, 0}, all[] = {0, memories->tokens};
    const fv_stream_lists *lists = &stream->lists;
    TRY(reserve_lists(stream, 1));
    for (int64_t i = 0; i < layers_of(stream->model) * FV_PASS_STATES; i++)
        lists->states[i] = memories->states + (size_t)(i / FV_PASS_STATES) * memories->bytes;
    stream_pass p = {.pass = {.source_tokens = memories->tokens,
                              .source_ids = tokens,
                              .source_layout = {1, all, NULL},
                              .across = {1, none, all},
                              .states = lists->states}};
    return run(stream->model, &p);
}

fv_status fv_stream_source(fv_stream *stream, const int32_t *tokens, int64_t count)
{
    const fv_model *model = stream->model;
    fv_memories next;
    if (model->shape.decoder_layers == 0)
        return fv_fail(model->ctx, FV_ERR_USAGE,
                       "the stream takes no source: its model has no encoder (is_encoder_decoder)");
    if (count < 1)
        return fv_fail(model->ctx, FV_ERR_USAGE, "the source has %lld tokens; expected 1 or more",
                       (long long)count);
    TRY(check_tokens(model, "source", 0, tokens, count));
    TRY(fv_memories_make(&next, model, count));
    fv_status status = encode(stream, tokens, &next);
    if (status == FV_OK)
        status = init_states(stream, FV_MAX(stream->capacity, 0));
    if (status != FV_OK) {
        fv_memories_free(&next, model);
        return status;
    }
    fv_memories_free(&stream->memories, model);
    stream->memories = next;
    return FV_OK;
}

/* ---- feeding ------------------------------------------------------------------------------------- */

/* Everything that can be wrong is found before any state changes. */
static fv_status check_feed(const fv_stream *stream, const int32_t *tokens, int64_t count)
{
    const fv_model *model = stream->model;
    if (model->shape.decoder_layers > 0 && stream->memories.tokens == 0)
        return fv_fail(model->ctx, FV_ERR_USAGE,
                       "the stream has no source to translate; give it one with fv_stream_source");
    if (count < 0 || (count == 0 && stream->tokens == 0))
        return fv_fail(model->ctx, FV_ERR_USAGE, "%lld tokens were fed to a stream that holds %lld",
                       (long long)count, (long long)stream->tokens);
    if (stream->capacity >= 0 && count > stream->capacity - stream->tokens)
        return fv_fail(model->ctx, FV_ERR_USAGE,
                       "the stream holds %lld of %lld tokens and was fed %lld; attention %s keeps every key: "
                       "create it with a larger capacity",
                       (long long)stream->tokens, (long long)stream->capacity, (long long)count,
                       fv_operators_main(&model->ops, use_of(model))->info.options.kind);
    return check_tokens(model, "stream", stream->tokens, tokens, count);
}

/* `each` tokens of every stream, stream after stream. */
static fv_status feed(fv_stream *const *streams, int64_t count, const int32_t *tokens, int64_t each,
                      float *logits)
{
    const fv_stream_lists *lists = &streams[0]->lists;
    TRY(reserve_lists(streams[0], count));
    fill_lists(streams, count, each, lists);
    stream_pass p = {.pass = {.tokens = count * each,
                              .ids = tokens,
                              .layout = {count, lists->offsets, NULL},
                              .across = {count, lists->offsets, lists->none},
                              .first = lists->first,
                              .states = lists->states},
                     .streams = count,
                     .logits = logits};
    TRY(run(streams[0]->model, &p));
    for (int64_t s = 0; s < count; s++)
        streams[s]->tokens += each;
    return FV_OK;
}

fv_status fv_stream_feed(fv_stream *stream, const int32_t *tokens, int64_t count, float *logits)
{
    TRY(check_feed(stream, tokens, count));
    for (int64_t t = 0; t < count; t += CHUNK)
        TRY(feed(&stream, 1, tokens + t, FV_MIN(CHUNK, count - t),
                 t + CHUNK >= count ? stream->logits : NULL));
    memcpy(logits, stream->logits, (size_t)stream->model->shape.vocabulary * sizeof *logits);
    return FV_OK;
}

static fv_status check_streams(fv_stream *const *streams, int64_t count, const int32_t *tokens)
{
    for (int64_t s = 0; s < count; s++) {
        const fv_model *model = streams[0]->model;
        if (streams[s]->model != model)
            return fv_fail(model->ctx, FV_ERR_USAGE, "stream %lld is of another model than stream 0",
                           (long long)s);
        for (int64_t other = 0; other < s; other++)
            if (streams[other] == streams[s])
                return fv_fail(model->ctx, FV_ERR_USAGE,
                               "streams %lld and %lld are the same; expected different ones",
                               (long long)other, (long long)s);
        TRY(check_feed(streams[s], tokens + s, 1));
    }
    return FV_OK;
}

fv_status fv_streams_step(fv_stream *const *streams, int64_t count, const int32_t *tokens, float *logits)
{
    if (count == 0)
        return FV_OK;
    TRY(check_streams(streams, count, tokens));
    TRY(feed(streams, count, tokens, 1, logits));
    int64_t vocabulary = streams[0]->model->shape.vocabulary;
    for (int64_t s = 0; s < count; s++)
        memcpy(streams[s]->logits, logits + s * vocabulary, (size_t)vocabulary * sizeof *logits);
    return FV_OK;
}

/* ---- the state as tensors ------------------------------------------------------------------------ */

fv_status fv_stream_pieces(const fv_stream_place *place, fv_state_piece pieces[FV_STATE_PIECES], int *count)
{
    const fv_attention_options *o = &place->op->info.options;
    int64_t tokens = place->tokens;
    fv_state_view view;
    *count = 0;
    if (place->op->op == NULL)
        return FV_OK;
    TRY(fv_attention_state_view(place->op->op, place->state, &view));
    if (view.keys != NULL) {
        int64_t rows = FV_MIN(tokens, view.capacity);
        pieces[(*count)++] =
            (fv_state_piece){"keys", view.keys, 3, {rows, o->kv_heads, o->dim}, view.capacity};
        pieces[(*count)++] =
            (fv_state_piece){"values", view.values, 3, {rows, o->kv_heads, o->value_dim}, view.capacity};
        return FV_OK;
    }
    if (view.S == NULL) /* a kind that remembers nothing */
        return FV_OK;
    pieces[(*count)++] = (fv_state_piece){"S", view.S, 3, {o->heads, view.features, o->value_dim}, 0};
    pieces[(*count)++] = (fv_state_piece){"z", view.z, 2, {o->heads, view.features}, 0};
    pieces[(*count)++] = (fv_state_piece){"exponent", view.exponent, 2, {o->heads, view.features}, 0};
    return FV_OK;
}
