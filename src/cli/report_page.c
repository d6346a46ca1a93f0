/* cli/report_page.c: the page around the charts: style, generated sequences, pictures. Everything is inside
 * the file. */
#include "report.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static const char head[] =
    "<!DOCTYPE html>\n"
    "<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<style>\n"
    ":root{--ink:#1c2330;--soft:#667085;--line:#e2e6ec;--page:#f5f6f8;--card:#fff;"
    "--s0:#2f6fb3;--s1:#d9822b;--s2:#2a9d72;--s3:#b5467d;--s4:#7a5cc2;--s5:#8a7a1f;--s6:#2796a8;--s7:#667085}"
    "\n"
    "@media "
    "(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#333a47;--page:#14181f;--card:#"
    "1c212b;"
    "--s0:#6ea8e5;--s1:#f0a75e;--s2:#5cc79c;--s3:#e07fb0;--s4:#a78df0;--s5:#c9b74a;--s6:#5cc5d6;--s7:#98a2b3}"
    "}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;max-width:1180px;padding:24px 20px 48px;background:var(--page);color:var(--ink);"
    "font:16px/1.5 system-ui,\"Segoe UI\",\"DejaVu Sans\",sans-serif}\n"
    "h1{font-size:28px;margin:8px 0 4px}h2{font-size:21px;margin:0 0 4px}h3{font-size:15px;margin:18px 0 4px;"
    "color:var(--soft);font-weight:600}\n"
    "p{margin:4px 0 12px;color:var(--soft);max-width:80ch}\n"
    "section{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:20px "
    "22px;margin:18px 0}\n"
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(340px,1fr));gap:14px}\n"
    ".chart{margin:0}svg{width:100%;height:auto;display:block}\n"
    "svg text{font-family:inherit;fill:var(--ink)}.title{font-size:15px;font-weight:600}\n"
    "svg .tick{font-size:12px;fill:var(--soft)}.legend{font-size:12.5px}\n"
    ".grid{stroke:var(--line)}.mark{stroke:var(--soft)}\n"
    ".line{fill:none;stroke-width:2.2;stroke-linejoin:round;stroke-linecap:round}.thin{stroke-width:1.2;"
    "opacity:.75}\n"
    ".band{opacity:.16;stroke:none}.guide{stroke:var(--soft);stroke-width:.8;opacity:.6}\n"
    ".dashed{stroke-dasharray:6 5}.dot{stroke:var(--card);stroke-width:1}\n"
    ".line.s0{stroke:var(--s0)}.line.s1{stroke:var(--s1)}.line.s2{stroke:var(--s2)}.line.s3{stroke:var(--s3)}"
    "\n"
    ".line.s4{stroke:var(--s4)}.line.s5{stroke:var(--s5)}.line.s6{stroke:var(--s6)}.line.s7{stroke:var(--s7)}"
    "\n"
    ".dot.s0{fill:var(--s0)}.dot.s1{fill:var(--s1)}.dot.s2{fill:var(--s2)}.dot.s3{fill:var(--s3)}\n"
    ".dot.s4{fill:var(--s4)}.dot.s5{fill:var(--s5)}.dot.s6{fill:var(--s6)}.dot.s7{fill:var(--s7)}\n"
    ".band.s0{fill:var(--s0)}.band.s1{fill:var(--s1)}.band.s2{fill:var(--s2)}.band.s3{fill:var(--s3)}\n"
    ".band.s4{fill:var(--s4)}.band.s5{fill:var(--s5)}.band.s6{fill:var(--s6)}.band.s7{fill:var(--s7)}\n"
    "table{border-collapse:collapse;font-size:14px;margin:10px 0;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:4px 12px;border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}\n"
    "th{color:var(--soft);font-weight:600}th:first-child,td:first-child{text-align:left}\n"
    ".wide{overflow-x:auto}summary{cursor:pointer;color:var(--soft);margin-top:12px}\n"
    "pre{font:13.5px/1.6 ui-monospace,\"DejaVu Sans Mono\",monospace;margin:6px 0 14px;overflow-x:auto}\n"
    "pre .n{color:var(--soft)}.hydrophobic{color:var(--s0)}.polar{color:var(--s2)}.positive{color:var(--s3)}"
    ".negative{color:var(--s1)}.special{color:var(--s4)}\n"
    "img{width:100%;max-width:680px;height:auto;border-radius:6px;background:#fff;display:block}figcaption{"
    "color:var(--"
    "soft);"
    "font-size:13.5px;margin-top:6px;max-width:90ch}\n"
    "footer{color:var(--soft);font-size:13px}\n"
    "@media print{body{background:#fff;max-width:none;padding:0}section,figure{break-inside:avoid}}\n"
    "</style>\n";

