/* settings.c: what the settings of a run really are.
 *
 * Continuing a run must give the bits of an uninterrupted one, so a key that shapes a step has to stay. Those
 * that only say how long and how often (`steering`) may change. A key that is not given keeps the run's
 * value: `--resume` needs no repetition. With schedule = cosine other `steps` stretch the schedule from here.
 */
#include "data/data.h"
#include "model/transformer.h"
#include "train/internal.h"
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Keys that a continued run may change; all are whole numbers. */
static const char *const steering[] = {"steps",      "eval_every", "eval_batches", "checkpoint_every",
                                       "early_stop", "log_every"};

static bool may_change(const char *key)
{
    for (int i = 0; i < FV_COUNT(steering); i++)
        if (strcmp(key, steering[i]) == 0)
            return true;
    return false;
}

static fv_status set_int(fv_config *config, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return fv_config_set(config, key, text);
}

/* The tokenizer that the reader implies. */
static fv_status complete_tokenizer(fv_context *ctx, fv_config *config)
{
    const char *reader = fv_config_text(config, "reader"), *given = fv_config_text(config, "tokenizer");
    for (int i = 0; i < fv_reader_kind_count(); i++) {
        const fv_reader_kind *kind = fv_reader_kind_at(i);
        if (strcmp(kind->name, reader) != 0)
            continue;
        if (fv_config_is_set(config, "tokenizer") && strcmp(given, kind->tokenizer) != 0)
            return fv_fail(ctx, FV_ERR_USAGE, "tokenizer: %s does not fit the reader %s, expected %s", given,
                           reader, kind->tokenizer);
        return fv_config_set(config, "tokenizer", kind->tokenizer);
    }
    return FV_OK;
}

/* What a task asks of the model. */
static const struct task_model {
    const char *task, *is_decoder, *is_encoder_decoder, *head;
} task_models[] = {
    {"mlm", "false", "false", "lm"},
    {"lm", "true", "false", "lm"},
    {"classify", "false", "false", "classification"},
    {"match", "false", "false", "pair"},
    {"translate", "false", "true", "lm"},
};

static const struct task_model *model_of(const char *task)
{
    int i = 0;
    while (i < FV_COUNT(task_models) - 1 && strcmp(task_models[i].task, task) != 0)
        i++;
    return &task_models[i];
}

/* Sets a key that follows from the task. A value that was given and asks for something else is refused; but
 * "false" asks for nothing. */
static fv_status follow_task(fv_context *ctx, fv_config *config, const char *key, const char *value)
{
    bool text = strcmp(key, "head") == 0;
    const char *given = text ? fv_config_text(config, key) : fv_config_bool(config, key) ? "true" : "false";
    if (fv_config_is_set(config, key) && strcmp(given, value) != 0 && strcmp(given, "false") != 0)
        return fv_fail(ctx, FV_ERR_USAGE, "%s: %s does not fit task %s, expected %s or another task", key,
                       given, fv_config_text(config, "task"), value);
    return fv_config_set(config, key, value);
}

/* attention.kind auto becomes the kind that is faster here; the choice is kept with the run. */
static fv_status choose_attention(fv_context *ctx, fv_config *config)
{
    if (strcmp(fv_config_text(config, "attention.kind"), "auto") != 0)
        return FV_OK;
    fv_attention_options options;
    fv_attention_choice choice;
    int64_t length = fv_config_int(config, "length");
    TRY(fv_settings_attention(ctx, config, &options));
    options.heads = fv_config_int(config, "num_attention_heads");
    options.kv_heads = fv_config_int(config, "num_key_value_heads");
    options.dim = fv_config_int(config, "head_dim");
    if (options.dim == 0)
        options.dim = fv_config_int(config, "hidden_size") / options.heads;
    options.causal = fv_config_bool(config, "is_decoder");
    TRY(fv_attention_choose(ctx, &options, length, true, &choice));
    if (choice.crossover > 0)
        fv_note(ctx, FV_LOG_INFO,
                "attention auto: %s; %s is faster than exact from about %lld tokens on here, length is %lld",
                choice.kind, FV_ATTENTION_KERNELIZED, (long long)choice.crossover, (long long)length);
    else
        fv_note(ctx, FV_LOG_INFO, "attention auto: %s, since exact attention does not take the options given",
                choice.kind);
    return fv_config_set(config, "attention.kind", choice.kind);
}

static fv_status complete(fv_context *ctx, fv_config *config)
{
    const struct task_model *model = model_of(fv_config_text(config, "task"));
    TRY(complete_tokenizer(ctx, config));
    TRY(fv_task_check(ctx, config));
    if (fv_task_find(model->task)->texts > 0 && fv_config_is_set(config, "packing"))
        return fv_fail(ctx, FV_ERR_USAGE,
                       "packing: task %s has batches of whole records, expected no packing", model->task);
    bool causal = strcmp(model->is_decoder, "true") == 0;
    if (!causal && fv_config_bool(config, "is_decoder"))
        return fv_fail(ctx, FV_ERR_USAGE,
                       "is_decoder: a causal model cannot be trained with task %s, "
                       "expected task lm or is_decoder false",
                       model->task);
    TRY(fv_config_set(config, "is_decoder", model->is_decoder));
    TRY(follow_task(ctx, config, "is_encoder_decoder", model->is_encoder_decoder));
    TRY(follow_task(ctx, config, "head", model->head));
    int64_t length = fv_config_int(config, "length");
    if (fv_config_int(config, "max_position_embeddings") == 0)
        TRY(set_int(config, "max_position_embeddings", length));
    if (fv_config_int(config, "max_position_embeddings") < length &&
        strcmp(fv_config_text(config, "position_embedding_type"), "learned") == 0)
        return fv_fail(ctx, FV_ERR_USAGE, "max_position_embeddings: %lld positions cannot hold length %lld",
                       (long long)fv_config_int(config, "max_position_embeddings"), (long long)length);
    return choose_attention(ctx, config);
}

