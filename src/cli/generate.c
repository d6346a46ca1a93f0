/* cli/generate.c: `favor generate`: the command, and one text that a causal model continues token by token, at constant cost
 * a token, in a stream that may come from a file and be kept in one. Texts of files and translations: generate_texts.c. */
#include "generate.h"
#include <stdlib.h>
#include <string.h>

static const cli_option options[] = {
    {.name = "prompt",
     .type = CLI_TEXT,
     .help = "text to continue (none: begin a new sequence), or to translate"},
    {.name = "input",
     .type = CLI_FILES,
     .help = "files of texts to continue or to translate, plain or gzip: a line for each"},
    {.name = "reader", .key = "reader", .fallback = "tsv"},
    {.name = "tokens",
     .letter = 'n',
     .type = CLI_INT,
     .min = 0,
     .max = 1e15,
     .fallback = "100",
     .help = "how many tokens at most; a sequence that ends is not continued"},
    {.name = "temperature",
     .type = CLI_REAL,
     .min = 0,
     .max = 1e6,
     .fallback = "1",
     .help = "divides the logits, 0: always the likeliest token"},
    {.name = "top-k",
     .type = CLI_INT,
     .metavar = "K",
     .min = 0,
     .max = 1e9,
     .fallback = "0",
     .help = "draw among the K likeliest tokens, 0: all"},
    {.name = "top-p",
     .type = CLI_REAL,
     .metavar = "P",
     .min = 0,
     .max = 1,
     .fallback = "1",
     .help = "draw among the likeliest tokens that together have probability P"},
    {.name = "echo",
     .type = CLI_FLAG,
     .help = "print the prompt before what follows it, a source and a tab before its translation"},
    {.name = "checkpoint",
     .type = CLI_ENUM,
     .choices = "best|last",
     .fallback = "best",
     .help = "model at the best validation loss (the last one where there is none yet), or the last one"},
    CLI_DTYPE,
    {.name = "state-in", .type = CLI_FILE, .help = "continue from a state written by --state-out"},
    {.name = "state-out", .type = CLI_FILE, .help = "write the state after the last token"},
};
static const cli_group own = {"Generation", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {&own, &cli_common_group, NULL};

/* ---- the model and its positions -------------------------------------------------------------------------- */

static fv_status check_causal(const generation *g, const char *directory)
{
    const fv_config *config = fv_model_config(g->model);
    if (fv_config_bool(config, "is_decoder"))
        return FV_OK;
    if (strcmp(fv_config_text(config, "head"), "lm") != 0)
        return cli_fail(FV_ERR_USAGE,
                        "generate: %s holds a model that gives labels, not text; train one with --task lm",
                        directory);
    return cli_fail(
        FV_ERR_USAGE,
        "generate: %s holds a masked model, which fills in hidden letters and cannot continue a text; "
        "train one with --task lm",
        directory);
}

int64_t generate_positions(const generation *g)
{
    const fv_config *config = fv_model_config(g->model);
    bool none = strcmp(fv_config_text(config, "position_embedding_type"), "none") == 0;
    return none ? -1 : fv_config_int(config, "max_position_embeddings");
}

/* ---- one text ------------------------------------------------------------------------------------ */

typedef struct single {
    generation *g;
    fv_stream *stream;
    float *logits;  /* [vocabulary], after the last token fed */
    int64_t tokens; /* to draw at most */
    json_t *ids;    /* --json: the tokens drawn; else NULL, and they are printed as they come */
    bool ended;     /* the last one was the end of the sequence */
} single;

/* Positions end somewhere; a longer request is cut there, not failed half-way. */
static int64_t limit_tokens(const generation *g, int64_t used, int64_t tokens)
{
    int64_t positions = generate_positions(g);
    if (positions < 0 || tokens <= positions - used)
        return tokens;
    cli_note("generate: the model has %lld positions; generating %lld tokens", (long long)positions,
             (long long)(positions > used ? positions - used : 0));
    return positions > used ? positions - used : 0;
}

/* Tokens of a saved state; attention that keeps keys needs room for them. */
static fv_status state_tokens(const generation *g, const char *path, int64_t *tokens)
{
    fv_tensors *file;
    *tokens = 0;
    CLI_TRY(fv_tensors_open(&file, g->ctx, path));
    const fv_tensor *tensor = fv_tensors_find(file, "tokens");
    /* What is wrong with another file is told when it is loaded. */
    bool sound = tensor != NULL && tensor->count == 1 && tensor->dtype == FV_I64;
    fv_status status = sound ? fv_tensor_to_i64(g->ctx, tensor, tokens) : FV_OK;
    fv_tensors_close(file);
    return status;
}

static fv_status open_stream(single *s)
{
    const generation *g = s->g;
    const char *prompt = cli_text(g->args, "prompt"), *state = cli_text(g->args, "state-in");
    int64_t used = 1;
    if (state != NULL)
        CLI_TRY(state_tokens(g, state, &used));
    used += prompt != NULL ? (int64_t)strlen(prompt) : 0;
    s->tokens = limit_tokens(g, used, g->tokens);
    CLI_TRY(fv_stream_create(&s->stream, g->model, used + s->tokens));
    s->logits = fv_alloc(g->ctx, (size_t)g->tokenizer->size * sizeof *s->logits);
    if (s->logits == NULL)
        return FV_ERR_RESOURCE;
    return state != NULL ? fv_stream_load(s->stream, state) : FV_OK;
}

/* Feeds the token that begins a sequence, unless one is being continued, and the prompt. */
static fv_status feed_prompt(const single *s, int32_t *ids)
{
    const generation *g = s->g;
    const char *prompt = cli_text(g->args, "prompt");
    int64_t count = 0, unknown = 0;
    if (!cli_given(g->args, "state-in"))
        ids[count++] = g->tokenizer->begin;
    if (prompt != NULL) {
        int64_t letters = (int64_t)strlen(prompt);
        fv_tokenizer_encode(g->tokenizer, prompt, letters, ids + count, &unknown);
        count += letters;
    }
    if (unknown > 0)
        cli_note("generate: unknown letters in the prompt, read as X: %lld", (long long)unknown);
    return fv_stream_feed(s->stream, ids, count, s->logits);
}

static fv_status begin_stream(single *s)
{
    const generation *g = s->g;
    const char *prompt = cli_text(g->args, "prompt");
    CLI_TRY(open_stream(s));
    int32_t *ids = fv_alloc(g->ctx, (1 + (prompt != NULL ? strlen(prompt) : 0)) * sizeof *ids);
    if (ids == NULL)
        return FV_ERR_RESOURCE;
    fv_status status = feed_prompt(s, ids);
    fv_free(g->ctx, ids);
    return status;
}

/* Prints a token at once, or keeps it for --json. */
static void put_token(const single *s, int32_t token)
{
    if (s->ids != NULL) {
        json_array_append_new(s->ids, json_integer(token));
        return;
    }
    int letter = fv_tokenizer_letter(s->g->tokenizer, token);
    if (letter >= 0)
        putchar(letter);
    cli_flush();
}

/* Draws and puts tokens behind those fed. Every token drawn is fed, so that a saved state holds them all. */
static fv_status draw(single *s, int64_t *drawn)
{
    const generation *g = s->g;
    s->ended = false;
    for (*drawn = 0; *drawn < s->tokens && !ferror(stdout);) {
        int32_t token;
        if (cli_signal() != 0)
            return FV_STOPPED;
        CLI_TRY(
            fv_sample(g->ctx, g->tokenizer, &g->sampling, fv_stream_tokens(s->stream), s->logits, &token));
        s->ended = token == g->tokenizer->end;
        if (s->ended)
            break;
        put_token(s, token);
        CLI_TRY(fv_stream_feed(s->stream, &token, 1, s->logits));
        (*drawn)++;
    }
    return FV_OK;
}

void generate_tell(double seconds, int64_t drawn)
{
    if (seconds > 2 && drawn > 0)
        cli_note("generate: %lld tokens in %.1f s, %s tokens/s", (long long)drawn, seconds,
                 cli_si((double)drawn / seconds).text);
}

static json_t *text_json(const char *text, size_t length)
{
    json_t *string = json_stringn(text, length);
    return string != NULL ? string : json_null();
}

json_t *generate_row(const generation *g, const char *prompt, int64_t prompt_length, json_t *ids, bool ended)
{
    size_t count = json_array_size(ids), length = 0;
    char *text = fv_alloc(g->ctx, count + 1);
    for (size_t i = 0; text != NULL && i < count; i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(ids, i));
        int letter = fv_tokenizer_letter(g->tokenizer, id);
        if (letter >= 0)
            text[length++] = (char)letter;
    }
    json_t *row = NULL;
    if (text != NULL)
        row = json_pack("{s:o, s:o, s:O, s:b}", "prompt", text_json(prompt, (size_t)prompt_length), "text",
                        text_json(text, length), "ids", ids, "ended", ended);
    fv_free(g->ctx, text);
    json_decref(ids);
    return row;
}

