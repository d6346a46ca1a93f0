/* test_base.c: the lowest room: random numbers, sizes, arenas, counted memory, parallel loops, the context.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/kernels.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#ifdef FV_SANITIZED
#include <sanitizer/asan_interface.h>
#endif

static fv_context *make_context(int threads, const char *cpu)
{
    fv_context *ctx = NULL;
    fv_context_options options;
    fv_context_options_init(&options);
    options.threads = threads;
    options.cpu = cpu;
    assert_int_equal(fv_context_create(&ctx, &options), FV_OK);
    return ctx;
}

/* ---- random numbers ---- */

/* Known answers of Philox 4x32-10, published with Random123 (kat_vectors). */
static void test_philox(void **state)
{
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], want[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < FV_COUNT(known); i++) {
        fv_random stream = {.key = {known[i].key[0], known[i].key[1]},
                            .high = {known[i].counter[2], known[i].counter[3]}};
        uint64_t index = (uint64_t)known[i].counter[1] << 32 | known[i].counter[0];
        uint32_t got[4];
        fv_random_block(&stream, index, got);
        assert_memory_equal(got, known[i].want, sizeof got);
    }
}

/* A stream is its blocks in order; streams of other purposes and numbers differ. */
static void test_streams(void **state)
{
    (void)state;
    fv_random a = fv_random_make(7, FV_RANDOM_TEST, 1, 2), blocks = a;
    for (uint64_t i = 0; i < 5; i++) {
        uint32_t block[4];
        fv_random_block(&blocks, i, block);
        for (int w = 0; w < 4; w++)
            assert_int_equal(fv_random_u32(&a), block[w]);
    }
    fv_random others[] = {fv_random_make(8, FV_RANDOM_TEST, 1, 2), fv_random_make(7, FV_RANDOM_BENCH, 1, 2),
                          fv_random_make(7, FV_RANDOM_TEST, 2, 2), fv_random_make(7, FV_RANDOM_TEST, 1, 3),
                          fv_random_make(7 + (UINT64_C(1) << 40), FV_RANDOM_TEST, 1, 2)};
    fv_random first = fv_random_make(7, FV_RANDOM_TEST, 1, 2);
    uint32_t word = fv_random_u32(&first);
    for (int i = 0; i < FV_COUNT(others); i++)
        assert_true(fv_random_u32(&others[i]) != word);
}

/* Five standard errors of each moment: 1 in 10^6 seeds would fail, and the seed is fixed. */
static void test_moments(void **state)
{
    (void)state;
    enum { COUNT = 200000 };
    fv_random random = fv_random_make(1, FV_RANDOM_TEST, 0, 0);
    double u1 = 0, u2 = 0, n1 = 0, n2 = 0, n4 = 0;
    for (int i = 0; i < COUNT; i++) {
        double u = fv_random_uniform(&random), x = fv_random_normal(&random);
        assert_true(u > 0.0 && u < 1.0);
        u1 += u, u2 += u * u;
        n1 += x, n2 += x * x, n4 += x * x * x * x;
    }
    double five = 5.0 / sqrt((double)COUNT);
    assert_true(fabs(u1 / COUNT - 0.5) < five * sqrt(1.0 / 12.0));
    assert_true(fabs(u2 / COUNT - 1.0 / 3.0) < five * sqrt(4.0 / 45.0));
    assert_true(fabs(n1 / COUNT) < five);
    assert_true(fabs(n2 / COUNT - 1.0) < five * sqrt(2.0));
    assert_true(fabs(n4 / COUNT - 3.0) < five * sqrt(96.0));
}

static void test_below(void **state)
{
    (void)state;
    enum { COUNT = 70000, SIDES = 7 };
    fv_random random = fv_random_make(2, FV_RANDOM_TEST, 0, 0);
    int seen[SIDES] = {0};
    for (int i = 0; i < COUNT; i++) {
        uint64_t side = fv_random_below(&random, SIDES);
        assert_true(side < SIDES);
        seen[side]++;
    }
    for (int s = 0; s < SIDES; s++) /* five standard deviations of a binomial count */
        assert_true(abs(seen[s] - COUNT / SIDES) < (int)(5.0 * sqrt(COUNT / 7.0)));
    for (int i = 0; i < 100; i++) {
        assert_int_equal(fv_random_below(&random, 1), 0);
        assert_true(fv_random_below(&random, UINT64_MAX) < UINT64_MAX);
        assert_true(fv_random_below(&random, (UINT64_C(1) << 63) + 1) <= UINT64_C(1) << 63);
    }
}

