/* hosts.h: what the launcher gave the ranks of a job: hosts, cores, threads. Launchers bind ranks to cores, by default
   often to one each, and a program that does not look runs all its threads there, or leaves a machine idle.

   hosts_settle(threads)   all ranks, before the first parallel loop: the OpenMP threads of this rank. 0: of the cores it
                           may use its share, when other ranks may use the same
   hosts_memory_available()   bytes this rank may take: its share of what is free on its host
   hosts_local_rank()      how many lower ranks are on the same host: the number of this one's GPU
   hosts_print()           rank 0: ranks, hosts, threads, cores; warnings, with the option that mends it */
#ifndef GPT_DIST_HOSTS_H
#define GPT_DIST_HOSTS_H

#include "../base/check.h"
#include "../base/memory.h"
#include "../base/threads.h"
#include "parallel.h"

enum { HOSTS_CORES = 1024, HOSTS_WORD = 64 };

typedef struct {
    char host[64];
    int threads;
    int launcher_cores; /* those of the process that started this one: what the job may use here; 0: not known */
    uint64_t cores[HOSTS_CORES / HOSTS_WORD]; /* a bit each: those this rank may use */
} HostRank;

static HostRank *hosts_ranks; /* (ranks), on every rank */

static int hosts_count(const uint64_t *cores) {
    int count = 0;
    for (int i = 0; i < HOSTS_CORES / HOSTS_WORD; i++) count += __builtin_popcountll(cores[i]);
    return count;
}

static bool hosts_meet(const uint64_t *a, const uint64_t *b) {
    uint64_t both = 0;
    for (int i = 0; i < HOSTS_CORES / HOSTS_WORD; i++) both |= a[i] & b[i];
    return both != 0;
}

/* "0-3,8" */
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

