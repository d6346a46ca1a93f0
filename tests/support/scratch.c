#include "support/scratch.h"
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>
#include <zlib.h>

static char directory[64];

int scratch_setup(void **state)
{
    (void)state;
    /* In memory where that exists: tests sync files often, and a busy disk takes seconds for it. */
    bool in_memory = access("/dev/shm", W_OK | X_OK) == 0;
    strcpy(directory, in_memory ? "/dev/shm/favor-test-XXXXXX" : "/tmp/favor-test-XXXXXX");
    return mkdtemp(directory) != NULL ? 0 : -1;
}

static int remove_entry(const char *path, const struct stat *about, int type, struct FTW *walk)
{
    (void)about, (void)type, (void)walk;
    return remove(path);
}

int scratch_teardown(void **state)
{
    (void)state;
    return nftw(directory, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

const char *scratch_path(const char *name)
{
    static char paths[8][512];
    static unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", directory, name);
    return path;
}

const char *scratch_write(const char *name, const void *bytes, size_t count)
{
    const char *path = scratch_path(name);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, count, file), count);
    assert_int_equal(fclose(file), 0);
    return path;
}

const char *scratch_text(const char *name, const char *text)
{
    return scratch_write(name, text, strlen(text));
}

const char *scratch_gzip(const char *name, const void *bytes, size_t count)
{
    const char *path = scratch_path(name);
    gzFile file = gzopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(gzwrite(file, bytes, (unsigned)count), count);
    assert_int_equal(gzclose(file), Z_OK);
    return path;
}

const char *scratch_full_device(void)
{
    if (geteuid() != 0)
        return access("/dev/full", W_OK) == 0 ? "/dev/full" : NULL;
    const char *path = scratch_path("full");
    (void)mknod(path, S_IFCHR | 0666, makedev(1, 7));
    int fd = open(path, O_WRONLY);
    if (fd < 0) {
        remove(path);
        return NULL;
    }
    close(fd);
    return path;
}

int scratch_holds(int count)
{
    DIR *dir = opendir(directory);
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
        count -= strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(dir);
    return count == 0;
}

/* ---- allocation failure ------------------------------------------------------------------------------ */

static void *failing_alloc(void *user, size_t bytes)
{
    failing *f = user;
    void *memory = NULL;
    if (f->countdown > 0 && --f->countdown == 0)
        return NULL;
    if (posix_memalign(&memory, 64, bytes) != 0)
        return NULL;
    memset(memory, 0xa5, bytes < 4096 ? bytes : 4096); /* nobody may count on zeros */
    f->live++;
    return memory;
}

static void failing_free(void *user, void *memory)
{
    ((failing *)user)->live -= memory != NULL;
    free(memory);
}

void failing_create(failing *f)
{
    fv_context_options options;
    fv_context_options_init(&options);
    *f = (failing){0};
    options.threads = 1;
    options.alloc = failing_alloc;
    options.free = failing_free;
    options.alloc_user = f;
    assert_int_equal(fv_context_create(&f->ctx, &options), FV_OK);
}

void failing_destroy(failing *f)
{
    assert_int_equal(fv_context_bytes(f->ctx), 0);
    fv_context_destroy(f->ctx);
    assert_int_equal(f->live, 0);
}

int64_t fail_every_allocation(fv_status (*call)(fv_context *ctx, void *arg), void *arg)
{
    failing f;
    failing_create(&f);
    for (int64_t n = 1;; n++) {
        f.countdown = n;
        fv_status status = call(f.ctx, arg);
        assert_int_equal(fv_context_bytes(f.ctx), 0);
        if (status == FV_OK && f.countdown > 0) { /* nothing failed any more */
            failing_destroy(&f);
            return n - 1;
        }
        assert_int_equal(status, FV_ERR_RESOURCE);
    }
}

void expect_failure(fv_context *ctx, fv_status status, fv_status expected, ...)
{
    const char *message = fv_context_message(ctx);
    if (status != expected)
        fail_msg("status %d instead of %d: %s", (int)status, (int)expected, message);
    va_list texts;
    va_start(texts, expected);
    for (const char *text; (text = va_arg(texts, const char *)) != NULL;)
        if (strstr(message, text) == NULL)
            fail_msg("\"%s\" is not in the message: %s", text, message);
    va_end(texts);
}
