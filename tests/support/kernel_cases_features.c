/* support/kernel_cases_features.c: cases of features and softmax. */
#include "support/kernel_cases.h"
#include <math.h>

/* ---- features and softmax: equal arguments on both sides, so the power alone carries an error ---- */

static void call_exp2_rows_top(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->exp2_rows_top(o->n, o->c, o->out[0], o->ld, o->variant ? NULL : o->in[0], o->out[1]);
}

static void call_exp2_rows(const fv_kernels *k, operands *o)
{
    o->value = (double)k->exp2_rows(o->n, o->c, o->out[0], o->ld, o->in[0], o->in[1]);
}

static void prepare_split(operands *o)
{
    for (int64_t i = 0; i < o->n * o->c; i += 3)
        o->out[0][i] = 0.0f;
}

/* Variants: `zero`, times which of the outputs are not wanted; those must stay as they are in every set. */
static void call_split(const fv_kernels *k, operands *o)
{
    float *m = o->variant / 2 == 1 ? NULL : o->out[1], *inverse = o->variant / 2 == 2 ? NULL : o->out[2];
    k->split(o->n * o->c, o->variant % 2 ? -INFINITY : 0.0f, o->out[0], m, inverse);
}

static void call_sincos_rows(const fv_kernels *k, operands *o)
{
    k->sincos_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->out[1], o->ld);
}

/* A triangle of few columns, so that it fits the columns at hand: d (d + 1) / 2 <= c. */
static int64_t triangle_side(const operands *o)
{
    int64_t d = 0;
    while ((d + 1) * (d + 2) / 2 <= o->c)
        d++;
    return d;
}

static void call_square_rows(const fv_kernels *k, operands *o)
{
    int64_t d = triangle_side(o), r = d * (d + 1) / 2;
    const float *x = o->in[0];
    for (int64_t i = 0; i < o->n; i++)
        for (int64_t f = r; f < o->c; f++)
            o->out[0][i * o->ld + f] = 0.0f;
    if (o->variant == 1) { /* the row stands at the end of its products */
        for (int64_t i = 0; i < o->n; i++)
            for (int64_t f = 0; f < d; f++)
                o->out[0][i * o->ld + r - d + f] = o->in[0][i * o->ld + f];
        x = o->out[0] + r - d;
    }
    if (d > 0)
        k->square_rows(o->n, d, 0.7f, x, o->ld, o->out[0], o->ld);
}

static void call_square_rows_back(const fv_kernels *k, operands *o)
{
    int64_t d = triangle_side(o);
    if (d > 0)
        k->square_rows_back(o->n, d, 0.7f, o->in[0], o->ld, o->in[1], o->ld, o->out[0], o->ld);
}

static void call_cyclic_rows(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->cyclic_rows(o->n, o->c, o->in[0], o->ld, o->out[0], o->ld);
}

static void call_cyclic_rows_back(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->cyclic_rows_back(o->n, o->c, o->in[0], o->ld, o->in[1], o->ld, o->out[0], o->ld);
}

/* The sum errs by eps of itself and eps |top - x| of its terms; its logarithm is known to eps of that. */
static void call_log2_sums(const fv_kernels *k, operands *o)
{
    if (o->c > 0)
        k->log2_sums(o->n, o->c, o->in[0], o->ld, o->out[0]);
}

static void magnitude_log2_sums(operands *a, const operands *r)
{
    for (int64_t i = 0; i < r->n; i++)
        a->out[0][i] = fabsf(r->out[0][i]) + 4.0f;
}

static const int64_t *variant_visible(const operands *o)
{
    return o->variant & 1 ? NULL : o->visible;
}

static void call_softmax_tile(const fv_kernels *k, operands *o)
{
    k->softmax_tile(o->n, o->c, o->out[0], o->ld, variant_visible(o), o->out[1], o->out[2], o->out[3]);
}

static void prepare_softmax_tile(operands *o)
{
    for (int64_t i = 0; i < o->n; i++) {
        bool fresh = i % 2 == 0;
        if (fresh)
            o->out[1][i] = -INFINITY;
        o->out[2][i] = fresh ? 0.0f : fabsf(o->out[2][i]);
    }
}

static void call_softmax_end(const fv_kernels *k, operands *o)
{
    k->softmax_end(o->n, o->in[0], o->in[1], o->out[0], o->variant ? NULL : o->out[1]);
}

static void call_softmax_probs(const fv_kernels *k, operands *o)
{
    k->softmax_probs(o->n, o->c, o->out[0], o->ld, variant_visible(o), o->in[0]);
}

static void prepare_softmax_probs(operands *o)
{
    if (o->n > 1)
        o->in[0][1] = -INFINITY;
}

static void call_straddle_dots(const fv_kernels *k, operands *o)
{
    k->straddle_dots(o->n, o->c, o->in[0], o->ld, o->in[1], o->ld, o->out[0]);
}

static void call_softmax_back(const fv_kernels *k, operands *o)
{
    k->softmax_back(o->n, o->c, o->in[0], o->ld, o->in[1], o->ld, o->in[2], o->out[0], o->ld);
}

/* |p| (|dp| + |delta|) */
static void magnitude_softmax_back(operands *a, const operands *r)
{
    (void)r;
    for (int64_t i = 0; i < a->n; i++)
        a->in[2][i] = -a->in[2][i];
    fv_softmax_back_reference(a->n, a->c, a->in[0], a->ld, a->in[1], a->ld, a->in[2], a->out[0], a->ld);
}

/* clang-format off */
const kernel_case kernel_cases_features[] = {
    {CALL(exp2_rows_top), .in = "C", .out = "Rn", .variants = 2, SELF},
    {CALL(exp2_rows), .in = "NC", .out = "R", .variants = 1, SELF},
    {CALL(split), .in = "", .out = "Ddd", .variants = 6, PREPARE(split), SELF},
    {CALL(sincos_rows), .in = "R", .out = "rr", .variants = 1, SELF},
    {CALL(square_rows), .in = "R", .out = "r", .variants = 2, SELF},
    {CALL(square_rows_back), .in = "RR", .out = "R", .variants = 1},
    {CALL(cyclic_rows), .in = "R", .out = "r", .variants = 1, SELF, .in_place = 1},
    {CALL(cyclic_rows_back), .in = "RR", .out = "r", .variants = 1},
    {CALL(log2_sums), .in = "R", .out = "n", .variants = 1, MAGNITUDE(log2_sums)},
    {CALL(softmax_tile), .in = "", .out = "RNNn", .variants = 2, PREPARE(softmax_tile), SELF},
    {CALL(softmax_end), .in = "NN", .out = "nn", .variants = 2, SELF, .in_place = 2},
    {CALL(softmax_probs), .in = "N", .out = "R", .variants = 2, PREPARE(softmax_probs), SELF},
    {CALL(softmax_back), .in = "RRN", .out = "r", .variants = 1, MAGNITUDE(softmax_back), .in_place = 2},
    {CALL(straddle_dots), .in = "RR", .out = "c", .variants = 1},
    {.name = NULL},
};
/* clang-format on */
