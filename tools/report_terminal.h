/* report_terminal.h: prints the table and the loss curves in 80 columns.

   terminal_of(file)           what the terminal, or whatever reads the output, can show
   terminal_show(terminal, runs, count, arms, floor)   prints the whole report. With arms, groups of runs that differ in
                               their seed (report_arms.h), it is about them; else `arms` is NULL

   Curves are drawn with braille characters, which have 2 x 4 dots each, where the locale is UTF-8, else with ASCII.
   Each run has a mark of its own, along its curve and at its label, so that runs can be told apart without colour. On a
   terminal colour is used as well, unless NO_COLOR is set. */
#ifndef TOOLS_REPORT_TERMINAL_H
#define TOOLS_REPORT_TERMINAL_H

#include <strings.h>
#include <unistd.h>
#include "../gpt/base/program.h"
#include "report_arms.h"

/* The width of a line; left of a plot's frame; inside the frame; and the rows inside it. */
enum { TERM_WIDTH = 80, TERM_LEFT = 8, TERM_COLUMNS = 52, TERM_ROWS = 15 };

typedef struct {
    bool utf8, color;
} Terminal;

static inline Terminal terminal_of(FILE *file) {
    const char *names[] = {"LC_ALL", "LC_CTYPE", "LANG"}, *locale = NULL;
    for (int i = 0; i < 3 && !locale; i++) {
        locale = getenv(names[i]);
        if (locale && !*locale) locale = NULL;
    }
    const char *charset = locale ? strchr(locale, '.') : NULL, *no_color = getenv("NO_COLOR");
    return (Terminal){
        .utf8 = charset && (strncasecmp(charset, ".utf-8", 6) == 0 || strncasecmp(charset, ".utf8", 5) == 0),
        .color = program_on_terminal(file) && !(no_color && *no_color) && getenv("TERM")};
}

/* Blue and orange come first: every kind of colour vision tells them apart. */
static const int terminal_colors[] = {39, 208, 35, 134, 205, 44, 178, 245};
static const char *const terminal_marks_utf8[] = {"●", "○", "■", "□", "▲", "△", "◆", "◇"};
static const char terminal_marks_ascii[] = "*o#+x%@&";
enum { TERM_STYLES = 8 };

/* The mark of a run; valid until the next call. */
static inline const char *terminal_mark(const Terminal *t, int run) {
    static char ascii[2];
    ascii[0] = terminal_marks_ascii[run % TERM_STYLES];
    return t->utf8 ? terminal_marks_utf8[run % TERM_STYLES] : ascii;
}

/* Switches to the colour of a run, or back. */
static inline void terminal_paint(const Terminal *t, int run, bool on) {
    if (!t->color) return;
    if (on)
        printf("\033[38;5;%dm", terminal_colors[run % TERM_STYLES]);
    else
        printf("\033[0m");
}

/* ---- the table ---- */

/* Prints text padded with blanks to `width` columns, aligned to the right or to the left. */
static inline void print_fitted(const char *text, int width, bool right) {
    const int room = width - text_columns(text);
    printf("%*s%s%*s", right && room > 0 ? room : 0, "", text, !right && room > 0 ? room : 0, "");
}

/* The widths of the columns; 0 of those that are not shown. Where the line is too short for all, bits per byte are left
   out, which the HTML has too; then the column of names gets what the others leave of the line. */
static inline void terminal_widths(const Run *runs, int count, int width[FIGURE_COUNT]) {
    int total = 2;
    char text[FORMAT_SIZE];
    for (int f = 0; f < FIGURE_COUNT; f++) {
        width[f] = 0;
        if (!figure_shown(runs, count, (Figure)f)) continue;
        width[f] = text_columns(figures[f].title);
        for (int r = 0; r < count; r++) {
            int columns = text_columns(figure_text(&runs[r], (Figure)f, text));
            if (columns > width[f]) width[f] = columns;
        }
        total += width[f] + (f ? 2 : 0);
    }
    if (total > TERM_WIDTH && width[FIGURE_BITS_PER_BYTE]) {
        total -= width[FIGURE_BITS_PER_BYTE] + 2;
        width[FIGURE_BITS_PER_BYTE] = 0;
    }
    if (total > TERM_WIDTH) width[FIGURE_NAME] -= total - TERM_WIDTH;
    if (width[FIGURE_NAME] < 3) width[FIGURE_NAME] = 3;
}

/* Prints a name in its column. A name that is too long is printed on lines of its own, and the column below them is
   empty. */
