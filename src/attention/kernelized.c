/* kernelized.c: memory, the state, and the pieces that forward, backward, step and weights share. The mathematics stands in
 * kernelized.h. */
#include "attention/kernelized_window.h"
#include "features/hadamard.h"
#include "features/projection.h"
#include <math.h>
#include <string.h>

fv_status fv_kz_check(fv_attention *op)
{
    fv_attention_options *o = &op->options;
    const fv_feature_map *map = op->mechanism->map;
    if (o->projection == FV_PROJECTION_DEFAULT)
        o->projection = map->generalized || map->unprojected ? FV_PROJECTION_NONE : FV_PROJECTION_ORTHOGONAL;
    if (o->projection == FV_PROJECTION_NONE && !map->generalized && !map->unprojected)
        return fv_fail(op->ctx, FV_ERR_USAGE,
                       "attention %s: projection none is for the generalized maps; choose iid or "
                       "orthogonal",
                       o->kind);
    TRY(fv_projection_check(op->ctx, (int)o->projection, o->dim));
    if (o->epsilon < 0)
        o->epsilon = 1e-3;
    if (o->denominator == FV_DENOMINATOR_DEFAULT) {
        o->denominator = map->can_be_negative ? FV_DENOMINATOR_SIGN : FV_DENOMINATOR_NONE;
        o->denominator_value = map->can_be_negative ? 1e-3 : 0;
    }
    if (o->features == 0) {
        double needed = ceil((double)o->dim * log((double)o->dim));
        o->features = FV_MAX(16, ((int64_t)needed + 15) / 16 * 16);
    }
    if (map->check != NULL)
        TRY(map->check(map, op->ctx, o));
    op->m = o->projection == FV_PROJECTION_NONE && !map->own_rows ? o->dim : o->features;
    op->r = map->feature_count(o, op->m);
    return FV_OK;
}

/* ---- memory ------------------------------------------------------------------------------------------- */

int64_t fv_kz_state_floats(const fv_kz_call *call)
{
    return call->r * (call->dv + 2);
}

int64_t fv_kz_slot_count(const fv_kz_call *call, int64_t n)
{
    if (!call->op->options.causal)
        return n >= FV_KZ_KEEP;
    return n > 0 ? (n - 1) / (call->C * FV_KZ_SEGMENT) : 0;
}

fv_kz_state fv_kz_state_push(const fv_kz_call *call, fv_arena *arena)
{
    fv_kz_state state = {.S = FV_PUSH(arena, float, call->r * call->dv)};
    state.z = FV_PUSH(arena, float, call->r);
    state.e = FV_PUSH(arena, float, call->r);
    return state;
}

static fv_kz_work carve_work(const fv_kz_call *call, fv_arena *arena, bool backward)
{
    int64_t C = call->C, r = call->r, dv = call->dv;
    fv_kz_work w = {0};
    w.q = FV_PUSH(arena, float, C *r);
    w.k = FV_PUSH(arena, float, C *r);
    w.kt = FV_PUSH(arena, float, r *C);
    w.a = FV_PUSH(arena, float, C *C);
    w.v = FV_PUSH(arena, float, C *dv);
    float **rows[] = {&w.bias, &w.top, &w.den, &w.inv, &w.pass, &w.rho, &w.sums};
    for (int i = 0; i < FV_COUNT(rows); i++)
        *rows[i] = FV_PUSH(arena, float, C);
    w.ones = FV_PUSH(arena, float, FV_MAX(C, r));
    w.visible = FV_PUSH(arena, int64_t, C);
    w.factor = FV_PUSH(arena, float, r);
    w.state = w.own = fv_kz_state_push(call, arena);
    const fv_feature_map *map = call->op->mechanism->map;
    w.statistics = FV_PUSH(arena, float, call->statistics_floats);
    w.product = FV_PUSH(arena, float, fv_map_work_floats(&call->map));
    if (map->coefficients || call->plain)
        w.c = FV_PUSH(arena, float, C *r);
    if (call->plain)
        fv_kz_wide_carve(call, arena, &w.wide);
    if (call->biased)
        fv_kz_bias_carve(call, arena, &w.rpe, backward);
    if (call->decaying)
        fv_kz_fade_carve(call, arena, &w.fade, backward);
    if (backward) {
        if (map->coefficients || call->plain)
            w.gc = FV_PUSH(arena, float, C *r);
        w.dump = FV_PUSH(arena, float, C * call->d);
        w.t = FV_PUSH(arena, float, C *r);
        w.tmp =
            FV_PUSH(arena, float, map->tmp_floats != NULL ? map->tmp_floats(&call->map, C) : C * r + C + r);
        w.p = FV_PUSH(arena, float, C *C);
        w.g = FV_PUSH(arena, float, C *dv);
        w.grad = fv_kz_state_push(call, arena);
        if (call->op->options.causal)
            w.ring = FV_PUSH(arena, float,
                             FV_KZ_SEGMENT *(fv_kz_state_floats(call) + C * r + (call->decaying ? r : 0)));
    }
    return w;
}

