/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "support/gradient_check.h"
#include "support/tiny_model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

static double loss_at(fv_model *model, const fv_batch *batch, const float *base, const float *u, double h)
{
    double loss = 0;
    int64_t correct = 0, n = fv_model_parameters(model);
    float *values = fv_model_values(model);
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)((double)base[i] + h * (double)u[i]);
    OK(fv_model_train_batch(model, batch, 1.0f, 3, 5, 2, &loss, &correct));
    return loss;
}

double sum_of_products(const float *a, const float *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)a[i] * (double)b[i];
    return sum;
}

/* R(h) = f(p + h u) - f(p) - h g.u falls as h^2; with a wrong g it falls as h in the end. R(h) and R(-h)
 * together, since the second and third order may cancel in one of them. With ReLUs, which bend between the
 * points, the square law begins at smaller steps. The loss carries the rounding of the float sums of 20
 * tokens of about 4 nats: well below the last remainder. */
static void check_slope(fv_model *model, const fv_batch *batch, const float *base, const float *gradient,
                        const float *u, double first)
{
    int64_t n = fv_model_parameters(model);
    double f0 = loss_at(model, batch, base, u, 0), gu = sum_of_products(gradient, u, n), remainder[2] = {0};
    for (int k = 0; k < 4; k++) {
        double h = (k < 2 ? first : first / 8) * (k % 2 == 0 ? 1 : -1);
        remainder[k / 2] += fabs(loss_at(model, batch, base, u, h) - f0 - h * gu);
    }
    double slope = log2(remainder[0] / remainder[1]) / 3;
    if (!(slope > 1.8 && slope < 3))
        fail_msg("remainders %g and %g, slope %g, directional derivative %g", remainder[0], remainder[1],
                 slope, gu);
}

/* The derivative of one tensor along its gradient and a random direction against the central difference of
 * fourth order, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h. At h = 1/32 its own error, h^4/30 of the fifth
 * derivative, is below 1e-4 of the gradient here, and the rounding of f over h below 2e-4 nats. The bends of
 * ReLUs within h leave more: with them h is smaller, and a hundredth of the gradient is allowed. */
static void check_tensor(fv_model *model, const fv_batch *batch, const float *base, const float *gradient,
                         float *u, const fv_parameter *view, bool bends)
{
    const double h = bends ? 1.0 / 128 : 1.0 / 32, share = bends ? 1e-2 : 1e-3;
    int64_t n = fv_model_parameters(model);
    const float *g = gradient + view->offset;
    double norm = sqrt(sum_of_products(g, g, view->count));
    memset(u, 0, (size_t)n * sizeof *u);
    tiny_normals(40 + (uint64_t)view->offset, 0.5 / sqrt((double)view->count), u + view->offset, view->count);
    for (int64_t i = 0; i < view->count && norm > 0; i++)
        u[view->offset + i] += (float)(0.5 * (double)g[i] / norm);
    double near = loss_at(model, batch, base, u, h) - loss_at(model, batch, base, u, -h);
    double far = loss_at(model, batch, base, u, 2 * h) - loss_at(model, batch, base, u, -2 * h);
    double difference = (8 * near - far) / (12 * h), gu = sum_of_products(g, u + view->offset, view->count);
    if (!(fabs(difference - gu) <= share * norm + 2e-4))
        fail_msg("%s: derivative %g, by differences %g, norm of the gradient %g", view->name, gu, difference,
                 norm);
}

void check_model_gradient(fv_model *model, const fv_batch *batch, bool bends)
{
    int64_t n = fv_model_parameters(model);
    float *base = calloc((size_t)n, sizeof *base), *gradient = calloc((size_t)n, sizeof *base);
    float *u = calloc((size_t)n, sizeof *base);
    /* Away from the initial zeros, so that no gradient is small by chance. */
    tiny_normals(9, 0.1, u, n);
    for (int64_t i = 0; i < n; i++)
        base[i] = fv_model_values(model)[i] + u[i];
    loss_at(model, batch, base, u, 0);
    memset(fv_model_gradients(model), 0, (size_t)n * sizeof *base);
    loss_at(model, batch, base, u, 0);
    memcpy(gradient, fv_model_gradients(model), (size_t)n * sizeof *base);
    for (uint64_t k = 0; k < 3; k++) {
        tiny_normals(20 + k, 4.0 / sqrt((double)n), u, n);
        check_slope(model, batch, base, gradient, u, bends ? 0.0625 : 0.25);
    }
    for (int p = 0; p < fv_model_parameter_count(model); p++)
        check_tensor(model, batch, base, gradient, u, fv_model_parameter_at(model, p), bends);
    free(base), free(gradient), free(u);
}
