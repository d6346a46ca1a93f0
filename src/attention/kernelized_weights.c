/* kernelized_weights.c: rows of the implied attention matrix, a_ij = phi(q_i).phi(k_j) / D_i, without the
 * matrix.
 *
 * Rows of one sequence, in causal calls such as are near each other, share one sweep over the keys, taken
 * against the exponents of the first row's keys. Cost O(L r d) a group of rows.
 */
#include "attention/kernelized.h"
#include <math.h>

enum { GROUP = 32 };

typedef struct weights_call {
    fv_kz_call call;
    const int64_t *rows;
    int64_t n, head, stride;
    float *weights;
} weights_call;

/* Keys that query i (counted in its sequence) sees. */
static int64_t visible_keys(const fv_kz_call *call, const fv_kz_head *h, int64_t i)
{
    return call->op->options.causal ? i + 1 : h->nk;
}

/* A product of factors by its log2, those that are 0 counted apart: it can be divided again. */
typedef struct product {
    double log2;
    int64_t zeros;
} product;

static void multiply(product *p, double log2_factor, int sign)
{
    if (isinf(log2_factor))
        p->zeros += sign;
    else
        p->log2 += sign * log2_factor;
}

static double log2_of(const product *p)
{
    return p->zeros > 0 ? -HUGE_VAL : p->zeros < 0 ? HUGE_VAL : p->log2;
}

/* What the tokens behind `from` up to `to` put on a key at `from`. */
static product fade_between(const fv_kz_call *call, const fv_kz_head *h, int64_t from, int64_t to)
{
    product all = {0, 0};
    for (int64_t t = from + 1; call->decaying && t <= to; t++)
        multiply(&all, fv_kz_fade_of(call, h, t, NULL), 1);
    return all;
}

/* Gate and decay of keys [begin, begin+n), as a row sees them for which the key before has factor *rest, into
 * w->fade. */
static void fade_keys(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n,
                      product *rest)
{
    for (int64_t i = 0; i < n; i++) {
        double own = fv_kz_fade_of(call, h, begin + i, &w->fade.input[i]);
        if (begin + i > 0)
            multiply(rest, own, -1);
        w->fade.power[i] = log2_of(rest);
        w->fade.weight[i] = (float)((double)w->fade.input[i] * exp2(w->fade.power[i]));
    }
}

/* fv_kz_key_features, gate and decay included. */
static float key_features(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin,
                          int64_t n, product *rest)
{
    if (!call->decaying)
        return fv_kz_key_features(call, h, w, begin, n);
    fv_rows rows = fv_kz_rows(call, h, true, begin, n);
    fv_kz_logits(call, h, w, &rows, w->k, w->c, NULL, w->bias);
    fade_keys(call, h, w, begin, n, rest);
    float largest = (float)fv_kz_fade_exp2(call, w, n, w->k);
    if (fv_kz_has_coefficients(call, w))
        call->kr->mul(n * call->r, w->k, w->c, w->k);
    call->kr->scale_rows(n, call->r, w->fade.weight, w->k, call->r, 0, w->k, call->r);
    return largest;
}

/* state.e = ceil of the largest log2-feature over the first `n` keys. */
static void exponents_of(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t n, product rest)
{
    bool logs = fv_kz_logs(call, w);
    call->kr->fill(call->r, logs ? -INFINITY : 0.0f, w->state.e);
    for (int64_t t = 0; logs && t < n; t += call->C) {
        int64_t tile = FV_MIN(call->C, n - t);
        fv_rows keys = fv_kz_rows(call, h, true, t, tile);
        fv_kz_logits(call, h, w, &keys, w->k, w->c, NULL, w->sums);
        if (call->decaying)
            fade_keys(call, h, w, t, tile, &rest);
        for (int64_t i = 0; call->decaying && i < tile; i++)
            w->sums[i] += w->fade.input[i] == 0.0f ? -INFINITY : (float)w->fade.power[i];
        call->kr->add_col_max(tile, call->r, w->sums, w->k, call->r, w->state.e);
    }
    for (int64_t f = 0; f < call->r; f++)
        w->state.e[f] = fv_kz_exponent(w->state.e[f], 0.0f);
}

/* Unnormalised weights of the group's rows (numbers in their sequence) over the first `keys` keys into out
 * [n][stride]. False when a key that not all rows see is out of the exponents' range: the group is to be
 * split. */
