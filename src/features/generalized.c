/* generalized.c: the generalized maps f(u) + epsilon of the paper's section 2.3, for every f of fv_function.
 *
 *     phi(x) = f(W x) + epsilon  with a projection W [m][d],   phi(x) = f(x) + epsilon  without (r = d),
 *     x = sqrt(scale) times the head vector, scale 1 by default.
 *
 * No target kernel, no factor 1/sqrt(m), features at their true scale. "Performer" without a suffix in the
 * paper is f = ReLU, epsilon = 1e-3, no projection. Choromanski et al. 2021, eq. 5, section 4 and figures 16, 17; ELU + 1
 * is Katharopoulos et al. 2020.
 *
 * exp alone outgrows float32 at norms that occur: it is an exponential map, log2 phi = log2(exp(u) + epsilon), right for
 * every u. The others grow like u^2 at most. With epsilon 0 sigmoid, ELU + 1 and softplus underflow
 * below u = -87.
 *
 * Cost: 2 n d m with a projection, else n d; nothing saved: the backward computes u again.
 */
#include "features/feature_map.h"
#include <math.h>

static void prepare(const fv_map_params *p, float *prepared)
{
    if (p->projected)
        fv_map_prepare_scaled(p, sqrt((double)p->scale), prepared);
}

/* u = W x, or x itself. */
static void pre_activation(const fv_map_params *p, const fv_rows *rows, float *u)
{
    const fv_kernels *kr = p->kernels;
    if (p->projected) {
        fv_map_project(p, rows, u, p->m);
        return;
    }
    kr->copy_rows(rows->n, p->d, rows->x, rows->ldx, u, p->d);
    if (p->scale != 1.0f)
        kr->scale(rows->n * p->d, sqrtf(p->scale), u, u);
}

/* dx from g = dL/du. */
static void pre_activation_back(const fv_map_params *p, const fv_rows *rows, float *g, bool add, float *dx,
                                int64_t lddx)
{
    const fv_kernels *kr = p->kernels;
    if (p->projected) {
        fv_map_projection_gradient(p, rows, sqrt((double)p->scale), g, p->r);
        fv_map_project_back(p, rows->n, sqrt((double)p->scale), g, p->r, add, dx, lddx);
        return;
    }
    if (p->scale != 1.0f)
        kr->scale(rows->n * p->r, sqrtf(p->scale), g, g);
    kr->scale_rows(rows->n, p->d, NULL, g, p->r, add, dx, lddx);
}

/* f(u) + epsilon, or its logarithm to base 2; of 2^-e x and degree 2: f(u) + epsilon 2^-2e. */
static void logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c;
    const fv_kernels *kr = p->kernels;
    const int f = (int)p->map->function;
    const float *x = rows->x; /* without a copy where nothing is done to it */
    int64_t ldx = rows->ldx;
    if (p->projected || p->scale != 1.0f) {
        pre_activation(p, rows, u);
        x = u, ldx = p->r;
    }
    bool degree_2 = rows->exponent != NULL && p->map->degrees != NULL;
    if (!degree_2)
        kr->function_rows(f, rows->n, p->r, p->epsilon, x, ldx, u, p->r);
    for (int64_t i = 0; degree_2 && i < rows->n; i++)
        kr->function_rows(f, 1, p->r, ldexpf(p->epsilon, (int)(-2 * rows->exponent[i])), x + i * ldx, ldx,
                          u + i * p->r, p->r);
    if (p->map->exponential)
        kr->fill(rows->n, 0.0f, bias);
}

/* g f'(u), or g times the slope of ln(f(u) + epsilon). */
static void backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp)
{
    (void)gc;
    pre_activation(p, rows, tmp);
    p->kernels->function_rows_back((int)p->map->function, rows->n, p->r, p->epsilon, tmp, p->r, g, p->r, g,
                                   p->r);
    pre_activation_back(p, rows, g, add, dx, lddx);
}

/* A row: its name, f, and what f is like. */
#define GENERALIZED(name_, function_, ...)                                                                   \
    [function_] = {.name = name_,                                                                            \
                   .generalized = true,                                                                      \
                   .function = function_,                                                                    \
                   .unit_scale = true,                                                                       \
                   .feature_count = fv_map_count_m,                                                          \
                   .prepare = prepare,                                                                       \
                   .logits = logits,                                                                         \
                   .backward = backward,                                                                     \
                   __VA_ARGS__}

const fv_feature_map fv_map_generalized[FV_FUNCTION_COUNT] = {
    GENERALIZED("relu", FV_FUNCTION_RELU),
    GENERALIZED("exp", FV_FUNCTION_EXP, .exponential = true),
    GENERALIZED("sigmoid", FV_FUNCTION_SIGMOID),
    GENERALIZED("tanh", FV_FUNCTION_TANH, .can_be_negative = true, .mixed = true),
    GENERALIZED("gelu", FV_FUNCTION_GELU, .can_be_negative = true, .mixed = true),
    GENERALIZED("abs", FV_FUNCTION_ABS),
    GENERALIZED("square", FV_FUNCTION_SQUARE, .degrees = fv_map_degrees_2),
    GENERALIZED("relu2", FV_FUNCTION_RELU2, .degrees = fv_map_degrees_2),
    GENERALIZED("cos", FV_FUNCTION_COS, .can_be_negative = true, .mixed = true),
    GENERALIZED("sin", FV_FUNCTION_SIN, .can_be_negative = true, .mixed = true),
    GENERALIZED("linear", FV_FUNCTION_LINEAR, .can_be_negative = true, .mixed = true),
    GENERALIZED("elu+1", FV_FUNCTION_ELU1),
    GENERALIZED("softplus", FV_FUNCTION_SOFTPLUS),
};
