/* features/feature_map.h: what a feature map is to the attention core: a file with a tile function forward, its
 * backward beside it, and one row in attention/table.c.
 *
 * Kernelised attention weighs key j for query i by phi(q_i).phi(k_j) (Choromanski et al. 2021, eq. 5). Maps
 * come in three forms:
 *
 *   plain        phi_f = u_f at its true scale. Where that leaves the range of floats the core asks for wide rows
 *                (attention/kernelized_wide.c).
 *   exponential  phi_f = 2^(u_f + bias), always positive; the core keeps an integer exponent per feature, so that nothing
 *                overflows (attention/kernelized.h).
 *   coefficients phi_f = c_f 2^(u_f + bias), exponential with a signed coefficient of moderate size.
 *
 * In all of them a constant factor of phi.phi may stay outside: `unit` (1/m for maps that carry 1/sqrt(m)). It cancels in
 * the ratio; the guards of the normaliser put it back.
 */
#ifndef FV_FEATURE_MAP_H
#define FV_FEATURE_MAP_H

#include "kernels/kernels.h"
#include <favor/attention.h>

/* Options that only some kinds take and that shape none of their inputs: a row says which (options.c). */
enum fv_takes {
    FV_TAKES_WINDOW = 1 << 0,
    FV_TAKES_STRIDE = 1 << 1,
    FV_TAKES_BLOCK = 1 << 2,
    FV_TAKES_GLOBALS = 1 << 3,
    FV_TAKES_RANDOM_BLOCKS = 1 << 4,
    FV_TAKES_PSI = 1 << 5,
    FV_TAKES_POSITIONS = 1 << 6 /* max_tokens; maps with `positions` have it anyway */
};
#define FV_LOG2E 1.4426950408889634

typedef struct fv_feature_map fv_feature_map;

/* Constants of a map for one head of one operator. */
typedef struct fv_map_params {
    const fv_feature_map *map; /* the row itself, for functions that serve several */
    const fv_kernels *kernels;
    const fv_attention_options *options; /* resolved */
    int64_t d, m, r;                     /* width, projections, features */
    float scale;                         /* of q.k; x = sqrt(scale) times the raw head vector */
    float epsilon;
    bool projected;
    bool single;                        /* a step of single tokens: nothing is made of projections first */
    bool hadamard;                      /* projections may be whole Hadamard blocks: hadamard.h */
    const float *input[FV_INPUT_COUNT]; /* this head's part of each input; NULL where absent */
    const float *w;                     /* input[FV_INPUT_PROJECTION]: rows omega [m][d], NULL without */
    const float *prepared;              /* what map->prepare made */
    const float *statistics;            /* what map->measure made of this sequence */
    float *work;                        /* fv_map_work_floats of the worker at hand; not in measure */
    float *d_input[FV_INPUT_COUNT];     /* backward adds to them; NULL: not wanted */
} fv_map_params;

/* A tile of raw head vectors. */
typedef struct fv_rows {
    int64_t n;
    const float *x; /* [n][d], row stride ldx */
    int64_t ldx;
    bool key;        /* keys, else queries */
    int64_t first;   /* position of row 0 in its sequence */
    int64_t longest; /* the longer of the sequence's two lengths; streams: options.max_tokens */
    /* Wide rows of plain maps (attention/kernelized_wide.c), else NULL: [n] x is the head vector times 2^-exponent. */
    const float *exponent;
} fv_rows;

typedef struct fv_rmf_series fv_rmf_series;
struct fv_feature_map {
    const char *name;
    const fv_rmf_series *series; /* random Maclaurin features: the kernel's power series */
    fv_function function;        /* generalized: f */
    bool generalized;            /* takes epsilon; may go without a projection and does by default */
    bool unit_scale;             /* default scale 1, else 1/sqrt(d) */
    bool unprojected;            /* takes no projection at all; m = d */
    bool own_rows;               /* ... but random rows of its own: m = options.features */
    bool exponential;            /* see above */
    bool coefficients;           /* see above; goes with exponential */
    bool can_be_negative;        /* phi.phi can: default denominator guard sign:1e-3 */
    bool mixed;                  /* features of both signs: their sums say nothing about size */
    bool row_exponents;          /* in wide rows bias[i] is a whole number: phi = u 2^bias */
    bool positions;              /* reads rows->first and rows->longest */
    uint32_t inputs;             /* 1 << FV_INPUT_x taken beside the projection */
    uint32_t takes;              /* FV_TAKES_x */

