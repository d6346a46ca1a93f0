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
#include <stdbool.h>

#define SPEC_STEP 1e-100

typedef struct num {
    double complex v;
    double m, t, mt;
} num;

num num_input(double value, double direction);
num num_rounded(double value); /* a constant that float32 code rounds once */
num num_add(num a, num b);
num num_sub(num a, num b);
num num_mul(num a, num b);
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
    const float *projection;             /* [H][m][d] */
} spec;

/* Whether a kind has a specification. */
bool spec_knows(const char *kind);

/* Row i of the normalised matrix of head h, [Tk]; zero outside the sequence or the past. */
void spec_row(const spec *s, int64_t h, int64_t i, num *row);
/* y [Tq][H][dv] */
void spec_forward(const spec *s, num *y);
/* S [dv] and z of feature f of head h over all key tokens, times 2^-exponent; without the factor 1/sqrt(m).
 */
void spec_state(const spec *s, int64_t h, int64_t f, double exponent, num *S, num *z);

#endif
