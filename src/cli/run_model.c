/* cli/run_model.c: the model of a run directory, as --checkpoint says. */
#include "cli.h"
#include <string.h>
#include <unistd.h>

/* A damaged last checkpoint is told even where the best model is used: the run cannot be continued. */
static fv_status check_last(fv_context *ctx, const char *directory)
{
    fv_model *last = NULL;
    fv_status status = fv_model_load(&last, ctx, directory, false);
    fv_model_destroy(last);
    return status;
}

fv_status cli_directory_model(fv_model **model, fv_context *ctx, const cli_args *args, const char *directory)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/best/model.safetensors", directory);
    bool chosen = cli_given(args, "checkpoint");
    bool best = chosen ? strcmp(cli_text(args, "checkpoint"), "best") == 0 : access(path, F_OK) == 0;
    if (best && !chosen)
        CLI_TRY(check_last(ctx, directory));
    return fv_model_load(model, ctx, directory, best);
}

fv_status cli_run_model(fv_model **model, fv_context *ctx, const cli_args *args)
{
    return cli_directory_model(model, ctx, args, cli_operand(args, 0));
}