static inline void terminal_name(const char *name, int width) {
    const int line = TERM_WIDTH - 2;
    if (text_columns(name) > width) {
        while (text_columns(name) > line) {
            int n = text_prefix(name, line);
            printf("%.*s\n  ", n, name);
            name += n;
        }
        printf("%s\n  ", name);
        name = "";
    }
    print_fitted(name, width, false);
}

/* ---- arms ---- */

/* The table of arms. */
static inline void terminal_arms(const Terminal *t, const Arms *arms) {
    int width[ARM_FIGURES], total = 2;
    char text[FORMAT_SIZE];
    for (int f = 0; f < ARM_FIGURES; f++) {
        if (!arm_figure_shown(arms, (ArmFigure)f)) continue;
        width[f] = text_columns(arm_figures[f].title);
        for (int k = 0; k < arms->count; k++) {
            const int columns = text_columns(arm_figure_text(arms, k, (ArmFigure)f, text));
            if (columns > width[f]) width[f] = columns;
        }
        total += width[f] + (f ? 2 : 0);
    }
    if (total > TERM_WIDTH) width[ARM_NAME] -= total - TERM_WIDTH;
    if (width[ARM_NAME] < 3) width[ARM_NAME] = 3;
    for (int k = -1; k < arms->count; k++) {
        if (k >= 0) terminal_paint(t, k, true);
        printf("%s ", k < 0 ? " " : terminal_mark(t, k));
        if (k >= 0) terminal_paint(t, k, false);
        for (int f = 0; f < ARM_FIGURES; f++) {
            if (!arm_figure_shown(arms, (ArmFigure)f)) continue;
            const char *cell = k < 0 ? arm_figures[f].title : arm_figure_text(arms, k, (ArmFigure)f, text);
            printf("%s", f ? "  " : "");
            if (f == ARM_NAME)
                terminal_name(cell, width[f]);
            else
                print_fitted(cell, width[f], true);
        }
        printf("\n");
    }
}

/* The ArmSee of the terminal: a paragraph. */
static inline void terminal_sentence(void *context, const char *sentence) {
    (void)context;
    printf("  ");
    options_print_wrapped(sentence, 2);
}

static inline void terminal_table(const Terminal *t, const Run *runs, int count) {
    int width[FIGURE_COUNT];
    char text[FORMAT_SIZE];
    terminal_widths(runs, count, width);
    printf("  ");
    for (int f = 0; f < FIGURE_COUNT; f++) {
        if (!width[f]) continue;
        printf("%s", f ? "  " : "");
        print_fitted(figures[f].title, width[f], f >= FIGURE_PARAMETERS);
    }
    printf("\n");
    for (int r = 0; r < count; r++) {
        terminal_paint(t, r, true);
        printf("%s ", terminal_mark(t, r));
        terminal_paint(t, r, false);
        terminal_name(runs[r].name, width[FIGURE_NAME]);
        for (int f = FIGURE_NAME + 1; f < FIGURE_COUNT; f++) {
            if (!width[f]) continue;
            printf("  ");
            print_fitted(figure_text(&runs[r], (Figure)f, text), width[f], f >= FIGURE_PARAMETERS);
        }
        printf("\n");
    }
}

/* ---- the curves ---- */

/* The characters inside the frame of a plot. */
typedef struct {
    unsigned char dots[TERM_ROWS][TERM_COLUMNS]; /* 2 x 4 dots in each, as bits of a braille character */
    signed char owner
        [TERM_ROWS]
        [TERM_COLUMNS]; /* the run that drew there last; -1: none, -2: the line of --floor, -3 - i: mark i */
    bool mark[TERM_ROWS][TERM_COLUMNS]; /* the mark of the run instead of its dots */
} Canvas;

/* Sets a dot, for a run or -2. */
static inline void canvas_dot(Canvas *c, int x, int y, int run) {
    static const unsigned char bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    if (x < 0 || y < 0 || x >= 2 * TERM_COLUMNS || y >= 4 * TERM_ROWS) return;
    c->dots[y / 4][x / 2] |= bits[y % 4][x % 2];
    if (!c->mark[y / 4][x / 2]) c->owner[y / 4][x / 2] = (signed char)run;
}

/* The dot column of a step, and the dot row of a value. */
static inline int canvas_x(const Plot *p, int run, double x) {
    return (int)lrint(axis_place(&p->x, x * p->x_scale[run]) * (2 * TERM_COLUMNS - 1));
}

