/* test_recompute.c: layers that run again in backward: the same bits as a tape that keeps everything, the same
 * up to rounding where layers are reversed, and memory that does not grow with them. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "model/transformer.h"
#include "support/tiny_model.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

static const int64_t lengths[] = {13, 1, 22, 5};

/* Settings of the models, to which the way of keeping activations is added. */
static const char *const models[][12] = {
    {"is_decoder", "false", "hidden_dropout_prob", "0.2"},
    {"is_decoder", "true", "attention.chunk", "5", "hidden_dropout_prob", "0.3"},
    {"is_decoder", "true", "attention.kind", "exact", "hidden_dropout_prob", "0.2"},
    {"attention.kind", "relu", "num_attention_heads", "4", "num_key_value_heads", "2", "hidden_act", "relu"},
    {"attention.kind", "relu", "attention.gate", "true", "is_decoder", "true"},
    {"attention.kind", "identity", "position_embedding_type", "none", "num_hidden_layers", "1"},
};

static fv_model *make_model(fv_context *ctx, int which, const char *key)
{
    const char *settings[16] = {NULL};
    int n = 0;
    for (; models[which][n] != NULL; n++)
        settings[n] = models[which][n];
    if (key != NULL)
        settings[n++] = key, settings[n++] = "true";
    return tiny_model(ctx, settings);
}

typedef struct outcome {
    double loss;
    int64_t correct, floats;
    float *gradient;
} outcome;

/* One step on memory full of NaN: nothing may be read that the step did not write. */
static outcome step_of(fv_model *model, const fv_batch *batch, bool keep_all)
{
    outcome o = {.floats = fv_model_parameters(model)};
    size_t bytes = (size_t)o.floats * sizeof *o.gradient;
    o.gradient = malloc(bytes);
    model->tape.keep_all = keep_all;
    OK(fv_model_prepare(model, batch->tokens, batch->sequences, batch->predicted, true));
    fv_open(model->work.pool, model->work.pool_bytes);
    memset(model->work.pool, 0xff, model->work.pool_bytes);
    OK(fv_model_train_batch(model, batch, 0.01f, 3, 5, 2, &o.loss, &o.correct));
    assert_int_equal(model->tape.pool.count, 0); /* everything was given back */
    memcpy(o.gradient, fv_model_gradients(model), bytes);
    memset(fv_model_gradients(model), 0, bytes);
    return o;
}

static void check_recomputed(const char *dtype)
{
    fv_context *ctx = tiny_context(2);
    OK(fv_context_set_dtype(ctx, dtype));
    tiny_batch b;
    tiny_batch_fill(&b, 4, 0.5, FV_COUNT(lengths), lengths);
    for (int i = 0; i < FV_COUNT(models); i++) {
        fv_model *plain = make_model(ctx, i, NULL), *again = make_model(ctx, i, "gradient_checkpointing");
        outcome a = step_of(plain, &b.batch, false), c = step_of(again, &b.batch, false);
        assert_true(again->tape.segment_count == again->shape.layers && plain->tape.segment_count == 0);
        assert_true(a.loss == c.loss && a.correct == c.correct);
        assert_memory_equal(a.gradient, c.gradient, (size_t)a.floats * sizeof *a.gradient);
        free(a.gradient), free(c.gradient);
        fv_model_destroy(plain);
        fv_model_destroy(again);
    }
    fv_context_destroy(ctx);
}

static void test_recomputed_bits(void **state)
{
    (void)state;
    check_recomputed("f32");
    check_recomputed("bf16");
}

/* x = y - m carries the rounding of y = x + m, a few eps of the streams each layer; LN and the layers hand it
 * on with gains near ten. A wrong stream, mask or sign is off by more than the hundredth part. In bf16 most of
 * that is rounded away, but an element of x near the middle of two neighbours may go to the other one, 2^-8 of it away. */
