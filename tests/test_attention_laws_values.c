/* test_attention_laws_values.c: what holds for every attention kind without a second implementation: linearity in the
 * values, permutations, inputs of all sizes, rows of the matrix. Kinds come from the table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/laws.h"
#include "support/one_context.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static problem *make(int kind, int causal, int64_t L)
{
    fv_attention_options o = laws_options(kind, causal);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 11};
    return problem_make(ctx, &o, &shape);
}

/* ---- algebra ------------------------------------------------------------------------------------- */

/* Twice the values, twice the output: a power of two commutes with every rounding. */
static void linear_in_v(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        if (!kind_runs(n / 2, n % 2))
            continue;
        problem *p = make(n / 2, n % 2, 70);
        int64_t floats = 70 * problem_row_y(p);
        problem_forward(p, false);
        float *y = floats_copy(p->y, floats);
        for (int64_t i = 0; i < 70 * problem_row_v(p); i++)
            p->v[i] *= 2;
        for (int64_t i = 0; i < floats; i++)
            y[i] *= 2;
        problem_forward(p, false);
        laws_same_bits(y, p->y, floats, "y of twice the values", p);
        free(y);
        problem_free(p);
    }
}

/* Weights sum to one where no guard steps in: a constant value comes back. Numerator and normaliser are sums of
 * the same terms in different orders; where terms are positive that says how far they may differ. */
static void constant_v(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        bool cancels = kind_has(n / 2, KIND_CANCELS);
        const int64_t L = 140;
        fv_attention_options o = laws_options(n / 2, n % 2);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 11};
        if (!kind_runs(n / 2, n % 2) || kind_has(n / 2, KIND_MIXES))
            continue;
        o.denominator = cancels ? FV_DENOMINATOR_NONE : FV_DENOMINATOR_DEFAULT;
        problem *p = problem_make(ctx, &o, &shape);
        for (int64_t i = 0; i < L * problem_row_v(p); i++)
            p->v[i] = 1.5f;
        problem_forward(p, false);
        worst w = {0};
        bool empty = kind_has(n / 2, KIND_EMPTY);
        for (int64_t i = 0; i < L * problem_row_y(p) && !cancels; i++)
            if (!empty || p->y[i] != 0)
                worst_update(&w, (double)p->y[i], 1.5, 1.5, i);
        worst_check(&w, 16, "of a constant value", p);
        w = empty ? problem_check_forward(p) : problem_check_constant(p, 1.5);
        worst_check(&w, kind_row_at(n / 2)->forward + 1, "of a constant value by magnitudes", p);
        problem_free(p);
    }
}

/* Bidirectional, of kinds that look at vectors alone: reordering the keys changes nothing, reordering the queries
 * reorders y. */
static void permutations(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        const int64_t L = 51;
        if (kind_has(kind, KIND_PLACES))
            continue;
        problem *p = make(kind, 0, L), *turned = make(kind, 0, L);
        for (int64_t t = 0; t < L; t++) { /* 20 and 51 have no common divisor */
            int64_t to = t * 20 % L;
            memcpy(turned->q + to * 16, p->q + t * 16, 16 * sizeof(float));
            memcpy(turned->k + to * 8, p->k + t * 8, 8 * sizeof(float));
            memcpy(turned->v + to * 5, p->v + t * 5, 5 * sizeof(float));
        }
        problem_forward(turned, false);
        for (int64_t t = 0; t < L; t++)
            memcpy(p->y + t * 10, turned->y + t * 20 % L * 10, 10 * sizeof(float));
        worst w = problem_check_forward(p);
        worst_check(&w, kind_row_at(kind)->forward, "of permuted tokens", p);
        problem_free(p);
        problem_free(turned);
    }
}

