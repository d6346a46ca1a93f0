/* cli/completion.c: `favor completion bash`: a completion script from the option rows.
 *
 * For every command the script holds the option names, and for options with known values those values; after
 * an option that takes a file, and where operands stand, files are completed.
 */
#include "cli.h"
#include "pages.h"
#include <string.h>

/* First words of the commands, each once. */
static void print_first_words(void)
{
    const cli_command *command;
    char last[64] = "";
    for (int i = 0; (command = cli_command_at(i)) != NULL; i++) {
        char word[64];
        snprintf(word, sizeof word, "%.*s", (int)strcspn(command->name, " "), command->name);
        if (strcmp(word, last) != 0)
            printf("%s ", word);
        snprintf(last, sizeof last, "%s", word);
    }
}

/* Second words of a family ("bench"), nothing for other commands. */
static void print_families(void)
{
    const cli_command *command;
    for (int i = 0; (command = cli_command_at(i)) != NULL; i++) {
        const char *space = strchr(command->name, ' ');
        if (space != NULL)
            printf("        %.*s) seconds+=' %s' ;;&\n", (int)(space - command->name), command->name,
                   space + 1);
    }
}

static void print_choices(const char *choices)
{
    for (const char *p = choices; *p != '\0'; p++)
        putchar(*p == '|' ? ' ' : *p);
}

static void print_attention_names(void)
{
    const fv_attention_kind *kind;
    for (int i = 0; (kind = fv_attention_kind_at(i)) != NULL; i++)
        printf("%s%s", i > 0 ? " " : "", kind->name);
}

/* One case of an option with known values. */
static void print_values(const cli_command *command, const cli_option *option)
{
    bool attention = strcmp(option->name, "attention") == 0;
    if (option->choices == NULL && !attention)
        return;
    printf("        '%s --%s') values='", command->name, option->name);
    if (attention)
        print_attention_names();
    else
        print_choices(option->choices);
    fputs("' ;;\n", stdout);
}

static void print_cases(void (*each)(const cli_command *command, const cli_option *option))
{
    const cli_command *command;
    for (int i = 0; (command = cli_command_at(i)) != NULL; i++) {
        int group = 0, row = 0;
        const cli_option *option;
        while ((option = cli_option_next(command, &group, &row)) != NULL) {
            const cli_option full = cli_option_resolve(option);
            each(command, &full);
        }
    }
}

static void print_option_names(void)
{
    const cli_command *command;
    for (int i = 0; (command = cli_command_at(i)) != NULL; i++) {
        int group = 0, row = 0;
        const cli_option *option;
        printf("        '%s') options='", command->name);
        while ((option = cli_option_next(command, &group, &row)) != NULL)
            printf("--%s ", option->name);
        fputs("' ;;\n", stdout);
    }
}

static void print_bash(void)
{
    printf("# bash completion for favor %s, made by `favor completion bash`\n"
           "_favor()\n{\n"
           "    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]}\n"
           "    local first=${COMP_WORDS[1]-} command seconds='' values='' options=''\n"
           "    COMPREPLY=()\n"
           "    if ((COMP_CWORD == 1)); then\n"
           "        mapfile -t COMPREPLY < <(compgen -W '",
           fv_version());
    print_first_words();
    fputs("--help --version' -- \"$cur\")\n        return\n    fi\n"
          "    case $first in\n",
          stdout);
    print_families();
    fputs("        *) ;;\n    esac\n    command=$first\n"
          "    if [[ -n $seconds ]]; then\n"
          "        command+=\" ${COMP_WORDS[2]-}\"\n"
          "        if ((COMP_CWORD == 2)); then\n"
          "            mapfile -t COMPREPLY < <(compgen -W \"$seconds --help\" -- \"$cur\")\n"
          "            return\n        fi\n    fi\n"
          "    case \"$command $prev\" in\n",
          stdout);
    print_cases(print_values);
    fputs("        *) ;;\n    esac\n    case $command in\n", stdout);
    print_option_names();
    fputs("        *) ;;\n    esac\n"
          "    if [[ -n $values ]]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$values\" -- \"$cur\")\n"
          "    elif [[ $cur == -* ]]; then\n"
          "        mapfile -t COMPREPLY < <(compgen -W \"$options\" -- \"$cur\")\n"
          "    else\n"
          "        compopt -o filenames 2>/dev/null\n"
          "        mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n"
          "    fi\n}\n"
          "complete -F _favor favor\n",
          stdout);
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    (void)ctx;
    if (strcmp(cli_operand(args, 0), "bash") != 0)
        return cli_fail(FV_ERR_USAGE, "completion: unknown shell %s, expected bash", cli_operand(args, 0));
    print_bash();
    return FV_OK;
}

static const cli_group *const groups[] = {&cli_help_group, NULL};

const cli_command cli_completion = {
    .name = "completion",
    .summary = "print a shell completion script",
    .operands = "bash",
    .min_operands = 1,
    .max_operands = 1,
    .examples = "source <(favor completion bash)",
    .groups = groups,
    .generator = true,
    .run = run,
};
