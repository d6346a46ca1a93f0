/* test_heads.c: encoder-decoder, classification and pairs: gradients, laws, what they learn, files, refusals. */
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

enum { VOCABULARY = 29, LABELS = 3, SEQUENCES = 4 };

static const int64_t lengths[] = {13, 1, 22, 5}, source_lengths[] = {4, 17, 1, 20};

typedef struct head_case {
    const char *name;
    int64_t labels_each; /* sequences a label; 0: tokens are predicted */
    bool source;
    const char *settings[16];
} head_case;

static const head_case cases[] = {
    {"translation", 0, true, {"is_encoder_decoder", "true"}},
    {"uneven translation",
     0,
     true,
     {"is_encoder_decoder", "true", "num_hidden_layers", "1", "decoder_layers", "3", "attention.kind",
      "exact", "tie_word_embeddings", "true", "hidden_dropout_prob", "0.1"}},
    {"grouped translation",
     0,
     true,
     {"is_encoder_decoder", "true", "num_attention_heads", "4", "num_key_value_heads", "2",
      "gradient_checkpointing", "true", "hidden_dropout_prob", "0.1", "attention.chunk", "5"}},
    {"reversible translation", 0, true, {"is_encoder_decoder", "true", "reversible", "true"}},
    {"classification", 1, false, {"head", "classification", "num_labels", "3"}},
    {"classification by the first",
     1,
     false,
     {"head", "classification", "num_labels", "3", "pooling", "cls", "reversible", "true"}},
    {"pairs", 2, false, {"head", "pair", "num_labels", "3"}},
    {"pairs by the first",
     2,
     false,
     {"head", "pair", "num_labels", "3", "pooling", "cls", "gradient_checkpointing", "true"}},
};

static void fill(const head_case *c, tiny_batch *b, uint64_t seed)
{
    tiny_batch_fill(b, seed, 0.6, SEQUENCES, lengths);
    if (c->source)
        tiny_batch_source(b, seed, source_lengths);
    if (c->labels_each > 0)
        tiny_batch_labels(b, seed, LABELS, c->labels_each);
}

static int64_t rows_of(const head_case *c, const tiny_batch *b)
{
    return c->labels_each > 0 ? b->batch.sequences / c->labels_each : b->batch.tokens;
}

static int64_t classes_of(const head_case *c)
{
    return c->labels_each > 0 ? LABELS : VOCABULARY;
}

