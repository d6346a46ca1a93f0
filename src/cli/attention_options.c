/* cli/attention_options.c: the options that mean the same in every command, and the attention they describe.
 */
#include "cli.h"
#include <string.h>

static const cli_option common_options[] = {
    {.name = "seed", .type = CLI_INT, .metavar = "N", .fallback = "0", .help = "seed of everything random"},
    {.name = "threads",
     .type = CLI_INT,
     .metavar = "N",
     .max = CLI_THREADS_MAX,
     .words = "all processors",
     .help = "worker threads; results do not depend on it"},
    {.name = "cpu",
     .type = CLI_TEXT,
     .metavar = "NAME",
     .words = "best available",
     .help = "kernel set: reference, avx2, avx512, avx512_bf16, amx or neon (`favor info` lists what this "
             "processor has)"},
    {.name = "json", .type = CLI_FLAG, .help = "print the result as JSON"},
    {.name = "help", .letter = 'h', .type = CLI_FLAG, .help = "print this help"},
};
const cli_group cli_common_group = {"Common", common_options, CLI_COUNT(common_options)};

static const cli_option help_options[] = {
    {.name = "help", .letter = 'h', .type = CLI_FLAG, .help = "print this help"},
};
const cli_group cli_help_group = {"Common", help_options, CLI_COUNT(help_options)};

static const cli_option attention_options[] = {
    {.name = "attention",
     .type = CLI_TEXT,
     .metavar = "NAME",
     .key = "attention.kind",
     .fallback = "favor+",
     .help = "kind of attention (`favor info` lists the names); auto: exact where it is faster on this "
             "machine, else favor+"},
    {.name = "scale",
     .type = CLI_REAL,
     .metavar = "X",
     .key = "attention.scale",
     .words = "1/sqrt(d), or 1 for generalized maps",
     .help = "multiplies q.k"},
    {.name = "features",
     .type = CLI_INT,
     .metavar = "M",
     .max = 1 << 20,
     .key = "attention.features",
     .words = "d ln d, up to a multiple of 16",
     .help = "number of random projections"},
    {.name = "projection",
     .type = CLI_ENUM,
     .choices = "none|iid|orthogonal|hadamard|givens|simplex",
     .key = "attention.projection",
     .words = "orthogonal, or none for generalized maps",
     .help = "how the projections are drawn"},
    {.name = "row-norms",
     .type = CLI_ENUM,
     .choices = "chi|sqrt-d",
     .key = "attention.row_norms",
     .fallback = "chi",
     .help = "norms of the projections: of fresh normal vectors, or all sqrt(d)"},
    {.name = "projection-seed",
     .type = CLI_INT,
     .metavar = "N",
     .key = "attention.projection_seed",
     .fallback = "0",
     .help = "seed of the projections"},
    {.name = "redraw",
     .type = CLI_INT,
     .metavar = "N",
     .max = 1e15,
     .key = "attention.redraw",
     .help = "steps between redraws of the projections while training, 0: never"},
    {.name = "epsilon",
     .type = CLI_REAL,
     .metavar = "X",
     .key = "attention.epsilon",
     .words = "1e-3",
     .help = "added to the features of generalized maps, and of these only"},
    {.name = "denominator",
     .type = CLI_TEXT,
     .metavar = "GUARD",
     .key = "attention.denominator",
     .words = "none, or sign:1e-3 for maps that can be negative",
     .help = "guard of the normaliser D: none (D), off (no division), add:X (D+X), clamp:X (max(D,X)), abs:X "
             "(max(|D|,X)), sign:X (max(|D|,X) with the sign of D)"},
    {.name = "causal",
     .type = CLI_FLAG,
     .key = "is_decoder",
     .help = "position i sees positions up to i only"},
    {.name = "chunk",
     .type = CLI_INT,
     .metavar = "N",
     .min = 1,
     .max = 1e15,
     .key = "attention.chunk",
     .words = "as suits the kind",
     .help = "tokens in a chunk of causal attention"},
    /* From here on the configuration key says type, range, default and help. */
    {.name = "trainable-projection", .key = "attention.trainable_projection"},
    {.name = "tau", .metavar = "X", .key = "attention.tau"},
    {.name = "psi", .metavar = "X", .key = "attention.psi"},
    {.name = "rmf-law", .metavar = "LAW", .key = "attention.rmf_law"},
    {.name = "rmf-max-degree", .metavar = "N", .key = "attention.rmf_max_degree"},
    {.name = "features-trig", .metavar = "M", .key = "attention.features_trig"},
    {.name = "angle-rows", .metavar = "N", .key = "attention.angle_rows"},
    {.name = "window", .metavar = "W", .key = "attention.window"},
    {.name = "stride", .metavar = "S", .key = "attention.stride"},
    {.name = "block", .metavar = "B", .key = "attention.block"},
    {.name = "globals", .metavar = "N", .key = "attention.globals"},
    {.name = "random-blocks", .metavar = "R", .key = "attention.random_blocks"},
    {.name = "buckets", .metavar = "B", .key = "attention.buckets"},
    {.name = "rounds", .metavar = "R", .key = "attention.rounds"},
    {.name = "projected", .metavar = "K", .key = "attention.projected"},
    {.name = "max-tokens", .metavar = "N", .key = "attention.max_tokens"},
    {.name = "gate", .key = "attention.gate"},
    {.name = "decay", .key = "attention.decay"},
    {.name = "position-bias", .key = "attention.position_bias"},
    {.name = "position-span", .metavar = "N", .key = "attention.position_span"},
    {.name = "position-fft", .metavar = "N", .key = "attention.position_fft"},
    {.name = "position-skip", .metavar = "N", .key = "attention.position_skip"},
    {.name = "ppsbn", .key = "attention.ppsbn"},
    {.name = "rotary", .key = "attention.rotary"},
    {.name = "rotary-base", .metavar = "X", .key = "attention.rotary_base"},
    CLI_DTYPE,
};
const cli_group cli_attention_group = {"Attention", attention_options, CLI_COUNT(attention_options)};

