/* course_study.h: the numbers and pictures of chapters 14 and 15 of docs/course, which compare the runs that are listed in
   docs/study_runs.csv. tools/course.c has the table of all topics. */
#ifndef TOOLS_COURSE_STUDY_H
#define TOOLS_COURSE_STUDY_H

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "course_svg.h"

/* -------------------------------------------------------------------------------------- 14. experiment ---- */

/* The quantile 0.975 of Student's t distribution with 1 ... 8 degrees of freedom. */
static const double student[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306};

typedef struct {
    const char *size, *standard_lr, *laser_lr; /* of the runs in docs/study_runs.csv that are compared */
    int pairs;                                 /* seeds 1 ... pairs */
    double standard[8], with_laser[8];         /* final validation losses, by seed */
    double mean, half, half_unpaired; /* of LASER minus standard, and half the width of its 95 % intervals */
} Comparison;

static Comparison comparisons[] = {
    {.size = "A", .standard_lr = "0.004", .laser_lr = "0.008", .pairs = 5},
    {.size = "B", .standard_lr = "0.002", .laser_lr = "0.004", .pairs = 3},
    {.size = "C", .standard_lr = "0.002", .laser_lr = "0.002", .pairs = 3},
};

static double mean_of(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += x[i] / n;
    return sum;
}
static double variance_of(const double *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++) sum += (x[i] - mean_of(x, n)) * (x[i] - mean_of(x, n)) / (n - 1);
    return sum;
}

static void compare(Comparison *c) {
    double difference[8];
    const int n = c->pairs;
    for (int i = 0; i < n; i++) difference[i] = c->with_laser[i] - c->standard[i];
    c->mean = mean_of(difference, n);
    c->half = student[n - 2] * sqrt(variance_of(difference, n) / n);
    c->half_unpaired =
        student[2 * n - 3] * sqrt((variance_of(c->standard, n) + variance_of(c->with_laser, n)) / n);
}

static void read_study(void) {
    char line[256], size[8], kind[16], rate[16];
    int run_seed;
    double loss;
    FILE *file = fopen("docs/study_runs.csv", "r");
    if (!file) {
        fprintf(stderr, "error: cannot read docs/study_runs.csv; run this in the folder of the repository\n");
        exit(1);
    }
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "%7[^,],%15[^,],%15[^,],%d,%*d,%*d,%lf", size, kind, rate, &run_seed, &loss) != 5)
            continue;
        for (int i = 0; i < 3; i++) {
            Comparison *c = &comparisons[i];
            const int is_laser = strcmp(kind, "laser") == 0;
            if (strcmp(size, c->size) != 0 || run_seed < 1 || run_seed > c->pairs ||
                strcmp(rate, is_laser ? c->laser_lr : c->standard_lr) != 0)
                continue;
            (is_laser ? c->with_laser : c->standard)[run_seed - 1] = loss;
        }
    }
    fclose(file);
    for (int i = 0; i < 3; i++) compare(&comparisons[i]);
}

static void experiment_numbers(void) {
    read_study();
    for (int i = 0; i < 3; i++) {
        const Comparison *c = &comparisons[i];
        printf("size %s, learning rates %s and %s\n", c->size, c->standard_lr, c->laser_lr);
        printf("   seed   standard      LASER   difference\n");
        for (int n = 0; n < c->pairs; n++)
            printf("%7d %10.4f %10.4f %12.4f\n", n + 1, c->standard[n], c->with_laser[n],
                   c->with_laser[n] - c->standard[n]);
        printf(
            "   mean difference %.4f; 95 %% interval as pairs: %.4f to %.4f; without pairing: %.4f to %.4f\n",
            c->mean, c->mean - c->half, c->mean + c->half, c->mean - c->half_unpaired,
            c->mean + c->half_unpaired);
    }
}

