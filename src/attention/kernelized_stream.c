/* kernelized_stream.c: the state of a stream as a value: empty, stepped by one token, merged, viewed. */
#include "attention/kernelized.h"
#include <float.h>
#include <math.h>
#include <string.h>

/* Layout: header | decayed [H], doubles, where the operator decays | S [H][r][dv] | z [H][r] | exponent [H][r]. */
static size_t decayed_bytes(const fv_attention *op)
{
    bool decaying = op->options.gate || op->options.decay;
    return decaying ? fv_bytes(op->options.heads, sizeof(double)) : 0;
}

size_t fv_kz_state_bytes(const fv_attention *op, int64_t capacity)
{
    (void)capacity;
    int64_t rows = op->options.heads * op->r;
    return sizeof(fv_kz_state_header) + decayed_bytes(op) +
           fv_bytes(rows * (op->options.value_dim + 2), sizeof(float));
}

void fv_kz_state_view(const fv_attention *op, void *state, fv_state_view *view)
{
    fv_kz_state_header *header = state;
    int64_t rows = op->options.heads * op->r;
    size_t decayed = decayed_bytes(op);
    char *behind = (char *)(header + 1);
    float *S = (float *)(void *)(behind + decayed);
    *view = (fv_state_view){.tokens = header->tokens, .features = op->r, .S = S};
    view->decayed = decayed > 0 ? (double *)(void *)behind : NULL;
    view->z = S + rows * op->options.value_dim;
    view->exponent = view->z + rows;
}

fv_kz_state fv_kz_state_at(const fv_kz_call *call, const fv_state_view *view, int64_t head)
{
    return (fv_kz_state){.S = view->S + head * call->r * call->dv,
                         .z = view->z + head * call->r,
                         .e = view->exponent + head * call->r,
                         .tokens = view->tokens,
                         .decayed = view->decayed != NULL ? view->decayed[head] : 0};
}

void fv_kz_state_init(const fv_attention *op, int64_t capacity, void *state)
{
    memset(state, 0, fv_kz_state_bytes(op, capacity));
}

static bool row_is_empty(const fv_attention *op, const fv_state_view *view, int64_t f)
{
    int64_t dv = op->options.value_dim;
    return fv_kz_row_is_empty(op->ctx->kernels, dv, view->S + f * dv, view->z[f]);
}

/* One row: dst = 2^faded a + b, at the larger exponent of those that say something; 0 2^x stays 0 whatever x. */
static void merge_row(const fv_attention *op, const fv_state_view *vd, const fv_state_view *va,
                      const fv_state_view *vb, int64_t f, double faded)
{
    int64_t dv = op->options.value_dim;
    double a = (double)va->exponent[f] + faded, b = (double)vb->exponent[f];
    double sunk = isnan(faded) ? (double)va->exponent[f] : FV_MAX(ceil(a), -(double)FLT_MAX);
    bool no_a = row_is_empty(op, va, f), no_b = row_is_empty(op, vb, f);
    float top = (float)(no_a ? b : no_b ? sunk : FV_MAX(sunk, b));
    float fa = no_a ? 0.0f : (float)exp2(a - (double)top), fb = no_b ? 0.0f : (float)exp2(b - (double)top);
    for (int64_t c = 0; c < dv; c++)
        vd->S[f * dv + c] = fa * va->S[f * dv + c] + fb * vb->S[f * dv + c];
    vd->z[f] = fa * va->z[f] + fb * vb->z[f];
    vd->exponent[f] = top;
}

/* dst = a, as b's tokens decay it, plus b. */
fv_status fv_kz_state_merge(const fv_attention *op, void *dst, const void *a, const void *b)
{
    const fv_kz_state_header *ha = a, *hb = b;
    size_t bytes = fv_kz_state_bytes(op, 0);
    if (ha->tokens == 0 || hb->tokens == 0) {
        memmove(dst, ha->tokens == 0 ? b : a, bytes);
        return FV_OK;
    }
    fv_state_view va, vb, vd;
    fv_kz_state_view(op, (void *)(uintptr_t)a, &va);
    fv_kz_state_view(op, (void *)(uintptr_t)b, &vb);
    fv_kz_state_view(op, dst, &vd);
    int64_t tokens = ha->tokens + hb->tokens;
    for (int64_t f = 0; f < op->options.heads * op->r; f++)
        merge_row(op, &vd, &va, &vb, f, vb.decayed != NULL ? vb.decayed[f / op->r] : 0);
    bool decays = va.decayed != NULL && vb.decayed != NULL && vd.decayed != NULL;
    for (int64_t h = 0; decays && h < op->options.heads; h++)
        vd.decayed[h] = va.decayed[h] + vb.decayed[h];
    ((fv_kz_state_header *)dst)->tokens = tokens;
    return FV_OK;
}

typedef struct step_call {
    fv_kz_call call;
    const fv_states *states;
} step_call;

static void *state_of(const step_call *step, int64_t stream)
{
    const fv_states *states = step->states;
    return states->each != NULL ? states->each[stream]
                                : (char *)states->first + (size_t)stream * states->stride;
}

/* One token of one head: absorb the key first, then read: the token sees itself. The state is worked on in
 * place. */
static void step_task(void *arg, int64_t index, int worker)
{
    const step_call *step = arg;
    const fv_kz_call *call = &step->call;
    int64_t stream = index / call->H, head = index % call->H;
    fv_kz_work w = fv_kz_worker(call, worker, false);
    fv_kz_head h = fv_kz_head_of(call, stream, head);
    fv_state_view view;
    fv_kz_state_view(call->op, state_of(step, stream), &view);
    w.state = fv_kz_state_at(call, &view, head);
    h.first_q = h.first_k = view.tokens;
    fv_kz_take_on(call, &h, &w);
    fv_kz_start(call, &h, &w);
    (void)fv_kz_keys(call, &h, &w, 0, 1);
    fv_kz_absorb(call, &h, &w, 0, 1);
    if (view.decayed != NULL)
        view.decayed[head] = w.state.decayed;
    fv_kz_read(call, &h, &w, 0, 1);
}

fv_status fv_kz_step(const fv_attention *op, int64_t streams, const fv_attention_io *io,
                     const fv_states *states, void *scratch)
{
    step_call step = {.states = states};
    /* Streams are sequences of one token; their offsets are the first array of scratch (fv_kz_carve). */
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    int64_t *offsets = FV_PUSH(&arena, int64_t, streams + 1);
    for (int64_t s = 0; s <= streams; s++)
        offsets[s] = s;
    fv_layout layout = {streams, offsets, NULL};
    fv_kz_begin(&step.call, op, &layout, true, io, NULL, NULL, scratch);
    fv_parallel(op->ctx, streams * step.call.H, step_task, &step);
    for (int64_t s = 0; s < streams; s++)
        ((fv_kz_state_header *)state_of(&step, s))->tokens++;
    return FV_OK;
}
