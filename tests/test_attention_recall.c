/* test_attention_recall.c: the state of a bidirectional operator, for every kind that recalls: keys added in pieces and
 * queries read in pieces are cross attention as a whole; reading changes nothing and costs the same whatever was
 * added; packed = each alone; halves of the keys merge; what cannot be is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/counting.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/problem.h"
#include "support/scratch.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- cases --------------------------------------------------------------------------------------- */

enum { QUERIES = 13, KEYS = 41, PLACES = 64 };

/* A case is a kind; behind them come the kinds with rotary positions, with ppSBN, with both. */
static int case_count(void)
{
    return 4 * fv_attention_kind_count();
}

static int kind_of(int which)
{
    return which % fv_attention_kind_count();
}

static bool recalls(int which)
{
    const fv_attention_kind *kind = fv_attention_kind_at(kind_of(which));
    return kind_runs(kind_of(which), 0) && (kind->kernelized || strcmp(kind->name, "exact") == 0);
}

static fv_attention_options options_of(int which)
{
    fv_attention_options o;
    int around = which / fv_attention_kind_count();
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind_of(which))->name;
    o.heads = 4, o.kv_heads = 2, o.dim = 4, o.value_dim = 5, o.features = 8, o.chunk = 4;
    o.max_tokens = kind_has(kind_of(which), KIND_PLACES) ? PLACES : 0;
    if (fv_attention_kind_takes(fv_attention_kind_at(kind_of(which)), "psi", NULL))
        o.psi = 1.75;
    o.rotary = around & 1, o.ppsbn = around / 2;
    return o;
}

static problem *make(int which, int64_t queries, int64_t keys, int64_t pad)
{
    fv_attention_options o = options_of(which);
    problem_shape shape = {.sequences = 1, .queries = &queries, .keys = &keys, .seed = 23, .pad = pad};
    problem *p = problem_make(ctx, &o, &shape);
    assert_true(p->info.can_recall && !p->info.can_stream);
    return p;
}

static char *new_state(const problem *p, int64_t capacity, size_t *bytes)
{
    assert_int_equal(fv_attention_state_bytes(p->op, capacity, bytes), FV_OK);
    char *state = fv_alloc(ctx, *bytes);
    memset(state, 0xAA, *bytes);
    assert_int_equal(fv_attention_state_init(p->op, capacity, state), FV_OK);
    return state;
}

/* Queries [q, q + queries) against the state, to which keys [k, k + keys) are added first. */
static void call(problem *p, void *state, int64_t q, int64_t queries, int64_t k, int64_t keys)
{
    int64_t offsets_q[] = {0, queries}, offsets_k[] = {0, keys};
    fv_layout layout = {1, offsets_q, offsets_k};
    fv_attention_io io = problem_io(p);
    io.q = queries > 0 ? io.q + q * (problem_row_q(p) + p->pad) : NULL;
    io.y = queries > 0 ? io.y + q * (problem_row_y(p) + p->pad) : NULL;
    io.k = keys > 0 ? io.k + k * (problem_row_k(p) + p->pad) : NULL;
    io.v = keys > 0 ? io.v + k * (problem_row_v(p) + p->pad) : NULL;
    io.state = state;
    io.first_query = q;
    if (fv_attention_forward(p->op, &layout, &io, NULL, p->scratch) != FV_OK)
        fail_msg("%s: %s", p->info.options.kind, fv_context_message(ctx));
}

/* Adds keys [from, to) `size` at a time. */
static void add(problem *p, void *state, int64_t from, int64_t to, int64_t size)
{
    for (int64_t k = from; k < to; k += size)
        call(p, state, 0, 0, k, FV_MIN(size, to - k));
}

static void read_all(problem *p, void *state, int64_t size)
{
    for (int64_t q = 0; q < p->tq; q += size)
        call(p, state, q, FV_MIN(size, p->tq - q), 0, 0);
}

static void check(problem *p, int which, const char *what)
{
    worst w = problem_check_forward(p);
    worst_check(&w, kind_row_at(kind_of(which))->forward, what, p);
}

/* ---- laws ---------------------------------------------------------------------------------------- */

/* Reading leaves every bit of the state where it is. */
static void recalled_as_whole(void **state)
{
    static const int64_t added[] = {1, 7, KEYS}, read[] = {1, 5, QUERIES};
    (void)state;
    for (int n = 0; n < case_count() * 9; n++) {
        int which = n / 9;
        if (!recalls(which))
            continue;
        problem *p = make(which, QUERIES, KEYS, n % 2 ? 3 : 0);
        size_t bytes;
        char *memory = new_state(p, KEYS, &bytes), *before = fv_alloc(ctx, bytes);
        fv_state_view view;
        add(p, memory, 0, KEYS, added[n % 3]);
        memcpy(before, memory, bytes);
        read_all(p, memory, read[n % 9 / 3]);
        check(p, which, "recalled");
        assert_memory_equal(memory, before, bytes);
        assert_int_equal(fv_attention_state_view(p->op, memory, &view), FV_OK);
        assert_int_equal(view.tokens, KEYS);
        if (view.S != NULL) {
            worst w = problem_check_state(p, &view);
            worst_check(&w, kind_row_at(kind_of(which))->forward, "state of keys", p);
        }
        fv_free(ctx, before), fv_free(ctx, memory);
        problem_free(p);
    }
}

