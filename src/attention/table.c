/* table.c: the table of attention kinds. One row a kind; a kernelized one names its feature map and nothing
 * else. */
#include "attention/kernelized.h"
#include <string.h>

extern const fv_mechanism fv_mechanism_exact, fv_mechanism_identity, fv_mechanism_window,
    fv_mechanism_strided, fv_mechanism_fixed, fv_mechanism_longformer, fv_mechanism_bigbird,
    fv_mechanism_reformer, fv_mechanism_linformer;

#define RFA       "Peng et al. 2021, arXiv 2103.02143"
#define RMF       "Guo et al. 2024, arXiv 2408.11656; Kar and Karnick 2012, arXiv 1201.6530"
#define LINEAR    "Katharopoulos et al. 2020, arXiv 2006.16236"
#define PERFORMER "Choromanski et al. 2021, arXiv 2009.14794"
#define FAVORPP   "Likhosherstov et al. 2022, arXiv 2205.15317"
#define FAVORS    "Likhosherstov et al. 2023, arXiv 2302.00787"
#define HRF       "Choromanski et al. 2022, arXiv 2110.04367"

/* A kernelized kind: everything but the map is shared. */
#define KERNELIZED(name_, summary_, paper_, map_, generalized_)                                              \
    {                                                                                                        \
        .kind = {name_, summary_, paper_, 1, 1, 1, generalized_, NULL, NULL}, .map = &(map_),                \
        .in_place_ok = true, .position_kernel = true, .recalls = true, .check = fv_kz_check,                 \
        .measure = fv_kz_measure, .forward = fv_kz_forward, .backward = fv_kz_backward,                      \
        .weights = fv_kz_weights, .flop = fv_kz_flop, .state_bytes = fv_kz_state_bytes,                      \
        .state_init = fv_kz_state_init, .state_view = fv_kz_state_view, .state_merge = fv_kz_state_merge,    \
        .step = fv_kz_step,                                                                                  \
    }

/* One of the generalized maps. */
#define GENERALIZED(name_, f_, paper_, function_)                                                            \
    KERNELIZED(name_, "generalized kernel, " f_ ", plus epsilon", paper_, fv_map_generalized[function_], 1)

