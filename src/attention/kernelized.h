/* attention/kernelized.h: kernelized attention, written once for all feature maps; shared by kernelized*.c.
 *
 *     y_i = sum_j (phi(q_i).phi(k_j)) v_j / sum_j phi(q_i).phi(k_j)
 *
 * through the state S = sum_j phi(k_j) v_j^T [r][dv] and z = sum_j phi(k_j) [r] (Katharopoulos et al. 2020;
 * Choromanski et al. 2021, section 2.2). Time O(L r (d + dv)), memory O(r dv) a head beyond the tensors.
 *
 * Exponents
 * ---------
 * Exponential features overflow, so they are kept as phi 2^e_f with one integer exponent per feature, and the
 * state as S_f 2^e_f, z_f 2^e_f. Shifting by a power of two is exact: the exponents steer range, never
 * rounding, so no output depends on them, or on a later token through them, in any bit. A chunk of keys is
 * taken relative to E_f = max(e_f of the state, ceil(log2-feature f of the chunk's first key)), which every
 * query of the chunk may see. A later key of the chunk above 2^LIMIT at any feature ends the chunk before it
 * and begins the next one. Exponents are floats of any size; where two are near enough to matter for each
 * other, their difference is exact. Queries use 2^(l_f + E_f - top), top the row's maximum, so their largest entry is
 * 1; since z_f is at least about 1/2 wherever a key was seen, the normaliser of a row with a visible key is
 * at least about 1/2: it neither overflows nor vanishes, whatever the norms. Plain maps keep exponent 0 as long
 * as their numbers are moderate, and are treated alike from there on (kernelized_wide.c).
 *
 * Gate and decay
 * --------------
 * S_t = g_t S_{t-1} + (1 - g_t) phi(k_t) v_t^T (RFA-GATE, Peng et al. 2021), S_t = gamma S_{t-1} + phi(k_t)
 * v_t^T (RetNet, Sun et al. 2023), z alike; both: the factors multiply. One code path, kernelized_decay.c.
 *
 * Causal chunks (C tokens): with A = tril(q_hat psi^T), num = q_hat S + A V, den = q_hat z + A 1, then
 * S += psi^T V. A is built in strips that skip what lies above the diagonal.
 */
#ifndef FV_KERNELIZED_H
#define FV_KERNELIZED_H

#include "attention/mechanism.h"
#include "attention/shared_heads.h"

enum {
    FV_KZ_CHUNK = 64, /* default tokens a causal chunk; equal to 32 and better than 96, 128 at d 64, r 256 */
    FV_KZ_BIAS_TILE = 256,  /* tokens a tile with position bias */
    FV_KZ_TILE = 128,       /* tokens a bidirectional tile */
    FV_KZ_CHUNK_MAX = 1024, /* larger --chunk values are taken as this */
    FV_KZ_STRIP = 16,       /* rows of A computed together */
    FV_KZ_SEGMENT = 16,     /* chunks between saved states; also the ring of the backward pass */
    FV_KZ_KEEP = 256,       /* bidirectional sequences shorter than this compute their state again */
    FV_KZ_LIMIT = 48, /* log2 by which a key may exceed the exponents of its chunk; leaves 2^60 for values */
};

/* The state of one head while it is worked on. */
typedef struct fv_kz_state {
    float *S, *z, *e; /* [r][dv], [r], [r] */
    int64_t tokens;
    double decayed; /* log2 of the product of its tokens' factors */
} fv_kz_state;

/* Gate and decay of the chunk in hand (kernelized_decay.c); arrays are there only where the operator decays. */
typedef struct fv_kz_fade {
    double first;     /* log2 factor of the chunk's first token: the entering state takes it */
    double *lambda;   /* [C] log2 of the product of the factors of tokens 1 .. t of the chunk; 0 at t = 0 */
    float *input;     /* [C] b_t: 1 - g_t, or 1 */
    double *power;    /* [C] log2 of the factor on the features of key i, apart from b_i: -lambda_i */
    float *whole;     /* [C] the part of it that exponential features take as exponents, in whole steps */
    float *weight;    /* [C] what remains of b_i 2^power_i; 0 past the chunk's end */
    float *shrink;    /* [C] 2^lambda_t, on all of row t */
    float *shift;     /* [r] exponents of the state before and after it entered: e - E */
    float *seen;      /* [C] backward: row t against the entering state */
    float *left;      /* [C] key i against the gradient of the leaving state */
    float *pull;      /* [C] key i against all that sees it: dL/dln b_i; dL/db_i where b_i is 0 */
    float *pairs;     /* [C] pairs inside the chunk that straddle a token */
    float *dots;      /* [r] */
    double carry;     /* log2 factor between w->grad and the state that leaves the chunk before */
    double sum_decay; /* dL/dgamma so far */
} fv_kz_fade;

