/* support/spec_softmax.c: kinds of this group. */
#include "support/spec.h"

const spec_kind spec_softmax_kinds[] = {
    {.name = NULL},
};
