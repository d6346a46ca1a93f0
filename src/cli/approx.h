/* cli/approx.h: what the parts of `favor approx` share.
 *
 *     data        q, k, v of a study: drawn, read from a file, or taken from a model (approx_data.c, approx_model.c)
 *     operator    one kind with its drawn inputs and memory (approx_operator.c)
 *     reference   exact attention on the same data: sampled rows of the matrix, and their outputs
 *     measure     errors over redraws, variance of the kernel estimate over pairs (approx_measure.c)
 *     law         closed forms (approx_closed.c), matched to kinds in approx_law.c
 *     study       what is varied (approx_grid.c, approx_kernel.c, approx_layers.c, approx_model.c)
 *     page        charts (approx_page.c)
 */
#ifndef FAVOR_APPROX_H
#define FAVOR_APPROX_H

#include "approx_closed.h"
#include "bench.h"
#include "cli.h"

#define APPROX_MAPS_MAX        64
#define APPROX_PROJECTIONS_MAX 8

/* ---- a session ------------------------------------------------------------------------------------ */

typedef struct approx {
    fv_context *ctx;
    const cli_args *args;
    const char *study;                 /* features, kernel, layers, lengths, model */
    const char *maps[APPROX_MAPS_MAX]; /* names of the table */
    int map_count;
    fv_projection projections[APPROX_PROJECTIONS_MAX]; /* those asked for, else what a study compares */
    int projection_count;
    bench_list features, lengths, dims;
    int64_t heads, draws, rows, pairs, pair_draws;
    uint64_t seed;
    json_t *results; /* rows */
    int left_out;    /* combinations that cannot be; each was noted */
    cli_progress progress;
    int64_t done, total; /* draws */
} approx;

/* Counts draws as done and shows progress. */
void approx_advance(approx *a, int64_t draws);
/* Notes that something is left out, and why (ctx's message when `reason` is NULL). */
void approx_leave_out(approx *a, const char *what, const char *reason);
/* Takes a row over. */
FV_NODISCARD fv_status approx_add(approx *a, json_t *row);

const char *approx_projection_name(fv_projection projection); /* "default", "none", "iid" ... */
/* The projections to try with a map: those asked for; without --projection those of the study where the map is
 * projected by default, else its default alone. */
int approx_projections(const approx *a, const char *map, fv_projection list[APPROX_PROJECTIONS_MAX]);

/* ---- data (approx_data.c) -------------------------------------------------------------------------- */

typedef struct approx_data {
    int64_t Tq, Tk, H, G, d, dv, sequences;
    const int64_t *offsets_q, *offsets_k; /* [sequences+1] */
    const float *q, *k, *v;               /* token-major */
    void *owned[5];
} approx_data;

/* A hash of (seed, stream, index) as a number of 64 random bits, a uniform in (0,1), a normal. */
uint64_t approx_bits(uint64_t seed, uint64_t stream, uint64_t index);
double approx_normal(uint64_t seed, uint64_t stream, uint64_t index);

/* Random inputs: q, k with sqrt(scale)|q| = sqrt(scale)|k| = norm and uniform directions, v ~ N(0, 1). */
FV_NODISCARD fv_status approx_data_draw(approx *a, approx_data *data, int64_t length, int64_t heads,
                                        int64_t d, double scale, double norm);
/* q, k, v and offsets of a safetensors file; every value finite, else FV_ERR_FILE. */
FV_NODISCARD fv_status approx_data_read(approx *a, approx_data *data, const char *path);
void approx_data_free(approx *a, approx_data *data);

/* Where query token `row` stands: its sequence, and the keys first .. first+count-1 it sees. */
void approx_visible(const approx_data *data, bool causal, int64_t row, int64_t *first, int64_t *count);

/* ---- operators (approx_operator.c) ------------------------------------------------------------------- */

typedef struct approx_operator {
    fv_context *ctx;
    fv_attention *op;
    fv_attention_info info;
    float *drawn;
    void *scratch;
    size_t scratch_bytes;
} approx_operator;

/* FV_ERR_USAGE, told on ctx or by the text of *reason: the options do not go together, or the kind takes a
 * trained input that nobody has. approx_operator_free in any case. */
FV_NODISCARD fv_status approx_operator_make(approx_operator *o, fv_context *ctx,
                                            const fv_attention_options *options, const char **reason);
void approx_operator_free(approx_operator *o);
fv_projection approx_operator_projection(const approx_operator *o); /* none where it takes no projection */
FV_NODISCARD fv_status approx_operator_draw(approx_operator *o, uint64_t seed, uint64_t draw);
/* y, or rows of the matrix; io's q, k, v, y and strides are the caller's. */
FV_NODISCARD fv_status approx_operator_forward(approx_operator *o, const fv_layout *layout,
                                               fv_attention_io *io);
FV_NODISCARD fv_status approx_operator_rows(approx_operator *o, const fv_layout *layout, fv_attention_io *io,
                                            const int64_t *rows, int64_t n, float *weights);

/* ---- measuring (approx_measure.c) -------------------------------------------------------------------- */

/* Exact attention on the data, at sampled query rows. */
typedef struct approx_reference {
    int64_t n, *rows;
    float *weights;                          /* [H][n][Tk] */
    double *outputs;                         /* [H][n][dv] */
    double *matrix_squares, *output_squares; /* [H]: sums of squares */
} approx_reference;

