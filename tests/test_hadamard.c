/* test_hadamard.c: Hadamard projections by fast transforms: the factors are found in drawn rows and in nothing else, the
 * transforms are the dense product within a bound of rounding, forward and transposed, and operators take them exactly where
 * they may. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "features/hadamard.h"
#include "features/projection.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/stream.h"
#include <float.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define EPS (double)FLT_EPSILON

/* ---- rows and factors ---------------------------------------------------------------------------- */

enum { BLOCKS = 2, MOST = 256 };

/* Drawn blocks of d rows and their factors, as one head has them. */
typedef struct drawn {
    int64_t d, m;
    float *w, *work, *arrays[4];
    fv_hadamard h;
} drawn;

static float *floats(int64_t n)
{
    return calloc((size_t)n, sizeof(float));
}

static drawn draw(fv_projection kind, int64_t d, uint64_t seed)
{
    drawn r = {.d = d, .m = BLOCKS * d, .w = floats(BLOCKS * d * d), .work = floats(fv_hadamard_work(d))};
    double *room = calloc((size_t)fv_projection_work((int)kind, r.m, d), sizeof *room);
    assert_true(fv_projection_draw((int)kind, FV_ROW_NORMS_CHI, r.m, d, seed, 0, 0, r.w, room));
    free(room);
    for (int i = 0; i < 4; i++)
        r.arrays[i] = floats((i == 0 ? 3 : 1) * r.m);
    r.h = (fv_hadamard){d, BLOCKS, r.arrays[0], r.arrays[1], r.arrays[2], r.arrays[3]};
    return r;
}

static void free_drawn(drawn *r)
{
    free(r->w), free(r->work);
    for (int i = 0; i < 4; i++)
        free(r->arrays[i]);
}

static bool find(drawn *r)
{
    bool found = true;
    for (int64_t b = 0; b < BLOCKS; b++)
        found &= fv_hadamard_find(ctx->kernels, r->d, r->w + b * r->d * r->d, r->h.signs + 3 * b * r->d,
                                  r->h.lengths + b * r->d, r->work);
    for (int64_t f = 0; f < r->m; f++) {
        float size = (float)pow((double)r->d, -1.5);
        r->h.first[f] = size * r->h.signs[f / r->d * 3 * r->d + 2 * r->d + f % r->d];
        r->h.last[f] = r->h.lengths[f] / size;
    }
    return found;
}

static double norm(int64_t n, const float *x)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sqrt(sum);
}

static double walsh_sign(int64_t i, int64_t j)
{
    return __builtin_popcountll((unsigned long long)(i & j)) % 2 ? -1 : 1;
}

/* Row f of a block by its factors: a product of three matrices, taken from the left. */
static void row_of_factors(const drawn *r, int64_t block, int64_t f, double *row)
{
    const float *signs = r->h.signs + 3 * block * r->d;
    double next[MOST];
    for (int64_t j = 0; j < r->d; j++)
        row[j] = j == f;
    for (int factor = 0; factor < 3; factor++) {
        for (int64_t j = 0; j < r->d; j++) {
            next[j] = 0;
            for (int64_t i = 0; i < r->d; i++)
                next[j] += row[i] * walsh_sign(i, j);
            next[j] *= (double)signs[factor * r->d + j];
        }
        memcpy(row, next, (size_t)r->d * sizeof *row);
    }
}

/* Signs are exact, so an entry errs as its length does: by its rounding, and the row's entries'. */
static void factors_are_those_of_the_rows(void **state)
{
    (void)state;
    for (int64_t d = FV_HADAMARD_LEAST; d <= MOST; d *= 2) {
        for (uint64_t seed = 0; seed < 20; seed++) {
            drawn r = draw(FV_PROJECTION_HADAMARD, d, seed);
            assert_true(find(&r));
            for (int64_t i = 0; i < r.m * 3; i++)
                assert_true(fabsf(r.h.signs[i]) == 1.0f);
            for (int64_t f = 0; f < r.m; f += d / 4 - 1) {
                double row[MOST];
                row_of_factors(&r, f / d, f % d, row);
                double drawn_in_double = 1e-14 * norm(d, r.w + f * d);
                for (int64_t c = 0; c < d; c++) {
                    double want = (double)r.w[f * d + c], got = (double)r.h.lengths[f] * row[c];
                    assert_true(fabs(got - want) <= 2 * EPS * fabs(want) + drawn_in_double);
                }
            }
            free_drawn(&r);
        }
    }
}

/* Rows with one thing wrong. */
static void (*const faults[])(drawn *r);

