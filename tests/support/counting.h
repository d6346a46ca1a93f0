/* support/counting.h: a kernel table that counts the work done through it. Complexity is tested with it: no
 * clock, no noise.
 *
 *     fv_kernels base = *ctx->kernels, table;
 *     counting_table(&table, &base);
 *     *ctx->kernels = table;
 *     counting_reset();
 *     ... run at L ...
 *     double work = counting_work();
 *
 * A product counts 2 m n k, any other kernel the elements it goes over. One table at a time. */
#ifndef COUNTING_H
#define COUNTING_H

#include "kernels/kernels.h"

/* *out counts and calls *base, which is copied. */
void counting_table(fv_kernels *out, const fv_kernels *base);
double counting_work(void);
void counting_reset(void);

#endif
