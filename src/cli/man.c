/* cli/man.c: `favor man [COMMAND]`: manual pages in roff (man macros), from the option rows. */
#include "cli.h"
#include "pages.h"
#include <string.h>

/* Text with what roff would interpret made literal. */
static void roff(const char *text)
{
    bool begins_line = true;
    for (; *text != '\0'; text++) {
        if (begins_line && (*text == '.' || *text == '\''))
            fputs("\\&", stdout);
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
        begins_line = *text == '\n';
    }
}

/* Like "favor-bench-attention". */
static void page_name(const cli_command *command)
{
    fputs("favor", stdout);
    if (command == NULL)
        return;
    fputs("\\-", stdout);
    for (const char *p = command->name; *p != '\0'; p++)
        fputs(*p == ' ' || *p == '-' ? "\\-" : (char[]){*p, '\0'}, stdout);
}

static void print_head(const cli_command *command, const char *summary)
{
    fputs(".TH \"", stdout);
    page_name(command);
    printf("\" 1 \"\" \"favor %s\" \"User Commands\"\n.SH NAME\n", fv_version());
    page_name(command);
    fputs(" \\- ", stdout);
    roff(summary);
    fputs("\n.SH SYNOPSIS\n", stdout);
}

static void print_paragraphs(const char *text)
{
    while (text != NULL && *text != '\0') {
        const char *end = strstr(text, "\n\n");
        char paragraph[2048];
        snprintf(paragraph, sizeof paragraph, "%.*s", end != NULL ? (int)(end - text) : (int)strlen(text),
                 text);
        fputs(".PP\n", stdout);
        roff(paragraph);
        putchar('\n');
        text = end != NULL ? end + 2 : NULL;
    }
}

