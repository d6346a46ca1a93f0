/* toeplitz.c: see toeplitz.h: the plan of a call, its memory, and its tasks: forward one a sequence, head and group of
 * channels; backward one a key head, sequences in order, so that weights are summed in one order whatever the threads. */
#include "attention/toeplitz_pieces.h"

/* ---- lengths ----------------------------------------------------------------------------------------- */

static int64_t rest(const fv_toeplitz *t, const int64_t *offsets, int64_t s)
{
    return FV_MAX(offsets[s + 1] - offsets[s] - t->skip, (int64_t)0);
}

static int64_t longest_of(const fv_toeplitz *t, int64_t s)
{
    return FV_MAX(rest(t, t->layout->offsets_q, s), rest(t, fv_layout_keys(t->layout), s));
}

static fv_status check_raster(const fv_toeplitz *t, const int64_t *offsets, int64_t s)
{
    int64_t length = offsets[s + 1] - offsets[s], n = length - t->skip;
    if (length == 0 || n == t->span * t->span)
        return FV_OK;
    return fv_fail(t->ctx, FV_ERR_FILE,
                   "attention: sequence %lld has %lld tokens, of which position_bias skips %lld; a raster of "
                   "%lld x %lld needs %lld behind them",
                   (long long)s, (long long)length, (long long)t->skip, (long long)t->span,
                   (long long)t->span, (long long)(t->span * t->span));
}

fv_status fv_toeplitz_check(const fv_toeplitz *t)
{
    for (int64_t s = 0; s < t->layout->sequences; s++) {
        if (t->raster) {
            TRY(check_raster(t, t->layout->offsets_q, s));
            TRY(check_raster(t, fv_layout_keys(t->layout), s));
        } else if (longest_of(t, s) > t->span) {
            return fv_fail(
                t->ctx, FV_ERR_FILE,
                "attention: sequence %lld has %lld tokens, position_bias weights for %lld; it must "
                "have at least 2 * %lld - 1 columns",
                (long long)s, (long long)longest_of(t, s), (long long)t->span, (long long)longest_of(t, s));
        }
    }
    return FV_OK;
}

/* ---- the plan ---------------------------------------------------------------------------------------- */

/* A filter, and room for `blocks` transforms of its size. */
static int64_t add_filter(fv_tp_call *call, int64_t size, int64_t shift, int64_t reach, int64_t blocks)
{
    call->rows = FV_MAX(call->rows, size * blocks);
    return fv_tp_bank_add(&call->bank, size, shift, -reach, reach);
}

/* The filter of all pairs of n rows; -1: direct. */
static int64_t add_full(fv_tp_call *call, int64_t n)
{
    if (n <= FV_TP_DIRECT) {
        call->direct = FV_MAX(call->direct, n);
        return -1;
    }
    return add_filter(call, fv_fft_size(2 * n - 1), 0, n - 1, 1);
}

static fv_tp_past add_past(fv_tp_call *call, int64_t length, int64_t origin)
{
    fv_tp_past past = {call->bank.count, length, origin};
    for (int64_t m = FV_TP_BLOCK; m < length; m *= FV_TP_FAN) {
        int64_t blocks = FV_MIN((int64_t)FV_TP_FAN, fv_tp_blocks(length, m));
        for (int64_t distance = 1; distance < FV_TP_FAN; distance++)
            if (distance < blocks)
                add_filter(call, 2 * m, origin + distance * m, m - 1, blocks);
    }
    call->direct = FV_MAX(call->direct, (int64_t)FV_TP_BLOCK);
    return past;
}

/* Bidirectional sequences: a filter each, equal neighbours share it. */
static void plan_sequences(fv_tp_call *call)
{
    int64_t last = -1, filter = -1;
    for (int64_t s = 0; s < call->t->layout->sequences; s++) {
        int64_t n = longest_of(call->t, s), direct = -1;
        if (n > FV_TP_DIRECT && n != last)
            filter = add_full(call, n), last = n;
        else if (n <= FV_TP_DIRECT)
            direct = add_full(call, n);
        if (call->full != NULL)
            call->full[s] = n > FV_TP_DIRECT ? filter : direct;
    }
}

