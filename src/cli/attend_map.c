/* cli/attend_map.c: a heat map of an attention matrix, readable up to any length: cells are means of blocks
 * of tokens.
 *
 * Colours run from near-black through blue, teal and green to pale yellow, lightness rising all the way, so
 * the map survives grey printing and colour blindness. A cell's place on the scale is sqrt(mean / top), top
 * being the cell that only one in a thousand exceeds: single bright cells do not darken the rest, and small
 * weights stay visible.
 */
#include "attend.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- cells --------------------------------------------------------------------------------------- */

static int64_t blocks(int64_t count, int64_t block)
{
    return (count + block - 1) / block;
}

fv_status attend_map_make(attend_map *map, fv_context *ctx, int64_t rows, int64_t columns)
{
    map->rows = rows;
    map->columns = columns;
    map->row_block = blocks(rows, ATTEND_MAP_CELLS);
    map->col_block = blocks(columns, ATTEND_MAP_CELLS);
    map->height = blocks(rows, map->row_block);
    map->width = blocks(columns, map->col_block);
    size_t bytes = (size_t)(map->height * map->width) * sizeof *map->sums;
    map->sums = fv_alloc(ctx, bytes);
    if (map->sums == NULL)
        return FV_ERR_RESOURCE;
    memset(map->sums, 0, bytes);
    return FV_OK;
}

void attend_map_free(attend_map *map, fv_context *ctx)
{
    fv_free(ctx, map->sums);
}

void attend_map_add(attend_map *map, int64_t row, const float *weights)
{
    double *cells = map->sums + row / map->row_block * map->width;
    for (int64_t j = 0; j < map->columns; j++)
        cells[j / map->col_block] += (double)weights[j];
}

/* Tokens of block number `index` of blocks of `block` in `count`; the last may be smaller. */
static int64_t block_size(int64_t index, int64_t block, int64_t count)
{
    int64_t left = count - index * block;
    return left < block ? left : block;
}

