/* test_sample.c: drawing tokens from logits: shares, truncation, special tokens, purity. */
#include "support/scratch.h"
#include "support/tiny_model.h"
#include <math.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { DRAWS = 20000 };

static fv_context *ctx;
static const fv_tokenizer *protein;
static float logits[29];

static int setup(void **state)
{
    (void)state;
    ctx = tiny_context(1);
    protein = fv_tokenizer_find("protein");
    return protein != NULL ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    fv_context_destroy(ctx);
    return 0;
}

/* How often each token comes in DRAWS draws. */
static void count_draws(const fv_sampling *s, int64_t *counts)
{
    memset(counts, 0, 29 * sizeof *counts);
    for (int64_t p = 0; p < DRAWS; p++) {
        int32_t token = -1;
        OK(fv_sample(ctx, protein, s, p, logits, &token));
        assert_in_range(token, 0, 28);
        counts[token]++;
    }
}

/* Shares are the softmax's, within 5 standard deviations of a count. */
static void check_shares(double temperature)
{
    fv_sampling s;
    int64_t counts[29];
    double sum = 0;
    fv_sampling_init(&s);
    s.temperature = temperature;
    s.seed = 4;
    for (int i = 0; i < 29; i++)
        logits[i] = (float)((i * 11) % 7) * 0.5f;
    count_draws(&s, counts);
    for (int i = 0; i < 29; i++)
        if (i < protein->letters || i == protein->end)
            sum += exp((double)logits[i] / temperature);
    for (int i = 0; i < 29; i++) {
        bool special = i >= protein->letters && i != protein->end;
        double p = special ? 0 : exp((double)logits[i] / temperature) / sum;
        double deviation = sqrt(DRAWS * p * (1 - p));
        assert_true(fabs((double)counts[i] - DRAWS * p) <= 5 * deviation);
    }
}

static void test_shares(void **state)
{
    (void)state;
    check_shares(1.0);
    check_shares(0.5);
    check_shares(3.0);
}

static void test_truncation(void **state)
{
    (void)state;
    fv_sampling s;
    int64_t counts[29];
    for (int i = 0; i < 29; i++)
        logits[i] = -100;
    logits[3] = logf(4), logits[7] = logf(3), logits[9] = logf(2), logits[11] = 0; /* 0.4 0.3 0.2 0.1 */
    logits[protein->mask] = 50;
    fv_sampling_init(&s);
    s.top_k = 2;
    count_draws(&s, counts);
    assert_true(counts[3] > 0 && counts[7] > 0 && counts[3] + counts[7] == DRAWS);
    s.top_k = 0, s.top_p = 0.75; /* 0.4 + 0.3 is not enough */
    count_draws(&s, counts);
    assert_true(counts[9] > 0 && counts[11] == 0 && counts[3] + counts[7] + counts[9] == DRAWS);
    s.top_p = 0.1;
    count_draws(&s, counts);
    assert_int_equal(counts[3], DRAWS);
    s.top_p = 1, s.temperature = 0;
    count_draws(&s, counts);
    assert_int_equal(counts[3], DRAWS);
    s.temperature = 1, s.top_k = 1000; /* more than there are */
    count_draws(&s, counts);
    assert_true(counts[11] > 0);
    logits[7] = logits[9] = logits[11] = logits[3];
    s.top_k = 0, s.top_p = 0.5; /* two of four equals are exactly enough */
    count_draws(&s, counts);
    assert_true(counts[3] > 0 && counts[7] > 0 && counts[3] + counts[7] == DRAWS);
}

static void test_purity(void **state)
{
    (void)state;
    fv_sampling s;
    int32_t a, b, differ = 0;
    for (int i = 0; i < 29; i++)
        logits[i] = 0;
    fv_sampling_init(&s);
    for (int64_t p = 0; p < 100; p++) {
        s.seed = 1;
        OK(fv_sample(ctx, protein, &s, p, logits, &a));
        OK(fv_sample(ctx, protein, &s, p, logits, &b));
        assert_int_equal(a, b);
        s.seed = 2;
        OK(fv_sample(ctx, protein, &s, p, logits, &b));
        differ += a != b;
    }
    assert_true(differ > 80);
}

static void test_wrong_use(void **state)
{
    (void)state;
    fv_sampling s;
    int32_t token;
    fv_sampling_init(&s);
    s.temperature = -1;
    expect_failure(ctx, fv_sample(ctx, protein, &s, 0, logits, &token), FV_ERR_USAGE, "temperature", NULL);
    s.temperature = 1, s.top_k = -1;
    expect_failure(ctx, fv_sample(ctx, protein, &s, 0, logits, &token), FV_ERR_USAGE, "top-k", NULL);
    s.top_k = 0, s.top_p = 0;
    expect_failure(ctx, fv_sample(ctx, protein, &s, 0, logits, &token), FV_ERR_USAGE, "top-p", NULL);
    s.top_p = 1, s.size = 3;
    expect_failure(ctx, fv_sample(ctx, protein, &s, 0, logits, &token), FV_ERR_USAGE, "fv_sampling_init",
                   NULL);
    fv_sampling_init(&s);
    logits[2] = NAN;
    expect_failure(ctx, fv_sample(ctx, protein, &s, 0, logits, &token), FV_ERR_FAILED, "not a number", NULL);
    logits[2] = INFINITY;
    OK(fv_sample(ctx, protein, &s, 0, logits, &token));
    assert_int_equal(token, 2);
    for (int i = 0; i < 29; i++)
        logits[i] = -INFINITY;
    OK(fv_sample(ctx, protein, &s, 0, logits, &token));
    assert_int_equal(token, 0);
}

static fv_status sample_once(fv_context *starved, void *arg)
{
    fv_sampling s;
    int32_t token;
    (void)arg;
    fv_sampling_init(&s);
    return fv_sample(starved, protein, &s, 0, logits, &token);
}

static void test_failing_allocation(void **state)
{
    (void)state;
    assert_int_equal(fail_every_allocation(sample_once, NULL), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_truncation),
        cmocka_unit_test(test_purity),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_failing_allocation),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