static HostRank hosts_own(void) {
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

static void hosts_collect(void) {
    HostRank own = hosts_own();
    if (!hosts_ranks) hosts_ranks = check_calloc((size_t)parallel_ranks() * sizeof *hosts_ranks);
    parallel_collect(hosts_ranks, &own, sizeof own);
}

static inline void hosts_settle(int threads) {
    threads_set(threads);
    hosts_collect();
    const HostRank *own = &hosts_ranks[parallel_rank()];
    int sharing = 0, cores = hosts_count(own->cores);
    for (int r = 0; r < parallel_ranks(); r++)
        sharing +=
            strcmp(hosts_ranks[r].host, own->host) == 0 && hosts_meet(hosts_ranks[r].cores, own->cores);
    if (cores_available() < cores) cores = cores_available(); /* a quota */
    if (threads == 0 && !getenv("OMP_NUM_THREADS") && sharing > 1)
        threads_set(cores > sharing ? cores / sharing : 1);
    hosts_collect();
}

/* How many lower ranks are on the host of this one. */
static int hosts_lower(int rank) {
    int lower = 0;
    for (int r = 0; r < rank; r++) lower += strcmp(hosts_ranks[r].host, hosts_ranks[rank].host) == 0;
    return lower;
}

/* How many ranks are on this one's host: those that share its memory. */
static inline int hosts_sharing(void) {
    int sharing = 0;
    for (int r = 0; hosts_ranks && r < parallel_ranks(); r++)
        sharing += strcmp(hosts_ranks[r].host, hosts_ranks[parallel_rank()].host) == 0;
    return sharing > 0 ? sharing : 1;
}

/* Bytes that this rank may take. All ranks call it, and none takes memory before all have looked. */
static inline int64_t hosts_memory_available(void) {
    const int64_t bytes = memory_available() / hosts_sharing();
    parallel_barrier();
    return bytes;
}

static inline int hosts_local_rank(void) { return hosts_lower(parallel_rank()); }

typedef struct { /* of the ranks of one host together */
    int ranks, threads, launcher_cores;
    uint64_t cores[HOSTS_CORES / HOSTS_WORD];
} Host;

/* That of rank `first`. */
static Host hosts_host(int first) {
    Host host = {.launcher_cores = hosts_ranks[first].launcher_cores};
    for (int r = first; r < parallel_ranks(); r++) {
        if (strcmp(hosts_ranks[r].host, hosts_ranks[first].host) != 0) continue;
        host.ranks++, host.threads += hosts_ranks[r].threads;
        for (int i = 0; i < HOSTS_CORES / HOSTS_WORD; i++) host.cores[i] |= hosts_ranks[r].cores[i];
    }
    return host;
}

/* The first trouble there is; true when there was one. */
static bool hosts_warn(int first) {
    const Host host = hosts_host(first);
    const int cores = hosts_count(host.cores);
    const char *name = hosts_ranks[first].host;
    if (cores == 0) return false; /* not known */
    for (int r = first; r < parallel_ranks(); r++) {
        const HostRank *rank = &hosts_ranks[r];
        const int its = hosts_count(rank->cores);
        if (strcmp(rank->host, name) != 0 || rank->threads <= its) continue;
        warn("rank %d on %s has %d threads on %d core%s: the launcher binds it there; give mpirun the option "
             "--bind-to none (or --map-by slot:PE=%d), srun --cpus-per-task=%d, or train with --threads=%d",
             r, name, rank->threads, its, its > 1 ? "s" : "", rank->threads, rank->threads, its);
        return true;
    }
    if (host.threads > cores && host.ranks > cores) {
        warn("%d ranks share %d cores on %s; start fewer", host.ranks, cores, name);
        return true;
    }
    if (host.threads > cores) {
        warn("%d ranks on %s have %d threads on the same %d cores; train with --threads=%d", host.ranks, name,
             host.threads, cores, cores / host.ranks);
        return true;
    }
    if (host.threads < host.launcher_cores && cores < host.launcher_cores) {
        warn("%d rank(s) on %s use %d of the %d cores that the job has there: the launcher binds them; give "
             "mpirun the "
             "option --map-by slot:PE=%d (or --bind-to none)",
             host.ranks, name, cores, host.launcher_cores, host.launcher_cores / host.ranks);
        return true;
    }
    return false;
}

static inline void hosts_print(void) {
    enum { SHOWN = 8 }; /* hosts; a thousand lines help nobody */
    const int ranks = parallel_ranks();
    int hosts = 0, least = INT32_MAX, most = 0;
    bool warned = false;
    if (parallel_rank() != 0 || !*parallel_host()) return; /* no launcher: nothing it could have done */
    if (ranks == 1) {
        hosts_warn(0);
        return;
    }
    char(*lines)[256] = check_calloc(SHOWN * sizeof *lines);
    for (int r = 0; r < ranks; r++) {
        const HostRank *rank = &hosts_ranks[r];
        least = rank->threads < least ? rank->threads : least,
        most = rank->threads > most ? rank->threads : most;
        if (hosts_lower(r) > 0 || hosts++ >= SHOWN) continue;
        const Host host = hosts_host(r);
        int used = snprintf(lines[hosts - 1], 256, "           %.40s: %d rank%s from %d on, cores",
                            rank->host, host.ranks, host.ranks > 1 ? "s" : "", r);
        for (int k = r, shown = 0; k < ranks && shown < 4; k++) {
            char list[64];
            if (strcmp(hosts_ranks[k].host, rank->host) != 0) continue;
            used += snprintf(lines[hosts - 1] + used, 256 - (size_t)used, "%s %.30s", shown++ ? " |" : "",
                             hosts_list(list, hosts_ranks[k].cores));
        }
        if (host.ranks > 4) snprintf(lines[hosts - 1] + used, 256 - (size_t)used, " | ...");
    }
    printf("ranks      %d on %d host%s, %d", ranks, hosts, hosts > 1 ? "s" : "", least);
    if (most > least) printf(" to %d", most);
    printf(" thread%s each\n", most > 1 ? "s" : "");
    for (int i = 0; i < hosts && i < SHOWN; i++) printf("%s\n", lines[i]);
    if (hosts > SHOWN) printf("           and %d hosts more\n", hosts - SHOWN);
    free(lines);
    for (int r = 0; r < ranks && !warned; r++) warned = hosts_lower(r) == 0 && hosts_warn(r);
}

#endif
