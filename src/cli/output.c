/* cli/output.c: JSON, figures for people, wrapped text. */
#include "cli.h"
#include <math.h>
#include <string.h>

json_t *cli_json_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}

json_t *cli_json_metrics(const char *split, const fv_metrics *metrics)
{
    json_t *object = json_object();
    if (split != NULL) {
        json_object_set_new(object, "split", json_string(split));
        json_object_set_new(object, "tokens", json_integer(metrics->tokens));
    }
    json_object_set_new(object, "loss", cli_json_real(metrics->loss));
    json_object_set_new(object, "accuracy", cli_json_real(metrics->accuracy));
    json_object_set_new(object, "perplexity", cli_json_real(metrics->perplexity));
    json_object_set_new(object, "bits_per_token", cli_json_real(metrics->bits_per_token));
    return object;
}

fv_status cli_json_print(json_t *value)
{
    if (value == NULL)
        return cli_fail(FV_ERR_RESOURCE, "out of memory");
    /* A failed write stays in ferror(stdout), which main looks at. */
    json_dumpf(value, stdout, CLI_JSON_FLAGS);
    putchar('\n');
    json_decref(value);
    return FV_OK;
}

fv_status cli_json_read(const char *path, json_t **value)
{
    json_error_t error;
    *value = json_load_file(path, 0, &error);
    if (*value != NULL)
        return FV_OK;
    if (error.line > 0)
        return cli_fail(FV_ERR_FILE, "%s:%d: %s", path, error.line, error.text);
    return cli_fail(FV_ERR_FILE, "%s: %s", path, error.text);
}

static cli_figure scaled(double value, double base, const char *const *units, int count)
{
    cli_figure figure;
    int unit = 0;
    /* The next unit already where three digits would round up to the base. */
    while (unit + 1 < count && fabs(value) >= base * 0.9995)
        value /= base, unit++;
    int digits = fabs(value) >= 99.95 || unit == 0 ? 0 : fabs(value) >= 9.995 ? 1 : 2;
    snprintf(figure.text, sizeof figure.text, "%.*f%s%s", digits, value, units[unit][0] ? " " : "",
             units[unit]);
    return figure;
}

cli_figure cli_bytes(double bytes)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    return scaled(bytes, 1024, units, CLI_COUNT(units));
}

cli_figure cli_si(double value)
{
    static const char *const units[] = {"", "k", "M", "G", "T", "P", "E"};
    return scaled(value, 1000, units, CLI_COUNT(units));
}

cli_figure cli_duration(double seconds)
{
    cli_figure figure;
    long total = seconds > 0 ? lround(fmin(seconds, 1e9)) : 0;
    if (total >= 3600)
        snprintf(figure.text, sizeof figure.text, "%ld:%02ld:%02ld", total / 3600, total / 60 % 60,
                 total % 60);
    else
        snprintf(figure.text, sizeof figure.text, "%ld:%02ld", total / 60, total % 60);
    return figure;
}

/* Characters up to the next place where a line may end: a space, or behind a choice's bar in a list of choices that no
 * line could hold. */
static int unbreakable(const char *text, int room)
{
    int word = (int)strcspn(text, " \n");
    if (word <= room)
        return word;
    int end = word, choice = 0;
    while ((choice += (int)strcspn(text + choice, "|") + 1) < word && choice <= room)
        end = choice;
    return end;
}

void cli_wrap(FILE *file, const char *text, int column, int indent, int width)
{
    bool first = true;
    while (*text != '\0') {
        int word = unbreakable(text, width - indent);
        if (!first && column + 1 + word > width) {
            fprintf(file, "\n%*s", indent, "");
            column = indent;
        } else if (!first) {
            fputc(' ', file);
            column++;
        }
        fprintf(file, "%.*s", word, text);
        column += word;
        first = false;
        text += word;
        text += strspn(text, " \n");
    }
    fputc('\n', file);
}
