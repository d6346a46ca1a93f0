/* test_maps.c: what deterministic and generalized maps promise beyond their specification: closed forms of the kernel,
 * invariances, trained projections, vectors of nothing, default guards. */
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
#include <string.h>

enum { L = 7, D = 6 };
static const int64_t length = L;

static fv_attention_options options_of(const char *kind)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = kind, o.heads = 1, o.dim = D, o.features = 8;
    return o;
}

/* One head, no division, and values that are unit vectors: y[i][j] is phi(q_i).phi(k_j). */
static problem *bare(const char *kind)
{
    fv_attention_options o = options_of(kind);
    problem_shape shape = {1, &length, NULL, 0, 0, 3};
    o.value_dim = L, o.denominator = FV_DENOMINATOR_OFF;
    problem *p = problem_make(ctx, &o, &shape);
    for (int64_t j = 0; j < L; j++)
        for (int64_t c = 0; c < L; c++)
            p->v[j * L + c] = j == c ? 1.0f : 0.0f;
    problem_forward(p, false);
    return p;
}

static void near(double got, double want, double magnitude)
{
    if (!(fabs(got - want) <= 16 * (double)FLT_EPSILON * magnitude))
        fail_msg("%.9g, expected %.9g", got, want);
}

/* ---- closed forms -------------------------------------------------------------------------------------- */

static void taylor_is_the_series(void **state)
{
    (void)state;
    problem *p = bare("taylor");
    for (int64_t i = 0; i < L; i++)
        for (int64_t j = 0; j < L; j++) {
            double t = 0, size = 0;
            for (int64_t c = 0; c < D; c++) {
                double term = (double)p->q[i * D + c] * (double)p->k[j * D + c] / sqrt((double)D);
                t += term, size += fabs(term);
            }
            near((double)p->y[i * L + j], 1 + t + t * t / 2, 1 + size + size * size / 2);
        }
    problem_free(p);
}

/* relu(q).relu(k) cos(pi (i - j) / 2M): at equal positions the plain product, and less the farther apart. */
static void cosformer_weighs_distance(void **state)
{
    (void)state;
    problem *p = bare("cosformer");
    for (int64_t i = 0; i < L; i++)
        for (int64_t j = 0; j < L; j++) {
            double dot = 0;
            for (int64_t c = 0; c < D; c++)
                dot += fmax((double)p->q[i * D + c], 0) * fmax((double)p->k[j * D + c], 0);
            double factor = i == j ? 1 : cos(acos(-1.0) * (double)(i - j) / (2 * L));
            near((double)p->y[i * L + j], dot * factor, dot);
            assert_true(p->y[i * L + j] >= 0);
        }
    problem_free(p);
}

/* softplus is smooth, above ReLU by at most ln 2, and log(1 + e^u) at both ends. */
static void softplus_is_near_relu(void **state)
{
    (void)state;
    static const float us[] = {-80, -20, -1, 0, 1, 20, 80, 1e30f};
    fv_attention_options o = options_of("softplus");
    const int64_t one = 1;
    problem_shape shape = {1, &one, NULL, 0, 0, 3};
    o.dim = 1, o.value_dim = 1, o.denominator = FV_DENOMINATOR_OFF, o.epsilon = 0;
    problem *p = problem_make(ctx, &o, &shape);
    for (int i = 0; i < FV_COUNT(us); i++) { /* phi(0) = ln 2 */
        double u = (double)us[i], want = fmax(u, 0) + log1p(exp(-fabs(u)));
        p->q[0] = us[i], p->k[0] = 0, p->v[0] = 1;
        problem_forward(p, false);
        near((double)p->y[0] / log(2), want, want * (1 + fmax(-u, 0)));
    }
    problem_free(p);
}

/* ---- invariance ---------------------------------------------------------------------------------------- */

/* Numbers on a grid, to which the shift adds without rounding. */
static void to_grid(float *x, int64_t n, float shift)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = roundf(x[i] * 256) / 256 + shift;
}

/* exp(x + c) = e^c exp(x): a factor of queries cancels in each row, one of all keys in all rows. */
static void sikf_does_not_see_shifts(void **state)
{
    static const float shifts[][2] = {{64, 0}, {-64, 0}, {0, 64}, {0, -64}, {32, -64}};
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        fv_attention_options o = options_of("sikf");
        problem_shape shape = {1, &length, NULL, 0, 0, 3};
        float before[L * D];
        o.causal = causal;
        problem *p = problem_make(ctx, &o, &shape);
        to_grid(p->q, L * D, 0);
        to_grid(p->k, L * D, 0);
        problem_forward(p, false);
        memcpy(before, p->y, sizeof before);
        for (int s = 0; s < FV_COUNT(shifts); s++) {
            to_grid(p->q, L * D, shifts[s][0]);
            to_grid(p->k, L * D, shifts[s][1]);
            problem_forward(p, false);
            for (int64_t i = 0; i < L * D; i++) /* rounding of arguments up to 68, of values of about 3 */
                near((double)p->y[i], (double)before[i], 68);
            to_grid(p->q, L * D, -shifts[s][0]);
            to_grid(p->k, L * D, -shifts[s][1]);
        }
        problem_free(p);
    }
}

