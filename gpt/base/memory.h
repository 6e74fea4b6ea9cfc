/* memory.h: memory for the large arrays, and how much there is.

   memory_reserve(bytes)      memory in huge pages where the system has them, not yet touched; free() releases it; never
                              NULL
   memory_allocate(bytes)     the same, zeroed by all threads
   memory_keep_freed()        at the start of a program that allocates the same sizes again and again: freed blocks of
                              up to 32 MiB, such as the work memory of attention, stay with the process. Giving them
                              back to the system would cost page faults at each new allocation
   memory_available()         bytes that this process can still allocate: what the kernel has free, within the limits of
                              the process's cgroups; INT64_MAX: not known
   memory_peak()              the largest resident set of this process so far, in bytes
   Small pieces come from check_calloc in check.h. */
#ifndef GPT_BASE_MEMORY_H
#define GPT_BASE_MEMORY_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif
#include "cgroup.h"
#include "check.h"

enum { MEMORY_HUGE_PAGE = 2 << 20 };

static inline void *memory_reserve(size_t bytes) {
    const size_t alignment = bytes >= MEMORY_HUGE_PAGE ? MEMORY_HUGE_PAGE : 64;
    const size_t rounded = (bytes + alignment - 1) / alignment * alignment;
    char *memory = rounded < bytes ? NULL : aligned_alloc(alignment, rounded ? rounded : alignment);
    if (!memory)
        die("cannot allocate %.1f MiB of memory; use a smaller --batch, --seq-len or model",
            bytes / 1048576.0);
#if defined __linux__ && defined MADV_HUGEPAGE
    if (bytes >= MEMORY_HUGE_PAGE) madvise(memory, rounded, MADV_HUGEPAGE);
#endif
    return memory;
}

/* Each thread zeroes an equal part: on a machine of several memory nodes (NUMA) a page is placed near the thread that
   touches it first. */
static inline void *memory_allocate(size_t bytes) {
    char *memory = memory_reserve(bytes);
#pragma omp parallel for schedule(static) if (bytes >= MEMORY_HUGE_PAGE)
    for (size_t i = 0; i < bytes; i += 4096) memset(memory + i, 0, bytes - i < 4096 ? bytes - i : 4096);
    return memory;
}

static inline void memory_keep_freed(void) {
#ifdef __GLIBC__
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
#endif
}

static inline int64_t memory_available(void) {
    char value[64];
    long long kib = 0;
    int64_t bytes = INT64_MAX;
    if (system_file_text("/proc/meminfo", "MemAvailable", value, sizeof value) &&
        sscanf(value, "%lld", &kib) == 1)
        bytes = kib * 1024;
    const double limit = cgroup_own_limits().memory;
    return limit < (double)bytes ? (int64_t)limit : bytes;
}

static inline int64_t memory_peak(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
    return usage.ru_maxrss;
#else
    return (int64_t)usage.ru_maxrss * 1024;
#endif
}

#endif
