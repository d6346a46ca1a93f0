/* cli/generate_texts.c: the side of `favor generate` that answers texts: where they come from, what is wrong with them, what is
 * told about all of them. */
#include "generate.h"
#include <string.h>
#include <unistd.h>

/* ---- what is wrong with a text ----------------------------------------------------------------------- */

static fv_status wrong(generate_texts *t, const generate_text *s, const char *what)
{
    if (s->path == NULL)
        snprintf(t->wrong, sizeof t->wrong, "generate: --prompt: %s", what);
    else if (s->line == 0)
        snprintf(t->wrong, sizeof t->wrong, "%s: %s: %s", s->path, s->name, what);
    else
        snprintf(t->wrong, sizeof t->wrong, "%s:%lld: %s", s->path, (long long)s->line, what);
    return s->path == NULL ? FV_ERR_USAGE : FV_ERR_FILE;
}

/* A source has its end behind it, a text that goes on the beginning of a sequence before it. */
static fv_status check(generate_texts *t, const generate_text *s)
{
    int64_t positions = generate_positions(t->g);
    char what[160];
    if (t->g->translates && s->length == 0)
        return wrong(t, s, "the source is empty, expected a text to translate");
    if (positions < 0 || s->length < positions)
        return FV_OK;
    snprintf(what, sizeof what,
             "the %s has %lld letters; with its %s it must fit the model's %lld positions "
             "(max_position_embeddings)",
             t->g->translates ? "source" : "text", (long long)s->length,
             t->g->translates ? "end" : "beginning", (long long)positions);
    return wrong(t, s, what);
}

/* The first column of a line: the training data's translation may stand behind it, and is not looked at. */
static fv_status first_column(generate_texts *t, generate_text *s)
{
    const char *tab = memchr(s->text, '\t', (size_t)s->length);
    int64_t rest = tab != NULL ? s->length - (tab + 1 - s->text) : 0;
    if (tab == NULL)
        return FV_OK;
    if (memchr(tab + 1, '\t', (size_t)rest) != NULL)
        return wrong(t, s, "more than 2 columns; expected a text, and perhaps its translation");
    s->length = tab - s->text;
    return FV_OK;
}

/* ---- the next one ------------------------------------------------------------------------------------ */

/* Of a name that options and settings have checked. */
static const fv_reader_kind *find_reader(const char *name)
{
    int i = 0;
    while (i < fv_reader_kind_count() - 1 && strcmp(fv_reader_kind_at(i)->name, name) != 0)
        i++;
    return fv_reader_kind_at(i);
}

/* The next record of the file that is open. */
static fv_status next_record(generate_texts *t, generate_text *s, int *more)
{
    fv_record record;
    CLI_TRY(fv_reader_next(t->reader, &record, more));
    if (!*more) {
        fv_reader_close(t->reader);
        t->reader = NULL;
        return FV_OK;
    }
    s->line = record.line;
    s->name = record.name;
    s->text = record.sequence;
    s->length = record.length;
    return t->kind->columns ? first_column(t, s) : FV_OK;
}

fv_status generate_text_next(generate_texts *t, generate_text *s, int *more)
{
    const cli_args *args = t->g->args;
    const char *prompt = cli_text(args, "prompt");
    *more = prompt != NULL && !t->prompt_read;
    *s = (generate_text){
        .name = "--prompt", .text = prompt, .length = prompt != NULL ? (int64_t)strlen(prompt) : 0};
    t->prompt_read = true;
    while (!*more && (t->reader != NULL || t->files < cli_count(args, "input"))) {
        if (t->reader == NULL)
            CLI_TRY(
                fv_reader_open(&t->reader, t->g->ctx, t->kind->name, cli_item(args, "input", t->files++)));
        s->path = cli_item(args, "input", t->files - 1);
        CLI_TRY(next_record(t, s, more));
    }
    return *more ? check(t, s) : FV_OK;
}

void generate_texts_close(generate_texts *texts)
{
    fv_reader_close(texts->reader);
}

/* ---- the run --------------------------------------------------------------------------------------- */

static fv_status check_options(const generation *g)
{
    const char *directory = cli_operand(g->args, 0);
    bool prompt = cli_given(g->args, "prompt"), input = cli_given(g->args, "input");
    if (!input && cli_given(g->args, "reader"))
        return cli_fail(FV_ERR_USAGE, "generate: --reader says what --input holds, which is not given");
    if (!prompt && !input)
        return cli_fail(
            FV_ERR_USAGE,
            "generate: %s translates, and there is no source; give a text with --prompt, or files "
            "with --input",
            directory);
    if (prompt && input)
        return cli_fail(FV_ERR_USAGE, "generate: --prompt and --input are both given; expected one of them");
    if (!cli_given(g->args, "state-in") && !cli_given(g->args, "state-out"))
        return FV_OK;
    if (g->translates)
        return cli_fail(
            FV_ERR_USAGE,
            "generate: %s translates; --state-in and --state-out are for a text that goes on (--task lm)",
            directory);
    return cli_fail(FV_ERR_USAGE,
                    "generate: --state-in and --state-out are for one text, given with --prompt; "
                    "--input holds any number of them");
}

/* A translation begins with a token of its own, and may not be longer than the model's positions. */
static void limit_translations(generation *g)
{
    int64_t positions = generate_positions(g), room = positions - 1;
    if (positions < 0 || g->tokens <= room)
        return;
    if (cli_given(g->args, "tokens"))
        cli_note("generate: the model has %lld positions; translations end at %lld tokens",
                 (long long)positions, (long long)room);
    g->tokens = room;
}

static void tell_counts(const generation *g, const generate_counts *counts, bool complete)
{
    if (counts->unknown > 0)
        cli_note("generate: unknown letters in the %s, read as X: %lld", g->translates ? "sources" : "texts",
                 (long long)counts->unknown);
    if (!complete)
        return;
    if (g->translates && counts->unended > 0)
        cli_note("generate: translations cut at %lld tokens, before they ended: %lld of %lld",
                 (long long)g->tokens, (long long)counts->unended, (long long)counts->texts);
    if (!g->translates && counts->full > 0)
        cli_note("generate: texts cut at the model's %lld positions, before they ended: %lld of %lld",
                 (long long)generate_positions(g), (long long)counts->full, (long long)counts->texts);
}

fv_status generate_all(generation *g)
{
    CLI_TRY(check_options(g));
    if (g->translates)
        limit_translations(g);
    bool json = cli_flag(g->args, "json"), prompt = cli_given(g->args, "prompt");
    generate_texts texts = {.g = g, .kind = find_reader(cli_text(g->args, "reader"))};
    generate_counts counts = {0};
    json_t *rows = json && !prompt ? json_array() : NULL;
    cli_progress progress;
    cli_progress_begin(&progress);
    /* Nothing to show beside one text, or texts that appear on the same terminal. */
    bool quiet = prompt || (!json && isatty(STDOUT_FILENO) == 1);
    fv_status status = generate_batch(g, &texts, quiet ? NULL : &progress, rows, &counts);
    cli_progress_clear(&progress);
    if (texts.wrong[0] != '\0')
        (void)cli_fail(status, "%s", texts.wrong);
    tell_counts(g, &counts, status == FV_OK && !ferror(stdout));
    generate_tell(cli_now() - progress.begin, counts.drawn);
    if (rows != NULL && (status == FV_OK || status == FV_STOPPED))
        CLI_TRY(cli_json_print(json_incref(rows)));
    json_decref(rows);
    generate_texts_close(&texts);
    return status;
}
