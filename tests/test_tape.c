/* test_tape.c: each operation of the tape against a specification in double, its backward against the complex
 * step of that specification; the pool; plans against runs.
 *
 * Tolerance everywhere: abs(err) <= 8 eps m, m the same expression on magnitudes: products of float sums
 * carry m_u = sum |x||w| in u, an activation turns it into m_u |f'|, its derivative into m_u |f''|.
 */
#include "autograd/product.h"
#include "support/scratch.h"
#include "support/tape_bench.h"
#include "support/tiny_model.h"
#include <complex.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#ifndef CMPLX /* glibc has it for GCC only */
#define CMPLX(re, im) ((double)(re) + (double _Complex)_Complex_I * (double)(im))
#endif

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { ROWS = 70, IN = 13, OUT = 9 };

static const double step = 1e-100;
#define STEP(here) ((here) ? CMPLX(0.0, step) : CMPLX(0.0, 0.0))

/* ---- linear -------------------------------------------------------------------------------------- */

typedef struct linear_case {
    fv_activation activation;
    bool bias;
    const float *x;
} linear_case;

enum { WEIGHT = 3, BIAS = WEIGHT + IN * OUT };

static void record_linear(void *arg)
{
    const linear_case *c = arg;
    bench_end(fv_tape_linear(&bench.tape, bench_input(ROWS, IN, c->x), OUT, WEIGHT, c->bias ? BIAS : -1,
                             c->activation));
}

/* f(u) with its derivative carried by hand: erf has no complex version in C. */
static double complex activate(fv_activation a, double complex u)
{
    double re = creal(u), phi = 0.5 * erfc(-re / sqrt(2)), density = exp(-re * re / 2) / sqrt(2 * M_PI);
    if (a == FV_ACTIVATION_GELU)
        return CMPLX(re * phi, (phi + re * density) * cimag(u));
    return a == FV_ACTIVATION_RELU && re <= 0 ? 0 : u;
}

/* y[t][o]; x, W and b may carry an imaginary step. */
static double complex linear_spec(const linear_case *c, int t, int o, int kind, int i, double *magnitude)
{
    const float *w = bench.parameters + WEIGHT + o * IN, *x = c->x + t * IN;
    double complex u = c->bias ? (double)bench.parameters[BIAS + o] : 0;
    *magnitude = fabs(creal(u));
    for (int k = 0; k < IN; k++) {
        u += ((double)x[k] + STEP(kind == 0 && k == i)) * ((double)w[k] + STEP(kind == 1 && k == i));
        *magnitude += fabs((double)x[k] * (double)w[k]);
    }
    return activate(c->activation, u + STEP(kind == 2));
}

/* Derivatives are sums over the outputs (of x) or over the rows (of W and b); |f'| <= 1.13, |f''| <= 0.8. */
static void check_linear(linear_case *c)
{
    bench_play(record_linear, c);
    static double dw[OUT][IN + 1], mw[OUT][IN + 1];
    memset(dw, 0, sizeof dw), memset(mw, 0, sizeof mw);
    for (int t = 0; t < ROWS; t++) {
        double dx[IN] = {0}, mx[IN] = {0}, m;
        for (int o = 0; o < OUT; o++) {
            double dy = (double)bench.dy[t * OUT + o];
            double y = creal(linear_spec(c, t, o, -1, 0, &m));
            assert_near((double)bench.y[t * OUT + o], y, m, "linear y");
            double carried = fabs(dy) * (1.13 + 0.8 * m);
            for (int i = 0; i < IN; i++) {
                dx[i] += dy * cimag(linear_spec(c, t, o, 0, i, &m)) / step;
                mx[i] += carried * fabs((double)bench.parameters[WEIGHT + o * IN + i]);
                dw[o][i] += dy * cimag(linear_spec(c, t, o, 1, i, &m)) / step;
                mw[o][i] += carried * fabs((double)c->x[t * IN + i]);
            }
            dw[o][IN] += dy * cimag(linear_spec(c, t, o, 2, 0, &m)) / step;
            mw[o][IN] += carried;
        }
        for (int i = 0; i < IN; i++)
            assert_near((double)bench.inputs[0].gradient[t * IN + i], dx[i], mx[i], "linear dx");
    }
    for (int o = 0; o < OUT; o++)
        for (int i = 0; i < IN; i++)
            assert_near((double)bench.gradients[WEIGHT + o * IN + i], dw[o][i], mw[o][i], "linear dW");
    for (int o = 0; c->bias && o < OUT; o++)
        assert_near((double)bench.gradients[BIAS + o], dw[o][IN], mw[o][IN], "linear db");
    assert_true(bench.gradients[WEIGHT - 1] == 0 && (c->bias || bench.gradients[BIAS] == 0));
}

