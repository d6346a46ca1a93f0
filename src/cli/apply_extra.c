/* cli/apply_extra.c: the tensors of `favor apply` beside q, k and v: those of the library's table of inputs.
 *
 * A tensor switches its modifier on and gives the sizes of options that belong to it. A tensor with a head
 * dimension may come without it: then it serves all heads, and its gradient is the sum over them.
 */
#include "apply.h"
#include <math.h>
#include <stddef.h>
#include <string.h>

/* ---- options from tensors ------------------------------------------------------------------------------ */

/* option = (size of the axis * times + plus) / by; axes are counted from the last, 1. */
typedef struct size_row {
    fv_input which;
    int axis;
    size_t field; /* an int64_t of fv_attention_options */
    const char *option;
    int64_t times, plus, by;
} size_row;

#define FIELD(name) offsetof(fv_attention_options, name)

static const size_row sizes[] = {
    {FV_INPUT_PROJECTION, 2, FIELD(features), "--features", 1, 0, 1},
    {FV_INPUT_PROJECTION_TRIG, 2, FIELD(features_trig), "--features-trig", 1, 0, 1},
    {FV_INPUT_ANGLE_ROWS, 2, FIELD(angle_rows), "--angle-rows", 1, 0, 1},
    {FV_INPUT_RMF_DEGREES, 1, FIELD(features), "--features", 1, 0, 1},
    {FV_INPUT_LSH_ROTATIONS, 3, FIELD(rounds), "--rounds", 1, 0, 1},
    {FV_INPUT_LSH_ROTATIONS, 1, FIELD(buckets), "--buckets", 2, 0, 1},
    {FV_INPUT_LINFORMER_E, 2, FIELD(projected), "--projected", 1, 0, 1},
    {FV_INPUT_LINFORMER_E, 1, FIELD(max_tokens), "--max-tokens", 1, 0, 1},
    {FV_INPUT_POSITION_BIAS, 1, FIELD(position_span), "--position-span", 1, 1, 2},
};

static fv_status take_size(apply *a, const size_row *row)
{
    const fv_tensor *tensor = a->input[row->which].tensor;
    int64_t *option = (int64_t *)(void *)((char *)&a->options + row->field);
    if (tensor == NULL)
        return FV_OK;
    int64_t size = tensor->rank >= row->axis ? tensor->shape[tensor->rank - row->axis] : 0;
    if (size < 1 || size > INT64_MAX / 4)
        return apply_misfit(a, tensor, "a positive size in each dimension it has");
    size = (size * row->times + row->plus) / row->by;
    if (*option > 0 && *option != size)
        return cli_fail(FV_ERR_FILE, "%s: tensor %s: shape %s, expected %lld as %s says", a->path,
                        tensor->name, apply_shape_text(tensor).text, (long long)*option, row->option);
    *option = size;
    return FV_OK;
}

/* Rows of signs; none where all degrees are 0, and the operator wants at least one. */
static void take_sign_rows(apply *a)
{
    const fv_tensor *signs = a->input[FV_INPUT_RMF_SIGNS].tensor;
    if (signs != NULL && signs->rank >= 2)
        a->options.rmf_rows = signs->shape[signs->rank - 2] > 0 ? signs->shape[signs->rank - 2] : 1;
}

static int64_t longest_sequence(const apply *a)
{
    int64_t longest = 1;
    for (int64_t s = 0; s < a->layout.sequences; s++) {
        int64_t nq = a->layout.offsets_q[s + 1] - a->layout.offsets_q[s];
        int64_t nk = a->offsets_k[s + 1] - a->offsets_k[s];
        longest = longest > nq ? longest : nq;
        longest = longest > nk ? longest : nk;
    }
    return longest;
}

static fv_status switch_modifiers(apply *a)
{
    fv_attention_options *o = &a->options;
    if (a->input[FV_INPUT_PROJECTION].tensor != NULL && o->projection == FV_PROJECTION_NONE)
        return cli_fail(FV_ERR_USAGE, "--projection none: but %s holds a tensor projection", a->path);
    /* A given matrix switches the projection on, whatever the kind's default. */
    if (a->input[FV_INPUT_PROJECTION].tensor != NULL && o->projection == FV_PROJECTION_DEFAULT)
        o->projection = FV_PROJECTION_ORTHOGONAL;
    if (a->input[FV_INPUT_GATE].tensor != NULL)
        o->gate = 1;
    if (a->input[FV_INPUT_DECAY].tensor != NULL)
        o->decay = 1;
    if (a->input[FV_INPUT_PPSBN_GAMMA].tensor != NULL || a->input[FV_INPUT_PPSBN_BETA].tensor != NULL)
        o->ppsbn = 1;
    if (a->input[FV_INPUT_POSITION_BIAS].tensor != NULL && o->position_bias == FV_POSITION_BIAS_NONE)
        o->position_bias = FV_POSITION_BIAS_FASTRPB;
    return FV_OK;
}