/* One call may do both: its queries see its keys and those before. */
static void added_and_read(void **state)
{
    (void)state;
    for (int which = 0; which < case_count(); which++) {
        if (!recalls(which))
            continue;
        problem *p = make(which, QUERIES, KEYS, 0);
        size_t bytes;
        char *memory = new_state(p, KEYS, &bytes);
        add(p, memory, 0, 30, 30);
        call(p, memory, 0, QUERIES, 30, KEYS - 30);
        check(p, which, "added and read");
        fv_free(ctx, memory);
        problem_free(p);
    }
}

/* The state of two halves of a source is the merge of theirs. */
static void halves_merge(void **state)
{
    (void)state;
    for (int which = 0; which < case_count(); which++) {
        if (!recalls(which))
            continue;
        problem *p = make(which, QUERIES, KEYS, 0);
        size_t bytes;
        char *a = new_state(p, KEYS, &bytes), *b = new_state(p, KEYS, &bytes);
        add(p, a, 0, 20, 20);
        add(p, b, 20, KEYS, KEYS);
        if (p->info.options.rotary || kind_has(kind_of(which), KIND_PLACES)) {
            assert_int_equal(fv_attention_state_merge(p->op, a, a, b), FV_ERR_USAGE);
        } else {
            assert_int_equal(fv_attention_state_merge(p->op, a, a, b), FV_OK);
            read_all(p, a, 4);
            check(p, which, "merged");
        }
        fv_free(ctx, a), fv_free(ctx, b);
        problem_free(p);
    }
}

/* Packed sequences have a state each, and the bits of each alone; one of them has no keys. */
static void packed_as_alone(void **state)
{
    static const int64_t offsets_q[] = {0, 4, 9, QUERIES}, offsets_k[] = {0, 18, 18, KEYS};
    (void)state;
    for (int which = 0; which < case_count(); which++) {
        if (!recalls(which))
            continue;
        problem *p = make(which, QUERIES, KEYS, 0), *q = make(which, QUERIES, KEYS, 0);
        fv_layout layout = {3, offsets_q, offsets_k};
        fv_attention_io io = problem_io(p);
        fv_memory need;
        size_t bytes;
        assert_int_equal(fv_attention_measure(p->op, &layout, &need), FV_OK);
        char *one = new_state(p, KEYS, &bytes), *all = fv_alloc(ctx, 3 * bytes);
        void *scratch = fv_alloc(ctx, need.scratch);
        for (int s = 0; s < 3; s++)
            memcpy(all + (size_t)s * bytes, one, bytes);
        io.state = all;
        assert_int_equal(fv_attention_forward(p->op, &layout, &io, NULL, scratch), FV_OK);
        for (int s = 0; s < 3; s++) {
            assert_int_equal(fv_attention_state_init(q->op, KEYS, one), FV_OK);
            fv_attention_io alone = problem_io(q);
            int64_t ends_q[] = {0, offsets_q[s + 1] - offsets_q[s]};
            int64_t ends_k[] = {0, offsets_k[s + 1] - offsets_k[s]};
            fv_layout sequence = {1, ends_q, ends_k};
            alone.q += offsets_q[s] * problem_row_q(q), alone.y += offsets_q[s] * problem_row_y(q);
            alone.k += offsets_k[s] * problem_row_k(q), alone.v += offsets_k[s] * problem_row_v(q);
            alone.state = one;
            assert_int_equal(fv_attention_forward(q->op, &sequence, &alone, NULL, scratch), FV_OK);
            assert_memory_equal(all + (size_t)s * bytes, one, bytes);
        }
        assert_memory_equal(p->y, q->y, (size_t)(QUERIES * problem_row_y(p)) * sizeof(float));
        fv_free(ctx, scratch), fv_free(ctx, all), fv_free(ctx, one);
        problem_free(p), problem_free(q);
    }
}

/* A query of a kernelized kind costs the same however many keys were added, and no call allocates. */
static void reading_costs_the_same(void **state)
{
    fv_kernels base = *ctx->kernels, table;
    (void)state;
    counting_table(&table, &base);
    for (int which = 0; which < fv_attention_kind_count(); which++) {
        if (!recalls(which) || !fv_attention_kind_at(which)->kernelized)
            continue;
        problem *p = make(which, QUERIES, KEYS, 0);
        /* No query that meets no key: plain maps look at it twice (kernelized_wide.c). */
        for (int64_t i = 0; i < QUERIES * problem_row_q(p); i++)
            p->q[i] = fabsf(p->q[i]);
        for (int64_t i = 0; i < KEYS * problem_row_k(p); i++)
            p->k[i] = fabsf(p->k[i]);
        size_t bytes;
        char *memory = new_state(p, 0, &bytes);
        double work[2];
        fv_context_reset_peak(ctx);
        size_t held = fv_context_bytes(ctx);
        *ctx->kernels = table;
        for (int i = 0; i < 2; i++) {
            add(p, memory, i, i > 0 ? KEYS : 1, KEYS);
            counting_reset();
            call(p, memory, i, 1, 0, 0);
            work[i] = counting_work();
        }
        *ctx->kernels = base;
        assert_true(work[0] == work[1]);
        assert_int_equal(fv_context_peak_bytes(ctx), held);
        fv_free(ctx, memory);
        problem_free(p);
    }
}

