/* documents.h: files of text into documents, for prepare.c.

   Inputs   what to read: files in the order given, folders as the sorted files below them, "-" for standard
            input; each is plain text or JSON lines, as it is or gzipped (told by content, not by name).
   Job      a large file, or a run of small ones: what one reader works through.
   Reader   reads one job, a block at a time; its place (offset in the text, line) can be kept and found again
   Block    some text and the documents in it, as they lie in the file: a JSON line is not parsed yet.

   Documents of a plain text: the whole file, or pieces cut at blank lines (DOCUMENTS_CUT), or the text
   between lines equal to a separator. Cut pieces joined give the file again, byte for byte. */
#ifndef DATA_DOCUMENTS_H
#define DATA_DOCUMENTS_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>
#include "../gpt/check.h"

typedef enum { FORMAT_AUTO, FORMAT_TEXT, FORMAT_JSONL } Format;
typedef enum { DOCUMENTS_AUTO, DOCUMENTS_FILE, DOCUMENTS_CUT } DocumentRule;

enum {
    READ_BYTES = 1 << 18, /* asked of zlib at a time */
    SLOTS = 16,           /* jobs open at once; part of the format of the output: the order depends on it */
    FEW_FILES = 64        /* DOCUMENTS_AUTO cuts plain text when there are fewer files */
};

typedef struct {
    char *path;    /* as opened */
    int64_t bytes; /* on disk */
    bool jsonl, validation;
} Source;

typedef struct {
    int first, end; /* sources[first..end) */
} Job;

typedef struct {
    Source *sources;
    int n_sources, room;
    Job *jobs;
    int n_jobs;
    int64_t bytes;      /* on disk, together */
    size_t round_bytes; /* of text, read from all open jobs together before the next round */
    size_t block_bytes; /* of text one reader reads for a round */
    bool has_validation;
    /* how plain text becomes documents */
    DocumentRule rule;
    size_t document_bytes;
    const char *separator; /* "": none */
} Inputs;

typedef struct {
    size_t start, length; /* in the block */
    int64_t line;         /* of the file, from 1; 0 for plain text */
    int source;
} RawDocument;

typedef struct {
    char *bytes;
    size_t n, room;
    RawDocument *documents;
    size_t n_documents, documents_room;
} Block;

/* Where a reader stands; all that is needed to go on from there. */
typedef struct {
    int job;        /* -1: idle */
    int source;     /* being read, or next */
    int64_t offset; /* bytes of its text that became documents */
    int64_t line;   /* lines before that */
} Place;

typedef struct {
    const Inputs *inputs;
    Place place;
    gzFile file;  /* NULL between two files */
    bool ended;   /* all of the file was read */
    int64_t read; /* bytes of text read of this file */
    char *rest;   /* read, but not yet a whole document */
    size_t n_rest, rest_room;
    double fraction; /* of each file to read, in bytes of text per byte on disk; 0: all of it */
} Reader;

/* -----------------------------------------------------------------------------------------------------------
   The list of inputs */

static bool ends_with(const char *name, size_t length, const char *ending) {
    size_t n = strlen(ending);
    return length >= n && strncmp(name + length - n, ending, n) == 0;
}

/* FORMAT_AUTO for a name that tells nothing. */
static Format format_of_name(const char *name) {
    static const struct {
        const char *ending;
        Format format;
    } known[] = {{".jsonl", FORMAT_JSONL}, {".ndjson", FORMAT_JSONL}, {".json", FORMAT_JSONL},
                 {".txt", FORMAT_TEXT},    {".text", FORMAT_TEXT},    {".md", FORMAT_TEXT}};
    size_t length = strlen(name);
    if (ends_with(name, length, ".gz")) length -= 3;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (ends_with(name, length, known[i].ending)) return known[i].format;
    return FORMAT_AUTO;
}

