/* options.c: the fields of fv_attention_options that users set, by the names that options and configs give them,
 * and which kinds take them. One row a field.
 *
 * A field that shapes an input (buckets: lsh_rotations) goes with the kinds that take this input; one that no
 * input tells of (window) goes with the rows whose `takes` says so; the others go with every kind, or are looked
 * at by operator.c and the mechanism.
 */
#include "attention/mechanism.h"
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

typedef enum field_type { INT, REAL, FLAG, WORD } field_type;

/* A word and the value it stands for; one that ends in ':' takes a number behind it. */
typedef struct word {
    const char *name;
    int value;
} word;

typedef struct field {
    const char *name;
    field_type type;
    size_t at;         /* in fv_attention_options */
    const word *words; /* ends with a NULL name */
    size_t number;     /* where the number of a word goes */
    const char *expected;
    uint32_t inputs, takes; /* kinds with one of these take the field; both 0: every kind */
} field;

static const word projections[] = {
    {"default", FV_PROJECTION_DEFAULT},   {"none", FV_PROJECTION_NONE},
    {"iid", FV_PROJECTION_IID},           {"orthogonal", FV_PROJECTION_ORTHOGONAL},
    {"hadamard", FV_PROJECTION_HADAMARD}, {"givens", FV_PROJECTION_GIVENS},
    {"simplex", FV_PROJECTION_SIMPLEX},   {NULL, 0}};
static const word row_norms[] = {{"chi", FV_ROW_NORMS_CHI}, {"sqrt-d", FV_ROW_NORMS_SQRT_D}, {NULL, 0}};
static const word denominators[] = {{"default", FV_DENOMINATOR_DEFAULT}, {"none", FV_DENOMINATOR_NONE},
                                    {"off", FV_DENOMINATOR_OFF},         {"add:", FV_DENOMINATOR_ADD},
                                    {"clamp:", FV_DENOMINATOR_CLAMP},    {"abs:", FV_DENOMINATOR_ABS},
                                    {"sign:", FV_DENOMINATOR_SIGN},      {NULL, 0}};
static const word position_biases[] = {{"none", FV_POSITION_BIAS_NONE},
                                       {"fastrpb", FV_POSITION_BIAS_FASTRPB},
                                       {"fastrpb-2d", FV_POSITION_BIAS_FASTRPB_2D},
                                       {"kernel", FV_POSITION_BIAS_KERNEL},
                                       {NULL, 0}};
static const word rmf_laws[] = {{"default", FV_RMF_GEOMETRIC},
                                {"geometric:", FV_RMF_GEOMETRIC},
                                {"poisson:", FV_RMF_POISSON},
                                {"optimal:", FV_RMF_OPTIMAL},
                                {NULL, 0}};

#define AT(member)            offsetof(fv_attention_options, member)
#define BIT(which)            FV_INPUT_BIT(FV_INPUT_##which)
#define WHOLE(name_)          .name = #name_, .type = INT, .at = AT(name_), .expected = "a whole number"
#define NUMBER(name_)         .name = #name_, .type = REAL, .at = AT(name_), .expected = "a number"
#define SWITCH(name_)         .name = #name_, .type = FLAG, .at = AT(name_), .expected = "true or false"
#define CHOICE(name_, words_) .name = #name_, .type = WORD, .at = AT(name_), .words = words_

