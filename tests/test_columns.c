/* test_columns.c: lines of columns and the tasks that read them: labels, pairs, translations; what is refused. */
#include "data/data.h"
#include "support/one_context.h"
#include "support/scratch.h"
#include <favor/favor.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALL_TRAIN "valid_fraction=0 test_fraction=0 "
#define OK(expr)  assert_int_equal((expr), FV_OK)

enum { BEGIN = 256, END = 257 };

/* Settings "key=value key=value", tsv unless they say otherwise. */
static fv_config *make_config(fv_context *in, const char *settings)
{
    char text[512];
    fv_config *config = NULL;
    if (fv_config_create(&config, in) != FV_OK)
        return NULL;
    snprintf(text, sizeof text, "reader=tsv %s", settings);
    char *rest = text;
    for (char *pair; (pair = strtok_r(rest, " ", &rest)) != NULL;) {
        char *value = strchr(pair, '=');
        *value = '\0';
        if (fv_config_set(config, pair, value + 1) != FV_OK) {
            fv_config_destroy(config);
            return NULL;
        }
    }
    return config;
}

static fv_status open_status(fv_data **data, const char *settings, const char *path)
{
    fv_config *config = make_config(ctx, settings);
    assert_non_null(config);
    fv_status status = fv_data_open(data, ctx, config, &path, 1);
    fv_config_destroy(config);
    return status;
}

static fv_data *open_data(const char *settings, const char *path)
{
    fv_data *data = NULL;
    if (open_status(&data, settings, path) != FV_OK)
        fail_msg("%s", fv_context_message(ctx));
    return data;
}

/* Tokens as text: letters, '<' begin, '>' end, '.' not predicted, '|' between sequences. */
static const char *show(const int32_t *tokens, const int64_t *offsets, int64_t sequences)
{
    static char text[2][1024];
    static int turn;
    char *at = text[turn ^= 1];
    for (int64_t s = 0; s < sequences; s++) {
        if (s > 0)
            *at++ = '|';
        for (int64_t t = offsets[s]; t < offsets[s + 1]; t++)
            *at++ = tokens[t] == BEGIN ? '<' : tokens[t] == END ? '>' : tokens[t] < 0 ? '.' : (char)tokens[t];
    }
    *at = '\0';
    return text[turn];
}

static const char *show_inputs(const fv_batch *b)
{
    return show(b->inputs, b->offsets, b->sequences);
}

/* ---- the reader ---------------------------------------------------------------------------------- */

/* Every record as "line:text;". */
static fv_status read_all(const char *path, char *got, size_t bytes)
{
    fv_reader *reader;
    size_t used = 0;
    got[0] = '\0';
    TRY(fv_reader_open(&reader, ctx, "tsv", path));
    fv_status status;
    for (int more = 1;;) {
        fv_record record;
        status = fv_reader_next(reader, &record, &more);
        if (status != FV_OK || !more)
            break;
        used += (size_t)snprintf(got + used, bytes - used, "%lld:%.*s;", (long long)record.line,
                                 (int)record.length, record.sequence);
    }
    fv_reader_close(reader);
    return status;
}

static void lines_are_records(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"a\tb\nc\td\n", "1:a\tb;2:c\td;"},  {"a\tb", "1:a\tb;"},           {"a\tb\r\nc\r\n", "1:a\tb;2:c;"},
        {"\n\na\n\n\nb\n\n", "3:a;6:b;"},    {"\r\n\r\na\n", "3:a;"},       {"\t\n", "1:\t;"},
        {"\xc3\xa4\tx\n", "1:\xc3\xa4\tx;"}, {"a\t\tb\t\n", "1:a\t\tb\t;"}, {"\n\n", ""},
    };
    char got[256];
    for (int i = 0; i < FV_COUNT(cases); i++) {
        OK(read_all(scratch_text("t.tsv", cases[i][0]), got, sizeof got));
        assert_string_equal(got, cases[i][1]);
        OK(read_all(scratch_gzip("t.tsv.gz", cases[i][0], strlen(cases[i][0])), got, sizeof got));
        assert_string_equal(got, cases[i][1]);
    }
}

