/* fuzz_fasta.c: any bytes as a FASTA file, plain or gzip: read twice, summed up, cut into batches. */
#include "fuzz.h"
#include <string.h>

/* Letters and records, or -1 for a file that is refused. */
static int64_t read_letters(fv_context *ctx, const char *path, int64_t *records)
{
    fv_reader *reader = NULL;
    int64_t letters = 0;
    *records = 0;
    fv_status status = fv_reader_open(&reader, ctx, "fasta", path);
    for (int more = 1; status == FV_OK && more;) {
        fv_record record;
        status = fv_reader_next(reader, &record, &more);
        if (status != FV_OK || !more)
            break;
        letters += record.length;
        ++*records;
        for (int64_t i = 0; i < record.length; i++)
            MUST(record.sequence[i] > ' ' && record.sequence[i] < 127);
        MUST(strlen(record.name) < 1024 && record.line > 0);
    }
    MUST(status == FV_OK || status == FV_ERR_FILE);
    fv_reader_close(reader);
    return status == FV_OK ? letters : -1;
}

static void use_batches(fv_data *data, fv_split split)
{
    const fv_tokenizer *tokenizer = fv_data_tokenizer(data);
    for (int64_t k = 0; k < 3; k++) {
        fv_batch batch;
        fv_status status = fv_data_batch(data, split, k, &batch);
        MUST(status == FV_OK || status == FV_ERR_FILE);
        if (status != FV_OK)
            return;
        int64_t predicted = 0;
        for (int64_t t = 0; t < batch.tokens; t++) {
            MUST(batch.inputs[t] >= 0 && batch.inputs[t] < tokenizer->size);
            predicted += batch.targets[t] >= 0;
        }
        MUST(predicted == batch.predicted);
        MUST(batch.tokens == 0 || batch.offsets[batch.sequences] == batch.tokens);
    }
}

/* Small windows and a small pool; one for each packing, made once in a context of its own. */
static const fv_config *settings(const char *packing)
{
    static fv_config *made[2];
    fv_config **config = &made[packing[0] == 'c'];
    fv_context *ctx = NULL;
    if (*config == NULL) {
        MUST(fv_context_create(&ctx, NULL) == FV_OK);
        MUST(fv_config_create(config, ctx) == FV_OK);
        MUST(fv_config_set(*config, "length", "16") == FV_OK);
        MUST(fv_config_set(*config, "shuffle_buffer", "3") == FV_OK);
        MUST(fv_config_set(*config, "packing", packing) == FV_OK);
    }
    return *config;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count)
{
    fv_context *ctx = fuzz_context();
    const char *path = fuzz_file(bytes, count);
    int64_t records, letters = read_letters(ctx, path, &records);
    const fv_config *config = settings(count % 2 == 0 ? "concat" : "sequences");
    fv_data *data = NULL;
    fv_data_summary summary;
    if (fv_data_open(&data, ctx, config, &path, 1) != FV_OK) {
        MUST(letters < 0);
        return 0;
    }
    fv_status status = fv_data_scan(data, &summary, NULL);
    MUST((status == FV_OK) == (letters > 0));
    MUST(status != FV_OK || (summary.tokens == letters && summary.records == records));
    use_batches(data, FV_SPLIT_TRAIN);
    use_batches(data, count % 3 == 0 ? FV_SPLIT_ALL : FV_SPLIT_VALID);
    fv_data_close(data);
    return 0;
}
