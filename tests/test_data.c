/* test_data.c: splits, packing, tasks, order and repetition of batches, the summary, the baseline. */
#include "base/internal.h"
#include "data/data.h"
#include "support/one_context.h"
#include "support/scratch.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- helpers ------------------------------------------------------------------------------------------- */

/* Opens files with settings "key=value key=value". */
static fv_status open_status(fv_data **data, const char *settings, const char *const *files, int64_t count)
{
    char text[512];
    fv_config *config = NULL;
    assert_int_equal(fv_config_create(&config, ctx), FV_OK);
    snprintf(text, sizeof text, "%s", settings);
    for (char *pair = strtok(text, " "); pair != NULL; pair = strtok(NULL, " ")) {
        char *value = strchr(pair, '=');
        *value = '\0';
        assert_int_equal(fv_config_set(config, pair, value + 1), FV_OK);
    }
    fv_status status = fv_data_open(data, ctx, config, files, count);
    fv_config_destroy(config);
    return status;
}

static fv_data *open_files(const char *settings, const char *const *files, int64_t count)
{
    fv_data *data = NULL;
    fv_status status = open_status(&data, settings, files, count);
    if (status != FV_OK)
        fail_msg("%s", fv_context_message(ctx));
    return data;
}

static fv_data *open_one(const char *settings, const char *path)
{
    return open_files(settings, &path, 1);
}

/* A FASTA file of `records` sequences, number i of length 1 + i * 37 % 90, letters by number. */
static const char *many_records(const char *name, int records, unsigned salt)
{
    char *text = malloc((size_t)records * 128), *at = text;
    unsigned random = salt;
    for (int i = 0; i < records; i++) {
        at += sprintf(at, ">s%u_%d\n", salt, i);
        for (int k = 0; k < 1 + i * 37 % 90; k++) {
            random = random * 1664525 + 1013904223;
            *at++ = "ACDEFGHIKLMNPQRSTVWY"[(random >> 16) % 20];
        }
        *at++ = '\n';
    }
    const char *path = scratch_write(name, text, (size_t)(at - text));
    free(text);
    return path;
}

/* A digest of a batch: equal for equal batches. */
static uint64_t digest(const fv_batch *batch)
{
    uint64_t h = fv_hash(batch->inputs, (size_t)batch->tokens * sizeof *batch->inputs);
    h = h * 31 + fv_hash(batch->targets, (size_t)batch->tokens * sizeof *batch->targets);
    h = h * 31 + fv_hash(batch->offsets, (size_t)(batch->sequences + 1) * sizeof *batch->offsets);
    return h * 31 + (uint64_t)batch->predicted;
}

static uint64_t batch_digest(fv_data *data, fv_split split, int64_t index)
{
    fv_batch batch;
    if (fv_data_batch(data, split, index, &batch) != FV_OK)
        fail_msg("%s", fv_context_message(ctx));
    return digest(&batch);
}

/* The letters of tokens, special ones by their signs. */
static const char *letters(const int32_t *ids, int64_t count)
{
    static char text[2][1024];
    static int next;
    char *out = text[next = !next];
    const fv_tokenizer *protein = fv_tokenizer_find("protein");
    for (int64_t i = 0; i < count; i++)
        out[i] = ids[i] < 0 ? '.' : (char)fv_tokenizer_letter(protein, ids[i]);
    out[count] = '\0';
    return out;
}

/* ---- packing and tasks --------------------------------------------------------------------------------- */

#define ALL_TRAIN "valid_fraction=0 test_fraction=0 "
#define ALL_VALID "valid_fraction=1 test_fraction=0 "

static void lm_shifts_windows(void **state)
{
    (void)state;
    const char *path = scratch_text("t.fa", ">a\nMKVAC\n>b\nW\n>empty\n>c\nDEFG\n");
    fv_data *data = open_one(ALL_VALID "task=lm length=6 batch=2", path);
    fv_batch batch; /* MKVAC>W>DEFG> */
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 0, &batch), FV_OK);
    assert_int_equal(batch.tokens, 12);
    assert_int_equal(batch.sequences, 2);
    assert_int_equal(batch.predicted, 12);
    assert_string_equal(letters(batch.inputs, 12), "<MKVAC<W>DEF");
    assert_string_equal(letters(batch.targets, 12), "MKVAC>W>DEFG");
    assert_true(batch.offsets[0] == 0 && batch.offsets[1] == 6 && batch.offsets[2] == 12);
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 1, &batch), FV_OK); /* the rest is kept */
    assert_int_equal(batch.tokens, 1);
    assert_string_equal(letters(batch.inputs, 1), "<");
    assert_string_equal(letters(batch.targets, 1), ">");
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 2, &batch), FV_OK);
    assert_int_equal(batch.tokens, 0);
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 99, &batch), FV_OK);
    assert_int_equal(batch.tokens, 0);
    fv_data_close(data);
}

