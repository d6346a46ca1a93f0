/* test_train_signals.c: a signal that arrives in the middle of a product disturbs nothing. */
#include "kernels/kernels.h"
#include "support/scratch.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>

enum { M = 512, N = 512, K = 2048 }; /* a shape that oneDNN 2.6.3 computes with data far below its stack */

static volatile sig_atomic_t caught;

static void on_alarm(int number)
{
    (void)number;
    caught = caught + 1;
}

static void ring_every(int microseconds)
{
    struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

typedef struct product {
    const fv_kernels *kernels;
    float *a, *b, *c;
} product;

static void multiply(void *arg, int64_t index, int worker)
{
    (void)index, (void)worker;
    const product *p = arg;
    p->kernels->gemm('N', 'N', M, N, K, 1.0f, p->a, K, p->b, N, 0.0f, p->c, N);
}

static void products_survive_signals(void **state)
{
    (void)state;
    fv_context *ctx;
    assert_int_equal(fv_context_create(&ctx, NULL), FV_OK);
    product p = {ctx->kernels, malloc(sizeof(float) * M * K), malloc(sizeof(float) * K * N),
                 malloc(sizeof(float) * M * N)};
    float *expected = malloc(sizeof(float) * M * N);
    for (int i = 0; i < M * K; i++)
        p.a[i] = (float)(i % 7 - 3);
    for (int i = 0; i < K * N; i++)
        p.b[i] = (float)(i % 5 - 2);
    fv_parallel(ctx, 1, multiply, &p);
    memcpy(expected, p.c, sizeof(float) * M * N);
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    ring_every(300);
    double end = fv_now() + 0.3;
    do {
        fv_parallel(ctx, 1, multiply, &p);
        assert_memory_equal(p.c, expected, sizeof(float) * M * N);
    } while (fv_now() < end);
    ring_every(0);
    assert_true(caught > 0); /* late, but not lost */
    free(p.a), free(p.b), free(p.c), free(expected);
    fv_context_destroy(ctx);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(products_survive_signals)};
    return cmocka_run_group_tests_name("signals", tests, NULL, NULL);
}
