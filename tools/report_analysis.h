/* report_analysis.h: the part of the report about attention, of runs whose log has the lines of --analyze-every
   (gpt/run/analysis.h). docs/analysis.md says what the numbers mean.

   terminal_analysis(terminal, runs, count)   a table of the last analysis of each run, beside the paper's numbers
   html_analysis(f, runs, count, points)      the section "Attention" of the page: the HtmlSection that html_write calls
   Both print nothing when no run has an analysis.

   The panels show a number over the steps: a curve for the whole model, and a faint one for each layer. */
#ifndef TOOLS_REPORT_ANALYSIS_H
#define TOOLS_REPORT_ANALYSIS_H

#include "../gpt/run/analysis.h"
#include "report_html.h"
#include "report_terminal.h"

enum { ANALYSIS_LAYERS_MAX = 1024, ANALYSIS_LAYER_POINTS = 64 };

/* What the log of a run tells of one number. */
typedef struct {
    Series all;     /* of the whole model */
    Series *layers; /* (layers of RunAnalysis) */
} AnalysisCurves;

typedef struct {
    AnalysisCurves numbers[ANALYSIS_NUMBERS];
    int layers; /* 0: the log has no analysis */
    double last_step;
} RunAnalysis;

/* The panels, in their order. The Plots of shares are in percent; two of them have the paper's number as a line. */
static const struct {
    AnalysisKey key;
    bool logarithmic;
    double paper; /* 0: it has no such number */
} analysis_panels[] = {
    {ANALYSIS_GRADIENT_Q, true, 0},
    {ANALYSIS_GRADIENT_K, true, 0},
    {ANALYSIS_GRADIENT_V, true, 0},
    {ANALYSIS_GRADIENT_O, true, 0},
    {ANALYSIS_BELOW_1E3, false, ANALYSIS_PAPER_BELOW_1E3},
    {ANALYSIS_BELOW_1E7, false, ANALYSIS_PAPER_BELOW_1E7},
    {ANALYSIS_ENTROPY_SHARE, false, 0},
    {ANALYSIS_LARGEST_SCORE, false, 0},
    {ANALYSIS_JACOBIAN_RATIO, false, 0},
    {ANALYSIS_V_RANGE, false, 0},
};
enum { ANALYSIS_PANELS = sizeof analysis_panels / sizeof *analysis_panels };

/* ---- reading ---- */

/* Adds the analysis in one line of a log, if it is whole. */
static inline void analysis_take_line(RunAnalysis *a, const char *text, size_t length) {
    cJSON *line = json_parse(text, length);
    const cJSON *analysis = cJSON_GetObjectItemCaseSensitive(line, "analysis");
    const cJSON *all = cJSON_GetObjectItemCaseSensitive(analysis, "all");
    const cJSON *layers = cJSON_GetObjectItemCaseSensitive(analysis, "layers");
    const double step = json_number(line, "step");
    const int count = cJSON_GetArraySize(cJSON_GetObjectItemCaseSensitive(layers, analysis_numbers[0].key));
    if (!a->layers && count > 0 && count <= ANALYSIS_LAYERS_MAX) {
        a->layers = count;
        for (int n = 0; n < ANALYSIS_NUMBERS; n++)
            a->numbers[n].layers = check_calloc((size_t)count * sizeof(Series));
    }
    if (isfinite(step) && count > 0 && count == a->layers) {
        a->last_step = step;
        for (int n = 0; n < ANALYSIS_NUMBERS; n++) {
            const char *key = analysis_numbers[n].key;
            const cJSON *item = cJSON_GetObjectItemCaseSensitive(layers, key);
            item = item ? item->child : NULL;
            series_add(&a->numbers[n].all, step, json_number(all, key));
            for (int l = 0; l < count; l++, item = item ? item->next : NULL)
                series_add(&a->numbers[n].layers[l], step, cJSON_IsNumber(item) ? item->valuedouble : NAN);
        }
    }
    cJSON_Delete(line);
}

/* All analyses in a log. */
static inline RunAnalysis run_analysis_of(FILE *file) {
    RunAnalysis a = {0};
    char *line = check_calloc(LOG_LINE_MAX + 1);
    bool whole, ended;
    for (long n; (n = log_next_line(file, line, &whole, &ended)) >= 0;) {
        line[n] = 0; /* in place of the newline */
        if (whole && strstr(line, "\"analysis\"")) analysis_take_line(&a, line, (size_t)n);
    }
    free(line);
    return a;
}

