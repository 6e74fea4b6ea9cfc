/* system_files.h: single values from the small text files in which Linux describes the machine, under /proc and /sys.
   A file that does not exist, or holds something else, gives "not found": other systems have no such files.

   system_file_numbers(path, numbers)        one or two numbers at the beginning of a file such as "200000 100000"
   system_file_number(path, key)             the number of a line "key number"
   system_file_text(path, key, text, size)   the text of a line "key : text"
   system_file_list_length(path)             how many numbers a list such as "0-1,4" stands for */
#ifndef GPT_BASE_SYSTEM_FILES_H
#define GPT_BASE_SYSTEM_FILES_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* Returns how many of the two numbers were found: 0 for a file that holds a word such as "max". */
static inline int system_file_numbers(const char *path, double numbers[2]) {
    FILE *file = fopen(path, "r");
    int count = file ? fscanf(file, "%lf %lf", &numbers[0], &numbers[1]) : 0;
    if (file) fclose(file);
    return count > 0 ? count : 0;
}

/* 0 when no line has this key. */
static inline double system_file_number(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    char name[64];
    double value = 0, found = 0;
    while (file && fscanf(file, "%63s %lf", name, &value) == 2)
        if (strcmp(name, key) == 0) found = value;
    if (file) fclose(file);
    return found;
}

/* False when no line begins with this key. */
static inline bool system_file_text(const char *path, const char *key, char *text, size_t size) {
    FILE *file = fopen(path, "r");
    char line[512];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = 0;
        snprintf(text, size, "%s", colon);
        found = true;
    }
    if (file) fclose(file);
    return found;
}

static inline int system_file_list_length(const char *path) {
    FILE *file = fopen(path, "r");
    int first, last, count = 0;
    char next;
    while (file && fscanf(file, "%d", &first) == 1) {
        last = first;
        if (fscanf(file, "%c", &next) == 1 && next == '-' && fscanf(file, "%d%c", &last, &next) < 1) break;
        count += last - first + 1;
    }
    if (file) fclose(file);
    return count;
}

#endif
