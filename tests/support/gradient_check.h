/* support/gradient_check.h: the gradient of a whole model by Taylor remainder. Include cmocka's headers first. */
#ifndef FV_TESTS_GRADIENT_CHECK_H
#define FV_TESTS_GRADIENT_CHECK_H

#include "model/internal.h"
#include <stdbool.h>

/* The gradient of fv_model_train_batch, near the model's parameters, against differences of the loss: along
 * random directions, then tensor by tensor. bends: the model has ReLUs. Leaves other parameters behind. */
void check_model_gradient(fv_model *model, const fv_batch *batch, bool bends);

double sum_of_products(const float *a, const float *b, int64_t n);

#endif
