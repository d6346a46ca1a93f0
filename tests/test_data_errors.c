/* test_data_errors.c: settings, files and memory that data cannot be made of. */
#include "support/data_files.h"
#include "support/one_context.h"
#include "support/scratch.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static void wrong_settings_are_refused(void **state)
{
    (void)state;
    const char *path = scratch_text("t.fa", ">a\nMKV\n");
    fv_data *data;
    expect_failure(ctx, data_try(&data, "valid_fraction=0.6 test_fraction=0.6", &path, 1), FV_ERR_USAGE,
                   "valid_fraction", NULL);
    expect_failure(ctx, data_try(&data, "mask_random_share=0.3", &path, 1), FV_ERR_USAGE, "mask_random_share",
                   NULL);
    expect_failure(ctx, data_try(&data, "", &path, 0), FV_ERR_USAGE, "no data file", NULL);
    expect_failure(ctx, data_try(&data, "length=1073741824 batch=1073741824", &path, 1), FV_ERR_USAGE,
                   "1073741824 x 1073741824", NULL);
    assert_null(data);
    const char *files[] = {path, scratch_path("missing.fa")}; /* found before the work begins */
    expect_failure(ctx, data_try(&data, "", files, 2), FV_ERR_FILE, "missing.fa", NULL);
    const char *text = scratch_text("no.fa", "plain text\n");
    expect_failure(ctx, data_try(&data, "", &text, 1), FV_ERR_FILE, "no.fa:1", NULL);
    fv_batch batch;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], ">a\nM\n", 6), 6);
    close(ends[1]);
    char name[64];
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    const char *piped = name;
    expect_failure(ctx, data_try(&data, "", &piped, 1), FV_ERR_FILE, "pipe", NULL);
    close(ends[0]);
    data = data_open_one("", path);
    expect_failure(ctx, fv_data_batch(data, FV_SPLIT_TRAIN, -1, &batch), FV_ERR_USAGE, NULL);
    expect_failure(ctx, fv_data_batch(data, (fv_split)4, 0, &batch), FV_ERR_USAGE, NULL);
    expect_failure(ctx, fv_data_batch(data, FV_SPLIT_VALID, INT64_MAX, &batch), FV_ERR_USAGE, NULL);
    fv_data_close(data);
}

static void too_few_tokens_are_reported(void **state)
{
    (void)state;
    const char *path = scratch_text("t.fa", ">a\nMKV\n>b\nW\n");
    fv_batch batch;
    fv_data *data = data_open_one(ALL_TRAIN "length=100", path);
    for (int64_t index = 0; index < 8; index += 7)
        expect_failure(ctx, fv_data_batch(data, FV_SPLIT_TRAIN, index, &batch), FV_ERR_FILE, "6 tokens",
                       "100", "length", NULL);
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 0, &batch), FV_OK); /* empty, but no error */
    assert_int_equal(batch.tokens, 0);
    fv_data_close(data);
    static const char *const settings[] = {ALL_VALID "length=2", ALL_VALID "length=2 packing=sequences"};
    for (int i = 0; i < FV_COUNT(settings); i++) {
        data = data_open_one(settings[i], path);
        expect_failure(ctx, fv_data_batch(data, FV_SPLIT_TRAIN, 0, &batch), FV_ERR_FILE, "train split",
                       "valid_fraction", NULL);
        fv_data_close(data);
    }
    fv_data_summary summary;
    data = data_open_one("", scratch_text("empty.fa", ">a\n>b\n"));
    expect_failure(ctx, fv_data_scan(data, &summary, NULL), FV_ERR_FILE, "empty.fa", "2 records", NULL);
    fv_data_close(data);
}

/* A file that goes bad behind its beginning is an error when it is reached, each time. */
static void late_damage_is_reported(void **state)
{
    (void)state;
    static char text[300000];
    memset(text, 'M', sizeof text);
    memcpy(text, ">a\n", 3);
    memcpy(text + 200000, "\n>b\nMK\1", 7);
    fv_data *data = data_open_one(ALL_TRAIN "length=50", scratch_write("late.fa", text, sizeof text));
    fv_data_summary summary;
    fv_batch batch;
    for (int i = 0; i < 2; i++) {
        expect_failure(ctx, fv_data_scan(data, &summary, NULL), FV_ERR_FILE, "late.fa:4", "0x01", NULL);
        expect_failure(ctx, fv_data_batch(data, FV_SPLIT_TRAIN, i, &batch), FV_ERR_FILE, "late.fa:4", "0x01",
                       NULL);
    }
    fv_data_close(data);
}

static fv_status use_data(fv_context *failing_ctx, void *path)
{
    fv_config *config = NULL;
    fv_data *data = NULL;
    const char *file = path;
    fv_batch batch;
    fv_data_summary summary;
    fv_status status = fv_config_create(&config, failing_ctx);
    if (status == FV_OK)
        status = fv_config_set(config, "length", "20");
    if (status == FV_OK)
        status = fv_data_open(&data, failing_ctx, config, &file, 1);
    for (int64_t k = 0; k < 40 && status == FV_OK; k += 13)
        status = fv_data_batch(data, FV_SPLIT_TRAIN, k, &batch);
    if (status == FV_OK)
        status = fv_data_batch(data, FV_SPLIT_VALID, 1, &batch);
    if (status == FV_OK)
        status = fv_data_scan(data, &summary, NULL);
    fv_data_close(data);
    fv_config_destroy(config);
    return status;
}

static void allocation_failures_are_reported(void **state)
{
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s", data_records("n-th.fa", 30, 1));
    assert_true(fail_every_allocation(use_data, path) > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_settings_are_refused),
        cmocka_unit_test(too_few_tokens_are_reported),
        cmocka_unit_test(late_damage_is_reported),
        cmocka_unit_test(allocation_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, setup_files, teardown_files);
}
