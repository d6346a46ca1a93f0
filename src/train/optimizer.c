/* optimizer.c: AdamW (Loshchilov, Hutter 2019) with clipping by the norm of the whole gradient.
 *
 *     g = f grad            f: 1/tokens times the clip factor min(1, clip_norm/|grad|)
 *     m = b1 m + (1-b1) g   v = b2 v + (1-b2) g^2
 *     p = p - lr (m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps) + decay p)
 *
 * Decay only where the parameter asks for it. The parameters are cut into blocks by their sizes alone, the
 * norm's partial sums are added in the order of the blocks: no bit depends on the number of threads.
 * Memory: two floats a parameter.
 */
#include "kernels/kernels.h"
#include "train/internal.h"
#include <math.h>

/* Floats a task handles: gradient, parameter and moments (1 MiB) stay in the second-level cache. */
#define BLOCK 65536

typedef struct block {
    int64_t offset, count;
    bool decay;
} block;

struct fv_optimizer {
    fv_context *ctx;
    float *values, *gradients; /* the model's */
    float *mean, *square;      /* m, v */
    int64_t block_count;
    block *blocks;
    double *partials; /* [block_count] */
    double beta1, beta2, epsilon, decay, clip_norm;
};

/* Cuts every parameter into blocks; blocks NULL: only counts them. */
static int64_t cut_blocks(const fv_model *model, block *blocks)
{
    int64_t n = 0;
    for (int i = 0; i < fv_model_parameter_count(model); i++) {
        const fv_parameter *p = fv_model_parameter_at(model, i);
        for (int64_t done = 0; done < p->count; done += BLOCK, n++)
            if (blocks != NULL)
                blocks[n] = (block){p->offset + done, FV_MIN(BLOCK, p->count - done), p->decay};
    }
    return n;
}

/* Floats from the first parameter to the end of the last one. */
static int64_t extent(const fv_model *model)
{
    int64_t end = 0;
    for (int i = 0; i < fv_model_parameter_count(model); i++) {
        const fv_parameter *p = fv_model_parameter_at(model, i);
        end = FV_MAX(end, p->offset + p->count);
    }
    return end;
}

static fv_status allocate(fv_optimizer *o, const fv_model *model)
{
    o->block_count = cut_blocks(model, NULL);
    o->mean = fv_alloc_zero(o->ctx, extent(model), sizeof *o->mean);
    o->square = fv_alloc_zero(o->ctx, extent(model), sizeof *o->square);
    o->blocks = fv_alloc_array(o->ctx, o->block_count, sizeof *o->blocks);
    o->partials = fv_alloc_array(o->ctx, o->block_count, sizeof *o->partials);
    if (o->gradients == NULL || o->mean == NULL || o->square == NULL || o->blocks == NULL ||
        o->partials == NULL)
        return FV_ERR_RESOURCE;
    cut_blocks(model, o->blocks);
    return FV_OK;
}

fv_status fv_optimizer_create(fv_optimizer **optimizer, fv_context *ctx, fv_model *model,
                              const fv_config *config)
{
    *optimizer = NULL;
    fv_optimizer *o = fv_alloc_zero(ctx, 1, sizeof *o);
    if (o == NULL)
        return FV_ERR_RESOURCE;
    o->ctx = ctx;
    o->values = fv_model_values(model);
    o->gradients = fv_model_gradients(model);
    o->beta1 = fv_config_real(config, "adam_beta1");
    o->beta2 = fv_config_real(config, "adam_beta2");
    o->epsilon = fv_config_real(config, "adam_epsilon");
    o->decay = fv_config_real(config, "weight_decay");
    o->clip_norm = fv_config_real(config, "clip_norm");
    fv_status status = allocate(o, model);
    if (status != FV_OK) {
        fv_optimizer_destroy(o);
        return status;
    }
    *optimizer = o;
    return FV_OK;
}

void fv_optimizer_destroy(fv_optimizer *o)
{
    if (o == NULL)
        return;
    fv_free(o->ctx, o->mean);
    fv_free(o->ctx, o->square);
    fv_free(o->ctx, o->blocks);
    fv_free(o->ctx, o->partials);
    fv_free(o->ctx, o);
}

float *fv_optimizer_mean(fv_optimizer *o)
{
    return o->mean;
}

float *fv_optimizer_square(fv_optimizer *o)
{
    return o->square;
}

static void norm_task(void *arg, int64_t index, int worker)
{
    (void)worker;
    fv_optimizer *o = arg;
    const block *b = &o->blocks[index];
    o->partials[index] = o->ctx->kernels->sum_squares(b->count, o->gradients + b->offset);
}

double fv_optimizer_norm(fv_optimizer *o)
{
    fv_parallel(o->ctx, o->block_count, norm_task, o);
    double sum = 0.0;
    for (int64_t i = 0; i < o->block_count; i++)
        sum += o->partials[i];
    return sqrt(sum);
}

double fv_optimizer_clip(const fv_optimizer *o, double norm)
{
    return o->clip_norm > 0.0 && norm > o->clip_norm ? o->clip_norm / norm : 1.0;
}

typedef struct step_arguments {
    fv_optimizer *o;
    float rate, factor, c1, c2;
} step_arguments;

static void step_task(void *arg, int64_t index, int worker)
{
    (void)worker;
    const step_arguments *a = arg;
    fv_optimizer *o = a->o;
    const fv_kernels *k = o->ctx->kernels;
    const block *b = &o->blocks[index];
    float *gradient = o->gradients + b->offset;
    k->adamw(b->count, a->rate, (float)o->beta1, (float)o->beta2, (float)o->epsilon,
             b->decay ? (float)o->decay : 0.0f, a->factor, a->c1, a->c2, gradient, o->values + b->offset,
             o->mean + b->offset, o->square + b->offset);
    k->fill(b->count, 0.0f, gradient); /* still in cache */
}

void fv_optimizer_step(fv_optimizer *o, int64_t t, double rate, double factor)
{
    step_arguments a = {
        .o = o,
        .rate = (float)rate,
        .factor = (float)factor,
        .c1 = (float)(1.0 - pow(o->beta1, (double)t)),
        .c2 = (float)(1.0 - pow(o->beta2, (double)t)),
    };
    fv_parallel(o->ctx, o->block_count, step_task, &a);
}

static void clear_task(void *arg, int64_t index, int worker)
{
    (void)worker;
    fv_optimizer *o = arg;
    o->ctx->kernels->fill(o->blocks[index].count, 0.0f, o->gradients + o->blocks[index].offset);
}

void fv_optimizer_clear(fv_optimizer *o)
{
    fv_parallel(o->ctx, o->block_count, clear_task, o);
}