void fv_kz_carve(fv_kz_call *call, fv_arena *arena, bool backward)
{
    const fv_attention *op = call->op;
    call->steps = FV_PUSH(arena, int64_t, call->layout->sequences + 1);
    call->prepared = FV_PUSH(arena, float, call->H * call->prepared_floats);
    call->slots = FV_PUSH(arena, int64_t, call->layout->sequences + 1);
    fv_kz_fft_carve(call, arena, backward);
    fv_kz_window_carve(call, arena, backward);
    fv_arena one = fv_arena_measure();
    (void)carve_work(call, &one, backward);
    call->work_bytes = one.used;
    call->work = fv_arena_push(arena, op->ctx->threads, one.used);
}

fv_kz_work fv_kz_worker(const fv_kz_call *call, int worker, bool backward)
{
    fv_arena arena = fv_arena_over(call->work + (size_t)worker * call->work_bytes, call->work_bytes);
    fv_kz_work w = carve_work(call, &arena, backward);
    fv_kz_fft_worker(call, worker, backward, &w.fft);
    call->kr->fill(FV_MAX(call->C, call->r), 1.0f, w.ones);
    for (int64_t i = 0; i < call->C; i++)
        w.visible[i] = i + 1;
    w.wide.from = FV_KZ_NEVER;
    return w;
}

static fv_kz_call describe(const fv_attention *op, const fv_layout *layout, bool tokenwise)
{
    const fv_attention_options *o = &op->options;
    fv_kz_call call = {.op = op, .kr = op->ctx->kernels, .layout = layout};
    call.H = o->heads, call.G = o->kv_heads, call.d = o->dim, call.dv = o->value_dim, call.r = op->r;
    call.decaying = o->gate || o->decay;
    call.biased = o->position_bias == FV_POSITION_BIAS_KERNEL;
    call.plain = !op->mechanism->map->exponential;
    int64_t chunk = call.biased ? FV_KZ_BIAS_TILE : o->causal ? FV_KZ_CHUNK : FV_KZ_TILE;
    if (o->chunk > 0)
        chunk = o->chunk;
    call.C = FV_MIN(chunk, FV_KZ_CHUNK_MAX);
    const fv_feature_map *map = op->mechanism->map;
    call.map = (fv_map_params){.map = map,
                               .kernels = call.kr,
                               .options = o,
                               .d = o->dim,
                               .m = op->m,
                               .r = op->r,
                               .scale = (float)o->scale,
                               .epsilon = (float)o->epsilon,
                               .projected = o->projection != FV_PROJECTION_NONE,
                               .single = tokenwise,
                               .hadamard = o->projection == FV_PROJECTION_HADAMARD && !tokenwise &&
                                           !o->trainable_projection && o->dim >= FV_HADAMARD_LEAST};
    if (map->prepared_floats != NULL)
        call.prepared_floats = map->prepared_floats(&call.map);
    else
        call.prepared_floats = call.map.projected ? fv_map_rows_floats(&call.map, op->m) : 0;
    call.statistics_floats = map->statistics_floats != NULL ? map->statistics_floats(&call.map) : 0;
    return call;
}

/* Of wide_from. Decaying calls are wide throughout. */
static size_t wide_bytes(const fv_kz_call *call)
{
    bool may_turn = call->plain && !call->decaying;
    return may_turn ? fv_bytes(call->layout->sequences * call->H, sizeof(int64_t)) : 0;
}

