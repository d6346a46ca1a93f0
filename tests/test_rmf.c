/* test_rmf.c: random Maclaurin features through the operator: means and second moments against their closed
 * forms, for every kernel and law of the degrees; the laws themselves; domain and truncation.
 *
 * One feature a head, one head one independent estimate of f(x.y):
 *
 *     E = f(t),   E[(phi phi)^2] = sum_n (a_n^2 / p_n) M_2^n,   fourth moment sum_n (a_n^4 / p_n^3) M_4^n
 *
 * with M_k the moments of (s.x)(s.y) over signs s, taken here by listing all 2^d of them. The sample mean then
 * has a known deviation, and so has the sample second moment: both are held to five deviations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/problem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { D = 4, HEADS = 8000, DEGREES = 60 };

static const float x[D] = {0.35f, -0.2f, 0.25f, 0.1f}, y[D] = {0.3f, 0.15f, -0.2f, 0.3f};

static double a_of(const char *kind, int n)
{
    double a = 1;
    if (strcmp(kind, "rmf-inv") == 0 || n == 0)
        return 1;
    if (strcmp(kind, "rmf-logi") == 0)
        return 1.0 / n;
    if (strcmp(kind, "rmf-sqrt") == 0) {
        for (int i = 1; i <= n; i++)
            a = i == 1 ? 0.5 : a * (2 * i - 3) / (2.0 * i);
        return a;
    }
    for (int i = 1; i <= n; i++)
        a /= i;
    return a;
}

static double f_of(const char *kind, double t)
{
    if (strcmp(kind, "rmf-inv") == 0)
        return 1 / (1 - t);
    if (strcmp(kind, "rmf-logi") == 0)
        return 1 - log(1 - t);
    return strcmp(kind, "rmf-sqrt") == 0 ? 2 - sqrt(1 - t) : exp(t);
}

/* p_n of a law, over DEGREES terms. */
static void law_of(const char *kind, fv_rmf_law law, double parameter, int64_t last, double p[DEGREES])
{
    double sum = 0;
    for (int n = 0; n < DEGREES; n++) {
        p[n] = law == FV_RMF_GEOMETRIC ? (parameter - 1) * pow(parameter, -(n + 1))
               : law == FV_RMF_POISSON ? exp(n * log(parameter) - lgamma(n + 1.0) - parameter)
                                       : a_of(kind, n) * pow(parameter, n / 2.0);
        if (last > 0 && n > last)
            p[n] = 0;
        sum += p[n];
    }
    for (int n = 0; n < DEGREES; n++)
        p[n] /= sum;
}

/* E[((s.x)(s.y))^power] over all signs. */
static double sign_moment(int power)
{
    double sum = 0;
    for (int bits = 0; bits < 1 << D; bits++) {
        double sx = 0, sy = 0;
        for (int c = 0; c < D; c++) {
            sx += bits >> c & 1 ? (double)x[c] : -(double)x[c];
            sy += bits >> c & 1 ? (double)y[c] : -(double)y[c];
        }
        sum += pow(sx * sy, power);
    }
    return sum / (1 << D);
}

typedef struct moments {
    double mean, second, fourth;
} moments;

static moments closed_form(const char *kind, const double p[DEGREES])
{
    moments m = {0};
    double first = sign_moment(1), second = sign_moment(2), fourth = sign_moment(4);
    for (int n = 0; n < DEGREES && p[n] > 0; n++) {
        double a = a_of(kind, n);
        m.mean += a * pow(first, n);
        m.second += a * a / p[n] * pow(second, n);
        m.fourth += pow(a, 4) / pow(p[n], 3) * pow(fourth, n);
    }
    return m;
}

static fv_attention_options options_of(const char *kind)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = kind;
    o.heads = HEADS, o.dim = D, o.value_dim = 1, o.features = 1, o.scale = 1;
    o.denominator = FV_DENOMINATOR_OFF;
    return o;
}