/* ---- sizes, arenas, memory ---- */

static void test_sizes(void **state)
{
    (void)state;
    int64_t out = -1;
    assert_true(fv_mul(3, 5, &out) && out == 15);
    assert_true(fv_mul(0, INT64_MAX, &out) && out == 0);
    assert_false(fv_mul(INT64_MAX, 2, &out));
    assert_false(fv_mul(-1, 2, &out));
    assert_false(fv_mul(2, -1, &out));
    assert_true(fv_bytes(0, 4) == 0 && fv_bytes(1, 4) == 64 && fv_bytes(16, 4) == 64 &&
                fv_bytes(17, 4) == 128);
    assert_true(fv_bytes(-1, 4) == SIZE_MAX && fv_bytes(INT64_MAX, 4) == SIZE_MAX);
    assert_true(fv_add_bytes(1, 2) == 3 && fv_add_bytes(SIZE_MAX, 1) == SIZE_MAX);
}

static size_t lay_out(fv_arena *arena, float **a, double **b)
{
    *a = FV_PUSH(arena, float, 5);
    *b = FV_PUSH(arena, double, 9);
    return arena->used;
}

static void test_arena(void **state)
{
    (void)state;
    float *a;
    double *b;
    fv_arena measure = fv_arena_measure();
    size_t need = lay_out(&measure, &a, &b);
    assert_true(need == 64 + 128 + 2 * FV_RED_ZONE && a == NULL && b == NULL);

    char *memory = aligned_alloc(FV_ALIGN, need);
    fv_arena arena = fv_arena_over(memory, need);
    assert_int_equal(lay_out(&arena, &a, &b), need);
    assert_true((char *)a == memory && (char *)b == memory + 64 + FV_RED_ZONE);
#ifdef FV_SANITIZED
    assert_false(__asan_address_is_poisoned(a + 4) || __asan_address_is_poisoned(b + 8));
    assert_true(__asan_address_is_poisoned(a + 5) && __asan_address_is_poisoned(b - 1) &&
                __asan_address_is_poisoned(b + 9));
#endif
    assert_null(FV_PUSH(&arena, char, 1));
    assert_true(arena.used > arena.capacity);

    fv_arena huge = fv_arena_measure();
    assert_null(fv_arena_push(&huge, INT64_MAX, 8));
    assert_null(fv_arena_push(&huge, 1, 1));
    assert_true(huge.used == SIZE_MAX);
    free(memory);
}

typedef struct budget {
    int left;
    int live;
} budget;

static void *budget_alloc(void *user, size_t bytes)
{
    budget *b = user;
    if (b->left-- <= 0)
        return NULL;
    void *memory = aligned_alloc(FV_ALIGN, (bytes + FV_ALIGN - 1) / FV_ALIGN * FV_ALIGN);
    b->live += memory != NULL;
    return memory;
}

static void budget_free(void *user, void *memory)
{
    budget *b = user;
    b->live--;
    free(memory);
}

static void test_memory(void **state)
{
    (void)state;
    fv_context *ctx = make_context(1, NULL);
    assert_true(fv_context_bytes(ctx) == 0);
    float *a = fv_alloc_zero(ctx, 10, sizeof(float));
    assert_true((uintptr_t)a % FV_ALIGN == 0 && a[0] == 0.0f && a[9] == 0.0f);
    void *b = fv_alloc(ctx, 0);
    assert_non_null(b);
    assert_true(fv_context_bytes(ctx) == 64);
    char *text = fv_strdup(ctx, "favor");
    assert_string_equal(text, "favor");
    fv_free(ctx, text);
    assert_true(fv_context_bytes(ctx) == 64 && fv_context_peak_bytes(ctx) >= 70);
    fv_context_reset_peak(ctx);
    assert_true(fv_context_peak_bytes(ctx) == 64);
    assert_null(fv_alloc_array(ctx, INT64_MAX, 8));
    assert_non_null(strstr(fv_context_message(ctx), "memory"));
    fv_free(ctx, a);
    fv_free(ctx, b);
    fv_free(ctx, NULL);
    assert_true(fv_context_bytes(ctx) == 0);
    fv_context_destroy(ctx);
}

