/* test_log.h: tests of gpt/run/log.h, log_fields.h and log_read.h: log.jsonl written and read, resumed runs, and the
   progress line on a terminal and in a pipe. */
#ifndef TESTS_TEST_LOG_H
#define TESTS_TEST_LOG_H

#include <signal.h>
#include <sys/resource.h>
#include "read_log.h"
#include "../gpt/run/log.h"
#include "harness.h"

static inline LogTrain log_test_row(long step) {
    return (LogTrain){.step = step,
                      .tokens = step * 16384,
                      .loss = 1.2 + 9.6 / (1 + 0.01 * (double)step) +
                              0.1 * rng_normal(3, RNG_STREAM_TEST, (uint64_t)step),
                      .lr = 6e-4 / 7 * (double)(step % 7),
                      .grad_norm = 0.3 + (double)(step % 11) / 3,
                      .seconds = 0.25 * (double)step,
                      .tokens_per_s = 65536.25,
                      .mfu = 0.4321};
}

static inline void log_test_path(char path[256], const char *folder) {
    snprintf(path, 256, "%s/log.jsonl", folder);
}

/* Writes `text` as the folder's log.jsonl. */
static inline void log_test_spill(const char *folder, const char *text, size_t size) {
    char path[256];
    log_test_path(path, folder);
    FILE *file = check_fopen(path, "wb", "");
    check_fwrite(text, 1, size, file, path);
    check_fclose(file, path);
}

/* The content of a file as a string, which the caller frees. */
static inline char *log_test_slurp(const char *folder) {
    char path[256];
    size_t size;
    log_test_path(path, folder);
    return check_file_read(path, FILE_REGULAR, FILE_NO_LIMIT, &size, "");
}

/* Logs a validation of a run whose data has no tokenizer. */
static inline void log_test_validation(Log *log, long step, double loss) {
    const LogValidation v = log_validation_of(step, loss, NAN);
    log_validation(log, &v);
}

/* Logs the steps from..to without a screen, and a validation after every tenth. */
static inline void log_test_steps(Log *log, long from, long to) {
    for (long step = from; step <= to; step++) {
        LogTrain row = log_test_row(step);
        log_train(log, &row);
        if (step % 10 == 0) log_test_validation(log, step, row.loss + 0.1);
    }
}

/* ---- log.jsonl ---- */

/* Scripts read log.jsonl by these keys, line by line: a changed key or a line that is not JSON would break them. */
static void test_log_lines_are_json_with_the_agreed_keys(void) {
    static const char *const keys[] = {"step",    "tokens",       "loss", "lr",     "grad_norm",
                                       "seconds", "tokens_per_s", "mfu",  "loss_z", "skipped"};
    const char *folder = test_folder();
    Log log;
    LogTrain rows[] = {log_test_row(1), log_test_row(2)};
    rows[1].loss = NAN, rows[1].grad_norm = INFINITY, rows[1].lr = -INFINITY, rows[1].mfu = NAN;
    log_open(&log, folder, 0, 2, true);
    log_train(&log, &rows[0]), log_train(&log, &rows[1]);
    log_test_validation(&log, 2, 3.5);
    log_test_validation(&log, 2, NAN);
    char *text = log_test_slurp(folder); /* the file can be read after each line, also before log_close */
    log_close(&log);
    int lines = 0;
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"), lines++) {
        cJSON *json = cJSON_ParseWithOpts(line, NULL, true);
        CHECK(cJSON_IsObject(json), "not JSON: %s", line);
        CHECK(cJSON_GetArraySize(json) == (lines < 2 ? 10 : 2), "%d members: %s", cJSON_GetArraySize(json),
              line);
        for (int k = 0; lines < 2 && k < 10; k++) {
            const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, keys[k]);
            CHECK(item, "no '%s' in %s", keys[k], line);
            bool lost = lines == 1 && (k == 2 || k == 3 || k == 4 || k == 7);
            CHECK(lost ? cJSON_IsNull(item) : cJSON_IsNumber(item), "'%s' in %s", keys[k], line);
        }
        if (lines == 2) CHECK(strcmp(line, "{\"step\": 2, \"val_loss\": 3.5}") == 0, "%s", line);
        if (lines == 3) CHECK(strcmp(line, "{\"step\": 2, \"val_loss\": null}") == 0, "%s", line);
        cJSON_Delete(json);
    }
    CHECK(lines == 4, "%d lines", lines);
    free(text);
}

