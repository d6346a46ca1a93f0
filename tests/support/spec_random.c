/* support/spec_random.c: kinds of this group. */
#include "support/spec.h"

const spec_kind spec_random_kinds[] = {
    {.name = NULL},
};
