/* kernelized_features.c: features of keys and queries as chunks and tiles have them, against the exponents of the state. */
#include "attention/kernelized.h"
#include <math.h>

/* ---- what is read next --------------------------------------------------------------------------------- */

/* Nothing of an array that is not there: weights have no values, forward no gradients. */
static fv_kz_ahead_rows rows_from(const float *x, int64_t next, int64_t ld, int64_t width)
{
    return x != NULL ? (fv_kz_ahead_rows){x + next * ld, ld, width} : (fv_kz_ahead_rows){0};
}

fv_kz_ahead fv_kz_ahead_of(const fv_kz_call *call, const fv_kz_head *h, bool key, int64_t next)
{
    fv_kz_ahead ahead = {.kr = call->kr, .n = FV_MIN(call->C, (key ? h->nk : h->nq) - next)};
    if (next < 0 || ahead.n < 1)
        return (fv_kz_ahead){0};
    ahead.rows[0] =
        key ? rows_from(h->k, next, call->ldk, call->d) : rows_from(h->q, next, call->ldq, call->d);
    ahead.rows[1] =
        key ? rows_from(h->v, next, call->ldv, call->dv) : rows_from(h->dy, next, call->ldy, call->dv);
    return ahead;
}

void fv_kz_fetch(const fv_kz_ahead *ahead, int64_t first, int64_t n)
{
    n = FV_MIN(n, ahead->n - first);
    for (int i = 0; i < FV_COUNT(ahead->rows) && n > 0; i++) {
        const fv_kz_ahead_rows *rows = &ahead->rows[i];
        if (rows->x != NULL)
            ahead->kr->prefetch_rows(n, rows->width, rows->x + first * rows->ld, rows->ld);
    }
}

/* ---- keys --------------------------------------------------------------------------------------------- */

/* The first key whose features passed the limit ends the chunk: features of it and all after it become 0.
 * Which keys stay, and their bits, depends on no key after them. */
int64_t fv_kz_cut(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    int64_t keep = 1;
    while (keep < n && !(call->kr->max_abs(call->r, w->k + keep * call->r) > (float)ldexp(1, FV_KZ_LIMIT)))
        keep++;
    call->kr->fill((n - keep) * call->r, 0.0f, w->k + keep * call->r);
    return keep;
}

/* Log2-features in w->k become powers against the state's exponents; returns the largest log2. */
static float key_powers(const fv_kz_call *call, fv_kz_work *w, int64_t n, const fv_kz_ahead *ahead)
{
    float largest = -INFINITY;
    for (int64_t i = 0; i < n; i += FV_KZ_AHEAD) {
        float top = call->kr->exp2_rows(FV_MIN(FV_KZ_AHEAD, n - i), call->r, w->k + i * call->r, call->r,
                                        w->bias + i, w->state.e);
        largest = FV_MAX(largest, top);
        fv_kz_fetch(ahead, i, FV_KZ_AHEAD);
    }
    return largest;
}

float fv_kz_key_features(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    fv_rows rows = fv_kz_rows(call, h, true, begin, n);
    fv_kz_logits(call, h, w, &rows, w->k, w->c, NULL, w->bias);
    fv_kz_ahead ahead = fv_kz_ahead_of(call, h, true, begin + n);
    if (!fv_kz_logs(call, w)) {
        fv_kz_fetch(&ahead, 0, ahead.n);
        return 0;
    }
    float largest = key_powers(call, w, n, &ahead);
    if (fv_kz_has_coefficients(call, w))
        call->kr->mul(n * call->r, w->k, w->c, w->k);
    return largest;
}

int64_t fv_kz_keys(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    fv_rows rows = fv_kz_rows(call, h, true, begin, n);
    fv_kz_logits(call, h, w, &rows, w->k, w->c, NULL, w->bias);
    fv_kz_ahead ahead = fv_kz_ahead_of(call, h, true, begin + n);
    if (!fv_kz_logs(call, w) || call->decaying)
        fv_kz_fetch(&ahead, 0, ahead.n);
    if (call->decaying)
        return fv_kz_fade_keys(call, h, w, begin, n);
    if (!fv_kz_logs(call, w)) {
        int64_t moderate = fv_kz_moderate_keys(call, w, &rows);
        if (moderate > 0)
            return moderate;
        fv_kz_begin_wide(call, h, w, begin);
        fv_kz_logits(call, h, w, &rows, w->k, w->c, NULL, w->bias);
    }
    fv_kz_raise(call, &w->state, call->r, w->k, w->bias[0], w->factor);
    float largest = key_powers(call, w, n, &ahead);
    int64_t taken = largest <= (float)FV_KZ_LIMIT ? n : fv_kz_cut(call, w, n);
    if (fv_kz_has_coefficients(call, w))
        call->kr->mul(taken * call->r, w->k, w->c, w->k);
    return taken;
}

/* ---- queries ------------------------------------------------------------------------------------------ */

void fv_kz_queries(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    fv_rows rows = fv_kz_rows(call, h, false, begin, n);
    fv_kz_logits(call, h, w, &rows, w->q, w->c, NULL, w->bias);
    /* Backward takes the last chunk first. */
    bool reverse = call->grad != NULL && call->op->options.causal;
    fv_kz_ahead ahead = fv_kz_ahead_of(call, h, false, reverse ? begin - call->C : begin + n);
    if (fv_kz_logs(call, w))
        fv_kz_query_powers(call, w, n, w->q, &ahead);
    else
        fv_kz_fetch(&ahead, 0, ahead.n);
    if (fv_kz_has_coefficients(call, w))
        call->kr->mul(n * call->r, w->q, w->c, w->q);
}

int64_t fv_kz_query_sums(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    fv_kz_queries(call, h, w, begin, n);
    call->kr->row_dots(n, call->r, 1.0f, w->q, call->r, w->state.z, 0, 0.0f, w->den);
    return fv_kz_moderate_rows(call, w, n);
}
