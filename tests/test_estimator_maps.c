/* test_estimator_maps.c: mean and variance of the other maps of the softmax kernel, through the operator, against
 * their closed forms: hyperbolic, trigonometric, regularized, variance-optimal and hybrid features.
 *
 * z = x + y, D = x - y, w = |z|^2/2, v = |D|^2/2, L = exp(-(|x|^2 + |y|^2)/2), F(u) = 0F1(;d/2;u). An estimate is
 * the mean of m terms (one a row), whose mean e, second moment s, and moment p of a pair inside a block are
 *
 *     favor+         L e^w                   L^2 e^(4w)                  L^2 S(w)
 *     favor+hyp      L e^w                   L^2 (1 + e^(4w))/2          L^2 S(w)
 *     favor-trig     e^(-v)/L                (1 + e^(-4v))/(2 L^2)       S(-v)/L^2
 *     favor+reg      L F(d|z|^2/4)           L^2 F(d|z|^2)               L^2 F(d|z|^2/2)
 *     favor+reghyp   L F(d|z|^2/4)           L^2 (1 + F(d|z|^2))/2       L^2 F(d|z|^2/2)
 *     favor++        L e^w                   L^2 ((1+r)/2)^d r^(-d/2) e^((1+r)|z|^2)   (iid only)
 *
 * with S the pair moment of support/moments.h and r = 1/(1 - 8A); the variance is (s + (m-1) p)/m - e^2 for a
 * block of m <= d rows, (s - e^2)/m for iid ones. Choromanski et al. 2021, Lemmas 1 and 2; Likhosherstov et al.
 * 2022. favor# is favor++ of x o Psi and y / Psi. The hybrid's variance follows from those of its two estimators and
 * of the angle's, a binomial share; at angles 0 and pi nothing is left of it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/moments.h"
#include "support/problem.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 2000, D = 6 }; /* one head, one independent estimate */

typedef struct maps_case {
    const char *kind;
    int64_t m;
    fv_projection projection;
    double length, turn; /* |x|, and how far y is turned from x: 0 none, 1 opposite */
    int draws;
} maps_case;

static const maps_case cases[] = {
    {"favor+hyp", 5, FV_PROJECTION_ORTHOGONAL, 0.6, 0.3, 10},
    {"favor+hyp", 3, FV_PROJECTION_IID, 0.6, 0.3, 10},
    {"favor-trig", 5, FV_PROJECTION_ORTHOGONAL, 0.8, 0.6, 10},
    {"favor-trig", 3, FV_PROJECTION_IID, 0.8, 0.3, 10},
    {"favor+reg", 5, FV_PROJECTION_ORTHOGONAL, 0.6, 0.3, 10},
    {"favor+reghyp", 5, FV_PROJECTION_ORTHOGONAL, 0.6, 0.3, 10},
    {"favor+reghyp", 3, FV_PROJECTION_IID, 0.6, 0.1, 10},
    {"favor++", 4, FV_PROJECTION_IID, 0.7, 0.2, 15},
    {"favor++", 2, FV_PROJECTION_IID, 0.5, 0.7, 10},
    {"favor#", 4, FV_PROJECTION_IID, 0.7, 0.2, 15},
    {"favor-hybrid", 5, FV_PROJECTION_ORTHOGONAL, 0.6, 0.4, 15},
    {"favor-hybrid", 3, FV_PROJECTION_IID, 0.6, 0.7, 15},
};

enum { ANGLE_ROWS = 3, TRIG_ROWS = 4 };

/* x falls along the axes; y is x turned by turn * pi in the plane of x and another vector, and longer. */
static void fill_pair(const maps_case *c, float *x, float *y)
{
    double a[D], b[D], aa = 0, ab = 0, bb = 0, angle = c->turn * acos(-1);
    for (int i = 0; i < D; i++) {
        a[i] = pow(0.6, i);
        b[i] = i % 2 ? 1 : -0.5;
        aa += a[i] * a[i], ab += a[i] * b[i];
    }
    for (int i = 0; i < D; i++) {
        b[i] -= ab / aa * a[i];
        bb += b[i] * b[i];
    }
    for (int i = 0; i < D; i++) {
        x[i] = (float)(c->length * a[i] / sqrt(aa));
        y[i] = (float)(1.25 * c->length * (cos(angle) * a[i] / sqrt(aa) + sin(angle) * b[i] / sqrt(bb)));
    }
}