/* HEADS independent estimates of f(x.y), as y of one query and one key with the value 1. */
static moments sample(fv_context *ctx, const fv_attention_options *o)
{
    int64_t one = 1;
    problem_shape shape = {.sequences = 1, .queries = &one, .seed = 3};
    problem *p = problem_make(ctx, o, &shape);
    moments m = {0};
    for (int64_t h = 0; h < HEADS; h++) {
        memcpy(p->q + h * D, x, sizeof x);
        memcpy(p->k + h * D, y, sizeof y);
        p->v[h] = 1;
    }
    problem_forward(p, false);
    for (int64_t h = 0; h < HEADS; h++) {
        double estimate = (double)p->y[h];
        m.mean += estimate / HEADS;
        m.second += estimate * estimate / HEADS;
    }
    problem_free(p);
    return m;
}

static const char *const kinds[] = {"rmf-exp", "rmf-inv", "rmf-logi", "rmf-trigh", "rmf-sqrt"};

static void means_and_second_moments(void **state)
{
    static const struct {
        fv_rmf_law law;
        double parameter;
        int64_t last;
    } laws[] = {{FV_RMF_GEOMETRIC, 2, 0},
                {FV_RMF_GEOMETRIC, 3, 5},
                {FV_RMF_POISSON, 1.5, 0},
                {FV_RMF_OPTIMAL, 0.2, 0},
                {FV_RMF_OPTIMAL, 1, 8}};
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int i = 0; i < 5 * 5; i++) {
        double p[DEGREES];
        fv_attention_options o = options_of(kinds[i / 5]);
        o.rmf_law = laws[i % 5].law;
        o.rmf_parameter = laws[i % 5].parameter;
        o.rmf_max_degree = laws[i % 5].last;
        /* A Poisson tail is thinner than inv's coefficients: that moment has no end. */
        bool heavy =
            o.rmf_law == FV_RMF_POISSON && strcmp(o.kind, "rmf-exp") != 0 && strcmp(o.kind, "rmf-trigh") != 0;
        law_of(o.kind, o.rmf_law, o.rmf_parameter, o.rmf_max_degree, p);
        moments want = closed_form(o.kind, p), got = sample(ctx, &o);
        if (heavy)
            continue;
        double deviation = sqrt((want.second - want.mean * want.mean) / HEADS);
        if (fabs(got.mean - want.mean) > 5 * deviation + 1e-6)
            fail_msg("%s law %d: mean %.6f, expected %.6f +- %.6f", o.kind, i % 5, got.mean, want.mean,
                     deviation);
        deviation = sqrt((want.fourth - want.second * want.second) / HEADS);
        if (fabs(got.second - want.second) > 5 * deviation + 1e-6)
            fail_msg("%s law %d: second moment %.6f, expected %.6f +- %.6f", o.kind, i % 5, got.second,
                     want.second, deviation);
    }
    fv_context_destroy(ctx);
}

/* The closed form itself: E is f, and no law has a smaller second moment than the optimal one at its mu. */
static void the_optimal_law_is_optimal(void **state)
{
    (void)state;
    double t = 0, p[DEGREES];
    for (int c = 0; c < D; c++)
        t += (double)x[c] * (double)y[c];
    for (int k = 0; k < 5; k++) {
        law_of(kinds[k], FV_RMF_OPTIMAL, sign_moment(2), 0, p);
        moments best = closed_form(kinds[k], p);
        assert_true(fabs(best.mean - f_of(kinds[k], t)) < 1e-9);
        for (double P = 1.5; P < 6; P += 0.5) {
            law_of(kinds[k], FV_RMF_GEOMETRIC, P, 0, p);
            assert_true(closed_form(kinds[k], p).second >= best.second * (1 - 1e-12));
        }
    }
}

