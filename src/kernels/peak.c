/* peak.c: the sgemm rate of this machine, measured. Every share of peak is against this figure.
 *
 * Every worker multiplies matrices of its own, single-threaded, until a common deadline; the rates of all workers are
 * added. The best round counts, over a few shapes and over our kernel and the library's: a rate is spoilt by whatever else
 * the machine does, never improved. */
#include "kernels/dispatch.h"

enum { LARGEST = 1024 * 1024, ROUNDS = 3 };

static const struct {
    int64_t m, n, k;
} shapes[] = {{1024, 1024, 1024}, {512, 512, 512}, {512, 512, 2048}, {128, 256, 64}};

typedef void gemm_function(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t,
                           const float *, int64_t, float, float *, int64_t);

typedef struct round_plan {
    fv_context *ctx;
    float *matrices; /* [threads][3][LARGEST] */
    int64_t m, n, k;
    gemm_function *gemm;
    double start, deadline;
    double *rate; /* [threads], FLOP/s */
} round_plan;

static void multiply_until_deadline(void *arg, int64_t index, int worker)
{
    (void)worker;
    round_plan *plan = arg;
    float *a = plan->matrices + index * 3 * LARGEST;
    float *b = a + LARGEST;
    float *c = b + LARGEST;
    double done = 0.0;
    /* A task that another one kept waiting finds the deadline passed and adds nothing. */
    while (fv_now() < plan->deadline) {
        plan->gemm('N', 'N', plan->m, plan->n, plan->k, 1.0f, a, plan->k, b, plan->n, 0.0f, c, plan->n);
        done += 2.0 * (double)plan->m * (double)plan->n * (double)plan->k;
    }
    plan->rate[index] = done / (fv_now() - plan->start);
}

static double run_round(round_plan *plan, double seconds)
{
    plan->start = fv_now();
    plan->deadline = plan->start + seconds;
    fv_parallel(plan->ctx, plan->ctx->threads, multiply_until_deadline, plan);
    double sum = 0.0;
    for (int i = 0; i < plan->ctx->threads; i++)
        sum += plan->rate[i];
    return sum;
}

double fv_measure_sgemm(fv_context *ctx, double seconds)
{
    int64_t floats = (int64_t)ctx->threads * 3 * LARGEST;
    round_plan plan = {.ctx = ctx};
    plan.matrices = fv_alloc_array(ctx, floats, sizeof(float));
    plan.rate = fv_alloc_array(ctx, ctx->threads, sizeof(double));
    gemm_function *const makers[] = {ctx->exact->gemm, fv_gemm_provided};
    const int rounds = ROUNDS * FV_COUNT(shapes) * FV_COUNT(makers);
    double best = 0.0;
    if (plan.matrices != NULL && plan.rate != NULL) {
        ctx->kernels->fill(floats, 0.5f, plan.matrices);
        for (int i = 0; i < rounds; i++) {
            plan.gemm = makers[i / FV_COUNT(shapes) % FV_COUNT(makers)];
            plan.m = shapes[i % FV_COUNT(shapes)].m;
            plan.n = shapes[i % FV_COUNT(shapes)].n;
            plan.k = shapes[i % FV_COUNT(shapes)].k;
            best = FV_MAX(best, run_round(&plan, seconds / rounds));
        }
    }
    fv_free(ctx, plan.matrices);
    fv_free(ctx, plan.rate);
    return best * 1e-9;
}
