/* around.c: see around.h. */
#include "attention/around.h"

static fv_status missing(const fv_attention *op)
{
    return fv_fail(op->ctx, FV_ERR_USAGE, "attention %s: rotary, ppsbn and fastrpb are not built yet",
                   op->options.kind);
}

void fv_around_measure(const fv_attention *op, const fv_layout *layout, fv_memory *need)
{
    (void)op, (void)layout, (void)need;
}

fv_status fv_around_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            void *saved, void *scratch)
{
    (void)layout, (void)io, (void)saved, (void)scratch;
    return missing(op);
}

fv_status fv_around_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                             const fv_attention_grad *grad, const void *saved, void *scratch)
{
    (void)layout, (void)io, (void)grad, (void)saved, (void)scratch;
    return missing(op);
}

fv_status fv_around_step(const fv_attention *op, int64_t streams, const fv_attention_io *io, void *states,
                         size_t state_bytes, void *scratch)
{
    (void)streams, (void)io, (void)states, (void)state_bytes, (void)scratch;
    return missing(op);
}

fv_status fv_around_weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            const int64_t *rows, int64_t n, int64_t head, float *weights, int64_t row_stride,
                            void *scratch)
{
    (void)layout, (void)io, (void)rows, (void)n, (void)head, (void)weights, (void)row_stride, (void)scratch;
    return missing(op);
}