void report_add_head(report_text *text, const char *command)
{
    char processor[128];
    fv_cpu_model(processor, sizeof processor);
    report_add(text, "%s<title>favor %s</title>\n</head><body>\n<h1>favor %s</h1>\n<p>favor %s on ", head,
               command, command, fv_version());
    report_add_escaped(text, processor);
    report_add(text, ".</p>\n");
}

void report_add_foot(report_text *text, const char *command)
{
    report_add(text,
               "<footer>Written by favor %s; everything is inside this file.</footer>\n</body></html>\n",
               command);
}

fv_status report_write(fv_context *ctx, const char *path, const report_text *text)
{
    if (text->failed)
        return cli_fail(FV_ERR_RESOURCE, "out of memory for the page");
    return fv_file_write(ctx, path, text->data, text->count);
}

/* ---- generated sequences ------------------------------------------------------------------------- */

enum { GROUP = 10, LINE = 60 };

/* The chemistry of a residue's side chain; NULL: none (not an amino acid's letter). */
static const char *residue_class(char letter)
{
    static const struct {
        const char *letters, *name;
    } classes[] = {{"AVILMFWY", "hydrophobic"},
                   {"STNQ", "polar"},
                   {"KRH", "positive"},
                   {"DE", "negative"},
                   {"CGP", "special"}};
    for (int i = 0; i < CLI_COUNT(classes); i++)
        if (strchr(classes[i].letters, letter) != NULL)
            return classes[i].name;
    return NULL;
}

static bool is_protein(const char *sequence)
{
    return sequence[0] != '\0' && sequence[strspn(sequence, "ACDEFGHIKLMNPQRSTVWYBOUXZ*<>_ \n")] == '\0';
}

/* Sixty residues a line in groups of ten, coloured by chemistry. */
static void add_protein(report_text *t, const char *sequence)
{
    int place = 0;
    for (; *sequence != '\0'; sequence++) {
        const char *name = residue_class(*sequence);
        if (*sequence == ' ' || *sequence == '\n')
            continue;
        if (place % LINE == 0)
            report_add(t, "%s<span class=\"n\">%5d</span>  ", place > 0 ? "\n" : "", place + 1);
        else if (place % GROUP == 0)
            report_add(t, " ");
        char letter[2] = {*sequence, '\0'};
        report_add(t, "<span class=\"%s\">", name != NULL ? name : "n");
        report_add_escaped(t, letter);
        report_add(t, "</span>");
        place++;
    }
}

void report_add_generated(report_text *t, const report *r)
{
    size_t index;
    const json_t *item;
    bool proteins = true;
    if (json_array_size(r->generated) == 0)
        return;
    report_add(t, "<section><h2>Generated</h2>\n");
    json_array_foreach(r->generated, index, item)
    {
        const char *sequence = json_string_value(item);
        if (sequence == NULL)
            continue;
        proteins = proteins && is_protein(sequence);
        report_add(t, "<pre>");
        if (is_protein(sequence))
            add_protein(t, sequence);
        else
            report_add_escaped(t, sequence);
        report_add(t, "</pre>\n");
    }
    if (proteins)
        report_add(
            t, "<p>Side chains: <span class=\"hydrophobic\">hydrophobic</span>, <span "
               "class=\"polar\">polar</span>, "
               "<span class=\"positive\">positive</span>, <span class=\"negative\">negative</span>, <span "
               "class=\"special\">cysteine, glycine, proline</span>.</p>\n");
    report_add(t, "</section>\n");
}