static fv_status continue_text(single *s)
{
    const generation *g = s->g;
    const char *prompt = cli_given(g->args, "prompt") ? cli_text(g->args, "prompt") : "";
    int64_t drawn;
    CLI_TRY(begin_stream(s));
    if (cli_flag(g->args, "json"))
        s->ids = json_array();
    else if (cli_flag(g->args, "echo"))
        fputs(prompt, stdout);
    double begin = cli_now();
    fv_status status = draw(s, &drawn);
    if (s->ids == NULL && (status == FV_OK || status == FV_STOPPED || drawn > 0))
        putchar('\n');
    cli_flush();
    generate_tell(cli_now() - begin, drawn);
    if (status != FV_OK && status != FV_STOPPED)
        return status;
    if (cli_given(g->args, "state-out"))
        CLI_TRY(fv_stream_save(s->stream, cli_text(g->args, "state-out")));
    if (s->ids != NULL)
        CLI_TRY(
            cli_json_print(generate_row(g, prompt, (int64_t)strlen(prompt), json_incref(s->ids), s->ended)));
    return status;
}

static fv_status generate(generation *g)
{
    single s = {.g = g};
    fv_status status = continue_text(&s);
    json_decref(s.ids);
    fv_free(g->ctx, s.logits);
    fv_stream_destroy(s.stream);
    return status;
}

