/* report_plot.h: a plot, before it is drawn: its curves, axes with readable ticks, and places for labels that do not
   overlap. The terminal, the HTML and the PNG draw the same Plot.

   plot_curves(kind, runs, count)   the curves of one kind of plot, and the bands of those that are means;
                                    plot_curves_free when done
   plot_begin(plot, kind, runs, &curves, ...)   fits the axes to the curves
   plot_band_note(plot, mark, text) what curves and bands of means stand for, "" where curves are those of single runs
   plot_marks(plot)                 how many marks (report_marks.h) the plot has: those of the validation loss
   plot_mark_x(plot, mark)          the place of a mark on the x axis
   plot_has_numbers(plot)           whether there is anything to draw
   axis_place(axis, value)          where a value lies on an axis: 0 at its low end, 1 at its high end
   axis_label(axis, value, text)    the number at a tick, with as many digits as the ticks need to differ
   plot_end_places(plot, ...)       where the labels at the ends of the curves go; plot_end_text is the value in them
   plot_names_fit(plot, columns)    whether the names of the runs fit into these labels
   labels_spread(places, n, gap)    moves labels apart
   runs_final_difference(runs, count, step)   by how much the second of two runs ends above the first
   runs_need_tokens(runs, count)    whether x must count tokens, because steps of the runs are not equally large */
#ifndef TOOLS_REPORT_PLOT_H
#define TOOLS_REPORT_PLOT_H

#include "report_marks.h"
#include "report_runs.h"

enum { TICKS_MAX = 24, PLOT_RUNS_MAX = 64, PLOT_NOTE_SIZE = 128 };
/* Two runs whose losses differ by less, in nats, end even: it is half of the last digit that is shown. */
#define VERDICT_EVEN 0.00005

typedef struct {
    double low, high;
    bool logarithmic;
    bool counts; /* its numbers are counts, which are written with a letter: 30M */
    double ticks[TICKS_MAX];
    int tick_count;
    int decimals; /* of the ticks; below 0: the ticks are powers of ten, written as short as possible */
} Axis;

/* The kinds below PLOT_COUNT are those of every report; report_fit.h draws PLOT_FIT. */
typedef enum {
    PLOT_VALIDATION,
    PLOT_TRAINING,
    PLOT_DIFFERENCE,
    PLOT_NORM,
    PLOT_RATE,
    PLOT_COUNT,
    PLOT_FIT = PLOT_COUNT
} PlotKind;

/* What plot_curves returns: arrays [count]. */
typedef struct {
    Series *middle, *low, *high;
} PlotCurves;

typedef struct {
    PlotKind kind;
    const char *title;
    int count;            /* of runs */
    const Run *runs;      /* [count] */
    const Series *curves; /* [count]; of the training loss the smoothed one */
    const Series *points; /* [count]: what PLOT_FIT shows as points beside its curves; NULL in other plots */
    const Series *low, *high;      /* [count]; the band of a curve that is a mean, else without points */
    double x_scale[PLOT_RUNS_MAX]; /* of each run: x = step * x_scale, 1 where x counts steps */
    bool x_is_tokens;              /* else x counts steps, or parameters in PLOT_FIT */
    Axis x, y;
    double floor; /* of --floor; NaN: none */
    /* The highest value, where it lies so far above the others that the plot does not show it; NaN: all are shown. */
    double above;
} Plot;

/* ---- axes ---- */

static inline double axis_place(const Axis *a, double value) {
    if (!a->logarithmic) return (value - a->low) / (a->high - a->low);
    return value > 0 ? (log(value) - log(a->low)) / (log(a->high) - log(a->low)) : NAN;
}

/* Adds a tick, unless it lies outside of the axis. */
static inline void axis_tick(Axis *a, double value) {
    double slack = 1e-9 * (a->high - a->low);
    if (a->tick_count < TICKS_MAX && value >= a->low - slack && value <= a->high + slack)
        a->ticks[a->tick_count++] = fabs(value) < slack ? 0 : value;
}

