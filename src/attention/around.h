/* attention/around.h: what stands around a mechanism: rotary positions and ppSBN's pre-scaling of q and k
 * before it, FastRPB's y += T v and ppSBN's post-scaling behind it.
 *
 *     q', k' = rotary(ppsbn(q)), rotary(ppsbn(k));  u = mechanism(q', k', v) + T v;  y = gamma sign(u) |u|^beta
 *
 * The operator calls these instead of the mechanism's functions when fv_around_needed. Memory: measure adds to
 * what the mechanism measured; this layer's parts of saved and scratch stand first, the mechanism's behind them.
 */
#ifndef FV_AROUND_H
#define FV_AROUND_H

#include "attention/mechanism.h"

static inline bool fv_around_needed(const fv_attention *op)
{
    const fv_attention_options *o = &op->options;
    return o->rotary || o->ppsbn || o->position_bias == FV_POSITION_BIAS_FASTRPB ||
           o->position_bias == FV_POSITION_BIAS_FASTRPB_2D;
}

void fv_around_measure(const fv_attention *op, const fv_layout *layout, fv_memory *need);
fv_status fv_around_forward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            void *saved, void *scratch);
fv_status fv_around_backward(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                             const fv_attention_grad *grad, const void *saved, void *scratch);
fv_status fv_around_step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                         const fv_states *states, void *scratch);
fv_status fv_around_weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                            const int64_t *rows, int64_t n, int64_t head, float *weights, int64_t row_stride,
                            void *scratch);

#endif
