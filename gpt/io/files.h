/* files.h: opens files, and reads and writes them whole. All programs do it through these functions.

   A path may lead to a regular file, a folder, a pipe (FIFO), a device or a socket. When the caller cannot use what the
   path leads to, opening it fails with a sentence that says what it is. Opening a pipe waits for another program for a
   second at most.

     file_open(path, flags, accept, error)   a file descriptor, or -1. accept = FILE_REGULAR: regular files only;
                                             FILE_STREAM: also what can be read or written once from beginning to
                                             end, such as a pipe, a device or a terminal. `flags` are those of
                                             open(2)
     file_open_locked(path, flags, &locked, error)
                                             the same for a regular file, which stays locked until the descriptor is
                                             closed. `locked` is false when it cannot be locked; errno is EWOULDBLOCK
                                             when another process has locked it
     file_join(path, folder, name, error)    path[FILE_PATH_SIZE] = folder/name; false when that is too long
     file_path(folder, name)                 folder/name of any length; the caller frees it
     file_read(path, accept, limit, &size, error)
                                             all bytes of a file of at most `limit` bytes, with a zero byte behind
                                             them; the caller frees them. NULL: it was not read; errno is ENOENT
                                             exactly when there is no such file
     file_read_bytes(file, to, size)         reads a descriptor until `size` bytes or the end; how many, or -1 and
                                             errno
     file_write_whole(path, bytes, size, error)
                                             writes a small file and brings it to the disk. It is written under a
                                             temporary name and then renamed, so that it is there either whole or not
                                             at all
     file_write_output(path, bytes, size, error)
                                             the same for a path that the user named: a link stays, and the file that
                                             it names is replaced; a pipe or a device, such as /dev/stdout, is written
                                             into
     file_create(&file, path, error), file_write(file, bytes, size, path, error), file_finish(file, ok, path, error)
                                             write a file in pieces; with ok = false, or when it fails, file_finish
                                             removes it
     file_make_folders(path, error)          makes a folder and those above it
     file_flush_folder(path, error)          brings the names of new files in a folder to the disk
   When one of these fails, it returns false (or the value named above) and leaves one sentence in `error`
   (char[FILE_ERROR_SIZE]: what failed, where, what was found, what was expected, what to do). The following functions
   end the program with that sentence and `hint`, which says what the user can do:
     check_file_read(path, accept, limit, &size, hint)   as file_read
     check_file_read_if(path, limit, &size, hint)        the same for a regular file; NULL when there is no such file
     check_fopen(path, mode, hint)           a FILE, for regular files and streams; the caller closes it */
#ifndef GPT_IO_FILES_H
#define GPT_IO_FILES_H

#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../base/check.h"

enum { FILE_ERROR_SIZE = 1024, FILE_PATH_SIZE = 4096 };
#define FILE_NO_LIMIT ((size_t)PTRDIFF_MAX / 2)
#define FILE_JSON_LIMIT ((size_t)1 << 28) /* the most bytes of a tokenizer.json or shards.json */
typedef enum { FILE_REGULAR, FILE_STREAM } FileAccept;
static int file_writer_milliseconds = 1000; /* how long to wait until a program opens a pipe for writing */

/* Leaves a sentence, formatted as by printf, in `error` and returns false. */
__attribute__((format(printf, 2, 3))) static inline bool file_fail(char *error, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, FILE_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return false;
}

/* The same after a write failed with the errno `cause`. */
static inline bool file_fail_write(char *error, const char *path, int cause) {
    file_fail(error, "cannot write '%s': %s; free some space or choose another folder", path,
              strerror(cause));
    errno = cause;
    return false;
}

static inline bool file_join(char path[FILE_PATH_SIZE], const char *folder, const char *name, char *error) {
    int length = snprintf(path, FILE_PATH_SIZE, "%s/%s", folder, name);
    if (length >= 0 && length < FILE_PATH_SIZE) return true;
    return file_fail(error, "the path '%.200s.../%s' is longer than %d bytes; use a shorter folder name",
                     folder, name, FILE_PATH_SIZE - 1);
}

