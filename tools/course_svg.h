/* course_svg.h: draws the pictures of docs/course as SVG, for tools/course.c.

     svg_begin, svg_text, svg_line, svg_arrow,    a picture of a width and a height, in pixels, and what is in it
     svg_box, svg_key
     chart_begin, chart_row, chart_column,        a chart, and its curves: places are given in the units of its axes,
     curve_begin, curve_point, curve_end          which chart_x and chart_y turn into pixels

   Everything is written into the file `svg`, which the caller opens and closes. */
#ifndef TOOLS_COURSE_SVG_H
#define TOOLS_COURSE_SVG_H

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

static FILE *svg; /* the picture; NULL: numbers are printed */

static const char *const blue = "#1f66b0", *const red = "#c0392b", *const grey = "#bbb",
                         *const black = "#222";

static void svg_begin(int width, int height) {
    fprintf(svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" font-family=\"sans-serif\" "
            "font-size=\"13\" fill=\"#222\">\n<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
            width, height, width, height);
}

/* anchor: start, middle or end of the text is at (x, y). */
static void svg_text(double x, double y, const char *anchor, const char *text) {
    fprintf(svg, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">%s</text>\n", x, y, anchor, text);
}

/* A text that is made as by printf; it is valid until the next call. */
__attribute__((format(printf, 1, 2))) static const char *label(const char *format, ...) {
    static char text[128];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    return text;
}

static void svg_line(double x1, double y1, double x2, double y2, const char *colour) {
    fprintf(svg, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" stroke=\"%s\"/>\n", x1, y1, x2, y2,
            colour);
}

static void svg_box(double x, double y, double width, double height, const char *colour, double opacity) {
    fprintf(
        svg,
        "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" fill-opacity=\"%.3f\"/>\n", x,
        y, width, height, colour, opacity);
}

/* A line whose end, (x2, y2), is the point of an arrow. */
static void svg_arrow(double x1, double y1, double x2, double y2, const char *colour) {
    const double length = hypot(x2 - x1, y2 - y1), x = 5 * (x2 - x1) / length, y = 5 * (y2 - y1) / length;
    svg_line(x1, y1, x2 - x, y2 - y, colour);
    fprintf(svg, "<polygon points=\"%.1f,%.1f %.1f,%.1f %.1f,%.1f\" fill=\"%s\"/>\n", x2, y2,
            x2 - 1.6 * x - 0.8 * y, y2 - 1.6 * y + 0.8 * x, x2 - 1.6 * x + 0.8 * y, y2 - 1.6 * y - 0.8 * x,
            colour);
}

/* A line of a legend: a square of a colour, and what that colour means. */
static void svg_key(double x, double y, const char *colour, double opacity, const char *text) {
    svg_box(x, y - 11, 13, 13, colour, opacity);
    svg_text(x + 20, y, "start", text);
}

enum { CHART_TOP = 40 };

/* Where a chart is in its picture, in pixels, and the values at the ends of its axes. */
typedef struct {
    double left, width, height;
    double x[2], y[2]; /* at the left and right edge, at the lower and upper edge */
} Chart;

static Chart chart; /* the one that is being drawn */

static double chart_x(double x) {
    return chart.left + chart.width * (x - chart.x[0]) / (chart.x[1] - chart.x[0]);
}
static double chart_y(double y) {
    return CHART_TOP + chart.height * (chart.y[1] - y) / (chart.y[1] - chart.y[0]);
}

/* Begins a picture that is one chart, with room below it for the axis and for a caption. */
static void chart_begin(Chart shape, const char *title) {
    chart = shape;
    svg_begin(620, CHART_TOP + (int)chart.height + 70);
    svg_text(chart.left, 24, "start", title);
}

/* A line across the chart at y, with its label on the left. */
static void chart_row(double y, const char *colour, const char *text) {
    svg_line(chart.left, chart_y(y), chart.left + chart.width, chart_y(y), colour);
    svg_text(chart.left - 8, chart_y(y) + 4, "end", text);
}

/* The label of the value x, below the chart; and what the values are. */
static void chart_column(double x, const char *text) {
    svg_text(chart_x(x), CHART_TOP + chart.height + 20, "middle", text);
}
static void chart_caption(const char *text) {
    svg_text(chart.left + chart.width / 2, CHART_TOP + chart.height + 44, "middle", text);
}

static struct {
    int points;
    double last[2]; /* where the latest point is, in pixels */
} curve;

/* A curve is begun, drawn through its points one after the other, and ended; a text may follow, so many pixels after it. */
static void curve_begin(const char *colour) {
    fprintf(svg, "<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"2\" points=\"", colour);
    curve.points = 0;
}
static void curve_point(double x, double y) {
    curve.last[0] = chart_x(x), curve.last[1] = chart_y(y);
    fprintf(svg, "%s%.1f,%.1f", curve.points++ ? " " : "", curve.last[0], curve.last[1]);
}
static void curve_end(void) { fprintf(svg, "\"/>\n"); }
static void curve_end_label(double distance, const char *text) {
    curve_end();
    svg_text(curve.last[0] + distance, curve.last[1] + 4, "start", text);
}

#endif
