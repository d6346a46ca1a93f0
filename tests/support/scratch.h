/* support/scratch.h: a directory to write in, an allocator that fails on demand, checks of failures. */
#ifndef FV_TESTS_SCRATCH_H
#define FV_TESTS_SCRATCH_H

#include <favor/base.h>

/* cmocka.h needs the four before it. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

/* cmocka group setup and teardown: makes a fresh directory, removes it with everything in it. */
int scratch_setup(void **state);
int scratch_teardown(void **state);

/* Path of a file in it; valid until eight more calls. */
const char *scratch_path(const char *name);
/* Writes a file there, plain or gzip, and returns its path. */
const char *scratch_write(const char *name, const void *bytes, size_t count);
const char *scratch_text(const char *name, const char *text);
const char *scratch_gzip(const char *name, const void *bytes, size_t count);
/* A device that is always full, or NULL. Root gets one in the directory: a library that renames over what it
 * should write to must not meet the machine's own. */
const char *scratch_full_device(void);
/* 1 if the directory holds exactly `count` files. */
int scratch_holds(int count);

/* A context of one thread whose n-th allocation from now on fails (n = 1, 2, ...; 0: none). */
typedef struct failing {
    fv_context *ctx;
    int64_t countdown, live;
} failing;
void failing_create(failing *f);
void failing_destroy(failing *f); /* asserts that nothing is left */

/* Runs `call` with the n-th allocation failing for n = 1, 2, ... until it succeeds. Every failure must be
 * FV_ERR_RESOURCE and leave nothing allocated; call frees what it made. Returns the number of failures. */
int64_t fail_every_allocation(fv_status (*call)(fv_context *ctx, void *arg), void *arg);

/* Asserts the status and that the context's message holds each of the texts (NULL ends them). */
void expect_failure(fv_context *ctx, fv_status status, fv_status expected, ...);

#endif
