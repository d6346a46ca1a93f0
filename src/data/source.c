/* source.c: the bytes of a file as a stream, plain or gzip, told apart by their content.
 *
 * zlib's gzread does both, with several gzip members in a row. A gzip file that ends early is an error, not
 * an end; zlib alone would say so only at the close.
 */
#include "data/data.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

enum { BUFFER = 1 << 18 };

fv_status fv_source_fail(const fv_source *source, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (source->line > 0)
        return fv_fail(source->ctx, FV_ERR_FILE, "%s:%lld: %s", source->path, (long long)source->line, what);
    return fv_fail(source->ctx, FV_ERR_FILE, "%s: %s", source->path, what);
}

/* Opens the file itself, to say why it cannot be read; -1 with a message. */
static int open_file(fv_source *source)
{
    struct stat about;
    int fd = open(source->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &about) != 0) {
        (void)fv_source_fail(source, "cannot be opened: %s", strerror(errno));
    } else if (S_ISDIR(about.st_mode)) {
        (void)fv_source_fail(source, "is a directory, expected a file");
    } else {
        source->file_size = about.st_size;
        source->regular = S_ISREG(about.st_mode);
        return fd;
    }
    if (fd >= 0)
        close(fd);
    return -1;
}

fv_status fv_source_open(fv_source *source, fv_context *ctx, const char *path)
{
    *source = (fv_source){.ctx = ctx, .path = path};
    int fd = open_file(source);
    if (fd < 0)
        return FV_ERR_FILE;
    source->buffer = fv_alloc(ctx, BUFFER);
    source->file = source->buffer != NULL ? gzdopen(fd, "rb") : NULL;
    if (source->file == NULL) {
        close(fd);
        fv_source_close(source);
        return fv_fail(ctx, FV_ERR_RESOURCE, "%s: out of memory while opening it", path);
    }
    gzbuffer(source->file, BUFFER / 2);
    return FV_OK;
}

void fv_source_close(fv_source *source)
{
    if (source->file != NULL)
        gzclose_r(source->file);
    fv_free(source->ctx, source->buffer);
    source->file = NULL;
    source->buffer = NULL;
}

fv_status fv_source_fill(fv_source *source)
{
    if (source->at < source->end || source->finished)
        return FV_OK;
    int got = gzread(source->file, source->buffer, BUFFER);
    source->at = 0;
    source->end = got > 0 ? (size_t)got : 0;
    source->finished = source->end == 0;
    if (got == BUFFER)
        return FV_OK;
    int error = Z_OK;
    const char *text = gzerror(source->file, &error);
    if (error == Z_BUF_ERROR)
        return fv_source_fail(source, "the gzip data ends early; was the file cut short?");
    if (error == Z_ERRNO)
        return fv_source_fail(source, "cannot be read: %s", strerror(errno));
    if (error == Z_MEM_ERROR)
        return fv_fail(source->ctx, FV_ERR_RESOURCE, "%s: out of memory while unpacking it", source->path);
    if (got < 0 || error != Z_OK)
        return fv_source_fail(source, "the gzip data is damaged: %s", text);
    return FV_OK;
}

int64_t fv_source_offset(const fv_source *source)
{
    return source->file != NULL ? (int64_t)gzoffset(source->file) : 0;
}