static double cell_mean(const attend_map *map, int64_t y, int64_t x)
{
    int64_t tokens = block_size(y, map->row_block, map->rows) * block_size(x, map->col_block, map->columns);
    return map->sums[y * map->width + x] / (double)tokens;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static fv_status find_top(const attend_map *map, fv_context *ctx, double *top)
{
    int64_t count = map->height * map->width;
    double *sorted = fv_alloc(ctx, (size_t)count * sizeof *sorted);
    if (sorted == NULL)
        return FV_ERR_RESOURCE;
    for (int64_t i = 0; i < count; i++)
        sorted[i] = fmax(cell_mean(map, i / map->width, i % map->width), 0); /* NaN counts as 0 */
    qsort(sorted, (size_t)count, sizeof *sorted, by_value);
    *top = sorted[count - 1 - count / 1000];
    if (!(*top > 0))
        *top = sorted[count - 1] > 0 ? sorted[count - 1] : 1;
    fv_free(ctx, sorted);
    return FV_OK;
}

/* ---- colours ------------------------------------------------------------------------------------- */

static void colour(double t, uint8_t rgb[3])
{
    static const double stops[][3] = {
        {13, 12, 34},   {28, 35, 84},   {26, 70, 128},  {14, 107, 143},  {18, 141, 138},
        {58, 173, 116}, {126, 199, 84}, {203, 219, 82}, {255, 243, 176},
    };
    double at = fmin(fmax(t, 0), 1) * (CLI_COUNT(stops) - 1);
    int low = at < CLI_COUNT(stops) - 1 ? (int)at : CLI_COUNT(stops) - 2;
    double part = at - low;
    for (int c = 0; c < 3; c++)
        rgb[c] = (uint8_t)lround(stops[low][c] * (1 - part) + stops[low + 1][c] * part);
}

/* ---- the picture --------------------------------------------------------------------------------- */

enum {
    SIDE = 1024,
    LEFT = 62,
    TOP = 28,
    BAR_GAP = 18,
    BAR_WIDTH = 16,
    RIGHT = 86,
    BOTTOM = 14,
    GLYPH = 2,
    LABEL = 5 * GLYPH + 1 /* from one label to the next below it */
};
static const uint8_t ink[3] = {60, 60, 70};

typedef struct canvas {
    int width, height;
    uint8_t *pixels;
} canvas;

static void set_pixel(canvas *c, int x, int y, const uint8_t rgb[3])
{
    if (x >= 0 && y >= 0 && x < c->width && y < c->height)
        memcpy(c->pixels + ((size_t)y * (size_t)c->width + (size_t)x) * 3, rgb, 3);
}

static void fill(canvas *c, int x, int y, int width, int height, const uint8_t rgb[3])
{
    for (int j = 0; j < height; j++)
        for (int i = 0; i < width; i++)
            set_pixel(c, x + i, y + j, rgb);
}

/* Digits and the point, 3 x 5 dots each, a row three bits. */
static void draw_text(canvas *c, int x, int y, const char *text)
{
    static const char signs[] = "0123456789.";
    static const uint8_t dots[][5] = {
        {7, 5, 5, 5, 7}, {2, 6, 2, 2, 7}, {7, 1, 7, 4, 7}, {7, 1, 7, 1, 7}, {5, 5, 7, 1, 1}, {7, 4, 7, 1, 7},
        {7, 4, 7, 5, 7}, {7, 1, 2, 2, 2}, {7, 5, 7, 5, 7}, {7, 5, 7, 1, 7}, {0, 0, 0, 0, 2},
    };
    for (; *text != '\0'; text++, x += 4 * GLYPH) {
        const char *sign = strchr(signs, *text);
        for (int dot = 0; sign != NULL && dot < 15; dot++)
            if (dots[sign - signs][dot / 3] >> (2 - dot % 3) & 1)
                fill(c, x + dot % 3 * GLYPH, y + dot / 3 * GLYPH, GLYPH, GLYPH, ink);
    }
}

static int text_width(const char *text)
{
    return (int)strlen(text) * 4 * GLYPH - GLYPH;
}

/* 1, 2 or 5 times a power of ten, so that a side has at most eight ticks. */
static int64_t tick_step(int64_t count)
{
    int64_t power = 1;
    for (;; power *= 10)
        for (int i = 0; i < 3; i++) {
            int64_t step = power * (int64_t[]){1, 2, 5}[i];
            if (count / step <= 8)
                return step;
        }
}

static void draw_column_ticks(canvas *c, const attend_map *map, int scale)
{
    int64_t step = tick_step(map->columns);
    for (int64_t t = 0; t < map->columns; t += step) {
        char text[24];
        snprintf(text, sizeof text, "%lld", (long long)t);
        int x = LEFT + (int)((double)t / (double)map->col_block * scale);
        fill(c, x, TOP - 6, 1, 5, ink);
        draw_text(c, x - (t > 0 ? text_width(text) / 2 : 0), TOP - 8 - 5 * GLYPH, text);
    }
}

static void draw_row_ticks(canvas *c, const attend_map *map, int scale, const int64_t *row_tokens)
{
    int64_t step = tick_step(map->rows);
    int free = TOP; /* no label begins above it */
    for (int64_t r = 0; r < map->rows; r += step) {
        char text[24];
        snprintf(text, sizeof text, "%lld", (long long)row_tokens[r]);
        int y = TOP + (int)((double)r / (double)map->row_block * scale);
        fill(c, LEFT - 6, y, 5, 1, ink);
        int at = y - (r > 0 ? 5 : 0);
        if (at < free)
            continue;
        draw_text(c, LEFT - 9 - text_width(text), at, text);
        free = at + LABEL;
    }
}

static void draw_scale(canvas *c, int x, int height, double top)
{
    for (int y = 0; y < height; y++) {
        uint8_t rgb[3];
        colour(1 - (double)y / (height > 1 ? height - 1 : 1), rgb);
        fill(c, x, TOP + y, BAR_WIDTH, 1, rgb);
    }
    static const double marks[] = {1, 0.25, 0.0625, 0}; /* of the top: at 1, 1/2, 1/4, 0 of the height */
    bool inner = height >= CLI_COUNT(marks) * LABEL, both = height >= 2 * LABEL;
    for (int i = 0; i < CLI_COUNT(marks); i += inner ? 1 : both ? CLI_COUNT(marks) - 1 : CLI_COUNT(marks)) {
        char text[24];
        int y = TOP + (int)lround((1 - sqrt(marks[i])) * (height - 1));
        snprintf(text, sizeof text, "%.*f", top * marks[i] < 0.001 && marks[i] > 0 ? 6 : 4, top * marks[i]);
        fill(c, x + BAR_WIDTH, y, 4, 1, ink);
        draw_text(c, x + BAR_WIDTH + 7, y - (i == 0 ? 0 : i == CLI_COUNT(marks) - 1 ? 9 : 5), text);
    }
}

static void draw_cells(canvas *c, const attend_map *map, int scale, double top)
{
    for (int64_t y = 0; y < map->height; y++)
        for (int64_t x = 0; x < map->width; x++) {
            uint8_t rgb[3];
            colour(sqrt(fmax(cell_mean(map, y, x), 0) / top), rgb);
            fill(c, LEFT + (int)x * scale, TOP + (int)y * scale, scale, scale, rgb);
        }
}

fv_status attend_map_write(const attend_map *map, fv_context *ctx, const char *path,
                           const int64_t *row_tokens, const char *comment)
{
    double top;
    CLI_TRY(find_top(map, ctx, &top));
    int64_t longest = map->height > map->width ? map->height : map->width;
    int scale = longest < SIDE ? (int)(SIDE / longest) : 1;
    scale = scale > 48 ? 48 : scale;
    int width = (int)map->width * scale, height = (int)map->height * scale;
    canvas c = {LEFT + width + BAR_GAP + BAR_WIDTH + RIGHT, TOP + height + BOTTOM, NULL};
    size_t bytes = (size_t)c.width * (size_t)c.height * 3;
    c.pixels = fv_alloc(ctx, bytes);
    if (c.pixels == NULL)
        return FV_ERR_RESOURCE;
    memset(c.pixels, 255, bytes);
    fill(&c, LEFT - 1, TOP - 1, width + 2, height + 2, ink);
    draw_cells(&c, map, scale, top);
    draw_column_ticks(&c, map, scale);
    draw_row_ticks(&c, map, scale, row_tokens);
    draw_scale(&c, LEFT + width + BAR_GAP, height, top);
    fv_status status = cli_png_write(ctx, path, c.width, c.height, c.pixels, comment);
    fv_free(ctx, c.pixels);
    return status;
}
