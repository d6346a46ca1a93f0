/* settings.c: from the keys of a config to the sizes of a model. Everything impossible is refused here, by the
 * key's name, before any memory is asked for. Attention: operators.c. */
#include "model/transformer.h"
#include <stdio.h>
#include <string.h>

/* The bounds of the attention operator, and dropout sites that fit the random numbers' stream words. */
enum { MAX_LAYERS = 1 << 20, MAX_HEADS = 1 << 16, MAX_HEAD_DIM = 1 << 16 };
#define MAX_SIZE ((int64_t)1 << 40)

static fv_status read_size(fv_context *ctx, const fv_config *config, const char *key, int64_t low,
                           int64_t high, int64_t *value)
{
    *value = fv_config_int(config, key);
    if (*value >= low && *value <= high)
        return FV_OK;
    return fv_fail(ctx, FV_ERR_USAGE, "config: %s is %lld; expected %lld to %lld", key, (long long)*value,
                   (long long)low, (long long)high);
}

static fv_status write_back(fv_config *config, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return fv_config_set(config, key, text);
}

static fv_status read_vocabulary(fv_context *ctx, fv_config *config, fv_shape *s)
{
    const char *name = fv_config_text(config, "tokenizer");
    s->tokenizer = fv_tokenizer_find(name);
    if (s->tokenizer == NULL)
        return fv_fail(ctx, FV_ERR_USAGE, "config: tokenizer \"%s\" is unknown", name);
    TRY(read_size(ctx, config, "vocab_size", 0, INT32_MAX, &s->vocabulary));
    if (s->vocabulary == 0) {
        s->vocabulary = s->tokenizer->size;
        return write_back(config, "vocab_size", s->vocabulary);
    }
    if (s->vocabulary < s->tokenizer->size)
        return fv_fail(ctx, FV_ERR_USAGE, "config: vocab_size is %lld; tokenizer \"%s\" has %d tokens",
                       (long long)s->vocabulary, name, s->tokenizer->size);
    return FV_OK;
}

static fv_status read_heads(fv_context *ctx, const fv_config *config, fv_shape *s)
{
    TRY(read_size(ctx, config, "num_attention_heads", 1, MAX_HEADS, &s->heads));
    TRY(read_size(ctx, config, "num_key_value_heads", 0, MAX_HEADS, &s->kv_heads));
    TRY(read_size(ctx, config, "head_dim", 0, MAX_HEAD_DIM, &s->head_dim));
    s->kv_heads = s->kv_heads != 0 ? s->kv_heads : s->heads;
    if (s->heads % s->kv_heads != 0)
        return fv_fail(ctx, FV_ERR_USAGE,
                       "config: num_key_value_heads %lld does not divide num_attention_heads %lld",
                       (long long)s->kv_heads, (long long)s->heads);
    if (s->head_dim == 0 && s->width % s->heads != 0)
        return fv_fail(ctx, FV_ERR_USAGE,
                       "config: num_attention_heads %lld does not divide hidden_size %lld; set head_dim",
                       (long long)s->heads, (long long)s->width);
    s->head_dim = s->head_dim != 0 ? s->head_dim : s->width / s->heads;
    if (s->head_dim > MAX_HEAD_DIM)
        return fv_fail(ctx, FV_ERR_USAGE, "config: hidden_size %lld makes heads of %lld channels; at most %d",
                       (long long)s->width, (long long)s->head_dim, MAX_HEAD_DIM);
    return FV_OK;
}

static const struct {
    const char *name;
    fv_places_kind kind;
} places_kinds[] = {
    {"none", FV_PLACES_NONE}, {"learned", FV_PLACES_LEARNED}, {"sinusoidal", FV_PLACES_SINUSOIDAL}};

static fv_status read_places(fv_context *ctx, fv_config *config, fv_shape *s)
{
    const char *name = fv_config_text(config, "position_embedding_type");
    int i = 0;
    while (i < FV_COUNT(places_kinds) && strcmp(places_kinds[i].name, name) != 0)
        i++;
    if (i == FV_COUNT(places_kinds))
        return fv_fail(ctx, FV_ERR_USAGE, "config: position_embedding_type \"%s\" is unknown", name);
    s->places_kind = places_kinds[i].kind;
    TRY(read_size(ctx, config, "max_position_embeddings", 0, INT32_MAX, &s->places));
    if (s->places_kind == FV_PLACES_NONE) {
        s->places = 0;
        return FV_OK;
    }
    if (s->places > 0)
        return FV_OK;
    s->places = fv_config_int(config, "length"); /* the training length */
    if (s->places < 1)
        return fv_fail(ctx, FV_ERR_USAGE, "config: max_position_embeddings is 0; expected 1 or more");
    return write_back(config, "max_position_embeddings", s->places);
}

static fv_status read_activation(fv_context *ctx, const fv_config *config, fv_shape *s)
{
    const char *name = fv_config_text(config, "hidden_act");
    s->activation = strcmp(name, "relu") == 0 ? FV_ACTIVATION_RELU : FV_ACTIVATION_GELU;
    if (strcmp(name, "relu") != 0 && strcmp(name, "gelu") != 0)
        return fv_fail(ctx, FV_ERR_USAGE, "config: hidden_act \"%s\" is unknown; expected gelu or relu",
                       name);
    return FV_OK;
}

