/* favor/config.h: every setting of a model and of a training run, in one table.
 *
 *     fv_config *cfg;
 *     fv_config_create(&cfg, ctx);
 *     fv_config_set(cfg, "hidden_size", "256");
 *     fv_config_set(cfg, "attention.kind", "favor+");
 *     fv_config_load(cfg, "my.json");            // unknown keys and wrong types are errors
 *
 * Names are Hugging Face's where they exist. A dot enters an object: "attention.kind" is "kind" in the object
 * "attention". Keys of the model stand in config.json of a run, those of training in trainer.json.
 */
#ifndef FAVOR_CONFIG_H
#define FAVOR_CONFIG_H

#include <favor/base.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct fv_config fv_config;

typedef enum fv_config_type { FV_CONFIG_INT, FV_CONFIG_REAL, FV_CONFIG_BOOL, FV_CONFIG_TEXT } fv_config_type;
typedef enum fv_config_part { FV_CONFIG_MODEL, FV_CONFIG_TRAIN } fv_config_part;

/* One row of the table: what --help, the man page and the documentation say. */
typedef struct fv_config_key {
    const char *key;
    fv_config_part part;
    fv_config_type type;
    double min, max;      /* of numbers, inclusive */
    const char *choices;  /* of texts: "a|b|c"; NULL: any text */
    const char *fallback; /* the default, as text */
    const char *help;     /* with unit */
} fv_config_key;

FV_API int fv_config_key_count(void);
FV_API const fv_config_key *fv_config_key_at(int index); /* NULL out of range */

FV_API FV_NODISCARD fv_status fv_config_create(fv_config **config, fv_context *ctx); /* all defaults */
FV_API void fv_config_destroy(fv_config *config);
FV_API FV_NODISCARD fv_status fv_config_copy(fv_config **copy, const fv_config *config);

/* FV_ERR_USAGE for an unknown key (with the nearest known one), a value of the wrong type, out of range, or
 * not among the choices. */
FV_API FV_NODISCARD fv_status fv_config_set(fv_config *config, const char *key, const char *text);

/* Reads a JSON object of keys. Same checks; messages carry file, line and key. Syntax errors and bad
 * values are FV_ERR_USAGE (a config is wrong use), a missing file too. */
FV_API FV_NODISCARD fv_status fv_config_load(fv_config *config, const char *path);

/* Values; an unknown key is a bug of the caller and gives 0 or "". */
FV_API int64_t fv_config_int(const fv_config *config, const char *key);
FV_API double fv_config_real(const fv_config *config, const char *key);
FV_API int fv_config_bool(const fv_config *config, const char *key);
FV_API const char *fv_config_text(const fv_config *config, const char *key);
FV_API int fv_config_is_set(const fv_config *config, const char *key); /* given, not the default */

/* The keys of one part as a JSON object, pretty-printed; free with fv_free. NULL without memory. */
FV_API char *fv_config_json(const fv_config *config, fv_config_part part);

#ifdef __cplusplus
}
#endif
#endif
