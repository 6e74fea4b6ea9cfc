/* hosts.h: on which hosts and cores the launcher has placed the ranks of a job, and how many threads each rank uses.
   A launcher binds ranks to cores; by default often each rank to one core. A program that ignores this would run all
   its threads on that core, or leave most of a host unused.

   hosts_set_threads(threads)   called by all ranks before the first parallel loop: sets how many OpenMP threads this
                                rank uses. 0: as many as the cores that it may use; where several ranks may use the same
                                cores, these cores divided by these ranks. OMP_NUM_THREADS replaces this choice
   hosts_memory_available()     called by all ranks: bytes that this rank may take, the free memory of its host divided
                                by the ranks there. Returns when all ranks have looked at their memory
   hosts_local_rank()           how many lower ranks are on the same host; this number chooses the rank's GPU
   hosts_local_ranks()          how many ranks are on this rank's host
   hosts_print()                called by all ranks: rank 0 prints ranks, hosts, threads and cores, and warns when
                                threads and cores do not fit together, with the option that corrects it
   hosts_set_threads must come before the others. */
#ifndef GPT_DIST_HOSTS_H
#define GPT_DIST_HOSTS_H

#include "../base/check.h"
#include "../base/memory.h"
#include "../base/threads.h"
#include "parallel.h"

enum { HOSTS_CORES = 1024, HOSTS_WORD = 64 }; /* cores that a set can hold; bits in a word of a set */

/* What a rank tells the others about itself. */
typedef struct {
    char host[64];
    int threads;
    int launcher_cores; /* how many cores the launcher's process on this host may use, and so the job; 0: not known */
    uint64_t cores[HOSTS_CORES / HOSTS_WORD]; /* the set of cores that this rank may use, one bit for each */
} HostRank;

static HostRank *hosts_ranks; /* (ranks), on every rank */

/* The number of cores in a set. */
static int hosts_count(const uint64_t *cores) {
    int count = 0;
    for (int i = 0; i < HOSTS_CORES / HOSTS_WORD; i++) count += __builtin_popcountll(cores[i]);
    return count;
}

/* Whether a core is in both sets. */
static bool hosts_cores_overlap(const uint64_t *a, const uint64_t *b) {
    uint64_t both = 0;
    for (int i = 0; i < HOSTS_CORES / HOSTS_WORD; i++) both |= a[i] & b[i];
    return both != 0;
}

/* The set as a text like "0-3,8". */
static const char *hosts_list(char text[64], const uint64_t *cores) {
    int used = 0;
    text[0] = 0;
    for (int i = 0, end; i < HOSTS_CORES && used < 48; i = end) {
        const bool has = cores[i / HOSTS_WORD] >> i % HOSTS_WORD & 1;
        for (end = i + 1; end < HOSTS_CORES && has == (cores[end / HOSTS_WORD] >> end % HOSTS_WORD & 1);)
            end++;
        if (!has) continue;
        used += snprintf(text + used, 64 - (size_t)used, "%s%d", used ? "," : "", i);
        if (end > i + 1) used += snprintf(text + used, 64 - (size_t)used, "-%d", end - 1);
    }
    return text;
}

/* What this rank knows about itself. */
static HostRank hosts_this_rank(void) {
    HostRank own = {.threads = threads_count()};
    snprintf(own.host, sizeof own.host, "%.63s", parallel_host());
#if defined(__linux__) && defined(CPU_COUNT)
    cpu_set_t set = cores_allowed();
    for (int i = 0; i < HOSTS_CORES && i < CPU_SETSIZE; i++)
        own.cores[i / HOSTS_WORD] |= (uint64_t)(CPU_ISSET(i, &set) != 0) << i % HOSTS_WORD;
    if (sched_getaffinity(getppid(), sizeof set, &set) == 0) own.launcher_cores = CPU_COUNT(&set);
#endif
    return own;
}

/* Fills hosts_ranks. */
static void hosts_collect(void) {
    HostRank own = hosts_this_rank();
    if (!hosts_ranks) hosts_ranks = check_calloc((size_t)parallel_ranks() * sizeof *hosts_ranks);
    parallel_collect(hosts_ranks, &own, sizeof own);
}

static inline void hosts_set_threads(int threads) {
    threads_set(threads);
    hosts_collect();
    const HostRank *own = &hosts_ranks[parallel_rank()];
    int same_cores = 0; /* ranks that may use some of the same cores, this one included */
    int cores = hosts_count(own->cores);
    for (int r = 0; r < parallel_ranks(); r++)
        same_cores += strcmp(hosts_ranks[r].host, own->host) == 0 &&
                      hosts_cores_overlap(hosts_ranks[r].cores, own->cores);
    if (cores_available() < cores) cores = cores_available(); /* a cgroup may allow less CPU time */
    if (threads == 0 && !getenv("OMP_NUM_THREADS") && same_cores > 1)
        threads_set(cores > same_cores ? cores / same_cores : 1);
    hosts_collect();
}

/* How many ranks below `rank` are on its host. */
static int hosts_rank_on_host(int rank) {
    int lower = 0;
    for (int r = 0; r < rank; r++) lower += strcmp(hosts_ranks[r].host, hosts_ranks[rank].host) == 0;
    return lower;
}

