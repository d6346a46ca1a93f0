/* test_attention_stream.c: the state as a value, for every kind that streams: token by token = chunk by chunk
 * = whole, merged = run through, the empty state neutral, copies independent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/problem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

/* ---- a stream and its state ---------------------------------------------------------------------- */

/* A case is a kind; behind them come the kernelized kinds with a gate, with decay, with both. */
static int case_count(void)
{
    return 4 * fv_attention_kind_count();
}

static int kind_of(int which)
{
    return which % fv_attention_kind_count();
}

static fv_attention_options options_of(int which, int64_t chunk)
{
    fv_attention_options o;
    int extra = which / fv_attention_kind_count();
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind_of(which))->name;
    o.heads = 4, o.kv_heads = 2, o.dim = 3, o.value_dim = 5, o.causal = 1, o.features = 8, o.chunk = chunk;
    o.max_tokens = kind_has(kind_of(which), KIND_PLACES) ? 70 : 0;
    o.gate = extra & 1, o.decay = extra / 2;
    return o;
}

static problem *make(int which, int64_t L, int64_t chunk, double spread)
{
    fv_attention_options o = options_of(which, chunk);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 21, .spread = spread};
    return problem_make(ctx, &o, &shape);
}

/* Cases that are there and stream. */
static bool streams(int which)
{
    const fv_attention_kind *kind = fv_attention_kind_at(kind_of(which));
    return kind_runs(kind_of(which), 1) && kind->can_stream && (kind->kernelized || which == kind_of(which));
}

static char *new_state(const problem *p, int64_t capacity, size_t *bytes)
{
    assert_int_equal(fv_attention_state_bytes(p->op, capacity, bytes), FV_OK);
    char *state = fv_alloc(ctx, *bytes);
    memset(state, 0xAA, *bytes);
    assert_int_equal(fv_attention_state_init(p->op, capacity, state), FV_OK);
    return state;
}

static fv_attention_io io_from(const problem *p, int64_t token)
{
    fv_attention_io io = problem_io(p);
    io.q += token * (problem_row_q(p) + p->pad);
    io.k += token * (problem_row_k(p) + p->pad);
    io.v += token * (problem_row_v(p) + p->pad);
    io.y += token * (problem_row_y(p) + p->pad);
    if (io.input[FV_INPUT_GATE] != NULL)
        io.input[FV_INPUT_GATE] += token * p->info.options.heads;
    return io;
}

/* Runs tokens [from, to) of the problem through the state, `size` at a time; 0: by step. */
static void run(problem *p, void *state, size_t bytes, int64_t from, int64_t to, int64_t size)
{
    for (int64_t t = from; t < to; t += FV_MAX(size, 1)) {
        int64_t offsets[] = {0, FV_MIN(FV_MAX(size, 1), to - t)};
        fv_layout layout = {1, offsets, NULL};
        fv_attention_io io = io_from(p, t);
        io.state = size > 0 ? state : NULL;
        fv_status status = size > 0 ? fv_attention_forward(p->op, &layout, &io, NULL, p->scratch)
                                    : fv_attention_step(p->op, 1, &io, state, bytes, p->scratch);
        if (status != FV_OK)
            fail_msg("%s: %s", p->info.options.kind, fv_context_message(ctx));
    }
}

/* log2 of the product of the factors of the state's tokens; without gate and decay there is none to keep. */
static void check_decayed(const problem *p, const fv_state_view *view)
{
    const float *gate = p->input[FV_INPUT_GATE], *decay = p->input[FV_INPUT_DECAY];
    if (gate == NULL && decay == NULL)
        assert_null(view->decayed);
    for (int64_t h = 0; view->decayed != NULL && h < 4; h++) {
        double sum = 0;
        for (int64_t t = 0; t < view->tokens; t++)
            sum += (gate != NULL ? log2((double)gate[t * 4 + h]) : 0) +
                   (decay != NULL ? log2((double)decay[h]) : 0);
        assert_true(fabs(view->decayed[h] - sum) <= 1e-12 * fabs(sum));
    }
}