/* The first bytes of the text (unpacked), for what the name does not tell. */
static Format format_of_content(const char *path) {
    unsigned char head[512];
    gzFile file = gzopen(path, "rb");
    int n = file ? gzread(file, head, sizeof head) : 0, i = 0;
    if (file) gzclose(file);
    while (i < n && (head[i] <= ' ' || head[i] == 0xEF || head[i] == 0xBB || head[i] == 0xBF)) i++;
    return i < n && head[i] == '{' ? FORMAT_JSONL : FORMAT_TEXT;
}

/* c4-validation.00000-of-00008.json.gz, validation.jsonl, my_validation_2.txt; not
   cross-validation-notes.txt. */
static bool names_validation(const char *name) {
    const char *at = strstr(name, "validation");
    if (!at || (at > name && !strchr("-_.", at[-1]))) return false;
    at += strlen("validation");
    return *at == '.' || ((*at == '-' || *at == '_') && at[1] >= '0' && at[1] <= '9');
}

static void add_source(Inputs *in, const char *path, int64_t bytes, Format format, bool validation) {
    static const char *const foreign[] = {".zst", ".xz",  ".bz2", ".zip",   ".parquet",
                                          ".pdf", ".bin", ".tar", ".tar.gz"};
    for (size_t i = 0; i < sizeof foreign / sizeof *foreign; i++)
        if (ends_with(path, strlen(path), foreign[i]))
            die("'%s' is neither text nor JSON lines (as they are or gzipped); unpack or convert it first",
                path);
    size_t room = (size_t)in->room;
    in->sources = check_grow(in->sources, &room, (size_t)in->n_sources + 1, sizeof *in->sources);
    in->room = (int)room;
    if (format == FORMAT_AUTO) format = format_of_name(path);
    if (format == FORMAT_AUTO) format = format_of_content(path);
    Source *source = &in->sources[in->n_sources++];
    source->path = strcpy(check_malloc(strlen(path) + 1), path);
    source->bytes = bytes;
    source->jsonl = format == FORMAT_JSONL;
    source->validation = validation || names_validation(check_basename(path));
    in->has_validation |= source->validation;
    in->bytes += bytes;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void add_path(Inputs *in, const char *path, Format format, bool validation);

/* Every file below a folder whose name says text or JSON lines, sorted; hidden ones left out. */
static void add_folder(Inputs *in, const char *path, Format format, bool validation) {
    char **names = NULL;
    size_t n = 0, room = 0;
    DIR *folder = opendir(path);
    if (!folder) die("cannot open the folder '%s': %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        size_t size = strlen(path) + strlen(entry->d_name) + 2;
        names = check_grow(names, &room, n + 1, sizeof *names);
        snprintf(names[n++] = check_malloc(size), size, "%s/%s", path, entry->d_name);
    }
    closedir(folder);
    if (n) qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 0; i < n; i++) {
        struct stat status;
        if (stat(names[i], &status) != 0) die("cannot read '%s': %s", names[i], strerror(errno));
        if (S_ISDIR(status.st_mode))
            add_folder(in, names[i], format, validation);
        else if (format_of_name(names[i]) != FORMAT_AUTO)
            add_path(in, names[i], format, validation);
        free(names[i]);
    }
    free(names);
}

static void add_path(Inputs *in, const char *path, Format format, bool validation) {
    struct stat status;
    if (stat(path, &status) != 0)
        die("cannot read the input '%s': %s; name files, folders or - for standard input", path,
            strerror(errno));
    if (!S_ISDIR(status.st_mode)) {
        if (access(path, R_OK) != 0) die("cannot read the input '%s': %s", path, strerror(errno));
        add_source(in, path, status.st_size, format, validation);
        return;
    }
    int before = in->n_sources;
    add_folder(in, path, format, validation);
    if (in->n_sources == before)
        die("no *.txt, *.md, *.json, *.jsonl (or these with .gz) in the folder '%s'; name the files", path);
}

