/* features/rmf.h: the law of the degrees of random Maclaurin features, shared by rmf.c and rmf_law.c. */
#ifndef FV_RMF_H
#define FV_RMF_H

#include "features/feature_map.h"

/* A dot-product kernel f(t) = sum a_n t^n. */
struct fv_rmf_series {
    double (*log_a)(int64_t n);
    double radius; /* of convergence */
};

/* Probabilities p_n of one operator's degrees. */
typedef struct fv_rmf_law_table {
    fv_rmf_law kind;
    const fv_rmf_series *series;
    double parameter, log_norm; /* p_n = exp(weight_n - log_norm) */
    int64_t last;               /* largest degree, INT64_MAX: none */
} fv_rmf_law_table;

fv_rmf_law_table fv_rmf_law_of(const fv_attention_options *o, const fv_rmf_series *series);
double fv_rmf_log_p(const fv_rmf_law_table *law, int64_t n); /* -inf where p_n = 0 */

/* The map's hooks (feature_map.h). */
fv_status fv_rmf_check(const fv_feature_map *map, fv_context *ctx, fv_attention_options *o);
fv_status fv_rmf_validate(fv_context *ctx, const fv_attention_options *o, const float *const *input);
bool fv_rmf_draw(const fv_feature_map *map, const fv_attention_options *o, fv_input which, uint64_t seed,
                 uint32_t draw, float *out);

#endif