/* A line longer than any buffer, between two short ones. */
static void long_lines_come_whole(void **state)
{
    (void)state;
    const size_t n = 700001;
    char *text = malloc(n + 16);
    fv_reader *reader;
    fv_record record;
    int more;
    memcpy(text, "a\n", 2);
    memset(text + 2, 'x', n);
    memcpy(text + 2 + n, "\nb\n", 3);
    OK(fv_reader_open(&reader, ctx, "tsv", scratch_gzip("t.tsv", text, n + 5)));
    for (int i = 0; i < 3; i++) {
        OK(fv_reader_next(reader, &record, &more));
        assert_int_equal(more, 1);
        assert_int_equal(record.line, i + 1);
        assert_int_equal(record.length, i == 1 ? n : 1);
    }
    OK(fv_reader_next(reader, &record, &more));
    assert_int_equal(more, 0);
    fv_reader_close(reader);
    free(text);
}

static void bad_files_are_told(void **state)
{
    (void)state;
    char got[256];
    expect_failure(ctx, read_all(scratch_text("t.tsv", ""), got, sizeof got), FV_ERR_FILE, "t.tsv:1", "empty",
                   NULL);
    expect_failure(ctx, read_all(scratch_write("t.tsv", "a\tb\nc\0d\n", 8), got, sizeof got), FV_ERR_FILE,
                   "t.tsv:2", "0x00", NULL);
    expect_failure(ctx, read_all(scratch_path("none.tsv"), got, sizeof got), FV_ERR_FILE, "none.tsv", NULL);
}

/* ---- batches ------------------------------------------------------------------------------------------- */

static void labels_stand_beside_texts(void **state)
{
    (void)state;
    fv_data *data = open_data("task=classify num_labels=3 length=5 batch=2",
                              scratch_text("t.tsv", "1\tabc\n0\tabcdefg\n\n2\tx\n"));
    fv_batch b;
    OK(fv_data_batch(data, FV_SPLIT_ALL, 0, &b));
    assert_string_equal(show_inputs(&b), "<abc|<abcd");
    assert_true(b.predicted == 2 && b.labels[0] == 1 && b.labels[1] == 0);
    assert_true(b.targets == NULL && b.source == NULL && b.source_tokens == 0);
    OK(fv_data_batch(data, FV_SPLIT_ALL, 1, &b));
    assert_string_equal(show_inputs(&b), "<x");
    assert_true(b.predicted == 1 && b.labels[0] == 2);
    OK(fv_data_batch(data, FV_SPLIT_ALL, 2, &b));
    assert_true(b.tokens == 0 && b.predicted == 0);
    OK(fv_data_batch(data, FV_SPLIT_ALL, 0, &b)); /* and back */
    assert_string_equal(show_inputs(&b), "<abc|<abcd");
    fv_data_close(data);
}

static void pairs_are_neighbours(void **state)
{
    (void)state;
    fv_data *data =
        open_data("task=match length=4 batch=2", scratch_text("t.tsv", "1\tab\tcdefg\n0\t\tx\n1\ty\tz\n"));
    fv_batch b;
    OK(fv_data_batch(data, FV_SPLIT_ALL, 0, &b));
    assert_string_equal(show_inputs(&b), "<ab|<cde|<|<x");
    assert_true(b.sequences == 4 && b.predicted == 2 && b.labels[0] == 1 && b.labels[1] == 0);
    assert_null(b.targets);
    fv_data_close(data);
}

static void translations_have_a_source(void **state)
{
    (void)state;
    fv_data *data = open_data("task=translate length=4 batch=3",
                              scratch_text("t.tsv", "ab\tcd\nabcdef\txyzuvw\n\tq\nabc\t\n"));
    fv_batch b;
    OK(fv_data_batch(data, FV_SPLIT_ALL, 0, &b));
    assert_string_equal(show(b.source, b.source_offsets, b.sequences), "ab>|abcd|>");
    assert_string_equal(show_inputs(&b), "<cd|<xyz|<q");
    assert_string_equal(show(b.targets, b.offsets, b.sequences), "cd>|xyzu|q>");
    assert_true(b.predicted == b.tokens && b.source_tokens == 8 && b.labels == NULL);
    OK(fv_data_batch(data, FV_SPLIT_ALL, 1, &b));
    assert_string_equal(show(b.source, b.source_offsets, b.sequences), "abc>");
    assert_string_equal(show_inputs(&b), "<");
    assert_string_equal(show(b.targets, b.offsets, b.sequences), ">");
    fv_data_close(data);
}

enum { RECORDS = 23 };

/* Record i is the label i % 3 and a text of i + 1 letters. */
static const char *numbered(void)
{
    static char text[2048];
    text[0] = '\0';
    for (int i = 0; i < RECORDS; i++) {
        char word[64] = "";
        memset(word, 'a' + i, (size_t)i + 1);
        sprintf(text + strlen(text), "%d\t%s\n", i % 3, word);
    }
    return scratch_text("numbered.tsv", text);
}

