/* window.c: local attention: query i sees keys j with |i - j| <= W, causal 0 <= i - j <= W (the local layers of
 * Beltagy et al. 2020, arXiv 2004.05150, and of many before). Engine and equations: sparse.c.
 *
 * Cost: L (2W + 1) pairs, causal half; tiles add one row's window for each group of rows. A stream keeps the last
 * W keys.
 */
#include "attention/sparse.h"

enum { DEFAULT_WINDOW = 128 };

static fv_status check(fv_attention *op)
{
    if (op->options.window < 0)
        op->options.window = DEFAULT_WINDOW;
    return FV_OK;
}

static fv_sparse_cut cut(const fv_sparse_place *place, int phase)
{
    (void)phase;
    return fv_sparse_plain_cut(place, fv_sparse_rows(place->op, place->op->options.window));
}

static bool set(const fv_sparse_place *place, const fv_sparse_group *group, int index, fv_sparse_set *out)
{
    int64_t window = place->op->options.window, last = group->first + group->n - 1;
    *out = fv_sparse_range(place, 0, group->first - window,
                           last + 1 + (place->op->options.causal ? 0 : window), group->n);
    return index == 0;
}

static fv_sparse_sight sight(const fv_sparse_place *place, const fv_sparse_set *of, int64_t i)
{
    (void)of;
    return fv_sparse_inside(place, i, i - place->op->options.window, i + place->op->options.window + 1);
}

static int64_t reach(const fv_attention_options *options, int64_t *globals)
{
    *globals = 0;
    return options->window;
}

static const fv_sparse_pattern pattern = {
    .phases = 1, .cut = cut, .set = set, .sight = sight, .reach = reach};

const fv_mechanism fv_mechanism_window = {
    .kind =
        {
            .name = "window",
            .summary = "local softmax attention, |i-j| <= window: O(L W)",
            .paper = "Beltagy et al. 2020, arXiv 2004.05150",
            .can_be_causal = 1,
            .can_stream = 1,
        },
    .takes = FV_TAKES_WINDOW,
    .check = check,
    .pattern = &pattern,
    FV_SPARSE_ROW,
};
