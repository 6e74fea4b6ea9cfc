/* checkpoint.h: writes checkpoints so that each is either complete or not there at all.

   A file that cannot be written or read does not end the program (only running out of memory does). The function
   returns false and leaves one sentence in `error` (char[CHECKPOINT_ERROR_SIZE]: what failed, where, what was found,
   what was expected, what to do). The caller decides whether to end the program, to warn and train on (after a full
   disk), or to take an older checkpoint.

     Checkpoint c;
     if (!checkpoint_begin(&c, run_folder, step, error) || ...write files into c.folder...)
         checkpoint_abort(&c);
     else
         checkpoint_commit(&c, error);
   The files are written into c.folder, which is RUN/step-00000500.tmp. checkpoint_commit flushes all of them to the
   disk, writes the file DONE last and renames the folder to RUN/step-00000500. When checkpoint_commit fails, it calls
   checkpoint_abort itself. If there already is a checkpoint of the same step, it is renamed to step-00000500.old, and
   removed after the new one has got its name.

   A run that is killed at any moment leaves older checkpoints as they are, and unfinished files beside them. The next
   start of the run deals with them in this order:
     1. With --resume=auto it loads the newest checkpoint that has a file DONE and whose files have the checksums that
        DONE names (checkpoint_latest, checkpoint_verify_share). step-N.old counts as step N if there is no folder
        step-N.
     2. It locks log.jsonl, so that no second run can write into the folder, and removes from log.jsonl the lines of
        steps after that checkpoint (log_open in run/log.h).
     3. checkpoint_clean removes step-N.tmp and step-N.old, or gives step-N.old its name back.
   While a run trains, checkpoint_begin cleans the folder in the same way, and checkpoint_prune removes old checkpoints
   after each new one.

     checkpoint_write_json(&c, name, json, error), checkpoint_write_bytes(&c, name, bytes, size, error)
                                         write one file of the folder
     checkpoint_add_sum(&c, name, sum)   tells `c` the checksum of a file that is already written and flushed, by this
                                         rank or another one, so that checkpoint_commit need not read it. (A rank is
                                         one of the processes that mpirun starts.)
     checkpoint_latest(run, before, path, size, &step)
                                         the newest checkpoint that has a file DONE, of a step below `before` if that
                                         is not -1; false: there is none
     checkpoint_newest_torn(run, name)   the step of the newest folder step-N without DONE, for example one that was
                                         copied only in part, and the name of that folder; -1: there is none
     checkpoint_verify_share(folder, needed, i, n, error)
                                         reads files of a checkpoint and compares them with their checksums in DONE:
                                         the files i, i + n, i + 2 n, ... of the list in DONE, so that n ranks share
                                         the work. DONE must name all files in `needed`, an array of names ended by
                                         NULL; needed = NULL: no file must be there
     checkpoint_verify_needed(folder, needed, error)
                                         reads and compares only the files in `needed`
     checkpoint_prune(run, newest, keep, keep_every)
                                         of the checkpoints up to step `newest`, removes all but the last `keep` and
                                         those of steps divisible by keep_every, if that is > 0. keep <= 0: removes
                                         none. Checkpoints of steps after `newest` are left alone: one can be there only
                                         because resuming found it damaged and went on from an older one
   DONE has a line `sum  name` for each file, then a line with their number. The sum is XXH64 (checksum.h) in
   hexadecimal digits, so that the command `xxhsum -c DONE` checks a checkpoint as well. */
#ifndef GPT_IO_CHECKPOINT_H
#define GPT_IO_CHECKPOINT_H

#include <dirent.h>
#include "safetensors.h"

typedef struct {
    char name[256];
    uint64_t sum;
} CheckpointFile;

typedef struct {
    char run_folder[CHECKPOINT_PATH_SIZE];
    char folder[CHECKPOINT_PATH_SIZE]; /* where this checkpoint's files go; "" when none is begun */
    long step;
    CheckpointFile *files; /* (file_count) the files whose checksums are known */
    int file_count;
    size_t room; /* how many elements of `files` memory is allocated for (check_grow) */
} Checkpoint;

