/* support/spec_decay.c: factors of single entries: gate, decay, position bias in the kernel. */
#include "support/spec.h"

bool spec_has_pair_factor(const spec *s)
{
    return s->options.gate || s->options.decay || s->options.position_bias == FV_POSITION_BIAS_KERNEL;
}

num spec_pair_factor(const spec *s, int64_t h, int64_t i, int64_t j)
{
    (void)s, (void)h, (void)i, (void)j;
    return num_input(1, 0);
}
