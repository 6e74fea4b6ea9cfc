/* machine.h: what the program runs on: time, cores, instruction set, memory, and its
   peak rate.

   machine_seconds()          monotonic clock
   machine_settle_threads(argv)   first of all in main: OpenMP's threads soon fall asleep when they wait, and stay
                             near their memory
   machine_unpin_thread()             a thread of one's own, first of all: it may run on all of the process's cores
   machine_allocate(bytes)    zeroed memory for the large pieces
   machine_keep_freed_memory()   at the start of a program that works in rounds
   machine_cores()            cores this process may run on, not those the machine has
   machine_cpu_name(buffer)   "AMD EPYC 9575F" as the kernel calls it
   machine_native_bf16()      whether products of bfloat16 are faster here than those of float32
   machine_tiles_allowed(), machine_tiles_begin(), machine_tiles_end()    AMX, where there is
   machine_isa()              the widest instruction set this binary was compiled for
   machine_memory_available() bytes the kernel would still give out, and the limits of the process's cgroups
   machine_peak_rss()         largest resident set of this process so far, bytes
   machine_peak_flops(bf16)   floating-point operations a second of all OpenMP threads in a loop of nothing but
                              fused multiply-adds (or bf16 dot products): the 100 % of every MFU; 0.1 s */
#ifndef GPT_BASE_MACHINE_H
#define GPT_BASE_MACHINE_H

#include <math.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#ifdef __linux__
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#endif
#include "check.h"
#include "program.h"
#ifdef _OPENMP
#include <omp.h>
#endif
#if defined(__AVX512BF16__) || defined(__AMX_TILE__) || defined(__AMXTILE__)
#include <immintrin.h>
#endif

/* Memory in huge pages where the system has them, not yet touched. free() releases it; never NULL. */
enum { MACHINE_HUGE_PAGE = 2 << 20 };
static inline void *machine_reserve(size_t bytes) {
    const size_t alignment = bytes >= MACHINE_HUGE_PAGE ? MACHINE_HUGE_PAGE : 64;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    char *memory = rounded < bytes ? NULL : aligned_alloc(alignment, rounded ? rounded : alignment);
    if (!memory)
        die("cannot allocate %.1f MiB of memory; use a smaller --batch, --seq-len or model",
            bytes / 1048576.0);
#if defined __linux__ && defined MADV_HUGEPAGE
    if (bytes >= MACHINE_HUGE_PAGE) madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    return memory;
}

/* The same, zeroed by all threads in even parts: on a machine of several memory nodes a page lies near the thread that
   touches it first. */
static inline void *machine_allocate(size_t bytes) {
    char *memory = machine_reserve(bytes);
#pragma omp parallel for schedule(static) if (bytes >= MACHINE_HUGE_PAGE)
    for (size_t i = 0; i < bytes; i += 4096) memset(memory + i, 0, bytes - i < 4096 ? bytes - i : 4096);
    return memory;
}

/* Keeps freed blocks of up to 32 MiB, the work memory of attention among them, instead of giving them back to the system and
   faulting them in again at the next call. */
