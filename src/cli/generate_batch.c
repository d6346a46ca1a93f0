/* cli/generate_batch.c: many texts answered together: a token each in one pass over the weights, which are most of what a token
 * reads. The bits of a stream are those it has alone, and a draw depends on the seed and its position only, so that what
 * becomes of a text does not depend on the others.
 *
 * Texts are printed in the order in which they were given: the first one that is not complete as its tokens come, those behind
 * it when their turn comes. A stream that is complete makes room for another text at once. As many streams are open as fit
 * into a quarter of the memory at hand, 32 at most: there the passes no longer wait for memory. The batch doubles at each
 * token, so that the first text need not wait until all the others are read.
 */
#include "generate.h"
#include <math.h>
#include <string.h>

enum {
    MOST_STREAMS = 32,
    MOST_TEXTS = 8 * MOST_STREAMS, /* complete ones wait for a longer one before them */
    MOST_AHEAD = 4096              /* tokens of a text that waits to be printed; then it rests */
};

/* A text, and what was drawn for it. */
typedef struct answer {
    char *text, *name; /* copies, where they are printed too; name NULL: it is --prompt */
    int64_t length;
    fv_stream *stream; /* NULL: it is complete */
    size_t bytes;      /* of the stream */
    int32_t next;      /* drawn, and not fed yet */
    int64_t drawn, limit;
    int32_t *ids; /* drawn and not printed yet */
    int64_t count, room;
    bool ended, full; /* by the token that ends it; cut at the last position of the model */
    bool begun;       /* printing it was */
} answer;

typedef struct batch {
    const generation *g;
    generate_texts *texts;
    cli_progress *progress; /* NULL: none */
    json_t *rows;
    generate_counts *counts;
    bool json, echo;

    answer *answers;      /* [MOST_TEXTS], a ring */
    int64_t first, count; /* the one to be printed next; how many there are */
    int64_t open;         /* streams */
    size_t bytes, most_bytes;
    fv_stream *keeper; /* what streams share stays with the model as long as there is one */

    generate_text next; /* read, and not begun yet */
    int has_next;
    bool all_read;
    fv_status trouble; /* with a text, told when those before it are done */
    float *logits;     /* [MOST_STREAMS][vocabulary] */
} batch;

static answer *answer_at(const batch *b, int64_t index)
{
    return &b->answers[(b->first + index) % MOST_TEXTS];
}

/* ---- tokens -------------------------------------------------------------------------------------- */

static fv_status keep_token(const batch *b, answer *a, int32_t token)
{
    if (a->count == a->room) {
        int64_t room = a->room > 0 ? 2 * a->room : 64;
        int32_t *more = fv_alloc(b->g->ctx, (size_t)room * sizeof *more);
        if (more == NULL)
            return FV_ERR_RESOURCE;
        if (a->count > 0)
            memcpy(more, a->ids, (size_t)a->count * sizeof *more);
        fv_free(b->g->ctx, a->ids);
        a->ids = more;
        a->room = room;
    }
    a->ids[a->count++] = token;
    return FV_OK;
}

static void close_stream(batch *b, answer *a)
{
    fv_stream_destroy(a->stream);
    a->stream = NULL;
    b->bytes -= a->bytes;
    b->open--;
}

/* The token behind those fed. */
static fv_status draw(batch *b, answer *a, const float *logits)
{
    const generation *g = b->g;
    int32_t token;
    CLI_TRY(fv_sample(g->ctx, g->tokenizer, &g->sampling, fv_stream_tokens(a->stream), logits, &token));
    a->ended = token == g->tokenizer->end;
    if (!a->ended) {
        CLI_TRY(keep_token(b, a, token));
        a->next = token;
        a->drawn++;
        b->counts->drawn++;
    }
    if (a->ended || a->drawn == a->limit)
        close_stream(b, a);
    return FV_OK;
}

/* One more token of every text that is not complete. */
static fv_status step(batch *b)
{
    fv_stream *streams[MOST_STREAMS];
    int32_t tokens[MOST_STREAMS];
    answer *who[MOST_STREAMS];
    int64_t n = 0;
    for (int64_t i = 0; i < b->count; i++) {
        answer *a = answer_at(b, i);
        if (a->stream == NULL || (i > 0 && a->count >= MOST_AHEAD))
            continue;
        streams[n] = a->stream;
        tokens[n] = a->next;
        who[n++] = a;
    }
    CLI_TRY(fv_streams_step(streams, n, tokens, b->logits));
    for (int64_t i = 0; i < n; i++)
        CLI_TRY(draw(b, who[i], b->logits + i * b->g->tokenizer->size));
    return FV_OK;
}

/* ---- another text ------------------------------------------------------------------------------------ */

