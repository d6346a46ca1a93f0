/* test_attention_errors.c: wrong use of the operator: each is refused by name, before any write; and failing
 * allocations leave nothing behind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/one_context.h"
#include "support/problem.h"
#include "support/scratch.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Refused with this status, and the message names the culprit. */
static void refused(fv_status status, fv_status expected, const char *word)
{
    if (status != expected || strstr(fv_context_message(ctx), word) == NULL)
        fail_msg("status %s (expected %s), message \"%s\" (expected to name \"%s\")", fv_status_name(status),
                 fv_status_name(expected), fv_context_message(ctx), word);
}

/* ---- options ------------------------------------------------------------------------------------- */

static fv_attention_options good(const char *kind)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = kind, o.heads = 2, o.dim = 4;
    kind_small_options(&o);
    return o;
}

static void bad_size(fv_attention_options *o)
{
    o->size = 1;
}
static void no_kind(fv_attention_options *o)
{
    o->kind = NULL;
}
static void unknown_kind(fv_attention_options *o)
{
    o->kind = "softmin";
}
static void no_heads(fv_attention_options *o)
{
    o->heads = 0;
}
static void negative_heads(fv_attention_options *o)
{
    o->heads = -4;
}
static void heads_not_divisible(fv_attention_options *o)
{
    o->heads = 6, o->kv_heads = 4;
}
static void more_kv_heads(fv_attention_options *o)
{
    o->kv_heads = 4;
}
static void no_dim(fv_attention_options *o)
{
    o->dim = 0;
}
static void negative_value_dim(fv_attention_options *o)
{
    o->value_dim = -1;
}
static void huge_dim(fv_attention_options *o)
{
    o->dim = INT64_MAX / 2;
}
static void negative_chunk(fv_attention_options *o)
{
    o->chunk = -1;
}
static void negative_features(fv_attention_options *o)
{
    o->features = -16;
}
static void negative_scale(fv_attention_options *o)
{
    o->scale = -1;
}
static void nan_scale(fv_attention_options *o)
{
    o->scale = (double)NAN;
}
static void infinite_scale(fv_attention_options *o)
{
    o->scale = (double)INFINITY;
}
static void nan_epsilon(fv_attention_options *o)
{
    o->epsilon = (double)NAN;
}
static void some_epsilon(fv_attention_options *o)
{
    o->epsilon = 1e-3;
}
static void no_projection(fv_attention_options *o)
{
    o->projection = FV_PROJECTION_NONE;
}
static void causal_unfrozen(fv_attention_options *o)
{
    o->causal = 1;
}
static void nan_psi(fv_attention_options *o)
{
    o->psi = (double)NAN;
}
static void odd_hadamard(fv_attention_options *o)
{
    o->projection = FV_PROJECTION_HADAMARD, o->dim = 12;
}
static void unknown_projection(fv_attention_options *o)
{
    o->projection = (fv_projection)9;
}
static void unknown_norms(fv_attention_options *o)
{
    o->row_norms = (fv_row_norms)9;
}
static void unknown_guard(fv_attention_options *o)
{
    o->denominator = (fv_denominator)9;
}
static void some_guard(fv_attention_options *o)
{
    o->denominator = FV_DENOMINATOR_ADD, o->denominator_value = 1;
}
static void negative_guard(fv_attention_options *o)
{
    o->denominator = FV_DENOMINATOR_ADD, o->denominator_value = -1;
}

