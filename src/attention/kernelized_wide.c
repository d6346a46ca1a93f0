/* kernelized_wide.c: plain maps with exponents.
 *
 * The features of a plain map stay at their true scale as long as its numbers are moderate: entries of keys are 0 or within
 * LEAST .. MOST, the normaliser of a row within LOW .. HIGH (features of both signs: entries of keys and queries up to MOST;
 * normalisers that can be negative: within -HIGH .. HIGH), vectors that are squared not SHORT. There nothing overflows, and what
 * underflows is too small to matter beside the normaliser. The first token at which that fails begins a chunk from which on, to
 * the end of the sequence, features are wide:
 *
 *     phi_f = c_f 2^u_f,   u_f whole,   1 <= |c_f| < 2,
 *
 * split without a rounding, so that they are features with coefficients of an exponential map (feature_map.h), with exponents for
 * every feature of the state (kernelized.h). A feature that is 0 has u_f = -inf and raises no exponent; of maps of both signs,
 * whose slope at 0 counts, it has u_f = 0. What was summed before is brought to exponents by powers of two, so the change
 * itself rounds nothing; and it depends on no later token. Bidirectional calls change where the first such key or tile of
 * queries is; calls with gate, decay or position bias have wide features from the start. Backward learns of forward where it was.
 *
 * Features that are squares or products leave the range of floats where their vectors do not. Maps with `degrees` get rows
 * x' = 2^-e x of length about 1, phi_f(x) = 2^(degree_f e) phi_f(x'), and dL/dx = 2^-e dL/dx'. With an epsilon only long rows
 * are scaled, to 2^ROOM, so that epsilon stays beside them.
 * Limit: epsilon 0 lets sigmoid, elu+1 and softplus underflow below u = -87; channels of one vector that differ by more than 2^63
 * underflow in products.
 */
#include "attention/kernelized.h"
#include <float.h>
#include <math.h>

#define LEAST 0x1p-40f
#define MOST  0x1p32f
#define LOW   0x1p-20f
#define HIGH  0x1p40f
#define SHORT 0x1p-20f
#define ROOM  58.0f

void fv_kz_wide_carve(const fv_kz_call *call, fv_arena *arena, fv_kz_wide *wide)
{
    bool scaled = call->op->mechanism->map->degrees != NULL;
    wide->x = FV_PUSH(arena, float, scaled ? call->C * call->d : 0);
    wide->exponent = FV_PUSH(arena, float, call->C);
    wide->degree = FV_PUSH(arena, float, scaled ? call->r : 0);
}

/* ---- features ------------------------------------------------------------------------------------------ */

/* The exponent that a row of this squared length takes. */
static float row_exponent(const fv_kz_call *call, double squares)
{
    const fv_feature_map *map = call->op->mechanism->map;
    if (!(squares > 0) || !isfinite(squares))
        return 0;
    float e = FV_MIN(FV_MAX((float)ilogb(sqrt(squares)), -126.0f), 126.0f);
    return map->generalized && call->map.epsilon > 0 ? FV_MAX(e - ROOM, 0.0f) : e;
}

/* Scales rows as the map is to see them. */
static void scale_rows(const fv_kz_call *call, fv_kz_work *w, const fv_rows *rows)
{
    const fv_kernels *kr = call->kr;
    kr->fill(rows->n, 0.0f, w->wide.exponent);
    for (int64_t i = 0; i < rows->n && call->op->mechanism->map->degrees != NULL; i++) {
        const float *x = rows->x + i * rows->ldx;
        float e = row_exponent(call, kr->sum_squares(call->d, x));
        w->wide.exponent[i] = e;
        kr->scale(call->d, exp2f(-e), x, w->wide.x + i * call->d);
    }
}

/* The scaled rows. */
static fv_rows seen_rows(const fv_kz_call *call, const fv_kz_work *w, const fv_rows *rows)
{
    fv_rows to = *rows;
    to.exponent = w->wide.exponent;
    if (call->op->mechanism->map->degrees != NULL) {
        to.x = w->wide.x;
        to.ldx = call->d;
    }
    return to;
}

void fv_kz_logits(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_rows *rows, float *u,
                  float *c, float *inverse, float *bias)
{
    const fv_kernels *kr = call->kr;
    const fv_feature_map *map = call->op->mechanism->map;
    if (!w->wide.on) {
        map->logits(&h->map, rows, u, c, bias);
        return;
    }
    scale_rows(call, w, rows);
    fv_rows seen = seen_rows(call, w, rows);
    map->logits(&h->map, &seen, u, NULL, bias);
    if (!map->row_exponents)
        kr->fill(rows->n, 0.0f, bias);
    kr->split(rows->n * call->r, map->mixed ? 0.0f : -INFINITY, u, c, inverse);
    if (map->degrees != NULL)
        kr->add_outer(rows->n, call->r, seen.exponent, w->wide.degree, u, call->r);
}

