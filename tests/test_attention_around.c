/* test_attention_around.c: rotary positions, ppSBN and FastRPB around every attention kind: against the
 * specification, forward and every gradient; causality, packing and threads to the bit; streams; refusals. Kinds
 * come from the table, modifiers from the rows below. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/problem.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- modifiers --------------------------------------------------------------------------------------- */

typedef struct modifier {
    const char *name;
    int rotary, ppsbn;
    fv_position_bias bias;
} modifier;

static const modifier modifiers[] = {
    {"rotary", 1, 0, FV_POSITION_BIAS_NONE},           {"ppsbn", 0, 1, FV_POSITION_BIAS_NONE},
    {"fastrpb", 0, 0, FV_POSITION_BIAS_FASTRPB},       {"fastrpb-2d", 0, 0, FV_POSITION_BIAS_FASTRPB_2D},
    {"rotary and ppsbn", 1, 1, FV_POSITION_BIAS_NONE}, {"ppsbn and fastrpb", 0, 1, FV_POSITION_BIAS_FASTRPB},
    {"all three", 1, 1, FV_POSITION_BIAS_FASTRPB},
};

static bool is_biased(const modifier *m)
{
    return m->bias != FV_POSITION_BIAS_NONE;
}

/* Options of a kind with a modifier; span for sequences of up to `longest` tokens. */
static fv_attention_options options_of(int kind, int causal, const modifier *m, int64_t longest)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind)->name;
    o.heads = 2, o.kv_heads = 1, o.dim = 4, o.value_dim = 3, o.causal = causal, o.features = 6, o.chunk = 4;
    o.rotary = m->rotary, o.ppsbn = m->ppsbn, o.position_bias = m->bias;
    if (is_biased(m))
        o.position_span = m->bias == FV_POSITION_BIAS_FASTRPB ? longest + 2 : longest;
    kind_small_options(&o);
    kind_complete(&o);
    return o;
}

/* Runs `check` for every kind, modifier and direction. */
static void each(void (*check)(int kind, int causal, const modifier *m))
{
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind))
        for (int causal = 0; causal <= kind_runs(kind, 1); causal++)
            for (int m = 0; m < FV_COUNT(modifiers); m++)
                check(kind, causal, &modifiers[m]);
}

/* For laws of longer sequences: every modifier with one kind of each make (softmax, identity, kernelized), with the
 * others one after the other and all together. */
static void each_in_turn(void (*check)(int kind, int causal, const modifier *m))
{
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind))
        for (int causal = 0; causal <= kind_runs(kind, 1); causal++)
            for (int m = 0; m < FV_COUNT(modifiers); m++)
                if (kind < 3 || m == kind % FV_COUNT(modifiers) || m == FV_COUNT(modifiers) - 1)
                    check(kind, causal, &modifiers[m]);
}

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
    fv_attention_options o = options_of(kind, causal, m, raster ? 3 : 9);
    problem_shape shape = {raster ? 3 : 4, raster ? squares : lengths, NULL, 2, 0, 31};
    compare(&o, &shape, m, kind == 0 ? 12 : 3);
    if (raster || (kind % 4 != 2 && m != &modifiers[6])) /* the mathematics around is the same for all */
        return;
    o = options_of(kind, causal, m, 35);
    o.position_skip = is_biased(m) ? 2 : 0;
    o.heads = 4, o.kv_heads = 2, o.dim = 8, o.value_dim = 5;
    shape = (problem_shape){1, &one, NULL, 0, 0, 32};
    compare(&o, &shape, m, 1);
    if (!causal && kind_has(kind, KIND_CROSS)) {
        o = options_of(kind, causal, m, 9);
        shape = (problem_shape){4, queries, keys, 1, 0, 33};
        compare(&o, &shape, m, 2);
    }
}

static void specification(void **state)
{
    (void)state;
    each(compare_kind);
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
        fv_attention_options o = options_of(kind, n % 2, &modifiers[6], 230);
        problem_shape shape = {2, lengths, NULL, 0, 0, 34};
        compare(&o, &shape, &modifiers[6], 1);
    }
}

