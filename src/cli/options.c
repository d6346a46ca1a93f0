/* cli/options.c: reads a command line against the option rows of a command.
 *
 * Values are kept as (row, text) pairs in the order given; a comma list becomes one pair an item. Numbers are
 * checked here and read again when asked for, so that a row is the only description of an option.
 */
#include "cli.h"
#include <assert.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct value {
    const cli_option *row;
    const char *text;
} value;

struct cli_args {
    const cli_command *command;
    value *values;
    int count, capacity;
    const char **operands;
    int operand_count;
    const char **items; /* what cli_items returns, option after option */
    char *copies;       /* lists, cut at their commas */
    char *const *words; /* as they were given; ends with NULL */
};

/* ---- rows ------------------------------------------------------------------------------------------- */

static const cli_option *row_of(const cli_group *const *groups, int end, const char *name)
{
    for (int g = 0; groups[g] != NULL && g != end; g++)
        for (int i = 0; i < groups[g]->count; i++)
            if (strcmp(groups[g]->rows[i].name, name) == 0)
                return &groups[g]->rows[i];
    return NULL;
}

const cli_option *cli_option_find(const cli_command *command, const char *name)
{
    return row_of(command->groups, -1, name);
}

const cli_option *cli_option_next(const cli_command *command, int *group, int *row)
{
    for (; command->groups[*group] != NULL; (*group)++, *row = 0)
        while (*row < command->groups[*group]->count) {
            const cli_option *option = &command->groups[*group]->rows[(*row)++];
            if (row_of(command->groups, *group, option->name) == NULL)
                return option;
        }
    return NULL;
}

static const cli_option *find_letter(const cli_command *command, char letter)
{
    int group = 0, row = 0;
    const cli_option *option;
    while ((option = cli_option_next(command, &group, &row)) != NULL)
        if (option->letter == letter)
            return option;
    return NULL;
}

static const fv_config_key *find_key(const char *name)
{
    const fv_config_key *key;
    for (int i = 0; (key = fv_config_key_at(i)) != NULL; i++)
        if (strcmp(key->key, name) == 0)
            return key;
    return NULL;
}

cli_option cli_option_resolve(const cli_option *row)
{
    static const cli_type types[] = {
        [FV_CONFIG_INT] = CLI_INT,
        [FV_CONFIG_REAL] = CLI_REAL,
        [FV_CONFIG_BOOL] = CLI_FLAG,
        [FV_CONFIG_TEXT] = CLI_TEXT,
    };
    cli_option full = *row;
    const fv_config_key *key = row->key != NULL ? find_key(row->key) : NULL;
    if (key == NULL)
        return full;
    if (row->fallback == NULL && row->words == NULL && key->type != FV_CONFIG_BOOL &&
        key->fallback[0] != '\0')
        full.fallback = key->fallback;
    if (row->help != NULL)
        return full;
    full.type = types[key->type];
    if (key->choices != NULL)
        full.type = CLI_ENUM;
    full.choices = key->choices;
    full.min = key->min;
    full.max = key->max;
    full.help = key->help;
    return full;
}

/* ---- values ----------------------------------------------------------------------------------------- */

bool cli_parse_int(const char *text, int64_t *out)
{
    char *end;
    errno = 0;
    long long number = strtoll(text, &end, 10);
    *out = number;
    return end != text && *end == '\0' && errno == 0;
}

bool cli_parse_real(const char *text, double *out)
{
    char *end;
    *out = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*out);
}

static bool among(const char *choices, const char *text)
{
    size_t length = strlen(text);
    for (const char *p = choices; p != NULL; p = strchr(p, '|') ? strchr(p, '|') + 1 : NULL)
        if (strcspn(p, "|") == length && memcmp(p, text, length) == 0)
            return true;
    return false;
}

