/* test_tensors.c: safetensors files: what is written reads back; what is hostile is refused. */
#include "base/internal.h"
#include "formats/tensors.h"
#include "support/one_context.h"
#include "support/scratch.h"
#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

/* ---- round trips --------------------------------------------------------------------------------------- */

static const float floats[] = {1, -2.5f, 0, -0.0f, INFINITY, 1e-45f};
static const double doubles[] = {0.1, -1e300, 3};
static const uint16_t halves[] = {0x3f80, 0xc040, 0x7f80}; /* 1, -3, inf */
static const int64_t longs[] = {INT64_MIN, -1, 0, 7};
static const int32_t ints[] = {INT32_MIN, 5};
static const uint8_t bytes[] = {0, 255, 7};

static const fv_tensor sample[] = {
    {"bytes", FV_U8, 1, {3}, 3, bytes},
    {"floats", FV_F32, 2, {2, 3}, 6, floats},
    {"doubles", FV_F64, 1, {3}, 3, doubles},
    {"halves", FV_BF16, 3, {1, 3, 1}, 3, halves},
    {"longs \"quoted\" \xc3\xa9\n", FV_I64, 1, {4}, 4, longs},
    {"ints", FV_I32, 1, {2}, 2, ints},
    {"scalar", FV_F32, 0, {0}, 1, floats},
    {"none", FV_F32, 2, {0, 5}, 0, NULL},
};

static const fv_metadata notes[] = {{"format", "favor"}, {"empty", ""}, {"quote", "\"\n"}};

static const char *write_sample(const char *name)
{
    const char *path = scratch_path(name);
    assert_int_equal(fv_tensors_write(ctx, path, sample, FV_COUNT(sample), notes, FV_COUNT(notes)), FV_OK);
    return path;
}

static void tensors_read_back(void **state)
{
    (void)state;
    fv_tensors *tensors = NULL;
    const char *path = write_sample("sample");
    assert_int_equal(fv_tensors_open(&tensors, ctx, path), FV_OK);
    assert_int_equal(fv_tensors_count(tensors), FV_COUNT(sample));
    for (int i = 0; i < FV_COUNT(sample); i++) {
        const fv_tensor *expected = &sample[i], *got = fv_tensors_find(tensors, expected->name);
        assert_non_null(got);
        assert_int_equal(got->dtype, expected->dtype);
        assert_int_equal(got->rank, expected->rank);
        assert_int_equal(got->count, expected->count);
        for (int k = 0; k < got->rank; k++)
            assert_int_equal(got->shape[k], expected->shape[k]);
        assert_int_equal((uintptr_t)got->data % 64, 0);
        if (got->count > 0)
            assert_memory_equal(got->data, expected->data, (size_t)got->count * fv_dtype_bytes(got->dtype));
    }
    for (int64_t i = 0; i < fv_tensors_count(tensors); i++)
        assert_ptr_equal(fv_tensors_find(tensors, fv_tensors_at(tensors, i)->name),
                         fv_tensors_at(tensors, i));
    assert_null(fv_tensors_at(tensors, -1));
    assert_null(fv_tensors_at(tensors, FV_COUNT(sample)));
    assert_null(fv_tensors_find(tensors, "float"));
    for (int i = 0; i < FV_COUNT(notes); i++)
        assert_string_equal(fv_tensors_metadata(tensors, notes[i].key), notes[i].value);
    assert_null(fv_tensors_metadata(tensors, "no"));
    fv_tensors_close(tensors);
}

static char *slurp(const char *path, size_t *count)
{
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    char *text = calloc(1, 1 << 16);
    *count = fread(text, 1, 1 << 16, file);
    fclose(file);
    return text;
}

static void files_are_aligned_and_stable(void **state)
{
    (void)state;
    size_t count, again;
    char *first = slurp(write_sample("a"), &count), *second = slurp(write_sample("b"), &again);
    assert_int_equal(count, again);
    assert_memory_equal(first, second, count);
    uint64_t length;
    memcpy(&length, first, 8);
    assert_int_equal((8 + length) % 64, 0);
    json_t *root = json_loadb(first + 8, length, 0, NULL); /* every tensor is aligned to its elements */
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry)
    {
        fv_dtype dtype;
        if (strcmp(name, "__metadata__") == 0)
            continue;
        assert_true(fv_dtype_find(json_string_value(json_object_get(entry, "dtype")), &dtype));
        json_int_t begin = json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));
        assert_int_equal((size_t)begin % fv_dtype_bytes(dtype), 0);
    }
    json_decref(root);
    free(first);
    free(second);
}