static void test_linear(void **state)
{
    (void)state;
    static float x[ROWS * IN];
    tiny_normals(3, 1, x, ROWS * IN);
    for (int a = 0; a < 3; a++)
        for (int bias = 0; bias < 2; bias++)
            check_linear(&(linear_case){(fv_activation)a, bias, x});
}

/* ---- layer norm ---------------------------------------------------------------------------------- */

static const double norm_eps = 1e-5;

static void record_norm(void *arg)
{
    bench_end(fv_tape_layernorm(&bench.tape, bench_input(ROWS, IN, arg), 0, IN, (float)norm_eps));
}

static double complex norm_spec(const float *x, int o, int moved)
{
    double complex mean = 0, variance = 0, at[IN];
    for (int k = 0; k < IN; k++)
        mean += at[k] = (double)x[k] + STEP(k == moved);
    mean /= IN;
    for (int k = 0; k < IN; k++)
        variance += (at[k] - mean) * (at[k] - mean) / IN;
    return (at[o] - mean) / csqrt(variance + norm_eps) * (double)bench.parameters[o] +
           (double)bench.parameters[IN + o];
}

/* Magnitudes: y carries those of x - mean over the deviation; dx = rstd (g - mean g - xhat mean(g xhat)) with
 * g = dy gain, each of the three with its own and xhat's error (a few eps of 1 + |x|/deviation). */
static void test_layernorm(void **state)
{
    (void)state;
    static float x[ROWS * IN];
    double dgain[IN] = {0}, dbias[IN] = {0}, mgain[IN] = {0}, mbias[IN] = {0};
    tiny_normals(4, 2, x, ROWS * IN);
    bench_play(record_norm, x);
    for (int t = 0; t < ROWS; t++) {
        const float *row = x + t * IN, *dy = bench.dy + t * IN;
        double mean = 0, deviation = norm_eps, spread = 0, top = 0;
        for (int k = 0; k < IN; k++)
            mean += (double)row[k] / IN, top = fmax(top, fabs((double)row[k]));
        for (int k = 0; k < IN; k++)
            deviation += ((double)row[k] - mean) * ((double)row[k] - mean) / IN;
        deviation = sqrt(deviation);
        double size = 1 + 2 * top / deviation; /* of xhat and its error */
        for (int k = 0; k < IN; k++)
            spread += fabs((double)dy[k] * (double)bench.parameters[k]) / IN;
        for (int i = 0; i < IN; i++) {
            double y = creal(norm_spec(row, i, -1)), dx = 0;
            double gain = fabs((double)bench.parameters[i]);
            assert_near((double)bench.y[t * IN + i], y, gain * size + fabs((double)bench.parameters[IN + i]),
                        "norm y");
            for (int o = 0; o < IN; o++)
                dx += (double)dy[o] * cimag(norm_spec(row, o, i)) / step;
            double m = (fabs((double)dy[i]) * gain + spread * (1 + size * size)) / deviation;
            assert_near((double)bench.inputs[0].gradient[t * IN + i], dx, m, "norm dx");
            double xhat = ((double)row[i] - mean) / deviation;
            dgain[i] += (double)dy[i] * xhat, mgain[i] += fabs((double)dy[i]) * size;
            dbias[i] += (double)dy[i], mbias[i] += fabs((double)dy[i]);
        }
    }
    for (int i = 0; i < IN; i++) {
        assert_near((double)bench.gradients[i], dgain[i], mgain[i], "norm dgain");
        assert_near((double)bench.gradients[IN + i], dbias[i], mbias[i], "norm dbias");
    }
}

/* ---- residual and dropout ------------------------------------------------------------------------ */

typedef struct residual_case {
    const float *x, *m;
    float rate;
} residual_case;

static void record_residual(void *arg)
{
    const residual_case *c = arg;
    int m = bench_input(ROWS, IN, c->m), x = c->x != NULL ? bench_input(ROWS, IN, c->x) : -1;
    bench.tape.dropout = (fv_dropout_key){5, 6, 7};
    bench_end(fv_tape_residual(&bench.tape, x, m, c->rate, 8));
}

