/* test_streams.c: one token each of several streams in one pass: the bits that each gives alone, wherever it stands, with
 * whatever others; what it reads; and what cannot be fed. */
#include "model/stream.h"
#include "support/scratch.h"
#include "support/tiny_model.h"
#include <math.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { VOCABULARY = 29, LENGTH = 30, STREAMS = 5, STEPS = 6 };

#define CAUSAL    "is_decoder", "true"
#define TRANSLATE "is_encoder_decoder", "true"
#define KIND      "attention.kind"
static const char *const models[][12] = {
    {CAUSAL},
    {CAUSAL, KIND, "relu", "attention.gate", "true"},
    {CAUSAL, KIND, "exact", "num_attention_heads", "4", "num_key_value_heads", "2"},
    {CAUSAL, KIND, "favor+", "attention.rotary", "true", "attention.ppsbn", "true"},
    {CAUSAL, KIND, "cosformer"},
    {CAUSAL, KIND, "identity"},
    {CAUSAL, KIND, "longformer", "attention.window", "3", "attention.globals", "2"},
    {CAUSAL, KIND, "exact", "attention.local_heads", "1", "attention.local_window", "5", "attention.rotary",
     "true"},
    {TRANSLATE},
    {TRANSLATE, KIND, "exact", "attention.rotary", "true"},
    {TRANSLATE, KIND, "cosformer"},
    {TRANSLATE, KIND, "relu", "attention.gate", "true", "attention.local_heads", "1",
     "attention.local_window", "5"},
};

/* Streams of one model behind prompts (and sources) of different lengths. */
typedef struct party {
    fv_stream *streams[STREAMS];
    float logits[STREAMS][VOCABULARY];
} party;

static void gather(party *p, fv_model *model)
{
    const int64_t length = LENGTH;
    tiny_batch b;
    tiny_batch_fill(&b, 3, 0, 1, &length);
    tiny_batch_source(&b, 3, &length);
    for (int s = 0; s < STREAMS; s++) {
        OK(fv_stream_create(&p->streams[s], model, LENGTH));
        if (model->shape.decoder_layers > 0)
            OK(fv_stream_source(p->streams[s], b.source, 3 + 4 * s));
        if (s > 0) /* the first begins with the step */
            OK(fv_stream_feed(p->streams[s], b.inputs, 5 * s, p->logits[s]));
    }
}

static void part_with(party *p)
{
    for (int s = 0; s < STREAMS; s++)
        fv_stream_destroy(p->streams[s]);
}

static int32_t token_of(int stream, int step)
{
    return (stream * 7 + step * 3) % 20;
}

static void alone(party *p, int stream, int step)
{
    int32_t token = token_of(stream, step);
    OK(fv_stream_feed(p->streams[stream], &token, 1, p->logits[stream]));
}

/* Those whose bit is in the mask, the last one first. */
static void together(party *p, unsigned mask, int step)
{
    fv_stream *streams[STREAMS];
    int32_t tokens[STREAMS];
    float logits[STREAMS * VOCABULARY];
    int64_t count = 0;
    for (int s = STREAMS - 1; s >= 0; s--)
        if (mask >> s & 1) {
            streams[count] = p->streams[s];
            tokens[count++] = token_of(s, step);
        }
    OK(fv_streams_step(streams, count, tokens, logits));
    count = 0;
    for (int s = STREAMS - 1; s >= 0; s--)
        if (mask >> s & 1)
            memcpy(p->logits[s], logits + count++ * VOCABULARY, sizeof p->logits[s]);
}

static const unsigned masks[STEPS] = {31, 21, 2, 10, 0, 31};

static void check_model(const char *const *settings, int threads, const char *dtype)
{
    fv_context *one = tiny_context(1), *many = tiny_context(threads);
    OK(fv_context_set_dtype(one, dtype));
    OK(fv_context_set_dtype(many, dtype));
    fv_model *a = tiny_model(one, settings), *b = tiny_model(many, settings);
    party apart, joined;
    gather(&apart, a);
    gather(&joined, b);
    for (int step = 0; step < STEPS; step++) {
        together(&joined, masks[step], step);
        for (int s = 0; s < STREAMS; s++) {
            if ((masks[step] >> s & 1) == 0)
                continue;
            alone(&apart, s, step);
            assert_memory_equal(apart.logits[s], joined.logits[s], sizeof apart.logits[s]);
            assert_int_equal(fv_stream_tokens(apart.streams[s]), fv_stream_tokens(joined.streams[s]));
        }
    }
    float kept[VOCABULARY]; /* what a stream says of its last token later */
    OK(fv_stream_feed(joined.streams[3], NULL, 0, kept));
    assert_memory_equal(kept, apart.logits[3], sizeof kept);
    part_with(&apart);
    part_with(&joined);
    fv_model_destroy(a);
    fv_model_destroy(b);
    assert_int_equal(fv_context_bytes(one), 0);
    assert_int_equal(fv_context_bytes(many), 0);
    fv_context_destroy(one);
    fv_context_destroy(many);
}

