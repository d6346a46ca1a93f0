/* test_approx.c: the closed forms of `favor approx` (src/cli/approx_closed.c) against the operators themselves:
 * mean and variance of the kernel estimate of one query and one key over many draws, for every kind that has a
 * closed form. A case of a kind that the table does not have is told and left out; the first ones always run.
 *
 * x and y differ and point in directions of their own, so that the symmetric special cases cannot hide a sign or
 * a factor.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/approx_closed.h"
#include "support/problem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 2000 }; /* one head, one independent estimate */

typedef struct law_case {
    const char *kind;
    approx_family family;
    int64_t d, m;
    double xx, yy; /* |x|^2, |y|^2 */
    fv_projection projection;
    fv_row_norms norms;
    int draws;
} law_case;

#define IID        FV_PROJECTION_IID, FV_ROW_NORMS_CHI
#define ORTHOGONAL FV_PROJECTION_ORTHOGONAL, FV_ROW_NORMS_CHI

static const law_case cases[] = {
    {"favor+", APPROX_POSITIVE, 8, 4, 0.3, 0.2, IID, 15},
    {"favor+", APPROX_POSITIVE, 8, 8, 0.3, 0.2, ORTHOGONAL, 15},
    {"favor+", APPROX_POSITIVE, 4, 6, 0.2, 0.3, ORTHOGONAL, 15},
    {"favor+", APPROX_POSITIVE, 3, 3, 0.2, 0.3, ORTHOGONAL, 15}, /* odd width: another series */
    {"favor+", APPROX_POSITIVE, 8, 8, 0.4, 0.2, FV_PROJECTION_ORTHOGONAL, FV_ROW_NORMS_SQRT_D, 10},
    {"favor+", APPROX_POSITIVE, 4, 6, 0.4, 0.2, FV_PROJECTION_IID, FV_ROW_NORMS_SQRT_D, 10},
    {"favor+hyp", APPROX_HYPERBOLIC, 8, 4, 0.3, 0.2, IID, 15},
    {"favor+hyp", APPROX_HYPERBOLIC, 4, 6, 0.2, 0.3, ORTHOGONAL, 15},
    {"favor+hyp", APPROX_HYPERBOLIC, 8, 8, 0.4, 0.2, FV_PROJECTION_ORTHOGONAL, FV_ROW_NORMS_SQRT_D, 10},
    {"favor-trig", APPROX_TRIG, 8, 4, 0.6, 0.9, IID, 10},
    {"favor-trig", APPROX_TRIG, 8, 8, 0.6, 0.9, ORTHOGONAL, 10},
    {"favor-trig", APPROX_TRIG, 3, 5, 0.6, 0.9, ORTHOGONAL, 10},
    {"favor+reg", APPROX_POSITIVE, 8, 6, 0.4, 0.2, ORTHOGONAL, 10},
    {"favor+reghyp", APPROX_HYPERBOLIC, 4, 6, 0.4, 0.2, IID, 10},
    {"favor++", APPROX_OPRF, 8, 4, 0.6, 0.5, IID, 15},
    {"favor++", APPROX_OPRF, 4, 6, 0.6, 0.5, ORTHOGONAL, 15},
    {"rfa", APPROX_RFA, 8, 4, 0.7, 2.1, IID, 10},
    {"rfa", APPROX_RFA, 4, 6, 0.7, 2.1, ORTHOGONAL, 10},
    {"rfa-arccos", APPROX_ARCCOS, 8, 4, 0.7, 2.1, IID, 10},
    {"rmf-exp", APPROX_MACLAURIN, 8, 16, 0.3, 0.4, FV_PROJECTION_DEFAULT, FV_ROW_NORMS_CHI, 10},
    {"rmf-inv", APPROX_MACLAURIN, 8, 16, 0.3, 0.4, FV_PROJECTION_DEFAULT, FV_ROW_NORMS_CHI, 10}, /* cut */
};

#define PSI 1.3
#define TAU 0.8
#define CUT 3 /* largest degree of rmf-inv */

/* Directions that share some, and fall along the axes. */
static void fill_pair(const law_case *c, float *x, float *y, approx_pair *pair)
{
    double xx = 0, yy = 0;
    *pair = (approx_pair){0};
    for (int64_t i = 0; i < c->d; i++) {
        xx += pow(0.49, (double)i);
        yy += pow(0.36, (double)(c->d - i)) + (i == 0 ? 1 : 0);
    }
    for (int64_t i = 0; i < c->d; i++) {
        x[i] = (float)(sqrt(c->xx / xx) * pow(0.7, (double)i));
        y[i] = (float)(sqrt(c->yy / yy) * sqrt(pow(0.36, (double)(c->d - i)) + (i == 0 ? 1 : 0)));
        y[i] = i % 2 == 1 ? -y[i] : y[i];
        double a = (double)x[i], b = (double)y[i];
        pair->xx += a * a, pair->yy += b * b, pair->xy += a * b, pair->x2y2 += a * a * b * b;
    }
}

