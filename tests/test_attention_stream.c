/* test_attention_stream.c: the state as a value, for every kind that streams: token by token = chunk by chunk
 * = whole, copies independent. Merging has its own program, test_attention_merge.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/counting.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/stream.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Whole, in chunks of several sizes, and by single steps: each within the specification's tolerance. */
static void streamed_as_whole(void **state)
{
    static const int64_t sizes[] = {0, 1, 2, 7, 16, 41};
    const int64_t L = 41;
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        for (int n = 0; n < FV_COUNT(sizes) * 2 && stream_runs(kind); n++) {
            problem *p = stream_make(ctx, kind, L, n % 2 ? 4 : 0, 1);
            size_t bytes;
            char *memory = stream_state(p, L, &bytes);
            stream_run(p, memory, bytes, 0, L, sizes[n / 2]);
            worst w = problem_check_forward(p);
            worst_check(&w, kind_row_at(stream_kind(kind))->forward, "stream", p);
            stream_check(p, memory, L);
            fv_free(ctx, memory);
            problem_free(p);
        }
    }
}

/* Tokens may lie apart in the tensors; the state is dense all the same. */
static void strided_streams(void **state)
{
    static const int64_t L = 21;
    (void)state;
    for (int n = 0; n < stream_cases() * 2; n++) {
        if (!stream_runs(n / 2))
            continue;
        fv_attention_options o = stream_options(n / 2, 4);
        problem_shape shape = {.sequences = 1, .queries = &L, .pad = 3, .seed = 22};
        problem *p = problem_make(ctx, &o, &shape);
        size_t bytes;
        char *memory = stream_state(p, L, &bytes);
        stream_run(p, memory, bytes, 0, L, n % 2 ? 5 : 0);
        worst w = problem_check_forward(p);
        worst_check(&w, kind_row_at(stream_kind(n / 2))->forward, "strided stream", p);
        fv_free(ctx, memory);
        problem_free(p);
    }
}

/* Steps and chunks may alternate. */
static void steps_after_chunks(void **state)
{
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        if (!stream_runs(kind))
            continue;
        problem *p = stream_make(ctx, kind, 60, 8, 1);
        size_t bytes;
        char *memory = stream_state(p, 100, &bytes);
        stream_run(p, memory, bytes, 0, 20, 20);
        stream_run(p, memory, bytes, 20, 27, 0);
        stream_run(p, memory, bytes, 27, 50, 9);
        stream_run(p, memory, bytes, 50, 60, 0);
        worst w = problem_check_forward(p);
        worst_check(&w, kind_row_at(stream_kind(kind))->forward, "mixed stream", p);
        stream_check(p, memory, 60);
        fv_free(ctx, memory);
        problem_free(p);
    }
}

/* Keys that fall and rise by many powers of two: the running scale follows. */
static void keys_of_all_sizes(void **state)
{
    const int64_t L = 41;
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        for (int64_t size = 0; size <= 10 && stream_runs(kind); size += 5) {
            problem *p = stream_make(ctx, kind, L, 4, 1);
            size_t bytes;
            char *memory = stream_state(p, L, &bytes);
            for (int64_t t = 0; t < L; t++)
                for (int64_t c = 0; c < problem_row_k(p); c++)
                    p->k[t * problem_row_k(p) + c] *= (float)(12 * sin(0.4 * (double)t));
            stream_run(p, memory, bytes, 0, L, size);
            worst w = problem_check_forward(p);
            worst_check(&w, kind_row_at(stream_kind(kind))->forward, "stream of uneven keys", p);
            stream_check(p, memory, L);
            fv_free(ctx, memory);
            problem_free(p);
        }
    }
}

/* Several streams in one call are as each alone, to the bit, at different positions too. */
static void streams_side_by_side(void **state)
{
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        if (!stream_runs(kind))
            continue;
        problem *p = stream_make(ctx, kind, 24, 0, 1);
        size_t bytes;
        char *memory = stream_state(p, 30, &bytes), *alone = stream_state(p, 30, &bytes);
        char *both = fv_alloc(ctx, 2 * bytes);
        stream_run(p, alone, bytes, 0, 9, 0);
        memcpy(both, memory, bytes);
        memcpy(both + bytes, alone, bytes);
        fv_attention_io io = stream_io(p, 12);
        assert_int_equal(fv_attention_step(p->op, 2, &io, both, bytes, p->scratch), FV_OK);
        float *y = malloc(2 * (size_t)problem_row_y(p) * sizeof *y);
        memcpy(y, p->y + 12 * problem_row_y(p), 2 * (size_t)problem_row_y(p) * sizeof *y);
        stream_run(p, memory, bytes, 12, 13, 0);
        stream_run(p, alone, bytes, 13, 14, 0);
        assert_memory_equal(y, p->y + 12 * problem_row_y(p), 2 * (size_t)problem_row_y(p) * sizeof *y);
        assert_memory_equal(both, memory, bytes);
        assert_memory_equal(both + bytes, alone, bytes);
        free(y);
        fv_free(ctx, both), fv_free(ctx, memory), fv_free(ctx, alone);
        problem_free(p);
    }
}