/* clang-format off */
static const field fields[] = {
    {NUMBER(scale)},
    {WHOLE(features)}, /* one number for a comparison of kinds: those without projections pass over it */
    {CHOICE(projection, projections), .expected = "default, none, iid, orthogonal, hadamard, givens or simplex"},
    {CHOICE(row_norms, row_norms), .expected = "chi or sqrt-d"},
    {SWITCH(trainable_projection)},
    {NUMBER(epsilon)},
    {CHOICE(denominator, denominators), .number = AT(denominator_value),
     .expected = "none, off, add:X, clamp:X, abs:X or sign:X"},
    {WHOLE(chunk)},
    {NUMBER(tau), .inputs = BIT(BANDWIDTH)},
    {NUMBER(psi), .takes = FV_TAKES_PSI},
    {CHOICE(rmf_law, rmf_laws), .number = AT(rmf_parameter), .inputs = BIT(RMF_DEGREES),
     .expected = "geometric:P, poisson:MU or optimal:MU"},
    {WHOLE(rmf_max_degree), .inputs = BIT(RMF_DEGREES)},
    {WHOLE(features_trig), .inputs = BIT(PROJECTION_TRIG)},
    {WHOLE(angle_rows), .inputs = BIT(ANGLE_ROWS)},
    {WHOLE(window), .takes = FV_TAKES_WINDOW},
    {WHOLE(stride), .takes = FV_TAKES_STRIDE},
    {WHOLE(block), .takes = FV_TAKES_BLOCK},
    {WHOLE(globals), .takes = FV_TAKES_GLOBALS},
    {WHOLE(random_blocks), .takes = FV_TAKES_RANDOM_BLOCKS},
    {WHOLE(buckets), .inputs = BIT(LSH_ROTATIONS)},
    {WHOLE(rounds), .inputs = BIT(LSH_ROTATIONS)},
    {WHOLE(projected), .inputs = BIT(LINFORMER_E)},
    {WHOLE(max_tokens), .inputs = BIT(LINFORMER_E), .takes = FV_TAKES_POSITIONS},
    {SWITCH(gate), .inputs = BIT(GATE)},
    {SWITCH(decay), .inputs = BIT(DECAY)},
    {CHOICE(position_bias, position_biases), .expected = "none, fastrpb, fastrpb-2d or kernel"},
    {WHOLE(position_span)},
    {WHOLE(position_fft), .inputs = BIT(GATE)},
    {WHOLE(position_skip)},
    {SWITCH(ppsbn)},
    {SWITCH(rotary)},
    {NUMBER(rotary_base)},
};
/* clang-format on */

_Static_assert(sizeof(fv_projection) == sizeof(int) && sizeof(fv_denominator) == sizeof(int) &&
                   sizeof(fv_position_bias) == sizeof(int) && sizeof(fv_rmf_law) == sizeof(int),
               "words are stored as int");

void fv_attention_options_init(fv_attention_options *options)
{
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
    options->epsilon = options->psi = -1.0;
    options->window = options->globals = options->random_blocks = -1;
}

static const field *find(const char *name)
{
    for (int i = 0; i < FV_COUNT(fields); i++)
        if (strcmp(fields[i].name, name) == 0)
            return &fields[i];
    return NULL;
}

const char *fv_attention_option_name(int index)
{
    return index >= 0 && index < FV_COUNT(fields) ? fields[index].name : NULL;
}

/* ---- from text ----------------------------------------------------------------------------------------- */

static bool read_real(const char *text, double *value)
{
    char *end;
    *value = strtod(text, &end);
    return end != text && *end == '\0' && isfinite(*value);
}

static bool read_word(const field *f, const char *text, char *options)
{
    for (const word *w = f->words; w->name != NULL; w++) {
        size_t length = strlen(w->name);
        bool numbered = w->name[length - 1] == ':';
        if (strncmp(text, w->name, length) != 0 || (!numbered && text[length] != '\0'))
            continue;
        memcpy(options + f->at, &w->value, sizeof(int));
        return !numbered || read_real(text + length, (double *)(void *)(options + f->number));
    }
    return false;
}

static bool read_field(const field *f, const char *text, char *options)
{
    char *end;
    int on = strcmp(text, "true") == 0;
    if (f->type == WORD)
        return read_word(f, text, options);
    if (f->type == REAL)
        return read_real(text, (double *)(void *)(options + f->at));
    if (f->type == FLAG) {
        memcpy(options + f->at, &on, sizeof on);
        return on || strcmp(text, "false") == 0;
    }
    long long whole = strtoll(text, &end, 10); /* saturates: operator.c knows the range */
    memcpy(options + f->at, &(int64_t){whole}, sizeof(int64_t));
    return end != text && *end == '\0';
}

const char *fv_attention_options_set(fv_attention_options *options, const char *name, const char *text)
{
    const field *f = find(name);
    if (f == NULL)
        return "the name of an option of attention";
    return read_field(f, text, (char *)options) ? NULL : f->expected;
}

/* ---- which kinds take it -------------------------------------------------------------------------------- */

