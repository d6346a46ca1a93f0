/* formats/file.h: whole files in and out. Writing (fv_file_write) is public, in favor/tensors.h. */
#ifndef FV_FORMATS_FILE_H
#define FV_FORMATS_FILE_H

#include "base/internal.h"
#include <favor/tensors.h>

/* Reads a file of at most `limit` bytes into memory of the context, with a NUL behind it. A file that is
 * missing, unreadable, a directory or larger is `status` (FV_ERR_FILE or FV_ERR_USAGE), naming it. */
fv_status fv_file_read(fv_context *ctx, const char *path, size_t limit, fv_status status, char **bytes,
                       size_t *count);

/* One piece of a file that is written whole. */
typedef struct fv_piece {
    const void *bytes;
    size_t count;
} fv_piece;

/* fv_file_write of several pieces, end to end. */
fv_status fv_file_write_pieces(fv_context *ctx, const char *path, const fv_piece *pieces, int64_t count);

/* A name out of a file as a message may show it: cut, control characters replaced. Returns `shown`. */
#define FV_SHOWN 81
const char *fv_show(const char *name, char shown[FV_SHOWN]);

#endif
