/* cli/cli.h: what the commands of the program `favor` share.
 *
 * A command is one file and one row of the table in main.c. Its option rows are the only place where its
 * options are written down: parsing, --help, the man page and shell completion all read them.
 *
 *     static const cli_option options[] = {
 *         {.name = "rows", .type = CLI_LIST, .metavar = "I,J,...", .help = "rows to write"},
 *     };
 *     static const cli_group own = {"Output", options, CLI_COUNT(options)};
 *     static const cli_group *const groups[] = {&own, &cli_attention_group, &cli_common_group, NULL};
 *
 *     static fv_status run(fv_context *ctx, const cli_args *args)
 *     {
 *         if (cli_given(args, "rows")) ...
 *     }
 *     const cli_command cli_apply = {.name = "apply", .summary = "...", .groups = groups, .run = run};
 *
 * A run function prints results to standard output and everything else to standard error. It reports a
 * failure of its own with cli_fail; a failure of the library on `ctx` is just returned: main prints its
 * message.
 */
#ifndef FAVOR_CLI_H
#define FAVOR_CLI_H

#include <favor/favor.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#define CLI_THREADS_MAX  4096 /* that a context takes */
#define CLI_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))

/* Carries a failure to the caller. */
#define CLI_TRY(expr)                                                                                        \
    do {                                                                                                     \
        fv_status try_status = (expr);                                                                       \
        if (try_status != FV_OK)                                                                             \
            return try_status;                                                                               \
    } while (0)

/* ---- options --------------------------------------------------------------------------------------- */

typedef enum cli_type {
    CLI_FLAG, /* no value */
    CLI_INT,  /* min..max when min < max */
    CLI_REAL, /* finite; min..max when min < max */
    CLI_TEXT,
    CLI_FILE,  /* a path (completed as one) */
    CLI_ENUM,  /* one of `choices` */
    CLI_LIST,  /* items between commas; each one of `choices` if there are any */
    CLI_FILES, /* one or more words up to the next option; may be repeated */
    CLI_PAIRS  /* key=value; may be repeated */
} cli_type;

typedef struct cli_option {
    const char *name; /* without dashes: "seed" */
    char letter;      /* short form 'n' for -n; 0: none */
    bool required;
    cli_type type;
    const char *metavar;  /* NULL: from the type */
    double min, max;      /* of numbers, inclusive, when min < max */
    const char *choices;  /* "a|b|c" */
    const char *fallback; /* the default, a value */
    const char *words;    /* or what it is worked out from ("1/sqrt(d)"); then there is no fallback */
    const char *key;      /* the configuration key it sets; what is not given here comes from that row */
    const char *help;     /* one sentence, no period */
} cli_option;

/* A titled run of options. */
typedef struct cli_group {
    const char *title;
    const cli_option *rows;
    int count;
} cli_group;

/* Shared groups. A row of an earlier group hides a later row of the same name, so a command that wants
 * --threads as a list puts its own row before cli_common_group. */
extern const cli_group cli_common_group; /* --seed --threads --cpu --json --help */
extern const cli_group cli_help_group;   /* --help alone, for generators */
/* main.c sets it on the context of the command. */
#define CLI_DTYPE                                                                                            \
    {                                                                                                        \
        .name = "dtype", .type = CLI_ENUM, .key = "dtype", .choices = "f32|bf16", .fallback = "f32",         \
        .help = "number format of the factors of matrix products"                                            \
    }

extern const cli_group cli_attention_group; /* --attention ... --dtype, as interfaces of every command */

typedef struct cli_args cli_args;

typedef struct cli_command {
    const char *name;               /* one word, or two: "bench attention" */
    const char *alias;              /* another name it answers to; NULL: none */
    const char *summary;            /* half a line, lower case, no period */
    const char *operands;           /* as usage shows them: "DIR", "FILE..."; NULL: none */
    int min_operands;               /* how many are needed */
    int max_operands;               /* and allowed; -1: any number */
    const char *description;        /* sentences; a blank line separates paragraphs; may be NULL */
    const char *examples;           /* command lines, one a line; may be NULL */
    const cli_group *const *groups; /* ends with NULL */
    bool show_settings;             /* --help and the manual list all configuration keys, for --set */
    bool generator;                 /* writes pages about favor itself: listed apart, run without a context */
    fv_status (*run)(fv_context *ctx, const cli_args *args);
} cli_command;