/* Geometric degrees with P = 2, of exp(t) all of them, of 1/(1-t) those up to CUT. */
static void fill_series(const law_case *c, approx_law *law)
{
    law->cut = strcmp(c->kind, "rmf-inv") == 0;
    law->degrees = law->cut ? CUT + 1 : APPROX_DEGREES_MAX;
    for (int n = 0; n < law->degrees; n++) {
        law->a[n] = law->cut ? 1 : exp(-lgamma(n + 1.0));
        law->p[n] = pow(2, -(n + 1)) / (1 - pow(2, -law->degrees));
    }
}

static approx_law law_of(const law_case *c)
{
    bool regular = strncmp(c->kind, "favor+reg", 9) == 0;
    approx_law law = {.family = c->family,
                      .d = c->d,
                      .m = c->m,
                      .orthogonal = c->projection == FV_PROJECTION_ORTHOGONAL,
                      .sqrt_d = c->norms == FV_ROW_NORMS_SQRT_D || regular,
                      .oprf_a = approx_oprf_a(PSI, c->d),
                      .tau = TAU};
    if (c->family == APPROX_MACLAURIN)
        fill_series(c, &law);
    return law;
}

/* Estimates [draws][HEADS] of one pair. */
static double *estimate(fv_context *ctx, const law_case *c, approx_pair *pair)
{
    static const int64_t one = 1;
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = c->kind, o.heads = HEADS, o.dim = c->d, o.value_dim = 1, o.scale = 1, o.features = c->m;
    o.projection = c->projection, o.row_norms = c->norms, o.denominator = FV_DENOMINATOR_OFF;
    if (c->family == APPROX_OPRF)
        o.psi = PSI;
    if (c->family == APPROX_RFA || c->family == APPROX_ARCCOS)
        o.tau = c->family == APPROX_RFA ? TAU : 1;
    if (strcmp(c->kind, "rmf-inv") == 0)
        o.rmf_max_degree = CUT;
    problem_shape shape = {.sequences = 1, .queries = &one};
    problem *p = problem_make(ctx, &o, &shape);
    double *k = calloc((size_t)(c->draws * HEADS), sizeof *k);
    assert_non_null(k);
    for (int64_t h = 0; h < HEADS; h++) {
        fill_pair(c, p->q + h * c->d, p->k + h * c->d, pair);
        p->v[h] = 1;
    }
    for (int i = 0; i < FV_INPUT_COUNT; i++) { /* learned inputs at their defaults: the law knows no others */
        fv_free(ctx, p->input[i]);
        p->input[i] = NULL;
    }
    for (int n = 0; n < c->draws; n++) {
        assert_int_equal(fv_attention_draw(p->op, 100 + (uint64_t)(c - cases), (uint64_t)n, p->w), FV_OK);
        problem_forward(p, false);
        for (int64_t h = 0; h < HEADS; h++)
            k[n * HEADS + h] = (double)p->y[h];
    }
    problem_free(p);
    return k;
}

/* Deviations from the closed forms in standard errors. */
static void deviations(const law_case *c, const approx_pair *pair, const double *k, double *of_mean,
                       double *of_variance)
{
    approx_law law = law_of(c);
    double mean = approx_closed_mean(&law, pair), variance = approx_closed_variance(&law, pair);
    double n = (double)c->draws * HEADS, first = 0, second = 0, fourth = 0;
    for (int i = 0; i < c->draws * HEADS; i++) {
        double e = k[i] - mean;
        first += e / n;
        second += e * e / n;
        fourth += e * e * e * e / n;
    }
    *of_mean = first / sqrt(variance / n);
    *of_variance = (second - variance) / sqrt((fourth - second * second) / n);
}

static void closed_forms_hold(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    int checked = 0;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const law_case *c = &cases[i];
        double of_mean, of_variance, *k;
        approx_pair pair;
        if (fv_attention_kind_find(c->kind) == NULL) {
            print_message("%s: not in the table, left out\n", c->kind);
            continue;
        }
        k = estimate(ctx, c, &pair);
        deviations(c, &pair, k, &of_mean, &of_variance);
        print_message("%s d %lld, m %lld: mean %+.1f, variance %+.1f standard errors\n", c->kind,
                      (long long)c->d, (long long)c->m, of_mean, of_variance);
        if (!(fabs(of_mean) < 4) || !(fabs(of_variance) < 4))
            fail_msg("case %zu is outside", i);
        free(k);
        checked++;
    }
    assert_true(checked >= 6);
    fv_context_destroy(ctx);
}

