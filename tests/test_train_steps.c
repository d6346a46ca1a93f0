/* test_train_steps.c: what a run decides from step to step: projections, micro-batches, patience, the sums
 * behind a line of metrics. */
#include "kernels/kernels.h"
#include "model/transformer.h"
#include "support/tiny_run.h"
#include "train/internal.h"
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static fv_context *ctx;

static int setup(void **state)
{
    fv_context_options options;
    fv_context_options_init(&options);
    options.threads = 1;
    if (fv_context_create(&ctx, &options) != FV_OK || scratch_setup(state) != 0)
        return -1;
    tiny_proteins();
    return 0;
}

static int teardown(void **state)
{
    assert_int_equal(fv_context_bytes(ctx), 0);
    fv_context_destroy(ctx);
    return scratch_teardown(state);
}

static void expect_ok(fv_status status)
{
    if (status != FV_OK)
        fail_msg("%s: %s", fv_status_name(status), fv_context_message(ctx));
}

/* Trains with one more setting. */
static void train_with(const char *name, const char *key, const char *value)
{
    fv_config *c = tiny_run_config(ctx, "steps", "20", key, value, NULL);
    expect_ok(tiny_train(ctx, c, name, 0, NULL));
    fv_config_destroy(c);
}

/* ---- projections --------------------------------------------------------------------------------- */

/* The run's model carries draw number `draw`, and the projections are those of that draw. */
static void check_draw(const char *name, int64_t draw)
{
    fv_model *trained, *fresh;
    expect_ok(fv_model_load(&trained, ctx, scratch_path(name), 0));
    assert_int_equal(fv_model_draw(trained), draw);
    expect_ok(fv_model_create(&fresh, ctx, fv_model_config(trained), 99));
    expect_ok(fv_model_redraw(fresh, draw));
    size_t bytes = (size_t)fv_operators_drawn(&trained->ops, FV_USE_SELF) * sizeof(float);
    assert_true(bytes > 0);
    for (int64_t l = 0; l < trained->shape.layers; l++)
        assert_memory_equal(fv_model_projection(trained, l), fv_model_projection(fresh, l), bytes);
    fv_model_destroy(trained);
    fv_model_destroy(fresh);
}

/* Step s of 0, 1, ... takes draw s / redraw: the last of 20 steps is number 19. */
static void projections_are_redrawn_on_time(void **state)
{
    (void)state;
    static const struct {
        const char *name, *redraw;
        int64_t draw;
    } rows[] = {{"never", "0", 0}, {"fourth", "4", 4}, {"tenth", "10", 1}, {"always", "1", 19}};
    for (int i = 0; i < FV_COUNT(rows); i++) {
        train_with(rows[i].name, "attention.redraw", rows[i].redraw);
        check_draw(rows[i].name, rows[i].draw);
    }
    /* Another seed, other projections; the rest of the run keeps its random numbers. */
    train_with("other", "attention.projection_seed", "5");
    train_with("same", "attention.redraw", "7");
    assert_true(tiny_metric("other", "train", 0, "loss") != tiny_metric("same", "train", 0, "loss"));
}

/* Evaluation draws nothing: twice the same loss, after a run that redraws at every step. */
static void projections_are_frozen_at_evaluation(void **state)
{
    (void)state;
    fv_metrics first, second, empirical;
    expect_ok(fv_evaluate(ctx, scratch_path("always"), NULL, 0, FV_SPLIT_VALID, NULL, &first, &empirical));
    expect_ok(fv_evaluate(ctx, scratch_path("always"), NULL, 0, FV_SPLIT_VALID, NULL, &second, &empirical));
    assert_true(first.loss == second.loss);
    check_draw("always", 19);
}

/* ---- micro-batches ------------------------------------------------------------------------------- */

