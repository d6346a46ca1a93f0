/* support/tiny_model.h: small models and batches for tests. Include cmocka's headers first. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include "model/internal.h"
#include <favor/favor.h>

fv_context *tiny_context(int threads);

/* A model of 2 layers, 16 channels, 2 heads, 32 inner channels, 64 positions, 29 tokens, no dropout.
 * settings: key, value, key, value ..., NULL on top of that; may be NULL. Asserts success. */
fv_config *tiny_config(fv_context *ctx, const char *const *settings);
fv_model *tiny_model(fv_context *ctx, const char *const *settings);

/* Random tokens in sequences of the given lengths; about `share` of them have targets. */
typedef struct tiny_batch {
    fv_batch batch;
    int32_t inputs[512], targets[512], source[512], labels[32];
    int64_t offsets[32], source_offsets[32];
} tiny_batch;
void tiny_batch_fill(tiny_batch *b, uint64_t seed, double share, int sequences, const int64_t *lengths);
/* Adds random source sequences of the given lengths, as many as the batch has. */
void tiny_batch_source(tiny_batch *b, uint64_t seed, const int64_t *lengths);
/* Random labels below `classes` instead of the targets: one for every `each` sequences. */
void tiny_batch_labels(tiny_batch *b, uint64_t seed, int32_t classes, int64_t each);
/* Sequence s of a batch as a batch, with its source. */
void tiny_batch_take(tiny_batch *out, const tiny_batch *b, int64_t s);

/* n normal numbers, a function of seed. */
void tiny_normals(uint64_t seed, double deviation, float *values, int64_t n);

#endif
