/* cli/help.c: `favor --help` and `favor COMMAND --help`, from the option rows. */
#include "cli.h"
#include "pages.h"
#include <string.h>

#define WIDTH  80
#define COLUMN 28 /* where the explanation of an option begins */

const char *cli_metavar(const cli_option *option)
{
    static const char *const words[] = {
        [CLI_FLAG] = "",     [CLI_INT] = "N",         [CLI_REAL] = "X",
        [CLI_TEXT] = "TEXT", [CLI_FILE] = "FILE",     [CLI_ENUM] = "",
        [CLI_LIST] = "A,B",  [CLI_FILES] = "FILE...", [CLI_PAIRS] = "KEY=VALUE",
    };
    if (option->metavar != NULL)
        return option->metavar;
    return option->type == CLI_ENUM ? option->choices : words[option->type];
}

void cli_usage(FILE *file, const cli_command *command)
{
    fprintf(file, "favor %s", command->name);
    if (command->operands != NULL)
        fprintf(file, " %s%s%s", command->min_operands == 0 ? "[" : "", command->operands,
                command->min_operands == 0 ? "]" : "");
    int group = 0, row = 0;
    const cli_option *option;
    while ((option = cli_option_next(command, &group, &row)) != NULL)
        if (option->required) {
            cli_option full = cli_option_resolve(option);
            fprintf(file, " --%s %s", full.name, cli_metavar(&full));
        }
    fputs(" [OPTION...]", file);
}

static void describe(FILE *file, const cli_option *option)
{
    char text[1024];
    int used = snprintf(text, sizeof text, "%s", option->help);
    if (option->choices != NULL && option->metavar != NULL)
        used += snprintf(text + used, sizeof text - (size_t)used, " (%s)", option->choices);
    if (option->fallback != NULL || option->words != NULL)
        snprintf(text + used, sizeof text - (size_t)used, " [%s]",
                 option->words != NULL ? option->words : option->fallback);
    cli_wrap(file, text, COLUMN, COLUMN, WIDTH);
}

/* Prints the left column, of `width` characters, and moves to where the right one begins. */
static void to_column(FILE *file, const char *left, int width)
{
    fputs(left, file);
    if (width > COLUMN - 2) {
        fputc('\n', file);
        width = 0;
    }
    fprintf(file, "%*s", COLUMN - width, "");
}

static void print_option(FILE *file, const cli_option *row)
{
    const cli_option option = cli_option_resolve(row);
    char left[128];
    char letter[8] = "";
    if (option.letter != 0)
        snprintf(letter, sizeof letter, "-%c, ", option.letter);
    const char *metavar = cli_metavar(&option);
    int column =
        snprintf(left, sizeof left, "  %s--%s%s%s", letter, option.name, metavar[0] ? " " : "", metavar);
    to_column(file, left, column);
    describe(file, &option);
}

static void print_options(FILE *file, const cli_command *command)
{
    int group = 0, row = 0, shown = -1;
    const cli_option *option;
    while ((option = cli_option_next(command, &group, &row)) != NULL) {
        if (group != shown)
            fprintf(file, "\n%s:\n", command->groups[group]->title);
        shown = group;
        print_option(file, option);
    }
}

/* Every configuration key, for --set. */
static void print_settings(FILE *file)
{
    const fv_config_key *key;
    fputs("\nSettings (--set KEY=VALUE, or in the file of --config):\n", file);
    for (int i = 0; (key = fv_config_key_at(i)) != NULL; i++) {
        char left[128], text[1024];
        to_column(file, left, snprintf(left, sizeof left, "  %s", key->key));
        snprintf(text, sizeof text, "%s%s%s%s [%s]", key->help, key->choices ? " (" : "",
                 key->choices ? key->choices : "", key->choices ? ")" : "", key->fallback);
        cli_wrap(file, text, COLUMN, COLUMN, WIDTH);
    }
}

/* Paragraphs, separated by a blank line. */
static void print_description(FILE *file, const char *text)
{
    while (text != NULL && *text != '\0') {
        const char *end = strstr(text, "\n\n");
        char paragraph[2048];
        int length = end != NULL ? (int)(end - text) : (int)strlen(text);
        snprintf(paragraph, sizeof paragraph, "%.*s", length, text);
        fputc('\n', file);
        cli_wrap(file, paragraph, 0, 0, WIDTH);
        text = end != NULL ? end + 2 : NULL;
    }
}

/* One line of `lines` after another, each after `before`. */
void cli_print_lines(FILE *file, const char *lines, const char *before, const char *after)
{
    while (lines != NULL && *lines != '\0') {
        int length = (int)strcspn(lines, "\n");
        fprintf(file, "%s%.*s%s\n", before, length, lines, after);
        lines += length;
        lines += *lines == '\n';
    }
}

static void print_commands(FILE *file, bool generators)
{
    const cli_command *command;
    for (int i = 0; (command = cli_command_at(i)) != NULL; i++)
        if (command->generator == generators)
            fprintf(file, "  %-18s%s\n", command->name, command->summary);
}

static void print_overview(FILE *file)
{
    fputs("Usage: favor COMMAND [OPTION...]\n\n"
          "Transformers on long sequences, with attention in linear time and memory.\n\nCommands:\n",
          file);
    print_commands(file, false);
    fputs("\nPages about favor:\n", file);
    print_commands(file, true);
    fputs("\n`favor COMMAND --help` explains a command; `favor --version` prints the version.\n", file);
}

void cli_help(FILE *file, const cli_command *command)
{
    if (command == NULL) {
        print_overview(file);
        return;
    }
    fputs("Usage: ", file);
    cli_usage(file, command);
    fprintf(file, "\n\n%c%s.\n", command->summary[0] - 'a' + 'A', command->summary + 1);
    print_description(file, command->description);
    print_options(file, command);
    if (command->show_settings)
        print_settings(file);
    if (command->examples != NULL)
        fputs("\nExamples:\n", file);
    cli_print_lines(file, command->examples, "  ", "");
}

bool cli_help_family(FILE *file, const char *word)
{
    const cli_command *command;
    size_t length = strlen(word);
    bool found = false;
    for (int i = 0; (command = cli_command_at(i)) != NULL; i++) {
        if (strncmp(command->name, word, length) != 0 || command->name[length] != ' ')
            continue;
        if (!found)
            fprintf(file, "Usage: favor %s COMMAND [OPTION...]\n\nCommands:\n", word);
        fprintf(file, "  %-18s%s\n", command->name, command->summary);
        found = true;
    }
    return found;
}
