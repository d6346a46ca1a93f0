/* test_model_files.c: a model on disk: there and back, and everything that can be wrong with its files. */
#include "support/scratch.h"
#include "support/tiny_model.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { VOCABULARY = 29 };

static const char *const decoder[] = {"is_decoder", "true", NULL};
static const char *const tied[] = {
    "tie_word_embeddings", "true", "attention.kind", "exact", "position_embedding_type", "sinusoidal", NULL};

/* A directory in the scratch one; valid until the next call. */
static const char *make_run(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s", scratch_path(name));
    assert_true(mkdir(path, 0700) == 0 || access(path, W_OK) == 0);
    return path;
}

static char *read_bytes(const char *path, size_t *count)
{
    FILE *file = fopen(path, "rb");
    char *bytes = malloc(1 << 20);
    assert_non_null(file);
    *count = fread(bytes, 1, 1 << 20, file);
    fclose(file);
    return bytes;
}

static void assert_same_logits(fv_model *a, fv_model *b)
{
    const int64_t length = 20;
    float x[20 * VOCABULARY], y[20 * VOCABULARY];
    tiny_batch batch;
    tiny_batch_fill(&batch, 1, 0, 1, &length);
    OK(fv_model_logits(a, &batch.batch, x));
    OK(fv_model_logits(b, &batch.batch, y));
    assert_memory_equal(x, y, sizeof x);
}

static void test_round_trip(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(2);
    static const char *const *const models[] = {decoder, tied};
    for (int i = 0; i < 2; i++) {
        const char *run = make_run("round");
        fv_model *model = tiny_model(ctx, models[i]), *loaded;
        OK(fv_model_redraw(model, 5));
        OK(fv_model_save(model, run));
        OK(fv_model_load(&loaded, ctx, run, 0));
        assert_int_equal(fv_model_draw(loaded), 5);
        assert_int_equal(fv_model_parameters(loaded), fv_model_parameters(model));
        assert_memory_equal(fv_model_values(loaded), fv_model_values(model),
                            (size_t)fv_model_parameters(model) * sizeof(float));
        assert_string_equal(fv_model_tokenizer(loaded)->name, "protein");
        assert_same_logits(model, loaded);
        fv_model_destroy(loaded);
        expect_failure(ctx, fv_model_load(&loaded, ctx, run, 1), FV_ERR_FILE, "best", NULL);
        assert_null(loaded);
        fv_model_destroy(model);
    }
    fv_context_destroy(ctx);
}

