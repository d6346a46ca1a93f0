/* cli/main.c: the program `favor`: finds the command, reads its options, runs it, turns its status into an
 * exit code.
 *
 * Exit codes: 0 done, 1 computation failed, 2 wrong use or configuration, 3 bad input file, 4 memory, disk or
 * device exhausted (a closed or full standard output too), 5 internal error, 128+n stopped by signal n.
 */
#include "cli.h"
#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* The commands, in the order --help shows them. */
static const cli_command *const commands[] = {
    &cli_train,
    &cli_eval,
    &cli_generate,
    &cli_apply,
    &cli_attend,
    &cli_approx,
    &cli_bench_attention,
    &cli_bench_train,
    &cli_bench_decode,
    &cli_bench_lengths,
    &cli_bench_compare,
    &cli_report,
    &cli_data,
    &cli_info,
    &cli_man,
    &cli_completion,
};

const cli_command *cli_command_at(int index)
{
    return index >= 0 && index < CLI_COUNT(commands) ? commands[index] : NULL;
}

const cli_command *cli_command_find(const char *name)
{
    for (int i = 0; i < CLI_COUNT(commands); i++) {
        const char *alias = commands[i]->alias;
        if (strcmp(commands[i]->name, name) == 0 || (alias != NULL && strcmp(alias, name) == 0))
            return commands[i];
    }
    return NULL;
}

/* ---- messages ------------------------------------------------------------------------------------------ */

/* Whether the failure on its way to main has been told already. */
static bool told;

static void say(const char *format, va_list args)
{
    fputs("favor: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
}

#undef cli_fail
fv_status cli_fail(fv_status status, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
    told = true;
    return status;
}

void cli_note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    say(format, args);
    va_end(args);
}

fv_status cli_context_fail(const fv_context *ctx, fv_status status)
{
    const char *message = fv_context_message(ctx);
    return cli_fail(status, "%s", message[0] != '\0' ? message : fv_status_name(status));
}

static void log_note(void *user, fv_log_level level, const char *text)
{
    (void)user;
    cli_note("%s%s", level == FV_LOG_WARNING ? "warning: " : "", text);
}

/* ---- signals ------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t caught;

static void on_signal(int number)
{
    if (caught != 0)
        _Exit(128 + number);
    caught = number;
}

void cli_signals_catch(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

int cli_signal(void)
{
    return caught;
}

/* ---- running a command --------------------------------------------------------------------------- */

fv_status cli_context_create(fv_context **ctx, const cli_args *args, int threads)
{
    fv_context_options options;
    fv_context_options_init(&options);
    options.threads = threads > 0 ? threads : (int)cli_int(args, "threads");
    options.cpu = cli_text(args, "cpu");
    options.log = log_note;
    if (options.threads > CLI_THREADS_MAX)
        return cli_fail(FV_ERR_USAGE, "--threads %d: at most %d", options.threads, CLI_THREADS_MAX);
    fv_status status = fv_context_create(ctx, &options);
    if (status != FV_ERR_USAGE)
        return status == FV_OK ? FV_OK : cli_fail(status, "out of memory");
    const char *cpu = options.cpu != NULL ? options.cpu : getenv("FAVOR_CPU");
    return cli_fail(status, "%s %s: not a kernel set this processor can run; it can run: %s",
                    options.cpu != NULL ? "--cpu" : "FAVOR_CPU", cpu != NULL ? cpu : "", fv_cpu_sets());
}

/* --dtype of commands that take one; benchmarks take several and training keeps it in its settings. */
static fv_status set_dtype(fv_context *ctx, const cli_args *args)
{
    const cli_option *option = cli_option_find(cli_args_command(args), "dtype");
    if (option == NULL || option->type == CLI_LIST || !cli_given(args, "dtype"))
        return FV_OK;
    return fv_context_set_dtype(ctx, cli_text(args, "dtype"));
}