static void types_convert(void **state)
{
    (void)state;
    float f[6];
    int64_t n[4];
    for (int i = 0; i < 6; i++)
        assert_int_equal(fv_tensor_to_f32(ctx, &sample[i], f), FV_OK); /* sanitizers look on */
    assert_int_equal(fv_tensor_to_f32(ctx, &sample[3], f), FV_OK);
    assert_true(f[0] == 1 && f[1] == -3 && isinf(f[2]));
    assert_int_equal(fv_tensor_to_f32(ctx, &sample[2], f), FV_OK);
    assert_true(f[0] == 0.1f && isinf(f[1]) && f[2] == 3);
    assert_int_equal(fv_tensor_to_f32(ctx, &sample[5], f), FV_OK);
    assert_true(f[0] == -2147483648.0f && f[1] == 5);
    assert_int_equal(fv_tensor_to_i64(ctx, &sample[0], n), FV_OK);
    assert_true(n[0] == 0 && n[1] == 255 && n[2] == 7);
    assert_int_equal(fv_tensor_to_i64(ctx, &sample[4], n), FV_OK);
    assert_true(n[0] == INT64_MIN && n[3] == 7);
    assert_int_equal(fv_tensor_to_i64(ctx, &sample[5], n), FV_OK);
    assert_true(n[0] == INT32_MIN && n[1] == 5);
    expect_failure(ctx, fv_tensor_to_i64(ctx, &sample[1], n), FV_ERR_FILE, "floats", "F32", NULL);
    expect_failure(ctx, fv_tensor_to_i64(ctx, &sample[3], n), FV_ERR_FILE, "halves", "BF16", NULL);
    assert_string_equal(fv_dtype_name(FV_BF16), "BF16");
    assert_int_equal(fv_dtype_bytes(FV_F64), 8);
}

static void wrong_tensors_are_not_written(void **state)
{
    (void)state;
    static const struct {
        fv_tensor tensor;
        const char *message;
    } bad[] = {
        {{"a", FV_F32, 1, {3}, 4, floats}, "product"},  {{"a", FV_F32, 1, {-3}, -3, floats}, "product"},
        {{"a", FV_F32, 9, {1}, 1, floats}, "rank"},     {{"a", (fv_dtype)99, 1, {1}, 1, floats}, "dtype"},
        {{"a", FV_F32, 1, {1}, 1, NULL}, "no data"},    {{"__metadata__", FV_F32, 1, {1}, 1, floats}, "name"},
        {{"\xff", FV_F32, 1, {1}, 1, floats}, "UTF-8"}, {{NULL, FV_F32, 1, {1}, 1, floats}, "name"},
    };
    const char *path = scratch_path("not-written");
    for (int i = 0; i < FV_COUNT(bad); i++)
        expect_failure(ctx, fv_tensors_write(ctx, path, &bad[i].tensor, 1, NULL, 0), FV_ERR_USAGE,
                       "not-written", bad[i].message, NULL);
    fv_tensor twice[] = {sample[1], sample[1]};
    expect_failure(ctx, fv_tensors_write(ctx, path, twice, 2, NULL, 0), FV_ERR_USAGE, "floats", NULL);
    fv_tensors *tensors;
    expect_failure(ctx, fv_tensors_open(&tensors, ctx, path), FV_ERR_FILE, "No such file", NULL);
    assert_null(tensors);
}

/* ---- hostile files ------------------------------------------------------------------------------------- */

/* A file of this header (padded to nothing) and `data` zero bytes; `announce` < 0: its true length. */
static const char *forge(const char *header, int64_t announce, size_t data)
{
    size_t length = strlen(header);
    char *file = calloc(1, 8 + length + data);
    uint64_t said = announce < 0 ? length : (uint64_t)announce;
    memcpy(file, &said, 8);
    memcpy(file + 8, header, length);
    const char *path = scratch_write("forged", file, 8 + length + data);
    free(file);
    return path;
}

static void expect_refused(const char *path, const char *message)
{
    fv_tensors *tensors = NULL;
    fv_context_reset_peak(ctx);
    expect_failure(ctx, fv_tensors_open(&tensors, ctx, path), FV_ERR_FILE, "forged", message, NULL);
    assert_null(tensors);
    assert_true(fv_context_peak_bytes(ctx) < 1 << 20);
}

#define ONE(dtype, shape, offsets)                                                                           \
    "{\"evil\": {\"dtype\": \"" dtype "\", \"shape\": " shape ", \"data_offsets\": " offsets "}}"

