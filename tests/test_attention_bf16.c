/* test_attention_bf16.c: operators with the factors of products in bf16. Every kind, forward and gradients, against the specification:
 * rounding a factor to 8 bits moves a result as the specification's magnitudes say, |err| <= c 2^-8 m with the c of float. The
 * error of exact, favor+ and relu is at most twice that of a plain bf16 program, which rounds every array it makes. And
 * the laws that hold to the bit in float hold to the bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include "support/floats.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/problem.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double bf16_per_float = 0x1p-8 / 0x1p-23;

static int setup_bf16(void **state)
{
    return setup(state) == 0 && fv_context_set_dtype(ctx, "bf16") == FV_OK ? 0 : -1;
}

static fv_attention_options options_of(int kind, int causal)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind)->name;
    o.heads = 2;
    o.kv_heads = 1;
    o.dim = 8;
    o.value_dim = 5;
    o.features = 16;
    o.causal = causal;
    o.chunk = 16;
    kind_small_options(&o);
    return o;
}

/* ---- against the specification ------------------------------------------------------------------------- */

static void every_kind(void **state)
{
    const int64_t L = 37;
    worst forward = {0}, gradient = {0};
    int rounded = 0;
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int causal = 0; causal <= 1; causal++) {
            if (!kind_runs(kind, causal))
                continue;
            fv_attention_options o = options_of(kind, causal);
            const kind_row *row = kind_row_of(o.kind);
            problem *p = problem_make(ctx, &o, &(problem_shape){.sequences = 1, .queries = &L, .seed = 5});
            problem_forward(p, true);
            problem_backward(p);
            worst y = problem_check_forward(p), g = problem_check_gradients(p, 2);
            worst_check(&y, row->forward * bf16_per_float, "forward in bf16", p);
            worst_check(&g, row->gradient * bf16_per_float, "gradient in bf16", p);
            rounded += y.ratio > row->forward; /* more than float leaves: factors were rounded */
            forward = y.ratio > forward.ratio ? y : forward;
            gradient = g.ratio > gradient.ratio ? g : gradient;
            problem_free(p);
        }
    }
    assert_true(rounded > 0);
    print_message("largest error: forward %.2f 2^-8 m, gradient %.2f 2^-8 m\n",
                  forward.ratio / bf16_per_float, gradient.ratio / bf16_per_float);
}

/* ---- against a plain bf16 program ------------------------------------------------------------------------ */

enum { TOKENS = 192, WIDTH = 32, FEATURES = 64 };

/* One head's y [TOKENS][WIDTH], every array rounded by `keep`; sums in double. w [FEATURES][WIDTH] for favor+. */
static void plain_forward(const problem *p, double (*keep)(double), double *y)
{
    const char *kind = p->info.options.kind;
    double scale = p->info.options.scale, phi[2][TOKENS][FEATURES];
    int features = strcmp(kind, "favor+") == 0 ? FEATURES : WIDTH;
    for (int side = 0; side < 2; side++)
        for (int t = 0; t < TOKENS; t++) {
            const float *x = (side ? p->k : p->q) + t * WIDTH;
            double squares = 0;
            for (int c = 0; c < WIDTH; c++)
                squares += pow(keep((double)x[c]), 2);
            for (int f = 0; f < features; f++) {
                double u = keep((double)x[f % WIDTH]);
                if (strcmp(kind, "favor+") == 0) {
                    u = 0;
                    for (int c = 0; c < WIDTH; c++)
                        u += keep((double)p->w[f * WIDTH + c]) * keep((double)x[c]);
                    u = exp(keep(sqrt(scale) * u) - keep(scale * squares / 2));
                } else if (strcmp(kind, "relu") == 0) {
                    u = fmax(sqrt(scale) * u, 0) + p->info.options.epsilon;
                }
                phi[side][t][f] = keep(u);
            }
        }
    for (int i = 0; i < TOKENS; i++) {
        double norm = 0, sum[WIDTH] = {0};
        for (int j = 0; j <= i; j++) {
            double a = 0;
            for (int f = 0; f < features; f++)
                a += phi[0][i][f] * phi[1][j][f];
            a = strcmp(kind, "exact") == 0 ? keep(exp(keep(scale * a))) : keep(a);
            norm += a;
            for (int c = 0; c < WIDTH; c++)
                sum[c] += a * keep((double)p->v[j * WIDTH + c]);
        }
        for (int c = 0; c < WIDTH; c++)
            y[i * WIDTH + c] = keep(keep(sum[c]) / keep(norm));
    }
}

