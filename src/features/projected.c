/* projected.c: the projection u = W x that most maps begin with, and its backward. */
#include "features/feature_map.h"
#include <math.h>

#define FAR 0x1p126f /* logarithms up to here are themselves */

int64_t fv_map_count_m(const fv_attention_options *options, int64_t m)
{
    (void)options;
    return m;
}

double fv_map_unit_m(const fv_map_params *p)
{
    return 1.0 / (double)p->m;
}

int64_t fv_map_count_2m(const fv_attention_options *options, int64_t m)
{
    (void)options;
    return 2 * m;
}

double fv_map_unit_2m(const fv_map_params *p)
{
    return 0.5 / (double)p->m;
}

void fv_map_prepare_scaled(const fv_map_params *p, double factor, float *prepared)
{
    for (int64_t f = 0; f < p->m; f++)
        for (int64_t c = 0; c < p->d; c++)
            prepared[c * p->m + f] = (float)(factor * (double)p->w[f * p->d + c]);
}

void fv_map_project(const fv_map_params *p, const fv_rows *rows, float *u, int64_t ldu)
{
    p->kernels->gemm('N', 'N', rows->n, p->m, p->d, 1.0f, rows->x, rows->ldx, p->prepared, p->m, 0.0f, u,
                     ldu);
}

void fv_map_squares(const fv_map_params *p, const fv_rows *rows, double factor, float *bias)
{
    p->kernels->row_dots(rows->n, p->d, (float)factor, rows->x, rows->ldx, rows->x, rows->ldx, 0.0f, bias);
    for (int64_t i = 0; i < rows->n; i++)
        if (!(fabsf(bias[i]) <= FAR))
            bias[i] = fv_map_bounded_log(factor * p->kernels->sum_squares(p->d, rows->x + i * rows->ldx));
}

float fv_map_bounded_log(double x)
{
    /* The squared length of finite floats stays below 2^512, so 2^126 (1 + ...) below 2^127. */
    double over = log2(fabs(x) / (double)FAR);
    return (float)(over <= 0 ? x : copysign((double)FAR * (1 + over / 512), x));
}

void fv_map_projection_gradient(const fv_map_params *p, const fv_rows *rows, double factor, const float *g,
                                int64_t ldg)
{
    if (p->d_input[FV_INPUT_PROJECTION] != NULL)
        p->kernels->gemm('T', 'N', p->m, p->d, rows->n, (float)factor, g, ldg, rows->x, rows->ldx, 1.0f,
                         p->d_input[FV_INPUT_PROJECTION], p->d);
}

void fv_map_project_back(const fv_map_params *p, int64_t n, double factor, const float *g, int64_t ldg,
                         float beta, float *dx, int64_t lddx)
{
    p->kernels->gemm('N', 'N', n, p->d, p->m, (float)factor, g, ldg, p->w, p->d, beta, dx, lddx);
}

void fv_map_mirror(const fv_map_params *p, int64_t n, float *u, float *work)
{
    p->kernels->fill(n, -1.0f, work);
    p->kernels->scale_rows(n, p->m, work, u, p->r, 0, u + p->m, p->r);
}

void fv_map_mirror_back(const fv_map_params *p, int64_t n, float *g, float *work)
{
    p->kernels->fill(n, -1.0f, work);
    p->kernels->scale_rows(n, p->m, work, g + p->m, p->r, 1, g, p->r);
}

void fv_map_sincos_back(const fv_kernels *kr, int64_t n, int64_t m, const float *c, int64_t ldc, float *g,
                        int64_t ldg)
{
    for (int64_t i = 0; i < n; i++) {
        const float *sine = c + i * ldc, *cosine = sine + m;
        float *g_sin = g + i * ldg, *g_cos = g_sin + m;
        kr->mul(m, g_sin, cosine, g_sin);
        kr->mul(m, g_cos, sine, g_cos);
        kr->axpy(m, -1.0f, g_cos, g_sin);
    }
}
