/* context.c: the context, its messages and its memory. */
#include "base/internal.h"
#include "kernels/dispatch.h"
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

const char *fv_version(void)
{
    return FV_VERSION_STRING;
}

const char *fv_status_name(fv_status status)
{
    static const char *const names[] = {"ok", "failed", "usage", "file", "resource", "internal", "stopped"};
    int index = -(int)status;
    return index >= 0 && index < FV_COUNT(names) ? names[index] : "unknown";
}

void fv_context_options_init(fv_context_options *options)
{
    memset(options, 0, sizeof *options);
    options->size = sizeof *options;
}

/* Blocks that fill at least half a huge page stand on whole ones where the system has them: a product that strides
 * through a long sequence meets a new small page every few rows, and the small pages of a call's scratch may fall
 * into few sets of the second-level cache, for the whole life of the process. Only a wish, so its result is not asked. */
static void *default_alloc(void *user, size_t bytes)
{
    (void)user;
    const size_t page = (size_t)2 << 20;
    bool large = bytes >= page / 2 && bytes <= SIZE_MAX - page;
    size_t whole = large ? (bytes + page - 1) / page * page : bytes;
    void *memory = NULL;
    if (posix_memalign(&memory, large ? page : FV_ALIGN, whole) != 0)
        return NULL;
    if (large)
        (void)madvise(memory, whole, MADV_HUGEPAGE);
    return memory;
}

static void default_free(void *user, void *memory)
{
    (void)user;
    free(memory);
}

/* Kernel sets in rising order, the flags each uses, and the sets that a processor with these flags can run. */
static const struct {
    const char *name;
    unsigned flags;
    const char *runs;
} cpu_sets[] = {
    {"reference", 0, "reference"},
    {"avx2", FV_CPU_AVX2, "reference avx2"},
    {"avx512", FV_CPU_AVX2 | FV_CPU_AVX512, "reference avx2 avx512"},
    {"avx512_bf16", FV_CPU_AVX2 | FV_CPU_AVX512 | FV_CPU_AVX512_BF16, "reference avx2 avx512 avx512_bf16"},
    {"amx", FV_CPU_AVX2 | FV_CPU_AVX512 | FV_CPU_AVX512_BF16 | FV_CPU_AMX,
     "reference avx2 avx512 avx512_bf16 amx"},
    {"neon", FV_CPU_NEON, "reference neon"},
};

static fv_status choose_cpu(const char *wanted, const char **name, unsigned *flags)
{
    unsigned have = fv_cpu_flags();
    if (wanted == NULL || wanted[0] == '\0')
        wanted = getenv("FAVOR_CPU");
    *name = NULL;
    for (int i = 0; i < FV_COUNT(cpu_sets); i++) {
        bool fits = (cpu_sets[i].flags & ~have) == 0;
        bool asked = wanted == NULL || wanted[0] == '\0' || strcmp(wanted, cpu_sets[i].name) == 0;
        if (fits && asked) {
            *name = cpu_sets[i].name;
            *flags = cpu_sets[i].flags;
        }
    }
    return *name != NULL ? FV_OK : FV_ERR_USAGE;
}

const char *fv_cpu_sets(void)
{
    unsigned have = fv_cpu_flags();
    const char *runs = "";
    for (int i = 0; i < FV_COUNT(cpu_sets); i++)
        if ((cpu_sets[i].flags & ~have) == 0)
            runs = cpu_sets[i].runs;
    return runs;
}

