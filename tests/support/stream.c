/* support/stream.c: see stream.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/internal.h"
#include "support/kinds.h"
#include "support/stream.h"
#include <math.h>
#include <string.h>

int stream_cases(void)
{
    return 4 * fv_attention_kind_count();
}

int stream_kind(int which)
{
    return which % fv_attention_kind_count();
}

fv_attention_options stream_options(int which, int64_t chunk)
{
    fv_attention_options o;
    int extra = which / fv_attention_kind_count();
    fv_attention_options_init(&o);
    o.kind = fv_attention_kind_at(stream_kind(which))->name;
    o.heads = 4, o.kv_heads = 2, o.dim = 3, o.value_dim = 5, o.causal = 1, o.features = 8, o.chunk = chunk;
    o.max_tokens = kind_has(stream_kind(which), KIND_DATED) ? 70 : 0;
    o.gate = extra & 1, o.decay = extra / 2;
    kind_small_options(&o);
    kind_complete(&o);
    return o;
}

problem *stream_make(fv_context *ctx, int which, int64_t L, int64_t chunk, double spread)
{
    fv_attention_options o = stream_options(which, chunk);
    problem_shape shape = {.sequences = 1, .queries = &L, .seed = 21, .spread = spread};
    return problem_make(ctx, &o, &shape);
}

bool stream_runs(int which)
{
    const fv_attention_kind *kind = fv_attention_kind_at(stream_kind(which));
    return kind_runs(stream_kind(which), 1) && kind->can_stream &&
           (kind->kernelized || which == stream_kind(which));
}

char *stream_state(const problem *p, int64_t capacity, size_t *bytes)
{
    assert_int_equal(fv_attention_state_bytes(p->op, capacity, bytes), FV_OK);
    char *state = fv_alloc(p->ctx, *bytes);
    memset(state, 0xAA, *bytes);
    assert_int_equal(fv_attention_state_init(p->op, capacity, state), FV_OK);
    return state;
}

fv_attention_io stream_io(const problem *p, int64_t token)
{
    fv_attention_io io = problem_io(p);
    io.q += token * (problem_row_q(p) + p->pad);
    io.k += token * (problem_row_k(p) + p->pad);
    io.v += token * (problem_row_v(p) + p->pad);
    io.y += token * (problem_row_y(p) + p->pad);
    if (io.input[FV_INPUT_GATE] != NULL)
        io.input[FV_INPUT_GATE] += token * p->info.options.heads;
    return io;
}

void stream_run(problem *p, void *state, size_t bytes, int64_t from, int64_t to, int64_t size)
{
    for (int64_t t = from; t < to; t += FV_MAX(size, 1)) {
        int64_t offsets[] = {0, FV_MIN(FV_MAX(size, 1), to - t)};
        fv_layout layout = {1, offsets, NULL};
        fv_attention_io io = stream_io(p, t);
        io.state = size > 0 ? state : NULL;
        fv_status status = size > 0 ? fv_attention_forward(p->op, &layout, &io, NULL, p->scratch)
                                    : fv_attention_step(p->op, 1, &io, state, bytes, p->scratch);
        if (status != FV_OK)
            fail_msg("%s: %s", p->info.options.kind, fv_context_message(p->ctx));
    }
}

/* log2 of the product of the factors of the state's tokens; without gate and decay there is none to keep. */
static void check_decayed(const problem *p, const fv_state_view *view)
{
    const float *gate = p->input[FV_INPUT_GATE], *decay = p->input[FV_INPUT_DECAY];
    if (gate == NULL && decay == NULL)
        assert_null(view->decayed);
    for (int64_t h = 0; view->decayed != NULL && h < 4; h++) {
        double sum = 0;
        for (int64_t t = 0; t < view->tokens; t++)
            sum += (gate != NULL ? log2((double)gate[t * 4 + h]) : 0) +
                   (decay != NULL ? log2((double)decay[h]) : 0);
        assert_true(fabs(view->decayed[h] - sum) <= 1e-12 * fabs(sum));
    }
}

int64_t stream_ring(const problem *p, int64_t *globals)
{
    const fv_attention_options *o = &p->info.options;
    *globals = FV_MAX(o->globals, 0);
    return (kind_row_of(o->kind)->traits & KIND_RING) != 0 ? FV_MAX(o->window, 1) : INT64_MAX;
}

/* Every key that a later token may see, to the bit, in its row. */
static void check_keys(const problem *p, const fv_state_view *view, int64_t tokens)
{
    int64_t key = problem_row_k(p), value = problem_row_v(p), globals, ring = stream_ring(p, &globals);
    int64_t heads = p->info.options.kv_heads, d = key / heads, dv = value / heads;
    assert_int_equal(view->capacity - view->pinned, ring < INT64_MAX ? ring : 0);
    for (int64_t t = 0; t < tokens; t++) {
        int64_t row = t;
        if (t >= globals && ring < INT64_MAX)
            row = globals + (t - globals) % ring;
        if (t >= globals && tokens - t > ring)
            continue;
        for (int64_t g = 0; g < heads; g++) {
            int64_t at = g * view->capacity + row;
            assert_memory_equal(view->keys + at * d, p->k + t * key + g * d, (size_t)d * sizeof(float));
            assert_memory_equal(view->values + at * dv, p->v + t * value + g * dv,
                                (size_t)dv * sizeof(float));
        }
    }
}

void stream_check(const problem *p, void *state, int64_t tokens)
{
    fv_state_view view;
    assert_int_equal(fv_attention_state_view(p->op, state, &view), FV_OK);
    assert_int_equal(view.tokens, tokens);
    if (view.keys != NULL)
        check_keys(p, &view, tokens);
    if (view.S != NULL) {
        problem first = *p;
        int64_t offsets[] = {0, tokens};
        first.layout = (fv_layout){1, offsets, NULL};
        assert_int_equal(view.features, p->info.feature_count);
        check_decayed(p, &view);
        worst w = problem_check_state(&first, &view);
        worst_check(&w, kind_row_of(p->info.options.kind)->forward, "state", p);
    }
}
