/* favor/attention.h: one attention operator, forward, backward, and one token at a time.
 *
 *     fv_attention_options opt;
 *     fv_attention_options_init(&opt);
 *     opt.kind = "favor+", opt.heads = 8, opt.dim = 64, opt.causal = 1;
 *     fv_attention *op;
 *     fv_attention_create(&op, ctx, &opt);
 *
 *     int64_t offsets[] = {0, 1000, 35000};           // two sequences, packed
 *     fv_layout layout = {2, offsets, NULL};
 *     fv_memory need;
 *     fv_attention_measure(op, &layout, &need);       // bytes, before anything runs
 *     ... allocate saved and scratch (64-byte aligned), draw the projection ...
 *     fv_attention_io io = {.q = q, .k = k, .v = v, .y = y, .input = {w}};   // FV_INPUT_PROJECTION
 *     fv_attention_forward(op, &layout, &io, saved, scratch);
 *
 * An fv_attention is immutable once created and may be used from many threads at once, each call
 * with memories of its own. Nothing allocates in forward, backward, step or weights.
 *
 * Arrays are token-major: q [Tq][H][d], k [Tk][G][d], v [Tk][G][dv], y [Tq][H][dv], float32. Query head h
 * reads key/value head h*G/H. Sequences are packed end to end; tokens of one never see another.
 */
#ifndef FAVOR_ATTENTION_H
#define FAVOR_ATTENTION_H

#include <favor/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum fv_projection {
    FV_PROJECTION_DEFAULT = 0, /* orthogonal for softmax maps, none for generalized maps */
    FV_PROJECTION_NONE,        /* features act on x itself, m = d */
    FV_PROJECTION_IID,         /* rows ~ N(0, I_d) */
    FV_PROJECTION_ORTHOGONAL,  /* blocks of d Haar-orthogonal rows, last block truncated */
    FV_PROJECTION_HADAMARD,    /* blocks of three Hadamard-diagonal products; d a power of two */
    FV_PROJECTION_GIVENS,      /* blocks of random Givens rotations */
    FV_PROJECTION_SIMPLEX      /* blocks whose directions form a randomly rotated simplex */
} fv_projection;

typedef enum fv_row_norms {
    FV_ROW_NORMS_CHI = 0, /* norms of fresh N(0, I_d) vectors: marginals exact, unbiased */
    FV_ROW_NORMS_SQRT_D   /* all norms sqrt(d): the regularized kernel SMREG */
} fv_row_norms;

/* Guard of the normaliser D at its true scale. A row with no visible key, or with D = 0 after the
 * guard, gives y = 0 and zero gradients. */
typedef enum fv_denominator {
    FV_DENOMINATOR_DEFAULT = 0, /* none for maps that are never negative, else sign:1e-3 */
    FV_DENOMINATOR_NONE,        /* D */
    FV_DENOMINATOR_OFF,         /* no division: y is the numerator at its true scale */
    FV_DENOMINATOR_ADD,         /* D + X */
    FV_DENOMINATOR_CLAMP,       /* max(D, X) */
    FV_DENOMINATOR_ABS,         /* max(|D|, X) */
    FV_DENOMINATOR_SIGN         /* max(|D|, X) with the sign of D (0 counts as positive) */
} fv_denominator;

/* Relative position by a Toeplitz matrix, T_ij = w[i - j]. */
typedef enum fv_position_bias {
    FV_POSITION_BIAS_NONE = 0,
    FV_POSITION_BIAS_FASTRPB,    /* y += T v (Zubkov and Gavrilov 2022) */
    FV_POSITION_BIAS_FASTRPB_2D, /* the same on an R x R raster, T = w[row i - row j] + w[col i - col j] */
    FV_POSITION_BIAS_KERNEL      /* weights times exp(w[i - j]), normaliser too (Luo et al. 2021) */
} fv_position_bias;

