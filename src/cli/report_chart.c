/* cli/report_chart.c: line charts as SVG: no script, so that they print, scale and open anywhere. Colours
 * come from the page's style sheet (classes s0, s1, ...), which also has a dark form. Points say their values
 * when pointed at. */
#include "report.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    WIDTH = 560,
    HEIGHT = 330,
    LEFT = 64,
    RIGHT = 24,
    TOP = 58,
    BOTTOM = 44,
    TICKS_MAX = 16,
    LEGEND_LINE = 18
};

/* ---- points -------------------------------------------------------------------------------------- */

report_series *report_series_of(report_chart *chart, const char *name)
{
    for (int i = 0; i < chart->count; i++)
        if (strcmp(chart->series[i].name, name) == 0)
            return &chart->series[i];
    if (chart->count == REPORT_SERIES_MAX)
        return NULL;
    report_series *series = &chart->series[chart->count];
    *series = (report_series){.colour = chart->count++ % REPORT_COLOURS};
    snprintf(series->name, sizeof series->name, "%s", name);
    return series;
}

void report_point_add(report_chart *chart, report_series *series, double x, double y)
{
    report_point_add_band(chart, series, x, y, y, y);
}

void report_point_add_band(report_chart *chart, report_series *series, double x, double y, double low,
                           double high)
{
    bool log_x = chart->log || chart->log_x, log_y = chart->log || chart->log_y;
    if (series == NULL || !isfinite(x) || !isfinite(y) || (log_x && !(x > 0)) || (log_y && !(y > 0)))
        return;
    if (!isfinite(low) || !isfinite(high))
        low = high = y;
    if (log_y)
        low = fmax(low, y / 10);
    if (series->count == series->capacity) {
        int capacity = 2 * series->capacity + 64;
        report_point *points = realloc(series->points, (size_t)capacity * sizeof *points);
        if (points == NULL)
            return; /* a missing point; the text itself notices lack of memory */
        series->points = points;
        series->capacity = capacity;
    }
    series->points[series->count++] = (report_point){x, y, low, high};
}

/* ---- axes ---------------------------------------------------------------------------------------- */

typedef struct axis {
    double low, high;
    bool log;
    report_unit unit;
    double ticks[TICKS_MAX];
    int count;
} axis;

static void push_tick(axis *a, double value)
{
    if (a->count < TICKS_MAX)
        a->ticks[a->count++] = value;
}

/* Ends on ticks that are 1, 2 or 5 times a power of ten. */
static void linear_ticks(axis *a)
{
    double span = a->high > a->low ? a->high - a->low : fmax(fabs(a->high), 1);
    double power = pow(10, floor(log10(span / 5))), ratio = span / 5 / power;
    double step = power * (ratio > 5 ? 10 : ratio > 2 ? 5 : ratio > 1 ? 2 : 1);
    a->low = floor(a->low / step + 1e-9) * step;
    a->high = fmax(ceil(a->high / step - 1e-9) * step, a->low + step);
    int last = (int)lround((a->high - a->low) / step);
    for (int i = 0; i <= last; i++) {
        double tick = a->low + i * step;
        push_tick(a, fabs(tick) < step / 2 ? 0 : tick);
    }
}

/* Powers of `base`, thinned to at most eight; a short decimal range gets 2 and 5 too. */
static void log_ticks(axis *a, double base)
{
    double first = floor(log(a->low) / log(base) + 1e-9), last = ceil(log(a->high) / log(base) - 1e-9);
    if (last <= first)
        last = first + 1;
    a->low = pow(base, first);
    a->high = pow(base, last);
    int every = (int)ceil((last - first) / 7);
    bool fine = base > 2 && last - first <= 3;
    for (int e = (int)first; e <= (int)last; e += every) {
        push_tick(a, pow(base, e));
        for (int i = 0; fine && i < 2 && e < last; i++)
            push_tick(a, pow(base, e) * (i == 0 ? 2 : 5));
    }
}

static axis make_axis(const report_chart *chart, bool y)
{
    axis a = {.low = (double)INFINITY,
              .high = -(double)INFINITY,
              .log = chart->log || (y ? chart->log_y : chart->log_x),
              .unit = y ? chart->y_unit : chart->x_unit};
    for (int s = 0; s < chart->count; s++)
        for (int i = 0; i < chart->series[s].count; i++) {
            const report_point *p = &chart->series[s].points[i];
            a.low = fmin(a.low, y ? p->low : p->x);
            a.high = fmax(a.high, y ? p->high : p->x);
        }
    if (y && chart->from_zero)
        a.low = fmin(a.low, 0);
    if (a.log)
        log_ticks(&a, a.unit == REPORT_MS || a.unit == REPORT_PLAIN ? 10 : 2);
    else
        linear_ticks(&a);
    return a;
}

