/* test_toeplitz.c: the Toeplitz operator on values against the dense matrix in double, forward and both gradients. What
 * holds without a matrix is looked at in test_toeplitz_laws.c.
 *
 * Transforms are accurate in norm, not entry by entry: |err| <= C eps log2(P) |w|_2 |v|_2, v being the two
 * channels that share a complex one and P at most 4 n. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/floats.h"
#include "support/problem.h"
#include "support/toeplitz_call.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { C = 1 };

/* The weights that make up T_ij: their offsets into one head's row; returns how many (0, 1, 2). */
static int entries(const fv_toeplitz *t, int64_t i, int64_t j, int64_t at[2])
{
    int64_t R = t->span, zero = t->span - 1;
    if (t->causal && j > i)
        return 0;
    at[0] = t->raster ? i / R - j / R + zero : i - j + zero;
    at[1] = i % R - j % R + zero;
    return t->raster ? 2 : 1;
}

/* What the dense matrix gives, one pair of tokens and head after the other. */
typedef struct dense {
    double *y, *dv, *dw;
} dense;

static double *zeros(int64_t n)
{
    return calloc((size_t)n + 1, sizeof(double));
}

static void dense_pair(const toeplitz_call *c, dense *d, int64_t h, int64_t row_i, int64_t row_j, int64_t i,
                       int64_t j)
{
    const fv_toeplitz *t = &c->t;
    int64_t at[2], dv = t->width, w = h * (2 * t->span - 1), count = entries(t, i, j, at);
    double T = 0, dot = 0;
    for (int64_t n = 0; n < count; n++)
        T += (double)c->w[w + at[n]];
    int64_t iv = row_j * c->ldv + h * t->kv_heads / t->heads * dv, iy = row_i * c->ldy + h * dv;
    for (int64_t f = 0; f < dv && count > 0; f++) {
        d->y[iy + f] += T * (double)c->v[iv + f];
        d->dv[iv + f] += T * (double)c->dy[iy + f];
        dot += (double)c->v[iv + f] * (double)c->dy[iy + f];
    }
    for (int64_t n = 0; n < count; n++)
        d->dw[w + at[n]] += dot;
}

static dense dense_of(const toeplitz_call *c)
{
    dense d = {zeros(c->tq * c->ldy), zeros(c->tk * c->ldv), zeros(c->weights)};
    for (int64_t s = 0; s < c->layout.sequences; s++)
        for (int64_t i = c->oq[s] + c->t.skip; i < c->oq[s + 1]; i++)
            for (int64_t j = c->ok[s] + c->t.skip; j < c->ok[s + 1]; j++)
                for (int64_t h = 0; h < c->t.heads; h++)
                    dense_pair(c, &d, h, i, j, i - c->oq[s] - c->t.skip, j - c->ok[s] - c->t.skip);
    return d;
}

static double norm(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

/* Norm of columns [first, first + n) of rows `ld` apart. */
static double norm_columns(const float *x, int64_t rows, int64_t ld, int64_t first, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < rows; i++) {
        double row = norm(x + i * ld + first, n);
        sum += row * row;
    }
    return sqrt(sum);
}

static double worst_error;

static void near(double got, double want, double m, const char *what, const toeplitz_call *c, int64_t index)
{
    double ratio = fabs(got - want) / ((double)FLT_EPSILON * m + (double)FLT_MIN);
    worst_error = fmax(worst_error, ratio);
    if (!(ratio <= C))
        fail_msg(
            "%s: entry %lld is %.9g, expected %.9g: %.3g eps m (%s%s, H %lld G %lld dv %lld N %lld, first "
            "sequence %lld)",
            what, (long long)index, got, want, ratio, c->t.causal ? "causal" : "bidirectional",
            c->t.raster ? " raster" : "", (long long)c->t.heads, (long long)c->t.kv_heads,
            (long long)c->t.width, (long long)c->t.span, (long long)c->oq[1]);
}

static double passes(const toeplitz_call *c)
{
    return log2(4.0 * (double)FV_MAX(FV_MAX(c->tq, c->tk), (int64_t)2));
}

/* Everything is added to what was there: `before`. */
static void check_rows(const toeplitz_call *c, const float *before, const float *got, const double *want,
                       int64_t rows, int64_t ld, double m, const char *what)
{
    for (int64_t i = 0; i < rows * ld; i++) {
        double was = (double)before[i];
        if (i % ld >= ld - TOEPLITZ_PAD)
            assert_true(memcmp(&before[i], &got[i], sizeof *got) == 0);
        else
            near((double)got[i], was + want[i], m + fabs(was), what, c, i);
    }
}