    /* Checks and resolves the map's own options; may refuse (FV_ERR_USAGE). NULL: nothing to do. */
    fv_status (*check)(const fv_feature_map *map, fv_context *ctx, fv_attention_options *options);
    /* Checks the values of its inputs before anything reads them. NULL: any will do. */
    fv_status (*validate)(fv_context *ctx, const fv_attention_options *options, const float *const *input);
    /* r from m */
    int64_t (*feature_count)(const fv_attention_options *options, int64_t m);
    /* The factor of phi.phi that stays outside; NULL: 1. */
    double (*unit)(const fv_map_params *p);

    /* Plain maps that grow faster than their argument: degree [r] so that feature f of x is 2^(degree[f] e) times that of
     * 2^-e x (epsilon aside, which logits takes care of). Their wide rows have exponents, those of the others are 0. */
    void (*degrees)(const fv_map_params *p, float *degree);

    /* Draws one of its FV_ROLE_DRAWN inputs other than projections, all heads; false: not one of its. */
    bool (*draw)(const fv_feature_map *map, const fv_attention_options *options, fv_input which,
                 uint64_t seed, uint32_t draw, float *out);

    /* Once per call and head: turns the inputs into the form that logits wants (e.g. omega^T times sqrt(scale)
     * log2 e). prepared_floats NULL: m*d with a projection, 0 without. prepare may be NULL with 0 floats. */
    int64_t (*prepared_floats)(const fv_map_params *p);
    void (*prepare)(const fv_map_params *p, float *prepared);

    /* Once per sequence and head: statistics of its queries and keys; constants for the gradients. NULL: none. */
    int64_t (*statistics_floats)(const fv_map_params *p);
    void (*measure)(const fv_map_params *p, int64_t nq, const float *q, int64_t ldq, int64_t nk,
                    const float *k, int64_t ldk, float *statistics);

    /* Features of n rows: u [n][r]; bias [n] (exponential) the per-row term all features share (others may use it as
     * room); c [n][r]
     * (coefficients). Others are not touched and may be NULL. */
    void (*logits)(const fv_map_params *p, const fv_rows *rows, float *u, float *c, float *bias);

    /* Backward of the features. g [n][r]: dL/dphi (plain) or dL/dln|phi| = dL/dphi phi (exponential: of
     * u ln 2 and bias ln 2). gc [n][r] (coefficients): dL/dc. dx [n][d] += (add) or = ; gradients of inputs
     * are added to p->d_input where not NULL. g and gc are destroyed. tmp: tmp_floats (NULL: n*r + n + r)
     * floats. x and dx may be the same array when not add. */
    void (*backward)(const fv_map_params *p, const fv_rows *rows, float *g, float *gc, bool add, float *dx,
                     int64_t lddx, float *tmp);
    int64_t (*tmp_floats)(const fv_map_params *p, int64_t n);
};

/* ---- pieces that maps share: projected.c ---- */

/* r = m. */
int64_t fv_map_count_m(const fv_attention_options *options, int64_t m);
/* 1/m */
double fv_map_unit_m(const fv_map_params *p);
/* r = 2m, and 1/2m. */
int64_t fv_map_count_2m(const fv_attention_options *options, int64_t m);
double fv_map_unit_2m(const fv_map_params *p);

/* A projection as it is applied: m rows omega, prepared once a head as omega^T [d][m] for one plain product, or, where it was
 * drawn hadamard and d is wide enough, as the factors of its blocks of d rows and omega^T of the rows behind them. Rows that turn
 * out to be no such blocks are applied as what they are. A step of single tokens applies the rows as they are given. */
