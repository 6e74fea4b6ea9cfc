/* harness.h: what every test uses: checks, one measure of errors, temporary folders, commands, and child processes
   that are expected to die.

   A test is `static void test_NAME(void)`; the list at the end of its file names it once: #define LASER_TESTS(TEST)
   TEST(laser_forward_matches_float64) TEST(laser_row_zero_returns_v0) and test_gpt.c joins the lists into one table.
   A check that fails prints one line with the values it found, and the test continues; REQUIRE also ends the test. No
   test depends on another test, on the time, or on files of a user. */
#ifndef TESTS_HARNESS_H
#define TESTS_HARNESS_H

#include <fcntl.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../gpt/base/clock.h"
#include "../gpt/io/files.h"
#include "../gpt/math/rng.h"

static struct {
    const char *name;    /* of the running test */
    int failures;        /* checks of it that failed */
    const char *not_run; /* why it cannot run here; NULL: it can */
    char root[64];       /* temporary folder of the whole run, removed at its end */
    bool forked;         /* this is a child of test_death */
} test_state;

__attribute__((format(printf, 4, 5))) static inline void
test_fail(const char *file, int line, const char *condition, const char *format, ...) {
    if (test_state.failures++ >= 8) return; /* more lines about one test would not help */
    char text[1000]; /* the output of a program may be long, and its beginning is enough */
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    printf("    %s:%d: expected %s: %s\n", check_basename(file), line, condition, text);
}

/* A test that needs something that this machine lacks calls this and returns: it counts neither as passed nor as
   failed. */
static inline void test_not_run(const char *reason) { test_state.not_run = reason; }

