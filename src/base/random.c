/* random.c: Philox 4x32-10 streams (Salmon et al. 2011), from Random123. */
#include "base/internal.h"
#include <math.h>
#include <Random123/philox.h>

fv_random fv_random_make(uint64_t seed, fv_purpose purpose, uint32_t a, uint32_t b)
{
    /* The purpose sits in the upper half of word 2, so a must stay below 2^24 for streams not to meet. */
    return (fv_random){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .high = {(uint32_t)purpose << 24 | (a & 0xffffff), b},
    };
}

void fv_random_block(const fv_random *random, uint64_t index, uint32_t out[4])
{
    philox4x32_ctr_t counter = {{(uint32_t)index, (uint32_t)(index >> 32), random->high[0], random->high[1]}};
    philox4x32_key_t key = {{random->key[0], random->key[1]}};
    philox4x32_ctr_t block = philox4x32(counter, key);
    for (int i = 0; i < 4; i++)
        out[i] = block.v[i];
}

uint32_t fv_random_u32(fv_random *random)
{
    if (random->left == 0) {
        fv_random_block(random, random->next++, random->block);
        random->left = 4;
    }
    return random->block[4 - random->left--];
}

uint64_t fv_random_below(fv_random *random, uint64_t n)
{
    /* Reject the incomplete last run of n, so that every value is equally likely. */
    uint64_t limit = UINT64_MAX - UINT64_MAX % n;
    for (;;) {
        uint64_t high = fv_random_u32(random);
        uint64_t draw = high << 32 | fv_random_u32(random);
        if (draw < limit)
            return draw % n;
    }
}

double fv_random_uniform(fv_random *random)
{
    uint64_t high = fv_random_u32(random);
    uint64_t bits = (high << 32 | fv_random_u32(random)) >> 11;
    return ((double)bits + 0.5) * 0x1p-53;
}

double fv_random_normal(fv_random *random)
{
    /* Box-Muller, one value of the pair: no state beyond the counter. */
    double radius = sqrt(-2.0 * log(fv_random_uniform(random)));
    return radius * cos(6.283185307179586 * fv_random_uniform(random));
}
