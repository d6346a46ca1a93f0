/* test_model_bf16.c: models whose activations are bf16: the loss and every gradient against double, no worse than twice a plain
 * bf16 program, which rounds every array it makes; the laws to the bit; memory. That layers run again come to the same
 * bits: test_recompute.c. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "kernels/kernels.h"
#include "support/floats.h"
#include "support/spec_model.h"
#include "support/tiny_model.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { SEEDS = 8 };

static const char *const exact[] = {"is_decoder", "true", "attention.kind", "exact", NULL};
/* epsilon keeps normalisers of the first tokens away from 0, where errors of one row outweigh all others, without making features
 * so alike that their gradients are small differences of the states' large ones. */
static const char *const relu[] = {"is_decoder", "true", "attention.kind", "relu", "attention.epsilon",
                                   "0.2",        NULL};
static const char *const *const models[] = {exact, relu};

/* Parameters at which attention chooses and layer norms do not divide by next to nothing. */
static void draw_parameters(fv_model *model, uint64_t seed)
{
    float *values = fv_model_values(model);
    tiny_normals(seed, 0.4, values, fv_model_parameters(model));
    for (int p = 0; p < fv_model_parameter_count(model); p++) {
        const fv_parameter *view = fv_model_parameter_at(model, p);
        for (int64_t i = 0; strstr(view->name, "norm") != NULL && i < view->count; i++)
            values[view->offset + i] += strstr(view->name, "weight") != NULL;
    }
}

/* The loss; the gradient of one step. */
static double run_model(fv_model *model, const fv_batch *batch, const char *dtype, double *gradient)
{
    double loss = 0;
    int64_t correct = 0, n = fv_model_parameters(model);
    float *sums = fv_model_gradients(model);
    memset(sums, 0, (size_t)n * sizeof *sums);
    OK(fv_context_set_dtype(model->ctx, dtype));
    OK(fv_model_train_batch(model, batch, 1.0f, 1, 1, 0, &loss, &correct));
    for (int64_t i = 0; i < n; i++)
        gradient[i] = (double)sums[i];
    return loss;
}

enum { TRUTH, PLAIN, FLOATS, OURS, RUNS };
enum { MOST = 40, LOSS = MOST };

/* Adds squares of errors (of the truth itself) of each parameter's gradient and of the loss. */
static void add_errors(const fv_model *model, double *const *gradient, const double *loss,
                       double squares[MOST + 1][RUNS])
{
    assert_true(fv_model_parameter_count(model) <= MOST);
    for (int r = 0; r < RUNS; r++) {
        double sign = r == TRUTH ? 0 : 1;
        squares[LOSS][r] += pow(loss[r] - sign * loss[TRUTH], 2);
        for (int p = 0; p < fv_model_parameter_count(model); p++) {
            const fv_parameter *view = fv_model_parameter_at(model, p);
            for (int64_t i = view->offset; i < view->offset + view->count; i++)
                squares[p][r] += pow(gradient[r][i] - sign * gradient[TRUTH][i], 2);
        }
    }
}

/* Floats show that the specification is that of the model: errors of a few hundred eps at most. */
static void check_errors(const char *kind, const char *name, const double squares[RUNS])
{
    double size = sqrt(squares[TRUTH]), plain = sqrt(squares[PLAIN]) / size;
    double floats = sqrt(squares[FLOATS]) / size, ours = sqrt(squares[OURS]) / size;
    if (!(floats <= 512 * (double)FLT_EPSILON && ours <= 2 * plain && ours > 16 * floats))
        fail_msg("%s, %s: relative error %.2g, of a plain bf16 program %.2g, of floats %.2g", kind, name,
                 ours, plain, floats);
}

static void compare(const char *const *settings)
{
    fv_context *ctx = tiny_context(2);
    fv_model *model = tiny_model(ctx, settings);
    int64_t n = fv_model_parameters(model), length = SPEC_TOKENS;
    double squares[MOST + 1][RUNS] = {{0}}, loss[RUNS], *gradient[RUNS];
    for (int r = 0; r < RUNS; r++)
        gradient[r] = malloc((size_t)n * sizeof **gradient);
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        tiny_batch b;
        tiny_batch_fill(&b, seed, 1, 1, &length);
        draw_parameters(model, seed);
        for (int r = 0; r < RUNS; r++) {
            memset(gradient[r], 0, (size_t)n * sizeof **gradient);
            loss[r] = r <= PLAIN ? spec_model(model, &b.batch,
                                              r == TRUTH ? floats_as_they_are : floats_to_bf16, gradient[r])
                                 : run_model(model, &b.batch, r == FLOATS ? "f32" : "bf16", gradient[r]);
        }
        add_errors(model, gradient, loss, squares);
    }
    for (int p = 0; p < fv_model_parameter_count(model); p++)
        check_errors(settings[3], fv_model_parameter_at(model, p)->name, squares[p]);
    check_errors(settings[3], "loss", squares[LOSS]);
    for (int r = 0; r < RUNS; r++)
        free(gradient[r]);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void test_no_worse_than_plain(void **state)
{
    (void)state;
    for (int i = 0; i < FV_COUNT(models); i++)
        compare(models[i]);
}

/* ---- memory ------------------------------------------------------------------------------------------ */

static size_t step_bytes(fv_context *ctx, const char *const *settings, const char *dtype)
{
    fv_model *model = tiny_model(ctx, settings);
    fv_model_cost cost;
    OK(fv_context_set_dtype(ctx, dtype));
    OK(fv_model_measure(model, 4096, 4096, 600, &cost));
    size_t bytes = cost.bytes - 4 * (size_t)fv_model_parameters(model) * sizeof(float);
    fv_model_destroy(model);
    return bytes;
}

/* What six layers keep, 10 widths a token each (two streams, q k v, what attention gives, four of pre-activations), is halved. Floats
 * stay about 6 widths (gradients of one layer's widest part and of its stream), attention's own and the logits. */
static void test_memory(void **state)
{
    (void)state;
    static const char *const kinds[] = {"favor+", "exact", "relu"};
    fv_context *ctx = tiny_context(2);
    for (int i = 0; i < FV_COUNT(kinds); i++) {
        const char *const settings[] = {"num_hidden_layers",
                                        "6",
                                        "hidden_size",
                                        "128",
                                        "intermediate_size",
                                        "512",
                                        "max_position_embeddings",
                                        "4096",
                                        "attention.kind",
                                        kinds[i],
                                        NULL};
        size_t half = step_bytes(ctx, settings, "bf16"), whole = step_bytes(ctx, settings, "f32");
        if (!((double)half <= 0.6 * (double)whole))
            fail_msg("%s: %zu bytes in bf16, %zu in floats", kinds[i], half, whole);
    }
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_worse_than_plain),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
