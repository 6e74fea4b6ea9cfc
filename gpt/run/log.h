/* log.h: what a run says while it trains: log.jsonl for programs, a progress line for people.

   ONE table, log_fields, has a row for each number of a training step: its key in log.jsonl, the heading of
   its column, where it lies in LogRow, and how it is written. The line of log.jsonl, the progress line and the
   columns of tools/report are made from it; a new number is a member of LogTrain and a row here.

   Writing
     log_open(&log, run_folder, resume_step, total_steps, quiet)   run_folder NULL: no file; quiet: no screen.
         resume_step > 0 keeps the lines of RUN/log.jsonl up to that step and drops the later ones and what a
         crash tore, so that the curve has no doubles; otherwise the file starts empty, and what it held is kept as
         log.jsonl.old (.old2, ...). Dies when the file cannot be opened or another process is writing it.
     log_train(&log, &train)       one line of log.jsonl in one write, and the progress line
     log_validation(&log, step, val_loss)
     log_message(&log, fmt, ...)   a line above the progress line
     log_touch(&log)               gives log.jsonl the time of now, at most every ten seconds: called within long steps, it tells who
                                   watches the file's age that the run moves
     log_sync(&log)                the file reaches the disk: before a checkpoint that a resumed run builds on
     log_close(&log)               the screen is left at the start of a line
   A line that cannot be written (a full disk) is a warning and leaves no half line; training goes on.

   Reading
     log_read(path, &data, error)  false with a sentence naming path:line (char[LOG_ERROR_SIZE]) when a line is
         not one of ours; a torn last line, blank lines and lines of other kinds are skipped. log_free(&data) when done.
     log_each(file, path, see, context, error)   the same from an open file, handing each line's numbers to see(): what
         is held is one line
     log_number(field, &train)     a field's value as double, NaN for what was not finite
     log_cell(text, field, row, total_steps)   the text of a cell, as in the progress line
     log_smooth(&s, x)             the next value of the smoothed curve, as the progress line shows it

   The progress line is rewritten in place on a terminal, at most ten times a second of training; piped, it
   is about thirty plain lines a run (at least one in ten minutes), the first and the last among them. */
#ifndef GPT_RUN_LOG_H
#define GPT_RUN_LOG_H

#include <stddef.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <time.h>
#include "../base/duration.h"
#include "../io/files.h"
#include "../io/json.h"
#include "../base/program.h"

enum {
    LOG_ERROR_SIZE = FILE_ERROR_SIZE,
    LOG_TEXT_SIZE = 512,
    LOG_CELL_SIZE = DURATION_SIZE,
    LOG_PLAIN_LINES = 30,
    LOG_TOUCH_SECONDS = 10
};
enum { LOG_LINE_MAX = 1 << 16 }; /* bytes of a line that is read; ours have less than LOG_TEXT_SIZE */
#define LOG_SMOOTHING 0.95       /* share of the past in the smoothed loss */
#define LOG_REDRAW_SECONDS 0.1   /* between two drawings on a terminal */
#define LOG_PLAIN_SECONDS 600.0  /* at most, between two plain lines */

typedef struct {
    long step;      /* optimizer steps done, this one included */
    int64_t tokens; /* seen since the beginning of the run */
    double loss, lr, grad_norm;
    double seconds; /* since the beginning of the training */
    double tokens_per_s;
    double mfu;         /* 0 to 1; NaN: not known */
    double loss_z;      /* standard deviations above the mean of the latest losses; NaN: too few of them */
    long skipped;       /* 1: the step changed nothing, see faults.h */
    double comm_hidden; /* 0 to 1: communication during which nobody waited for it; NaN: there was none */
} LogTrain;

typedef struct {
    long step;
    double val_loss;
} LogValidation;

typedef struct { /* a training step with what follows from the steps before it */
    LogTrain train;
    double smoothed; /* loss */
    double left;     /* seconds; NaN: not known yet */
} LogRow;

typedef enum { LOG_LONG, LOG_INT64, LOG_DOUBLE } LogType;
typedef enum {
    LOG_STYLE_STEP,     /* 500/2000 */
    LOG_STYLE_FIXED,    /* 3.1234 */
    LOG_STYLE_EXPONENT, /* 6.0e-04 */
    LOG_STYLE_UNITS,    /* 12.3k */
    LOG_STYLE_PERCENT,  /* 45.2% of 0.452 */
    LOG_STYLE_DURATION  /* 1:02:03 */
} LogStyle;

