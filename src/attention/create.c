/* create.c: an operator from its options: every default resolved, every combination that cannot be refused by
 * name. What single kinds check stands in their rows. */
#include "attention/mechanism.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

fv_status fv_check_number(fv_context *ctx, const char *what, int64_t value, int64_t low, int64_t high)
{
    if (value >= low && value <= high)
        return FV_OK;
    return fv_fail(ctx, FV_ERR_USAGE, "attention: %s is %lld; expected %lld to %lld", what, (long long)value,
                   (long long)low, (long long)high);
}

static fv_status unknown_kind(fv_context *ctx, const char *name)
{
    char known[1024] = "";
    for (int i = 0; i < fv_attention_kind_count(); i++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", i > 0 ? ", " : "", fv_attention_kind_at(i)->name);
    }
    return fv_fail(ctx, FV_ERR_USAGE, "attention \"%s\" is unknown; known are: %s", name, known);
}

/* Upper bounds that no real use meets; they keep every product of two sizes inside 64 bits. */
enum { MAX_HEADS = 1 << 16, MAX_WIDTH = 1 << 16, MAX_FEATURES = 1 << 20 };

static fv_status check_sizes(fv_context *ctx, const fv_attention_options *o)
{
    const struct {
        const char *what;
        int64_t value, low, high;
    } sizes[] = {
        {"heads", o->heads, 1, MAX_HEADS},
        {"kv_heads", o->kv_heads, 1, MAX_HEADS},
        {"dim", o->dim, 1, MAX_WIDTH},
        {"value_dim", o->value_dim, 1, MAX_WIDTH},
        {"features", o->features, 0, MAX_FEATURES},
        {"chunk", o->chunk, 0, INT64_MAX},
        {"projection", o->projection, 0, FV_PROJECTION_SIMPLEX},
        {"row_norms", o->row_norms, 0, FV_ROW_NORMS_SQRT_D},
        {"denominator", o->denominator, 0, FV_DENOMINATOR_SIGN},
        {"position_bias", o->position_bias, 0, FV_POSITION_BIAS_KERNEL},
        {"position_fft", o->position_fft, 0, FV_MAX_TOKENS},
        {"position_skip", o->position_skip, 0, FV_MAX_TOKENS},
        {"window", o->window, -1, FV_MAX_TOKENS},
        {"stride", o->stride, 0, FV_MAX_TOKENS},
        {"block", o->block, 0, FV_MAX_TOKENS},
        {"globals", o->globals, -1, FV_MAX_TOKENS},
        {"random_blocks", o->random_blocks, -1, MAX_FEATURES},
        {"buckets", o->buckets, 0, MAX_FEATURES},
        {"rounds", o->rounds, 0, 1024},
        {"projected", o->projected, 0, MAX_FEATURES},
        {"max_tokens", o->max_tokens, 0, FV_MAX_TOKENS},
        {"rmf_law", o->rmf_law, 0, FV_RMF_OPTIMAL},
        {"rmf_max_degree", o->rmf_max_degree, 0, 64},
        {"rmf_rows", o->rmf_rows, 0, MAX_FEATURES * (int64_t)64},
        {"features_trig", o->features_trig, 0, MAX_FEATURES},
        {"angle_rows", o->angle_rows, 0, 1024},
    };
    for (int i = 0; i < FV_COUNT(sizes); i++)
        TRY(fv_check_number(ctx, sizes[i].what, sizes[i].value, sizes[i].low, sizes[i].high));
    if (o->heads % o->kv_heads != 0)
        return fv_fail(ctx, FV_ERR_USAGE, "attention: %lld key/value heads do not divide %lld query heads",
                       (long long)o->kv_heads, (long long)o->heads);
    return FV_OK;
}

static fv_status check_numbers(fv_context *ctx, const fv_attention_options *o)
{
    if (!(o->scale > 0) || !(o->scale <= 1e12))
        return fv_fail(ctx, FV_ERR_USAGE, "attention: scale is %g; expected a positive number", o->scale);
    if (isnan(o->epsilon) || o->epsilon > 1e12)
        return fv_fail(ctx, FV_ERR_USAGE, "attention: epsilon is %g; expected 0 or a small positive number",
                       o->epsilon);
    if (isnan(o->psi) || o->psi > 1e12)
        return fv_fail(ctx, FV_ERR_USAGE, "attention: psi is %g; expected 0 or more", o->psi);
    if (!(o->tau >= 0) || !(o->tau <= 1e12))
        return fv_fail(ctx, FV_ERR_USAGE, "attention: tau is %g; expected a positive number", o->tau);
    if (!(o->rmf_parameter >= 0) || !(o->rmf_parameter <= 1e6))
        return fv_fail(ctx, FV_ERR_USAGE,
                       "attention: the parameter of the degree law is %g; expected more than 0",
                       o->rmf_parameter);
    if (!(o->rotary_base >= 0) || !(o->rotary_base <= 1e30))
        return fv_fail(ctx, FV_ERR_USAGE, "attention: rotary_base is %g; expected a positive number",
                       o->rotary_base);
    if (!(o->denominator_value >= 0) || !(o->denominator_value <= 1e30))
        return fv_fail(ctx, FV_ERR_USAGE, "attention: the denominator's constant is %g; expected 0 or more",
                       o->denominator_value);
    return FV_OK;
}

