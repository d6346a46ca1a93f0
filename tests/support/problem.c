/* support/problem.c: see problem.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/problem.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EPS ((double)FLT_EPSILON)
/* Powers of two flush below FLT_MIN, beside sums that may reach 2^20 (attention/kernelized.c). */
#define TINY ((double)FLT_MIN * 0x1p20)

/* What lies between the rows; no call may touch it. */
#define CANARY 0x1.5p77f

fv_context *problem_context(const char *cpu, int threads)
{
    fv_context_options options;
    fv_context *ctx = NULL;
    fv_context_options_init(&options);
    options.cpu = cpu;
    options.threads = threads;
    assert_int_equal(fv_context_create(&ctx, &options), FV_OK);
    return ctx;
}

int64_t problem_row_q(const problem *p)
{
    return p->info.options.heads * p->info.options.dim;
}

int64_t problem_row_k(const problem *p)
{
    return p->info.options.kv_heads * p->info.options.dim;
}

int64_t problem_row_v(const problem *p)
{
    return p->info.options.kv_heads * p->info.options.value_dim;
}

int64_t problem_row_y(const problem *p)
{
    return p->info.options.heads * p->info.options.value_dim;
}

/* ---- making -------------------------------------------------------------------------------------------- */

static int64_t *offsets_of(int64_t sequences, const int64_t *lengths)
{
    int64_t *offsets = calloc((size_t)sequences + 1, sizeof *offsets);
    for (int64_t s = 0; s < sequences; s++)
        offsets[s + 1] = offsets[s] + lengths[s];
    return offsets;
}

static float *tensor(const problem *p, int64_t tokens, int64_t row)
{
    int64_t floats = tokens * (row + p->pad);
    float *x = fv_alloc(p->ctx, (size_t)floats * sizeof *x);
    assert_non_null(x);
    for (int64_t i = 0; i < floats; i++)
        x[i] = CANARY;
    return x;
}

static float *random_tensor(const problem *p, int64_t tokens, int64_t row, double spread, uint64_t seed,
                            uint32_t which)
{
    fv_random random = fv_random_make(seed, FV_RANDOM_TEST, which, 0);
    float *x = tensor(p, tokens, row);
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t c = 0; c < row; c++)
            x[t * (row + p->pad) + c] = (float)(spread * fv_random_normal(&random));
    return x;
}

static void zero_rows(const problem *p, float *x, int64_t tokens, int64_t row)
{
    for (int64_t t = 0; t < tokens; t++)
        memset(x + t * (row + p->pad), 0, (size_t)row * sizeof *x);
}

static void *memory(const problem *p, size_t bytes)
{
    void *block = fv_alloc(p->ctx, bytes);
    assert_non_null(block);
    memset(block, 0xAA, bytes); /* nothing may rely on fresh memory */
    return block;
}

/* Values an input may have: gates and decays inside (0, 1), factors about 1, the rest normal. */
static float input_value(fv_input which, double normal, double uniform)
{
    switch (which) {
    case FV_INPUT_GATE:
        return (float)(0.1 + 0.8 * uniform);
    case FV_INPUT_DECAY:
        return (float)(0.5 + 0.5 * uniform);
    case FV_INPUT_PPSBN_GAMMA:
    case FV_INPUT_PPSBN_BETA:
    case FV_INPUT_BANDWIDTH:
    case FV_INPUT_REBASED_GAMMA:
    case FV_INPUT_PSI_DIAGONAL:
        return (float)(0.6 + 0.8 * uniform);
    default:
        return (float)(0.5 * normal);
    }
}

static void make_inputs(problem *p, uint64_t seed)
{
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        fv_input_info info;
        if (!fv_attention_input(p->op, (fv_input)i, &info))
            continue;
        int64_t n = info.floats * (info.role == FV_ROLE_TOKEN ? p->tk : 1);
        p->input_floats[i] = n;
        if (info.has_gradient)
            p->d_input[i] = fv_alloc_zero(p->ctx, n + 1, sizeof(float));
        if (info.role == FV_ROLE_DRAWN)
            continue;
        fv_random random = fv_random_make(seed, FV_RANDOM_TEST, 20 + (uint32_t)i, 0);
        p->input[i] = fv_alloc_zero(p->ctx, n + 1, sizeof(float));
        for (int64_t e = 0; e < n; e++) {
            double normal = fv_random_normal(&random), uniform = fv_random_uniform(&random);
            p->input[i][e] = input_value((fv_input)i, normal, uniform);
        }
    }
}