static void test_allocator(void **state)
{
    (void)state;
    budget b = {0};
    fv_context_options options;
    fv_context_options_init(&options);
    options.alloc = budget_alloc, options.free = budget_free, options.alloc_user = &b;
    fv_context *ctx = NULL;
    int needed = 0;
    for (fv_status status = FV_ERR_RESOURCE; status != FV_OK; needed++) {
        b.left = needed;
        status = fv_context_create(&ctx, &options);
        assert_true(status == FV_OK || (status == FV_ERR_RESOURCE && ctx == NULL && b.live == 0));
    }
    b.left = 0;
    assert_null(fv_alloc(ctx, 100));
    assert_true(fv_context_bytes(ctx) == 0);
    assert_true(fv_measure_sgemm(ctx, 0.001) == 0.0);
    assert_true(fv_measure_bandwidth(ctx, 0.001) == 0.0);
    fv_context_destroy(ctx);
    assert_int_equal(b.live, 0);
}

/* ---- parallel loops ---- */

typedef struct cover {
    _Atomic int seen[1000];
    _Atomic int bad_worker;
    int threads;
} cover;

static void cover_task(void *arg, int64_t index, int worker)
{
    cover *c = arg;
    atomic_fetch_add(&c->seen[index], 1);
    if (worker < 0 || worker >= c->threads)
        atomic_store(&c->bad_worker, 1);
}

static void test_parallel(void **state)
{
    (void)state;
    static const int64_t counts[] = {0, 1, 2, 3, 7, 1000};
    for (int threads = 1; threads <= 4; threads++) {
        fv_context *ctx = make_context(threads, NULL);
        assert_int_equal(fv_context_threads(ctx), threads);
        for (int i = 0; i < FV_COUNT(counts); i++) {
            cover c = {.threads = threads};
            fv_parallel(ctx, counts[i], cover_task, &c);
            for (int64_t k = 0; k < 1000; k++)
                assert_int_equal(atomic_load(&c.seen[k]), k < counts[i]);
            assert_int_equal(atomic_load(&c.bad_worker), 0);
        }
        fv_context_destroy(ctx);
    }
}

/* ---- the context ---- */

static void test_options(void **state)
{
    (void)state;
    fv_context_options good, bad;
    fv_context_options_init(&good);
    assert_true(good.size == sizeof good);
    fv_context *ctx = (fv_context *)(uintptr_t)1;
    bad = good, bad.size = 8;
    assert_int_equal(fv_context_create(&ctx, &bad), FV_ERR_USAGE);
    assert_null(ctx);
    bad = good, bad.threads = -1;
    assert_int_equal(fv_context_create(&ctx, &bad), FV_ERR_USAGE);
    bad = good, bad.threads = 1 << 20;
    assert_int_equal(fv_context_create(&ctx, &bad), FV_ERR_USAGE);
    bad = good, bad.cpu = "z80";
    assert_int_equal(fv_context_create(&ctx, &bad), FV_ERR_USAGE);
    bad = good, bad.alloc = budget_alloc;
    assert_int_equal(fv_context_create(&ctx, &bad), FV_ERR_USAGE);
    assert_int_equal(fv_context_create(&ctx, NULL), FV_OK);
    assert_true(fv_context_threads(ctx) >= 1);
    assert_string_equal(fv_context_message(ctx), "");
    fv_context_destroy(ctx);
    fv_context_destroy(NULL);
}

static void test_cpu_names(void **state)
{
    (void)state;
    char names[64];
    strcpy(names, fv_cpu_sets());
    const char *last = NULL;
    char *rest = NULL;
    for (char *name = strtok_r(names, " ", &rest); name != NULL; name = strtok_r(NULL, " ", &rest)) {
        fv_context *ctx = make_context(1, name);
        assert_string_equal(fv_context_cpu(ctx), name);
        fv_context_destroy(ctx);
        last = name;
    }
    setenv("FAVOR_CPU", "reference", 1);
    fv_context *ctx = make_context(1, NULL);
    assert_string_equal(fv_context_cpu(ctx), "reference");
    fv_context_destroy(ctx);
    ctx = make_context(1, last); /* the option counts more than the environment */
    assert_string_equal(fv_context_cpu(ctx), last);
    fv_context_destroy(ctx);
    setenv("FAVOR_CPU", "vax", 1);
    assert_int_equal(fv_context_create(&ctx, NULL), FV_ERR_USAGE);
    assert_null(ctx);
    setenv("FAVOR_CPU", "", 1);
    ctx = make_context(1, NULL);
    assert_string_equal(fv_context_cpu(ctx), last);
    fv_context_destroy(ctx);
    unsetenv("FAVOR_CPU");
}

