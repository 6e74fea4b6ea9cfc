/* duration.h: seconds as people read them; every program shows times through these two.

   duration_clock(text, seconds)   for a column: 0:45, 1:23, 1:06:40, 12d03h, 31y252d; at most 7 characters; 10h05m from ten hours on
   duration_words(text, seconds)   for a sentence: 4.2 s, 45 s, 12 min 05 s, 3 h 20 min, 12 days 3 hours, 31 years 252 days
   Both return text. A year has 365 days. What is no number, or below 0, is "-". */
#ifndef GPT_BASE_DURATION_H
#define GPT_BASE_DURATION_H

#include <stdio.h>

enum { DURATION_SIZE = 64 };
static const long DURATION_DAY = 86400, DURATION_YEAR = 365 * 86400L;

/* Whole seconds, -1 for what is none; at most 9,999 years. */
static inline long duration_whole(double seconds) {
    const double most = 9999.0 * 365 * 86400;
    if (!(seconds >= 0)) return -1;
    return (long)((seconds < most ? seconds : most) + 0.5);
}

static inline const char *duration_clock(char text[DURATION_SIZE], double seconds) {
    const long s = duration_whole(seconds);
    if (s < 0)
        snprintf(text, DURATION_SIZE, "-");
    else if (s < 3600)
        snprintf(text, DURATION_SIZE, "%ld:%02ld", s / 60, s % 60);
    else if (s < 10 * 3600)
        snprintf(text, DURATION_SIZE, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
    else if (s < 100 * 3600)
        snprintf(text, DURATION_SIZE, "%ldh%02ldm", s / 3600, s / 60 % 60);
    else if (s < DURATION_YEAR)
        snprintf(text, DURATION_SIZE, "%ldd%02ldh", s / DURATION_DAY, s / 3600 % 24);
    else if (s < 100 * DURATION_YEAR)
        snprintf(text, DURATION_SIZE, "%ldy%03ldd", s / DURATION_YEAR, s % DURATION_YEAR / DURATION_DAY);
    else
        snprintf(text, DURATION_SIZE, "%ldy", s / DURATION_YEAR);
    return text;
}

static inline const char *duration_words(char text[DURATION_SIZE], double seconds) {
    const long s = duration_whole(seconds), days = s / DURATION_DAY, years = days / 365;
    if (s < 0)
        snprintf(text, DURATION_SIZE, "-");
    else if (seconds < 9.95)
        snprintf(text, DURATION_SIZE, "%.1f s", seconds);
    else if (s < 60)
        snprintf(text, DURATION_SIZE, "%ld s", s);
    else if (s < 3600)
        snprintf(text, DURATION_SIZE, "%ld min %02ld s", s / 60, s % 60);
    else if (s < 2 * DURATION_DAY)
        snprintf(text, DURATION_SIZE, "%ld h %02ld min", s / 3600, s / 60 % 60);
    else if (years == 0)
        snprintf(text, DURATION_SIZE, "%ld days %ld hour%s", days, s / 3600 % 24,
                 s / 3600 % 24 == 1 ? "" : "s");
    else
        snprintf(text, DURATION_SIZE, "%ld year%s %ld day%s", years, years == 1 ? "" : "s", days % 365,
                 days % 365 == 1 ? "" : "s");
    return text;
}

#endif
