/* run_directory.c: paths, directories and metrics.jsonl of a run.
 *
 * metrics.jsonl is open for the whole run and carries an advisory lock (flock), so that two processes never
 * train in one directory; the kernel drops the lock with the process. A line is one write.
 */
#include "train/internal.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

fv_status fv_path_join(fv_context *ctx, fv_path *path, const char *directory, const char *name)
{
    int length = snprintf(path->text, sizeof path->text, "%s/%s", directory, name);
    if (length < 0 || (size_t)length >= sizeof path->text)
        return fv_fail(ctx, FV_ERR_USAGE, "%s/%s: the path is too long", directory, name);
    return FV_OK;
}

bool fv_path_exists(const char *directory, const char *name)
{
    fv_path path;
    struct stat about;
    int length = snprintf(path.text, sizeof path.text, "%s/%s", directory, name);
    return length > 0 && (size_t)length < sizeof path.text && stat(path.text, &about) == 0;
}

/* ---- directories ------------------------------------------------------------------------------------ */

/* Makes the directories above the last one; what fails shows when that is made. */
static void make_parents(const char *path)
{
    fv_path parent;
    snprintf(parent.text, sizeof parent.text, "%s", path);
    for (char *slash = strchr(parent.text + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        (void)mkdir(parent.text, 0777);
        *slash = '/';
    }
}

fv_status fv_directory_make(fv_context *ctx, const char *path, bool *made)
{
    struct stat about;
    if (path[0] != '\0')
        make_parents(path);
    bool done = mkdir(path, 0777) == 0;
    int error = errno;
    if (made != NULL)
        *made = done;
    if (done)
        return FV_OK;
    if (error == EEXIST && stat(path, &about) == 0 && S_ISDIR(about.st_mode))
        return FV_OK;
    if (error == EEXIST)
        return fv_fail(ctx, FV_ERR_USAGE, "%s: is a file, expected a directory to write the run into", path);
    return fv_fail(ctx, FV_ERR_RESOURCE, "%s: cannot be made: %s", path, strerror(error));
}

fv_status fv_directory_sync(fv_context *ctx, const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool done = fd >= 0 && (fsync(fd) == 0 || errno == EINVAL); /* EINVAL: it cannot be synced */
    int error = errno;
    if (fd >= 0)
        close(fd);
    return done ? FV_OK : fv_fail(ctx, FV_ERR_RESOURCE, "%s: cannot be synced: %s", path, strerror(error));
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Removes the files of a directory whose names end in `end`. */
static void remove_files(const char *path, const char *end)
{
    DIR *directory = opendir(path);
    if (directory == NULL)
        return;
    const struct dirent *entry;
    while ((entry = readdir(directory)) != NULL)
        if (entry->d_name[0] != '.' && ends_with(entry->d_name, end))
            (void)unlinkat(dirfd(directory), entry->d_name, 0);
    closedir(directory);
}

void fv_directory_remove(const char *path)
{
    remove_files(path, "");
    (void)rmdir(path);
}

void fv_directory_remove_parts(const char *path)
{
    remove_files(path, ".part");
}

/* ---- metrics.jsonl ---------------------------------------------------------------------------------- */

static fv_status metrics_failed(fv_context *ctx, const fv_metrics_file *file, const char *what)
{
    return fv_fail(ctx, FV_ERR_RESOURCE, "%s: cannot be %s: %s", file->path.text, what, strerror(errno));
}

fv_status fv_metrics_open(fv_context *ctx, fv_metrics_file *file, const char *directory)
{
    file->fd = -1;
    TRY(fv_path_join(ctx, &file->path, directory, "metrics.jsonl"));
    file->fd = open(file->path.text, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file->fd < 0)
        return metrics_failed(ctx, file, "written");
    /* Other failures than "held by another" mean that this file system has no locks: go on without. */
    if (flock(file->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
        fv_metrics_close(file);
        return fv_fail(ctx, FV_ERR_USAGE,
                       "%s: another process trains in this directory; wait for it or choose another one",
                       directory);
    }
    return FV_OK;
}

fv_status fv_metrics_append(fv_context *ctx, fv_metrics_file *file, const char *line)
{
    size_t count = strlen(line);
    char *text = fv_alloc(ctx, count + 1);
    if (text == NULL)
        return FV_ERR_RESOURCE;
    memcpy(text, line, count);
    text[count] = '\n';
    for (size_t done = 0; done <= count;) {
        ssize_t put = write(file->fd, text + done, count + 1 - done);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0) {
            fv_free(ctx, text);
            return metrics_failed(ctx, file, "written");
        }
        done += (size_t)put;
    }
    fv_free(ctx, text);
    return FV_OK;
}

fv_status fv_metrics_cut(fv_context *ctx, fv_metrics_file *file, int64_t bytes)
{
    struct stat about;
    if (fstat(file->fd, &about) != 0)
        return metrics_failed(ctx, file, "read");
    if (about.st_size < bytes) {
        fv_note(ctx, FV_LOG_WARNING, "%s: lines of earlier steps are missing", file->path.text);
        return FV_OK;
    }
    char last = '\n';
    if (bytes > 0 && pread(file->fd, &last, 1, bytes - 1) != 1)
        return metrics_failed(ctx, file, "read");
    if (last != '\n')
        return fv_fail(ctx, FV_ERR_FILE,
                       "%s: was changed since the checkpoint (no line ends at byte %lld); "
                       "move it away to continue",
                       file->path.text, (long long)bytes);
    if (ftruncate(file->fd, bytes) != 0)
        return metrics_failed(ctx, file, "cut");
    return FV_OK;
}

fv_status fv_metrics_sync(fv_context *ctx, fv_metrics_file *file, int64_t *bytes)
{
    struct stat about;
    if (fsync(file->fd) != 0 || fstat(file->fd, &about) != 0)
        return metrics_failed(ctx, file, "written");
    *bytes = about.st_size;
    return FV_OK;
}

bool fv_metrics_empty(const fv_metrics_file *file)
{
    struct stat about;
    return file->fd >= 0 && fstat(file->fd, &about) == 0 && about.st_size == 0;
}

void fv_metrics_close(fv_metrics_file *file)
{
    if (file->fd >= 0)
        close(file->fd);
    file->fd = -1;
}
