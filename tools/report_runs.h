/* report_runs.h: what the report knows about a run: its curves, its options, its figures.

   run_load(run, folder)       reads folder/log.jsonl (must be there), config.json and summary.json (may be
                               missing), dies with the file and what to do; run_free(run) releases it
   runs_name(runs, count)      gives each run the shortest name that tells it from the others
   A curve is a Series of (step, value) in rising order of steps; a value that is no number is NaN and breaks
   the curve there. series_smooth averages without lag, series_bin bounds the number of points.
   figures[] is the one table of columns that the terminal and the HTML show; figure_text fills a cell. */
#ifndef TOOLS_REPORT_RUNS_H
#define TOOLS_REPORT_RUNS_H

#define _GNU_SOURCE
#include <cjson/cJSON.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "../gpt/files.h"
#include "../gpt/log.h"

typedef struct {
    double *x, *y;
    int64_t count, capacity;
} Series;

typedef enum { CURVE_VALIDATION, CURVE_TRAINING, CURVE_NORM, CURVE_RATE, CURVE_COUNT } CurveKind;

/* Their keys in log.jsonl; the first is a line of its own, the others are rows of log.h's table. */
static const char *const curve_keys[] = {"val_loss", "loss", "grad_norm", "lr"};
_Static_assert(sizeof curve_keys / sizeof *curve_keys == CURVE_COUNT, "a key for each curve");

typedef struct {
    const char *folder;
    char name[96];
    cJSON *config, *summary;            /* of the files; NULL: there is none */
    const cJSON *options;               /* inside config: the object of options, or NULL */
    Series curves[CURVE_COUNT], smooth; /* smooth: the training loss */
    double tokens_per_step;             /* 0: not known */
    double parameters, train_loss, val_loss, seconds, tokens_per_s, memory; /* NaN: not known */
} Run;

/* ------------------------------------------------------------------------------------------------- series */

static inline void series_add(Series *s, double x, double y) {
    /* a run that was resumed from an earlier step tells that part again: the later telling counts */
    while (s->count > 0 && s->x[s->count - 1] >= x) s->count--;
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 256;
        s->x = realloc(s->x, (size_t)s->capacity * sizeof *s->x);
        s->y = realloc(s->y, (size_t)s->capacity * sizeof *s->y);
        if (!s->x || !s->y) die("cannot hold a curve of %" PRId64 " points", s->capacity);
    }
    s->x[s->count] = x;
    s->y[s->count++] = isfinite(y) ? y : NAN;
}

static inline void series_free(Series *s) {
    free(s->x), free(s->y);
    *s = (Series){0};
}

/* The last value that is a number; NaN when there is none. */
static inline double series_last(const Series *s) {
    for (int64_t i = s->count; i-- > 0;)
        if (isfinite(s->y[i])) return s->y[i];
    return NAN;
}

/* The last value; NaN when there is none, and when the run ended in one. */
static inline double series_end(const Series *s) { return s->count ? s->y[s->count - 1] : NAN; }

/* One moving average over up to 2 * half + 1 points, NaNs left out. Near the start the window stays
   symmetric, so that a steep beginning is not flattened; at the end it is cut, so that the last value is a
   mean as well. */
static inline void series_average(double *out, const double *y, int64_t n, int64_t half) {
    double *sum = check_malloc((size_t)(n + 1) * sizeof *sum);
    int64_t *numbers = check_malloc((size_t)(n + 1) * sizeof *numbers);
    for (int64_t i = 0; i < n; i++) {
        sum[i + 1] = sum[i] + (isfinite(y[i]) ? y[i] : 0);
        numbers[i + 1] = numbers[i] + isfinite(y[i]);
    }
    for (int64_t i = 0; i < n; i++) {
        int64_t before = i < half ? i : half, after = n - 1 - i < before ? n - 1 - i : before;
        int64_t from = i - before, to = i + after + 1, found = numbers[to] - numbers[from];
        out[i] = found && isfinite(y[i]) ? (sum[to] - sum[from]) / (double)found : NAN;
    }
    free(sum), free(numbers);
}

