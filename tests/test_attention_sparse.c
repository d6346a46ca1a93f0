/* test_attention_sparse.c: what holds for patterns, LSH attention and Linformer alone: special cases that meet exact
 * attention, patterns of many shapes against dense masks, work of the pattern's size, draws, refusals. The laws of
 * all kinds are elsewhere. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/sparse.h"
#include "support/counting.h"
#include "support/one_context.h"
#include "support/problem.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What a test sets beyond the kind; fields as in the options. */
typedef struct pattern {
    const char *kind;
    int64_t window, stride, block, globals, random_blocks;
} pattern;

static fv_attention_options options_of(const pattern *p, int causal)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = p->kind, o.heads = 2, o.kv_heads = 1, o.dim = 4, o.value_dim = 3, o.causal = causal;
    o.window = p->window, o.stride = p->stride, o.block = p->block, o.globals = p->globals;
    o.random_blocks = p->random_blocks;
    o.pattern_seed = 5;
    return o;
}

/* ---- special cases that are exact attention ------------------------------------------------------------ */

static void close_to(const problem *a, const float *x, const float *y, int64_t floats, const char *what)
{
    double most = 0;
    worst w = {0};
    for (int64_t i = 0; i < floats; i++)
        most = fmax(most, fabs((double)y[i]));
    for (int64_t i = 0; i < floats; i++)
        worst_update(&w, (double)x[i], (double)y[i], most, i);
    worst_check(&w, 16, what, a);
}

static void same_as_exact(problem *p, const fv_attention_options *o, const problem_shape *shape)
{
    fv_attention_options exact;
    fv_attention_options_init(&exact);
    exact.kind = "exact", exact.heads = o->heads, exact.kv_heads = o->kv_heads, exact.dim = o->dim;
    exact.value_dim = o->value_dim, exact.causal = o->causal;
    problem *e = problem_make(ctx, &exact, shape);
    problem_forward(p, true);
    problem_backward(p);
    problem_forward(e, true);
    problem_backward(e);
    close_to(p, p->y, e->y, p->tq * problem_row_y(p), "y against exact");
    close_to(p, p->dq, e->dq, p->tq * problem_row_q(p), "dq against exact");
    close_to(p, p->dk, e->dk, p->tk * problem_row_k(p), "dk against exact");
    close_to(p, p->dv, e->dv, p->tk * problem_row_v(p), "dv against exact");
    problem_free(e);
}

static void patterns_that_are_exact(void **state)
{
    static const pattern all[] = {
        {"window", 200, 0, 0, -1, -1}, {"window", 149, 0, 0, -1, -1},    {"strided", -1, 1, 0, -1, -1},
        {"strided", 0, 1, 0, -1, -1},  {"strided", 149, 7, 0, -1, -1},   {"fixed", -1, 0, 150, 1, -1},
        {"fixed", -1, 0, 16, 16, -1},  {"longformer", 149, 0, 0, 0, -1}, {"longformer", 3, 0, 0, 150, -1},
        {"bigbird", -1, 0, 8, 150, 0}, {"bigbird", -1, 0, 75, 0, 0},     {"bigbird", -1, 0, 10, 0, 20},
        {"bigbird", -1, 0, 200, 3, 2},
    };
    const int64_t lengths[] = {150, 1, 20};
    (void)state;
    for (int n = 0; n < 2 * FV_COUNT(all); n++) {
        fv_attention_options o = options_of(&all[n / 2], n % 2);
        problem_shape shape = {FV_COUNT(lengths), lengths, NULL, 0, 0, 31};
        problem *p = problem_make(ctx, &o, &shape);
        same_as_exact(p, &o, &shape);
        problem_free(p);
    }
}

