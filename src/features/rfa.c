/* rfa.c: random feature attention: Gaussian and arc-cosine features of vectors of unit length.
 *
 *     x^ = x / (|x| + 1e-3),   omega_f = sigma o w_f / tau,   w_f ~ N(0, I_d),   u_f = omega_f . x^
 *     rfa:         phi(x) = [sin u_1 .. sin u_m, cos u_1 .. cos u_m] / sqrt(m)
 *     rfa-arccos:  phi(x) = [max(u_1, 0) .. max(u_m, 0)] / sqrt(m)
 *
 * Peng et al. 2021, arXiv 2103.02143, eq. 3 to 5 and 8. With sigma = 1, E[phi(x).phi(y)] is exp(-|x^ - y^|^2 / 2 tau^2),
 * which is exp(x^.y^ / tau^2) up to a constant on unit vectors; the arc-cosine map gives half the kernel of
 * order 1 of Cho and Saul. sigma [d] is learned, one a head; a map without it takes 1. The factor 1/m of
 * phi.phi stays outside. Gaussian features are signed: the normaliser may come near 0, so the default guard is sign:1e-3
 * (the released code clamps at 1 with features of another scale, `--denominator clamp:X`).
 *
 * W x^ = s W x with s = 1/(|x| + 1e-3) one factor a row, so the product runs on the raw vectors.
 * Cost: 2 n d m forward, twice that backward; nothing saved: the backward computes u again.
 */
#include "features/feature_map.h"
#include <math.h>

#define LENGTH_EPSILON 1e-3

static fv_status check(const fv_feature_map *map, fv_context *ctx, fv_attention_options *o)
{
    (void)map;
    (void)ctx;
    o->tau = o->tau != 0 ? o->tau : 1.0;
    return FV_OK;
}

static int64_t count_2m(const fv_attention_options *o, int64_t m)
{
    (void)o;
    return 2 * m;
}

static float sigma(const fv_map_params *p, int64_t c)
{
    return p->input[FV_INPUT_BANDWIDTH] != NULL ? p->input[FV_INPUT_BANDWIDTH][c] : 1.0f;
}

static void prepare(const fv_map_params *p, float *prepared)
{
    fv_map_prepare_rows(p, p->m, p->w, 1 / p->options->tau, p->input[FV_INPUT_BANDWIDTH], prepared);
}

/* factor[i] = s_i and, where asked for, inverse[i] = 1/|x_i| (0 for vectors of almost no length). Lengths are
 * taken in double: squares of large floats overflow. */
static void row_factors(const fv_map_params *p, const fv_rows *rows, float *factor, float *inverse)
{
    double root = sqrt((double)p->scale);
    for (int64_t i = 0; i < rows->n; i++) {
        double length = sqrt(p->kernels->sum_squares(p->d, rows->x + i * rows->ldx));
        factor[i] = (float)(root / (root * length + LENGTH_EPSILON));
        if (inverse != NULL)
            inverse[i] = length > 1e-30 ? (float)(1.0 / length) : 0.0f;
    }
}

/* u [n][m], rows ldu apart. */
static void project(const fv_map_params *p, const fv_rows *rows, const float *factor, float *u, int64_t ldu)
{
    fv_map_project(p, rows, u, ldu);
    p->kernels->scale_rows(rows->n, p->m, factor, u, ldu, 0, u, ldu);
}

static void gaussian_logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c;
    row_factors(p, rows, bias, NULL);
    project(p, rows, bias, u, p->r);
    p->kernels->sincos_rows(rows->n, p->m, u, p->r, u, u + p->m, p->r);
}

static void arccos_logits(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias)
{
    (void)c;
    row_factors(p, rows, bias, NULL);
    project(p, rows, bias, u, p->r);
    p->kernels->function_rows(FV_FUNCTION_RELU, rows->n, p->m, 0.0f, u, p->r, u, p->r);
}

/* ---- backward ------------------------------------------------------------------------------------ */

/* Room of the backward: x^ and another [n][d], the row's factors, then u or its sines and cosines [n][r]. */
static int64_t tmp_floats(const fv_map_params *p, int64_t n)
{
    return n * (2 * p->d + 3 + p->r);
}

typedef struct room {
    float *unit, *back, *factor, *inverse, *dots, *u;
} room;

static room make_room(const fv_map_params *p, const fv_rows *rows, float *tmp)
{
    int64_t n = rows->n;
    room r = {.unit = tmp, .back = tmp + n * p->d, .factor = tmp + 2 * n * p->d};
    r.inverse = r.factor + n;
    r.dots = r.inverse + n;
    r.u = r.dots + n;
    row_factors(p, rows, r.factor, r.inverse);
    project(p, rows, r.factor, r.u, p->r);
    p->kernels->scale_rows(n, p->d, r.factor, rows->x, rows->ldx, 0, r.unit, p->d);
    return r;
}

