/* support/guarded.h: memory that ends, or begins, flush against a page that must not be touched, and a
 * pattern that shows what was written beside the data. */
#ifndef GUARDED_H
#define GUARDED_H

#include <stddef.h>

typedef struct guarded {
    unsigned char *pages; /* between two forbidden pages */
    size_t bytes;
} guarded;

guarded guarded_make(size_t capacity);
void guarded_free(guarded *g);

/* Fills the pages with canaries and returns room for `bytes`: `slack` bytes after the front page if `front`,
 * else `slack` bytes before the back page. */
void *guarded_place(guarded *g, size_t bytes, size_t slack, int front);
/* 1 if every byte outside [data, data + bytes) still holds the canary. */
int guarded_intact(const guarded *g, const void *data, size_t bytes);

enum { GUARDED_CANARY = 0xAA };

#endif