/* k = N = L and E = F = 1. */
static void linformer_of_the_identity_is_exact(void **state)
{
    const int64_t L = 41;
    fv_attention_options o = options_of(&(pattern){"linformer", -1, 0, 0, -1, -1}, 0);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 32};
    (void)state;
    o.projected = o.max_tokens = L;
    problem *p = problem_make(ctx, &o, &shape);
    for (int64_t i = 0; i < 2 * L * L; i++)
        p->input[FV_INPUT_LINFORMER_E][i] = p->input[FV_INPUT_LINFORMER_F][i] = i / L % L == i % L;
    same_as_exact(p, &o, &shape);
    problem_free(p);
}

/* With two buckets a chunk is the whole sequence: every round is attention over all other tokens. */
static void one_chunk_is_attention_to_all_others(void **state)
{
    const int64_t L = 13, d = 4;
    (void)state;
    for (int64_t n = 0; n < 6; n++) {
        fv_attention_options o = options_of(&(pattern){"reformer", -1, 0, 0, -1, -1}, n % 2 == 1);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 33};
        worst w = {0};
        o.heads = 1, o.buckets = 2, o.rounds = 1 + n / 2;
        problem *p = problem_make(ctx, &o, &shape);
        problem_forward(p, false);
        for (int64_t i = 0; i < L; i++) {
            double sum = 0, y[3] = {0}, weight;
            for (int64_t j = 0; j < L; j++) {
                double score = 0, square = 0;
                for (int64_t c = 0; c < d; c++) {
                    score += (double)p->q[i * d + c] * (double)p->q[j * d + c];
                    square += (double)p->q[j * d + c] * (double)p->q[j * d + c];
                }
                bool alone = o.causal && i == 0;
                bool hidden = (i == j && !alone) || (o.causal && j > i);
                weight = hidden ? 0 : exp(score / sqrt(square) / sqrt((double)d));
                sum += weight;
                for (int64_t c = 0; c < 3; c++)
                    y[c] += weight * (double)p->v[j * 3 + c];
            }
            for (int64_t c = 0; c < 3; c++)
                worst_update(&w, (double)p->y[i * 3 + c], y[c] / sum, 4, i * 3 + c);
        }
        worst_check(&w, 8, "one chunk", p);
        problem_free(p);
    }
}

/* ---- patterns against dense masks ------------------------------------------------------------------------ */

static void compare(const fv_attention_options *o, const problem_shape *shape)
{
    problem *p = problem_make(ctx, o, shape);
    problem_forward(p, true);
    problem_backward(p);
    worst forward = problem_check_forward(p), gradient = problem_check_gradients(p, 3);
    worst_check(&forward, 1, "forward", p);
    worst_check(&gradient, 1, "gradient", p);
    problem_free(p);
}

static const pattern shapes[] = {
    {"window", 0, 0, 0, -1, -1},    {"window", 1, 0, 0, -1, -1},    {"window", 10, 0, 0, -1, -1},
    {"strided", -1, 3, 0, -1, -1},  {"strided", 0, 4, 0, -1, -1},   {"strided", 9, 2, 0, -1, -1},
    {"strided", 2, 100, 0, -1, -1}, {"fixed", -1, 0, 5, 2, -1},     {"fixed", -1, 0, 8, 0, -1},
    {"fixed", -1, 0, 3, 3, -1},     {"fixed", -1, 0, 1, 1, -1},     {"longformer", 2, 0, 0, 3, -1},
    {"longformer", 0, 0, 0, 7, -1}, {"longformer", 5, 0, 0, 0, -1}, {"bigbird", -1, 0, 4, 0, 1},
    {"bigbird", -1, 0, 3, 4, 2},    {"bigbird", -1, 0, 2, 5, 0},    {"bigbird", -1, 0, 1, 1, 3},
    {"bigbird", -1, 0, 5, 11, 1},
};

static void patterns_against_masks(void **state)
{
    static const int64_t chunks[] = {0, 1, 3, 8}, lengths[] = {37, 2, 0, 11};
    (void)state;
    for (int n = 0; n < 2 * FV_COUNT(shapes); n++) {
        fv_attention_options o = options_of(&shapes[n / 2], n % 2);
        problem_shape shape = {FV_COUNT(lengths), lengths, NULL, n % 3, 0, (uint64_t)n};
        o.chunk = chunks[n % 7 % 4];
        compare(&o, &shape);
    }
}

