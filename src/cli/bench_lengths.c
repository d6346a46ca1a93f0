/* cli/bench_lengths.c: `favor bench lengths`: the speed figure of the Performer paper (Choromanski et al. 2021, figure 3):
 * forward and backward passes of whole models over powers of two, and the longest sequence that fits into memory.
 *
 * The models have the paper's shapes and one layer: more layers multiply time and memory. What no attention can beat
 * is `identity`, which returns the values (X (OPT) in the paper). A curve is measured from its shortest length on and ends
 * where the next pass would take longer than --seconds, extrapolated from its last two points as a power of the length
 * between 1 and 2, or where a training step would hold more than --memory: so the figure costs about the same on any
 * machine. The longest length is found by bisecting what fv_predict_step tells, without running anything.
 */
#include "bench.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cli_option options[] = {
    {.name = "models",
     .type = CLI_LIST,
     .choices = "regular|small",
     .fallback = "regular,small",
     .help = "shapes: regular has 8 heads, 512 channels, 2048 inner ones; small 1, 64, 64"},
    {.name = "attention",
     .type = CLI_LIST,
     .metavar = "NAME,...",
     .fallback = "exact,favor+,relu,identity",
     .help = "kinds of attention"},
    {.name = "layers",
     .type = CLI_INT,
     .metavar = "N",
     .min = 1,
     .max = 65536,
     .fallback = "1",
     .help = "layers of a model (the paper: 6)"},
    {.name = "length",
     .type = CLI_LIST,
     .metavar = "L,...",
     .fallback = "512,1024,2048,4096,8192,16384,32768,65536,131072",
     .help = "tokens of the one sequence, rising"},
    {.name = "seconds",
     .type = CLI_REAL,
     .metavar = "X",
     .min = 0,
     .max = 1e9,
     .fallback = "1",
     .help = "a curve ends before a pass that would take longer"},
    {.name = "memory",
     .type = CLI_TEXT,
     .metavar = "SIZE",
     .words = "what is available",
     .help = "what a training step may hold, as 4G or 512M; curves forward and backward end there"},
    {.name = "features",
     .type = CLI_INT,
     .metavar = "M",
     .key = "attention.features",
     .help = "random projections, for kinds that have some"},
    {.name = "repeat",
     .type = CLI_INT,
     .metavar = "N",
     .min = 1,
     .max = 100000,
     .fallback = "3",
     .help = "timed passes a line, after one that warms up"},
    {.name = "set", .type = CLI_PAIRS, .help = "any setting of the model by its key; may be repeated"},
};
static const cli_group own = {"Benchmark", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {
    &own, &bench_list_group, &bench_output_group, &cli_attention_group, &cli_common_group, NULL};

/* (heads, d_ff, d) of the paper's section 4.1 */
static const struct shape {
    const char *name, *heads, *inner, *width;
} shapes[] = {{"regular", "8", "2048", "512"}, {"small", "1", "64", "64"}};

static const char *const passes[] = {"forward", "forward+backward"};

typedef struct plan {
    bench_words models, kinds, dtype;
    bench_list length;
    double seconds;
    size_t memory;
} plan;

/* ---- the plan -------------------------------------------------------------------------------------------- */

/* "4G", "512M", "1.5GiB", "1000000" */
static bool parse_bytes(const char *text, size_t *bytes)
{
    static const char units[] = "KMGT";
    char *end;
    double number = strtod(text, &end);
    const char *unit = *end != '\0' ? strchr(units, *end) : NULL;
    if (unit != NULL) {
        number = ldexp(number, 10 * (int)(unit - units + 1));
        end++;
        end += strcmp(end, "iB") == 0 ? 2 : strcmp(end, "B") == 0 ? 1 : 0;
    }
    *bytes = number >= 1 && number < 0x1p60 ? (size_t)number : 0;
    return end != text && *end == '\0' && *bytes > 0;
}

static fv_status read_plan(const cli_args *args, plan *p)
{
    const char *memory = cli_text(args, "memory");
    CLI_TRY(bench_read_words(args, "models", &p->models));
    CLI_TRY(bench_kinds(args, &p->kinds));
    CLI_TRY(bench_read_words(args, "dtype", &p->dtype));
    CLI_TRY(bench_numbers(args, "length", 1 << 30, &p->length));
    for (int i = 1; i < p->length.count; i++)
        if (p->length.at[i] <= p->length.at[i - 1])
            return cli_fail(FV_ERR_USAGE, "--length: expected rising numbers");
    p->seconds = cli_real(args, "seconds");
    p->memory = fv_available_memory();
    if (memory != NULL && !parse_bytes(memory, &p->memory))
        return cli_fail(FV_ERR_USAGE, "--memory %s: expected bytes, as 4G, 512M or 1000000", memory);
    return FV_OK;
}

/* ---- the longest length ------------------------------------------------------------------------------ */

/* The figure's settings, of a line but for its length. */
static fv_status set_model(fv_config *config, const char *model, const char *kind, const char *dtype)
{
    const struct shape *s = shapes;
    while (strcmp(s->name, model) != 0)
        s++;
    CLI_TRY(fv_config_set(config, "num_attention_heads", s->heads));
    CLI_TRY(fv_config_set(config, "intermediate_size", s->inner));
    CLI_TRY(fv_config_set(config, "hidden_size", s->width));
    CLI_TRY(fv_config_set(config, "attention.kind", kind));
    return fv_config_set(config, "dtype", dtype);
}

/* Whether a training step on one sequence of this length stays within `memory`. */
static fv_status fits(fv_context *ctx, fv_config *config, int64_t length, size_t memory, bool *yes)
{
    fv_model_cost cost;
    CLI_TRY(bench_set_int(config, "length", length));
    fv_status status = fv_predict_step(ctx, config, &cost);
    *yes = status == FV_OK && cost.bytes <= memory;
    return status == FV_ERR_RESOURCE ? FV_OK : status;
}

/* 0: not even one token fits. */
static fv_status find_longest(fv_context *ctx, fv_config *config, size_t memory, int64_t *longest)
{
    const int64_t most = 1 << 30;
    int64_t low = 0, high = 1;
    bool yes = true;
    while (yes && high <= most) {
        CLI_TRY(fits(ctx, config, high, memory, &yes));
        low = yes ? high : low;
        high = yes ? 2 * high : high;
    }
    while (high - low > 1 && high <= most) {
        int64_t middle = low + (high - low) / 2;
        CLI_TRY(fits(ctx, config, middle, memory, &yes));
        low = yes ? middle : low;
        high = yes ? high : middle;
    }
    *longest = low;
    return FV_OK;
}

/* ---- curves ---------------------------------------------------------------------------------------------- */

/* One pass of one model and kind over the lengths. */
typedef struct curve {
    bench *b;
    const plan *plan;
    int which; /* context */
    fv_config *config;
    const char *model;
    bool backward;
    int64_t longest, features;
    double length[2], ms[2]; /* of the last two points */
    int points;
    bool ended;
} curve;

/* Milliseconds of a pass that was not measured yet; 0: nothing is known. */
static double extrapolate(const curve *c, int64_t length)
{
    if (c->points == 0)
        return 0;
    double power = c->points > 1 ? log(c->ms[1] / c->ms[0]) / log(c->length[1] / c->length[0]) : 1;
    return c->ms[1] * pow((double)length / c->length[1], fmin(fmax(power, 1), 2));
}

static void end_curve(curve *c, int64_t length, const char *reason)
{
    char name[128];
    snprintf(name, sizeof name, "%s %s %s from %lld tokens on", c->model,
             fv_config_text(c->config, "attention.kind"), passes[c->backward], (long long)length);
    bench_skip(c->b, name, reason);
    c->ended = true;
}

static json_t *make_row(const curve *c, const fv_step_timing *t)
{
    double seconds = t->ms_median * 1e-3;
    json_t *row = bench_model_row(c->config, "length", c->features);
    json_t *more = json_pack(
        "{s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:n, s:I, s:I, s:I, s:I}", "model", c->model, "pass",
        passes[c->backward], "ms_median", t->ms_median, "ms_min", t->ms_min, "ms_max", t->ms_max,
        "tokens_per_s", (double)t->tokens / seconds, "gflops", t->flop_step / seconds * 1e-9, "share_of_peak",
        "peak_bytes", (json_int_t)t->peak_bytes, "repeats", (json_int_t)cli_int(c->b->args, "repeat"),
        "memory_bytes", (json_int_t)c->plan->memory, "max_length", (json_int_t)c->longest);
    json_object_update(row, more);
    json_decref(more);
    return row;
}

static fv_status measure(curve *c, int64_t length)
{
    fv_context *ctx = c->b->ctx[c->which];
    fv_step_timing timing;
    CLI_TRY(bench_set_int(c->config, "length", length));
    fv_status status = fv_time_pass(ctx, c->config, c->backward, (int)cli_int(c->b->args, "repeat"), &timing);
    if (status == FV_ERR_RESOURCE) {
        end_curve(c, length, fv_context_message(ctx));
        return FV_OK;
    }
    CLI_TRY(status);
    c->length[0] = c->length[1], c->length[1] = (double)length;
    c->ms[0] = c->ms[1], c->ms[1] = timing.ms_median;
    c->points++;
    return bench_add(c->b, c->which, make_row(c, &timing));
}

static fv_status run_point(curve *c, int64_t length)
{
    char reason[128];
    double seconds = extrapolate(c, length) * 1e-3;
    if (c->ended) {
        bench_pass(c->b);
        return FV_OK;
    }
    snprintf(reason, sizeof reason, "a pass would take about %.2g s, --seconds is %g", seconds,
             c->plan->seconds);
    if (seconds > c->plan->seconds) {
        end_curve(c, length, reason);
        return FV_OK;
    }
    snprintf(reason, sizeof reason, "a training step fits into %s up to %lld tokens",
             cli_bytes((double)c->plan->memory).text, (long long)c->longest);
    if (c->backward && length > c->longest) {
        end_curve(c, length, reason);
        return FV_OK;
    }
    return measure(c, length);
}

static fv_status run_curve(curve c)
{
    fv_status status = FV_OK;
    for (int i = 0; i < c.plan->length.count && status == FV_OK; i++)
        status = run_point(&c, c.plan->length.at[i]);
    return status;
}

/* Both curves of a model, a kind, a format and a context. */
static fv_status run_both(bench *b, const plan *p, int rest, int which, fv_config *config)
{
    curve c = {.b = b, .plan = p, .which = which, .config = config};
    const char *dtype = p->dtype.at[bench_digit(&rest, p->dtype.count)];
    const char *kind = p->kinds.at[bench_digit(&rest, p->kinds.count)];
    c.model = p->models.at[rest];
    CLI_TRY(set_model(config, c.model, kind, dtype));
    CLI_TRY(bench_count_features(b->ctx[which], b->args, config, &c.features));
    CLI_TRY(find_longest(b->ctx[which], config, p->memory, &c.longest));
    CLI_TRY(run_curve(c));
    c.backward = true;
    return run_curve(c);
}

static const bench_column columns[] = {
    {"model", "model", 7, BENCH_TEXT},        {"kind", "kind", 8, BENCH_TEXT},
    {"pass", "pass", 16, BENCH_TEXT},         {"length", "length", 8, BENCH_INT},
    {"layers", "layers", 6, BENCH_INT},       {"features", "features", 8, BENCH_INT},
    {"threads", "threads", 7, BENCH_INT},     {"dtype", "dtype", 5, BENCH_TEXT},
    {"ms_median", "median ms", 9, BENCH_MS},  {"ms_min", "min", 8, BENCH_MS},
    {"ms_max", "max", 8, BENCH_MS},           {"tokens_per_s", "tokens/s", 9, BENCH_INT},
    {"gflops", "GFLOP/s", 8, BENCH_RATE},     {"share_of_peak", "of P", 5, BENCH_SHARE},
    {"peak_bytes", "memory", 9, BENCH_BYTES}, {"max_length", "longest", 8, BENCH_INT},
};

/* ---- the command ----------------------------------------------------------------------------------------- */

static fv_status run_figure(bench *b, const plan *p, fv_config *config)
{
    int figures = b->total / (CLI_COUNT(passes) * p->length.count);
    for (int i = 0; i < figures; i++) {
        int rest = i, which = bench_digit(&rest, b->threads.count);
        fv_status status = run_both(b, p, rest, which, config);
        if (status != FV_OK && fv_context_message(b->ctx[which])[0] != '\0')
            return cli_context_fail(b->ctx[which], status);
        CLI_TRY(status);
    }
    return bench_end(b, columns, CLI_COUNT(columns));
}

/* Bytes as tokens, sinusoidal positions: the length adds no parameters. */
static fv_status run_settings(fv_context *ctx, const cli_args *args, const plan *p, fv_config *config)
{
    bench b;
    int total = p->models.count * p->kinds.count * p->dtype.count * CLI_COUNT(passes) * p->length.count;
    CLI_TRY(fv_config_set(config, "reader", "bytes"));
    CLI_TRY(fv_config_set(config, "position_embedding_type", "sinusoidal"));
    CLI_TRY(fv_config_set(config, "batch", "1"));
    CLI_TRY(bench_set_int(config, "num_hidden_layers", cli_int(args, "layers")));
    CLI_TRY(cli_settings(args, config));
    fv_status status = bench_begin(&b, args, ctx, &bench_sgemm, total);
    if (status == FV_OK)
        status = run_figure(&b, p, config);
    bench_free(&b);
    return status;
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    plan p;
    fv_config *config;
    if (bench_compares_files(args))
        return bench_compare_given(args);
    CLI_TRY(read_plan(args, &p));
    CLI_TRY(fv_config_create(&config, ctx));
    fv_status status = run_settings(ctx, args, &p, config);
    fv_config_destroy(config);
    return status;
}

const cli_command cli_bench_lengths = {
    .name = "bench lengths",
    .alias = "bench figure3",
    .summary = "time forward and backward of the paper's models over lengths",
    .description = "The speed figure of the Performer paper (Choromanski et al., figure 3) on this machine: "
                   "models of its shapes over "
                   "powers of two, forward as evaluation does it and forward and backward as training does, "
                   "without the optimizer. "
                   "`identity` is the paper's X (OPT): attention that returns the values, which no attention "
                   "can beat. A curve ends "
                   "where the next pass would take longer than --seconds; one layer instead of the paper's "
                   "six by default, since "
                   "layers only multiply. In all the figure takes about two minutes; --seconds 20 --layers 6 "
                   "comes nearer to the "
                   "paper's.\n"
                   "\n"
                   "`longest` is the longest sequence of which a training step (parameters, gradients, "
                   "optimizer, activations, "
                   "scratch) fits into --memory. It is predicted, nothing that long is run. No kind keeps an "
                   "array of L x L, exact "
                   "neither, so what ends exact is time.",
    .examples = "favor bench lengths --html lengths.html\n"
                "favor bench lengths --models regular --layers 6 --seconds 30 --memory 16G",
    .groups = groups,
    .run = run,
};