/* ---- closed forms ----------------------------------------------------------------------------------- */

/* Of one row's term: mean, second moment, moment of a pair in a block. */
typedef struct moments {
    double mean, second, pair;
} moments;

/* Of |x|^2 + |y|^2, |x + y|^2 and |x - y|^2. */
typedef struct pair_sizes {
    double both, z2, d2;
} pair_sizes;

static pair_sizes sizes_of(const double *x, const double *y)
{
    pair_sizes s = {0};
    for (int i = 0; i < D; i++) {
        s.both += x[i] * x[i] + y[i] * y[i];
        s.z2 += (x[i] + y[i]) * (x[i] + y[i]);
        s.d2 += (x[i] - y[i]) * (x[i] - y[i]);
    }
    return s;
}

static moments positive(pair_sizes s)
{
    double w = s.z2 / 2, L = exp(-s.both / 2);
    return (moments){L * exp(w), L * L * exp(4 * w), L * L * moment_pair(D, w, 0)};
}

static moments trigonometric(pair_sizes s)
{
    double v = s.d2 / 2, L = exp(-s.both / 2);
    return (moments){exp(-v) / L, (1 + exp(-4 * v)) / (2 * L * L), moment_pair(D, -v, 0) / (L * L)};
}

static moments regularized(pair_sizes s)
{
    double L = exp(-s.both / 2), half = D / 2.0;
    return (moments){L * moment_0f1(half, D * s.z2 / 4), L * L * moment_0f1(half, D * s.z2),
                     L * L * moment_0f1(half, D * s.z2 / 2)};
}

/* Of a psi that is the pair's own |z|^2. */
static moments optimal(pair_sizes s)
{
    double t = 2 * s.z2 + D, rho = (sqrt(t * t + 8 * D * s.z2) - t) / (4 * s.z2);
    double log_second = D * log((1 + rho) / 2) - D / 2.0 * log(rho) + (1 + rho) * s.z2 - s.both;
    return (moments){exp((s.z2 - s.both) / 2), exp(log_second), (double)NAN};
}

/* Mean and variance of the mean of m terms. */
static void of_terms(moments e, int64_t m, fv_projection projection, double *mean, double *variance)
{
    double pair = projection == FV_PROJECTION_IID ? e.mean * e.mean : e.pair, n = (double)m;
    *mean = e.mean;
    *variance = (e.second + (n - 1) * pair) / n - e.mean * e.mean;
}

/* l K+ + (1 - l) K^trig of independent parts; l is the share of ANGLE_ROWS signs that differ, each with
 * probability angle / pi. */
static void of_hybrid(const maps_case *c, pair_sizes s, double *mean, double *variance)
{
    double p = c->turn, spread = p * (1 - p) / ANGLE_ROWS, one, two, K;
    of_terms(positive(s), c->m, c->projection, &K, &one);
    of_terms(trigonometric(s), TRIG_ROWS, c->projection, &K, &two);
    *mean = K;
    *variance = (p * p + spread) * (one + K * K) + ((1 - p) * (1 - p) + spread) * (two + K * K) +
                2 * (p * (1 - p) - spread) * K * K - K * K;
}