static void test_residual(void **state)
{
    (void)state;
    static float x[ROWS * IN], m[ROWS * IN];
    tiny_normals(5, 1, x, ROWS * IN);
    tiny_normals(6, 1, m, ROWS * IN);
    const residual_case cases[] = {{x, m, 0}, {x, m, 0.3f}, {NULL, m, 0.3f}, {NULL, m, 0}};
    for (int c = 0; c < FV_COUNT(cases); c++) {
        residual_case one = cases[c];
        int dropped = 0;
        bench_play(record_residual, &one);
        for (int i = 0; i < ROWS * IN; i++) {
            double base = one.x != NULL ? (double)x[i] : 0, dy = (double)bench.dy[i];
            bool gone = (double)bench.y[i] == base;
            double factor = gone ? 0 : 1 / (1 - (double)one.rate);
            dropped += gone;
            assert_near((double)bench.y[i], base + factor * (double)m[i],
                        fabs(base) + factor * fabs((double)m[i]), "residual y");
            assert_near((double)bench.inputs[0].gradient[i], factor * dy, fabs(dy) * factor, "residual dm");
            if (one.x != NULL)
                assert_true((double)bench.inputs[1].gradient[i] == dy);
        }
        double expected = (double)one.rate * ROWS * IN;
        assert_true(fabs(dropped - expected) <= 5 * sqrt(expected + 0.01));
    }
}

/* x + x: both gradients meet in one block that others hold too. */
static void record_twice(void *arg)
{
    int x = bench_input(ROWS, IN, arg);
    bench_end(fv_tape_residual(&bench.tape, x, x, 0, 0));
}

static void test_shared_gradient(void **state)
{
    (void)state;
    static float x[ROWS * IN];
    tiny_normals(7, 1, x, ROWS * IN);
    bench_play(record_twice, x);
    for (int i = 0; i < ROWS * IN; i++) {
        assert_true(bench.y[i] == 2 * x[i]);
        assert_true(bench.inputs[0].gradient[i] == 2 * bench.dy[i]);
    }
}

/* Two linear layers and a dropout read x: each adds to the gradient the later ones began. */
static void record_fan(void *arg)
{
    const residual_case *c = arg;
    int x = bench_input(ROWS, IN, c->x);
    int dropped = fv_tape_residual(&bench.tape, -1, x, c->rate, 8);
    int a = fv_tape_linear(&bench.tape, x, IN, 0, -1, FV_ACTIVATION_NONE);
    int b = fv_tape_linear(&bench.tape, x, IN, IN * IN, -1, FV_ACTIVATION_NONE);
    int sum = fv_tape_residual(&bench.tape, a, dropped, 0, 9);
    bench.tape.dropout = (fv_dropout_key){5, 6, 7};
    bench_end(fv_tape_residual(&bench.tape, sum, b, 0, 9));
}

static void test_fan_out(void **state)
{
    (void)state;
    static float x[ROWS * IN], kept[ROWS * IN];
    residual_case alone = {NULL, x, 0.3f}, fan = {x, NULL, 0.3f};
    tiny_normals(12, 1, x, ROWS * IN);
    bench_play(record_residual, &alone);
    for (int i = 0; i < ROWS * IN; i++) /* the same key and site: the same mask */
        kept[i] = bench.y[i] / x[i];
    bench_play(record_fan, &fan);
    for (int t = 0; t < ROWS; t++)
        for (int i = 0; i < IN; i++) {
            const float *dy = bench.dy + t * IN;
            double dx = (double)dy[i] * (double)kept[t * IN + i], m = fabs(dx);
            for (int o = 0; o < 2 * IN; o++) {
                double term = (double)dy[o % IN] * (double)bench.parameters[o * IN + i];
                dx += term, m += fabs(term);
            }
            assert_near((double)bench.inputs[0].gradient[t * IN + i], dx, m, "fan-out dx");
        }
}

/* ---- embedding and selection --------------------------------------------------------------------- */

enum { WORDS = 11, PLACES = 40 };
static int32_t ids[ROWS], places[ROWS];

static void record_embedding(void *arg)
{
    (void)arg;
    fv_embedding e = {.ids = ids,
                      .positions = places,
                      .rows = ROWS,
                      .cols = IN,
                      .tokens = WORDS,
                      .token = 2,
                      .places = PLACES,
                      .place = 2 + WORDS * IN};
    bench_end(fv_tape_embedding(&bench.tape, &e));
}

