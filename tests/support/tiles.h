/* support/tiles.h: the tile registers of AMX in plain C, one set a thread, as Intel's manual says in pseudo code: for tests on
 * processors that have none. What a processor would refuse fails the test. */
#ifndef TILES_H
#define TILES_H

#include <stdbool.h>
#include <stdint.h>

void tile_configure(const void *shapes); /* LDTILECFG, 64 bytes */
void tile_release(void);
void tile_zero(int t);
void tile_load(int t, const void *p, int64_t stride);
void tile_store(int t, void *p, int64_t stride);
void tile_dot(int sums, int a, int b); /* TDPBF16PS */

/* From begin to end the six instructions, where the processor does not know them, are carried out by these functions. False
 * where that cannot be: not Linux on x86-64. */
bool tile_traps_begin(void);
void tile_traps_end(void);

#endif
