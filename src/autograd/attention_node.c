/* attention_node.c: attention as an operation of the tape, straight on the projections of a layer.
 *
 * Self: qkv [rows][(H + 2G) d] holds q, k, v of a token side by side. Cross: q [rows][H d] and, from another
 * sequence, kv [rows_k][2 G d]. The operator walks both with strides, nothing is copied. Up to two operators
 * share the heads: each gets its own by an offset into the same rows, and writes its own columns of y.
 *
 * Across, a stream does the two sides apart: remember adds kv to states, recall lets q look at them.
 *
 * Where the kinds allow it backward turns qkv into its own gradient in place, and the output is not kept for
 * backward by the kernelised kinds, whose layer below (the output projection) needs it anyway.
 */
#include "autograd/tape.h"

/* What the node walks: data, or the gradients of the same shape. */
typedef struct arrays {
    const float *q, *k, *v; /* of head 0 */
    int64_t q_stride, k_stride;
} arrays;

static const float *from_column(const float *rows, int64_t column)
{
    return rows != NULL ? rows + column : NULL;
}

/* rows of input 0 and, across, of input 1; NULL where there is none. */
static arrays split(const fv_node *node, const float *first, const float *second)
{
    const fv_attention_place *p = &node->as.attention.whole;
    int64_t queries = p->heads * p->dim, keys = p->kv_heads * p->dim;
    if (node->as.attention.cross)
        return (arrays){first, second, from_column(second, keys), queries, 2 * keys};
    return (arrays){first, first + queries, first + queries + keys, queries + 2 * keys, queries + 2 * keys};
}

/* Inputs beside q, k, v: drawn, trained, fixed, and the gate. */
static void bind_inputs(const fv_tape *tape, const fv_node *node, const fv_attention_part *part,
                        fv_attention_io *io)
{
    fv_attention_bind_drawn(part->op, part->drawn, io);
    for (int i = 0; part->inputs != NULL && i < FV_INPUT_COUNT; i++) {
        if (part->inputs->fixed[i] != NULL)
            io->input[i] = part->inputs->fixed[i];
        else if (part->inputs->trained[i] >= 0)
            io->input[i] = fv_tape_parameter(tape, part->inputs->trained[i]);
    }
    fv_input_info gate;
    if (node->as.attention.gated && fv_attention_input(part->op, FV_INPUT_GATE, &gate))
        io->input[FV_INPUT_GATE] = fv_tape_data(tape, node->input[1]);
}

static fv_attention_io make_io(const fv_tape *tape, const fv_node *node, int which, const arrays *a, float *y)
{
    const fv_attention_place *p = &node->as.attention.places[which], *whole = &node->as.attention.whole;
    const fv_attention_part *part = &node->as.attention.call.parts[which];
    fv_attention_io io = {.q = from_column(a->q, p->first * p->dim),
                          .k = from_column(a->k, p->first_kv * p->dim),
                          .v = from_column(a->v, p->first_kv * p->dim),
                          .y = y != NULL ? y + p->first * p->dim : NULL,
                          .q_stride = a->q_stride,
                          .k_stride = a->k_stride,
                          .v_stride = a->k_stride,
                          .y_stride = whole->heads * whole->dim};
    bind_inputs(tape, node, part, &io);
    return io;
}

/* ---- inputs that all heads share ---------------------------------------------------------------------- */

/* Copies of such an input for every head, as the operator takes it, while it runs; in backward the gradients. */
typedef struct shared_input {
    fv_input which;
    int64_t heads, floats; /* of one head */
    fv_block block;
} shared_input;

enum { MOST_SHARED = 2 };

/* Takes room for the shared inputs of a part; returns how many there are. */
static int take_shared(fv_tape *tape, const fv_attention_part *part, shared_input shared[MOST_SHARED])
{
    int count = 0;
    fv_input_info info;
    for (int i = 0; part->inputs != NULL && i < FV_INPUT_COUNT && count < MOST_SHARED; i++)
        if (part->inputs->shared[i] && fv_attention_input(part->op, (fv_input)i, &info)) {
            shared_input *s = &shared[count++];
            *s = (shared_input){(fv_input)i, info.shape[0], info.floats / info.shape[0], {0}};
            s->block = fv_tape_take(tape, info.floats);
        }
    return count;
}

static void give_shared(fv_tape *tape, shared_input shared[MOST_SHARED], int count)
{
    for (int i = 0; i < count; i++)
        fv_tape_give(tape, &shared[i].block);
}

/* Every head gets the parameter, or zeros. */
static void spread(const fv_tape *tape, const shared_input *s, const float *parameter)
{
    float *all = fv_tape_block(tape, s->block);
    for (int64_t h = 0; h < s->heads; h++) {
        float *one = all + h * s->floats;
        if (parameter != NULL)
            tape->ctx->kernels->copy_rows(1, s->floats, parameter, s->floats, one, s->floats);
        else
            tape->ctx->kernels->fill(s->floats, 0.0f, one);
    }
}

