/* empirical.c: the baseline of the Performer paper: every place gets the letter frequencies of the training
 * split, with one added to each count (Laplace), begin and end symbols left out. What a model must beat to have
 * learnt anything at all. */
#include "data/data.h"
#include <math.h>

void fv_empirical_add(const fv_tokenizer *tokenizer, const int64_t *counts, const fv_batch *batch,
                      int64_t *tokens, double *loss, int64_t *correct)
{
    double total = tokenizer->letters;
    int32_t best = 0;
    for (int32_t id = 0; id < tokenizer->letters; id++) {
        total += (double)counts[id];
        best = counts[id] > counts[best] ? id : best;
    }
    for (int64_t i = 0; i < batch->tokens; i++) {
        int32_t target = batch->targets[i];
        if (target < 0 || target >= tokenizer->letters)
            continue;
        *tokens += 1;
        *loss += log(total / ((double)counts[target] + 1));
        *correct += target == best;
    }
}