fv_status apply_extra_options(apply *a)
{
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        apply_input *input = &a->input[i];
        input->tensor = fv_tensors_find(a->in, fv_input_name((fv_input)i));
        if (input->tensor != NULL && !fv_attention_kind_input(a->kind, (fv_input)i))
            return cli_fail(FV_ERR_USAGE, "%s: tensor %s: attention %s takes none", a->path,
                            input->tensor->name, a->kind->name);
    }
    CLI_TRY(switch_modifiers(a));
    for (int i = 0; i < CLI_COUNT(sizes); i++)
        CLI_TRY(take_size(a, &sizes[i]));
    take_sign_rows(a);
    /* Without their tensor these sizes only serve to say which shape is missing. */
    bool raster = a->options.position_bias == FV_POSITION_BIAS_FASTRPB_2D;
    if (a->options.position_bias != FV_POSITION_BIAS_NONE && a->options.position_span == 0)
        a->options.position_span =
            raster ? (int64_t)ceil(sqrt((double)longest_sequence(a))) : longest_sequence(a);
    if (fv_attention_kind_input(a->kind, FV_INPUT_LINFORMER_E) && a->options.max_tokens == 0)
        a->options.max_tokens = longest_sequence(a);
    return FV_OK;
}

/* ---- shapes ---------------------------------------------------------------------------------------------- */

/* The shape that a file may hold, of one head or of all. */
static apply_shape shape_of(const apply *a, const apply_input *input, bool shared)
{
    int64_t shape[3];
    int rank = 0;
    for (int i = shared ? 1 : 0; i < input->info.rank; i++)
        shape[rank++] = input->info.shape[i] < 0 ? a->Tk : input->info.shape[i];
    return apply_shape_of(shape, rank);
}

static bool fits(const apply *a, const apply_input *input, bool shared)
{
    const fv_tensor *tensor = input->tensor;
    int skip = shared ? 1 : 0;
    bool same = tensor->rank == input->info.rank - skip;
    for (int i = 0; same && i < tensor->rank; i++) {
        int64_t want = input->info.shape[i + skip];
        bool no_signs = input == &a->input[FV_INPUT_RMF_SIGNS] && want == 1 && i == tensor->rank - 2;
        same = tensor->shape[i] == (want < 0 ? a->Tk : want) || (no_signs && tensor->shape[i] == 0);
    }
    return same;
}

static fv_status check_shape(const apply *a, apply_input *input)
{
    /* A lone number a head has no shape without its heads. */
    bool may_share = input->info.heads_first && input->info.rank > 1;
    input->shared = may_share && fits(a, input, true);
    if (input->shared || fits(a, input, false))
        return FV_OK;
    char expected[3 * sizeof(apply_shape)];
    snprintf(expected, sizeof expected, "%s%s%s", may_share ? shape_of(a, input, true).text : "",
             may_share ? " or " : "", shape_of(a, input, false).text);
    return apply_misfit(a, input->tensor, expected);
}

/* ---- values ---------------------------------------------------------------------------------------------- */

static bool in_gate(float x)
{
    return x > 0.0f && x < 1.0f;
}
static bool in_decay(float x)
{
    return x > 0.0f && x <= 1.0f;
}
static bool is_sign(float x)
{
    return x == 1.0f || x == -1.0f;
}
static bool is_degree(float x)
{
    return x >= 0.0f;
}

static const struct {
    bool (*holds)(float x);
    const char *expected;
} ranges[FV_INPUT_COUNT] = {
    [FV_INPUT_GATE] = {in_gate, "a number between 0 and 1"},
    [FV_INPUT_DECAY] = {in_decay, "a number above 0, at most 1"},
    [FV_INPUT_RMF_SIGNS] = {is_sign, "1 or -1"},
    [FV_INPUT_RMF_DEGREES] = {is_degree, "0 or more"},
};

static fv_status check_values(const apply *a, fv_input which)
{
    const apply_input *input = &a->input[which];
    for (int64_t i = 0; ranges[which].holds != NULL && i < input->tensor->count; i++)
        if (!ranges[which].holds(input->values[i]))
            return cli_fail(FV_ERR_FILE, "%s: tensor %s: element %lld is %g, expected %s", a->path,
                            input->tensor->name, (long long)i, (double)input->values[i],
                            ranges[which].expected);
    return FV_OK;
}

