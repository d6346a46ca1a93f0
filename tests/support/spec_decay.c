/* support/spec_decay.c: factors of single entries: gate, decay, position bias in the kernel. */
#include "support/spec.h"

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

bool spec_has_pair_factors(const spec *s)
{
    return s->options.gate || s->options.decay || s->options.position_bias == FV_POSITION_BIAS_KERNEL;
}

void spec_pair_factors(const spec *s, int64_t h, int64_t i, num *row)
{
    int64_t n = spec_sequence_of_query(s, i), span = s->options.position_span, H = s->options.heads;
    int64_t first = spec_key_offsets(s)[n], last = spec_key_offsets(s)[n + 1],
            at = i - s->layout.offsets_q[n];
    num since = num_input(1, 0);
    if (s->options.position_bias == FV_POSITION_BIAS_KERNEL)
        for (int64_t j = first; j < last; j++) {
            int64_t index = h * (2 * span - 1) + at - (j - first) + span - 1;
            /* Through a logarithm of another base: its argument is rounded once. */
            row[j] = num_mul(row[j], num_exp(num_scaled(1, spec_input(s, FV_INPUT_POSITION_BIAS, index))));
        }
    if (!s->options.gate && !s->options.decay)
        return;
    for (int64_t j = first + at; j >= first; j--) { /* causal: there is no key behind the query */
        num one = num_input(1, 0);
        num own = s->options.gate ? num_sub(one, spec_input(s, FV_INPUT_GATE, j * H + h)) : one;
        row[j] = num_mul(row[j], num_mul(own, since));
        since = num_mul(since, kept(s, h, j));
    }
}
