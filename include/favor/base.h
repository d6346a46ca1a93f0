/* favor/base.h: status codes, the context, and what every other header needs.
 *
 *     #include <favor/favor.h>
 *
 *     fv_context *ctx = NULL;
 *     if (fv_context_create(&ctx, NULL) != FV_OK)
 *         return 1;
 *     ...
 *     fv_context_destroy(ctx);
 *
 * Conventions of the whole library
 * --------------------------------
 * - Functions that can fail return fv_status; 0 is success. The detail is a sentence in
 *   fv_context_message(ctx). The library never exits, aborts or prints.
 * - Dimensions are int64_t, bytes size_t. Arrays are dense and row-major unless a stride is named.
 * - Option structs begin with `size`; always fill them with their _init function, then change fields.
 *   0 or NULL in a field means "choose for me" unless the field says otherwise.
 * - Handles are opaque. _destroy(NULL) is fine.
 * - A result does not depend on the number of threads, in any bit.
 */
#ifndef FAVOR_BASE_H
#define FAVOR_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FV_VERSION_MAJOR  0
#define FV_VERSION_MINOR  1
#define FV_VERSION_PATCH  0
#define FV_VERSION_STRING "0.1.0"

#if defined(__GNUC__)
#define FV_NODISCARD         __attribute__((warn_unused_result))
#define FV_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define FV_API               __attribute__((visibility("default")))
#else
#define FV_NODISCARD
#define FV_PRINTF(fmt, args)
#define FV_API
#endif

/* Status codes. The values are stable; -status is the exit code of the program `favor`. */
typedef enum fv_status {
    FV_OK = 0,
    FV_ERR_FAILED = -1,   /* a computation failed: non-finite loss, no convergence */
    FV_ERR_USAGE = -2,    /* wrong use: an option, a shape or a combination that cannot be */
    FV_ERR_FILE = -3,     /* an input file is missing, damaged or does not fit */
    FV_ERR_RESOURCE = -4, /* memory, disk or device exhausted */
    FV_ERR_INTERNAL = -5, /* a bug in favor */
    FV_STOPPED = -6       /* stopped on request, after a checkpoint (not an error of its own) */
} fv_status;

/* One word for a status ("ok", "usage" ...); never NULL. */
FV_API const char *fv_status_name(fv_status status);

/* "0.1.0"; equals FV_VERSION_STRING when header and library match. */
FV_API const char *fv_version(void);

typedef struct fv_context fv_context;

typedef enum fv_log_level { FV_LOG_INFO = 0, FV_LOG_WARNING = 1 } fv_log_level;

typedef struct fv_context_options {
    size_t size; /* sizeof(fv_context_options), set by _init */
    int threads; /* worker threads; 0: as many as the machine has for this process */
    const char
        *cpu; /* "reference", "avx2", "avx512", "avx512_bf16", "amx", "neon": force a kernel set; NULL: the
                      * environment's FAVOR_CPU, else the best this processor has */

    /* Memory. Both NULL: the C library. alloc returns 64-byte aligned memory or NULL. */
    void *(*alloc)(void *user, size_t bytes);
    void (*free)(void *user, void *memory);
    void *alloc_user;

    /* Notes for people: one line, no newline. NULL: silent. */
    void (*log)(void *user, fv_log_level level, const char *text);
    void *log_user;
} fv_context_options;

FV_API void fv_context_options_init(fv_context_options *options);

/* Detects the processor, fills the kernel table, keeps the allocator. options may be NULL.
 * On failure *ctx is NULL: FV_ERR_USAGE for an unknown or unsupported cpu name or threads < 0,
 * FV_ERR_RESOURCE without memory. A context may be used from many threads. On processors with AMX it asks Linux for the use of
 * the tile registers by this process: signal stacks set up later must hold 8 KiB more (getauxval(AT_MINSIGSTKSZ)). */
FV_API FV_NODISCARD fv_status fv_context_create(fv_context **ctx, const fv_context_options *options);
FV_API void fv_context_destroy(fv_context *ctx);