/* About `wanted` ticks at multiples of 1, 2, 2.5 or 5 times a power of ten, at least `smallest` apart. */
static inline void axis_ticks_linear(Axis *a, int wanted, double smallest) {
    double rough = (a->high - a->low) / wanted, power = pow(10, floor(log10(rough))), step = 10 * power;
    const double nice[] = {1, 2, 2.5, 5};
    for (int i = 3; i >= 0; i--)
        if (nice[i] * power >= rough * 0.999) step = nice[i] * power;
    step = fmax(step, smallest);
    a->tick_count = 0, a->decimals = 0;
    while (a->decimals < 12 &&
           fabs(step - rint(step * pow(10, a->decimals)) / pow(10, a->decimals)) > 1e-6 * step)
        a->decimals++;
    for (double k = ceil(a->low / step - 1e-9); k * step <= a->high + 1e-9 * step; k++)
        axis_tick(a, k * step);
}

/* Ticks at 1, 2, 5, 10, ...; at powers of ten alone when the axis has many; linear ticks when it is shorter than one.
   */
static inline void axis_ticks_logarithmic(Axis *a, int wanted) {
    double decades = log10(a->high / a->low);
    a->tick_count = 0, a->decimals = -1;
    if (decades < 0.9) {
        axis_ticks_linear(a, wanted, 0);
        return;
    }
    int every = decades > wanted ? (int)ceil(decades / wanted) : 1;
    for (int e = (int)floor(log10(a->low)); e <= ceil(log10(a->high)); e += every) {
        axis_tick(a, pow(10, e));
        if (decades < 0.6 * wanted) axis_tick(a, 2 * pow(10, e)), axis_tick(a, 5 * pow(10, e));
    }
}

static inline const char *axis_label(const Axis *a, double value, char text[FORMAT_SIZE]) {
    const double largest = fmax(fabs(a->low), fabs(a->high));
    if (value == 0 && a->decimals > 4) return strcpy(text, "0");
    if (a->counts) {
        count_short(text, value);
        char *point = strchr(text, '.'), *zeros = point; /* 1.00M as 1M */
        while (zeros && (*++zeros == '0')) {}
        if (zeros && (*zeros < '0' || *zeros > '9')) memmove(point, zeros, strlen(zeros) + 1);
        return text;
    }
    if (a->decimals < 0 || (fabs(value) < 1e-4 && value != 0)) {
        snprintf(text, FORMAT_SIZE, "%.3g", value);
        char *e = strchr(text, 'e'); /* 1e-04 as 1e-4 */
        if (e && e[2] == '0') memmove(e + 2, e + 3, strlen(e + 3) + 1);
    } else if (largest >= 1e5) {
        double unit = largest >= 2e15 ? 1 : largest >= 2e9 ? 1e9 : largest >= 2e6 ? 1e6 : 1e3;
        const char *letter = unit == 1 ? "" : unit == 1e9 ? "B" : unit == 1e6 ? "M" : "k";
        snprintf(text, FORMAT_SIZE, "%.4g%s", value / unit, value == 0 ? "" : letter);
    } else if (a->decimals == 0) {
        count_grouped(text, value);
    } else {
        snprintf(text, FORMAT_SIZE, "%.*f", a->decimals, value);
    }
    return text;
}

/* Moves places[n], which lie from 0 to 1 along an axis in any order, apart until neighbours are `gap` from each other.
   Where there is room for that, all stay between 0 and 1. */
static inline void labels_spread(double *places, int n, double gap) {
    int order[PLOT_RUNS_MAX + 1];
    for (int i = 0; i < n; i++) { /* sorted by place; of equal ones the first stays above */
        int j = i;
        for (; j > 0 && places[order[j - 1]] >= places[i]; j--) order[j] = order[j - 1];
        order[j] = i;
    }
    for (int round = 0; round < 100; round++) {
        bool moved = false;
        for (int i = 0; i + 1 < n; i++) {
            double overlap = gap - (places[order[i + 1]] - places[order[i]]);
            if (overlap <= 1e-9) continue;
            places[order[i]] -= overlap / 2, places[order[i + 1]] += overlap / 2;
            moved = true;
        }
        if (n > 0 && places[order[0]] < 0) places[order[0]] = 0;
        if (n > 0 && places[order[n - 1]] > 1) places[order[n - 1]] = 1;
        if (!moved) break;
    }
}