static inline void machine_keep_freed_memory(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

static inline double machine_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#if defined(__linux__) && defined(CPU_COUNT)
/* The cores this process may run on: the calling thread's, and, since OpenMP may have bound that one to a single core
   (OMP_PROC_BIND), those of all its places. */
static inline cpu_set_t machine_core_set(void) {
    cpu_set_t set;
    CPU_ZERO(&set);
    sched_getaffinity(0, sizeof set, &set); /* on more cores than a set holds, 1,024, it stays empty */
#if defined(_OPENMP) && _OPENMP >= 201511
    for (int place = 0; place < omp_get_num_places(); place++) {
        int count = omp_get_place_num_procs(place),
            *cores = check_malloc((size_t)(count + 1) * sizeof *cores);
        omp_get_place_proc_ids(place, cores);
        for (int i = 0; i < count; i++) CPU_SET(cores[i], &set);
        free(cores);
    }
#endif
    return set;
}

static inline void machine_unpin_thread(void) {
    const cpu_set_t set = machine_core_set();
    sched_setaffinity(0, sizeof set, &set);
}
#else
static inline void machine_unpin_thread(void) {}
#endif

/* ---- control groups: a container's or a scheduler's limits, of which affinity and /proc/meminfo know nothing ---- */

/* Two whole numbers of a file such as "200000 100000" or "max"; how many were found. */
static inline int machine_read_numbers(const char *path, double numbers[2]) {
    FILE *file = fopen(path, "r");
    int count = file ? fscanf(file, "%lf %lf", &numbers[0], &numbers[1]) : 0;
    if (file) fclose(file);
    return count > 0 ? count : 0;
}

/* The number after "key" in a file of lines "key number"; 0: none. */
static inline double machine_read_key(const char *path, const char *key) {
    FILE *file = fopen(path, "r");
    char name[64];
    double value = 0, found = 0;
    while (file && fscanf(file, "%63s %lf", name, &value) == 2)
        if (strcmp(name, key) == 0) found = value;
    if (file) fclose(file);
    return found;
}

typedef struct {
    double cores;  /* that the CPU quota pays for; infinity: no limit */
    double memory; /* bytes that may still be taken; infinity: no limit */
} MachineLimits;

/* What the files of one group say; groups of version 2 have other names than those of version 1. What the page cache
   holds counts as used, but gives way. */
static inline void machine_group_limits(const char *folder, MachineLimits *limits) {
    static const struct {
        const char *limit, *used, *cache[2];
    } memory[] = {
        {"memory.max", "memory.current", {"inactive_file", "active_file"}},
        {"memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}}};
    char path[4400];
    double numbers[2], quota, period;
    for (int version = 0; version < 2; version++) {
        snprintf(path, sizeof path, "%s/%s", folder, memory[version].limit);
        if (machine_read_numbers(path, numbers) < 1 || numbers[0] >= 0x1p60)
            continue; /* version 1's "none" */
        double left = numbers[0];
        snprintf(path, sizeof path, "%s/%s", folder, memory[version].used);
        if (machine_read_numbers(path, numbers) > 0) left -= numbers[0];
        snprintf(path, sizeof path, "%s/memory.stat", folder);
        for (int i = 0; i < 2; i++) left += machine_read_key(path, memory[version].cache[i]);
        limits->memory = fmin(limits->memory, fmax(left, 0));
    }
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (machine_read_numbers(path, numbers) == 2 && numbers[0] > 0 && numbers[1] > 0)
        limits->cores = fmin(limits->cores, numbers[0] / numbers[1]);
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    quota = machine_read_numbers(path, numbers) > 0 ? numbers[0] : -1;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    period = machine_read_numbers(path, numbers) > 0 ? numbers[0] : -1;
    if (quota > 0 && period > 0) limits->cores = fmin(limits->cores, quota / period);
}

/* A group and all that it is in: each limits it. In a container the path may be that outside of it, of which only the
   root is to be seen. */
static inline void machine_path_limits(const char *mount, const char *group, MachineLimits *limits) {
    char folder[4300];
    size_t least = strlen(mount);
    snprintf(folder, sizeof folder, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
    for (char *slash;; *slash = 0) {
        machine_group_limits(folder, limits);
        if (strlen(folder) <= least || !(slash = strrchr(folder + least, '/'))) return;
    }
}

/* The limits of the groups that `list`, /proc/self/cgroup, names: lines "0::/path" of version 2, "4:memory:/path" and
   "3:cpu,cpuacct:/path" of version 1. `mount` is /sys/fs/cgroup. */
static inline MachineLimits machine_limits(const char *list, const char *mount) {
    MachineLimits limits = {INFINITY, INFINITY};
    char line[4096], folder[4200];
    FILE *file = fopen(list, "r");
    while (file && fgets(line, sizeof line, file)) {
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        group[strcspn(group, "\n")] = 0;
        if (!*++names) {
            machine_path_limits(mount, group, &limits);
            snprintf(folder, sizeof folder, "%s/unified", mount);
            machine_path_limits(folder, group, &limits);
            continue;
        }
        for (char *state = NULL, *name = strtok_r(names, ",", &state); name;
             name = strtok_r(NULL, ",", &state)) {
            if (strcmp(name, "memory") != 0 && strcmp(name, "cpu") != 0) continue;
            snprintf(folder, sizeof folder, "%s/%s", mount, name);
            machine_path_limits(folder, group, &limits);
        }
    }
    if (file) fclose(file);
    return limits;
}

static inline MachineLimits machine_own_limits(void) {
    return machine_limits("/proc/self/cgroup", "/sys/fs/cgroup");
}

/* Of a quota of 1.5 cores two threads get more than one does. */
static inline int machine_cores(void) {
    int cores = 0;
#if defined(__linux__) && defined(CPU_COUNT)
    const cpu_set_t set = machine_core_set();
    cores = CPU_COUNT(&set);
#endif
    if (cores == 0) cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    const double quota = ceil(machine_own_limits().cores);
    if (quota < cores) cores = (int)quota;
    return cores > 0 ? cores : 1;
}

static inline int machine_threads(void) {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

/* After the program has set nothing else about threads, before its first parallel loop. */
static inline void machine_use_threads(int threads) {
#ifdef _OPENMP
    const int cores = machine_cores();
    if (threads > 0)
        omp_set_num_threads(threads);
    else if (!getenv("OMP_NUM_THREADS") && omp_get_max_threads() > cores)
        omp_set_num_threads(cores);
#else
    (void)threads;
#endif
}

/* How many numbers a list such as "0-1,4" has, the form in which Linux tells its memory nodes; 0: none, or no file. */
static inline int machine_count_list(const char *path) {
    FILE *file = fopen(path, "r");
    int first, last, count = 0;
    char next;
    while (file && fscanf(file, "%d", &first) == 1) {
        last = first;
        if (fscanf(file, "%c", &next) == 1 && next == '-' && fscanf(file, "%d%c", &last, &next) < 1) break;
        count += last - first + 1;
    }
    if (file) fclose(file);
    return count;
}

/* Sets name=value for the next start, unless the user has set one of these names, which end with a NULL. */
static inline bool machine_set_unless(const char *const *names, const char *value) {
    for (const char *const *name = names; *name; name++)
        if (getenv(*name)) return false;
    return setenv(names[0], value, 1) == 0;
}

/* What OpenMP should do unless the user has decided it. The runtime reads its settings before main, so the program
   starts itself once more. Call it first; argv is main's.
   Threads that wait for others spin for some 30 us, less than it takes to wake one that sleeps, and then sleep: on a
   machine that other programs use as well, spinning takes the core from the very thread that is waited for, and as long
   as the runtime would do it, milliseconds, it makes a run ten to a hundred times slower. Not spinning at all costs a
   quiet machine 1 % of a large model's step, and 5 % of the demo's. (LLVM's runtime counts in milliseconds: it sleeps.)
   On a machine of several memory nodes whose cores all work for this one process, threads are bound to cores, since each
   has touched its share of the memory first. With fewer threads than cores (asked for, or all that a quota pays for), or
   several ranks, two processes would be bound to the same cores; and on one node the kernel does better by itself. */
static inline void machine_settle_threads(char **argv) {
#if defined(_OPENMP) && defined(__linux__)
    static const char *const wait[] = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", NULL};
    static const char *const bind[] = {"OMP_PROC_BIND", "OMP_PLACES",      "GOMP_CPU_AFFINITY",
                                       "KMP_AFFINITY",  "OMP_NUM_THREADS", NULL};
    char self[4096];
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    bool all_cores = !program_launched() && isinf(machine_own_limits().cores),
         changed = machine_set_unless(wait, "passive");
    if (changed) setenv("GOMP_SPINCOUNT", "3000", 1); /* turns of a loop */
    for (char **argument = argv; *argument; argument++)
        all_cores = all_cores && strncmp(*argument, "--threads", strlen("--threads")) != 0;
    if (all_cores && machine_count_list("/sys/devices/system/node/online") > 1)
        changed |= machine_set_unless(bind, "close");
    if (!changed || length <= 0) return;
    self[length] = 0;
    machine_unpin_thread(); /* what starts may use what this process may, not only the core it is bound to */
    execv(self, argv);      /* returns only when it could not: then waiting spins */
#else
    (void)argv;
#endif
}

/* The text after "key" in a file of "key : value" lines such as /proc/cpuinfo; false when it is not there. */
static inline bool machine_proc_value(const char *path, const char *key, char *value, size_t size) {
    FILE *file = fopen(path, "r");
    char line[512];
    bool found = false;
    while (file && !found && fgets(line, sizeof line, file)) {
        char *colon = strchr(line, ':');
        if (!colon || strncmp(line, key, strlen(key)) != 0) continue;
        colon += 1 + strspn(colon + 1, " \t");
        colon[strcspn(colon, "\n")] = 0;
        snprintf(value, size, "%s", colon);
        found = true;
    }
    if (file) fclose(file);
    return found;
}

static inline const char *machine_cpu_name(char name[128]) {
    if (!machine_proc_value("/proc/cpuinfo", "model name", name, 128))
        snprintf(name, 128, "unknown processor");
    return name;
}

/* AMX's tile registers multiply matrices of bfloat16. Linux lends them to a process that asks; a thread that uses
   them gives all eight the shape 16 rows of 64 bytes first, and releases them when done. */
#if ((defined __AMX_TILE__ && defined __AMX_BF16__) || (defined __AMXTILE__ && defined __AMXBF16__)) &&      \
    defined __linux__
#define MACHINE_TILES 1
static inline bool machine_tiles_allowed(void) {
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    static atomic_int answer; /* 0: not asked yet */
    if (!answer) answer = syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0 ? 1 : -1;
    return answer > 0;
}
static inline void machine_tiles_begin(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) shape.row_bytes[i] = 64, shape.rows[i] = 16;
    __asm__ volatile("" ::"m"(shape)); /* the intrinsic does not tell the compiler that it reads memory */
    _tile_loadconfig(&shape);
}
static inline void machine_tiles_end(void) { _tile_release(); }
#else
#define MACHINE_TILES 0
static inline bool machine_tiles_allowed(void) { return false; }
static inline void machine_tiles_begin(void) {}
static inline void machine_tiles_end(void) {}
#endif

/* Whether products of bfloat16 are faster here than those of float32: --dtype's default. AVX512-BF16 alone
   is not enough: Intel's processors take four times as long for its dot product as for a multiply-add. */
static inline bool machine_native_bf16(void) {
#if MACHINE_TILES
    return machine_tiles_allowed();
#elif defined(__AVX512BF16__)
    return __builtin_cpu_is("amd");
#elif defined(__ARM_FEATURE_BF16_VECTOR_ARITHMETIC)
    return true;
#else
    return false;
#endif
}

static inline const char *machine_isa(void) {
#if MACHINE_TILES
    return machine_tiles_allowed() ? "AVX-512 + AMX" : "AVX-512 (AMX refused by the kernel)";
#elif defined(__AVX512BF16__)
    return "AVX-512 + BF16";
#elif defined(__AVX512F__)
    return "AVX-512";
#elif defined(__AVX2__)
    return "AVX2";
#elif defined(__x86_64__)
    return "SSE2";
#elif defined(__ARM_NEON)
    return "NEON";
#else
    return "scalar";
#endif
}

static inline int64_t machine_memory_available(void) {
    char value[64];
    long long kib = 0;
    int64_t bytes = INT64_MAX; /* unknown: let the allocation decide */
    if (machine_proc_value("/proc/meminfo", "MemAvailable", value, sizeof value) &&
        sscanf(value, "%lld", &kib) == 1)
        bytes = kib * 1024;
    const double limit = machine_own_limits().memory;
    return limit < (double)bytes ? (int64_t)limit : bytes;
}

static inline int64_t machine_peak_rss(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
    return usage.ru_maxrss;
#else
    return (int64_t)usage.ru_maxrss * 1024;
#endif
}

/* Enough independent sums to hide the latency of a multiply-add, few enough to stay in registers. */
#if defined(__AVX512F__)
enum { PEAK_LANES = 16, PEAK_SUMS = 20 };
#elif defined(__AVX__)
enum { PEAK_LANES = 8, PEAK_SUMS = 12 };
#else
enum { PEAK_LANES = 4, PEAK_SUMS = 12 };
#endif
typedef float PeakVector __attribute__((vector_size(PEAK_LANES * sizeof(float))));

#ifdef __clang__
#define PEAK_UNROLL _Pragma("clang loop unroll(full)")
#else
#define PEAK_UNROLL _Pragma("GCC unroll 20")
#endif

/* The same with tile registers. */
static inline double machine_peak_tiles(long rounds) {
#if MACHINE_TILES
    machine_tiles_begin();
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
    for (long round = 0; round < rounds; round++) {
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    machine_tiles_end();
#endif
    return (double)rounds * 4 * 16 * 16 * 32 * 2;
}

/* One thread's loop; returns the operations it did. `sink` keeps the result alive. */
static inline double machine_peak_loop(bool bf16, long rounds, float *sink) {
    if (bf16 && machine_tiles_allowed()) {
        *sink += 1;
        return machine_peak_tiles(rounds / 4);
    }
    PeakVector sum[PEAK_SUMS], factor, addend;
    for (int lane = 0; lane < PEAK_LANES; lane++) factor[lane] = 0.999f, addend[lane] = 1e-3f;
    for (int i = 0; i < PEAK_SUMS; i++) sum[i] = factor * (float)i;
#if defined(__AVX512BF16__) && !MACHINE_TILES
    if (bf16) {
        __m512bh a = _mm512_cvtne2ps_pbh(factor, addend), b = _mm512_cvtne2ps_pbh(addend, factor);
        for (long round = 0; round < rounds; round++) {
            PEAK_UNROLL
            for (int i = 0; i < PEAK_SUMS; i++) sum[i] = _mm512_dpbf16_ps(sum[i], a, b);
        }
    } else
#endif
        for (long round = 0; round < rounds; round++) {
            PEAK_UNROLL
            for (int i = 0; i < PEAK_SUMS; i++) sum[i] = sum[i] * factor + addend;
        }
    for (int i = 1; i < PEAK_SUMS; i++) sum[0] += sum[i];
    *sink += sum[0][0];
#if defined(__AVX512BF16__) && !MACHINE_TILES
    if (bf16) return (double)rounds * PEAK_SUMS * PEAK_LANES * 4;
#endif
    (void)bf16;
    return (double)rounds * PEAK_SUMS * PEAK_LANES * 2;
}

/* The rate of `threads` threads together, once. */
static inline double machine_peak_once(bool bf16, int threads) {
    double operations = 0, start = machine_seconds();
    float sink = 0;
#pragma omp parallel num_threads(threads) reduction(+ : operations, sink)
    operations += machine_peak_loop(bf16, 500000, &sink);
    return sink != 0 ? operations / (machine_seconds() - start) : 0;
}

/* Just started, threads may share a core for a while, and other programs come and go: all threads are tried until
   they reach nearly the number of threads times the rate of one, for at most a second. */
static inline double machine_peak_flops(bool bf16) {
    const int threads = machine_threads();
    const double start = machine_seconds();
    double one = 0, all = 0;
    for (int repeat = 0; repeat < 3; repeat++) one = fmax(one, machine_peak_once(bf16, 1));
    do all = fmax(all, machine_peak_once(bf16, threads));
    while (all < 0.95 * threads * one && machine_seconds() - start < 1);
    return all;
}

#endif