/* Position bias kernel (kernelized_bias.c); arrays are there only where the operator has it. */
typedef struct fv_kz_bias {
    float *table;       /* [2N-1] a head's weights in base 2, keys of a row in order */
    float *tile;        /* [C][C] T of the tile in hand */
    float *largest;     /* [C] log2 by which it is larger */
    float *scale;       /* [C] M: sums so far are relative to 2^M */
    float *fresh, *old; /* [C] factors of the tile and of the sums so far */
    float *grad;        /* [2N-1] backward: gradient of the table */
    float *diagonals;   /* [2C] */
    bool wanted;        /* somebody wants it */
} fv_kz_bias;

/* Plain maps with exponents (kernelized_wide.c); arrays are there only for plain maps. */
typedef struct fv_kz_wide {
    bool on;
    int64_t from;    /* first token of the sequence at which it was; FV_KZ_NEVER */
    float *x;        /* [C][d] rows times 2^-exponent */
    float *exponent; /* [C] */
    float *degree;   /* [r] the map's */
} fv_kz_wide;
#define FV_KZ_NEVER INT64_MAX

/* The same by transforms (kernelized_fft.h); arrays are there only where a sequence of the call is long enough. */
typedef struct fv_kz_fft_work {
    float *scale, *den, *bias; /* [tokens] of all rows: M, the sums of weights, the queries' bias */
    float *x, *x2;             /* [size][columns] transforms; x2: backward */
    float *phi, *psi;          /* [features][rows] of keys and queries */
    float *v, *y;              /* [rows][dv] finite values; sums of a block of features */
    float *poison;             /* [dv] */
    float *dphi, *dpsi;        /* backward: gradients of phi, psi */
    float *g, *rho;            /* backward: [tokens][dv] and [tokens] of all rows */
    float *clean, *one;        /* backward: [rows][dv] finite g; [rows] of 1 */
} fv_kz_fft_work;

/* Memory of one worker, carved from scratch. C rows below means the call's chunk or tile. */
typedef struct fv_kz_work {
    float *q, *k;      /* [C][r] features of queries and keys */
    float *c, *gc;     /* [C][r] coefficients of features that have them, and their gradient */
    float *t, *tmp;    /* [C][r], the map's tmp_floats */
    float *dump;       /* [C][d]: where gradients go that nobody wants */
    float *statistics; /* the map's, of the sequence and head in hand */
    float *product;    /* fv_map_work_floats */
    float *a, *p;      /* [C][C] */
    float *g;          /* [C][dv] */
    float *kt;         /* [r][C] keys' features transposed */
    float *v;          /* [C][dv]: finite values (forward), [dv][C]: values transposed (backward) */
    float *bias, *top; /* [C] */
    float *den, *inv, *pass, *rho, *sums; /* [C] */
    float *ones;                          /* [max(C, r)] of 1 */
    int64_t *visible;                     /* [C]: 1, 2, ... */
    float *factor;                        /* [r] */
    fv_kz_bias rpe;                       /* position bias */
    fv_kz_fft_work fft;                   /* position bias by transforms */
    fv_kz_fade fade;                      /* gate and decay */
    fv_kz_wide wide;                      /* plain maps */
    fv_kz_state state; /* running state; state.e are the exponents E of the chunk in hand */
    fv_kz_state own;   /* where it stands unless it is worked on in a stream's */
    fv_kz_state grad;  /* its gradient (backward), relative to grad.e */
    float *ring;       /* backward: FV_KZ_SEGMENT entries, see kernelized_backward.c */
} fv_kz_work;

/* In front of a stream's state; see kernelized_stream.c. */
typedef struct fv_kz_state_header {
    int64_t tokens;
    int64_t reserved[7];
} fv_kz_state_header;

