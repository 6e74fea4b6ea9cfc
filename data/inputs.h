/* inputs.h: the list of files that ./prepare reads: which they are, and a first look at each.

   An input is a file, a folder, whose files and those of all folders below it are read in the order of their names, or
   a pipe. A file is plain text or JSON lines, as it is or compressed (text_file.h). Before anything else is done, all
   files are opened once, so that a file which is not text is found at once and not after hours. Their checksums then
   tell whether an interrupted run can be continued.

     add_path(in, path, format, validation)   adds a file, a folder or a pipe; `validation`: all of it is for
                                              validation
     keep_stream(in, stream, name, format, validation)
                                              adds what a pipe holds: it is copied to a file of the output folder,
                                              since it is read twice, for the vocabulary and for the tokens
     inputs_look(in)                          looks at all files that were added, in parallel
     make_jobs(in)                            groups the files into jobs, each the work of one reader (documents.h)
   All of them end the program with a sentence when an input cannot be used. Nothing is freed: the list lives as long as
   the program. */
#ifndef DATA_INPUTS_H
#define DATA_INPUTS_H

#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>
#include "../gpt/io/checksum.h"
#include "../gpt/io/files.h"
#include "text_file.h"

typedef enum { FORMAT_AUTO, FORMAT_TEXT, FORMAT_JSONL } Format;
/* A plain text file is one document, or is cut into pieces at blank lines. */
typedef enum { DOCUMENTS_AUTO, DOCUMENTS_FILE, DOCUMENTS_CUT } DocumentRule;

enum {
    SLOTS = 16,     /* jobs that are read at the same time. The order of the output depends on this number */
    FEW_FILES = 64, /* DOCUMENTS_AUTO cuts plain text when there are fewer files */
    LOOK_BYTES =
        1 << 16, /* how many bytes of text inputs_look reads of each file; also the size of a sample */
    SAMPLES =
        16 /* the checksum of a large file is that of so many samples; a file no larger is read as a whole */
};

/* A file to read. */
typedef struct {
    char *path;
    int64_t bytes;          /* its size on disk */
    Format format;          /* FORMAT_AUTO until inputs_look has settled it */
    bool jsonl;             /* its format is FORMAT_JSONL */
    bool validation;        /* its documents are for validation, none of them for training */
    bool kept;              /* a copy of what a pipe held, in the output folder, to be removed at the end */
    uint64_t device, inode; /* which file it is, whatever its path */
    /* Seconds and nanoseconds of its last change; both are 0 when the checksum is of the whole file, which then tells
       enough. */
    int64_t modified, modified_nano;
    uint32_t crc; /* CRC-32 of its bytes on disk: of all, or of SAMPLES samples */
} Source;

/* Files in the input folders that are not read, because their names do not say that they are text. They are counted by
   the ending of their names. */
typedef struct {
    char ending[16]; /* ".csv"; "": none, or a long one */
    int count;
    const char *first; /* the path of the first one */
} PassedOver;

/* What one reader (documents.h) reads from beginning to end: a large file, or several small ones. */
typedef struct {
    int first, end; /* sources[first] to sources[end - 1] */
} Job;

typedef struct {
    Source *sources; /* (n_sources) in the order in which they are read */
    int n_sources;
    size_t room; /* how many sources memory is allocated for (check_grow) */
    Job *jobs;   /* (n_jobs) */
    int n_jobs;
    int64_t bytes;           /* the size of all files on disk */
    size_t round_bytes;      /* how much text all readers together read in a round (rounds.h) */
    size_t block_bytes;      /* how much text one reader reads in a round */
    bool has_validation;     /* there are files for validation */
    PassedOver *passed_over; /* (n_passed_over) */
    size_t n_passed_over, passed_over_room;
    const char *out;                /* the output folder, whose own files are not read */
    uint64_t out_device, out_inode; /* which folder that is, whatever its path */
    int n_kept;                     /* pipes that were copied into it */
    uint32_t kept_crc;              /* CRC-32 of all that they held */
    size_t largest;                 /* the most bytes of a document */
    int threads;                    /* how many threads look at files */
    /* how plain text becomes documents */
    DocumentRule rule;
    size_t document_bytes; /* the least size of the pieces that DOCUMENTS_CUT makes */
    const char *separator; /* a line that separates documents; "": there is none, and the rule holds */
} Inputs;

