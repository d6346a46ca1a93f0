/* test_config.c: the table of settings, their checks, their files; whole-file reading and writing. */
#include "base/internal.h"
#include "formats/config.h"
#include "formats/file.h"
#include "support/one_context.h"
#include "support/scratch.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static fv_config *fresh(void)
{
    fv_config *config = NULL;
    assert_int_equal(fv_config_create(&config, ctx), FV_OK);
    return config;
}

/* ---- the table --------------------------------------------------------------------------------------- */

static void table_is_sound(void **state)
{
    (void)state;
    fv_config *config = fresh();
    for (int i = 0; i < fv_config_key_count(); i++) {
        const fv_config_key *row = fv_config_key_at(i);
        assert_true(strlen(row->help) > 0);
        assert_int_equal(fv_config_is_set(config, row->key), 0);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(row->key, fv_config_key_at(j)->key);
        /* every default passes its own check, and one outside the range does not */
        assert_int_equal(fv_config_set(config, row->key, row->fallback), FV_OK);
        assert_int_equal(fv_config_is_set(config, row->key), 1);
        char outside[64];
        snprintf(outside, sizeof outside, row->type == FV_CONFIG_INT ? "%.0f" : "%.17g", row->max * 2 + 1);
        if (row->type == FV_CONFIG_INT || row->type == FV_CONFIG_REAL)
            expect_failure(ctx, fv_config_set(config, row->key, outside), FV_ERR_USAGE, row->key, NULL);
    }
    assert_null(fv_config_key_at(-1));
    assert_null(fv_config_key_at(fv_config_key_count()));
    fv_config_destroy(config);
}

static void defaults_are_the_documented_ones(void **state)
{
    (void)state;
    fv_config *config = fresh();
    assert_int_equal(fv_config_int(config, "hidden_size"), 256);
    assert_true(fv_config_real(config, "hidden_dropout_prob") == 0.1);
    assert_true(fv_config_real(config, "adam_epsilon") == 1e-9);
    assert_string_equal(fv_config_text(config, "attention.kind"), "favor+");
    assert_int_equal(fv_config_bool(config, "tie_word_embeddings"), 0);
    /* a caller's mistake reads as nothing */
    assert_int_equal(fv_config_int(config, "attention.kind"), 0);
    assert_string_equal(fv_config_text(config, "no such key"), "");
    fv_config_destroy(config);
}

static void set_checks_type_range_and_choice(void **state)
{
    (void)state;
    static const struct {
        const char *key, *text, *message;
    } bad[] = {
        {"hidden_size", "0", "an integer from 1"},
        {"hidden_size", "-64", "got -64"},
        {"hidden_size", "64.0", "an integer"},
        {"hidden_size", "1e2", "an integer"},
        {"hidden_size", "64 65", "an integer"},
        {"hidden_size", "99999999999999999999999", "an integer"},
        {"hidden_size", "9007199254740993", "an integer"},
        {"hidden_size", "", "nothing"},
        {"hidden_size", "true", "an integer"},
        {"hidden_size", "\"64\"", "an integer"},
        {"learning_rate", "nan", "a number"},
        {"learning_rate", "inf", "a number"},
        {"learning_rate", "1e999", "a number"},
        {"learning_rate", "-1e-9", "a number from 0"},
        {"is_decoder", "yes", "true or false"},
        {"is_decoder", "1", "true or false"},
        {"task", "ml", "mlm|lm|"},
        {"task", "mlm|lm", "mlm|lm|"},
        {"task", "", "mlm|lm|"},
        {"model_type", "bert", "favor"},
        {"hidden_sise", "64", "\"hidden_size\""},
        {"kind", "exact", "\"attention.kind\""},
        {"Learning_Rate", "1", "\"learning_rate\""},
        {"completely different", "1", "unknown key"},
        {"attention", "{}", "unknown key"},
        {"", "1", "unknown key"},
    };
    fv_config *config = fresh();
    for (int i = 0; i < FV_COUNT(bad); i++)
        expect_failure(ctx, fv_config_set(config, bad[i].key, bad[i].text), FV_ERR_USAGE, bad[i].message,
                       NULL);
    char *json = fv_config_json(config, FV_CONFIG_MODEL);
    assert_non_null(strstr(json, "\"hidden_size\": 256"));
    fv_free(ctx, json);
    assert_int_equal(fv_config_set(config, "attention.kind", "any \"name\"\n"), FV_OK);
    assert_string_equal(fv_config_text(config, "attention.kind"), "any \"name\"\n");
    expect_failure(ctx, fv_config_set(config, "attention.kind", "\xff"), FV_ERR_USAGE, "attention.kind",
                   NULL);
    fv_config_destroy(config);
}

