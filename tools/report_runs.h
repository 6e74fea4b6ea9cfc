/* report_runs.h: what the report knows about a run: its curves, its options, its figures.

   run_load(run, folder)       reads folder/log.jsonl, config.json and summary.json (these two may be missing). Returns NULL,
                               or why the folder is no run to report on; dies naming a log that cannot be read
   run_free(run)               releases it
   runs_name(runs, count)      gives each run the shortest name that tells it from the others
   text_shown(text)            text from a file or the command line as a terminal and a page may show it
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
#include "../gpt/io/files.h"
#include "../gpt/run/log.h"

typedef struct {
    double *x, *y;
    int64_t count;
    size_t x_room, y_room;
} Series;

/* Beyond what float32 holds a value is no number of a run; the differences of values below it are finite. */
#define SERIES_MAX 1e39

typedef enum { CURVE_VALIDATION, CURVE_TRAINING, CURVE_NORM, CURVE_RATE, CURVE_COUNT } CurveKind;

/* Their keys in log.jsonl; the first is a line of its own, the others are rows of log.h's table. */
static const char *const curve_keys[] = {"val_loss", "loss", "grad_norm", "lr"};
_Static_assert(sizeof curve_keys / sizeof *curve_keys == CURVE_COUNT, "a key for each curve");

typedef struct {
    const char *folder;
    char *name;                         /* as text_shown gives it */
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
    s->x = check_grow(s->x, &s->x_room, (size_t)s->count + 1, sizeof *s->x);
    s->y = check_grow(s->y, &s->y_room, (size_t)s->count + 1, sizeof *s->y);
    s->x[s->count] = x;
    s->y[s->count++] = fabs(y) <= SERIES_MAX ? y : NAN;
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

/* ------------------------------------------------------------------------------------------------ their texts */

/* A copy that a terminal and a page may show, free() it. */
static inline char *text_shown(const char *text) {
    const size_t n = strlen(text), room = 4 * n + 1;
    char *shown = check_malloc(room);
    check_printable(shown, room, text, n, false);
    return shown;
}

/* Display columns of UTF-8 text, one for each character. */
static inline int text_columns(const char *text) {
    int n = 0;
    for (; *text; text++) n += (*text & 0xC0) != 0x80;
    return n;
}

/* Bytes of the first characters of a text, at most `columns` of them. */
static inline int text_prefix(const char *text, int columns) {
    int n = 0;
    while (text[n] && (columns > 0 || (text[n] & 0xC0) == 0x80)) columns -= (text[n++] & 0xC0) != 0x80;
    return n;
}

/* ----------------------------------------------------------------------------------------------- the files */

/* The object that the text of a JSON file is; NULL without a text, and with a damaged one, which is warned of: the curves
   are the log's. */
static inline cJSON *run_parse_json(const char *path, const char *text) {
    cJSON *json = text ? cJSON_Parse(text) : NULL;
    if (!text || cJSON_IsObject(json)) return json;
    warn("'%s' is damaged, it holds no JSON object: what it would tell is left out", path);
    cJSON_Delete(json);
    return NULL;
}

static inline cJSON *run_read_json(const char *folder, const char *name) {
    char *path = file_path(folder, name);
    size_t length;
    char *text = check_file_read_if(path, 1 << 22, &length, "remove it, or train the run again");
    cJSON *json = run_parse_json(path, text);
    free(text), free(path);
    return json;
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

/* What one pass over log.jsonl gathers. */
typedef struct {
    Run *run;
    const LogField *fields[CURVE_COUNT]; /* of the training lines' curves */
    Series speed;
} RunLog;

static inline void run_see_line(void *context, LogLine kind, const LogTrain *train, const LogValidation *v) {
    RunLog *log = context;
    Run *run = log->run;
    if (kind == LOG_LINE_VALIDATION) series_add(&run->curves[CURVE_VALIDATION], (double)v->step, v->val_loss);
    if (kind != LOG_LINE_TRAIN) return;
    const double step = (double)train->step;
    for (int k = CURVE_TRAINING; k < CURVE_COUNT; k++)
        series_add(&run->curves[k], step, log_number(log->fields[k], train));
    series_add(&log->speed, step, train->tokens_per_s);
    run->seconds = train->seconds;
    if (train->step > 0) run->tokens_per_step = (double)train->tokens / step;
}

/* The median: a pause of the machine does not count. */
static inline double series_median(Series *s) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->count; i++)
        if (isfinite(s->y[i])) s->y[n++] = s->y[i];
    if (n == 0) return NAN;
    qsort(s->y, (size_t)n, sizeof *s->y, compare_doubles);
    return s->y[n / 2];
}

