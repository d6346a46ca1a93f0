/* support/laws.h: what programs that hold every kind against laws share. */
#ifndef LAWS_H
#define LAWS_H

#include "support/floats.h"
#include "support/problem.h"

/* Two query heads on one key head, of different widths. */
fv_attention_options laws_options(int kind, int causal);
void laws_same_bits(const float *a, const float *b, int64_t floats, const char *what, const problem *p);
/* Copies tokens [at, at + n) of a problem's inputs into another that begins with them. */
void laws_take_tokens(problem *to, const problem *from, int64_t at, int64_t n);

#endif
