/* replay.c: running a tape forward and in reverse, and its segments once more on the way back.
 *
 * First run, over all nodes: a value lives until its last forward reader, or longer if a backward, a segment
 * that it enters, or an undo reads it. Inside a segment nothing is saved and nothing is kept.
 *
 * Backward, at the end of a segment: its nodes run again, saving this time. Only those run that something
 * needs: backward of a plain product reads its input and nothing of what it made, so the last product of a
 * layer, a third of its work, is spared. A reversible segment needs all of them: its last node is undone.
 * Cost: one more forward of the segments. What is kept: the values that enter a plain segment; of reversible
 * ones (Gomez et al. 2017; Kitaev et al. 2020) the outputs of the last two alone.
 */
#include "autograd/tape.h"

/* ---- segments ------------------------------------------------------------------------------------------ */

void fv_tape_segment(fv_tape *tape, bool reversible)
{
    if (!tape->training || tape->keep_all)
        return;
    tape->segment = tape->segment_count++;
    tape->segments[tape->segment] = (fv_segment){tape->node_count, tape->node_count, reversible};
}

/* The last node of a reversible segment is undone instead of run. */
static bool is_undone(const fv_segment *s, int node)
{
    return s->reversible && node == s->last - 1;
}

/* One more reader, in the second run, of what the node reads. */
static void await_inputs(fv_tape *tape, const fv_node *node)
{
    for (int k = 0; k < 2; k++)
        if (node->input[k] >= 0 && tape->values[node->input[k]].segment == node->segment)
            tape->values[node->input[k]].waiting++;
}

/* Finds the nodes that must run again: in reverse, since a node must if one that must reads it. */
static void mark_again(fv_tape *tape, const fv_segment *s)
{
    for (int i = s->last - 1; i >= s->first; i--) {
        fv_node *node = &tape->nodes[i];
        const fv_value *out = node->output >= 0 ? &tape->values[node->output] : NULL;
        bool read = out != NULL && (out->inner_back > 0 || out->waiting > 0);
        node->again = !is_undone(s, i) && (read || node->op->saves || node->op->reads_output);
        if (node->again || is_undone(s, i))
            await_inputs(tape, node);
    }
}

void fv_tape_segment_end(fv_tape *tape)
{
    if (tape->segment < 0)
        return;
    fv_segment *s = &tape->segments[tape->segment];
    s->last = tape->node_count;
    tape->segment = -1;
    const fv_node *end = &tape->nodes[s->last - 1];
    bool undoable = end->op->undo != NULL && end->input[0] >= 0 && fv_tape_passing(tape, end->input[1]);
    if (s->last == s->first || (s->reversible && !undoable)) {
        fv_tape_fail(tape, fv_fail(tape->ctx, FV_ERR_INTERNAL, "the tape: a segment cannot end here"));
        return;
    }
    mark_again(tape, s);
    if (s->reversible) {
        tape->values[end->input[0]].rebuilt = true;
        tape->values[end->output].stream = true;
    }
}

/* ---- forward ------------------------------------------------------------------------------------------- */

/* Whether anything behind the first run reads a value. */
static bool outlives(const fv_tape *tape, const fv_value *v)
{
    if (!tape->training || v->rebuilt)
        return false;
    if (v->stream || v->crosses || v->back_readers > v->inner_back)
        return true;
    return v->segment < 0 && tape->nodes[v->producer].op->reads_output;
}

/* A reader of the value has run, in the first run. */
static void release(fv_tape *tape, int value)
{
    fv_value *v = fv_tape_value(tape, value);
    if (--v->waiting > 0 || v->held)
        return;
    bool computed_again = tape->nodes[v->producer].op->recompute != NULL && v->segment < 0 && !v->crosses;
    if (!outlives(tape, v) || computed_again)
        fv_tape_give(tape, &v->data);
    else if (fv_tape_narrows(tape, value))
        fv_tape_narrow(tape, value);
}

typedef struct copy_job {
    const fv_kernels *kernels;
    const fv_value *value;
    const float *x;
} copy_job;