/* Gradients of sigma and w from g = dL/du [n][m], rows ldg apart: u = sum_c sigma_c w_c x^_c / tau. r->back
 * becomes (g w) / tau. */
static void parameter_gradients(const fv_map_params *p, int64_t n, const float *g, int64_t ldg, room *r)
{
    const fv_kernels *kr = p->kernels;
    float *d_sigma = p->d_input[FV_INPUT_BANDWIDTH], *dw = p->d_input[FV_INPUT_PROJECTION];
    float inverse_tau = (float)(1.0 / p->options->tau);
    if (dw != NULL) {
        for (int64_t i = 0; i < n; i++)
            for (int64_t c = 0; c < p->d; c++)
                r->back[i * p->d + c] = sigma(p, c) * r->unit[i * p->d + c];
        kr->gemm('T', 'N', p->m, p->d, n, inverse_tau, g, ldg, r->back, p->d, 1.0f, dw, p->d);
    }
    fv_map_project_back(p, n, (double)inverse_tau, g, ldg, false, r->back, p->d);
    for (int64_t i = 0; d_sigma != NULL && i < n; i++)
        kr->mul_add(p->d, r->back + i * p->d, r->unit + i * p->d, d_sigma);
}

/* dx from g = dL/du. With e = dL/dx^ = sigma o (g w)/tau:  dx = s e - (e.x^) x^ / |x|. */
static void input_gradient(const fv_map_params *p, int64_t n, const float *g, int64_t ldg, room *r, bool add,
                           float *dx, int64_t lddx)
{
    const fv_kernels *kr = p->kernels;
    parameter_gradients(p, n, g, ldg, r);
    if (p->input[FV_INPUT_BANDWIDTH] != NULL)
        for (int64_t i = 0; i < n; i++)
            kr->mul(p->d, r->back + i * p->d, p->input[FV_INPUT_BANDWIDTH], r->back + i * p->d);
    kr->row_dots(n, p->d, -1.0f, r->back, p->d, r->unit, p->d, 0.0f, r->dots);
    kr->mul(n, r->dots, r->inverse, r->dots);
    kr->scale_rows(n, p->d, r->factor, r->back, p->d, add, dx, lddx);
    kr->scale_rows(n, p->d, r->dots, r->unit, p->d, 1, dx, lddx);
}

/* du = g_sin cos u - g_cos sin u, left in the first half of g. */
static void gaussian_backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add,
                              float *dx, int64_t lddx, float *tmp)
{
    const fv_kernels *kr = p->kernels;
    int64_t m = p->m;
    room r = make_room(p, rows, tmp);
    (void)gc;
    kr->sincos_rows(rows->n, m, r.u, p->r, r.u, r.u + m, p->r);
    for (int64_t i = 0; i < rows->n; i++) {
        float *g_sin = g + i * p->r, *g_cos = g_sin + m, *sine = r.u + i * p->r, *cosine = sine + m;
        kr->mul(m, g_sin, cosine, g_sin);
        kr->mul(m, g_cos, sine, g_cos);
        kr->axpy(m, -1.0f, g_cos, g_sin);
    }
    input_gradient(p, rows->n, g, p->r, &r, add, dx, lddx);
}

static void arccos_backward(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add,
                            float *dx, int64_t lddx, float *tmp)
{
    room r = make_room(p, rows, tmp);
    (void)gc;
    p->kernels->function_rows_back(FV_FUNCTION_RELU, rows->n, p->r, 0.0f, r.u, p->r, g, p->r, g, p->r);
    input_gradient(p, rows->n, g, p->r, &r, add, dx, lddx);
}

const fv_feature_map fv_map_rfa = {
    .name = "rfa",
    .unit_scale = true,
    .can_be_negative = true,
    .mixed = true,
    .inputs = UINT32_C(1) << FV_INPUT_BANDWIDTH,
    .check = check,
    .feature_count = count_2m,
    .unit = fv_map_unit_m,
    .prepare = prepare,
    .logits = gaussian_logits,
    .backward = gaussian_backward,
    .tmp_floats = tmp_floats,
};

const fv_feature_map fv_map_rfa_arccos = {
    .name = "rfa-arccos",
    .unit_scale = true,
    .inputs = UINT32_C(1) << FV_INPUT_BANDWIDTH,
    .check = check,
    .feature_count = fv_map_count_m,
    .unit = fv_map_unit_m,
    .prepare = prepare,
    .logits = arccos_logits,
    .backward = arccos_backward,
    .tmp_floats = tmp_floats,
};
