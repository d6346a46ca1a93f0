/* support/spec_decay.c: factors of single entries: gate, decay, position bias in the kernel. */
#include "support/spec.h"

bool spec_has_pair_factor(const spec *s)
{
    return s->options.gate || s->options.decay || s->options.position_bias == FV_POSITION_BIAS_KERNEL;
}

/* The factor that the token takes from all keys before it. */
static num kept(const spec *s, int64_t h, int64_t token)
{
    num factor = num_input(1, 0);
    if (s->options.gate)
        factor = num_mul(factor, spec_input(s, FV_INPUT_GATE, token * s->options.heads + h));
    if (s->options.decay)
        factor = num_mul(factor, spec_input(s, FV_INPUT_DECAY, h));
    return factor;
}

num spec_pair_factor(const spec *s, int64_t h, int64_t i, int64_t j)
{
    num factor = num_input(1, 0);
    if (s->options.position_bias == FV_POSITION_BIAS_KERNEL) {
        int64_t n = spec_sequence_of_query(s, i), span = s->options.position_span;
        int64_t offset = (i - s->layout.offsets_q[n]) - (j - spec_key_offsets(s)[n]);
        /* Through a logarithm of another base: its argument is rounded once. */
        num w = spec_input(s, FV_INPUT_POSITION_BIAS, h * (2 * span - 1) + offset + span - 1);
        return num_exp(num_scaled(1, w));
    }
    if (s->options.gate)
        factor = num_sub(factor, spec_input(s, FV_INPUT_GATE, j * s->options.heads + h));
    for (int64_t t = j + 1; t <= i; t++)
        factor = num_mul(factor, kept(s, h, t));
    return factor;
}
