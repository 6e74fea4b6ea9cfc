/* threads.h: the cores that this process may use, and the OpenMP threads it runs on them.

   threads_configure(argv)    called first of all in main; argv is main's. Makes OpenMP's waiting threads sleep soon,
                              and binds threads to cores where that helps. OpenMP reads such settings from environment
                              variables, and before main begins. So the function sets the variables that the user has
                              not set, and then restarts the program, in the same process, with execv. In the second
                              start all variables are set, and the function returns
   cores_available()          how many cores the process may use: those it may run on, or fewer where a control group (a
                              container, a job scheduler) limits its processor time
   cores_allowed()            Linux: the set of cores it may run on, as a cpu_set_t
   threads_set(count)         how many threads OpenMP uses from now on. 0: as many as the environment variable
                              OMP_NUM_THREADS says; where the user has not set it, one for each available core. Call it
                              before the first parallel loop
   threads_count()            how many threads OpenMP uses in the next parallel loop
   thread_unpin()             first of all in a thread that the program creates itself: it may run on all allowed cores,
                              although OpenMP may have bound the thread that created it to one */
#ifndef GPT_BASE_THREADS_H
#define GPT_BASE_THREADS_H

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#ifdef __linux__
#include <sched.h>
#endif
#ifdef _OPENMP
#include <omp.h>
#endif
#include "cgroup.h"
#include "check.h"
#include "program.h"

#if defined(__linux__) && defined(CPU_COUNT)
/* The cores of the calling thread. OpenMP may have bound that thread to a single core (OMP_PROC_BIND). So the cores of
   all "places" are added, as OpenMP calls the sets of cores to which it binds threads. */
static inline cpu_set_t cores_allowed(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    /* on a machine of more than 1,024 cores this fails, and the set stays empty */
    sched_getaffinity(0, sizeof set, &set);
#if defined(_OPENMP) && _OPENMP >= 201511
    for (int place = 0; place < omp_get_num_places(); place++) {
        int count = omp_get_place_num_procs(place),
            *cores = check_calloc((size_t)(count + 1) * sizeof *cores);
        omp_get_place_proc_ids(place, cores);
        for (int i = 0; i < count; i++) CPU_SET(cores[i], &set);
        free(cores);
    }
#endif
    return set;
}

static inline void thread_unpin(void) {
    const cpu_set_t set = cores_allowed();
    sched_setaffinity(0, sizeof set, &set);
}
#else
static inline void thread_unpin(void) {}
#endif

/* A control group may grant the process a processor time of, say, 1.5 cores (its CPU quota, cgroup.h). The number is
   rounded up: with 1.5 cores two threads are faster than one. */
static inline int cores_available(void) {
    int cores = 0;
#if defined(__linux__) && defined(CPU_COUNT)
    const cpu_set_t set = cores_allowed();
    cores = CPU_COUNT(&set);
#endif
    if (cores == 0) cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    const double quota = ceil(cgroup_own_limits().cores);
    if (quota < cores) cores = (int)quota;
    return cores > 0 ? cores : 1;
}

static inline int threads_count(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

static inline void threads_set(int count) {
#ifdef _OPENMP
    const int cores = cores_available();
    if (count > 0)
        omp_set_num_threads(count);
    else if (!getenv("OMP_NUM_THREADS") && omp_get_max_threads() > cores)
        omp_set_num_threads(cores);
#else
    (void)count;
#endif
}

/* Sets the first of the environment variables `names`, which a NULL ends, unless the user has set one of them. Returns
   whether it did. */
static inline bool threads_set_variable(const char *const *names, const char *value) {
    for (const char *const *name = names; *name; name++)
        if (getenv(*name)) return false;
    return setenv(names[0], value, 1) == 0;
}

/* Waiting: by default a thread that waits for others spins for milliseconds. Where other programs use the machine as
   well, it thereby takes the core from the very thread it waits for, and a run becomes ten to a hundred times slower.
   Here a thread spins for about 30 us, which is less than waking a sleeping thread takes, and then sleeps. Without any
   spinning a step of a large model would take 1 % longer on an idle machine, and one of the demo's 5 %. (LLVM's OpenMP
   counts in milliseconds: there a waiting thread sleeps at once.)
   Binding: on a machine of several memory nodes (NUMA) each thread is bound to a core. The system places memory near
   the thread that touches it first, so a thread that stays on its core has its memory near. Threads are not bound where
   other processes may run beside this one (with --threads, with a CPU quota, with several ranks): every process would
   bind its first thread to the same core, its second thread to the next, and so on, and other cores would be idle. On a
   machine with one memory node the kernel places threads better by itself. */
static inline void threads_configure(char **argv) {
#if defined(_OPENMP) && defined(__linux__)
    static const char *const wait[] = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", NULL};
    static const char *const bind[] = {"OMP_PROC_BIND", "OMP_PLACES",      "GOMP_CPU_AFFINITY",
                                       "KMP_AFFINITY",  "OMP_NUM_THREADS", NULL};
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    bool all_cores = !program_launched() && isinf(cgroup_own_limits().cores),
         changed = threads_set_variable(wait, "passive");
    if (changed) setenv("GOMP_SPINCOUNT", "3000", 1); /* turns of a loop: about 30 us */
    for (char **argument = argv; *argument; argument++)
        all_cores = all_cores && strncmp(*argument, "--threads", strlen("--threads")) != 0;
    if (all_cores && system_file_list_length("/sys/devices/system/node/online") > 1)
        changed |= threads_set_variable(bind, "close");
    if (!changed || length <= 0) return;
    self[length] = 0;
    thread_unpin();    /* the second start inherits the cores of this thread, which may be bound to one */
    execv(self, argv); /* returns only when it failed: then this start goes on with OpenMP's defaults */
#else
    (void)argv;
#endif
}

#endif