static inline int canvas_y(const Plot *p, double y) {
    /* a value far outside of the frame is moved to just outside, so that lines to it are short */
    double place = fmax(-1, fmin(2, axis_place(&p->y, y)));
    return (int)lrint((1 - place) * (4 * TERM_ROWS - 1));
}

static inline void canvas_line(Canvas *c, int x0, int y0, int x1, int y1, int run) {
    int steps = abs(x1 - x0) > abs(y1 - y0) ? abs(x1 - x0) : abs(y1 - y0);
    for (int i = 0; i <= steps; i++) {
        double part = steps ? (double)i / steps : 0;
        canvas_dot(c, (int)lrint(x0 + part * (x1 - x0)), (int)lrint(y0 + part * (y1 - y0)), run);
    }
}

/* The row of characters in which the curve of a run crosses a column; -1: it does not, or outside of the frame. */
static inline int canvas_row_at(const Plot *p, int run, int column) {
    const Series *s = &p->curves[run];
    double x = (2 * column + 0.5) / (2 * TERM_COLUMNS - 1) * p->x.high / p->x_scale[run];
    for (int64_t i = 1; i < s->count; i++) {
        if (s->x[i] < x || s->x[i - 1] > x || !isfinite(s->y[i]) || !isfinite(s->y[i - 1])) continue;
        double part = (x - s->x[i - 1]) / (s->x[i] - s->x[i - 1]);
        int y = canvas_y(p, s->y[i - 1] + part * (s->y[i] - s->y[i - 1]));
        return y < 0 || y >= 4 * TERM_ROWS ? -1 : y / 4;
    }
    return -1;
}

/* Bars from the lower to the higher end of a band: at every point of it, or at about twelve of them. The bars of
   different curves stand beside each other. */
static inline void canvas_bars(Canvas *c, const Plot *p, int run) {
    const Series *low = &p->low[run], *high = &p->high[run];
    const int64_t every = (low->count + 11) / 12;
    for (int64_t i = low->count - 1; i >= 0 && every > 0; i -= every) {
        if (!isfinite(low->y[i]) || !isfinite(high->y[i])) continue;
        int x = canvas_x(p, run, low->x[i]) + 2 * run - p->count + 1;
        if (x > 2 * TERM_COLUMNS - 1) x = 2 * TERM_COLUMNS - 1;
        canvas_line(c, x, canvas_y(p, low->y[i]), x, canvas_y(p, high->y[i]), run);
    }
}

/* Draws all curves and their marks. */
static inline void canvas_draw(Canvas *c, const Plot *p) {
    memset(c, 0, sizeof *c);
    memset(c->owner, -1, sizeof c->owner);
    if (isfinite(p->floor))
        for (int x = 0; x < 2 * TERM_COLUMNS; x += 3) canvas_dot(c, x, canvas_y(p, p->floor), -2);
    for (int r = 0; r < p->count; r++) canvas_bars(c, p, r);
    for (int r = 0; r < p->count; r++) {
        const Series *s = &p->curves[r];
        for (int64_t i = 0; i < s->count; i++) {
            if (!isfinite(s->y[i])) continue;
            int64_t from = i > 0 && isfinite(s->y[i - 1]) ? i - 1 : i;
            canvas_line(c, canvas_x(p, r, s->x[from]), canvas_y(p, s->y[from]), canvas_x(p, r, s->x[i]),
                        canvas_y(p, s->y[i]), r);
        }
    }
    /* each run has its marks in columns of its own, so that curves on top of each other can both be seen */
    for (int r = 0; r < p->count && p->points; r++)
        for (int64_t i = 0; i < p->points[r].count; i++) {
            const int x = canvas_x(p, r, p->points[r].x[i]) / 2, y = canvas_y(p, p->points[r].y[i]) / 4;
            if (x >= 0 && x < TERM_COLUMNS && y >= 0 && y < TERM_ROWS)
                c->mark[y][x] = true, c->owner[y][x] = (signed char)r;
        }
    if (p->points) return;
    int period = p->count > 3 ? 3 * p->count : 10;
    for (int r = 0; r < p->count; r++)
        for (int column = 2 + r * period / p->count; column < TERM_COLUMNS; column += period) {
            int row = canvas_row_at(p, r, column);
            if (row >= 0) c->mark[row][column] = true, c->owner[row][column] = (signed char)r;
        }
}

