/* checkpoint.c: checkpoints that survive a crash at any instant.
 *
 * A checkpoint is a set of four files that belong together: config.json, model.safetensors,
 * trainer.safetensors (the moments) and trainer.json. They lie at the top of the run directory; four renames
 * are not atomic together, so a set goes through a directory of its own:
 *
 *     1. write checkpoint.part/{config.json, model.safetensors, trainer.safetensors, trainer.json}, sync
 *     2. rename checkpoint.part -> checkpoint        the set is now committed
 *     3. rename checkpoint/F -> F for the four files, remove the empty directory, sync
 *
 * fv_checkpoint_recover, before anything is read: a directory checkpoint.part is an interrupted (1) and
 * removed, the set before it stands untouched; a directory checkpoint is an interrupted (3), which is
 * continued: what is still in it is newer than what lies at the top. A set that cannot be written (disk full)
 * leaves the one before in place. Cost: room for two sets while writing.
 *
 * trainer.json carries a fingerprint of the bytes of both tensor files, so that files damaged or exchanged
 * afterwards are noticed.
 */
#include "train/internal.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAGING   "checkpoint.part"
#define COMMITTED "checkpoint"

/* The files of a set, trainer.json last: with it at the top the set is complete. */
static const char *const set_files[] = {"config.json", "model.safetensors", "trainer.safetensors",
                                        "trainer.json"};

/* ---- fingerprints ----------------------------------------------------------------------------------- */

/* Mixes words into h; each step is a bijection of the word, so no single changed word goes unnoticed. */
static uint64_t mix(uint64_t h, const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count; i += 8) {
        uint64_t word = 0;
        memcpy(&word, bytes + i, FV_MIN((size_t)8, count - i));
        h = (h ^ word) * 0x9e3779b97f4a7c15u;
        h ^= h >> 29;
    }
    return h;
}

static fv_status fingerprint(fv_context *ctx, const char *directory, const char *name, uint64_t *print)
{
    enum { CHUNK = 1 << 16 };
    fv_path path;
    TRY(fv_path_join(ctx, &path, directory, name));
    unsigned char *bytes = fv_alloc(ctx, CHUNK);
    if (bytes == NULL)
        return FV_ERR_RESOURCE;
    uint64_t h = 0;
    size_t got = 0, total = 0;
    FILE *file = fopen(path.text, "rb");
    bool good = file != NULL;
    while (good && (got = fread(bytes, 1, CHUNK, file)) > 0) {
        h = mix(h, bytes, got);
        total += got;
    }
    good = good && !ferror(file);
    int error = errno;
    if (file != NULL)
        fclose(file);
    fv_free(ctx, bytes);
    *print = h ^ total;
    return good ? FV_OK : fv_fail(ctx, FV_ERR_FILE, "%s: cannot be read: %s", path.text, strerror(error));
}

/* ---- moments ---------------------------------------------------------------------------------------- */

/* The two moments of every parameter as tensors NAME.mean and NAME.square. */
static const char *const moments[] = {"mean", "square"};

enum { NAME_BYTES = 256 };

static void moment_name(char name[NAME_BYTES], const fv_parameter *p, int moment)
{
    snprintf(name, NAME_BYTES, "%s.%s", p->name, moments[moment]);
}

static fv_status write_tensors(fv_context *ctx, const char *path, const fv_model *model,
                               fv_optimizer *optimizer, fv_tensor *tensors, char (*names)[NAME_BYTES])
{
    const float *const places[] = {fv_optimizer_mean(optimizer), fv_optimizer_square(optimizer)};
    int64_t n = 0;
    for (int i = 0; i < fv_model_parameter_count(model); i++) {
        const fv_parameter *p = fv_model_parameter_at(model, i);
        for (int k = 0; k < FV_COUNT(moments); k++, n++) {
            moment_name(names[n], p, k);
            tensors[n] = (fv_tensor){names[n], FV_F32, p->rank, {0}, p->count, places[k] + p->offset};
            memcpy(tensors[n].shape, p->shape, (size_t)p->rank * sizeof p->shape[0]);
        }
    }
    return fv_tensors_write(ctx, path, tensors, n, NULL, 0);
}

