/* cli/approx_print.c: the rows of `favor approx` as JSON and as a table, with what must be said beside them. */
#include "approx.h"
#include <string.h>

/* ---- a row --------------------------------------------------------------------------------------------- */

static void set_interval(json_t *row, const char *low, const char *high, const approx_statistic *s)
{
    json_object_set_new(row, low, cli_json_real(s->low));
    json_object_set_new(row, high, cli_json_real(s->high));
}

json_t *approx_row_json(const approx_row *r)
{
    json_t *row = json_pack("{s:s, s:s, s:I, s:I, s:I, s:o, s:o}", "map", r->map, "projection",
                            approx_projection_name(r->projection), "features", (json_int_t)r->features,
                            "length", (json_int_t)r->length, "dim", (json_int_t)r->dim, "error_matrix",
                            cli_json_real(r->matrix.mean), "error_output", cli_json_real(r->output.mean));
    if (row == NULL)
        return NULL;
    set_interval(row, "ci_low", "ci_high", &r->output);
    json_object_set_new(row, "variance_measured", cli_json_real(r->variance.measured));
    json_object_set_new(row, "variance_closed_form", cli_json_real(r->variance.closed));
    json_object_set_new(row, "draws", json_integer(r->draws));
    json_object_set_new(row, "feature_count", json_integer(r->feature_count));
    json_object_set_new(row, "error_matrix_sd", cli_json_real(r->matrix.sd));
    set_interval(row, "matrix_ci_low", "matrix_ci_high", &r->matrix);
    json_object_set_new(row, "error_output_sd", cli_json_real(r->output.sd));
    json_object_set_new(row, "baseline", json_string("exact"));
    json_object_set_new(row, "softmax_target", json_boolean(approx_targets_softmax(r->map)));
    json_object_set_new(row, "error_own_kernel", cli_json_real(r->target.mean));
    json_object_set_new(row, "variance_standard_error", cli_json_real(r->variance.error));
    json_object_set_new(row, "kernel_mean_square", cli_json_real(r->variance.kernel_square));
    return row;
}

/* ---- printing ---------------------------------------------------------------------------------------- */

const approx_column approx_columns[] = {
    {"layer", "layer", 5},
    {"head", "head", 4},
    {"map", "map", -12},
    {"projection", "projection", -10},
    {"ppsbn", "ppsbn", -5},
    {"angle", "angle", 6},
    {"norm", "norm", 5},
    {"features", "features", 8},
    {"length", "length", 7},
    {"dim", "dim", 4},
    {"error_matrix", "matrix", 9},
    {"error_output", "output", 9},
    {"ci_low", "from", 9},
    {"ci_high", "to", 9},
    {"error_own_kernel", "own kernel", 10},
    {"variance_measured", "variance", 9},
    {"variance_closed_form", "in theory", 9},
    {"mse_over_positive", "of favor+", 9},
    {"effective_features", "effective", 9},
    {"largest_norm", "max|q+k|^2", 10},
    {NULL, NULL, 0},
};

enum { COLUMNS = CLI_COUNT(approx_columns) - 1 };

bool approx_is_present(const approx *a, const char *key)
{
    size_t index;
    const json_t *row;
    json_array_foreach(a->results, index, row)
    {
        const json_t *value = json_object_get(row, key);
        if (value != NULL && !json_is_null(value))
            return true;
    }
    return false;
}

static void print_cell(const approx_column *c, const json_t *value)
{
    char cell[64] = "-";
    if (json_is_string(value))
        snprintf(cell, sizeof cell, "%s", json_string_value(value));
    else if (json_is_boolean(value))
        snprintf(cell, sizeof cell, "%s", json_is_true(value) ? "yes" : "no");
    else if (json_is_integer(value))
        snprintf(cell, sizeof cell, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value))
        snprintf(cell, sizeof cell, "%.3g", json_real_value(value));
    printf("%*s", c->width, cell);
}

static void print_table(const approx *a)
{
    size_t index;
    const json_t *row;
    const approx_column *shown[COLUMNS];
    int count = 0;
    for (int c = 0; c < COLUMNS; c++)
        if (approx_is_present(a, approx_columns[c].key))
            shown[count++] = &approx_columns[c];
    for (int c = 0; c < count; c++)
        printf("%s%*s", c > 0 ? "  " : "", shown[c]->width, shown[c]->heading);
    putchar('\n');
    json_array_foreach(a->results, index, row)
    {
        for (int c = 0; c < count; c++) {
            printf("%s", c > 0 ? "  " : "");
            print_cell(shown[c], json_object_get(row, shown[c]->key));
        }
        putchar('\n');
    }
}

/* What must not be read out of the figures. */
static void print_remarks(const approx *a)
{
    char list[512] = "";
    for (int i = 0; i < a->map_count; i++)
        if (!approx_targets_softmax(a->maps[i])) {
            size_t used = strlen(list);
            snprintf(list + used, sizeof list - used, "%s%s", used > 0 ? ", " : "", a->maps[i]);
        }
    if (list[0] != '\0' && strcmp(a->study, "kernel") != 0)
        cli_note("%s: no estimate of softmax attention; the error says how different it is, and more "
                 "features need not make it smaller",
                 list);
}

static void print_recommendations(const approx *a)
{
    size_t index;
    const json_t *row;
    int64_t said = -1;
    json_array_foreach(a->results, index, row)
    {
        const char *text = json_string_value(json_object_get(row, "recommendation"));
        int64_t layer = json_integer_value(json_object_get(row, "layer"));
        if (text != NULL && layer != said)
            printf("layer %lld: %s\n", (long long)layer, text);
        said = layer;
    }
}

fv_status approx_print(const approx *a)
{
    print_remarks(a);
    if (cli_flag(a->args, "json"))
        return cli_json_print(json_incref(a->results));
    print_table(a);
    print_recommendations(a);
    return FV_OK;
}
