/* checkpoint.h: tensors in safetensors files, and checkpoints that are either whole or not there.

   Nothing here ends the program: every function that can fail returns false and leaves one sentence in
   `error` (char[CHECKPOINT_ERROR_SIZE]: what, where, found, expected, what to do). The caller decides to die,
   to warn and train on (a full disk), or to fall back to an older checkpoint.

   Tensors
     safetensors_write(path, tensors, count, error)   writes and flushes one file
     safetensors_read(path, tensors, count, error)    fills tensors[i].data, which the caller owns. The file
                                                      must hold exactly these names, each with this shape
     safetensors_load(path, &tensors, &count, error)  whatever the file holds, in the order of the data;
                                                      safetensors_free(tensors, count) when done
     safetensors_find(tensors, count, name)           a tensor of a loaded file, or NULL
   The format (huggingface.co/docs/safetensors): a 64-bit length, a JSON header of that length with each
   tensor's dtype, shape and place, then the data, little endian, without holes. We write F32 only, in the
   order given, and pad the header with spaces so that the data starts at a multiple of 64 bytes.

   Checkpoints
     Checkpoint c;
     if (!checkpoint_begin(&c, run_folder, step, error) || ...write files into c.folder...)
         checkpoint_abort(&c);
     else
         checkpoint_commit(&c, error);
   c.folder is RUN/step-00000500.tmp until commit has flushed every file, written DONE last and renamed it to
   RUN/step-00000500; a commit that fails has aborted. Killed at any moment, a process leaves the older
   checkpoints untouched and at most one .tmp folder, which the next begin removes. A checkpoint of the same
   step is replaced: it waits as step-00000500.old until the new one has its name.

     checkpoint_write_json, checkpoint_copy_file      one file of the folder
     checkpoint_latest(run, before, path, size, &step)   the newest checkpoint that has DONE, of a step below
                                                      `before` if that is not -1; false: there is none
     checkpoint_verify(folder, error)                 reads every file and compares it with its sum in DONE
     checkpoint_prune(run, newest, keep, keep_every)  of steps up to `newest` (a later one is damaged: resuming
                                                      passed it over) removes all but the last `keep` (<= 0: none) and
                                                      those of steps divisible by keep_every (> 0)
   DONE holds a line `sum  name` a file and their number; the sum is XXH64 (xxhash.com), so that
   `xxhsum -c DONE` checks a checkpoint as well. */
#ifndef GPT_CHECKPOINT_H
#define GPT_CHECKPOINT_H

#include <cjson/cJSON.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <sys/stat.h>
#include <unistd.h>
#include "check.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "checkpoint.h writes numbers as they lie in memory, and safetensors files are little endian"
#endif

enum {
    CHECKPOINT_ERROR_SIZE = 1024,
    CHECKPOINT_PATH_SIZE = 4096,
    CHECKPOINT_CHUNK = 1 << 20, /* bytes read at a time when hashing or copying; a multiple of 32 */
    SAFETENSORS_ALIGNMENT = 64,
    SAFETENSORS_MAX_HEADER = 100000000, /* the limit of the format's own library */
    SAFETENSORS_MAX_RANK = 4
};

typedef struct {
    const char *name;
    int rank; /* 0..4; 0 is one number */
    int64_t shape[SAFETENSORS_MAX_RANK];
    float *data; /* row-major */
} NamedTensor;

typedef struct {
    char run_folder[CHECKPOINT_PATH_SIZE];
    char folder[CHECKPOINT_PATH_SIZE]; /* where this checkpoint's files go; "" when none is begun */
    long step;
} Checkpoint;

/* ---- files: every call checked, the sentence made where the cause is known ---- */

__attribute__((format(printf, 2, 3))) static inline bool checkpoint_fail(char *error, const char *format,
                                                                         ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, CHECKPOINT_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return false;
}

static inline bool checkpoint_fail_write(char *error, const char *path, int cause) {
    return checkpoint_fail(error, "cannot write '%s': %s; free some space or choose another folder", path,
                           strerror(cause));
}

/* path = folder/name; false when it does not fit. */
static inline bool checkpoint_join(char path[CHECKPOINT_PATH_SIZE], const char *folder, const char *name,
                                   char *error) {
    int length = snprintf(path, CHECKPOINT_PATH_SIZE, "%s/%s", folder, name);
    if (length >= 0 && length < CHECKPOINT_PATH_SIZE) return true;
    return checkpoint_fail(error,
                           "the path '%.200s.../%s' is longer than %d bytes; use a shorter folder name",
                           folder, name, CHECKPOINT_PATH_SIZE - 1);
}