void fv_kz_wide_on(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w)
{
    const fv_feature_map *map = call->op->mechanism->map;
    w->wide.on = true;
    if (map->degrees != NULL)
        map->degrees(&h->map, w->wide.degree);
}

void fv_kz_begin_wide(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin)
{
    fv_kz_wide_on(call, h, w);
    w->wide.from = begin;
    if (w->state.tokens > 0)
        fv_kz_settle(call, w, 0);
}

void fv_kz_start(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w)
{
    bool wide = call->decaying || call->biased;
    for (int64_t f = 0; f < call->r && call->plain && !wide; f++)
        wide = w->state.e[f] != 0.0f;
    if (call->plain && wide)
        fv_kz_wide_on(call, h, w);
}

/* ---- what is moderate ----------------------------------------------------------------------------------- */

/* How many of n rows x [n][r], from the first, are 0 or within low .. high. */
static int64_t rows_within(const fv_kz_call *call, int64_t n, float low, float high, const float *x)
{
    int64_t keep = 0;
    if (call->kr->within(n * call->r, low, high, x))
        return n;
    while (keep < n && call->kr->within(call->r, low, high, x + keep * call->r))
        keep++;
    return keep;
}

/* Whether a vector is so short that its features may be 0 for want of range. */
static bool vanishes(const fv_kz_call *call, const float *x)
{
    float top = call->kr->max_abs(call->d, x);
    return top < SHORT && top > 0.0f;
}

int64_t fv_kz_moderate_keys(const fv_kz_call *call, fv_kz_work *w, const fv_rows *rows)
{
    const fv_feature_map *map = call->op->mechanism->map;
    int64_t n = rows->n, keep = rows_within(call, n, map->mixed ? 0.0f : LEAST, MOST, w->k), end = keep;
    bool squares = map->degrees != NULL || map->row_exponents;
    if (squares && !(map->generalized && call->map.epsilon > 0))
        for (keep = 0; keep < end && !vanishes(call, rows->x + keep * rows->ldx);)
            keep++;
    call->kr->fill((n - keep) * call->r, 0.0f, w->k + keep * call->r);
    return keep;
}

int64_t fv_kz_moderate_rows(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    const fv_feature_map *map = call->op->mechanism->map;
    const float least = map->can_be_negative ? -HIGH : LOW;
    if (fv_kz_logs(call, w))
        return n;
    int64_t end = map->mixed ? rows_within(call, n, 0.0f, MOST, w->q) : n;
    for (int64_t i = 0; i < end; i++)
        if (!(w->den[i] >= least && w->den[i] <= HIGH))
            return i;
    return end;
}

/* ---- backward ------------------------------------------------------------------------------------------- */

void fv_kz_wide_back(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, const fv_rows *rows,
                     float *dx)
{
    const fv_kernels *kr = call->kr;
    const fv_feature_map *map = call->op->mechanism->map;
    int64_t floats = rows->n * call->r;
    bool add = dx != NULL && !call->grad->in_place;
    /* psi = 2^(u + ...) c and phi = 2^u' c of the rows that the map saw: dL/dphi = dL/dpsi 2^(u + ...) 2^-u'. */
    fv_kz_logits(call, h, w, rows, w->gc, NULL, w->c, w->bias);
    fv_kz_row_powers(call, w, rows, w->gc);
    kr->mul(floats, w->t, w->gc, w->t);
    kr->mul(floats, w->t, w->c, w->t);
    fv_rows seen = seen_rows(call, w, rows);
    if (map->degrees == NULL) {
        map->backward(&h->map, &seen, w->t, NULL, add, dx != NULL ? dx : w->dump,
                      dx != NULL ? rows->ldx : call->d, w->tmp);
        return;
    }
    map->backward(&h->map, &seen, w->t, NULL, false, w->dump, call->d, w->tmp);
    for (int64_t i = 0; i < rows->n; i++)
        w->wide.exponent[i] = exp2f(-w->wide.exponent[i]);
    if (dx != NULL)
        kr->scale_rows(rows->n, call->d, w->wide.exponent, w->dump, call->d, add, dx, rows->ldx);
}
