/* reformer_hash.c: buckets and the sorted order of LSH attention: h(x) = argmax [xR, -xR] for each round, then a
 * counting sort by (bucket, position).
 *
 * A hash must not depend on how a product rounds, or programs and kernel sets would disagree about whole rows of
 * the matrix. Products are taken in float; where the two largest are closer than their rounding could explain,
 * that row is taken again in double. */
#include "attention/reformer.h"
#include "attention/softmax.h"
#include <float.h>
#include <math.h>
#include <string.h>

enum { ROWS = 128 };

/* Squared norms below this count as 0: the inverse norm would not be a float. */
#define TINY 1e-76

typedef struct sort_call {
    const fv_attention *op;
    const fv_layout *layout;
    fv_attention_io io;
    const float *inverse;
    const fv_lsh_sums *sums;
    char *workers;
    size_t worker_bytes;
} sort_call;

typedef struct sort_scratch {
    float *x;        /* [ROWS][buckets / 2] */
    int64_t *starts; /* [buckets + 1] */
    int32_t *bucket; /* [longest sequence] */
} sort_scratch;

static sort_scratch push_scratch(fv_arena *arena, const fv_attention *op, const fv_layout *layout)
{
    int64_t longest = 0;
    sort_scratch s;
    for (int64_t n = 0; n < layout->sequences; n++)
        longest = FV_MAX(longest, layout->offsets_q[n + 1] - layout->offsets_q[n]);
    s.x = FV_PUSH(arena, float, ROWS *(op->options.buckets / 2));
    s.starts = FV_PUSH(arena, int64_t, op->options.buckets + 1);
    s.bucket = FV_PUSH(arena, int32_t, longest);
    return s;
}

size_t fv_lsh_work_bytes(const fv_attention *op, const fv_layout *layout)
{
    fv_arena arena = fv_arena_measure();
    push_scratch(&arena, op, layout);
    return arena.used;
}

/* ---- norms --------------------------------------------------------------------------------------------- */

typedef struct norms_call {
    const fv_attention *op;
    int64_t tokens, ldq;
    const float *q;
    float *inverse;
} norms_call;

static void norms_task(void *arg, int64_t h, int worker)
{
    const norms_call *c = arg;
    int64_t d = c->op->options.dim;
    (void)worker;
    for (int64_t t = 0; t < c->tokens; t++) {
        double square = c->op->ctx->kernels->sum_squares(d, c->q + t * c->ldq + h * d);
        c->inverse[h * c->tokens + t] = square < TINY ? 0.0f : (float)(1.0 / sqrt(square));
    }
}

void fv_lsh_norms(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io, float *inverse)
{
    norms_call call = {op, layout->offsets_q[layout->sequences], io->q_stride, io->q, inverse};
    fv_parallel(op->ctx, op->options.heads, norms_task, &call);
}

/* ---- buckets ------------------------------------------------------------------------------------------- */

/* The largest of n products and their negatives, lowest place first; *gap: by how much it leads. A NaN is never the
 * largest. */
static int32_t largest(int64_t n, const float *x, float *gap)
{
    float best = -INFINITY, second = -INFINITY;
    int64_t place = 0;
    for (int64_t f = 0; f < 2 * n; f++) {
        float value = f < n ? x[f] : -x[f - n];
        if (value > best)
            second = best, best = value, place = f;
        else if (value > second)
            second = value;
    }
    *gap = best - second;
    return (int32_t)place;
}

/* The same row in double; products are made one after the other. */
static int32_t exact_bucket(int64_t d, int64_t half, const float *x, const float *rotation)
{
    double best = -(double)INFINITY;
    int64_t place = 0;
    for (int64_t f = 0; f < 2 * half; f++) {
        double sum = 0;
        for (int64_t c = 0; c < d; c++)
            sum += (double)x[c] * (double)rotation[c * half + f % half];
        sum = f < half ? sum : -sum;
        if (sum > best)
            best = sum, place = f;
    }
    return (int32_t)place;
}

/* The largest norm of a column of R [d][half]. */
static double largest_column(int64_t d, int64_t half, const float *rotation)
{
    double most = 0;
    for (int64_t f = 0; f < half; f++) {
        double square = 0;
        for (int64_t c = 0; c < d; c++)
            square += (double)rotation[c * half + f] * (double)rotation[c * half + f];
        most = square > most ? square : most;
    }
    return sqrt(most);
}

static void hash(const sort_call *c, int64_t length, const float *q, const float *inverse,
                 const float *rotation, const sort_scratch *t)
{
    const fv_attention_options *o = &c->op->options;
    int64_t d = o->dim, half = o->buckets / 2, ldq = c->io.q_stride;
    /* Two products of d terms, each wrong by at most d eps/2 |x| |R_f|; the factor 2 covers what is left. */
    double doubt = 2.0 * (double)(d + 2) * (double)FLT_EPSILON * largest_column(d, half, rotation);
    for (int64_t i = 0; i < length; i += ROWS) {
        int64_t n = FV_MIN(ROWS, length - i);
        c->op->ctx->exact->gemm('N', 'N', n, half, d, 1.0f, q + i * ldq, ldq, rotation, half, 0.0f, t->x,
                                half);
        for (int64_t r = 0; r < n; r++) {
            float gap;
            t->bucket[i + r] = largest(half, t->x + r * half, &gap);
            if (!((double)gap * (double)inverse[i + r] > doubt))
                t->bucket[i + r] = exact_bucket(d, half, q + (i + r) * ldq, rotation);
        }
    }
}

/* ---- order --------------------------------------------------------------------------------------------- */

static void sort_task(void *arg, int64_t index, int worker)
{
    const sort_call *c = arg;
    const fv_attention_options *o = &c->op->options;
    int64_t s = index / (o->heads * o->rounds), h = index / o->rounds % o->heads, round = index % o->rounds;
    int64_t all = c->layout->offsets_q[c->layout->sequences], begin = c->layout->offsets_q[s];
    int64_t length = c->layout->offsets_q[s + 1] - begin;
    int32_t *order = c->sums->order + (round * o->heads + h) * all + begin;
    fv_arena arena = fv_arena_over(c->workers + (size_t)worker * c->worker_bytes, c->worker_bytes);
    sort_scratch t = push_scratch(&arena, c->op, c->layout);

    hash(c, length, c->io.q + begin * c->io.q_stride + h * o->dim, c->inverse + h * all + begin,
         c->io.input[FV_INPUT_LSH_ROTATIONS] + round * o->dim * (o->buckets / 2), &t);
    memset(t.starts, 0, (size_t)(o->buckets + 1) * sizeof *t.starts);
    for (int64_t i = 0; i < length; i++)
        t.starts[t.bucket[i] + 1]++;
    for (int64_t b = 0; b < o->buckets; b++)
        t.starts[b + 1] += t.starts[b];
    for (int64_t i = 0; i < length; i++)
        order[t.starts[t.bucket[i]]++] = (int32_t)i;
}

void fv_lsh_sort(const fv_attention *op, const fv_layout *layout, const fv_attention_io *io,
                 const float *inverse, const fv_lsh_sums *sums, char *workers, size_t worker_bytes)
{
    sort_call call = {op, layout, *io, inverse, sums, workers, worker_bytes};
    fv_parallel(op->ctx, layout->sequences * op->options.heads * op->options.rounds, sort_task, &call);
}