static const struct {
    const char *kind;
    void (*spoil)(fv_attention_options *o);
    const char *word;
} bad_options[] = {
    {"exact", bad_size, "options"},
    {"exact", no_kind, "kind"},
    {"exact", unknown_kind, "softmin"},
    {"exact", no_heads, "heads"},
    {"exact", negative_heads, "heads"},
    {"exact", heads_not_divisible, "divide"},
    {"exact", more_kv_heads, "heads"},
    {"exact", no_dim, "dim"},
    {"exact", negative_value_dim, "value_dim"},
    {"exact", huge_dim, "dim"},
    {"exact", negative_chunk, "chunk"},
    {"exact", some_epsilon, "epsilon"},
    {"exact", some_guard, "denominator"},
    {"identity", some_epsilon, "epsilon"},
    {"identity", some_guard, "denominator"},
    {"favor+", some_epsilon, "epsilon"},
    {"favor+", no_projection, "projection"},
    {"favor+", odd_hadamard, "hadamard"},
    {"favor++", causal_unfrozen, "psi"},
    {"favor#", causal_unfrozen, "psi"},
    {"favor++", nan_psi, "psi"},
    {"favor+", unknown_projection, "projection"},
    {"favor+", unknown_norms, "row_norms"},
    {"favor+", unknown_guard, "denominator"},
    {"favor+", negative_guard, "denominator"},
    {"favor+", negative_features, "features"},
    {"favor+", negative_chunk, "chunk"},
    {"relu", negative_scale, "scale"},
    {"relu", nan_scale, "scale"},
    {"relu", infinite_scale, "scale"},
    {"relu", nan_epsilon, "epsilon"},
};

static void options(void **state)
{
    (void)state;
    for (int i = 0; i < FV_COUNT(bad_options); i++) {
        fv_attention_options o = good(bad_options[i].kind);
        fv_attention *op = (fv_attention *)&o;
        bad_options[i].spoil(&o);
        refused(fv_attention_create(&op, ctx, &o), FV_ERR_USAGE, bad_options[i].word);
        assert_null(op);
    }
}

/* ---- layouts ------------------------------------------------------------------------------------- */

static const int64_t begins_late[] = {1, 3}, falls[] = {0, 5, 3}, five[] = {0, 2, 5}, four[] = {0, 2, 4},
                     other_five[] = {0, 3, 5}, endless[] = {0, INT64_MAX};

static const struct {
    const char *kind;
    int causal;
    fv_layout layout;
    const char *word;
} bad_layouts[] = {
    {"exact", 0, {1, begins_late, NULL}, "offsets_q"}, {"exact", 0, {2, falls, NULL}, "offsets_q"},
    {"exact", 0, {2, five, falls}, "offsets_k"},       {"exact", 0, {1, five, begins_late}, "offsets_k"},
    {"exact", 0, {-1, five, NULL}, "sequences"},       {"exact", 0, {1, NULL, NULL}, "offsets_q"},
    {"exact", 0, {1, endless, NULL}, "offsets_q"},     {"exact", 1, {2, five, four}, "causal"},
    {"favor+", 1, {2, five, other_five}, "causal"},    {"relu", 1, {2, five, four}, "causal"},
};

static void layouts(void **state)
{
    (void)state;
    for (int i = 0; i < FV_COUNT(bad_layouts); i++) {
        fv_attention_options o = good(bad_layouts[i].kind);
        fv_attention *op;
        fv_memory need;
        o.causal = bad_layouts[i].causal;
        assert_int_equal(fv_attention_create(&op, ctx, &o), FV_OK);
        refused(fv_attention_measure(op, &bad_layouts[i].layout, &need), FV_ERR_USAGE, bad_layouts[i].word);
        fv_attention_destroy(op);
    }
}

static void too_large_to_address(void **state)
{
    static const int64_t offsets[] = {0, (int64_t)1 << 40};
    fv_layout layout = {1, offsets, NULL};
    fv_attention_options o = good("exact");
    fv_attention *op;
    fv_memory need;
    (void)state;
    o.heads = 1 << 16;
    assert_int_equal(fv_attention_create(&op, ctx, &o), FV_OK);
    fv_status status = fv_attention_measure(op, &layout, &need);
    if (status == FV_OK) /* fits an address, if no machine */
        assert_true(need.scratch > (size_t)1 << 50);
    else
        refused(status, FV_ERR_RESOURCE, "memory");
    fv_attention_destroy(op);
}

/* ---- calls --------------------------------------------------------------------------------------- */

static problem *small(const char *kind, int causal)
{
    static const int64_t lengths[] = {3, 4};
    fv_attention_options o = good(kind);
    problem_shape shape = {2, lengths, NULL, 0, 0, 1};
    o.causal = causal;
    return problem_make(ctx, &o, &shape);
}

