/* test_toeplitz.c: the Toeplitz operator on values (attention/toeplitz.h) against the dense matrix in double, forward
 * and both gradients; causality and prefixes to the bit; sequences apart; threads; work and memory.
 *
 * Transforms are accurate in norm, not entry by entry: |err| <= C eps log2(P) |w|_2 |v|_2, v being the two
 * channels that share a complex one and P at most 4 n. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/toeplitz.h"
#include "support/counting.h"
#include "support/problem.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { C = 1, MAX_SEQUENCES = 8, PAD = 3 };

/* One call with its tensors. */
typedef struct call {
    fv_toeplitz t;
    fv_layout layout;
    int64_t oq[MAX_SEQUENCES + 1], ok[MAX_SEQUENCES + 1];
    int64_t weights, ldv, ldy, tq, tk;
    float *w, *v, *y, *dy, *dv, *dw;
} call;

typedef struct shape {
    int64_t heads, kv_heads, width, span, skip;
    bool causal, raster;
    int64_t sequences;
    int64_t queries[MAX_SEQUENCES], keys[MAX_SEQUENCES]; /* keys 0 with queries > 0: as queries */
} shape;

static float *random_floats(int64_t n, uint32_t which)
{
    fv_random random = fv_random_make(5, FV_RANDOM_TEST, which, 0);
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)fv_random_normal(&random);
    return x;
}

static call *make(fv_context *ctx, const shape *s)
{
    call *c = calloc(1, sizeof *c);
    bool cross = false;
    for (int64_t n = 0; n < s->sequences; n++) {
        int64_t keys = s->keys[n] > 0 ? s->keys[n] : s->queries[n];
        c->oq[n + 1] = c->oq[n] + s->queries[n];
        c->ok[n + 1] = c->ok[n] + keys;
        cross |= keys != s->queries[n];
    }
    c->layout = (fv_layout){s->sequences, c->oq, cross ? c->ok : NULL};
    c->t = (fv_toeplitz){ctx,     &c->layout, s->heads,  s->kv_heads, s->width,
                         s->span, s->skip,    s->causal, s->raster};
    c->tq = c->oq[s->sequences], c->tk = c->ok[s->sequences];
    c->ldv = s->kv_heads * s->width + PAD, c->ldy = s->heads * s->width + PAD;
    c->weights = s->heads * (2 * s->span - 1);
    c->w = random_floats(c->weights, 1);
    c->v = random_floats(c->tk * c->ldv, 2);
    c->y = random_floats(c->tq * c->ldy, 3);
    c->dy = random_floats(c->tq * c->ldy, 4);
    c->dv = random_floats(c->tk * c->ldv, 5);
    c->dw = random_floats(c->weights, 6);
    return c;
}

static void drop(call *c)
{
    float *all[] = {c->w, c->v, c->y, c->dy, c->dv, c->dw};
    for (int i = 0; i < FV_COUNT(all); i++)
        free(all[i]);
    free(c);
}

static void *scratch_of(const call *c, bool backward)
{
    size_t bytes = fv_toeplitz_scratch(&c->t, backward);
    void *memory = fv_alloc(c->t.ctx, bytes);
    assert_non_null(memory);
    memset(memory, 0xAA, bytes);
    return memory;
}

static void forward(call *c)
{
    void *scratch = scratch_of(c, false);
    fv_toeplitz_forward(&c->t, c->w, c->v, c->ldv, c->y, c->ldy, scratch);
    fv_free(c->t.ctx, scratch);
}

static void backward(call *c, float *dv, float *dw)
{
    void *scratch = scratch_of(c, true);
    fv_toeplitz_backward(&c->t, c->w, c->v, c->ldv, c->dy, c->ldy, dv, dw, scratch);
    fv_free(c->t.ctx, scratch);
}

/* ---- the dense matrix ------------------------------------------------------------------------------ */

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

static void dense_pair(const call *c, dense *d, int64_t h, int64_t row_i, int64_t row_j, int64_t i, int64_t j)
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

static dense dense_of(const call *c)
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

static void near(double got, double want, double m, const char *what, const call *c, int64_t index)
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

static double passes(const call *c)
{
    return log2(4.0 * (double)FV_MAX(FV_MAX(c->tq, c->tk), (int64_t)2));
}

/* Everything is added to what was there: `before`. */
static void check_rows(const call *c, const float *before, const float *got, const double *want, int64_t rows,
                       int64_t ld, double m, const char *what)
{
    for (int64_t i = 0; i < rows * ld; i++) {
        double was = (double)before[i];
        if (i % ld >= ld - PAD)
            assert_true(memcmp(&before[i], &got[i], sizeof *got) == 0);
        else
            near((double)got[i], was + want[i], m + fabs(was), what, c, i);
    }
}

