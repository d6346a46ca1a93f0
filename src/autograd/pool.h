/* autograd/pool.h: a planner of memory: blocks of one region, taken and given back in any order.
 *
 * First fit over the sorted list of blocks in use: deterministic, so that the same sequence of takes and
 * gives on a pool without memory (base NULL) tells the exact peak before anything is allocated. */
#ifndef FV_AUTOGRAD_POOL_H
#define FV_AUTOGRAD_POOL_H

#include "base/internal.h"

typedef struct fv_block {
    size_t begin, bytes; /* bytes 0: no block */
} fv_block;

typedef struct fv_pool_entry {
    size_t begin, end;
    int holders;
} fv_pool_entry;

typedef struct fv_pool {
    char *base;             /* NULL: only measuring */
    size_t capacity;        /* of base */
    size_t peak;            /* highest end of a block so far; PTRDIFF_MAX or more: sizes overflowed */
    fv_pool_entry *entries; /* [limit] sorted by begin, the caller's memory */
    int count, limit;
} fv_pool;

/* A block of count floats for one holder. Empty (bytes 0) when it does not fit. */
fv_block fv_pool_take(fv_pool *pool, int64_t count);
fv_block fv_pool_take_bytes(fv_pool *pool, size_t bytes);
void fv_pool_share(fv_pool *pool, fv_block block); /* one more holder */
bool fv_pool_shared(const fv_pool *pool, fv_block block);
void fv_pool_give(fv_pool *pool, fv_block *block);        /* one holder less; *block becomes empty */
float *fv_pool_data(const fv_pool *pool, fv_block block); /* NULL when measuring or empty */

#endif
