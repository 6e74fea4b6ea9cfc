/* documents.h: files of text into documents, for prepare.c.

   Inputs   what to read: files in the order given, folders as the sorted files below them, "-" for standard
            input; each is plain text or JSON lines, as it is or compressed (text_file.h). inputs_look opens all of them
            once before anything else is done: what is no text, and what is no longer what it was, is found then.
   Job      a large file, or a run of small ones: what one reader works through.
   Reader   reads one job, a block at a time; its place (offset in the text, line) can be kept and found again
   Block    some text and the documents in it, as they lie in the file: a JSON line is not parsed yet.

   Documents of a plain text: the whole file, or pieces cut at blank lines (DOCUMENTS_CUT), or the text
   between lines equal to a separator. Cut pieces joined give the file again, byte for byte. A document has a largest
   size, so that no input can take all memory. */
#ifndef DATA_DOCUMENTS_H
#define DATA_DOCUMENTS_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../gpt/io/files.h"
#include "text_file.h"

typedef enum { FORMAT_AUTO, FORMAT_TEXT, FORMAT_JSONL } Format;
typedef enum { DOCUMENTS_AUTO, DOCUMENTS_FILE, DOCUMENTS_CUT } DocumentRule;

enum {
    READ_BYTES = TEXT_READ_BYTES, /* of text at a time */
    SLOTS = 16,           /* jobs open at once; part of the format of the output: the order depends on it */
    FEW_FILES = 64,       /* DOCUMENTS_AUTO cuts plain text when there are fewer files */
    LOOK_BYTES = 1 << 16, /* of text that inputs_look looks at */
    SAMPLES = 16 /* parts of LOOK_BYTES of a file whose checksum is kept; all of it when it is not larger */
};

typedef struct {
    char *path;    /* as opened */
    int64_t bytes; /* on disk */
    Format format; /* FORMAT_AUTO until inputs_look */
    bool jsonl, validation;
    bool kept; /* of a pipe, in the output folder: ours to remove */
    uint64_t device, inode;
    int64_t modified,
        modified_nano; /* seconds, and billionths of one; 0 when the checksum is of the whole file */
    uint32_t crc;      /* of samples */
} Source;

/* Files of folders whose names say no text: they are counted by the ends of their names. */
typedef struct {
    char ending[16];
    int count;
    const char *first; /* path */
} PassedOver;

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
    PassedOver *passed_over;
    size_t n_passed_over, passed_over_room;
    const char *out;                /* the folder written to, which is no input */
    uint64_t out_device, out_inode; /* of it */
    int n_kept;                     /* pipes, of which the text is kept there */
    uint32_t kept_crc;              /* of all that */
    size_t largest;                 /* bytes of a document, at most */
    int threads;
    /* how plain text becomes documents */
    DocumentRule rule;
    size_t document_bytes;
    const char *separator; /* "": none */
} Inputs;

typedef struct {
    size_t start, length; /* in the block */
    bool too_long;        /* a line that is not there: it exceeds the largest document */
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
    TextFile *file; /* NULL between two files */
    bool ended;     /* all of the file was read */
    int64_t read;   /* bytes of text read of this file */
    char *rest;     /* read, but not yet a whole document */
    size_t n_rest, rest_room;
    size_t searched; /* bytes of it in which no document ends */
    size_t skipped;  /* bytes left out so far of a line that exceeds the largest document; 0: there is none */
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
#ifdef HAVE_ZSTD
    else if (ends_with(name, length, ".zst"))
        length -= 4;
#endif
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (ends_with(name, length, known[i].ending)) return known[i].format;
    return FORMAT_AUTO;
}

/* c4-validation.00000-of-00008.json.gz, validation.jsonl, my_validation_2.txt; not
   cross-validation-notes.txt. */
static bool names_validation(const char *name) {
    const char *at = strstr(name, "validation");
    if (!at || (at > name && !strchr("-_.", at[-1]))) return false;
    at += strlen("validation");
    return *at == '.' || ((*at == '-' || *at == '_') && at[1] >= '0' && at[1] <= '9');
}

