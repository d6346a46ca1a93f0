/* fuzz_config.c: any bytes as a configuration; one that is taken must read back as itself. */
#include "fuzz.h"
#include <string.h>

/* What is written of `config` must be taken by a fresh one, and written again be the same. */
static void check_round_trip(fv_context *ctx, const fv_config *config, fv_config_part part)
{
    fv_config *back = NULL;
    char *first = fv_config_json(config, part);
    MUST(first != NULL && fv_config_create(&back, ctx) == FV_OK);
    MUST(fv_config_load(back, fuzz_file((const uint8_t *)first, strlen(first))) == FV_OK);
    char *second = fv_config_json(back, part);
    MUST(second != NULL && strcmp(first, second) == 0);
    fv_config_destroy(back);
    fv_free(ctx, first);
    fv_free(ctx, second);
}

/* The same bytes as KEY=VALUE. */
static void try_set(fv_config *config, const uint8_t *bytes, size_t count)
{
    char *text = malloc(count + 1);
    memcpy(text, bytes, count);
    text[count] = '\0';
    char *value = strchr(text, '=');
    if (value != NULL)
        *value++ = '\0';
    fv_status status = fv_config_set(config, text, value != NULL ? value : "");
    MUST(status == FV_OK || status == FV_ERR_USAGE);
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    fv_context *ctx = fuzz_context();
    fv_config *config = NULL;
    MUST(fv_config_create(&config, ctx) == FV_OK);
    fv_status status = fv_config_load(config, fuzz_file(bytes, count));
    MUST(status == FV_OK || status == FV_ERR_USAGE);
    if (status == FV_OK) {
        check_round_trip(ctx, config, FV_CONFIG_MODEL);
        check_round_trip(ctx, config, FV_CONFIG_TRAIN);
    }
    try_set(config, bytes, count);
    fv_config_destroy(config);
    return 0;
}
