/* report_expect.h: a table of expected validation losses, made from finished runs with several seeds, and the comparison
   of a run with it.

   expect_write(path, arms)            writes the table; dies unless the runs make one arm (report_arms.h) of at least two
                                       seeds
   expect_compare(path, runs, count)   prints for each row whether each run is within the spread; false when one is not

   The file is a table of comma-separated values: step, mean, spread, and the number of runs, which is not needed. Lines
   that begin with # are comments. A row says that the validation loss after `step` steps should lie from mean - spread to
   mean + spread. expect_write takes for the spread t(0.975, n - 1) s sqrt(1 + 1/n): 95 of 100 further runs with other
   seeds lie within it, if losses of seeds are normally distributed. */
#ifndef TOOLS_REPORT_EXPECT_H
#define TOOLS_REPORT_EXPECT_H

#include "report_arms.h"

typedef struct {
    double step, mean, spread;
} ExpectRow;

static inline void expect_write(const char *path, const Arms *arms) {
    if (arms->count == 0) die("none of the runs is finished: there is no loss to expect; name finished runs");
    if (arms->count > 1)
        die("the runs differ in more than their seed (%s; %s): name runs of one kind", arms->means[0].name,
            arms->means[1].name);
    const int n = arms->arms[0].count;
    if (n < 2) die("one seed has no spread: name finished runs with two or more seeds");
    const Run *mean = &arms->means[0];
    const Series *losses = &mean->curves[CURVE_VALIDATION], *high = &mean->high[CURVE_VALIDATION];
    FILE *f = check_fopen(path, "w", "name a file in a folder that exists: --write-expect=FILE");
    fprintf(f,
            "# Validation losses: the mean of %d runs that differ in their seed. 95 of 100 further runs lie "
            "within "
            "mean +- spread.\nstep,mean,spread,runs\n",
            n);
    for (int64_t i = 0; i < losses->count; i++)
        if (isfinite(losses->y[i]))
            fprintf(f, "%.0f,%.6f,%.6f,%d\n", losses->x[i], losses->y[i],
                    stat_prediction(high->y[i] - losses->y[i], n), n);
    check_fclose(f, path);
}

/* Reads a line into a row; false when it is not one. */
static inline bool expect_read_row(const char *line, ExpectRow *row) {
    double *const values[] = {&row->step, &row->mean, &row->spread};
    for (int i = 0; i < 3; i++) {
        char *end;
        *values[i] = strtod(line, &end);
        if (end == line || !isfinite(*values[i])) return false;
        end += strspn(end, " \t\r");
        if (i < 2 && *end != ',') return false;
        if (i == 2 && *end && *end != ',') return false;
        line = end + 1;
    }
    return row->step >= 0 && row->spread >= 0;
}

/* The rows of a file; the caller frees them. */
static inline ExpectRow *expect_read(const char *path, int *count) {
    char error[FILE_ERROR_SIZE];
    size_t size, room = 0, number = 0;
    char *text = file_read(path, FILE_REGULAR, 1 << 24, &size, error), *rest = text;
    if (!text) die("--expect: %s; ./report --write-expect=FILE writes such a file", error);
    ExpectRow *rows = NULL;
    *count = 0;
    for (char *line; (line = strsep(&rest, "\n"));) {
        ExpectRow row;
        number++;
        line += strspn(line, " \t\r");
        if (!*line || *line == '#' || (*count == 0 && strncmp(line, "step", 4) == 0)) continue;
        if (!expect_read_row(line, &row))
            die("%s:%zu is not a row of expected losses: '%.40s'; expected three numbers, step,mean,spread",
                path, number, line);
        rows = check_grow(rows, &room, (size_t)*count + 1, sizeof *rows);
        rows[(*count)++] = row;
    }
    free(text);
    if (*count == 0)
        die("%s has no row of expected losses; expected lines of three numbers, step,mean,spread", path);
    return rows;
}

/* Prints the rows for one run; returns in how many of them it is within the spread. */
static inline int expect_compare_run(const ExpectRow *rows, int count, const Run *run) {
    int64_t at = 0;
    int within = 0;
    printf("  %s\n  %10s  %10s  %10s  %10s  %10s\n", run->name, "step", "expected", "spread", "loss",
           "difference");
    for (int i = 0; i < count; i++) {
        const ExpectRow *row = &rows[i];
        if (i > 0 && row->step < rows[i - 1].step) at = 0;
        const double loss = series_at(&run->curves[CURVE_VALIDATION], row->step, &at), off = loss - row->mean;
        const bool fits = fabs(off) <= row->spread;
        char text[2][FORMAT_SIZE];
        printf("  %10.0f  %10.4f  %10.4f  %10s  %10s  %s\n", row->step, row->mean, row->spread,
               arm_number(text[0], "%.4f", loss), arm_number(text[1], "%+.4f", off),
               fits             ? "within"
               : isfinite(loss) ? off > 0 ? "ABOVE the spread" : "BELOW the spread"
                                : "NOT MEASURED");
        within += fits;
    }
    printf("  %d of %d losses are within the spread.\n", within, count);
    return within;
}

static inline bool expect_compare(const char *path, const Run *runs, int count) {
    int rows;
    bool all = true;
    ExpectRow *expected = expect_read(path, &rows);
    for (int r = 0; r < count; r++) {
        if (r) printf("\n");
        all = expect_compare_run(expected, rows, &runs[r]) == rows && all;
    }
    free(expected);
    return all;
}

#endif