static void copy_rows(void *arg, int64_t index, int worker)
{
    (void)worker;
    const copy_job *job = arg;
    int64_t row = index * FV_ROW_BLOCK, cols = job->value->cols;
    int64_t n = FV_MIN(FV_ROW_BLOCK, job->value->rows - row) * cols;
    job->kernels->copy_rows(1, n, job->x + row * cols, n, job->value->outside + row * cols, n);
}

static void copy_outside(fv_tape *tape, const fv_node *node)
{
    if (node->output < 0 || tape->values[node->output].outside == NULL)
        return;
    copy_job job = {tape->ctx->kernels, &tape->values[node->output], fv_tape_data(tape, node->output)};
    fv_tape_parallel(tape, fv_row_blocks(job.value->rows), copy_rows, &job);
}

fv_status fv_tape_forward(fv_tape *tape)
{
    for (int i = 0; i < tape->value_count; i++)
        tape->values[i].waiting = tape->values[i].readers;
    for (int i = 0; i < tape->node_count; i++) {
        fv_node *node = &tape->nodes[i];
        tape->saving = tape->training && node->segment < 0;
        node->op->forward(tape, node);
        copy_outside(tape, node);
        for (int k = 0; k < 2; k++)
            if (node->input[k] >= 0)
                release(tape, node->input[k]);
    }
    return tape->status;
}

static void give_data(fv_tape *tape, fv_value *value)
{
    fv_tape_give(tape, &value->data);
    fv_tape_give(tape, &value->half);
    fv_tape_give(tape, &value->rounded);
}

/* ---- a segment once more ------------------------------------------------------------------------------- */

/* A reader of the value has run again. */
static void release_again(fv_tape *tape, int segment, int value)
{
    fv_value *v = fv_tape_value(tape, value);
    if (v->segment != segment || --v->waiting > 0)
        return;
    const fv_op *producer = tape->nodes[v->producer].op;
    bool needed = v->inner_back > 0 || producer->reads_output;
    if (!needed || producer->recompute != NULL)
        fv_tape_give(tape, &v->data);
    else if (fv_tape_narrows(tape, value))
        fv_tape_narrow(tape, value);
}

/* Nothing of the segment but a stream has data now; its values wait for the readers that run. */
static void begin_again(fv_tape *tape, const fv_segment *s)
{
    for (int i = s->first; i < s->last; i++) {
        fv_node *node = &tape->nodes[i];
        if (node->output >= 0) {
            fv_value *out = fv_tape_value(tape, node->output);
            out->waiting = 0;
            if (!out->stream)
                give_data(tape, out);
        }
        if (node->again || is_undone(s, i))
            await_inputs(tape, node);
    }
}

static void run_again(fv_tape *tape, const fv_segment *s)
{
    int id = (int)(s - tape->segments);
    begin_again(tape, s);
    for (int i = s->first; i < s->last; i++) {
        fv_node *node = &tape->nodes[i];
        if (!node->again)
            continue;
        node->op->forward(tape, node);
        for (int k = 0; k < 2; k++)
            if (node->input[k] >= 0)
                release_again(tape, id, node->input[k]);
    }
    if (s->reversible) {
        fv_node *end = &tape->nodes[s->last - 1];
        end->op->undo(tape, end);
        release_again(tape, id, end->input[1]);
    }
    for (int i = s->first; i < s->last; i++)
        if (tape->nodes[i].output >= 0)
            tape->values[tape->nodes[i].output].waiting = tape->values[tape->nodes[i].output].inner_back;
}

/* ---- backward ------------------------------------------------------------------------------------------ */

static void release_node(fv_tape *tape, fv_node *node)
{
    fv_tape_give(tape, &node->saved);
    if (node->output < 0)
        return;
    fv_value *output = fv_tape_value(tape, node->output);
    fv_tape_give(tape, &output->gradient);
    if (!output->held)
        give_data(tape, output);
}

fv_status fv_tape_backward(fv_tape *tape)
{
    for (int i = 0; i < tape->value_count; i++)
        tape->values[i].waiting = tape->values[i].back_readers;
    tape->saving = true;
    for (int i = tape->node_count - 1; i >= 0; i--) {
        fv_node *node = &tape->nodes[i];
        if (node->segment >= 0 && i == tape->segments[node->segment].last - 1)
            run_again(tape, &tape->segments[node->segment]);
        node->op->backward(tape, node);
        release_node(tape, node);
    }
    return tape->status;
}
