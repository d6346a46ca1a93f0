/* splits.c: which split a sequence belongs to.
 *
 * The letters themselves decide, by a hash, so copies of a sequence stay together wherever they stand, and
 * a data set that grows moves nothing from one split to another. (Homologues are not copies: this is "held
 * out by identity", not "by family".)
 */
#include "data/data.h"
#include <string.h>

const char *fv_split_name(fv_split split)
{
    static const char *const names[] = {"train", "valid", "test", "all"};
    return (unsigned)split < (unsigned)FV_COUNT(names) ? names[split] : "?";
}

/* The 64-bit finaliser of MurmurHash3: every bit of x moves every bit of the result. */
static uint64_t mix(uint64_t x)
{
    x = (x ^ x >> 33) * 0xff51afd7ed558ccdu;
    x = (x ^ x >> 33) * 0xc4ceb9fe1a85ec53u;
    return x ^ x >> 33;
}

/* Eight bytes at a time, each word mixed into the sum of those before; the length comes first, so that
 * zeros at the end count. Little-endian words: splits are the same on every machine favor runs on. */
uint64_t fv_hash(const void *bytes, size_t count)
{
    uint64_t hash = mix(count + 0x9e3779b97f4a7c15u);
    const char *at = bytes;
    for (; count >= 8; count -= 8, at += 8) {
        uint64_t word;
        memcpy(&word, at, 8);
        hash = mix(hash ^ word);
    }
    uint64_t last = 0;
    if (count > 0)
        memcpy(&last, at, count);
    return mix(hash ^ last);
}

fv_split fv_split_of(uint64_t key, double valid_fraction, double test_fraction)
{
    double place = (double)(key >> 11) * 0x1p-53; /* [0, 1) */
    if (place < test_fraction)
        return FV_SPLIT_TEST;
    return place < test_fraction + valid_fraction ? FV_SPLIT_VALID : FV_SPLIT_TRAIN;
}