static void compare(fv_context *ctx, const toeplitz_shape *s)
{
    toeplitz_call *c = toeplitz_make(ctx, s);
    dense d = dense_of(c);
    float *y = floats_copy(c->y, c->tq * c->ldy), *dv = floats_copy(c->dv, c->tk * c->ldv),
          *dw = floats_copy(c->dw, c->weights);
    /* A raster's entries are sums of two weights, and of R equal ones. */
    double head =
        norm(c->w, c->weights) / sqrt((double)s->heads) * (s->raster ? 2 * sqrt((double)s->span) : 1);
    double v = norm_columns(c->v, c->tk, c->ldv, 0, c->ldv - TOEPLITZ_PAD) /
               sqrt((double)(c->ldv - TOEPLITZ_PAD)) * 2;
    double out = norm_columns(c->dy, c->tq, c->ldy, 0, c->ldy - TOEPLITZ_PAD) /
                 sqrt((double)(c->ldy - TOEPLITZ_PAD)) * 2;
    double m = passes(c) * head, share = (double)(s->heads / s->kv_heads);
    assert_int_equal(fv_toeplitz_check(&c->t), FV_OK);
    toeplitz_forward(c);
    check_rows(c, y, c->y, d.y, c->tq, c->ldy, m * v, "y");
    toeplitz_backward(c, c->dv, c->dw);
    check_rows(c, dv, c->dv, d.dv, c->tk, c->ldv, m * out * share, "dv");
    double all = passes(c) * v * out * sqrt((double)s->width) * (s->raster ? 2 * sqrt((double)s->span) : 1);
    for (int64_t i = 0; i < c->weights; i++)
        near((double)c->dw[i], (double)dw[i] + d.dw[i], all + fabs((double)dw[i]), "dw", c, i);
    free(y), free(dv), free(dw), free(d.y), free(d.dv), free(d.dw);
    toeplitz_drop(c);
}

static void lengths_of_one_sequence(void **state)
{
    static const int64_t lengths[] = {1,   2,   3,   7,   31,  32,  33,  64,  96,  97,   127,  128,  129,
                                      191, 192, 193, 255, 256, 257, 300, 500, 700, 1023, 1024, 1025, 1200};
    static const char *const cpus[] = {"reference", "avx2", NULL};
    (void)state;
    for (int cpu = 0; cpu < FV_COUNT(cpus); cpu++) {
        fv_context *ctx = NULL;
        fv_context_options options;
        fv_context_options_init(&options);
        options.cpu = cpus[cpu], options.threads = 2;
        if (fv_context_create(&ctx, &options) != FV_OK)
            continue; /* not on this processor */
        for (int n = 0; n < 2 * FV_COUNT(lengths); n++) {
            int64_t L = lengths[n / 2];
            toeplitz_shape s = {
                .heads = 2, .kv_heads = n % 3 ? 2 : 1, .width = 1 + n % 6, .span = L + n % 4 * 5};
            s.causal = n % 2, s.sequences = 1, s.queries[0] = L;
            if ((cpu == 0 && L > 300) || (cpu == 1 && n % 4 < 2 && L > 300))
                continue;
            compare(ctx, &s);
        }
        fv_context_destroy(ctx);
    }
}

static void packs_and_widths(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int n = 0; n < 12; n++) {
        static const int64_t widths[] = {3, 64, 70, 129};
        toeplitz_shape s = {.heads = n % 3 == 2 ? 9 : 2, .kv_heads = 1, .width = widths[n / 3], .span = 260};
        s.causal = n % 2, s.skip = n % 3, s.sequences = 6;
        memcpy(s.queries, (int64_t[]){0, 5, 1, 250, 250, 2}, 6 * sizeof s.queries[0]);
        compare(ctx, &s);
    }
    fv_context_destroy(ctx);
}

static void cross_lengths(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    toeplitz_shape s = {.heads = 4, .kv_heads = 2, .width = 5, .span = 400, .sequences = 5};
    memcpy(s.queries, (int64_t[]){3, 400, 0, 150, 210}, 5 * sizeof s.queries[0]);
    memcpy(s.keys, (int64_t[]){50, 7, 20, 130, 333}, 5 * sizeof s.keys[0]);
    compare(ctx, &s);
    fv_context_destroy(ctx);
}