static void whole_sequences_keep_their_borders(void **state)
{
    (void)state;
    const char *path = scratch_text("t.fa", ">a\nMKV\n>b\nW\n>c\nDEFGHIKL\n>d\nMM\n");
    fv_data *data = open_one(ALL_VALID "task=lm packing=sequences length=5 batch=2", path);
    fv_batch batch;
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 0, &batch), FV_OK); /* c would be the 11th */
    assert_string_equal(letters(batch.targets, batch.tokens), "MKV>W>");
    assert_string_equal(letters(batch.inputs, batch.tokens), "<MKV<W");
    assert_true(batch.sequences == 2 && batch.offsets[1] == 4 && batch.offsets[2] == 6);
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 1, &batch), FV_OK); /* c cropped to length */
    assert_string_equal(letters(batch.targets, batch.tokens), "DEFGHMM>");
    assert_true(batch.sequences == 2 && batch.offsets[1] == 5 && batch.offsets[2] == 8);
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 2, &batch), FV_OK);
    assert_int_equal(batch.tokens, 0);
    fv_data_close(data);
}

/* Every token of the split comes once, in order, whatever the packing. */
static void evaluation_loses_nothing(void **state)
{
    (void)state;
    const char *path = many_records("many.fa", 200, 1);
    static const char *const settings[] = {"length=64 batch=3", "length=100 batch=2 packing=sequences"};
    for (int i = 0; i < FV_COUNT(settings); i++)
        for (int split = FV_SPLIT_VALID; split <= FV_SPLIT_ALL; split++) {
            char text[256];
            snprintf(text, sizeof text, "valid_fraction=0.3 test_fraction=0.2 task=lm %s", settings[i]);
            fv_data *data = open_one(text, path);
            fv_data_summary summary;
            fv_batch batch;
            int64_t tokens = 0, ends = 0;
            assert_int_equal(fv_data_scan(data, &summary, NULL), FV_OK);
            for (int64_t k = 0; fv_data_batch(data, (fv_split)split, k, &batch) == FV_OK && batch.tokens > 0;
                 k++)
                for (int64_t t = 0; t < batch.tokens; t++, tokens++)
                    ends += batch.targets[t] == 26;
            bool all = split == FV_SPLIT_ALL;
            assert_int_equal(ends, all ? summary.records : summary.split_records[split]);
            assert_int_equal(tokens - ends, all ? summary.tokens : summary.split_tokens[split]);
            assert_true(ends > 20);
            fv_data_close(data);
        }
}

static void masking_keeps_its_rates(void **state)
{
    (void)state;
    const char *path = many_records("many.fa", 2000, 1);
    fv_data *data = open_one(ALL_TRAIN "length=500 batch=8", path);
    fv_data *plain = open_one(ALL_TRAIN "length=500 batch=8 task=lm", path);
    double tokens = 0, chosen = 0, masked = 0, same = 0, ends = 0;
    for (int64_t k = 0; k < 20; k++) {
        fv_batch a, b;
        assert_int_equal(fv_data_batch(data, FV_SPLIT_TRAIN, k, &a), FV_OK);
        assert_int_equal(fv_data_batch(plain, FV_SPLIT_TRAIN, k, &b), FV_OK);
        int64_t predicted = 0;
        for (int64_t t = 0; t < a.tokens; t++) {
            int32_t truth = b.targets[t];
            ends += truth == 26;
            tokens += truth < 25;
            if (a.targets[t] < 0) {
                assert_int_equal(a.inputs[t], truth);
                continue;
            }
            predicted++;
            assert_int_equal(a.targets[t], truth);
            assert_true(truth < 25); /* special tokens are never predicted */
            assert_true(a.inputs[t] < 25 || a.inputs[t] == 28);
            masked += a.inputs[t] == 28;
            same += a.inputs[t] == truth;
        }
        assert_int_equal(predicted, a.predicted);
        chosen += (double)predicted;
    }
    assert_true(ends > 100);
    /* Within 5 standard deviations of the binomial. A random letter is the old one in 1 of 25. */
    assert_true(fabs(chosen - 0.15 * tokens) < 5 * sqrt(tokens * 0.15 * 0.85));
    assert_true(fabs(masked - 0.8 * chosen) < 5 * sqrt(chosen * 0.8 * 0.2));
    assert_true(fabs(same - 0.104 * chosen) < 5 * sqrt(chosen * 0.104 * 0.896));
    fv_data_close(data);
    fv_data_close(plain);
}

