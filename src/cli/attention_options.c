/* cli/attention_options.c: the options that mean the same in every command, and the attention they describe.
 */
#include "cli.h"
#include <string.h>

static const cli_option common_options[] = {
    {.name = "seed", .type = CLI_INT, .metavar = "N", .fallback = "0", .help = "seed of everything random"},
    {.name = "threads",
     .type = CLI_INT,
     .metavar = "N",
     .max = 4096,
     .words = "all processors",
     .help = "worker threads; results do not depend on it"},
    {.name = "cpu",
     .type = CLI_TEXT,
     .metavar = "NAME",
     .words = "best available",
     .help = "kernel set: reference, avx2, avx512 or neon (`favor info` lists what this processor has)"},
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
     .help = "kind of attention (`favor info` lists the names)"},
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
    {.name = "dtype",
     .type = CLI_ENUM,
     .choices = "f32|bf16",
     .fallback = "f32",
     .help = "number format; this version computes in f32"},
};
const cli_group cli_attention_group = {"Attention", attention_options, CLI_COUNT(attention_options)};

static const char *kind_name(const void *arg, int index)
{
    (void)arg;
    const fv_attention_kind *kind = fv_attention_kind_at(index);
    return kind != NULL ? kind->name : NULL;
}

fv_status cli_attention_kind(const char *name, const fv_attention_kind **kind)
{
    *kind = fv_attention_kind_find(name);
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

/* "sign:1e-3" into a guard and its value. */
static fv_status read_denominator(const char *text, fv_attention_options *options)
{
    static const struct {
        const char *name;
        fv_denominator guard;
        bool takes_value;
    } guards[] = {
        {"none", FV_DENOMINATOR_NONE, false}, {"off", FV_DENOMINATOR_OFF, false},
        {"add", FV_DENOMINATOR_ADD, true},    {"clamp", FV_DENOMINATOR_CLAMP, true},
        {"abs", FV_DENOMINATOR_ABS, true},    {"sign", FV_DENOMINATOR_SIGN, true},
    };
    size_t length = strcspn(text, ":");
    for (int i = 0; i < CLI_COUNT(guards); i++) {
        if (strlen(guards[i].name) != length || memcmp(guards[i].name, text, length) != 0)
            continue;
        options->denominator = guards[i].guard;
        bool has_value = text[length] == ':';
        if (has_value != guards[i].takes_value ||
            (has_value && !cli_parse_real(text + length + 1, &options->denominator_value)))
            break;
        return FV_OK;
    }
    return cli_fail(FV_ERR_USAGE, "--denominator %s: expected none, off, add:X, clamp:X, abs:X or sign:X",
                    text);
}

/* The option's table has refused every other name. */
static fv_projection projection_of(const char *name)
{
    static const struct {
        const char *name;
        fv_projection projection;
    } names[] = {
        {"none", FV_PROJECTION_NONE},
        {"iid", FV_PROJECTION_IID},
        {"orthogonal", FV_PROJECTION_ORTHOGONAL},
        {"hadamard", FV_PROJECTION_HADAMARD},
        {"givens", FV_PROJECTION_GIVENS},
        {"simplex", FV_PROJECTION_SIMPLEX},
    };
    int i = 0;
    while (i < CLI_COUNT(names) - 1 && strcmp(name, names[i].name) != 0)
        i++;
    return names[i].projection;
}

fv_status cli_attention_options(const cli_args *args, const char *kind, fv_attention_options *options)
{
    const fv_attention_kind *row;
    CLI_TRY(cli_attention_kind(kind != NULL ? kind : cli_text(args, "attention"), &row));
    fv_attention_options_init(options);
    options->kind = row->name;
    options->causal = cli_flag(args, "causal");
    options->scale = cli_real(args, "scale");
    if (cli_given(args, "scale") && options->scale <= 0)
        return cli_fail(FV_ERR_USAGE, "--scale %s: expected a number above 0", cli_text(args, "scale"));
    options->features = cli_int(args, "features");
    options->chunk = cli_int(args, "chunk");
    if (cli_given(args, "projection"))
        options->projection = projection_of(cli_text(args, "projection"));
    if (strcmp(cli_text(args, "row-norms"), "sqrt-d") == 0)
        options->row_norms = FV_ROW_NORMS_SQRT_D;
    if (cli_given(args, "epsilon") && !row->generalized)
        return cli_fail(FV_ERR_USAGE, "--epsilon: %s is not a generalized map and has no epsilon", row->name);
    if (cli_given(args, "epsilon"))
        options->epsilon = cli_real(args, "epsilon");
    if (options->epsilon < 0 && cli_given(args, "epsilon"))
        return cli_fail(FV_ERR_USAGE, "--epsilon %s: expected a number >= 0", cli_text(args, "epsilon"));
    if (cli_given(args, "denominator"))
        CLI_TRY(read_denominator(cli_text(args, "denominator"), options));
    return FV_OK;
}