static bool is_field(const char *name)
{
    const char *option;
    for (int i = 0; (option = fv_attention_option_name(i)) != NULL; i++)
        if (strcmp(option, name) == 0)
            return true;
    return false;
}

static const char *kind_name(const void *arg, int index)
{
    (void)arg;
    const fv_attention_kind *kind = fv_attention_kind_at(index);
    return kind != NULL ? kind->name : NULL;
}

fv_status cli_attention_kind(const char *name, const fv_attention_kind **kind)
{
    /* Its options are those of the kind it may become. */
    *kind = fv_attention_kind_find(strcmp(name, "auto") == 0 ? FV_ATTENTION_KERNELIZED : name);
    if (*kind != NULL)
        return FV_OK;
    const char *near = cli_nearest(name, kind_name, NULL);
    if (near != NULL)
        return cli_fail(FV_ERR_USAGE, "unknown attention %s, did you mean %s? `favor info` lists the names",
                        name, near);
    char list[1024] = "";
    const char *other;
    for (int i = 0; (other = kind_name(NULL, i)) != NULL; i++) {
        size_t used = strlen(list);
        snprintf(list + used, sizeof list - used, " %s", other);
    }
    return cli_fail(FV_ERR_USAGE, "unknown attention %s; the names are:%s", name, list);
}

/* Every option given whose key is a field of the operator's options. */
static fv_status set_options(const cli_args *args, fv_attention_options *options)
{
    const cli_command *command = cli_args_command(args);
    const char prefix[] = "attention.";
    const size_t skip = strlen(prefix);
    for (int i = 0; i < CLI_COUNT(attention_options); i++) {
        const cli_option *row = &attention_options[i];
        const cli_option *active = cli_option_find(command, row->name);
        /* A command's own row of the name may hold a list: the command sees to it. */
        if (row->key == NULL || strncmp(row->key, prefix, skip) != 0 || active->type == CLI_LIST ||
            !cli_given(args, row->name) || !is_field(row->key + skip))
            continue;
        const char *text = cli_text(args, row->name);
        const char *expected = fv_attention_options_set(options, row->key + skip, text);
        if (expected != NULL)
            return cli_fail(FV_ERR_USAGE, "--%s %s: expected %s", row->name, text, expected);
    }
    return FV_OK;
}

fv_status cli_attention_choose(fv_context *ctx, const char *kind, int64_t length, bool backward,
                               fv_attention_options *options)
{
    fv_attention_choice choice;
    if (strcmp(kind, "auto") != 0)
        return FV_OK;
    if (fv_attention_choose(ctx, options, length, backward, &choice) != FV_OK)
        return cli_context_fail(ctx, FV_ERR_USAGE);
    cli_note("attention auto: %s for %lld tokens (%s is faster from about %lld on)", choice.kind,
             (long long)length, FV_ATTENTION_KERNELIZED, (long long)choice.crossover);
    options->kind = choice.kind;
    return FV_OK;
}

fv_status cli_attention_options(const cli_args *args, const char *kind, fv_attention_options *options)
{
    const fv_attention_kind *row;
    CLI_TRY(cli_attention_kind(kind != NULL ? kind : cli_text(args, "attention"), &row));
    fv_attention_options_init(options);
    options->kind = row->name;
    options->causal = cli_flag(args, "causal");
    if (cli_given(args, "epsilon") && !row->generalized)
        return cli_fail(FV_ERR_USAGE, "--epsilon: %s is not a generalized map and has no epsilon", row->name);
    CLI_TRY(set_options(args, options));
    options->pattern_seed = (uint64_t)cli_int(args, "projection-seed");
    if (cli_given(args, "scale") && options->scale <= 0)
        return cli_fail(FV_ERR_USAGE, "--scale %s: expected a number above 0", cli_text(args, "scale"));
    if (options->epsilon < 0 && cli_given(args, "epsilon"))
        return cli_fail(FV_ERR_USAGE, "--epsilon %s: expected a number >= 0", cli_text(args, "epsilon"));
    return FV_OK;
}
