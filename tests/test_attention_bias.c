/* test_attention_bias.c: relative positions inside the kernel, against the specification, and what holds for them to the bit. */
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

static void check(const fv_attention_options *o, const problem_shape *shape, double size)
{
    problem *p = problem_make(ctx, o, shape);
    const kind_row *row = kind_row_of(o->kind);
    for (int64_t i = 0; i < p->input_floats[FV_INPUT_POSITION_BIAS]; i++)
        p->input[FV_INPUT_POSITION_BIAS][i] *= (float)size;
    problem_forward(p, true);
    problem_backward(p);
    worst forward = problem_check_forward(p), gradient = problem_check_gradients(p, 8);
    worst rows = problem_check_rows(p);
    worst_check(&forward, row->forward, "forward", p);
    worst_check(&gradient, row->gradient, "gradient", p);
    worst_check(&rows, row->forward, "rows", p);
    problem_free(p);
}

/* Some sequences, with keys of their own for every other bidirectional one. */
static void small_shapes(fv_attention_options *o, int n, double size)
{
    static const int64_t lengths[] = {0, 9, 1, 13}, keys[] = {3, 7, 0, 14};
    o->heads = 4, o->kv_heads = n % 3 ? 2 : 4, o->dim = 3, o->features = 4;
    o->causal = n % 2;
    o->position_bias = FV_POSITION_BIAS_KERNEL, o->position_span = 14 + n % 3;
    problem_shape shape = {FV_COUNT(lengths), lengths, !o->causal && n > 1 ? keys : NULL,
                           n % 2 ? 2 : 0,     0,       (uint64_t)n};
    check(o, &shape, size);
}

static void against_the_specification(void **state)
{
    static const int64_t chunks[] = {4, 4, 0, 1, 5, 5, 1};
    (void)state;
    for (int kind = 0; kind < fv_attention_kind_count(); kind++) {
        for (int n = 0; n < FV_COUNT(chunks); n++) {
            fv_attention_options o;
            fv_attention_options_init(&o);
            o.kind = fv_attention_kind_at(kind)->name, o.value_dim = 2, o.chunk = chunks[n];
            if (!fv_mechanism_find(o.kind)->position_kernel)
                break;
            /* A row to which most keys give nothing may have only far smaller weights. */
            small_shapes(&o, n, n >= 4 && !kind_has(kind, KIND_EMPTY) ? 60 : 1);
        }
    }
}

/* ---- laws ---------------------------------------------------------------------------------------- */

/* The ways it is built: added to scores, multiplied into tiles of features, and by transforms (position_fft, chunk). */
typedef struct way {
    const char *kind;
    int64_t fft, chunk;
} way;
static const way built[] = {{"exact", 0, 0}, {"favor+", 0, 0}, {"favor+", 5, 4}, {"relu", 20, 16}};

static fv_attention_options options_of(const way *by, int causal, int64_t span)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.position_fft = by->fft, o.chunk = by->chunk;
    o.kind = by->kind, o.heads = 4, o.kv_heads = 2, o.dim = 8, o.value_dim = 5, o.features = 16,
    o.causal = causal;
    o.position_bias = FV_POSITION_BIAS_KERNEL, o.position_span = span;
    return o;
}

/* Several tiles as large as they are by default, the last ones partly filled. */
static void tiles_as_they_are(void **state)
{
    static const int64_t lengths[] = {150, 20}, keys[] = {20, 290};
    (void)state;
    for (int n = 0; n < 3 * FV_COUNT(built); n++) {
        fv_attention_options o = options_of(&built[n / 3], n % 3 == 1, n % 3 == 2 ? 290 : 151);
        o.heads = 2, o.kv_heads = 1, o.dim = 4, o.value_dim = 3, o.features = 6;
        problem_shape shape = {FV_COUNT(lengths), lengths, n % 3 == 2 ? keys : NULL, 0, 0, (uint64_t)n};
        check(&o, &shape, 1);
    }
}

static void same_bits(const float *a, const float *b, int64_t floats, const char *what, const problem *p)
{
    for (int64_t i = 0; i < floats; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0)
            fail_msg("%s %s: %s differs at %lld of %lld: %.9g and %.9g", p->info.options.kind,
                     p->info.options.causal ? "causal" : "bidirectional", what, (long long)i,
                     (long long)floats, (double)a[i], (double)b[i]);
}

static float *copy_of(const float *x, int64_t floats)
{
    float *copy = malloc((size_t)floats * sizeof *copy);
    return memcpy(copy, x, (size_t)floats * sizeof *copy);
}

/* Fills token t of q, k and v, and the weights of all later keys, with x. */
static void intrude(problem *p, int64_t t, float x)
{
    for (int64_t c = 0; c < problem_row_q(p); c++)
        p->q[t * problem_row_q(p) + c] = x;
    for (int64_t c = 0; c < problem_row_k(p); c++)
        p->k[t * problem_row_k(p) + c] = c % 2 ? -x : x;
    for (int64_t c = 0; c < problem_row_v(p); c++)
        p->v[t * problem_row_v(p) + c] = c % 3 ? x : 1;
    int64_t span = p->info.options.position_span;
    for (int64_t h = 0; h < p->info.options.heads; h++)
        for (int64_t i = 0; i < span - 1; i++) /* offsets i - j < 0 */
            p->input[FV_INPUT_POSITION_BIAS][h * (2 * span - 1) + i] = x;
}