/* ---- plots ---- */

static inline int plot_marks(const Plot *p) { return p->kind == PLOT_VALIDATION ? report_marks.count : 0; }

/* Where x counts tokens, the step of a mark is one of the first run's steps. */
static inline double plot_mark_x(const Plot *p, const Mark *mark) { return mark->step * p->x_scale[0]; }

/* The range of y. In the first twentieth of a run the loss falls steeply from ln V. If the axis held all of that, the
   later losses, in which runs differ, would be squeezed into its lower end. So the first twentieth counts only when
   there is hardly anything else to show. */
static inline void plot_range(Plot *p, double *low, double *high) {
    bool loss = p->kind == PLOT_VALIDATION || p->kind == PLOT_TRAINING || p->kind == PLOT_DIFFERENCE;
    *low = INFINITY, *high = -INFINITY;
    double all_high = -INFINITY, all_low = INFINITY;
    int64_t seen = 0;
    for (int r = 0; r < p->count; r++) {
        const Series *parts[] = {&p->curves[r], &p->low[r], &p->high[r]};
        for (int part = 0; part < 3; part++) {
            const Series *c = parts[part];
            for (int64_t i = 0; i < c->count; i++) {
                double y = c->y[i];
                if (!isfinite(y) || (p->y.logarithmic && y <= 0)) continue;
                all_low = fmin(all_low, y), all_high = fmax(all_high, y);
                if (c->x[i] * p->x_scale[r] < 0.05 * p->x.high) continue;
                *low = fmin(*low, y), *high = fmax(*high, y), seen += part == 0;
            }
        }
    }
    if (!loss || seen < 3 * p->count) *low = all_low, *high = all_high;
    if (isfinite(p->floor)) *low = fmin(*low, p->floor), *high = fmax(*high, p->floor);
    for (int i = 0; i < plot_marks(p); i++)
        *low = fmin(*low, report_marks.at[i].loss), *high = fmax(*high, report_marks.at[i].loss);
    if (p->kind == PLOT_DIFFERENCE) *low = fmin(*low, 0), *high = fmax(*high, 0);
    if (p->kind == PLOT_RATE) *low = fmin(*low, 0);
    p->above = all_high > *high + 0.25 * (*high - *low) ? all_high : NAN;
    if (!(*low <= *high) || (*low == 0 && *high == 0))
        *low = 0, *high = 1; /* no value is finite, or all are 0 */
}

/* Both axes and their ticks. */
static inline void plot_fit(Plot *p, int x_ticks, int y_ticks) {
    p->x = (Axis){.low = INFINITY, .high = 0};
    for (int r = 0; r < p->count; r++) {
        if (p->curves[r].count == 0) continue;
        p->x.high = fmax(p->x.high, p->curves[r].x[p->curves[r].count - 1] * p->x_scale[r]);
    }
    for (int i = 0; i < plot_marks(p); i++) p->x.high = fmax(p->x.high, plot_mark_x(p, &report_marks.at[i]));
    p->x.low = 0;
    if (p->x.high <= 0) p->x.high = 1;
    p->y = (Axis){.logarithmic = p->kind == PLOT_NORM};
    double low, high;
    plot_range(p, &low, &high);
    if (p->y.logarithmic) {
        if (low <= 0) low = 0.1, high = 10;
        low = fmax(low, 1e-12 * high); /* of an axis of more decades nothing could be read */
        double room = high / low < 1.2 ? 1.2 : pow(high / low, 0.04);
        p->y.low = low / room, p->y.high = high * room;
    } else {
        double room = high > low ? 0.05 * (high - low) : fmax(0.05 * fabs(high), 1e-6);
        room =
            fmax(room, 1e-6 * fmax(fabs(low),
                                   fabs(high))); /* else the numbers at the ticks would all look the same */
        p->y.low = p->kind == PLOT_RATE ? low : low - room, p->y.high = high + room;
    }
    axis_ticks_linear(&p->x, x_ticks, 1); /* steps are whole numbers */
    if (p->y.logarithmic)
        axis_ticks_logarithmic(&p->y, y_ticks);
    else
        axis_ticks_linear(&p->y, y_ticks, 0);
}