/* The names and shapes others read; the training length becomes part of the config. */
static void test_names(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    static const char *const settings[] = {"is_decoder",
                                           "true",
                                           "num_hidden_layers",
                                           "1",
                                           "num_attention_heads",
                                           "4",
                                           "num_key_value_heads",
                                           "2",
                                           "length",
                                           "33",
                                           "max_position_embeddings",
                                           "0",
                                           "attention.kind",
                                           "favor+",
                                           NULL};
    static const struct {
        const char *name;
        int64_t rows, cols;
        bool decay;
    } expected[] = {
        {"embeddings.token.weight", 29, 16, true},
        {"embeddings.position.weight", 33, 16, true},
        {"layers.0.attention.norm.weight", 16, 0, false},
        {"layers.0.attention.norm.bias", 16, 0, false},
        {"layers.0.attention.query.weight", 16, 16, true},
        {"layers.0.attention.key.weight", 8, 16, true},
        {"layers.0.attention.value.weight", 8, 16, true},
        {"layers.0.attention.output.weight", 16, 16, true},
        {"layers.0.mlp.norm.weight", 16, 0, false},
        {"layers.0.mlp.norm.bias", 16, 0, false},
        {"layers.0.mlp.up.weight", 32, 16, true},
        {"layers.0.mlp.up.bias", 32, 0, false},
        {"layers.0.mlp.down.weight", 16, 32, true},
        {"layers.0.mlp.down.bias", 16, 0, false},
        {"norm.weight", 16, 0, false},
        {"norm.bias", 16, 0, false},
        {"head.weight", 29, 16, true},
        {"head.bias", 29, 0, false},
    };
    fv_model *model = tiny_model(ctx, settings);
    int64_t offset = 0;
    assert_int_equal(fv_model_parameter_count(model), FV_COUNT(expected));
    for (int i = 0; i < FV_COUNT(expected); i++) {
        const fv_parameter *p = fv_model_parameter_at(model, i);
        assert_string_equal(p->name, expected[i].name);
        assert_int_equal(p->rank, expected[i].cols > 0 ? 2 : 1);
        assert_int_equal(p->shape[0], expected[i].rows);
        assert_int_equal(p->shape[1], expected[i].cols > 0 ? expected[i].cols : 1);
        assert_int_equal(p->decay, expected[i].decay);
        assert_int_equal(p->offset, offset);
        offset += p->count;
    }
    assert_int_equal(fv_model_parameters(model), offset);
    assert_int_equal(fv_config_int(fv_model_config(model), "max_position_embeddings"), 33);
    assert_int_equal(fv_config_int(fv_model_config(model), "vocab_size"), 29);
    assert_null(fv_model_parameter_at(model, FV_COUNT(expected)));
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void test_cut_short(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    const char *run = make_run("cut");
    fv_model *model = tiny_model(ctx, decoder), *loaded;
    OK(fv_model_save(model, run));
    size_t count;
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", run);
    char *bytes = read_bytes(path, &count);
    for (size_t cut = 0; cut < count; cut += cut < 2000 ? 101 : 4001) {
        scratch_write("cut/model.safetensors", bytes, cut);
        expect_failure(ctx, fv_model_load(&loaded, ctx, run, 0), FV_ERR_FILE, "model.safetensors", NULL);
        assert_null(loaded);
    }
    free(bytes);
    unlink(path);
    expect_failure(ctx, fv_model_load(&loaded, ctx, run, 0), FV_ERR_FILE, "model.safetensors", NULL);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void test_wrong_config(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    const char *run = make_run("config");
    fv_model *model = tiny_model(ctx, decoder), *loaded;
    OK(fv_model_save(model, run));
    static const char *const texts[][2] = {
        {"", "config.json"},
        {"{", "config.json"},
        {"[]", "config.json"},
        {"{\"hidden_sizes\": 3}", "hidden_sizes"},
        {"{\"hidden_size\": \"much\"}", "hidden_size"},
        {"{\"hidden_size\": -4}", "hidden_size"},
        {"{\"hidden_size\": 16, \"num_attention_heads\": 5}", "num_attention_heads"},
        {"{\"attention\": {\"kind\": \"magic\"}}", "magic"},
        {"{\"attention\": {\"denominator\": \"add:\"}}", "attention.denominator"},
        {"{\"vocab_size\": 3}", "vocab_size"},
        /* Good in itself, of another model. */
        {"{\"hidden_size\": 16, \"num_attention_heads\": 2, \"num_hidden_layers\": 1}", "shape"},
    };
    for (int i = 0; i < FV_COUNT(texts); i++) {
        scratch_text("config/config.json", texts[i][0]);
        expect_failure(ctx, fv_model_load(&loaded, ctx, run, 0), FV_ERR_FILE, texts[i][1], NULL);
        assert_null(loaded);
    }
    expect_failure(ctx, fv_model_load(&loaded, ctx, scratch_path("nowhere"), 0), FV_ERR_FILE, "nowhere",
                   NULL);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

/* The file again with tensor i missing, misshapen, or with one too many. */
static void test_wrong_tensors(void **state)
{
    (void)state;
    fv_context *ctx = tiny_context(1);
    const char *run = make_run("tensors");
    fv_model *model = tiny_model(ctx, decoder), *loaded;
    OK(fv_model_save(model, run));
    char path[600];
    snprintf(path, sizeof path, "%s/model.safetensors", run);
    fv_tensors *file;
    OK(fv_tensors_open(&file, ctx, path));
    int64_t n = fv_tensors_count(file);
    fv_tensor list[64];
    fv_metadata draw = {"draw", "0"};
    for (int64_t i = 0; i < n; i++)
        list[i] = *fv_tensors_at(file, i);
    for (int64_t i = 0; i < n; i++) {
        fv_tensor whole = list[i];
        list[i].name = "misnamed";
        OK(fv_tensors_write(ctx, path, list, n, &draw, 1));
        expect_failure(ctx, fv_model_load(&loaded, ctx, run, 0), FV_ERR_FILE, whole.name, "missing", NULL);
        list[i] = whole;
        list[i].shape[whole.rank - 1]--;
        list[i].count = whole.count / whole.shape[whole.rank - 1] * list[i].shape[whole.rank - 1];
        OK(fv_tensors_write(ctx, path, list, n, &draw, 1));
        expect_failure(ctx, fv_model_load(&loaded, ctx, run, 0), FV_ERR_FILE, whole.name, "shape", NULL);
        list[i] = whole;
    }
    list[n] = (fv_tensor){.name = "extra", .rank = 1, .shape = {1}, .count = 1, .data = list[0].data};
    OK(fv_tensors_write(ctx, path, list, n + 1, &draw, 1));
    expect_failure(ctx, fv_model_load(&loaded, ctx, run, 0), FV_ERR_FILE, "tensors", NULL);
    draw.value = "many";
    OK(fv_tensors_write(ctx, path, list, n, &draw, 1));
    expect_failure(ctx, fv_model_load(&loaded, ctx, run, 0), FV_ERR_FILE, "draw", NULL);
    draw.value = "0";
    OK(fv_tensors_write(ctx, path, list, n, &draw, 1));
    OK(fv_model_load(&loaded, ctx, run, 0));
    fv_model_destroy(loaded);
    fv_tensors_close(file);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static fv_status save_and_load(fv_context *ctx, void *arg)
{
    const char *run = arg;
    fv_config *config = NULL;
    fv_model *model = NULL, *loaded = NULL;
    fv_status status = fv_config_create(&config, ctx);
    if (status == FV_OK)
        status = fv_config_set(config, "hidden_size", "16");
    if (status == FV_OK)
        status = fv_model_create(&model, ctx, config, 1);
    if (status == FV_OK)
        status = fv_model_save(model, run);
    if (status == FV_OK)
        status = fv_model_load(&loaded, ctx, run, 0);
    fv_model_destroy(model);
    fv_model_destroy(loaded);
    fv_config_destroy(config);
    return status;
}

static void test_failing_allocations(void **state)
{
    (void)state;
    char run[512];
    snprintf(run, sizeof run, "%s", make_run("failing"));
    assert_true(fail_every_allocation(save_and_load, run) > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),    cmocka_unit_test(test_names),
        cmocka_unit_test(test_cut_short),     cmocka_unit_test(test_wrong_config),
        cmocka_unit_test(test_wrong_tensors), cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, scratch_setup, scratch_teardown);
}
