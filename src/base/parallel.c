/* parallel.c: the one place that knows OpenMP. */
#include "base/internal.h"
#include <omp.h>

void fv_parallel(fv_context *ctx, int64_t count, fv_task *task, void *arg)
{
    int threads = (int)FV_MIN((int64_t)ctx->threads, count); // NOLINT: the pragma reads it
#pragma omp parallel num_threads(threads > 0 ? threads : 1)
    {
        /* A GEMM library called inside a region of one thread would start its own; this holds for the
         * region's implicit task only and ends with it. */
        omp_set_num_threads(1);
        int worker = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < count; i++)
            task(arg, i, worker);
    }
}
