/* test_sites.c: what attention learns and takes beside q, k and v: gates, bandwidths, position weights, decays,
 * trained projections; heads of two kinds in a layer. Gradients, streams, files, starts. */
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

enum { VOCABULARY = 29, SEQUENCES = 4, LENGTH = 40, PAIRS = 20 };

static const int64_t lengths[] = {13, 1, 22, 5};

typedef struct site_case {
    const char *kind;
    const char *name; /* a tensor of the file */
    bool streams;
    const char *settings[PAIRS];
} site_case;

static const site_case cases[] = {
    {"favor+", "layers.1.attention.gate.weight", true, {"is_decoder", "true", "attention.gate", "true"}},
    {"relu",
     "layers.0.attention.gate.bias",
     true,
     {"is_decoder", "true", "attention.gate", "true", "attention.epsilon", "0.5", "reversible", "true"}},
    {"favor+", "layers.0.attention.projection", true, {"is_decoder", "true", "attention.decay", "true"}},
    {"favor+", "layers.0.attention.projection", false, {"attention.trainable_projection", "true"}},
    {"favor+",
     "layers.0.attention.ppsbn_beta",
     true,
     {"is_decoder", "true", "attention.ppsbn", "true", "num_hidden_layers", "1"}},
    {"exact",
     "layers.0.attention.ppsbn_gamma",
     true,
     {"is_decoder", "true", "attention.ppsbn", "true", "attention.rotary", "true", "num_hidden_layers", "1"}},
    {"exact", "layers.0.attention.position_bias", false, {"attention.position_bias", "fastrpb"}},
    {"favor+",
     "layers.0.attention.position_bias",
     false,
     {"attention.position_bias", "fastrpb", "is_decoder", "true"}},
    {"favor+", "layers.0.attention.position_bias", false, {"attention.position_bias", "kernel"}},
    {"rfa",
     "layers.0.attention.bandwidth",
     true,
     {"is_decoder", "true", "attention.denominator", "abs:0.5", "attention.gate", "true"}},
    {"rfa-arccos", "layers.1.attention.bandwidth", false, {"attention.denominator", "add:1"}},
    {"hedgehog", "layers.0.attention.map_weight", true, {"is_decoder", "true"}},
    {"rebased",
     "layers.0.attention.rebased_gamma",
     true,
     {"is_decoder", "true", "attention.denominator", "add:1"}},
    {"linformer", "layers.0.attention.linformer_f", false, {"attention.projected", "5"}},
    {"linformer",
     "layers.1.attention.linformer_f",
     false,
     {"attention.projected", "5", "attention.linformer_sharing", "headwise"}},
    {"linformer",
     "layers.1.attention.linformer_e",
     false,
     {"attention.projected", "5", "attention.linformer_sharing", "key-value"}},
    {"linformer",
     "attention.linformer_e",
     false,
     {"attention.projected", "5", "attention.linformer_sharing", "layer"}},
    {"favor++", "layers.0.attention.projection", true, {"is_decoder", "true", "attention.psi", "8"}},
    {"favor#", "layers.0.attention.projection", true, {"is_decoder", "true", "attention.psi", "8"}},
    {"favor+",
     "layers.1.attention.projection",
     true,
     {"num_attention_heads", "4", "attention.local_heads", "1", "attention.local_window", "3", "is_decoder",
      "true", "attention.chunk", "5"}},
    {"relu",
     "layers.1.attention.gate.weight",
     true,
     {"num_attention_heads", "4", "num_key_value_heads", "2", "attention.local_heads", "2",
      "attention.local_window", "4", "is_decoder", "true", "attention.gate", "true", "attention.epsilon",
      "0.5"}},
};

/* Places in the table. */
enum { DECAYED = 2, TRAINED = 3, ADDED = 6, INSIDE = 8, MIXED = 19 };

static fv_model *make(fv_context *ctx, const site_case *c)
{
    const char *settings[PAIRS + 2] = {"attention.kind", c->kind};
    for (int i = 0; c->settings[i] != NULL; i++)
        settings[2 + i] = c->settings[i];
    return tiny_model(ctx, settings);
}

/* ppSBN's power is near 2, where it is smooth, not near 1, where it bends at 0. */
static void smooth(fv_model *model)
{
    for (int i = 0; i < fv_model_parameter_count(model); i++) {
        const fv_parameter *p = fv_model_parameter_at(model, i);
        for (int64_t k = 0; strstr(p->name, "ppsbn_beta") != NULL && k < p->count; k++)
            fv_model_values(model)[p->offset + k] = 2;
    }
}