static fv_status write_moments(fv_context *ctx, const char *directory, const fv_model *model,
                               fv_optimizer *optimizer)
{
    fv_path path;
    TRY(fv_path_join(ctx, &path, directory, "trainer.safetensors"));
    int64_t n = (int64_t)fv_model_parameter_count(model) * FV_COUNT(moments);
    fv_tensor *tensors = fv_alloc_array(ctx, n, sizeof *tensors);
    char(*names)[NAME_BYTES] = fv_alloc_array(ctx, n, sizeof *names);
    fv_status status = FV_ERR_RESOURCE;
    if (tensors != NULL && names != NULL)
        status = write_tensors(ctx, path.text, model, optimizer, tensors, names);
    fv_free(ctx, tensors);
    fv_free(ctx, names);
    return status;
}

static bool same_shape(const fv_tensor *tensor, const fv_parameter *p)
{
    return tensor->dtype == FV_F32 && tensor->rank == p->rank &&
           memcmp(tensor->shape, p->shape, (size_t)p->rank * sizeof p->shape[0]) == 0;
}

static fv_status read_moment(fv_context *ctx, const char *path, const fv_tensors *tensors,
                             const fv_parameter *p, int moment, float *place)
{
    char name[NAME_BYTES];
    moment_name(name, p, moment);
    const fv_tensor *tensor = fv_tensors_find(tensors, name);
    if (tensor == NULL || !same_shape(tensor, p))
        return fv_fail(ctx, FV_ERR_FILE,
                       "%s: tensor %s is missing or has another shape than the model's parameter", path,
                       name);
    return fv_tensor_to_f32(ctx, tensor, place + p->offset);
}

static fv_status read_all(fv_context *ctx, const char *path, const fv_tensors *tensors, const fv_model *model,
                          fv_optimizer *optimizer)
{
    float *const places[] = {fv_optimizer_mean(optimizer), fv_optimizer_square(optimizer)};
    for (int i = 0; i < fv_model_parameter_count(model); i++)
        for (int k = 0; k < FV_COUNT(moments); k++)
            TRY(read_moment(ctx, path, tensors, fv_model_parameter_at(model, i), k, places[k]));
    return FV_OK;
}

fv_status fv_checkpoint_read_moments(fv_context *ctx, const char *directory, const fv_model *model,
                                     fv_optimizer *optimizer)
{
    fv_path path;
    fv_tensors *tensors;
    TRY(fv_path_join(ctx, &path, directory, "trainer.safetensors"));
    TRY(fv_tensors_open(&tensors, ctx, path.text));
    fv_status status = read_all(ctx, path.text, tensors, model, optimizer);
    fv_tensors_close(tensors);
    return status;
}

/* ---- the set ---------------------------------------------------------------------------------------- */

static fv_status write_set(fv_context *ctx, const char *directory, const fv_config *config,
                           const fv_model *model, fv_optimizer *optimizer, const fv_train_state *state)
{
    fv_path path;
    fv_fingerprints prints;
    TRY(fv_path_join(ctx, &path, directory, "trainer.json"));
    TRY(fv_model_save(model, directory));
    TRY(write_moments(ctx, directory, model, optimizer));
    TRY(fingerprint(ctx, directory, "model.safetensors", &prints.model));
    TRY(fingerprint(ctx, directory, "trainer.safetensors", &prints.trainer));
    TRY(fv_trainer_write(ctx, path.text, config, state, &prints));
    return fv_directory_sync(ctx, directory);
}