/* Tokens to draw for a text of `length` letters, and the tokens its stream will hold. */
static int64_t limit_of(const generation *g, int64_t length, int64_t *capacity)
{
    int64_t positions = generate_positions(g), before = g->translates ? 1 : 1 + length, limit = g->tokens;
    if (positions >= 0 && limit > positions - before)
        limit = positions - before;
    *capacity = before + limit;
    return limit;
}

/* With its source at the most, of a model that translates. */
static fv_status bytes_of(const generation *g, int64_t length, size_t *bytes)
{
    int64_t capacity;
    fv_stream_cost cost;
    (void)limit_of(g, length, &capacity);
    CLI_TRY(fv_stream_measure(g->model, capacity > length ? capacity : length + 1, &cost));
    *bytes = cost.state;
    return FV_OK;
}

/* Everything up to the logits of the first token. */
static fv_status read_text(batch *b, answer *a, int32_t *ids)
{
    const generation *g = b->g;
    const fv_tokenizer *tokenizer = g->tokenizer;
    int64_t length = b->next.length;
    int32_t *letters = g->translates ? ids : ids + 1;
    fv_tokenizer_encode(tokenizer, b->next.text, length, letters, &b->counts->unknown);
    if (!g->translates) {
        ids[0] = tokenizer->begin;
        return fv_stream_feed(a->stream, ids, length + 1, b->logits);
    }
    ids[length] = tokenizer->end;
    CLI_TRY(fv_stream_source(a->stream, ids, length + 1));
    return fv_stream_feed(a->stream, &tokenizer->begin, 1, b->logits);
}

static fv_status copy_text(const batch *b, answer *a)
{
    const generate_text *s = &b->next;
    size_t bytes = (size_t)s->length, name = s->path != NULL ? strlen(s->name) + 1 : 0;
    if (!b->json && !b->echo)
        return FV_OK;
    a->text = fv_alloc(b->g->ctx, bytes + 1);
    a->name = name > 0 ? fv_alloc(b->g->ctx, name) : NULL;
    if (a->text == NULL || (name > 0 && a->name == NULL))
        return FV_ERR_RESOURCE;
    memcpy(a->text, s->text, bytes);
    if (name > 0)
        memcpy(a->name, s->name, name);
    a->length = s->length;
    return FV_OK;
}

static fv_status open_answer(batch *b, answer *a)
{
    const generation *g = b->g;
    int64_t capacity;
    a->limit = limit_of(g, b->next.length, &capacity);
    a->full = a->limit < g->tokens;
    CLI_TRY(copy_text(b, a));
    CLI_TRY(bytes_of(g, b->next.length, &a->bytes));
    CLI_TRY(fv_stream_create(&a->stream, g->model, capacity));
    b->bytes += a->bytes;
    b->open++;
    int32_t *ids = fv_alloc(g->ctx, (size_t)(b->next.length + 1) * sizeof *ids);
    if (ids == NULL)
        return FV_ERR_RESOURCE;
    fv_status status = read_text(b, a, ids);
    fv_free(g->ctx, ids);
    return status;
}

static void free_answer(batch *b, answer *a)
{
    if (a->stream != NULL)
        close_stream(b, a);
    fv_free(b->g->ctx, a->text);
    fv_free(b->g->ctx, a->name);
    fv_free(b->g->ctx, a->ids);
}

/* Reads the text in hand and draws its first token. */
static fv_status begin(batch *b)
{
    answer *a = answer_at(b, b->count);
    *a = (answer){0};
    fv_status status = open_answer(b, a);
    if (status == FV_OK) {
        b->count++;
        if (a->limit > 0)
            return draw(b, a, b->logits);
        close_stream(b, a);
        return FV_OK;
    }
    free_answer(b, a);
    return status;
}

/* Whether the text in hand fits beside the others; alone it must. */
static fv_status fits(const batch *b, bool *fit)
{
    size_t bytes;
    CLI_TRY(bytes_of(b->g, b->next.length, &bytes));
    *fit = b->open == 0 || (b->open < MOST_STREAMS && b->bytes + bytes <= b->most_bytes);
    return FV_OK;
}

/* Begins as many texts as go on already, where there is room. */
static fv_status admit(batch *b)
{
    int64_t most = b->open > 0 ? b->open : 1;
    for (int64_t i = 0; i < most && b->count < MOST_TEXTS; i++) {
        bool fit;
        if (i > 0 && cli_signal() != 0)
            break;
        if (!b->has_next)
            CLI_TRY(generate_text_next(b->texts, &b->next, &b->has_next));
        b->all_read = !b->has_next;
        if (b->all_read)
            break;
        CLI_TRY(fits(b, &fit));
        if (!fit)
            break;
        CLI_TRY(begin(b));
        b->has_next = 0;
    }
    return FV_OK;
}

