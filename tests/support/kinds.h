/* support/kinds.h: what the tests must know about each attention kind: one row a kind. Laws and comparisons run
 * over the table of attention/table.c and ask the row where a law needs a condition; a kind without a row
 * fails. */
#ifndef KINDS_H
#define KINDS_H

#include <favor/attention.h>
#include <stdbool.h>

enum {
    KIND_CROSS = 1,     /* queries and keys may differ in number */
    KIND_CANCELS = 2,   /* features of both signs: sums of weights cancel, so that errors are judged by the
                       * specification's magnitudes, and weights sum to one only without a guard */
    KIND_PLACES = 4,    /* weights depend on where tokens stand: a permutation changes them */
    KIND_MIXES = 8,     /* no matrix of queries by keys: tokens are mixed before they are weighed */
    KIND_FORESEES = 16, /* causal by masks, but which tokens share a chunk depends on later ones */
    KIND_EMPTY = 32,    /* a query may meet no key: all weights 0, y = 0 */
    KIND_WIDE = 64,     /* r grows like d^2: the widest shape runs with fewer tokens */
    KIND_DATED = 128,   /* features are of a position: states do not merge, a stream wants max_tokens */
    KIND_RING = 256,    /* a stream keeps the keys of a window, behind those of global tokens */
};

typedef struct kind_row {
    const char *kind;
    /* Rounding constants: |err| <= c eps m. The magnitude is a bound of first order, so 1 is enough. */
    double forward, gradient;
    unsigned traits;
} kind_row;

/* Fails the running test when the kind has no row. */
const kind_row *kind_row_of(const char *kind);
const kind_row *kind_row_at(int kind); /* by place in the table of kinds */
bool kind_has(int kind, unsigned trait);
/* Patterns, buckets and projections so small that short sequences meet their edges, and what the kind of the
 * options cannot do without. */
void kind_small_options(fv_attention_options *options);
/* The next kind to test after `kind` (-1: the first); fv_attention_kind_count() after the last. All of them, or those that
 * the environment names: FAVOR_TEST_KINDS=exact,favor+ */
int kind_next(int kind);
/* Whether the kind runs bidirectional (0) or causal (1), and is to be tested. */
bool kind_runs(int kind, int causal);
/* Fills in what the kind cannot go without in a causal call. */
void kind_complete(fv_attention_options *options);

#endif
