/* test_attention_long.c: few heads of many tokens on more threads than heads. Whoever computes them, the bits are those of one thread:
 * of every kind, with keys that cut chunks, numbers that leave the moderate range in the middle, other lengths beside,
 * states that go on, and gradients of inputs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "attention/kernelized_window.h"
#include "support/kinds.h"
#include "support/laws.h"
#include "support/one_context.h"
#include <stdlib.h>
#include <string.h>

/* Windows of 16 chunks of 8 tokens: long enough for three. */
enum { CHUNK = 8, LONG = 300 };

typedef struct variant {
    int kind, causal;
    int64_t heads, kv_heads;
    int64_t sequences;
    const int64_t *queries, *keys;
    void (*stir)(problem *p); /* changes inputs; NULL: normal ones */
} variant;

static fv_attention_options options_of(const variant *v)
{
    fv_attention_options o = laws_options(v->kind, v->causal);
    o.heads = v->heads, o.kv_heads = v->kv_heads;
    o.chunk = CHUNK;
    return o;
}

static problem *run(fv_context *with, const variant *v)
{
    fv_attention_options o = options_of(v);
    problem_shape shape = {v->sequences, v->queries, v->keys, 0, 0, 23};
    problem *p = problem_make(with, &o, &shape);
    if (v->stir != NULL)
        v->stir(p);
    problem_forward(p, true);
    problem_backward(p);
    return p;
}

static void same(const problem *a, const problem *b)
{
    laws_same_bits(a->y, b->y, a->tq * problem_row_y(a), "y", a);
    laws_same_bits(a->dq, b->dq, a->tq * problem_row_q(a), "dq", a);
    laws_same_bits(a->dk, b->dk, a->tk * problem_row_k(a), "dk", a);
    laws_same_bits(a->dv, b->dv, a->tk * problem_row_v(a), "dv", a);
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (a->d_input[i] != NULL)
            laws_same_bits(a->d_input[i], b->d_input[i], a->input_floats[i], "an input's gradient", a);
}

static const int thread_counts[] = {2, 3, 8, 20}; /* 20: windows of several segments */

/* Every kind, on all numbers of threads, against one. */
static void all_kinds_in(const char *dtype, const variant *like, unsigned trait)
{
    for (int i = 0; i < FV_COUNT(thread_counts); i++) {
        fv_context *one = problem_context(NULL, 1), *many = problem_context(NULL, thread_counts[i]);
        assert_int_equal(fv_context_set_dtype(one, dtype), FV_OK);
        assert_int_equal(fv_context_set_dtype(many, dtype), FV_OK);
        for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
            variant v = *like;
            v.kind = kind;
            if (!kind_runs(kind, v.causal) || (trait != 0 && !kind_has(kind, trait)))
                continue;
            problem *a = run(one, &v), *b = run(many, &v);
            same(a, b);
            problem_free(a);
            problem_free(b);
        }
        fv_context_destroy(one);
        fv_context_destroy(many);
    }
}

static void both_directions(variant v)
{
    for (v.causal = 0; v.causal < 2; v.causal++)
        all_kinds_in("f32", &v, 0);
}

static void one_head(void **state)
{
    (void)state;
    const int64_t length = LONG;
    both_directions((variant){.heads = 1, .kv_heads = 1, .sequences = 1, .queries = &length});
}

static void in_bf16(void **state)
{
    (void)state;
    const int64_t length = LONG;
    variant v = {.heads = 1, .kv_heads = 1, .sequences = 1, .queries = &length};
    for (v.causal = 0; v.causal < 2; v.causal++)
        all_kinds_in("bf16", &v, 0);
}

static void three_heads_on_one(void **state)
{
    (void)state;
    const int64_t lengths[] = {LONG, 3, 0, 77};
    both_directions((variant){.heads = 3, .kv_heads = 1, .sequences = 4, .queries = lengths});
}