void fv_kz_measure(const fv_attention *op, const fv_layout *layout, fv_memory *need)
{
    fv_kz_call call = describe(op, layout, true);
    fv_arena step = fv_arena_measure(), arena = fv_arena_measure();
    fv_kz_carve(&call, &step, true);
    call = describe(op, layout, false);
    fv_kz_carve(&call, &arena, true);
    need->scratch = FV_MAX(step.used, arena.used);
    const int64_t *offsets = fv_layout_keys(layout);
    int64_t slots = 0;
    for (int64_t s = 0; s < layout->sequences; s++)
        slots += fv_kz_slot_count(&call, offsets[s + 1] - offsets[s]);
    if (call.biased) {
        need->saved = fv_kz_bias_saved(&call, layout->offsets_q[layout->sequences]);
        return;
    }
    size_t states = fv_bytes(slots * call.H * fv_kz_state_floats(&call), sizeof(float));
    need->saved = fv_add_bytes(wide_bytes(&call), states);
}

static void prepare_head(void *arg, int64_t head, int worker)
{
    const fv_kz_call *call = arg;
    fv_kz_head h = fv_kz_head_of(call, -1, head);
    h.map.work = fv_kz_worker(call, worker, false).product;
    call->op->mechanism->map->prepare(&h.map, call->prepared + head * call->prepared_floats);
}

void fv_kz_begin(fv_kz_call *call, const fv_attention *op, const fv_layout *layout, bool tokenwise,
                 const fv_attention_io *io, const fv_attention_grad *grad, void *saved, void *scratch)
{
    *call = describe(op, layout, tokenwise);
    call->io = io;
    call->grad = grad;
    size_t front = call->biased || saved == NULL ? 0 : wide_bytes(call);
    call->wide_from = front > 0 ? saved : NULL;
    call->saved = saved != NULL ? (float *)(void *)((char *)saved + front) : NULL;
    call->ldq = io->q_stride > 0 ? io->q_stride : call->H * call->d;
    call->ldk = io->k_stride > 0 ? io->k_stride : call->G * call->d;
    call->ldv = io->v_stride > 0 ? io->v_stride : call->G * call->dv;
    call->ldy = io->y_stride > 0 ? io->y_stride : call->H * call->dv;
    fv_arena arena = fv_arena_over(scratch, SIZE_MAX);
    fv_kz_carve(call, &arena, grad != NULL);
    const int64_t *offsets = fv_layout_keys(layout);
    call->slots[0] = 0;
    for (int64_t s = 0; s < layout->sequences; s++)
        call->slots[s + 1] = call->slots[s] + fv_kz_slot_count(call, offsets[s + 1] - offsets[s]);
    for (int i = 0; grad != NULL && i < FV_INPUT_COUNT; i++)
        call->by_head |=
            grad->d_input[i] != NULL && i != FV_INPUT_GATE; /* a token's gate has one task anyway */
    call->fade_gradient =
        grad != NULL && (grad->d_input[FV_INPUT_GATE] != NULL || grad->d_input[FV_INPUT_DECAY] != NULL);
    fv_kz_window_share(call);
    if (call->prepared_floats > 0)
        fv_parallel(op->ctx, call->H, prepare_head, call);
}

