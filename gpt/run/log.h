/* log.h: what a run writes while it trains: log.jsonl for programs, and a progress line on the screen. The numbers are
   those of the table in log_fields.h; log_read.h reads the file.

   log_open(&log, run_folder, resume_step, total_steps, quiet)   run_folder NULL: no file; quiet: nothing on the screen.
       With resume_step > 0 the lines of RUN/log.jsonl up to that step stay; later ones, and an incomplete one that a
       crash left, are removed, so that no step appears twice. Otherwise the file starts empty, and a log that was there
       is kept as log.jsonl.old (.old2, ...). Dies when the file cannot be opened or another process is writing it.
   log_train(&log, &train)       writes the line of a training step to log.jsonl, in one write, and the progress line
   log_validation(&log, &validation)   writes a validation: a line of log.jsonl, and a line on the screen. That line
                                 also names the lowest validation loss so far if this one is not lower, and the other
                                 numbers of the validation as far as they fit into 80 columns
   log_message(&log, fmt, ...)   prints a line on the screen, above the progress line
   log_touch(&log)               sets the time of log.jsonl to now, at most every ten seconds. Called within long steps,
                                 so that a program that watches the age of the file sees that the run is alive
   log_sync(&log)                brings log.jsonl to the disk, and returns when it is there. Called before a checkpoint
                                 is completed: a run that resumes from the checkpoint needs the lines up to its step
   log_close(&log)               prints the latest progress line, if it is not on the screen yet, ends it with a
                                 newline, and closes the file
   A line that cannot be written (a full disk) causes a warning and leaves no part of itself in the file; training goes
   on.

   On a terminal the progress line is rewritten in place, at most ten times a second. Elsewhere, in a pipe or a file,
   plain lines are printed: about thirty in a run and at least one in ten minutes, the first and the last step among
   them. */
#ifndef GPT_RUN_LOG_H
#define GPT_RUN_LOG_H

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "../base/check.h"
#include "../base/format.h"
#include "../base/program.h"
#include "../io/files.h"
#include "../io/json.h"
#include "log_fields.h"
#include "log_read.h"

enum { LOG_PLAIN_LINES = 30, LOG_TOUCH_SECONDS = 10 };
#define LOG_REDRAW_SECONDS 0.1  /* at least, between two drawings on a terminal */
#define LOG_PLAIN_SECONDS 600.0 /* at most, between two plain lines */

typedef struct {
    char path[4096]; /* of log.jsonl */
    int file;        /* its descriptor; -1: nothing is written */
    FILE *screen;    /* NULL: quiet */
    bool terminal;   /* the progress line is rewritten in place */
    int columns;     /* width of the terminal in characters; 0: the terminal is asked for it each time */
    long total_steps;
    long plain_every; /* not on a terminal: a plain line is printed every so many steps */
    long next_plain;  /* not on a terminal: the step of the next plain line */
    LogSmooth smooth;
    LogValidation best, last; /* the validation with the lowest loss, and the latest one; step -1: none yet */
    long analysed_step;       /* of the latest analysis (analysis.h); -1: none yet */
    bool begun;               /* log_train was called */
    bool pending;             /* the progress line of the latest step is not on the screen yet */
    bool drawn;               /* the progress line stands on the terminal, not ended by a newline */
    double first_seconds, drawn_seconds; /* LogTrain.seconds of the first step and of the latest one drawn */
    long first_step, lost_lines;
    int lines_since_heading;
    time_t touched;           /* when log_touch last set the time of the file */
    char line[LOG_TEXT_SIZE]; /* the progress line */
} Log;

/* ---- the texts of a line ---- */

/* Whether this run has several ranks; the program sets it before the first line. */
static bool log_several_ranks;

/* Whether the progress line has a column for this field. */
static inline bool log_shows(const LogField *field) {
    return field->width > 0 && (!field->ranks || log_several_ranks);
}

/* The width of a column; that of the step grows with the number of steps. */
static inline int log_width(const LogField *field, long total_steps) {
    if (field->style != LOG_STYLE_STEP) return field->width;
    int width = total_steps > 0 ? snprintf(NULL, 0, "%ld/%ld", total_steps, total_steps) : 8;
    return width > field->width ? width : field->width;
}

/* The text between two columns: two spaces, or one where the line would otherwise be longer than 79 characters. */
static inline const char *log_gap(long total_steps) {
    int width = 0;
    for (int i = 0; i < LOG_FIELDS; i++)
        if (log_shows(&log_fields[i])) width += log_width(&log_fields[i], total_steps) + (i > 0 ? 2 : 0);
    return width <= 79 ? "  " : " ";
}

