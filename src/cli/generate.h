/* cli/generate.h: what `favor generate` shares between a text that goes on and texts that are translated. */
#ifndef FAVOR_CLI_GENERATE_H
#define FAVOR_CLI_GENERATE_H

#include "cli.h"

typedef struct generation {
    fv_context *ctx;
    const cli_args *args;
    fv_model *model;
    fv_stream *stream;
    const fv_tokenizer *tokenizer;
    float *logits;  /* [vocabulary], after the last token fed */
    int64_t tokens; /* to draw at most */
    json_t *ids;    /* --json: the tokens drawn; else NULL, and they are printed as they come */
    bool ended;     /* the last one was the end of the sequence */
} generation;

/* Opens g->stream, with room for `capacity` tokens, and g->logits. */
fv_status generate_open(generation *g, int64_t capacity);
/* Positions of the model; -1: they have no limit. */
int64_t generate_positions(const generation *g);
/* Draws and puts up to g->tokens tokens behind those fed. Every token drawn is fed, so that a saved state holds them all. */
fv_status generate_draw(generation *g, int64_t *drawn);
/* What was given and what was drawn, for --json. Texts are null where they are no UTF-8; the ids are always there. NULL
 * without memory. */
json_t *generate_row(const generation *g, const char *prompt, int64_t length);
/* Says how fast it went, where it took a while. */
void generate_tell(double seconds, int64_t drawn);

/* translate.c: translates --prompt, or every record of --input. */
fv_status generate_translations(generation *g);

#endif