static inline bool checkpoint_create(int *file, const char *path, char *error) {
    *file = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return *file >= 0 ? true : checkpoint_fail_write(error, path, errno);
}

static inline bool checkpoint_write_bytes(int file, const void *bytes, size_t size, const char *path,
                                          char *error) {
    const size_t limit = (size_t)1 << 30; /* one write() moves at most 2 GiB */
    for (const char *from = bytes; size > 0;) {
        ssize_t n = write(file, from, size < limit ? size : limit);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return checkpoint_fail_write(error, path, n < 0 ? errno : ENOSPC);
        from += n, size -= (size_t)n;
    }
    return true;
}

/* Flushes; what has no disk behind it (a pipe, some network file systems' folders) answers EINVAL. */
static inline bool checkpoint_flush(int file, const char *path, char *error) {
    while (fsync(file) != 0) {
        if (errno == EINTR) continue;
        return errno == EINVAL ? true : checkpoint_fail_write(error, path, errno);
    }
    return true;
}

/* Ends what checkpoint_create began: flush and close, or, when anything failed, no half file stays. */
static inline bool checkpoint_finish(int file, bool ok, const char *path, char *error) {
    struct stat about;
    bool regular = fstat(file, &about) == 0 && S_ISREG(about.st_mode);
    ok = ok && checkpoint_flush(file, path, error);
    if (close(file) != 0 && ok) ok = checkpoint_fail_write(error, path, errno);
    if (!ok && regular) unlink(path);
    return ok;
}

/* Reads until size bytes or the end of the file; -1 on an error. */
static inline int64_t checkpoint_read_bytes(int file, void *to, size_t size) {
    const size_t limit = (size_t)1 << 30;
    size_t done = 0;
    while (done < size) {
        ssize_t n = read(file, (char *)to + done, size - done < limit ? size - done : limit);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return -1;
        if (n == 0) break;
        done += (size_t)n;
    }
    return (int64_t)done;
}

static inline bool checkpoint_flush_folder(const char *path, char *error) {
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return checkpoint_fail(error, "cannot open folder '%s': %s", path, strerror(errno));
    bool ok = checkpoint_flush(folder, path, error);
    close(folder);
    return ok;
}

/* Removes a file or a folder with all that is in it, and follows no links. */
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

/* ---- safetensors ---- */

/* "(3, 4)" */
static inline const char *safetensors_shape_text(char text[128], int rank, const int64_t *shape) {
    int n = snprintf(text, 128, "(");
    for (int i = 0; i < rank; i++)
        n += snprintf(text + n, 128 - (size_t)n, i ? ", %" PRId64 : "%" PRId64, shape[i]);
    snprintf(text + n, 128 - (size_t)n, ")");
    return text;
}

/* The bytes of rank numbers' product; false when that does not fit 63 bits or a dimension is negative. */
static inline bool safetensors_bytes(uint64_t *bytes, int rank, const int64_t *shape) {
    *bytes = sizeof(float);
    bool empty = false;
    for (int i = 0; i < rank; i++) {
        if (shape[i] < 0) return false;
        if (shape[i] == 0)
            empty = true;
        else if (*bytes > (uint64_t)INT64_MAX / (uint64_t)shape[i])
            return false;
        else
            *bytes *= (uint64_t)shape[i];
    }
    if (empty) *bytes = 0;
    return true;
}

