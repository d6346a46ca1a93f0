/* test_extremes.c: finite inputs of any size. Outputs are finite and, where weights are not negative, lie between the values that a
 * row sees; they are those of the specification where double holds it, and what has all the weight in exact arithmetic has it
 * here where it does not; gradients are finite where they are floats. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/mechanism.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/problem.h"
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Sums of numerator and normaliser, rounded apart (test_attention_laws.c, constant_v). */
#define ROUNDING (16 * (double)FLT_EPSILON)

/* ---- a case ---------------------------------------------------------------------------------------- */

enum { L = 21, H = 2 };

/* Factors on normal inputs, and what stands around the kind. */
typedef struct setting {
    double q, k, v;
    const char *around; /* for messages */
    double size;
} setting;

static fv_attention_options options_of(int kind, int causal)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind)->name;
    o.heads = H, o.kv_heads = 1, o.dim = 8, o.value_dim = 3, o.causal = causal, o.features = 12, o.chunk = 8;
    kind_small_options(&o);
    return o;
}

static bool kernelized(int kind)
{
    return fv_attention_kind_at(kind)->kernelized;
}

static bool exponential(int kind)
{
    const fv_feature_map *map = fv_mechanism_find(fv_attention_kind_at(kind)->name)->map;
    return map != NULL && map->exponential;
}

/* Doubles hold the products of such features; those of a series are powers of any degree. */
static bool plain_of_fixed_degree(int kind)
{
    const fv_feature_map *map = fv_mechanism_find(fv_attention_kind_at(kind)->name)->map;
    return map != NULL && !map->exponential && map->series == NULL;
}

/* Weights that are never negative keep y between the values. */
static bool has_hull(int kind)
{
    return !kind_has(kind, KIND_CANCELS | KIND_MIXES);
}

static void multiply(float *x, int64_t n, double factor)
{
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)((double)x[i] * factor);
}

static problem *make(const fv_attention_options *o, const setting *s)
{
    const int64_t length = L;
    problem_shape shape = {.sequences = 1, .queries = &length, .seed = 31};
    problem *p = problem_make(ctx, o, &shape);
    bool meets = kind_row_of(o->kind)->traits & KIND_EMPTY; /* no query without a key */
    for (int64_t i = 0; meets && i < L * problem_row_q(p); i++)
        p->q[i] = fabsf(p->q[i]);
    for (int64_t i = 0; meets && i < L * problem_row_k(p); i++)
        p->k[i] = fabsf(p->k[i]);
    multiply(p->q, L * problem_row_q(p), s->q);
    multiply(p->k, L * problem_row_k(p), s->k);
    multiply(p->v, L * problem_row_v(p), s->v);
    return p;
}

static void failed(const problem *p, const setting *s, const char *what, int64_t i, double value)
{
    fail_msg("%s %s, sizes %g %g %g, %s %g: %s[%lld] is %g", p->info.options.kind,
             p->info.options.causal ? "causal" : "bidirectional", s->q, s->k, s->v,
             s->around != NULL ? s->around : "around", s->size, what, (long long)i, value);
}

/* y[i] of row t lies between the values of its column that t may see. */
static void check_hull(const problem *p, const setting *s)
{
    const fv_attention_options *o = &p->info.options;
    for (int64_t i = 0; i < L * problem_row_y(p); i++) {
        double low = HUGE_VAL, high = -HUGE_VAL, y = (double)p->y[i];
        int64_t t = i / problem_row_y(p), keys = o->causal ? t + 1 : L;
        for (int64_t j = 0; j < keys; j++) {
            double v = (double)p->v[j * problem_row_v(p) + i % o->value_dim];
            low = fmin(low, v), high = fmax(high, v);
        }
        double slack = ROUNDING * fmax(fabs(low), fabs(high));
        if (!(y >= low - slack && y <= high + slack))
            failed(p, s, "outside the values: y", i, y);
    }
}