static void test_gradients(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        tiny_batch b;
        fv_model *model = tiny_model(ctx, cases[i].settings);
        fill(&cases[i], &b, 1);
        print_message("%s\n", cases[i].name);
        check_model_gradient(model, &b.batch, false);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* ---- laws ---------------------------------------------------------------------------------------- */

static void test_packed(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        const head_case *c = &cases[i];
        float together[64 * VOCABULARY], alone[64 * VOCABULARY];
        fv_model *model = tiny_model(ctx, c->settings);
        tiny_batch b, one;
        int64_t each = FV_MAX(c->labels_each, 1), row = 0;
        fill(c, &b, 3);
        OK(fv_model_logits(model, &b.batch, together));
        for (int64_t s = 0; s < SEQUENCES; s += each) {
            int64_t offsets[] = {0, b.offsets[s + 1] - b.offsets[s], b.offsets[s + each] - b.offsets[s]};
            tiny_batch_take(&one, &b, s);
            if (each == 2) {
                one.batch.inputs = b.inputs + b.offsets[s];
                one.batch.tokens = offsets[2];
                one.batch.sequences = 2;
                one.batch.offsets = offsets;
            }
            OK(fv_model_logits(model, &one.batch, alone));
            int64_t rows = c->labels_each > 0 ? 1 : one.batch.tokens;
            if (memcmp(together + row * classes_of(c), alone,
                       (size_t)(rows * classes_of(c)) * sizeof *alone) != 0)
                fail_msg("%s, sequence %lld", c->name, (long long)s);
            row += rows;
        }
        assert_int_equal(row, rows_of(c, &b));
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* The decoder is causal, and sees the whole source. */
static void test_decoder_is_causal(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    const int64_t length = 40, source_length = 21;
    for (int i = 0; i < 4; i++) {
        float before[40 * VOCABULARY], after[40 * VOCABULARY];
        fv_model *model = tiny_model(ctx, cases[i].settings);
        tiny_batch b;
        tiny_batch_fill(&b, 2, 0, 1, &length);
        tiny_batch_source(&b, 2, &source_length);
        OK(fv_model_logits(model, &b.batch, before));
        for (int64_t t = 0; t < length; t += 7) {
            int32_t old = b.inputs[t];
            b.inputs[t] = (old + 11) % VOCABULARY;
            OK(fv_model_logits(model, &b.batch, after));
            assert_memory_equal(before, after, (size_t)(t * VOCABULARY) * sizeof *before);
            assert_memory_not_equal(before + t * VOCABULARY, after + t * VOCABULARY, sizeof *before);
            b.inputs[t] = old;
        }
        for (int64_t t = 0; t < source_length; t += 20) {
            int32_t old = b.source[t];
            b.source[t] = (old + 11) % VOCABULARY;
            OK(fv_model_logits(model, &b.batch, after));
            for (int64_t row = 0; row < length; row++)
                assert_memory_not_equal(before + row * VOCABULARY, after + row * VOCABULARY, sizeof *before);
            b.source[t] = old;
        }
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

typedef struct step_result {
    double loss;
    int64_t correct;
    float *gradient;
    size_t bytes;
} step_result;

static step_result step_of(fv_model *model, const fv_batch *batch)
{
    step_result r = {.bytes = (size_t)fv_model_parameters(model) * sizeof(float)};
    r.gradient = malloc(r.bytes);
    OK(fv_model_prepare(model, batch->tokens, batch->sequences, batch->predicted, true));
    fv_open(model->work.pool, model->work.pool_bytes);
    memset(model->work.pool, 0xff, model->work.pool_bytes);
    OK(fv_model_train_batch(model, batch, 0.1f, 3, 1, 0, &r.loss, &r.correct));
    assert_int_equal(model->tape.pool.count, 0);
    memcpy(r.gradient, fv_model_gradients(model), r.bytes);
    memset(fv_model_gradients(model), 0, r.bytes);
    return r;
}

/* Threads change no bit; neither does running layers again, with what enters them from the encoder. */
static void check_bits(const char *dtype)
{
    for (int i = 0; i < FV_COUNT(cases); i++) {
        tiny_batch b;
        step_result r[3];
        fill(&cases[i], &b, 4);
        for (int k = 0; k < 3; k++) {
            fv_context *ctx = tiny_context(k < 2 ? k + 1 : 1);
            OK(fv_context_set_dtype(ctx, dtype));
            fv_model *model = tiny_model(ctx, cases[i].settings);
            model->tape.keep_all = k == 2 && !model->shape.reversible;
            r[k] = step_of(model, &b.batch);
            fv_model_destroy(model);
            fv_context_destroy(ctx);
        }
        for (int k = 1; k < 3; k++) {
            assert_true(r[k].loss == r[0].loss && r[k].correct == r[0].correct);
            assert_memory_equal(r[k].gradient, r[0].gradient, r[0].bytes);
        }
        for (int k = 0; k < 3; k++)
            free(r[k].gradient);
    }
}

static void test_bits(void **state)
{
    (void)state;
    check_bits("f32");
    check_bits("bf16");
}

/* Reversible decoders run again from their outputs and from the memory, which is kept. */
static void test_reversible_decoder(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    fv_model *model = tiny_model(ctx, cases[3].settings);
    tiny_batch b;
    fill(&cases[3], &b, 4);
    step_result again = step_of(model, &b.batch);
    model->tape.keep_all = true;
    step_result kept = step_of(model, &b.batch);
    double largest = 0, error = 0;
    assert_true(again.loss == kept.loss);
    for (size_t k = 0; k < again.bytes / sizeof(float); k++) {
        largest = fmax(largest, fabs((double)kept.gradient[k]));
        error = fmax(error, fabs((double)kept.gradient[k] - (double)again.gradient[k]));
    }
    assert_true(error <= 1e-5 * largest);
    free(again.gradient), free(kept.gradient);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void test_evaluate(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        const head_case *c = &cases[i];
        float logits[64 * VOCABULARY];
        double loss = 0, expected = 0;
        int64_t correct = 0, hits = 0, classes = classes_of(c);
        fv_model *model = tiny_model(ctx, c->settings);
        tiny_batch b;
        fill(c, &b, 6);
        OK(fv_model_logits(model, &b.batch, logits));
        OK(fv_model_evaluate(model, &b.batch, &loss, &correct));
        for (int64_t r = 0; r < rows_of(c, &b); r++) {
            int32_t target = c->labels_each > 0 ? b.labels[r] : b.targets[r], best = 0;
            double sum = 0;
            if (target < 0)
                continue;
            for (int32_t k = 0; k < classes; k++) {
                best = logits[r * classes + k] > logits[r * classes + best] ? k : best;
                sum += exp((double)logits[r * classes + k]);
            }
            expected += log(sum) - (double)logits[r * classes + target];
            hits += best == target;
        }
        assert_true(fabs(loss - expected) <= 8 * 1.2e-7 * (expected + 41));
        assert_int_equal(correct, hits);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* The mean is over a sequence's own tokens, and 0 of none. */
static void test_empty_sequence(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    const int64_t some[] = {3, 0, 2};
    float logits[3 * LABELS];
    tiny_batch b;
    fv_model *model = tiny_model(ctx, cases[4].settings);
    tiny_batch_fill(&b, 2, 0, 3, some);
    OK(fv_model_logits(model, &b.batch, logits));
    for (int k = 0; k < LABELS; k++)
        assert_true(logits[LABELS + k] == fv_model_values(model)[model->head_bias + k]);
    tiny_batch_labels(&b, 1, LABELS, 1);
    step_result r = step_of(model, &b.batch);
    assert_true(isfinite(r.loss));
    free(r.gradient);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* ---- learning ------------------------------------------------------------------------------------ */

/* One batch by heart, under one dropout mask. */
static void test_overfit(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        fv_model *model = tiny_model(ctx, cases[i].settings);
        int64_t n = fv_model_parameters(model), correct = 0;
        double loss = 0;
        tiny_batch b;
        float *velocity = calloc((size_t)n, sizeof *velocity);
        fill(&cases[i], &b, 8);
        for (int step = 0; step < 200; step++) {
            float *gradient = fv_model_gradients(model), *values = fv_model_values(model);
            memset(gradient, 0, (size_t)n * sizeof *gradient);
            loss = 0;
            correct = 0;
            OK(fv_model_train_batch(model, &b.batch, 1.0f / (float)b.batch.predicted, 1, 0, 0, &loss,
                                    &correct));
            for (int64_t k = 0; k < n; k++)
                values[k] -= 0.04f * (velocity[k] = 0.9f * velocity[k] + gradient[k]);
        }
        free(velocity);
        if (correct != b.batch.predicted || !(loss < 0.3 * (double)b.batch.predicted))
            fail_msg("%s: %lld of %lld right, loss %g", cases[i].name, (long long)correct,
                     (long long)b.batch.predicted, loss / (double)b.batch.predicted);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* ---- files --------------------------------------------------------------------------------------- */

static void test_files(void **state)
{
    (void)state;
    static const char *const wanted[][2] = {
        {"encoder.layers.1.attention.projection", "decoder.layers.1.cross_attention.projection"},
        {"decoder.layers.2.cross_attention.key.weight", "encoder.norm.weight"},
        {"decoder.norm.bias", "decoder.layers.0.attention.projection"},
        {"decoder.layers.0.mlp.up.weight", "head.weight"},
        {"classifier.weight", "classifier.bias"},
        {"classifier.weight", "classifier.bias"},
        {"classifier.dense.weight", "classifier.out_proj.bias"},
        {"classifier.dense.bias", "classifier.out_proj.weight"},
    };
    fv_context *ctx = tiny_context(1);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        float before[64 * VOCABULARY], after[64 * VOCABULARY];
        fv_model *model = tiny_model(ctx, cases[i].settings), *loaded;
        fv_tensors *file;
        tiny_batch b;
        fill(&cases[i], &b, 5);
        OK(fv_model_redraw(model, 4));
        OK(fv_model_logits(model, &b.batch, before));
        OK(fv_model_save(model, scratch_path(".")));
        OK(fv_model_load(&loaded, ctx, scratch_path("."), 0));
        OK(fv_model_logits(loaded, &b.batch, after));
        assert_int_equal(fv_model_draw(loaded), 4);
        assert_memory_equal(before, after,
                            (size_t)(rows_of(&cases[i], &b) * classes_of(&cases[i])) * sizeof *before);
        OK(fv_tensors_open(&file, ctx, scratch_path("model.safetensors")));
        for (int k = 0; k < 2; k++)
            if (fv_tensors_find(file, wanted[i][k]) == NULL)
                fail_msg("%s: no tensor %s", cases[i].name, wanted[i][k]);
        fv_tensors_close(file);
        fv_model_destroy(model);
        fv_model_destroy(loaded);
    }
    fv_context_destroy(ctx);
}

/* ---- cost ---------------------------------------------------------------------------------------- */

/* A batch of the measured size allocates nothing more, wherever its sequences begin. */
static void test_measured(void **state)
{
    (void)state;
    static const int64_t lists[][SEQUENCES] = {{16, 16, 16, 16}, {61, 1, 1, 1}, {1, 2, 3, 58}};
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        fv_model *model = tiny_model(ctx, cases[i].settings);
        fv_model_cost cost;
        OK(fv_model_measure(model, 64, 16, 20, &cost));
        assert_true(cost.flop_forward > 0);
        assert_int_equal(cost.parameters, fv_model_parameters(model));
        assert_non_null(fv_model_gradients(model));
        OK(fv_model_prepare(model, 64, SEQUENCES, 64, true));
        size_t after = fv_context_bytes(ctx);
        fv_context_reset_peak(ctx);
        for (int q = 0; q < FV_COUNT(lists); q++)
            for (int k = 0; k < FV_COUNT(lists); k++) {
                tiny_batch b;
                double loss = 0;
                int64_t correct = 0;
                tiny_batch_fill(&b, 4, 1, SEQUENCES, lists[q]);
                if (cases[i].source)
                    tiny_batch_source(&b, 4, lists[k]);
                if (cases[i].labels_each > 0)
                    tiny_batch_labels(&b, 4, LABELS, cases[i].labels_each);
                OK(fv_model_train_batch(model, &b.batch, 1.0f, 1, 1, 0, &loss, &correct));
            }
        assert_int_equal(fv_context_peak_bytes(ctx), after);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* ---- wrong use ----------------------------------------------------------------------------------- */

static void refuse(fv_context *ctx, const char *const *settings, const char *word)
{
    fv_config *config = tiny_config(ctx, settings);
    fv_model *model = NULL;
    expect_failure(ctx, fv_model_create(&model, ctx, config, 1), FV_ERR_USAGE, word, NULL);
    assert_null(model);
    fv_config_destroy(config);
}

static void test_impossible(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    refuse(ctx, (const char *const[]){"is_encoder_decoder", "true", "is_decoder", "true", NULL},
           "is_decoder");
    refuse(ctx, (const char *const[]){"decoder_layers", "2", NULL}, "decoder_layers");
    refuse(ctx, (const char *const[]){"is_encoder_decoder", "true", "head", "pair", NULL}, "pair");
    refuse(ctx, (const char *const[]){"head", "classification", "tie_word_embeddings", "true", NULL},
           "tie_word_embeddings");
    fv_context_destroy(ctx);
}

static void expect_refused(fv_context *ctx, fv_model *model, const fv_batch *batch, const char *word)
{
    double loss = 0;
    int64_t correct = 0;
    expect_failure(ctx, fv_model_evaluate(model, batch, &loss, &correct), FV_ERR_USAGE, word, NULL);
    assert_true(loss == 0 && correct == 0);
}

static void test_bad_batches(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    fv_model *translation = tiny_model(ctx, cases[0].settings), *classes = tiny_model(ctx, cases[5].settings);
    fv_model *pairs = tiny_model(ctx, cases[6].settings);
    fv_stream *stream;
    float weights[13];
    const int64_t row = 0, some[] = {3, 0, 2, 4};
    tiny_batch b;
    fill(&cases[0], &b, 2);
    b.source[3] = VOCABULARY;
    expect_refused(ctx, translation, &b.batch, "source: token 3");
    b.source[3] = 0;
    b.source_offsets[2]--;
    b.source_offsets[4]++;
    expect_refused(ctx, translation, &b.batch, "source");
    b.batch.source = NULL;
    expect_refused(ctx, translation, &b.batch, "source");
    expect_failure(ctx, fv_model_attention(translation, b.inputs, 13, 0, 0, &row, 1, weights), FV_ERR_USAGE,
                   "encoder-decoder", NULL);

    fill(&cases[5], &b, 2);
    expect_failure(ctx, fv_stream_create(&stream, classes, 9), FV_ERR_USAGE, "labels", NULL);
    b.labels[1] = LABELS;
    expect_refused(ctx, classes, &b.batch, "label 1");
    b.labels[1] = -1;
    expect_refused(ctx, classes, &b.batch, "label 1");
    b.batch.labels = NULL;
    expect_refused(ctx, classes, &b.batch, "labels");
    tiny_batch_fill(&b, 2, 0, 4, some);
    tiny_batch_labels(&b, 1, LABELS, 1);
    expect_refused(ctx, classes, &b.batch, "sequence 1 is empty");

    fill(&cases[6], &b, 2);
    b.batch.sequences = 3;
    b.batch.tokens = b.offsets[3];
    expect_refused(ctx, pairs, &b.batch, "two by two");
    fv_model_destroy(translation);
    fv_model_destroy(classes);
    fv_model_destroy(pairs);
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_packed),
        cmocka_unit_test(test_decoder_is_causal),
        cmocka_unit_test(test_bits),
        cmocka_unit_test(test_reversible_decoder),
        cmocka_unit_test(test_evaluate),
        cmocka_unit_test(test_empty_sequence),
        cmocka_unit_test(test_overfit),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_measured),
        cmocka_unit_test(test_impossible),
        cmocka_unit_test(test_bad_batches),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
