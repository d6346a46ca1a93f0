/* cli/generate.c: `favor generate`: samples from a causal model token by token, at constant cost a token. Encoder-decoders:
 * translate.c. */
#include "generate.h"
#include <stdlib.h>
#include <string.h>

static const cli_option options[] = {
    {.name = "prompt",
     .type = CLI_TEXT,
     .help = "text to continue (none: begin a new sequence), or to translate"},
    {.name = "input",
     .type = CLI_FILES,
     .help = "files of texts to translate, plain or gzip: a line for each"},
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

/* ---- the model and its stream -------------------------------------------------------------------------- */

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

static fv_status check_continues(const generation *g, const char *directory)
{
    CLI_TRY(check_causal(g, directory));
    if (cli_given(g->args, "input") || cli_given(g->args, "reader"))
        return cli_fail(
            FV_ERR_USAGE,
            "generate: %s continues a text, given with --prompt; --input and --reader are for models "
            "that translate (--task translate)",
            directory);
    return FV_OK;
}

int64_t generate_positions(const generation *g)
{
    const fv_config *config = fv_model_config(g->model);
    bool none = strcmp(fv_config_text(config, "position_embedding_type"), "none") == 0;
    return none ? -1 : fv_config_int(config, "max_position_embeddings");
}

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

fv_status generate_open(generation *g, int64_t capacity)
{
    CLI_TRY(fv_stream_create(&g->stream, g->model, capacity));
    g->logits = fv_alloc(g->ctx, (size_t)g->tokenizer->size * sizeof *g->logits);
    return g->logits != NULL ? FV_OK : FV_ERR_RESOURCE;
}

static fv_status open_stream(generation *g)
{
    const char *prompt = cli_text(g->args, "prompt"), *state = cli_text(g->args, "state-in");
    int64_t used = 1;
    if (state != NULL)
        CLI_TRY(state_tokens(g, state, &used));
    used += prompt != NULL ? (int64_t)strlen(prompt) : 0;
    g->tokens = limit_tokens(g, used, g->tokens);
    CLI_TRY(generate_open(g, used + g->tokens));
    return state != NULL ? fv_stream_load(g->stream, state) : FV_OK;
}

/* Feeds the token that begins a sequence, unless one is being continued, and the prompt. */
static fv_status feed_prompt(generation *g, int32_t *ids)
{
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
    return fv_stream_feed(g->stream, ids, count, g->logits);
}

static fv_status begin_stream(generation *g)
{
    const char *prompt = cli_text(g->args, "prompt");
    CLI_TRY(open_stream(g));
    int32_t *ids = fv_alloc(g->ctx, (1 + (prompt != NULL ? strlen(prompt) : 0)) * sizeof *ids);
    if (ids == NULL)
        return FV_ERR_RESOURCE;
    fv_status status = feed_prompt(g, ids);
    fv_free(g->ctx, ids);
    return status;
}

/* ---- tokens -------------------------------------------------------------------------------------- */

/* Prints a token at once, or keeps it for --json. */
static void put_token(generation *g, int32_t token)
{
    if (g->ids != NULL) {
        json_array_append_new(g->ids, json_integer(token));
        return;
    }
    int letter = fv_tokenizer_letter(g->tokenizer, token);
    if (letter >= 0)
        putchar(letter);
    cli_flush();
}

fv_status generate_draw(generation *g, int64_t *drawn)
{
    fv_sampling sampling;
    g->ended = false;
    fv_sampling_init(&sampling);
    sampling.temperature = cli_real(g->args, "temperature");
    sampling.top_k = cli_int(g->args, "top-k");
    sampling.top_p = cli_real(g->args, "top-p");
    sampling.seed = (uint64_t)cli_int(g->args, "seed");
    for (*drawn = 0; *drawn < g->tokens && !ferror(stdout);) {
        int32_t token;
        if (cli_signal() != 0)
            return FV_STOPPED;
        CLI_TRY(fv_sample(g->ctx, g->tokenizer, &sampling, fv_stream_tokens(g->stream), g->logits, &token));
        g->ended = token == g->tokenizer->end;
        if (g->ended)
            break;
        put_token(g, token);
        CLI_TRY(fv_stream_feed(g->stream, &token, 1, g->logits));
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

json_t *generate_row(const generation *g, const char *prompt, int64_t prompt_length)
{
    size_t count = json_array_size(g->ids), length = 0;
    char *text = fv_alloc(g->ctx, count + 1);
    if (text == NULL)
        return NULL;
    for (size_t i = 0; i < count; i++) {
        int32_t id = (int32_t)json_integer_value(json_array_get(g->ids, i));
        int letter = fv_tokenizer_letter(g->tokenizer, id);
        if (letter >= 0)
            text[length++] = (char)letter;
    }
    json_t *row = json_pack("{s:o, s:o, s:O, s:b}", "prompt", text_json(prompt, (size_t)prompt_length),
                            "text", text_json(text, length), "ids", g->ids, "ended", g->ended);
    fv_free(g->ctx, text);
    return row;
}

static fv_status print_json(const generation *g)
{
    const char *prompt = cli_given(g->args, "prompt") ? cli_text(g->args, "prompt") : "";
    return cli_json_print(generate_row(g, prompt, (int64_t)strlen(prompt)));
}

static fv_status generate(generation *g)
{
    int64_t drawn;
    CLI_TRY(begin_stream(g));
    if (cli_flag(g->args, "json"))
        g->ids = json_array();
    if (g->ids == NULL && cli_flag(g->args, "echo") && cli_text(g->args, "prompt") != NULL)
        fputs(cli_text(g->args, "prompt"), stdout);
    double begin = cli_now();
    fv_status status = generate_draw(g, &drawn);
    if (g->ids == NULL && (status == FV_OK || status == FV_STOPPED || drawn > 0))
        putchar('\n');
    cli_flush();
    generate_tell(cli_now() - begin, drawn);
    if (status != FV_OK && status != FV_STOPPED)
        return status;
    if (cli_given(g->args, "state-out"))
        CLI_TRY(fv_stream_save(g->stream, cli_text(g->args, "state-out")));
    if (g->ids != NULL)
        CLI_TRY(print_json(g));
    return status;
}

/* ---- the command --------------------------------------------------------------------------------- */

static fv_status load_and_generate(generation *g)
{
    CLI_TRY(cli_run_model(&g->model, g->ctx, g->args));
    bool translates = fv_config_bool(fv_model_config(g->model), "is_encoder_decoder");
    if (!translates)
        CLI_TRY(check_continues(g, cli_operand(g->args, 0)));
    g->tokenizer = fv_model_tokenizer(g->model);
    cli_signals_catch();
    return translates ? generate_translations(g) : generate(g);
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    generation g = {.ctx = ctx, .args = args, .tokens = cli_int(args, "tokens")};
    fv_status status = load_and_generate(&g);
    json_decref(g.ids);
    fv_free(ctx, g.logits);
    fv_stream_destroy(g.stream);
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
        "A model that translates takes one source with --prompt, or the records of files with --input, and "
        "writes a "
        "line for each: of lines with columns the first is the source, a second, as in the training data, is "
        "not "
        "looked at. The encoder reads a source once. What a source becomes does not depend on the others, "
        "sampled "
        "or not.",
    .examples = "favor generate runs/lm --prompt MKTAYIAKQR -n 200 --temperature 0.8 --seed 7\n"
                "favor generate runs/translate --input test.tsv --temperature 0 --json",
    .groups = groups,
    .run = run,
};