/* A loss that changes by being written and read would make a report show other numbers than the run had. */
static void test_log_numbers_come_back(void) {
    static const double awkward[] = {0.0,
                                     -0.0,
                                     0.1,
                                     1.0 / 3,
                                     1e-300,
                                     5e-324,
                                     1.7976931348623157e308,
                                     123456789.123456789,
                                     2.718281828459045,
                                     (double)0.1f,
                                     3.0000000000000004};
    enum { N = sizeof awkward / sizeof *awkward };
    const char *folder = test_folder();
    char path[256], error[LOG_ERROR_SIZE] = "";
    Log log;
    LogData data;
    log_test_path(path, folder);
    log_open(&log, folder, 0, N, true);
    for (int i = 0; i < N; i++) {
        LogTrain row = {.step = i + 1,
                        .tokens = INT64_C(9007199254740991) - i,
                        .loss = awkward[i],
                        .lr = awkward[N - 1 - i],
                        .grad_norm = -awkward[i],
                        .seconds = 0.5,
                        .tokens_per_s = NAN,
                        .mfu = (double)0.1f};
        log_train(&log, &row);
        log_test_validation(&log, i + 1, awkward[i]);
    }
    log_close(&log);
    REQUIRE(log_read(path, &data, error), "%s", error);
    REQUIRE(data.n_train == N && data.n_validation == N, "%zu and %zu lines", data.n_train,
            data.n_validation);
    for (int i = 0; i < N; i++) {
        const LogTrain *row = &data.train[i];
        CHECK(memcmp(&row->loss, &awkward[i], 8) == 0, "loss %.17g became %.17g", awkward[i], row->loss);
        CHECK(row->lr == awkward[N - 1 - i] && row->grad_norm == -awkward[i], "lr %.17g, norm %.17g", row->lr,
              row->grad_norm);
        CHECK(row->step == i + 1 && row->tokens == INT64_C(9007199254740991) - i, "step %ld, tokens %lld",
              row->step, (long long)row->tokens);
        CHECK(isnan(row->tokens_per_s) && (float)row->mfu == 0.1f, "tokens/s %g, mfu %g", row->tokens_per_s,
              row->mfu);
        CHECK(data.validation[i].step == i + 1 && data.validation[i].val_loss == awkward[i], "val_loss %.17g",
              data.validation[i].val_loss);
    }
    CHECK(log_number(&log_fields[0], &data.train[2]) == 3, "step of row 2: %g",
          log_number(&log_fields[0], &data.train[2]));
    log_free(&data);
}