static void patterns_across(void **state)
{
    static const int64_t queries[] = {19, 3, 5, 0}, keys[] = {7, 23, 0, 4};
    (void)state;
    for (int n = 0; n < FV_COUNT(shapes); n++) {
        fv_attention_options o = options_of(&shapes[n], 0);
        problem_shape shape = {FV_COUNT(queries), queries, keys, 0, 0, (uint64_t)n};
        o.chunk = n % 2 ? 4 : 0;
        compare(&o, &shape);
    }
}

/* Sequences shorter than the buckets, chunks of one token, partial last chunks, many rounds. */
static void lsh_of_many_shapes(void **state)
{
    static const int64_t lengths[] = {29, 1, 0, 2, 5};
    static const struct {
        int64_t buckets, rounds, chunk;
    } sizes[] = {{2, 1, 0}, {2, 3, 2}, {4, 2, 3}, {6, 1, 1}, {8, 2, 0}, {64, 3, 0}, {10, 2, 5}};
    (void)state;
    for (int n = 0; n < 2 * FV_COUNT(sizes); n++) {
        fv_attention_options o = options_of(&(pattern){"reformer", -1, 0, 0, -1, -1}, n % 2);
        problem_shape shape = {FV_COUNT(lengths), lengths, NULL, n % 3, 0, (uint64_t)(50 + n)};
        o.buckets = sizes[n / 2].buckets, o.rounds = sizes[n / 2].rounds, o.chunk = sizes[n / 2].chunk;
        compare(&o, &shape);
    }
}

/* More and fewer projected rows than tokens; sequences shorter than N, empty ones, cross lengths. */
static void linformer_of_many_shapes(void **state)
{
    static const int64_t queries[] = {9, 1, 4, 0, 17}, keys[] = {7, 21, 0, 3, 17};
    static const int64_t projected[] = {1, 3, 30};
    (void)state;
    for (int n = 0; n < 4 * FV_COUNT(projected); n++) {
        fv_attention_options o = options_of(&(pattern){"linformer", -1, 0, 0, -1, -1}, 0);
        problem_shape shape = {FV_COUNT(queries), queries, n % 2 ? keys : NULL, n % 3, 0, (uint64_t)n};
        o.projected = projected[n / 4], o.max_tokens = n / 2 % 2 ? 21 : 40, o.chunk = n % 3 == 0 ? 4 : 0;
        o.heads = 4, o.kv_heads = 2;
        compare(&o, &shape);
    }
}

/* ---- work ------------------------------------------------------------------------------------------------ */

static double work_of(fv_context *with, const fv_attention_options *o, int64_t L, bool backward)
{
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 34};
    problem *p = problem_make(with, o, &shape);
    problem_forward(p, true);
    counting_reset();
    if (backward)
        problem_backward(p);
    else
        problem_forward(p, false);
    double work = counting_work();
    problem_free(p);
    return work;
}

/* Twice the tokens, and the work of the pattern's pairs: 2 for what is linear in L, less than 3 for the root of L. */
static void work_is_that_of_the_pattern(void **state)
{
    static const struct {
        pattern pattern;
        double limit;
    } rows[] = {
        {{"window", 16, 0, 0, -1, -1}, 2.05}, {{"longformer", 16, 0, 0, 2, -1}, 2.1},
        {{"bigbird", -1, 0, 16, 16, 2}, 2.1}, {{"strided", 16, 64, 0, -1, -1}, 3.0},
        {{"fixed", -1, 0, 64, 2, -1}, 3.0},   {{"linformer", -1, 0, 0, -1, -1}, 2.05},
    };
    fv_context *with = problem_context(NULL, 2);
    fv_kernels below = *with->kernels;
    (void)state;
    counting_table(with->kernels, &below);
    for (int n = 0; n < 4 * FV_COUNT(rows); n++) {
        fv_attention_options o = options_of(&rows[n / 4].pattern, n % 2);
        bool mixes = strcmp(o.kind, "linformer") == 0;
        if (mixes && o.causal)
            continue;
        o.max_tokens = mixes ? 4096 : 0, o.projected = mixes ? 16 : 0;
        double once = work_of(with, &o, 1024, n / 2 % 2), twice = work_of(with, &o, 2048, n / 2 % 2);
        if (!(once > 0 && twice / once <= rows[n / 4].limit))
            fail_msg("%s: work grows by %.3f", o.kind, twice / once);
    }
    fv_context_destroy(with);
}

