/* autograd/tape.h: a tape of small differentiable operations.
 *
 *     int x = fv_tape_embedding(tape, &embedding);
 *     int h = fv_tape_layernorm(tape, x, gain, bias, eps);
 *     int y = fv_tape_linear(tape, h, outputs, weight, bias, FV_ACTIVATION_GELU);
 *     ...
 *     fv_tape_forward(tape);
 *     fv_tape_backward(tape);
 *
 * Recording an operation costs nothing but a node; forward runs the nodes in order, backward in reverse.
 * Gradients of parameters are ADDED to the gradient vector.
 *
 * One code, two modes. The same forward and backward run on a pool without memory (running = false): takes
 * and gives happen, kernels do not, and pool.peak is the exact need. So no memory is ever guessed, and
 * nothing allocates while running.
 *
 * What is kept. A value lives until its last reader in forward; training keeps those that some backward
 * reads, except values their producer can cheaply compute again (`recompute`: layer norms from their input,
 * activations from their pre-activation). Backward gives everything back in reverse order; the gradient of a
 * residual stream is one block that moves from node to node.
 *
 * Under bf16 a kept value is half as long (half.c): whatever backward reads is rounded to bf16, values by their last reader
 * or whoever makes them, pre-activations by their layer. Forward reads no more of them than backward does: so a gradient is
 * that of what forward computed, and a layer run again has the same bits. Floats stay: streams in forward (layer norms
 * round what they read of them), gates, statistics of rows, what attention saves for itself, all gradients.
 *
 * Segments are run again (replay.c): forward keeps nothing of what is recorded between fv_tape_segment and
 * fv_tape_segment_end, and backward runs it once more from the values that came in from outside, with the
 * same random numbers: the bits are those of a tape that kept everything. A reversible segment ends in
 * y = x + dropout(m), and backward takes x = y - dropout(m), so that not even what came in is kept: memory
 * does not grow with the number of segments. x then differs from the one of forward by rounding.
 */
#ifndef FV_AUTOGRAD_TAPE_H
#define FV_AUTOGRAD_TAPE_H

#include "autograd/pool.h"
#include "kernels/kernels.h"
#include <favor/attention.h>

typedef struct fv_tape fv_tape;
typedef struct fv_node fv_node;

/* What an operation is: one constant row beside its functions. All of them take blocks from the tape and
 * touch data only in fv_tape_parallel or after checking fv_tape_running. */
typedef struct fv_op {
    const char *name;
    unsigned reads;    /* bit k: backward reads the value of input k */
    unsigned halves;   /* bit k: ... in bf16, when that is the number format: forward reads no more of it */
    bool reads_output; /* backward reads the output's value */
    bool saves;        /* backward reads node->saved */
    void (*forward)(fv_tape *tape, fv_node *node);
    void (*recompute)(fv_tape *tape, fv_node *node); /* output again; NULL: it must be kept */
    void (*backward)(fv_tape *tape, fv_node *node);
    void (*undo)(fv_tape *tape, fv_node *node);               /* input 0 again from the output and input 1 */
    double (*flop)(const fv_tape *tape, const fv_node *node); /* forward; NULL: not counted */
} fv_op;

/* A matrix [rows][cols] between operations. */
typedef struct fv_value {
    int64_t rows, cols;
    int producer;     /* node */
    int readers;      /* nodes that read it in forward */
    int back_readers; /* ... in backward */
    bool whole;       /* one of these reads floats */
    int inner_back;   /* of these, the ones in the producer's own segment */
    int waiting;      /* readers still to come */
    int segment;      /* the producer's; -1: none */
    bool crosses;     /* a node of another segment reads it */
    bool stream;      /* the output of a reversible segment, which its undo reads */
    bool rebuilt;     /* the undo of a reversible segment makes it again, and nobody reads it later */
    bool held;        /* fv_tape_hold: lives until the tape is reset */
    fv_block data, gradient;
    fv_block half;    /* the data in bf16, kept for backward instead of it */
    fv_block rounded; /* the data rounded to bf16, as floats, while backward reads it */
    float *outside;   /* data copied to the caller's memory, without the padding */
} fv_value;