fv_status fv_settings_complete(fv_config **whole, fv_context *ctx, const fv_config *given)
{
    TRY(fv_config_copy(whole, given));
    fv_status status = complete(ctx, *whole);
    if (status != FV_OK) {
        fv_config_destroy(*whole);
        *whole = NULL;
    }
    return status;
}

/* ---- resuming --------------------------------------------------------------------------------------- */

/* A value for a message. */
static void value_text(const fv_config *config, const fv_config_key *key, char *text, size_t bytes)
{
    if (key->type == FV_CONFIG_TEXT)
        snprintf(text, bytes, "%s", fv_config_text(config, key->key));
    else if (key->type == FV_CONFIG_BOOL)
        snprintf(text, bytes, "%s", fv_config_bool(config, key->key) ? "true" : "false");
    else if (key->type == FV_CONFIG_INT)
        snprintf(text, bytes, "%lld", (long long)fv_config_int(config, key->key));
    else
        snprintf(text, bytes, "%.9g", fv_config_real(config, key->key));
}

static bool same_value(const fv_config *a, const fv_config *b, const fv_config_key *key)
{
    if (key->type == FV_CONFIG_TEXT)
        return strcmp(fv_config_text(a, key->key), fv_config_text(b, key->key)) == 0;
    if (key->type == FV_CONFIG_BOOL)
        return fv_config_bool(a, key->key) == fv_config_bool(b, key->key);
    if (key->type == FV_CONFIG_INT)
        return fv_config_int(a, key->key) == fv_config_int(b, key->key);
    return fv_config_real(a, key->key) == fv_config_real(b, key->key);
}

/* "Choose for me", which the run's own choice satisfies. */
static bool is_open(const fv_config *given, const fv_config_key *key)
{
    if (strcmp(key->key, "attention.kind") == 0 && strcmp(fv_config_text(given, key->key), "auto") == 0)
        return true;
    static const char *const automatic[] = {"0", "-1", "default"};
    char value[64];
    value_text(given, key, value, sizeof value);
    for (int i = 0; i < FV_COUNT(automatic); i++)
        if (key->part == FV_CONFIG_MODEL && strcmp(key->fallback, automatic[i]) == 0 &&
            strcmp(value, key->fallback) == 0)
            return true;
    static const char *const follow[] = {"is_decoder", "is_encoder_decoder", "head"};
    for (int i = 0; i < FV_COUNT(follow); i++) /* the task, which is compared */
        if (strcmp(key->key, follow[i]) == 0)
            return true;
    return false;
}

static fv_status merge_key(fv_config *whole, fv_context *ctx, const fv_config *given,
                           const fv_config_key *key)
{
    if (!fv_config_is_set(given, key->key) || same_value(given, whole, key) || is_open(given, key))
        return FV_OK;
    if (may_change(key->key))
        return set_int(whole, key->key, fv_config_int(given, key->key));
    char asked[256], kept[256];
    value_text(given, key, asked, sizeof asked);
    value_text(whole, key, kept, sizeof kept);
    return fv_fail(
        ctx, FV_ERR_USAGE,
        "%s: the run was started with %s, %s cannot continue it; leave the setting out, or start a "
        "new run in another directory",
        key->key, kept, asked);
}

fv_status fv_settings_resume(fv_config **whole, fv_context *ctx, const fv_config *given, const fv_config *run)
{
    TRY(fv_config_copy(whole, run));
    for (int i = 0; i < fv_config_key_count(); i++) {
        fv_status status = merge_key(*whole, ctx, given, fv_config_key_at(i));
        if (status != FV_OK) {
            fv_config_destroy(*whole);
            *whole = NULL;
            return status;
        }
    }
    return FV_OK;
}

fv_status fv_settings_check_files(fv_context *ctx, const fv_train_state *state, const char *const *files,
                                  int64_t count)
{
    if (count != state->file_count)
        return fv_fail(ctx, FV_ERR_USAGE, "data: the run was started with %lld files, not %lld",
                       (long long)state->file_count, (long long)count);
    for (int64_t i = 0; i < count; i++) {
        struct stat about;
        if (stat(files[i], &about) != 0)
            continue; /* opening it will say why */
        if (about.st_size != state->files[i].bytes)
            return fv_fail(ctx, FV_ERR_USAGE, "data: %s has %lld bytes, the run was started with %lld (%s)",
                           files[i], (long long)about.st_size, (long long)state->files[i].bytes,
                           state->files[i].path);
    }
    return FV_OK;
}