/* Lists the filters, or only counts them (toeplitz_filters.h). */
static void plan(fv_tp_call *call)
{
    const fv_toeplitz *t = call->t;
    int64_t longest = 0;
    fv_tp_bank_clear(&call->bank);
    call->rows = call->direct = 0;
    for (int64_t s = 0; s < t->layout->sequences; s++)
        longest = FV_MAX(longest, longest_of(t, s));
    if (t->raster && longest > 0)
        call->raster = add_full(call, t->span);
    if (t->raster)
        longest = FV_MIN(longest, t->span);
    if (t->causal)
        call->past = add_past(call, longest, 0);
    if (t->causal && t->raster)
        call->shifted = add_past(call, longest - 1, 1);
    if (!t->causal && !t->raster)
        plan_sequences(call);
}

/* ---- memory ------------------------------------------------------------------------------------------ */

static int64_t row_floats(const fv_tp_call *call)
{
    return FV_MAX((call->columns + 1) / 2, FV_MIN((int64_t)FV_TP_HEADS, call->t->heads)) * 2;
}

static fv_tp_work carve_work(const fv_tp_call *call, fv_arena *arena, bool backward)
{
    int64_t tile = FV_MAX(call->direct, (int64_t)0), R = call->t->raster ? call->t->span : 0;
    fv_tp_work w;
    w.x = FV_PUSH(arena, float, call->rows *row_floats(call));
    w.x2 = FV_PUSH(arena, float, backward ? call->rows *row_floats(call) : 0);
    w.tile = FV_PUSH(arena, float, tile *tile);
    w.weights = FV_PUSH(arena, float, 2 * (int64_t)FV_TP_BLOCK);
    w.clean = FV_PUSH(arena, float, FV_TP_BLOCK * call->columns);
    w.out = FV_PUSH(arena, float, FV_TP_BLOCK * call->columns);
    w.poison = FV_PUSH(arena, float, call->columns);
    w.total = FV_PUSH(arena, float, call->columns);
    for (int i = 0; i < FV_COUNT(w.sums); i++)
        w.sums[i] = FV_PUSH(arena, float, R * call->columns);
    return w;
}

fv_tp_work fv_tp_worker(const fv_tp_call *call, int worker, bool backward)
{
    fv_arena arena = fv_arena_over(call->work + (size_t)worker * call->work_bytes, call->work_bytes);
    return carve_work(call, &arena, backward);
}

static void carve(fv_tp_call *call, fv_arena *arena, bool backward)
{
    const fv_toeplitz *t = call->t;
    call->groups = (t->width + FV_TP_COLUMNS - 1) / FV_TP_COLUMNS;
    call->columns = (t->width + call->groups - 1) / call->groups;
    if (call->groups > 1)
        call->columns = (call->columns + 1) / 2 * 2; /* all parts but the last one in pairs */
    call->bank.ctx = t->ctx;
    call->bank.heads = t->heads;
    call->bank.span = t->span;
    call->bank.filters = NULL;
    call->full = NULL;
    plan(call);
    call->full = FV_PUSH(arena, int64_t, t->layout->sequences);
    fv_tp_bank_carve(&call->bank, arena, backward);
    fv_arena one = fv_arena_measure();
    carve_work(call, &one, backward);
    call->work_bytes = one.used;
    call->work = FV_PUSH(arena, char, (int64_t)call->work_bytes *fv_context_threads(t->ctx));
}

size_t fv_toeplitz_scratch(const fv_toeplitz *t, bool backward)
{
    fv_tp_call call = {.t = t};
    fv_arena arena = fv_arena_measure();
    carve(&call, &arena, backward);
    return arena.used;
}

static void begin(fv_tp_call *call, void *scratch, bool backward)
{
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    call->kr = call->t->ctx->exact;
    carve(call, &arena, backward);
    plan(call);                   /* again, into the list */
    call->bank.room = call->work; /* a worker's memory begins with its transforms */
    call->bank.room_bytes = call->work_bytes;
    fv_tp_bank_begin(&call->bank);
}

/* ---- tasks ------------------------------------------------------------------------------------------- */

static fv_tp_part part_of(const fv_tp_call *call, fv_tp_work *w, int64_t head, int64_t group)
{
    int64_t middle = head * (2 * call->t->span - 1) + call->t->span - 1;
    return (fv_tp_part){.call = call,
                        .w = w,
                        .head = head,
                        .columns = FV_MIN(call->columns, call->t->width - group * call->columns),
                        .weight = call->bank.w + middle,
                        .dweight = call->bank.dw != NULL ? call->bank.dw + middle : NULL};
}

