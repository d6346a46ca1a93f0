/* features/feature_map.h: what a random-feature map is to the attention core: a file with a tile function
 * forward, its backward beside it, and one row in table.c.
 *
 * Kernelised attention weighs key j for query i by phi(q_i).phi(k_j) (Choromanski et al. 2021, eq. 5). A map
 * gives true features as phi_true[f] = phi[f] * 2^(e_f) with integer exponents: maps of exponentials would
 * overflow without them.
 */
#ifndef FV_FEATURE_MAP_H
#define FV_FEATURE_MAP_H

#include "kernels/kernels.h"

/* Constants of a map in one operator. */
typedef struct fv_map_params {
    const fv_kernels *kernels;
    int64_t d, m, r; /* width, projections, features */
    float scale;     /* of q.k; x = sqrt(scale) times the raw head vector */
    float epsilon;
    bool projected;
    const float *w;  /* the head's projection [m][d] as given (rows omega), NULL without */
    const float *wt; /* prepared by map->prepare: see there */
} fv_map_params;

typedef struct fv_feature_map fv_feature_map;
struct fv_feature_map {
    const char *name;
    bool generalized;     /* takes epsilon; scale 1 and no projection by default; no factor 1/m */
    bool exponential;     /* features carry per-feature exponents (always positive) */
    bool can_be_negative; /* default denominator guard sign:1e-3 */
    /* r from m */
    int64_t (*feature_count)(int64_t m);
    /* Turns one head's projection w [m][d] into the form that logits wants, wt [m*d] (e.g. omega^T times
     * sqrt(scale) log2(e)). Once per call and head. */
    void (*prepare)(const fv_map_params *p, const float *w, float *wt);

    /* Log-features in base 2 (exponential) or features (others) of n raw vectors x [n][d], row stride ldx,
     * into u [n][r]; for exponential maps bias [n] receives the per-row term (-|x|^2/2 log2 e) that all
     * features of the row share: the true log2-feature is u[i][f] + bias[i]. Others: bias is not touched. */
    void (*logits)(const fv_map_params *p, int64_t n, const float *x, int64_t ldx, float *u, float *bias);

    /* Backward of the features. g [n][r] holds, for exponential maps, dL/dphi * phi (= dL/dlog phi); for
     * others dL/dphi. dx [n][d] += (add) or = . g is destroyed. tmp: n*r + n + r floats free to use (maps
     * that need their pre-activation compute it again there). x and dx may be the same array when not add. */
    void (*backward)(const fv_map_params *p, int64_t n, const float *x, int64_t ldx, float *g, bool add,
                     float *dx, int64_t lddx, float *tmp);
};

extern const fv_feature_map fv_map_favor_plus, fv_map_relu;

/* Draws m x d projection rows: features/projection.c. False for kinds it does not know. */
bool fv_projection_draw(int projection, int row_norms, int64_t m, int64_t d, uint64_t seed, uint32_t draw,
                        uint32_t head, float *w, double *work);
/* Doubles of `work`. */
int64_t fv_projection_work(int64_t m, int64_t d);

#endif
