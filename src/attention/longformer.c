/* longformer.c: Longformer's pattern (Beltagy et al. 2020, arXiv 2004.05150): query i sees key j when
 * |i - j| <= W or when i or j is among the first n positions; causal: and j <= i. One set of projections serves
 * local and global attention (the paper has two). Engine and equations: sparse.c.
 *
 * Cost: L (2W + 1 + 2n) pairs; causal L (W + 1 + n). A stream keeps the first n keys and the last W.
 */
#include "attention/sparse.h"

enum { DEFAULT_WINDOW = 256, DEFAULT_GLOBALS = 1 };
enum { WINDOW, GLOBAL_KEYS, GLOBAL_QUERIES };

static fv_status check(fv_attention *op)
{
    fv_attention_options *o = &op->options;
    if (o->window < 0)
        o->window = DEFAULT_WINDOW;
    if (o->globals < 0)
        o->globals = DEFAULT_GLOBALS;
    return FV_OK;
}

static fv_sparse_cut cut(const fv_sparse_place *place, int phase)
{
    (void)phase;
    return fv_sparse_plain_cut(place, fv_sparse_rows(place->op, place->op->options.window));
}

static bool set(const fv_sparse_place *place, const fv_sparse_group *group, int index, fv_sparse_set *out)
{
    const fv_attention_options *o = &place->op->options;
    int64_t last = group->first + group->n - 1;
    switch (index) {
    case WINDOW:
        *out = fv_sparse_range(place, WINDOW, group->first - o->window,
                               last + 1 + (o->causal ? 0 : o->window), group->n);
        return true;
    case GLOBAL_KEYS:
        *out = fv_sparse_range(place, GLOBAL_KEYS, 0, o->globals, group->n);
        return true;
    default: /* causal: a global query sees nothing behind the global keys */
        *out = fv_sparse_range(place, GLOBAL_QUERIES, o->globals, o->causal ? 0 : place->keys,
                               FV_MAX(0, FV_MIN(o->globals - group->first, group->n)));
        return index == GLOBAL_QUERIES;
    }
}

static fv_sparse_sight sight(const fv_sparse_place *place, const fv_sparse_set *of, int64_t i)
{
    const fv_attention_options *o = &place->op->options;
    int64_t begin = i - o->window, end = i + o->window + 1;
    if (of->part == WINDOW)
        return fv_sparse_inside(place, i, begin, end);
    if (of->part == GLOBAL_KEYS)
        return fv_sparse_outside(place, i, begin, end, 0, o->globals);
    return fv_sparse_outside(place, i, begin, end, o->globals, place->keys);
}

static int64_t reach(const fv_attention_options *options, int64_t *globals)
{
    *globals = options->globals;
    return options->window;
}

static const fv_sparse_pattern pattern = {
    .phases = 1, .cut = cut, .set = set, .sight = sight, .reach = reach};

const fv_mechanism fv_mechanism_longformer = {
    .kind =
        {
            .name = "longformer",
            .summary = "Longformer: a window, and global tokens at the front: O(L (W + n))",
            .paper = "Beltagy et al. 2020, arXiv 2004.05150",
            .can_be_causal = 1,
            .can_stream = 1,
        },
    .takes = FV_TAKES_WINDOW | FV_TAKES_GLOBALS,
    .check = check,
    .pattern = &pattern,
    FV_SPARSE_ROW,
};
