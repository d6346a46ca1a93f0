/* support/kernel_cases_rows.c: cases of products with few rows, and of kernels that go row by row. */
#include "support/kernel_cases.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- products ---- */

static void call_gemv(const fv_kernels *k, operands *o)
{
    float beta = o->variant & 2 ? 0.75f : 0.0f;
    char ta = o->variant & 1 ? 'T' : 'N';
    float *y = ta == 'N' ? o->out[0] : o->out[1];
    k->gemv(ta, o->n, o->c, 1.5f, o->in[0], o->ld, ta == 'N' ? o->in[2] : o->in[1], beta, y);
}

static void prepare_gemv(operands *o)
{
    /* Without beta the result is not read: NaN must not matter. */
    if (!(o->variant & 2)) {
        for (int64_t i = 0; i < o->n && !(o->variant & 1); i++)
            o->out[0][i] = NAN;
        for (int64_t i = 0; i < o->c && (o->variant & 1); i++)
            o->out[1][i] = NAN;
    }
}

/* Two rows of x that are the same one; that rows do not mix: test_kernels_laws.c. */
static void call_few_rows(const fv_kernels *k, operands *o)
{
    k->few_rows(2, o->n, o->c, o->in[1], 0, o->in[0], o->ld, o->variant ? 0.75f : 0.0f, o->out[0], o->n);
}

static void call_few_rows_bf16(const fv_kernels *k, operands *o)
{
    int64_t count = o->n * o->c;
    uint16_t *half = malloc((size_t)count * sizeof *half + 1);
    for (int64_t i = 0; i < count && half != NULL; i++) {
        uint32_t bits;
        memcpy(&bits, &o->in[0][i], sizeof bits);
        half[i] = (uint16_t)(bits >> 16);
    }
    if (half != NULL)
        k->few_rows_bf16(2, o->n, o->c, o->in[1], 0, half, o->c, o->variant ? 0.75f : 0.0f, o->out[0], o->n);
    free(half);
}

static void prepare_few_rows(operands *o)
{
    for (int64_t i = 0; i < 2 * o->n && !o->variant; i++)
        o->out[0][i] = NAN;
}

static void call_row_dots(const fv_kernels *k, operands *o)
{
    float beta = o->variant & 1 ? -0.5f : 0.0f;
    int64_t ldb = o->variant & 2 ? 0 : o->ld;
    k->row_dots(o->n, o->c, 1.25f, o->in[0], o->ld, o->in[1], ldb, beta, o->out[0]);
}

static void prepare_row_dots(operands *o)
{
    for (int64_t i = 0; i < o->n && !(o->variant & 1); i++)
        o->out[0][i] = NAN;
}

/* alpha |a| |b| + |beta| |out| */
static void magnitude_row_dots(operands *a, const operands *r)
{
    (void)r;
    fv_row_dots_reference(a->n, a->c, 1.25f, a->in[0], a->ld, a->in[1], a->variant & 2 ? 0 : a->ld,
                          a->variant & 1 ? 0.5f : 0.0f, a->out[0]);
}

static void call_add_col_sums(const fv_kernels *k, operands *o)
{
    k->add_col_sums(o->n, o->c, o->variant ? NULL : o->in[1], o->in[0], o->ld, o->out[0]);
}

static void call_add_col_max(const fv_kernels *k, operands *o)
{
    k->add_col_max(o->n, o->c, o->variant ? NULL : o->in[1], o->in[0], o->ld, o->out[0]);
}

static void call_add_outer(const fv_kernels *k, operands *o)
{
    k->add_outer(o->n, o->c, o->variant ? NULL : o->in[0], o->in[1], o->out[0], o->ld);
}

/* ---- rows ---- */

static void call_fill(const fv_kernels *k, operands *o)
{
    k->fill(o->n * o->c, -1.5f, o->out[0]);
}

static void call_copy_rows(const fv_kernels *k, operands *o)
{
    k->copy_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->ld);
}

static void call_prefetch_rows(const fv_kernels *k, operands *o)
{
    k->prefetch_rows(o->n, o->c, o->in[0], o->ld);
}

static void call_transpose(const fv_kernels *k, operands *o)
{
    k->transpose(o->n, o->c, o->in[0], o->ld, o->out[0], o->n);
}

static void call_scale(const fv_kernels *k, operands *o)
{
    k->scale(o->n * o->c, 1.7f, o->in[0], o->out[0]);
}

static void call_axpy(const fv_kernels *k, operands *o)
{
    k->axpy(o->n * o->c, 1.7f, o->in[0], o->out[0]);
}

static void call_add(const fv_kernels *k, operands *o)
{
    k->add(o->n * o->c, o->in[0], o->in[1], o->out[0]);
}

static void call_mul_add(const fv_kernels *k, operands *o)
{
    k->mul_add(o->n * o->c, o->in[0], o->in[1], o->out[0]);
}

static void call_mul(const fv_kernels *k, operands *o)
{
    k->mul(o->n * o->c, o->in[0], o->in[1], o->out[0]);
}