static inline char *file_path(const char *folder, const char *name) {
    const size_t size = strlen(folder) + strlen(name) + 2;
    char *path = (char *)check_calloc(size);
    snprintf(path, size, "%s/%s", folder, name);
    return path;
}

/* ---- opening ---- */

static inline const char *file_kind(mode_t mode) {
    return S_ISREG(mode)    ? "a regular file"
           : S_ISDIR(mode)  ? "a folder"
           : S_ISFIFO(mode) ? "a pipe (FIFO)"
           : S_ISSOCK(mode) ? "a socket"
                            : "a device";
}

/* The sentence for a path that leads to something of the wrong kind. */
static inline bool file_fail_kind(char *error, const char *path, mode_t mode, int flags, FileAccept accept) {
    const bool writes = (flags & O_ACCMODE) != O_RDONLY;
    if (S_ISFIFO(mode) && accept == FILE_STREAM)
        return file_fail(error, "'%s' is a pipe (FIFO) that no program %s; start that program first, or %s",
                         path, writes ? "reads" : "writes into", writes ? "name a file" : "give a file");
    return file_fail(error, "'%s' is %s, expected %s; give the name of one", path, file_kind(mode),
                     accept == FILE_STREAM ? "a file or a pipe" : "a regular file");
}

/* Whether a program has opened a pipe for writing, now or within file_writer_milliseconds. Without one, reading would
   find the pipe empty instead of waiting for data. */
static inline bool file_has_writer(int file) {
    struct pollfd wait = {file, POLLIN, 0};
    int found;
    do found = poll(&wait, 1, file_writer_milliseconds);
    while (found < 0 && errno == EINTR);
    bool has = found > 0;
#ifdef SPLICE_F_NONBLOCK /* Linux: tee() copies from a pipe without taking anything; 0: there is no writer */
    int ends[2];
    if (!has && pipe(ends) == 0) {
        has = tee(file, ends[1], 1, SPLICE_F_NONBLOCK) != 0;
        close(ends[0]), close(ends[1]);
    }
#endif
    return has;
}

static inline int file_open(const char *path, int flags, FileAccept accept, char *error) {
    struct stat about;
    int file = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0666);
    if (file < 0 && errno == EAGAIN && stat(path, &about) == 0 && S_ISREG(about.st_mode))
        file = open(path, flags | O_NOCTTY | O_CLOEXEC,
                    0666); /* waits until another program gives up its lease (fcntl) */
    if (file < 0) {
        const int cause = errno; /* ENXIO: a pipe to be written that no program reads, or a socket */
        if ((cause == ENXIO || cause == EISDIR) && stat(path, &about) == 0)
            file_fail_kind(error, path, about.st_mode, flags, accept);
        else
            file_fail(error, "cannot open '%s': %s", path, strerror(cause));
        errno = cause;
        return -1;
    }
    bool ok = fstat(file, &about) == 0;
    if (!ok)
        file_fail(error, "cannot open '%s': %s", path, strerror(errno));
    else if (!S_ISREG(about.st_mode)) {
        ok = accept == FILE_STREAM && !S_ISDIR(about.st_mode) &&
             (!S_ISFIFO(about.st_mode) || (flags & O_ACCMODE) != O_RDONLY || file_has_writer(file));
        if (!ok) file_fail_kind(error, path, about.st_mode, flags, accept);
    }
    if (ok && fcntl(file, F_SETFL, flags & O_APPEND) == 0)
        return file; /* without O_NONBLOCK: reading waits for data */
    close(file);
    errno = EINVAL;
    return -1;
}