/* ---- draws ----------------------------------------------------------------------------------------------- */

/* Other blocks, no neighbours, no global ones, none twice; causal: earlier ones, whatever comes behind. */
static void random_blocks(void **state)
{
    (void)state;
    int64_t a[FV_SPARSE_DRAWN], b[FV_SPARSE_DRAWN], other_heads = 0;
    for (int n = 0; n < 2 * 40; n++) {
        fv_attention_options o = options_of(&(pattern){"bigbird", -1, 0, 4, 9, 5}, n % 2);
        int64_t block = n / 2, count = fv_bigbird_draw(&o, 1, block, 40, a);
        int64_t longer = fv_bigbird_draw(&o, 1, block, 60, b);
        for (int64_t i = 0; i < count; i++) {
            assert_true(a[i] >= 2 && a[i] < 40 && llabs(a[i] - block) > 1);
            assert_true(!o.causal || a[i] < block);
            for (int64_t j = 0; j < i; j++)
                assert_true(a[i] != a[j]);
        }
        assert_int_equal(count, o.causal ? FV_MAX(0, FV_MIN(5, block - 3)) : 5);
        if (o.causal) {
            assert_int_equal(longer, count);
            assert_memory_equal(a, b, (size_t)count * sizeof *a);
        }
        assert_int_equal(fv_bigbird_draw(&o, 2, block, 40, b), count);
        other_heads += memcmp(a, b, (size_t)count * sizeof *a) != 0;
    }
    assert_true(other_heads > 40);
}

/* Every block that may be drawn is drawn equally often: 4 standard deviations of 20000 draws of 3 in 33. */
static void random_blocks_are_uniform(void **state)
{
    double seen[40] = {0}, draws = 20000, share = 3.0 / 35;
    int64_t drawn[FV_SPARSE_DRAWN];
    (void)state;
    for (int64_t n = 0; n < (int64_t)draws; n++) {
        fv_attention_options o = options_of(&(pattern){"bigbird", -1, 0, 4, 8, 3}, 0);
        o.pattern_seed = (uint64_t)n;
        for (int64_t i = fv_bigbird_draw(&o, 0, 20, 40, drawn) - 1; i >= 0; i--)
            seen[drawn[i]]++;
    }
    for (int64_t b = 0; b < 40; b++) {
        bool may = b >= 2 && (b < 19 || b > 21);
        double spread = may ? 4 * sqrt(draws * share * (1 - share)) : 0;
        assert_true(fabs(seen[b] - (may ? draws * share : 0)) <= spread);
    }
}

/* ---- LSH at its edges -------------------------------------------------------------------------------------- */

/* k may be missing, and its gradient is left alone. */
static void keys_may_be_missing(void **state)
{
    const int64_t L = 20;
    fv_attention_options o = options_of(&(pattern){"reformer", -1, 0, 0, -1, -1}, 0);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 35};
    (void)state;
    o.kv_heads = 2, o.buckets = 4;
    problem *p = problem_make(ctx, &o, &shape);
    problem_forward(p, true);
    problem_backward(p);
    float *y = malloc((size_t)(L * 6) * sizeof *y), *dq = malloc((size_t)(L * 8) * sizeof *dq);
    memcpy(y, p->y, (size_t)(L * 6) * sizeof *y);
    memcpy(dq, p->dq, (size_t)(L * 8) * sizeof *dq);
    for (int64_t i = 0; i < L * 8; i++)
        assert_true(p->dk[i] == 0);
    fv_attention_io io = problem_io(p);
    fv_attention_grad grad = {.dy = p->dy, .dq = p->dq};
    io.k = NULL;
    memset(p->dq, 0, (size_t)(L * 8) * sizeof *dq);
    assert_int_equal(fv_attention_forward(p->op, &p->layout, &io, p->saved, p->scratch), FV_OK);
    assert_int_equal(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_OK);
    assert_memory_equal(y, p->y, (size_t)(L * 6) * sizeof *y);
    assert_memory_equal(dq, p->dq, (size_t)(L * 8) * sizeof *dq);
    free(y), free(dq);
    problem_free(p);
}

