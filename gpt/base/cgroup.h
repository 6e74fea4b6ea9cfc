/* cgroup.h: the limits that a container or a job scheduler sets on this process. Linux enforces them through control
   groups (cgroups); neither the list of usable cores nor /proc/meminfo shows them.

   cgroup_own_limits()           the limits of this process
   cgroup_limits(list, mount)    the same from files that the caller names */
#ifndef GPT_BASE_CGROUP_H
#define GPT_BASE_CGROUP_H

#include <math.h>
#include <stdio.h>
#include <string.h>
#include "system_files.h"

typedef struct {
    double cores;  /* cores whose full time the CPU quota grants, such as 1.5; INFINITY: no limit */
    double memory; /* bytes that may still be allocated; INFINITY: no limit */
} CgroupLimits;

/* Lowers `limits` to those that the files in one group's folder state. Version 1 and version 2 of cgroups name the
   files differently; both are tried. The page cache counts as used memory, but the kernel releases it when memory is
   needed, so it is counted as free here. */
static inline void cgroup_folder_limits(const char *folder, CgroupLimits *limits) {
    static const struct {
        const char *limit, *used, *cache[2];
    } memory[] = {
        {"memory.max", "memory.current", {"inactive_file", "active_file"}},
        {"memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}}};
    char path[4400];
    double numbers[2], quota, period;
    for (int version = 0; version < 2; version++) {
        snprintf(path, sizeof path, "%s/%s", folder, memory[version].limit);
        if (system_file_numbers(path, numbers) < 1 || numbers[0] >= 0x1p60)
            continue; /* version 1 writes "no limit" as a number near 2^63 */
        double left = numbers[0];
        snprintf(path, sizeof path, "%s/%s", folder, memory[version].used);
        if (system_file_numbers(path, numbers) > 0) left -= numbers[0];
        snprintf(path, sizeof path, "%s/memory.stat", folder);
        for (int i = 0; i < 2; i++) left += system_file_number(path, memory[version].cache[i]);
        limits->memory = fmin(limits->memory, fmax(left, 0));
    }
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (system_file_numbers(path, numbers) == 2 && numbers[0] > 0 && numbers[1] > 0)
        limits->cores = fmin(limits->cores, numbers[0] / numbers[1]);
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    quota = system_file_numbers(path, numbers) > 0 ? numbers[0] : -1;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    period = system_file_numbers(path, numbers) > 0 ? numbers[0] : -1;
    if (quota > 0 && period > 0) limits->cores = fmin(limits->cores, quota / period);
}

/* Lowers `limits` to those of `group`, a path below `mount`, and of all groups that contain it. Inside a container the
   path may be the one seen from outside; then only the root of `mount` exists, and its limits are the container's. */
static inline void cgroup_path_limits(const char *mount, const char *group, CgroupLimits *limits) {
    char folder[4300];
    size_t least = strlen(mount);
    snprintf(folder, sizeof folder, "%s%s", mount, strcmp(group, "/") == 0 ? "" : group);
    for (char *slash;; *slash = 0) {
        cgroup_folder_limits(folder, limits);
        if (strlen(folder) <= least || !(slash = strrchr(folder + least, '/'))) return;
    }
}

/* `list` is a file like /proc/self/cgroup. It names the process's groups in lines "0::/path" (version 2) or
   "4:memory:/path" and "3:cpu,cpuacct:/path" (version 1). `mount` is the folder that holds the groups, like
   /sys/fs/cgroup. */
static inline CgroupLimits cgroup_limits(const char *list, const char *mount) {
    CgroupLimits limits = {INFINITY, INFINITY};
    char line[4096], folder[4200];
    FILE *file = fopen(list, "r");
    while (file && fgets(line, sizeof line, file)) {
        char *names = strchr(line, ':'), *group = names ? strchr(names + 1, ':') : NULL;
        if (!group) continue;
        *group++ = 0;
        group[strcspn(group, "\n")] = 0;
        if (!*++names) {
            cgroup_path_limits(mount, group, &limits);
            snprintf(folder, sizeof folder, "%s/unified", mount);
            cgroup_path_limits(folder, group, &limits);
            continue;
        }
        for (char *state = NULL, *name = strtok_r(names, ",", &state); name;
             name = strtok_r(NULL, ",", &state)) {
            if (strcmp(name, "memory") != 0 && strcmp(name, "cpu") != 0) continue;
            snprintf(folder, sizeof folder, "%s/%s", mount, name);
            cgroup_path_limits(folder, group, &limits);
        }
    }
    if (file) fclose(file);
    return limits;
}

static inline CgroupLimits cgroup_own_limits(void) {
    return cgroup_limits("/proc/self/cgroup", "/sys/fs/cgroup");
}

#endif