fv_kz_head fv_kz_head_of(const fv_kz_call *call, int64_t sequence, int64_t head)
{
    const fv_attention *op = call->op;
    const fv_attention_io *io = call->io;
    int64_t kv = head * call->G / call->H;
    fv_kz_head h = {.head = head, .sequence = sequence, .map = call->map};
    for (int i = 0; i < FV_INPUT_COUNT; i++) {
        fv_input_info info;
        if (!fv_attention_input(op, (fv_input)i, &info) || !info.heads_first)
            continue;
        int64_t at = info.floats / call->H * head;
        if (io->input[i] != NULL)
            h.map.input[i] = io->input[i] + at;
        if (call->grad != NULL && call->grad->d_input[i] != NULL)
            h.map.d_input[i] = call->grad->d_input[i] + at;
    }
    h.map.w = h.map.input[FV_INPUT_PROJECTION];
    h.map.prepared = call->prepared + head * call->prepared_floats;
    if (sequence < 0)
        return h;
    const int64_t *keys = fv_layout_keys(call->layout);
    int64_t q0 = call->layout->offsets_q[sequence], k0 = keys[sequence];
    h.nq = call->layout->offsets_q[sequence + 1] - q0;
    h.nk = keys[sequence + 1] - k0;
    h.q = io->q != NULL ? io->q + q0 * call->ldq + head * call->d : NULL;
    h.k = io->k != NULL ? io->k + k0 * call->ldk + kv * call->d : NULL;
    h.v = io->v != NULL ? io->v + k0 * call->ldv + kv * call->dv : NULL;
    h.y = io->y != NULL ? io->y + q0 * call->ldy + head * call->dv : NULL;
    const fv_attention_grad *grad = call->grad;
    h.decay = h.map.input[FV_INPUT_DECAY];
    if (io->input[FV_INPUT_GATE] != NULL)
        h.gate = io->input[FV_INPUT_GATE] + k0 * call->H + head;
    if (grad != NULL) {
        if (grad->d_input[FV_INPUT_GATE] != NULL)
            h.d_gate = grad->d_input[FV_INPUT_GATE] + k0 * call->H + head;
        h.dy = grad->dy + q0 * call->ldy + head * call->dv;
        h.dq = grad->dq != NULL ? grad->dq + q0 * call->ldq + head * call->d : NULL;
        h.dk = grad->dk != NULL ? grad->dk + k0 * call->ldk + kv * call->d : NULL;
        h.dv = grad->dv != NULL ? grad->dv + k0 * call->ldv + kv * call->dv : NULL;
    }
    return h;
}

fv_rows fv_kz_rows(const fv_kz_call *call, const fv_kz_head *h, bool key, int64_t begin, int64_t n)
{
    int64_t ld = key ? call->ldk : call->ldq, fixed = call->op->options.max_tokens;
    return (fv_rows){.n = n,
                     .x = (key ? h->k : h->q) + begin * ld,
                     .ldx = ld,
                     .key = key,
                     .first = (key ? h->first_k : h->first_q) + begin,
                     .longest = fixed > 0 ? fixed : FV_MAX(h->nq, h->nk)};
}

void fv_kz_take_on(const fv_kz_call *call, fv_kz_head *h, fv_kz_work *w)
{
    const fv_feature_map *map = call->op->mechanism->map;
    h->map.work = w->product;
    if (map->measure == NULL)
        return;
    map->measure(&h->map, h->nq, h->q, call->ldq, h->nk, h->k, call->ldk, w->statistics);
    h->map.statistics = w->statistics;
}

/* ---- state -------------------------------------------------------------------------------------------- */

void fv_kz_state_clear(const fv_kz_call *call, fv_kz_state *state)
{
    call->kr->fill(call->r * call->dv, 0.0f, state->S);
    call->kr->fill(call->r, 0.0f, state->z);
    call->kr->fill(call->r, 0.0f, state->e);
    state->tokens = 0;
    state->decayed = 0;
}

void fv_kz_state_save(const fv_kz_call *call, const fv_kz_state *state, float *to)
{
    size_t s = (size_t)(call->r * call->dv), r = (size_t)call->r;
    memcpy(to, state->S, s * sizeof *to);
    memcpy(to + s, state->z, r * sizeof *to);
    memcpy(to + s + r, state->e, r * sizeof *to);
}

void fv_kz_state_load(const fv_kz_call *call, fv_kz_state *state, const float *from, int64_t tokens)
{
    size_t s = (size_t)(call->r * call->dv), r = (size_t)call->r;
    memcpy(state->S, from, s * sizeof *from);
    memcpy(state->z, from + s, r * sizeof *from);
    memcpy(state->e, from + s + r, r * sizeof *from);
    state->tokens = tokens;
}

void fv_kz_state_copy(const fv_kz_call *call, const fv_kz_state *from, int64_t n, fv_kz_state *to)
{
    const fv_kernels *kr = call->kr;
    kr->copy_rows(1, n * call->dv, from->S, n * call->dv, to->S, n * call->dv);
    kr->copy_rows(1, n, from->z, n, to->z, n);
    kr->copy_rows(1, n, from->e, n, to->e, n);
    to->tokens = from->tokens;
    to->decayed = from->decayed;
}

void fv_kz_rescale(const fv_kz_call *call, fv_kz_state *state, int64_t n, const float *factor)
{
    call->kr->scale_rows(n, call->dv, factor, state->S, call->dv, 0, state->S, call->dv);
    call->kr->mul(n, state->z, factor, state->z);
}

