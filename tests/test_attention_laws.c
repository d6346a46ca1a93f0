/* test_attention_laws.c: what holds for every attention kind without a second implementation: causality to
 * the bit, packed as alone, threads, gradients in place, work and memory. Kinds come from the table. What values and rows
 * of the matrix obey is in test_attention_laws_values.c, streams in test_attention_stream.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/counting.h"
#include "support/kinds.h"
#include "support/laws.h"
#include "support/one_context.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Laws run once more on heads so wide that Hadamard projections go through their transforms: two blocks and a few rows. */
static bool by_transforms;

static int wide_heads(void **state)
{
    (void)state;
    by_transforms = true;
    return 0;
}

static int narrow_heads(void **state)
{
    (void)state;
    by_transforms = false;
    return 0;
}

/* Whether the kind is to be run now. */
static bool runs(int kind, int causal)
{
    return kind_runs(kind, causal) &&
           (!by_transforms || fv_attention_kind_takes(fv_attention_kind_at(kind), "projection", "hadamard"));
}

static fv_attention_options options_of(int kind, int causal)
{
    fv_attention_options o = laws_options(kind, causal);
    if (by_transforms)
        o.projection = FV_PROJECTION_HADAMARD, o.dim = 64, o.features = 130;
    return o;
}

static problem *make(fv_context *with, int kind, int causal, int64_t L, int64_t chunk)
{
    fv_attention_options o = options_of(kind, causal);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 11};
    o.chunk = chunk;
    return problem_make(with, &o, &shape);
}

static bool is_identity(int kind)
{
    return fv_attention_kind_find("identity") == fv_attention_kind_at(kind);
}

/* ---- causality ----------------------------------------------------------------------------------- */

/* What a later token may be turned into. */
static const float intruders[] = {3.0f, 1e4f, 1e30f, FLT_MAX, INFINITY, -INFINITY, NAN};

/* Fills token t of q, k and v (by the bits of `which`) with x. */
static void intrude(problem *p, int64_t t, float x, int which)
{
    for (int64_t c = 0; c < problem_row_q(p) && which & 1; c++)
        p->q[t * problem_row_q(p) + c] = x;
    for (int64_t c = 0; c < problem_row_k(p) && which & 2; c++)
        p->k[t * problem_row_k(p) + c] = c % 2 ? -x : x;
    for (int64_t c = 0; c < problem_row_v(p) && which & 4; c++)
        p->v[t * problem_row_v(p) + c] = c % 3 ? x : 1;
}

static void later_tokens_change_nothing(int kind, int64_t L, int64_t chunk, int64_t step)
{
    problem *p = make(ctx, kind, 1, L, chunk);
    int64_t row = problem_row_y(p);
    problem_forward(p, false);
    float *y = floats_copy(p->y, L * row), *q = floats_copy(p->q, L * problem_row_q(p));
    float *k = floats_copy(p->k, L * problem_row_k(p)), *v = floats_copy(p->v, L * problem_row_v(p));
    for (int64_t t = 1; t < L; t += step) {
        for (int n = 0; n < FV_COUNT(intruders) * 4; n++) {
            static const int which[] = {1, 2, 4, 7};
            intrude(p, t, intruders[n / 4], which[n % 4]);
            problem_forward(p, false);
            laws_same_bits(y, p->y, t * row, "y before a changed token", p);
            memcpy(p->q, q, (size_t)(L * problem_row_q(p)) * sizeof *q);
            memcpy(p->k, k, (size_t)(L * problem_row_k(p)) * sizeof *k);
            memcpy(p->v, v, (size_t)(L * problem_row_v(p)) * sizeof *v);
        }
    }
    free(y), free(q), free(k), free(v);
    problem_free(p);
}

static void causality(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        if (!runs(kind, 1) || kind_has(kind, KIND_FORESEES))
            continue;
        if (by_transforms) {
            later_tokens_change_nothing(kind, 70, 0, 64);
            continue;
        }
        later_tokens_change_nothing(kind, 21, 4, 1);
        later_tokens_change_nothing(kind, 21, 1, 5);
        later_tokens_change_nothing(kind, 150, 0, 37);
        later_tokens_change_nothing(kind, 300, 0, 67);
    }
}

