/* json.h: what cJSON leaves to its callers: numbers that come back as the bits they were, and texts read to their end.

   json_number_text(text, size, x, digits)   the shortest of 9, 13, ... `digits` digits that reads back as the same number (17
                                are enough for any double, 9 for a float); null for what JSON has no number for
   json_add_number(object, key, x)   such a number as a member: cJSON's own printing drops what it takes for rounding,
                                so that 0.30000000000000004 comes back as 0.3
   json_add_sum(object, key, sum)    64 bits as a string of 16 hexadecimal digits, since a JSON number holds 53
   json_whole(item, most, &x)   a whole number from 0 to `most`; json_sum(item, &sum); false: it is something else
   json_parse(text, n)          one value and nothing after it but white space, text[n] being 0; NULL: it is not JSON */
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

static inline int json_number_text(char *text, size_t size, double x, int digits) {
    if (!isfinite(x)) return snprintf(text, size, "null");
    int length = 0;
    for (int d = 9; d <= digits; d += 4) {
        length = snprintf(text, size, "%.*g", d, x);
        if (strtod(text, NULL) == x) break;
    }
    return length;
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

static inline cJSON *json_parse(const char *text, size_t n) {
    const char *end = text;
    cJSON *json = cJSON_ParseWithLengthOpts(text, n + 1, &end, false);
    if (json && (size_t)(end - text) + strspn(end, " \t\r\n") == n) return json;
    cJSON_Delete(json);
    return NULL;
}

#endif
