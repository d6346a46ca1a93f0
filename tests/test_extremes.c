/* test_extremes.c: finite inputs of any size: outputs are finite and, where weights are not negative, lie between the values
 * that a row sees; what has all the weight in exact arithmetic has it here; gradients are finite. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/mechanism.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/problem.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sums of numerator and normaliser, rounded apart (test_attention_laws.c, constant_v). */
#define ROUNDING (16 * (double)FLT_EPSILON)

/* ---- a case ---------------------------------------------------------------------------------------- */

enum { L = 21, H = 2 };

/* Sizes of a case: factors on normal inputs. */
typedef struct sizes {
    double q, k, v;
} sizes;

static fv_attention_options options_of(int kind, int causal)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind)->name;
    o.heads = H, o.kv_heads = 1, o.dim = 8, o.value_dim = 3, o.causal = causal, o.features = 12, o.chunk = 8;
    kind_small_options(&o);
    return o;
}

static void multiply(float *x, int64_t n, double factor)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((double)x[i] * factor);
}

static problem *make(const fv_attention_options *o, sizes s)
{
    const int64_t length = L;
    problem_shape shape = {.sequences = 1, .queries = &length, .seed = 31};
    problem *p = problem_make(ctx, o, &shape);
    bool meets = kind_row_of(o->kind)->traits & KIND_EMPTY; /* no query without a key */
    for (int64_t i = 0; meets && i < L * problem_row_q(p); i++)
        p->q[i] = fabsf(p->q[i]);
    for (int64_t i = 0; meets && i < L * problem_row_k(p); i++)
        p->k[i] = fabsf(p->k[i]);
    multiply(p->q, L * problem_row_q(p), s.q);
    multiply(p->k, L * problem_row_k(p), s.k);
    multiply(p->v, L * problem_row_v(p), s.v);
    return p;
}

/* y[i] of row t lies between the values of its column that t may see. */
static void check_hull(const problem *p, sizes s)
{
    const fv_attention_options *o = &p->info.options;
    for (int64_t i = 0; i < L * problem_row_y(p); i++) {
        double low = HUGE_VAL, high = -HUGE_VAL, y = (double)p->y[i];
        int64_t t = i / problem_row_y(p), keys = o->causal ? t + 1 : L;
        for (int64_t j = 0; j < keys; j++) {
            double v = (double)p->v[j * problem_row_v(p) + i % o->value_dim];
            low = fmin(low, v), high = fmax(high, v);
        }
        double slack = ROUNDING * fmax(fabs(low), fabs(high));
        if (!(y >= low - slack && y <= high + slack))
            fail_msg("%s %s, sizes %g %g %g: y[%lld] is %g, outside %g .. %g", o->kind,
                     o->causal ? "causal" : "bidirectional", s.q, s.k, s.v, (long long)i, y, low, high);
    }
}

static void check_finite(const problem *p, const float *x, int64_t n, const char *what, sizes s)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            fail_msg("%s %s, sizes %g %g %g: %s[%lld] is %g", p->info.options.kind,
                     p->info.options.causal ? "causal" : "bidirectional", s.q, s.k, s.v, what, (long long)i,
                     (double)x[i]);
}

/* Weights that are never negative keep y between the values. */
static bool has_hull(int kind)
{
    return !kind_has(kind, KIND_CANCELS | KIND_MIXES);
}

static void run(int kind, problem *p, sizes s)
{
    problem_forward(p, true);
    check_finite(p, p->y, L * problem_row_y(p), "y", s);
    if (has_hull(kind))
        check_hull(p, s);
    problem_backward(p);
    check_finite(p, p->dq, L * problem_row_q(p), "dq", s);
    check_finite(p, p->dk, L * problem_row_k(p), "dk", s);
    check_finite(p, p->dv, L * problem_row_v(p), "dv", s);
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (p->d_input[i] != NULL)
            check_finite(p, p->d_input[i], p->input_floats[i], fv_input_name((fv_input)i), s);
}

/* ---- norms ----------------------------------------------------------------------------------------- */

static const double norms[] = {1e-30, 1e-18, 1e-6, 1, 1e4, 1e6, 1e10, 1e18, 1e30};

static bool exponential(int kind)
{
    const fv_feature_map *map = fv_mechanism_find(fv_attention_kind_at(kind)->name)->map;
    return map != NULL && map->exponential;
}

static void norms_of_all_sizes(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int causal = 0; exponential(kind) && causal <= kind_runs(kind, 1); causal++) {
            fv_attention_options o = options_of(kind, causal);
            for (int n = 0; n < FV_COUNT(norms) * FV_COUNT(norms); n++) {
                sizes s = {norms[n / FV_COUNT(norms)], norms[n % FV_COUNT(norms)], 1};
                problem *p = make(&o, s);
                run(kind, p, s);
                problem_free(p);
            }
        }
    }
}

/* The key that has all the weight of row i of head h; -1: none has, or a change of the keys by a few roundings decides. */
static int64_t winner(problem *p, int64_t h, int64_t i)
{
    num row[L];
    int64_t found = -1;
    for (int n = 0; n < 3; n++) {
        problem_spec_row(p, h, i, row);
        int64_t best = 0;
        for (int64_t j = 0; j < L; j++)
            best = num_value(row[j]) > num_value(row[best]) ? j : best;
        if (!(num_value(row[best]) > 1 - 1e-12) || (n > 0 && best != found))
            return -1;
        found = best;
        for (int64_t e = 0; e < L * problem_row_k(p); e++)
            p->k[e] *= (e * 7 + n) % 3 == n ? 1 + 0x1p-19f : 1 - 0x1p-19f;
    }
    return found;
}

/* Where one key has all the weight, its value comes out, to the last bits: norms from where most rows have one. */
static void the_largest_weight_dominates(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        int64_t decided = 0;
        for (int n = 0; exponential(kind) && has_hull(kind) && n < 10; n++) {
            fv_attention_options o = options_of(kind, n % 2);
            if (fv_attention_kind_takes(fv_attention_kind_at(kind), "psi", NULL))
                o.psi = 1.75; /* a measured one ends at 2^16 */
            sizes s = {n % 4 < 2 ? 1 : norms[4 + n / 2], norms[4 + n / 2], 1};
            problem *p = make(&o, s);
            problem_forward(p, false);
            for (int64_t i = 0; i < L * H; i++) {
                int64_t best = winner(p, i % H, i / H);
                for (int64_t c = 0; best >= 0 && c < o.value_dim; c++) {
                    double y = (double)p->y[i * o.value_dim + c], v = (double)p->v[best * o.value_dim + c];
                    if (!(fabs(y - v) <= ROUNDING * fabs(v)))
                        fail_msg("%s, keys of %g: row %lld is %g instead of %g of key %lld", o.kind, s.k,
                                 (long long)i, y, v, (long long)best);
                }
                decided += best >= 0;
            }
            problem_free(p);
        }
        assert_true(!exponential(kind) || !has_hull(kind) || decided > 100);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_of_all_sizes),
        cmocka_unit_test(the_largest_weight_dominates),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
