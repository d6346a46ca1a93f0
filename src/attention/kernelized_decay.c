/* kernelized_decay.c: gate and decay of kernelized attention, one code path.
 *
 *     S_t = f_t S_{t-1} + b_t phi(k_t) v_t^T,  z_t alike
 *
 * RFA-GATE (Peng et al. 2021, arXiv 2103.02143, eq. 7): f_t = g_t, b_t = 1 - g_t, a gate a token and head.
 * RetNet's decay (Sun et al. 2023, arXiv 2307.08621): f_t = gamma_h, b_t = 1. Both: f_t = gamma_h g_t.
 *
 * In a chunk whose first token is s, with lambda_t = log2 of f_{s+1} .. f_t (double: differences stay
 * accurate) and S' = f_s S_in, row t is
 *
 *     num_t = 2^lambda_t (S'^T q_t + sum_{i <= t} (q_t . psi_i) v_i),   psi_i = b_i 2^-lambda_i phi(k_i),
 *
 * den_t alike. 2^lambda_t cancels in the ratio (guards put it back), so a chunk is the plain one with psi for
 * phi and S' for S, and S_out = 2^lambda_end (S' + sum psi_i v_i^T). 2^-lambda_i must stay in range: a chunk
 * ends before the token at which -lambda passes FV_KZ_FADE. As other cuts this depends on no later token.
 *
 * Exponents (kernelized.h): the state leaves a chunk with every z_f brought to [1/2, 1] in either direction,
 * and enters the next at E_f = max(ceil(e_f + log2 f_s), first key's, its b included): an old large key that has
 * decayed makes no recent key underflow. Exponents of maps of both signs, whose z_f may cancel, sink by the
 * factors alone. Plain maps have wide features (kernelized_wide.c). A gate or decay outside [0, 1] is NaN from its token on.
 *
 * Backward. A pair (t, i) with weight W_ti = dL/dln a_ti carries f_s of all i < s <= t, so dL/dln f_s is the
 * sum of the pairs that straddle s: pairs inside the chunk, rows t >= s against S', keys i < s against the
 * gradient G of the state that leaves, and <S', G>. Only such pairs are added, none subtracted again: no
 * cancellation. The chunk's first token takes <S_in, dL/dS'>, where f_s itself does not stand in, so that gates of
 * any size divide nothing. dL/dg_s = (dL/dln f_s) / g_s - dL/db_s, where g_s is 1 with the features that b_s = 0 hides.
 * Limit: of these it leaves out features that are exactly 0 in every key seen so far.
 */
#include "attention/kernelized.h"
#include <float.h>
#include <math.h>

enum {
    STEP = 8,  /* rows of one step are one call of the exponential */
    FADE = 44, /* log2 of the decay inside a chunk, less than FV_KZ_LIMIT */
};
#define LARGEST 0x1p64 /* factor of a row of zeros */

/* -inf for 0: nothing is left of what came before. */
static double log2_factor(float x)
{
    return x >= 0.0f && x <= 1.0f ? log2((double)x) : (double)NAN;
}

double fv_kz_fade_of(const fv_kz_call *call, const fv_kz_head *h, int64_t t, float *b)
{
    double log2_f = h->decay != NULL ? log2_factor(*h->decay) : 0.0;
    float g = h->gate != NULL ? h->gate[t * call->H] : 0.0f;
    if (b != NULL)
        *b = 1.0f - g;
    return h->gate != NULL ? log2_f + log2_factor(g) : log2_f;
}

void fv_kz_fade_carve(const fv_kz_call *call, fv_arena *arena, fv_kz_fade *fade, bool backward)
{
    int64_t C = call->C;
    fade->lambda = FV_PUSH(arena, double, C);
    fade->input = FV_PUSH(arena, float, C);
    fade->power = FV_PUSH(arena, double, C);
    fade->whole = FV_PUSH(arena, float, C);
    fade->weight = FV_PUSH(arena, float, C);
    fade->shrink = FV_PUSH(arena, float, C);
    fade->shift = FV_PUSH(arena, float, call->r);
    if (!backward)
        return;
    fade->seen = FV_PUSH(arena, float, C);
    fade->left = FV_PUSH(arena, float, C);
    fade->pull = FV_PUSH(arena, float, C);
    fade->pairs = FV_PUSH(arena, float, C);
    fade->dots = FV_PUSH(arena, float, call->r);
}