/* Law of the degree n of a random Maclaurin feature. */
typedef enum fv_rmf_law {
    FV_RMF_GEOMETRIC = 0, /* p_n = (P-1) P^-(n+1), n = 0, 1, ...; P = rmf_parameter, default 2 */
    FV_RMF_POISSON,       /* Poisson of mean rmf_parameter, default 1 */
    FV_RMF_OPTIMAL        /* p_n ~ a_n mu^(n/2), least variance at mu = rmf_parameter, default 1 */
} fv_rmf_law;

typedef struct fv_attention_options {
    size_t size;              /* set by _init */
    const char *kind;         /* a name of fv_attention_kinds; no default */
    int64_t heads;            /* H, query heads */
    int64_t kv_heads;         /* G, key/value heads, divides H; 0: H */
    int64_t dim;              /* d, width of a query or key head */
    int64_t value_dim;        /* dv; 0: d */
    int causal;               /* 1: token i sees keys j <= i of its sequence */
    double scale;             /* multiplies q.k; 0: the kind's default (1/sqrt(d), or 1) */
    int64_t features;         /* m, random projections; 0: ceil(d ln d) up to a multiple of 16 */
    fv_projection projection; /* how they are drawn */
    fv_row_norms row_norms;   /* their norms */
    double epsilon;           /* added to features of generalized maps; < 0 (init): 1e-3 */
    fv_denominator denominator;
    double denominator_value; /* X above */
    int64_t chunk;            /* tokens a causal chunk, >= 1; 0: the kind's choice */
    int trainable_projection; /* 1: backward gives the gradient of the projection */

    /* Constants of single feature maps. */
    double tau;         /* rfa: kernel exp(q.k / tau^2); 0: 1 */
    double psi;         /* favor++, favor#: frozen mean of |x + y|^2; < 0 (init): from each sequence */
    fv_rmf_law rmf_law; /* rmf-*: law of the degrees, and its parameter, 0: the law's default */
    double rmf_parameter;
    int64_t rmf_max_degree; /* rmf-*: larger degrees are not drawn; 0: no limit */
    int64_t rmf_rows;       /* rmf-*: rows of rmf_signs a head; 0: enough for what is drawn */
    int64_t features_trig;  /* favor-hybrid: rows m2 of projection_trig; 0: features */
    int64_t angle_rows;     /* favor-hybrid: rows n that estimate the angle; 0: 4 */

    /* Patterns and baselines; 0 (window: < 0, init): the kind's default. */
    int64_t window;  /* W: keys with |i-j| <= W */
    int64_t stride;  /* S of strided */
    int64_t block;   /* tokens a block: fixed, bigbird */
    int64_t globals; /* first n tokens (longformer, bigbird); last n of every block (fixed); < 0: default */
    int64_t random_blocks;   /* bigbird: random key blocks a query block; < 0: default */
    int64_t buckets, rounds; /* reformer: hash buckets (even) and rounds */
    int64_t projected;       /* linformer: k, rows of E and F */
    int64_t max_tokens;      /* the longest sequence: linformer: N, columns of E and F; cosformer: M */
    uint64_t pattern_seed;   /* bigbird: seed of the random blocks */

    /* Around attention. */
    int gate;  /* RFA-GATE: S_t = g_t S_(t-1) + (1 - g_t) phi(k_t) v_t; causal, kernelized */
    int decay; /* S_t = gamma_h S_(t-1) + phi(k_t) v_t; causal, kernelized */
    fv_position_bias position_bias;
    int64_t position_span; /* N (or R of fastrpb-2d): weights for offsets -(N-1) .. N-1 */
    int64_t
        position_fft; /* bias kernel, kernelized kinds: tokens from which it goes by Fourier transforms, whatever
                            * the weights; 0: as measured, where weights are of similar size */
    int64_t position_skip; /* first n tokens of every sequence (BOS, CLS) give and get no y += T v */
    int ppsbn;             /* Macformer's pre- and post-scaling */
    int rotary;            /* rotary positions on q and k */
    double rotary_base;    /* 0: 10000 */
} fv_attention_options;