/* The options of exact attention that belongs to a candidate's: same scale, mask and modifiers. */
fv_attention_options approx_exact_options(const fv_attention_options *candidate, double scale);
FV_NODISCARD fv_status approx_reference_make(approx *a, approx_reference *reference, const approx_data *data,
                                             const fv_attention_options *exact);
/* The same of the normalised kernel that the estimate of `law` has in the mean. */
FV_NODISCARD fv_status approx_reference_law(approx *a, approx_reference *reference, const approx_data *data,
                                            const fv_attention_options *options, const approx_law *law);
void approx_reference_free(approx *a, approx_reference *reference);

/* Squared errors over redraws, head by head. */
typedef struct approx_errors {
    int64_t draws, heads;
    double *matrix, *output; /* [draws][heads] sums of squares over the sampled rows */
} approx_errors;

/* Draws 0 .. draws-1 (one for a kind without random inputs) against `count` references; errors [count]. */
FV_NODISCARD fv_status approx_compare(approx *a, approx_operator *o, const approx_data *data,
                                      const approx_reference *const *references, int count,
                                      approx_errors *errors);
void approx_errors_free(approx *a, approx_errors *errors);

typedef struct approx_statistic {
    double mean, sd, low, high; /* over draws; low and high: 95 % confidence interval of the mean */
} approx_statistic;

/* Of n values; one value has no spread and no interval but itself. */
approx_statistic approx_statistic_of(const double *values, int64_t n);
/* Relative errors over heads first .. last-1: sqrt(sum of squared errors / sum of squares of the reference). */
approx_statistic approx_matrix_error(const approx_errors *errors, const approx_reference *reference,
                                     int64_t first, int64_t last);
approx_statistic approx_output_error(const approx_errors *errors, const approx_reference *reference,
                                     int64_t first, int64_t last);

/* Variance of the un-normalised kernel estimate. */
typedef struct approx_variance {
    double measured, error; /* mean over pairs, and its standard error over draws */
    double closed;          /* from theory; NaN: unknown */
    double kernel;          /* mean over pairs of the mean estimate, */
    double kernel_square;   /* and of its square */
} approx_variance;

/* Pairs of a query and a key, in groups of equally many that are averaged over. */
typedef struct approx_pairing {
    int64_t pairs, groups;
    const float *q, *k; /* [pairs][d] */
} approx_pairing;

/* `pairs` pairs of `head` (< 0: of all heads), drawn from the data. */
FV_NODISCARD fv_status approx_pairs(approx *a, const approx_data *data, bool causal, int64_t head,
                                    int64_t pairs, float *q, float *k);
/* A kind that is not kernelized gives NaN, one without random parts 0. */
FV_NODISCARD fv_status approx_measure_variance(approx *a, const fv_attention_options *options,
                                               const approx_pairing *set, approx_variance *each);

/* ---- what is known about kinds (approx_law.c) --------------------------------------------------------- */

/* Whether a kind approximates softmax attention at all. */
bool approx_targets_softmax(const char *kind);
/* The law of the kernel estimate of an operator; family APPROX_UNKNOWN when there is none. psi: mean of |x+y|^2. */
void approx_law_of(const fv_attention_info *info, approx_law *law);
/* x = sqrt(scale) q and y, after ppSBN where the options say so, as the law wants them. */
approx_pair approx_pair_of(const fv_attention_options *options, const float *q, const float *k);
/* Sets what a kind measures on the data, and one pair or a causal call cannot (psi of favor++); the scale is that
 * of the options. */
void approx_freeze(fv_attention_options *options, const approx_data *data, int64_t head);
void approx_freeze_causal(fv_attention_options *options,
                          const approx_data *data); /* default scale: 1/sqrt(d) */

/* ---- studies ----------------------------------------------------------------------------------------- */

FV_NODISCARD fv_status approx_study_grid(approx *a);   /* features, lengths */
FV_NODISCARD fv_status approx_study_kernel(approx *a); /* Performer, Fig. 2 */
FV_NODISCARD fv_status approx_study_layers(approx *a); /* Performer, Fig. 14 */
FV_NODISCARD fv_status approx_study_model(approx *a);  /* --run */

/* A row with all binding names; what a study does not measure is null. */
typedef struct approx_row {
    const char *map;
    fv_projection projection;
    int64_t features, feature_count, length, dim, draws;
    approx_statistic matrix, output, target; /* mean NaN: null */
    approx_variance variance;
} approx_row;
json_t *approx_row_json(const approx_row *row);
/* Options of a map as the command line says, with one projection and number of features. */
FV_NODISCARD fv_status approx_options(const approx *a, const char *map, fv_projection projection,
                                      int64_t features, int64_t heads, int64_t d,
                                      fv_attention_options *options);

/* ---- printing (approx_print.c) ------------------------------------------------------------------------- */

/* What the table and the page show of the rows, in this order; ends with NULL. */
typedef struct approx_column {
    const char *key, *heading;
    int width; /* negative: left-aligned text */
} approx_column;
extern const approx_column approx_columns[];
/* Whether some row has a value there. */
bool approx_is_present(const approx *a, const char *key);
FV_NODISCARD fv_status approx_print(const approx *a);

/* ---- the page (approx_page.c) -------------------------------------------------------------------------- */

FV_NODISCARD fv_status approx_page_write(const approx *a, const char *path);

#endif
