/* test_model.c: the whole model: its gradient by Taylor remainder, its laws, what it learns. What it costs and
 * refuses: test_model_cost.c. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "model/transformer.h"
#include "support/gradient_check.h"
#include "support/scratch.h"
#include "support/tiny_model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { VOCABULARY = 29 };

static const char *const encoder[] = {"is_decoder", "false", NULL};
static const char *const decoder[] = {"is_decoder", "true", "attention.chunk", "5", NULL};
static const char *const dropping[] = {"is_decoder", "true", "hidden_dropout_prob", "0.2", NULL};
static const char *const exact_tied[] = {"attention.kind",      "exact", "is_decoder", "true",
                                         "tie_word_embeddings", "true",  NULL};
static const char *const grouped[] = {
    "num_attention_heads", "4", "num_key_value_heads", "2", "attention.kind", "exact", NULL};
static const char *const sinusoidal[] = {"position_embedding_type", "sinusoidal", "attention.kind",
                                         "identity", NULL};
/* epsilon keeps the normaliser of the first tokens away from 0, where the loss bends within a step */
static const char *const rectified[] = {
    "attention.kind", "relu", "attention.epsilon",   "0.5", "attention.chunk",     "7", "hidden_act", "relu",
    "is_decoder",     "true", "num_attention_heads", "4",   "num_key_value_heads", "2", NULL};
static const char *const placeless[] = {"position_embedding_type", "none", "is_decoder", "true", NULL};
static const char *const recomputed[] = {"gradient_checkpointing", "true", "hidden_dropout_prob", "0.1",
                                         NULL};
static const char *const reversible[] = {"reversible", "true", "is_decoder", "true", NULL};

static const char *const *const models[] = {encoder,    decoder,   dropping,  exact_tied, grouped,
                                            sinusoidal, placeless, rectified, recomputed, reversible};
static const int64_t lengths[] = {13, 1, 22, 5};

static void check_gradient(fv_context *ctx, const char *const *settings)
{
    fv_model *model = tiny_model(ctx, settings);
    tiny_batch b;
    tiny_batch_fill(&b, 1, 0.5, FV_COUNT(lengths), lengths);
    check_model_gradient(model, &b.batch, settings == rectified);
    fv_model_destroy(model);
}

static void test_taylor(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(models); i++)
        check_gradient(ctx, models[i]);
    fv_context_destroy(ctx);
}

/* ---- laws ---------------------------------------------------------------------------------------- */

