/* test_resume.c: a run that is stopped, killed, starved of disk or damaged, and continued: the same bits, or
 * a clear refusal. */
#include "support/tiny_run.h"
#include "train/internal.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static fv_context *ctx;
static fv_config *config;

/* One thread: children are forked, and OpenMP's threads do not survive a fork. */
static int setup(void **state)
{
    fv_context_options options;
    fv_context_options_init(&options);
    options.threads = 1;
    if (fv_context_create(&ctx, &options) != FV_OK || scratch_setup(state) != 0)
        return -1;
    tiny_proteins();
    config = tiny_run_config(ctx, NULL);
    return 0;
}

static int teardown(void **state)
{
    fv_config_destroy(config);
    assert_int_equal(fv_context_bytes(ctx), 0);
    fv_context_destroy(ctx);
    return scratch_teardown(state);
}

static void expect_ok(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), fv_context_message(ctx));
}

/* The run that nothing interrupted. */
static void reference_run(void **state)
{
    (void)state;
    expect_ok(tiny_train(ctx, config, "reference", 0, NULL));
}

static void same_as(const char *name, const char *other)
{
    char *expected = tiny_metrics(other), *found = tiny_metrics(name);
    assert_string_equal(found, expected);
    free(expected);
    free(found);
    tiny_same_model(name, other);
}

static void same_as_reference(const char *name)
{
    same_as(name, "reference");
}

/* ---- stops --------------------------------------------------------------------------------------- */

static void stopped_anywhere_and_continued(void **state)
{
    (void)state;
    for (int first = 0; first < 22; first += 3) {
        char name[32];
        snprintf(name, sizeof name, "stopped%d", first);
        fv_status status = tiny_train_until(ctx, config, name, first);
        assert_int_equal(status, FV_STOPPED);
        assert_non_null(strstr(fv_context_message(ctx), "--resume"));
        (void)tiny_train_until(ctx, config, name, 4);
        expect_ok(tiny_train(ctx, config, name, 1, NULL));
        same_as_reference(name);
    }
}

static void stopped_at_every_poll(void **state)
{
    (void)state;
    fv_status status;
    int runs = 0;
    while ((status = tiny_train_until(ctx, config, "halting", 3)) == FV_STOPPED)
        assert_true(++runs < 100);
    expect_ok(status);
    assert_true(runs > 5);
    same_as_reference("halting");
}

static void finished_run_does_nothing_more(void **state)
{
    (void)state;
    fv_train_result result;
    expect_ok(tiny_train(ctx, config, "halting", 1, &result));
    assert_int_equal(result.steps, 20);
    assert_true(result.valid.tokens > 0 && result.best.tokens > 0);
    same_as_reference("halting");
}

/* ---- kills --------------------------------------------------------------------------------------- */

/* Trains in a child that is killed after `microseconds`; true when it had finished before. */
static bool train_and_kill(const char *name, useconds_t microseconds)
{
    pid_t child = fork();
    if (child == 0)
        _exit(tiny_train(ctx, config, name, 1, NULL) == FV_OK ? 0 : 9);
    usleep(microseconds);
    kill(child, SIGKILL);
    int how;
    assert_int_equal(waitpid(child, &how, 0), child);
    if (WIFEXITED(how))
        assert_int_equal(WEXITSTATUS(how), 0);
    return WIFEXITED(how);
}

static void killed_at_random_and_continued(void **state)
{
    (void)state;
    unsigned random = 12345;
    int kills = 0;
    for (int run = 0; run < 4; run++) {
        char name[32];
        snprintf(name, sizeof name, "killed%d", run);
        useconds_t patience = 3000;
        do {
            random = random * 1664525u + 1013904223u;
            patience += 1500; /* ends also where a checkpoint is slow */
            kills++;
        } while (!train_and_kill(name, patience / 4 + random / 65536u % patience));
        same_as_reference(name);
    }
    assert_true(kills > 8);
}

