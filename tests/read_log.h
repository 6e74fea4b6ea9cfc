/* read_log.h: all lines of a log.jsonl at once, for tests to look at.

   log_read(path, &data, error)   false with a sentence, as log_each in log_read.h; log_free(&data) when done */
#ifndef TESTS_READ_LOG_H
#define TESTS_READ_LOG_H

#include "../gpt/run/log_read.h"

/* All lines of a log. */
typedef struct {
    LogTrain *train;
    LogValidation *validation;
    size_t n_train, n_validation, train_room, validation_room;
} LogData;

/* The LogSee of log_read. */
static inline void log_collect(void *context, LogLine kind, const LogTrain *train,
                               const LogValidation *validation) {
    LogData *data = context;
    if (kind == LOG_LINE_TRAIN) {
        data->train = check_grow(data->train, &data->train_room, data->n_train + 1, sizeof *data->train);
        data->train[data->n_train++] = *train;
    } else if (kind == LOG_LINE_VALIDATION) {
        data->validation = check_grow(data->validation, &data->validation_room, data->n_validation + 1,
                                      sizeof *data->validation);
        data->validation[data->n_validation++] = *validation;
    }
}

static inline void log_free(LogData *data) {
    free(data->train);
    free(data->validation);
    *data = (LogData){0};
}

static inline bool log_read(const char *path, LogData *data, char *error) {
    *data = (LogData){0};
    FILE *file = log_open_read(path, error);
    if (!file) return false;
    bool ok = log_each(file, path, log_collect, data, error);
    fclose(file);
    if (!ok) log_free(data);
    return ok;
}

#endif