/* The analyses of all runs; NULL when none has one. */
static inline RunAnalysis *run_analyses(const Run *runs, int count) {
    RunAnalysis *analyses = check_calloc((size_t)count * sizeof *analyses);
    bool some = false;
    for (int r = 0; r < count; r++) {
        if (!runs[r].analysed) continue;
        char error[LOG_ERROR_SIZE], *path = file_path(runs[r].folder, "log.jsonl");
        FILE *file = log_open_read(path, error);
        if (!file) die("%s", error); /* it was removed after run_load had read it */
        analyses[r] = run_analysis_of(file), some = some || analyses[r].layers;
        fclose(file), free(path);
    }
    if (!some) free(analyses);
    return some ? analyses : NULL;
}

static inline void run_analysis_free(RunAnalysis *a) {
    for (int n = 0; n < ANALYSIS_NUMBERS; n++) {
        for (int l = 0; l < a->layers; l++) series_free(&a->numbers[n].layers[l]);
        series_free(&a->numbers[n].all), free(a->numbers[n].layers);
    }
    *a = (RunAnalysis){0};
}

static inline void run_analyses_free(RunAnalysis *analyses, int count) {
    for (int r = 0; r < count; r++) run_analysis_free(&analyses[r]);
    free(analyses);
}

/* The number of a run at its last analysis, as text. */
static inline const char *analysis_last(const RunAnalysis *a, AnalysisKey key, char text[FORMAT_SIZE]) {
    return analysis_text(text, &analysis_numbers[key], series_end(&a->numbers[key].all));
}

/* The columns of the tables that have a row for each run. */
static const AnalysisKey analysis_columns[] = {
    ANALYSIS_BELOW_1E3,  ANALYSIS_BELOW_1E7,  ANALYSIS_ENTROPY, ANALYSIS_JACOBIAN_RATIO,
    ANALYSIS_GRADIENT_Q, ANALYSIS_GRADIENT_V, ANALYSIS_V_RANGE};
enum { ANALYSIS_COLUMNS = sizeof analysis_columns / sizeof *analysis_columns };

/* What the paper has for a column; "" where it has nothing. */
static inline const char *analysis_of_paper(AnalysisKey key) {
    return key == ANALYSIS_BELOW_1E3 ? "80%" : key == ANALYSIS_BELOW_1E7 ? "20%" : "";
}

/* ---- the terminal ---- */

static inline void terminal_analysis(const Terminal *t, const Run *runs, int count) {
    enum { COLUMN = 8 };
    RunAnalysis *analyses = run_analyses(runs, count);
    char text[FORMAT_SIZE];
    const int name = TERM_WIDTH - 2 - COLUMN * (ANALYSIS_COLUMNS + 1);
    if (!analyses) return;
    printf("\n  Attention at the last analysis (docs/analysis.md)\n  %-*s%*s", name, "run", COLUMN, "step");
    for (int c = 0; c < ANALYSIS_COLUMNS; c++)
        printf("%*s", COLUMN, analysis_numbers[analysis_columns[c]].heading);
    printf("\n");
    for (int r = 0; r < count; r++) {
        if (!analyses[r].layers) continue;
        terminal_paint(t, r, true);
        printf("%s ", terminal_mark(t, r));
        terminal_paint(t, r, false);
        terminal_name(runs[r].name, name);
        printf("%*.0f", COLUMN, analyses[r].last_step);
        for (int c = 0; c < ANALYSIS_COLUMNS; c++)
            printf("%*s", COLUMN, analysis_last(&analyses[r], analysis_columns[c], text));
        printf("\n");
    }
    printf("  %-*s", name + COLUMN, "the paper's model");
    for (int c = 0; c < 2; c++) printf("%*s", COLUMN, analysis_of_paper(analysis_columns[c]));
    printf("\n");
    run_analyses_free(analyses, count);
}

/* ---- the page ---- */

/* The heading of a column; the pointer shows it in words. */
static inline void html_analysis_heading(FILE *f, const AnalysisNumber *number) {
    fputs("<th title=\"", f), html_text(f, number->title);
    fputs("\">", f), html_text(f, number->heading), fputs("</th>", f);
}