/* Packed sequences each continue a state of their own. */
static void packed_streams(void **state)
{
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        if (!stream_runs(kind))
            continue;
        problem *p = stream_make(ctx, kind, 24, 4, 1), *q = stream_make(ctx, kind, 24, 4, 1);
        size_t bytes;
        char *one = stream_state(p, 30, &bytes), *two = stream_state(p, 30, &bytes);
        char *both = fv_alloc(ctx, 2 * bytes);
        memcpy(both, one, bytes);
        memcpy(both + bytes, two, bytes);
        int64_t offsets[] = {0, 10, 24};
        fv_layout layout = {2, offsets, NULL};
        fv_attention_io io = problem_io(p);
        io.state = both;
        assert_int_equal(fv_attention_forward(p->op, &layout, &io, NULL, p->scratch), FV_OK);
        stream_run(q, one, bytes, 0, 10, 10);
        stream_run(q, two, bytes, 10, 24, 14);
        assert_memory_equal(p->y, q->y, 24 * (size_t)problem_row_y(p) * sizeof(float));
        assert_memory_equal(both, one, bytes);
        assert_memory_equal(both + bytes, two, bytes);
        fv_free(ctx, both), fv_free(ctx, one), fv_free(ctx, two);
        problem_free(p), problem_free(q);
    }
}

/* A state is a value: a copy goes its own way, a saved one is taken up again with the same bits. */
static void a_state_is_a_value(void **state)
{
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        if (!stream_runs(kind))
            continue;
        problem *p = stream_make(ctx, kind, 30, 4, 1);
        size_t bytes, y_bytes = 15 * (size_t)problem_row_y(p) * sizeof(float);
        char *a = stream_state(p, 30, &bytes), *copy = fv_alloc(ctx, bytes), *end = fv_alloc(ctx, bytes);
        float *y = malloc(y_bytes);
        stream_run(p, a, bytes, 0, 15, 5);
        memcpy(copy, a, bytes);
        stream_run(p, a, bytes, 15, 30, 5);
        memcpy(y, p->y + 15 * problem_row_y(p), y_bytes);
        memcpy(end, a, bytes);
        memset(a, 0xAA, bytes);
        stream_run(p, copy, bytes, 15, 30, 5);
        assert_memory_equal(y, p->y + 15 * problem_row_y(p), y_bytes);
        assert_memory_equal(end, copy, bytes);
        free(y);
        fv_free(ctx, a), fv_free(ctx, copy), fv_free(ctx, end);
        problem_free(p);
    }
}

/* Patterns of many shapes, in tiles of a chunk and of the usual size: windows shorter and longer than a call, rings that
 * turn within one, blocks that begin in one call and end in another. */
static void patterns_of_many_shapes(void **state)
{
    static const struct {
        const char *kind;
        int64_t window, stride, block, globals, random_blocks;
    } shapes[] = {
        {"window", 0, 0, 0, -1, -1},      {"window", 1, 0, 0, -1, -1},    {"window", 40, 0, 0, -1, -1},
        {"window", 700, 0, 0, -1, -1},    {"strided", 9, 2, 0, -1, -1},   {"strided", 0, 1, 0, -1, -1},
        {"strided", 2, 100, 0, -1, -1},   {"fixed", -1, 0, 5, 2, -1},     {"fixed", -1, 0, 64, 3, -1},
        {"fixed", -1, 0, 300, 0, -1},     {"longformer", 0, 0, 0, 7, -1}, {"longformer", 5, 0, 0, 0, -1},
        {"longformer", 33, 0, 0, 90, -1}, {"bigbird", -1, 0, 5, 11, 2},   {"bigbird", -1, 0, 40, 3, 1},
    };
    static const int64_t L = 620, cuts[] = {0, 3, 4, 130, 131, 300, 301, 620};
    (void)state;
    for (int n = 0; n < 3 * FV_COUNT(shapes); n++) {
        fv_attention_options o;
        fv_attention_options_init(&o);
        o.kind = shapes[n / 3].kind, o.window = shapes[n / 3].window, o.stride = shapes[n / 3].stride;
        o.block = shapes[n / 3].block, o.globals = shapes[n / 3].globals;
        o.random_blocks = shapes[n / 3].random_blocks, o.causal = 1, o.dim = 4, o.heads = 2, o.kv_heads = 1;
        o.chunk = n % 3 == 0 ? 6 : 0;
        problem_shape shape = {.sequences = 1, .queries = &L, .pad = 2, .seed = 24};
        problem *p = problem_make(ctx, &o, &shape);
        size_t bytes;
        char *memory = stream_state(p, L, &bytes);
        for (int k = 0; k + 1 < FV_COUNT(cuts) && n % 3 < 2; k++)
            stream_run(p, memory, bytes, cuts[k], cuts[k + 1], k % 2 ? 1 : cuts[k + 1] - cuts[k]);
        stream_run(p, memory, bytes, n % 3 < 2 ? L : 0, L, 0);
        worst w = problem_check_forward(p);
        worst_check(&w, 1, "stream of a pattern", p);
        fv_free(ctx, memory);
        problem_free(p);
    }
}

