/* inputs.c: what an operator takes beside q, k and v: one row an input, with its name, role, and shape as a
 * function of the options. Which inputs are taken is said by the mechanism, its map and the modifiers. */
#include "attention/mechanism.h"
#include <string.h>

typedef struct input_row {
    const char *name;
    fv_input_role role;
    bool heads_first, optional, has_gradient;
    void (*shape)(const fv_attention *op, int64_t *rows, int64_t *cols); /* behind H, or all of it */
    int64_t (*first)(const fv_attention *op);                            /* without H: the first dimension */
} input_row;

static void projection_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->m, *cols = op->options.dim;
}
static void trig_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->options.features_trig, *cols = op->options.dim;
}
static void angle_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->options.angle_rows, *cols = op->options.dim;
}
static void degrees_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->m, *cols = 0;
}
static void signs_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->options.rmf_rows, *cols = op->options.dim;
}
static void rotations_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->options.dim, *cols = op->options.buckets / 2;
}
static int64_t rounds(const fv_attention *op)
{
    return op->options.rounds;
}
static void dim_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->options.dim, *cols = 0;
}
static void gate_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->options.heads, *cols = 0;
}
static int64_t tokens(const fv_attention *op)
{
    (void)op;
    return -1;
}
static void head_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    (void)op;
    *rows = 0, *cols = 0;
}
static void bias_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = 2 * op->options.position_span - 1, *cols = 0;
}
static void square_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = *cols = op->options.dim;
}
static void value_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->options.value_dim, *cols = 0;
}
static void linformer_shape(const fv_attention *op, int64_t *rows, int64_t *cols)
{
    *rows = op->options.projected, *cols = op->options.max_tokens;
}

static const input_row table[FV_INPUT_COUNT] = {
    [FV_INPUT_PROJECTION] = {"projection", FV_ROLE_DRAWN, true, false, false, projection_shape, NULL},
    [FV_INPUT_PROJECTION_TRIG] = {"projection_trig", FV_ROLE_DRAWN, true, false, false, trig_shape, NULL},
    [FV_INPUT_ANGLE_ROWS] = {"angle_rows", FV_ROLE_DRAWN, true, false, false, angle_shape, NULL},
    [FV_INPUT_RMF_DEGREES] = {"rmf_degrees", FV_ROLE_DRAWN, true, false, false, degrees_shape, NULL},
    [FV_INPUT_RMF_SIGNS] = {"rmf_signs", FV_ROLE_DRAWN, true, false, false, signs_shape, NULL},
    [FV_INPUT_LSH_ROTATIONS] = {"lsh_rotations", FV_ROLE_DRAWN, false, false, false, rotations_shape, rounds},
    [FV_INPUT_PSI_DIAGONAL] = {"psi_diagonal", FV_ROLE_FROZEN, true, true, false, dim_shape, NULL},
    [FV_INPUT_GATE] = {"gate", FV_ROLE_TOKEN, false, false, true, gate_shape, tokens},
    [FV_INPUT_DECAY] = {"decay", FV_ROLE_TRAINED, true, false, true, head_shape, NULL},
    [FV_INPUT_POSITION_BIAS] = {"position_bias", FV_ROLE_TRAINED, true, false, true, bias_shape, NULL},
    [FV_INPUT_BANDWIDTH] = {"bandwidth", FV_ROLE_TRAINED, true, true, true, dim_shape, NULL},
    [FV_INPUT_MAP_WEIGHT] = {"map_weight", FV_ROLE_TRAINED, true, true, true, square_shape, NULL},
    [FV_INPUT_REBASED_GAMMA] = {"rebased_gamma", FV_ROLE_TRAINED, true, true, true, dim_shape, NULL},
    [FV_INPUT_REBASED_BETA] = {"rebased_beta", FV_ROLE_TRAINED, true, true, true, dim_shape, NULL},
    [FV_INPUT_PPSBN_GAMMA] = {"ppsbn_gamma", FV_ROLE_TRAINED, true, true, true, head_shape, NULL},
    [FV_INPUT_PPSBN_BETA] = {"ppsbn_beta", FV_ROLE_TRAINED, true, true, true, value_shape, NULL},
    [FV_INPUT_LINFORMER_E] = {"linformer_e", FV_ROLE_TRAINED, true, false, true, linformer_shape, NULL},
    [FV_INPUT_LINFORMER_F] = {"linformer_f", FV_ROLE_TRAINED, true, false, true, linformer_shape, NULL},
};