static void test_bits_are_those_of_one(void **state)
{
    (void)state;
    for (int i = 0; i < FV_COUNT(models); i++)
        for (int threads = 1; threads <= 3; threads += 2) {
            check_model(models[i], threads, "f32");
            check_model(models[i], threads, "bf16");
        }
}

/* In bf16 a step takes the weights rounded to it, half an eps = 2^-9 of each, so that its logits differ from those of floats as far
 * as the weights' rounding goes: through about 8 products behind one another, and not at all without it. */
static void test_bf16_weights(void **state)
{
    (void)state;
    static const char *const settings[] = {CAUSAL, KIND, "exact", NULL};
    fv_context *ctx = tiny_context(1);
    fv_model *model = tiny_model(ctx, settings);
    fv_stream *plain, *half, *second;
    float want[VOCABULARY], got[VOCABULARY], same[VOCABULARY];
    OK(fv_stream_create(&plain, model, LENGTH));
    OK(fv_context_set_dtype(ctx, "bf16"));
    OK(fv_stream_create(&half, model, LENGTH));
    OK(fv_stream_create(&second, model, LENGTH));
    assert_non_null(model->half);
    for (int32_t t = 0; t < VOCABULARY; t++) {
        double largest = 0, error = 0;
        OK(fv_context_set_dtype(ctx, "f32"));
        OK(fv_stream_feed(plain, &t, 1, want));
        OK(fv_context_set_dtype(ctx, "bf16"));
        OK(fv_stream_feed(half, &t, 1, got));
        for (int c = 0; c < VOCABULARY; c++) {
            largest = fmax(largest, fabs((double)want[c]));
            error = fmax(error, fabs((double)want[c] - (double)got[c]));
        }
        assert_true(error > 0 && error <= 8 * 0x1p-9 * largest);
    }
    fv_stream_destroy(half);
    assert_non_null(model->half);
    fv_stream_destroy(second);
    assert_null(model->half);
    OK(fv_context_set_dtype(ctx, "f32"));
    /* Weights that are bf16 give the bits of floats. */
    for (int64_t i = 0; i < model->float_count; i++) {
        uint32_t bits;
        memcpy(&bits, &model->values[i], sizeof bits);
        bits &= 0xffff0000u;
        memcpy(&model->values[i], &bits, sizeof bits);
    }
    fv_stream_destroy(plain);
    OK(fv_stream_create(&plain, model, LENGTH));
    const int32_t token = 5;
    OK(fv_stream_feed(plain, &token, 1, want));
    OK(fv_context_set_dtype(ctx, "bf16"));
    OK(fv_stream_create(&half, model, LENGTH));
    OK(fv_stream_feed(half, &token, 1, same));
    assert_memory_equal(want, same, sizeof want);
    fv_stream_destroy(half);
    fv_stream_destroy(plain);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void test_wrong_streams(void **state)
{
    (void)state;
    static const char *const settings[] = {CAUSAL, KIND, "exact", NULL};
    fv_context *ctx = tiny_context(1);
    fv_model *model = tiny_model(ctx, settings), *other = tiny_model(ctx, settings);
    fv_stream *s[4];
    int32_t tokens[4] = {1, 2, 3, 4};
    float logits[4 * VOCABULARY], before[VOCABULARY], after[VOCABULARY];
    for (int i = 0; i < 4; i++)
        OK(fv_stream_create(&s[i], i == 3 ? other : model, i == 2 ? 1 : 9));
    OK(fv_streams_step(s, 3, tokens, logits));
    memcpy(before, logits, sizeof before);
    expect_failure(ctx, fv_streams_step(s, 3, tokens, logits), FV_ERR_USAGE, "1 of 1 tokens", "capacity",
                   NULL);
    expect_failure(ctx, fv_streams_step(s, 4, tokens, logits), FV_ERR_USAGE, "1 of 1 tokens", NULL);
    fv_stream *full = s[2];
    s[2] = s[3];
    expect_failure(ctx, fv_streams_step(s, 3, tokens, logits), FV_ERR_USAGE, "stream 2", "another model",
                   NULL);
    s[2] = s[0];
    expect_failure(ctx, fv_streams_step(s, 3, tokens, logits), FV_ERR_USAGE, "streams 0 and 2 are the same",
                   NULL);
    tokens[1] = VOCABULARY;
    expect_failure(ctx, fv_streams_step(s, 2, tokens, logits), FV_ERR_USAGE, "vocabulary", NULL);
    OK(fv_streams_step(s, 0, tokens, logits));
    assert_int_equal(fv_stream_tokens(s[0]), 1);
    OK(fv_stream_feed(s[0], NULL, 0, after));
    assert_memory_equal(before, after, sizeof after);
    fv_stream_destroy(s[0]);
    fv_stream_destroy(s[1]);
    fv_stream_destroy(s[3]);
    fv_stream_destroy(full);
    fv_model_destroy(model);
    fv_model_destroy(other);
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bits_are_those_of_one),
        cmocka_unit_test(test_bf16_weights),
        cmocka_unit_test(test_wrong_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