typedef struct {
    const char *key;     /* in log.jsonl; NULL: not stored, it follows from the others */
    const char *heading; /* of its column */
    LogType type;
    size_t offset; /* in LogRow, hence in LogTrain for those that are stored */
    int digits;    /* in log.jsonl, at most: 17 gives every bit of a double back, 9 of a float */
    LogStyle style;
    int decimals; /* shown when they fit */
    int width;    /* in the progress line; 0: not shown there */
    bool ranks;   /* of runs with several ranks only */
} LogField;

static bool log_several_ranks; /* whether this run has them */

static const LogField log_fields[] = {
    {"step", "step", LOG_LONG, offsetof(LogRow, train.step), 0, LOG_STYLE_STEP, 0, 4, false},
    {"tokens", "tokens", LOG_INT64, offsetof(LogRow, train.tokens), 0, LOG_STYLE_UNITS, 1, 0, false},
    {"loss", "loss", LOG_DOUBLE, offsetof(LogRow, train.loss), 17, LOG_STYLE_FIXED, 4, 6, false},
    {NULL, "smooth", LOG_DOUBLE, offsetof(LogRow, smoothed), 17, LOG_STYLE_FIXED, 4, 6, false},
    {"lr", "lr", LOG_DOUBLE, offsetof(LogRow, train.lr), 17, LOG_STYLE_EXPONENT, 1, 7, false},
    {"grad_norm", "norm", LOG_DOUBLE, offsetof(LogRow, train.grad_norm), 17, LOG_STYLE_FIXED, 3, 6, false},
    {"loss_z", "z", LOG_DOUBLE, offsetof(LogRow, train.loss_z), 9, LOG_STYLE_FIXED, 1, 0, false},
    {"skipped", "skipped", LOG_LONG, offsetof(LogRow, train.skipped), 0, LOG_STYLE_UNITS, 0, 0, false},
    {"tokens_per_s", "tok/s", LOG_DOUBLE, offsetof(LogRow, train.tokens_per_s), 9, LOG_STYLE_UNITS, 1, 6,
     false},
    {"mfu", "MFU", LOG_DOUBLE, offsetof(LogRow, train.mfu), 9, LOG_STYLE_PERCENT, 1, 5, false},
    {"comm_hidden", "hidden", LOG_DOUBLE, offsetof(LogRow, train.comm_hidden), 9, LOG_STYLE_PERCENT, 0, 6,
     true},
    {"seconds", "elapsed", LOG_DOUBLE, offsetof(LogRow, train.seconds), 9, LOG_STYLE_DURATION, 0, 7, false},
    {NULL, "left", LOG_DOUBLE, offsetof(LogRow, left), 9, LOG_STYLE_DURATION, 0, 7, false},
};
enum { LOG_FIELDS = sizeof log_fields / sizeof *log_fields };

typedef struct {
    double sum, weight;
} LogSmooth;

typedef struct {
    LogTrain *train;
    LogValidation *validation;
    size_t n_train, n_validation, train_room, validation_room;
} LogData;

typedef struct {
    char path[4096]; /* of log.jsonl */
    int file;        /* -1: none */
    FILE *screen;    /* NULL: quiet */
    bool terminal;   /* rewrite the line in place */
    int columns;     /* of the terminal; 0: ask it */
    long total_steps, next_plain, plain_every;
    LogSmooth smooth;
    LogValidation best, last;   /* validations; step -1: none yet */
    bool begun, pending, drawn; /* a row came; the last one is not on screen; the line is not ended */
    double first_seconds, drawn_seconds;
    long first_step, lost_lines;
    int lines_since_heading;
    time_t touched;           /* when log_touch did it last */
    char line[LOG_TEXT_SIZE]; /* the progress line */
} Log;

/* ---- values and their texts ---- */

/* The bias correction is the division by the weight: the first value is itself, not a twentieth of it. */
static inline double log_smooth(LogSmooth *s, double x) {
    if (isfinite(x)) {
        s->sum = LOG_SMOOTHING * s->sum + (1 - LOG_SMOOTHING) * x;
        s->weight = LOG_SMOOTHING * s->weight + (1 - LOG_SMOOTHING);
    }
    return s->weight > 0 ? s->sum / s->weight : NAN;
}

