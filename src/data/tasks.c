/* tasks.c: what is predicted.
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

static const fv_task_row tasks[] = {{"mlm", apply_mlm}, {"lm", apply_lm}};

const fv_task_row *fv_task_find(const char *name)
{
    for (int i = 0; i < FV_COUNT(tasks); i++)
        if (strcmp(tasks[i].name, name) == 0)
            return &tasks[i];
    return NULL;
}