static void no_worse_than_plain(void **state)
{
    static const char *const kinds[] = {"exact", "favor+", "relu"};
    (void)state;
    for (int n = 0; n < FV_COUNT(kinds); n++) {
        const int64_t L = TOKENS;
        fv_attention_options o;
        fv_attention_options_init(&o);
        o.kind = kinds[n];
        o.heads = 1;
        o.dim = WIDTH;
        o.features = FEATURES;
        o.causal = 1;
        problem *p = problem_make(ctx, &o, &(problem_shape){.sequences = 1, .queries = &L, .seed = 9});
        double *truth = malloc(2 * TOKENS * WIDTH * sizeof *truth), *plain = truth + TOKENS * WIDTH;
        double ours = 0, theirs = 0, size = 0;
        problem_forward(p, false);
        plain_forward(p, floats_as_they_are, truth);
        plain_forward(p, floats_to_bf16, plain);
        for (int64_t i = 0; i < TOKENS * WIDTH; i++) {
            ours += pow((double)p->y[i] - truth[i], 2);
            theirs += pow(plain[i] - truth[i], 2);
            size += pow(truth[i], 2);
        }
        print_message("%-6s relative error %.2g, of a plain bf16 program %.2g\n", kinds[n], sqrt(ours / size),
                      sqrt(theirs / size));
        assert_true(ours <= 4 * theirs); /* squares: twice */
        assert_true(sqrt(ours / size) > 64 * (double)FLT_EPSILON);
        free(truth);
        problem_free(p);
    }
}

/* ---- laws to the bit --------------------------------------------------------------------------------------- */

static problem *make(fv_context *with, int kind, int causal, int64_t sequences, const int64_t *lengths)
{
    fv_attention_options o = options_of(kind, causal);
    return problem_make(with, &o, &(problem_shape){.sequences = sequences, .queries = lengths, .seed = 3});
}

static void causality(void **state)
{
    const int64_t L = 70;
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        if (!kind_runs(kind, 1) || kind_has(kind, KIND_FORESEES))
            continue;
        problem *p = make(ctx, kind, 1, 1, &L);
        float before[70 * 10];
        problem_forward(p, false);
        memcpy(before, p->y, (size_t)(L * problem_row_y(p)) * sizeof *before);
        for (int64_t c = 3 * problem_row_k(p); c < L * problem_row_k(p); c++)
            p->k[c] = 3.0f;
        for (int64_t c = 3 * problem_row_v(p); c < L * problem_row_v(p); c++)
            p->v[c] = c % 3 ? INFINITY : NAN;
        problem_forward(p, false);
        assert_memory_equal(before, p->y, (size_t)(3 * problem_row_y(p)) * sizeof *before);
        problem_free(p);
    }
}

/* The second of two packed sequences is as alone; one thread gives what two give. */
static void packs_and_threads(void **state)
{
    static const int64_t lengths[] = {19, 37};
    fv_context *one = problem_context(NULL, 1);
    (void)state;
    assert_int_equal(fv_context_set_dtype(one, "bf16"), FV_OK);
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        if (!kind_runs(kind, 0))
            continue;
        problem *pack = make(ctx, kind, 0, 2, lengths), *alone = make(one, kind, 0, 1, lengths);
        problem *same = make(one, kind, 0, 2, lengths);
        size_t row = (size_t)problem_row_y(pack) * sizeof(float);
        problem_forward(pack, true);
        problem_forward(same, true);
        problem_backward(pack);
        problem_backward(same);
        assert_memory_equal(pack->y, same->y, 56 * row);
        assert_memory_equal(pack->dq, same->dq, (size_t)(56 * problem_row_q(pack)) * sizeof(float));
        assert_memory_equal(pack->dv, same->dv, (size_t)(56 * problem_row_v(pack)) * sizeof(float));
        memcpy(alone->q, pack->q, (size_t)(19 * problem_row_q(pack)) * sizeof(float));
        memcpy(alone->k, pack->k, (size_t)(19 * problem_row_k(pack)) * sizeof(float));
        memcpy(alone->v, pack->v, (size_t)(19 * problem_row_v(pack)) * sizeof(float));
        problem_forward(alone, false);
        assert_memory_equal(alone->y, pack->y, 19 * row);
        problem_free(pack);
        problem_free(alone);
        problem_free(same);
    }
    fv_context_destroy(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind),
        cmocka_unit_test(no_worse_than_plain),
        cmocka_unit_test(causality),
        cmocka_unit_test(packs_and_threads),
    };
    return cmocka_run_group_tests(tests, setup_bf16, teardown);
}
