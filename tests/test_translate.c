/* test_translate.c: the source of a stream that translates: read once, one after the other, and what cannot be. What the
 * tokens fed after it give: test_stream.c. */
#include "model/transformer.h"
#include "support/counting.h"
#include "support/scratch.h"
#include "support/tiny_model.h"

#define OK(expr)  assert_int_equal((expr), FV_OK)
#define TRANSLATE "is_encoder_decoder", "true"

enum { VOCABULARY = 29, SOURCE = 37 };

static const char *const favor[] = {TRANSLATE, NULL};
static const char *const exact[] = {TRANSLATE, "attention.kind", "exact", NULL};

/* A source is read once: what a token costs does not depend on its length, and a stream takes one after the other. */
static void test_sources(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    fv_model *model = tiny_model(ctx, favor);
    fv_kernels base = *ctx->kernels, table;
    static const int64_t counts[] = {5, SOURCE, 1, SOURCE};
    float logits[FV_COUNT(counts)][VOCABULARY], longer[VOCABULARY];
    double work[FV_COUNT(counts)], reading[FV_COUNT(counts)];
    const int64_t length = 9, source = SOURCE;
    tiny_batch b;
    fv_stream *stream;
    tiny_batch_fill(&b, 3, 0, 1, &length);
    tiny_batch_source(&b, 3, &source);
    OK(fv_stream_create(&stream, model, 0));
    OK(fv_stream_source(stream, b.source, 20));
    OK(fv_stream_feed(stream, b.inputs, length, longer));
    counting_table(&table, &base);
    *ctx->kernels = table;
    for (int i = 0; i < FV_COUNT(counts); i++) {
        counting_reset();
        OK(fv_stream_source(stream, b.source, counts[i]));
        reading[i] = counting_work();
        assert_int_equal(fv_stream_tokens(stream), 0);
        counting_reset();
        OK(fv_stream_feed(stream, b.inputs, 1, logits[i]));
        work[i] = counting_work();
    }
    *ctx->kernels = base;
    for (int i = 1; i < FV_COUNT(counts); i++)
        assert_true(work[i] == work[0]);
    assert_true(reading[1] > reading[0] && reading[0] > reading[2] && work[0] < reading[1]);
    assert_memory_equal(logits[1], logits[3], sizeof logits[1]);
    assert_memory_not_equal(logits[1], logits[0], sizeof logits[1]);
    fv_stream_destroy(stream);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void test_wrong_sources(void **state)
{
    (void)state;
    static const char *const causal[] = {"is_decoder", "true", NULL};
    static const char *const hashed[] = {TRANSLATE, "attention.kind", "reformer", NULL};
    static const char *const windowed[] = {TRANSLATE, "attention.kind", "window", NULL};
    static const char *const biased[] = {TRANSLATE, "attention.position_bias", "fastrpb", NULL};
    fv_context *ctx = tiny_context(1);
    fv_model *decoder = tiny_model(ctx, causal), *model = tiny_model(ctx, exact);
    fv_model *reformer = tiny_model(ctx, hashed), *window = tiny_model(ctx, windowed),
             *bias = tiny_model(ctx, biased);
    fv_stream *stream;
    float logits[VOCABULARY], after[VOCABULARY];
    int32_t tokens[70] = {0};
    OK(fv_stream_create(&stream, decoder, 8));
    expect_failure(ctx, fv_stream_source(stream, tokens, 3), FV_ERR_USAGE, "no encoder", NULL);
    fv_stream_destroy(stream);
    expect_failure(ctx, fv_stream_create(&stream, reformer, 8), FV_ERR_USAGE, "reformer", "stream", NULL);
    expect_failure(ctx, fv_stream_create(&stream, window, 8), FV_ERR_USAGE, "window", "not causal", NULL);
    expect_failure(ctx, fv_stream_create(&stream, bias, 8), FV_ERR_USAGE, "position bias", NULL);
    assert_null(stream);
    OK(fv_stream_create(&stream, model, 8));
    expect_failure(ctx, fv_stream_feed(stream, tokens, 2, logits), FV_ERR_USAGE, "no source", NULL);
    expect_failure(ctx, fv_stream_save(stream, scratch_path("none")), FV_ERR_USAGE, "no source", NULL);
    OK(fv_stream_source(stream, tokens, 64));
    OK(fv_stream_feed(stream, tokens, 2, logits));
    expect_failure(ctx, fv_stream_source(stream, tokens, 0), FV_ERR_USAGE, "0 tokens", NULL);
    expect_failure(ctx, fv_stream_source(stream, tokens, 65), FV_ERR_USAGE, "source",
                   "max_position_embeddings", NULL);
    tokens[4] = -1;
    expect_failure(ctx, fv_stream_source(stream, tokens, 9), FV_ERR_USAGE, "token 4 of the source", NULL);
    OK(fv_stream_feed(stream, NULL, 0, after));
    assert_memory_equal(logits, after, sizeof after);
    assert_int_equal(fv_stream_tokens(stream), 2);
    expect_failure(ctx, fv_stream_feed(stream, tokens, 7, logits), FV_ERR_USAGE, "2 of 8", "exact", NULL);
    fv_stream_destroy(stream);
    fv_model *const all[] = {decoder, model, reformer, window, bias};
    for (int i = 0; i < FV_COUNT(all); i++)
        fv_model_destroy(all[i]);
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_sources), cmocka_unit_test(test_wrong_sources)};
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
