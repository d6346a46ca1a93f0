/* cli/attend.h: what the parts of `favor attend` share: the heat map and pictures. */
#ifndef FAVOR_ATTEND_H
#define FAVOR_ATTEND_H

#include "cli.h"

/* Writes 8-bit RGB pixels [height][width][3] as a PNG, whole or not at all. `comment` goes into its text. */
FV_NODISCARD fv_status cli_png_write(fv_context *ctx, const char *path, int width, int height,
                                     const uint8_t *pixels, const char *comment);

/* Means of blocks of a matrix that is seen row by row: at most ATTEND_MAP_CELLS cells a side, so memory does
 * not grow with the matrix. */
#define ATTEND_MAP_CELLS 1024
typedef struct attend_map {
    int64_t rows, columns;        /* of the matrix */
    int64_t row_block, col_block; /* a cell is the mean of so many */
    int64_t height, width;        /* in cells */
    double *sums;                 /* [height][width] */
} attend_map;

FV_NODISCARD fv_status attend_map_make(attend_map *map, fv_context *ctx, int64_t rows, int64_t columns);
void attend_map_free(attend_map *map, fv_context *ctx);
/* Takes in row number `row` of the matrix, weights [columns]. */
void attend_map_add(attend_map *map, int64_t row, const float *weights);
/* Draws the map with a frame, ticks that count tokens, and the scale of its colours. `row_tokens` [rows] are
 * the query tokens of the rows. */
FV_NODISCARD fv_status attend_map_write(const attend_map *map, fv_context *ctx, const char *path,
                                        const int64_t *row_tokens, const char *comment);

#endif