static void missing_tensors(void **state)
{
    (void)state;
    for (int which = 0; which < 5; which++) {
        static const char *const words[] = {"q is", "k is", "v is", "y is", "projection"};
        problem *p = small("favor+", 1);
        fv_attention_io io = problem_io(p);
        const float **inputs[] = {&io.q, &io.k, &io.v, (const float **)(void *)&io.y,
                                  &io.input[FV_INPUT_PROJECTION]};
        *inputs[which] = NULL;
        refused(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_USAGE, words[which]);
        problem_free(p);
    }
}

static void narrow_strides(void **state)
{
    (void)state;
    for (int which = 0; which < 8; which++) {
        static const char *const words[] = {"of q", "of k", "of v", "of y"};
        problem *p = small("exact", 0);
        fv_attention_io io = problem_io(p);
        int64_t *strides[] = {&io.q_stride, &io.k_stride, &io.v_stride, &io.y_stride};
        *strides[which % 4] = which < 4 ? 7 : -8;
        refused(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_USAGE,
                words[which % 4]);
        problem_free(p);
    }
}

static void backward_calls(void **state)
{
    problem *p = small("exact", 0);
    fv_attention_io io = problem_io(p), without_y = io;
    float state_bytes[64];
    (void)state;
    fv_attention_grad grad = {.dq = p->dq};
    refused(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_ERR_USAGE, "dy");
    grad.dy = p->dy;
    without_y.y = NULL;
    refused(fv_attention_backward(p->op, &p->layout, &without_y, &grad, p->saved, p->scratch), FV_ERR_USAGE,
            "y is");
    grad.d_input[FV_INPUT_PROJECTION] = p->dk;
    refused(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_ERR_USAGE,
            "projection");
    grad.d_input[FV_INPUT_PROJECTION] = NULL;
    grad.in_place = 1;
    refused(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_ERR_USAGE,
            "in-place");
    grad.in_place = 0;
    io.state = state_bytes;
    refused(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_ERR_USAGE,
            "state");
    problem_free(p);
    p = small("favor+", 0);
    io = problem_io(p);
    grad = (fv_attention_grad){.dy = p->dy, .dq = p->dq, .dk = p->dk, .dv = p->dv, .in_place = 1};
    refused(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_ERR_USAGE,
            "in place");
    problem_free(p);
}

static void identity_needs_equal_lengths(void **state)
{
    static const int64_t queries[] = {3, 2}, keys[] = {2, 3};
    fv_attention_options o = good("identity");
    problem_shape shape = {2, queries, keys, 0, 0, 1};
    int64_t row = 0;
    (void)state;
    problem *p = problem_make(ctx, &o, &shape);
    fv_attention_io io = problem_io(p);
    fv_attention_grad grad = {.dy = p->dy, .dv = p->dv};
    refused(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_USAGE, "identity");
    refused(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_ERR_USAGE,
            "identity");
    refused(fv_attention_weights(p->op, &p->layout, &io, &row, 1, p->dq, p->scratch), FV_ERR_USAGE,
            "identity");
    problem_free(p);
}

static void draws(void **state)
{
    problem *p = small("exact", 0);
    (void)state;
    refused(fv_attention_draw(p->op, 1, 0, p->dq), FV_ERR_USAGE, "projection");
    problem_free(p);
    p = small("favor+", 0);
    refused(fv_attention_draw(p->op, 1, 1ull << 32, p->w), FV_ERR_USAGE, "draw");
    problem_free(p);
}