/* The user of a damaged log must be told the line to mend. */
static void test_log_read_names_the_bad_line(void) {
    static const struct {
        const char *text;
        int train, validation,
            bad; /* `bad` is the line that the error must name; 0: there must be no error */
    } cases[] = {
        {"", 0, 0, 0},
        {"{\"step\": 1, \"loss\": 2}\n", 1, 0, 0},
        {"{\"step\": 1, \"loss\": 2}", 1, 0, 0},
        {"{\"loss\": null, \"step\": 1, \"new_key\": [1, {}]}\r\n{\"val_loss\": 1, \"step\": 0}\n", 1, 1, 0},
        {"{\"step\": 1, \"loss\": 2}\n{\"step\": 2, \"los", 1, 0, 0},
        {"{\"step\": 1, \"loss\": 2}\n\0\0\0\0", 1, 0, 0},
        {"{\"step\": 1, \"event\": \"spike\"}\n{}\n{\"step\": 3, \"val_loss\": 2}\n", 0, 1, 0},
        {"{\"step\": 1, \"los\n{\"step\": 2, \"loss\": 2}\n", 0, 0, 1},
        {"{\"step\": 1, \"loss\": 2}\n\n \t\r\n{\"step\": 2, \"loss\": 2}\n\n", 2, 0, 0},
        {"\n\n{\"step\": 1, \"loss\": 2}\n{\"step\": 2, \"loss\": \n\n", 0, 0, 4},
        {"{\"step\": 1, \"loss\": 2}\n{\"step\": 2, \"loss\": 2} x\n", 0, 0, 2},
        {"{\"step\": 1, \"loss\": \"2\"}\n", 0, 0, 1},
        {"{\"step\": \"1\", \"loss\": 2}\n", 0, 0, 1},
        {"{\"step\": 1, \"val_loss\": []}\n", 0, 0, 1},
        {"{\"step\": 1, \"loss\": 2, \"tokens\": -5}\n", 0, 0, 1},
        {"[1]\n", 0, 0, 1},
    };
    const char *folder = test_folder();
    char path[256], place[300];
    log_test_path(path, folder);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        LogData data;
        char error[LOG_ERROR_SIZE] = "no error";
        /* the case with zero bytes has four of them at its end */
        log_test_spill(folder, cases[i].text, strlen(cases[i].text) + (i == 5 ? 4 : 0));
        bool ok = log_read(path, &data, error);
        snprintf(place, sizeof place, "%s:%d ", path, cases[i].bad);
        CHECK(ok == (cases[i].bad == 0), "case %zu: %s", i, error);
        CHECK(ok || strstr(error, place), "case %zu: '%s' should name line %d", i, error, cases[i].bad);
        CHECK((int)data.n_train == cases[i].train && (int)data.n_validation == cases[i].validation,
              "case %zu: %zu training lines, %zu validation lines", i, data.n_train, data.n_validation);
        log_free(&data);
    }
    LogData data;
    char error[LOG_ERROR_SIZE] = "no error", *large = check_calloc(LOG_LINE_MAX + 100);
    /* a line that is longer than LOG_LINE_MAX is refused; one of another kind and just as long as that is read */
    for (int over = -30; over <= 30; over += 60) {
        int note = LOG_LINE_MAX - 30 + over;
        memset(large, 'x', LOG_LINE_MAX + 99);
        memcpy(large, "{\"note\": \"", 10), strcpy(large + note, "\"}\n{\"step\": 1, \"loss\": 2}\n");
        log_test_spill(folder, large, strlen(large));
        bool ok = log_read(path, &data, error);
        CHECK(ok == (over < 0), "a line of %d bytes: %s", note + 2, error);
        CHECK(ok ? data.n_train == 1 : strstr(error, "log.jsonl:1 ") != NULL, "%zu, %s", data.n_train, error);
        log_free(&data);
    }
    free(large);
    CHECK(!log_read("/nowhere/log.jsonl", &data, error) && strstr(error, "/nowhere/log.jsonl"), "'%s'",
          error);
}

/* Bits per byte and perplexity are read back as they were written, and their keys are left out where they are not known:
   logs of data without a tokenizer, and those of older versions, have the key val_loss alone. */