/* Training batches follow each other through the epochs; every record comes once an epoch, shuffled. */
static void epochs_hold_every_record(void **state)
{
    (void)state;
    fv_data *data = open_data(ALL_TRAIN "task=classify num_labels=3 length=40 batch=5", numbered());
    int in_place = 0, record = 0, seen[RECORDS] = {0};
    for (int k = 0; k < 4 * RECORDS; k++) {
        fv_batch b;
        OK(fv_data_batch(data, FV_SPLIT_TRAIN, k, &b));
        assert_int_equal(b.sequences, 5);
        for (int64_t s = 0; s < 5; s++, record++) {
            int id = (int)(b.offsets[s + 1] - b.offsets[s]) - 2;
            assert_int_equal(b.labels[s], id % 3);
            assert_int_equal(seen[id]++, record / RECORDS);
            in_place += id == record % RECORDS;
        }
    }
    assert_true(in_place < 4 * RECORDS * 5 / 4);
    fv_data_close(data);
}

/* Any jump gives the batch that walking there gives. */
static void jumps_and_walks_agree(void **state)
{
    (void)state;
    static const char *const settings = ALL_TRAIN "task=classify num_labels=3 length=9 batch=5";
    char walked[20][256];
    static const int jumps[] = {17, 3, 4, 12, 0, 19, 19, 9};
    fv_data *data = open_data(settings, numbered());
    fv_batch b;
    for (int k = 0; k < 20; k++) {
        OK(fv_data_batch(data, FV_SPLIT_TRAIN, k, &b));
        snprintf(walked[k], sizeof walked[k], "%s", show_inputs(&b));
    }
    fv_data_close(data);
    data = open_data(settings, numbered());
    for (int i = 0; i < FV_COUNT(jumps); i++) {
        OK(fv_data_batch(data, FV_SPLIT_TRAIN, jumps[i], &b));
        assert_string_equal(show_inputs(&b), walked[jumps[i]]);
    }
    fv_data_close(data);
}

static void summaries_count_what_is_predicted(void **state)
{
    (void)state;
    fv_data_summary sum;
    fv_data *data = open_data(ALL_TRAIN "task=classify num_labels=3", numbered());
    OK(fv_data_scan(data, &sum, NULL));
    assert_true(sum.records == RECORDS && sum.tokens == RECORDS * (RECORDS + 1) / 2 && sum.unknown == 0);
    assert_true(sum.counts[0] == 8 && sum.counts[1] == 8 && sum.counts[2] == 7 && sum.counts['a'] == 0);
    assert_true(sum.min_length == 1 && sum.max_length == RECORDS);
    fv_data_close(data);
    data = open_data(ALL_TRAIN "task=translate", scratch_text("t.tsv", "aab\tbc\n\t\nx\tcc\n"));
    OK(fv_data_scan(data, &sum, NULL));
    assert_true(sum.records == 3 && sum.empty_records == 1 && sum.split_records[FV_SPLIT_TRAIN] == 2);
    assert_true(sum.counts['a'] == 0 && sum.counts['b'] == 1 && sum.counts['c'] == 3);
    fv_data_close(data);
}

static void the_baseline_is_the_frequency_of_labels(void **state)
{
    (void)state;
    static const int32_t labels[] = {1, 1, 0};
    static const int64_t counts[512] = {2, 6};
    const fv_batch b = {.tokens = 9, .sequences = 3, .predicted = 3, .labels = labels};
    int64_t tokens = 0, correct = 0;
    double loss = 0;
    fv_empirical_add(2, counts, &b, &tokens, &loss, &correct);
    assert_true(tokens == 3 && correct == 2);
    assert_true(fabs(loss - (2 * log(10.0 / 7) + log(10.0 / 3))) < 1e-12);
}

/* ---- refusals ---------------------------------------------------------------------------------------- */