static void closed_form(const maps_case *c, double *mean, double *variance)
{
    float qx[D], ky[D];
    double x[D], y[D];
    fill_pair(c, qx, ky);
    for (int i = 0; i < D; i++) {
        double psi = strcmp(c->kind, "favor#") == 0 ? sqrt(fabs((double)ky[i] / (double)qx[i])) : 1;
        x[i] = (double)qx[i] * psi, y[i] = (double)ky[i] / psi;
    }
    pair_sizes s = sizes_of(x, y);
    moments e = positive(s);
    if (strcmp(c->kind, "favor-hybrid") == 0) {
        of_hybrid(c, s, mean, variance);
        return;
    }
    if (strcmp(c->kind, "favor-trig") == 0)
        e = trigonometric(s);
    else if (strncmp(c->kind, "favor+reg", 9) == 0)
        e = regularized(s);
    else if (strcmp(c->kind, "favor++") == 0 || strcmp(c->kind, "favor#") == 0)
        e = optimal(s);
    /* Both directions of a row: the mean of e^u and e^-u; L^2 is what is left of the second moment at z = 0. */
    if (strcmp(c->kind, "favor+hyp") == 0 || strcmp(c->kind, "favor+reghyp") == 0)
        e.second = (exp(-s.both) + e.second) / 2;
    of_terms(e, c->m, c->projection, mean, variance);
}

/* ---- estimates --------------------------------------------------------------------------------------- */

/* Estimates [draws][HEADS] of the kernel: one query, one key, value 1, no division. */
static double *estimate(fv_context *ctx, const maps_case *c, uint64_t seed)
{
    static const int64_t one = 1;
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = c->kind, o.heads = HEADS, o.dim = D, o.value_dim = 1, o.scale = 1, o.features = c->m;
    o.projection = c->projection, o.denominator = FV_DENOMINATOR_OFF;
    if (strcmp(c->kind, "favor-hybrid") == 0)
        o.features_trig = TRIG_ROWS, o.angle_rows = ANGLE_ROWS;
    problem_shape shape = {.sequences = 1, .queries = &one};
    problem *p = problem_make(ctx, &o, &shape);
    if (p->input[FV_INPUT_PSI_DIAGONAL] != NULL) { /* measured, not the problem's */
        fv_free(ctx, p->input[FV_INPUT_PSI_DIAGONAL]);
        p->input[FV_INPUT_PSI_DIAGONAL] = NULL;
    }
    double *k = calloc((size_t)(c->draws * HEADS), sizeof *k);
    for (int64_t h = 0; h < HEADS; h++) {
        fill_pair(c, p->q + h * D, p->k + h * D);
        p->v[h] = 1;
    }
    for (int n = 0; n < c->draws; n++) {
        assert_int_equal(fv_attention_draw(p->op, seed, (uint64_t)n, p->w), FV_OK);
        problem_forward(p, false);
        for (int64_t h = 0; h < HEADS; h++)
            k[n * HEADS + h] = (double)p->y[h];
    }
    problem_free(p);
    return k;
}

/* Mean, variance about `about`, and the standard error of that variance. */
static void measured(const double *k, int n, double about, double *mean, double *variance, double *error)
{
    double fourth = 0;
    *mean = *variance = 0;
    for (int i = 0; i < n; i++) {
        double e = k[i] - about;
        *mean += k[i] / n;
        *variance += e * e / n;
        fourth += e * e * e * e / n;
    }
    *error = sqrt((fourth - *variance * *variance) / n);
}

static void mean_and_variance(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int i = 0; i < FV_COUNT(cases); i++) {
        const maps_case *c = &cases[i];
        double mean, variance, m, v, error, *k = estimate(ctx, c, (uint64_t)i);
        closed_form(c, &mean, &variance);
        measured(k, c->draws * HEADS, mean, &m, &v, &error);
        double of_mean = (m - mean) / sqrt(variance / (c->draws * HEADS)),
               of_variance = (v - variance) / error;
        print_message("%-12s m %lld: mean %+.1f, variance %+.1f standard errors\n", c->kind, (long long)c->m,
                      of_mean, of_variance);
        if (!(fabs(of_mean) < 4) || !(fabs(of_variance) < 4))
            fail_msg("case %d: mean %g, expected %g; variance %g, expected %g", i, m, mean, v, variance);
        free(k);
    }
    fv_context_destroy(ctx);
}