static fv_status move(fv_context *ctx, const char *from, const char *to)
{
    if (rename(from, to) == 0)
        return FV_OK;
    return fv_fail(ctx, FV_ERR_RESOURCE, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
}

/* Step 3. */
static fv_status publish(fv_context *ctx, const char *directory, const char *committed)
{
    for (int i = 0; i < FV_COUNT(set_files); i++) {
        fv_path from, to;
        if (!fv_path_exists(committed, set_files[i]))
            continue; /* moved before the crash */
        TRY(fv_path_join(ctx, &from, committed, set_files[i]));
        TRY(fv_path_join(ctx, &to, directory, set_files[i]));
        TRY(move(ctx, from.text, to.text));
    }
    TRY(fv_directory_sync(ctx, directory));
    fv_directory_remove(committed);
    return FV_OK;
}

fv_status fv_checkpoint_write(fv_context *ctx, const char *directory, const fv_config *config,
                              const fv_model *model, fv_optimizer *optimizer, const fv_train_state *state)
{
    fv_path staging, committed;
    TRY(fv_path_join(ctx, &staging, directory, STAGING));
    TRY(fv_path_join(ctx, &committed, directory, COMMITTED));
    TRY(fv_directory_make(ctx, staging.text, NULL));
    fv_status status = write_set(ctx, staging.text, config, model, optimizer, state);
    if (status == FV_OK)
        status = move(ctx, staging.text, committed.text);
    if (status != FV_OK) {
        fv_directory_remove(staging.text);
        return status;
    }
    TRY(fv_directory_sync(ctx, directory));
    return publish(ctx, directory, committed.text);
}

fv_status fv_checkpoint_recover(fv_context *ctx, const char *directory)
{
    fv_path staging, committed, best;
    TRY(fv_path_join(ctx, &staging, directory, STAGING));
    TRY(fv_path_join(ctx, &committed, directory, COMMITTED));
    TRY(fv_path_join(ctx, &best, directory, "best"));
    fv_directory_remove(staging.text);
    fv_directory_remove_parts(best.text);
    if (!fv_path_exists(directory, COMMITTED))
        return FV_OK;
    return publish(ctx, directory, committed.text);
}

/* FV_ERR_FILE unless the file is the one that trainer.json was written with. */
static fv_status check_print(fv_context *ctx, const char *directory, const char *name, uint64_t expected)
{
    uint64_t found;
    TRY(fingerprint(ctx, directory, name, &found));
    if (found != expected)
        return fv_fail(ctx, FV_ERR_FILE,
                       "%s/%s: is not the file that trainer.json was written with: damaged or exchanged; "
                       "put it back or start a new run",
                       directory, name);
    return FV_OK;
}

fv_status fv_checkpoint_verify(fv_context *ctx, const char *directory, const fv_fingerprints *prints)
{
    TRY(check_print(ctx, directory, "model.safetensors", prints->model));
    return check_print(ctx, directory, "trainer.safetensors", prints->trainer);
}

/* config.json of a run is a file of the checkpoint: what is wrong with it is not wrong use. */
static fv_status read_config(fv_context *ctx, const char *directory, fv_config *settings)
{
    fv_path path;
    TRY(fv_path_join(ctx, &path, directory, "config.json"));
    fv_status status = fv_config_load(settings, path.text);
    return status == FV_ERR_USAGE ? FV_ERR_FILE : status;
}

static fv_status read_settings(fv_context *ctx, const char *directory, fv_config *settings,
                               fv_train_state *state, fv_fingerprints *prints)
{
    fv_path path;
    TRY(fv_path_join(ctx, &path, directory, "trainer.json"));
    TRY(read_config(ctx, directory, settings));
    return fv_trainer_read(ctx, path.text, settings, state, prints);
}

fv_status fv_checkpoint_read(fv_context *ctx, const char *directory, fv_config **settings,
                             fv_train_state *state, fv_fingerprints *prints)
{
    TRY(fv_config_create(settings, ctx));
    fv_status status = read_settings(ctx, directory, *settings, state, prints);
    if (status != FV_OK) {
        fv_config_destroy(*settings);
        *settings = NULL;
    }
    return status;
}
