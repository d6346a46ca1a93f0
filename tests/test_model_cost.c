/* test_model_cost.c: what a model costs, told beforehand, and what it refuses: sizes, batches, allocations. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "model/transformer.h"
#include "support/counting.h"
#include "support/scratch.h"
#include "support/tiny_model.h"
#include <stdlib.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { VOCABULARY = 29 };

static const char *const encoder[] = {"is_decoder", "false", NULL};
static const char *const decoder[] = {"is_decoder", "true", "attention.chunk", "5", "hidden_dropout_prob",
                                      "0.2",        NULL};
static const char *const exact_tied[] = {"attention.kind",      "exact", "is_decoder", "true",
                                         "tie_word_embeddings", "true",  NULL};
static const char *const grouped[] = {"num_attention_heads",
                                      "4",
                                      "num_key_value_heads",
                                      "2",
                                      "attention.kind",
                                      "relu",
                                      "hidden_act",
                                      "relu",
                                      NULL};
static const char *const sinusoidal[] = {"position_embedding_type", "sinusoidal", "attention.kind",
                                         "identity", NULL};

static const char *const *const models[] = {encoder, decoder, exact_tied, grouped, sinusoidal};
static const int64_t lengths[] = {13, 1, 22, 5};

/* ---- cost ---------------------------------------------------------------------------------------- */

static void check_measured(const char *dtype)
{
    fv_context *ctx = tiny_context(2);
    OK(fv_context_set_dtype(ctx, dtype));
    for (int i = 0; i < FV_COUNT(models); i++) {
        fv_config *config = tiny_config(ctx, models[i]);
        size_t before = fv_context_bytes(ctx);
        fv_model *model;
        OK(fv_model_create(&model, ctx, config, 1));
        size_t built = fv_context_bytes(ctx);
        fv_model_cost cost;
        OK(fv_model_measure(model, 128, 64, 20, &cost));
        assert_int_equal(fv_context_bytes(ctx), built);
        size_t vector = fv_bytes(fv_model_parameters(model), sizeof(float));
        assert_int_equal(fv_model_parameters(model), cost.parameters);
        assert_non_null(fv_model_gradients(model));
        OK(fv_model_prepare(model, 128, 2, 20, true));
        size_t after = fv_context_bytes(ctx);
        /* All but the config's copy and the operator's handle, which are no part of the model's arrays. */
        size_t handles = built - before - (cost.bytes - 3 * vector - (after - built - vector));
        assert_true(handles < 16384);

        /* A batch of that size allocates nothing more. */
        static const int64_t two[] = {64, 64}, ragged[] = {1, 63};
        double loss = 0;
        int64_t correct = 0;
        tiny_batch b;
        fv_context_reset_peak(ctx);
        for (int k = 0; k < 2; k++) {
            tiny_batch_fill(&b, 4, 0.15, 2, k == 0 ? two : ragged);
            OK(fv_model_train_batch(model, &b.batch, 1.0f, 1, 1, 0, &loss, &correct));
            OK(fv_model_evaluate(model, &b.batch, &loss, &correct));
        }
        assert_int_equal(fv_context_peak_bytes(ctx), after);
        fv_model_destroy(model);
        fv_config_destroy(config);
    }
    fv_context_destroy(ctx);
}

static void test_measured_bytes(void **state)
{
    (void)state;
    check_measured("f32");
    check_measured("bf16");
}