static void a_batch_with_letters_has_a_target(void **state)
{
    (void)state;
    const char *path = scratch_text("t.fa", ">a\nMKVAC\n>b\nWYWYWYW\n");
    fv_data *data = open_one(ALL_VALID "length=4 batch=1 mask_rate=0", path);
    fv_batch batch;
    for (int64_t k = 0; k < 3; k++) {
        assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, k, &batch), FV_OK);
        int64_t predicted = 0;
        for (int64_t t = 0; t < batch.tokens; t++)
            predicted += batch.targets[t] >= 0;
        assert_true(predicted == 1 && batch.predicted == 1);
    }
    fv_data_close(data);
    data = open_one(ALL_VALID "length=6 batch=1", scratch_text("u.fa", ">a\nMKVACD\n"));
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 1, &batch), FV_OK); /* only an end is left */
    assert_true(batch.tokens == 1 && batch.inputs[0] == 26 && batch.predicted == 0 && batch.targets[0] == -1);
    fv_data_close(data);
}

/* ---- order --------------------------------------------------------------------------------------------- */

static void batches_do_not_depend_on_the_order_of_calls(void **state)
{
    (void)state;
    static const char *const settings[] = {"length=64 batch=3", "length=64 batch=3 shuffle_buffer=7",
                                           "length=64 batch=3 packing=sequences task=lm",
                                           "length=64 batch=200 seed=9", "length=64 batch=3 reader=bytes"};
    const char *path = many_records("many.fa", 300, 1);
    for (int i = 0; i < FV_COUNT(settings); i++)
        for (int split = FV_SPLIT_TRAIN; split <= FV_SPLIT_ALL; split++) {
            enum { N = 120 }; /* several epochs */
            uint64_t expected[N];
            fv_data *data = open_one(settings[i], path), *other = open_one(settings[i], path);
            for (int64_t k = 0; k < N; k++)
                expected[k] = batch_digest(data, (fv_split)split, k);
            static const int64_t jumps[] = {5, 0, 1, 77, 78, 20, 119, 119, 3};
            for (int k = 0; k < FV_COUNT(jumps); k++) {
                assert_true(batch_digest(other, (fv_split)split, jumps[k]) == expected[jumps[k]]);
                (void)batch_digest(other, (fv_split)((split + 1) % 4),
                                   k); /* splits do not disturb each other */
            }
            fv_data_close(data);
            fv_data_close(other);
        }
}

/* Counts how often each sequence (known by its first tokens up to `end`) comes in an epoch of train. */
static void an_epoch_holds_every_sequence_once(void **state)
{
    (void)state;
    enum { RECORDS = 97 };
    char text[RECORDS * 16 + 1] = "", *at = text;
    for (int i = 0; i < RECORDS; i++) /* four letters and an end: five tokens */
        at += sprintf(at, ">s%d\nM%c%cK\n", i, "ACDEFGHIKL"[i / 10], "ACDEFGHIKL"[i % 10]);
    static const char *const settings[] = {ALL_TRAIN "task=lm length=5 batch=1",
                                           ALL_TRAIN "task=lm length=5 batch=1 shuffle_buffer=10",
                                           ALL_TRAIN "task=lm length=5 batch=1 packing=sequences"};
    for (int i = 0; i < FV_COUNT(settings); i++) {
        fv_data *data = open_one(settings[i], scratch_text("t.fa", text));
        int in_place = 0, previous[RECORDS] = {0}, repeated = 0;
        for (int epoch = 0; epoch < 4; epoch++) {
            int seen[RECORDS] = {0};
            for (int k = 0; k < RECORDS; k++) {
                fv_batch batch;
                assert_int_equal(fv_data_batch(data, FV_SPLIT_TRAIN, epoch * RECORDS + k, &batch), FV_OK);
                const char *word = letters(batch.targets, 5), *alphabet = "ACDEFGHIKL";
                int id = (int)(strchr(alphabet, word[1]) - alphabet) * 10 +
                         (int)(strchr(alphabet, word[2]) - alphabet);
                assert_int_equal(seen[id]++, 0);
                in_place += id == k;
                repeated += epoch > 0 && previous[k] == id;
                previous[k] = id;
            }
        }
        assert_true(in_place < 40); /* shuffled, and differently each epoch */
        assert_true(repeated < 40);
        fv_data_close(data);
    }
}