static void two_small_batches_are_one(void **state)
{
    (void)state;
    static const char *const names[] = {"whole", "halves"}, *const batch[] = {"2", "1"},
                             *const sum[] = {"1", "2"};
    for (int i = 0; i < 2; i++) {
        fv_config *c = tiny_run_config(ctx, "batch", batch[i], "accumulate", sum[i], "hidden_dropout_prob",
                                       "0", "steps", "3", "log_every", "1", NULL);
        expect_ok(tiny_train(ctx, c, names[i], 0, NULL));
        fv_config_destroy(c);
    }
    for (int step = 0; step < 3; step++) {
        /* The same sums in another order: 64 tokens, sizes of order one. */
        double loss = tiny_metric("whole", "train", step, "loss"),
               norm = tiny_metric("whole", "train", step, "grad_norm");
        assert_true(fabs(tiny_metric("halves", "train", step, "loss") - loss) <=
                    64.0 * (double)FLT_EPSILON * loss);
        assert_true(fabs(tiny_metric("halves", "train", step, "grad_norm") - norm) <=
                    1e3 * (double)FLT_EPSILON * norm);
        assert_true(tiny_metric("halves", "train", step, "tokens") ==
                    tiny_metric("whole", "train", step, "tokens"));
    }
}

/* A file whose every window of 32 tokens is the same: micro-batches of a step then differ by their dropout
 * alone, so that its mask must change the mean. */
static void micro_batches_have_dropout_of_their_own(void **state)
{
    (void)state;
    static const char *const sums[] = {"1", "2"};
    double loss[2];
    char name[2][8] = {"one", "two"};
    scratch_text("proteins.fasta", ">p\nACDEFGHIKLMNPQRSTVWYACDEFGHIKLM\n");
    for (int i = 0; i < 2; i++) {
        fv_config *c =
            tiny_run_config(ctx, "batch", "1", "accumulate", sums[i], "hidden_dropout_prob", "0.5", "steps",
                            "1", "log_every", "1", "valid_fraction", "0", "test_fraction", "0", NULL);
        expect_ok(tiny_train(ctx, c, name[i], 0, NULL));
        fv_config_destroy(c);
        loss[i] = tiny_metric(name[i], "train", 0, "loss");
    }
    tiny_proteins();
    assert_true(fabs(loss[0] - loss[1]) > 1e-3);
}

/* ---- lines of metrics ---------------------------------------------------------------------------- */

/* A line over three steps is the mean of three lines of one, as far as digits are written. */
static void a_line_sums_its_steps(void **state)
{
    (void)state;
    train_with("coarse", "log_every", "3");
    train_with("fine", "log_every", "1");
    for (int line = 0; line < 6; line++) {
        double accuracy = 0, loss = 0;
        for (int step = 3 * line; step < 3 * line + 3; step++) {
            accuracy += tiny_metric("fine", "train", step, "accuracy") / 3;
            loss += tiny_metric("fine", "train", step, "loss") / 3;
        }
        assert_true(fabs(tiny_metric("coarse", "train", line, "accuracy") - accuracy) < 1e-8);
        assert_true(fabs(tiny_metric("coarse", "train", line, "loss") - loss) < 1e-8 * loss);
    }
}

/* Evaluation counts what is predicted: a share of the letters with mlm, as the baseline does. */
static void masked_evaluation_counts_targets(void **state)
{
    (void)state;
    fv_metrics model, empirical;
    train_with("masked", "task", "mlm");
    expect_ok(fv_evaluate(ctx, scratch_path("masked"), NULL, 0, FV_SPLIT_ALL, NULL, &model, &empirical));
    assert_int_equal(model.tokens, empirical.tokens);
    int64_t letters = 60 * 20 + 60 * 59 / 2;
    assert_true(model.tokens > letters / 20 && model.tokens < letters / 4); /* mask_rate 0.15 */
}

/* ---- the update ---------------------------------------------------------------------------------- */

