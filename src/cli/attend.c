/* cli/attend.c: `favor attend`: rows or a heat map of one head's attention over one sequence.
 *
 * Rows are computed in blocks that hold a bounded number of weights, and each block goes to whatever was
 * asked for: the largest entries, the whole rows, the map. Memory is linear in the sequence unless --all is
 * written to a file or as JSON; time is that of the rows asked for.
 */
#include "attend.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const cli_option options[] = {
    {.name = "data", .type = CLI_FILE, .help = "file to take the sequence from, plain or gzip"},
    {.name = "record",
     .type = CLI_TEXT,
     .metavar = "NAME|N",
     .fallback = "0",
     .help = "which record of it: its name, or its number counted from 0"},
    {.name = "sequence", .type = CLI_TEXT, .help = "the sequence itself, instead of --data"},
    {.name = "layer",
     .type = CLI_INT,
     .metavar = "L",
     .required = true,
     .min = 0,
     .max = 65535,
     .help = "layer, from 0"},
    {.name = "head",
     .type = CLI_INT,
     .metavar = "H",
     .required = true,
     .min = 0,
     .max = 65535,
     .help = "head, from 0"},
    {.name = "rows", .type = CLI_LIST, .metavar = "I,J,...", .help = "query tokens, from 0"},
    {.name = "all", .type = CLI_FLAG, .help = "all query tokens (as for --png when --rows is not given)"},
    {.name = "top",
     .type = CLI_INT,
     .metavar = "K",
     .min = 1,
     .max = 1 << 30,
     .fallback = "10",
     .help = "print the K largest weights of each row; --json without it: whole rows"},
    {.name = "png", .type = CLI_FILE, .help = "write a heat map"},
    {.name = "output",
     .letter = 'o',
     .type = CLI_FILE,
     .help = "write weights [n,tokens], rows [n] and tokens as safetensors"},
    {.name = "checkpoint",
     .type = CLI_ENUM,
     .choices = "best|last",
     .fallback = "best",
     .help = "model at the best validation loss (the last one where there is none yet), or the last one"},
};
static const cli_group own = {"Attention map", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {&own, &cli_common_group, NULL};

#define BLOCK_FLOATS ((int64_t)1 << 25) /* weights held at a time: 128 MiB */

typedef struct attend {
    fv_context *ctx;
    const cli_args *args;
    fv_model *model;
    const fv_tokenizer *tokenizer;
    char name[256]; /* of the sequence */
    int32_t *tokens;
    int64_t count;
    int64_t *rows;
    int64_t row_count;
    bool print; /* rows go to standard output */
    attend_map map;
    float *weights; /* [row_count][count] for --output */
    json_t *list;   /* --json */
} attend;

/* ---- the sequence -------------------------------------------------------------------------------- */

/* Letters to tokens; a causal model reads a begin token first, as in training. */
static fv_status encode(attend *a, const char *name, const char *letters, int64_t length)
{
    const fv_config *config = fv_model_config(a->model);
    int64_t begin = fv_config_bool(config, "is_decoder"), unknown = 0;
    int64_t places = fv_config_int(config, "max_position_embeddings");
    if (length == 0)
        return cli_fail(FV_ERR_FILE, "%s: the sequence is empty", name);
    snprintf(a->name, sizeof a->name, "%s", name);
    a->count = length + begin;
    if (strcmp(fv_config_text(config, "position_embedding_type"), "learned") == 0 && a->count > places) {
        cli_note("%s: the first %lld of %lld tokens are used: the model has no more positions", name,
                 (long long)places, (long long)a->count);
        a->count = places;
    }
    a->tokens = fv_alloc(a->ctx, (size_t)(length + begin) * sizeof *a->tokens);
    if (a->tokens == NULL)
        return FV_ERR_RESOURCE;
    a->tokens[0] = a->tokenizer->begin;
    fv_tokenizer_encode(a->tokenizer, letters, length, a->tokens + begin, &unknown);
    if (unknown > 0)
        cli_note("%s: %lld unknown letters are read as X", name, (long long)unknown);
    return FV_OK;
}

static const char *reader_of(const fv_tokenizer *tokenizer)
{
    for (int i = 0; i < fv_reader_kind_count(); i++)
        if (strcmp(fv_reader_kind_at(i)->tokenizer, tokenizer->name) == 0)
            return fv_reader_kind_at(i)->name;
    return "bytes";
}

static fv_status find_record(attend *a, fv_reader *reader, const char *path)
{
    const char *wanted = cli_text(a->args, "record");
    int64_t number = -1, index = 0;
    if (!cli_parse_int(wanted, &number))
        number = -1;
    for (fv_record record;; index++) {
        int more;
        CLI_TRY(fv_reader_next(reader, &record, &more));
        if (!more)
            return cli_fail(FV_ERR_FILE, "%s: no record %s among %lld", path, wanted, (long long)index);
        if (index == number || strcmp(record.name, wanted) == 0)
            return encode(a, record.name, record.sequence, record.length);
    }
}

static fv_status read_sequence(attend *a)
{
    const char *text = cli_text(a->args, "sequence"), *path = cli_text(a->args, "data");
    if ((text == NULL) == (path == NULL))
        return cli_fail(FV_ERR_USAGE, "attend: give either --data or --sequence");
    if (text != NULL)
        return encode(a, "--sequence", text, (int64_t)strlen(text));
    fv_reader *reader;
    CLI_TRY(fv_reader_open(&reader, a->ctx, reader_of(a->tokenizer), path));
    fv_status status = find_record(a, reader, path);
    fv_reader_close(reader);
    return status;
}

/* ---- which rows, and what becomes of them -------------------------------------------------------- */

static fv_status choose_rows(attend *a)
{
    bool given = cli_given(a->args, "rows"), png = cli_given(a->args, "png");
    bool all = cli_flag(a->args, "all") || (!given && png);
    if (given && cli_flag(a->args, "all"))
        return cli_fail(FV_ERR_USAGE, "attend: --rows and --all exclude each other");
    if (!given && !all)
        return cli_fail(FV_ERR_USAGE,
                        "attend: say which rows: --rows I,J,..., --all, or --png for a map of all");
    a->row_count = all ? a->count : cli_count(a->args, "rows");
    a->rows = fv_alloc(a->ctx, (size_t)a->row_count * sizeof *a->rows);
    if (a->rows == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < a->row_count; i++) {
        const char *text = all ? NULL : cli_item(a->args, "rows", (int)i);
        a->rows[i] = i;
        if (!all && (!cli_parse_int(text, &a->rows[i]) || a->rows[i] < 0 || a->rows[i] >= a->count))
            return cli_fail(FV_ERR_USAGE, "--rows %s: expected a token from 0 to %lld", text,
                            (long long)a->count - 1);
    }
    a->print =
        cli_flag(a->args, "json") || cli_given(a->args, "top") || (!png && !cli_given(a->args, "output"));
    return FV_OK;
}

static fv_status make_outputs(attend *a)
{
    if (cli_given(a->args, "png"))
        CLI_TRY(attend_map_make(&a->map, a->ctx, a->row_count, a->count));
    if (cli_flag(a->args, "json"))
        a->list = json_array();
    if (!cli_given(a->args, "output"))
        return FV_OK;
    double bytes = (double)a->row_count * (double)a->count * sizeof(float);
    if (bytes > (double)fv_available_memory())
        return cli_fail(FV_ERR_RESOURCE, "--output: %lld rows of %lld weights need %s, %s are available",
                        (long long)a->row_count, (long long)a->count, cli_bytes(bytes).text,
                        cli_bytes((double)fv_available_memory()).text);
    a->weights = fv_alloc(a->ctx, (size_t)(a->row_count * a->count) * sizeof *a->weights);
    return a->weights != NULL ? FV_OK : FV_ERR_RESOURCE;
}

/* ---- rows as text and JSON ----------------------------------------------------------------------- */

/* A token as people read it: its letter, or the byte's number. */
static cli_figure token_text(const attend *a, int64_t index)
{
    cli_figure figure;
    int letter = fv_tokenizer_letter(a->tokenizer, a->tokens[index]);
    if (letter > ' ' && letter < 127)
        snprintf(figure.text, sizeof figure.text, "%c", letter);
    else
        snprintf(figure.text, sizeof figure.text, "#%d", (int)a->tokens[index]);
    return figure;
}

/* The largest entry of `row` that comes after (`weight`, `token`) in falling order; ties: the lower token
 * first. Called for each of the few entries printed. */
static int64_t next_largest(const attend *a, const float *row, float weight, int64_t token)
{
    int64_t best = -1;
    for (int64_t j = 0; j < a->count; j++) {
        bool after = row[j] < weight || (row[j] == weight && j > token);
        if (after && row[j] > 0 && (best < 0 || row[j] > row[best]))
            best = j;
    }
    return best;
}

static json_t *top_json(const attend *a, const float *row)
{
    json_t *top = json_array();
    float weight = INFINITY;
    int64_t token = -1, count = cli_int(a->args, "top");
    for (int64_t i = 0; i < count && (token = next_largest(a, row, weight, token)) >= 0; i++) {
        weight = row[token];
        json_array_append_new(top,
                              json_pack("{s:I, s:s, s:o}", "token", (json_int_t)token, "letter",
                                        token_text(a, token).text, "weight", cli_json_real((double)weight)));
    }
    return top;
}

static json_t *row_json(const attend *a, int64_t query, const float *row)
{
    json_t *object = json_pack("{s:I, s:s}", "row", (json_int_t)query, "letter", token_text(a, query).text);
    if (cli_given(a->args, "top")) {
        json_object_set_new(object, "top", top_json(a, row));
        return object;
    }
    json_t *weights = json_array();
    for (int64_t j = 0; j < a->count; j++)
        json_array_append_new(weights, cli_json_real((double)row[j]));
    json_object_set_new(object, "weights", weights);
    return object;
}

static void print_row(const attend *a, int64_t query, const float *row)
{
    float weight = INFINITY;
    int64_t token = -1, count = cli_int(a->args, "top");
    printf("%6lld %s:", (long long)query, token_text(a, query).text);
    for (int64_t i = 0; i < count && (token = next_largest(a, row, weight, token)) >= 0; i++) {
        weight = row[token];
        printf("%s %lld %s %.4f", i > 0 ? "," : "", (long long)token, token_text(a, token).text,
               (double)weight);
    }
    putchar('\n');
}

/* ---- the work ------------------------------------------------------------------------------------ */

static void take_row(attend *a, int64_t index, const float *row)
{
    if (a->map.sums != NULL)
        attend_map_add(&a->map, index, row);
    if (a->weights != NULL)
        memcpy(a->weights + index * a->count, row, (size_t)a->count * sizeof *row);
    if (a->print && a->list != NULL)
        json_array_append_new(a->list, row_json(a, a->rows[index], row));
    else if (a->print)
        print_row(a, a->rows[index], row);
}

static fv_status compute_blocks(attend *a, int64_t block, float *weights)
{
    cli_progress progress;
    cli_progress_begin(&progress);
    fv_status status = FV_OK;
    for (int64_t at = 0; at < a->row_count && status == FV_OK; at += block) {
        int64_t n = a->row_count - at < block ? a->row_count - at : block;
        status = fv_model_attention(a->model, a->tokens, a->count, cli_int(a->args, "layer"),
                                    cli_int(a->args, "head"), a->rows + at, n, weights);
        for (int64_t i = 0; i < n && status == FV_OK; i++)
            take_row(a, at + i, weights + i * a->count);
        double seconds = cli_now() - progress.begin, rate = (double)(at + n) / fmax(seconds, 1e-9);
        cli_progress_show(&progress, &(fv_progress){.phase = "attend",
                                                    .done = at + n,
                                                    .total = a->row_count,
                                                    .unit = "row",
                                                    .rate = rate,
                                                    .loss = (double)NAN,
                                                    .seconds_left = (double)(a->row_count - at - n) / rate});
    }
    cli_progress_clear(&progress);
    return status;
}

static fv_status compute(attend *a)
{
    int64_t block = BLOCK_FLOATS / a->count;
    block = block < 1 ? 1 : block > a->row_count ? a->row_count : block;
    float *weights = fv_alloc(a->ctx, (size_t)(block * a->count) * sizeof *weights);
    fv_status status = weights != NULL ? compute_blocks(a, block, weights) : FV_ERR_RESOURCE;
    fv_free(a->ctx, weights);
    return status;
}

/* ---- results ------------------------------------------------------------------------------------- */

static fv_status write_tensors(const attend *a)
{
    const fv_tensor tensors[] = {
        {.name = "weights",
         .dtype = FV_F32,
         .rank = 2,
         .shape = {a->row_count, a->count},
         .count = a->row_count * a->count,
         .data = a->weights},
        {.name = "rows",
         .dtype = FV_I64,
         .rank = 1,
         .shape = {a->row_count},
         .count = a->row_count,
         .data = a->rows},
        {.name = "tokens",
         .dtype = FV_I32,
         .rank = 1,
         .shape = {a->count},
         .count = a->count,
         .data = a->tokens},
    };
    const fv_metadata metadata[] = {{"sequence", a->name}};
    return fv_tensors_write(a->ctx, cli_text(a->args, "output"), tensors, CLI_COUNT(tensors), metadata, 1);
}

static fv_status write_map(const attend *a)
{
    char comment[512];
    snprintf(comment, sizeof comment,
             "Attention (%s) of layer %lld, head %lld over %s, %lld tokens. Rows: queries; columns: keys; a "
             "cell is the "
             "mean of %lld x %lld weights; colours follow the square root.",
             fv_config_text(fv_model_config(a->model), "attention.kind"),
             (long long)cli_int(a->args, "layer"), (long long)cli_int(a->args, "head"), a->name,
             (long long)a->count, (long long)a->map.row_block, (long long)a->map.col_block);
    return attend_map_write(&a->map, a->ctx, cli_text(a->args, "png"), a->rows, comment);
}

static fv_status finish(attend *a)
{
    if (a->map.sums != NULL)
        CLI_TRY(write_map(a));
    if (a->weights != NULL)
        CLI_TRY(write_tensors(a));
    if (a->list == NULL)
        return FV_OK;
    return cli_json_print(json_pack("{s:s, s:s, s:I, s:I, s:I, s:O}", "sequence", a->name, "attention",
                                    fv_config_text(fv_model_config(a->model), "attention.kind"), "layer",
                                    (json_int_t)cli_int(a->args, "layer"), "head",
                                    (json_int_t)cli_int(a->args, "head"), "tokens", (json_int_t)a->count,
                                    "rows", a->list));
}

static fv_status attend_run(attend *a)
{
    CLI_TRY(cli_run_model(&a->model, a->ctx, a->args));
    a->tokenizer = fv_model_tokenizer(a->model);
    CLI_TRY(read_sequence(a));
    CLI_TRY(choose_rows(a));
    CLI_TRY(make_outputs(a));
    CLI_TRY(compute(a));
    return finish(a);
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    attend a = {.ctx = ctx, .args = args};
    fv_status status = attend_run(&a);
    json_decref(a.list);
    attend_map_free(&a.map, ctx);
    fv_free(ctx, a.weights);
    fv_free(ctx, a.rows);
    fv_free(ctx, a.tokens);
    fv_model_destroy(a.model);
    return status;
}

const cli_command cli_attend = {
    .name = "attend",
    .summary = "show what a head of a trained model attends to",
    .operands = "DIR",
    .min_operands = 1,
    .max_operands = 1,
    .description =
        "DIR is a run directory of `favor train`. Rows of the attention matrix of one layer and head for one "
        "sequence, without forming the matrix: the largest weights of each, or all of them; or a heat map, "
        "in "
        "which a cell is the mean of a block of tokens when the sequence is long.",
    .examples = "favor attend runs/mlm --data proteins.fasta.gz --record 0 --layer 0 --head 0 --png map.png\n"
                "favor attend runs/mlm --sequence MKTAYIAKQR --layer 1 --head 2 --rows 0,5 --top 3",
    .groups = groups,
    .run = run,
};