/* ---- folders ---- */

/* Removes a file, or a folder with everything in it; a symbolic link is removed, not followed. True when it is gone. */
static inline bool checkpoint_remove_at(int parent, const char *name) {
    if (unlinkat(parent, name, 0) == 0 || errno == ENOENT) return true;
    int folder = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *entries = folder < 0 ? NULL : fdopendir(folder);
    if (!entries) {
        if (folder >= 0) close(folder);
        return false;
    }
    for (struct dirent *entry; (entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            checkpoint_remove_at(folder, entry->d_name);
    closedir(entries);
    return unlinkat(parent, name, AT_REMOVEDIR) == 0;
}

/* ---- checkpoints ---- */

typedef enum { CHECKPOINT_NONE, CHECKPOINT_FINAL, CHECKPOINT_OLD, CHECKPOINT_TEMPORARY } CheckpointKind;

static inline void checkpoint_name(char name[64], long step, CheckpointKind kind) {
    static const char *const endings[] = {"", "", ".old", ".tmp"};
    snprintf(name, 64, "step-%08ld%s", step, endings[kind]);
}

/* Which kind of checkpoint folder a name in a run folder is, and of which step. */
static inline CheckpointKind checkpoint_kind(const char *name, long *step) {
    char again[64];
    if (strncmp(name, "step-", 5) != 0 || strlen(name) > 32) return CHECKPOINT_NONE;
    *step = strtol(name + 5, NULL, 10);
    for (int kind = CHECKPOINT_FINAL; *step >= 0 && kind <= CHECKPOINT_TEMPORARY; kind++) {
        checkpoint_name(again, *step, (CheckpointKind)kind);
        if (strcmp(name, again) == 0) return (CheckpointKind)kind;
    }
    return CHECKPOINT_NONE;
}

static inline bool checkpoint_is_whole(const char *run_folder, const char *name) {
    char folder[CHECKPOINT_PATH_SIZE], done[CHECKPOINT_PATH_SIZE], unused[CHECKPOINT_ERROR_SIZE];
    return file_join(folder, run_folder, name, unused) && file_join(done, folder, "DONE", unused) &&
           access(done, F_OK) == 0;
}

/* Tidies the folder of a run that was killed: removes every step-N.tmp, and every step-N.old for which there is a
   step-N. If there is a step-N.old and no step-N, the run was killed while it replaced that checkpoint: the complete
   old one gets its name step-N back. */
static inline bool checkpoint_clean(const char *run_folder, char *error) {
    int run = open(run_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = run < 0 ? NULL : opendir(run_folder);
    if (!entries) {
        file_fail(error, "cannot open the run folder '%s': %s", run_folder, strerror(errno));
        if (run >= 0) close(run);
        return false;
    }
    bool ok = true;
    long step = 0;
    for (struct dirent *entry; ok && (entry = readdir(entries));) {
        CheckpointKind kind = checkpoint_kind(entry->d_name, &step);
        char final[64];
        checkpoint_name(final, step, CHECKPOINT_FINAL);
        if (kind == CHECKPOINT_OLD && faccessat(run, final, F_OK, 0) != 0)
            ok = renameat(run, entry->d_name, run, final) == 0;
        else if (kind == CHECKPOINT_OLD || kind == CHECKPOINT_TEMPORARY)
            ok = checkpoint_remove_at(run, entry->d_name);
        if (!ok)
            file_fail(error, "cannot clean up '%s/%s': %s; remove it by hand", run_folder, entry->d_name,
                      strerror(errno));
    }
    closedir(entries);
    close(run);
    return ok;
}

static inline bool checkpoint_begin(Checkpoint *c, const char *run_folder, long step, char *error) {
    char name[64];
    c->folder[0] = 0, c->step = step;
    c->files = NULL, c->file_count = 0, c->room = 0;
    checkpoint_name(name, step, CHECKPOINT_TEMPORARY);
    if (step < 0 || !file_join(c->folder, run_folder, name, error) || !checkpoint_clean(run_folder, error)) {
        c->folder[0] = 0;
        return step < 0 ? file_fail(error, "a checkpoint of step %ld cannot be", step) : false;
    }
    snprintf(c->run_folder, sizeof c->run_folder, "%s", run_folder);
    if (mkdir(c->folder, 0777) == 0) return true;
    file_fail(error, "cannot create folder '%s': %s", c->folder, strerror(errno));
    c->folder[0] = 0;
    return false;
}

/* Frees the list of files and marks `c` as not begun; touches no file. */
static inline void checkpoint_end(Checkpoint *c) {
    c->folder[0] = 0;
    free(c->files);
    c->files = NULL, c->file_count = 0, c->room = 0;
}

static inline void checkpoint_abort(Checkpoint *c) {
    if (c->folder[0]) checkpoint_remove_at(AT_FDCWD, c->folder);
    checkpoint_end(c);
}

static inline void checkpoint_add_sum(Checkpoint *c, const char *name, uint64_t sum) {
    c->files = check_grow(c->files, &c->room, (size_t)c->file_count + 1, sizeof *c->files);
    CheckpointFile *file = &c->files[c->file_count++];
    snprintf(file->name, sizeof file->name, "%s", name);
    file->sum = sum;
}

/* The checksum of a file in the folder. If checkpoint_add_sum has not told it, the file is read and flushed to the
   disk. */
static inline bool checkpoint_file_sum(const Checkpoint *c, const char *name, uint64_t *sum, char *error) {
    char path[CHECKPOINT_PATH_SIZE];
    for (int i = 0; i < c->file_count; i++)
        if (strcmp(c->files[i].name, name) == 0) return *sum = c->files[i].sum, true;
    return file_join(path, c->folder, name, error) && checksum_file(path, true, sum, error);
}

static inline bool checkpoint_write_bytes(const Checkpoint *c, const char *name, const void *bytes,
                                          size_t size, char *error) {
    char path[CHECKPOINT_PATH_SIZE];
    int file;
    if (!file_join(path, c->folder, name, error) || !file_create(&file, path, error)) return false;
    return file_finish(file, file_write(file, bytes, size, path, error), path, error);
}

static inline bool checkpoint_write_json(const Checkpoint *c, const char *name, const cJSON *json,
                                         char *error) {
    char *text = cJSON_Print(json);
    if (!text) return file_fail(error, "cannot write '%s/%s': no memory for it", c->folder, name);
    bool ok = checkpoint_write_bytes(c, name, text, strlen(text), error);
    cJSON_free(text);
    return ok;
}

static inline int checkpoint_is_file_name(const struct dirent *entry) {
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* Flushes every file to the disk and writes DONE. */
static inline bool checkpoint_write_done(const Checkpoint *c, char *error) {
    struct dirent **names = NULL;
    int count = scandir(c->folder, &names, checkpoint_is_file_name, alphasort);
    if (count < 0) return file_fail(error, "cannot read folder '%s': %s", c->folder, strerror(errno));
    const size_t line = sizeof names[0]->d_name + 32;
    char *text = check_calloc(line * (size_t)(count + 1));
    size_t used = 0;
    bool ok = true;
    for (int i = 0; i < count; i++) {
        uint64_t sum = 0;
        ok = ok && checkpoint_file_sum(c, names[i]->d_name, &sum, error);
        used += (size_t)snprintf(text + used, line, "%016" PRIx64 "  %s\n", sum, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    /* A file whose checksum is known may be written by a rank on another host: it must be in this folder. */
    for (int i = 0; ok && i < c->file_count; i++) {
        char path[CHECKPOINT_PATH_SIZE];
        ok = file_join(path, c->folder, c->files[i].name, error);
        if (ok && access(path, F_OK) != 0)
            ok = file_fail(error, "'%s' is not there; all hosts must share the run folder", path);
    }
    used += (size_t)snprintf(text + used, line, "%d files\n", count);
    ok = ok && file_flush_folder(c->folder, error) && checkpoint_write_bytes(c, "DONE", text, used, error) &&
         file_flush_folder(c->folder, error);
    free(text);
    return ok;
}

static inline bool checkpoint_commit(Checkpoint *c, char *error) {
    char name[64], final[CHECKPOINT_PATH_SIZE], old[CHECKPOINT_PATH_SIZE];
    checkpoint_name(name, c->step, CHECKPOINT_FINAL);
    bool ok = file_join(final, c->run_folder, name, error);
    checkpoint_name(name, c->step, CHECKPOINT_OLD);
    ok = ok && file_join(old, c->run_folder, name, error) && checkpoint_write_done(c, error);
    bool replaces = ok && access(final, F_OK) == 0;
    if (replaces && rename(final, old) != 0)
        ok = file_fail(error, "cannot rename '%s': %s", final, strerror(errno));
    if (ok && rename(c->folder, final) != 0) {
        ok = file_fail(error, "cannot rename '%s' to '%s': %s", c->folder, final, strerror(errno));
        if (replaces) rename(old, final);
    }
    if (!ok) {
        checkpoint_abort(c);
        return false;
    }
    checkpoint_end(c); /* the checkpoint has its final name: checkpoint_abort must not remove it any more */
    ok = file_flush_folder(c->run_folder, error);
    if (ok && replaces) checkpoint_remove_at(AT_FDCWD, old);
    return ok;
}

static inline bool checkpoint_latest(const char *run_folder, long before_step, char *path, size_t size,
                                     long *step) {
    DIR *entries = opendir(run_folder);
    if (!entries) return false;
    char best_name[64] = "";
    long best = -1, s;
    for (struct dirent *entry; (entry = readdir(entries));) {
        CheckpointKind kind = checkpoint_kind(entry->d_name, &s);
        if (kind != CHECKPOINT_FINAL && kind != CHECKPOINT_OLD) continue;
        if ((before_step >= 0 && s >= before_step) || s < best ||
            !checkpoint_is_whole(run_folder, entry->d_name))
            continue;
        if (s > best || kind == CHECKPOINT_FINAL) /* .old counts only when the new one is missing */
            checkpoint_name(best_name, best = s, kind);
    }
    closedir(entries);
    int length = best < 0 ? -1 : snprintf(path, size, "%s/%s", run_folder, best_name);
    if (length < 0 || (size_t)length >= size) return false;
    *step = best;
    return true;
}

static inline long checkpoint_newest_torn(const char *run_folder, char name[64]) {
    DIR *entries = opendir(run_folder);
    long newest = -1, step;
    for (struct dirent *entry; entries && (entry = readdir(entries));)
        if (checkpoint_kind(entry->d_name, &step) == CHECKPOINT_FINAL && step > newest &&
            !checkpoint_is_whole(run_folder, entry->d_name))
            checkpoint_name(name, newest = step, CHECKPOINT_FINAL);
    if (entries) closedir(entries);
    return newest;
}

/* The names and checksums in DONE (count), which the caller frees; NULL, with the error set, when it cannot be read or
   is damaged. */
static inline CheckpointFile *checkpoint_read_done(const char *folder, int *count, char *error) {
    char path[CHECKPOINT_PATH_SIZE], unread[CHECKPOINT_ERROR_SIZE], again[512], *text, *line, *end;
    size_t size = 0, room = 0;
    CheckpointFile *files = NULL;
    bool ok = true;
    *count = 0;
    if (!file_join(path, folder, "DONE", error)) return NULL;
    line = text = file_read(path, FILE_REGULAR, CHECKPOINT_CHUNK, &size, unread);
    if (!text) return file_fail(error, "'%s' is not a whole checkpoint: %.900s", folder, unread), NULL;
    for (; ok && (end = strchr(line, '\n')) && end + 1 < text + size; line = end + 1) {
        *end = 0;
        files = check_grow(files, &room, (size_t)*count + 1, sizeof *files);
        CheckpointFile *file = &files[(*count)++];
        snprintf(file->name, sizeof file->name, "%s", strlen(line) > 18 ? line + 18 : "/");
        file->sum = strtoull(line, NULL, 16);
        snprintf(again, sizeof again, "%016" PRIx64 "  %s", file->sum, file->name);
        if (strcmp(line, again) != 0 || strchr(file->name, '/'))
            ok = file_fail(error, "'%s' is damaged: it has a line that is not 'sum  name'; %s", path,
                           "take another checkpoint");
    }
    snprintf(again, sizeof again, "%d files\n", *count);
    if (ok && (strcmp(line, again) != 0 || *count == 0))
        ok = file_fail(error, "'%s' is damaged: it does not end with the number of its files; %s", path,
                       "take another checkpoint");
    free(text);
    if (!ok) free(files), files = NULL;
    return files;
}

static inline bool checkpoint_verify_file(const char *folder, const CheckpointFile *file, char *error) {
    char path[CHECKPOINT_PATH_SIZE];
    uint64_t found = 0;
    if (!file_join(path, folder, file->name, error) || !checksum_file(path, false, &found, error))
        return false;
    if (found == file->sum) return true;
    return file_fail(error,
                     "'%s' is damaged: its sum is %016" PRIx64 ", DONE says %016" PRIx64
                     "; take another checkpoint",
                     path, found, file->sum);
}

static inline const CheckpointFile *checkpoint_find_file(const CheckpointFile *files, int count,
                                                         const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(files[i].name, name) == 0) return &files[i];
    return NULL;
}

/* Whether DONE names all files in `needed`, the files that the caller will read. A file that DONE does not name would
   be read without a checksum to compare it with. */
static inline bool checkpoint_verify_names(const char *folder, const CheckpointFile *files, int count,
                                           const char *const *needed, char *error) {
    for (; needed && *needed; needed++)
        if (!checkpoint_find_file(files, count, *needed))
            return file_fail(error, "'%s/DONE' is damaged: it does not name %s; take another checkpoint",
                             folder, *needed);
    return true;
}

static inline bool checkpoint_verify_share(const char *folder, const char *const *needed, int first,
                                           int every, char *error) {
    int count;
    CheckpointFile *files = checkpoint_read_done(folder, &count, error);
    bool ok = files && checkpoint_verify_names(folder, files, count, needed, error);
    for (int i = first; ok && i < count; i += every) ok = checkpoint_verify_file(folder, &files[i], error);
    free(files);
    return ok;
}

static inline bool checkpoint_verify_needed(const char *folder, const char *const *needed, char *error) {
    int count;
    CheckpointFile *files = checkpoint_read_done(folder, &count, error);
    bool ok = files && checkpoint_verify_names(folder, files, count, needed, error);
    for (; ok && *needed; needed++)
        ok = checkpoint_verify_file(folder, checkpoint_find_file(files, count, *needed), error);
    free(files);
    return ok;
}

static inline int checkpoint_by_step(const void *a, const void *b) {
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static inline void checkpoint_prune(const char *run_folder, long newest, int keep, long keep_every) {
    char name[64], temporary[64];
    struct dirent **names = NULL;
    int count = scandir(run_folder, &names, checkpoint_is_file_name, alphasort), whole = 0;
    int run = open(run_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long *steps = check_calloc((size_t)(count > 0 ? count : 0) * sizeof *steps);
    for (int i = 0; i < count; i++) {
        if (checkpoint_kind(names[i]->d_name, &steps[whole]) == CHECKPOINT_FINAL && steps[whole] <= newest &&
            checkpoint_is_whole(run_folder, names[i]->d_name))
            whole++;
        free(names[i]);
    }
    free(names);
    qsort(steps, (size_t)whole, sizeof *steps, checkpoint_by_step);
    for (int i = 0; keep > 0 && run >= 0 && i < whole - keep; i++) {
        if (keep_every > 0 && steps[i] % keep_every == 0) continue;
        checkpoint_name(name, steps[i], CHECKPOINT_FINAL);
        checkpoint_name(temporary, steps[i], CHECKPOINT_TEMPORARY);
        /* Renamed first, so that a process killed meanwhile leaves no folder that has DONE but lacks files. */
        if (checkpoint_remove_at(run, temporary) && renameat(run, name, run, temporary) == 0)
            checkpoint_remove_at(run, temporary);
    }
    if (run >= 0) close(run);
    free(steps);
}

#endif
