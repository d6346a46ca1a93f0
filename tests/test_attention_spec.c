/* test_attention_spec.c: every attention kind against its specification: forward, gradients, state. Kinds
 * come from the table; one without a row here fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/problem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static fv_attention_options options_of(const char *kind, int64_t H, int64_t G, int64_t d, int64_t dv)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = kind;
    o.heads = H;
    o.kv_heads = G;
    o.dim = d;
    o.value_dim = dv;
    kind_small_options(&o);
    return o;
}

static const char *name_of(int kind)
{
    return fv_attention_kind_at(kind)->name;
}

/* The largest ratios met, printed at the end: room between them and the constants is what a slip would hide
 * in. */
static worst most_forward, most_gradient;

static void compare(fv_context *ctx, const fv_attention_options *o, const problem_shape *shape,
                    int64_t sample)
{
    const kind_row *row = kind_row_of(o->kind);
    problem *p = problem_make(ctx, o, shape);
    problem_forward(p, true);
    problem_backward(p);
    worst forward = problem_check_forward(p);
    worst_check(&forward, row->forward, "forward", p);
    worst gradient = problem_check_gradients(p, sample);
    worst_check(&gradient, row->gradient, "gradient", p);
    if (forward.ratio > most_forward.ratio)
        most_forward = forward;
    if (gradient.ratio > most_gradient.ratio)
        most_gradient = gradient;
    problem_free(p);
}

static void every_kind_has_a_row_and_a_spec(void **state)
{
    (void)state;
    for (int i = 0; i < fv_attention_kind_count(); i++) {
        assert_non_null(kind_row_at(i));
        assert_true(spec_knows(fv_attention_kind_at(i)->name));
    }
}

/* Every length from 1 to two chunks and one token. */
static void small_lengths(fv_context *ctx, int kind)
{
    for (int64_t L = 1; L <= 9; L++) {
        for (int causal = 0; causal <= kind_runs(kind, 1); causal++) {
            fv_attention_options o = options_of(name_of(kind), 2, 1, 3, 2);
            problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)L};
            o.causal = causal;
            o.chunk = 4;
            o.features = 5;
            compare(ctx, &o, &shape, 2);
        }
    }
}

/* Widths, grouping and lengths around the tile edges. */
static void larger_shapes(fv_context *ctx, int kind, bool all)
{
    static const struct {
        int64_t L, H, G, d, dv, m, chunk, pad;
    } shapes[] = {
        {1, 1, 1, 1, 1, 1, 0, 0},    {2, 3, 3, 1, 5, 3, 1, 3},     {37, 4, 2, 8, 5, 16, 7, 1},
        {21, 6, 2, 5, 17, 9, 3, 16}, {67, 2, 2, 3, 8, 7, 16, 0},   {131, 1, 1, 8, 3, 24, 0, 2},
        {129, 1, 1, 3, 1, 4, 64, 0}, {65, 2, 1, 64, 64, 32, 0, 0},
    };
    for (int i = 0; i < (all ? FV_COUNT(shapes) : 4); i++) {
        for (int causal = 0; causal <= kind_runs(kind, 1); causal++) {
            fv_attention_options o =
                options_of(name_of(kind), shapes[i].H, shapes[i].G, shapes[i].d, shapes[i].dv);
            int64_t L = shapes[i].d == 64 && kind_has(kind, KIND_WIDE) ? 5 : shapes[i].L;
            problem_shape shape = {1, &L, NULL, shapes[i].pad, 0, (uint64_t)(100 + i)};
            o.causal = causal;
            o.chunk = shapes[i].chunk;
            o.features = shapes[i].m;
            compare(ctx, &o, &shape, 1);
        }
    }
}

/* Packed sequences, among them empty ones. */
static void packed(fv_context *ctx, int kind)
{
    static const int64_t lengths[] = {0, 3, 0, 7, 1, 5, 0};
    for (int causal = 0; causal <= kind_runs(kind, 1); causal++) {
        fv_attention_options o = options_of(name_of(kind), 2, 2, 3, 4);
        problem_shape shape = {FV_COUNT(lengths), lengths, NULL, 2, 0, 7};
        o.causal = causal;
        o.chunk = 4;
        o.features = 6;
        compare(ctx, &o, &shape, 3);
    }
}

/* Queries and keys of different lengths; queries without keys give 0. */
static void cross(fv_context *ctx, int kind)
{
    static const int64_t queries[] = {4, 0, 3, 9}, keys[] = {6, 2, 0, 5};
    fv_attention_options o = options_of(name_of(kind), 2, 1, 3, 2);
    problem_shape shape = {FV_COUNT(queries), queries, keys, 0, 0, 8};
    o.chunk = 4;
    o.features = 6;
    compare(ctx, &o, &shape, 3);
}

/* All shapes with the best kernel set; four of them with the others, whose kernels have tests of their own. */
static void all_shapes(fv_context *ctx, bool best)
{
    for (int i = kind_next(-1); i < fv_attention_kind_count(); i = kind_next(i)) {
        larger_shapes(ctx, i, best);
        if (!best)
            continue;
        small_lengths(ctx, i);
        packed(ctx, i);
        if (kind_has(i, KIND_CROSS))
            cross(ctx, i);
    }
}

