/* test_toeplitz_laws.c: the Toeplitz operator on values: causality and prefixes to the bit; sequences apart; threads;
 * refusals; work and memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/counting.h"
#include "support/floats.h"
#include "support/problem.h"
#include "support/toeplitz_call.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- to the bit -------------------------------------------------------------------------------------- */

static void same(const toeplitz_call *c, const float *a, const float *b, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s%s differs at %lld of %lld: %.9g and %.9g", what, c->t.raster ? " of a raster" : "",
                     (long long)i, (long long)n, (double)a[i], (double)b[i]);
}

static const float intruders[] = {3.0f, 1e30f, FLT_MAX, INFINITY, -INFINITY, NAN};

static void later_tokens_change_nothing(fv_context *ctx, const toeplitz_shape *s, int64_t step)
{
    toeplitz_call *c = toeplitz_make(ctx, s);
    float *start = floats_copy(c->y, c->tq * c->ldy), *v = floats_copy(c->v, c->tk * c->ldv);
    toeplitz_forward(c);
    float *y = floats_copy(c->y, c->tq * c->ldy);
    for (int64_t t = 1; t < c->tk; t += step) {
        for (int n = 0; n < FV_COUNT(intruders); n++) {
            memcpy(c->v, v, (size_t)(c->tk * c->ldv) * sizeof *v);
            memcpy(c->y, start, (size_t)(c->tq * c->ldy) * sizeof *y);
            for (int64_t i = t * c->ldv; i < c->tk * c->ldv; i++)
                c->v[i] = n % 2 == 0 || i % 3 ? intruders[n] : -c->v[i];
            toeplitz_forward(c);
            same(c, y, c->y, t * c->ldy, "y before changed tokens");
        }
    }
    free(start), free(v), free(y);
    toeplitz_drop(c);
}

static void causality(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    toeplitz_shape s = {.heads = 2, .kv_heads = 1, .width = 5, .span = 2100, .causal = true, .sequences = 1};
    s.queries[0] = 140;
    later_tokens_change_nothing(ctx, &s, 13);
    s.queries[0] = 2100;
    later_tokens_change_nothing(ctx, &s, 307);
    s.raster = true, s.span = 13, s.queries[0] = 169;
    later_tokens_change_nothing(ctx, &s, 5);
    fv_context_destroy(ctx);
}

/* A prefix, alone or in a pack, has the bits of the whole, whatever else is there. */
static void prefixes(void **state)
{
    static const int64_t lengths[] = {1, 31, 32, 33, 127, 128, 129, 160, 1000, 1024, 1025, 1500, 2048, 2049};
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    toeplitz_shape s = {.heads = 2, .kv_heads = 1, .width = 6, .span = 2500, .causal = true, .sequences = 1};
    s.queries[0] = 2300;
    toeplitz_call *whole = toeplitz_make(ctx, &s);
    float *start = floats_copy(whole->y, whole->tq * whole->ldy);
    toeplitz_forward(whole);
    for (int n = 0; n < FV_COUNT(lengths); n++) {
        s.queries[0] = lengths[n];
        toeplitz_call *c = toeplitz_make(ctx, &s); /* begins with the same numbers */
        same(c, start, c->y, c->tq * c->ldy, "the start");
        toeplitz_forward(c);
        same(c, whole->y, c->y, c->tq * c->ldy, "y of a prefix");
        toeplitz_drop(c);
    }
    free(start);
    toeplitz_drop(whole);
    fv_context_destroy(ctx);
}

