/* log_read.h: reads log.jsonl of a run, the file that log.h writes.

   log_open_read(path, error)                  opens the file; NULL, with a sentence in error[LOG_ERROR_SIZE], when it
                                               cannot
   log_each(file, path, see, context, error)   calls see(context, ...) with each line in turn; only one line is in
                                               memory at a time. False when a line is not a line of a log; `error` is
                                               then a sentence that names path:line. An incomplete last line, blank
                                               lines and JSON objects of other kinds are no error
   log_parse_line(text, length, &train, &validation)   reads one line; returns what kind of line it is */
#ifndef GPT_RUN_LOG_READ_H
#define GPT_RUN_LOG_READ_H

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include "../base/check.h"
#include "../io/files.h"
#include "log_fields.h"

/* Bytes of the longest line that is read; log.h writes less than LOG_TEXT_SIZE, analysis.h more for many layers. */
enum { LOG_LINE_MAX = 1 << 20 };

/* BAD: not a line of a log; ANALYSIS: a line that analysis.h writes; OTHER: a JSON object of another kind; BLANK:
   nothing but spaces. */
typedef enum {
    LOG_LINE_BAD,
    LOG_LINE_TRAIN,
    LOG_LINE_VALIDATION,
    LOG_LINE_ANALYSIS,
    LOG_LINE_OTHER,
    LOG_LINE_BLANK
} LogLine;

/* A member of an object as a number. null and a missing member are NaN; false when it is something else. */
static inline bool log_member(const cJSON *json, const char *key, double *x) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    *x = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    return !item || cJSON_IsNumber(item) || cJSON_IsNull(item);
}

/* The fields of a training step; false when one of them is not a number. */
static inline bool log_parse_train(const cJSON *json, LogTrain *train) {
    LogRow row = {.smoothed = NAN};
    for (int i = 0; i < LOG_FIELDS; i++) {
        double x;
        char *at = (char *)&row + log_fields[i].offset;
        if (!log_fields[i].key) continue;
        const char *old_key = log_fields[i].old_key;
        if (!log_member(json, log_fields[i].key, &x)) return false;
        if (old_key && isnan(x) && !log_member(json, old_key, &x)) return false;
        if (log_fields[i].type == LOG_DOUBLE)
            *(double *)(void *)at = x;
        else if (!(x >= 0 && x <= 0x1p53)) {
            if (!isnan(x)) return false; /* a missing number is 0 */
        } else if (log_fields[i].type == LOG_LONG)
            *(long *)(void *)at = (long)x;
        else
            *(int64_t *)(void *)at = (int64_t)x;
    }
    *train = row.train;
    return true;
}

/* The numbers of a validation; false when one of them is something else. Those that are missing are NaN: logs of older
   versions have val_loss alone. */
static inline bool log_parse_validation(const cJSON *json, LogValidation *v) {
    for (int i = 0; i < LOG_VALIDATION_FIELDS; i++) {
        const LogValidationField *field = &log_validation_fields[i];
        if (!log_member(json, field->key, log_validation_number(field, v))) return false;
    }
    return true;
}

/* Reads one line into *train or *v and returns its kind. text[length] is the newline, or the 0 that ends the text. */
static inline LogLine log_parse_line(const char *text, size_t length, LogTrain *train, LogValidation *v) {
    const char *end = text;
    if (strspn(text, " \t\r") >= length) return LOG_LINE_BLANK;
    cJSON *json = cJSON_ParseWithLengthOpts(text, length + 1, &end, false);
    double step;
    LogLine kind = LOG_LINE_BAD;
    if (cJSON_IsObject(json) && (size_t)(end - text) + strspn(end, " \t\r") >= length &&
        log_member(json, "step", &step)) {
        v->step = step >= 0 && step <= 0x1p53 ? (long)step : -1;
        if (v->step < 0)
            kind = LOG_LINE_OTHER;
        else if (cJSON_HasObjectItem(json, "val_loss"))
            kind = log_parse_validation(json, v) ? LOG_LINE_VALIDATION : LOG_LINE_BAD;
        else if (cJSON_HasObjectItem(json, "loss"))
            kind = log_parse_train(json, train) ? LOG_LINE_TRAIN : LOG_LINE_BAD;
        else
            kind = cJSON_HasObjectItem(json, "analysis") ? LOG_LINE_ANALYSIS : LOG_LINE_OTHER;
    }
    cJSON_Delete(json);
    return kind;
}

/* Called with each line of a log. `train` is set when `kind` is LOG_LINE_TRAIN, `validation` when it is
   LOG_LINE_VALIDATION. */
typedef void LogSee(void *context, LogLine kind, const LogTrain *train, const LogValidation *validation);

/* Reads the next line of a file into line[LOG_LINE_MAX + 1], with its newline and a 0 at the end. Returns its length
   without the newline, -1 at the end of the file. Of a line that is too long only the beginning is kept, and *whole is
   false. *ended tells whether a newline was there. */
static inline long log_next_line(FILE *file, char *line, bool *whole, bool *ended) {
    long length = 0;
    int c;
    *whole = true;
    while ((c = getc_unlocked(file)) != EOF && c != '\n') {
        if (length < LOG_LINE_MAX - 1)
            line[length++] = (char)c;
        else
            *whole = false;
    }
    *ended = c == '\n';
    line[length] = *ended ? '\n' : 0;
    line[length + 1] = 0;
    return length == 0 && !*ended ? -1 : length;
}

static inline bool log_each(FILE *file, const char *path, LogSee *see, void *context, char *error) {
    char *line = check_calloc(LOG_LINE_MAX + 1);
    size_t number = 0;
    long length;
    bool ok = true, whole, ended;
    while (ok && (length = log_next_line(file, line, &whole, &ended)) >= 0) {
        LogTrain train = {0};
        LogValidation validation = {0};
        number++;
        LogLine kind = whole ? log_parse_line(line, (size_t)length, &train, &validation) : LOG_LINE_BAD;
        ok = kind != LOG_LINE_BAD || !ended; /* the last line of a run that crashed may be incomplete */
        if (ok && kind != LOG_LINE_BAD) see(context, kind, &train, &validation);
    }
    if (!ok)
        snprintf(error, LOG_ERROR_SIZE, "%s:%zu is not a line of a training log; remove the line or the file",
                 path, number);
    else if (ferror(file))
        snprintf(error, LOG_ERROR_SIZE, "cannot read '%s': %s", path, strerror(errno)), ok = false;
    free(line);
    return ok;
}

/* NULL: `error` has the reason, and errno is ENOENT exactly when there is no such file. */
static inline FILE *log_open_read(const char *path, char *error) {
    const int file = file_open(path, O_RDONLY, FILE_REGULAR, error);
    FILE *stream = file < 0 ? NULL : fdopen(file, "rb");
    if (file >= 0 && !stream) die("cannot open '%s': %s", path, strerror(errno));
    return stream;
}

#endif
