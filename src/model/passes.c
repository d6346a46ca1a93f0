/* passes.c: a batch through the model: the loss with its gradients, the loss alone, the logits, and what they
 * cost, told before they run. */
#include "model/transformer.h"
#include <string.h>

/* One pass over a batch: what to record. While measuring only the sizes count. */
typedef struct batch_pass {
    fv_pass pass;
    bool training;
    int64_t rows;          /* of logits that are wanted */
    fv_cross_entropy loss; /* targets of these rows */
    float *logits;         /* instead of a loss; NULL: a loss */
} batch_pass;

static void record(fv_model *model, const batch_pass *b, void *memory, size_t bytes)
{
    fv_tape *tape = &model->tape;
    fv_tape_reset(tape, b->training, memory, bytes);
    int x = fv_transformer_layers(model, &b->pass);
    if (b->logits == NULL) {
        fv_head_loss(model, &b->pass, x, model->work.selected, b->rows, &b->loss);
        return;
    }
    int logits = fv_head_logits(model, &b->pass, x, model->work.selected, b->rows);
    fv_tape_hold(tape, logits);
    fv_tape_place(tape, logits, b->logits);
}

static fv_status play(fv_model *model, const batch_pass *b)
{
    TRY(fv_tape_forward(&model->tape));
    return b->training ? fv_tape_backward(&model->tape) : FV_OK;
}

/* Bytes of activations the pass will need. */
static fv_status plan(fv_model *model, const batch_pass *b, size_t *bytes)
{
    record(model, b, NULL, 0);
    TRY(play(model, b));
    *bytes = model->tape.pool.peak;
    return FV_OK;
}

static fv_status run(fv_model *model, batch_pass *b)
{
    fv_tape *tape = &model->tape;
    record(model, b, model->work.pool, model->work.pool_bytes);
    tape->parameters = model->values;
    tape->gradients = b->training ? model->gradients : NULL;
    fv_status status = play(model, b);
    tape->parameters = NULL;
    tape->gradients = NULL;
    return status;
}

/* ---- cost -------------------------------------------------------------------------------------------- */

/* The layouts of `tokens` in up to `sequences` sequences that bound what attention needs: one long sequence
 * among empty rests, for what grows with the longest; single tokens and one long rest, for what is rounded
 * up in every sequence; equal lengths. */
enum { LAYOUTS = 3, EQUAL = 2 };

static void make_layout(int which, int64_t tokens, int64_t sequences, int64_t *offsets)
{
    for (int64_t s = 0; s < sequences; s++) {
        int64_t equal = (tokens + sequences - 1) / sequences * s;
        offsets[s] = which == 0 ? 0 : which == 1 ? FV_MIN(s, tokens) : FV_MIN(equal, tokens);
    }
    offsets[0] = 0;
    offsets[sequences] = tokens;
}

typedef struct cost {
    size_t pool_bytes;
    fv_list_sizes sizes;
    double flop;
} cost;

/* offsets: two lists, of the tokens and of the source, which may be cut in other ways. */
static fv_status measure_layouts(fv_model *model, batch_pass *b, int64_t *offsets, cost *c)
{
    int64_t sequences = b->pass.layout.sequences, *source = offsets + sequences + 1;
    int ways = model->shape.decoder_layers > 0 ? LAYOUTS * LAYOUTS : LAYOUTS;
    b->pass.layout.offsets_q = b->pass.across.offsets_q = offsets;
    b->pass.source_layout.offsets_q = b->pass.across.offsets_k = source;
    for (int i = 0; i < ways; i++) {
        size_t bytes;
        make_layout(i % LAYOUTS, b->pass.tokens, sequences, offsets);
        make_layout(ways == LAYOUTS ? i : i / LAYOUTS, b->pass.tokens, sequences, source);
        TRY(plan(model, b, &bytes));
        c->pool_bytes = FV_MAX(c->pool_bytes, bytes);
        if (i % LAYOUTS == EQUAL)
            c->flop = fv_tape_flop(&model->tape);
    }
    return FV_OK;
}

static fv_list_sizes list_sizes(const fv_model *model, const fv_pass *pass, int64_t rows)
{
    bool labels = model->shape.head != FV_HEAD_LM;
    return (fv_list_sizes){pass->tokens, pass->source_tokens, labels ? pass->layout.sequences : rows};
}

static fv_status measure(fv_model *model, int64_t tokens, int64_t sequences, int64_t predicted, bool training,
                         cost *c)
{
    *c = (cost){0};
    bool labels = model->shape.head != FV_HEAD_LM;
    if (tokens < 1 || tokens > INT32_MAX || sequences < 1 || sequences > INT32_MAX || predicted < 0 ||
        (!labels && predicted > tokens))
        return fv_fail(
            model->ctx, FV_ERR_USAGE,
            "%lld tokens in %lld sequences with %lld targets: expected 1 to %d tokens, and at most as "
            "many targets",
            (long long)tokens, (long long)sequences, (long long)predicted, INT32_MAX);
    sequences += model->shape.head == FV_HEAD_PAIR && sequences % 2 != 0;
    int64_t *offsets = fv_alloc_array(model->ctx, 2 * (sequences + 1), sizeof *offsets);
    if (offsets == NULL)
        return FV_ERR_RESOURCE;
    batch_pass b = {.pass = {.tokens = tokens,
                             .layout = {.sequences = sequences},
                             .source_layout = {.sequences = sequences},
                             .across = {.sequences = sequences}},
                    .training = training,
                    .rows = labels ? fv_head_rows(&model->shape, tokens, sequences) : predicted};
    if (model->shape.decoder_layers > 0)
        b.pass.source_tokens = tokens;
    c->sizes = list_sizes(model, &b.pass, b.rows);
    fv_status status = measure_layouts(model, &b, offsets, c);
    fv_free(model->ctx, offsets);
    return status;
}