typedef struct tally {
    int kernels, reference;
    const char *gemm;
} tally;

static void count_kernel(void *user, const char *kernel, const char *set)
{
    tally *t = user;
    t->kernels++;
    t->reference += strcmp(set, "reference") == 0;
    if (strcmp(kernel, "gemm_bf16") == 0) /* every set has it */
        t->gemm = set;
}

static void test_kernel_list(void **state)
{
    (void)state;
    int rows = (int)(sizeof(fv_kernels) / sizeof(void (*)(void)));
    fv_context *ctx = make_context(1, "reference");
    tally t = {0};
    fv_context_kernels(ctx, count_kernel, &t);
    assert_true(t.kernels == rows && t.reference == rows);
    fv_context_destroy(ctx);

    ctx = make_context(1, NULL);
    if (strcmp(fv_context_cpu(ctx), "reference") != 0) {
        t = (tally){0};
        fv_context_kernels(ctx, count_kernel, &t);
        assert_int_equal(t.kernels, rows);
        assert_true(t.reference < rows / 4);
        assert_string_equal(t.gemm, fv_context_cpu(ctx));
    }
    fv_context_destroy(ctx);
}

static void test_dtype(void **state)
{
    (void)state;
    fv_context *ctx = make_context(1, NULL);
    assert_string_equal(fv_context_dtype(ctx), "f32");
    assert_int_equal(fv_context_set_dtype(ctx, "bf16"), FV_OK);
    assert_string_equal(fv_context_dtype(ctx), "bf16");
    assert_int_equal(fv_context_set_dtype(ctx, "f16"), FV_ERR_USAGE);
    assert_non_null(strstr(fv_context_message(ctx), "f32 or bf16"));
    assert_string_equal(fv_context_dtype(ctx), "bf16");
    assert_int_equal(fv_context_set_dtype(ctx, "f32"), FV_OK);
    assert_string_equal(fv_context_dtype(ctx), "f32");
    fv_context_destroy(ctx);
}

static void test_messages(void **state)
{
    (void)state;
    fv_context *ctx = make_context(1, NULL);
    assert_int_equal(fv_fail(ctx, FV_ERR_FILE, "line %d: %s", 7, "bad"), FV_ERR_FILE);
    assert_string_equal(fv_context_message(ctx), "line 7: bad");
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    (void)fv_fail(ctx, FV_ERR_FILE, "%s", text);
    assert_true(strlen(fv_context_message(ctx)) < sizeof text);
    fv_context_destroy(ctx);
    assert_string_equal(fv_status_name(FV_OK), "ok");
    assert_string_equal(fv_status_name(FV_STOPPED), "stopped");
    assert_string_equal(fv_status_name((fv_status)-99), "unknown");
    assert_string_equal(fv_version(), FV_VERSION_STRING);
}

static void test_machine(void **state)
{
    (void)state;
    char model[128];
    fv_cpu_model(model, sizeof model);
    assert_true(model[0] != '\0' && strchr(model, '\n') == NULL);
    assert_true(fv_available_memory() > 0);
    double begin = fv_now();
    assert_true(fv_now() >= begin);
    fv_context *ctx = make_context(1, NULL);
    assert_true(fv_measure_sgemm(ctx, 0.05) > 0.0);
    assert_true(fv_measure_sgemm_now(ctx, 0.001) > 0.0);
    assert_true(fv_measure_bandwidth(ctx, 0.05) > 0.0);
    assert_true(fv_context_bytes(ctx) == 0);
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_philox),  cmocka_unit_test(test_streams),   cmocka_unit_test(test_moments),
        cmocka_unit_test(test_below),   cmocka_unit_test(test_sizes),     cmocka_unit_test(test_arena),
        cmocka_unit_test(test_memory),  cmocka_unit_test(test_allocator), cmocka_unit_test(test_parallel),
        cmocka_unit_test(test_options), cmocka_unit_test(test_cpu_names), cmocka_unit_test(test_kernel_list),
        cmocka_unit_test(test_dtype),   cmocka_unit_test(test_messages),  cmocka_unit_test(test_machine),
    };
    unsetenv("FAVOR_CPU"); /* the tests set it themselves */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
