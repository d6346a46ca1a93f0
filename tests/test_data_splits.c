/* test_data_splits.c: which split a sequence goes to, the summary of a scan, the baseline. */
#include "support/data_files.h"
#include "support/one_context.h"
#include "support/scratch.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- splits -------------------------------------------------------------------------------------------- */

static void copies_of_a_sequence_stay_together(void **state)
{
    (void)state;
    char text[16384] = "", *at = text;
    for (int i = 0; i < 60; i++) /* each twice, the second in lower case and broken */
        at += sprintf(at, ">a%d\nMKV%cAC%c\n>b%d\nmkv%c\nac%c\n", i, "ACDEFGHIKL"[i / 10],
                      "ACDEFGHIKL"[i % 10], i, "acdefghikl"[i / 10], "acdefghikl"[i % 10]);
    fv_data *data = data_open_one("valid_fraction=0.3 test_fraction=0.3", scratch_text("t.fa", text));
    fv_data_summary summary;
    assert_int_equal(fv_data_scan(data, &summary, NULL), FV_OK);
    int64_t records = 0;
    for (int split = 0; split < 3; split++) {
        assert_int_equal(summary.split_records[split] % 2, 0);
        assert_true(summary.split_records[split] > 20);
        records += summary.split_records[split];
    }
    assert_int_equal(records, 120);
    fv_data_close(data);
}

static void shares_are_kept(void **state)
{
    (void)state;
    int64_t counts[3] = {0};
    enum { N = 100000 };
    for (int64_t i = 0; i < N; i++)
        counts[fv_split_of(fv_hash(&i, sizeof i), 0.05, 0.2)]++;
    assert_true(fabs((double)counts[FV_SPLIT_VALID] - 0.05 * N) < 5 * sqrt(N * 0.05 * 0.95));
    assert_true(fabs((double)counts[FV_SPLIT_TEST] - 0.2 * N) < 5 * sqrt(N * 0.2 * 0.8));
    assert_int_equal(fv_split_of(UINT64_MAX, 1, 0), FV_SPLIT_VALID);
    assert_int_equal(fv_split_of(0, 0, 0), FV_SPLIT_TRAIN);
    assert_int_equal(fv_split_of(UINT64_MAX, 0, 1), FV_SPLIT_TEST);
    assert_string_equal(fv_split_name(FV_SPLIT_TRAIN), "train");
    assert_string_equal(fv_split_name(FV_SPLIT_ALL), "all");
}

/* A change of the hash would move sequences from one split to another, under trained models. */
static void the_hash_is_the_recorded_one(void **state)
{
    (void)state;
    assert_true(fv_hash("", 0) == 0x6393d51c06c618dcu);
    assert_true(fv_hash("MKVAC", 5) == 0x10a642b5cc68f942u);
    assert_true(fv_hash("MKVACDEFGHIKLMNPQ", 17) == 0x9b455bf27710ecfeu);
    char zeros[32] = {0}; /* lengths count */
    for (size_t n = 0; n < 32; n++)
        assert_true(fv_hash(zeros, n) != fv_hash(zeros, n + 1));
}

static void small_text_files_have_all_splits(void **state)
{
    (void)state;
    static char text[40000];
    memset(text, 'x', sizeof text);
    fv_data *data =
        data_open_one("reader=bytes length=100 batch=2", scratch_write("t.txt", text, sizeof text));
    fv_data_summary summary;
    assert_int_equal(fv_data_scan(data, &summary, NULL), FV_OK);
    assert_string_equal(fv_data_tokenizer(data)->name, "bytes");
    for (int split = 0; split < 3; split++)
        assert_true(summary.split_tokens[split] > 0);
    assert_int_equal(summary.tokens, sizeof text);
    assert_int_equal(summary.counts['x'], summary.split_tokens[FV_SPLIT_TRAIN]);
    fv_data_close(data);
}

/* ---- summary and baseline ------------------------------------------------------------------------------ */

