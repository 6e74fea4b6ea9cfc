/* program.h: what every program does first and last, and how it tells which one it is.

   program_begin()            first of all in main. Standard input, output and error that the caller has closed become
                              /dev/null: else the next file opened gets the number of one of them, and what is printed
                              goes into that file. At the end of the program, however it ends, what it printed must have
                              been written: if not (a full disk, a reader that went away), that is an error and the exit
                              code is 1
   program_on_terminal(file)  whether a person sees what is written to it as it is, so that a line may be rewritten in
                              place. A launcher such as mpirun gives its ranks terminals of their own, wherever their
                              output goes: then it is the launcher's own output that counts
   program_version(name)      prints what --version tells: commit, its date, compiler */
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

/* The Makefile passes both; a program that was compiled by hand does not know them. The date is that of the commit, or
   SOURCE_DATE_EPOCH: the same sources give the same program. */
#ifndef BUILD_COMMIT
#define BUILD_COMMIT "unknown (not built by make)"
#endif
#ifndef BUILD_DATE
#define BUILD_DATE ""
#endif
#ifdef __clang__
#define BUILD_COMPILER __VERSION__
#else
#define BUILD_COMPILER "gcc " __VERSION__
#endif

/* By atexit. Ends without the other handlers: nothing that they print would be seen either. */
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
        /* the lowest number that is free, which is this one; it outlives a program that starts itself once more */
        if (open("/dev/null", number == STDIN_FILENO ? O_RDONLY : O_WRONLY) != number) _exit(1);
    }
    atexit(program_end);
}

/* Whether mpirun or another launcher of ranks started this process. */
static inline bool program_launched(void) {
    static const char *const launchers[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK",
                                            "MPI_LOCALNRANKS"};
    bool launched = false;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        launched |= getenv(launchers[i]) != NULL;
    return launched;
}

/* Whether the same stream of the process that started this one is a terminal; false where that cannot be known. */
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

static inline void program_version(const char *name) {
    printf("%s of laser.c, commit %s%s%s, compiled by %s"
#ifdef _OPENMP
           ", OpenMP"
#endif
#ifdef HAVE_MPI
           ", MPI"
#endif
           "\n",
           name, BUILD_COMMIT, *BUILD_DATE ? " of " : "", BUILD_DATE, BUILD_COMPILER);
}

#endif