/* Whole numbers come as such, all others as floats. */
static fv_status read_values(apply *a, fv_input which)
{
    apply_input *input = &a->input[which];
    const fv_tensor *tensor = input->tensor;
    if (which != FV_INPUT_RMF_DEGREES)
        return apply_floats(a, tensor, &input->values);
    if (tensor->dtype != FV_I64 && tensor->dtype != FV_I32)
        return cli_fail(FV_ERR_FILE, "%s: tensor %s: type %s, expected I64", a->path, tensor->name,
                        fv_dtype_name(tensor->dtype));
    float *values = apply_alloc(a, tensor->count, sizeof *values);
    input->values = values;
    return values != NULL ? fv_tensor_to_f32(a->ctx, tensor, values) : FV_ERR_RESOURCE;
}

/* One head's numbers for all heads. */
static fv_status spread(apply *a, apply_input *input)
{
    int64_t n = input->tensor->count, whole = input->info.floats;
    if (!input->shared && n == whole)
        return FV_OK;
    if (input->info.role == FV_ROLE_TOKEN)
        return FV_OK;
    float *all = apply_alloc(a, whole, sizeof *all);
    if (all == NULL)
        return cli_fail(FV_ERR_RESOURCE, "out of memory");
    for (int64_t i = 0; i < whole; i++) /* signs that no degree uses are 1 */
        all[i] = n > 0 ? input->values[i % n] : 1.0f;
    input->values = all;
    return FV_OK;
}

/* A head has as many rows of signs as its degrees add up to, or, where every head has rows of its own, more. */
static fv_status check_degrees(const apply *a)
{
    const apply_input *degrees = &a->input[FV_INPUT_RMF_DEGREES], *signs = &a->input[FV_INPUT_RMF_SIGNS];
    if (degrees->tensor == NULL && signs->tensor == NULL)
        return FV_OK;
    if (degrees->tensor == NULL || signs->tensor == NULL)
        return cli_fail(FV_ERR_FILE, "%s: tensor %s is missing: rmf_degrees and rmf_signs come together",
                        a->path, degrees->tensor == NULL ? "rmf_degrees" : "rmf_signs");
    int64_t rows = signs->tensor->shape[signs->tensor->rank - 2], features = degrees->info.shape[1];
    for (int64_t h = 0; h < a->H; h++) {
        double sum = 0;
        for (int64_t i = 0; i < features; i++)
            sum += (double)degrees->values[h * features + i];
        if (sum > (double)rows || (signs->shared && sum != (double)rows))
            return cli_fail(FV_ERR_FILE,
                            "%s: tensor rmf_signs: %lld rows, expected %.0f, the sum of the degrees", a->path,
                            (long long)rows, sum);
    }
    return FV_OK;
}

/* ---- reading and drawing --------------------------------------------------------------------------------- */

static fv_status read_input(apply *a, fv_input which)
{
    apply_input *input = &a->input[which];
    CLI_TRY(check_shape(a, input));
    CLI_TRY(read_values(a, which));
    CLI_TRY(check_values(a, which));
    return spread(a, input);
}

static fv_status draw(apply *a)
{
    fv_attention_io io = {0};
    bool wanted = false;
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        wanted |= a->input[i].taken && a->input[i].info.role == FV_ROLE_DRAWN && a->input[i].tensor == NULL;
    if (!wanted)
        return FV_OK;
    float *drawn = apply_alloc(a, a->info.drawn_floats, sizeof *drawn);
    if (drawn == NULL)
        return FV_ERR_RESOURCE;
    CLI_TRY(fv_attention_draw(a->op, (uint64_t)cli_int(a->args, "projection-seed"), 0, drawn));
    fv_attention_bind_drawn(a->op, drawn, &io);
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (a->input[i].tensor == NULL)
            a->input[i].values = io.input[i];
    return FV_OK;
}

static fv_status take_input(apply *a, fv_input which)
{
    apply_input *input = &a->input[which];
    input->taken = fv_attention_input(a->op, which, &input->info) != 0;
    if (!input->taken && input->tensor != NULL)
        return cli_fail(FV_ERR_USAGE, "%s: tensor %s: attention %s takes none with these options", a->path,
                        input->tensor->name, a->kind->name);
    if (input->taken && input->tensor != NULL)
        return read_input(a, which);
    if (input->taken && !input->info.optional && input->info.role != FV_ROLE_DRAWN)
        return cli_fail(FV_ERR_FILE, "%s: tensor %s is missing, expected %s", a->path, input->info.name,
                        shape_of(a, input, false).text);
    return FV_OK;
}