/* ---- output -------------------------------------------------------------------------------------- */

/* What there is of the first text. */
static void print_letters(const batch *b, answer *a)
{
    if (!a->begun && b->echo) {
        fwrite(a->text, 1, (size_t)a->length, stdout);
        if (b->g->translates)
            putchar('\t');
    }
    a->begun = true;
    for (int64_t i = 0; i < a->count; i++) {
        int letter = fv_tokenizer_letter(b->g->tokenizer, a->ids[i]);
        if (letter >= 0)
            putchar(letter);
    }
    a->count = 0;
}

static fv_status put_row(const batch *b, const answer *a)
{
    json_t *ids = json_array();
    for (int64_t i = 0; i < a->count; i++)
        json_array_append_new(ids, json_integer(a->ids[i]));
    json_t *row = generate_row(b->g, a->text, a->length, ids, a->ended);
    if (a->name == NULL || row == NULL)
        return cli_json_print(row);
    json_t *name = json_string(a->name); /* NULL: no UTF-8 */
    json_object_set_new(row, "name", name != NULL ? name : json_null());
    return json_array_append_new(b->rows, row) == 0 ? FV_OK : FV_ERR_RESOURCE;
}

static void show_progress(const batch *b)
{
    double seconds = cli_now() - b->progress->begin;
    fv_progress report = {.phase = b->g->translates ? "translate" : "generate",
                          .done = b->counts->texts,
                          .unit = b->g->translates ? "source" : "text",
                          .rate = seconds > 0 ? (double)b->counts->drawn / seconds : 0,
                          .seconds_left = -1,
                          .loss = (double)NAN};
    cli_progress_show(b->progress, &report);
}

/* The end of the first text, complete or not. */
static fv_status finish(batch *b)
{
    answer *a = answer_at(b, 0);
    fv_status status = FV_OK;
    if (b->json)
        status = put_row(b, a);
    else
        putchar('\n');
    b->counts->texts++;
    b->counts->unended += !a->ended;
    b->counts->full += !a->ended && a->full;
    free_answer(b, a);
    b->first = (b->first + 1) % MOST_TEXTS;
    b->count--;
    return status;
}

/* Prints what can be printed by now. */
static fv_status deliver(batch *b)
{
    while (b->count > 0) {
        answer *a = answer_at(b, 0);
        if (!b->json)
            print_letters(b, a);
        if (a->stream != NULL)
            break;
        CLI_TRY(finish(b));
    }
    cli_flush();
    if (b->progress != NULL)
        show_progress(b);
    return FV_OK;
}

/* ---- the batch ------------------------------------------------------------------------------------- */

static fv_status answer_all(batch *b)
{
    while (!ferror(stdout)) {
        if (!b->all_read && b->trouble == FV_OK)
            b->trouble = admit(b);
        CLI_TRY(deliver(b));
        if (b->count == 0 && (b->all_read || b->trouble != FV_OK))
            break;
        if (cli_signal() != 0)
            return FV_STOPPED;
        CLI_TRY(step(b));
    }
    return b->trouble;
}

static fv_status run(batch *b)
{
    const generation *g = b->g;
    b->answers = fv_alloc(g->ctx, MOST_TEXTS * sizeof *b->answers);
    b->logits = fv_alloc(g->ctx, MOST_STREAMS * (size_t)g->tokenizer->size * sizeof *b->logits);
    if (b->answers == NULL || b->logits == NULL)
        return FV_ERR_RESOURCE;
    CLI_TRY(fv_stream_create(&b->keeper, g->model, 0));
    b->most_bytes = fv_available_memory() / 4;
    fv_status status = answer_all(b);
    /* The line of the first text ends; what there is of those behind it is for nobody. */
    if (b->count > 0 && (!b->json || status == FV_STOPPED)) {
        fv_status ended = finish(b);
        status = ended != FV_OK ? ended : status;
    }
    cli_flush();
    return status;
}

fv_status generate_batch(const generation *g, generate_texts *texts, cli_progress *progress, json_t *rows,
                         generate_counts *counts)
{
    batch b = {.g = g, .texts = texts, .progress = progress, .rows = rows, .counts = counts};
    b.json = cli_flag(g->args, "json");
    b.echo = cli_flag(g->args, "echo");
    fv_status status = run(&b);
    for (int64_t i = 0; i < b.count; i++)
        free_answer(&b, answer_at(&b, i));
    fv_stream_destroy(b.keeper);
    fv_free(g->ctx, b.answers);
    fv_free(g->ctx, b.logits);
    return status;
}