/* ---- refusals ------------------------------------------------------------------------------------ */

static void refuse_state(const fv_attention_options *o, const char *word)
{
    const int64_t length = 3;
    problem_shape shape = {.sequences = 1, .queries = &length, .seed = 1};
    problem *p = problem_make(ctx, o, &shape);
    size_t bytes;
    assert_false(p->info.can_recall);
    expect_failure(ctx, fv_attention_state_bytes(p->op, 4, &bytes), FV_ERR_USAGE, word, NULL);
    problem_free(p);
}

static void operators_without_state(void **state)
{
    fv_attention_options o;
    (void)state;
    fv_attention_options_init(&o);
    o.heads = 2, o.dim = 4, o.features = 8;
    o.kind = "identity";
    refuse_state(&o, "not causal");
    o.kind = "window";
    refuse_state(&o, "not causal");
    o.kind = "reformer";
    refuse_state(&o, "buckets");
    o.kind = "cosformer";
    refuse_state(&o, "max_tokens");
    o.kind = "favor++";
    refuse_state(&o, "give psi");
    o.kind = "relu", o.position_bias = FV_POSITION_BIAS_KERNEL, o.position_span = 9;
    refuse_state(&o, "position bias");
}

static fv_status forward(problem *p, fv_attention_io *io, int64_t queries, int64_t keys, void *saved)
{
    int64_t offsets_q[] = {0, queries}, offsets_k[] = {0, keys};
    fv_layout layout = {1, offsets_q, offsets_k};
    return fv_attention_forward(p->op, &layout, io, saved, p->scratch);
}

static void wrong_calls(void **state)
{
    fv_attention_options o;
    const int64_t length = 9;
    problem_shape shape = {.sequences = 1, .queries = &length, .seed = 1};
    size_t bytes;
    (void)state;
    fv_attention_options_init(&o);
    o.kind = "favor#", o.heads = 2, o.dim = 4, o.features = 8, o.psi = 1;
    problem *p = problem_make(ctx, &o, &shape);
    char *memory = new_state(p, 4, &bytes);
    fv_attention_io io = problem_io(p);
    io.first_query = 2;
    expect_failure(ctx, forward(p, &io, 4, 4, NULL), FV_ERR_USAGE, "first_query", NULL);
    io.state = memory;
    expect_failure(ctx, forward(p, &io, 4, 4, p->saved), FV_ERR_USAGE, "no backward", NULL);
    expect_failure(ctx, fv_attention_step(p->op, 1, &io, memory, bytes, p->scratch), FV_ERR_USAGE,
                   "not causal", NULL);
    io.input[FV_INPUT_PSI_DIAGONAL] = NULL;
    expect_failure(ctx, forward(p, &io, 4, 4, NULL), FV_ERR_USAGE, "psi_diagonal", NULL);
    fv_free(ctx, memory);
    problem_free(p);
}

/* Before anything is written. */
static void full_states(void **state)
{
    fv_attention_options o;
    const int64_t length = 5;
    problem_shape shape = {.sequences = 1, .queries = &length, .seed = 1};
    size_t bytes;
    (void)state;
    fv_attention_options_init(&o);
    o.kind = "exact", o.heads = 2, o.dim = 4;
    for (int i = 0; i < 2; i++) {
        problem *p = problem_make(ctx, &o, &shape);
        char *memory = new_state(p, 5, &bytes), *before = fv_alloc(ctx, bytes);
        fv_attention_io io = problem_io(p);
        io.state = memory;
        assert_int_equal(forward(p, &io, 2, 3, NULL), FV_OK);
        memcpy(before, memory, bytes);
        expect_failure(ctx, forward(p, &io, 2, 3, NULL), i > 0 ? FV_ERR_USAGE : FV_ERR_RESOURCE,
                       i > 0 ? "6 tokens" : "capacity", NULL);
        io.first_query = 4;
        if (i > 0)
            expect_failure(ctx, forward(p, &io, 2, 0, NULL), FV_ERR_USAGE, "6 tokens", NULL);
        assert_int_equal(forward(p, &io, 1, 0, NULL), FV_OK);
        assert_memory_equal(memory, before, bytes);
        fv_free(ctx, before), fv_free(ctx, memory);
        problem_free(p);
        o.kind = "cosformer", o.max_tokens = 5;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recalled_as_whole),
        cmocka_unit_test(added_and_read),
        cmocka_unit_test(halves_merge),
        cmocka_unit_test(packed_as_alone),
        cmocka_unit_test(reading_costs_the_same),
        cmocka_unit_test(operators_without_state),
        cmocka_unit_test(wrong_calls),
        cmocka_unit_test(full_states),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