/* First float of a part of a tensor: rows behind the skipped ones of sequence s. */
static int64_t place(const fv_tp_call *call, const int64_t *offsets, int64_t s, int64_t ld, int64_t head,
                     int64_t group)
{
    /* A sequence shorter than `skip` has no rows: stay at its end. */
    int64_t row = FV_MIN(offsets[s] + call->t->skip, offsets[s + 1]);
    return row * ld + head * call->t->width + group * call->columns;
}

static void forward_task(void *arg, int64_t index, int worker)
{
    const fv_tp_call *call = arg;
    const fv_toeplitz *t = call->t;
    const int64_t *oq = t->layout->offsets_q, *ok = fv_layout_keys(t->layout);
    int64_t group = index % call->groups, h = index / call->groups % t->heads,
            s = index / call->groups / t->heads;
    fv_tp_work w = fv_tp_worker(call, worker, false);
    fv_tp_part p = part_of(call, &w, h, group);
    fv_tp_rows v = {call->v + place(call, ok, s, call->ldv, h * t->kv_heads / t->heads, group),
                    rest(t, ok, s), call->ldv};
    float *y = call->y + place(call, oq, s, call->ldy, h, group);
    if (t->raster)
        fv_tp_raster(&p, v, y, call->ldy);
    else if (t->causal)
        fv_tp_past_forward(&p, &call->past, v, y, call->ldy);
    else
        fv_tp_full(&p, call->full[s], v, rest(t, oq, s), y, call->ldy);
}

void fv_toeplitz_forward(const fv_toeplitz *t, const float *w, const float *v, int64_t ldv, float *y,
                         int64_t ldy, void *scratch)
{
    fv_tp_call call = {.t = t, .bank.w = w, .v = v, .ldv = ldv, .y = y, .ldy = ldy};
    begin(&call, scratch, false);
    fv_parallel(t->ctx, t->layout->sequences * t->heads * call.groups, forward_task, &call);
}

static void backward_part(const fv_tp_call *call, fv_tp_work *w, int64_t s, int64_t h, int64_t group)
{
    const fv_toeplitz *t = call->t;
    const int64_t *oq = t->layout->offsets_q, *ok = fv_layout_keys(t->layout);
    fv_tp_part p = part_of(call, w, h, group);
    int64_t at = place(call, ok, s, call->ldv, h * t->kv_heads / t->heads, group);
    fv_tp_rows v = {call->v + at, rest(t, ok, s), call->ldv};
    fv_tp_rows dy = {call->dy + place(call, oq, s, call->ldy, h, group), rest(t, oq, s), call->ldy};
    float *dv = call->dv != NULL ? call->dv + at : NULL;
    if (t->raster)
        fv_tp_raster_back(&p, v, dy, dv);
    else if (t->causal)
        fv_tp_past_back(&p, &call->past, v, dy, dv);
    else
        fv_tp_full_back(&p, call->full[s], v, dy, dv);
}

static void backward_task(void *arg, int64_t g, int worker)
{
    const fv_tp_call *call = arg;
    const fv_toeplitz *t = call->t;
    int64_t share = t->heads / t->kv_heads;
    fv_tp_work w = fv_tp_worker(call, worker, true);
    for (int64_t s = 0; s < t->layout->sequences; s++)
        for (int64_t h = g * share; h < (g + 1) * share; h++)
            for (int64_t group = 0; group < call->groups; group++)
                backward_part(call, &w, s, h, group);
}

void fv_toeplitz_backward(const fv_toeplitz *t, const float *w, const float *v, int64_t ldv, const float *dy,
                          int64_t ldy, float *dv, float *dw, void *scratch)
{
    fv_tp_call call = {
        .t = t, .bank = {.w = w, .dw = dw}, .v = v, .ldv = ldv, .dy = dy, .ldy = ldy, .dv = dv};
    if (dv == NULL && dw == NULL)
        return;
    begin(&call, scratch, true);
    fv_parallel(t->ctx, t->kv_heads, backward_task, &call);
    if (dw != NULL)
        fv_tp_bank_end(&call.bank);
}
