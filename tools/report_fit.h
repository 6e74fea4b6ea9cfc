/* report_fit.h: how the final validation loss falls with the size of the model, by arms: ./report --fit RUN...

   fits_of(fits, runs, count)       fits L = a + b N^-c to the runs of each arm, N the number of parameters. Dies when an
                                    arm has fewer than three sizes or when its losses determine no such curve.
                                    fits_free when done
   fits_terminal, fits_html, fits_png, fits_csv   show it

   An arm holds the runs that differ only in their seed, in the shape of the model, and in what is usually chosen for each
   size (fit_free_options). The fit is the least squares of all runs with equal weights. Intervals are of 95 %, from the
   covariance of the nonlinear least squares (statistics.h), which takes the curve as straight near its optimum; with few
   sizes they are rough. */
#ifndef TOOLS_REPORT_FIT_H
#define TOOLS_REPORT_FIT_H

#include "report_html.h"
#include "report_png.h"
#include "report_terminal.h"

enum { FIT_POINTS = 100, FIT_TEXT = 160 };

/* The runs of one size. */
typedef struct {
    double parameters;
    StatSample loss;
} FitSize;

typedef struct {
    PowerFit power;
    FitSize *sizes; /* [size_count], from the smallest on */
    int size_count;
    Series curve, points; /* to draw: the fitted curve, and the mean of each size */
} Fit;

typedef struct {
    Arms arms; /* with names and notes; the runs of an arm are in order of size and seed */
    Fit *fits; /* [arms.count] */
    Plot plot;
    PlotCurves curves;
    Series *points;
} Fits;

/* Options in which runs of the same arm may differ, because they make the size or are chosen for it. */
static const char *const fit_free_options[] = {"layers",     "heads",       "head-dim", "embd",
                                               "mlp-hidden", "lr",          "lr-min",   "warmup",
                                               "cooldown",   "total-batch", "steps"};

static inline bool fit_option_counts(const Option *option) {
    for (size_t i = 0; i < sizeof fit_free_options / sizeof *fit_free_options; i++)
        if (strcmp(option->name, fit_free_options[i]) == 0) return false;
    return arm_option_counts(option);
}

/* ---- gathering ---- */

static inline void fit_add(Fits *fits, Arm *arm, const Run *run) {
    int at = 0;
    if (!arm_takes(&fits->arms, run)) return;
    if (!(run->parameters > 0))
        die("%s has no number of parameters in its config.json or summary.json; leave it out", run->folder);
    while (at < arm->count &&
           (arm->runs[at]->parameters < run->parameters ||
            (arm->runs[at]->parameters == run->parameters && arm_seed(arm->runs[at]) < arm_seed(run))))
        at++;
    if (at < arm->count && arm->runs[at]->parameters == run->parameters &&
        arm_seed(arm->runs[at]) == arm_seed(run))
        die("%s and %s have the same size and seed and belong to the same arm of the fit; leave one of them "
            "out",
            arm->runs[at]->folder, run->folder);
    arm_insert(arm, at, run);
}

static inline void fits_gather(Fits *fits, const Run *runs, int count) {
    Arms *arms = &fits->arms;
    *arms = (Arms){.counts = fit_option_counts,
                   .arms = check_calloc((size_t)count * sizeof *arms->arms),
                   .means = check_calloc((size_t)count * sizeof *arms->means)};
    for (int r = 0; r < count; r++) {
        int k = 0;
        while (k < arms->count && !arms_compare_by(arms->arms[k].runs[0], &runs[r], fit_option_counts)) k++;
        fit_add(fits, &arms->arms[k], &runs[r]);
        if (k == arms->count && arms->arms[k].count > 0) arms->count++;
    }
    if (arms->count == 0) die("none of the runs is finished: there is nothing to fit; name finished runs");
    if (arms->count > PLOT_RUNS_MAX) die("the runs make %d arms, too many to draw", arms->count);
    for (int k = 0; k < arms->count; k++) {
        const Run *first = arms->arms[k].runs[0];
        arms->means[k] = run_unknown(first->folder);
        arms->means[k].config = first->config, arms->means[k].options = first->options;
    }
    arms_name(arms);
}

