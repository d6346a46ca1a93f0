/* support/laws.c: see laws.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/kinds.h"
#include "support/laws.h"
#include <string.h>

fv_attention_options laws_options(int kind, int causal)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind)->name;
    o.heads = 2, o.kv_heads = 1, o.dim = 8, o.value_dim = 5, o.causal = causal, o.features = 16;
    kind_small_options(&o);
    return o;
}

void laws_same_bits(const float *a, const float *b, int64_t floats, const char *what, const problem *p)
{
    for (int64_t i = 0; i < floats; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s: %s differs at %lld of %lld: %.9g and %.9g", p->info.options.kind, what,
                     (long long)i, (long long)floats, (double)a[i], (double)b[i]);
}

void laws_take_tokens(problem *to, const problem *from, int64_t at, int64_t n)
{
    size_t f = sizeof(float), count = (size_t)n;
    memcpy(to->q, from->q + at * problem_row_q(from), count * (size_t)problem_row_q(from) * f);
    memcpy(to->k, from->k + at * problem_row_k(from), count * (size_t)problem_row_k(from) * f);
    memcpy(to->v, from->v + at * problem_row_v(from), count * (size_t)problem_row_v(from) * f);
    memcpy(to->dy, from->dy + at * problem_row_y(from), count * (size_t)problem_row_y(from) * f);
}
