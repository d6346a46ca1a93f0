/* file.c: whole files in and out.
 *
 * A file is written under a temporary name in the same directory, synced, renamed over the old one, and the
 * directory is synced: after a crash at any moment the name holds the old file or the whole new one. A name
 * that is a device or a pipe is written to directly: renaming over it would replace the device.
 */
#include "formats/file.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *fv_show(const char *name, char shown[FV_SHOWN])
{
    size_t i = 0;
    for (; name[i] != '\0' && i < FV_SHOWN - 1; i++)
        shown[i] = (unsigned char)name[i] < ' ' || name[i] == 127 ? '?' : name[i];
    shown[i] = '\0';
    return shown;
}

/* ---- reading --------------------------------------------------------------------------------------- */

/* read() until `count` bytes or the end; -1 on failure. */
static ssize_t read_some(int fd, char *bytes, size_t count)
{
    size_t done = 0;
    while (done < count) {
        ssize_t got = read(fd, bytes + done, count - done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (got == 0)
            break;
        done += (size_t)got;
    }
    return (ssize_t)done;
}

static fv_status too_large(fv_context *ctx, const char *path, size_t limit, fv_status status)
{
    return fv_fail(ctx, status, "%s: larger than the %zu bytes such a file may have", path, limit);
}

/* Reads the open file into *bytes, doubling it while there is more (a pipe does not know its size). */
static fv_status read_all(fv_context *ctx, const char *path, int fd, size_t room, size_t limit,
                          fv_status status, char **bytes, size_t *count)
{
    for (;;) {
        ssize_t got = read_some(fd, *bytes + *count, room - *count);
        if (got < 0)
            return fv_fail(ctx, status, "%s: cannot be read: %s", path, strerror(errno));
        *count += (size_t)got;
        if (*count > limit)
            return too_large(ctx, path, limit, status);
        if (*count < room) {
            (*bytes)[*count] = '\0';
            return FV_OK;
        }
        char *larger = fv_alloc(ctx, room * 2);
        if (larger == NULL)
            return FV_ERR_RESOURCE;
        memcpy(larger, *bytes, *count);
        fv_free(ctx, *bytes);
        *bytes = larger;
        room *= 2;
    }
}

fv_status fv_file_read(fv_context *ctx, const char *path, size_t limit, fv_status status, char **bytes,
                       size_t *count)
{
    *bytes = NULL;
    *count = 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat about;
    if (fd < 0 || fstat(fd, &about) != 0) {
        int error = errno;
        if (fd >= 0)
            close(fd);
        return fv_fail(ctx, status, "%s: cannot be opened: %s", path, strerror(error));
    }
    fv_status result;
    size_t size = S_ISREG(about.st_mode) ? (size_t)about.st_size : 4096;
    if (S_ISDIR(about.st_mode))
        result = fv_fail(ctx, status, "%s: is a directory, expected a file", path);
    else if (size > limit)
        result = too_large(ctx, path, limit, status);
    else if ((*bytes = fv_alloc(ctx, size + 1)) == NULL)
        result = FV_ERR_RESOURCE;
    else
        result = read_all(ctx, path, fd, size + 1, limit, status, bytes, count);
    close(fd);
    if (result != FV_OK) {
        fv_free(ctx, *bytes);
        *bytes = NULL;
    }
    return result;
}

/* ---- writing --------------------------------------------------------------------------------------- */

static bool write_all(int fd, const char *bytes, size_t count)
{
    while (count > 0) {
        ssize_t put = write(fd, bytes, count);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return false;
        bytes += put;
        count -= (size_t)put;
    }
    return true;
}

static bool write_pieces(int fd, const fv_piece *pieces, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (!write_all(fd, pieces[i].bytes, pieces[i].count))
            return false;
    return fsync(fd) == 0 || errno == EINVAL; /* a pipe or device cannot be synced */
}

/* Makes the rename itself last. A file system that cannot sync a directory (EINVAL) is let be. */
static bool sync_directory(const char *path)
{
    char directory[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t length = slash == NULL ? 0 : (size_t)(slash - path);
    if (length >= sizeof directory)
        return false;
    memcpy(directory, path, length);
    directory[length] = '\0';
    const char *name = slash == NULL ? "." : length == 0 ? "/" : directory;
    int fd = open(name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = fsync(fd) == 0 || errno == EINVAL;
    close(fd);
    return done;
}

/* Creates a file and writes the pieces; what went wrong is left in errno. */
static bool write_file(const char *path, const fv_piece *pieces, int64_t count)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return false;
    bool written = write_pieces(fd, pieces, count);
    int error = errno;
    if (close(fd) != 0 && written)
        return false;
    errno = error;
    return written;
}

static bool replace_file(const char *path, const char *temporary, const fv_piece *pieces, int64_t count)
{
    if (write_file(temporary, pieces, count) && rename(temporary, path) == 0)
        return sync_directory(path);
    int error = errno;
    unlink(temporary);
    errno = error;
    return false;
}

fv_status fv_file_write_pieces(fv_context *ctx, const char *path, const fv_piece *pieces, int64_t count)
{
    char temporary[PATH_MAX];
    int length = snprintf(temporary, sizeof temporary, "%s.%ld.part", path, (long)getpid());
    if (length < 0 || (size_t)length >= sizeof temporary)
        return fv_fail(ctx, FV_ERR_USAGE, "%.100s...: the path is too long", path);
    size_t bytes = 0;
    for (int64_t i = 0; i < count; i++)
        bytes = fv_add_bytes(bytes, pieces[i].count);
    struct stat about;
    bool special = stat(path, &about) == 0 && !S_ISREG(about.st_mode);
    if (special ? write_file(path, pieces, count) : replace_file(path, temporary, pieces, count))
        return FV_OK;
    int error = errno;
    return fv_fail(ctx, FV_ERR_RESOURCE, "%s: cannot be written (%zu bytes needed): %s", path, bytes,
                   strerror(error));
}

fv_status fv_file_write(fv_context *ctx, const char *path, const void *bytes, size_t count)
{
    fv_piece piece = {bytes, count};
    return fv_file_write_pieces(ctx, path, &piece, 1);
}
