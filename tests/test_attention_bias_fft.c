/* test_attention_bias_fft.c: position bias kernel by transforms: against the specification, in range where they are chosen, and
 * what they cost. Laws that hold for every way it is built: test_attention_bias.c. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/mechanism.h"
#include "support/counting.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/problem.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { NEVER = 1 << 30 }; /* tokens: tiles */

static fv_attention_options options_of(const char *kind, int causal, int64_t span, int64_t fft, int64_t chunk)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = kind, o.heads = 4, o.kv_heads = 2, o.dim = 8, o.value_dim = 5, o.features = 16,
    o.causal = causal;
    o.position_bias = FV_POSITION_BIAS_KERNEL, o.position_span = span, o.position_fft = fft, o.chunk = chunk;
    return o;
}

/* ---- against the specification ------------------------------------------------------------------------- */

/* The error of a transform is log2 of its size times that of a sum (fft.h), where weights are of one size. Gradients are taken in random
 * directions only: that of a weight which few pairs have may be far smaller than what its transform holds. */
static void check(const fv_attention_options *o, const problem_shape *shape)
{
    problem *p = problem_make(ctx, o, shape);
    const kind_row *row = kind_row_of(o->kind);
    const double more = log2(2 * 21);
    for (int64_t i = 0; i < p->input_floats[FV_INPUT_POSITION_BIAS]; i++)
        p->input[FV_INPUT_POSITION_BIAS][i] *= 0.5f;
    problem_forward(p, true);
    problem_backward(p);
    worst forward = problem_check_forward(p), gradient = problem_check_gradients(p, 1);
    worst_check(&forward, more * row->forward, "forward", p);
    worst_check(&gradient, more * row->gradient, "gradient", p);
    problem_free(p);
}

/* Some sequences, with keys of their own for some; in transforms from 1 token on and from more. Causal: rows from 4 on, blocks of 1
 * and 2 and their levels, partly filled ones too; values without a partner. */
static void every_kind(void **state)
{
    static const int64_t lengths[] = {0, 9, 1, 21}, keys[] = {3, 7, 0, 14};
    static const int64_t from[] = {1, 1, 8, 5, 4, 9}, chunks[] = {0, 1, 0, 1, 5, 2};
    (void)state;
    for (int kind = 0; kind < fv_attention_kind_count(); kind++) {
        for (int n = 0; n < FV_COUNT(chunks); n++) {
            fv_attention_options o =
                options_of(fv_attention_kind_at(kind)->name, n % 2, 21 + n % 3, from[n], chunks[n]);
            problem_shape shape = {FV_COUNT(lengths), lengths, n == 4 ? keys : NULL,
                                   n % 3 ? 2 : 0,     0,       (uint64_t)n};
            o.kv_heads = n % 3 ? 2 : 4, o.dim = 3, o.value_dim = 1 + n % 4, o.features = 4;
            if (kind_has(kind,
                         KIND_CANCELS)) /* else one row's gradient may outweigh all others by any factor */
                o.denominator = FV_DENOMINATOR_CLAMP, o.denominator_value = 1;
            if (fv_mechanism_find(o.kind)->map != NULL)
                check(&o, &shape);
        }
    }
}

/* More features than a block has, and more values than a batch. */
static void wide(void **state)
{
    const int64_t L = 21;
    (void)state;
    for (int n = 0; n < 4; n++) {
        fv_attention_options o = options_of(n / 2 ? "relu" : "favor+", n % 2, L, 3, 1);
        o.heads = o.kv_heads = 1, o.dim = n / 2 ? 70 : 4, o.value_dim = n / 2 ? 3 : 131;
        o.features = n / 2 ? 0 : 66;
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)n};
        check(&o, &shape);
    }
}

/* ---- which pairs go through transforms ----------------------------------------------------------------- */

/* Long enough for transforms unasked, whose causal blocks are 600 tokens with tiles of 150: those of 2300 tokens. */
enum { LONG = 2500, FROM = 2300, TILE = 150 };

/* y, all weights times `size` and those of offset 2 times more. */
static float *outputs_of(int64_t fft, int causal, double size, float more)
{
    const int64_t L = LONG, span = L + 1;
    fv_attention_options o = options_of("favor+", causal, span, fft, TILE);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 18};
    problem *p = problem_make(ctx, &o, &shape);
    for (int64_t i = 0; i < p->input_floats[FV_INPUT_POSITION_BIAS]; i++) {
        float *w = p->input[FV_INPUT_POSITION_BIAS] + i;
        *w = i % (2 * span - 1) == span + 1 ? *w * (float)size * more : *w * (float)size;
    }
    problem_forward(p, false);
    size_t bytes = (size_t)(L * problem_row_y(p)) * sizeof(float);
    float *y = memcpy(malloc(bytes), p->y, bytes);
    problem_free(p);
    return y;
}

