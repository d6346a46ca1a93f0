/* empirical.c: the baseline of the Performer paper: every place gets the letter frequencies of the training
 * split, with one added to each count (Laplace), begin and end symbols left out; with labels, their frequencies.
 * What a model must beat to have learnt anything at all. */
#include "data/data.h"
#include <math.h>

void fv_empirical_add(int32_t classes, const int64_t *counts, const fv_batch *batch, int64_t *tokens,
                      double *loss, int64_t *correct)
{
    double total = classes;
    int32_t best = 0;
    const int32_t *targets = batch->labels != NULL ? batch->labels : batch->targets;
    int64_t rows = batch->labels != NULL ? batch->predicted : batch->tokens;
    for (int32_t id = 0; id < classes; id++) {
        total += (double)counts[id];
        best = counts[id] > counts[best] ? id : best;
    }
    for (int64_t i = 0; i < rows; i++) {
        int32_t target = targets[i];
        if (target < 0 || target >= classes)
            continue;
        *tokens += 1;
        *loss += log(total / ((double)counts[target] + 1));
        *correct += target == best;
    }
}