typedef enum fv_activation {
    FV_ACTIVATION_NONE = 0,
    FV_ACTIVATION_GELU,
    FV_ACTIVATION_RELU,
    FV_ACTIVATION_SIGMOID /* narrow outputs: gates */
} fv_activation;

/* y[t] = token[ids[t]] + position[positions[t]]; offsets into the parameters, position < 0: none. constant
 * positions: a table that is not trained. */
typedef struct fv_embedding {
    const int32_t *ids, *positions; /* [rows]; may be NULL when measuring */
    int64_t rows, cols;
    int64_t tokens, token; /* number of ids, offset of [tokens][cols] */
    int64_t places, place; /* number of positions, offset of [places][cols] or -1 */
    const float *constant; /* [places][cols] or NULL */
} fv_embedding;

/* Inputs of an attention operator beside q, k, v that are no part of a batch. */
typedef struct fv_attention_inputs {
    int64_t trained[FV_INPUT_COUNT];    /* offsets into the parameters; -1: none */
    bool shared[FV_INPUT_COUNT];        /* the parameter holds one head's tensor, for all heads */
    const float *fixed[FV_INPUT_COUNT]; /* constants; NULL: none */
} fv_attention_inputs;

/* One operator of an attention layer. */
typedef struct fv_attention_part {
    const fv_attention *op;            /* value_dim = dim */
    const float *drawn;                /* its random inputs; NULL: it takes none */
    const fv_attention_inputs *inputs; /* NULL: it takes none */
    void *const *states;               /* streaming: [sequences], each its own, continued; NULL: none */
} fv_attention_part;

enum { FV_ATTENTION_PARTS = 2 };

/* One attention layer: the first heads are those of parts[0], the rest those of parts[1] (op NULL: none). */
typedef struct fv_attention_call {
    fv_attention_part parts[FV_ATTENTION_PARTS];
    const fv_layout *layout;
    const int64_t
        *first_queries; /* streaming across: [sequences] tokens that came before the queries; NULL: 0 */
} fv_attention_call;

/* Where the heads of an operator stand in the layer's rows. */
typedef struct fv_attention_place {
    int64_t heads, kv_heads, dim;
    int64_t first, first_kv; /* its first head, and key/value head */
    fv_memory need;
    bool in_place_ok;
} fv_attention_place;

/* loss += sum over rows of -log softmax(x W^T + b)[target], correct += argmax == target; the gradient is that
 * of weight times the sum. */
typedef struct fv_cross_entropy {
    int64_t classes, matrix, bias; /* W [classes][cols], b [classes] (or -1): offsets */
    const int32_t *targets;        /* [rows]; may be NULL when measuring */
    float weight;
    double *loss;
    int64_t *correct;
} fv_cross_entropy;

struct fv_node {
    const fv_op *op;
    int input[2]; /* values; -1: none */
    int output;   /* value; -1: none */
    int segment;  /* -1: none */
    bool again;   /* in a segment: backward needs it to run once more */
    fv_block saved;
    union {
        fv_embedding embedding;
        struct {
            int64_t weight, bias; /* offsets; bias -1: none */
            fv_activation activation;
        } linear;
        struct {
            int64_t gain, bias;
            float eps;
        } layernorm;
        struct {
            float rate;
            uint32_t site; /* one number for each dropout of the model */
        } dropout;
        struct {
            fv_attention_call call;
            fv_attention_place whole, places[FV_ATTENTION_PARTS];
            int count;
            bool cross, gated;
        } attention;
        struct {
            const int32_t *ids;
        } select;
        struct {
            const int64_t *offsets;
        } sequence_mean;
        fv_cross_entropy loss;
    } as;
};

/* The random numbers of one micro-batch's dropout. */
typedef struct fv_dropout_key {
    uint64_t seed;
    int64_t step, micro;
} fv_dropout_key;

/* Nodes first .. last - 1, run again in backward. */
typedef struct fv_segment {
    int first, last;
    bool reversible;
} fv_segment;