static inline double log_row_number(const LogField *field, const LogRow *row) {
    const char *at = (const char *)row + field->offset;
    switch (field->type) {
    case LOG_LONG: return (double)*(const long *)(const void *)at;
    case LOG_INT64: return (double)*(const int64_t *)(const void *)at;
    case LOG_DOUBLE: return *(const double *)(const void *)at;
    }
    return NAN;
}

static inline double log_number(const LogField *field, const LogTrain *train) {
    LogRow row = {.train = *train, .smoothed = NAN, .left = NAN};
    return log_row_number(field, &row);
}

/* As many decimals as fit the width, or an exponent. */
static inline void log_fixed(char text[LOG_CELL_SIZE], double x, int decimals, int width, const char *unit) {
    int room = width > 0 ? width : LOG_CELL_SIZE - 1;
    for (; decimals >= 0; decimals--)
        if (snprintf(text, LOG_CELL_SIZE, "%.*f%s", decimals, x, unit) <= room) return;
    snprintf(text, LOG_CELL_SIZE, "%.0e%s", x, unit);
}

static inline void log_units(char text[LOG_CELL_SIZE], double x, int decimals, int width) {
    static const char *const units[] = {"", "k", "M", "G", "T", "P"};
    size_t unit = 0;
    while (fabs(x) >= 999.95 && unit + 1 < sizeof units / sizeof *units) x /= 1000, unit++;
    log_fixed(text, x, unit > 0 || fabs(x) < 10 ? decimals : 0, width, units[unit]);
}

static inline void log_cell(char text[LOG_CELL_SIZE], const LogField *field, const LogRow *row,
                            long total_steps) {
    double x = log_row_number(field, row);
    if (!isfinite(x)) {
        snprintf(text, LOG_CELL_SIZE, "%s",
                 field->style == LOG_STYLE_FIXED ? (isnan(x) ? "nan" : "inf") : "-");
        return;
    }
    switch (field->style) {
    case LOG_STYLE_STEP:
        if (total_steps > 0)
            snprintf(text, LOG_CELL_SIZE, "%ld/%ld", row->train.step, total_steps);
        else
            snprintf(text, LOG_CELL_SIZE, "%ld", row->train.step);
        break;
    case LOG_STYLE_FIXED: log_fixed(text, x, field->decimals, field->width, ""); break;
    case LOG_STYLE_EXPONENT: snprintf(text, LOG_CELL_SIZE, "%.*e", field->decimals, x); break;
    case LOG_STYLE_UNITS: log_units(text, x, field->decimals, field->width); break;
    case LOG_STYLE_PERCENT: log_fixed(text, 100 * x, field->decimals, field->width, "%"); break;
    case LOG_STYLE_DURATION: duration_clock(text, x > 0 ? x : 0); break;
    }
}

static inline bool log_shows(const LogField *field) {
    return field->width > 0 && (!field->ranks || log_several_ranks);
}

/* The width of a column and of the gap before it: two spaces where 79 columns allow it. */
static inline int log_width(const LogField *field, long total_steps) {
    if (field->style != LOG_STYLE_STEP) return field->width;
    int width = total_steps > 0 ? snprintf(NULL, 0, "%ld/%ld", total_steps, total_steps) : 8;
    return width > field->width ? width : field->width;
}

static inline const char *log_gap(long total_steps) {
    int width = 0;
    for (int i = 0; i < LOG_FIELDS; i++)
        if (log_shows(&log_fields[i])) width += log_width(&log_fields[i], total_steps) + (i > 0 ? 2 : 0);
    return width <= 79 ? "  " : " ";
}

/* The progress line; its headings when row is NULL. */
static inline void log_line(char text[LOG_TEXT_SIZE], const LogRow *row, long total_steps) {
    char cell[LOG_CELL_SIZE];
    size_t used = 0;
    text[0] = 0;
    for (int i = 0; i < LOG_FIELDS; i++) {
        const LogField *field = &log_fields[i];
        if (!log_shows(field)) continue;
        if (row)
            log_cell(cell, field, row, total_steps);
        else
            snprintf(cell, sizeof cell, "%s", field->heading);
        used += (size_t)snprintf(text + used, LOG_TEXT_SIZE - used, "%s%*s", used ? log_gap(total_steps) : "",
                                 log_width(field, total_steps), cell);
    }
}

