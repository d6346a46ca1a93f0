/* strided.c: the strided pattern of the Sparse Transformer (Child et al. 2019, arXiv 1904.10509), both of its
 * heads in one: |i - j| <= W or S divides i - j; causal: and j <= i. W = S unless a window is given. Engine and
 * equations: sparse.c.
 *
 * Two phases: the window; then, for each residue class modulo S, its queries against its keys, a dense matrix
 * with rows S tokens apart, without the pairs of the window.
 *
 * Cost: L (2W + 1 + L/S) pairs, causal half; S near sqrt(L) is best. A stream keeps all keys: another class is
 * asked each time.
 */
#include "attention/sparse.h"

enum { DEFAULT_STRIDE = 128 };
enum { WINDOW, CLASS };

static fv_status check(fv_attention *op)
{
    fv_attention_options *o = &op->options;
    if (o->stride == 0)
        o->stride = DEFAULT_STRIDE;
    if (o->window < 0)
        o->window = o->stride;
    return FV_OK;
}

static fv_sparse_cut cut(const fv_sparse_place *place, int phase)
{
    const fv_attention_options *o = &place->op->options;
    int64_t rows = fv_sparse_rows(place->op, phase == WINDOW ? o->window : INT64_MAX);
    if (phase == WINDOW)
        return fv_sparse_plain_cut(place, rows);
    if (o->window >= FV_MAX(place->queries, place->keys) - 1) /* no pair is farther apart */
        return (fv_sparse_cut){.rows = rows};
    int64_t queries = place->queries - place->from;
    return (fv_sparse_cut){
        place->from, FV_MIN(o->stride, queries), 1, o->stride, (queries + o->stride - 1) / o->stride, rows};
}

static bool set(const fv_sparse_place *place, const fv_sparse_group *group, int index, fv_sparse_set *out)
{
    const fv_attention_options *o = &place->op->options;
    int64_t last = group->first + (group->n - 1) * group->step, end = place->keys;
    if (group->phase == WINDOW) {
        *out = fv_sparse_range(place, WINDOW, group->first - o->window, last + 1 + o->window, group->n);
        return index == 0;
    }
    if (o->causal)
        end = FV_MIN(end, last - o->window); /* the window has the rest */
    int64_t residue = group->first % o->stride;
    int64_t count = end > residue ? (end - residue + o->stride - 1) / o->stride : 0;
    *out = (fv_sparse_set){CLASS, residue, 1, o->stride, count, group->n};
    return index == 0;
}

static fv_sparse_sight sight(const fv_sparse_place *place, const fv_sparse_set *of, int64_t i)
{
    int64_t window = place->op->options.window;
    if (of->part == WINDOW)
        return fv_sparse_inside(place, i, i - window, i + window + 1);
    return fv_sparse_outside(place, i, i - window, i + window + 1, 0, place->keys);
}

static const fv_sparse_pattern pattern = {.phases = 2, .cut = cut, .set = set, .sight = sight};

const fv_mechanism fv_mechanism_strided = {
    .kind =
        {
            .name = "strided",
            .summary = "Sparse Transformer, strided: |i-j| <= window or stride divides i-j: O(L (W + L/S))",
            .paper = "Child et al. 2019, arXiv 1904.10509",
            .can_be_causal = 1,
            .can_stream = 1,
        },
    .takes = FV_TAKES_WINDOW | FV_TAKES_STRIDE,
    .check = check,
    .pattern = &pattern,
    FV_SPARSE_ROW,
};