/* Vectors of equal channels become 0, and the gradient there is 0. */
static void equal_channels(void **state)
{
    static const int64_t L = 6;
    (void)state;
    fv_attention_options o = options_of(0, 0, &modifiers[1], L);
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
        fv_attention_options o = options_of(0, 1, &modifiers[1], L);
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

/* ---- laws -------------------------------------------------------------------------------------------- */

static void same_bits(const float *a, const float *b, int64_t floats, const char *what, const modifier *m,
                      const problem *p)
{
    for (int64_t i = 0; i < floats; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s with %s: %s differs at %lld of %lld: %.9g and %.9g", p->info.options.kind, m->name,
                     what, (long long)i, (long long)floats, (double)a[i], (double)b[i]);
}

static float *copy_of(const float *x, int64_t floats)
{
    return memcpy(malloc((size_t)floats * sizeof *x + 1), x, (size_t)floats * sizeof *x);
}

static void later_tokens_change_nothing(int kind, int causal, const modifier *m)
{
    static const float intruders[] = {3.0f, 1e30f, INFINITY, NAN};
    int64_t R = 5, L = m->bias == FV_POSITION_BIAS_FASTRPB_2D ? R * R : 150;
    if (!causal || kind_has(kind, KIND_FORESEES))
        return;
    fv_attention_options o = options_of(kind, causal, m, L == 25 ? R : L);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 41};
    problem *p = problem_make(ctx, &o, &shape);
    problem_forward(p, false);
    float *y = copy_of(p->y, L * 6);
    for (int64_t t = L - 1; t > 0; t -= L / 5) {
        for (int n = 0; n < FV_COUNT(intruders); n++) {
            for (int64_t c = 0; c < 8; c++)
                p->q[t * 8 + c] = c % 3 ? intruders[n] : 1;
            for (int64_t c = 0; c < 4; c++)
                p->k[t * 4 + c] = c % 2 ? intruders[n] : -intruders[n];
            for (int64_t c = 0; c < 3; c++)
                p->v[t * 3 + c] = c % 2 ? intruders[n] : 1;
            problem_forward(p, false);
            same_bits(y, p->y, t * 6, "y before changed tokens", m, p);
        }
    }
    free(y);
    problem_free(p);
}

static void causality(void **state)
{
    (void)state;
    each_in_turn(later_tokens_change_nothing);
}

static void packed_as_alone(int kind, int causal, const modifier *m)
{
    static const int64_t lengths[] = {5, 0, 140, 64}, squares[] = {16, 16};
    bool raster = m->bias == FV_POSITION_BIAS_FASTRPB_2D;
    int64_t count = raster ? 2 : 4;
    fv_attention_options o = options_of(kind, causal, m, raster ? 4 : 140);
    problem_shape shape = {count, raster ? squares : lengths, NULL, 0, 0, 42};
    problem *all = problem_make(ctx, &o, &shape);
    problem_forward(all, true);
    problem_backward(all);
    for (int64_t s = 0; s < count; s++) {
        int64_t at = all->offsets_q[s], n = all->offsets_q[s + 1] - at;
        size_t rows = (size_t)n * sizeof(float);
        shape = (problem_shape){1, &n, NULL, 0, 0, 42};
        problem *one = problem_make(ctx, &o, &shape);
        memcpy(one->q, all->q + at * 8, rows * 8), memcpy(one->k, all->k + at * 4, rows * 4);
        memcpy(one->v, all->v + at * 3, rows * 3), memcpy(one->dy, all->dy + at * 6, rows * 6);
        problem_forward(one, true);
        problem_backward(one);
        if (!kind_has(kind, KIND_PLACES) || strcmp(o.kind, "bigbird") != 0 || s == 0) {
            same_bits(one->y, all->y + at * 6, n * 6, "y packed and alone", m, all);
            same_bits(one->dq, all->dq + at * 8, n * 8, "dq packed and alone", m, all);
            same_bits(one->dk, all->dk + at * 4, n * 4, "dk packed and alone", m, all);
            same_bits(one->dv, all->dv + at * 3, n * 3, "dv packed and alone", m, all);
        }
        problem_free(one);
    }
    problem_free(all);
}

static void packing(void **state)
{
    (void)state;
    each_in_turn(packed_as_alone);
}

static void other_threads(int kind, int causal, const modifier *m)
{
    static const int64_t lengths[] = {200, 3, 77}, squares[] = {49, 49};
    bool raster = m->bias == FV_POSITION_BIAS_FASTRPB_2D;
    fv_context *with[] = {problem_context(NULL, 1), problem_context(NULL, 3)};
    problem *p[2];
    for (int n = 0; n < 2; n++) {
        fv_attention_options o = options_of(kind, causal, m, raster ? 7 : 200);
        problem_shape shape = {raster ? 2 : 3, raster ? squares : lengths, NULL, 0, 0, 43};
        o.heads = 4, o.kv_heads = 2;
        p[n] = problem_make(with[n], &o, &shape);
        problem_forward(p[n], true);
        problem_backward(p[n]);
    }
    same_bits(p[0]->y, p[1]->y, p[0]->tq * 12, "y with other threads", m, p[0]);
    same_bits(p[0]->dq, p[1]->dq, p[0]->tq * 16, "dq with other threads", m, p[0]);
    same_bits(p[0]->dv, p[1]->dv, p[0]->tk * 6, "dv with other threads", m, p[0]);
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (p[0]->d_input[i] != NULL)
            same_bits(p[0]->d_input[i], p[1]->d_input[i], p[0]->input_floats[i], fv_input_name((fv_input)i),
                      m, p[0]);
    for (int n = 0; n < 2; n++) {
        problem_free(p[n]);
        fv_context_destroy(with[n]);
    }
}

