/* test_attention_around.c: rotary positions, ppSBN and FastRPB around every attention kind: against the
 * specification, forward and every gradient; streams; refusals. Kinds come from the table, modifiers from
 * support/modifiers.h. Laws to the bit are in test_attention_around_laws.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/modifiers.h"
#include "support/one_context.h"
#include "support/problem.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static void say(char *text, size_t bytes, const char *what, const modifier *m)
{
    snprintf(text, bytes, "%s with %s", what, m->name);
}

/* ---- against the specification ------------------------------------------------------------------------- */

static worst most_forward, most_gradient;

static void compare(const fv_attention_options *o, const problem_shape *shape, const modifier *m,
                    int64_t sample)
{
    char text[80];
    const kind_row *row = kind_row_of(o->kind);
    problem *p = problem_make(ctx, o, shape);
    problem_forward(p, true);
    problem_backward(p);
    worst forward = problem_check_forward(p), gradient = problem_check_gradients(p, sample);
    say(text, sizeof text, "forward", m);
    worst_check(&forward, fmax(row->forward, 1), text, p);
    say(text, sizeof text, "gradient", m);
    worst_check(&gradient, fmax(row->gradient, 1), text, p);
    if (forward.ratio > most_forward.ratio)
        most_forward = forward;
    if (gradient.ratio > most_gradient.ratio)
        most_gradient = gradient;
    problem_free(p);
}

static void compare_kind(int kind, int causal, const modifier *m)
{
    static const int64_t lengths[] = {5, 0, 9, 1}, squares[] = {9, 0, 9}, one = 37;
    static const int64_t queries[] = {4, 0, 3, 9}, keys[] = {6, 2, 0, 5};
    bool raster = m->bias == FV_POSITION_BIAS_FASTRPB_2D;
    fv_attention_options o = modifier_options(kind, causal, m, raster ? 3 : 9);
    problem_shape shape = {raster ? 3 : 4, raster ? squares : lengths, NULL, 2, 0, 31};
    compare(&o, &shape, m, kind == 0 ? 12 : 3);
    if (raster || (kind % 4 != 2 && m != &modifiers[6])) /* the mathematics around is the same for all */
        return;
    o = modifier_options(kind, causal, m, 35);
    o.position_skip = modifier_is_biased(m) ? 2 : 0;
    o.heads = 4, o.kv_heads = 2, o.dim = 8, o.value_dim = 5;
    shape = (problem_shape){1, &one, NULL, 0, 0, 32};
    compare(&o, &shape, m, 1);
    if (!causal && kind_has(kind, KIND_CROSS)) {
        o = modifier_options(kind, causal, m, 9);
        shape = (problem_shape){4, queries, keys, 1, 0, 33};
        compare(&o, &shape, m, 2);
    }
}

static void specification(void **state)
{
    (void)state;
    modifiers_each(compare_kind);
    print_message("largest error: forward %.2f eps m, gradient %.2f eps m\n", most_forward.ratio,
                  most_gradient.ratio);
}

/* Sequences long enough that FastRPB transforms. */
static void long_sequences(void **state)
{
    static const int64_t lengths[] = {230, 20};
    (void)state;
    for (int n = 0; n < 4; n++) {
        int kind = n / 2 == 0 ? 0 : 2;
        fv_attention_options o = modifier_options(kind, n % 2, &modifiers[6], 230);
        problem_shape shape = {2, lengths, NULL, 0, 0, 34};
        compare(&o, &shape, &modifiers[6], 1);
    }
}

/* Vectors of equal channels become 0, and the gradient there is 0. */
static void equal_channels(void **state)
{
    static const int64_t L = 6;
    (void)state;
    fv_attention_options o = modifier_options(0, 0, &modifiers[1], L);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 35};
    problem *p = problem_make(ctx, &o, &shape);
    for (int64_t c = 0; c < 4; c++)
        p->q[8 + c] = 0.1f, p->k[12 + c] = -3.7e20f;
    problem_forward(p, true);
    problem_backward(p);
    for (int64_t c = 0; c < 4; c++)
        assert_true(p->dq[8 + c] == 0 && p->dk[12 + c] == 0);
    worst w = problem_check_forward(p);
    worst_check(&w, 1, "of equal channels", p);
    problem_free(p);
}

