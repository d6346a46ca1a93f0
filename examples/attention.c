/* attention.c: linear attention on two packed sequences, forward and backward.
 *
 *     cc attention.c $(pkg-config --cflags --libs favor) -o attention && ./attention
 *
 * Shows the three memories: `saved` lives from forward to backward, `scratch` for one call only, and a
 * state (stream.c) from call to call. All are measured before anything runs, and are the caller's.
 */
#include <favor/favor.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 4, DIM = 32, TOKENS = 3000, FLOATS = TOKENS * HEADS * DIM };

/* Something to attend to: a small generator, so that every run prints the same. */
static void fill(float *x, int64_t count, uint32_t seed)
{
    for (int64_t i = 0; i < count; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;
    }
}

/* Creates the operator and learns what memory the layout needs. */
static fv_status prepare(fv_context *ctx, const fv_layout *layout, fv_attention **op, fv_memory *need)
{
    fv_attention_options opt;
    fv_attention_options_init(&opt);
    opt.kind = "favor+", opt.heads = HEADS, opt.dim = DIM, opt.causal = 1;
    fv_status status = fv_attention_create(op, ctx, &opt);
    if (status == FV_OK)
        status = fv_attention_measure(*op, layout, need);
    return status;
}

/* q, k, v, y, dy, dq, dk, dv behind each other in `tensors`. */
static fv_status forward_backward(fv_context *ctx, const fv_attention *op, const fv_layout *layout,
                                  const fv_memory *need, float *tensors)
{
    fv_attention_info info;
    fv_attention_get_info(op, &info);
    float *projection = fv_alloc(ctx, (size_t)info.drawn_floats * sizeof(float));
    void *saved = fv_alloc(ctx, need->saved), *scratch = fv_alloc(ctx, need->scratch);
    fv_status status = FV_ERR_RESOURCE;
    if (projection != NULL && saved != NULL && scratch != NULL)
        status = fv_attention_draw(op, 42, 0, projection);

    fv_attention_io io = {.q = tensors, .k = tensors + FLOATS, .v = tensors + 2 * FLOATS};
    io.y = tensors + 3 * FLOATS;
    fv_attention_bind_drawn(op, projection, &io);
    if (status == FV_OK)
        status = fv_attention_forward(op, layout, &io, saved, scratch);

    fv_attention_grad grad = {.dy = tensors + 4 * FLOATS, .dq = tensors + 5 * FLOATS};
    grad.dk = tensors + 6 * FLOATS, grad.dv = tensors + 7 * FLOATS; /* added to: they begin as zeros */
    if (status == FV_OK)
        status = fv_attention_backward(op, layout, &io, &grad, saved, scratch);

    fv_free(ctx, scratch);
    fv_free(ctx, saved);
    fv_free(ctx, projection);
    return status;
}

static double squares(const float *x)
{
    double sum = 0;
    for (int64_t i = 0; i < FLOATS; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

int main(void)
{
    fv_context *ctx = NULL;
    if (fv_context_create(&ctx, NULL) != FV_OK)
        return 1;

    const int64_t offsets[] = {0, 1000, TOKENS}; /* two sequences; tokens of one never see the other */
    const fv_layout layout = {.sequences = 2, .offsets_q = offsets};
    fv_attention *op = NULL;
    fv_memory need;
    fv_status status = prepare(ctx, &layout, &op, &need);

    float *tensors = calloc((size_t)8 * FLOATS, sizeof(float));
    if (status == FV_OK && tensors == NULL)
        status = FV_ERR_RESOURCE;
    if (status == FV_OK) {
        fill(tensors, (int64_t)3 * FLOATS, 1);
        fill(tensors + (size_t)4 * FLOATS, FLOATS, 2);
        status = forward_backward(ctx, op, &layout, &need, tensors);
    }
    if (status == FV_OK) {
        printf("%d tokens, %d heads: saved %zu bytes, scratch %zu bytes\n", TOKENS, HEADS, need.saved,
               need.scratch);
        const char *const names[] = {"y", "dy", "dq", "dk", "dv"};
        for (int i = 0; i < 5; i++)
            printf("|%s|^2 = %.4f\n", names[i], squares(tensors + (size_t)(3 + i) * FLOATS));
    } else {
        fprintf(stderr, "attention: %s: %s\n", fv_status_name(status), fv_context_message(ctx));
    }
    free(tensors);
    fv_attention_destroy(op);
    fv_context_destroy(ctx);
    return -(int)status;
}