FV_API void fv_attention_options_init(fv_attention_options *options);

/* Sets a field by the name that options and configs give it ("random_blocks", "position_bias") from text:
 * "32", "true", "kernel"; two fields where a word takes a number ("denominator" from "sign:1e-3", "rmf_law" from
 * "poisson:1"). NULL, or what was expected instead: "a whole number". */
FV_API const char *fv_attention_options_set(fv_attention_options *options, const char *name,
                                            const char *text);
FV_API const char *fv_attention_option_name(int index); /* all such names; NULL past the last */

typedef struct fv_attention fv_attention;

/* Checks the options and builds the operator. FV_ERR_USAGE names the offending option. */
FV_API FV_NODISCARD fv_status fv_attention_create(fv_attention **op, fv_context *ctx,
                                                  const fv_attention_options *options);
FV_API void fv_attention_destroy(fv_attention *op);

/* The options with every default resolved; projection_rows m and feature count r of the kind (0 if it
 * has none); drawn_floats: floats of all its random inputs (0: it takes none), see fv_attention_draw. */
typedef struct fv_attention_info {
    fv_attention_options options;
    int64_t projection_rows;
    int64_t feature_count;
    int64_t drawn_floats;
    int can_stream;  /* causal: step and state work */
    int can_recall;  /* bidirectional: a state of keys works, see fv_attention_io.state */
    int in_place_ok; /* backward may replace inputs by gradients (see fv_attention_grad) */
} fv_attention_info;
FV_API void fv_attention_get_info(const fv_attention *op, fv_attention_info *info);

/* What an operator may take beside q, k and v. Which of them, and their shapes, depends on kind and options. */
typedef enum fv_input {
    FV_INPUT_PROJECTION = 0,  /* [H][m][d] rows omega */
    FV_INPUT_PROJECTION_TRIG, /* [H][m2][d] favor-hybrid's second estimator */
    FV_INPUT_ANGLE_ROWS,      /* [H][n][d] favor-hybrid's rows tau */
    FV_INPUT_RMF_DEGREES,     /* [H][D] whole numbers */
    FV_INPUT_RMF_SIGNS,       /* [H][rmf_rows][d] +-1, feature by feature, degree rows each */
    FV_INPUT_LSH_ROTATIONS,   /* [rounds][d][buckets/2] */
    FV_INPUT_PSI_DIAGONAL,    /* [H][d] favor#'s frozen diagonal; optional when bidirectional */
    FV_INPUT_GATE,            /* [Tk][H] in (0,1) */
    FV_INPUT_DECAY,           /* [H] in (0,1] */
    FV_INPUT_POSITION_BIAS,   /* [H][2N-1] weight of offset i-j at i-j+N-1 */
    FV_INPUT_BANDWIDTH,       /* [H][d] rfa's sigma; optional: 1 */
    FV_INPUT_MAP_WEIGHT,      /* [H][d][d] hedgehog: y = W x; optional: the identity */
    FV_INPUT_REBASED_GAMMA,   /* [H][d] optional: 1 */
    FV_INPUT_REBASED_BETA,    /* [H][d] optional: 0 */
    FV_INPUT_PPSBN_GAMMA,     /* [H] optional: 1 */
    FV_INPUT_PPSBN_BETA,      /* [H][dv] optional: 1 */
    FV_INPUT_LINFORMER_E,     /* [H][k][N] */
    FV_INPUT_LINFORMER_F,     /* [H][k][N] */
    FV_INPUT_COUNT
} fv_input;

typedef enum fv_input_role {
    FV_ROLE_DRAWN,   /* random numbers of fv_attention_draw */
    FV_ROLE_TRAINED, /* learned numbers */
    FV_ROLE_TOKEN,   /* one row a key token, computed by the layer; has a gradient */
    FV_ROLE_FROZEN   /* measured once, then constant */
} fv_input_role;

