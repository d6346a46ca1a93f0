/* test_kernels.c: every kernel of every set this processor has, against the scalar reference: lengths around
 * the vector's, all alignments, memory flush against forbidden pages, canaries, shaped inputs, in place.
 *
 * Tolerance: abs(err) <= C eps m with m the result on absolute values (support/kernel_cases.h). A result must
 * not depend on alignment in any bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "support/guarded.h"
#include "support/kernel_cases.h"
#include <ctype.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { C = 8, PAD = 5, OFFSETS = 4, LARGEST = 4096 };

enum shape { NORMAL, WIDE, CANCELLING, DENORMAL, HUGE_VALUES, ZEROS, INFINITIES, NANS, SHAPES };
static const char *const shape_names[] = {"normal",      "wide",  "cancelling", "denormal",
                                          "huge values", "zeros", "infinities", "nans"};

static const int64_t sizes[] = {0, 1, 2, 3, 4, 7, 8, 9, 11, 15, 16, 17, 19, 35, 67, 131, LARGEST};

static float shaped(fv_random *random, enum shape shape)
{
    float x = (float)fv_random_normal(random);
    bool rare = fv_random_below(random, 16) == 0, negative = fv_random_below(random, 2) == 0;
    switch (shape) {
    case WIDE:
        return 60.0f * x;
    case CANCELLING:
        return (negative ? -64.0f : 64.0f) + 1e-3f * x;
    case DENORMAL:
        return 1e-40f * x;
    case HUGE_VALUES:
        return 1e17f * x;
    case ZEROS:
        return rare ? x : negative ? -0.0f : 0.0f;
    case INFINITIES:
        return rare ? (negative ? -INFINITY : INFINITY) : x;
    case NANS:
        return rare ? NAN : x;
    default:
        return x;
    }
}

/* All memory of one test: the same operands four times. */
typedef struct bench {
    operands master, reference, absolute, tested;
    guarded rooms[2 * CASE_ARRAYS];
    float *first[CASE_ARRAYS]; /* the tested results at the first alignment */
    bool have_first;
    char what[256];
} bench;

static int64_t capacity(void)
{
    return 3 * (LARGEST + PAD) + 64;
}

static void operands_make(operands *o)
{
    for (int a = 0; a < CASE_ARRAYS; a++) {
        o->in[a] = malloc((size_t)capacity() * sizeof(float));
        o->out[a] = malloc((size_t)capacity() * sizeof(float));
    }
}

static void operands_free(operands *o)
{
    for (int a = 0; a < CASE_ARRAYS; a++) {
        free(o->in[a]);
        free(o->out[a]);
    }
}

static void bench_make(bench *b)
{
    *b = (bench){.have_first = false};
    operands_make(&b->master);
    operands_make(&b->reference);
    operands_make(&b->absolute);
    b->master.visible = calloc(64, sizeof(int64_t));
    b->master.ids = calloc(64, sizeof(int32_t));
    for (int a = 0; a < CASE_ARRAYS; a++)
        b->first[a] = malloc((size_t)capacity() * sizeof(float));
    for (int r = 0; r < 2 * CASE_ARRAYS; r++)
        b->rooms[r] = guarded_make((size_t)capacity() * sizeof(float));
}

static void bench_free(bench *b)
{
    operands_free(&b->master);
    operands_free(&b->reference);
    operands_free(&b->absolute);
    free(b->master.visible);
    free(b->master.ids);
    for (int a = 0; a < CASE_ARRAYS; a++)
        free(b->first[a]);
    for (int r = 0; r < 2 * CASE_ARRAYS; r++)
        guarded_free(&b->rooms[r]);
}

static size_t bytes_of(char letter, const operands *o)
{
    return (size_t)case_floats(letter, o) * sizeof(float);
}

static void fill_array(float *x, char letter, const operands *o, fv_random *random, enum shape shape)
{
    memset(x, GUARDED_CANARY, bytes_of(letter, o));
    int64_t rows = toupper(letter) == 'R' ? o->n : 1;
    int64_t columns = toupper(letter) == 'R' ? o->c : case_floats(letter, o);
    for (int64_t i = 0; i < rows; i++)
        for (int64_t f = 0; f < columns; f++)
            x[i * o->ld + f] = islower(letter) ? NAN : shaped(random, shape);
}

static void fill_master(bench *b, const kernel_case *k, enum shape shape, bool in_place, uint32_t seed)
{
    operands *o = &b->master;
    fv_random random = fv_random_make(seed, FV_RANDOM_TEST, 1, 2);
    for (int a = 0; k->in[a] != '\0'; a++)
        fill_array(o->in[a], k->in[a], o, &random, shape);
    for (int a = 0; k->out[a] != '\0'; a++)
        fill_array(o->out[a], k->out[a], o, &random, shape);
    for (int64_t i = 0; i < o->n; i++) {
        o->visible[i] = (int64_t)fv_random_below(&random, (uint64_t)o->c + 3) - 1;
        o->ids[i] = o->c > 0 ? (int32_t)fv_random_below(&random, (uint64_t)o->c) : 0;
    }
    if (k->prepare != NULL)
        k->prepare(o);
    if (in_place)
        memcpy(o->out[0], o->in[k->in_place - 1], bytes_of(k->out[0], o));
}

