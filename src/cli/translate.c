/* cli/translate.c: the side of `favor generate` that translates: a source after the other through one stream, each read
 * once by the encoder, then answered token by token. */
#include "generate.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

/* A text to translate. */
typedef struct source {
    const char *path; /* of its file; NULL: it is --prompt */
    int64_t line;     /* where it begins; 0: unknown */
    const char *name; /* of the record */
    const char *text;
    int64_t length;
} source;

typedef struct translation {
    generation *g;
    int32_t *ids; /* of the source in hand, and its end */
    int64_t capacity;
    int64_t sources, drawn, unended, unknown;
    json_t *rows; /* --json with --input */
    cli_progress progress;
    bool quiet; /* the translations would meet the progress, or there is one alone */
} translation;

/* ---- one source ---------------------------------------------------------------------------------- */

/* What is wrong with a source, and where it stands. */
static fv_status wrong(const source *s, const char *what)
{
    if (s->path == NULL)
        return cli_fail(FV_ERR_USAGE, "generate: --prompt: %s", what);
    if (s->line == 0)
        return cli_fail(FV_ERR_FILE, "%s: %s: %s", s->path, s->name, what);
    return cli_fail(FV_ERR_FILE, "%s:%lld: %s", s->path, (long long)s->line, what);
}

static fv_status check(const translation *t, const source *s)
{
    int64_t positions = generate_positions(t->g);
    char what[160];
    if (s->length == 0)
        return wrong(s, "the source is empty, expected a text to translate");
    if (positions < 0 || s->length < positions)
        return FV_OK;
    snprintf(what, sizeof what,
             "the source has %lld letters; with its end it must fit the model's %lld positions "
             "(max_position_embeddings)",
             (long long)s->length, (long long)positions);
    return wrong(s, what);
}

static fv_status reserve(translation *t, int64_t count)
{
    if (count <= t->capacity)
        return FV_OK;
    int64_t room = count + count / 2;
    fv_free(t->g->ctx, t->ids);
    t->capacity = 0;
    t->ids = fv_alloc(t->g->ctx, (size_t)room * sizeof *t->ids);
    if (t->ids == NULL)
        return FV_ERR_RESOURCE;
    t->capacity = room;
    return FV_OK;
}

/* Everything up to the logits of the first token. */
static fv_status read_source(translation *t, const source *s)
{
    const fv_tokenizer *tokenizer = t->g->tokenizer;
    CLI_TRY(check(t, s));
    CLI_TRY(reserve(t, s->length + 1));
    fv_tokenizer_encode(tokenizer, s->text, s->length, t->ids, &t->unknown);
    t->ids[s->length] = tokenizer->end;
    CLI_TRY(fv_stream_source(t->g->stream, t->ids, s->length + 1));
    return fv_stream_feed(t->g->stream, &tokenizer->begin, 1, t->g->logits);
}

/* The row of --json: printed for a prompt, kept for records. */
static fv_status put_row(translation *t, const source *s)
{
    json_t *row = generate_row(t->g, s->text, s->length);
    if (s->path == NULL || row == NULL)
        return cli_json_print(row);
    json_t *name = json_string(s->name); /* NULL: no UTF-8 */
    json_object_set_new(row, "name", name != NULL ? name : json_null());
    return json_array_append_new(t->rows, row) == 0 ? FV_OK : FV_ERR_RESOURCE;
}

static void show_progress(translation *t)
{
    double seconds = cli_now() - t->progress.begin;
    fv_progress report = {.phase = "translate",
                          .done = t->sources,
                          .unit = "source",
                          .rate = seconds > 0 ? (double)t->drawn / seconds : 0,
                          .seconds_left = -1,
                          .loss = (double)NAN};
    if (!t->quiet)
        cli_progress_show(&t->progress, &report);
}

static fv_status translate(translation *t, const source *s)
{
    generation *g = t->g;
    int64_t drawn = 0;
    CLI_TRY(read_source(t, s));
    if (cli_flag(g->args, "json")) {
        json_decref(g->ids);
        g->ids = json_array();
        if (g->ids == NULL)
            return FV_ERR_RESOURCE;
    } else if (cli_flag(g->args, "echo")) {
        fwrite(s->text, 1, (size_t)s->length, stdout);
        putchar('\t');
    }
    fv_status status = generate_draw(g, &drawn);
    t->drawn += drawn;
    t->unended += !g->ended;
    t->sources++;
    if (g->ids == NULL)
        putchar('\n');
    cli_flush();
    if (g->ids != NULL && (status == FV_OK || status == FV_STOPPED))
        CLI_TRY(put_row(t, s));
    show_progress(t);
    return status;
}

/* ---- files --------------------------------------------------------------------------------------- */

