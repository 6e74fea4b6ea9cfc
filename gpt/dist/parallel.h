/* parallel.h: a job of several processes that train one model together (data parallelism). MPI calls these processes
   ranks. A program that was built without MPI (-DHAVE_MPI) has one rank, and all functions here do almost nothing.

   parallel_start(&argc, &argv)   called first in main: connects to the other ranks. Dies when the launcher has started
                                  several ranks that cannot find each other
   parallel_finish()              called last in main
   parallel_rank(), parallel_ranks()   the number of this rank, from 0, and how many there are
   parallel_host()                the name of this rank's host; "" when no MPI launcher started the program

   All ranks must call each of the following, in the same order:
   parallel_barrier()             returns when all ranks have called it
   parallel_sum_double(x)         the sum of x over the ranks, with the same bits on every rank
   parallel_any(flag)             whether the flag is true on at least one rank
   parallel_collect(all, own, n)  gathers n bytes from every rank, in the order of the ranks: all (ranks, n) = every
                                  rank's own (n)

   When MPI fails, it ends the job. When die() is called on one rank, the message names the rank and its host, and the
   job ends on all ranks; parallel_start sets the hooks of base/check.h for this. */
#ifndef GPT_DIST_PARALLEL_H
#define GPT_DIST_PARALLEL_H

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>
#include "../base/check.h"
#include "../base/threads.h"
#ifdef HAVE_MPI
#include <mpi.h>
#endif

#ifdef HAVE_MPI

static struct {
    int rank, ranks;
    int thread_support; /* which calls from several threads this MPI allows: MPI_THREAD_... */
    char host[MPI_MAX_PROCESSOR_NAME];
    int host_number; /* hosts are numbered in the order of their first ranks: rank 0 is on host 0 */
    /* 1 when a rank of this host has begun to print an error. It is in memory that all ranks of the host can see;
       window is the MPI object that holds this memory. */
    atomic_int *error_is_printed;
    MPI_Win window;
} parallel_job = {.ranks = 1};

static inline int parallel_rank(void) { return parallel_job.rank; }
static inline int parallel_ranks(void) { return parallel_job.ranks; }
static inline const char *parallel_host(void) { return parallel_job.host; }

static void parallel_end_job(int code) {
    if (parallel_job.ranks > 1) MPI_Abort(MPI_COMM_WORLD, code);
}

static inline void parallel_collect(void *all, const void *own, size_t n) {
    if (parallel_job.ranks > 1)
        MPI_Allgather(own, (int)n, MPI_BYTE, all, (int)n, MPI_BYTE, MPI_COMM_WORLD);
    else
        memcpy(all, own, n);
}