/* The sizes of an arm and their losses. */
static inline void fit_sizes(Fit *fit, const Arm *arm) {
    double losses[ARM_RUNS_MAX];
    fit->sizes = check_calloc((size_t)arm->count * sizeof *fit->sizes);
    for (int r = 0, n = 0; r < arm->count; r++) {
        losses[n++] = arm->runs[r]->val_loss;
        if (r + 1 < arm->count && arm->runs[r + 1]->parameters == arm->runs[r]->parameters) continue;
        fit->sizes[fit->size_count++] = (FitSize){arm->runs[r]->parameters, stat_sample(losses, n)};
        n = 0;
    }
}

/* Dies when there are too few sizes, with those that there are. */
static inline void fit_check_sizes(const Fit *fit, const char *name) {
    char text[FIT_TEXT] = "", number[FORMAT_SIZE];
    if (fit->size_count >= 3) return;
    for (int i = 0; i < fit->size_count; i++) {
        const size_t used = strlen(text);
        snprintf(text + used, sizeof text - used, "%s%s", i ? " and " : "",
                 count_short(number, fit->sizes[i].parameters));
    }
    die("the runs of '%s' have %s parameters; --fit has three unknowns, so name runs of three or more sizes",
        name, text);
}

/* The fit of one arm, and what is drawn of it. */
static inline void fit_arm(Fit *fit, const Arm *arm, const char *name) {
    double N[ARM_RUNS_MAX], L[ARM_RUNS_MAX];
    for (int r = 0; r < arm->count; r++) N[r] = arm->runs[r]->parameters, L[r] = arm->runs[r]->val_loss;
    fit_sizes(fit, arm);
    fit_check_sizes(fit, name);
    if (!power_fit(N, L, arm->count, &fit->power))
        die("the losses of '%s' do not determine L = a + b N^-c with b > 0 and c from %g to %g: they have to "
            "fall with the "
            "size, and more slowly from size to size; add sizes, or longer runs",
            name, POWER_C_MIN, POWER_C_MAX);
    const double low = N[0], high = N[arm->count - 1];
    for (int i = 0; i < FIT_POINTS; i++) {
        const double x = low * pow(high / low, (double)i / (FIT_POINTS - 1));
        series_add(&fit->curve, x, power_at(&fit->power, x));
    }
    for (int i = 0; i < fit->size_count; i++)
        series_add(&fit->points, fit->sizes[i].parameters, fit->sizes[i].loss.mean);
}

/* The plot: x is the number of parameters, logarithmic. */
static inline void fits_plot(Fits *fits) {
    const int count = fits->arms.count;
    Plot *p = &fits->plot;
    double low = INFINITY, high = 0;
    fits->curves = (PlotCurves){check_calloc((size_t)count * sizeof(Series)),
                                check_calloc((size_t)count * sizeof(Series)),
                                check_calloc((size_t)count * sizeof(Series))};
    fits->points = check_calloc((size_t)count * sizeof(Series));
    for (int k = 0; k < count; k++) {
        const Fit *fit = &fits->fits[k];
        fits->curves.middle[k] = fit->curve, fits->points[k] = fit->points;
        fits->curves.low[k] = fits->curves.high[k] =
            fit->points; /* so that the points are inside of the frame */
        low = fmin(low, fit->sizes[0].parameters),
        high = fmax(high, fit->sizes[fit->size_count - 1].parameters);
    }
    plot_begin(p, PLOT_FIT, fits->arms.means, &fits->curves, count, NAN, 5, 6);
    p->x_is_tokens = false;
    for (int k = 0; k < count; k++)
        p->x_scale[k] = 1, fits->curves.low[k] = fits->curves.high[k] = (Series){0};
    p->points = fits->points;
    p->x = (Axis){.low = low / 1.1, .high = high * 1.1, .logarithmic = true, .counts = true};
    axis_ticks_logarithmic(&p->x, 5);
}

static inline void fits_of(Fits *fits, const Run *runs, int count) {
    *fits = (Fits){.fits = check_calloc((size_t)count * sizeof *fits->fits)};
    fits_gather(fits, runs, count);
    for (int k = 0; k < fits->arms.count; k++)
        fit_arm(&fits->fits[k], &fits->arms.arms[k], fits->arms.means[k].name);
    fits_plot(fits);
}