/* How much of 2^power row x (log2-features, without bias) is to take as exponents: so much that its largest entry comes
 * near 1. Nothing is lost below then, and an argument that is near 0 already stays as exact as it is. */
static float whole_steps(const fv_kz_call *call, const fv_kz_work *w, const float *x, float bias,
                         double power)
{
    double all = STEP * floor(power / STEP);
    float top = -INFINITY;
    if (fabs(power) < STEP)
        return 0.0f;
    for (int64_t f = 0; f < call->r; f++)
        top = FV_MAX(top, x[f] - w->state.e[f]);
    double wanted = -STEP * rint((double)(top + bias) / STEP);
    if (!(wanted * all > 0)) /* the other direction, nothing, NaN */
        return 0.0f;
    return (float)(fabs(wanted) < fabs(all) ? wanted : all);
}

/* Exponents so large that they have no room for a few steps more or less. One of -FLT_MAX stands for no feature. */
static bool coarse_exponents(const fv_kz_call *call, const fv_kz_work *w)
{
    float largest = 0;
    for (int64_t f = 0; f < call->r; f++)
        largest = FV_MAX(largest, w->state.e[f] > -FLT_MAX ? fabsf(w->state.e[f]) : 0.0f);
    return largest > 0x1p22f;
}

double fv_kz_fade_exp2(const fv_kz_call *call, fv_kz_work *w, int64_t n, float *x)
{
    const fv_kernels *kr = call->kr;
    fv_kz_fade *fade = &w->fade;
    int64_t r = call->r;
    double largest = -HUGE_VAL;
    bool coarse = coarse_exponents(call, w);
    for (int64_t i = 0; i < n; i++) {
        w->bias[i] = fade->input[i] == 0.0f ? -INFINITY : w->bias[i];
        if (isinf(fade->power[i]) || (coarse && fabs(fade->power[i]) > FADE)) {
            w->bias[i] += (float)fade->power[i];
            fade->power[i] = 0;
        }
        fade->whole[i] = coarse ? 0.0f : whole_steps(call, w, x + i * r, w->bias[i], fade->power[i]);
        fade->weight[i] = (float)((double)fade->input[i] * exp2(fade->power[i] - (double)fade->whole[i]));
    }
    for (int64_t i = 0, end; i < n; i = end) {
        double rest = -HUGE_VAL;
        for (end = i; end < n && fade->whole[end] == fade->whole[i]; end++)
            rest = FV_MAX(rest, fade->power[end] - (double)fade->whole[i]);
        /* On the exponents, not on the bias: added to that it would round. */
        for (int64_t f = 0; f < r; f++)
            w->factor[f] = w->state.e[f] - fade->whole[i];
        float top = kr->exp2_rows(end - i, r, x + i * r, r, w->bias + i, w->factor);
        largest = FV_MAX(largest, (double)top + rest);
    }
    return largest;
}

int64_t fv_kz_fade_chunk(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    fv_kz_fade *fade = &w->fade;
    double lambda = 0;
    int64_t fit = 0;
    while (fit < n) {
        double log2_f = fv_kz_fade_of(call, h, begin + fit, &fade->input[fit]);
        if (fit == 0)
            fade->first = log2_f;
        else
            lambda += log2_f;
        if (!(lambda >= -FADE)) /* a NaN begins a chunk too */
            break;
        fade->lambda[fit] = lambda;
        fade->power[fit] = -lambda;
        fade->weight[fit] = (float)((double)fade->input[fit] * exp2(-lambda));
        fade->shrink[fit++] = (float)exp2(lambda);
    }
    for (int64_t t = fit; t < n; t++) {
        fade->weight[t] = 0.0f;
        fade->shrink[t] = 1.0f;
    }
    return fit;
}

