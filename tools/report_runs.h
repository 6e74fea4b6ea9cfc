/* report_runs.h: reads a run: its curves, its options, and the figures of the report's table.

   run_load(run, folder)       reads log.jsonl, config.json and summary.json of the folder; the last two may be missing.
                               Returns NULL, or a sentence that tells why the folder cannot be reported on. Dies when a
                               log exists but cannot be read
   run_free(run)               releases what run_load allocated
   runs_name(runs, count)      gives each run the last part of its path as a name, and more parts where names would be
                               equal
   run_option(run, key, text)  the value of an option, "" when it is not known
   run_attention(run, text)    the kind of attention, "-" when it is not known
   figures[], figure_text(run, figure, text)   the columns of the table, and the text of a cell
   figure_shown(runs, count, figure)   whether the table has this column: bits per byte only if a run knows them
   text_columns, text_prefix   the width of a text, and how much of it fits

   A curve is a Series: points (step, value) in rising order of steps. A value that was not finite is NaN; the curve has
   a gap there.
   series_smooth(s)            the curve without its noise
   series_bin(s, points, kind) the curve with at most so many points
   series_difference(a, b)     b - a at the steps that both have
   series_last(s), series_end(s)   the last finite value; the last value, finite or not */
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
#include "../gpt/io/json.h"
#include "../gpt/io/files.h"
#include "../gpt/run/log_read.h"
#include "html_page.h"

typedef struct {
    double *x, *y; /* (count): steps and values */
    int64_t count;
    size_t x_room, y_room; /* for so many there is memory */
} Series;

/* Values of larger magnitude count as not finite: float32, in which a run computes, cannot hold them. With this limit
   the difference of two values is always finite. */
#define SERIES_MAX 1e39

typedef enum { CURVE_VALIDATION, CURVE_TRAINING, CURVE_NORM, CURVE_RATE, CURVE_COUNT } CurveKind;

/* Their keys in log.jsonl. The first is that of validation lines, the others are rows of the table in log_fields.h. */
static const char *const curve_keys[] = {"val_loss", "loss", "grad_norm", "lr"};
_Static_assert(sizeof curve_keys / sizeof *curve_keys == CURVE_COUNT, "a key for each curve");

typedef struct {
    const char *folder;      /* as the caller named it, who keeps it */
    char *name;              /* made by runs_name, through text_shown */
    cJSON *config, *summary; /* config.json and summary.json; NULL: missing or damaged */
    const cJSON *options;    /* the object of options inside config; NULL: there is none */
    Series curves[CURVE_COUNT];
    Series smooth;          /* the training loss without its noise */
    double tokens_per_step; /* 0: not known */
    double step_seconds;    /* the median of its steps; NaN: not known */
    double parameters, train_loss, val_loss, bits_per_byte, seconds, tokens_per_s,
        memory;    /* NaN: not known */
    bool analysed; /* its log has lines of --analyze-every */
    /* The rest is set where this stands for several runs with different seeds (report_arms.h). Its curves and losses
       are then their means; 0 seeds: it is one run. */
    int seeds, pairs;                           /* pairs: seeds that the first such group has as well */
    Series low[CURVE_COUNT], high[CURVE_COUNT]; /* mean - and + standard deviation */
    Series smooth_low, smooth_high;             /* the same of `smooth` */
    Series difference, difference_low, difference_high; /* to the first group, with its 95 % interval */
} Run;

/* ---- series ---- */

/* Appends a point. A run that was resumed from an earlier step logs the steps after it again; the earlier points at
   these steps are then removed. */