/* One call: constants, shared by all workers. */
typedef struct fv_kz_call {
    const fv_attention *op;
    const fv_kernels *kr;
    const fv_layout *layout;
    const fv_attention_io *io;
    const fv_attention_grad *grad;
    int64_t H, G, d, dv, r, C;
    int64_t ldq, ldk, ldv, ldy; /* floats from token to token */
    float *prepared;            /* [H][prepared_floats]: the map's inputs as it wants them */
    int64_t prepared_floats, statistics_floats;
    fv_map_params map;           /* what all heads share */
    bool plain;                  /* the map is: features at their true scale */
    bool biased;                 /* position bias kernel */
    bool decaying;               /* gate or decay */
    bool fade_gradient;          /* backward: somebody wants the gradient of gate or decay */
    bool by_head;                /* backward: one task a key head, for gradients of inputs */
    struct fv_kz_fft *fft;       /* position bias by transforms; NULL: all in tiles */
    struct fv_kz_window *window; /* several threads on one head; NULL: one */
    fv_shared_heads shared;      /* the heads that have several */
    int64_t *steps;              /* [sequences+1] 0, 1, 2 ...: the layout of a step; first in scratch */
    int64_t *slots;              /* [sequences+1]: first saved state of each sequence */
    float *saved;                /* states, fv_kz_state_floats each, [slot][H] */
    int64_t *wide_from; /* [sequences][H] in front of them, for plain maps that may turn wide: wide.from */
    char *work;         /* [threads] blocks of work_bytes */
    size_t work_bytes;
} fv_kz_call;

/* One head of one sequence: where its rows are. */
typedef struct fv_kz_head {
    fv_map_params map;
    const float *q, *k, *v; /* first token, this head */
    float *y;
    const float *dy;
    float *dq, *dk, *dv;
    int64_t nq, nk;
    int64_t first_q,
        first_k; /* positions of the first query and key: what came before in a continued state */
    int64_t head, sequence;
    const float *gate, *decay; /* first token's gate, H floats from token to token; gamma; NULL: not taken */
    float *d_gate;
} fv_kz_head;

/* Rows that are wanted soon. Those of one head lie far apart, where the processor does not foresee them. They are asked for a few at a
 * time with work in between: as many as a tile has would fill its list of misses, and it would wait. */
typedef struct fv_kz_ahead_rows {
    const float *x;
    int64_t ld, width;
} fv_kz_ahead_rows;

typedef struct fv_kz_ahead {
    const fv_kernels *kr;
    fv_kz_ahead_rows rows[2];
    int64_t n; /* of each; below 1: none */
} fv_kz_ahead;

enum { FV_KZ_AHEAD = 4 };

/* ---- kernelized.c: memory and pieces; kernelized_features.c: features of keys and queries ---- */

/* Carves the shared and per-worker parts of scratch; with a measuring arena it only counts. */
void fv_kz_carve(fv_kz_call *call, fv_arena *arena, bool backward);
fv_kz_work fv_kz_worker(const fv_kz_call *call, int worker, bool backward);
/* tokenwise: sequences are single tokens, for which finding the blocks of a Hadamard projection would not pay. */
void fv_kz_begin(fv_kz_call *call, const fv_attention *op, const fv_layout *layout, bool tokenwise,
                 const fv_attention_io *io, const fv_attention_grad *grad, void *saved, void *scratch);
fv_kz_head fv_kz_head_of(const fv_kz_call *call, int64_t sequence, int64_t head);
/* Rows [begin, begin+n) of the head's queries or keys. */
fv_rows fv_kz_rows(const fv_kz_call *call, const fv_kz_head *h, bool key, int64_t begin, int64_t n);
/* The worker takes the head on: lends its map room, and takes the statistics of its sequence for maps that have some. */
void fv_kz_take_on(const fv_kz_call *call, fv_kz_head *h, fv_kz_work *w);
/* Room for one. */
fv_kz_state fv_kz_state_push(const fv_kz_call *call, fv_arena *arena);
int64_t fv_kz_state_floats(const fv_kz_call *call);
void fv_kz_state_save(const fv_kz_call *call, const fv_kz_state *state, float *to);
void fv_kz_state_load(const fv_kz_call *call, fv_kz_state *state, const float *from, int64_t tokens);
void fv_kz_state_clear(const fv_kz_call *call, fv_kz_state *state);
/* The first n features. */
void fv_kz_state_copy(const fv_kz_call *call, const fv_kz_state *from, int64_t n, fv_kz_state *to);
/* Whether the features in hand are logarithms, and whether they have coefficients. */
static inline bool fv_kz_logs(const fv_kz_call *call, const fv_kz_work *w)
{
    return !call->plain || w->wide.on;
}
static inline bool fv_kz_has_coefficients(const fv_kz_call *call, const fv_kz_work *w)
{
    return call->op->mechanism->map->coefficients || w->wide.on;
}
/* Saved states of a sequence of n keys. */
int64_t fv_kz_slot_count(const fv_kz_call *call, int64_t n);

