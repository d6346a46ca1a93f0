/* cross_entropy.c: loss = sum over rows of log sum_c exp(l_c) - l_target, l = x W^T + b.
 *
 *     dl = weight (softmax(l) - onehot(target));   dx = dl W;   dW += dl^T x;   db += column sums of dl
 *
 * Rows are taken a slab at a time, so that no [rows][classes] array is needed for large vocabularies. The
 * gradient is known as soon as the logits are: when training, forward computes it in the same pass and
 * backward has nothing left to do. Model FLOP: 2 rows cols classes.
 */
#include "autograd/product.h"

/* A slab holds about 2^21 logits (8 MB), but rows enough to fill the tiles of the products; a multiple of
 * FV_ROW_BLOCK. */
enum { SLAB_LOGITS = 1 << 21, SLAB_MIN_ROWS = 384, SLAB_MAX_ROWS = 16128, SLAB_STEP = 192 };

typedef struct slab {
    const fv_kernels *kernels;
    const fv_cross_entropy *ce;
    int64_t first, rows;
    const float *bias;
    float *logits, *loss; /* [rows][classes], [rows] */
    int32_t *best;        /* [rows] */
    bool training;
} slab;

static int64_t slab_rows(int64_t rows, int64_t classes)
{
    int64_t most = SLAB_LOGITS / classes / SLAB_STEP * SLAB_STEP;
    return FV_MIN(rows, FV_MAX(FV_MIN(most, (int64_t)SLAB_MAX_ROWS), (int64_t)SLAB_MIN_ROWS));
}

static void loss_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const slab *s = arg;
    int64_t row = index * FV_ROW_BLOCK, n = FV_MIN(FV_ROW_BLOCK, s->rows - row), classes = s->ce->classes;
    float *logits = s->logits + row * classes;
    if (s->bias != NULL)
        s->kernels->bias_rows(n, classes, logits, s->bias, logits);
    s->kernels->cross_entropy(n, classes, logits, s->ce->targets + s->first + row, s->ce->weight,
                              s->loss + row, s->best + row, s->training ? logits : NULL);
}

static void add_up(const slab *s)
{
    const int32_t *targets = s->ce->targets + s->first;
    *s->ce->loss += s->kernels->sum(s->rows, s->loss);
    for (int64_t i = 0; i < s->rows; i++)
        *s->ce->correct += s->best[i] == targets[i];
}

static void slab_gradients(fv_tape *tape, const slab *s, const float *x, int64_t cols, float *dx)
{
    const fv_cross_entropy *ce = s->ce;
    int64_t classes = ce->classes;
    fv_product dw = {.ta = 'T',
                     .tb = 'N',
                     .m = classes,
                     .n = cols,
                     .k = s->rows,
                     .a = s->logits,
                     .lda = classes,
                     .b = x,
                     .ldb = cols,
                     .beta = 1.0f,
                     .c = fv_tape_parameter_gradient(tape, ce->matrix),
                     .ldc = cols};
    fv_tape_product(tape, &dw);
    if (ce->bias >= 0)
        fv_tape_column_sums(tape, s->rows, classes, s->logits, classes,
                            fv_tape_parameter_gradient(tape, ce->bias));
    fv_product back = {.ta = 'N',
                       .tb = 'N',
                       .m = s->rows,
                       .n = cols,
                       .k = classes,
                       .a = s->logits,
                       .lda = classes,
                       .b = fv_tape_parameter(tape, ce->matrix),
                       .ldb = cols,
                       .beta = 0.0f,
                       .c = dx,
                       .ldc = cols};
    fv_tape_product(tape, &back);
}

static void run_slab(fv_tape *tape, slab *s, const float *x, int64_t cols, float *dx)
{
    fv_product logits = {.ta = 'N',
                         .tb = 'T',
                         .m = s->rows,
                         .n = s->ce->classes,
                         .k = cols,
                         .a = x,
                         .lda = cols,
                         .b = fv_tape_parameter(tape, s->ce->matrix),
                         .ldb = cols,
                         .c = s->logits,
                         .ldc = s->ce->classes};
    fv_tape_product(tape, &logits);
    fv_tape_parallel(tape, fv_row_blocks(s->rows), loss_rows, s);
    add_up(s);
    if (s->training)
        slab_gradients(tape, s, x, cols, dx);
}

static void loss_forward(fv_tape *tape, fv_node *node)
{
    const fv_value *x = fv_tape_value(tape, node->input[0]);
    const fv_cross_entropy *ce = &node->as.loss;
    int64_t step = slab_rows(x->rows, ce->classes), count, rows = x->rows, cols = x->cols;
    bool fresh = true;
    float *dx = tape->training ? fv_tape_gradient(tape, node->input[0], &fresh) : NULL;
    fv_block logits = fv_tape_take(tape, fv_mul(step, ce->classes, &count) ? count : -1);
    fv_block per_row = fv_tape_take(tape, 2 * step);
    slab s = {.kernels = tape->ctx->kernels,
              .ce = ce,
              .bias = fv_tape_parameter(tape, ce->bias),
              .logits = fv_tape_block(tape, logits),
              .loss = fv_tape_block(tape, per_row),
              .training = tape->training};
    s.best = (int32_t *)(void *)(s.loss != NULL ? s.loss + step : NULL);
    const float *data = fv_tape_data(tape, node->input[0]);
    for (int64_t first = 0; fv_tape_running(tape) && first < rows; first += step) {
        s.first = first;
        s.rows = FV_MIN(step, rows - first);
        run_slab(tape, &s, data + first * cols, cols, dx != NULL ? dx + first * cols : NULL);
    }
    fv_tape_give(tape, &per_row);
    fv_tape_give(tape, &logits);
}

static void loss_backward(fv_tape *tape, fv_node *node)
{
    (void)tape, (void)node; /* forward did it */
}

static double loss_flop(const fv_tape *tape, const fv_node *node)
{
    const fv_value *x = &tape->values[node->input[0]];
    return 2.0 * (double)x->rows * (double)x->cols * (double)node->as.loss.classes;
}

static const fv_op op_cross_entropy = {
    .name = "cross-entropy", .forward = loss_forward, .backward = loss_backward, .flop = loss_flop};

void fv_tape_cross_entropy(fv_tape *tape, int x, const fv_cross_entropy *loss)
{
    fv_node *node = fv_tape_record(tape, &op_cross_entropy, x, -1, 0, 0);
    node->as.loss = *loss;
}
