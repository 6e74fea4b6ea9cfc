/* check.h: one way to fail, and the checked calls that use it.

   Every failure is one line on stderr: what failed, what was found, what to do, where (file:line);
   exit code 1.

       error: cannot open 'data/val_000000.bin': No such file; run ./prepare first (shards.h:81)

   die(fmt, ...)              prints the line and exits with 1. In a run of several ranks the line names
                              the rank, and the job ends on all of them (check_hooks, set by parallel.h).
   warn(fmt, ...)             the same line as a warning; execution goes on.
   check_malloc(bytes)        zeroed memory aligned to 64 bytes, never NULL; free() releases it.
   check_grow(items, &room, need, size)   the items with room for `need` of them, at least doubling; what is there stays
   check_fread / check_fwrite exactly n items, or die naming the file.
   check_fclose(file, path)   dies when buffered data could not be written (a full disk shows here).
   check_fopen and reading whole files are in files.h.
   The checked calls are macros so that the line reported is the caller's. */
#ifndef GPT_CHECK_H
#define GPT_CHECK_H

#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What several ranks change about failing: a prefix for the message and how to end the whole job. Weak, so that a program
   of two translation units (train_gpt.c and train_gpt.cu) has it once: an error on the GPU's side ends all ranks too. */
struct CheckHooks {
    char prefix[128];           /* "" or "rank 3 on node7: " */
    void (*before_error)(void); /* NULL: nothing; waits, so that of many ranks with one trouble one says it */
    void (*end_job)(int code);  /* NULL: exit(code) */
};
#ifdef __cplusplus
extern "C" {
#endif
__attribute__((weak)) struct CheckHooks check_hooks;
#ifdef __cplusplus
}
#endif

static inline const char *check_basename(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

__attribute__((format(printf, 4, 0))) static inline void
check_print(const char *kind, const char *file, int line, const char *format, va_list arguments) {
    char text[4096];
    vsnprintf(text, sizeof text, format, arguments);
    fflush(stdout);
    fprintf(stderr, "%s: %s%s (%s:%d)\n", kind, check_hooks.prefix, text, check_basename(file), line);
}

__attribute__((noreturn, format(printf, 3, 4))) static inline void check_die(const char *file, int line,
                                                                             const char *format, ...) {
    va_list arguments;
    if (check_hooks.before_error) check_hooks.before_error();
    va_start(arguments, format);
    check_print("error", file, line, format, arguments);
    va_end(arguments);
    if (check_hooks.end_job) check_hooks.end_job(1);
    exit(1);
}

__attribute__((format(printf, 3, 4))) static inline void check_warn(const char *file, int line,
                                                                    const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    check_print("warning", file, line, format, arguments);
    va_end(arguments);
}

#define die(...) check_die(__FILE__, __LINE__, __VA_ARGS__)
#define warn(...) check_warn(__FILE__, __LINE__, __VA_ARGS__)

static inline void *check_malloc_at(const char *file, int line, size_t bytes) {
    size_t rounded = (bytes + 63) / 64 * 64;
    void *memory = rounded < bytes ? NULL : aligned_alloc(64, rounded ? rounded : 64);
    if (!memory)
        check_die(file, line, "cannot allocate %.1f MiB of memory; use a smaller --batch, --seq-len or model",
                  bytes / 1048576.0);
    return memset(memory, 0, rounded);
}

static inline void check_fread_at(const char *file, int line, void *to, size_t size, size_t count,
                                  FILE *stream, const char *path) {
    size_t got = fread(to, size, count, stream);
    if (got != count)
        check_die(file, line, "'%s' %s: expected %zu bytes here, found %zu; the file is damaged or cut short",
                  path, ferror(stream) ? strerror(errno) : "ended early", size * count, size * got);
}

static inline void check_fwrite_at(const char *file, int line, const void *from, size_t size, size_t count,
                                   FILE *stream, const char *path) {
    if (fwrite(from, size, count, stream) != count)
        check_die(file, line, "cannot write '%s': %s; free some space or choose another folder", path,
                  strerror(errno));
}

static inline void check_fclose_at(const char *file, int line, FILE *stream, const char *path) {
    if (fclose(stream) != 0)
        check_die(file, line, "cannot write '%s': %s; free some space or choose another folder", path,
                  strerror(errno));
}

#define check_malloc(bytes) check_malloc_at(__FILE__, __LINE__, bytes)
#define check_fread(to, size, count, stream, path)                                                           \
    check_fread_at(__FILE__, __LINE__, to, size, count, stream, path)
#define check_fwrite(from, size, count, stream, path)                                                        \
    check_fwrite_at(__FILE__, __LINE__, from, size, count, stream, path)
#define check_fclose(stream, path) check_fclose_at(__FILE__, __LINE__, stream, path)

static inline void *check_grow(void *items, size_t *room, size_t need, size_t item_size) {
    if (need <= *room) return items;
    size_t larger = need > 2 * *room ? need : 2 * *room;
    void *fresh = check_malloc(larger * item_size);
    if (items) memcpy(fresh, items, *room * item_size);
    free(items);
    *room = larger;
    return fresh;
}

#endif