/* The curve without its noise: two moving averages, each over about a thirtieth of the run. */
static inline Series series_smooth(const Series *s) {
    Series smooth = {0};
    for (int64_t i = 0; i < s->count; i++) series_add(&smooth, s->x[i], s->y[i]);
    double *once = check_malloc((size_t)(s->count + 1) * sizeof *once);
    series_average(once, s->y, s->count, s->count / 60);
    series_average(smooth.y, once, s->count, s->count / 60);
    free(once);
    return smooth;
}

typedef enum { BIN_MEAN, BIN_LOWEST, BIN_HIGHEST } BinKind;

/* At most `points` points: each stands for as many of s, with their mean, lowest or highest value. */
static inline Series series_bin(const Series *s, int64_t points, BinKind kind) {
    Series bins = {0};
    if (points > s->count) points = s->count;
    for (int64_t b = 0; b < points; b++) {
        int64_t from = b * s->count / points, to = (b + 1) * s->count / points, found = 0;
        double value = 0;
        for (int64_t i = from; i < to; i++) {
            if (!isfinite(s->y[i])) continue;
            if (kind == BIN_MEAN || found == 0)
                value += s->y[i];
            else
                value = kind == BIN_LOWEST ? fmin(value, s->y[i]) : fmax(value, s->y[i]);
            found++;
        }
        if (kind == BIN_MEAN && found) value /= (double)found;
        series_add(&bins, b == points - 1 ? s->x[to - 1] : s->x[(from + to) / 2], found ? value : NAN);
    }
    return bins;
}

/* b - a at the steps that both have. */
static inline Series series_difference(const Series *a, const Series *b) {
    Series d = {0};
    for (int64_t i = 0, j = 0; i < a->count && j < b->count;) {
        if (a->x[i] == b->x[j]) series_add(&d, a->x[i], b->y[j] - a->y[i]);
        bool a_behind = a->x[i] <= b->x[j], b_behind = b->x[j] <= a->x[i];
        i += a_behind, j += b_behind;
    }
    return d;
}

/* ----------------------------------------------------------------------------------------------- the files */

/* folder/name; free() it. */
static inline char *run_path(const char *folder, const char *name) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = check_malloc(size);
    snprintf(path, size, "%s/%s", folder, name);
    return path;
}

/* A JSON file of the run's folder; NULL when there is none. */
static inline cJSON *run_read_json(const char *folder, const char *name) {
    char *path = run_path(folder, name);
    size_t length;
    char *text = check_file_read_if(path, 1 << 22, &length, "remove it, or train the run again");
    if (!text) {
        free(path);
        return NULL;
    }
    cJSON *json = cJSON_Parse(text);
    if (!json) die("'%s' is no JSON object; it is damaged: remove it, or train the run again", path);
    free(text), free(path);
    return json;
}

static inline double json_number(const cJSON *object, const char *key) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, key);
    return cJSON_IsNumber(item) ? item->valuedouble : NAN;
}

static inline int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* The row of log.h's table that a curve of training lines shows. */
static inline const LogField *curve_field(CurveKind kind) {
    for (int i = 0; i < LOG_FIELDS; i++)
        if (log_fields[i].key && strcmp(log_fields[i].key, curve_keys[kind]) == 0) return &log_fields[i];
    die("log.h has no field '%s'; name the curve's key in report_runs.h as log.h does", curve_keys[kind]);
}

static inline void run_read_log(Run *run) {
    char *path = run_path(run->folder, "log.jsonl"), error[LOG_ERROR_SIZE];
    LogData log;
    if (access(path, R_OK) != 0)
        die("cannot open '%s': %s; name a folder that ./train_gpt --out=DIR wrote", path, strerror(errno));
    if (!log_read(path, &log, error)) die("%s", error);
    for (int k = CURVE_TRAINING; k < CURVE_COUNT; k++) {
        const LogField *field = curve_field((CurveKind)k);
        for (size_t i = 0; i < log.n_train; i++)
            series_add(&run->curves[k], (double)log.train[i].step, log_number(field, &log.train[i]));
    }
    for (size_t i = 0; i < log.n_validation; i++)
        series_add(&run->curves[CURVE_VALIDATION], (double)log.validation[i].step,
                   log.validation[i].val_loss);
    if (log.n_train) {
        const LogTrain *last = &log.train[log.n_train - 1];
        run->seconds = last->seconds;
        if (last->step > 0) run->tokens_per_step = (double)last->tokens / (double)last->step;
        double *speed = check_malloc(log.n_train * sizeof *speed);
        size_t n = 0;
        for (size_t i = 0; i < log.n_train; i++)
            if (isfinite(log.train[i].tokens_per_s)) speed[n++] = log.train[i].tokens_per_s;
        qsort(speed, n, sizeof *speed, compare_doubles);
        if (n) run->tokens_per_s = speed[n / 2]; /* the median: a pause of the machine does not count */
        free(speed);
    }
    log_free(&log);
    if (run->curves[CURVE_TRAINING].count == 0 && run->curves[CURVE_VALIDATION].count == 0)
        die("'%s' has no loss yet; let the run make a step first", path);
    free(path);
}

