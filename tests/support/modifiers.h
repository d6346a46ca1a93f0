/* support/modifiers.h: what may stand around a mechanism, with every kind: rotary positions, ppSBN, FastRPB. */
#ifndef MODIFIERS_H
#define MODIFIERS_H

#include <favor/attention.h>
#include <stdbool.h>

typedef struct modifier {
    const char *name;
    int rotary, ppsbn;
    fv_position_bias bias;
} modifier;

enum { MODIFIERS = 7 };
extern const modifier modifiers[MODIFIERS];

bool modifier_is_biased(const modifier *m);
/* Options of a kind with a modifier; span for sequences of up to `longest` tokens. */
fv_attention_options modifier_options(int kind, int causal, const modifier *m, int64_t longest);
typedef void modifier_check(int kind, int causal, const modifier *m);
/* Runs `check` for every kind, modifier and direction. */
void modifiers_each(modifier_check *check);
/* For laws of longer sequences: every modifier with one kind of each make (softmax, identity, kernelized), with the
 * others one after the other and all together. */
void modifiers_in_turn(modifier_check *check);

#endif
