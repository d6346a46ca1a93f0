/* dispatch.c: fills the kernel table. The reference comes first; each instruction set then overwrites the
 * rows it has, in rising order. */
#include "kernels/dispatch.h"
#include <stddef.h>
#include <string.h>

static void fill_reference(fv_kernels *kernels)
{
    *kernels = (fv_kernels){
#define FV_KERNEL(ret, name, args) .name = fv_##name##_reference,
#include "kernels/kernels.def"
#undef FV_KERNEL
    };
}

/* In rising order. */
static const struct {
    const char *name;
    unsigned flag;
    void (*fill)(fv_kernels *kernels);
} sets[] = {
#if defined(__x86_64__)
    {"avx2", FV_CPU_AVX2, fv_kernels_fill_avx2},
    {"avx512", FV_CPU_AVX512, fv_kernels_fill_avx512},
    {"avx512_bf16", FV_CPU_AVX512_BF16, fv_kernels_fill_avx512_bf16},
#if defined(FAVOR_HAVE_AMX)
    {"amx", FV_CPU_AMX, fv_kernels_fill_amx},
#endif
#elif defined(__aarch64__)
    {"neon", FV_CPU_NEON, fv_kernels_fill_neon},
#endif
    {"reference", 0, NULL},
};

void fv_kernels_fill(fv_kernels *kernels, unsigned flags)
{
    fill_reference(kernels);
    for (int s = 0; s < FV_COUNT(sets); s++)
        if (flags & sets[s].flag)
            sets[s].fill(kernels);
}

typedef void (*any_kernel)(void);

static const struct {
    const char *name;
    size_t offset;
} rows[] = {
#define FV_KERNEL(ret, name, args) {#name, offsetof(fv_kernels, name)},
#include "kernels/kernels.def"
#undef FV_KERNEL
};

static any_kernel entry(const fv_kernels *kernels, int row)
{
    any_kernel kernel;
    memcpy(&kernel, (const char *)kernels + rows[row].offset, sizeof kernel);
    return kernel;
}

const char *fv_kernels_origin(unsigned flags, int row, const char **name)
{
    if (row < 0 || row >= FV_COUNT(rows))
        return NULL;
    *name = rows[row].name;
    fv_kernels table;
    fv_kernels_fill(&table, flags);

    /* The set that last changed the row. */
    const char *origin = "reference";
    fill_reference(&table);
    for (int s = 0; s < FV_COUNT(sets); s++) {
        any_kernel before = entry(&table, row);
        if (flags & sets[s].flag)
            sets[s].fill(&table);
        if (entry(&table, row) != before)
            origin = sets[s].name;
    }
    return origin;
}