/* The text of the last failure on this context, "" if none. Valid until the next failure. */
FV_API const char *fv_context_message(const fv_context *ctx);

FV_API int fv_context_threads(const fv_context *ctx);

/* The number format of the factors of matrix products in attention and models: "f32", as a new context has it, or "bf16": factors are
 * rounded to bf16 where a product reads them, and summed in float, and what a model keeps from forward to backward is bf16, so that
 * training takes little more than half the memory for activations. Parameters, gradients, states, normalisers, softmax, statistics,
 * positions and the optimizer stay in float; steps of a model's streams read its parameters in bf16. Results carry bf16's 8 bits;
 * the time of products halves or better where the processor multiplies bf16 (kernel sets avx512_bf16 and amx), and grows a little
 * elsewhere. Not while anything runs on the context. FV_ERR_USAGE for another name. */
FV_API fv_status fv_context_set_dtype(fv_context *ctx, const char *dtype);
FV_API const char *fv_context_dtype(const fv_context *ctx);

/* What runs here. */
FV_API const char *fv_context_cpu(const fv_context *ctx);  /* kernel set in use: "avx512" ... */
FV_API const char *fv_context_gemm(const fv_context *ctx); /* library behind long sums and the peak */
FV_API void fv_cpu_model(char *text, size_t bytes);        /* "AMD EPYC ...", "unknown" */
FV_API const char *fv_cpu_sets(void);                      /* sets this processor can run, "a b c" */

/* Visits each kernel of the table: its name and the set ("avx512", "reference" ...) it came from. */
FV_API void fv_context_kernels(const fv_context *ctx,
                               void (*visit)(void *user, const char *kernel, const char *set), void *user);

/* Bytes the context's allocator holds now, and the largest it ever held. */
FV_API size_t fv_context_bytes(const fv_context *ctx);
FV_API size_t fv_context_peak_bytes(const fv_context *ctx);
FV_API void fv_context_reset_peak(fv_context *ctx);

/* Bytes of memory this process may still use: the machine's available memory or its cgroup's limit. */
FV_API size_t fv_available_memory(void);

/* The best sgemm rate of this machine in GFLOP/s with the context's threads, measured now over about
 * `seconds`. Every share of peak in favor is against this figure, taken in the same run. */
FV_API double fv_measure_sgemm(fv_context *ctx, double seconds);

/* The same at this moment, in one round of about `seconds` on memory that stays in the caches of the threads: how much of the machine
 * a timing had that was taken just before or after. Compare such figures with each other; nothing is allocated. */
FV_API double fv_measure_sgemm_now(fv_context *ctx, double seconds);

/* The rate at which this machine reads memory, in GB/s (1e9 bytes a second) with the context's threads, measured now over
 * about `seconds` on an array of 1 GiB (a quarter of the memory at hand where that is less). */
FV_API double fv_measure_bandwidth(fv_context *ctx, double seconds);

/* Allocation through the context: 64-byte aligned, NULL (and a message) when out of memory. */
FV_API void *fv_alloc(fv_context *ctx, size_t bytes);
FV_API void fv_free(fv_context *ctx, void *memory);

/* What a long operation reports, at most a few times a second. */
typedef struct fv_progress {
    const char *phase;   /* "train", "evaluate", "scan" ... */
    int64_t done, total; /* in `unit`s; total 0: unknown */
    const char *unit;    /* "step", "byte", "token" */
    double rate;         /* tokens (or units) a second since the start of the phase */
    double seconds_left; /* < 0: unknown */
    double loss;         /* NaN: none yet */
} fv_progress;

/* Callbacks of long operations. Any may be NULL. */
typedef struct fv_observer {
    void *user;
    void (*progress)(void *user, const fv_progress *progress);
    void (*metrics)(void *user, const char *json_line); /* one line of metrics.jsonl, no newline */
    int (*stop)(void *user); /* polled between steps; non-zero asks for a clean stop */
} fv_observer;

#ifdef __cplusplus
}
#endif
#endif