static void test_gradients(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        fv_model *model = make(ctx, &cases[i]);
        tiny_batch b;
        print_message("%d %s %s\n", i, cases[i].kind, cases[i].name);
        tiny_batch_fill(&b, 1, 0.6, SEQUENCES, lengths);
        /* ReLUs, and powers of numbers near 0, which curve much where the signs change */
        bool bends = strcmp(cases[i].kind, "relu") == 0 || strcmp(cases[i].kind, "rfa-arccos") == 0 ||
                     fv_config_bool(fv_model_config(model), "attention.ppsbn");
        smooth(model);
        check_model_gradient(model, &b.batch, bends);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* Packed is alone, causal is causal, and a thread more changes no bit. */
static void test_laws(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1), *two = tiny_context(2);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        float together[LENGTH * 2 * VOCABULARY], alone[LENGTH * 2 * VOCABULARY];
        fv_model *model = make(ctx, &cases[i]), *threaded = make(two, &cases[i]);
        tiny_batch b, one;
        tiny_batch_fill(&b, 3, 0.3, SEQUENCES, lengths);
        OK(fv_model_logits(model, &b.batch, together));
        OK(fv_model_logits(threaded, &b.batch, alone));
        assert_memory_equal(together, alone, (size_t)(b.batch.tokens * VOCABULARY) * sizeof *alone);
        for (int64_t s = 0; s < SEQUENCES; s++) {
            tiny_batch_take(&one, &b, s);
            OK(fv_model_logits(model, &one.batch, alone));
            if (memcmp(together + b.offsets[s] * VOCABULARY, alone,
                       (size_t)(lengths[s] * VOCABULARY) * sizeof *alone) != 0)
                fail_msg("case %d, sequence %lld", i, (long long)s);
        }
        for (int64_t t = 13; model->shape.causal && t < b.batch.tokens; t += 9) {
            b.inputs[t] = (b.inputs[t] + 11) % VOCABULARY;
            OK(fv_model_logits(model, &b.batch, alone));
            assert_memory_equal(together, alone, (size_t)(t * VOCABULARY) * sizeof *alone);
            OK(fv_model_logits(model, &b.batch, together));
        }
        fv_model_destroy(model);
        fv_model_destroy(threaded);
    }
    fv_context_destroy(ctx);
    fv_context_destroy(two);
}

/* Moves every parameter, so that nothing is at its neutral start. */
static void stir(fv_model *model)
{
    int64_t n = fv_model_parameters(model);
    float *u = malloc((size_t)n * sizeof *u), *values = fv_model_values(model);
    tiny_normals(9, 0.1, u, n);
    for (int64_t i = 0; i < n; i++)
        values[i] += u[i];
    free(u);
}