/* What is no number reaches the rows that the whole sequence's forward shows it to, and no others. */
static void what_is_no_number(void **state)
{
    static const int64_t L = 30, sizes[] = {0, 4, 30};
    (void)state;
    for (int n = 0; n < stream_cases() * FV_COUNT(sizes); n++) {
        int which = n / FV_COUNT(sizes);
        if (!stream_runs(which))
            continue;
        problem *p = stream_make(ctx, which, L, 4, 1);
        size_t bytes, floats = (size_t)(L * problem_row_y(p));
        char *memory = stream_state(p, L, &bytes);
        float *whole = malloc(floats * sizeof *whole);
        p->v[11 * problem_row_v(p) + 2] = NAN;
        p->v[17 * problem_row_v(p) + 7] = INFINITY;
        problem_forward(p, false);
        memcpy(whole, p->y, floats * sizeof *whole);
        stream_run(p, memory, bytes, 0, L, sizes[n % FV_COUNT(sizes)]);
        for (size_t i = 0; i < floats; i++)
            if (!isfinite(whole[i]) != !isfinite(p->y[i]))
                fail_msg("%s: entry %zu is %g, of the whole %g", p->info.options.kind, i, (double)p->y[i],
                         (double)whole[i]);
        free(whole);
        fv_free(ctx, memory);
        problem_free(p);
    }
}

/* A ring takes any number of tokens, whatever capacity was asked for; once it is full none costs more work than an
 * earlier one. */
static void rings_are_never_full(void **state)
{
    enum { FULL = 10 };
    static const int64_t L = 200;
    fv_context *counted = problem_context(NULL, 1);
    fv_kernels base = *counted->kernels;
    (void)state;
    counting_table(counted->kernels, &base);
    for (int which = 0; which < fv_attention_kind_count(); which++) {
        int64_t first = 0;
        size_t bytes, more;
        if (!stream_runs(which) || !kind_has(which, KIND_RING))
            continue;
        problem *p = stream_make(counted, which, L, 0, 1);
        char *memory = stream_state(p, 0, &bytes);
        assert_int_equal(fv_attention_state_bytes(p->op, 2 * L, &more), FV_OK);
        assert_true(bytes == more && bytes == p->need.state);
        for (int64_t t = 0; t < L; t++) {
            counting_reset();
            stream_run(p, memory, bytes, t, t + 1, 0);
            first = t == FULL ? (int64_t)counting_work() : first;
            assert_true(t < FULL || (int64_t)counting_work() == first);
        }
        assert_int_equal(fv_attention_state_set_tokens(p->op, memory, 1000000), FV_OK);
        counting_reset();
        stream_run(p, memory, bytes, 0, 1, 0);
        assert_int_equal((int64_t)counting_work(), first);
        fv_free(counted, memory);
        problem_free(p);
    }
    fv_context_destroy(counted);
}

/* Memory is the caller's. */
static void steps_do_not_allocate(void **state)
{
    (void)state;
    for (int kind = 0; kind < stream_cases(); kind++) {
        if (!stream_runs(kind))
            continue;
        problem *p = stream_make(ctx, kind, 30, 0, 1);
        size_t bytes;
        char *a = stream_state(p, 30, &bytes);
        fv_context_reset_peak(ctx);
        size_t before = fv_context_bytes(ctx);
        stream_run(p, a, bytes, 0, 20, 0);
        stream_run(p, a, bytes, 20, 30, 5);
        assert_int_equal(fv_context_peak_bytes(ctx), before);
        fv_free(ctx, a);
        problem_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streamed_as_whole),     cmocka_unit_test(strided_streams),
        cmocka_unit_test(steps_after_chunks),    cmocka_unit_test(keys_of_all_sizes),
        cmocka_unit_test(streams_side_by_side),  cmocka_unit_test(packed_streams),
        cmocka_unit_test(a_state_is_a_value),    cmocka_unit_test(patterns_of_many_shapes),
        cmocka_unit_test(what_is_no_number),     cmocka_unit_test(rings_are_never_full),
        cmocka_unit_test(steps_do_not_allocate),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