int64_t fv_map_rows_floats(const fv_map_params *p, int64_t m);
int64_t fv_map_work_floats(const fv_map_params *p);
/* omega = factor w diag(channels), w [m][d], channels [d] or NULL: 1. */
void fv_map_prepare_rows(const fv_map_params *p, int64_t m, const float *w, double factor,
                         const float *channels, float *prepared);
/* out = the same with omega diag(channels). */
void fv_map_scale_channels(const fv_map_params *p, int64_t m, const float *prepared, const float *channels,
                           float *out);
/* u [n][m] (row stride ldu) = alpha x omega^T */
void fv_map_apply_rows(const fv_map_params *p, int64_t m, const float *prepared, float alpha,
                       const fv_rows *rows, float *u, int64_t ldu);
/* dx [n][d] = alpha g w (add: +=), for the w that was prepared, without its factor and channels. */
void fv_map_apply_rows_back(const fv_map_params *p, int64_t m, const float *prepared, const float *w,
                            int64_t n, float alpha, const float *g, int64_t ldg, bool add, float *dx,
                            int64_t lddx);

/* The same for the one projection of most maps: p->w, prepared into p->prepared with a factor alone. */
void fv_map_prepare_scaled(const fv_map_params *p, double factor, float *prepared);
void fv_map_project(const fv_map_params *p, const fv_rows *rows, float *u, int64_t ldu);
void fv_map_project_back(const fv_map_params *p, int64_t n, double factor, const float *g, int64_t ldg,
                         bool add, float *dx, int64_t lddx);
/* Backward of u = factor omega.x, g [n][m] with row stride ldg: domega += factor g^T x where it is wanted; to be
 * called before dx may overwrite x. */
void fv_map_projection_gradient(const fv_map_params *p, const fv_rows *rows, double factor, const float *g,
                                int64_t ldg);
/* bias[i] = factor |x_i|^2 of raw rows, bounded */
void fv_map_squares(const fv_map_params *p, const fv_rows *rows, double factor, float *bias);
/* degree [r] = 2 */
void fv_map_degrees_2(const fv_map_params *p, float *degree);
/* x as a float; one beyond 2^126 becomes a number below 2^127 that grows with it, so that of squared lengths which no float
 * holds the least is still the least, to 1 part in 10^5. */
float fv_map_bounded_log(double x);
/* Features in both directions, r = 2m: the right half of u [n][r] = - the left; and the left half of its gradient -=
 * the right. work: n floats. */
void fv_map_mirror(const fv_map_params *p, int64_t n, float *u, float *work);
void fv_map_mirror_back(const fv_map_params *p, int64_t n, float *g, float *work);
/* c [n][2m] = [sin u, cos u], g = dL/dc: the left half of g becomes dL/du, the right is destroyed. */
void fv_map_sincos_back(const fv_kernels *kr, int64_t n, int64_t m, const float *c, int64_t ldc, float *g,
                        int64_t ldg);

/* ---- the maps: a row each in attention/table.c ---- */

extern const fv_feature_map fv_map_favor_hyperbolic, fv_map_favor_regularized,
    fv_map_favor_regularized_hyperbolic, fv_map_favor_trig, fv_map_favor_optimal, fv_map_favor_sharp,
    fv_map_favor_hybrid;
extern const fv_feature_map fv_map_favor_plus;
extern const fv_feature_map fv_map_generalized[FV_FUNCTION_COUNT]; /* by f */
extern const fv_feature_map fv_map_sikf, fv_map_dpfp, fv_map_taylor, fv_map_rebased, fv_map_cosformer,
    fv_map_hedgehog;
extern const fv_feature_map fv_map_rfa, fv_map_rfa_arccos;
extern const fv_feature_map fv_map_rmf_exp, fv_map_rmf_inv, fv_map_rmf_logi, fv_map_rmf_trigh,
    fv_map_rmf_sqrt;

#endif