static inline void fits_free(Fits *fits) {
    for (int k = 0; k < fits->arms.count; k++)
        free(fits->fits[k].sizes), series_free(&fits->fits[k].curve), series_free(&fits->fits[k].points);
    free(fits->curves.middle), free(fits->curves.low), free(fits->curves.high);
    free(fits->points), free(fits->fits);
    arms_free(&fits->arms);
}

/* ---- sentences ---- */

/* "3.912 +- 0.031": a number of the fit and half its interval. */
static inline const char *fit_number(const Fit *fit, int k, bool utf8, char text[FORMAT_SIZE]) {
    const double half = power_interval(&fit->power, k);
    const int n = snprintf(text, FORMAT_SIZE, "%.4g", fit->power.value[k]);
    if (isfinite(half)) snprintf(text + n, (size_t)(FORMAT_SIZE - n), " %s %.2g", utf8 ? "±" : "+-", half);
    return text;
}

/* How many parameters arm k needs for the loss that the first arm has at its largest size, compared with that size.
   ln(ratio) = -ln((L - a) / b) / c - ln N, with L the first arm's fitted loss at N. Its interval comes from the derivatives
   of this with respect to the six numbers of both fits and from their covariances (the delta method). NaN where the curve
   of arm k does not come down to L. */
static inline double fits_size_ratio(const Fits *fits, int k, double *half) {
    const Fit *first = &fits->fits[0], *own = &fits->fits[k];
    const double N = first->sizes[first->size_count - 1].parameters, L = power_at(&first->power, N);
    const double a = own->power.value[0], b = own->power.value[1], c = own->power.value[2], u = (L - a) / b;
    const double by_L = -1 / (c * u * b), power = pow(N, -first->power.value[2]);
    const double of_first[3] = {by_L, by_L * power, -by_L * first->power.value[1] * power * log(N)};
    const double of_own[3] = {-by_L, 1 / (c * b), log(u) / (c * c)};
    double variance = 0;
    for (int i = 0; i < 3; i++)
        for (int j = 0; j < 3; j++)
            variance += of_first[i] * first->power.covariance[i][j] * of_first[j] +
                        of_own[i] * own->power.covariance[i][j] * of_own[j];
    const int df = first->power.df < own->power.df ? first->power.df : own->power.df;
    *half = df > 0 ? stat_t_quantile(STAT_LEVEL, df) * sqrt(variance) : NAN;
    return u > 0 ? -log(u) / c - log(N) : NAN;
}

static inline void fits_ratio_sentence(const Fits *fits, int k, char text[ARM_TEXT_SIZE]) {
    const Fit *first = &fits->fits[0];
    const char *name = fits->arms.means[k].name, *first_name = fits->arms.means[0].name;
    const double N = first->sizes[first->size_count - 1].parameters;
    char size[FORMAT_SIZE], other[FORMAT_SIZE], interval[160];
    double half;
    const double ratio = fits_size_ratio(fits, k, &half);
    if (!isfinite(ratio)) {
        snprintf(text, ARM_TEXT_SIZE,
                 "By its curve %s does not come down to the loss that %s has with %s parameters.", name,
                 first_name, count_short(size, N));
        return;
    }
    if (!isfinite(half))
        snprintf(interval, sizeof interval, "without an interval, since there are as many numbers as runs");
    else if (fabs(ratio) <= half)
        snprintf(interval, sizeof interval,
                 "95 %% interval %.3g to %.3g: whether it is more or less is not certain", exp(ratio - half),
                 exp(ratio + half));
    else
        snprintf(interval, sizeof interval, "95 %% interval %.3g to %.3g", exp(ratio - half),
                 exp(ratio + half));
    snprintf(text, ARM_TEXT_SIZE,
             "By the curves %s has the loss of %s with %s parameters (%.4f) at %s parameters, %.3g times as "
             "many (%s).",
             name, first_name, count_short(size, N), power_at(&first->power, N),
             count_short(other, N * exp(ratio)), exp(ratio), interval);
}