fv_status fv_model_measure(fv_model *model, int64_t tokens, int64_t length, int64_t predicted,
                           fv_model_cost *out)
{
    cost c;
    *out = (fv_model_cost){.parameters = model->float_count};
    if (length < 1)
        return fv_fail(model->ctx, FV_ERR_USAGE, "length is %lld; expected 1 or more", (long long)length);
    TRY(measure(model, tokens, (tokens - 1) / length + 1, predicted, true, &c));
    size_t vector = fv_bytes(model->float_count, sizeof(float));
    out->bytes = fv_workspace_bytes(c.pool_bytes, &c.sizes);
    out->bytes = fv_add_bytes(out->bytes, model->bytes);
    for (int i = 0; i < 3; i++) /* gradients, two moments */
        out->bytes = fv_add_bytes(out->bytes, vector);
    out->flop_forward = c.flop;
    out->flop_step = 3.0 * c.flop;
    return FV_OK;
}

fv_status fv_model_prepare(fv_model *model, int64_t tokens, int64_t sequences, int64_t predicted,
                           bool training)
{
    cost c;
    TRY(measure(model, tokens, sequences, predicted, training, &c));
    return fv_workspace_reserve(model, c.pool_bytes, &c.sizes);
}

/* ---- passes over a batch ------------------------------------------------------------------------------- */

/* The rows that have a target, and it. */
static void list_targets(fv_workspace *work, const fv_batch *batch)
{
    int64_t n = 0;
    for (int64_t t = 0; t < batch->tokens; t++)
        if (batch->targets[t] >= 0) {
            work->selected[n] = (int32_t)t;
            work->target[n++] = batch->targets[t];
        }
}

/* The first token of every sequence. */
static void list_firsts(fv_workspace *work, const fv_batch *batch)
{
    for (int64_t s = 0; s < batch->sequences; s++)
        work->selected[s] = (int32_t)batch->offsets[s];
}

static void set_layouts(fv_pass *pass, const fv_batch *batch)
{
    pass->tokens = batch->tokens;
    pass->layout = (fv_layout){batch->sequences, batch->offsets, NULL};
    pass->source_tokens = batch->source_tokens;
    pass->source_layout = (fv_layout){batch->sequences, batch->source_offsets, NULL};
    pass->across = (fv_layout){batch->sequences, batch->offsets, batch->source_offsets};
}

/* Fills the lists of the workspace and points the pass at them and at the tokens. */
static void set_lists(fv_model *model, const fv_batch *batch, batch_pass *b)
{
    fv_workspace *work = &model->work;
    fv_batch_positions(batch->sequences, batch->offsets, NULL, work->positions);
    if (model->shape.decoder_layers > 0)
        fv_batch_positions(batch->sequences, batch->source_offsets, NULL, work->source_positions);
    bool labels = model->shape.head != FV_HEAD_LM;
    if (labels)
        list_firsts(work, batch);
    else if (b->logits == NULL)
        list_targets(work, batch);
    b->pass.ids = batch->inputs;
    b->pass.positions = work->positions;
    b->pass.source_ids = batch->source;
    b->pass.source_positions = work->source_positions;
    b->loss.targets = labels ? batch->labels : work->target;
}

/* Plans the pass, reserves what is missing, and runs it. */
static fv_status run_batch(fv_model *model, const fv_batch *batch, batch_pass *b)
{
    size_t bytes;
    TRY(fv_batch_check(model, batch));
    TRY(fv_batch_check_pooling(model, batch));
    if (b->logits == NULL)
        TRY(fv_batch_check_targets(model, batch));
    set_layouts(&b->pass, batch);
    if (model->shape.decoder_layers == 0)
        b->pass.source_tokens = 0;
    b->rows =
        b->logits != NULL ? fv_head_rows(&model->shape, batch->tokens, batch->sequences) : batch->predicted;
    if (b->rows == 0)
        return FV_OK;
    TRY(plan(model, b, &bytes));
    fv_list_sizes sizes = list_sizes(model, &b->pass, b->logits != NULL ? 0 : b->rows);
    TRY(fv_workspace_reserve(model, bytes, &sizes));
    set_lists(model, batch, b);
    return run(model, b);
}

fv_status fv_model_train_batch(fv_model *model, const fv_batch *batch, float weight, uint64_t seed,
                               int64_t step, int64_t micro, double *loss, int64_t *correct)
{
    if (fv_model_gradients(model) == NULL)
        return FV_ERR_RESOURCE;
    batch_pass b = {.training = true, .loss = {.weight = weight, .loss = loss, .correct = correct}};
    model->tape.dropout = (fv_dropout_key){seed, step, micro};
    return run_batch(model, batch, &b);
}

fv_status fv_model_evaluate(fv_model *model, const fv_batch *batch, double *loss, int64_t *correct)
{
    batch_pass b = {.loss = {.weight = 1.0f, .loss = loss, .correct = correct}};
    return run_batch(model, batch, &b);
}

fv_status fv_model_logits(fv_model *model, const fv_batch *batch, float *logits)
{
    if (logits == NULL)
        return fv_fail(model->ctx, FV_ERR_USAGE, "logits: NULL, expected room for [rows][classes] floats");
    batch_pass b = {.logits = logits};
    return run_batch(model, batch, &b);
}