/* Raises the state's exponents to the chunk's and leaves features of keys [begin, begin+n) in w->k. Returns
 * how many of the n keys belong to this chunk (>= 1); features of the others are 0. */
int64_t fv_kz_keys(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n);
/* Features of n keys in w->k against the exponents at hand; returns the largest log2 (0 for plain maps). */
float fv_kz_key_features(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                         int64_t n);
/* Which keys stay: zeroes features of the first of n keys above 2^LIMIT, and of all after it. */
int64_t fv_kz_cut(const fv_kz_call *call, fv_kz_work *w, int64_t n);
/* Multiplies row f of S and z_f by factor[f], f < n. */
void fv_kz_rescale(const fv_kz_call *call, fv_kz_state *state, int64_t n, const float *factor);
/* Features of queries [begin, begin+n) into w->q against the state's exponents; w->top and w->bias hold their
 * scale. */
void fv_kz_queries(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n);
/* The same, and w->den = q z; returns how many rows, from the first, are moderate (kernelized_wide.c). */
int64_t fv_kz_query_sums(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                         int64_t n);
/* S += phi^T x, z += phi^T w over n rows with r features phi (rows of call->r); w NULL: 1. The bits of an element depend on those of
 * its feature alone. */
void fv_kz_state_add(const fv_kz_call *call, fv_kz_state *state, int64_t r, int64_t n, const float *phi,
                     const float *w, const float *x, int64_t ldx);
/* S += k^T v, z += sum k with the first n keys in w->k; then z_f is brought back to [1, 2) where it grew large. */
void fv_kz_absorb(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n);
/* What is read after this chunk or tile: keys and values, or queries (and gradients of outputs), from token `next` on; below 0: nothing. */
fv_kz_ahead fv_kz_ahead_of(const fv_kz_call *call, const fv_kz_head *h, bool key, int64_t next);
/* Brings n of these rows on their way from row `first` on. */
void fv_kz_fetch(const fv_kz_ahead *ahead, int64_t first, int64_t n);
/* w->inv = 1 / guarded normaliser, from w->den; w->pass = derivative of the guarded one by the plain one. */
void fv_kz_normalise(const fv_kz_call *call, fv_kz_work *w, int64_t n);
/* w->a = lower triangle of q k^T (0 above), row sums added to w->den. */
void fv_kz_scores(const fv_kz_call *call, fv_kz_work *w, int64_t n);

/* ---- kernelized_exponents.c ---- */

/* The exponent for a feature of this logarithm: a finite whole number not below it; `other` for a NaN. */
float fv_kz_exponent(float log2_feature, float other);
/* Raises the exponents of a state of n features to those of the chunk's first key, whose log2-features are u + bias. factor [n]: room. */
void fv_kz_raise(const fv_kz_call *call, fv_kz_state *state, int64_t n, const float *u, float bias,
                 float *factor);
/* Whether states are lowered: signed sums may cancel and say nothing about range; keys exceed their exponents by 2^LIMIT at most. */
static inline bool fv_kz_lowers(const fv_kz_call *call, const fv_kz_work *w)
{
    return fv_kz_logs(call, w) && !call->op->mechanism->map->mixed;
}
/* Brings z_f that grew beyond 2^20 back to [1/2, 1), f < n. factor [n]: room. */
void fv_kz_lower(const fv_kz_call *call, fv_kz_state *state, int64_t n, float *factor);
/* Multiplies the state by 2^lambda, and brings z_f to [1/2, 1]; of maps of both signs, whose z_f may cancel, the factor is what
 * exponents take: they stay near the largest key's. */
void fv_kz_settle(const fv_kz_call *call, fv_kz_work *w, double lambda);
/* Whether no key had the feature with these sums, S [dv] and z: its exponent says nothing. */
bool fv_kz_row_is_empty(const fv_kernels *kr, int64_t dv, const float *S, float z);
/* x [n][r], log2-features of queries, become 2^(x + E - top), top the largest of each row: w->top [n]. Fetches what is ahead (NULL:
 * nothing). */
void fv_kz_query_powers(const fv_kz_call *call, fv_kz_work *w, int64_t n, float *x, const fv_kz_ahead *ahead);

/* ---- kernelized_wide.c: plain maps with exponents ---- */

