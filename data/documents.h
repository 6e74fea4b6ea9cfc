/* documents.h: reads the inputs of ./prepare and finds the documents in them.

   A Reader works through a job, which is a large file or several small ones (inputs.h), and gives one block after the
   other. A Block is some text, and where in it each document begins and ends; a JSON line is a document that is parsed
   later (json_line.h). A Place says how far a reader has come. It is kept in the state of an interrupted run, and is
   all that is needed to go on from there: the blocks that follow depend on the text alone, not on how much of it was
   read at a time.

   A plain text file is one document; or it is cut into pieces at blank lines (DOCUMENTS_CUT), which joined give the
   file again byte for byte; or its documents are what lies between lines equal to a separator. A document has a largest
   size, so that no input can take all memory.

     reader_next(reader, block)   the job's next documents; afterwards the reader's place.job is -1 when the job is
                                  done. Dies when a file is damaged, was changed or holds a document that is too
                                  large
   A zeroed Block and a zeroed Reader with `inputs` set and place.job = -1 are ready for use. */
#ifndef DATA_DOCUMENTS_H
#define DATA_DOCUMENTS_H

#include "inputs.h"

enum { READ_BYTES = TEXT_READ_BYTES }; /* of text that are read at a time */

typedef struct {
    size_t start, length; /* its bytes in the block */
    bool too_long; /* a line that exceeds the largest document: its text was left out, and length is 0 */
    int64_t line;  /* its number in the file, from 1; 0 for plain text */
    int source;    /* its file, an index of Inputs.sources */
} RawDocument;

typedef struct {
    char *bytes;            /* (n) text */
    size_t n, room;         /* room: how many bytes memory is allocated for (check_grow) */
    RawDocument *documents; /* (n_documents) in the order of the text */
    size_t n_documents, documents_room;
} Block;

typedef struct {
    int job;        /* an index of Inputs.jobs; -1: the reader has none */
    int source;     /* the file that is read, or is next */
    int64_t offset; /* how many bytes of the text of that file have become documents */
    int64_t line;   /* how many lines are in these bytes */
} Place;

typedef struct {
    const Inputs *inputs;
    Place place;
    TextFile *file; /* NULL between two files */
    bool ended;     /* all of the file was read */
    int64_t read;   /* bytes of the file's text that were read */
    char *rest;     /* (n_rest) text that was read, but is not yet a whole document */
    size_t n_rest, rest_room;
    size_t searched; /* bytes of the rest in which no document ends */
    size_t skipped;  /* bytes left out so far of a line that exceeds the largest document; 0: no such line */
    double fraction; /* how much of each file to read, in bytes of text per byte on disk; 0: all of it */
} Reader;

/* -----------------------------------------------------------------------------------------------------------
   Cutting plain text */

/* The index of the first `byte` in text[from, to); `to`: there is none. */
static size_t find_byte(const char *text, size_t from, size_t to, char byte) {
    const char *at = from < to ? memchr(text + from, byte, to - from) : NULL;
    return at ? (size_t)(at - text) : to;
}

/* The index of the first byte after the blank lines that follow the newline at index `at` of a text of n bytes; 0 when
   the next line is not blank. */
static size_t blank_lines(const char *text, size_t n, size_t at) {
    size_t end = 0;
    for (size_t i = at + 1; i < n && strchr(" \t\r\n", text[i]) && text[i]; i++)
        if (text[i] == '\n') end = i + 1;
    return end;
}

/* The length of the first document of a text of n bytes. The document has at least `bytes` bytes and ends after the
   first blank line that follows them. If there is no blank line within 8 * bytes, it ends after the first newline
   beyond `bytes`; if there is no newline within 16 * bytes, after the first space; and if there is no space within 32 *
   bytes, at the end of a character there. 0: this cannot be decided before more of the file is read. *searched, in and
   out: in so many bytes from the start, no blank line was found at which the document could end. */
