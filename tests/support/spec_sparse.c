/* support/spec_sparse.c: window, strided, fixed, longformer, bigbird; reformer and linformer. */
#include "attention/sparse.h"
#include "support/spec.h"
#include <math.h>
#include <stdlib.h>

/* The logarithm of the entry is scale q_i.k_j. */
static num softmax_pair(const spec *s, int64_t h, int64_t i, int64_t j)
{
    int64_t d = s->options.dim, g = h * s->options.kv_heads / s->options.heads;
    return num_scaled(s->options.scale, num_dot(s->Q + (i * s->options.heads + h) * d,
                                                s->K + (j * s->options.kv_heads + g) * d, d));
}

static bool window(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    (void)h, (void)sequence, (void)length;
    return llabs(i - j) <= s->options.window;
}

static bool strided(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    return window(s, h, sequence, i, j, length) || (i - j) % s->options.stride == 0;
}

static bool fixed(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    int64_t block = s->options.block;
    (void)h, (void)sequence, (void)length;
    return i / block == j / block || j % block >= block - s->options.globals;
}

static bool longformer(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    return window(s, h, sequence, i, j, length) || i < s->options.globals || j < s->options.globals;
}

/* The random blocks are an input: asked for, not drawn here. */
static bool bigbird(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length)
{
    int64_t block = s->options.block, drawn[FV_SPARSE_DRAWN];
    (void)sequence;
    if (llabs(i / block - j / block) <= 1 || i < s->options.globals || j < s->options.globals)
        return true;
    int64_t count = fv_bigbird_draw(&s->options, h, i / block, (length + block - 1) / block, drawn);
    for (int64_t n = 0; n < count; n++)
        if (drawn[n] == j / block)
            return true;
    return false;
}

/* ---- reformer ------------------------------------------------------------------------------------------ */

static int64_t bucket_of(const spec *s, int64_t round, const num *x)
{
    int64_t half = s->options.buckets / 2, d = s->options.dim, best = 0;
    double top = -HUGE_VAL;
    for (int64_t f = 0; f < 2 * half; f++) {
        double sum = 0;
        for (int64_t c = 0; c < d; c++)
            sum += num_value(x[c]) * s->input[FV_INPUT_LSH_ROTATIONS][(round * d + c) * half + f % half];
        sum = f < half ? sum : -sum;
        if (sum > top)
            top = sum, best = f;
    }
    return best;
}

/* order [length]: positions of a sequence by (bucket, position). x: its first vector, `row` from token to token. */
static void sort_positions(const spec *s, int64_t round, const num *x, int64_t row, int64_t length,
                           int64_t *order)
{
    int64_t *bucket = malloc((size_t)(length + 1) * sizeof *bucket), n = 0;
    for (int64_t i = 0; i < length; i++)
        bucket[i] = bucket_of(s, round, x + i * row);
    for (int64_t b = 0; b < s->options.buckets; b++)
        for (int64_t i = 0; i < length; i++)
            if (bucket[i] == b)
                order[n++] = i;
    free(bucket);
}

/* scale q_i.k_j, k_j = q_j / |q_j| */
static num lsh_score(const spec *s, const num *q, const num *x)
{
    int64_t d = s->options.dim;
    num norm = num_sqrt(spec_squares(x, d)), sum = num_input(0, 0);
    for (int64_t c = 0; c < d && num_value(norm) > 0; c++)
        sum = num_add(sum, num_mul(q[c], num_div(x[c], norm)));
    return num_scaled(s->options.scale, sum);
}

/* Adds the weights of query order[at] in one round, times exp(-shift), to row [length]. With row NULL: the
 * largest logit. */
static double lsh_round(const spec *s, const num *x, int64_t stride, int64_t length, const int64_t *order,
                        int64_t at, double shift, num *row)
{
    int64_t m = 2 * length / s->options.buckets > 1 ? 2 * length / s->options.buckets : 1, seen = 0;
    int64_t chunks = (length + m - 1) / m, own = at / m, before = (own + chunks - 1) % chunks, i = order[at];
    double largest = -HUGE_VAL;
    for (int64_t t = 0; t <= length; t++) { /* the last time: itself, if there was nothing else */
        int64_t j = t < length ? order[t] : i;
        bool hidden = (t / m != own && t / m != before) || j == i || (s->options.causal && j > i);
        if (t < length ? hidden : seen > 0)
            continue;
        num logit = t < length ? lsh_score(s, x + i * stride, x + j * stride) : num_rounded(-1e5);
        seen++;
        largest = fmax(largest, num_value(logit));
        logit.v -= shift;
        if (row != NULL)
            row[j] = num_add(row[j], num_exp(logit));
    }
    return largest;
}

