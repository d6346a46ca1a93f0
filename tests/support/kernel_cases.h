/* support/kernel_cases.h: one row per kernel: its operands, a call, the magnitude of its result. The tests of
 * every set against the reference are made from these rows.
 *
 * A kernel's arrays are described by letters: R rows of c floats, ld apart; D rows of c floats, dense; N one
 * float a row; T two floats a row; C one float a column. Outputs in lower case are only written: they begin
 * as NaN. */
#ifndef KERNEL_CASES_H
#define KERNEL_CASES_H

#include "kernels/kernels.h"

enum { CASE_ARRAYS = 4 };

typedef struct operands {
    int64_t n, c, ld;
    int variant; /* which optional arguments and flags */
    float *in[CASE_ARRAYS];
    float *out[CASE_ARRAYS];
    int64_t *visible; /* [n], from -1 to c + 1 */
    int32_t *ids;     /* [n], below c (or 0) */
    double value;     /* what the kernel returned, 0 if nothing */
} operands;

typedef struct kernel_case {
    const char *name;
    const char *in, *out;
    int variants;
    void (*call)(const fv_kernels *k, operands *o);
    /* Makes random operands meaningful (a variance is positive). May be NULL. */
    void (*prepare)(operands *o);
    /* The result on absolute values, by which errors are judged: gets the absolute operands and the
     * reference's operands after its call, and leaves magnitudes in absolute->out and ->value. NULL: the
     * reference called on the absolute operands. */
    void (*magnitude)(operands *absolute, const operands *reference);
    double value_eps; /* rounding unit of the returned value; 0: exact */
    int in_place;     /* out[0] may be this input, counted from 1; 0: none */
} kernel_case;

/* Floats between the first and the last of an array described by `letter`. */
int64_t case_floats(char letter, const operands *o);
/* The magnitude of results whose error is relative to themselves: the harness puts |reference| in place. */
void kernel_case_self(operands *absolute, const operands *reference);
/* Row `index`, NULL past the last. gemm has tests of its own and is not among them. */
const kernel_case *kernel_case_at(int index);

/* The rows of each group of kernels; a group is one file, and ends with a NULL name. */
extern const kernel_case kernel_cases_rows[], kernel_cases_features[], kernel_cases_functions[],
    kernel_cases_layers[], kernel_cases_transforms[];

/* Fields of a row. MAGNITUDE(layernorm): errors are judged by magnitude_layernorm; SELF: by the result itself. */
#define CALL(k)      .name = #k, .call = call_##k
#define PREPARE(f)   .prepare = prepare_##f
#define MAGNITUDE(f) .magnitude = magnitude_##f
#define SELF         .magnitude = kernel_case_self

#endif