/* Sleeps for the whole time even when a signal arrives: a launcher sends one to the ranks that it is about to end. */
static void parallel_sleep(double seconds) {
    struct timespec left = {(time_t)seconds, (long)((seconds - floor(seconds)) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {}
}

/* Called before an error is printed. Most errors happen on all ranks at the same time, and one message is enough. So
   the first rank of a host that fails returns from here, prints its error and ends the job. The other ranks of this
   host wait for this end; if it has not come after 10 seconds, they end the job themselves. Ranks on different hosts
   cannot see error_is_printed, so each waits a time of its own, in which an earlier host usually
   prints and ends the job: host 0 not at all, host 1 for 1 second, host n for 0.5 + n/2 seconds, at most 4. */
static void parallel_wait_to_print_error(void) {
    if (atomic_exchange(parallel_job.error_is_printed, 1)) {
        parallel_sleep(10);
        parallel_end_job(1);
    }
    if (parallel_job.host_number > 0)
        parallel_sleep(0.5 + 0.5 * (parallel_job.host_number < 7 ? parallel_job.host_number : 7));
}

/* Sets host_number. */
static void parallel_number_hosts(void) {
    const size_t ranks = (size_t)parallel_job.ranks;
    char(*hosts)[MPI_MAX_PROCESSOR_NAME] = check_calloc(ranks * sizeof *hosts);
    parallel_collect(hosts, parallel_job.host, sizeof *hosts);
    for (int r = 0; r < parallel_job.ranks && strcmp(hosts[r], parallel_job.host) != 0; r++) {
        int before = 0; /* the number of ranks below r that are on the same host as r */
        for (int k = 0; k < r; k++) before += strcmp(hosts[k], hosts[r]) == 0;
        parallel_job.host_number += before == 0;
    }
    free(hosts);
}

/* Allocates error_is_printed. MPI keeps this memory until all ranks of the host have released it, so a rank that has
   failed does not take it away from the others. */
static void parallel_allocate_error_flag(void) {
    MPI_Comm on_host;
    MPI_Aint size;
    int rank, unit;
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &on_host);
    MPI_Comm_rank(on_host, &rank);
    MPI_Win_allocate_shared(rank == 0 ? sizeof *parallel_job.error_is_printed : 0, 1, MPI_INFO_NULL, on_host,
                            &parallel_job.error_is_printed, &parallel_job.window);
    MPI_Win_shared_query(parallel_job.window, 0, &size, &unit, &parallel_job.error_is_printed);
    if (rank == 0) atomic_store(parallel_job.error_is_printed, 0);
    MPI_Barrier(on_host);
    MPI_Comm_free(&on_host);
}

static inline void parallel_start(int *argc, char ***argv) {
    /* Without a launcher there is one rank. Starting MPI would take almost a second for nothing. */
    if (!program_launched()) return;
    int length;
    MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &parallel_job.thread_support);
    MPI_Comm_rank(MPI_COMM_WORLD, &parallel_job.rank);
    MPI_Comm_size(MPI_COMM_WORLD, &parallel_job.ranks);
    MPI_Get_processor_name(parallel_job.host, &length);
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (parallel_job.ranks == 1 && size && atoi(size) > 1)
        die("the launcher started %s ranks, but this program's MPI sees one; use the mpirun of the MPI it "
            "was built with",
            size);
    if (parallel_job.ranks == 1) return;
    snprintf(check_hooks.prefix, sizeof check_hooks.prefix, "rank %d on %.100s: ", parallel_job.rank,
             parallel_job.host);
    parallel_number_hosts();
    parallel_allocate_error_flag();
    check_hooks.before_error = parallel_wait_to_print_error;
    check_hooks.end_job = parallel_end_job;
}

static inline void parallel_finish(void) {
    int initialized;
    MPI_Initialized(&initialized);
    if (parallel_job.error_is_printed) MPI_Win_free(&parallel_job.window);
    if (initialized) MPI_Finalize();
}

static inline void parallel_barrier(void) {
    if (parallel_job.ranks > 1) MPI_Barrier(MPI_COMM_WORLD);
}

static inline double parallel_sum_double(double x) {
    if (parallel_job.ranks == 1) return x;
    double *all = check_calloc((size_t)parallel_job.ranks * sizeof *all), sum = 0;
    parallel_collect(all, &x, sizeof x);
    /* MPI_Allreduce may add in any order, which would change the bits. */
    for (int r = 0; r < parallel_job.ranks; r++) sum += all[r];
    free(all);
    return sum;
}

static inline bool parallel_any(bool flag) { return parallel_sum_double(flag) > 0; }

#else

static inline int parallel_rank(void) { return 0; }
static inline int parallel_ranks(void) { return 1; }
static inline const char *parallel_host(void) { return ""; }
static inline void parallel_start(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (!size) size = getenv("PMI_SIZE");
    if (size && atoi(size) > 1)
        die("started as one of %s ranks, but built without MPI, so each would train alone; install an MPI "
            "with mpicc and run make again",
            size);
}
static inline void parallel_finish(void) {}
static inline void parallel_barrier(void) {}
static inline double parallel_sum_double(double x) { return x; }
static inline bool parallel_any(bool flag) { return flag; }
static inline void parallel_collect(void *all, const void *own, size_t n) { memcpy(all, own, n); }

#endif
#endif