static void threads(void **state)
{
    (void)state;
    each_in_turn(other_threads);
}

/* A NaN stays in its sequence. */
static void nan_stays(int kind, int causal, const modifier *m)
{
    static const int64_t lengths[] = {9, 121, 9};
    static const int64_t squares[] = {9, 9, 9};
    bool raster = m->bias == FV_POSITION_BIAS_FASTRPB_2D;
    const int64_t *of = raster ? squares : lengths;
    fv_attention_options o = options_of(kind, causal, m, raster ? 3 : 121);
    problem_shape shape = {3, of, NULL, 0, 0, 44};
    problem *p = problem_make(ctx, &o, &shape);
    int64_t bad = 9 + of[1] / 2;
    p->q[bad * 8 + 1] = p->k[bad * 4 + 1] = p->v[bad * 3 + 1] = p->dy[bad * 6 + 1] = NAN;
    problem_forward(p, true);
    problem_backward(p);
    for (int64_t t = 0; t < p->tq; t++)
        for (int64_t c = 0; c < 3 && (t < 9 || t >= 9 + of[1]); c++)
            assert_true(isfinite(p->y[t * 6 + c]) && isfinite(p->dq[t * 8 + c]) &&
                        isfinite(p->dk[t * 4 + c]) && isfinite(p->dv[t * 3 + c]));
    problem_free(p);
}

static void nan_in_one_sequence(void **state)
{
    (void)state;
    each_in_turn(nan_stays);
}

/* Rotations depend on distances alone: exact attention of a sequence does not change when all of it moves. */
static void rotary_is_relative(void **state)
{
    static const int64_t L = 40, rest = 33;
    (void)state;
    fv_attention_options o = options_of(0, 0, &modifiers[0], L);
    o.kind = "window", o.window = 2;
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 45};
    problem *p = problem_make(ctx, &o, &shape);
    shape.queries = &rest;
    problem *moved = problem_make(ctx, &o, &shape);
    memcpy(moved->q, p->q + 7 * 8, (size_t)rest * 8 * sizeof(float));
    memcpy(moved->k, p->k + 7 * 4, (size_t)rest * 4 * sizeof(float));
    memcpy(moved->v, p->v + 7 * 3, (size_t)rest * 3 * sizeof(float));
    problem_forward(p, false);
    problem_forward(moved, false);
    worst w = {0};
    for (int64_t i = 2 * 6; i < rest * 6; i++) /* the first two rows see others */
        worst_update(&w, (double)moved->y[i], (double)p->y[7 * 6 + i], 30, i);
    worst_check(&w, 1, "of moved tokens", p);
    problem_free(p);
    problem_free(moved);
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
    fv_attention_options o = options_of(kind, causal, m, L);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 46};
    if (m->bias == FV_POSITION_BIAS_FASTRPB_2D)
        return;
    problem *p = problem_make(ctx, &o, &shape);
    if (!p->info.can_stream) {
        size_t bytes;
        assert_int_equal(fv_attention_state_bytes(p->op, 0, &bytes), FV_ERR_USAGE);
        assert_true(is_biased(m) || !fv_attention_kind_at(kind)->can_stream);
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
    each_in_turn(stream_is_batch);
}

/* ---- refusals, memory ---------------------------------------------------------------------------------- */

static void bad_lengths(void **state)
{
    static const int64_t L = 12;
    (void)state;
    for (int n = 0; n < 4; n++) {
        const modifier *m = &modifiers[2 + n % 2];
        fv_attention_options o = options_of(0, n / 2, m, 3);
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
    fv_attention_options o = options_of(2, 1, &modifiers[0], L);
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
    fv_attention_options o = options_of(kind, causal, m, L);
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
    each(rows_ignore_what_comes_behind);
}

/* Nothing allocates, and memory stays linear in L. */
static void memory(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * FV_COUNT(modifiers); n++) {
        const modifier *m = &modifiers[n / 2];
        fv_memory need[3];
        for (int i = 0; i < 3; i++) {
            int64_t side = 100 << i, L = side * side, offsets[] = {0, L};
            fv_layout layout = {1, offsets, NULL};
            fv_attention_options o =
                options_of(2, n % 2, m, m->bias == FV_POSITION_BIAS_FASTRPB_2D ? side : L);
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
        cmocka_unit_test(causality),
        cmocka_unit_test(packing),
        cmocka_unit_test(threads),
        cmocka_unit_test(nan_in_one_sequence),
        cmocka_unit_test(rotary_is_relative),
        cmocka_unit_test(streams),
        cmocka_unit_test(bad_lengths),
        cmocka_unit_test(rotary_states_do_not_merge),
        cmocka_unit_test(matrix_rows),
        cmocka_unit_test(memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
