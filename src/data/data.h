/* data/data.h: the parts of a data set, from bytes to batches.
 *
 *     source -> reader -> feed (one split, in file order or shuffled) -> packing -> task -> fv_batch
 *
 * A reader, a packing and a task are a row each: shared code asks the row, never the name.
 */
#ifndef FV_DATA_DATA_H
#define FV_DATA_DATA_H

#include "base/internal.h"
#include <favor/data.h>

/* ---- source: the bytes of a file, plain or gzip ------------------------------------------------------- */

typedef struct fv_source {
    fv_context *ctx;
    const char *path;
    void *file;        /* gzFile */
    uint8_t *buffer;   /* what was read last */
    size_t at, end;    /* of it: next byte, end */
    bool finished;     /* nothing follows the buffer */
    int64_t line;      /* for messages, from 1; 0: the format has no lines */
    int64_t file_size; /* on disk */
    bool regular;      /* can be read again; a pipe cannot */
} fv_source;

fv_status fv_source_open(fv_source *source, fv_context *ctx, const char *path);
void fv_source_close(fv_source *source);
/* Makes at < end unless the file is finished. */
fv_status fv_source_fill(fv_source *source);
int64_t fv_source_offset(const fv_source *source); /* bytes of the file on disk read so far */
/* FV_ERR_FILE: "FILE:LINE: what". */
fv_status fv_source_fail(const fv_source *source, const char *format, ...) FV_PRINTF(2, 3);

/* ---- readers ------------------------------------------------------------------------------------------ */

#define FV_RECORD_NAME 1024
#define FV_RECORD_MAX  INT32_MAX /* letters */

typedef struct fv_reader_row {
    fv_reader_kind kind;
    bool by_position; /* splits go by the record's place in the file, not by what it says */
    fv_status (*begin)(fv_reader *reader); /* reads up to the first record, checks the format */
    fv_status (*next)(fv_reader *reader, fv_record *record, int *more);
} fv_reader_row;

struct fv_reader {
    const fv_reader_row *row;
    fv_source source;
    char *path;
    char *letters; /* of the record */
    int64_t length, capacity;
    int64_t limit; /* FV_RECORD_MAX */
    int64_t block; /* letters a record, for formats that cut */
    int64_t index; /* records given so far */
    char name[FV_RECORD_NAME];
};

extern const fv_reader_row fv_reader_fasta, fv_reader_bytes, fv_reader_tsv;
const fv_reader_row *fv_reader_row_find(const char *name); /* NULL: unknown */
/* Room for `more` letters behind reader->length. */
fv_status fv_reader_reserve(fv_reader *reader, int64_t more);

/* ---- tokenizers --------------------------------------------------------------------------------------- */

/* ids[byte] for all 256 bytes (content ids fit a byte) and whether the byte is foreign to the alphabet. */
typedef struct fv_tokenizer_map {
    uint8_t ids[256];
    uint8_t foreign[256];
} fv_tokenizer_map;
void fv_tokenizer_fill_map(const fv_tokenizer *tokenizer, fv_tokenizer_map *map);

/* ---- splits ------------------------------------------------------------------------------------------- */

uint64_t fv_hash(const void *bytes, size_t count);
/* Which split a key falls into: the key as a fraction of 2^64 against the shares. */
fv_split fv_split_of(uint64_t key, double valid_fraction, double test_fraction);

/* ---- settings ----------------------------------------------------------------------------------------- */

typedef struct fv_packing_row fv_packing_row;
typedef struct fv_task_row fv_task_row;

typedef struct fv_data_settings {
    const fv_reader_row *reader;
    const fv_tokenizer *tokenizer;
    const fv_packing_row *packing;
    const fv_task_row *task;
    uint64_t seed;
    int64_t length, batch, capacity; /* capacity = batch * length tokens */
    int64_t labels;
    double valid_fraction, test_fraction;
    double mask_rate, mask_symbol_share, mask_random_share;
    int64_t shuffle_buffer;
} fv_data_settings;

/* ---- feed: the sequences of one split ----------------------------------------------------------------- */

typedef struct fv_sequence {
    uint8_t *ids;
    int64_t length;
    int64_t first; /* ids of the first text; a second one follows */
    int32_t label; /* -1: none */
} fv_sequence;

/* The ids and the label of a record, as the task reads it. sequence->ids, of *capacity bytes, is replaced by a
 * larger block when it is too small (ids NULL: none yet). Adds to *foreign the letters outside the alphabet. */
fv_status fv_data_encode(const fv_data *data, const fv_reader *reader, const fv_record *record,
                         fv_sequence *sequence, int64_t *capacity, int64_t *foreign);