static void check_finite(const problem *p, const setting *s, const char *what, const float *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            failed(p, s, what, i, (double)x[i]);
}

static void check_output(int kind, const problem *p, const setting *s)
{
    check_finite(p, s, "y", p->y, L * problem_row_y(p));
    if (has_hull(kind))
        check_hull(p, s);
}

static void check_gradients(problem *p, const setting *s)
{
    problem_backward(p);
    check_finite(p, s, "dq", p->dq, L * problem_row_q(p));
    check_finite(p, s, "dk", p->dk, L * problem_row_k(p));
    check_finite(p, s, "dv", p->dv, L * problem_row_v(p));
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (p->d_input[i] != NULL)
            check_finite(p, s, fv_input_name((fv_input)i), p->d_input[i], p->input_floats[i]);
}

static char *empty_state(problem *p, size_t *bytes)
{
    assert_int_equal(fv_attention_state_bytes(p->op, L, bytes), FV_OK);
    char *memory = fv_alloc(ctx, *bytes);
    assert_int_equal(fv_attention_state_init(p->op, L, memory), FV_OK);
    return memory;
}

/* Token by token through a state, where the kind streams. */
static void check_stream(int kind, problem *p, const setting *s)
{
    fv_attention_io io = problem_io(p);
    size_t bytes;
    if (!p->info.can_stream)
        return;
    char *stream = empty_state(p, &bytes);
    for (int64_t t = 0; t < L; t++) {
        assert_int_equal(fv_attention_step(p->op, 1, &io, stream, bytes, p->scratch), FV_OK);
        io.q += problem_row_q(p), io.k += problem_row_k(p), io.v += problem_row_v(p),
            io.y += problem_row_y(p);
        if (io.input[FV_INPUT_GATE] != NULL)
            io.input[FV_INPUT_GATE] += H;
    }
    check_output(kind, p, s);
    fv_free(ctx, stream);
}

/* ---- norms ----------------------------------------------------------------------------------------- */

static const double norms[] = {1e-30, 1e-18, 1e-6, 1, 1e4, 1e6, 1e10, 1e18, 1e30};

/* Scores q.k of softmax must be floats. */
static bool within_range(int kind, double q, double k)
{
    return kernelized(kind) || q * k < 1e37;
}

static void norms_of_all_sizes(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int causal = 0; causal <= kind_runs(kind, 1); causal++) {
            fv_attention_options o = options_of(kind, causal);
            for (int n = 0; n < FV_COUNT(norms) * FV_COUNT(norms); n++) {
                setting s = {norms[n / FV_COUNT(norms)], norms[n % FV_COUNT(norms)], 1, NULL, 0};
                if (!within_range(kind, s.q, s.k))
                    continue;
                problem *p = make(&o, &s);
                problem_forward(p, true);
                check_output(kind, p, &s);
                check_gradients(p, &s);
                check_stream(kind, p, &s);
                problem_free(p);
            }
        }
    }
}

static void values_of_all_sizes(void **state)
{
    static const double values[] = {1e-30, 1e-18, 1e18};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; n < 2 * FV_COUNT(norms) * FV_COUNT(values); n++) {
            double norm = norms[n / 2 % FV_COUNT(norms)];
            setting s = {norm, norm, values[n / 2 / FV_COUNT(norms)], NULL, 0};
            if (!within_range(kind, norm, norm) || (n % 2 && !kind_runs(kind, 1)))
                continue;
            fv_attention_options o = options_of(kind, n % 2);
            problem *p = make(&o, &s);
            problem_forward(p, false);
            check_output(kind, p, &s);
            check_stream(kind, p, &s);
            problem_free(p);
        }
    }
}

