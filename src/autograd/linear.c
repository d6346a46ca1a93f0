/* linear.c: y = activation(x W^T + b), the workhorse.
 *
 *     x [rows][in], W [out][in], b [out], y [rows][out]; u = x W^T + b
 *     du = dy f'(u);   dx += du W;   dW += du^T x;   db += column sums of du
 *
 * Forward finishes each tile (bias, activation) while it is in the cache. With an activation the
 * pre-activation u is saved, and y is computed again from it in backward: one pass over u against keeping
 * rows x out floats a layer. Model FLOP: 2 rows in out.
 */
#include "autograd/product.h"
#include <math.h>

typedef struct activation_row {
    void (*forward)(const fv_kernels *k, int64_t n, int64_t c, const float *x, const float *bias, float *pre,
                    float *y);
    void (*backward)(const fv_kernels *k, int64_t n, const float *pre, const float *dy, float *dx);
    bool halves; /* the pre-activation may be bf16 */
} activation_row;

static void plain(const fv_kernels *k, int64_t n, int64_t c, const float *x, const float *bias, float *pre,
                  float *y)
{
    (void)pre;
    if (bias != NULL)
        k->bias_rows(n, c, x, bias, y);
}

static void gelu(const fv_kernels *k, int64_t n, int64_t c, const float *x, const float *bias, float *pre,
                 float *y)
{
    k->bias_gelu(n, c, x, bias, pre, y);
}

static void gelu_back(const fv_kernels *k, int64_t n, const float *pre, const float *dy, float *dx)
{
    k->gelu_back(n, pre, dy, dx);
}

static void relu(const fv_kernels *k, int64_t n, int64_t c, const float *x, const float *bias, float *pre,
                 float *y)
{
    k->bias_relu(n, c, x, bias, pre, y);
}

static void relu_back(const fv_kernels *k, int64_t n, const float *pre, const float *dy, float *dx)
{
    k->relu_back(n, pre, dy, dx);
}

/* 1 / (1 + exp(-u)). Gates have as many columns as there are heads, so a plain loop does. Below u = -30 it
 * stays what it is there, 1e-13, since a gate must not be 0. */
static double sigmoid_of(float u)
{
    return 1.0 / (1.0 + exp(-fmax((double)u, -30.0)));
}

static void sigmoid(const fv_kernels *k, int64_t n, int64_t c, const float *x, const float *bias, float *pre,
                    float *y)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c; f++) {
            float u = x[i * c + f] + (bias != NULL ? bias[f] : 0.0f);
            if (pre != NULL)
                pre[i * c + f] = u;
            y[i * c + f] = (float)sigmoid_of(u);
        }
    (void)k;
}

static void sigmoid_back(const fv_kernels *k, int64_t n, const float *pre, const float *dy, float *dx)
{
    (void)k;
    for (int64_t i = 0; i < n; i++) {
        double g = sigmoid_of(pre[i]);
        dx[i] = (float)((double)dy[i] * g * (1.0 - g));
    }
}

/* ORDER as fv_activation. Gates stay floats, as exponents do, since a state multiplies many of them; they are few. */
static const activation_row activations[] = {
    {plain, NULL, false}, {gelu, gelu_back, true}, {relu, relu_back, true}, {sigmoid, sigmoid_back, false}};

/* ---- forward ------------------------------------------------------------------------------------------- */

typedef struct finish {
    const activation_row *activation;
    const float *bias;
    float *y;
    bool keep;      /* leave u in c */
    bool rounds;    /* u to bf16 */
    uint16_t *half; /* ... and keep it here (without an activation, y); NULL: not */
} finish;