/* A value that is not finite reaches the rows that see it, and only those columns. Who does, says the matrix. */
static void poison_reaches_who_sees_it(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        if (!kind_runs(kind, 1))
            continue;
        problem *p = make(ctx, kind, 1, 21, 8);
        fv_attention_io io = problem_io(p);
        float row[2 * 21];
        p->v[5 * 5 + 2] = NAN; /* token 5, column 2, of the one key head */
        problem_forward(p, false);
        for (int64_t i = 0; i < 21; i++) {
            assert_int_equal(fv_attention_weights(p->op, &p->layout, &io, &i, 1, row, p->scratch), FV_OK);
            for (int64_t c = 0; c < 10; c++) {
                /* A visible key of weight 0 still gives 0 times NaN through the state. */
                bool weighs = row[c / 5 * 21 + 5] != 0 || (kind_has(kind, KIND_EMPTY) && i >= 5);
                bool sees = c % 5 == 2 && weighs;
                assert_true(i >= 5 || !sees);
                if (i < 5 || c % 5 == 2)
                    assert_int_equal(isnan(p->y[i * 10 + c]) != 0, sees);
            }
        }
        problem_free(p);
    }
}

/* ---- packing ------------------------------------------------------------------------------------- */

static void packed_as_alone(int kind, int causal)
{
    static const int64_t lengths[] = {5, 0, 140, 1, 17, 64};
    fv_attention_options o = options_of(kind, causal);
    problem_shape shape = {FV_COUNT(lengths), lengths, NULL, 0, 0, 12};
    problem *all = problem_make(ctx, &o, &shape);
    problem_forward(all, true);
    problem_backward(all);
    for (int s = 0; s < FV_COUNT(lengths); s++) {
        int64_t at = all->offsets_q[s], n = lengths[s];
        shape = (problem_shape){1, &n, NULL, 0, 0, 12};
        problem *alone = problem_make(ctx, &o, &shape);
        laws_take_tokens(alone, all, at, n);
        problem_forward(alone, true);
        problem_backward(alone);
        laws_same_bits(alone->y, all->y + at * problem_row_y(all), n * problem_row_y(all),
                       "y packed and alone", all);
        laws_same_bits(alone->dq, all->dq + at * problem_row_q(all), n * problem_row_q(all),
                       "dq packed and alone", all);
        laws_same_bits(alone->dk, all->dk + at * problem_row_k(all), n * problem_row_k(all),
                       "dk packed and alone", all);
        laws_same_bits(alone->dv, all->dv + at * problem_row_v(all), n * problem_row_v(all),
                       "dv packed and alone", all);
        problem_free(alone);
    }
    problem_free(all);
}

/* NaN in one sequence stays there, in outputs and gradients. */
static void nan_stays_in_its_sequence(int kind, int causal)
{
    static const int64_t lengths[] = {9, 30, 9};
    fv_attention_options o = options_of(kind, causal);
    problem_shape shape = {FV_COUNT(lengths), lengths, NULL, 0, 0, 13};
    problem *p = problem_make(ctx, &o, &shape);
    intrude(p, 20, NAN, 7);
    problem_forward(p, true);
    problem_backward(p);
    for (int64_t t = 0; t < 48; t++) {
        for (int64_t c = 0; c < problem_row_k(p) && (t < 9 || t >= 39); c++) {
            assert_true(isfinite(p->y[t * 10 + c % 10]) && isfinite(p->dq[t * problem_row_q(p) + c]));
            assert_true(isfinite(p->dk[t * problem_row_k(p) + c]) && isfinite(p->dv[t * 5 + c % 5]));
        }
    }
    problem_free(p);
}

static void packing(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int causal = 0; causal < 2; causal++) {
            if (!runs(kind, causal))
                continue;
            packed_as_alone(kind, causal);
            nan_stays_in_its_sequence(kind, causal);
        }
    }
}

/* ---- threads ------------------------------------------------------------------------------------- */