/* The state holds what the first `tokens` of the problem leave, by the specification. */
static void check_state(const problem *p, void *state, int64_t tokens)
{
    fv_state_view view;
    assert_int_equal(fv_attention_state_view(p->op, state, &view), FV_OK);
    assert_int_equal(view.tokens, tokens);
    if (view.keys != NULL) {
        assert_memory_equal(view.keys, p->k, (size_t)(tokens * problem_row_k(p)) * sizeof(float));
        assert_memory_equal(view.values, p->v, (size_t)(tokens * problem_row_v(p)) * sizeof(float));
    }
    if (view.S != NULL) {
        problem first = *p;
        int64_t offsets[] = {0, tokens};
        first.layout = (fv_layout){1, offsets, NULL};
        assert_int_equal(view.features, p->info.feature_count);
        check_decayed(p, &view);
        worst w = problem_check_state(&first, &view);
        worst_check(&w, kind_row_of(p->info.options.kind)->forward, "state", p);
    }
}

/* ---- laws ---------------------------------------------------------------------------------------- */

/* Whole, in chunks of several sizes, and by single steps: each within the specification's tolerance. */
static void streamed_as_whole(void **state)
{
    static const int64_t sizes[] = {0, 1, 2, 7, 16, 41};
    const int64_t L = 41;
    (void)state;
    for (int kind = 0; kind < case_count(); kind++) {
        for (int n = 0; n < FV_COUNT(sizes) * 2 && streams(kind); n++) {
            problem *p = make(kind, L, n % 2 ? 4 : 0, 1);
            size_t bytes;
            char *memory = new_state(p, L, &bytes);
            run(p, memory, bytes, 0, L, sizes[n / 2]);
            worst w = problem_check_forward(p);
            worst_check(&w, kind_row_at(kind_of(kind))->forward, "stream", p);
            check_state(p, memory, L);
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
    for (int n = 0; n < case_count() * 2; n++) {
        if (!streams(n / 2))
            continue;
        fv_attention_options o = options_of(n / 2, 4);
        problem_shape shape = {.sequences = 1, .queries = &L, .pad = 3, .seed = 22};
        problem *p = problem_make(ctx, &o, &shape);
        size_t bytes;
        char *memory = new_state(p, L, &bytes);
        run(p, memory, bytes, 0, L, n % 2 ? 5 : 0);
        worst w = problem_check_forward(p);
        worst_check(&w, kind_row_at(kind_of(n / 2))->forward, "strided stream", p);
        fv_free(ctx, memory);
        problem_free(p);
    }
}

/* Steps and chunks may alternate. */
static void steps_after_chunks(void **state)
{
    (void)state;
    for (int kind = 0; kind < case_count(); kind++) {
        if (!streams(kind))
            continue;
        problem *p = make(kind, 60, 8, 1);
        size_t bytes;
        char *memory = new_state(p, 100, &bytes);
        run(p, memory, bytes, 0, 20, 20);
        run(p, memory, bytes, 20, 27, 0);
        run(p, memory, bytes, 27, 50, 9);
        run(p, memory, bytes, 50, 60, 0);
        worst w = problem_check_forward(p);
        worst_check(&w, kind_row_at(kind_of(kind))->forward, "mixed stream", p);
        check_state(p, memory, 60);
        fv_free(ctx, memory);
        problem_free(p);
    }
}

/* Keys that fall and rise by many powers of two: the running scale follows. */
static void keys_of_all_sizes(void **state)
{
    const int64_t L = 41;
    (void)state;
    for (int kind = 0; kind < case_count(); kind++) {
        for (int64_t size = 0; size <= 10 && streams(kind); size += 5) {
            problem *p = make(kind, L, 4, 1);
            size_t bytes;
            char *memory = new_state(p, L, &bytes);
            for (int64_t t = 0; t < L; t++)
                for (int64_t c = 0; c < problem_row_k(p); c++)
                    p->k[t * problem_row_k(p) + c] *= (float)(12 * sin(0.4 * (double)t));
            run(p, memory, bytes, 0, L, size);
            worst w = problem_check_forward(p);
            worst_check(&w, kind_row_at(kind_of(kind))->forward, "stream of uneven keys", p);
            check_state(p, memory, L);
            fv_free(ctx, memory);
            problem_free(p);
        }
    }
}

/* Several streams in one call are as each alone, to the bit, at different positions too. */
static void streams_side_by_side(void **state)
{
    (void)state;
    for (int kind = 0; kind < case_count(); kind++) {
        if (!streams(kind))
            continue;
        problem *p = make(kind, 24, 0, 1);
        size_t bytes;
        char *memory = new_state(p, 30, &bytes), *alone = new_state(p, 30, &bytes);
        char *both = fv_alloc(ctx, 2 * bytes);
        run(p, alone, bytes, 0, 9, 0);
        memcpy(both, memory, bytes);
        memcpy(both + bytes, alone, bytes);
        fv_attention_io io = io_from(p, 12);
        assert_int_equal(fv_attention_step(p->op, 2, &io, both, bytes, p->scratch), FV_OK);
        float *y = malloc(2 * (size_t)problem_row_y(p) * sizeof *y);
        memcpy(y, p->y + 12 * problem_row_y(p), 2 * (size_t)problem_row_y(p) * sizeof *y);
        run(p, memory, bytes, 12, 13, 0);
        run(p, alone, bytes, 13, 14, 0);
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
    for (int kind = 0; kind < case_count(); kind++) {
        if (!streams(kind))
            continue;
        problem *p = make(kind, 24, 4, 1), *q = make(kind, 24, 4, 1);
        size_t bytes;
        char *one = new_state(p, 30, &bytes), *two = new_state(p, 30, &bytes);
        char *both = fv_alloc(ctx, 2 * bytes);
        memcpy(both, one, bytes);
        memcpy(both + bytes, two, bytes);
        int64_t offsets[] = {0, 10, 24};
        fv_layout layout = {2, offsets, NULL};
        fv_attention_io io = problem_io(p);
        io.state = both;
        assert_int_equal(fv_attention_forward(p->op, &layout, &io, NULL, p->scratch), FV_OK);
        run(q, one, bytes, 0, 10, 10);
        run(q, two, bytes, 10, 24, 14);
        assert_memory_equal(p->y, q->y, 24 * (size_t)problem_row_y(p) * sizeof(float));
        assert_memory_equal(both, one, bytes);
        assert_memory_equal(both + bytes, two, bytes);
        fv_free(ctx, both), fv_free(ctx, one), fv_free(ctx, two);
        problem_free(p), problem_free(q);
    }
}

/* state(A followed by B) = merge(state A, state B), into a third, into A, into B; and the stream goes on from
 * it. */
static void merge(void **state)
{
    const int64_t L = 41;
    (void)state;
    for (int n = 0; n < case_count() * 3; n++) {
        if (!streams(n / 3) || kind_has(kind_of(n / 3), KIND_PLACES))
            continue;
        problem *p = make(n / 3, L, 4, 3);
        size_t bytes;
        char *a = new_state(p, L, &bytes), *b = new_state(p, L, &bytes), *c = new_state(p, L, &bytes);
        run(p, a, bytes, 0, 13, 13);
        run(p, b, bytes, 13, 33, 0);
        char *into = n % 3 == 0 ? c : n % 3 == 1 ? a : b;
        assert_int_equal(fv_attention_state_merge(p->op, into, a, b), FV_OK);
        check_state(p, into, 33);
        run(p, into, bytes, 33, L, 0);
        check_state(p, into, L);
        fv_free(ctx, a), fv_free(ctx, b), fv_free(ctx, c);
        problem_free(p);
    }
}

/* Where features depend on positions, those of the second state are wrong behind the first: refused. */
static void positions_do_not_merge(void **state)
{
    (void)state;
    for (int kind = 0; kind < case_count(); kind++) {
        if (!streams(kind) || !kind_has(kind_of(kind), KIND_PLACES))
            continue;
        problem *p = make(kind, 20, 0, 1);
        size_t bytes;
        char *a = new_state(p, 20, &bytes), *b = new_state(p, 20, &bytes);
        run(p, a, bytes, 0, 10, 0);
        run(p, b, bytes, 10, 20, 0);
        assert_int_equal(fv_attention_state_merge(p->op, a, a, b), FV_ERR_USAGE);
        fv_free(ctx, a), fv_free(ctx, b);
        problem_free(p);
    }
}

/* The empty state changes nothing, in any bit, on either side. */
static void the_empty_state_is_neutral(void **state)
{
    (void)state;
    for (int kind = 0; kind < case_count(); kind++) {
        if (!streams(kind) || kind_has(kind_of(kind), KIND_PLACES))
            continue;
        problem *p = make(kind, 19, 0, 1);
        size_t bytes;
        char *a = new_state(p, 19, &bytes), *empty = new_state(p, 19, &bytes), *c = new_state(p, 19, &bytes);
        run(p, a, bytes, 0, 19, 0);
        assert_int_equal(fv_attention_state_merge(p->op, c, a, empty), FV_OK);
        assert_memory_equal(a, c, bytes);
        assert_int_equal(fv_attention_state_init(p->op, 19, c), FV_OK);
        assert_int_equal(fv_attention_state_merge(p->op, c, empty, a), FV_OK);
        assert_memory_equal(a, c, bytes);
        assert_int_equal(fv_attention_state_merge(p->op, empty, empty, empty), FV_OK);
        check_state(p, empty, 0);
        fv_free(ctx, a), fv_free(ctx, empty), fv_free(ctx, c);
        problem_free(p);
    }
}

/* (AB)C and A(BC) hold the same sums. */
static void merge_is_associative(void **state)
{
    (void)state;
    for (int kind = 0; kind < case_count(); kind++) {
        if (!streams(kind) || kind_has(kind_of(kind), KIND_PLACES))
            continue;
        problem *p = make(kind, 30, 0, 3);
        size_t bytes;
        char *a = new_state(p, 30, &bytes), *b = new_state(p, 30, &bytes), *c = new_state(p, 30, &bytes);
        char *left = new_state(p, 30, &bytes), *right = new_state(p, 30, &bytes);
        run(p, a, bytes, 0, 10, 0);
        run(p, b, bytes, 10, 11, 0);
        run(p, c, bytes, 11, 30, 0);
        assert_int_equal(fv_attention_state_merge(p->op, left, a, b), FV_OK);
        assert_int_equal(fv_attention_state_merge(p->op, left, left, c), FV_OK);
        assert_int_equal(fv_attention_state_merge(p->op, right, b, c), FV_OK);
        assert_int_equal(fv_attention_state_merge(p->op, right, a, right), FV_OK);
        check_state(p, left, 30);
        check_state(p, right, 30);
        fv_free(ctx, a), fv_free(ctx, b), fv_free(ctx, c), fv_free(ctx, left), fv_free(ctx, right);
        problem_free(p);
    }
}

/* A state is a value: a copy goes its own way, a saved one is taken up again with the same bits. */
static void a_state_is_a_value(void **state)
{
    (void)state;
    for (int kind = 0; kind < case_count(); kind++) {
        if (!streams(kind))
            continue;
        problem *p = make(kind, 30, 4, 1);
        size_t bytes, y_bytes = 15 * (size_t)problem_row_y(p) * sizeof(float);
        char *a = new_state(p, 30, &bytes), *copy = fv_alloc(ctx, bytes), *end = fv_alloc(ctx, bytes);
        float *y = malloc(y_bytes);
        run(p, a, bytes, 0, 15, 5);
        memcpy(copy, a, bytes);
        run(p, a, bytes, 15, 30, 5);
        memcpy(y, p->y + 15 * problem_row_y(p), y_bytes);
        memcpy(end, a, bytes);
        memset(a, 0xAA, bytes);
        run(p, copy, bytes, 15, 30, 5);
        assert_memory_equal(y, p->y + 15 * problem_row_y(p), y_bytes);
        assert_memory_equal(end, copy, bytes);
        free(y);
        fv_free(ctx, a), fv_free(ctx, copy), fv_free(ctx, end);
        problem_free(p);
    }
}

/* Memory is the caller's. */
static void steps_do_not_allocate(void **state)
{
    (void)state;
    for (int kind = 0; kind < case_count(); kind++) {
        if (!streams(kind))
            continue;
        problem *p = make(kind, 30, 0, 1);
        size_t bytes;
        char *a = new_state(p, 30, &bytes);
        fv_context_reset_peak(ctx);
        size_t before = fv_context_bytes(ctx);
        run(p, a, bytes, 0, 20, 0);
        run(p, a, bytes, 20, 30, 5);
        assert_int_equal(fv_context_peak_bytes(ctx), before);
        fv_free(ctx, a);
        problem_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streamed_as_whole),
        cmocka_unit_test(strided_streams),
        cmocka_unit_test(steps_after_chunks),
        cmocka_unit_test(keys_of_all_sizes),
        cmocka_unit_test(streams_side_by_side),
        cmocka_unit_test(packed_streams),
        cmocka_unit_test(merge),
        cmocka_unit_test(positions_do_not_merge),
        cmocka_unit_test(the_empty_state_is_neutral),
        cmocka_unit_test(merge_is_associative),
        cmocka_unit_test(a_state_is_a_value),
        cmocka_unit_test(steps_do_not_allocate),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