static inline void series_add(Series *s, double x, double y) {
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

/* The last finite value; NaN when there is none. */
static inline double series_last(const Series *s) {
    for (int64_t i = s->count; i-- > 0;)
        if (isfinite(s->y[i])) return s->y[i];
    return NAN;
}

/* The last value; NaN when there is none. */
static inline double series_end(const Series *s) { return s->count ? s->y[s->count - 1] : NAN; }

/* out[i] = the mean of y from i - half to i + half, without NaNs. Near the beginning the window is smaller but
   symmetric, so that the steep beginning of a loss is not flattened. Near the end only its right side is cut, so that
   the last value is a mean as well. */
static inline void series_average(double *out, const double *y, int64_t n, int64_t half) {
    double *sum = check_calloc((size_t)(n + 1) * sizeof *sum);
    int64_t *numbers = check_calloc((size_t)(n + 1) * sizeof *numbers);
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

/* Two moving averages, one after the other, each over about a thirtieth of the run. Being symmetric they do not shift
   the curve. */
static inline Series series_smooth(const Series *s) {
    Series smooth = {0};
    for (int64_t i = 0; i < s->count; i++) series_add(&smooth, s->x[i], s->y[i]);
    double *once = check_calloc((size_t)(s->count + 1) * sizeof *once);
    series_average(once, s->y, s->count, s->count / 60);
    series_average(smooth.y, once, s->count, s->count / 60);
    free(once);
    return smooth;
}

typedef enum { BIN_MEAN, BIN_LOWEST, BIN_HIGHEST } BinKind;

/* A curve of at most `points` points. Each stands for an equal number of neighbouring points of s, with their mean,
   lowest or highest value. */
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

static inline Series series_difference(const Series *a, const Series *b) {
    Series d = {0};
    for (int64_t i = 0, j = 0; i < a->count && j < b->count;) {
        if (a->x[i] == b->x[j]) series_add(&d, a->x[i], b->y[j] - a->y[i]);
        bool a_behind = a->x[i] <= b->x[j], b_behind = b->x[j] <= a->x[i];
        i += a_behind, j += b_behind;
    }
    return d;
}

/* ---- text ---- */

/* The columns that UTF-8 text takes in a terminal: one for each character. */
static inline int text_columns(const char *text) {
    int n = 0;
    for (; *text; text++) n += (*text & 0xC0) != 0x80;
    return n;
}

/* The length in bytes of the first `columns` characters of a text, or of all when it has fewer. */
static inline int text_prefix(const char *text, int columns) {
    int n = 0;
    while (text[n] && (columns > 0 || (text[n] & 0xC0) == 0x80)) columns -= (text[n++] & 0xC0) != 0x80;
    return n;
}

/* ---- the files of a run ---- */

/* The JSON object in `text`. NULL when `text` is NULL; NULL with a warning when it is damaged, which is no reason to
   die, since the curves come from the log. */
static inline cJSON *run_parse_json(const char *path, const char *text) {
    cJSON *json = text ? cJSON_Parse(text) : NULL;
    if (!text || cJSON_IsObject(json)) return json;
    warn("'%s' is damaged, it holds no JSON object: what it would tell is left out", path);
    cJSON_Delete(json);
    return NULL;
}

/* A JSON file of the run's folder; NULL when it is missing or damaged. */
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

/* The field of a training line that a curve shows. */
static inline const LogField *curve_field(CurveKind kind) {
    for (int i = 0; i < LOG_FIELDS; i++)
        if (log_fields[i].key && strcmp(log_fields[i].key, curve_keys[kind]) == 0) return &log_fields[i];
    die("log_fields.h has no field '%s'; give curve_keys in report_runs.h the key that it has there",
        curve_keys[kind]);
}

/* What is gathered while log.jsonl is read once. */
typedef struct {
    Run *run;
    const LogField *fields[CURVE_COUNT]; /* which each curve of training lines shows */
    Series speed;                        /* tokens per second of each step */
} RunLog;

/* The LogSee of run_read_log. */
static inline void run_see_line(void *context, LogLine kind, const LogTrain *train, const LogValidation *v) {
    RunLog *log = context;
    Run *run = log->run;
    if (kind == LOG_LINE_VALIDATION) {
        series_add(&run->curves[CURVE_VALIDATION], (double)v->step, v->val_loss);
        run->bits_per_byte = v->val_bits_per_byte;
    }
    if (kind == LOG_LINE_ANALYSIS) run->analysed = true;
    if (kind != LOG_LINE_TRAIN) return;
    const double step = (double)train->step;
    for (int k = CURVE_TRAINING; k < CURVE_COUNT; k++)
        series_add(&run->curves[k], step, log_number(log->fields[k], train));
    series_add(&log->speed, step, train->tokens_per_s);
    run->seconds = train->seconds;
    if (train->step > 0) run->tokens_per_step = (double)train->tokens / step;
}

/* The median of the finite values; the values are sorted. A mean would count a pause of the machine as slow steps. */
static inline double series_median(Series *s) {
    int64_t n = 0;
    for (int64_t i = 0; i < s->count; i++)
        if (isfinite(s->y[i])) s->y[n++] = s->y[i];
    if (n == 0) return NAN;
    qsort(s->y, (size_t)n, sizeof *s->y, compare_doubles);
    return s->y[n / 2];
}

/* The curves, and the figures that follow from them. */
static inline void run_read_log(Run *run, FILE *file, const char *path) {
    char error[LOG_ERROR_SIZE];
    RunLog log = {.run = run};
    for (int k = CURVE_TRAINING; k < CURVE_COUNT; k++) log.fields[k] = curve_field((CurveKind)k);
    if (!log_each(file, path, run_see_line, &log, error)) die("%s", error);
    run->tokens_per_s = series_median(&log.speed);
    if (run->tokens_per_s > 0 && run->tokens_per_step > 0)
        run->step_seconds = run->tokens_per_step / run->tokens_per_s;
    series_free(&log.speed);
    run->smooth = series_smooth(&run->curves[CURVE_TRAINING]);
    run->train_loss = series_end(&run->smooth);
    run->val_loss = series_end(&run->curves[CURVE_VALIDATION]);
}

/* Takes over config.json and summary.json. Their figures count more than those from the log. */
static inline void run_take_settings(Run *run, cJSON *config, cJSON *summary) {
    run->config = config, run->summary = summary;
    if (!config) warn("'%s' has no config.json that can be read: its options are not known", run->folder);
    run->options = cJSON_GetObjectItemCaseSensitive(run->config, "options");
    if (!cJSON_IsObject(run->options)) run->options = run->config;
    const struct {
        const char *key;
        double *value;
    } known[] = {{"parameters", &run->parameters},   {"final_train_loss", &run->train_loss},
                 {"final_val_loss", &run->val_loss}, {"final_val_bits_per_byte", &run->bits_per_byte},
                 {"seconds", &run->seconds},         {"tokens_per_s", &run->tokens_per_s},
                 {"peak_memory_bytes", &run->memory}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        double value = json_number(run->summary, known[i].key);
        if (!isfinite(value) && i == 0) value = json_number(run->config, known[i].key);
        if (isfinite(value)) *known[i].value = value;
    }
}

static inline void run_free(Run *run) {
    free(run->name);
    for (int k = 0; k < CURVE_COUNT; k++)
        series_free(&run->curves[k]), series_free(&run->low[k]), series_free(&run->high[k]);
    series_free(&run->smooth), series_free(&run->smooth_low), series_free(&run->smooth_high);
    series_free(&run->difference), series_free(&run->difference_low), series_free(&run->difference_high);
    cJSON_Delete(run->config);
    cJSON_Delete(run->summary);
}

/* A run of which nothing is known yet. */
static inline Run run_unknown(const char *folder) {
    return (Run){.folder = folder,
                 .step_seconds = NAN,
                 .parameters = NAN,
                 .train_loss = NAN,
                 .val_loss = NAN,
                 .bits_per_byte = NAN,
                 .seconds = NAN,
                 .tokens_per_s = NAN,
                 .memory = NAN};
}

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

/* The last `parts` parts of a path, without a slash at the end; free() it. */
static inline char *run_path_tail(const char *path, int parts) {
    size_t end = strlen(path), start;
    while (end > 1 && path[end - 1] == '/') end--;
    for (start = end; start > 0; start--)
        if (path[start - 1] == '/' && --parts == 0) break;
    return memcpy(check_calloc(end - start + 1), path + start, end - start);
}

static inline void runs_name(Run *runs, int count) {
    bool distinct = false;
    for (int parts = 1; parts < 9 && !distinct; parts++) {
        distinct = true;
        for (int i = 0; i < count; i++) {
            /* a path that ends in "." or ".." does not have the name of the folder: it is resolved */
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

/* Returns `text` or a string inside run->options. */
static inline const char *run_option(const Run *run, const char *key, char text[FORMAT_SIZE]) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(run->options, key);
    text[0] = 0;
    if (cJSON_IsString(item)) return item->valuestring;
    if (cJSON_IsBool(item)) return cJSON_IsTrue(item) ? "yes" : "no";
    if (cJSON_IsNumber(item)) snprintf(text, FORMAT_SIZE, "%.10g", item->valuedouble);
    return text;
}

/* Shortened to ten characters, so that it fits its column. */
static inline const char *run_attention(const Run *run, char text[FORMAT_SIZE]) {
    char value[64];
    char *shown = text_shown(run_option(run, "attn", value));
    const bool long_one = text_columns(shown) > 10;
    snprintf(text, FORMAT_SIZE, "%.*s%s", text_prefix(shown, long_one ? 7 : 10), shown,
             long_one ? "..." : "");
    free(shown);
    return *text ? text : "-";
}

/* ---- the table of figures ---- */

/* A loss, with four decimals. One of a million or more, which a language model does not reach, is written with an
   exponent. */
static inline const char *text_loss(double value, char text[FORMAT_SIZE]) {
    snprintf(text, FORMAT_SIZE, fabs(value) < 1e6 ? "%.4f" : "%.4g", value);
    return text;
}

typedef enum {
    FIGURE_NAME,
    FIGURE_ATTENTION,
    FIGURE_PARAMETERS,
    FIGURE_TRAIN_LOSS,
    FIGURE_VAL_LOSS,
    FIGURE_BITS_PER_BYTE,
    FIGURE_TIME,
    FIGURE_SPEED,
    FIGURE_MEMORY,
    FIGURE_COUNT
} Figure;

/* The titles of the columns: the short one in the terminal, the full one in the HTML. */
static const struct {
    const char *title, *full_title;
} figures[] = {
    [FIGURE_NAME] = {"run", "run"},
    [FIGURE_ATTENTION] = {"attention", "attention"},
    [FIGURE_PARAMETERS] = {"params", "parameters"},
    [FIGURE_TRAIN_LOSS] = {"train", "training loss"},
    [FIGURE_VAL_LOSS] = {"val loss", "validation loss"},
    [FIGURE_BITS_PER_BYTE] = {"bits/B", "bits per byte"},
    [FIGURE_TIME] = {"time", "time"},
    [FIGURE_SPEED] = {"tok/s", "tokens/s"},
    [FIGURE_MEMORY] = {"memory", "peak memory"},
};
_Static_assert(sizeof figures / sizeof *figures == FIGURE_COUNT, "a title for each figure");

/* Whether the figure is a loss that was measured. When such a loss is NaN the run has diverged; a figure that was not
   measured is just not known. */
static inline bool figure_is_measured_loss(const Run *run, Figure figure) {
    const Series *s =
        figure == FIGURE_TRAIN_LOSS ? &run->curves[CURVE_TRAINING] : &run->curves[CURVE_VALIDATION];
    return (figure == FIGURE_TRAIN_LOSS || figure == FIGURE_VAL_LOSS) && s->count > 0;
}

static inline bool figure_shown(const Run *runs, int count, Figure figure) {
    bool known = figure != FIGURE_BITS_PER_BYTE;
    for (int r = 0; r < count; r++) known = known || isfinite(runs[r].bits_per_byte);
    return known;
}

/* Returns `text` or the name of the run. */
static inline const char *figure_text(const Run *run, Figure figure, char text[FORMAT_SIZE]) {
    const double values[FIGURE_COUNT] = {
        [FIGURE_PARAMETERS] = run->parameters, [FIGURE_TRAIN_LOSS] = run->train_loss,
        [FIGURE_VAL_LOSS] = run->val_loss,     [FIGURE_BITS_PER_BYTE] = run->bits_per_byte,
        [FIGURE_TIME] = run->seconds,          [FIGURE_SPEED] = run->tokens_per_s,
        [FIGURE_MEMORY] = run->memory};
    const double value = values[figure];
    if (figure == FIGURE_NAME) return run->name;
    if (figure == FIGURE_ATTENTION) return run_attention(run, text);
    if (!isfinite(value)) return figure_is_measured_loss(run, figure) ? "nan" : "-";
    if (figure == FIGURE_TRAIN_LOSS || figure == FIGURE_VAL_LOSS || figure == FIGURE_BITS_PER_BYTE)
        return text_loss(value, text);
    if (figure == FIGURE_TIME) return duration_words(text, value);
    if (figure == FIGURE_MEMORY) return bytes_short(text, value);
    if (figure == FIGURE_PARAMETERS) return count_short(text, value);
    return count_grouped(text, value);
}

#endif