static void spread_inputs(const fv_tape *tape, const fv_attention_part *part, const shared_input *shared,
                          int count, fv_attention_io *io)
{
    for (int i = 0; i < count; i++) {
        spread(tape, &shared[i], fv_tape_parameter(tape, part->inputs->trained[shared[i].which]));
        io->input[shared[i].which] = fv_tape_block(tape, shared[i].block);
    }
}

/* The gradient of the parameter is the sum over the heads. */
static void gather_gradients(const fv_tape *tape, const fv_attention_part *part, const shared_input *shared,
                             int count)
{
    for (int i = 0; i < count; i++) {
        const shared_input *s = &shared[i];
        float *gradient = fv_tape_parameter_gradient(tape, part->inputs->trained[s->which]);
        for (int64_t h = 0; h < s->heads; h++)
            tape->ctx->kernels->axpy(s->floats, 1.0f, fv_tape_block(tape, s->block) + h * s->floats,
                                     gradient);
    }
}

/* ---- forward ------------------------------------------------------------------------------------- */

/* Row `row` of an array that may not be there. */
static const float *at_row(const float *x, int64_t row, int64_t stride)
{
    return x != NULL ? x + row * stride : NULL;
}

/* Sequence s of a call that continues states, alone: these stand apart. */
static fv_status attend_one(const fv_node *node, const fv_attention_part *part, const fv_attention_io *io,
                            int64_t s, void *scratch)
{
    const fv_attention_call *call = &node->as.attention.call;
    bool apart = call->layout->offsets_k != NULL;
    const int64_t *q = call->layout->offsets_q, *k = apart ? call->layout->offsets_k : q;
    const int64_t queries[] = {0, q[s + 1] - q[s]}, keys[] = {0, k[s + 1] - k[s]};
    const fv_layout layout = {1, queries, apart ? keys : NULL};
    fv_attention_io one = *io;
    one.q = at_row(io->q, q[s], io->q_stride);
    one.k = at_row(io->k, k[s], io->k_stride);
    one.v = at_row(io->v, k[s], io->v_stride);
    one.y = io->y != NULL ? io->y + q[s] * io->y_stride : NULL;
    one.state = part->states[s];
    one.first_query = call->first_queries != NULL ? call->first_queries[s] : 0;
    return fv_attention_forward(part->op, &layout, &one, NULL, scratch);
}

/* One token a stream is a step; more of them, or the first ones, or across, a forward that continues the state. */
static fv_status attend(const fv_node *node, const fv_attention_part *part, const fv_attention_io *io,
                        void *saved, void *scratch)
{
    const fv_layout *layout = node->as.attention.call.layout;
    bool single = layout->offsets_q[layout->sequences] == layout->sequences;
    if (part->states == NULL)
        return fv_attention_forward(part->op, layout, io, saved, scratch);
    if (single && !node->as.attention.cross)
        return fv_attention_step_each(part->op, layout->sequences, io, part->states, scratch);
    for (int64_t s = 0; s < layout->sequences; s++)
        TRY(attend_one(node, part, io, s, scratch));
    return FV_OK;
}

static const float *input_data(const fv_tape *tape, const fv_node *node, int which)
{
    return node->input[which] >= 0 ? fv_tape_data(tape, node->input[which]) : NULL;
}

static char *saved_of(const fv_tape *tape, const fv_node *node, int which)
{
    char *saved = (char *)(void *)fv_tape_block(tape, node->saved);
    size_t before = which > 0 ? node->as.attention.places[0].need.saved : 0;
    return saved != NULL ? saved + before : NULL;
}

static void run_part(fv_tape *tape, const fv_node *node, int which, float *y, void *scratch)
{
    const fv_attention_part *part = &node->as.attention.call.parts[which];
    shared_input shared[MOST_SHARED];
    int count = take_shared(tape, part, shared);
    if (fv_tape_running(tape)) {
        arrays a = split(node, input_data(tape, node, 0), input_data(tape, node, 1));
        fv_attention_io io = make_io(tape, node, which, &a, y);
        spread_inputs(tape, part, shared, count, &io);
        fv_tape_fail(tape, attend(node, part, &io, saved_of(tape, node, which), scratch));
    }
    give_shared(tape, shared, count);
}

static void attention_forward(fv_tape *tape, fv_node *node)
{
    const fv_memory *need = &node->as.attention.whole.need;
    float *y = node->output >= 0 ? fv_tape_output(tape, node) : NULL;
    if (tape->saving && need->saved > 0)
        node->saved = fv_tape_take_bytes(tape, need->saved);
    fv_block scratch = fv_tape_take_bytes(tape, need->scratch);
    for (int i = 0; i < node->as.attention.count; i++)
        run_part(tape, node, i, y, fv_tape_block(tape, scratch));
    fv_tape_give(tape, &scratch);
}