/* ---- pictures ------------------------------------------------------------------------------------ */

typedef struct bytes {
    uint8_t *data;
    size_t count;
} bytes;

static fv_status read_bytes(const char *path, bytes *content)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return cli_fail(FV_ERR_FILE, "%s: %s", path, strerror(errno));
    fv_status status = FV_OK;
    for (size_t capacity = 0, got = 1; got > 0 && status == FV_OK;) {
        if (content->count == capacity) {
            capacity = 2 * capacity + 65536;
            uint8_t *grown = realloc(content->data, capacity);
            if (grown == NULL) {
                status = cli_fail(FV_ERR_RESOURCE, "%s: out of memory", path);
                break;
            }
            content->data = grown;
        }
        got = fread(content->data + content->count, 1, capacity - content->count, file);
        content->count += got;
    }
    if (ferror(file) && status == FV_OK)
        status = cli_fail(FV_ERR_FILE, "%s: cannot be read", path);
    fclose(file);
    return status;
}

static const uint8_t signature[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};

/* The text after "Description" in a PNG's tEXt chunk, copied into `text`; "" if there is none. */
static void find_description(const bytes *png, char *text, size_t size)
{
    static const char key[] = "tEXtDescription"; /* the key ends with its NUL */
    text[0] = '\0';
    for (size_t at = sizeof signature; at + 12 <= png->count;) {
        const uint8_t *chunk = png->data + at;
        size_t length = (size_t)chunk[0] << 24 | (size_t)chunk[1] << 16 | (size_t)chunk[2] << 8 | chunk[3];
        if (length > png->count - at - 12)
            return;
        if (length >= sizeof key - 4 && memcmp(chunk + 4, key, sizeof key) == 0) {
            size_t skip = sizeof key - 4;
            snprintf(text, size, "%.*s", (int)(length - skip), (const char *)chunk + 8 + skip);
            return;
        }
        at += length + 12;
    }
}

static fv_status add_picture(report_text *t, const char *path, const bytes *png)
{
    char caption[600];
    if (png->count < sizeof signature || memcmp(png->data, signature, sizeof signature) != 0)
        return cli_fail(FV_ERR_FILE, "%s: is not a PNG", path);
    find_description(png, caption, sizeof caption);
    const char *name = strrchr(path, '/') != NULL ? strrchr(path, '/') + 1 : path;
    report_add(t, "<figure class=\"chart\"><img alt=\"");
    report_add_escaped(t, name);
    report_add(t, "\" src=\"data:image/png;base64,");
    report_add_base64(t, png->data, png->count);
    report_add(t, "\"><figcaption>");
    report_add_escaped(t, caption[0] != '\0' ? caption : name);
    report_add(t, "</figcaption></figure>\n");
    return FV_OK;
}

fv_status report_add_pictures(report_text *t, const report *r)
{
    size_t index;
    const json_t *item;
    fv_status status = FV_OK;
    if (json_array_size(r->pictures) == 0)
        return FV_OK;
    report_add(t, "<section><h2>Pictures</h2>\n<div class=\"charts\">\n");
    json_array_foreach(r->pictures, index, item)
    {
        bytes png = {0};
        const char *path = json_string_value(item);
        status = read_bytes(path, &png);
        if (status == FV_OK)
            status = add_picture(t, path, &png);
        free(png.data);
        if (status != FV_OK)
            return status;
    }
    report_add(t, "</div></section>\n");
    return FV_OK;
}