/* ---- files ------------------------------------------------------------------------------------------- */

static void written_files_read_back(void **state)
{
    (void)state;
    static const char *const numbers[] = {"0.1", "3e-4", "0.30000000000000004", "1e-300", "123.456"};
    for (int i = 0; i < FV_COUNT(numbers); i++) {
        fv_config *config = fresh(), *back = fresh(), *copy = NULL;
        assert_int_equal(fv_config_set(config, "learning_rate", numbers[i]), FV_OK);
        assert_int_equal(fv_config_set(config, "attention.kind", "relu"), FV_OK);
        assert_int_equal(fv_config_set(config, "seed", "9007199254740992"), FV_OK);
        assert_int_equal(fv_config_set(config, "is_decoder", "true"), FV_OK);
        for (int part = FV_CONFIG_MODEL; part <= FV_CONFIG_TRAIN; part++) {
            char *json = fv_config_json(config, (fv_config_part)part);
            assert_int_equal(fv_config_load(back, scratch_text("c.json", json)), FV_OK);
            fv_free(ctx, json);
        }
        assert_true(fv_config_real(back, "learning_rate") == strtod(numbers[i], NULL));
        assert_string_equal(fv_config_text(back, "attention.kind"), "relu");
        assert_int_equal(fv_config_int(back, "seed"), 9007199254740992);
        assert_int_equal(fv_config_bool(back, "is_decoder"), 1);
        assert_int_equal(fv_config_is_set(back, "batch"), 1);
        assert_int_equal(fv_config_load(back, scratch_text("c.json", "{\"task\": \"lm\"}")), FV_OK);
        assert_int_equal(fv_config_is_set(back, "batch"), 1); /* a second file adds to the first */
        assert_string_equal(fv_config_text(back, "task"), "lm");
        assert_int_equal(fv_config_copy(&copy, back), FV_OK);
        assert_string_equal(fv_config_text(copy, "attention.kind"), "relu");
        fv_config_destroy(config);
        fv_config_destroy(back);
        fv_config_destroy(copy);
    }
}