/* ---- log.jsonl: a line made, a line read ---- */

static inline int log_json_train(char text[LOG_TEXT_SIZE], const LogTrain *train) {
    LogRow row = {.train = *train};
    int used = 0;
    for (int i = 0; i < LOG_FIELDS; i++) {
        const LogField *field = &log_fields[i];
        if (!field->key || (field->ranks && !log_several_ranks)) continue;
        used += snprintf(text + used, (size_t)(LOG_TEXT_SIZE - used), "%s\"%s\": ", used ? ", " : "{",
                         field->key);
        double x = log_row_number(field, &row);
        if (field->type == LOG_DOUBLE)
            used += json_number_text(text + used, (size_t)(LOG_TEXT_SIZE - used), x, field->digits);
        else
            used += snprintf(text + used, (size_t)(LOG_TEXT_SIZE - used), "%.0f", x);
    }
    return used + snprintf(text + used, (size_t)(LOG_TEXT_SIZE - used), "}\n");
}

static inline int log_json_validation(char text[LOG_TEXT_SIZE], const LogValidation *v) {
    int used = snprintf(text, LOG_TEXT_SIZE, "{\"step\": %ld, \"val_loss\": ", v->step);
    used += json_number_text(text + used, (size_t)(LOG_TEXT_SIZE - used), v->val_loss, 17);
    return used + snprintf(text + used, (size_t)(LOG_TEXT_SIZE - used), "}\n");
}

typedef enum { LOG_LINE_BAD, LOG_LINE_TRAIN, LOG_LINE_VALIDATION, LOG_LINE_OTHER, LOG_LINE_BLANK } LogLine;

/* A member as a number: null and a missing one are NaN; false when it is something else. */
static inline bool log_member(const cJSON *json, const char *key, double *x) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, key);
    *x = cJSON_IsNumber(item) ? item->valuedouble : NAN;
    return !item || cJSON_IsNumber(item) || cJSON_IsNull(item);
}

static inline bool log_parse_train(const cJSON *json, LogTrain *train) {
    LogRow row = {.smoothed = NAN};
    for (int i = 0; i < LOG_FIELDS; i++) {
        double x;
        char *at = (char *)&row + log_fields[i].offset;
        if (!log_fields[i].key) continue;
        if (!log_member(json, log_fields[i].key, &x)) return false;
        if (log_fields[i].type == LOG_DOUBLE)
            *(double *)(void *)at = x;
        else if (!(x >= 0 && x <= 0x1p53)) {
            if (!isnan(x)) return false; /* a number missing is 0 */
        } else if (log_fields[i].type == LOG_LONG)
            *(long *)(void *)at = (long)x;
        else
            *(int64_t *)(void *)at = (int64_t)x;
    }
    *train = row.train;
    return true;
}

/* text[length] is a newline or the ending 0 of the file. */
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
            kind = log_member(json, "val_loss", &v->val_loss) ? LOG_LINE_VALIDATION : LOG_LINE_BAD;
        else if (cJSON_HasObjectItem(json, "loss"))
            kind = log_parse_train(json, train) ? LOG_LINE_TRAIN : LOG_LINE_BAD;
        else
            kind = LOG_LINE_OTHER;
    }
    cJSON_Delete(json);
    return kind;
}

/* Called with each line of a log; of the two numbers that one is set which the kind names. */
typedef void LogSee(void *context, LogLine kind, const LogTrain *train, const LogValidation *validation);

