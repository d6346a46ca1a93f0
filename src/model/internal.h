/* model/internal.h: what training needs of a model beyond the public header: the parameter vector, the
 * gradient vector, one micro-batch forward and backward, and the redraw of the projections. */
#ifndef FV_MODEL_INTERNAL_H
#define FV_MODEL_INTERNAL_H

#include "base/internal.h"
#include <favor/model.h>

/* ---- parameters: one vector with named views -------------------------------------------------------- */

typedef struct fv_parameter {
    const char *name; /* "layers.0.mlp.up.weight"; the tensor's name in model.safetensors */
    int rank;
    int64_t shape[4];      /* the first `rank` count */
    int64_t offset, count; /* floats, in both vectors */
    bool decay;            /* weight matrices; not biases, not layer norms */
} fv_parameter;

int fv_model_parameter_count(const fv_model *model);
const fv_parameter *fv_model_parameter_at(const fv_model *model, int index); /* NULL out of range */

/* fv_model_parameters(model) floats each. The gradients are allocated, and zeroed, on first use; NULL (and a
 * message) without memory. */
float *fv_model_values(fv_model *model);
float *fv_model_gradients(fv_model *model);

/* ---- creation in two steps, for callers that look at the cost before memory is touched ----------------- */

/* A model without numbers in its parameters: its memory is reserved, not written. Takes a copy of config. */
FV_NODISCARD fv_status fv_model_build(fv_model **model, fv_context *ctx, const fv_config *config);
/* Its first numbers: parameters drawn from `seed`, projections of draw 0. */
FV_NODISCARD fv_status fv_model_start(fv_model *model, uint64_t seed);

/* ---- one micro-batch ---------------------------------------------------------------------------------- */

/* Plans and allocates the memory of batches of up to `tokens` tokens in up to `sequences` sequences with up
 * to `predicted` targets, once; a later call with larger needs plans again. After it no step allocates. */
FV_NODISCARD fv_status fv_model_prepare(fv_model *model, int64_t tokens, int64_t sequences, int64_t predicted,
                                        bool training);

/* The memory of the activations, free for other use until the next pass; NULL before fv_model_prepare. */
void *fv_model_idle(fv_model *model, size_t *bytes);

/* Forward with dropout, a pure function of (seed, step, micro, layer), then backward of weight * sum of the
 * token losses. Gradients are ADDED to fv_model_gradients; *loss += the sum in nats (without weight),
 * *correct += argmaxes that were right. Prepares by itself when the batch needs more than was prepared. A
 * non-finite loss is not an error here: the caller looks at *loss. */
FV_NODISCARD fv_status fv_model_train_batch(fv_model *model, const fv_batch *batch, float weight,
                                            uint64_t seed, int64_t step, int64_t micro, double *loss,
                                            int64_t *correct);

/* ---- projections --------------------------------------------------------------------------------- */

/* The projections of all layers become draw number `draw` of attention.projection_seed. Evaluation and
 * streaming use what was drawn last; the projections are saved with the model as tensors
 * ("layers.0.attention.projection"), so that loading draws nothing. No effect on kinds without
 * projections but for the number. */
FV_NODISCARD fv_status fv_model_redraw(fv_model *model, int64_t draw);
int64_t fv_model_draw(const fv_model *model);

#endif