static void seeds_and_files_change_the_order(void **state)
{
    (void)state;
    const char *files[] = {many_records("one.fa", 100, 1), many_records("two.fa", 100, 2)};
    fv_data *a = open_files("length=64 batch=3 seed=1", files, 2);
    fv_data *b = open_files("length=64 batch=3 seed=2", files, 2);
    assert_true(batch_digest(a, FV_SPLIT_TRAIN, 0) != batch_digest(b, FV_SPLIT_TRAIN, 0));
    /* evaluation splits come in file order, masks aside */
    fv_data *c = open_files("length=64 batch=3 seed=1 task=lm", files, 2);
    fv_data *d = open_files("length=64 batch=3 seed=2 task=lm", files, 2);
    assert_true(batch_digest(c, FV_SPLIT_ALL, 2) == batch_digest(d, FV_SPLIT_ALL, 2));
    fv_data_close(a);
    fv_data_close(b);
    fv_data_close(c);
    fv_data_close(d);
}

/* Without a pool the order of the files shows: it must change from epoch to epoch, and all must come. */
static void files_come_in_a_new_order_each_epoch(void **state)
{
    (void)state;
    enum { FILES = 5, EPOCHS = 6 };
    char paths[FILES][256];
    const char *files[FILES];
    for (int i = 0; i < FILES; i++) {
        char name[] = "0.fa", text[] = ">s\nMMMM\n";
        name[0] = (char)('0' + i);
        text[3] = "ACDEF"[i];
        snprintf(paths[i], sizeof paths[i], "%s", scratch_text(name, text));
        files[i] = paths[i];
    }
    fv_data *data = open_files(ALL_TRAIN "task=lm length=5 batch=5 shuffle_buffer=1", files, FILES);
    char previous[2 * FILES] = "";
    int changes = 0;
    for (int epoch = 0; epoch < EPOCHS; epoch++) {
        char order[2 * FILES] = "";
        fv_batch batch;
        assert_int_equal(fv_data_batch(data, FV_SPLIT_TRAIN, epoch, &batch), FV_OK);
        for (int i = 0; i < FILES; i++)
            order[i] = letters(batch.targets, batch.tokens)[5 * i];
        for (int i = 0; i < FILES; i++)
            assert_non_null(strchr(order, "ACDEF"[i]));
        changes += strcmp(order, previous) != 0;
        strcpy(previous, order);
    }
    assert_true(changes >= EPOCHS - 1);
    fv_data_close(data);
}

/* The batches of these settings, for ever: a change here breaks the resumption of every run there is. */
static void batches_are_the_recorded_ones(void **state)
{
    (void)state;
    const char *path = many_records("many.fa", 300, 1);
    fv_data *data = open_one("length=64 batch=3 seed=5", path);
    assert_true(batch_digest(data, FV_SPLIT_TRAIN, 100) == 0x57ad0243040d9afau);
    assert_true(batch_digest(data, FV_SPLIT_VALID, 1) == 0x681b55adda20c843u);
    fv_data_close(data);
}

/* ---- splits -------------------------------------------------------------------------------------------- */

