/* fuzz_tsv.c: any bytes as lines of columns, plain or gzip: read, summed up, cut into batches of every task. */
#include "fuzz.h"
#include <string.h>

enum { LABELS = 3 };

static const struct {
    const char *name;
    int labels, source;
} tasks[] = {{"classify", 1, 0}, {"match", 2, 0}, {"translate", 0, 1}};

/* Settings of a task, made once in a context of their own. */
static const fv_config *settings(size_t task)
{
    static fv_config *made[3];
    fv_context *ctx = NULL;
    if (made[task] == NULL) {
        MUST(fv_context_create(&ctx, NULL) == FV_OK);
        MUST(fv_config_create(&made[task], ctx) == FV_OK);
        MUST(fv_config_set(made[task], "reader", "tsv") == FV_OK);
        MUST(fv_config_set(made[task], "task", tasks[task].name) == FV_OK);
        MUST(fv_config_set(made[task], "num_labels", "3") == FV_OK);
        MUST(fv_config_set(made[task], "length", "9") == FV_OK);
        MUST(fv_config_set(made[task], "batch", "4") == FV_OK);
        MUST(fv_config_set(made[task], "shuffle_buffer", "3") == FV_OK);
    }
    return made[task];
}

static void check_tokens(const int32_t *tokens, const int64_t *offsets, int64_t sequences, int64_t count)
{
    MUST(offsets[0] == 0 && offsets[sequences] == count);
    for (int64_t s = 0; s < sequences; s++)
        MUST(offsets[s + 1] > offsets[s] && offsets[s + 1] - offsets[s] <= 9);
    for (int64_t t = 0; t < count; t++)
        MUST(tokens[t] >= 0 && tokens[t] < 260);
}

static void use_batches(fv_data *data, fv_split split, size_t task)
{
    for (int64_t k = 0; k < 3; k++) {
        fv_batch b;
        fv_status status = fv_data_batch(data, split, k, &b);
        MUST(status == FV_OK || status == FV_ERR_FILE);
        if (status != FV_OK || b.tokens == 0)
            return;
        check_tokens(b.inputs, b.offsets, b.sequences, b.tokens);
        if (tasks[task].source)
            check_tokens(b.source, b.source_offsets, b.sequences, b.source_tokens);
        if (tasks[task].labels > 0)
            MUST(b.predicted == b.sequences / tasks[task].labels);
        for (int64_t i = 0; tasks[task].labels > 0 && i < b.predicted; i++)
            MUST(b.labels[i] >= 0 && b.labels[i] < LABELS);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    fv_context *ctx = fuzz_context();
    const char *path = fuzz_file(bytes, count);
    for (size_t task = 0; task < sizeof tasks / sizeof tasks[0]; task++) {
        fv_data *data = NULL;
        fv_data_summary summary;
        if (fv_data_open(&data, ctx, settings(task), &path, 1) != FV_OK)
            return 0;
        fv_status status = fv_data_scan(data, &summary, NULL);
        MUST(status == FV_OK || status == FV_ERR_FILE);
        use_batches(data, FV_SPLIT_TRAIN, task);
        use_batches(data, FV_SPLIT_ALL, task);
        fv_data_close(data);
    }
    return 0;
}