static problem *run_with(fv_context *with, int kind, int causal)
{
    static const int64_t lengths[] = {200, 3, 0, 77};
    fv_attention_options o = options_of(kind, causal);
    problem_shape shape = {FV_COUNT(lengths), lengths, NULL, 0, 0, 14};
    o.heads = 4, o.kv_heads = 2;
    problem *p = problem_make(with, &o, &shape);
    problem_forward(p, true);
    problem_backward(p);
    return p;
}

static void threads(void **state)
{
    (void)state;
    for (int count = 1; count <= 3; count++) {
        fv_context *with = problem_context(NULL, count);
        for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
            if (!runs(n / 2, n % 2))
                continue;
            problem *a = run_with(ctx, n / 2, n % 2), *b = run_with(with, n / 2, n % 2);
            laws_same_bits(a->y, b->y, 280 * problem_row_y(a), "y with other threads", a);
            laws_same_bits(a->dq, b->dq, 280 * problem_row_q(a), "dq with other threads", a);
            laws_same_bits(a->dk, b->dk, 280 * problem_row_k(a), "dk with other threads", a);
            laws_same_bits(a->dv, b->dv, 280 * problem_row_v(a), "dv with other threads", a);
            problem_free(a);
            problem_free(b);
        }
        fv_context_destroy(with);
    }
}

/* ---- gradients as a caller meets them ------------------------------------------------------------ */

/* Gradients are added to what is there, and each can be had alone with the same bits. */
static void gradients_are_added(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        if (!kind_runs(n / 2, n % 2))
            continue;
        problem *p = make(ctx, n / 2, n % 2, 70, 16);
        problem_forward(p, true);
        problem_backward(p);
        float *full[] = {p->dq, p->dk, p->dv};
        int64_t floats[] = {70 * 16, 70 * 8, 70 * 5};
        for (int which = 0; which < 3; which++) {
            float *alone = calloc((size_t)floats[which], sizeof *alone);
            fv_attention_io io = problem_io(p);
            fv_attention_grad grad = {.dy = p->dy};
            *(which == 0 ? &grad.dq : which == 1 ? &grad.dk : &grad.dv) = alone;
            assert_int_equal(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch),
                             FV_OK);
            laws_same_bits(full[which], alone, floats[which], "a gradient alone", p);
            worst w = {0};
            assert_int_equal(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch),
                             FV_OK);
            double largest = 0; /* partial sums of tiles round against what is there already */
            for (int64_t i = 0; i < floats[which]; i++)
                largest = fmax(largest, fabs((double)full[which][i]));
            for (int64_t i = 0; i < floats[which]; i++)
                worst_update(&w, (double)alone[i], 2 * (double)full[which][i], largest, i);
            worst_check(&w, 8, "gradient added twice", p);
            free(alone);
        }
        problem_free(p);
    }
}

/* In place, where a kind can: the gradients stand where the inputs were. */
static void in_place(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        static const int64_t L = 70;
        fv_attention_options o = options_of(n / 2, n % 2);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 17};
        o.kv_heads = 2;
        if (!runs(n / 2, n % 2))
            continue;
        problem *p = problem_make(ctx, &o, &shape);
        problem_forward(p, true);
        problem_backward(p);
        if (p->info.in_place_ok) {
            fv_attention_io io = problem_io(p);
            fv_attention_grad grad = {.dy = p->y, .dq = p->q, .dk = p->k, .dv = p->v, .in_place = 1};
            memcpy(p->y, p->dy, (size_t)(L * problem_row_y(p)) * sizeof(float));
            assert_int_equal(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch),
                             FV_OK);
            laws_same_bits(p->dq, p->q, L * problem_row_q(p), "dq in place", p);
            laws_same_bits(p->dk, p->k, L * problem_row_k(p), "dk in place", p);
            laws_same_bits(p->dv, p->v, L * problem_row_v(p), "dv in place", p);
        }
        problem_free(p);
    }
}

/* ---- work and memory ----------------------------------------------------------------------------- */

static double work_of(fv_context *with, int kind, int causal, int64_t L, bool backward)
{
    problem *p = make(with, kind, causal, L, 16);
    problem_forward(p, true);
    counting_reset();
    if (backward)
        problem_backward(p);
    else
        problem_forward(p, false);
    double work = counting_work();
    problem_free(p);
    return work;
}