/* ---- trained projections, vectors of nothing ------------------------------------------------------------- */

/* One projection a head, keys shared by two heads, two sequences that both add to its gradient. */
static void relu_trains_its_projection(void **state)
{
    static const int64_t lengths[] = {9, 4};
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        fv_attention_options o = options_of("relu");
        problem_shape shape = {2, lengths, NULL, 0, 0, 5};
        o.heads = 4, o.kv_heads = 2, o.causal = causal, o.trainable_projection = 1;
        o.projection = FV_PROJECTION_IID;
        problem *p = problem_make(ctx, &o, &shape);
        problem_forward(p, true);
        problem_backward(p);
        assert_non_null(p->d_input[FV_INPUT_PROJECTION]);
        worst values = problem_check_forward(p), slopes = problem_check_gradients(p, 3);
        worst_check(&values, kind_row_of("relu")->forward, "y", p);
        worst_check(&slopes, kind_row_of("relu")->gradient, "gradients", p);
        problem_free(p);
    }
}

static void check_zero(int kind, int causal)
{
    static const int64_t lengths[] = {L, 1};
    fv_attention_options o = options_of(fv_attention_kind_at(kind)->name);
    problem_shape shape = {2, lengths, NULL, 0, 0, 7};
    float most = 0;
    kind_small_options(&o);
    o.causal = causal;
    problem *p = problem_make(ctx, &o, &shape);
    int64_t n = p->tq * D;
    memset(p->q, 0, (size_t)n * sizeof *p->q);
    memset(p->k, 0, (size_t)n * sizeof *p->k);
    for (int64_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(p->v[i]));
    problem_forward(p, true);
    problem_backward(p);
    for (int64_t i = 0; i < n; i++) {
        if (!isfinite(p->y[i]) || !isfinite(p->dq[i]) || !isfinite(p->dk[i]) || !isfinite(p->dv[i]))
            fail_msg("%s%s: y %g, dq %g, dk %g, dv %g", o.kind, causal ? " causal" : "", (double)p->y[i],
                     (double)p->dq[i], (double)p->dk[i], (double)p->dv[i]);
        if (!kind_has(kind, KIND_CANCELS | KIND_MIXES)) /* means of values */
            assert_true(fabsf(p->y[i]) <= most * (1 + 64 * FLT_EPSILON));
    }
    problem_free(p);
}

static void zero_vectors(void **state)
{
    (void)state;
    for (int kind = 0; kind < fv_attention_kind_count(); kind++)
        for (int causal = 0; causal < 2; causal++)
            if (kind_runs(kind, causal))
                check_zero(kind, causal);
}

/* Whether some phi.phi of 60 queries and keys of two channels is negative, with one random feature or eight. */
static bool weighs_negatively(const char *kind)
{
    enum { N = 60 };
    const int64_t n = N;
    problem_shape shape = {1, &n, NULL, 0, 2, 3};
    bool negative = false;
    for (int64_t features = 1; features <= 8; features += 7) {
        fv_attention_options o = options_of(kind);
        o.dim = 2, o.features = features, o.denominator = FV_DENOMINATOR_OFF;
        problem *p = problem_make(ctx, &o, &shape);
        fv_attention_io io = problem_io(p);
        for (int64_t i = 0; i < N; i++) {
            float row[N];
            assert_int_equal(fv_attention_weights(p->op, &p->layout, &io, &i, 1, row, p->scratch), FV_OK);
            for (int64_t j = 0; j < N; j++)
                negative = negative || row[j] < 0;
        }
        problem_free(p);
    }
    return negative;
}

/* The normaliser is guarded by default where phi.phi can be negative, and only there. */
static void default_guards(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        if (!fv_attention_kind_at(kind)->kernelized)
            continue;
        fv_attention_options o = options_of(fv_attention_kind_at(kind)->name);
        problem_shape shape = {1, &length, NULL, 0, 0, 3};
        problem *p = problem_make(ctx, &o, &shape);
        bool guarded = p->info.options.denominator == FV_DENOMINATOR_SIGN;
        if (guarded != weighs_negatively(o.kind))
            fail_msg("%s: phi.phi is %s here, can_be_negative of the map says otherwise", o.kind,
                     guarded ? "never negative" : "negative");
        problem_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(taylor_is_the_series),
        cmocka_unit_test(cosformer_weighs_distance),
        cmocka_unit_test(softplus_is_near_relu),
        cmocka_unit_test(sikf_does_not_see_shifts),
        cmocka_unit_test(relu_trains_its_projection),
        cmocka_unit_test(zero_vectors),
        cmocka_unit_test(default_guards),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
