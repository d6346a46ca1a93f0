/* around_steps.c: the steps around a mechanism, each with its backward.
 *
 *   ppSBN (Guo et al. 2024, arXiv 2408.11656), before: x = (x - mean) / sqrt(var + 1e-12), then unit length, which
 *     leaves (x - mean) / |x - mean|; equal channels give 0. Behind: y = gamma_h sign(u) |u|^beta_hc.
 *   Rotary positions (Su et al. 2021, arXiv 2104.09864): channels c and c + d/2 are a complex number turned by
 *     p base^(-2c/d) at position p. Angles in double: a task of TILE tokens takes sines at its first token and of
 *     one step, and multiplies.
 *
 * Cost O(1) a float. ppSBN's gradients of gamma and beta are summed by one task a head, tokens in order. */
#include "attention/around_steps.h"
#include <math.h>

enum { TILE = 64 };

/* ---- rotation ---------------------------------------------------------------------------------------- */

/* Factors of the token in hand and of a step, [d/2] each. */
typedef struct turn {
    int64_t half;
    double *re, *im, *step_re, *step_im;
    float *cosine, *sine;
} turn;

static turn carve_turn(const fv_attention_options *o, fv_arena *arena)
{
    int64_t half = o->rotary ? o->dim / 2 : 0;
    turn t = {.half = half};
    t.re = FV_PUSH(arena, double, half);
    t.im = FV_PUSH(arena, double, half);
    t.step_re = FV_PUSH(arena, double, half);
    t.step_im = FV_PUSH(arena, double, half);
    t.cosine = FV_PUSH(arena, float, half);
    t.sine = FV_PUSH(arena, float, half);
    return t;
}

size_t fv_around_turn_bytes(const fv_attention_options *o)
{
    fv_arena arena = fv_arena_measure();
    carve_turn(o, &arena);
    return arena.used;
}

static void turn_to(turn *t, const fv_attention_options *o, int64_t position)
{
    double base = o->rotary_base > 0 ? o->rotary_base : 10000.0;
    for (int64_t c = 0; c < t->half; c++) {
        double rate = pow(base, -(double)c / (double)t->half);
        t->re[c] = cos((double)position * rate), t->im[c] = sin((double)position * rate);
        t->step_re[c] = cos(rate), t->step_im[c] = sin(rate);
    }
}

/* Leaves the factors of the token in cosine and sine, and moves on. */
static void turn_next(turn *t)
{
    for (int64_t c = 0; c < t->half; c++) {
        double re = t->re[c], im = t->im[c];
        t->cosine[c] = (float)re, t->sine[c] = (float)im;
        t->re[c] = re * t->step_re[c] - im * t->step_im[c];
        t->im[c] = re * t->step_im[c] + im * t->step_re[c];
    }
}

/* ---- before ------------------------------------------------------------------------------------------ */

/* q or k of the call. */
typedef struct side {
    const fv_around_call *c;
    bool apart;             /* positions begin at io.first_query, not behind what a state has seen */
    const int64_t *offsets; /* NULL: every token a stream of its own */
    int64_t tokens, heads, ldx;
    const float *x; /* the caller's */
    float *y, *inv; /* what the mechanism sees */
    float *dy, *dx; /* gradients: the mechanism's, the caller's */
} side;

static side side_of(const fv_around_call *c, bool key, const fv_attention_grad *grad)
{
    const fv_attention_options *o = &c->op->options;
    const fv_layout *l = c->layout;
    if (key)
        return (side){.c = c,
                      .offsets = l != NULL ? fv_layout_keys(l) : NULL,
                      .tokens = c->tk,
                      .heads = o->kv_heads,
                      .ldx = c->ldk,
                      .x = c->io.k,
                      .y = c->k,
                      .inv = c->inv_k,
                      .dy = c->dk,
                      .dx = grad != NULL ? grad->dk : NULL};
    return (side){.c = c,
                  .apart = c->io.state != NULL && !o->causal,
                  .offsets = l != NULL ? l->offsets_q : NULL,
                  .tokens = c->tq,
                  .heads = o->heads,
                  .ldx = c->ldq,
                  .x = c->io.q,
                  .y = c->q,
                  .inv = c->inv_q,
                  .dy = c->dq,
                  .dx = grad != NULL ? grad->dq : NULL};
}

static int64_t position_of(const side *s, int64_t token)
{
    if (s->offsets == NULL)
        return s->c->first[token];
    int64_t n = fv_offsets_locate(s->offsets, s->c->layout->sequences, token);
    return (s->apart ? s->c->io.first_query : s->c->first[n]) + token - s->offsets[n];
}

static void forward_token(const side *s, const turn *t, int64_t token)
{
    const fv_attention_options *o = &s->c->op->options;
    int64_t d = o->dim, at = token * s->heads * d;
    const float *x = s->x + token * s->ldx;
    if (o->ppsbn) {
        s->c->kr->unit_rows(s->heads, d, x, d, s->y + at, d, s->inv + token * s->heads);
        x = s->y + at;
    }
    if (o->rotary)
        s->c->kr->turn_rows(s->heads, t->half, t->cosine, t->sine, 0, x, d, 0, s->y + at, d);
}

/* dx += through both; without ppSBN the rotation adds, with it dy is turned in place, and y back to what ppSBN
 * gave. */