/* A crash between the renames: some files of the set still lie in its directory. */
static void crash_while_publishing(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json", "model.safetensors", "trainer.safetensors",
                                        "trainer.json"};
    for (int moved = 0; moved <= FV_COUNT(files); moved++) {
        char command[8192];
        tiny_remove("crashed");
        (void)tiny_train_until(ctx, config, "crashed", 7);
        char run[1024];
        snprintf(run, sizeof run, "%s", scratch_path("crashed"));
        snprintf(command, sizeof command,
                 "mkdir -p '%s/checkpoint' '%s/checkpoint.part' '%s/best'; echo half > '%s/checkpoint.part/"
                 "config.json'; echo half > '%s/best/x.1.part'",
                 run, run, run, run, run);
        assert_int_equal(system(command), 0);
        for (int i = moved; i < FV_COUNT(files); i++) {
            snprintf(command, sizeof command, "mv '%s/%s' '%s/checkpoint/' && echo old > '%s/%s'", run,
                     files[i], run, run, files[i]);
            assert_int_equal(system(command), 0);
        }
        expect_ok(tiny_train(ctx, config, "crashed", 1, NULL));
        same_as_reference("crashed");
        assert_false(fv_path_exists(run, "checkpoint"));
        assert_false(fv_path_exists(run, "checkpoint.part"));
        assert_false(fv_path_exists(run, "best/x.1.part"));
    }
}

/* ---- damage -------------------------------------------------------------------------------------- */

static void damage(const char *file, const char *how)
{
    char command[8192], path[4096];
    snprintf(path, sizeof path, "%s/%s", scratch_path("damaged"), file);
    snprintf(command, sizeof command, how, path);
    assert_int_equal(system(command), 0);
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    static const char *const files[] = {"config.json", "model.safetensors", "trainer.safetensors",
                                        "trainer.json"};
    static const char *const hows[] = {
        "rm '%s'",
        "truncate -s 0 '%s'",
        "truncate -s -9 '%s'",
        "truncate -s 10 '%s'",
        "printf '\\377\\377\\377\\377\\377\\377\\377\\177' | dd of='%s' conv=notrunc status=none",
    };
    for (int f = 0; f < FV_COUNT(files); f++)
        for (int h = 0; h < FV_COUNT(hows); h++) {
            tiny_remove("damaged");
            assert_int_equal(tiny_train_until(ctx, config, "damaged", 6), FV_STOPPED);
            damage(files[f], hows[h]);
            fv_status status = tiny_train(ctx, config, "damaged", 1, NULL);
            if (status != FV_ERR_FILE || strstr(fv_context_message(ctx), files[f]) == NULL)
                fail_msg("%s, %s: status %d, %s", files[f], hows[h], (int)status, fv_context_message(ctx));
        }
    tiny_remove("damaged");
    assert_int_equal(tiny_train_until(ctx, config, "damaged", 6), FV_STOPPED);
    damage("trainer.safetensors", "printf x | dd of='%s' bs=1 seek=9000 conv=notrunc status=none");
    expect_failure(ctx, tiny_train(ctx, config, "damaged", 1, NULL), FV_ERR_FILE, "trainer.safetensors",
                   NULL);
}

static void trainer_json_is_checked(void **state)
{
    (void)state;
    static const char *const edits[][2] = {
        {"s/\"format\": 1/\"format\": 2/", "format"},
        {"s/\"step\": 6/\"step\": \"six\"/", "step"},
        {"s/\"task\": \"lm\"/\"task\": \"guess\"/", "task"},
        {"s/\"length\": 32/\"length\": -1/", "length"},
        {"s/\"unigram\"/\"bigram\"/", "unigram"},
        {"s/\"path\"/\"road\"/", "files"},
        {"s/\"window\"/\"door\"/", "loss"},
        {"s/\"fingerprint\"/\"thumb\"/", "fingerprint"},
    };
    for (int i = 0; i < FV_COUNT(edits); i++) {
        char how[256];
        tiny_remove("damaged");
        assert_int_equal(tiny_train_until(ctx, config, "damaged", 6), FV_STOPPED);
        snprintf(how, sizeof how, "sed -i '%s' '%%s'", edits[i][0]);
        damage("trainer.json", how);
        expect_failure(ctx, tiny_train(ctx, config, "damaged", 1, NULL), FV_ERR_FILE, "trainer.json",
                       edits[i][1], NULL);
    }
}

/* ---- settings ------------------------------------------------------------------------------------ */