/* Norms at which exp overflows: finite, and right. */
static void huge_inputs(void **state)
{
    static const int64_t L = 33;
    (void)state;
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        fv_attention_options o = laws_options(n / 2, n % 2);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 15, .spread = 30};
        o.chunk = n % 2 ? 8 : 0;
        if (!kind_runs(n / 2, n % 2))
            continue;
        problem *p = problem_make(ctx, &o, &shape);
        problem_forward(p, true);
        problem_backward(p);
        for (int64_t i = 0; i < L * 8; i++)
            if (!isfinite(p->y[i]) || !isfinite(p->dq[i]) || !isfinite(p->dk[i]) ||
                !isfinite(p->dv[i * 5 / 8]))
                fail_msg("%s: not finite at %lld, causal %d", o.kind, (long long)i, n % 2);
        worst w = problem_check_forward(p), g = problem_check_gradients(p, 10);
        worst_check(&w, kind_row_at(n / 2)->forward, "of huge inputs", p);
        worst_check(&g, kind_row_at(n / 2)->gradient, "gradient of huge inputs", p);
        problem_free(p);
    }
}

/* identity gives the values themselves; their gradient sums over the heads that read them. */
static void identity_is_v(void **state)
{
    static const int64_t L = 40;
    fv_attention_options o = laws_options(0, 0);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 16};
    (void)state;
    o.kind = "identity", o.heads = 4, o.kv_heads = 2, o.value_dim = 3;
    problem *p = problem_make(ctx, &o, &shape);
    problem_forward(p, false);
    problem_backward(p);
    for (int64_t i = 0; i < L * 12; i++)
        assert_true(p->y[i] == p->v[i / 12 * 6 + i % 12 / 6 * 3 + i % 3]);
    for (int64_t i = 0; i < L * 6; i++) {
        const float *dy = p->dy + i / 6 * 12 + i % 6 / 3 * 6 + i % 3;
        assert_true(p->dv[i] == dy[0] + dy[3]);
    }
    for (int64_t i = 0; i < L * 16; i++)
        assert_true(p->dq[i] == 0 && p->dk[i] == 0);
    problem_free(p);
}

/* A first key beyond any exponent weighs nothing: what follows is as if it were not there. */
static void a_first_key_out_of_range(void **state)
{
    static const int64_t L = 30, rest = 29;
    fv_attention_options o;
    (void)state;
    fv_attention_options_init(&o);
    o.kind = "favor+", o.heads = 2, o.kv_heads = 1, o.dim = 8, o.value_dim = 5, o.causal = 1, o.features = 16;
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 23};
    problem *p = problem_make(ctx, &o, &shape);
    shape.queries = &rest;
    problem *q = problem_make(ctx, &o, &shape);
    laws_take_tokens(q, p, 1, rest);
    for (int64_t c = 0; c < problem_row_k(p); c++)
        p->k[c] = 1e30f;
    problem_forward(p, false);
    problem_forward(q, false);
    worst w = {0};
    for (int64_t i = 0; i < rest * 10; i++)
        worst_update(&w, (double)p->y[10 + i], (double)q->y[i], 4, i); /* values reach 4 */
    worst_check(&w, 8, "behind a first key out of range", p);
    problem_free(p);
    problem_free(q);
}

/* ---- rows of the matrix -------------------------------------------------------------------------- */

/* Row i of head h: the specification's entries, zero where it may not look, one in sum, and times V it is y. */
static void check_row(const problem *p, const float *row, int64_t h, int64_t i)
{
    const fv_attention_options *o = &p->info.options;
    const kind_row *kind = kind_row_of(o->kind);
    bool cancels = kind->traits & KIND_CANCELS;
    int64_t s = 0, g = h * o->kv_heads / o->heads;
    num *want = malloc((size_t)p->tk * sizeof *want);
    worst w = {0};
    double sum = 0, error = 0;
    problem_spec_row(p, h, i, want);
    while (p->offsets_q[s + 1] <= i)
        s++;
    int64_t end = o->causal ? i + 1 : p->offsets_k[s + 1];
    for (int64_t j = 0; j < p->tk; j++) {
        worst_update(&w, (double)row[j], num_value(want[j]), want[j].m, j);
        sum += (double)row[j];
        error += cancels ? want[j].m : fabs((double)row[j]);
        if (j < p->offsets_k[s] || j >= end)
            assert_true(row[j] == 0);
    }
    worst_check(&w, kind->forward + 1, "a row of the matrix", p);
    bool none = (kind->traits & KIND_EMPTY) && sum == 0;
    assert_true(none || fabs(sum - 1) < 8 * (double)FLT_EPSILON * error);
    for (int64_t c = 0; c < o->value_dim; c++) {
        double y = 0, m = 0;
        for (int64_t j = 0; j < p->tk; j++) {
            double v = (double)p->v[(j * o->kv_heads + g) * o->value_dim + c];
            y += (double)row[j] * v;
            m += (cancels ? want[j].m : (double)row[j]) * fabs(v);
        }
        /* Both computed scores of up to 10 in magnitude on their own. */
        double got = (double)p->y[(i * o->heads + h) * o->value_dim + c];
        if (!(fabs(y - got) <= 40 * (double)FLT_EPSILON * m))
            fail_msg("%s: row %lld times V is %.9g, y is %.9g, magnitude %.3g", o->kind, (long long)i, y, got,
                     m);
    }
    free(want);
}