/* How far a call reaches, where series end, and what a largest degree leaves out. */
static void domain_and_truncation(void **state)
{
    static const double radius[] = {HUGE_VAL, 1, 1, HUGE_VAL, 1};
    fv_context *ctx = problem_context(NULL, 1);
    (void)state;
    for (int k = 0; k < 5; k++) {
        int64_t one = 1;
        fv_attention_options o = options_of(kinds[k]);
        o.heads = 1, o.features = 8, o.rmf_max_degree = 6, o.scale = 0.5;
        problem_shape shape = {.sequences = 1, .queries = &one, .seed = 3};
        problem *p = problem_make(ctx, &o, &shape);
        fv_attention_io io = problem_io(p);
        double reach, q2 = 0, k2 = 0, rest = f_of(kinds[k], 0.4);
        assert_true(fv_attention_radius(p->op) == radius[k]);
        for (int c = 0; c < D; c++) {
            q2 += (double)p->q[c] * (double)p->q[c];
            k2 += (double)p->k[c] * (double)p->k[c];
        }
        assert_int_equal(fv_attention_reach(p->op, &p->layout, &io, &reach), FV_OK);
        assert_true(fabs(reach - 0.5 * sqrt(q2 * k2)) < 1e-6 * reach);
        for (int n = 0; n <= 6; n++)
            rest -= a_of(kinds[k], n) * pow(0.4, n);
        assert_true(fabs(fv_attention_truncation(p->op, -0.4) - rest) < 1e-12);
        assert_true(fv_attention_truncation(p->op, 0) == 0);
        problem_free(p);
    }
    fv_context_destroy(ctx);
}

/* Degrees that are no whole numbers, or more than there are signs for, are refused before anything is read. */
static void bad_degrees(void **state)
{
    static const float bad[] = {-1.0f, 0.5f, NAN, INFINITY, 1e6f};
    fv_context *ctx = problem_context(NULL, 1);
    int64_t one = 1;
    fv_attention_options o = options_of("rmf-exp");
    o.heads = 2, o.features = 4;
    problem_shape shape = {.sequences = 1, .queries = &one, .seed = 3};
    problem *p = problem_make(ctx, &o, &shape);
    fv_attention_io io = problem_io(p);
    float *degrees = (float *)(uintptr_t)io.input[FV_INPUT_RMF_DEGREES];
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        float kept = degrees[5];
        degrees[5] = bad[i];
        assert_int_equal(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_FILE);
        assert_non_null(strstr(fv_context_message(ctx), "head 1"));
        degrees[5] = kept;
    }
    problem_free(p);
    fv_context_destroy(ctx);
}

/* Laws without an end, or with nonsense for a parameter. */
static void bad_laws(void **state)
{
    static const struct {
        const char *kind;
        fv_rmf_law law;
        double parameter;
        int64_t last;
        bool good;
    } cases[] = {{"rmf-exp", FV_RMF_GEOMETRIC, 1, 0, false},  {"rmf-exp", FV_RMF_GEOMETRIC, 0.5, 0, false},
                 {"rmf-exp", FV_RMF_GEOMETRIC, -2, 0, false}, {"rmf-inv", FV_RMF_OPTIMAL, 1, 0, false},
                 {"rmf-inv", FV_RMF_OPTIMAL, 1, 12, true},    {"rmf-inv", FV_RMF_OPTIMAL, 0.5, 0, true},
                 {"rmf-logi", FV_RMF_OPTIMAL, 2, 0, false},   {"rmf-exp", FV_RMF_OPTIMAL, 2, 0, true},
                 {"rmf-exp", FV_RMF_POISSON, 5000, 0, false}};
    fv_context *ctx = problem_context(NULL, 1);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fv_attention_options o = options_of(cases[i].kind);
        fv_attention *op;
        o.heads = 1;
        o.rmf_law = cases[i].law, o.rmf_parameter = cases[i].parameter, o.rmf_max_degree = cases[i].last;
        fv_status status = fv_attention_create(&op, ctx, &o);
        if ((status == FV_OK) != cases[i].good)
            fail_msg("case %zu: status %d", i, (int)status);
        fv_attention_destroy(op);
    }
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_and_second_moments),
        cmocka_unit_test(the_optimal_law_is_optimal),
        cmocka_unit_test(domain_and_truncation),
        cmocka_unit_test(bad_degrees),
        cmocka_unit_test(bad_laws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
