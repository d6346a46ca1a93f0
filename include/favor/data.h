/* favor/data.h: from files to batches of tokens.
 *
 * reader (fasta, bytes, tsv) -> sequences -> split -> tokens -> task (mlm, lm, classify, match, translate) and
 * packing -> fv_batch.
 * Files are read as a stream; plain or gzip, told apart by their content. Everything is a function of
 * the files and the settings: the same settings give the same batches.
 */
#ifndef FAVOR_DATA_H
#define FAVOR_DATA_H

#include <favor/base.h>
#include <favor/config.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- tokenizers ------------------------------------------------------------------------------------ */

/* "protein": the paper's 29 tokens: A C D E F G H I K L M N P Q R S T V W Y, B O U X Z, then
 * < begin, > end, _ pad, * mask. "bytes": 256 bytes, then begin, end, pad, mask (260). */
typedef struct fv_tokenizer {
    const char *name;
    int32_t size;                  /* vocabulary */
    int32_t letters;               /* ids 0 .. letters-1 are content, the rest are special */
    int32_t begin, end, pad, mask; /* special ids */
} fv_tokenizer;

FV_API const fv_tokenizer *fv_tokenizer_find(const char *name); /* NULL: unknown */
/* Encodes bytes to ids (lower case folds for proteins); unknown letters become X and are counted. */
FV_API void fv_tokenizer_encode(const fv_tokenizer *tokenizer, const char *text, int64_t count, int32_t *ids,
                                int64_t *unknown);
/* The byte of an id; special tokens of "bytes" give -1, of "protein" their letter (< > _ *). */
FV_API int fv_tokenizer_letter(const fv_tokenizer *tokenizer, int32_t id);

/* ---- readers --------------------------------------------------------------------------------------- */

typedef struct fv_reader_kind {
    const char *name, *summary, *tokenizer; /* tokenizer it implies */
    int columns;                            /* a record is a line of columns with a tab between them */
} fv_reader_kind;
FV_API int fv_reader_kind_count(void);
FV_API const fv_reader_kind *fv_reader_kind_at(int index);

typedef struct fv_record {
    const char *name;     /* FASTA: the first word of the header; bytes: the file name and window */
    const char *sequence; /* letters, no line ends; not terminated by NUL */
    int64_t length;
    int64_t line; /* where the record begins, from 1 (bytes: 0) */
} fv_record;

typedef struct fv_reader fv_reader;
/* Opens a file for reading record by record. */
FV_API FV_NODISCARD fv_status fv_reader_open(fv_reader **reader, fv_context *ctx, const char *kind,
                                             const char *path);
/* The next record, valid until the next call; *more = 0 at the end. FV_ERR_FILE: FILE:LINE: what. */
FV_API FV_NODISCARD fv_status fv_reader_next(fv_reader *reader, fv_record *record, int *more);
FV_API void fv_reader_close(fv_reader *reader);

/* ---- splits ---------------------------------------------------------------------------------------- */

typedef enum fv_split { FV_SPLIT_TRAIN = 0, FV_SPLIT_VALID, FV_SPLIT_TEST, FV_SPLIT_ALL } fv_split;
FV_API const char *fv_split_name(fv_split split);

/* ---- data sets ------------------------------------------------------------------------------------- */

/* What one pass over the files found. */
typedef struct fv_data_summary {
    int64_t files, records, empty_records, duplicate_names;
    int64_t tokens;  /* letters of all records */
    int64_t unknown; /* letters outside the alphabet, read as X */
    int64_t min_length, max_length;
    double mean_length, median_length;
    int64_t split_records[3], split_tokens[3];
    int64_t counts[512]; /* of the training split, what is predicted: unigrams by token id (translate: of the
                          * second text), or labels */
} fv_data_summary;

/* One batch: packed sequences. Targets < 0 are not predicted. What a task does not use is 0 or NULL. */
typedef struct fv_batch {
    int64_t tokens;         /* T */
    int64_t sequences;      /* S; task match: sequences 2i and 2i+1 are a pair */
    const int32_t *inputs;  /* [T] */
    const int32_t *targets; /* [T] */
    const int64_t *offsets; /* [S+1] */
    int64_t predicted;      /* number of targets >= 0, or of labels */
    const int32_t *labels;  /* [S], or [S/2] of pairs: classes, instead of targets */
    int64_t source_tokens;  /* what an encoder reads for the decoder that sees inputs: S sequences, too */
    const int32_t *source;  /* [source_tokens] */
    const int64_t *source_offsets; /* [S+1] */
} fv_batch;

typedef struct fv_data fv_data;

/* Opens files with the settings of `config` (reader, tokenizer, task, length, batch, packing, split
 * fractions, masking, shuffle_buffer, seed). Reads nothing yet but the beginning of each file. */
FV_API FV_NODISCARD fv_status fv_data_open(fv_data **data, fv_context *ctx, const fv_config *config,
                                           const char *const *files, int64_t file_count);
FV_API void fv_data_close(fv_data *data);
/* The tokenizer in use: the configuration's if one was set there, else the reader's. */
FV_API const fv_tokenizer *fv_data_tokenizer(const fv_data *data);

/* One pass over everything. FV_ERR_FILE when there is no usable record. */
FV_API FV_NODISCARD fv_status fv_data_scan(fv_data *data, fv_data_summary *summary,
                                           const fv_observer *observer);

/* Batch number `index` (0, 1, ...) of the endless training stream (epochs follow each other, shuffled by
 * (seed, epoch)), or of a split in file order. Sequential access is a stream; a jump (resume) replays the
 * epoch up to there. With an evaluation split *batch has 0 tokens past the end. Valid until the next
 * call. Masks depend on (seed, split, index) only. */
FV_API FV_NODISCARD fv_status fv_data_batch(fv_data *data, fv_split split, int64_t index, fv_batch *batch);

/* Unigram baseline: Laplace-smoothed frequencies of the training split (alpha 1) over `classes` letters or labels,
 * held against the labels of a batch, or its targets that are letters: special tokens (end) have no frequency and
 * are left out, as in the paper. Adds to *tokens (targets counted), *loss (nats) and *correct. */
FV_API void fv_empirical_add(int32_t classes, const int64_t *counts, const fv_batch *batch, int64_t *tokens,
                             double *loss, int64_t *correct);

#ifdef __cplusplus
}
#endif
#endif