/* Writes the progress line of a step to `text`; with row = NULL the line of headings. */
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

/* A line of log.jsonl with its newline; returns its length. */
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
    LogValidation values = *v;
    int used = snprintf(text, LOG_TEXT_SIZE, "{\"step\": %ld", v->step);
    for (int i = 0; i < LOG_VALIDATION_FIELDS; i++) {
        const LogValidationField *field = &log_validation_fields[i];
        const double x = *log_validation_number(field, &values);
        if (field->optional && !isfinite(x)) continue;
        used += snprintf(text + used, (size_t)(LOG_TEXT_SIZE - used), ", \"%s\": ", field->key);
        used += json_number_text(text + used, (size_t)(LOG_TEXT_SIZE - used), x, 17);
    }
    return used + snprintf(text + used, (size_t)(LOG_TEXT_SIZE - used), "}\n");
}

/* A validation as the screen shows it, with at most `room` characters, or the loss alone where that is longer. `best`
   is the text about the lowest loss, or "". */
static inline void log_validation_line(char text[LOG_TEXT_SIZE], const LogValidation *v, const char *best,
                                       int room) {
    LogValidation values = *v;
    int used = 0;
    room -= (int)strlen(best);
    for (int i = 0; i < LOG_VALIDATION_FIELDS; i++) {
        const LogValidationField *field = &log_validation_fields[i];
        const double x = *log_validation_number(field, &values);
        char number[FORMAT_SIZE], part[3 * FORMAT_SIZE];
        if (field->optional && !isfinite(x)) continue;
        number_fixed(number, x, field->decimals, field->width, "");
        const int n = snprintf(part, sizeof part, "%s%s%s", field->before, number, field->after);
        if (i == 0 || used + n <= room)
            used += snprintf(text + used, (size_t)(LOG_TEXT_SIZE - used), "%s", part);
    }
    snprintf(text + used, (size_t)(LOG_TEXT_SIZE - used), "%s", best);
}

/* ---- the file ---- */

/* Appends one line to the file. When that fails, the part of the line that was written is removed again, and the user
   is warned. */
static inline void log_append(Log *log, const char *text, int length) {
    struct stat before;
    char error[LOG_ERROR_SIZE];
    if (log->file < 0) return;
    bool known = fstat(log->file, &before) == 0;
    if (file_write(log->file, text, (size_t)length, log->path, error)) return;
    int cause = errno;
    if (known && S_ISREG(before.st_mode) && ftruncate(log->file, before.st_size) != 0) cause = errno;
    if (log->drawn) fprintf(log->screen, "\n"), log->drawn = false;
    if (log->lost_lines++ % 100 == 0) /* a full disk stays full for many steps: one warning in a hundred */
        warn("cannot write '%s': %s; %ld line(s) of the log are lost so far, training goes on; free some "
             "space",
             log->path, strerror(cause), log->lost_lines);
}

/* Notes a validation: the latest one and, when its loss is the lowest so far, the best one. */
static inline void log_track_validation(Log *log, const LogValidation *v) {
    if (log->best.step < 0 || v->val_loss < log->best.val_loss) log->best = *v;
    log->last = *v;
}

/* `text` is the log of the run, text[size] = 0. Removes from it the lines of steps after resume_step, and lines that
   are damaged or blank; the others move to its front. Returns their size in bytes. The smoothed loss and the best
   validation are computed from these lines, so that a resumed run shows what an uninterrupted one would. */
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
        if (kind == LOG_LINE_ANALYSIS) log->analysed_step = v.step;
        memmove(text + kept, line, length);
        text[kept + length] = '\n'; /* when the last line has no newline, this may overwrite text[size] */
        kept += length + 1;
    }
    if (bad == 1)
        warn("%s:%zu is not a line of a training log and is dropped", log->path, first_bad);
    else if (bad)
        warn("%s: %zu lines are not of a training log and are dropped, the first is line %zu", log->path, bad,
             first_bad);
    return kept;
}

/* Dies when another process holds the lock of the log. */
static inline void log_check_lock(const Log *log, bool locked) {
    if (!locked && errno == EWOULDBLOCK)
        die("another process is training into '%s'; stop it or choose another --out folder", log->path);
}

/* For a run that begins at step 0 in a folder that already has a log. If that log holds training steps, or is no log at
   all, it is copied to log.jsonl.old (.old2, ...), because nothing else records those steps. */