/* The curves of log.jsonl. */
static inline void run_read_log(Run *run, FILE *file, const char *path) {
    char error[LOG_ERROR_SIZE];
    RunLog log = {.run = run};
    for (int k = CURVE_TRAINING; k < CURVE_COUNT; k++) log.fields[k] = curve_field((CurveKind)k);
    if (!log_each(file, path, run_see_line, &log, error)) die("%s", error);
    run->tokens_per_s = series_median(&log.speed);
    series_free(&log.speed);
    run->smooth = series_smooth(&run->curves[CURVE_TRAINING]);
    run->train_loss = series_end(&run->smooth);
    run->val_loss = series_end(&run->curves[CURVE_VALIDATION]);
}

/* What config.json and summary.json add. */
static inline void run_take_settings(Run *run, cJSON *config, cJSON *summary) {
    run->config = config, run->summary = summary;
    if (!config) warn("'%s' has no config.json that can be read: its options are not known", run->folder);
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
    free(run->name);
    for (int k = 0; k < CURVE_COUNT; k++) series_free(&run->curves[k]);
    series_free(&run->smooth);
    cJSON_Delete(run->config);
    cJSON_Delete(run->summary);
}

static inline Run run_unknown(const char *folder) {
    return (Run){.folder = folder,
                 .parameters = NAN,
                 .train_loss = NAN,
                 .val_loss = NAN,
                 .seconds = NAN,
                 .tokens_per_s = NAN,
                 .memory = NAN};
}

/* NULL, or why `folder` is no run to report on. */
static inline const char *run_load(Run *run, const char *folder) {
    struct stat status;
    char error[LOG_ERROR_SIZE];
    *run = run_unknown(folder);
    if (lstat(folder, &status) != 0)
        die("there is no run '%s': %s; name a folder that ./train_gpt --out=DIR wrote", folder,
            strerror(errno));
    if (stat(folder, &status) != 0 || !S_ISDIR(status.st_mode)) return "is no folder";
    char *path = file_path(folder, "log.jsonl");
    FILE *file = log_open_read(path, error);
    if (!file && errno != ENOENT) die("%s", error);
    if (file) run_read_log(run, file, path), fclose(file);
    free(path);
    if (!file) return "has no log.jsonl";
    if (run->curves[CURVE_TRAINING].count == 0 && run->curves[CURVE_VALIDATION].count == 0)
        return "has no loss in its log.jsonl yet";
    run_take_settings(run, run_read_json(folder, "config.json"), run_read_json(folder, "summary.json"));
    return NULL;
}

/* The last `parts` parts of a path, without a slash at its end; free() them. */
static inline char *run_path_tail(const char *path, int parts) {
    size_t end = strlen(path), start;
    while (end > 1 && path[end - 1] == '/') end--;
    for (start = end; start > 0; start--)
        if (path[start - 1] == '/' && --parts == 0) break;
    return memcpy(check_malloc(end - start + 1), path + start, end - start);
}

