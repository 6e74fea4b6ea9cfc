/* json.h: what cJSON leaves to its callers: numbers that are read back as the same bits, and texts read to their end.

   Writing
     json_number_text(text, size, x, digits)   x with the fewest of 9, 13, ... `digits` significant digits that read
                                               back as the same number (17 are enough for any double, 9 for any
                                               float); "null" for a NaN or an infinity, which JSON does not have.
                                               Returns the length
     json_add_number(object, key, x)           such a number as a member. (cJSON's own printing rounds:
                                               0.30000000000000004 would be read back as 0.3)
     json_add_sum(object, key, sum)            a 64-bit checksum as a string of 16 hexadecimal digits, because a JSON
                                               number holds 53 bits
     json_print_text(file, text, n)            n bytes as a string with its quotation marks; bytes that are not UTF-8
                                               become U+FFFD, because JSON is UTF-8
   Reading
     json_parse(text, n)             one value, after which only white space may follow. text[n] must be 0. NULL: the
                                     text is not JSON. The caller frees the value with cJSON_Delete
     json_parse_at(text, n, &stop)   the same; `stop` is the number of bytes up to which the text is right
     json_text(object, key)          a member that is a string, owned by the object; NULL: there is none
     json_number(object, key)        a member that is a number; NaN: there is none
     json_whole(item, most, &x)      whether an item is a whole number from 0 to `most` (at most 2^53), which goes to
                                     x
     json_sum(item, &sum)            whether an item is a checksum as json_add_sum writes it, which goes to sum
   `object` and `item` may be NULL, which has no members and is no number. */
#ifndef GPT_IO_JSON_H
#define GPT_IO_JSON_H

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../base/check.h"

static inline int json_number_text(char *text, size_t size, double x, int digits) {
    if (!isfinite(x)) return snprintf(text, size, "null");
    int length = 0;
    for (int d = 9; d <= digits; d += 4) {
        length = snprintf(text, size, "%.*g", d, x);
        if (strtod(text, NULL) == x) break;
    }
    return length;
}

static inline void json_print_text(FILE *file, const char *text, size_t n) {
    fputc('"', file);
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t code = 0;
        length = check_character(text + at, n - at, &code);
        if (length == 0)
            fputs("\\ufffd", file), length = 1;
        else if (code == '\n' || code == '\t')
            fputs(code == '\n' ? "\\n" : "\\t", file);
        else if (code < 0x20 || code == 0x7F)
            fprintf(file, "\\u%04x", (unsigned)code);
        else
            fprintf(file, "%s%.*s", code == '"' || code == '\\' ? "\\" : "", (int)length, text + at);
    }
    fputc('"', file);
}

static inline void json_add_number(cJSON *object, const char *key, double x) {
    char text[32];
    json_number_text(text, sizeof text, x, 17);
    cJSON_AddRawToObject(object, key, text);
}

static inline void json_add_sum(cJSON *object, const char *key, uint64_t sum) {
    char text[20];
    snprintf(text, sizeof text, "%016" PRIx64, sum);
    cJSON_AddStringToObject(object, key, text);
}

static inline bool json_whole(const cJSON *item, double most, int64_t *x) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= most)) return false;
    *x = (int64_t)item->valuedouble;
    return (double)*x == item->valuedouble;
}

static inline bool json_sum(const cJSON *item, uint64_t *sum) {
    const char *text = cJSON_GetStringValue(item);
    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) return false;
    *sum = strtoull(text, NULL, 16);
    return true;
}

static inline cJSON *json_parse_at(const char *text, size_t n, size_t *stop) {
    const char *end = text;
    cJSON *json = cJSON_ParseWithLengthOpts(text, n + 1, &end, false);
    *stop = (size_t)(end - text);
    if (!json) return NULL;
    *stop += strspn(end, " \t\r\n");
    if (*stop == n) return json;
    cJSON_Delete(json);
    return NULL;
}

static inline cJSON *json_parse(const char *text, size_t n) {
    size_t stop;
    return json_parse_at(text, n, &stop);
}

static inline const char *json_text(const cJSON *object, const char *key) {
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
}

static inline double json_number(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

#endif