/* ---- backward ------------------------------------------------------------------------------------ */

typedef struct clear_job {
    const fv_kernels *kernels;
    int64_t rows, cols;
    float *y;
} clear_job;

static void clear_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const clear_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK;
    job->kernels->fill(FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols, 0.0f, job->y + row * job->cols);
}

/* Where the gradient of an input goes: filled with zeros when it is new. */
static float *added_gradient(fv_tape *tape, int value)
{
    const fv_value *v = fv_tape_value(tape, value);
    bool fresh;
    float *gradient = fv_tape_gradient(tape, value, &fresh);
    clear_job job = {tape->ctx->kernels, v->rows, v->cols, gradient};
    if (fresh)
        fv_tape_parallel(tape, fv_row_blocks(v->rows), clear_rows, &job);
    return gradient;
}

/* The block of qkv that backward reads becomes that of its gradient. */
static float *in_place_gradient(fv_tape *tape, int value)
{
    fv_value *v = fv_tape_value(tape, value);
    fv_block *read = v->rounded.bytes > 0 ? &v->rounded : &v->data;
    v->gradient = *read;
    *read = (fv_block){0};
    return fv_tape_block(tape, v->gradient);
}

static void bind_gradients(const fv_tape *tape, const fv_attention_part *part, const fv_attention_io *io,
                           fv_attention_grad *grad)
{
    fv_input_info info;
    for (int i = 0; part->inputs != NULL && i < FV_INPUT_COUNT; i++)
        if (part->inputs->fixed[i] == NULL && part->inputs->trained[i] >= 0 && io->input[i] != NULL &&
            fv_attention_input(part->op, (fv_input)i, &info) && info.has_gradient)
            grad->d_input[i] = fv_tape_parameter_gradient(tape, part->inputs->trained[i]);
}

/* Gradients of the inputs of the node, [0] and [1]. */
typedef struct gradients {
    const float *data[2], *y; /* y NULL: backward does not read it */
    float *of[2];
    bool in_place;
} gradients;

/* Shared inputs stand twice: [0] copies, [1] their gradients. */
static fv_status attend_back(fv_tape *tape, const fv_node *node, int which, const gradients *g,
                             shared_input shared[2][MOST_SHARED], int count, void *scratch)
{
    const fv_attention_part *part = &node->as.attention.call.parts[which];
    const fv_value *out = fv_tape_value(tape, node->output);
    arrays a = split(node, g->data[0], g->data[1]), d = split(node, g->of[0], g->of[1]);
    fv_attention_io io = make_io(tape, node, which, &a, (float *)(uintptr_t)g->y);
    fv_attention_io back = make_io(tape, node, which, &d, fv_tape_block(tape, out->gradient));
    fv_attention_grad grad = {.dy = back.y,
                              .dq = (float *)(uintptr_t)back.q,
                              .dk = (float *)(uintptr_t)back.k,
                              .dv = (float *)(uintptr_t)back.v,
                              .in_place = g->in_place};
    bind_gradients(tape, part, &io, &grad);
    spread_inputs(tape, part, shared[0], count, &io);
    for (int i = 0; i < count; i++) {
        spread(tape, &shared[1][i], NULL);
        grad.d_input[shared[1][i].which] = fv_tape_block(tape, shared[1][i].block);
    }
    if (io.input[FV_INPUT_GATE] != NULL)
        grad.d_input[FV_INPUT_GATE] = g->of[1];
    TRY(fv_attention_backward(part->op, node->as.attention.call.layout, &io, &grad,
                              saved_of(tape, node, which), scratch));
    gather_gradients(tape, part, shared[1], count);
    return FV_OK;
}

static void run_part_back(fv_tape *tape, const fv_node *node, int which, const gradients *g, void *scratch)
{
    const fv_attention_part *part = &node->as.attention.call.parts[which];
    shared_input shared[2][MOST_SHARED];
    int count = take_shared(tape, part, shared[0]);
    (void)take_shared(tape, part, shared[1]);
    if (fv_tape_running(tape))
        fv_tape_fail(tape, attend_back(tape, node, which, g, shared, count, scratch));
    give_shared(tape, shared[1], count);
    give_shared(tape, shared[0], count);
}