/* The 8 bytes of length and the header, padded; *size bytes, free() it. NULL with the error set. */
static inline char *safetensors_header(const NamedTensor *tensors, int count, size_t *size, const char *path,
                                       char *error) {
    cJSON *json = cJSON_CreateObject();
    cJSON_AddStringToObject(cJSON_AddObjectToObject(json, "__metadata__"), "format", "pt");
    uint64_t offset = 0, bytes;
    bool ok = true;
    for (int i = 0; ok && i < count; i++) {
        const NamedTensor *t = &tensors[i];
        ok = t->rank >= 0 && t->rank <= SAFETENSORS_MAX_RANK &&
             safetensors_bytes(&bytes, t->rank, t->shape) &&
             offset + bytes <= UINT64_C(1) << 53; /* JSON numbers are exact up to here */
        if (!ok) {
            checkpoint_fail(error, "cannot write '%s': tensor '%s' has an impossible shape", path, t->name);
            break;
        }
        cJSON *entry = cJSON_AddObjectToObject(json, t->name);
        cJSON_AddStringToObject(entry, "dtype", "F32");
        cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
        for (int k = 0; k < t->rank; k++)
            cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->shape[k]));
        cJSON *place = cJSON_AddArrayToObject(entry, "data_offsets");
        cJSON_AddItemToArray(place, cJSON_CreateNumber((double)offset));
        cJSON_AddItemToArray(place, cJSON_CreateNumber((double)(offset += bytes)));
    }
    char *text = ok ? cJSON_PrintUnformatted(json) : NULL, *header = NULL;
    cJSON_Delete(json);
    if (text) {
        size_t length = strlen(text), align = SAFETENSORS_ALIGNMENT;
        *size = (8 + length + align - 1) / align * align;
        header = memset(check_malloc(*size), ' ', *size);
        memcpy(header, &(uint64_t){*size - 8}, 8);
        memcpy(header + 8, text, length);
        cJSON_free(text);
    } else if (ok)
        checkpoint_fail(error, "cannot write '%s': no memory for its header", path);
    return header;
}

static inline bool safetensors_write(const char *path, const NamedTensor *tensors, int count, char *error) {
    size_t size;
    char *header = safetensors_header(tensors, count, &size, path, error);
    int file;
    bool ok = header && checkpoint_create(&file, path, error);
    if (ok) {
        ok = checkpoint_write_bytes(file, header, size, path, error);
        for (int i = 0; ok && i < count; i++) {
            uint64_t bytes;
            safetensors_bytes(&bytes, tensors[i].rank, tensors[i].shape);
            ok = checkpoint_write_bytes(file, tensors[i].data, (size_t)bytes, path, error);
        }
        ok = checkpoint_finish(file, ok, path, error);
    }
    free(header);
    return ok;
}

typedef struct {
    const char *name; /* inside the parsed header */
    int rank;
    int64_t shape[SAFETENSORS_MAX_RANK];
    uint64_t begin, end; /* bytes from the start of the data */
} SafetensorsEntry;

typedef struct {
    const char *path;
    int file;
    cJSON *header;
    SafetensorsEntry *entries; /* in the order of the data */
    int count;
    uint64_t data_start, data_size;
} SafetensorsFile;

static inline void safetensors_close(SafetensorsFile *f) {
    if (f->file >= 0) close(f->file);
    cJSON_Delete(f->header);
    free(f->entries);
}

/* Opens, checks the length against the size of the file, parses the header. */
static inline bool safetensors_parse(SafetensorsFile *f, char *error) {
    struct stat about;
    uint64_t length;
    f->file = open(f->path, O_RDONLY | O_CLOEXEC);
    if (f->file < 0) return checkpoint_fail(error, "cannot open '%s': %s", f->path, strerror(errno));
    if (fstat(f->file, &about) != 0 || !S_ISREG(about.st_mode))
        return checkpoint_fail(error, "'%s' is not a file", f->path);
    uint64_t size = (uint64_t)about.st_size;
    if (size < 8 || checkpoint_read_bytes(f->file, &length, 8) != 8)
        return checkpoint_fail(
            error, "'%s' has %" PRIu64 " bytes, a safetensors file has at least 8; it was cut short", f->path,
            size);
    if (length > SAFETENSORS_MAX_HEADER)
        return checkpoint_fail(error,
                               "'%s' is not a safetensors file: it begins with a header length of %" PRIu64
                               ", at most %d is allowed",
                               f->path, length, SAFETENSORS_MAX_HEADER);
    if (length > size - 8)
        return checkpoint_fail(
            error, "'%s' was cut short: its header takes %" PRIu64 " bytes, the file has %" PRIu64, f->path,
            length + 8, size);
    char *text = check_malloc(length + 1); /* zeroed: the text ends with 0 */
    errno = 0;
    if (checkpoint_read_bytes(f->file, text, length) != (int64_t)length) {
        free(text);
        return checkpoint_fail(error, "cannot read the header of '%s': %s", f->path,
                               errno ? strerror(errno) : "the file ended early");
    }
    const char *end = text;
    if (text[0] == '{') f->header = cJSON_ParseWithLengthOpts(text, length + 1, &end, false);
    size_t used = (size_t)(end - text) + strspn(end, " \t\r\n"); /* only padding may follow the object */
    free(text);
    if (!f->header || used < length)
        return checkpoint_fail(
            error, "the header of '%s' is not JSON (byte %zu of %" PRIu64 "); the file is damaged", f->path,
            used + 8, length + 8);
    f->data_start = 8 + length, f->data_size = size - f->data_start;
    return true;
}

