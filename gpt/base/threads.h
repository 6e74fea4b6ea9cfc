/* threads.h: the cores that this process may use, and the OpenMP threads it runs on them.

   threads_configure(argv)    first of all in main; argv is main's. OpenMP's settings, unless the user chose them:
                              threads that wait fall asleep soon, and stay on the cores near their memory
   cores_available()          how many cores the process may use, which can be fewer than the machine has
   cores_allowed()            Linux: the set of them, as a cpu_set_t
   threads_set(count)         how many threads OpenMP uses from now on; 0: one for each available core. Called after
                              nothing else has set it and before the first parallel loop
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
/* The cores of the calling thread. OpenMP may have bound that thread to a single core (OMP_PROC_BIND); therefore the
   cores of all places to which OpenMP binds threads are added. */
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

/* A quota is rounded up: with 1.5 cores two threads are faster than one. */
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

/* With 0, OMP_NUM_THREADS of the environment decides before the number of cores does. */
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

/* OpenMP reads its environment variables before main begins. So this sets them and starts the program a second time, in
   the same process, with execv; in the second start all of them are set, and it returns.
   Waiting: by default a thread that waits for others spins for milliseconds. Where other programs use the machine as
   well, it thereby takes the core from the very thread it waits for, and a run becomes ten to a hundred times slower.
   Here a thread spins for about 30 us, which is less than waking a sleeping thread takes, and then sleeps. Without any
   spinning a step of a large model would take 1 % longer on an idle machine, and one of the demo's 5 %. (LLVM's OpenMP
   counts in milliseconds: there a waiting thread sleeps at once.)
   Binding: on a machine of several memory nodes (NUMA) threads are bound to cores, because each thread touches its
   share of the memory first and so has it near. That holds only where this process alone uses all cores. With
   --threads, under a quota or with several ranks, two processes would be bound to the same cores. On one node the
   kernel places threads better by itself. */
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
