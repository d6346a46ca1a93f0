/* fixed.c: the fixed pattern of the Sparse Transformer (Child et al. 2019, arXiv 1904.10509), both of its heads
 * in one: query i sees the keys of its own block of B positions and the last n positions of every block; causal:
 * and j <= i. Positions alone say what a block's last ones are: an unfinished block may lack them. Engine and
 * equations: sparse.c.
 *
 * Cost: L (B + n L/B) pairs, causal half; B near sqrt(n L) is best. A stream keeps all keys.
 */
#include "attention/sparse.h"

enum { DEFAULT_BLOCK = 128, DEFAULT_GLOBALS = 32 };
enum { OWN, SUMMARY };

static fv_status check(fv_attention *op)
{
    fv_attention_options *o = &op->options;
    if (o->block == 0)
        o->block = DEFAULT_BLOCK;
    if (o->globals < 0)
        o->globals = FV_MIN(DEFAULT_GLOBALS, o->block);
    TRY(fv_sparse_option(op, "globals, the last positions of a block,", o->globals, 0, o->block));
    return FV_OK;
}

static fv_sparse_cut cut(const fv_sparse_place *place, int phase)
{
    (void)phase;
    return fv_sparse_block_cut(place, place->op->options.block);
}

static bool set(const fv_sparse_place *place, const fv_sparse_group *group, int index, fv_sparse_set *out)
{
    const fv_attention_options *o = &place->op->options;
    int64_t begin = group->first / o->block * o->block, last = group->first + group->n;
    *out = fv_sparse_range(place, OWN, begin, o->causal ? last : begin + o->block, group->n);
    if (index == 0)
        return true;
    int64_t keys = o->causal ? FV_MIN(begin, place->keys) : place->keys; /* blocks behind are not seen */
    int64_t partial = keys % o->block - (o->block - o->globals);
    int64_t count = keys / o->block * o->globals + FV_MAX(0, partial);
    *out = (fv_sparse_set){SUMMARY, o->block - o->globals, o->globals, o->block, count, group->n};
    return index == 1 && o->globals > 0;
}

static fv_sparse_sight sight(const fv_sparse_place *place, const fv_sparse_set *of, int64_t i)
{
    int64_t block = place->op->options.block, begin = i / block * block;
    if (of->part == OWN)
        return fv_sparse_inside(place, i, begin, begin + block);
    return fv_sparse_outside(place, i, begin, begin + block, 0, place->keys);
}

static const fv_sparse_pattern pattern = {.phases = 1, .cut = cut, .set = set, .sight = sight};

const fv_mechanism fv_mechanism_fixed = {
    .kind =
        {
            .name = "fixed",
            .summary = "Sparse Transformer, fixed: own block and the last positions of every block",
            .paper = "Child et al. 2019, arXiv 1904.10509",
            .can_be_causal = 1,
            .can_stream = 1,
        },
    .takes = FV_TAKES_BLOCK | FV_TAKES_GLOBALS,
    .check = check,
    .pattern = &pattern,
    FV_SPARSE_ROW,
};