static void bad_columns_are_told(void **state)
{
    (void)state;
    static const struct {
        const char *settings, *text, *words[3];
    } cases[] = {
        {"task=classify", "1\ta\n0 b\n", {"t.tsv:2", "1 column;", "a label and a text"}},
        {"task=classify", "1\ta\n\n0\tb\tc\n", {"t.tsv:3", "3 columns;", "expects 2"}},
        {"task=match", "1\ta\tb\n1\ta\tb\tc\td\te\n", {"t.tsv:2", "6 columns;", "a label and two texts"}},
        {"task=translate", "a\n", {"t.tsv:1", "1 column;", "translation"}},
        {"task=classify", "0\ta\npositive\tb\n", {"t.tsv:2", "\"positive\"", "0 to 1"}},
        {"task=classify", "2\ta\n", {"t.tsv:1", "\"2\"", "num_labels is 2"}},
        {"task=classify num_labels=12", "12\ta\n", {"t.tsv:1", "0 to 11", "num_labels"}},
        {"task=classify", "-1\ta\n", {"t.tsv:1", "\"-1\"", ""}},
        {"task=classify", "\ta\n", {"t.tsv:1", "\"\"", ""}},
        {"task=match", "99999999999999999999\ta\tb\n", {"t.tsv:1", "99999999999999999999", ""}},
    };
    for (int i = 0; i < FV_COUNT(cases); i++) {
        fv_data *data = open_data(cases[i].settings, scratch_text("t.tsv", cases[i].text));
        fv_data_summary sum;
        fv_batch b;
        expect_failure(ctx, fv_data_scan(data, &sum, NULL), FV_ERR_FILE, cases[i].words[0], cases[i].words[1],
                       cases[i].words[2], NULL);
        expect_failure(ctx, fv_data_batch(data, FV_SPLIT_ALL, 0, &b), FV_ERR_FILE, cases[i].words[0], NULL);
        fv_data_close(data);
    }
}

static void only_empty_records_are_told(void **state)
{
    (void)state;
    fv_data *data = open_data(ALL_TRAIN "task=classify", scratch_text("t.tsv", "0\t\n1\t\n"));
    fv_data_summary sum;
    fv_batch b;
    expect_failure(ctx, fv_data_scan(data, &sum, NULL), FV_ERR_FILE, "empty", NULL);
    expect_failure(ctx, fv_data_batch(data, FV_SPLIT_TRAIN, 0, &b), FV_ERR_FILE, "no record", NULL);
    expect_failure(ctx, fv_data_batch(data, FV_SPLIT_TRAIN, 7, &b), FV_ERR_FILE, "no record", NULL);
    fv_data_close(data);
}

static void readers_and_tasks_must_fit(void **state)
{
    (void)state;
    fv_data *data;
    const char *path = scratch_text("t.tsv", "0\ta\n");
    expect_failure(ctx, open_status(&data, "task=lm", path), FV_ERR_USAGE, "tsv", "classify", NULL);
    expect_failure(ctx, open_status(&data, "task=match reader=bytes", path), FV_ERR_USAGE, "bytes",
                   "two texts", NULL);
    expect_failure(ctx, open_status(&data, "task=translate reader=fasta", path), FV_ERR_USAGE, "fasta", NULL);
}

static fv_status whole_life(fv_context *in, void *path)
{
    fv_data *data = NULL;
    fv_data_summary sum;
    fv_batch b;
    fv_config *config = make_config(in, "task=translate length=9 batch=2");
    if (config == NULL)
        return FV_ERR_RESOURCE;
    const char *file = path;
    fv_status status = fv_data_open(&data, in, config, &file, 1);
    if (status == FV_OK)
        status = fv_data_scan(data, &sum, NULL);
    for (int k = 5; status == FV_OK && k < 7; k++)
        status = fv_data_batch(data, FV_SPLIT_TRAIN, k, &b);
    fv_data_close(data);
    fv_config_destroy(config);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    char path[4096];
    snprintf(path, sizeof path, "%s", scratch_text("t.tsv", "ab\tcd\nx\ty\nu\tv\nabc\tdef\n"));
    assert_true(fail_every_allocation(whole_life, path) > 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_records),
        cmocka_unit_test(long_lines_come_whole),
        cmocka_unit_test(bad_files_are_told),
        cmocka_unit_test(labels_stand_beside_texts),
        cmocka_unit_test(pairs_are_neighbours),
        cmocka_unit_test(translations_have_a_source),
        cmocka_unit_test(epochs_hold_every_record),
        cmocka_unit_test(jumps_and_walks_agree),
        cmocka_unit_test(summaries_count_what_is_predicted),
        cmocka_unit_test(the_baseline_is_the_frequency_of_labels),
        cmocka_unit_test(bad_columns_are_told),
        cmocka_unit_test(only_empty_records_are_told),
        cmocka_unit_test(readers_and_tasks_must_fit),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, setup_files, teardown_files);
}
