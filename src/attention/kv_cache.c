/* kv_cache.c: see kv_cache.h. */
#include "attention/kv_cache.h"
#include <string.h>

static size_t block_bytes(const fv_attention *op, int64_t capacity, int64_t width)
{
    int64_t floats;
    bool fits = fv_mul(capacity, op->options.kv_heads * width, &floats);
    return fits ? fv_bytes(floats, sizeof(float)) : SIZE_MAX;
}

size_t fv_kv_cache_bytes(const fv_attention *op, int64_t capacity)
{
    size_t keys = block_bytes(op, capacity, op->options.dim);
    size_t values = block_bytes(op, capacity, op->options.value_dim);
    return fv_add_bytes(sizeof(fv_kv_cache), fv_add_bytes(keys, values));
}

void fv_kv_cache_init(const fv_attention *op, int64_t capacity, int64_t pinned, void *state)
{
    fv_kv_cache *cache = state;
    memset(state, 0, fv_kv_cache_bytes(op, capacity));
    cache->capacity = capacity;
    cache->pinned = pinned;
}

float *fv_kv_cache_keys(const fv_attention *op, fv_kv_cache *cache, int64_t g)
{
    return (float *)(cache + 1) + g * cache->capacity * op->options.dim;
}

float *fv_kv_cache_values(const fv_attention *op, fv_kv_cache *cache, int64_t g)
{
    char *values = (char *)(cache + 1) + block_bytes(op, cache->capacity, op->options.dim);
    return (float *)(void *)values + g * cache->capacity * op->options.value_dim;
}

void fv_kv_cache_view(const fv_attention *op, void *state, fv_state_view *view)
{
    fv_kv_cache *cache = state;
    *view = (fv_state_view){
        .tokens = cache->tokens,
        .keys = fv_kv_cache_keys(op, cache, 0),
        .values = fv_kv_cache_values(op, cache, 0),
        .capacity = cache->capacity,
        .pinned = cache->pinned,
    };
}

/* ---- where tokens stand ------------------------------------------------------------------------------ */

static int64_t ring_of(const fv_kv_cache *c)
{
    return c->capacity - c->pinned;
}

static int64_t row_of(const fv_kv_cache *c, int64_t j)
{
    int64_t ring = ring_of(c);
    return j < c->pinned || ring == 0 ? j : c->pinned + (j - c->pinned) % ring;
}

/* The first token from j on that is kept when `total` were seen; total or more: there is none. */
static int64_t next_kept(const fv_kv_cache *c, int64_t j, int64_t total)
{
    return j < c->pinned ? j : FV_MAX(j, FV_MAX(c->pinned, total - ring_of(c)));
}

int64_t fv_kv_cache_run(const fv_kv_cache *cache, int64_t j, int64_t step, int64_t n, int64_t *row)
{
    int64_t end = j < cache->pinned ? cache->pinned : cache->capacity;
    *row = row_of(cache, j);
    return FV_MIN(n, (end - *row + step - 1) / step);
}

/* ---- more tokens ------------------------------------------------------------------------------------- */

static fv_status check_room(const fv_attention *op, const fv_kv_cache *cache, int64_t more)
{
    if (ring_of(cache) > 0 || more <= cache->capacity - cache->tokens)
        return FV_OK;
    return fv_fail(op->ctx, FV_ERR_RESOURCE,
                   "attention %s keeps every key: the state has room for %lld tokens, holds %lld and was "
                   "given %lld more; make it with a larger capacity",
                   op->options.kind, (long long)cache->capacity, (long long)cache->tokens, (long long)more);
}

fv_status fv_kv_caches_find(const fv_attention *op, const fv_layout *layout, const fv_states *states,
                            fv_kv_cache **caches)
{
    const int64_t *offsets = fv_layout_keys(layout);
    for (int64_t s = 0; s < layout->sequences; s++) {
        caches[s] = fv_states_next(op, states, s, s > 0 ? caches[s - 1] : NULL);
        TRY(check_room(op, caches[s], offsets[s + 1] - offsets[s]));
    }
    return FV_OK;
}

static void store(const fv_attention *op, fv_kv_cache *cache, int64_t n, const float *k, int64_t ldk,
                  const float *v, int64_t ldv)
{
    const fv_kernels *kr = op->ctx->kernels;
    int64_t d = op->options.dim, dv = op->options.value_dim, seen = cache->tokens, total = seen + n, row, run;
    for (int64_t j = next_kept(cache, seen, total); j < total; j = next_kept(cache, j + run, total)) {
        const float *k_j = k + (j - seen) * ldk, *v_j = v + (j - seen) * ldv;
        run = fv_kv_cache_run(cache, j, 1, total - j, &row);
        for (int64_t g = 0; g < op->options.kv_heads; g++) {
            kr->copy_rows(run, d, k_j + g * d, ldk, fv_kv_cache_keys(op, cache, g) + row * d, d);
            kr->copy_rows(run, dv, v_j + g * dv, ldv, fv_kv_cache_values(op, cache, g) + row * dv, dv);
        }
    }
    cache->tokens = total;
}