problem *problem_make(fv_context *ctx, const fv_attention_options *options, const problem_shape *shape)
{
    fv_attention_options complete = *options;
    problem *p = calloc(1, sizeof *p);
    double spread = shape->spread > 0 ? shape->spread : 1;
    p->ctx = ctx;
    p->pad = shape->pad;
    kind_complete(&complete);
    if (fv_attention_create(&p->op, ctx, &complete) != FV_OK)
        fail_msg("%s", fv_context_message(ctx));
    fv_attention_get_info(p->op, &p->info);
    p->offsets_q = offsets_of(shape->sequences, shape->queries);
    p->offsets_k = offsets_of(shape->sequences, shape->keys != NULL ? shape->keys : shape->queries);
    p->layout = (fv_layout){shape->sequences, p->offsets_q, shape->keys != NULL ? p->offsets_k : NULL};
    p->tq = p->offsets_q[shape->sequences];
    p->tk = p->offsets_k[shape->sequences];
    p->q = random_tensor(p, p->tq, problem_row_q(p), spread, shape->seed, 0);
    p->k = random_tensor(p, p->tk, problem_row_k(p), spread, shape->seed, 1);
    p->v = random_tensor(p, p->tk, problem_row_v(p), 1, shape->seed, 2);
    p->dy = random_tensor(p, p->tq, problem_row_y(p), 1, shape->seed, 3);
    p->y = tensor(p, p->tq, problem_row_y(p));
    p->dq = tensor(p, p->tq, problem_row_q(p));
    p->dk = tensor(p, p->tk, problem_row_k(p));
    p->dv = tensor(p, p->tk, problem_row_v(p));
    make_inputs(p, shape->seed);
    if (p->info.drawn_floats > 0) {
        p->w = memory(p, (size_t)p->info.drawn_floats * sizeof(float));
        assert_int_equal(fv_attention_draw(p->op, shape->seed, 0, p->w), FV_OK);
    }
    assert_int_equal(fv_attention_measure(p->op, &p->layout, &p->need), FV_OK);
    p->saved = memory(p, p->need.saved);
    p->scratch = memory(p, p->need.scratch);
    return p;
}

void problem_free(problem *p)
{
    void *blocks[] = {p->q, p->k, p->v, p->y, p->dy, p->dq, p->dk, p->dv, p->w, p->saved, p->scratch};
    for (int i = 0; i < FV_COUNT(blocks); i++)
        fv_free(p->ctx, blocks[i]);
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        fv_free(p->ctx, p->input[i]);
        fv_free(p->ctx, p->d_input[i]);
    }
    free(p->offsets_q);
    free(p->offsets_k);
    fv_attention_destroy(p->op);
    free(p);
}

/* ---- running ------------------------------------------------------------------------------------- */

static int64_t stride(const problem *p, int64_t row)
{
    return p->pad > 0 ? row + p->pad : 0;
}

fv_attention_io problem_io(const problem *p)
{
    fv_attention_io io = {
        .q = p->q,
        .k = p->k,
        .v = p->v,
        .y = p->y,
        .q_stride = stride(p, problem_row_q(p)),
        .k_stride = stride(p, problem_row_k(p)),
        .v_stride = stride(p, problem_row_v(p)),
        .y_stride = stride(p, problem_row_y(p)),
    };
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        io.input[i] = p->input[i];
    fv_attention_bind_drawn(p->op, p->w, &io);
    return io;
}

static void check_canaries(const problem *p, const float *x, int64_t tokens, int64_t row)
{
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t c = row; c < row + p->pad; c++)
            if (x[t * (row + p->pad) + c] != CANARY)
                fail_msg("%s wrote between the rows of a tensor", p->info.options.kind);
}

void problem_forward(problem *p, bool keep)
{
    fv_attention_io io = problem_io(p);
    if (fv_attention_forward(p->op, &p->layout, &io, keep ? p->saved : NULL, p->scratch) != FV_OK)
        fail_msg("%s", fv_context_message(p->ctx));
    check_canaries(p, p->y, p->tq, problem_row_y(p));
}

