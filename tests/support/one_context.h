/* support/one_context.h: the context that all tests of a program share, with the best kernel set and two threads. */
#ifndef ONE_CONTEXT_H
#define ONE_CONTEXT_H

#include "base/internal.h"

extern fv_context *ctx;

/* For cmocka_run_group_tests. teardown fails where memory of the context is left. */
int setup(void **state);
int teardown(void **state);
/* The same with as many threads as there are, and a scratch directory (scratch.h). */
int setup_files(void **state);
int teardown_files(void **state);

#endif