static void check_same(int64_t a, int64_t b, double size, float more, bool same)
{
    for (int causal = 0; causal < 2; causal++) {
        float *x = outputs_of(a, causal, size, more), *y = outputs_of(b, causal, size, more);
        assert_int_equal(memcmp(x, y, (size_t)(LONG * 4 * 5) * sizeof *x) == 0, same);
        free(x), free(y);
    }
}

/* Unasked where weights are of similar size; what no transform can hold goes in tiles even if asked. */
static void the_choice(void **state)
{
    (void)state;
    check_same(NEVER, FROM, 0.5, 1, false);
    check_same(0, FROM, 0.5, 1, true);
    check_same(0, NEVER, 10, 1, true);
    check_same(FROM, NEVER, 10, 1, false);
    check_same(0, NEVER, 0.5, INFINITY, true);
    check_same(FROM, NEVER, 0.5, NAN, true);
}

/* All weight of a row on a key that it weighs 63 times less than the root mean square of the weights: an error of the transform counts
 * that much more (docs/NUMERICS.md). One key has a feature of 1, the others of 2^-40; all weights are 1 but one. */
static void the_worst_choice(void **state)
{
    const int64_t L = 700, span = L, n = 2 * span - 1;
    float *y[2];
    (void)state;
    for (int by = 0; by < 2; by++) {
        fv_attention_options o = options_of("relu", 0, span, by ? NEVER : 0, 0);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 19};
        o.heads = o.kv_heads = o.dim = o.value_dim = 1, o.features = 0, o.epsilon = 0;
        problem *p = problem_make(ctx, &o, &shape);
        for (int64_t i = 0; i < n; i++)
            p->input[FV_INPUT_POSITION_BIAS][i] = i == span + 5 ? logf(63.0f * sqrtf((float)n)) : 0.0f;
        for (int64_t t = 0; t < L; t++)
            p->q[t] = 1.0f, p->k[t] = t == 300 ? 1.0f : 0x1p-40f, p->v[t] = t == 300 ? 0.7f : -1.0f;
        problem_forward(p, false);
        y[by] = memcpy(malloc((size_t)L * sizeof(float)), p->y, (size_t)L * sizeof(float));
        problem_free(p);
    }
    assert_memory_not_equal(y[0], y[1], (size_t)L * sizeof(float));
    double most = 0;
    for (int64_t t = 0; t < L; t++)
        most = fmax(most, fabs((double)y[0][t] - (double)y[1][t]));
    assert_true(most <= 64 * (double)FLT_EPSILON * log2(1536));
    free(y[0]), free(y[1]);
}

/* Queries and keys of all sizes. At 10 the exponents of features are below 2^9, so that a weight errs by 2^9 epsilon, in either way. */
static void sizes(void **state)
{
    static const float of[] = {1e-20f, 10, 1e6f, 1e20f};
    static const char *const kinds[] = {"favor+", "relu"};
    const int64_t L = 45;
    (void)state;
    for (int n = 0; n < 4 * FV_COUNT(of); n++) {
        const float size = of[n / 4];
        float *y[2];
        int64_t floats = 0;
        for (int by = 0; by < 2; by++) {
            fv_attention_options o = options_of(kinds[n / 2 % 2], n % 2, L, by ? NEVER : 1, 1);
            problem_shape shape = {.sequences = 1, .queries = &L, .seed = 24};
            problem *p = problem_make(ctx, &o, &shape);
            for (int64_t i = 0; i < L * problem_row_q(p); i++)
                p->q[i] *= size;
            for (int64_t i = 0; i < L * problem_row_k(p); i++)
                p->k[i] *= size;
            problem_forward(p, true);
            problem_backward(p);
            floats = L * problem_row_y(p);
            for (int64_t i = 0; i < L * problem_row_q(p); i++)
                assert_true(isfinite(p->dq[i]));
            y[by] = memcpy(malloc((size_t)floats * sizeof(float)), p->y, (size_t)floats * sizeof(float));
            problem_free(p);
        }
        for (int64_t i = 0; i < floats; i++) {
            assert_true(isfinite(y[0][i]));
            if (size <= 10)
                assert_true(fabsf(y[0][i] - y[1][i]) <= 4 * 512 * FLT_EPSILON * 4);
        }
        free(y[0]), free(y[1]);
    }
}

/* ---- laws ---------------------------------------------------------------------------------------------- */

/* A longer causal sequence begins like a shorter one, which has no transforms or fewer; also where its last weight, which the others
 * do not have, keeps all of it in tiles. */
static void prefixes(void **state)
{
    static const int64_t lengths[] = {1, 15, 16, 17, 20, 32, 33, 60, 64, 65, 100, 128};
    const int64_t L = 129, span = L;
    (void)state;
    for (int n = 0; n < 3; n++) {
        fv_attention_options o = options_of(n ? "relu" : "favor+", 1, span, 16, 4);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 21};
        problem *whole = problem_make(ctx, &o, &shape);
        for (int64_t h = 0; h < 4 && n == 2; h++)
            whole->input[FV_INPUT_POSITION_BIAS][h * (2 * span - 1) + 2 * span - 2] = NAN;
        problem_forward(whole, false);
        fv_attention_io io = problem_io(whole);
        io.y = malloc((size_t)(L * problem_row_y(whole)) * sizeof *io.y);
        for (int i = 0; i < FV_COUNT(lengths); i++) {
            int64_t offsets[] = {0, lengths[i]};
            fv_layout layout = {1, offsets, NULL};
            assert_int_equal(fv_attention_forward(whole->op, &layout, &io, NULL, whole->scratch), FV_OK);
            assert_memory_equal(io.y, whole->y, (size_t)(lengths[i] * problem_row_y(whole)) * sizeof *io.y);
        }
        free(io.y);
        problem_free(whole);
    }
}