static void attention_backward(fv_tape *tape, fv_node *node)
{
    const fv_value *qkv = fv_tape_value(tape, node->input[0]);
    gradients g = {.in_place = node->as.attention.whole.in_place_ok && !node->as.attention.cross &&
                               qkv->gradient.bytes == 0 && !qkv->held};
    if (node->op->reads_output)
        g.y = fv_tape_read(tape, node->output);
    g.data[0] = fv_tape_read(tape, node->input[0]);
    if (node->input[1] >= 0) {
        g.data[1] = fv_tape_read(tape, node->input[1]);
        g.of[1] = added_gradient(tape, node->input[1]);
    }
    g.of[0] = g.in_place ? in_place_gradient(tape, node->input[0]) : added_gradient(tape, node->input[0]);
    fv_block scratch = fv_tape_take_bytes(tape, node->as.attention.whole.need.scratch);
    for (int i = 0; i < node->as.attention.count; i++)
        run_part_back(tape, node, i, &g, fv_tape_block(tape, scratch));
    fv_tape_give(tape, &scratch);
    for (int k = 0; k < 2; k++)
        if (node->input[k] >= 0)
            fv_tape_done(tape, node->input[k]);
}

static double attention_flop(const fv_tape *tape, const fv_node *node)
{
    (void)tape;
    double flop = 0;
    for (int i = 0; i < node->as.attention.count; i++)
        flop += fv_attention_flop(node->as.attention.call.parts[i].op, node->as.attention.call.layout, 0);
    return flop;
}

/* The backward of kernelised kinds does not read the output. */
static const fv_op op_kernelized = {.name = "attention",
                                    .reads = 3,
                                    .halves = 3,
                                    .saves = true,
                                    .forward = attention_forward,
                                    .backward = attention_backward,
                                    .flop = attention_flop};
static const fv_op op_attention = {.name = "attention",
                                   .reads = 3,
                                   .halves = 3,
                                   .reads_output = true,
                                   .saves = true,
                                   .forward = attention_forward,
                                   .backward = attention_backward,
                                   .flop = attention_flop};

/* ---- recording ----------------------------------------------------------------------------------- */

/* Where the heads of each operator begin, and the memory of all. */
static void place_parts(fv_tape *tape, fv_node *node)
{
    fv_attention_place *whole = &node->as.attention.whole;
    *whole = (fv_attention_place){.in_place_ok = true};
    for (int i = 0; i < node->as.attention.count; i++) {
        fv_attention_place *p = &node->as.attention.places[i];
        fv_attention_info info;
        fv_attention_get_info(node->as.attention.call.parts[i].op, &info);
        *p = (fv_attention_place){.heads = info.options.heads,
                                  .kv_heads = info.options.kv_heads,
                                  .dim = info.options.dim,
                                  .first = whole->heads,
                                  .first_kv = whole->kv_heads};
        fv_tape_fail(tape, fv_attention_measure(node->as.attention.call.parts[i].op,
                                                node->as.attention.call.layout, &p->need));
        p->need.saved = fv_bytes((int64_t)FV_MIN(p->need.saved, (size_t)PTRDIFF_MAX), 1);
        whole->heads += p->heads;
        whole->kv_heads += p->kv_heads;
        whole->dim = p->dim;
        whole->in_place_ok &= info.in_place_ok != 0;
        whole->need.saved = fv_add_bytes(whole->need.saved, p->need.saved);
        whole->need.scratch = FV_MAX(whole->need.scratch, p->need.scratch);
    }
}

/* a < 0: there are no queries, and no output. */
static int record(fv_tape *tape, int a, int b, const fv_attention_call *call, bool cross)
{
    int count = call->parts[1].op != NULL ? 2 : 1;
    bool kernelized = true;
    int64_t heads = 0;
    fv_attention_info info;
    for (int i = 0; i < count; i++) {
        fv_attention_get_info(call->parts[i].op, &info);
        kernelized &= fv_attention_kind_find(info.options.kind)->kernelized != 0;
        heads += info.options.heads;
    }
    int64_t rows = a >= 0 ? fv_tape_value(tape, a)->rows : 0;
    fv_node *node = fv_tape_record(tape, kernelized ? &op_kernelized : &op_attention, a, b, rows,
                                   a >= 0 ? heads * info.options.value_dim : 0);
    node->as.attention.call = *call;
    node->as.attention.count = count;
    node->as.attention.cross = cross;
    node->as.attention.gated = !cross && b >= 0;
    place_parts(tape, node);
    return node->output;
}

int fv_tape_attention(fv_tape *tape, int qkv, int gate, const fv_attention_call *call)
{
    return record(tape, qkv, gate, call, false);
}

int fv_tape_cross_attention(fv_tape *tape, int q, int kv, const fv_attention_call *call)
{
    return record(tape, q, kv, call, true);
}

void fv_tape_remember(fv_tape *tape, int kv, const fv_attention_call *call)
{
    (void)record(tape, -1, kv, call, true);
}

int fv_tape_recall(fv_tape *tape, int q, const fv_attention_call *call)
{
    return record(tape, q, -1, call, true);
}
