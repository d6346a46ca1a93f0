/* cli/info.c: `favor info`: what runs here: version, processor, kernels, GEMM, attention names, readers. */
#include "cli.h"
#include <string.h>

static const cli_option options[] = {
    {.name = "peak", .type = CLI_FLAG, .help = "measure the sgemm rate of this machine (half a second)"},
};
static const cli_group own = {"Info", options, CLI_COUNT(options)};
static const cli_group *const groups[] = {&own, &cli_common_group, NULL};

/* ---- as JSON ------------------------------------------------------------------------------------------ */

static void add_kernel(void *user, const char *kernel, const char *set)
{
    json_object_set_new(user, kernel, json_string(set));
}

static json_t *kernels_json(const fv_context *ctx)
{
    json_t *kernels = json_object();
    fv_context_kernels(ctx, add_kernel, kernels);
    return kernels;
}

static json_t *sets_json(void)
{
    json_t *sets = json_array();
    for (const char *p = fv_cpu_sets(); *p != '\0'; p += strspn(p, " ")) {
        size_t length = strcspn(p, " ");
        json_array_append_new(sets, json_stringn(p, length));
        p += length;
    }
    return sets;
}

/* The names of what a kind takes: options, or tensors of `favor apply`. */
static json_t *options_json(const fv_attention_kind *kind)
{
    json_t *names = json_array();
    const char *name;
    for (int i = 0; (name = fv_attention_option_name(i)) != NULL; i++)
        if (fv_attention_kind_takes(kind, name, NULL))
            json_array_append_new(names, json_string(name));
    return names;
}

static json_t *tensors_json(const fv_attention_kind *kind)
{
    json_t *names = json_array();
    for (int i = 0; i < FV_INPUT_COUNT; i++)
        if (fv_attention_kind_input(kind, (fv_input)i))
            json_array_append_new(names, json_string(fv_input_name((fv_input)i)));
    return names;
}

static json_t *attention_json(void)
{
    json_t *kinds = json_array();
    const fv_attention_kind *kind;
    for (int i = 0; (kind = fv_attention_kind_at(i)) != NULL; i++)
        json_array_append_new(kinds, json_pack("{s:s, s:s, s:s, s:b, s:b, s:b, s:s?, s:s?, s:b, s:o, s:o}",
                                               "name", kind->name, "summary", kind->summary, "paper",
                                               kind->paper != NULL ? kind->paper : "", "linear",
                                               kind->kernelized, "causal", kind->can_be_causal, "stream",
                                               kind->can_stream, "why_not_causal", kind->why_not_causal,
                                               "why_not_stream", kind->why_not_stream, "position_bias_kernel",
                                               fv_attention_kind_takes(kind, "position_bias", "kernel"),
                                               "options", options_json(kind), "tensors", tensors_json(kind)));
    return kinds;
}

static json_t *readers_json(void)
{
    json_t *readers = json_array();
    for (int i = 0; i < fv_reader_kind_count(); i++) {
        const fv_reader_kind *kind = fv_reader_kind_at(i);
        json_array_append_new(readers, json_pack("{s:s, s:s, s:s}", "name", kind->name, "summary",
                                                 kind->summary, "tokenizer", kind->tokenizer));
    }
    return readers;
}

static fv_status print_json(const fv_context *ctx, const char *processor, double peak)
{
    json_t *info = json_pack("{s:s, s:s, s:s, s:o, s:s, s:i, s:o, s:o, s:o}", "version", fv_version(),
                             "processor", processor, "cpu", fv_context_cpu(ctx), "cpu_available", sets_json(),
                             "gemm", fv_context_gemm(ctx), "threads", fv_context_threads(ctx), "kernels",
                             kernels_json(ctx), "attention", attention_json(), "readers", readers_json());
    if (peak > 0)
        json_object_set_new(info, "sgemm_gflops", cli_json_real(peak));
    return cli_json_print(info);
}

/* ---- as text ------------------------------------------------------------------------------------------- */

/* Kernels by the set they came from, a line for each set. */
typedef struct listing {
    const char *set;
    int column;
} listing;

static void list_kernel(void *user, const char *kernel, const char *set)
{
    listing *list = user;
    if (strcmp(set, list->set) != 0)
        return;
    if (list->column == 0)
        list->column = printf("  %-12s", set);
    if (list->column + 1 + (int)strlen(kernel) > 80)
        list->column = printf("\n%14s", "") - 1;
    list->column += printf(" %s", kernel);
}

static void print_kernels(const fv_context *ctx)
{
    static const char *const sets[] = {"amx", "avx512_bf16", "avx512", "avx2", "neon", "reference"};
    puts("\nkernels");
    for (int i = 0; i < CLI_COUNT(sets); i++) {
        listing list = {sets[i], 0};
        fv_context_kernels(ctx, list_kernel, &list);
        if (list.column > 0)
            putchar('\n');
    }
}

static void print_attention(void)
{
    puts("\nattention (--attention NAME)\n"
         "               l: a feature map, time linear in the length   c: can be causal   s: streams\n"
         "               g: gate and decay   k: position bias kernel (other modifiers go with all)");
    const fv_attention_kind *kind;
    for (int i = 0; (kind = fv_attention_kind_at(i)) != NULL; i++)
        printf("  %-12s %c%c%c%c%c %s\n", kind->name, kind->kernelized ? 'l' : '-',
               kind->can_be_causal ? 'c' : '-', kind->can_stream ? 's' : '-',
               fv_attention_kind_takes(kind, "gate", NULL) ? 'g' : '-',
               fv_attention_kind_takes(kind, "position_bias", "kernel") ? 'k' : '-', kind->summary);
}

static void print_readers(void)
{
    puts("\nreaders (--reader NAME)");
    for (int i = 0; i < fv_reader_kind_count(); i++)
        printf("  %-12s %s\n", fv_reader_kind_at(i)->name, fv_reader_kind_at(i)->summary);
}

static void print_text(const fv_context *ctx, const char *processor, double peak)
{
    printf("favor %s\n\n", fv_version());
    printf("  processor    %s\n", processor);
    printf("  kernel set   %s (available: %s)\n", fv_context_cpu(ctx), fv_cpu_sets());
    printf("  gemm         %s\n", fv_context_gemm(ctx));
    printf("  threads      %d\n", fv_context_threads(ctx));
    if (peak > 0)
        printf("  sgemm peak   %.1f GFLOP/s\n", peak);
    print_kernels(ctx);
    print_attention();
    print_readers();
}

static fv_status run(fv_context *ctx, const cli_args *args)
{
    char processor[128];
    fv_cpu_model(processor, sizeof processor);
    double peak = cli_flag(args, "peak") ? fv_measure_sgemm(ctx, 0.5) : 0;
    if (cli_flag(args, "json"))
        return print_json(ctx, processor, peak);
    print_text(ctx, processor, peak);
    return FV_OK;
}

const cli_command cli_info = {
    .name = "info",
    .summary = "show the processor, the kernels in use and the known names",
    .groups = groups,
    .run = run,
};