/* The next line of a file into line[LOG_LINE_MAX + 1], its newline and a 0 at its end. Returns its length without the
   newline, -1 at the end of the file; of a longer line the beginning, *whole false. */
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
    char *line = check_malloc(LOG_LINE_MAX + 1);
    size_t number = 0;
    long length;
    bool ok = true, whole, ended;
    while (ok && (length = log_next_line(file, line, &whole, &ended)) >= 0) {
        LogTrain train = {0};
        LogValidation validation = {0};
        number++;
        LogLine kind = whole ? log_parse_line(line, (size_t)length, &train, &validation) : LOG_LINE_BAD;
        ok = kind != LOG_LINE_BAD || !ended; /* the last line may be torn */
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

/* A log to be read; NULL with the reason, and errno is ENOENT exactly when there is none. */
static inline FILE *log_open_read(const char *path, char *error) {
    const int file = file_open(path, O_RDONLY, FILE_REGULAR, error);
    FILE *stream = file < 0 ? NULL : fdopen(file, "rb");
    if (file >= 0 && !stream) die("cannot open '%s': %s", path, strerror(errno));
    return stream;
}

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

/* ---- the file while training ---- */

/* One line, whole or not at all. */
static inline void log_append(Log *log, const char *text, int length) {
    struct stat before;
    char error[LOG_ERROR_SIZE];
    if (log->file < 0) return;
    bool known = fstat(log->file, &before) == 0;
    if (file_write(log->file, text, (size_t)length, log->path, error)) return;
    int cause = errno;
    if (known && S_ISREG(before.st_mode) && ftruncate(log->file, before.st_size) != 0) cause = errno;
    if (log->drawn) fprintf(log->screen, "\n"), log->drawn = false;
    if (log->lost_lines++ % 100 == 0) /* a disk stays full for many steps */
        warn("cannot write '%s': %s; %ld line(s) of the log are lost so far, training goes on; free some "
             "space",
             log->path, strerror(cause), log->lost_lines);
}

/* What the screen derives from earlier lines, so that a resumed run shows what an unbroken one would. */
static inline void log_track_validation(Log *log, const LogValidation *v) {
    if (log->best.step < 0 || v->val_loss < log->best.val_loss) log->best = *v;
    log->last = *v;
}

/* The lines up to resume_step, each ending with a newline, moved to the front of text; returns their size. */
static inline size_t log_keep(Log *log, char *text, size_t size, long resume_step) {
    size_t kept = 0, number = 0, bad = 0, first_bad = 0;
    for (char *line = text, *end; line < text + size; line = end + 1) {
        LogTrain train = {0};
        LogValidation v = {0};
        end = memchr(line, '\n', (size_t)(text + size - line));
        bool last = !end;
        if (last) end = text + size;
        size_t length = (size_t)(end - line);
        LogLine kind = log_parse_line(line, length, &train, &v);
        number++;
        if (kind == LOG_LINE_BAD && !last && bad++ == 0) first_bad = number;
        if (kind == LOG_LINE_BAD || kind == LOG_LINE_BLANK || v.step > resume_step) continue;
        if (kind == LOG_LINE_TRAIN) log_smooth(&log->smooth, train.loss);
        if (kind == LOG_LINE_VALIDATION) log_track_validation(log, &v);
        memmove(text + kept, line, length);
        text[kept + length] = '\n'; /* the last line's goes where the file's ending 0 was */
        kept += length + 1;
    }
    if (bad == 1)
        warn("%s:%zu is not a line of a training log and is dropped", log->path, first_bad);
    else if (bad)
        warn("%s: %zu lines are not of a training log and are dropped, the first is line %zu", log->path, bad,
             first_bad);
    return kept;
}

static inline void log_check_lock(const Log *log, bool locked) {
    if (!locked && errno == EWOULDBLOCK)
        die("another process is training into '%s'; stop it or choose another --out folder", log->path);
}

/* A run that begins at step 0 where a log tells of steps, or of what is no log: it is kept aside, since nothing else has
   what it tells. */
static inline void log_set_aside(const Log *log, const char *text, size_t size) {
    char aside[sizeof log->path + 16], error[LOG_ERROR_SIZE];
    bool tells = false;
    for (const char *line = text, *end; line < text + size && !tells; line = end + 1) {
        LogTrain train;
        LogValidation v = {0};
        end = memchr(line, '\n', (size_t)(text + size - line));
        if (!end) end = text + size;
        tells = log_parse_line(line, (size_t)(end - line), &train, &v) != LOG_LINE_VALIDATION || v.step > 0;
    }
    if (!tells) return;
    snprintf(aside, sizeof aside, "%s.old", log->path);
    for (int again = 2; again < 1000 && access(aside, F_OK) == 0; again++)
        snprintf(aside, sizeof aside, "%s.old%d", log->path, again);
    if (!file_write_whole(aside, text, size, error)) die("%s", error);
    warn("no checkpoint has the steps that '%s' tells of: training begins at step 0, and the log is kept as "
         "'%s'",
         log->path, aside);
}

/* Rewrites the file to text through a second one, so that a crash here loses nothing. */
static inline void log_replace(Log *log, const char *text, size_t size) {
    char path[sizeof log->path + 8];
    snprintf(path, sizeof path, "%s.tmp", log->path);
    char error[LOG_ERROR_SIZE];
    int file = file_open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND, FILE_REGULAR, error), old = log->file;
    if (file < 0) die("%s; choose another --out folder", error);
    if (!file_write(file, text, size, path, error) || fsync(file) != 0) {
        int cause = errno;
        unlink(path);
        die("cannot write '%s': %s; free some space or choose another --out folder", path, strerror(cause));
    }
    log->file = file;
    log_check_lock(log, flock(file, LOCK_EX | LOCK_NB) == 0);
    if (rename(path, log->path) != 0) die("cannot rename '%s' to '%s': %s", path, log->path, strerror(errno));
    close(old);
}