static void later_tokens_change_nothing(const way *by, int64_t L, int64_t chunk, int64_t step)
{
    static const float intruders[] = {3.0f, FLT_MAX, INFINITY, -INFINITY, NAN};
    fv_attention_options o = options_of(by, 1, L + 1);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 3};
    o.chunk = by->fft > 0 ? by->chunk : chunk;
    problem *p = problem_make(ctx, &o, &shape);
    int64_t row = problem_row_y(p);
    problem_forward(p, false);
    float *y = copy_of(p->y, L * row), *q = copy_of(p->q, L * problem_row_q(p));
    float *k = copy_of(p->k, L * problem_row_k(p)), *v = copy_of(p->v, L * problem_row_v(p));
    for (int64_t t = 1; t < L; t += step) {
        for (int n = 0; n < FV_COUNT(intruders); n++) {
            intrude(p, t, intruders[n]);
            problem_forward(p, false);
            same_bits(y, p->y, t * row, "y before a changed token", p);
            memcpy(p->q, q, (size_t)(L * problem_row_q(p)) * sizeof *q);
            memcpy(p->k, k, (size_t)(L * problem_row_k(p)) * sizeof *k);
            memcpy(p->v, v, (size_t)(L * problem_row_v(p)) * sizeof *v);
        }
    }
    free(y), free(q), free(k), free(v);
    problem_free(p);
}

static void causality(void **state)
{
    (void)state;
    for (int n = 0; n < FV_COUNT(built); n++) {
        later_tokens_change_nothing(&built[n], 21, 4, 1);
        later_tokens_change_nothing(&built[n], 300, 0, 67);
    }
}

static problem *run_with(fv_context *with, const way *by, int causal)
{
    static const int64_t lengths[] = {200, 3, 0, 77};
    fv_attention_options o = options_of(by, causal, 203);
    problem_shape shape = {FV_COUNT(lengths), lengths, NULL, 0, 0, 14};
    problem *p = problem_make(with, &o, &shape);
    problem_forward(p, true);
    problem_backward(p);
    return p;
}

static void same_gradients(const problem *a, const problem *b, const char *what)
{
    same_bits(a->dq, b->dq, a->tq * problem_row_q(a), what, a);
    same_bits(a->dk, b->dk, a->tk * problem_row_k(a), what, a);
    same_bits(a->dv, b->dv, a->tk * problem_row_v(a), what, a);
}

static void threads(void **state)
{
    (void)state;
    fv_context *single = problem_context(NULL, 1);
    for (int n = 0; n < 2 * FV_COUNT(built); n++) {
        problem *a = run_with(ctx, &built[n / 2], n % 2), *b = run_with(single, &built[n / 2], n % 2);
        same_bits(a->y, b->y, a->tq * problem_row_y(a), "y of one thread", a);
        same_gradients(a, b, "a gradient of one thread");
        same_bits(a->d_input[FV_INPUT_POSITION_BIAS], b->d_input[FV_INPUT_POSITION_BIAS],
                  a->input_floats[FV_INPUT_POSITION_BIAS], "the bias's gradient of one thread", a);
        problem_free(a);
        problem_free(b);
    }
    fv_context_destroy(single);
}

/* Gradients asked for alone are those asked for together, though the work is cut in another way. */
static void gradients_alone(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * FV_COUNT(built); n++) {
        problem *a = run_with(ctx, &built[n / 2], n % 2), *b = run_with(ctx, &built[n / 2], n % 2);
        fv_attention_io io = problem_io(b);
        int64_t floats = b->input_floats[FV_INPUT_POSITION_BIAS];
        float *d_bias = b->d_input[FV_INPUT_POSITION_BIAS];
        b->d_input[FV_INPUT_POSITION_BIAS] = NULL;
        problem_backward(b);
        same_gradients(a, b, "a gradient beside none of the bias");
        fv_attention_grad grad = {.dy = b->dy};
        grad.d_input[FV_INPUT_POSITION_BIAS] = b->d_input[FV_INPUT_POSITION_BIAS] = d_bias;
        memset(d_bias, 0, (size_t)floats * sizeof *d_bias);
        assert_int_equal(fv_attention_backward(b->op, &b->layout, &io, &grad, b->saved, b->scratch), FV_OK);
        same_bits(a->d_input[FV_INPUT_POSITION_BIAS], d_bias, floats, "the bias's gradient alone", a);
        problem_free(a);
        problem_free(b);
    }
}

