/* cli/bench_inputs.c: the inputs of an operator beside q, k and v for `favor bench attention`: random ones drawn, the
 * others of the size that models start with, so that no call runs on zeros or on numbers that overflow. */
#include "bench.h"
#include <math.h>
#include <string.h>

/* Numbers around 0 of standard deviation 0.5, nearly normal: four 16-bit pieces of a mixed 64-bit counter,
 * added (Irwin-Hall). A sum of four uniforms has variance 4 (2^32 - 1)/12. */
void bench_fill(float *x, int64_t count, uint64_t stream)
{
    const float scale = 0.5f / sqrtf(4.0f * 4294967295.0f / 12.0f);
    for (int64_t i = 0; i < count; i++) {
        uint64_t z = ((uint64_t)i + (stream << 48)) * 0x9e3779b97f4a7c15u; /* splitmix64 */
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        z ^= z >> 31;
        int32_t sum = (int32_t)((z & 0xffff) + (z >> 16 & 0xffff) + (z >> 32 & 0xffff) + (z >> 48)) - 131070;
        x[i] = (float)sum * scale;
    }
}

/* ---- options ------------------------------------------------------------------------------------------- */

void bench_inputs_options(fv_attention_options *o, int64_t length)
{
    const fv_attention_kind *kind = fv_attention_kind_find(o->kind);
    bool raster = o->position_bias == FV_POSITION_BIAS_FASTRPB_2D;
    if (o->position_bias != FV_POSITION_BIAS_NONE && o->position_span == 0)
        o->position_span = raster ? (int64_t)sqrt((double)length) : length;
    if (o->max_tokens == 0 && fv_attention_kind_takes(kind, "max_tokens", NULL))
        o->max_tokens = length;
    /* Inputs have variance 1/4 a channel: the mean of |x + y|^2 is d/2 times the scale. */
    if (o->causal && o->psi < 0 && fv_attention_kind_takes(kind, "psi", NULL))
        o->psi = 0.5 * (double)o->dim * (o->scale > 0 ? o->scale : 1 / sqrt((double)o->dim));
}

/* ---- values -------------------------------------------------------------------------------------------- */

/* Numbers around `mean`, of standard deviation spread / 2. */
static const struct {
    float mean, spread;
} starts[FV_INPUT_COUNT] = {
    [FV_INPUT_PSI_DIAGONAL] = {1.0f, 0.02f},  [FV_INPUT_GATE] = {0.9f, 0.02f},
    [FV_INPUT_POSITION_BIAS] = {0.0f, 0.02f}, [FV_INPUT_BANDWIDTH] = {1.0f, 0.02f},
    [FV_INPUT_MAP_WEIGHT] = {0.0f, 0.02f},    [FV_INPUT_REBASED_GAMMA] = {1.0f, 0.02f},
    [FV_INPUT_REBASED_BETA] = {0.0f, 0.02f},  [FV_INPUT_PPSBN_GAMMA] = {1.0f, 0.02f},
    [FV_INPUT_PPSBN_BETA] = {1.0f, 0.02f},    [FV_INPUT_LINFORMER_E] = {0.0f, 1.0f},
    [FV_INPUT_LINFORMER_F] = {0.0f, 1.0f},
};

static void fill_input(fv_input which, const fv_input_info *info, int64_t floats, float *x)
{
    /* Linformer's rows have a norm of about sqrt(N / k). */
    bool rows = which == FV_INPUT_LINFORMER_E || which == FV_INPUT_LINFORMER_F;
    float spread = starts[which].spread / (rows ? sqrtf((float)info->shape[1]) : 1.0f);
    bench_fill(x, floats, 16 + (uint64_t)which);
    for (int64_t i = 0; i < floats; i++)
        x[i] = starts[which].mean + spread * x[i];
    for (int64_t h = 0; h < floats && which == FV_INPUT_DECAY; h++)
        x[h] = 1.0f - exp2f(-5.0f - (float)(h % 8)); /* RetNet's */
    int64_t d = info->shape[1];
    for (int64_t i = 0; which == FV_INPUT_MAP_WEIGHT && i < info->shape[0] * d; i++)
        x[i * d + i % d] += 1.0f; /* the identity, a little off */
}

static int64_t input_floats(const fv_input_info *info, int64_t tokens)
{
    return info->role == FV_ROLE_TOKEN ? tokens * info->floats : info->floats;
}

/* A kind that measures its statistics on the call keeps doing so. */
static bool is_filled(const fv_attention *op, fv_input which, fv_input_info *info)
{
    fv_attention_info all;
    fv_attention_get_info(op, &all);
    return fv_attention_input(op, which, info) && info->role != FV_ROLE_DRAWN &&
           (info->role != FV_ROLE_FROZEN || all.options.causal);
}

double bench_inputs_bytes(const fv_attention *op, int64_t tokens, bool backward)
{
    fv_attention_info all;
    fv_input_info info;
    fv_attention_get_info(op, &all);
    double floats = (double)all.drawn_floats;
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (is_filled(op, (fv_input)i, &info))
            floats += (double)input_floats(&info, tokens) * (backward && info.has_gradient ? 2 : 1);
    return floats * sizeof(float);
}

static float *zeros(fv_context *ctx, int64_t floats)
{
    float *x = fv_alloc(ctx, (size_t)floats * sizeof *x);
    if (x != NULL)
        memset(x, 0, (size_t)floats * sizeof *x);
    return x;
}

bool bench_inputs_make(bench_inputs *b, fv_context *ctx, const fv_attention *op, int64_t tokens,
                       bool backward)
{
    fv_attention_info all;
    fv_input_info info;
    fv_attention_get_info(op, &all);
    if (all.drawn_floats > 0 && (b->drawn = zeros(ctx, all.drawn_floats)) == NULL)
        return false;
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        if (!is_filled(op, (fv_input)i, &info))
            continue;
        int64_t floats = input_floats(&info, tokens);
        b->values[i] = zeros(ctx, floats);
        if (b->values[i] == NULL)
            return false;
        fill_input((fv_input)i, &info, floats, b->values[i]);
        if (backward && info.has_gradient && (b->gradients[i] = zeros(ctx, floats)) == NULL)
            return false;
    }
    return b->drawn == NULL || fv_attention_draw(op, 0, 0, b->drawn) == FV_OK;
}

void bench_inputs_bind(const bench_inputs *b, const fv_attention *op, fv_attention_io *io,
                       fv_attention_grad *grad)
{
    memcpy(io->input, b->values, sizeof io->input);
    memcpy(grad->d_input, b->gradients, sizeof grad->d_input);
    fv_attention_bind_drawn(op, b->drawn, io);
}

void bench_inputs_free(bench_inputs *b, fv_context *ctx)
{
    fv_free(ctx, b->drawn);
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        fv_free(ctx, b->values[i]);
        fv_free(ctx, b->gradients[i]);
    }
}
