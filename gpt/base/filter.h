/* filter.h: --filter=WORD[,WORD...] of the tests and benchmarks. C and C++. */
#ifndef GPT_BASE_FILTER_H
#define GPT_BASE_FILTER_H

#include <stdbool.h>
#include <string.h>

/* Whether `name` contains one of the words, which are separated by commas. An empty filter takes every name. */
static inline bool filter_takes(const char *filter, const char *name) {
    for (const char *word = filter; *word; word += *word == ',') {
        const size_t length = strcspn(word, ",");
        for (const char *at = name; length && *at; at++)
            if (strncmp(at, word, length) == 0) return true;
        word += length;
    }
    return !*filter;
}

#endif