static void settings_must_agree(void **state)
{
    (void)state;
    static const char *const changed[][2] = {
        {"learning_rate", "0.02"}, {"hidden_size", "32"},           {"seed", "8"},   {"length", "16"},
        {"schedule", "rsqrt"},     {"attention.kind", "exact"},     {"task", "mlm"}, {"hidden_act", "relu"},
        {"weight_decay", "0"},     {"tie_word_embeddings", "true"},
    };
    assert_int_equal(tiny_train_until(ctx, config, "settled", 6), FV_STOPPED);
    for (int i = 0; i < FV_COUNT(changed); i++) {
        fv_config *other = tiny_run_config(ctx, changed[i][0], changed[i][1], NULL);
        expect_failure(ctx, tiny_train(ctx, other, "settled", 1, NULL), FV_ERR_USAGE, changed[i][0],
                       changed[i][1], NULL);
        fv_config_destroy(other);
    }
    fv_config *none; /* nothing given: everything as it was */
    expect_ok(fv_config_create(&none, ctx));
    expect_ok(tiny_train(ctx, none, "settled", 1, NULL));
    fv_config_destroy(none);
    same_as_reference("settled");
}

static void a_run_can_be_lengthened(void **state)
{
    (void)state;
    fv_config *brief = tiny_run_config(ctx, "schedule", "constant", "steps", "6", NULL);
    fv_config *whole = tiny_run_config(ctx, "schedule", "constant", NULL);
    expect_ok(tiny_train(ctx, brief, "longer", 1, NULL));
    expect_ok(tiny_train(ctx, whole, "longer", 1, NULL));
    expect_ok(tiny_train(ctx, whole, "long", 0, NULL));
    tiny_same_model("longer", "long");
    fv_train_result result; /* shorter than it is: nothing is left to do */
    expect_ok(tiny_train(ctx, brief, "longer", 1, &result));
    assert_int_equal(result.steps, 20);
    fv_config_destroy(brief);
    fv_config_destroy(whole);
}

static void other_data_is_refused(void **state)
{
    (void)state;
    assert_int_equal(tiny_train_until(ctx, config, "fed", 6), FV_STOPPED);
    char *text;
    size_t count;
    text = tiny_file(".", "proteins.fasta", &count);
    scratch_write("proteins.fasta", text, count - 3);
    expect_failure(ctx, tiny_train(ctx, config, "fed", 1, NULL), FV_ERR_USAGE, "proteins.fasta", "bytes",
                   NULL);
    for (size_t i = 0; i < count; i++)
        if (text[i] == 'L')
            text[i] = 'V';
    scratch_write("proteins.fasta", text, count);
    expect_failure(ctx, tiny_train(ctx, config, "fed", 1, NULL), FV_ERR_USAGE, "data", NULL);
    free(text);
    tiny_proteins();
    expect_ok(tiny_train(ctx, config, "fed", 1, NULL));
    same_as_reference("fed");
}

static void metrics_file_may_be_lost_but_not_edited(void **state)
{
    (void)state;
    tiny_remove("damaged");
    assert_int_equal(tiny_train_until(ctx, config, "damaged", 10), FV_STOPPED);
    damage("metrics.jsonl", "rm '%s'");
    expect_ok(tiny_train(ctx, config, "damaged", 1, NULL));
    tiny_same_model("damaged", "reference");
    tiny_remove("damaged");
    assert_int_equal(tiny_train_until(ctx, config, "damaged", 10), FV_STOPPED);
    damage("metrics.jsonl", "sed -i 's/^/ /' '%s'");
    expect_failure(ctx, tiny_train(ctx, config, "damaged", 1, NULL), FV_ERR_FILE, "metrics.jsonl", NULL);
}

/* ---- surroundings -------------------------------------------------------------------------------- */

static void a_full_disk_keeps_the_checkpoint(void **state)
{
    (void)state;
    struct rlimit old, small;
    size_t bytes;
    assert_int_equal(tiny_train_until(ctx, config, "full", 7), FV_STOPPED);
    free(tiny_file("full", "trainer.safetensors", &bytes));
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    signal(SIGXFSZ, SIG_IGN);
    for (int i = 0; i < 3; i++) {
        small.rlim_cur = bytes / 4 * (rlim_t)(i + 1) - 1;
        setrlimit(RLIMIT_FSIZE, &small);
        fv_status status = tiny_train(ctx, config, "full", 1, NULL);
        setrlimit(RLIMIT_FSIZE, &old);
        assert_int_equal(status, FV_ERR_RESOURCE);
        assert_false(fv_path_exists(scratch_path("full"), "checkpoint.part"));
    }
    small.rlim_cur = 100;
    setrlimit(RLIMIT_FSIZE, &small);
    fv_status status = tiny_train(ctx, config, "fuller", 0, NULL);
    setrlimit(RLIMIT_FSIZE, &old);
    signal(SIGXFSZ, SIG_DFL);
    expect_failure(ctx, status, FV_ERR_RESOURCE, "fuller", NULL);
    assert_false(fv_path_exists(scratch_path("fuller"), ""));
    expect_ok(tiny_train(ctx, config, "full", 1, NULL));
    same_as_reference("full");
}