/* Share of the axis's length, 0 at its low end. */
static double along(const axis *a, double value)
{
    return a->log ? log(value / a->low) / log(a->high / a->low) : (value - a->low) / (a->high - a->low);
}

static double x_of(const axis *a, double value)
{
    return LEFT + along(a, value) * (WIDTH - LEFT - RIGHT);
}

static double y_of(const axis *a, double value)
{
    return HEIGHT - BOTTOM - along(a, value) * (HEIGHT - TOP - BOTTOM);
}

static cli_figure figure_of(report_unit unit, double value)
{
    cli_figure figure;
    if (unit == REPORT_BYTES)
        return cli_bytes(value);
    if (unit == REPORT_PERCENT)
        snprintf(figure.text, sizeof figure.text, "%.3g %%", 100 * value);
    else if (unit == REPORT_MS && value >= 1000)
        snprintf(figure.text, sizeof figure.text, "%.3g s", value / 1000);
    else if (unit == REPORT_MS)
        snprintf(figure.text, sizeof figure.text, "%.3g ms", value);
    else if (unit == REPORT_COUNT)
        snprintf(figure.text, sizeof figure.text, "%.0f", value);
    else
        snprintf(figure.text, sizeof figure.text, "%.4g", value);
    return figure;
}

/* ---- drawing ------------------------------------------------------------------------------------- */

static void draw_axes(report_text *t, const report_chart *chart, const axis *x, const axis *y)
{
    for (int i = 0; i < y->count; i++) {
        double at = y_of(y, y->ticks[i]);
        report_add(t, "<line class=\"grid\" x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/>", LEFT,
                   WIDTH - RIGHT, at, at);
        report_add(t, "<text class=\"tick\" text-anchor=\"end\" x=\"%d\" y=\"%.1f\">%s</text>\n", LEFT - 7,
                   at + 4, figure_of(y->unit, y->ticks[i]).text);
    }
    for (int i = 0; i < x->count; i++) {
        double at = x_of(x, x->ticks[i]);
        report_add(t, "<line class=\"mark\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>", at, at,
                   HEIGHT - BOTTOM, HEIGHT - BOTTOM + 5);
        report_add(t, "<text class=\"tick\" text-anchor=\"middle\" x=\"%.1f\" y=\"%d\">%s</text>\n", at,
                   HEIGHT - BOTTOM + 18, figure_of(x->unit, x->ticks[i]).text);
    }
    report_add(t, "<line class=\"mark\" x1=\"%d\" x2=\"%d\" y1=\"%d\" y2=\"%d\"/>", LEFT, WIDTH - RIGHT,
               HEIGHT - BOTTOM, HEIGHT - BOTTOM);
    report_add(t, "<text class=\"tick\" text-anchor=\"end\" x=\"%d\" y=\"%d\">%s</text>\n", WIDTH - RIGHT,
               HEIGHT - 8, chart->x_label);
}

/* Width of a name in the legend, with its line and the space behind it. */
static double legend_width(const report_series *series)
{
    return 24 + 6.8 * (double)strlen(series->name) + 18;
}

/* Names beside each other, in as many lines as they need; returns the number of lines. */
static int draw_legend(report_text *t, const report_chart *chart, bool measure)
{
    double at = LEFT;
    int line = 0;
    for (int s = 0; s < chart->count; s++) {
        const report_series *series = &chart->series[s];
        if (series->count == 0 || series->quiet)
            continue;
        if (at > LEFT && at + legend_width(series) - 18 > WIDTH)
            at = LEFT, line++;
        if (!measure) {
            int y = 40 + line * LEGEND_LINE;
            report_add(t, "<line class=\"line s%d%s\" x1=\"%.1f\" x2=\"%.1f\" y1=\"%d\" y2=\"%d\"/>",
                       series->colour, series->dashed ? " dashed" : "", at, at + 18, y, y);
            report_add(t, "<text class=\"legend\" x=\"%.1f\" y=\"%d\">", at + 24, y + 4);
            report_add_escaped(t, series->name);
            report_add(t, "</text>\n");
        }
        at += legend_width(series);
    }
    return line + 1;
}

