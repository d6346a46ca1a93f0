/* support/guarded.c: see guarded.h. */
#include "support/guarded.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

guarded guarded_make(size_t capacity)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t bytes = (capacity + page - 1) / page * page;
    unsigned char *all =
        mmap(NULL, bytes + 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(all, page, PROT_NONE) != 0 ||
        mprotect(all + page + bytes, page, PROT_NONE) != 0)
        abort();
    return (guarded){.pages = all + page, .bytes = bytes};
}

void guarded_free(guarded *g)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (g->pages != NULL)
        munmap(g->pages - page, g->bytes + 2 * page);
    *g = (guarded){0};
}

/* Canaries are written and checked this far around the data, which may be small in a large room. */
enum { MARGIN = 256 };

static size_t clamp_begin(const guarded *g, const unsigned char *data)
{
    size_t at = (size_t)(data - g->pages);
    return at < MARGIN ? 0 : at - MARGIN;
}

static size_t clamp_end(const guarded *g, const unsigned char *data, size_t bytes)
{
    size_t end = (size_t)(data - g->pages) + bytes;
    return g->bytes - end < MARGIN ? g->bytes : end + MARGIN;
}

void *guarded_place(guarded *g, size_t bytes, size_t slack, int front)
{
    if (bytes + slack > g->bytes)
        abort();
    unsigned char *data = front ? g->pages + slack : g->pages + g->bytes - bytes - slack;
    size_t begin = clamp_begin(g, data);
    memset(g->pages + begin, GUARDED_CANARY, clamp_end(g, data, bytes) - begin);
    return data;
}

int guarded_intact(const guarded *g, const void *data, size_t bytes)
{
    const unsigned char *from = data;
    for (const unsigned char *p = g->pages + clamp_begin(g, from); p < from; p++)
        if (*p != GUARDED_CANARY)
            return 0;
    for (const unsigned char *p = from + bytes; p < g->pages + clamp_end(g, from, bytes); p++)
        if (*p != GUARDED_CANARY)
            return 0;
    return 1;
}
