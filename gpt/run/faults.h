/* faults.h: what a long run meets besides training: losses that are no numbers or leap, signals that end it, a shard that
   shrinks while it is read.

   The watch on the loss
     The losses of the last LOSS_WINDOW accepted steps say what a loss of this run looks like. loss_watch_judge(&watch, loss,
     norm, skip_spikes, &z) gives the verdict on a step before its update and remembers it:
         STEP_SOUND    the update is made
         STEP_SPIKE    z, the loss's distance above the window's mean in standard deviations, exceeds LOSS_SPIKE; the
                       update is made, the caller reports it
         STEP_SKIPPED_SPIKE      z exceeds skip_spikes (above 0)             } no update: weights, moments and window stay,
         STEP_SKIPPED_NONFINITE  loss or gradient norm is NaN or infinite    } the step's data is passed over
     The verdict depends on nothing but the watch and the two numbers, which all ranks share, so all ranks agree; the watch is
     saved in a checkpoint (loss_watch_to_json, loss_watch_from_json), so a resumed run judges alike.

   Signals
     faults_catch_signals()   SIGTERM, SIGUSR1 and SIGXCPU (a scheduler's warnings), SIGINT and SIGHUP set stop_requested: the trainer writes a
                              checkpoint and ends with 0. A second SIGINT ends the program at once. SIGPIPE is ignored, so
                              that `| tee` may end first, and so is SIGXFSZ: a full disk loses no run.
     faults_watch_file(path, map, bytes)   reading a mapped file that became shorter raises SIGBUS: with this the program says
                              which file shrank, instead of dying without a word. */
#ifndef GPT_RUN_FAULTS_H
#define GPT_RUN_FAULTS_H

#include <cjson/cJSON.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../base/check.h"
#include "../io/json.h"

/* ---- the watch on the loss ---- */

enum {
    LOSS_WINDOW = 128,
    LOSS_WINDOW_LEAST = 32
};                     /* fewer losses than the latter tell nothing about a spike */
#define LOSS_SPIKE 6.0 /* standard deviations; noise of a batch stays below 4 in a million steps */

typedef struct {
    double losses[LOSS_WINDOW]; /* of accepted steps: a ring, the next goes to accepted % LOSS_WINDOW */
    int64_t accepted, skipped, skipped_in_a_row;
} LossWatch;

typedef enum { STEP_SOUND, STEP_SPIKE, STEP_SKIPPED_SPIKE, STEP_SKIPPED_NONFINITE } StepVerdict;

static inline bool step_is_skipped(StepVerdict verdict) { return verdict >= STEP_SKIPPED_SPIKE; }

static inline int loss_watch_count(const LossWatch *watch) {
    return watch->accepted < LOSS_WINDOW ? (int)watch->accepted : LOSS_WINDOW;
}

static inline double loss_watch_mean(const LossWatch *watch) {
    const int n = loss_watch_count(watch);
    double sum = 0;
    for (int i = 0; i < n; i++) sum += watch->losses[i];
    return n ? sum / n : NAN;
}

/* NaN while there is too little to compare with. The deviation is taken as at least a thousandth of the mean: a loss that
   has settled to the last digit does not spike by moving a little. */
static inline double loss_watch_z(const LossWatch *watch, double loss) {
    const int n = loss_watch_count(watch);
    if (n < LOSS_WINDOW_LEAST || !isfinite(loss)) return NAN;
    double mean = loss_watch_mean(watch), squares = 0;
    for (int i = 0; i < n; i++) squares += (watch->losses[i] - mean) * (watch->losses[i] - mean);
    double deviation = sqrt(squares / n), least = 1e-3 * fabs(mean);
    deviation = deviation > least ? deviation : least;
    return deviation > 0 ? (loss - mean) / deviation : NAN;
}

static inline StepVerdict loss_watch_judge(LossWatch *watch, double loss, double norm, double skip_spikes,
                                           double *z) {
    StepVerdict verdict = STEP_SOUND;
    *z = loss_watch_z(watch, loss);
    if (!isfinite(loss) || !isfinite(norm))
        verdict = STEP_SKIPPED_NONFINITE;
    else if (skip_spikes > 0 && *z > skip_spikes)
        verdict = STEP_SKIPPED_SPIKE;
    else if (*z > LOSS_SPIKE)
        verdict = STEP_SPIKE;
    if (step_is_skipped(verdict)) {
        watch->skipped++, watch->skipped_in_a_row++;
        return verdict;
    }
    watch->losses[watch->accepted++ % LOSS_WINDOW] = loss;
    watch->skipped_in_a_row = 0;
    return verdict;
}

/* The losses oldest first. */
static inline cJSON *loss_watch_to_json(const LossWatch *watch) {
    cJSON *json = cJSON_CreateObject(), *losses;
    json_add_number(json, "accepted", (double)watch->accepted);
    json_add_number(json, "skipped", (double)watch->skipped);
    json_add_number(json, "skipped_in_a_row", (double)watch->skipped_in_a_row);
    losses = cJSON_AddArrayToObject(json, "losses");
    for (int64_t i = watch->accepted - loss_watch_count(watch); i < watch->accepted; i++) {
        char number[32];
        json_number_text(number, sizeof number, watch->losses[i % LOSS_WINDOW], 17);
        cJSON_AddItemToArray(losses, cJSON_CreateRaw(number));
    }
    return json;
}

