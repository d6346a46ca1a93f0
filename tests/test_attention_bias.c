/* test_attention_bias.c: relative positions inside the kernel against the specification. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/mechanism.h"
#include "support/kinds.h"
#include "support/problem.h"
#include <math.h>

static fv_context *ctx;

static int setup(void **state)
{
    (void)state;
    ctx = problem_context(NULL, 2);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    size_t left = fv_context_bytes(ctx);
    fv_context_destroy(ctx);
    return left == 0 ? 0 : -1;
}

static void check(const fv_attention_options *o, const problem_shape *shape, double size)
{
    problem *p = problem_make(ctx, o, shape);
    const kind_row *row = kind_row_of(o->kind);
    for (int64_t i = 0; i < p->input_floats[FV_INPUT_POSITION_BIAS]; i++)
        p->input[FV_INPUT_POSITION_BIAS][i] *= (float)size;
    problem_forward(p, true);
    problem_backward(p);
    worst forward = problem_check_forward(p), gradient = problem_check_gradients(p, 8);
    worst rows = problem_check_rows(p);
    worst_check(&forward, row->forward, "forward", p);
    worst_check(&gradient, row->gradient, "gradient", p);
    worst_check(&rows, row->forward, "rows", p);
    problem_free(p);
}

static void against_the_specification(void **state)
{
    static const int64_t lengths[] = {0, 9, 1, 13}, keys[] = {3, 7, 0, 14};
    (void)state;
    for (int kind = 0; kind < fv_attention_kind_count(); kind++) {
        for (int n = 0; n < 6; n++) {
            fv_attention_options o;
            fv_attention_options_init(&o);
            o.kind = fv_attention_kind_at(kind)->name;
            if (!fv_mechanism_find(o.kind)->position_kernel)
                break;
            o.heads = 4, o.kv_heads = n % 3 ? 2 : 4, o.dim = 3, o.value_dim = 2, o.features = 4;
            o.causal = n % 2, o.chunk = n < 2 ? 4 : n < 4 ? 0 : 5;
            o.position_bias = FV_POSITION_BIAS_KERNEL, o.position_span = 14 + n % 3;
            problem_shape shape = {FV_COUNT(lengths), lengths, !o.causal && n > 1 ? keys : NULL,
                                   n % 2 ? 2 : 0,     0,       (uint64_t)n};
            /* A row to which most keys give nothing may have only far smaller weights. */
            check(&o, &shape, n >= 4 && !kind_has(kind, KIND_EMPTY) ? 60 : 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(against_the_specification)};
    return cmocka_run_group_tests(tests, setup, teardown);
}
