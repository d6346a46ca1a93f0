/* attention/kv_cache.h: the state of softmax kinds that stream: keys and values of the tokens they may still look at.
 * A cache has `capacity` rows a head, which stand together, since a token reads them head by head: the first `pinned` tokens stand in the first rows, the others in a ring behind them,
 * which holds the last ones. Without a ring (pinned = capacity) every token is kept, and a full cache refuses more.
 */
#ifndef FV_KV_CACHE_H
#define FV_KV_CACHE_H

#include "attention/mechanism.h"

/* A stream's memory: this header, keys [G][capacity][d], values [G][capacity][dv], each 64-byte aligned. */
typedef struct fv_kv_cache {
    int64_t tokens; /* seen; every state begins with its count */
    int64_t capacity, pinned;
    char pad[FV_ALIGN - 3 * sizeof(int64_t)];
} fv_kv_cache;

size_t fv_kv_cache_bytes(const fv_attention *op, int64_t capacity);
void fv_kv_cache_init(const fv_attention *op, int64_t capacity, int64_t pinned, void *state);
/* Rows of key head g: [capacity][d], [capacity][dv]. */
float *fv_kv_cache_keys(const fv_attention *op, fv_kv_cache *cache, int64_t g);
float *fv_kv_cache_values(const fv_attention *op, fv_kv_cache *cache, int64_t g);
/* Of tokens j, j + step, ... which are all kept: how many of n stand `step` rows apart; the first in row *row. */
int64_t fv_kv_cache_run(const fv_kv_cache *cache, int64_t j, int64_t step, int64_t n, int64_t *row);

/* The caches of a call's sequences. FV_ERR_RESOURCE where one without a ring has no room for the tokens of its
 * sequence. */
fv_status fv_kv_caches_find(const fv_attention *op, const fv_layout *layout, const fv_states *states,
                            fv_kv_cache **caches);
/* Every sequence's tokens into its cache, as far as it keeps them; strides of io are resolved. */
void fv_kv_caches_store(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                        fv_kv_cache **caches);

/* Functions of a row. */
void fv_kv_cache_view(const fv_attention *op, void *state, fv_state_view *view);
fv_status fv_kv_cache_merge(const fv_attention *op, void *dst, const void *a, const void *b);

#endif