/* Defaults of the post-scaling, gamma = beta = 1, and zeros in y: gradients stay finite. */
static void zero_outputs(void **state)
{
    static const int64_t L = 5;
    (void)state;
    for (int n = 0; n < 2; n++) {
        fv_attention_options o = modifier_options(0, 1, &modifiers[1], L);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 36};
        problem *p = problem_make(ctx, &o, &shape);
        for (int i = FV_INPUT_PPSBN_GAMMA; i <= FV_INPUT_PPSBN_BETA && n == 0; i++) {
            fv_free(ctx, p->input[i]), fv_free(ctx, p->d_input[i]);
            p->input[i] = p->d_input[i] = NULL;
        }
        memset(p->v, 0, 3 * sizeof(float)); /* the first row of y */
        problem_forward(p, true);
        problem_backward(p);
        for (int64_t i = 0; i < L * 3; i++)
            assert_true(isfinite(p->dv[i]) && isfinite(p->y[i]));
        assert_true(p->y[0] == 0 && p->y[5] == 0);
        worst w = problem_check_forward(p), g = problem_check_gradients(p, 8);
        worst_check(&w, 1, "of zeros", p);
        worst_check(&g, 1, "gradient of zeros", p);
        problem_free(p);
    }
}

/* ---- streams ----------------------------------------------------------------------------------------- */

static void *states_of(const problem *p, int64_t capacity, size_t *bytes)
{
    assert_int_equal(fv_attention_state_bytes(p->op, capacity, bytes), FV_OK);
    void *state = fv_alloc(ctx, *bytes);
    assert_int_equal(fv_attention_state_init(p->op, capacity, state), FV_OK);
    return state;
}

/* Tokens [from, from + n) of p through one state, whole pieces or token by token; y goes to its place. */
static void stream_piece(problem *p, int64_t from, int64_t n, void *state, size_t bytes, bool step)
{
    int64_t offsets[] = {0, n}, one[] = {0, 1};
    fv_layout layout = {1, step ? one : offsets, NULL};
    fv_memory need;
    assert_int_equal(fv_attention_measure(p->op, &layout, &need), FV_OK);
    void *scratch = fv_alloc(ctx, need.scratch);
    for (int64_t t = from; t < from + n; t += step ? 1 : n) {
        fv_attention_io io = problem_io(p);
        io.q += t * 8, io.k += t * 4, io.v += t * 3, io.y += t * 6;
        if (step) {
            assert_int_equal(fv_attention_step(p->op, 1, &io, state, bytes, scratch), FV_OK);
        } else {
            io.state = state;
            assert_int_equal(fv_attention_forward(p->op, &layout, &io, NULL, scratch), FV_OK);
        }
    }
    fv_free(ctx, scratch);
}

static void stream_is_batch(int kind, int causal, const modifier *m)
{
    static const int64_t L = 75, cuts[] = {0, 3, 4, 66, 75};
    if (!causal || kind_has(kind, KIND_DATED | KIND_FORESEES | KIND_MIXES))
        return;
    fv_attention_options o = modifier_options(kind, causal, m, L);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 46};
    if (m->bias == FV_POSITION_BIAS_FASTRPB_2D)
        return;
    problem *p = problem_make(ctx, &o, &shape);
    if (!p->info.can_stream) {
        size_t bytes;
        assert_int_equal(fv_attention_state_bytes(p->op, 0, &bytes), FV_ERR_USAGE);
        assert_true(modifier_is_biased(m) || !fv_attention_kind_at(kind)->can_stream);
        problem_free(p);
        return;
    }
    for (int step = 0; step <= 1; step++) {
        size_t bytes;
        void *state = states_of(p, L, &bytes);
        for (int n = 0; n + 1 < FV_COUNT(cuts); n++)
            stream_piece(p, cuts[n], cuts[n + 1] - cuts[n], state, bytes, step != 0 || n == 1);
        worst w = problem_check_forward(p);
        worst_check(&w, 1, step ? "step by step" : "in pieces", p);
        fv_free(ctx, state);
    }
    problem_free(p);
}