typedef struct fv_feed {
    fv_data *data;
    fv_split split;
    bool shuffled;
    fv_reader *reader;
    int64_t *order; /* of the files in this epoch */
    int64_t file;   /* how many of them were opened */
    fv_sequence record;
    int64_t record_capacity;
    fv_sequence *pool; /* [pool_capacity], `pooled` of them filled */
    int64_t pool_capacity, pooled, pool_bytes;
    bool drained;      /* the files have no more for the pool */
    fv_sequence drawn; /* the one given last */
    fv_random random;
} fv_feed;

/* Begins an epoch. Allocates on first use; fv_feed_close frees. */
fv_status fv_feed_start(fv_feed *feed, fv_data *data, fv_split split, bool shuffled, int64_t epoch);
/* The next sequence, never an empty one, valid until the next call; ids NULL at the end of the epoch. */
fv_status fv_feed_next(fv_feed *feed, fv_sequence *sequence);
void fv_feed_close(fv_feed *feed);

/* ---- packing ------------------------------------------------------------------------------------------ */

/* Where the packing of one split stands. */
typedef struct fv_packer {
    fv_feed feed;
    bool started;
    int64_t epoch, pieces; /* pieces (windows, sequences) made in this epoch */
    int64_t next;          /* batch that comes next */
    fv_sequence current;   /* sequence being laid out; ids NULL: none */
    int64_t at;            /* letters of it already laid out */
} fv_packer;

/* What a packing fills: inputs of the batch, before the task. */
typedef struct fv_packed {
    int32_t *tokens;  /* [capacity] */
    int64_t *offsets; /* [capacity + 1] */
    int64_t count, sequences;
    /* Of tasks that read columns: */
    int32_t *targets, *labels, *source;
    int64_t *source_offsets, source_count, predicted;
} fv_packed;

struct fv_packing_row {
    const char *name;
    /* Lays out batch number `index`, the packer being anywhere. */
    fv_status (*seek)(fv_data *data, fv_packer *packer, int64_t index, fv_packed *scratch);
    fv_status (*next)(fv_data *data, fv_packer *packer, fv_packed *packed);
};
const fv_packing_row *fv_packing_find(const char *name); /* NULL: unknown */
extern const fv_packing_row fv_packing_records;          /* of tasks that read columns */

/* ---- tasks -------------------------------------------------------------------------------------------- */

struct fv_task_row {
    const char *name;
    /* Tasks that read columns: a label perhaps, then texts; 0: any letters, packed as the setting says. */
    int texts;
    bool has_label;
    const char *columns; /* "a label and a text" */
    /* Adds a record to the batch: its sequences, and labels or targets with their number. */
    void (*lay_out)(const fv_data *data, const fv_sequence *record, fv_packed *packed);
    int64_t sequences; /* a record */
    /* Tasks that do not: */
    /* inputs hold the tokens; the task changes them in place and fills targets. Returns how many are >= 0. */
    int64_t (*apply)(const fv_data_settings *settings, fv_split split, int64_t index, const int64_t *offsets,
                     int64_t sequences, int32_t *inputs, int32_t *targets);
};
const fv_task_row *fv_task_find(const char *name); /* NULL: unknown */
/* FV_ERR_USAGE unless the reader gives what the task reads. */
fv_status fv_task_check(fv_context *ctx, const fv_config *config);
/* The largest batch of the settings, about. */
typedef struct fv_batch_bounds {
    int64_t tokens, sequences, predicted; /* with an encoder-decoder, tokens on either side */
} fv_batch_bounds;
fv_status fv_task_bounds(fv_context *ctx, const fv_config *config, fv_batch_bounds *bounds);
void fv_records_classify(const fv_data *data, const fv_sequence *record, fv_packed *packed);
void fv_records_match(const fv_data *data, const fv_sequence *record, fv_packed *packed);
void fv_records_translate(const fv_data *data, const fv_sequence *record, fv_packed *packed);

/* ---- the data set ------------------------------------------------------------------------------------- */

struct fv_data {
    fv_context *ctx;
    fv_data_settings settings;
    fv_tokenizer_map map;
    char **files;
    int64_t file_count;
    fv_packer packers[FV_SPLIT_ALL + 1];
    int64_t train_tokens;  /* of an epoch, ends included; -1: not counted yet */
    int64_t train_records; /* of an epoch; -1: not counted yet */
    fv_packed packed;
};

/* The split of the record `reader` gave last, with these ids. */
fv_split fv_data_split(const fv_data *data, const fv_reader *reader, const fv_sequence *sequence);
/* Opens file number `index` for reading. */
fv_status fv_data_reader(fv_data *data, int64_t index, fv_reader **reader);

#endif