typedef struct fv_input_info {
    const char *name; /* as `favor apply` calls it */
    fv_input_role role;
    int rank;
    int64_t shape[3]; /* -1: key tokens of the call */
    int64_t floats;   /* of the whole tensor; of one token for FV_ROLE_TOKEN */
    int heads_first;  /* shape[0] is H: a file may hold one head's tensor for all */
    int optional;     /* NULL in io stands for the default value */
    int has_gradient; /* grad.d_input may be given */
} fv_input_info;

FV_API const char *fv_input_name(fv_input which);
/* 1 and *info when the operator takes that input, else 0. */
FV_API int fv_attention_input(const fv_attention *op, fv_input which, fv_input_info *info);

/* Where sequences begin: sequence s holds query tokens offsets_q[s] .. offsets_q[s+1]-1. Offsets begin
 * at 0 and never decrease. offsets_k NULL: the same as offsets_q. Causal: equal lengths. */
typedef struct fv_layout {
    int64_t sequences;
    const int64_t *offsets_q; /* [sequences+1] */
    const int64_t *offsets_k; /* [sequences+1] or NULL */
} fv_layout;

/* Three memories, all the caller's, 64-byte aligned, in bytes:
 * state: what one stream remembers between calls (per sequence; a flat value without pointers:
 *        copy it with memcpy, keep it, send it); saved: what forward leaves for backward;
 * scratch: what one call needs and forgets (already for all of the context's threads). */
typedef struct fv_memory {
    size_t state, saved, scratch;
} fv_memory;

FV_API FV_NODISCARD fv_status fv_attention_measure(const fv_attention *op, const fv_layout *layout,
                                                   fv_memory *need);

/* Tensors of one call. Strides are floats from token to token; 0: dense. */
typedef struct fv_attention_io {
    const float *q, *k, *v;
    float *y;                           /* overwritten by forward; read by backward of kinds other than the
                              * kernelized ones */
    const float *input[FV_INPUT_COUNT]; /* dense; NULL where the operator takes none (or its default) */
    int64_t q_stride, k_stride, v_stride, y_stride;
    void *state; /* [sequences] states, each need.state bytes; continued and updated by forward. NULL: start
                  * empty, keep nothing. Causal operators (can_stream): the tokens so far. Bidirectional ones
                  * (can_recall): the keys so far; those of the call are added, then its queries see all of them.
                  * Without keys a call only reads, at a cost that does not depend on how many keys the state of a
                  * kernelized kind holds; without queries it only adds. So cross attention meets its source once. */
    int64_t first_query; /* bidirectional with a state: position of the first query of every sequence, where
                          * positions count; keys go on behind those of the state */
} fv_attention_io;

/* Draws the random inputs of the operator into drawn [info.drawn_floats], one behind the other in the order
 * of fv_input: a pure function of (seed, draw). draw counts redraws: draw n of seed s is the same on every
 * machine. Heads are independent. */
FV_API FV_NODISCARD fv_status fv_attention_draw(const fv_attention *op, uint64_t seed, uint64_t draw,
                                                float *drawn);
/* Points io->input at the parts of `drawn` (NULL: leaves io alone). */
FV_API void fv_attention_bind_drawn(const fv_attention *op, const float *drawn, fv_attention_io *io);

/* y = attention(q, k, v). saved may be NULL when no backward follows. No output depends on a later
 * token of a causal sequence, nor on another sequence, bitwise. Outputs may not alias inputs. */
FV_API FV_NODISCARD fv_status fv_attention_forward(const fv_attention *op, const fv_layout *layout,
                                                   const fv_attention_io *io, void *saved, void *scratch);

/* Gradients. dq, dk, dv, d_input are ADDED to; NULL: not wanted. Strides as the inputs'.
 * In place (info.in_place_ok): set in_place and dq == q, dk == k, dv == v; the gradients then REPLACE the
 * inputs, and dy may be the very array y. */
