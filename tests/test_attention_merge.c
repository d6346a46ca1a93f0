/* test_attention_merge.c: states as a monoid, for every kind that streams: merged = run through, associative, the empty
 * state neutral; in place as elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/stream.h"

/* state(A followed by B) = merge(state A, state B), into a third, into A, into B; and the stream goes on from
 * it. Parts are longer and shorter than what a window and global tokens keep. */
static void merge(void **state)
{
    static const int64_t L = 41, cuts[][2] = {{13, 33}, {1, 2}, {1, 33}, {2, 5}, {30, 31}, {4, 6}};
    (void)state;
    for (int n = 0; n < stream_cases() * 3 * FV_COUNT(cuts); n++) {
        int which = n / (3 * FV_COUNT(cuts));
        int64_t cut = cuts[n / 3 % FV_COUNT(cuts)][0], end = cuts[n / 3 % FV_COUNT(cuts)][1];
        if (!stream_runs(which) || kind_has(stream_kind(which), KIND_DATED))
            continue;
        problem *p = stream_make(ctx, which, L, 4, 3);
        size_t bytes;
        char *a = stream_state(p, L, &bytes), *b = stream_state(p, L, &bytes),
             *c = stream_state(p, L, &bytes);
        stream_run(p, a, bytes, 0, cut, cut);
        stream_run(p, b, bytes, cut, end, 0);
        char *into = n % 3 == 0 ? c : n % 3 == 1 ? a : b;
        assert_int_equal(fv_attention_state_merge(p->op, into, a, b), FV_OK);
        stream_check(p, into, end);
        stream_run(p, into, bytes, end, L, 0);
        stream_check(p, into, L);
        fv_free(ctx, a), fv_free(ctx, b), fv_free(ctx, c);
        problem_free(p);
    }
}

/* A state behind itself: in place as elsewhere. */
static void doubled(void **state)
{
    (void)state;
    for (int n = 0; n < stream_cases() * 6; n++) {
        if (!stream_runs(n / 6) || kind_has(stream_kind(n / 6), KIND_DATED))
            continue;
        problem *p = stream_make(ctx, n / 6, 13, 4, 1);
        size_t bytes;
        char *a = stream_state(p, 26, &bytes), *c = stream_state(p, 26, &bytes);
        stream_run(p, a, bytes, 0, n % 6 == 5 ? 13 : n % 6, 0);
        assert_int_equal(fv_attention_state_merge(p->op, c, a, a), FV_OK);
        assert_int_equal(fv_attention_state_merge(p->op, a, a, a), FV_OK);
        assert_memory_equal(a, c, bytes);
        fv_free(ctx, a), fv_free(ctx, c);
        problem_free(p);
    }
}

/* Where features depend on positions, those of the second state are wrong behind the first: refused. */
static void positions_do_not_merge(void **state)
{
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        if (!stream_runs(kind) || !kind_has(stream_kind(kind), KIND_DATED))
            continue;
        problem *p = stream_make(ctx, kind, 20, 0, 1);
        size_t bytes;
        char *a = stream_state(p, 20, &bytes), *b = stream_state(p, 20, &bytes);
        stream_run(p, a, bytes, 0, 10, 0);
        stream_run(p, b, bytes, 10, 20, 0);
        assert_int_equal(fv_attention_state_merge(p->op, a, a, b), FV_ERR_USAGE);
        fv_free(ctx, a), fv_free(ctx, b);
        problem_free(p);
    }
}

/* The empty state changes nothing, in any bit, on either side. */
static void the_empty_state_is_neutral(void **state)
{
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        if (!stream_runs(kind) || kind_has(stream_kind(kind), KIND_DATED))
            continue;
        problem *p = stream_make(ctx, kind, 19, 0, 1);
        size_t bytes;
        char *a = stream_state(p, 19, &bytes), *empty = stream_state(p, 19, &bytes),
             *c = stream_state(p, 19, &bytes);
        stream_run(p, a, bytes, 0, 19, 0);
        assert_int_equal(fv_attention_state_merge(p->op, c, a, empty), FV_OK);
        assert_memory_equal(a, c, bytes);
        assert_int_equal(fv_attention_state_init(p->op, 19, c), FV_OK);
        assert_int_equal(fv_attention_state_merge(p->op, c, empty, a), FV_OK);
        assert_memory_equal(a, c, bytes);
        assert_int_equal(fv_attention_state_merge(p->op, empty, empty, empty), FV_OK);
        stream_check(p, empty, 0);
        fv_free(ctx, a), fv_free(ctx, empty), fv_free(ctx, c);
        problem_free(p);
    }
}

/* (AB)C and A(BC) hold the same sums. */
static void merge_is_associative(void **state)
{
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        if (!stream_runs(kind) || kind_has(stream_kind(kind), KIND_DATED))
            continue;
        problem *p = stream_make(ctx, kind, 30, 0, 3);
        size_t bytes;
        char *a = stream_state(p, 30, &bytes), *b = stream_state(p, 30, &bytes),
             *c = stream_state(p, 30, &bytes);
        char *left = stream_state(p, 30, &bytes), *right = stream_state(p, 30, &bytes);
        stream_run(p, a, bytes, 0, 10, 0);
        stream_run(p, b, bytes, 10, 11, 0);
        stream_run(p, c, bytes, 11, 30, 0);
        assert_int_equal(fv_attention_state_merge(p->op, left, a, b), FV_OK);
        assert_int_equal(fv_attention_state_merge(p->op, left, left, c), FV_OK);
        assert_int_equal(fv_attention_state_merge(p->op, right, b, c), FV_OK);
        assert_int_equal(fv_attention_state_merge(p->op, right, a, right), FV_OK);
        stream_check(p, left, 30);
        stream_check(p, right, 30);
        fv_free(ctx, a), fv_free(ctx, b), fv_free(ctx, c), fv_free(ctx, left), fv_free(ctx, right);
        problem_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merge),
        cmocka_unit_test(doubled),
        cmocka_unit_test(positions_do_not_merge),
        cmocka_unit_test(the_empty_state_is_neutral),
        cmocka_unit_test(merge_is_associative),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