uint32_t fv_mechanism_inputs(const fv_mechanism *mechanism)
{
    const fv_feature_map *map = mechanism->map;
    uint32_t bits = mechanism->inputs | BIT(POSITION_BIAS) | BIT(PPSBN_GAMMA) | BIT(PPSBN_BETA);
    if (mechanism->kind.kernelized)
        bits |= BIT(GATE) | BIT(DECAY);
    if (map != NULL)
        bits |= map->inputs | (map->unprojected ? 0 : BIT(PROJECTION));
    return bits;
}

static bool takes(const fv_mechanism *mechanism, const field *f)
{
    const fv_feature_map *map = mechanism->map;
    uint32_t bits = mechanism->takes | (map != NULL ? map->takes : 0);
    if (map != NULL && map->positions)
        bits |= FV_TAKES_POSITIONS;
    bool everywhere = f->inputs == 0 && f->takes == 0;
    return everywhere || (fv_mechanism_inputs(mechanism) & f->inputs) != 0 || (bits & f->takes) != 0;
}

int fv_attention_kind_takes(const fv_attention_kind *kind, const char *option, const char *with)
{
    const fv_mechanism *mechanism = fv_mechanism_find(kind->name);
    const field *f = find(option);
    if (f == NULL || !takes(mechanism, f))
        return 0;
    const fv_feature_map *map = mechanism->map;
    bool projects = map != NULL && !map->unprojected;
    if (f->at == AT(features))
        return projects || (map != NULL && map->own_rows);
    if (f->at == AT(projection) || f->at == AT(row_norms) || f->at == AT(trainable_projection))
        return projects;
    if (f->at == AT(epsilon))
        return kind->generalized;
    if (f->at == AT(denominator))
        return !mechanism->unnormalised;
    bool kernel = f->at == AT(position_bias) && with != NULL && strcmp(with, "kernel") == 0;
    return !kernel || mechanism->position_kernel;
}

int fv_attention_kind_input(const fv_attention_kind *kind, fv_input which)
{
    return which < FV_INPUT_COUNT &&
           (fv_mechanism_inputs(fv_mechanism_find(kind->name)) & FV_INPUT_BIT(which)) != 0;
}

static size_t field_bytes(const field *f)
{
    return f->type == INT ? sizeof(int64_t) : f->type == REAL ? sizeof(double) : sizeof(int);
}

/* What would be passed over in silence. */
fv_status fv_options_check(const fv_attention *op)
{
    const fv_attention_options *o = &op->options;
    fv_attention_options none;
    fv_attention_options_init(&none);
    for (int i = 0; i < FV_COUNT(fields); i++) {
        const field *f = &fields[i];
        bool given = memcmp((const char *)o + f->at, (const char *)&none + f->at, field_bytes(f)) != 0;
        if (given && f->type != FLAG && !takes(op->mechanism, f)) /* modifiers: operator.c says why */
            return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: takes no option %s", o->kind, f->name);
    }
    bool projects = op->mechanism->map != NULL && !op->mechanism->map->unprojected;
    if (!projects && (o->projection > FV_PROJECTION_NONE || o->row_norms != FV_ROW_NORMS_CHI))
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: draws no projections; it takes no option projection or row_norms",
                       o->kind);
    bool adds =
        o->position_bias == FV_POSITION_BIAS_FASTRPB || o->position_bias == FV_POSITION_BIAS_FASTRPB_2D;
    if (o->position_skip > 0 && !adds)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: position_skip goes with position bias fastrpb or fastrpb-2d", o->kind);
    if (o->position_fft > 0 && o->position_bias != FV_POSITION_BIAS_KERNEL)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: position_fft goes with position bias kernel",
                       o->kind);
    if (o->rotary_base != 0 && !o->rotary)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: rotary_base goes with rotary", o->kind);
    if (o->epsilon >= 0 && !op->mechanism->kind.generalized)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: epsilon is for the generalized maps only",
                       o->kind);
    bool guarded = o->denominator != FV_DENOMINATOR_DEFAULT && o->denominator != FV_DENOMINATOR_NONE;
    if (guarded && op->mechanism->unnormalised)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: its normaliser takes no guard; use denominator none", o->kind);
    return FV_OK;
}
