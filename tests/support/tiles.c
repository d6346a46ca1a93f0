/* support/tiles.c: tile registers in plain C. */
#include "support/tiles.h"
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TILES = 8, ROWS = 16, ROW_BYTES = 64, COLUMNS = ROW_BYTES / 4 };

static _Thread_local struct {
    bool configured;
    int rows[TILES], row_bytes[TILES];
    uint8_t tile[TILES][ROWS][ROW_BYTES];
} state;

/* Where a processor raises an exception. cmocka's way to fail would leave a signal handler by a jump. */
static void require(bool allowed, const char *what)
{
    if (allowed)
        return;
    fprintf(stderr, "tile registers: %s\n", what);
    abort();
}

void tile_configure(const void *shapes)
{
    uint8_t bytes[64];
    memcpy(bytes, shapes, sizeof bytes);
    memset(&state, 0, sizeof state);
    require(bytes[0] == 1 && bytes[1] == 0, "not palette 1 from row 0 on");
    for (int i = 2; i < 16; i++)
        require(bytes[i] == 0, "reserved bytes of the shapes are not 0");
    for (int t = 0; t < 16; t++) {
        int row_bytes = bytes[16 + 2 * t] + 256 * bytes[17 + 2 * t], rows = bytes[48 + t];
        require(t < TILES ? rows <= ROWS && row_bytes <= ROW_BYTES : rows == 0 && row_bytes == 0,
                "shapes beyond palette 1");
        require((rows == 0) == (row_bytes == 0), "rows without bytes, or bytes without rows");
        if (t < TILES)
            state.rows[t] = rows, state.row_bytes[t] = row_bytes;
    }
    state.configured = true;
}

void tile_release(void)
{
    memset(&state, 0, sizeof state);
}

static void require_tile(int t)
{
    require(state.configured && t >= 0 && t < TILES && state.rows[t] > 0, "a register without a shape");
}

void tile_zero(int t)
{
    require_tile(t);
    memset(state.tile[t], 0, sizeof state.tile[t]);
}

void tile_load(int t, const void *p, int64_t stride)
{
    tile_zero(t);
    for (int r = 0; r < state.rows[t]; r++)
        memcpy(state.tile[t][r], (const char *)p + r * stride, (size_t)state.row_bytes[t]);
}

void tile_store(int t, void *p, int64_t stride)
{
    require_tile(t);
    for (int r = 0; r < state.rows[t]; r++)
        memcpy((char *)p + r * stride, state.tile[t][r], (size_t)state.row_bytes[t]);
}

/* Numbers below the normal ones are 0, as factors, as terms of a sum and as its result. */
static float flushed(float x)
{
    return fabsf(x) < FLT_MIN ? copysignf(0.0f, x) : x;
}

static float float_at(const uint8_t *row, int index)
{
    float x;
    memcpy(&x, row + 4 * index, sizeof x);
    return flushed(x);
}

static float bf16_at(const uint8_t *row, int index)
{
    uint32_t bits = (uint32_t)row[2 * index] << 16 | (uint32_t)row[2 * index + 1] << 24;
    float x;
    memcpy(&x, &bits, sizeof x);
    return flushed(x);
}

/* Even and odd terms of a row of sums are added up apart, from 0, then together, then to what was there. */
static void dot_row(const uint8_t *a, const uint8_t (*b)[ROW_BYTES], int pairs, int columns, uint8_t *sums)
{
    float even[COLUMNS] = {0}, odd[COLUMNS] = {0};
    for (int k = 0; k < pairs; k++)
        for (int n = 0; n < columns; n++) {
            even[n] = flushed(fmaf(bf16_at(a, 2 * k), bf16_at(b[k], 2 * n), even[n]));
            odd[n] = flushed(fmaf(bf16_at(a, 2 * k + 1), bf16_at(b[k], 2 * n + 1), odd[n]));
        }
    for (int n = 0; n < columns; n++) {
        float sum = flushed(float_at(sums, n) + flushed(even[n] + odd[n]));
        memcpy(sums + 4 * n, &sum, sizeof sum);
    }
}

void tile_dot(int sums, int a, int b)
{
    require_tile(sums), require_tile(a), require_tile(b);
    require(sums != a && sums != b && a != b, "a product of a register and itself");
    require(state.rows[sums] == state.rows[a] && state.row_bytes[sums] == state.row_bytes[b] &&
                state.row_bytes[a] == 4 * state.rows[b],
            "a product of registers whose shapes do not fit");
    for (int r = 0; r < state.rows[sums]; r++)
        dot_row(state.tile[a][r], (const uint8_t(*)[ROW_BYTES])state.tile[b], state.rows[b],
                state.row_bytes[sums] / 4, state.tile[sums][r]);
}