/* Steps can be compared only when a step has as many tokens in every run. */
static inline bool runs_need_tokens(const Run *runs, int count) {
    double low = INFINITY, high = 0;
    for (int r = 0; r < count; r++) {
        if (!(runs[r].tokens_per_step > 0)) return false;
        low = fmin(low, runs[r].tokens_per_step), high = fmax(high, runs[r].tokens_per_step);
    }
    return high > 1.01 * low;
}

/* Of two runs: the loss of the second minus that of the first, at the last step at which both measured the validation
   loss, which becomes *step. NaN when there is no such step or when there are not two runs that can be compared. */
static inline double runs_final_difference(const Run *runs, int count, double *step) {
    double last = *step = NAN;
    if (count != 2 || runs_need_tokens(runs, count)) return NAN;
    Series d = series_difference(&runs[0].curves[CURVE_VALIDATION], &runs[1].curves[CURVE_VALIDATION]);
    if (d.count) last = d.y[d.count - 1], *step = d.x[d.count - 1];
    series_free(&d);
    return last;
}

/* The curves are those of plot_curves for this kind; the caller keeps them as long as the plot. x_ticks and y_ticks:
   about how many ticks the axes get. */
static inline void plot_begin(Plot *p, PlotKind kind, const Run *runs, const PlotCurves *curves, int count,
                              double floor, int x_ticks, int y_ticks) {
    static const char *const titles[] = {"Validation loss", "Training loss", "Difference of validation loss",
                                         "Gradient norm",   "Learning rate", "Validation loss and size"};
    *p = (Plot){.kind = kind, .title = titles[kind], .count = count, .runs = runs};
    p->curves = curves->middle, p->low = curves->low, p->high = curves->high;
    p->floor = kind == PLOT_VALIDATION || kind == PLOT_TRAINING ? floor : NAN;
    p->x_is_tokens = runs_need_tokens(runs, count);
    for (int r = 0; r < count; r++) p->x_scale[r] = p->x_is_tokens ? runs[r].tokens_per_step : 1;
    plot_fit(p, x_ticks, y_ticks);
}

/* A copy of a curve. */
static inline Series series_copy(const Series *s) { return series_bin(s, s->count, BIN_MEAN); }

/* In PLOT_DIFFERENCE the curve of the first run, to which differences are taken, is empty; all are where steps of the
   runs are not equally large, since then equal steps do not mean equal amounts of text. */
static inline PlotCurves plot_curves(PlotKind kind, const Run *runs, int count) {
    static const CurveKind kinds[] = {CURVE_VALIDATION, CURVE_TRAINING, CURVE_VALIDATION, CURVE_NORM,
                                      CURVE_RATE};
    const size_t bytes = (size_t)count * sizeof(Series);
    const PlotCurves curves = {check_calloc(bytes), check_calloc(bytes), check_calloc(bytes)};
    const bool steps_agree = !runs_need_tokens(runs, count);
    for (int r = 0; r < count; r++) {
        const Run *run = &runs[r];
        const Series *middle = &run->curves[kinds[kind]], *low = &run->low[kinds[kind]],
                     *high = &run->high[kinds[kind]];
        if (kind == PLOT_TRAINING) middle = &run->smooth, low = &run->smooth_low, high = &run->smooth_high;
        if (kind == PLOT_DIFFERENCE && (r == 0 || !steps_agree)) continue;
        if (kind == PLOT_DIFFERENCE && run->seeds > 0) {
            curves.middle[r] = series_copy(&run->difference);
            low = &run->difference_low, high = &run->difference_high;
        } else if (kind == PLOT_DIFFERENCE) {
            curves.middle[r] = series_difference(&runs[0].curves[CURVE_VALIDATION], middle);
        } else {
            curves.middle[r] = series_copy(middle);
        }
        curves.low[r] = series_copy(low), curves.high[r] = series_copy(high);
    }
    return curves;
}