/* ---- exponents --------------------------------------------------------------------------------------- */

/* 2^x that a row of zeros survives; NaN stays. */
static float bounded_factor(double x)
{
    double factor = exp2(x);
    return (float)(factor > LARGEST ? LARGEST : factor);
}

/* Whether no key had feature f. */
static bool row_is_empty(const fv_kz_call *call, const fv_kz_state *state, int64_t f)
{
    return fv_kz_row_is_empty(call->kr, call->dv, state->S + f * call->dv, state->z[f]);
}

/* Chooses the chunk's exponents, E_f, from the state's and the first key's log2-features u + bias; fade.shift =
 * e - E, state.e = E. */
static void choose_exponents(const fv_kz_call *call, fv_kz_work *w, const float *u, float bias)
{
    fv_kz_state *state = &w->state;
    bool hidden = w->fade.input[0] == 0.0f, nothing = true;
    float input = w->fade.input[0] > 0.0f ? log2f(w->fade.input[0]) : 0.0f;
    for (int64_t f = 0; f < call->r && nothing; f++)
        nothing = row_is_empty(call, state, f);
    for (int64_t f = 0; f < call->r; f++) {
        float old = state->e[f];
        bool empty = row_is_empty(call, state, f);
        double sinks = isnan(w->fade.first) ? 0.0 : floor(-w->fade.first);
        float sunk = fv_kz_exponent((float)((double)old - sinks), old);
        /* A key that is kept out raises nothing; before any other one its exponents serve the gradient of its gate. */
        float first = hidden && !nothing ? -FLT_MAX : fv_kz_exponent(u[f] + bias + input, sunk);
        state->e[f] = empty ? first : FV_MAX(sunk, first);
        /* Where the state alone sinks it stays as large as it is, though its exponent be rounded. */
        w->fade.shift[f] = empty || first >= sunk ? old - state->e[f] : (float)sinks;
    }
}

void fv_kz_fade_enter(const fv_kz_call *call, fv_kz_work *w, const fv_kz_state *before, const float *shift)
{
    const fv_kernels *kr = call->kr;
    for (int64_t f = 0; f < call->r; f++)
        w->factor[f] = bounded_factor((double)shift[f] + w->fade.first);
    kr->scale_rows(call->r, call->dv, w->factor, before->S, call->dv, 0, w->state.S, call->dv);
    kr->mul(call->r, before->z, w->factor, w->state.z);
    if (w->state.e != before->e)
        kr->copy_rows(1, call->r, before->e, call->r, w->state.e, call->r);
}

int64_t fv_kz_fade_keys(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    const fv_kernels *kr = call->kr;
    const fv_kz_fade *fade = &w->fade;
    int64_t r = call->r, fit = fv_kz_fade_chunk(call, h, w, begin, n);
    /* Keys that a gate of 1 keeps out say nothing of the size of those behind them. */
    for (int64_t i = 1; i < fit && fade->input[0] == 0.0f; i++)
        fit = fade->input[i] != 0.0f ? i : fit;
    choose_exponents(call, w, w->k, w->bias[0]);
    double largest = fv_kz_fade_exp2(call, w, fit, w->k);
    fv_kz_fade_enter(call, w, &w->state, fade->shift);
    kr->scale_rows(fit, r, fade->weight, w->k, r, 0, w->k, r);
    kr->fill((n - fit) * r, 0.0f, w->k + fit * r);
    if (largest > FV_KZ_LIMIT)
        fit = fv_kz_cut(call, w, fit);
    if (fv_kz_has_coefficients(call, w))
        kr->mul(fit * r, w->k, w->c, w->k);
    return fit;
}

void fv_kz_fade_leave(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    double lambda = w->fade.lambda[n - 1];
    w->state.decayed += w->fade.first + lambda;
    fv_kz_settle(call, w, lambda);
}

/* ---- backward ---------------------------------------------------------------------------------------- */

