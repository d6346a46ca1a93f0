/* support/spec_sparse.c: kinds of this group. */
#include "support/spec.h"

const spec_kind spec_sparse_kinds[] = {
    {.name = NULL},
};