/* A whole number in [0, 2^53] */
static inline bool safetensors_number(const cJSON *item, uint64_t *number) {
    if (!cJSON_IsNumber(item) || !(item->valuedouble >= 0 && item->valuedouble <= 0x1p53)) return false;
    *number = (uint64_t)item->valuedouble;
    return (double)*number == item->valuedouble;
}

static inline bool safetensors_entry(const SafetensorsFile *f, SafetensorsEntry *e, const cJSON *item,
                                     char *error) {
    const cJSON *dtype = cJSON_GetObjectItemCaseSensitive(item, "dtype"), *dimension;
    const cJSON *shape = cJSON_GetObjectItemCaseSensitive(item, "shape");
    const cJSON *place = cJSON_GetObjectItemCaseSensitive(item, "data_offsets");
    uint64_t number, bytes;
    char text[128];
    e->name = item->string, e->rank = 0;
    if (!cJSON_IsString(dtype) || !cJSON_IsArray(shape) || !cJSON_IsArray(place) ||
        cJSON_GetArraySize(place) != 2)
        return checkpoint_fail(
            error, "'%s': the header's entry '%s' lacks dtype, shape or data_offsets; the file is damaged",
            f->path, e->name);
    if (strcmp(dtype->valuestring, "F32") != 0)
        return checkpoint_fail(error,
                               "'%s': tensor '%s' has dtype %.16s, expected F32; convert the file first",
                               f->path, e->name, dtype->valuestring);
    cJSON_ArrayForEach(dimension, shape) {
        if (e->rank == SAFETENSORS_MAX_RANK || !safetensors_number(dimension, &number))
            return checkpoint_fail(error, "'%s': tensor '%s' has a shape that is not 0 to %d whole numbers",
                                   f->path, e->name, SAFETENSORS_MAX_RANK);
        e->shape[e->rank++] = (int64_t)number;
    }
    if (!safetensors_number(place->child, &e->begin) || !safetensors_number(place->child->next, &e->end) ||
        e->begin > e->end || e->end > f->data_size)
        return checkpoint_fail(error,
                               "'%s': tensor '%s' lies outside the %" PRIu64
                               " bytes of data (data_offsets); the file is damaged or cut short",
                               f->path, e->name, f->data_size);
    if (!safetensors_bytes(&bytes, e->rank, e->shape) || bytes != e->end - e->begin)
        return checkpoint_fail(error,
                               "'%s': tensor '%s' of shape %s has %" PRIu64
                               " bytes of data, which does not fit; the file is damaged",
                               f->path, e->name, safetensors_shape_text(text, e->rank, e->shape),
                               e->end - e->begin);
    return true;
}

static inline int safetensors_by_name(const void *a, const void *b) {
    return strcmp(((const SafetensorsEntry *)a)->name, ((const SafetensorsEntry *)b)->name);
}

static inline int safetensors_by_place(const void *a, const void *b) {
    const SafetensorsEntry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    if (x->end != y->end) return x->end < y->end ? -1 : 1;
    return strcmp(x->name, y->name); /* empty tensors share their place */
}

/* The whole header checked: names differ, and the tensors cover the data without gap or overlap. */
static inline bool safetensors_open(SafetensorsFile *f, const char *path, char *error) {
    *f = (SafetensorsFile){.path = path, .file = -1};
    if (!safetensors_parse(f, error)) return false;
    f->entries = check_malloc((size_t)cJSON_GetArraySize(f->header) * sizeof *f->entries);
    const cJSON *item;
    cJSON_ArrayForEach(item, f->header) {
        if (strcmp(item->string, "__metadata__") == 0) continue;
        if (!safetensors_entry(f, &f->entries[f->count++], item, error)) return false;
    }
    qsort(f->entries, (size_t)f->count, sizeof *f->entries, safetensors_by_name);
    for (int i = 1; i < f->count; i++)
        if (strcmp(f->entries[i - 1].name, f->entries[i].name) == 0)
            return checkpoint_fail(error, "'%s' holds tensor '%s' twice; the file is damaged", path,
                                   f->entries[i].name);
    qsort(f->entries, (size_t)f->count, sizeof *f->entries, safetensors_by_place);
    uint64_t covered = 0;
    for (int i = 0; i < f->count; i++) {
        if (f->entries[i].begin != covered)
            return checkpoint_fail(error,
                                   "'%s': tensor '%s' begins at byte %" PRIu64
                                   " of the data, expected %" PRIu64 " (%s); the file is damaged",
                                   path, f->entries[i].name, f->entries[i].begin, covered,
                                   f->entries[i].begin < covered ? "tensors overlap" : "a gap");
        covered = f->entries[i].end;
    }
    if (covered != f->data_size)
        return checkpoint_fail(error, "'%s' has %" PRIu64 " bytes after its last tensor; the file is damaged",
                               path, f->data_size - covered);
    return true;
}

