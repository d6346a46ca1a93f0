/* test_attention_choose.c: `auto`: the choice follows from the crossover it tells, and options decide alone where exact attention
 * does not take them. No time is judged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <favor/attention.h>
#include <string.h>

static fv_attention_options small_options(void)
{
    fv_attention_options o;
    fv_attention_options_init(&o);
    o.kind = "auto";
    o.heads = 2;
    o.dim = 8;
    o.features = 16;
    return o;
}

static void test_lengths(void **state)
{
    (void)state;
    fv_context *ctx;
    assert_int_equal(fv_context_create(&ctx, NULL), FV_OK);
    fv_attention_options o = small_options();
    static const int64_t lengths[] = {1, 1000, INT64_C(1) << 40};
    for (int i = 0; i < 12; i++) {
        fv_attention_choice choice;
        int64_t length = lengths[i % 3];
        o.causal = i / 3 % 2;
        o.ppsbn = i >= 6;
        assert_int_equal(fv_attention_choose(ctx, &o, length, i % 2, &choice), FV_OK);
        assert_true(choice.crossover >= 1);
        assert_string_equal(choice.kind, length < choice.crossover ? "exact" : FV_ATTENTION_KERNELIZED);
        if (length > 1000000) /* quadratic against linear */
            assert_string_equal(choice.kind, FV_ATTENTION_KERNELIZED);
    }
    fv_context_destroy(ctx);
}

static void test_options(void **state)
{
    (void)state;
    fv_context *ctx;
    fv_attention_choice choice;
    assert_int_equal(fv_context_create(&ctx, NULL), FV_OK);
    fv_attention_options o = small_options();
    o.causal = 1;
    o.gate = 1;
    assert_int_equal(fv_attention_choose(ctx, &o, 1, 1, &choice), FV_OK);
    assert_int_equal(choice.crossover, 0);
    assert_string_equal(choice.kind, FV_ATTENTION_KERNELIZED);
    o = small_options();
    assert_int_equal(fv_attention_choose(ctx, &o, 0, 1, &choice), FV_ERR_USAGE);
    assert_non_null(strstr(fv_context_message(ctx), "length 0"));
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