static fv_status check_number(const char *command, const cli_option *option, const char *text)
{
    double number = 0;
    int64_t whole = 0;
    int digits = option->type == CLI_INT ? 17 : 6; /* whole numbers in full */
    bool ok = option->type == CLI_INT ? cli_parse_int(text, &whole) : cli_parse_real(text, &number);
    if (!ok)
        return cli_fail(FV_ERR_USAGE, "%s: --%s %s: expected a %snumber", command, option->name, text,
                        option->type == CLI_INT ? "whole " : "");
    if (option->type == CLI_INT)
        number = (double)whole;
    if (option->min < option->max && !(number >= option->min && number <= option->max))
        return cli_fail(FV_ERR_USAGE, "%s: --%s %s: expected a %snumber from %.*g to %.*g", command,
                        option->name, text, option->type == CLI_INT ? "whole " : "", digits, option->min,
                        digits, option->max);
    return FV_OK;
}

static fv_status check_value(const char *command, const cli_option *option, const char *text)
{
    if (text[0] == '\0' && option->type != CLI_TEXT)
        return cli_fail(FV_ERR_USAGE, "%s: --%s: the value is empty", command, option->name);
    if (option->type == CLI_INT || option->type == CLI_REAL)
        return check_number(command, option, text);
    if (option->choices != NULL && !among(option->choices, text))
        return cli_fail(FV_ERR_USAGE, "%s: --%s %s: expected one of %s", command, option->name, text,
                        option->choices);
    if (option->type == CLI_PAIRS && (text[0] == '=' || strchr(text, '=') == NULL))
        return cli_fail(FV_ERR_USAGE, "%s: --%s %s: expected key=value", command, option->name, text);
    return FV_OK;
}

static fv_status push(cli_args *args, const cli_option *row, const char *text)
{
    if (args->count == args->capacity) {
        int capacity = 2 * args->capacity + 16;
        value *values = realloc(args->values, (size_t)capacity * sizeof *values);
        if (values == NULL)
            return cli_fail(FV_ERR_RESOURCE, "out of memory");
        args->values = values;
        args->capacity = capacity;
    }
    args->values[args->count++] = (value){row, text};
    return FV_OK;
}

/* Items between commas, cut out of a copy made in *room. */
static fv_status push_list(cli_args *args, const cli_option *row, const char *text, char **room)
{
    const cli_option option = cli_option_resolve(row);
    size_t bytes = strlen(text) + 1;
    char *copy = memcpy(*room, text, bytes);
    *room += bytes;
    for (char *item = copy, *comma; item != NULL; item = comma) {
        comma = strchr(item, ',');
        if (comma != NULL)
            *comma++ = '\0';
        CLI_TRY(check_value(args->command->name, &option, item));
        CLI_TRY(push(args, row, item));
    }
    return FV_OK;
}

static fv_status push_value(cli_args *args, const cli_option *row, const char *text, char **room)
{
    const cli_option option = cli_option_resolve(row);
    if (option.type == CLI_LIST)
        return push_list(args, row, text, room);
    CLI_TRY(check_value(args->command->name, &option, text));
    return push(args, row, text);
}

/* ---- the command line ---------------------------------------------------------------------------- */

#define WORD_MAX 63

static const char *option_name(const void *arg, int index)
{
    int group = 0, row = 0;
    const cli_option *option = NULL;
    for (int i = 0; i <= index; i++)
        option = cli_option_next(arg, &group, &row);
    return option != NULL ? option->name : NULL;
}

static fv_status unknown_option(const cli_command *command, const char *word, size_t length)
{
    char name[WORD_MAX + 1];
    snprintf(name, sizeof name, "%.*s", (int)length, word);
    const char *near = cli_nearest(name + strspn(name, "-"), option_name, command);
    return cli_fail(FV_ERR_USAGE, "%s: unknown option %s%s%s%s; `favor %s --help` lists the options",
                    command->name, name, near ? ", did you mean --" : "", near ? near : "", near ? "?" : "",
                    command->name);
}