static inline void plot_curves_free(PlotCurves curves, int count) {
    for (int r = 0; r < count; r++)
        series_free(&curves.middle[r]), series_free(&curves.low[r]), series_free(&curves.high[r]);
    free(curves.middle), free(curves.low), free(curves.high);
}

/* What x counts. */
static inline const char *plot_x_title(const Plot *p) {
    return p->kind == PLOT_FIT ? "parameters" : p->x_is_tokens ? "tokens" : "steps";
}

/* "mean of 3 seeds, band: one standard deviation up and down"; `mark` is the word for how a band is drawn. */
static inline const char *plot_band_note(const Plot *p, const char *mark, char text[PLOT_NOTE_SIZE]) {
    const bool difference = p->kind == PLOT_DIFFERENCE;
    int least = 0, most = 0;
    text[0] = 0;
    if (p->kind == PLOT_RATE || p->kind == PLOT_FIT) return text;
    for (int r = difference; r < p->count; r++) {
        const int n = difference ? p->runs[r].pairs : p->runs[r].seeds;
        if (r == difference || n < least) least = n;
        if (n > most) most = n;
    }
    if (most == 0) return text;
    int used = snprintf(text, PLOT_NOTE_SIZE, "mean of ");
    if (least < most) used += snprintf(text + used, (size_t)(PLOT_NOTE_SIZE - used), "%d to ", least);
    used += snprintf(text + used, (size_t)(PLOT_NOTE_SIZE - used), "%d %s%s", most,
                     difference ? "pair" : "seed", most == 1 ? "" : "s");
    if (most > 1 && difference)
        snprintf(text + used, (size_t)(PLOT_NOTE_SIZE - used), ", %s: 95 %% interval", mark);
    else if (most > 1)
        snprintf(text + used, (size_t)(PLOT_NOTE_SIZE - used), ", %s: one standard deviation up and down",
                 mark);
    return text;
}

/* The value at the end of a curve, which for the training loss is the one in the table; "nan" when the run has
   diverged. */
static inline const char *plot_end_text(const Plot *p, int run, char text[FORMAT_SIZE]) {
    double value = p->kind == PLOT_TRAINING ? p->runs[run].train_loss : series_end(&p->curves[run]);
    if (!isfinite(value))
        snprintf(text, FORMAT_SIZE, "nan");
    else if (fabs(value) >= 1e5)
        snprintf(text, FORMAT_SIZE, p->kind == PLOT_DIFFERENCE ? "%+.1e" : "%.1e", value);
    else
        snprintf(text, FORMAT_SIZE, p->kind == PLOT_DIFFERENCE ? "%+.3f" : "%.3f", value);
    return text;
}

/* The places along y of the labels at the ends of the curves and of the line of --floor, at least `gap` apart. who[i]
   is the run of places[i], or p->count for --floor. Returns how many places there are. */
static inline int plot_end_places(const Plot *p, double gap, double places[PLOT_RUNS_MAX + 1],
                                  int who[PLOT_RUNS_MAX + 1]) {
    int n = 0;
    for (int r = 0; r < p->count; r++) {
        double last = series_last(&p->curves[r]);
        if (isfinite(last)) places[n] = fmax(0, fmin(1, axis_place(&p->y, last))), who[n++] = r;
    }
    if (isfinite(p->floor)) places[n] = axis_place(&p->y, p->floor), who[n++] = p->count;
    labels_spread(places, n, gap);
    return n;
}

/* Whether the value and the name of every run fit into `columns` characters. If so, names stand at the ends of the
   curves; otherwise only in a legend, since a name is never cut. */
static inline bool plot_names_fit(const Plot *p, int columns) {
    char text[FORMAT_SIZE];
    for (int r = 0; r < p->count; r++)
        if ((int)strlen(plot_end_text(p, r, text)) + 1 + text_columns(p->runs[r].name) > columns)
            return false;
    return true;
}

/* Whether some value is finite. */
static inline bool plot_has_numbers(const Plot *p) {
    for (int r = 0; r < p->count; r++)
        for (int64_t i = 0; i < p->curves[r].count; i++)
            if (isfinite(p->curves[r].y[i])) return true;
    return false;
}

#endif
