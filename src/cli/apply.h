/* cli/apply.h: one run of `favor apply`: what was read, what will be written, and who owns it. */
#ifndef FAVOR_APPLY_H
#define FAVOR_APPLY_H

#include "cli.h"

#define APPLY_OWNED_MAX  128
#define APPLY_OUTPUT_MAX (5 + 2 * FV_INPUT_COUNT)

/* One of the operator's inputs beside q, k and v. */
typedef struct apply_input {
    const fv_tensor *tensor; /* of the file; NULL: drawn, or left out */
    bool taken;              /* by the operator; then info holds */
    bool shared;             /* the file holds one head's tensor for all */
    fv_input_info info;
    const float *values; /* of all heads; NULL: left out */
    float *gradient;     /* like values; NULL: not wanted */
} apply_input;

typedef struct apply {
    fv_context *ctx;
    const cli_args *args;
    const char *path; /* of the input */
    fv_tensors *in;
    void *owned[APPLY_OWNED_MAX]; /* freed at the end */
    int owned_count;

    int64_t Tq, Tk, H, G, d, dv;
    fv_layout layout;
    const int64_t *offsets_k; /* never NULL */
    const float *q, *k, *v, *dy;
    apply_input input[FV_INPUT_COUNT];
    const int64_t *rows;
    int64_t row_count;

    fv_attention_options options;
    const fv_attention_kind *kind;
    fv_attention *op;
    fv_attention_info info;

    float *y, *dq, *dk, *dv_out, *weights;
    void **states; /* one a sequence, NULL without --state-in and --state-out */
} apply;

/* `count` times `element` bytes, zeroed and freed with the run; NULL: out of memory, told on ctx. */
void *apply_alloc(apply *a, int64_t count, size_t element);

/* Opens the input and binds q, k, v, offsets and dy, every shape checked. What is missing or does not fit:
 * FV_ERR_FILE naming the tensor. */
FV_NODISCARD fv_status apply_read(apply *a);

/* ---- apply_extra.c: the tensors of fv_input ---- */

/* Finds them; switches modifiers on and takes sizes of options from them. Before the operator is made. */
FV_NODISCARD fv_status apply_extra_options(apply *a);
/* Reads what the operator takes, every shape and value checked, and draws what the file does not hold. */
FV_NODISCARD fv_status apply_extra_read(apply *a);
/* Puts the inputs, and the gradients where they are wanted, from key token `first` on. */
void apply_extra_bind(const apply *a, int64_t first, fv_attention_io *io, fv_attention_grad *grad);
/* Adds to `outputs`: the random inputs (with --write projection), and the gradients in the shapes that the inputs
 * have in the file. */
FV_NODISCARD fv_status apply_extra_outputs(apply *a, fv_tensor *outputs, int *count);

/* Makes a state for each sequence: empty, or as --state-in says. FV_ERR_FILE when that file was written by
 * another operator or projection. */
FV_NODISCARD fv_status apply_states_make(apply *a);
/* Writes the states to --state-out. */
FV_NODISCARD fv_status apply_states_write(apply *a);

/* "[3,4]" */
typedef struct apply_shape {
    char text[FV_TENSOR_MAX_RANK * 21 + 3];
} apply_shape;
apply_shape apply_shape_of(const int64_t *shape, int rank);
apply_shape apply_shape_text(const fv_tensor *tensor);
/* FV_ERR_FILE: the tensor's shape is not what was expected. */
fv_status apply_misfit(const apply *a, const fv_tensor *tensor, const char *expected);
/* The tensor's numbers as float32: its own memory, or a converted copy. */
FV_NODISCARD fv_status apply_floats(apply *a, const fv_tensor *tensor, const float **values);

#endif