static void train_again(void *user, const fv_train_plan *plan)
{
    (void)plan;
    fv_status status = tiny_train(ctx, config, "locked", 1, NULL);
    *(int *)user = status == FV_ERR_USAGE && strstr(fv_context_message(ctx), "another process") != NULL;
}

static void two_runs_do_not_share_a_directory(void **state)
{
    (void)state;
    int refused = 0;
    char directory[4096];
    snprintf(directory, sizeof directory, "%s", scratch_path("locked"));
    const char *files[] = {scratch_path("proteins.fasta")};
    fv_train_options options;
    fv_train_options_init(&options);
    options.directory = directory;
    options.files = files;
    options.file_count = 1;
    options.resume = 1;
    options.plan = train_again;
    options.observer.user = &refused;
    fv_train_result result;
    expect_ok(fv_train(ctx, config, &options, &result));
    assert_int_equal(refused, 1);
    same_as_reference("locked");
}

/* Tasks that read columns, their models, and bf16 continue like any other: stopped anywhere, or killed. */
static void other_tasks_continue_too(void **state)
{
    (void)state;
    static const char *const runs[][4] = {
        {"classify", "pooling", "cls", "f32"},
        {"match", "gradient_checkpointing", "true", "bf16"},
        {"translate", "reversible", "true", "bf16"},
    };
    fv_config *proteins = config;
    tiny_columns();
    for (int i = 0; i < FV_COUNT(runs); i++) {
        char name[64], whole[64];
        snprintf(whole, sizeof whole, "whole-%s", runs[i][0]);
        snprintf(name, sizeof name, "cut-%s", runs[i][0]);
        config = tiny_run_config(ctx, "task", runs[i][0], "reader", "tsv", "batch", "7", runs[i][1],
                                 runs[i][2], "dtype", runs[i][3], NULL);
        expect_ok(tiny_train(ctx, config, whole, 0, NULL));
        for (int first = 2; first < 20; first += 7) {
            tiny_remove(name);
            assert_int_equal(tiny_train_until(ctx, config, name, first), FV_STOPPED);
            (void)tiny_train_until(ctx, config, name, 4);
            expect_ok(tiny_train(ctx, config, name, 1, NULL));
            same_as(name, whole);
        }
        tiny_remove(name);
        for (useconds_t patience = 3000; !train_and_kill(name, patience); patience += 3000)
            ;
        same_as(name, whole);
        fv_config_destroy(config);
    }
    config = proteins;
}

/* Last: it starts OpenMP's threads. */
static void threads_change_no_bit(void **state)
{
    (void)state;
    fv_context_options options;
    fv_context_options_init(&options);
    fv_context *one = ctx;
    for (options.threads = 2; options.threads <= 3; options.threads++) {
        char name[32];
        snprintf(name, sizeof name, "threads%d", options.threads);
        assert_int_equal(fv_context_create(&ctx, &options), FV_OK);
        fv_config *same = tiny_run_config(ctx, NULL);
        expect_ok(tiny_train(ctx, same, name, 0, NULL));
        fv_config_destroy(same);
        fv_context_destroy(ctx);
        ctx = one;
        same_as_reference(name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reference_run),
        cmocka_unit_test(stopped_anywhere_and_continued),
        cmocka_unit_test(stopped_at_every_poll),
        cmocka_unit_test(finished_run_does_nothing_more),
        cmocka_unit_test(killed_at_random_and_continued),
        cmocka_unit_test(crash_while_publishing),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(trainer_json_is_checked),
        cmocka_unit_test(settings_must_agree),
        cmocka_unit_test(a_run_can_be_lengthened),
        cmocka_unit_test(other_data_is_refused),
        cmocka_unit_test(metrics_file_may_be_lost_but_not_edited),
        cmocka_unit_test(a_full_disk_keeps_the_checkpoint),
        cmocka_unit_test(two_runs_do_not_share_a_directory),
        cmocka_unit_test(other_tasks_continue_too),
        cmocka_unit_test(threads_change_no_bit),
    };
    return cmocka_run_group_tests_name("resume", tests, setup, teardown);
}