/* By what the rounding of all entries of a row could be in norm, and again as much. */
static void one_entry(drawn *r)
{
    r->w[r->d * r->d + 5] += (float)(4 * EPS * norm(r->d, r->w + r->d * r->d));
}
static void one_row_turned(drawn *r)
{
    for (int64_t c = 0; c < r->d; c++)
        r->w[7 * r->d + c] *= -1;
}
static void two_rows_exchanged(drawn *r)
{
    for (int64_t c = 0; c < r->d; c++) {
        float a = r->w[3 * r->d + c];
        r->w[3 * r->d + c] = r->w[4 * r->d + c], r->w[4 * r->d + c] = a;
    }
}
static void a_row_of_zeros(drawn *r)
{
    memset(r->w + 9 * r->d, 0, (size_t)r->d * sizeof *r->w);
}
static void not_a_number(drawn *r)
{
    r->w[r->d + 1] = NAN;
}
static void infinite(drawn *r)
{
    r->w[0] = INFINITY;
}
static void all_zeros(drawn *r)
{
    memset(r->w, 0, (size_t)(r->m * r->d) * sizeof *r->w);
}
/* All of D2 equal: W = H D, whose signs are one diagonal. */
static void one_diagonal(drawn *r)
{
    for (int64_t f = 0; f < r->d; f++)
        for (int64_t c = 0; c < r->d; c++)
            r->w[f * r->d + c] = (float)walsh_sign(f, c);
}

static void (*const faults[])(drawn *r) = {one_entry,    one_row_turned, two_rows_exchanged, a_row_of_zeros,
                                           not_a_number, infinite,       all_zeros,          one_diagonal};

static void other_rows_are_refused(void **state)
{
    (void)state;
    for (int64_t d = FV_HADAMARD_LEAST; d <= MOST; d *= 2) {
        drawn haar = draw(FV_PROJECTION_ORTHOGONAL, d, 1);
        assert_false(find(&haar));
        free_drawn(&haar);
        for (int n = 0; n < FV_COUNT(faults); n++) {
            drawn r = draw(FV_PROJECTION_HADAMARD, d, 2);
            faults[n](&r);
            if (find(&r))
                fail_msg("fault %d: taken for a Hadamard projection of %lld channels", n, (long long)d);
            free_drawn(&r);
        }
    }
}

/* ---- products ------------------------------------------------------------------------------------ */

enum { PAD = 3 };

static float canary(void)
{
    return 77.0f;
}

/* n vectors of c, apart; every third has one channel only. */
static float *vectors(int64_t n, int64_t c, double size, uint32_t which)
{
    fv_random random = fv_random_make(4, FV_RANDOM_TEST, which, 0);
    float *x = floats(n * (c + PAD));
    for (int64_t i = 0; i < n; i++)
        for (int64_t f = 0; f < c + PAD; f++)
            x[i * (c + PAD) + f] = f >= c                     ? canary()
                                   : i % 3 == 2 && f != i % c ? 0
                                                              : (float)(size * fv_random_normal(&random));
    return x;
}

/* Three log2 d levels round by half an eps of the norm each; rows, lengths, d^(-3/2), factor and products seven times in
 * all, what they are made of included. */
static double rounding(int64_t d)
{
    return (1.5 * log2((double)d) + 3.5) * EPS;
}

/* u = 0.75 W x, every entry within the bound for |omega_f| |x|. */
static void check_forward(const drawn *r, int64_t n, double size)
{
    int64_t d = r->d, m = r->m, ldx = d + PAD, ldu = m + PAD;
    float *x = vectors(n, d, size, 0), *u = vectors(n, m, 1, 1);
    fv_hadamard_apply(ctx->kernels, &r->h, n, 0.75f, x, ldx, u, ldu, r->work);
    for (int64_t i = 0; i < n; i++) {
        for (int64_t f = 0; f < m; f++) {
            double want = 0, bound = rounding(d) * norm(d, r->w + f * d) * norm(d, x + i * ldx);
            for (int64_t c = 0; c < d; c++)
                want += 0.75 * (double)r->w[f * d + c] * (double)x[i * ldx + c];
            if (!(fabs((double)u[i * ldu + f] - want) <= bound))
                fail_msg("d %lld, row %lld of %lld, feature %lld: %.9g, expected %.9g within %.3g",
                         (long long)d, (long long)i, (long long)n, (long long)f, (double)u[i * ldu + f], want,
                         bound);
        }
        assert_true(u[i * ldu + m] == canary());
        float *alone = floats(m); /* a vector has the bits that it has alone */
        fv_hadamard_apply(ctx->kernels, &r->h, 1, 0.75f, x + i * ldx, ldx, alone, m, r->work);
        assert_memory_equal(alone, u + i * ldu, (size_t)m * sizeof *u);
        free(alone);
    }
    free(x), free(u);
}