void fv_kz_wide_carve(const fv_kz_call *call, fv_arena *arena, fv_kz_wide *wide);
/* The map's features of rows: u, c and bias as fv_feature_map.logits has them, for whatever map is in hand. inverse [n][r]
 * (wide features; NULL: not wanted): what takes dL/dc to dL/dphi. */
void fv_kz_logits(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_rows *rows, float *u,
                  float *c, float *inverse, float *bias);
/* Once a head's state is there, before its first token: whether features are wide from the start. */
void fv_kz_start(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w);
/* The head's features are wide, its state has exponents already. */
void fv_kz_wide_on(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w);
/* From token `begin` on the head's features are wide; the state is brought along. */
void fv_kz_begin_wide(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin);
/* Plain features in w->k of keys: how many of them, from the first, are moderate; those of the others become 0. */
int64_t fv_kz_moderate_keys(const fv_kz_call *call, fv_kz_work *w, const fv_rows *rows);
/* Rows in w->q and their normalisers in w->den: how many, from the first, are moderate; all where features are logarithms. */
int64_t fv_kz_moderate_rows(const fv_kz_call *call, fv_kz_work *w, int64_t n);
/* Takes w->t = dL/dpsi of wide rows to dx and the inputs' gradients. */
void fv_kz_wide_back(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_rows *rows,
                     float *dx);

/* ---- kernelized_forward.c ---- */

/* Tokens of the chunk or tile that begins at token `begin` and ends before `end`. */
int64_t fv_kz_chunk_tokens(const fv_kz_call *call, int64_t begin, int64_t end);
/* Keeps the state that enters token t for backward, if t stands between segments. */
void fv_kz_save_between(const fv_kz_call *call, const fv_kz_head *h, int64_t t, const fv_kz_state *state);
/* y rows of n causal tokens whose keys' features, of which `taken` count, are in w->k; returns how many of these rows, from the first,
 * are moderate: only they hold. */
int64_t fv_kz_chunk_outputs(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                            int64_t n, int64_t taken);
/* y rows [begin, begin+n) of queries that see all of the state and nothing else, if they are moderate; returns how many are, from the
 * first. */
int64_t fv_kz_read_rows(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n);
/* The same with wide features where they have to be. */
void fv_kz_read(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n);

/* ---- kernelized_stream.c ---- */

/* A head's part of a stream's state, where it stands. */
fv_kz_state fv_kz_state_at(const fv_kz_call *call, const fv_state_view *view, int64_t head);

/* ---- kernelized_decay.c: gate and decay ---- */

/* x [n][r] = exp2(x + bias + whole - state.e) of keys with fade.power and fade.input, 0 in rows without input; sets
 * fade.whole and fade.weight. Returns a bound of the largest log2 once they are weighted. */
double fv_kz_fade_exp2(const fv_kz_call *call, fv_kz_work *w, int64_t n, float *x);
/* log2 of the factor that token t puts on the state before it; *b its input weight (NULL: not wanted). NaN for a gate or decay
 * outside [0, 1]. */
double fv_kz_fade_of(const fv_kz_call *call, const fv_kz_head *h, int64_t t, float *b);
void fv_kz_fade_carve(const fv_kz_call *call, fv_arena *arena, fv_kz_fade *fade, bool backward);
/* Fills w->fade for tokens [begin, begin+n); returns how many belong to one chunk (>= 1). */
int64_t fv_kz_fade_chunk(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                         int64_t n);
/* fv_kz_keys where the operator decays: log2-features stand in w->k and w->bias; the state takes the first token's factor. */
int64_t fv_kz_fade_keys(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n);
/* The state of the chunk's n tokens takes the rest of their factors; z_f comes back to [1/2, 1]. */
void fv_kz_fade_leave(const fv_kz_call *call, fv_kz_work *w, int64_t n);
/* state = before, with the first token's factor, at exponents E = e - shift; before->e are E. */
void fv_kz_fade_enter(const fv_kz_call *call, fv_kz_work *w, const fv_kz_state *before, const float *shift);
/* fade.pull of the chunk's keys that gates of 1 keep out, from w->t: dL/db_i. */
void fv_kz_fade_unseen(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n);
/* Adds the gradients of the chunk's gates, and that of the decay to fade.sum_decay, from the sums that backward left in w->fade.
 * `before`, `shift` as above; w->grad is that of the state that entered, `through` = <state, its gradient on leaving>. */
void fv_kz_fade_gradient(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n,
                         const fv_kz_state *before, const float *shift, double through);
