/* test_data.c: packing, tasks, order and repetition of batches. */
#include "support/data_files.h"
#include "support/one_context.h"
#include "support/scratch.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

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

static void lm_shifts_windows(void **state)
{
    (void)state;
    const char *path = scratch_text("t.fa", ">a\nMKVAC\n>b\nW\n>empty\n>c\nDEFG\n");
    fv_data *data = data_open_one(ALL_VALID "task=lm length=6 batch=2", path);
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
    fv_data *data = data_open_one(ALL_VALID "task=lm packing=sequences length=5 batch=2", path);
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
    const char *path = data_records("many.fa", 200, 1);
    static const char *const settings[] = {"length=64 batch=3", "length=100 batch=2 packing=sequences"};
    for (int i = 0; i < FV_COUNT(settings); i++)
        for (int split = FV_SPLIT_VALID; split <= FV_SPLIT_ALL; split++) {
            char text[256];
            snprintf(text, sizeof text, "valid_fraction=0.3 test_fraction=0.2 task=lm %s", settings[i]);
            fv_data *data = data_open_one(text, path);
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
    const char *path = data_records("many.fa", 2000, 1);
    fv_data *data = data_open_one(ALL_TRAIN "length=500 batch=8", path);
    fv_data *plain = data_open_one(ALL_TRAIN "length=500 batch=8 task=lm", path);
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
    fv_data *data = data_open_one(ALL_VALID "length=4 batch=1 mask_rate=0", path);
    fv_batch batch;
    for (int64_t k = 0; k < 3; k++) {
        assert_int_equal(fv_data_batch(data, FV_SPLIT_VALID, k, &batch), FV_OK);
        int64_t predicted = 0;
        for (int64_t t = 0; t < batch.tokens; t++)
            predicted += batch.targets[t] >= 0;
        assert_true(predicted == 1 && batch.predicted == 1);
    }
    fv_data_close(data);
    data = data_open_one(ALL_VALID "length=6 batch=1", scratch_text("u.fa", ">a\nMKVACD\n"));
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
    const char *path = data_records("many.fa", 300, 1);
    for (int i = 0; i < FV_COUNT(settings); i++)
        for (int split = FV_SPLIT_TRAIN; split <= FV_SPLIT_ALL; split++) {
            enum { N = 120 }; /* several epochs */
            uint64_t expected[N];
            fv_data *data = data_open_one(settings[i], path), *other = data_open_one(settings[i], path);
            for (int64_t k = 0; k < N; k++)
                expected[k] = data_digest_at(data, (fv_split)split, k);
            static const int64_t jumps[] = {5, 0, 1, 77, 78, 20, 119, 119, 3};
            for (int k = 0; k < FV_COUNT(jumps); k++) {
                assert_true(data_digest_at(other, (fv_split)split, jumps[k]) == expected[jumps[k]]);
                (void)data_digest_at(other, (fv_split)((split + 1) % 4),
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
        fv_data *data = data_open_one(settings[i], scratch_text("t.fa", text));
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
    const char *files[] = {data_records("one.fa", 100, 1), data_records("two.fa", 100, 2)};
    fv_data *a = data_open_files("length=64 batch=3 seed=1", files, 2);
    fv_data *b = data_open_files("length=64 batch=3 seed=2", files, 2);
    assert_true(data_digest_at(a, FV_SPLIT_TRAIN, 0) != data_digest_at(b, FV_SPLIT_TRAIN, 0));
    /* evaluation splits come in file order, masks aside */
    fv_data *c = data_open_files("length=64 batch=3 seed=1 task=lm", files, 2);
    fv_data *d = data_open_files("length=64 batch=3 seed=2 task=lm", files, 2);
    assert_true(data_digest_at(c, FV_SPLIT_ALL, 2) == data_digest_at(d, FV_SPLIT_ALL, 2));
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
    fv_data *data = data_open_files(ALL_TRAIN "task=lm length=5 batch=5 shuffle_buffer=1", files, FILES);
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
    const char *path = data_records("many.fa", 300, 1);
    fv_data *data = data_open_one("length=64 batch=3 seed=5", path);
    assert_true(data_digest_at(data, FV_SPLIT_TRAIN, 100) == 0x57ad0243040d9afau);
    assert_true(data_digest_at(data, FV_SPLIT_VALID, 1) == 0x681b55adda20c843u);
    fv_data_close(data);
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
    };
    return cmocka_run_group_tests(tests, setup_files, teardown_files);
}