/* Some heads of a sequence with a thread each, the last shared; long sequences with a short one between. */
static void heads_left_over(void **state)
{
    (void)state;
    const int64_t lengths[] = {LONG, 3, LONG};
    both_directions((variant){.heads = 5, .kv_heads = 5, .sequences = 3, .queries = lengths});
}

static void more_queries(void **state)
{
    (void)state;
    const int64_t queries = LONG, keys = 141;
    variant v = {.heads = 1, .kv_heads = 1, .sequences = 1, .queries = &queries, .keys = &keys};
    all_kinds_in("f32", &v, KIND_CROSS);
}

static void scale_tokens(float *x, int64_t row, int64_t first, int64_t n, float factor)
{
    for (int64_t i = first * row; i < (first + n) * row; i++)
        x[i] *= factor;
}

/* Keys that pass the exponents of their chunk, alone, at a window's end and in a row. */
static void larger_keys(problem *p)
{
    scale_tokens(p->k, problem_row_k(p), 19, 1, 12.0f);
    scale_tokens(p->k, problem_row_k(p), 127, 2, 25.0f);
    for (int64_t t = 200; t < 230; t++)
        scale_tokens(p->k, problem_row_k(p), t, 1, (float)(t - 170));
}

/* Numbers that plain features cannot hold from some token on: keys here, queries there. */
static void immoderate_keys(problem *p)
{
    scale_tokens(p->k, problem_row_k(p), 141, 1, 0x1p40f);
}
static void immoderate_queries(problem *p)
{
    scale_tokens(p->q, problem_row_q(p), 145, 1, 0x1p40f);
    scale_tokens(p->q, problem_row_q(p), 280, 1, 0x1p-50f);
}

static void stirred(void **state)
{
    (void)state;
    static void (*const ways[])(problem * p) = {larger_keys, immoderate_keys, immoderate_queries};
    const int64_t length = LONG;
    for (int i = 0; i < FV_COUNT(ways); i++)
        both_directions(
            (variant){.heads = 1, .kv_heads = 1, .sequences = 1, .queries = &length, .stir = ways[i]});
}

/* ---- states ------------------------------------------------------------------------------------------ */

/* A stream in two calls, the second on several threads. */
static void continued(fv_context *with, const variant *v, float *y, void **stream, size_t *bytes)
{
    fv_attention_options o = options_of(v);
    problem_shape shape = {1, v->queries, NULL, 0, 0, 29};
    problem *p = problem_make(with, &o, &shape);
    fv_attention_io io = problem_io(p);
    assert_int_equal(fv_attention_state_bytes(p->op, 2 * p->tk, bytes), FV_OK);
    *stream = calloc(1, *bytes);
    assert_int_equal(fv_attention_state_init(p->op, 2 * p->tk, *stream), FV_OK);
    io.state = *stream;
    for (int i = 0; i < 2; i++)
        assert_int_equal(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_OK);
    memcpy(y, p->y, (size_t)(p->tq * problem_row_y(p)) * sizeof *y);
    problem_free(p);
}

static void streams(void **state)
{
    (void)state;
    const int64_t length = LONG;
    enum { FLOATS = LONG * 5 };
    fv_context *one = problem_context(NULL, 1), *many = problem_context(NULL, 3);
    for (int kind = kind_next(-1); kind < fv_attention_kind_count(); kind = kind_next(kind)) {
        const char *name = fv_attention_kind_at(kind)->name;
        if (!kind_runs(kind, 1) || fv_mechanism_find(name)->map == NULL || kind_has(kind, KIND_DATED))
            continue;
        variant v = {
            .kind = kind, .causal = 1, .heads = 1, .kv_heads = 1, .sequences = 1, .queries = &length};
        float *y = calloc(2 * FLOATS, sizeof *y);
        void *a, *b;
        size_t bytes;
        continued(one, &v, y, &a, &bytes);
        continued(many, &v, y + FLOATS, &b, &bytes);
        if (memcmp(y, y + FLOATS, FLOATS * sizeof *y) != 0 || memcmp(a, b, bytes) != 0)
            fail_msg("%s: a continued stream differs with other threads", name);
        free(y);
        free(a);
        free(b);
    }
    fv_context_destroy(one);
    fv_context_destroy(many);
}

