/* kernelized_exponents.c: exponents of the state, and of queries against it (kernelized.h). */
#include "attention/kernelized.h"
#include <float.h>
#include <math.h>

#define GROWN 0x1p20f /* sums of keys that are brought back */

float fv_kz_exponent(float log2_feature, float other)
{
    return isnan(log2_feature) ? other : FV_MIN(FV_MAX(ceilf(log2_feature), -FLT_MAX), FLT_MAX);
}

/* Whether a log2-feature passes its exponent; one branch for all, as it seldom does. */
static bool any_above(int64_t n, const float *u, float bias, const float *e)
{
    int above = 0;
    for (int64_t f = 0; f < n; f++)
        above |= u[f] + bias > e[f];
    return above;
}

static bool any_grown(int64_t n, const float *z)
{
    int grown = 0;
    for (int64_t f = 0; f < n; f++)
        grown |= z[f] > GROWN;
    return grown;
}

void fv_kz_raise(const fv_kz_call *call, fv_kz_state *state, int64_t n, const float *u, float bias,
                 float *factor)
{
    bool changed = false;
    if (state->tokens > 0 && !any_above(n, u, bias, state->e))
        return;
    for (int64_t f = 0; f < n; f++) {
        float old = state->e[f], first = fv_kz_exponent(u[f] + bias, old);
        float raised = state->tokens == 0 ? first : FV_MAX(old, first);
        factor[f] = raised == old ? 1.0f : exp2f(old - raised);
        state->e[f] = raised;
        changed |= raised != old;
    }
    if (changed && state->tokens > 0)
        fv_kz_rescale(call, state, n, factor);
}

void fv_kz_lower(const fv_kz_call *call, fv_kz_state *state, int64_t n, float *factor)
{
    bool grown = false;
    if (!any_grown(n, state->z))
        return;
    for (int64_t f = 0; f < n; f++) {
        int exponent = 0;
        if (state->z[f] > GROWN && state->z[f] <= FLT_MAX)
            (void)frexpf(state->z[f], &exponent);
        float old = state->e[f];
        state->e[f] = old + (float)exponent; /* rounded beyond 2^24: the difference is what was added */
        factor[f] = exponent == 0 ? 1.0f : exp2f(old - state->e[f]);
        grown |= exponent != 0;
    }
    if (grown)
        fv_kz_rescale(call, state, n, factor);
}

void fv_kz_settle(const fv_kz_call *call, fv_kz_work *w, double lambda)
{
    fv_kz_state *state = &w->state;
    bool mixed = call->op->mechanism->map->mixed;
    for (int64_t f = 0; f < call->r; f++) {
        float size = mixed ? 1.0f : state->z[f], shift = 0.0f;
        if (size > 0.0f && size <= FLT_MAX)
            shift = (float)ceil(log2((double)size) + lambda);
        w->factor[f] = (float)exp2(lambda - (double)shift);
        /* Beyond 2^24 it rounds, as a logarithm of that size does. Nothing seen yet: any key is larger. */
        state->e[f] = size == 0.0f ? -FLT_MAX : state->e[f] + shift;
    }
    fv_kz_rescale(call, state, call->r, w->factor);
}

bool fv_kz_row_is_empty(const fv_kernels *kr, int64_t dv, const float *S, float z)
{
    return z == 0.0f && kr->max_abs(dv, S) == 0.0f;
}

void fv_kz_query_powers(const fv_kz_call *call, fv_kz_work *w, int64_t n, float *x, const fv_kz_ahead *ahead)
{
    const float *e = w->state.e;
    float largest = e[0];
    for (int64_t f = 1; f < call->r; f++)
        largest = FV_MAX(largest, e[f]);
    for (int64_t f = 0; f < call->r; f++)
        w->factor[f] = e[f] - largest; /* at most 0: x + factor is finite where x is, and rounds less */
    for (int64_t i = 0; i < n; i += FV_KZ_AHEAD) {
        call->kr->exp2_rows_top(FV_MIN(FV_KZ_AHEAD, n - i), call->r, x + i * call->r, call->r, w->factor,
                                w->top + i);
        if (ahead != NULL)
            fv_kz_fetch(ahead, i, FV_KZ_AHEAD);
    }
    for (int64_t i = 0; i < n; i++)
        w->top[i] += largest;
}