/* The same operands in other memory. */
static void copy_operands(operands *to, const operands *from, const kernel_case *k, bool in_place)
{
    to->n = from->n, to->c = from->c, to->ld = from->ld, to->variant = from->variant;
    to->visible = from->visible, to->ids = from->ids, to->value = 0.0;
    for (int a = 0; k->in[a] != '\0'; a++)
        memcpy(to->in[a], from->in[a], bytes_of(k->in[a], from));
    for (int a = 0; k->out[a] != '\0'; a++)
        memcpy(to->out[a], from->out[a], bytes_of(k->out[a], from));
    if (in_place)
        to->in[k->in_place - 1] = to->out[0];
}

static void make_absolute(float *x, size_t bytes)
{
    for (size_t i = 0; i < bytes / sizeof *x; i++)
        x[i] = fabsf(x[i]);
}

static void run_reference(bench *b, const kernel_case *k, const fv_kernels *reference, bool in_place)
{
    operands saved = b->reference;
    copy_operands(&b->reference, &b->master, k, in_place);
    k->call(reference, &b->reference);
    if (in_place)
        b->reference.in[k->in_place - 1] = saved.in[k->in_place - 1];

    copy_operands(&b->absolute, &b->master, k, false);
    for (int a = 0; k->in[a] != '\0'; a++)
        make_absolute(b->absolute.in[a], bytes_of(k->in[a], &b->master));
    for (int a = 0; k->out[a] != '\0'; a++) {
        if (k->magnitude == kernel_case_self)
            memcpy(b->absolute.out[a], b->reference.out[a], bytes_of(k->out[a], &b->master));
        make_absolute(b->absolute.out[a], bytes_of(k->out[a], &b->master));
    }
    if (k->magnitude == NULL)
        k->call(reference, &b->absolute);
    else
        k->magnitude(&b->absolute, &b->reference);
}

/* Whether `got` may stand for `want`: not-a-number for not-a-number, the same infinity, else within C eps m.
 * Where the magnitude itself overflows, any order of operations may, and only NaN must stay NaN. */
static bool close_enough(double got, double want, double m, double eps)
{
    if (isnan(want) || isnan(got))
        return isnan(want) && isnan(got);
    if (isinf(want) || isinf(got))
        return got == want;
    return !isfinite(m) || fabs(got - want) <= C * (eps * m + (double)FLT_TRUE_MIN);
}

static void check_output(const bench *b, const kernel_case *k, int a, enum shape shape)
{
    char letter = k->out[a];
    const operands *o = &b->tested;
    int64_t count = case_floats(letter, o);
    for (int64_t i = 0; i < count; i++) {
        float got = o->out[a][i], want = b->reference.out[a][i], m = b->absolute.out[a][i];
        if (toupper(letter) == 'R' && i % o->ld >= o->c) {
            if (memcmp(&got, &want, sizeof got) != 0)
                fail_msg("%s: wrote between rows, out %d index %lld", b->what, a, (long long)i);
        } else if (!close_enough((double)got, (double)want, (double)m, (double)FLT_EPSILON) &&
                   !(shape == HUGE_VALUES && !isfinite(m))) {
            fail_msg("%s: out %d index %lld: %.9g, reference %.9g, difference %.3g, magnitude %.3g", b->what,
                     a, (long long)i, (double)got, (double)want, (double)got - (double)want, (double)m);
        }
    }
}

static void check_inputs(const bench *b, const kernel_case *k, bool in_place)
{
    for (int a = 0; k->in[a] != '\0'; a++)
        if (!(in_place && a == k->in_place - 1) &&
            memcmp(b->tested.in[a], b->master.in[a], bytes_of(k->in[a], &b->master)) != 0)
            fail_msg("%s: wrote to input %d", b->what, a);
}

static void check_same_bits(bench *b, const kernel_case *k)
{
    for (int a = 0; k->out[a] != '\0'; a++) {
        size_t bytes = bytes_of(k->out[a], &b->master);
        if (!b->have_first)
            memcpy(b->first[a], b->tested.out[a], bytes);
        else if (memcmp(b->first[a], b->tested.out[a], bytes) != 0)
            fail_msg("%s: bits depend on the alignment, out %d", b->what, a);
    }
    b->have_first = true;
}

static void place_tested(bench *b, const kernel_case *k, int offset)
{
    size_t slack = (size_t)offset * sizeof(float);
    int front = offset % 2;
    for (int a = 0; k->in[a] != '\0'; a++)
        b->tested.in[a] =
            guarded_place(&b->rooms[a], bytes_of(k->in[a], &b->master), front ? slack : 0, front);
    for (int a = 0; k->out[a] != '\0'; a++)
        b->tested.out[a] = guarded_place(&b->rooms[CASE_ARRAYS + a], bytes_of(k->out[a], &b->master),
                                         offset > 1 ? slack - 2 * sizeof(float) : 0, offset == 3);
}

