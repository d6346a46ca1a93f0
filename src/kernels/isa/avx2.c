/* isa/avx2.c: the kernels of one instruction set. Compiled alone with that set's flags. */
#define FV_ISA avx2
#include <math.h>
#include <stdint.h>

#include "kernels/vec/avx2.h"

#include "kernels/vec/set.h"
