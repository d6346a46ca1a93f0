/* test_attention_exact.c: exact attention where threads share a head: few heads, mixed lengths. Its results are those of
 * one thread in every bit, and those of the specification. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/laws.h"
#include <string.h>

static const int thread_counts[] = {1, 2, 3, 8};
static fv_context *contexts[FV_COUNT(thread_counts)];

static int make_contexts(void **state)
{
    (void)state;
    for (int i = 0; i < FV_COUNT(contexts); i++)
        contexts[i] = problem_context(NULL, thread_counts[i]);
    return 0;
}

static int destroy_contexts(void **state)
{
    (void)state;
    for (int i = 0; i < FV_COUNT(contexts); i++)
        fv_context_destroy(contexts[i]);
    return 0;
}

/* Heads, key heads, and tokens of a block of queries; a tile has twice as many keys. */
typedef struct head_shape {
    int heads, kv_heads, chunk;
} head_shape;

static const head_shape shapes[] = {{1, 1, 4}, {2, 2, 4}, {3, 3, 4}, {2, 1, 4},
                                    {6, 3, 4}, {6, 2, 5}, {9, 9, 4}};
/* One long sequence among others, and several. */
static const int64_t one_long[] = {0, 7, 203, 1, 30}, several[] = {61, 90, 0, 75};
static const int64_t one_long_keys[] = {5, 0, 91, 300, 40}, several_keys[] = {100, 33, 8, 75};
enum { CASES = 2 * 3 * FV_COUNT(shapes) }; /* lengths; causal, not, cross */

static fv_attention_options options_of(const head_shape *s, int causal)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = "exact", o.heads = s->heads, o.kv_heads = s->kv_heads, o.chunk = s->chunk;
    o.dim = 8, o.value_dim = 5, o.causal = causal;
    return o;
}

static problem *make_case(fv_context *with, int n)
{
    int lengths = n % 2, way = n / 2 % 3;
    fv_attention_options o = options_of(&shapes[n / 6], way == 0);
    problem_shape shape = {.sequences = lengths ? FV_COUNT(several) : FV_COUNT(one_long),
                           .queries = lengths ? several : one_long,
                           .keys = lengths ? several_keys : one_long_keys,
                           .pad = 3,
                           .seed = 40};
    if (way < 2)
        shape.keys = NULL;
    return problem_make(with, &o, &shape);
}

static void same_results(const problem *a, const problem *b)
{
    laws_same_bits(a->y, b->y, a->tq * (problem_row_y(a) + a->pad), "y with other threads", a);
    laws_same_bits(a->dq, b->dq, a->tq * (problem_row_q(a) + a->pad), "dq with other threads", a);
    laws_same_bits(a->dk, b->dk, a->tk * (problem_row_k(a) + a->pad), "dk with other threads", a);
    laws_same_bits(a->dv, b->dv, a->tk * (problem_row_v(a) + a->pad), "dv with other threads", a);
}

static void run(problem *p)
{
    problem_forward(p, true);
    problem_backward(p);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    for (int n = 0; n < CASES; n++) {
        problem *one = make_case(contexts[0], n);
        run(one);
        for (int i = 1; i < FV_COUNT(contexts); i++) {
            problem *p = make_case(contexts[i], n);
            run(p);
            same_results(one, p);
            problem_free(p);
        }
        problem_free(one);
    }
}

/* Tiles as they are without an option, whose products have other edges: the last tile and block are parts. */
static void threads_change_no_bit_of_whole_tiles(void **state)
{
    (void)state;
    for (int causal = 0; causal <= 1; causal++) {
        const int64_t L = 2300;
        fv_attention_options o = options_of(&(head_shape){3, 3, 0}, causal);
        problem_shape tokens = {.sequences = 1, .queries = &L, .seed = 41};
        o.dim = o.value_dim = 32;
        problem *one = problem_make(contexts[0], &o, &tokens);
        run(one);
        for (int i = 1; i < FV_COUNT(contexts); i++) {
            problem *p = problem_make(contexts[i], &o, &tokens);
            run(p);
            same_results(one, p);
            problem_free(p);
        }
        problem_free(one);
    }
}

static void gradients_of_shared_heads(void **state)
{
    (void)state;
    double bound = kind_row_of("exact")->gradient;
    for (int n = 0; n < CASES; n += 5) {
        problem *p = make_case(contexts[1 + n % 3], n);
        run(p);
        worst gradient = problem_check_gradients(p, 1);
        worst_check(&gradient, bound, "gradient of a shared head", p);
        problem_free(p);
    }
}

/* The gradient if it is wanted, from 0. */
static float *if_wanted(bool wanted, float *gradient, int64_t floats)
{
    memset(gradient, 0, (size_t)floats * sizeof *gradient);
    return wanted ? gradient : NULL;
}

/* Of dq, dk and dv those that the bits of `which` name. */
static void backward_of(const problem *from, problem *to, int which)
{
    fv_attention_io io = problem_io(from);
    fv_attention_grad grad = {
        .dy = from->dy,
        .dq = if_wanted(which & 1, to->dq, to->tq * problem_row_q(to)),
        .dk = if_wanted(which & 2, to->dk, to->tk * problem_row_k(to)),
        .dv = if_wanted(which & 4, to->dv, to->tk * problem_row_v(to)),
    };
    assert_int_equal(fv_attention_backward(from->op, &from->layout, &io, &grad, from->saved, from->scratch),
                     FV_OK);
}

/* With a gradient of position bias heads stay whole; without one they are shared. Each gradient is the same whichever
 * others are asked for, and whoever shares the head. */
static void gradients_alone(void **state)
{
    (void)state;
    for (int causal = 0; causal <= 1; causal++) {
        fv_attention_options o = options_of(&(head_shape){1, 1, 4}, causal);
        problem_shape tokens = {FV_COUNT(one_long), one_long, NULL, 0, 0, 42};
        o.position_bias = FV_POSITION_BIAS_KERNEL, o.position_span = 256;
        problem *all = problem_make(contexts[1], &o, &tokens);
        run(all);
        for (int which = 1; which < 8; which++) {
            problem *p = problem_make(contexts[1], &o, &tokens);
            backward_of(all, p, which);
            if (which & 1)
                laws_same_bits(all->dq, p->dq, all->tq * problem_row_q(all), "dq alone", all);
            if (which & 2)
                laws_same_bits(all->dk, p->dk, all->tk * problem_row_k(all), "dk alone", all);
            if (which & 4)
                laws_same_bits(all->dv, p->dv, all->tk * problem_row_v(all), "dv alone", all);
            problem_free(p);
        }
        problem_free(all);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(threads_change_no_bit_of_whole_tiles),
        cmocka_unit_test(gradients_of_shared_heads),
        cmocka_unit_test(gradients_alone),
    };
    return cmocka_run_group_tests(tests, make_contexts, destroy_contexts);
}
