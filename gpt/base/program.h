/* program.h: what every program does at its beginning and its end, and what --version prints.

   program_begin()            first of all in main. Connects standard input, output and error to /dev/null where the
                              caller has closed them: otherwise the next file that is opened would get the descriptor
                              of, say, stdout, and what is printed would go into that file. When the program ends, it
                              checks that everything printed was written; if not (the disk is full, the reader has
                              gone), that is an error and the exit code is 1
   program_on_terminal(file)  whether the file is a terminal that a person looks at, where a line can be rewritten in
                              place. A launcher such as mpirun gives each rank a terminal of its own even when its own
                              output goes to a file: under a launcher it is the launcher's output that counts
   program_launched()         whether mpirun or another launcher started this process as one of several ranks
   program_purpose(name)      what the program of that name is for, in a few words
   program_version(name)      prints the tag of the release if there is one, the commit, its date and the compiler */
#ifndef GPT_BASE_PROGRAM_H
#define GPT_BASE_PROGRAM_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "check.h"

/* scripts/version.sh finds all three, and the Makefile defines them; a program compiled by hand has none. The tag is
   that of a release, such as v0.1; other commits have none. The date is that of the commit or of
   SOURCE_DATE_EPOCH, not that of the compilation, so that the same sources give the same program. */
#ifndef BUILD_COMMIT
#define BUILD_COMMIT "unknown (not built by make)"
#endif
#ifndef BUILD_TAG
#define BUILD_TAG ""
#endif
#ifndef BUILD_DATE
#define BUILD_DATE ""
#endif
#ifdef __clang__
#define BUILD_COMPILER __VERSION__
#else
#define BUILD_COMPILER "gcc " __VERSION__
#endif

/* Called by exit. On an error it ends the process at once: what other exit handlers print would be lost as well. */
static inline void program_end(void) {
    check_flush();
    const bool lost = ferror(stdout);
    if (fclose(stdout) != 0 && !check_lost) check_lost = errno;
    if (!lost && !check_lost) return;
    fprintf(stderr, "error: %swhat was printed is lost, in part or as a whole: %s; files are not concerned\n",
            check_hooks.prefix, check_lost ? strerror(check_lost) : "a write failed");
    _exit(1);
}

static inline void program_begin(void) {
    for (int number = STDIN_FILENO; number <= STDERR_FILENO; number++) {
        if (fcntl(number, F_GETFD) >= 0 || errno != EBADF) continue;
        /* open returns the lowest free descriptor, which is this one; it stays open through threads_configure */
        if (open("/dev/null", number == STDIN_FILENO ? O_RDONLY : O_WRONLY) != number) _exit(1);
    }
    atexit(program_end);
}

static inline bool program_launched(void) {
    static const char *const launchers[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK",
                                            "MPI_LOCALNRANKS"};
    bool launched = false;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        launched |= getenv(launchers[i]) != NULL;
    return launched;
}

/* Whether descriptor `number` of the parent process is a terminal; false where that cannot be found out. */
static inline bool program_parent_on_terminal(int number) {
    char path[64], target[256];
    snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)getppid(), number);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    target[length > 0 ? length : 0] = 0;
    return strncmp(target, "/dev/pts/", 9) == 0 || strncmp(target, "/dev/tty", 8) == 0;
}

static inline bool program_on_terminal(FILE *file) {
    const char *kind = getenv("TERM");
    const int number = fileno(file);
    if (!isatty(number) || (kind && strcmp(kind, "dumb") == 0)) return false;
    return !program_launched() || program_parent_on_terminal(number);
}

/* The line that manual pages begin with. */
static const struct {
    const char *name, *purpose;
} program_purposes[] = {
    {"train_gpt", "trains language models with standard attention or LASER attention"},
    {"prepare", "turns text into a tokenizer and files of tokens for train_gpt"},
    {"report", "compares training runs: a table, loss curves, HTML, a picture"},
    {"generate", "writes text with a model that train_gpt has trained"},
    {"evaluate", "measures a model that train_gpt has trained"},
    {"analyze", "measures attention in a model: its weights, Jacobians and gradients"},
    {"explain", "shows what happens inside a model that reads a prompt, as a page of HTML"},
    {"grammar", "writes stories from a grammar, whose entropy is known exactly"},
};
enum { PROGRAM_PURPOSES = sizeof program_purposes / sizeof *program_purposes };

static inline const char *program_purpose(const char *name) {
    for (int i = 0; i < PROGRAM_PURPOSES; i++)
        if (strcmp(program_purposes[i].name, name) == 0) return program_purposes[i].purpose;
    return "a program of laser.c";
}

static inline void program_version(const char *name) {
    printf("%s of laser.c%s%s, commit %s%s%s, compiled by %s"
#ifdef _OPENMP
           ", OpenMP"
#endif
#ifdef HAVE_MPI
           ", MPI"
#endif
           "\n",
           name, *BUILD_TAG ? " " : "", BUILD_TAG, BUILD_COMMIT, *BUILD_DATE ? " of " : "", BUILD_DATE,
           BUILD_COMPILER);
}

#endif
