/* check.h: one way to fail, and calls of the C library that fail in this way. C and C++.

   Every failure is one line on stderr: what failed, what was found, what to do about it, and where in the source it was
   noticed. The exit code is 1.

       error: cannot open 'data/val_000000.bin': No such file; run ./prepare first (shards.h:81)

   die(fmt, ...)              prints the line and exits. In a run of several ranks (a rank is one of the processes that
                              mpirun starts) the line names the rank, and all ranks end (see check_hooks)
   warn(fmt, ...)             prints such a line as a warning; execution goes on
   check_say(kind, text, where)   prints such a line, "kind: text where", with its text made printable
   check_flush()              flushes stdout. When that fails, for example because the disk is full, program_end in
                              program.h reports it
   check_printable(...), check_shown(...)   text from a file or a user (a name, a value, a token) as a terminal can show
                                            it
   check_print_piece(...)     the same for a text that is printed piece by piece
   check_whole_characters(text, n)   the length of a text without the UTF-8 character that its end cuts, if it does
   check_calloc(bytes)        zeroed memory, aligned to 64 bytes; never NULL; free() releases it
   check_grow(items, &room, need, size)   makes an array large enough for `need` items of `size` bytes, and returns it.
                              `room` is the number of items that memory is allocated for. If it suffices, the array
                              stays where it is; else it is copied to memory for at least twice as many items, the new
                              part of which is zeroed
   check_fread, check_fwrite  read and write exactly n items, or die naming the file
   check_fclose(file, path)   dies when an earlier write failed: a full disk is often noticed only here
   These calls are macros, so that the place in the message is that of the caller. check_fopen and the reading of whole
   files are in files.h. */
#ifndef GPT_BASE_CHECK_H
#define GPT_BASE_CHECK_H

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHECK_TEXT_SIZE = 4096 }; /* of a message, with its ending 0 */

/* How a program of several ranks fails; parallel.h sets it. The symbol is weak, so that a program of two translation
   units (train_gpt.c and train_gpt.cu) shares one: an error in either ends all ranks. */
struct CheckHooks {
    char prefix[128]; /* of each message: "" or "rank 3 on node7: " */
    /* Called before an error message. It lets one rank print the message and keeps the others waiting, because most
       errors happen on all ranks at once. NULL: every rank prints. */
    void (*before_error)(void);
    /* Ends all ranks with this exit code. NULL: exit(code). */
    void (*end_job)(int code);
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

static int check_lost; /* errno of the first flush of stdout that failed; 0: none did */

static inline void check_flush(void) {
    if (fflush(stdout) != 0 && !check_lost) check_lost = errno;
}

/* The length of the UTF-8 character at the beginning of `text`, of which n > 0 bytes are there, and its code point in
   *code. 0: the bytes are not UTF-8, or the character is longer than n. */
static inline size_t check_character(const char *text, size_t n, uint32_t *code) {
    const unsigned char *p = (const unsigned char *)text;
    const size_t length = *p < 0x80 ? 1 : *p < 0xC2 ? 0 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : *p < 0xF5 ? 4 : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (length == 0 || length > n) return 0;
    *code = length == 1 ? *p : *p & (0xFFu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80) return 0;
        *code = *code << 6 | (p[i] & 0x3F);
    }
    if (*code < least[length] || *code > 0x10FFFF || (*code >= 0xD800 && *code < 0xE000)) return 0;
    return length;
}

/* Whether a terminal obeys the character instead of showing it. These are the control characters, with one of which
   every escape sequence begins, and the characters that change the direction of writing, by which a text can look like
   another one. */
