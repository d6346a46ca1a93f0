/* support/modifiers.c: see modifiers.h. */
#include "support/modifiers.h"
#include "support/kinds.h"

const modifier modifiers[MODIFIERS] = {
    {"rotary", 1, 0, FV_POSITION_BIAS_NONE},           {"ppsbn", 0, 1, FV_POSITION_BIAS_NONE},
    {"fastrpb", 0, 0, FV_POSITION_BIAS_FASTRPB},       {"fastrpb-2d", 0, 0, FV_POSITION_BIAS_FASTRPB_2D},
    {"rotary and ppsbn", 1, 1, FV_POSITION_BIAS_NONE}, {"ppsbn and fastrpb", 0, 1, FV_POSITION_BIAS_FASTRPB},
    {"all three", 1, 1, FV_POSITION_BIAS_FASTRPB},
};

bool modifier_is_biased(const modifier *m)
{
    return m->bias != FV_POSITION_BIAS_NONE;
}

fv_attention_options modifier_options(int kind, int causal, const modifier *m, int64_t longest)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(kind)->name;
    o.heads = 2, o.kv_heads = 1, o.dim = 4, o.value_dim = 3, o.causal = causal, o.features = 6, o.chunk = 4;
    o.rotary = m->rotary, o.ppsbn = m->ppsbn, o.position_bias = m->bias;
    if (modifier_is_biased(m))
        o.position_span = m->bias == FV_POSITION_BIAS_FASTRPB ? longest + 2 : longest;
    kind_small_options(&o);
    kind_complete(&o);
    return o;
}

void modifiers_each(modifier_check *check)
{
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind))
        for (int causal = 0; causal <= kind_runs(kind, 1); causal++)
            for (int m = 0; m < MODIFIERS; m++)
                check(kind, causal, &modifiers[m]);
}

void modifiers_in_turn(modifier_check *check)
{
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind))
        for (int causal = 0; causal <= kind_runs(kind, 1); causal++)
            for (int m = 0; m < MODIFIERS; m++)
                if (kind < 3 || m == kind % MODIFIERS || m == MODIFIERS - 1)
                    check(kind, causal, &modifiers[m]);
}
