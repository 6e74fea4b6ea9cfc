/* checksum.h: the two checksums that files carry, both computed by libraries.

   XXH64 with seed 0 (xxhash.com) is what the trainer writes: the file DONE of a checkpoint names it for every file, and
   trainer_state.json describes the training data by it. xxhash.h is a header alone; there is nothing to link.
     Checksum c = checksum_begin();
     checksum_add(&c, bytes, n);          any number of times: the result is that of all the bytes in one piece
     uint64_t value = checksum_end(&c);
     checksum_file(path, flush, &value, error)
                                          of a whole file; with `flush` the file is also written to the disk. False
                                          and a sentence in `error` (char[FILE_ERROR_SIZE]) when it cannot be read

   CRC-32, the checksum of zlib and gzip, is what ./prepare writes into shards.json and prepare.state.json. A program
   that calls one of these links zlib (-lz).
     crc = checksum_crc32(crc, bytes, n)        begin with 0; of several pieces, give the result for those before
     checksum_crc32_text(text, crc)             as the files spell it: eight hexadecimal digits */
#ifndef GPT_IO_CHECKSUM_H
#define GPT_IO_CHECKSUM_H

#define XXH_INLINE_ALL
#include <xxhash.h>
#include <zlib.h>
#include "files.h"

enum { CHECKSUM_CHUNK = 1 << 20 }; /* bytes of a file that are read at a time */

typedef XXH64_state_t Checksum;

static inline Checksum checksum_begin(void) {
    Checksum c;
    XXH64_reset(&c, 0);
    return c;
}

static inline void checksum_add(Checksum *c, const void *bytes, size_t n) { XXH64_update(c, bytes, n); }

static inline uint64_t checksum_end(const Checksum *c) { return XXH64_digest(c); }

static inline bool checksum_file(const char *path, bool flush, uint64_t *value, char *error) {
    const int file = file_open(path, O_RDONLY, FILE_REGULAR, error);
    if (file < 0) return false;
    unsigned char *chunk = (unsigned char *)check_calloc(CHECKSUM_CHUNK);
    Checksum c = checksum_begin();
    int64_t got;
    while ((got = file_read_bytes(file, chunk, CHECKSUM_CHUNK)) > 0) checksum_add(&c, chunk, (size_t)got);
    free(chunk);
    bool ok = got == 0 ? true : file_fail(error, "cannot read '%s': %s", path, strerror(errno));
    ok = ok && (!flush || file_flush(file, path, error));
    close(file);
    *value = checksum_end(&c);
    return ok;
}

static inline uint32_t checksum_crc32(uint32_t crc, const void *bytes, size_t n) {
    return (uint32_t)crc32_z(crc, (const unsigned char *)bytes, n);
}

static inline const char *checksum_crc32_text(char text[9], uint32_t crc) {
    snprintf(text, 9, "%08x", (unsigned)crc);
    return text;
}

#endif