typedef struct fv_attention_grad {
    const float *dy; /* [Tq][H][dv], stride of y */
    float *dq, *dk, *dv;
    float *d_input[FV_INPUT_COUNT]; /* shaped as io.input; NULL where the input has no gradient */
    int in_place;
} fv_attention_grad;

FV_API FV_NODISCARD fv_status fv_attention_backward(const fv_attention *op, const fv_layout *layout,
                                                    const fv_attention_io *io, const fv_attention_grad *grad,
                                                    const void *saved, void *scratch);

/* ---- streaming: the state as a value ------------------------------------------------------------ */

/* What a state of need.state bytes holds, for saving it in other formats. Pointers into the state.
 * True sums are S * 2^exponent, z * 2^exponent. Kinds that keep keys (exact, sparse patterns) use keys and values:
 * token t stands in row t of every head, and from `pinned` on, where there are more rows than that (window, longformer), in row
 * pinned + (t - pinned) % (capacity - pinned), until a later one takes its place. */
typedef struct fv_state_view {
    int64_t tokens;   /* t, tokens seen */
    int64_t features; /* r */
    float *S;         /* [H][r][dv] */
    float *z;         /* [H][r] */
    float *exponent;  /* [H][r], integers */
    double *decayed;  /* [H]: log2 of the factor the state's tokens put on whatever came before them */
    float *keys;   /* [G][capacity][d], first min(tokens, capacity) rows valid; NULL for kernelized kinds */
    float *values; /* [G][capacity][dv] */
    int64_t capacity; /* rows */
    int64_t pinned;   /* rows of the first tokens; = capacity: every token is kept, no more fit */
} fv_state_view;

/* Bytes of a state that can hold `capacity` tokens. Kinds whose state has a fixed size (kernelized ones, window,
 * longformer) ignore capacity. FV_ERR_USAGE says why an operator that can neither stream nor recall has none. */
FV_API FV_NODISCARD fv_status fv_attention_state_bytes(const fv_attention *op, int64_t capacity,
                                                       size_t *bytes);
/* Makes `state` the empty one. */
FV_API FV_NODISCARD fv_status fv_attention_state_init(const fv_attention *op, int64_t capacity, void *state);
FV_API FV_NODISCARD fv_status fv_attention_state_view(const fv_attention *op, void *state,
                                                      fv_state_view *view);
FV_API FV_NODISCARD fv_status fv_attention_state_set_tokens(const fv_attention *op, void *state,
                                                            int64_t tokens);
/* dst = the state of a's tokens followed by b's. dst may be a or b. The empty state is neutral,
 * exactly. Kinds that keep keys: dst was made by _init and, where every key is kept, has room for both, else
 * FV_ERR_RESOURCE. */
FV_API FV_NODISCARD fv_status fv_attention_state_merge(const fv_attention *op, void *dst, const void *a,
                                                       const void *b);

/* One token for each of `streams` streams: q [streams][H][d], k, v, y alike; states [streams] of
 * `state_bytes` each. Cost and memory do not depend on the tokens seen where the state has a fixed size. scratch
 * as measured for a layout of `streams` sequences of one token. */
FV_API FV_NODISCARD fv_status fv_attention_step(const fv_attention *op, int64_t streams,
                                                const fv_attention_io *io, void *states, size_t state_bytes,
                                                void *scratch);

/* The same with states that stand anywhere: states[s] is that of stream s, no two the same. */
FV_API FV_NODISCARD fv_status fv_attention_step_each(const fv_attention *op, int64_t streams,
                                                     const fv_attention_io *io, void *const *states,
                                                     void *scratch);

/* ---- the implied attention matrix ---------------------------------------------------------------- */

/* Rows of the normalised attention matrix without ever forming it. rows [n] are query tokens; weights
 * [H][n][Tk], columns outside the row's sequence (or in its future) are 0. io needs q, k, projection. */