static inline bool safetensors_read_data(const SafetensorsFile *f, const SafetensorsEntry *e, float *data,
                                         char *error) {
    size_t size = (size_t)(e->end - e->begin);
    errno = 0;
    if (lseek(f->file, (off_t)(f->data_start + e->begin), SEEK_SET) < 0 ||
        checkpoint_read_bytes(f->file, data, size) != (int64_t)size)
        return checkpoint_fail(error, "cannot read tensor '%s' of '%s': %s", e->name, f->path,
                               errno ? strerror(errno) : "the file ended early");
    return true;
}

/* Both lists sorted by name, walked side by side. */
static inline bool safetensors_match(const SafetensorsFile *f, const SafetensorsEntry *have,
                                     const NamedTensor *want, char *error) {
    char found[128], expected[128];
    int order = !have ? 1 : !want ? -1 : strcmp(have->name, want->name);
    if (order > 0)
        return checkpoint_fail(error, "'%s' has no tensor '%s'; it belongs to a model with other options",
                               f->path, want->name);
    if (order < 0)
        return checkpoint_fail(
            error,
            "'%s' holds tensor '%s', which this model does not have; it belongs to a model "
            "with other options",
            f->path, have->name);
    if (have->rank != want->rank ||
        memcmp(have->shape, want->shape, (size_t)want->rank * sizeof *want->shape) != 0)
        return checkpoint_fail(
            error, "'%s': tensor '%s' has shape %s, expected %s; it belongs to a model with other options",
            f->path, have->name, safetensors_shape_text(found, have->rank, have->shape),
            safetensors_shape_text(expected, want->rank, want->shape));
    return true;
}

static inline int safetensors_tensor_by_name(const void *a, const void *b) {
    return strcmp((*(NamedTensor *const *)a)->name, (*(NamedTensor *const *)b)->name);
}

static inline bool safetensors_read(const char *path, NamedTensor *tensors, int count, char *error) {
    SafetensorsFile f;
    bool ok = safetensors_open(&f, path, error);
    NamedTensor **want = check_malloc((size_t)count * sizeof(NamedTensor *));
    for (int i = 0; i < count; i++) want[i] = &tensors[i];
    qsort(want, (size_t)count, sizeof *want, safetensors_tensor_by_name);
    if (ok) qsort(f.entries, (size_t)f.count, sizeof *f.entries, safetensors_by_name);
    for (int i = 0; ok && i < (f.count > count ? f.count : count); i++) /* all names before any data */
        ok = safetensors_match(&f, i < f.count ? &f.entries[i] : NULL, i < count ? want[i] : NULL, error);
    for (int i = 0; ok && i < count; i++) ok = safetensors_read_data(&f, &f.entries[i], want[i]->data, error);
    free(want);
    safetensors_close(&f);
    return ok;
}

static inline void safetensors_free(NamedTensor *tensors, int count) {
    for (int i = 0; tensors && i < count; i++) {
        free((char *)(uintptr_t)tensors[i].name);
        free(tensors[i].data);
    }
    free(tensors);
}

static inline bool safetensors_load(const char *path, NamedTensor **tensors, int *count, char *error) {
    SafetensorsFile f;
    bool ok = safetensors_open(&f, path, error);
    *tensors = NULL, *count = 0;
    if (ok) *tensors = check_malloc((size_t)f.count * sizeof **tensors);
    for (int i = 0; ok && i < f.count; i++) {
        const SafetensorsEntry *e = &f.entries[i];
        NamedTensor *t = &(*tensors)[(*count)++];
        size_t name = strlen(e->name) + 1;
        *t = (NamedTensor){.name = memcpy(check_malloc(name), e->name, name), .rank = e->rank};
        memcpy(t->shape, e->shape, sizeof t->shape);
        t->data = check_malloc((size_t)(e->end - e->begin));
        ok = safetensors_read_data(&f, e, t->data, error);
    }
    safetensors_close(&f);
    if (!ok) safetensors_free(*tensors, *count), *tensors = NULL, *count = 0;
    return ok;
}