static inline void log_set_aside(const Log *log, const char *text, size_t size) {
    char aside[sizeof log->path + 16], error[LOG_ERROR_SIZE];
    bool has_steps = false;
    for (const char *line = text, *end; line < text + size && !has_steps; line = end + 1) {
        LogTrain train;
        LogValidation v = {0};
        end = memchr(line, '\n', (size_t)(text + size - line));
        if (!end) end = text + size;
        const LogLine kind = log_parse_line(line, (size_t)(end - line), &train, &v);
        /* A run that ended before its first step has only the lines of a validation and an analysis after 0 steps. */
        has_steps = (kind != LOG_LINE_VALIDATION && kind != LOG_LINE_ANALYSIS) || v.step > 0;
    }
    if (!has_steps) return;
    snprintf(aside, sizeof aside, "%s.old", log->path);
    for (int again = 2; again < 1000 && access(aside, F_OK) == 0; again++)
        snprintf(aside, sizeof aside, "%s.old%d", log->path, again);
    if (!file_write_whole(aside, text, size, error)) die("%s", error);
    warn("'%s' has steps of which there is no checkpoint: training begins at step 0, and the log is kept as "
         "'%s'",
         log->path, aside);
}

/* Replaces the content of log.jsonl by `text`: writes log.jsonl.tmp and renames it, so that a crash at any moment
   leaves one of the two, complete. */
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

/* Opens RUN/log.jsonl, locks it, and removes the lines of steps after `resume_step`, at which the run continues. */
static inline void log_open_file(Log *log, const char *run_folder, long resume_step) {
    char error[LOG_ERROR_SIZE], part[sizeof log->path + 8];
    if (snprintf(log->path, sizeof log->path, "%s/log.jsonl", run_folder) >= (int)sizeof log->path)
        die("the path of run folder '%.200s...' is too long; use a shorter name", run_folder);
    bool locked;
    log->file = file_open_locked(log->path, O_RDWR | O_CREAT | O_APPEND, &locked, error);
    if (log->file < 0) die("%s; choose another --out folder", error);
    log_check_lock(log, locked);
    snprintf(part, sizeof part, "%s.tmp", log->path);
    unlink(part); /* a run that was killed in log_replace leaves this file */
    size_t size = 0, kept = 0;
    char *text = file_read_open(log->file, log->path, FILE_NO_LIMIT, &size, error);
    if (!text) die("%s", error);
    if (resume_step > 0) kept = log_keep(log, text, size, resume_step);
    if (resume_step <= 0) log_set_aside(log, text, size);
    if (kept != size) log_replace(log, text, kept);
    free(text);
}

/* ---- the screen ---- */

/* How many steps lie between two plain lines: the largest of 1, 2, 5, 10, 20, 50, ... that gives at least
   LOG_PLAIN_LINES lines. */
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
                 .analysed_step = -1,
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

/* Erases the progress line, so that a line that stays can be printed in its place. */
static inline void log_clear(Log *log) {
    if (log->drawn) fprintf(log->screen, "\r\033[K");
    log->drawn = false;
}

/* How many characters of a line are printed. On a terminal the last column stays free: a terminal breaks a line that
   reaches it into two, and two lines cannot be rewritten in place. */
static inline int log_columns(const Log *log) {
    struct winsize window = {0};
    if (!log->terminal) return LOG_TEXT_SIZE;
    if (log->columns > 0) return log->columns - 1;
    bool known = ioctl(fileno(log->screen), TIOCGWINSZ, &window) == 0 && window.ws_col > 1;
    return (known ? window.ws_col : 80) - 1;
}

/* Draws the progress line over the old one. The cursor then returns to the first column, so that a ^C or an error
   message does not stand behind the line. */
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

/* Draws the line of a step on a terminal, or prints it elsewhere, when its time has come; the lines of the first and of
   the last step are always shown. */
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

/* log_message with its arguments in a list. */
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

static inline void log_validation(Log *log, const LogValidation *v) {
    char text[LOG_TEXT_SIZE], cell[LOG_CELL_SIZE], best[64] = "";
    const LogRow row = {.train.step = v->step};
    if (log->best.step >= 0 && !(v->val_loss < log->best.val_loss))
        snprintf(best, sizeof best, " (best: %.4f at step %ld)", log->best.val_loss, log->best.step);
    log_append(log, text, log_json_validation(text, v));
    log_track_validation(log, v);
    log_cell(cell, &log_fields[0], &row, log->total_steps);
    const int width = log_width(&log_fields[0], log->total_steps);
    log_validation_line(text, v, best, 79 - width - 2);
    log_message(log, "%*s  %s", width, cell, text);
}

static inline void log_touch(Log *log) {
    const time_t now = time(NULL);
    if (log->file < 0 || (now >= log->touched && now - log->touched < LOG_TOUCH_SECONDS)) return;
    log->touched = now;
    futimens(log->file, NULL); /* where this fails, only new lines change the time of the file */
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
