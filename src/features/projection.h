/* features/projection.h: the random projections W [m][d] of the feature maps. */
#ifndef FV_PROJECTION_H
#define FV_PROJECTION_H

#include "base/internal.h"

/* FV_ERR_USAGE, naming the projection, where vectors of d channels cannot have it. */
fv_status fv_projection_check(fv_context *ctx, int projection, int64_t d);

/* Draws m rows of d into w, a pure function of the other arguments; work holds fv_projection_work doubles.
 * False for kinds it does not know, or that d cannot have. */
bool fv_projection_draw(int projection, int row_norms, int64_t m, int64_t d, uint64_t seed, uint32_t draw,
                        uint32_t head, float *w, double *work);
/* Doubles of `work`; -1 when they cannot be addressed. */
int64_t fv_projection_work(int projection, int64_t m, int64_t d);

/* ---- projection_blocks.c: directions of one block ---------------------------------------------------- */

/* Leaves `rows` <= d unit vectors in block [rows][d]. The numbers taken from the stream may depend on `rows`
 * only in the last block of a matrix, and row i never does. */
typedef void fv_projection_block(fv_random *random, int64_t rows, int64_t d, double *block);
fv_projection_block fv_projection_haar, fv_projection_hadamard, fv_projection_givens, fv_projection_simplex;

#endif
