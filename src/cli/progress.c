/* cli/progress.c: how far a long operation is: a bar on a terminal, else a line now and then. */
#include "cli.h"
#include <math.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SILENT_SECONDS 2.0  /* short operations say nothing */
#define REDRAW_SECONDS 0.25 /* on a terminal */
#define LINE_SECONDS   10.0 /* elsewhere: logs */

double cli_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void cli_progress_begin(cli_progress *progress)
{
    *progress = (cli_progress){.terminal = isatty(STDERR_FILENO) == 1, .begin = cli_now()};
    progress->last = progress->begin + SILENT_SECONDS - (progress->terminal ? REDRAW_SECONDS : LINE_SECONDS);
}

static int terminal_width(void)
{
    struct winsize size;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

/* How units are counted, and what their rate counts: work in pieces is told by pieces, but paced in tokens;
 * pieces that differ in size, as the lines of a table, have no pace. */
typedef struct unit_words {
    const char *unit, *many, *paced;
} unit_words;

static const unit_words units[] = {
    {"step", "steps", "tokens"}, {"batch", "batches", "tokens"},  {"byte", "bytes", "bytes"},
    {"draw", "draws", "draws"},  {"token", "tokens", "tokens"},   {"row", "rows", "rows"},
    {"line", "lines", NULL},     {"source", "sources", "tokens"}, {"text", "texts", "tokens"},
};

static unit_words words_of(const char *unit)
{
    for (int i = 0; i < CLI_COUNT(units); i++)
        if (strcmp(units[i].unit, unit) == 0)
            return units[i];
    return (unit_words){unit, unit, unit};
}

/* "train 120/2000 steps  12.3 k tokens/s  loss 2.731  left 1:02" */
static int describe(char *text, size_t bytes, const fv_progress *report)
{
    unit_words unit = words_of(report->unit);
    int used = snprintf(text, bytes, "%s %lld", report->phase, (long long)report->done);
    if (report->total > 0)
        used += snprintf(text + used, bytes - (size_t)used, "/%lld", (long long)report->total);
    used += snprintf(text + used, bytes - (size_t)used, " %s", unit.many);
    if (unit.paced != NULL)
        used +=
            snprintf(text + used, bytes - (size_t)used, "  %s %s/s", cli_si(report->rate).text, unit.paced);
    if (isfinite(report->loss))
        used += snprintf(text + used, bytes - (size_t)used, "  loss %.4f", report->loss);
    if (report->seconds_left >= 0)
        used +=
            snprintf(text + used, bytes - (size_t)used, "  left %s", cli_duration(report->seconds_left).text);
    return used;
}

static void draw_bar(const fv_progress *report, const char *text, int length)
{
    int room = terminal_width() - length - 4;
    fprintf(stderr, "\r\033[K");
    if (report->total > 0 && room >= 8) {
        int width = room < 30 ? room : 30;
        int full = (int)((double)width * (double)report->done / (double)report->total);
        fputc('[', stderr);
        for (int i = 0; i < width; i++)
            fputc(i < full ? '#' : '.', stderr);
        fputs("] ", stderr);
    }
    fprintf(stderr, "%.*s", terminal_width() - 1, text);
    fflush(stderr);
}

void cli_progress_show(cli_progress *progress, const fv_progress *report)
{
    double now = cli_now();
    if (now - progress->last < (progress->terminal ? REDRAW_SECONDS : LINE_SECONDS))
        return;
    progress->last = now;
    char text[256];
    int length = describe(text, sizeof text, report);
    if (!progress->terminal) {
        fprintf(stderr, "%s\n", text);
        return;
    }
    draw_bar(report, text, length);
    progress->drawn = true;
}

void cli_progress_clear(cli_progress *progress)
{
    if (progress->drawn)
        fputs("\r\033[K", stderr);
    progress->drawn = false;
}

static void observe(void *user, const fv_progress *report)
{
    cli_progress_show(user, report);
}

static int stop_asked(void *user)
{
    (void)user;
    return cli_signal() != 0;
}

fv_observer cli_progress_observer(cli_progress *progress)
{
    return (fv_observer){.user = progress, .progress = observe, .stop = stop_asked};
}