static void bad_files_name_file_line_and_key(void **state)
{
    (void)state;
    static const struct {
        const char *text, *place, *message;
    } bad[] = {
        {"", "c.json:1", ""},
        {"[]", "c.json:1", "object"},
        {"3", "c.json:1", ""},
        {"{\"hidden_size\": 64", "c.json:1", ""},
        {"{\n\"hidden_size\": 64,\n}", "c.json:3", ""},
        {"{\n\"hidden_size\": \"64\"}", "c.json:2: hidden_size", "an integer"},
        {"{\"attention\": {\n\"kind\":\n 7}}", "c.json:2: attention.kind", "a text"},
        {"{\"attention\": {\"kind\": \"x\"},\n \"kind\": 7}", "c.json:2: unknown key \"kind\"",
         "attention.kind"},
        {"{\"task\": \"lm\",\n\n \"hidden_sise\": 1}", "c.json:3", "did you mean \"hidden_size\""},
        {"{\"attention\": {\"kind\": \"a\\\"b\", \n\"epsilon\": \"c\"}}", "c.json:2: attention.epsilon",
         "a number"},
        {"{\"x\": {\"hidden_size\": 3}}", "c.json:1", "unknown key \"x\""},
        {"{\"attention\": 3}", "c.json:1", "unknown key"},
        {"{\"hidden_size\": {\"a\": 3}}", "c.json:1", "an integer"},
        {"{\"hidden_size\": NaN}", "c.json:1", ""},
        {"{\"hidden_size\": 1e400}", "c.json:1", ""},
        {"{\"hidden_size\": 99999999999999999999999}", "c.json:1", ""},
        {"{\"hidden_size\": 64.5}", "c.json:1", "64.5"},
        {"{\"hidden_size\": null}", "c.json:1", "null"},
        {"{\"hidden_size\": 1,\n\"hidden_size\": 2}", "c.json:2", "duplicate"},
        {"{\"attention\": {\"kind\": \"a\"}, \"attention.kind\": \"b\"}", "c.json", "twice"},
        {"{\"task\": \"\xff\"}", "c.json:1", ""},
        {"{\"task\": \"a\\u0000b\"}", "c.json:1", ""},
        {"\x7f"
         "ELF\x02\x01",
         "c.json:1", ""},
    };
    fv_config *config = fresh();
    for (int i = 0; i < FV_COUNT(bad); i++) {
        const char *path = scratch_text("c.json", bad[i].text);
        expect_failure(ctx, fv_config_load(config, path), FV_ERR_USAGE, bad[i].place, bad[i].message, NULL);
    }
    assert_int_equal(fv_config_int(config, "hidden_size"), 256);
    assert_string_equal(fv_config_text(config, "task"), "mlm"); /* the good half of a bad file is not kept */
    expect_failure(ctx, fv_config_load(config, scratch_path("none")), FV_ERR_USAGE, "No such file", NULL);
    expect_failure(ctx, fv_config_load(config, "/tmp"), FV_ERR_USAGE, "directory", NULL);
    fv_config_destroy(config);
}

static void deep_and_large_files_are_refused(void **state)
{
    (void)state;
    fv_config *config = fresh();
    size_t count = (2 << 20);
    char *text = malloc(count);
    memset(text, '[', count);
    expect_failure(ctx, fv_config_parse(config, "deep", text, 500000), FV_ERR_USAGE, "deep:1", NULL);
    for (size_t i = 0; i < 60000; i += 6)
        memcpy(text + i, "{\"x\": ", 6);
    expect_failure(ctx, fv_config_parse(config, "deep", text, 60000), FV_ERR_USAGE, "deep:1", NULL);
    expect_failure(ctx, fv_config_load(config, scratch_write("large", text, count)), FV_ERR_USAGE, "larger",
                   NULL);
    /* a key longer than any buffer */
    memset(text, 'k', 5000);
    text[0] = '{', text[1] = '"';
    strcpy(text + 5000, "\": 1}");
    expect_failure(ctx, fv_config_load(config, scratch_text("long", text)), FV_ERR_USAGE, "unknown key",
                   NULL);
    free(text);
    fv_config_destroy(config);
}

/* ---- allocation failure ------------------------------------------------------------------------------ */

static fv_status use_config(fv_context *failing_ctx, void *arg)
{
    fv_config *config = NULL, *copy = NULL;
    fv_status status = fv_config_create(&config, failing_ctx);
    if (status == FV_OK)
        status = fv_config_set(config, "attention.kind", "relu");
    if (status == FV_OK)
        status = fv_config_load(config, arg);
    if (status == FV_OK)
        status = fv_config_copy(&copy, config);
    if (status == FV_OK) {
        char *json = fv_config_json(config, FV_CONFIG_TRAIN);
        status = json != NULL ? FV_OK : FV_ERR_RESOURCE;
        fv_free(failing_ctx, json);
    }
    fv_config_destroy(config);
    fv_config_destroy(copy);
    return status;
}

static void allocation_failures_are_reported(void **state)
{
    (void)state;
    const char *path = scratch_text("c.json", "{\"hidden_size\": 8, \"attention\": {\"kind\": \"exact\"}}");
    assert_true(fail_every_allocation(use_config, (void *)(uintptr_t)path) > 20);
}

/* ---- whole files ------------------------------------------------------------------------------------- */