static void hostile_headers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *header;
        int64_t announce;
        size_t data;
        const char *message;
    } bad[] = {
        {"", 0, 0, "JSON"},
        {"", 1, 0, "announced"},
        {"{}", INT64_MAX, 0, "announced"},
        {"{}", 1000000000, 0, "announced"},
        {"{}", 3, 0, "announced"},
        {"[]", -1, 0, "object"},
        {"3", -1, 0, "JSON"},
        {"{", -1, 0, "JSON"},
        {"{} x", -1, 0, "JSON"},
        {"{}", -1, 4, "4 bytes behind"},
        {"{\"evil\": 3}", -1, 0, "\"evil\""},
        {"{\"evil\": {}}", -1, 0, "\"evil\""},
        {"{\"ev\x01il\": {}}", -1, 0, "JSON"},
        {"{\"ev\\u0001il\": {}}", -1, 0, "\"ev?il\""},
        {"{\"\xff\": {}}", -1, 0, "JSON"},
        {"{\"a\\u0000b\": {}}", -1, 0, "JSON"},
        {"{\"__metadata__\": 3}", -1, 0, "__metadata__"},
        {"{\"__metadata__\": {\"a\": 3}}", -1, 0, "__metadata__"},
        {"{\"__metadata__\": {}, \"__metadata__\": {}}", -1, 0, "duplicate"},
        {ONE("F16", "[2]", "[0, 4]"), -1, 4, "dtype"},
        {ONE("F32", "[1]", "[0, 4]"), -1, 3, "outside"},
        {ONE("F32", "[1]", "[-4, 0]"), -1, 4, "outside"},
        {ONE("F32", "[1]", "[4, 0]"), -1, 4, "outside"},
        {ONE("F32", "[1]", "[0, 9223372036854775807]"), -1, 4, "outside"},
        {ONE("F32", "[1]", "[0, 9223372036854775808]"), -1, 4, "JSON"},
        {ONE("F32", "[1]", "[0, 4, 4]"), -1, 4, "data_offsets"},
        {ONE("F32", "[1]", "[0.0, 4]"), -1, 4, "data_offsets"},
        {ONE("F32", "[1]", "\"0, 4\""), -1, 4, "data_offsets"},
        {ONE("F32", "[1]", "[4, 8]"), -1, 8, "hole"},
        {ONE("F64", "[1]", "[0, 4]"), -1, 4, "dtype and shape"},
        {ONE("F32", "[2]", "[0, 4]"), -1, 4, "dtype and shape"},
        {ONE("F32", "[1]", "[0, 4]"), -1, 8, "behind"},
        {ONE("F32", "[-1]", "[0, 4]"), -1, 4, "extent"},
        {ONE("F32", "[1.0]", "[0, 4]"), -1, 4, "extent"},
        {ONE("F32", "3", "[0, 4]"), -1, 4, "shape"},
        {ONE("F32", "[1,1,1,1,1,1,1,1,1]", "[0, 4]"), -1, 4, "shape"},
        {ONE("F32", "[4294967296, 4294967296]", "[0, 0]"), -1, 0, "counted"},
        {ONE("F32", "[4611686018427387904]", "[0, 0]"), -1, 0, "dtype and shape"},
        {"{\"a\": {\"dtype\": \"U8\", \"shape\": [4], \"data_offsets\": [0, 4]},"
         " \"evil\": {\"dtype\": \"U8\", \"shape\": [4], \"data_offsets\": [2, 6]}}",
         -1, 6, "\"evil\": its data overlaps"},
        {"{\"a\": {\"dtype\": \"U8\", \"shape\": [4], \"data_offsets\": [0, 4]},"
         " \"evil\": {\"dtype\": \"U8\", \"shape\": [4], \"data_offsets\": [0, 4]}}",
         -1, 4, "its data overlaps"},
        {"{\"a\": {\"dtype\": \"U8\", \"shape\": [4], \"data_offsets\": [0, 4]},"
         " \"a\": {\"dtype\": \"U8\", \"shape\": [4], \"data_offsets\": [4, 8]}}",
         -1, 8, "duplicate"},
    };
    for (int i = 0; i < FV_COUNT(bad); i++)
        expect_refused(forge(bad[i].header, bad[i].announce, bad[i].data), bad[i].message);
    expect_refused(scratch_write("forged", "", 0), "too few");
    expect_refused(scratch_write("forged", "\1\0\0\0\0\0\0", 7), "too few");
    fv_tensors *tensors;
    expect_failure(ctx, fv_tensors_open(&tensors, ctx, "/tmp"), FV_ERR_FILE, "/tmp", "regular", NULL);
    expect_failure(ctx, fv_tensors_open(&tensors, ctx, "/dev/zero"), FV_ERR_FILE, "regular", NULL);
}