/* The largest move of a parameter in the first step of a run with one more setting. */
static double first_move(const char *name, const char *key, const char *value)
{
    fv_model *moved, *still;
    double largest = 0;
    fv_config *c = tiny_run_config(ctx, "steps", "1", "weight_decay", "0", key, value, NULL);
    expect_ok(tiny_train(ctx, c, name, 0, NULL));
    expect_ok(fv_model_load(&moved, ctx, scratch_path(name), 0));
    expect_ok(fv_model_create(&still, ctx, fv_model_config(moved), (uint64_t)fv_config_int(c, "seed")));
    for (int64_t i = 0; i < fv_model_parameters(moved); i++)
        largest = fmax(largest, fabs((double)fv_model_values(moved)[i] - (double)fv_model_values(still)[i]));
    fv_model_destroy(moved);
    fv_model_destroy(still);
    fv_config_destroy(c);
    return largest;
}

/* The first step of Adam moves a parameter by the learning rate, up to epsilon and the rounding of a float of
 * size one. */
static void the_schedule_reaches_the_update(void **state)
{
    (void)state;
    double at_once = first_move("at-once", "warmup_steps", "0");
    assert_true(fabs(at_once - 0.01) < 1e-5);
    double slowly = first_move("slowly", "warmup_steps", "100");
    assert_true(fabs(slowly - 0.0001) < 1e-6);
}

/* A gradient clipped to nothing beside Adam's epsilon moves nothing; the line reports the norm before. */
static void the_clip_reaches_the_update(void **state)
{
    (void)state;
    assert_true(first_move("clipped", "clip_norm", "1e-12") < 1e-3 * first_move("free", "clip_norm", "0"));
    assert_true(tiny_metric("clipped", "train", 0, "grad_norm") > 0.1);
}

/* A model that is broken is not given figures. */
static void a_broken_model_is_not_evaluated(void **state)
{
    (void)state;
    fv_model *model;
    fv_metrics figures, empirical;
    expect_ok(fv_model_load(&model, ctx, scratch_path("fine"), 1));
    for (int64_t i = 0; i < fv_model_parameters(model); i++)
        fv_model_values(model)[i] = NAN;
    expect_ok(fv_model_save(model, scratch_path("fine/best")));
    fv_model_destroy(model);
    expect_failure(
        ctx, fv_evaluate(ctx, scratch_path("fine"), NULL, 0, FV_SPLIT_VALID, NULL, &figures, &empirical),
        FV_ERR_FAILED, "loss", "valid", NULL);
}

/* ---- patience ------------------------------------------------------------------------------------ */

static void patience_ends_the_run(void **state)
{
    (void)state;
    fv_config *c = tiny_run_config(ctx, "learning_rate", "0", "early_stop", "2", "eval_every", "4",
                                   "attention.kind", "exact", NULL);
    fv_train_result result;
    expect_ok(tiny_train(ctx, c, "patience", 0, &result));
    assert_int_equal(result.stopped_early, 1);
    assert_int_equal(result.steps, 12); /* best at 4, then two that are no better */
    expect_ok(tiny_train(ctx, c, "patience", 1, &result));
    assert_int_equal(result.steps, 12);
    assert_int_equal(result.stopped_early, 1);
    fv_config_destroy(c);
}

/* An evaluation that is the best so far begins the count again, also after a resume. */
static void progress_renews_patience(void **state)
{
    (void)state;
    char how[4352];
    fv_config *c = tiny_run_config(ctx, "early_stop", "2", "hidden_dropout_prob", "0", NULL);
    assert_int_equal(tiny_train_until(ctx, c, "renewed", 8), FV_STOPPED);
    snprintf(how, sizeof how, "sed -i 's/\"patience\": 0/\"patience\": 1/' '%s/trainer.json'",
             scratch_path("renewed"));
    assert_int_equal(system(how), 0);
    fv_train_result result;
    expect_ok(tiny_train(ctx, c, "renewed", 1, &result));
    fv_config_destroy(c);
    for (int line = 1; line < 4; line++) /* the premise: it learns all the way */
        assert_true(tiny_metric("renewed", "valid", line, "loss") <
                    tiny_metric("renewed", "valid", line - 1, "loss"));
    size_t count;
    char *text = tiny_file("renewed", "trainer.json", &count);
    assert_non_null(strstr(text, "\"patience\": 0"));
    free(text);
    assert_int_equal(result.steps, 20);
}

/* ---- the peak behind share_of_peak ------------------------------------------------------------------------ */