static void packed_as_alone(void **state)
{
    static const int64_t lengths[] = {5, 300, 0, 130, 300, 193};
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        toeplitz_shape s = {
            .heads = 2, .kv_heads = 1, .width = 6, .span = 310, .causal = causal != 0, .sequences = 6};
        memcpy(s.queries, lengths, sizeof lengths);
        toeplitz_call *all = toeplitz_make(ctx, &s);
        float *y = floats_copy(all->y, all->tq * all->ldy), *dv = floats_copy(all->dv, all->tk * all->ldv);
        toeplitz_forward(all);
        toeplitz_backward(all, all->dv, NULL);
        for (int n = 0; n < FV_COUNT(lengths); n++) {
            s.sequences = 1, s.queries[0] = lengths[n];
            toeplitz_call *c = toeplitz_make(ctx, &s);
            int64_t at_y = all->oq[n] * all->ldy, at_v = all->oq[n] * all->ldv;
            size_t ny = (size_t)(c->tq * c->ldy), nv = (size_t)(c->tk * c->ldv);
            memcpy(c->v, all->v + at_v, nv * sizeof(float)),
                memcpy(c->dy, all->dy + at_y, ny * sizeof(float));
            memcpy(c->y, y + at_y, ny * sizeof(float)), memcpy(c->dv, dv + at_v, nv * sizeof(float));
            toeplitz_forward(c);
            toeplitz_backward(c, c->dv, NULL);
            same(c, all->y + at_y, c->y, (int64_t)ny, "y packed and alone");
            same(c, all->dv + at_v, c->dv, (int64_t)nv, "dv packed and alone");
            toeplitz_drop(c);
        }
        free(y), free(dv);
        toeplitz_drop(all);
    }
    fv_context_destroy(ctx);
}

/* A value that is not finite reaches the rows that see it, in its channel; its gradients likewise. */
static void poison(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int n = 0; n < 12; n++) {
        static const int64_t lengths[] = {20, 300, 1100};
        static const float bad[] = {NAN, INFINITY};
        int64_t L = lengths[n / 4], at = L / 3;
        toeplitz_shape s = {
            .heads = 1, .kv_heads = 1, .width = 5, .span = L, .causal = n % 2, .sequences = 3};
        s.queries[0] = s.queries[2] = 7, s.queries[1] = L;
        toeplitz_call *c = toeplitz_make(ctx, &s);
        c->v[(7 + at) * c->ldv + 3] = bad[n / 2 % 2];
        c->dy[(7 + at) * c->ldy + 3] = bad[n / 2 % 2];
        toeplitz_forward(c);
        toeplitz_backward(c, c->dv, c->dw);
        for (int64_t i = 0; i < c->tq; i++) {
            bool mine = i >= 7 && i < 7 + L;
            for (int64_t f = 0; f < 5; f++) {
                bool sees = mine && f == 3 && (!s.causal || i >= 7 + at);
                bool seen = mine && f == 3 && (!s.causal || i <= 7 + at);
                assert_int_equal(!isfinite(c->y[i * c->ldy + f]), sees);
                assert_int_equal(!isfinite(c->dv[i * c->ldv + f]), seen);
            }
        }
        assert_true(!isfinite(c->dw[s.span - 1]));
        toeplitz_drop(c);
    }
    fv_context_destroy(ctx);
}

static void threads(void **state)
{
    fv_context *one = problem_context(NULL, 1);
    (void)state;
    for (int count = 2; count <= 3; count++) {
        fv_context *more = problem_context(NULL, count);
        for (int n = 0; n < 4; n++) {
            toeplitz_shape s = {
                .heads = 12, .kv_heads = 4, .width = 70, .span = 400, .causal = n % 2, .sequences = 5};
            memcpy(s.queries, (int64_t[]){4, 400, 150, 220, 350}, 5 * sizeof s.queries[0]);
            if (n >= 2)
                s.raster = true, s.span = 14, s.sequences = 2, s.queries[0] = s.queries[1] = 196;
            toeplitz_call *a = toeplitz_make(one, &s), *b = toeplitz_make(more, &s);
            toeplitz_forward(a), toeplitz_forward(b);
            toeplitz_backward(a, a->dv, a->dw), toeplitz_backward(b, b->dv, b->dw);
            same(a, a->y, b->y, a->tq * a->ldy, "y with other threads");
            same(a, a->dv, b->dv, a->tk * a->ldv, "dv with other threads");
            same(a, a->dw, b->dw, a->weights, "dw with other threads");
            toeplitz_drop(a), toeplitz_drop(b);
        }
        fv_context_destroy(more);
    }
    fv_context_destroy(one);
}