/* Generalized maps that stay in range without epsilon: no exponential, no guard that takes the sign of what underflows. */
static bool has_zero_epsilon(int kind)
{
    static const fv_function powers[] = {FV_FUNCTION_RELU, FV_FUNCTION_ABS, FV_FUNCTION_SQUARE,
                                         FV_FUNCTION_RELU2};
    const fv_feature_map *map = fv_mechanism_find(fv_attention_kind_at(kind)->name)->map;
    bool found = false;
    for (int i = 0; i < FV_COUNT(powers); i++)
        found |= map->generalized && map->function == powers[i];
    return found;
}

/* Plain maps against the specification, whose doubles hold products of such features. */
static void plain_maps_are_right(void **state)
{
    static const double pairs[][2] = {{1e-30, 1e-30}, {1e-30, 1}, {1e-30, 1e-9}, {1e-18, 1e-6}, {1, 1e-30},
                                      {1e10, 1e10},   {1e18, 1},  {1e18, 1e18},  {1e30, 1e-6}};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        const fv_feature_map *map = fv_mechanism_find(fv_attention_kind_at(kind)->name)->map;
        for (int n = 0; plain_of_fixed_degree(kind) && n < 4 * FV_COUNT(pairs); n++) {
            fv_attention_options o = options_of(kind, n % 2);
            setting s = {pairs[n / 4][0], pairs[n / 4][1], 1, NULL, 0};
            if (n / 2 % 2 && has_zero_epsilon(kind))
                o.epsilon = 0;
            problem *p = make(&o, &s);
            problem_forward(p, true);
            problem_backward(p);
            worst forward = problem_check_forward(p), gradient = problem_check_gradients(p, 2);
            worst_check(&forward, kind_row_at(kind)->forward, "of extreme norms", p);
            /* Beside a constant feature, products below 2^-126 of it count as 0, and so do gradients through them. */
            bool lost = map->degrees != NULL && kind_has(kind, KIND_WIDE) && s.q * s.k < 0x1p-126;
            if (!lost)
                worst_check(&gradient, kind_row_at(kind)->gradient, "gradient of extreme norms", p);
            problem_free(p);
        }
    }
}

/* The key that has all the weight of row i of head h; -1: none has, or a change of the keys by a few roundings decides. */
static int64_t winner(problem *p, int64_t h, int64_t i)
{
    num row[L];
    int64_t found = -1;
    for (int n = 0; n < 3; n++) {
        problem_spec_row(p, h, i, row);
        int64_t best = 0;
        for (int64_t j = 0; j < L; j++)
            best = num_value(row[j]) > num_value(row[best]) ? j : best;
        if (!(num_value(row[best]) > 1 - 1e-12) || (n > 0 && best != found))
            return -1;
        found = best;
        for (int64_t e = 0; e < L * problem_row_k(p); e++)
            p->k[e] *= (e * 7 + n) % 3 == n ? 1 + 0x1p-19f : 1 - 0x1p-19f;
    }
    return found;
}

/* Exponential maps: where one key has all the weight, its value comes out, to the last bits. */
static void the_largest_weight_dominates(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        int64_t decided = 0;
        for (int n = 0; exponential(kind) && has_hull(kind) && n < 10; n++) {
            fv_attention_options o = options_of(kind, n % 2);
            if (fv_attention_kind_takes(fv_attention_kind_at(kind), "psi", NULL))
                o.psi = 1.75; /* a measured one ends at 2^16 */
            setting s = {n % 4 < 2 ? 1 : norms[4 + n / 2], norms[4 + n / 2], 1, NULL, 0};
            problem *p = make(&o, &s);
            problem_forward(p, false);
            for (int64_t i = 0; i < L * H; i += 3) {
                int64_t best = winner(p, i % H, i / H);
                for (int64_t c = 0; best >= 0 && c < o.value_dim; c++) {
                    double y = (double)p->y[i * o.value_dim + c], v = (double)p->v[best * o.value_dim + c];
                    if (!(fabs(y - v) <= ROUNDING * fabs(v)))
                        failed(p, &s, "not the largest weight's value: y", i, y);
                }
                decided += best >= 0;
            }
            problem_free(p);
        }
        assert_true(!exponential(kind) || !has_hull(kind) || decided > 30);
    }
}