extern const cli_command cli_train, cli_eval, cli_generate, cli_data, cli_info, cli_man, cli_completion;
extern const cli_command cli_apply, cli_approx, cli_attend, cli_report;
extern const cli_command cli_bench_attention, cli_bench_train, cli_bench_decode, cli_bench_lengths,
    cli_bench_compare;

/* The table of commands, NULL past its end; by name or alias, NULL if there is none. */
const cli_command *cli_command_at(int index);
const cli_command *cli_command_find(const char *name);

/* Reads argv (after the command's name). FV_ERR_USAGE with a message printed: an unknown option (with the
 * nearest known one), a missing, wrong or repeated value, too few or too many operands. */
FV_NODISCARD fv_status cli_parse(cli_args **args, const cli_command *command, int argc, char **argv);
void cli_args_free(cli_args *args);
const cli_command *cli_args_command(const cli_args *args);

/* What was parsed. `name` must be an option of the command. */
bool cli_given(const cli_args *args, const char *name);       /* on the command line */
bool cli_flag(const cli_args *args, const char *name);        /* the same, for flags */
const char *cli_text(const cli_args *args, const char *name); /* or the default, or NULL */
int64_t cli_int(const cli_args *args, const char *name);      /* or the default, 0 without one */
double cli_real(const cli_args *args, const char *name);
int cli_count(const cli_args *args, const char *name); /* values of lists, files and pairs */
const char *cli_item(const cli_args *args, const char *name, int index);
const char *const *cli_items(const cli_args *args, const char *name); /* all cli_count of them */
int cli_operand_count(const cli_args *args);
const char *cli_operand(const cli_args *args, int index);
const char *const *cli_operands(const cli_args *args);
/* The words behind the command's name as they were given; the list ends with NULL. */
char *const *cli_words(const cli_args *args);

/* Walks the options of a command that are not hidden: *group and *row are the iterator, both 0 at first. */
const cli_option *cli_option_next(const cli_command *command, int *group, int *row);
const cli_option *cli_option_find(const cli_command *command, const char *name);
/* A row as it works: with what is missing taken from its configuration key. */
cli_option cli_option_resolve(const cli_option *row);

/* A whole number or a finite real, nothing after it. */
bool cli_parse_int(const char *text, int64_t *value);
bool cli_parse_real(const char *text, double *value);

/* The candidate nearest to `word`, NULL if none is near. next(arg, i) gives candidate i, NULL at the end. */
const char *cli_nearest(const char *word, const char *(*next)(const void *arg, int index), const void *arg);

/* ---- what attention options say --------------------------------------------------------------------- */

/* The row of an attention name; unknown: FV_ERR_USAGE, with the nearest or the whole list printed. */
FV_NODISCARD fv_status cli_attention_kind(const char *name, const fv_attention_kind **kind);

/* Puts the faster kind into the options where `kind` is "auto" (fv_attention_choose), and says so. */
FV_NODISCARD fv_status cli_attention_choose(fv_context *ctx, const char *kind, int64_t length, bool backward,
                                            fv_attention_options *options);

/* Fills kind (NULL: from --attention), causal and every field that an option of cli_attention_group sets and the
 * command does not take as a list; the caller sets heads, kv_heads, dim and value_dim. */
FV_NODISCARD fv_status cli_attention_options(const cli_args *args, const char *kind,
                                             fv_attention_options *options);

/* ---- settings ---------------------------------------------------------------------------------------- */

/* Changes settings in this order: --config FILE if there is such an option, every given option whose row has
 * a key (but lists), --set key=value. The reader chosen decides the tokenizer unless that is set too. */
