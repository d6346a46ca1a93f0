/* isa/neon.c: the kernels of one instruction set. Compiled alone with that set's flags. */
#define FV_ISA neon
#include <math.h>
#include <stdint.h>

#include "kernels/vec/neon.h"

#include "kernels/vec/set.h"
