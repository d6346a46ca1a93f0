/* support/spec_model.h: a small causal Transformer and its gradient in double, every array rounded as wanted. */
#ifndef FV_TESTS_SPEC_MODEL_H
#define FV_TESTS_SPEC_MODEL_H

#include "model/transformer.h"

enum { SPEC_TOKENS = 24 };

/* The sum of the token losses over one sequence of SPEC_TOKENS tokens through a tiny_model of two layers with attention
 * "exact" or "relu" and hidden_act "gelu"; gradient += its gradient, laid out as the model's parameters. keep rounds
 * every activation and every gradient of one, and the factors of products; the gradients of parameters stay. */
double spec_model(const fv_model *model, const fv_batch *batch, double (*keep)(double), double *gradient);

#endif
