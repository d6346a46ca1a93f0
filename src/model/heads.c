/* heads.c: from the stream behind the last layer to logits or a loss.
 *
 *     lm:              logits = W_head LN(x) + b_head, a row a token
 *     classification:  logits = W LN(x) pooled + b, a row a sequence
 *     pair:            logits = W_2 f(W_1 [u, v, u v, u - v] + b_1) + b_2, a row two sequences, u and v their
 *                      pooled LN(x) (as the dual encoders of Long Range Arena, Tay et al. 2021)
 *
 * Pooled: the mean over the sequence's own tokens (0 of an empty one), or its first token.
 */
#include "model/transformer.h"

int64_t fv_head_rows(const fv_shape *shape, int64_t tokens, int64_t sequences)
{
    return shape->head == FV_HEAD_LM ? tokens : shape->head == FV_HEAD_PAIR ? sequences / 2 : sequences;
}

static int pooled(fv_model *model, const fv_pass *pass, int x, const int32_t *rows)
{
    if (model->shape.pool_first) {
        x = fv_tape_select(&model->tape, x, rows, pass->layout.sequences);
        return fv_transformer_norm(model, x, model->norm_gain, model->norm_bias);
    }
    x = fv_transformer_norm(model, x, model->norm_gain, model->norm_bias);
    return fv_tape_sequence_mean(&model->tape, x, pass->layout.sequences, pass->layout.offsets_q);
}

/* The input of the output matrix. */
static int last_input(fv_model *model, const fv_pass *pass, int x, const int32_t *rows, int64_t count)
{
    fv_tape *tape = &model->tape;
    const fv_shape *s = &model->shape;
    if (s->head == FV_HEAD_LM) {
        if (count < pass->tokens)
            x = fv_tape_select(tape, x, rows, count);
        return fv_transformer_norm(model, x, model->norm_gain, model->norm_bias);
    }
    x = pooled(model, pass, x, rows);
    if (s->head == FV_HEAD_CLASSIFICATION)
        return x;
    return fv_tape_linear(tape, fv_tape_pairs(tape, x), s->inner, model->dense, model->dense_bias,
                          s->activation);
}

int fv_head_logits(fv_model *model, const fv_pass *pass, int x, const int32_t *rows, int64_t count)
{
    return fv_tape_linear(&model->tape, last_input(model, pass, x, rows, count),
                          fv_shape_classes(&model->shape), model->head, model->head_bias, FV_ACTIVATION_NONE);
}

void fv_head_loss(fv_model *model, const fv_pass *pass, int x, const int32_t *rows, int64_t count,
                  const fv_cross_entropy *loss)
{
    fv_cross_entropy l = *loss;
    l.classes = fv_shape_classes(&model->shape);
    l.matrix = model->head;
    l.bias = model->head_bias;
    fv_tape_cross_entropy(&model->tape, last_input(model, pass, x, rows, count), &l);
}
