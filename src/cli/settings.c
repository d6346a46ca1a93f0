/* cli/settings.c: from the command line to the settings of a run: defaults < --config < options < --set. */
#include "cli.h"
#include <string.h>

static fv_status set_option(const cli_args *args, const cli_option *option, fv_config *config)
{
    const char *text = cli_text(args, option->name);
    char number[64];
    /* Settings are JSON, which knows no "+1" and no ".5". */
    if (option->type == CLI_INT)
        snprintf(number, sizeof number, "%lld", (long long)cli_int(args, option->name));
    if (option->type == CLI_REAL)
        snprintf(number, sizeof number, "%.17g", cli_real(args, option->name));
    bool is_number = option->type == CLI_INT || option->type == CLI_REAL;
    return fv_config_set(config, option->key, is_number ? number : text);
}

static fv_status set_options(const cli_args *args, fv_config *config)
{
    int group = 0, row = 0;
    const cli_option *option;
    while ((option = cli_option_next(cli_args_command(args), &group, &row)) != NULL) {
        const cli_option full = cli_option_resolve(option);
        if (full.key != NULL && full.type != CLI_LIST && cli_given(args, full.name))
            CLI_TRY(set_option(args, &full, config));
    }
    return FV_OK;
}

static fv_status set_pairs(const cli_args *args, fv_config *config)
{
    for (int i = 0; i < cli_count(args, "set"); i++) {
        const char *pair = cli_item(args, "set", i);
        size_t length = strcspn(pair, "=");
        char key[128];
        snprintf(key, sizeof key, "%.*s", (int)(length < sizeof key ? length : sizeof key - 1), pair);
        CLI_TRY(fv_config_set(config, key, pair + length + 1));
    }
    return FV_OK;
}

static fv_status set_tokenizer(fv_config *config)
{
    if (fv_config_is_set(config, "tokenizer") || !fv_config_is_set(config, "reader"))
        return FV_OK;
    for (int i = 0; i < fv_reader_kind_count(); i++) {
        const fv_reader_kind *reader = fv_reader_kind_at(i);
        if (strcmp(reader->name, fv_config_text(config, "reader")) == 0)
            return fv_config_set(config, "tokenizer", reader->tokenizer);
    }
    return FV_OK;
}

fv_status cli_settings(const cli_args *args, fv_config *config)
{
    const cli_command *command = cli_args_command(args);
    if (cli_option_find(command, "config") != NULL && cli_given(args, "config"))
        CLI_TRY(fv_config_load(config, cli_text(args, "config")));
    CLI_TRY(set_options(args, config));
    if (cli_option_find(command, "set") != NULL)
        CLI_TRY(set_pairs(args, config));
    return set_tokenizer(config);
}