/* Puts the digit of each mark where it belongs, or left of the digits that are there. */
static inline void canvas_put_marks(Canvas *c, const Plot *p) {
    for (int i = 0; i < plot_marks(p); i++) {
        const Mark *mark = &report_marks.at[i];
        const int x = (int)lrint(axis_place(&p->x, plot_mark_x(p, mark)) * (2 * TERM_COLUMNS - 1));
        signed char *row = c->owner[canvas_y(p, mark->loss) / 4];
        int column = x / 2;
        while (column > 0 && row[column] <= -3) column--;
        row[column] = (signed char)(-3 - i);
    }
}

/* What the digits in the plot stand for. */
static inline void terminal_marks(const Plot *p) {
    char step[FORMAT_SIZE];
    for (int i = 0; i < plot_marks(p); i++)
        printf("  %d  %.3f at step %s: %s\n", i + 1, report_marks.at[i].loss,
               count_grouped(step, report_marks.at[i].step), report_marks.at[i].label);
}

static inline void canvas_print_cell(const Terminal *t, const Canvas *c, int row, int column) {
    int owner = c->owner[row][column], dots = c->dots[row][column];
    if (owner == -1 || owner <= -3) {
        putchar(owner == -1 ? ' ' : '1' - 3 - owner);
        return;
    }
    if (owner >= 0) terminal_paint(t, owner, true);
    if (c->mark[row][column])
        printf("%s", terminal_mark(t, owner));
    else if (t->utf8)
        printf("%c%c%c", 0xE2, 0xA0 | dots >> 6, 0x80 | (dots & 0x3F)); /* U+2800 + dots */
    else
        putchar(owner == -2 ? '-' : '.');
    if (owner >= 0) terminal_paint(t, owner, false);
}

/* rows[row] is the run whose label stands at the right of that row, p->count for --floor, -1 for none. */
static inline void terminal_labels(const Plot *p, int rows[TERM_ROWS]) {
    double places[PLOT_RUNS_MAX + 1];
    int who[PLOT_RUNS_MAX + 1], n = plot_end_places(p, 1.0 / (TERM_ROWS - 1), places, who);
    for (int row = 0; row < TERM_ROWS; row++) rows[row] = -1;
    for (int i = 0; i < n; i++) {
        int row =
            (int)lrint((1 - places[i]) * (4 * TERM_ROWS - 1)) / 4; /* the same rounding as in canvas_y */
        row = row < 0 ? 0 : row >= TERM_ROWS ? TERM_ROWS - 1 : row;
        while (row < TERM_ROWS - 1 && rows[row] >= 0) row++;
        if (rows[row] < 0) rows[row] = who[i];
    }
}

enum { TERM_LABEL = TERM_WIDTH - TERM_LEFT - TERM_COLUMNS - 4 }; /* columns of a label after its mark */

/* The label of a run, with or without its name, or of --floor. */
static inline void terminal_print_label(const Terminal *t, const Plot *p, int label, bool named) {
    char value[FORMAT_SIZE];
    if (label == p->count) {
        printf(" %-.3f floor", p->floor);
        return;
    }
    terminal_paint(t, label, true);
    printf(" %s %s%s%s", terminal_mark(t, label), plot_end_text(p, label, value), named ? " " : "",
           named ? p->runs[label].name : "");
    terminal_paint(t, label, false);
}

/* The marks and names of the runs, for a plot at whose curves they do not fit. */
static inline void terminal_legend(const Terminal *t, const Plot *p) {
    int column = 0;
    for (int r = 0; r < p->count; r++) {
        const char *name = p->runs[r].name;
        const int columns = text_columns(name) + 4;
        if (column && column + columns > TERM_WIDTH) printf("\n"), column = 0;
        printf("  ");
        terminal_paint(t, r, true);
        printf("%s ", terminal_mark(t, r));
        terminal_paint(t, r, false);
        for (int n; text_columns(name) > TERM_WIDTH - 4; name += n)
            n = text_prefix(name, TERM_WIDTH - 4), printf("%.*s\n    ", n, name);
        printf("%s", name);
        column += columns;
    }
    printf("\n");
}