/* favor# below favor++ below favor+, and orthogonal rows below iid ones, by more than five standard errors of what is
 * drawn; the second also in the closed forms, for every length. */
static void optimal_features_vary_less(void **state)
{
    static const maps_case order[] = {
        {"favor+", 4, FV_PROJECTION_IID, 0.8, 0.3, 30},
        {"favor++", 4, FV_PROJECTION_IID, 0.8, 0.3, 30},
        {"favor#", 4, FV_PROJECTION_IID, 0.8, 0.3, 30},
        {"favor#", 4, FV_PROJECTION_ORTHOGONAL, 0.8, 0.3, 30},
    };
    fv_context *ctx = problem_context(NULL, 2);
    double last = HUGE_VAL, last_error = 0;
    (void)state;
    for (double z2 = 0.01; z2 < 100; z2 *= 3) {
        pair_sizes s = {z2, z2, 0};
        assert_true(optimal(s).second < positive(s).second);
    }
    for (int i = 0; i < FV_COUNT(order); i++) {
        double mean, unused, m, v, error, *k = estimate(ctx, &order[i], 70);
        closed_form(&order[0], &mean, &unused);
        measured(k, order[i].draws * HEADS, mean, &m, &v, &error);
        print_message("%-8s variance %.5f +- %.5f\n", order[i].kind, v, error);
        assert_true(v < last - 5 * hypot(error, last_error));
        last = v, last_error = error;
        free(k);
    }
    fv_context_destroy(ctx);
}

/* At angle 0 the hybrid has the moments of its trigonometric estimator, at angle pi those of its positive one. */
static void hybrid_at_the_ends(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int end = 0; end < 2; end++) {
        maps_case c = {"favor-hybrid", TRIG_ROWS, FV_PROJECTION_ORTHOGONAL, 0.7, end, 1};
        double mean, variance, m, v, error, *k = estimate(ctx, &c, 80);
        float x[D], y[D];
        double X[D], Y[D];
        fill_pair(&c, x, y);
        for (int i = 0; i < D; i++)
            X[i] = (double)x[i], Y[i] = (double)y[i];
        pair_sizes s = sizes_of(X, Y);
        of_terms(end ? positive(s) : trigonometric(s), TRIG_ROWS, c.projection, &mean, &variance);
        measured(k, HEADS, mean, &m, &v, &error);
        assert_true(fabs(m - mean) < 4 * sqrt(variance / HEADS) && fabs(v - variance) < 4 * error);
        free(k);
    }
    fv_context_destroy(ctx);
}

/* |x| = |y| at angles 0 and pi: no error at all, whatever is drawn. */
static void hybrid_is_exact_at_the_ends(void **state)
{
    static const int64_t one = 1;
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int end = -1; end <= 1; end += 2) {
        fv_attention_options o;
        fv_attention_options_init(&o);
        o.kind = "favor-hybrid", o.heads = 50, o.dim = D, o.value_dim = 1, o.scale = 1, o.features = 3;
        o.denominator = FV_DENOMINATOR_OFF;
        problem_shape shape = {.sequences = 1, .queries = &one, .seed = 5, .spread = 0.5};
        problem *p = problem_make(ctx, &o, &shape);
        for (int64_t i = 0; i < 50 * D; i++)
            p->k[i] = (float)end * p->q[i];
        for (int64_t h = 0; h < 50; h++)
            p->v[h] = 1;
        problem_forward(p, false);
        for (int64_t h = 0; h < 50; h++) {
            double xy = 0;
            for (int i = 0; i < D; i++)
                xy += (double)p->q[h * D + i] * (double)p->k[h * D + i];
            /* Terms of both signs and of the other estimator's size cancel. */
            assert_true(fabs((double)p->y[h] - exp(xy)) < 1e-5 * exp(4 * fabs(xy)));
        }
        problem_free(p);
    }
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mean_and_variance),
        cmocka_unit_test(optimal_features_vary_less),
        cmocka_unit_test(hybrid_at_the_ends),
        cmocka_unit_test(hybrid_is_exact_at_the_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