double fv_kz_state_product(const fv_kz_call *call, fv_kz_work *w, const fv_kz_state *state,
                           const fv_kz_state *grad)
{
    float *dots = w->fade.dots;
    call->kr->mul(call->r, state->z, grad->z, dots);
    call->kr->row_dots(call->r, call->dv, 1.0f, state->S, call->dv, grad->S, call->dv, 1.0f, dots);
    return call->kr->sum(call->r, dots);
}

/* Sum over f of 2^(shift_f + log2_factor) (<S_f, G_f> + z_f c_f), w->fade.dots holding the products. */
static double entering(const fv_kz_call *call, const fv_kz_work *w, const float *shift, double log2_factor)
{
    double sum = 0;
    for (int64_t f = 0; f < call->r; f++)
        if (w->fade.dots[f] != 0.0f)
            sum += exp2((double)shift[f] + log2_factor) * (double)w->fade.dots[f];
    return sum;
}

/* Token t of the chunk: its gate, as a factor, has the gradient by_gate; the decay by_decay through it. */
static void add_gradient(const fv_kz_call *call, const fv_kz_head *h, fv_kz_fade *fade, int64_t begin,
                         int64_t t, double by_gate, double by_decay)
{
    fade->sum_decay += by_decay;
    if (h->d_gate == NULL)
        return;
    double by_input = (double)fade->pull[t] / (fade->input[t] == 0.0f ? 1.0 : (double)fade->input[t]);
    h->d_gate[(begin + t) * call->H] += (float)(by_gate - by_input);
}

/* The product of a gradient with features that may be beyond floats where it is 0. */
static double seen_product(int64_t r, const float *t, const float *phi)
{
    double sum = 0;
    for (int64_t f = 0; f < r; f++)
        sum += t[f] != 0.0f ? (double)t[f] * (double)phi[f] : 0.0;
    return sum;
}

void fv_kz_fade_unseen(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    fv_kz_fade *fade = &w->fade;
    float *phi = w->kt;
    bool unseen = false;
    for (int64_t i = 0; i < n && h->d_gate != NULL; i++) {
        unseen |= fade->input[i] == 0.0f;
        fade->input[i] = fade->input[i] == 0.0f ? 1.0f : fade->input[i];
    }
    if (!unseen)
        return;
    fv_rows rows = fv_kz_rows(call, h, true, begin, n);
    fv_kz_logits(call, h, w, &rows, phi, w->c, NULL, w->bias);
    (void)fv_kz_fade_exp2(call, w, n, phi);
    if (fv_kz_has_coefficients(call, w))
        call->kr->mul(n * call->r, phi, w->c, phi);
    for (int64_t i = 0; i < n; i++) {
        (void)fv_kz_fade_of(call, h, begin + i, &fade->input[i]);
        if (fade->input[i] == 0.0f)
            fade->pull[i] =
                fade->weight[i] * (float)seen_product(call->r, w->t + i * call->r, phi + i * call->r);
    }
}

void fv_kz_fade_gradient(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n,
                         const fv_kz_state *before, const float *shift, double through)
{
    fv_kz_fade *fade = &w->fade;
    double decay = h->decay != NULL ? (double)*h->decay : 1.0, rows = 0, keys = 0;
    /* Keys before each token, then rows from it on: sums of what straddles it, nothing taken away again. */
    for (int64_t t = 0; t < n; t++) {
        double left = (double)fade->left[t];
        fade->left[t] = (float)keys;
        keys += left;
    }
    for (int64_t t = n - 1; t > 0; t--) {
        double gate = h->gate != NULL ? (double)h->gate[(begin + t) * call->H] : 1.0;
        rows += (double)fade->seen[t];
        double by_log = (double)fade->pairs[t] + rows + (double)fade->left[t] + through;
        add_gradient(call, h, fade, begin, t, by_log / gate, by_log / decay);
    }
    double log2_decay = h->decay != NULL ? log2_factor(*h->decay) : 0.0;
    double log2_gate = h->gate != NULL ? log2_factor(h->gate[begin * call->H]) : 0.0;
    (void)fv_kz_state_product(call, w, before, &w->grad);
    add_gradient(call, h, fade, begin, 0, entering(call, w, shift, log2_decay),
                 entering(call, w, shift, log2_gate));
}