static size_t cut_length(const char *text, size_t n, size_t bytes, bool end_of_file, size_t *searched) {
    if (!end_of_file && n < 33 * bytes) return 0;
    if (n <= bytes) return n;
    const size_t seen = n < 33 * bytes ? n : 33 * bytes;
    size_t limit = n < 8 * bytes ? n : 8 * bytes;
    for (size_t at = *searched < bytes ? bytes - 1 : *searched - 1;
         (at = find_byte(text, at, limit, '\n')) < limit; at++) {
        size_t end = blank_lines(text, seen, at);
        if (end) return *searched = 0, end;
    }
    /* White space at the end of what was read may be the beginning of a blank line: it is searched again. */
    if (limit > *searched && !strchr(" \t\r\n", text[seen - 1])) *searched = limit;
    limit = n < 16 * bytes ? n : 16 * bytes;
    size_t at = find_byte(text, bytes - 1, limit, '\n');
    if (at < limit) return at + 1;
    limit = n < 32 * bytes ? n : 32 * bytes;
    at = find_byte(text, bytes - 1, limit, ' ');
    if (at < limit) return at + 1;
    for (at = limit; at < n && at < limit + 4 && (text[at] & 0xC0) == 0x80;) at++;
    return at;
}

/* The length of the first document of a text whose documents are separated by lines equal to `separator`, which belong
   to no document; *next: where the next document begins, 0 when that cannot be decided before more is read. *searched,
   in and out: in so many bytes from the start, no line is a separator. */
static size_t separated_length(const char *text, size_t n, const char *separator, bool end_of_file,
                               size_t *searched, size_t *next) {
    size_t length = strlen(separator);
    for (size_t line = *searched; line < n; *searched = line) {
        size_t end = find_byte(text, line, n, '\n');
        if (end == n && !end_of_file) break;
        size_t width = end - line;
        if (width && text[end - 1] == '\r') width--;
        if (width == length && memcmp(text + line, separator, length) == 0)
            return *next = end < n ? end + 1 : n, line;
        line = end + 1;
    }
    return *next = end_of_file ? n : 0, end_of_file ? n : 0;
}

/* -----------------------------------------------------------------------------------------------------------
   Reading */

static void add_document(Block *b, RawDocument document) {
    b->documents = check_grow(b->documents, &b->documents_room, b->n_documents + 1, sizeof *b->documents);
    b->documents[b->n_documents++] = document;
}

static bool is_blank(const char *text, size_t n) {
    size_t i = 0;
    while (i < n && (text[i] == ' ' || text[i] == '\t' || text[i] == '\r')) i++;
    return i == n;
}

/* Removes from the block what was read of a line that is longer than the largest document; the line begins at byte
   `cut`. It becomes a document without text. */
static void skip_line(Reader *r, Block *b, size_t cut) {
    enum { TIMES = 16 };
    const Source *source = &r->inputs->sources[r->place.source];
    if (!r->skipped) {
        r->place.line++;
        add_document(
            b,
            (RawDocument){.start = cut, .too_long = true, .line = r->place.line, .source = r->place.source});
    }
    r->skipped += b->n - cut;
    b->n = cut, r->searched = 0;
    if (r->skipped / TIMES > r->inputs->largest)
        die("line %lld of '%s' goes on for more than %d times --max-document; that is no file of JSON lines: "
            "remove it",
            (long long)r->place.line, source->path, TIMES);
}

/* Makes a document of each complete line of the block from byte `cut` on, until the documents reach the size of a
   block; returns where the next line begins. r->searched keeps how much of an incomplete line was searched for its end.
   */
static size_t cut_lines(Reader *r, Block *b, size_t cut, bool end_of_file) {
    while (cut < b->n && cut < r->inputs->block_bytes) {
        size_t end = find_byte(b->bytes, cut + r->searched, b->n, '\n'), length = end - cut;
        r->searched = length;
        if (end == b->n && (length > r->inputs->largest || r->skipped)) {
            skip_line(r, b, cut);
            break;
        }
        if (end == b->n && !end_of_file) break;
        r->searched = 0;
        if (end == b->n && r->fraction > 0 && !text_ended(r->file))
            return b->n; /* only a part of the file is read, and it ends within this line */
        if (length && b->bytes[end - 1] == '\r') length--;
        if (!r->skipped) r->place.line++;
        bool too_long = length > r->inputs->largest;
        if (!r->skipped && !is_blank(b->bytes + cut, length))
            add_document(b,
                         (RawDocument){cut, too_long ? 0 : length, too_long, r->place.line, r->place.source});
        r->skipped = 0;
        cut = end < b->n ? end + 1 : b->n;
    }
    if (end_of_file) r->skipped = 0;
    return cut;
}

/* Makes documents, of JSON lines or of plain text, of the text of the block from byte `cut` on, until they reach the
   size of a block; returns where the next document begins. */