static inline NamedTensor *safetensors_find(NamedTensor *tensors, int count, const char *name) {
    for (int i = 0; i < count; i++)
        if (strcmp(tensors[i].name, name) == 0) return &tensors[i];
    return NULL;
}

/* ---- sums: XXH64 with seed 0 of a file; see the description of the algorithm beside the xxhash library ---- */

static const uint64_t checkpoint_primes[5] = {0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9,
                                              0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5};

static inline uint64_t checkpoint_rotate(uint64_t x, int by) { return x << by | x >> (64 - by); }

static inline uint64_t checkpoint_sum_round(uint64_t lane, const unsigned char *word) {
    uint64_t input;
    memcpy(&input, word, 8);
    return checkpoint_rotate(lane + input * checkpoint_primes[1], 31) * checkpoint_primes[0];
}

/* The last 0 to 31 bytes and the final mixing. */
static inline uint64_t checkpoint_sum_end(uint64_t sum, const unsigned char *bytes, size_t n) {
    const uint64_t *p = checkpoint_primes;
    for (; n >= 8; bytes += 8, n -= 8)
        sum = checkpoint_rotate(sum ^ checkpoint_sum_round(0, bytes), 27) * p[0] + p[3];
    if (n >= 4) {
        uint32_t word;
        memcpy(&word, bytes, 4);
        sum = checkpoint_rotate(sum ^ word * p[0], 23) * p[1] + p[2];
        bytes += 4, n -= 4;
    }
    for (; n > 0; bytes++, n--) sum = checkpoint_rotate(sum ^ *bytes * p[4], 11) * p[0];
    sum = (sum ^ sum >> 33) * p[1];
    sum = (sum ^ sum >> 29) * p[2];
    return sum ^ sum >> 32;
}

static inline bool checkpoint_sum(int file, const char *path, uint64_t *sum, char *error) {
    const uint64_t *p = checkpoint_primes;
    static const int turns[4] = {1, 7, 12, 18};
    uint64_t lanes[4] = {p[0] + p[1], p[1], 0, -p[0]}, total = 0;
    unsigned char *chunk = check_malloc(CHECKPOINT_CHUNK);
    int64_t got = 0, stripes = 0;
    do {
        got = checkpoint_read_bytes(file, chunk, CHECKPOINT_CHUNK);
        if (got < 0) {
            free(chunk);
            return checkpoint_fail(error, "cannot read '%s': %s", path, strerror(errno));
        }
        stripes = got / 32 * 32, total += (uint64_t)got;
        for (int64_t i = 0; i < stripes; i += 32)
            for (int k = 0; k < 4; k++) lanes[k] = checkpoint_sum_round(lanes[k], chunk + i + 8 * k);
    } while (got == CHECKPOINT_CHUNK);
    *sum = total < 32 ? p[4] : 0;
    for (int k = 0; total >= 32 && k < 4; k++) *sum += checkpoint_rotate(lanes[k], turns[k]);
    for (int k = 0; total >= 32 && k < 4; k++)
        *sum = (*sum ^ checkpoint_rotate(lanes[k] * p[1], 31) * p[0]) * p[0] + p[3];
    *sum = checkpoint_sum_end(*sum + total, chunk + stripes, (size_t)(got - stripes));
    free(chunk);
    return true;
}

static inline bool checkpoint_sum_file(const char *path, bool flush, uint64_t *sum, char *error) {
    int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0) return checkpoint_fail(error, "cannot open '%s': %s", path, strerror(errno));
    bool ok = checkpoint_sum(file, path, sum, error) && (!flush || checkpoint_flush(file, path, error));
    close(file);
    return ok;
}

/* ---- checkpoints ---- */

typedef enum { CHECKPOINT_NONE, CHECKPOINT_FINAL, CHECKPOINT_OLD, CHECKPOINT_TEMPORARY } CheckpointKind;

static inline void checkpoint_name(char name[64], long step, CheckpointKind kind) {
    static const char *const endings[] = {"", "", ".old", ".tmp"};
    snprintf(name, 64, "step-%08ld%s", step, endings[kind]);
}

/* What a name inside a run folder is, and of which step. */
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
    return checkpoint_join(folder, run_folder, name, unused) &&
           checkpoint_join(done, folder, "DONE", unused) && access(done, F_OK) == 0;
}

/* What a killed run left: unfinished folders go; a checkpoint set aside for its replacement comes back when
   the replacement is not there. */
