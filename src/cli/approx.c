/* cli/approx.c: `favor approx`: the options of the laboratory of approximation, and what they ask for. The
 * studies, the table and the page are in files of their own. */
#include "approx.h"
#include <math.h>
#include <string.h>

static const cli_option options[] = {
    {.name = "study",
     .type = CLI_ENUM,
     .choices = "features|kernel|layers|lengths",
     .fallback = "features",
     .help = "what is varied: features (error against their number; Performer, Fig. 4), kernel (error of the "
             "kernel over angle and length of the vectors; Fig. 2), layers (error growth; Fig. 14), lengths "
             "(lengths and widths, with and without ppSBN; Macformer)"},
    {.name = "maps",
     .type = CLI_LIST,
     .metavar = "NAME,...",
     .words = "what the study's paper compares",
     .help = "kinds of attention, or `all` (`favor info` lists the names)"},
    {.name = "features",
     .type = CLI_LIST,
     .metavar = "M,...",
     .words = "as suits the study",
     .help = "numbers of random projections"},
    {.name = "projection",
     .type = CLI_LIST,
     .metavar = "NAME,...",
     .words = "iid,orthogonal; none for generalized maps",
     .help = "how they are drawn: none, iid, orthogonal, hadamard, givens, simplex"},
    {.name = "dim", .type = CLI_LIST, .metavar = "D,...", .words = "16", .help = "widths of a head"},
    {.name = "length",
     .type = CLI_LIST,
     .metavar = "L,...",
     .words = "4096; 512 for layers, 64 to 1024 for lengths, 2048 for --run",
     .help = "numbers of tokens; with --run: how many tokens of the data are looked at"},
    {.name = "heads",
     .type = CLI_INT,
     .metavar = "H",
     .min = 1,
     .max = 1024,
     .words = "1; 4 for layers",
     .help = "heads of random inputs"},
    {.name = "draws",
     .type = CLI_INT,
     .metavar = "R",
     .min = 1,
     .max = 1000000,
     .fallback = "15",
     .help = "redraws of the random parts that an error is averaged over"},
    {.name = "rows",
     .type = CLI_INT,
     .metavar = "N",
     .min = 1,
     .max = 1 << 20,
     .fallback = "128",
     .help = "rows of the attention matrix that are looked at, at even distances"},
    {.name = "pairs",
     .type = CLI_INT,
     .metavar = "N",
     .min = 0,
     .max = 1 << 20,
     .fallback = "64",
     .help = "pairs of a query and a key over which the variance of the kernel is averaged, 0: none"},
    {.name = "pair-draws",
     .type = CLI_INT,
     .metavar = "R",
     .min = 2,
     .max = 10000000,
     .words = "300; 2000 for kernel, 50 for --run",
     .help = "redraws for that variance"},
    {.name = "norm",
     .type = CLI_REAL,
     .metavar = "X",
     .min = 1e-6,
     .max = 1e6,
     .fallback = "1",
     .help = "length of random queries and keys after multiplication by the root of the scale"},
    {.name = "layers",
     .type = CLI_INT,
     .metavar = "N",
     .min = 1,
     .max = 1000,
     .fallback = "8",
     .help = "layers of --study layers"},
    {.name = "input",
     .letter = 'i',
     .type = CLI_FILE,
     .help = "safetensors file with q, k, v (and offsets) to study instead of random inputs"},
    {.name = "run", .type = CLI_FILE, .metavar = "DIR", .help = "run directory of a trained model to study"},
    {.name = "data", .type = CLI_FILE, .help = "data for --run, plain or gzip"},
    {.name = "wanted-error",
     .type = CLI_REAL,
     .metavar = "X",
     .min = 1e-6,
     .max = 10,
     .fallback = "0.1",
     .help = "relative error of the output that the recommendations of --run are for"},
    {.name = "checkpoint",
     .type = CLI_ENUM,
     .choices = "best|last",
     .fallback = "best",
     .help = "model at the best validation loss (the last one where there is none yet), or the last one"},
    {.name = "html", .type = CLI_FILE, .help = "write a page with charts, whole in itself"},
};
static const cli_group own = {"Approximation", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {&own, &cli_attention_group, &cli_common_group, NULL};

/* ---- what studies share ------------------------------------------------------------------------------ */

void approx_advance(approx *a, int64_t draws)
{
    double seconds = cli_now() - a->progress.begin;
    a->done += draws;
    fv_progress report = {.phase = "approx", .done = a->done, .total = a->total, .unit = "draw"};
    report.rate = (double)a->done / (seconds > 0 ? seconds : 1);
    report.seconds_left =
        a->done > 0 ? seconds / (double)a->done * (double)(a->total - a->done) : (double)NAN;
    report.loss = (double)NAN;
    cli_progress_show(&a->progress, &report);
}

void approx_leave_out(approx *a, const char *what, const char *reason)
{
    cli_progress_clear(&a->progress);
    cli_note("%s: left out: %s", what, reason != NULL ? reason : fv_context_message(a->ctx));
    a->left_out++;
}

fv_status approx_add(approx *a, json_t *row)
{
    if (row == NULL || json_array_append_new(a->results, row) != 0)
        return cli_fail(FV_ERR_RESOURCE, "out of memory");
    return FV_OK;
}

static const char *const projections[] = {
    [FV_PROJECTION_DEFAULT] = "default",   [FV_PROJECTION_NONE] = "none",
    [FV_PROJECTION_IID] = "iid",           [FV_PROJECTION_ORTHOGONAL] = "orthogonal",
    [FV_PROJECTION_HADAMARD] = "hadamard", [FV_PROJECTION_GIVENS] = "givens",
    [FV_PROJECTION_SIMPLEX] = "simplex",
};

const char *approx_projection_name(fv_projection projection)
{
    return projections[projection];
}

int approx_projections(const approx *a, const char *map, fv_projection list[APPROX_PROJECTIONS_MAX])
{
    fv_attention_options o;
    fv_attention_info info = {0};
    fv_attention *op;
    memcpy(list, a->projections, sizeof a->projections);
    if (cli_given(a->args, "projection"))
        return a->projection_count;
    fv_attention_options_init(&o);
    o.kind = map, o.heads = 1, o.dim = 16; /* a width that suits all */
    if (fv_attention_create(&op, a->ctx, &o) == FV_OK)
        fv_attention_get_info(op, &info);
    fv_attention_destroy(op);
    if (info.options.projection == FV_PROJECTION_ORTHOGONAL)
        return a->projection_count;
    list[0] = FV_PROJECTION_DEFAULT;
    return 1;
}

fv_status approx_options(const approx *a, const char *map, fv_projection projection, int64_t features,
                         int64_t heads, int64_t d, fv_attention_options *o)
{
    CLI_TRY(cli_attention_options(a->args, map, o));
    o->projection = projection;
    o->features = features;
    o->heads = o->kv_heads = heads;
    o->dim = o->value_dim = d;
    return FV_OK;
}

/* ---- what is asked for ------------------------------------------------------------------------------- */

static bool is_study(const approx *a, const char *name)
{
    return strcmp(a->study, name) == 0;
}

static fv_status add_map(approx *a, const char *name)
{
    const fv_attention_kind *kind;
    CLI_TRY(cli_attention_kind(name, &kind));
    if (a->map_count == APPROX_MAPS_MAX)
        return cli_fail(FV_ERR_USAGE, "--maps: more than %d names", APPROX_MAPS_MAX);
    for (int i = 0; i < a->map_count; i++)
        if (strcmp(a->maps[i], kind->name) == 0)
            return FV_OK;
    a->maps[a->map_count++] = kind->name;
    return FV_OK;
}

/* Those of the names that this build has. */
static fv_status add_known(approx *a, const char *const *names, int count)
{
    for (int i = 0; i < count; i++)
        if (fv_attention_kind_find(names[i]) != NULL)
            CLI_TRY(add_map(a, names[i]));
    return FV_OK;
}

static fv_status add_all(approx *a, const char *prefix)
{
    for (int i = 0; i < fv_attention_kind_count(); i++) {
        const char *name = fv_attention_kind_at(i)->name;
        bool baseline = strcmp(name, "exact") == 0 || strcmp(name, "identity") == 0;
        if (!baseline && strncmp(name, prefix, strlen(prefix)) == 0)
            CLI_TRY(add_map(a, name));
    }
    return FV_OK;
}

static fv_status usual_maps(approx *a)
{
    static const char *const softmax[] = {"favor+", "favor+hyp", "favor-trig"};
    static const char *const model[] = {"favor+", "favor+hyp", "favor++"};
    if (is_study(a, "lengths"))
        CLI_TRY(add_all(a, "rmf-"));
    if (is_study(a, "lengths") || is_study(a, "layers"))
        return add_known(a, softmax, 1);
    if (is_study(a, "model"))
        return add_known(a, model, CLI_COUNT(model));
    return add_known(a, softmax, CLI_COUNT(softmax));
}

static fv_status read_maps(approx *a)
{
    int count = cli_count(a->args, "maps");
    for (int i = 0; i < count; i++) {
        const char *name = cli_item(a->args, "maps", i);
        CLI_TRY(strcmp(name, "all") == 0 ? add_all(a, "") : add_map(a, name));
    }
    if (cli_given(a->args, "attention"))
        CLI_TRY(add_map(a, cli_text(a->args, "attention")));
    return a->map_count == 0 ? usual_maps(a) : FV_OK;
}

static const char *projection_at(const void *arg, int index)
{
    (void)arg;
    return index + FV_PROJECTION_NONE < CLI_COUNT(projections) ? projections[index + FV_PROJECTION_NONE]
                                                               : NULL;
}

static fv_status add_projection(approx *a, const char *name)
{
    const char *near = cli_nearest(name, projection_at, NULL);
    int i = FV_PROJECTION_NONE;
    while (i < CLI_COUNT(projections) && strcmp(projections[i], name) != 0)
        i++;
    if (i == CLI_COUNT(projections))
        return cli_fail(FV_ERR_USAGE,
                        "--projection %s: expected none, iid, orthogonal, hadamard, givens or simplex%s%s%s",
                        name, near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    if (a->projection_count == CLI_COUNT(a->projections))
        return cli_fail(FV_ERR_USAGE, "--projection: more than %d names", CLI_COUNT(a->projections));
    a->projections[a->projection_count++] = (fv_projection)i;
    return FV_OK;
}

static fv_status read_projections(approx *a)
{
    for (int i = 0; i < cli_count(a->args, "projection"); i++)
        CLI_TRY(add_projection(a, cli_item(a->args, "projection", i)));
    if (a->projection_count > 0)
        return FV_OK;
    /* The paper compares both in Fig. 4; elsewhere the better one will do. */
    if (is_study(a, "features") || is_study(a, "kernel"))
        a->projections[a->projection_count++] = FV_PROJECTION_IID;
    a->projections[a->projection_count++] = FV_PROJECTION_DEFAULT;
    return FV_OK;
}

static fv_status read_numbers(const approx *a, const char *name, int64_t max, const bench_list *usual,
                              bench_list *list)
{
    *list = *usual;
    return cli_given(a->args, name) ? bench_numbers(a->args, name, max, list) : FV_OK;
}

/* Numbers a study takes unless told otherwise. */
static const struct {
    const char *study;
    bench_list features, lengths, dims;
    int64_t heads;
} usual[] = {
    {"features", {6, {16, 32, 64, 128, 256, 512}}, {1, {4096}}, {1, {16}}, 1},
    {"kernel", {1, {64}}, {1, {1}}, {1, {16}}, 1},
    {"layers", {3, {64, 256, 1024}}, {1, {512}}, {1, {16}}, 4},
    {"lengths", {1, {128}}, {5, {64, 128, 256, 512, 1024}}, {3, {8, 16, 32}}, 1},
    {"model", {4, {32, 64, 128, 256}}, {1, {2048}}, {1, {0}}, 1},
};

static fv_status read_lists(approx *a)
{
    int i = 0;
    while (strcmp(usual[i].study, a->study) != 0)
        i++;
    CLI_TRY(read_numbers(a, "features", 1 << 20, &usual[i].features, &a->features));
    CLI_TRY(read_numbers(a, "length", (int64_t)1 << 32, &usual[i].lengths, &a->lengths));
    CLI_TRY(read_numbers(a, "dim", 1 << 16, &usual[i].dims, &a->dims));
    a->heads = cli_given(a->args, "heads") ? cli_int(a->args, "heads") : usual[i].heads;
    return FV_OK;
}

/* Options that a study has no use for are wrong use, not silence. */
static fv_status check_sources(const approx *a)
{
    bool input = cli_given(a->args, "input"), run = cli_given(a->args, "run");
    static const char *const of_inputs[] = {"dim", "heads", "norm"};
    if (input && run)
        return cli_fail(FV_ERR_USAGE, "approx: --input and --run exclude each other");
    if (run != cli_given(a->args, "data"))
        return cli_fail(FV_ERR_USAGE, "approx: --run DIR and --data FILE go together");
    for (int i = 0; i < CLI_COUNT(of_inputs) && (input || run); i++)
        if (cli_given(a->args, of_inputs[i]))
            return cli_fail(FV_ERR_USAGE, "--%s is about random inputs; --%s brings its own", of_inputs[i],
                            input ? "input" : "run");
    if (input && cli_given(a->args, "length"))
        return cli_fail(FV_ERR_USAGE, "--length is about random inputs; --input brings its own");
    if (run && cli_given(a->args, "study"))
        return cli_fail(FV_ERR_USAGE, "--study is about random inputs; --run has a study of its own");
    if (run && (cli_flag(a->args, "causal") || cli_given(a->args, "scale")))
        return cli_fail(FV_ERR_USAGE, "--%s: the model of --run says it",
                        cli_flag(a->args, "causal") ? "causal" : "scale");
    if (input && strcmp(a->study, "features") != 0)
        return cli_fail(FV_ERR_USAGE, "--study %s draws its own inputs; --input goes with features",
                        a->study);
    return FV_OK;
}

static fv_status read_plan(approx *a)
{
    a->study = cli_given(a->args, "run") ? "model" : cli_text(a->args, "study");
    CLI_TRY(check_sources(a));
    CLI_TRY(read_maps(a));
    CLI_TRY(read_projections(a));
    CLI_TRY(read_lists(a));
    a->draws = cli_int(a->args, "draws");
    a->rows = cli_int(a->args, "rows");
    a->pairs = cli_int(a->args, "pairs");
    a->pair_draws = is_study(a, "kernel") ? 2000 : is_study(a, "model") ? 50 : 300;
    if (cli_given(a->args, "pair-draws"))
        a->pair_draws = cli_int(a->args, "pair-draws");
    a->seed = (uint64_t)cli_int(a->args, "seed");
    return FV_OK;
}

static fv_status finish(const approx *a)
{
    if (json_array_size(a->results) == 0)
        return cli_fail(FV_ERR_USAGE, "approx: nothing is left to compare");
    if (cli_given(a->args, "html"))
        CLI_TRY(approx_page_write(a, cli_text(a->args, "html")));
    return approx_print(a);
}

/* ---- the command --------------------------------------------------------------------------------- */

static fv_status study(approx *a)
{
    static const struct {
        const char *name;
        fv_status (*run)(approx *a);
    } studies[] = {
        {"features", approx_study_grid}, {"lengths", approx_study_grid}, {"kernel", approx_study_kernel},
        {"layers", approx_study_layers}, {"model", approx_study_model},
    };
    for (int i = 0; i < CLI_COUNT(studies); i++)
        if (is_study(a, studies[i].name))
            return studies[i].run(a);
    return FV_ERR_INTERNAL;
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    approx a = {.ctx = ctx, .args = args, .results = json_array()};
    fv_status status = read_plan(&a);
    cli_progress_begin(&a.progress);
    if (status == FV_OK)
        status = study(&a);
    cli_progress_clear(&a.progress);
    if (status == FV_OK)
        status = finish(&a);
    json_decref(a.results);
    return status;
}

const cli_command cli_approx = {
    .name = "approx",
    .summary = "measure how well random features approximate attention",
    .description =
        "Compares kinds of attention with exact softmax attention at the same scale, on random inputs, on q, "
        "k, v "
        "of a file (--input) or on what a trained model computes from data (--run).\n"
        "\n"
        "error_matrix is |A'-A|/|A| (Frobenius norms) over --rows rows, at even distances, of the normalised "
        "attention "
        "matrix; error_output is |Y'-Y|/|Y| over the same rows of Y = A V. Both are means over --draws "
        "redraws of "
        "the random parts on the same inputs; ci_low and ci_high bound the 95 % confidence interval "
        "(Student's t) "
        "of the mean error_output. 1 is the error of an output of zeros.\n"
        "\n"
        "variance_measured is the variance over --pair-draws redraws of the un-normalised kernel estimate of "
        "a query and "
        "a key, averaged over --pairs pairs of the inputs; variance_closed_form the same from theory over "
        "the same "
        "pairs, null where no formula is known. Far from 0 the distribution has heavy tails: the measured "
        "variance is then mostly below the true one.\n"
        "\n"
        "Random inputs: queries and keys have uniform directions and the length --norm once multiplied by "
        "the "
        "root of the scale; values are N(0,1). Maps that estimate no softmax kernel (relu, ...) are compared "
        "with it all the same, and named in a note; error_own_kernel is against the kernel they estimate, "
        "where that has a formula. Kinds that need trained tensors or have no attention matrix are left out "
        "with a note.\n"
        "\n"
        "--run adds for every layer and head the largest |q+k|^2 after scaling, which decides the variance, "
        "the "
        "effective number of features (sum w)^2/sum w^2 of their shares w in the normaliser, and for each "
        "layer what to take for --wanted-error: from the law error^2 = c/m, fitted to the features measured, "
        "and the number of operations of both ways at the length of the data. Scale, mask, rotary positions "
        "and "
        "ppSBN are the model's (ppSBN without what was learned behind it); position biases, gates and decays "
        "are left out on both sides.",
    .examples = "favor approx --html approx.html\n"
                "favor approx --maps favor+,relu --features 64,256 --length 1024 --dim 64 --json\n"
                "favor approx --study kernel --features 64 --html kernel.html\n"
                "favor approx --input qkv.safetensors --maps all --projection orthogonal\n"
                "favor approx --run runs/lm --data proteins.fasta.gz --wanted-error 0.05",
    .groups = groups,
    .run = run,
};