static void check_reversed(const char *dtype, double tolerance)
{
    fv_context *ctx = tiny_context(2);
    OK(fv_context_set_dtype(ctx, dtype));
    tiny_batch b;
    tiny_batch_fill(&b, 4, 0.5, FV_COUNT(lengths), lengths);
    for (int i = 0; i < FV_COUNT(models); i++) {
        fv_model *model = make_model(ctx, i, "reversible");
        outcome a = step_of(model, &b.batch, true), c = step_of(model, &b.batch, false);
        assert_int_equal(model->tape.segment_count, 2 * model->shape.layers);
        assert_true(a.loss == c.loss && a.correct == c.correct);
        for (int p = 0; p < fv_model_parameter_count(model); p++) {
            const fv_parameter *view = fv_model_parameter_at(model, p);
            double largest = 0, error = 0;
            for (int64_t k = view->offset; k < view->offset + view->count; k++) {
                largest = fmax(largest, fabs((double)a.gradient[k]));
                error = fmax(error, fabs((double)a.gradient[k] - (double)c.gradient[k]));
            }
            if (!(error <= tolerance * largest))
                fail_msg("%s, model %d, %s: error %g of %g", dtype, i, view->name, error, largest);
        }
        free(a.gradient), free(c.gradient);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

static void test_reversed_gradients(void **state)
{
    (void)state;
    check_reversed("f32", 1024 * (double)FLT_EPSILON);
    check_reversed("bf16", 1024 * (double)FLT_EPSILON + 0x1p-8);
}

/* ---- the reversible layers themselves, in double ----------------------------------------------------- */

enum { TOKENS = 7, WIDTH = 16, INNER = 32, VOCABULARY = 29 };

static void spec_norm(const float *values, int64_t gain, int64_t bias, const double *x, double *y)
{
    double mean = 0, variance = 1e-5;
    for (int i = 0; i < WIDTH; i++)
        mean += x[i] / WIDTH;
    for (int i = 0; i < WIDTH; i++)
        variance += (x[i] - mean) * (x[i] - mean) / WIDTH;
    for (int i = 0; i < WIDTH; i++)
        y[i] = (x[i] - mean) / sqrt(variance) * (double)values[gain + i] + (double)values[bias + i];
}

/* y = W x + b; bias -1: none. */
static void spec_linear(const float *values, int64_t w, int64_t bias, int rows, int cols, const double *x,
                        double *y)
{
    for (int r = 0; r < rows; r++) {
        y[r] = bias >= 0 ? (double)values[bias + r] : 0;
        for (int c = 0; c < cols; c++)
            y[r] += (double)values[w + r * cols + c] * x[c];
    }
}

/* Attention "identity" gives v. */
static void spec_layer(const float *values, const fv_layer *l, double *x1, double *x2)
{
    double h[WIDTH], v[WIDTH], u[INNER];
    spec_norm(values, l->norm1_gain, l->norm1_bias, x2, h);
    spec_linear(values, l->value, -1, WIDTH, WIDTH, h, v);
    spec_linear(values, l->output, -1, WIDTH, WIDTH, v, h);
    for (int i = 0; i < WIDTH; i++)
        x1[i] += h[i];
    spec_norm(values, l->norm2_gain, l->norm2_bias, x1, h);
    spec_linear(values, l->up, l->up_bias, INNER, WIDTH, h, u);
    for (int i = 0; i < INNER; i++)
        u[i] = fmax(u[i], 0);
    spec_linear(values, l->down, l->down_bias, WIDTH, INNER, u, h);
    for (int i = 0; i < WIDTH; i++)
        x2[i] += h[i];
}

static void test_reversible_specification(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    static const char *const settings[] = {"reversible",        "true",       "attention.kind",
                                           "identity",          "hidden_act", "relu",
                                           "num_hidden_layers", "3",          NULL};
    fv_model *model = tiny_model(ctx, settings);
    const float *values = fv_model_values(model);
    float logits[TOKENS * VOCABULARY];
    const int64_t length = TOKENS;
    tiny_batch b;
    tiny_batch_fill(&b, 2, 0, 1, &length);
    OK(fv_model_logits(model, &b.batch, logits));
    for (int t = 0; t < TOKENS; t++) {
        double x1[WIDTH], x2[WIDTH], expected[VOCABULARY];
        for (int i = 0; i < WIDTH; i++)
            x1[i] = x2[i] = (double)values[model->token + b.inputs[t] * WIDTH + i] +
                            (double)values[model->place + t * WIDTH + i];
        for (int l = 0; l < 3; l++)
            spec_layer(values, &model->layers[l], x1, x2);
        for (int i = 0; i < WIDTH; i++)
            x1[i] = (x1[i] + x2[i]) / 2;
        spec_norm(values, model->norm_gain, model->norm_bias, x1, x2);
        spec_linear(values, model->head, model->head_bias, VOCABULARY, WIDTH, x2, expected);
        for (int c = 0; c < VOCABULARY; c++)
            if (!(fabs((double)logits[t * VOCABULARY + c] - expected[c]) <= 1e-5 * (1 + fabs(expected[c]))))
                fail_msg("token %d: %g, expected %g", t, (double)logits[t * VOCABULARY + c], expected[c]);
    }
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* ---- memory -------------------------------------------------------------------------------------- */

/* Bytes of activations of a planned step at some depth. */
static size_t planned(fv_context *ctx, const char *key, const char *layers)
{
    const char *const settings[] = {"num_hidden_layers", layers, key, "true", NULL};
    fv_model *model = tiny_model(ctx, settings);
    OK(fv_model_prepare(model, 480, 8, 480, true));
    size_t bytes = model->work.pool_bytes;
    fv_model_destroy(model);
    return bytes;
}

static void test_memory_of_depth(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    const size_t row = 480 * 16 * sizeof(float); /* one activation of 480 tokens of 16 channels */
    size_t reversed = planned(ctx, "reversible", "2"), again = planned(ctx, "gradient_checkpointing", "2");
    size_t plain = planned(ctx, "tie_word_embeddings", "2");
    assert_int_equal(planned(ctx, "reversible", "8"), reversed);
    assert_int_equal(planned(ctx, "reversible", "32"), reversed);
    assert_int_equal(planned(ctx, "gradient_checkpointing", "8"), again + 6 * row);
    assert_int_equal(planned(ctx, "gradient_checkpointing", "32"), again + 30 * row);
    assert_true(planned(ctx, "tie_word_embeddings", "8") > plain + 6 * 5 * row);
    assert_true(reversed <= plain);
    fv_context_destroy(ctx);
}

static void test_not_both(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    const char *const settings[] = {"reversible", "true", "gradient_checkpointing", "true", NULL};
    fv_config *config = tiny_config(ctx, settings);
    fv_model *model;
    assert_int_equal(fv_model_create(&model, ctx, config, 1), FV_ERR_USAGE);
    assert_non_null(strstr(fv_context_message(ctx), "reversible"));
    fv_config_destroy(config);
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recomputed_bits),
        cmocka_unit_test(test_reversed_gradients),
        cmocka_unit_test(test_reversible_specification),
        cmocka_unit_test(test_memory_of_depth),
        cmocka_unit_test(test_not_both),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
