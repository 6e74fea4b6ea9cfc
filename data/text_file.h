/* text_file.h: reads the text of a file, which may be compressed by gzip or, with HAVE_ZSTD, by zstd. The first bytes
   of the file, not its name, tell whether and how it is compressed.

     text_open(path, error)   NULL when it cannot be opened, with a sentence in `error` (char[FILE_ERROR_SIZE])
     text_read(f, to, n)      reads the next n bytes of text, fewer only at the end; returns how many, or -1 when the
                              file is damaged: f->why then says how
     text_skip(f, n)          skips n bytes of text; false when the text ends before, or is damaged
     text_ended(f)            whether the last read reached the end of the text
     text_position(f)         how many bytes of the file, as it is on disk, were read so far
     text_close(f)            frees it; false when the file ended in the middle of its compressed data */
#ifndef DATA_TEXT_FILE_H
#define DATA_TEXT_FILE_H

#include <fcntl.h>
#include <stdbool.h>
#include <unistd.h>
#include <zlib.h>
#ifdef HAVE_ZSTD
#include <zstd.h>
#endif
#include "../gpt/io/files.h"

enum { TEXT_READ_BYTES = 1 << 18 }; /* bytes of the file that are read at a time */

typedef struct {
    const char *why; /* what is wrong with the file, to follow its name; NULL: nothing so far */
    gzFile gz;       /* reads text that is gzipped or not compressed; NULL: zstd does */
#ifdef HAVE_ZSTD
    ZSTD_DCtx *zstd;
    int file;
    ZSTD_inBuffer input;
    unsigned char *bytes; /* (TEXT_READ_BYTES) the input's memory */
    size_t frame;         /* bytes that zstd still expects of the present frame; 0 between two frames */
    int64_t position;     /* bytes of the file that were read */
    bool ended;           /* all of them were */
#endif
} TextFile;

static const char text_cut_short[] = "ends in the middle of its compressed data";

/* Whether a file that begins with these four bytes is one of zstd: with a frame of data, or with a skippable frame
   before it. */
static inline bool text_is_zstd(const unsigned char head[4]) {
    return memcmp(head + 1, "\xB5\x2F\xFD", 3) == 0
               ? head[0] == 0x28
               : head[0] >> 4 == 5 && !memcmp(head + 1, "\x2A\x4D\x18", 3);
}

static inline TextFile *text_open(const char *path, char *error) {
    unsigned char head[4] = {0};
    int file = file_open(path, O_RDONLY, FILE_REGULAR, error);
    if (file < 0) return NULL;
    const bool zstd = pread(file, head, 4, 0) == 4 && text_is_zstd(head);
#ifndef HAVE_ZSTD
    if (zstd) {
        close(file);
        file_fail(
            error,
            "'%s' is compressed by zstd, which this ./prepare was built without (Debian: libzstd-dev, then "
            "make); unpack it with zstd -d",
            path);
        return NULL;
    }
#endif
    TextFile *f = check_calloc(sizeof *f);
#ifdef HAVE_ZSTD
    if (zstd) {
        f->zstd = ZSTD_createDCtx();
        if (!f->zstd) die("cannot allocate memory to unpack '%s'", path);
        ZSTD_DCtx_setParameter(f->zstd, ZSTD_d_windowLogMax,
                               sizeof(size_t) > 4 ? 31 : 30); /* of zstd --long=31 */
        f->file = file;
        f->bytes = check_calloc(TEXT_READ_BYTES);
        f->input = (ZSTD_inBuffer){f->bytes, 0, 0};
        return f;
    }
#endif
    f->gz = gzdopen(file, "rb");
    if (!f->gz) die("cannot allocate memory to read '%s'", path);
    gzbuffer(f->gz, TEXT_READ_BYTES);
    return f;
}

#ifdef HAVE_ZSTD
static inline int64_t text_read_zstd(TextFile *f, void *to, size_t n) {
    ZSTD_outBuffer output = {to, n, 0};
    while (output.pos < n) {
        if (f->input.pos == f->input.size && !f->ended) {
            ssize_t got = read(f->file, f->bytes, TEXT_READ_BYTES);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) return f->why = strerror(errno), -1;
            f->input.pos = 0, f->input.size = (size_t)got;
            f->position += got, f->ended = got == 0;
        }
        size_t before = output.pos;
        if (f->ended && !f->frame) break;
        f->frame = ZSTD_decompressStream(f->zstd, &output, &f->input);
        if (ZSTD_isError(f->frame)) return f->why = ZSTD_getErrorName(f->frame), -1;
        if (f->ended && output.pos == before && f->frame) return f->why = text_cut_short, -1;
    }
    return (int64_t)output.pos;
}
#endif

static inline int64_t text_read(TextFile *f, void *to, size_t n) {
    int code;
    if (f->why) return -1;
#ifdef HAVE_ZSTD
    if (!f->gz) return text_read_zstd(f, to, n);
#endif
    int got = gzread(f->gz, to, (unsigned)n);
    const char *message = gzerror(f->gz, &code);
    if (got < 0 || (code != Z_OK && code != Z_STREAM_END && (size_t)got < n))
        return f->why = code == Z_BUF_ERROR ? text_cut_short
                        : code == Z_ERRNO   ? strerror(errno)
                                            : message,
               -1;
    return got;
}

static inline bool text_skip(TextFile *f, int64_t n) {
    if (f->why) return false;
    if (f->gz) return gzseek(f->gz, (z_off_t)n, SEEK_CUR) >= 0;
    char *bytes = check_calloc(TEXT_READ_BYTES);
    for (int64_t got = 1; n > 0 && got > 0; n -= got)
        got = text_read(f, bytes, n < TEXT_READ_BYTES ? (size_t)n : TEXT_READ_BYTES);
    free(bytes);
    return n == 0 && !f->why;
}

static inline bool text_ended(TextFile *f) {
#ifdef HAVE_ZSTD
    if (!f->gz) return f->ended;
#endif
    return gzeof(f->gz);
}

static inline int64_t text_position(TextFile *f) {
#ifdef HAVE_ZSTD
    if (!f->gz) return f->position;
#endif
    return gzoffset(f->gz);
}

static inline bool text_close(TextFile *f) {
    bool whole = true;
#ifdef HAVE_ZSTD
    if (!f->gz) {
        whole = !f->ended || !f->frame;
        ZSTD_freeDCtx(f->zstd), close(f->file), free(f->bytes);
    }
#endif
    if (f->gz) whole = gzclose(f->gz) != Z_BUF_ERROR;
    free(f);
    return whole;
}

#endif