static inline bool checkpoint_clean(const char *run_folder, char *error) {
    int run = open(run_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *entries = run < 0 ? NULL : opendir(run_folder);
    if (!entries) {
        checkpoint_fail(error, "cannot open the run folder '%s': %s", run_folder, strerror(errno));
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
            checkpoint_fail(error, "cannot clean up '%s/%s': %s; remove it by hand", run_folder,
                            entry->d_name, strerror(errno));
    }
    closedir(entries);
    close(run);
    return ok;
}

static inline bool checkpoint_begin(Checkpoint *c, const char *run_folder, long step, char *error) {
    char name[64];
    c->folder[0] = 0, c->step = step;
    checkpoint_name(name, step, CHECKPOINT_TEMPORARY);
    if (step < 0 || !checkpoint_join(c->folder, run_folder, name, error) ||
        !checkpoint_clean(run_folder, error)) {
        c->folder[0] = 0;
        return step < 0 ? checkpoint_fail(error, "a checkpoint of step %ld cannot be", step) : false;
    }
    snprintf(c->run_folder, sizeof c->run_folder, "%s", run_folder);
    if (mkdir(c->folder, 0777) == 0) return true;
    checkpoint_fail(error, "cannot create folder '%s': %s", c->folder, strerror(errno));
    c->folder[0] = 0;
    return false;
}

static inline void checkpoint_abort(Checkpoint *c) {
    if (c->folder[0]) checkpoint_remove_at(AT_FDCWD, c->folder);
    c->folder[0] = 0;
}

static inline bool checkpoint_write_text(const Checkpoint *c, const char *name, const char *text,
                                         char *error) {
    char path[CHECKPOINT_PATH_SIZE];
    int file;
    if (!checkpoint_join(path, c->folder, name, error) || !checkpoint_create(&file, path, error))
        return false;
    return checkpoint_finish(file, checkpoint_write_bytes(file, text, strlen(text), path, error), path,
                             error);
}

static inline bool checkpoint_write_json(const Checkpoint *c, const char *name, const cJSON *json,
                                         char *error) {
    char *text = cJSON_Print(json);
    if (!text) return checkpoint_fail(error, "cannot write '%s/%s': no memory for it", c->folder, name);
    bool ok = checkpoint_write_text(c, name, text, error);
    cJSON_free(text);
    return ok;
}

static inline bool checkpoint_copy_file(const Checkpoint *c, const char *name, const char *from,
                                        char *error) {
    char path[CHECKPOINT_PATH_SIZE];
    int in = open(from, O_RDONLY | O_CLOEXEC), out;
    if (in < 0) return checkpoint_fail(error, "cannot open '%s': %s", from, strerror(errno));
    bool ok = checkpoint_join(path, c->folder, name, error) && checkpoint_create(&out, path, error);
    if (ok) {
        char *chunk = check_malloc(CHECKPOINT_CHUNK);
        int64_t got;
        do {
            got = checkpoint_read_bytes(in, chunk, CHECKPOINT_CHUNK);
            ok = got >= 0 ? checkpoint_write_bytes(out, chunk, (size_t)got, path, error)
                          : checkpoint_fail(error, "cannot read '%s': %s", from, strerror(errno));
        } while (ok && got == CHECKPOINT_CHUNK);
        free(chunk);
        ok = checkpoint_finish(out, ok, path, error);
    }
    close(in);
    return ok;
}

static inline int checkpoint_is_file_name(const struct dirent *entry) {
    return strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
}

/* Flushes every file and writes DONE: a line `sum  name` a file, then their number. */
static inline bool checkpoint_write_done(const Checkpoint *c, char *error) {
    struct dirent **names = NULL;
    int count = scandir(c->folder, &names, checkpoint_is_file_name, alphasort);
    if (count < 0) return checkpoint_fail(error, "cannot read folder '%s': %s", c->folder, strerror(errno));
    const size_t line = sizeof names[0]->d_name + 32;
    char *text = check_malloc(line * (size_t)(count + 1)), path[CHECKPOINT_PATH_SIZE];
    size_t used = 0;
    bool ok = true;
    for (int i = 0; i < count; i++) {
        uint64_t sum = 0;
        ok = ok && checkpoint_join(path, c->folder, names[i]->d_name, error) &&
             checkpoint_sum_file(path, true, &sum, error);
        used += (size_t)snprintf(text + used, line, "%016" PRIx64 "  %s\n", sum, names[i]->d_name);
        free(names[i]);
    }
    free(names);
    snprintf(text + used, line, "%d files\n", count);
    ok = ok && checkpoint_flush_folder(c->folder, error) && checkpoint_write_text(c, "DONE", text, error) &&
         checkpoint_flush_folder(c->folder, error);
    free(text);
    return ok;
}

static inline bool checkpoint_commit(Checkpoint *c, char *error) {
    char name[64], final[CHECKPOINT_PATH_SIZE], old[CHECKPOINT_PATH_SIZE];
    checkpoint_name(name, c->step, CHECKPOINT_FINAL);
    bool ok = checkpoint_join(final, c->run_folder, name, error);
    checkpoint_name(name, c->step, CHECKPOINT_OLD);
    ok = ok && checkpoint_join(old, c->run_folder, name, error) && checkpoint_write_done(c, error);
    bool replaces = ok && access(final, F_OK) == 0;
    if (replaces && rename(final, old) != 0)
        ok = checkpoint_fail(error, "cannot rename '%s': %s", final, strerror(errno));
    if (ok && rename(c->folder, final) != 0) {
        ok = checkpoint_fail(error, "cannot rename '%s' to '%s': %s", c->folder, final, strerror(errno));
        if (replaces) rename(old, final);
    }
    if (!ok) {
        checkpoint_abort(c);
        return false;
    }
    c->folder[0] = 0; /* it is in place now, whatever happens next */
    ok = checkpoint_flush_folder(c->run_folder, error);
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
        if (s > best || kind == CHECKPOINT_FINAL) /* an .old one only where its replacement is missing */
            checkpoint_name(best_name, best = s, kind);
    }
    closedir(entries);
    int length = best < 0 ? -1 : snprintf(path, size, "%s/%s", run_folder, best_name);
    if (length < 0 || (size_t)length >= size) return false;
    *step = best;
    return true;
}