static inline int hosts_local_ranks(void) {
    int ranks = 0;
    for (int r = 0; hosts_ranks && r < parallel_ranks(); r++)
        ranks += strcmp(hosts_ranks[r].host, hosts_ranks[parallel_rank()].host) == 0;
    return ranks > 0 ? ranks : 1;
}

static inline int64_t hosts_memory_available(void) {
    const int64_t bytes = memory_available() / hosts_local_ranks();
    parallel_barrier(); /* what one rank allocates after this call must not count as taken on another */
    return bytes;
}

static inline int hosts_local_rank(void) { return hosts_rank_on_host(parallel_rank()); }

/* The ranks of one host together. */
typedef struct {
    int ranks, threads, launcher_cores;
    uint64_t cores[HOSTS_CORES / HOSTS_WORD];
} Host;

/* The host whose lowest rank is `first`. */
static Host hosts_host_of(int first) {
    Host host = {.launcher_cores = hosts_ranks[first].launcher_cores};
    for (int r = first; r < parallel_ranks(); r++) {
        if (strcmp(hosts_ranks[r].host, hosts_ranks[first].host) != 0) continue;
        host.ranks++, host.threads += hosts_ranks[r].threads;
        for (int i = 0; i < HOSTS_CORES / HOSTS_WORD; i++) host.cores[i] |= hosts_ranks[r].cores[i];
    }
    return host;
}

/* Warns about the first of these that is true on the host whose lowest rank is `first`: a rank has more threads than
   cores; all ranks together have more threads than cores; they use fewer cores than the job has there. Returns whether
   it has warned. */
static bool hosts_warn(int first) {
    const Host host = hosts_host_of(first);
    const int cores = hosts_count(host.cores);
    const char *name = hosts_ranks[first].host;
    if (cores == 0) return false; /* not known */
    for (int r = first; r < parallel_ranks(); r++) {
        const HostRank *rank = &hosts_ranks[r];
        const int rank_cores = hosts_count(rank->cores);
        if (strcmp(rank->host, name) != 0 || rank->threads <= rank_cores) continue;
        warn("rank %d on %s has %d threads on %d core%s: the launcher binds it there; give mpirun the option "
             "--bind-to none (or --map-by slot:PE=%d), srun --cpus-per-task=%d, or train with --threads=%d",
             r, name, rank->threads, rank_cores, rank_cores > 1 ? "s" : "", rank->threads, rank->threads,
             rank_cores);
        return true;
    }
    if (host.threads > cores && host.ranks > cores) {
        warn("%d ranks run on %d cores of %s; start fewer ranks", host.ranks, cores, name);
        return true;
    }
    if (host.threads > cores) {
        warn("%d ranks on %s have %d threads on the same %d cores; train with --threads=%d", host.ranks, name,
             host.threads, cores, cores / host.ranks);
        return true;
    }
    if (host.threads < host.launcher_cores && cores < host.launcher_cores) {
        warn("%d rank(s) on %s use %d of the %d cores that the job has there: the launcher binds them; give "
             "mpirun the option --map-by slot:PE=%d (or --bind-to none)",
             host.ranks, name, cores, host.launcher_cores, host.launcher_cores / host.ranks);
        return true;
    }
    return false;
}

/* One line about the host whose lowest rank is `first`: its ranks and the cores of the first four of them. */
static void hosts_describe(char line[256], int first) {
    const Host host = hosts_host_of(first);
    int used = snprintf(line, 256, "           %.40s: %d rank%s from %d on, cores", hosts_ranks[first].host,
                        host.ranks, host.ranks > 1 ? "s" : "", first);
    for (int r = first, shown = 0; r < parallel_ranks() && shown < 4; r++) {
        char list[64];
        if (strcmp(hosts_ranks[r].host, hosts_ranks[first].host) != 0) continue;
        used += snprintf(line + used, 256 - (size_t)used, "%s %.30s", shown++ ? " |" : "",
                         hosts_list(list, hosts_ranks[r].cores));
    }
    if (host.ranks > 4) snprintf(line + used, 256 - (size_t)used, " | ...");
}

static inline void hosts_print(void) {
    enum { SHOWN = 8 }; /* hosts that get a line of their own; a large job has hundreds */
    const int ranks = parallel_ranks();
    int hosts = 0, least = INT32_MAX, most = 0;
    bool warned = false;
    if (parallel_rank() != 0 || !*parallel_host()) return; /* without a name: started without a launcher */
    if (ranks == 1) {
        hosts_warn(0);
        return;
    }
    for (int r = 0; r < ranks; r++) {
        const int threads = hosts_ranks[r].threads;
        least = threads < least ? threads : least, most = threads > most ? threads : most;
        hosts += hosts_rank_on_host(r) == 0;
    }
    printf("ranks      %d on %d host%s, %d", ranks, hosts, hosts > 1 ? "s" : "", least);
    if (most > least) printf(" to %d", most);
    printf(" thread%s each\n", most > 1 ? "s" : "");
    for (int r = 0, shown = 0; r < ranks && shown < SHOWN; r++) {
        char line[256];
        if (hosts_rank_on_host(r) > 0) continue;
        hosts_describe(line, r), shown++;
        printf("%s\n", line);
    }
    if (hosts > SHOWN) printf("           and %d hosts more\n", hosts - SHOWN);
    for (int r = 0; r < ranks && !warned; r++) warned = hosts_rank_on_host(r) == 0 && hosts_warn(r);
}

#endif
