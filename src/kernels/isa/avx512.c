/* isa/avx512.c: the kernels of one instruction set. Compiled alone with that set's flags. */
#define FV_ISA avx512
#include <math.h>
#include <stdint.h>

#include "kernels/vec/avx512.h"

#include "kernels/vec/set.h"