static void copies_of_a_sequence_stay_together(void **state)
{
    (void)state;
    char text[16384] = "", *at = text;
    for (int i = 0; i < 60; i++) /* each twice, the second in lower case and broken */
        at += sprintf(at, ">a%d\nMKV%cAC%c\n>b%d\nmkv%c\nac%c\n", i, "ACDEFGHIKL"[i / 10],
                      "ACDEFGHIKL"[i % 10], i, "acdefghikl"[i / 10], "acdefghikl"[i % 10]);
    fv_data *data = open_one("valid_fraction=0.3 test_fraction=0.3", scratch_text("t.fa", text));
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
    fv_data *data = open_one("reader=bytes length=100 batch=2", scratch_write("t.txt", text, sizeof text));
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
    fv_data *data = open_files(ALL_TRAIN, files, 2);
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
    fv_data *data = open_one(ALL_TRAIN, scratch_write("long.fa", text, (size_t)(at - text)));
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
    fv_data *data = open_one(ALL_TRAIN, scratch_write("names.fa", text, (size_t)(at - text)));
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
    fv_data *data = open_one(ALL_TRAIN, path);
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

/* ---- what cannot be ------------------------------------------------------------------------------------ */

static void wrong_settings_are_refused(void **state)
{
    (void)state;
    const char *path = scratch_text("t.fa", ">a\nMKV\n");
    fv_data *data;
    expect_failure(ctx, open_status(&data, "valid_fraction=0.6 test_fraction=0.6", &path, 1), FV_ERR_USAGE,
                   "valid_fraction", NULL);
    expect_failure(ctx, open_status(&data, "mask_random_share=0.3", &path, 1), FV_ERR_USAGE,
                   "mask_random_share", NULL);
    expect_failure(ctx, open_status(&data, "", &path, 0), FV_ERR_USAGE, "no data file", NULL);
    expect_failure(ctx, open_status(&data, "length=1073741824 batch=1073741824", &path, 1), FV_ERR_USAGE,
                   "1073741824 x 1073741824", NULL);
    assert_null(data);
    const char *files[] = {path, scratch_path("missing.fa")}; /* found before the work begins */
    expect_failure(ctx, open_status(&data, "", files, 2), FV_ERR_FILE, "missing.fa", NULL);
    const char *text = scratch_text("no.fa", "plain text\n");
    expect_failure(ctx, open_status(&data, "", &text, 1), FV_ERR_FILE, "no.fa:1", NULL);
    fv_batch batch;
    int ends[2];
    assert_int_equal(pipe(ends), 0);
    assert_int_equal(write(ends[1], ">a\nM\n", 6), 6);
    close(ends[1]);
    char name[64];
    snprintf(name, sizeof name, "/dev/fd/%d", ends[0]);
    const char *piped = name;
    expect_failure(ctx, open_status(&data, "", &piped, 1), FV_ERR_FILE, "pipe", NULL);
    close(ends[0]);
    data = open_one("", path);
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
    fv_data *data = open_one(ALL_TRAIN "length=100", path);
    for (int64_t index = 0; index < 8; index += 7)
        expect_failure(ctx, fv_data_batch(data, FV_SPLIT_TRAIN, index, &batch), FV_ERR_FILE, "6 tokens",
                       "100", "length", NULL);
    assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, 0, &batch), FV_OK); /* empty, but no error */
    assert_int_equal(batch.tokens, 0);
    fv_data_close(data);
    static const char *const settings[] = {ALL_VALID "length=2", ALL_VALID "length=2 packing=sequences"};
    for (int i = 0; i < FV_COUNT(settings); i++) {
        data = open_one(settings[i], path);
        expect_failure(ctx, fv_data_batch(data, FV_SPLIT_TRAIN, 0, &batch), FV_ERR_FILE, "train split",
                       "valid_fraction", NULL);
        fv_data_close(data);
    }
    fv_data_summary summary;
    data = open_one("", scratch_text("empty.fa", ">a\n>b\n"));
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
    fv_data *data = open_one(ALL_TRAIN "length=50", scratch_write("late.fa", text, sizeof text));
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
    snprintf(path, sizeof path, "%s", many_records("n-th.fa", 30, 1));
    assert_true(fail_every_allocation(use_data, path) > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lm_shifts_windows),
        cmocka_unit_test(whole_sequences_keep_their_borders),
        cmocka_unit_test(evaluation_loses_nothing),
        cmocka_unit_test(masking_keeps_its_rates),
        cmocka_unit_test(a_batch_with_letters_has_a_target),
        cmocka_unit_test(batches_do_not_depend_on_the_order_of_calls),
        cmocka_unit_test(an_epoch_holds_every_sequence_once),
        cmocka_unit_test(seeds_and_files_change_the_order),
        cmocka_unit_test(files_come_in_a_new_order_each_epoch),
        cmocka_unit_test(batches_are_the_recorded_ones),
        cmocka_unit_test(copies_of_a_sequence_stay_together),
        cmocka_unit_test(shares_are_kept),
        cmocka_unit_test(the_hash_is_the_recorded_one),
        cmocka_unit_test(small_text_files_have_all_splits),
        cmocka_unit_test(the_summary_counts),
        cmocka_unit_test(medians_of_long_sequences_are_near),
        cmocka_unit_test(names_beyond_the_first_table_are_counted),
        cmocka_unit_test(a_scan_can_be_stopped),
        cmocka_unit_test(the_baseline_is_laplaces),
        cmocka_unit_test(wrong_settings_are_refused),
        cmocka_unit_test(too_few_tokens_are_reported),
        cmocka_unit_test(late_damage_is_reported),
        cmocka_unit_test(allocation_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, setup_files, teardown_files);
}
