/* reformer.c: Reformer's LSH attention (Kitaev et al. 2020, arXiv 2001.04451). This file holds the row, sizes,
 * visibility and rows of the matrix; beside it reformer_hash.c (buckets), reformer_forward.c,
 * reformer_backward.c.
 *
 * Queries are keys, k_j = q_j / |q_j|; `k` is ignored. In each of `rounds` rounds a position has the bucket
 * argmax [qR, -qR] (R: d x buckets/2, Gaussian, an input); positions are sorted by (bucket, position) and cut into
 * chunks of m = max(1, floor(2 length / buckets)), which attend to themselves and to the chunk before (of the
 * first: the last; a single chunk: to itself, once), whatever the buckets. A query does not see itself, unless it
 * sees nothing else: then that round's log-mass is -1e5. Rounds are weighted by their log-sum-exp, so all is one
 * softmax over (round, key), duplicates not discounted:
 *
 *     y_i = sum_r sum_j exp(s_ij - l_i) v_j,   s_ij = scale q_i.k_j  (or -1e5, alone),
 *     l_i = log sum_r sum_j exp(s_ij)
 *
 * Backward: P from the saved sums, dS = P (dy.v - dy.y), 0 where alone; dq_i += scale sum_j dS_ij k_j as a query,
 * and as a key dq_j += (g - k_j (k_j.g)) / |q_j|, g = scale sum_i dS_ij q_i. Buckets are constants.
 *
 * Cost: rounds L (2m) pairs of 2 (d + dv) FLOP, and rounds L d buckets for the hashes. Saved: two floats and
 * `rounds` integers a query and head.
 *
 * Limits: causal by masks on original positions, as in the paper: no later key or value reaches an earlier output,
 * but later tokens' buckets move the borders of chunks, so which earlier keys a query meets depends on them. A
 * zero vector has key 0, bucket 0, and no gradient as a key. NaN hashes to bucket 0.
 */
#include "attention/reformer.h"
#include "attention/softmax.h"
#include <math.h>

enum { DEFAULT_BUCKETS = 32, DEFAULT_ROUNDS = 4, MOST_ROWS = 128, TILE = 512 };

/* The score of a query that sees only itself, in base 2. */
static const float lone_score = (float)(-1e5 * FV_LOG2E);

static fv_status check(fv_attention *op)
{
    fv_attention_options *o = &op->options;
    if (o->buckets == 0)
        o->buckets = DEFAULT_BUCKETS;
    if (o->rounds == 0)
        o->rounds = DEFAULT_ROUNDS;
    if (o->buckets % 2 != 0)
        return fv_fail(
            op->ctx, FV_ERR_USAGE,
            "attention reformer: %lld buckets; expected an even number: half of them are negatives",
            (long long)o->buckets);
    return FV_OK;
}

fv_status fv_reformer_check_lengths(const fv_attention *op, const fv_layout *layout)
{
    for (int64_t s = 0; s < layout->sequences; s++) {
        if (fv_layout_keys(layout)[s + 1] != layout->offsets_q[s + 1])
            return fv_fail(
                op->ctx, FV_ERR_USAGE,
                "reformer shares queries and keys: sequence %lld ends at query %lld and key %lld; give "
                "every sequence as many keys as queries",
                (long long)s, (long long)layout->offsets_q[s + 1], (long long)fv_layout_keys(layout)[s + 1]);
        if (layout->offsets_q[s + 1] - layout->offsets_q[s] > INT32_MAX)
            return fv_fail(op->ctx, FV_ERR_USAGE, "reformer: sequence %lld is longer than 2^31 - 1 tokens",
                           (long long)s);
    }
    return FV_OK;
}

fv_lsh_sums fv_lsh_sums_push(fv_arena *arena, const fv_attention *op, const fv_layout *layout)
{
    fv_lsh_sums s;
    int64_t floats, orders;
    if (!fv_mul(layout->offsets_q[layout->sequences], op->options.heads, &floats) ||
        !fv_mul(floats, op->options.rounds, &orders))
        floats = orders = INT64_MAX;
    s.top = FV_PUSH(arena, float, floats);
    s.sum = FV_PUSH(arena, float, floats);
    s.order = FV_PUSH(arena, int32_t, orders);
    return s;
}

static void measure(const fv_attention *op, const fv_layout *layout, fv_memory *need)
{
    fv_arena arena = fv_arena_measure();
    fv_lsh_sums_push(&arena, op, layout);
    need->saved = arena.used;
    need->scratch = fv_reformer_bytes(op, layout);
}

size_t fv_reformer_worker_bytes(const fv_attention *op, const fv_layout *layout)
{
    return FV_MAX(fv_reformer_forward_work(op), fv_reformer_backward_work(op)) +
           fv_lsh_work_bytes(op, layout);
}

