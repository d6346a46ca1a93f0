/* parallel.c: the one place that knows OpenMP.
 *
 * Signals wait while a task runs. oneDNN's products (seen with 2.6.3) keep data on the stack below what the
 * ABI protects, so a signal handler that runs there, a timer's or the one of Ctrl-C, overwrites it and the
 * product then writes anywhere. A region lasts milliseconds; nobody notices the delay.
 */
#include "base/internal.h"
#include <omp.h>
#include <signal.h>

/* Blocks what comes from outside; faults of the thread itself must stay. */
static void hold_signals(sigset_t *before)
{
    static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS};
    sigset_t held;
    sigfillset(&held);
    for (int i = 0; i < FV_COUNT(faults); i++)
        sigdelset(&held, faults[i]);
    pthread_sigmask(SIG_BLOCK, &held, before);
}

void fv_parallel(fv_context *ctx, int64_t count, fv_task *task, void *arg)
{
    int threads = (int)FV_MIN((int64_t)ctx->threads, count); // NOLINT: the pragma reads it
#pragma omp parallel num_threads(threads > 0 ? threads : 1)
    {
        /* A GEMM library called inside a region of one thread would start its own; this holds for the
         * region's implicit task only and ends with it. */
        omp_set_num_threads(1);
        sigset_t before;
        hold_signals(&before);
        int worker = omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < count; i++)
            task(arg, i, worker);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
}