/* dx (+)= 0.75 g W, every entry within the bound for the norms of the blocks' lengths times g. */
static void check_back(const drawn *r, int64_t n, double size, bool add)
{
    int64_t d = r->d, m = r->m, ldg = m + PAD, ldx = d + PAD;
    float *g = vectors(n, m, size, 2), *dx = vectors(n, d, size, 3), *was = vectors(n, d, size, 3);
    for (int64_t i = 0; i < n * ldx && !add; i++)
        dx[i] = i % ldx < d ? NAN : canary(); /* not read */
    fv_hadamard_back(ctx->kernels, &r->h, n, 0.75f, g, ldg, add, dx, ldx, r->work);
    for (int64_t i = 0; i < n; i++) {
        double sum = 0;
        for (int64_t f = 0; f < m; f++) {
            double each = norm(d, r->w + f * d) * (double)g[i * ldg + f];
            sum += each * each;
        }
        for (int64_t c = 0; c < d; c++) {
            double before = add ? (double)was[i * ldx + c] : 0, want = before;
            /* Blocks and what was there are added, one rounding each. */
            double bound = (rounding(d) * sqrt(BLOCKS) + EPS) * sqrt(sum) + EPS * fabs(before);
            for (int64_t f = 0; f < m; f++)
                want += 0.75 * (double)g[i * ldg + f] * (double)r->w[f * d + c];
            if (!(fabs((double)dx[i * ldx + c] - want) <= bound))
                fail_msg("d %lld, gradient row %lld of %lld, channel %lld: %.9g, expected %.9g within %.3g",
                         (long long)d, (long long)i, (long long)n, (long long)c, (double)dx[i * ldx + c],
                         want, bound);
        }
        assert_true(dx[i * ldx + d] == canary());
    }
    free(g), free(dx), free(was);
}

static void transforms_are_the_dense_product(void **state)
{
    static const int64_t rows[] = {1, 3, 64, 65};
    static const double sizes[] = {1, 1e-30, 1e36};
    (void)state;
    for (int64_t d = FV_HADAMARD_LEAST; d <= MOST; d *= 2) {
        drawn r = draw(FV_PROJECTION_HADAMARD, d, 3);
        assert_true(find(&r));
        for (int n = 0; n < FV_COUNT(rows) * FV_COUNT(sizes); n++) {
            check_forward(&r, rows[n / 3], sizes[n % 3]);
            check_back(&r, rows[n / 3], sizes[n % 3], n % 2);
        }
        free_drawn(&r);
    }
}

/* ---- operators ----------------------------------------------------------------------------------- */

static fv_kernels below;
static _Atomic int64_t transforms; /* calls */
static _Atomic int64_t products;   /* those of some vectors: blocks are found by transforms of one and of n */

static void counted_walsh(int64_t n, int64_t c, const float *w, const float *x, int64_t ldx, float *y,
                          int64_t ldy)
{
    atomic_fetch_add(&transforms, 1);
    atomic_fetch_add(&products, c > 1 && c < n);
    below.walsh(n, c, w, x, ldx, y, ldy);
}

static bool takes_hadamard(int kind)
{
    return fv_attention_kind_takes(fv_attention_kind_at(kind), "projection", "hadamard");
}

static problem *make(fv_context *with, int kind, int causal, int64_t d, int64_t m, fv_projection projection)
{
    static const int64_t L = 6;
    fv_attention_options o;
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 31};
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind)->name;
    kind_small_options(&o);
    o.heads = 2, o.kv_heads = 1, o.dim = d, o.value_dim = 3, o.causal = causal, o.features = m, o.chunk = 4;
    o.projection = projection;
    if (strcmp(o.kind, "favor-hybrid") == 0)
        o.features_trig = d;
    return problem_make(with, &o, &shape);
}

