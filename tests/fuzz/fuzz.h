/* fuzz/fuzz.h: a context and a file that holds the input, both made once. */
#ifndef FV_FUZZ_H
#define FV_FUZZ_H

#include <favor/favor.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MUST(condition)                                                                                      \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                  \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count);

/* A context of one thread. */
static inline fv_context *fuzz_context(void)
{
    static fv_context *ctx;
    fv_context_options options;
    fv_context_options_init(&options);
    options.threads = 1;
    if (ctx == NULL)
        MUST(fv_context_create(&ctx, &options) == FV_OK);
    MUST(fv_context_bytes(ctx) == 0); /* the last input left nothing behind */
    return ctx;
}

/* Puts the input into a file in memory; the same path each time. */
static inline const char *fuzz_file(const uint8_t *bytes, size_t count)
{
    static char path[64];
    static int fd = -1;
    if (fd < 0) {
        fd = memfd_create("input", 0);
        MUST(fd >= 0);
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    }
    MUST(ftruncate(fd, 0) == 0);
    MUST(pwrite(fd, bytes, count, 0) == (ssize_t)count);
    return path;
}

#endif