static void experiment_picture(void) {
    enum { TOP = 50, BOTTOM = 260, ROW = 70, ZERO = 420, SCALE = 1500 };
    read_study();
    svg_begin(640, BOTTOM + 60);
    svg_text(20, 24, "start", "LASER minus standard, validation loss: each pair, and 95 % intervals");
    for (int tick = -4; tick <= 1; tick++) {
        const double x = ZERO + SCALE * tick * 0.05;
        svg_line(x, TOP - 10, x, BOTTOM, tick ? grey : black);
        svg_text(x, BOTTOM + 20, "middle", label("%.2f", tick * 0.05));
    }
    for (int i = 0; i < 3; i++) {
        const Comparison *c = &comparisons[i];
        const double y = TOP + ROW * i, mean = ZERO + SCALE * c->mean, half = SCALE * c->half,
                     half_unpaired = SCALE * c->half_unpaired;
        svg_text(10, y + 24, "start", label(i == 1 ? "%s (wrong rate)" : "%s", c->size));
        svg_box(mean - half, y + 6, 2 * half, 16, blue, 0.5);
        svg_box(mean - half_unpaired, y + 30, 2 * half_unpaired, 8, "#666", 0.4);
        for (int n = 0; n < c->pairs; n++)
            svg_box(ZERO + SCALE * (c->with_laser[n] - c->standard[n]) - 2, y + 8, 4, 12, red, 0.9);
    }
    svg_text(20, BOTTOM + 46, "start", "red: a pair; blue: the interval of pairs; grey: without pairing");
}

/* ---------------------------------------------------------------------------------- 15. scaling laws ---- */

static const double scaling_sizes[] = {1311872, 3443136, 11146560};

/* The mean final losses of the study at its three sizes, of the best learning rate of each kind. */
static void scaling_losses(double losses[3], int of_laser) {
    read_study();
    for (int i = 0; i < 3; i++) {
        const Comparison *c = &comparisons[i];
        losses[i] = mean_of(of_laser ? c->with_laser : c->standard, c->pairs);
    }
    if (!of_laser) losses[1] = 3.055498204130345; /* of the one run with the better rate, see chapter 14 */
}

/* L = a + b N^-c through three points (N, L). (L0 - L1) / (L1 - L2) does not depend on a and b, which gives c. */
typedef struct {
    double a, b, c;
} PowerLaw;

static PowerLaw scaling_fit(const double losses[3]) {
    const double want = (losses[0] - losses[1]) / (losses[1] - losses[2]), *n = scaling_sizes;
    double low = 1e-3, high = 5;
    for (int i = 0; i < 100; i++) { /* the quotient grows with c */
        const double c = (low + high) / 2;
        const double quotient = (pow(n[0], -c) - pow(n[1], -c)) / (pow(n[1], -c) - pow(n[2], -c));
        if (quotient < want)
            low = c;
        else
            high = c;
    }
    PowerLaw law = {.c = low};
    law.b = (losses[0] - losses[2]) / (pow(n[0], -law.c) - pow(n[2], -law.c));
    law.a = losses[2] - law.b * pow(n[2], -law.c);
    return law;
}

static double scaling_loss(const PowerLaw *law, double n) { return law->a + law->b * pow(n, -law->c); }

static void scaling_numbers(void) {
    printf("kind       loss of C        a          b       c   predicted for 33 million   for 100 million\n");
    for (int kind = 0; kind < 2; kind++)
        for (int shift = -1; shift <= 1; shift++) {
            double losses[3];
            scaling_losses(losses, kind);
            losses[2] += 0.02 * shift;
            const PowerLaw law = scaling_fit(losses);
            printf("%-9s %10.4f %8.3f %10.3g %7.3f %26.3f %17.3f\n", kind ? "LASER" : "standard", losses[2],
                   law.a, law.b, law.c, scaling_loss(&law, 33e6), scaling_loss(&law, 100e6));
        }
}

static void scaling_picture(void) {
    double losses[3];
    chart_begin(
        (Chart){60, 440, 260, {6, 9}, {2, 4}},
        "final validation loss; the curve through it, and the curves if the last point moves by 0.02");
    for (int tick = 0; tick <= 4; tick++) chart_row(4 - 0.5 * tick, grey, label("%.1f", 4 - 0.5 * tick));
    for (int power = 6; power <= 9; power++) chart_column(power, label("1e%d", power));
    for (int shift = -1; shift <= 1; shift++) {
        scaling_losses(losses, 0);
        losses[2] += 0.02 * shift;
        const PowerLaw law = scaling_fit(losses);
        curve_begin(shift ? grey : blue);
        for (int i = 0; i <= 60; i++) {
            const double power = 6.1 + 2.9 * i / 60;
            curve_point(power, scaling_loss(&law, pow(10, power)));
        }
        curve_end();
    }
    scaling_losses(losses, 0);
    for (int i = 0; i < 3; i++)
        svg_box(chart_x(log10(scaling_sizes[i])) - 4, chart_y(losses[i]) - 4, 8, 8, red, 1);
    chart_caption("parameters (standard attention)");
}

#endif