static inline void fits_sentences(const Fits *fits, ArmSee *see, void *context) {
    char text[ARM_TEXT_SIZE];
    for (int k = 1; k < fits->arms.count; k++) fits_ratio_sentence(fits, k, text), see(context, text);
    for (int k = 0; k < fits->arms.count; k++) {
        const char *name = fits->arms.means[k].name;
        if (fits->fits[k].size_count == 3)
            snprintf(text, sizeof text,
                     "%s has exactly 3 sizes, so its curve goes through their means: whether the losses "
                     "follow a power law "
                     "cannot be seen.",
                     name),
                see(context, text);
        if (fits->fits[k].power.value[0] < 0)
            snprintf(text, sizeof text,
                     "a of %s is below 0, which no loss is: the curve describes these sizes, and says "
                     "nothing of larger ones.",
                     name),
                see(context, text);
        if (fits->fits[k].power.df == 0)
            snprintf(text, sizeof text, "%s has one run of each size, so a, b and c have no interval.", name),
                see(context, text);
    }
    see(context,
        "L = a + b N^-c, N the number of parameters: least squares of all runs with equal weights. Intervals "
        "are of "
        "95 %, from the covariance of the least squares, t(0.975, runs - 3) times the standard error.");
    arms_notes(&fits->arms, see, context);
}

/* ---- output ---- */

/* The cells of a row of the first table: arm, runs, a, b, c, deviation; k -1: the titles. */
enum { FIT_CELLS = 6 };
static inline const char *fit_cell(const Fits *fits, int k, int cell, bool utf8, char text[FORMAT_SIZE]) {
    static const char *const titles[FIT_CELLS] = {"arm", "runs", "a", "b", "c", "deviation"};
    if (k < 0) return titles[cell];
    const Fit *fit = &fits->fits[k];
    if (cell == 0) return fits->arms.means[k].name;
    if (cell == 1) snprintf(text, FORMAT_SIZE, "%d", fits->arms.arms[k].count);
    if (cell >= 2 && cell <= 4) fit_number(fit, cell - 2, utf8, text);
    if (cell == 5) arm_number(text, "%.4f", fit->power.deviation);
    return text;
}

/* A row of the second table: arm, parameters, runs, mean, deviation, fitted loss. */
enum { FIT_SIZE_CELLS = 6 };
static inline const char *fit_size_cell(const Fits *fits, int k, int i, int cell, char text[FORMAT_SIZE]) {
    static const char *const titles[FIT_SIZE_CELLS] = {"arm",      "parameters", "runs",
                                                       "val loss", "sd",         "fitted"};
    if (k < 0) return titles[cell];
    const FitSize *size = &fits->fits[k].sizes[i];
    const double losses[] = {size->loss.mean, size->loss.deviation,
                             power_at(&fits->fits[k].power, size->parameters)};
    if (cell == 0) return fits->arms.means[k].name;
    if (cell == 1) count_grouped(text, size->parameters);
    if (cell == 2) snprintf(text, FORMAT_SIZE, "%d", size->loss.n);
    if (cell >= 3) arm_number(text, "%.4f", losses[cell - 3]);
    return text;
}

/* A row in the terminal: the mark of the arm, its name, and the other cells in their columns. */
static inline void fits_terminal_row(const Terminal *t, int k, const char *const *cells, const int *width,
                                     int count) {
    if (k >= 0) terminal_paint(t, k, true);
    printf("%s ", k < 0 ? " " : terminal_mark(t, k));
    if (k >= 0) terminal_paint(t, k, false);
    terminal_name(cells[0], width[0]);
    for (int c = 1; c < count; c++) printf("  "), print_fitted(cells[c], width[c], true);
    printf("\n");
}