static void rows_outside(void **state)
{
    static const int64_t rows[] = {-1, 7};
    int64_t tokens[2], found;
    float weights[2], work[7];
    problem *p = small("favor+", 1);
    fv_attention_io io = problem_io(p);
    (void)state;
    for (int i = 0; i < FV_COUNT(rows); i++) {
        refused(fv_attention_weights(p->op, &p->layout, &io, rows + i, 1, p->dq, p->scratch), FV_ERR_USAGE,
                "row");
        refused(fv_attention_top(p->op, &p->layout, &io, 0, rows[i], 2, tokens, weights, &found, work,
                                 p->scratch),
                FV_ERR_USAGE, "row");
    }
    refused(fv_attention_top(p->op, &p->layout, &io, 2, 0, 2, tokens, weights, &found, work, p->scratch),
            FV_ERR_USAGE, "head");
    refused(fv_attention_top(p->op, &p->layout, &io, 0, 0, -1, tokens, weights, &found, work, p->scratch),
            FV_ERR_USAGE, "top");
    problem_free(p);
}

/* ---- streams ------------------------------------------------------------------------------------- */

static void streams_need_causal(void **state)
{
    char memory[64];
    size_t bytes;
    fv_state_view view;
    problem *p = small("identity", 0);
    fv_attention_io io = problem_io(p);
    (void)state;
    refused(fv_attention_state_bytes(p->op, 1, &bytes), FV_ERR_USAGE, "stream");
    refused(fv_attention_state_init(p->op, 1, memory), FV_ERR_USAGE, "stream");
    refused(fv_attention_state_view(p->op, memory, &view), FV_ERR_USAGE, "stream");
    refused(fv_attention_state_set_tokens(p->op, memory, 1), FV_ERR_USAGE, "stream");
    refused(fv_attention_state_merge(p->op, memory, memory, memory), FV_ERR_USAGE, "stream");
    refused(fv_attention_step(p->op, 1, &io, memory, 64, p->scratch), FV_ERR_USAGE, "stream");
    io.state = memory;
    refused(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_USAGE, "state");
    problem_free(p);
}

/* Kinds that keep their keys: a full state is refused before anything is written, by forward, step and merge. */
static void check_full_states(const char *kind)
{
    problem *p = small(kind, 1);
    fv_attention_io io = problem_io(p);
    size_t bytes;
    assert_int_equal(fv_attention_state_bytes(p->op, 3, &bytes), FV_OK);
    char *states = fv_alloc(ctx, 2 * bytes), *before = malloc(2 * bytes);
    assert_int_equal(fv_attention_state_init(p->op, 3, states), FV_OK);
    assert_int_equal(fv_attention_state_init(p->op, 3, states + bytes), FV_OK);
    memcpy(before, states, 2 * bytes);
    io.state = states; /* 3 tokens fit, the second sequence's 4 do not */
    refused(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_RESOURCE, "capacity");
    assert_memory_equal(states, before, 2 * bytes);
    io.state = NULL;
    for (int t = 0; t < 3; t++)
        assert_int_equal(fv_attention_step(p->op, 2, &io, states, bytes, p->scratch), FV_OK);
    memcpy(before, states, 2 * bytes);
    refused(fv_attention_step(p->op, 2, &io, states, bytes, p->scratch), FV_ERR_RESOURCE, "capacity");
    refused(fv_attention_state_merge(p->op, states, states, states + bytes), FV_ERR_RESOURCE, "capacity");
    assert_memory_equal(states, before, 2 * bytes);
    refused(fv_attention_state_set_tokens(p->op, states, 4), FV_ERR_USAGE, "tokens");
    refused(fv_attention_step(p->op, 1, &io, states, 8, p->scratch), FV_ERR_USAGE, "bytes");
    refused(fv_attention_state_bytes(p->op, -1, &bytes), FV_ERR_USAGE, "capacity");
    fv_free(ctx, states);
    free(before);
    problem_free(p);
}

static void full_states(void **state)
{
    (void)state;
    check_full_states("exact");
    check_full_states("strided");
}

/* cosformer is made for max_tokens: the call that would pass them is refused before anything is written, by forward with
 * a state and without, backward, rows and step. */