static void streams(void **state)
{
    (void)state;
    modifiers_in_turn(stream_is_batch);
}

/* ---- refusals, memory ---------------------------------------------------------------------------------- */

static void bad_lengths(void **state)
{
    static const int64_t L = 12;
    (void)state;
    for (int n = 0; n < 4; n++) {
        const modifier *m = &modifiers[2 + n % 2];
        fv_attention_options o = modifier_options(0, n / 2, m, 3);
        o.position_span = m->bias == FV_POSITION_BIAS_FASTRPB ? 11 : 3;
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 47};
        problem *p = problem_make(ctx, &o, &shape);
        fv_attention_io io = problem_io(p);
        fv_attention_grad grad = {.dy = p->dy, .dv = p->dv};
        assert_int_equal(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_FILE);
        assert_int_equal(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch),
                         FV_ERR_FILE);
        problem_free(p);
    }
}

static void rotary_states_do_not_merge(void **state)
{
    static const int64_t L = 4;
    size_t bytes;
    (void)state;
    fv_attention_options o = modifier_options(2, 1, &modifiers[0], L);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 48};
    problem *p = problem_make(ctx, &o, &shape);
    void *a = states_of(p, L, &bytes);
    assert_int_equal(fv_attention_state_merge(p->op, a, a, a), FV_ERR_USAGE);
    fv_free(ctx, a);
    problem_free(p);
}

static void rows_ignore_what_comes_behind(int kind, int causal, const modifier *m)
{
    static const int64_t L = 9, rows[] = {0, 4, 8};
    if (m->bias == FV_POSITION_BIAS_FASTRPB_2D || kind_has(kind, KIND_MIXES))
        return;
    fv_attention_options o = modifier_options(kind, causal, m, L);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 49};
    problem *p = problem_make(ctx, &o, &shape);
    fv_attention_io io = problem_io(p);
    float weights[2 * 3 * 9];
    num row[9];
    assert_int_equal(fv_attention_weights(p->op, &p->layout, &io, rows, 3, weights, p->scratch), FV_OK);
    worst w = {0};
    for (int64_t n = 0; n < 6; n++) {
        problem_spec_row(p, n / 3, rows[n % 3], row);
        for (int64_t j = 0; j < L; j++)
            worst_update(&w, (double)weights[n * L + j], num_value(row[j]), row[j].m, j);
    }
    worst_check(&w, 1, m->name, p);
    problem_free(p);
}

static void matrix_rows(void **state)
{
    (void)state;
    modifiers_each(rows_ignore_what_comes_behind);
}

/* Nothing allocates, and memory stays linear in L. */
static void memory(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * MODIFIERS; n++) {
        const modifier *m = &modifiers[n / 2];
        fv_memory need[3];
        for (int i = 0; i < 3; i++) {
            int64_t side = 100 << i, L = side * side, offsets[] = {0, L};
            fv_layout layout = {1, offsets, NULL};
            fv_attention_options o =
                modifier_options(2, n % 2, m, m->bias == FV_POSITION_BIAS_FASTRPB_2D ? side : L);
            fv_attention *op;
            assert_int_equal(fv_attention_create(&op, ctx, &o), FV_OK);
            assert_int_equal(fv_attention_measure(op, &layout, &need[i]), FV_OK);
            fv_attention_destroy(op);
            assert_true((double)(need[i].scratch + need[i].saved) < (double)L * 1000 + 4e6);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(specification),
        cmocka_unit_test(long_sequences),
        cmocka_unit_test(equal_channels),
        cmocka_unit_test(zero_outputs),
        cmocka_unit_test(streams),
        cmocka_unit_test(bad_lengths),
        cmocka_unit_test(rotary_states_do_not_merge),
        cmocka_unit_test(matrix_rows),
        cmocka_unit_test(memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