/* Zero vectors have bucket 0, a key of 0 and no gradient as a key; tiny and huge ones are of length 1 as keys. */
static void vectors_of_any_length(void **state)
{
    static const float lengths[] = {0, 1e-30f, 1e18f, 1};
    const int64_t L = 24;
    (void)state;
    for (int n = 0; n < 2 * FV_COUNT(lengths); n++) {
        fv_attention_options o = options_of(&(pattern){"reformer", -1, 0, 0, -1, -1}, n % 2);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 36};
        o.buckets = 4, o.rounds = 2;
        problem *p = problem_make(ctx, &o, &shape);
        for (int64_t i = 0; i < 3 * 8; i++)
            p->q[5 * 8 + i] *= lengths[n / 2];
        problem_forward(p, true);
        problem_backward(p);
        for (int64_t i = 0; i < L * 6; i++)
            assert_true(isfinite(p->y[i]));
        for (int64_t i = 0; i < L * 8; i++)
            assert_true(isfinite(p->dq[i]));
        worst w = problem_check_forward(p);
        worst_check(&w, 1, "vectors of any length", p);
        problem_free(p);
    }
}

/* Causal: while the buckets stay, no bit depends on a later token: twice its length, another value, NaN. */
static void later_values_change_nothing(void **state)
{
    const int64_t L = 60;
    fv_attention_options o = options_of(&(pattern){"reformer", -1, 0, 0, -1, -1}, 1);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 37};
    (void)state;
    o.buckets = 8, o.rounds = 3, o.chunk = 4;
    problem *p = problem_make(ctx, &o, &shape);
    problem_forward(p, false);
    float *y = malloc((size_t)(L * 6) * sizeof *y);
    memcpy(y, p->y, (size_t)(L * 6) * sizeof *y);
    for (int64_t t = L - 1; t > 0; t--) {
        for (int64_t c = 0; c < 8; c++)
            p->q[t * 8 + c] *= 2;
        for (int64_t c = 0; c < 3; c++)
            p->v[t * 3 + c] = t % 3 == 0 ? NAN : t % 3 == 1 ? INFINITY : 1e30f;
        problem_forward(p, false);
        assert_memory_equal(y, p->y, (size_t)(t * 6) * sizeof *y);
    }
    free(y);
    problem_free(p);
}

/* ---- refusals -------------------------------------------------------------------------------------------- */

static void refused(fv_status status, fv_status expected, const char *word)
{
    if (status != expected || strstr(fv_context_message(ctx), word) == NULL)
        fail_msg("status %s (expected %s), message \"%s\" (expected to name \"%s\")", fv_status_name(status),
                 fv_status_name(expected), fv_context_message(ctx), word);
}