static void longer_than_max_tokens(void **state)
{
    static const int64_t lengths[] = {3, 4}, rows[] = {0};
    fv_attention_options o = good("cosformer");
    problem_shape shape = {2, lengths, NULL, 0, 0, 1};
    o.causal = 1, o.max_tokens = 3;
    problem *p = problem_make(ctx, &o, &shape);
    fv_attention_io io = problem_io(p);
    fv_attention_grad grad = {.dy = p->dy, .dq = p->dq};
    size_t bytes;
    (void)state;
    memset(p->y, 0xAA, (size_t)(p->tq * problem_row_y(p)) * sizeof *p->y);
    refused(fv_attention_forward(p->op, &p->layout, &io, NULL, p->scratch), FV_ERR_USAGE, "max_tokens is 3");
    assert_int_equal(*(unsigned char *)p->y, 0xAA);
    refused(fv_attention_backward(p->op, &p->layout, &io, &grad, p->saved, p->scratch), FV_ERR_USAGE,
            "sequence 1 has 4 tokens");
    refused(fv_attention_weights(p->op, &p->layout, &io, rows, 1, p->dq, p->scratch), FV_ERR_USAGE,
            "max_tokens");
    assert_int_equal(fv_attention_state_bytes(p->op, 0, &bytes), FV_OK);
    char *states = fv_alloc(ctx, 2 * bytes), *before = malloc(2 * bytes);
    for (int i = 0; i < 2; i++)
        assert_int_equal(fv_attention_state_init(p->op, 0, states + (size_t)i * bytes), FV_OK);
    for (int t = 0; t < 2; t++)
        assert_int_equal(fv_attention_step(p->op, 2, &io, states, bytes, p->scratch), FV_OK);
    assert_int_equal(fv_attention_step(p->op, 1, &io, states + bytes, bytes, p->scratch), FV_OK);
    memcpy(before, states, 2 * bytes);
    refused(fv_attention_step(p->op, 2, &io, states, bytes, p->scratch), FV_ERR_USAGE,
            "stream 1 has 4 tokens");
    io.state = states + bytes; /* full: not even one token more */
    fv_layout one = {1, (const int64_t[]){0, 1}, NULL};
    refused(fv_attention_forward(p->op, &one, &io, NULL, p->scratch), FV_ERR_USAGE, "stream 0 has 4 tokens");
    assert_memory_equal(states, before, 2 * bytes);
    io.state = states; /* room for one */
    assert_int_equal(fv_attention_forward(p->op, &one, &io, NULL, p->scratch), FV_OK);
    fv_free(ctx, states);
    free(before);
    problem_free(p);
}

/* ---- memory -------------------------------------------------------------------------------------- */

static fv_status create_and_draw(fv_context *with, void *kind)
{
    fv_attention_options o = good(kind);
    fv_attention *op;
    static float w[4096];
    TRY(fv_attention_create(&op, with, &o));
    fv_status status = FV_OK;
    fv_attention_info info;
    fv_attention_get_info(op, &info);
    assert_true(info.drawn_floats <= FV_COUNT(w));
    if (info.drawn_floats > 0)
        status = fv_attention_draw(op, 1, 0, w);
    fv_attention_destroy(op);
    return status;
}

static void failing_allocations(void **state)
{
    (void)state;
    for (int i = 0; i < fv_attention_kind_count(); i++)
        assert_true(fail_every_allocation(create_and_draw, (void *)(uintptr_t)fv_attention_kind_at(i)->name) >
                    0);
}

static void destroying_nothing(void **state)
{
    (void)state;
    fv_attention_destroy(NULL);
    assert_null(fv_attention_kind_at(-1));
    assert_null(fv_attention_kind_at(fv_attention_kind_count()));
    assert_null(fv_attention_kind_find("softmin"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options),
        cmocka_unit_test(layouts),
        cmocka_unit_test(too_large_to_address),
        cmocka_unit_test(missing_tensors),
        cmocka_unit_test(narrow_strides),
        cmocka_unit_test(backward_calls),
        cmocka_unit_test(identity_needs_equal_lengths),
        cmocka_unit_test(draws),
        cmocka_unit_test(rows_outside),
        cmocka_unit_test(streams_need_causal),
        cmocka_unit_test(full_states),
        cmocka_unit_test(longer_than_max_tokens),
        cmocka_unit_test(failing_allocations),
        cmocka_unit_test(destroying_nothing),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