static inline int file_open_locked(const char *path, int flags, bool *locked, char *error) {
    struct stat opened, named;
    for (;;) {
        const int file = file_open(path, flags, FILE_REGULAR, error);
        *locked = file >= 0 && flock(file, LOCK_EX | LOCK_NB) == 0;
        if (!*locked) return file;
        if (fstat(file, &opened) == 0 && stat(path, &named) == 0 && opened.st_dev == named.st_dev &&
            opened.st_ino == named.st_ino)
            return file;
        close(file); /* the process that held the lock has just removed or replaced the file: try again */
    }
}

/* ---- reading ---- */

static inline int64_t file_read_bytes(int file, void *to, size_t size) {
    const size_t limit = (size_t)1 << 30; /* one read() moves at most 2 GiB */
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

/* The rest of an open file, as file_read returns it. */
static inline char *file_read_open(int file, const char *path, size_t limit, size_t *size, char *error) {
    struct stat about;
    size_t room = 0, used = 0;
    char *text = NULL;
    const bool known = fstat(file, &about) == 0 && S_ISREG(about.st_mode);
    const uint64_t told = known ? (uint64_t)about.st_size : 0;
    int64_t got = 0;
    if (told <= limit) {
        /* asks for one byte more than the file should have, to see whether it has grown or is a stream */
        size_t want = (size_t)told + 1;
        do {
            text = (char *)check_grow(text, &room, used + want + 1, 1);
            got = file_read_bytes(file, text + used, want);
            used += got > 0 ? (size_t)got : 0;
            if (got < (int64_t)want) break;
            want = used < limit ? (used < limit - used ? used : limit - used) + 1 : 0;
        } while (want > 0);
    }
    if (got < 0)
        file_fail(error, "cannot read '%s': %s", path, strerror(errno));
    else if (told > limit || used > limit)
        file_fail(error, "'%s' has %s%llu bytes, at most %zu are expected; it is another kind of file", path,
                  known ? "" : "more than ", (unsigned long long)(known && told > used ? told : used), limit);
    else
        return text[used] = 0, *size = used, text;
    free(text);
    errno = EINVAL;
    return NULL;
}

static inline char *file_read(const char *path, FileAccept accept, size_t limit, size_t *size, char *error) {
    const int file = file_open(path, O_RDONLY, accept, error);
    if (file < 0) return NULL;
    char *text = file_read_open(file, path, limit, size, error);
    close(file);
    return text;
}

/* ---- writing ---- */

static inline bool file_create(int *file, const char *path, char *error) {
    *file = file_open(path, O_WRONLY | O_CREAT | O_TRUNC, FILE_STREAM, error);
    return *file >= 0;
}

static inline bool file_write(int file, const void *bytes, size_t size, const char *path, char *error) {
    const size_t limit = (size_t)1 << 30; /* one write() moves at most 2 GiB */
    for (const char *from = (const char *)bytes; size > 0;) {
        ssize_t n = write(file, from, size < limit ? size : limit);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return file_fail_write(error, path, n < 0 ? errno : ENOSPC);
        from += n, size -= (size_t)n;
    }
    return true;
}

/* Brings what was written to the disk. fsync answers EINVAL for what is not on a disk, such as a pipe; that is no
   failure. */
static inline bool file_flush(int file, const char *path, char *error) {
    while (fsync(file) != 0) {
        if (errno == EINTR) continue;
        return errno == EINVAL ? true : file_fail_write(error, path, errno);
    }
    return true;
}

static inline bool file_finish(int file, bool ok, const char *path, char *error) {
    struct stat about;
    bool regular = fstat(file, &about) == 0 && S_ISREG(about.st_mode);
    ok = ok && file_flush(file, path, error);
    if (close(file) != 0 && ok) ok = file_fail_write(error, path, errno);
    if (!ok && regular) unlink(path);
    return ok;
}

static inline bool file_flush_folder(const char *path, char *error) {
    int folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) return file_fail(error, "cannot open folder '%s': %s", path, strerror(errno));
    bool ok = file_flush(folder, path, error);
    close(folder);
    return ok;
}

