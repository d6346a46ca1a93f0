/* cli/png.c: RGB pixels as a PNG file: libpng writes into memory, the file appears whole. */
#include "attend.h"
#include <png.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

typedef struct sink {
    uint8_t *bytes;
    size_t count, capacity;
} sink;

static void append(png_structp png, png_bytep data, size_t count)
{
    sink *s = png_get_io_ptr(png);
    if (count > s->capacity - s->count) {
        size_t capacity = 2 * s->capacity + count + 4096;
        uint8_t *grown = realloc(s->bytes, capacity);
        if (grown == NULL)
            png_error(png, "out of memory");
        s->bytes = grown;
        s->capacity = capacity;
    }
    memcpy(s->bytes + s->count, data, count);
    s->count += count;
}

static void flush(png_structp png)
{
    (void)png;
}

/* libpng reports errors by a jump; nothing here lives across it but what the caller holds. */
static bool encode(png_structp png, png_infop info, sink *s, int width, int height, const uint8_t *pixels,
                   const char *comment)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_text text;
    memset(&text, 0, sizeof text);
    text.compression = PNG_TEXT_COMPRESSION_NONE;
    text.key = (png_charp)(uintptr_t) "Description";
    text.text = (png_charp)(uintptr_t)comment;
    png_set_write_fn(png, s, append, flush);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_set_text(png, info, &text, 1);
    png_write_info(png, info);
    for (int y = 0; y < height; y++)
        png_write_row(png, pixels + (size_t)y * (size_t)width * 3);
    png_write_end(png, info);
    return true;
}

fv_status cli_png_write(fv_context *ctx, const char *path, int width, int height, const uint8_t *pixels,
                        const char *comment)
{
    sink s = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png != NULL ? png_create_info_struct(png) : NULL;
    bool done = info != NULL && encode(png, info, &s, width, height, pixels, comment);
    png_destroy_write_struct(&png, &info);
    fv_status status =
        done ? fv_file_write(ctx, path, s.bytes, s.count)
             : cli_fail(FV_ERR_RESOURCE, "%s: the picture could not be made: out of memory", path);
    free(s.bytes);
    return status;
}