void fv_kv_caches_store(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                        fv_kv_cache **caches)
{
    const int64_t *offsets = fv_layout_keys(layout);
    if (offsets[layout->sequences] == 0) /* a call that only reads */
        return;
    for (int64_t s = 0; s < layout->sequences; s++)
        store(op, caches[s], offsets[s + 1] - offsets[s], io->k + offsets[s] * io->k_stride, io->k_stride,
              io->v + offsets[s] * io->v_stride, io->v_stride);
}

/* ---- merging ------------------------------------------------------------------------------------------- */

static void copy_row(const fv_attention *op, fv_kv_cache *from, int64_t row, fv_kv_cache *to, int64_t to_row)
{
    int64_t d = op->options.dim, dv = op->options.value_dim;
    for (int64_t g = 0; g < op->options.kv_heads; g++) {
        memmove(fv_kv_cache_keys(op, to, g) + to_row * d, fv_kv_cache_keys(op, from, g) + row * d,
                (size_t)d * sizeof(float));
        memmove(fv_kv_cache_values(op, to, g) + to_row * dv, fv_kv_cache_values(op, from, g) + row * dv,
                (size_t)dv * sizeof(float));
    }
}

static void reverse(float *x, int64_t rows, int64_t width)
{
    for (int64_t i = 0, j = rows - 1; i < j; i++, j--)
        for (int64_t c = 0; c < width; c++) {
            float old = x[i * width + c];
            x[i * width + c] = x[j * width + c], x[j * width + c] = old;
        }
}

/* Row r moves to row (r + by) % rows. */
static void rotate(float *x, int64_t rows, int64_t width, int64_t by)
{
    reverse(x, rows, width);
    reverse(x, by, width);
    reverse(x + by * width, rows - by, width);
}

/* Moves what the cache keeps to where it stands behind `by` other tokens, in place. */
static void shift(const fv_attention *op, fv_kv_cache *c, int64_t by)
{
    int64_t d = op->options.dim, dv = op->options.value_dim, ring = ring_of(c), total = c->tokens + by;
    for (int64_t g = 0; ring > 0 && g < op->options.kv_heads; g++) {
        rotate(fv_kv_cache_keys(op, c, g) + c->pinned * d, ring, d, by % ring);
        rotate(fv_kv_cache_values(op, c, g) + c->pinned * dv, ring, dv, by % ring);
    }
    for (int64_t j = FV_MIN(c->pinned, c->tokens) - 1; j >= 0; j--) /* last first: none is in another's way */
        if (next_kept(c, j + by, total) == j + by)
            copy_row(op, c, j, c, row_of(c, j + by));
}

/* Tokens begin .. end - 1 of `to`, as far as it keeps them of `total`; they are tokens begin - offset, ... of
 * `from`. */
static void copy_tokens(const fv_attention *op, fv_kv_cache *to, int64_t begin, int64_t end, int64_t total,
                        fv_kv_cache *from, int64_t offset)
{
    for (int64_t j = next_kept(to, begin, total); j < end; j = next_kept(to, j + 1, total))
        copy_row(op, from, row_of(from, j - offset), to, row_of(to, j));
}

/* dst (a, b, both, or a state made by _init) = the tokens of a, then those of b. Whatever is kept of the whole was
 * kept in its part, because a part's last tokens reach further back and its first ones further on. */
fv_status fv_kv_cache_merge(const fv_attention *op, void *dst, const void *a, const void *b)
{
    fv_kv_cache *to = dst, *first = (fv_kv_cache *)(uintptr_t)a, *second = (fv_kv_cache *)(uintptr_t)b;
    int64_t na = first->tokens, total = na + second->tokens;
    if (ring_of(to) == 0 && total > to->capacity)
        return fv_fail(
            op->ctx, FV_ERR_RESOURCE,
            "merging %lld and %lld tokens: the state has room for %lld; make it with a larger capacity",
            (long long)na, (long long)second->tokens, (long long)to->capacity);
    if (to == second)
        shift(op, to, na);
    if (to != first)
        copy_tokens(op, to, 0, na, total, first, 0);
    else if (to == second) /* doubled: the ring's tokens have just been moved */
        copy_tokens(op, to, FV_MIN(to->pinned, na), na, total, to, -na);
    if (to != second)
        copy_tokens(op, to, na, total, total, second, na);
    to->tokens = total;
    return FV_OK;
}
