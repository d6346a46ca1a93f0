/* test_train.c: schedules, optimizer, metrics, and whole runs: what they write, when they refuse. What a run
 * decides from step to step: test_train_steps.c. */
#include "support/tiny_run.h"
#include "train/internal.h"
#include <float.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static fv_context *ctx;

static int setup(void **state)
{
    fv_context_options options;
    fv_context_options_init(&options);
    options.threads = 1; /* test_resume.c holds others against it */
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

/* ---- schedules ----------------------------------------------------------------------------------------- */

static double rate(const char *name, const char *warmup, int64_t step)
{
    fv_config *c = tiny_run_config(ctx, "schedule", name, "warmup_steps", warmup, "steps", "110",
                                   "learning_rate", "0.5", NULL);
    fv_schedule schedule;
    expect_ok(fv_schedule_make(&schedule, ctx, c));
    fv_config_destroy(c);
    return fv_schedule_rate(&schedule, step);
}

static void schedule_has_its_values(void **state)
{
    (void)state;
    static const struct {
        const char *name, *warmup;
        int64_t step;
        double expected;
    } rows[] = {
        {"constant", "10", 1, 0.05},    {"constant", "10", 10, 0.5},
        {"constant", "10", 77, 0.5},    {"constant", "0", 1, 0.5},
        {"rsqrt", "16", 4, 0.125},      {"rsqrt", "16", 16, 0.5},
        {"rsqrt", "16", 64, 0.25},      {"rsqrt", "0", 1, 0.5},
        {"rsqrt", "0", 100, 0.05},      {"cosine", "10", 5, 0.25},
        {"cosine", "10", 11, 0.5},      {"cosine", "10", 61, 0.25},
        {"cosine", "0", 1, 0.5},        {"cosine", "110", 110, 0.5},
        {"cosine", "200", 111, 0.2775}, {"cosine", "10", 36, 0.42677669529663687},
        {"cosine", "0", 111, 0.0},
    };
    for (int i = 0; i < FV_COUNT(rows); i++)
        if (fabs(rate(rows[i].name, rows[i].warmup, rows[i].step) - rows[i].expected) > 8 * DBL_EPSILON)
            fail_msg("%s, warm-up %s, step %d", rows[i].name, rows[i].warmup, (int)rows[i].step);
    assert_true(rate("cosine", "10", 110) > 0.0); /* the last step moves */
}

/* ---- optimizer ----------------------------------------------------------------------------------- */

static fv_model *small_model(fv_config *config)
{
    fv_config *whole;
    fv_model *model;
    expect_ok(fv_settings_complete(&whole, ctx, config));
    expect_ok(fv_model_create(&model, ctx, whole, 1));
    fv_config_destroy(whole);
    return model;
}

static void optimizer_follows_double_reference(void **state)
{
    (void)state;
    enum { STEPS = 5 };
    const double b1 = 0.9, b2 = 0.98, eps = 1e-6, decay = 0.1, lr = 0.02, factor = 0.5;
    fv_config *c = tiny_run_config(ctx, "adam_epsilon", "1e-6", "weight_decay", "0.1", NULL);
    fv_model *model = small_model(c);
    fv_optimizer *o;
    expect_ok(fv_optimizer_create(&o, ctx, model, c));
    int64_t n = fv_model_parameters(model);
    double *p = calloc((size_t)n, sizeof *p), *m = calloc((size_t)n, sizeof *m),
           *v = calloc((size_t)n, sizeof *v), *size = calloc((size_t)n, sizeof *size);
    float *values = fv_model_values(model), *gradients = fv_model_gradients(model);
    fv_random random = fv_random_make(3, FV_RANDOM_TEST, 0, 0);
    for (int64_t i = 0; i < n; i++)
        p[i] = (double)values[i], size[i] = fabs(p[i]);
    for (int t = 1; t <= STEPS; t++) {
        for (int k = 0; k < fv_model_parameter_count(model); k++) {
            const fv_parameter *a = fv_model_parameter_at(model, k);
            for (int64_t i = a->offset; i < a->offset + a->count; i++) {
                /* of one sign, so that m and v carry their relative accuracy */
                gradients[i] = (float)(1e-3 + fv_random_uniform(&random));
                double g = factor * (double)gradients[i];
                m[i] = b1 * m[i] + (1 - b1) * g;
                v[i] = b2 * v[i] + (1 - b2) * g * g;
                double move = m[i] / (1 - pow(b1, t)) / (sqrt(v[i] / (1 - pow(b2, t))) + eps);
                double fade = a->decay ? decay * p[i] : 0.0;
                p[i] -= lr * (move + fade);
                size[i] += lr * (fabs(move) + fabs(fade));
            }
        }
        fv_optimizer_step(o, t, lr, factor);
    }
    for (int64_t i = 0; i < n; i++) {
        assert_true(fabs((double)values[i] - p[i]) <= 8.0 * (double)FLT_EPSILON * size[i]);
        assert_true(gradients[i] == 0.0f);
    }
    free(p), free(m), free(v), free(size);
    fv_optimizer_destroy(o);
    fv_model_destroy(model);
    fv_config_destroy(c);
}

static void norm_and_clip(void **state)
{
    (void)state;
    fv_config *c = tiny_run_config(ctx, "clip_norm", "2", NULL);
    fv_model *model = small_model(c);
    fv_optimizer *o;
    expect_ok(fv_optimizer_create(&o, ctx, model, c));
    float *gradients = fv_model_gradients(model);
    double sum = 0.0;
    for (int64_t i = 0; i < fv_model_parameters(model); i++) {
        gradients[i] = (float)((i % 7) - 3);
        sum += (double)((i % 7) - 3) * (double)((i % 7) - 3);
    }
    assert_true(fabs(fv_optimizer_norm(o) - sqrt(sum)) <= 8 * DBL_EPSILON * sqrt(sum));
    assert_true(fv_optimizer_clip(o, 1.5) == 1.0);
    assert_true(fabs(fv_optimizer_clip(o, 8.0) - 0.25) <= DBL_EPSILON);
    fv_optimizer_clear(o);
    assert_true(fv_optimizer_norm(o) == 0.0);
    gradients[3] = NAN;
    assert_true(isnan(fv_optimizer_norm(o)));
    fv_optimizer_destroy(o);
    fv_model_destroy(model);
    fv_config_destroy(c);
}

/* ---- metrics ------------------------------------------------------------------------------------- */

static void metrics_are_readings_of_the_loss(void **state)
{
    (void)state;
    fv_metrics m = fv_metrics_of(&(fv_sums){.loss = 4.0 * log(2.0), .correct = 1, .tokens = 4});
    assert_int_equal(m.tokens, 4);
    assert_true(fabs(m.loss - log(2.0)) < 1e-15 && fabs(m.perplexity - 2.0) < 1e-15);
    assert_true(fabs(m.bits_per_token - 1.0) < 1e-15 && m.accuracy == 0.25);
    m = fv_metrics_of(&(fv_sums){.loss = 1e6, .tokens = 1});
    assert_true(m.perplexity == DBL_MAX); /* JSON has no infinity */
    m = fv_metrics_of(&(fv_sums){0});
    assert_true(m.tokens == 0 && m.loss == 0.0);
}

static void lines_have_their_fields(const char *name)
{
    static const char *const keys[] = {"step",      "tokens",     "split",          "loss",
                                       "accuracy",  "perplexity", "bits_per_token", "learning_rate",
                                       "grad_norm", "timing"};
    static const char *const timing[] = {"seconds", "tokens_per_s", "share_of_peak"};
    size_t count;
    char *bytes = tiny_file(name, "metrics.jsonl", &count);
    for (char *line = strtok(bytes, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        json_t *object = json_loads(line, 0, NULL);
        assert_int_equal(json_object_size(object), FV_COUNT(keys));
        for (int i = 0; i < FV_COUNT(keys); i++)
            assert_non_null(json_object_get(object, keys[i]));
        for (int i = 0; i < FV_COUNT(timing); i++)
            assert_true(json_is_number(json_object_get(json_object_get(object, "timing"), timing[i])));
        json_decref(object);
    }
    free(bytes);
}

/* ---- runs ---------------------------------------------------------------------------------------- */

static void run_learns_and_reports(void **state)
{
    (void)state;
    fv_config *c = tiny_run_config(ctx, "steps", "100", "hidden_dropout_prob", "0", "eval_every", "40", NULL);
    fv_train_result result;
    expect_ok(tiny_train(ctx, c, "learn", 0, &result));
    fv_config_destroy(c);
    assert_int_equal(result.steps, 100);
    assert_int_equal(result.stopped_early, 0);
    assert_true(result.valid.tokens > 0 && result.best.loss <= result.valid.loss);
    lines_have_their_fields("learn");
    double first = tiny_metric("learn", "train", 0, "loss"), last = tiny_metric("learn", "train", 33, "loss");
    if (!(first > 2.7 && last < first - 0.4))
        fail_msg("loss went from %g to %g", first, last);
    assert_true(tiny_metric("learn", "train", 0, "step") == 3 &&
                tiny_metric("learn", "train", 33, "step") == 100);
    assert_true(tiny_metric("learn", "train", 33, "tokens") == 6400);
    assert_true(isnan(tiny_metric("learn", "train", 34, "loss")));
    assert_true(tiny_metric("learn", "valid", 0, "step") == 40 &&
                tiny_metric("learn", "valid", 2, "step") == 100);
    static const char *const files[] = {"config.json",         "model.safetensors", "trainer.json",
                                        "trainer.safetensors", "best/config.json",  "best/model.safetensors"};
    for (int i = 0; i < FV_COUNT(files); i++)
        assert_true(fv_path_exists(scratch_path("learn"), files[i]));
    assert_false(fv_path_exists(scratch_path("learn"), "checkpoint"));
    assert_false(fv_path_exists(scratch_path("learn"), "checkpoint.part"));
}

static void evaluation_beats_the_baseline(void **state)
{
    (void)state;
    fv_metrics model, empirical, all;
    expect_ok(fv_evaluate(ctx, scratch_path("learn"), NULL, 0, FV_SPLIT_VALID, NULL, &model, &empirical));
    assert_true(empirical.tokens > 0 && model.tokens > empirical.tokens); /* ends are not letters */
    assert_true(model.loss < empirical.loss - 0.2);
    const char *files[] = {scratch_path("proteins.fasta")};
    expect_ok(fv_evaluate(ctx, scratch_path("learn"), files, 1, FV_SPLIT_ALL, NULL, &all, &empirical));
    assert_true(all.tokens > model.tokens);
    fv_status status = fv_evaluate(ctx, scratch_path("none"), files, 1, FV_SPLIT_ALL, NULL, &all, &empirical);
    expect_failure(ctx, status, FV_ERR_FILE, "none", NULL);
    files[0] = scratch_text("empty.fasta", "");
    status = fv_evaluate(ctx, scratch_path("learn"), files, 1, FV_SPLIT_ALL, NULL, &all, &empirical);
    assert_int_equal(status, FV_ERR_FILE);
}

/* Runs whose settings or surroundings cannot be. */
static void refusals(void **state)
{
    (void)state;
    fv_config *c = tiny_run_config(ctx, "steps", "1", NULL);
    scratch_text("file", "x");
    expect_failure(ctx, tiny_train(ctx, c, "learn", 0, NULL), FV_ERR_USAGE, "learn", "--resume", NULL);
    expect_failure(ctx, tiny_train(ctx, c, "file", 0, NULL), FV_ERR_USAGE, "directory", NULL);
    expect_failure(ctx, tiny_train(ctx, c, "file/run", 0, NULL), FV_ERR_RESOURCE, "file/run", NULL);
    expect_failure(ctx, tiny_train(ctx, c, "../../../../../../proc/favor", 0, NULL), FV_ERR_RESOURCE, "favor",
                   NULL);
    fv_config_destroy(c);
    c = tiny_run_config(ctx, "length", "4194304", "batch", "128", "position_embedding_type", "none", NULL);
    expect_failure(ctx, tiny_train(ctx, c, "huge", 0, NULL), FV_ERR_RESOURCE, "needs about", "available",
                   NULL);
    assert_false(fv_path_exists(scratch_path("huge"), "metrics.jsonl"));
    fv_config_destroy(c);
    c = tiny_run_config(ctx, "task", "mlm", "is_decoder", "true", NULL);
    expect_failure(ctx, tiny_train(ctx, c, "huge", 0, NULL), FV_ERR_USAGE, "is_decoder", NULL);
    fv_config_destroy(c);
    c = tiny_run_config(ctx, "max_position_embeddings", "16", NULL);
    expect_failure(ctx, tiny_train(ctx, c, "huge", 0, NULL), FV_ERR_USAGE, "max_position_embeddings", NULL);
    fv_config_destroy(c);
    assert_false(fv_path_exists(scratch_path("huge"), ""));
}

static void a_run_without_steps_is_a_model(void **state)
{
    (void)state;
    fv_config *c = tiny_run_config(ctx, "steps", "0", NULL);
    fv_train_result result;
    expect_ok(tiny_train(ctx, c, "still", 0, &result));
    fv_config_destroy(c);
    assert_int_equal(result.steps, 0);
    fv_metrics model, empirical;
    expect_ok(fv_evaluate(ctx, scratch_path("still"), NULL, 0, FV_SPLIT_ALL, NULL, &model, &empirical));
}

/* Decay of a thousand times the parameters overflows within a few steps. */
static void divergence_keeps_the_last_good_checkpoint(void **state)
{
    (void)state;
    fv_config *c = tiny_run_config(ctx, "learning_rate", "1000", "weight_decay", "1000", "warmup_steps", "0",
                                   "steps", "60", "checkpoint_every", "1", "eval_every", "0", NULL);
    expect_failure(ctx, tiny_train(ctx, c, "diverge", 0, NULL), FV_ERR_FAILED, "step", "learning_rate",
                   "diverge", NULL);
    fv_config_destroy(c);
    fv_metrics model, empirical;
    expect_ok(fv_evaluate(ctx, scratch_path("diverge"), NULL, 0, FV_SPLIT_ALL, NULL, &model, &empirical));
    assert_true(isfinite(model.loss));
}

/* ---- observers ----------------------------------------------------------------------------------- */

typedef struct seen {
    int plans, lines, reports;
    int64_t parameters, tokens_per_step, last_done;
} seen;

static void on_plan(void *user, const fv_train_plan *plan)
{
    seen *s = user;
    s->plans++;
    s->parameters = plan->cost.parameters;
    s->tokens_per_step = plan->tokens_per_step;
    assert_true(plan->data.records == 60 && plan->steps == 20 && plan->first_step == 0);
    assert_true(plan->cost.bytes > 0 && plan->cost.flop_step > 0 && plan->available_bytes > plan->cost.bytes);
}

static void on_metrics(void *user, const char *line)
{
    ((seen *)user)->lines += strchr(line, '\n') == NULL && line[0] == '{';
}

static void on_progress(void *user, const fv_progress *progress)
{
    seen *s = user;
    s->reports++;
    if (strcmp(progress->phase, "train") == 0)
        s->last_done = progress->done;
}

static void observers_are_told(void **state)
{
    (void)state;
    seen s = {0};
    char directory[4096];
    snprintf(directory, sizeof directory, "%s", scratch_path("deep/er/observed"));
    const char *files[] = {scratch_path("proteins.fasta")};
    fv_config *c = tiny_run_config(ctx, NULL);
    fv_train_options options;
    fv_train_options_init(&options);
    options.directory = directory;
    options.files = files;
    options.file_count = 1;
    options.plan = on_plan;
    options.observer = (fv_observer){&s, on_progress, on_metrics, NULL};
    fv_train_result result;
    expect_ok(fv_train(ctx, c, &options, &result));
    assert_int_equal(s.plans, 1);
    assert_int_equal(s.lines, 7 + 4); /* train at 3, 6 ... 18, 20; valid at 6, 12, 18, 20 */
    assert_int_equal(s.last_done, 20);
    assert_int_equal(s.tokens_per_step, 64);
    assert_true(s.parameters > 1000);
    options.file_count = 0;
    expect_failure(ctx, fv_train(ctx, c, &options, &result), FV_ERR_USAGE, "data", NULL);
    fv_config_destroy(c);
}

static void a_step_can_be_timed(void **state)
{
    (void)state;
    fv_step_timing t;
    fv_config *c = tiny_run_config(ctx, "task", "mlm", NULL);
    expect_ok(fv_time_step(ctx, c, 4, &t));
    assert_true(t.tokens == 64 && t.flop_step > 0 && t.peak_bytes > 0);
    assert_true(0 < t.ms_min && t.ms_min <= t.ms_median && t.ms_median <= t.ms_max);
    expect_failure(ctx, fv_time_step(ctx, c, 0, &t), FV_ERR_USAGE, "repeat", NULL);
    fv_config_destroy(c);
}

/* Forward is a third of the work and keeps less; what is predicted bounds what is held. */
static void passes_can_be_timed_and_predicted(void **state)
{
    (void)state;
    fv_step_timing forward, both, step;
    fv_model_cost cost;
    fv_config *c = tiny_run_config(ctx, "task", "mlm", NULL);
    size_t held = fv_context_bytes(ctx);
    expect_ok(fv_predict_step(ctx, c, &cost));
    assert_int_equal(fv_context_bytes(ctx), held);
    expect_ok(fv_time_pass(ctx, c, 0, 2, &forward));
    expect_ok(fv_time_pass(ctx, c, 1, 2, &both));
    expect_ok(fv_time_step(ctx, c, 2, &step));
    assert_true(forward.tokens == 64 && both.tokens == 64);
    assert_true(0 < forward.ms_min && forward.ms_min <= forward.ms_median);
    assert_true(forward.flop_step == cost.flop_forward && both.flop_step == cost.flop_step);
    assert_true(forward.peak_bytes < both.peak_bytes && both.peak_bytes < step.peak_bytes);
    assert_true(cost.bytes > (size_t)cost.parameters * 4 * sizeof(float));
    expect_failure(ctx, fv_time_pass(ctx, c, 0, 0, &forward), FV_ERR_USAGE, "repeat", NULL);
    expect_ok(fv_config_set(c, "attention.kind", "none such"));
    expect_failure(ctx, fv_predict_step(ctx, c, &cost), FV_ERR_USAGE, "none such", NULL);
    assert_int_equal(cost.bytes, 0);
    fv_config_destroy(c);
}

/* ---- allocation failure -------------------------------------------------------------------------- */

/* A new run, the same continued, evaluated, and a timed step. */
static fv_status whole_walk(fv_context *one, fv_config *c)
{
    static const char *const rows[][2] = {
        {"hidden_size", "16"},
        {"num_hidden_layers", "1"},
        {"num_attention_heads", "1"},
        {"intermediate_size", "16"},
        {"task", "lm"},
        {"length", "16"},
        {"batch", "1"},
        {"steps", "1"},
        {"eval_batches", "1"},
        {"valid_fraction", "0.3"},
    };
    fv_metrics model, empirical;
    fv_step_timing timing;
    for (int i = 0; i < FV_COUNT(rows); i++)
        TRY(fv_config_set(c, rows[i][0], rows[i][1]));
    TRY(tiny_train(one, c, "hungry", 0, NULL));
    TRY(fv_config_set(c, "steps", "2"));
    TRY(tiny_train(one, c, "hungry", 1, NULL));
    TRY(fv_evaluate(one, scratch_path("hungry"), NULL, 0, FV_SPLIT_VALID, NULL, &model, &empirical));
    TRY(fv_time_pass(one, c, 0, 1, &timing));
    return fv_time_step(one, c, 1, &timing);
}

static fv_status from_nothing(fv_context *one, void *arg)
{
    (void)arg;
    fv_config *c;
    tiny_remove("hungry");
    TRY(fv_config_create(&c, one));
    fv_status status = whole_walk(one, c);
    if (status != FV_OK && status != FV_ERR_RESOURCE)
        print_message("%s\n", fv_context_message(one));
    fv_config_destroy(c);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    assert_true(fail_every_allocation(from_nothing, NULL) > 50);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schedule_has_its_values),
        cmocka_unit_test(optimizer_follows_double_reference),
        cmocka_unit_test(norm_and_clip),
        cmocka_unit_test(metrics_are_readings_of_the_loss),
        cmocka_unit_test(run_learns_and_reports),
        cmocka_unit_test(evaluation_beats_the_baseline),
        cmocka_unit_test(refusals),
        cmocka_unit_test(a_run_without_steps_is_a_model),
        cmocka_unit_test(divergence_keeps_the_last_good_checkpoint),
        cmocka_unit_test(observers_are_told),
        cmocka_unit_test(a_step_can_be_timed),
        cmocka_unit_test(passes_can_be_timed_and_predicted),
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests_name("train", tests, setup, teardown);
}