struct fv_tape {
    fv_context *ctx;
    fv_pool pool;
    bool running;  /* false: measuring */
    bool training; /* a backward follows */
    bool saving;   /* forward leaves what backward reads: training, and no segment's first run */
    bool half;     /* bf16: values kept for backward are */
    bool stepping; /* one token each of some streams: products of these few rows take their own path */
    bool keep_all; /* segments are kept like everything else: what a test holds them against */
    const float *parameters;
    const uint16_t
        *parameters_half; /* the same in bf16, which steps of streams read instead; NULL: there are none */
    float *gradients;
    fv_dropout_key dropout;
    fv_status status; /* the first failure; later work is skipped */
    fv_node *nodes;
    fv_value *values;
    fv_segment *segments;
    int node_count, value_count, segment_count, node_limit; /* as many values and segments as nodes */
    int segment;                                            /* being recorded; -1: none */
};

/* ---- the tape --------------------------------------------------------------------------------------- */

/* Lays out a tape for up to `nodes` nodes in the arena (with base NULL: only measures it). */
void fv_tape_layout(fv_tape *tape, fv_context *ctx, int nodes, fv_arena *arena);
/* Forgets nodes, values and blocks. memory NULL: measuring mode. */
void fv_tape_reset(fv_tape *tape, bool training, void *memory, size_t capacity);
fv_status fv_tape_forward(fv_tape *tape);
fv_status fv_tape_backward(fv_tape *tape);
double fv_tape_flop(const fv_tape *tape); /* of a forward over all nodes, by the counting rule */

void fv_tape_hold(fv_tape *tape, int value);                 /* keep after forward */
void fv_tape_place(fv_tape *tape, int value, float *memory); /* copy it there in forward */
const float *fv_tape_data(const fv_tape *tape, int value);

/* What is recorded from here to the end is run again in backward. Segments do not nest. A reversible one ends
 * in a residual with x. Without training nothing is run again. */
void fv_tape_segment(fv_tape *tape, bool reversible);
void fv_tape_segment_end(fv_tape *tape);

/* ---- recording; each returns its output value ---------------------------------------------------- */

int fv_tape_embedding(fv_tape *tape, const fv_embedding *embedding);
/* y = activation(x W^T + b), W [outputs][cols of x]; offsets into the parameters, bias -1: none. */
int fv_tape_linear(fv_tape *tape, int x, int64_t outputs, int64_t weight, int64_t bias,
                   fv_activation activation);
int fv_tape_layernorm(fv_tape *tape, int x, int64_t gain, int64_t bias, float eps);
/* y = x + dropout(m), or dropout(m) alone with x = -1. Without training, or with rate 0, nothing drops. */
int fv_tape_residual(fv_tape *tape, int x, int m, float rate, uint32_t site);
int fv_tape_mean(fv_tape *tape, int a, int b); /* y = (a + b) / 2 */
/* Self attention on the fused projections qkv [rows][(heads + 2 kv_heads) dim]. gate [rows][heads of the
 * operator that takes it] in (0,1), or -1. */
int fv_tape_attention(fv_tape *tape, int qkv, int gate, const fv_attention_call *call);
/* q [rows][heads dim] looks at kv [rows of layout.offsets_k][2 kv_heads dim], keys and values side by side. */
int fv_tape_cross_attention(fv_tape *tape, int q, int kv, const fv_attention_call *call);
/* The same in two halves, through states of the parts: adds the keys and values kv to them, without an output; q looks
 * at what they hold. Neither has a backward. */
void fv_tape_remember(fv_tape *tape, int kv, const fv_attention_call *call);
int fv_tape_recall(fv_tape *tape, int q, const fv_attention_call *call);
/* Rows ids[0] .. ids[n-1] of x, each at most once. */
int fv_tape_select(fv_tape *tape, int x, const int32_t *ids, int64_t n);
/* Means of the rows offsets[s] .. offsets[s+1]-1; 0 where there are none. offsets are read while running. */
int fv_tape_sequence_mean(fv_tape *tape, int x, int64_t sequences, const int64_t *offsets);
/* [u, v, u v, u - v] of rows u = x[2i], v = x[2i+1]. */
int fv_tape_pairs(fv_tape *tape, int x);
void fv_tape_cross_entropy(fv_tape *tape, int x, const fv_cross_entropy *loss);

