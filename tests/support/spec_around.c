/* support/spec_around.c: what stands around a mechanism: rotary, ppSBN, FastRPB. */
#include "support/spec.h"

void spec_around_inputs(const spec *s, num *Q, num *K)
{
    (void)s, (void)Q, (void)K;
}

void spec_around_output(const spec *s, num *y)
{
    (void)s, (void)y;
}