const char *fv_input_name(fv_input which)
{
    return which < FV_INPUT_COUNT ? table[which].name : NULL;
}

/* What the modifiers of the options add. */
static uint32_t modifier_inputs(const fv_attention_options *o)
{
    uint32_t bits = 0;
    if (o->gate)
        bits |= FV_INPUT_BIT(FV_INPUT_GATE);
    if (o->decay)
        bits |= FV_INPUT_BIT(FV_INPUT_DECAY);
    if (o->position_bias != FV_POSITION_BIAS_NONE)
        bits |= FV_INPUT_BIT(FV_INPUT_POSITION_BIAS);
    if (o->ppsbn)
        bits |= FV_INPUT_BIT(FV_INPUT_PPSBN_GAMMA) | FV_INPUT_BIT(FV_INPUT_PPSBN_BETA);
    return bits;
}

bool fv_attention_takes(const fv_attention *op, fv_input which)
{
    const fv_feature_map *map = op->mechanism->map;
    uint32_t bits = op->mechanism->inputs | modifier_inputs(&op->options);
    if (map != NULL)
        bits |= map->inputs;
    if (map != NULL && op->options.projection != FV_PROJECTION_NONE)
        bits |= FV_INPUT_BIT(FV_INPUT_PROJECTION);
    return (bits & FV_INPUT_BIT(which)) != 0;
}

int fv_attention_input(const fv_attention *op, fv_input which, fv_input_info *info)
{
    if (which >= FV_INPUT_COUNT || !fv_attention_takes(op, which))
        return 0;
    const input_row *row = &table[which];
    int64_t rows, cols, rank = 0, floats = 1, first = row->heads_first ? op->options.heads : row->first(op);
    row->shape(op, &rows, &cols);
    *info = (fv_input_info){.name = row->name,
                            .role = row->role,
                            .heads_first = row->heads_first,
                            .optional = row->optional,
                            .has_gradient = row->has_gradient};
    info->shape[rank++] = first;
    if (rows > 0)
        info->shape[rank++] = rows;
    if (cols > 0)
        info->shape[rank++] = cols;
    info->rank = (int)rank;
    for (int64_t i = first < 0 ? 1 : 0; i < rank; i++)
        floats *= info->shape[i]; /* bounded: operator.c limits every size */
    info->floats = floats;
    if (which == FV_INPUT_PSI_DIAGONAL)
        info->optional = !op->options.causal; /* a measured one sees later tokens */
    if (which == FV_INPUT_PROJECTION)
        info->has_gradient = op->options.trainable_projection != 0;
    return 1;
}

fv_status fv_bias_check_span(const fv_attention *op, const fv_layout *layout)
{
    const int64_t *q = layout->offsets_q, *k = fv_layout_keys(layout);
    for (int64_t s = 0; op->options.position_bias == FV_POSITION_BIAS_KERNEL && s < layout->sequences; s++) {
        int64_t longest = FV_MAX(q[s + 1] - q[s], k[s + 1] - k[s]);
        if (longest > op->options.position_span)
            return fv_fail(op->ctx, FV_ERR_FILE,
                           "attention: sequence %lld has %lld tokens, position_bias weights for %lld; give "
                           "at least as many",
                           (long long)s, (long long)longest, (long long)op->options.position_span);
    }
    return FV_OK;
}

void fv_attention_bind_drawn(const fv_attention *op, const float *drawn, fv_attention_io *io)
{
    fv_input_info info;
    for (int i = 0; drawn != NULL && i < FV_INPUT_COUNT; i++)
        if (fv_attention_input(op, (fv_input)i, &info) && info.role == FV_ROLE_DRAWN) {
            io->input[i] = drawn;
            drawn += info.floats;
        }
}
