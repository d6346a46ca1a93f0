/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "support/tiny_model.h"
#include <string.h>

fv_context *tiny_context(int threads)
{
    fv_context *ctx;
    fv_context_options options;
    fv_context_options_init(&options);
    options.threads = threads;
    assert_int_equal(fv_context_create(&ctx, &options), FV_OK);
    return ctx;
}

static void set_all(fv_context *ctx, fv_config *config, const char *const *settings)
{
    for (int i = 0; settings != NULL && settings[i] != NULL; i += 2)
        if (fv_config_set(config, settings[i], settings[i + 1]) != FV_OK)
            fail_msg("%s", fv_context_message(ctx));
}

fv_config *tiny_config(fv_context *ctx, const char *const *settings)
{
    static const char *const basic[] = {"num_hidden_layers",
                                        "2",
                                        "hidden_size",
                                        "16",
                                        "num_attention_heads",
                                        "2",
                                        "intermediate_size",
                                        "32",
                                        "max_position_embeddings",
                                        "64",
                                        "hidden_dropout_prob",
                                        "0",
                                        "attention.features",
                                        "16",
                                        NULL};
    fv_config *config;
    assert_int_equal(fv_config_create(&config, ctx), FV_OK);
    set_all(ctx, config, basic);
    set_all(ctx, config, settings);
    return config;
}

fv_model *tiny_model(fv_context *ctx, const char *const *settings)
{
    fv_config *config = tiny_config(ctx, settings);
    fv_model *model;
    if (fv_model_create(&model, ctx, config, 7) != FV_OK)
        fail_msg("%s", fv_context_message(ctx));
    fv_config_destroy(config);
    return model;
}

void tiny_batch_fill(tiny_batch *b, uint64_t seed, double share, int sequences, const int64_t *lengths)
{
    fv_random random = fv_random_make(seed, FV_RANDOM_TEST, 0, 0);
    memset(b, 0, sizeof *b);
    for (int s = 0; s < sequences; s++)
        b->offsets[s + 1] = b->offsets[s] + lengths[s];
    int64_t tokens = b->offsets[sequences], predicted = 0;
    for (int64_t t = 0; t < tokens; t++) {
        b->inputs[t] = (int32_t)fv_random_below(&random, 29);
        int32_t target = (int32_t)fv_random_below(&random, 29);
        b->targets[t] = fv_random_uniform(&random) < share ? target : -1;
        predicted += b->targets[t] >= 0;
    }
    b->batch = (fv_batch){.tokens = tokens,
                          .sequences = sequences,
                          .inputs = b->inputs,
                          .targets = b->targets,
                          .offsets = b->offsets,
                          .predicted = predicted};
}

void tiny_batch_source(tiny_batch *b, uint64_t seed, const int64_t *source_lengths)
{
    fv_random random = fv_random_make(seed, FV_RANDOM_TEST, 4, 0);
    for (int64_t s = 0; s < b->batch.sequences; s++)
        b->source_offsets[s + 1] = b->source_offsets[s] + source_lengths[s];
    b->batch.source_tokens = b->source_offsets[b->batch.sequences];
    for (int64_t t = 0; t < b->batch.source_tokens; t++)
        b->source[t] = (int32_t)fv_random_below(&random, 29);
    b->batch.source = b->source;
    b->batch.source_offsets = b->source_offsets;
}

void tiny_batch_labels(tiny_batch *b, uint64_t seed, int32_t classes, int64_t each)
{
    fv_random random = fv_random_make(seed, FV_RANDOM_TEST, 5, 0);
    b->batch.predicted = b->batch.sequences / each;
    for (int64_t i = 0; i < b->batch.predicted; i++)
        b->labels[i] = (int32_t)fv_random_below(&random, (uint64_t)classes);
    b->batch.labels = b->labels;
    b->batch.targets = NULL;
}

/* The source of sequence s, if there is one. */
static void take_source(tiny_batch *out, const tiny_batch *b, int64_t s)
{
    int64_t begin = b->source_offsets[s], n = b->source_offsets[s + 1] - begin;
    if (b->batch.source == NULL)
        return;
    memcpy(out->source, b->source + begin, (size_t)n * sizeof *b->source);
    out->source_offsets[1] = n;
    out->batch.source_tokens = n;
    out->batch.source = out->source;
    out->batch.source_offsets = out->source_offsets;
}

void tiny_batch_take(tiny_batch *out, const tiny_batch *b, int64_t s)
{
    int64_t begin = b->offsets[s], n = b->offsets[s + 1] - begin;
    memset(out, 0, sizeof *out);
    memcpy(out->inputs, b->inputs + begin, (size_t)n * sizeof *b->inputs);
    memcpy(out->targets, b->targets + begin, (size_t)n * sizeof *b->targets);
    out->offsets[1] = n;
    out->batch = (fv_batch){
        .tokens = n, .sequences = 1, .inputs = out->inputs, .targets = out->targets, .offsets = out->offsets};
    for (int64_t t = 0; t < n; t++)
        out->batch.predicted += out->targets[t] >= 0;
    take_source(out, b, s);
}

void tiny_normals(uint64_t seed, double deviation, float *values, int64_t n)
{
    fv_random random = fv_random_make(seed, FV_RANDOM_TEST, 1, 0);
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)(deviation * fv_random_normal(&random));
}