static void options_are_refused(void **state)
{
    static const struct {
        pattern pattern;
        const char *word;
    } bad[] = {
        {{"window", -5, 0, 0, -1, -1}, "window"},        {{"window", 3, 4, 0, -1, -1}, "stride"},
        {{"strided", 3, -1, 0, -1, -1}, "stride"},       {{"fixed", -1, 0, 4, 5, -1}, "globals"},
        {{"fixed", -1, 0, -4, 5, -1}, "block"},          {{"fixed", 4, 0, 4, 1, -1}, "window"},
        {{"longformer", 3, 0, 0, -2, -1}, "globals"},    {{"bigbird", -1, 0, 4, 1, 300}, "random_blocks"},
        {{"bigbird", -1, 0, 4, 1, -2}, "random_blocks"}, {{"linformer", -1, 0, 0, -1, -1}, "max_tokens"},
    };
    static const char *const kinds[] = {"window",  "strided",  "fixed",    "longformer",
                                        "bigbird", "reformer", "linformer"};
    fv_attention *op;
    (void)state;
    for (int i = 0; i < FV_COUNT(bad); i++) {
        fv_attention_options o = options_of(&bad[i].pattern, 0);
        refused(fv_attention_create(&op, ctx, &o), FV_ERR_USAGE, bad[i].word);
    }
    for (int i = 0; i < 3 * FV_COUNT(kinds); i++) {
        fv_attention_options o = options_of(&(pattern){kinds[i / 3], -1, 0, 0, -1, -1}, i % 3 == 2);
        static const char *const words[] = {"epsilon", "denominator", "gate"};
        bool mixes = strcmp(o.kind, "linformer") == 0;
        o.max_tokens = mixes ? 9 : 0;
        o.epsilon = i % 3 == 0 ? 1e-3 : -1;
        o.denominator = i % 3 == 1 ? FV_DENOMINATOR_ADD : FV_DENOMINATOR_DEFAULT;
        o.gate = i % 3 == 2;
        refused(fv_attention_create(&op, ctx, &o), FV_ERR_USAGE, o.gate && mixes ? "causal" : words[i % 3]);
    }
}

static void what_baselines_cannot_do(void **state)
{
    static const int64_t five = 5, six = 6;
    fv_attention_options o = options_of(&(pattern){"linformer", -1, 0, 0, -1, -1}, 1);
    problem_shape shape = {.sequences = 1, .queries = &six, .seed = 38};
    int64_t row = 0;
    fv_attention *op;
    (void)state;
    o.max_tokens = five;
    refused(fv_attention_create(&op, ctx, &o), FV_ERR_USAGE, "mixes all positions");
    o.causal = 0;
    problem *p = problem_make(ctx, &o, &shape);
    fv_attention_io io = problem_io(p);
    fv_attention_grad grad = {.dy = p->dy};
    refused(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_FILE, "linformer_e");
    refused(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_ERR_FILE,
            "linformer_e");
    refused(fv_attention_weights(p->op, &p->layout, &io, &row, 1, p->dq, p->scratch), FV_ERR_USAGE, "mix");
    problem_free(p);

    o = options_of(&(pattern){"reformer", -1, 0, 0, -1, -1}, 0);
    o.buckets = 7;
    refused(fv_attention_create(&op, ctx, &o), FV_ERR_USAGE, "buckets");
    o.buckets = 8;
    shape.keys = &five;
    p = problem_make(ctx, &o, &shape);
    io = problem_io(p);
    grad.dy = p->dy;
    refused(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_USAGE, "as many keys");
    refused(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_ERR_USAGE,
            "as many keys");
    refused(fv_attention_weights(p->op, &p->layout, &io, &row, 1, p->dq, p->scratch), FV_ERR_USAGE,
            "as many keys");
    problem_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_that_are_exact),
        cmocka_unit_test(linformer_of_the_identity_is_exact),
        cmocka_unit_test(one_chunk_is_attention_to_all_others),
        cmocka_unit_test(patterns_against_masks),
        cmocka_unit_test(patterns_across),
        cmocka_unit_test(lsh_of_many_shapes),
        cmocka_unit_test(linformer_of_many_shapes),
        cmocka_unit_test(work_is_that_of_the_pattern),
        cmocka_unit_test(random_blocks),
        cmocka_unit_test(random_blocks_are_uniform),
        cmocka_unit_test(keys_may_be_missing),
        cmocka_unit_test(vectors_of_any_length),
        cmocka_unit_test(later_values_change_nothing),
        cmocka_unit_test(options_are_refused),
        cmocka_unit_test(what_baselines_cannot_do),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