/* Writes into what is at path, and creates a file if there is nothing. */
static inline bool file_write_into(const char *path, const void *bytes, size_t size, char *error) {
    int file;
    return file_create(&file, path, error) &&
           file_finish(file, file_write(file, bytes, size, path, error), path, error);
}

static inline bool file_write_whole(const char *path, const void *bytes, size_t size, char *error) {
    char part[FILE_PATH_SIZE], folder[FILE_PATH_SIZE];
    if (snprintf(part, sizeof part, "%s.part", path) >= (int)sizeof part)
        return file_fail(error, "the path '%.200s...' is too long; use a shorter name", path);
    unlink(part); /* left by a program that was killed */
    if (!file_write_into(part, bytes, size, error)) return false;
    if (rename(part, path) != 0) {
        file_fail(error, "cannot rename '%s' to '%s': %s", part, path, strerror(errno));
        unlink(part);
        return false;
    }
    memcpy(folder, part, sizeof folder); /* dirname may change what it is given */
    return file_flush_folder(dirname(folder), error);
}

static inline bool file_write_output(const char *path, const void *bytes, size_t size, char *error) {
    struct stat about;
    const bool exists = stat(path, &about) == 0;
    if (exists && !S_ISREG(about.st_mode)) return file_write_into(path, bytes, size, error);
    char *target = exists ? realpath(path, NULL) : NULL; /* what a link leads to */
    const bool ok = file_write_whole(target ? target : path, bytes, size, error);
    free(target);
    return ok;
}

static inline bool file_make_folders(const char *path, char *error) {
    char part[FILE_PATH_SIZE];
    struct stat about;
    if (snprintf(part, sizeof part, "%s", path) >= (int)sizeof part)
        return file_fail(error, "the path '%.200s...' is too long; use a shorter name", path);
    for (char *at = part + 1; *part; at++) {
        const char here = *at;
        if (here && here != '/') continue;
        *at = 0;
        const int cause = mkdir(part, 0777) == 0 ? 0 : errno;
        if (cause && (stat(part, &about) != 0 || !S_ISDIR(about.st_mode)))
            return file_fail(error, "cannot create the folder '%s': %s; choose another one", part,
                             cause == EEXIST ? "a file is in its way" : strerror(cause));
        *at = here;
        if (!here) break;
    }
    return true;
}

/* ---- the same, ending the program on failure ---- */

static inline char *check_file_read_at(const char *file, int line, const char *path, FileAccept accept,
                                       size_t limit, size_t *size, bool may_lack, const char *hint) {
    char error[FILE_ERROR_SIZE];
    char *text = file_read(path, accept, limit, size, error);
    if (!text && may_lack && errno == ENOENT) return NULL;
    if (!text) check_die(file, line, "%s%s%s", error, *hint ? "; " : "", hint);
    return text;
}

static inline FILE *check_fopen_at(const char *file, int line, const char *path, const char *mode,
                                   const char *hint) {
    char error[FILE_ERROR_SIZE];
    const int flags = *mode == 'r'   ? O_RDONLY
                      : *mode == 'a' ? O_WRONLY | O_CREAT | O_APPEND
                                     : O_WRONLY | O_CREAT | O_TRUNC;
    const int opened = file_open(path, flags, FILE_STREAM, error);
    FILE *stream = opened < 0 ? NULL : fdopen(opened, mode);
    if (opened >= 0 && !stream) file_fail(error, "cannot open '%s': %s", path, strerror(errno));
    if (!stream) check_die(file, line, "%s%s%s", error, *hint ? "; " : "", hint);
    return stream;
}

#define check_file_read(path, accept, limit, size, hint)                                                     \
    check_file_read_at(__FILE__, __LINE__, path, accept, limit, size, false, hint)
#define check_file_read_if(path, limit, size, hint)                                                          \
    check_file_read_at(__FILE__, __LINE__, path, FILE_REGULAR, limit, size, true, hint)
#define check_fopen(path, mode, hint) check_fopen_at(__FILE__, __LINE__, path, mode, hint)

#endif
