/* shared_heads.c: which heads all threads work on together (shared_heads.h). */
#include "attention/shared_heads.h"

/* A task is long from this part of a thread's work on; shorter ones even out. */
#define LONG_PART 0.125

/* Sharing has costs of its own: it is to leave less than this part of the time that a thread for each would take. */
#define SOONER 0.875

static bool is_long(const fv_shared_heads *shared, int64_t sequence)
{
    fv_task_size size = shared->measure(shared->call, sequence);
    return size.pieces > 0 && size.work > shared->least;
}

fv_shared_heads fv_share_heads(int64_t sequences, int64_t heads, int64_t threads, fv_task_measure *measure,
                               const void *call)
{
    fv_shared_heads shared = {.measure = measure, .call = call, .heads = heads, .first = INT64_MAX};
    if (heads % threads == 0)
        return shared;
    for (int64_t s = 0; s < sequences; s++)
        shared.least += measure(call, s).work * (double)heads * LONG_PART / (double)threads;
    int64_t tasks = 0, pieces = INT64_MAX;
    for (int64_t s = 0; s < sequences; s++)
        if (is_long(&shared, s)) {
            tasks += heads;
            pieces = FV_MIN(pieces, measure(call, s).pieces);
        }
    int64_t left = tasks % threads, rounds = pieces / threads + (pieces % threads != 0);
    if ((double)left * (double)rounds >= SOONER * (double)pieces)
        return shared;
    for (int64_t s = sequences - 1; left > 0; s--)
        if (is_long(&shared, s)) {
            int64_t some = FV_MIN(left, heads);
            shared.first = (s + 1) * heads - some;
            left -= some;
        }
    return shared;
}

bool fv_is_shared(const fv_shared_heads *shared, int64_t task)
{
    return task >= shared->first && is_long(shared, task / shared->heads);
}