static void deep_headers_are_refused(void **state)
{
    (void)state;
    char *header = malloc(100001);
    memset(header, '[', 100000);
    header[100000] = '\0';
    expect_refused(forge(header, -1, 0), "JSON");
    for (int i = 0; i + 5 <= 100000; i += 5)
        memcpy(header + i, "{\"a\":", 5);
    expect_refused(forge(header, -1, 0), "JSON");
    free(header);
}

/* Every proper beginning of a good file is refused. */
static void files_cut_short_are_refused(void **state)
{
    (void)state;
    size_t count;
    char *whole = slurp(write_sample("sample"), &count);
    for (size_t cut = 0; cut < count; cut++) {
        fv_tensors *tensors;
        const char *path = scratch_write("cut", whole, cut);
        assert_int_equal(fv_tensors_open(&tensors, ctx, path), FV_ERR_FILE);
    }
    free(whole);
}

/* Other programs order, pad and leave out as they like. */
static void foreign_layouts_are_read(void **state)
{
    (void)state;
    fv_tensors *tensors = NULL;
    assert_int_equal(fv_tensors_open(&tensors, ctx, forge("{}", -1, 0)), FV_OK);
    assert_int_equal(fv_tensors_count(tensors), 0);
    fv_tensors_close(tensors);
    const char *header =
        " {\"b\": {\"shape\": [1], \"data_offsets\": [3, 7], \"dtype\": \"F32\", \"x\": [1]},"
        "\n\"e\": {\"dtype\": \"F32\", \"shape\": [0], \"data_offsets\": [3, 3]},"
        "\"a\": {\"dtype\": \"U8\", \"shape\": [3], \"data_offsets\": [0, 3]}}   ";
    assert_int_equal(fv_tensors_open(&tensors, ctx, forge(header, -1, 7)), FV_OK);
    assert_string_equal(fv_tensors_at(tensors, 0)->name, "a");
    assert_string_equal(fv_tensors_at(tensors, 1)->name, "e");
    assert_string_equal(fv_tensors_at(tensors, 2)->name, "b");
    assert_int_equal((uintptr_t)fv_tensors_at(tensors, 2)->data % 64, 0);
    fv_tensors_close(tensors);
}

/* ---- exhausted resources ------------------------------------------------------------------------------- */

static fv_status read_and_write(fv_context *failing_ctx, void *arg)
{
    fv_tensors *tensors = NULL;
    fv_status status = fv_tensors_write(failing_ctx, arg, sample, FV_COUNT(sample), notes, FV_COUNT(notes));
    if (status == FV_OK)
        status = fv_tensors_open(&tensors, failing_ctx, arg);
    fv_tensors_close(tensors);
    return status;
}

static void allocation_failures_are_reported(void **state)
{
    (void)state;
    char path[256];
    snprintf(path, sizeof path, "%s", scratch_path("n-th"));
    assert_true(fail_every_allocation(read_and_write, path) >= 8);
}

static void a_full_disk_keeps_the_old_file(void **state)
{
    (void)state;
    static float large[4096];
    fv_tensor tensor = {"large", FV_F32, 1, {4096}, 4096, large};
    const char *path = write_sample("kept");
    struct rlimit old, small;
    getrlimit(RLIMIT_FSIZE, &old);
    small = old;
    small.rlim_cur = 8192;
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &small);
    fv_status status = fv_tensors_write(ctx, path, &tensor, 1, NULL, 0);
    setrlimit(RLIMIT_FSIZE, &old);
    expect_failure(ctx, status, FV_ERR_RESOURCE, "kept", "bytes needed", NULL);
    fv_tensors *tensors = NULL;
    assert_int_equal(fv_tensors_open(&tensors, ctx, path), FV_OK);
    assert_non_null(fv_tensors_find(tensors, "floats"));
    fv_tensors_close(tensors);
    const char *full = scratch_full_device();
    if (full != NULL)
        expect_failure(ctx, fv_tensors_write(ctx, full, &tensor, 1, NULL, 0), FV_ERR_RESOURCE, full, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_read_back),
        cmocka_unit_test(files_are_aligned_and_stable),
        cmocka_unit_test(types_convert),
        cmocka_unit_test(wrong_tensors_are_not_written),
        cmocka_unit_test(hostile_headers_are_refused),
        cmocka_unit_test(deep_headers_are_refused),
        cmocka_unit_test(files_cut_short_are_refused),
        cmocka_unit_test(foreign_layouts_are_read),
        cmocka_unit_test(allocation_failures_are_reported),
        cmocka_unit_test(a_full_disk_keeps_the_old_file),
    };
    return cmocka_run_group_tests(tests, setup_files, teardown_files);
}
