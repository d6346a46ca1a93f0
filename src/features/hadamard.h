/* features/hadamard.h: blocks of a Hadamard projection, W = diag(length) H D1 H D2 H D3, found in their rows and applied
 * in O(d log d) a vector. */
#ifndef FV_HADAMARD_H
#define FV_HADAMARD_H

#include "kernels/kernels.h"

/* Narrower heads are left to the dense product, which is as fast there (docs/DECISIONS.md). */
enum { FV_HADAMARD_LEAST = 64 };

/* Blocks of d rows. H is applied without its factor 1/sqrt(d); d^(-3/2) stands where vectors enter a block, so that no
 * vector on the way is longer than what comes out. */
typedef struct fv_hadamard {
    int64_t d, blocks;
    float *signs;   /* [blocks][3][d] D1, D2, D3 */
    float *lengths; /* [blocks][d] |omega_f| d^(-3/2) */
    float *first,
        *last; /* [blocks][d] D3 d^(-3/2) and |omega_f| as features want them, with factors of theirs */
} fv_hadamard;

/* Floats of `work` below. */
int64_t fv_hadamard_work(int64_t d);
/* Finds the factors of one block with rows w [d][d], up to rounding; false when they are no such block, or one of the few
 * whose signs the rows do not tell apart. */
bool fv_hadamard_find(const fv_kernels *kr, int64_t d, const float *w, float *signs, float *lengths,
                      float *work);
/* u [n][blocks d] = alpha x W^T, with `first` and `last`. */
void fv_hadamard_apply(const fv_kernels *kr, const fv_hadamard *h, int64_t n, float alpha, const float *x,
                       int64_t ldx, float *u, int64_t ldu, float *work);
/* dx [n][d] = alpha g W, or +=, with D3 and the lengths themselves. dx apart from g. */
void fv_hadamard_back(const fv_kernels *kr, const fv_hadamard *h, int64_t n, float alpha, const float *g,
                      int64_t ldg, bool add, float *dx, int64_t lddx, float *work);

#endif
