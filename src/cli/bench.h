/* cli/bench.h: what the commands `favor bench ...` share: lists, a context for each thread count with the
 * rates that its rows are held against, models, and rows as a table, as JSON, as a page or beside other rows. */
#ifndef FAVOR_BENCH_H
#define FAVOR_BENCH_H

#include "cli.h"

#define BENCH_LIST_MAX 64

/* ---- lists (bench_lists.c) --------------------------------------------------------------------------- */

extern const cli_group bench_list_group; /* --attention --features --threads --dtype */

typedef struct bench_list {
    int count;
    int64_t at[BENCH_LIST_MAX];
} bench_list;

typedef struct bench_words {
    int count;
    char at[BENCH_LIST_MAX][32];
} bench_words;

/* The items of a list option; without the option those of its default text. */
FV_NODISCARD fv_status bench_read_words(const cli_args *args, const char *name, bench_words *words);
/* The same as whole numbers, each from 1 to max; as names of attention, the option being --attention. */
FV_NODISCARD fv_status bench_numbers(const cli_args *args, const char *name, int64_t max, bench_list *list);
FV_NODISCARD fv_status bench_kinds(const cli_args *args, bench_words *kinds);

/* Cuts one digit off a mixed-radix number: *rest becomes the quotient, the result the remainder. */
int bench_digit(int *rest, int radix);

/* Of `count` >= 1 times in seconds, which are sorted. */
typedef struct bench_spread {
    double median, min, max; /* ms */
} bench_spread;
bench_spread bench_spread_of(double *seconds, int count);

/* ---- inputs of one call (bench_inputs.c) ------------------------------------------------------------- */

/* Small-norm normals, a pure function of index and stream. */
void bench_fill(float *x, int64_t count, uint64_t stream);

typedef struct bench_inputs {
    float *drawn, *values[FV_INPUT_COUNT], *gradients[FV_INPUT_COUNT];
} bench_inputs;

/* Sizes and constants that a call of `length` tokens needs, where the options leave them open. */
void bench_inputs_options(fv_attention_options *o, int64_t length);
double bench_inputs_bytes(const fv_attention *op, int64_t tokens, bool backward);
/* False: no memory. bench_inputs_free in any case. */
bool bench_inputs_make(bench_inputs *b, fv_context *ctx, const fv_attention *op, int64_t tokens,
                       bool backward);
void bench_inputs_bind(const bench_inputs *b, const fv_attention *op, fv_attention_io *io,
                       fv_attention_grad *grad);
void bench_inputs_free(bench_inputs *b, fv_context *ctx);

/* ---- the frame of a benchmark (bench.c) -------------------------------------------------------------- */

/* What rates are held against. */
typedef struct bench_roof {
    double (*measure)(fv_context *ctx, double seconds);
    const char *field;        /* of a row: the roof */
    const char *rate, *share; /* what the row reached, and its share of the roof */
    const char *words, *unit; /* for people */
} bench_roof;
extern const bench_roof bench_sgemm, bench_bandwidth;

typedef struct bench {
    const cli_args *args;
    const bench_roof *roof;
    bench_list threads;
    fv_context *ctx[BENCH_LIST_MAX]; /* one a thread count */
    double ceiling[BENCH_LIST_MAX];  /* of the roof, the best of before and after */
    double best_now[BENCH_LIST_MAX]; /* of bench_now */
    json_t *rows;
    json_t *before; /* rows of --compare; NULL: none */
    int skipped;
    cli_progress progress;
    int done, total;
} bench;

typedef enum bench_format {
    BENCH_TEXT,
    BENCH_INT,
    BENCH_MS,
    BENCH_RATE,
    BENCH_SHARE,
    BENCH_BYTES
} bench_format;

/* A column of the table: a field of the rows. */
typedef struct bench_column {
    const char *key, *heading;
    int width;
    bench_format format;
} bench_column;

/* Makes the contexts and measures their ceilings. `total` lines are to come for each of them. bench_free in
 * any case. */
FV_NODISCARD fv_status bench_begin(bench *b, const cli_args *args, fv_context *ctx, const bench_roof *roof,
                                   int total);
/* The sgemm rate of the machine at this moment, for a row's "machine_share": the row has the rate first and its share of the run's
 * best in the end. */
double bench_now(bench *b, int which);
/* Adds a row (taken over) measured with context `which`; its threads and share are filled in at the end. */
FV_NODISCARD fv_status bench_add(bench *b, int which, json_t *row);
/* Passes over a line that would repeat another one. */
void bench_pass(bench *b);
/* Says why a line is left out. */
void bench_skip(bench *b, const char *line, const char *reason);
/* Measures the ceilings again, completes the rows and gives them out as the options say. FV_ERR_RESOURCE when
 * every line was left out. */
FV_NODISCARD fv_status bench_end(bench *b, const bench_column *columns, int count);
void bench_free(bench *b);

void bench_print_table(const json_t *rows, const bench_column *columns, int count);

/* ---- where rows go (bench_output.c) ------------------------------------------------------------------ */

extern const cli_group bench_output_group; /* --out --html --compare --fail-above */

/* Adds to every row what it was measured with. */
void bench_describe(const bench *b);
/* Prints the table, JSON or a comparison, and writes the files that were asked for. */
FV_NODISCARD fv_status bench_give_out(const bench *b, const bench_column *columns, int count);

/* ---- two lists of rows (bench_compare.c) --------------------------------------------------------------- */

/* Whether --compare names two files: then nothing is measured, only these are compared. */
bool bench_compares_files(const cli_args *args);
/* Prints the comparison of these two. FV_ERR_FAILED: as --fail-above says. */
FV_NODISCARD fv_status bench_compare_given(const cli_args *args);
/* The rows of the one file of --compare; NULL without it. */
FV_NODISCARD fv_status bench_compare_read(const cli_args *args, json_t **rows);
/* Prints the comparison of that file, read before, with the rows of this run. */
FV_NODISCARD fv_status bench_compare_run(const cli_args *args, const json_t *before, const json_t *rows);

/* ---- models (bench_model.c) -------------------------------------------------------------------------- */

extern const cli_group bench_model_group; /* what a model is made of */

/* A benchmark over the lists --attention, --length, --batch, --features, --dtype and --threads. */
typedef struct bench_model {
    const bench_roof *roof;
    const bench_column *columns;
    int column_count;
    /* Times one line with context `which` and adds its row. */
    fv_status (*time_line)(bench *b, int which, const fv_config *config);
} bench_model;
FV_NODISCARD fv_status bench_run_models(fv_context *ctx, const cli_args *args, const bench_model *model);

FV_NODISCARD fv_status bench_set_int(fv_config *config, const char *key, int64_t value);
/* Features a head really has: of the operator the model will make. */
FV_NODISCARD fv_status bench_count_features(fv_context *ctx, const cli_args *args, const fv_config *config,
                                            int64_t *features);
/* "kind", x, "batch", "layers" ... "dtype": how rows of models begin. NULL: no memory. */
json_t *bench_model_row(const fv_config *config, const char *x, int64_t features);

#endif
