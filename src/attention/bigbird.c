/* bigbird.c: BigBird's pattern (Zaheer et al. 2020, arXiv 2007.14062) on blocks of B positions: query i sees key j
 * when their blocks are at most one apart, when i or j is among the first n positions, or when j's block is one of
 * the R drawn for i's; causal: and j <= i. Engine and equations: sparse.c.
 *
 * Random blocks are drawn without repetition for each head and query block by a stream of its own (options
 * pattern_seed), among the blocks that are not neighbours and not wholly global; causal: among the earlier ones.
 * So a sequence has the pattern it would have alone, and a longer causal one begins like a shorter one.
 *
 * Cost: L (3B + 2n + R B) pairs; causal about half. A stream keeps all keys: a later block may draw any.
 */
#include "attention/sparse.h"

enum { DEFAULT_BLOCK = 64, DEFAULT_GLOBALS = 128, DEFAULT_RANDOM = 3 };
enum { NEAR, GLOBAL_KEYS, GLOBAL_QUERIES, RANDOM };

static fv_status check(fv_attention *op)
{
    fv_attention_options *o = &op->options;
    if (o->block == 0)
        o->block = DEFAULT_BLOCK;
    if (o->globals < 0)
        o->globals = DEFAULT_GLOBALS;
    if (o->random_blocks < 0)
        o->random_blocks = DEFAULT_RANDOM;
    TRY(fv_sparse_option(op, "random_blocks", o->random_blocks, 0, FV_SPARSE_DRAWN));
    return FV_OK;
}

static bool contains(const int64_t *list, int64_t count, int64_t x)
{
    for (int64_t i = 0; i < count; i++)
        if (list[i] == x)
            return true;
    return false;
}

int64_t fv_bigbird_draw(const fv_attention_options *o, int64_t head, int64_t block, int64_t blocks,
                        int64_t *drawn)
{
    int64_t first = o->globals / o->block, before = FV_MAX(0, FV_MIN(block - 1, blocks) - first);
    int64_t behind = FV_MAX(first, block + 2), after = o->causal ? 0 : FV_MAX(0, blocks - behind);
    int64_t among = before + after, wanted = FV_MIN(o->random_blocks, among);
    fv_random random = fv_random_make(o->pattern_seed, FV_RANDOM_PATTERN, (uint32_t)head, (uint32_t)block);
    for (int64_t n = 0; n < wanted; n++) { /* Floyd's sample without repetition */
        int64_t last = among - wanted + n, x = (int64_t)fv_random_below(&random, (uint64_t)last + 1);
        drawn[n] = contains(drawn, n, x) ? last : x;
    }
    for (int64_t n = 0; n < wanted; n++)
        drawn[n] = drawn[n] < before ? first + drawn[n] : behind + drawn[n] - before;
    return wanted;
}

static void draw(const fv_sparse_place *place, fv_sparse_group *group)
{
    const fv_attention_options *o = &place->op->options;
    if (group->first + group->n > o->globals) /* global queries see everything already */
        group->drawn_count = fv_bigbird_draw(o, place->head, group->first / o->block,
                                             (place->keys + o->block - 1) / o->block, group->drawn);
}

static fv_sparse_cut cut(const fv_sparse_place *place, int phase)
{
    (void)phase;
    return fv_sparse_block_cut(place, place->op->options.block);
}

static bool set(const fv_sparse_place *place, const fv_sparse_group *group, int index, fv_sparse_set *out)
{
    const fv_attention_options *o = &place->op->options;
    int64_t block = o->block, begin = (group->first / block - 1) * block;
    switch (index) {
    case NEAR:
        *out = fv_sparse_range(place, NEAR, begin, o->causal ? group->first + group->n : begin + 3 * block,
                               group->n);
        return true;
    case GLOBAL_KEYS:
        *out = fv_sparse_range(place, GLOBAL_KEYS, 0, o->causal ? FV_MIN(begin, o->globals) : o->globals,
                               group->n);
        return true;
    case GLOBAL_QUERIES: /* causal: a global query sees nothing behind the global keys */
        *out = fv_sparse_range(place, GLOBAL_QUERIES, o->globals, o->causal ? 0 : place->keys,
                               FV_MAX(0, FV_MIN(o->globals - group->first, group->n)));
        return true;
    default:
        if (index - RANDOM >= group->drawn_count)
            return false;
        begin = group->drawn[index - RANDOM] * block;
        *out = fv_sparse_range(place, RANDOM, FV_MAX(begin, o->globals), begin + block, group->n);
        return true;
    }
}

static fv_sparse_sight sight(const fv_sparse_place *place, const fv_sparse_set *of, int64_t i)
{
    const fv_attention_options *o = &place->op->options;
    int64_t begin = (i / o->block - 1) * o->block, end = begin + 3 * o->block;
    switch (of->part) {
    case NEAR:
        return fv_sparse_inside(place, i, begin, end);
    case GLOBAL_KEYS:
        return fv_sparse_outside(place, i, begin, end, 0, o->globals);
    case GLOBAL_QUERIES:
        return fv_sparse_outside(place, i, begin, end, o->globals, place->keys);
    default: /* nothing new for a global query */
        return fv_sparse_inside(place, i, of->first, i < o->globals ? 0 : of->first + of->count);
    }
}

static const fv_sparse_pattern pattern = {.phases = 1, .draw = draw, .cut = cut, .set = set, .sight = sight};

const fv_mechanism fv_mechanism_bigbird = {
    .kind =
        {
            .name = "bigbird",
            .summary = "BigBird: neighbouring blocks, global tokens, random blocks: O(L)",
            .paper = "Zaheer et al. 2020, arXiv 2007.14062",
            .can_be_causal = 1,
            .can_stream = 1,
        },
    .takes = FV_TAKES_BLOCK | FV_TAKES_GLOBALS | FV_TAKES_RANDOM_BLOCKS,
    .check = check,
    .pattern = &pattern,
    FV_SPARSE_ROW,
};
