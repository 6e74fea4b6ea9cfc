/* filter.h: the names that a --filter=TEXT[,TEXT...] of tests and benchmarks asks for. C and C++. */
#ifndef GPT_FILTER_H
#define GPT_FILTER_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Whether the name contains one of the words, which stand between commas. */
static inline bool filter_takes(const char *filter, const char *name) {
    char word[128];
    do {
        snprintf(word, sizeof word, "%.*s", (int)strcspn(filter, ","), filter);
        if (strstr(name, word)) return true;
        filter += strcspn(filter, ",");
    } while (*filter++);
    return false;
}

#endif