static void print_option(const cli_option *row)
{
    const cli_option option = cli_option_resolve(row);
    const char *metavar = cli_metavar(&option);
    fputs(".TP\n", stdout);
    if (option.letter != 0)
        printf("\\fB\\-%c\\fR, ", option.letter);
    fputs("\\fB\\-\\-", stdout);
    roff(option.name);
    fputs("\\fR", stdout);
    if (metavar[0] != '\0') {
        fputs(" \\fI", stdout);
        roff(metavar);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    roff(option.help);
    if (option.choices != NULL && option.metavar != NULL) {
        fputs(": ", stdout);
        roff(option.choices);
    }
    if (option.fallback != NULL || option.words != NULL) {
        fputs(". Default: ", stdout);
        roff(option.words != NULL ? option.words : option.fallback);
    }
    fputs(".\n", stdout);
}

static void print_options(const cli_command *command)
{
    int group = 0, row = 0, shown = -1;
    const cli_option *option;
    fputs(".SH OPTIONS\n", stdout);
    while ((option = cli_option_next(command, &group, &row)) != NULL) {
        if (group != shown)
            printf(".SS %s\n", command->groups[group]->title);
        shown = group;
        print_option(option);
    }
}

static void print_settings(void)
{
    const fv_config_key *key;
    fputs(".SH SETTINGS\nKeys of \\fB\\-\\-set\\fR and of the file of \\fB\\-\\-config\\fR.\n", stdout);
    for (int i = 0; (key = fv_config_key_at(i)) != NULL; i++) {
        printf(".TP\n.B %s\n", key->key);
        roff(key->help);
        if (key->choices != NULL) {
            fputs(" (", stdout);
            roff(key->choices);
            putchar(')');
        }
        fputs(". Default: ", stdout);
        roff(key->fallback[0] != '\0' ? key->fallback : "empty");
        fputs(".\n", stdout);
    }
}

static const struct {
    const char *code, *meaning;
} exit_codes[] = {
    {"0", "done"},
    {"1", "a computation failed: non-finite loss, no convergence"},
    {"2", "wrong use or configuration"},
    {"3", "an input file is missing, damaged or does not fit"},
    {"4", "memory, disk or device exhausted, or standard output closed"},
    {"5", "internal error"},
    {"128+n", "stopped by signal n, in training after a checkpoint"},
};

static void print_exit_codes(void)
{
    fputs(".SH EXIT STATUS\n", stdout);
    for (int i = 0; i < CLI_COUNT(exit_codes); i++)
        printf(".TP\n.B %s\n%s.\n", exit_codes[i].code, exit_codes[i].meaning);
}

static void print_examples(const cli_command *command)
{
    if (command->examples == NULL)
        return;
    fputs(".SH EXAMPLES\n.nf\n", stdout);
    for (const char *p = command->examples; *p != '\0'; p++)
        fputs(*p == '-' ? "\\-" : *p == '\\' ? "\\e" : (char[]){*p, '\0'}, stdout);
    fputs("\n.fi\n", stdout);
}

static void print_usage(const cli_command *command)
{
    /* Usage is short and holds no roff but dashes; bold up to the first operand or option. */
    fputs(".B favor ", stdout);
    roff(command->name);
    putchar('\n');
    if (command->operands != NULL) {
        fputs(command->min_operands > 0 ? ".I " : ".RI [ ", stdout);
        roff(command->operands);
        fputs(command->min_operands > 0 ? "\n" : " ]\n", stdout);
    }
    int group = 0, row = 0;
    const cli_option *option;
    while ((option = cli_option_next(command, &group, &row)) != NULL)
        if (option->required) {
            cli_option full = cli_option_resolve(option);
            fputs("\\fB\\-\\-", stdout);
            roff(full.name);
            fputs("\\fR \\fI", stdout);
            roff(cli_metavar(&full));
            fputs("\\fR\n", stdout);
        }
    fputs(".RI [ OPTION... ]\n", stdout);
}

static void print_command_page(const cli_command *command)
{
    print_head(command, command->summary);
    print_usage(command);
    fputs(".SH DESCRIPTION\n", stdout);
    printf("%c", command->summary[0] - 'a' + 'A');
    roff(command->summary + 1);
    fputs(".\n", stdout);
    print_paragraphs(command->description);
    print_options(command);
    if (command->show_settings)
        print_settings();
    print_examples(command);
    print_exit_codes();
    fputs(".SH SEE ALSO\n.BR favor (1)\n", stdout);
}

static void print_overview_page(void)
{
    print_head(NULL, "Transformers on long sequences");
    fputs(".B favor\n.I COMMAND\n.RI [ OPTION... ]\n.SH DESCRIPTION\n"
          "Trains, evaluates and samples Transformers whose attention costs time and memory linear in the "
          "length\n"
          "of the sequence, and measures attention itself. Results go to standard output, messages to\n"
          "standard error.\n.SH COMMANDS\n",
          stdout);
    const cli_command *command;
    for (int i = 0; (command = cli_command_at(i)) != NULL; i++) {
        fputs(".TP\n.BR ", stdout);
        page_name(command);
        fputs(" (1)\n", stdout);
        roff(command->summary);
        putchar('\n');
    }
    fputs(".SH OPTIONS\n.TP\n.B \\-\\-help\nPrint the commands.\n.TP\n.B \\-\\-version\nPrint the version.\n",
          stdout);
    fputs(".SH ENVIRONMENT\n.TP\n.B FAVOR_CPU\nKernel set to use where no \\-\\-cpu is given.\n", stdout);
    print_exit_codes();
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    (void)ctx;
    char name[64];
    if (cli_operand_count(args) == 0) {
        print_overview_page();
        return FV_OK;
    }
    const char *second = cli_operand(args, 1);
    snprintf(name, sizeof name, "%s%s%s", cli_operand(args, 0), second ? " " : "", second ? second : "");
    const cli_command *command = cli_command_find(name);
    if (command == NULL)
        return cli_fail(FV_ERR_USAGE, "man: unknown command %s; `favor --help` lists the commands", name);
    print_command_page(command);
    return FV_OK;
}

static const cli_group *const groups[] = {&cli_help_group, NULL};

const cli_command cli_man = {
    .name = "man",
    .summary = "print a manual page in roff",
    .operands = "COMMAND",
    .max_operands = 2,
    .description = "Without a command, the page of favor itself.",
    .examples = "favor man train | man -l -",
    .groups = groups,
    .generator = true,
    .run = run,
};