/* Sequences that the tensors are too short for. */
static fv_status check_lengths(const apply *a)
{
    const fv_attention_options *o = &a->info.options;
    bool raster = o->position_bias == FV_POSITION_BIAS_FASTRPB_2D;
    for (int64_t s = 0; s < a->layout.sequences; s++) {
        int64_t nq = a->layout.offsets_q[s + 1] - a->layout.offsets_q[s];
        int64_t nk = a->offsets_k[s + 1] - a->offsets_k[s], span = o->position_span;
        int64_t n = nq > nk ? nq : nk, rest = n > o->position_skip ? n - o->position_skip : 0;
        if (a->input[FV_INPUT_LINFORMER_E].taken && nk > o->max_tokens)
            return cli_fail(FV_ERR_FILE, "%s: sequence %lld has %lld keys, tensor linformer_e %lld columns",
                            a->path, (long long)s, (long long)nk, (long long)o->max_tokens);
        if (o->position_bias != FV_POSITION_BIAS_NONE && !raster && rest > span)
            return cli_fail(FV_ERR_FILE,
                            "%s: sequence %lld has %lld tokens, tensor position_bias reaches %lld", a->path,
                            (long long)s, (long long)rest, (long long)span);
        if (raster && n > 0 && (nq != nk || rest / span != span || rest % span != 0))
            return cli_fail(
                FV_ERR_FILE,
                "%s: sequence %lld has %lld tokens, tensor position_bias is for a raster of %lld x %lld",
                a->path, (long long)s, (long long)rest, (long long)span, (long long)span);
    }
    return FV_OK;
}

fv_status apply_extra_read(apply *a)
{
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        CLI_TRY(take_input(a, (fv_input)i));
    CLI_TRY(check_degrees(a));
    CLI_TRY(check_lengths(a));
    if (a->info.drawn_floats == 0 && cli_given(a->args, "write"))
        return cli_fail(FV_ERR_USAGE, "--write projection: this attention has none");
    return draw(a);
}

/* ---- calls and outputs ----------------------------------------------------------------------------------- */

void apply_extra_bind(const apply *a, int64_t first, fv_attention_io *io, fv_attention_grad *grad)
{
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        const apply_input *input = &a->input[i];
        int64_t at = input->info.role == FV_ROLE_TOKEN ? first * input->info.floats : 0;
        io->input[i] = input->values != NULL ? input->values + at : NULL;
        if (grad != NULL)
            grad->d_input[i] = input->gradient != NULL ? input->gradient + at : NULL;
    }
}

static fv_status add_drawn(apply *a, const apply_input *input, fv_tensor *output)
{
    *output = (fv_tensor){.name = input->info.name,
                          .dtype = FV_F32,
                          .rank = input->info.rank,
                          .count = input->info.floats,
                          .data = input->values};
    memcpy(output->shape, input->info.shape, sizeof input->info.shape);
    if (input != &a->input[FV_INPUT_RMF_DEGREES])
        return FV_OK;
    int64_t *whole = apply_alloc(a, output->count, sizeof *whole);
    if (whole == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < output->count; i++)
        whole[i] = (int64_t)input->values[i];
    output->dtype = FV_I64;
    output->data = whole;
    return FV_OK;
}

/* The gradient in the shape of its input: one head's is the sum over heads. */
static fv_status add_gradient(apply *a, const apply_input *input, fv_tensor *output)
{
    const size_t bytes = strlen(input->info.name) + 3;
    char *name = apply_alloc(a, (int64_t)bytes, 1);
    if (name == NULL)
        return FV_ERR_RESOURCE;
    snprintf(name, bytes, "d_%s", input->info.name);
    *output = (fv_tensor){.name = name, .dtype = FV_F32, .count = 1, .data = input->gradient};
    for (int i = input->shared ? 1 : 0; i < input->info.rank; i++) {
        output->shape[output->rank] = input->info.shape[i] < 0 ? a->Tk : input->info.shape[i];
        output->count *= output->shape[output->rank++];
    }
    for (int64_t i = 0; input->shared && i < output->count; i++) {
        double sum = 0;
        for (int64_t h = 0; h < a->H; h++)
            sum += (double)input->gradient[h * output->count + i];
        input->gradient[i] = (float)sum;
    }
    return FV_OK;
}

fv_status apply_extra_outputs(apply *a, fv_tensor *outputs, int *count)
{
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (a->input[i].gradient != NULL)
            CLI_TRY(add_gradient(a, &a->input[i], &outputs[(*count)++]));
    for (int i = 0; i < FV_INPUT_COUNT && cli_given(a->args, "write"); i++)
        if (a->input[i].taken && a->input[i].info.role == FV_ROLE_DRAWN)
            CLI_TRY(add_drawn(a, &a->input[i], &outputs[(*count)++]));
    return FV_OK;
}
