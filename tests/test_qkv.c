/* test_qkv.c: fv_model_qkv gives what attention reads: rows of the attention matrix made of it are those that the
 * model shows, and a packed batch gives the bits of its sequences alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/tiny_model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 4, GROUPS = 2, DIM = 4, FIRST = 9, SECOND = 14, TOKENS = FIRST + SECOND };

static const char *const settings[] = {
    "attention.kind", "exact", "num_attention_heads", "4", "num_key_value_heads", "2", "is_decoder",
    "true",           NULL};

typedef struct qkv {
    float q[TOKENS * HEADS * DIM], k[TOKENS * GROUPS * DIM], v[TOKENS * GROUPS * DIM];
} qkv;

/* Weights [HEADS][1][count] of one row of the second sequence, by an operator of our own. */
static void weigh(fv_context *ctx, const qkv *x, int64_t row, float *weights)
{
    const int64_t offsets[] = {0, FIRST, TOKENS};
    const fv_layout layout = {2, offsets, NULL};
    fv_attention_options o;
    fv_attention *op;
    fv_memory need;
    fv_attention_options_init(&o);
    o.kind = "exact", o.heads = HEADS, o.kv_heads = GROUPS, o.dim = DIM, o.causal = 1;
    assert_int_equal(fv_attention_create(&op, ctx, &o), FV_OK);
    assert_int_equal(fv_attention_measure(op, &layout, &need), FV_OK);
    void *scratch = fv_alloc(ctx, need.scratch);
    fv_attention_io io = {.q = x->q, .k = x->k};
    assert_int_equal(fv_attention_weights(op, &layout, &io, &row, 1, weights, scratch), FV_OK);
    fv_free(ctx, scratch);
    fv_attention_destroy(op);
}

static void rows_are_the_models(void **state)
{
    const int64_t lengths[] = {FIRST, SECOND}, row = 11;
    fv_context *ctx = tiny_context(2);
    fv_model *model = tiny_model(ctx, settings);
    static tiny_batch b;
    static qkv x;
    float ours[HEADS * TOKENS], theirs[SECOND];
    (void)state;
    tiny_batch_fill(&b, 3, 0.5, 2, lengths);
    for (int64_t layer = 0; layer < 2; layer++) {
        assert_int_equal(fv_model_qkv(model, &b.batch, layer, x.q, x.k, x.v), FV_OK);
        assert_true(memcmp(x.k, x.v, sizeof x.k) != 0);
        weigh(ctx, &x, FIRST + row, ours);
        for (int64_t h = 0; h < HEADS; h++) {
            assert_int_equal(fv_model_attention(model, b.inputs + FIRST, SECOND, layer, h, &row, 1, theirs),
                             FV_OK);
            for (int64_t j = 0; j < SECOND; j++)
                assert_true(fabsf(ours[h * TOKENS + FIRST + j] - theirs[j]) < 1e-6f);
        }
    }
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void packed_is_separate(void **state)
{
    const int64_t lengths[] = {FIRST, SECOND};
    fv_context *ctx = tiny_context(2);
    fv_model *model = tiny_model(ctx, settings);
    static tiny_batch both, one;
    static qkv x, y;
    (void)state;
    tiny_batch_fill(&both, 3, 0.5, 2, lengths);
    tiny_batch_fill(&one, 3, 0.5, 1, lengths + 1);
    memcpy(one.inputs, both.inputs + FIRST, sizeof *one.inputs * SECOND);
    assert_int_equal(fv_model_qkv(model, &both.batch, 1, x.q, x.k, x.v), FV_OK);
    assert_int_equal(fv_model_qkv(model, &one.batch, 1, y.q, y.k, y.v), FV_OK);
    assert_memory_equal(x.q + FIRST * HEADS * DIM, y.q, sizeof(float) * SECOND * HEADS * DIM);
    assert_memory_equal(x.k + FIRST * GROUPS * DIM, y.k, sizeof(float) * SECOND * GROUPS * DIM);
    assert_memory_equal(x.v + FIRST * GROUPS * DIM, y.v, sizeof(float) * SECOND * GROUPS * DIM);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

static void wrong_questions(void **state)
{
    const int64_t lengths[] = {FIRST};
    fv_context *ctx = tiny_context(1);
    fv_model *model = tiny_model(ctx, settings);
    static tiny_batch b;
    static qkv x;
    (void)state;
    tiny_batch_fill(&b, 3, 0.5, 1, lengths);
    assert_int_equal(fv_model_qkv(model, &b.batch, 2, x.q, x.k, x.v), FV_ERR_USAGE);
    assert_non_null(strstr(fv_context_message(ctx), "layer 2 of 2"));
    assert_int_equal(fv_model_qkv(model, &b.batch, -1, x.q, x.k, x.v), FV_ERR_USAGE);
    b.inputs[4] = 1000;
    assert_int_equal(fv_model_qkv(model, &b.batch, 0, x.q, x.k, x.v), FV_ERR_USAGE);
    fv_model_destroy(model);
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_the_models),
        cmocka_unit_test(packed_is_separate),
        cmocka_unit_test(wrong_questions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
