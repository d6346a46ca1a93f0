/* base/internal.h: what every room may use: the context, errors, checked sizes, arenas, parallel loops,
 * random numbers. The lowest room; it includes only the public base.h and the kernel table's type. */
#ifndef FV_BASE_INTERNAL_H
#define FV_BASE_INTERNAL_H

#include <favor/base.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>

#define FV_ALIGN        64
#define FV_THREADS_MAX  4096 /* of a context */
#define FV_COUNT(array) ((int)(sizeof(array) / sizeof((array)[0])))
#define FV_MIN(a, b)    ((a) < (b) ? (a) : (b))
#define FV_MAX(a, b)    ((a) > (b) ? (a) : (b))

struct fv_kernels; /* kernels/kernels.h */

struct fv_context {
    struct fv_kernels *kernels; /* the kernel table in use; its gemm follows the number format of products */
    struct fv_kernels *exact;   /* the same with gemm in float, for what must not be rounded further */
    const char *cpu;            /* its name */
    int threads;
    void *(*alloc)(void *user, size_t bytes);
    void (*free)(void *user, void *memory);
    void *alloc_user;
    void (*log)(void *user, fv_log_level level, const char *text);
    void *log_user;
    pthread_mutex_t lock; /* guards message */
    char message[1024];
    _Atomic size_t bytes, peak;
};

/* ---- errors ---------------------------------------------------------------------------------------- */

/* Sets the context's message and returns `status`. */
fv_status fv_fail(fv_context *ctx, fv_status status, const char *format, ...) FV_PRINTF(3, 4);
#ifdef __clang_analyzer__ /* which does not see across files that fv_fail returns its status */
#define fv_fail(ctx, status, ...) ((void)fv_fail(ctx, status, __VA_ARGS__), (status))
#endif
void fv_note(fv_context *ctx, fv_log_level level, const char *format, ...) FV_PRINTF(3, 4);

/* The one macro that carries errors: returns a failure to the caller. */
#define TRY(expr)                                                                                            \
    do {                                                                                                     \
        fv_status try_status = (expr);                                                                       \
        if (try_status != FV_OK)                                                                             \
            return try_status;                                                                               \
    } while (0)

/* ---- sizes ----------------------------------------------------------------------------------------- */

/* *out = a * b; false when it does not fit or a factor is negative. */
bool fv_mul(int64_t a, int64_t b, int64_t *out);
/* Bytes of count elements, rounded up to FV_ALIGN; SIZE_MAX when it does not fit. */
size_t fv_bytes(int64_t count, size_t element);
size_t fv_add_bytes(size_t a, size_t b); /* saturates at SIZE_MAX */

/* Allocates count elements of `element` bytes, zeroed or not; on failure sets a message and returns NULL. */
void *fv_alloc_array(fv_context *ctx, int64_t count, size_t element);
void *fv_alloc_zero(fv_context *ctx, int64_t count, size_t element);
char *fv_strdup(fv_context *ctx, const char *text);

/* ---- arena: carves one block into 64-byte aligned pieces -------------------------------------------- */

/* With base NULL it only measures: pushes return NULL and `used` grows all the same, so that one function
 * both measures a memory and lays it out. Builds with AddressSanitizer put a red zone behind every object. */
typedef struct fv_arena {
    char *base;
    size_t used, capacity; /* capacity is not checked when measuring */
    size_t peak;
} fv_arena;

fv_arena fv_arena_measure(void);
fv_arena fv_arena_over(void *base, size_t capacity);
/* count elements; NULL when measuring or when it does not fit (then used > capacity). */
void *fv_arena_push(fv_arena *arena, int64_t count, size_t element);
#define FV_PUSH(arena, type, count) ((type *)fv_arena_push((arena), (count), sizeof(type)))

#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#define FV_SANITIZED
enum { FV_RED_ZONE = FV_ALIGN };
#else
enum { FV_RED_ZONE = 0 };
#endif

/* For AddressSanitizer, which knows blocks of the heap but not what we carve out of them; elsewhere nothing.
 * Sealed bytes must not be touched until they are opened. */
void fv_seal(void *memory, size_t bytes);
void fv_open(void *memory, size_t bytes);

/* ---- parallel loops -------------------------------------------------------------------------------- */

/* Calls task(arg, index, worker) for index in [0, count), workers numbered below fv_context_threads(ctx). The
 * assignment of indices to workers may differ from run to run: what a task computes must depend on its
 * index alone; worker only selects scratch. Inside a task GEMM runs single-threaded. Not to be nested. */
typedef void fv_task(void *arg, int64_t index, int worker);
void fv_parallel(fv_context *ctx, int64_t count, fv_task *task, void *arg);

/* ---- random numbers: Philox 4x32-10, counter based ---------------------------------------------------- */

/* What a random number is for: one stream each. ORDER fixed forever (checkpoints). */
typedef enum fv_purpose {
    FV_RANDOM_INIT = 1, /* parameters */
    FV_RANDOM_PROJECTION_DIRECTION,
    FV_RANDOM_PROJECTION_NORM,
    FV_RANDOM_DROPOUT,
    FV_RANDOM_MASKING,
    FV_RANDOM_SHUFFLE,
    FV_RANDOM_SAMPLE,
    FV_RANDOM_BENCH,
    FV_RANDOM_TEST,
    FV_RANDOM_PATTERN,  /* blocks of sparse attention */
    FV_RANDOM_ROTATION, /* hash functions */
    FV_RANDOM_DEGREE,   /* of random Maclaurin features, and their signs */
    FV_RANDOM_SIGN
} fv_purpose;

/* A stream: numbers are a pure function of (seed, purpose, a, b) and the counter. */
typedef struct fv_random {
    uint32_t key[2];
    uint32_t high[2]; /* upper counter words */
    uint64_t next;    /* index of the next block of four */
    uint32_t block[4];
    int left;
} fv_random;

fv_random fv_random_make(uint64_t seed, fv_purpose purpose, uint32_t a, uint32_t b);
uint32_t fv_random_u32(fv_random *random);
uint64_t fv_random_below(fv_random *random, uint64_t n); /* unbiased, n >= 1 */
double fv_random_uniform(fv_random *random);             /* (0, 1) */
double fv_random_normal(fv_random *random);
/* Block `index` of the stream, without a state: for parallel use. */
void fv_random_block(const fv_random *random, uint64_t index, uint32_t out[4]);

/* ---- time and machine ------------------------------------------------------------------------------- */

double fv_now(void); /* seconds, monotonic */

/* ---- processor -------------------------------------------------------------------------------------- */

/* What kernel sets need of a processor: kernels/context.c says which set needs which. */
typedef enum fv_cpu_flag {
    FV_CPU_AVX2 = 1,   /* AVX2 and FMA, with OS support */
    FV_CPU_AVX512 = 2, /* F, BW, DQ, VL, with OS support */
    FV_CPU_NEON = 4,
    FV_CPU_AVX512_BF16 = 8, /* products of pairs of bf16 */
    FV_CPU_AMX = 16 /* products of tiles of bf16, with OS support and its permission for this process */
} fv_cpu_flag;
unsigned fv_cpu_flags(void);

#endif