static float *copy_of(const float *x, int64_t n)
{
    return memcpy(malloc((size_t)(n + 1) * sizeof *x), x, (size_t)n * sizeof *x);
}

static void compare(fv_context *ctx, const shape *s)
{
    call *c = make(ctx, s);
    dense d = dense_of(c);
    float *y = copy_of(c->y, c->tq * c->ldy), *dv = copy_of(c->dv, c->tk * c->ldv),
          *dw = copy_of(c->dw, c->weights);
    /* A raster's entries are sums of two weights, and of R equal ones. */
    double head =
        norm(c->w, c->weights) / sqrt((double)s->heads) * (s->raster ? 2 * sqrt((double)s->span) : 1);
    double v = norm_columns(c->v, c->tk, c->ldv, 0, c->ldv - PAD) / sqrt((double)(c->ldv - PAD)) * 2;
    double out = norm_columns(c->dy, c->tq, c->ldy, 0, c->ldy - PAD) / sqrt((double)(c->ldy - PAD)) * 2;
    double m = passes(c) * head, share = (double)(s->heads / s->kv_heads);
    assert_int_equal(fv_toeplitz_check(&c->t), FV_OK);
    forward(c);
    check_rows(c, y, c->y, d.y, c->tq, c->ldy, m * v, "y");
    backward(c, c->dv, c->dw);
    check_rows(c, dv, c->dv, d.dv, c->tk, c->ldv, m * out * share, "dv");
    double all = passes(c) * v * out * sqrt((double)s->width) * (s->raster ? 2 * sqrt((double)s->span) : 1);
    for (int64_t i = 0; i < c->weights; i++)
        near((double)c->dw[i], (double)dw[i] + d.dw[i], all + fabs((double)dw[i]), "dw", c, i);
    free(y), free(dv), free(dw), free(d.y), free(d.dv), free(d.dw);
    drop(c);
}

/* ---- values ------------------------------------------------------------------------------------------ */

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
            shape s = {.heads = 2, .kv_heads = n % 3 ? 2 : 1, .width = 1 + n % 6, .span = L + n % 4 * 5};
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
        shape s = {.heads = n % 3 == 2 ? 9 : 2, .kv_heads = 1, .width = widths[n / 3], .span = 260};
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
    shape s = {.heads = 4, .kv_heads = 2, .width = 5, .span = 400, .sequences = 5};
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
        shape s = {.heads = 2, .kv_heads = 1 + n % 3 / 2, .width = 3 + n % 4, .span = R, .raster = true};
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
        shape s = {.heads = 1, .kv_heads = 1, .width = 2, .span = R, .raster = true, .sequences = 1};
        s.causal = n % 2, s.queries[0] = R * R;
        call *c = make(ctx, &s);
        int64_t j = tokens[n / 2];
        double m = passes(c) * norm(c->w, c->weights);
        memset(c->v, 0, (size_t)(c->tk * c->ldv) * sizeof(float));
        memset(c->y, 0, (size_t)(c->tq * c->ldy) * sizeof(float));
        c->v[j * c->ldv] = 1, c->v[j * c->ldv + 1] = -3;
        forward(c);
        for (int64_t i = 0; i < R * R; i++) {
            int64_t at[2];
            double T = 0;
            for (int e = entries(&c->t, i, j, at) - 1; e >= 0; e--)
                T += (double)c->w[at[e]];
            near((double)c->y[i * c->ldy], T, 4 * m, "y of one token", c, i);
            near((double)c->y[i * c->ldy + 1], -3 * T, 4 * m, "y of one token", c, i);
        }
        drop(c);
    }
    fv_context_destroy(ctx);
}