/* Modifiers that the kind cannot take, and those that go together wrongly. */
static fv_status check_modifiers(const fv_attention *op)
{
    const fv_attention_options *o = &op->options;
    const fv_attention_kind *kind = &op->mechanism->kind;
    const char *decaying = o->gate ? "gate" : "decay";
    if ((o->gate || o->decay) && !kind->kernelized)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: %s needs a kernelized kind: there is no running state that could decay",
                       o->kind, decaying);
    if ((o->gate || o->decay) && !o->causal)
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: %s needs causal: it weighs the past of a token",
                       o->kind, decaying);
    if (o->trainable_projection && (op->mechanism->map == NULL || o->projection == FV_PROJECTION_NONE))
        return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: there is no projection to train", o->kind);
    if (o->position_bias == FV_POSITION_BIAS_KERNEL && !op->mechanism->position_kernel)
        return fv_fail(
            op->ctx, FV_ERR_USAGE,
            "attention %s: position bias kernel is for exact and kernelized kinds; fastrpb goes with all",
            o->kind);
    if (o->position_bias == FV_POSITION_BIAS_KERNEL && (o->gate || o->decay))
        return fv_fail(
            op->ctx, FV_ERR_USAGE,
            "attention %s: position bias kernel and %s both weigh keys by their distance; choose one",
            o->kind, decaying);
    if (o->position_bias != FV_POSITION_BIAS_NONE)
        TRY(fv_check_number(op->ctx, "position_span", o->position_span, 1, FV_MAX_TOKENS));
    if (o->rotary && o->dim % 2 != 0)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: rotary positions turn pairs of channels; the head size %lld is odd",
                       o->kind, (long long)o->dim);
    return FV_OK;
}

static fv_status resolve(fv_attention *op, const fv_attention_options *options)
{
    fv_context *ctx = op->ctx;
    fv_attention_options *o = &op->options;
    *o = *options;
    if (o->kind == NULL)
        return fv_fail(ctx, FV_ERR_USAGE, "attention: no kind was given");
    op->mechanism = fv_mechanism_find(o->kind);
    if (op->mechanism == NULL)
        return unknown_kind(ctx, o->kind);
    const fv_attention_kind *kind = &op->mechanism->kind;
    o->kind = kind->name;
    o->kv_heads = o->kv_heads != 0 ? o->kv_heads : o->heads;
    o->value_dim = o->value_dim != 0 ? o->value_dim : o->dim;
    TRY(check_sizes(ctx, o));
    if (o->scale == 0)
        o->scale =
            op->mechanism->map != NULL && op->mechanism->map->unit_scale ? 1.0 : 1.0 / sqrt((double)o->dim);
    TRY(check_numbers(ctx, o));
    if (o->causal && !kind->can_be_causal)
        return fv_fail(ctx, FV_ERR_USAGE, "attention %s cannot be causal: %s", o->kind, kind->why_not_causal);
    TRY(fv_options_check(op));
    if (op->mechanism->unnormalised)
        o->denominator = FV_DENOMINATOR_NONE;
    if (op->mechanism->check != NULL)
        TRY(op->mechanism->check(op));
    return check_modifiers(op);
}

fv_status fv_attention_create(fv_attention **out, fv_context *ctx, const fv_attention_options *options)
{
    *out = NULL;
    if (options->size != sizeof *options)
        return fv_fail(ctx, FV_ERR_USAGE, "attention: options were not made by fv_attention_options_init");
    fv_attention *op = fv_alloc_zero(ctx, 1, sizeof *op);
    if (op == NULL)
        return FV_ERR_RESOURCE;
    op->ctx = ctx;
    fv_status status = resolve(op, options);
    if (status != FV_OK) {
        fv_free(ctx, op);
        return status;
    }
    *out = op;
    return FV_OK;
}

void fv_attention_destroy(fv_attention *op)
{
    if (op != NULL)
        fv_free(op->ctx, op);
}
