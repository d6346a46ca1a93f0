/* test_fasta.c: the readers: what files may look like, and what is said about those that are something else.
 */
#include "base/internal.h"
#include "data/data.h"
#include "support/one_context.h"
#include "support/scratch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Reads a file to its end into "name@line=LETTERS|name@line=LETTERS|". */
static fv_status read_fasta(fv_context *use, const char *path, char *out, size_t bytes)
{
    fv_reader *reader = NULL;
    fv_record record;
    size_t used = 0;
    int more = 1;
    out[0] = '\0';
    TRY(fv_reader_open(&reader, use, "fasta", path));
    fv_status status = FV_OK;
    while ((status = fv_reader_next(reader, &record, &more)) == FV_OK && more)
        used += (size_t)snprintf(out + used, used < bytes ? bytes - used : 0, "%s@%lld=%.*s|", record.name,
                                 (long long)record.line, (int)record.length, record.sequence);
    fv_reader_close(reader);
    return status;
}

static void expect_records(const char *text, size_t count, const char *expected)
{
    char got[4096];
    assert_int_equal(read_fasta(ctx, scratch_write("f.fa", text, count), got, sizeof got), FV_OK);
    assert_string_equal(got, expected);
    assert_int_equal(read_fasta(ctx, scratch_gzip("f.fa.gz", text, count), got, sizeof got), FV_OK);
    assert_string_equal(got, expected);
}

static void fasta_is_read(void **state)
{
    (void)state;
    static const char *const good[][2] = {
        {">a\nMKV\n", "a@1=MKV|"},
        {">a\nMKV", "a@1=MKV|"},
        {">a some words\nMKV\nAC\n\n>b\nW\n", "a@1=MKVAC|b@5=W|"},
        {">a\r\nMKV\r\nAC\r\n>b\r\nW", "a@1=MKVAC|b@4=W|"},
        {"\n\n  \n>a\nMKV\n", "a@4=MKV|"},
        {"; a comment\n>a\n;in between >x\nMK\n; and\nV\n", "a@2=MKV|"},
        {">a\nmk v\n\t A \n", "a@1=mkvA|"},
        {">a\nMKV*\n>b\nMK*V*\n>c\nMKV**\n>d\n*\n", "a@1=MKV|b@3=MK*V|c@5=MKV*|d@7=|"},
        {">a\nM-K.V\n", "a@1=M-K.V|"},
        {">a\n>b\n>\nM\n>c", "a@1=|b@2=|@3=M|c@5=|"},
        {">a\tx\nM\n> b\nK\n", "a@1=M|@3=K|"},
        {">a\nM>K\n", "a@1=M>K|"},
        {">a\xc3\xa9 \xff\nM\n", "a\xc3\xa9@1=M|"},
        {">a\n;", "a@1=|"},
    };
    for (int i = 0; i < FV_COUNT(good); i++)
        expect_records(good[i][0], strlen(good[i][0]), good[i][1]);
}

static void expect_bad(const char *path, const char *place, const char *message)
{
    char got[4096];
    expect_failure(ctx, read_fasta(ctx, path, got, sizeof got), FV_ERR_FILE, place, message, NULL);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    expect_bad(scratch_path("missing.fa"), "missing.fa", "No such file");
    expect_bad("/tmp", "/tmp", "directory");
    expect_bad(scratch_text("f.fa", ""), "f.fa:1", "empty");
    expect_bad(scratch_gzip("f.fa", "", 0), "f.fa:1", "empty");
    expect_bad(scratch_text("f.fa", "\n \r\n\n"), "f.fa:4", "without a record");
    expect_bad(scratch_text("f.fa", "; only\n; comments\n"), "f.fa:3", "without a record");
    expect_bad(scratch_text("f.fa", "MKV\n>a\nMKV\n"), "f.fa:1", "begins with '>'");
    expect_bad(scratch_text("f.fa", "\n\n{\"json\": 1}\n"), "f.fa:3", "begins with '>'");
    expect_bad(scratch_write("f.fa",
                             "\x7f"
                             "ELF\0\0\0",
                             7),
               "f.fa:1", "0x7f");
    expect_bad(scratch_write("f.fa", ">a\nMKV\nMK\0V\n", 12), "f.fa:3", "0x00");
    expect_bad(scratch_write("f.fa", ">a\nMKV\nMK\xff", 10), "f.fa:3", "0xff");
    expect_bad(scratch_write("f.fa", ">a\0\nMKV\n", 8), "f.fa:1", "0x00");
    fv_reader *reader;
    expect_failure(ctx, fv_reader_open(&reader, ctx, "genbank", "/dev/null"), FV_ERR_USAGE, "genbank", NULL);
    assert_null(reader);
}

