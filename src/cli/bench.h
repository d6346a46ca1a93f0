/* cli/bench.h: what `favor bench attention` and `favor bench train` share: lists of numbers, a context for
 * each thread count with its sgemm rate, and rows as a table or as JSON. */
#ifndef FAVOR_BENCH_H
#define FAVOR_BENCH_H

#include "cli.h"

#define BENCH_LIST_MAX 64

typedef struct bench_list {
    int count;
    int64_t at[BENCH_LIST_MAX];
} bench_list;

typedef struct bench_dtypes {
    int count;
    const char *at[BENCH_LIST_MAX];
} bench_dtypes;

/* The number formats of --dtype, or f32. */
bench_dtypes bench_read_dtypes(const cli_args *args);

/* The whole numbers of a list option, each from 1 to max; without the option those of its default text. */
FV_NODISCARD fv_status bench_numbers(const cli_args *args, const char *name, int64_t max, bench_list *list);

/* Cuts one digit off a mixed-radix number: *rest becomes the quotient, the result the remainder. */
int bench_digit(int *rest, int radix);

/* ---- inputs of one call (bench_inputs.c) ---- */

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

typedef struct bench {
    const cli_args *args;
    bench_list threads;
    fv_context *ctx[BENCH_LIST_MAX]; /* one a thread count */
    double peak[BENCH_LIST_MAX];     /* GFLOP/s of sgemm, the best of before and after */
    json_t *rows;
    int skipped;
    cli_progress progress;
    int done, total;
} bench;

typedef enum bench_format {
    BENCH_TEXT,
    BENCH_INT,
    BENCH_MS,
    BENCH_GFLOPS,
    BENCH_SHARE,
    BENCH_BYTES
} bench_format;

/* A column of the table: a field of the rows. */
typedef struct bench_column {
    const char *key, *heading;
    int width;
    bench_format format;
} bench_column;

/* Makes the contexts and measures their peaks. `total` lines are to come. bench_free in any case. */
FV_NODISCARD fv_status bench_begin(bench *b, const cli_args *args, fv_context *ctx, int total);
/* Adds a row (taken over) measured with context `which`; its share_of_peak is filled in at the end. */
FV_NODISCARD fv_status bench_add(bench *b, int which, json_t *row);
/* Passes over a line that would repeat another one. */
void bench_pass(bench *b);
/* Says why a line is left out. */
void bench_skip(bench *b, const char *line, const char *reason);
/* Measures the peaks again and prints everything. FV_ERR_RESOURCE when every line was left out. */
FV_NODISCARD fv_status bench_end(bench *b, const bench_column *columns, int count);
void bench_free(bench *b);

#endif
