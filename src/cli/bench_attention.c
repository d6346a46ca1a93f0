/* cli/bench_attention.c: `favor bench attention`: one attention call, timed over kinds, lengths, threads and
 * passes.
 *
 * q, k and v are small-norm normals, the other inputs as bench_inputs.c says. One call warms up (plans, touches its
 * memory) and says how many repetitions fit into a second; median, smallest and largest time are kept. The
 * work is counted by fv_attention_flop whatever the code does; forward+backward adds both.
 *
 * The loss is |y|^2/2 where the kind can work in place: dy is then y itself and the gradients replace q, k
 * and v, so that a line holds four arrays [L][H][d] instead of eight. The inputs are made anew between
 * repetitions, outside the clock. peak_bytes is everything allocated for the line.
 *
 * machine_share: a millisecond of products before each repetition tells what the machine gives just then. On one that is shared, or
 * whose processors are halves of one core, it is below 1, and so are the times.
 */
#include "bench.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cli_option options[] = {
    {.name = "length", .type = CLI_LIST, .metavar = "L,...", .fallback = "1024,4096", .help = "tokens"},
    {.name = "pass",
     .type = CLI_LIST,
     .choices = "forward|forward+backward",
     .fallback = "forward,forward+backward",
     .help = "what is timed"},
    {.name = "bidirectional",
     .type = CLI_FLAG,
     .help = "all positions see all (the default without --causal)"},
    {.name = "heads", .type = CLI_LIST, .metavar = "H,...", .fallback = "8", .help = "heads"},
    {.name = "dim",
     .type = CLI_LIST,
     .metavar = "D,...",
     .fallback = "64",
     .help = "width of a head, values too"},
    {.name = "features",
     .type = CLI_LIST,
     .metavar = "M,...",
     .fallback = "256",
     .help = "random projections, for kinds that have some"},
    {.name = "repeat",
     .type = CLI_INT,
     .metavar = "N",
     .min = 1,
     .max = 1000000,
     .words = "about a second's worth",
     .help = "timed calls a line"},
};
static const cli_group own = {"Benchmark", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {
    &own, &bench_list_group, &bench_output_group, &cli_attention_group, &cli_common_group, NULL};

#define FEW_REPEATS  3
#define MANY_REPEATS 1000
#define LONG_SECONDS 20.0 /* a call this long is timed once */

/* One line of the table. */
typedef struct line {
    bool causal, backward;
    int64_t length, heads, dim, features;
    bool more_features; /* not the first of the list: nothing new for kinds without a projection */
    int which;          /* context */
    const char *dtype;
} line;

/* What is held for a line. */
typedef struct work {
    fv_context *ctx;
    fv_attention *op;
    fv_attention_info info;
    fv_memory need;
    int64_t offsets[2];
    fv_layout layout;
    bool backward, in_place;
    int64_t floats; /* of one array [L][H][d] */
    float *q, *k, *v, *y, *dy, *dq, *dk, *dv;
    bench_inputs inputs;
    void *saved, *scratch;
} work;

/* ---- inputs -------------------------------------------------------------------------------------- */

static void fill_inputs(const work *w)
{
    bench_fill(w->q, w->floats, 1);
    bench_fill(w->k, w->floats, 2);
    bench_fill(w->v, w->floats, 3);
}

/* ---- memory -------------------------------------------------------------------------------------- */

static double predicted_bytes(const work *w)
{
    int arrays = w->backward && !w->in_place ? 8 : 4;
    double inputs = bench_inputs_bytes(w->op, w->offsets[1], w->backward);
    return 4.0 * arrays * (double)w->floats + inputs + (double)w->need.scratch +
           (w->backward ? (double)w->need.saved : 0);
}

static bool allocate(work *w)
{
    size_t bytes = (size_t)w->floats * sizeof(float);
    float **arrays[] = {&w->q, &w->k, &w->v, &w->y, &w->dy, &w->dq, &w->dk, &w->dv};
    int count = w->backward && !w->in_place ? 8 : 4;
    for (int i = 0; i < count; i++)
        if ((*arrays[i] = fv_alloc(w->ctx, bytes)) == NULL)
            return false;
    if (!bench_inputs_make(&w->inputs, w->ctx, w->op, w->offsets[1], w->backward))
        return false;
    if (w->backward && (w->saved = fv_alloc(w->ctx, w->need.saved)) == NULL)
        return false;
    w->scratch = fv_alloc(w->ctx, w->need.scratch);
    return w->scratch != NULL;
}

static void release(work *w)
{
    void *memory[] = {w->q, w->k, w->v, w->y, w->dy, w->dq, w->dk, w->dv, w->saved, w->scratch};
    bench_inputs_free(&w->inputs, w->ctx);
    for (int i = 0; i < CLI_COUNT(memory); i++)
        fv_free(w->ctx, memory[i]);
    fv_attention_destroy(w->op);
}

static void prepare(work *w)
{
    fill_inputs(w);
    if (w->dy != NULL) {
        bench_fill(w->dy, w->floats, 4);
        float *gradients[] = {w->dq, w->dk, w->dv};
        for (int i = 0; i < CLI_COUNT(gradients); i++)
            memset(gradients[i], 0, (size_t)w->floats * sizeof(float));
    }
}

/* ---- timing -------------------------------------------------------------------------------------- */

static fv_status time_call(const work *w, double *seconds)
{
    if (w->in_place)
        fill_inputs(w);
    fv_attention_io io = {.q = w->q, .k = w->k, .v = w->v, .y = w->y};
    fv_attention_grad grad = {.dy = w->dy, .dq = w->dq, .dk = w->dk, .dv = w->dv};
    if (w->in_place)
        grad = (fv_attention_grad){.dy = w->y, .dq = w->q, .dk = w->k, .dv = w->v, .in_place = 1};
    bench_inputs_bind(&w->inputs, w->op, &io, &grad);
    double begin = cli_now();
    CLI_TRY(fv_attention_forward(w->op, &w->layout, &io, w->saved, w->scratch));
    if (w->backward)
        CLI_TRY(fv_attention_backward(w->op, &w->layout, &io, &grad, w->saved, w->scratch));
    *seconds = cli_now() - begin;
    return FV_OK;
}

static int repeats(const cli_args *args, double seconds)
{
    if (cli_given(args, "repeat"))
        return (int)cli_int(args, "repeat");
    if (seconds > LONG_SECONDS)
        return 1;
    return (int)fmin(fmax(1 / fmax(seconds, 1e-9), FEW_REPEATS), MANY_REPEATS);
}

typedef struct timing {
    int count;
    bench_spread ms;
    double now; /* GFLOP/s, the median of the machine's before each repetition */
} timing;

static fv_status time_line(bench *b, int which, const work *w, timing *t)
{
    double warm;
    CLI_TRY(time_call(w, &warm));
    t->count = repeats(b->args, warm);
    double *seconds = malloc(2 * (size_t)t->count * sizeof *seconds), *now = seconds + t->count;
    if (seconds == NULL)
        return cli_fail(FV_ERR_RESOURCE, "out of memory");
    fv_status status = FV_OK;
    for (int i = 0; i < t->count && status == FV_OK; i++) {
        now[i] = bench_now(b, which);
        status = time_call(w, &seconds[i]);
    }
    if (status == FV_OK) {
        t->ms = bench_spread_of(seconds, t->count);
        t->now = bench_spread_of(now, t->count).median / 1000;
    }
    free(seconds);
    return status;
}

/* ---- lines --------------------------------------------------------------------------------------- */

static fv_status make_work(work *w, const cli_args *args, const char *kind, const line *l)
{
    fv_attention_options o;
    CLI_TRY(cli_attention_options(args, kind, &o));
    o.heads = l->heads, o.dim = l->dim, o.features = l->features, o.causal = l->causal;
    CLI_TRY(cli_attention_choose(w->ctx, kind, l->length, l->backward, &o));
    bench_inputs_options(&o, l->length);
    CLI_TRY(fv_attention_create(&w->op, w->ctx, &o));
    fv_attention_get_info(w->op, &w->info);
    w->offsets[1] = l->length;
    w->layout = (fv_layout){1, w->offsets, NULL};
    w->backward = l->backward;
    w->in_place = l->backward && w->info.in_place_ok;
    w->floats = l->length * l->heads * l->dim;
    return fv_attention_measure(w->op, &w->layout, &w->need);
}

static json_t *make_row(const work *w, const line *l, const timing *t, size_t peak)
{
    double flop = fv_attention_flop(w->op, &w->layout, 0);
    if (l->backward)
        flop += fv_attention_flop(w->op, &w->layout, 1);
    return json_pack(
        "{s:s, s:b, s:s, s:I, s:I, s:I, s:I, s:i, s:s, s:f, s:f, s:f, s:f, s:n, s:I, s:i, s:f}", "kind",
        w->info.options.kind, "causal", l->causal, "pass", l->backward ? "forward+backward" : "forward",
        "length", (json_int_t)l->length, "heads", (json_int_t)l->heads, "dim", (json_int_t)l->dim, "features",
        (json_int_t)w->info.feature_count, "threads", 0, "dtype", l->dtype, "ms_median", t->ms.median,
        "ms_min", t->ms.min, "ms_max", t->ms.max, "gflops", flop / t->ms.median * 1e-6, "share_of_peak",
        "peak_bytes", (json_int_t)peak, "repeats", t->count, "machine_share", t->now);
}

static fv_status measure_line(bench *b, work *w, const line *l)
{
    size_t before = fv_context_bytes(w->ctx), available = fv_available_memory();
    double predicted = predicted_bytes(w);
    char name[128], reason[128];
    snprintf(name, sizeof name, "%s %s %s, %lld tokens", w->info.options.kind,
             l->causal ? "causal" : "bidirectional", l->backward ? "forward+backward" : "forward",
             (long long)l->length);
    snprintf(reason, sizeof reason, "needs %s, %s are available", cli_bytes(predicted).text,
             cli_bytes((double)available).text);
    fv_context_reset_peak(w->ctx);
    if (predicted > (double)available || !allocate(w)) {
        bench_skip(b, name, reason);
        return FV_OK;
    }
    prepare(w);
    timing t = {0};
    CLI_TRY(time_line(b, l->which, w, &t));
    return bench_add(b, l->which, make_row(w, l, &t, fv_context_peak_bytes(w->ctx) - before));
}

static fv_status run_line(bench *b, const char *kind, const line *l)
{
    work w = {.ctx = b->ctx[l->which]};
    fv_status status = fv_context_set_dtype(w.ctx, l->dtype);
    if (status == FV_OK)
        status = make_work(&w, b->args, kind, l);
    if (status == FV_OK && l->more_features && w.info.drawn_floats == 0)
        bench_pass(b);
    else if (status == FV_OK)
        status = measure_line(b, &w, l);
    if (status != FV_OK && fv_context_message(w.ctx)[0] != '\0')
        status = cli_context_fail(w.ctx, status);
    release(&w);
    return status;
}

/* ---- the command --------------------------------------------------------------------------------- */

typedef struct plan {
    bench_words kinds, dtype;
    bool causal[2], backward[2];
    int causal_count, pass_count;
    bench_list length, heads, dim, features;
} plan;

static void read_passes(const cli_args *args, plan *p)
{
    p->pass_count = cli_count(args, "pass");
    p->pass_count = p->pass_count > 2 ? 2 : p->pass_count;
    for (int i = 0; i < p->pass_count; i++)
        p->backward[i] = strcmp(cli_item(args, "pass", i), "forward") != 0;
    if (p->pass_count == 0) {
        p->backward[1] = true;
        p->pass_count = 2;
    }
    if (cli_flag(args, "bidirectional") || !cli_flag(args, "causal"))
        p->causal[p->causal_count++] = false;
    if (cli_flag(args, "causal"))
        p->causal[p->causal_count++] = true;
}

static fv_status read_plan(const cli_args *args, plan *p)
{
    read_passes(args, p);
    CLI_TRY(bench_kinds(args, &p->kinds));
    CLI_TRY(bench_read_words(args, "dtype", &p->dtype));
    CLI_TRY(bench_numbers(args, "length", (int64_t)1 << 32, &p->length));
    CLI_TRY(bench_numbers(args, "heads", 1 << 16, &p->heads));
    CLI_TRY(bench_numbers(args, "dim", 1 << 16, &p->dim));
    return bench_numbers(args, "features", 1 << 20, &p->features);
}

static int plan_lines(const plan *p)
{
    return p->kinds.count * p->causal_count * p->pass_count * p->length.count * p->heads.count *
           p->dim.count * p->features.count * p->dtype.count;
}

/* Lists multiply; the last of them changes fastest. */
static fv_status run_plan(bench *b, const plan *p)
{
    for (int i = 0; i < b->total; i++) {
        int rest = i;
        line l = {.which = bench_digit(&rest, b->threads.count)};
        l.dtype = p->dtype.at[bench_digit(&rest, p->dtype.count)];
        int features = bench_digit(&rest, p->features.count);
        l.features = p->features.at[features];
        l.more_features = features > 0;
        l.dim = p->dim.at[bench_digit(&rest, p->dim.count)];
        l.heads = p->heads.at[bench_digit(&rest, p->heads.count)];
        l.length = p->length.at[bench_digit(&rest, p->length.count)];
        l.backward = p->backward[bench_digit(&rest, p->pass_count)];
        l.causal = p->causal[bench_digit(&rest, p->causal_count)];
        CLI_TRY(run_line(b, p->kinds.at[rest], &l));
    }
    return FV_OK;
}

static const bench_column columns[] = {
    {"kind", "kind", 12, BENCH_TEXT},
    {"causal", "causal", 6, BENCH_TEXT},
    {"pass", "pass", 16, BENCH_TEXT},
    {"length", "length", 8, BENCH_INT},
    {"heads", "heads", 5, BENCH_INT},
    {"dim", "dim", 4, BENCH_INT},
    {"features", "features", 8, BENCH_INT},
    {"threads", "threads", 7, BENCH_INT},
    {"dtype", "dtype", 5, BENCH_TEXT},
    {"ms_median", "median ms", 9, BENCH_MS},
    {"ms_min", "min", 8, BENCH_MS},
    {"ms_max", "max", 8, BENCH_MS},
    {"gflops", "GFLOP/s", 8, BENCH_RATE},
    {"share_of_peak", "of P", 5, BENCH_SHARE},
    {"machine_share", "P now", 5, BENCH_SHARE},
    {"peak_bytes", "memory", 9, BENCH_BYTES},
};

static fv_status run(fv_context *ctx, const cli_args *args)
{
    plan p = {0};
    if (bench_compares_files(args))
        return bench_compare_given(args);
    CLI_TRY(read_plan(args, &p));
    bench b;
    fv_status status = bench_begin(&b, args, ctx, &bench_sgemm, plan_lines(&p));
    if (status == FV_OK)
        status = run_plan(&b, &p);
    if (status == FV_OK)
        status = bench_end(&b, columns, CLI_COUNT(columns));
    bench_free(&b);
    return status;
}

const cli_command cli_bench_attention = {
    .name = "bench attention",
    .summary = "time one attention call over kinds, lengths, threads and passes",
    .description = "Options that take lists multiply. GFLOP/s count the work of the formulas (8 L r d a head "
                   "for kernelized kinds, "
                   "4 L^2 d for exact, causal half of it; backward twice that), whatever the code does; `of "
                   "P` is their share of "
                   "the sgemm rate P measured in the same run at the same number of threads. Memory is "
                   "everything held for a "
                   "line: inputs, outputs, gradients and the operator's own. A line that does not fit into "
                   "memory is left out.",
    .examples =
        "favor bench attention\n"
        "favor bench attention --attention favor+,exact --length 1024,8192 --threads 1,2 --causal --json",
    .groups = groups,
    .run = run,
};