/* Groups small files into jobs (up to what is always read at once) and fixes how much is read at a time;
   depends on the inputs and round_bytes only. */
static void make_jobs(Inputs *in) {
    in->jobs = check_malloc((size_t)in->n_sources * sizeof *in->jobs);
    for (int s = 0; s < in->n_sources;) {
        Job *job = &in->jobs[in->n_jobs++];
        int64_t bytes = in->sources[s].bytes;
        job->first = s++;
        while (s < in->n_sources && bytes + in->sources[s].bytes <= (int64_t)(in->round_bytes / SLOTS))
            bytes += in->sources[s++].bytes;
        job->end = s;
    }
    int open = in->n_jobs < SLOTS ? in->n_jobs : SLOTS;
    in->block_bytes = in->round_bytes / (size_t)(open ? open : 1);
}

/* -----------------------------------------------------------------------------------------------------------
   Cutting plain text */

static size_t find_byte(const char *text, size_t from, size_t to, char byte) {
    const char *at = from < to ? memchr(text + from, byte, to - from) : NULL;
    return at ? (size_t)(at - text) : to;
}

/* The end of the blank lines after the newline at `at`; 0 when the next line is not blank. */
static size_t blank_lines(const char *text, size_t n, size_t at) {
    size_t end = 0;
    for (size_t i = at + 1; i < n && strchr(" \t\r\n", text[i]) && text[i]; i++)
        if (text[i] == '\n') end = i + 1;
    return end;
}

/* The length of the first document of a text: at least `bytes`, up to the next blank line; without one for
   long, to the next newline, then to a space, then to a whole character. 0: that cannot be told before more
   is read. */
static size_t cut_length(const char *text, size_t n, size_t bytes, bool end_of_file) {
    if (!end_of_file && n < 33 * bytes) return 0;
    if (n <= bytes) return n;
    size_t limit = n < 8 * bytes ? n : 8 * bytes;
    for (size_t at = bytes - 1; (at = find_byte(text, at, limit, '\n')) < limit; at++) {
        size_t end = blank_lines(text, n < 33 * bytes ? n : 33 * bytes, at);
        if (end) return end;
    }
    if (n <= 8 * bytes) return n;
    limit = n < 16 * bytes ? n : 16 * bytes;
    size_t at = find_byte(text, 8 * bytes, limit, '\n');
    if (at < limit || n <= limit) return at < limit ? at + 1 : n;
    limit = n < 32 * bytes ? n : 32 * bytes;
    at = find_byte(text, 16 * bytes, limit, ' ');
    if (at < limit || n <= limit) return at < limit ? at + 1 : n;
    for (at = limit; at < n && at < limit + 4 && (text[at] & 0xC0) == 0x80;) at++;
    return at;
}