/* Each gradient alone has the bits it has beside the other. */
static void gradients_alone(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int n = 0; n < 4; n++) {
        toeplitz_shape s = {
            .heads = 2, .kv_heads = 1, .width = 6, .span = 300, .causal = n % 2, .sequences = 2};
        s.queries[0] = 300, s.queries[1] = 60;
        if (n >= 2)
            s.raster = true, s.span = 9, s.queries[0] = s.queries[1] = 81;
        toeplitz_call *c = toeplitz_make(ctx, &s);
        float *dv = floats_copy(c->dv, c->tk * c->ldv), *dw = floats_copy(c->dw, c->weights);
        toeplitz_backward(c, c->dv, c->dw);
        toeplitz_backward(c, dv, NULL);
        toeplitz_backward(c, NULL, dw);
        same(c, c->dv, dv, c->tk * c->ldv, "dv alone");
        same(c, c->dw, dw, c->weights, "dw alone");
        free(dv), free(dw);
        toeplitz_drop(c);
    }
    fv_context_destroy(ctx);
}

/* ---- refusals, work, memory ---------------------------------------------------------------------------- */

static void bad_lengths(void **state)
{
    fv_context *ctx = problem_context(NULL, 1);
    (void)state;
    for (int n = 0; n < 6; n++) {
        toeplitz_shape s = {
            .heads = 1, .kv_heads = 1, .width = 2, .span = 10, .sequences = 2, .raster = n >= 3};
        s.queries[0] = s.raster ? 102 : 12, s.queries[1] = 0, s.skip = 2;
        if (n % 3 == 1)
            s.queries[0]++;
        if (n % 3 == 2)
            s.keys[0] = s.queries[0] + 1;
        toeplitz_call *c = toeplitz_make(ctx, &s);
        assert_int_equal(fv_toeplitz_check(&c->t), n % 3 ? FV_ERR_FILE : FV_OK);
        toeplitz_drop(c);
    }
    fv_context_destroy(ctx);
}

static double work_of(fv_context *ctx, const toeplitz_shape *s, bool back)
{
    toeplitz_call *c = toeplitz_make(ctx, s);
    counting_reset();
    if (back)
        toeplitz_backward(c, c->dv, c->dw);
    else
        toeplitz_forward(c);
    double work = counting_work();
    toeplitz_drop(c);
    return work;
}

/* O(n log n), causal O(n log^2 n): eight times the tokens cost at most 2.05, 2.3 times a doubling. */
static void work(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    fv_kernels below = *ctx->kernels;
    (void)state;
    counting_table(ctx->kernels, &below);
    *ctx->exact = *ctx->kernels;
    for (int n = 0; n < 4; n++) {
        toeplitz_shape s = {.heads = 1, .kv_heads = 1, .width = 8, .causal = n % 2, .sequences = 1};
        s.queries[0] = s.span = 2048;
        double once = work_of(ctx, &s, n / 2);
        s.queries[0] = s.span = 16384;
        assert_true(work_of(ctx, &s, n / 2) / once <= pow(n % 2 ? 2.3 : 2.2, 3));
        s.raster = true, s.span = 256, s.queries[0] = 1 << 16; /* twice the side: four times the tokens */
        once = work_of(ctx, &s, n / 2);
        s.span = 512, s.queries[0] = 1 << 18;
        assert_true(work_of(ctx, &s, n / 2) / once <= 4 * 1.3);
    }
    fv_context_destroy(ctx);
}

static void memory(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int n = 0; n < 8; n++) {
        int64_t offsets[] = {0, 0};
        fv_layout layout = {1, offsets, NULL};
        fv_toeplitz t = {ctx, &layout, 8, 8, 64, 0, 0, n % 2 != 0, n / 2 % 2 != 0};
        for (int64_t side = 100; side < 2000; side = side * 3 / 2) {
            int64_t L = side * side;
            offsets[1] = L, t.span = t.raster ? side : L;
            /* Of the tensor's 512 floats a token: two threads' transforms, 4 n rows of 64 and twice that
             * backward, and the filters, 8 n of 8 heads. */
            double floats = t.raster ? 64 : n / 4 ? 1400 : 700;
            assert_true((double)fv_toeplitz_scratch(&t, n / 4) < 4 * floats * (double)L + 8e6);
        }
    }
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(causality),   cmocka_unit_test(prefixes), cmocka_unit_test(packed_as_alone),
        cmocka_unit_test(poison),      cmocka_unit_test(threads),  cmocka_unit_test(gradients_alone),
        cmocka_unit_test(bad_lengths), cmocka_unit_test(work),     cmocka_unit_test(memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
