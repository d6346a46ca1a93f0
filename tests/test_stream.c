/* test_stream.c: a stream token by token, in chunks and as one batch, of a causal model and of a decoder that translates a
 * source; its state as a file. */
#include "model/transformer.h"
#include "support/counting.h"
#include "support/scratch.h"
#include "support/tiny_model.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { VOCABULARY = 29, LENGTH = 60, SOURCE = 37 };

static const char *const favor[] = {"is_decoder", "true", "attention.chunk", "7", NULL};
static const char *const relu[] = {"is_decoder", "true", "attention.kind", "relu", NULL};
static const char *const exact[] = {"is_decoder", "true", "attention.kind", "exact", NULL};
static const char *const grouped[] = {
    "is_decoder", "true", "num_attention_heads", "4", "num_key_value_heads", "2", "attention.kind",
    "favor+",     NULL};
static const char *const placeless[] = {"is_decoder", "true", "position_embedding_type", "none", NULL};
static const char *const reversible[] = {"is_decoder", "true", "reversible", "true", NULL};
static const char *const window[] = {
    "is_decoder", "true", "attention.kind", "window", "attention.window", "9", "position_embedding_type",
    "none",       NULL};
static const char *const strided[] = {"is_decoder", "true", "attention.kind", "strided", "attention.stride",
                                      "4",          NULL};
static const char *const longformer[] = {
    "is_decoder", "true", "attention.kind", "longformer", "attention.window", "3", "attention.globals",
    "2",          NULL};
/* Heads of two kinds: a window, and what has a state of fixed size, or keeps every key. */
static const char *const mixed[] = {"is_decoder",
                                    "true",
                                    "num_attention_heads",
                                    "4",
                                    "attention.local_heads",
                                    "1",
                                    "attention.local_window",
                                    "5",
                                    "position_embedding_type",
                                    "none",
                                    NULL};
static const char *const mixed_exact[] = {"is_decoder",
                                          "true",
                                          "attention.kind",
                                          "exact",
                                          "attention.local_heads",
                                          "1",
                                          "attention.local_window",
                                          "5",
                                          "attention.rotary",
                                          "true",
                                          NULL};
/* States of fixed size and no table of positions: streams without an end. */
static const char *const *const endless[] = {placeless, window, mixed};
#define TRANSLATE "is_encoder_decoder", "true"
static const char *const translate_favor[] = {TRANSLATE, "attention.chunk", "7", NULL};
static const char *const translate_relu[] = {TRANSLATE,        "attention.kind", "relu",
                                             "attention.gate", "true",           NULL};
static const char *const translate_exact[] = {TRANSLATE, "attention.kind", "exact", "num_hidden_layers",
                                              "1",       "decoder_layers", "3",     NULL};
static const char *const translate_grouped[] = {TRANSLATE, "num_attention_heads",
                                                "4",       "num_key_value_heads",
                                                "2",       "reversible",
                                                "true",    "attention.kind",
                                                "exact",   NULL};
static const char *const translate_around[] = {
    TRANSLATE, "attention.rotary",        "true", "attention.ppsbn",
    "true",    "position_embedding_type", "none", NULL};
static const char *const translate_sharp[] = {TRANSLATE, "attention.kind", "favor#", "attention.psi", "1",
                                              NULL};
static const char *const translate_cosines[] = {TRANSLATE, "attention.kind", "cosformer", NULL};
static const char *const translate_mixed[] = {
    TRANSLATE, "attention.local_heads", "1", "attention.local_window", "5", NULL};
static const char *const *const models[] = {favor,
                                            relu,
                                            exact,
                                            grouped,
                                            placeless,
                                            reversible,
                                            window,
                                            strided,
                                            longformer,
                                            mixed,
                                            mixed_exact,
                                            translate_favor,
                                            translate_relu,
                                            translate_exact,
                                            translate_grouped,
                                            translate_around,
                                            translate_sharp,
                                            translate_cosines,
                                            translate_mixed};

static bool translates(const fv_model *model)
{
    return model->shape.decoder_layers > 0;
}

/* LENGTH tokens, and SOURCE of a source. */
static void fill(tiny_batch *b)
{
    const int64_t length = LENGTH, source = SOURCE;
    tiny_batch_fill(b, 3, 0, 1, &length);
    tiny_batch_source(b, 3, &source);
}

static fv_stream *new_stream(fv_model *model, const tiny_batch *b, int64_t capacity)
{
    fv_stream *stream;
    OK(fv_stream_create(&stream, model, capacity));
    if (translates(model))
        OK(fv_stream_source(stream, b->source, b->batch.source_tokens));
    return stream;
}