void fv_kz_state_add(const fv_kz_call *call, fv_kz_state *state, int64_t r, int64_t n, const float *phi,
                     const float *w, const float *x, int64_t ldx)
{
    call->kr->gemm('T', 'N', r, call->dv, n, 1.0f, phi, call->r, x, ldx, 1.0f, state->S, call->dv);
    call->kr->add_col_sums(n, r, w, phi, call->r, state->z);
}

void fv_kz_absorb(const fv_kz_call *call, const fv_kz_head *h, fv_kz_work *w, int64_t begin, int64_t n)
{
    fv_kz_state_add(call, &w->state, call->r, n, w->k, NULL, h->v + begin * call->ldv, call->ldv);
    w->state.tokens += n;
    if (call->decaying)
        fv_kz_fade_leave(call, w, n);
    else if (fv_kz_lowers(call, w))
        fv_kz_lower(call, &w->state, call->r, w->factor);
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

void fv_kz_scores(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    const fv_kernels *kr = call->kr;
    int64_t r = call->r, C = call->C;
    /* Transposed once: products of few rows with an untransposed factor run at twice the rate. */
    kr->transpose(n, r, w->k, r, w->kt, C);
    for (int64_t a = 0; a < n; a += FV_KZ_STRIP) {
        int64_t b = FV_MIN(a + FV_KZ_STRIP, n);
        kr->gemm('N', 'N', b - a, b, r, 1.0f, w->q + a * r, r, w->kt, C, 0.0f, w->a + a * C, C);
        kr->mask_rows(b - a, b, w->visible + a, w->a + a * C, C);
        kr->row_dots(b - a, b, 1.0f, w->a + a * C, C, w->ones, 0, 1.0f, w->den + a);
    }
}

/* The guard of one normaliser D, x being the guard's constant on D's scale: sets *inv = 1/D' and *pass =
 * dD'/dD. */
static void guard(fv_denominator kind, float D, float x, float *inv, float *pass)
{
    float kept = D;
    *pass = 1.0f;
    if (kind == FV_DENOMINATOR_ADD)
        kept = D + x;
    if ((kind == FV_DENOMINATOR_CLAMP && D <= x) || (kind == FV_DENOMINATOR_ABS && fabsf(D) <= x)) {
        kept = x;
        *pass = 0.0f;
    } else if (kind == FV_DENOMINATOR_ABS && D < 0) {
        kept = -D;
        *pass = -1.0f;
    } else if (kind == FV_DENOMINATOR_SIGN && fabsf(D) <= x) {
        kept = D < 0 ? -x : x;
        *pass = 0.0f;
    }
    *inv = kept == 0.0f ? 0.0f : 1.0f / kept;
}

void fv_kz_normalise(const fv_kz_call *call, fv_kz_work *w, int64_t n)
{
    const fv_attention_options *o = &call->op->options;
    const fv_feature_map *map = call->op->mechanism->map;
    const float outside = map->unit != NULL ? (float)map->unit(&call->map) : 1.0f;
    const bool logs = fv_kz_logs(call, w);
    for (int64_t i = 0; i < n; i++) {
        /* The true normaliser is den times unit: the query's stripped scale and the map's factor. */
        float unit = outside;
        if (logs && o->denominator != FV_DENOMINATOR_NONE)
            unit *= exp2f(w->top[i] + w->bias[i]);
        if (call->decaying)
            unit *= w->fade.shrink[i];
        if (o->denominator == FV_DENOMINATOR_OFF) {
            w->inv[i] = unit;
            w->pass[i] = 0.0f;
        } else {
            /* The unit may underflow; a constant of 0 stays 0 all the same. */
            float x = o->denominator_value > 0 ? (float)o->denominator_value / unit : 0.0f;
            guard(o->denominator, w->den[i], x, &w->inv[i], &w->pass[i]);
        }
    }
}

double fv_kz_flop(const fv_attention *op, const fv_layout *layout)
{
    double nq = (double)layout->offsets_q[layout->sequences];
    double nk = (double)fv_layout_keys(layout)[layout->sequences];
    double features =
        op->options.projection == FV_PROJECTION_NONE ? 0 : 2.0 * (double)(op->m * op->options.dim);
    double state = 2.0 * (double)(op->r * op->options.value_dim);
    return (double)op->options.heads * (nq + nk) * (features + state);
}