FV_NODISCARD fv_status cli_settings(const cli_args *args, fv_config *config);

/* ---- models ------------------------------------------------------------------------------------------ */

/* The model of the run directory that is the first operand: the one --checkpoint names; without it the best
 * one, or the last one where there is none yet (a run stopped before its first evaluation). */
FV_NODISCARD fv_status cli_run_model(fv_model **model, fv_context *ctx, const cli_args *args);
/* The same of a run directory that is no operand. */
FV_NODISCARD fv_status cli_directory_model(fv_model **model, fv_context *ctx, const cli_args *args,
                                           const char *directory);

/* ---- contexts, failures, signals ------------------------------------------------------------------- */

/* A context as --cpu says, with `threads` threads (0: as --threads says). main makes one for every command.
 */
FV_NODISCARD fv_status cli_context_create(fv_context **ctx, const cli_args *args, int threads);

/* Prints "favor: TEXT" to standard error and returns `status`. */
fv_status cli_fail(fv_status status, const char *format, ...) FV_PRINTF(2, 3);
#ifdef __clang_analyzer__ /* which does not see across files that cli_fail returns its status */
#define cli_fail(status, ...) ((void)cli_fail(status, __VA_ARGS__), (status))
#endif
/* The same with the message of a context other than the one run() was given. */
fv_status cli_context_fail(const fv_context *ctx, fv_status status);
/* Prints "favor: TEXT" without failing. */
void cli_note(const char *format, ...) FV_PRINTF(1, 2);

/* Flushes standard output before the end; main tells what went wrong with it. */
void cli_flush(void);

/* From here on SIGINT and SIGTERM only set a flag; a second one ends the process at once. */
void cli_signals_catch(void);
int cli_signal(void); /* the signal that came, 0: none */

/* ---- progress --------------------------------------------------------------------------------------- */

/* On a terminal a bar that is redrawn; else a plain line every ten seconds or so. Silent for the first two
 * seconds. */
typedef struct cli_progress {
    bool terminal, drawn;
    double begin, last;
} cli_progress;

void cli_progress_begin(cli_progress *progress);
void cli_progress_show(cli_progress *progress, const fv_progress *report);
void cli_progress_clear(cli_progress *progress); /* removes the bar before other text, and at the end */
/* An observer that shows progress and stops at signals. */
fv_observer cli_progress_observer(cli_progress *progress);
double cli_now(void); /* seconds, monotonic */

/* ---- output ----------------------------------------------------------------------------------------- */

/* A JSON number; null when it is not finite. */
json_t *cli_json_real(double value);
/* loss, accuracy, perplexity, bits_per_token and, unless it is NULL, the split and its tokens before them. */
json_t *cli_json_metrics(const char *split, const fv_metrics *metrics);
/* How JSON is written, there and in files. */
#define CLI_JSON_FLAGS (JSON_INDENT(2) | JSON_REAL_PRECISION(9))
/* A whole JSON file. FV_ERR_FILE with the line of what is wrong. */
FV_NODISCARD fv_status cli_json_read(const char *path, json_t **value);
/* Prints a value and a newline to standard output and releases it. NULL value (no memory): FV_ERR_RESOURCE.
 */
FV_NODISCARD fv_status cli_json_print(json_t *value);

/* Figures for people: "1.5 GiB", "12.3 M", "1:02:03". */
typedef struct cli_figure {
    char text[32];
} cli_figure;
cli_figure cli_bytes(double bytes);
cli_figure cli_si(double value); /* 1234567 -> "1.23 M" */
cli_figure cli_duration(double seconds);

/* Prints `text` to `file`, wrapped at `width`, continuation lines indented by `indent`; the cursor stands
 * at `column`. */
void cli_wrap(FILE *file, const char *text, int column, int indent, int width);

/* Help of favor (NULL), of a command, or of a family of two-word commands ("bench"). */
void cli_help(FILE *file, const cli_command *command);
bool cli_help_family(FILE *file, const char *word);

#endif
