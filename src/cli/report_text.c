/* cli/report_text.c: text that grows, with HTML escapes and base64. */
#include "report.h"
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* Room for `more` bytes and a final NUL. */
static char *room(report_text *text, size_t more)
{
    if (text->failed)
        return NULL;
    if (more >= text->capacity - text->count) {
        size_t capacity = 2 * text->capacity + more + 4096;
        char *grown = realloc(text->data, capacity);
        if (grown == NULL) {
            text->failed = true;
            return NULL;
        }
        text->data = grown;
        text->capacity = capacity;
    }
    return text->data + text->count;
}

void report_add(report_text *text, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, args);
    char *at = length >= 0 ? room(text, (size_t)length) : NULL;
    if (at != NULL) {
        vsnprintf(at, (size_t)length + 1, format, again);
        text->count += (size_t)length;
    }
    va_end(again);
    va_end(args);
}

void report_add_escaped(report_text *text, const char *words)
{
    static const struct {
        char sign;
        const char *name;
    } escapes[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}};
    while (*words != '\0') {
        size_t plain = strcspn(words, "&<>\"");
        report_add(text, "%.*s", (int)plain, words);
        words += plain;
        for (int i = 0; i < CLI_COUNT(escapes); i++)
            if (escapes[i].sign == *words)
                report_add(text, "%s", escapes[i].name);
        words += *words != '\0';
    }
}

void report_add_base64(report_text *text, const void *bytes, size_t count)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const uint8_t *b = bytes;
    char *out = room(text, (count + 2) / 3 * 4);
    if (out == NULL)
        return;
    for (size_t i = 0; i < count; i += 3) {
        unsigned group = (unsigned)b[i] << 16;
        group |= i + 1 < count ? (unsigned)b[i + 1] << 8 : 0;
        group |= i + 2 < count ? b[i + 2] : 0;
        *out++ = digits[group >> 18];
        *out++ = digits[group >> 12 & 63];
        *out++ = i + 1 < count ? digits[group >> 6 & 63] : '=';
        *out++ = i + 2 < count ? digits[group & 63] : '=';
    }
    *out = '\0';
    text->count = (size_t)(out - text->data);
}

void report_free(report_text *text)
{
    free(text->data);
    *text = (report_text){0};
}