/* False when it is not what loss_watch_to_json made; NULL, a checkpoint from before there was a watch, is an empty one. */
static inline bool loss_watch_from_json(LossWatch *watch, const cJSON *json) {
    *watch = (LossWatch){0};
    if (!json) return true;
    const cJSON *losses = cJSON_GetObjectItemCaseSensitive(json, "losses"), *loss;
    if (!json_whole(cJSON_GetObjectItemCaseSensitive(json, "accepted"), 0x1p53, &watch->accepted) ||
        !json_whole(cJSON_GetObjectItemCaseSensitive(json, "skipped"), 0x1p53, &watch->skipped) ||
        !json_whole(cJSON_GetObjectItemCaseSensitive(json, "skipped_in_a_row"), 0x1p53,
                    &watch->skipped_in_a_row) ||
        cJSON_GetArraySize(losses) != loss_watch_count(watch))
        return false;
    int64_t i = watch->accepted - loss_watch_count(watch);
    cJSON_ArrayForEach(loss, losses) {
        if (!cJSON_IsNumber(loss) || !isfinite(loss->valuedouble)) return false;
        watch->losses[i++ % LOSS_WINDOW] = loss->valuedouble;
    }
    return true;
}

/* ---- numbers that are none ---- */

/* The largest magnitude; infinity when there is one, NaN when there is a NaN. */
static inline float largest_magnitude(const float *x, size_t n) {
    float largest = 0, poison = 0; /* x * 0 is 0 for a number and NaN for NaN and infinities */
#pragma omp parallel for schedule(static) reduction(max : largest) reduction(+ : poison)
    for (size_t i = 0; i < n; i++) {
        float magnitude = fabsf(x[i]);
        largest = magnitude > largest ? magnitude : largest;
        poison += x[i] * 0.0f;
    }
    if (!isnan(poison)) return largest;
    for (size_t i = 0; i < n; i++)
        if (isnan(x[i])) return NAN;
    return INFINITY;
}

/* The index of the first NaN or infinity, or n. */
static inline size_t first_nonfinite(const float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i])) return i;
    return n;
}

/* ---- signals ---- */

static volatile sig_atomic_t stop_requested; /* a checkpoint and a clean end are asked for */

static void faults_on_stop(int number) {
    static volatile sig_atomic_t interrupts;
    if (number == SIGINT && interrupts++) _exit(128 + SIGINT); /* the second Ctrl-C means it */
    stop_requested = 1;
}

enum { FAULTS_MAX_FILES = 4096 };
static struct {
    const char *path; /* lives as long as the map */
    const unsigned char *map;
    size_t bytes;
} faults_files[FAULTS_MAX_FILES];
static int faults_file_count;

/* Of very many files the last ones go unwatched: their shrinking would end the program without naming them. */
static inline void faults_watch_file(const char *path, const void *map, size_t bytes) {
    if (faults_file_count == FAULTS_MAX_FILES) return;
    faults_files[faults_file_count].path = path;
    faults_files[faults_file_count].map = map;
    faults_files[faults_file_count++].bytes = bytes;
}

/* Only what is allowed in a signal handler: no stdio, no memory. */
static void faults_say(const char *text) {
    size_t n = strlen(text);
    while (n > 0) {
        ssize_t written = write(STDERR_FILENO, text, n);
        if (written <= 0) return;
        text += written, n -= (size_t)written;
    }
}

static void faults_say_number(uint64_t x) {
    char text[24], *at = text + sizeof text - 1;
    *at = 0;
    do *--at = (char)('0' + x % 10);
    while (x /= 10);
    faults_say(at);
}

static void faults_on_bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    const unsigned char *at = info->si_addr;
    for (int i = 0; i < faults_file_count; i++) {
        if (at < faults_files[i].map || at >= faults_files[i].map + faults_files[i].bytes) continue;
        struct stat about = {0};
        bool there = stat(faults_files[i].path, &about) == 0;
        faults_say("\nerror: ");
        faults_say(check_hooks.prefix);
        faults_say("cannot read byte ");
        faults_say_number((uint64_t)(at - faults_files[i].map));
        faults_say(" of '");
        char path[1024];
        check_printable(path, sizeof path, faults_files[i].path, strlen(faults_files[i].path), false);
        faults_say(path);
        faults_say("': it had ");
        faults_say_number(faults_files[i].bytes);
        faults_say(there ? " bytes when the run began and has " : " bytes when the run began and is gone");
        if (there) faults_say_number((uint64_t)about.st_size);
        faults_say(there && (uint64_t)about.st_size >= faults_files[i].bytes
                       ? ": its disk cannot be read"
                       : ": another program changed it");
        faults_say("; put the file back, then go on with --resume=auto\n");
        _exit(1);
    }
    signal(number, SIG_DFL); /* not ours: the instruction runs again and ends the program as usual */
}

static inline void faults_catch_signals(void) {
    struct sigaction stop = {.sa_handler = faults_on_stop, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGUSR1, &stop, NULL);
    sigaction(SIGXCPU, &stop,
              NULL); /* each second of processor time beyond the limit, until the hard limit kills */
    if (signal(SIGHUP, SIG_IGN) != SIG_IGN) sigaction(SIGHUP, &stop, NULL); /* unless under nohup */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a file at its limit is a full disk: the write says so */
    struct sigaction bus = {.sa_sigaction = faults_on_bus_error, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &bus, NULL);
}

#endif