/* ---- gzip ---------------------------------------------------------------------------------------------- */

static char *slurp(const char *path, size_t *count)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, 1 << 20);
    *count = fread(text, 1, 1 << 20, file);
    fclose(file);
    return text;
}

/* A FASTA text of `count` letters in lines of `width`, that gzip cannot shrink to nothing. */
static char *long_fasta(int64_t count, int64_t width, size_t *bytes)
{
    char *text = malloc((size_t)(16 + count + count / width + 2));
    size_t used = (size_t)sprintf(text, ">long\n");
    uint32_t random = 1;
    for (int64_t i = 0; i < count; i++) {
        if (i > 0 && i % width == 0)
            text[used++] = '\n';
        random = random * 1664525 + 1013904223;
        text[used++] = "ACDEFGHIKLMNPQRSTVWY"[(random >> 16) % 20];
    }
    text[used++] = '\n';
    *bytes = used;
    return text;
}

static void every_cut_gzip_file_is_noticed(void **state)
{
    (void)state;
    size_t bytes, packed;
    char *text = long_fasta(600, 60, &bytes), got[4096];
    char *whole = slurp(scratch_gzip("whole.gz", text, bytes), &packed);
    /* up to the tenth byte zlib cannot tell it from a plain file, which is then not FASTA */
    for (size_t cut = 1; cut < packed; cut++) {
        const char *path = scratch_write("cut.gz", whole, cut);
        fv_status status = read_fasta(ctx, path, got, sizeof got);
        expect_failure(ctx, status, FV_ERR_FILE, "cut.gz", cut >= 10 ? "ends early" : "", NULL);
    }
    whole[packed - 6] ^= 1; /* the checksum */
    expect_bad(scratch_write("damaged.gz", whole, packed), "damaged.gz", "damaged");
    whole[packed - 6] ^= 1;
    whole[packed / 2] ^= 0x55;
    expect_bad(scratch_write("damaged.gz", whole, packed), "damaged.gz", "");
    free(whole);
    free(text);
}

static void gzip_members_follow_each_other(void **state)
{
    (void)state;
    char joined[512], got[256];
    size_t first, second;
    char *a = slurp(scratch_gzip("a.gz", ">a\nMK", 5), &first),
         *b = slurp(scratch_gzip("b.gz", "V\n>b\nW\n", 7), &second);
    memcpy(joined, a, first);
    memcpy(joined + first, b, second);
    const char *path = scratch_write("joined.gz", joined, first + second);
    assert_int_equal(read_fasta(ctx, path, got, sizeof got), FV_OK);
    assert_string_equal(got, "a@1=MKV|b@3=W|");
    free(a);
    free(b);
}

/* ---- sizes --------------------------------------------------------------------------------------------- */

static void check_long(int64_t count, int64_t width)
{
    size_t bytes;
    char *text = long_fasta(count, width, &bytes);
    fv_reader *reader = NULL;
    fv_record record;
    int more = 0;
    assert_int_equal(fv_reader_open(&reader, ctx, "fasta", scratch_gzip("long.fa", text, bytes)), FV_OK);
    assert_int_equal(fv_reader_next(reader, &record, &more), FV_OK);
    assert_true(more);
    assert_int_equal(record.length, count);
    const char *at = text + 6;
    for (int64_t i = 0; i < count; i++, at++) {
        at += *at == '\n';
        assert_true(record.sequence[i] == *at);
    }
    assert_int_equal(fv_reader_next(reader, &record, &more), FV_OK);
    assert_false(more);
    assert_int_equal(fv_reader_next(reader, &record, &more), FV_OK); /* and stays at the end */
    assert_false(more);
    fv_reader_close(reader);
    free(text);
}