static fv_status run_parsed(const cli_command *command, const cli_args *args)
{
    if (cli_flag(args, "help")) {
        cli_help(stdout, command);
        return FV_OK;
    }
    if (command->generator)
        return command->run(NULL, args);
    fv_context *ctx = NULL;
    CLI_TRY(cli_context_create(&ctx, args, 0));
    fv_status status = set_dtype(ctx, args);
    if (status == FV_OK)
        status = command->run(ctx, args);
    if (status != FV_OK && status != FV_STOPPED && !told)
        status = cli_context_fail(ctx, status);
    fv_context_destroy(ctx);
    return status;
}

static fv_status run_command(const cli_command *command, int argc, char **argv)
{
    cli_args *args;
    fv_status status = cli_parse(&args, command, argc, argv);
    if (status == FV_OK)
        status = run_parsed(command, args);
    cli_args_free(args);
    return status;
}

static const char *command_name(const void *arg, int index)
{
    (void)arg;
    const cli_command *command = cli_command_at(index);
    return command != NULL ? command->name : NULL;
}

static fv_status unknown_command(const char *word)
{
    const char *near = cli_nearest(word, command_name, NULL);
    if (word[0] == '-')
        return cli_fail(FV_ERR_USAGE, "unknown option %s; `favor --help` lists the commands", word);
    return cli_fail(FV_ERR_USAGE, "unknown command %s%s%s%s; `favor --help` lists the commands", word,
                    near ? ", did you mean " : "", near ? near : "", near ? "?" : "");
}

static bool asks_help(const char *word)
{
    return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0;
}

/* "bench" alone, or with --help or a second word that is none of the family. */
static fv_status run_family(int argc, char **argv)
{
    bool help = argc > 1 && asks_help(argv[1]);
    if (!cli_help_family(help ? stdout : stderr, argv[0]))
        return unknown_command(argv[0]);
    if (help)
        return FV_OK;
    if (argc > 1)
        return cli_fail(FV_ERR_USAGE, "%s: unknown command %s", argv[0], argv[1]);
    return cli_fail(FV_ERR_USAGE, "%s: say which one", argv[0]);
}

/* argv[0] is the first word after the program's name. Two-word commands come before one-word ones. */
static fv_status dispatch(int argc, char **argv)
{
    if (argc == 0) {
        cli_help(stderr, NULL);
        return FV_ERR_USAGE;
    }
    if (asks_help(argv[0])) {
        cli_help(stdout, NULL);
        return FV_OK;
    }
    if (strcmp(argv[0], "--version") == 0) {
        printf("favor %s\n", fv_version());
        return FV_OK;
    }
    char both[64];
    snprintf(both, sizeof both, "%s %s", argv[0], argc > 1 ? argv[1] : "");
    const cli_command *command = cli_command_find(both);
    if (command != NULL)
        return run_command(command, argc - 2, argv + 2);
    command = cli_command_find(argv[0]);
    return command != NULL ? run_command(command, argc - 1, argv + 1) : run_family(argc, argv);
}

/* ---- standard output ----------------------------------------------------------------------------------- */

static int output_error; /* errno of the first flush that failed */

void cli_flush(void)
{
    if (fflush(stdout) != 0 && output_error == 0)
        output_error = errno;
}

/* A result that did not reach its reader is a failure: full disks are told, a reader that left is not. */
static fv_status close_output(fv_status status)
{
    cli_flush();
    bool failed = ferror(stdout) != 0;
    failed = fclose(stdout) != 0 || failed;
    if (!failed)
        return status;
    if (output_error != EPIPE)
        cli_note("standard output: %s", output_error != 0 ? strerror(output_error) : "could not be written");
    return status == FV_OK ? FV_ERR_RESOURCE : status;
}

int main(int argc, char **argv)
{
    /* A reader that leaves is seen as a failed write, so that a run in training is not killed by it. */
    signal(SIGPIPE, SIG_IGN);
    fv_status status = dispatch(argc - 1, argv + 1);
    status = close_output(status);
    return status == FV_STOPPED ? 128 + (caught != 0 ? (int)caught : SIGTERM) : -(int)status;
}
