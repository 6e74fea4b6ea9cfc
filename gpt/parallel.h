/* parallel.h: data parallelism over MPI ranks; without -DHAVE_MPI one rank, and every call a no-op.

   parallel_start(&argc, &argv)   before anything else; parallel_finish() last
   parallel_rank(), parallel_ranks()
   parallel_sum(x, n)             x (n) := sum of x over the ranks, the same bits on every rank
   parallel_sum_double(x)         the same for one number, returned
   parallel_any(flag)             true on every rank when it is true on one
   parallel_barrier()
   An error on one rank names it and ends the job on all (check.h's hooks). */
#ifndef GPT_PARALLEL_H
#define GPT_PARALLEL_H

#include <stdbool.h>
#include <stddef.h>
#include "check.h"
#ifdef HAVE_MPI
#include <mpi.h>

static int parallel_rank_, parallel_ranks_ = 1;

static inline int parallel_rank(void) { return parallel_rank_; }
static inline int parallel_ranks(void) { return parallel_ranks_; }

static void parallel_end_job(int code) {
    if (parallel_ranks_ > 1) MPI_Abort(MPI_COMM_WORLD, code);
}

static inline void parallel_start(int *argc, char ***argv) {
    /* Without a launcher there is one rank, and MPI's own start-up, a good part of a second, is not needed. */
    static const char *const launchers[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK",
                                            "MPI_LOCALNRANKS"};
    bool launched = false;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        launched |= getenv(launchers[i]) != NULL;
    if (!launched) return;
    int provided;
    MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &parallel_rank_);
    MPI_Comm_size(MPI_COMM_WORLD, &parallel_ranks_);
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (parallel_ranks_ == 1 && size && atoi(size) > 1)
        die("the launcher started %s ranks, but this program's MPI sees one; use the mpirun of the MPI it "
            "was built with",
            size);
    if (parallel_ranks_ == 1) return;
    char host[MPI_MAX_PROCESSOR_NAME];
    int length;
    MPI_Get_processor_name(host, &length);
    snprintf(check_hooks.prefix, sizeof check_hooks.prefix, "rank %d on %.100s: ", parallel_rank_, host);
    check_hooks.end_job = parallel_end_job;
}

static inline void parallel_finish(void) {
    int initialized;
    MPI_Initialized(&initialized);
    if (initialized) MPI_Finalize();
}

static inline void parallel_barrier(void) {
    if (parallel_ranks_ > 1) MPI_Barrier(MPI_COMM_WORLD);
}

static inline void parallel_sum(float *x, size_t n) {
    const size_t most = 1 << 24; /* MPI counts are int */
    for (size_t i = 0; i < n && parallel_ranks_ > 1; i += most)
        MPI_Allreduce(MPI_IN_PLACE, x + i, (int)(n - i < most ? n - i : most), MPI_FLOAT, MPI_SUM,
                      MPI_COMM_WORLD);
}

static inline double parallel_sum_double(double x) {
    if (parallel_ranks_ > 1) MPI_Allreduce(MPI_IN_PLACE, &x, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return x;
}

static inline bool parallel_any(bool flag) { return parallel_sum_double(flag) > 0; }

#else

static inline int parallel_rank(void) { return 0; }
static inline int parallel_ranks(void) { return 1; }
static inline void parallel_start(int *argc, char ***argv) {
    (void)argc, (void)argv;
    const char *size = getenv("OMPI_COMM_WORLD_SIZE");
    if (!size) size = getenv("PMI_SIZE");
    if (size && atoi(size) > 1)
        die("started as one of %s ranks, but built without MPI, so each would train alone; install an MPI "
            "with mpicc "
            "and run make again",
            size);
}
static inline void parallel_finish(void) {}
static inline void parallel_barrier(void) {}
static inline void parallel_sum(float *x, size_t n) { (void)x, (void)n; }
static inline double parallel_sum_double(double x) { return x; }
static inline bool parallel_any(bool flag) { return flag; }

#endif
#endif
