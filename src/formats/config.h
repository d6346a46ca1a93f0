/* formats/config.h: settings, shared by config.c (values) and config_file.c (JSON). */
#ifndef FV_FORMATS_CONFIG_H
#define FV_FORMATS_CONFIG_H

#include "base/internal.h"
#include <favor/config.h>
#include <jansson.h>

#define FV_CONFIG_KEY 64 /* no key is as long */

typedef struct fv_setting {
    union {
        int64_t integer;
        double real;
        int boolean;
        char *text;
    } as;
    bool given; /* not the default */
} fv_setting;

struct fv_config {
    fv_context *ctx;
    fv_setting values[]; /* [fv_config_key_count()] */
};

/* fv_config_load of `count` bytes of text; `name` stands for the file in messages. For files that hold more
 * than settings. */
fv_status fv_config_parse(fv_config *config, const char *name, const char *text, size_t count);

int fv_config_find(const char *key); /* -1: unknown */
/* `where` opens messages: "FILE:LINE: " or "". */
fv_status fv_config_unknown(fv_context *ctx, const char *where, const char *key);
/* Sets one value from JSON, after its checks. */
fv_status fv_config_assign(fv_config *config, int index, const json_t *json, const char *where);

#endif