void problem_backward(problem *p)
{
    fv_attention_io io = problem_io(p);
    fv_attention_grad grad = {.dy = p->dy, .dq = p->dq, .dk = p->dk, .dv = p->dv};
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        grad.d_input[i] = p->d_input[i];
        if (p->d_input[i] != NULL)
            memset(p->d_input[i], 0, (size_t)p->input_floats[i] * sizeof(float));
    }
    zero_rows(p, p->dq, p->tq, problem_row_q(p));
    zero_rows(p, p->dk, p->tk, problem_row_k(p));
    zero_rows(p, p->dv, p->tk, problem_row_v(p));
    if (fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch) != FV_OK)
        fail_msg("%s", fv_context_message(p->ctx));
    check_canaries(p, p->dq, p->tq, problem_row_q(p));
    check_canaries(p, p->dk, p->tk, problem_row_k(p));
    check_canaries(p, p->dv, p->tk, problem_row_v(p));
}

/* ---- comparing ----------------------------------------------------------------------------------- */

void worst_update(worst *w, double got, double want, double m, int64_t index)
{
    double error = fabs(got - want), ratio = error == 0 ? 0 : error / (EPS * m + TINY);
    if (isnan(got) != isnan(want) || isnan(ratio))
        ratio = isnan(got) && isnan(want) ? 0 : HUGE_VAL;
    if (!(ratio <= w->ratio))
        *w = (worst){ratio, got, want, m, index};
}

void worst_check(const worst *w, double c, const char *what, const problem *p)
{
    const fv_attention_options *o = &p->info.options;
    if (w->ratio <= c)
        return;
    fail_msg("%s %s (cpu %s, %s, tokens %lld/%lld in %lld, H %lld G %lld d %lld dv %lld m %lld chunk %lld, "
             "projection "
             "%d, denominator %d): entry %lld is %.9g, expected %.9g: %.3g eps m, allowed %g",
             o->kind, what, fv_context_cpu(p->ctx), o->causal ? "causal" : "bidirectional", (long long)p->tq,
             (long long)p->tk, (long long)p->layout.sequences, (long long)o->heads, (long long)o->kv_heads,
             (long long)o->dim, (long long)o->value_dim, (long long)p->info.projection_rows,
             (long long)o->chunk, (int)o->projection, (int)o->denominator, (long long)w->index, w->got,
             w->want, w->ratio, c);
}

static double *widen(const problem *p, const float *x, int64_t tokens, int64_t row)
{
    double *out = calloc((size_t)(tokens * row + 1), sizeof *out);
    for (int64_t i = 0; i < tokens * row; i++)
        out[i] = (double)x[i / row * (row + p->pad) + i % row];
    return out;
}

/* The specification of the problem; its tensors are freed by free_spec. */
static spec make_spec(const problem *p)
{
    fv_attention_io io = problem_io(p);
    spec s = {
        .options = p->info.options,
        .m = p->info.projection_rows,
        .r = p->info.feature_count,
        .layout = p->layout,
        .q = widen(p, p->q, p->tq, problem_row_q(p)),
        .k = widen(p, p->k, p->tk, problem_row_k(p)),
        .v = widen(p, p->v, p->tk, problem_row_v(p)),
    };
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        double *wide = io.input[i] != NULL ? calloc((size_t)p->input_floats[i] + 1, sizeof *wide) : NULL;
        for (int64_t e = 0; wide != NULL && e < p->input_floats[i]; e++)
            wide[e] = (double)io.input[i][e];
        s.input[i] = wide;
    }
    return s;
}

static void free_spec(spec *s)
{
    free((void *)(uintptr_t)s->q);
    free((void *)(uintptr_t)s->k);
    free((void *)(uintptr_t)s->v);
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        free((void *)(uintptr_t)s->input[i]);
}

/* y against the specification, or against *value. */
static worst compare_y(const problem *p, const double *value)
{
    int64_t row = problem_row_y(p);
    num *y = malloc((size_t)(p->tq * row + 1) * sizeof *y);
    spec s = make_spec(p);
    worst w = {0};
    spec_forward(&s, y);
    for (int64_t i = 0; i < p->tq * row; i++)
        worst_update(&w, (double)p->y[i / row * (row + p->pad) + i % row],
                     value != NULL ? *value : num_value(y[i]), y[i].m, i);
    free_spec(&s);
    free(y);
    return w;
}

worst problem_check_forward(const problem *p)
{
    return compare_y(p, NULL);
}

worst problem_check_constant(const problem *p, double value)
{
    return compare_y(p, &value);
}

void problem_spec_row(const problem *p, int64_t h, int64_t i, num *row)
{
    spec s = make_spec(p);
    spec_rows(&s, h, &i, 1, row);
    free_spec(&s);
}