/* ---- gate and decay ---------------------------------------------------------------------------------- */

/* Gates and decays; negative: 1, 0 and 1e-30 by turns, but for the first token. */
static const double factors[] = {0.5, 1e-30, 1e-38, 0, 1 - 1e-7, -1};

static void set_factors(problem *p, double x)
{
    static const float turns[] = {0, 1, 1e-30f, 1, 1};
    for (int64_t i = 0; i < p->input_floats[FV_INPUT_GATE]; i++)
        p->input[FV_INPUT_GATE][i] = x >= 0 ? (float)x : turns[i / H % FV_COUNT(turns)];
    for (int64_t i = 0; i < p->input_floats[FV_INPUT_DECAY]; i++)
        p->input[FV_INPUT_DECAY][i] = (float)fabs(x);
}

static void factors_of_all_sizes(void **state)
{
    static const double sizes[][3] = {{1, 1, 1},       {1e-30, 1e-30, 1}, {1e6, 1e6, 1},
                                      {1e18, 1e18, 1}, {1, 1, 1e18},      {1, 1, 1e-18}};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; kernelized(kind) && n < 3 * FV_COUNT(factors) * FV_COUNT(sizes); n++) {
            fv_attention_options o = options_of(kind, 1);
            const double *size = sizes[n / 3 % FV_COUNT(sizes)], x = factors[n / 3 / FV_COUNT(sizes)];
            setting s = {size[0], size[1], size[2], n % 3 == 0 ? "gate" : n % 3 == 1 ? "decay" : "both", x};
            o.gate = n % 3 != 1, o.decay = n % 3 != 0;
            problem *p = make(&o, &s);
            set_factors(p, x);
            problem_forward(p, true);
            check_output(kind, p, &s);
            /* What a large key that is forgotten would have done is larger than floats. */
            if (size[2] == 1 && (size[0] <= 1 || x == 0.5))
                check_gradients(p, &s);
            check_stream(kind, p, &s);
            problem_free(p);
        }
    }
}

/* Gates of exactly 0 and 1 against the specification, gradients too. */
static void closed_and_open_gates(void **state)
{
    static const float turns[][5] = {{0, 1, 0.5f, 1, 1}, {1, 1, 0.25f, 0, 0}, {0.5f, 0, 1, 0, 1}};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; kernelized(kind) && n < 2 * FV_COUNT(turns); n++) {
            fv_attention_options o = options_of(kind, 1);
            setting s = {1, 1, 1, "turns", n};
            o.gate = 1, o.decay = n % 2;
            if (n / 2 == 1 && kind_has(kind, KIND_CANCELS))
                continue; /* nothing seen at first: a guarded normaliser of 0 has the sign of 10^-200 in the specification */
            problem *p = make(&o, &s);
            for (int64_t i = 0; i < L * H; i++)
                p->input[FV_INPUT_GATE][i] = turns[n / 2][i / H % 5];
            problem_forward(p, true);
            problem_backward(p);
            worst forward = problem_check_forward(p), gradient = problem_check_gradients(p, 8);
            worst_check(&forward, kind_row_at(kind)->forward, "of gates 0 and 1", p);
            bool zeros = kind_has(kind, KIND_EMPTY) || strcmp(o.kind, "rfa-arccos") == 0;
            if (!zeros) /* features that no key seen so far has, hidden by a gate: see kernelized_decay.c */
                worst_check(&gradient, kind_row_at(kind)->gradient, "gradient of gates 0 and 1", p);
            problem_free(p);
        }
    }
}

/* A feature that only an old key has, after more decay than floats hold: the query that has only it gets that key's value, in
 * chunks, through a state, and in rows of the matrix; with values of any size. */