static bool draw(const fv_attention *op, fv_input which, uint64_t seed, uint32_t draw_number, float *out)
{
    int64_t floats = op->options.dim * (op->options.buckets / 2);
    if (which != FV_INPUT_LSH_ROTATIONS)
        return false;
    for (int64_t r = 0; r < op->options.rounds; r++) {
        fv_random random = fv_random_make(seed, FV_RANDOM_ROTATION, (uint32_t)r, draw_number);
        for (int64_t i = 0; i < floats; i++)
            out[r * floats + i] = (float)fv_random_normal(&random);
    }
    return true;
}

/* ---- chunks -------------------------------------------------------------------------------------------- */

fv_lsh_cut fv_lsh_tiles(const fv_attention *op)
{
    int64_t rows = op->options.chunk > 0 ? FV_MIN(op->options.chunk, MOST_ROWS) : MOST_ROWS;
    return (fv_lsh_cut){rows, op->options.chunk > 0 ? 2 * rows : TILE};
}

int64_t fv_lsh_chunk(const fv_attention *op, int64_t length)
{
    return FV_MAX(1, 2 * length / op->options.buckets);
}

fv_lsh_place fv_lsh_place_of(const fv_attention *op, const fv_layout *layout, const fv_lsh_sums *sums,
                             int64_t s, int64_t h, int64_t round)
{
    int64_t begin = layout->offsets_q[s], length = layout->offsets_q[s + 1] - begin;
    int64_t all = layout->offsets_q[layout->sequences], m = fv_lsh_chunk(op, length);
    return (fv_lsh_place){
        .order = sums->order + (round * op->options.heads + h) * all + begin,
        .length = length,
        .m = m,
        .chunks = (length + m - 1) / m,
        .causal = op->options.causal,
    };
}

fv_lsh_window fv_lsh_window_at(const fv_lsh_place *place, int64_t chunk)
{
    int64_t before = chunk > 0 ? chunk - 1 : place->chunks - 1;
    fv_lsh_window w = {
        .own = place->order + chunk * place->m,
        .previous = place->order + before * place->m,
        .n = FV_MIN(place->m, place->length - chunk * place->m),
        .before = place->chunks > 1 ? FV_MIN(place->m, place->length - before * place->m) : 0,
        .lowest = INT32_MAX,
        .causal = place->causal,
    };
    for (int64_t t = 0; t < w.before + w.n; t++)
        w.lowest = FV_MIN(w.lowest, fv_lsh_key(&w, t));
    return w;
}

/* Stretches of rising positions among keys t .. t + count - 1: runs[n] is the first of stretch n. Inside one, the
 * keys before a position come first. */
static int64_t find_runs(const fv_lsh_window *w, int64_t t, int64_t count, int64_t *runs)
{
    int64_t n = 0;
    for (int64_t j = 0; j < count; j++)
        if (j == 0 || fv_lsh_key(w, t + j) < fv_lsh_key(w, t + j - 1))
            runs[n++] = j;
    runs[n] = count;
    return n;
}

/* Hides the keys that do not stand before position i in the stretch begin .. end-1. */
static void hide_later(const fv_kernels *kr, const fv_lsh_window *w, int32_t i, int64_t t, int64_t begin,
                       int64_t end, float *s)
{
    int64_t low = begin, high = end;
    while (low < high) {
        int64_t middle = low + (high - low) / 2;
        if (fv_lsh_key(w, t + middle) < i)
            low = middle + 1;
        else
            high = middle;
    }
    kr->fill(end - low, -INFINITY, s + low);
}

/* Calls of the two functions below put `value` at the query's own key where it lies in the tile. */
static void put_self(const fv_kernels *kr, const fv_lsh_window *w, int64_t r, int64_t t, int64_t count,
                     float value, float *s)
{
    int64_t self = w->before + r - t;
    if (self >= 0 && self < count)
        kr->fill(1, value, s + self);
}

void fv_lsh_hide(const fv_attention *op, const fv_lsh_window *w, int64_t r, int64_t n, int64_t t,
                 int64_t count, int64_t *runs, float *s)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t stretches = w->causal ? find_runs(w, t, count, runs) : 0;
    for (int64_t i = 0; i < n; i++, s += count) {
        for (int64_t x = 0; x < stretches; x++)
            hide_later(kr, w, w->own[r + i], t, runs[x], runs[x + 1], s);
        put_self(kr, w, r + i, t, count, fv_lsh_alone(w, r + i) ? lone_score : -INFINITY, s);
    }
}

void fv_lsh_still(const fv_attention *op, const fv_lsh_window *w, int64_t r, int64_t n, int64_t t,
                  int64_t count, float *ds)
{
    for (int64_t i = 0; i < n; i++)
        if (fv_lsh_alone(w, r + i))
            put_self(op->ctx->kernels, w, r + i, t, count, 0.0f, ds + i * count);
}