static void test_embedding(void **state)
{
    (void)state;
    static double sums[WORDS + PLACES][IN], magnitudes[WORDS + PLACES][IN];
    for (int t = 0; t < ROWS; t++)
        ids[t] = (t * 7 + t / 5) % WORDS, places[t] = t % PLACES;
    bench_play(record_embedding, NULL);
    const float *table = bench.parameters + 2;
    for (int t = 0; t < ROWS; t++)
        for (int i = 0; i < IN; i++) {
            int rows[] = {ids[t], WORDS + places[t]};
            double dy = (double)bench.dy[t * IN + i];
            assert_true(bench.y[t * IN + i] == table[rows[0] * IN + i] + table[rows[1] * IN + i]);
            for (int k = 0; k < 2; k++)
                sums[rows[k]][i] += dy, magnitudes[rows[k]][i] += fabs(dy);
        }
    for (int r = 0; r < WORDS + PLACES; r++)
        for (int i = 0; i < IN; i++)
            assert_near((double)bench.gradients[2 + r * IN + i], sums[r][i], magnitudes[r][i], "table");
}

static int32_t chosen[] = {3, 0, 69, 17, 18};

static void record_select(void *arg)
{
    bench_end(fv_tape_select(&bench.tape, bench_input(ROWS, IN, arg), chosen, FV_COUNT(chosen)));
}

static void test_select(void **state)
{
    (void)state;
    static float x[ROWS * IN], expected[ROWS * IN];
    tiny_normals(8, 1, x, ROWS * IN);
    bench_play(record_select, x);
    for (int r = 0; r < FV_COUNT(chosen); r++) {
        assert_memory_equal(bench.y + r * IN, x + chosen[r] * IN, IN * sizeof *x);
        memcpy(expected + chosen[r] * IN, bench.dy + r * IN, IN * sizeof *x);
    }
    assert_memory_equal(bench.inputs[0].gradient, expected, sizeof expected);
}

/* ---- cross-entropy ------------------------------------------------------------------------------- */

/* Many classes, so that the rows go in several slabs (384 rows of at least 2^21 / 384 classes). */
enum { LOSS_ROWS = 400, CLASSES = 6000, LOSS_IN = 3 };

static struct {
    float x[LOSS_ROWS * LOSS_IN], parameters[CLASSES * (LOSS_IN + 1)], gradients[CLASSES * (LOSS_IN + 1)];
    int32_t targets[LOSS_ROWS];
    double loss;
    int64_t correct;
} ce;

static void record_loss(void *arg)
{
    (void)arg;
    fv_cross_entropy loss = {.classes = CLASSES,
                             .matrix = 0,
                             .bias = CLASSES * LOSS_IN,
                             .targets = ce.targets,
                             .weight = 0.5f,
                             .loss = &ce.loss,
                             .correct = &ce.correct};
    if (bench.tape.running) {
        bench.tape.parameters = ce.parameters;
        bench.tape.gradients = ce.gradients;
    }
    fv_tape_cross_entropy(&bench.tape, bench_input(LOSS_ROWS, LOSS_IN, ce.x), &loss);
}

static void test_cross_entropy(void **state)
{
    (void)state;
    static double dw[CLASSES][LOSS_IN + 1], mw[CLASSES][LOSS_IN + 1], p[CLASSES];
    double expected = 0, magnitude = 0;
    int64_t hits = 0;
    tiny_normals(9, 1, ce.x, FV_COUNT(ce.x));
    tiny_normals(10, 1, ce.parameters, FV_COUNT(ce.parameters));
    for (int t = 0; t < LOSS_ROWS; t++)
        ce.targets[t] = (t * 37) % CLASSES;
    bench_play(record_loss, NULL);
    for (int t = 0; t < LOSS_ROWS; t++) {
        const float *x = ce.x + t * LOSS_IN;
        double sum = 0, size = 0, dx[LOSS_IN] = {0}, mx[LOSS_IN] = {0};
        int best = 0;
        for (int c = 0; c < CLASSES; c++) {
            double l = (double)ce.parameters[CLASSES * LOSS_IN + c], m = fabs(l);
            for (int i = 0; i < LOSS_IN; i++) {
                l += (double)x[i] * (double)ce.parameters[c * LOSS_IN + i];
                m += fabs((double)x[i] * (double)ce.parameters[c * LOSS_IN + i]);
            }
            p[c] = l;
            size = fmax(size, m);
            best = l > p[best] ? c : best;
        }
        for (int c = 0; c < CLASSES; c++)
            sum += exp(p[c] - p[best]);
        expected += log(sum) + p[best] - p[ce.targets[t]];
        magnitude += 3 * size + log(sum);
        hits += best == ce.targets[t];
        /* exp turns the error of a logit into a relative one, above and below the fraction. */
        for (int c = 0; c < CLASSES; c++) {
            double share = exp(p[c] - p[best]) / sum, d = 0.5 * (share - (c == ce.targets[t]));
            double m = 0.5 * (share * (4 + 2 * size) + (c == ce.targets[t]));
            for (int i = 0; i <= LOSS_IN; i++) {
                double at = i < LOSS_IN ? (double)x[i] : 1;
                dw[c][i] += d * at, mw[c][i] += m * fabs(at);
                if (i < LOSS_IN) {
                    dx[i] += d * (double)ce.parameters[c * LOSS_IN + i];
                    mx[i] += m * fabs((double)ce.parameters[c * LOSS_IN + i]);
                }
            }
        }
        for (int i = 0; i < LOSS_IN; i++)
            assert_near((double)bench.inputs[0].gradient[t * LOSS_IN + i], dx[i], mx[i], "loss dx");
    }
    assert_near(ce.loss, expected, magnitude, "loss");
    assert_int_equal(ce.correct, hits);
    /* dW is one sum over all rows in order, its size set early by the one row of the target: 400 roundings of
     * that size walk to sqrt(400) / 2 eps, beside the 8 eps of its terms. */
    double walk = 1 + sqrt(LOSS_ROWS) / 2 / 8;
    for (int c = 0; c < CLASSES; c++)
        for (int i = 0; i <= LOSS_IN; i++)
            assert_near((double)ce.gradients[i < LOSS_IN ? c * LOSS_IN + i : CLASSES * LOSS_IN + c], dw[c][i],
                        walk * mw[c][i], "loss dW");
}