static void what_only_an_old_key_has(void **state)
{
    static const double values[] = {1e-30, 1, 1e18};
    (void)state;
    for (int n = 0; n < 3 * 2 * FV_COUNT(values); n++) {
        static const char *const kinds[] = {"relu", "square", "dpfp"};
        fv_attention_options o;
        fv_attention_options_init(&o);
        o.kind = kinds[n % 3], o.heads = H, o.kv_heads = 1, o.dim = 4, o.value_dim = 3, o.causal = 1,
        o.chunk = 8;
        if (n % 3 < 2)
            o.epsilon = 0;
        o.gate = n / 3 % 2, o.decay = !o.gate;
        setting s = {1, 1, values[n / 6], o.kind, 0};
        problem *p = make(&o, &s);
        for (int64_t i = 0; i < L * 4; i++)
            p->k[i] = (i < 4) == (i % 4 < 2) ? 1 + (float)i
                                             : 0; /* channels 0 and 1 of token 0; 2 and 3 of the others */
        for (int64_t i = 0; i < L * 8; i++)
            p->q[i] = (i >= (L - 1) * 8) == (i % 4 < 2) ? 1 + (float)i : 0; /* 0 and 1 of the last query */
        set_factors(p, 1e-30);
        for (int by_step = 0; by_step < 2; by_step++) {
            if (by_step)
                check_stream(fv_attention_kind_count() - 1, p, &s);
            else
                problem_forward(p, false);
            for (int64_t i = 0; i < 2 * 3; i++)
                if (!(fabs((double)(p->y[(L - 1) * 6 + i] - p->v[i % 3])) <=
                      ROUNDING * fabs((double)p->v[i % 3])))
                    failed(p, &s, by_step ? "by step: y" : "y", i, (double)p->y[(L - 1) * 6 + i]);
        }
        float row[H * L];
        const int64_t last = L - 1;
        fv_attention_io io = problem_io(p);
        assert_int_equal(fv_attention_weights(p->op, &p->layout, &io, &last, 1, row, p->scratch), FV_OK);
        assert_true(fabs((double)row[0] - 1) <= ROUNDING && row[1] == 0);
        problem_free(p);
    }
}

/* ---- both forms of plain maps ------------------------------------------------------------------------ */

/* Plain maps change to exponents inside a sequence: keys that grow and shrink by 10^16 on the way, chunk sizes, several
 * segments. */
static void sizes_that_change(void **state)
{
    static const int64_t chunks[] = {1, 4, 64};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; plain_of_fixed_degree(kind) && n < 4 * FV_COUNT(chunks); n++) {
            fv_attention_options o = options_of(kind, n % 2);
            setting s = {1, 1, 1, "chunk", (double)chunks[n / 4]};
            o.chunk = chunks[n / 4];
            problem *p = make(&o, &s);
            for (int64_t t = 0; t < L; t++) {
                double size = t < 5 ? 1 : pow(10, (n / 2 % 2 ? 1 : -1) * (double)(t - 4));
                multiply(p->k + t * 8, 8, size);
                multiply(p->q + t * 16, 16, t % 4 == 3 ? 1 / size : 1);
            }
            problem_forward(p, true);
            problem_backward(p);
            worst forward = problem_check_forward(p), gradient = problem_check_gradients(p, 2),
                  rows = problem_check_rows(p);
            worst_check(&forward, kind_row_at(kind)->forward, "of changing sizes", p);
            worst_check(&gradient, kind_row_at(kind)->gradient, "gradient of changing sizes", p);
            worst_check(&rows, kind_row_at(kind)->forward, "rows of changing sizes", p);
            check_stream(kind, p, &s);
            problem_free(p);
        }
    }
}