/* <dy, T v> = <T^T dy, v> = <dw, w> where sequences have several levels of blocks, or rasters transformed rows. */
static void adjoint_of_long_ones(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int n = 0; n < 6; n++) {
        shape s = {.heads = 2, .kv_heads = 1, .width = 6, .span = n < 4 ? 9000 : 110, .raster = n >= 4};
        s.causal = n % 2, s.skip = n / 2 % 2, s.sequences = 1;
        s.queries[0] = (s.raster ? s.span * s.span : n < 2 ? 8999 : 4500) + s.skip;
        call *c = make(ctx, &s);
        memset(c->y, 0, (size_t)(c->tq * c->ldy) * sizeof(float));
        memset(c->dv, 0, (size_t)(c->tk * c->ldv) * sizeof(float));
        memset(c->dw, 0, (size_t)c->weights * sizeof(float));
        forward(c);
        backward(c, c->dv, c->dw);
        double by_y = 0, by_v = 0, by_w = 0, m = 0;
        for (int64_t i = 0; i < c->tq * c->ldy; i++)
            by_y += i % c->ldy < c->ldy - PAD ? (double)c->y[i] * (double)c->dy[i] : 0;
        for (int64_t i = 0; i < c->tk * c->ldv; i++)
            by_v += i % c->ldv < c->ldv - PAD ? (double)c->dv[i] * (double)c->v[i] : 0;
        for (int64_t i = 0; i < c->weights; i++)
            by_w += (double)c->dw[i] * (double)c->w[i];
        m = norm(c->dy, c->tq * c->ldy) * norm(c->y, c->tq * c->ldy);
        near(by_v, by_y, m, "<dv, v>", c, 0);
        near(by_w, by_y, m, "<dw, w>", c, 0);
        drop(c);
    }
    fv_context_destroy(ctx);
}

/* ---- to the bit -------------------------------------------------------------------------------------- */

static void same(const call *c, const float *a, const float *b, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s%s differs at %lld of %lld: %.9g and %.9g", what, c->t.raster ? " of a raster" : "",
                     (long long)i, (long long)n, (double)a[i], (double)b[i]);
}

static const float intruders[] = {3.0f, 1e30f, FLT_MAX, INFINITY, -INFINITY, NAN};

static void later_tokens_change_nothing(fv_context *ctx, const shape *s, int64_t step)
{
    call *c = make(ctx, s);
    float *start = copy_of(c->y, c->tq * c->ldy), *v = copy_of(c->v, c->tk * c->ldv);
    forward(c);
    float *y = copy_of(c->y, c->tq * c->ldy);
    for (int64_t t = 1; t < c->tk; t += step) {
        for (int n = 0; n < FV_COUNT(intruders); n++) {
            memcpy(c->v, v, (size_t)(c->tk * c->ldv) * sizeof *v);
            memcpy(c->y, start, (size_t)(c->tq * c->ldy) * sizeof *y);
            for (int64_t i = t * c->ldv; i < c->tk * c->ldv; i++)
                c->v[i] = n % 2 == 0 || i % 3 ? intruders[n] : -c->v[i];
            forward(c);
            same(c, y, c->y, t * c->ldy, "y before changed tokens");
        }
    }
    free(start), free(v), free(y);
    drop(c);
}

static void causality(void **state)
{
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    shape s = {.heads = 2, .kv_heads = 1, .width = 5, .span = 2100, .causal = true, .sequences = 1};
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
    shape s = {.heads = 2, .kv_heads = 1, .width = 6, .span = 2500, .causal = true, .sequences = 1};
    s.queries[0] = 2300;
    call *whole = make(ctx, &s);
    float *start = copy_of(whole->y, whole->tq * whole->ldy);
    forward(whole);
    for (int n = 0; n < FV_COUNT(lengths); n++) {
        s.queries[0] = lengths[n];
        call *c = make(ctx, &s); /* begins with the same numbers */
        same(c, start, c->y, c->tq * c->ldy, "the start");
        forward(c);
        same(c, whole->y, c->y, c->tq * c->ldy, "y of a prefix");
        drop(c);
    }
    free(start);
    drop(whole);
    fv_context_destroy(ctx);
}

