/* test_tokenizer.c: letters to ids and back. */
#include "base/internal.h"
#include "data/data.h"
#include "support/scratch.h"
#include <ctype.h>
#include <string.h>

static void protein_has_the_papers_ids(void **state)
{
    (void)state;
    const fv_tokenizer *protein = fv_tokenizer_find("protein");
    const char *order = "ACDEFGHIKLMNPQRSTVWYBOUXZ<>_*";
    assert_int_equal(protein->size, 29);
    assert_int_equal(protein->letters, 25);
    for (int id = 0; id < 29; id++)
        assert_int_equal(fv_tokenizer_letter(protein, id), order[id]);
    assert_int_equal(fv_tokenizer_letter(protein, protein->begin), '<');
    assert_int_equal(fv_tokenizer_letter(protein, protein->end), '>');
    assert_int_equal(fv_tokenizer_letter(protein, protein->pad), '_');
    assert_int_equal(fv_tokenizer_letter(protein, protein->mask), '*');
    assert_int_equal(fv_tokenizer_letter(protein, -1), -1);
    assert_int_equal(fv_tokenizer_letter(protein, 29), -1);
}

static void protein_folds_case_and_counts_foreign_letters(void **state)
{
    (void)state;
    const fv_tokenizer *protein = fv_tokenizer_find("protein");
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        int32_t id = -1;
        int64_t unknown = 5;
        const char *known =
            byte != 0 && byte < 128 ? strchr("ACDEFGHIKLMNPQRSTVWYBOUXZ", toupper(byte)) : NULL;
        fv_tokenizer_encode(protein, &text, 1, &id, &unknown);
        assert_int_equal(fv_tokenizer_letter(protein, id), known != NULL ? toupper(byte) : 'X');
        assert_int_equal(unknown, known != NULL ? 5 : 6);
        fv_tokenizer_encode(protein, &text, 1, &id, NULL);
    }
}

static void bytes_are_their_own_ids(void **state)
{
    (void)state;
    const fv_tokenizer *bytes = fv_tokenizer_find("bytes");
    assert_int_equal(bytes->size, 260);
    assert_int_equal(bytes->letters, 256);
    for (int byte = 0; byte < 256; byte++) {
        char text = (char)byte;
        int32_t id = -1;
        int64_t unknown = 0;
        fv_tokenizer_encode(bytes, &text, 1, &id, &unknown);
        assert_int_equal(id, byte);
        assert_int_equal(unknown, 0);
        assert_int_equal(fv_tokenizer_letter(bytes, id), byte);
    }
    for (int32_t id = 256; id < 260; id++)
        assert_int_equal(fv_tokenizer_letter(bytes, id), -1);
    assert_true(bytes->begin == 256 && bytes->end == 257 && bytes->pad == 258 && bytes->mask == 259);
}

/* Whoever adds a reader, packing, task or tokenizer adds it to the settings too, and the other way round. */
static void the_settings_table_names_what_exists(void **state)
{
    (void)state;
    for (int i = 0; i < fv_config_key_count(); i++) {
        const fv_config_key *row = fv_config_key_at(i);
        char choices[128];
        if (row->choices == NULL)
            continue;
        strcpy(choices, row->choices);
        for (char *name = strtok(choices, "|"); name != NULL; name = strtok(NULL, "|")) {
            if (strcmp(row->key, "tokenizer") == 0)
                assert_non_null(fv_tokenizer_find(name));
            if (strcmp(row->key, "reader") == 0)
                assert_non_null(fv_reader_row_find(name));
            if (strcmp(row->key, "packing") == 0)
                assert_non_null(fv_packing_find(name));
            if (strcmp(row->key, "task") == 0)
                assert_non_null(fv_task_find(name));
        }
    }
    for (int i = 0; i < fv_reader_kind_count(); i++) {
        assert_non_null(fv_tokenizer_find(fv_reader_kind_at(i)->tokenizer));
        assert_true(strlen(fv_reader_kind_at(i)->summary) > 0);
    }
    assert_null(fv_reader_kind_at(-1));
    assert_null(fv_reader_kind_at(fv_reader_kind_count()));
    assert_null(fv_tokenizer_find("dna"));
    assert_null(fv_packing_find("none"));
    assert_null(fv_task_find("none"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(protein_has_the_papers_ids),
        cmocka_unit_test(protein_folds_case_and_counts_foreign_letters),
        cmocka_unit_test(bytes_are_their_own_ids),
        cmocka_unit_test(the_settings_table_names_what_exists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
