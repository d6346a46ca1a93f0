/* test_attention_decay.c: gate and decay of every kernelized kind against the specification: forward, all gradients,
 * factors and keys of all sizes, and the laws between them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/mechanism.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/problem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { GATE = 1, DECAY = 2 };

static worst most_forward, most_gradient;

static int tell_and_tear_down(void **state)
{
    print_message("largest error: forward %.2f eps m, gradient %.2f eps m\n", most_forward.ratio,
                  most_gradient.ratio);
    return teardown(state);
}

static bool kernelized(int kind)
{
    return fv_attention_kind_at(kind)->kernelized && fv_attention_kind_at(kind)->can_be_causal;
}

static fv_attention_options options_of(int kind, int which)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind)->name;
    o.heads = 4, o.kv_heads = 2, o.dim = 3, o.value_dim = 2, o.features = 4, o.causal = 1, o.chunk = 4;
    o.gate = (which & GATE) != 0, o.decay = (which & DECAY) != 0;
    kind_complete(&o);
    return o;
}

static void check(problem *p, int64_t sample)
{
    problem_forward(p, true);
    problem_backward(p);
    worst forward = problem_check_forward(p), gradient = problem_check_gradients(p, sample);
    const kind_row *row = kind_row_of(p->info.options.kind);
    worst_check(&forward, row->forward, "forward", p);
    worst_check(&gradient, row->gradient, "gradient", p);
    if (forward.ratio > most_forward.ratio)
        most_forward = forward;
    if (gradient.ratio > most_gradient.ratio)
        most_gradient = gradient;
}

/* ---- against the specification ----------------------------------------------------------------- */

static void small_lengths(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int64_t n = 0; kernelized(kind) && n < 6; n++) {
            int64_t L = n < 3 ? 1 + n : 4 * n - 7; /* to two chunks and a token: 13 */
            fv_attention_options o = options_of(kind, (int)(n % 3) + 1);
            problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)n};
            problem *p = problem_make(ctx, &o, &shape);
            check(p, 24);
            problem_free(p);
        }
    }
}

static void chunks_and_packs(void **state)
{
    static const int64_t lengths[] = {0, 9, 1, 0, 19, 4}, chunks[] = {0, 1, 5, 16, 64};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; kernelized(kind) && n < FV_COUNT(chunks); n++) {
            fv_attention_options o = options_of(kind, n % 3 + 1);
            problem_shape shape = {FV_COUNT(lengths), lengths, NULL, n % 2 ? 3 : 0, 0, (uint64_t)n};
            o.chunk = chunks[n];
            o.kv_heads = n % 2 ? 4 : 2;
            problem *p = problem_make(ctx, &o, &shape);
            check(p, 4);
            problem_free(p);
        }
    }
}

/* Several saved states: more tokens than a segment of chunks holds. */
static void segments(void **state)
{
    static const int64_t L = 37;
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int which = GATE; kernelized(kind) && which <= (GATE | DECAY); which++) {
            fv_attention_options o = options_of(kind, which);
            problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)which};
            o.heads = 2, o.kv_heads = 1, o.chunk = 1;
            problem *p = problem_make(ctx, &o, &shape);
            check(p, 5);
            problem_free(p);
        }
    }
}

/* Plain maps work at the true scale, where no normaliser below 2^-126 can be held: a row to which recent keys give
 * nothing at all has only what is left of old ones. */
static float inside(int kind, float gate)
{
    if (kind_has(kind, KIND_EMPTY))
        return FV_MAX(gate, 0.1f);
    bool exponential = fv_mechanism_find(fv_attention_kind_at(kind)->name)->map->exponential;
    return exponential ? gate : FV_MAX(gate, 1e-6f);
}

/* Gates from denormal to 1 - 2^-24, alone and in rows. */
static void gates_of_all_sizes(void **state)
{
    static const float sizes[] = {0.5f, 1e-6f, 1 - 1e-7f, 1e-40f, 0x1.fffffep-1f, 0.9f, 1e-30f, 0.3f};
    static const int64_t L = 19;
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; kernelized(kind) && n < 4; n++) {
            fv_attention_options o = options_of(kind, n % 2 ? GATE | DECAY : GATE);
            problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)n};
            o.heads = o.kv_heads = 2, o.chunk = n / 2 ? 8 : 0;
            problem *p = problem_make(ctx, &o, &shape);
            fv_random random = fv_random_make((uint64_t)n, FV_RANDOM_TEST, 31, 0);
            for (int64_t i = 0; i < p->input_floats[FV_INPUT_GATE]; i++)
                p->input[FV_INPUT_GATE][i] =
                    inside(kind, sizes[fv_random_below(&random, n % 3 ? FV_COUNT(sizes) : 3)]);
            check(p, 5);
            problem_free(p);
        }
    }
}

