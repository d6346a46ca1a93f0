/* memory.c: counted allocation, checked sizes, arenas. */
#include "base/internal.h"
#include <string.h>

#ifdef FV_SANITIZED
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(memory, bytes)   ((void)(memory), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(memory, bytes) ((void)(memory), (void)(bytes))
#endif

/* Every block carries its size in front, so that freeing can count it back. */
typedef struct header {
    size_t bytes;
    char pad[FV_ALIGN - sizeof(size_t)];
} header;

void *fv_alloc(fv_context *ctx, size_t bytes)
{
    header *block = NULL;
    if (bytes <= PTRDIFF_MAX - sizeof(header))
        block = ctx->alloc(ctx->alloc_user, sizeof(header) + (bytes > 0 ? bytes : 1));
    if (block == NULL) {
        (void)fv_fail(ctx, FV_ERR_RESOURCE, "out of memory: %zu bytes were asked for", bytes);
        return NULL;
    }
    block->bytes = bytes;
    size_t now = atomic_fetch_add(&ctx->bytes, bytes) + bytes;
    size_t peak = atomic_load(&ctx->peak);
    while (now > peak && !atomic_compare_exchange_weak(&ctx->peak, &peak, now)) {
    }
    return block + 1;
}

void fv_free(fv_context *ctx, void *memory)
{
    if (memory == NULL)
        return;
    header *block = (header *)memory - 1;
    atomic_fetch_sub(&ctx->bytes, block->bytes);
    ctx->free(ctx->alloc_user, block);
}

size_t fv_context_bytes(const fv_context *ctx)
{
    return atomic_load(&((fv_context *)(uintptr_t)ctx)->bytes);
}

size_t fv_context_peak_bytes(const fv_context *ctx)
{
    return atomic_load(&((fv_context *)(uintptr_t)ctx)->peak);
}

void fv_context_reset_peak(fv_context *ctx)
{
    atomic_store(&ctx->peak, atomic_load(&ctx->bytes));
}

bool fv_mul(int64_t a, int64_t b, int64_t *out)
{
    return a >= 0 && b >= 0 && !__builtin_mul_overflow(a, b, out);
}

size_t fv_bytes(int64_t count, size_t element)
{
    size_t bytes;
    if (count < 0 || __builtin_mul_overflow((size_t)count, element, &bytes) || bytes > SIZE_MAX - FV_ALIGN)
        return SIZE_MAX;
    return (bytes + FV_ALIGN - 1) / FV_ALIGN * FV_ALIGN;
}

size_t fv_add_bytes(size_t a, size_t b)
{
    return a > SIZE_MAX - b ? SIZE_MAX : a + b;
}

void *fv_alloc_array(fv_context *ctx, int64_t count, size_t element)
{
    return fv_alloc(ctx, fv_bytes(count, element));
}

void *fv_alloc_zero(fv_context *ctx, int64_t count, size_t element)
{
    void *memory = fv_alloc_array(ctx, count, element);
    if (memory != NULL)
        memset(memory, 0, (size_t)count * element);
    return memory;
}

char *fv_strdup(fv_context *ctx, const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = fv_alloc(ctx, bytes);
    return copy != NULL ? memcpy(copy, text, bytes) : NULL;
}

fv_arena fv_arena_measure(void)
{
    return (fv_arena){0};
}

fv_arena fv_arena_over(void *base, size_t capacity)
{
    return (fv_arena){.base = base, .capacity = capacity};
}

void *fv_arena_push(fv_arena *arena, int64_t count, size_t element)
{
    size_t begin = arena->used, end = fv_add_bytes(begin, fv_bytes(count, element));
    arena->used = fv_add_bytes(end, FV_RED_ZONE);
    arena->peak = FV_MAX(arena->peak, arena->used);
    if (arena->base == NULL || arena->used > arena->capacity)
        return NULL;
    size_t bytes = (size_t)count * element; /* the rounding up to FV_ALIGN belongs to the zone */
    fv_open(arena->base + begin, bytes);
    fv_seal(arena->base + begin + bytes, arena->used - begin - bytes);
    return arena->base + begin;
}

void fv_seal(void *memory, size_t bytes)
{
    ASAN_POISON_MEMORY_REGION(memory, bytes);
}

void fv_open(void *memory, size_t bytes)
{
    ASAN_UNPOISON_MEMORY_REGION(memory, bytes);
}
