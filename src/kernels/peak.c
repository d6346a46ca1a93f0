/* peak.c: the sgemm rate and the read bandwidth of this machine, measured. Every share in favor is against these.
 *
 * Every worker does work of its own, single-threaded, until a common deadline; the rates of all workers are added. The
 * best round counts: a rate is spoilt by whatever else the machine does, never improved.
 *
 * sgemm: products of a few shapes, by our kernel and by the library's. Reading: sums over an array of 1 GiB, cut among
 * the workers, larger than the last-level caches of processors; a worker goes on where it stopped, so that it comes back to
 * a piece only after all others. `sum` keeps up with memory (27.5 GB/s on a core of an AMD EPYC, and so does every
 * other kernel that reads once). */
#include "kernels/dispatch.h"

enum { LARGEST = 1024 * 1024, ROUNDS = 3 };

static const struct {
    int64_t m, n, k;
} shapes[] = {{1024, 1024, 1024}, {512, 512, 512}, {512, 512, 2048}, {128, 256, 64}};

typedef void gemm_function(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t,
                           const float *, int64_t, float, float *, int64_t);

/* What happens until the deadline: one piece of worker `index`; returns how much was done. */
typedef struct round_plan round_plan;
typedef double piece_function(const round_plan *plan, int64_t index);

struct round_plan {
    fv_context *ctx;
    piece_function *piece;
    double start, deadline;
    double *rate;  /* [threads], a second */
    float *floats; /* [threads][floats of one worker] */

    gemm_function *gemm; /* of products: [threads][3][LARGEST] */
    int64_t m, n, k;

    int64_t span;    /* of reading: floats of one worker, a multiple of LARGEST */
    int64_t *cursor; /* [threads], where the next piece begins */
    double *sum;     /* [threads], of what was read: nothing that could be left out */
};

/* A task that another one kept waiting finds the deadline passed and adds nothing. */
static void work_until_deadline(void *arg, int64_t index, int worker)
{
    (void)worker;
    const round_plan *plan = arg;
    double done = 0.0;
    while (fv_now() < plan->deadline)
        done += plan->piece(plan, index);
    plan->rate[index] = done / (fv_now() - plan->start);
}

static double run_round(round_plan *plan, double seconds)
{
    plan->start = fv_now();
    plan->deadline = plan->start + seconds;
    fv_parallel(plan->ctx, plan->ctx->threads, work_until_deadline, plan);
    double sum = 0.0;
    for (int i = 0; i < plan->ctx->threads; i++)
        sum += plan->rate[i];
    return sum;
}

/* ---- products ------------------------------------------------------------------------------------------ */

static double multiply(const round_plan *plan, int64_t index)
{
    float *a = plan->floats + index * 3 * LARGEST;
    float *b = a + LARGEST;
    float *c = b + LARGEST;
    plan->gemm('N', 'N', plan->m, plan->n, plan->k, 1.0f, a, plan->k, b, plan->n, 0.0f, c, plan->n);
    return 2.0 * (double)plan->m * (double)plan->n * (double)plan->k;
}

size_t fv_measure_sgemm_bytes(const fv_context *ctx)
{
    return (size_t)ctx->threads * 3 * LARGEST * sizeof(float);
}

double fv_measure_sgemm_in(fv_context *ctx, double seconds, float *memory)
{
    gemm_function *const makers[] = {ctx->exact->gemm, fv_gemm_provided};
    const int rounds = ROUNDS * FV_COUNT(shapes) * FV_COUNT(makers);
    round_plan plan = {.ctx = ctx, .piece = multiply, .floats = memory};
    plan.rate = fv_alloc_array(ctx, ctx->threads, sizeof(double));
    double best = 0.0;
    if (plan.rate != NULL) {
        ctx->kernels->fill((int64_t)ctx->threads * 3 * LARGEST, 0.5f, memory);
        for (int i = 0; i < rounds; i++) {
            plan.gemm = makers[i / FV_COUNT(shapes) % FV_COUNT(makers)];
            plan.m = shapes[i % FV_COUNT(shapes)].m;
            plan.n = shapes[i % FV_COUNT(shapes)].n;
            plan.k = shapes[i % FV_COUNT(shapes)].k;
            best = FV_MAX(best, run_round(&plan, seconds / rounds));
        }
    }
    fv_free(ctx, plan.rate);
    return best * 1e-9;
}

/* On the worker's own stack, some 0.1 ms. */
static double multiply_small(const round_plan *plan, int64_t index)
{
    enum { M = 96, N = 64, K = 64, TIMES = 16 };
    _Alignas(FV_ALIGN) float a[M * K], b[K * N], c[M * N];
    (void)index;
    plan->ctx->exact->fill(M * K, 0.5f, a);
    plan->ctx->exact->fill(K * N, 0.5f, b);
    for (int i = 0; i < TIMES; i++)
        plan->ctx->exact->gemm('N', 'N', M, N, K, 1.0f, a, K, b, N, 0.0f, c, N);
    return 2.0 * M * N * K * TIMES;
}

double fv_measure_sgemm_now(fv_context *ctx, double seconds)
{
    double rate[FV_THREADS_MAX];
    round_plan plan = {.ctx = ctx, .piece = multiply_small, .rate = rate};
    return run_round(&plan, seconds) * 1e-9;
}

double fv_measure_sgemm(fv_context *ctx, double seconds)
{
    float *memory = fv_alloc(ctx, fv_measure_sgemm_bytes(ctx));
    double best = memory != NULL ? fv_measure_sgemm_in(ctx, seconds, memory) : 0.0;
    fv_free(ctx, memory);
    return best;
}

/* ---- reading ------------------------------------------------------------------------------------------- */

/* First touched in parallel, so that machines of several nodes spread the pages. */
static void touch(void *arg, int64_t index, int worker)
{
    (void)worker;
    const round_plan *plan = arg;
    plan->ctx->kernels->fill(plan->span, 0.5f, plan->floats + index * plan->span);
}

static double read_piece(const round_plan *plan, int64_t index)
{
    int64_t *cursor = &plan->cursor[index];
    plan->sum[index] += plan->ctx->kernels->sum(LARGEST, plan->floats + index * plan->span + *cursor);
    *cursor = (*cursor + LARGEST) % plan->span;
    return (double)LARGEST * sizeof(float);
}

double fv_measure_bandwidth(fv_context *ctx, double seconds)
{
    size_t bytes = FV_MIN((size_t)1 << 30, fv_available_memory() / 4);
    int64_t pieces = FV_MAX((int64_t)(bytes / sizeof(float)) / LARGEST / ctx->threads, 1);
    round_plan plan = {.ctx = ctx, .piece = read_piece, .span = pieces * LARGEST};
    plan.floats = fv_alloc_array(ctx, ctx->threads * plan.span, sizeof(float));
    plan.rate = fv_alloc_array(ctx, ctx->threads, sizeof(double));
    plan.sum = fv_alloc_zero(ctx, ctx->threads, sizeof(double));
    plan.cursor = fv_alloc_zero(ctx, ctx->threads, sizeof(int64_t));
    double best = 0.0;
    if (plan.floats != NULL && plan.rate != NULL && plan.sum != NULL && plan.cursor != NULL) {
        fv_parallel(ctx, ctx->threads, touch, &plan);
        for (int i = 0; i < ROUNDS; i++)
            best = FV_MAX(best, run_round(&plan, seconds / ROUNDS));
    }
    fv_free(ctx, plan.floats);
    fv_free(ctx, plan.rate);
    fv_free(ctx, plan.sum);
    fv_free(ctx, plan.cursor);
    return best * 1e-9;
}
