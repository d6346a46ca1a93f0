/* support/toeplitz_call.c: see toeplitz_call.h. */
#include "support/toeplitz_call.h"
#include "support/problem.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

static float *random_floats(int64_t n, uint32_t which)
{
    fv_random random = fv_random_make(5, FV_RANDOM_TEST, which, 0);
    float *x = malloc((size_t)(n + 1) * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)fv_random_normal(&random);
    return x;
}

toeplitz_call *toeplitz_make(fv_context *ctx, const toeplitz_shape *s)
{
    toeplitz_call *c = calloc(1, sizeof *c);
    bool cross = false;
    for (int64_t n = 0; n < s->sequences; n++) {
        int64_t keys = s->keys[n] > 0 ? s->keys[n] : s->queries[n];
        c->oq[n + 1] = c->oq[n] + s->queries[n];
        c->ok[n + 1] = c->ok[n] + keys;
        cross |= keys != s->queries[n];
    }
    c->layout = (fv_layout){s->sequences, c->oq, cross ? c->ok : NULL};
    c->t = (fv_toeplitz){ctx,     &c->layout, s->heads,  s->kv_heads, s->width,
                         s->span, s->skip,    s->causal, s->raster};
    c->tq = c->oq[s->sequences], c->tk = c->ok[s->sequences];
    c->ldv = s->kv_heads * s->width + TOEPLITZ_PAD, c->ldy = s->heads * s->width + TOEPLITZ_PAD;
    c->weights = s->heads * (2 * s->span - 1);
    c->w = random_floats(c->weights, 1);
    c->v = random_floats(c->tk * c->ldv, 2);
    c->y = random_floats(c->tq * c->ldy, 3);
    c->dy = random_floats(c->tq * c->ldy, 4);
    c->dv = random_floats(c->tk * c->ldv, 5);
    c->dw = random_floats(c->weights, 6);
    return c;
}

void toeplitz_drop(toeplitz_call *c)
{
    float *all[] = {c->w, c->v, c->y, c->dy, c->dv, c->dw};
    for (int i = 0; i < FV_COUNT(all); i++)
        free(all[i]);
    free(c);
}

static void *scratch_of(const toeplitz_call *c, bool toeplitz_backward)
{
    size_t bytes = fv_toeplitz_scratch(&c->t, toeplitz_backward);
    void *memory = fv_alloc(c->t.ctx, bytes);
    assert_non_null(memory);
    memset(memory, 0xAA, bytes);
    return memory;
}

void toeplitz_forward(toeplitz_call *c)
{
    void *scratch = scratch_of(c, false);
    fv_toeplitz_forward(&c->t, c->w, c->v, c->ldv, c->y, c->ldy, scratch);
    fv_free(c->t.ctx, scratch);
}

void toeplitz_backward(toeplitz_call *c, float *dv, float *dw)
{
    void *scratch = scratch_of(c, true);
    fv_toeplitz_backward(&c->t, c->w, c->v, c->ldv, c->dy, c->ldy, dv, dw, scratch);
    fv_free(c->t.ctx, scratch);
}