static void the_summary_counts(void **state)
{
    (void)state;
    const char *files[] = {
        scratch_text("a.fa", ">one\nMKJ\n>two\n>three x\nMMMM*\n>one\nM-\n>four\nKKKKKKKKKK\n"),
        scratch_gzip("b.fa.gz", ">two\nmmmmm\n", 11),
    };
    fv_data *data = data_open_files(ALL_TRAIN, files, 2);
    fv_data_summary summary;
    assert_int_equal(fv_data_scan(data, &summary, NULL), FV_OK);
    assert_int_equal(summary.files, 2);
    assert_int_equal(summary.records, 6);
    assert_int_equal(summary.empty_records, 1);
    assert_int_equal(summary.duplicate_names, 2);
    assert_int_equal(summary.tokens, 3 + 4 + 2 + 10 + 5);
    assert_int_equal(summary.unknown, 2);
    assert_int_equal(summary.min_length, 2);
    assert_int_equal(summary.max_length, 10);
    assert_true(fabs(summary.mean_length - 24.0 / 5) < 1e-12);
    assert_true(summary.median_length == 4);
    assert_int_equal(summary.counts[10], 1 + 4 + 1 + 5); /* M */
    assert_int_equal(summary.counts[8], 11);             /* K */
    assert_int_equal(summary.counts[23], 2);             /* X */
    fv_data_close(data);
}

static void medians_of_long_sequences_are_near(void **state)
{
    (void)state;
    enum { LONG = 200000 };
    char *text = malloc(3 * (LONG + 16)), *at = text;
    for (int i = 0; i < 3; i++) {
        at += sprintf(at, ">s%d\n", i);
        memset(at, 'M', (size_t)(LONG - 20000 + i * 10000));
        at += LONG - 20000 + i * 10000;
        *at++ = '\n';
    }
    fv_data *data = data_open_one(ALL_TRAIN, scratch_write("long.fa", text, (size_t)(at - text)));
    fv_data_summary summary;
    assert_int_equal(fv_data_scan(data, &summary, NULL), FV_OK);
    assert_true(fabs(summary.median_length - 190000) < 190);
    fv_data_close(data);
    free(text);
}

static void names_beyond_the_first_table_are_counted(void **state)
{
    (void)state;
    enum { NAMES = 20000 };
    char *text = malloc(NAMES * 32), *at = text;
    for (int i = 0; i < NAMES; i++)
        at += sprintf(at, ">s%d\nM\n", i < NAMES - 5 ? i : i - 5);
    fv_data *data = data_open_one(ALL_TRAIN, scratch_write("names.fa", text, (size_t)(at - text)));
    fv_data_summary summary;
    assert_int_equal(fv_data_scan(data, &summary, NULL), FV_OK);
    assert_int_equal(summary.records, NAMES);
    assert_int_equal(summary.duplicate_names, 5);
    fv_data_close(data);
    free(text);
}

static int stop_at_once(void *user)
{
    ++*(int *)user;
    return 1;
}

static void a_scan_can_be_stopped(void **state)
{
    (void)state;
    int asked = 0;
    fv_observer observer = {.user = &asked, .stop = stop_at_once};
    char *text = calloc(1, 2 << 20), *at = text;
    while (at - text < (2 << 20) - 16)
        at += sprintf(at, ">s\nM\n");
    const char *path = scratch_write("large.fa", text, (size_t)(at - text));
    fv_data *data = data_open_one(ALL_TRAIN, path);
    fv_data_summary summary;
    fv_status status = fv_data_scan(data, &summary, &observer);
    assert_true(asked > 0 ? status == FV_STOPPED : status == FV_OK); /* it is asked a few times a second */
    fv_data_close(data);
    free(text);
}

static void the_baseline_is_laplaces(void **state)
{
    (void)state;
    const fv_tokenizer *protein = fv_tokenizer_find("protein");
    int64_t counts[512] = {[0] = 70, [1] = 5}, correct = 10;
    int32_t targets[] = {0, -1, 1, 2, 26, 0};
    fv_batch batch = {.tokens = 6, .sequences = 1, .targets = targets, .predicted = 5};
    int64_t tokens = 100;
    double loss = 1;
    fv_empirical_add(protein->letters, counts, &batch, &tokens, &loss, &correct);
    double total = 70 + 5 + 25;
    double expected = 1 - 2 * log(71 / total) - log(6 / total) - log(1 / total); /* 26, end, is left out */
    assert_int_equal(tokens, 104);
    assert_true(fabs(loss - expected) < 1e-12);
    assert_int_equal(correct, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(copies_of_a_sequence_stay_together),
        cmocka_unit_test(shares_are_kept),
        cmocka_unit_test(the_hash_is_the_recorded_one),
        cmocka_unit_test(small_text_files_have_all_splits),
        cmocka_unit_test(the_summary_counts),
        cmocka_unit_test(medians_of_long_sequences_are_near),
        cmocka_unit_test(names_beyond_the_first_table_are_counted),
        cmocka_unit_test(a_scan_can_be_stopped),
        cmocka_unit_test(the_baseline_is_laplaces),
    };
    return cmocka_run_group_tests(tests, setup_files, teardown_files);
}