/* The row of argv[i], which begins with a dash, and the value attached to it (--name=value, -n5) or NULL. */
static fv_status find_row(const cli_command *command, const char *word, const cli_option **row,
                          const char **attached)
{
    size_t length = strcspn(word, "=");
    *attached = word[length] == '=' ? word + length + 1 : NULL;
    *row = NULL;
    if (word[1] == '-') {
        char name[WORD_MAX + 1];
        snprintf(name, sizeof name, "%.*s", (int)length - 2, word + 2);
        *row = cli_option_find(command, name);
    } else {
        *row = find_letter(command, word[1]);
        *attached = word[2] != '\0' ? word + 2 : NULL;
    }
    return *row != NULL ? FV_OK : unknown_option(command, word, length);
}

static bool seen(const cli_args *args, const cli_option *row)
{
    for (int i = 0; i < args->count; i++)
        if (args->values[i].row == row)
            return true;
    return false;
}

/* A word that can be a value: anything but "--..." (such a value is written --name=--...). */
static bool is_value(const char *word, cli_type type)
{
    if (type == CLI_FILES)
        return word[0] != '-' || word[1] == '\0';
    return !(word[0] == '-' && word[1] == '-');
}

/* Reads the option at argv[*i] and its values; *i moves past them. */
static fv_status read_option(cli_args *args, int argc, char **argv, int *i, char **room)
{
    const char *command = args->command->name, *attached;
    const cli_option *row;
    CLI_TRY(find_row(args->command, argv[*i], &row, &attached));
    (*i)++;
    cli_type type = cli_option_resolve(row).type;
    if (seen(args, row) && type != CLI_FILES && type != CLI_PAIRS)
        return cli_fail(FV_ERR_USAGE, "%s: --%s is given twice", command, row->name);
    if (type == CLI_FLAG) {
        if (attached != NULL)
            return cli_fail(FV_ERR_USAGE, "%s: --%s takes no value", command, row->name);
        return push(args, row, "true");
    }
    if (attached != NULL)
        return push_value(args, row, attached, room);
    if (*i == argc || !is_value(argv[*i], type))
        return cli_fail(FV_ERR_USAGE, "%s: --%s needs a value", command, row->name);
    do {
        CLI_TRY(push_value(args, row, argv[(*i)++], room));
    } while (type == CLI_FILES && *i < argc && is_value(argv[*i], type));
    return FV_OK;
}

static fv_status check_complete(const cli_args *args)
{
    const cli_command *command = args->command;
    const cli_option *option;
    int group = 0, row = 0;
    while ((option = cli_option_next(command, &group, &row)) != NULL)
        if (option->required && !seen(args, option))
            return cli_fail(FV_ERR_USAGE, "%s: --%s is missing; `favor %s --help` explains it", command->name,
                            option->name, command->name);
    if (args->operand_count < command->min_operands)
        return cli_fail(FV_ERR_USAGE, "%s: %s is missing; usage: favor %s %s", command->name,
                        command->operands, command->name, command->operands);
    if (command->max_operands >= 0 && args->operand_count > command->max_operands)
        return cli_fail(FV_ERR_USAGE, "%s: unexpected argument %s", command->name,
                        args->operands[command->max_operands]);
    return FV_OK;
}

static fv_status read_words(cli_args *args, int argc, char **argv)
{
    char *room = args->copies;
    bool options = true;
    for (int i = 0; i < argc;) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
            i++;
        } else if (options && argv[i][0] == '-' && argv[i][1] != '\0') {
            CLI_TRY(read_option(args, argc, argv, &i, &room));
        } else {
            args->operands[args->operand_count++] = argv[i++];
        }
    }
    /* --help is answered whatever else is missing. */
    return cli_flag(args, "help") ? FV_OK : check_complete(args);
}

static bool allocate(cli_args *args, int argc, char **argv)
{
    size_t bytes = 1;
    for (int i = 0; i < argc; i++)
        bytes += strlen(argv[i]) + 1;
    args->operands = calloc((size_t)argc + 1, sizeof *args->operands);
    args->copies = malloc(bytes);
    return args->operands != NULL && args->copies != NULL;
}