static void test_log_validation_has_three_units(void) {
    static const struct {
        double loss, bytes_per_token;
        const char *line;
    } cases[] = {
        {2, 4,
         "{\"step\": 7, \"val_loss\": 2, \"val_bits_per_byte\": 0.72134752044448169, "
         "\"val_perplexity\": 7.3890560989306504}\n"},
        {2, NAN, "{\"step\": 7, \"val_loss\": 2}\n"},
        {0, 0, "{\"step\": 7, \"val_loss\": 0, \"val_perplexity\": 1}\n"},
        {NAN, 4, "{\"step\": 7, \"val_loss\": null}\n"},
        {1000, 4, "{\"step\": 7, \"val_loss\": 1000, \"val_bits_per_byte\": 360.67376022224084}\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[LOG_TEXT_SIZE];
        LogTrain train;
        LogValidation back = {0};
        const LogValidation v = log_validation_of(7, cases[i].loss, cases[i].bytes_per_token);
        const int length = log_json_validation(text, &v);
        CHECK(strcmp(text, cases[i].line) == 0, "'%s', expected '%s'", text, cases[i].line);
        CHECK(log_parse_line(text, (size_t)length - 1, &train, &back) == LOG_LINE_VALIDATION &&
                  back.step == 7,
              "'%s' is not read as a validation", text);
        for (int f = 0; f < LOG_VALIDATION_FIELDS; f++) {
            LogValidation wrote = v;
            const double x = *log_validation_number(&log_validation_fields[f], &wrote),
                         y = *log_validation_number(&log_validation_fields[f], &back);
            CHECK(isfinite(x) ? x == y : isnan(y), "%s: wrote %.17g, read %.17g", text, x, y);
        }
    }
    static const char wrong[] = "{\"step\": 7, \"val_loss\": 2, \"val_perplexity\": \"e\"}\n";
    LogTrain train;
    LogValidation v;
    CHECK(log_parse_line(wrong, sizeof wrong - 2, &train, &v) == LOG_LINE_BAD, "'%s' was accepted", wrong);
}

/* ---- resuming ---- */

/* A run is killed at any point after step 30 and resumed from the checkpoint of step 30. Its log must be the same as
   without the kill: steps that stand there twice, or not at all, would falsify every plot. */
static void test_log_resume_has_no_doubles(void) {
    const char *folder = test_folder();
    Log log;
    log_open(&log, folder, 0, 40, true);
    log_test_steps(&log, 1, 40);
    double smoothed = log.smooth.sum;
    LogValidation best = log.best;
    log_close(&log);
    char *whole = log_test_slurp(folder);
    size_t size = strlen(whole), at = (size_t)(strstr(whole, "{\"step\": 31,") - whole);
    int cuts = 0;
    for (size_t cut = at; cut <= size; cut += cut + 1 < size && cut > at + 300 ? 61 : 1, cuts++) {
        log_test_spill(folder, whole, cut);
        log_open(&log, folder, 30, 40, true);
        char *kept = log_test_slurp(folder);
        CHECK(strlen(kept) == at && memcmp(kept, whole, at) == 0, "cut at %zu: kept %zu bytes of %zu", cut,
              strlen(kept), at);
        log_test_steps(&log, 31, 40);
        CHECK(log.smooth.sum == smoothed, "smoothed loss %g, unbroken %g", log.smooth.sum, smoothed);
        CHECK(log.best.step == best.step && log.best.val_loss == best.val_loss, "best at step %ld",
              log.best.step);
        log_close(&log);
        char *again = log_test_slurp(folder);
        CHECK(strcmp(again, whole) == 0, "cut at %zu: the log differs from the unbroken one", cut);
        free(kept), free(again);
    }
    CHECK(cuts > 300, "%d cuts", cuts);
    log_open(&log, folder, 0, 40, true); /* a run that begins at step 0 begins an empty file */
    log_close(&log);
    char *empty = log_test_slurp(folder);
    CHECK(*empty == 0, "a fresh run keeps %zu bytes", strlen(empty));
    free(empty), free(whole);
}

static void log_test_resume_damaged(void *folder) {
    Log log;
    log_open(&log, folder, 9, 10, true);
    log_test_steps(&log, 10, 10);
    log_close(&log);
}

/* One damaged line in the middle must be dropped with a warning; all other lines must stay. */
static void test_log_resume_drops_a_bad_line(void) {
    static const char text[] =
        "{\"step\": 1, \"loss\": 2}\n{\"step\": 2, \"lo\n{\"note\": 1}\n{\"step\": 3, \"loss\": 4}";
    const char *folder = test_folder();
    char output[1024], name[300];
    for (int many = 0; many < 2; many++) { /* several damaged lines give one warning with their number */
        char *spilled = check_calloc(sizeof text + 4000);
        strcpy(spilled, text);
        if (many) {
            char *rest = strstr(spilled, "{\"note");
            memmove(rest + 4000, rest, strlen(rest) + 1);
            for (int i = 0; i < 2000; i++) memcpy(rest + 2 * i, i % 2 ? "\n\n" : "x\n", 2);
        }
        log_test_spill(folder, spilled, strlen(spilled));
        free(spilled);
        int code = test_death(log_test_resume_damaged, (void *)(uintptr_t)folder, output, sizeof output);
        if (many)
            snprintf(name, sizeof name, "%s/log.jsonl: 1001 lines are not of a training log", folder);
        else
            snprintf(name, sizeof name, "%s/log.jsonl:2 ", folder);
        CHECK(code == 0 && strstr(output, name), "code %d, '%s' should say '%s'", code, output, name);
        const char *end = strchr(output, '\n');
        CHECK(end && !end[1], "more than one line: %s", output);
        char *kept = log_test_slurp(folder);
        CHECK(
            strncmp(kept,
                    "{\"step\": 1, \"loss\": 2}\n{\"note\": 1}\n{\"step\": 3, \"loss\": 4}\n{\"step\": 10, ",
                    70) == 0,
            "kept %s", kept);
        free(kept);
    }
}

static void log_test_open(void *folder) {
    Log log;
    log_open(&log, folder, 5, 10, true);
}

/* Logs of older versions have the key comm_hidden where newer ones have comm_overlap. Old runs must stay readable. */
static void test_log_reads_old_keys(void) {
    static const char *const lines[] = {"{\"step\": 1, \"loss\": 2, \"comm_hidden\": 0.25}",
                                        "{\"step\": 1, \"loss\": 2, \"comm_overlap\": 0.25}"};
    for (int i = 0; i < 2; i++) {
        LogTrain train;
        LogValidation validation;
        const LogLine kind = log_parse_line(lines[i], strlen(lines[i]), &train, &validation);
        CHECK(kind == LOG_LINE_TRAIN && train.comm_overlap == 0.25, "%s: %g", lines[i], train.comm_overlap);
    }
}

/* Two trainers that write into one folder would mix their logs and overwrite each other's checkpoints. */
static void test_log_refuses_a_second_writer(void) {
    const char *folder = test_folder();
    char output[1024];
    Log log;
    log_open(&log, folder, 0, 10, true);
    int code = test_death(log_test_open, (void *)(uintptr_t)folder, output, sizeof output);
    CHECK(code == 1 && strstr(output, "another process is training"), "code %d: %s", code, output);
    log_close(&log);
    code = test_death(log_test_open, (void *)(uintptr_t)folder, output, sizeof output);
    CHECK(code == 0, "closed, still refused: %s", output);
    code = test_death(log_test_open, (void *)(uintptr_t) "/nowhere", output, sizeof output);
    CHECK(code == 1 && strstr(output, "/nowhere/log.jsonl"), "code %d: '%s' should name the file", code,
          output);
}

static void log_test_full_disk(void *folder) {
    struct rlimit limit;
    Log log;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &limit);
    log_open(&log, folder, 0, 60, true);
    log_test_steps(&log, 1, 20);
    struct stat about;
    fstat(log.file, &about);
    setrlimit(RLIMIT_FSIZE,
              &(struct rlimit){(rlim_t)about.st_size + 50, limit.rlim_max}); /* in the middle of a line */
    log_test_steps(&log, 21, 40);
    setrlimit(RLIMIT_FSIZE, &limit);
    log_test_steps(&log, 41, 60);
    log_close(&log);
}