static void finish_tile(const fv_kernels *kernels, const fv_product *p, int64_t row, int64_t rows,
                        int64_t col, int64_t cols)
{
    const finish *f = p->finish_arg;
    const float *bias = f->bias != NULL ? f->bias + col : NULL;
    for (int64_t i = row; i < row + rows; i++) {
        int64_t at = i * p->ldc + col;
        float *u = p->c + at;
        if (f->rounds) {
            plain(kernels, 1, cols, u, bias, NULL, u);
            kernels->round_bf16(cols, u, f->half != NULL ? f->half + at : NULL, u);
        }
        f->activation->forward(kernels, 1, cols, u, f->rounds ? NULL : bias, f->keep ? u : NULL, f->y + at);
    }
}

static bool saves_half(const fv_tape *tape, const fv_node *node)
{
    return fv_tape_halving(tape) && activations[node->as.linear.activation].halves;
}

/* u is kept in its own block as floats, or, rounded, in bf16 while y takes its place. */
static finish make_finish(fv_tape *tape, fv_node *node)
{
    bool half = saves_half(tape, node);
    finish f = {.activation = &activations[node->as.linear.activation],
                .bias = fv_tape_parameter(tape, node->as.linear.bias),
                .y = fv_tape_output(tape, node),
                .rounds = half || fv_tape_halves(tape, node->output)};
    if (tape->saving && node->as.linear.activation != FV_ACTIVATION_NONE) {
        node->saved = fv_tape_take_of(tape, node->output, half ? sizeof(uint16_t) : sizeof(float));
        f.half = half ? fv_tape_half_block(tape, node->saved) : NULL;
        f.keep = !half;
    } else {
        f.half = fv_tape_keep(tape, node->output);
    }
    return f;
}

static void linear_forward(fv_tape *tape, fv_node *node)
{
    const fv_value *x = fv_tape_value(tape, node->input[0]), *out = fv_tape_value(tape, node->output);
    finish f = make_finish(tape, node);
    bool finishes = f.rounds || node->as.linear.bias >= 0 || node->as.linear.activation != FV_ACTIVATION_NONE;
    fv_product product = {
        .ta = 'N',
        .tb = 'T',
        .m = x->rows,
        .n = out->cols,
        .k = x->cols,
        .a = fv_tape_data(tape, node->input[0]),
        .lda = x->cols,
        .b = fv_tape_parameter(tape, node->as.linear.weight),
        .b_half = tape->parameters_half != NULL ? tape->parameters_half + node->as.linear.weight : NULL,
        .ldb = x->cols,
        .c = f.keep ? fv_tape_block(tape, node->saved) : f.y,
        .ldc = out->cols,
        .finish = finishes ? finish_tile : NULL,
        .finish_arg = &f};
    fv_tape_product(tape, &product);
}

/* ---- the output again, from the pre-activation --------------------------------------------------- */

typedef struct rows_job {
    const fv_kernels *kernels;
    const activation_row *activation;
    int64_t rows, cols;
    const float *u;
    const uint16_t *half; /* u in bf16; NULL: in floats */
    const float *dy;
    float *y;
} rows_job;

enum { PIECE = 512 }; /* of u, widened on the stack */

static void activate_piece(const rows_job *job, int64_t first, int64_t n, const float *u)
{
    if (job->dy != NULL)
        job->activation->backward(job->kernels, n, u, job->dy + first, job->y + first);
    else
        job->activation->forward(job->kernels, 1, n, u, NULL, NULL, job->y + first);
}

static void activate_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const rows_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK, first = row * job->cols;
    int64_t end = first + FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols;
    if (job->half == NULL) {
        activate_piece(job, first, end - first, job->u + first);
        return;
    }
    float u[PIECE];
    for (; first < end; first += PIECE) {
        int64_t n = FV_MIN(PIECE, end - first);
        job->kernels->bf16_to_f32(n, job->half + first, u);
        activate_piece(job, first, n, u);
    }
}

/* y = f(u) without dy, y = dy f'(u) with it. */
static void activate(fv_tape *tape, fv_node *node, const float *dy, float *y)
{
    const fv_value *out = fv_tape_value(tape, node->output);
    rows_job job = {.kernels = tape->ctx->kernels,
                    .activation = &activations[node->as.linear.activation],
                    .rows = out->rows,
                    .cols = out->cols,
                    .u = fv_tape_block(tape, node->saved),
                    .dy = dy,
                    .y = y};
    if (saves_half(tape, node))
        job.half = fv_tape_half_block(tape, node->saved);
    fv_tape_parallel(tape, fv_row_blocks(out->rows), activate_rows, &job);
}