static void packed_as_alone(void **state)
{
    static const int64_t lengths[] = {5, 300, 0, 130, 300, 193};
    fv_context *ctx = problem_context(NULL, 2);
    (void)state;
    for (int causal = 0; causal < 2; causal++) {
        shape s = {.heads = 2, .kv_heads = 1, .width = 6, .span = 310, .causal = causal != 0, .sequences = 6};
        memcpy(s.queries, lengths, sizeof lengths);
        call *all = make(ctx, &s);
        float *y = copy_of(all->y, all->tq * all->ldy), *dv = copy_of(all->dv, all->tk * all->ldv);
        forward(all);
        backward(all, all->dv, NULL);
        for (int n = 0; n < FV_COUNT(lengths); n++) {
            s.sequences = 1, s.queries[0] = lengths[n];
            call *c = make(ctx, &s);
            int64_t at_y = all->oq[n] * all->ldy, at_v = all->oq[n] * all->ldv;
            size_t ny = (size_t)(c->tq * c->ldy), nv = (size_t)(c->tk * c->ldv);
            memcpy(c->v, all->v + at_v, nv * sizeof(float)),
                memcpy(c->dy, all->dy + at_y, ny * sizeof(float));
            memcpy(c->y, y + at_y, ny * sizeof(float)), memcpy(c->dv, dv + at_v, nv * sizeof(float));
            forward(c);
            backward(c, c->dv, NULL);
            same(c, all->y + at_y, c->y, (int64_t)ny, "y packed and alone");
            same(c, all->dv + at_v, c->dv, (int64_t)nv, "dv packed and alone");
            drop(c);
        }
        free(y), free(dv);
        drop(all);
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
        shape s = {.heads = 1, .kv_heads = 1, .width = 5, .span = L, .causal = n % 2, .sequences = 3};
        s.queries[0] = s.queries[2] = 7, s.queries[1] = L;
        call *c = make(ctx, &s);
        c->v[(7 + at) * c->ldv + 3] = bad[n / 2 % 2];
        c->dy[(7 + at) * c->ldy + 3] = bad[n / 2 % 2];
        forward(c);
        backward(c, c->dv, c->dw);
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
        drop(c);
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
            shape s = {.heads = 12, .kv_heads = 4, .width = 70, .span = 400, .causal = n % 2, .sequences = 5};
            memcpy(s.queries, (int64_t[]){4, 400, 150, 220, 350}, 5 * sizeof s.queries[0]);
            if (n >= 2)
                s.raster = true, s.span = 14, s.sequences = 2, s.queries[0] = s.queries[1] = 196;
            call *a = make(one, &s), *b = make(more, &s);
            forward(a), forward(b);
            backward(a, a->dv, a->dw), backward(b, b->dv, b->dw);
            same(a, a->y, b->y, a->tq * a->ldy, "y with other threads");
            same(a, a->dv, b->dv, a->tk * a->ldv, "dv with other threads");
            same(a, a->dw, b->dw, a->weights, "dw with other threads");
            drop(a), drop(b);
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
        shape s = {.heads = 2, .kv_heads = 1, .width = 6, .span = 300, .causal = n % 2, .sequences = 2};
        s.queries[0] = 300, s.queries[1] = 60;
        if (n >= 2)
            s.raster = true, s.span = 9, s.queries[0] = s.queries[1] = 81;
        call *c = make(ctx, &s);
        float *dv = copy_of(c->dv, c->tk * c->ldv), *dw = copy_of(c->dw, c->weights);
        backward(c, c->dv, c->dw);
        backward(c, dv, NULL);
        backward(c, NULL, dw);
        same(c, c->dv, dv, c->tk * c->ldv, "dv alone");
        same(c, c->dw, dw, c->weights, "dw alone");
        free(dv), free(dw);
        drop(c);
    }
    fv_context_destroy(ctx);
}

/* ---- refusals, work, memory ---------------------------------------------------------------------------- */

static void bad_lengths(void **state)
{
    fv_context *ctx = problem_context(NULL, 1);
    (void)state;
    for (int n = 0; n < 6; n++) {
        shape s = {.heads = 1, .kv_heads = 1, .width = 2, .span = 10, .sequences = 2, .raster = n >= 3};
        s.queries[0] = s.raster ? 102 : 12, s.queries[1] = 0, s.skip = 2;
        if (n % 3 == 1)
            s.queries[0]++;
        if (n % 3 == 2)
            s.keys[0] = s.queries[0] + 1;
        call *c = make(ctx, &s);
        assert_int_equal(fv_toeplitz_check(&c->t), n % 3 ? FV_ERR_FILE : FV_OK);
        drop(c);
    }
    fv_context_destroy(ctx);
}

static double work_of(fv_context *ctx, const shape *s, bool back)
{
    call *c = make(ctx, s);
    counting_reset();
    if (back)
        backward(c, c->dv, c->dw);
    else
        forward(c);
    double work = counting_work();
    drop(c);
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
        shape s = {.heads = 1, .kv_heads = 1, .width = 8, .causal = n % 2, .sequences = 1};
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
        cmocka_unit_test(causality),
        cmocka_unit_test(prefixes),
        cmocka_unit_test(packed_as_alone),
        cmocka_unit_test(poison),
        cmocka_unit_test(threads),
        cmocka_unit_test(gradients_alone),
        cmocka_unit_test(bad_lengths),
        cmocka_unit_test(work),
        cmocka_unit_test(memory),
        cmocka_unit_test(report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