static fv_status read_reals(fv_context *ctx, const fv_config *config, fv_shape *s)
{
    double dropout = fv_config_real(config, "hidden_dropout_prob");
    double eps = fv_config_real(config, "layer_norm_eps");
    if (!(dropout >= 0 && dropout < 1))
        return fv_fail(ctx, FV_ERR_USAGE, "config: hidden_dropout_prob is %g; expected 0 up to below 1",
                       dropout);
    if (!(eps > 0 && eps <= 1))
        return fv_fail(ctx, FV_ERR_USAGE, "config: layer_norm_eps is %g; expected above 0, at most 1", eps);
    s->dropout = (float)dropout;
    s->norm_eps = (float)eps;
    return FV_OK;
}

/* The stacks: an encoder or a decoder alone, or a decoder behind an encoder. */
static fv_status read_stacks(fv_context *ctx, fv_config *config, fv_shape *s)
{
    TRY(read_size(ctx, config, "num_hidden_layers", 1, MAX_LAYERS, &s->layers));
    TRY(read_size(ctx, config, "decoder_layers", 0, MAX_LAYERS, &s->decoder_layers));
    s->causal = fv_config_bool(config, "is_decoder") != 0;
    if (!fv_config_bool(config, "is_encoder_decoder")) {
        if (s->decoder_layers > 0)
            return fv_fail(
                ctx, FV_ERR_USAGE,
                "config: decoder_layers is %lld without is_encoder_decoder; layers of a lone stack are "
                "num_hidden_layers",
                (long long)s->decoder_layers);
        return FV_OK;
    }
    if (s->causal)
        return fv_fail(ctx, FV_ERR_USAGE,
                       "config: is_decoder and is_encoder_decoder are both true; expected one of them");
    if (s->decoder_layers > 0)
        return FV_OK;
    s->decoder_layers = s->layers;
    return write_back(config, "decoder_layers", s->decoder_layers);
}

static const struct {
    const char *name;
    fv_head_kind kind;
} head_kinds[] = {{"lm", FV_HEAD_LM}, {"classification", FV_HEAD_CLASSIFICATION}, {"pair", FV_HEAD_PAIR}};

static fv_status read_head(fv_context *ctx, const fv_config *config, fv_shape *s)
{
    const char *name = fv_config_text(config, "head"), *pooling = fv_config_text(config, "pooling");
    int i = 0;
    while (i < FV_COUNT(head_kinds) && strcmp(head_kinds[i].name, name) != 0)
        i++;
    if (i == FV_COUNT(head_kinds))
        return fv_fail(ctx, FV_ERR_USAGE, "config: head \"%s\" is unknown", name);
    s->head = head_kinds[i].kind;
    TRY(read_size(ctx, config, "num_labels", 2, INT32_MAX, &s->labels));
    s->pool_first = strcmp(pooling, "cls") == 0;
    s->tied = fv_config_bool(config, "tie_word_embeddings") != 0;
    if (s->head != FV_HEAD_LM && s->decoder_layers > 0)
        return fv_fail(ctx, FV_ERR_USAGE, "config: an encoder-decoder has the head lm, not %s", name);
    if (s->head != FV_HEAD_LM && s->tied)
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "config: tie_word_embeddings is true; the head %s gives labels and has no output matrix over "
            "tokens",
            name);
    return FV_OK;
}

static fv_status read_sharing(fv_context *ctx, const fv_config *config, fv_shape *s)
{
    static const char *const names[] = {"none", "headwise", "key-value", "layer"}; /* ORDER as fv_sharing */
    const char *name = fv_config_text(config, "attention.linformer_sharing");
    int i = FV_COUNT(names) - 1;
    while (i > 0 && strcmp(names[i], name) != 0)
        i--;
    s->sharing = (fv_sharing)i;
    const fv_attention_kind *kind = fv_attention_kind_find(fv_config_text(config, "attention.kind"));
    if (i == 0 || kind == NULL || fv_attention_kind_takes(kind, "projected", NULL))
        return FV_OK;
    return fv_fail(ctx, FV_ERR_USAGE,
                   "config: attention.linformer_sharing is %s; attention %s has no such matrices", name,
                   kind->name);
}

fv_status fv_shape_read(fv_context *ctx, fv_config *config, fv_shape *shape)
{
    *shape = (fv_shape){0};
    TRY(read_vocabulary(ctx, config, shape));
    TRY(read_size(ctx, config, "hidden_size", 1, INT32_MAX, &shape->width));
    TRY(read_stacks(ctx, config, shape));
    TRY(read_head(ctx, config, shape));
    TRY(read_size(ctx, config, "intermediate_size", 1, INT32_MAX, &shape->inner));
    TRY(read_heads(ctx, config, shape));
    TRY(read_places(ctx, config, shape));
    TRY(read_activation(ctx, config, shape));
    TRY(read_reals(ctx, config, shape));
    TRY(read_sharing(ctx, config, shape));
    shape->recompute = fv_config_bool(config, "gradient_checkpointing") != 0;
    shape->reversible = fv_config_bool(config, "reversible") != 0;
    if (shape->recompute && shape->reversible)
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "config: gradient_checkpointing and reversible are both true; reversible layers run again "
            "anyway: expected one of them");
    TRY(fv_settings_attention_sizes(ctx, config,
                                    shape->places > 0 ? shape->places : fv_config_int(config, "length")));
    shape->projection_seed = (uint64_t)fv_config_int(config, "attention.projection_seed");
    return FV_OK;
}