/* Once with each kernel set of this processor. */
static void shapes_on_every_cpu(void **state)
{
    (void)state;
    char sets[128], *rest = NULL;
    snprintf(sets, sizeof sets, "%s", fv_cpu_sets());
    for (char *cpu = strtok_r(sets, " ", &rest); cpu != NULL; cpu = strtok_r(NULL, " ", &rest)) {
        fv_context *ctx = problem_context(cpu, 2), *best = problem_context(NULL, 1);
        all_shapes(ctx, strcmp(cpu, fv_context_cpu(best)) == 0);
        fv_context_destroy(best);
        assert_int_equal(fv_context_bytes(ctx), 0);
        fv_context_destroy(ctx);
    }
}

/* Every guard of the normaliser, on both of its sides, and every projection. */
static void guards_and_projections(void **state)
{
    static const double constants[] = {0, 1e-3, 0.5, 20};
    int64_t L = 9;
    fv_context *ctx = problem_context(NULL, 2);
    static const char *const kinds[] = {"relu", "favor+", "tanh"}; /* plain, exponential, signed */
    for (int n = 0; n < 3 * 2 * 3 * 6 * 4; n++) {
        const char *kind = kinds[n % 3];
        fv_attention_options o = options_of(kind, 2, 1, 3, 2);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)n, .spread = 0.5};
        o.causal = n / 3 % 2;
        o.projection = (fv_projection)(FV_PROJECTION_NONE + n / 6 % 3);
        o.denominator = (fv_denominator)(FV_DENOMINATOR_NONE + n / 18 % 6);
        o.denominator_value = constants[n / 108];
        o.chunk = 4;
        o.features = 6;
        if (n % 3 == 1 && o.projection == FV_PROJECTION_NONE)
            continue;
        compare(ctx, &o, &shape, 2);
    }
    fv_context_destroy(ctx);
    (void)state;
}

/* epsilon, scale and row norms reach the mathematics. */
static void constants_of_the_maps(void **state)
{
    int64_t L = 9;
    fv_context *ctx = problem_context(NULL, 1);
    for (int n = 0; n < 8; n++) {
        fv_attention_options o = options_of(n % 2 ? "favor+" : "relu", 1, 1, 4, 3);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)n};
        o.causal = n / 2 % 2;
        o.scale = n / 4 ? 0.3 : 0;
        o.projection = FV_PROJECTION_ORTHOGONAL;
        o.row_norms = n / 4 ? FV_ROW_NORMS_SQRT_D : FV_ROW_NORMS_CHI;
        if (!(n % 2))
            o.epsilon = n / 4 ? 0.25 : 0;
        o.features = 10;
        compare(ctx, &o, &shape, 2);
    }
    fv_context_destroy(ctx);
    (void)state;
}

/* Gradients of the projection itself, for every kind that can train it. */
static void trained_projections(void **state)
{
    int64_t L = 9;
    fv_context *ctx = problem_context(NULL, 2);
    for (int n = 0; n < 2 * fv_attention_kind_count(); n++) {
        const fv_attention_kind *kind = fv_attention_kind_at(n / 2);
        if (!kind_runs(n / 2, n % 2) || !fv_attention_kind_takes(kind, "projection", "orthogonal"))
            continue;
        fv_attention_options o = options_of(kind->name, 2, 1, 3, 2);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)n};
        o.projection = FV_PROJECTION_ORTHOGONAL;
        o.trainable_projection = 1;
        o.causal = n % 2;
        o.chunk = 4;
        o.features = 5;
        compare(ctx, &o, &shape, 6);
    }
    fv_context_destroy(ctx);
    (void)state;
}

/* Keys so far apart that they cut chunks: more pieces in a segment of sixteen chunks than the ring of the
 * backward pass holds, so that parts of it are walked again. */
static void cut_chunks(void **state)
{
    const int64_t L = 70;
    fv_context *ctx = problem_context(NULL, 2);
    for (int n = 0; n < 4; n++) {
        fv_attention_options o = options_of("favor+", 2, 1, 3, 2);
        problem_shape shape = {.sequences = 1, .queries = &L, .seed = (uint64_t)n, .spread = 8};
        o.causal = 1;
        o.chunk = n % 2 ? 4 : 8;
        o.features = 5;
        compare(ctx, &o, &shape, 2);
    }
    fv_context_destroy(ctx);
    (void)state;
}

static void report(void **state)
{
    (void)state;
    print_message("largest error: forward %.2f eps m, gradient %.2f eps m\n", most_forward.ratio,
                  most_gradient.ratio);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_has_a_row_and_a_spec),
        cmocka_unit_test(shapes_on_every_cpu),
        cmocka_unit_test(guards_and_projections),
        cmocka_unit_test(constants_of_the_maps),
        cmocka_unit_test(trained_projections),
        cmocka_unit_test(cut_chunks),
        cmocka_unit_test(report),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