/* Constant strong factors: every few tokens a chunk ends. */
static void strong_factors(void **state)
{
    static const float gates[] = {1e-6f, 1 - 1e-7f, 1e-3f};
    static const int64_t L = 20;
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; kernelized(kind) && n < 6; n++) {
            fv_attention_options o = options_of(kind, n < 3 ? GATE : DECAY);
            problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)n};
            o.heads = o.kv_heads = 2, o.chunk = 16;
            problem *p = problem_make(ctx, &o, &shape);
            fv_input input = n < 3 ? FV_INPUT_GATE : FV_INPUT_DECAY;
            for (int64_t i = 0; i < p->input_floats[input]; i++)
                p->input[input][i] = inside(kind, gates[n % 3]);
            check(p, 5);
            problem_free(p);
        }
    }
}

/* Keys that differ by hundreds of powers of two, old ones large, recent ones small, and the reverse. */
static void keys_of_all_sizes(void **state)
{
    static const int64_t L = 18;
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; kernelized(kind) && n < 4; n++) {
            fv_attention_options o = options_of(kind, n % 2 ? DECAY : GATE);
            problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)n};
            o.heads = o.kv_heads = 2, o.chunk = n == 1 || n == 2 ? 4 : 16;
            problem *p = problem_make(ctx, &o, &shape);
            /* Signed weights: where one key is all of a normaliser that cancels, nothing can be known of the others. */
            bool cancels = kind_has(kind, KIND_CANCELS);
            float steps = cancels ? 8 : 2, factor = inside(kind, cancels ? 1e-2f : 1e-5f);
            fv_input input = n % 2 ? FV_INPUT_DECAY : FV_INPUT_GATE;
            for (int64_t i = 0; i < p->input_floats[input]; i++)
                p->input[input][i] = factor * (float)(1 + i % 3);
            for (int64_t t = 0; t < L; t++)
                for (int64_t c = 0; c < problem_row_k(p); c++)
                    p->k[t * problem_row_k(p) + c] *= 1 + (float)(n / 2 ? t : L - t) / steps;
            check(p, 5);
            problem_free(p);
        }
    }
}

/* ---- laws -------------------------------------------------------------------------------------- */

static problem *law_problem(int kind, int which, int64_t L, int64_t chunk)
{
    fv_attention_options o = options_of(kind, which);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 77};
    o.chunk = chunk;
    return problem_make(ctx, &o, &shape);
}

/* Whatever later tokens and gates hold, NaN among it, no earlier output changes in a bit. */
static void later_tokens_change_nothing(void **state)
{
    static const float values[] = {NAN, INFINITY, 0.0f, 1e-30f, -1.0f, 1e30f};
    const int64_t L = 37;
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; kernelized(kind) && n < FV_COUNT(values); n++) {
            problem *p = law_problem(kind, GATE | (n % 2 ? DECAY : 0), L, n % 3 ? 16 : 0);
            int64_t row = problem_row_y(p), at = 11 + n % 7;
            float *before = malloc((size_t)(L * row) * sizeof *before);
            problem_forward(p, false);
            memcpy(before, p->y, (size_t)(L * row) * sizeof *before);
            for (int64_t t = at; t < L; t += 3) {
                float value = values[n];
                for (int64_t h = 0; h < 4; h++)
                    p->input[FV_INPUT_GATE][t * 4 + h] = value;
                p->k[t * problem_row_k(p)] = value;
                p->v[t * problem_row_v(p)] = value;
                p->q[t * problem_row_q(p)] = value;
            }
            problem_forward(p, false);
            assert_memory_equal(before, p->y, (size_t)(at * row) * sizeof *before);
            free(before);
            problem_free(p);
        }
    }
}

/* A gate that is no gate says so from its token on, and in its own sequence. */
static void bad_gates_stay_inside(void **state)
{
    static const int64_t lengths[] = {9, 9, 9};
    static const float bad[] = {NAN, 1.5f, -0.5f, INFINITY};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; kernelized(kind) && n < FV_COUNT(bad); n++) {
            fv_attention_options o = options_of(kind, GATE);
            problem_shape shape = {3, lengths, NULL, 0, 0, 5};
            problem *p = problem_make(ctx, &o, &shape);
            int64_t row = problem_row_y(p);
            p->input[FV_INPUT_GATE][(9 + 4) * 4] = bad[n];
            problem_forward(p, true);
            problem_backward(p);
            for (int64_t i = 0; i < 27 * row; i++) {
                int64_t t = i / row;
                bool poisoned = t >= 13 && t < 18 && i % row < p->info.options.value_dim;
                assert_int_equal(isnan(p->y[i]) != 0, poisoned);
                if (t < 9 || t >= 18)
                    assert_true(isfinite(p->dq[t * problem_row_q(p)]));
            }
            problem_free(p);
        }
    }
}