static double flop(const fv_attention *op, const fv_layout *layout)
{
    const fv_attention_options *o = &op->options;
    double sum = 0;
    for (int64_t s = 0; s < layout->sequences; s++) {
        int64_t length = layout->offsets_q[s + 1] - layout->offsets_q[s], m = fv_lsh_chunk(op, length);
        double keys = (double)FV_MIN(2 * m, length);
        sum += (double)length * keys * 2.0 * (double)(o->dim + o->value_dim) * (o->causal ? 0.5 : 1.0);
        sum += (double)length * (double)(o->dim * o->buckets);
    }
    return sum * (double)(o->heads * o->rounds);
}

/* ---- rows of the matrix ------------------------------------------------------------------------------ */

typedef struct rows_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    fv_lsh_sums sums;
    float *inverse;
} rows_call;

/* w[j] += how often query i of a head sees key j, over all rounds. */
static void count_visits(const rows_call *c, int64_t s, int64_t h, int64_t i, float *w)
{
    for (int64_t round = 0; round < c->op->options.rounds; round++) {
        fv_lsh_place place = fv_lsh_place_of(c->op, c->layout, &c->sums, s, h, round);
        int64_t at = 0;
        while (place.order[at] != i)
            at++;
        fv_lsh_window window = fv_lsh_window_at(&place, at / place.m);
        for (int64_t t = 0; t < window.before + window.n; t++)
            if (fv_lsh_sees(&window, at % place.m, t))
                w[fv_lsh_key(&window, t)] += 1.0f;
    }
}

/* Row `row` of the matrix of head h into w [Tk]: a softmax of score + log2(visits). */
static void matrix_row(const void *arg, int64_t h, int64_t row, float *w)
{
    const rows_call *c = arg;
    const fv_kernels *kr = c->op->ctx->kernels;
    const int64_t *offsets = c->layout->offsets_q;
    int64_t d = c->op->options.dim, s = fv_offsets_locate(offsets, c->layout->sequences, row);
    int64_t begin = offsets[s], length = offsets[s + 1] - begin, all = offsets[c->layout->sequences];
    const float *q = c->io.q + row * c->io.q_stride + h * d;
    float top = -INFINITY, sum = 0, factor, score;
    kr->fill(all, 0.0f, w);
    count_visits(c, s, h, row - begin, w + begin);
    for (int64_t j = begin; j < begin + length; j++) {
        float visits = w[j], inverse = c->inverse[h * all + j];
        kr->gemv('N', 1, d, fv_softmax_factor(c->op) * inverse, c->io.q + j * c->io.q_stride + h * d,
                 c->io.q_stride, q, 0.0f, &score);
        w[j] = visits == 0 ? -INFINITY : (j == row ? lone_score : score) + log2f(visits);
    }
    kr->softmax_tile(1, length, w + begin, length, NULL, &top, &sum, &factor);
    kr->softmax_end(1, &top, &sum, &sum, NULL);
    kr->scale(length, sum, w + begin, w + begin);
}

static fv_status weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         const int64_t *rows, int64_t n, int64_t head, float *out, int64_t row_stride,
                         void *scratch)
{
    TRY(fv_reformer_check_lengths(op, layout));
    rows_call call = {.op = op, .layout = layout, .io = fv_softmax_resolve(op, io)};
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX); /* the first part of forward's */
    size_t bytes = fv_reformer_worker_bytes(op, layout);
    call.sums = fv_lsh_sums_push(&arena, op, layout);
    call.inverse = FV_PUSH(&arena, float, layout->offsets_q[layout->sequences] * op->options.heads);
    char *workers = fv_arena_push(&arena, op->ctx->threads, bytes);
    fv_lsh_norms(op, layout, &call.io, call.inverse);
    fv_lsh_sort(op, layout, &call.io, call.inverse, &call.sums, workers, bytes);
    fv_softmax_rows(op, rows, n, head, out, row_stride, matrix_row, &call);
    return FV_OK;
}

const fv_mechanism fv_mechanism_reformer = {
    .kind =
        {
            .name = "reformer",
            .summary =
                "Reformer: chunks of keys sorted by locality-sensitive hashing, shared queries and keys",
            .paper = "Kitaev et al. 2020, arXiv 2001.04451",
            .can_be_causal = 1,
            .why_not_stream = "which chunk a token falls into depends on the buckets of the whole sequence",
        },
    .inputs = FV_INPUT_BIT(FV_INPUT_LSH_ROTATIONS),
    .shared_keys = true,
    .unnormalised = true,
    .check = check,
    .measure = measure,
    .forward = fv_reformer_forward,
    .backward = fv_reformer_backward,
    .weights = weights,
    .flop = flop,
    .draw = draw,
};