/* The table with a row for each run. */
static inline void html_analysis_table(FILE *f, const Run *runs, const RunAnalysis *analyses, int count) {
    char text[FORMAT_SIZE];
    fputs("<section class=\"card wide\"><div class=\"head\"><h2>Attention at the last analysis</h2><p "
          "class=\"note\">"
          "docs/analysis.md says what each number means</p></div>\n"
          "<div class=\"scroll\"><table class=\"runs\"><tr><th>run</th><th>step</th>",
          f);
    for (int c = 0; c < ANALYSIS_COLUMNS; c++)
        html_analysis_heading(f, &analysis_numbers[analysis_columns[c]]);
    for (int r = 0; r <= count; r++) {
        if (r < count && !analyses[r].layers) continue;
        fputs("</tr>\n<tr><td>", f);
        if (r < count) fprintf(f, "<span class=\"key\" style=\"--c:var(--c%d)\"></span>", r % HTML_COLORS);
        html_text(f, r < count ? runs[r].name : "the paper's model");
        fprintf(f, "</td><td data-title=\"step\">%s",
                r < count ? count_grouped(text, analyses[r].last_step) : "-");
        for (int c = 0; c < ANALYSIS_COLUMNS; c++) {
            const AnalysisKey key = analysis_columns[c];
            const char *paper = *analysis_of_paper(key) ? analysis_of_paper(key) : "-";
            fputs("</td><td data-title=\"", f), html_text(f, analysis_numbers[key].heading);
            fprintf(f, "\">%s", r < count ? analysis_last(&analyses[r], key, text) : paper);
        }
        fputs("</td>", f);
    }
    fputs("</tr></table></div></section>\n", f);
}

/* A curve of the log in the unit of its panel: shares become percent. */
static inline Series analysis_scaled(const Series *s, AnalysisKey key, int64_t points) {
    Series scaled = series_bin(s, points, BIN_MEAN);
    if (analysis_numbers[key].style == ANALYSIS_PERCENT)
        for (int64_t i = 0; i < scaled.count; i++) scaled.y[i] *= 100;
    return scaled;
}

/* Makes the axis long enough for a value. */
static inline void axis_include(Axis *a, double y) {
    if (!isfinite(y) || (a->logarithmic && y <= 0)) return;
    a->low = fmin(a->low, y), a->high = fmax(a->high, y);
}

/* Room above and below the values, and the ticks. */
static inline void axis_finish(Axis *a) {
    if (!(a->low <= a->high)) a->low = a->logarithmic ? 0.1 : 0, a->high = 1; /* no value is finite */
    if (a->logarithmic) {
        a->low = fmax(a->low, 1e-12 * a->high);
        const double room = fmax(1.1, pow(a->high / a->low, 0.04));
        a->low /= room, a->high *= room;
        axis_ticks_logarithmic(a, 5);
    } else {
        const double room = a->high > a->low ? 0.05 * (a->high - a->low) : fmax(0.05 * fabs(a->high), 1e-6);
        a->low -= room, a->high += room;
        axis_ticks_linear(a, 5, 0);
    }
}

/* The Plot of panel number n. curves (count) get the curves of whole models. */
static inline Plot analysis_plot(int n, const Run *runs, const RunAnalysis *analyses, Series *curves,
                                 int count) {
    const AnalysisKey key = analysis_panels[n].key;
    const bool percent = analysis_numbers[key].style == ANALYSIS_PERCENT;
    Plot p = {.kind = PLOT_NORM,
              .title = analysis_numbers[key].title,
              .count = count,
              .runs = runs,
              .curves = curves};
    p.floor = analysis_panels[n].paper > 0 ? analysis_panels[n].paper * (percent ? 100 : 1) : NAN;
    p.x_is_tokens = runs_need_tokens(runs, count);
    p.y = (Axis){.low = INFINITY, .high = -INFINITY, .logarithmic = analysis_panels[n].logarithmic};
    axis_include(&p.y, p.floor);
    for (int r = 0; r < count; r++) {
        const AnalysisCurves *of_run = &analyses[r].numbers[key];
        p.x_scale[r] = p.x_is_tokens ? runs[r].tokens_per_step : 1;
        p.x.high = fmax(p.x.high, analyses[r].last_step * p.x_scale[r]);
        curves[r] = analysis_scaled(&of_run->all, key, of_run->all.count);
        for (int l = -1; l < analyses[r].layers; l++) {
            const Series *s = l < 0 ? &of_run->all : &of_run->layers[l];
            for (int64_t i = 0; i < s->count; i++) axis_include(&p.y, s->y[i] * (percent ? 100 : 1));
        }
    }
    if (p.x.high <= 0) p.x.high = 1;
    axis_ticks_linear(&p.x, 5, 1);
    axis_finish(&p.y);
    return p;
}

