/* sparse.c: softmax attention over a pattern of pairs. This file holds sizes, the geometry of groups and sets,
 * and rows of the matrix; forward, which streams too, and backward stand beside it in sparse_forward.c and
 * sparse_backward.c.
 *
 *     y_i = sum_j P_ij v_j,   P_ij = exp(scale q_i.k_j - l_i),   l_i = log sum_j exp(scale q_i.k_j),
 *
 * j over the keys that the pattern lets i see; a query that sees none gives 0. Child et al. 2019 (arXiv
 * 1904.10509) and everyone after them choose patterns whose pairs are far fewer than L^2; which, say window.c,
 * strided.c, fixed.c, longformer.c and bigbird.c.
 *
 * A task takes a group of queries against sets of keys, tile by tile with a running maximum and sum (online
 * softmax in base 2, as in Dao et al. 2022, arXiv 2205.14135). Queries of a set may lie `step` tokens apart: a
 * strided pattern is then a dense matrix between the queries and the keys of one residue class. Between two
 * phases a query's sums live in y (normalised) and l.
 *
 * Backward, with D_i = dy_i.y_i and P computed again from l: dv_j += sum_i P_ij dy_i,
 * dS_ij = P_ij (dy_i.v_j - D_i), dq_i += scale sum_j dS_ij k_j, dk_j += scale sum_i dS_ij q_i.
 *
 * Cost: that of the visible pairs, 2 (d + dv) FLOP each, and of the hidden ones in tiles on the pattern's
 * edges. Saved: l, one float a query and head. Scratch: fixed tiles a worker, one float a query and head.
 *
 * Limits: a non-finite v reaches exactly the rows that see it in forward; in backward non-finite values spread
 * within their sequence.
 */
#include "attention/sparse.h"
#include <math.h>

enum { MOST_ROWS = 128, LEAST_ROWS = 32, TILE = 512 };

/* ---- options --------------------------------------------------------------------------------------- */

fv_status fv_sparse_option(const fv_attention *op, const char *name, int64_t value, int64_t low, int64_t high)
{
    if (value >= low && value <= high)
        return FV_OK;
    return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: %s is %lld; expected %lld to %lld", op->options.kind,
                   name, (long long)value, (long long)low, (long long)high);
}

/* ---- groups of queries ------------------------------------------------------------------------------- */

int64_t fv_sparse_rows(const fv_attention *op, int64_t wanted)
{
    if (op->options.chunk > 0)
        return FV_MIN(op->options.chunk, MOST_ROWS);
    return FV_MAX(LEAST_ROWS, FV_MIN(wanted, MOST_ROWS));
}

int64_t fv_sparse_tile(const fv_attention *op)
{
    return op->options.chunk > 0 ? FV_MIN(2 * FV_MIN(op->options.chunk, TILE), TILE) : TILE;
}

fv_sparse_cut fv_sparse_plain_cut(const fv_sparse_place *place, int64_t rows)
{
    return (fv_sparse_cut){place->from, 1, 0, 1, place->queries - place->from, rows};
}

fv_sparse_cut fv_sparse_block_cut(const fv_sparse_place *place, int64_t block)
{
    int64_t begin = place->from / block * block, queries = place->queries - begin;
    return (fv_sparse_cut){begin, (queries + block - 1) / block, block,
                           1,     FV_MIN(block, queries),        fv_sparse_rows(place->op, block)};
}

static int64_t groups_a_chain(const fv_sparse_cut *cut)
{
    return (cut->length + cut->rows - 1) / cut->rows;
}

int64_t fv_sparse_groups(const fv_sparse_cut *cut)
{
    return cut->chains * groups_a_chain(cut);
}

void fv_sparse_group_at(const fv_sparse_place *place, int phase, const fv_sparse_cut *cut, int64_t index,
                        fv_sparse_group *group)
{
    const fv_sparse_pattern *pattern = place->op->mechanism->pattern;
    int64_t at = index % groups_a_chain(cut) * cut->rows;
    int64_t first = cut->begin + index / groups_a_chain(cut) * cut->start + at * cut->step;
    int64_t left = (place->queries - first + cut->step - 1) / cut->step;
    int64_t before = FV_MAX(0, place->from - first); /* a block's, whose queries are neighbours */
    group->phase = phase;
    group->first = first + before;
    group->step = cut->step;
    group->n = FV_MAX(0, FV_MIN(FV_MIN(cut->rows, cut->length - at), left) - before);
    group->drawn_count = 0;
    if (pattern->draw != NULL && group->n > 0)
        pattern->draw(place, group);
}

/* ---- sets of keys -------------------------------------------------------------------------------------- */

