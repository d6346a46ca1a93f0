/* machine.c: the clock, the memory at hand, and the processor, asked each time (no global state). */
#include "base/internal.h"
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#if defined(FAVOR_HAVE_AMX) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#endif

double fv_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* The number of the first line of `path` that matches `format`; false when there is none. */
static bool read_number(const char *path, const char *format, unsigned long long *value)
{
    FILE *file = fopen(path, "r");
    if (file == NULL)
        return false;
    char line[256];
    bool found = false;
    while (!found && fgets(line, sizeof line, file) != NULL)
        found = sscanf(line, format, value) == 1;
    fclose(file);
    return found;
}

size_t fv_available_memory(void)
{
    unsigned long long value, used;
    size_t available = SIZE_MAX;
    if (read_number("/proc/meminfo", "MemAvailable: %llu kB", &value))
        available = (size_t)value * 1024;
    else if (sysconf(_SC_PHYS_PAGES) > 0)
        available = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
    if (read_number("/sys/fs/cgroup/memory.max", "%llu", &value) &&
        read_number("/sys/fs/cgroup/memory.current", "%llu", &used) && value > used)
        available = FV_MIN(available, (size_t)(value - used));
    return available;
}

#if defined(FAVOR_HAVE_AMX) && defined(__linux__)
/* Tile registers are 8 KiB of state that Linux saves only for processes that ask (Documentation/arch/x86/xstate.rst). Asking
 * again is harmless; the answer is no where a signal stack of the process is too small for them, and before Linux 5.16. */
static bool tiles_permitted(void)
{
    enum { ARCH_REQ_XCOMP_PERM = 0x1023, XFEATURE_XTILECFG = 17, XFEATURE_XTILEDATA = 18 };
    const unsigned both = 1u << XFEATURE_XTILECFG | 1u << XFEATURE_XTILEDATA;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & both) == both && syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

/* Asked after AVX-512, which has shown that XGETBV is there. Some virtual machines tell of AMX and have no palette of tiles. */
static bool has_amx(void)
{
    const unsigned bf16 = 1u << 22, tile = 1u << 24;
    unsigned palettes, b, c, d;
    return __get_cpuid_count(7, 0, &palettes, &b, &c, &d) && (d & bf16) && (d & tile) &&
           __get_cpuid_count(0x1d, 0, &palettes, &b, &c, &d) && palettes > 0 && tiles_permitted();
}
#elif defined(__x86_64__)
static bool has_amx(void)
{
    return false;
}
#endif

unsigned fv_cpu_flags(void)
{
    unsigned flags = 0;
#if defined(__x86_64__)
    /* The builtins check the operating system's support of the registers (XGETBV) too. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        flags |= FV_CPU_AVX2;
    if ((flags & FV_CPU_AVX2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
        flags |= FV_CPU_AVX512;
    if ((flags & FV_CPU_AVX512) && __builtin_cpu_supports("avx512bf16"))
        flags |= FV_CPU_AVX512_BF16;
    if ((flags & FV_CPU_AVX512_BF16) && has_amx())
        flags |= FV_CPU_AMX;
#elif defined(__aarch64__)
    flags |= FV_CPU_NEON; /* part of the architecture */
#endif
    return flags;
}

void fv_cpu_model(char *text, size_t bytes)
{
    snprintf(text, bytes, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (file == NULL)
        return;
    char line[256];
    while (fgets(line, sizeof line, file) != NULL) {
        const char *value = strchr(line, ':');
        if (strncmp(line, "model name", 10) == 0 && value != NULL) {
            snprintf(text, bytes, "%s", value + 2);
            text[strcspn(text, "\n")] = '\0';
            break;
        }
    }
    fclose(file);
}