/* ---- who takes windows -------------------------------------------------------------------------------- */

typedef struct choice {
    const char *kind;
    int64_t heads, sequences, length;
    int threads, gate;
    int windows;   /* heads that are shared */
    int64_t other; /* length of one more sequence */
} choice;

static int takes_windows(fv_context *with, const choice *c)
{
    int64_t lengths[17], sequences = c->sequences + (c->other > 0);
    lengths[c->sequences] = c->other;
    for (int64_t s = 0; s < c->sequences; s++)
        lengths[s] = c->length;
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = c->kind, o.heads = o.kv_heads = c->heads, o.dim = 8, o.features = 16, o.causal = 1;
    o.chunk = CHUNK, o.gate = c->gate;
    problem_shape shape = {sequences, lengths, NULL, 0, 0, 31};
    problem *p = problem_make(with, &o, &shape);
    fv_attention_io io = problem_io(p);
    fv_kz_call call;
    fv_kz_begin(&call, p->op, &p->layout, false, &io, NULL, NULL, p->scratch);
    int taken = 0;
    for (int64_t task = 0; task < sequences * c->heads; task++)
        taken += fv_is_shared(&call.shared, task);
    problem_free(p);
    return taken;
}

/* Heads that are left over when every thread has as many, where they are long and a good part of the work. */
static void who_takes_windows(void **state)
{
    (void)state;
    static const choice choices[] = {
        {"favor+", 1, 1, LONG, 2, 0, 1, 0},  {"favor+", 3, 1, LONG, 2, 0, 1, 0},
        {"relu", 12, 1, LONG, 8, 0, 4, 0},   {"favor+", 2, 1, LONG, 2, 0, 0, 0},
        {"favor+", 8, 1, LONG, 2, 0, 0, 0},  {"favor+", 1, 1, LONG, 1, 0, 0, 0},
        {"favor+", 7, 1, LONG, 8, 0, 0, 0},  {"favor+", 1, 1, 60, 2, 0, 0, 0},
        {"favor+", 1, 15, LONG, 2, 0, 1, 0}, {"favor+", 1, 16, LONG, 2, 0, 0, 0},
        {"favor+", 1, 3, LONG, 2, 0, 1, 0},  {"favor+", 3, 3, LONG, 2, 0, 1, 0},
        {"favor+", 1, 4, LONG, 2, 0, 0, 0},  {"favor+", 3, 2, LONG, 4, 0, 2, 0},
        {"favor+", 1, 1, LONG, 2, 1, 0, 0},  {"favor+", 1, 1, LONG, 2, 0, 1, 60},
    };
    for (int i = 0; i < FV_COUNT(choices); i++) {
        const choice *c = &choices[i];
        fv_context *with = problem_context(NULL, c->threads);
        int taken = takes_windows(with, c);
        if (taken != c->windows)
            fail_msg("%s, %d heads of %d times %d tokens on %d threads: %d heads in windows instead of %d",
                     c->kind, (int)c->heads, (int)c->sequences, (int)c->length, c->threads, taken,
                     c->windows);
        fv_context_destroy(with);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_head),
        cmocka_unit_test(in_bf16),
        cmocka_unit_test(three_heads_on_one),
        cmocka_unit_test(heads_left_over),
        cmocka_unit_test(more_queries),
        cmocka_unit_test(stirred),
        cmocka_unit_test(streams),
        cmocka_unit_test(who_takes_windows),
    };
    return cmocka_run_group_tests_name("attention_long", tests, setup, teardown);
}