/* Kummer's function in place of the double series: the sum of orthogonal pairs as it stands in the theory, through
 * the variance of one block of two. */
static void pair_moment_is_the_double_series(void **state)
{
    (void)state;
    for (int64_t d = 1; d <= 9; d++)
        for (double w = 0.1; w < 3; w *= 2) {
            double sum = 0, row = 1; /* (d/2)_t/t! w^t */
            for (int t = 0; t < 60; t++, row *= w * ((double)d / 2 + t - 1) / t) {
                double term = row;
                for (int i = 0; i < t; i++) /* over (d/2)_(t+u), u = 0 */
                    term /= (double)d / 2 + i;
                for (int u = 0; u < 60; u++) {
                    sum += term;
                    term *= w * ((double)d / 2 + u) / (u + 1) / ((double)d / 2 + t + u);
                }
            }
            approx_law law = {.family = APPROX_POSITIVE, .d = 1000 * d, .m = 2};
            approx_pair pair = {w / 2, w / 2, w / 2, 0}; /* |z|^2 = 2 w */
            double iid = approx_closed_variance(&law, &pair);
            law.orthogonal = true, law.d = d;
            double factor = exp(-w), difference = approx_closed_variance(&law, &pair) - iid;
            double expected = d >= 2 ? factor * 0.5 * (sum - exp(2 * w)) : 0;
            assert_true(fabs(difference - expected) <= 1e-12 * fmax(1, sum));
        }
}

/* OPRF at A = 0 is the positive map, and its best A is better. */
static void oprf_meets_positive(void **state)
{
    (void)state;
    for (double z2 = 0.5; z2 < 20; z2 *= 2) {
        approx_pair pair = {z2 / 4, z2 / 4, z2 / 4, 0};
        approx_law positive = {.family = APPROX_POSITIVE, .d = 16, .m = 24, .orthogonal = true};
        approx_law oprf = positive;
        oprf.family = APPROX_OPRF;
        double plain = approx_closed_variance(&positive, &pair);
        assert_true(fabs(approx_closed_variance(&oprf, &pair) - plain) <= 1e-12 * plain);
        double best = approx_oprf_a(z2, 16);
        oprf.oprf_a = best;
        double least = approx_closed_variance(&oprf, &pair);
        assert_true(best < 0 && least < plain);
        for (double other = 0.8; other < 1.3; other += 0.4) {
            oprf.oprf_a = best * other;
            assert_true(approx_closed_variance(&oprf, &pair) > least);
        }
    }
}

/* 1/(1-t) with geometric degrees, P = 2: E = sum 2^(n+1) h^n, finite for h < 1/2 only. */
static void infinite_moments_are_infinite(void **state)
{
    (void)state;
    approx_law law = {.family = APPROX_MACLAURIN, .d = 2, .m = 1, .degrees = APPROX_DEGREES_MAX};
    for (int n = 0; n < law.degrees; n++)
        law.a[n] = 1, law.p[n] = pow(2, -(n + 1));
    approx_pair near = {0.5, 0.8, 0, 0}, far = {1, 0.6, 0, 0}; /* h = |x|^2 |y|^2 = 0.4, 0.6 */
    assert_true(fabs(approx_closed_variance(&law, &near) - (2 / (1 - 0.8) - 1)) < 1e-9);
    assert_true(isinf(approx_closed_variance(&law, &far)));
}

/* Three known half widths: t(0.975) of 1, 14 and 99 degrees of freedom. */
static void confidence_intervals(void **state)
{
    (void)state;
    assert_true(isnan(approx_half_width(1, 1.0)));
    assert_true(fabs(approx_half_width(2, 1.0) - 12.706 / sqrt(2)) < 1e-3);
    assert_true(fabs(approx_half_width(15, 2.0) - 2 * 2.145 / sqrt(15)) < 1e-3);
    assert_true(fabs(approx_half_width(100, 1.0) - 1.98422 / 10) < 1e-4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(closed_forms_hold),    cmocka_unit_test(pair_moment_is_the_double_series),
        cmocka_unit_test(oprf_meets_positive),  cmocka_unit_test(infinite_moments_are_infinite),
        cmocka_unit_test(confidence_intervals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