/* Whole blocks, and rows behind them, against the specification, which knows the dense rows only. */
static void operators_meet_their_specification(void **state)
{
    static const int64_t widths[][2] = {{64, 64}, {64, 70}, {128, 130}};
    fv_context *with = problem_context(NULL, 2);
    (void)state;
    below = *with->kernels;
    with->kernels->walsh = counted_walsh;
    for (int n = 0; n < 2 * FV_COUNT(widths) * fv_attention_kind_count(); n++) {
        int kind = n / (2 * FV_COUNT(widths)), causal = n % 2;
        const int64_t *width = widths[n / 2 % FV_COUNT(widths)];
        if (!kind_runs(kind, causal) || !takes_hadamard(kind))
            continue;
        problem *p = make(with, kind, causal, width[0], width[1], FV_PROJECTION_HADAMARD);
        products = 0;
        problem_forward(p, true);
        assert_true(products > 0);
        products = 0;
        problem_backward(p);
        assert_true(products > 0);
        worst w = problem_check_forward(p), g = problem_check_gradients(p, 1);
        worst_check(&w, kind_row_at(kind)->forward, "by transforms", p);
        worst_check(&g, kind_row_at(kind)->gradient, "gradient by transforms", p);
        problem_free(p);
    }
    fv_context_destroy(with);
}

/* A stream whose chunks go through the transforms and whose steps do not: one meaning, within the specification. */
static void chunks_and_steps_go_together(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        if (!kind_runs(kind, 1) || !takes_hadamard(kind))
            continue;
        problem *p = make(ctx, kind, 1, 64, 70, FV_PROJECTION_HADAMARD);
        size_t bytes;
        char *stream = stream_state(p, p->tq, &bytes);
        stream_run(p, stream, bytes, 0, 2, 2);
        stream_run(p, stream, bytes, 2, 4, 0);
        stream_run(p, stream, bytes, 4, p->tq, 2);
        worst w = problem_check_forward(p);
        worst_check(&w, kind_row_at(kind)->forward, "of chunks and steps", p);
        stream_check(p, stream, p->tq);
        fv_free(ctx, stream);
        problem_free(p);
    }
}

/* The calls of p on rows of another projection are those of an operator that was never promised Hadamard blocks, to the
 * bit. */
static void other_rows_are_applied_densely(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        if (!kind_runs(n / 2, n % 2) || !takes_hadamard(n / 2))
            continue;
        problem *p = make(ctx, n / 2, n % 2, 64, 80, FV_PROJECTION_HADAMARD);
        problem *q = make(ctx, n / 2, n % 2, 64, 80, FV_PROJECTION_ORTHOGONAL);
        memcpy(p->w, q->w, (size_t)p->info.drawn_floats * sizeof *p->w);
        problem_forward(p, true), problem_forward(q, true);
        problem_backward(p), problem_backward(q);
        assert_memory_equal(p->y, q->y, (size_t)(p->tq * problem_row_y(p)) * sizeof *p->y);
        assert_memory_equal(p->dq, q->dq, (size_t)(p->tq * problem_row_q(p)) * sizeof *p->dq);
        assert_memory_equal(p->dk, q->dk, (size_t)(p->tk * problem_row_k(p)) * sizeof *p->dk);
        problem_free(p), problem_free(q);
    }
}

/* Narrow heads, too few rows, learned projections and single tokens are left to the product. */
static void dense_by_shape(void **state)
{
    static const struct {
        int64_t d, m;
        int trained, step;
    } shapes[] = {{32, 64, 0, 0}, {64, 63, 0, 0}, {64, 64, 1, 0}, {64, 64, 0, 1}};
    static const int64_t L = 11;
    fv_context *with = problem_context(NULL, 1);
    (void)state;
    below = *with->kernels;
    with->kernels->walsh = counted_walsh;
    transforms = 0;
    for (int n = 0; n < FV_COUNT(shapes); n++) {
        fv_attention_options o;
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 32};
        fv_attention_options_init(&o);
        o.kind = "favor+", o.heads = 1, o.dim = shapes[n].d, o.features = shapes[n].m, o.causal = 1;
        o.projection = FV_PROJECTION_HADAMARD, o.trainable_projection = shapes[n].trained;
        problem *p = problem_make(with, &o, &shape);
        if (shapes[n].step) {
            fv_attention_io io = problem_io(p);
            void *stream = fv_alloc_zero(with, 1, p->need.state);
            assert_int_equal(fv_attention_step(p->op, 1, &io, stream, p->need.state, p->scratch), FV_OK);
            fv_free(with, stream);
        } else {
            problem_forward(p, true);
            problem_backward(p);
        }
        problem_free(p);
    }
    assert_int_equal(transforms, 0);
    fv_context_destroy(with);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(factors_are_those_of_the_rows),
        cmocka_unit_test(other_rows_are_refused),
        cmocka_unit_test(transforms_are_the_dense_product),
        cmocka_unit_test(operators_meet_their_specification),
        cmocka_unit_test(chunks_and_steps_go_together),
        cmocka_unit_test(other_rows_are_applied_densely),
        cmocka_unit_test(dense_by_shape),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
