/* model/transformer.h: what the files of this room share: the sizes of a model, its parameters, its memory,
 * and the passes over its tape. */
#ifndef FV_MODEL_TRANSFORMER_H
#define FV_MODEL_TRANSFORMER_H

#include "autograd/tape.h"
#include "model/internal.h"

/* ---- sizes, from the config ------------------------------------------------------------------------- */

typedef enum fv_places_kind { FV_PLACES_NONE = 0, FV_PLACES_LEARNED, FV_PLACES_SINUSOIDAL } fv_places_kind;

/* What is predicted: a token a token, a label a sequence, a label two sequences. */
typedef enum fv_head_kind { FV_HEAD_LM = 0, FV_HEAD_CLASSIFICATION, FV_HEAD_PAIR } fv_head_kind;

/* Who has the same E and F in Linformer: nobody; the heads of a layer; these, and E is F; all layers too. */
typedef enum fv_sharing {
    FV_SHARING_NONE = 0,
    FV_SHARING_HEADWISE,
    FV_SHARING_KEY_VALUE,
    FV_SHARING_LAYER
} fv_sharing;

typedef struct fv_shape {
    const fv_tokenizer *tokenizer;
    int64_t vocabulary, width, layers, heads, kv_heads, head_dim, inner;
    int64_t decoder_layers; /* of an encoder-decoder, whose encoder has `layers`; else 0 */
    int64_t places;         /* positions a sequence may have; 0: no limit */
    fv_places_kind places_kind;
    fv_head_kind head;
    int64_t labels;  /* of the heads that give labels */
    bool pool_first; /* these see the first token of a sequence, not the mean */
    fv_activation activation;
    float dropout, norm_eps;
    bool tied, causal;
    fv_sharing sharing; /* of Linformer's E and F */
    bool recompute;     /* layers run again in backward (gradient_checkpointing) */
    bool reversible;    /* two streams, and backward makes the inputs of layers from their outputs */
    uint64_t projection_seed;
} fv_shape;

/* Reads and checks the sizes; messages name the key. Settings left to us (vocab_size 0 ...) are written back
 * into the config, so that a saved one says everything. */
fv_status fv_shape_read(fv_context *ctx, fv_config *config, fv_shape *shape);
/* attention_settings.c: the options of an operator as the "attention." keys say, without sizes of the model; and
 * the sizes that follow from the longest sequence, written back into the config where they are 0. */
enum { FV_SETTING_TEXT = 32 };
/* A value of a config as text, of numbers in `number`. */
const char *fv_setting_text(const fv_config *config, const fv_config_key *key, char number[FV_SETTING_TEXT]);
fv_status fv_settings_attention(fv_context *ctx, const fv_config *config, fv_attention_options *options);
fv_status fv_settings_attention_sizes(fv_context *ctx, fv_config *config, int64_t longest);
static inline int64_t fv_shape_classes(const fv_shape *shape) /* of a row of logits */
{
    return shape->head == FV_HEAD_LM ? shape->vocabulary : shape->labels;
}

/* ---- attention ----------------------------------------------------------------------------------------- */

/* Where attention stands: in the layers of an encoder or of a lone decoder, in those of the decoder behind an
 * encoder, and between the two. */
typedef enum fv_use { FV_USE_SELF = 0, FV_USE_DECODER, FV_USE_CROSS, FV_USES } fv_use;

typedef struct fv_operator {
    fv_attention *op; /* NULL: none */
    fv_attention_info info;
} fv_operator;

/* One for all layers: they hold no numbers. Of two parts the first has the first heads. */
typedef struct fv_operators {
    fv_operator of[FV_USES][FV_ATTENTION_PARTS];
} fv_operators;

/* Builds them from the "attention." keys. */
fv_status fv_operators_create(fv_operators *ops, fv_context *ctx, const fv_config *config,
                              const fv_shape *shape);
void fv_operators_destroy(fv_operators *ops);
/* The one of attention.kind. */
static inline const fv_operator *fv_operators_main(const fv_operators *ops, fv_use use)
{
    return &ops->of[use][ops->of[use][1].op != NULL ? 1 : 0];
}
int64_t fv_operators_gated(const fv_operators *ops, fv_use use); /* heads that take a gate */
int64_t fv_operators_drawn(const fv_operators *ops, fv_use use); /* floats of both parts */
/* Floats of the random inputs of all layers of a model; -1: more than can be addressed. */
int64_t fv_sites_drawn(const fv_shape *shape, const fv_operators *ops);

/* One attention of one layer: where its numbers stand. */
typedef struct fv_site {
    fv_use use;
    int64_t layer; /* in its stack */
    const float *drawn[FV_ATTENTION_PARTS];
    fv_attention_inputs inputs[FV_ATTENTION_PARTS];
    int64_t gate, gate_bias; /* offsets of the layer that gates; -1: none */
} fv_site;

/* Sites are numbered: the layers of the first stack, then self and cross of each layer of the decoder. */
int64_t fv_site_count(const fv_shape *shape);
int64_t fv_site_index(const fv_shape *shape, fv_use use, int64_t layer);
enum { FV_NAME_BYTES = 64 };
void fv_sites_layout(fv_model *model); /* uses, random inputs, constants */
void fv_sites_start(fv_model *model);  /* trained projections begin as the drawn ones */
/* "layers.0.attention.", "decoder.layers.0.cross_attention." */
void fv_site_prefix(const fv_shape *shape, fv_use use, int64_t layer, char prefix[FV_NAME_BYTES]);
/* "layers.0.", "encoder.layers.0.", "decoder.layers.0." */
void fv_layer_prefix(const fv_shape *shape, fv_use use, int64_t layer, char prefix[FV_NAME_BYTES]);