/* When the log cannot be written, the user must be told so, once and not for every step, and the log must stay
   readable. */
static void test_log_full_disk(void) {
    const char *folder = test_folder();
    char output[4096], path[256], error[LOG_ERROR_SIZE] = "";
    int code = test_death(log_test_full_disk, (void *)(uintptr_t)folder, output, sizeof output);
    const char *warning = strstr(output, "warning: cannot write");
    CHECK(code == 0 && warning && strstr(output, "log.jsonl"), "code %d, '%s'", code, output);
    CHECK(warning && !strstr(warning + 1, "warning"), "one warning is enough for 22 lines: %s", output);
    LogData data;
    log_test_path(path, folder);
    REQUIRE(log_read(path, &data, error), "%s", error);
    CHECK(data.n_train == 40 && data.train[19].step == 20 && data.train[20].step == 41,
          "%zu lines, step %ld after 20", data.n_train, data.train[20].step);
    log_free(&data);
}

/* ---- the screen ---- */

/* A log whose screen is a file, which log_test_shown reads. */
static inline void log_test_screen(Log *log, long resume_step, long total_steps, bool terminal, int columns) {
    log_open(log, NULL, resume_step, total_steps, true);
    log->screen = tmpfile();
    if (!log->screen) die("tmpfile: %s", strerror(errno));
    log->terminal = terminal, log->columns = columns;
}

static inline size_t log_test_shown(Log *log, char *text, size_t size) {
    rewind(log->screen);
    size_t n = fread(text, 1, size - 1, log->screen);
    text[n] = 0;
    fclose(log->screen);
    return n;
}

