/* support/one_context.c */
#include "support/one_context.h"
#include "support/problem.h"
#include "support/scratch.h"

fv_context *ctx;

int setup(void **state)
{
    (void)state;
    ctx = problem_context(NULL, 2);
    return 0;
}

int teardown(void **state)
{
    (void)state;
    size_t left = fv_context_bytes(ctx);
    fv_context_destroy(ctx);
    return left == 0 ? 0 : -1;
}

int setup_files(void **state)
{
    if (fv_context_create(&ctx, NULL) != FV_OK)
        return -1;
    return scratch_setup(state);
}

int teardown_files(void **state)
{
    int status = teardown(state);
    return scratch_teardown(state) == 0 ? status : -1;
}