/* A panel. Its data for the script is an attribute of the plot, because it belongs to this section alone. */
static inline void html_analysis_panel(FILE *f, int n, const Run *runs, const RunAnalysis *analyses,
                                       int count, int64_t points) {
    const AnalysisKey key = analysis_panels[n].key;
    const AnalysisNumber *number = &analysis_numbers[key];
    Series curves[PLOT_RUNS_MAX];
    const Plot p = analysis_plot(n, runs, analyses, curves, count);
    fputs("<section class=\"card\"><div class=\"head\"><h2>", f);
    html_text(f, number->title);
    fprintf(f,
            "%s</h2><p class=\"note\">faint: each layer%s%s</p></div>\n<div class=\"plot\" tabindex=\"0\" "
            "data-own='",
            number->style == ANALYSIS_PERCENT ? ", %" : "", p.y.logarithmic ? "; logarithmic" : "",
            isfinite(p.floor) ? "; dotted: the paper's model" : "");
    html_panel_data(f, &p, points);
    fprintf(f,
            "'><div class=\"area\">\n<svg viewBox=\"0 0 %d %d\" preserveAspectRatio=\"none\" role=\"img\" "
            "aria-label=\"",
            HTML_UNITS, HTML_UNITS);
    html_text(f, number->title), fputs("\">\n", f);
    html_grid(f, &p);
    for (int r = 0; r < count; r++)
        for (int l = 0; l < analyses[r].layers; l++) {
            Series s = analysis_scaled(&analyses[r].numbers[key].layers[l], key, ANALYSIS_LAYER_POINTS);
            html_curve(f, &p, r, &s, "faint");
            series_free(&s);
        }
    for (int r = 0; r < count; r++) {
        Series s = series_bin(&curves[r], points, BIN_MEAN);
        html_curve(f, &p, r, &s, "curve");
        if (s.count <= HTML_DOTS) html_dots(f, &p, r, &s);
        series_free(&s), series_free(&curves[r]);
    }
    fputs("</svg>\n", f);
    html_ticks(f, &p);
    fputs("</div></div></section>\n", f);
}

/* A table of the numbers from `first` to below `end`: a row for each layer at the last analysis, and one for all. */
static inline void html_analysis_rows(FILE *f, const RunAnalysis *a, int first, int end) {
    char text[FORMAT_SIZE];
    fputs("<div class=\"scroll\"><table><tr><th>layer</th>", f);
    for (int n = first; n < end; n++) html_analysis_heading(f, &analysis_numbers[n]);
    for (int l = 0; l <= a->layers; l++) {
        fputs("</tr>\n<tr><td>", f);
        fprintf(f, l < a->layers ? "%d" : "all", l);
        for (int n = first; n < end; n++) {
            const AnalysisCurves *curves = &a->numbers[n];
            const double x = series_end(l < a->layers ? &curves->layers[l] : &curves->all);
            fprintf(f, "</td><td>%s", analysis_text(text, &analysis_numbers[n], x));
        }
        fputs("</td>", f);
    }
    fputs("</tr></table></div>\n", f);
}

/* Every number of every layer at the last analysis of a run, in two tables, so that they fit the page. */
static inline void html_analysis_layers(FILE *f, const Run *run, const RunAnalysis *a) {
    char text[FORMAT_SIZE];
    fputs("<details class=\"card\"><summary>Each layer of ", f);
    html_text(f, run->name);
    fprintf(f, " at step %s</summary>", count_grouped(text, a->last_step));
    html_analysis_rows(f, a, 0, ANALYSIS_GRADIENT_Q);
    html_analysis_rows(f, a, ANALYSIS_GRADIENT_Q, ANALYSIS_NUMBERS);
    fputs("</details>\n", f);
}

/* The section, of analyses that were read. */
static inline void html_analysis_section(FILE *f, const Run *runs, const RunAnalysis *analyses, int count,
                                         int64_t points) {
    fputs("<div class=\"panels\" id=\"attention\">\n", f);
    html_analysis_table(f, runs, analyses, count);
    for (int n = 0; n < ANALYSIS_PANELS; n++) html_analysis_panel(f, n, runs, analyses, count, points);
    fputs("</div>\n", f);
    for (int r = 0; r < count; r++)
        if (analyses[r].layers) html_analysis_layers(f, &runs[r], &analyses[r]);
}

static inline void html_analysis(FILE *f, const Run *runs, int count, int64_t points) {
    RunAnalysis *analyses = run_analyses(runs, count);
    if (!analyses) return;
    html_analysis_section(f, runs, analyses, count, points);
    run_analyses_free(analyses, count);
}

#endif