static inline void runs_name(Run *runs, int count) {
    bool distinct = false;
    for (int parts = 1; parts < 9 && !distinct; parts++) {
        distinct = true;
        for (int i = 0; i < count; i++) {
            /* "." and what ends in ".." tell nothing: the folder's own name does */
            char whole[PATH_MAX], *tail = run_path_tail(runs[i].folder, 1);
            const bool resolved = *tail == '.' && realpath(runs[i].folder, whole);
            free(tail), free(runs[i].name);
            tail = run_path_tail(resolved ? whole : runs[i].folder, parts);
            runs[i].name = text_shown(tail);
            free(tail);
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

/* The kind of attention as a column shows it, at most ten characters; "-" when it is not known. */
static inline const char *run_attention(const Run *run, char text[64]) {
    char value[64];
    char *shown = text_shown(run_option(run, "attn", value));
    const bool long_one = text_columns(shown) > 10;
    snprintf(text, 64, "%.*s%s", text_prefix(shown, long_one ? 7 : 10), shown, long_one ? "..." : "");
    free(shown);
    return *text ? text : "-";
}

/* ------------------------------------------------------------------------------------- numbers for readers */

/* 1234567 as 1,234,567; beyond 15 digits, which no count has, with an exponent. */
static inline const char *text_grouped(double value, char text[32]) {
    char digits[32];
    if (!(fabs(value) < 1e15)) return snprintf(text, 32, "%.4g", value), text;
    int n = snprintf(digits, sizeof digits, "%.0f", fabs(value)), at = 0;
    if (value < 0) text[at++] = '-';
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0) text[at++] = ',';
        text[at++] = digits[i];
    }
    text[at] = 0;
    return text;
}

/* Three digits and a letter: 4.53M, 301M, 16.4k. */
static inline const char *text_short(double value, char text[32]) {
    const char *letters[] = {"", "k", "M", "B", "T"};
    if (!(fabs(value) < 1e15)) return snprintf(text, 32, "%.3g", value), text;
    int power = 0;
    while (fabs(value) >= 999.5 && power < 4) value /= 1000, power++;
    int decimals = power == 0 || fabs(value) >= 99.95 ? 0 : fabs(value) >= 9.995 ? 1 : 2;
    snprintf(text, 32, "%.*f%s", decimals, value, letters[power]);
    return text;
}

static inline const char *text_bytes(double bytes, char text[32]) {
    const double mib = bytes / (1024.0 * 1024), gib = mib / 1024;
    if (!(bytes >= 0 && gib < 1e6))
        snprintf(text, 32, "%.3g GiB", gib);
    else if (gib >= 1)
        snprintf(text, 32, "%.2f GiB", gib);
    else
        snprintf(text, 32, "%.0f MiB", mib);
    return text;
}

/* A loss with four decimals; one of more than six digits, which is no loss of a language model, shorter. */
static inline const char *text_loss(double value, char text[32]) {
    snprintf(text, 32, fabs(value) < 1e6 ? "%.4f" : "%.4g", value);
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

/* The text of a cell: the run's name, or what fits into 64 bytes. */
static inline const char *figure_text(const Run *run, Figure figure, char text[64]) {
    const double values[FIGURE_COUNT] = {
        [FIGURE_PARAMETERS] = run->parameters, [FIGURE_TRAIN_LOSS] = run->train_loss,
        [FIGURE_VAL_LOSS] = run->val_loss,     [FIGURE_TIME] = run->seconds,
        [FIGURE_SPEED] = run->tokens_per_s,    [FIGURE_MEMORY] = run->memory};
    const double value = values[figure];
    if (figure == FIGURE_NAME) return run->name;
    if (figure == FIGURE_ATTENTION) return run_attention(run, text);
    if (!isfinite(value)) return figure_is_nan(run, figure) ? "nan" : "-";
    if (figure == FIGURE_TRAIN_LOSS || figure == FIGURE_VAL_LOSS) return text_loss(value, text);
    if (figure == FIGURE_TIME) return duration_words(text, value);
    if (figure == FIGURE_MEMORY) return text_bytes(value, text);
    if (figure == FIGURE_PARAMETERS) return text_short(value, text);
    return text_grouped(value, text);
}

#endif
