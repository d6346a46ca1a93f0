/* pool.c: first-fit planning of activation memory. */
#include "autograd/pool.h"
#include <string.h>

/* The first gap of at least `bytes`: *at is the entry behind it. */
static size_t find_gap(const fv_pool *pool, size_t bytes, int *at)
{
    size_t begin = 0;
    *at = 0;
    while (*at < pool->count && pool->entries[*at].begin - begin < bytes)
        begin = pool->entries[(*at)++].end;
    return begin;
}

fv_block fv_pool_take_bytes(fv_pool *pool, size_t bytes)
{
    if (bytes > PTRDIFF_MAX / 2) {
        pool->peak = SIZE_MAX;
        return (fv_block){0};
    }
    int at;
    bytes = FV_MAX(fv_bytes((int64_t)bytes, 1), (size_t)FV_ALIGN); /* an empty block would mean "none" */
    size_t begin = find_gap(pool, bytes, &at), end = begin + bytes;
    pool->peak = FV_MAX(pool->peak, end);
    if (end > PTRDIFF_MAX || pool->count == pool->limit || (pool->base != NULL && end > pool->capacity))
        return (fv_block){0};
    fv_pool_entry *entry = &pool->entries[at];
    memmove(entry + 1, entry, (size_t)(pool->count++ - at) * sizeof *entry);
    *entry = (fv_pool_entry){begin, end, 1};
    if (pool->base != NULL)
        fv_open(pool->base + begin, bytes);
    return (fv_block){begin, bytes};
}

fv_block fv_pool_take(fv_pool *pool, int64_t count)
{
    return fv_pool_take_bytes(pool, fv_bytes(count, sizeof(float)));
}

static fv_pool_entry *find(const fv_pool *pool, fv_block block)
{
    int low = 0, high = pool->count - 1;
    while (low < high) {
        int middle = (low + high) / 2;
        if (pool->entries[middle].begin < block.begin)
            low = middle + 1;
        else
            high = middle;
    }
    return &pool->entries[low];
}

void fv_pool_share(fv_pool *pool, fv_block block)
{
    if (block.bytes > 0)
        find(pool, block)->holders++;
}

bool fv_pool_shared(const fv_pool *pool, fv_block block)
{
    return block.bytes > 0 && find(pool, block)->holders > 1;
}

void fv_pool_give(fv_pool *pool, fv_block *block)
{
    if (block->bytes == 0)
        return;
    fv_pool_entry *entry = find(pool, *block);
    *block = (fv_block){0};
    if (--entry->holders > 0)
        return;
    if (pool->base != NULL)
        fv_seal(pool->base + entry->begin, entry->end - entry->begin);
    int after = (int)(pool->entries + --pool->count - entry);
    memmove(entry, entry + 1, (size_t)after * sizeof *entry);
}

float *fv_pool_data(const fv_pool *pool, fv_block block)
{
    return pool->base != NULL && block.bytes > 0 ? (float *)(void *)(pool->base + block.begin) : NULL;
}
