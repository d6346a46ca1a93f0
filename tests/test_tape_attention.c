/* test_tape_attention.c: attention on the tape gives what calls of its operators give: self attention on the
 * fused projections, cross attention, two operators that share the heads. */
/* clang-format off */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include "support/tape_bench.h"
#include "support/tiny_model.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define OK(expr) assert_int_equal((expr), FV_OK)

enum { ROWS = 70, KEYS = 53, DIM = 8, HEADS = 4, MOST_COLS = 3 * HEADS * DIM };

static const int64_t offsets_q[] = {0, 20, 21, ROWS}, offsets_k[] = {0, 1, 30, KEYS};

/* Operators on the heads of one layer, and its rows. */
typedef struct attention_case {
    fv_attention *ops[2];
    float drawn[2][HEADS * 16 * DIM];
    fv_layout layout;
    bool cross;
    int64_t kv_heads;
    float first[ROWS * MOST_COLS], second[KEYS * MOST_COLS]; /* qkv; or q, and kv */
} attention_case;

static int64_t first_cols(const attention_case *c)
{
    return (HEADS + (c->cross ? 0 : 2 * c->kv_heads)) * DIM;
}

static void record_attention(void *arg)
{
    const attention_case *c = arg;
    fv_attention_call call = {.layout = &c->layout};
    for (int i = 0; i < 2 && c->ops[i] != NULL; i++) {
        fv_attention_info info;
        fv_attention_get_info(c->ops[i], &info);
        call.parts[i] =
            (fv_attention_part){.op = c->ops[i], .drawn = info.drawn_floats > 0 ? c->drawn[i] : NULL};
    }
    int first = bench_input(ROWS, first_cols(c), c->first);
    if (!c->cross)
        bench_end(fv_tape_attention(&bench.tape, first, -1, &call));
    else
        bench_end(fv_tape_cross_attention(&bench.tape, first,
                                          bench_input(KEYS, 2 * c->kv_heads * DIM, c->second), &call));
}

/* One call with strides, gradients added to zeros: what the operator's own tests hold against its spec. head
 * and kv_head: the first of this operator. */
static void call_directly(const attention_case *c, int which, int64_t head, int64_t kv_head, float *y,
                          float *dfirst, float *dsecond)
{
    int64_t cols = first_cols(c), keys = c->kv_heads * DIM;
    const float *k = c->cross ? c->second : c->first + HEADS * DIM;
    float *dk = c->cross ? dsecond : dfirst + HEADS * DIM;
    fv_memory need;
    fv_attention_info info;
    void *saved = NULL, *scratch = NULL;
    fv_attention_get_info(c->ops[which], &info);
    OK(fv_attention_measure(c->ops[which], &c->layout, &need));
    assert_int_equal(posix_memalign(&saved, 64, need.saved + 64), 0);
    assert_int_equal(posix_memalign(&scratch, 64, need.scratch + 64), 0);
    fv_attention_io io = {.q = c->first + head * DIM,
                          .k = k + kv_head * DIM,
                          .v = k + keys + kv_head * DIM,
                          .y = y + head * DIM,
                          .q_stride = cols,
                          .k_stride = c->cross ? 2 * keys : cols,
                          .v_stride = c->cross ? 2 * keys : cols,
                          .y_stride = HEADS * DIM};
    fv_attention_bind_drawn(c->ops[which], info.drawn_floats > 0 ? c->drawn[which] : NULL, &io);
    fv_attention_grad grad = {.dy = bench.dy + head * DIM,
                              .dq = dfirst + head * DIM,
                              .dk = dk + kv_head * DIM,
                              .dv = dk + keys + kv_head * DIM};
    OK(fv_attention_forward(c->ops[which], &c->layout, &io, saved, scratch));
    OK(fv_attention_backward(c->ops[which], &c->layout, &io, &grad, saved, scratch));
    free(saved), free(scratch);
}

static fv_attention *make_operator(attention_case *c, int which, const char *kind, int causal, int64_t heads,
                                   int64_t kv_heads)
{
    fv_attention_options o;
    fv_attention_info info;
    fv_attention *op;
    fv_attention_options_init(&o);
    o.kind = kind, o.heads = heads, o.kv_heads = kv_heads, o.dim = DIM, o.causal = causal, o.features = 16;
    OK(fv_attention_create(&op, bench.ctx, &o));
    fv_attention_get_info(op, &info);
    if (info.drawn_floats > 0)
        OK(fv_attention_draw(op, 1, (uint64_t)which, c->drawn[which]));
    c->ops[which] = op;
    return op;
}

/* In place or added, the sums may differ in order. */
static void compare(const float *got, const float *expected, int64_t n, const char *what)
{
    for (int64_t i = 0; i < n; i++)
        assert_near((double)got[i], (double)expected[i], 4 * (1 + fabs((double)expected[i])), what);
}

static void check_case(attention_case *c, const char *what)
{
    static float y[ROWS * HEADS * DIM], dfirst[ROWS * MOST_COLS], dsecond[KEYS * MOST_COLS];
    int64_t head = 0, kv_head = 0;
    tiny_normals(11, 1, c->first, ROWS * first_cols(c));
    tiny_normals(12, 1, c->second, KEYS * MOST_COLS);
    memset(dfirst, 0, sizeof dfirst), memset(dsecond, 0, sizeof dsecond);
    for (int i = 0; i < 2 && c->ops[i] != NULL; i++) {
        fv_attention_info info;
        fv_attention_get_info(c->ops[i], &info);
        call_directly(c, i, head, kv_head, y, dfirst, dsecond);
        head += info.options.heads, kv_head += info.options.kv_heads;
    }
    bench_play(record_attention, c);
    if (memcmp(bench.y, y, sizeof y) != 0)
        fail_msg("%s: y", what);
    compare(bench.inputs[0].gradient, dfirst, ROWS * first_cols(c), what);
    if (c->cross)
        compare(bench.inputs[1].gradient, dsecond, KEYS * 2 * c->kv_heads * DIM, what);
    for (int i = 0; i < 2; i++)
        fv_attention_destroy(c->ops[i]);
}

