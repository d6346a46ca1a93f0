/* attention/shared_heads.h: which heads all threads work on together.
 *
 * A task is a head of a sequence, and threads take tasks one by one. Of the long ones those that are left over when every thread has had
 * as many would each keep one thread busy while the others wait: they are shared, where their pieces are sooner done
 * by all threads. Results must not depend on it: it follows the number of threads.
 */
#ifndef FV_SHARED_HEADS_H
#define FV_SHARED_HEADS_H

#include "base/internal.h"

typedef struct fv_task_size {
    double work;    /* in any unit */
    int64_t pieces; /* equal ones that threads can take; 0: it cannot be shared */
} fv_task_size;
typedef fv_task_size fv_task_measure(const void *call, int64_t sequence);

typedef struct fv_shared_heads {
    fv_task_measure *measure;
    const void *call;
    int64_t heads; /* of a sequence */
    double least;  /* a task is long above this work */
    int64_t first; /* long tasks from this one on are shared: sequence * heads + head */
} fv_shared_heads;

fv_shared_heads fv_share_heads(int64_t sequences, int64_t heads, int64_t threads, fv_task_measure *measure,
                               const void *call);
bool fv_is_shared(const fv_shared_heads *shared, int64_t task);

#endif