/* Rasters of every small side, and of sides where rows are transformed. */
static void rasters(void **state)
{
    static const int64_t sides[] = {1, 2, 3, 5, 11, 20};
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int n = 0; n < 2 * FV_COUNT(sides); n++) {
        int64_t R = sides[n / 2];
        toeplitz_shape s = {
            .heads = 2, .kv_heads = 1 + n % 3 / 2, .width = 3 + n % 4, .span = R, .raster = true};
        s.causal = n % 2, s.skip = n % 3, s.sequences = 3;
        s.queries[0] = s.queries[2] = R * R + s.skip;
        compare(ctx, &s);
    }
    fv_context_destroy(ctx);
}

/* One row and one column of a large raster, by the operator's own linearity: v is 0 but for one token. */
static void a_large_raster(void **state)
{
    static const int64_t R = 200, tokens[] = {0, 199, 5 * 200 + 150, 100 * 200 + 3};
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int n = 0; n < 2 * FV_COUNT(tokens); n++) {
        toeplitz_shape s = {.heads = 1, .kv_heads = 1, .width = 2, .span = R, .raster = true, .sequences = 1};
        s.causal = n % 2, s.queries[0] = R * R;
        toeplitz_call *c = toeplitz_make(ctx, &s);
        int64_t j = tokens[n / 2];
        double m = passes(c) * norm(c->w, c->weights);
        memset(c->v, 0, (size_t)(c->tk * c->ldv) * sizeof(float));
        memset(c->y, 0, (size_t)(c->tq * c->ldy) * sizeof(float));
        c->v[j * c->ldv] = 1, c->v[j * c->ldv + 1] = -3;
        toeplitz_forward(c);
        for (int64_t i = 0; i < R * R; i++) {
            int64_t at[2];
            double T = 0;
            for (int e = entries(&c->t, i, j, at) - 1; e >= 0; e--)
                T += (double)c->w[at[e]];
            near((double)c->y[i * c->ldy], T, 4 * m, "y of one token", c, i);
            near((double)c->y[i * c->ldy + 1], -3 * T, 4 * m, "y of one token", c, i);
        }
        toeplitz_drop(c);
    }
    fv_context_destroy(ctx);
}

/* <dy, T v> = <T^T dy, v> = <dw, w> where sequences have several levels of blocks, or rasters transformed rows. */
static void adjoint_of_long_ones(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int n = 0; n < 6; n++) {
        toeplitz_shape s = {
            .heads = 2, .kv_heads = 1, .width = 6, .span = n < 4 ? 9000 : 110, .raster = n >= 4};
        s.causal = n % 2, s.skip = n / 2 % 2, s.sequences = 1;
        s.queries[0] = (s.raster ? s.span * s.span : n < 2 ? 8999 : 4500) + s.skip;
        toeplitz_call *c = toeplitz_make(ctx, &s);
        memset(c->y, 0, (size_t)(c->tq * c->ldy) * sizeof(float));
        memset(c->dv, 0, (size_t)(c->tk * c->ldv) * sizeof(float));
        memset(c->dw, 0, (size_t)c->weights * sizeof(float));
        toeplitz_forward(c);
        toeplitz_backward(c, c->dv, c->dw);
        double by_y = 0, by_v = 0, by_w = 0, m = 0;
        for (int64_t i = 0; i < c->tq * c->ldy; i++)
            by_y += i % c->ldy < c->ldy - TOEPLITZ_PAD ? (double)c->y[i] * (double)c->dy[i] : 0;
        for (int64_t i = 0; i < c->tk * c->ldv; i++)
            by_v += i % c->ldv < c->ldv - TOEPLITZ_PAD ? (double)c->dv[i] * (double)c->v[i] : 0;
        for (int64_t i = 0; i < c->weights; i++)
            by_w += (double)c->dw[i] * (double)c->w[i];
        m = norm(c->dy, c->tq * c->ldy) * norm(c->y, c->tq * c->ldy);
        near(by_v, by_y, m, "<dv, v>", c, 0);
        near(by_w, by_y, m, "<dw, w>", c, 0);
        toeplitz_drop(c);
    }
    fv_context_destroy(ctx);
}

static void report(void **state)
{
    (void)state;
    print_message("largest error %.2f eps m, allowed %d\n", worst_error, C);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lengths_of_one_sequence),
        cmocka_unit_test(packs_and_widths),
        cmocka_unit_test(cross_lengths),
        cmocka_unit_test(rasters),
        cmocka_unit_test(a_large_raster),
        cmocka_unit_test(adjoint_of_long_ones),
        cmocka_unit_test(report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