static inline void log_open_file(Log *log, const char *run_folder, long resume_step) {
    char error[LOG_ERROR_SIZE], part[sizeof log->path + 8];
    if (snprintf(log->path, sizeof log->path, "%s/log.jsonl", run_folder) >= (int)sizeof log->path)
        die("the path of run folder '%.200s...' is too long; use a shorter name", run_folder);
    bool locked;
    log->file = file_open_locked(log->path, O_RDWR | O_CREAT | O_APPEND, &locked, error);
    if (log->file < 0) die("%s; choose another --out folder", error);
    log_check_lock(log, locked);
    snprintf(part, sizeof part, "%s.tmp", log->path);
    unlink(part); /* of log_replace in a run that was killed */
    size_t size = 0, kept = 0;
    char *text = file_read_open(log->file, log->path, FILE_NO_LIMIT, &size, error);
    if (!text) die("%s", error);
    if (resume_step > 0) kept = log_keep(log, text, size, resume_step);
    if (resume_step <= 0) log_set_aside(log, text, size);
    if (kept != size) log_replace(log, text, kept);
    free(text);
}

/* ---- the screen ---- */

/* 1, 2, 5, 10, 20, 50, ...: the most of them that give at least LOG_PLAIN_LINES lines. */
static inline long log_plain_every(long steps) {
    static const int ladder[] = {1, 2, 5};
    long every = 1, decade = 1;
    for (int i = 0; decade <= steps && ladder[i] * decade * LOG_PLAIN_LINES <= steps; i = (i + 1) % 3) {
        every = ladder[i] * decade;
        if (i == 2) decade *= 10;
    }
    return every;
}

static inline void log_open(Log *log, const char *run_folder, long resume_step, long total_steps,
                            bool quiet) {
    *log = (Log){.file = -1,
                 .total_steps = total_steps,
                 .best.step = -1,
                 .last.step = -1,
                 .screen = quiet ? NULL : stdout};
    log->terminal = program_on_terminal(stdout);
    log->plain_every = log_plain_every(total_steps - (resume_step > 0 ? resume_step : 0));
    if (run_folder) log_open_file(log, run_folder, resume_step);
}

static inline void log_flush(const Log *log) {
    if (log->screen == stdout)
        check_flush();
    else
        fflush(log->screen);
}

/* Takes the progress line off a terminal, so that a lasting line can take its place. */
static inline void log_clear(Log *log) {
    if (log->drawn) fprintf(log->screen, "\r\033[K");
    log->drawn = false;
}

/* What fits: a text that reaches the last column wraps, and a wrapped line cannot be rewritten in place. */
static inline int log_columns(const Log *log) {
    struct winsize window = {0};
    if (!log->terminal) return LOG_TEXT_SIZE;
    if (log->columns > 0) return log->columns - 1;
    bool known = ioctl(fileno(log->screen), TIOCGWINSZ, &window) == 0 && window.ws_col > 1;
    return (known ? window.ws_col : 80) - 1;
}

/* The cursor goes back to the first column: a ^C or an error message then does not trail the line. */
static inline void log_draw(Log *log) {
    fprintf(log->screen, "\r%.*s\033[K\r", log_columns(log), log->line);
    log->drawn = true, log->pending = false;
}

