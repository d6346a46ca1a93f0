/* tasks.c: what is predicted.
 *
 * Tasks that read columns (classify, match, translate) lay their records out themselves: records.c.
 *
 * lm: the input of a sequence is its tokens shifted right behind `begin`, the target at each place the token
 * itself: every token is predicted from those before it.
 *
 * mlm (Devlin et al. 2019): each letter is chosen with probability mask_rate. A chosen one is predicted; its
 * input becomes the mask with probability mask_symbol_share, a random letter with mask_random_share, and
 * stays otherwise. Special tokens are never chosen. If chance chose none, one letter is chosen, so that a
 * batch with letters has a target. Numbers depend on (seed, split, index of the batch, place) only.
 */
#include "data/data.h"
#include <math.h>
#include <string.h>

static int64_t apply_lm(const fv_data_settings *settings, fv_split split, int64_t index,
                        const int64_t *offsets, int64_t sequences, int32_t *inputs, int32_t *targets)
{
    (void)split, (void)index;
    int64_t count = offsets[sequences];
    memcpy(targets, inputs, (size_t)count * sizeof *targets);
    for (int64_t s = 0; s < sequences; s++) {
        int64_t begin = offsets[s], length = offsets[s + 1] - begin;
        memmove(inputs + begin + 1, inputs + begin, (size_t)(length - 1) * sizeof *inputs);
        inputs[begin] = settings->tokenizer->begin;
    }
    return count;
}

static void mask_token(const fv_data_settings *settings, fv_random *random, int32_t *input, int32_t *target)
{
    *target = *input;
    double chance = fv_random_uniform(random);
    if (chance < settings->mask_symbol_share)
        *input = settings->tokenizer->mask;
    else if (chance < settings->mask_symbol_share + settings->mask_random_share)
        *input = (int32_t)fv_random_below(random, (uint64_t)settings->tokenizer->letters);
}

/* Chooses one letter for a batch in which chance chose none; 0 if there is no letter. */
static int64_t mask_one(const fv_data_settings *settings, fv_random *random, int64_t count, int32_t *inputs,
                        int32_t *targets)
{
    int64_t letters = 0;
    for (int64_t i = 0; i < count; i++)
        letters += inputs[i] < settings->tokenizer->letters;
    if (letters == 0)
        return 0;
    int64_t left = (int64_t)fv_random_below(random, (uint64_t)letters);
    int64_t i = 0;
    while (inputs[i] >= settings->tokenizer->letters || left-- > 0)
        i++;
    mask_token(settings, random, &inputs[i], &targets[i]);
    return 1;
}

static int64_t apply_mlm(const fv_data_settings *settings, fv_split split, int64_t index,
                         const int64_t *offsets, int64_t sequences, int32_t *inputs, int32_t *targets)
{
    int64_t count = offsets[sequences], predicted = 0;
    uint32_t high = (uint32_t)split << 22 | ((uint32_t)(index >> 32) & 0x3fffff);
    fv_random random = fv_random_make(settings->seed, FV_RANDOM_MASKING, high, (uint32_t)index);
    for (int64_t i = 0; i < count; i++) {
        targets[i] = -1;
        if (inputs[i] >= settings->tokenizer->letters || fv_random_uniform(&random) >= settings->mask_rate)
            continue;
        mask_token(settings, &random, &inputs[i], &targets[i]);
        predicted++;
    }
    return predicted > 0 ? predicted : mask_one(settings, &random, count, inputs, targets);
}

static const fv_task_row tasks[] = {
    {.name = "mlm", .sequences = 1, .apply = apply_mlm},
    {.name = "lm", .sequences = 1, .apply = apply_lm},
    {.name = "classify",
     .texts = 1,
     .has_label = true,
     .columns = "a label and a text",
     .lay_out = fv_records_classify,
     .sequences = 1},
    {.name = "match",
     .texts = 2,
     .has_label = true,
     .columns = "a label and two texts",
     .lay_out = fv_records_match,
     .sequences = 2},
    {.name = "translate",
     .texts = 2,
     .columns = "a text and its translation",
     .lay_out = fv_records_translate,
     .sequences = 1},
};

fv_status fv_task_check(fv_context *ctx, const fv_config *config)
{
    const char *name = fv_config_text(config, "task"), *reader = fv_config_text(config, "reader");
    const fv_task_row *task = fv_task_find(name);
    const fv_reader_row *row = fv_reader_row_find(reader);
    if (task == NULL || row == NULL)
        return fv_fail(ctx, FV_ERR_INTERNAL, "the settings table names a reader or task that does not exist");
    if (task->texts > 0 && !row->kind.columns)
        return fv_fail(ctx, FV_ERR_USAGE,
                       "reader: %s gives no columns; task %s reads %s, expected reader tsv", reader, name,
                       task->columns);
    if (task->texts == 0 && row->kind.columns)
        return fv_fail(
            ctx, FV_ERR_USAGE,
            "reader: %s gives columns; task %s reads whole records, expected task classify, match or "
            "translate, or another reader",
            reader, name);
    return FV_OK;
}

/* Targets of a batch, at most about: all, or the masked share with five standard deviations to spare. */
static int64_t masked_targets(const fv_config *config, int64_t tokens)
{
    double n = (double)tokens, rate = fv_config_real(config, "mask_rate");
    return FV_MIN(tokens, (int64_t)ceil(n * rate + 5.0 * sqrt(n * rate)) + 1);
}

fv_status fv_task_bounds(fv_context *ctx, const fv_config *config, fv_batch_bounds *bounds)
{
    const fv_task_row *task = fv_task_find(fv_config_text(config, "task"));
    int64_t length = fv_config_int(config, "length"), batch = fv_config_int(config, "batch");
    bool fits = task != NULL && fv_mul(batch, task->sequences, &bounds->sequences) &&
                fv_mul(bounds->sequences, length, &bounds->tokens) && bounds->tokens <= INT32_MAX;
    if (!fits)
        return fv_fail(ctx, FV_ERR_USAGE,
                       "batch: batch times length is %lld times %lld tokens, more than "
                       "2^31; lower one of them and raise accumulate",
                       (long long)batch, (long long)length);
    bounds->predicted = task->has_label            ? batch
                        : task->apply == apply_mlm ? masked_targets(config, bounds->tokens)
                                                   : bounds->tokens;
    return FV_OK;
}

const fv_task_row *fv_task_find(const char *name)
{
    for (int i = 0; i < FV_COUNT(tasks); i++)
        if (strcmp(tasks[i].name, name) == 0)
            return &tasks[i];
    return NULL;
}