static const char *const kinds[] = {"identity", "exact", "favor+", "relu"};

static void test_self(void **state)
{
    (void)state;
    static attention_case c;
    for (int k = 0; k < FV_COUNT(kinds); k++)
        for (int causal = 0; causal < 2; causal++)
            for (int64_t kv_heads = 2; kv_heads <= 4; kv_heads += 2) {
                c = (attention_case){.layout = {3, offsets_q, NULL}, .kv_heads = kv_heads};
                make_operator(&c, 0, kinds[k], causal, HEADS, kv_heads);
                check_case(&c, kinds[k]);
            }
}

static void test_cross(void **state)
{
    (void)state;
    static attention_case c;
    for (int k = 1; k < FV_COUNT(kinds); k++) /* identity gives v of the token itself */
        for (int64_t kv_heads = 2; kv_heads <= 4; kv_heads += 2) {
            c = (attention_case){.layout = {3, offsets_q, offsets_k}, .kv_heads = kv_heads, .cross = true};
            make_operator(&c, 0, kinds[k], 0, HEADS, kv_heads);
            check_case(&c, kinds[k]);
        }
}

static void test_shared_heads(void **state)
{
    (void)state;
    static attention_case c;
    static const char *const pairs[][2] = {{"exact", "favor+"}, {"relu", "exact"}, {"favor+", "relu"}};
    for (int k = 0; k < FV_COUNT(pairs); k++)
        for (int64_t first = 1; first < HEADS; first++)
            for (int cross = 0; cross < 2; cross++) {
                c = (attention_case){
                    .layout = {3, offsets_q, cross ? offsets_k : NULL}, .kv_heads = HEADS, .cross = cross};
                make_operator(&c, 0, pairs[k][0], !cross, first, first);
                make_operator(&c, 1, pairs[k][1], !cross, HEADS - first, HEADS - first);
                check_case(&c, pairs[k][0]);
            }
}

/* ---- one head's tensor for all heads ------------------------------------------------------------------- */

static void record_shared(void *arg)
{
    static fv_attention_inputs inputs;
    const attention_case *c = arg;
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        inputs.trained[i] = -1;
    inputs.trained[FV_INPUT_BANDWIDTH] = 5;
    inputs.shared[FV_INPUT_BANDWIDTH] = true;
    fv_attention_call call = {.layout = &c->layout,
                              .parts[0] = {.op = c->ops[0], .drawn = c->drawn[0], .inputs = &inputs}};
    bench_end(fv_tape_attention(&bench.tape, bench_input(ROWS, first_cols(c), c->first), -1, &call));
}

/* The gradient of a tensor that all heads share is the sum of those they would have alone. */
static void test_shared_input(void **state)
{
    (void)state;
    static attention_case c;
    static float y[ROWS * HEADS * DIM], dqkv[ROWS * MOST_COLS], bandwidth[HEADS * DIM], d[HEADS * DIM];
    void *saved = NULL, *scratch = NULL;
    fv_memory need;
    c = (attention_case){.layout = {3, offsets_q, NULL}, .kv_heads = HEADS};
    fv_attention *op = make_operator(&c, 0, "rfa", 0, HEADS, HEADS);
    tiny_normals(11, 1, c.first, ROWS * first_cols(&c));
    for (int h = 0; h < HEADS; h++)
        memcpy(bandwidth + h * DIM, bench.parameters + 5, DIM * sizeof *bandwidth);
    bench_play(record_shared, &c);

    OK(fv_attention_measure(op, &c.layout, &need));
    assert_int_equal(posix_memalign(&saved, 64, need.saved + 64), 0);
    assert_int_equal(posix_memalign(&scratch, 64, need.scratch + 64), 0);
    int64_t cols = first_cols(&c);
    fv_attention_io io = {.q = c.first,
                          .k = c.first + HEADS * DIM,
                          .v = c.first + 2 * HEADS * DIM,
                          .y = y,
                          .q_stride = cols,
                          .k_stride = cols,
                          .v_stride = cols};
    fv_attention_bind_drawn(op, c.drawn[0], &io);
    io.input[FV_INPUT_BANDWIDTH] = bandwidth;
    fv_attention_grad grad = {
        .dy = bench.dy, .dq = dqkv, .dk = dqkv + HEADS * DIM, .dv = dqkv + 2 * HEADS * DIM};
    grad.d_input[FV_INPUT_BANDWIDTH] = d;
    OK(fv_attention_forward(op, &c.layout, &io, saved, scratch));
    OK(fv_attention_backward(op, &c.layout, &io, &grad, saved, scratch));
    assert_memory_equal(bench.y, y, sizeof y);
    for (int i = 0; i < DIM; i++) {
        double sum = 0, magnitude = 0;
        for (int h = 0; h < HEADS; h++)
            sum += (double)d[h * DIM + i], magnitude += fabs((double)d[h * DIM + i]);
        assert_near((double)bench.gradients[5 + i], sum, 4 * magnitude, "shared bandwidth");
    }
    assert_true(bench.gradients[4] == 0 && bench.gradients[5 + DIM] == 0);
    free(saved), free(scratch);
    fv_attention_destroy(op);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_self),
        cmocka_unit_test(test_cross),
        cmocka_unit_test(test_shared_heads),
        cmocka_unit_test(test_shared_input),
    };
    return cmocka_run_group_tests(tests, bench_setup, bench_teardown);
}