static void packed_as_alone(const way *by, int causal)
{
    fv_attention_options o = options_of(by, causal, 203);
    problem *all = run_with(ctx, by, causal);
    for (int64_t s = 0; s < all->layout.sequences; s++) {
        int64_t at = all->offsets_q[s], n = all->offsets_q[s + 1] - at;
        problem_shape shape = {1, &n, NULL, 0, 0, 14};
        problem *alone = problem_make(ctx, &o, &shape);
        int64_t q = problem_row_q(all), k = problem_row_k(all), v = problem_row_v(all),
                y = problem_row_y(all);
        memcpy(alone->q, all->q + at * q, (size_t)(n * q) * sizeof(float));
        memcpy(alone->k, all->k + at * k, (size_t)(n * k) * sizeof(float));
        memcpy(alone->v, all->v + at * v, (size_t)(n * v) * sizeof(float));
        memcpy(alone->dy, all->dy + at * y, (size_t)(n * y) * sizeof(float));
        problem_forward(alone, true);
        problem_backward(alone);
        same_bits(alone->y, all->y + at * y, n * y, "y packed and alone", all);
        same_bits(alone->dq, all->dq + at * q, n * q, "dq packed and alone", all);
        same_bits(alone->dk, all->dk + at * k, n * k, "dk packed and alone", all);
        same_bits(alone->dv, all->dv + at * v, n * v, "dv packed and alone", all);
        problem_free(alone);
    }
    problem_free(all);
}

static void packing(void **state)
{
    (void)state;
    for (int n = 0; n < 2 * FV_COUNT(built); n++)
        packed_as_alone(&built[n / 2], n % 2);
}

/* What no pair of a causal call weighs has gradient 0, whatever a sequence holds. */
static void unused_weights(void **state)
{
    const int64_t L = 150, span = 153;
    (void)state;
    for (int n = 0; n < FV_COUNT(built); n++) {
        fv_attention_options o = options_of(&built[n], 1, span);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 17};
        problem *p = problem_make(ctx, &o, &shape);
        p->v[140 * problem_row_v(p)] = NAN;
        problem_forward(p, true);
        problem_backward(p);
        for (int64_t h = 0; h < 4; h++)
            for (int64_t offset = 1 - span; offset < span; offset++)
                if (offset < 0 || offset >= L)
                    assert_true(p->d_input[FV_INPUT_POSITION_BIAS][h * (2 * span - 1) + offset + span - 1] ==
                                0);
        problem_free(p);
    }
}

/* Every call says which tensor is too short, and for which sequence. */
static void too_few_weights(void **state)
{
    static const int64_t lengths[] = {4, 6};
    (void)state;
    for (int n = 0; n < FV_COUNT(built); n++) {
        fv_attention_options o = options_of(&built[n], 1, 5);
        problem_shape shape = {FV_COUNT(lengths), lengths, NULL, 0, 0, 15};
        problem *p = problem_make(ctx, &o, &shape);
        fv_attention_io io = problem_io(p);
        fv_attention_grad grad = {.dy = p->dy, .dq = p->dq};
        float row[4 * 10];
        int64_t first = 0;
        assert_int_equal(fv_attention_forward(p->op, &p->layout, &io, p->saved, p->scratch), FV_ERR_FILE);
        assert_non_null(strstr(fv_context_message(ctx), "position_bias"));
        assert_non_null(strstr(fv_context_message(ctx), "sequence 1 has 6"));
        assert_int_equal(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch),
                         FV_ERR_FILE);
        assert_int_equal(fv_attention_weights(p->op, &p->layout, &io, &first, 1, row, p->scratch),
                         FV_ERR_FILE);
        problem_free(p);
    }
}

/* Weights exp(-inf) hide keys: here those more than 2 tokens back. */
static void hidden_keys(void **state)
{
    const int64_t L = 150, span = 150;
    (void)state;
    for (int chunk = 0; chunk <= 8; chunk += 8) {
        fv_attention_options o = options_of(&built[0], 1, span);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = 16};
        o.chunk = chunk;
        problem *p = problem_make(ctx, &o, &shape);
        fv_attention_io io = problem_io(p);
        for (int64_t h = 0; h < 4; h++)
            for (int64_t offset = 3; offset < span; offset++)
                p->input[FV_INPUT_POSITION_BIAS][h * (2 * span - 1) + offset + span - 1] = -INFINITY;
        problem_forward(p, true);
        problem_backward(p);
        float *row = malloc((size_t)(4 * L) * sizeof *row);
        for (int64_t i = 0; i < L; i++) {
            assert_int_equal(fv_attention_weights(p->op, &p->layout, &io, &i, 1, row, p->scratch), FV_OK);
            for (int64_t j = 0; j < 4 * L; j++)
                assert_true((row[j] > 0) == (j % L <= i && i - j % L <= 2));
        }
        for (int64_t i = 0; i < L * problem_row_y(p); i++)
            assert_true(isfinite(p->y[i]));
        for (int64_t i = 0; i < L * problem_row_q(p); i++)
            assert_true(isfinite(p->dq[i]));
        free(row);
        problem_free(p);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_the_specification),
        cmocka_unit_test(tiles_as_they_are),
        cmocka_unit_test(causality),
        cmocka_unit_test(threads),
        cmocka_unit_test(gradients_alone),
        cmocka_unit_test(packing),
        cmocka_unit_test(unused_weights),
        cmocka_unit_test(too_few_weights),
        cmocka_unit_test(hidden_keys),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