static void files_are_replaced_whole(void **state)
{
    (void)state;
    char *bytes = NULL;
    size_t count = 0;
    const char *path = scratch_path("f");
    assert_int_equal(fv_file_write(ctx, path, "old content", 11), FV_OK);
    assert_int_equal(fv_file_write(ctx, path, "new", 3), FV_OK);
    assert_int_equal(fv_file_read(ctx, path, 100, FV_ERR_FILE, &bytes, &count), FV_OK);
    assert_int_equal(count, 3);
    assert_string_equal(bytes, "new");
    fv_free(ctx, bytes);
    expect_failure(ctx, fv_file_read(ctx, path, 2, FV_ERR_FILE, &bytes, &count), FV_ERR_FILE, "larger", NULL);
    assert_int_equal(fv_file_write(ctx, path, NULL, 0), FV_OK);
    assert_int_equal(fv_file_read(ctx, path, 2, FV_ERR_FILE, &bytes, &count), FV_OK);
    assert_int_equal(count, 0);
    fv_free(ctx, bytes);
}

/* Writes `count` bytes while no file may grow beyond 4096. */
static fv_status write_with_limit(const char *path, size_t count)
{
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 4096;
    signal(SIGXFSZ, SIG_IGN);
    char *bytes = calloc(count, 1);
    setrlimit(RLIMIT_FSIZE, &small);
    fv_status status = fv_file_write(ctx, path, bytes, count);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    free(bytes);
    return status;
}

static void a_full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    char *bytes = NULL;
    size_t count = 0;
    const char *path = scratch_path("kept");
    assert_int_equal(fv_file_write(ctx, path, "old", 3), FV_OK);
    expect_failure(ctx, write_with_limit(path, 10000), FV_ERR_RESOURCE, "kept", "10000 bytes", NULL);
    assert_int_equal(fv_file_read(ctx, path, 100, FV_ERR_FILE, &bytes, &count), FV_OK);
    assert_string_equal(bytes, "old");
    fv_free(ctx, bytes);
    struct stat about;
    const char *full = scratch_full_device();
    if (full == NULL)
        return;
    expect_failure(ctx, fv_file_write(ctx, full, "x", 1), FV_ERR_RESOURCE, full, "No space", NULL);
    assert_int_equal(stat(full, &about), 0);
    assert_true(S_ISCHR(about.st_mode)); /* still the device */
    remove(full);
}

static void unwritable_places_are_reported(void **state)
{
    (void)state;
    expect_failure(ctx, fv_file_write(ctx, scratch_path("no/such/directory/f"), "x", 1), FV_ERR_RESOURCE,
                   "no/such/directory/f", "No such file", NULL);
    expect_failure(ctx, fv_file_write(ctx, "/proc/f", "x", 1), FV_ERR_RESOURCE, "/proc/f", NULL);
    expect_failure(ctx, fv_file_write(ctx, "/tmp", "x", 1), FV_ERR_RESOURCE, "/tmp", NULL);
    mkdir(scratch_path("locked"), 0500);
    if (geteuid() != 0) /* root may write everywhere */
        expect_failure(ctx, fv_file_write(ctx, scratch_path("locked/f"), "x", 1), FV_ERR_RESOURCE, "locked/f",
                       "Permission denied", NULL);
    rmdir(scratch_path("locked"));
}

static void no_temporary_is_left(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = {"c.json", "f", "kept"};
        remove(scratch_path(names[i]));
    }
    remove(scratch_path("large"));
    remove(scratch_path("long"));
    assert_true(scratch_holds(0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_sound),
        cmocka_unit_test(defaults_are_the_documented_ones),
        cmocka_unit_test(set_checks_type_range_and_choice),
        cmocka_unit_test(written_files_read_back),
        cmocka_unit_test(bad_files_name_file_line_and_key),
        cmocka_unit_test(deep_and_large_files_are_refused),
        cmocka_unit_test(allocation_failures_are_reported),
        cmocka_unit_test(files_are_replaced_whole),
        cmocka_unit_test(a_full_disk_keeps_the_old_file),
        cmocka_unit_test(unwritable_places_are_reported),
        cmocka_unit_test(no_temporary_is_left),
    };
    return cmocka_run_group_tests(tests, setup_files, teardown_files);
}
