/* check.h: what the checks of the exercises share. `make exercise-4` compiles exercise_4.c, which is yours to complete,
   with check_4.c. That computes the same in the plainest way (the naive twin), and the gradients also by finite
   differences, and says where your numbers differ.

   check_random(x, n, scale)                 n random numbers between -scale and scale, always the same ones
   check_unwritten(x, n)                     marks an array, so that compare() sees what was never written
   check_differences(gradient, x, n, loss)   the gradient of loss() with respect to x, by central differences
   check_same(got, want, n)                  whether two arrays are equal, up to rounding
   check_array(function, array, got, want, n)
                                             the same, and prints what is wrong
   check_wrong(format, ...)                  prints something else that is wrong
   check_finish(number)                      prints the result; main returns its value */
#ifndef DOCS_COURSE_CHECK_H
#define DOCS_COURSE_CHECK_H

#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { CHECK_ROOM = 4096 };
static const double check_mark = 12345.678; /* in elements that were not written */
static int check_problems;

__attribute__((format(printf, 1, 2))) static inline void check_wrong(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    check_problems++;
}

static inline void check_random(double *x, int n, double scale) {
    static uint64_t state = 1;
    for (int i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = scale * (2.0 * (double)(state >> 11) * 0x1p-53 - 1);
    }
}

static inline void check_unwritten(double *x, int n) {
    for (int i = 0; i < n; i++) x[i] = check_mark;
}

static inline void check_differences(double *gradient, double *x, int n, double (*loss)(void)) {
    for (int i = 0; i < n; i++) {
        const double was = x[i], h = 1e-5;
        x[i] = was + h;
        const double above = loss();
        x[i] = was - h;
        gradient[i] = (above - loss()) / (2 * h);
        x[i] = was;
    }
}

/* The element that differs most, in relation to the largest one of want; -1: all are equal up to rounding. */
static inline int check_worst(const double *got, const double *want, int n) {
    double size = 1e-12, worst = 1e-6;
    int at = -1;
    for (int i = 0; i < n; i++) size = fmax(size, fabs(want[i]));
    for (int i = 0; i < n; i++)
        if (!(fabs(got[i] - want[i]) / size <= worst)) worst = fabs(got[i] - want[i]) / size, at = i;
    return at;
}

static inline bool check_same(const double *got, const double *want, int n) { return check_worst(got, want, n) < 0; }

static inline bool check_array(const char *function, const char *array, const double *got, const double *want, int n) {
    const int at = check_worst(got, want, n);
    int written = 0;
    if (at < 0) return true;
    for (int i = 0; i < n; i++) written += got[i] != check_mark;
    if (written == 0)
        check_wrong("%s() writes nothing to %s yet", function, array);
    else if (got[at] == check_mark)
        check_wrong("%s() does not write %s[%d]", function, array, at);
    else
        check_wrong("%s(): %s[%d] is %.6g, expected %.6g", function, array, at, got[at], want[at]);
    return false;
}

static inline int check_finish(int number) {
    if (check_problems == 0) printf("exercise %d: right\n", number);
    if (check_problems) printf("exercise %d: %d wrong\n", number, check_problems);
    return check_problems != 0;
}

#endif