static inline bool check_is_control(uint32_t code) {
    return code < 0x20 || (code >= 0x7F && code < 0xA0) || code == 0x61C || code == 0x200E ||
           code == 0x200F || (code >= 0x2028 && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
}

/* Copies n bytes to `to`, which has `room` bytes. Control characters and bytes that are not UTF-8 become \xNN; with
   `lines`, line breaks and tabs stay. What does not fit is left out. Returns the length without the ending 0. A signal
   handler may call it. */
static inline size_t check_printable(char *to, size_t room, const char *from, size_t n, bool lines) {
    static const char digits[] = "0123456789abcdef";
    size_t used = 0;
    for (size_t at = 0, length; at < n; at += length) {
        uint32_t code = 0;
        length = check_character(from + at, n - at, &code);
        const bool shown =
            length > 0 && (!check_is_control(code) || (lines && (code == '\n' || code == '\t')));
        if (length == 0) length = 1;
        if (used + (shown ? length : 4 * length) >= room) break;
        for (size_t i = at; i < at + length; i++) {
            const unsigned char byte = (unsigned char)from[i];
            if (shown) {
                to[used++] = from[i];
                continue;
            }
            to[used++] = '\\', to[used++] = 'x';
            to[used++] = digits[byte >> 4], to[used++] = digits[byte & 15];
        }
    }
    to[used] = 0;
    return used;
}

/* A whole text, for one line of output; returns `shown`. */
static inline const char *check_shown(char shown[CHECK_TEXT_SIZE], const char *text) {
    check_printable(shown, CHECK_TEXT_SIZE, text, strlen(text), false);
    return shown;
}

static inline size_t check_whole_characters(const char *text, size_t n) {
    /* looks for the first byte of the last character */
    for (size_t back = 1; back <= 3 && back <= n; back++) {
        const unsigned char lead = (unsigned char)text[n - back];
        const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
        if (lead < 0x80 || lead > 0xF4) break;
        if (lead >= 0xC2) return length > back ? n - back : n;
    }
    return n;
}

/* Prints n bytes of a text that comes in pieces, such as tokens. A piece may end in the middle of a UTF-8 character:
   its first bytes are then kept in `waiting`, which is "" before the first piece, and printed with the next piece. With
   n = 0 they are printed at once. */
static inline void check_print_piece(FILE *to, char waiting[8], const char *bytes, size_t n) {
    enum { MOST = 256 };
    char text[8 + MOST], printable[4 * sizeof text + 1];
    do {
        const size_t before = strlen(waiting), piece = n < MOST ? n : (size_t)MOST;
        const size_t length = before + piece;
        memcpy(text, waiting, before);
        if (piece) memcpy(text + before, bytes, piece);
        const size_t whole = n > 0 ? check_whole_characters(text, length) : length;
        fwrite(printable, 1, check_printable(printable, sizeof printable, text, whole, true), to);
        memcpy(waiting, text + whole, length - whole);
        waiting[length - whole] = 0;
        bytes += piece, n -= piece;
    } while (n > 0);
}

/* `where` is "" or begins with a space. */
static inline void check_say(const char *kind, const char *text, const char *where) {
    char printable[4 * CHECK_TEXT_SIZE];
    check_printable(printable, sizeof printable, text, strlen(text), false);
    check_flush();
    fprintf(stderr, "%s: %s%s%s\n", kind, check_hooks.prefix, printable, where);
}

__attribute__((format(printf, 4, 0))) static inline void
check_print(const char *kind, const char *file, int line, const char *format, va_list arguments) {
    char text[CHECK_TEXT_SIZE], where[128];
    vsnprintf(text, sizeof text, format, arguments);
    snprintf(where, sizeof where, " (%.100s:%d)", check_basename(file), line);
    check_say(kind, text, where);
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

static inline void *check_calloc_at(const char *file, int line, size_t bytes) {
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
    const bool lost = ferror(stream); /* an earlier write failed: fclose does not report it again */
    if (fclose(stream) != 0 || lost)
        check_die(file, line, "cannot write '%s': %s; free some space or choose another folder", path,
                  lost ? "a write failed" : strerror(errno));
}

#define check_calloc(bytes) check_calloc_at(__FILE__, __LINE__, bytes)
#define check_fread(to, size, count, stream, path)                                                           \
    check_fread_at(__FILE__, __LINE__, to, size, count, stream, path)
#define check_fwrite(from, size, count, stream, path)                                                        \
    check_fwrite_at(__FILE__, __LINE__, from, size, count, stream, path)
#define check_fclose(stream, path) check_fclose_at(__FILE__, __LINE__, stream, path)

static inline void *check_grow(void *items, size_t *room, size_t need, size_t item_size) {
    if (need <= *room) return items;
    size_t larger = need > 2 * *room ? need : 2 * *room;
    void *fresh = check_calloc(larger * item_size);
    if (items) memcpy(fresh, items, *room * item_size);
    free(items);
    *room = larger;
    return fresh;
}

#endif