/* 2 FLOP a multiply-add of every matrix, attention by its own rule. */
static void test_measured_flop(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    fv_model *model = tiny_model(ctx, encoder);
    fv_model_cost cost;
    OK(fv_model_measure(model, 128, 64, 20, &cost));
    double layer = 2.0 * 128 * (16 * 48 + 16 * 16 + 2 * 16 * 32) + 2 * 2 * 8.0 * 64 * 16 * 8;
    assert_true(cost.flop_forward == 2 * layer + 2.0 * 20 * 16 * VOCABULARY);
    assert_true(cost.flop_step == 3 * cost.flop_forward);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static double work_of(fv_context *ctx, fv_model *model, int64_t length)
{
    (void)ctx;
    double loss = 0;
    int64_t correct = 0;
    tiny_batch *b = calloc(1, sizeof *b);
    tiny_batch_fill(b, 4, 1, 1, &length);
    counting_reset();
    OK(fv_model_train_batch(model, &b->batch, 1.0f, 1, 1, 0, &loss, &correct));
    free(b);
    return counting_work();
}

static void test_linear_work(void **state)
{
    (void)state;
    static const char *const long_causal[] = {"is_decoder", "true", "max_position_embeddings", "512", NULL};
    static const char *const long_encoder[] = {"max_position_embeddings", "512", NULL};
    static const char *const *const both[] = {long_causal, long_encoder};
    for (int i = 0; i < 2; i++) {
        fv_context *ctx = tiny_context(1);
        fv_kernels base = *ctx->kernels, table;
        fv_model *model = tiny_model(ctx, both[i]);
        fv_model_cost one, two, four;
        OK(fv_model_measure(model, 4096, 4096, 4096, &two));
        OK(fv_model_measure(model, 2048, 2048, 2048, &one));
        OK(fv_model_measure(model, 8192, 8192, 8192, &four));
        assert_true((double)(four.bytes - two.bytes) <= 2.05 * (double)(two.bytes - one.bytes));
        counting_table(&table, &base);
        *ctx->kernels = table;
        double half = work_of(ctx, model, 256), whole = work_of(ctx, model, 512);
        *ctx->kernels = base;
        if (!(whole <= 2.05 * half))
            fail_msg("work at 256: %g, at 512: %g", half, whole);
        fv_model_destroy(model);
        fv_context_destroy(ctx);
    }
}

/* ---- wrong use ----------------------------------------------------------------------------------- */

static void refuse(fv_context *ctx, const char *key, const char *value, const char *word)
{
    const char *const settings[] = {key, value, NULL};
    fv_config *config = tiny_config(ctx, settings);
    fv_model *model = (fv_model *)&config; /* must become NULL */
    expect_failure(ctx, fv_model_create(&model, ctx, config, 1), FV_ERR_USAGE, word, NULL);
    assert_null(model);
    fv_config_destroy(config);
}

static void test_impossible_sizes(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    refuse(ctx, "num_attention_heads", "3", "num_attention_heads");
    refuse(ctx, "num_key_value_heads", "4", "num_key_value_heads");
    refuse(ctx, "vocab_size", "28", "vocab_size");
    refuse(ctx, "attention.denominator", "clamp:x", "attention.denominator");
    refuse(ctx, "attention.kind", "nonsense", "nonsense");
    fv_config *config = tiny_config(ctx, NULL);
    fv_model *model;
    OK(fv_config_set(config, "hidden_size", "1073741824"));
    OK(fv_config_set(config, "head_dim", "8"));
    OK(fv_config_set(config, "intermediate_size", "1073741824"));
    OK(fv_config_set(config, "num_hidden_layers", "65536"));
    expect_failure(ctx, fv_model_create(&model, ctx, config, 1), FV_ERR_USAGE, "hidden_size", NULL);
    /* Addressable, but more than any machine of today has. */
    OK(fv_config_set(config, "intermediate_size", "1024"));
    OK(fv_config_set(config, "num_hidden_layers", "256"));
    expect_failure(ctx, fv_model_create(&model, ctx, config, 1), FV_ERR_RESOURCE, "out of memory", NULL);
    fv_config_destroy(config);
    fv_context_destroy(ctx);
}

static void test_bad_batches(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    fv_model *model = tiny_model(ctx, encoder);
    double loss = 0;
    int64_t correct = 0;
    tiny_batch b;
    tiny_batch_fill(&b, 2, 0.5, FV_COUNT(lengths), lengths);
    fv_batch bad = b.batch;
    bad.tokens = 40;
    expect_failure(ctx, fv_model_evaluate(model, &bad, &loss, &correct), FV_ERR_USAGE, "offsets", NULL);
    bad = b.batch;
    bad.predicted++;
    expect_failure(ctx, fv_model_evaluate(model, &bad, &loss, &correct), FV_ERR_USAGE, "predicted", NULL);
    b.inputs[3] = VOCABULARY;
    expect_failure(ctx, fv_model_evaluate(model, &b.batch, &loss, &correct), FV_ERR_USAGE, "token 3", NULL);
    const int64_t too_long = 65;
    tiny_batch_fill(&b, 2, 0.5, 1, &too_long);
    expect_failure(ctx, fv_model_evaluate(model, &b.batch, &loss, &correct), FV_ERR_USAGE,
                   "max_position_embeddings", NULL);
    assert_true(loss == 0 && correct == 0);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* ---- failing allocations ------------------------------------------------------------------------- */

static fv_status whole_life(fv_context *ctx, void *arg)
{
    fv_model *model = NULL;
    const tiny_batch *b = arg;
    double loss = 0;
    int64_t correct = 0;
    const int64_t row = 3;
    float weights[41];
    fv_config *config = NULL;
    fv_status status = fv_config_create(&config, ctx);
    if (status == FV_OK)
        status = fv_config_set(config, "hidden_size", "32");
    if (status == FV_OK)
        status = fv_model_create(&model, ctx, config, 1);
    if (status == FV_OK)
        status = fv_model_train_batch(model, &b->batch, 1, 1, 1, 0, &loss, &correct);
    if (status == FV_OK)
        status = fv_model_attention(model, b->inputs, 41, 0, 0, &row, 1, weights);
    fv_model_destroy(model);
    fv_config_destroy(config);
    return status;
}

static void test_failing_allocations(void **state)
{
    (void)state;
    tiny_batch b;
    tiny_batch_fill(&b, 2, 0.5, FV_COUNT(lengths), lengths);
    assert_true(fail_every_allocation(whole_life, &b) > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_measured_bytes), cmocka_unit_test(test_measured_flop),
        cmocka_unit_test(test_linear_work),    cmocka_unit_test(test_impossible_sizes),
        cmocka_unit_test(test_bad_batches),    cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
