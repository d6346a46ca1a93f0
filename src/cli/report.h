/* cli/report.h: the parts of `favor report`: growing text, charts as SVG, and the sections of the page. */
#ifndef FAVOR_REPORT_H
#define FAVOR_REPORT_H

#include "cli.h"

/* ---- text that grows (report_text.c) ------------------------------------------------------------- */

/* A failed allocation sticks: `failed`, and nothing more is added. Zero it to begin; free with report_free.
 */
typedef struct report_text {
    char *data;
    size_t count, capacity;
    bool failed;
} report_text;

void report_add(report_text *text, const char *format, ...) FV_PRINTF(2, 3);
/* Text as HTML shows it: & < > " are escaped. */
void report_add_escaped(report_text *text, const char *words);
void report_add_base64(report_text *text, const void *bytes, size_t count);
void report_free(report_text *text);

/* ---- charts (report_chart.c) --------------------------------------------------------------------- */

#define REPORT_COLOURS    8
#define REPORT_SERIES_MAX 16

typedef enum report_unit { REPORT_PLAIN, REPORT_PERCENT, REPORT_MS, REPORT_BYTES, REPORT_COUNT } report_unit;

typedef struct report_point {
    double x, y, low, high; /* low .. high: a band around y, empty when equal */
} report_point;

typedef struct report_series {
    char name[64];
    int colour;  /* 0 .. REPORT_COLOURS-1 */
    bool dashed; /* a reference line */
    bool thin;   /* many noisy points: no dots */
    bool quiet;  /* not in the legend */
    report_point *points;
    int count, capacity;
} report_series;

typedef struct report_chart {
    const char *title, *x_label;
    report_unit x_unit, y_unit;
    bool log;          /* both axes */
    bool log_x, log_y; /* one of them alone */
    bool from_zero;    /* a linear y axis begins at 0 */
    bool guides;       /* log axes: thin lines of slope 1 and 2 from the highest first point */
    report_series series[REPORT_SERIES_MAX];
    int count;
} report_chart;

/* A series of the chart by name, made if new; NULL when there are too many. */
report_series *report_series_of(report_chart *chart, const char *name);
/* Adds a point; points that are not finite (or not positive on log axes) are left out. */
void report_point_add(report_chart *chart, report_series *series, double x, double y);
/* The same with a band from low to high; on log axes it ends above 0. */
void report_point_add_band(report_chart *chart, report_series *series, double x, double y, double low,
                           double high);
/* Writes the chart as an SVG figure and empties it. A chart without points writes nothing. */
void report_chart_write(report_text *text, report_chart *chart);

/* ---- what a report is about (report.c) ----------------------------------------------------------- */

/* Benchmarks, in the order of the page. ORDER as the tables of report_bench.c */
typedef enum report_bench {
    REPORT_TRAINING,
    REPORT_ATTENTION,
    REPORT_DECODE,
    REPORT_LENGTHS,
    REPORT_BENCHES /* how many */
} report_bench;

typedef struct report {
    json_t *runs;                  /* list of {name, metrics, config, trainer, evaluation} */
    json_t *bench[REPORT_BENCHES]; /* rows; NULL: none */
    json_t *generated;             /* list of sequences */
    json_t *pictures;              /* list of paths */
    bool open;                     /* tables of rows are unfolded */
} report;

/* ---- sections (report_runs.c, report_bench.c, report_page.c) ------------------------------------- */

void report_add_runs(report_text *text, const report *r);
void report_add_bench(report_text *text, const report *r);
/* The benchmark that a row comes from; REPORT_BENCHES: none. */
report_bench report_bench_of(const json_t *row);
/* The rows of one benchmark as a page of their own, with the command line that made them. */
FV_NODISCARD fv_status report_bench_page(fv_context *ctx, const char *path, const cli_args *args,
                                         json_t *rows);
/* Generated sequences. */
void report_add_generated(report_text *text, const report *r);
/* Pictures as data URIs. FV_ERR_FILE: one cannot be read. */
FV_NODISCARD fv_status report_add_pictures(report_text *text, const report *r);
/* Finishes a page and writes it. */
FV_NODISCARD fv_status report_write(fv_context *ctx, const char *path, const report_text *text);
/* The page of a command: "report" for `favor report`. */
void report_add_head(report_text *text, const char *command);
void report_add_foot(report_text *text, const char *command);

#endif