/* The lines that a terminal of `columns` columns shows after these bytes, without blanks at their ends. It obeys
   carriage return, newline and "erase to the end of the line", and breaks longer lines. */
static inline int log_test_terminal(char lines[64][128], const char *bytes, int columns) {
    int row = 0, column = 0;
    memset(lines, 0, 64 * sizeof lines[0]);
    for (const char *b = bytes; *b && row < 63; b++) {
        if (*b == '\r')
            column = 0;
        else if (*b == '\n')
            row++, column = 0;
        else if (strncmp(b, "\033[K", 3) == 0)
            memset(lines[row] + column, 0, sizeof lines[0] - (size_t)column), b += 2;
        else {
            if (column == columns) row++, column = 0;
            lines[row][column++] = *b;
        }
    }
    for (int i = 0; i <= row; i++)
        for (int c = 126; c >= 0; c--) {
            if (lines[i][c] && lines[i][c] != ' ') break;
            lines[i][c] = 0;
        }
    return row + (column > 0);
}

/* A longer line would be broken by most terminals and could not be read as a column. */
static void test_log_line_fits_80_columns(void) {
    static const long totals[] = {0, 1, 99, 2000, 160000, 9999999};
    const double inf = INFINITY;
    const LogRow rows[] = {
        {{1, 1, 10.8254, 1e-4, 0.853, 0.1, 12345, 0.452, 0, 0, 0}, 10.8254, NAN},
        {{1, 0, NAN, NAN, NAN, NAN, NAN, NAN, NAN, 0, 0}, NAN, NAN},
        {{1, 0, inf, inf, inf, inf, inf, inf, inf, 0, 0}, inf, inf},
        {{1, 1, 1e30, 1e-30, 1e30, 1e30, 1e17, 99, 0, 0, 0}, 1e30, 1e30},
        {{1, 1, -1234.5678, 0, 99999.5, 359999.6, 999.96, 1.5, 0, 0, 0}, 123456.7, 863999},
        {{1, 1, 9.99996, 0.99, 999999, 3599.7, 999949, 0.99999, 0, 0, 0}, 99.99996, 59.6},
    };
    for (size_t t = 0; t < sizeof totals / sizeof *totals; t++) {
        char heading[LOG_TEXT_SIZE], line[LOG_TEXT_SIZE];
        log_line(heading, NULL, totals[t]);
        CHECK(strlen(heading) <= 79, "%zu columns: '%s'", strlen(heading), heading);
        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
            LogRow row = rows[i];
            row.train.step = totals[t];
            log_line(line, &row, totals[t]);
            CHECK(strlen(line) == strlen(heading), "%zu columns, heading %zu: '%s'", strlen(line),
                  strlen(heading), line);
        }
    }
    char line[LOG_TEXT_SIZE];
    LogRow row = {{500, 8192000, 3.12341, 6e-4, 0.85349, 83, 12345.6, 0.4524, 0, 0, 0}, 3.15, 4000};
    log_line(line, &row, 2000);
    const char *want = " 500/2000  3.1234  3.1500  6.0e-04   0.853   12.3k  45.2%     1:23  1:06:40";
    CHECK(strcmp(line, want) == 0, "\n'%s', expected\n'%s'", line, want);
}

/* A line of a validation that were longer than 79 characters would be cut on a terminal, so that the number at its end
   would be wrong. */