static void test_stream_is_batch(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    static const int64_t chunks[] = {1, 7, LENGTH};
    const int64_t length = LENGTH;
    for (int i = 0; i < FV_COUNT(cases); i++) {
        fv_model *model = make(ctx, &cases[i]);
        fv_stream *stream;
        float whole[LENGTH * VOCABULARY], logits[VOCABULARY];
        tiny_batch b;
        stir(model);
        tiny_batch_fill(&b, 3, 0, 1, &length);
        OK(fv_model_logits(model, &b.batch, whole));
        if (!cases[i].streams)
            expect_failure(ctx, fv_stream_create(&stream, model, LENGTH), FV_ERR_USAGE, "stream", NULL);
        for (int k = 0; cases[i].streams && k < FV_COUNT(chunks); k++) {
            OK(fv_stream_create(&stream, model, LENGTH));
            for (int64_t t = 0; t < LENGTH; t += chunks[k]) {
                int64_t n = FV_MIN(chunks[k], LENGTH - t);
                OK(fv_stream_feed(stream, b.inputs + t, n, logits));
                for (int c = 0; c < VOCABULARY; c++) {
                    double expected = (double)whole[(t + n - 1) * VOCABULARY + c];
                    if (!(fabs((double)logits[c] - expected) <= 2e-5 * (1 + fabs(expected))))
                        fail_msg("case %d, chunks of %lld, token %lld: %g, expected %g", i,
                                 (long long)chunks[k], (long long)t, (double)logits[c], expected);
                }
            }
            fv_stream_destroy(stream);
        }
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

static void test_files(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        float before[LENGTH * 2 * VOCABULARY], after[LENGTH * 2 * VOCABULARY];
        fv_model *model = make(ctx, &cases[i]), *loaded;
        fv_tensors *file;
        tiny_batch b;
        stir(model);
        OK(fv_model_redraw(model, 2));
        tiny_batch_fill(&b, 3, 0, SEQUENCES, lengths);
        OK(fv_model_logits(model, &b.batch, before));
        OK(fv_model_save(model, scratch_path(".")));
        OK(fv_model_load(&loaded, ctx, scratch_path("."), 0));
        OK(fv_model_logits(loaded, &b.batch, after));
        assert_memory_equal(before, after, (size_t)(b.batch.tokens * VOCABULARY) * sizeof *before);
        OK(fv_tensors_open(&file, ctx, scratch_path("model.safetensors")));
        if (fv_tensors_find(file, cases[i].name) == NULL)
            fail_msg("case %d: no tensor %s", i, cases[i].name);
        fv_tensors_close(file);
        fv_model_destroy(model);
        fv_model_destroy(loaded);
    }
    fv_context_destroy(ctx);
}

/* ---- starts -------------------------------------------------------------------------------------- */

static const float *tensor_of(fv_model *model, const char *name)
{
    for (int i = 0; i < fv_model_parameter_count(model); i++)
        if (strcmp(fv_model_parameter_at(model, i)->name, name) == 0)
            return fv_model_values(model) + fv_model_parameter_at(model, i)->offset;
    fail_msg("no parameter %s", name);
    return NULL;
}

/* A trained projection begins as the drawn one, is a parameter, and no redraw moves it. */
static void test_trained_projection(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    fv_model *trained, *drawn = tiny_model(ctx, NULL);
    float a[LENGTH * VOCABULARY], b[LENGTH * VOCABULARY];
    const int64_t length = LENGTH;
    tiny_batch batch;
    trained = make(ctx, &cases[TRAINED]);
    tiny_batch_fill(&batch, 3, 0, 1, &length);
    const float *projection = tensor_of(trained, "layers.1.attention.projection");
    assert_memory_equal(projection, fv_model_projection(drawn, 1), 2 * 16 * 8 * sizeof(float));
    OK(fv_model_logits(trained, &batch.batch, a));
    OK(fv_model_redraw(trained, 3));
    OK(fv_model_logits(trained, &batch.batch, b));
    assert_memory_equal(a, b, sizeof a);
    fv_model_destroy(trained);
    fv_model_destroy(drawn);
    fv_context_destroy(ctx);
}

/* decay is RetNet's 1 - 2^(-5-h), and a constant of the model. */
static void test_decay(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    fv_model *model = make(ctx, &cases[DECAYED]), *plain = tiny_model(ctx, NULL);
    const float *decay = model->sites[1].inputs[0].fixed[FV_INPUT_DECAY];
    assert_true(decay[0] == 0.96875f && decay[1] == 0.984375f);
    assert_int_equal(fv_model_parameters(model), fv_model_parameters(plain));
    fv_model_destroy(model);
    fv_model_destroy(plain);
    fv_context_destroy(ctx);
}

/* With weights of distance that are almost 0, a model begins as the one without. */
static void test_neutral_starts(void **state)
{
    (void)state;
    static const int neutral[] = {ADDED, INSIDE};
    fv_context *ctx = tiny_context(1);
    const int64_t length = LENGTH;
    tiny_batch batch;
    tiny_batch_fill(&batch, 3, 0, 1, &length);
    for (int i = 0; i < FV_COUNT(neutral); i++) {
        const site_case *c = &cases[neutral[i]], bare = {.kind = c->kind};
        fv_model *with = make(ctx, c), *without = make(ctx, &bare);
        float a[LENGTH * VOCABULARY], b[LENGTH * VOCABULARY];
        /* the same numbers in the tensors that both have */
        for (int p = 0; p < fv_model_parameter_count(without); p++) {
            const fv_parameter *view = fv_model_parameter_at(without, p);
            memcpy((float *)(uintptr_t)tensor_of(with, view->name), fv_model_values(without) + view->offset,
                   (size_t)view->count * sizeof(float));
        }
        OK(fv_model_logits(with, &batch.batch, a));
        OK(fv_model_logits(without, &batch.batch, b));
        for (int k = 0; k < LENGTH * VOCABULARY; k++)
            assert_true(fabsf(a[k] - b[k]) < 0.02f);
        fv_model_destroy(with);
        fv_model_destroy(without);
    }
    fv_context_destroy(ctx);
}

/* ---- two kinds of heads ------------------------------------------------------------------------ */

/* The rows of a local head end at its window, those of the others do not; the head is found in its own part. */
static void test_mixed_heads(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    const int64_t length = LENGTH, row = 30;
    float weights[LENGTH];
    fv_model *model;
    tiny_batch b;
    model = make(ctx, &cases[MIXED]);
    tiny_batch_fill(&b, 3, 0, 1, &length);
    for (int64_t head = 0; head < 4; head++) {
        double sum = 0;
        OK(fv_model_attention(model, b.inputs, length, 1, head, &row, 1, weights));
        for (int64_t j = 0; j < length; j++) {
            bool seen = j <= row && (head > 0 || j >= row - 3);
            assert_true(seen == (weights[j] != 0));
            sum += (double)weights[j];
        }
        assert_true(fabs(sum - 1) < 1e-5);
    }
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

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
    refuse(ctx, (const char *const[]){"attention.local_heads", "2", NULL}, "local_heads");
    refuse(ctx,
           (const char *const[]){"attention.local_heads", "1", "num_attention_heads", "4",
                                 "num_key_value_heads", "2", NULL},
           "multiple of 2");
    refuse(ctx, (const char *const[]){"attention.gate", "true", NULL}, "gate");
    refuse(ctx, (const char *const[]){"attention.kind", "favor++", "is_decoder", "true", NULL}, "psi");
    refuse(ctx,
           (const char *const[]){"attention.trainable_projection", "true", "attention.kind", "exact", NULL},
           "projection");
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradients),          cmocka_unit_test(test_laws),
        cmocka_unit_test(test_stream_is_batch),    cmocka_unit_test(test_files),
        cmocka_unit_test(test_trained_projection), cmocka_unit_test(test_decay),
        cmocka_unit_test(test_neutral_starts),     cmocka_unit_test(test_mixed_heads),
        cmocka_unit_test(test_impossible),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