/* ---- the pool ------------------------------------------------------------------------------------ */

/* Random takes and gives: live blocks never overlap, measuring and running agree, all comes back. */
static void test_pool(void **state)
{
    (void)state;
    enum { LIMIT = 40, STEPS = 2000 };
    fv_pool_entry entries[2][LIMIT];
    static char memory[1 << 20] __attribute__((aligned(64)));
    fv_pool pools[2] = {{.entries = entries[0], .limit = LIMIT},
                        {.base = memory, .capacity = sizeof memory, .entries = entries[1], .limit = LIMIT}};
    fv_block live[2][LIMIT] = {{{0}}};
    fv_random random = fv_random_make(3, FV_RANDOM_TEST, 2, 0);
    for (int i = 0; i < STEPS; i++) {
        uint64_t at = fv_random_below(&random, LIMIT), floats = fv_random_below(&random, 3000);
        for (int k = 0; k < 2; k++) {
            if (live[k][at].bytes > 0)
                fv_pool_give(&pools[k], &live[k][at]);
            else
                live[k][at] = fv_pool_take(&pools[k], (int64_t)floats);
        }
        assert_int_equal(live[0][at].begin, live[1][at].begin);
        for (int a = 0; a < LIMIT; a++) /* against all others */
            assert_true(a == (int)at || live[0][a].bytes == 0 || live[0][at].bytes == 0 ||
                        live[0][a].begin + live[0][a].bytes <= live[0][at].begin ||
                        live[0][at].begin + live[0][at].bytes <= live[0][a].begin);
    }
    assert_int_equal(pools[0].peak, pools[1].peak);
    for (int a = 0; a < LIMIT; a++)
        fv_pool_give(&pools[1], &live[1][a]);
    assert_int_equal(pools[1].count, 0);

    /* Two holders. */
    fv_block one = fv_pool_take(&pools[1], 100), other = one;
    fv_pool_share(&pools[1], one);
    assert_true(fv_pool_shared(&pools[1], one));
    fv_pool_give(&pools[1], &one);
    assert_int_equal(one.bytes, 0);
    assert_false(fv_pool_shared(&pools[1], other));
    fv_pool_give(&pools[1], &other);
    assert_int_equal(pools[1].count, 0);

    /* Too much. */
    assert_int_equal(fv_pool_take(&pools[1], 1 << 20).bytes, 0);
    assert_int_equal(fv_pool_take(&pools[0], INT64_MAX).bytes, 0);
    assert_true(pools[0].peak >= PTRDIFF_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_linear),    cmocka_unit_test(test_layernorm),
        cmocka_unit_test(test_residual),  cmocka_unit_test(test_fan_out),
        cmocka_unit_test(test_embedding), cmocka_unit_test(test_shared_gradient),
        cmocka_unit_test(test_select),    cmocka_unit_test(test_cross_entropy),
        cmocka_unit_test(test_pool),
    };
    return cmocka_run_group_tests(tests, bench_setup, bench_teardown);
}