/* Twice the tokens: twice the work for kinds linear in L, at most four times for the others. */
static void work(void **state)
{
    fv_context *with = problem_context(NULL, 2);
    fv_kernels below = *with->kernels;
    (void)state;
    counting_table(with->kernels, &below);
    *with->exact = *with->kernels;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        double limit = fv_attention_kind_at(kind)->kernelized || is_identity(kind) ? 2.05 : 4.1;
        for (int n = 0; n < 4; n++) {
            if (!kind_runs(kind, n % 2))
                continue;
            double once = work_of(with, kind, n % 2, 512, n / 2),
                   twice = work_of(with, kind, n % 2, 1024, n / 2);
            assert_true(once > 0 && twice / once <= limit);
        }
    }
    fv_context_destroy(with);
}

/* A causal softmax skips the tiles above the diagonal. */
static void causal_skips_half(void **state)
{
    fv_context *with = problem_context(NULL, 2);
    fv_kernels below = *with->kernels;
    (void)state;
    counting_table(with->kernels, &below);
    *with->exact = *with->kernels;
    for (int backward = 0; backward <= 1; backward++)
        assert_true(work_of(with, 0, 1, 512, backward) < 0.55 * work_of(with, 0, 0, 512, backward));
    fv_context_destroy(with);
}

static fv_memory memory_of(int kind, int causal, int64_t L)
{
    int64_t offsets[] = {0, L};
    fv_layout layout = {1, offsets, NULL};
    fv_attention_options o = options_of(kind, causal);
    fv_attention *op;
    fv_memory need;
    kind_complete(&o);
    assert_int_equal(fv_attention_create(&op, ctx, &o), FV_OK);
    assert_int_equal(fv_attention_measure(op, &layout, &need), FV_OK);
    fv_attention_destroy(op);
    return need;
}

/* Memory is affine in L, and a long sequence stays far from any L x L or L x r. */
static void memory(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        if (!kind_runs(n / 2, n % 2))
            continue;
        fv_memory a = memory_of(n / 2, n % 2, 1 << 14), b = memory_of(n / 2, n % 2, 2 << 14);
        fv_memory c = memory_of(n / 2, n % 2, 4 << 14);
        assert_true((double)(c.saved - b.saved) <= 2.05 * (double)(b.saved - a.saved) + 256);
        assert_true((double)(c.scratch - b.scratch) <= 2.05 * (double)(b.scratch - a.scratch) + 256);
        assert_true(c.saved + c.scratch < (4u << 14) * 16 * sizeof(float) + (4u << 20));
    }
}

/* Nothing allocates once the operator exists. */
static void no_call_allocates(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        if (!runs(n / 2, n % 2))
            continue;
        problem *p = make(ctx, n / 2, n % 2, 200, 0);
        fv_attention_io io = problem_io(p);
        int64_t row = 7;
        fv_context_reset_peak(ctx);
        size_t before = fv_context_bytes(ctx);
        problem_forward(p, true);
        problem_backward(p);
        if (!kind_has(n / 2, KIND_MIXES))
            assert_int_equal(fv_attention_weights(p->op, &p->layout, &io, &row, 1, p->dq, p->scratch), FV_OK);
        assert_int_equal(fv_context_peak_bytes(ctx), before);
        problem_free(p);
    }
}

#define BY_TRANSFORMS(law) cmocka_unit_test_setup_teardown(law, wide_heads, narrow_heads)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(causality),
        cmocka_unit_test(poison_reaches_who_sees_it),
        cmocka_unit_test(packing),
        cmocka_unit_test(threads),
        cmocka_unit_test(gradients_are_added),
        cmocka_unit_test(in_place),
        cmocka_unit_test(work),
        cmocka_unit_test(causal_skips_half),
        cmocka_unit_test(memory),
        cmocka_unit_test(no_call_allocates),
        BY_TRANSFORMS(causality),
        BY_TRANSFORMS(packing),
        BY_TRANSFORMS(threads),
        BY_TRANSFORMS(in_place),
        BY_TRANSFORMS(no_call_allocates),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