static inline void log_heading(Log *log) {
    char text[LOG_TEXT_SIZE];
    log_line(text, NULL, log->total_steps);
    fprintf(log->screen, "%.*s\n", log_columns(log), text);
    log->lines_since_heading = 0;
}

static inline void log_show(Log *log, const LogRow *row) {
    bool first = !log->begun, last = log->total_steps > 0 && row->train.step >= log->total_steps;
    double since = row->train.seconds - log->drawn_seconds;
    bool due = log->terminal ? !(since >= 0 && since < LOG_REDRAW_SECONDS)
                             : row->train.step >= log->next_plain || since >= LOG_PLAIN_SECONDS;
    log_line(log->line, row, log->total_steps);
    log->pending = true;
    if (!first && !last && !due) return;
    if (first || (log->terminal && log->lines_since_heading >= 20)) log_clear(log), log_heading(log);
    if (log->terminal)
        log_draw(log);
    else
        fprintf(log->screen, "%s\n", log->line), log->pending = false;
    log->drawn_seconds = row->train.seconds;
    log->next_plain = (row->train.step / log->plain_every + 1) * log->plain_every;
    log_flush(log);
}

static inline void log_train(Log *log, const LogTrain *train) {
    char text[LOG_TEXT_SIZE];
    LogRow row = {.train = *train, .smoothed = log_smooth(&log->smooth, train->loss), .left = NAN};
    if (!log->begun) log->first_step = train->step, log->first_seconds = train->seconds;
    if (train->step > log->first_step && log->total_steps > 0)
        row.left = (train->seconds - log->first_seconds) / (double)(train->step - log->first_step) *
                   (double)(log->total_steps - train->step);
    log_append(log, text, log_json_train(text, train));
    if (log->screen) log_show(log, &row);
    log->begun = true;
}

/* A lasting line above the progress line. */
__attribute__((format(printf, 2, 0))) static inline void log_print(Log *log, const char *format,
                                                                   va_list arguments) {
    if (!log->screen) return;
    char text[CHECK_TEXT_SIZE], printable[4 * CHECK_TEXT_SIZE];
    bool redraw = log->drawn;
    log_clear(log);
    vsnprintf(text, sizeof text, format, arguments);
    check_printable(printable, sizeof printable, text, strlen(text), true);
    fprintf(log->screen, "%s\n", printable);
    log->lines_since_heading++;
    if (redraw) log_draw(log);
    log_flush(log);
}

__attribute__((format(printf, 2, 3))) static inline void log_message(Log *log, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    log_print(log, format, arguments);
    va_end(arguments);
}

static inline void log_validation(Log *log, long step, double val_loss) {
    char text[LOG_TEXT_SIZE], cell[LOG_CELL_SIZE];
    LogValidation v = {.step = step, .val_loss = val_loss}, best = log->best;
    LogRow row = {.train.step = step};
    log_append(log, text, log_json_validation(text, &v));
    log_track_validation(log, &v);
    log_cell(cell, &log_fields[0], &row, log->total_steps);
    int width = log_width(&log_fields[0], log->total_steps);
    if (best.step >= 0 && !(val_loss < best.val_loss))
        log_message(log, "%*s  validation loss %.4f (best: %.4f at step %ld)", width, cell, val_loss,
                    best.val_loss, best.step);
    else
        log_message(log, "%*s  validation loss %.4f", width, cell, val_loss);
}

static inline void log_touch(Log *log) {
    const time_t now = time(NULL);
    if (log->file < 0 || (now >= log->touched && now - log->touched < LOG_TOUCH_SECONDS)) return;
    log->touched = now;
    futimens(log->file, NULL); /* where that cannot be done, the lines alone tell */
}

static inline void log_sync(Log *log) {
    if (log->file >= 0 && fsync(log->file) != 0)
        warn("cannot write '%s': %s; free some space", log->path, strerror(errno));
}

static inline void log_close(Log *log) {
    if (log->screen && log->pending) {
        if (log->terminal)
            log_draw(log);
        else
            fprintf(log->screen, "%s\n", log->line);
    }
    if (log->screen && log->drawn) fprintf(log->screen, "\n");
    if (log->screen) log_flush(log);
    if (log->file >= 0 && close(log->file) != 0)
        warn("cannot write '%s': %s; free some space", log->path, strerror(errno));
    log->file = -1, log->drawn = false, log->pending = false;
}

#endif