/* Lays the texts of each option one after another, for cli_items. */
static bool gather_items(cli_args *args)
{
    args->items = calloc((size_t)args->count + 1, sizeof *args->items);
    if (args->items == NULL)
        return false;
    for (int i = 0; i < args->count; i++)
        args->items[i] = args->values[i].text;
    return true;
}

/* Orders pairs by first appearance of their option, keeping the order within one. */
static void sort_values(cli_args *args)
{
    for (int i = 1; i < args->count; i++) {
        value moved = args->values[i];
        int to = i;
        for (int j = 0; j < i; j++)
            if (args->values[j].row == moved.row)
                to = j + 1;
        memmove(&args->values[to + 1], &args->values[to], (size_t)(i - to) * sizeof moved);
        args->values[to] = moved;
    }
}

fv_status cli_parse(cli_args **out, const cli_command *command, int argc, char **argv)
{
    cli_args *args = calloc(1, sizeof *args);
    *out = args;
    if (args == NULL || !allocate(args, argc, argv))
        return cli_fail(FV_ERR_RESOURCE, "out of memory");
    args->command = command;
    args->words = argv;
    CLI_TRY(read_words(args, argc, argv));
    sort_values(args);
    return gather_items(args) ? FV_OK : cli_fail(FV_ERR_RESOURCE, "out of memory");
}

void cli_args_free(cli_args *args)
{
    if (args == NULL)
        return;
    free(args->values);
    free(args->operands);
    free(args->items);
    free(args->copies);
    free(args);
}

/* ---- what was parsed ----------------------------------------------------------------------------- */

const cli_command *cli_args_command(const cli_args *args)
{
    return args->command;
}

/* First pair of an option, -1 if it was not given. */
static int first_of(const cli_args *args, const char *name)
{
    const cli_option *row = cli_option_find(args->command, name);
    assert(row != NULL);
    for (int i = 0; i < args->count; i++)
        if (args->values[i].row == row)
            return i;
    return -1;
}

bool cli_given(const cli_args *args, const char *name)
{
    return first_of(args, name) >= 0;
}

bool cli_flag(const cli_args *args, const char *name)
{
    return cli_given(args, name);
}

const char *cli_text(const cli_args *args, const char *name)
{
    int first = first_of(args, name);
    return first >= 0 ? args->values[first].text
                      : cli_option_resolve(cli_option_find(args->command, name)).fallback;
}

int64_t cli_int(const cli_args *args, const char *name)
{
    const char *text = cli_text(args, name);
    int64_t number;
    return text != NULL && cli_parse_int(text, &number) ? number : 0;
}

double cli_real(const cli_args *args, const char *name)
{
    const char *text = cli_text(args, name);
    double number;
    return text != NULL && cli_parse_real(text, &number) ? number : 0;
}

int cli_count(const cli_args *args, const char *name)
{
    int first = first_of(args, name), count = 0;
    while (first >= 0 && first + count < args->count &&
           args->values[first + count].row == args->values[first].row)
        count++;
    return count;
}

const char *cli_item(const cli_args *args, const char *name, int index)
{
    return index >= 0 && index < cli_count(args, name) ? args->values[first_of(args, name) + index].text
                                                       : NULL;
}

const char *const *cli_items(const cli_args *args, const char *name)
{
    int first = first_of(args, name);
    return &args->items[first >= 0 ? first : args->count];
}

int cli_operand_count(const cli_args *args)
{
    return args->operand_count;
}

const char *cli_operand(const cli_args *args, int index)
{
    return index >= 0 && index < args->operand_count ? args->operands[index] : NULL;
}

const char *const *cli_operands(const cli_args *args)
{
    return args->operands;
}

char *const *cli_words(const cli_args *args)
{
    return args->words;
}