/* The derivative of sum dy y along one entry of one input, and its magnitude. */
static void slope(const problem *p, const spec *s, double *want, double *m)
{
    int64_t row = problem_row_y(p);
    num *y = malloc((size_t)(p->tq * row + 1) * sizeof *y);
    spec_forward(s, y);
    *want = *m = 0;
    for (int64_t i = 0; i < p->tq * row; i++) {
        double dy = (double)p->dy[i / row * (row + p->pad) + i % row];
        *want += dy * num_slope(y[i]);
        *m += fabs(dy) * (y[i].mt + y[i].t);
    }
    free(y);
}

/* One gradient with `pad` floats between its rows; *way is the field of the specification that takes the direction:
 * the first and the last entry alone (sample > 1), then `sample` times random signs on all entries: sum of +-dx against the
 * slope, whose magnitude is the sum of the entries'. */
static void check_one(const problem *p, const spec *s, const double **way, const float *grad, int64_t tokens,
                      int64_t row, int64_t pad, int64_t sample, worst *w)
{
    int64_t all = tokens * row;
    fv_random random = fv_random_make(1, FV_RANDOM_TEST, 9, (uint32_t)all);
    double *direction = calloc((size_t)all + 1, sizeof *direction);
    *way = direction;
    assert_in_range(sample, 0, 1 << 20); /* directions, each a run of the specification */
    for (int64_t n = sample > 1 ? 0 : 2; n < sample + 2 && all > 0; n++) {
        double want, m, got = 0;
        for (int64_t e = 0; e < all; e++) {
            bool alone = n == 0 ? e == 0 : e == all - 1;
            direction[e] = n < 2 ? alone : fv_random_u32(&random) >> 31 ? 1 : -1;
            got += direction[e] * (double)grad[e / row * (row + pad) + e % row];
        }
        slope(p, s, &want, &m);
        worst_update(w, got, want, m, n);
    }
    *way = NULL;
    free(direction);
}

worst problem_check_gradients(const problem *p, int64_t sample)
{
    spec s = make_spec(p);
    worst w = {0};
    check_one(p, &s, &s.q_way, p->dq, p->tq, problem_row_q(p), p->pad, sample, &w);
    check_one(p, &s, &s.k_way, p->dk, p->tk, problem_row_k(p), p->pad, sample, &w);
    check_one(p, &s, &s.v_way, p->dv, p->tk, problem_row_v(p), p->pad, sample, &w);
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (p->d_input[i] != NULL)
            check_one(p, &s, &s.input_way[i], p->d_input[i], 1, p->input_floats[i], 0, sample, &w);
    free_spec(&s);
    return w;
}

worst problem_check_rows(const problem *p)
{
    int64_t H = p->info.options.heads, count = H * p->tq * p->tk;
    int64_t *rows = malloc((size_t)(p->tq + 1) * sizeof *rows);
    float *weights = malloc((size_t)(count + 1) * sizeof *weights);
    num *want = malloc((size_t)(count + 1) * sizeof *want);
    fv_attention_io io = problem_io(p);
    io.v = NULL; /* rows have no use for values */
    spec s = make_spec(p);
    worst w = {0};
    for (int64_t i = 0; i < p->tq; i++)
        rows[i] = i;
    if (fv_attention_weights(p->op, &p->layout, &io, rows, p->tq, weights, p->scratch) != FV_OK)
        fail_msg("%s", fv_context_message(p->ctx));
    for (int64_t h = 0; h < H; h++)
        spec_rows(&s, h, rows, p->tq, want + h * p->tq * p->tk);
    for (int64_t n = 0; n < count; n++)
        worst_update(&w, (double)weights[n], num_value(want[n]), want[n].m, n);
    free_spec(&s);
    free(rows);
    free(weights);
    free(want);
    return w;
}

worst problem_check_state(const problem *p, const fv_state_view *view)
{
    int64_t dv = p->info.options.value_dim, rows = p->info.options.heads * view->features;
    num *S = malloc((size_t)(rows * dv) * sizeof *S), *z = malloc((size_t)rows * sizeof *z);
    spec s = make_spec(p);
    worst w = {0};
    spec_state(&s, view->exponent, S, z);
    for (int64_t i = 0; i < rows; i++) {
        worst_update(&w, (double)view->z[i], num_value(z[i]), z[i].m, i);
        for (int64_t c = i * dv; c < (i + 1) * dv; c++)
            worst_update(&w, (double)view->S[c], num_value(S[c]), S[c].m, c);
    }
    free(S);
    free(z);
    free_spec(&s);
    return w;
}
