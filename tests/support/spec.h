/* support/spec.h: the specification of every attention kind: naive, in double complex, one row of the matrix
 * at a time.
 *
 * Every number carries, beside its value, how well float32 code can know it:
 *   v   value; the imaginary part / SPEC_STEP is the derivative along the direction given with the inputs
 *       (complex step: exact to rounding, Boisgerault 2017);
 *   m   magnitude of its rounding errors: the running error analysis that sums and products of absolute
 *       values give; a result is right when |err| <= c eps m, with a small c and no other constant;
 *   t   the derivative's terms summed by absolute value;
 *   mt  the magnitude of the derivative's rounding errors.
 * Inputs are exact (m = 0). Branches and maxima look at the real part only.
 */
#ifndef SPEC_H
#define SPEC_H

#include <complex.h>
#include <favor/attention.h>
#include <math.h>
#include <stdbool.h>

#define SPEC_STEP 1e-100

typedef struct num {
    double complex v;
    double m, t, mt;
} num;

static inline double num_size(num a)
{
    return creal(a.v) < 0 ? -creal(a.v) : creal(a.v);
}

static inline num num_input(double value, double direction)
{
    return (num){value + (double complex)I * (direction * SPEC_STEP), 0, fabs(direction), 0};
}

/* A constant that float32 code rounds once. */
static inline num num_rounded(double value)
{
    return (num){value, fabs(value), 0, 0};
}

static inline num num_add(num a, num b)
{
    return (num){a.v + b.v, a.m + b.m, a.t + b.t, a.mt + b.mt};
}

static inline num num_sub(num a, num b)
{
    return (num){a.v - b.v, a.m + b.m, a.t + b.t, a.mt + b.mt};
}

/* Errors of the factors times the other factor, and the rounding of the product itself. */
static inline num num_mul(num a, num b)
{
    double x = num_size(a), y = num_size(b), t = x * b.t + a.t * y;
    return (num){a.v * b.v, x * b.m + a.m * y + x * y, t, x * b.mt + a.mt * y + a.m * b.t + a.t * b.m + t};
}

/* By a constant rounded once. */
static inline num num_scaled(double factor, num a)
{
    return num_mul(num_rounded(factor), a);
}

num num_div(num a, num b);
num num_exp(num a);
double num_value(num a);
double num_slope(num a); /* derivative along the direction */

/* One call of an operator. Tensors are dense, token-major; a direction of NULL is 0. */
typedef struct spec {
    fv_attention_options options; /* defaults resolved (fv_attention_get_info) */
    int64_t m, r;                 /* projections, features */
    fv_layout layout;
    const double *q, *k, *v;             /* [Tq][H][d], [Tk][G][d], [Tk][G][dv] */
    const double *q_way, *k_way, *v_way; /* the direction of the derivative */
    const double *input[FV_INPUT_COUNT]; /* as fv_attention_io.input; NULL: not taken, or the default */
    const double *input_way[FV_INPUT_COUNT];
    /* Made by spec.c: the kind's row; what the mechanism sees, modifiers before it applied. */
    const struct spec_kind *kind;
    num *Q, *K, *V;     /* [Tq][H][d], [Tk][G][d], [Tk][G][dv] */
    num *phi_q, *phi_k; /* features of every token [T][H][width], or NULL */
} spec;

/* A query or key vector of one head, and where it stands. */
typedef struct spec_vector {
    const num *x; /* [d], as the mechanism sees it, before the scale */
    bool key;
    int64_t sequence;
    int64_t token;         /* in the whole call */
    int64_t position;      /* in its sequence */
    int64_t queries, keys; /* lengths of its sequence */
    int64_t head;          /* query head: keys of a shared key head are seen once for each */
} spec_vector;

/* A kind: its pair or its features. */
typedef struct spec_kind {
    const char *name;
    bool exponential; /* pair and features give logarithms */
    bool signs;       /* goes with exponential: features [2r], logarithms and behind them signed factors */
    /* Kinds without features: the entry of query i and key j (numbers in the whole call). */
    num (*pair)(const spec *s, int64_t h, int64_t i, int64_t j);
    /* Patterns: whether query `i` sees key `j` (positions in the sequence); NULL: all keys, causal ones aside. */
    bool (*sees)(const spec *s, int64_t h, int64_t sequence, int64_t i, int64_t j, int64_t length);
    /* phi [r], without the factor `unit`. */
    void (*features)(const spec *s, const spec_vector *v, num *phi);
    double (*unit)(const spec *s); /* factor of phi.phi; NULL: 1 */
    /* Kinds of neither: row i of the matrix of head h, at any scale, [Tk] of zeros before. */
    void (*row)(const spec *s, int64_t h, int64_t i, num *row);
    /* A kind that is none of this: y of the whole call (linformer). */
    void (*forward)(const spec *s, num *y);
} spec_kind;

/* The rows of each group of kinds; a group is one file. */
extern const spec_kind spec_base_kinds[], spec_softmax_kinds[], spec_general_kinds[], spec_random_kinds[],
    spec_sparse_kinds[]; /* ended by a row without a name */

/* f(a), of value f and derivative `slope`, |f''| <= bend, the roundings of f and f' themselves `own` and `own_slope`: the
 * argument's error times the slope, and the function's own. */
num num_function(num a, double f, double slope, double bend, double own, double own_slope);
num num_sin(num a);
num num_cos(num a);
num num_log(num a);
num num_sqrt(num a);
num num_sum(const num *a, int64_t n);
num num_dot(const num *a, const num *b, int64_t n);
/* Entry `index` of an input, with its direction. */
num spec_input(const spec *s, fv_input which, int64_t index);
/* omega_f . x of head h from input `which`, not scaled */
num spec_projected(const spec *s, fv_input which, int64_t h, int64_t row, const num *x);
num spec_squares(const num *x, int64_t d); /* |x|^2 */
const int64_t *spec_key_offsets(const spec *s);
int64_t spec_sequence_of_query(const spec *s, int64_t i);

/* spec_around.c: modifiers. Before the mechanism: replaces Q and K (rotary, ppsbn). Behind it: y. */
void spec_around_inputs(const spec *s, num *Q, num *K);
void spec_around_output(const spec *s, num *y);
/* spec_decay.c: row [Tk] times the factors that gate, decay or position bias `kernel` put on the keys that query i of
 * head h sees. */
bool spec_has_pair_factors(const spec *s);
void spec_pair_factors(const spec *s, int64_t h, int64_t i, num *row);

/* Whether a kind has a specification. */
bool spec_knows(const char *kind);

/* Rows which[0..count) of the normalised matrix of head h, out [count][Tk]; zero outside the sequence or the past. */
void spec_rows(const spec *s, int64_t h, const int64_t *which, int64_t count, num *out);
/* y [Tq][H][dv] */
void spec_forward(const spec *s, num *y);
/* Sums over all key tokens of one sequence: S [H][r][dv] and z [H][r], each times 2^-exponent of exponent [H][r];
 * without the factor 1/sqrt(m). */
void spec_state(const spec *s, const float *exponent, num *S, num *z);

#endif