static const fv_mechanism kernelized[] = {
    KERNELIZED("favor+", "positive random features of the softmax kernel (SM+)", PERFORMER, fv_map_favor_plus,
               0),
    KERNELIZED("favor+hyp", "hyperbolic positive features (SM^hyp+)", PERFORMER, fv_map_favor_hyperbolic, 0),
    KERNELIZED("favor-trig", "trigonometric features of the softmax kernel (SM^trig)", PERFORMER,
               fv_map_favor_trig, 0),
    KERNELIZED("favor+reg", "positive features of the regularized kernel (SMREG+)", PERFORMER,
               fv_map_favor_regularized, 0),
    KERNELIZED("favor+reghyp", "hyperbolic features of the regularized kernel (SMREG^hyp+)", PERFORMER,
               fv_map_favor_regularized_hyperbolic, 0),
    KERNELIZED("favor++", "positive features of least variance for the data (OPRF)", FAVORPP,
               fv_map_favor_optimal, 0),
    KERNELIZED("favor#", "the same on channels brought to a common scale (SADERF)", FAVORS,
               fv_map_favor_sharp, 0),
    KERNELIZED("favor-hybrid", "positive and trigonometric features weighed by the angle", HRF,
               fv_map_favor_hybrid, 0),
    GENERALIZED("relu", "f = ReLU", PERFORMER, FV_FUNCTION_RELU),
    GENERALIZED("exp", "f = exp", PERFORMER, FV_FUNCTION_EXP),
    GENERALIZED("sigmoid", "f = logistic function", PERFORMER, FV_FUNCTION_SIGMOID),
    GENERALIZED("tanh", "f = tanh", PERFORMER, FV_FUNCTION_TANH),
    GENERALIZED("gelu", "f = GELU, the exact form", PERFORMER, FV_FUNCTION_GELU),
    GENERALIZED("abs", "f = absolute value", PERFORMER, FV_FUNCTION_ABS),
    GENERALIZED("square", "f = square", PERFORMER, FV_FUNCTION_SQUARE),
    GENERALIZED("relu2", "f = ReLU squared", PERFORMER, FV_FUNCTION_RELU2),
    GENERALIZED("cos", "f = cosine", PERFORMER, FV_FUNCTION_COS),
    GENERALIZED("sin", "f = sine", PERFORMER, FV_FUNCTION_SIN),
    GENERALIZED("linear", "f = identity", PERFORMER, FV_FUNCTION_LINEAR),
    GENERALIZED("elu+1", "f = ELU + 1", LINEAR, FV_FUNCTION_ELU1),
    GENERALIZED("softplus", "f = log(1 + exp)", PERFORMER, FV_FUNCTION_SOFTPLUS),
    KERNELIZED("sikf", "shift-invariant exponential map", "Zubkov and Gavrilov 2022, arXiv 2202.11364",
               fv_map_sikf, 0),
    KERNELIZED("dpfp", "products of neighbouring channels, nu = 1", "Schlag et al. 2021, arXiv 2102.11174",
               fv_map_dpfp, 0),
    KERNELIZED("taylor", "second-order series of exp (Based)", "Arora et al. 2024, arXiv 2402.18668",
               fv_map_taylor, 0),
    KERNELIZED("rebased", "squared dots of normalised, scaled vectors",
               "Aksenov et al. 2024, arXiv 2402.10644", fv_map_rebased, 0),
    KERNELIZED("cosformer", "ReLU features, weighed by the cosine of the distance",
               "Qin et al. 2022, arXiv 2202.08791", fv_map_cosformer, 0),
    KERNELIZED("hedgehog", "softmax over channels of a learned layer", "Zhang et al. 2024, arXiv 2402.04347",
               fv_map_hedgehog, 0),
    KERNELIZED("rfa", "random Fourier features of unit vectors, learned bandwidth", RFA, fv_map_rfa, 0),
    KERNELIZED("rfa-arccos", "arc-cosine features of unit vectors, learned bandwidth", RFA, fv_map_rfa_arccos,
               0),
    KERNELIZED("rmf-exp", "random Maclaurin features of exp(t)", RMF, fv_map_rmf_exp, 0),
    KERNELIZED("rmf-inv", "random Maclaurin features of 1/(1-t), |t| < 1", RMF, fv_map_rmf_inv, 0),
    KERNELIZED("rmf-logi", "random Maclaurin features of 1 - ln(1-t), |t| < 1", RMF, fv_map_rmf_logi, 0),
    KERNELIZED("rmf-trigh", "random Maclaurin features of sinh t + cosh t, which is exp(t)", RMF,
               fv_map_rmf_trigh, 0),
    KERNELIZED("rmf-sqrt", "random Maclaurin features of 2 - sqrt(1-t), |t| <= 1", RMF, fv_map_rmf_sqrt, 0),

};

static const fv_mechanism *const plain[] = {&fv_mechanism_exact, &fv_mechanism_identity};
static const fv_mechanism *const sparse[] = {
    &fv_mechanism_window,  &fv_mechanism_strided,  &fv_mechanism_fixed,    &fv_mechanism_longformer,
    &fv_mechanism_bigbird, &fv_mechanism_reformer, &fv_mechanism_linformer};

/* Kinds in the order of help and documentation. */
static const fv_mechanism *row_at(int index)
{
    if (index < FV_COUNT(plain))
        return plain[index];
    index -= FV_COUNT(plain);
    return index < FV_COUNT(kernelized) ? &kernelized[index] : sparse[index - FV_COUNT(kernelized)];
}

int fv_attention_kind_count(void)
{
    return FV_COUNT(plain) + FV_COUNT(kernelized) + FV_COUNT(sparse);
}

const fv_attention_kind *fv_attention_kind_at(int index)
{
    return index >= 0 && index < fv_attention_kind_count() ? &row_at(index)->kind : NULL;
}

const fv_mechanism *fv_mechanism_find(const char *name)
{
    for (int i = 0; i < fv_attention_kind_count(); i++)
        if (strcmp(row_at(i)->kind.name, name) == 0)
            return row_at(i);
    return NULL;
}

const fv_attention_kind *fv_attention_kind_find(const char *name)
{
    const fv_mechanism *mechanism = fv_mechanism_find(name);
    return mechanism != NULL ? &mechanism->kind : NULL;
}