/* One bit for each entry of y and the gradients that is not finite. */
static unsigned *patterns(int n, int64_t fft)
{
    const int64_t L = 45, at = 13;
    fv_attention_options o = options_of("favor+", n % 2, L, fft, 1);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 20};
    problem *p = problem_make(ctx, &o, &shape);
    float *inputs[] = {p->q + at * problem_row_q(p), p->k + at * problem_row_k(p),
                       p->v + at * problem_row_v(p), p->dy + at * problem_row_y(p)};
    inputs[n / 4][1] = n / 2 % 2 ? NAN : INFINITY;
    problem_forward(p, true);
    problem_backward(p);
    const float *outputs[] = {p->y, p->dq, p->dk, p->dv};
    int64_t floats[] = {L * problem_row_y(p), L * problem_row_q(p), L * problem_row_k(p),
                        L * problem_row_v(p)};
    unsigned *seen = calloc((size_t)(L * problem_row_q(p)), sizeof *seen);
    for (int i = 0; i < FV_COUNT(outputs); i++)
        for (int64_t j = 0; j < floats[i]; j++)
            seen[j] |= isfinite(outputs[i][j]) ? 0 : 1U << i;
    problem_free(p);
    return seen;
}

/* What is not finite reaches the entries that it reaches in tiles of one token. */
static void not_finite(void **state)
{
    (void)state;
    for (int n = 0; n < 16; n++) {
        unsigned *tiles = patterns(n, NEVER), *transforms = patterns(n, 1);
        assert_memory_equal(tiles, transforms, 45 * 4 * 8 * sizeof *tiles);
        free(tiles), free(transforms);
    }
}

/* ---- cost ---------------------------------------------------------------------------------------------- */

static double work_of(fv_context *with, int64_t L, int causal, bool back)
{
    fv_attention_options o = options_of("relu", causal, L, 64, 16);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 22};
    problem *p = problem_make(with, &o, &shape);
    problem_forward(p, true);
    counting_reset();
    if (back)
        problem_backward(p);
    else
        problem_forward(p, true);
    double work = counting_work();
    problem_free(p);
    return work;
}

/* O(L log L): transforms of 2 L rows. Causal, blocks of 16: the sum of log2 2m over levels m is 5 + ... + 10 for 1024 tokens, + 13 for
 * 8192. Tiles would be 64 times the work. */
static void work(void **state)
{
    const double most[] = {8.0 * 14 / 11, 8.0 * 81 / 45};
    fv_context *counted = problem_context(NULL, 2);
    fv_kernels below = *counted->kernels;
    (void)state;
    counting_table(counted->kernels, &below);
    *counted->exact = *counted->kernels;
    for (int n = 0; n < 4; n++)
        assert_true(work_of(counted, 8192, n % 2, n / 2) / work_of(counted, 1024, n % 2, n / 2) <=
                    most[n % 2]);
    fv_context_destroy(counted);
}

/* Scratch for two threads. A worker: transforms of at most 3 L rows of 128 floats, two of them; 16 features of each side and their
 * gradients; rows of values (4) and of one float (5); the table of its head and its gradient. For all: filters of four heads, their
 * gradients, twiddle factors; the heads' weights and their gradients. */
static void memory(void **state)
{
    const double worker = 2 * 128 * 3 + 4 * 16 + 4 * 5 + 5 + 2 * 2, all = 4 * 2 * 2 * 3 + 2 * 3 + 4 * 2 * 2;
    (void)state;
    for (int n = 0; n < 2; n++) {
        for (int64_t L = 20000; L < 2000000; L = L * 3 / 2) {
            fv_attention_options o = options_of("favor+", n, L, 0, 0);
            int64_t offsets[] = {0, L};
            fv_layout layout = {1, offsets, NULL};
            fv_attention *op;
            fv_memory need;
            assert_int_equal(fv_attention_create(&op, ctx, &o), FV_OK);
            assert_int_equal(fv_attention_measure(op, &layout, &need), FV_OK);
            assert_true((double)need.scratch <= 4 * (2 * worker + all) * (double)L + 8e6);
            fv_attention_destroy(op);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind),       cmocka_unit_test(wide),  cmocka_unit_test(the_choice),
        cmocka_unit_test(the_worst_choice), cmocka_unit_test(sizes), cmocka_unit_test(prefixes),
        cmocka_unit_test(not_finite),       cmocka_unit_test(work),  cmocka_unit_test(memory),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