static inline void run_load(Run *run, const char *folder) {
    *run = (Run){.folder = folder,
                 .parameters = NAN,
                 .train_loss = NAN,
                 .val_loss = NAN,
                 .seconds = NAN,
                 .tokens_per_s = NAN,
                 .memory = NAN};
    struct stat status;
    if (stat(folder, &status) != 0)
        die("there is no run '%s': %s; name a folder that ./train_gpt --out=DIR wrote", folder,
            strerror(errno));
    if (!S_ISDIR(status.st_mode)) die("'%s' is no folder; name the folder of a run, not a file", folder);
    run_read_log(run);
    run->smooth = series_smooth(&run->curves[CURVE_TRAINING]);
    run->train_loss = series_end(&run->smooth);
    run->val_loss = series_end(&run->curves[CURVE_VALIDATION]);
    run->config = run_read_json(folder, "config.json");
    run->summary = run_read_json(folder, "summary.json");
    if (!run->config) warn("'%s' has no config.json: its options are not known", folder);
    run->options = cJSON_GetObjectItemCaseSensitive(run->config, "options");
    if (!cJSON_IsObject(run->options)) run->options = run->config;
    const struct {
        const char *key;
        double *value;
    } known[] = {{"parameters", &run->parameters},     {"final_train_loss", &run->train_loss},
                 {"final_val_loss", &run->val_loss},   {"seconds", &run->seconds},
                 {"tokens_per_s", &run->tokens_per_s}, {"peak_memory_bytes", &run->memory}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double value = json_number(run->summary, known[i].key);
        if (!isfinite(value) && i == 0) value = json_number(run->config, known[i].key);
        if (isfinite(value)) *known[i].value = value;
    }
}

static inline void run_free(Run *run) {
    for (int k = 0; k < CURVE_COUNT; k++) series_free(&run->curves[k]);
    series_free(&run->smooth);
    cJSON_Delete(run->config);
    cJSON_Delete(run->summary);
}

/* The last `parts` parts of a path, without a slash at its end. */
static inline void run_path_tail(char *name, size_t size, const char *path, int parts) {
    size_t end = strlen(path), start;
    while (end > 1 && path[end - 1] == '/') end--;
    for (start = end; start > 0; start--)
        if (path[start - 1] == '/' && --parts == 0) break;
    snprintf(name, size, "%.*s", (int)(end - start), path + start);
}

static inline void runs_name(Run *runs, int count) {
    bool distinct = false;
    for (int parts = 1; parts < 9 && !distinct; parts++) {
        distinct = true;
        for (int i = 0; i < count; i++) {
            run_path_tail(runs[i].name, sizeof runs[i].name, runs[i].folder, parts);
            for (int j = 0; j < i; j++) distinct = distinct && strcmp(runs[i].name, runs[j].name) != 0;
        }
    }
}

/* One option of a run as text; "" when it is not known. */
static inline const char *run_option(const Run *run, const char *key, char text[64]) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(run->options, key);
    text[0] = 0;
    if (cJSON_IsString(item)) return item->valuestring;
    if (cJSON_IsBool(item)) return cJSON_IsTrue(item) ? "yes" : "no";
    if (cJSON_IsNumber(item)) snprintf(text, 64, "%.10g", item->valuedouble);
    return text;
}

/* ------------------------------------------------------------------------------------- numbers for readers */

