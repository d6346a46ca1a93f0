/* cli/generate.h: what `favor generate` is made of: generate.c has the command and the one text that goes on, generate_texts.c the
 * texts of files, generate_batch.c answers many of them together. */
#ifndef FAVOR_CLI_GENERATE_H
#define FAVOR_CLI_GENERATE_H

#include "cli.h"

typedef struct generation {
    fv_context *ctx;
    const cli_args *args;
    fv_model *model;
    const fv_tokenizer *tokenizer;
    fv_sampling sampling;
    bool translates; /* an encoder-decoder: texts are sources; else they are continued */
    int64_t tokens;  /* to draw at most for a text */
} generation;

/* Positions of the model; -1: they have no limit. */
int64_t generate_positions(const generation *g);
/* What was given and what was drawn, for --json; takes the array `ids`. Texts are null where they are no UTF-8; the ids are
 * always there. NULL without memory. */
json_t *generate_row(const generation *g, const char *prompt, int64_t length, json_t *ids, bool ended);
/* Says how fast it went, where it took a while. */
void generate_tell(double seconds, int64_t drawn);

/* ---- texts ------------------------------------------------------------------------------------------ */

/* A text to translate or to continue. */
typedef struct generate_text {
    const char *path; /* of its file; NULL: it is --prompt */
    int64_t line;     /* where it begins; 0: unknown */
    const char *name; /* of the record */
    const char *text; /* valid until the next one is read */
    int64_t length;
} generate_text;

/* Texts in their order: --prompt alone, or the records of the files of --input. */
typedef struct generate_texts {
    const generation *g;
    const fv_reader_kind *kind;
    int files; /* begun */
    fv_reader *reader;
    bool prompt_read;
    char wrong[512]; /* what is wrong with a text, to be told when those before it are done; "": nothing */
} generate_texts;

/* The next text that can be answered; *more = 0 behind the last one. What a failure says is in `wrong`, or in the context. */
fv_status generate_text_next(generate_texts *texts, generate_text *text, int *more);
void generate_texts_close(generate_texts *texts);
/* Answers all texts. */
fv_status generate_all(generation *g);

/* ---- many at once --------------------------------------------------------------------------------- */

typedef struct generate_counts {
    int64_t texts, unended, full,
        unknown;   /* printed; cut before they ended; these at the model's last position; letters */
    int64_t drawn; /* tokens */
} generate_counts;

/* Answers the texts and prints them in their order, each as it is alone: a line each, or with --json a row each, printed for
 * --prompt and else appended to `rows`. FV_STOPPED at a signal: behind what one after the other would have printed up to some
 * token. */
fv_status generate_batch(const generation *g, generate_texts *texts, cli_progress *progress, json_t *rows,
                         generate_counts *counts);

#endif
