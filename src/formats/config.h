/* formats/config.h: settings from memory, for files that hold more than settings. */
#ifndef FV_FORMATS_CONFIG_H
#define FV_FORMATS_CONFIG_H

#include "base/internal.h"
#include <favor/config.h>

/* fv_config_load of `count` bytes of text; `name` stands for the file in messages. */
fv_status fv_config_parse(fv_config *config, const char *name, const char *text, size_t count);

#endif