static void lengths_from_one_to_a_chromosome(void **state)
{
    (void)state;
    check_long(1, 60);
    check_long(35000, 60);
    check_long(35000, 1);
    check_long(35000, 35000);
    check_long(3000000, 3000000);       /* a line longer than any buffer */
    check_long((1 << 18) - 6, 1 << 30); /* the newline is the first byte of the second buffer */
    check_long((1 << 18) - 7, 1 << 30);
}

static void a_record_beyond_the_limit_is_refused(void **state)
{
    (void)state;
    for (int64_t letters = 99; letters <= 102; letters++)
        for (int stop = 0; stop <= 1; stop++) {
            char text[128] = ">a\n";
            memset(text + 3, 'M', (size_t)letters);
            strcpy(text + 3 + letters, stop ? "*" : "");
            fv_reader *reader = NULL;
            fv_record record;
            int more;
            assert_int_equal(fv_reader_open(&reader, ctx, "fasta", scratch_text("limit.fa", text)), FV_OK);
            reader->limit = 100;
            fv_status status = fv_reader_next(reader, &record, &more);
            if (letters <= 100)
                assert_int_equal(status, FV_OK);
            else
                expect_failure(ctx, status, FV_ERR_FILE, "limit.fa:", "more than 100 letters", NULL);
            fv_reader_close(reader);
        }
}

static void long_names_are_cut(void **state)
{
    (void)state;
    char text[5000] = ">";
    fv_reader *reader = NULL;
    fv_record record;
    int more;
    memset(text + 1, 'n', 4000);
    strcpy(text + 4001, " rest\nMKV\n");
    assert_int_equal(fv_reader_open(&reader, ctx, "fasta", scratch_text("name.fa", text)), FV_OK);
    assert_int_equal(fv_reader_next(reader, &record, &more), FV_OK);
    assert_int_equal(strlen(record.name), FV_RECORD_NAME - 1);
    assert_int_equal(record.length, 3);
    fv_reader_close(reader);
}

/* ---- bytes --------------------------------------------------------------------------------------------- */

static void check_bytes(const char *path, const char *content, int64_t count)
{
    fv_reader *reader = NULL;
    fv_record record;
    int more;
    int64_t at = 0;
    assert_int_equal(fv_reader_open(&reader, ctx, "bytes", path), FV_OK);
    while (fv_reader_next(reader, &record, &more) == FV_OK && more) {
        assert_true(record.length > 0 && record.length <= 65536 && at + record.length <= count);
        assert_memory_equal(record.sequence, content + at, (size_t)record.length);
        at += record.length;
    }
    assert_int_equal(at, count);
    fv_reader_close(reader);
}

static void bytes_are_all_there(void **state)
{
    (void)state;
    static char content[300001];
    for (int i = 0; i < FV_COUNT(content); i++)
        content[i] = (char)(i * 7 + i / 256);
    static const int sizes[] = {1, 1023, 1024, 1025, 65536, 300001};
    for (int i = 0; i < FV_COUNT(sizes); i++) {
        check_bytes(scratch_write("b", content, (size_t)sizes[i]), content, sizes[i]);
        check_bytes(scratch_gzip("b.gz", content, (size_t)sizes[i]), content, sizes[i]);
    }
    fv_reader *reader;
    expect_failure(ctx, fv_reader_open(&reader, ctx, "bytes", scratch_text("empty", "")), FV_ERR_FILE,
                   "empty", NULL);
}

/* ---- allocation failure -------------------------------------------------------------------------------- */

static fv_status read_all(fv_context *failing_ctx, void *path)
{
    char got[64];
    return read_fasta(failing_ctx, path, got, sizeof got);
}

static void allocation_failures_are_reported(void **state)
{
    (void)state;
    size_t bytes;
    char *text = long_fasta(100000, 60, &bytes);
    char *path = strdup(scratch_write("n-th.fa", text, bytes));
    assert_true(fail_every_allocation(read_all, path) >= 4);
    free(path);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fasta_is_read),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(every_cut_gzip_file_is_noticed),
        cmocka_unit_test(gzip_members_follow_each_other),
        cmocka_unit_test(lengths_from_one_to_a_chromosome),
        cmocka_unit_test(a_record_beyond_the_limit_is_refused),
        cmocka_unit_test(long_names_are_cut),
        cmocka_unit_test(bytes_are_all_there),
        cmocka_unit_test(allocation_failures_are_reported),
    };
    return cmocka_run_group_tests(tests, setup_files, teardown_files);
}