/* -----------------------------------------------------------------------------------------------------------
   The list of inputs */

static bool ends_with(const char *name, size_t length, const char *ending) {
    size_t n = strlen(ending);
    return length >= n && strncmp(name + length - n, ending, n) == 0;
}

/* The format that a file's name says; FORMAT_AUTO: it says none. */
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

/* Whether a name says that a file is for validation: c4-validation.00000-of-00008.json.gz, validation.jsonl and
   my_validation_2.txt do, cross-validation-notes.txt does not. */
static bool names_validation(const char *name) {
    const char *at = strstr(name, "validation");
    if (!at || (at > name && !strchr("-_.", at[-1]))) return false;
    at += strlen("validation");
    return *at == '.' || ((*at == '-' || *at == '_') && at[1] >= '0' && at[1] <= '9');
}

static void add_source(Inputs *in, const char *path, const struct stat *status, Format format,
                       bool validation) {
    in->sources = check_grow(in->sources, &in->room, (size_t)in->n_sources + 1, sizeof *in->sources);
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

/* Counts a file that is not read, under the ending of its name. */
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

/* A folder that holds the one being read, and the folders above it: a symbolic link may lead back to one of them. */
typedef struct Above {
    const struct Above *above;
    dev_t device;
    ino_t inode;
} Above;

/* Some file systems give every file the number 0; there, all files count as different. */
static bool same_file(uint64_t device, uint64_t inode, uint64_t other_device, uint64_t other_inode) {
    return inode != 0 && device == other_device && inode == other_inode;
}

static bool is_out_folder(const Inputs *in, const struct stat *status) {
    return same_file(in->out_device, in->out_inode, (uint64_t)status->st_dev, (uint64_t)status->st_ino);
}

/* The paths of what a folder holds, but for hidden files, sorted by name; *n: how many. The caller frees each and the
   list. */
static char **list_folder(const char *path, size_t *n) {
    char **names = NULL;
    size_t room = 0;
    DIR *folder = opendir(path);
    if (!folder) die("cannot open the folder '%s': %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        names = check_grow(names, &room, *n + 1, sizeof *names);
        names[(*n)++] = file_path(path, entry->d_name);
    }
    closedir(folder);
    if (*n) qsort(names, *n, sizeof *names, compare_names);
    return names;
}

/* Whether what a folder holds must not be read: a file that ./prepare itself wrote there, the output folder, or a
   folder that is being read already. */
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

/* Adds every file in a folder, and in the folders below it, whose name says text or JSON lines. */
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
        in->kept_crc = checksum_crc32(in->kept_crc, bytes, (size_t)n);
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
   A first look at every file */

/* What a file is by its first n bytes, and what to do, when it is not text; NULL: they do not say so. */
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

/* What a file is, judged by where zero bytes stand among its first n bytes; NULL: it may be UTF-8 text, which has none
   or hardly any. Other encodings of text have them at every second byte or at three of four. */
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

/* Settles the format of a file by the first bytes of its text. Dies when it is not text. */
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

/* Computes the checksum of a small file; of a large one that of samples from its beginning to its end, which together
   with its size and the time of its last change tells whether it is the same file later. Reading all of it would take
   as long as preparing it. */
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
        source->crc = checksum_crc32(source->crc, bytes, (size_t)got);
    }
    /* The time of the last change does not count if the checksum is of the whole file, which tells enough, or if the
       file is the copy of a pipe, which is a new file each time. */
    if (whole || source->kept) source->modified = source->modified_nano = 0;
    close(file);
    free(bytes);
}

/* Brings the entries of the same file together, one for validation first, otherwise in the order of the list. */
static int compare_inodes(const void *a, const void *b) {
    const Source *x = *(Source *const *)a, *y = *(Source *const *)b;
    if (x->device != y->device) return x->device < y->device ? -1 : 1;
    if (x->inode != y->inode) return x->inode < y->inode ? -1 : 1;
    return x->validation != y->validation ? (int)y->validation - (int)x->validation : (x > y) - (x < y);
}

/* If a file is named for validation and named again, for validation or for training, removes the further entries from
   the list, so that no document is in both splits. A file that is named twice for training is read twice, as asked for.
   Returns how many such entries there are. */
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

/* A large file is a job of its own; small ones are grouped until they reach the text that a reader reads in a round.
   Also sets how much that is. The result depends on the files and on round_bytes alone. */
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

#endif