fv_sparse_set fv_sparse_range(const fv_sparse_place *place, int part, int64_t begin, int64_t end,
                              int64_t rows)
{
    begin = FV_MAX(begin, 0);
    int64_t count = FV_MAX(0, FV_MIN(end, place->keys) - begin);
    return (fv_sparse_set){part, begin, FV_MAX(count, 1), 0, count, rows};
}

fv_sparse_sight fv_sparse_inside(const fv_sparse_place *place, int64_t i, int64_t begin, int64_t end)
{
    if (place->op->options.causal)
        end = FV_MIN(end, i + 1);
    return (fv_sparse_sight){{begin, end}, {end, end}};
}

fv_sparse_sight fv_sparse_outside(const fv_sparse_place *place, int64_t i, int64_t begin, int64_t end,
                                  int64_t low, int64_t high)
{
    if (place->op->options.causal)
        high = FV_MIN(high, i + 1);
    return (fv_sparse_sight){{low, FV_MAX(end, low)}, {FV_MIN(begin, high), high}};
}

int64_t fv_sparse_rank(const fv_sparse_set *set, int64_t x)
{
    int64_t past = x - set->first;
    if (past <= 0)
        return 0;
    int64_t rank = set->step == 0 ? past : past / set->step * set->run + FV_MIN(past % set->step, set->run);
    return FV_MIN(rank, set->count);
}

int64_t fv_sparse_stretch(const fv_sparse_set *set, int64_t t, int64_t count, int64_t *position,
                          int64_t *step)
{
    *position = set->first + t / set->run * set->step + t % set->run;
    *step = set->run == 1 && set->step > 0 ? set->step : 1;
    return *step > 1 ? count : FV_MIN(count, set->run - t % set->run);
}

bool fv_sparse_look(const fv_sparse_place *place, const fv_sparse_group *group, const fv_sparse_set *set,
                    int64_t t, int64_t count, fv_sparse_columns *columns)
{
    bool any = false;
    for (int64_t r = 0; r < set->rows; r++) {
        int64_t i = group->first + r * group->step;
        fv_sparse_sight s = place->op->mechanism->pattern->sight(place, set, i);
        int64_t edge[] = {s.from[0], s.to[0], s.from[1], s.to[1]}, low = 0, at[4];
        for (int e = 0; e < 4; e++)
            at[e] = low = FV_MAX(low, FV_MIN(fv_sparse_rank(set, edge[e]) - t, count));
        columns[r] = (fv_sparse_columns){at[0], at[1], at[2], at[3]};
        any = any || at[0] < at[1] || at[2] < at[3];
    }
    return any;
}

void fv_sparse_hide(const fv_attention *op, int64_t rows, int64_t count, const fv_sparse_columns *columns,
                    float *s)
{
    const fv_kernels *kr = op->ctx->kernels;
    for (int64_t r = 0; r < rows; r++, s += count) {
        const fv_sparse_columns *x = columns + r;
        kr->fill(x->a, -INFINITY, s);
        kr->fill(x->c - x->b, -INFINITY, s + x->b);
        kr->fill(count - x->d, -INFINITY, s + x->d);
    }
}

/* ---- calls ------------------------------------------------------------------------------------------- */

fv_sparse_place fv_sparse_place_of(const fv_attention *op, const fv_layout *layout, int64_t s, int64_t h)
{
    const int64_t *offsets_k = fv_layout_keys(layout);
    return (fv_sparse_place){
        .op = op,
        .head = h,
        .queries = layout->offsets_q[s + 1] - layout->offsets_q[s],
        .keys = offsets_k[s + 1] - offsets_k[s],
    };
}

void fv_sparse_measure(const fv_attention *op, const fv_layout *layout, fv_memory *need)
{
    int64_t queries = layout->offsets_q[layout->sequences], floats;
    need->saved = fv_mul(queries, op->options.heads, &floats) ? fv_bytes(floats, sizeof(float)) : SIZE_MAX;
    need->scratch = FV_MAX(fv_sparse_forward_bytes(op, layout), fv_sparse_backward_bytes(op, layout));
}

/* Pairs that the queries of a group see. */
static double group_pairs(const fv_sparse_place *place, const fv_sparse_group *group)
{
    const fv_sparse_pattern *pattern = place->op->mechanism->pattern;
    fv_sparse_set set;
    double pairs = 0;
    for (int n = 0; pattern->set(place, group, n, &set); n++) {
        for (int64_t r = 0; r < set.rows; r++) {
            fv_sparse_columns x;
            fv_sparse_group one = {.phase = group->phase, .first = group->first + r * group->step};
            fv_sparse_set row = set;
            row.rows = 1;
            if (fv_sparse_look(place, &one, &row, 0, set.count, &x))
                pairs += (double)(x.b - x.a + x.d - x.c);
        }
    }
    return pairs;
}