/* The line below the frame, and the numbers of the x axis. */
static inline void terminal_x_axis(const Terminal *t, const Plot *p) {
    char text[FORMAT_SIZE];
    char axis[TERM_COLUMNS + 32], *line = axis;
    memset(axis, ' ', sizeof axis);
    bool tick_at[TERM_COLUMNS] = {false};
    int free_from = 0;
    for (int i = 0; i < p->x.tick_count; i++) {
        int column = (int)lrint(axis_place(&p->x, p->x.ticks[i]) * (TERM_COLUMNS - 1));
        tick_at[column] = true;
        int n = (int)strlen(axis_label(&p->x, p->x.ticks[i], text)), start = column - n / 2;
        if (start < free_from) start = free_from;
        if (start > column || start + n > TERM_COLUMNS + 8) continue;
        memcpy(line + start, text, (size_t)n);
        free_from = start + n + 1;
    }
    line[free_from] = 0;
    printf("%*s%s", TERM_LEFT - 1, "", t->utf8 ? "└" : "+");
    for (int column = 0; column < TERM_COLUMNS; column++)
        printf("%s", t->utf8 ? (tick_at[column] ? "┴" : "─") : tick_at[column] ? "+" : "-");
    printf("\n%*s%s%s\n", TERM_LEFT, "", line, plot_x_title(p));
}

static inline void terminal_plot(const Terminal *t, const Plot *p) {
    static Canvas canvas;
    int labels[TERM_ROWS];
    char text[FORMAT_SIZE], note[PLOT_NOTE_SIZE];
    canvas_draw(&canvas, p);
    canvas_put_marks(&canvas, p);
    terminal_labels(p, labels);
    const bool named = plot_names_fit(p, TERM_LABEL);
    const int columns = printf("\n  %s%s", p->title, p->kind == PLOT_TRAINING ? ", smoothed" : "") - 1;
    if (*plot_band_note(p, "bars", note))
        printf("%s%s", columns + 2 + (int)strlen(note) > TERM_WIDTH ? ";\n  " : "; ", note);
    printf("\n");
    if (!named) terminal_legend(t, p);
    for (int row = 0; row < TERM_ROWS; row++) {
        const char *label = "";
        for (int i = 0; i < p->y.tick_count; i++)
            if ((int)lrint((1 - axis_place(&p->y, p->y.ticks[i])) * (4 * TERM_ROWS - 1)) / 4 == row)
                label = axis_label(&p->y, p->y.ticks[i], text);
        printf("%*s %s", TERM_LEFT - 2, label, t->utf8 ? (*label ? "┤" : "│") : *label ? "+" : "|");
        int end = TERM_COLUMNS;
        if (labels[row] < 0)
            while (end > 0 && canvas.owner[row][end - 1] == -1) end--; /* no blanks at the end of the line */
        for (int column = 0; column < end; column++) canvas_print_cell(t, &canvas, row, column);
        if (labels[row] >= 0) terminal_print_label(t, p, labels[row], named);
        printf("\n");
    }
    terminal_x_axis(t, p);
    terminal_marks(p);
}

/* The plot of one kind, if there is anything to draw. */
static inline void terminal_curves(const Terminal *t, PlotKind kind, const Run *runs, int count,
                                   double floor) {
    Plot plot;
    const PlotCurves curves = plot_curves(kind, runs, count);
    plot_begin(&plot, kind, runs, &curves, count, floor, 5, 5);
    if (plot_has_numbers(&plot)) terminal_plot(t, &plot);
    plot_curves_free(curves, count);
}

/* Of two runs: which one ends with the lower validation loss, at the last step at which both measured it. */
static inline void terminal_verdict(const Run *runs, int count) {
    double step, difference = runs_final_difference(runs, count, &step);
    if (!isfinite(difference)) return;
    const int lower = difference < 0;
    if (fabs(difference) < VERDICT_EVEN)
        printf("\n  %s and %s end even in validation loss (step %.0f).\n", runs[0].name, runs[1].name, step);
    else
        printf("\n  %s ends %.4f nats below %s in validation loss (step %.0f).\n", runs[lower].name,
               fabs(difference), runs[!lower].name, step);
    printf("  One run each cannot tell a difference from that of two seeds.\n");
}

static inline void terminal_show(const Terminal *t, const Run *runs, int count, const Arms *arms,
                                 double floor) {
    const Run *drawn = arms ? arms->means : runs;
    const int drawn_count = arms ? arms->count : count;
    if (arms)
        terminal_arms(t, arms);
    else
        terminal_table(t, runs, count);
    terminal_curves(t, PLOT_VALIDATION, drawn, drawn_count, floor);
    terminal_curves(t, PLOT_TRAINING, drawn, drawn_count, floor);
    if (!arms) {
        terminal_verdict(runs, count);
        return;
    }
    printf("\n");
    arms_sentences(arms, terminal_sentence, NULL);
    arms_notes(arms, terminal_sentence, NULL);
}

#endif
