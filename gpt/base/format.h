/* format.h: durations, counts and sizes as people read them. Every program writes them through these functions. Each
   writes into `text`, which has FORMAT_SIZE characters, and returns it. A value that is NaN, or a duration below 0, is
   "-" in a duration.

   duration_clock(text, seconds)   for a column, at most 7 characters: 0:45, 1:23, 1:06:40, 10h05m, 12d03h, 31y252d
   duration_words(text, seconds)   for a sentence: 4.2 s, 45 s, 12 min 05 s, 3 h 20 min, 12 days 3 hours, 31 years 252
                                   days. A year has 365 days
   count_short(text, x)            three digits and a letter: 950, 16.4k, 4.53M, 301M, 1.20B for 1.2 billion
   count_fixed(text, x, decimals, width)   a count with a letter and as many decimals as asked for and as fit into
                                   `width` characters (0: there is no limit): 42.4k, 148.5k
   count_grouped(text, x)          every digit: 1,234,567
   number_fixed(text, x, decimals, width, unit)   a number and its unit, with as many decimals as asked for and as fit
                                   into `width` characters (0: there is no limit): 45.2%. A number that does not fit
                                   even without decimals gets an exponent
   bytes_short(text, x)            33 MiB, 1.20 GiB */
#ifndef GPT_BASE_FORMAT_H
#define GPT_BASE_FORMAT_H

#include <math.h>
#include <stdio.h>

enum { FORMAT_SIZE = 64 };
static const long DURATION_DAY = 86400, DURATION_YEAR = 365 * 86400L;

/* A duration rounded to whole seconds, at most 9,999 years; -1 for a NaN and for a duration below 0. */
static inline long duration_whole(double seconds) {
    const double most = 9999.0 * 365 * 86400;
    if (!(seconds >= 0)) return -1;
    return (long)((seconds < most ? seconds : most) + 0.5);
}

static inline const char *duration_clock(char text[FORMAT_SIZE], double seconds) {
    const long s = duration_whole(seconds);
    if (s < 0)
        snprintf(text, FORMAT_SIZE, "-");
    else if (s < 3600)
        snprintf(text, FORMAT_SIZE, "%ld:%02ld", s / 60, s % 60);
    else if (s < 10 * 3600)
        snprintf(text, FORMAT_SIZE, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else if (s < 100 * 3600)
        snprintf(text, FORMAT_SIZE, "%ldh%02ldm", s / 3600, s / 60 % 60);
    else if (s < DURATION_YEAR)
        snprintf(text, FORMAT_SIZE, "%ldd%02ldh", s / DURATION_DAY, s / 3600 % 24);
    else if (s < 100 * DURATION_YEAR)
        snprintf(text, FORMAT_SIZE, "%ldy%03ldd", s / DURATION_YEAR, s % DURATION_YEAR / DURATION_DAY);
    else
        snprintf(text, FORMAT_SIZE, "%ldy", s / DURATION_YEAR);
    return text;
}

static inline const char *duration_words(char text[FORMAT_SIZE], double seconds) {
    const long s = duration_whole(seconds), days = s / DURATION_DAY, years = days / 365;
    if (s < 0)
        snprintf(text, FORMAT_SIZE, "-");
    else if (seconds < 9.95)
        snprintf(text, FORMAT_SIZE, "%.1f s", seconds);
    else if (s < 60)
        snprintf(text, FORMAT_SIZE, "%ld s", s);
    else if (s < 3600)
        snprintf(text, FORMAT_SIZE, "%ld min %02ld s", s / 60, s % 60);
    else if (s < 2 * DURATION_DAY)
        snprintf(text, FORMAT_SIZE, "%ld h %02ld min", s / 3600, s / 60 % 60);
    else if (years == 0)
        snprintf(text, FORMAT_SIZE, "%ld days %ld hour%s", days, s / 3600 % 24,
                 s / 3600 % 24 == 1 ? "" : "s");
    else
        snprintf(text, FORMAT_SIZE, "%ld year%s %ld day%s", years, years == 1 ? "" : "s", days % 365,
                 days % 365 == 1 ? "" : "s");
    return text;
}

/* Divides *x by 1000 until its magnitude is below `limit` or there is no larger unit. Returns the letter of the unit.
   */
static inline const char *count_unit(double *x, double limit) {
    static const char *const units[] = {"", "k", "M", "B", "T"};
    size_t unit = 0;
    while (fabs(*x) >= limit && unit + 1 < sizeof units / sizeof *units) *x /= 1000, unit++;
    return units[unit];
}

/* A number of more than 15 digits, which no count has, gets an exponent. */
static inline const char *count_short(char text[FORMAT_SIZE], double x) {
    if (!(fabs(x) < 1e15)) return snprintf(text, FORMAT_SIZE, "%.3g", x), text;
    const char *unit = count_unit(&x, 999.5);
    const int decimals = !*unit || fabs(x) >= 99.95 ? 0 : fabs(x) >= 9.995 ? 1 : 2;
    snprintf(text, FORMAT_SIZE, "%.*f%s", decimals, x, unit);
    return text;
}

static inline const char *number_fixed(char text[FORMAT_SIZE], double x, int decimals, int width,
                                       const char *unit) {
    const int room = width > 0 ? width : FORMAT_SIZE - 1;
    for (; decimals >= 0; decimals--)
        if (snprintf(text, FORMAT_SIZE, "%.*f%s", decimals, x, unit) <= room) return text;
    snprintf(text, FORMAT_SIZE, "%.0e%s", x, unit);
    return text;
}

/* A count from 10 to 999 has no decimals. */
static inline const char *count_fixed(char text[FORMAT_SIZE], double x, int decimals, int width) {
    const char *unit = count_unit(&x, 999.95);
    return number_fixed(text, x, *unit || fabs(x) < 10 ? decimals : 0, width, unit);
}

/* A number of more than 15 digits gets an exponent. */
static inline const char *count_grouped(char text[FORMAT_SIZE], double x) {
    char digits[32];
    if (!(fabs(x) < 1e15)) return snprintf(text, FORMAT_SIZE, "%.4g", x), text;
    int n = snprintf(digits, sizeof digits, "%.0f", fabs(x)), at = 0;
    if (x < 0) text[at++] = '-';
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = 0;
    return text;
}

static inline const char *bytes_short(char text[FORMAT_SIZE], double bytes) {
    const double mib = bytes / (1024.0 * 1024), gib = mib / 1024;
    if (!(bytes >= 0 && gib < 1e6))
        snprintf(text, FORMAT_SIZE, "%.3g GiB", gib);
    else if (gib >= 1)
        snprintf(text, FORMAT_SIZE, "%.2f GiB", gib);
    else
        snprintf(text, FORMAT_SIZE, "%.0f MiB", mib);
    return text;
}

#endif
