/* cli/apply.h: one run of `favor apply`: what was read, what will be written, and who owns it. */
#ifndef FAVOR_APPLY_H
#define FAVOR_APPLY_H

#include "cli.h"

#define APPLY_OWNED_MAX  32
#define APPLY_OUTPUT_MAX 8

typedef struct apply {
    fv_context *ctx;
    const cli_args *args;
    const char *path; /* of the input */
    fv_tensors *in;
    void *owned[APPLY_OWNED_MAX]; /* freed at the end */
    int owned_count;

    int64_t Tq, Tk, H, G, d, dv, m; /* m: rows of a given projection, else 0 */
    fv_layout layout;
    const int64_t *offsets_k; /* never NULL */
    const float *q, *k, *v, *dy, *projection;
    const int64_t *rows;
    int64_t row_count;

    fv_attention_options options;
    fv_attention *op;
    fv_attention_info info;

    float *y, *dq, *dk, *dv_out, *weights;
    void **states; /* one a sequence, NULL without --state-in and --state-out */
} apply;

/* `count` times `element` bytes, zeroed and freed with the run; NULL: out of memory, told on ctx. */
void *apply_alloc(apply *a, int64_t count, size_t element);

/* Opens the input and binds q, k, v, offsets, dy and the given projection, every shape checked. What is
 * missing or does not fit: FV_ERR_FILE naming the tensor; tensors of modifiers favor does not have:
 * FV_ERR_USAGE. */
FV_NODISCARD fv_status apply_read(apply *a);

/* Makes a state for each sequence: empty, or as --state-in says. FV_ERR_FILE when that file was written by
 * another operator or projection. */
FV_NODISCARD fv_status apply_states_make(apply *a);
/* Writes the states to --state-out. */
FV_NODISCARD fv_status apply_states_write(apply *a);

/* "[3,4]" */
typedef struct apply_shape {
    char text[FV_TENSOR_MAX_RANK * 21 + 3];
} apply_shape;
apply_shape apply_shape_text(const fv_tensor *tensor);

#endif
