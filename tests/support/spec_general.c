/* support/spec_general.c: kinds of this group. */
#include "support/spec.h"

const spec_kind spec_general_kinds[] = {
    {.name = NULL},
};
