/* test_stream_cost.c: what fv_stream_measure tells beforehand is what a stream holds and what a token reads. */
#include "model/stream.h"
#include "support/scratch.h"
#include "support/tiny_model.h"
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { LAYERS = 2, WIDTH = 16, HEADS = 2, FEATURES = 16, TOKENS = 40 };

#define CAUSAL "is_decoder", "true"
static const char *const favor[] = {CAUSAL, NULL};
static const char *const relu[] = {CAUSAL, "attention.kind", "relu", NULL};
static const char *const exact[] = {CAUSAL, "attention.kind", "exact", NULL};
static const char *const window[] = {CAUSAL, "attention.kind", "window", "attention.window", "9", NULL};
static const char *const tied[] = {CAUSAL, "tie_word_embeddings", "true", NULL};
static const char *const placeless[] = {CAUSAL, "position_embedding_type", "none", NULL};
static const char *const sinusoidal[] = {CAUSAL, "position_embedding_type", "sinusoidal", NULL};

static const struct {
    const char *const *settings;
    int64_t rows;  /* of tables that a token looks up */
    int64_t drawn; /* floats of the projections of a head */
    bool grows;    /* keeps every key */
} cases[] = {
    {favor, 2, FEATURES *WIDTH / HEADS, false},
    {relu, 2, 0, false},
    {exact, 2, 0, true},
    {window, 2, 0, false},
    {tied, 1, FEATURES *WIDTH / HEADS, false},
    {placeless, 1, FEATURES *WIDTH / HEADS, false},
    {sinusoidal, 2, FEATURES *WIDTH / HEADS, false},
};

/* Parameters that are multiplied or added, tensor by tensor: all but tables that are only looked up. */
static int64_t dense_floats(const fv_model *model, bool is_tied)
{
    int64_t floats = 0;
    for (int i = 0; i < fv_model_parameter_count(model); i++) {
        const fv_parameter *p = fv_model_parameter_at(model, i);
        bool table = strncmp(p->name, "embeddings.", 11) == 0;
        bool output = is_tied && strcmp(p->name, "embeddings.token.weight") == 0;
        floats += table && !output ? 0 : p->count;
    }
    return floats;
}

static void test_weights(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        fv_model *model = tiny_model(ctx, cases[i].settings);
        fv_stream_cost cost;
        OK(fv_stream_measure(model, TOKENS, &cost));
        int64_t floats = dense_floats(model, cases[i].settings == tied) + cases[i].rows * WIDTH +
                         LAYERS * HEADS * cases[i].drawn;
        assert_int_equal(cost.weights, floats * (int64_t)sizeof(float));
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

static void test_state(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    for (int i = 0; i < FV_COUNT(cases); i++) {
        fv_model *model = tiny_model(ctx, cases[i].settings);
        fv_stream_cost once, twice;
        fv_stream *stream;
        OK(fv_stream_measure(model, TOKENS, &once));
        OK(fv_stream_measure(model, 2 * TOKENS, &twice));
        OK(fv_stream_create(&stream, model, TOKENS));
        assert_int_equal(once.state, LAYERS * (stream->state_bytes[0] + stream->state_bytes[1]));
        size_t more = cases[i].grows ? (size_t)LAYERS * TOKENS * 2 * WIDTH * sizeof(float) : 0;
        assert_int_equal(twice.state, once.state + more);
        fv_stream_destroy(stream);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* A decoder's layer, matrix by matrix, beside an encoder of another depth that tokens do not read; with a source of as many
 * tokens, the state of a stream that has both. */
static void test_translation(void **state)
{
    (void)state;
    enum { DECODER = 3, INNER = 32, VOCABULARY = 29 };
    static const char *const kinds[] = {"favor+", "relu", "exact"};
    static const int32_t source[2 * TOKENS] = {0};
    fv_context *ctx = tiny_context(1);
    for (int i = 0; i < FV_COUNT(kinds); i++) {
        const char *const settings[] = {"is_encoder_decoder",
                                        "true",
                                        "decoder_layers",
                                        "3",
                                        "max_position_embeddings",
                                        "90",
                                        "attention.kind",
                                        kinds[i],
                                        NULL};
        fv_model *model = tiny_model(ctx, settings);
        fv_stream_cost cost;
        fv_stream *stream;
        int64_t drawn =
            i == 0 ? HEADS * FEATURES * WIDTH / HEADS : 0; /* of one attention, of which there are two */
        int64_t norms = 3 * 2 * WIDTH, matrices = (4 + 2) * WIDTH * WIDTH; /* q k v o; q o across */
        int64_t layer = norms + matrices + 2 * WIDTH * INNER + INNER + WIDTH + 2 * drawn;
        int64_t rest =
            2 * WIDTH + VOCABULARY * WIDTH + VOCABULARY + 2 * WIDTH; /* norm, head, rows of tables */
        for (int64_t tokens = TOKENS; tokens <= 2 * TOKENS; tokens += TOKENS) {
            OK(fv_stream_measure(model, tokens, &cost));
            assert_int_equal(cost.weights, (DECODER * layer + rest) * (int64_t)sizeof(float));
            OK(fv_stream_create(&stream, model, tokens));
            OK(fv_stream_source(stream, source, tokens));
            assert_int_equal(cost.state, DECODER * (stream->state_bytes[0] + stream->state_bytes[1] +
                                                    stream->memories.bytes));
            fv_stream_destroy(stream);
        }
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

static void test_without_streams(void **state)
{
    (void)state;
    static const char *const without[][5] = {
        {"is_decoder", "false", NULL},
        {"attention.kind", "reformer", NULL},
        {"attention.kind", "window", "is_encoder_decoder", "true", NULL},
        {"attention.kind", "reformer", "is_encoder_decoder", "true", NULL}};
    fv_context *ctx = tiny_context(1);
    for (int i = 0; i < FV_COUNT(without); i++) {
        fv_model *model = tiny_model(ctx, without[i]);
        fv_stream_cost cost;
        assert_int_equal(fv_stream_measure(model, TOKENS, &cost), FV_ERR_USAGE);
        assert_int_equal(cost.state + cost.weights, 0);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_translation),
        cmocka_unit_test(test_without_streams),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
