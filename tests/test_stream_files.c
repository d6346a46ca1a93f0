/* test_stream_files.c: which model the state of a stream belongs to, and files that are none. What a whole state holds is
 * looked at in test_stream.c. */
#include "model/stream.h"
#include "model/transformer.h"
#include "support/scratch.h"
#include "support/tiny_model.h"
#include <favor/tensors.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { VOCABULARY = 29 };

static void test_wrong_files(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    static const char *const exact[] = {"is_decoder", "true", "attention.kind", "exact", NULL};
    fv_model *model = tiny_model(ctx, exact), *wide;
    char path[256];
    snprintf(path, sizeof path, "%s", scratch_path("stream.safetensors"));
    fv_stream *stream, *small;
    float logits[VOCABULARY], before[VOCABULARY], after[VOCABULARY];
    const int32_t tokens[] = {1, 2, 3, 4, 5};
    static char bytes[1 << 16];
    OK(fv_stream_create(&stream, model, 10));
    OK(fv_stream_feed(stream, tokens, 5, logits));
    OK(fv_stream_save(stream, path));
    OK(fv_stream_create(&small, model, 4));
    OK(fv_stream_feed(small, tokens, 2, before));
    expect_failure(ctx, fv_stream_load(small, path), FV_ERR_USAGE, "5 tokens", "capacity", NULL);
    expect_failure(ctx, fv_stream_load(small, scratch_path("none")), FV_ERR_FILE, "none", NULL);

    FILE *file = fopen(path, "rb");
    size_t count = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    for (size_t cut = 0; cut < count; cut += 97) {
        scratch_write("part.safetensors", bytes, cut);
        expect_failure(ctx, fv_stream_load(stream, scratch_path("part.safetensors")), FV_ERR_FILE, "part",
                       NULL);
    }
    /* A failed load changes nothing. */
    OK(fv_stream_feed(small, NULL, 0, after));
    assert_memory_equal(before, after, sizeof after);
    assert_int_equal(fv_stream_tokens(small), 2);

    /* Another model: one parameter differs in its last bit. */
    fv_model_values(model)[17] = nextafterf(fv_model_values(model)[17], 10.0f);
    expect_failure(ctx, fv_stream_load(stream, path), FV_ERR_FILE, "another model", NULL);
    static const char *const wider[] = {"is_decoder", "true", "hidden_size", "24", NULL};
    fv_stream *strange;
    wide = tiny_model(ctx, wider);
    OK(fv_stream_create(&strange, wide, 10));
    expect_failure(ctx, fv_stream_load(strange, path), FV_ERR_FILE, "another model", NULL);
    fv_stream_destroy(strange);
    fv_stream_destroy(stream);
    fv_stream_destroy(small);
    fv_model_destroy(wide);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* A file has the keys of a token side by side, [rows][G][d], whatever room the stream has. */
static void test_rows_of_keys(void **state)
{
    (void)state;
    enum { TOKENS = 5, HEADS = 2, DIM = 8, ROOM = 11 };
    fv_context *ctx = tiny_context(1);
    static const char *const exact[] = {"is_decoder", "true", "attention.kind", "exact", NULL};
    fv_model *model = tiny_model(ctx, exact);
    const int32_t tokens[TOKENS] = {1, 2, 3, 4, 5};
    float logits[VOCABULARY];
    fv_stream *stream;
    fv_tensors *file;
    OK(fv_stream_create(&stream, model, ROOM));
    OK(fv_stream_feed(stream, tokens, TOKENS, logits));
    OK(fv_stream_save(stream, scratch_path("rows.safetensors")));
    OK(fv_tensors_open(&file, ctx, scratch_path("rows.safetensors")));
    const fv_tensor *keys = fv_tensors_find(file, "layers.1.keys");
    assert_non_null(keys);
    assert_int_equal(keys->rank, 3);
    assert_memory_equal(keys->shape, ((int64_t[]){TOKENS, HEADS, DIM}), 3 * sizeof(int64_t));
    fv_stream_place place =
        fv_stream_place_at(stream, 2); /* two kinds a layer, the second of which is not there */
    assert_true(place.layer == 1 && place.part == 0);
    fv_state_view view;
    OK(fv_attention_state_view(place.op->op, place.state, &view));
    for (int64_t t = 0; t < TOKENS; t++)
        for (int64_t g = 0; g < HEADS; g++)
            assert_memory_equal((const float *)keys->data + (t * HEADS + g) * DIM,
                                view.keys + (g * ROOM + t) * DIM, DIM * sizeof(float));
    fv_tensors_close(file);
    fv_stream_destroy(stream);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* Every parameter and projection counts, in every block of the hash. */
static void test_fingerprint(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    static const char *const wide[] = {"hidden_size", "64", "intermediate_size", "512", NULL};
    fv_model *model = tiny_model(ctx, wide);
    int64_t n = fv_model_parameters(model);
    float *values = fv_model_values(model);
    uint64_t before = fv_model_fingerprint(model);
    assert_true(n > 2 << 16);
    for (int64_t i = 0; i < n; i += n / 5 - 1) {
        float old = values[i];
        values[i] = nextafterf(old, 10.0f);
        assert_true(fv_model_fingerprint(model) != before);
        values[i] = old;
    }
    assert_true(fv_model_fingerprint(model) == before);
    OK(fv_model_redraw(model, 1));
    assert_true(fv_model_fingerprint(model) != before);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* The same numbers under another setting are another model: the message names the setting and both values. */
static const struct {
    const char
        *const settings[11]; /* of the state, the last pair of them changed in the model that loads it */
    const char *other;
    bool same; /* the setting does not matter */
} changed[] = {
    {{"attention.kind", "window", "attention.window", "9"}, "12", false},
    {{"attention.kind", "longformer", "attention.window", "3", "attention.globals", "2"}, "1", false},
    {{"attention.kind", "longformer", "attention.globals", "2", "attention.window", "3"}, "4", false},
    {{"attention.kind", "strided", "attention.stride", "4"}, "5", false},
    {{"attention.kind", "fixed", "attention.globals", "1", "attention.block", "8"}, "4", false},
    {{"attention.kind", "bigbird", "attention.random_blocks", "1"}, "2", false},
    {{"attention.kind", "bigbird", "attention.projection_seed", "1"}, "2", false},
    {{"attention.kind", "relu", "attention.epsilon", "0.001"}, "0.002", false},
    {{"attention.kind", "exact", "attention.rotary", "false"}, "true", false},
    {{"attention.local_heads", "1", "attention.local_window", "5"}, "6", false},
    {{"attention.kind", "exact", "hidden_act", "gelu"}, "relu", false},
    {{"attention.kind", "relu", "attention.chunk", "4"}, "8", true},
    {{"attention.kind", "relu", "hidden_dropout_prob", "0.1"}, "0", true},
    {{"attention.kind", "window", "position_embedding_type", "none", "max_position_embeddings", "64"},
     "9",
     true},
};

static fv_model *model_of(fv_context *ctx, int row, bool as_saved)
{
    const char *settings[16] = {"is_decoder", "true"};
    int n = 2;
    for (int i = 0; changed[row].settings[i] != NULL; i++)
        settings[n++] = changed[row].settings[i];
    settings[n - 1] = as_saved ? settings[n - 1] : changed[row].other;
    return tiny_model(ctx, settings);
}

static void test_settings(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    const int32_t tokens[] = {1, 2, 3, 4, 5};
    float logits[VOCABULARY], again[VOCABULARY];
    for (int i = 0; i < FV_COUNT(changed); i++) {
        fv_model *saved = model_of(ctx, i, true), *loads = model_of(ctx, i, false);
        const char *path = scratch_path("state");
        fv_stream *stream, *other, *fresh;
        assert_true(fv_model_fingerprint(saved) == fv_model_fingerprint(loads));
        OK(fv_stream_create(&stream, saved, 10));
        OK(fv_stream_feed(stream, tokens, 5, logits));
        OK(fv_stream_save(stream, path));
        OK(fv_stream_create(&fresh, saved, 10));
        OK(fv_stream_load(fresh, path));
        OK(fv_stream_create(&other, loads, 10));
        if (changed[i].same) {
            OK(fv_stream_load(other, path));
            OK(fv_stream_feed(other, NULL, 0, again));
            assert_memory_equal(logits, again, sizeof again);
        } else {
            int n = 0;
            while (changed[i].settings[n + 2] != NULL)
                n += 2;
            expect_failure(ctx, fv_stream_load(other, path), FV_ERR_FILE, "another model",
                           changed[i].settings[n], changed[i].settings[n + 1], changed[i].other, NULL);
            assert_int_equal(fv_stream_tokens(other), 0);
        }
        fv_stream_destroy(stream), fv_stream_destroy(other), fv_stream_destroy(fresh);
        fv_model_destroy(saved), fv_model_destroy(loads);
    }
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_files),
        cmocka_unit_test(test_rows_of_keys),
        cmocka_unit_test(test_fingerprint),
        cmocka_unit_test(test_settings),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
