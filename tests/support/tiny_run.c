#include "support/tiny_run.h"
#include <ftw.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- data ---------------------------------------------------------------------------------------------- */

/* A letter follows its predecessor by one of two rules, so that there is something to learn. */
static void append_protein(char *text, int index, uint32_t *random)
{
    static const char letters[] = "ACDEFGHIKLMNPQRSTVWY";
    char line[128];
    int length = 20 + index, at = index % 20;
    sprintf(text + strlen(text), ">protein%d\n", index);
    for (int i = 0; i < length; i++) {
        *random = *random * 1664525u + 1013904223u;
        at = (at + (*random >> 31 ? 1 : 3)) % 20;
        line[i] = letters[at];
    }
    line[length] = '\0';
    sprintf(text + strlen(text), "%s\n", line);
}

const char *tiny_proteins(void)
{
    static char text[16384];
    uint32_t random = 1;
    text[0] = '\0';
    for (int i = 0; i < 60; i++)
        append_protein(text, i, &random);
    return scratch_text("proteins.fasta", text);
}

/* 3 to 12 letters a to d. */
static void make_word(char *word, uint32_t *random)
{
    *random = *random * 1664525u + 1013904223u;
    int length = 3 + (int)(*random >> 28) * 10 / 16;
    for (int i = 0; i < length; i++) {
        *random = *random * 1664525u + 1013904223u;
        word[i] = (char)('a' + (*random >> 30));
    }
    word[length] = '\0';
}

void tiny_columns(void)
{
    static char texts[3][8192];
    uint32_t random = 3;
    memset(texts, 0, sizeof texts);
    for (int i = 0; i < 60; i++) {
        char a[16], b[16], upper[16] = "";
        make_word(a, &random);
        make_word(b, &random);
        for (size_t k = 0; k < strlen(a); k++)
            upper[k] = (char)(a[k] - 'a' + 'A');
        sprintf(texts[0] + strlen(texts[0]), "%d\t%s\n", a[0] > 'b', a);
        sprintf(texts[1] + strlen(texts[1]), "%d\t%s\t%s\n", i % 2, a, i % 2 ? a : b);
        sprintf(texts[2] + strlen(texts[2]), "%s\t%s\n", a, upper);
    }
    scratch_text("classify.tsv", texts[0]);
    scratch_text("match.tsv", texts[1]);
    scratch_text("translate.tsv", texts[2]);
}

/* The file that a task reads. */
static const char *data_file(const fv_config *config)
{
    static char name[64];
    const char *task = fv_config_text(config, "task");
    int columns = strcmp(fv_config_text(config, "reader"), "tsv") == 0;
    snprintf(name, sizeof name, "%s%s", columns ? task : "proteins", columns ? ".tsv" : ".fasta");
    return name;
}

/* ---- settings ------------------------------------------------------------------------------------ */

void tiny_set(fv_config *config, const char *key, const char *value)
{
    if (fv_config_set(config, key, value) != FV_OK)
        fail_msg("%s = %s was refused", key, value);
}

fv_config *tiny_run_config(fv_context *ctx, ...)
{
    static const char *const rows[][2] = {
        {"hidden_size", "16"},
        {"num_hidden_layers", "2"},
        {"num_attention_heads", "2"},
        {"intermediate_size", "32"},
        {"attention.features", "16"},
        {"attention.redraw", "7"},
        {"task", "lm"},
        {"length", "32"},
        {"batch", "2"},
        {"steps", "20"},
        {"learning_rate", "0.01"},
        {"warmup_steps", "2"},
        {"eval_every", "6"},
        {"eval_batches", "2"},
        {"checkpoint_every", "5"},
        {"log_every", "3"},
        {"seed", "7"},
        {"valid_fraction", "0.2"},
    };
    fv_config *config;
    assert_int_equal(fv_config_create(&config, ctx), FV_OK);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        tiny_set(config, rows[i][0], rows[i][1]);
    va_list more;
    va_start(more, ctx);
    for (const char *key; (key = va_arg(more, const char *)) != NULL;)
        tiny_set(config, key, va_arg(more, const char *));
    va_end(more);
    return config;
}

/* ---- runs ---------------------------------------------------------------------------------------- */

static fv_status train(fv_context *ctx, const fv_config *config, const char *name, int resume,
                       const fv_observer *observer, fv_train_result *result)
{
    char directory[4096], file[4096];
    snprintf(directory, sizeof directory, "%s", scratch_path(name));
    snprintf(file, sizeof file, "%s", scratch_path(data_file(config)));
    const char *files[] = {file};
    fv_train_options options;
    fv_train_options_init(&options);
    options.directory = directory;
    options.files = files;
    options.file_count = 1;
    options.resume = resume;
    if (observer != NULL)
        options.observer = *observer;
    fv_train_result ignored;
    return fv_train(ctx, config, &options, result != NULL ? result : &ignored);
}

fv_status tiny_train(fv_context *ctx, const fv_config *config, const char *name, int resume,
                     fv_train_result *result)
{
    return train(ctx, config, name, resume, NULL, result);
}

/* Polled once before each step when no evaluation is due: counts polls down. */
static int stop_later(void *user)
{
    int *left = user;
    return (*left)-- <= 0;
}

fv_status tiny_train_until(fv_context *ctx, const fv_config *config, const char *name, int steps)
{
    fv_observer observer = {.user = &steps, .stop = stop_later};
    return train(ctx, config, name, 1, &observer, NULL);
}

/* ---- results ------------------------------------------------------------------------------------- */

char *tiny_file(const char *name, const char *file, size_t *count)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", scratch_path(name), file);
    FILE *in = fopen(path, "rb");
    if (in == NULL)
        fail_msg("%s is missing", path);
    size_t room = (size_t)4 << 20;
    char *bytes = malloc(room);
    *count = fread(bytes, 1, room - 1, in);
    bytes[*count] = '\0';
    fclose(in);
    return bytes;
}

char *tiny_metrics(const char *name)
{
    size_t count;
    char *bytes = tiny_file(name, "metrics.jsonl", &count), *out = malloc(count + 1);
    out[0] = '\0';
    for (char *line = bytes, *end; *line != '\0'; line = end + 1) {
        end = strchr(line, '\n');
        assert_non_null(end);
        json_t *object = json_loadb(line, (size_t)(end - line), 0, NULL);
        assert_non_null(object);
        assert_int_equal(json_object_del(object, "timing"), 0);
        char *text = json_dumps(object, JSON_COMPACT);
        strcat(strcat(out, text), "\n");
        free(text);
        json_decref(object);
    }
    free(bytes);
    return out;
}

double tiny_metric(const char *name, const char *split, int index, const char *key)
{
    size_t count;
    char *bytes = tiny_file(name, "metrics.jsonl", &count);
    double value = (double)NAN;
    for (char *line = strtok(bytes, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *object = json_loads(line, 0, NULL);
        if (strcmp(json_string_value(json_object_get(object, "split")), split) == 0 && index-- == 0)
            value = json_number_value(json_object_get(object, key));
        json_decref(object);
    }
    free(bytes);
    return value;
}

void tiny_same_model(const char *a, const char *b)
{
    size_t n, m;
    char *x = tiny_file(a, "model.safetensors", &n), *y = tiny_file(b, "model.safetensors", &m);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    free(x);
    free(y);
}

static int remove_entry(const char *path, const struct stat *about, int type, struct FTW *walk)
{
    (void)about, (void)type, (void)walk;
    return remove(path);
}

void tiny_remove(const char *name)
{
    (void)nftw(scratch_path(name), remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}