static void add_source(Inputs *in, const char *path, const struct stat *status, Format format,
                       bool validation) {
    size_t room = (size_t)in->room;
    in->sources = check_grow(in->sources, &room, (size_t)in->n_sources + 1, sizeof *in->sources);
    in->room = (int)room;
    Source *source = &in->sources[in->n_sources++];
    *source = (Source){.path = strcpy(check_calloc(strlen(path) + 1), path),
                       .bytes = status->st_size,
                       .format = format == FORMAT_AUTO ? format_of_name(path) : format,
                       .validation = validation || names_validation(check_basename(path)),
                       .device = (uint64_t)status->st_dev,
                       .inode = (uint64_t)status->st_ino,
                       .modified = (int64_t)status->st_mtime};
#ifdef __APPLE__
    source->modified_nano = status->st_mtimespec.tv_nsec;
#else
    source->modified_nano = status->st_mtim.tv_nsec;
#endif
}

static void pass_over(Inputs *in, const char *path) {
    const char *name = check_basename(path), *dot = strrchr(name, '.');
    if (!dot || dot == name || strlen(dot) >= sizeof in->passed_over->ending) dot = "";
    PassedOver *p = in->passed_over, *end = p + in->n_passed_over;
    while (p < end && strcmp(p->ending, dot) != 0) p++;
    if (p < end) {
        p->count++;
        return;
    }
    in->passed_over = check_grow(in->passed_over, &in->passed_over_room, in->n_passed_over + 1, sizeof *p);
    p = &in->passed_over[in->n_passed_over++];
    *p = (PassedOver){.count = 1, .first = strcpy(check_calloc(strlen(path) + 1), path)};
    snprintf(p->ending, sizeof p->ending, "%s", dot);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

/* A folder on the way to the one being read: a link may lead back to it. */
typedef struct Above {
    const struct Above *above;
    dev_t device;
    ino_t inode;
} Above;

/* Some file systems number no files: those are all different. */
static bool same_file(uint64_t device, uint64_t inode, uint64_t other_device, uint64_t other_inode) {
    return inode != 0 && device == other_device && inode == other_inode;
}

static bool is_out_folder(const Inputs *in, const struct stat *status) {
    return same_file(in->out_device, in->out_inode, (uint64_t)status->st_dev, (uint64_t)status->st_ino);
}

/* The names in a folder, sorted, as paths; hidden ones left out. free() each and the list. */
static char **list_folder(const char *path, size_t *n) {
    char **names = NULL;
    size_t room = 0;
    DIR *folder = opendir(path);
    if (!folder) die("cannot open the folder '%s': %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        size_t size = strlen(path) + strlen(entry->d_name) + 2;
        names = check_grow(names, &room, *n + 1, sizeof *names);
        snprintf(names[(*n)++] = check_calloc(size), size, "%s/%s", path, entry->d_name);
    }
    closedir(folder);
    if (*n) qsort(names, *n, sizeof *names, compare_names);
    return names;
}

/* What ./prepare itself wrote in or as the output folder, or a folder that is being read already. */
static bool is_no_input(const Inputs *in, const char *path, const struct stat *status,
                        const struct stat *folder, const Above *above) {
    static const char *const own[] = {"tokenizer.json", "shards.json", "prepare.state.json"};
    for (size_t o = 0; o < sizeof own / sizeof *own; o++)
        if (is_out_folder(in, folder) && strcmp(check_basename(path), own[o]) == 0) return true;
    if (!S_ISDIR(status->st_mode)) return false;
    for (; above; above = above->above)
        if (same_file((uint64_t)above->device, (uint64_t)above->inode, (uint64_t)status->st_dev,
                      (uint64_t)status->st_ino))
            return true;
    return is_out_folder(in, status);
}

/* Every file below a folder whose name says text or JSON lines. */
static void add_folder(Inputs *in, const char *path, const struct stat *folder, const Above *above,
                       Format format, bool validation) {
    const Above here = {above, folder->st_dev, folder->st_ino};
    size_t n = 0;
    char **names = list_folder(path, &n);
    for (size_t i = 0; i < n; i++) {
        struct stat status = {0};
        const bool known = format_of_name(names[i]) != FORMAT_AUTO, found = stat(names[i], &status) == 0;
        if (!found && known)
            die("cannot read '%s': %s%s", names[i], strerror(errno),
                errno == ENOENT ? " (a link that leads nowhere); put the file there, or remove the link"
                                : "");
        if (!found || !is_no_input(in, names[i], &status, folder, &here)) {
            if (found && S_ISDIR(status.st_mode))
                add_folder(in, names[i], &status, &here, format, validation);
            else if (known)
                add_source(in, names[i], &status, format, validation);
            else
                pass_over(in, names[i]);
        }
        free(names[i]);
    }
    free(names);
}

/* What can be read only once is read twice (for the vocabulary and the tokens), and what it holds is told by a look: it is
   kept in a file of the folder written to. */
static void keep_stream(Inputs *in, int stream, const char *name, Format format, bool validation) {
    static char bytes[1 << 16];
    struct stat status;
    char path[FILE_PATH_SIZE], kept[32], error[FILE_ERROR_SIZE];
    int file;
    snprintf(kept, sizeof kept, "input-%d.part", in->n_kept++);
    if (!file_join(path, in->out, kept, error) || !file_create(&file, path, error)) die("%s", error);
    for (int64_t n = 1; n > 0;) {
        n = file_read_bytes(stream, bytes, sizeof bytes);
        if (n < 0) die("cannot read %s: %s", name, strerror(errno));
        if (!file_write(file, bytes, (size_t)n, path, error)) die("%s", error);
        in->kept_crc = (uint32_t)crc32_z(in->kept_crc, (unsigned char *)bytes, (size_t)n);
    }
    if (close(file) != 0 || stat(path, &status) != 0) die("cannot write '%s': %s", path, strerror(errno));
    add_source(in, path, &status, format, validation);
    in->sources[in->n_sources - 1].kept = true;
}

static void add_path(Inputs *in, const char *path, Format format, bool validation) {
    struct stat status;
    if (stat(path, &status) != 0)
        die("cannot read the input '%s': %s; name files, folders or - for standard input", path,
            strerror(errno));
    if (S_ISREG(status.st_mode)) {
        add_source(in, path, &status, format, validation);
        return;
    }
    if (!S_ISDIR(status.st_mode)) {
        char error[FILE_ERROR_SIZE];
        int stream = file_open(path, O_RDONLY, FILE_STREAM, error);
        if (stream < 0) die("%s", error);
        keep_stream(in, stream, path, format, validation);
        close(stream);
        return;
    }
    int before = in->n_sources;
    add_folder(in, path, &status, NULL, format, validation);
    if (in->n_sources == before)
        die("no *.txt, *.md, *.json, *.jsonl (or these with .gz or .zst) in the folder '%s'; name the files",
            path);
}

/* -----------------------------------------------------------------------------------------------------------
   Looking at what was listed, before anything is read for good */

/* What the first bytes of a file say that is no text; NULL: nothing. */
static const char *foreign_content(const unsigned char *head, size_t n) {
    static const struct {
        const char *magic;
        size_t bytes;
        const char *what;
    } known[] = {{"PAR1", 4,
                  "is a parquet file; convert it to JSON lines (in Python: pandas.read_parquet(FILE)"
                  ".to_json(\"FILE.jsonl\", orient=\"records\", lines=True))"},
                 {"\xFD"
                  "7zXZ",
                  5, "is compressed by xz; unpack it with xz -d"},
                 {"PK\3\4", 4, "is a zip archive; unpack it"},
                 {"7z\xBC\xAF", 4, "is a 7z archive; unpack it"},
                 {"%PDF-", 5, "is a PDF; convert it to text (pdftotext)"},
                 {"\xFF\xFE\0\0", 4, "is UTF-32 text; convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"},
                 {"\0\0\xFE\xFF", 4, "is UTF-32 text; convert it to UTF-8 (iconv -f UTF-32 -t UTF-8)"},
                 {"\xFF\xFE", 2, "is UTF-16 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"},
                 {"\xFE\xFF", 2, "is UTF-16 text; convert it to UTF-8 (iconv -f UTF-16 -t UTF-8)"}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (n >= known[i].bytes && memcmp(head, known[i].magic, known[i].bytes) == 0) return known[i].what;
    if (n > 10 && memcmp(head, "BZh", 3) == 0 && memcmp(head + 4, "1AY&SY", 6) == 0)
        return "is compressed by bzip2; unpack it with bzip2 -d";
    if (n > 262 && memcmp(head + 257, "ustar", 5) == 0) return "is a tar archive; unpack it";
    return NULL;
}

/* The same from where zero bytes stand: text has none, but for a stray one. */
static const char *zeros_say(const unsigned char *head, size_t n) {
    size_t zeros[4] = {0}, all = 0;
    for (size_t i = 0; i < n; i++)
        if (!head[i]) zeros[i % 4]++, all++;
    if (all < 2 || all * 1000 <= n) return NULL;
    const size_t most = n / 4 - n / 32; /* of a quarter of the bytes */
    if (zeros[0] > most && zeros[1] > most && zeros[2] > most && zeros[3] < most)
        return "is UTF-32 text without a mark; convert it to UTF-8 (iconv -f UTF-32BE -t UTF-8)";
    if (zeros[1] > most && zeros[2] > most && zeros[3] > most && zeros[0] < most)
        return "is UTF-32 text without a mark; convert it to UTF-8 (iconv -f UTF-32LE -t UTF-8)";
    const size_t even = zeros[0] + zeros[2], odd = zeros[1] + zeros[3];
    if (odd > n / 16 && odd > 8 * even)
        return "is UTF-16 text without a mark; convert it to UTF-8 (iconv -f UTF-16LE -t UTF-8)";
    if (even > n / 16 && even > 8 * odd)
        return "is UTF-16 text without a mark; convert it to UTF-8 (iconv -f UTF-16BE -t UTF-8)";
    return "is no text: it is full of zero bytes; remove it, or name the files that are text";
}

/* Settles the format by the first bytes of the text, and dies when it is none. */
static void look_at_text(Source *source) {
    unsigned char *head = check_calloc(LOOK_BYTES);
    char error[FILE_ERROR_SIZE];
    TextFile *file = text_open(source->path, error);
    if (!file) die("%s", error);
    int64_t n = text_read(file, head, LOOK_BYTES), i = 0;
    if (n < 0) die("'%s' %s; it is damaged or only partly there: fetch it again", source->path, file->why);
    text_close(file);
    const char *what = foreign_content(head, (size_t)n);
    if (!what) what = zeros_say(head, (size_t)n);
    if (what) die("'%s' %s", source->path, what);
    while (i < n && (head[i] <= ' ' || head[i] == 0xEF || head[i] == 0xBB || head[i] == 0xBF)) i++;
    if (source->format == FORMAT_AUTO) source->format = i < n && head[i] == '{' ? FORMAT_JSONL : FORMAT_TEXT;
    source->jsonl = source->format == FORMAT_JSONL;
    if (source->jsonl && i < n && head[i] == '[')
        die("'%s' is one JSON list, not an object a line; convert it to JSON lines (jq -c '.[]' FILE > "
            "FILE.jsonl)",
            source->path);
    free(head);
}

/* The checksum of a file that is small; of a large one that of its beginning, its end and parts between, which with its
   size and the time of its last change tells that it is the same. Reading all would take as long as preparing. */
static void look_at_content(Source *source) {
    unsigned char *bytes = check_calloc(LOOK_BYTES);
    const bool whole = source->bytes <= (int64_t)SAMPLES * LOOK_BYTES;
    char error[FILE_ERROR_SIZE];
    int file = file_open(source->path, O_RDONLY, FILE_REGULAR, error);
    if (file < 0) die("%s", error);
    for (int i = 0; i < SAMPLES; i++) {
        int64_t last = source->bytes - LOOK_BYTES,
                at = whole ? (int64_t)i * LOOK_BYTES : last / (SAMPLES - 1) * i;
        if (!whole && i == SAMPLES - 1) at = last;
        ssize_t got = pread(file, bytes, LOOK_BYTES, (off_t)at);
        if (got < 0) die("cannot read the input '%s': %s", source->path, strerror(errno));
        source->crc = (uint32_t)crc32_z(source->crc, bytes, (size_t)got);
    }
    /* touching it changes nothing; what is kept of a pipe is another file each time */
    if (whole || source->kept) source->modified = source->modified_nano = 0;
    close(file);
    free(bytes);
}

static int compare_inodes(const void *a, const void *b) {
    const Source *x = *(Source *const *)a, *y = *(Source *const *)b;
    if (x->device != y->device) return x->device < y->device ? -1 : 1;
    if (x->inode != y->inode) return x->inode < y->inode ? -1 : 1;
    return x->validation != y->validation ? (int)y->validation - (int)x->validation : (x > y) - (x < y);
}

/* A file for validation is for nothing else, and once, whatever folders it lies in. One that is named twice for training is
   read twice, as it was asked for: returns how many those are. */
static int part_inputs(Inputs *in) {
    Source **order = check_calloc((size_t)(in->n_sources + 1) * sizeof *order);
    int twice = 0, kept = 0;
    for (int s = 0; s < in->n_sources; s++) order[s] = &in->sources[s];
    qsort(order, (size_t)in->n_sources, sizeof *order, compare_inodes);
    for (int s = 1, first = 0; s < in->n_sources; s++) {
        if (!same_file(order[s]->device, order[s]->inode, order[first]->device, order[first]->inode))
            first = s;
        else if (order[first]->validation)
            order[s]->bytes = -1;
        else
            twice++;
    }
    free(order);
    for (int s = 0; s < in->n_sources; s++) {
        if (in->sources[s].bytes < 0)
            free(in->sources[s].path);
        else
            in->sources[kept++] = in->sources[s];
    }
    in->n_sources = kept;
    return twice;
}

/* After all were added: who is for what, and what each holds. */
static void inputs_look(Inputs *in) {
    int twice = part_inputs(in);
#pragma omp parallel for schedule(dynamic) num_threads(in->threads) if (in->n_sources > SLOTS)
    for (int s = 0; s < in->n_sources; s++) look_at_text(&in->sources[s]), look_at_content(&in->sources[s]);
    for (int s = 0; s < in->n_sources; s++) {
        in->bytes += in->sources[s].bytes;
        in->has_validation |= in->sources[s].validation;
    }
    if (twice)
        warn("%d of the %d input files %s named twice, so %s twice", twice, in->n_sources,
             twice == 1 ? "is" : "are", twice == 1 ? "it is read" : "they are read");
}

/* Groups small files into jobs (up to what is always read at once) and fixes how much is read at a time;
   depends on the inputs and round_bytes only. */
static void make_jobs(Inputs *in) {
    in->jobs = check_calloc((size_t)in->n_sources * sizeof *in->jobs);
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
   is read. *searched: how far no blank line begins, as far as it is known; the next document begins there, too. */
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
    /* white space that goes on beyond what is seen may still end in a blank line */
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

/* The same between lines equal to the separator, which is left out: *next is where the next one begins. The
   first *searched bytes are lines known to be no separators. */
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

/* Leaves out what is there of a line that exceeds the largest document; it is a document without text. */
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

/* Whole lines from `cut` on, until the block is full; returns how far they reach. A line that is only half read is not
   searched again. */
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
            return b->n; /* half a line of a part of a file */
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

/* The same for the documents of any text. */
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

static void reader_fail(const Reader *r, const char *what) {
    die("'%s' %s after %lld bytes of text; it is damaged or only partly there: fetch it again",
        r->inputs->sources[r->place.source].path, what, (long long)r->read);
}

/* Opens the next file of the job, at the reader's place; false when there is none. */
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

/* Appends some text to the block; true at the end of the file. */
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

/* The file is done: on to the next of the job. */
static void reader_close(Reader *r) {
    if (!text_close(r->file) && r->fraction == 0) reader_fail(r, text_cut_short);
    r->file = NULL;
    r->ended = false;
    r->read = 0, r->searched = 0, r->skipped = 0;
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
