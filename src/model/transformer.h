/* model/transformer.h: what the files of this room share: the sizes of a model, its parameters, its memory,
 * and the passes over its tape. */
#ifndef FV_MODEL_TRANSFORMER_H
#define FV_MODEL_TRANSFORMER_H

#include "autograd/tape.h"
#include "model/internal.h"

/* ---- sizes, from the config ------------------------------------------------------------------------- */

typedef enum fv_places_kind { FV_PLACES_NONE = 0, FV_PLACES_LEARNED, FV_PLACES_SINUSOIDAL } fv_places_kind;

typedef struct fv_shape {
    const fv_tokenizer *tokenizer;
    int64_t vocabulary, width, layers, heads, kv_heads, head_dim, inner;
    int64_t places; /* positions a sequence may have; 0: no limit */
    fv_places_kind places_kind;
    fv_activation activation;
    float dropout, norm_eps;
    bool tied, causal;
    bool recompute;  /* layers run again in backward (gradient_checkpointing) */
    bool reversible; /* two streams, and backward makes the inputs of layers from their outputs */
    uint64_t projection_seed;
} fv_shape;

/* Reads and checks the sizes; messages name the key. Settings left to us (vocab_size 0 ...) are written back
 * into the config, so that a saved one says everything. */
fv_status fv_shape_read(fv_context *ctx, fv_config *config, fv_shape *shape);
/* attention_settings.c: the options of an operator as the "attention." keys say, without sizes of the model; and
 * the sizes that follow from the longest sequence, written back into the config where they are 0. */
fv_status fv_settings_attention(fv_context *ctx, const fv_config *config, fv_attention_options *options);
fv_status fv_settings_attention_sizes(fv_context *ctx, fv_config *config, int64_t longest);
/* Builds the attention operator of every layer from the "attention." keys. */
fv_status fv_shape_attention(fv_context *ctx, const fv_config *config, const fv_shape *shape,
                             fv_attention **op);

/* ---- the model ----------------------------------------------------------------------------------------- */

/* Offsets of a layer's parameters in the vector. */
typedef struct fv_layer {
    int64_t norm1_gain, norm1_bias, query, key, value, output; /* query, key, value are one matrix */
    int64_t norm2_gain, norm2_bias, up, up_bias, down, down_bias;
} fv_layer;

enum { FV_NAME_BYTES = 48 };

/* Activations and the lists of a batch: one allocation, replaced by a larger one when a batch needs it. */
typedef struct fv_workspace {
    void *memory;
    size_t bytes, pool_bytes;
    int64_t tokens, predicted;  /* what the lists can hold */
    int32_t *positions;         /* [tokens] */
    int32_t *selected, *target; /* [predicted] rows with a target, and it */
    void *pool;
} fv_workspace;

struct fv_model {
    fv_context *ctx;
    fv_config *config;
    fv_shape shape;
    fv_attention *attention; /* one operator for all layers: it holds no numbers */
    fv_attention_info info;
    int64_t draw;

    /* All of this is one allocation, the struct at its head. */
    size_t bytes;
    fv_layer *layers;
    fv_parameter *parameters;
    char (*names)[FV_NAME_BYTES];
    uint8_t *inits; /* how each is drawn: parameters.c */
    int parameter_count;
    int64_t float_count;
    int64_t token, place, norm_gain, norm_bias, head, head_bias; /* offsets; place -1: none */
    float *values;
    float *projections; /* [layers][info.drawn_floats] */
    float *sinusoids;   /* [places][width] of sinusoidal positions */
    fv_tape tape;

    float *gradients; /* allocated on first use */
    fv_workspace work;
};

/* ---- parameters ---------------------------------------------------------------------------------- */

int fv_parameters_count(const fv_shape *shape);
/* Fills names, views and the offsets of layers. Lengths are checked: *floats = -1 when they do not fit. */
void fv_parameters_layout(fv_model *model);
int64_t fv_parameters_floats(const fv_shape *shape); /* -1: more than can be addressed */
void fv_parameters_init(fv_model *model, uint64_t seed);
/* Sinusoidal positions [places][width], as Vaswani et al. 2017, sine and cosine interleaved. */
void fv_sinusoids_fill(fv_context *ctx, int64_t places, int64_t width, float *table);

/* The fixed table of sinusoidal positions of a model that was built; nothing for other kinds of position. */
void fv_model_fill_sinusoids(fv_model *model);

/* ---- passes -------------------------------------------------------------------------------------- */

/* What goes through the layers. */
typedef struct fv_pass {
    int64_t tokens;
    const int32_t *ids, *positions; /* NULL while measuring */
    fv_layout layout;
    char *states; /* streaming: [layers] of state_bytes; NULL: none */
    size_t state_bytes;
} fv_pass;

/* Records embedding and layers; returns the residual stream behind the last layer. */
int fv_transformer_layers(fv_model *model, const fv_pass *pass);
/* Records up to the fused q, k, v of one layer; returns them. */
int fv_transformer_qkv(fv_model *model, const fv_pass *pass, int64_t layer);
/* Records final norm and output layer on rows of the stream; returns logits [rows][vocabulary]. */
int fv_transformer_logits(fv_model *model, int x);
/* The same down to the loss. */
void fv_transformer_loss(fv_model *model, int x, const fv_cross_entropy *loss);
int fv_transformer_nodes(const fv_shape *shape); /* most nodes any pass records */

/* A hash of every number that decides what the model computes: parameters and projections. */
uint64_t fv_model_fingerprint(const fv_model *model);

const float *fv_model_projection(const fv_model *model, int64_t layer); /* NULL: the kind takes none */

/* Makes the workspace hold `pool_bytes` of activations and the lists; keeps a larger one. */
fv_status fv_workspace_reserve(fv_model *model, size_t pool_bytes, int64_t tokens, int64_t predicted);
size_t fv_workspace_bytes(size_t pool_bytes, int64_t tokens, int64_t predicted);

/* Checks a batch and writes positions into the workspace, which must hold batch->tokens. */
fv_status fv_batch_check(const fv_model *model, const fv_batch *batch);
void fv_batch_positions(int64_t sequences, const int64_t *offsets, int64_t first, int32_t *positions);

#endif