FV_API FV_NODISCARD fv_status fv_attention_weights(const fv_attention *op, const fv_layout *layout,
                                                   const fv_attention_io *io, const int64_t *rows, int64_t n,
                                                   float *weights, void *scratch);

/* The `top` largest entries of one row of head h, zeros left out: key tokens and weights in falling order (ties: lower
 * token first); *found <= top of them. work [Tk] floats. */
FV_API FV_NODISCARD fv_status fv_attention_top(const fv_attention *op, const fv_layout *layout,
                                               const fv_attention_io *io, int64_t head, int64_t row,
                                               int64_t top, int64_t *tokens, float *weights, int64_t *found,
                                               float *work, void *scratch);

/* ---- the table of kinds --------------------------------------------------------------------------- */

typedef struct fv_attention_kind {
    const char *name, *summary, *paper;
    int kernelized; /* linear in L; has a feature map */
    int can_be_causal, can_stream;
    int generalized;            /* takes epsilon; projection none by default; scale 1 by default */
    const char *why_not_causal; /* the reason, where can_be_causal is 0 */
    const char *why_not_stream; /* the reason, where can_stream is 0 */
} fv_attention_kind;

FV_API int fv_attention_kind_count(void);
FV_API const fv_attention_kind *fv_attention_kind_at(int index);          /* NULL out of range */
FV_API const fv_attention_kind *fv_attention_kind_find(const char *name); /* NULL: unknown */

/* 1 when the kind takes the option of that name (with the word `with`, where not NULL); when it can take an
 * input, under whatever options. */
FV_API int fv_attention_kind_takes(const fv_attention_kind *kind, const char *option, const char *with);
FV_API int fv_attention_kind_input(const fv_attention_kind *kind, fv_input which);

/* The kind that `auto` stands for where exact attention is slower. */
#define FV_ATTENTION_KERNELIZED "favor+"

typedef struct fv_attention_choice {
    const char *kind;  /* "exact" or FV_ATTENTION_KERNELIZED */
    int64_t crossover; /* tokens from which on the kernelized kind is the faster one; 0: not measured */
} fv_attention_choice;

/* Chooses between exact and kernelized attention for sequences of `length` tokens by timing both on this machine, with the threads
 * and the number format of the context: some calls at lengths of 64 to 4096 tokens, fractions of a second in all. options as for
 * an operator, their kind is not read; backward: forward and backward count, else forward. Where exact attention does not take the
 * options (random projections, gates), the kernelized kind is chosen and nothing timed. The choice depends on the hour near the
 * crossover: keep it with what was made by it. */
FV_API FV_NODISCARD fv_status fv_attention_choose(fv_context *ctx, const fv_attention_options *options,
                                                  int64_t length, int backward, fv_attention_choice *choice);

/* Kernels that are power series f(q.k scale) (rmf-*): the radius of convergence of f (HUGE_VAL for all others);
 * an upper bound on |q.k scale| over the call, max |q| max |k| scale a head and sequence: where it passes the
 * radius there may be pairs for which no kernel is approximated, though every number stays finite; and the part
 * of f(t) that lies beyond the largest degree drawn, sum a_n |t|^n (0 without rmf_max_degree). */
FV_API double fv_attention_radius(const fv_attention *op);
FV_API FV_NODISCARD fv_status fv_attention_reach(const fv_attention *op, const fv_layout *layout,
                                                 const fv_attention_io *io, double *reach);
FV_API double fv_attention_truncation(const fv_attention *op, double t);

/* FLOP of one call by the counting rule: kernelized 8 L r d per head forward, exact 4 Lq Lk d (causal half),
 * identity 0; backward counts twice the forward. Recomputation is not counted. */
FV_API double fv_attention_flop(const fv_attention *op, const fv_layout *layout, int backward);

#ifdef __cplusplus
}
#endif
#endif
