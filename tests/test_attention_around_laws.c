/* test_attention_around_laws.c: rotary positions, ppSBN and FastRPB around every attention kind: causality, packing and
 * threads to the bit, what is no number, rotations of moved tokens. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/floats.h"
#include "support/kinds.h"
#include "support/modifiers.h"
#include "support/one_context.h"
#include "support/problem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void same_bits(const float *a, const float *b, int64_t floats, const char *what, const modifier *m,
                      const problem *p)
{
    for (int64_t i = 0; i < floats; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s with %s: %s differs at %lld of %lld: %.9g and %.9g", p->info.options.kind, m->name,
                     what, (long long)i, (long long)floats, (double)a[i], (double)b[i]);
}

static void later_tokens_change_nothing(int kind, int causal, const modifier *m)
{
    static const float intruders[] = {3.0f, 1e30f, INFINITY, NAN};
    int64_t R = 5, L = m->bias == FV_POSITION_BIAS_FASTRPB_2D ? R * R : 150;
    if (!causal || kind_has(kind, KIND_FORESEES))
        return;
    fv_attention_options o = modifier_options(kind, causal, m, L == 25 ? R : L);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 41};
    problem *p = problem_make(ctx, &o, &shape);
    problem_forward(p, false);
    float *y = floats_copy(p->y, L * 6);
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
    modifiers_in_turn(later_tokens_change_nothing);
}

static void packed_as_alone(int kind, int causal, const modifier *m)
{
    static const int64_t lengths[] = {5, 0, 140, 64}, squares[] = {16, 16};
    bool raster = m->bias == FV_POSITION_BIAS_FASTRPB_2D;
    int64_t count = raster ? 2 : 4;
    fv_attention_options o = modifier_options(kind, causal, m, raster ? 4 : 140);
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
    modifiers_in_turn(packed_as_alone);
}

static void other_threads(int kind, int causal, const modifier *m)
{
    static const int64_t lengths[] = {200, 3, 77}, squares[] = {49, 49};
    bool raster = m->bias == FV_POSITION_BIAS_FASTRPB_2D;
    fv_context *with[] = {problem_context(NULL, 1), problem_context(NULL, 3)};
    problem *p[2];
    for (int n = 0; n < 2; n++) {
        fv_attention_options o = modifier_options(kind, causal, m, raster ? 7 : 200);
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
    modifiers_in_turn(other_threads);
}

/* A NaN stays in its sequence. */
static void nan_stays(int kind, int causal, const modifier *m)
{
    static const int64_t lengths[] = {9, 121, 9};
    static const int64_t squares[] = {9, 9, 9};
    bool raster = m->bias == FV_POSITION_BIAS_FASTRPB_2D;
    const int64_t *of = raster ? squares : lengths;
    fv_attention_options o = modifier_options(kind, causal, m, raster ? 3 : 121);
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
    modifiers_in_turn(nan_stays);
}

/* Rotations depend on distances alone: exact attention of a sequence does not change when all of it moves. */
static void rotary_is_relative(void **state)
{
    static const int64_t L = 40, rest = 33;
    (void)state;
    fv_attention_options o = modifier_options(0, 0, &modifiers[0], L);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(causality),
        cmocka_unit_test(packing),
        cmocka_unit_test(threads),
        cmocka_unit_test(nan_in_one_sequence),
        cmocka_unit_test(rotary_is_relative),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