/* 1234567 as 1,234,567. */
static inline const char *text_grouped(double value, char text[32]) {
    char digits[32];
    int n = snprintf(digits, sizeof digits, "%.0f", fabs(value)), at = 0;
    if (value < 0) text[at++] = '-';
    for (int i = 0; i < n && at < 30; i++) {
        if (i > 0 && (n - i) % 3 == 0) text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = 0;
    return text;
}

/* Three digits and a letter: 4.53M, 301M, 16.4k. */
static inline const char *text_short(double value, char text[32]) {
    const char *letters[] = {"", "k", "M", "B", "T"};
    int power = 0;
    while (fabs(value) >= 999.5 && power < 4) value /= 1000, power++;
    int decimals = power == 0 || fabs(value) >= 99.95 ? 0 : fabs(value) >= 9.995 ? 1 : 2;
    snprintf(text, 32, "%.*f%s", decimals, value, letters[power]);
    return text;
}

static inline const char *text_bytes(double bytes, char text[32]) {
    if (bytes >= 1024.0 * 1024 * 1024)
        snprintf(text, 32, "%.2f GiB", bytes / (1024.0 * 1024 * 1024));
    else
        snprintf(text, 32, "%.0f MiB", bytes / (1024.0 * 1024));
    return text;
}

typedef enum {
    FIGURE_NAME,
    FIGURE_ATTENTION,
    FIGURE_PARAMETERS,
    FIGURE_TRAIN_LOSS,
    FIGURE_VAL_LOSS,
    FIGURE_TIME,
    FIGURE_SPEED,
    FIGURE_MEMORY,
    FIGURE_COUNT
} Figure;

/* The columns of the table, in the terminal and in the HTML. */
static const struct {
    const char *title, *full_title;
} figures[] = {
    [FIGURE_NAME] = {"run", "run"},
    [FIGURE_ATTENTION] = {"attention", "attention"},
    [FIGURE_PARAMETERS] = {"params", "parameters"},
    [FIGURE_TRAIN_LOSS] = {"train", "training loss"},
    [FIGURE_VAL_LOSS] = {"val loss", "validation loss"},
    [FIGURE_TIME] = {"time", "time"},
    [FIGURE_SPEED] = {"tok/s", "tokens/s"},
    [FIGURE_MEMORY] = {"memory", "peak memory"},
};
_Static_assert(sizeof figures / sizeof *figures == FIGURE_COUNT, "a title for each figure");

/* A loss that was measured and was no number: the run diverged. */
static inline bool figure_is_nan(const Run *run, Figure figure) {
    const Series *s =
        figure == FIGURE_TRAIN_LOSS ? &run->curves[CURVE_TRAINING] : &run->curves[CURVE_VALIDATION];
    return (figure == FIGURE_TRAIN_LOSS || figure == FIGURE_VAL_LOSS) && s->count > 0;
}

static inline const char *figure_text(const Run *run, Figure figure, char text[96]) {
    char number[64];
    const double values[FIGURE_COUNT] = {
        [FIGURE_PARAMETERS] = run->parameters, [FIGURE_TRAIN_LOSS] = run->train_loss,
        [FIGURE_VAL_LOSS] = run->val_loss,     [FIGURE_TIME] = run->seconds,
        [FIGURE_SPEED] = run->tokens_per_s,    [FIGURE_MEMORY] = run->memory};
    double value = values[figure];
    const char *shown = number;
    if (figure == FIGURE_NAME)
        shown = run->name;
    else if (figure == FIGURE_ATTENTION)
        shown = run_option(run, "attn", number);
    else if (!isfinite(value))
        shown = figure_is_nan(run, figure) ? "nan" : "";
    else if (figure == FIGURE_TRAIN_LOSS || figure == FIGURE_VAL_LOSS)
        snprintf(number, sizeof number, "%.4f", value);
    else if (figure == FIGURE_TIME)
        duration_words(number, value);
    else if (figure == FIGURE_MEMORY)
        text_bytes(value, number);
    else if (figure == FIGURE_PARAMETERS)
        text_short(value, number);
    else
        text_grouped(value, number);
    snprintf(text, 96, "%s", *shown ? shown : "-");
    return text;
}

#endif
