/* half.c: values in bf16: what backward reads of them when that is the number format.
 *
 * A value that some backward reads is kept in bf16 behind its last reader in forward. Forward reads no more of it
 * than that: products round their factors, layer norms the rows of the stream they read, and what makes q, k, v
 * or a pre-activation rounds it. So gradients are those of what forward computed, and a segment that runs again
 * comes to the same bits from floats as a tape that kept everything does from bf16. Streams between layers, which
 * residuals add to, are floats in forward and wherever a segment reads them once more.
 */
#include "autograd/tape.h"

bool fv_tape_halves(const fv_tape *tape, int value)
{
    const fv_value *v = &tape->values[value];
    return fv_tape_halving(tape) && v->back_readers > 0 && !v->whole &&
           tape->nodes[v->producer].op->recompute == NULL;
}

/* ---- rounding ------------------------------------------------------------------------------------------ */

fv_rounded fv_tape_rounded(const fv_tape *tape, int value)
{
    const fv_value *v = &tape->values[value];
    return (fv_rounded){tape->ctx->kernels, fv_tape_block(tape, v->data), fv_tape_half_block(tape, v->half)};
}

void fv_rounded_take(const fv_rounded *from, int64_t first, int64_t n, float *y)
{
    if (from->half != NULL)
        from->kernels->bf16_to_f32(n, from->half + first, y);
    else
        from->kernels->round_bf16(n, from->data + first, NULL, y);
}

/* ---- whole values -------------------------------------------------------------------------------------- */

typedef struct half_job {
    fv_rounded from;
    int64_t rows, cols;
    uint16_t *half; /* NULL: into y */
    float *y;
} half_job;

static void convert_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const half_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK, first = row * job->cols;
    int64_t n = FV_MIN(FV_ROW_BLOCK, job->rows - row) * job->cols;
    if (job->half != NULL)
        job->from.kernels->f32_to_bf16(n, job->from.data + first, job->half + first);
    else
        fv_rounded_take(&job->from, first, n, job->y + first);
}

static void convert(fv_tape *tape, int value, uint16_t *half, float *y)
{
    const fv_value *v = fv_tape_value(tape, value);
    half_job job = {fv_tape_rounded(tape, value), v->rows, v->cols, half, y};
    fv_tape_parallel(tape, fv_row_blocks(v->rows), convert_rows, &job);
}

bool fv_tape_narrows(const fv_tape *tape, int value)
{
    const fv_value *v = &tape->values[value];
    return fv_tape_halves(tape, value) && !v->crosses && !v->stream && !v->held;
}

uint16_t *fv_tape_keep(fv_tape *tape, int value)
{
    fv_value *v = fv_tape_value(tape, value);
    if (tape->saving && v->half.bytes == 0 && fv_tape_narrows(tape, value)) {
        v->half = fv_tape_take_of(tape, value, sizeof(uint16_t));
        return fv_tape_half_block(tape, v->half);
    }
    return NULL;
}

void fv_tape_narrow(fv_tape *tape, int value)
{
    fv_value *v = fv_tape_value(tape, value);
    if (v->half.bytes == 0) {
        fv_block half = fv_tape_take_of(tape, value, sizeof(uint16_t));
        convert(tape, value, fv_tape_half_block(tape, half), NULL);
        v->half = half;
    }
    fv_tape_give(tape, &v->data);
}

static const float *read_rounded(fv_tape *tape, int value)
{
    fv_value *v = fv_tape_value(tape, value);
    if (v->rounded.bytes == 0) {
        v->rounded = fv_tape_take_of(tape, value, sizeof(float));
        convert(tape, value, NULL, fv_tape_block(tape, v->rounded));
    }
    return fv_tape_block(tape, v->rounded);
}

/* ---- what backward reads ------------------------------------------------------------------------------- */

const float *fv_tape_read(fv_tape *tape, int value)
{
    fv_value *v = fv_tape_value(tape, value);
    if (fv_tape_halves(tape, value))
        return read_rounded(tape, value);
    if (v->data.bytes == 0) {
        fv_node *producer = &tape->nodes[v->producer];
        producer->op->recompute(tape, producer);
    }
    return fv_tape_data(tape, value);
}

void fv_tape_done(fv_tape *tape, int value)
{
    fv_value *v = fv_tape_value(tape, value);
    fv_tape_give(tape, &v->rounded);
    if (--v->waiting > 0 || v->held || v->stream || tape->nodes[v->producer].op->reads_output)
        return;
    fv_tape_give(tape, &v->data);
    fv_tape_give(tape, &v->half);
}