/* Of a name that options and settings have checked. */
static const fv_reader_kind *find_reader(const char *name)
{
    int i = 0;
    while (i < fv_reader_kind_count() - 1 && strcmp(fv_reader_kind_at(i)->name, name) != 0)
        i++;
    return fv_reader_kind_at(i);
}

/* The first column of a line: the training data's translation may stand behind it, and is not looked at. */
static fv_status first_column(source *s)
{
    const char *tab = memchr(s->text, '\t', (size_t)s->length);
    int64_t rest = tab != NULL ? s->length - (tab + 1 - s->text) : 0;
    if (tab == NULL)
        return FV_OK;
    if (memchr(tab + 1, '\t', (size_t)rest) != NULL)
        return wrong(s, "more than 2 columns; expected a text, and perhaps its translation");
    s->length = tab - s->text;
    return FV_OK;
}

static fv_status translate_records(translation *t, const fv_reader_kind *kind, fv_reader *reader,
                                   const char *path)
{
    fv_record record;
    int more;
    CLI_TRY(fv_reader_next(reader, &record, &more));
    while (more && !ferror(stdout)) {
        source s = {path, record.line, record.name, record.sequence, record.length};
        if (kind->columns)
            CLI_TRY(first_column(&s));
        CLI_TRY(translate(t, &s));
        CLI_TRY(fv_reader_next(reader, &record, &more));
    }
    return FV_OK;
}

static fv_status translate_files(translation *t)
{
    const cli_args *args = t->g->args;
    const fv_reader_kind *kind = find_reader(cli_text(args, "reader"));
    for (int i = 0; i < cli_count(args, "input") && !ferror(stdout); i++) {
        const char *path = cli_item(args, "input", i);
        fv_reader *reader;
        CLI_TRY(fv_reader_open(&reader, t->g->ctx, kind->name, path));
        fv_status status = translate_records(t, kind, reader, path);
        fv_reader_close(reader);
        CLI_TRY(status);
    }
    return FV_OK;
}

/* ---- the run --------------------------------------------------------------------------------------- */

static fv_status check_options(const generation *g)
{
    const char *directory = cli_operand(g->args, 0);
    bool prompt = cli_given(g->args, "prompt"), input = cli_given(g->args, "input");
    if (!prompt && !input)
        return cli_fail(
            FV_ERR_USAGE,
            "generate: %s translates, and there is no source; give a text with --prompt, or files "
            "with --input",
            directory);
    if (prompt && input)
        return cli_fail(FV_ERR_USAGE, "generate: --prompt and --input are both given; expected one of them");
    if (prompt && cli_given(g->args, "reader"))
        return cli_fail(FV_ERR_USAGE, "generate: --reader says what --input holds, which is not given");
    if (cli_given(g->args, "state-in") || cli_given(g->args, "state-out"))
        return cli_fail(
            FV_ERR_USAGE,
            "generate: %s translates; --state-in and --state-out are for a text that goes on (--task lm)",
            directory);
    return FV_OK;
}

/* The translation begins with a token of its own, and may not be longer than the model's positions. */
static fv_status open_stream(generation *g)
{
    int64_t positions = generate_positions(g), room = positions - 1;
    if (positions >= 0 && g->tokens > room) {
        if (cli_given(g->args, "tokens"))
            cli_note("generate: the model has %lld positions; translations end at %lld tokens",
                     (long long)positions, (long long)room);
        g->tokens = room;
    }
    return generate_open(g, 1 + g->tokens);
}

static fv_status run(translation *t)
{
    generation *g = t->g;
    const char *prompt = cli_text(g->args, "prompt");
    if (prompt != NULL)
        return translate(t, &(source){.name = "--prompt", .text = prompt, .length = (int64_t)strlen(prompt)});
    if (cli_flag(g->args, "json"))
        t->rows = json_array();
    fv_status status = translate_files(t);
    if (t->rows == NULL || (status != FV_OK && status != FV_STOPPED))
        return status;
    CLI_TRY(cli_json_print(json_incref(t->rows)));
    return status;
}

fv_status generate_translations(generation *g)
{
    translation t = {.g = g};
    CLI_TRY(check_options(g));
    CLI_TRY(open_stream(g));
    bool shown = !cli_flag(g->args, "json") && isatty(STDOUT_FILENO) == 1;
    t.quiet = shown || cli_given(g->args, "prompt");
    cli_progress_begin(&t.progress);
    fv_status status = run(&t);
    cli_progress_clear(&t.progress);
    if (t.unknown > 0)
        cli_note("generate: unknown letters in the sources, read as X: %lld", (long long)t.unknown);
    if (status == FV_OK && t.unended > 0 && !ferror(stdout))
        cli_note("generate: translations cut at %lld tokens, before they ended: %lld of %lld",
                 (long long)g->tokens, (long long)t.unended, (long long)t.sources);
    generate_tell(cli_now() - t.progress.begin, t.drawn);
    json_decref(t.rows);
    fv_free(g->ctx, t.ids);
    return status;
}