static void run_tested(bench *b, const kernel_case *k, const fv_kernels *set, enum shape shape, bool in_place,
                       int offset)
{
    place_tested(b, k, offset);
    copy_operands(&b->tested, &b->master, k, in_place);
    k->call(set, &b->tested);
    for (int a = 0; k->out[a] != '\0'; a++)
        check_output(b, k, a, shape);
    check_inputs(b, k, in_place);
    if (!close_enough(b->tested.value, b->reference.value, b->absolute.value, k->value_eps))
        fail_msg("%s: returned %.17g, reference %.17g", b->what, b->tested.value, b->reference.value);
    for (int r = 0; r < CASE_ARRAYS; r++) {
        if (r < (int)strlen(k->in) && !(in_place && r == k->in_place - 1))
            assert_true(guarded_intact(&b->rooms[r], b->tested.in[r], bytes_of(k->in[r], &b->master)));
        if (r < (int)strlen(k->out))
            if (!guarded_intact(&b->rooms[CASE_ARRAYS + r], b->tested.out[r],
                                bytes_of(k->out[r], &b->master)))
                fail_msg("%s: wrote beside output %d", b->what, r);
    }
    check_same_bits(b, k);
}

static void check_size(bench *b, const kernel_case *k, const fv_kernels *reference, const fv_kernels *set,
                       const char *set_name, int64_t n, int64_t c)
{
    for (int mode = 0; mode < 2 * k->variants * SHAPES; mode++) {
        enum shape shape = (enum shape)(mode % SHAPES);
        bool in_place = mode / SHAPES % 2 != 0;
        if ((in_place && k->in_place == 0) || (c == LARGEST && shape > CANCELLING))
            continue;
        b->master.n = n, b->master.c = c, b->master.ld = c + PAD;
        b->master.variant = mode / SHAPES / 2;
        b->have_first = false;
        uint32_t seed = (uint32_t)(n * 8192 + c);
        snprintf(b->what, sizeof b->what, "%s %s n=%lld c=%lld variant %d, %s%s, seed %u", k->name, set_name,
                 (long long)n, (long long)c, b->master.variant, shape_names[shape],
                 in_place ? ", in place" : "", seed);
        fill_master(b, k, shape, in_place, seed);
        run_reference(b, k, reference, in_place);
        for (int offset = 0; offset < OFFSETS; offset++)
            run_tested(b, k, set, shape, in_place, offset);
    }
}

static void check_set(const char *set_name, unsigned flags)
{
    if (flags == 0 || (flags & ~fv_cpu_flags()) != 0) {
        print_message("%s: not on this processor\n", set_name);
        skip();
    }
    fv_kernels reference, set;
    fv_kernels_fill(&reference, 0);
    fv_kernels_fill(&set, flags);
    bench b;
    bench_make(&b);
    const kernel_case *k;
    for (int i = 0; (k = kernel_case_at(i)) != NULL; i++) {
        check_size(&b, k, &reference, &set, set_name, 0, 17);
        for (int s = 0; s < (int)FV_COUNT(sizes); s++) {
            check_size(&b, k, &reference, &set, set_name, 1, sizes[s]);
            check_size(&b, k, &reference, &set, set_name, sizes[s] <= 35 ? 11 : 3, sizes[s]);
        }
    }
    bench_free(&b);
}

static void test_avx2(void **state)
{
    (void)state;
    check_set("avx2", FV_CPU_AVX2);
}

static void test_avx512(void **state)
{
    (void)state;
    check_set("avx512", FV_CPU_AVX2 | FV_CPU_AVX512);
}

static void test_neon(void **state)
{
    (void)state;
    check_set("neon", FV_CPU_NEON);
}

/* The reference through the same checks: guard pages and canaries hold for it too. */
static void test_reference(void **state)
{
    (void)state;
    fv_kernels reference;
    fv_kernels_fill(&reference, 0);
    bench b;
    bench_make(&b);
    const kernel_case *k;
    for (int i = 0; (k = kernel_case_at(i)) != NULL; i++)
        for (int s = 0; s < (int)FV_COUNT(sizes) - 1; s++)
            check_size(&b, k, &reference, &reference, "reference", 3, sizes[s]);
    bench_free(&b);
}

static void test_every_row_has_a_case(void **state)
{
    (void)state;
    const char *name;
    for (int row = 0; fv_kernels_origin(0, row, &name) != NULL; row++) {
        bool found = strncmp(name, "gemm", 4) == 0 && strcmp(name, "gemv") != 0; /* test_kernels_gemm.c */
        const kernel_case *k;
        for (int i = 0; (k = kernel_case_at(i)) != NULL; i++)
            found |= strcmp(name, k->name) == 0;
        if (!found)
            fail_msg("the kernel %s has no row in support/kernel_cases_*.c", name);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_row_has_a_case),
        cmocka_unit_test(test_reference),
        cmocka_unit_test(test_avx2),
        cmocka_unit_test(test_avx512),
        cmocka_unit_test(test_neon),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
