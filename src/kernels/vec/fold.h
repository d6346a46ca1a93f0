/* vec/fold.h: sums and maxima along rows, in the words of words.h. */

/* x in the lanes of the part, `other` beyond. */
static inline V within(Part part, V x, V other)
{
    return part.whole ? x : v_select(v_first(part.tail), x, other);
}

static inline V within_zero(Part part, V x)
{
    return part.whole ? x : v_keep(v_first(part.tail), x);
}

/* EACH_VECTOR with `u` = i / VL mod FOLD as well, for sums in FOLD accumulators: latency is hidden. */
enum { FOLD = 4 };
#define FOLD_VECTORS(n, statement)                                                                           \
    do {                                                                                                     \
        int64_t block = 0;                                                                                   \
        for (; block + FOLD * VL <= (n); block += FOLD * VL) {                                               \
            const Part part = part_whole();                                                                  \
            _Pragma("GCC unroll 4") for (int u = 0; u < FOLD; u++)                                           \
            {                                                                                                \
                const int64_t i = block + u * VL;                                                            \
                statement;                                                                                   \
            }                                                                                                \
        }                                                                                                    \
        _Pragma("GCC unroll 4") for (int u = 0; u < FOLD; u++)                                               \
        {                                                                                                    \
            const int64_t i = block + u * VL;                                                                \
            if (i + VL <= (n)) {                                                                             \
                const Part part = part_whole();                                                              \
                statement;                                                                                   \
            } else if (i < (n)) {                                                                            \
                const Part part = part_tail((n)-i);                                                          \
                statement;                                                                                   \
            }                                                                                                \
        }                                                                                                    \
    } while (0)

typedef struct Fold {
    V v[FOLD];
} Fold;

static inline Fold fold_set1(float x)
{
    V v = v_set1(x);
    return (Fold){{v, v, v, v}};
}

static inline float fold_sum(const Fold *f)
{
    return v_sum(v_add(v_add(f->v[0], f->v[1]), v_add(f->v[2], f->v[3])));
}

static inline float fold_top(const Fold *f)
{
    return v_top(v_max(v_max(f->v[0], f->v[1]), v_max(f->v[2], f->v[3])));
}
