/* tokenizer.c: letters to ids and back.
 *
 * Alphabets are the Performer paper's 29 protein tokens and plain bytes. Content letters come first, so that
 * their ids fit a byte.
 */
#include "data/data.h"
#include <string.h>

static const char protein_letters[] = "ACDEFGHIKLMNPQRSTVWYBOUXZ<>_*";

static const fv_tokenizer tokenizers[] = {
    {"protein", 29, 25, .begin = 25, .end = 26, .pad = 27, .mask = 28},
    {"bytes", 260, 256, .begin = 256, .end = 257, .pad = 258, .mask = 259},
};

const fv_tokenizer *fv_tokenizer_find(const char *name)
{
    for (int i = 0; i < FV_COUNT(tokenizers); i++)
        if (strcmp(tokenizers[i].name, name) == 0)
            return &tokenizers[i];
    return NULL;
}

static void fill_protein(fv_tokenizer_map *map)
{
    memset(map->ids, (int)(strchr(protein_letters, 'X') - protein_letters), sizeof map->ids);
    memset(map->foreign, 1, sizeof map->foreign);
    for (int id = 0; id < tokenizers[0].letters; id++) {
        int upper = (unsigned char)protein_letters[id], lower = upper - 'A' + 'a';
        map->ids[upper] = map->ids[lower] = (uint8_t)id;
        map->foreign[upper] = map->foreign[lower] = 0;
    }
}

static void fill_bytes(fv_tokenizer_map *map)
{
    for (int byte = 0; byte < 256; byte++)
        map->ids[byte] = (uint8_t)byte;
    memset(map->foreign, 0, sizeof map->foreign);
}

/* ORDER as tokenizers */
static const struct {
    void (*fill)(fv_tokenizer_map *map);
    const char *letters; /* by id; NULL: content ids are bytes */
} rows[] = {{fill_protein, protein_letters}, {fill_bytes, NULL}};

void fv_tokenizer_fill_map(const fv_tokenizer *tokenizer, fv_tokenizer_map *map)
{
    rows[tokenizer - tokenizers].fill(map);
}

void fv_tokenizer_encode(const fv_tokenizer *tokenizer, const char *text, int64_t count, int32_t *ids,
                         int64_t *unknown)
{
    fv_tokenizer_map map;
    int64_t foreign = 0;
    fv_tokenizer_fill_map(tokenizer, &map);
    for (int64_t i = 0; i < count; i++) {
        unsigned char byte = (unsigned char)text[i];
        ids[i] = map.ids[byte];
        foreign += map.foreign[byte];
    }
    if (unknown != NULL)
        *unknown += foreign;
}

int fv_tokenizer_letter(const fv_tokenizer *tokenizer, int32_t id)
{
    const char *letters = rows[tokenizer - tokenizers].letters;
    if (id < 0 || id >= tokenizer->size)
        return -1;
    if (letters != NULL)
        return letters[id];
    return id < tokenizer->letters ? id : -1;
}