static size_t cut_documents(Reader *r, Block *b, size_t cut, bool end_of_file) {
    const Inputs *in = r->inputs;
    if (in->sources[r->place.source].jsonl) return cut_lines(r, b, cut, end_of_file);
    while (cut < b->n && cut < in->block_bytes) {
        const char *text = b->bytes + cut;
        size_t left = b->n - cut, length = end_of_file ? left : 0, next = length;
        if (*in->separator)
            length = separated_length(text, left, in->separator, end_of_file, &r->searched, &next);
        else if (in->rule == DOCUMENTS_CUT)
            next = length = cut_length(text, left, in->document_bytes, end_of_file, &r->searched);
        if ((next ? length : left) > in->largest)
            die("'%s' holds a document of more than --max-document=%lld MiB; cut it into pieces "
                "(--documents=cut), or "
                "raise that",
                in->sources[r->place.source].path, (long long)(in->largest >> 20));
        if (!next) break;
        if (length) add_document(b, (RawDocument){.start = cut, .length = length, .source = r->place.source});
        cut += next, r->searched = r->searched > next ? r->searched - next : 0;
    }
    return cut;
}

/* Ends the program: the file that is read is damaged. */
static void reader_fail(const Reader *r, const char *what) {
    die("'%s' %s after %lld bytes of text; it is damaged or only partly there: fetch it again",
        r->inputs->sources[r->place.source].path, what, (long long)r->read);
}

/* Opens the next file of the job and goes to the reader's place in it; false when the job has no more files. */
static bool reader_open(Reader *r) {
    const Source *source = &r->inputs->sources[r->place.source];
    if (r->place.source == r->inputs->jobs[r->place.job].end) return false;
    char error[FILE_ERROR_SIZE];
    r->file = text_open(source->path, error);
    if (!r->file) die("%s", error);
    if (r->place.offset && !text_skip(r->file, r->place.offset))
        die("cannot continue in '%s' after %lld bytes of text; did it change? start over with --overwrite",
            source->path, (long long)r->place.offset);
    r->read = r->place.offset;
    return true;
}

/* Appends text of the file to the block; true when the file, or the part of it that is to be read, has ended. */
static bool reader_read(Reader *r, Block *b) {
    b->bytes = check_grow(b->bytes, &b->room, b->n + READ_BYTES, 1);
    int64_t want = READ_BYTES,
            limit = (int64_t)(r->fraction * (double)r->inputs->sources[r->place.source].bytes);
    if (r->fraction > 0 && r->read + want > limit) want = limit > r->read ? limit - r->read : 0;
    int64_t got = want ? text_read(r->file, b->bytes + b->n, (size_t)want) : 0;
    if (got < 0) reader_fail(r, r->file->why);
    b->n += (size_t)got, r->read += got;
    return got < want || want < READ_BYTES;
}

/* Closes the file and goes on to the next one of the job. */
static void reader_close(Reader *r) {
    if (!text_close(r->file) && r->fraction == 0) reader_fail(r, text_cut_short);
    r->file = NULL;
    r->ended = false;
    r->read = 0, r->searched = 0, r->skipped = 0;
    r->place = (Place){.job = r->place.job, .source = r->place.source + 1};
}

/* The block gets the job's next documents, up to the first with which they reach block_bytes of text. */
static void reader_next(Reader *r, Block *b) {
    size_t cut = 0;
    b->n_documents = 0;
    b->bytes = check_grow(b->bytes, &b->room, r->n_rest + 1, 1);
    if (r->n_rest) memcpy(b->bytes, r->rest, r->n_rest);
    b->n = r->n_rest;
    while (cut < r->inputs->block_bytes) {
        if (!r->file && !reader_open(r)) {
            r->place = (Place){.job = -1};
            break;
        }
        cut = cut_documents(r, b, cut, r->ended);
        if (cut >= r->inputs->block_bytes) break;
        if (r->ended)
            reader_close(r);
        else
            r->ended = reader_read(r, b);
    }
    r->n_rest = b->n - cut;
    r->rest = check_grow(r->rest, &r->rest_room, r->n_rest + 1, 1);
    memcpy(r->rest, b->bytes + cut, r->n_rest);
    b->n = cut;
    if (r->place.job >= 0) r->place.offset = r->read - (int64_t)r->n_rest;
}

#endif