/* When the first line came, and what the run was told to need. */
typedef struct beginning {
    size_t bytes;
    double line, share;
} beginning;

static void note_bytes(void *user, const fv_train_plan *plan)
{
    ((beginning *)user)->bytes = plan->cost.bytes;
}

static void note_line(void *user, const char *line)
{
    beginning *b = user;
    json_t *object = json_loads(line, 0, NULL);
    if (b->line == 0.0)
        b->line = fv_now();
    b->share = json_number_value(json_object_get(json_object_get(object, "timing"), "share_of_peak"));
    json_decref(object);
}

/* Bytes of a step on `tokens` tokens, without measuring the peak. */
static size_t bytes_of_step(const fv_config *c, int64_t tokens)
{
    fv_model *model;
    fv_model_cost cost;
    expect_ok(fv_model_create(&model, ctx, c, 1));
    expect_ok(fv_model_measure(model, tokens, 32, tokens, &cost));
    fv_model_destroy(model);
    return cost.bytes;
}

static fv_train_result train_watched(const char *name, const fv_config *c, int resume, beginning *b)
{
    char directory[4096];
    snprintf(directory, sizeof directory, "%s", scratch_path(name));
    const char *files[] = {scratch_path("proteins.fasta")};
    fv_train_options options;
    fv_train_options_init(&options);
    options.directory = directory;
    options.files = files;
    options.file_count = 1;
    options.resume = resume;
    options.plan = note_bytes;
    options.observer = (fv_observer){b, NULL, note_line, NULL};
    fv_train_result result;
    expect_ok(fv_train(ctx, c, &options, &result));
    return result;
}

/* Measuring the peak takes its 0.3 s behind the first step. The plan counts `extra` bytes for it. */
static void peak_waits(const char *name, const char *batch, size_t extra)
{
    beginning b = {0};
    fv_config *c =
        tiny_run_config(ctx, "steps", "2", "log_every", "1", "batch", batch, "hidden_size", "64", NULL);
    size_t without = bytes_of_step(c, 32 * atoll(batch)), held = fv_context_bytes(ctx);
    fv_context_reset_peak(ctx);
    double begin = fv_now();
    fv_train_result result = train_watched(name, c, 0, &b);
    assert_true(result.first_step_seconds > 0.0 && b.line - begin >= result.first_step_seconds + 0.3);
    assert_true(b.share > 0.0);
    /* Data and lists of targets are not in `expected`: some tens of KiB. */
    double expected = (double)(without + extra), peak = (double)(fv_context_peak_bytes(ctx) - held);
    if (fabs((double)b.bytes / expected - 1) > 0.05 || peak > 1.05 * expected)
        fail_msg("batch %s: expected %g bytes, %zu were predicted, %g used", batch, expected, b.bytes, peak);
    result = train_watched(name, c, 1, &b); /* complete already */
    assert_true(result.first_step_seconds == 0.0);
    fv_config_destroy(c);
}

static void the_peak_waits_for_the_first_step(void **state)
{
    (void)state;
    peak_waits("lends", "256", 0); /* the passes hold more than measuring needs */
    peak_waits("lends-not", "32", fv_measure_sgemm_bytes(ctx));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(projections_are_redrawn_on_time),
        cmocka_unit_test(projections_are_frozen_at_evaluation),
        cmocka_unit_test(two_small_batches_are_one),
        cmocka_unit_test(micro_batches_have_dropout_of_their_own),
        cmocka_unit_test(a_line_sums_its_steps),
        cmocka_unit_test(masked_evaluation_counts_targets),
        cmocka_unit_test(the_schedule_reaches_the_update),
        cmocka_unit_test(the_clip_reaches_the_update),
        cmocka_unit_test(a_broken_model_is_not_evaluated),
        cmocka_unit_test(patience_ends_the_run),
        cmocka_unit_test(progress_renews_patience),
        cmocka_unit_test(the_peak_waits_for_the_first_step),
    };
    return cmocka_run_group_tests_name("train-steps", tests, setup, teardown);
}