/* ---- for the operations -------------------------------------------------------------------------- */

fv_node *fv_tape_record(fv_tape *tape, const fv_op *op, int a, int b, int64_t rows, int64_t cols);
void fv_tape_fail(fv_tape *tape, fv_status status);
/* fv_parallel, unless measuring or failed. */
void fv_tape_parallel(fv_tape *tape, int64_t count, fv_task *task, void *arg);
static inline bool fv_tape_running(const fv_tape *tape)
{
    return tape->running && tape->status == FV_OK;
}

/* The parameter (or its gradient) at an offset; NULL for offset < 0 and when measuring. */
static inline const float *fv_tape_parameter(const fv_tape *tape, int64_t offset)
{
    return tape->parameters != NULL && offset >= 0 ? tape->parameters + offset : NULL;
}
static inline float *fv_tape_parameter_gradient(const fv_tape *tape, int64_t offset)
{
    return tape->gradients != NULL && offset >= 0 ? tape->gradients + offset : NULL;
}

fv_block fv_tape_take(fv_tape *tape, int64_t count);
fv_block fv_tape_take_bytes(fv_tape *tape, size_t bytes);
fv_block fv_tape_take_of(fv_tape *tape, int value, size_t bytes); /* room for its elements of `bytes` each */
void fv_tape_give(fv_tape *tape, fv_block *block);
static inline float *fv_tape_block(const fv_tape *tape, fv_block block)
{
    return fv_pool_data(&tape->pool, block);
}
static inline uint16_t *fv_tape_half_block(const fv_tape *tape, fv_block block)
{
    return (uint16_t *)(void *)fv_pool_data(&tape->pool, block);
}

fv_value *fv_tape_value(fv_tape *tape, int value);
float *fv_tape_output(fv_tape *tape, fv_node *node);           /* takes the block of the output */
float *fv_tape_reuse(fv_tape *tape, fv_node *node, int value); /* ... that of `value`, if it is free to */
bool fv_tape_passing(const fv_tape *tape, int value); /* nobody needs its data behind its forward readers */
/* What backward reads: data, computed again if need be, or its rounding to bf16. */
const float *fv_tape_read(fv_tape *tape, int value);
void fv_tape_done(fv_tape *tape, int value);                    /* backward will not read it again here */
float *fv_tape_gradient(fv_tape *tape, int value, bool *fresh); /* fresh: overwrite, do not add */
void fv_tape_move_gradient(fv_tape *tape, fv_block block,
                           int value); /* a holder's block becomes it (or is added) */

/* ---- bf16 (half.c) -------------------------------------------------------------------------------- */

/* Whether operations round what they keep. Steps of streams keep nothing, and round nothing. */
static inline bool fv_tape_halving(const fv_tape *tape)
{
    return tape->half && !tape->stepping;
}
/* Whether backward reads the value in bf16; and nobody its floats, so that they need not be kept. */
bool fv_tape_halves(const fv_tape *tape, int value);
bool fv_tape_narrows(const fv_tape *tape, int value);
void fv_tape_narrow(fv_tape *tape, int value); /* its data becomes bf16 */
/* Room for that, for an operation that has the value at hand and spares narrow the pass; NULL: it is not wanted, or there. */
uint16_t *fv_tape_keep(fv_tape *tape, int value);

/* A value rounded to bf16, of which tasks take what they need. */
typedef struct fv_rounded {
    const fv_kernels *kernels;
    const float *data;
    const uint16_t *half; /* instead of data; NULL: data */
} fv_rounded;
fv_rounded fv_tape_rounded(const fv_tape *tape, int value);
void fv_rounded_take(const fv_rounded *from, int64_t first, int64_t n, float *y);

/* Rows of elementwise work a task; depends on the shape alone. */
#define FV_ROW_BLOCK 64
static inline int64_t fv_row_blocks(int64_t rows)
{
    return (rows + FV_ROW_BLOCK - 1) / FV_ROW_BLOCK;
}

#endif
