/* schedule.c: learning rates over the steps, a small function each.
 *
 * With w warm-up steps and T steps in all, the factor of step t = 1 .. T is t/w in the warm-up (t <= w), then
 *
 *     constant  1
 *     rsqrt     sqrt(w/t), with w at least 1 (Vaswani et al. 2017, sec. 5.3)
 *     cosine    (1 + cos(pi (t-1-w)/(T-w))) / 2 (Loshchilov, Hutter 2017); the last step still moves
 */
#include "train/internal.h"
#include <math.h>
#include <string.h>

static double constant_factor(double t, double warmup, double steps)
{
    (void)t, (void)warmup, (void)steps;
    return 1.0;
}

static double rsqrt_factor(double t, double warmup, double steps)
{
    (void)steps;
    return sqrt(fmax(warmup, 1.0) / t);
}

static double cosine_factor(double t, double warmup, double steps)
{
    double done = steps > warmup ? (t - 1.0 - warmup) / (steps - warmup) : 1.0;
    return 0.5 * (1.0 + cos(3.14159265358979323846 * fmin(done, 1.0)));
}

static const struct {
    const char *name;
    double (*factor)(double t, double warmup, double steps);
} schedules[] = {
    {"constant", constant_factor},
    {"rsqrt", rsqrt_factor},
    {"cosine", cosine_factor},
};

fv_status fv_schedule_make(fv_schedule *schedule, fv_context *ctx, const fv_config *config)
{
    const char *name = fv_config_text(config, "schedule");
    *schedule = (fv_schedule){
        .peak = fv_config_real(config, "learning_rate"),
        .warmup = (double)fv_config_int(config, "warmup_steps"),
        .steps = (double)fv_config_int(config, "steps"),
    };
    for (int i = 0; i < FV_COUNT(schedules); i++)
        if (strcmp(schedules[i].name, name) == 0)
            schedule->factor = schedules[i].factor;
    if (schedule->factor == NULL)
        return fv_fail(ctx, FV_ERR_USAGE, "schedule: %s is unknown, expected constant, rsqrt or cosine",
                       name);
    return FV_OK;
}

double fv_schedule_rate(const fv_schedule *schedule, int64_t step)
{
    double t = (double)step;
    if (t <= schedule->warmup)
        return schedule->peak * t / schedule->warmup;
    return schedule->peak * schedule->factor(t, schedule->warmup, schedule->steps);
}