static void linear_recompute(fv_tape *tape, fv_node *node)
{
    activate(tape, node, NULL, fv_tape_output(tape, node));
}

/* ---- backward ------------------------------------------------------------------------------------ */

/* du in place of dy where nobody else holds dy. */
static const float *pre_gradient(fv_tape *tape, fv_node *node)
{
    fv_value *out = fv_tape_value(tape, node->output);
    if (node->as.linear.activation == FV_ACTIVATION_NONE)
        return fv_tape_block(tape, out->gradient);
    bool fresh;
    float *dy = fv_tape_gradient(tape, node->output, &fresh);
    activate(tape, node, dy, dy);
    fv_tape_give(tape, &node->saved);
    return dy;
}

static void linear_backward(fv_tape *tape, fv_node *node)
{
    const fv_value *x = fv_tape_value(tape, node->input[0]), *out = fv_tape_value(tape, node->output);
    int64_t rows = x->rows, in = x->cols, outputs = out->cols;
    const float *weight = fv_tape_parameter(tape, node->as.linear.weight);
    const float *du = pre_gradient(tape, node);
    if (node->as.linear.bias >= 0)
        fv_tape_column_sums(tape, rows, outputs, du, outputs,
                            fv_tape_parameter_gradient(tape, node->as.linear.bias));
    fv_product dw = {.ta = 'T',
                     .tb = 'N',
                     .m = outputs,
                     .n = in,
                     .k = rows,
                     .a = du,
                     .lda = outputs,
                     .b = fv_tape_read(tape, node->input[0]),
                     .ldb = in,
                     .beta = 1.0f,
                     .c = fv_tape_parameter_gradient(tape, node->as.linear.weight),
                     .ldc = in};
    fv_tape_product(tape, &dw);
    fv_tape_done(tape, node->input[0]);

    bool fresh;
    float *gradient = fv_tape_gradient(tape, node->input[0], &fresh);
    fv_product dx = {.ta = 'N',
                     .tb = 'N',
                     .m = rows,
                     .n = in,
                     .k = outputs,
                     .a = du,
                     .lda = outputs,
                     .b = weight,
                     .ldb = in,
                     .beta = fresh ? 0.0f : 1.0f,
                     .c = gradient,
                     .ldc = in};
    fv_tape_product(tape, &dx);
}

static double linear_flop(const fv_tape *tape, const fv_node *node)
{
    const fv_value *x = &tape->values[node->input[0]], *out = &tape->values[node->output];
    return 2.0 * (double)x->rows * (double)x->cols * (double)out->cols;
}

/* Without an activation y is not computed again; and nobody's backward reads such a y but a layer's that
 * keeps it: attention's q, k, v. */
static const fv_op op_linear = {.name = "linear",
                                .reads = 1,
                                .halves = 1,
                                .forward = linear_forward,
                                .backward = linear_backward,
                                .flop = linear_flop};
static const fv_op op_activated = {.name = "linear+activation",
                                   .reads = 1,
                                   .halves = 1,
                                   .saves = true,
                                   .forward = linear_forward,
                                   .recompute = linear_recompute,
                                   .backward = linear_backward,
                                   .flop = linear_flop};

int fv_tape_linear(fv_tape *tape, int x, int64_t outputs, int64_t weight, int64_t bias,
                   fv_activation activation)
{
    const fv_op *op = activation == FV_ACTIVATION_NONE ? &op_linear : &op_activated;
    fv_node *node = fv_tape_record(tape, op, x, -1, fv_tape_value(tape, x)->rows, outputs);
    node->as.linear.weight = weight;
    node->as.linear.bias = bias;
    node->as.linear.activation = activation;
    return node->output;
}