static void test_log_validation_fits_80_columns(void) {
    static const struct {
        double best, loss, bytes_per_token;
        const char *shown;
    } cases[] = {
        {NAN, 2.6949, 4.2136, "validation loss 2.6949, 0.9227 bits/byte, perplexity 14.80"},
        {NAN, 10.3735, 4.2136, "validation loss 10.3735, 3.5518 bits/byte, perplexity 32000.3"},
        {2.5, 2.6949, 4.2136, "validation loss 2.6949, 0.9227 bits/byte (best: 2.5000 at step 1)"},
        {2.5, 2.6949, NAN, "validation loss 2.6949 (best: 2.5000 at step 1)"},
        {2.5, NAN, 4.2136, "validation loss nan (best: 2.5000 at step 1)"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int wide = 0; wide < 2; wide++) {
            Log log;
            char shown[1024];
            log_test_screen(&log, 0, wide ? 160000000 : 300, true, 80);
            if (isfinite(cases[i].best)) log.best = log_validation_of(1, cases[i].best, NAN);
            const LogValidation v = log_validation_of(20, cases[i].loss, cases[i].bytes_per_token);
            log_validation(&log, &v);
            const size_t size = log_test_shown(&log, shown, sizeof shown);
            CHECK(size <= 80, "%zu characters: '%s'", size, shown);
            CHECK(wide || strstr(shown, cases[i].shown), "'%s', expected '%s'", shown, cases[i].shown);
        }
}

/* On a terminal the progress must stay in one line, and messages must not be overwritten by it. On a narrow terminal
   lines are cut, so that none is broken into two; ^C or a message in the progress line must not leave a rest of it
   behind. */
static void test_log_terminal_rewrites_one_line(void) {
    Log log;
    char shown[65536], lines[64][128], want[LOG_TEXT_SIZE];
    log_test_screen(&log, 0, 40, true, 80);
    log_test_steps(&log, 1, 25);
    log_message(&log, "checkpoint of step %d", 25);
    log_test_steps(&log, 26, 40);
    memcpy(want, log.line, sizeof want);
    log_close(&log);
    size_t size = log_test_shown(&log, shown, sizeof shown);
    CHECK(shown[size - 1] == '\n', "the screen is left in the middle of a line");
    int n = log_test_terminal(lines, shown, 80);
    REQUIRE(n == 7, "%d lines on the terminal, expected heading, 4 validations, message, progress", n);
    CHECK(strstr(lines[0], "smooth"), "heading '%s'", lines[0]);
    CHECK(strncmp(lines[1], "10/40  validation loss ", 23) == 0, "'%s'", lines[1]);
    CHECK(strncmp(lines[2], "20/40  validation loss ", 23) == 0, "'%s'", lines[2]);
    CHECK(strcmp(lines[3], "checkpoint of step 25") == 0, "'%s'", lines[3]);
    CHECK(strncmp(lines[4], "30/40  validation loss ", 23) == 0, "'%s'", lines[4]);
    CHECK(strcmp(lines[6], want) == 0, "'%s', expected '%s'", lines[6], want);

    /* On a narrow terminal lines are cut, so that none is broken into two. When ^C or a message is printed into the
       progress line,
   the rest of that line is erased. */
    log_test_screen(&log, 0, 1000, true, 30);
    log_test_steps(&log, 1, 5);
    fprintf(log.screen, "^C");
    log_message(&log, "stopping");
    log_close(&log);
    log_test_shown(&log, shown, sizeof shown);
    n = log_test_terminal(lines, shown, 30);
    REQUIRE(n == 3, "%d lines on a narrow terminal", n);
    CHECK(strlen(lines[0]) <= 29, "'%s'", lines[0]);
    CHECK(strcmp(lines[1], "stopping") == 0, "'%s'", lines[1]);
    CHECK(strlen(lines[2]) <= 29 && strncmp(lines[2], "   5/1000", 9) == 0, "'%s'", lines[2]);
}

/* Of fast steps not all are drawn, or drawing would slow the run down; but the last one must be, also when the run
   stops early. */
static void test_log_terminal_limits_its_rate(void) {
    Log log;
    char shown[65536];
    log_test_screen(&log, 0, 1000, true, 80);
    for (long step = 1; step <= 905; step++) {
        LogTrain row = log_test_row(step);
        row.seconds = 0.001 * (double)step;
        log_train(&log, &row);
    }
    log_close(&log);
    log_test_shown(&log, shown, sizeof shown);
    int drawn = 0;
    for (char *b = shown; (b = strstr(b, "\033[K")); b++) drawn++;
    CHECK(drawn >= 9 && drawn <= 12, "%d drawings in 0.9 s", drawn);
    CHECK(strstr(shown, " 905/1000 "), "the last step is not on the screen");
}

/* A log that is redirected into a file must have no control characters, and not a line for each of a million steps. */
static void test_log_pipe_gets_plain_lines(void) {
    static const struct {
        long from, total, stop;
        int least, most;
    } cases[] = {{0, 1, 1, 1, 1},
                 {0, 5, 5, 5, 5},
                 {0, 2000, 2000, 30, 62},
                 {0, 777, 777, 30, 62},
                 {1500, 2000, 2000, 30, 62},
                 {0, 20000, 20000, 30, 62},
                 {0, 2000, 1003, 15, 40}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Log log;
        char shown[65536], first[32], last[32];
        log_test_screen(&log, cases[i].from, cases[i].total, false, 0);
        for (long step = cases[i].from + 1; step <= cases[i].stop; step++) {
            LogTrain row = log_test_row(step);
            row.seconds = 0.01 * (double)step;
            log_train(&log, &row);
        }
        log_close(&log);
        size_t size = log_test_shown(&log, shown, sizeof shown);
        int lines = -1; /* the heading */
        for (char *b = shown; (b = strchr(b, '\n')); b++) lines++;
        CHECK(lines >= cases[i].least && lines <= cases[i].most, "case %zu: %d lines", i, lines);
        CHECK(!strchr(shown, '\r') && !strchr(shown, '\033'), "case %zu: control characters in a pipe", i);
        snprintf(first, sizeof first, "%ld/%ld ", cases[i].from + 1, cases[i].total);
        snprintf(last, sizeof last, "%ld/%ld ", cases[i].stop, cases[i].total);
        CHECK(cases[i].total < 10 || strstr(shown, first), "case %zu: no line '%s'", i, first);
        char *at = strstr(shown, last);
        CHECK(at && strchr(at, '\n') == shown + size - 1, "case %zu: '%s' is not the last line", i, last);
    }
    Log log; /* slow steps: at least one line in ten minutes */
    char shown[65536];
    log_test_screen(&log, 0, 100000, false, 0);
    for (long step = 1; step <= 100; step++) {
        LogTrain row = log_test_row(step);
        row.seconds = 100 * (double)step;
        log_train(&log, &row);
    }
    log_close(&log);
    log_test_shown(&log, shown, sizeof shown);
    int lines = -1;
    for (char *b = shown; (b = strchr(b, '\n')); b++) lines++;
    CHECK(lines >= 16 && lines <= 19, "%d lines in 9,900 s", lines);
}

/* The smoothed loss must follow its formula from the first step on: a wrong beginning would look like a better or
   worse run. */
static void test_log_smoothing(void) {
    LogSmooth s = {0};
    CHECK(isnan(log_smooth(&s, NAN)), "an average of nothing is not NaN");
    CHECK(fabs(log_smooth(&s, 7.5) - 7.5) < 1e-12, "the first value is not itself");
    for (int i = 0; i < 50; i++) {
        double x = log_smooth(&s, i == 10 ? INFINITY : 7.5);
        CHECK(fabs(x - 7.5) < 1e-12, "a constant 7.5 became %.17g at %d", x, i);
    }
    s = (LogSmooth){0};
    double sum = 0, weight = 0, last = 0;
    for (int i = 0; i < 200;
         i++) { /* by definition the weight of a loss is 0.95^age, divided by the sum of all weights */
        last = log_smooth(&s, i % 13);
        sum = 0, weight = 0;
        for (int j = 0; j <= i; j++) sum += pow(0.95, i - j) * (j % 13), weight += pow(0.95, i - j);
        CHECK(fabs(last - sum / weight) < 1e-9, "step %d: %.12g, expected %.12g", i, last, sum / weight);
    }
}

#define LOG_TESTS(TEST)                                                                                      \
    TEST(log_lines_are_json_with_the_agreed_keys)                                                            \
    TEST(log_numbers_come_back)                                                                              \
    TEST(log_validation_has_three_units)                                                                     \
    TEST(log_reads_old_keys)                                                                                 \
    TEST(log_read_names_the_bad_line)                                                                        \
    TEST(log_resume_has_no_doubles)                                                                          \
    TEST(log_resume_drops_a_bad_line)                                                                        \
    TEST(log_refuses_a_second_writer)                                                                        \
    TEST(log_full_disk)                                                                                      \
    TEST(log_line_fits_80_columns)                                                                           \
    TEST(log_validation_fits_80_columns)                                                                     \
    TEST(log_terminal_rewrites_one_line)                                                                     \
    TEST(log_terminal_limits_its_rate)                                                                       \
    TEST(log_pipe_gets_plain_lines)                                                                          \
    TEST(log_smoothing)

#endif