static bool sweep(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const int64_t *rows, int64_t n,
                  float *out, int64_t stride)
{
    const fv_kernels *kr = call->kr;
    int64_t r = call->r, shared = visible_keys(call, h, rows[0]), keys = visible_keys(call, h, rows[n - 1]);
    product rest = fade_between(call, h, 0, rows[0]);
    exponents_of(call, h, w, shared, rest);
    for (int64_t i = 0; i < n; i++) {
        product behind = fade_between(call, h, rows[0], rows[i]);
        if (call->decaying)
            w->fade.shrink[i] = (float)exp2(log2_of(&behind));
        fv_rows query = fv_kz_rows(call, h, false, rows[i], 1);
        float *c = fv_kz_has_coefficients(call, w) ? w->c + i * r : NULL;
        fv_kz_logits(call, h, w, &query, w->q + i * r, c, NULL, w->top + i);
        w->sums[i] = w->top[i];
    }
    if (fv_kz_logs(call, w))
        fv_kz_query_powers(call, w, n, w->q, NULL);
    if (fv_kz_has_coefficients(call, w))
        kr->mul(n * r, w->q, w->c, w->q);
    for (int64_t t = 0; t < keys; t += call->C) {
        int64_t tile = FV_MIN(call->C, keys - t);
        if (key_features(call, h, w, t, tile, &rest) > (float)FV_KZ_LIMIT && n > 1)
            return false;
        kr->gemm('N', 'T', n, tile, r, 1.0f, w->q, r, w->k, r, 0.0f, out + t, stride);
    }
    kr->copy_rows(1, n, w->sums, n, w->bias, n); /* the queries' again: normalise reads it */
    return true;
}

static void group_rows(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const int64_t *rows,
                       int64_t n, float *out, int64_t stride)
{
    const fv_kernels *kr = call->kr;
    if (!sweep(call, h, w, rows, n, out, stride)) {
        for (int64_t i = 0; i < n; i++)
            group_rows(call, h, w, rows + i, 1, out + i * stride, stride);
        return;
    }
    int64_t keys = visible_keys(call, h, rows[n - 1]);
    for (int64_t i = 0; i < n; i++) {
        float *row = out + i * stride;
        int64_t seen = visible_keys(call, h, rows[i]);
        kr->mask_rows(1, keys, &seen, row, stride);
        w->den[i] = (float)kr->sum(seen, row);
    }
    if (fv_kz_moderate_rows(call, w, n) < n) {
        fv_kz_wide_on(call, h, w);
        group_rows(call, h, w, rows, n, out, stride);
        return;
    }
    fv_kz_normalise(call, w, n);
    kr->scale_rows(n, keys, w->inv, out, stride, 0, out, stride);
}

/* One task: up to GROUP listed rows of one head, cut where the sequence changes or the order falls. */
static void weights_task(void *arg, int64_t index, int worker)
{
    const weights_call *weights = arg;
    const fv_kz_call *call = &weights->call;
    const fv_layout *layout = call->layout;
    fv_kz_work w = fv_kz_worker(call, worker, false);
    int64_t groups = (weights->n + GROUP - 1) / GROUP, slot = index / groups;
    int64_t first = index % groups * GROUP, last = FV_MIN(first + GROUP, weights->n);
    int64_t reach = FV_MIN(GROUP, call->C);
    bool causal = call->op->options.causal != 0; /* then rows far apart share few keys */
    for (int64_t i = first; i < last;) {
        int64_t s = fv_offsets_locate(layout->offsets_q, layout->sequences, weights->rows[i]), local[GROUP],
                n = 0;
        int64_t q0 = layout->offsets_q[s], k0 = fv_layout_keys(layout)[s];
        fv_kz_head h = fv_kz_head_of(call, s, weights->head < 0 ? slot : weights->head);
        float *out = weights->weights + (slot * weights->n + i) * weights->stride;
        do {
            local[n++] = weights->rows[i++] - q0;
        } while (i < last && n < reach && weights->rows[i] > weights->rows[i - 1] &&
                 (!causal || weights->rows[i] - q0 < local[0] + GROUP) &&
                 weights->rows[i] < layout->offsets_q[s + 1]);
        for (int64_t row = 0; row < n; row++)
            call->kr->fill(weights->stride, 0.0f, out + row * weights->stride);
        fv_kz_take_on(call, &h, &w);
        w.wide.on = false;
        if (call->plain && call->decaying)
            fv_kz_wide_on(call, &h, &w);
        for (int64_t row = 0; call->biased && row < n; row++)
            fv_kz_bias_row(call, &h, &w, local[row], out + k0 + row * weights->stride);
        if (h.nk > 0 && !call->biased)
            group_rows(call, &h, &w, local, n, out + k0, weights->stride);
    }
}

fv_status fv_kz_weights(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                        const int64_t *rows, int64_t n, int64_t head, float *weights, int64_t row_stride,
                        void *scratch)
{
    weights_call call = {.rows = rows, .n = n, .head = head, .stride = row_stride, .weights = weights};
    TRY(fv_bias_check_span(op, layout));
    fv_kz_begin(&call.call, op, layout, false, io, NULL, NULL, scratch);
    fv_parallel(op->ctx, (head < 0 ? op->options.heads : 1) * ((n + GROUP - 1) / GROUP), weights_task, &call);
    return FV_OK;
}
