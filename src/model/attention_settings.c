/* attention_settings.c: from the "attention." keys of a config to the options of an operator. Which keys there are
 * is said by formats/config_table.c, what their values mean by attention/options.c. */
#include "model/transformer.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char prefix[] = "attention.";

const char *fv_setting_text(const fv_config *config, const fv_config_key *key, char number[FV_SETTING_TEXT])
{
    if (key->type == FV_CONFIG_TEXT)
        return fv_config_text(config, key->key);
    if (key->type == FV_CONFIG_BOOL)
        return fv_config_bool(config, key->key) ? "true" : "false";
    if (key->type == FV_CONFIG_INT)
        snprintf(number, FV_SETTING_TEXT, "%lld", (long long)fv_config_int(config, key->key));
    else
        snprintf(number, FV_SETTING_TEXT, "%.17g", fv_config_real(config, key->key));
    return number;
}

static bool is_option(const char *name)
{
    const char *option;
    for (int i = 0; (option = fv_attention_option_name(i)) != NULL; i++)
        if (strcmp(option, name) == 0)
            return true;
    return false;
}

fv_status fv_settings_attention(fv_context *ctx, const fv_config *config, fv_attention_options *options)
{
    const fv_config_key *key;
    const size_t skip = strlen(prefix);
    fv_attention_options_init(options);
    options->kind = fv_config_text(config, "attention.kind");
    options->pattern_seed = (uint64_t)fv_config_int(config, "attention.projection_seed");
    for (int i = 0; (key = fv_config_key_at(i)) != NULL; i++) {
        char number[FV_SETTING_TEXT];
        if (strncmp(key->key, prefix, skip) != 0 || !is_option(key->key + skip))
            continue; /* the kind, and what steers drawing */
        const char *text = fv_setting_text(config, key, number);
        const char *expected = fv_attention_options_set(options, key->key + skip, text);
        if (expected != NULL)
            return fv_fail(ctx, FV_ERR_USAGE, "config: %s is \"%s\"; expected %s", key->key, text, expected);
    }
    return FV_OK;
}

static fv_status write_back(fv_config *config, const char *key, int64_t value)
{
    char text[32];
    snprintf(text, sizeof text, "%lld", (long long)value);
    return fv_config_int(config, key) == 0 ? fv_config_set(config, key, text) : FV_OK;
}

fv_status fv_settings_attention_sizes(fv_context *ctx, fv_config *config, int64_t longest)
{
    fv_attention_options o;
    TRY(fv_settings_attention(ctx, config, &o));
    const fv_attention_kind *kind = fv_attention_kind_find(o.kind);
    if (kind != NULL && fv_attention_kind_takes(kind, "max_tokens", NULL))
        TRY(write_back(config, "attention.max_tokens", longest));
    if (o.position_bias == FV_POSITION_BIAS_NONE)
        return FV_OK;
    bool raster = o.position_bias == FV_POSITION_BIAS_FASTRPB_2D;
    return write_back(config, "attention.position_span",
                      raster ? (int64_t)ceil(sqrt((double)longest)) : longest);
}