/* With exponents a feature of 0 has no logarithm; where features have both signs its slope counts all the same. */
static void zeros_have_gradients(void **state)
{
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        if (!plain_of_fixed_degree(kind) || !kind_has(kind, KIND_CANCELS | KIND_WIDE))
            continue;
        fv_attention_options o = options_of(kind, 1);
        o.decay = 1; /* exponents from the first token on */
        if (fv_attention_kind_at(kind)->generalized)
            o.epsilon = 0;
        setting s = {1, 1, 1, NULL, 0};
        problem *p = make(&o, &s);
        for (int64_t i = 0; i < L * problem_row_q(p); i += o.dim)
            p->q[i] = 0;
        for (int64_t i = 1; i < L * problem_row_k(p); i += o.dim)
            p->k[i] = 0;
        problem_forward(p, true);
        problem_backward(p);
        worst gradient = problem_check_gradients(p, 8);
        worst_check(&gradient, kind_row_at(kind)->gradient, "gradient of zeros", p);
        problem_free(p);
    }
}

/* Keys [from, from + keys) are added to the state, or query `from` reads it where there are none. */
static void recall(problem *p, char *memory, int64_t from, int64_t keys)
{
    int64_t offsets_q[] = {0, keys == 0}, offsets_k[] = {0, keys};
    fv_layout layout = {1, offsets_q, offsets_k};
    fv_attention_io io = problem_io(p);
    io.q += from * problem_row_q(p), io.k += from * problem_row_k(p);
    io.v += from * problem_row_v(p), io.y += from * problem_row_y(p);
    io.state = memory, io.first_query = from;
    assert_int_equal(fv_attention_forward(p->op, &layout, &io, NULL, p->scratch), FV_OK);
}

static void check_halves(int kind, problem *p)
{
    size_t bytes;
    char *a = empty_state(p, &bytes), *b = empty_state(p, &bytes);
    recall(p, a, 0, L / 2);
    recall(p, b, L / 2, L - L / 2);
    assert_int_equal(fv_attention_state_merge(p->op, a, a, b), FV_OK);
    memcpy(b, a, bytes);
    for (int64_t i = 0; i < L; i++)
        recall(p, a, i, 0);
    assert_memory_equal(a, b, bytes);
    worst w = problem_check_forward(p);
    worst_check(&w, kind_row_at(kind)->forward, "recalled from halves of other sizes", p);
    fv_free(ctx, a), fv_free(ctx, b);
}

/* States of halves of the keys, of sizes far apart and with a channel that is 0 in all, merge; queries that are so short that
 * they want exponents read them, and leave every bit. */
static void halves_of_other_sizes(void **state)
{
    static const double sizes[][3] = {
        {1, 1, 1e-30}, {1, 1e-30, 1}, {1e-18, 1, 1}, {1, 1e18, 1}, {1e18, 1, 1e-6}};
    (void)state;
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        for (int n = 0; plain_of_fixed_degree(kind) && n < 2 * FV_COUNT(sizes); n++) {
            fv_attention_options o = options_of(kind, 0);
            if (n % 2 && has_zero_epsilon(kind))
                o.epsilon = 0;
            setting s = {sizes[n / 2][0], 1, 1, "recalled", n};
            problem *p = make(&o, &s);
            for (int64_t i = 0; i < L * problem_row_k(p); i++)
                p->k[i] *= i % o.dim == 0 ? 0 : (float)sizes[n / 2][i < L / 2 * problem_row_k(p) ? 1 : 2];
            if (p->info.can_recall)
                check_halves(kind, p);
            problem_free(p);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_of_all_sizes),       cmocka_unit_test(values_of_all_sizes),
        cmocka_unit_test(plain_maps_are_right),     cmocka_unit_test(the_largest_weight_dominates),
        cmocka_unit_test(factors_of_all_sizes),     cmocka_unit_test(closed_and_open_gates),
        cmocka_unit_test(what_only_an_old_key_has), cmocka_unit_test(sizes_that_change),
        cmocka_unit_test(zeros_have_gradients),     cmocka_unit_test(halves_of_other_sizes),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