static void call_scale_rows(const fv_kernels *k, operands *o)
{
    const float *w = o->variant & 1 ? NULL : o->in[1];
    k->scale_rows(o->n, o->c, w, o->in[0], o->ld, o->variant & 2, o->out[0], o->ld);
}

static void call_max_abs(const fv_kernels *k, operands *o)
{
    o->value = (double)k->max_abs(o->n * o->c, o->in[0]);
}

/* Windows about all normal numbers, most, and one entry in two or so. */
static void call_within(const fv_kernels *k, operands *o)
{
    static const float windows[][2] = {{0, FLT_MAX}, {FLT_MIN, 1e30f}, {0x1p-10f, 64}, {0.01f, 1}};
    o->value = k->within(o->n * o->c, windows[o->variant][0], windows[o->variant][1], o->in[0]);
}

static void call_sum_squares(const fv_kernels *k, operands *o)
{
    o->value = k->sum_squares(o->n * o->c, o->in[0]);
}

static void call_sum(const fv_kernels *k, operands *o)
{
    o->value = k->sum(o->n * o->c, o->in[0]);
}

static void call_all_finite(const fv_kernels *k, operands *o)
{
    o->value = k->all_finite(o->n, o->c, o->in[0], o->ld);
}

static void call_finite_rows(const fv_kernels *k, operands *o)
{
    o->value = k->finite_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->ld);
}

static void call_mask_rows(const fv_kernels *k, operands *o)
{
    k->mask_rows(o->n, o->c, o->visible, o->out[0], o->ld);
}

static void call_bias_rows(const fv_kernels *k, operands *o)
{
    k->bias_rows(o->n, o->c, o->in[0], o->in[1], o->out[0]);
}

/* A table of one row per id: dense rows, n of them; ids are taken below n. */
static void call_gather_rows(const fv_kernels *k, operands *o)
{
    k->gather_rows(o->n, o->c, o->ids, o->in[0], o->out[0]);
}

static void call_scatter_add_rows(const fv_kernels *k, operands *o)
{
    k->scatter_add_rows(o->n, o->c, o->ids, o->in[0], o->out[0]);
}

static void prepare_ids_below_n(operands *o)
{
    for (int64_t i = 0; i < o->n; i++)
        o->ids[i] = (int32_t)(o->ids[i] % o->n);
}

/* Equal values round alike: a lane of hundreds of them drifts by a few units in double, which no user of a
 * norm sees. */
#define SUM_EPS (8.0 * DBL_EPSILON)
/* clang-format off */
const kernel_case kernel_cases_rows[] = {
    {CALL(gemv), .in = "RNC", .out = "NC", .variants = 4, PREPARE(gemv)},
    {CALL(few_rows), .in = "RC", .out = "T", .variants = 2, PREPARE(few_rows)},
    {CALL(few_rows_bf16), .in = "DC", .out = "T", .variants = 2, PREPARE(few_rows)},
    {CALL(fill), .in = "", .out = "d", .variants = 1, SELF},
    {CALL(copy_rows), .in = "R", .out = "r", .variants = 1, SELF},
    {CALL(prefetch_rows), .in = "R", .out = "", .variants = 1, SELF},
    {CALL(transpose), .in = "R", .out = "d", .variants = 1, SELF},
    {CALL(scale), .in = "D", .out = "d", .variants = 1, .in_place = 1},
    {CALL(axpy), .in = "D", .out = "D", .variants = 1},
    {CALL(add), .in = "DD", .out = "d", .variants = 1, .in_place = 1},
    {CALL(mul_add), .in = "DD", .out = "D", .variants = 1},
    {CALL(mul), .in = "DD", .out = "d", .variants = 1, .in_place = 1},
    {CALL(scale_rows), .in = "RN", .out = "R", .variants = 4, .in_place = 1},
    {CALL(row_dots), .in = "RR", .out = "N", .variants = 4, PREPARE(row_dots), MAGNITUDE(row_dots)},
    {CALL(add_col_sums), .in = "RN", .out = "C", .variants = 2},
    {CALL(add_col_max), .in = "RN", .out = "C", .variants = 2, SELF},
    {CALL(add_outer), .in = "NC", .out = "R", .variants = 2},
    {CALL(max_abs), .in = "D", .out = "", .variants = 1},
    {CALL(within), .in = "D", .out = "", .variants = 4},
    {CALL(sum_squares), .in = "D", .out = "", .variants = 1, .value_eps = SUM_EPS},
    {CALL(sum), .in = "D", .out = "", .variants = 1, .value_eps = SUM_EPS},
    {CALL(all_finite), .in = "R", .out = "", .variants = 1},
    {CALL(finite_rows), .in = "R", .out = "r", .variants = 1, SELF, .in_place = 1},
    {CALL(mask_rows), .in = "", .out = "R", .variants = 1, SELF},
    {CALL(bias_rows), .in = "DC", .out = "d", .variants = 1, .in_place = 1},
    {CALL(gather_rows), .in = "D", .out = "d", .variants = 1, PREPARE(ids_below_n), SELF},
    {CALL(scatter_add_rows), .in = "D", .out = "D", .variants = 1, PREPARE(ids_below_n)},
    {.name = NULL},
};
/* clang-format on */