/* <S, G> + <z, c> */
double fv_kz_state_product(const fv_kz_call *call, fv_kz_work *w, const fv_kz_state *state,
                           const fv_kz_state *grad);

/* ---- kernelized_bias.c: position bias kernel ---- */

void fv_kz_bias_carve(const fv_kz_call *call, fv_arena *arena, fv_kz_bias *bias, bool backward);
/* Bytes forward leaves for backward. */
size_t fv_kz_bias_saved(const fv_kz_call *call, int64_t queries);
/* y, gradients, and the first keys that row `row` sees of its row of the matrix, of one head of a sequence. */
void fv_kz_bias_forward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w);
void fv_kz_bias_backward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w);
/* Raises a row's M to s where that is larger; returns the factor for sums so far. */
float fv_kz_bias_raise(float *M, float s);
void fv_kz_bias_row(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t row, float *out);

/* ---- kernelized_fft.c and its parts: the same by transforms ---- */

void fv_kz_fft_carve(fv_kz_call *call, fv_arena *arena, bool backward);
/* The memory of a worker; nothing where the call has no transforms. */
void fv_kz_fft_worker(const fv_kz_call *call, int worker, bool backward, fv_kz_fft_work *w);
/* Before the tasks of forward or backward: transforms the weights. Behind those of backward: adds their gradients. */
void fv_kz_fft_begin(fv_kz_call *call);
void fv_kz_fft_end(fv_kz_call *call);
/* Whether some pairs of the head go through transforms. */
bool fv_kz_fft_taken(const fv_kz_call *call, const fv_kz_head *h);
/* The first of the keys that a tile of rows from `row` on takes in tiles, where others go through transforms. */
int64_t fv_kz_fft_tiles_from(const fv_kz_call *call, const fv_kz_head *h, int64_t row);
/* Keeps w->rpe.scale, g and rho of n rows for fv_kz_fft_backward. */
void fv_kz_fft_park(const fv_kz_call *call, fv_kz_work *w, int64_t row, int64_t n);
/* All other pairs: add to the head's y and w->fft.den, relative to w->fft.scale; add to its gradients. */
void fv_kz_fft_forward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w);
void fv_kz_fft_backward(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w);

/* ---- kernelized_backward.c ---- */

/* Gradients of rows [begin, begin+n): dq, and w->q, g, rho, a and p of them, from the state that enters. */
void fv_kz_back_rows(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n);
/* Gradients of keys and values [begin, begin+n) whose features stand in w->k, from w->grad of the state that leaves, and of causal
 * ones from what back_rows left. */
void fv_kz_back_keys(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n);
/* Makes n features of a state's gradient relative to the exponents e, and to the state 2^fade before. Where they are 0 (nothing is seen
 * of that feature behind), the factor may be any but infinite. factor [n]: room. */
void fv_kz_move_gradient(const fv_kz_call *call, fv_kz_state *grad, int64_t n, const float *e, double fade,
                         float *factor);
/* Whether it ever has to be. */
bool fv_kz_gradient_moves(const fv_kz_call *call, const fv_kz_work *w);
/* x [n][r], log2-features of rows, become their powers as the products have them. */
void fv_kz_row_powers(const fv_kz_call *call, fv_kz_work *w, const fv_rows *rows, float *x);
/* Takes w->t = dL/dphi of rows whose features are phi [n][r] back to them and to inputs. */
void fv_kz_through_map(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_rows *rows,
                       const float *phi, float *dx);

/* ---- the row's functions ---- */
fv_status fv_kz_check(fv_attention *op);
void fv_kz_measure(const fv_attention *op, const fv_layout *layout, fv_memory *need);
fv_status fv_kz_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                        void *saved, void *scratch);
fv_status fv_kz_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                         const fv_attention_grad *grad, const void *saved, void *scratch);
fv_status fv_kz_weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                        const int64_t *rows, int64_t n, int64_t head, float *weights, int64_t row_stride,
                        void *scratch);
double fv_kz_flop(const fv_attention *op, const fv_layout *layout);
size_t fv_kz_state_bytes(const fv_attention *op, int64_t capacity);
void fv_kz_state_init(const fv_attention *op, int64_t capacity, void *state);
void fv_kz_state_view(const fv_attention *op, void *state, fv_state_view *view);
fv_status fv_kz_state_merge(const fv_attention *op, void *dst, const void *a, const void *b);
fv_status fv_kz_step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                     const fv_states *states, void *scratch);

#endif
