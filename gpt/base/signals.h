/* signals.h: lets a run that is told to stop save a checkpoint first, and a program from under which a mapped file is
   cut off say which file it was.

   signals_catch()    from now on SIGTERM, SIGINT (Ctrl-C), SIGHUP, and SIGUSR1 and SIGXCPU, by which job schedulers
                      announce the end of a job, set stop_requested. The training loop looks at it after each step. A
                      second SIGINT ends the program at once. SIGPIPE is ignored, so that a run goes on when the
                      reader of its output (`| tee`) ends; SIGXFSZ too, so that a file at its size limit is a failed
                      write and not the end of the run
   stop_requested     not 0: write a checkpoint and end with exit code 0
   signals_watch_file(path, map, bytes)   for a file that is mapped into memory. Reading a page that is gone, because
                      another program cut the file short, raises SIGBUS; the program then names the file and ends */
#ifndef GPT_BASE_SIGNALS_H
#define GPT_BASE_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "check.h"

static volatile sig_atomic_t stop_requested;

static inline void signals_on_stop(int number) {
    static volatile sig_atomic_t interrupts;
    if (number == SIGINT && interrupts++) _exit(128 + SIGINT); /* Ctrl-C twice ends the program at once */
    stop_requested = 1;
}

enum { SIGNALS_MAX_FILES = 4096 };
static struct {
    const char *path; /* the caller keeps it as long as the file is mapped */
    const unsigned char *map;
    size_t bytes;
} signals_files[SIGNALS_MAX_FILES];
static int signals_file_count;

/* Only the first SIGNALS_MAX_FILES files are watched. When another one shrinks, SIGBUS ends the program silently. */
static inline void signals_watch_file(const char *path, const void *map, size_t bytes) {
    if (signals_file_count == SIGNALS_MAX_FILES) return;
    signals_files[signals_file_count].path = path;
    signals_files[signals_file_count].map = map;
    signals_files[signals_file_count++].bytes = bytes;
}

/* Writes to stderr. A signal handler may call neither stdio nor malloc. */
static inline void signals_write(const char *text) {
    size_t n = strlen(text);
    while (n > 0) {
        ssize_t written = write(STDERR_FILENO, text, n);
        if (written <= 0) return;
        text += written, n -= (size_t)written;
    }
}

static inline void signals_write_number(uint64_t x) {
    char text[24], *at = text + sizeof text - 1;
    *at = 0;
    do *--at = (char)('0' + x % 10);
    while (x /= 10);
    signals_write(at);
}

static inline void signals_on_bus_error(int number, siginfo_t *info, void *context) {
    (void)context;
    const unsigned char *at = info->si_addr;
    for (int i = 0; i < signals_file_count; i++) {
        if (at < signals_files[i].map || at >= signals_files[i].map + signals_files[i].bytes) continue;
        struct stat about = {0};
        bool there = stat(signals_files[i].path, &about) == 0;
        signals_write("\nerror: ");
        signals_write(check_hooks.prefix);
        signals_write("cannot read byte ");
        signals_write_number((uint64_t)(at - signals_files[i].map));
        signals_write(" of '");
        char path[1024];
        check_printable(path, sizeof path, signals_files[i].path, strlen(signals_files[i].path), false);
        signals_write(path);
        signals_write("': it had ");
        signals_write_number(signals_files[i].bytes);
        signals_write(there ? " bytes when the run began and has " : " bytes when the run began and is gone");
        if (there) signals_write_number((uint64_t)about.st_size);
        signals_write(there && (uint64_t)about.st_size >= signals_files[i].bytes
                          ? ": its disk cannot be read"
                          : ": another program changed it");
        signals_write("; put the file back, then go on with --resume=auto\n");
        _exit(1);
    }
    signal(number, SIG_DFL); /* of no watched file: the instruction is repeated, and now ends the program */
}

static inline void signals_catch(void) {
    struct sigaction stop = {.sa_handler = signals_on_stop, .sa_flags = SA_RESTART};
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGUSR1, &stop, NULL);
    /* beyond the soft limit of processor time it comes once a second, until the hard limit kills the process */
    sigaction(SIGXCPU, &stop, NULL);
    if (signal(SIGHUP, SIG_IGN) != SIG_IGN) sigaction(SIGHUP, &stop, NULL); /* under nohup it stays ignored */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* at the limit of a file's size the write fails instead, as on a full disk */
    struct sigaction bus = {.sa_sigaction = signals_on_bus_error, .sa_flags = SA_SIGINFO};
    sigaction(SIGBUS, &bus, NULL);
}

#endif