/* ---- the model ----------------------------------------------------------------------------------------- */

/* Offsets of a layer's parameters in the vector. */
typedef struct fv_layer {
    int64_t norm1_gain, norm1_bias, query, key, value, output; /* query, key, value are one matrix */
    int64_t cross_gain, cross_bias, cross_query, cross_key, cross_value, cross_output; /* key, value too */
    int64_t norm2_gain, norm2_bias, up, up_bias, down, down_bias;
} fv_layer;

/* How many the lists of a batch hold. */
typedef struct fv_list_sizes {
    int64_t tokens, source_tokens, selected;
} fv_list_sizes;

/* Activations and the lists of a batch: one allocation, replaced by a larger one when a batch needs it. */
typedef struct fv_workspace {
    void *memory;
    size_t bytes, pool_bytes;
    fv_list_sizes sizes;
    int32_t *positions, *source_positions; /* of the tokens */
    int32_t *selected, *target;            /* rows with a target, and it; or the first rows of sequences */
    void *pool;
} fv_workspace;

struct fv_model {
    fv_context *ctx;
    fv_config *config;
    fv_shape shape;
    fv_operators ops;
    int64_t draw;

    /* All of this is one allocation, the struct at its head. */
    size_t bytes;
    fv_layer *layers; /* of the first stack, then of the decoder behind it */
    fv_site *sites;
    fv_parameter *parameters;
    char (*names)[FV_NAME_BYTES];
    uint8_t *inits; /* how each is drawn: parameters.c */
    int parameter_count;
    int64_t float_count;
    int64_t token, place, norm_gain, norm_bias; /* offsets; place -1: none */
    int64_t memory_gain, memory_bias;           /* the norm behind an encoder that has a decoder */
    int64_t dense, dense_bias;                  /* the hidden layer of the pair head */
    int64_t head, head_bias;                    /* the output matrix */
    float *values;
    uint16_t *
        half; /* values in bf16 for streams, as they were when the first of half_users came; NULL: no such stream */
    int64_t half_users;
    float *projections; /* random inputs of attention, site by site */
    float *constants;   /* fixed inputs: decays [heads], ones [heads][head_dim] */
    float *sinusoids;   /* [places][width] of sinusoidal positions */
    fv_tape tape;

    float *gradients; /* allocated on first use */
    fv_workspace work;
};

/* ---- parameters ---------------------------------------------------------------------------------- */

int fv_parameters_count(const fv_shape *shape, const fv_operators *ops);
int64_t fv_parameters_floats(const fv_shape *shape,
                             const fv_operators *ops); /* -1: more than can be addressed */
/* Fills names, views and the offsets of layers and sites. */
void fv_parameters_layout(fv_model *model);
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
    int64_t source_tokens; /* encoder-decoder: what the encoder reads */
    const int32_t *source_ids, *source_positions;
    fv_layout source_layout, across; /* across: queries of layout, keys of source_layout */
    const int64_t *first;            /* streaming: [sequences] tokens before these; NULL: 0 */
    /* ... [layers][FV_PASS_STATES][sequences] states of the stack that predicts: of the parts of its own attention, then of
     * what cross attention knows of the source; NULL: not streaming */
    void *const *states;
} fv_pass;

enum { FV_PASS_STATES = FV_ATTENTION_PARTS + 1 };

/* Records embedding and layers; returns the residual stream behind the last layer. While streaming the encoder does not
 * run: its output is in the memories. */
int fv_transformer_layers(fv_model *model, const fv_pass *pass);
/* Records the encoder over the source, and adds its keys and values to the memories of every layer of the decoder. */
void fv_transformer_encode(fv_model *model, const fv_pass *pass);
/* Records up to the fused q, k, v of one layer; returns them. *gate: its gate, or -1. */
int fv_transformer_qkv(fv_model *model, const fv_pass *pass, int64_t layer, int *gate);
int fv_transformer_nodes(const fv_shape *shape); /* most nodes any pass records */
/* Layer norm with parameters of the model. */
int fv_transformer_norm(fv_model *model, int x, int64_t gain, int64_t bias);

/* The head (heads.c): rows of logits a batch gives, from the stream behind the last layer. rows: of x, those
 * that are wanted (FV_HEAD_LM: NULL for all; else the first token of every sequence, for pooling by it). */
int64_t fv_head_rows(const fv_shape *shape, int64_t tokens, int64_t sequences);
int fv_head_logits(fv_model *model, const fv_pass *pass, int x, const int32_t *rows, int64_t count);
void fv_head_loss(fv_model *model, const fv_pass *pass, int x, const int32_t *rows, int64_t count,
                  const fv_cross_entropy *loss);

/* A hash of every number that decides what the model computes: parameters and projections. */
uint64_t fv_model_fingerprint(const fv_model *model);

const float *fv_model_projection(const fv_model *model, int64_t layer); /* NULL: the kind takes none */

/* Makes the workspace hold `pool_bytes` of activations and the lists; keeps a larger one. */
fv_status fv_workspace_reserve(fv_model *model, size_t pool_bytes, const fv_list_sizes *sizes);
size_t fv_workspace_bytes(size_t pool_bytes, const fv_list_sizes *sizes);

/* Checks a batch: its tokens; what it predicts; for heads that give labels, that pairs are whole and a first
 * token is there if it is looked at. */
fv_status fv_batch_check(const fv_model *model, const fv_batch *batch);
fv_status fv_batch_check_targets(const fv_model *model, const fv_batch *batch);
fv_status fv_batch_check_pooling(const fv_model *model, const fv_batch *batch);
/* first [sequences]: positions of the first tokens; NULL: 0. */
void fv_batch_positions(int64_t sequences, const int64_t *offsets, const int64_t *first, int32_t *positions);

#endif
