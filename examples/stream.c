/* stream.c: one token at a time, with the state as a value.
 *
 *     cc stream.c $(pkg-config --cflags --libs favor) -o stream && ./stream
 *
 * A million tokens cost each the same time and the same few kilobytes. A state is a flat value: copy it to
 * try two continuations of one prefix, write it to a file, merge the states of two halves of a sequence.
 */
#include <favor/favor.h>
#include <stdio.h>
#include <string.h>

enum { HEADS = 2, DIM = 16, WIDTH = HEADS * DIM, STEPS = 10000 };

typedef struct stream {
    const fv_attention *op;
    void *state, *scratch;
    size_t state_bytes;
    const float *projection;
} stream;

/* Token t attends to tokens 0 .. t; the cost does not depend on t. */
static fv_status step(stream *s, int64_t t, float y[WIDTH])
{
    float q[WIDTH], k[WIDTH], v[WIDTH];
    for (int i = 0; i < WIDTH; i++) {
        q[i] = (float)((t * 7 + i * 3) % 11) / 11.0f;
        k[i] = (float)((t * 5 + i) % 13) / 13.0f;
        v[i] = (float)((t + i) % 17) / 17.0f;
    }
    const fv_attention_io io = {.q = q, .k = k, .v = v, .y = y, .input = {s->projection}};
    return fv_attention_step(s->op, 1, &io, s->state, s->state_bytes, s->scratch);
}

/* Walks `STEPS` tokens, keeps a copy of the state on the way, and shows that it continues identically. */
static fv_status walk(stream *s, void *kept)
{
    float y[WIDTH], again[WIDTH];
    fv_status status = FV_OK;
    for (int64_t t = 0; t < STEPS && status == FV_OK; t++) {
        if (t == STEPS - 1)
            memcpy(kept, s->state, s->state_bytes);
        status = step(s, t, y);
    }
    if (status != FV_OK)
        return status;
    memcpy(s->state, kept, s->state_bytes);
    status = step(s, STEPS - 1, again);
    if (status == FV_OK)
        printf("%d tokens, state %zu bytes, y[0] = %.6f, continued from a copy: %s\n", STEPS, s->state_bytes,
               (double)y[0], memcmp(y, again, sizeof y) == 0 ? "same bits" : "DIFFERENT");
    return status;
}

static fv_status run(fv_context *ctx, fv_attention *op)
{
    const int64_t offsets[] = {0, 1};
    const fv_layout layout = {.sequences = 1, .offsets_q = offsets};
    fv_memory need;
    fv_status status = fv_attention_measure(op, &layout, &need);
    if (status != FV_OK)
        return status;
    fv_attention_info info;
    fv_attention_get_info(op, &info);

    float *projection = fv_alloc(ctx, (size_t)info.drawn_floats * sizeof(float));
    void *state = fv_alloc(ctx, need.state), *kept = fv_alloc(ctx, need.state);
    void *scratch = fv_alloc(ctx, need.scratch);
    status = FV_ERR_RESOURCE;
    if (projection != NULL && state != NULL && kept != NULL && scratch != NULL)
        status = fv_attention_draw(op, 1, 0, projection);
    if (status == FV_OK)
        status = fv_attention_state_init(op, 0, state);
    stream s = {op, state, scratch, need.state, projection};
    if (status == FV_OK)
        status = walk(&s, kept);

    fv_free(ctx, scratch);
    fv_free(ctx, kept);
    fv_free(ctx, state);
    fv_free(ctx, projection);
    return status;
}

int main(void)
{
    fv_context *ctx = NULL;
    if (fv_context_create(&ctx, NULL) != FV_OK)
        return 1;
    fv_attention_options opt;
    fv_attention_options_init(&opt);
    opt.kind = "favor+", opt.heads = HEADS, opt.dim = DIM, opt.causal = 1;
    fv_attention *op = NULL;
    fv_status status = fv_attention_create(&op, ctx, &opt);
    if (status == FV_OK)
        status = run(ctx, op);
    if (status != FV_OK)
        fprintf(stderr, "stream: %s: %s\n", fv_status_name(status), fv_context_message(ctx));
    fv_attention_destroy(op);
    fv_context_destroy(ctx);
    return -(int)status;
}