static void rows_of(int kind, int causal)
{
    static const int64_t lengths[] = {40, 0, 90}, rows[] = {0, 39, 40, 41, 100, 129};
    fv_attention_options o = laws_options(kind, causal);
    problem_shape shape = {FV_COUNT(lengths), lengths, NULL, 0, 0.5, 18};
    o.denominator = kind_has(kind, KIND_CANCELS) ? FV_DENOMINATOR_NONE : FV_DENOMINATOR_DEFAULT;
    problem *p = problem_make(ctx, &o, &shape);
    fv_attention_io io = problem_io(p);
    float *weights = malloc((size_t)(2 * FV_COUNT(rows) * p->tk) * sizeof *weights);
    problem_forward(p, false);
    memset(weights, 0xAA, (size_t)(2 * FV_COUNT(rows) * p->tk) * sizeof *weights);
    assert_int_equal(fv_attention_weights(p->op, &p->layout, &io, rows, FV_COUNT(rows), weights, p->scratch),
                     FV_OK);
    for (int64_t h = 0; h < 2; h++)
        for (int n = 0; n < FV_COUNT(rows); n++)
            check_row(p, weights + (h * FV_COUNT(rows) + n) * p->tk, h, rows[n]);
    free(weights);
    problem_free(p);
}

/* The top of a row is the row sorted. */
static void top_of(int kind, int causal)
{
    static const int64_t L = 60;
    fv_attention_options o = laws_options(kind, causal);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 19};
    problem *p = problem_make(ctx, &o, &shape);
    fv_attention_io io = problem_io(p);
    int64_t tokens[70], found;
    float weights[70], work[60], row[2 * 60];
    for (int64_t i = 0; i < L; i += 19) {
        for (int64_t top = 0; top <= 70; top += 7) {
            assert_int_equal(fv_attention_weights(p->op, &p->layout, &io, &i, 1, row, p->scratch), FV_OK);
            assert_int_equal(fv_attention_top(p->op, &p->layout, &io, 1, i, top, tokens, weights, &found,
                                              work, p->scratch),
                             FV_OK);
            int64_t positive = 0;
            for (int64_t j = 0; j < L; j++)
                positive += row[L + j] != 0;
            assert_int_equal(found, FV_MIN(top, positive));
            for (int64_t n = 0; n < found; n++) {
                assert_true(weights[n] == row[L + tokens[n]]);
                assert_true(n == 0 || weights[n - 1] > weights[n] ||
                            (weights[n - 1] == weights[n] && tokens[n - 1] < tokens[n]));
            }
            for (int64_t j = 0; j < L && found == top && top > 0; j++) {
                int64_t listed = 0;
                for (int64_t n = 0; n < found; n++)
                    listed += tokens[n] == j;
                assert_true(listed == 1 || row[L + j] == 0 || row[L + j] <= weights[top - 1]);
            }
        }
    }
    problem_free(p);
}

static void matrix_rows(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        if (!kind_runs(n / 2, n % 2) || kind_has(n / 2, KIND_MIXES))
            continue;
        rows_of(n / 2, n % 2);
        top_of(n / 2, n % 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_in_v),   cmocka_unit_test(constant_v),
        cmocka_unit_test(permutations),  cmocka_unit_test(huge_inputs),
        cmocka_unit_test(identity_is_v), cmocka_unit_test(a_first_key_out_of_range),
        cmocka_unit_test(matrix_rows),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