/* CHECK(n == 3, "n is %d", n): the message should contain the values that were found. */
#define CHECK(condition, ...) ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, #condition, __VA_ARGS__))
#define REQUIRE(condition, ...)                                                                              \
    do {                                                                                                     \
        if (!(condition)) {                                                                                  \
            test_fail(__FILE__, __LINE__, #condition, __VA_ARGS__);                                          \
            return;                                                                                          \
        }                                                                                                    \
    } while (0)

/* Writes the file folder/name: n bytes, or a text. */
static inline void test_write_bytes(const char *folder, const char *name, const void *bytes, size_t n) {
    char *path = file_path(folder, name);
    FILE *file = check_fopen(path, "wb", "");
    check_fwrite(bytes, 1, n, file, path);
    check_fclose(file, path);
    free(path);
}

static inline void test_write(const char *folder, const char *name, const char *text) {
    test_write_bytes(folder, name, text, strlen(text));
}

/* The measure of errors in all tests: the normalised mean squared error |got - want|^2 / |want|^2. It does not depend
   on the scale of the numbers, so one bound fits every tensor. Infinite when got has a NaN or an infinity, or is all
   zero where want is not. */
static inline double test_nmse(const float *got, const double *want, size_t n) {
    double error = 0, size = 0, got_size = 0;
    for (size_t i = 0; i < n; i++) {
        if (!isfinite(got[i])) return INFINITY;
        error += (got[i] - want[i]) * (got[i] - want[i]);
        size += want[i] * want[i];
        got_size += (double)got[i] * got[i];
    }
    if (size == 0) return error == 0 ? 0 : INFINITY;
    return got_size == 0 ? INFINITY : error / size;
}

#define CHECK_NMSE(got, want, n, bound, what)                                                                \
    do {                                                                                                     \
        double nmse_ = test_nmse(got, want, n);                                                              \
        CHECK(nmse_ <= (bound), "%s: normalised mean squared error %.3g, allowed %.3g", what, nmse_,         \
              (double)(bound));                                                                              \
    } while (0)

/* n random numbers from a normal distribution of this deviation, the same for the same seed; the caller frees them. */
static inline float *test_normal(size_t n, double deviation, uint64_t seed) {
    float *x = (float *)check_calloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (float)(deviation * rng_normal(seed, RNG_STREAM_TEST, i));
    return x;
}

static inline double *test_to_double(const float *x, size_t n) {
    double *y = (double *)check_calloc(n * sizeof *y);
    for (size_t i = 0; i < n; i++) y[i] = x[i];
    return y;
}

/* Makes an empty folder for the running test. The returned path is valid until the next call. */
static inline const char *test_folder(void) {
    static char path[128];
    static int count;
    snprintf(path, sizeof path, "%s/%d", test_state.root, count++);
    if (mkdir(path, 0777) != 0) die("cannot create '%s': %s", path, strerror(errno));
    return path;
}

/* Runs a shell command and returns its exit code, or 128 + the number of the signal that ended it. `output` gets the
   first size - 1 bytes that it printed to both streams. */
static inline int test_command(char *output, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static inline int test_command(char *output, size_t size, const char *format, ...) {
    char command[4096], rest[4096];
    va_list arguments;
    va_start(arguments, format);
    int length = snprintf(command, sizeof command, "exec 2>&1; ");
    vsnprintf(command + length, sizeof command - (size_t)length, format, arguments);
    va_end(arguments);
    fflush(NULL);
    FILE *pipe = popen(command, "r");
    if (!pipe) die("cannot run '%s': %s", command, strerror(errno));
    size_t n = fread(output, 1, size - 1, pipe);
    output[n] = 0;
    while (fread(rest, 1, sizeof rest, pipe) > 0) {}
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The address sanitizer asks this function at exit whether to search for leaks. It must not search in a child of
   test_death: the child dies on purpose without freeing its memory, and the search fails there because the parent's
   other threads do not exist in the child. */
#ifdef __cplusplus
extern "C"
#endif
    int
    __lsan_is_turned_off(void);
int __lsan_is_turned_off(void) { return test_state.forked; }

/* Calls function(argument) in a child process and returns the exit code of that process: 0 when the function
   returned, 128 + the number of the signal that ended it. `output` gets what it wrote to stderr. For calls that must
   end the program with a clear message. */
static inline int test_death(void (*function)(void *), void *argument, char *output, size_t size) {
    int ends[2];
    fflush(NULL);
    if (pipe(ends) != 0) die("pipe: %s", strerror(errno));
    pid_t child = fork();
    if (child < 0) die("fork: %s", strerror(errno));
    if (child == 0) {
        test_state.forked = true;
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]), close(ends[1]);
        function(argument);
        fflush(NULL);
        _exit(0);
    }
    close(ends[1]);
    size_t n = 0;
    ssize_t got;
    char rest[512];
    while ((got = read(ends[0], n < size - 1 ? output + n : rest,
                       n < size - 1 ? size - 1 - n : sizeof rest)) > 0)
        if (n < size - 1) n += (size_t)got;
    output[n] = 0;
    close(ends[0]);
    int status;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The folder with the programs that tests run. `make test FILTER=...` builds none of them beforehand: it sets
   TEST_BUILD to the command (make, with the settings of this one) with which the first test that asks for the folder
   has them built. */
static inline const char *test_binaries(void) {
    static bool built;
    const char *folder = getenv("TEST_BINARY_DIR"), *build = getenv("TEST_BUILD");
    if (build && *build && !built) {
        char output[4096];
#ifdef __cplusplus
        const char *target = "programs_of_test_cuda";
#else
        const char *target = "programs_of_test_gpt";
#endif
        printf("    %s %s: builds the programs that this test runs\n", build, target);
        if (test_command(output, sizeof output, "%s %s", build, target) != 0)
            die("they cannot be built: %s", output);
    }
    built = true;
    return folder && *folder ? folder : ".";
}

/* Sets gradient (n) to that of loss(context) with respect to x (n), by central differences. loss must read x. */
static inline void test_finite_differences(double *gradient, double *x, size_t n, double (*loss)(void *),
                                           void *context) {
    for (size_t i = 0; i < n; i++) {
        const double was = x[i], h = 1e-5 * fmax(1, fabs(was));
        x[i] = was + h;
        double above = loss(context);
        x[i] = was - h;
        gradient[i] = (above - loss(context)) / (2 * h);
        x[i] = was;
    }
}

static inline void test_begin(void) {
    const char *parent = getenv("TMPDIR");
    snprintf(test_state.root, sizeof test_state.root, "%s/gpt-test-XXXXXX",
             parent && *parent ? parent : "/tmp");
    if (!mkdtemp(test_state.root)) die("cannot create a temporary folder: %s", strerror(errno));
}

static inline void test_end(void) {
    char output[256];
    if (test_command(output, sizeof output, "rm -rf '%s'", test_state.root) != 0) printf("%s", output);
}

typedef enum { TEST_PASSED, TEST_FAILED, TEST_NOT_RUN, TEST_RESULTS } TestResult;

/* Runs one test and prints its line. */
static inline TestResult test_run(const char *name, void (*function)(void)) {
    test_state.name = name;
    test_state.failures = 0;
    test_state.not_run = NULL;
    double start = seconds_now();
    function();
    if (test_state.not_run && !test_state.failures) {
        printf("  -- %s not run: %s\n", name, test_state.not_run);
        return TEST_NOT_RUN;
    }
    printf("%s %s (%.2f s)\n", test_state.failures ? "FAIL" : "  ok", name, seconds_now() - start);
    return test_state.failures ? TEST_FAILED : TEST_PASSED;
}

#endif