/* One line of DONE: the sum of a file of the folder compared. */
static inline bool checkpoint_verify_line(const char *folder, const char *line, char *error) {
    char path[CHECKPOINT_PATH_SIZE], again[CHECKPOINT_PATH_SIZE];
    const char *name = strlen(line) > 18 ? line + 18 : "/";
    uint64_t want = strtoull(line, NULL, 16), found = 0;
    snprintf(again, sizeof again, "%016" PRIx64 "  %s", want, name);
    if (strcmp(line, again) != 0 || strchr(name, '/'))
        return checkpoint_fail(error, "'%s/DONE' is damaged: it has a line that is not 'sum  name'; %s",
                               folder, "resume from another checkpoint");
    if (!checkpoint_join(path, folder, name, error) || !checkpoint_sum_file(path, false, &found, error))
        return false;
    if (found == want) return true;
    return checkpoint_fail(error,
                           "'%s' is damaged: its sum is %016" PRIx64 ", DONE says %016" PRIx64
                           "; resume from another checkpoint",
                           path, found, want);
}

static inline bool checkpoint_verify(const char *folder, char *error) {
    char path[CHECKPOINT_PATH_SIZE], last[64] = "", *text, *line, *end;
    if (!checkpoint_join(path, folder, "DONE", error)) return false;
    int file = open(path, O_RDONLY | O_CLOEXEC), files = 0;
    if (file < 0)
        return checkpoint_fail(error, "'%s' is not a whole checkpoint: cannot open its DONE: %s", folder,
                               strerror(errno));
    line = text = check_malloc(CHECKPOINT_CHUNK); /* zeroed, and one byte stays so */
    int64_t size = checkpoint_read_bytes(file, text, CHECKPOINT_CHUNK - 1);
    close(file);
    bool ok = true;
    for (; ok && (end = strchr(line, '\n')) && end + 1 < text + size; line = end + 1, files++) {
        *end = 0;
        ok = checkpoint_verify_line(folder, line, error);
    }
    snprintf(last, sizeof last, "%d files\n", files);
    if (ok && strcmp(line, last) != 0)
        ok = checkpoint_fail(error, "'%s' is damaged: it does not end with the number of its files; %s", path,
                             "resume from another checkpoint");
    free(text);
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
    long *steps = check_malloc((size_t)(count > 0 ? count : 0) * sizeof *steps);
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
        /* Renamed first: killed half way, no folder with a DONE and files missing stays. */
        if (checkpoint_remove_at(run, temporary) && renameat(run, name, run, temporary) == 0)
            checkpoint_remove_at(run, temporary);
    }
    if (run >= 0) close(run);
    free(steps);
}

#endif