static void test_causal(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    static const char *const *const causal[] = {decoder, exact_tied, placeless, reversible};
    const int64_t length = 40;
    for (int i = 0; i < FV_COUNT(causal); i++) {
        fv_model *model = tiny_model(ctx, causal[i]);
        float before[40 * VOCABULARY], after[40 * VOCABULARY];
        tiny_batch b;
        tiny_batch_fill(&b, 2, 0, 1, &length);
        OK(fv_model_logits(model, &b.batch, before));
        for (int64_t t = 0; t < length; t += 7) {
            int32_t old = b.inputs[t];
            b.inputs[t] = (old + 11) % VOCABULARY;
            OK(fv_model_logits(model, &b.batch, after));
            assert_memory_equal(before, after, (size_t)(t * VOCABULARY) * sizeof *before);
            assert_memory_not_equal(before + t * VOCABULARY, after + t * VOCABULARY, sizeof *before);
            b.inputs[t] = old;
        }
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

static void test_packed(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(models); i++) {
        fv_model *model = tiny_model(ctx, models[i]);
        float together[64 * VOCABULARY], alone[64 * VOCABULARY];
        tiny_batch b, one;
        tiny_batch_fill(&b, 3, 0.3, FV_COUNT(lengths), lengths);
        OK(fv_model_logits(model, &b.batch, together));
        for (int64_t s = 0; s < FV_COUNT(lengths); s++) {
            tiny_batch_take(&one, &b, s);
            OK(fv_model_logits(model, &one.batch, alone));
            if (memcmp(together + b.offsets[s] * VOCABULARY, alone,
                       (size_t)(lengths[s] * VOCABULARY) * sizeof *alone) != 0)
                fail_msg("model %d, sequence %lld of %lld tokens", i, (long long)s, (long long)lengths[s]);
        }
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

static void check_threads(const char *dtype)
{
    static const int64_t long_lengths[] = {64, 1, 63, 64, 64, 64, 50};
    tiny_batch b;
    tiny_batch_fill(&b, 4, 0.5, FV_COUNT(long_lengths), long_lengths);
    for (int i = 0; i < FV_COUNT(models); i++) {
        double loss[3] = {0};
        int64_t correct[3] = {0};
        float *gradient[3];
        size_t bytes = 0;
        for (int k = 0; k < 3; k++) {
            fv_context *ctx = tiny_context(k + 1);
            OK(fv_context_set_dtype(ctx, dtype));
            fv_model *model = tiny_model(ctx, models[i]);
            OK(fv_model_train_batch(model, &b.batch, 0.01f, 3, 1, 0, &loss[k], &correct[k]));
            bytes = (size_t)fv_model_parameters(model) * sizeof(float);
            gradient[k] = malloc(bytes);
            memcpy(gradient[k], fv_model_gradients(model), bytes);
            fv_model_destroy(model);
            fv_context_destroy(ctx);
        }
        for (int k = 1; k < 3; k++) {
            assert_true(loss[k] == loss[0]);
            assert_int_equal(correct[k], correct[0]);
            assert_memory_equal(gradient[k], gradient[0], bytes);
        }
        for (int k = 0; k < 3; k++)
            free(gradient[k]);
    }
}

static void test_threads(void **state)
{
    (void)state;
    check_threads("f32");
    check_threads("bf16");
}

/* Two micro-batches add up to the batch of both: every gradient is a sum over tokens, taken in another order.
 * Each sum has at most 4 * 41 rows of products; a relative error of a few hundred eps of the largest entry of
 * the tensor covers it; in bf16 too, which rounds elements alone. */
static void check_accumulation(const char *dtype)
{
    fv_context *ctx = tiny_context(2);
    OK(fv_context_set_dtype(ctx, dtype));
    for (int i = 0; i < FV_COUNT(models); i++) {
        if (models[i] == dropping || models[i] == recomputed) /* another place in the batch, another mask */
            continue;
        fv_model *model = tiny_model(ctx, models[i]);
        tiny_batch b, one;
        int64_t n = fv_model_parameters(model), correct = 0, parts_correct = 0;
        double loss = 0, parts = 0;
        float *whole = malloc((size_t)n * sizeof *whole), *gradient = fv_model_gradients(model);
        tiny_batch_fill(&b, 5, 0.5, FV_COUNT(lengths), lengths);
        OK(fv_model_train_batch(model, &b.batch, 1.0f, 3, 1, 0, &loss, &correct));
        memcpy(whole, gradient, (size_t)n * sizeof *whole);
        memset(gradient, 0, (size_t)n * sizeof *whole);
        for (int64_t s = 0; s < FV_COUNT(lengths); s++) {
            tiny_batch_take(&one, &b, s);
            OK(fv_model_train_batch(model, &one.batch, 1.0f, 3, 1, s, &parts, &parts_correct));
        }
        assert_true(fabs(loss - parts) <= 41 * 1.2e-7 * loss);
        assert_int_equal(correct, parts_correct);
        for (int p = 0; p < fv_model_parameter_count(model); p++) {
            const fv_parameter *view = fv_model_parameter_at(model, p);
            double largest = 0, error = 0;
            for (int64_t k = view->offset; k < view->offset + view->count; k++) {
                largest = fmax(largest, fabs((double)whole[k]));
                error = fmax(error, fabs((double)whole[k] - (double)gradient[k]));
            }
            if (!(error <= 300 * 1.2e-7 * largest + 1e-9))
                fail_msg("%s: error %g of %g", view->name, error, largest);
        }
        free(whole);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

static void test_accumulation(void **state)
{
    (void)state;
    check_accumulation("f32");
    check_accumulation("bf16");
}

static void test_evaluate(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(models); i++) {
        fv_model *model = tiny_model(ctx, models[i]);
        float logits[64 * VOCABULARY];
        double train = 0, loss = 0, expected = 0;
        int64_t correct = 0, hits = 0, train_correct = 0;
        tiny_batch b;
        tiny_batch_fill(&b, 6, 0.4, FV_COUNT(lengths), lengths);
        OK(fv_model_logits(model, &b.batch, logits));
        OK(fv_model_evaluate(model, &b.batch, &loss, &correct));
        OK(fv_model_train_batch(model, &b.batch, 1, 1, 1, 0, &train, &train_correct));
        for (int64_t t = 0; t < b.batch.tokens; t++) {
            const float *l = logits + t * VOCABULARY;
            int best = 0;
            double sum = 0;
            if (b.targets[t] < 0)
                continue;
            for (int c = 0; c < VOCABULARY; c++) {
                best = l[c] > l[best] ? c : best;
                sum += exp((double)l[c]);
            }
            expected += log(sum) - (double)l[b.targets[t]];
            hits += best == b.targets[t];
        }
        assert_true(fabs(loss - expected) <= 8 * 1.2e-7 * (expected + 41));
        assert_int_equal(correct, hits);
        if (models[i] != dropping && models[i] != recomputed)
            assert_true(train == loss);
        else
            assert_true(train != loss);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

static void test_dropout_key(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    fv_model *model = tiny_model(ctx, dropping);
    static const int64_t keys[][3] = {{1, 1, 0}, {2, 1, 0}, {1, 2, 0}, {1, 1, 1}, {1, 1, 0}};
    double loss[5] = {0};
    tiny_batch b;
    tiny_batch_fill(&b, 6, 0.4, FV_COUNT(lengths), lengths);
    for (int k = 0; k < 5; k++) {
        int64_t correct = 0;
        OK(fv_model_train_batch(model, &b.batch, 1, (uint64_t)keys[k][0], keys[k][1], keys[k][2], &loss[k],
                                &correct));
    }
    assert_true(loss[4] == loss[0]);
    for (int k = 1; k < 4; k++)
        assert_true(loss[k] != loss[0]);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* Every dropout has random numbers of its own: embedding, then two a layer. */
static void test_dropout_sites(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    fv_model *model = tiny_model(ctx, dropping);
    const fv_tape *tape = &model->tape;
    bool seen[5] = {false};
    OK(fv_model_prepare(model, 10, 1, 5, true));
    for (int i = 0; i < tape->node_count; i++)
        if (strcmp(tape->nodes[i].op->name, "residual") == 0) {
            assert_in_range(tape->nodes[i].as.dropout.site, 0, 4);
            assert_false(seen[tape->nodes[i].as.dropout.site]);
            seen[tape->nodes[i].as.dropout.site] = true;
        }
    for (int i = 0; i < 5; i++)
        assert_true(seen[i]);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* The first logits have variance about one, tied or not: the table of a tied model is the output too. */
static void test_initial_logits(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    static const char *const *const both[] = {encoder, exact_tied};
    const int64_t length = 40;
    for (int i = 0; i < FV_COUNT(both); i++) {
        fv_model *model = tiny_model(ctx, both[i]);
        float logits[40 * VOCABULARY];
        tiny_batch b;
        tiny_batch_fill(&b, 2, 0, 1, &length);
        OK(fv_model_logits(model, &b.batch, logits));
        double variance = sum_of_products(logits, logits, 40 * VOCABULARY) / (40 * VOCABULARY);
        if (!(variance > 0.3 && variance < 3))
            fail_msg("model %d: the variance of the logits is %g", i, variance);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* ---- learning ------------------------------------------------------------------------------------ */

/* Plain gradient descent on one batch of 41 tokens follows a recorded curve. The curve was computed by this
 * program; kernel sets differ in the last bits of every sum, which 60 steps of a descent that contracts (at
 * three times this rate it begins not to) do not amplify: the sets agree to 1e-6. */
static const double curve[] = {
    3.838370, 2.935643, 2.475066, 2.058016, 1.665788, 1.324704, 1.029179,
};

static void test_overfit(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    fv_model *model = tiny_model(ctx, decoder);
    int64_t n = fv_model_parameters(model);
    tiny_batch b;
    tiny_batch_fill(&b, 8, 1, FV_COUNT(lengths), lengths);
    for (int step = 0; step <= 60; step++) {
        double loss = 0;
        int64_t correct = 0;
        float *gradient = fv_model_gradients(model), *values = fv_model_values(model);
        memset(gradient, 0, (size_t)n * sizeof *gradient);
        OK(fv_model_train_batch(model, &b.batch, 1.0f / 41, 1, step, 0, &loss, &correct));
        if (step % 10 == 0) {
            if (!(fabs(loss / 41 - curve[step / 10]) < 1e-4))
                fail_msg("step %d: loss %.6f, recorded %.6f", step, loss / 41, curve[step / 10]);
        }
        for (int64_t i = 0; i < n; i++)
            values[i] -= 0.1f * gradient[i];
    }
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void test_redraw(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    fv_model *model = tiny_model(ctx, decoder);
    float first[8 * VOCABULARY], second[8 * VOCABULARY], again[8 * VOCABULARY];
    const int64_t length = 8;
    tiny_batch b;
    tiny_batch_fill(&b, 2, 0, 1, &length);
    OK(fv_model_logits(model, &b.batch, first));
    OK(fv_model_redraw(model, 3));
    assert_int_equal(fv_model_draw(model), 3);
    OK(fv_model_logits(model, &b.batch, second));
    OK(fv_model_redraw(model, 0));
    OK(fv_model_logits(model, &b.batch, again));
    assert_memory_not_equal(first, second, sizeof first);
    assert_memory_equal(first, again, sizeof first);
    expect_failure(ctx, fv_model_redraw(model, -1), FV_ERR_USAGE, "draw", NULL);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* No layer of any draw has the projection of another. */
static void test_draws_differ(void **state)
{
    (void)state;
    enum { DRAWS = 3, LAYERS = 2 };
    fv_context *ctx = tiny_context(1);
    fv_model *model = tiny_model(ctx, decoder);
    float first[DRAWS * LAYERS];
    for (int draw = 0; draw < DRAWS; draw++) {
        OK(fv_model_redraw(model, draw));
        for (int l = 0; l < LAYERS; l++)
            first[draw * LAYERS + l] = fv_model_projection(model, l)[0];
    }
    for (int i = 0; i < DRAWS * LAYERS; i++)
        for (int j = 0; j < i; j++)
            assert_true(first[i] != first[j]);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* ---- attention of a layer ------------------------------------------------------------------------ */

static void test_attention(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    fv_model *model = tiny_model(ctx, decoder);
    const int64_t length = 30, rows[] = {0, 7, 29};
    float weights[3 * 30];
    tiny_batch b;
    tiny_batch_fill(&b, 2, 0, 1, &length);
    for (int64_t layer = 0; layer < 2; layer++)
        for (int64_t head = 0; head < 2; head++) {
            OK(fv_model_attention(model, b.inputs, length, layer, head, rows, 3, weights));
            for (int i = 0; i < 3; i++) {
                double sum = 0;
                for (int64_t j = 0; j < length; j++) {
                    sum += (double)weights[i * length + j];
                    assert_true(j <= rows[i] || weights[i * length + j] == 0);
                }
                assert_true(fabs(sum - 1) < 1e-5);
            }
        }
    expect_failure(ctx, fv_model_attention(model, b.inputs, length, 2, 0, rows, 3, weights), FV_ERR_USAGE,
                   "layer 2", NULL);
    expect_failure(ctx, fv_model_attention(model, b.inputs, length, 0, -1, rows, 3, weights), FV_ERR_USAGE,
                   "head -1", NULL);
    expect_failure(ctx, fv_model_attention(model, b.inputs, 20, 0, 0, rows, 3, weights), FV_ERR_USAGE,
                   "row 29", NULL);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_taylor),         cmocka_unit_test(test_causal),
        cmocka_unit_test(test_packed),         cmocka_unit_test(test_threads),
        cmocka_unit_test(test_accumulation),   cmocka_unit_test(test_evaluate),
        cmocka_unit_test(test_dropout_key),    cmocka_unit_test(test_dropout_sites),
        cmocka_unit_test(test_initial_logits), cmocka_unit_test(test_overfit),
        cmocka_unit_test(test_redraw),         cmocka_unit_test(test_draws_differ),
        cmocka_unit_test(test_attention),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
