/* features/projection.c: draws the random projections W [m][d] of a feature map (rows omega).
 *
 *   iid:        omega ~ N(0, I_d), row by row.
 *   orthogonal, hadamard, givens, simplex: blocks of d rows whose directions depend on each other
 *               (projection_blocks.c); blocks are independent, the last one keeps its first m mod d ROWS.
 *
 * Row norms are those of fresh Gaussian vectors (chi_d) or sqrt(d). They come from a stream of their own: a
 * norm taken from the Gaussian row whose direction is used would be right for one row, but not independent of
 * the block's other directions.
 *
 * Everything is computed in double in a fixed order: a pure function of (seed, draw, head). More rows begin
 * with the same rows.
 */
#include "features/projection.h"
#include <favor/attention.h>
#include <math.h>

typedef struct kind {
    fv_projection_block *block; /* iid: a row is a block of its own */
    int64_t extra;              /* vectors of d doubles behind the block */
    fv_projection projection;
    bool single; /* blocks of one row */
    bool whole;  /* works on all d rows, whatever is kept */
} kind;

static const kind kinds[] = {
    {fv_projection_haar, 0, FV_PROJECTION_IID, true, false},
    {fv_projection_haar, 0, FV_PROJECTION_ORTHOGONAL, false, false},
    {fv_projection_hadamard, 3, FV_PROJECTION_HADAMARD, false, false},
    {fv_projection_givens, 0, FV_PROJECTION_GIVENS, false, false},
    {fv_projection_simplex, 1, FV_PROJECTION_SIMPLEX, false, true},
};

static const kind *find(int projection)
{
    for (int i = 0; i < FV_COUNT(kinds); i++)
        if ((int)kinds[i].projection == projection)
            return &kinds[i];
    return NULL;
}

static bool power_of_two(int64_t d)
{
    return d > 0 && (d & (d - 1)) == 0;
}

fv_status fv_projection_check(fv_context *ctx, int projection, int64_t d)
{
    if (projection == FV_PROJECTION_HADAMARD && !power_of_two(d))
        return fv_fail(ctx, FV_ERR_USAGE,
                       "attention: projection hadamard needs a head size that is a power of two, not %lld; "
                       "choose orthogonal, givens or simplex",
                       (long long)d);
    return FV_OK;
}

int64_t fv_projection_work(int projection, int64_t m, int64_t d)
{
    const kind *k = find(projection);
    if (k == NULL)
        return 0;
    int64_t rows = k->single ? 1 : k->whole ? d : FV_MIN(m, d), work;
    return fv_mul(rows, d, &work) && work <= INT64_MAX - k->extra * d ? work + k->extra * d : -1;
}

/* The norm of a vector ~ N(0, I_d). */
static double draw_chi(fv_random *random, int64_t d)
{
    double squares = 0;
    for (int64_t i = 0; i < d; i++) {
        double x = fv_random_normal(random);
        squares += x * x;
    }
    return sqrt(squares);
}

static void store_scaled(int64_t d, double factor, const double *x, float *w)
{
    for (int64_t i = 0; i < d; i++)
        w[i] = (float)(factor * x[i]);
}

bool fv_projection_draw(int projection, int row_norms, int64_t m, int64_t d, uint64_t seed, uint32_t draw,
                        uint32_t head, float *w, double *work)
{
    const kind *k = find(projection);
    bool chi = row_norms == FV_ROW_NORMS_CHI;
    if (k == NULL || (!chi && row_norms != FV_ROW_NORMS_SQRT_D) ||
        (projection == FV_PROJECTION_HADAMARD && !power_of_two(d)))
        return false;
    fv_random directions = fv_random_make(seed, FV_RANDOM_PROJECTION_DIRECTION, head, draw);
    fv_random norms = fv_random_make(seed, FV_RANDOM_PROJECTION_NORM, head, draw);
    int64_t size = k->single ? 1 : d;
    for (int64_t begin = 0; begin < m; begin += size) {
        int64_t rows = FV_MIN(size, m - begin);
        k->block(&directions, rows, d, work);
        for (int64_t row = 0; row < rows; row++) {
            double norm = chi ? draw_chi(&norms, d) : sqrt((double)d);
            store_scaled(d, norm, work + row * d, w + (begin + row) * d);
        }
    }
    return true;
}