fv_status fv_context_create(fv_context **out, const fv_context_options *options)
{
    fv_context_options defaults;
    fv_context_options_init(&defaults);
    *out = NULL;
    if (options == NULL)
        options = &defaults;
    if (options->size != sizeof *options || options->threads < 0 || options->threads > FV_THREADS_MAX ||
        (options->alloc == NULL) != (options->free == NULL))
        return FV_ERR_USAGE;
    const char *cpu;
    unsigned flags;
    TRY(choose_cpu(options->cpu, &cpu, &flags));

    void *(*alloc)(void *, size_t) = options->alloc ? options->alloc : default_alloc;
    void (*release)(void *, void *) = options->free ? options->free : default_free;
    fv_context *ctx = alloc(options->alloc_user, sizeof *ctx);
    fv_kernels *kernels = alloc(options->alloc_user, 2 * sizeof *kernels);
    if (ctx == NULL || kernels == NULL) {
        if (ctx != NULL)
            release(options->alloc_user, ctx);
        if (kernels != NULL)
            release(options->alloc_user, kernels);
        return FV_ERR_RESOURCE;
    }
    memset(ctx, 0, sizeof *ctx);
    ctx->kernels = kernels;
    ctx->exact = kernels + 1;
    ctx->cpu = cpu;
    ctx->threads = options->threads > 0 ? options->threads : omp_get_num_procs();
    ctx->alloc = alloc;
    ctx->free = release;
    ctx->alloc_user = options->alloc_user;
    ctx->log = options->log;
    ctx->log_user = options->log_user;
    pthread_mutex_init(&ctx->lock, NULL);
    fv_kernels_fill(ctx->exact, flags);
    *ctx->kernels = *ctx->exact;
    if (flags != 0 && flags != fv_cpu_flags())
        fv_gemm_limit(flags);
    *out = ctx;
    return FV_OK;
}

void fv_context_destroy(fv_context *ctx)
{
    if (ctx == NULL)
        return;
    pthread_mutex_destroy(&ctx->lock);
    ctx->free(ctx->alloc_user, ctx->kernels);
    ctx->free(ctx->alloc_user, ctx);
}

const char *fv_context_message(const fv_context *ctx)
{
    return ctx->message;
}

int fv_context_threads(const fv_context *ctx)
{
    return ctx->threads;
}

const char *fv_context_cpu(const fv_context *ctx)
{
    return ctx->cpu;
}

fv_status fv_context_set_dtype(fv_context *ctx, const char *dtype)
{
    bool bf16 = strcmp(dtype, "bf16") == 0;
    if (!bf16 && strcmp(dtype, "f32") != 0)
        return fv_fail(ctx, FV_ERR_USAGE, "number format %s: expected f32 or bf16", dtype);
    ctx->kernels->gemm = bf16 ? ctx->exact->gemm_bf16 : ctx->exact->gemm;
    return FV_OK;
}

bool fv_context_halves(const fv_context *ctx)
{
    return ctx->kernels->gemm != ctx->exact->gemm;
}

const char *fv_context_dtype(const fv_context *ctx)
{
    return fv_context_halves(ctx) ? "bf16" : "f32";
}

const char *fv_context_gemm(const fv_context *ctx)
{
    (void)ctx;
    return fv_gemm_provider();
}

void fv_context_kernels(const fv_context *ctx, void (*visit)(void *user, const char *kernel, const char *set),
                        void *user)
{
    unsigned flags = 0;
    for (int i = 0; i < FV_COUNT(cpu_sets); i++)
        if (strcmp(cpu_sets[i].name, ctx->cpu) == 0)
            flags = cpu_sets[i].flags;
    const char *name, *set;
    for (int row = 0; (set = fv_kernels_origin(flags, row, &name)) != NULL; row++)
        visit(user, name, set);
}

#undef fv_fail
fv_status fv_fail(fv_context *ctx, fv_status status, const char *format, ...)
{
    char text[sizeof ctx->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    pthread_mutex_lock(&ctx->lock);
    memcpy(ctx->message, text, sizeof text);
    pthread_mutex_unlock(&ctx->lock);
    return status;
}

void fv_note(fv_context *ctx, fv_log_level level, const char *format, ...)
{
    if (ctx->log == NULL)
        return;
    char text[sizeof ctx->message];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    ctx->log(ctx->log_user, level, text);
}