/* ---- the command --------------------------------------------------------------------------------- */

static fv_status load_and_generate(generation *g)
{
    CLI_TRY(cli_run_model(&g->model, g->ctx, g->args));
    g->translates = fv_config_bool(fv_model_config(g->model), "is_encoder_decoder");
    if (!g->translates)
        CLI_TRY(check_causal(g, cli_operand(g->args, 0)));
    g->tokenizer = fv_model_tokenizer(g->model);
    cli_signals_catch();
    bool texts = g->translates || cli_given(g->args, "input") || cli_given(g->args, "reader");
    return texts ? generate_all(g) : generate(g);
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    generation g = {.ctx = ctx, .args = args, .tokens = cli_int(args, "tokens")};
    fv_sampling_init(&g.sampling);
    g.sampling.temperature = cli_real(args, "temperature");
    g.sampling.top_k = cli_int(args, "top-k");
    g.sampling.top_p = cli_real(args, "top-p");
    g.sampling.seed = (uint64_t)cli_int(args, "seed");
    fv_status status = load_and_generate(&g);
    fv_model_destroy(g.model);
    return status;
}

const cli_command cli_generate = {
    .name = "generate",
    .summary = "sample from a causal model or translate, token by token",
    .operands = "DIR",
    .min_operands = 1,
    .max_operands = 1,
    .description =
        "DIR is a run directory of `favor train --task lm` or `--task translate`. The new text alone goes to "
        "standard output, letter by letter. A token costs the same however long the text is, unless the "
        "attention "
        "is exact. What was generated from a seed, stopped and continued with --state-in is what one run "
        "would "
        "have given.\n\n"
        "Texts of files come with --input: each is continued, or translated, and a line is written for each, "
        "in "
        "their order. Up to 32 go through the model together, as many as a quarter of the memory holds; what "
        "a text becomes does "
        "not depend on the others, sampled or not: it is what --prompt gives. Of lines with columns the "
        "first is the text; "
        "a second, as in the training data, is not looked at. A model that translates has its encoder read a "
        "source once.",
    .examples = "favor generate runs/lm --prompt MKTAYIAKQR -n 200 --temperature 0.8 --seed 7\n"
                "favor generate runs/lm --input prompts.txt -n 50 --echo\n"
                "favor generate runs/translate --input test.tsv --temperature 0 --json",
    .groups = groups,
    .run = run,
};