double fv_sparse_flop(const fv_attention *op, const fv_layout *layout)
{
    double pairs = 0;
    fv_sparse_group group;
    for (int64_t n = 0; n < layout->sequences * op->options.heads; n++) {
        fv_sparse_place place = fv_sparse_place_of(op, layout, n / op->options.heads, n % op->options.heads);
        for (int phase = 0; phase < op->mechanism->pattern->phases; phase++) {
            fv_sparse_cut cut = op->mechanism->pattern->cut(&place, phase);
            for (int64_t index = 0; index < fv_sparse_groups(&cut); index++) {
                fv_sparse_group_at(&place, phase, &cut, index, &group);
                pairs += group_pairs(&place, &group);
            }
        }
    }
    return 2.0 * pairs * (double)(op->options.dim + op->options.value_dim);
}

/* ---- rows of the matrix ------------------------------------------------------------------------------ */

typedef struct rows_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
} rows_call;

/* Scores of query q against the keys t .. end-1 of a set, all visible, to their positions in w. */
static void scores(const rows_call *c, const fv_sparse_set *set, int64_t t, int64_t end, const float *q,
                   const float *k, float *w)
{
    const fv_kernels *kr = c->op->ctx->kernels;
    int64_t d = c->op->options.dim, at, step;
    while (t < end) {
        int64_t n = fv_sparse_stretch(set, t, end - t, &at, &step);
        n = step > 1 ? 1 : n;
        kr->gemv('N', n, d, fv_softmax_factor(c->op), k + at * c->io.k_stride, c->io.k_stride, q, 0.0f,
                 w + at);
        t += n;
    }
}

/* The group of a phase that query i is in, made of i alone. */
static bool group_of(const fv_sparse_place *place, int phase, int64_t i, fv_sparse_group *group)
{
    fv_sparse_cut cut = place->op->mechanism->pattern->cut(place, phase);
    if (cut.chains == 0)
        return false;
    int64_t chain = cut.step > 1 ? i % cut.step : cut.start > 0 ? i / cut.start : 0; /* cut.begin is 0 */
    chain = FV_MIN(chain, cut.chains - 1); /* a stride of 1: one chain, that of all */
    int64_t at = (i - chain * cut.start) / cut.step;
    fv_sparse_group_at(place, phase, &cut, chain * groups_a_chain(&cut) + at / cut.rows, group);
    return true;
}

/* Row `row` of the matrix of head h into w [Tk]. */
static void matrix_row(const void *arg, int64_t h, int64_t row, float *w)
{
    const rows_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    const fv_kernels *kr = c->op->ctx->kernels;
    const int64_t *offsets_q = c->layout->offsets_q, *offsets_k = fv_layout_keys(c->layout);
    int64_t s = fv_offsets_locate(offsets_q, c->layout->sequences, row), i = row - offsets_q[s];
    fv_sparse_place place = fv_sparse_place_of(c->op, c->layout, s, h);
    const float *q = c->io.q + row * c->io.q_stride + h * o->dim;
    const float *k = c->io.k + offsets_k[s] * c->io.k_stride + h * o->kv_heads / o->heads * o->dim;
    fv_sparse_group group;
    fv_sparse_set set;
    kr->fill(offsets_k[c->layout->sequences], 0.0f, w);
    w += offsets_k[s];
    kr->fill(place.keys, -INFINITY, w);
    for (int phase = 0; phase < c->op->mechanism->pattern->phases; phase++) {
        if (!group_of(&place, phase, i, &group))
            continue;
        int64_t r = (i - group.first) / group.step;
        for (int n = 0; c->op->mechanism->pattern->set(&place, &group, n, &set); n++) {
            fv_sparse_group one = group;
            fv_sparse_columns x;
            if (r >= set.rows)
                continue;
            one.first = i, set.rows = 1;
            if (!fv_sparse_look(&place, &one, &set, 0, set.count, &x))
                continue;
            scores(c, &set, x.a, x.b, q, k, w);
            scores(c, &set, x.c, x.d, q, k, w);
        }
    }
    float top = -INFINITY, sum = 0, factor;
    kr->softmax_tile(1, place.keys, w, place.keys, NULL, &top, &sum, &factor);
    kr->softmax_end(1, &top, &sum, &sum, NULL);
    kr->scale(place.keys, sum, w, w);
}

fv_status fv_sparse_weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            const int64_t *rows, int64_t n, int64_t head, float *weights, int64_t row_stride,
                            void *scratch)
{
    rows_call call = {op, layout, fv_softmax_resolve(op, io)};
    (void)scratch;
    fv_softmax_rows(op, rows, n, head, weights, row_stride, matrix_row, &call);
    return FV_OK;
}
