/* favor/model.h: a pre-LN Transformer with any attention of attention.h.
 *
 * Bidirectional encoder (masked LM), causal decoder (LM), or both with cross attention between them
 * (is_encoder_decoder: translation). Its head predicts tokens, or a label a sequence (head classification),
 * or a label a pair of sequences (head pair); see fv_batch for what each reads. On disk: a directory with
 * config.json (Hugging Face names) and model.safetensors.
 */
#ifndef FAVOR_MODEL_H
#define FAVOR_MODEL_H

#include <favor/attention.h>
#include <favor/base.h>
#include <favor/config.h>
#include <favor/data.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fv_model fv_model;

/* Builds the model of the FV_CONFIG_MODEL keys; parameters are drawn from `seed`. */
FV_API FV_NODISCARD fv_status fv_model_create(fv_model **model, fv_context *ctx, const fv_config *config,
                                              uint64_t seed);
/* Reads a run directory's config.json and model.safetensors (best = 0), or the best model (best = 1). */
FV_API FV_NODISCARD fv_status fv_model_load(fv_model **model, fv_context *ctx, const char *directory,
                                            int best);
/* Writes config.json and model.safetensors into an existing directory, each replaced atomically. */
FV_API FV_NODISCARD fv_status fv_model_save(const fv_model *model, const char *directory);
FV_API void fv_model_destroy(fv_model *model);

FV_API const fv_config *fv_model_config(const fv_model *model);
FV_API const fv_tokenizer *fv_model_tokenizer(const fv_model *model);
FV_API int64_t fv_model_parameters(const fv_model *model); /* number of trainable floats */

/* What a training step on `tokens` tokens in sequences of `length` will need, before it runs. An encoder reads
 * as many tokens of source for its decoder. `predicted` targets; heads that give labels have one a sequence or
 * pair. */
typedef struct fv_model_cost {
    int64_t parameters;
    size_t bytes;        /* predicted peak: parameters, gradients, optimizer, activations, scratch */
    double flop_forward; /* model FLOP of one forward, by the counting rule */
    double flop_step;    /* forward + backward = 3 x forward */
} fv_model_cost;
FV_API FV_NODISCARD fv_status fv_model_measure(fv_model *model, int64_t tokens, int64_t length,
                                               int64_t predicted, fv_model_cost *cost);

/* Logits of a batch, without dropout: [T][vocabulary], or [sequences][num_labels], or [pairs][num_labels]. Targets
 * and labels are not looked at. */
FV_API FV_NODISCARD fv_status fv_model_logits(fv_model *model, const fv_batch *batch, float *logits);

/* Adds the sum of -log p over the predicted targets (or labels) in nats to *loss, and how many argmaxes were right to
 * *correct. */
FV_API FV_NODISCARD fv_status fv_model_evaluate(fv_model *model, const fv_batch *batch, double *loss,
                                                int64_t *correct);

/* Rows of the attention of one layer and head for one sequence: weights [n][count]. Not of an
 * encoder-decoder. */
FV_API FV_NODISCARD fv_status fv_model_attention(fv_model *model, const int32_t *tokens, int64_t count,
                                                 int64_t layer, int64_t head, const int64_t *rows, int64_t n,
                                                 float *weights);

/* What the attention of one layer reads for a batch, before rotary positions and the like: queries
 * [T][heads][head_dim], keys and values [T][kv_heads][head_dim]. No dropout; targets are not looked at. */
FV_API FV_NODISCARD fv_status fv_model_qkv(fv_model *model, const fv_batch *batch, int64_t layer, float *q,
                                           float *k, float *v);

/* ---- streaming: one sequence, token by token ------------------------------------------------------- */

typedef struct fv_stream fv_stream;

/* A stream of a causal model with head lm whose attention can stream, or of an encoder-decoder whose attention can
 * stream and recall. `capacity` tokens for kinds that keep keys. Where the context's number format is bf16, single tokens read the
 * parameters from a copy in it, made when the first of the model's streams that are open was created. */
FV_API FV_NODISCARD fv_status fv_stream_create(fv_stream **stream, fv_model *model, int64_t capacity);
FV_API void fv_stream_destroy(fv_stream *stream);
FV_API int64_t fv_stream_tokens(const fv_stream *stream); /* tokens fed so far */

/* The bytes that one more token of a stream reads at least: what decoding costs where memory is the limit. Also what a
 * stream will hold, before there is one. Of an encoder-decoder: the decoder's, with a source of `tokens` tokens too.
 * FV_ERR_USAGE for a model that cannot stream. */
typedef struct fv_stream_cost {
    size_t weights; /* each parameter and projection once; of tables that are looked up, one row */
    size_t state;   /* of a stream that holds `tokens` tokens, and what it knows of its source */
} fv_stream_cost;
FV_API FV_NODISCARD fv_status fv_stream_measure(fv_model *model, int64_t tokens, fv_stream_cost *cost);

/* Encoder-decoder: what the tokens fed from here on translate, at first and instead of an earlier source; the stream
 * holds no tokens then. The encoder reads it once, whole, at the speed of a batch; a token costs the same whatever its
 * length where attention is kernelized, O(count) where it is exact. As in training: the text, then `end`; the first
 * token to be fed is `begin`. A failure leaves the stream as it was. */
FV_API FV_NODISCARD fv_status fv_stream_source(fv_stream *stream, const int32_t *tokens, int64_t count);

/* Feeds tokens (in chunks when many) and returns the logits [vocabulary] after the last one. count 0: the
 * logits after the last token fed before; a saved state holds them. */
FV_API FV_NODISCARD fv_status fv_stream_feed(fv_stream *stream, const int32_t *tokens, int64_t count,
                                             float *logits);
/* One token each for `count` different streams of one model, wherever they stand: logits [count][vocabulary]. The weights are
 * read once for all of them; bits are those of fv_stream_feed one by one. FV_ERR_USAGE, where one of them cannot take its
 * token, leaves all as they were. */
FV_API FV_NODISCARD fv_status fv_streams_step(fv_stream *const *streams, int64_t count, const int32_t *tokens,
                                              float *logits);
/* The whole state as a safetensors file; loading needs the same model (fingerprint), else FV_ERR_FILE. */
FV_API FV_NODISCARD fv_status fv_stream_save(const fv_stream *stream, const char *path);
FV_API FV_NODISCARD fv_status fv_stream_load(fv_stream *stream, const char *path);

/* Draws a token from logits: temperature (0: argmax), then the top_k largest (0: all), then the
 * smallest set of mass >= top_p (1: all). Special tokens but `end` are never drawn. Pure in
 * (seed, position). */
typedef struct fv_sampling {
    size_t size;
    double temperature; /* default 1 */
    int64_t top_k;      /* default 0 */
    double top_p;       /* default 1 */
    uint64_t seed;
} fv_sampling;
FV_API void fv_sampling_init(fv_sampling *sampling);
FV_API FV_NODISCARD fv_status fv_sample(fv_context *ctx, const fv_tokenizer *tokenizer,
                                        const fv_sampling *sampling, int64_t position, const float *logits,
                                        int32_t *token);

#ifdef __cplusplus
}
#endif
#endif