/* The band around a series: its upper edge, and back along the lower one. */
static void draw_band(report_text *t, const report_series *series, const axis *x, const axis *y)
{
    bool wide = false;
    for (int i = 0; i < series->count; i++)
        wide = wide || series->points[i].low < series->points[i].high;
    if (!wide)
        return;
    report_add(t, "<polygon class=\"band s%d\" points=\"", series->colour);
    for (int i = 0; i < series->count; i++)
        report_add(t, "%.1f,%.1f ", x_of(x, series->points[i].x), y_of(y, series->points[i].high));
    for (int i = series->count; i-- > 0;)
        report_add(t, "%.1f,%.1f ", x_of(x, series->points[i].x), y_of(y, series->points[i].low));
    report_add(t, "\"/>\n");
}

static void draw_series(report_text *t, const report_chart *chart, const report_series *series, const axis *x,
                        const axis *y)
{
    if (series->count == 0)
        return;
    draw_band(t, series, x, y);
    report_add(t, "<polyline class=\"line s%d%s%s\" points=\"", series->colour,
               series->dashed ? " dashed" : "", series->thin ? " thin" : "");
    for (int i = 0; i < series->count; i++)
        report_add(t, "%.1f,%.1f ", x_of(x, series->points[i].x), y_of(y, series->points[i].y));
    report_add(t, "\"/>\n");
    for (int i = 0; i < series->count && !series->thin && !series->dashed; i++) {
        const report_point *p = &series->points[i];
        report_add(t, "<circle class=\"dot s%d\" cx=\"%.1f\" cy=\"%.1f\" r=\"3\"><title>", series->colour,
                   x_of(x, p->x), y_of(y, p->y));
        report_add_escaped(t, series->name);
        report_add(t, ", %s %s: %s</title></circle>\n", chart->x_label, figure_of(x->unit, p->x).text,
                   figure_of(y->unit, p->y).text);
    }
}

/* Lines of slope 1 and 2 on log axes from the highest of the leftmost points, up to where they leave the chart. */
static void draw_guides(report_text *t, const report_chart *chart, const axis *x, const axis *y)
{
    double left = x->high, first = y->low;
    for (int s = 0; s < chart->count; s++)
        for (int i = 0; i < chart->series[s].count; i++) {
            const report_point *p = &chart->series[s].points[i];
            if (p->x < left || (p->x == left && p->y > first))
                left = p->x, first = p->y;
        }
    for (int slope = 1; slope <= 2; slope++) {
        double right = fmin(x->high, left * pow(y->high / first, 1.0 / slope));
        double top = first * pow(right / left, slope);
        if (!(right > left))
            continue;
        report_add(t, "<line class=\"guide\" x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\"/>",
                   x_of(x, left), y_of(y, first), x_of(x, right), y_of(y, top));
        report_add(t, "<text class=\"tick\" text-anchor=\"end\" x=\"%.1f\" y=\"%.1f\">slope %d</text>\n",
                   x_of(x, right) - 6, y_of(y, top) + 12, slope);
    }
}

static bool is_empty(const report_chart *chart)
{
    int points = 0;
    for (int s = 0; s < chart->count; s++)
        points += chart->series[s].dashed ? 0 : chart->series[s].count;
    return points == 0;
}

void report_chart_write(report_text *t, report_chart *chart)
{
    if (!is_empty(chart)) {
        axis x = make_axis(chart, false), y = make_axis(chart, true);
        int lower = (draw_legend(t, chart, true) - 1) * LEGEND_LINE; /* a tall legend moves the rest down */
        report_add(t,
                   "<figure class=\"chart\"><svg viewBox=\"0 0 %d %d\" role=\"img\">\n<text class=\"title\" "
                   "x=\"%d\" "
                   "y=\"18\">",
                   WIDTH, HEIGHT + lower, LEFT);
        report_add_escaped(t, chart->title);
        report_add(t, "</text>\n");
        draw_legend(t, chart, false);
        report_add(t, "<g transform=\"translate(0,%d)\">\n", lower);
        draw_axes(t, chart, &x, &y);
        if (chart->guides && x.log && y.log)
            draw_guides(t, chart, &x, &y);
        for (int s = 0; s < chart->count; s++)
            draw_series(t, chart, &chart->series[s], &x, &y);
        report_add(t, "</g></svg></figure>\n");
    }
    for (int s = 0; s < chart->count; s++)
        free(chart->series[s].points);
    chart->count = 0;
}