static void reformer(const spec *s, int64_t h, int64_t i, num *row)
{
    int64_t n = spec_sequence_of_query(s, i), begin = s->layout.offsets_q[n];
    int64_t length = s->layout.offsets_q[n + 1] - begin, stride = s->options.heads * s->options.dim;
    const num *x = s->Q + begin * stride + h * s->options.dim;
    int64_t *order = malloc((size_t)(s->options.rounds * length) * sizeof *order);
    double top = -HUGE_VAL;
    for (int64_t r = 0; r < s->options.rounds; r++)
        sort_positions(s, r, x, stride, length, order + r * length);
    for (int pass = 0; pass < 2; pass++) /* the largest logit, then the weights */
        for (int64_t t = 0; t < s->options.rounds * length; t++)
            if (order[t] == i - begin)
                top = fmax(top, lsh_round(s, x, stride, length, order + t / length * length, t % length,
                                          pass == 0 ? 0 : top, pass == 0 ? NULL : row + begin));
    free(order);
}

/* ---- linformer ------------------------------------------------------------------------------------------- */

/* Row r of E x (or F x) of head h over `length` tokens: out [width]. */
static void mixed(const spec *s, fv_input which, int64_t h, int64_t r, const num *x, int64_t stride,
                  int64_t length, int64_t width, num *out)
{
    int64_t N = s->options.max_tokens, at = (h * s->options.projected + r) * N;
    for (int64_t c = 0; c < width; c++) {
        out[c] = num_input(0, 0);
        for (int64_t j = 0; j < length; j++)
            out[c] = num_add(out[c], num_mul(spec_input(s, which, at + j), x[j * stride + c]));
    }
}

static void linformer_head(const spec *s, int64_t n, int64_t h, num *y)
{
    int64_t H = s->options.heads, G = s->options.kv_heads, g = h * G / H, d = s->options.dim;
    int64_t dv = s->options.value_dim, rows = s->options.projected, begin = spec_key_offsets(s)[n];
    int64_t length = spec_key_offsets(s)[n + 1] - begin;
    num *k = malloc((size_t)(rows * d) * sizeof *k), *v = malloc((size_t)(rows * dv) * sizeof *v);
    num *p = malloc((size_t)rows * sizeof *p);
    for (int64_t r = 0; r < rows; r++) {
        mixed(s, FV_INPUT_LINFORMER_E, h, r, s->K + (begin * G + g) * d, G * d, length, d, k + r * d);
        mixed(s, FV_INPUT_LINFORMER_F, h, r, s->V + (begin * G + g) * dv, G * dv, length, dv, v + r * dv);
    }
    for (int64_t i = s->layout.offsets_q[n]; i < s->layout.offsets_q[n + 1]; i++) {
        num sum = num_input(0, 0), *out = y + (i * H + h) * dv;
        double top = -HUGE_VAL;
        for (int64_t r = 0; r < rows; r++) {
            p[r] = num_scaled(s->options.scale, num_dot(s->Q + (i * H + h) * d, k + r * d, d));
            top = fmax(top, num_value(p[r]));
        }
        for (int64_t r = 0; r < rows; r++) {
            p[r].v -= top;
            p[r] = num_exp(p[r]);
            sum = num_add(sum, p[r]);
        }
        for (int64_t c = 0; c < dv; c++) {
            out[c] = num_input(0, 0);
            for (int64_t r = 0; r < rows; r++)
                out[c] = num_add(out[c], num_mul(num_div(p[r], sum), v[r * dv + c]));
        }
    }
    free(k), free(v), free(p);
}

static void linformer(const spec *s, num *y)
{
    for (int64_t n = 0; n < s->layout.sequences * s->options.heads; n++)
        linformer_head(s, n / s->options.heads, n % s->options.heads, y);
}

const spec_kind spec_sparse_kinds[] = {
    {.name = "window", .exponential = true, .pair = softmax_pair, .sees = window},
    {.name = "strided", .exponential = true, .pair = softmax_pair, .sees = strided},
    {.name = "fixed", .exponential = true, .pair = softmax_pair, .sees = fixed},
    {.name = "longformer", .exponential = true, .pair = softmax_pair, .sees = longformer},
    {.name = "bigbird", .exponential = true, .pair = softmax_pair, .sees = bigbird},
    {.name = "reformer", .row = reformer},
    {.name = "linformer", .forward = linformer},
    {.name = NULL},
};