static void backward_token(const side *s, const turn *t, int64_t token)
{
    const fv_attention_options *o = &s->c->op->options;
    const fv_kernels *kr = s->c->kr;
    int64_t d = o->dim, at = token * s->heads * d;
    float *dx = s->dx + token * s->ldx, *dy = s->dy + at, *y = s->y + at;
    if (!o->ppsbn) {
        kr->turn_rows(s->heads, t->half, t->cosine, t->sine, 1, dy, d, 1, dx, d);
        return;
    }
    if (o->rotary) {
        kr->turn_rows(s->heads, t->half, t->cosine, t->sine, 1, dy, d, 0, dy, d);
        kr->turn_rows(s->heads, t->half, t->cosine, t->sine, 1, y, d, 0, y, d);
    }
    kr->unit_rows_back(s->heads, d, y, d, s->inv + token * s->heads, dy, d, dx, d);
}

static void tile_task(const side *s, int64_t index, int worker, bool backward)
{
    const fv_attention_options *o = &s->c->op->options;
    size_t bytes = fv_around_turn_bytes(o);
    fv_arena arena = fv_arena_over(s->c->turn + (size_t)worker * bytes, bytes);
    turn t = carve_turn(o, &arena);
    int64_t expected = -1, end = FV_MIN((index + 1) * TILE, s->tokens);
    for (int64_t token = index * TILE; token < end; token++) {
        int64_t position = position_of(s, token);
        if (position != expected || position % TILE == 0) /* what a tile holds must not matter */
            turn_to(&t, o, position / TILE * TILE);
        for (int64_t p = position / TILE * TILE; position != expected && p < position; p++)
            turn_next(&t);
        turn_next(&t);
        expected = position + 1;
        if (backward)
            backward_token(s, &t, token);
        else
            forward_token(s, &t, token);
    }
}

static void forward_tile(void *arg, int64_t index, int worker)
{
    tile_task(arg, index, worker, false);
}

static void backward_tile(void *arg, int64_t index, int worker)
{
    tile_task(arg, index, worker, true);
}

static void run_side(side s, fv_task *task, bool wanted)
{
    if (wanted)
        fv_parallel(s.c->op->ctx, (s.tokens + TILE - 1) / TILE, task, &s);
}

void fv_around_before(const fv_around_call *c)
{
    side q = side_of(c, false, NULL), k = side_of(c, true, NULL);
    run_side(q, forward_tile, c->before);
    run_side(k, forward_tile, c->before && k.x != NULL);
}

void fv_around_before_back(const fv_around_call *c, const fv_attention_grad *grad)
{
    side q = side_of(c, false, grad), k = side_of(c, true, grad);
    run_side(q, backward_tile, c->before && q.dx != NULL);
    run_side(k, backward_tile, c->before && k.dx != NULL && k.x != NULL);
}

/* ---- behind ------------------------------------------------------------------------------------------ */

/* gamma of a head, and the row of its beta. */
static float gain_of(const fv_around_call *c, int64_t h)
{
    const float *gamma = c->io.input[FV_INPUT_PPSBN_GAMMA];
    return gamma != NULL ? gamma[h] : 1.0f;
}

static const float *power_of(const fv_around_call *c, int64_t h)
{
    const float *beta = c->io.input[FV_INPUT_PPSBN_BETA];
    return beta != NULL ? beta + h * c->op->options.value_dim : NULL;
}

static void after_tile(void *arg, int64_t index, int worker)
{
    const fv_around_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    int64_t n = FV_MIN((int64_t)TILE, c->tq - index * TILE);
    (void)worker;
    for (int64_t h = 0; h < o->heads; h++) {
        float *y = c->io.y + index * TILE * c->ldy + h * o->value_dim;
        c->kr->power_rows(n, o->value_dim, gain_of(c, h), power_of(c, h), y, c->ldy, y, c->ldy);
    }
}

void fv_around_after(const fv_around_call *c)
{
    const float *const *input = c->io.input;
    if (c->op->options.ppsbn && (input[FV_INPUT_PPSBN_GAMMA] != NULL || input[FV_INPUT_PPSBN_BETA] != NULL))
        fv_parallel(c->op->ctx, (c->tq + TILE - 1) / TILE, after_tile, (void *)(uintptr_t)c);
}

typedef struct after_task {
    const fv_around_call *c;
    const fv_attention_grad *grad;
} after_task;

/* One head, tokens in order. */
static void after_back_head(void *arg, int64_t h, int worker)
{
    const after_task *task = arg;
    const fv_around_call *c = task->c;
    const fv_attention_options *o = &c->op->options;
    float *dgamma = task->grad->d_input[FV_INPUT_PPSBN_GAMMA];
    float *dbeta = task->grad->d_input[FV_INPUT_PPSBN_BETA];
    int64_t row = o->heads * o->value_dim, at = h * o->value_dim;
    (void)worker;
    for (int64_t t = 0; t < c->tq; t += TILE)
        c->kr->power_rows_back(FV_MIN((int64_t)TILE, c->tq - t), o->value_dim, gain_of(c, h), power_of(c, h),
                               c->u + t * row + at, row, task->grad->dy + t * c->ldy + at, c->ldy,
                               c->du + t * row + at, row, dgamma != NULL ? dgamma + h : NULL,
                               dbeta != NULL ? dbeta + at : NULL);
}

void fv_around_after_back(const fv_around_call *c, const fv_attention_grad *grad)
{
    after_task task = {c, grad};
    fv_parallel(c->op->ctx, c->op->options.heads, after_back_head, &task);
}