static void threads_change_nothing(void **state)
{
    static const int64_t lengths[] = {13, 0, 40, 5};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        if (!kernelized(kind))
            continue;
        problem *p[2];
        fv_context *contexts[] = {problem_context(NULL, 1), problem_context(NULL, 4)};
        for (int n = 0; n < 2; n++) {
            fv_attention_options o = options_of(kind, GATE | DECAY);
            problem_shape shape = {FV_COUNT(lengths), lengths, NULL, 0, 0, 6};
            p[n] = problem_make(contexts[n], &o, &shape);
            problem_forward(p[n], true);
            problem_backward(p[n]);
        }
        const fv_input inputs[] = {FV_INPUT_GATE, FV_INPUT_DECAY};
        for (int i = 0; i < 2; i++)
            assert_memory_equal(p[0]->d_input[inputs[i]], p[1]->d_input[inputs[i]],
                                (size_t)p[0]->input_floats[inputs[i]] * sizeof(float));
        assert_memory_equal(p[0]->y, p[1]->y, (size_t)(p[0]->tq * problem_row_y(p[0])) * sizeof(float));
        assert_memory_equal(p[0]->dk, p[1]->dk, (size_t)(p[0]->tk * problem_row_k(p[0])) * sizeof(float));
        for (int n = 0; n < 2; n++) {
            problem_free(p[n]);
            fv_context_destroy(contexts[n]);
        }
    }
}

static void assert_close(const problem *a, const problem *b, double tolerance)
{
    for (int64_t i = 0; i < a->tq * problem_row_y(a); i++)
        if (!(fabs((double)(a->y[i] - b->y[i])) <= tolerance * (1 + fabs((double)a->y[i]))))
            fail_msg("%s: entry %lld is %g and %g", a->info.options.kind, (long long)i, (double)a->y[i],
                     (double)b->y[i]);
}

/* decay 1 is the plain operator; a constant gate g is decay g, since 1 - g cancels in the ratio; gate and decay of
 * square roots are the decay of their product. */
static void special_cases_meet(void **state)
{
    const int64_t L = 33;
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        if (!kernelized(kind))
            continue;
        problem *plain = law_problem(kind, 0, L, 8), *gate = law_problem(kind, GATE, L, 8),
                *decay = law_problem(kind, DECAY, L, 8), *both = law_problem(kind, GATE | DECAY, L, 8);
        bool guarded = plain->info.options.denominator != FV_DENOMINATOR_NONE;
        for (int h = 0; h < 4; h++)
            decay->input[FV_INPUT_DECAY][h] = 1;
        problem_forward(plain, false);
        problem_forward(decay, false);
        assert_close(plain, decay, 1e-5);
        for (int h = 0; h < 4; h++)
            decay->input[FV_INPUT_DECAY][h] = 0.81f, both->input[FV_INPUT_DECAY][h] = 0.9f;
        for (int64_t i = 0; i < 4 * L; i++)
            gate->input[FV_INPUT_GATE][i] = 0.81f, both->input[FV_INPUT_GATE][i] = 0.9f;
        problem_forward(gate, false);
        problem_forward(decay, false);
        problem_forward(both, false);
        if (!guarded) {
            assert_close(gate, decay, 1e-5);
            assert_close(both, decay, 1e-5);
        }
        problem *all[] = {plain, gate, decay, both};
        for (int n = 0; n < 4; n++)
            problem_free(all[n]);
    }
}

/* Rows of the implied matrix carry the factors: times v they are y. */
static void rows_of_the_matrix(void **state)
{
    static const int64_t lengths[] = {20, 3, 7};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int which = GATE; kernelized(kind) && which <= (GATE | DECAY); which++) {
            fv_attention_options o = options_of(kind, which);
            problem_shape shape = {3, lengths, NULL, 0, 0, (uint64_t)which};
            problem *p = problem_make(ctx, &o, &shape);
            for (int64_t i = 0; which == GATE && i < p->input_floats[FV_INPUT_GATE]; i++)
                p->input[FV_INPUT_GATE][i] = i % 13 == 0 ? 1e-20f : p->input[FV_INPUT_GATE][i];
            worst w = problem_check_rows(p);
            worst_check(&w, 1, "rows", p);
            problem_free(p);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(small_lengths),
        cmocka_unit_test(chunks_and_packs),
        cmocka_unit_test(segments),
        cmocka_unit_test(gates_of_all_sizes),
        cmocka_unit_test(strong_factors),
        cmocka_unit_test(keys_of_all_sizes),
        cmocka_unit_test(later_tokens_change_nothing),
        cmocka_unit_test(bad_gates_stay_inside),
        cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(special_cases_meet),
        cmocka_unit_test(rows_of_the_matrix),
    };
    return cmocka_run_group_tests(tests, setup, tell_and_tear_down);
}
