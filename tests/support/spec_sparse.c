/* support/spec_sparse.c: window, strided, fixed, longformer, bigbird. */
#include "attention/sparse.h"
#include "support/spec.h"
#include <stdlib.h>

/* The logarithm of the entry is scale q_i.k_j. */
static num softmax_pair(const spec *s, int64_t h, int64_t i, int64_t j)
{
    int64_t d = s->options.dim, g = h * s->options.kv_heads / s->options.heads;
    return num_scaled(s->options.scale, num_dot(s->Q + (i * s->options.heads + h) * d,
                                                s->K + (j * s->options.kv_heads + g) * d, d));
}

static bool window(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    (void)h, (void)sequence, (void)length;
    return llabs(i - j) <= s->options.window;
}

static bool strided(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    return window(s, h, sequence, i, j, length) || (i - j) % s->options.stride == 0;
}

static bool fixed(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    int64_t block = s->options.block;
    (void)h, (void)sequence, (void)length;
    return i / block == j / block || j % block >= block - s->options.globals;
}

static bool longformer(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    return window(s, h, sequence, i, j, length) || i < s->options.globals || j < s->options.globals;
}

/* The random blocks are an input: asked for, not drawn here. */
static bool bigbird(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    int64_t block = s->options.block, drawn[FV_SPARSE_DRAWN];
    (void)sequence;
    if (llabs(i / block - j / block) <= 1 || i < s->options.globals || j < s->options.globals)
        return true;
    int64_t count = fv_bigbird_draw(&s->options, h, i / block, (length + block - 1) / block, drawn);
    for (int64_t n = 0; n < count; n++)
        if (drawn[n] == j / block)
            return true;
    return false;
}

const spec_kind spec_sparse_kinds[] = {
    {.name = "window", .exponential = true, .pair = softmax_pair, .sees = window},
    {.name = "strided", .exponential = true, .pair = softmax_pair, .sees = strided},
    {.name = "fixed", .exponential = true, .pair = softmax_pair, .sees = fixed},
    {.name = "longformer", .exponential = true, .pair = softmax_pair, .sees = longformer},
    {.name = "bigbird", .exponential = true, .pair = softmax_pair, .sees = bigbird},
    {.name = NULL},
};