/* The same between lines equal to the separator, which is left out: *next is where the next one begins. */
static size_t separated_length(const char *text, size_t n, const char *separator, bool end_of_file,
                               size_t *next) {
    size_t length = strlen(separator);
    for (size_t line = 0; line < n;) {
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

static void add_document(Block *b, size_t start, size_t length, int source, int64_t line) {
    b->documents = check_grow(b->documents, &b->documents_room, b->n_documents + 1, sizeof *b->documents);
    b->documents[b->n_documents++] = (RawDocument){start, length, line, source};
}

/* Whole lines from `cut` on, until the block is full; returns how far they reach. */
static size_t cut_lines(Reader *r, Block *b, size_t cut, bool end_of_file) {
    while (cut < b->n && cut < r->inputs->block_bytes) {
        size_t end = find_byte(b->bytes, cut, b->n, '\n'), length = end - cut;
        if (end == b->n && !end_of_file) break;
        if (end == b->n && r->fraction > 0 && !gzeof(r->file))
            return b->n; /* half a line of a part of a file */
        if (length && b->bytes[end - 1] == '\r') length--;
        r->place.line++;
        if (length) add_document(b, cut, length, r->place.source, r->place.line);
        cut = end < b->n ? end + 1 : b->n;
    }
    return cut;
}

/* The same for the documents of any text. */
static size_t cut_documents(Reader *r, Block *b, size_t cut, bool end_of_file) {
    const Inputs *in = r->inputs;
    if (in->sources[r->place.source].jsonl) return cut_lines(r, b, cut, end_of_file);
    while (cut < b->n && cut < in->block_bytes) {
        const char *text = b->bytes + cut;
        size_t left = b->n - cut, length = end_of_file ? left : 0, next = length;
        if (*in->separator)
            length = separated_length(text, left, in->separator, end_of_file, &next);
        else if (in->rule == DOCUMENTS_CUT)
            next = length = cut_length(text, left, in->document_bytes, end_of_file);
        if (!next) break;
        if (length) add_document(b, cut, length, r->place.source, 0);
        cut += next;
    }
    return cut;
}

static void reader_fail(const Reader *r, const char *what) {
    die("'%s' %s after %lld bytes of text; it is damaged or only partly there: fetch it again",
        r->inputs->sources[r->place.source].path, what, (long long)r->read);
}

/* Opens the next file of the job, at the reader's place; false when there is none. */
static bool reader_open(Reader *r) {
    const Source *source = &r->inputs->sources[r->place.source];
    if (r->place.source == r->inputs->jobs[r->place.job].end) return false;
    r->file = gzopen(source->path, "rb");
    if (!r->file)
        die("cannot open the input '%s': %s", source->path, errno ? strerror(errno) : "out of memory");
    gzbuffer(r->file, READ_BYTES);
    if (r->place.offset && gzseek(r->file, (z_off_t)r->place.offset, SEEK_SET) != (z_off_t)r->place.offset)
        die("cannot continue in '%s' after %lld bytes of text; did it change? start over with --overwrite",
            source->path, (long long)r->place.offset);
    r->read = r->place.offset;
    return true;
}

/* Appends some text to the block; true at the end of the file. */
static bool reader_read(Reader *r, Block *b) {
    b->bytes = check_grow(b->bytes, &b->room, b->n + READ_BYTES, 1);
    int64_t want = READ_BYTES,
            limit = (int64_t)(r->fraction * (double)r->inputs->sources[r->place.source].bytes);
    if (r->fraction > 0 && r->read + want > limit) want = limit > r->read ? limit - r->read : 0;
    int got = want ? gzread(r->file, b->bytes + b->n, (unsigned)want) : 0, code;
    const char *message = gzerror(r->file, &code);
    if (got < 0 || (code != Z_OK && code != Z_STREAM_END && got < want))
        reader_fail(r, code == Z_BUF_ERROR ? "ends in the middle of its gzip data" : message);
    const unsigned char *head = (unsigned char *)b->bytes + b->n;
    if (r->read == 0 && got >= 2 &&
        ((head[0] == 0xFF && head[1] == 0xFE) || (head[0] == 0xFE && head[1] == 0xFF)))
        die("'%s' is UTF-16 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)",
            r->inputs->sources[r->place.source].path);
    b->n += (size_t)got, r->read += got;
    return got < want || want < READ_BYTES;
}

/* The file is done: on to the next of the job. */
static void reader_close(Reader *r) {
    if (gzclose(r->file) == Z_BUF_ERROR && r->fraction == 0)
        reader_fail(r, "ends in the middle of its gzip data");
    r->file = NULL;
    r->ended = false;
    r->read = 0;
    r->place = (Place){.job = r->place.job, .source = r->place.source + 1};
}

/* Fills the block with the job's next documents, up to the first that reaches block_bytes: which ones depends
   on the text alone, not on how it was read, so a run that goes on from a kept place makes the same blocks.
   Afterwards the reader is idle (job -1) at the job's end. */
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