static inline void fits_terminal(const Terminal *t, const Fits *fits) {
    char texts[FIT_CELLS][FORMAT_SIZE];
    const char *cells[FIT_CELLS];
    int width[FIT_CELLS] = {0}, size_width[FIT_SIZE_CELLS] = {0, 12, 4, 9, 7, 9}, room = TERM_WIDTH - 2;
    for (int k = -1; k < fits->arms.count; k++)
        for (int c = 0; c < FIT_CELLS; c++) {
            const int columns = text_columns(fit_cell(fits, k, c, t->utf8, texts[0]));
            if (columns > width[c]) width[c] = columns;
        }
    for (int c = 1; c < FIT_CELLS; c++) room -= width[c] + 2;
    if (width[0] > room) width[0] = room < 3 ? 3 : room;
    size_width[0] = width[0];
    for (int k = -1; k < fits->arms.count; k++) {
        for (int c = 0; c < FIT_CELLS; c++) cells[c] = fit_cell(fits, k, c, t->utf8, texts[c]);
        fits_terminal_row(t, k, cells, width, FIT_CELLS);
    }
    printf("\n");
    for (int k = -1; k < fits->arms.count; k++)
        for (int i = 0; i < (k < 0 ? 1 : fits->fits[k].size_count); i++) {
            for (int c = 0; c < FIT_SIZE_CELLS; c++) cells[c] = fit_size_cell(fits, k, i, c, texts[c]);
            fits_terminal_row(t, k, cells, size_width, FIT_SIZE_CELLS);
        }
    terminal_plot(t, &fits->plot);
    printf("\n");
    fits_sentences(fits, terminal_sentence, NULL);
}

/* A table of the page: `rows` rows of each arm. */
static inline void fits_html_table(FILE *f, const Fits *fits, bool sizes) {
    char text[FORMAT_SIZE];
    const int cells = sizes ? FIT_SIZE_CELLS : FIT_CELLS;
    fputs("<section class=\"card\"><div class=\"scroll\"><table class=\"runs\">", f);
    for (int k = -1; k < fits->arms.count; k++)
        for (int i = 0; i < (k < 0 || !sizes ? 1 : fits->fits[k].size_count); i++) {
            fputs("<tr>", f);
            for (int c = 0; c < cells; c++) {
                const char *title =
                    sizes ? fit_size_cell(fits, -1, 0, c, text) : fit_cell(fits, -1, c, true, text);
                fprintf(f, k < 0 ? "<th>" : "<td data-title=\"%s\">", title);
                if (k >= 0 && c == 0)
                    fprintf(f, "<span class=\"key\" style=\"--c:var(--c%d)\"></span>", k % HTML_COLORS);
                html_text(f, sizes ? fit_size_cell(fits, k, i, c, text) : fit_cell(fits, k, c, true, text));
                fputs(k < 0 ? "</th>" : "</td>", f);
            }
            fputs("</tr>\n", f);
        }
    fputs("</table></div></section>\n", f);
}

static inline void fits_html(const char *path, const Fits *fits) {
    FILE *f = check_fopen(path, "w", "name a file in a folder that exists: --out=FILE");
    html_begin(f, fits->arms.means, fits->arms.count, "loss and size");
    fits_sentences(fits, html_sentence, f);
    fits_html_table(f, fits, false);
    fputs("<div class=\"panels\">\n", f);
    html_panel(f, &fits->plot, 0, HTML_POINTS);
    fputs("</div>\n", f);
    fits_html_table(f, fits, true);
    html_end(f, &fits->plot, 1, HTML_POINTS);
    check_fclose(f, path);
}

static inline void fits_csv(const char *path, const Fits *fits) {
    FILE *f = check_fopen(path, "w", "name a file in a folder that exists: --csv=FILE");
    fprintf(f, "arm,runs,sizes,a,a_half_interval,b,b_half_interval,c,c_half_interval,deviation\n");
    for (int k = 0; k < fits->arms.count; k++) {
        const Fit *fit = &fits->fits[k];
        csv_text(f, fits->arms.means[k].name);
        fprintf(f, ",%d,%d", fits->arms.arms[k].count, fit->size_count);
        for (int i = 0; i < 3; i++) {
            const double half = power_interval(&fit->power, i);
            fprintf(f, ",%.10g", fit->power.value[i]);
            fprintf(f, isfinite(half) ? ",%.6g" : ",", half);
        }
        fprintf(f, isfinite(fit->power.deviation) ? ",%.6g\n" : ",\n", fit->power.deviation);
    }
    check_fclose(f, path);
}

#endif
