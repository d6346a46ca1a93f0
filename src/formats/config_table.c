/* config_table.c: the table of all settings. Parsing, --help, the man page and the documentation read it.
 *
 * Keys of one object ("attention.*") stand together: fv_config_json writes them in this order. Whole numbers
 * end at 2^53, up to where every JSON reader keeps them exact.
 */
#include <favor/config.h>
#include <stddef.h>

#define EXACT 9007199254740992.0 /* 2^53 */
#define COUNT 1073741824.0       /* 2^30: sizes; products of them are checked where they are taken */

#define MODEL FV_CONFIG_MODEL
#define TRAIN FV_CONFIG_TRAIN
#define INT   FV_CONFIG_INT
#define REAL  FV_CONFIG_REAL
#define BOOL  FV_CONFIG_BOOL
#define TEXT  FV_CONFIG_TEXT

/* clang-format off */
static const fv_config_key keys[] = {
    {"model_type", MODEL, TEXT, 0, 0, "favor", "favor", "what this file describes"},
    {"tokenizer", MODEL, TEXT, 0, 0, "protein|bytes", "protein", "alphabet: 29 protein tokens or 256 bytes and 4 special ones"},
    {"vocab_size", MODEL, INT, 0, COUNT, NULL, "0", "tokens in the vocabulary; 0: the tokenizer's"},
    {"hidden_size", MODEL, INT, 1, COUNT, NULL, "256", "width of the model, in channels a token"},
    {"num_hidden_layers", MODEL, INT, 1, 65536, NULL, "4", "Transformer layers"},
    {"num_attention_heads", MODEL, INT, 1, 65536, NULL, "4", "query heads a layer"},
    {"num_key_value_heads", MODEL, INT, 0, 65536, NULL, "0", "key and value heads, a divisor of the query heads; 0: as many"},
    {"head_dim", MODEL, INT, 0, COUNT, NULL, "0", "channels a head; 0: hidden_size / num_attention_heads"},
    {"intermediate_size", MODEL, INT, 1, COUNT, NULL, "1024", "width of the feed-forward layers, in channels"},
    {"max_position_embeddings", MODEL, INT, 0, COUNT, NULL, "0", "tokens that learned positions reach; 0: the training length"},
    {"position_embedding_type", MODEL, TEXT, 0, 0, "learned|sinusoidal|none", "learned", "how tokens know their position"},
    {"hidden_act", MODEL, TEXT, 0, 0, "gelu|relu", "gelu", "activation of the feed-forward layers"},
    {"hidden_dropout_prob", MODEL, REAL, 0, 0.99, NULL, "0.1", "share of activations dropped while training"},
    {"layer_norm_eps", MODEL, REAL, 1e-12, 1, NULL, "1e-5", "added to the variance in layer normalisation"},
    {"tie_word_embeddings", MODEL, BOOL, 0, 1, NULL, "false", "use the token embedding as the output matrix too"},
    {"is_encoder_decoder", MODEL, BOOL, 0, 1, NULL, "false", "an encoder of num_hidden_layers and a causal decoder that looks at it; the task translate sets it"},
    {"decoder_layers", MODEL, INT, 0, 65536, NULL, "0", "layers of the decoder behind an encoder; 0: as many as the encoder has"},
    {"head", MODEL, TEXT, 0, 0, "lm|classification|pair", "lm", "what is predicted: tokens, a label a sequence, or a label a pair of them; the tasks classify and match set it"},
    {"num_labels", MODEL, INT, 2, 512, NULL, "2", "labels of the heads classification and pair"},
    {"pooling", MODEL, TEXT, 0, 0, "mean|cls", "mean", "what such a head sees of a sequence: the mean of its tokens or the first one"},
    {"gradient_checkpointing", MODEL, BOOL, 0, 1, NULL, "false", "keep the inputs of layers alone and run each again in the backward pass: less memory, the same bits"},
    {"reversible", MODEL, BOOL, 0, 1, NULL, "false", "reversible layers (Reformer): activations take memory independent of the number of layers"},
    {"is_decoder", MODEL, BOOL, 0, 1, NULL, "false", "causal: a token sees itself and earlier ones; the task lm sets it"},
    {"attention.kind", MODEL, TEXT, 0, 0, NULL, "favor+", "attention mechanism, one of the names favor info lists; auto: exact where it is faster, else favor+"},
    {"attention.features", MODEL, INT, 0, COUNT, NULL, "0", "random projections m a head; 0: d ln d rounded up to a multiple of 16"},
    {"attention.projection", MODEL, TEXT, 0, 0, "default|none|iid|orthogonal|hadamard|givens|simplex", "default", "how the projections are drawn; default: the mechanism's"},
    {"attention.row_norms", MODEL, TEXT, 0, 0, "chi|sqrt-d", "chi", "lengths of the projection's rows"},
    {"attention.scale", MODEL, REAL, 0, 1e6, NULL, "0", "multiplies query times key; 0: the mechanism's, 1/sqrt(head_dim) or 1"},
    {"attention.epsilon", MODEL, REAL, -1, 1e6, NULL, "-1", "added to the features of generalized maps; below 0: 1e-3"},
    {"attention.denominator", MODEL, TEXT, 0, 0, NULL, "default", "guard of the normaliser: default, none, off, add:X, clamp:X, abs:X, sign:X"},
    {"attention.chunk", MODEL, INT, 0, EXACT, NULL, "0", "tokens a causal chunk; 0: the mechanism's"},
    {"attention.trainable_projection", MODEL, BOOL, 0, 1, NULL, "false", "train the projections with the other parameters (no redraws then)"},
    {"attention.tau", MODEL, REAL, 0, 1e12, NULL, "0", "rfa: bandwidth, the kernel is exp(q.k / tau^2) on unit vectors; 0: 1"},
    {"attention.psi", MODEL, REAL, -1, 1e12, NULL, "-1", "favor++ and favor#: frozen mean of the squared norm of x + y; below 0: measured on each sequence, not for causal calls"},
    {"attention.rmf_law", MODEL, TEXT, 0, 0, NULL, "default", "rmf: law of the degrees, geometric:P (default, P = 2), poisson:MU or optimal:MU"},
    {"attention.rmf_max_degree", MODEL, INT, 0, 64, NULL, "0", "rmf: largest degree that is drawn, the law is cut there; 0: no limit"},
    {"attention.features_trig", MODEL, INT, 0, COUNT, NULL, "0", "favor-hybrid: random projections of the trigonometric estimator; 0: as many as features"},
    {"attention.angle_rows", MODEL, INT, 0, 1024, NULL, "0", "favor-hybrid: random rows that estimate the angle; 0: 4"},
    {"attention.window", MODEL, INT, -1, EXACT, NULL, "-1", "W: keys with |i-j| <= W are seen; below 0: the kind's"},
    {"attention.stride", MODEL, INT, 0, EXACT, NULL, "0", "strided: keys at multiples of this distance are seen; 0: the kind's"},
    {"attention.block", MODEL, INT, 0, EXACT, NULL, "0", "tokens a block of fixed and bigbird; 0: the kind's"},
    {"attention.globals", MODEL, INT, -1, EXACT, NULL, "-1", "first tokens of the sequence that see all and are seen by all; fixed: last tokens of each block; below 0: the kind's"},
    {"attention.random_blocks", MODEL, INT, -1, COUNT, NULL, "-1", "bigbird: random key blocks a query block; below 0: the kind's"},
    {"attention.buckets", MODEL, INT, 0, COUNT, NULL, "0", "reformer: hash buckets, an even number; 0: the kind's"},
    {"attention.rounds", MODEL, INT, 0, 1024, NULL, "0", "reformer: rounds of hashing; 0: the kind's"},
    {"attention.projected", MODEL, INT, 0, COUNT, NULL, "0", "linformer: k, tokens that keys and values are projected to; 0: the kind's"},
    {"attention.max_tokens", MODEL, INT, 0, EXACT, NULL, "0", "longest sequence of kinds made for a fixed length; 0: that of the positions"},
    {"attention.gate", MODEL, BOOL, 0, 1, NULL, "false", "RFA's gate: a learned factor a token and head that forgets the past; causal"},
    {"attention.decay", MODEL, BOOL, 0, 1, NULL, "false", "RetNet's decay: a constant factor a head on the past; causal"},
    {"attention.position_bias", MODEL, TEXT, 0, 0, "none|fastrpb|fastrpb-2d|kernel", "none", "learned weights of relative positions: added to the output by a Toeplitz matrix times v (fastrpb, fastrpb-2d) or inside the kernel"},
    {"attention.position_span", MODEL, INT, 0, EXACT, NULL, "0", "N: weights for distances -(N-1) to N-1; fastrpb-2d: side of the raster; 0: as the longest sequence needs"},
    {"attention.position_fft", MODEL, INT, 0, EXACT, NULL, "0", "position_bias kernel of kernelized kinds: tokens from which it goes by Fourier transforms, whatever the weights; 0: as measured, where weights are of similar size"},
    {"attention.position_skip", MODEL, INT, 0, EXACT, NULL, "0", "first tokens of each sequence that fastrpb leaves out"},
    {"attention.ppsbn", MODEL, BOOL, 0, 1, NULL, "false", "Macformer's scaling: q and k to unit vectors before, a learned power after"},
    {"attention.rotary", MODEL, BOOL, 0, 1, NULL, "false", "rotary positions on q and k"},
    {"attention.rotary_base", MODEL, REAL, 0, 1e30, NULL, "0", "base of the rotary frequencies; 0: 10000"},
    {"attention.linformer_sharing", MODEL, TEXT, 0, 0, "none|headwise|key-value|layer", "none", "linformer: who has the same projections: nobody, the heads of a layer, these with E = F, all layers too"},
    {"attention.local_heads", MODEL, INT, 0, 65536, NULL, "0", "the first heads of a layer attend to a window, the others as attention.kind says"},
    {"attention.local_window", MODEL, INT, -1, EXACT, NULL, "-1", "W of these heads: keys with |i-j| <= W are seen; below 0: the kind's"},
    {"attention.redraw", MODEL, INT, 0, EXACT, NULL, "1000", "steps between new projections while training; 0: never"},
    {"attention.projection_seed", MODEL, INT, 0, EXACT, NULL, "0", "seed of the projections"},

    {"task", TRAIN, TEXT, 0, 0, "mlm|lm|classify|match|translate", "mlm", "what is predicted: masked tokens, the next token, a label a text, a label two texts, or a text from another"},
    {"reader", TRAIN, TEXT, 0, 0, "fasta|bytes|tsv", "fasta", "format of the data files"},
    {"length", TRAIN, INT, 1, COUNT, NULL, "512", "tokens a window, and the longest sequence"},
    {"batch", TRAIN, INT, 1, COUNT, NULL, "8", "windows a batch: a batch holds batch x length tokens; of classify, match and translate: records"},
    {"packing", TRAIN, TEXT, 0, 0, "concat|sequences", "concat", "join all sequences and cut windows, or pack whole sequences"},
    {"steps", TRAIN, INT, 0, EXACT, NULL, "1000", "optimizer steps"},
    {"accumulate", TRAIN, INT, 1, COUNT, NULL, "1", "batches whose gradients are summed for one step"},
    {"learning_rate", TRAIN, REAL, 0, 1e3, NULL, "1e-3", "highest learning rate"},
    {"schedule", TRAIN, TEXT, 0, 0, "constant|rsqrt|cosine", "cosine", "learning rate after the warm-up: constant, 1/sqrt(step), half a cosine to 0"},
    {"warmup_steps", TRAIN, INT, 0, EXACT, NULL, "100", "steps in which the learning rate rises from 0"},
    {"adam_beta1", TRAIN, REAL, 0, 0.999999, NULL, "0.9", "decay of the mean of gradients, a step"},
    {"adam_beta2", TRAIN, REAL, 0, 0.999999999, NULL, "0.98", "decay of the mean of squared gradients, a step"},
    {"adam_epsilon", TRAIN, REAL, 0, 1, NULL, "1e-9", "added to the root of the second moment"},
    {"weight_decay", TRAIN, REAL, 0, 1e3, NULL, "0.1", "decoupled weight decay, a unit of learning rate"},
    {"clip_norm", TRAIN, REAL, 0, 1e9, NULL, "0.5", "largest norm of the whole gradient; 0: no limit"},
    {"eval_every", TRAIN, INT, 0, EXACT, NULL, "100", "steps between evaluations on the valid split; 0: at the end only"},
    {"eval_batches", TRAIN, INT, 0, EXACT, NULL, "32", "batches an evaluation while training; 0: the whole split"},
    {"checkpoint_every", TRAIN, INT, 0, EXACT, NULL, "500", "steps between checkpoints; 0: at the end only"},
    {"early_stop", TRAIN, INT, 0, EXACT, NULL, "0", "evaluations without a better loss before the run stops; 0: never"},
    {"log_every", TRAIN, INT, 1, EXACT, NULL, "10", "steps between lines of metrics"},
    {"seed", TRAIN, INT, 0, EXACT, NULL, "0", "seed of parameters, dropout, masks and the order of the data"},
    {"valid_fraction", TRAIN, REAL, 0, 1, NULL, "0.05", "share of the sequences held out for validation"},
    {"test_fraction", TRAIN, REAL, 0, 1, NULL, "0.05", "share of the sequences held out for the test"},
    {"mask_rate", TRAIN, REAL, 0, 1, NULL, "0.15", "share of the letters that mlm predicts"},
    {"mask_symbol_share", TRAIN, REAL, 0, 1, NULL, "0.8", "share of these replaced by the mask token (BERT's; the Performer paper's code: 0.1)"},
    {"mask_random_share", TRAIN, REAL, 0, 1, NULL, "0.1", "share of these replaced by a random letter (BERT's; the Performer paper's code: 0.8)"},
    {"shuffle_buffer", TRAIN, INT, 1, COUNT, NULL, "16384", "records held in memory to shuffle the training split"},
    {"dtype", TRAIN, TEXT, 0, 0, "f32|bf16", "f32", "number format of the factors of products, and of what training keeps"},
};
/* clang-format on */

int fv_config_key_count(void)
{
    return (int)(sizeof keys / sizeof keys[0]);
}

const fv_config_key *fv_config_key_at(int index)
{
    return index >= 0 && index < fv_config_key_count() ? &keys[index] : NULL;
}