/* One sum in another order: about 8 matrix products of up to 32 terms and an attention sum of up to 60 (in an
 * encoder and a decoder twice as many) stand behind a logit, each off by a few eps of its terms, and layer norms keep
 * the terms near 1. */
static void assert_close(const float *a, const float *b, const char *what)
{
    double largest = 0, error = 0;
    for (int c = 0; c < VOCABULARY; c++) {
        largest = fmax(largest, fabs((double)b[c]));
        error = fmax(error, fabs((double)a[c] - (double)b[c]));
    }
    if (!(error <= 100 * 1.2e-7 * largest))
        fail_msg("%s: error %g of %g", what, error, largest);
}

static void test_stream_is_batch(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    static const int64_t chunks[] = {1, 2, 7, 60};
    for (int i = 0; i < FV_COUNT(models); i++) {
        fv_model *model = tiny_model(ctx, models[i]);
        float whole[LENGTH * VOCABULARY], logits[VOCABULARY];
        tiny_batch b;
        fill(&b);
        OK(fv_model_logits(model, &b.batch, whole));
        for (int k = 0; k < FV_COUNT(chunks); k++) {
            fv_stream *stream = new_stream(model, &b, LENGTH);
            for (int64_t t = 0; t < LENGTH; t += chunks[k]) {
                int64_t n = FV_MIN(chunks[k], LENGTH - t);
                OK(fv_stream_feed(stream, b.inputs + t, n, logits));
                assert_int_equal(fv_stream_tokens(stream), t + n);
                assert_close(logits, whole + (t + n - 1) * VOCABULARY, "chunked");
            }
            fv_stream_destroy(stream);
        }
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* Longer than the chunk a prompt is cut into; a state of fixed size asks for no capacity. */
static void test_long_prompt(void **state)
{
    (void)state;
    enum { LONG = 2500 };
    static int32_t tokens[LONG];
    fv_context *ctx = tiny_context(2);
    for (int t = 0; t < LONG; t++)
        tokens[t] = (t * 7 + t / 13) % 25;
    for (int i = 0; i < FV_COUNT(endless); i++) {
        fv_model *model = tiny_model(ctx, endless[i]);
        fv_stream *at_once, *by_parts;
        float a[VOCABULARY], b[VOCABULARY];
        OK(fv_stream_create(&at_once, model, 0));
        OK(fv_stream_create(&by_parts, model, 0));
        OK(fv_stream_feed(at_once, tokens, LONG, a));
        OK(fv_stream_feed(by_parts, tokens, 1000, b));
        OK(fv_stream_feed(by_parts, tokens + 1000, LONG - 1000, b));
        assert_close(a, b, "long");
        fv_stream_destroy(at_once);
        fv_stream_destroy(by_parts);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

static void test_save_and_continue(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(models); i++) {
        fv_model *model = tiny_model(ctx, models[i]);
        const char *path = scratch_path("stream.safetensors");
        float whole[VOCABULARY], again[VOCABULARY], kept[VOCABULARY];
        fv_stream *other;
        tiny_batch b;
        fill(&b);
        fv_stream *stream = new_stream(model, &b, LENGTH);
        OK(fv_stream_create(&other, model, LENGTH + 5));
        OK(fv_stream_feed(stream, b.inputs, 30, whole));
        OK(fv_stream_save(stream, path));
        OK(fv_stream_load(other, path));
        assert_int_equal(fv_stream_tokens(other), 30);
        OK(fv_stream_feed(other, NULL, 0, kept));
        assert_memory_equal(whole, kept, sizeof kept);
        for (int64_t t = 30; t < 40; t++) {
            OK(fv_stream_feed(stream, b.inputs + t, 1, whole));
            OK(fv_stream_feed(other, b.inputs + t, 1, again));
            assert_memory_equal(whole, again, sizeof whole);
        }
        OK(fv_stream_feed(stream, b.inputs + 40, 20, whole));
        OK(fv_stream_feed(other, b.inputs + 40, 20, again));
        assert_memory_equal(whole, again, sizeof whole);
        fv_stream_destroy(stream);
        fv_stream_destroy(other);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* A file with the right fingerprint and other tensors. */
static void check_wrong_tensors(const char *const *settings, const char *name)
{
    fv_context *ctx = tiny_context(1);
    fv_model *model = tiny_model(ctx, settings);
    const char *path = scratch_path("stream.safetensors");
    const int32_t tokens[] = {1, 2, 3};
    float logits[VOCABULARY];
    fv_tensors *file;
    tiny_batch b;
    fill(&b);
    fv_stream *stream = new_stream(model, &b, 10);
    OK(fv_stream_feed(stream, tokens, 3, logits));
    OK(fv_stream_save(stream, path));
    OK(fv_tensors_open(&file, ctx, path));
    fv_tensor list[16];
    int64_t n = fv_tensors_count(file);
    assert_true(n <= FV_COUNT(list));
    assert_non_null(fv_tensors_find(file, name));
    fv_metadata metadata[128] = {{"format", "favor-stream-2"}, {"model", fv_tensors_metadata(file, "model")}};
    int64_t told = 2;
    assert_true(fv_config_key_count() <= FV_COUNT(metadata) - told);
    for (int i = 0; i < fv_config_key_count(); i++) {
        const char *key = fv_config_key_at(i)->key, *value = fv_tensors_metadata(file, key);
        if (value != NULL)
            metadata[told++] = (fv_metadata){key, value};
    }
    for (int64_t i = 0; i < n; i++)
        list[i] = *fv_tensors_at(file, i);
    for (int64_t i = 0; i < n; i++) {
        fv_tensor whole = list[i];
        list[i].rank = 1, list[i].shape[0] = list[i].count = whole.count - 1;
        if (whole.count > 1) {
            OK(fv_tensors_write(ctx, scratch_path("wrong"), list, n, metadata, told));
            expect_failure(ctx, fv_stream_load(stream, scratch_path("wrong")), FV_ERR_FILE, whole.name, NULL);
        }
        list[i] = whole, list[i].name = "other";
        OK(fv_tensors_write(ctx, scratch_path("wrong"), list, n, metadata, told));
        expect_failure(ctx, fv_stream_load(stream, scratch_path("wrong")), FV_ERR_FILE, whole.name, "missing",
                       NULL);
        list[i] = whole;
    }
    metadata[0].value = "favor-stream-1";
    OK(fv_tensors_write(ctx, scratch_path("wrong"), list, n, metadata, told));
    expect_failure(ctx, fv_stream_load(stream, scratch_path("wrong")), FV_ERR_FILE, "favor-stream-2", NULL);
    fv_tensors_close(file);
    OK(fv_stream_feed(stream, tokens, 3, logits)); /* no failure changed it */
    assert_int_equal(fv_stream_tokens(stream), 6);
    fv_stream_destroy(stream);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void test_wrong_tensors(void **state)
{
    (void)state;
    check_wrong_tensors(favor, "layers.1.exponent");
    check_wrong_tensors(mixed, "layers.1.local.keys");
    check_wrong_tensors(translate_favor, "decoder.layers.1.cross_attention.S");
    check_wrong_tensors(translate_exact, "source_tokens");
}

static void test_wrong_use(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    fv_model *encoder = tiny_model(ctx, NULL), *decoder = tiny_model(ctx, favor),
             *keeper = tiny_model(ctx, exact);
    fv_stream *stream;
    float logits[VOCABULARY];
    int32_t tokens[70] = {0};
    expect_failure(ctx, fv_stream_create(&stream, encoder, 8), FV_ERR_USAGE, "is_decoder", NULL);
    assert_null(stream);
    OK(fv_stream_create(&stream, decoder, 8));
    expect_failure(ctx, fv_stream_feed(stream, tokens, 0, logits), FV_ERR_USAGE, "0 tokens", NULL);
    expect_failure(ctx, fv_stream_feed(stream, tokens, 65, logits), FV_ERR_USAGE, "max_position_embeddings",
                   NULL);
    OK(fv_stream_feed(stream, tokens, 64, logits));
    expect_failure(ctx, fv_stream_feed(stream, tokens, 1, logits), FV_ERR_USAGE, "max_position_embeddings",
                   NULL);
    tokens[1] = VOCABULARY;
    expect_failure(ctx, fv_stream_feed(stream, tokens, 2, logits), FV_ERR_USAGE, NULL);
    fv_stream_destroy(stream);
    OK(fv_stream_create(&stream, keeper, 8));
    expect_failure(ctx, fv_stream_feed(stream, tokens, 2, logits), FV_ERR_USAGE, "token 1", NULL);
    expect_failure(ctx, fv_stream_feed(stream, tokens, 9, logits), FV_ERR_USAGE, "capacity", NULL);
    assert_int_equal(fv_stream_tokens(stream), 0);
    tokens[1] = 0;
    OK(fv_stream_feed(stream, tokens, 7, logits));
    expect_failure(ctx, fv_stream_feed(stream, tokens, 2, logits), FV_ERR_USAGE, "7 of 8", "capacity", NULL);
    OK(fv_stream_feed(stream, tokens, 1, logits));
    fv_stream_destroy(stream);
    fv_model_destroy(encoder);
    fv_model_destroy(decoder);
    fv_model_destroy(keeper);
    fv_context_destroy(ctx);
}

/* Work and memory of a token do not depend on its position, once a window is full. */
static void test_constant_work(void **state)
{
    (void)state;
    enum { FULL = 10 };
    fv_context *ctx = tiny_context(1);
    for (int i = 0; i < FV_COUNT(endless); i++) {
        fv_model *model = tiny_model(ctx, endless[i]);
        fv_kernels base = *ctx->kernels, table;
        fv_stream *stream;
        float logits[VOCABULARY];
        OK(fv_stream_create(&stream, model, 0));
        const int32_t token = 3;
        double first = 0;
        OK(fv_stream_feed(stream, &token, 1, logits));
        size_t bytes = fv_context_bytes(ctx);
        fv_context_reset_peak(ctx);
        counting_table(&table, &base);
        *ctx->kernels = table;
        for (int t = 1; t < 300; t++) {
            counting_reset();
            OK(fv_stream_feed(stream, &token, 1, logits));
            first = t == FULL ? counting_work() : first;
            assert_true(t < FULL || counting_work() == first);
        }
        *ctx->kernels = base;
        assert_int_equal(fv_context_peak_bytes(ctx), bytes);
        fv_stream_destroy(stream);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* Results do not depend on the number of threads in any bit. */
static void test_threads(void **state)
{
    (void)state;
    tiny_batch b;
    fill(&b);
    for (int i = 0; i < FV_COUNT(models); i++) {
        static float logits[2][LENGTH][VOCABULARY]; /* rows inside the prompt stay 0 */
        for (int k = 0; k < 2; k++) {
            fv_context *ctx = tiny_context(1 + 2 * k);
            fv_model *model = tiny_model(ctx, models[i]);
            fv_stream *stream = new_stream(model, &b, LENGTH);
            for (int64_t t = 0, n = 20; t < LENGTH; t += n, n = 1)
                OK(fv_stream_feed(stream, b.inputs + t, n, logits[k][t]));
            fv_stream_destroy(stream);
            fv_model_destroy(model);
            fv_context_destroy(ctx);
        }
        assert_memory_equal(logits[0], logits[1], sizeof logits[0]);
    }
}

typedef struct life {
    const char *kind, *key; /* key: is_decoder, is_encoder_decoder */
} life;

static fv_status whole_life(fv_context *ctx, void *arg)
{
    const life *l = arg;
    const int32_t tokens[] = {1, 2, 3, 4};
    float logits[VOCABULARY];
    fv_config *config = NULL;
    fv_model *model = NULL;
    fv_stream *stream = NULL;
    fv_status status = fv_config_create(&config, ctx);
    if (status == FV_OK)
        status = fv_config_set(config, l->key, "true");
    if (status == FV_OK)
        status = fv_config_set(config, "hidden_size", "16");
    if (status == FV_OK)
        status = fv_config_set(config, "attention.kind", l->kind);
    if (status == FV_OK)
        status = fv_model_create(&model, ctx, config, 1);
    if (status == FV_OK)
        status = fv_stream_create(&stream, model, 8);
    if (status == FV_OK && translates(model))
        status = fv_stream_source(stream, tokens, 3);
    if (status == FV_OK)
        status = fv_stream_feed(stream, tokens, 4, logits);
    if (status == FV_OK)
        status = fv_stream_save(stream, scratch_path("life.safetensors"));
    if (status == FV_OK)
        status = fv_stream_load(stream, scratch_path("life.safetensors"));
    fv_stream_destroy(stream);
    fv_model_destroy(model);
    fv_config_destroy(config);
    return status;
}

static void test_failing_allocations(void **state)
{
    (void)state;
    life lives[] = {{"favor+", "is_decoder"},
                    {"exact", "is_decoder"},
                    {"window", "is_decoder"},
                    {"favor+", "is_encoder_decoder"},
                    {"exact", "is_encoder_decoder"}};
    for (int i = 0; i < FV_COUNT(lives); i++)
        assert_true(fail_every_allocation(whole_life, &lives[i]) > 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stream_is_batch),     cmocka_unit_test(test_long_prompt),
        cmocka_unit_test(test_save_and_continue),   cmocka_unit_test(test_wrong_tensors),
        cmocka_unit_test(test_wrong_use),           cmocka_unit_test(test_constant_work),
        cmocka_unit_test(test_failing_allocations), cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
